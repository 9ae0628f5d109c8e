/* Carving the workspace of the fast path. Sizes grow with every count of the batch and with the
 * threads, so a workspace that was enough once is enough for every batch that is not larger.
 */
#include "model/fast_plan.h"

#include "model/simd.h"

#include <string.h>

#define REAL(count) MDL_TAKE(arena, count, mdl_real)

int mdl_fast_takes(const struct mdl_config *config)
{
    return config->width % MDL_PAD == 0;
}

static void take_tail(struct mdl_tail *tail, struct mdl_arena *arena, size_t d)
{
    tail->W_oT = REAL(d * d);
    tail->W_1T = REAL(2 * d * d);
    tail->W_2T = REAL(2 * d * d);
}

static void take_context(struct mdl_context *context, struct mdl_arena *arena, int d_c, int d,
                         int h)
{
    context->d_c = d_c;
    context->wc = mdl_padded(2 * d + h);
    context->W = REAL((size_t)d_c * context->wc);
    context->bias = REAL(context->wc);
    context->WT = REAL((size_t)d_c * context->wc);
}

static void take_small(struct mdl_small *small, struct mdl_arena *arena, const struct mdl_fast *f,
                       int d_c)
{
    size_t d = (size_t)f->d, n = (size_t)(f->C + f->M + MDL_TIME_FEATURES + 1);
    small->basis = REAL(n * d);
    small->image = REAL(n * 4 * d);
    small->pair = REAL((size_t)f->C * f->M * 4 * d);
    small->W_qkv = REAL(3 * d * d);
    take_tail(&small->tail, arena, d);
    take_context(&small->context, arena, d_c, f->d, f->h);
}

static void take_prepared(struct mdl_fast *f, struct mdl_arena *arena)
{
    size_t d = (size_t)f->d;
    int d_gen = f->u + f->f + f->d;
    take_small(&f->act, arena, f, f->f);
    take_small(&f->gen, arena, f, d_gen);
    f->item.W_xT = REAL(d * (d + (size_t)f->f));
    f->item.W_qkv = REAL(3 * d * d);
    f->item.b_qkv = REAL(3 * d);
    f->item.W_qkvT = REAL(3 * d * d);
    take_tail(&f->item.tail, arena, d);
    take_context(&f->item.context, arena, f->f, f->d, f->h);
    f->decision.out = mdl_padded(f->C + 1);
    size_t out = (size_t)f->decision.out;
    f->decision.W_1 = REAL(2 * d * d);
    f->decision.b_1 = REAL(2 * d);
    f->decision.W_1T = REAL(2 * d * d);
    f->decision.W_2 = REAL(2 * d * out);
    f->decision.b_2 = REAL(out);
    f->decision.W_2T = REAL(2 * d * out);
    size_t basis = (size_t)(f->C + f->M + MDL_TIME_FEATURES + 1);
    size_t rows = basis > (size_t)d_gen ? basis : (size_t)d_gen;
    f->scratch = REAL(2 * rows * 4 * d + d * d);
}

static void take_tail_sums(struct mdl_tail_sums *sums, struct mdl_arena *arena, size_t d)
{
    sums->W_o = REAL(d * d);
    sums->b_o = REAL(d);
    sums->ln1_w = REAL(d);
    sums->ln1_b = REAL(d);
    sums->W_1 = REAL(2 * d * d);
    sums->b_1 = REAL(2 * d);
    sums->W_2 = REAL(2 * d * d);
    sums->b_2 = REAL(d);
    sums->ln2_w = REAL(d);
    sums->ln2_b = REAL(d);
}

static void take_context_sums(struct mdl_context_sums *sums, struct mdl_arena *arena,
                              const struct mdl_context *context)
{
    sums->W = REAL((size_t)context->d_c * context->wc);
    sums->bias = REAL(context->wc);
}

static void take_small_sums(struct mdl_small_sums *sums, struct mdl_arena *arena,
                            const struct mdl_fast *f, const struct mdl_small *small)
{
    sums->pair = REAL((size_t)f->C * f->M * 4 * f->d);
    sums->times = REAL((size_t)MDL_TIME_FEATURES * 4 * f->d);
    take_tail_sums(&sums->tail, arena, (size_t)f->d);
    take_context_sums(&sums->context, arena, &small->context);
}

static void take_slice(struct mdl_slice *s, struct mdl_arena *arena, struct mdl_fast *f)
{
    size_t d = (size_t)f->d, from = arena->used;
    take_small_sums(&s->act, arena, f, &f->act);
    take_small_sums(&s->gen, arena, f, &f->gen);
    s->item.W_x = REAL((d + (size_t)f->f) * d);
    s->item.b_x = REAL(d);
    s->item.W_qkv = REAL(3 * d * d);
    s->item.b_qkv = REAL(3 * d);
    s->item.Rho = REAL((size_t)f->h * f->config->history);
    take_tail_sums(&s->item.tail, arena, d);
    take_context_sums(&s->item.context, arena, &f->item.context);
    s->decision_W_1 = REAL(2 * d * d);
    s->decision_b_1 = REAL(2 * d);
    s->decision_W_2 = REAL(2 * d * (size_t)f->decision.out);
    s->decision_b_2 = REAL(f->decision.out);
    s->sums = s->act.pair;
    f->n_sums = (arena->used - from) / sizeof(mdl_real);
    s->local = MDL_TAKE(arena, f->batch->n_seqs, int);
}

static void take_kept(struct mdl_kept *kept, struct mdl_arena *arena, size_t rows, size_t d,
                      size_t attention)
{
    kept->A = REAL(rows * attention);
    kept->norm1 = REAL(rows * d);
    kept->inv1 = REAL(rows);
    kept->F = REAL(rows * 2 * d);
    kept->norm2 = REAL(rows * d);
    kept->inv2 = REAL(rows);
}

static void take_small_room(struct mdl_small_room *room, struct mdl_arena *arena,
                            const struct mdl_fast *f, const struct mdl_context *context,
                            int max_rows, int max_groups)
{
    size_t d = (size_t)f->d, rows = (size_t)max_rows, groups = (size_t)max_groups;
    size_t scores = (size_t)f->M * (size_t)mdl_padded(f->h * f->M);
    room->max_rows = max_rows;
    room->max_groups = max_groups;
    room->phi = REAL(rows * MDL_TIME_FEATURES);
    room->XQKV = REAL(rows * 4 * d);
    room->dXQKV = REAL(rows * 4 * d);
    room->cc = REAL(groups * (size_t)context->wc);
    room->dcc = REAL(groups * (size_t)context->wc);
    room->ctx = REAL(groups * (size_t)context->d_c);
    room->dctx = REAL(groups * (size_t)context->d_c);
    room->N = REAL(rows * d);
    room->R = REAL(rows * d);
    room->D = REAL(rows * d);
    room->dF = REAL(rows * 2 * d);
    room->scores = REAL(scores);
    room->pair = MDL_TAKE(arena, rows, int);
    room->offset = MDL_TAKE(arena, groups + 1, int);
}

static void take_item_room(struct mdl_item_room *room, struct mdl_arena *arena,
                           const struct mdl_fast *f)
{
    size_t d = (size_t)f->d, H = (size_t)f->config->history, Hp = (size_t)f->Hp;
    mdl_real **square[] = {&room->Q, &room->K, &room->V, &room->U, &room->N};
    for (size_t i = 0; i < sizeof(square) / sizeof(square[0]); i++)
        *square[i] = REAL(H * d);
    room->KT = REAL(d * Hp);
    room->VT = REAL(d * Hp);
    room->rho = REAL((size_t)f->h * Hp);
    room->A = REAL((size_t)f->h * H * Hp);
    take_kept(&room->kept, arena, H, d, 0);
    room->cc = REAL(f->item.context.wc);
    room->dcc = REAL(f->item.context.wc);
    room->Vec = REAL(d);
    room->dVec = REAL(d);
}

static void take_room(struct mdl_room *room, struct mdl_arena *arena, const struct mdl_fast *f)
{
    size_t d = (size_t)f->d, H = (size_t)f->config->history, Hp = (size_t)f->Hp;
    int tile_rows = MDL_TILE_SAMPLES * (f->M - 1);
    size_t tile = (size_t)tile_rows;
    take_small_room(&room->act, arena, f, &f->act.context, MDL_CHUNK_ROWS, MDL_CHUNK_ROWS);
    take_small_room(&room->gen, arena, f, &f->gen.context, tile_rows, MDL_TILE_SAMPLES);
    room->Z = REAL(MDL_CHUNK_ROWS * (d + (size_t)f->f));
    room->dZ = REAL(MDL_CHUNK_ROWS * (d + (size_t)f->f));
    room->dX = REAL(MDL_CHUNK_ROWS * 4 * d);
    room->dSeq = REAL(MDL_CHUNK_ROWS * d);
    for (int i = 0; i < MDL_TILE_SAMPLES; i++)
        take_item_room(&room->item[i], arena, f);
    take_kept(&room->gen_kept, arena, tile, d, (size_t)mdl_padded(f->h * f->M));
    room->W_oG = REAL(d * d);
    room->P = REAL(d * d);
    room->R = REAL(H * d);
    room->D = REAL(H * d);
    room->dF = REAL(H * 2 * d);
    room->dS = REAL(H * Hp);
    room->dQKV = REAL(H * 4 * d);
    room->Y = REAL(tile * d);
    room->dY = REAL(tile * d);
    room->hidden = REAL(tile * 2 * d);
    room->dhidden = REAL(tile * 2 * d);
    room->out = REAL(tile * (size_t)f->decision.out);
    room->dout = REAL(tile * (size_t)f->decision.out);
    room->P_ = REAL(f->M * f->C);
    room->dP = REAL(f->M * f->C);
    room->That = REAL(f->M);
    room->dThat = REAL(f->M);
}

static void set_sizes(struct mdl_fast *f, const struct mdl_config *config,
                      const struct mdl_batch *batch)
{
    memset(f, 0, sizeof(*f));
    f->config = config;
    f->batch = batch;
    f->d = config->width;
    f->h = config->heads;
    f->d_h = f->d / f->h;
    f->M = config->n_actions;
    f->C = f->M + 1;
    f->f = config->item_dim;
    f->u = config->user_dim;
    f->Hp = mdl_padded(config->history);
    f->n_tokens = batch->seq_offset[batch->n_seqs];
    f->n_hist = batch->hist_offset[batch->n_samples];
    f->n_threads = config->threads > 1 ? config->threads : 1;
    f->n_slices = batch->n_samples / MDL_SLICE_SAMPLES;
    if (f->n_slices < 1)
        f->n_slices = 1;
    if (f->n_slices > MDL_MAX_SLICES)
        f->n_slices = MDL_MAX_SLICES;
}

static void take_seqs(struct mdl_fast *f, struct mdl_arena *arena)
{
    size_t n_seqs = (size_t)f->batch->n_seqs, d = (size_t)f->d;
    f->chunk = MDL_TAKE(arena, f->n_tokens / (MDL_CHUNK_ROWS - f->M + 1) + 2, int);
    f->Seq = REAL(n_seqs * d);
    f->XQKV = REAL(n_seqs * 4 * d);
}

void mdl_fast_take(struct mdl_fast *fast, struct mdl_arena *arena, const struct mdl_config *config,
                   const struct mdl_batch *batch)
{
    struct mdl_fast *f = fast;
    set_sizes(f, config, batch);
    take_prepared(f, arena);
    take_seqs(f, arena);
    take_kept(&f->act_kept, arena, (size_t)f->n_tokens, (size_t)f->d,
              (size_t)mdl_padded(f->h * f->M));
    f->d_seq_item = REAL((size_t)batch->n_seqs * f->f);
    f->d_target = REAL((size_t)batch->n_samples * f->f);
    f->d_user = REAL((size_t)batch->n_samples * f->u);
    /* a slice has as many local seqs as its samples have history entries, at most */
    mdl_real *rows = REAL((size_t)f->n_hist * 4 * f->d);
    for (int s = 0; s < f->n_slices; s++) {
        int first = (int)((int64_t)batch->n_samples * s / f->n_slices);
        take_slice(&f->slice[s], arena, f);
        if (rows)
            f->slice[s].dXQKV = rows + (size_t)batch->hist_offset[first] * 4 * f->d;
    }
    for (int t = 0; t < f->n_threads; t++)
        take_room(&f->room[t], arena, f);
}

void mdl_fast_take_reading(struct mdl_fast *fast, struct mdl_arena *arena,
                           const struct mdl_config *config, const struct mdl_batch *batch)
{
    struct mdl_fast *f = fast;
    set_sizes(f, config, batch);
    take_prepared(f, arena);
    take_seqs(f, arena);
    for (int t = 0; t < f->n_threads; t++) {
        struct mdl_room *room = &f->room[t];
        take_small_room(&room->act, arena, f, &f->act.context, MDL_CHUNK_ROWS, MDL_CHUNK_ROWS);
        take_kept(&room->act_kept, arena, MDL_CHUNK_ROWS, (size_t)f->d,
                  (size_t)mdl_padded(f->h * f->M));
        room->Z = REAL((size_t)MDL_CHUNK_ROWS * (f->d + f->f));
    }
}

void mdl_fast_cut(struct mdl_fast *fast)
{
    const int *offset = fast->batch->seq_offset;
    int n_seqs = fast->batch->n_seqs, n = 0;
    for (int s = 0; s < n_seqs; n++) {
        fast->chunk[n] = s;
        int limit = offset[s] + MDL_CHUNK_ROWS;
        while (s < n_seqs && offset[s + 1] <= limit)
            s++;
    }
    fast->chunk[n] = n_seqs;
    fast->n_chunks = n;
}

/* Carving the workspace of fast reading. */
#include "model/fast_read_plan.h"

#include "model/simd.h"

#define REAL(count) MDL_TAKE(arena, count, mdl_real)

static void take_history(struct mdl_read_room *room, struct mdl_arena *arena,
                         const struct mdl_fast *f)
{
    size_t d = (size_t)f->d, H = (size_t)f->config->history, Hp = (size_t)f->Hp;
    struct mdl_item_room *item = &room->item;
    mdl_real **square[] = {&item->Q,  &item->K, &item->V,  &item->U, &item->N,
                           &room->Q0, &room->X, &room->fV, &room->R};
    for (size_t i = 0; i < sizeof(square) / sizeof(square[0]); i++)
        *square[i] = REAL(H * d);
    item->KT = REAL(d * Hp);
    item->rho = REAL((size_t)f->h * Hp);
    item->A = REAL((size_t)f->h * H * Hp);
    item->kept.norm1 = REAL(H * d);
    item->kept.inv1 = REAL(H);
    item->kept.F = REAL(H * 2 * d);
    item->kept.norm2 = REAL(H * d);
    item->kept.inv2 = REAL(H);
    item->cc = REAL(f->item.context.wc);
    item->Vec = REAL(d);
    room->factor = REAL((size_t)f->h * Hp);
    room->W_oG = REAL(d * d);
}

static void take_generator(struct mdl_read_room *room, struct mdl_arena *arena,
                           const struct mdl_fast_reading *reading)
{
    const struct mdl_fast *f = &reading->fast;
    size_t d = (size_t)f->d, rows = MDL_READ_ROWS, out = (size_t)f->decision.out;
    size_t answers = (size_t)MDL_READ_TILE * (size_t)reading->level_nodes;
    room->ctx = REAL((size_t)MDL_READ_TASK * f->gen.context.d_c);
    room->cc = REAL((size_t)MDL_READ_TASK * f->gen.context.wc);
    room->KV = REAL((size_t)MDL_READ_TILE * reading->nodes * 2 * d);
    if (reading->mode == MDL_READ_EXACT)
        for (int i = 0; i < MDL_READ_TILE; i++)
            mdl_tree_take(&room->tree[i], arena, f->M);
    room->greedy = MDL_TAKE(arena, MDL_READ_TILE, struct mdl_greedy);
    room->P = REAL(answers * f->C);
    room->That = REAL(answers);
    room->sample = MDL_TAKE(arena, rows, int);
    room->node = MDL_TAKE(arena, rows, int);
    room->parent = MDL_TAKE(arena, rows, int);
    room->action = MDL_TAKE(arena, rows, uint8_t);
    room->time = MDL_TAKE(arena, rows, float);
    room->pair = MDL_TAKE(arena, rows, int);
    room->phi = REAL(rows * MDL_TIME_FEATURES);
    room->XQKV = REAL(rows * 4 * d);
    room->N = REAL(rows * d);
    room->T = REAL(rows * d);
    room->Y = REAL(rows * d);
    room->kept.norm1 = REAL(rows * d);
    room->kept.inv1 = REAL(rows);
    room->kept.F = REAL(rows * 2 * d);
    room->kept.norm2 = REAL(rows * d);
    room->kept.inv2 = REAL(rows);
    room->hidden = REAL(rows * 2 * d);
    room->out = REAL(rows * out);
    room->scores = REAL(mdl_padded(f->h * f->M));
}

void mdl_fast_reading_take(struct mdl_fast_reading *reading, struct mdl_arena *arena,
                           const struct mdl_config *config, const struct mdl_batch *batch,
                           enum mdl_read_mode mode)
{
    struct mdl_fast *f = &reading->fast;
    mdl_fast_take_reading(f, arena, config, batch);
    reading->mode = mode;
    reading->level_nodes = mode == MDL_READ_EXACT ? mdl_tree_max_level_nodes(f->M) : 1;
    reading->nodes = reading->level_nodes * (f->M - 1);
    for (int t = 0; t < f->n_threads; t++) {
        take_history(&reading->room[t], arena, f);
        take_generator(&reading->room[t], arena, reading);
    }
}

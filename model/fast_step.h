/* One training step on the fast path: the three phases (fast_plan.h) and what stands around them.
 * Included once per level; the level's one entry is mdl_fast_step.
 */
#ifndef MODEL_FAST_STEP_H
#define MODEL_FAST_STEP_H

#include "model/a2gen.h"
#include "model/fast_item.h"
#include "model/fast_small.h"
#include "model/parallel.h"
#include "model/params.h"
#include "model/reference_ends.h"

#include <time.h>

/* Books the time since the last lap to a module. */
MDL_INLINE void mdl_lap(const struct mdl_fast *f, enum mdl_module module)
{
    if (!f->clock)
        return;
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    double at = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    f->clock->seconds[module] += at - f->clock->last;
    f->clock->last = at;
}

MDL_STATIC void mdl_prepare_decision(const struct mdl_fast *f, struct mdl_decision *p)
{
    const struct mdl_decision_weights *w = &f->w.decision;
    int d = f->d, C = f->C, out = p->out;
    memset(p->W_2, 0, (size_t)2 * d * out * sizeof(mdl_real));
    memset(p->b_2, 0, (size_t)out * sizeof(mdl_real));
    for (int i = 0; i < d; i++) {
        memcpy(p->W_1 + (size_t)i * 2 * d, w->W_c1 + i * d, (size_t)d * sizeof(mdl_real));
        memcpy(p->W_1 + (size_t)i * 2 * d + d, w->W_t1 + i * d, (size_t)d * sizeof(mdl_real));
        memcpy(p->W_2 + (size_t)i * out, w->W_c2 + i * C, (size_t)C * sizeof(mdl_real));
        p->W_2[(size_t)(d + i) * out + C] = w->w_t2[i];
    }
    memcpy(p->b_1, w->b_c1, (size_t)d * sizeof(mdl_real));
    memcpy(p->b_1 + d, w->b_t1, (size_t)d * sizeof(mdl_real));
    memcpy(p->b_2, w->b_c2, (size_t)C * sizeof(mdl_real));
    p->b_2[C] = w->b_t2[0];
    mdl_transpose(d, 2 * d, p->W_1, 2 * d, p->W_1T, d);
    mdl_transpose(2 * d, out, p->W_2, out, p->W_2T, 2 * d);
}

MDL_STATIC void mdl_prepare(struct mdl_fast *f, const mdl_real *params)
{
    mdl_weights_view(f->config, params, &f->w);
    mdl_prepare_small(f, &f->w.token_hist, &f->w.cam_act, &f->act);
    mdl_prepare_small(f, &f->w.token_gen, &f->w.cam_gen, &f->gen);
    mdl_prepare_item(f, &f->w.cam_item, &f->item);
    mdl_prepare_decision(f, &f->decision);
}

/* The room of a chunk of seqs made ready: offset, pair, phi, ctx. Returns the number of seqs. */
MDL_STATIC int mdl_fill_act(const struct mdl_fast *f, int chunk, struct mdl_small_room *room)
{
    const struct mdl_batch *b = f->batch;
    int first = f->chunk[chunk], n = f->chunk[chunk + 1] - first, token = b->seq_offset[first];
    for (int s = 0; s <= n; s++)
        room->offset[s] = b->seq_offset[first + s] - token;
    for (int s = 0; s < n; s++) {
        memcpy(room->ctx + (size_t)s * f->f, b->item + (size_t)b->seq_item[first + s] * f->f,
               (size_t)f->f * sizeof(mdl_real));
        for (int i = room->offset[s]; i < room->offset[s + 1]; i++) {
            room->pair[i] = b->seq_action[token + i] * f->M + i - room->offset[s];
            mdl_fast_phi(b->seq_time[token + i], room->phi + (size_t)i * MDL_TIME_FEATURES);
        }
    }
    return n;
}

/* the kept arrays from row on */
MDL_INLINE struct mdl_kept mdl_kept_from(const struct mdl_fast *f, const struct mdl_kept *kept,
                                         size_t row)
{
    size_t d = (size_t)f->d;
    return (struct mdl_kept){.A = kept->A + row * (size_t)mdl_padded(f->h * f->M),
                             .norm1 = kept->norm1 + row * d,
                             .inv1 = kept->inv1 + row,
                             .F = kept->F + row * 2 * d,
                             .norm2 = kept->norm2 + row * d,
                             .inv2 = kept->inv2 + row};
}

/* Phase A: Seq and X | Q | K | V of one chunk of seqs. */
MDL_STATIC void mdl_phase_a(void *context, int chunk, int thread)
{
    struct mdl_fast *f = context;
    struct mdl_room *room = &f->room[thread];
    int d = f->d, first = f->chunk[chunk];
    int n = mdl_fill_act(f, chunk, &room->act);
    struct mdl_kept kept = f->act_kept.A
                               ? mdl_kept_from(f, &f->act_kept, (size_t)f->batch->seq_offset[first])
                               : room->act_kept;
    mdl_small_forward(f, &f->act, &room->act, n, 0, &kept, NULL);
    const struct mdl_cam_weights *w = f->act.w;
    for (int s = 0; s < n; s++) {
        int from = room->act.offset[s], L = room->act.offset[s + 1] - from;
        mdl_real *Seq = f->Seq + (size_t)(first + s) * d;
        mdl_vec per = mdl_splat(1 / (mdl_real)L);
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_vec sum = mdl_splat(0);
            for (int i = from; i < from + L; i++)
                sum += mdl_load(kept.norm2 + (size_t)i * d + k);
            mdl_store(Seq + k, mdl_load(w->ln2_w + k) * (sum * per) + mdl_load(w->ln2_b + k));
        }
    }
    mdl_lap(f, MDL_MODULE_ACT);
    mdl_item_inputs(f, first, n, room->Z);
    mdl_lap(f, MDL_MODULE_INPUTS);
}

/* Phase C: backward of one slice of the chunks. */
MDL_STATIC void mdl_phase_c(void *context, int slice, int thread)
{
    struct mdl_fast *f = context;
    struct mdl_room *room = &f->room[thread];
    struct mdl_slice *sums = &f->slice[slice];
    int d = f->d, wide = f->d + f->f;
    int end = (int)((int64_t)f->n_chunks * (slice + 1) / f->n_slices);
    for (int chunk = (int)((int64_t)f->n_chunks * slice / f->n_slices); chunk < end; chunk++) {
        int first = f->chunk[chunk], n = mdl_fill_act(f, chunk, &room->act);
        for (int s = 0; s < n; s++) {
            mdl_real *dX = room->dX + (size_t)s * 4 * d;
            memset(dX, 0, (size_t)4 * d * sizeof(mdl_real));
            for (int k = 0; k < f->n_slices; k++)
                if (f->slice[k].local[first + s] >= 0)
                    mdl_add_rows(1, 4 * d,
                                 f->slice[k].dXQKV + (size_t)f->slice[k].local[first + s] * 4 * d,
                                 0, dX);
        }
        mdl_item_inputs_backward(f, first, n, room->Z, room->dX, room->dZ, &sums->item);
        mdl_lap(f, MDL_MODULE_INPUTS);
        /* dY of a token: its seq's dSeq over the length; XQKV is free until backward fills it */
        mdl_real *dY = room->act.N;
        for (int s = 0; s < n; s++) {
            int from = room->act.offset[s], L = room->act.offset[s + 1] - from;
            mdl_vec per = mdl_splat(1 / (mdl_real)L);
            for (int k = 0; k < d; k += MDL_LANES) {
                mdl_vec share = mdl_load(room->dZ + (size_t)s * wide + k) * per;
                for (int i = from; i < from + L; i++)
                    mdl_store(dY + (size_t)i * d + k, share);
            }
        }
        struct mdl_kept kept = mdl_kept_from(f, &f->act_kept, (size_t)f->batch->seq_offset[first]);
        mdl_small_backward(f, &f->act, &room->act, n, 0, &kept, dY, &sums->act);
        for (int s = 0; s < n; s++)
            for (int k = 0; k < f->f; k++)
                f->d_seq_item[(size_t)(first + s) * f->f + k] =
                    room->dZ[(size_t)s * wide + d + k] + room->act.dctx[(size_t)s * f->f + k];
        mdl_lap(f, MDL_MODULE_ACT);
    }
}

/* F_context and the padded tokens of n samples from first on: the generator's room. */
MDL_STATIC void mdl_fill_gen(const struct mdl_fast *f, int first, int n, struct mdl_room *room)
{
    const struct mdl_batch *b = f->batch;
    int M = f->M, u = f->u, d_c = f->gen.context.d_c;
    size_t real = sizeof(mdl_real);
    for (int i = 0; i < n; i++) {
        mdl_real *c = room->gen.ctx + (size_t)i * d_c;
        memcpy(c, b->user + (size_t)b->sample_user[first + i] * u, (size_t)u * real);
        memcpy(c + u, b->item + (size_t)b->sample_item[first + i] * f->f, (size_t)f->f * real);
        memcpy(c + u + f->f, room->item[i].Vec, (size_t)f->d * real);
        int from = b->target_offset[first + i], m = b->target_offset[first + i + 1] - from;
        for (int k = 0; k < M - 1; k++) {
            int at = i * (M - 1) + k, action = k < m ? b->target_action[from + k] : 0;
            room->gen.pair[at] = action * M + k;
            mdl_fast_phi(k < m ? b->target_time[from + k] : 0,
                         room->gen.phi + (size_t)at * MDL_TIME_FEATURES);
        }
        room->gen.offset[i] = i * (M - 1);
    }
    room->gen.offset[n] = n * (M - 1);
}

/* Decision layer over n rows of Y: room->hidden, room->out (logits and time). */
MDL_STATIC void mdl_decide(const struct mdl_fast *f, int n, const mdl_real *Y, mdl_real *hidden,
                           mdl_real *out)
{
    const struct mdl_decision *p = &f->decision;
    int d = f->d;
    mdl_mul(n, 2 * d, d, Y, d, 1, p->W_1, 2 * d, p->b_1, MDL_RELU, hidden, 2 * d);
    mdl_mul(n, p->out, 2 * d, hidden, 2 * d, 1, p->W_2, p->out, p->b_2, 0, out, p->out);
}

/* P [C] from a row of logits */
MDL_STATIC void mdl_probabilities(int C, const mdl_real *logits, mdl_real *P)
{
    mdl_real max = logits[0], sum = 0;
    for (int c = 1; c < C; c++)
        max = logits[c] > max ? logits[c] : max;
    for (int c = 0; c < C; c++)
        sum += P[c] = (mdl_real)exp((double)(logits[c] - max));
    for (int c = 0; c < C; c++)
        P[c] /= sum;
}

/* Losses of n samples from room->out, and their gradients in room->dout. */
MDL_STATIC void mdl_losses_of_tile(const struct mdl_fast *f, int first, int n,
                                   struct mdl_room *room, double losses[3])
{
    const struct mdl_batch *b = f->batch;
    int M = f->M, C = f->C, out = f->decision.out;
    memset(room->dout, 0, (size_t)n * (M - 1) * out * sizeof(mdl_real));
    for (int i = 0; i < n; i++) {
        int from = b->target_offset[first + i], m = b->target_offset[first + i + 1] - from;
        for (int k = 0; k < M - 1; k++) {
            const mdl_real *row = room->out + (size_t)(i * (M - 1) + k) * out;
            mdl_probabilities(C, row, room->P_ + k * C);
            room->That[k] = row[C];
        }
        mdl_sample_losses(f->config, m, b->target_action + from, b->target_time + from, room->P_,
                          room->That, 1.0 / b->n_global, losses, room->dP, room->dThat);
        for (int k = 0; k < M - 1; k++) {
            mdl_real *row = room->dout + (size_t)(i * (M - 1) + k) * out;
            memcpy(row, room->dP + k * C, (size_t)C * sizeof(mdl_real));
            row[C] = room->dThat[k];
        }
    }
}

/* From room->dout: room->dY; adds to the slice's sums. */
MDL_STATIC void mdl_decide_backward(const struct mdl_fast *f, int n, struct mdl_room *room,
                                    struct mdl_slice *sums)
{
    const struct mdl_decision *p = &f->decision;
    int d = f->d, out = p->out;
    mdl_mul(2 * d, out, n, room->hidden, 1, 2 * d, room->dout, out, NULL, MDL_ADD,
            sums->decision_W_2, out);
    mdl_add_rows(n, out, room->dout, out, sums->decision_b_2);
    mdl_mul(n, 2 * d, out, room->dout, out, 1, p->W_2T, 2 * d, NULL, 0, room->dhidden, 2 * d);
    mdl_relu_rows_backward(n, 2 * d, room->hidden, room->dhidden, sums->decision_b_1);
    mdl_mul(d, 2 * d, n, room->Y, 1, d, room->dhidden, 2 * d, NULL, MDL_ADD, sums->decision_W_1,
            2 * d);
    mdl_mul(n, d, 2 * d, room->dhidden, 2 * d, 1, p->W_1T, d, NULL, 0, room->dY, d);
}

/* Adds dQKV [L, 4d] to the slice's rows of the seqs. */
MDL_STATIC void mdl_scatter(const struct mdl_fast *f, const int *seq, int L, const mdl_real *dQKV,
                            struct mdl_slice *sums)
{
    int wide = 4 * f->d;
    for (int j = 0; j < L; j++) {
        mdl_real *to;
        if (sums->local[seq[j]] < 0) {
            sums->local[seq[j]] = sums->n_local++;
            to = sums->dXQKV + (size_t)sums->local[seq[j]] * wide;
            memcpy(to, dQKV + (size_t)j * wide, (size_t)wide * sizeof(mdl_real));
            continue;
        }
        to = sums->dXQKV + (size_t)sums->local[seq[j]] * wide;
        mdl_add_rows(1, wide, dQKV + (size_t)j * wide, 0, to);
    }
}

/* One tile of n samples from first on, all the way to Vec_hist's inputs and back. */
MDL_STATIC void mdl_tile(struct mdl_fast *f, int first, int n, struct mdl_room *room,
                         struct mdl_slice *sums, int backward)
{
    const struct mdl_batch *b = f->batch;
    int d = f->d, rows = n * (f->M - 1), d_c = f->gen.context.d_c;
    for (int i = 0; i < n; i++) {
        int from = b->hist_offset[first + i], L = b->hist_offset[first + i + 1] - from;
        mdl_context_forward(1, d, f->h, &f->item.context,
                            b->item + (size_t)b->sample_item[first + i] * f->f, room->item[i].cc);
        mdl_item_forward(f, b->hist_seq + from, L, &room->item[i], room->W_oG, room->R);
    }
    mdl_lap(f, MDL_MODULE_ITEM);
    mdl_fill_gen(f, first, n, room);
    mdl_small_forward(f, &f->gen, &room->gen, n, 1, &room->gen_kept, room->Y);
    mdl_lap(f, MDL_MODULE_GEN);
    mdl_decide(f, rows, room->Y, room->hidden, room->out);
    mdl_losses_of_tile(f, first, n, room, sums->losses);
    if (!backward)
        return;
    mdl_decide_backward(f, rows, room, sums);
    mdl_lap(f, MDL_MODULE_DECISION);
    mdl_small_backward(f, &f->gen, &room->gen, n, 1, &room->gen_kept, room->dY, &sums->gen);
    mdl_lap(f, MDL_MODULE_GEN);
    for (int i = 0; i < n; i++) {
        const mdl_real *dc = room->gen.dctx + (size_t)i * d_c;
        int from = b->hist_offset[first + i], L = b->hist_offset[first + i + 1] - from;
        memcpy(f->d_user + (size_t)(first + i) * f->u, dc, (size_t)f->u * sizeof(mdl_real));
        memcpy(room->item[i].dVec, dc + f->u + f->f, (size_t)d * sizeof(mdl_real));
        mdl_item_backward(f, L, &room->item[i], room, &sums->item);
        mdl_scatter(f, b->hist_seq + from, L, room->dQKV, sums);
        mdl_real *d_target = f->d_target + (size_t)(first + i) * f->f;
        mdl_context_backward(1, d, f->h, &f->item.context,
                             b->item + (size_t)b->sample_item[first + i] * f->f, room->item[i].cc,
                             room->item[i].dcc, &sums->item.context, d_target);
        for (int k = 0; k < f->f; k++)
            d_target[k] += dc[f->u + k];
    }
    mdl_lap(f, MDL_MODULE_ITEM);
}

MDL_STATIC void mdl_phase_b_slice(struct mdl_fast *f, int slice, int thread, int backward)
{
    struct mdl_slice *sums = &f->slice[slice];
    int n = f->batch->n_samples;
    int end = (int)((int64_t)n * (slice + 1) / f->n_slices);
    memset(sums->losses, 0, sizeof(sums->losses));
    if (backward) {
        memset(sums->sums, 0, f->n_sums * sizeof(mdl_real));
        for (int s = 0; s < f->batch->n_seqs; s++)
            sums->local[s] = -1;
        sums->n_local = 0;
    }
    for (int i = (int)((int64_t)n * slice / f->n_slices); i < end; i += MDL_TILE_SAMPLES)
        mdl_tile(f, i, end - i < MDL_TILE_SAMPLES ? end - i : MDL_TILE_SAMPLES, &f->room[thread],
                 sums, backward);
}

MDL_STATIC void mdl_phase_b(void *context, int slice, int thread)
{
    mdl_phase_b_slice(context, slice, thread, 1);
}

MDL_STATIC void mdl_phase_b_forward(void *context, int slice, int thread)
{
    mdl_phase_b_slice(context, slice, thread, 0);
}

/* All slices' sums into the first's, in order, and from there the gradients of the named tensors.
 * */
MDL_STATIC void mdl_finish(struct mdl_fast *f, struct mdl_grads *grads)
{
    const struct mdl_batch *b = f->batch;
    const struct mdl_slice *sums = &f->slice[0];
    struct mdl_weights dw;
    int d = f->d, C = f->C, out = f->decision.out;
    for (int s = 1; s < f->n_slices; s++)
        for (size_t k = 0; k < f->n_sums; k++)
            sums->sums[k] += f->slice[s].sums[k];
    mdl_weights_view(f->config, grads->dense, &dw);
    mdl_small_finish(f, &f->act, &sums->act, f->scratch, &dw.cam_act, &dw.token_hist);
    mdl_small_finish(f, &f->gen, &sums->gen, f->scratch, &dw.cam_gen, &dw.token_gen);
    mdl_item_finish(f, &sums->item, f->scratch, &dw.cam_item);
    for (int i = 0; i < d; i++) {
        memcpy(dw.decision.W_c1 + i * d, sums->decision_W_1 + i * 2 * d, d * sizeof(mdl_real));
        memcpy(dw.decision.W_t1 + i * d, sums->decision_W_1 + i * 2 * d + d, d * sizeof(mdl_real));
        memcpy(dw.decision.W_c2 + i * C, sums->decision_W_2 + i * out, C * sizeof(mdl_real));
        dw.decision.w_t2[i] = sums->decision_W_2[(d + i) * out + C];
    }
    memcpy(dw.decision.b_c1, sums->decision_b_1, d * sizeof(mdl_real));
    memcpy(dw.decision.b_t1, sums->decision_b_1 + d, d * sizeof(mdl_real));
    memcpy(dw.decision.b_c2, sums->decision_b_2, C * sizeof(mdl_real));
    dw.decision.b_t2[0] = sums->decision_b_2[C];

    memset(grads->user, 0, (size_t)b->n_users * f->u * sizeof(mdl_real));
    memset(grads->item, 0, (size_t)b->n_items * f->f * sizeof(mdl_real));
    for (int i = 0; i < b->n_samples; i++) {
        mdl_axpy(f->u, 1, f->d_user + (size_t)i * f->u,
                 grads->user + (size_t)b->sample_user[i] * f->u);
        mdl_axpy(f->f, 1, f->d_target + (size_t)i * f->f,
                 grads->item + (size_t)b->sample_item[i] * f->f);
    }
    for (int s = 0; s < b->n_seqs; s++)
        mdl_axpy(f->f, 1, f->d_seq_item + (size_t)s * f->f,
                 grads->item + (size_t)b->seq_item[s] * f->f);
}

/* The step on checked input, f already carved for it. */
MDL_STATIC void mdl_fast_step(struct mdl_fast *f, const mdl_real *params,
                              struct mdl_losses *losses_p, struct mdl_grads *grads)
{
    double sums[3] = {0};
    mdl_lap(f, MDL_MODULE_OTHER);
    mdl_prepare(f, params);
    mdl_fast_cut(f);
    mdl_lap(f, MDL_MODULE_OTHER);
    mdl_parallel(f->n_threads, f->n_chunks, mdl_phase_a, f);
    mdl_parallel(f->n_threads, f->n_slices, grads ? mdl_phase_b : mdl_phase_b_forward, f);
    if (grads) {
        mdl_parallel(f->n_threads, f->n_slices, mdl_phase_c, f);
        mdl_finish(f, grads);
        mdl_lap(f, MDL_MODULE_OTHER);
    }
    for (int s = 0; s < f->n_slices; s++)
        for (int k = 0; k < 3; k++)
            sums[k] += f->slice[s].losses[k];
    const struct mdl_config *c = f->config;
    double n = f->batch->n_global > 0 ? f->batch->n_global : 1;
    losses_p->cls = sums[0] / n;
    losses_p->reg = sums[1] / n;
    losses_p->order = sums[2] / n;
    losses_p->total = (double)c->alpha * losses_p->cls + (double)c->beta * losses_p->reg +
                      (double)c->gamma * losses_p->order;
}

#endif

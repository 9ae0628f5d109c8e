/* Reading on the fast path. Included once per level; the level's entry is mdl_fast_read.
 *
 * History. Samples with equal histories (candidates of one request) stand side by side. Their
 * scores differ by one vector over j only: Q K^T = X W_q K^T + (c W_c W_q) K^T. So E = e^(X W_q K^T
 * - row's max) is made once, and a candidate scales its columns by f_j = e^((c W_c W_q) . K_j +
 * rho_j - max): A V = E (f V) / (E f).
 *
 *     (R1) E f > 0 by a wide margin: where f is 1 its summand is E_ij >= e^-(range of the row), and
 *          the trick is used only where every row's range is at most MDL_FACTOR_RANGE; else the
 *          plain way is taken
 *
 * Generator. Nodes of one level of all trees of a tile are rows of the same products; a node keeps
 * its K and V, its descendants attend to them by walking up the parents.
 */
#ifndef MODEL_FAST_READ_H
#define MODEL_FAST_READ_H

#include "model/fast_read_plan.h"
#include "model/fast_step.h"

#define MDL_FACTOR_RANGE 60

/* X, Q0, K, V, K^T and E of a history of L seqs: 1, or 0 when the range forbids it (R1). */
MDL_STATIC int mdl_share_history(const struct mdl_fast *f, const int *seq, int L,
                                 struct mdl_read_room *room)
{
    int d = f->d, d_h = f->d_h, Lp = mdl_padded(L);
    struct mdl_item_room *item = &room->item;
    for (int j = 0; j < L; j++) {
        const mdl_real *row = f->XQKV + (size_t)seq[j] * 4 * d;
        size_t bytes = (size_t)d * sizeof(mdl_real), at = (size_t)j * d;
        memcpy(room->X + at, row, bytes);
        memcpy(room->Q0 + at, row + d, bytes);
        memcpy(item->K + at, row + 2 * d, bytes);
        memcpy(item->V + at, row + 3 * d, bytes);
    }
    for (int k = 0; k < d; k++)
        for (int j = L; j < Lp; j++)
            item->KT[k * Lp + j] = 0;
    mdl_transpose(L, d, item->K, d, item->KT, Lp);
    for (int n = 0; n < f->h; n++) {
        mdl_real *E = item->A + (size_t)n * L * Lp;
        mdl_mul(L, Lp, d_h, room->Q0 + n * d_h, d, 1, item->KT + (size_t)n * d_h * Lp, Lp, NULL, 0,
                E, Lp);
        for (int i = 0; i < L; i++, E += Lp) {
            mdl_real max = E[0], min = E[0];
            for (int j = 1; j < L; j++) {
                max = E[j] > max ? E[j] : max;
                min = E[j] < min ? E[j] : min;
            }
            if (!(max - min <= MDL_FACTOR_RANGE))
                return 0;
            for (int j = 0; j < Lp; j++)
                E[j] = j < L ? E[j] - max : (mdl_real)-1e30;
            mdl_exp_row(E, Lp);
        }
    }
    return 1;
}

/* Vec_hist of one more target for the history shared above. */
MDL_STATIC void mdl_item_candidate(const struct mdl_fast *f, int L, struct mdl_read_room *room)
{
    int d = f->d, d_h = f->d_h, Lp = mdl_padded(L), H = f->config->history;
    struct mdl_item_room *item = &room->item;
    const mdl_real *qc = item->cc + d;
    for (int n = 0; n < f->h; n++) {
        mdl_real *factor = room->factor + n * Lp;
        for (int j = 0; j < Lp; j++)
            factor[j] = j < L ? f->item.w->Rho[n * H + L - 1 - j] : (mdl_real)-1e30;
        mdl_mul(1, Lp, d_h, qc + n * d_h, d, 1, item->KT + (size_t)n * d_h * Lp, Lp, NULL, MDL_ADD,
                factor, Lp);
        mdl_real max = factor[0];
        for (int j = 1; j < L; j++)
            max = factor[j] > max ? factor[j] : max;
        for (int j = 0; j < Lp; j++)
            factor[j] -= max;
        mdl_exp_row(factor, Lp);
        for (int j = 0; j < L; j++)
            for (int k = n * d_h; k < (n + 1) * d_h; k++)
                room->fV[j * d + k] = factor[j] * item->V[j * d + k];
        const mdl_real *E = item->A + (size_t)n * L * Lp;
        mdl_mul(L, d_h, L, E, Lp, 1, room->fV + n * d_h, d, NULL, 0, item->N + n * d_h, d);
        for (int i = 0; i < L; i++, E += Lp) {
            mdl_vec sum = mdl_splat(0);
            for (int j = 0; j < Lp; j += MDL_LANES)
                sum += mdl_load(E + j) * mdl_load(factor + j);
            mdl_real scale = 1 / mdl_sum(sum);
            for (int k = n * d_h; k < (n + 1) * d_h; k++)
                item->N[i * d + k] *= scale;
        }
    }
    for (int j = 0; j < L; j++)
        for (int k = 0; k < d; k += MDL_LANES)
            mdl_store(item->U + j * d + k, mdl_load(room->X + j * d + k) + mdl_load(item->cc + k));
    mdl_item_pool(f, L, item, room->W_oG, room->R);
}

/* 1 when samples i and k have the same history */
MDL_INLINE int mdl_same_history(const struct mdl_batch *b, int i, int k)
{
    int n = b->hist_offset[i + 1] - b->hist_offset[i];
    return n == b->hist_offset[k + 1] - b->hist_offset[k] &&
           memcmp(b->hist_seq + b->hist_offset[i], b->hist_seq + b->hist_offset[k],
                  (size_t)n * sizeof(int)) == 0;
}

/* F_context of n samples from first on: room->ctx, and what it contributes: room->cc. */
MDL_STATIC void mdl_read_contexts(const struct mdl_fast *f, int first, int n,
                                  struct mdl_read_room *room)
{
    const struct mdl_batch *b = f->batch;
    int u = f->u, d_c = f->gen.context.d_c, shared_with = -1;
    size_t real = sizeof(mdl_real);
    for (int i = first; i < first + n; i++) {
        const int *seq = b->hist_seq + b->hist_offset[i];
        int L = b->hist_offset[i + 1] - b->hist_offset[i];
        const mdl_real *target = b->item + (size_t)b->sample_item[i] * f->f;
        mdl_context_forward(1, f->d, f->h, &f->item.context, target, room->item.cc);
        if (shared_with >= 0 && !mdl_same_history(b, shared_with, i))
            shared_with = -1;
        if (L > 0 && shared_with < 0 && i + 1 < first + n && mdl_same_history(b, i, i + 1) &&
            mdl_share_history(f, seq, L, room))
            shared_with = i;
        if (shared_with >= 0)
            mdl_item_candidate(f, L, room);
        else
            mdl_item_forward(f, seq, L, &room->item, room->W_oG, room->R);
        mdl_real *c = room->ctx + (size_t)(i - first) * d_c;
        memcpy(c, b->user + (size_t)b->sample_user[i] * u, (size_t)u * real);
        memcpy(c + u, target, (size_t)f->f * real);
        memcpy(c + u + f->f, room->item.Vec, (size_t)f->d * real);
    }
    mdl_context_forward(n, f->d, f->h, &f->gen.context, room->ctx, room->cc);
}

/* the K | V row of a node of a sample of the tile */
MDL_INLINE mdl_real *mdl_node_kv(const struct mdl_fast_reading *r, const struct mdl_read_room *room,
                                 int sample, int node)
{
    return room->KV + ((size_t)sample * r->nodes + node) * 2 * r->fast.d;
}

/* Attention of row i at position k: its own token and those up the parents; N [d] with the gates
 * in. ancestor [k + 1]: the K | V rows, own first. */
MDL_INLINE void mdl_attend_up(const struct mdl_fast *f, const int d_h, const mdl_real *Q,
                              const mdl_real *const *ancestor, int k, const mdl_real *g,
                              mdl_real *scores, mdl_real *N)
{
    int n_keys = k + 1, h = f->h, d = f->d;
    for (int n = 0; n < h; n++) {
        mdl_real *s = scores + n * n_keys, max = (mdl_real)-1e30;
        for (int j = 0; j < n_keys; j++) {
            s[j] = mdl_dot(d_h, Q + n * d_h, ancestor[j] + n * d_h);
            max = s[j] > max ? s[j] : max;
        }
        for (int j = 0; j < n_keys; j++)
            s[j] -= max;
    }
    for (int j = 0; j < h * n_keys; j += MDL_LANES)
        mdl_store(scores + j, mdl_exp(mdl_load(scores + j)));
    for (int n = 0; n < h; n++) {
        mdl_real *s = scores + n * n_keys, sum = 0, *to = N + n * d_h;
        for (int j = 0; j < n_keys; j++)
            sum += s[j];
        sum = g[n] / sum;
        for (int c = 0; c < d_h; c++)
            to[c] = 0;
        for (int j = 0; j < n_keys; j++)
            mdl_axpy(d_h, s[j] * sum, ancestor[j] + d + n * d_h, to);
    }
}

/* What follows each of n rows at position k: room->sample, node, parent, action and time are set; K
 * and V are kept; P [n, C] and That [n] are the answers. first: the tile's first sample within the
 * task. */
MDL_STATIC void mdl_ask(const struct mdl_fast_reading *r, struct mdl_read_room *room, int first,
                        int n, int k, mdl_real *P, mdl_real *That)
{
    const struct mdl_fast *f = &r->fast;
    int d = f->d, wc = f->gen.context.wc, C = f->C, out = f->decision.out;
    const mdl_real *ancestor[MDL_MAX_ACTIONS];
    for (int i = 0; i < n; i++) {
        room->pair[i] = room->action[i] * f->M + k;
        mdl_fast_phi(room->time[i], room->phi + (size_t)i * MDL_TIME_FEATURES);
    }
    mdl_small_tokens(f, &f->gen, n, room->pair, room->phi, 0, 4 * d, room->XQKV, 4 * d);
    for (int i = 0; i < n; i++) {
        mdl_real *row = room->XQKV + (size_t)i * 4 * d;
        const mdl_real *c = room->cc + (size_t)(first + room->sample[i]) * wc;
        mdl_real *kv = mdl_node_kv(r, room, room->sample[i], room->node[i]);
        for (int j = 0; j < 2 * d; j += MDL_LANES)
            mdl_store(row + j, mdl_load(row + j) + mdl_load(c + j));
        memcpy(kv, row + 2 * d, (size_t)2 * d * sizeof(mdl_real));
        ancestor[0] = kv;
        const struct mdl_tree *tree = &room->tree[room->sample[i]];
        for (int j = 1, v = room->parent[i]; j <= k; j++) {
            ancestor[j] = mdl_node_kv(r, room, room->sample[i], v);
            v = r->mode == MDL_READ_EXACT ? tree->parent[v] : v - 1;
        }
        mdl_real *N = room->N + (size_t)i * d;
        if (f->d_h == MDL_LANES)
            mdl_attend_up(f, MDL_LANES, row + d, ancestor, k, c + 2 * d, room->scores, N);
        else
            mdl_attend_up(f, f->d_h, row + d, ancestor, k, c + 2 * d, room->scores, N);
    }
    mdl_mul(n, d, d, room->N, d, 1, f->gen.w->W_o, d, NULL, MDL_ADD, room->XQKV, 4 * d);
    mdl_tail_forward(n, d, f->gen.w, room->XQKV, 4 * d, &room->kept, room->T, room->Y);
    mdl_decide(f, n, room->Y, room->hidden, room->out);
    mdl_real outside[MDL_MAX_ACTIONS + 2 * MDL_PAD];
    for (int c = 0; c < out; c++)
        outside[c] = c < C ? 0 : (mdl_real)-1e30;
    for (int i = 0; i < n; i++) {
        mdl_real *row = room->out + (size_t)i * out;
        That[i] = row[C];
        mdl_softmax_row(row, outside, out);
        memcpy(P + (size_t)i * C, row, (size_t)C * sizeof(mdl_real));
    }
}

/* Greedy reading of n samples of the task, from first on; sample: the batch's number of the first.
 * */
MDL_STATIC void mdl_tile_greedy(const struct mdl_fast_reading *r, struct mdl_read_room *room,
                                int first, int n, int sample)
{
    const struct mdl_fast *f = &r->fast;
    for (int i = 0; i < n; i++) {
        mdl_greedy_start(&room->greedy[i], f->M);
        room->sample[i] = i;
    }
    for (int k = 0; k < f->M - 1; k++) {
        for (int i = 0; i < n; i++) {
            room->node[i] = k;
            room->parent[i] = k - 1;
            room->action[i] = room->greedy[i].action;
            room->time[i] = (float)room->greedy[i].time;
        }
        mdl_ask(r, room, first, n, k, room->P, room->That);
        for (int i = 0; i < n; i++)
            mdl_greedy_take_answer(&room->greedy[i], room->P + i * f->C, room->That[i]);
    }
    for (int i = 0; i < n; i++)
        mdl_greedy_result(&room->greedy[i], sample + i, r->out);
}

/* Exact reading of the same. */
MDL_STATIC void mdl_tile_exact(const struct mdl_fast_reading *r, struct mdl_read_room *room,
                               int first, int n, int sample)
{
    const struct mdl_fast *f = &r->fast;
    for (int i = 0; i < n; i++)
        mdl_tree_start(&room->tree[i]);
    for (int k = 0; k < f->M - 1; k++) {
        int rows = 0, answered = 0, start[MDL_READ_TILE];
        for (int i = 0; i < n; i++) {
            const struct mdl_tree *tree = &room->tree[i];
            start[i] = answered + rows;
            for (int v = tree->level[k]; v < tree->level[k + 1]; v++) {
                room->sample[rows] = i;
                room->node[rows] = v;
                room->parent[rows] = tree->parent[v];
                room->action[rows] = tree->action[v];
                room->time[rows++] = (float)tree->time[v];
                if (rows == MDL_READ_ROWS) {
                    mdl_ask(r, room, first, rows, k, room->P + (size_t)answered * f->C,
                            room->That + answered);
                    answered += rows;
                    rows = 0;
                }
            }
        }
        mdl_ask(r, room, first, rows, k, room->P + (size_t)answered * f->C, room->That + answered);
        for (int i = 0; i < n; i++)
            mdl_tree_expand(&room->tree[i], room->P + (size_t)start[i] * f->C,
                            room->That + start[i]);
    }
    for (int i = 0; i < n; i++)
        mdl_tree_result(&room->tree[i], sample + i, r->out);
}

MDL_STATIC void mdl_read_task(void *context, int task, int thread)
{
    struct mdl_fast_reading *r = context;
    struct mdl_read_room *room = &r->room[thread];
    int first = task * MDL_READ_TASK, n = r->fast.batch->n_samples - first;
    if (n > MDL_READ_TASK)
        n = MDL_READ_TASK;
    mdl_read_contexts(&r->fast, first, n, room);
    for (int i = 0; i < n; i += MDL_READ_TILE) {
        int tile = n - i < MDL_READ_TILE ? n - i : MDL_READ_TILE;
        if (r->mode == MDL_READ_GREEDY)
            mdl_tile_greedy(r, room, i, tile, first + i);
        else
            mdl_tile_exact(r, room, i, tile, first + i);
    }
}

/* Reading of checked input, r already carved for it and r->out set. */
MDL_STATIC void mdl_fast_read(struct mdl_fast_reading *r, const mdl_real *params)
{
    mdl_prepare(&r->fast, params);
    mdl_fast_cut(&r->fast);
    mdl_parallel(r->fast.n_threads, r->fast.n_chunks, mdl_phase_a, &r->fast);
    int n_tasks = (r->fast.batch->n_samples + MDL_READ_TASK - 1) / MDL_READ_TASK;
    mdl_parallel(r->fast.n_threads, n_tasks, mdl_read_task, r);
}

#endif

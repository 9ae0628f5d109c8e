/* CAM over many short sequences: CAM_act over the seqs' tokens, CAM_gen over the targets'. Included
 * once per level. Threads: any, on rooms of their own.
 *
 * A token is E[A] + P[i] + b_t + phi(T) W_t, so X, Q, K and V of a token are the same sum of the
 * images of those rows: a look-up in a table of C * M rows, and a product with 9 numbers. Their
 * gradients go the way back: summed by row of the table, then through the maps once per step.
 *
 *     (S1) rows of a room's XQKV are X | Q | K | V; after the context is added X is U
 *     (S2) a group's attention is kept at A + (its first row) * padded(h * M), as [L, R]: A[j][r]
 *          is what row r = n L + i (head n, position i) gives to position j, R = padded(h L). So
 *          the softmax of a vector of rows is a handful of vertical instructions
 *     (S3) past the causal end A is exactly 0
 */
#ifndef MODEL_FAST_SMALL_H
#define MODEL_FAST_SMALL_H

#include "model/fast_tail.h"

enum { MDL_TOKEN_ROWS = 2 }; /* token rows made at once */

/* phi [9] of a time: the higher waves by doubling the angle, in double. */
MDL_INLINE void mdl_fast_phi(float time, mdl_real *phi)
{
    double t = time < 0 ? 0 : time > 4 ? 4 : (double)time;
    double s = 0, c = 1;
    if (t > 0) {
        s = sin(3.14159265358979323846 * t);
        c = cos(3.14159265358979323846 * t);
    }
    phi[0] = (mdl_real)t;
    for (int k = 0; k < 4; k++) {
        phi[1 + k] = (mdl_real)s;
        phi[5 + k] = (mdl_real)c;
        double twice = 2 * s * c;
        c = 1 - 2 * s * s;
        s = twice;
    }
}

/* The images and the pair table. d_h, C and M are the model's. */
MDL_STATIC void mdl_prepare_small(const struct mdl_fast *f, const struct mdl_token_weights *token,
                                  const struct mdl_cam_weights *w, struct mdl_small *small)
{
    int d = f->d, C = f->C, M = f->M, n = C + M + MDL_TIME_FEATURES + 1;
    size_t row = (size_t)d * sizeof(mdl_real);
    small->token = token;
    small->w = w;
    memcpy(small->basis, token->E, C * row);
    memcpy(small->basis + C * d, token->P, M * row);
    memcpy(small->basis + (C + M) * d, token->W_t, MDL_TIME_FEATURES * row);
    memcpy(small->basis + (n - 1) * d, token->b_t, row);
    mdl_prepare_qkv(d, f->d_h, w, small->W_qkv);
    mdl_mul(n, d, d, small->basis, d, 1, w->W_x, d, NULL, 0, small->image, 4 * d);
    mdl_real *last = small->image + (size_t)(n - 1) * 4 * d, scale = mdl_scale(f->d_h);
    for (int k = 0; k < d; k++)
        last[k] += w->b_x[k];
    mdl_mul(n, 3 * d, d, small->image, 4 * d, 1, small->W_qkv, 3 * d, NULL, 0, small->image + d,
            4 * d);
    for (int k = 0; k < d; k++) {
        last[d + k] += w->b_q[k] * scale;
        last[3 * d + k] += w->b_v[k];
    }
    for (int a = 0; a < C; a++)
        for (int i = 0; i < M; i++)
            for (int k = 0; k < 4 * d; k++)
                small->pair[((size_t)a * M + i) * 4 * d + k] =
                    small->image[(size_t)a * 4 * d + k] +
                    small->image[(size_t)(C + i) * 4 * d + k] + last[k];
    mdl_prepare_tail(d, w, &small->tail);
    mdl_prepare_context(d, f->h, w, small->W_qkv, &small->context);
}

/* `vecs` vectors of columns of `rows` token rows (both constants where this is inlined): the pair's
 * row plus phi times the images of the time features */
MDL_INLINE void mdl_small_tokens_tile(const int rows, const int vecs, const mdl_real *const *from,
                                      const mdl_real *phi, const mdl_real *times, ptrdiff_t ldt,
                                      mdl_real *out, ptrdiff_t ldo)
{
    mdl_vec sum[MDL_TOKEN_ROWS][MDL_HELD];
    _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++)
    {
        _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) sum[r][v] =
            mdl_load(from[r] + v * MDL_LANES);
    }
    _Pragma("GCC unroll 9") for (int p = 0; p < MDL_TIME_FEATURES; p++)
    {
        _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++)
        {
            mdl_vec time = mdl_load(times + p * ldt + v * MDL_LANES);
            _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++) sum[r][v] +=
                phi[r * MDL_TIME_FEATURES + p] * time;
        }
    }
    _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++)
    {
        _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++)
            mdl_store(out + r * ldo + v * MDL_LANES, sum[r][v]);
    }
}

/* all columns of `rows` token rows */
MDL_INLINE void mdl_small_tokens_rows(const int rows, int cols, const mdl_real *const *from,
                                      const mdl_real *phi, const mdl_real *times, ptrdiff_t ldt,
                                      mdl_real *out, ptrdiff_t ldo)
{
    int k = 0;
    const mdl_real *at[MDL_TOKEN_ROWS];
    for (; k + MDL_HELD * MDL_LANES <= cols; k += MDL_HELD * MDL_LANES) {
        for (int r = 0; r < rows; r++)
            at[r] = from[r] + k;
        mdl_small_tokens_tile(rows, MDL_HELD, at, phi, times + k, ldt, out + k, ldo);
    }
    for (; k < cols; k += MDL_LANES) {
        for (int r = 0; r < rows; r++)
            at[r] = from[r] + k;
        mdl_small_tokens_tile(rows, 1, at, phi, times + k, ldt, out + k, ldo);
    }
}

/* out [n, cols]: columns first..first + cols - 1 of X | Q | K | V without context, of rows pair
 * [n], phi [n, 9]; first and cols are multiples of d */
MDL_STATIC void mdl_small_tokens(const struct mdl_fast *f, const struct mdl_small *small, int n,
                                 const int *pair, const mdl_real *phi, int first, int cols,
                                 mdl_real *out, ptrdiff_t ldo)
{
    ptrdiff_t wide = 4 * f->d;
    const mdl_real *times = small->image + (f->C + f->M) * wide + first, *from[MDL_TOKEN_ROWS];
    int i = 0;
    for (; i + MDL_TOKEN_ROWS <= n; i += MDL_TOKEN_ROWS) {
        for (int r = 0; r < MDL_TOKEN_ROWS; r++)
            from[r] = small->pair + pair[i + r] * wide + first;
        mdl_small_tokens_rows(MDL_TOKEN_ROWS, cols, from, phi + (ptrdiff_t)i * MDL_TIME_FEATURES,
                              times, wide, out + i * ldo, ldo);
    }
    for (; i < n; i++) {
        from[0] = small->pair + pair[i] * wide + first;
        mdl_small_tokens_rows(1, cols, from, phi + (ptrdiff_t)i * MDL_TIME_FEATURES, times, wide,
                              out + i * ldo, ldo);
    }
}

/* S [L, R] (S2): for each row r = (head n, position i) and each j the product X_i . Y_j of head n;
 * rows of x and y ldx and ldy apart; d_h a constant where this is inlined. */
MDL_INLINE void mdl_small_dots(int L, int h, const int d_h, const mdl_real *x, ptrdiff_t ldx,
                               const mdl_real *y, ptrdiff_t ldy, mdl_real *S)
{
    int rows = h * L, R = mdl_padded(rows);
    for (int first = 0; first < R; first += MDL_LANES) {
        for (int j = 0; j < L; j++) {
            mdl_real *to = S + (ptrdiff_t)j * R + first;
            if (d_h % MDL_LANES == 0) {
                mdl_vec v[MDL_LANES];
                int n = first / L, i = first % L;
                _Pragma("GCC unroll 16") for (int t = 0; t < MDL_LANES; t++)
                {
                    v[t] = mdl_splat(0);
                    if (first + t < rows)
                        for (int k = n * d_h; k < (n + 1) * d_h; k += MDL_LANES)
                            v[t] += mdl_load(x + i * ldx + k) * mdl_load(y + j * ldy + k);
                    n += ++i == L;
                    i = i == L ? 0 : i;
                }
                mdl_store(to, mdl_sum_each(v));
                continue;
            }
            for (int t = 0; t < MDL_LANES; t++) {
                int r = first + t, n = r / L, i = r % L;
                to[t] = r < rows ? mdl_dot(d_h, x + i * ldx + n * d_h, y + j * ldy + n * d_h) : 0;
            }
        }
    }
}

/* A [L, R] = softmax over j of S, whose places past the causal end are overwritten */
MDL_INLINE void mdl_small_softmax(int L, int h, int causal, mdl_real *S, mdl_real *A)
{
    int R = mdl_padded(h * L);
    for (int j = 1; j < L && causal; j++)
        for (int r = 0; r < h * L; r++)
            if (r % L < j)
                S[j * R + r] = (mdl_real)-1e30; /* (S3) */
    for (int r = 0; r < R; r += MDL_LANES) {
        mdl_vec max = mdl_load(S + r), sum = mdl_splat(0);
        for (int j = 1; j < L; j++)
            max = mdl_max(max, mdl_load(S + j * R + r));
        for (int j = 0; j < L; j++) {
            mdl_vec e = mdl_exp(mdl_load(S + j * R + r) - max);
            mdl_store(A + j * R + r, e);
            sum += e;
        }
        mdl_vec scale = 1 / sum;
        for (int j = 0; j < L; j++)
            mdl_store(A + j * R + r, mdl_load(A + j * R + r) * scale);
    }
}

/* out rows (ldo apart): of position i, sum_j A[j][i] v_j per head; transposed: of j, sum_i A[j][i]
 * v_i. Unless gated is NULL, its rows (ldg apart) are those of out times the head's g. */
MDL_INLINE void mdl_small_mix(int L, int h, const int d_h, const mdl_real *A, int transposed,
                              const mdl_real *v, ptrdiff_t ldv, mdl_real *out, ptrdiff_t ldo,
                              const mdl_real *g, mdl_real *gated, ptrdiff_t ldg)
{
    int R = mdl_padded(h * L), step = transposed ? 1 : R;
    for (int n = 0; n < h; n++) {
        for (int i = 0; i < L; i++) {
            ptrdiff_t to = n * d_h;
            const mdl_real *a = A + n * L + (transposed ? i * R : i);
            if (d_h % MDL_LANES == 0) {
                for (int k = 0; k < d_h; k += MDL_LANES) {
                    mdl_vec sum = mdl_splat(0);
                    for (int j = 0; j < L; j++)
                        sum += a[j * step] * mdl_load(v + j * ldv + to + k);
                    mdl_store(out + i * ldo + to + k, sum);
                    if (gated)
                        mdl_store(gated + i * ldg + to + k, sum * g[n]);
                }
                continue;
            }
            for (int k = 0; k < d_h; k++)
                out[i * ldo + to + k] = 0;
            for (int j = 0; j < L; j++)
                mdl_axpy(d_h, a[j * step], v + j * ldv + to, out + i * ldo + to);
            for (int k = 0; k < d_h && gated; k++)
                gated[i * ldg + to + k] = out[i * ldo + to + k] * g[n];
        }
    }
}

/* rows of x times the head's gate, in place */
MDL_INLINE void mdl_small_gate(int L, int h, const int d_h, const mdl_real *g, mdl_real *x,
                               ptrdiff_t ld)
{
    for (int i = 0; i < L; i++)
        for (int n = 0; n < h; n++)
            for (int k = 0; k < d_h; k++)
                x[i * ld + n * d_h + k] *= g[n];
}

struct mdl_small_group {
    int L, h, causal, d;
    const mdl_real *Q, *K, *V; /* rows 4d apart */
    const mdl_real *g;         /* [h] */
    mdl_real *A;               /* (S2) */
};

/* A and the gated mix G [L, d] of one group; N [L, d]: the mix before the gate */
MDL_INLINE void mdl_small_attend(const struct mdl_small_group *s, const int d_h, mdl_real *S,
                                 mdl_real *N, mdl_real *G)
{
    if (s->L == 1) { /* nothing to choose from */
        for (int n = 0; n < s->h; n++)
            s->A[n] = 1;
    } else {
        mdl_small_dots(s->L, s->h, d_h, s->Q, 4 * s->d, s->K, 4 * s->d, S);
        mdl_small_softmax(s->L, s->h, s->causal, S, s->A);
    }
    mdl_small_mix(s->L, s->h, d_h, s->A, 0, s->V, 4 * s->d, N, s->d, s->g, G, s->d);
}

/* dg [h] = the sums of dG . N over the rows of a head */
MDL_INLINE void mdl_small_gate_backward(const struct mdl_small_group *s, const int d_h,
                                        const mdl_real *N, const mdl_real *dG, mdl_real *dg)
{
    for (int n = 0; n < s->h; n++) {
        mdl_vec sum = mdl_splat(0);
        dg[n] = 0;
        for (int i = 0; i < s->L; i++) {
            ptrdiff_t at = (ptrdiff_t)i * s->d + n * d_h;
            if (d_h % MDL_LANES == 0)
                for (int k = 0; k < d_h; k += MDL_LANES)
                    sum += mdl_load(dG + at + k) * mdl_load(N + at + k);
            else
                dg[n] += mdl_dot(d_h, dG + at, N + at);
        }
        dg[n] += mdl_sum(sum);
    }
}

/* S [L, R] = dS from dA in its place: A (dA - the row's sum of dA A) */
MDL_INLINE void mdl_small_softmax_backward(int L, int R, const mdl_real *A, mdl_real *S)
{
    for (int r = 0; r < R; r += MDL_LANES) {
        mdl_vec dot = mdl_splat(0);
        for (int j = 0; j < L; j++)
            dot += mdl_load(S + j * R + r) * mdl_load(A + j * R + r);
        for (int j = 0; j < L; j++)
            mdl_store(S + j * R + r, mdl_load(A + j * R + r) * (mdl_load(S + j * R + r) - dot));
    }
}

/* From dG [L, d] (overwritten): dQ, dK, dV (rows 4d apart), dg [h], and once more the gated mix G.
 * N [L, d]: room. */
MDL_INLINE void mdl_small_attend_backward(const struct mdl_small_group *s, const int d_h,
                                          mdl_real *N, mdl_real *G, mdl_real *dG, mdl_real *S,
                                          mdl_real *dQ, mdl_real *dK, mdl_real *dV, mdl_real *dg)
{
    int L = s->L, h = s->h, d = s->d;
    mdl_small_mix(L, h, d_h, s->A, 0, s->V, 4 * d, N, d, s->g, G, d);
    mdl_small_gate_backward(s, d_h, N, dG, dg);
    mdl_small_gate(L, h, d_h, s->g, dG, d);
    if (L == 1) {
        memset(dQ, 0, (size_t)d * sizeof(mdl_real));
        memset(dK, 0, (size_t)d * sizeof(mdl_real));
        memcpy(dV, dG, (size_t)d * sizeof(mdl_real));
        return;
    }
    mdl_small_mix(L, h, d_h, s->A, 1, dG, d, dV, 4 * d, NULL, NULL, 0);
    mdl_small_dots(L, h, d_h, dG, d, s->V, 4 * d, S);
    mdl_small_softmax_backward(L, mdl_padded(h * L), s->A, S);
    mdl_small_mix(L, h, d_h, S, 0, s->K, 4 * d, dQ, 4 * d, NULL, NULL, 0);
    mdl_small_mix(L, h, d_h, S, 1, s->Q, 4 * d, dK, 4 * d, NULL, NULL, 0);
}

/* the two above with d_h known to the compiler where it matters */
MDL_STATIC void mdl_small_attend_any(const struct mdl_small_group *s, int d_h, mdl_real *S,
                                     mdl_real *N, mdl_real *G)
{
    if (d_h == MDL_PAD)
        mdl_small_attend(s, MDL_PAD, S, N, G);
    else
        mdl_small_attend(s, d_h, S, N, G);
}

MDL_STATIC void mdl_small_attend_backward_any(const struct mdl_small_group *s, int d_h, mdl_real *N,
                                              mdl_real *G, mdl_real *dG, mdl_real *S, mdl_real *dQ,
                                              mdl_real *dK, mdl_real *dV, mdl_real *dg)
{
    if (d_h == MDL_PAD)
        mdl_small_attend_backward(s, MDL_PAD, N, G, dG, S, dQ, dK, dV, dg);
    else
        mdl_small_attend_backward(s, d_h, N, G, dG, S, dQ, dK, dV, dg);
}

/* the view of group g of a room, its rows at XQKV */
MDL_INLINE struct mdl_small_group mdl_small_view(const struct mdl_fast *f,
                                                 const struct mdl_small *small,
                                                 const struct mdl_small_room *room,
                                                 const struct mdl_kept *kept, int causal, int g)
{
    int first = room->offset[g], d = f->d;
    const mdl_real *row = room->XQKV + (size_t)first * 4 * d;
    return (struct mdl_small_group){.L = room->offset[g + 1] - first,
                                    .h = f->h,
                                    .causal = causal,
                                    .d = d,
                                    .Q = row + d,
                                    .K = row + 2 * d,
                                    .V = row + 3 * d,
                                    .g = room->cc + (size_t)g * small->context.wc + 2 * d,
                                    .A = kept->A + (size_t)first * mdl_padded(f->h * f->M)};
}

/* X | Q | K | V of the room's rows with their contexts: room->XQKV, room->cc */
MDL_STATIC void mdl_small_inputs(const struct mdl_fast *f, const struct mdl_small *small,
                                 struct mdl_small_room *room, int n_groups, int first_column)
{
    int d = f->d, wc = small->context.wc;
    mdl_small_tokens(f, small, room->offset[n_groups], room->pair, room->phi, first_column,
                     4 * d - first_column, room->XQKV + first_column, 4 * d);
    for (int g = 0; g < n_groups; g++) {
        const mdl_real *c = room->cc + (size_t)g * wc;
        for (int i = room->offset[g]; i < room->offset[g + 1]; i++) {
            mdl_real *row = room->XQKV + (size_t)i * 4 * d;
            for (int k = first_column; k < 2 * d; k += MDL_LANES)
                mdl_store(row + k, mdl_load(row + k) + mdl_load(c + k));
        }
    }
}

/* Forward of n_groups sequences whose offset, pair, phi and ctx stand in the room; kept is filled,
 * and Y [n, d] unless NULL. */
MDL_STATIC void mdl_small_forward(const struct mdl_fast *f, const struct mdl_small *small,
                                  struct mdl_small_room *room, int n_groups, int causal,
                                  const struct mdl_kept *kept, mdl_real *Y)
{
    int d = f->d, n = room->offset[n_groups];
    mdl_context_forward(n_groups, d, f->h, &small->context, room->ctx, room->cc);
    mdl_small_inputs(f, small, room, n_groups, 0);
    for (int g = 0; g < n_groups; g++) {
        struct mdl_small_group s = mdl_small_view(f, small, room, kept, causal, g);
        size_t first = (size_t)room->offset[g] * d;
        mdl_small_attend_any(&s, f->d_h, room->scores, room->R + first, room->N + first);
    }
    mdl_mul(n, d, d, room->N, d, 1, small->w->W_o, d, NULL, MDL_ADD, room->XQKV, 4 * d);
    mdl_tail_forward(n, d, small->w, room->XQKV, 4 * d, kept, room->R, Y);
}

/* Backward of the same sequences, the room filled as for forward, from dY [n, d]: adds to sums; the
 * gradients of the contexts are in room->dctx [n_groups, d_c]. */
MDL_STATIC void mdl_small_backward(const struct mdl_fast *f, const struct mdl_small *small,
                                   struct mdl_small_room *room, int n_groups, int causal,
                                   const struct mdl_kept *kept, const mdl_real *dY,
                                   struct mdl_small_sums *sums)
{
    int d = f->d, h = f->h, n = room->offset[n_groups], wc = small->context.wc;
    mdl_context_forward(n_groups, d, h, &small->context, room->ctx, room->cc);
    mdl_small_inputs(f, small, room, n_groups, d);
    /* dX is dS1: the residual is U */
    mdl_tail_backward(n, d, &small->tail, dY, d, kept, room->R, room->dF, room->dXQKV, 4 * d,
                      &sums->tail);
    /* R now serves for G, dF for dG */
    mdl_real *G = room->R, *dG = room->dF, *N = room->N;
    mdl_mul(n, d, d, room->dXQKV, 4 * d, 1, small->tail.W_oT, d, NULL, 0, dG, d);
    for (int g = 0; g < n_groups; g++) {
        struct mdl_small_group s = mdl_small_view(f, small, room, kept, causal, g);
        size_t first = (size_t)room->offset[g];
        mdl_real *D = room->dXQKV + first * 4 * d, *dc = room->dcc + (size_t)g * wc;
        memset(dc, 0, (size_t)wc * sizeof(mdl_real));
        mdl_small_attend_backward_any(&s, f->d_h, N + first * d, G + first * d, dG + first * d,
                                      room->scores, D + d, D + 2 * d, D + 3 * d, dc + 2 * d);
        mdl_add_rows(s.L, 2 * d, D, 4 * d, dc);
    }
    mdl_mul(d, d, n, G, 1, d, room->dXQKV, 4 * d, NULL, MDL_ADD, sums->tail.W_o, d);
    mdl_context_backward(n_groups, d, h, &small->context, room->ctx, room->cc, room->dcc,
                         &sums->context, room->dctx);
    mdl_mul(MDL_TIME_FEATURES, 4 * d, n, room->phi, 1, MDL_TIME_FEATURES, room->dXQKV, 4 * d, NULL,
            MDL_ADD, sums->times, 4 * d);
    for (int i = 0; i < n; i++)
        mdl_add_rows(1, 4 * d, room->dXQKV + (size_t)i * 4 * d, 0,
                     sums->pair + (size_t)room->pair[i] * 4 * d);
}

/* From a small CAM's sums to the gradients of its tensors and its tokens'. room: [2, R_ or d_c,
 * 4d]. */
MDL_STATIC void mdl_small_finish(const struct mdl_fast *f, const struct mdl_small *small,
                                 const struct mdl_small_sums *sums, mdl_real *room,
                                 struct mdl_cam_weights *dw, struct mdl_token_weights *dtoken)
{
    int d = f->d, C = f->C, M = f->M, n = C + M + MDL_TIME_FEATURES + 1;
    size_t row = (size_t)d * sizeof(mdl_real);
    mdl_real *image = room, *other = room + (size_t)n * 4 * d;
    memset(image, 0, (size_t)n * 4 * row);
    memcpy(image + (size_t)(C + M) * 4 * d, sums->times, MDL_TIME_FEATURES * 4 * row);
    mdl_real *last = image + (size_t)(n - 1) * 4 * d;
    for (int a = 0; a < C; a++) {
        for (int i = 0; i < M; i++) {
            const mdl_real *pair = sums->pair + ((size_t)a * M + i) * 4 * d;
            mdl_add_rows(1, 4 * d, pair, 0, image + (size_t)a * 4 * d);
            mdl_add_rows(1, 4 * d, pair, 0, image + (size_t)(C + i) * 4 * d);
            mdl_add_rows(1, 4 * d, pair, 0, last);
        }
    }
    mdl_tail_finish(d, &sums->tail, dw);
    /* Q, K, V = X W_qkv + b: the gradient of X gains, W_qkv's is X^T d(Q|K|V) */
    for (int k = 0; k < d; k++) {
        dw->b_q[k] = last[d + k] * mdl_scale(f->d_h);
        dw->b_v[k] = last[3 * d + k];
    }
    mdl_mul(d, d, n, small->image, 1, 4 * d, image + d, 4 * d, NULL, 0, dw->W_q, d);
    mdl_mul(d, d, n, small->image, 1, 4 * d, image + 2 * d, 4 * d, NULL, 0, dw->W_k, d);
    mdl_mul(d, d, n, small->image, 1, 4 * d, image + 3 * d, 4 * d, NULL, 0, dw->W_v, d);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < d; k++)
            image[(size_t)i * 4 * d + k] +=
                mdl_dot(3 * d, image + (size_t)i * 4 * d + d, small->W_qkv + (size_t)k * 3 * d);
    memcpy(dw->b_x, last, row);
    mdl_mul(d, d, n, small->basis, 1, d, image, 4 * d, NULL, 0, dw->W_x, d);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < d; k++)
            other[(size_t)i * d + k] =
                mdl_dot(d, image + (size_t)i * 4 * d, small->w->W_x + (size_t)k * d);
    memcpy(dtoken->E, other, C * row);
    memcpy(dtoken->P, other + C * d, M * row);
    memcpy(dtoken->W_t, other + (C + M) * d, MDL_TIME_FEATURES * row);
    memcpy(dtoken->b_t, other + (size_t)(n - 1) * d, row);
    mdl_context_finish(d, f->h, &small->context, &sums->context, small->w, small->W_qkv, other, dw,
                       dw->W_q);
    for (int k = 0; k < d * d; k++)
        dw->W_q[k] *= mdl_scale(f->d_h);
}

#endif

/* CAM_item: from the seqs of a sample's history to Vec_hist. Included once per level. Threads: any,
 * on rooms of their own.
 *
 * X, K, V and the context-free Q of a seq are made once (mdl_item_inputs, phase A), whoever uses
 * them; a sample gathers its rows, adds what its target contributes, and attends. Backward adds the
 * gradients of those rows up by seq, within a slice, and the maps are gone through once per seq
 * (mdl_item_inputs_backward, phase C).
 *
 *     (I1) scores [L, Lp] of a head: Lp = L padded; past L the recency bias is -1e30, so A is
 *          exactly 0 there
 *     (I2) the gate of a head scales rows of W_o, not the mix: G W_o = N (g W_o); so
 *          dW_o += g (N^T dS1), and dg is the sum over the head's rows of (N^T dS1) . W_o
 */
#ifndef MODEL_FAST_ITEM_H
#define MODEL_FAST_ITEM_H

#include "model/fast_tail.h"

MDL_STATIC void mdl_prepare_item(const struct mdl_fast *f, const struct mdl_cam_weights *w,
                                 struct mdl_item *item)
{
    int d = f->d;
    item->w = w;
    mdl_transpose(d + f->f, d, w->W_x, d, item->W_xT, d + f->f);
    mdl_prepare_qkv(d, f->d_h, w, item->W_qkv);
    mdl_transpose(d, 3 * d, item->W_qkv, 3 * d, item->W_qkvT, d);
    for (int k = 0; k < d; k++) {
        item->b_qkv[k] = w->b_q[k] * mdl_scale(f->d_h);
        item->b_qkv[d + k] = 0;
        item->b_qkv[2 * d + k] = w->b_v[k];
    }
    mdl_prepare_tail(d, w, &item->tail);
    mdl_prepare_context(d, f->h, w, item->W_qkv, &item->context);
}

/* Z [n, d + f] = [Seq, F_x] of n seqs from first on */
MDL_STATIC void mdl_item_gather_Z(const struct mdl_fast *f, int first, int n, mdl_real *Z)
{
    int d = f->d, wide = f->d + f->f;
    for (int i = 0; i < n; i++) {
        int item = f->batch->seq_item[first + i];
        memcpy(Z + (size_t)i * wide, f->Seq + (size_t)(first + i) * d,
               (size_t)d * sizeof(mdl_real));
        memcpy(Z + (size_t)i * wide + d, f->batch->item + (size_t)item * f->f,
               (size_t)f->f * sizeof(mdl_real));
    }
}

/* X | Q | K | V of n seqs from first on, into f->XQKV; Z: room */
MDL_STATIC void mdl_item_inputs(const struct mdl_fast *f, int first, int n, mdl_real *Z)
{
    int d = f->d, wide = f->d + f->f;
    mdl_real *out = f->XQKV + (size_t)first * 4 * d;
    mdl_item_gather_Z(f, first, n, Z);
    mdl_mul(n, d, wide, Z, wide, 1, f->item.w->W_x, d, f->item.w->b_x, 0, out, 4 * d);
    mdl_mul(n, 3 * d, d, out, 4 * d, 1, f->item.W_qkv, 3 * d, f->item.b_qkv, 0, out + d, 4 * d);
}

/* From dX [n, 4d] (gradients of X | Q | K | V, overwritten): dZ [n, d + f]; adds to sums. */
MDL_STATIC void mdl_item_inputs_backward(const struct mdl_fast *f, int first, int n, mdl_real *Z,
                                         mdl_real *dX, mdl_real *dZ, struct mdl_item_sums *sums)
{
    int d = f->d, wide = f->d + f->f;
    const mdl_real *X = f->XQKV + (size_t)first * 4 * d;
    mdl_item_gather_Z(f, first, n, Z);
    mdl_mul(d, 3 * d, n, X, 1, 4 * d, dX + d, 4 * d, NULL, MDL_ADD, sums->W_qkv, 3 * d);
    mdl_add_rows(n, 3 * d, dX + d, 4 * d, sums->b_qkv);
    mdl_mul(n, d, 3 * d, dX + d, 4 * d, 1, f->item.W_qkvT, d, NULL, MDL_ADD, dX, 4 * d);
    mdl_mul(wide, d, n, Z, 1, wide, dX, 4 * d, NULL, MDL_ADD, sums->W_x, d);
    mdl_add_rows(n, d, dX, 4 * d, sums->b_x);
    mdl_mul(n, wide, d, dX, 4 * d, 1, f->item.W_xT, wide, NULL, 0, dZ, wide);
}

/* U, Q, K, V and K^T of a sample's L history items, with its context; rho [h, Lp] (I1) */
MDL_STATIC void mdl_item_gather(const struct mdl_fast *f, const int *seq, int L, const mdl_real *cc,
                                struct mdl_item_room *room)
{
    int d = f->d, Lp = mdl_padded(L), H = f->config->history;
    for (int j = 0; j < L; j++) {
        const mdl_real *row = f->XQKV + (size_t)seq[j] * 4 * d;
        size_t at = (size_t)j * d;
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_store(room->U + at + k, mdl_load(row + k) + mdl_load(cc + k));
            mdl_store(room->Q + at + k, mdl_load(row + d + k) + mdl_load(cc + d + k));
            mdl_store(room->K + at + k, mdl_load(row + 2 * d + k));
            mdl_store(room->V + at + k, mdl_load(row + 3 * d + k));
        }
    }
    for (int n = 0; n < f->h; n++)
        for (int j = 0; j < Lp; j++)
            room->rho[n * Lp + j] = j < L ? f->item.w->Rho[n * H + L - 1 - j] : (mdl_real)-1e30;
    for (int k = 0; k < d; k++)
        for (int j = L; j < Lp; j++)
            room->KT[k * Lp + j] = 0;
    mdl_transpose(L, d, room->K, d, room->KT, Lp);
}

/* W_oG = the rows of W_o times the gate of their head (I2) */
MDL_STATIC void mdl_item_gate(const struct mdl_fast *f, const mdl_real *g, mdl_real *W_oG)
{
    for (int k = 0; k < f->d; k++)
        for (int c = 0; c < f->d; c++)
            W_oG[k * f->d + c] = g[k / f->d_h] * f->item.w->W_o[k * f->d + c];
}

/* Behind the attention: N -> Vec = the mean of Y over L rows. */
MDL_STATIC void mdl_item_pool(const struct mdl_fast *f, int L, struct mdl_item_room *room,
                              mdl_real *W_oG, mdl_real *R)
{
    int d = f->d;
    const struct mdl_cam_weights *w = f->item.w;
    mdl_item_gate(f, room->cc + 2 * d, W_oG);
    mdl_mul(L, d, d, room->N, d, 1, W_oG, d, NULL, MDL_ADD, room->U, d);
    mdl_tail_forward(L, d, w, room->U, d, &room->kept, R, NULL);
    memset(room->Vec, 0, (size_t)d * sizeof(mdl_real));
    mdl_add_rows(L, d, room->kept.norm2, d, room->Vec);
    for (int k = 0; k < d; k++)
        room->Vec[k] = w->ln2_w[k] * room->Vec[k] / (mdl_real)L + w->ln2_b[k];
}

/* Vec_hist of one sample, whose cc stands in the room; zero without history. */
MDL_STATIC void mdl_item_forward(const struct mdl_fast *f, const int *seq, int L,
                                 struct mdl_item_room *room, mdl_real *W_oG, mdl_real *R)
{
    int d = f->d, d_h = f->d_h, Lp = mdl_padded(L);
    if (L == 0) {
        memset(room->Vec, 0, (size_t)d * sizeof(mdl_real));
        return;
    }
    mdl_item_gather(f, seq, L, room->cc, room);
    for (int n = 0; n < f->h; n++) {
        mdl_real *A = room->A + (size_t)n * L * Lp;
        mdl_mul(L, Lp, d_h, room->Q + n * d_h, d, 1, room->KT + (size_t)n * d_h * Lp, Lp, NULL, 0,
                A, Lp);
        for (int i = 0; i < L; i++)
            mdl_softmax_row(A + (size_t)i * Lp, room->rho + n * Lp, Lp);
        mdl_mul(L, d_h, L, A, Lp, 1, room->V + n * d_h, d, NULL, 0, room->N + n * d_h, d);
    }
    mdl_item_pool(f, L, room, W_oG, R);
}

/* dS [L, Lp] = A (dA - rows' dA . A) in place of dA; the sums of its columns go to the head's dRho
 * [H] */
MDL_STATIC void mdl_item_scores_backward(int L, int Lp, const mdl_real *A, mdl_real *dS,
                                         mdl_real *columns, mdl_real *dRho)
{
    memset(columns, 0, (size_t)Lp * sizeof(mdl_real));
    for (int i = 0; i < L; i++, A += Lp, dS += Lp) {
        mdl_vec dot = mdl_splat(0);
        for (int j = 0; j < Lp; j += MDL_LANES)
            dot += mdl_load(A + j) * mdl_load(dS + j);
        mdl_vec all = mdl_splat(mdl_sum(dot));
        for (int j = 0; j < Lp; j += MDL_LANES) {
            mdl_vec v = mdl_load(A + j) * (mdl_load(dS + j) - all);
            mdl_store(dS + j, v);
            mdl_store(columns + j, mdl_load(columns + j) + v);
        }
    }
    for (int j = 0; j < L; j++)
        dRho[L - 1 - j] += columns[j];
}

/* From P = N^T dS1: dW_o, and dg into dcc (I2) */
MDL_STATIC void mdl_item_gate_backward(const struct mdl_fast *f, const mdl_real *P,
                                       struct mdl_item_room *room, struct mdl_item_sums *sums)
{
    int d = f->d;
    const mdl_real *g = room->cc + 2 * d;
    mdl_real *dg = room->dcc + 2 * d;
    for (int k = 0; k < d; k++) {
        dg[k / f->d_h] += mdl_dot(d, P + k * d, f->item.w->W_o + k * d);
        mdl_axpy(d, g[k / f->d_h], P + k * d, sums->tail.W_o + k * d);
    }
}

/* From room->dVec: dQKV [L, 4d] = gradients of X | Q | K | V of the history items, room->dcc; adds
 * to sums. Works in the rooms of room_p. */
MDL_STATIC void mdl_item_backward(const struct mdl_fast *f, int L, struct mdl_item_room *room,
                                  struct mdl_room *room_p, struct mdl_item_sums *sums)
{
    int d = f->d, d_h = f->d_h, Lp = mdl_padded(L);
    mdl_real *D = room_p->dQKV, *dN = room_p->D, *dS = room_p->dS;
    memset(room->dcc, 0, (size_t)f->item.context.wc * sizeof(mdl_real));
    if (L == 0)
        return;
    for (int k = 0; k < d; k++)
        room->dVec[k] /= (mdl_real)L;
    mdl_tail_backward(L, d, &f->item.tail, room->dVec, 0, &room->kept, room_p->R, room_p->dF, D,
                      4 * d, &sums->tail);
    mdl_mul(d, d, L, room->N, 1, d, D, 4 * d, NULL, 0, room_p->P, d);
    mdl_item_gate_backward(f, room_p->P, room, sums);
    mdl_mul(L, d, d, D, 4 * d, 1, f->item.tail.W_oT, d, NULL, 0, dN, d);
    for (int i = 0; i < L; i++)
        for (int n = 0; n < f->h; n++)
            for (int k = n * d_h; k < (n + 1) * d_h; k++)
                dN[(size_t)i * d + k] *= room->cc[2 * d + n];
    for (int k = 0; k < d; k++)
        for (int j = L; j < Lp; j++)
            room->VT[k * Lp + j] = 0;
    mdl_transpose(L, d, room->V, d, room->VT, Lp);
    for (int n = 0; n < f->h; n++) {
        const mdl_real *A = room->A + (size_t)n * L * Lp;
        int at = n * d_h;
        mdl_mul(L, Lp, d_h, dN + at, d, 1, room->VT + (size_t)at * Lp, Lp, NULL, 0, dS, Lp);
        mdl_mul(L, d_h, L, A, 1, Lp, dN + at, d, NULL, 0, D + 3 * d + at, 4 * d);
        mdl_item_scores_backward(L, Lp, A, dS, room->rho, sums->Rho + n * f->config->history);
        mdl_mul(L, d_h, L, dS, Lp, 1, room->K + at, d, NULL, 0, D + d + at, 4 * d);
        mdl_mul(L, d_h, L, dS, 1, Lp, room->Q + at, d, NULL, 0, D + 2 * d + at, 4 * d);
    }
    mdl_add_rows(L, 2 * d, D, 4 * d, room->dcc);
}

/* From the sums of CAM_item to the gradients of its tensors. room: [d, d]. */
MDL_STATIC void mdl_item_finish(const struct mdl_fast *f, const struct mdl_item_sums *sums,
                                mdl_real *room, struct mdl_cam_weights *dw)
{
    int d = f->d;
    mdl_real scale = mdl_scale(f->d_h);
    mdl_tail_finish(d, &sums->tail, dw);
    memcpy(dw->W_x, sums->W_x, (size_t)(d + f->f) * d * sizeof(mdl_real));
    memcpy(dw->b_x, sums->b_x, (size_t)d * sizeof(mdl_real));
    memcpy(dw->Rho, sums->Rho, (size_t)f->h * f->config->history * sizeof(mdl_real));
    for (int i = 0; i < d; i++) {
        for (int k = 0; k < d; k++) {
            dw->W_q[i * d + k] = sums->W_qkv[i * 3 * d + k];
            dw->W_k[i * d + k] = sums->W_qkv[i * 3 * d + d + k];
            dw->W_v[i * d + k] = sums->W_qkv[i * 3 * d + 2 * d + k];
        }
    }
    mdl_context_finish(d, f->h, &f->item.context, &sums->context, f->item.w, f->item.W_qkv, room,
                       dw, dw->W_q);
    for (int k = 0; k < d * d; k++)
        dw->W_q[k] *= scale;
    for (int k = 0; k < d; k++) {
        dw->b_q[k] = sums->b_qkv[k] * scale;
        dw->b_v[k] = sums->b_qkv[2 * d + k];
    }
}

#endif

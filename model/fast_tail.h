/* The parts that all three CAMs share in the fast path: what the context contributes, and
 * everything behind the attention.
 *
 *     context   [c W_c | c W_c W_q / sqrt(d_h) | h softmax(c W_g + b_g)], one product
 *     tail      S1 = U + O  ->  R = LayerNorm(S1 + b_o)  ->  F = relu(R W_1 + b_1)
 *                           ->  Y = LayerNorm(R + F W_2 + b_2)
 *
 * Each has a prepare (once per step), a forward, a backward that adds to a slice's sums, and a
 * finish that turns the sums into gradients of the named tensors. Included once per level. Threads:
 * any, on rooms of their own.
 */
#ifndef MODEL_FAST_TAIL_H
#define MODEL_FAST_TAIL_H

#include "model/fast_kernel.h"
#include "model/fast_plan.h"
#include "model/fast_rows.h"

/* 1 / sqrt(d_h) */
MDL_INLINE mdl_real mdl_scale(int d_h)
{
    return (mdl_real)(1 / sqrt((double)d_h));
}

/* W_qkv [d, 3d] = [W_q / sqrt(d_h) | W_k | W_v] */
MDL_STATIC void mdl_prepare_qkv(int d, int d_h, const struct mdl_cam_weights *w, mdl_real *W_qkv)
{
    mdl_real scale = mdl_scale(d_h);
    for (int i = 0; i < d; i++) {
        for (int k = 0; k < d; k++) {
            W_qkv[i * 3 * d + k] = w->W_q[i * d + k] * scale;
            W_qkv[i * 3 * d + d + k] = w->W_k[i * d + k];
            W_qkv[i * 3 * d + 2 * d + k] = w->W_v[i * d + k];
        }
    }
}

/* W_qkv: as prepared by the function above. */
MDL_STATIC void mdl_prepare_context(int d, int h, const struct mdl_cam_weights *w,
                                    const mdl_real *W_qkv, struct mdl_context *context)
{
    int wc = context->wc, n = context->d_c;
    memset(context->W, 0, (size_t)n * wc * sizeof(mdl_real));
    memset(context->bias, 0, (size_t)wc * sizeof(mdl_real));
    for (int i = 0; i < n; i++) {
        memcpy(context->W + (size_t)i * wc, w->W_c + (size_t)i * d, (size_t)d * sizeof(mdl_real));
        memcpy(context->W + (size_t)i * wc + 2 * d, w->W_g + (size_t)i * h,
               (size_t)h * sizeof(mdl_real));
    }
    mdl_mul(n, d, d, w->W_c, d, 1, W_qkv, 3 * d, NULL, 0, context->W + d, wc);
    memcpy(context->bias + 2 * d, w->b_g, (size_t)h * sizeof(mdl_real));
    mdl_transpose(n, wc, context->W, wc, context->WT, n);
}

/* cc [n, wc] of contexts ctx [n, d_c]; the gates are already g = h softmax(..). */
MDL_STATIC void mdl_context_forward(int n, int d, int h, const struct mdl_context *context,
                                    const mdl_real *ctx, mdl_real *cc)
{
    int wc = context->wc;
    mdl_mul(n, wc, context->d_c, ctx, context->d_c, 1, context->W, wc, context->bias, 0, cc, wc);
    for (int i = 0; i < n; i++) {
        mdl_real *g = cc + (size_t)i * wc + 2 * d, max = g[0], sum = 0;
        for (int k = 1; k < h; k++)
            max = g[k] > max ? g[k] : max;
        for (int k = 0; k < h; k++)
            sum += g[k] = (mdl_real)exp((double)(g[k] - max));
        for (int k = 0; k < h; k++)
            g[k] *= (mdl_real)h / sum;
    }
}

/* From dcc [n, wc], whose gates are gradients of g: adds to sums, writes dctx [n, d_c]. dcc's
 * padding is zero. */
MDL_STATIC void mdl_context_backward(int n, int d, int h, const struct mdl_context *context,
                                     const mdl_real *ctx, const mdl_real *cc, mdl_real *dcc,
                                     struct mdl_context_sums *sums, mdl_real *dctx)
{
    int wc = context->wc, d_c = context->d_c;
    for (int i = 0; i < n; i++) {
        const mdl_real *g = cc + (size_t)i * wc + 2 * d;
        mdl_real *dg = dcc + (size_t)i * wc + 2 * d, dot = 0;
        for (int k = 0; k < h; k++)
            dot += dg[k] * g[k];
        for (int k = 0; k < h; k++)
            dg[k] = g[k] * (dg[k] - dot / (mdl_real)h);
    }
    mdl_mul(d_c, wc, n, ctx, 1, d_c, dcc, wc, NULL, MDL_ADD, sums->W, wc);
    mdl_add_rows(n, wc, dcc, wc, sums->bias);
    mdl_mul(n, d_c, wc, dcc, wc, 1, context->WT, d_c, NULL, 0, dctx, d_c);
}

/* Adds the context's sums to dw; dW_q [d, d] += what they say about W_q / sqrt(d_h). room: [d_c *
 * d]. */
MDL_STATIC void mdl_context_finish(int d, int h, const struct mdl_context *context,
                                   const struct mdl_context_sums *sums,
                                   const struct mdl_cam_weights *w, const mdl_real *W_qkv,
                                   mdl_real *room, struct mdl_cam_weights *dw, mdl_real *dW_q)
{
    int wc = context->wc, n = context->d_c;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < d; k++)
            dw->W_c[(size_t)i * d + k] = sums->W[(size_t)i * wc + k];
        for (int k = 0; k < h; k++)
            dw->W_g[(size_t)i * h + k] = sums->W[(size_t)i * wc + 2 * d + k];
    }
    for (int k = 0; k < h; k++)
        dw->b_g[k] = sums->bias[2 * d + k];
    mdl_transpose(d, d, W_qkv, 3 * d, room, d);
    mdl_mul(n, d, d, sums->W + d, wc, 1, room, d, NULL, MDL_ADD, dw->W_c, d);
    mdl_mul(d, d, n, w->W_c, 1, d, sums->W + d, wc, NULL, MDL_ADD, dW_q, d);
}

MDL_STATIC void mdl_prepare_tail(int d, const struct mdl_cam_weights *w, struct mdl_tail *tail)
{
    tail->w = w;
    mdl_transpose(d, d, w->W_o, d, tail->W_oT, d);
    mdl_transpose(d, 2 * d, w->W_1, 2 * d, tail->W_1T, d);
    mdl_transpose(2 * d, d, w->W_2, d, tail->W_2T, 2 * d);
}

/* From S1 (n rows, ld apart) to norm2, and Y [n, d] unless NULL. R [n, d]: room. */
MDL_STATIC void mdl_tail_forward(int n, int d, const struct mdl_cam_weights *w, const mdl_real *S1,
                                 ptrdiff_t ld, const struct mdl_kept *kept, mdl_real *R,
                                 mdl_real *Y)
{
    mdl_norm_rows(n, d, S1, ld, w->b_o, w->ln1_w, w->ln1_b, kept->norm1, kept->inv1, R);
    mdl_mul(n, 2 * d, d, R, d, 1, w->W_1, 2 * d, w->b_1, MDL_RELU, kept->F, 2 * d);
    mdl_mul(n, d, 2 * d, kept->F, 2 * d, 1, w->W_2, d, NULL, MDL_ADD, R, d);
    mdl_norm_rows(n, d, R, d, w->b_2, w->ln2_w, w->ln2_b, kept->norm2, kept->inv2, Y);
}

/* From dY (rows ldy apart; 0: one row for all) to D = dS1 (rows ldd apart); adds to sums. R [n, d],
 * dF [n, 2d]: room. */
MDL_STATIC void mdl_tail_backward(int n, int d, const struct mdl_tail *tail, const mdl_real *dY,
                                  ptrdiff_t ldy, const struct mdl_kept *kept, mdl_real *R,
                                  mdl_real *dF, mdl_real *D, ptrdiff_t ldd,
                                  struct mdl_tail_sums *sums)
{
    const struct mdl_cam_weights *w = tail->w;
    mdl_norm_rows_backward(n, d, dY, ldy, w->ln2_w, kept->norm2, kept->inv2, D, ldd, sums->ln2_w,
                           sums->ln2_b, sums->b_2);
    mdl_mul(n, 2 * d, d, D, ldd, 1, tail->W_2T, 2 * d, NULL, 0, dF, 2 * d);
    mdl_mul(2 * d, d, n, kept->F, 1, 2 * d, D, ldd, NULL, MDL_ADD, sums->W_2, d);
    mdl_relu_rows_backward(n, 2 * d, kept->F, dF, sums->b_1);
    mdl_affine_rows(n, d, kept->norm1, w->ln1_w, w->ln1_b, R);
    mdl_mul(d, 2 * d, n, R, 1, d, dF, 2 * d, NULL, MDL_ADD, sums->W_1, 2 * d);
    mdl_mul(n, d, 2 * d, dF, 2 * d, 1, tail->W_1T, d, NULL, MDL_ADD, D, ldd);
    mdl_norm_rows_backward(n, d, D, ldd, w->ln1_w, kept->norm1, kept->inv1, D, ldd, sums->ln1_w,
                           sums->ln1_b, sums->b_o);
}

/* Copies the tail's sums to dw. */
MDL_STATIC void mdl_tail_finish(int d, const struct mdl_tail_sums *sums, struct mdl_cam_weights *dw)
{
    size_t row = (size_t)d * sizeof(mdl_real), square = row * (size_t)d;
    memcpy(dw->W_o, sums->W_o, square);
    memcpy(dw->b_o, sums->b_o, row);
    memcpy(dw->ln1_w, sums->ln1_w, row);
    memcpy(dw->ln1_b, sums->ln1_b, row);
    memcpy(dw->W_1, sums->W_1, 2 * square);
    memcpy(dw->b_1, sums->b_1, 2 * row);
    memcpy(dw->W_2, sums->W_2, 2 * square);
    memcpy(dw->b_2, sums->b_2, row);
    memcpy(dw->ln2_w, sums->ln2_w, row);
    memcpy(dw->ln2_b, sums->ln2_b, row);
}

#endif

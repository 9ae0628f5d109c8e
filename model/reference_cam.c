/* CAM as the page has it, one equation after the other; backward is the same list from the end.
 *
 *     X = S W_x + b_x      U = X + c W_c      Q = U W_q + b_q      K = X W_k      V = X W_v + b_v
 *     A_n = softmax_j(Q_n K_n^T / sqrt(d_h) + rho_n)               g = h * softmax(c W_g + b_g)
 *     O = concat_n(g_n A_n V_n) W_o + b_o
 *     R = LayerNorm(U + O)                                         Y = LayerNorm(R + F W_2 + b_2)
 *     F = relu(R W_1 + b_1)
 *
 * Nothing here is clever: the maps go to BLAS, the rest are loops over rows. The fast path is held
 * to this one.
 */
#include "model/reference_cam.h"

#include "model/blas.h"

#include <math.h>
#include <string.h>

#define EPSILON ((mdl_real)1e-5)

void mdl_reference_cam_take(struct mdl_reference_cam *cam, struct mdl_arena *arena, int max_groups,
                            int max_rows, int max_len)
{
    size_t rows = (size_t)max_rows, d = (size_t)cam->d, h = (size_t)cam->h;
    mdl_real **per_row[] = {&cam->X,  &cam->U,  &cam->Q,     &cam->K,  &cam->V,     &cam->N,
                            &cam->G,  &cam->R,  &cam->norm1, &cam->Y,  &cam->norm2, &cam->dR,
                            &cam->dU, &cam->dQ, &cam->dK,    &cam->dV, &cam->dG,    &cam->dX};
    for (size_t i = 0; i < sizeof(per_row) / sizeof(per_row[0]); i++)
        *per_row[i] = MDL_TAKE(arena, rows * d, mdl_real);
    cam->F = MDL_TAKE(arena, rows * 2 * d, mdl_real);
    cam->dF = MDL_TAKE(arena, rows * 2 * d, mdl_real);
    cam->inv1 = MDL_TAKE(arena, rows, mdl_real);
    cam->inv2 = MDL_TAKE(arena, rows, mdl_real);
    cam->A = MDL_TAKE(arena, rows * (size_t)max_len * h, mdl_real);
    cam->at = MDL_TAKE(arena, max_groups + 1, size_t);
    cam->g = MDL_TAKE(arena, (size_t)max_groups * h, mdl_real);
    cam->dg = MDL_TAKE(arena, (size_t)max_groups * h, mdl_real);
    cam->cW = MDL_TAKE(arena, (size_t)max_groups * d, mdl_real);
}

static void softmax(mdl_real *x, int n)
{
    mdl_real max = x[0], sum = 0;
    for (int j = 1; j < n; j++)
        max = x[j] > max ? x[j] : max;
    for (int j = 0; j < n; j++)
        sum += x[j] = (mdl_real)exp((double)(x[j] - max));
    for (int j = 0; j < n; j++)
        x[j] /= sum;
}

/* dx = y * (dy - sum(dy * y)), in place of dy */
static void softmax_backward(const mdl_real *y, mdl_real *dy, int n)
{
    mdl_real dot = 0;
    for (int j = 0; j < n; j++)
        dot += dy[j] * y[j];
    for (int j = 0; j < n; j++)
        dy[j] = y[j] * (dy[j] - dot);
}

/* y = w * norm + b, norm = (x - mean) / sqrt(variance + epsilon); all [n, d] */
static void layer_norm(int n, int d, const mdl_real *x, const mdl_real *w, const mdl_real *b,
                       mdl_real *y, mdl_real *norm, mdl_real *inv)
{
    for (int i = 0; i < n; i++, x += d, y += d, norm += d) {
        mdl_real mean = 0, variance = 0;
        for (int k = 0; k < d; k++)
            mean += x[k];
        mean /= (mdl_real)d;
        for (int k = 0; k < d; k++)
            variance += (x[k] - mean) * (x[k] - mean);
        variance /= (mdl_real)d;
        inv[i] = 1 / (mdl_real)sqrt((double)(variance + EPSILON));
        for (int k = 0; k < d; k++) {
            norm[k] = (x[k] - mean) * inv[i];
            y[k] = w[k] * norm[k] + b[k];
        }
    }
}

/* dx = inv (w dy - mean(w dy) - norm mean(w dy norm)); dw and db are added to */
static void layer_norm_backward(int n, int d, const mdl_real *dy, const mdl_real *w,
                                const mdl_real *norm, const mdl_real *inv, mdl_real *dx,
                                mdl_real *dw, mdl_real *db)
{
    for (int i = 0; i < n; i++, dy += d, dx += d, norm += d) {
        mdl_real mean = 0, along = 0;
        for (int k = 0; k < d; k++) {
            mean += w[k] * dy[k];
            along += w[k] * dy[k] * norm[k];
            dw[k] += dy[k] * norm[k];
            db[k] += dy[k];
        }
        mean /= (mdl_real)d;
        along /= (mdl_real)d;
        for (int k = 0; k < d; k++)
            dx[k] = inv[i] * (w[k] * dy[k] - mean - norm[k] * along);
    }
}

/* the keys query i of a group of L may attend: 0..return - 1 */
static int n_allowed(const struct mdl_reference_cam *cam, int i, int L)
{
    return cam->causal ? i + 1 : L;
}

/* A and N of one group and head */
static void attend(struct mdl_reference_cam *cam, const struct mdl_cam_weights *w, int group, int n)
{
    int d = cam->d, d_h = d / cam->h, first = cam->offset[group];
    int L = cam->offset[group + 1] - first;
    mdl_real scale = 1 / (mdl_real)sqrt((double)d_h);
    for (int i = 0; i < L; i++) {
        mdl_real *a = cam->A + cam->at[group] + ((size_t)n * L + i) * L;
        const mdl_real *q = cam->Q + (size_t)(first + i) * d + n * d_h;
        mdl_real *out = cam->N + (size_t)(first + i) * d + n * d_h;
        int allowed = n_allowed(cam, i, L);
        for (int j = 0; j < allowed; j++) {
            const mdl_real *k = cam->K + (size_t)(first + j) * d + n * d_h;
            mdl_real dot = 0;
            for (int c = 0; c < d_h; c++)
                dot += q[c] * k[c];
            a[j] = dot * scale;
            if (w->Rho) /* recency of the attended position: 0 = the latest */
                a[j] += w->Rho[n * cam->history + (L - 1 - j)];
        }
        softmax(a, allowed);
        memset(out, 0, (size_t)d_h * sizeof(*out));
        for (int j = 0; j < allowed; j++)
            for (int c = 0; c < d_h; c++)
                out[c] += a[j] * cam->V[(size_t)(first + j) * d + n * d_h + c];
    }
}

void mdl_reference_cam_forward(struct mdl_reference_cam *cam, const struct mdl_cam_weights *w)
{
    int d = cam->d, h = cam->h, d_h = d / h, n = cam->offset[cam->n_groups];
    mdl_linear(n, cam->d_s, d, cam->S, w->W_x, w->b_x, cam->X);
    mdl_linear(cam->n_groups, cam->d_c, d, cam->ctx, w->W_c, NULL, cam->cW);
    mdl_linear(cam->n_groups, cam->d_c, h, cam->ctx, w->W_g, w->b_g, cam->g);
    cam->at[0] = 0;
    for (int group = 0; group < cam->n_groups; group++) {
        size_t L = (size_t)(cam->offset[group + 1] - cam->offset[group]);
        cam->at[group + 1] = cam->at[group] + (size_t)h * L * L;
        softmax(cam->g + group * h, h);
        for (int k = 0; k < h; k++)
            cam->g[group * h + k] *= (mdl_real)h;
        for (int i = cam->offset[group]; i < cam->offset[group + 1]; i++)
            for (int k = 0; k < d; k++)
                cam->U[(size_t)i * d + k] =
                    cam->X[(size_t)i * d + k] + cam->cW[(size_t)group * d + k];
    }
    mdl_linear(n, d, d, cam->U, w->W_q, w->b_q, cam->Q);
    mdl_linear(n, d, d, cam->X, w->W_k, NULL, cam->K);
    mdl_linear(n, d, d, cam->X, w->W_v, w->b_v, cam->V);
    for (int group = 0; group < cam->n_groups; group++) {
        for (int k = 0; k < h; k++)
            attend(cam, w, group, k);
        for (int i = cam->offset[group]; i < cam->offset[group + 1]; i++)
            for (int k = 0; k < d; k++)
                cam->G[(size_t)i * d + k] = cam->g[group * h + k / d_h] * cam->N[(size_t)i * d + k];
    }
    /* dR and dG serve as room for the sums before the norms */
    mdl_linear(n, d, d, cam->G, w->W_o, w->b_o, cam->dR);
    for (size_t k = 0; k < (size_t)n * d; k++)
        cam->dR[k] += cam->U[k];
    layer_norm(n, d, cam->dR, w->ln1_w, w->ln1_b, cam->R, cam->norm1, cam->inv1);
    mdl_linear(n, d, 2 * d, cam->R, w->W_1, w->b_1, cam->F);
    for (size_t k = 0; k < (size_t)n * 2 * d; k++)
        cam->F[k] = cam->F[k] > 0 ? cam->F[k] : 0;
    mdl_linear(n, 2 * d, d, cam->F, w->W_2, w->b_2, cam->dG);
    for (size_t k = 0; k < (size_t)n * d; k++)
        cam->dG[k] += cam->R[k];
    layer_norm(n, d, cam->dG, w->ln2_w, w->ln2_b, cam->Y, cam->norm2, cam->inv2);
}

/* from dN (in dG) of one group and head: adds to dQ, dK, dV and dRho; row: room for one row of A */
static void attend_backward(struct mdl_reference_cam *cam, int group, int n, mdl_real *dRho,
                            mdl_real *row)
{
    int d = cam->d, d_h = d / cam->h, first = cam->offset[group];
    int L = cam->offset[group + 1] - first;
    mdl_real scale = 1 / (mdl_real)sqrt((double)d_h);
    for (int i = 0; i < L; i++) {
        const mdl_real *a = cam->A + cam->at[group] + ((size_t)n * L + i) * L;
        size_t query = (size_t)(first + i) * d + (size_t)n * d_h;
        int allowed = n_allowed(cam, i, L);
        for (int j = 0; j < allowed; j++) {
            size_t key = (size_t)(first + j) * d + (size_t)n * d_h;
            row[j] = 0;
            for (int c = 0; c < d_h; c++) {
                row[j] += cam->dG[query + c] * cam->V[key + c];
                cam->dV[key + c] += a[j] * cam->dG[query + c];
            }
        }
        softmax_backward(a, row, allowed);
        for (int j = 0; j < allowed; j++) {
            size_t key = (size_t)(first + j) * d + (size_t)n * d_h;
            if (dRho)
                dRho[n * cam->history + (L - 1 - j)] += row[j];
            for (int c = 0; c < d_h; c++) {
                cam->dQ[query + c] += row[j] * scale * cam->K[key + c];
                cam->dK[key + c] += row[j] * scale * cam->Q[query + c];
            }
        }
    }
}

/* dG: from the gradient of G to that of N, in place; dg: the gradient of c W_g + b_g */
static void gate_backward(struct mdl_reference_cam *cam, int group)
{
    int d = cam->d, h = cam->h, d_h = d / h;
    mdl_real *dg = cam->dg + (size_t)group * h;
    mdl_real y[MDL_MAX_HEADS];
    memset(dg, 0, (size_t)h * sizeof(*dg));
    for (int i = cam->offset[group]; i < cam->offset[group + 1]; i++) {
        for (int k = 0; k < d; k++) {
            size_t at = (size_t)i * d + k;
            dg[k / d_h] += cam->dG[at] * cam->N[at];
            cam->dG[at] *= cam->g[group * h + k / d_h];
        }
    }
    for (int k = 0; k < h; k++) {
        y[k] = cam->g[group * h + k] / (mdl_real)h;
        dg[k] *= (mdl_real)h;
    }
    softmax_backward(y, dg, h);
}

void mdl_reference_cam_backward(struct mdl_reference_cam *cam, const struct mdl_cam_weights *w,
                                const mdl_real *dY, struct mdl_cam_weights *dw, mdl_real *dS,
                                mdl_real *dctx)
{
    int d = cam->d, n = cam->offset[cam->n_groups];
    size_t bytes = (size_t)n * d * sizeof(mdl_real);
    layer_norm_backward(n, d, dY, w->ln2_w, cam->norm2, cam->inv2, cam->dR, dw->ln2_w, dw->ln2_b);
    memset(cam->dF, 0, 2 * bytes);
    /* dX is room for a copy: the sum before the norm feeds both R and F W_2 */
    memcpy(cam->dX, cam->dR, bytes);
    mdl_linear_backward(n, 2 * d, d, cam->F, w->W_2, cam->dX, cam->dF, dw->W_2, dw->b_2);
    for (size_t k = 0; k < (size_t)n * 2 * d; k++)
        cam->dF[k] = cam->F[k] > 0 ? cam->dF[k] : 0;
    mdl_linear_backward(n, d, 2 * d, cam->R, w->W_1, cam->dF, cam->dR, dw->W_1, dw->b_1);
    layer_norm_backward(n, d, cam->dR, w->ln1_w, cam->norm1, cam->inv1, cam->dU, dw->ln1_w,
                        dw->ln1_b);
    memset(cam->dG, 0, bytes);
    mdl_linear_backward(n, d, d, cam->G, w->W_o, cam->dU, cam->dG, dw->W_o, dw->b_o);
    memset(cam->dQ, 0, bytes);
    memset(cam->dK, 0, bytes);
    memset(cam->dV, 0, bytes);
    for (int group = 0; group < cam->n_groups; group++) {
        gate_backward(cam, group);
        /* dF is free again: a row of attention is at most as long as its group */
        for (int k = 0; k < cam->h; k++)
            attend_backward(cam, group, k, dw->Rho, cam->dF);
    }
    mdl_linear_backward(n, d, d, cam->U, w->W_q, cam->dQ, cam->dU, dw->W_q, dw->b_q);
    memcpy(cam->dX, cam->dU, bytes);
    mdl_linear_backward(n, d, d, cam->X, w->W_k, cam->dK, cam->dX, dw->W_k, NULL);
    mdl_linear_backward(n, d, d, cam->X, w->W_v, cam->dV, cam->dX, dw->W_v, dw->b_v);
    memset(dS, 0, (size_t)n * cam->d_s * sizeof(*dS));
    mdl_linear_backward(n, cam->d_s, d, cam->S, w->W_x, cam->dX, dS, dw->W_x, dw->b_x);
    memset(cam->cW, 0, (size_t)cam->n_groups * d * sizeof(*cam->cW));
    for (int group = 0; group < cam->n_groups; group++)
        for (int i = cam->offset[group]; i < cam->offset[group + 1]; i++)
            for (int k = 0; k < d; k++)
                cam->cW[(size_t)group * d + k] += cam->dU[(size_t)i * d + k];
    memset(dctx, 0, (size_t)cam->n_groups * cam->d_c * sizeof(*dctx));
    mdl_linear_backward(cam->n_groups, cam->d_c, d, cam->ctx, w->W_c, cam->cW, dctx, dw->W_c, NULL);
    mdl_linear_backward(cam->n_groups, cam->d_c, cam->h, cam->ctx, w->W_g, cam->dg, dctx, dw->W_g,
                        dw->b_g);
}

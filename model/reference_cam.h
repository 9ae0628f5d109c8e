/* CAM, the context-aware attention module [6], written as MODEL.md states it: the reference.
 *
 * One call computes many sequences ("groups"), packed one after the other; group g owns the rows
 * offset[g]..offset[g + 1] - 1 and has one context. The same code serves the three uses: act (all
 * attend all), item (all attend all, with the recency bias) and gen (causal). Forward keeps what
 * backward needs. Threads: any, on disjoint workspaces.
 */
#ifndef MODEL_REFERENCE_CAM_H
#define MODEL_REFERENCE_CAM_H

#include "model/arena.h"
#include "model/config.h"
#include "model/weights.h"

struct mdl_reference_cam {
    /* given */
    int d, h, d_s, d_c, history;
    int causal;          /* position i attends 1..i */
    int n_groups;        /* contexts */
    const int *offset;   /* [n_groups + 1] rows of the groups */
    const mdl_real *S;   /* [n_rows, d_s] */
    const mdl_real *ctx; /* [n_groups, d_c] */
    /* kept by forward, n = offset[n_groups] rows */
    size_t *at;                  /* [n_groups + 1] where a group's attention starts in A */
    mdl_real *X, *U, *Q, *K, *V; /* [n, d] */
    mdl_real *A;                 /* per group, head, query, key */
    mdl_real *g;                 /* [n_groups, h] */
    mdl_real *N;                 /* [n, d] concat_n(A_n V_n), before g */
    mdl_real *G;                 /* [n, d] concat_n(g_n A_n V_n) */
    mdl_real *R, *norm1, *inv1;  /* [n, d], [n, d] (normalised), [n] (1 / deviation) */
    mdl_real *F;                 /* [n, 2d] relu(R W_1 + b_1) */
    mdl_real *Y, *norm2, *inv2;  /* [n, d], [n, d], [n] */
    mdl_real *cW;                /* [n_groups, d] c W_c; backward: its gradient */
    /* backward's own */
    mdl_real *dR, *dU, *dQ, *dK, *dV, *dG, *dX; /* [n, d] */
    mdl_real *dF;                               /* [n, 2d] */
    mdl_real *dg;                               /* [n_groups, h] gradient of c W_g + b_g */
};

/* Takes the arrays for at most max_groups groups of max_rows rows in all, each at most max_len
 * long. The given fields d, h, d_s, d_c, history and causal are set from the configuration by the
 * caller before forward. */
void mdl_reference_cam_take(struct mdl_reference_cam *cam, struct mdl_arena *arena, int max_groups,
                            int max_rows, int max_len);

/* Y [n, d] and everything kept, from S and ctx. */
void mdl_reference_cam_forward(struct mdl_reference_cam *cam, const struct mdl_cam_weights *w);

/* From dY [n, d]: adds the weights' gradients to dw, writes dS [n, d_s] and dctx [n_groups, d_c].
 * Follows a forward on the same struct. */
void mdl_reference_cam_backward(struct mdl_reference_cam *cam, const struct mdl_cam_weights *w,
                                const mdl_real *dY, struct mdl_cam_weights *dw, mdl_real *dS,
                                mdl_real *dctx);

#endif

/* The flat parameter vector seen by name: pointers into it, in MODEL.md's symbols. The same view
 * serves the parameters (then only read) and their gradients. Threads: any.
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "model/config.h"

struct mdl_token_weights {
    mdl_real *E;   /* [C, d] */
    mdl_real *W_t; /* [9, d] */
    mdl_real *b_t; /* [d] */
    mdl_real *P;   /* [M, d] */
};

struct mdl_cam_weights {
    mdl_real *W_x, *b_x;     /* [d_s, d], [d] */
    mdl_real *W_q, *b_q;     /* [d, d], [d] */
    mdl_real *W_c;           /* [d_c, d] */
    mdl_real *W_k;           /* [d, d] */
    mdl_real *W_v, *b_v;     /* [d, d], [d] */
    mdl_real *W_g, *b_g;     /* [d_c, h], [h] */
    mdl_real *W_o, *b_o;     /* [d, d], [d] */
    mdl_real *ln1_w, *ln1_b; /* [d] */
    mdl_real *W_1, *b_1;     /* [d, 2d], [2d] */
    mdl_real *W_2, *b_2;     /* [2d, d], [d] */
    mdl_real *ln2_w, *ln2_b; /* [d] */
    mdl_real *Rho;           /* [h, H]; NULL but for cam_item */
};

struct mdl_decision_weights {
    mdl_real *W_c1, *b_c1; /* [d, d], [d] */
    mdl_real *W_c2, *b_c2; /* [d, C], [C] */
    mdl_real *W_t1, *b_t1; /* [d, d], [d] */
    mdl_real *w_t2, *b_t2; /* [d], [1] */
};

struct mdl_weights {
    struct mdl_token_weights token_hist, token_gen;
    struct mdl_cam_weights cam_act, cam_item, cam_gen;
    struct mdl_decision_weights decision;
};

/* Points every member of the view into flat [mdl_n_params]. Parameters come in as const and are not
 * written through a view by anyone. */
void mdl_weights_view(const struct mdl_config *config, const mdl_real *flat,
                      struct mdl_weights *view_p);

#endif

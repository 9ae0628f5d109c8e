/* The two ends of A2Gen, as MODEL.md states them: token embedding, and the decision layer with its
 * losses.
 *
 * Part of the reference; works on packed rows. Threads: any, on disjoint buffers.
 */
#ifndef MODEL_REFERENCE_ENDS_H
#define MODEL_REFERENCE_ENDS_H

#include <stdint.h>

#include "model/arena.h"
#include "model/config.h"
#include "model/weights.h"

/* phi [9] of a time: T' = min(max(T, 0), 4), then sin and cos of 2^0..2^3 pi T'. */
void mdl_phi(float time, mdl_real *phi);

struct mdl_reference_tokens {
    int d, n;          /* rows */
    uint8_t *action;   /* [n] class 0..M, set by the caller */
    uint8_t *position; /* [n] 0..M - 1, set by the caller */
    float *time;       /* [n], set by the caller */
    mdl_real *phi;     /* [n, 9] */
    mdl_real *tok;     /* [n, d] */
};

void mdl_reference_tokens_take(struct mdl_reference_tokens *tokens, struct mdl_arena *arena,
                               int max_rows);

/* tok = E[A] + phi(T) W_t + b_t + P[i]. */
void mdl_reference_tokens_forward(struct mdl_reference_tokens *tokens,
                                  const struct mdl_token_weights *w);

/* Adds to dw from dtok [n, d]. */
void mdl_reference_tokens_backward(const struct mdl_reference_tokens *tokens,
                                   const struct mdl_token_weights *w, const mdl_real *dtok,
                                   struct mdl_token_weights *dw);

struct mdl_reference_decision {
    int d, C, n;          /* rows */
    const mdl_real *Y;    /* [n, d] */
    mdl_real *Hc, *Ht;    /* [n, d] relu(Y W_c1 + b_c1), relu(Y W_t1 + b_t1) */
    mdl_real *P;          /* [n, C] */
    mdl_real *That;       /* [n] */
    mdl_real *dP, *dThat; /* gradients of the logits and of That, set by the losses */
    mdl_real *dHc, *dHt;
};

void mdl_reference_decision_take(struct mdl_reference_decision *decision, struct mdl_arena *arena,
                                 int max_rows);

/* P and That of every row of Y. Source: [12]. */
void mdl_reference_decision_forward(struct mdl_reference_decision *decision,
                                    const struct mdl_decision_weights *w);

/* Adds to dw, writes dY [n, d], from dP and dThat. */
void mdl_reference_decision_backward(struct mdl_reference_decision *decision,
                                     const struct mdl_decision_weights *w,
                                     struct mdl_decision_weights *dw, mdl_real *dY);

/* The losses of one sample's M - 1 predictions, and their gradients times scale, which is 1/B.
 * m: the sample's true tokens, start included; action, time [m]; P [M - 1, C], That [M - 1].
 * Adds the unscaled sums to losses[3] (cls, reg, order); writes dlogits [M - 1, C] and dThat [M -
 * 1]. Source: [14-17]. */
void mdl_sample_losses(const struct mdl_config *config, int m, const uint8_t *action,
                       const float *time, const mdl_real *P, const mdl_real *That, double scale,
                       double losses[3], mdl_real *dlogits, mdl_real *dThat);

#endif

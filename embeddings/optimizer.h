/* The sparse optimisers: one update of one row by one gradient, in place.
 *
 * With w the embedding, g the gradient, n the row's update count after this update (1 for the
 * first), lr, beta1, beta2, eps, l1, l2 the table's settings; every operation in fp32 in this
 * order:
 *
 *   adam             m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g g,
 *                    w = w - (lr sqrt(1 - b2^n) / (1 - b1^n)) m / (sqrt(v) + eps sqrt(1 - b2^n))
 *                    (the usual bias correction, by the row's own count, with the scalars gathered
 * in front) rowwise_adagrad  s = s + mean(g g),  w = w - lr g / (sqrt(s) + eps)             one s a
 * row adagrad          s = s + g g,  w = w - lr g / (sqrt(s) + eps) sgd              w = w - lr g
 *   ftrl             sigma = (sqrt(n + g g) - sqrt(n)) / lr,  z = z + g - sigma w,  n = n + g g,
 *                    w = 0 if |z| <= l1, else (sign(z) l1 - z) / ((beta + sqrt(n)) / lr + l2)
 *                    the first update takes z = -w beta / lr - l2 w, so that w = its initial value
 * at n = 0
 *
 * Bits do not depend on the CPU: lanes are computed alike at any vector width (no contraction, IEEE
 * sqrt and division), and the one sum over lanes (rowwise_adagrad) has 16 partial sums added in a
 * fixed tree. Threads: any on distinct rows.
 */
#ifndef EMBEDDINGS_OPTIMIZER_H
#define EMBEDDINGS_OPTIMIZER_H

#include "embeddings/table.h"

#include <stdint.h>

/* A table's settings as fp32 and the tables of powers for adam's bias correction. */
struct emb_updater {
    enum emb_optimizer optimizer;
    int dim, n_state;
    float learning_rate, beta1, beta2, epsilon, l1, l2;
    void (*update)(const struct emb_updater *updater, float *w, float *state, const float *grad,
                   uint32_t count);
    float *step_size; /* [n_corrections] lr sqrt(1 - b2^n) / (1 - b1^n), n = index + 1; adam only */
    float *step_epsilon;    /* [n_corrections] eps sqrt(1 - b2^n) */
    uint32_t n_corrections; /* beyond it both have reached their limits in fp32 */
};

/* Prepares the updates of a checked spec. NO_MEMORY. */
int emb_updater_init(struct emb_updater *updater, const struct emb_table_spec *spec);
void emb_updater_fini(struct emb_updater *updater);

/* w [dim] and state [n_state] updated by grad [dim]; count: updates including this one, at least 1.
 */
static inline void emb_update(const struct emb_updater *updater, float *w, float *state,
                              const float *grad, uint32_t count)
{
    updater->update(updater, w, state, grad, count);
}

/* bf16 storage. Narrow rounds stochastically: up with the probability of the remainder, by a hash
 * of (key, count, lane), so that the same update always rounds alike; NaN and infinity stay what
 * they are. */
void emb_bf16_widen(const uint16_t *from, int dim, float *to);
void emb_bf16_narrow(const float *from, int dim, uint64_t key, uint32_t count, uint16_t *to);

/* True when no lane is NaN or infinite; n floats. */
int emb_all_finite(const float *values, size_t n);

#endif

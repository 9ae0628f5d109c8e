/* Dense optimisers on flat vectors: Adam, with decoupled weight decay as an option, and a moving
 * average of the weights. The state is the caller's, so that a snapshot can carry it; every rank
 * runs the same step on the same sums and stays identical. Threads: any, on disjoint vectors.
 */
#ifndef MODEL_ADAM_H
#define MODEL_ADAM_H

#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

struct mdl_adam {
    double learning_rate, beta1, beta2, epsilon;
    double weight_decay; /* decoupled: the weight loses learning_rate * weight_decay of itself; 0 =
                            off */
};

/* MODEL.md's: 1e-3, 0.9, 0.999, 1e-8, no decay. */
struct mdl_adam mdl_adam_default(void);

/* One step. step counts from 1; m and v [n] start as zeros; decay [n] says where weight decay
 * applies (NULL: everywhere; see mdl_params_decay_mask). */
void mdl_adam_step(const struct mdl_adam *adam, uint64_t step, size_t n, const uint8_t *decay,
                   const mdl_real *grads, mdl_real *params, mdl_real *m, mdl_real *v);

/* average += (1 - decay) * (params - average), elementwise over [n]; with step from 1 the effective
 * decay is min(decay, (step - 1) / (step + 9)), so the first call copies. */
void mdl_average_step(double decay, uint64_t step, size_t n, const mdl_real *params,
                      mdl_real *average);

#endif

/* Adam as its authors state it, with bias correction; the sums of a step are in order and
 * elementwise, so ranks that start the same stay the same. The arithmetic is in mdl_real but for
 * the two corrections.
 */
#include "model/adam.h"

#include <math.h>
#include <string.h>

struct mdl_adam mdl_adam_default(void)
{
    return (struct mdl_adam){.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
}

void mdl_adam_step(const struct mdl_adam *adam, uint64_t step, size_t n, const uint8_t *decay,
                   const mdl_real *grads, mdl_real *params, mdl_real *m, mdl_real *v)
{
    mdl_real correct1 = (mdl_real)(1 / (1 - pow(adam->beta1, (double)step)));
    mdl_real correct2 = (mdl_real)(1 / (1 - pow(adam->beta2, (double)step)));
    mdl_real beta1 = (mdl_real)adam->beta1, beta2 = (mdl_real)adam->beta2;
    mdl_real rest1 = (mdl_real)(1 - adam->beta1), rest2 = (mdl_real)(1 - adam->beta2);
    mdl_real rate = (mdl_real)adam->learning_rate, epsilon = (mdl_real)adam->epsilon;
    mdl_real shrink = (mdl_real)(adam->learning_rate * adam->weight_decay);
    for (size_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + rest1 * grads[i];
        v[i] = beta2 * v[i] + rest2 * grads[i] * grads[i];
        mdl_real decayed = !decay || decay[i] ? shrink * params[i] : 0;
        mdl_real root = (mdl_real)sqrt((double)(v[i] * correct2));
        params[i] -= rate * (m[i] * correct1) / (root + epsilon) + decayed;
    }
}

void mdl_average_step(double decay, uint64_t step, size_t n, const mdl_real *params,
                      mdl_real *average)
{
    if (step <= 1) {
        memcpy(average, params, n * sizeof(*average));
        return;
    }
    double warm = (double)(step - 1) / (double)(step + 9);
    mdl_real rest = (mdl_real)(1 - (decay < warm ? decay : warm));
    for (size_t i = 0; i < n; i++)
        average[i] += rest * (params[i] - average[i]);
}

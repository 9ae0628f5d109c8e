/* One flat vector each for weights, moments, gradients: what the ranks must agree on, in the order
 * in which they add it up.
 *
 * (D1) Every rank starts from the same bits (a hash of the seed, or the same snapshot) and applies
 *      the same sums with the same arithmetic; so ranks never drift and one rank's copy is the
 *      snapshot.
 * (D2) When dense gradients are summed only every k-th step (async jobs), the steps between are
 *      held and their mean is applied: the weights stay equal on all ranks between sums as well.
 */
#include "worker/train_dense.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "model/adam.h"
#include "model/params.h"

#include <stdlib.h>
#include <string.h>

/* one allocation each, zeroed, aligned for the vector code */
static float *vector(size_t n)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, n * sizeof(float) + 64))
        return NULL;
    memset(memory, 0, n * sizeof(float));
    return memory;
}

int wrk_dense_init(struct wrk_dense *dense, const struct clu_job *job,
                   const struct mdl_config *config, int n_extras)
{
    memset(dense, 0, sizeof(*dense));
    dense->config = *config;
    dense->n = mdl_n_params(config);
    dense->n_extras = n_extras;
    dense->learning_rate = job->dense_learning_rate;
    dense->weight_decay = job->weight_decay;
    dense->average_decay = job->average_decay;
    dense->final_share = job->final_learning_rate;
    dense->warmup_steps = (uint64_t)job->warmup_steps;
    dense->params = vector(dense->n);
    dense->m = vector(dense->n);
    dense->v = vector(dense->n);
    dense->sums = vector(dense->n + (size_t)n_extras);
    dense->decay = calloc(dense->n, 1);
    int failed = !dense->params || !dense->m || !dense->v || !dense->sums || !dense->decay;
    if (job->average_decay > 0)
        failed |= !(dense->average = vector(dense->n));
    if (job->staleness == CLU_STALENESS_ASYNC && job->dense_every > 1)
        failed |= !(dense->pending = vector(dense->n));
    if (failed) {
        wrk_dense_fini(dense);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %zu dense parameters",
                        mdl_n_params(config));
    }
    mdl_params_decay_mask(config, dense->decay);
    mdl_params_init(config, (uint64_t)job->seed, dense->params);
    if (dense->average)
        memcpy(dense->average, dense->params, dense->n * sizeof(float));
    return CLU_OK;
}

void wrk_dense_fini(struct wrk_dense *dense)
{
    free(dense->params);
    free(dense->average);
    free(dense->m);
    free(dense->v);
    free(dense->sums);
    free(dense->pending);
    free(dense->decay);
    memset(dense, 0, sizeof(*dense));
}

float *wrk_dense_grads(struct wrk_dense *dense)
{
    return dense->sums;
}

float *wrk_dense_extras(struct wrk_dense *dense)
{
    return dense->sums + dense->n;
}

void wrk_dense_hold(struct wrk_dense *dense)
{
    for (size_t i = 0; i < dense->n; i++)
        dense->pending[i] += dense->sums[i];
}

double wrk_dense_rate(const struct wrk_dense *dense, uint64_t step)
{
    double rate = dense->learning_rate;
    if (dense->last_step > 1 && step <= dense->last_step)
        rate *= 1 - (1 - dense->final_share) * (double)(step - 1) / (double)(dense->last_step - 1);
    if (step < dense->warmup_steps)
        rate *= (double)step / (double)dense->warmup_steps;
    return rate;
}

int wrk_dense_update(struct wrk_dense *dense, struct wrk_mpi *mpi, uint64_t step, int64_t n_steps)
{
    if (dense->pending) {
        float scale = 1.0f / (float)n_steps;
        for (size_t i = 0; i < dense->n; i++)
            dense->sums[i] = (dense->sums[i] + dense->pending[i]) * scale; /* (D2) */
        memset(dense->pending, 0, dense->n * sizeof(float));
    }
    int status = wrk_mpi_sum_floats(mpi, dense->sums, dense->n + (size_t)dense->n_extras,
                                    WRK_MPI_TIMEOUT_MS);
    if (status)
        return status;
    struct mdl_adam adam = mdl_adam_default();
    adam.learning_rate = wrk_dense_rate(dense, step);
    adam.weight_decay = dense->weight_decay;
    dense->updates++;
    mdl_adam_step(&adam, dense->updates, dense->n, dense->decay, dense->sums, dense->params,
                  dense->m, dense->v);
    if (dense->average)
        mdl_average_step(dense->average_decay, dense->updates, dense->n, dense->params,
                         dense->average);
    return CLU_OK;
}

const float *wrk_dense_weights(const struct wrk_dense *dense)
{
    return dense->average ? dense->average : dense->params;
}

void wrk_dense_state(struct wrk_dense *dense, struct wrk_state *state_p)
{
    state_p->config = dense->config;
    state_p->weights = dense->params;
    state_p->adam_m = dense->m;
    state_p->adam_v = dense->v;
    state_p->average = dense->average;
    state_p->updates = dense->updates;
}

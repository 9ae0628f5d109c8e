/* The dense half of a training rank: parameters, Adam, the moving average, and the sum over ranks.
 *
 *     gradients [n] | extras [k]   --one all-reduce-->   the same sums on every rank --> Adam
 *
 * Gradients and a few extra numbers (losses, wishes) lie in one buffer, so that one collective a
 * step carries everything the ranks tell each other. Threads: one owner.
 */
#ifndef WORKER_TRAIN_DENSE_H
#define WORKER_TRAIN_DENSE_H

#include "cluster/job.h"
#include "model/config.h"
#include "worker/mpi.h"
#include "worker/state.h"

#include <stddef.h>
#include <stdint.h>

struct wrk_dense {
    struct mdl_config config;
    size_t n; /* mdl_n_params */
    int n_extras;
    float *params;    /* [n] */
    float *average;   /* [n], or NULL when the job keeps none */
    float *m, *v;     /* [n] Adam's moments */
    float *sums;      /* [n + n_extras] gradients to be summed, then extras */
    float *pending;   /* [n] gradients held since the last all-reduce; NULL: one each step */
    uint8_t *decay;   /* [n] where weight decay applies */
    uint64_t updates; /* Adam steps done */
    double learning_rate, weight_decay, average_decay;
    double final_share; /* of the learning rate, left at last_step */
    uint64_t warmup_steps;
    uint64_t last_step; /* set before the first update */
};

/* Fresh parameters of the job's seed; the same on every rank. Errors: CLU_E_NO_MEMORY. */
int wrk_dense_init(struct wrk_dense *dense, const struct clu_job *job,
                   const struct mdl_config *config, int n_extras);
void wrk_dense_fini(struct wrk_dense *dense);

/* Where a step's backward writes its gradients [n], and the extras [n_extras] behind them. */
float *wrk_dense_grads(struct wrk_dense *dense);
float *wrk_dense_extras(struct wrk_dense *dense);

/* Puts the step's gradients by, for an all-reduce at a later step. */
void wrk_dense_hold(struct wrk_dense *dense);

/* The learning rate of a step (from 1): rises evenly over warmup_steps, and falls evenly to its
 * final share at last_step. */
double wrk_dense_rate(const struct wrk_dense *dense, uint64_t step);

/* Sums gradients (with those held) and extras over all ranks and updates the parameters: one Adam
 * step with the mean over the n_steps steps that end with step. Collective. */
int wrk_dense_update(struct wrk_dense *dense, struct wrk_mpi *mpi, uint64_t step, int64_t n_steps);

/* The weights to evaluate and export: the average where one is kept. */
const float *wrk_dense_weights(const struct wrk_dense *dense);

/* A view of it all for state.h; step and position are left to the caller. */
void wrk_dense_state(struct wrk_dense *dense, struct wrk_state *state_p);

#endif

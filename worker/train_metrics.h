/* The metrics of one rank: where its time goes, what it did, what its client saw. The training
 * thread writes them once a step; whoever scrapes reads atomics. */
#ifndef WORKER_TRAIN_METRICS_H
#define WORKER_TRAIN_METRICS_H

#include <stdint.h>

struct psv_client_stats;
struct wrk_train_metrics;
struct wrk_trainer;

/* Seconds of a step, or turn: waiting for its batch, waiting for its rows, computing. */
struct wrk_turn_seconds {
    double feed, pull, compute;
};

/* Registers in the trainer's registry, if it has one. Errors: CLU_E_NO_MEMORY, logged. */
int wrk_train_metrics_create(struct wrk_trainer *trainer);
void wrk_train_metrics_free(struct wrk_train_metrics *metrics);

/* A step, or turn, is done by this rank. */
void wrk_train_metrics_turn(struct wrk_trainer *trainer, int64_t n_samples,
                            struct wrk_turn_seconds seconds);

/* All ranks have met; seconds: that the sum took, waits for other ranks included. */
void wrk_train_metrics_meeting(struct wrk_trainer *trainer, const struct psv_client_stats *client,
                               double seconds);

#endif

/* Early stopping: when a job has learned what it can, and which of its epochs to keep.
 *
 *     epoch's end: validation loss --judge--> better than every one before: the weights of this
 *     step are the ones to keep                        else: `patience` such epochs in a row are
 *     enough, training ends
 *
 * The loss is the sum over the actions of the log loss of P(action) on the slice that the job
 * keeps out (valid_percent): it sees ranking and calibration, and is far steadier from epoch to
 * epoch than the AUC of a rare action. A verdict is a function of the losses heard so far, which
 * every rank has alike and a snapshot holds: ranks agree without a word, and a job that was killed
 * decides as an undisturbed one. Plain data, copyable. Threads: one owner.
 */
#ifndef WORKER_STOPPING_H
#define WORKER_STOPPING_H

#include "worker/evaluate.h"

#include <stdbool.h>
#include <stdint.h>

struct wrk_stopping {
    int64_t patience;     /* epochs; 0: never stops, nothing is judged */
    uint64_t judged;      /* step of the last verdict; 0: none yet */
    uint64_t best_step;   /* 0: none yet */
    double best_loss;     /* at best_step */
    int64_t n_not_better; /* epochs judged since */
};

/* The loss of an evaluation that is judged by. NaN when no sample was read. */
double wrk_stopping_loss(const struct wrk_evaluation *evaluation);

/* Hears the loss after a step, which is later than the last one judged. True: the best so far. A
 * loss that is not finite is never better. */
bool wrk_stopping_judge(struct wrk_stopping *stopping, uint64_t step, double loss);

/* True when the last `patience` verdicts were "not better". */
bool wrk_stopping_is_enough(const struct wrk_stopping *stopping);

#endif

/* Evaluation: how well a model ranks the actions, and times them, on samples it has not learned
 * from.
 *
 * Every sample of the split is read by generation (greedy or exact; the target's true tokens are
 * never seen), its P and T collected, and the metrics of the field computed per action: AUC over
 * all samples, GAUC per user, log loss, calibration (predicted / true), and the mean absolute error
 * of T over the samples where the action occurs. Where the data set knows the true probabilities,
 * the same metrics of the truth stand beside them: nothing can do better.
 *
 * Rows come from whoever fetches them: the servers during training, an export afterwards. The split
 * is dealt over the ranks and the results merged; every rank gets the same figures.
 */
#ifndef WORKER_EVALUATE_H
#define WORKER_EVALUATE_H

#include "ps/client.h"
#include "worker/batch.h"
#include "worker/export_manifest.h"
#include "worker/mpi.h"
#include "worker/reader.h"

#include <stdint.h>
#include <stdio.h>

/* Where rows come from: fills the rows of every part. */
struct wrk_row_source {
    int (*fetch)(void *context, const struct psv_part *parts, int n_parts);
    void *context;
};

struct wrk_evaluate_options {
    struct wrk_dataset *dataset;
    const struct wrk_features *features;
    const struct mdl_config *config;
    const float *params; /* [mdl_n_params] */
    struct wrk_row_source rows;
    enum wrk_split split;
    int valid_percent;
    const char *read;    /* "greedy" or "exact" */
    int64_t batch;       /* samples read at once by all ranks together */
    struct wrk_mpi *mpi; /* NULL: one rank */
    uint64_t step;       /* reported only */
};

/* An action that this share of all pairs has, or more, is timed but not ranked: its AUC would
 * compare a handful of odd samples with everybody else (MODEL.md: "nor is an action that nearly
 * every sample has"). */
#define WRK_EVALUATE_MOST_RANKED 0.95

struct wrk_action_figures {
    char action[32];
    uint64_t n_positives;
    uint64_t gauc_users;
    double auc, gauc, log_loss, calibration; /* NaN where undefined */
    double auc_error;                        /* 0 while exact (model/metrics.h) */
    double time_mae, time_mae_literal;       /* of T, and of the paper's unnormalised sum */
    /* of the true probabilities and expected times; NaN without truth */
    double best_auc, best_log_loss, best_time_mae;
};

struct wrk_evaluation {
    uint64_t step, n_samples;
    char read[16];
    double seconds;
    double samples_per_second;
    int n_actions; /* evaluated actions: all but start */
    struct wrk_action_figures action[WRK_MANIFEST_MAX_ACTIONS];
};

/* Runs the evaluation. Collective when mpi is given. */
int wrk_evaluate(const struct wrk_evaluate_options *options, struct wrk_evaluation *evaluation_p);

/* The figures as a new JSON object (NaN becomes null). NULL when out of memory. */
json_t *wrk_evaluation_json(const struct wrk_evaluation *evaluation);

/* Adds the figures as one line to a file (created if missing), synced. */
int wrk_evaluation_append(const struct wrk_evaluation *evaluation, const char *path);

/* Writes a table of the figures for a person to the log, a line an action. */
void wrk_evaluation_log(const struct wrk_evaluation *evaluation);

/* The same table for a person, to a stream. */
void wrk_evaluation_print(const struct wrk_evaluation *evaluation, FILE *stream);

/* Fetches the rows of a filled batch from a source. */
int wrk_fetch_batch(const struct wrk_row_source *source, struct wrk_batch *batch);

#endif

/* The batches that bench_train measures, and their way to another program.
 *
 * A user's timeline is n_history + samples_per_user items long; sample k sees the n_history items
 * before it, so the samples of a user share all but a few of them. An item has 2..M tokens, 4 in
 * the mean at M = 6.
 */
#ifndef TESTS_BENCH_BENCH_TRAIN_BATCH_H
#define TESTS_BENCH_BENCH_TRAIN_BATCH_H

#include "model/batch.h"
#include "model/config.h"

struct bench_batch {
    struct mdl_config config;
    struct mdl_batch view;
    mdl_real *params;
};

/* n_samples samples, samples_per_user of each user, histories of config->history items; at most
 * n_samples distinct target items beside those of the histories. Aborts when out of memory. */
void bench_batch_init(struct bench_batch *batch, const struct mdl_config *config, int n_samples,
                      int samples_per_user);

/* Gives every sample the first one's history: candidates of one request. */
void bench_batch_share_history(struct bench_batch *batch);

/* A batch of n_samples training samples of a prepared data set, 8 a user at most, with the rows its
 * tables would start from; the default sizes of the job file. 0, or -1 (logged). */
int bench_batch_load(struct bench_batch *batch, const char *data_dir, int n_samples);

void bench_batch_fini(struct bench_batch *batch);

/* Writes the configuration, batch and parameters as raw arrays, with a line of name, type and
 * length each in DIR/arrays.txt. 0, or -1 with a message on stderr. */
int bench_batch_dump(const struct bench_batch *batch, const char *dir);

#endif

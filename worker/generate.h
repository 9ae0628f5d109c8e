/* A synthetic short-video data set whose every probability is known (worker/world.h).
 *
 * Users are integers 1..n_users, videos are texts v1..v<n_items>; each viewing is a pair, all
 * actions of the video preset, T = position / duration. User columns: id, cohort; item columns: id,
 * author, duration (numeric, log1p of seconds). Test samples carry P and expected T of every action
 * given everything hidden: what no model can beat. The same arguments give the same bytes. Memory:
 * users are made in slices, so billions need only time. Threads: one call, one thread.
 */
#ifndef WORKER_GENERATE_H
#define WORKER_GENERATE_H

#include "worker/dataset.h"

#include <stdint.h>

struct wrk_generate_options {
    uint64_t n_users, n_items, n_samples; /* samples are spread over users by their activity */
    uint64_t seed;
    double split; /* 0.9 */
    const char *dir;
    const char *log; /* "" or NULL; else also written as a log that the video preset reads */
};

/* Errors: USAGE for numbers that cannot be (more samples than a quarter of users x items); those of
 * the writer. */
int wrk_generate(const struct wrk_generate_options *options, struct wrk_dataset_info *info_p);

#endif

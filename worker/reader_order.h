/* In which order an epoch's samples come, computed from the shards' indexes alone.
 *
 *     frames, shuffled --> windows of window_bytes --> chunks of samples_per_user samples of one
 *     frame, shuffled within the window --> one stream of samples; batch b is samples [b B, (b + 1)
 *     B) of it
 *
 * A frame's own samples are numbered by its sequence (worker/reader_frame.h): users' full runs
 * first, so that a chunk is one run wherever a user has enough samples. Because chunks have known
 * sizes, every rank knows every batch without decoding a frame, and a position is found by
 * arithmetic. Threads: one owner.
 */
#ifndef WORKER_READER_ORDER_H
#define WORKER_READER_ORDER_H

#include "worker/dataset_internal.h"
#include "worker/reader.h"

#include <stddef.h>
#include <stdint.h>

/* Samples [from, from + n) of a frame's sequence. */
struct wrk_part {
    size_t window;
    size_t frame; /* of the data set */
    uint32_t from, n;
};

struct wrk_order;

int wrk_order_create(const struct wrk_dataset *dataset, const struct wrk_reader_options *options,
                     struct wrk_order **order_p);
void wrk_order_free(struct wrk_order *order); /* NULL is fine */

uint64_t wrk_order_n_batches(const struct wrk_order *order);

/* The pieces of rank's part of a batch (batch < n_batches), sorted by frame; valid until the next
 * call. *n_global_p: the samples of the whole batch; *first_window_p: frames of windows before it
 * are not needed any more. */
int wrk_order_batch(struct wrk_order *order, struct wrk_position position, int rank,
                    const struct wrk_part **parts_p, size_t *n_parts_p, int *n_global_p,
                    size_t *first_window_p);

/* A generator for shuffles: splitmix64 over a state made of the parts. */
uint64_t wrk_shuffle_state(uint64_t seed, uint64_t epoch, uint64_t what);

/* Fisher-Yates on items of item_bytes (at most 32). */
void wrk_shuffle(void *items, size_t n, size_t item_bytes, uint64_t state);

#endif

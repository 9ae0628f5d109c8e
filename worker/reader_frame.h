/* A decoded frame as the reader uses it: the block, the order of its samples, and what the batch
 * under construction has met of it.
 *
 * The sequence lists the samples (pairs of the split) in runs of at most samples_per_user
 * consecutive samples of one user: full runs first, then the shorter ones, each group shuffled.
 * Threads: one owner.
 */
#ifndef WORKER_READER_FRAME_H
#define WORKER_READER_FRAME_H

#include "worker/dataset_internal.h"
#include "worker/reader.h"

#include <stddef.h>
#include <stdint.h>

/* What the batch with this stamp knows of a pair; other stamps mean: nothing yet. */
struct wrk_memo {
    uint32_t seq_stamp, item_stamp;
    int seq, item;
    uint32_t n_known; /* tokens of seq */
    int64_t next_ms;  /* when the next token becomes known */
};

struct wrk_reader_frame {
    size_t window, frame; /* where it belongs */
    struct wrk_block block;
    uint32_t *sequence; /* [n_samples] pairs */
    uint32_t n_samples;
    uint32_t *user_of; /* [n_pairs] */
    uint32_t *user_stamp;
    int *user_row;         /* [n_users] row of the batch, when stamped */
    struct wrk_memo *memo; /* [n_pairs] */
};

/* Reads and decodes; frees with wrk_reader_frame_free. Errors: CORRUPT, NO_MEMORY. */
int wrk_reader_frame_load(const struct wrk_dataset *dataset,
                          const struct wrk_reader_options *options, uint64_t epoch, size_t window,
                          size_t frame, struct wrk_reader_frame **frame_p);

void wrk_reader_frame_free(struct wrk_reader_frame *frame); /* NULL is fine */

#endif

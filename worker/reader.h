/* The reader: from a data set to batches of samples, the same for any number of ranks.
 *
 *     frames of user blocks --shuffle by (seed, epoch)--> chunks of samples_per_user --> global
 * batches rank r takes a contiguous part of each
 *
 * The order of an epoch is a function of the data set, seed, epoch, batch and samples_per_user
 * alone: it is computed from the shards' indexes, so a rank decodes only the frames its own part
 * needs, and starting at any position costs no replay. The global batch of a step holds the same
 * samples for any n_ranks; a rank's part is cut at chunk boundaries, and may be empty when there
 * are more ranks than chunks.
 *
 * A thread of the reader's own builds batches ahead. Within a batch users, items (by id and
 * features) and history sequences (by pair and number of actions known) are distinct: everything
 * that is the same stands once and is shared by index.
 *
 * Threads: one owner per reader; a batch handed out may be used and freed by any one thread.
 */
#ifndef WORKER_READER_H
#define WORKER_READER_H

#include "worker/dataset.h"

#include <stdbool.h>
#include <stdint.h>

/* The next global batch of a split: batch counts from 0 within its epoch, epoch from 0. */
struct wrk_position {
    uint64_t epoch, batch;
};

struct wrk_reader_options {
    enum wrk_split split;
    int valid_percent; /* 0..WRK_MAX_VALID_PERCENT of the training part are cut off for
                          WRK_SPLIT_VALID */
    uint64_t seed;
    int batch;            /* samples of a global batch; the last one of an epoch may be smaller */
    int samples_per_user; /* at most so many consecutive samples of a user stand together; 1.. */
    int history;          /* H, 0.. */
    int rank, n_ranks;    /* n_ranks 1.. */
    bool asked;    /* batches come as wrk_reader_ask names them, not in the order of the epoch */
    bool shuffle;  /* false: the stored order, users together, each user's samples by time */
    bool with_ids; /* fill user_id and item_id (costs formatting; score wants it, training does not)
                    */
    int n_ahead;   /* batches built ahead; 0: a default of 4 */
    uint64_t
        window_bytes; /* decoded blocks among which samples are mixed; 0: a default of 64 MiB */
};

/* An id as it stood in the log: not NUL-terminated. is_integer: it was a decimal integer (its key
 * is the number's 64 bits; text is the number), and may be written as a number in JSON. */
struct wrk_id {
    const char *text;
    int size_bytes;
    bool is_integer;
};

/* One rank's part of a global batch. All arrays live until wrk_samples_free. The index arrays are
 * those of struct mdl_batch (model/batch.h) and mean the same. */
struct wrk_samples {
    struct wrk_position position; /* of this batch; to resume after it, give {epoch, batch + 1} */
    int n_samples, n_global;      /* of this rank; of the global batch over all ranks */
    int n_users, n_items, n_seqs;
    /* feature values by column: a key for sparse; for numeric the bits of a float in the low 32
     * bits */
    const uint64_t *user_value; /* [n_users, n_user_columns]; column 0: the user's key */
    const uint64_t *item_value; /* [n_items, n_item_columns]; column 0: the item's key */
    /* NULL unless options.with_ids */
    const struct wrk_id *user_id;         /* [n_users] */
    const struct wrk_id *item_id;         /* [n_items] */
    const int *sample_user, *sample_item; /* [n_samples] */
    const int *seq_item;                  /* [n_seqs] */
    const int *seq_offset;                /* [n_seqs + 1] into seq_action, seq_time */
    const uint8_t *seq_action;            /* ids 1..M, the first token of a seq is start */
    const float *seq_time;                /* T, transformed */
    const int *hist_offset;               /* [n_samples + 1] into hist_seq */
    const int *hist_seq;                  /* oldest first, at most H a sample */
    const int *target_offset;             /* [n_samples + 1] into target_action, target_time */
    const uint8_t *target_action;         /* the label, start first */
    const float *target_time;
    /* start of the sample in the log's own unit (info.time_unit_ms). The reader's order is not the
     * time order: score sorts by (sample_time, user key, item key), which is DATA.md's global order
     */
    const int64_t *sample_time; /* [n_samples] */
    /* seconds since the start of the latest pair of the history; 0 where there is none */
    const float *sample_gap; /* [n_samples] */
    /* generate's truth, NULL unless info.has_truth and the split is TEST: P(action | what is
     * knowable at the start) and the expected T given that it occurs; index [sample * (M + 1) +
     * action] */
    const float *truth_probability, *truth_time;
};

struct wrk_reader;

/* Starts a reader at a position: at the first batch of the given epoch or any later one of it; a
 * position one past the epoch's last batch starts the next epoch (training goes on for ever; the
 * caller counts). Errors: CONFIG for options out of range, or a split without samples. The data set
 * must stay open. */
int wrk_reader_open(const struct wrk_dataset *dataset, const struct wrk_reader_options *options,
                    struct wrk_position from, struct wrk_reader **reader_p);

/* Batches of one epoch: ceil(samples of the split / batch); the same on every rank. */
uint64_t wrk_reader_n_batches(const struct wrk_reader *reader);

/* The next batch (maybe with n_samples = 0 for this rank), or *samples_p = NULL at the end of an
 * epoch; the call after that gives the first batch of the next epoch. Waits for the reading thread;
 * where batches are asked for, only after an ask, and there is no end of an epoch.
 * Errors: CORRUPT (naming the shard), NO_MEMORY; they repeat on every later call. Thread: owner. */
int wrk_reader_next(struct wrk_reader *reader, struct wrk_samples **samples_p);

/* A reader of asked batches: the part that rank `part` of n_ranks takes of the batch at a position
 * is to come next, after those that were asked for before; positions never fall. Errors: BUG when
 * 64 wait already. Thread: owner, or one that stands in for it. */
int wrk_reader_ask(struct wrk_reader *reader, struct wrk_position position, int part);

/* Ends a batch's life; NULL is fine. Thread: any. */
void wrk_samples_free(struct wrk_samples *samples);

/* Stops the thread. Batches handed out stay valid. NULL is fine. */
void wrk_reader_close(struct wrk_reader *reader);

#endif

/* The feed: a thread that turns the reader's samples into filled batches, a few steps ahead.
 *
 *     reader (a thread) --> feed thread: fill --> queue of slots --> training: pull, compute, push
 *                                  ^---------------- returned slots ---------'
 *
 * Slots are recycled, so that in the steady state nothing is allocated. Step s is global batch
 * number s - 1 counted over epochs: the feed knows every batch's step, which is what id dropout is
 * drawn by. Where batches are dealt (reader.asked) the owner names each one instead, and nothing is
 * made before. Threads: one owner, beside the feed's own.
 */
#ifndef WORKER_TRAIN_FEED_H
#define WORKER_TRAIN_FEED_H

#include "worker/batch.h"
#include "worker/reader.h"

#include <stdint.h>

struct wrk_feed;

struct wrk_feed_options {
    const struct wrk_dataset *dataset;
    const struct wrk_features *features; /* outlives the feed */
    struct wrk_reader_options reader;
    struct wrk_position from; /* of the first batch */
    uint64_t first_step;      /* its step, counted from 1 */
    int n_slots;              /* batches in flight and waiting together; 2.. */
    double id_dropout, history_dropout;
};

/* One batch on its way through a step. The training thread may use every field until it returns the
 * slot. */
struct wrk_feed_slot {
    struct wrk_batch *batch;
    struct wrk_samples *samples;
    uint64_t step;
    struct wrk_position position;
    uint64_t pull_ticket, push_ticket; /* the training thread's own */
};

/* Starts at a position; *n_batches_p: batches of an epoch. */
int wrk_feed_start(const struct wrk_feed_options *options, struct wrk_feed **feed_p,
                   uint64_t *n_batches_p);

/* A feed of asked batches: the given part of the batch at a position, as of step, comes next, after
 * those that were asked for before. At most n_slots may be asked for and not be filled yet. */
int wrk_feed_ask(struct wrk_feed *feed, uint64_t step, struct wrk_position position, int part);

/* The next batch, in order. Waits at most timeout_ms: CLU_E_TIMEOUT, logged. A failure of the
 * reader is returned by this and every later call. */
int wrk_feed_next(struct wrk_feed *feed, int timeout_ms, struct wrk_feed_slot **slot_p);

/* Gives a slot back. */
void wrk_feed_return(struct wrk_feed *feed, struct wrk_feed_slot *slot);

/* Ends the thread and frees everything, slots that were not returned included. NULL is fine. */
void wrk_feed_stop(struct wrk_feed *feed);

#endif

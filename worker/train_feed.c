/* A ring of slots between the feed thread and the training thread.
 *
 * slot[i % n_slots] holds batch number i. `filled` counts batches made, `taken` batches handed out
 * and `returned` slots given back; slots come back in the order in which they went out, because a
 * push of step t is always waited for before one of step t + 1. So three counters under one mutex
 * are the whole state:
 *
 *     returned <= taken <= filled <= returned + n_slots
 *
 * The feed runs for ever over the epochs; the training thread stops asking after its last step. A
 * feed of asked batches also stays behind `asked`, which counts asks.
 */
#include "worker/train_feed.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct wrk_feed {
    struct wrk_feed_options options;
    struct wrk_reader *reader;
    struct wrk_feed_slot *slots; /* [n_slots] */
    pthread_t thread;
    int has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t filled, taken, returned, asked;
    uint64_t *asked_step; /* [n_slots] of ask number i % n_slots */
    int stop;
    int status; /* what the feed thread failed with */
};

static int next_samples(struct wrk_feed *feed, struct wrk_samples **samples_p)
{
    /* NULL is the end of an epoch; the call after it begins the next one */
    for (int turn = 0; turn < 2; turn++) {
        int status = wrk_reader_next(feed->reader, samples_p);
        if (status || *samples_p)
            return status;
    }
    return clu_fail(CLU_E_BUG, "the reader gave an epoch without batches");
}

/* Hides history entries (a regulariser beyond MODEL.md, off at 0): an entry goes when a hash of
 * (seed, step, user, target item, its item) is below the share, so what is hidden is the same for
 * any number of ranks. The samples are this thread's own; lists are closed up in place. */
static void hide_history(const struct wrk_feed *feed, uint64_t step, struct wrk_samples *samples)
{
    const struct wrk_features *features = feed->options.features;
    size_t user_stride = (size_t)features->n_user_columns;
    size_t item_stride = (size_t)features->n_item_columns;
    int *offset = (int *)(uintptr_t)samples->hist_offset;
    int *seq = (int *)(uintptr_t)samples->hist_seq;
    uint64_t limit = (uint64_t)(feed->options.history_dropout * 0x1p64);
    uint64_t base = clu_mix(clu_mix(feed->options.reader.seed + clu_table_hash("history")) + step);
    int kept = 0, begin = 0;
    for (int b = 0; b < samples->n_samples; b++) {
        int end = offset[b + 1];
        uint64_t user = samples->user_value[(size_t)samples->sample_user[b] * user_stride];
        uint64_t item = samples->item_value[(size_t)samples->sample_item[b] * item_stride];
        uint64_t sample = clu_mix(clu_mix(base + user) + item);
        for (int i = begin; i < end; i++) {
            size_t past = (size_t)samples->seq_item[seq[i]] * item_stride;
            if (clu_mix(sample + samples->item_value[past]) >= limit)
                seq[kept++] = seq[i];
        }
        begin = end;
        offset[b + 1] = kept;
    }
}

static int fill_slot(struct wrk_feed *feed, uint64_t number)
{
    struct wrk_feed_slot *slot = &feed->slots[number % (uint64_t)feed->options.n_slots];
    struct wrk_samples *samples = NULL;
    int status = next_samples(feed, &samples);
    if (status)
        return status;
    slot->step = feed->options.reader.asked
                     ? feed->asked_step[number % (uint64_t)feed->options.n_slots]
                     : feed->options.first_step + number;
    slot->position = samples->position;
    if (feed->options.history_dropout > 0)
        hide_history(feed, slot->step, samples);
    struct wrk_dropout dropout = {
        .probability = feed->options.id_dropout,
        .seed = feed->options.reader.seed,
        .step = slot->step,
    };
    status = wrk_batch_fill(slot->batch, samples, &dropout);
    wrk_samples_free(slot->samples); /* the last round's, borrowed until this fill */
    slot->samples = samples;
    return status;
}

/* under the lock: a slot is free, and it is known what belongs into it */
static bool may_fill(const struct wrk_feed *feed)
{
    if (feed->options.reader.asked && feed->filled == feed->asked)
        return false;
    return feed->filled < feed->returned + (uint64_t)feed->options.n_slots;
}

static void *run(void *arg)
{
    struct wrk_feed *feed = arg;
    uint64_t number = 0;
    pthread_mutex_lock(&feed->lock);
    for (;;) {
        while (!feed->stop && !may_fill(feed))
            pthread_cond_wait(&feed->changed, &feed->lock); /* stop ends this wait */
        if (feed->stop || feed->status)
            break;
        pthread_mutex_unlock(&feed->lock);
        int status = fill_slot(feed, number++);
        pthread_mutex_lock(&feed->lock);
        if (status)
            feed->status = status;
        else
            feed->filled++;
        pthread_cond_broadcast(&feed->changed);
    }
    pthread_mutex_unlock(&feed->lock);
    return NULL;
}

static int start(struct wrk_feed *feed)
{
    const struct wrk_feed_options *options = &feed->options;
    int status = wrk_reader_open(options->dataset, &options->reader, options->from, &feed->reader);
    if (status)
        return status;
    feed->slots = calloc((size_t)options->n_slots, sizeof(*feed->slots));
    feed->asked_step = calloc((size_t)options->n_slots, sizeof(*feed->asked_step));
    if (!feed->slots || !feed->asked_step)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %d batches", options->n_slots);
    for (int i = 0; i < options->n_slots && !status; i++)
        status = wrk_batch_create(options->features, &feed->slots[i].batch);
    if (status)
        return status;
    int error = pthread_create(&feed->thread, NULL, run, feed);
    if (error)
        return clu_fail(clu_status_from_errno(error), "the feed thread cannot start: %s",
                        strerror(error));
    feed->has_thread = 1;
    return CLU_OK;
}

int wrk_feed_start(const struct wrk_feed_options *options, struct wrk_feed **feed_p,
                   uint64_t *n_batches_p)
{
    struct wrk_feed *feed = calloc(1, sizeof(*feed));
    if (!feed)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the feed");
    feed->options = *options;
    pthread_mutex_init(&feed->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&feed->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int status = start(feed);
    if (status) {
        wrk_feed_stop(feed);
        return status;
    }
    *n_batches_p = wrk_reader_n_batches(feed->reader);
    *feed_p = feed;
    return CLU_OK;
}

int wrk_feed_ask(struct wrk_feed *feed, uint64_t step, struct wrk_position position, int part)
{
    uint64_t n_slots = (uint64_t)feed->options.n_slots;
    pthread_mutex_lock(&feed->lock);
    bool room = feed->asked < feed->filled + n_slots;
    if (room)
        feed->asked_step[feed->asked % n_slots] = step;
    pthread_mutex_unlock(&feed->lock);
    int status = room ? wrk_reader_ask(feed->reader, position, part)
                      : clu_fail(CLU_E_BUG, "more batches are asked for than the feed has slots");
    if (status)
        return status;
    pthread_mutex_lock(&feed->lock);
    feed->asked++;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    return CLU_OK;
}

int wrk_feed_next(struct wrk_feed *feed, int timeout_ms, struct wrk_feed_slot **slot_p)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    int status = CLU_OK;
    pthread_mutex_lock(&feed->lock);
    while (feed->taken == feed->filled && !status) {
        if (feed->status)
            status = feed->status;
        else if (pthread_cond_timedwait(&feed->changed, &feed->lock, &deadline) == ETIMEDOUT)
            status =
                clu_fail(CLU_E_TIMEOUT, "no batch came from the data set in %d ms", timeout_ms);
    }
    if (!status)
        *slot_p = &feed->slots[feed->taken++ % (uint64_t)feed->options.n_slots];
    pthread_mutex_unlock(&feed->lock);
    return status;
}

void wrk_feed_return(struct wrk_feed *feed, struct wrk_feed_slot *slot)
{
    pthread_mutex_lock(&feed->lock);
    assert(slot == &feed->slots[feed->returned % (uint64_t)feed->options.n_slots]);
    (void)slot;
    feed->returned++;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
}

void wrk_feed_stop(struct wrk_feed *feed)
{
    if (!feed)
        return;
    pthread_mutex_lock(&feed->lock);
    feed->stop = 1;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    if (feed->has_thread)
        pthread_join(feed->thread, NULL);
    for (int i = 0; feed->slots && i < feed->options.n_slots; i++) {
        wrk_batch_free(feed->slots[i].batch);
        wrk_samples_free(feed->slots[i].samples);
    }
    wrk_reader_close(feed->reader);
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->lock);
    free(feed->slots);
    free(feed->asked_step);
    free(feed);
}

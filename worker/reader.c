/* One thread makes batches (order -> frames -> builder) and puts them into a ring; the owner takes
 * them out.
 *
 * At the end of an epoch the thread puts an end mark and rests until the owner comes back for more:
 * an evaluation that reads one epoch does not pay for the start of another.
 *
 *     state      event                       next
 *     running    ring full                   running (waits for room)
 *     running    end of epoch put            resting
 *     resting    owner asks, ring empty      running, next epoch
 *     any        error                       failed: the status is put and stays
 *     any        close                       stopped
 *
 * A reader of asked batches has no epochs of its own: the thread makes what the queue of asks says,
 * and waits when it is empty.
 */
#include "worker/reader.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/reader_build.h"
#include "worker/reader_frame.h"
#include "worker/reader_order.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_AHEAD = 4, MAX_AHEAD = 64 };

static const uint64_t default_window_bytes = (uint64_t)64 << 20;

struct wrk_reader {
    const struct wrk_dataset *dataset;
    struct wrk_reader_options options;
    struct wrk_order *order;
    struct wrk_builder *builder;
    struct wrk_reader_frame **frames; /* [dataset->n_frames], NULL where not decoded */
    size_t *held;                     /* the numbers of those that are */
    size_t n_held;
    uint64_t held_epoch;
    uint64_t *picks; /* of the batch under construction: held frame and pair, packed for sorting */
    size_t pick_capacity;
    struct wrk_position next;
    int part; /* of the batch at next */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    struct wrk_samples *ring[MAX_AHEAD]; /* NULL: the end of an epoch */
    size_t ring_first, ring_n;
    struct ask {
        struct wrk_position position;
        int part;
    } asks[MAX_AHEAD];
    size_t ask_first, ask_n;
    bool resting, stopping;
    int status; /* the first failure of the thread */
};

/* frames of windows that are over, and of other epochs, go */
static void drop_frames(struct wrk_reader *reader, uint64_t epoch, size_t first_window)
{
    size_t kept = 0;
    for (size_t i = 0; i < reader->n_held; i++) {
        struct wrk_reader_frame **place = &reader->frames[reader->held[i]];
        if (epoch == reader->held_epoch && (*place)->window >= first_window) {
            reader->held[kept++] = reader->held[i];
            continue;
        }
        wrk_reader_frame_free(*place);
        *place = NULL;
    }
    reader->n_held = kept;
    reader->held_epoch = epoch;
}

static int frame_of(struct wrk_reader *reader, const struct wrk_part *part,
                    struct wrk_reader_frame **frame_p)
{
    if (!reader->frames[part->frame]) {
        int status = wrk_reader_frame_load(reader->dataset, &reader->options, reader->next.epoch,
                                           part->window, part->frame, &reader->frames[part->frame]);
        if (status != CLU_OK)
            return status;
        reader->held[reader->n_held++] = part->frame;
    }
    *frame_p = reader->frames[part->frame];
    return CLU_OK;
}

static int compare_picks(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* the samples of the parts as (frame, pair), sorted, so that a user's come in time order */
static int pick(struct wrk_reader *reader, const struct wrk_part *parts, size_t n_parts,
                size_t *n_p)
{
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++)
        n += parts[i].n;
    if (n > reader->pick_capacity) {
        uint64_t *picks = realloc(reader->picks, n * sizeof(*picks));
        if (!picks)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory for a batch");
        reader->picks = picks;
        reader->pick_capacity = n;
    }
    n = 0;
    for (size_t i = 0; i < n_parts; i++) {
        struct wrk_reader_frame *frame;
        int status = frame_of(reader, &parts[i], &frame);
        if (status != CLU_OK)
            return status;
        for (uint32_t k = 0; k < parts[i].n; k++)
            reader->picks[n++] =
                (uint64_t)parts[i].frame << 32 | frame->sequence[parts[i].from + k];
    }
    if (n > 1) /* a rank may have no part, and no array yet */
        qsort(reader->picks, n, sizeof(*reader->picks), compare_picks);
    *n_p = n;
    return CLU_OK;
}

static int make_batch(struct wrk_reader *reader, struct wrk_samples **samples_p)
{
    const struct wrk_part *parts;
    size_t n_parts, n = 0, first_window;
    int n_global;
    int status = wrk_order_batch(reader->order, reader->next, reader->part, &parts, &n_parts,
                                 &n_global, &first_window);
    if (status != CLU_OK)
        return status;
    drop_frames(reader, reader->next.epoch, first_window);
    status = pick(reader, parts, n_parts, &n);
    wrk_builder_start(reader->builder);
    for (size_t i = 0; i < n && status == CLU_OK; i++)
        status = wrk_builder_add(reader->builder, reader->frames[reader->picks[i] >> 32],
                                 (uint32_t)reader->picks[i]);
    return status == CLU_OK ? wrk_builder_take(reader->builder, reader->next, n_global, samples_p)
                            : status;
}

/* puts a batch (or the end mark) into the ring; false when told to stop */
static bool put(struct wrk_reader *reader, struct wrk_samples *samples)
{
    pthread_mutex_lock(&reader->lock);
    while (reader->ring_n == (size_t)reader->options.n_ahead && !reader->stopping)
        pthread_cond_wait(&reader->changed, &reader->lock);
    bool stopping = reader->stopping;
    if (!stopping) {
        reader->ring[(reader->ring_first + reader->ring_n++) % MAX_AHEAD] = samples;
        if (!samples) {
            reader->resting = true;
            pthread_cond_broadcast(&reader->changed);
            while (reader->resting && !reader->stopping)
                pthread_cond_wait(&reader->changed, &reader->lock);
            stopping = reader->stopping;
        } else
            pthread_cond_broadcast(&reader->changed);
    } else
        wrk_samples_free(samples);
    pthread_mutex_unlock(&reader->lock);
    return !stopping;
}

/* waits for the next ask and turns to it; false when told to stop */
static bool take_ask(struct wrk_reader *reader)
{
    pthread_mutex_lock(&reader->lock);
    while (!reader->ask_n && !reader->stopping)
        pthread_cond_wait(&reader->changed, &reader->lock);
    bool stopping = reader->stopping;
    if (!stopping) {
        reader->next = reader->asks[reader->ask_first].position;
        reader->part = reader->asks[reader->ask_first].part;
        reader->ask_first = (reader->ask_first + 1) % MAX_AHEAD;
        reader->ask_n--;
    }
    pthread_mutex_unlock(&reader->lock);
    return !stopping;
}

static void *run(void *context)
{
    struct wrk_reader *reader = context;
    uint64_t n_batches = wrk_order_n_batches(reader->order);
    for (;;) {
        if (reader->options.asked && !take_ask(reader))
            return NULL;
        struct wrk_samples *samples = NULL;
        if (reader->next.batch < n_batches) {
            int status = make_batch(reader, &samples);
            if (status != CLU_OK) {
                pthread_mutex_lock(&reader->lock);
                reader->status = status;
                pthread_cond_broadcast(&reader->changed);
                pthread_mutex_unlock(&reader->lock);
                return NULL;
            }
        }
        if (!put(reader, samples))
            return NULL;
        if (samples)
            reader->next.batch++;
        else
            reader->next = (struct wrk_position){reader->next.epoch + 1, 0};
    }
}

static int check(const struct wrk_dataset *dataset, const struct wrk_reader_options *options)
{
    if ((unsigned)options->split >= WRK_N_SPLITS || options->valid_percent < 0 ||
        options->valid_percent > WRK_MAX_VALID_PERCENT || options->batch < 1 ||
        options->samples_per_user < 1 || options->history < 0 || options->n_ranks < 1 ||
        options->rank < 0 || options->rank >= options->n_ranks || options->n_ahead < 0 ||
        options->n_ahead > MAX_AHEAD)
        return clu_fail(CLU_E_CONFIG, "%s: a reader's option is out of its range", dataset->dir);
    if (wrk_dataset_n_samples(dataset, options->split, options->valid_percent) == 0)
        return clu_fail(CLU_E_CONFIG, "%s: there are no %s samples", dataset->dir,
                        options->split == WRK_SPLIT_TRAIN   ? "training"
                        : options->split == WRK_SPLIT_VALID ? "validation"
                                                            : "test");
    return CLU_OK;
}

int wrk_reader_open(const struct wrk_dataset *dataset, const struct wrk_reader_options *options,
                    struct wrk_position from, struct wrk_reader **reader_p)
{
    int status = check(dataset, options);
    if (status != CLU_OK)
        return status;
    struct wrk_reader *reader = calloc(1, sizeof(*reader));
    if (!reader)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    reader->dataset = dataset;
    reader->options = *options;
    if (reader->options.n_ahead == 0)
        reader->options.n_ahead = DEFAULT_AHEAD;
    if (reader->options.window_bytes == 0)
        reader->options.window_bytes = default_window_bytes;
    pthread_mutex_init(&reader->lock, NULL);
    pthread_cond_init(&reader->changed, NULL);
    reader->frames = calloc(dataset->n_frames + 1, sizeof(struct wrk_reader_frame *));
    reader->held = malloc((dataset->n_frames + 1) * sizeof(*reader->held));
    if (!reader->frames || !reader->held)
        status = clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    if (status == CLU_OK)
        status = wrk_order_create(dataset, &reader->options, &reader->order);
    if (status == CLU_OK)
        status = wrk_builder_create(dataset, &reader->options, &reader->builder);
    if (status == CLU_OK) {
        reader->next = from;
        reader->part = options->rank;
        if (from.batch >= wrk_order_n_batches(reader->order))
            reader->next = (struct wrk_position){from.epoch + 1, 0};
        if (pthread_create(&reader->thread, NULL, run, reader) != 0)
            status = clu_fail(CLU_E_NO_MEMORY, "the reading thread cannot be started");
        else
            reader->has_thread = true;
    }
    if (status != CLU_OK) {
        wrk_reader_close(reader);
        return status;
    }
    *reader_p = reader;
    return CLU_OK;
}

uint64_t wrk_reader_n_batches(const struct wrk_reader *reader)
{
    return wrk_order_n_batches(reader->order);
}

int wrk_reader_next(struct wrk_reader *reader, struct wrk_samples **samples_p)
{
    pthread_mutex_lock(&reader->lock);
    if (reader->ring_n == 0 && reader->resting) {
        reader->resting = false;
        pthread_cond_broadcast(&reader->changed);
    }
    while (reader->ring_n == 0 && reader->status == CLU_OK)
        pthread_cond_wait(&reader->changed, &reader->lock);
    int status = CLU_OK;
    if (reader->ring_n > 0) {
        *samples_p = reader->ring[reader->ring_first];
        reader->ring_first = (reader->ring_first + 1) % MAX_AHEAD;
        reader->ring_n--;
        pthread_cond_broadcast(&reader->changed);
    } else
        status = reader->status;
    pthread_mutex_unlock(&reader->lock);
    return status;
}

int wrk_reader_ask(struct wrk_reader *reader, struct wrk_position position, int part)
{
    if (!reader->options.asked || part < 0 || part >= reader->options.n_ranks ||
        position.batch >= wrk_order_n_batches(reader->order))
        return clu_fail(CLU_E_BUG, "a batch was asked for that the reader cannot give");
    pthread_mutex_lock(&reader->lock);
    bool room = reader->ask_n < MAX_AHEAD;
    if (room) {
        size_t at = (reader->ask_first + reader->ask_n++) % MAX_AHEAD;
        reader->asks[at] = (struct ask){position, part};
    }
    pthread_cond_broadcast(&reader->changed);
    pthread_mutex_unlock(&reader->lock);
    return room ? CLU_OK : clu_fail(CLU_E_BUG, "%d batches are asked for already", MAX_AHEAD);
}

void wrk_reader_close(struct wrk_reader *reader)
{
    if (!reader)
        return;
    pthread_mutex_lock(&reader->lock);
    reader->stopping = true;
    pthread_cond_broadcast(&reader->changed);
    pthread_mutex_unlock(&reader->lock);
    if (reader->has_thread)
        pthread_join(reader->thread, NULL);
    for (; reader->ring_n > 0; reader->ring_n--) {
        wrk_samples_free(reader->ring[reader->ring_first]);
        reader->ring_first = (reader->ring_first + 1) % MAX_AHEAD;
    }
    for (size_t i = 0; i < reader->n_held; i++)
        wrk_reader_frame_free(reader->frames[reader->held[i]]);
    free(reader->frames);
    free(reader->held);
    free(reader->picks);
    wrk_order_free(reader->order);
    wrk_builder_free(reader->builder);
    pthread_mutex_destroy(&reader->lock);
    pthread_cond_destroy(&reader->changed);
    free(reader);
}

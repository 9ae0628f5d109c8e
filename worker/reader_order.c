/* Ranks: a batch's chunk pieces are sorted by frame, then cut among the ranks, so a rank's pieces
 * of one window's batches tend to come from the same share of its frames, and it decodes about 1 /
 * n_ranks of them. The cut goes by the middle of a piece: deterministic, contiguous, and never
 * through a piece.
 */
#include "worker/reader_order.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

struct chunk {
    uint32_t frame; /* place in the epoch's order of frames */
    uint32_t from, n;
};

struct wrk_order {
    const struct wrk_dataset *dataset;
    struct wrk_reader_options options;
    size_t n_frames;    /* with samples in the split */
    uint32_t *frames;   /* [n_frames] their numbers in the data set, in stored order */
    uint32_t *shuffled; /* [n_frames] the epoch's order */
    uint64_t epoch;     /* that shuffled is of */
    bool has_epoch;
    uint64_t n_samples;
    size_t n_windows, window_capacity;
    size_t *window_frame;   /* [n_windows + 1] first frame of a window in shuffled */
    uint64_t *window_start; /* [n_windows + 1] its first sample in the stream */
    size_t window;          /* whose chunks are below */
    bool has_window;
    struct chunk *chunks;
    uint64_t *chunk_start; /* [n_chunks + 1] in the stream */
    size_t n_chunks, chunk_capacity;
    struct wrk_part *parts;
    size_t n_parts, part_capacity;
};

static uint64_t next_random(uint64_t *state_p)
{
    *state_p += 0x9e3779b97f4a7c15u;
    return clu_mix(*state_p);
}

uint64_t wrk_shuffle_state(uint64_t seed, uint64_t epoch, uint64_t what)
{
    return clu_mix(clu_mix(clu_mix(seed + 0x9e3779b97f4a7c15u) + epoch) + what);
}

void wrk_shuffle(void *items, size_t n, size_t item_bytes, uint64_t state)
{
    char held[32], *base = items;
    for (size_t i = n; i > 1; i--) {
        /* the bias of a remainder of 64 bits is far below anything visible */
        size_t k = (size_t)(next_random(&state) % i);
        memcpy(held, base + (i - 1) * item_bytes, item_bytes);
        memcpy(base + (i - 1) * item_bytes, base + k * item_bytes, item_bytes);
        memcpy(base + k * item_bytes, held, item_bytes);
    }
}

static uint32_t frame_samples(const struct wrk_order *order, uint32_t frame)
{
    return wrk_frame_n_samples(wrk_dataset_frame(order->dataset, frame), order->options.split,
                               order->options.valid_percent);
}

int wrk_order_create(const struct wrk_dataset *dataset, const struct wrk_reader_options *options,
                     struct wrk_order **order_p)
{
    struct wrk_order *order = calloc(1, sizeof(*order));
    if (!order)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    order->dataset = dataset;
    order->options = *options;
    order->frames = malloc((dataset->n_frames + 1) * sizeof(*order->frames));
    order->shuffled = malloc((dataset->n_frames + 1) * sizeof(*order->shuffled));
    order->window_frame = malloc((dataset->n_frames + 2) * sizeof(*order->window_frame));
    order->window_start = malloc((dataset->n_frames + 2) * sizeof(*order->window_start));
    if (!order->frames || !order->shuffled || !order->window_frame || !order->window_start) {
        wrk_order_free(order);
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    }
    for (size_t i = 0; i < dataset->n_frames; i++) {
        uint32_t n = frame_samples(order, (uint32_t)i);
        if (n > 0)
            order->frames[order->n_frames++] = (uint32_t)i;
        order->n_samples += n;
    }
    *order_p = order;
    return CLU_OK;
}

void wrk_order_free(struct wrk_order *order)
{
    if (!order)
        return;
    free(order->frames);
    free(order->shuffled);
    free(order->window_frame);
    free(order->window_start);
    free(order->chunks);
    free(order->chunk_start);
    free(order->parts);
    free(order);
}

uint64_t wrk_order_n_batches(const struct wrk_order *order)
{
    uint64_t batch = (uint64_t)order->options.batch;
    return (order->n_samples + batch - 1) / batch;
}

static void start_epoch(struct wrk_order *order, uint64_t epoch)
{
    if (order->has_epoch && order->epoch == epoch)
        return;
    memcpy(order->shuffled, order->frames, order->n_frames * sizeof(*order->frames));
    if (order->options.shuffle)
        wrk_shuffle(order->shuffled, order->n_frames, sizeof(*order->shuffled),
                    wrk_shuffle_state(order->options.seed, epoch, 1));
    uint64_t bytes = 0, samples = 0;
    order->n_windows = 0;
    for (size_t i = 0; i < order->n_frames; i++) {
        const struct wrk_frame *frame = wrk_dataset_frame(order->dataset, order->shuffled[i]);
        if (i == 0 || bytes + frame->content_bytes > order->options.window_bytes) {
            order->window_frame[order->n_windows] = i;
            order->window_start[order->n_windows++] = samples;
            bytes = 0;
        }
        bytes += frame->content_bytes;
        samples += frame_samples(order, order->shuffled[i]);
    }
    order->window_frame[order->n_windows] = order->n_frames;
    order->window_start[order->n_windows] = samples;
    order->epoch = epoch;
    order->has_epoch = true;
    order->has_window = false;
}

static int build_window(struct wrk_order *order, size_t window)
{
    if (order->has_window && order->window == window)
        return CLU_OK;
    uint32_t step = (uint32_t)order->options.samples_per_user;
    size_t n_chunks = 0;
    for (size_t i = order->window_frame[window]; i < order->window_frame[window + 1]; i++)
        n_chunks += ((size_t)frame_samples(order, order->shuffled[i]) + step - 1) / step;
    if (n_chunks > order->chunk_capacity) {
        struct chunk *chunks = realloc(order->chunks, n_chunks * sizeof(*chunks));
        if (chunks)
            order->chunks = chunks;
        uint64_t *starts = realloc(order->chunk_start, (n_chunks + 1) * sizeof(*starts));
        if (starts)
            order->chunk_start = starts;
        if (!chunks || !starts)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
        order->chunk_capacity = n_chunks;
    }
    order->n_chunks = 0;
    for (size_t i = order->window_frame[window]; i < order->window_frame[window + 1]; i++) {
        uint32_t n = frame_samples(order, order->shuffled[i]);
        for (uint32_t from = 0; from < n; from += step)
            order->chunks[order->n_chunks++] =
                (struct chunk){(uint32_t)i, from, n - from < step ? n - from : step};
    }
    if (order->options.shuffle)
        wrk_shuffle(order->chunks, order->n_chunks, sizeof(*order->chunks),
                    wrk_shuffle_state(order->options.seed, order->epoch, 2 + 2 * window));
    uint64_t at = order->window_start[window];
    for (size_t i = 0; i < order->n_chunks; i++) {
        order->chunk_start[i] = at;
        at += order->chunks[i].n;
    }
    order->chunk_start[order->n_chunks] = at;
    order->window = window;
    order->has_window = true;
    return CLU_OK;
}

/* the last i with starts[i] <= sample; starts has n + 1 entries */
static size_t find(const uint64_t *starts, size_t n, uint64_t sample)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (starts[middle] <= sample)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int add_part(struct wrk_order *order, struct wrk_part part)
{
    if (order->n_parts == order->part_capacity) {
        size_t capacity = 2 * order->part_capacity + 64;
        struct wrk_part *parts = realloc(order->parts, capacity * sizeof(*parts));
        if (!parts)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
        order->parts = parts;
        order->part_capacity = capacity;
    }
    order->parts[order->n_parts++] = part;
    return CLU_OK;
}

/* the global batch, piece by piece */
static int collect(struct wrk_order *order, uint64_t from, uint64_t to)
{
    order->n_parts = 0;
    while (from < to) {
        size_t window = find(order->window_start, order->n_windows, from);
        int status = build_window(order, window);
        if (status != CLU_OK)
            return status;
        uint64_t end = order->window_start[window + 1] < to ? order->window_start[window + 1] : to;
        for (size_t i = find(order->chunk_start, order->n_chunks, from); from < end; i++) {
            const struct chunk *chunk = &order->chunks[i];
            uint64_t stop = order->chunk_start[i + 1] < end ? order->chunk_start[i + 1] : end;
            status = add_part(
                order, (struct wrk_part){window, order->shuffled[chunk->frame],
                                         chunk->from + (uint32_t)(from - order->chunk_start[i]),
                                         (uint32_t)(stop - from)});
            if (status != CLU_OK)
                return status;
            from = stop;
        }
    }
    return CLU_OK;
}

static int compare_parts(const void *a, const void *b)
{
    const struct wrk_part *x = a, *y = b;
    if (x->window != y->window)
        return x->window < y->window ? -1 : 1;
    if (x->frame != y->frame)
        return x->frame < y->frame ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

int wrk_order_batch(struct wrk_order *order, struct wrk_position position, int rank,
                    const struct wrk_part **parts_p, size_t *n_parts_p, int *n_global_p,
                    size_t *first_window_p)
{
    start_epoch(order, position.epoch);
    uint64_t from = position.batch * (uint64_t)order->options.batch;
    uint64_t to = from + (uint64_t)order->options.batch;
    to = to < order->n_samples ? to : order->n_samples;
    size_t first_window = find(order->window_start, order->n_windows, from);
    int status = collect(order, from, to);
    if (status != CLU_OK)
        return status;
    qsort(order->parts, order->n_parts, sizeof(*order->parts), compare_parts);
    uint64_t total = to - from, before = 0;
    size_t n_own = 0, first = 0;
    for (size_t i = 0; i < order->n_parts; i++) {
        uint64_t middle = 2 * before + order->parts[i].n; /* twice it, to stay whole */
        uint64_t whose = middle * (uint64_t)order->options.n_ranks / (2 * total);
        if (whose == (uint64_t)rank && n_own++ == 0)
            first = i;
        before += order->parts[i].n;
    }
    *parts_p = order->parts + first;
    *n_parts_p = n_own;
    *n_global_p = (int)total;
    *first_window_p = first_window;
    return CLU_OK;
}

/* Two sorts a user: events by (item, time, action) give each pair's sequence in one walk; the pairs
 * by (second, item key) give the order in which histories see them. */
#include "worker/timeline.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void wrk_timeline_init(struct wrk_timeline *timeline)
{
    memset(timeline, 0, sizeof(*timeline));
}

void wrk_timeline_fini(struct wrk_timeline *timeline)
{
    free(timeline->pair);
    free(timeline->token);
    free(timeline->order);
    memset(timeline, 0, sizeof(*timeline));
}

int64_t wrk_second_of(int64_t time_ms)
{
    int64_t second = time_ms / 1000;
    return second * 1000 > time_ms ? second - 1 : second;
}

static int grow(void **array_p, size_t *capacity_p, size_t needed, size_t item_bytes)
{
    if (needed <= *capacity_p)
        return CLU_OK;
    size_t capacity = 2 * needed + 16;
    void *array = realloc(*array_p, capacity * item_bytes);
    if (!array)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for a user with %zu events", needed);
    *array_p = array;
    *capacity_p = capacity;
    return CLU_OK;
}

int wrk_timeline_reserve(struct wrk_timeline *timeline, size_t n_pairs, size_t n_tokens)
{
    int status = grow((void **)&timeline->pair, &timeline->pair_capacity,
                      timeline->n_pairs + n_pairs, sizeof(*timeline->pair));
    if (status != CLU_OK)
        return status;
    return grow((void **)&timeline->token, &timeline->token_capacity, timeline->n_tokens + n_tokens,
                sizeof(*timeline->token));
}

static int compare_events(const void *a, const void *b)
{
    const struct wrk_record *x = *(const struct wrk_record *const *)a;
    const struct wrk_record *y = *(const struct wrk_record *const *)b;
    if (x->item_key != y->item_key)
        return x->item_key < y->item_key ? -1 : 1;
    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms ? -1 : 1;
    if (x->action != y->action)
        return x->action < y->action ? -1 : 1;
    return x < y ? -1 : x > y; /* arrival: a user's records lie in one buffer */
}

static int compare_pairs(const void *a, const void *b)
{
    const struct wrk_pair *x = a, *y = b;
    int64_t sx = wrk_second_of(x->start_ms), sy = wrk_second_of(y->start_ms);
    if (sx != sy)
        return sx < sy ? -1 : 1;
    return x->item.key < y->item.key ? -1 : x->item.key > y->item.key;
}

void wrk_timeline_sort(struct wrk_timeline *timeline)
{
    qsort(timeline->pair, timeline->n_pairs, sizeof(*timeline->pair), compare_pairs);
}

static float token_time(const struct wrk_transform *transform, const struct wrk_record *record,
                        int64_t start_ms)
{
    if (transform->kind == WRK_TRANSFORM_DURATION && !isnan(record->position_s))
        return (float)((double)record->position_s / record->duration_s);
    return wrk_transform_apply(transform, record->time_ms - start_ms, record->duration_s);
}

/* events of one item -> one pair; room is reserved */
static void add_pair(struct wrk_timeline *timeline, const struct wrk_transform *transform,
                     int n_user_values, int n_item_values, const struct wrk_record **events,
                     size_t n)
{
    struct wrk_pair *pair = &timeline->pair[timeline->n_pairs++];
    *pair = (struct wrk_pair){.item = wrk_record_item(events[0], n_user_values + n_item_values),
                              .value = events[0]->value + n_user_values,
                              .start_ms = events[0]->time_ms,
                              .first_token = (uint32_t)timeline->n_tokens};
    timeline->token[timeline->n_tokens++] = (struct wrk_token){pair->start_ms, 0, 1};
    unsigned seen = 1u << 1; /* the start token stands for the log's own start, too */
    for (size_t i = 0; i < n; i++) {
        if (seen & 1u << events[i]->action)
            continue;
        seen |= 1u << events[i]->action;
        timeline->token[timeline->n_tokens++] =
            (struct wrk_token){events[i]->time_ms, token_time(transform, events[i], pair->start_ms),
                               events[i]->action};
    }
    pair->n_tokens = (uint32_t)timeline->n_tokens - pair->first_token;
}

int wrk_timeline_build(struct wrk_timeline *timeline, const struct wrk_transform *transform,
                       int n_user_values, int n_item_values,
                       const struct wrk_record *const *records, size_t n)
{
    timeline->n_pairs = timeline->n_tokens = 0;
    timeline->n_events = n;
    timeline->user = wrk_record_user(records[0], n_user_values + n_item_values);
    timeline->value = records[0]->value;
    int status =
        grow((void **)&timeline->order, &timeline->order_capacity, n, sizeof(*timeline->order));
    if (status == CLU_OK) /* a pair an event at most, and a start token each */
        status = wrk_timeline_reserve(timeline, n, 2 * n);
    if (status != CLU_OK)
        return status;
    memcpy(timeline->order, records, n * sizeof(*records));
    qsort(timeline->order, n, sizeof(*timeline->order), compare_events);
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n; to++)
            if (timeline->order[to]->item_key != timeline->order[from]->item_key)
                break;
        add_pair(timeline, transform, n_user_values, n_item_values, timeline->order + from,
                 to - from);
    }
    wrk_timeline_sort(timeline);
    return CLU_OK;
}

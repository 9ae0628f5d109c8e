/* A user's timeline: the pairs (user, item) in the order in which they began, each with its action
 * sequence. DATA.md's rules 1 to 3 stand here: first occurrences, the start token, the order of
 * pairs, and who sees what.
 *
 * A timeline owns growing arrays that are used again for the next user; texts and values are
 * borrowed from what it was built of. Threads: one timeline, one thread.
 */
#ifndef WORKER_TIMELINE_H
#define WORKER_TIMELINE_H

#include "worker/event.h"
#include "worker/spill.h"
#include "worker/transform.h"

#include <stddef.h>
#include <stdint.h>

struct wrk_token {
    int64_t time_ms;
    float t; /* T, transformed */
    uint8_t action;
};

struct wrk_pair {
    struct wrk_stored_id item;
    const uint64_t *value;          /* [n_item_columns - 1], without the id */
    int64_t start_ms;               /* the first event */
    uint32_t first_token, n_tokens; /* the first token is start */
    const float *truth;             /* NULL, or P(action) [M] and expected T [M] of actions 1..M */
};

struct wrk_timeline {
    struct wrk_stored_id user;
    const uint64_t *value; /* [n_user_columns - 1] */
    struct wrk_pair *pair;
    struct wrk_token *token;
    size_t n_pairs, n_tokens, n_events;
    size_t pair_capacity, token_capacity, order_capacity;
    const struct wrk_record **order;
};

void wrk_timeline_init(struct wrk_timeline *timeline);
void wrk_timeline_fini(struct wrk_timeline *timeline);

/* Builds the timeline of one user's events (sorted by time, then arrival, as the spill gives them).
 * An item's values are those of the pair's first event, the user's those of its first. Errors:
 * NO_MEMORY. */
int wrk_timeline_build(struct wrk_timeline *timeline, const struct wrk_transform *transform,
                       int n_user_values, int n_item_values,
                       const struct wrk_record *const *records, size_t n);

/* Grows the arrays by hand (generate): room for so many more pairs and tokens. */
int wrk_timeline_reserve(struct wrk_timeline *timeline, size_t n_pairs, size_t n_tokens);

/* Puts the pairs in their order: by second of the start, then by item key. */
void wrk_timeline_sort(struct wrk_timeline *timeline);

/* The second a time in ms falls into (rounding down, before 1970 too). */
int64_t wrk_second_of(int64_t time_ms);

#endif

/* A set of hashes, each with a number, for test_coordinator_walk.c: the states that a walk has
 * entered. 0 is no hash. */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_SEEN_H
#define TESTS_SCHED_COORDINATOR_WORLD_SEEN_H

#include "tests/suite.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct seen {
    uint64_t *hash, *number; /* [n_slots]; hash 0: free; number NULL: none are kept */
    uint64_t n_slots, n;
    bool with_numbers;
};

static inline void seen_clear(struct seen *seen)
{
    free(seen->hash);
    free(seen->number);
    *seen = (struct seen){.with_numbers = seen->with_numbers};
}

/* Where a hash is, or would be. */
static inline uint64_t seen_slot(const struct seen *seen, uint64_t hash)
{
    uint64_t slot = hash & (seen->n_slots - 1);
    while (seen->hash[slot] && seen->hash[slot] != hash)
        slot = (slot + 1) & (seen->n_slots - 1);
    return slot;
}

static inline void seen_grow(struct seen *seen)
{
    struct seen old = *seen;
    seen->n_slots = old.n_slots ? 2 * old.n_slots : 1 << 16;
    seen->hash = calloc(seen->n_slots, sizeof(*seen->hash));
    seen->number = seen->with_numbers ? calloc(seen->n_slots, sizeof(*seen->number)) : NULL;
    CU_ASSERT_FATAL(seen->hash && (seen->number || !seen->with_numbers));
    for (uint64_t i = 0; i < old.n_slots; i++)
        if (old.hash[i]) {
            uint64_t slot = seen_slot(seen, old.hash[i]);
            seen->hash[slot] = old.hash[i];
            if (seen->number)
                seen->number[slot] = old.number[i];
        }
    free(old.hash);
    free(old.number);
}

/* False when it is there already. */
static inline bool seen_add(struct seen *seen, uint64_t hash)
{
    if (2 * seen->n >= seen->n_slots)
        seen_grow(seen);
    uint64_t slot = seen_slot(seen, hash);
    bool fresh = !seen->hash[slot];
    seen->hash[slot] = hash;
    seen->n += fresh;
    return fresh;
}

/* Keeps a number with a hash that is new; false when another one is kept with it. */
static inline bool seen_agrees(struct seen *seen, uint64_t hash, uint64_t number)
{
    bool fresh = seen_add(seen, hash);
    uint64_t *kept = &seen->number[seen_slot(seen, hash)];
    if (fresh)
        *kept = number;
    return *kept == number;
}

/* How many of these are not among others. */
static inline uint64_t seen_n_missing(const struct seen *seen, const struct seen *others)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < seen->n_slots; i++)
        n += seen->hash[i] && (!others->n || !others->hash[seen_slot(others, seen->hash[i])]);
    return n;
}

#endif

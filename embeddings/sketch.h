/* Admission: counts the pushes of keys that have no row yet, in fixed memory.
 *
 * Each bucket has a small set of (key, count); a key that has been counted min_count times is
 * admitted and leaves. Keys are kept whole, so counts never mix: a row never appears after fewer
 * pushes than asked. A set that is full drops the entry with the fewest pushes, the longest there
 * first; a dropped key starts again, so each time it is dropped it needs at most min_count - 1
 * pushes more. Nothing is dropped while no bucket has more than EMB_SKETCH_WAYS waiting keys
 * (262144 evenly spread). Sets belong to buckets, not to the shard, so the outcome does not depend
 * on how many servers there are. Threads: one owner. Memory: 2.6 MB, touched as used.
 */
#ifndef EMBEDDINGS_SKETCH_H
#define EMBEDDINGS_SKETCH_H

#include <stddef.h>
#include <stdint.h>

enum { EMB_SKETCH_WAYS = 64 };

struct emb_sketch;

struct emb_candidate {
    uint64_t key;
    uint64_t count;
};

/* NO_MEMORY. */
int emb_sketch_create(struct emb_sketch **sketch_p);
void emb_sketch_free(struct emb_sketch *sketch);
int emb_sketch_dup(const struct emb_sketch *sketch, struct emb_sketch **copy_p);

/* One more push of a key: the pushes counted, this one included (at most 255). */
uint32_t emb_sketch_add(struct emb_sketch *sketch, uint32_t bucket, uint64_t key);

/* Sets a count outright (restore). */
void emb_sketch_set(struct emb_sketch *sketch, uint32_t bucket, uint64_t key, uint32_t count);

/* Forgets a key (it was admitted); not there: fine. */
void emb_sketch_remove(struct emb_sketch *sketch, uint32_t bucket, uint64_t key);

/* Forgets every key of a bucket. */
void emb_sketch_drop(struct emb_sketch *sketch, uint32_t bucket);

/* Number of waiting keys. */
size_t emb_sketch_count(const struct emb_sketch *sketch);

/* All waiting keys by ascending key, emb_sketch_count of them. */
void emb_sketch_list(const struct emb_sketch *sketch, struct emb_candidate *candidates_p);

/* The waiting keys of a bucket in order of arrival, into [EMB_SKETCH_WAYS]; their number. */
size_t emb_sketch_bucket(const struct emb_sketch *sketch, uint32_t bucket,
                         struct emb_candidate *candidates_p);

/* Resident bytes at most. */
size_t emb_sketch_memory(void);

#endif

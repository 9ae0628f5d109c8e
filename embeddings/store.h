/* The row store: a table's rows in memory, found by key.
 *
 *     key --hash--> directory --> segment --> bucket (a cache line) --> slot: slab row, flag byte
 *
 * The slab is one reserved range of addresses, made usable step by step; slot i lies at
 * rows + i * stride:
 *     key 8 | count 4 | last step 4 | embedding | state
 * so that a row never moves and everything behind the key is what LMDB and snapshots hold. Where it
 * costs little, the embedding of every row starts on a cache line. The index is a directory of
 * segments, tables of 512 buckets; a segment that fills splits in two by one more bit of the hash
 * (extendible hashing), so growth never costs more than one split, well below 1 ms. A bucket is one
 * cache line and holds whole keys, so that a pull touches it and the embedding's lines, nothing
 * else. Flags are kept apart from the rows: the eviction clock reads a byte a row.
 *
 * Lookups come in batches: first emb_store_locate finds the slots of all keys, with their buckets
 * on the way well ahead; then whoever needs the rows goes through the slots, rows on the way.
 * Huge pages are asked for as soon as a range is larger than one.
 * Threads: one owner. Cost: stride + 1 + 18 to 37 bytes a row.
 */
#ifndef EMBEDDINGS_STORE_H
#define EMBEDDINGS_STORE_H

#include "embeddings/range.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EMB_NO_SLOT UINT32_MAX

enum {
    EMB_BUCKET_ENTRIES = 5,
    EMB_SEGMENT_BITS = 9,
    EMB_SEGMENT_BUCKETS = 1 << EMB_SEGMENT_BITS,
    EMB_ROW_HEADER = 16, /* key, count, last step */
};

/* Flags of a slot. */
enum {
    EMB_SLOT_HEAT = 3,       /* two bits: how often it was used since the clock last passed, to 3 */
    EMB_SLOT_DIRTY = 4,      /* newer than every layer on disk */
    EMB_SLOT_SEALING = 8,    /* dirty when the running snapshot began, not yet written */
    EMB_SLOT_ON_DISK = 16,   /* some layer holds a version of it */
    EMB_SLOT_TOMBSTONE = 32, /* the row is gone; the slot stays until that is written */
    EMB_SLOT_LIVE = 64,      /* the slot is in use */
    EMB_SLOT_STORED = 128,   /* the version that the layers hold is a row, no tombstone */
};

struct emb_bucket { /* a cache line */
    uint64_t key[EMB_BUCKET_ENTRIES];
    uint32_t slot[EMB_BUCKET_ENTRIES];
    uint16_t n;      /* entries in use, the first ones */
    uint16_t passed; /* entries that belong here or before and stand further on, as it was full */
};

struct emb_segment {
    uint32_t n_entries, depth; /* depth: bits of the hash that all entries share */
    uint64_t pad[7];           /* buckets are cache lines */
    struct emb_bucket bucket[EMB_SEGMENT_BUCKETS];
};

struct emb_store;

/* The way to find many keys that this processor is fastest at; see emb_store_locate. */
typedef void emb_locate_fn(const struct emb_store *store, const uint64_t *keys, size_t n,
                           uint32_t *slots);

struct emb_store {
    emb_locate_fn *locate;
    size_t stride;      /* bytes of a slot */
    size_t value_bytes; /* behind the key */
    uint64_t salt;      /* of the hash */
    struct emb_range slab, flags, index;
    char *rows;                     /* slot 0, in slab */
    struct emb_feeder *feeder;      /* NULL until the store is large */
    struct emb_segment **directory; /* [1 << depth] */
    uint32_t depth;
    uint32_t n_slots; /* ever used: the iteration bound */
    uint32_t n_rows;  /* live slots, tombstones included */
    uint32_t free_head;
    uint32_t n_free; /* slots below n_slots on the free list */
    uint32_t n_segments;
    uint32_t max_slots;
    bool starved; /* a split found no memory */
};

/* value_bytes: multiple of 4. max_bytes: the most its slab may ever take (address space is
 * reserved, less when the system refuses). NO_MEMORY. */
int emb_store_init(struct emb_store *store, size_t value_bytes, uint64_t salt, size_t max_bytes);
void emb_store_fini(struct emb_store *store);

/* Forgets every row and gives the memory back. */
void emb_store_clear(struct emb_store *store);

/* A slot for a key that is not there; its flags are LIVE and its content is undefined but for the
 * key. NO_MEMORY: nothing changed. */
int emb_store_insert(struct emb_store *store, uint64_t key, uint32_t *slot_p);

/* Makes sure that n inserts will not fail: commits their slots, and index for the splits they will
 * cause. Where a split fails all the same, a segment is filled beyond its usual load, and the next
 * reserve says so. NO_MEMORY. */
int emb_store_reserve(struct emb_store *store, size_t n);

/* Has memory made ready a little ahead of need (range.h): to be called now and then while rows come
 * in. */
void emb_store_ahead(struct emb_store *store);

/* Slots that inserts can use without growing the slab. */
size_t emb_store_room(const struct emb_store *store);

void emb_store_remove(struct emb_store *store, uint32_t slot);

/* One lookup. */
uint32_t emb_store_find(const struct emb_store *store, uint64_t key);

/* Resident bytes: slab, flags, index, directory. */
size_t emb_store_memory(const struct emb_store *store);

/* Gives the whole pages of the slab behind the last used slot back, after lowering n_slots past
 * free slots at the end. Used when another table needs the memory more. */
void emb_store_trim(struct emb_store *store);

static inline char *emb_store_row(const struct emb_store *store, uint32_t slot)
{
    return store->rows + (size_t)slot * store->stride;
}

static inline uint64_t emb_store_key(const struct emb_store *store, uint32_t slot)
{
    uint64_t key;
    memcpy(&key, emb_store_row(store, slot), 8);
    return key;
}

static inline uint8_t *emb_store_flags(const struct emb_store *store, uint32_t slot)
{
    return (uint8_t *)store->flags.base + slot;
}

/* Not the hash that chooses buckets, so a shard's keys spread evenly whatever buckets it owns. */
static inline uint64_t emb_store_hash(const struct emb_store *store, uint64_t key)
{
    uint64_t x = key ^ store->salt;
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Bits 0..8 of a hash are the bucket in a segment, 9..40 the tag, whose low bits choose the
 * segment. */
static inline uint32_t emb_store_tag(uint64_t hash)
{
    return (uint32_t)(hash >> EMB_SEGMENT_BITS);
}

/* The bucket where a key of this hash is looked for first. */
static inline const struct emb_bucket *emb_store_bucket(const struct emb_store *store,
                                                        uint64_t hash)
{
    const uint32_t mask = ((uint32_t)1 << store->depth) - 1;
    const struct emb_segment *segment = store->directory[emb_store_tag(hash) & mask];
    return &segment->bucket[hash & (EMB_SEGMENT_BUCKETS - 1)];
}

/* Fetches the index line of a key. */
static inline void emb_store_prefetch(const struct emb_store *store, uint64_t key)
{
    __builtin_prefetch(emb_store_bucket(store, emb_store_hash(store, key)));
}

/* slots[i] = the slot of keys[i] or EMB_NO_SLOT, for n keys. */
static inline void emb_store_locate(const struct emb_store *store, const uint64_t *keys, size_t n,
                                    uint32_t *slots)
{
    store->locate(store, keys, n, slots);
}

/* The ways there are (locate.c), the fastest first, as far as this processor has their
 * instructions; NULL past the last. All find the same. */
emb_locate_fn *emb_locate_way(int i);

/* What of a row is fetched ahead of its use: bytes [from, to), and its flags, if asked. */
struct emb_fetch {
    uint32_t from, to;
    bool aligned; /* `from` is the start of a cache line in every row */
    bool flags;
};

/* To the second cache only: what waits for the first one occupies its fill buffers, of which there
 * are too few for random rows (16; a bare loop runs at 17 ns a row so, and at 20 ns else). */
static inline void emb_store_fetch(const struct emb_store *store, uint32_t slot,
                                   struct emb_fetch fetch)
{
    const char *row = emb_store_row(store, slot), *end = row + fetch.to;
    for (const char *at = row + fetch.from; at < end; at += 64)
        __builtin_prefetch(at, 0, 2);
    if (!fetch.aligned)
        __builtin_prefetch(end - 1, 0, 2);
    if (fetch.flags)
        __builtin_prefetch(emb_store_flags(store, slot), 1);
}

#endif

/* The row store: a table's rows in memory, found by key.
 *
 *     key --hash--> directory --> segment (4096 entries) --> slot number --> slab row, flag byte
 *
 * The slab is one reserved range of addresses, made usable step by step; slot i lies at
 * slab + i * stride:
 *     key 8 | count 4 | last step 4 | embedding | state
 * so that a row never moves and everything behind the key is what LMDB and snapshots hold. The
 * index is a directory of small open-addressing segments; a segment that fills splits in two by one
 * more bit of the hash (extendible hashing), so growth never costs more than one split, well below
 * 1 ms. An entry holds 32 bits of hash beside the slot number, so that probing touches no other
 * row. Flags are kept apart from the rows: the eviction clock reads a byte a row.
 *
 * Lookups come in batches: emb_store_walk hides the latency of directory, segment and row by
 * prefetching two blocks ahead. Huge pages are asked for as soon as a range is larger than one.
 * Threads: one owner. Cost: stride + 1 + about 14 bytes a row.
 */
#ifndef EMBEDDINGS_STORE_H
#define EMBEDDINGS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EMB_NO_SLOT UINT32_MAX

enum {
    EMB_SEGMENT_BITS = 12,
    EMB_SEGMENT_ENTRIES = 1 << EMB_SEGMENT_BITS,
    EMB_ROW_HEADER = 16, /* key, count, last step */
    EMB_WALK_BLOCK = 32,
};

/* Flags of a slot. */
enum {
    EMB_SLOT_HEAT = 3,       /* two bits: how often it was used since the clock last passed, to 3 */
    EMB_SLOT_DIRTY = 4,      /* newer than every layer on disk */
    EMB_SLOT_SEALING = 8,    /* dirty when the running snapshot began, not yet written */
    EMB_SLOT_ON_DISK = 16,   /* some layer holds a version of it */
    EMB_SLOT_TOMBSTONE = 32, /* the row is gone; the slot stays until that is written */
    EMB_SLOT_LIVE = 64,      /* the slot is in use */
};

/* A range of addresses of which the first committed bytes are usable. */
struct emb_range {
    char *base;
    size_t reserved, committed;
};

struct emb_segment {
    uint32_t n_entries, depth;           /* depth: bits of the hash that all entries share */
    uint64_t pad[7];                     /* entries start on a cache line of their own */
    uint64_t entry[EMB_SEGMENT_ENTRIES]; /* hash bits 32 | slot + 1; 0: empty */
};

struct emb_store {
    size_t stride;      /* bytes of a slot */
    size_t value_bytes; /* behind the key */
    uint64_t salt;      /* of the hash */
    struct emb_range slab, flags, index;
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
    return store->slab.base + (size_t)slot * store->stride;
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

/* Bits 0..11 of a hash are the place in a segment, 12..43 the tag, whose low bits choose the
 * segment. */
static inline uint32_t emb_store_tag(uint64_t hash)
{
    return (uint32_t)(hash >> EMB_SEGMENT_BITS);
}

/* Fetches the index line of a key. */
static inline void emb_store_prefetch(const struct emb_store *store, uint64_t key)
{
    uint64_t hash = emb_store_hash(store, key);
    uint32_t mask = ((uint32_t)1 << store->depth) - 1;
    const struct emb_segment *segment = store->directory[emb_store_tag(hash) & mask];
    __builtin_prefetch(&segment->entry[hash & (EMB_SEGMENT_ENTRIES - 1)]);
}

/* The slot of the first entry with this tag at or after the home place, unverified; EMB_NO_SLOT. */
static inline uint32_t emb_store_probe(const struct emb_segment *segment, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (EMB_SEGMENT_ENTRIES - 1), tag = emb_store_tag(hash);
    for (;; at = (at + 1) & (EMB_SEGMENT_ENTRIES - 1)) {
        uint64_t entry = segment->entry[at];
        if (entry == 0)
            return EMB_NO_SLOT;
        if ((uint32_t)(entry >> 32) == tag)
            return (uint32_t)entry - 1;
    }
}

/* Calls use(context, i, slot) for i = 0..n-1 in order, slot of keys[i] or EMB_NO_SLOT, with the
 * first `prefetch` bytes of each row (and its flags, when asked) already on their way. use must not
 * insert or remove. Three stages a block apart: hash and fetch the index line; probe and fetch the
 * row; verify and use. In blocks rather than key by key, because fetches that stand together
 * overlap best: measured 22 M rows/s in blocks of 32 against 17 M key by key, and less with 8, 16
 * or 64. Always inlined, so that use is too. */
static inline __attribute__((always_inline)) void
emb_store_walk(const struct emb_store *store, const uint64_t *keys, size_t n, size_t prefetch,
               bool flags, void (*use)(void *context, size_t i, uint32_t slot), void *context)
{
    enum { B = EMB_WALK_BLOCK };
    uint64_t hash[2][B];
    const struct emb_segment *segment[2][B];
    uint32_t slot[2][B];
    const uint32_t mask = ((uint32_t)1 << store->depth) - 1;
    const size_t n_blocks = (n + B - 1) / B;
    for (size_t block = 0; block < n_blocks + 2; block++) {
        if (block < n_blocks) { /* hash, and fetch the line of the index */
            size_t first = block * B, count = n - first < B ? n - first : B;
            uint64_t *h = hash[block & 1];
            const struct emb_segment **s = segment[block & 1];
            for (size_t i = 0; i < count; i++) {
                h[i] = emb_store_hash(store, keys[first + i]);
                s[i] = store->directory[emb_store_tag(h[i]) & mask];
                __builtin_prefetch(&s[i]->entry[h[i] & (EMB_SEGMENT_ENTRIES - 1)]);
            }
        }
        if (block >= 2) { /* verify and use */
            size_t first = (block - 2) * B, count = n - first < B ? n - first : B;
            const uint32_t *s = slot[block & 1];
            for (size_t i = 0; i < count; i++) {
                uint32_t found = s[i];
                if (found != EMB_NO_SLOT && emb_store_key(store, found) != keys[first + i])
                    found = emb_store_find(store, keys[first + i]);
                use(context, first + i, found);
            }
        }
        if (block >= 1 && block <= n_blocks) { /* probe, and fetch the row */
            size_t first = (block - 1) * B, count = n - first < B ? n - first : B;
            const uint64_t *h = hash[(block - 1) & 1];
            const struct emb_segment **s = segment[(block - 1) & 1];
            uint32_t *out = slot[(block - 1) & 1];
            for (size_t i = 0; i < count; i++) {
                out[i] = emb_store_probe(s[i], h[i]);
                if (out[i] != EMB_NO_SLOT) {
                    const char *row = emb_store_row(store, out[i]);
                    for (size_t at = 0; at < prefetch; at += 64)
                        __builtin_prefetch(row + at);
                    if (flags)
                        __builtin_prefetch(emb_store_flags(store, out[i]), 1);
                }
            }
        }
    }
}

#endif

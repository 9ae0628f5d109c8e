/* The row store.
 *
 * The problem: tens of millions of rows of a few hundred bytes, looked up at random, thousands at a
 * time, while the table grows and nobody may wait for a rehash. What costs is cache lines and the
 * pages they are in, so: rows in one range with huge pages, an index of which a lookup touches one
 * line, and batches.
 *
 * A gather of 32 floats that knows where its rows are touches 2 lines a row. Before, an 8-byte
 * entry (tag and slot) had to be verified in the row's header, and rows began anywhere: 4.1 lines.
 * Whole keys in buckets of a line and embeddings on line boundaries make it 3, for 40 bytes of
 * padding and 12 of index a row. What is left is the second page: where the TLB cannot hold the
 * table, a row costs two walks of the page tables and the loop's one (tests/bench/README.md).
 *
 * Tried and rejected: headers apart from the rows (pushes touch a page more), one big index that is
 * copied when full (a stop of 0.3 s at 10 M rows), two indexes with migration (twice the index
 * memory while it lasts, and two probes), chained buckets (a miss a link), linear probing of single
 * entries (where it ends cannot be foretold: 40 M probes/s instead of 67 M), one loop that takes
 * each key through bucket and row (23 M rows/s; all slots first, then the rows: 34 M).
 *
 * (S1) Every live slot has exactly one index entry, in the segment that its tag's low bits select.
 * (S2) An entry stands in its home bucket or, where that was full, in one of the next; every bucket
 *      in between, home included, counts it in `passed`. A lookup goes on only from a bucket that
 *      was passed.
 * (S3) A segment is never full (MAX_LOAD unless memory ran out), so every insert ends.
 * (S4) Free slots below n_slots are chained through their key field; flags of a free slot are 0.
 */
#include "embeddings/store.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <assert.h>
#include <stdlib.h>

enum {
    CAPACITY = EMB_SEGMENT_BUCKETS * EMB_BUCKET_ENTRIES, /* of a segment */
    MAX_LOAD = CAPACITY / 10 * 7, /* at 0.8 one lookup in ten goes on to the next bucket */
    LINE = 64,
    MAX_DEPTH = 22,
};

/* A bit for each entry of a bucket that holds the key: all compared, since which one it is cannot
 * be foretold and a wrong guess costs more. */
static uint32_t match_of(const struct emb_bucket *bucket, uint64_t key)
{
    uint32_t match = 0;
    for (uint32_t i = 0; i < EMB_BUCKET_ENTRIES; i++)
        match |= (uint32_t)(bucket->key[i] == key) << i;
    return match & (((uint32_t)1 << bucket->n) - 1);
}

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static struct emb_segment *segment_at(const struct emb_store *store, uint32_t i)
{
    return (struct emb_segment *)store->index.base + i;
}

/* A fresh segment: committed pages are zero until used, and segments are never freed one by one. */
static int new_segment(struct emb_store *store, uint32_t depth, struct emb_segment **segment_p)
{
    size_t needed = (size_t)(store->n_segments + 1) * sizeof(struct emb_segment);
    int status = emb_range_commit(&store->index, needed);
    if (status)
        return status;
    struct emb_segment *segment = segment_at(store, store->n_segments++);
    segment->n_entries = 0;
    segment->depth = depth;
    *segment_p = segment;
    return CLU_OK;
}

static int first_segment(struct emb_store *store)
{
    store->directory = malloc(sizeof(*store->directory));
    if (!store->directory)
        return CLU_E_NO_MEMORY;
    store->depth = 0;
    return new_segment(store, 0, &store->directory[0]);
}

int emb_store_init(struct emb_store *store, size_t value_bytes, uint64_t salt, size_t max_bytes)
{
    memset(store, 0, sizeof(*store));
    store->value_bytes = value_bytes;
    store->stride = round_up(8 + value_bytes, 8);
    const size_t padded = round_up(store->stride, LINE);
    size_t offset = 0; /* of slot 0 */
    if (padded - store->stride <= store->stride / 8) {
        store->stride = padded;
        offset = LINE - EMB_ROW_HEADER;
    }
    store->salt = salt;
    store->locate = emb_locate_way(0);
    store->free_head = EMB_NO_SLOT;
    int status = emb_range_reserve(&store->slab, max_bytes);
    if (status)
        return status;
    store->rows = store->slab.base + offset;
    size_t slots = (store->slab.reserved - offset) / store->stride;
    store->max_slots = slots < EMB_NO_SLOT - 1 ? (uint32_t)slots : EMB_NO_SLOT - 1;
    status = emb_range_reserve(&store->flags, store->max_slots);
    if (!status) /* splits leave segments at least 2/5 full: 40 bytes a slot are plenty */
        status = emb_range_reserve(&store->index, (size_t)store->max_slots * 40 + (4 << 20));
    if (!status)
        status = first_segment(store);
    if (status)
        emb_store_fini(store);
    return status;
}

void emb_store_fini(struct emb_store *store)
{
    free(store->directory);
    emb_feeder_free(store->feeder);
    emb_range_release(&store->slab);
    emb_range_release(&store->flags);
    emb_range_release(&store->index);
    memset(store, 0, sizeof(*store));
}

void emb_store_clear(struct emb_store *store)
{
    emb_feeder_settle(store->feeder);
    emb_range_trim(&store->slab, 0);
    emb_range_trim(&store->flags, 0);
    emb_range_trim(&store->index, sizeof(struct emb_segment));
    memset(store->index.base, 0, store->index.committed); /* new segments are taken to be empty */
    store->n_segments = 1;
    store->depth = 0;
    store->directory[0] = segment_at(store, 0);
    store->n_slots = store->n_rows = store->n_free = 0;
    store->free_head = EMB_NO_SLOT;
}

static struct emb_segment *segment_of(const struct emb_store *store, uint64_t hash)
{
    return store->directory[emb_store_tag(hash) & (((uint32_t)1 << store->depth) - 1)];
}

uint32_t emb_store_find(const struct emb_store *store, uint64_t key)
{
    uint64_t hash = emb_store_hash(store, key);
    const struct emb_segment *segment = segment_of(store, hash);
    for (uint32_t i = 0; i < EMB_SEGMENT_BUCKETS; i++) {
        const struct emb_bucket *bucket = &segment->bucket[(hash + i) % EMB_SEGMENT_BUCKETS];
        uint32_t match = match_of(bucket, key);
        if (match)
            return bucket->slot[__builtin_ctz(match)];
        if (!bucket->passed) /* (S2) */
            break;
    }
    return EMB_NO_SLOT;
}

static void place(struct emb_segment *segment, uint64_t hash, uint64_t key, uint32_t slot)
{
    uint64_t at = hash;
    struct emb_bucket *bucket;
    while ((bucket = &segment->bucket[at % EMB_SEGMENT_BUCKETS])->n == EMB_BUCKET_ENTRIES) {
        bucket->passed++; /* (S2) */
        at++;
    }
    bucket->key[bucket->n] = key;
    bucket->slot[bucket->n++] = slot;
    segment->n_entries++;
}

static int double_directory(struct emb_store *store)
{
    size_t n = (size_t)1 << store->depth;
    if (store->depth == MAX_DEPTH)
        return clu_fail(CLU_E_NO_MEMORY, "a table cannot hold more rows in one shard's memory");
    struct emb_segment **directory = realloc(store->directory, 2 * n * sizeof(*directory));
    if (!directory)
        return CLU_E_NO_MEMORY;
    memcpy(directory + n, directory, n * sizeof(*directory));
    store->directory = directory;
    store->depth++;
    return CLU_OK;
}

/* Splits a full segment by the next bit of its tags (S1). */
static int split(struct emb_store *store, struct emb_segment *old, uint32_t tag)
{
    int status = old->depth == store->depth ? double_directory(store) : CLU_OK;
    struct emb_segment *sibling;
    if (!status)
        status = new_segment(store, old->depth + 1, &sibling);
    if (status)
        return status;
    uint64_t keys[CAPACITY];
    uint32_t slots[CAPACITY], n = 0;
    for (uint32_t b = 0; b < EMB_SEGMENT_BUCKETS; b++) {
        struct emb_bucket *bucket = &old->bucket[b];
        for (uint32_t i = 0; i < bucket->n; i++, n++) {
            keys[n] = bucket->key[i];
            slots[n] = bucket->slot[i];
        }
        bucket->n = bucket->passed = 0;
    }
    old->n_entries = 0;
    const uint32_t bit = (uint32_t)1 << old->depth++;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t hash = emb_store_hash(store, keys[i]);
        place(emb_store_tag(hash) & bit ? sibling : old, hash, keys[i], slots[i]);
    }
    for (uint32_t i = (tag & (bit - 1)) | bit; i < (uint32_t)1 << store->depth; i += 2 * bit)
        store->directory[i] = sibling;
    return CLU_OK;
}

/* Index for n more entries, as many as make segments split on average, and two. */
static int reserve_segments(struct emb_store *store, size_t n)
{
    size_t segments = store->n_segments + n / (MAX_LOAD / 2) + 2;
    int status = emb_range_commit(&store->index, segments * sizeof(struct emb_segment));
    if (!status && store->starved)
        status = double_directory(store);
    if (!status)
        store->starved = false;
    return status;
}

static size_t slab_bytes(const struct emb_store *store, size_t n_slots)
{
    return (size_t)(store->rows - store->slab.base) + n_slots * store->stride;
}

int emb_store_reserve(struct emb_store *store, size_t n)
{
    if (n <= store->n_free)
        return reserve_segments(store, n);
    size_t slots = store->n_slots + (n - store->n_free);
    if (slots > store->max_slots)
        return CLU_E_NO_MEMORY;
    int status = emb_range_commit(&store->slab, slab_bytes(store, slots));
    if (!status)
        status = emb_range_commit(&store->flags, slots);
    return status ? status : reserve_segments(store, n);
}

void emb_store_ahead(struct emb_store *store)
{
    emb_range_ahead(&store->slab, slab_bytes(store, store->n_slots), &store->feeder);
    emb_range_ahead(&store->index, store->n_segments * sizeof(struct emb_segment), &store->feeder);
}

static size_t usable_slots(const struct emb_store *store)
{
    size_t offset = (size_t)(store->rows - store->slab.base), slots = 0;
    if (store->slab.committed > offset)
        slots = (store->slab.committed - offset) / store->stride;
    slots = slots < store->flags.committed ? slots : store->flags.committed;
    return slots < store->max_slots ? slots : store->max_slots;
}

size_t emb_store_room(const struct emb_store *store)
{
    size_t usable = usable_slots(store);
    return store->n_free + (usable > store->n_slots ? usable - store->n_slots : 0);
}

int emb_store_insert(struct emb_store *store, uint64_t key, uint32_t *slot_p)
{
    int status = store->n_free || store->n_slots < usable_slots(store)
                     ? CLU_OK
                     : emb_store_reserve(store, 1);
    if (status)
        return status;
    uint64_t hash = emb_store_hash(store, key);
    struct emb_segment *segment = segment_of(store, hash);
    while (segment->n_entries >= MAX_LOAD) { /* (S3) */
        status = split(store, segment, emb_store_tag(hash));
        if (status && segment->n_entries >= CAPACITY - 1)
            return status;
        store->starved |= status != CLU_OK;
        if (status)
            break;
        segment = segment_of(store, hash);
    }
    uint32_t slot = store->free_head;
    if (slot != EMB_NO_SLOT) {
        store->free_head = (uint32_t)emb_store_key(store, slot);
        store->n_free--;
    } else {
        slot = store->n_slots++;
    }
    memcpy(emb_store_row(store, slot), &key, 8);
    *emb_store_flags(store, slot) = EMB_SLOT_LIVE;
    place(segment, hash, key, slot);
    store->n_rows++;
    *slot_p = slot;
    return CLU_OK;
}

static void unplace(struct emb_segment *segment, uint64_t hash, uint64_t key)
{
    struct emb_bucket *bucket;
    uint32_t match;
    for (uint64_t at = hash;; at++) {
        bucket = &segment->bucket[at % EMB_SEGMENT_BUCKETS];
        match = match_of(bucket, key);
        if (match)
            break;
        bucket->passed--; /* (S2) */
    }
    uint32_t hole = (uint32_t)__builtin_ctz(match), last = --bucket->n;
    bucket->key[hole] = bucket->key[last];
    bucket->slot[hole] = bucket->slot[last];
    segment->n_entries--;
}

void emb_store_remove(struct emb_store *store, uint32_t slot)
{
    assert(*emb_store_flags(store, slot) & EMB_SLOT_LIVE);
    const uint64_t key = emb_store_key(store, slot), hash = emb_store_hash(store, key);
    unplace(segment_of(store, hash), hash, key);
    uint64_t next = store->free_head;
    memcpy(emb_store_row(store, slot), &next, 8);
    *emb_store_flags(store, slot) = 0; /* (S4) */
    store->free_head = slot;
    store->n_free++;
    store->n_rows--;
}

void emb_store_trim(struct emb_store *store)
{
    uint32_t end = store->n_slots;
    while (end > 0 && !(*emb_store_flags(store, end - 1) & EMB_SLOT_LIVE))
        end--;
    if (end == store->n_slots)
        return;
    store->n_slots = end;
    store->free_head = EMB_NO_SLOT; /* the chain ran through slots that go: make it again */
    store->n_free = 0;
    for (uint32_t slot = end; slot-- > 0;)
        if (!(*emb_store_flags(store, slot) & EMB_SLOT_LIVE)) {
            uint64_t next = store->free_head;
            memcpy(emb_store_row(store, slot), &next, 8);
            store->free_head = slot;
            store->n_free++;
        }
    emb_feeder_settle(store->feeder);
    emb_range_trim(&store->slab, slab_bytes(store, end));
    emb_range_trim(&store->flags, end);
}

size_t emb_store_memory(const struct emb_store *store)
{
    return store->slab.committed + store->flags.committed + store->index.committed +
           (sizeof(*store->directory) << store->depth);
}

/* The row store.
 *
 * The problem: tens of millions of rows of a few hundred bytes, looked up at random, thousands at a
 * time, while the table grows and nobody may wait for a rehash. What costs is cache and TLB misses,
 * so: rows in one range with huge pages, an index that can be probed without touching rows, and
 * batches.
 *
 * Tried and rejected: keys in the index and headers apart from the rows (a lookup then touches one
 * line less, but pulls were no faster and pushes a third slower: what costs is the number of
 * different pages, and header and row share theirs); one big index that is copied when full (a stop
 * of 0.3 s at 10 M rows), two indexes with migration (twice the index memory while it lasts, and
 * two probes), chained buckets (a miss a link).
 *
 * (S1) Every live slot has exactly one index entry, in the segment that its tag's low bits select.
 * (S2) In a segment no empty entry lies between an entry and its home place (linear probing;
 *      removal shifts).
 * (S3) A segment is never full (MAX_LOAD unless memory ran out), so every probe ends.
 * (S4) Free slots below n_slots are chained through their key field; flags of a free slot are 0.
 */
#include "embeddings/store.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    MAX_LOAD = EMB_SEGMENT_ENTRIES / 5 * 4,
    SMALL_STEP = 64 << 10, /* ranges grow by this until BIG_STEP, then by BIG_STEP */
    BIG_STEP = 2 << 20,    /* one huge page */
    MAX_DEPTH = 20,
};

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* Address space only; on a 2 MiB boundary so that huge pages fit. Halves the wish when refused. */
static int range_reserve(struct emb_range *range, size_t wish)
{
    wish = round_up(wish, BIG_STEP);
    if (wish < 4 * (size_t)BIG_STEP)
        wish = 4 * (size_t)BIG_STEP;
    for (; wish >= 4 * (size_t)BIG_STEP; wish = round_up(wish / 2, BIG_STEP)) {
        char *base = mmap(NULL, wish + BIG_STEP, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            continue;
        char *aligned = (char *)round_up((size_t)base, BIG_STEP);
        if (aligned > base)
            munmap(base, (size_t)(aligned - base));
        size_t tail = BIG_STEP - (size_t)(aligned - base);
        if (tail)
            munmap(aligned + wish, tail);
        *range = (struct emb_range){.base = aligned, .reserved = wish, .committed = 0};
        return CLU_OK;
    }
    return clu_fail(CLU_E_NO_MEMORY, "cannot reserve %zu bytes of address space for rows", wish);
}

static int range_commit(struct emb_range *range, size_t needed)
{
    if (needed <= range->committed)
        return CLU_OK;
    size_t target = round_up(needed, needed > BIG_STEP ? BIG_STEP : SMALL_STEP);
    if (target > range->reserved ||
        mprotect(range->base + range->committed, target - range->committed,
                 PROT_READ | PROT_WRITE) != 0)
        return CLU_E_NO_MEMORY;
#ifdef MADV_HUGEPAGE
    if (target > BIG_STEP) /* advice; refusal only costs speed */
        (void)madvise(range->base, target, MADV_HUGEPAGE);
#endif
    range->committed = target;
    return CLU_OK;
}

/* Gives pages behind `keep` bytes back. */
static void range_trim(struct emb_range *range, size_t keep)
{
    keep = round_up(keep, keep > BIG_STEP ? BIG_STEP : SMALL_STEP);
    if (keep >= range->committed)
        return;
    madvise(range->base + keep, range->committed - keep, MADV_DONTNEED);
    mprotect(range->base + keep, range->committed - keep, PROT_NONE);
    range->committed = keep;
}

static void range_release(struct emb_range *range)
{
    if (range->base)
        munmap(range->base, range->reserved);
    *range = (struct emb_range){0};
}

static struct emb_segment *segment_at(const struct emb_store *store, uint32_t i)
{
    return (struct emb_segment *)store->index.base + i;
}

/* A fresh segment: committed pages are zero until used, and segments are never freed one by one. */
static int new_segment(struct emb_store *store, uint32_t depth, struct emb_segment **segment_p)
{
    size_t needed = (size_t)(store->n_segments + 1) * sizeof(struct emb_segment);
    int status = range_commit(&store->index, needed);
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
    store->salt = salt;
    store->free_head = EMB_NO_SLOT;
    int status = range_reserve(&store->slab, max_bytes);
    if (status)
        return status;
    size_t slots = store->slab.reserved / store->stride;
    store->max_slots = slots < EMB_NO_SLOT - 1 ? (uint32_t)slots : EMB_NO_SLOT - 1;
    status = range_reserve(&store->flags, store->max_slots);
    if (!status) /* splits leave segments at least 2/5 full: 32 bytes a slot are plenty */
        status = range_reserve(&store->index, (size_t)store->max_slots * 32 + (4 << 20));
    if (!status)
        status = first_segment(store);
    if (status)
        emb_store_fini(store);
    return status;
}

void emb_store_fini(struct emb_store *store)
{
    free(store->directory);
    range_release(&store->slab);
    range_release(&store->flags);
    range_release(&store->index);
    memset(store, 0, sizeof(*store));
}

void emb_store_clear(struct emb_store *store)
{
    range_trim(&store->slab, 0);
    range_trim(&store->flags, 0);
    range_trim(&store->index, sizeof(struct emb_segment));
    memset(segment_at(store, 0), 0, sizeof(struct emb_segment));
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
    uint32_t at = (uint32_t)hash & (EMB_SEGMENT_ENTRIES - 1), tag = emb_store_tag(hash);
    for (;; at = (at + 1) & (EMB_SEGMENT_ENTRIES - 1)) {
        uint64_t entry = segment->entry[at];
        if (entry == 0)
            return EMB_NO_SLOT;
        if ((uint32_t)(entry >> 32) == tag && emb_store_key(store, (uint32_t)entry - 1) == key)
            return (uint32_t)entry - 1;
    }
}

static void place(struct emb_segment *segment, uint32_t home, uint64_t entry)
{
    while (segment->entry[home])
        home = (home + 1) & (EMB_SEGMENT_ENTRIES - 1);
    segment->entry[home] = entry;
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

/* Splits a full segment by the next bit of its tags (S1). Home places come from the rows' keys: the
 * entry holds the tag, not the place, so each row's key line is fetched ahead. */
static int split(struct emb_store *store, struct emb_segment *old, uint32_t tag)
{
    int status = old->depth == store->depth ? double_directory(store) : CLU_OK;
    struct emb_segment *sibling;
    if (!status)
        status = new_segment(store, old->depth + 1, &sibling);
    if (status)
        return status;
    uint64_t entries[MAX_LOAD + 1];
    uint32_t n = 0;
    for (uint32_t i = 0; i < EMB_SEGMENT_ENTRIES; i++)
        if (old->entry[i])
            entries[n++] = old->entry[i];
    memset(old->entry, 0, sizeof(old->entry));
    old->n_entries = 0;
    const uint32_t bit = (uint32_t)1 << old->depth++;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 16 < n)
            __builtin_prefetch(emb_store_row(store, (uint32_t)entries[i + 16] - 1));
        uint64_t hash = emb_store_hash(store, emb_store_key(store, (uint32_t)entries[i] - 1));
        place((uint32_t)(entries[i] >> 32) & bit ? sibling : old,
              (uint32_t)hash & (EMB_SEGMENT_ENTRIES - 1), entries[i]);
    }
    for (uint32_t i = (tag & (bit - 1)) | bit; i < (uint32_t)1 << store->depth; i += 2 * bit)
        store->directory[i] = sibling;
    return CLU_OK;
}

/* Index for n more entries, as many as make segments split on average, and two. */
static int reserve_segments(struct emb_store *store, size_t n)
{
    size_t segments = store->n_segments + n / (MAX_LOAD / 2) + 2;
    int status = range_commit(&store->index, segments * sizeof(struct emb_segment));
    if (!status && store->starved)
        status = double_directory(store);
    if (!status)
        store->starved = false;
    return status;
}

int emb_store_reserve(struct emb_store *store, size_t n)
{
    if (n <= store->n_free)
        return reserve_segments(store, n);
    size_t slots = store->n_slots + (n - store->n_free);
    if (slots > store->max_slots)
        return CLU_E_NO_MEMORY;
    int status = range_commit(&store->slab, slots * store->stride);
    if (!status)
        status = range_commit(&store->flags, slots);
    return status ? status : reserve_segments(store, n);
}

static size_t usable_slots(const struct emb_store *store)
{
    size_t slots = store->slab.committed / store->stride;
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
        if (status && segment->n_entries >= EMB_SEGMENT_ENTRIES - 1)
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
    place(segment, (uint32_t)hash & (EMB_SEGMENT_ENTRIES - 1),
          (uint64_t)emb_store_tag(hash) << 32 | (slot + 1));
    store->n_rows++;
    *slot_p = slot;
    return CLU_OK;
}

/* Empties entry `hole` and moves later entries of the run into it where their home place allows
 * (S2). */
static void close_hole(const struct emb_store *store, struct emb_segment *segment, uint32_t hole)
{
    const uint32_t mask = EMB_SEGMENT_ENTRIES - 1;
    for (uint32_t at = (hole + 1) & mask; segment->entry[at]; at = (at + 1) & mask) {
        uint64_t key = emb_store_key(store, (uint32_t)segment->entry[at] - 1);
        uint32_t home = (uint32_t)emb_store_hash(store, key) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            segment->entry[hole] = segment->entry[at];
            hole = at;
        }
    }
    segment->entry[hole] = 0;
    segment->n_entries--;
}

void emb_store_remove(struct emb_store *store, uint32_t slot)
{
    assert(*emb_store_flags(store, slot) & EMB_SLOT_LIVE);
    uint64_t hash = emb_store_hash(store, emb_store_key(store, slot));
    struct emb_segment *segment = segment_of(store, hash);
    uint32_t at = (uint32_t)hash & (EMB_SEGMENT_ENTRIES - 1);
    while ((uint32_t)segment->entry[at] != slot + 1)
        at = (at + 1) & (EMB_SEGMENT_ENTRIES - 1);
    close_hole(store, segment, at);
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
    range_trim(&store->slab, (size_t)end * store->stride);
    range_trim(&store->flags, end);
}

size_t emb_store_memory(const struct emb_store *store)
{
    return store->slab.committed + store->flags.committed + store->index.committed +
           (sizeof(*store->directory) << store->depth);
}

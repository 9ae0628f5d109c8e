/* Writing rows back: large batches in key order, a slice at a time.
 *
 * LMDB pays per touched page, so rows are collected first, sorted by (table, key), and written in
 * that order; between slices the shard goes on serving. Three kinds:
 *
 *   CLEAN       dirty rows that are cold, so that they can leave memory; each as it is when it
 *               is written
 *   CHECKPOINT  all dirty rows as of the beginning: then the push log can be cut
 *   SNAPSHOT    the same, followed by a seal
 *
 * The last two mark rows SEALING at the beginning (a pass over the flag bytes, 1 ms per 10 M rows);
 * a push to such a row first puts the old version on the shelf (I3), which is written at the end.
 *
 *   COLLECT -> SORT -> WRITE -> SHELF -> done     (much is sorted in a thread of its own)
 *
 * LMDB's part of a row costs some microseconds, ten times what copying it does. For a SNAPSHOT
 * that nobody waits for, the owner therefore copies a slice's rows into a batch and the scribe
 * writes that, while the owner serves on; what the batch holds may change in memory meanwhile.
 * How a slice's rows get there: shard_batch.c.
 */
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    COLLECT_SLOTS = 1 << 16, /* flag bytes looked at before the time is */
    SORT_INLINE = 1 << 15,   /* entries sorted at once without a thread */
    US_PER_ROW = 5,          /* what a row costs to write, roughly: sizes the slices */
    COPY_PER_US = 4,         /* rows copied in a microsecond, roughly */
    MIN_SLICE = 64,
    MAX_SLICE = 1 << 14,
    MAX_BESIDE = 1 << 10, /* rows the scribe writes at one go: who must write too waits for it */
};

/* ---- sorting ---- */

/* Radix sort by key, a byte at a time, least first; bytes that all keys share are passed over. */
void emb_sort_entries(struct emb_entry *entries, struct emb_entry *spare, size_t n)
{
    struct emb_entry *from = entries, *to = spare;
    if (n < 2)
        return;
    if (n <= 32) { /* too few for 256 counters */
        for (size_t i = 1; i < n; i++) {
            struct emb_entry entry = entries[i];
            size_t j = i;
            for (; j > 0 && entries[j - 1].key > entry.key; j--)
                entries[j] = entries[j - 1];
            entries[j] = entry;
        }
        return;
    }
    for (int shift = 0; shift < 64; shift += 8) {
        size_t count[256] = {0}, sum = 0;
        for (size_t i = 0; i < n; i++)
            count[from[i].key >> shift & 255]++;
        if (count[from[0].key >> shift & 255] == n)
            continue;
        for (int b = 0; b < 256; b++) {
            size_t c = count[b];
            count[b] = sum;
            sum += c;
        }
        for (size_t i = 0; i < n; i++)
            to[count[from[i].key >> shift & 255]++] = from[i];
        struct emb_entry *swap = from;
        from = to;
        to = swap;
    }
    if (from != entries)
        memcpy(entries, from, n * sizeof(*entries));
}

static void sort_all(struct emb_flush *flush, int n_tables)
{
    size_t begin = 0;
    for (int t = 0; t < n_tables; t++) {
        emb_sort_entries(flush->entries + begin, flush->spare + begin, flush->table_end[t] - begin);
        begin = flush->table_end[t];
    }
}

static void *sorter(void *arg)
{
    struct emb_shard *shard = arg;
    sort_all(&shard->flush, shard->n_tables);
    __atomic_store_n(&shard->flush.sorted, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* OK once sorted; AGAIN while the thread is at it and the caller does not want to wait. */
static int sort_step(struct emb_shard *shard, bool wait)
{
    struct emb_flush *flush = &shard->flush;
    if (!flush->sorting) {
        flush->sorted = 0;
        if (flush->n <= SORT_INLINE || wait ||
            pthread_create(&flush->sorter, NULL, sorter, shard) != 0) {
            sort_all(flush, shard->n_tables);
            return CLU_OK;
        }
        flush->sorting = true;
    }
    if (!wait && !__atomic_load_n(&flush->sorted, __ATOMIC_ACQUIRE))
        return CLU_E_AGAIN;
    pthread_join(flush->sorter, NULL);
    flush->sorting = false;
    return CLU_OK;
}

void emb_flush_wait_sorted(struct emb_shard *shard)
{
    struct emb_flush *flush = &shard->flush;
    if (flush->phase != EMB_FLUSH_SORT || !flush->sorting)
        return;
    (void)sort_step(shard, true);
    flush->phase = EMB_FLUSH_WRITE;
}

/* ---- beginning and ending ---- */

static void mark_sealing(struct emb_table *table)
{
    uint8_t *restrict flags = (uint8_t *)table->store.flags.base;
    for (uint32_t i = 0; i < table->store.n_slots; i++) {
        uint8_t dirty = flags[i] & EMB_SLOT_DIRTY;
        flags[i] = (uint8_t)((flags[i] & ~EMB_SLOT_DIRTY) | dirty << 1);
    }
}

static void unmark_sealing(struct emb_table *table)
{
    uint8_t *restrict flags = (uint8_t *)table->store.flags.base;
    for (uint32_t i = 0; i < table->store.n_slots; i++) {
        uint8_t sealing = flags[i] & EMB_SLOT_SEALING;
        flags[i] = (uint8_t)((flags[i] & ~EMB_SLOT_SEALING) | sealing >> 1);
    }
}

int emb_flush_begin(struct emb_shard *shard, enum emb_flush_kind kind)
{
    struct emb_flush *flush = &shard->flush;
    assert(flush->kind == EMB_FLUSH_NONE && EMB_SLOT_SEALING == EMB_SLOT_DIRTY << 1);
    flush->kind = kind;
    flush->phase = EMB_FLUSH_COLLECT;
    flush->n = flush->at = 0;
    flush->table = 0;
    flush->slot = 0;
    if (kind != EMB_FLUSH_CLEAN) {
        int status = emb_info_capture(shard, &flush->info);
        if (status) {
            flush->kind = EMB_FLUSH_NONE;
            return status;
        }
        for (int t = 0; t < shard->n_tables; t++)
            mark_sealing(&shard->table[t]);
    }
    return CLU_OK;
}

void emb_flush_end(struct emb_shard *shard)
{
    struct emb_flush *flush = &shard->flush;
    if (flush->sorting)
        pthread_join(flush->sorter, NULL);
    free(flush->batch.items);
    free(flush->batch.values);
    free(flush->batch.changes);
    flush->batch = (struct emb_batch){0};
    free(flush->entries);
    free(flush->spare);
    flush->entries = flush->spare = NULL;
    flush->n = flush->capacity = 0;
    flush->sorting = false;
    for (int t = 0; t < shard->n_tables; t++) {
        if (flush->kind == EMB_FLUSH_CLEAN)
            shard->table[t].n_left_dirty = shard->table[t].n_dirty;
        free(flush->shelf[t].keys);
        free(flush->shelf[t].values);
        free(flush->shelf[t].changes);
        flush->shelf[t] = (struct emb_shelf){0};
    }
    emb_info_fini(&flush->info);
    flush->kind = EMB_FLUSH_NONE;
}

void emb_flush_abort(struct emb_shard *shard)
{
    if (shard->flush.batch.given)
        (void)emb_batch_settle(shard);
    if (shard->flush.kind >= EMB_FLUSH_CHECKPOINT)
        for (int t = 0; t < shard->n_tables; t++) {
            unmark_sealing(&shard->table[t]);
            emb_shelf_forget(&shard->table[t], &shard->flush.shelf[t]);
        }
    emb_flush_end(shard);
}

/* ---- collecting ---- */

static int grow_entries(struct emb_flush *flush)
{
    size_t capacity = flush->capacity ? 2 * flush->capacity : 4096;
    struct emb_entry *entries = realloc(flush->entries, capacity * sizeof(*entries));
    if (entries)
        flush->entries = entries;
    struct emb_entry *spare = entries ? realloc(flush->spare, capacity * sizeof(*spare)) : NULL;
    if (!spare)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a list of %zu dirty rows", capacity);
    flush->spare = spare;
    flush->capacity = capacity;
    return CLU_OK;
}

/* CLEAN takes rows that the eviction clock would take first; the others every marked row. */
static bool wanted(const struct emb_flush *flush, uint8_t flags)
{
    if (flush->kind != EMB_FLUSH_CLEAN)
        return flags & EMB_SLOT_SEALING;
    return (flags & EMB_SLOT_DIRTY) && (flags & EMB_SLOT_HEAT) <= 1;
}

static int collect_step(struct emb_shard *shard)
{
    struct emb_flush *flush = &shard->flush;
    struct emb_table *table = &shard->table[flush->table];
    const uint8_t *flags = (const uint8_t *)table->store.flags.base;
    uint32_t end = table->store.n_slots;
    bool last = end - flush->slot <= COLLECT_SLOTS || flush->slot >= end;
    if (!last)
        end = flush->slot + COLLECT_SLOTS;
    for (; flush->slot < end; flush->slot++) {
        if (!wanted(flush, flags[flush->slot]))
            continue;
        if (flush->n == flush->capacity) {
            int status = grow_entries(flush);
            if (status)
                return status;
        }
        flush->entries[flush->n++] = (struct emb_entry){
            .key = emb_store_key(&table->store, flush->slot), .slot = flush->slot};
    }
    if (!last)
        return CLU_E_AGAIN;
    flush->table_end[flush->table++] = flush->n;
    flush->slot = 0;
    if (flush->table < shard->n_tables)
        return CLU_E_AGAIN;
    flush->table = 0;
    flush->phase = EMB_FLUSH_SORT;
    return CLU_OK;
}

/* ---- the phases WRITE and SHELF ---- */

static int write_step(struct emb_shard *shard, size_t slice, bool beside)
{
    struct emb_flush *flush = &shard->flush;
    while (flush->table < shard->n_tables && flush->at == flush->table_end[flush->table])
        flush->table++;
    if (flush->table == shard->n_tables) {
        flush->phase = EMB_FLUSH_SHELF;
        flush->table = 0;
        flush->at = 0;
        return CLU_OK;
    }
    size_t end = flush->table_end[flush->table];
    if (end - flush->at > slice)
        end = flush->at + slice;
    int status = emb_batch_write(shard, end, beside);
    return status ? status : CLU_E_AGAIN;
}

/* The shelf of the table flush->table, from entry flush->at on; it no longer grows, as no row is
 * marked. */
static int shelf_step(struct emb_shard *shard, size_t slice, bool beside)
{
    struct emb_flush *flush = &shard->flush;
    while (flush->table < shard->n_tables && flush->at == flush->shelf[flush->table].n) {
        flush->table++;
        flush->at = 0;
    }
    if (flush->table == shard->n_tables)
        return CLU_OK;
    const struct emb_shelf *shelf = &flush->shelf[flush->table];
    if (flush->at == 0) {
        while (flush->capacity < shelf->n) {
            int status = grow_entries(flush);
            if (status)
                return status;
        }
        for (size_t i = 0; i < shelf->n; i++)
            flush->entries[i] = (struct emb_entry){.key = shelf->keys[i], .slot = (uint32_t)i};
        emb_sort_entries(flush->entries, flush->spare, shelf->n);
    }
    size_t n = shelf->n - flush->at < slice ? shelf->n - flush->at : slice;
    int status = emb_batch_write(shard, flush->at + n, beside);
    return status ? status : CLU_E_AGAIN;
}

void emb_flush_progress(const struct emb_shard *shard, uint64_t *done_p, uint64_t *left_p)
{
    const struct emb_flush *flush = &shard->flush;
    uint64_t done = flush->at, all = flush->n;
    if (flush->phase < EMB_FLUSH_WRITE) {
        *done_p = 0;
        *left_p = 1;
        return;
    }
    if (flush->phase == EMB_FLUSH_SHELF)
        done += flush->n;
    for (int t = 0; t < shard->n_tables; t++) {
        all += flush->shelf[t].n;
        if (flush->phase == EMB_FLUSH_SHELF && t < flush->table)
            done += flush->shelf[t].n;
    }
    *done_p = done;
    *left_p = all - done;
}

/* Rows of a slice: as many as the budget allows, by the owner's hand or only copied by it. */
static size_t slice_of(const struct emb_shard *shard, int64_t budget_us, bool beside)
{
    const int64_t most = beside ? MAX_BESIDE : MAX_SLICE;
    int64_t slice = most;
    if (budget_us < INT64_MAX / 2)
        slice = beside ? budget_us * COPY_PER_US : budget_us / US_PER_ROW;
    slice = slice > most ? most : slice < MIN_SLICE ? MIN_SLICE : slice;
    /* LMDB keeps every page that a transaction touches in memory, a page a row at worst */
    const int64_t affordable = (int64_t)(shard->options.memory_bytes / 16 / 4096);
    if (affordable && slice > affordable)
        slice = affordable > MIN_SLICE ? affordable : MIN_SLICE;
    return (size_t)slice;
}

int emb_flush_advance(struct emb_shard *shard, int64_t budget_us)
{
    struct emb_flush *flush = &shard->flush;
    const int64_t until = budget_us < INT64_MAX / 2 ? emb_now_us() + budget_us : INT64_MAX;
    bool wait = until == INT64_MAX;
    bool beside = !wait && flush->kind == EMB_FLUSH_SNAPSHOT;
    size_t slice = slice_of(shard, budget_us, beside);
    for (;;) {
        int status = CLU_OK;
        if (flush->batch.given && !wait && emb_scribe_is_busy(shard->scribe))
            return CLU_E_AGAIN;
        if (flush->batch.given)
            status = emb_batch_settle(shard);
        if (status)
            return status;
        if (beside && emb_snapshot_wait_us(shard) > 0)
            return CLU_E_AGAIN;
        switch (flush->phase) {
        case EMB_FLUSH_COLLECT:
            status = collect_step(shard);
            break;
        case EMB_FLUSH_SORT:
            status = sort_step(shard, wait);
            if (status == CLU_E_AGAIN)
                return status;
            flush->phase = EMB_FLUSH_WRITE;
            break;
        case EMB_FLUSH_WRITE:
            status = write_step(shard, slice, beside);
            break;
        default:
            status = shelf_step(shard, slice, beside);
            if (status == CLU_OK)
                return CLU_OK;
        }
        if (status && status != CLU_E_AGAIN)
            return status;
        if (emb_now_us() >= until)
            return CLU_E_AGAIN;
    }
}

int emb_checkpoint_end(struct emb_shard *shard)
{
    int status;
    do {
        status = emb_layers_begin(shard->layers);
        if (!status)
            status = emb_info_put(shard, "info.current", &shard->flush.info);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    if (!status)
        status = emb_pushlog_cut(shard->log, shard->flush.info.lsn);
    emb_flush_end(shard);
    return status;
}

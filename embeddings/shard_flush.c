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
 * (F1) Entries are hints: a row is written only if its slot still holds the key and still has the
 *      flag.
 * (F2) Flags change only after the slice's transaction is committed.
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
    MIN_SLICE = 64,
    MAX_SLICE = 1 << 14,
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

/* What was shelved and never written: the layers hold what they held before (I7). */
static void forget_shelf(struct emb_table *table, const struct emb_shelf *shelf)
{
    for (size_t i = 0; i < shelf->n; i++) {
        uint32_t slot = EMB_NO_SLOT;
        if (shelf->changes[i])
            slot = emb_store_find(&table->store, shelf->keys[i]);
        if (slot != EMB_NO_SLOT)
            *emb_store_flags(&table->store, slot) ^= EMB_SLOT_STORED;
    }
}

void emb_flush_abort(struct emb_shard *shard)
{
    if (shard->flush.kind >= EMB_FLUSH_CHECKPOINT)
        for (int t = 0; t < shard->n_tables; t++) {
            unmark_sealing(&shard->table[t]);
            forget_shelf(&shard->table[t], &shard->flush.shelf[t]);
        }
    emb_flush_end(shard);
}

/* What writing a slot's value changes of n_stored (I7). */
static int stored_change(const char *value, uint8_t flags)
{
    return (emb_value_u32(value, EMB_VALUE_COUNT) > 0) - ((flags & EMB_SLOT_STORED) > 0);
}

/* A layer holds the slot's value, or will before the slot is written again. */
static void set_stored(uint8_t *flags, const char *value)
{
    bool is_row = emb_value_u32(value, EMB_VALUE_COUNT) > 0;
    *flags = (uint8_t)((*flags & ~EMB_SLOT_STORED) | (is_row ? EMB_SLOT_STORED : 0));
}

/* All of a slot but the key: a tombstone's burial may lie behind a very small value. */
static size_t shelf_stride(const struct emb_table *table)
{
    return table->store.stride - 8;
}

int emb_flush_shelve(struct emb_shard *shard, struct emb_table *table, uint32_t slot)
{
    struct emb_shelf *shelf = &shard->flush.shelf[table - shard->table];
    if (shelf->n == shelf->capacity) {
        size_t capacity = shelf->capacity ? 2 * shelf->capacity : 256;
        uint64_t *keys = realloc(shelf->keys, capacity * sizeof(*keys));
        if (keys)
            shelf->keys = keys;
        char *values = keys ? realloc(shelf->values, capacity * shelf_stride(table)) : NULL;
        if (values)
            shelf->values = values;
        int8_t *changes = values ? realloc(shelf->changes, capacity) : NULL;
        if (!changes)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to keep rows for a running snapshot");
        shelf->changes = changes;
        shelf->capacity = capacity;
    }
    const char *value = emb_slot_value(table, slot);
    uint8_t *flags = emb_store_flags(&table->store, slot);
    shelf->keys[shelf->n] = emb_store_key(&table->store, slot);
    shelf->changes[shelf->n] = (int8_t)stored_change(value, *flags);
    memcpy(shelf->values + shelf->n++ * shelf_stride(table), value, shelf_stride(table));
    /* from now on dirty like any other; the shelved version will be in a layer, so say so */
    *flags = (uint8_t)((*flags & ~EMB_SLOT_SEALING) | EMB_SLOT_DIRTY | EMB_SLOT_ON_DISK);
    set_stored(flags, value);
    return CLU_OK;
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

/* ---- writing ---- */

static bool still_wanted(const struct emb_flush *flush, const struct emb_table *table,
                         const struct emb_entry *entry)
{
    if (entry->slot >= table->store.n_slots)
        return false; /* (F1) */
    uint8_t flags = *emb_store_flags(&table->store, entry->slot);
    uint8_t flag = flush->kind == EMB_FLUSH_CLEAN ? EMB_SLOT_DIRTY : EMB_SLOT_SEALING;
    return (flags & flag) && emb_store_key(&table->store, entry->slot) == entry->key;
}

/* Ends the transaction that wrote rows of table t: they and their number become durable at once. */
static int commit_rows(struct emb_shard *shard, int t, int64_t change)
{
    uint64_t n_stored[EMB_MAX_TABLES];
    for (int i = 0; i < shard->n_tables; i++)
        n_stored[i] = shard->table[i].n_stored;
    n_stored[t] += (uint64_t)change;
    int status = change ? emb_stored_put(shard, n_stored) : CLU_OK;
    if (!status)
        status = emb_layers_commit(shard->layers);
    if (!status)
        shard->table[t].n_stored = n_stored[t];
    return status;
}

/* Puts entries [begin, end) of one table into the current layer, in a transaction. */
static int write_rows(struct emb_shard *shard, int t, size_t begin, size_t end)
{
    const struct emb_flush *flush = &shard->flush;
    const struct emb_table *table = &shard->table[t];
    int64_t change = 0;
    int status = emb_layers_begin(shard->layers);
    for (size_t i = begin; i < end && !status; i++) {
        const struct emb_entry *entry = &flush->entries[i];
        if (!still_wanted(flush, table, entry))
            continue;
        const char *value = emb_slot_value(table, entry->slot);
        bool gone = emb_value_u32(value, EMB_VALUE_COUNT) == 0; /* (I6) */
        struct emb_stored stored = {.key = entry->key,
                                    .lsn = gone ? emb_value_burial(value) : shard->durable_lsn,
                                    .value = gone ? NULL : value};
        status = emb_layers_put(shard->layers, t, (int)shard->roles.current, &stored);
        change += stored_change(value, *emb_store_flags(&table->store, entry->slot));
    }
    return status ? status : commit_rows(shard, t, change);
}

/* (F2) */
static void rows_are_written(struct emb_shard *shard, struct emb_table *table, size_t begin,
                             size_t end)
{
    const struct emb_flush *flush = &shard->flush;
    for (size_t i = begin; i < end; i++) {
        uint32_t slot = flush->entries[i].slot;
        if (!still_wanted(flush, table, &flush->entries[i]))
            continue;
        uint8_t *flags = emb_store_flags(&table->store, slot);
        *flags &= (uint8_t) ~(EMB_SLOT_DIRTY | EMB_SLOT_SEALING);
        *flags |= EMB_SLOT_ON_DISK;
        set_stored(flags, emb_slot_value(table, slot));
        table->n_dirty--;
        if (*flags & EMB_SLOT_TOMBSTONE) { /* the layer's tombstone does from here on */
            emb_store_remove(&table->store, slot);
            table->n_tombstones--;
            table->on_disk_only = true;
        }
    }
}

static int write_step(struct emb_shard *shard, size_t slice)
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
    int status;
    do
        status = write_rows(shard, flush->table, flush->at, end);
    while (status == CLU_E_AGAIN);
    emb_trim_map(shard);
    if (status)
        return status;
    rows_are_written(shard, &shard->table[flush->table], flush->at, end);
    flush->at = end;
    return CLU_E_AGAIN;
}

static int write_shelf(struct emb_shard *shard, int t, const struct emb_entry *order, size_t n)
{
    struct emb_shelf *shelf = &shard->flush.shelf[t];
    int64_t change = 0;
    int status = emb_layers_begin(shard->layers);
    for (size_t i = 0; i < n && !status; i++) {
        const char *value = shelf->values + order[i].slot * shelf_stride(&shard->table[t]);
        bool gone = emb_value_u32(value, EMB_VALUE_COUNT) == 0;
        struct emb_stored stored = {.key = order[i].key,
                                    .lsn = gone ? emb_value_burial(value) : shard->flush.info.lsn,
                                    .value = gone ? NULL : value};
        status = emb_layers_put(shard->layers, t, (int)shard->roles.current, &stored);
        change += shelf->changes[order[i].slot];
    }
    if (!status)
        status = commit_rows(shard, t, change);
    for (size_t i = 0; i < n && !status; i++)
        shelf->changes[order[i].slot] = 0; /* done: not to be taken back */
    return status;
}

/* The shelf of the table flush->table, from entry flush->at on; it no longer grows, as no row is
 * marked. */
static int shelf_step(struct emb_shard *shard, size_t slice)
{
    struct emb_flush *flush = &shard->flush;
    if (flush->table == shard->n_tables)
        return CLU_OK;
    const struct emb_shelf *shelf = &flush->shelf[flush->table];
    if (flush->at == 0 && shelf->n) {
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
    int status = CLU_OK;
    if (n)
        do
            status = write_shelf(shard, flush->table, flush->entries + flush->at, n);
        while (status == CLU_E_AGAIN);
    if (status)
        return status;
    flush->at += n;
    if (flush->at == shelf->n) {
        flush->table++;
        flush->at = 0;
    }
    return CLU_E_AGAIN;
}

int emb_flush_advance(struct emb_shard *shard, int64_t budget_us)
{
    struct emb_flush *flush = &shard->flush;
    const int64_t until = budget_us < INT64_MAX / 2 ? emb_now_us() + budget_us : INT64_MAX;
    size_t slice = MAX_SLICE;
    if (budget_us / US_PER_ROW < MAX_SLICE)
        slice = budget_us > MIN_SLICE * US_PER_ROW ? (size_t)(budget_us / US_PER_ROW) : MIN_SLICE;
    /* LMDB keeps every page that a transaction touches in memory, a page a row at worst */
    const size_t affordable = (size_t)(shard->options.memory_bytes / 16 / 4096);
    if (affordable && slice > affordable)
        slice = affordable > MIN_SLICE ? affordable : MIN_SLICE;
    bool wait = until == INT64_MAX;
    for (;;) {
        int status;
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
            status = write_step(shard, slice);
            break;
        default:
            status = shelf_step(shard, slice);
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

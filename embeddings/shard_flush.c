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
 *
 * (F1) Entries are hints: a row is written only if its slot still holds the key and still has the
 *      flag.
 * (F2) Flags change only after the slice's transaction is committed. Only STORED of a batch's rows
 *      is set when they are copied, as it is for the shelf, and taken back if they are not written:
 *      a row that is pushed to meanwhile goes to the shelf too, and must not be counted twice (I7).
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

/* A key's row was not written after all: the layers hold what they held before (I7). */
static void take_back(struct emb_table *table, uint64_t key, int change)
{
    uint32_t slot = change ? emb_store_find(&table->store, key) : EMB_NO_SLOT;
    if (slot != EMB_NO_SLOT)
        *emb_store_flags(&table->store, slot) ^= EMB_SLOT_STORED;
}

/* What was shelved and never written. */
static void forget_shelf(struct emb_table *table, const struct emb_shelf *shelf)
{
    for (size_t i = 0; i < shelf->n; i++)
        take_back(table, shelf->keys[i], shelf->changes[i]);
}

static int settle_batch(struct emb_shard *shard);

void emb_flush_abort(struct emb_shard *shard)
{
    if (shard->flush.batch.given)
        (void)settle_batch(shard);
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

/* ---- batches: by the owner's hand, or by the scribe's while the owner serves on ---- */

static int batch_room(struct emb_batch *batch, size_t n, size_t copy_bytes)
{
    if (n > batch->capacity) {
        struct emb_stored *items = realloc(batch->items, n * sizeof(*items));
        if (items)
            batch->items = items;
        int8_t *changes = items ? realloc(batch->changes, n) : NULL;
        if (!changes)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to write %zu rows", n);
        batch->changes = changes;
        batch->capacity = n;
    }
    if (copy_bytes > batch->copies) {
        char *values = realloc(batch->values, copy_bytes);
        if (!values)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to copy rows");
        batch->values = values;
        batch->copies = copy_bytes;
    }
    return CLU_OK;
}

/* Entries [flush->at, end) as they are now. */
static int take_rows(struct emb_shard *shard, size_t end, bool copy)
{
    enum { AHEAD = 8 };
    struct emb_flush *flush = &shard->flush;
    struct emb_batch *batch = &flush->batch;
    const struct emb_table *table = &shard->table[flush->table];
    const size_t bytes = copy ? table->value_bytes : 0;
    int status = batch_room(batch, end - flush->at, (end - flush->at) * bytes);
    for (size_t i = flush->at; i < end && !status; i++) {
        const struct emb_entry *entry = &flush->entries[i];
        if (i + AHEAD < end && flush->entries[i + AHEAD].slot < table->store.n_slots)
            __builtin_prefetch(emb_slot_value(table, flush->entries[i + AHEAD].slot));
        if (!still_wanted(flush, table, entry))
            continue;
        const char *value = emb_slot_value(table, entry->slot);
        uint8_t *flags = emb_store_flags(&table->store, entry->slot);
        struct emb_stored *item = &batch->items[batch->n];
        *item = (struct emb_stored){entry->key, shard->durable_lsn, value};
        batch->changes[batch->n] = (int8_t)stored_change(value, *flags);
        set_stored(flags, value);                         /* (F2) */
        if (emb_value_u32(value, EMB_VALUE_COUNT) == 0) { /* (I6) */
            item->lsn = emb_value_burial(value);
            item->value = NULL;
        } else if (copy) {
            item->value = memcpy(batch->values + batch->n * bytes, value, bytes);
        }
        batch->n++;
    }
    return status;
}

/* The same of the shelf, whose values stay where they are. */
static int take_shelved(struct emb_shard *shard, size_t end)
{
    struct emb_flush *flush = &shard->flush;
    struct emb_batch *batch = &flush->batch;
    const struct emb_shelf *shelf = &flush->shelf[flush->table];
    int status = batch_room(batch, end - flush->at, 0);
    for (size_t i = flush->at; i < end && !status; i++) {
        const struct emb_entry *entry = &flush->entries[i];
        const char *value = shelf->values + entry->slot * shelf_stride(&shard->table[flush->table]);
        bool gone = emb_value_u32(value, EMB_VALUE_COUNT) == 0;
        batch->changes[batch->n] = shelf->changes[entry->slot];
        batch->items[batch->n++] = (struct emb_stored){
            entry->key, gone ? emb_value_burial(value) : flush->info.lsn, gone ? NULL : value};
    }
    return status;
}

static int write_batch(void *context)
{
    struct emb_batch *batch = context;
    struct emb_layers *layers = batch->shard->layers;
    emb_layers_beside_begin(layers);
    int status = emb_layers_begin(layers);
    for (size_t i = 0; i < batch->n && !status; i++)
        status = emb_layers_put(layers, batch->table, batch->layer, &batch->items[i]);
    if (!status && batch->counts) /* rows and their number become durable at once */
        status = emb_stored_put(batch->shard, batch->n_stored);
    if (!status)
        status = emb_layers_commit(layers);
    emb_layers_beside_end(layers);
    return status;
}

/* Waits for the batch; what it says has become true, or never was. */
static int settle_batch(struct emb_shard *shard)
{
    struct emb_flush *flush = &shard->flush;
    struct emb_batch *batch = &flush->batch;
    struct emb_table *table = &shard->table[batch->table];
    const bool shelved = flush->phase == EMB_FLUSH_SHELF;
    int status = batch->given ? emb_scribe_take(shard->scribe) : write_batch(batch);
    batch->given = false;
    while (status == CLU_E_FULL && emb_layers_grow(shard->layers) == CLU_OK)
        status = write_batch(batch);
    emb_trim_map(shard);
    for (size_t i = 0; status && !shelved && i < batch->n; i++)
        take_back(table, batch->items[i].key, batch->changes[i]);
    if (status)
        return status;
    table->n_stored = batch->n_stored[batch->table];
    for (size_t i = flush->at; shelved && i < batch->end; i++) /* done: not to be taken back */
        flush->shelf[batch->table].changes[flush->entries[i].slot] = 0;
    if (!shelved)
        rows_are_written(shard, table, flush->at, batch->end);
    flush->at = batch->end;
    return CLU_OK;
}

/* Entries [flush->at, end) of flush->table, or of its shelf, to the current layer. */
static int write_entries(struct emb_shard *shard, size_t end, bool beside)
{
    struct emb_flush *flush = &shard->flush;
    struct emb_batch *batch = &flush->batch;
    int64_t change = 0;
    batch->shard = shard;
    batch->table = flush->table;
    batch->layer = (int)shard->roles.current;
    batch->end = end;
    batch->n = 0;
    int status =
        flush->phase == EMB_FLUSH_SHELF ? take_shelved(shard, end) : take_rows(shard, end, beside);
    if (status)
        return status;
    for (size_t i = 0; i < batch->n; i++)
        change += batch->changes[i];
    for (int t = 0; t < shard->n_tables; t++)
        batch->n_stored[t] = shard->table[t].n_stored;
    batch->n_stored[batch->table] += (uint64_t)change;
    batch->counts = change != 0;
    batch->given = beside;
    if (!beside)
        return settle_batch(shard);
    emb_scribe_give(shard->scribe, write_batch, batch);
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
    int status = write_entries(shard, end, beside);
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
    int status = write_entries(shard, flush->at + n, beside);
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
            status = settle_batch(shard);
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

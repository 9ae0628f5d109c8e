/* Rows on their way from memory to a layer: a slice of a flush as a batch, written by the owner, or
 * by the scribe while the owner serves on; and the shelf, where versions wait that a push was about
 * to write over.
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

#include <stdlib.h>
#include <string.h>

/* ---- the shelf ---- */

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

/* A key's row was not written after all: the layers hold what they held before (I7). */
static void take_back(struct emb_table *table, uint64_t key, int change)
{
    uint32_t slot = change ? emb_store_find(&table->store, key) : EMB_NO_SLOT;
    if (slot != EMB_NO_SLOT)
        *emb_store_flags(&table->store, slot) ^= EMB_SLOT_STORED;
}

void emb_shelf_forget(struct emb_table *table, const struct emb_shelf *shelf)
{
    for (size_t i = 0; i < shelf->n; i++)
        take_back(table, shelf->keys[i], shelf->changes[i]);
}

/* ---- batches ---- */

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

int emb_batch_settle(struct emb_shard *shard)
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

int emb_batch_write(struct emb_shard *shard, size_t end, bool beside)
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
        return emb_batch_settle(shard);
    emb_scribe_give(shard->scribe, write_batch, batch);
    return CLU_OK;
}

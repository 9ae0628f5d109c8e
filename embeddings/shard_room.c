/* Keeping to the memory budget, and the chores of a tick.
 *
 * Rows enter memory by pulls and pushes and leave by a clock: a hand goes round the flag bytes; a
 * slot that was used since the hand's last visit loses one of its (at most three) points of heat, a
 * cold clean slot goes. Rows enter with no heat, so that a scan over the whole table displaces
 * other newcomers only. Dirty rows are first written back: a CLEAN flush takes the cold dirty ones
 * in key order, a slice a tick, as soon as they are a good part of the table.
 *
 * The budget holds for everything a shard keeps resident: rows, index, flags, sketches, lists of a
 * flush, and the pages of the LMDB map it touched, which are given back to the page cache
 * regularly. Rows may take three quarters of it, the map an eighth. A batch that must be resident
 * may exceed the budget until the next tick.
 *
 * Expiry: a row whose last push is more than expire_steps ago does not exist, whoever asks; the
 * sweep, a slice a tick, only takes away what nobody can see any more. So its pace never shows in
 * results.
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <stdlib.h>

enum {
    SMALLEST_TABLE = 1 << 18, /* bytes any table may take, whatever the others do */
    SLICE_US = 1000,          /* of each chore, a tick */
    MERGE_REST_US = 1000000,  /* after a failure */
    SWEEP_SLOTS = 4096,
    SWEEP_STORED = 256,
    /* A push that finds no room writes for so long, so many times: two seconds, after which memory
     * is taken beyond the budget. */
    CLEAN_NOW_US = 50 * SLICE_US,
    CLEAN_NOW_TRIES = 40,
    FEW_DIRTY = 4096,   /* rows not worth a flush while memory suffices */
    EVICT_AHEAD = 1024, /* slots freed beyond those asked for: the clock runs less often */
};
static const uint64_t default_log_bytes = (uint64_t)512 << 20;

size_t emb_memory(const struct emb_shard *shard)
{
    size_t bytes = 2 * shard->flush.capacity * sizeof(struct emb_entry) +
                   shard->scratch_n * (2 * sizeof(struct emb_entry) + 12) + emb_leave_memory(shard);
    for (int t = 0; t < shard->n_tables; t++) {
        const struct emb_table *table = &shard->table[t];
        bytes += emb_store_memory(&table->store);
        bytes += table->sketch ? emb_sketch_memory() : 0;
        bytes += shard->flush.shelf[t].capacity * (table->store.stride + 1);
    }
    return bytes;
}

/* What rows may take of the budget. */
static size_t row_budget(const struct emb_shard *shard)
{
    return (size_t)(shard->options.memory_bytes / 4 * 3);
}

static void evict_slot(struct emb_table *table, uint32_t slot, uint8_t flags)
{
    emb_store_remove(&table->store, slot);
    if (flags & EMB_SLOT_TOMBSTONE)
        table->n_tombstones--;
    else
        table->n_evicted++;
    if (flags & EMB_SLOT_ON_DISK)
        table->on_disk_only = true;
}

/* Fetches what removing the row of a slot a little ahead of the clock's hand will touch. */
static void fetch_ahead(const struct emb_store *store, uint32_t hand)
{
    enum { ROW_AHEAD = 32, INDEX_AHEAD = 16 };
    if (hand + ROW_AHEAD >= store->n_slots)
        return;
    __builtin_prefetch(emb_store_row(store, hand + ROW_AHEAD));
    if (*emb_store_flags(store, hand + INDEX_AHEAD) ==
        (EMB_SLOT_LIVE | EMB_SLOT_ON_DISK | EMB_SLOT_STORED))
        emb_store_prefetch(store, emb_store_key(store, hand + INDEX_AHEAD));
}

/* Runs the clock until n slots were freed, at most four times round (heat is at most 3). */
static size_t evict(struct emb_table *table, size_t n)
{
    struct emb_store *store = &table->store;
    size_t freed = 0;
    for (uint64_t seen = 0; freed < n && seen < 4 * (uint64_t)store->n_slots; seen++) {
        uint32_t slot = table->clock_hand;
        table->clock_hand = slot + 1 < store->n_slots ? slot + 1 : 0;
        uint8_t *flags = emb_store_flags(store, slot);
        fetch_ahead(store, slot);
        if (!(*flags & EMB_SLOT_LIVE))
            continue;
        if (*flags & EMB_SLOT_HEAT) {
            --*flags;
        } else if (!(*flags & (EMB_SLOT_DIRTY | EMB_SLOT_SEALING))) {
            evict_slot(table, slot, *flags);
            freed++;
        }
    }
    return freed;
}

/* Rows may be written back: no group is pending or half replayed (I4). */
static bool may_write(const struct emb_shard *shard)
{
    return !shard->in_group && !shard->map_full && !(shard->log && emb_pushlog_pending(shard->log));
}

/* A map that is full while a snapshot's file is written grows after that; what is dirty stays in
 * memory till then. */
static bool waits_for_view(struct emb_shard *shard, int status)
{
    shard->map_full |= status == CLU_E_FULL && emb_snapshot_in_file(shard);
    return shard->map_full;
}

/* A push has nowhere to go: cold dirty rows are written back, after what else is being written. */
static int clean_now(struct emb_shard *shard)
{
    struct emb_flush *flush = &shard->flush;
    if (flush->kind != EMB_FLUSH_NONE)
        emb_flush_wait_sorted(shard);
    if (shard->job && !emb_snapshot_in_file(shard) &&
        emb_snapshot_hurry(shard, CLEAN_NOW_US) != CLU_OK)
        return CLU_OK;
    int status = flush->kind == EMB_FLUSH_NONE ? emb_flush_begin(shard, EMB_FLUSH_CLEAN) : CLU_OK;
    if (!status)
        status = emb_flush_advance(shard, CLEAN_NOW_US);
    if (flush->kind == EMB_FLUSH_CLEAN && status != CLU_E_AGAIN)
        emb_flush_end(shard);
    return status == CLU_E_AGAIN || waits_for_view(shard, status) ? CLU_OK : status;
}

/* What a store takes more with n more rows in it. */
static size_t growth(const struct emb_store *store, size_t n)
{
    size_t slots = store->n_slots + (n > store->n_free ? n - store->n_free : 0);
    size_t offset = (size_t)(store->rows - store->slab.base);
    return emb_range_growth(&store->slab, offset + slots * store->stride) + 32 * n;
}

int emb_room_for(struct emb_shard *shard, struct emb_table *table, size_t n, bool must)
{
    struct emb_store *store = &table->store;
    size_t budget = row_budget(shard), free_slots = emb_store_room(store);
    if (budget == 0 || emb_memory(shard) < budget / 4 * 3)
        emb_store_ahead(store);
    if (free_slots >= n && !store->starved)
        return CLU_OK;
    size_t needed = free_slots < n ? growth(store, n) : 0;
    if (budget == 0 || emb_memory(shard) + needed <= budget ||
        emb_store_memory(store) + needed <= SMALLEST_TABLE)
        if (emb_store_reserve(store, n) == CLU_OK)
            return CLU_OK;
    free_slots += free_slots < n ? evict(table, n - free_slots + EVICT_AHEAD) : 0;
    for (int i = 0; i < CLEAN_NOW_TRIES && free_slots < n && must; i++) {
        if (table->n_dirty <= store->n_rows / 2 || !may_write(shard))
            break;
        int status = clean_now(shard);
        if (status)
            return status;
        free_slots = emb_store_room(store); /* tombstones that were written have gone */
        free_slots += free_slots < n ? evict(table, n - free_slots + EVICT_AHEAD) : 0;
    }
    if (free_slots >= n)
        return CLU_OK;
    if (!must)
        return CLU_E_NO_MEMORY;
    int status = emb_store_reserve(store, n);
    return status ? clu_fail(status, "table %s: no memory for %zu more rows", table->spec.name, n)
                  : CLU_OK;
}

/* Takes a row away that no longer exists; a tombstone stays where a layer may hold an older
 * version. */
int emb_bury(struct emb_shard *shard, struct emb_table *table, uint32_t slot)
{
    uint8_t *flags = emb_store_flags(&table->store, slot);
    if (*flags & EMB_SLOT_SEALING) {
        int status = emb_flush_shelve(shard, table, slot);
        if (status)
            return status;
    }
    table->n_rows--;
    if (*flags & EMB_SLOT_ON_DISK) {
        char *value = emb_slot_value(table, slot);
        emb_value_set_u32(value, EMB_VALUE_COUNT, 0); /* (I6) */
        emb_value_set_burial(value, shard->durable_lsn);
        if (!(*flags & EMB_SLOT_DIRTY))
            table->n_dirty++;
        *flags |= EMB_SLOT_TOMBSTONE | EMB_SLOT_DIRTY;
        *flags &= (uint8_t)~EMB_SLOT_HEAT;
        table->n_tombstones++;
        return CLU_OK;
    }
    if (*flags & EMB_SLOT_DIRTY)
        table->n_dirty--;
    emb_store_remove(&table->store, slot);
    return CLU_OK;
}

/* ---- the sweep ---- */

static int sweep_memory(struct emb_shard *shard, struct emb_table *table)
{
    uint32_t n = table->store.n_slots;
    for (uint32_t i = 0; i < SWEEP_SLOTS && i < n; i++) {
        uint32_t slot = table->sweep_hand < n ? table->sweep_hand : 0;
        table->sweep_hand = slot + 1;
        uint8_t flags = *emb_store_flags(&table->store, slot);
        if (!(flags & EMB_SLOT_LIVE) || (flags & EMB_SLOT_TOMBSTONE) ||
            !emb_expired(shard, table, emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_STEP)))
            continue;
        int status = emb_bury(shard, table, slot);
        if (status)
            return status;
        table->n_expired++;
    }
    return CLU_OK;
}

struct sweep {
    struct emb_shard *shard;
    struct emb_table *table;
    uint64_t keys[SWEEP_STORED]; /* expired, in layers only */
    size_t n, seen;
    uint64_t last_key;
};

static int sweep_one(void *context, const struct emb_stored *stored)
{
    struct sweep *sweep = context;
    if (sweep->seen == SWEEP_STORED)
        return CLU_E_AGAIN;
    sweep->seen++;
    sweep->last_key = stored->key;
    if (stored->value &&
        emb_expired(sweep->shard, sweep->table, emb_value_u32(stored->value, EMB_VALUE_STEP)) &&
        emb_store_find(&sweep->table->store, stored->key) == EMB_NO_SLOT)
        sweep->keys[sweep->n++] = stored->key;
    return CLU_OK;
}

/* Rows in layers only: an expired one gets a tombstone in memory, which a flush writes. */
static int sweep_layers(struct emb_shard *shard, int t)
{
    struct emb_table *table = &shard->table[t];
    struct sweep sweep = {.shard = shard, .table = table};
    struct emb_layers_view *view;
    int order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    int status = emb_layers_view_open(shard->layers, &view);
    if (status)
        return status;
    status = emb_layers_walk(view, t, order, n_order, table->sweep_key, sweep_one, &sweep);
    emb_layers_view_close(view);
    bool more = status == CLU_E_AGAIN && sweep.last_key < UINT64_MAX;
    if (status && status != CLU_E_AGAIN)
        return status;
    table->sweep_key = more ? sweep.last_key + 1 : 0;
    status = sweep.n ? emb_room_for(shard, table, sweep.n, true) : CLU_OK;
    for (size_t i = 0; i < sweep.n && !status; i++) {
        uint32_t slot;
        if (emb_store_find(&table->store, sweep.keys[i]) != EMB_NO_SLOT)
            continue;
        status = emb_store_insert(&table->store, sweep.keys[i], &slot);
        if (status)
            break;
        memset(emb_slot_value(table, slot), 0, table->value_bytes);
        emb_value_set_burial(emb_slot_value(table, slot), shard->durable_lsn);
        *emb_store_flags(&table->store, slot) |=
            EMB_SLOT_TOMBSTONE | EMB_SLOT_DIRTY | EMB_SLOT_ON_DISK | EMB_SLOT_STORED;
        table->n_tombstones++;
        table->n_dirty++;
        table->n_rows--;
        table->n_expired++;
    }
    return status;
}

static int sweep(struct emb_shard *shard)
{
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table *table = &shard->table[t];
        if (table->spec.expire_steps == 0)
            continue;
        int status = sweep_memory(shard, table);
        if (!status && table->on_disk_only && !shard->flush.kind)
            status = sweep_layers(shard, t);
        if (status)
            return status;
    }
    return CLU_OK;
}

/* ---- the chores of a tick ---- */

/* Time for this tick's writing: at least a slice, more the faster rows become dirty, and more yet
 * when there is little else left in memory. */
static int64_t writing_us(struct emb_shard *shard)
{
    const int64_t most = 20 * SLICE_US;
    const int64_t asked = SLICE_US + (int64_t)shard->dirtied * 8;
    int64_t us = asked < most ? asked : most;
    shard->dirtied = 0;
    for (int t = 0; t < shard->n_tables; t++) {
        const struct emb_table *table = &shard->table[t];
        const uint64_t n_rows = table->store.n_rows;
        if (table->tracks_heat && table->n_dirty > FEW_DIRTY && table->n_dirty > n_rows / 8 * 7)
            return 4 * most;
        if (table->tracks_heat && table->n_dirty > n_rows / 4 * 3)
            us = most;
    }
    return us;
}

/* LMDB writes a page for a row while the rows of a flush are few beside its pages, so half of a
 * table may be dirty before they are written: twice that of a quarter halves the bytes, two thirds
 * would save another third and leave little for rows that are only read. Rows that the last flush
 * left, as they were hot, are no reason for another. */
static bool wants_cleaning(const struct emb_shard *shard)
{
    const bool over = emb_memory(shard) > row_budget(shard);
    for (int t = 0; t < shard->n_tables; t++) {
        const struct emb_table *table = &shard->table[t];
        const uint64_t n_rows = table->store.n_rows, n_dirty = table->n_dirty;
        if (table->tracks_heat && n_dirty > n_rows / 2 && (n_dirty > FEW_DIRTY || over) &&
            (n_dirty > table->n_left_dirty + n_rows / 8 || n_dirty > n_rows / 8 * 7))
            return true;
    }
    return false;
}

static int write_back(struct emb_shard *shard)
{
    struct emb_flush *flush = &shard->flush;
    int64_t budget_us = writing_us(shard);
    if (shard->job && !emb_snapshot_in_file(shard))
        return CLU_OK; /* the snapshot's own advance does the writing */
    int status = CLU_OK;
    uint64_t limit = shard->options.log_bytes ? shard->options.log_bytes : default_log_bytes;
    if (flush->kind == EMB_FLUSH_NONE && !shard->job && shard->log &&
        emb_pushlog_bytes(shard->log) > limit) {
        status = emb_pushlog_rotate(shard->log);
        if (!status)
            status = emb_flush_begin(shard, EMB_FLUSH_CHECKPOINT);
    } else if (flush->kind == EMB_FLUSH_NONE && !shard->map_full && wants_cleaning(shard)) {
        status = emb_flush_begin(shard, EMB_FLUSH_CLEAN);
    }
    if (status || flush->kind == EMB_FLUSH_NONE)
        return status;
    status = emb_flush_advance(shard, budget_us);
    if (status == CLU_E_AGAIN)
        return CLU_OK;
    if (status) {
        emb_flush_abort(shard);
        return waits_for_view(shard, status) ? CLU_OK : status;
    }
    if (flush->kind == EMB_FLUSH_CHECKPOINT)
        return emb_checkpoint_end(shard);
    emb_flush_end(shard);
    return CLU_OK;
}

/* Above the budget: the table that takes most gives rows from the end of its slab back. */
static void shrink(struct emb_shard *shard)
{
    size_t budget = row_budget(shard), memory = emb_memory(shard);
    struct emb_table *largest = &shard->table[0];
    if (memory <= budget)
        return;
    for (int t = 1; t < shard->n_tables; t++)
        if (emb_store_memory(&shard->table[t].store) > emb_store_memory(&largest->store))
            largest = &shard->table[t];
    struct emb_store *store = &largest->store;
    size_t n = (memory - budget) / store->stride + 1;
    uint32_t keep = store->n_slots > 2 * n ? store->n_slots - (uint32_t)n : store->n_slots / 2;
    for (uint32_t slot = store->n_slots; slot-- > keep;) {
        uint8_t flags = *emb_store_flags(store, slot);
        if (!(flags & EMB_SLOT_LIVE))
            continue;
        if (flags & (EMB_SLOT_DIRTY | EMB_SLOT_SEALING))
            break; /* until it is written */
        evict_slot(largest, slot, flags);
    }
    emb_store_trim(store);
    if (largest->clock_hand >= store->n_slots)
        largest->clock_hand = 0;
}

/* Pages of the map that lookups touched go back to the page cache before they are much of the
 * budget. */
void emb_trim_map(struct emb_shard *shard)
{
    uint64_t budget = shard->options.memory_bytes;
    if (budget && emb_layers_touched(shard->layers) > budget / 8)
        emb_layers_trim(shard->layers);
}

/* No step needs the merge: it keeps its pace, and where it finds no room it rests. The next
 * snapshot needs it, and waits for it at no pace. */
static int merge_on(struct emb_shard *shard)
{
    const int64_t now_us = emb_now_us();
    if (shard->job || now_us < shard->merge_after_us ||
        emb_pace_wait_us(&shard->merge_pace, now_us, (double)shard->merge_done,
                         (double)shard->merge_left) > 0)
        return CLU_OK;
    int status = emb_merge_advance(shard, false);
    if (status != CLU_E_FULL && status != CLU_E_IO && status != CLU_E_NO_MEMORY)
        return status == CLU_E_AGAIN ? CLU_OK : status;
    shard->merge_after_us = emb_now_us() + MERGE_REST_US;
    return CLU_OK;
}

int emb_housekeeping(struct emb_shard *shard)
{
    int status = merge_on(shard);
    if (!status)
        status = sweep(shard);
    if (!status)
        status = write_back(shard);
    if (status || shard->options.memory_bytes == 0)
        return status;
    bool scarce = emb_memory(shard) > row_budget(shard) / 4 * 3;
    for (int t = 0; t < shard->n_tables; t++)
        shard->table[t].tracks_heat = scarce;
    emb_trim_map(shard);
    shrink(shard);
    return CLU_OK;
}

/* Pulling and pushing rows.
 *
 * A pull finds its slots, then copies rows that are on their way; keys that are not in memory are
 * looked up in LMDB, sorted, and what is nowhere has its initial value. A push to a table that is
 * all in memory goes over it once too; else it first makes every row resident (reading or creating
 * it) and only then changes any, so that a failure leaves everything as it was. The order of keys
 * in a call never matters: each row depends on its own history alone.
 *
 * (P1) Nothing fails between the first changed row of a push and the last.
 * (P2) A pull changes no row: it may only bring rows into memory.
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"
#include "embeddings/simd.h"

#include <stdlib.h>
#include <string.h>

enum {
    FETCH_BYTES = 512, /* of an embedding; the processor's own prefetcher does the rest */
    PULL_AHEAD = 32,   /* rows on their way; both were found by trying */
    PUSH_AHEAD = 16,
};

static int grow(void *array_p, size_t n, size_t item_bytes)
{
    void **array = array_p;
    void *bigger = realloc(*array, n * item_bytes);
    if (!bigger)
        return CLU_E_NO_MEMORY;
    *array = bigger;
    return CLU_OK;
}

int emb_shard_scratch(struct emb_shard *shard, size_t n)
{
    if (n <= shard->scratch_n)
        return CLU_OK;
    n += n / 4 + 1024;
    if (grow(&shard->slots, n, sizeof(*shard->slots)) ||
        grow(&shard->missing, 2 * n, sizeof(*shard->missing)) ||
        grow(&shard->missing_keys, n, sizeof(*shard->missing_keys)))
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a batch of %zu keys", n);
    shard->scratch_n = n;
    return CLU_OK;
}

/* ---- pull ---- */

struct gather {
    const struct emb_shard *shard;
    struct emb_table *table;
    const uint64_t *keys;
    float *rows;
    struct emb_entry *missing; /* slot: position in the batch */
    size_t n_missing;
    size_t dim, row_bytes;
    bool is_narrow; /* bf16 */
    bool plain;     /* nothing expires or is buried, no heat to keep: headers need no look */
};

/* The usual sizes without a call. */
static inline void copy_row(void *to, const void *from, size_t bytes)
{
    switch (bytes) {
    case 32:
        memcpy(to, from, 32);
        break;
    case 64:
        memcpy(to, from, 64);
        break;
    case 128:
        memcpy(to, from, 128);
        break;
    case 256:
        memcpy(to, from, 256);
        break;
    default:
        memcpy(to, from, bytes);
    }
}

/* Neither buried nor expired; if so, it was used. */
static inline bool exists(const struct gather *g, uint32_t slot, const char *value)
{
    if (!emb_value_u32(value, EMB_VALUE_COUNT) ||
        emb_expired(g->shard, g->table, emb_value_u32(value, EMB_VALUE_STEP)))
        return false;
    if (g->table->tracks_heat) {
        uint8_t *flags = emb_store_flags(&g->table->store, slot);
        *flags += (*flags & EMB_SLOT_HEAT) < EMB_SLOT_HEAT;
    }
    return true;
}

static inline void gather_one(struct gather *g, size_t i, uint32_t slot)
{
    float *to = g->rows + i * g->dim;
    if (slot != EMB_NO_SLOT) {
        const char *value = emb_store_row(&g->table->store, slot) + 8;
        if (g->plain || exists(g, slot, value)) {
            if (g->is_narrow)
                emb_bf16_widen((const uint16_t *)(const void *)(value + EMB_VALUE_EMBEDDING),
                               (int)g->dim, to);
            else
                copy_row(to, value + EMB_VALUE_EMBEDDING, g->row_bytes);
            return;
        }
        clu_row_init(g->table->spec.seed, g->table->hash, g->keys[i], g->table->init_range,
                     (int)g->dim, to);
        return;
    }
    g->missing[g->n_missing++] = (struct emb_entry){.key = g->keys[i], .slot = (uint32_t)i};
}

/* With the rows on their way; a copy for each level, as wide registers copy faster. */
EMB_CLONES
static void gather_all(struct gather *g, const uint32_t *slots, size_t n, struct emb_fetch ahead)
{
    const struct emb_store *store = &g->table->store;
    for (size_t i = 0; i < n && i < PULL_AHEAD; i++)
        if (slots[i] != EMB_NO_SLOT)
            emb_store_fetch(store, slots[i], ahead);
    for (size_t i = 0; i < n; i++) {
        if (i + PULL_AHEAD < n && slots[i + PULL_AHEAD] != EMB_NO_SLOT)
            emb_store_fetch(store, slots[i + PULL_AHEAD], ahead);
        gather_one(g, i, slots[i]);
    }
}

/* A row from the layers: into the batch at every position that asks for its key, and into memory.
 * */
struct promote {
    struct emb_shard *shard;
    struct emb_table *table;
    const struct emb_entry *missing; /* sorted by key */
    size_t n_missing, at;
    float *rows; /* NULL: only into memory */
    size_t n_room;
};

/* Puts a stored row into a free slot; false when there is none. */
static bool keep_in_memory(struct promote *p, const struct emb_stored *stored)
{
    struct emb_store *store = &p->table->store;
    uint32_t slot;
    if (p->n_room == 0 || emb_store_insert(store, stored->key, &slot) != CLU_OK)
        return false;
    p->n_room--;
    memcpy(emb_store_row(store, slot) + 8, stored->value, p->table->value_bytes);
    *emb_store_flags(store, slot) |= EMB_SLOT_ON_DISK | EMB_SLOT_STORED;
    if (p->shard->leave)
        emb_leave_add(p->shard, (int)(p->table - p->shard->table), stored->key);
    return true;
}

/* Replaying the log: remembers that a stored row already includes groups up to stored->lsn. */
static int note_ahead(struct emb_shard *shard, const struct emb_table *table,
                      const struct emb_stored *stored)
{
    struct emb_store *ahead = &shard->ahead[table - shard->table];
    uint32_t slot = emb_store_find(ahead, stored->key);
    int status = slot == EMB_NO_SLOT ? emb_store_insert(ahead, stored->key, &slot) : CLU_OK;
    if (!status)
        memcpy(emb_store_row(ahead, slot) + 8, &stored->lsn, 8);
    return status;
}

static int promote_one(void *context, size_t i, const struct emb_stored *stored)
{
    struct promote *p = context;
    const struct emb_table *table = p->table;
    const size_t dim = (size_t)table->spec.dim;
    (void)i;
    if (p->shard->replay_lsn && stored->lsn >= p->shard->replay_lsn) {
        int status = note_ahead(p->shard, table, stored);
        if (status)
            return status;
    }
    while (p->at < p->n_missing && p->missing[p->at].key < stored->key)
        p->at++;
    if (!stored->value)
        return CLU_OK; /* a tombstone: nowhere, as far as pulls are concerned */
    bool expired = emb_expired(p->shard, table, emb_value_u32(stored->value, EMB_VALUE_STEP));
    const char *embedding = (const char *)stored->value + EMB_VALUE_EMBEDDING;
    for (size_t j = p->at; p->rows && j < p->n_missing && p->missing[j].key == stored->key; j++) {
        float *to = p->rows + p->missing[j].slot * dim;
        if (expired)
            continue;
        if (table->spec.dtype == EMB_BF16) {
            uint16_t narrow[EMB_MAX_DIM]; /* LMDB promises no more than 2-byte alignment */
            memcpy(narrow, embedding, 2 * dim);
            emb_bf16_widen(narrow, (int)dim, to);
        } else {
            memcpy(to, embedding, 4 * dim);
        }
    }
    keep_in_memory(p, stored);
    return CLU_OK;
}

/* Looks the first n of shard->missing up in the layers and brings what is found into memory, as far
 * as there is room; n_must: fail rather than leave one out. Sorts the entries and drops repeated
 * keys. */
static int fetch(struct emb_shard *shard, int t, size_t n, float *rows, bool must)
{
    struct emb_table *table = &shard->table[t];
    emb_sort_entries(shard->missing, shard->missing + n, n);
    size_t n_keys = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || shard->missing[i].key != shard->missing[i - 1].key)
            shard->missing_keys[n_keys++] = shard->missing[i].key;
    int status = emb_room_for(shard, table, n_keys, must);
    if (status && must)
        return status;
    struct promote promote = {.shard = shard,
                              .table = table,
                              .missing = shard->missing,
                              .n_missing = n,
                              .rows = rows,
                              .n_room = status ? 0 : n_keys};
    int order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    table->n_missed += n_keys;
    status = emb_layers_find(shard->layers, t, order, n_order, shard->missing_keys, n_keys,
                             promote_one, &promote);
    emb_trim_map(shard);
    return status;
}

int emb_shard_pull(struct emb_shard *shard, int t, const uint64_t *keys, size_t n, float *rows_p)
{
    struct emb_table *table = &shard->table[t];
    const struct emb_table_spec *spec = &table->spec;
    int status = emb_shard_scratch(shard, n);
    if (status)
        return status;
    struct gather g = {.shard = shard,
                       .table = table,
                       .keys = keys,
                       .rows = rows_p,
                       .missing = shard->missing,
                       .dim = (size_t)spec->dim,
                       .row_bytes = 4 * (size_t)spec->dim,
                       .is_narrow = spec->dtype == EMB_BF16,
                       .plain = spec->expire_steps == 0 && table->n_tombstones == 0 &&
                                !table->tracks_heat};
    const size_t bytes =
        table->embedding_bytes < FETCH_BYTES ? table->embedding_bytes : FETCH_BYTES;
    struct emb_fetch ahead = {.from = g.plain ? EMB_ROW_HEADER : 0,
                              .to = EMB_ROW_HEADER + (uint32_t)bytes,
                              .aligned = g.plain && table->store.stride % 64 == 0,
                              .flags = table->tracks_heat};
    emb_store_locate(&table->store, keys, n, shard->slots);
    gather_all(&g, shard->slots, n, ahead);
    table->n_pulled += n;
    for (size_t i = 0; i < g.n_missing; i++)
        clu_row_init(spec->seed, table->hash, g.missing[i].key, table->init_range, spec->dim,
                     rows_p + g.missing[i].slot * g.dim);
    return g.n_missing && table->on_disk_only ? fetch(shard, t, g.n_missing, rows_p, false)
                                              : CLU_OK;
}

/* ---- push ---- */

/* Finds the slots of a batch; keys without one become the batch's missing ones. How many there are.
 */
static size_t locate(struct emb_shard *shard, const struct emb_table *table, const uint64_t *keys,
                     size_t n)
{
    size_t n_missing = 0;
    emb_store_locate(&table->store, keys, n, shard->slots);
    for (size_t i = 0; i < n; i++)
        if (shard->slots[i] == EMB_NO_SLOT)
            shard->missing[n_missing++] = (struct emb_entry){.key = keys[i], .slot = (uint32_t)i};
    return n_missing;
}

/* Gives a slot the initial value of its key, without any update. */
static void make_row(struct emb_table *table, uint32_t slot)
{
    const int dim = table->spec.dim;
    char *value = emb_slot_value(table, slot);
    uint64_t key = emb_store_key(&table->store, slot);
    memset(value, 0, table->value_bytes);
    float *embedding = (float *)(void *)(value + EMB_VALUE_EMBEDDING);
    if (table->spec.dtype == EMB_FP32) {
        clu_row_init(table->spec.seed, table->hash, key, table->init_range, dim, embedding);
    } else {
        float wide[EMB_MAX_DIM];
        clu_row_init(table->spec.seed, table->hash, key, table->init_range, dim, wide);
        emb_bf16_narrow(wide, dim, key, 0, (uint16_t *)(void *)embedding);
    }
    table->n_rows++;
    table->n_created++;
}

static inline void apply(struct emb_shard *shard, struct emb_table *table, uint32_t slot,
                         const float *grad, uint64_t step)
{
    uint8_t *flags = emb_store_flags(&table->store, slot);
    char *value = emb_slot_value(table, slot);
    uint32_t count = emb_value_u32(value, EMB_VALUE_COUNT);
    if (count && emb_expired(shard, table, emb_value_u32(value, EMB_VALUE_STEP))) {
        table->n_rows--;
        table->n_expired++;
        count = 0;
        make_row(table, slot);
    } else if (count == 0) {
        if (*flags & EMB_SLOT_TOMBSTONE) {
            *flags &= (uint8_t)~EMB_SLOT_TOMBSTONE;
            table->n_tombstones--;
        }
        make_row(table, slot);
    }
    if (count == 0 && shard->leave)
        emb_leave_add(shard, (int)(table - shard->table), emb_store_key(&table->store, slot));
    if (count < UINT32_MAX)
        count++;
    uint64_t stamp = step > shard->floor ? step : shard->floor;
    emb_value_set_u32(value, EMB_VALUE_COUNT, count);
    emb_value_set_u32(value, EMB_VALUE_STEP, (uint32_t)stamp);
    float *state = (float *)(void *)(value + EMB_VALUE_EMBEDDING + table->embedding_bytes);
    if (table->spec.dtype == EMB_FP32) {
        emb_update(&table->updater, (float *)(void *)(value + EMB_VALUE_EMBEDDING), state, grad,
                   count);
    } else {
        float wide[EMB_MAX_DIM];
        uint16_t *narrow = (uint16_t *)(void *)(value + EMB_VALUE_EMBEDDING);
        emb_bf16_widen(narrow, table->spec.dim, wide);
        emb_update(&table->updater, wide, state, grad, count);
        emb_bf16_narrow(wide, table->spec.dim, emb_store_key(&table->store, slot), count, narrow);
    }
    if (!(*flags & (EMB_SLOT_DIRTY | EMB_SLOT_SEALING))) {
        table->n_dirty++;
        shard->dirtied++;
    }
    *flags |= EMB_SLOT_DIRTY;
    if (table->tracks_heat)
        *flags += (*flags & EMB_SLOT_HEAT) < EMB_SLOT_HEAT;
}

/* True when a push may create (or create again) the row of a key that does not exist. */
static bool admit(struct emb_table *table, uint64_t key)
{
    if (!table->sketch)
        return true;
    uint32_t bucket = clu_bucket_of(table->hash, key);
    if (emb_sketch_add(table->sketch, bucket, key) < table->spec.min_count)
        return false;
    emb_sketch_remove(table->sketch, bucket, key);
    return true;
}

int emb_shard_fetch_all(struct emb_shard *shard, int t, const uint64_t *keys, size_t n)
{
    struct emb_table *table = &shard->table[t];
    int status = emb_shard_scratch(shard, n);
    if (!status)
        status = emb_room_for(shard, table, n, true);
    if (status)
        return status;
    size_t n_missing = locate(shard, table, keys, n);
    return n_missing && table->on_disk_only ? fetch(shard, t, n_missing, NULL, true) : CLU_OK;
}

/* Makes the rows of missing keys resident: from the layers, else new (admission permitting; a key
 * that is not admitted keeps EMB_NO_SLOT). Creates no row that (P1) could leave half done: a new
 * slot is a tombstone until it is applied to, and admission is counted only once nothing can fail.
 * */
static int make_resident(struct emb_shard *shard, int t, size_t n_missing)
{
    struct emb_table *table = &shard->table[t];
    int status = CLU_OK;
    if (table->on_disk_only)
        status = fetch(shard, t, n_missing, NULL, true);
    for (size_t i = 0; i < n_missing && !status; i++) {
        struct emb_entry *entry = &shard->missing[i];
        uint32_t slot = emb_store_find(&table->store, entry->key);
        if (slot == EMB_NO_SLOT) {
            status = emb_store_insert(&table->store, entry->key, &slot);
            if (status)
                break;
            memset(emb_slot_value(table, slot), 0, table->value_bytes);
            *emb_store_flags(&table->store, slot) |= EMB_SLOT_TOMBSTONE;
            table->n_tombstones++;
        }
        shard->slots[entry->slot] = slot;
    }
    return status;
}

/* Takes the rows of keys that are not admitted out of the batch again (and of memory, when new). */
static void refuse_newcomers(struct emb_shard *shard, struct emb_table *table, const uint64_t *keys,
                             size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = shard->slots[i];
        const char *value = emb_slot_value(table, slot);
        uint32_t count = emb_value_u32(value, EMB_VALUE_COUNT);
        if (count && emb_expired(shard, table, emb_value_u32(value, EMB_VALUE_STEP))) {
            if (emb_bury(shard, table, slot) != CLU_OK)
                continue; /* no memory to keep its old version: it lives on */
            slot = shard->slots[i] = emb_store_find(&table->store, keys[i]);
            count = 0;
        }
        if (count || admit(table, keys[i]))
            continue;
        shard->slots[i] = EMB_NO_SLOT;
        if (slot != EMB_NO_SLOT &&
            !(*emb_store_flags(&table->store, slot) & (EMB_SLOT_DIRTY | EMB_SLOT_ON_DISK))) {
            emb_store_remove(&table->store, slot);
            table->n_tombstones--;
        }
    }
}

static int shelve_sealing(struct emb_shard *shard, struct emb_table *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = shard->slots[i];
        if (slot == EMB_NO_SLOT || !(*emb_store_flags(&table->store, slot) & EMB_SLOT_SEALING))
            continue;
        int status = emb_flush_shelve(shard, table, slot);
        if (status)
            return status;
    }
    return CLU_OK;
}

/* Applies a batch to the rows that have slots. */
static void apply_all(struct emb_shard *shard, struct emb_table *table, size_t n,
                      const float *grads, uint64_t step)
{
    const size_t dim = (size_t)table->spec.dim, bytes = 8 + table->value_bytes;
    const uint32_t *slots = shard->slots;
    const struct emb_fetch ahead = {
        .to = bytes < 2 * FETCH_BYTES ? (uint32_t)bytes : 2 * FETCH_BYTES, .flags = true};
    for (size_t i = 0; i < n + PUSH_AHEAD; i++) {
        if (i < n && slots[i] != EMB_NO_SLOT)
            emb_store_fetch(&table->store, slots[i], ahead);
        size_t at = i - PUSH_AHEAD;
        if (i >= PUSH_AHEAD && slots[at] != EMB_NO_SLOT)
            apply(shard, table, slots[at], grads + at * dim, step);
    }
}

/* The general way: first every row resident, then every update (P1). */
static int push_in_two_passes(struct emb_shard *shard, int t, const uint64_t *keys, size_t n,
                              const float *grads, uint64_t step)
{
    struct emb_table *table = &shard->table[t];
    int status = CLU_OK;
    size_t n_missing = locate(shard, table, keys, n);
    if (n_missing)
        status = make_resident(shard, t, n_missing);
    if (!status && shard->flush.kind >= EMB_FLUSH_CHECKPOINT)
        status = shelve_sealing(shard, table, n);
    if (status)
        return status;
    if (table->sketch)
        refuse_newcomers(shard, table, keys, n);
    apply_all(shard, table, n, grads, step); /* (P1) */
    return CLU_OK;
}

/* The way of a table that is all in memory and admits at once: updates what is there, then the
 * rest is created, for which emb_room_for has made sure that nothing can be missing (P1). */
static int push_in_memory(struct emb_shard *shard, struct emb_table *table, const uint64_t *keys,
                          size_t n, const float *grads, uint64_t step)
{
    struct emb_store *store = &table->store;
    const size_t dim = (size_t)table->spec.dim, n_missing = locate(shard, table, keys, n);
    apply_all(shard, table, n, grads, step);
    for (size_t i = 0; i < n_missing; i++) {
        const struct emb_entry *entry = &shard->missing[i];
        uint32_t slot = emb_store_find(store, entry->key);
        if (slot == EMB_NO_SLOT) {
            int status = emb_store_insert(store, entry->key, &slot);
            if (status)
                return status;
            emb_value_set_u32(emb_slot_value(table, slot), EMB_VALUE_COUNT, 0);
        }
        apply(shard, table, slot, grads + entry->slot * dim, step);
    }
    return CLU_OK;
}

int emb_shard_push_rows(struct emb_shard *shard, int t, const uint64_t *keys, size_t n,
                        const float *grads, uint64_t step)
{
    struct emb_table *table = &shard->table[t];
    int status = emb_shard_scratch(shard, n);
    if (!status) /* before any slot is looked up: making room may move rows out */
        status = emb_room_for(shard, table, n, true);
    if (status)
        return status;
    bool simple =
        !table->on_disk_only && !table->sketch && shard->flush.kind < EMB_FLUSH_CHECKPOINT;
    status = simple ? push_in_memory(shard, table, keys, n, grads, step)
                    : push_in_two_passes(shard, t, keys, n, grads, step);
    table->n_pushed += status ? 0 : n;
    return status;
}

int emb_shard_push(struct emb_shard *shard, int t, const uint64_t *keys, size_t n,
                   const float *grads, uint64_t step)
{
    const struct emb_table *table = &shard->table[t];
    if (step < 1 || step > UINT32_MAX)
        return clu_fail(CLU_E_DATA, "table %s: push of step %llu, expected 1..2^32-1",
                        table->spec.name, (unsigned long long)step);
    if (!emb_all_finite(grads, n * (size_t)table->spec.dim))
        return clu_fail(CLU_E_DATA, "table %s: a gradient of step %llu is not finite",
                        table->spec.name, (unsigned long long)step);
    if (!shard->log)
        return emb_shard_push_rows(shard, t, keys, n, grads, step);
    if (!emb_pushlog_pending(shard->log)) { /* the last moment for writing rows back (I4) */
        int made = emb_room_for(shard, &shard->table[t], n, true);
        if (made)
            return made;
    }
    struct emb_pushlog_record record = {.kind = EMB_LOG_PUSH,
                                        .table = table->id,
                                        .step = step,
                                        .n = n,
                                        .keys = keys,
                                        .grads = grads};
    int status = emb_pushlog_add(shard->log, &record);
    if (status)
        return status;
    status = emb_shard_push_rows(shard, t, keys, n, grads, step);
    if (status)
        emb_pushlog_retract(shard->log);
    return status;
}

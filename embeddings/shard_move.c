/* Looking at rows one by one, putting rows that come from another shard, and dropping buckets.
 * (Buckets that leave while training goes on: shard_leave.c.)
 *
 * Finding the rows of a bucket means looking at every row of the shard, since neither memory nor
 * LMDB is ordered by bucket: first memory by slots, then the layers by keys.
 *
 * (M1) A row in memory is seen at its slot, any other in the layers, which are looked at after the
 *      last slot. Some are seen twice.
 * (M2) The keys seen are remembered, and just they are buried.
 *
 * Durability log: a row that is put, a count of admission that is set and buckets that are dropped
 * are records of the log like pushes, whole or not at all after a crash. Durability snapshot: like
 * everything since the last snapshot they are forgotten, and the caller's restore decides anew who
 * owns what.
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    BURY_ROWS = 4096, /* rows that are buried at once */
};

/* ---- rows one by one ---- */

struct view_row { /* turns stored values into struct emb_row */
    struct emb_shard *shard;
    int table;
    struct emb_row row;
    float embedding[EMB_MAX_DIM], state[2 * EMB_MAX_DIM];
    bool found;
    bool (*keep)(uint32_t bucket, void *arg);
    int (*visit)(const struct emb_row *row, void *arg);
    void *arg;
};

static void fill_row(struct view_row *v, uint64_t key, const char *value)
{
    const struct emb_table *table = &v->shard->table[v->table];
    const struct emb_table_spec *spec = &table->spec;
    const size_t dim = (size_t)spec->dim;
    v->row = (struct emb_row){
        .table = v->table,
        .key = key,
        .embedding = v->embedding,
        .state = v->state,
        .dim = spec->dim,
        .n_state = emb_optimizer_n_state(spec->optimizer, spec->dim),
        .count = emb_value_u32(value, EMB_VALUE_COUNT),
        .last_step = emb_value_u32(value, EMB_VALUE_STEP),
    };
    if (spec->dtype == EMB_BF16) {
        uint16_t narrow[EMB_MAX_DIM];
        memcpy(narrow, value + EMB_VALUE_EMBEDDING, 2 * dim);
        emb_bf16_widen(narrow, spec->dim, v->embedding);
    } else {
        memcpy(v->embedding, value + EMB_VALUE_EMBEDDING, 4 * dim);
    }
    memcpy(v->state, value + EMB_VALUE_EMBEDDING + table->embedding_bytes,
           4 * (size_t)v->row.n_state);
    v->found = v->row.count > 0 && !emb_expired(v->shard, table, v->row.last_step);
}

static int found_row(void *context, size_t i, const struct emb_stored *stored)
{
    (void)i;
    if (stored->value)
        fill_row(context, stored->key, stored->value);
    return CLU_OK;
}

int emb_shard_row(struct emb_shard *shard, int table, uint64_t key, struct emb_row *row_p)
{
    if (!shard->row_view && !(shard->row_view = malloc(sizeof(*shard->row_view))))
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a row");
    struct view_row *v = shard->row_view;
    v->shard = shard;
    v->table = table;
    v->found = false;
    uint32_t slot = emb_store_find(&shard->table[table].store, key);
    int status = CLU_OK, order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    if (slot != EMB_NO_SLOT)
        fill_row(v, key, emb_slot_value(&shard->table[table], slot));
    else if (shard->table[table].on_disk_only)
        status = emb_layers_find(shard->layers, table, order, n_order, &key, 1, found_row, v);
    if (status)
        return status;
    if (!v->found)
        return CLU_E_NOT_FOUND;
    *row_p = v->row;
    return CLU_OK;
}

static bool kept(const struct view_row *v, uint64_t key)
{
    return !v->keep || v->keep(clu_bucket_of(v->shard->table[v->table].hash, key), v->arg);
}

static int each_stored(void *context, const struct emb_stored *stored)
{
    struct view_row *v = context;
    const struct emb_table *table = &v->shard->table[v->table];
    if (!stored->value || emb_store_find(&table->store, stored->key) != EMB_NO_SLOT ||
        !kept(v, stored->key))
        return CLU_OK;
    fill_row(v, stored->key, stored->value);
    return v->found ? v->visit(&v->row, v->arg) : CLU_OK;
}

static int each_resident(struct view_row *v)
{
    const struct emb_table *table = &v->shard->table[v->table];
    for (uint32_t slot = 0; slot < table->store.n_slots; slot++) {
        uint64_t key = emb_store_key(&table->store, slot);
        if (!(*emb_store_flags(&table->store, slot) & EMB_SLOT_LIVE) || !kept(v, key))
            continue;
        fill_row(v, key, emb_slot_value(table, slot));
        int status = v->found ? v->visit(&v->row, v->arg) : CLU_OK;
        if (status)
            return status;
    }
    return CLU_OK;
}

int emb_shard_each(struct emb_shard *shard, bool (*keep)(uint32_t bucket, void *arg),
                   int (*visit)(const struct emb_row *row, void *arg), void *arg)
{
    struct view_row *v = malloc(sizeof(*v));
    if (!v)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a row");
    v->shard = shard;
    v->keep = keep;
    v->visit = visit;
    v->arg = arg;
    int status = CLU_OK, order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    for (int t = 0; t < shard->n_tables && !status; t++) {
        v->table = t;
        status = each_resident(v);
        struct emb_layers_view *view = NULL;
        if (!status && shard->table[t].on_disk_only) {
            status = emb_layers_view_open(shard->layers, &view);
            if (!status)
                status = emb_layers_walk(view, t, order, n_order, 0, each_stored, v);
            emb_layers_view_close(view);
        }
    }
    free(v);
    return status;
}

/* ---- coming in ---- */

/* Writes a row's whole value (count, last step, embedding, state), whatever was there. */
static int put_value(struct emb_shard *shard, int t, uint64_t key, const char *from)
{
    struct emb_table *table = &shard->table[t];
    int status = emb_shard_fetch_all(shard, t, &key, 1);
    if (status)
        return status;
    uint32_t slot = emb_store_find(&table->store, key);
    if (slot == EMB_NO_SLOT) {
        status = emb_store_insert(&table->store, key, &slot);
        if (status)
            return status;
        memset(emb_slot_value(table, slot), 0, table->value_bytes);
    } else if (*emb_store_flags(&table->store, slot) & EMB_SLOT_SEALING) {
        status = emb_flush_shelve(shard, table, slot);
        if (status)
            return status;
    }
    char *value = emb_slot_value(table, slot);
    uint8_t *flags = emb_store_flags(&table->store, slot);
    if (*flags & EMB_SLOT_TOMBSTONE)
        table->n_tombstones--;
    table->n_rows += emb_value_u32(value, EMB_VALUE_COUNT) == 0;
    table->n_dirty += !(*flags & EMB_SLOT_DIRTY);
    *flags = (uint8_t)((*flags & ~EMB_SLOT_TOMBSTONE) | EMB_SLOT_DIRTY);
    memcpy(value, from, table->value_bytes);
    shard->rows_put = true;
    return CLU_OK;
}

/* Adds the record to the log, where there is one; undone by forget_record. */
static int log_record(struct emb_shard *shard, const struct emb_pushlog_record *record)
{
    return shard->log ? emb_pushlog_add(shard->log, record) : CLU_OK;
}

static void forget_record(struct emb_shard *shard)
{
    if (shard->log)
        emb_pushlog_retract(shard->log);
}

int emb_shard_put(struct emb_shard *shard, const struct emb_row *row)
{
    if (row->table < 0 || row->table >= shard->n_tables)
        return clu_fail(CLU_E_DATA, "a row of table %d, of %d", row->table, shard->n_tables);
    const struct emb_table *table = &shard->table[row->table];
    const struct emb_table_spec *spec = &table->spec;
    if (row->dim != spec->dim || row->is_tombstone || row->count == 0 ||
        row->n_state != emb_optimizer_n_state(spec->optimizer, spec->dim))
        return clu_fail(CLU_E_DATA, "table %s: a row that does not fit", spec->name);
    char value[EMB_VALUE_EMBEDDING + 12 * EMB_MAX_DIM] __attribute__((aligned(8))) = {0};
    emb_value_set_u32(value, EMB_VALUE_COUNT, row->count);
    emb_value_set_u32(value, EMB_VALUE_STEP, row->last_step);
    if (spec->dtype == EMB_BF16) { /* what was widened narrows to itself: the low half is zero */
        uint16_t *narrow = (uint16_t *)(void *)(value + EMB_VALUE_EMBEDDING);
        emb_bf16_narrow(row->embedding, spec->dim, row->key, row->count, narrow);
    } else {
        memcpy(value + EMB_VALUE_EMBEDDING, row->embedding, 4 * (size_t)spec->dim);
    }
    memcpy(value + EMB_VALUE_EMBEDDING + table->embedding_bytes, row->state,
           4 * (size_t)row->n_state);
    struct emb_pushlog_record record = {.kind = EMB_LOG_ROWS,
                                        .table = table->id,
                                        .value_bytes = table->value_bytes,
                                        .n = 1,
                                        .keys = &row->key,
                                        .values = value};
    int status = log_record(shard, &record);
    if (status)
        return status;
    status = put_value(shard, row->table, row->key, value);
    if (status)
        forget_record(shard);
    return status;
}

int emb_shard_put_waiting(struct emb_shard *shard, int t, uint64_t key, uint32_t count)
{
    if (t < 0 || t >= shard->n_tables)
        return clu_fail(CLU_E_DATA, "a waiting key of table %d, of %d", t, shard->n_tables);
    const struct emb_table *table = &shard->table[t];
    struct emb_pushlog_record record = {
        .kind = EMB_LOG_WAITING, .table = table->id, .n = 1, .keys = &key, .values = &count};
    if (!table->sketch)
        return CLU_OK; /* admits at once: there is nothing to count */
    int status = log_record(shard, &record);
    if (!status)
        emb_sketch_set(table->sketch, clu_bucket_of(table->hash, key), key, count);
    return status;
}

/* ---- dropping buckets ---- */

struct listed {
    uint64_t *keys;
    size_t n, capacity;
};

struct drop {
    struct emb_shard *shard;
    uint64_t buckets[CLU_N_BUCKETS / 64]; /* a bit each */
    uint64_t from_lsn; /* replaying: rows that include this group are not of the past; else 0 */
    struct listed listed[EMB_MAX_TABLES];
    int table; /* being looked at */
};

static bool has_bucket(const struct drop *drop, uint64_t key)
{
    uint32_t bucket = clu_bucket_of(drop->shard->table[drop->table].hash, key);
    return drop->buckets[bucket / 64] >> bucket % 64 & 1;
}

/* (M2) */
static int list_key(struct drop *drop, uint64_t key)
{
    struct listed *list = &drop->listed[drop->table];
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        uint64_t *keys = realloc(list->keys, capacity * sizeof(*keys));
        if (!keys)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to list rows that are dropped");
        list->keys = keys;
        list->capacity = capacity;
    }
    list->keys[list->n++] = key;
    return CLU_OK;
}

static int look_at_slots(struct drop *drop)
{
    const struct emb_table *table = &drop->shard->table[drop->table];
    const struct emb_store *store = &table->store;
    int status = CLU_OK;
    for (uint32_t slot = 0; slot < store->n_slots && !status; slot++) {
        if (slot + 8 < store->n_slots)
            __builtin_prefetch(emb_store_row(store, slot + 8));
        uint64_t key = emb_store_key(store, slot);
        if (!(*emb_store_flags(store, slot) & EMB_SLOT_LIVE) || !has_bucket(drop, key) ||
            emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_COUNT) == 0 ||
            (drop->from_lsn && emb_replayed(drop->shard, drop->table, key, drop->from_lsn)))
            continue;
        status = list_key(drop, key);
    }
    return status;
}

static int look_at_stored(void *context, const struct emb_stored *stored)
{
    struct drop *drop = context;
    const struct emb_table *table = &drop->shard->table[drop->table];
    if (!has_bucket(drop, stored->key) || (drop->from_lsn && stored->lsn >= drop->from_lsn))
        return CLU_OK;
    uint32_t slot = emb_store_find(&table->store, stored->key); /* newer, where it is (I1) */
    const char *value = slot == EMB_NO_SLOT ? stored->value : emb_slot_value(table, slot);
    if (!value || emb_value_u32(value, EMB_VALUE_COUNT) == 0)
        return CLU_OK;
    return list_key(drop, stored->key);
}

static int look_at_layers(struct drop *drop)
{
    struct emb_shard *shard = drop->shard;
    struct emb_layers_view *view = NULL;
    int order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    if (!shard->table[drop->table].on_disk_only)
        return CLU_OK;
    int status = emb_layers_view_open(shard->layers, &view);
    if (!status)
        status = emb_layers_walk(view, drop->table, order, n_order, 0, look_at_stored, drop);
    emb_layers_view_close(view);
    emb_trim_map(shard);
    return status;
}

/* Lists every row of the buckets. */
static int look_at_all(struct drop *drop)
{
    int status = CLU_OK;
    for (drop->table = 0; drop->table < drop->shard->n_tables && !status; drop->table++) {
        status = look_at_slots(drop);
        if (!status)
            status = look_at_layers(drop);
    }
    return status;
}

static int bury_listed(struct emb_shard *shard, int t, const struct listed *list)
{
    struct emb_table *table = &shard->table[t];
    for (size_t at = 0; at < list->n; at += BURY_ROWS) {
        size_t n = list->n - at < BURY_ROWS ? list->n - at : BURY_ROWS;
        int status = emb_shard_fetch_all(shard, t, list->keys + at, n);
        for (size_t i = at; i < at + n && !status; i++) {
            uint32_t slot = emb_store_find(&table->store, list->keys[i]);
            if (slot != EMB_NO_SLOT &&
                emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_COUNT) != 0)
                status = emb_bury(shard, table, slot);
        }
        if (status)
            return status;
    }
    return CLU_OK;
}

static int bury_all(struct drop *drop)
{
    struct emb_shard *shard = drop->shard;
    int status = CLU_OK;
    for (int t = 0; t < shard->n_tables && !status; t++)
        status = bury_listed(shard, t, &drop->listed[t]);
    for (int t = 0; t < shard->n_tables && !status; t++)
        for (uint32_t b = 0; shard->table[t].sketch && b < CLU_N_BUCKETS; b++)
            if (drop->buckets[b / 64] >> b % 64 & 1)
                emb_sketch_drop(shard->table[t].sketch, b);
    shard->rows_put = true;
    return status;
}

static void drop_free(struct drop *drop)
{
    for (int t = 0; t < EMB_MAX_TABLES; t++)
        free(drop->listed[t].keys);
    free(drop);
}

int emb_shard_drop(struct emb_shard *shard, bool (*wanted)(uint32_t bucket, void *arg), void *arg)
{
    struct drop *drop = calloc(1, sizeof(*drop));
    if (!drop)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to drop rows");
    drop->shard = shard;
    for (uint32_t b = 0; b < CLU_N_BUCKETS; b++)
        if (wanted(b, arg))
            drop->buckets[b / 64] |= (uint64_t)1 << b % 64;
    struct emb_pushlog_record record = {
        .kind = EMB_LOG_DROP, .n = CLU_N_BUCKETS / 64, .keys = drop->buckets};
    int status = look_at_all(drop);
    if (!status)
        status = log_record(shard, &record);
    if (!status) {
        status = bury_all(drop);
        if (status)
            forget_record(shard);
    }
    drop_free(drop);
    return status;
}

/* ---- replay ---- */

static int replay_rows(struct emb_shard *shard, uint64_t lsn,
                       const struct emb_pushlog_record *record)
{
    const struct emb_table *table = &shard->table[record->table];
    if (record->value_bytes != table->value_bytes)
        return clu_fail(CLU_E_CORRUPT, "%s: the push log has rows of %zu bytes, expected %zu",
                        shard->dir, record->value_bytes, table->value_bytes);
    int status = emb_shard_fetch_all(shard, record->table, record->keys, record->n);
    for (size_t i = 0; i < record->n && !status; i++)
        if (!emb_replayed(shard, record->table, record->keys[i], lsn))
            status = put_value(shard, record->table, record->keys[i],
                               (const char *)record->values + i * record->value_bytes);
    return status;
}

int emb_replay_moved(struct emb_shard *shard, uint64_t lsn, const struct emb_pushlog_record *record)
{
    const struct emb_table *table = &shard->table[record->table];
    if (record->kind == EMB_LOG_ROWS)
        return replay_rows(shard, lsn, record);
    if (record->kind == EMB_LOG_WAITING) {
        for (size_t i = 0; i < record->n && table->sketch; i++)
            emb_sketch_set(table->sketch, clu_bucket_of(table->hash, record->keys[i]),
                           record->keys[i], emb_value_u32(record->values, 4 * i));
        return CLU_OK;
    }
    struct drop *drop = calloc(1, sizeof(*drop));
    if (!drop)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to drop rows");
    drop->shard = shard;
    memcpy(drop->buckets, record->keys, sizeof(drop->buckets));
    drop->from_lsn = lsn;
    int status = look_at_all(drop);
    if (!status)
        status = bury_all(drop);
    drop_free(drop);
    return status;
}

/* Filling a shard from snapshot files, and walking, moving and dropping rows.
 *
 * Files are merged by table and ascending key (snapshot_merge.h), so rows reach LMDB in order.
 *
 * (W1) Until the last row is committed the roles say `loading`: whoever opens the environment after
 *      a crash in between undoes it.
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"
#include "embeddings/snapshot_file.h"
#include "embeddings/snapshot_merge.h"

#include <stdlib.h>
#include <string.h>

enum { LOAD_ROWS = 1 << 14 };

/* ---- reading ahead at open ---- */

struct warm {
    struct emb_shard *shard;
    struct emb_table *table;
};

static int warm_one(void *context, const struct emb_stored *stored)
{
    struct warm *warm = context;
    struct emb_table *table = warm->table;
    uint32_t slot;
    if (!stored->value || emb_store_find(&table->store, stored->key) != EMB_NO_SLOT)
        return CLU_OK;
    uint64_t budget = warm->shard->options.memory_bytes / 8 * 5;
    if (budget && table->store.n_slots % 1024 == 0 && emb_memory(warm->shard) > budget)
        return CLU_E_AGAIN;
    int status = emb_store_insert(&table->store, stored->key, &slot);
    if (status)
        return CLU_E_AGAIN; /* what does not fit stays where it is */
    memcpy(emb_slot_value(table, slot), stored->value, table->value_bytes);
    *emb_store_flags(&table->store, slot) |= EMB_SLOT_ON_DISK;
    return CLU_OK;
}

int emb_shard_warm(struct emb_shard *shard)
{
    struct emb_layers_view *view = NULL;
    int order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    int status = emb_layers_view_open(shard->layers, &view);
    for (int t = 0; t < shard->n_tables && !status; t++) {
        struct warm warm = {shard, &shard->table[t]};
        if (!warm.table->on_disk_only)
            continue;
        status = emb_layers_walk(view, t, order, n_order, 0, warm_one, &warm);
        if (status == CLU_OK)
            warm.table->on_disk_only = false; /* all of it is in memory now (I1) */
        else if (status == CLU_E_AGAIN)
            status = CLU_OK;
    }
    emb_layers_view_close(view);
    if (shard->options.memory_bytes)
        emb_layers_trim(shard->layers);
    return status;
}

/* ---- load ---- */

struct load {
    struct emb_shard *shard;
    struct emb_snapshot_merge *merge;
    bool (*keep)(uint32_t bucket, void *arg);
    void *arg;
    int table_of[EMB_MAX_TABLES]; /* the files' tables' places in the shard, -1: not here */
    struct emb_stored *batch;     /* [LOAD_ROWS]; values in rows */
    char *rows;                   /* [LOAD_ROWS, value_bytes] of the current table */
    size_t n_batch;
    int table;
};

static int match_tables(struct load *load, const char *path)
{
    const struct emb_shard *shard = load->shard;
    const struct emb_snapshot_info *info = emb_snapshot_merge_info(load->merge);
    for (int i = 0; i < info->n_tables; i++) {
        const struct emb_table_spec *theirs = &info->tables[i];
        int t = 0;
        while (t < shard->n_tables && strcmp(shard->table[t].spec.name, theirs->name) != 0)
            t++;
        load->table_of[i] = t < shard->n_tables ? t : -1;
        if (t == shard->n_tables) {
            clu_warn("%s: table %s is not of this job and is passed over", path, theirs->name);
            continue;
        }
        const struct emb_table_spec *ours = &shard->table[t].spec;
        if (ours->dim != theirs->dim || ours->optimizer != theirs->optimizer ||
            ours->dtype != theirs->dtype || ours->seed != theirs->seed)
            return clu_fail(CLU_E_CONFIG,
                            "%s: table %s has another dim, optimizer, dtype or seed than the job",
                            path, theirs->name);
    }
    return CLU_OK;
}

static int write_batch(struct load *load)
{
    struct emb_shard *shard = load->shard;
    int status = CLU_OK;
    if (load->n_batch)
        do {
            status = emb_layers_begin(shard->layers);
            for (size_t i = 0; i < load->n_batch && !status; i++)
                status = emb_layers_put(shard->layers, load->table, (int)shard->roles.base,
                                        &load->batch[i]);
            if (!status)
                status = emb_layers_commit(shard->layers);
        } while (status == CLU_E_AGAIN);
    load->n_batch = 0;
    return status;
}

/* The values of a batch are those of one table. */
static int begin_batch(struct load *load, int table)
{
    int status = write_batch(load);
    if (status || (load->table == table && load->rows))
        return status;
    free(load->rows);
    load->rows = malloc(LOAD_ROWS * load->shard->table[table].value_bytes);
    load->table = table;
    return load->rows ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory to load rows");
}

/* A row into the batch, a waiting key into the sketch. */
static int take(struct load *load, const struct emb_row *row, const void *from, bool is_candidate)
{
    const int t = load->table_of[row->table];
    if (t < 0)
        return CLU_OK;
    struct emb_table *table = &load->shard->table[t];
    if (is_candidate) {
        if (table->sketch)
            emb_sketch_set(table->sketch, clu_bucket_of(table->hash, row->key), row->key,
                           row->count);
        return CLU_OK;
    }
    if (load->n_batch == LOAD_ROWS || load->table != t) {
        int status = begin_batch(load, t);
        if (status)
            return status;
    }
    char *value = load->rows + load->n_batch * table->value_bytes;
    emb_value_set_u32(value, EMB_VALUE_COUNT, row->count);
    memcpy(value + EMB_VALUE_STEP, from, table->value_bytes - 4);
    load->batch[load->n_batch++] = (struct emb_stored){.key = row->key, .value = value};
    table->n_rows++;
    return CLU_OK;
}

static int take_all(struct load *load)
{
    for (;;) {
        struct emb_row row;
        const void *value;
        bool is_candidate;
        int status = emb_snapshot_merge_entry(load->merge, &row, &value, &is_candidate);
        if (status == CLU_E_NOT_FOUND)
            return write_batch(load);
        if (!status)
            status = take(load, &row, value, is_candidate);
        if (status)
            return status;
    }
}

static int open_files(struct load *load, const char *const *paths, size_t n_paths)
{
    uint8_t buckets[EMB_BUCKET_BYTES] = {0};
    for (uint32_t b = 0; load->keep && b < CLU_N_BUCKETS; b++)
        if (load->keep(b, load->arg))
            emb_bucket_add(buckets, b);
    load->batch = malloc(LOAD_ROWS * sizeof(*load->batch));
    if (!load->batch)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to load snapshots");
    int status = emb_snapshot_merge_open(paths, n_paths, load->keep ? buckets : NULL, &load->merge);
    return status ? status : match_tables(load, n_paths ? paths[0] : "");
}

static int load_rows(struct load *load, const char *const *paths, size_t n_paths)
{
    struct emb_shard *shard = load->shard;
    struct emb_roles roles = shard->roles;
    int status = open_files(load, paths, n_paths);
    if (status)
        return status;
    roles.loading = 1; /* (W1) */
    status = emb_layers_reset(shard, NULL, 0, &roles, NULL);
    if (!status)
        status = take_all(load);
    if (status)
        return status;
    const uint64_t step = emb_snapshot_merge_info(load->merge)->step;
    shard->clock = step;
    shard->floor = step + 1;
    struct emb_info info;
    status = emb_info_capture(shard, &info);
    if (status)
        return status;
    roles.loading = 0;
    roles.base_step = step;
    do {
        status = emb_layers_begin(shard->layers);
        if (!status)
            status = emb_roles_put(shard, &roles);
        if (!status)
            status = emb_info_put(shard, "info.base", &info);
        if (!status)
            status = emb_info_put(shard, "info.current", &info);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    emb_info_fini(&info);
    if (!status)
        shard->roles = roles;
    return status;
}

int emb_shard_load(struct emb_shard *shard, const char *const *paths, size_t n_paths,
                   bool (*keep)(uint32_t bucket, void *arg), void *arg)
{
    bool empty = shard->clock == 0 && !shard->job;
    for (int t = 0; t < shard->n_tables; t++)
        empty &= shard->table[t].store.n_rows == 0 && !shard->table[t].on_disk_only;
    if (!empty)
        return clu_fail(CLU_E_EXISTS, "%s: the shard holds rows already; reset it first",
                        shard->dir);
    struct load load = {.shard = shard, .keep = keep, .arg = arg, .table = -1};
    int status = load_rows(&load, paths, n_paths);
    emb_snapshot_merge_close(load.merge);
    free(load.batch);
    free(load.rows);
    if (status) { /* as it was: empty */
        int undone = emb_shard_reset(shard);
        return undone ? undone : status;
    }
    for (int t = 0; t < shard->n_tables; t++)
        shard->table[t].on_disk_only = true;
    return shard->options.cold ? CLU_OK : emb_shard_warm(shard);
}

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

int emb_shard_put(struct emb_shard *shard, const struct emb_row *row)
{
    if (row->table < 0 || row->table >= shard->n_tables)
        return clu_fail(CLU_E_DATA, "a row of table %d, of %d", row->table, shard->n_tables);
    struct emb_table *table = &shard->table[row->table];
    const struct emb_table_spec *spec = &table->spec;
    if (row->dim != spec->dim || row->is_tombstone || row->count == 0 ||
        row->n_state != emb_optimizer_n_state(spec->optimizer, spec->dim))
        return clu_fail(CLU_E_DATA, "table %s: a row that does not fit", spec->name);
    int status = emb_shard_fetch_all(shard, row->table, &row->key, 1);
    if (status)
        return status;
    uint32_t slot = emb_store_find(&table->store, row->key);
    if (slot == EMB_NO_SLOT) {
        status = emb_store_insert(&table->store, row->key, &slot);
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
    shard->rows_put = true;
    return CLU_OK;
}

struct doomed {
    struct emb_shard *shard;
    bool (*drop)(uint32_t bucket, void *arg);
    void *arg;
    uint64_t *keys;
    int *tables;
    size_t n, capacity;
};

static int doom(const struct emb_row *row, void *arg)
{
    struct doomed *d = arg;
    if (!d->drop(clu_bucket_of(d->shard->table[row->table].hash, row->key), d->arg))
        return CLU_OK;
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 1024;
        uint64_t *keys = realloc(d->keys, capacity * sizeof(*keys));
        if (keys)
            d->keys = keys;
        int *tables = keys ? realloc(d->tables, capacity * sizeof(*tables)) : NULL;
        if (!tables)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to drop rows");
        d->tables = tables;
        d->capacity = capacity;
    }
    d->keys[d->n] = row->key;
    d->tables[d->n++] = row->table;
    return CLU_OK;
}

int emb_shard_drop(struct emb_shard *shard, bool (*drop)(uint32_t bucket, void *arg), void *arg)
{
    struct doomed d = {.shard = shard, .drop = drop, .arg = arg};
    int status = emb_shard_each(shard, NULL, doom, &d);
    for (size_t i = 0; i < d.n && !status; i++) {
        struct emb_table *table = &shard->table[d.tables[i]];
        status = emb_shard_fetch_all(shard, d.tables[i], &d.keys[i], 1);
        uint32_t slot = status ? EMB_NO_SLOT : emb_store_find(&table->store, d.keys[i]);
        if (slot != EMB_NO_SLOT)
            status = emb_bury(shard, table, slot);
    }
    for (int t = 0; t < shard->n_tables && !status; t++)
        for (uint32_t b = 0; shard->table[t].sketch && b < CLU_N_BUCKETS; b++)
            if (drop(b, arg))
                emb_sketch_drop(shard->table[t].sketch, b);
    free(d.keys);
    free(d.tables);
    shard->rows_put = true;
    return status;
}

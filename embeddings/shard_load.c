/* Filling a shard: from its own layers after an open, from snapshot files.
 *
 * Reading ahead after the open is what lets a server that died serve at once: for a while its
 * pulls look many rows up in LMDB, as those of a table beyond memory do, and between them a walk
 * over the layers brings in the rest, a piece at a time. A piece is what a pull of the same keys
 * would be, so it needs no invariant of its own. A table is known to be all in memory (I1) when as
 * many rows are there as exist, whatever went on since the walk began.
 *
 * Files are merged by table and ascending key (snapshot_merge.h), so rows are appended to an empty
 * layer: pages are filled once, in order, and synced once at the end. A thread that writes one
 * batch while the next is read has been tried: no faster, as both wait for memory.
 *
 * (W1) Until the last row is committed, and synced, the roles say `loading`: whoever opens the
 *      environment after a crash in between undoes it.
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"
#include "embeddings/snapshot_file.h"
#include "embeddings/snapshot_merge.h"

#include <stdlib.h>
#include <string.h>

enum { LOAD_ROWS = 1 << 14, WARM_ROWS = 1024 };

/* ---- rows into memory ---- */

/* Room for n more rows that need not be in memory: OK, AGAIN when they would take more than five
 * eighths of the budget, or more than there is. */
static int room_to_warm(struct emb_shard *shard, struct emb_table *table, size_t n)
{
    uint64_t budget = shard->options.memory_bytes / 8 * 5;
    if (budget && emb_memory(shard) + n * table->store.stride > budget)
        return CLU_E_AGAIN;
    emb_store_ahead(&table->store);
    return emb_store_reserve(&table->store, n) == CLU_OK ? CLU_OK : CLU_E_AGAIN;
}

/* A row that a layer holds, and that is not in memory. */
static int keep_warm(struct emb_table *table, uint64_t key, const void *value)
{
    uint32_t slot;
    int status = emb_store_insert(&table->store, key, &slot);
    if (status)
        return CLU_E_AGAIN; /* what does not fit stays where it is */
    memcpy(emb_slot_value(table, slot), value, table->value_bytes);
    *emb_store_flags(&table->store, slot) |= EMB_SLOT_ON_DISK | EMB_SLOT_STORED;
    return CLU_OK;
}

/* ---- reading ahead ---- */

struct warm {
    struct emb_shard *shard;
    struct emb_table *table;
    size_t n_room; /* rows for which room_to_warm has said yes */
    size_t n_left; /* rows to look at before it is somebody else's turn */
    bool full;
};

static int warm_one(void *context, const struct emb_stored *stored)
{
    struct warm *warm = context;
    struct emb_table *table = warm->table;
    if (warm->n_left == 0)
        return CLU_E_AGAIN;
    warm->n_left--;
    warm->shard->warm_key = stored->key < UINT64_MAX ? stored->key + 1 : stored->key;
    if (!stored->value || emb_store_find(&table->store, stored->key) != EMB_NO_SLOT)
        return CLU_OK;
    if (warm->n_room == 0) {
        warm->full = room_to_warm(warm->shard, table, WARM_ROWS) != CLU_OK;
        if (warm->full)
            return CLU_E_AGAIN;
        warm->n_room = WARM_ROWS;
    }
    warm->n_room--;
    warm->full = keep_warm(table, stored->key, stored->value) != CLU_OK;
    if (!warm->full && warm->shard->leave)
        emb_leave_add(warm->shard, (int)(table - warm->shard->table), stored->key);
    return warm->full ? CLU_E_AGAIN : CLU_OK;
}

void emb_warm_stop(struct emb_shard *shard)
{
    shard->warm_table = shard->n_tables;
    shard->warm_key = 0;
    for (int t = 0; t < shard->n_tables; t++) {
        free(shard->gone[t].keys);
        shard->gone[t] = (struct emb_gone){0};
    }
}

void emb_warm_again(struct emb_shard *shard, struct emb_gone *gone)
{
    emb_warm_stop(shard);
    shard->warm_table = 0;
    for (int t = 0; t < shard->n_tables && gone; t++)
        if (gone[t].all) {
            shard->gone[t] = gone[t];
            gone[t] = (struct emb_gone){0};
        }
}

static bool is_all_in_memory(const struct emb_table *table)
{
    return table->store.n_rows - table->n_tombstones == table->n_rows;
}

/* AGAIN: more of them are left. */
static int fetch_gone(struct emb_shard *shard, int t)
{
    struct emb_gone *gone = &shard->gone[t];
    size_t n = gone->n < WARM_ROWS ? gone->n : WARM_ROWS;
    int status = n ? emb_shard_fetch_all(shard, t, gone->keys + gone->n - n, n) : CLU_OK;
    if (status)
        return status;
    gone->n -= n;
    if (gone->n)
        return CLU_E_AGAIN;
    free(gone->keys);
    *gone = (struct emb_gone){0};
    if (is_all_in_memory(&shard->table[t]))
        shard->table[t].on_disk_only = false;
    return CLU_OK;
}

static int warm_piece(struct emb_shard *shard)
{
    const int t = shard->warm_table;
    struct emb_table *table = &shard->table[t];
    struct warm warm = {shard, table, 0, WARM_ROWS, false};
    if (table->on_disk_only && shard->gone[t].all) {
        int status = fetch_gone(shard, t);
        if (status)
            return status;
    }
    struct emb_layers_view *view = NULL;
    int order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order), status = CLU_OK;
    if (table->on_disk_only) {
        status = emb_layers_view_open(shard->layers, &view);
        if (!status)
            status = emb_layers_walk(view, t, order, n_order, shard->warm_key, warm_one, &warm);
        emb_layers_view_close(view);
        emb_trim_map(shard);
    }
    if (status && (status != CLU_E_AGAIN || !warm.full))
        return status;
    if (is_all_in_memory(table))
        table->on_disk_only = false;
    shard->warm_table++;
    shard->warm_key = 0;
    return CLU_OK;
}

int emb_shard_warm_advance(struct emb_shard *shard, int64_t budget_us)
{
    const int64_t until = emb_now_us() + budget_us;
    while (shard->warm_table < shard->n_tables) {
        int status = warm_piece(shard);
        if (status && status != CLU_E_AGAIN)
            return status;
        if (shard->warm_table < shard->n_tables && emb_now_us() >= until)
            return CLU_E_AGAIN;
    }
    return CLU_OK;
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
    bool left[EMB_MAX_TABLES]; /* some rows of it are in the base layer only */
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

static int append_batch(const struct load *load)
{
    struct emb_shard *shard = load->shard;
    int status;
    do {
        status = emb_layers_begin(shard->layers);
        for (size_t i = 0; i < load->n_batch && !status; i++)
            status = emb_layers_append(shard->layers, load->table, (int)shard->roles.base,
                                       &load->batch[i]);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    emb_trim_map(shard);
    return status;
}

/* While there is room the rows stay in memory too: reading them again would cost as much. */
static void warm_batch(struct load *load)
{
    struct emb_shard *shard = load->shard;
    struct emb_table *table = &shard->table[load->table];
    bool *left = &load->left[load->table];
    if (!*left && room_to_warm(shard, table, load->n_batch))
        *left = true;
    for (size_t i = 0; i < load->n_batch && !*left; i++)
        *left = keep_warm(table, load->batch[i].key, load->batch[i].value) != CLU_OK;
}

static int write_batch(struct load *load)
{
    int status = load->n_batch ? append_batch(load) : CLU_OK;
    if (!status && load->n_batch)
        warm_batch(load);
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
    status = emb_layers_reset(shard, (int[]){(int)roles.base}, 1, &roles, NULL);
    if (!status)
        status = emb_layers_defer_sync(shard->layers, true);
    if (!status)
        status = take_all(load);
    if (!status)
        status = emb_layers_defer_sync(shard->layers, false);
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
            status = emb_stored_put(shard, info.n_rows);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    emb_info_fini(&info);
    if (status)
        return status;
    shard->roles = roles;
    for (int t = 0; t < shard->n_tables; t++)
        shard->table[t].n_stored = shard->table[t].n_rows;
    return CLU_OK;
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
        shard->table[t].on_disk_only = load.left[t];
    return CLU_OK;
}

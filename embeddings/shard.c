/* A shard: opening and closing, the end of a step, figures.
 *
 * The other files of the shard are named in shard_internal.h, with the invariants that all keep.
 */
#include "embeddings/shard.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const size_t unbounded_reserve = (size_t)1 << 38;

int64_t emb_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int emb_durability_by_name(const char *name, enum emb_durability *durability_p)
{
    if (strcmp(name, "snapshot") == 0)
        *durability_p = EMB_DURABILITY_SNAPSHOT;
    else if (strcmp(name, "log") == 0)
        *durability_p = EMB_DURABILITY_LOG;
    else
        return clu_fail(CLU_E_CONFIG, "unknown durability '%s', expected snapshot or log", name);
    return CLU_OK;
}

/* ---- opening ---- */

static int open_table(struct emb_shard *shard, const struct emb_table_spec *spec)
{
    for (int t = 0; t < shard->n_tables; t++)
        if (strcmp(shard->table[t].spec.name, spec->name) == 0)
            return clu_fail(CLU_E_CONFIG, "two tables are called %s", spec->name);
    struct emb_table *table = &shard->table[shard->n_tables];
    int status = emb_table_spec_check(spec);
    if (status)
        return status;
    table->spec = *spec;
    table->hash = clu_table_hash(spec->name);
    table->value_bytes = emb_value_bytes(spec);
    table->embedding_bytes = emb_embedding_bytes(spec);
    table->init_range = (float)spec->init_range;
    uint64_t budget = shard->options.memory_bytes;
    size_t reserve = budget ? (size_t)budget * 2 + (64 << 20) : unbounded_reserve;
    status = emb_updater_init(&table->updater, spec);
    if (!status)
        status = emb_store_init(&table->store, table->value_bytes, clu_mix(table->hash), reserve);
    if (!status && spec->min_count > 1)
        status = emb_sketch_create(&table->sketch);
    shard->n_tables++; /* also when it failed: closing frees what was made */
    return status;
}

static int open_layers(struct emb_shard *shard)
{
    struct emb_table_spec specs[EMB_MAX_TABLES];
    size_t row_bytes[EMB_MAX_TABLES];
    for (int t = 0; t < shard->n_tables; t++) {
        specs[t] = shard->table[t].spec;
        row_bytes[t] = shard->table[t].value_bytes;
    }
    struct emb_layers_options options = {
        .dir = shard->dir,
        .map_bytes = shard->options.map_bytes,
        .sync = shard->options.durability == EMB_DURABILITY_LOG,
        .row_bytes = row_bytes,
    };
    return emb_layers_open(&options, specs, shard->n_tables, &shard->layers);
}

int emb_shard_open(const struct emb_shard_options *options, const struct emb_table_spec *tables,
                   int n_tables, struct emb_shard **shard_p)
{
    if (n_tables < 1 || n_tables > EMB_MAX_TABLES)
        return clu_fail(CLU_E_CONFIG, "a shard has 1..%d tables, not %d", EMB_MAX_TABLES, n_tables);
    struct emb_shard *shard = calloc(1, sizeof(*shard));
    if (!shard)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a shard");
    shard->options = *options;
    shard->dir = strdup(options->dir);
    int status = shard->dir ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory for a shard");
    if (!status)
        status = emb_scribe_create(&shard->scribe);
    for (int t = 0; t < n_tables && !status; t++)
        status = open_table(shard, &tables[t]);
    if (!status)
        status = open_layers(shard);
    if (!status)
        status = emb_state_open(shard);
    emb_warm_again(shard, NULL);
    if (status) {
        emb_shard_close(shard);
        return status;
    }
    *shard_p = shard;
    return CLU_OK;
}

void emb_shard_close(struct emb_shard *shard)
{
    if (!shard)
        return;
    emb_leave_free(shard);
    emb_shard_snapshot_abort(shard);
    emb_flush_abort(shard);
    emb_scribe_free(shard->scribe);
    emb_pushlog_close(shard->log);
    emb_layers_close(shard->layers);
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table *table = &shard->table[t];
        emb_updater_fini(&table->updater);
        emb_store_fini(&table->store);
        emb_sketch_free(table->sketch);
        free(shard->flush.shelf[t].keys);
        free(shard->flush.shelf[t].values);
        free(shard->flush.shelf[t].changes);
    }
    emb_warm_stop(shard);
    free(shard->marks.items);
    free(shard->row_view);
    free(shard->slots);
    free(shard->missing);
    free(shard->missing_keys);
    free(shard->dir);
    free(shard);
}

int emb_shard_reset(struct emb_shard *shard)
{
    emb_leave_free(shard);
    emb_shard_snapshot_abort(shard);
    emb_flush_abort(shard);
    (void)emb_merge_settle(shard);
    emb_pushlog_close(shard->log);
    shard->log = NULL;
    emb_layers_close(shard->layers);
    shard->layers = NULL;
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table *table = &shard->table[t];
        emb_store_clear(&table->store);
        for (uint32_t b = 0; table->sketch && b < CLU_N_BUCKETS; b++)
            emb_sketch_drop(table->sketch, b);
        table->on_disk_only = false;
        table->n_rows = table->n_stored = table->n_tombstones = table->n_dirty = 0;
        table->clock_hand = table->sweep_hand = 0;
        table->sweep_key = 0;
    }
    emb_warm_stop(shard);
    shard->marks.n = 0;
    shard->clock = shard->floor = shard->durable_lsn = 0;
    shard->rows_put = shard->merge_running = false;
    int status = clu_remove_tree(shard->dir);
    if (!status)
        status = open_layers(shard);
    return status ? status : emb_state_open(shard);
}

int emb_shard_n_tables(const struct emb_shard *shard)
{
    return shard->n_tables;
}

const struct emb_table_spec *emb_shard_spec(const struct emb_shard *shard, int table)
{
    return &shard->table[table].spec;
}

uint64_t emb_shard_step(const struct emb_shard *shard)
{
    return shard->clock;
}

int emb_shard_order(const struct emb_shard *shard, int *order)
{
    order[0] = (int)shard->roles.current;
    order[1] = emb_layer_spare(&shard->roles); /* sealed, or empty */
    order[2] = (int)shard->roles.base;
    return 3;
}

/* ---- the end of a step ---- */

int emb_shard_mark(struct emb_shard *shard, uint64_t incarnation, uint64_t seq)
{
    if (shard->log) {
        struct emb_pushlog_record record = {
            .kind = EMB_LOG_MARK, .incarnation = incarnation, .seq = seq};
        int status = emb_pushlog_add(shard->log, &record);
        if (status)
            return status;
    }
    int status = emb_marks_set(&shard->marks, incarnation, seq);
    if (status && shard->log)
        emb_pushlog_retract(shard->log);
    return status;
}

static void note_slice(struct emb_shard *shard, int64_t began_us)
{
    int64_t took = emb_now_us() - began_us;
    if (took > shard->longest_slice_us)
        shard->longest_slice_us = took;
}

int emb_shard_tick(struct emb_shard *shard, uint64_t step)
{
    if (step <= shard->clock)
        return CLU_OK;
    if (shard->log) { /* housekeeping waits for the commit (I4) */
        struct emb_pushlog_record record = {.kind = EMB_LOG_TICK, .step = step};
        int status = emb_pushlog_add(shard->log, &record);
        if (!status)
            shard->clock = step;
        return status;
    }
    int64_t began = emb_now_us();
    shard->clock = step;
    int status = emb_housekeeping(shard);
    note_slice(shard, began);
    return status;
}

int emb_shard_commit(struct emb_shard *shard)
{
    if (!shard->log)
        return CLU_OK; /* the state on disk is a snapshot's: nothing to do between snapshots */
    int status = emb_pushlog_commit(shard->log, &shard->durable_lsn);
    if (status)
        return status;
    int64_t began = emb_now_us();
    status = emb_housekeeping(shard);
    note_slice(shard, began);
    if (status) /* the group is durable all the same, and the housekeeping is tried again */
        clu_warn("%s: housekeeping failed: %s", shard->dir, clu_status_text(status));
    return CLU_OK;
}

/* ---- figures ---- */

void emb_shard_table_stats(struct emb_shard *shard, int t, struct emb_table_stats *stats_p)
{
    const struct emb_table *table = &shard->table[t];
    int n_state = emb_optimizer_n_state(table->spec.optimizer, table->spec.dim);
    *stats_p = (struct emb_table_stats){
        .n_rows = table->n_rows,
        .n_resident = table->store.n_rows - table->n_tombstones,
        .n_dirty = table->n_dirty,
        .row_bytes = 8 + table->embedding_bytes + 4 * (uint64_t)n_state,
        .memory_bytes = emb_store_memory(&table->store) + (table->sketch ? emb_sketch_memory() : 0),
        .n_pulled = table->n_pulled,
        .n_pushed = table->n_pushed,
        .n_created = table->n_created,
        .n_expired = table->n_expired,
        .n_evicted = table->n_evicted,
        .n_missed = table->n_missed,
    };
}

void emb_shard_stats(struct emb_shard *shard, struct emb_shard_stats *stats_p)
{
    struct emb_layers_stats layers;
    emb_layers_stats(shard->layers, &layers);
    struct emb_shard_stats stats = {
        .step = shard->clock,
        .map_bytes = layers.map_bytes,
        .file_bytes = layers.file_bytes,
        .written_bytes = layers.written_bytes,
        .pages_held = layers.pages_held,
        .snapshot_step = shard->roles.base_step,
        .longest_slice_us = shard->longest_slice_us,
    };
    if (shard->roles.merging)
        stats.snapshot_step = shard->roles.sealed_step;
    if (shard->log) {
        stats.log_bytes = emb_pushlog_bytes(shard->log);
        stats.written_bytes += emb_pushlog_written(shard->log);
    }
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table_stats table;
        emb_shard_table_stats(shard, t, &table);
        stats.n_rows += table.n_rows;
        stats.n_resident += table.n_resident;
        stats.n_dirty += table.n_dirty;
        stats.memory_bytes += table.memory_bytes;
    }
    shard->longest_slice_us = 0;
    *stats_p = stats;
}

/* Snapshots, and going back to one.
 *
 *   begin   rows that are dirty now are marked; costs a pass over flag bytes
 *   MERGE   the layer that the next steps write to must be free: finish the last confirm's merge
 *   FLUSH   marked rows, as they were at begin, go to the current layer (shard_flush.c)
 *   FOLD    what a finished but never confirmed snapshot holds and current does not, joins current
 *   SEAL    one transaction: current is now `sealed` at this step, the free layer current (I5)
 *   FILE    the scribe streams sealed over base (full) or sealed alone (delta) from a view
 *   done    the caller's job commits its snapshot and calls confirm: the merge into base begins
 *
 * From SEAL on, roll-back to this step means forgetting the current layer, and to the one before,
 * forgetting sealed too. Nothing is copied for that, and rows in memory that did not change since
 * stay.
 *
 * What is LMDB's part of all this is the scribe's (scribe.h): slices of the flush, the file, pieces
 * of the merge, each while the owner serves on. On two cores the owner's own slices cost a tenth of
 * the rate of training, by standing where a worker was to run, however little work was in them.
 *
 * Rejected: copying the table under a lock or by fork (memory doubles at the worst moment); writing
 * the file from memory with copy-on-write only (the table may be many times larger than memory).
 */
#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"
#include "embeddings/snapshot_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum job_phase { JOB_MERGE, JOB_FLUSH, JOB_FOLD, JOB_SEAL, JOB_FILE };

enum {
    COPY_ROWS = 4096,
    COPY_US_PER_ROW = 4,
    MERGE_ROWS = 1024, /* merged at one go by the scribe: who must write too waits for it */
};
static const uint64_t default_held_bytes = (uint64_t)1 << 30;

struct emb_snapshot_job {
    enum job_phase phase;
    bool is_delta;
    uint64_t step, base_step;
    char *path;
    int64_t began_us;
    int fold_table;
    uint64_t fold_key;
    /* from SEAL on, the scribe's while given */
    bool given;
    struct emb_info info;
    struct emb_layers_view *view;
    struct emb_snapshot_info header;
    int order[EMB_N_LAYERS], n_order;
    struct emb_snapshot_writer *writer;
    int table; /* being written, from key `from` on */
    uint64_t from;
    int stop, give_way; /* atomics: what the scribe is asked to do at the next row */
    struct emb_snapshot_result result;
};

/* ---- copying a slice of one layer into another ---- */

struct copied {
    size_t n, value_bytes;
    struct emb_stored *items; /* [limit] */
    char *values;             /* [limit, value_bytes] */
    size_t limit;
};

static int copy_out(void *context, const struct emb_stored *stored)
{
    struct copied *c = context;
    if (c->n == c->limit)
        return CLU_E_AGAIN;
    struct emb_stored *item = &c->items[c->n];
    *item = *stored;
    if (stored->value) {
        item->value = c->values + c->n * c->value_bytes;
        memcpy(c->values + c->n * c->value_bytes, stored->value, c->value_bytes);
    }
    c->n++;
    return CLU_OK;
}

/* merge: rows overwrite, tombstones delete. fold: only keys that `to` does not have, tombstones
 * included. */
static int copy_in(struct emb_shard *shard, int t, int to, bool merge, const struct copied *c)
{
    int status;
    do {
        status = emb_layers_begin(shard->layers);
        for (size_t i = 0; i < c->n && !status; i++) {
            if (!merge)
                status = emb_layers_put_absent(shard->layers, t, to, &c->items[i]);
            else if (c->items[i].value)
                status = emb_layers_put(shard->layers, t, to, &c->items[i]);
            else
                status = emb_layers_delete(shard->layers, t, to, c->items[i].key);
        }
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    return status;
}

/* Copies up to limit rows of table *table_p from key *key_p on and moves both; AGAIN until all are
 * through. */
static int copy_slice(struct emb_shard *shard, int from, int to, bool merge, size_t limit,
                      int *table_p, uint64_t *key_p)
{
    if (*table_p >= shard->n_tables)
        return CLU_OK;
    const struct emb_table *table = &shard->table[*table_p];
    struct copied c = {.value_bytes = table->value_bytes,
                       .limit = limit < COPY_ROWS ? limit : COPY_ROWS};
    c.items = malloc(c.limit * sizeof(*c.items));
    c.values = malloc(c.limit * table->value_bytes);
    struct emb_layers_view *view = NULL;
    int status =
        c.items && c.values ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory to merge layers");
    if (!status)
        status = emb_layers_view_open(shard->layers, &view);
    if (!status)
        status = emb_layers_walk(view, *table_p, &from, 1, *key_p, copy_out, &c);
    emb_layers_view_close(view);
    bool more = status == CLU_E_AGAIN;
    if ((!status || more) && c.n)
        status = copy_in(shard, *table_p, to, merge, &c);
    if (!status) {
        if (more && c.items[c.n - 1].key < UINT64_MAX) {
            *key_p = c.items[c.n - 1].key + 1;
        } else {
            ++*table_p;
            *key_p = 0;
        }
        status = *table_p < shard->n_tables ? CLU_E_AGAIN : CLU_OK;
    }
    free(c.items);
    free(c.values);
    return status;
}

static size_t rows_in(int64_t budget_us)
{
    if (budget_us / COPY_US_PER_ROW > COPY_ROWS)
        return COPY_ROWS;
    return budget_us > 64 * COPY_US_PER_ROW ? (size_t)(budget_us / COPY_US_PER_ROW) : 64;
}

/* ---- confirm, and the merge that follows ---- */

/* The sealed layer's state has become the base's: the roles and info.base say so. */
static int end_merge(struct emb_shard *shard, bool swap)
{
    struct emb_roles roles = shard->roles;
    struct emb_info info;
    int status = emb_info_get(shard, "info.sealed", &info);
    if (status)
        return status;
    int empty = swap ? (int)roles.base : (int)roles.sealed;
    if (swap)
        roles.base = roles.sealed;
    roles.base_step = roles.sealed_step;
    roles.sealed = EMB_N_LAYERS;
    roles.sealed_step = 0;
    roles.merging = 0;
    do {
        status = emb_layers_begin(shard->layers);
        for (int t = 0; t < shard->n_tables && !status; t++)
            status = emb_layers_clear(shard->layers, t, empty);
        if (!status)
            status = emb_roles_put(shard, &roles);
        if (!status)
            status = emb_info_put(shard, "info.base", &info);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    emb_info_fini(&info);
    if (!status) {
        shard->roles = roles;
        shard->merge_running = false;
    }
    return status;
}

static int merge_piece(void *context)
{
    struct emb_shard *shard = context;
    emb_layers_beside_begin(shard->layers);
    int status = copy_slice(shard, shard->merge_from, shard->merge_to, true, MERGE_ROWS,
                            &shard->merge_table, &shard->merge_key);
    emb_layers_beside_end(shard->layers);
    return status;
}

/* AGAIN: the piece is done, and more is to do. */
int emb_merge_settle(struct emb_shard *shard)
{
    if (!shard->merge_given)
        return CLU_E_AGAIN;
    shard->merge_given = false;
    int status = emb_scribe_take(shard->scribe);
    return status == CLU_E_FULL && emb_layers_grow(shard->layers) == CLU_OK ? CLU_E_AGAIN : status;
}

int emb_merge_advance(struct emb_shard *shard, bool wait)
{
    if (!shard->merge_running)
        return CLU_OK;
    if (shard->merge_given && !wait && emb_scribe_is_busy(shard->scribe))
        return CLU_E_AGAIN;
    int status = emb_merge_settle(shard);
    while (wait && status == CLU_E_AGAIN)
        status = copy_slice(shard, (int)shard->roles.sealed, (int)shard->roles.base, true,
                            COPY_ROWS, &shard->merge_table, &shard->merge_key);
    if (status != CLU_E_AGAIN)
        return status ? status : end_merge(shard, false);
    shard->merge_given = true;
    shard->merge_from = (int)shard->roles.sealed;
    shard->merge_to = (int)shard->roles.base;
    emb_scribe_give(shard->scribe, merge_piece, shard);
    return CLU_E_AGAIN;
}

int emb_shard_snapshot_confirm(struct emb_shard *shard, uint64_t step)
{
    const struct emb_roles *now = &shard->roles;
    bool is_sealed = now->sealed < EMB_N_LAYERS && now->sealed_step == step;
    if ((now->base_step == step && step > 0) || (is_sealed && now->merging))
        return CLU_OK;
    if (!is_sealed || (shard->job && shard->job->step == step))
        return CLU_E_NOT_FOUND;
    uint64_t n_base = 0;
    for (int t = 0; t < shard->n_tables && n_base == 0; t++) {
        int status = emb_layers_count(shard->layers, t, (int)now->base, &n_base);
        if (status)
            return status;
    }
    if (n_base == 0) /* nothing to merge into: the layers change places */
        return end_merge(shard, true);
    struct emb_roles roles = *now;
    roles.merging = 1;
    int status = emb_layers_reset(shard, NULL, 0, &roles, NULL);
    if (status)
        return status;
    shard->merge_running = true;
    shard->merge_table = 0;
    shard->merge_key = 0;
    return CLU_OK;
}

/* ---- the file, by the scribe ---- */

static int write_one(void *context, const struct emb_stored *stored)
{
    struct emb_snapshot_job *job = context;
    const struct emb_table_spec *spec = &job->header.tables[job->table];
    if (__atomic_load_n(&job->stop, __ATOMIC_RELAXED))
        return CLU_E_INTERRUPTED;
    job->from = stored->key;
    if (__atomic_load_n(&job->give_way, __ATOMIC_RELAXED))
        return CLU_E_AGAIN;
    if (!stored->value && !job->is_delta)
        return CLU_OK;
    if (stored->value && spec->expire_steps > 0 && !job->is_delta &&
        job->info.clock >
            emb_value_u32(stored->value, EMB_VALUE_STEP) + (uint64_t)spec->expire_steps)
        return CLU_OK; /* expired, only not swept yet: which shard sweeps when must not show */
    return emb_snapshot_writer_row(job->writer, job->table, stored->key, stored->value);
}

static int write_candidates(struct emb_snapshot_job *job)
{
    const struct emb_sketch *sketch = job->info.sketch[job->table];
    size_t n = sketch ? emb_sketch_count(sketch) : 0;
    if (n == 0)
        return CLU_OK;
    struct emb_candidate *candidates = malloc(n * sizeof(*candidates));
    if (!candidates)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for waiting keys", job->path);
    emb_sketch_list(sketch, candidates);
    int status = CLU_OK;
    for (size_t i = 0; i < n && !status; i++)
        status = emb_snapshot_writer_candidate(job->writer, job->table, candidates[i].key,
                                               (uint32_t)candidates[i].count);
    free(candidates);
    return status;
}

static int finish_file(struct emb_snapshot_job *job)
{
    struct emb_snapshot_written written;
    int status = emb_snapshot_writer_finish(job->writer, &written);
    job->writer = NULL;
    if (status)
        return status;
    job->result = (struct emb_snapshot_result){
        .step = job->step,
        .base_step = job->is_delta ? job->base_step : 0,
        .n_rows = written.n_rows,
        .n_tombstones = written.n_tombstones,
        .size_bytes = written.size_bytes,
        .checksum = written.checksum,
        .seconds = (double)(emb_now_us() - job->began_us) * 1e-6,
    };
    return CLU_OK;
}

/* AGAIN: it gave way; the next piece goes on. */
static int file_piece(void *context)
{
    struct emb_snapshot_job *job = context;
    int status =
        job->writer ? CLU_OK : emb_snapshot_writer_open(job->path, &job->header, &job->writer);
    while (job->table < job->header.n_tables && !status) {
        status = emb_layers_walk(job->view, job->table, job->order, job->n_order, job->from,
                                 write_one, job);
        if (!status)
            status = write_candidates(job);
        if (!status) {
            job->table++;
            job->from = 0;
        }
    }
    if (!status)
        return finish_file(job);
    if (status != CLU_E_AGAIN) {
        emb_snapshot_writer_abort(job->writer);
        job->writer = NULL;
    }
    return status;
}

/* ---- begin, advance ---- */

static void job_free(struct emb_shard *shard)
{
    struct emb_snapshot_job *job = shard->job;
    shard->job = NULL;
    emb_snapshot_writer_abort(job->writer);
    emb_layers_view_close(job->view);
    shard->map_full = false;
    emb_info_fini(&job->info);
    free(job->path);
    free(job);
}

int emb_shard_snapshot_begin(struct emb_shard *shard, enum emb_snapshot_kind kind, uint64_t step,
                             const char *path)
{
    const struct emb_roles *roles = &shard->roles;
    if (shard->job)
        return CLU_E_AGAIN;
    uint64_t base_step = roles->merging ? roles->sealed_step : roles->base_step;
    if (kind == EMB_SNAPSHOT_DELTA && base_step == 0)
        return clu_fail(CLU_E_NOT_FOUND, "%s: no confirmed snapshot to take a delta from",
                        shard->dir);
    if (clu_path_exists(path))
        return clu_fail(CLU_E_EXISTS, "%s: something stands there already", path);
    int status = shard->log ? emb_pushlog_commit(shard->log, &shard->durable_lsn) : CLU_OK;
    if (!status && shard->log)
        status = emb_pushlog_rotate(shard->log);
    if (status)
        return status;
    struct emb_snapshot_job *job = calloc(1, sizeof(*job));
    if (!job || !(job->path = strdup(path))) {
        free(job);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a snapshot");
    }
    job->is_delta = kind == EMB_SNAPSHOT_DELTA;
    job->step = step;
    job->base_step = base_step;
    job->began_us = emb_now_us();
    if (shard->flush.kind != EMB_FLUSH_NONE)
        emb_flush_abort(shard); /* its rows are dirty still, and are part of this one */
    status = emb_flush_begin(shard, EMB_FLUSH_SNAPSHOT);
    if (status) {
        free(job->path);
        free(job);
        return status;
    }
    shard->floor = shard->clock + 1;
    shard->job = job;
    return CLU_OK;
}

/* One transaction makes the current layer the sealed one (I5); then the view. */
static int seal(struct emb_shard *shard)
{
    struct emb_snapshot_job *job = shard->job;
    struct emb_roles roles = shard->roles;
    const int free_layer = emb_layer_spare(&roles);
    roles.sealed = roles.current;
    roles.sealed_step = job->step;
    roles.current = (uint32_t)free_layer;
    int status;
    do {
        status = emb_layers_begin(shard->layers);
        for (int t = 0; t < shard->n_tables && !status; t++)
            status = emb_layers_clear(shard->layers, t, free_layer);
        if (!status)
            status = emb_roles_put(shard, &roles);
        if (!status)
            status = emb_info_put(shard, "info.sealed", &shard->flush.info);
        if (!status)
            status = emb_info_put(shard, "info.current", &shard->flush.info);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    if (status)
        return status;
    shard->roles = roles;
    shard->rows_put = false;
    job->info = shard->flush.info;
    shard->flush.info = (struct emb_info){0};
    emb_flush_end(shard);
    if (shard->log)
        status = emb_pushlog_cut(shard->log, job->info.lsn);
    if (!status)
        status = emb_layers_view_open(shard->layers, &job->view);
    return status;
}

static void describe_file(struct emb_shard *shard)
{
    struct emb_snapshot_job *job = shard->job;
    job->header = (struct emb_snapshot_info){.is_delta = job->is_delta,
                                             .step = job->step,
                                             .base_step = job->is_delta ? job->base_step : 0,
                                             .n_tables = shard->n_tables};
    for (int t = 0; t < shard->n_tables; t++)
        job->header.tables[t] = shard->table[t].spec;
    job->order[0] = (int)shard->roles.sealed;
    job->order[1] = (int)shard->roles.base;
    job->n_order = job->is_delta ? 1 : 2;
}

static int fold_step(struct emb_shard *shard, int64_t budget_us)
{
    struct emb_snapshot_job *job = shard->job;
    if (shard->roles.sealed == EMB_N_LAYERS)
        return CLU_OK;
    return copy_slice(shard, (int)shard->roles.sealed, (int)shard->roles.current, false,
                      rows_in(budget_us), &job->fold_table, &job->fold_key);
}

/* One step of the job: OK when the phase is through, AGAIN when not. */
static int job_step(struct emb_shard *shard, int64_t budget_us)
{
    struct emb_snapshot_job *job = shard->job;
    int status;
    switch (job->phase) {
    case JOB_MERGE:
        status = emb_merge_advance(shard, budget_us >= INT64_MAX / 2);
        break;
    case JOB_FLUSH:
        status = emb_flush_advance(shard, budget_us);
        break;
    case JOB_FOLD:
        status = fold_step(shard, budget_us);
        break;
    default:
        status = seal(shard);
        if (!status)
            describe_file(shard);
    }
    if (!status)
        job->phase++;
    return status;
}

/* Pages that a view can see are not used again: a file that is written too slowly would let the
 * environment grow without end, so it is given up. */
static bool holds_too_much(const struct emb_shard *shard)
{
    struct emb_layers_stats stats;
    emb_layers_stats(shard->layers, &stats);
    const uint64_t bound = shard->options.held_bytes;
    uint64_t held = stats.pages_held * 4096;
    uint64_t allowed = (bound ? bound : default_held_bytes) + stats.file_bytes / 2;
    if (held <= allowed)
        return false;
    clu_warn("%s: given up: the environment grew by %llu MiB while it was written",
             shard->job->path, (unsigned long long)(held >> 20));
    return true;
}

bool emb_snapshot_in_file(const struct emb_shard *shard)
{
    return shard->job && shard->job->phase == JOB_FILE;
}

/* Works until the file is what is left. linger: what the scribe has is waited for too. */
static int work_to_file(struct emb_shard *shard, int64_t budget_us, bool linger)
{
    enum { NAP_US = 50 };
    const int64_t until = budget_us < INT64_MAX / 2 ? emb_now_us() + budget_us : INT64_MAX;
    while (shard->job->phase != JOB_FILE) {
        int status = job_step(shard, budget_us);
        if (status && status != CLU_E_AGAIN)
            return status;
        bool busy = emb_scribe_is_busy(shard->scribe);
        if (emb_now_us() >= until || (busy && !linger))
            return CLU_E_AGAIN;
        if (busy)
            usleep(NAP_US);
    }
    return CLU_OK;
}

int emb_snapshot_hurry(struct emb_shard *shard, int64_t budget_us)
{
    return work_to_file(shard, budget_us, true);
}

/* AGAIN: it is being written. */
static int file_step(struct emb_shard *shard, bool wait)
{
    struct emb_snapshot_job *job = shard->job;
    int status = CLU_E_AGAIN;
    if (job->given && !wait && emb_scribe_is_busy(shard->scribe))
        return CLU_E_AGAIN;
    __atomic_store_n(&job->give_way, wait, __ATOMIC_RELAXED);
    if (job->given)
        status = emb_scribe_take(shard->scribe);
    job->given = false;
    __atomic_store_n(&job->give_way, 0, __ATOMIC_RELAXED);
    if (status == CLU_E_AGAIN && wait)
        return file_piece(job);
    if (status == CLU_E_AGAIN) {
        emb_scribe_give(shard->scribe, file_piece, job);
        job->given = true;
    }
    return status;
}

void emb_shard_hurry(struct emb_shard *shard, bool hurry)
{
    struct emb_snapshot_job *job = shard->job;
    if (hurry && !shard->hurry && job && job->given) /* or it would end at the old pace */
        __atomic_store_n(&job->give_way, 1, __ATOMIC_RELAXED);
    shard->hurry = hurry;
    emb_scribe_hurry(shard->scribe, hurry);
}

int emb_shard_snapshot_advance(struct emb_shard *shard, int64_t budget_us,
                               struct emb_snapshot_result *result_p)
{
    struct emb_snapshot_job *job = shard->job;
    if (!job)
        return clu_fail(CLU_E_BUG, "%s: no snapshot is running", shard->dir);
    const int64_t began = emb_now_us();
    const bool wait = budget_us >= INT64_MAX / 2;
    int status = work_to_file(shard, budget_us, wait);
    if (status && status != CLU_E_AGAIN) {
        emb_shard_snapshot_abort(shard);
        return status;
    }
    emb_trim_map(shard); /* of what the file's thread reads too */
    int64_t took = emb_now_us() - began;
    if (took > shard->longest_slice_us)
        shard->longest_slice_us = took;
    if (job->phase != JOB_FILE)
        return CLU_E_AGAIN;
    status = holds_too_much(shard) ? CLU_E_FULL : file_step(shard, wait);
    if (status == CLU_E_AGAIN)
        return status;
    if (status) {
        emb_shard_snapshot_abort(shard);
        return status;
    }
    *result_p = job->result;
    job_free(shard);
    return CLU_OK;
}

void emb_shard_snapshot_abort(struct emb_shard *shard)
{
    struct emb_snapshot_job *job = shard->job;
    if (!job)
        return;
    if (job->given) {
        __atomic_store_n(&job->stop, 1, __ATOMIC_RELAXED);
        if (emb_scribe_take(shard->scribe) == CLU_OK) /* finished meanwhile, unasked for */
            (void)unlink(job->path);
    }
    if (shard->flush.kind == EMB_FLUSH_SNAPSHOT)
        emb_flush_abort(shard);
    job_free(shard);
}

int emb_shard_snapshot(struct emb_shard *shard, uint64_t step, const char *path,
                       struct emb_snapshot_result *result_p)
{
    struct emb_snapshot_result result;
    int status = emb_shard_snapshot_begin(shard, EMB_SNAPSHOT_FULL, step, path);
    if (!status)
        status = emb_shard_snapshot_advance(shard, INT64_MAX, &result);
    if (!status)
        status = emb_shard_snapshot_confirm(shard, step);
    if (!status && result_p)
        *result_p = result;
    return status;
}

/* ---- going back ---- */

/* The keys of rows that left memory: where all rows were in memory before, fetching these from the
 * layers makes it so again (I1). */
struct gone {
    uint64_t *keys;
    size_t n, capacity;
    bool all; /* keys are all that is not in memory */
};

static void note_gone(struct gone *gone, uint64_t key)
{
    if (gone->all && gone->n == gone->capacity) {
        size_t capacity = gone->capacity ? 2 * gone->capacity : 1024;
        uint64_t *keys = realloc(gone->keys, capacity * sizeof(*keys));
        gone->all = keys != NULL; /* without memory they come when they are asked for */
        if (keys) {
            gone->keys = keys;
            gone->capacity = capacity;
        }
    }
    if (gone->all)
        gone->keys[gone->n++] = key;
}

/* Forgets the rows in memory that are not those of the state with this clock: what is not in a
 * layer, and what changed later. gone [n_tables], zeroed. */
static void forget_later(struct emb_shard *shard, uint64_t clock, struct gone *gone)
{
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table *table = &shard->table[t];
        gone[t].all = !table->on_disk_only;
        for (uint32_t slot = 0; slot < table->store.n_slots; slot++) {
            uint8_t flags = *emb_store_flags(&table->store, slot);
            if (!(flags & EMB_SLOT_LIVE))
                continue;
            uint32_t last_step = emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_STEP);
            bool later = (flags & (EMB_SLOT_DIRTY | EMB_SLOT_SEALING | EMB_SLOT_TOMBSTONE)) ||
                         last_step > clock;
            if (!later && !shard->rows_put)
                continue;
            note_gone(&gone[t], emb_store_key(&table->store, slot));
            emb_store_remove(&table->store, slot);
        }
        table->n_tombstones = table->n_dirty = 0;
        table->on_disk_only = true;
    }
}

/* Fetches what forget_later took, as it was before: a key that exists nowhere must not be looked
 * for on disk ever after. Costs what changed, not the table. */
static int fetch_again(struct emb_shard *shard, const struct gone *gone)
{
    enum { AT_ONCE = 4096 };
    int status = CLU_OK;
    for (int t = 0; t < shard->n_tables && !status; t++) {
        struct emb_table *table = &shard->table[t];
        for (size_t at = 0; gone[t].all && at < gone[t].n && !status; at += AT_ONCE) {
            size_t n = gone[t].n - at < AT_ONCE ? gone[t].n - at : AT_ONCE;
            status = emb_shard_fetch_all(shard, t, gone[t].keys + at, n);
        }
        /* unless some were evicted for others, or had gone while their older version was written */
        if (!status && gone[t].all && table->store.n_rows == table->n_rows)
            table->on_disk_only = false;
    }
    return status;
}

int emb_shard_rollback(struct emb_shard *shard, uint64_t step)
{
    emb_leave_free(shard);
    emb_shard_snapshot_abort(shard);
    if (shard->flush.kind != EMB_FLUSH_NONE)
        emb_flush_abort(shard);
    struct emb_roles roles = shard->roles;
    int layers[2] = {(int)roles.current, emb_layer_spare(&roles)}, n_layers = 1;
    const char *role = "info.sealed";
    if (roles.sealed == EMB_N_LAYERS || roles.sealed_step != step) {
        if (roles.base_step != step || roles.merging)
            return CLU_E_NOT_FOUND;
        role = "info.base";
        roles.sealed = EMB_N_LAYERS;
        roles.sealed_step = 0;
        n_layers = 2;
    }
    struct emb_info info = {0};
    struct gone gone[EMB_MAX_TABLES] = {0};
    int status = emb_info_get(shard, role, &info);
    if (status == CLU_E_NOT_FOUND)
        status = CLU_OK; /* the state before training */
    if (status)
        return status;
    if (shard->log)
        emb_pushlog_drop(shard->log);
    info.lsn = shard->durable_lsn; /* what the log holds is void */
    status = emb_layers_reset(shard, layers, n_layers, &roles, &info);
    if (!status)
        forget_later(shard, info.clock, gone);
    if (!status)
        status = emb_info_adopt(shard, &info);
    emb_info_fini(&info);
    if (!status && shard->log) {
        status = emb_pushlog_rotate(shard->log);
        if (!status)
            status = emb_pushlog_cut(shard->log, shard->durable_lsn);
    }
    shard->rows_put = false;
    if (!status)
        status = fetch_again(shard, gone);
    for (int t = 0; t < shard->n_tables; t++)
        free(gone[t].keys);
    return status;
}

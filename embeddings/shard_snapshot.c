/* Snapshots of a shard.
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
 * And all of it is spread over time when that is asked for (pace.h): what takes a tenth of the
 * rate of training for half a second is hardly noticed over three. Whoever waits for memory or room
 * ends the pace.
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
    COPY_US_PER_ROW = 4,
    FLUSH_COST = 10, /* of a row, in about half a microsecond: what the pace is measured by */
    FILE_COST = 1,
    PACE_ROWS = 1024, /* of the file between two looks at the clock */
    MAX_NAP_US = 10000,
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
    struct emb_pace pace;
    uint64_t flushed, in_file, written; /* rows: by the flush; of the file, and so far */
    struct emb_snapshot_result result;
};

/* ---- the file, by the scribe ---- */

static int64_t file_wait_us(const struct emb_snapshot_job *job)
{
    const double done = (double)(job->flushed * FLUSH_COST + job->written * FILE_COST);
    const uint64_t left = job->in_file > job->written ? job->in_file - job->written : 0;
    return emb_pace_wait_us(&job->pace, emb_now_us(), done, (double)(left * FILE_COST));
}

static bool asked(const struct emb_snapshot_job *job)
{
    return __atomic_load_n(&job->stop, __ATOMIC_RELAXED) ||
           __atomic_load_n(&job->give_way, __ATOMIC_RELAXED);
}

static void keep_pace(const struct emb_snapshot_job *job)
{
    int64_t wait_us;
    while (!asked(job) && (wait_us = file_wait_us(job)) > 0)
        usleep((useconds_t)(wait_us < MAX_NAP_US ? wait_us : MAX_NAP_US));
}

static int write_one(void *context, const struct emb_stored *stored)
{
    struct emb_snapshot_job *job = context;
    const struct emb_table_spec *spec = &job->header.tables[job->table];
    if (job->written++ % PACE_ROWS == 0)
        keep_pace(job);
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
    job->began_us = job->pace.began_us = emb_now_us();
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
    emb_flush_progress(shard, &job->flushed, &(uint64_t){0});
    emb_flush_end(shard);
    if (shard->log)
        status = emb_pushlog_cut(shard->log, job->info.lsn);
    if (!status)
        status = emb_layers_view_open(shard->layers, &job->view);
    return status;
}

static int describe_file(struct emb_shard *shard)
{
    struct emb_snapshot_job *job = shard->job;
    int status = CLU_OK;
    job->header = (struct emb_snapshot_info){.is_delta = job->is_delta,
                                             .step = job->step,
                                             .base_step = job->is_delta ? job->base_step : 0,
                                             .n_tables = shard->n_tables};
    for (int t = 0; t < shard->n_tables; t++)
        job->header.tables[t] = shard->table[t].spec;
    job->order[0] = (int)shard->roles.sealed;
    job->order[1] = (int)shard->roles.base;
    job->n_order = job->is_delta ? 1 : 2;
    for (int t = 0; t < shard->n_tables && !status; t++)
        for (int i = 0; i < job->n_order && !status; i++) {
            uint64_t n = 0;
            status = emb_layers_count(shard->layers, t, job->order[i], &n);
            job->in_file += n;
        }
    return status;
}

static size_t rows_in(int64_t budget_us)
{
    return budget_us > 64 * COPY_US_PER_ROW ? (size_t)(budget_us / COPY_US_PER_ROW) : 64;
}

static int fold_step(struct emb_shard *shard, int64_t budget_us)
{
    struct emb_snapshot_job *job = shard->job;
    if (shard->roles.sealed == EMB_N_LAYERS)
        return CLU_OK;
    return emb_copy_slice(shard, (int)shard->roles.sealed, (int)shard->roles.current, false,
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
            status = describe_file(shard);
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
    if (held > allowed / 2)
        emb_pace_hurry(&shard->job->pace);
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

static uint64_t n_rows(const struct emb_shard *shard)
{
    uint64_t n = 0;
    for (int t = 0; t < shard->n_tables; t++)
        n += shard->table[t].n_rows;
    return n;
}

int64_t emb_snapshot_wait_us(const struct emb_shard *shard)
{
    const struct emb_snapshot_job *job = shard->job;
    uint64_t done, left;
    emb_flush_progress(shard, &done, &left);
    const double file = (double)(job->is_delta ? done + left : n_rows(shard)) * FILE_COST;
    return emb_pace_wait_us(&job->pace, emb_now_us(), (double)(done * FLUSH_COST),
                            (double)(left * FLUSH_COST) + file);
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
        bool rests = shard->job->phase == JOB_FLUSH && emb_snapshot_wait_us(shard) > 0;
        if (emb_now_us() >= until || ((busy || rests) && !linger))
            return CLU_E_AGAIN;
        if (busy)
            usleep(NAP_US);
    }
    return CLU_OK;
}

int emb_snapshot_hurry(struct emb_shard *shard, int64_t budget_us)
{
    emb_pace_hurry(&shard->job->pace);
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

void emb_shard_spread(struct emb_shard *shard, int64_t spread_us)
{
    struct emb_snapshot_job *job = shard->job;
    if (!job)
        return;
    emb_pace_set(&job->pace, spread_us);
    shard->merge_pace.spread_us = spread_us;
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
        return emb_merge_end(shard, true);
    return emb_merge_begin(shard);
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

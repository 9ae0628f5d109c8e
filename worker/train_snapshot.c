/* A snapshot must not cost training more than a copy of the dense state (a few MB): everything that
 * waits for a disk or for a shard happens on the writer's thread.
 *
 * The copy is taken between two steps, and psv_client_snapshot names exactly that step, so rows,
 * dense weights and data position are of one moment although they are written at different times. A
 * failure of any part is reported as the failure of the whole; the scheduler then drops the folder
 * and keeps the snapshot before.
 */
#include "worker/train_snapshot.h"

#include "cluster/chain.h"
#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/priority.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "worker/train_internal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum phase { IDLE, WRITING, REPORTED };

struct wrk_snapshotter {
    struct wrk_snapshotter_options options;
    char root[CLU_PATH_BYTES], folder[CLU_PATH_BYTES];
    float *copy; /* [4, n_params]: weights, m, v, average */
    struct wrk_state state;
    uint64_t ticket;
    int saved; /* the status of the dense files */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* of what follows */
    enum phase phase;
    uint64_t step, committed_step;
    int status;
    struct clu_chain_plan plan;
    uint64_t base_step, bytes; /* of the one under way: what it is upon, and its rows */
    double began;              /* of the newest; before the first: of this object */
};

int wrk_snapshotter_create(const struct wrk_snapshotter_options *options,
                           struct wrk_snapshotter **snapshotter_p)
{
    struct wrk_snapshotter *s = calloc(1, sizeof(*s));
    if (s)
        s->copy = malloc(4 * options->n_params * sizeof(float));
    if (!s || !s->copy) {
        free(s);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for snapshots");
    }
    s->options = *options;
    s->plan.full_every = options->job->snapshot_full_every;
    s->began = wrk_train_clock();
    pthread_mutex_init(&s->lock, NULL);
    int status = clu_snapshot_root(options->job->out, s->root);
    if (status) {
        wrk_snapshotter_free(s);
        return status;
    }
    *snapshotter_p = s;
    return CLU_OK;
}

static void join(struct wrk_snapshotter *s)
{
    if (s->has_thread)
        pthread_join(s->thread, NULL);
    s->has_thread = false;
}

void wrk_snapshotter_free(struct wrk_snapshotter *s)
{
    if (!s)
        return;
    join(s);
    pthread_mutex_destroy(&s->lock);
    free(s->copy);
    free(s);
}

bool wrk_snapshotter_busy(struct wrk_snapshotter *s)
{
    pthread_mutex_lock(&s->lock);
    bool busy = s->phase != IDLE;
    pthread_mutex_unlock(&s->lock);
    return busy;
}

bool wrk_snapshotter_wants_full(struct wrk_snapshotter *s)
{
    pthread_mutex_lock(&s->lock);
    bool wants = s->phase == IDLE && (s->status == CLU_E_NOT_FOUND || s->status == CLU_E_CORRUPT) &&
                 s->base_step;
    pthread_mutex_unlock(&s->lock);
    return wants;
}

static void add_file(struct clu_report *report, const char *name, uint64_t size, uint64_t checksum)
{
    if (report->n_files == CLU_MAX_PART_FILES)
        return; /* the committer reads and sums what nobody reported */
    struct clu_manifest_file *file = &report->files[report->n_files++];
    snprintf(file->path, sizeof(file->path), "%s", name);
    file->size_bytes = size;
    file->checksum = checksum;
}

static int add_dense_files(struct wrk_snapshotter *s, struct clu_report *report)
{
    static const char *const names[] = {WRK_STATE_FILE, WRK_STATE_DENSE_FILE,
                                        WRK_STATE_RESUME_FILE};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[CLU_PATH_BYTES];
        uint64_t size, checksum;
        int status = clu_path_join(path, sizeof(path), s->folder, names[i]);
        if (!status)
            status = clu_file_checksum(path, &checksum, &size);
        if (status)
            return status;
        add_file(report, names[i], size, checksum);
    }
    return CLU_OK;
}

/* tells the scheduler how it went and moves to the next phase */
static void report_end(struct wrk_snapshotter *s, struct clu_report *report, int status)
{
    report->kind = CLU_REPORT_SNAPSHOT;
    report->step = s->state.step;
    report->base_step = s->base_step;
    report->status = status;
    clu_figures_put(&report->figures, "snapshot_bytes", (double)s->bytes);
    clu_figures_put(&report->figures, "snapshot_seconds", wrk_train_clock() - s->began);
    if (status)
        snprintf(report->text, sizeof(report->text), "snapshot of step %" PRIu64 ": %s",
                 s->state.step, clu_status_text(status));
    pthread_mutex_lock(&s->lock);
    s->phase = status ? IDLE : REPORTED;
    s->status = status;
    if (status)
        clu_chain_failed(&s->plan, status);
    pthread_mutex_unlock(&s->lock);
    clu_member_report(s->options.member, report);
}

/* The dense files: nobody waits for what this thread holds, so it may stand back. */
static void *save_dense(void *arg)
{
    struct wrk_snapshotter *s = arg;
    clu_stand_back(false);
    s->saved = wrk_state_save(s->folder, &s->state, s->options.manifest);
    return NULL;
}

static int write_parts(struct wrk_snapshotter *s, struct clu_report *report)
{
    pthread_t saver;
    bool beside = pthread_create(&saver, NULL, save_dense, s) == 0;
    if (!beside)
        s->saved = wrk_state_save(s->folder, &s->state, s->options.manifest);
    struct psv_file *files = NULL;
    int n_files = 0;
    /* waited for even after a failure: a ticket lives until then, and shards still write */
    int rows = psv_client_wait_snapshot(s->options.client, s->ticket, -1, &files, &n_files);
    if (beside)
        pthread_join(saver, NULL);
    int status = s->saved ? s->saved : add_dense_files(s, report);
    double n_rows = 0;
    for (int i = 0; i < n_files && !rows; i++) {
        add_file(report, files[i].name, files[i].size_bytes, files[i].checksum);
        s->bytes += files[i].size_bytes;
        n_rows += (double)files[i].n_rows;
    }
    free(files);
    clu_figures_put(&report->figures, "snapshot_rows", n_rows);
    return status ? status : rows;
}

static void *run(void *arg)
{
    struct wrk_snapshotter *s = arg;
    struct clu_report *report = calloc(1, sizeof(*report));
    if (!report) {
        clu_error("no memory to report a snapshot");
        pthread_mutex_lock(&s->lock);
        s->phase = IDLE;
        s->status = CLU_E_NO_MEMORY;
        pthread_mutex_unlock(&s->lock);
        return NULL;
    }
    report_end(s, report, write_parts(s, report));
    free(report);
    return NULL;
}

int wrk_snapshotter_begin(struct wrk_snapshotter *s, const struct wrk_state *state, bool full,
                          bool at_once)
{
    if (wrk_snapshotter_busy(s))
        return CLU_E_AGAIN;
    join(s);
    s->base_step = full ? 0 : clu_chain_next(&s->plan);
    s->bytes = 0;
    const double now = wrk_train_clock(), share = at_once ? 0 : s->options.job->snapshot_spread;
    const int64_t spread_ms = (int64_t)(share * (now - s->began) * 1000);
    s->began = now;
    int status = clu_snapshot_begin(s->root, state->step, s->folder);
    if (!status)
        status = psv_client_snapshot(s->options.client, state->step, s->base_step, spread_ms,
                                     s->folder, &s->ticket);
    if (status)
        return status;
    wrk_state_copy(state, s->copy, &s->state);
    s->phase = WRITING; /* no other thread yet */
    s->step = state->step;
    s->status = CLU_OK;
    int error = pthread_create(&s->thread, NULL, run, s);
    if (error) {
        clu_warn("no thread for the snapshot (%s): training waits for it", strerror(error));
        run(s);
        return CLU_OK;
    }
    s->has_thread = true;
    return CLU_OK;
}

void wrk_snapshotter_committed(struct wrk_snapshotter *s, uint64_t step, int status)
{
    pthread_mutex_lock(&s->lock);
    if (s->phase == REPORTED && s->step == step) {
        s->phase = IDLE;
        s->status = status;
        if (status) {
            clu_chain_failed(&s->plan, status);
        } else {
            s->committed_step = step;
            clu_chain_committed(&s->plan, step, s->base_step, s->bytes);
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (!status) /* servers need not hold older states any longer */
        psv_client_confirm(s->options.client, step);
}

int wrk_snapshotter_status(struct wrk_snapshotter *s, uint64_t *committed_step_p)
{
    pthread_mutex_lock(&s->lock);
    int status = s->status;
    *committed_step_p = s->committed_step;
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* A rank's life: join, prepare, (resume), train, snapshot, evaluate, leave.
 *
 * (L1) A rank that fails says so to the scheduler and then ends all ranks with MPI_Abort, with its
 *      status's exit code: MPI has no other way that is sure not to leave a rank waiting in a sum.
 * (L2) Stopping on request is agreed on in the dense all-reduce, so that all ranks end after the
 *      same step; the snapshot taken then is of that step.
 * (L3) FINISHED is reported only after the scheduler said that the final snapshot is committed.
 *
 * While rank 0 waits for that, the other ranks take part in a sum every few milliseconds ("still
 * waiting"): each goes on hearing orders, and none is in a collective that outlasts its deadline.
 */
#include "worker/train.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/metrics.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "model/params.h"
#include "worker/export_features.h"
#include "worker/train_checkpoint.h"
#include "worker/train_internal.h"
#include "worker/train_metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    FEED_AHEAD = 2,  /* batches filled beyond those whose rows are asked for */
    ASYNC_AHEAD = 2, /* pulls ahead of an async job */
    END_NAP_MS = 5,
    END_TIMEOUT_S = 3600, /* of the final snapshot; the shards' own deadlines are far shorter */
};

/* ---- orders ---- */

/* a server that was started again listens elsewhere: the client asks there */
static int follow_map(struct wrk_trainer *t)
{
    uint64_t version = clu_member_map_version(t->member);
    if (!t->client || version == t->map_version)
        return CLU_OK;
    struct clu_bucket_map *map = malloc(sizeof(*map));
    if (!map)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the bucket map");
    int status = clu_member_map(t->member, map);
    if (!status)
        status = psv_client_remap(t->client, map);
    t->map_version = map->version;
    free(map);
    return status;
}

int wrk_train_orders(struct wrk_trainer *t)
{
    int followed = follow_map(t);
    if (followed)
        return followed;
    for (;;) {
        struct clu_order order;
        int status = clu_member_next_order(t->member, &order);
        if (status == CLU_E_AGAIN)
            return CLU_OK;
        if (status)
            return clu_fail(status, "the scheduler is gone");
        switch (order.kind) {
        case CLU_ORDER_SNAPSHOT:
            t->snapshot_wish = order.step ? order.step : 1;
            break;
        case CLU_ORDER_COMMITTED:
            if (t->snapshotter)
                wrk_snapshotter_committed(t->snapshotter, order.step, order.status);
            break;
        case CLU_ORDER_STOP:
            if (order.status && order.status != CLU_E_INTERRUPTED)
                return clu_fail(order.status, "the job has ended: %s", order.text);
            t->stop_ordered = true;
            t->stop_snapshot = order.snapshot;
            break;
        case CLU_ORDER_DUMP:
            if (t->metrics)
                clu_metrics_log(t->metrics);
            clu_info("step %" PRIu64 " of %" PRIu64 ": rows asked for up to %" PRIu64
                     ", pushes applied up to %" PRIu64 ", loss %.4f",
                     t->done, t->last_step, t->pulled, t->retired, t->last_losses[3]);
            break;
        case CLU_ORDER_MAP:
            break;
        case CLU_ORDER_MOVE:
            if (t->mover)
                wrk_mover_order(t->mover, order.step);
            break;
        case CLU_ORDER_MOVED:
            if (t->mover)
                wrk_mover_stored(t->mover, order.step);
            break;
        case CLU_ORDER_RESTORE: /* servers' business */
            break;
        }
    }
}

/* ---- getting ready ---- */

static int open_data(struct wrk_trainer *t)
{
    int status = wrk_dataset_open(t->job.data, &t->dataset);
    if (!status)
        status = wrk_features_init(&t->features, wrk_dataset_info(t->dataset), &t->job);
    if (!status)
        status = wrk_model_config(&t->job, wrk_dataset_info(t->dataset), &t->features, &t->config);
    if (!status)
        status = wrk_manifest_describe(&t->job, t->dataset, &t->features, &t->manifest);
    return status;
}

static int find_endpoint(struct wrk_trainer *t, const char *given, char *endpoint_p, size_t size)
{
    if (given && given[0]) {
        snprintf(endpoint_p, size, "%s", given);
        return CLU_OK;
    }
    char path[CLU_PATH_BYTES], *text = NULL;
    size_t length = 0;
    int status = clu_path_join(path, sizeof(path), t->job.out, "run/sched.endpoint");
    if (!status)
        status = clu_file_read_all(path, size - 1, &text, &length);
    if (status)
        return status;
    snprintf(endpoint_p, size, "%.*s", (int)strcspn(text, "\r\n"), text);
    free(text);
    return CLU_OK;
}

static int join_job(struct wrk_trainer *t, const char *endpoint)
{
    char endpoint_file[CLU_PATH_BYTES];
    int status =
        clu_path_join(endpoint_file, sizeof(endpoint_file), t->job.out, "run/sched.endpoint");
    if (!status && t->job.keys[0]) {
        status = clu_security_load(t->job.keys, "worker", &t->security);
        t->has_security = !status;
    }
    struct clu_transport_options transport = {
        .security = t->has_security ? &t->security : NULL,
        .insecure = t->job.insecure,
    };
    if (!status)
        status = clu_transport_create(&transport, &t->transport);
    if (status)
        return status;
    struct clu_member_options options = {
        .endpoint = endpoint,
        .role = CLU_ROLE_WORKER,
        .rank = t->rank,
        .heartbeat_ms = t->job.heartbeat_ms,
        .lost_after_ms = t->job.dead_after_ms,
        .join_timeout_ms = t->job.start_timeout_ms,
        .transport = t->transport,
        .endpoint_file = endpoint_file,
        .metrics_url = t->metrics_url,
    };
    return clu_member_join(&options, &t->member);
}

static int connect_servers(struct wrk_trainer *t)
{
    struct clu_bucket_map *map = malloc(sizeof(*map));
    if (!map)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the bucket map");
    int status = clu_member_map(t->member, map);
    struct psv_client_options options = {
        .transport = t->transport,
        .map = map,
        .tables = t->features.table,
        .n_tables = t->features.n_tables,
        .rank = t->rank,
        .n_ranks = t->n_ranks,
        .incarnation = clu_member_welcome(t->member)->incarnation,
        .staleness = t->job.staleness,
        .wire_dtype = t->job.wire_dtype,
        .wire_keys = t->job.wire_keys,
        .request_timeout_ms = (int)t->job.request_timeout_ms,
        .heartbeat_ms = (int)t->job.heartbeat_ms,
    };
    if (!status)
        status = psv_client_open(&options, &t->client);
    t->map_version = map->version;
    free(map);
    return status;
}

/* the place to start from: nothing, or the snapshot that the scheduler names */
static int restore(struct wrk_trainer *t)
{
    int status = wrk_dense_init(&t->dense, &t->job, &t->config, WRK_N_EXTRAS + 2 * t->n_ranks);
    const struct clu_welcome *welcome = clu_member_welcome(t->member);
    t->rank_compute = calloc((size_t)t->n_ranks, sizeof(*t->rank_compute));
    if (!status && !t->rank_compute)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory for the times of %d ranks", t->n_ranks);
    t->verdicts.patience = t->job.patience;
    if (status || (!welcome->resume[0] && !welcome->stand))
        return status;
    struct wrk_state state = {.seed = (uint64_t)t->job.seed};
    wrk_dense_state(&t->dense, &state);
    status = welcome->stand ? wrk_train_stand(t, &state) : wrk_state_load(welcome->resume, &state);
    if (status)
        return status;
    t->dense.updates = state.updates;
    t->done = t->turn = t->pulled = t->retired = t->asked = state.step;
    t->snapshot_last = state.step == welcome->resume_step ? state.step : 0;
    t->position = (struct wrk_position){state.epoch, state.batch};
    t->samples_done = state.samples_done;
    t->verdicts = state.stopping;
    t->verdicts.patience = t->job.patience;
    if (t->rank == 0 && !welcome->stand)
        clu_info("going on from step %" PRIu64 " of %s", state.step, welcome->resume);
    return CLU_OK;
}

static int start_feed(struct wrk_trainer *t)
{
    t->n_ahead = t->job.staleness == CLU_STALENESS_ASYNC ? ASYNC_AHEAD : (int)t->job.staleness;
    t->is_dealt = wrk_train_is_dealt(t);
    if (t->is_dealt)
        t->n_ahead = WRK_DEALT_AHEAD;
    t->n_slots = 2 * t->n_ahead + 3 + FEED_AHEAD;
    t->slots = calloc((size_t)t->n_slots, sizeof(struct wrk_feed_slot *));
    t->rank_samples = calloc((size_t)t->n_ranks, sizeof(*t->rank_samples));
    if (!t->slots || !t->rank_samples)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %d batches", t->n_slots);
    struct wrk_feed_options options = {
        .dataset = t->dataset,
        .features = &t->features,
        .reader =
            {
                .split = WRK_SPLIT_TRAIN,
                .valid_percent = (int)t->job.valid_percent,
                .seed = (uint64_t)t->job.seed,
                .batch = (int)t->job.batch,
                .samples_per_user = (int)t->job.samples_per_user,
                .history = (int)t->job.history,
                .rank = t->rank,
                .n_ranks = t->n_ranks,
                .asked = t->is_dealt,
                .shuffle = true,
            },
        .from = t->position,
        .first_step = t->done + 1,
        .n_slots = t->n_slots,
        .id_dropout = t->job.id_dropout,
        .history_dropout = t->job.history_dropout,
    };
    int status = wrk_feed_start(&options, &t->feed, &t->n_batches);
    if (status)
        return status;
    t->last_step = t->n_batches * (uint64_t)t->job.epochs;
    if (t->job.max_steps && (uint64_t)t->job.max_steps < t->last_step)
        t->last_step = (uint64_t)t->job.max_steps;
    t->dense.last_step = t->last_step;
    if (t->rank == 0)
        clu_info("%" PRIu64 " steps of %" PRId64 " samples, %zu dense parameters, %d table%s",
                 t->last_step, t->job.batch, t->dense.n, t->features.n_tables,
                 t->features.n_tables == 1 ? "" : "s");
    return t->is_dealt ? wrk_train_start_dealing(t) : CLU_OK;
}

static int prepare(struct wrk_trainer *t, const struct wrk_train_options *options)
{
    char endpoint[256];
    mdl_blas_single_thread();
    int status = open_data(t);
    if (!status)
        status = find_endpoint(t, options->sched_endpoint, endpoint, sizeof(endpoint));
    if (!status && t->job.workers != t->n_ranks)
        status =
            clu_fail(CLU_E_CONFIG, "mpirun started %d ranks, the job file says workers: %" PRId64,
                     t->n_ranks, t->job.workers);
    if (!status)
        status = join_job(t, endpoint);
    if (!status)
        status = connect_servers(t);
    if (!status)
        status = restore(t);
    if (!status)
        status = start_feed(t);
    if (!status && t->rank == 0) {
        struct wrk_snapshotter_options snapshots = {
            .job = &t->job,
            .member = t->member,
            .client = t->client,
            .manifest = &t->manifest,
            .n_params = t->dense.n,
        };
        status = wrk_snapshotter_create(&snapshots, &t->snapshotter);
        if (!status)
            status = wrk_train_create_mover(t);
    }
    bool rows_stand = strcmp(t->job.durability, "log") == 0 && t->job.staleness != 0;
    if (!status && t->rank == 0 && rows_stand && t->job.dense_checkpoint_steps)
        status =
            wrk_checkpointer_create(&t->job, &t->manifest, t->dense.n,
                                    clu_member_welcome(t->member)->generation, &t->checkpointer);
    return status;
}

/* ---- training ---- */

/* the state of the steps done; arrays are views */
static void describe(struct wrk_trainer *t, struct wrk_state *state_p)
{
    *state_p = (struct wrk_state){
        .step = t->done,
        .epoch = t->position.epoch,
        .batch = t->position.batch,
        .samples_done = t->samples_done,
        .seed = (uint64_t)t->job.seed,
        .stopping = t->verdicts,
    };
    wrk_dense_state(&t->dense, state_p);
}

/* begins a snapshot of the steps done; full: with all rows, as it is after a change of the map, and
 * for the last of a job that is done, which so needs no other. at_once: it is waited for. Rank 0 */
static int begin_snapshot(struct wrk_trainer *t, bool full, bool at_once)
{
    struct wrk_state state;
    describe(t, &state);
    uint64_t owners = wrk_mover_owners(t->mover);
    full = full || t->map_version != t->snapshot_map || owners != t->snapshot_owners;
    int status = wrk_snapshotter_begin(t->snapshotter, &state, full, at_once);
    if (!status) {
        t->snapshot_map = t->map_version;
        t->snapshot_owners = owners;
        t->snapshot_last = t->done;
        t->snapshot_wish = 0;
    }
    return status;
}

static void nap(void)
{
    struct timespec time = {0, END_NAP_MS * 1000000L};
    nanosleep(&time, NULL);
}

static bool passed(uint64_t before, uint64_t now, int64_t every)
{
    return every > 0 && before / (uint64_t)every != now / (uint64_t)every;
}

int wrk_train_snapshot_now(struct wrk_trainer *t)
{
    int settled = wrk_train_settle(t);
    if (settled)
        return settled;
    for (int64_t begun = 0; !begun;) {
        int status = wrk_train_orders(t);
        if (!status && t->rank == 0 && !wrk_snapshotter_busy(t->snapshotter)) {
            if (t->snapshot_last != t->done)
                status = begin_snapshot(t, false, true);
            begun = 1;
        }
        if (!status)
            status = wrk_mpi_max_ints(t->mpi, &begun, 1, WRK_MPI_TIMEOUT_MS);
        if (status)
            return status;
        if (!begun)
            nap();
    }
    return CLU_OK;
}

/* Notes how long a step took that began at `begun`, all ranks' waits included; beside: a snapshot
 * was under way. Beginning one is part of it, an evaluation is not. Rank 0 */
static void note_step(struct wrk_trainer *t, double begun, bool beside)
{
    double seconds = wrk_train_clock() - begun;
    if (seconds > t->interval.longest)
        t->interval.longest = seconds;
    if ((beside || wrk_snapshotter_busy(t->snapshotter)) && seconds > t->longest_beside) {
        t->longest_beside = seconds;
        t->longest_beside_step = t->done;
    }
}

/* between two steps, where all ranks stand at the same place; begun, beside: as for note_step */
static int boundary(struct wrk_trainer *t, uint64_t before, double begun, bool beside)
{
    int status = t->moving && !t->stopping ? wrk_train_move(t) : CLU_OK;
    if (!status && t->mover)
        status = wrk_mover_advance(t->mover, t->done);
    if (!status && t->rank == 0)
        wrk_train_progress(t, false);
    bool judge = wrk_train_is_judged(t, t->done) && !t->stopping;
    bool evaluate =
        passed(before, t->done, t->job.eval_every) && t->done != t->last_step && !t->stopping;
    double judging = wrk_train_clock();
    if (!status && t->mover && (judge || evaluate))
        status = wrk_mover_finish(t->mover); /* every rank asks by the new owners */
    if (!status && judge)
        status = wrk_train_judge(t);
    begun += wrk_train_clock() - judging;
    if (!status && t->rank == 0) {
        bool due = passed(before, t->done, t->job.snapshot_every) ||
                   (t->snapshot_wish && t->done >= t->snapshot_wish) ||
                   wrk_snapshotter_wants_full(t->snapshotter);
        if (due && t->done != t->last_step && t->done != t->snapshot_last && !t->stopping) {
            if (wrk_snapshotter_busy(t->snapshotter) || wrk_mover_is_busy(t->mover))
                t->snapshot_wish = t->done + 1; /* as soon as what is under way is done */
            else
                status = begin_snapshot(t, false, false);
        }
        note_step(t, begun, beside);
        if (t->checkpointer && passed(before, t->done, t->job.dense_checkpoint_steps)) {
            struct wrk_state state;
            describe(t, &state);
            wrk_checkpointer_begin(t->checkpointer, &state);
        }
    }
    if (!status && evaluate && t->done != t->verdicts.judged) {
        struct wrk_train_model model = wrk_train_current(t);
        status = wrk_train_evaluate(t, &model, wrk_train_split(t), t->job.read, NULL);
    }
    return status;
}

static int train(struct wrk_trainer *t)
{
    uint64_t before = t->done;
    t->train_begin = t->interval.begin = wrk_train_clock();
    int resumed = wrk_train_resume_verdicts(t);
    if (resumed)
        return resumed;
    while (t->done < t->last_step && !t->stopping) {
        bool reduced, beside = t->rank == 0 && wrk_snapshotter_busy(t->snapshotter);
        double begun = wrk_train_clock();
        int status = wrk_train_orders(t);
        if (!status)
            status = wrk_train_step(t, &reduced);
        if (!status && reduced) {
            status = boundary(t, before, begun, beside);
            before = t->done;
        }
        if (status)
            return status;
    }
    if (t->rank == 0) {
        wrk_train_progress(t, true);
        double seconds = wrk_train_clock() - t->train_begin;
        clu_info("%s after step %" PRIu64 ", %.1f s", t->stopping ? "stopping" : "trained", t->done,
                 seconds);
    }
    int status = wrk_train_settle(t);
    return status ? status : wrk_train_drain(t);
}

/* ---- the end ---- */

/* rank 0: begins the final snapshot, waiting for one that is under way. *done_p: it is committed */
static int follow_snapshot(struct wrk_trainer *t, bool *begun_p, bool *done_p)
{
    uint64_t committed;
    if (wrk_snapshotter_busy(t->snapshotter))
        return CLU_OK;
    int status = wrk_snapshotter_status(t->snapshotter, &committed);
    if (*begun_p && !wrk_snapshotter_wants_full(t->snapshotter)) {
        *done_p = true;
        return status ? clu_fail(status, "the final snapshot failed") : CLU_OK;
    }
    *begun_p = true;
    if (t->snapshot_last == t->done && !status) {
        *done_p = true; /* the last step's is there already */
        return CLU_OK;
    }
    return begin_snapshot(t, !t->stopping, true);
}

/* Waits for the final snapshot. Collective: see the head of this file. */
static int final_snapshot(struct wrk_trainer *t, bool begun)
{
    double begin = wrk_train_clock();
    for (bool done = false; !done;) {
        int status = wrk_train_orders(t);
        if (!status && t->rank == 0)
            status = follow_snapshot(t, &begun, &done);
        if (status)
            return status;
        if (wrk_train_clock() - begin > END_TIMEOUT_S)
            return clu_fail(CLU_E_TIMEOUT, "the final snapshot was not committed within %d s",
                            END_TIMEOUT_S);
        int64_t flag = done;
        status = wrk_mpi_max_ints(t->mpi, &flag, 1, WRK_MPI_TIMEOUT_MS);
        if (status)
            return status;
        done = flag;
        if (!done)
            nap();
    }
    return CLU_OK;
}

static int finish(struct wrk_trainer *t)
{
    int status = CLU_OK;
    bool begun = false;
    if (t->stopping) {
        if (t->stopping_snapshot)
            status = final_snapshot(t, false);
        return status ? status : CLU_E_INTERRUPTED;
    }
    if (t->rank == 0 && !wrk_snapshotter_busy(t->snapshotter) && t->snapshot_last != t->done) {
        status = begin_snapshot(t, true, true); /* written beside the evaluation */
        begun = !status;
    }
    if (!status && t->verdicts.best_step && t->verdicts.best_step != t->done) {
        if (t->rank == 0)
            clu_info("the best epoch is %" PRIu64 ", step %" PRIu64 ": it is what is kept",
                     t->verdicts.best_step / t->n_batches, t->verdicts.best_step);
        status = final_snapshot(t, begun); /* no snapshot is under way while one is read */
    }
    if (!status)
        status = wrk_train_final_evaluation(t);
    if (!status)
        status = final_snapshot(t, begun);
    if (!status && t->rank == 0) { /* (L3) */
        struct clu_report report;
        memset(&report, 0, sizeof(report));
        report.kind = CLU_REPORT_FINISHED;
        report.step = t->done;
        wrk_train_describe_kept(t, report.text, sizeof(report.text));
        status = clu_member_report(t->member, &report);
    }
    return status;
}

static void release(struct wrk_trainer *t)
{
    wrk_feed_stop(t->feed);
    wrk_snapshotter_free(t->snapshotter);
    wrk_mover_free(t->mover);
    wrk_checkpointer_free(t->checkpointer);
    psv_client_close(t->client);
    clu_transport_free(t->transport);
    if (t->has_security)
        clu_security_fini(&t->security);
    wrk_dense_fini(&t->dense);
    free(t->rank_compute);
    wrk_train_metrics_free(t->shown);
    wrk_manifest_fini(&t->manifest);
    wrk_dataset_close(t->dataset);
    free(t->slots);
    free(t->meetings);
    free(t->rank_samples);
    free(t->workspace);
    free(t->d_user);
    free(t->d_item);
    free(t);
}

int wrk_train_run(const struct wrk_train_options *options)
{
    struct wrk_trainer *t = calloc(1, sizeof(*t));
    if (!t)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to start");
    int status = wrk_mpi_init(&t->mpi);
    if (status) {
        free(t);
        return status;
    }
    t->rank = wrk_mpi_rank(t->mpi);
    t->n_ranks = wrk_mpi_size(t->mpi);
    status = clu_job_load(options->job_path, &t->job);
    if (!status) {
        clu_log_init(clu_log_level_of(t->job.log_level), "worker", t->rank, t->job.log_json);
        t->metrics = options->metrics;
        if (options->serve)
            t->metrics_url = options->serve(options->context, &t->job, t->rank);
        status = wrk_train_metrics_create(t);
    }
    if (!status)
        status = prepare(t, options);
    if (!status)
        status = train(t);
    if (!status)
        status = finish(t);
    struct wrk_mpi *mpi = t->mpi;
    if (status && status != CLU_E_INTERRUPTED) { /* (L1) */
        char text[CLU_TEXT_BYTES];
        snprintf(text, sizeof(text), "after step %" PRIu64 ": %s", t->done,
                 clu_status_text(status));
        clu_error("%s", text);
        clu_member_leave(t->member, status, text);
        wrk_mpi_abort(mpi, status);
    }
    clu_member_leave(t->member, status, NULL);
    release(t);
    wrk_mpi_fini(mpi);
    return status;
}

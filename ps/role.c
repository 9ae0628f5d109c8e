/* The server as a member of a job: bind first (the map needs the endpoints), join, restore what
 * the welcome names, serve, obey, leave. When the job goes back to a snapshot, a server that lives
 * goes back in place: its threads end, the rows are rolled back, threads start. Otherwise the main
 * thread only sleeps on orders and looks at the shard threads between them; it touches no row.
 */
#include "cluster/file.h"
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/member.h"
#include "cluster/metrics.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "embeddings/shard.h"
#include "ps/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ORDER_WAIT_MS = 100, STATE_EVERY_MS = 2000 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A socket bound to every address is reached by the host's name. */
static void offer(const char *bound, char offered[static CLU_ENDPOINT_BYTES])
{
    char host[64] = "localhost";
    const char *every = "tcp://0.0.0.0:";
    if (strncmp(bound, every, strlen(every))) {
        snprintf(offered, CLU_ENDPOINT_BYTES, "%s", bound);
        return;
    }
    if (gethostname(host, sizeof(host) - 1))
        snprintf(host, sizeof(host), "localhost");
    snprintf(offered, CLU_ENDPOINT_BYTES, "tcp://%.63s:%.16s", host, bound + strlen(every));
}

static int join(const struct psv_server_options *options, const struct psv_server *server,
                struct clu_member **member_p)
{
    const struct clu_job *job = options->job;
    char(*endpoints)[CLU_ENDPOINT_BYTES] = calloc((size_t)job->shards, sizeof(*endpoints));
    if (!endpoints)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for endpoints");
    for (int64_t i = 0; i < job->shards; i++)
        offer(psv_server_endpoint(server, (int)i), endpoints[i]);
    char endpoint_file[CLU_PATH_BYTES + 32];
    snprintf(endpoint_file, sizeof(endpoint_file), "%s/run/sched.endpoint", job->out);
    struct clu_member_options member = {
        .endpoint = options->sched,
        .role = CLU_ROLE_PS,
        .rank = options->rank,
        .n_endpoints = (int)job->shards,
        .endpoints = (const char(*)[CLU_ENDPOINT_BYTES])endpoints,
        .heartbeat_ms = job->heartbeat_ms,
        .lost_after_ms = job->dead_after_ms,
        .join_timeout_ms = job->start_timeout_ms,
        .transport = options->transport,
        .endpoint_file = endpoint_file,
        .metrics_url = options->metrics_url,
    };
    int status = clu_member_join(&member, member_p);
    free(endpoints);
    return status;
}

static void report_simply(struct clu_member *member, enum clu_report_kind kind, int status,
                          const char *text)
{
    struct clu_report *report = calloc(1, sizeof(*report));
    if (!report)
        return;
    report->kind = kind;
    report->status = status;
    if (text)
        snprintf(report->text, sizeof(report->text), "%s", text);
    clu_member_report(member, report);
    free(report);
}

static int report_ready(struct clu_member *member, uint64_t generation)
{
    struct clu_report *report = calloc(1, sizeof(*report));
    if (!report)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a report");
    report->kind = CLU_REPORT_READY;
    report->generation = generation;
    int status = clu_member_report(member, report);
    free(report);
    return status;
}

/* Brings the rows to where a life begins, and serves from there. origin: all but the map. */
static int begin_life(const struct psv_server_options *options, struct psv_server *server,
                      struct clu_member *member, struct psv_origin *origin, uint64_t *generation_p)
{
    struct clu_bucket_map *map = malloc(sizeof(*map));
    if (!map)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the map");
    int status = clu_member_map(member, map);
    int first = status ? -1 : clu_map_first_shard(map, options->rank);
    if (!status && first < 0)
        status = clu_fail(CLU_E_CONFIG, "server %d is not in the map", options->rank);
    origin->map = map;
    origin->first_shard = first;
    if (!status)
        status = psv_server_restore(server, origin);
    free(map);
    if (!status)
        status = psv_server_start(server, first);
    if (status)
        return status;
    *generation_p = origin->generation;
    clu_info("serving %lld shards, %d tables, from step %llu of life %llu",
             (long long)options->job->shards, options->n_tables, (unsigned long long)origin->step,
             (unsigned long long)origin->generation);
    return report_ready(member, origin->generation);
}

/* What the welcome names: the first life that this process is part of. */
static int begin_first_life(const struct psv_server_options *options, struct psv_server *server,
                            struct clu_member *member, uint64_t *generation_p)
{
    const struct clu_welcome *welcome = clu_member_welcome(member);
    struct psv_origin origin = {
        .folder = welcome->resume,
        .step = welcome->resume_step,
        .generation = welcome->generation,
        .stand = welcome->stand,
        .least_incarnation = welcome->least_incarnation,
    };
    return begin_life(options, server, member, &origin, generation_p);
}

/* Order RESTORE: the job goes back to a snapshot, and this process goes with it: what is still
 * right in memory stays there. */
static int begin_next_life(const struct psv_server_options *options, struct psv_server *server,
                           struct clu_member *member, const struct clu_order *order,
                           uint64_t *generation_p)
{
    if (order->generation <= *generation_p)
        return CLU_OK; /* given again by a restarted scheduler: this life began here already */
    char root[CLU_PATH_BYTES], folder[CLU_PATH_BYTES] = "";
    int status = clu_snapshot_root(options->job->out, root);
    if (!status && order->step)
        status = clu_snapshot_folder(root, order->step, false, folder);
    if (status)
        return status;
    struct psv_origin origin = {
        .folder = folder,
        .step = order->step,
        .generation = order->generation,
        .least_incarnation = order->least_incarnation,
    };
    psv_server_rest(server);
    return begin_life(options, server, member, &origin, generation_p);
}

/* says once that storage fails, and again after it had recovered */
static void report_stall(const struct psv_server_stats *stats, bool *stalled,
                         struct clu_member *member)
{
    if (stats->stalled_ms && !*stalled)
        report_simply(member, CLU_REPORT_TROUBLE, CLU_E_FULL,
                      "a shard cannot store its rows (see its log): steps wait");
    *stalled = stats->stalled_ms > 0;
}

static void report_state(struct psv_server *server, bool *stalled, struct clu_member *member,
                         struct clu_metric *denied)
{
    struct psv_server_stats stats;
    struct clu_report *report = calloc(1, sizeof(*report));
    if (!report)
        return;
    psv_server_stats(server, &stats);
    report_stall(&stats, stalled, member);
    clu_metric_set(denied, (double)stats.denied);
    report->kind = CLU_REPORT_STATE;
    report->step = stats.applied;
    struct clu_figures *figures = &report->figures;
    clu_figures_put(figures, "rows", (double)stats.rows);
    clu_figures_put(figures, "resident_rows", (double)stats.resident_rows);
    clu_figures_put(figures, "memory_bytes", (double)stats.memory_bytes);
    clu_figures_put(figures, "file_bytes", (double)stats.file_bytes);
    clu_figures_put(figures, "rows_pulled_total", (double)stats.rows_pulled);
    clu_figures_put(figures, "rows_pushed_total", (double)stats.rows_pushed);
    clu_figures_put(figures, "rows_moved_in_total", (double)stats.rows_moved_in);
    clu_figures_put(figures, "rows_moved_out_total", (double)stats.rows_moved_out);
    clu_figures_put(figures, "malformed_total", (double)stats.malformed);
    clu_figures_put(figures, "denied_total", (double)stats.denied);
    clu_figures_put(figures, "duplicates_total", (double)stats.duplicates);
    clu_figures_put(figures, "refused_total", (double)stats.refused);
    clu_figures_put(figures, "unsent_total", (double)stats.unsent);
    clu_figures_put(figures, "held", (double)stats.held);
    clu_figures_put(figures, "stalled_seconds", (double)stats.stalled_ms / 1000);
    clu_member_report(member, report);
    free(report);
}

/* Until an order to stop, or a failure. */
static int obey(const struct psv_server_options *options, struct psv_server *server,
                struct clu_member *member, uint64_t generation)
{
    int64_t state_at = now_ms();
    bool stalled = false;
    struct clu_order order;
    struct clu_metric *denied =
        clu_metrics_add(options->metrics, CLU_METRIC_COUNTER, "denied_connections_total", "",
                        "connections refused for their key or mechanism");
    for (;;) {
        int status = psv_server_status(server);
        if (status) {
            char text[128];
            snprintf(text, sizeof(text), "a shard ended: %s", clu_status_text(status));
            report_simply(member, CLU_REPORT_TROUBLE, status, text);
            return status;
        }
        if (now_ms() >= state_at) {
            report_state(server, &stalled, member, denied);
            state_at = now_ms() + STATE_EVERY_MS;
        }
        status = clu_member_wait_order(member, ORDER_WAIT_MS, &order);
        if (status == CLU_E_TIMEOUT || status == CLU_E_AGAIN)
            continue;
        if (status)
            return status;
        if (order.kind == CLU_ORDER_STOP)
            return order.status;
        if (order.kind == CLU_ORDER_DUMP && options->metrics)
            clu_metrics_log(options->metrics);
        if (order.kind == CLU_ORDER_RESTORE &&
            (status = begin_next_life(options, server, member, &order, &generation)))
            return status;
    }
}

/* Rows that cannot be read are of no use here: the buckets come from the last snapshot instead.
 * What is damaged is kept for a look, the newest of it. */
static int set_aside(const char *dir)
{
    char aside[CLU_PATH_BYTES];
    snprintf(aside, sizeof(aside), "%s.damaged", dir);
    clu_remove_tree(aside);
    if (rename(dir, aside))
        return clu_fail(clu_status_from_errno(errno), "%s: %s", dir, strerror(errno));
    clu_warn("%s is damaged and set aside as %s", dir, aside);
    return CLU_OK;
}

int psv_server_run(const struct psv_server_options *options)
{
    const struct clu_job *job = options->job;
    char bind[300], root[CLU_PATH_BYTES], move_root[CLU_PATH_BYTES];
    struct psv_server *server = NULL;
    struct clu_member *member = NULL;
    uint64_t generation = 0;
    snprintf(bind, sizeof(bind), "tcp://%s:*", job->host);
    int status = clu_snapshot_root(job->out, root);
    if (!status)
        status = clu_path_join(move_root, sizeof(move_root), job->out, "run/moving");
    if (status)
        return status;
    struct psv_threads_options threads = {
        .transport = options->transport,
        .tables = options->tables,
        .n_tables = options->n_tables,
        .n_shards = (int)job->shards,
        .n_ranks = (int)job->workers,
        .staleness = job->staleness,
        .dir = options->dir,
        .memory_bytes = job->memory_bytes,
        .durability = job->durability,
        .bind = bind,
        .heartbeat_ms = (int)job->heartbeat_ms,
        .snapshot_root = root,
        .move_root = move_root,
        .metrics = options->metrics,
    };
    status = psv_server_open(&threads, &server);
    if (status == CLU_E_CORRUPT && !set_aside(options->dir))
        status = psv_server_open(&threads, &server);
    if (!status)
        status = join(options, server, &member);
    if (!status)
        status = begin_first_life(options, server, member, &generation);
    if (!status)
        status = obey(options, server, member, generation);
    bool damaged = server && psv_server_status(server) == CLU_E_CORRUPT;
    int stopped = psv_server_stop(server);
    if (damaged) /* found while rows were served: whoever is started again must not find it too */
        set_aside(options->dir);
    if (!status)
        status = stopped;
    clu_member_leave(member, status, status ? clu_status_text(status) : NULL);
    return status;
}

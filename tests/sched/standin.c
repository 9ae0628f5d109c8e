/* A whole job without data, model or rows: the real supervisor and scheduler, and stand-ins for the
 * roles that speak the control channel and do nothing else. A step takes a few milliseconds; a
 * snapshot is two small files whose content depends on the step only. So every way of dying can be
 * tried in seconds.
 *
 *     standin train JOB | sched --job JOB ...
 *     standin ps --job JOB --rank R --sched E | worker --job JOB --sched E
 *
 * The job's max_steps says how long it runs. SLUICE_STANDIN_EXIT=role:rank:step:code makes one role
 * end with that exit code at a step (servers: at once).
 */
#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/member.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "sched/process.h"
#include "sched/scheduler.h"
#include "sched/supervise.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct standin {
    struct clu_job job;
    struct clu_transport *transport;
    struct clu_member *member;
    struct clu_report report;
    enum clu_role role;
    int rank;
};

static const char *argument(int argc, char **argv, const char *name)
{
    for (int i = 2; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return "";
}

static bool flag(int argc, char **argv, const char *name)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static void nap(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static void exit_as_told(const struct standin *s, uint64_t step)
{
    char role[16];
    int rank, at, code;
    const char *told = getenv("SLUICE_STANDIN_EXIT");
    if (told && sscanf(told, "%15[^:]:%d:%d:%d", role, &rank, &at, &code) == 4 &&
        strcmp(role, clu_role_name(s->role)) == 0 && rank == s->rank && (uint64_t)at <= step)
        exit(code);
}

static int join(struct standin *s, const char *sched, int n_endpoints)
{
    char endpoints[64][CLU_ENDPOINT_BYTES], file[CLU_PATH_BYTES];
    for (int i = 0; i < n_endpoints; i++)
        snprintf(endpoints[i], sizeof(endpoints[i]), "tcp://127.0.0.1:%d",
                 10000 + 64 * s->rank + i);
    struct clu_transport_options transport = {0};
    int status = clu_transport_create(&transport, &s->transport);
    if (!status)
        status = clu_path_join(file, sizeof(file), s->job.out, "run/sched.endpoint");
    struct clu_member_options options = {
        .endpoint = sched,
        .role = s->role,
        .rank = s->rank,
        .n_endpoints = n_endpoints,
        .endpoints = (const char(*)[CLU_ENDPOINT_BYTES])endpoints,
        .heartbeat_ms = s->job.heartbeat_ms,
        .lost_after_ms = s->job.dead_after_ms,
        .join_timeout_ms = s->job.start_timeout_ms,
        .rejoin_timeout_ms = s->job.start_timeout_ms,
        .transport = s->transport,
        .endpoint_file = file,
    };
    return status ? status : clu_member_join(&options, &s->member);
}

static int leave(struct standin *s, int status)
{
    clu_member_leave(s->member, status, NULL);
    clu_transport_free(s->transport);
    return clu_status_exit_code(status);
}

static int run_ps(struct standin *s, const char *sched)
{
    struct clu_order order;
    exit_as_told(s, 0);
    int status = join(s, sched, (int)s->job.shards);
    if (status)
        return clu_status_exit_code(status);
    s->report.kind = CLU_REPORT_READY;
    s->report.generation = clu_member_welcome(s->member)->generation;
    clu_member_report(s->member, &s->report);
    for (;;) {
        status = clu_member_wait_order(s->member, 1000, &order);
        if (status == CLU_E_LOST)
            break;
        if (!status && order.kind == CLU_ORDER_STOP) {
            status = order.status == CLU_E_INTERRUPTED ? CLU_OK : order.status;
            break;
        }
        if (!status && order.kind == CLU_ORDER_DUMP)
            clu_info("state: a stand-in, serving");
        if (!status && order.kind == CLU_ORDER_RESTORE && order.generation > s->report.generation) {
            clu_info("back to step %llu, in place", (unsigned long long)order.step);
            s->report.generation = order.generation;
            clu_member_report(s->member, &s->report);
        }
    }
    return leave(s, status);
}

static void write_file(const char *folder, const char *name, uint64_t step)
{
    char path[CLU_PATH_BYTES], text[64];
    int n = snprintf(text, sizeof(text), "%s of step %llu\n", name, (unsigned long long)step);
    if (!clu_path_join(path, sizeof(path), folder, name))
        clu_file_write_atomic(path, text, (size_t)n);
}

/* Takes the snapshot and waits until it is whole. */
static int snapshot(struct standin *s, uint64_t step)
{
    char root[CLU_PATH_BYTES], folder[CLU_PATH_BYTES];
    struct clu_order order;
    int status = clu_snapshot_root(s->job.out, root);
    if (!status)
        status = clu_snapshot_begin(root, step, folder);
    if (status)
        return status;
    write_file(folder, "dense.safetensors", step);
    write_file(folder, "rows/0.rows", step);
    memset(&s->report, 0, sizeof(s->report));
    s->report.kind = CLU_REPORT_SNAPSHOT;
    s->report.step = step;
    clu_member_report(s->member, &s->report);
    for (int i = 0; i < 300; i++) {
        status = clu_member_wait_order(s->member, 100, &order);
        if (status == CLU_E_LOST)
            return status;
        if (!status && order.kind == CLU_ORDER_COMMITTED && order.step == step)
            return order.status;
    }
    return CLU_E_TIMEOUT;
}

static int run_worker(struct standin *s, const char *sched)
{
    struct clu_order order = {0};
    int status = join(s, sched, 0);
    if (status)
        return clu_status_exit_code(status);
    uint64_t step = clu_member_welcome(s->member)->resume_step, last = step;
    uint64_t n_steps = (uint64_t)s->job.max_steps;
    while (!status && step < n_steps) {
        nap(5);
        step++;
        exit_as_told(s, step);
        memset(&s->report, 0, sizeof(s->report));
        s->report.kind = CLU_REPORT_PROGRESS;
        s->report.step = step;
        s->report.n_steps = n_steps;
        clu_figures_put(&s->report.figures, "loss", 1.0 / (double)step);
        clu_figures_put(&s->report.figures, "samples_per_second", 1000);
        if (s->rank == 0 && step % (uint64_t)s->job.log_every == 0)
            clu_member_report(s->member, &s->report);
        if (s->rank == 0 && s->job.snapshot_every && step % (uint64_t)s->job.snapshot_every == 0) {
            status = snapshot(s, step);
            last = step;
        }
        int got = clu_member_next_order(s->member, &order);
        if (got == CLU_E_LOST) {
            status = got;
        } else if (!got && order.kind == CLU_ORDER_STOP) {
            if (order.snapshot && s->rank == 0)
                status = snapshot(s, step);
            leave(s, status ? status : CLU_E_INTERRUPTED);
            return status ? clu_status_exit_code(status) : 0; /* else mpirun ends the other ranks */
        } else if (!got && order.kind == CLU_ORDER_SNAPSHOT) {
            status = snapshot(s, step);
            last = step;
        }
    }
    if (!status && s->rank == 0) {
        if (last != step)
            status = snapshot(s, step);
        memset(&s->report, 0, sizeof(s->report));
        s->report.kind = CLU_REPORT_FINISHED;
        s->report.step = step;
        if (!status)
            status = clu_member_report(s->member, &s->report);
    }
    return leave(s, status);
}

static int run_train(struct standin *s, char **argv)
{
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n > 0 ? n : 0] = '\0';
    int status = clu_job_load(argv[2], &s->job);
    clu_log_init(CLU_LOG_INFO, "train", -1, false);
    return clu_status_exit_code(status ? status : schd_supervise(&s->job, program));
}

static int run(struct standin *s, int argc, char **argv)
{
    if (strcmp(argv[1], "train") == 0)
        return run_train(s, argv);
    int status = clu_job_load(argument(argc, argv, "--job"), &s->job);
    if (status)
        return clu_status_exit_code(status);
    const char *mpi_rank = getenv("OMPI_COMM_WORLD_RANK");
    if (strcmp(argv[1], "sched") == 0) {
        clu_log_init(CLU_LOG_INFO, "sched", -1, false);
        struct schd_scheduler_options options = {.job = &s->job,
                                                 .supervised = flag(argc, argv, "--supervised"),
                                                 .again = flag(argc, argv, "--again")};
        return clu_status_exit_code(schd_scheduler_run(&options));
    }
    s->role = strcmp(argv[1], "ps") == 0 ? CLU_ROLE_PS : CLU_ROLE_WORKER;
    s->rank = atoi(s->role == CLU_ROLE_PS ? argument(argc, argv, "--rank")
                   : mpi_rank             ? mpi_rank
                                          : "0");
    schd_die_with_parent();
    clu_log_init(CLU_LOG_INFO, clu_role_name(s->role), s->rank, false);
    return s->role == CLU_ROLE_PS ? run_ps(s, argument(argc, argv, "--sched"))
                                  : run_worker(s, argument(argc, argv, "--sched"));
}

int main(int argc, char **argv)
{
    struct standin *s = calloc(1, sizeof(*s));
    signal(SIGPIPE, SIG_IGN);
    int code = s && argc >= 3 ? run(s, argc, argv) : 64;
    free(s);
    return code;
}

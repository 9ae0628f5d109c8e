/* How long a job stands still when something dies: real jobs, each role killed in turn, from the
 * kill to the first step that was not done before it. The baseline is the start of the same job:
 * from `sluice train` to its first step.
 *
 *     bench_recovery [--tiny] [--rounds N] [--data DIR] [rows in thousands, default 200]
 */
#include "tests/bench/bench_job.h"

enum { START_MS = 120000 };

static pid_t find_role(const struct driver *d, const char *role)
{
    if (strcmp(role, "worker") != 0)
        return driver_find(d,
                           strcmp(role, "ps") == 0      ? "sluice ps"
                           : strcmp(role, "sched") == 0 ? "sluice sched"
                                                        : "mpirun -n",
                           strcmp(role, "ps") == 0 ? "--rank 1" : "", 0);
    return driver_find_worker(d, 0);
}

static int measure(const struct driver *d, struct bench_metrics *m, const char *role,
                   const struct bench_args *args, double start_s)
{
    double seconds[BENCH_MAX_ROUNDS];
    for (int i = 0; i < args->rounds; i++) {
        bench_look(d, m); /* off the last snapshot, and steady */
        if (bench_await_step(d, m, m->highest + 20, 60000) < 0)
            return -1;
        pid_t pid = find_role(d, role);
        int64_t killed_ms = bench_wall_ms();
        if (pid < 0 || kill(pid, SIGKILL))
            return -1;
        driver_nap(100); /* reports that were on their way */
        bench_look(d, m);
        int64_t time_ms = bench_await_step(d, m, m->highest, START_MS);
        if (time_ms < 0)
            return -1;
        seconds[i] = (double)(time_ms - killed_ms) / 1000;
    }
    double middle = bench_middle(seconds, args->rounds);
    printf("{\"name\":\"recovery_%s\",\"rows\":%ld,\"value\":%.3f,\"unit\":\"s\",\"baseline\":%.3f,"
           "\"baseline_name\":\"start of the job\",\"ratio\":%.2f,\"min\":%.3f,\"max\":%.3f,"
           "\"rounds\":%d}\n",
           role, args->n, middle, start_s, middle / start_s, seconds[0], seconds[args->rounds - 1],
           args->rounds);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const roles[] = {"ps", "worker", "mpirun", "sched"};
    static struct bench_metrics metrics;
    static struct bench_job job;
    struct bench_args args = {.rounds = 5, .n = 200000};
    int code = bench_job_begin(argc, argv, &args, 1, &job, 1,
                               "servers: 2\nshards: 2\nworkers: 2\nwidth: 16\nmax_restarts: 50\n"
                               "snapshot_every: 100\nkeep: 2\nstart_timeout_ms: 120000\n");
    if (code)
        return code;
    int64_t began_ms = bench_wall_ms();
    bool failed = driver_start(&job.d, SLUICE, NULL);
    int64_t first_ms = failed ? -1 : bench_await_step(&job.d, &metrics, 0, START_MS);
    failed = first_ms < 0;
    for (int i = 0; i < (args.tiny ? 2 : 4) && !failed; i++)
        failed = measure(&job.d, &metrics, roles[args.tiny ? 3 * i : i], &args,
                         (double)(first_ms - began_ms) / 1000);
    kill(job.d.pid, SIGKILL);
    driver_wait(&job.d, 1000);
    return bench_job_close(&job, failed);
}

/* How long a job stands still when something dies: real jobs, each role killed in turn, from the
 * kill to the first step that was not done before it. The baseline is the start of the same job:
 * from `sluice train` to its first step.
 *
 *     bench_recovery [--tiny] [rows in thousands, default 200]
 */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"

#include <inttypes.h>
#include <stdint.h>

static char set[600];

static int make_data(const struct small_data *d, long users)
{
    char command[1400];
    snprintf(set, sizeof(set), "%s/bench", d->folder);
    snprintf(command, sizeof(command),
             "'%s' generate --users %ld --items %ld --samples %ld --seed 3 --out '%s' >/dev/null",
             SLUICE, users, users / 4 + 200, users * 2, set);
    return system(command);
}

static int open_job(struct driver *d)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 10\n"
             "batch: 256\nlog_every: 1\nepochs: 1000\nread: greedy\nmax_restarts: 50\n"
             "snapshot_every: 100\nkeep: 2\nstart_timeout_ms: 120000\n",
             set);
    return driver_open(d, text);
}

/* The highest step in metrics.jsonl and when it was reported (wall clock, ms); 0 when there is
 * none. */
static uint64_t last_step(const struct driver *d, int64_t *time_ms_p)
{
    char path[700], line[16384];
    uint64_t last = 0;
    snprintf(path, sizeof(path), "%s/out/run/metrics.jsonl", d->folder);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file)) {
        int64_t time_ms;
        uint64_t step;
        const char *at = strstr(line, "\"step\":");
        if (!strstr(line, "\"kind\":\"progress\"") || !at ||
            sscanf(line, "{\"time_ms\":%" SCNd64, &time_ms) != 1 ||
            sscanf(at, "\"step\":%" SCNu64, &step) != 1 || step <= last)
            continue;
        last = step;
        *time_ms_p = time_ms;
    }
    if (file)
        fclose(file);
    return last;
}

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for a step above `step`; the time of its report, or -1. */
static int64_t await_step(const struct driver *d, uint64_t step, int timeout_ms)
{
    int64_t time_ms = 0, until = driver_now_ms() + timeout_ms;
    while (driver_now_ms() < until) {
        if (last_step(d, &time_ms) > step)
            return time_ms;
        driver_nap(5);
    }
    return -1;
}

static pid_t find_role(const struct driver *d, const char *role)
{
    if (strcmp(role, "worker") != 0)
        return driver_find(d,
                           strcmp(role, "ps") == 0      ? "sluice ps"
                           : strcmp(role, "sched") == 0 ? "sluice sched"
                                                        : "mpirun -n",
                           strcmp(role, "ps") == 0 ? "--rank 1" : "", 0);
    pid_t pid;
    for (int i = 0; (pid = driver_find(d, "sluice worker", "", i)) > 0; i++) {
        char line[8192];
        driver_command_line(pid, line, sizeof(line));
        if (strncmp(line, "mpirun", 6) != 0)
            return pid;
    }
    return -1;
}

static void report(const char *role, long rows, int64_t ms, int64_t start_ms, const char *spread)
{
    printf("{\"name\":\"recovery_%s\",\"rows\":%ld,\"value\":%.3f,\"unit\":\"s\",\"baseline\":%.3f,"
           "\"baseline_name\":\"start of the job\",\"ratio\":%.2f,\"spread\":\"%s\"}\n",
           role, rows, (double)ms / 1000, (double)start_ms / 1000, (double)ms / (double)start_ms,
           spread);
    fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int measure(struct driver *d, const char *role, long rows, int n, int64_t start_ms)
{
    int64_t ms[16], time_ms;
    char spread[64];
    for (int i = 0; i < n; i++) {
        uint64_t step = last_step(d, &time_ms);
        if (await_step(d, step + 20, 60000) < 0) /* off the last snapshot, and steady */
            return -1;
        pid_t pid = find_role(d, role);
        int64_t killed_ms = wall_ms();
        if (pid < 0 || kill(pid, SIGKILL))
            return -1;
        driver_nap(100); /* reports that were on their way */
        step = last_step(d, &time_ms);
        time_ms = await_step(d, step, 120000);
        if (time_ms < 0)
            return -1;
        ms[i] = time_ms - killed_ms;
    }
    qsort(ms, (size_t)n, sizeof(ms[0]), by_value);
    snprintf(spread, sizeof(spread), "%.3f..%.3f of %d", (double)ms[0] / 1000,
             (double)ms[n - 1] / 1000, n);
    report(role, rows, ms[n / 2], start_ms, spread);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const roles[] = {"ps", "worker", "mpirun", "sched"};
    bool tiny = argc > 1 && strcmp(argv[1], "--tiny") == 0;
    long rows = argc > 1 && !tiny ? atol(argv[1]) * 1000 : 200000;
    struct small_data data;
    struct driver d;
    if (tiny)
        rows = 2000;
    if (small_data_open(&data, SLUICE) || make_data(&data, rows) || open_job(&d))
        return 1;
    int64_t began_ms = wall_ms();
    int failed = driver_start(&d, SLUICE, NULL);
    int64_t first_ms = failed ? -1 : await_step(&d, 0, 120000);
    failed = first_ms < 0;
    for (int i = 0; i < (tiny ? 2 : 4) && !failed; i++)
        failed = measure(&d, roles[tiny ? 3 * i : i], rows, tiny ? 1 : 5, first_ms - began_ms);
    kill(d.pid, SIGKILL);
    driver_wait(&d, 1000);
    failed |= driver_left(&d, 2000) > 0;
    driver_close(&d, failed);
    small_data_close(&data);
    return failed != 0;
}

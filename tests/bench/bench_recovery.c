/* How long a job stands still when something dies: a real job whose tables hold the rows that the
 * figures name (bench_fill.h), each role killed in turn.
 *
 *     fill --> start --> [snapshots, the newest a delta] --> 20 steps --kill--> noticed, started
 *     again --> rows served --> a step --> a step that was not done before the kill --> [...]
 *
 * The figure is the time from the kill to a step that was not done before. Going back, the job
 * first does some steps again, of which there are as many as it did since its last snapshot began:
 * a choice of the job (`snapshot_every`), not a cost of recovery. So the time to its first step of
 * any kind stands beside the figure, and when the killed role lived again, when the rows were
 * served, when the workers were ready, by the times in the roles' logs. The baseline is the start
 * of the same job with the same rows: from `sluice train` to its first step.
 *
 *     bench_recovery [--tiny] [--rounds N] [--keep DIR] [--only ROLE,...] [--durability log]
 *                    [--memory SIZE] [rows in thousands, default 200]
 *
 * Roles: ps, worker, mpirun, sched; disk: a server dies and its rows are gone. --durability: log
 * goes with staleness 1, where nobody need go back. --memory: of a server, else all rows fit.
 */
#include "tests/bench/bench_fill.h"

#include <stddef.h>

enum { START_MS = 300000, STEPS_BEFORE = 20 };

/* Seconds from the kill; 0 where it does not happen. */
struct outcome {
    double lives, serves, ready, steps, further;
    double n_again; /* steps that were done again */
};

static const struct role {
    const char *name, *title, *log, *born; /* what a new process of it logs first */
} roles[] = {
    {"ps", "ps", "ps-1.log", "metrics: "},
    {"disk", "ps_disk", "ps-1.log", "metrics: "},
    {"worker", "worker", "worker-0.log", "metrics: "},
    {"mpirun", "mpirun", "worker-0.log", "metrics: "},
    {"sched", "sched", "sched-0.log", "listening on"},
};
enum { N_ROLES = sizeof(roles) / sizeof(*roles) };

static pid_t find_role(const struct driver *d, const char *role)
{
    if (strcmp(role, "worker") == 0)
        return driver_find_worker(d, 0);
    if (strcmp(role, "mpirun") == 0)
        return driver_find(d, "mpirun -n", "", 0);
    return strcmp(role, "sched") == 0 ? driver_find(d, "sluice sched", "", 0)
                                      : driver_find(d, "sluice ps", "--rank 1", 0);
}

/* Seconds from then to the first line of a log after it that holds text; 0: there is none. */
static double logged_after(const struct driver *d, const char *name, const char *text,
                           int64_t then_ms)
{
    char path[700], line[4096];
    double found = 0;
    snprintf(path, sizeof(path), "%s/out/run/log/%s", d->folder, name);
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof(line), file)) {
        struct tm tm = {0};
        int ms = 0;
        if (!strstr(line, text) ||
            sscanf(line, "%d-%d-%dT%d:%d:%d.%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
                   &tm.tm_min, &tm.tm_sec, &ms) != 7)
            continue;
        tm.tm_year -= 1900;
        tm.tm_mon--;
        int64_t at_ms = (int64_t)timegm(&tm) * 1000 + ms;
        if (at_ms > then_ms)
            found = (double)(at_ms - then_ms) / 1000;
    }
    if (file)
        fclose(file);
    return found;
}

/* Until the newest snapshot is a delta: after a start or a roll-back the first is full. */
static int take_snapshots(const struct driver *d, struct bench_metrics *m)
{
    char answer[1000];
    for (int tries = 0; tries < 3; tries++) {
        int n = m->n_snapshots;
        int64_t until = bench_wall_ms() + START_MS;
        if (driver_ask(d, SLUICE, "snapshot", "", answer, sizeof(answer))) {
            printf("  no snapshot: %s", answer);
            return -1;
        }
        for (bench_look(d, m); m->n_snapshots == n; bench_look(d, m)) {
            if (bench_wall_ms() > until)
                return -1;
            driver_nap(5);
        }
        if (m->is_delta)
            return 0;
    }
    return -1;
}

/* The store of server 1 goes out of its way, while it is dead. */
static int lose_rows(const struct driver *d)
{
    char from[700], to[700], command[1500];
    snprintf(from, sizeof(from), "%s/out/run/server-1", d->folder);
    snprintf(to, sizeof(to), "%s/lost", d->folder);
    if (rename(from, to))
        return -1;
    snprintf(command, sizeof(command), "rm -rf '%s'", to);
    return system(command);
}

static int kill_one(const struct driver *d, struct bench_metrics *m, const struct role *role,
                    struct outcome *outcome_p)
{
    if (take_snapshots(d, m) ||
        bench_await_step(d, m, m->step[m->n_steps - 1] + STEPS_BEFORE, START_MS) < 0)
        return -1;
    pid_t pid = find_role(d, role->name);
    int64_t killed_ms = bench_wall_ms();
    if (pid < 0 || kill(pid, SIGKILL) || (strcmp(role->name, "disk") == 0 && lose_rows(d)))
        return -1;
    driver_nap(100); /* reports that were on their way */
    bench_look(d, m);
    int n = m->n_steps;
    uint64_t reached = m->step[n - 1];
    int64_t further_ms = bench_await_step(d, m, m->highest, START_MS);
    if (further_ms < 0 || m->n_steps == BENCH_MAX_LINES)
        return -1;
    double serves[2] = {logged_after(d, "ps-0.log", "serving ", killed_ms),
                        logged_after(d, "ps-1.log", "serving ", killed_ms)};
    *outcome_p = (struct outcome){
        .lives = logged_after(d, role->log, role->born, killed_ms),
        .serves = serves[0] > serves[1] ? serves[0] : serves[1],
        .ready = logged_after(d, "worker-0.log", " dense parameters", killed_ms),
        .steps = (double)(m->time_ms[n] - killed_ms) / 1000,
        .further = (double)(further_ms - killed_ms) / 1000,
        .n_again = m->step[n] <= reached ? (double)(reached - m->step[n] + 1) : 0,
    };
    return 0;
}

static double middle_of(const struct outcome *outcomes, int n, size_t offset)
{
    double values[BENCH_MAX_ROUNDS];
    for (int i = 0; i < n; i++)
        memcpy(&values[i], (const char *)&outcomes[i] + offset, sizeof(double));
    return bench_middle(values, n);
}

static int measure(const struct driver *d, struct bench_metrics *m, const struct role *role,
                   const struct bench_args *args, double start_s)
{
    struct outcome outcomes[BENCH_MAX_ROUNDS];
    double further[BENCH_MAX_ROUNDS];
    for (int i = 0; i < args->rounds; i++) {
        if (kill_one(d, m, role, &outcomes[i]))
            return -1;
        further[i] = outcomes[i].further;
    }
    struct bench_rows rows = bench_await_rows(d, args->n, START_MS);
    if (rows.rank < 0)
        return -1;
    const int n = args->rounds;
    double middle = bench_middle(further, n);
    printf("{\"name\":\"recovery_%s\",\"durability\":\"%s\",\"rows\":%.0f,\"resident\":%.0f,"
           "\"value\":%.3f,\"unit\":\"s\",\"baseline\":%.3f,"
           "\"baseline_name\":\"start of the job\",\"ratio\":%.2f,\"min\":%.3f,\"max\":%.3f,"
           "\"rounds\":%d,\"lives\":%.3f,\"serves\":%.3f,\"ready\":%.3f,\"steps\":%.3f,"
           "\"steps_again\":%.0f}\n",
           role->title, args->durability, rows.all, rows.resident, middle, start_s,
           middle / start_s, further[0], further[n - 1], n,
           middle_of(outcomes, n, offsetof(struct outcome, lives)),
           middle_of(outcomes, n, offsetof(struct outcome, serves)),
           middle_of(outcomes, n, offsetof(struct outcome, ready)),
           middle_of(outcomes, n, offsetof(struct outcome, steps)),
           middle_of(outcomes, n, offsetof(struct outcome, n_again)));
    fflush(stdout);
    return 0;
}

/* ROLE,ROLE,...; of a tiny run two. */
static bool wanted(const struct bench_args *args, int i)
{
    if (args->only)
        return strstr(args->only, roles[i].name) != NULL;
    return !args->tiny || i == 0 || i == N_ROLES - 1;
}

int main(int argc, char **argv)
{
    static struct bench_metrics metrics;
    static struct bench_job job;
    char settings[512], memory[32];
    struct bench_args args = {.rounds = 5, .n = 200000, .durability = "snapshot"};
    if (!bench_args_take(argc, argv, &args))
        return 64;
    if (args.tiny)
        args.rounds = 1;
    snprintf(memory, sizeof(memory), "%ldMiB", 64 + args.n / 2000); /* rows, twice over */
    snprintf(settings, sizeof(settings),
             "servers: 2\nshards: 2\nworkers: 2\nmax_restarts: 1000\nsnapshot_every: 0\nkeep: 2\n"
             "start_timeout_ms: 120000\nmemory_bytes: %s\ndurability: %s\nstaleness: %d\n",
             args.memory ? args.memory : memory, args.durability,
             strcmp(args.durability, "log") == 0);
    bool failed = bench_filled_open(&job, &args, settings) != 0;
    if (failed || args.rounds == 0)
        return bench_filled_close(&job, &args, failed);
    bench_look(&job.d, &metrics); /* the fill, and runs before */
    int n_before = metrics.n_steps;
    int64_t began_ms = bench_wall_ms();
    failed = driver_start(&job.d, SLUICE, NULL) != 0;
    while (!failed && metrics.n_steps == n_before) {
        bench_watch(&job.d, &metrics, 5);
        failed = bench_wall_ms() > began_ms + START_MS;
    }
    int64_t first_ms = failed ? 0 : metrics.time_ms[n_before];
    for (int i = 0; i < N_ROLES && !failed; i++)
        if (wanted(&args, i))
            failed =
                measure(&job.d, &metrics, &roles[i], &args, (double)(first_ms - began_ms) / 1000);
    kill(job.d.pid, SIGTERM);
    failed |= driver_wait(&job.d, START_MS) != 75;
    return bench_filled_close(&job, &args, failed);
}

/* What benches of whole jobs share: their arguments, a data set of any size, a job on it, and its
 * metrics.jsonl, read on as it grows, so that rates and longest steps can be told of any window of
 * time.
 *
 *     bench_NAME [--tiny] [--rounds N] [--data DIR | --keep DIR] [thousands, of what it says]
 *
 * --data: a set made before, by `sluice generate`, where making it takes longer than the machine
 * can be kept quiet. --keep: see bench_fill.h.
 */
#ifndef TESTS_BENCH_BENCH_JOB_H
#define TESTS_BENCH_BENCH_JOB_H

#include "tests/bench/bench_numbers.h"
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"

#include <inttypes.h>
#include <stdint.h>

enum { BENCH_MAX_LINES = 1 << 18, BENCH_MAX_ROUNDS = 32 };

struct bench_args {
    bool tiny;
    int rounds;
    const char *data, *keep;
    const char *only, *durability, *memory; /* bench_recovery's */
    long n;
};

struct bench_job {
    struct small_data data;
    struct driver d;
    char set[600];
};

/* metrics.jsonl so far, read on from where the last look ended */
struct bench_metrics {
    long offset;
    int n_steps, n_snapshots;
    uint64_t step[BENCH_MAX_LINES];
    int64_t time_ms[BENCH_MAX_LINES];
    uint64_t highest; /* step so far: after a roll-back steps are done again */
    int64_t highest_ms;
    int64_t snapshot_ms; /* when the newest was whole */
    bool is_delta;       /* the newest stands upon another */
    /* the newest change of shape: when buckets began to move and had, when it was over */
    int n_changes, n_moved;
    int64_t moving_ms, moved_ms, changed_ms;
};

struct bench_window {
    int first, last; /* lines of metrics */
};

/* False when they make no sense. tiny: what --tiny sets n and rounds to is up to the bench. */
static inline bool bench_args_take(int argc, char **argv, struct bench_args *args)
{
    const struct {
        const char *flag, **value;
    } texts[] = {{"--data", &args->data},
                 {"--keep", &args->keep},
                 {"--only", &args->only},
                 {"--durability", &args->durability},
                 {"--memory", &args->memory}};
    const size_t n_texts = sizeof(texts) / sizeof(*texts);
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < n_texts && strcmp(argv[i], texts[k].flag) != 0)
            k++;
        if (strcmp(argv[i], "--tiny") == 0)
            args->tiny = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            args->rounds = atoi(argv[++i]);
        else if (k < n_texts && i + 1 < argc)
            *texts[k].value = argv[++i];
        else
            args->n = atol(argv[i]) * 1000;
    }
    if (args->tiny)
        args->n = 2000;
    return args->rounds >= (args->keep ? 0 : 1) && args->rounds <= BENCH_MAX_ROUNDS &&
           args->n >= 1000;
}

/* Makes the data of that many users, unless it was given, and opens the job: not started yet. */
static inline int bench_job_open(struct bench_job *job, const struct bench_args *args, long users,
                                 const char *settings)
{
    char text[2048];
    if (small_data_open_folder(&job->data))
        return -1;
    snprintf(job->set, sizeof(job->set), "%s", args->data ? args->data : job->data.set);
    if (!args->data && small_data_generate(&job->data, SLUICE, users, users / 4 + 200, users * 2))
        return -1;
    snprintf(text, sizeof(text),
             "data: %s\nheads: 2\nhistory: 10\nbatch: 256\nlog_every: 1\nepochs: 1000\n"
             "read: greedy\n%s",
             job->set, settings);
    return driver_open(&job->d, text);
}

/* What every bench of a job begins with: its arguments, the job opened for users_a_row * n users.
 * 0, or the code to exit with. */
static inline int bench_job_begin(int argc, char **argv, struct bench_args *args, int tiny_rounds,
                                  struct bench_job *job, long users_a_row, const char *settings)
{
    if (!bench_args_take(argc, argv, args))
        return 64;
    if (args->tiny)
        args->rounds = tiny_rounds;
    return bench_job_open(job, args, users_a_row * args->n, settings) ? 1 : 0;
}

/* Ends it; what it ended with, and whatever is left, is a failure too. */
static inline bool bench_job_close(struct bench_job *job, bool failed)
{
    failed |= driver_left(&job->d, 2000) > 0;
    driver_close(&job->d, failed);
    small_data_close(&job->data);
    return failed;
}

static inline int64_t bench_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void bench_take_change(struct bench_metrics *m, const char *line, int64_t time_ms)
{
    const char *moved = strstr(line, "\"moved\":");
    if (strstr(line, "\"state\":\"moving\"")) {
        m->moving_ms = time_ms;
        m->moved_ms = 0;
    } else if (m->moving_ms && !m->moved_ms) {
        m->moved_ms = time_ms; /* or servers are leaving */
    }
    if (strstr(line, "\"state\":\"none\"")) {
        m->changed_ms = time_ms;
        m->n_moved = moved ? atoi(moved + strlen("\"moved\":")) : 0;
        m->n_changes++;
    }
}

/* Reads what was written since the last look. */
static inline void bench_look(const struct driver *d, struct bench_metrics *m)
{
    char path[700], line[16384];
    snprintf(path, sizeof(path), "%s/out/run/metrics.jsonl", d->folder);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    fseek(file, m->offset, SEEK_SET);
    while (fgets(line, sizeof(line), file) && strchr(line, '\n') && m->n_steps < BENCH_MAX_LINES) {
        int64_t time_ms = 0;
        const char *step = strstr(line, "\"step\":");
        m->offset = ftell(file);
        if (sscanf(line, "{\"time_ms\":%" SCNd64, &time_ms) != 1 || !step)
            continue;
        if (strstr(line, "\"kind\":\"snapshot\"") && strstr(line, "\"status\":0")) {
            m->n_snapshots++;
            m->snapshot_ms = time_ms;
            m->is_delta = !strstr(line, "\"base_step\":0,");
        } else if (strstr(line, "\"kind\":\"change\"")) {
            bench_take_change(m, line, time_ms);
        } else if (strstr(line, "\"kind\":\"progress\"")) {
            m->step[m->n_steps] = strtoull(step + strlen("\"step\":"), NULL, 10);
            if (m->step[m->n_steps] > m->highest) {
                m->highest = m->step[m->n_steps];
                m->highest_ms = time_ms;
            }
            m->time_ms[m->n_steps++] = time_ms;
        }
    }
    fclose(file);
}

/* Looks on for a while. */
static inline void bench_watch(const struct driver *d, struct bench_metrics *m, int64_t ms)
{
    for (int64_t until = bench_wall_ms() + ms; bench_wall_ms() < until; driver_nap(5))
        bench_look(d, m);
}

/* Waits for a step above `step`; the time of its report, or -1. */
static inline int64_t bench_await_step(const struct driver *d, struct bench_metrics *m,
                                       uint64_t step, int64_t timeout_ms)
{
    int64_t until = bench_wall_ms() + timeout_ms;
    for (bench_look(d, m); m->highest <= step; bench_look(d, m)) {
        if (bench_wall_ms() > until)
            return -1;
        driver_nap(5);
    }
    return m->highest_ms;
}

/* The lines that lie within this time, and the one before it. */
static inline struct bench_window bench_between(const struct bench_metrics *m, int64_t from_ms,
                                                int64_t to_ms)
{
    struct bench_window window = {0, m->n_steps - 1};
    while (window.first + 1 < m->n_steps && m->time_ms[window.first + 1] <= from_ms)
        window.first++;
    while (window.last > window.first && m->time_ms[window.last] > to_ms)
        window.last--;
    return window;
}

/* Steps a second. */
static inline double bench_rate(const struct bench_metrics *m, struct bench_window w)
{
    int64_t ms = m->time_ms[w.last] - m->time_ms[w.first];
    return ms > 0 ? 1000.0 * (double)(m->step[w.last] - m->step[w.first]) / (double)ms : 0;
}

/* Seconds. */
static inline double bench_longest_step(const struct bench_metrics *m, struct bench_window w)
{
    int64_t longest = 0;
    for (int i = w.first + 1; i <= w.last; i++)
        if (m->time_ms[i] - m->time_ms[i - 1] > longest)
            longest = m->time_ms[i] - m->time_ms[i - 1];
    return (double)longest / 1000;
}

#endif

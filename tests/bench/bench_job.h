/* What benches of whole jobs share: a data set of any size, and metrics.jsonl of a job that runs,
 * read on as it grows, so that rates and longest steps can be told of any window of time.
 */
#ifndef TESTS_BENCH_BENCH_JOB_H
#define TESTS_BENCH_BENCH_JOB_H

#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"

#include <inttypes.h>
#include <stdint.h>

enum { BENCH_MAX_LINES = 1 << 18 };

/* metrics.jsonl so far, read on from where the last look ended */
struct bench_metrics {
    long offset;
    int n_steps, n_snapshots;
    uint64_t step[BENCH_MAX_LINES];
    int64_t time_ms[BENCH_MAX_LINES];
    int64_t snapshot_ms; /* when the newest was whole */
    /* the newest change of shape: when buckets began to move and had, when it was over */
    int n_changes, n_moved;
    int64_t moving_ms, moved_ms, changed_ms;
};

struct bench_window {
    int first, last; /* lines of metrics */
};

static inline int bench_make_data(const struct small_data *d, long users, char *set,
                                  size_t set_bytes)
{
    char command[1400];
    snprintf(set, set_bytes, "%s/bench", d->folder);
    snprintf(command, sizeof(command),
             "'%s' generate --users %ld --items %ld --samples %ld --seed 3 --out '%s' >/dev/null",
             SLUICE, users, users / 4 + 200, users * 2, set);
    return system(command);
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
        } else if (strstr(line, "\"kind\":\"change\"")) {
            bench_take_change(m, line, time_ms);
        } else if (strstr(line, "\"kind\":\"progress\"")) {
            m->step[m->n_steps] = strtoull(step + strlen("\"step\":"), NULL, 10);
            m->time_ms[m->n_steps++] = time_ms;
        }
    }
    fclose(file);
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

static inline int bench_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#endif

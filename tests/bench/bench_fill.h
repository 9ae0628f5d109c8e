/* A job whose tables truly hold as many rows as a bench says: a fill comes first, then the job goes
 * on from its snapshot.
 *
 *     generate   0.64 n viewings of 64 a user, of ten times as many videos: each shows a new video,
 *                and mostly a new author, so there are about n different ids
 *     fill       one epoch of the job itself, with large batches and no id hidden: each id's row
 *                is pushed at least once; its last snapshot holds them all
 *     the job    the same model and tables; what a bench says of rows is what the servers told
 *
 * With --keep DIR the data (DIR/set) and the job with its rows (DIR/job) stay, and whoever comes
 * with the same DIR goes on from where the last one ended; --rounds 0 only fills. The fill waits
 * for whoever is slow, so it may be frozen for a while.
 */
#ifndef TESTS_BENCH_BENCH_FILL_H
#define TESTS_BENCH_BENCH_FILL_H

#include "tests/bench/bench_job.h"

#include <jansson.h>

enum { FILL_WITHIN_MS = 3600000 };

/* Rows of the servers that are there, by their last reports. */
struct bench_rows {
    double all, resident;
    double newest; /* the asked figure of the last server by rank */
    int rank;      /* of it; -1: no server is there */
};

static inline struct bench_rows bench_count_rows(const struct driver *d, const char *figure)
{
    char command[1200];
    struct bench_rows rows = {.rank = -1};
    snprintf(command, sizeof(command), "'%s' status --json '%s/out'", SLUICE, d->folder);
    FILE *pipe = popen(command, "r");
    json_t *root = pipe ? json_loadf(pipe, 0, NULL) : NULL, *member;
    size_t i;
    if (pipe)
        pclose(pipe);
    json_array_foreach(json_object_get(root, "members"), i, member)
    {
        const char *role = json_string_value(json_object_get(member, "role"));
        const char *state = json_string_value(json_object_get(member, "state"));
        json_t *figures = json_object_get(member, "figures");
        if (!role || strcmp(role, "ps") != 0 || !state || strcmp(state, "drained") == 0 || !figures)
            continue;
        rows.rank = (int)json_integer_value(json_object_get(member, "rank")); /* listed by rank */
        rows.newest = json_number_value(json_object_get(figures, figure));
        rows.all += json_number_value(json_object_get(figures, "rows"));
        rows.resident += json_number_value(json_object_get(figures, "resident_rows"));
    }
    json_decref(root);
    return rows;
}

/* Waits until the servers have told of at least nine tenths of n rows, which they do every other
 * second: what they told, or rank -1. */
static inline struct bench_rows bench_await_rows(const struct driver *d, long n, int64_t timeout_ms)
{
    struct bench_rows rows = {.rank = -1};
    for (int64_t until = driver_now_ms() + timeout_ms; driver_now_ms() < until; driver_nap(200)) {
        rows = bench_count_rows(d, "rows");
        if (rows.rank >= 0 && rows.all >= 0.9 * (double)n)
            return rows;
    }
    printf("  the servers hold %.0f rows, not %ld\n", rows.all, n);
    rows.rank = -1;
    return rows;
}

static inline bool bench_is_there(const char *folder, const char *name)
{
    char path[800];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* The fill, unless the job has a snapshot already. */
static inline int bench_fill(struct driver *d)
{
    char *flags[] = {"--epochs",
                     "1",
                     "--id-dropout",
                     "0",
                     "--batch",
                     "16384",
                     "--samples-per-user",
                     "64",
                     "--staleness",
                     "1",
                     "--snapshot-every",
                     "0",
                     "--dead-after-ms",
                     "600000",
                     "--request-timeout-ms",
                     "600000",
                     "--start-timeout-ms",
                     "600000",
                     "--log-every",
                     "50",
                     "--durability",
                     "snapshot",
                     NULL};
    if (bench_is_there(d->folder, "out/run/snapshot/latest"))
        return 0;
    int code = driver_start(d, SLUICE, flags) ? -1 : driver_wait(d, FILL_WITHIN_MS);
    if (code)
        printf("  the fill ended with %d: %s\n", code, d->text);
    return code;
}

/* What a bench of a filled job begins with: data, the job's file, the fill; the job is not started.
 * settings: what goes beside those of the tables and the model. */
static inline int bench_filled_open(struct bench_job *job, const struct bench_args *args,
                                    const char *settings)
{
    char path[700];
    if (!args->keep && small_data_open_folder(&job->data))
        return -1;
    if (args->keep)
        snprintf(job->data.folder, sizeof(job->data.folder), "%s", args->keep);
    snprintf(job->d.folder, sizeof(job->d.folder), "%s/job", job->data.folder);
    snprintf(job->data.set, sizeof(job->data.set), "%s/set", job->data.folder);
    if ((mkdir(job->data.folder, 0755) && errno != EEXIST) ||
        (mkdir(job->d.folder, 0755) && errno != EEXIST))
        return -1;
    long viewings = args->n / 100 * 64;
    if (!bench_is_there(job->data.folder, "set") &&
        small_data_generate_split(&job->data, SLUICE, viewings / 64, 10 * viewings, viewings, 1))
        return -1;
    snprintf(path, sizeof(path), "%s/job.yaml", job->d.folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fprintf(file,
            "out: %s/out\ndata: %s\nwidth: 16\nheads: 2\nhistory: 10\nfeature_dim: 32\n"
            "batch: 256\nid_dropout: 0\nlog_every: 1\nepochs: 1000\nread: greedy\n%s",
            job->d.folder, job->data.set, settings);
    return fclose(file) ? -1 : bench_fill(&job->d);
}

/* Ends it; what it ended with, and whatever process is left, is a failure too. */
static inline bool bench_filled_close(struct bench_job *job, const struct bench_args *args,
                                      bool failed)
{
    failed |= driver_left(&job->d, 2000) > 0;
    if (failed)
        printf("--- %s\n%s---\n", job->d.folder, job->d.text);
    if (!failed && !args->keep)
        small_data_close(&job->data);
    return failed;
}

#endif

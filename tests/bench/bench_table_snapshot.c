/* What snapshots and restarts of a table in memory cost.
 *
 * Snapshots: a tenth of the rows is pushed all the time (so that is what a delta holds, and what
 * has to be flushed before a file can be written), while a snapshot gets what a server gives it
 * beside training (ps/: half a millisecond, then a pause of four). The rate of the pushes meanwhile
 * stands beside that before and after; MB/s are also taken with all the time in the world, beside
 * dd: as many bytes into a file of the same folder, in blocks of 1 MiB, with fsync.
 *
 * Restarts: of an environment that holds a snapshot, and of one whose push log holds it all.
 */
#include "cluster/file.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"
#include "tests/bench/bench_table.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = BENCH_BATCH, SLICE_US = 500, PAUSE_MS = 4, HOT_SHARE = 10 };

struct table {
    const struct bench_options *options;
    struct emb_shard *shard;
    char dir[600], file[620];
    uint64_t random, step;
    uint64_t keys[BATCH];
    float *grads; /* [BATCH, dim] */
};

static void must(int status, const char *what)
{
    if (status) {
        fprintf(stderr, "bench_table: %s: %s\n", what, clu_status_text(status));
        exit(70);
    }
}

static void open_table(struct table *t, enum emb_durability durability)
{
    struct emb_table_spec spec;
    bench_spec(&spec, t->options->dim);
    struct emb_shard_options open = {
        .dir = t->dir, .durability = durability, .log_bytes = (uint64_t)1 << 40};
    must(emb_shard_open(&open, &spec, 1, &t->shard), "open");
}

/* Pushes rows [from, to) in order, a batch a step. */
static void create_rows(struct table *t, uint64_t to)
{
    for (uint64_t i = 0; i < to; i += BATCH) {
        size_t n = to - i < BATCH ? to - i : BATCH;
        for (size_t j = 0; j < n; j++)
            t->keys[j] = bench_key(i + j);
        must(emb_shard_push(t->shard, 0, t->keys, n, t->grads, ++t->step), "push");
        must(emb_shard_tick(t->shard, t->step), "tick");
        must(emb_shard_commit(t->shard), "commit");
    }
}

static void push_hot(struct table *t)
{
    for (int i = 0; i < BATCH; i++)
        t->keys[i] = bench_key(bench_random(&t->random) % (t->options->rows / HOT_SHARE + 1));
    must(emb_shard_push(t->shard, 0, t->keys, BATCH, t->grads, ++t->step), "push");
    must(emb_shard_tick(t->shard, t->step), "tick");
}

/* Rows/s of pushes alone. */
static double push_alone(struct table *t, double seconds)
{
    double began = bench_now(), now = began;
    uint64_t n = 0;
    for (; now - began < seconds; now = bench_now(), n += BATCH)
        push_hot(t);
    return (double)n / (now - began);
}

/* Rows/s of pushes until the running snapshot is whole. */
static double push_beside(struct table *t, struct emb_snapshot_result *result, double *longest_ms_p)
{
    double began = bench_now(), next = began, now = began;
    uint64_t n = 0;
    for (;; n += BATCH) {
        push_hot(t);
        now = bench_now();
        if (now < next)
            continue;
        int status = emb_shard_snapshot_advance(t->shard, SLICE_US, result);
        *longest_ms_p = fmax(*longest_ms_p, (bench_now() - now) * 1e3);
        if (status == CLU_OK)
            break;
        if (status != CLU_E_AGAIN)
            must(status, "snapshot");
        next = now + PAUSE_MS * 1e-3;
    }
    return (double)n / (now - began);
}

static double dd(const struct table *t, uint64_t bytes)
{
    static char block[1 << 20];
    char path[640];
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (char)(i * 31);
    snprintf(path, sizeof(path), "%s/dd", t->options->dir);
    double began = bench_now();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    bool right = fd >= 0;
    for (uint64_t at = 0; at < bytes && right; at += sizeof(block))
        right = write(fd, block, sizeof(block)) == (ssize_t)sizeof(block);
    right = right && fsync(fd) == 0;
    double took = bench_now() - began;
    if (!right)
        must(CLU_E_IO, path);
    close(fd);
    unlink(path);
    return (double)bytes * 1e-6 / took;
}

struct samples {
    double file[BENCH_MAX_ROUNDS], dd[BENCH_MAX_ROUNDS], file_ratio[BENCH_MAX_ROUNDS];
    double push[BENCH_MAX_ROUNDS], alone[BENCH_MAX_ROUNDS], push_ratio[BENCH_MAX_ROUNDS];
    double paced[BENCH_MAX_ROUNDS], longest_ms;
};

/* Until the merge behind a confirmed snapshot is done, which is not the pushes' alone. */
static void settle(struct table *t)
{
    struct emb_shard_stats stats;
    uint64_t written = 0;
    for (int still = 0; still < 50; still++) {
        usleep(1000);
        must(emb_shard_tick(t->shard, ++t->step), "tick");
        emb_shard_stats(t->shard, &stats);
        still = stats.written_bytes == written ? still : 0;
        written = stats.written_bytes;
    }
}

/* One snapshot beside pushes, and one alone with dd behind it. */
static void one_round(struct table *t, enum emb_snapshot_kind kind, struct samples *s, int r)
{
    struct emb_snapshot_result result;
    const double seconds = t->options->seconds;
    settle(t);
    double before = push_alone(t, seconds);
    must(emb_shard_snapshot_begin(t->shard, kind, t->step, t->file), "begin");
    s->push[r] = push_beside(t, &result, &s->longest_ms);
    must(emb_shard_snapshot_confirm(t->shard, result.step), "confirm");
    unlink(t->file);
    s->paced[r] = (double)result.size_bytes * 1e-6 / result.seconds;
    settle(t);
    s->alone[r] = (before + push_alone(t, seconds)) / 2;
    s->push_ratio[r] = s->push[r] / s->alone[r];
    must(emb_shard_snapshot_begin(t->shard, kind, t->step, t->file), "begin");
    must(emb_shard_snapshot_advance(t->shard, INT64_MAX, &result), "snapshot");
    must(emb_shard_snapshot_confirm(t->shard, result.step), "confirm");
    unlink(t->file);
    s->file[r] = (double)result.size_bytes * 1e-6 / result.seconds;
    s->dd[r] = dd(t, result.size_bytes);
    s->file_ratio[r] = s->file[r] / s->dd[r];
}

static void table_init(struct table *t, const struct bench_options *options, const char *name)
{
    *t = (struct table){.options = options, .random = 1};
    snprintf(t->dir, sizeof(t->dir), "%s/%s", options->dir, name);
    snprintf(t->file, sizeof(t->file), "%s/%s-file", options->dir, name);
    t->grads = calloc(BATCH * (size_t)options->dim, sizeof(float));
    if (!t->grads)
        exit(71);
    for (size_t i = 0; i < BATCH * (size_t)options->dim; i++)
        t->grads[i] = (float)(bench_random(&t->random) % 2001) * 1e-6f - 1e-3f;
}

static void table_fini(struct table *t)
{
    emb_shard_close(t->shard);
    clu_remove_tree(t->dir);
    free(t->grads);
}

void bench_snapshots(const struct bench_options *options)
{
    struct table t;
    const int n = options->rounds;
    table_init(&t, options, "snapshot");
    open_table(&t, EMB_DURABILITY_SNAPSHOT);
    create_rows(&t, options->rows);
    must(emb_shard_snapshot(t.shard, t.step, t.file, NULL), "first snapshot");
    unlink(t.file);
    for (int kind = EMB_SNAPSHOT_FULL; kind <= EMB_SNAPSHOT_DELTA; kind++) {
        struct samples s = {.longest_ms = 0};
        const bool full = kind == EMB_SNAPSHOT_FULL;
        for (int r = 0; r < n; r++)
            one_round(&t, (enum emb_snapshot_kind)kind, &s, r);
        bench_versus(full ? "snapshot_full" : "snapshot_delta", s.file,
                     "MB/s, begin to fsync, all time given", "dd, fsync", s.dd, s.file_ratio, n);
        bench_line(full ? "snapshot_full_paced" : "snapshot_delta_paced",
                   bench_spread_of(s.paced, n), "MB/s, begin to fsync, 0.5 ms in 4.5", NULL, 0, 0);
        bench_versus(full ? "push_beside_full" : "push_beside_delta", s.push, "rows/s",
                     "without a snapshot", s.alone, s.push_ratio, n);
        bench_line(full ? "longest_slice_full" : "longest_slice_delta",
                   (struct bench_spread){s.longest_ms, 0}, "ms", NULL, 0, 0);
    }
    table_fini(&t);
}

static void report_restart(struct table *t, const char *name, enum emb_durability durability)
{
    double rate[BENCH_MAX_ROUNDS];
    for (int r = 0; r < t->options->rounds; r++) {
        struct emb_table_stats stats;
        emb_shard_close(t->shard);
        double began = bench_now();
        open_table(t, durability);
        must(emb_shard_warm_advance(t->shard, INT64_MAX / 2), "reading ahead");
        double took = bench_now() - began;
        emb_shard_table_stats(t->shard, 0, &stats);
        if (stats.n_rows != t->options->rows)
            must(CLU_E_BUG, name);
        rate[r] = (double)stats.n_resident / took;
    }
    bench_line(name, bench_spread_of(rate, t->options->rounds), "rows/s, all in memory again", NULL,
               0, 0);
}

void bench_restart(const struct bench_options *options)
{
    struct table t;
    table_init(&t, options, "restart-lmdb");
    open_table(&t, EMB_DURABILITY_SNAPSHOT);
    create_rows(&t, options->rows);
    must(emb_shard_snapshot(t.shard, t.step, t.file, NULL), "snapshot");
    unlink(t.file);
    report_restart(&t, "restart_lmdb", EMB_DURABILITY_SNAPSHOT);
    table_fini(&t);
    table_init(&t, options, "restart-log");
    open_table(&t, EMB_DURABILITY_LOG);
    create_rows(&t, options->rows);
    report_restart(&t, "restart_log", EMB_DURABILITY_LOG);
    table_fini(&t);
}

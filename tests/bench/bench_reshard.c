/* Snapshots read back: a full one of four shards with two deltas upon it, rewritten for six shards,
 * and restored into two. The baselines are what the disk and the checksum alone allow: a copy of
 * the same bytes with fsync, and reading every file with its checksums.
 *
 *     bench_reshard [--tiny] [rows in thousands, default 1000]      TMPDIR: where the files go
 */
#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"
#include "embeddings/snapshot_split.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OLD = 4, LINKS = 3, NEW = 6, RESTORED = 2, N_IN = OLD * LINKS, MAX_ROUNDS = 5 };

static char dir[256], in_text[N_IN][300], out_text[NEW][300];
static const char *in[N_IN], *out[NEW];
static struct emb_table_spec spec;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Keys in order, every fifth changed in each delta. */
static int write_files(uint64_t n_rows)
{
    const uint64_t hash = clu_table_hash(spec.name);
    char *value = calloc(1, emb_value_bytes(&spec));
    int status = value ? CLU_OK : CLU_E_NO_MEMORY;
    for (int f = 0; f < N_IN && !status; f++) {
        struct emb_snapshot_info info = {.is_delta = f >= OLD,
                                         .step = 100 * (uint64_t)(f / OLD + 1),
                                         .base_step = 100 * (uint64_t)(f / OLD),
                                         .n_tables = 1};
        struct emb_snapshot_writer *writer = NULL;
        info.tables[0] = spec;
        status = emb_snapshot_writer_open(in[f], &info, &writer);
        emb_value_set_u32(value, EMB_VALUE_COUNT, (uint32_t)info.step);
        for (uint64_t k = 0; k < n_rows && !status; k += f < OLD ? 1 : 5)
            if (clu_bucket_of(hash, k) * OLD / CLU_N_BUCKETS == (uint32_t)(f % OLD))
                status = emb_snapshot_writer_row(writer, 0, k, value);
        if (status)
            emb_snapshot_writer_abort(writer);
        else
            status = emb_snapshot_writer_finish(writer, NULL);
    }
    free(value);
    return status;
}

static int reshard(double *seconds_p, uint64_t *n_rows_p)
{
    struct emb_snapshot_result results[NEW];
    struct emb_split_options options = {
        .in = in, .n_in = N_IN, .out = out, .n_out = NEW, .memory_bytes = (uint64_t)1 << 30};
    for (uint32_t b = 0; b < CLU_N_BUCKETS; b++)
        options.shard_of[b] = (uint16_t)(b * NEW / CLU_N_BUCKETS);
    double began = now();
    int status = emb_snapshot_split(&options, results);
    *seconds_p = now() - began;
    *n_rows_p = 0;
    for (int i = 0; i < NEW && !status; i++)
        *n_rows_p += results[i].n_rows;
    return status;
}

/* Every byte of the files in, to one file out. */
static int copy(double *seconds_p)
{
    static char chunk[1 << 20];
    char path[300];
    snprintf(path, sizeof(path), "%s/copy", dir);
    double began = now();
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), failed = to < 0;
    for (int f = 0; f < NEW && !failed; f++) { /* as many bytes as reshard writes */
        int from = open(out[f], O_RDONLY);
        ssize_t n = 0;
        while (!failed && (n = read(from, chunk, sizeof(chunk))) > 0)
            failed = write(to, chunk, (size_t)n) != n;
        failed |= from < 0 || n < 0;
        close(from);
    }
    failed |= fsync(to) != 0;
    close(to);
    *seconds_p = now() - began;
    unlink(path);
    return failed ? CLU_E_IO : CLU_OK;
}

static bool is_mine(uint32_t bucket, void *arg)
{
    return bucket * RESTORED / CLU_N_BUCKETS == *(uint32_t *)arg;
}

static int restore(double *seconds_p, uint64_t *n_rows_p)
{
    double began = now();
    *n_rows_p = 0;
    for (uint32_t s = 0; s < RESTORED; s++) {
        char path[300];
        struct emb_shard *shard = NULL;
        struct emb_shard_stats stats;
        snprintf(path, sizeof(path), "%s/shard-%u", dir, s);
        struct emb_shard_options options = {.dir = path};
        int status = emb_shard_open(&options, &spec, 1, &shard);
        if (!status)
            status = emb_shard_load(shard, in, N_IN, is_mine, &s);
        if (status)
            return status;
        emb_shard_stats(shard, &stats);
        *n_rows_p += stats.n_rows;
        *seconds_p = now() - began; /* closing is not part of it */
        double closing = now();
        emb_shard_close(shard);
        clu_remove_tree(path);
        began += now() - closing;
    }
    return CLU_OK;
}

static int read_all(double *seconds_p)
{
    double began = now();
    int status = CLU_OK;
    for (int f = 0; f < N_IN && !status; f++)
        status = emb_snapshot_verify(in[f], NULL, NULL);
    *seconds_p = now() - began;
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, double *rate, double *base, int n, const char *baseline_name)
{
    double ratio[MAX_ROUNDS];
    for (int i = 0; i < n; i++)
        ratio[i] = rate[i] / base[i];
    qsort(rate, (size_t)n, sizeof(*rate), by_value);
    qsort(base, (size_t)n, sizeof(*base), by_value);
    qsort(ratio, (size_t)n, sizeof(*ratio), by_value);
    printf("{\"name\":\"%s\",\"value\":%.0f,\"unit\":\"rows/s\",\"baseline\":%.0f,"
           "\"baseline_name\":\"%s\",\"ratio\":%.3f,\"min\":%.3f,\"max\":%.3f,\"rounds\":%d}\n",
           name, rate[n / 2], base[n / 2], baseline_name, ratio[n / 2], ratio[0], ratio[n - 1], n);
}

int main(int argc, char **argv)
{
    bool tiny = argc > 1 && strcmp(argv[1], "--tiny") == 0;
    uint64_t n_rows = tiny ? 20000 : argc > 1 ? strtoull(argv[1], NULL, 10) * 1000 : 1000000;
    int rounds = tiny ? 1 : MAX_ROUNDS;
    double rate[2][MAX_ROUNDS], base[2][MAX_ROUNDS], seconds[4];
    const char *top = getenv("TMPDIR");
    clu_log_init(CLU_LOG_WARN, "bench", -1, false);
    snprintf(dir, sizeof(dir), "%s/sluice-bench-reshard-%d", top ? top : "/tmp", (int)getpid());
    for (int f = 0; f < N_IN; f++)
        in[f] = (snprintf(in_text[f], sizeof(in_text[f]), "%s/in-%d", dir, f), in_text[f]);
    for (int f = 0; f < NEW; f++)
        out[f] = (snprintf(out_text[f], sizeof(out_text[f]), "%s/out-%d", dir, f), out_text[f]);
    emb_table_spec_init(&spec);
    strcpy(spec.name, "item");
    spec.dim = 32;
    int status = clu_mkdirs(dir);
    if (!status)
        status = write_files(n_rows);
    for (int i = 0; i < rounds && !status; i++) {
        uint64_t n_written = 0, n_restored = 0;
        status = reshard(&seconds[0], &n_written);
        if (!status)
            status = copy(&seconds[1]);
        if (!status)
            status = restore(&seconds[2], &n_restored);
        if (!status)
            status = read_all(&seconds[3]);
        if (!status && (n_written != n_rows || n_restored != n_rows))
            status =
                clu_fail(CLU_E_BUG, "%llu and %llu rows of %llu", (unsigned long long)n_written,
                         (unsigned long long)n_restored, (unsigned long long)n_rows);
        for (int j = 0; j < 2 && !status; j++) {
            rate[j][i] = (double)n_rows / seconds[2 * j];
            base[j][i] = (double)n_rows / seconds[2 * j + 1];
        }
        for (int f = 0; f < NEW; f++)
            unlink(out[f]);
    }
    clu_remove_tree(dir);
    if (!status) {
        report("reshard", rate[0], base[0], rounds, "copy of the bytes written, with fsync");
        report("restore", rate[1], base[1], rounds, "reading the files with their checksums");
    }
    return status != CLU_OK;
}

/* A billion rows on one machine: a table of users, --dim floats a row, with a few GB of memory.
 * Rows are created by pushes in key order, as a first pass over sorted logs would, then the Zipf
 * traffic of the beyond-memory case runs over all of them.
 *
 * Storage bf16 and rowwise_adagrad: 28 bytes of its own a row of 8 floats, key included. Before it
 * begins the disk is asked; with less than what the rows take and 10 GB of headroom the largest
 * power of two that fits is run, and said. A line a 10 s goes to stderr; loading ends at --limit
 * seconds, or when the headroom is touched, with the rows that are there
 * by then, and the traffic runs over those.
 */
#include "embeddings/row.h"
#include "tests/bench/bench_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

static const uint64_t memory_bytes = (uint64_t)4 << 30;
static const double headroom_bytes = 10e9;

static void user_spec(struct emb_table_spec *spec, int dim)
{
    bench_spec(spec, dim);
    spec->optimizer = EMB_ROWWISE_ADAGRAD;
    spec->dtype = EMB_BF16;
    spec->learning_rate = 0.01;
}

/* On disk: LMDB's node (8 + key 8 + an offset 2), our header (6), the value; a tenth for pages that
 * are not full. */
static double row_disk_bytes(int dim)
{
    struct emb_table_spec spec;
    user_spec(&spec, dim);
    return 1.1 * (24 + (double)emb_value_bytes(&spec));
}

/* The most resident bytes of this process so far. */
static double peak_resident(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (double)kib * 1024;
}

static void one_line(const char *name, double value, const char *unit)
{
    bench_line(name, bench_spread_of(&value, 1), unit, NULL, 0, 0);
}

static int pull(void *self, const uint64_t *keys, size_t n, float *rows)
{
    return emb_shard_pull(self, 0, keys, n, rows);
}

static int push(void *self, const uint64_t *keys, size_t n, const float *grads, uint64_t step)
{
    int status = emb_shard_push(self, 0, keys, n, grads, step);
    return status ? status : emb_shard_tick(self, step);
}

/* What may be written before the headroom is touched. */
static double room_bytes(const struct bench_options *options)
{
    struct statvfs disk;
    if (statvfs(options->dir, &disk))
        exit(71);
    return (double)disk.f_bavail * (double)disk.f_frsize - headroom_bytes;
}

/* Creates rows 0..n-1 of n, or as many as the time allows; their number. */
static uint64_t load(struct bench_race *race, struct emb_shard *shard, uint64_t n, double limit)
{
    const double began = bench_now();
    double shown = began;
    uint64_t i = 0;
    while (i < n) {
        size_t batch = n - i < BENCH_BATCH ? (size_t)(n - i) : BENCH_BATCH;
        for (size_t j = 0; j < batch; j++)
            race->keys[j] = bench_spread_key(i + j, n);
        if (push(shard, race->keys, batch, race->grads, ++race->step))
            exit(70);
        i += batch;
        double now = bench_now();
        if (now - shown > 10) {
            struct emb_shard_stats stats;
            emb_shard_stats(shard, &stats);
            fprintf(
                stderr,
                "%.0f s: %llu of %llu rows, %llu of them dirty, %.1f GB on disk, peak %.2f GB\n",
                now - began, (unsigned long long)i, (unsigned long long)n,
                (unsigned long long)stats.n_dirty, (double)stats.file_bytes * 1e-9,
                peak_resident() * 1e-9);
            shown = now;
        }
        if (now - began > limit || (i % (1024 * BENCH_BATCH) == 0 && room_bytes(race->options) < 0))
            break;
    }
    one_line("billion_rows", (double)i, "rows");
    one_line("billion_load", (double)i / (bench_now() - began), "rows/s");
    return i;
}

static void traffic(struct bench_race *race, const struct bench_store *store)
{
    const struct bench_options *o = race->options;
    double samples[BENCH_MAX_ROUNDS];
    bench_race_run(race, store, 20 * o->seconds);
    for (int r = 0; r < o->rounds; r++)
        samples[r] = bench_race_run(race, store, 4 * o->seconds);
    bench_line("billion", bench_spread_of(samples, o->rounds), "rows/s", NULL, 0, 0);
}

static void report(struct emb_shard *shard)
{
    struct emb_shard_stats stats;
    struct emb_table_stats table;
    emb_shard_stats(shard, &stats);
    emb_shard_table_stats(shard, 0, &table);
    double peak = peak_resident();
    bench_line("billion_peak_resident", bench_spread_of(&peak, 1), "bytes", "the budget",
               (double)memory_bytes, peak / (double)memory_bytes);
    one_line("billion_disk", (double)stats.file_bytes, "bytes");
    double per_row = (double)stats.file_bytes / (double)stats.n_rows;
    bench_line("billion_disk_row", bench_spread_of(&per_row, 1), "bytes a row",
               "the row's own bytes", (double)table.row_bytes, (double)table.row_bytes / per_row);
    one_line("billion_in_memory", (double)stats.n_resident, "rows");
    one_line("billion_longest_tick", (double)stats.longest_slice_us * 1e-3, "ms");
}

void bench_billion(const struct bench_options *options)
{
    char dir[600];
    struct emb_table_spec spec;
    struct emb_shard *shard;
    struct bench_race *race = calloc(1, sizeof(*race));
    uint64_t n = options->billion;
    if (!race)
        exit(71);
    double room = room_bytes(options);
    if ((double)n * row_disk_bytes(options->dim) > room) {
        for (n = 1; 2 * (double)n * row_disk_bytes(options->dim) <= room;)
            n *= 2;
        fprintf(stderr, "%llu rows need %.0f GB and 10 GB of headroom; %llu fit\n",
                (unsigned long long)options->billion,
                (double)options->billion * row_disk_bytes(options->dim) * 1e-9,
                (unsigned long long)n);
    }
    snprintf(dir, sizeof(dir), "%s/billion", options->dir);
    struct emb_shard_options open = {.dir = dir, .memory_bytes = memory_bytes};
    user_spec(&spec, options->dim);
    if (emb_shard_open(&open, &spec, 1, &shard))
        exit(70);
    bench_race_init(race, options, n);
    uint64_t loaded = load(race, shard, n, options->limit);
    struct bench_store store = {.name = "sluice", .self = shard, .pull = pull, .push = push};
    race->n_rows = loaded;
    bench_zipf_init(&race->zipf, loaded, 1.05);
    traffic(race, &store);
    report(shard);
    emb_shard_close(shard);
    bench_race_fini(race);
    free(race);
}

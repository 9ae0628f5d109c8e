/* The embedding engine beside its limits: one JSON line a figure, ratios within one run.
 *
 *   gather, push, mixed      rows/s in memory, one thread, beside a bare prefetched loop over an
 *                            array of the same size (which knows where its rows are: no table)
 *   gather_l2                the gather beside a bare loop that fetches to the second cache, too
 *   walks                    what bounds the gather, taken apart: see bench_table_walks.c
 *   row_bytes                a row's own bytes over the bytes resident for it
 *   growth_push, _pull       longest of each while the table grows from nothing, and 99.9 % of them
 *   row_bytes_small          the same for rows of 8 floats, bf16, adam: where the index counts most
 *   snapshot_*, push_beside_*, restart_*: see bench_table_snapshot.c
 *   beyond_memory            20 M rows with memory for 2 M: see bench_table_beyond.c
 *   billion                  only with --billion N: see bench_table_billion.c
 *
 * Parts for --only: beyond; memory, or of it growth (the filling alone), gather, gather_l2, push,
 * mixed; small, walks, snapshot, restart.
 *
 * Arguments: --tiny, --rows N, --beyond-rows N, --dim N, --rounds N, --seconds S, --dir DIR, --only
 * PART, --billion N, --limit S (of its loading), --cpu (processor time beyond memory too).
 * Contestants take turns round by round; a figure is the median, its spread (max - min) / median.
 */
#include "tests/bench/bench_table.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = BENCH_BATCH };

double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double bench_clock(const struct bench_options *options)
{
    struct timespec now;
    if (!options->cpu)
        return bench_now();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

uint64_t bench_random(uint64_t *state)
{
    return clu_mix(*state += 0x9e3779b97f4a7c15u);
}

uint64_t bench_key(uint64_t number)
{
    return clu_mix(number + 0x1234567);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct bench_spread bench_spread_of(double *samples, int n)
{
    qsort(samples, (size_t)n, sizeof(*samples), ascending);
    double median = samples[n / 2];
    return (struct bench_spread){median, median > 0 ? (samples[n - 1] - samples[0]) / median : 0};
}

void bench_line(const char *name, struct bench_spread value, const char *unit,
                const char *baseline_name, double baseline, double ratio)
{
    printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"spread\":%.3f", name, value.median,
           unit, value.spread);
    if (baseline_name)
        printf(",\"baseline\":%.6g,\"baseline_name\":\"%s\",\"ratio\":%.4g", baseline,
               baseline_name, ratio);
    printf("}\n");
    fflush(stdout);
}

void bench_versus(const char *name, double *ours, const char *unit, const char *baseline_name,
                  double *baseline, double *ratio, int n)
{
    double value = bench_spread_of(ours, n).median, limit = bench_spread_of(baseline, n).median;
    double versus = bench_spread_of(ratio, n).median;
    printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"min\":%.6g,\"max\":%.6g,"
           "\"baseline\":%.6g,\"baseline_name\":\"%s\",\"ratio\":%.3f,\"ratio_min\":%.3f,"
           "\"ratio_max\":%.3f}\n",
           name, value, unit, ours[0], ours[n - 1], limit, baseline_name, versus, ratio[0],
           ratio[n - 1]);
    fflush(stdout);
}

void bench_skip(const char *name, const char *why)
{
    printf("{\"name\":\"%s\",\"skipped\":\"%s\"}\n", name, why);
    fflush(stdout);
}

void bench_resident(uint64_t *all_p, uint64_t *file_p)
{
    unsigned long long size = 0, resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%llu %llu %llu", &size, &resident, &shared) != 3)
            resident = shared = 0;
        fclose(file);
    }
    *all_p = resident * 4096;
    *file_p = shared * 4096;
}

uint64_t bench_written(void)
{
    char line[128];
    unsigned long long bytes = 0;
    FILE *file = fopen("/proc/self/io", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "wchar: %llu", &bytes) == 1)
            break;
    fclose(file);
    return bytes;
}

void bench_spec(struct emb_table_spec *spec, int dim)
{
    emb_table_spec_init(spec);
    snprintf(spec->name, sizeof(spec->name), "user");
    spec->dim = dim;
    spec->seed = 7;
}

/* ---- the bare loop ---- */

bool bench_bare_open(struct bench_bare *bare, uint64_t n, int dim)
{
    struct emb_table_spec spec;
    bench_spec(&spec, dim);
    *bare = (struct bench_bare){.stride = 3 * (size_t)dim, .n = n, .dim = dim};
    size_t bytes = (n * bare->stride * 4 + (2 << 20)) & ~(size_t)((2 << 20) - 1);
    bare->rows = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bare->rows == MAP_FAILED || emb_updater_init(&bare->updater, &spec))
        return false;
    madvise(bare->rows, bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < n * bare->stride; i++)
        bare->rows[i] = (float)(i & 255) * 1e-3f;
    return true;
}

void bench_bare_close(struct bench_bare *bare)
{
    munmap(bare->rows, (bare->n * bare->stride * 4 + (2 << 20)) & ~(size_t)((2 << 20) - 1));
    emb_updater_fini(&bare->updater);
}

/* Inlined, so that the hint is a constant; 24 and 32 rows ahead were the best of several. */
static inline __attribute__((always_inline)) void bare_copy(const struct bench_bare *bare,
                                                            const uint64_t *numbers, size_t n,
                                                            float *out, const size_t ahead,
                                                            const bool to_l2)
{
    const size_t bytes = 4 * (size_t)bare->dim;
    for (size_t i = 0; i < n; i++) {
        if (i + ahead < n) {
            const char *row = (const char *)(bare->rows + numbers[i + ahead] * bare->stride);
            for (size_t at = 0; at < bytes; at += 64) {
                if (to_l2)
                    __builtin_prefetch(row + at, 0, 2);
                else
                    __builtin_prefetch(row + at);
            }
        }
        memcpy(out + i * (size_t)bare->dim, bare->rows + numbers[i] * bare->stride, bytes);
    }
}

void bench_bare_pull(const struct bench_bare *bare, const uint64_t *numbers, size_t n, float *out,
                     bool to_l2)
{
    if (to_l2)
        bare_copy(bare, numbers, n, out, 32, true);
    else
        bare_copy(bare, numbers, n, out, 24, false);
}

static void bare_push(const struct bench_bare *bare, const uint64_t *numbers, size_t n,
                      const float *grads)
{
    const size_t bytes = 4 * bare->stride;
    for (size_t i = 0; i < n; i++) {
        if (i + 8 < n) {
            const char *row = (const char *)(bare->rows + numbers[i + 8] * bare->stride);
            for (size_t at = 0; at < bytes; at += 64)
                __builtin_prefetch(row + at, 1);
        }
        float *row = bare->rows + numbers[i] * bare->stride;
        emb_update(&bare->updater, row, row + bare->dim, grads + i * (size_t)bare->dim, 5);
    }
}

/* ---- in memory ---- */

struct memory_bench {
    const struct bench_options *options;
    struct emb_shard *shard;
    struct bench_bare bare;
    uint64_t random, step;
    uint64_t numbers[BATCH], keys[BATCH];
    float *rows, *grads; /* [BATCH, dim] */
};

enum what { GATHER, GATHER_L2, PUSH, MIXED };

static void draw(struct memory_bench *b)
{
    for (int i = 0; i < BATCH; i++) {
        b->numbers[i] = bench_random(&b->random) % b->options->rows;
        b->keys[i] = bench_key(b->numbers[i]);
    }
}

/* Processor time of this thread: in memory nothing else is waited for, and others may want the
 * core. */
static double cpu_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Rows/s of one contestant for options->seconds; drawing keys is not timed. */
static double run(struct memory_bench *b, enum what what, bool bare)
{
    double busy = 0;
    uint64_t n = 0;
    for (uint64_t i = 0; busy < b->options->seconds; i++, n += BATCH) {
        draw(b);
        bool push = what == PUSH || (what == MIXED && i % 2);
        double began = cpu_now();
        int status = CLU_OK;
        if (bare && push)
            bare_push(&b->bare, b->numbers, BATCH, b->grads);
        else if (bare)
            bench_bare_pull(&b->bare, b->numbers, BATCH, b->rows, what == GATHER_L2);
        else if (push)
            status = emb_shard_push(b->shard, 0, b->keys, BATCH, b->grads, ++b->step);
        else
            status = emb_shard_pull(b->shard, 0, b->keys, BATCH, b->rows);
        busy += cpu_now() - began;
        if (status)
            exit(70);
    }
    return (double)n / busy;
}

/* Both in each round, one after the other: the ratio is the median of the rounds' ratios. */
static void compare(struct memory_bench *b, enum what what, const char *name)
{
    double ours[BENCH_MAX_ROUNDS], bare[BENCH_MAX_ROUNDS], ratio[BENCH_MAX_ROUNDS];
    const int n = b->options->rounds;
    run(b, what, false); /* warms up */
    for (int r = 0; r < n; r++) {
        ours[r] = run(b, what, false);
        bare[r] = run(b, what, true);
        ratio[r] = ours[r] / bare[r];
    }
    bench_versus(name, ours, "rows/s", "bare prefetched loop", bare, ratio, n);
}

static void longest(const char *name, double *samples, size_t n)
{
    char text[80];
    qsort(samples, n, sizeof(*samples), ascending);
    snprintf(text, sizeof(text), "%s_median_ms", name);
    bench_line(text, (struct bench_spread){samples[n / 2], 0}, "ms for 4096 rows", NULL, 0, 0);
    snprintf(text, sizeof(text), "%s_p999_ms", name);
    bench_line(text, (struct bench_spread){samples[n - 1 - n / 1000], 0}, "ms for 4096 rows", NULL,
               0, 0);
    snprintf(text, sizeof(text), "%s_longest_ms", name);
    bench_line(text, (struct bench_spread){samples[n - 1], 0}, "ms for 4096 rows", NULL, 0, 0);
}

/* --only memory is all of these; one of them by its name is only that, after the filling. */
static bool is_asked(const struct bench_options *options, const char *part)
{
    return !options->only || strcmp(options->only, "memory") == 0 ||
           strcmp(options->only, part) == 0;
}

/* Milliseconds of each push of a batch, and of a pull of rows that are there after it. create: the
 * pushes make the table's rows; else they go to rows that are there, as many times. */
static void push_and_pull(struct memory_bench *b, bool create, double *pushes, double *pulls)
{
    const uint64_t rows = b->options->rows;
    for (uint64_t i = 0; i < rows; i += BATCH) {
        const size_t n = rows - i < BATCH ? rows - i : BATCH;
        const uint64_t there = create ? i + n : rows;
        for (size_t j = 0; j < n; j++)
            b->keys[j] = bench_key(create ? i + j : bench_random(&b->random) % there);
        double start = cpu_now();
        if (emb_shard_push(b->shard, 0, b->keys, n, b->grads, ++b->step))
            exit(70);
        pushes[i / BATCH] = (cpu_now() - start) * 1e3;
        for (size_t j = 0; j < BATCH; j++)
            b->keys[j] = bench_key(bench_random(&b->random) % there);
        start = cpu_now();
        if (emb_shard_pull(b->shard, 0, b->keys, BATCH, b->rows))
            exit(70);
        pulls[i / BATCH] = (cpu_now() - start) * 1e3;
    }
}

/* Fills the table by pushes, and pulls rows that are there after each; how long these take at most
 * while the table grows from nothing (processor time: others may want the core) and, to tell what
 * of it is the growth, when it has grown; and the memory per row. */
static void fill(struct memory_bench *b)
{
    const size_t n_steps = (size_t)(b->options->rows + BATCH - 1) / BATCH;
    double *pushes = calloc(n_steps, sizeof(double)), *pulls = calloc(n_steps, sizeof(double));
    double began = bench_now();
    uint64_t before, after, file;
    if (!pushes || !pulls)
        exit(71);
    bench_resident(&before, &file);
    push_and_pull(b, true, pushes, pulls);
    bench_resident(&after, &file);
    struct emb_table_stats stats;
    emb_shard_table_stats(b->shard, 0, &stats);
    double rate[1] = {(double)b->options->rows / (bench_now() - began)};
    bench_line("create", bench_spread_of(rate, 1), "rows/s", NULL, 0, 0);
    longest("growth_push", pushes, n_steps);
    longest("growth_pull", pulls, n_steps);
    if (is_asked(b->options, "growth")) {
        push_and_pull(b, false, pushes, pulls);
        longest("still_push", pushes, n_steps);
        longest("still_pull", pulls, n_steps);
    }
    double per_row[1] = {(double)(after - before) / (double)b->options->rows};
    bench_line("row_bytes", bench_spread_of(per_row, 1), "resident bytes", "the row's own bytes",
               (double)stats.row_bytes, (double)stats.row_bytes / per_row[0]);
    double held[1] = {(double)stats.memory_bytes / (double)b->options->rows};
    bench_line("row_bytes_held", bench_spread_of(held, 1), "bytes by the shard's own count", NULL,
               0, 0);
    free(pushes);
    free(pulls);
}

static struct emb_shard *open_memory_shard(const struct bench_options *options)
{
    char dir[600];
    struct emb_table_spec spec;
    struct emb_shard *shard;
    bench_spec(&spec, options->dim);
    snprintf(dir, sizeof(dir), "%s/memory", options->dir);
    struct emb_shard_options open = {.dir = dir};
    return emb_shard_open(&open, &spec, 1, &shard) == CLU_OK ? shard : NULL;
}

static void in_memory(const struct bench_options *options)
{
    struct memory_bench *b = calloc(1, sizeof(*b));
    b->options = options;
    b->random = 1;
    b->rows = calloc(BATCH * (size_t)options->dim, sizeof(float));
    b->grads = calloc(BATCH * (size_t)options->dim, sizeof(float));
    b->shard = open_memory_shard(options);
    if (!b->shard || !b->rows || !b->grads)
        exit(70);
    for (size_t i = 0; i < BATCH * (size_t)options->dim; i++)
        b->grads[i] = (float)(bench_random(&b->random) % 2001) * 1e-6f - 1e-3f;
    fill(b);
    const char *const races[] = {"gather", "gather_l2", "push", "mixed"};
    bool any = false;
    for (int i = GATHER; i <= MIXED; i++)
        any |= is_asked(options, races[i]);
    if (any && !bench_bare_open(&b->bare, options->rows, options->dim))
        exit(71);
    for (int i = GATHER; i <= MIXED; i++)
        if (is_asked(options, races[i]))
            compare(b, (enum what)i, races[i]);
    if (any)
        bench_bare_close(&b->bare);
    emb_shard_close(b->shard);
    free(b->rows);
    free(b->grads);
    free(b);
}

/* Resident bytes of rows of about a hundred bytes. */
static void small_rows(const struct bench_options *options)
{
    char dir[600];
    uint64_t before, after, file, keys[BATCH];
    static float grads[BATCH * 8];
    struct emb_table_spec spec;
    struct emb_shard *shard;
    bench_spec(&spec, 8);
    spec.dtype = EMB_BF16;
    snprintf(dir, sizeof(dir), "%s/small", options->dir);
    struct emb_shard_options open = {.dir = dir};
    bench_resident(&before, &file);
    if (emb_shard_open(&open, &spec, 1, &shard))
        exit(70);
    for (uint64_t i = 0; i < options->rows; i += BATCH) {
        size_t n = options->rows - i < BATCH ? options->rows - i : BATCH;
        for (size_t j = 0; j < n; j++)
            keys[j] = bench_key(i + j);
        if (emb_shard_push(shard, 0, keys, n, grads, 1 + i / BATCH))
            exit(70);
    }
    bench_resident(&after, &file);
    struct emb_table_stats stats;
    emb_shard_table_stats(shard, 0, &stats);
    double per_row[1] = {(double)(after - before) / (double)options->rows};
    bench_line("row_bytes_small", bench_spread_of(per_row, 1), "resident bytes",
               "the row's own bytes", (double)stats.row_bytes,
               (double)stats.row_bytes / per_row[0]);
    emb_shard_close(shard);
}

/* ---- arguments ---- */

int main(int argc, char **argv)
{
    struct bench_options options = {.rows = 10000000,
                                    .beyond_rows = 20000000,
                                    .dim = 32,
                                    .rounds = 5,
                                    .seconds = 1,
                                    .limit = 3600};
    const char *top = getenv("TMPDIR");
    snprintf(options.dir, sizeof(options.dir), "%s/sluice-bench-table-%d", top ? top : "/tmp",
             (int)getpid());
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--cpu") == 0) {
            options.cpu = true;
            continue;
        }
        if (strcmp(argv[i], "--tiny") == 0) {
            options = (struct bench_options){.tiny = true,
                                             .rows = 20000,
                                             .beyond_rows = 40000,
                                             .dim = 32,
                                             .rounds = 1,
                                             .limit = 3600,
                                             .seconds = 0.05};
            snprintf(options.dir, sizeof(options.dir), "%s/sluice-bench-table-%d",
                     top ? top : "/tmp", (int)getpid());
            continue;
        }
        if (strcmp(argv[i], "--rows") == 0)
            options.rows = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--beyond-rows") == 0)
            options.beyond_rows = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--dim") == 0)
            options.dim = atoi(value);
        else if (strcmp(argv[i], "--rounds") == 0)
            options.rounds = atoi(value);
        else if (strcmp(argv[i], "--seconds") == 0)
            options.seconds = atof(value);
        else if (strcmp(argv[i], "--dir") == 0)
            snprintf(options.dir, sizeof(options.dir), "%s/sluice-bench-table-%d", value,
                     (int)getpid());
        else if (strcmp(argv[i], "--only") == 0)
            options.only = value;
        else if (strcmp(argv[i], "--limit") == 0)
            options.limit = atof(value);
        else if (strcmp(argv[i], "--billion") == 0)
            options.billion = strtoull(value, NULL, 10);
        else
            return 64;
        i++;
    }
    if (options.rounds < 1 || options.rounds > BENCH_MAX_ROUNDS || clu_mkdirs(options.dir))
        return 64;
    if (options.billion) {
        bench_billion(&options);
    } else {
        static const char *const apart[] = {"small", "walks", "snapshot", "restart", "beyond"};
        static void (*const parts[])(const struct bench_options *) = {
            small_rows, bench_walks, bench_snapshots, bench_restart, bench_beyond};
        bool is_apart = false;
        for (int i = 0; i < 5; i++)
            is_apart |= options.only && strcmp(options.only, apart[i]) == 0;
        if (!is_apart)
            in_memory(&options);
        for (int i = 0; i < 5; i++)
            if (!options.only || strcmp(options.only, apart[i]) == 0)
                parts[i](&options);
    }
    clu_remove_tree(options.dir);
    return 0;
}

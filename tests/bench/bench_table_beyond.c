/* Tables larger than memory: 20 M rows of 32 floats with adam (392 bytes each), memory for 2 M of
 * them, Zipf 1.05, 90 % pulls in batches of 4096 and 10 % pushes: the shard, RocksDB with a block
 * cache of the same bytes, and plain LMDB gets and puts (whose cache is the page cache, all of it).
 * The page cache is the machine's and serves all three alike. A push reads, updates and writes a
 * row in the other stores just as in the shard.
 */
#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"
#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"
#include "tests/bench/bench_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PULLS_A_PUSH = 9 };

/* ---- Zipf ---- */

static double h_integral(double x, double s)
{
    return (pow(x, 1 - s) - 1) / (1 - s);
}

static double h_inverse(double x, double s)
{
    return pow(1 + x * (1 - s), 1 / (1 - s));
}

void bench_zipf_init(struct bench_zipf *zipf, uint64_t n, double s)
{
    *zipf = (struct bench_zipf){.n = n, .s = s};
    zipf->h_half = h_integral(1.5, s) - 1;
    zipf->h_n = h_integral((double)n + 0.5, s);
    zipf->cut = 2 - h_inverse(h_integral(2.5, s) - pow(2, -s), s);
}

uint64_t bench_zipf_rank(const struct bench_zipf *zipf, uint64_t *random)
{
    for (;;) {
        double u =
            zipf->h_n + (double)(bench_random(random) >> 11) * 0x1p-53 * (zipf->h_half - zipf->h_n);
        double x = h_inverse(u, zipf->s);
        double k = floor(x + 0.5);
        if (k < 1)
            k = 1;
        if (k > (double)zipf->n)
            k = (double)zipf->n;
        if (k - x <= zipf->cut || u >= h_integral(k + 0.5, zipf->s) - pow(k, -zipf->s))
            return (uint64_t)k - 1;
    }
}

/* ---- the shard ---- */

/* A snapshot file of n rows with keys spread evenly, ascending: what all stores are loaded from.
 * Row i of the file has the key whose place it is; bench_beyond asks for keys by the same rule. */
uint64_t bench_spread_key(uint64_t i, uint64_t n)
{
    return (uint64_t)(((__uint128_t)i << 64) / n);
}

static int write_rows(const char *path, const struct bench_options *options, uint64_t n)
{
    struct emb_snapshot_info info = {.step = 1, .n_tables = 1};
    struct emb_snapshot_writer *writer;
    bench_spec(&info.tables[0], options->dim);
    size_t bytes = emb_value_bytes(&info.tables[0]);
    char *value = calloc(1, bytes);
    int status = value ? emb_snapshot_writer_open(path, &info, &writer) : CLU_E_NO_MEMORY;
    for (uint64_t i = 0; i < n && !status; i++) {
        emb_value_set_u32(value, EMB_VALUE_COUNT, 1);
        emb_value_set_u32(value, EMB_VALUE_STEP, 1);
        emb_value_set_u32(value, EMB_VALUE_EMBEDDING, (uint32_t)i & 0x3effffff);
        status = emb_snapshot_writer_row(writer, 0, bench_spread_key(i, n), value);
    }
    if (!status)
        status = emb_snapshot_writer_finish(writer, NULL);
    free(value);
    return status;
}

static int shard_pull(void *self, const uint64_t *keys, size_t n, float *rows)
{
    return emb_shard_pull(self, 0, keys, n, rows);
}

static int shard_push(void *self, const uint64_t *keys, size_t n, const float *grads, uint64_t step)
{
    int status = emb_shard_push(self, 0, keys, n, grads, step);
    return status ? status : emb_shard_tick(self, step);
}

static void shard_close(void *self)
{
    emb_shard_close(self);
}

bool bench_open_shard(struct bench_store *store, const struct bench_options *options,
                      uint64_t n_rows, uint64_t memory_bytes)
{
    char dir[600], path[600];
    struct emb_table_spec spec;
    struct emb_shard *shard;
    bench_spec(&spec, options->dim);
    snprintf(dir, sizeof(dir), "%s/beyond", options->dir);
    snprintf(path, sizeof(path), "%s/rows", options->dir);
    struct emb_shard_options open = {.dir = dir, .memory_bytes = memory_bytes};
    const char *files[] = {path};
    if (write_rows(path, options, n_rows) || emb_shard_open(&open, &spec, 1, &shard))
        return false;
    double began = bench_now();
    if (emb_shard_load(shard, files, 1, NULL, NULL))
        return false;
    double rate[1] = {(double)n_rows / (bench_now() - began)};
    bench_line("load", bench_spread_of(rate, 1), "rows/s", NULL, 0, 0);
    clu_remove_tree(path);
    *store = (struct bench_store){"sluice", shard, shard_pull, shard_push, shard_close};
    return true;
}

/* ---- the race ---- */

static size_t draw(struct bench_race *race, bool distinct)
{
    size_t n = 0;
    uint64_t number[BENCH_BATCH];
    for (int i = 0; i < BENCH_BATCH; i++) { /* the hot rows lie scattered over the key space */
        uint64_t rank = bench_zipf_rank(&race->zipf, &race->random);
        uint64_t place = clu_mix(rank) % race->n_rows;
        if (distinct && (race->taken[place / 8] >> place % 8 & 1))
            continue;
        race->taken[place / 8] |= (uint8_t)(1 << place % 8);
        number[n] = place;
        race->keys[n++] = bench_spread_key(place, race->n_spread);
    }
    for (size_t i = 0; i < n; i++)
        race->taken[number[i] / 8] = 0;
    return n;
}

double bench_race_run(struct bench_race *race, const struct bench_store *store, double seconds)
{
    double busy = 0;
    uint64_t rows = 0;
    while (busy < seconds) {
        for (int i = 0; i <= PULLS_A_PUSH; i++) {
            bool push = i == PULLS_A_PUSH;
            size_t n = draw(race, push);
            double began = bench_clock(race->options);
            int status = push ? store->push(store->self, race->keys, n, race->grads, ++race->step)
                              : store->pull(store->self, race->keys, n, race->rows);
            busy += bench_clock(race->options) - began;
            if (status)
                exit(70);
            rows += n;
            race->n_pushed += push ? n : 0;
        }
    }
    return (double)rows / busy;
}

/* Warm-up until the stores are at work as they will ever be: twice as many rows pushed as memory
 * holds (a store that has not written yet has a debt that is not in its rate), if that does not
 * take too long. Then the measured rounds. */
static struct bench_spread measure(struct bench_race *race, const struct bench_store *store,
                                   double *written_p)
{
    double samples[BENCH_MAX_ROUNDS];
    const struct bench_options *o = race->options;
    const double enough = o->tiny ? 0.05 : 150;
    for (double busy = 0; busy < enough && race->n_pushed < race->n_rows / 5; busy += o->seconds)
        bench_race_run(race, store, o->seconds);
    uint64_t before = bench_written();
    race->n_pushed = 0;
    for (int r = 0; r < o->rounds; r++)
        samples[r] = bench_race_run(race, store, 4 * o->seconds);
    *written_p = (double)(bench_written() - before) / (double)race->n_pushed;
    return bench_spread_of(samples, o->rounds);
}

void bench_race_init(struct bench_race *race, const struct bench_options *options, uint64_t n_rows)
{
    size_t lanes = BENCH_BATCH * (size_t)options->dim;
    *race = (struct bench_race){
        .options = options, .n_rows = n_rows, .n_spread = n_rows, .random = 3, .step = 1};
    bench_zipf_init(&race->zipf, n_rows, 1.05);
    race->rows = calloc(lanes, sizeof(float));
    race->grads = calloc(lanes, sizeof(float));
    race->taken = calloc(n_rows / 8 + 1, 1);
    if (!race->rows || !race->grads || !race->taken)
        exit(71);
    for (size_t i = 0; i < lanes; i++)
        race->grads[i] = (float)(bench_random(&race->random) % 2001) * 1e-6f - 1e-3f;
}

void bench_race_fini(struct bench_race *race)
{
    free(race->rows);
    free(race->grads);
    free(race->taken);
}

static void report_shard(const struct bench_store *store, uint64_t memory)
{
    struct emb_shard_stats stats;
    uint64_t all, file;
    emb_shard_stats(store->self, &stats);
    bench_resident(&all, &file);
    double anonymous[1] = {(double)(all - file)};
    bench_line("beyond_memory_anonymous", bench_spread_of(anonymous, 1), "bytes", "the budget",
               (double)memory, (double)(all - file) / (double)memory);
    double resident[1] = {(double)all}, slice[1] = {(double)stats.longest_slice_us * 1e-3};
    bench_line("beyond_memory_resident", bench_spread_of(resident, 1), "bytes", "the budget",
               (double)memory, (double)all / (double)memory);
    bench_line("beyond_memory_longest_tick", bench_spread_of(slice, 1), "ms", NULL, 0, 0);
    double size[1] = {(double)stats.file_bytes / (double)stats.n_rows};
    bench_line("beyond_memory_disk", bench_spread_of(size, 1), "bytes a row", NULL, 0, 0);
}

void bench_beyond(const struct bench_options *options)
{
    typedef bool open_function(struct bench_store *, const struct bench_options *, uint64_t,
                               uint64_t);
    open_function *const open[3] = {bench_open_shard, bench_open_rocksdb, bench_open_lmdb};
    const char *const name[3] = {"beyond_memory", "beyond_memory_rocksdb", "beyond_memory_lmdb"};
    const char *const folder[3] = {"beyond", "rocksdb", "lmdb"};
    struct bench_spread value[3] = {{0, 0}};
    const uint64_t n = options->beyond_rows;
    const uint64_t memory =
        n / 10 * (392 + 32) * 4 / 3; /* a tenth of the rows in three quarters of it */
    for (int i = 0; i < 3; i++) {    /* the same keys for each */
        struct bench_race race;
        struct bench_store store;
        double written;
        bench_race_init(&race, options, n);
        double began = bench_now();
        if (!open[i](&store, options, n, memory)) {
            bench_skip(name[i], "it is not installed, or could not be opened");
            bench_race_fini(&race);
            continue;
        }
        char text[640];
        sync(); /* what loading left to be written is not the race's */
        struct bench_spread load = {(double)n / (bench_now() - began), 0};
        snprintf(text, sizeof(text), "%s_load", name[i]);
        bench_line(text, load, "rows/s, to disk", NULL, 0, 0);
        value[i] = measure(&race, &store, &written);
        struct bench_spread bytes = {written, 0};
        snprintf(text, sizeof(text), "%s_written", name[i]);
        if (i == 0)
            bench_line(name[0], value[0], "rows/s", NULL, 0, 0);
        else if (value[0].median > 0) {
            char versus[80];
            bench_line(name[i], value[i], "rows/s", NULL, 0, 0);
            snprintf(versus, sizeof(versus), "beyond_memory_vs_%s", store.name);
            bench_line(versus, value[0], "rows/s", store.name, value[i].median,
                       value[0].median / value[i].median);
        }
        bench_line(text, bytes, "bytes to write calls a row pushed", NULL, 0, 0);
        if (i == 0)
            report_shard(&store, memory);
        store.close(store.self);
        bench_race_fini(&race);
        snprintf(text, sizeof(text), "%s/%s", options->dir, folder[i]);
        clu_remove_tree(text); /* the next one's disk and page cache are its own */
    }
}

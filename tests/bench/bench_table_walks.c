/* What bounds a gather, taken apart.
 *
 *   page_near, page_far   ns a dependent load: one line in each of 1024 and of 16384 small pages,
 *                         in 4 and 64 MiB on huge pages. Both fit the second cache, and 32 huge
 *                         pages fit any TLB; so where far is much slower, the TLB holds small pages
 *                         after all (a virtual machine whose host maps small ones), and each far
 *                         line costs a walk
 *   walk_bare, walk_slots, walk_rows, walk_both
 *                         ns a row, each loop for itself after it has warmed up: the bare loop;
 *                         slots found by key; rows copied by slot; both in turns, batch by batch,
 *                         as a pull does. What both cost beyond their sum is what they evict of
 *                         each other's
 */
#include "embeddings/row.h"
#include "embeddings/store.h"
#include "tests/bench/bench_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, LINES = PAGE / 64, AHEAD = 32, PASSES = 5, WARM = 2 };

static char *map_huge(size_t bytes)
{
    char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        exit(71);
    madvise(base, bytes, MADV_HUGEPAGE);
    memset(base, 1, bytes);
    return base;
}

/* Pages are visited in a random circle. */
static void chase(const struct bench_options *options, const char *name, size_t n)
{
    const size_t huge = (size_t)2 << 20, bytes = n * PAGE + huge;
    char *base = map_huge(bytes), *pages = base + (huge - (uintptr_t)base % huge);
    uint32_t *order = malloc(n * sizeof(*order));
    uint64_t random = 1;
    double ns[BENCH_MAX_ROUNDS];
    if (!order)
        exit(71);
    for (size_t i = 0; i < n; i++) {
        size_t j = bench_random(&random) % (i + 1);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    for (size_t i = 0; i < n; i++) { /* at different lines, so that no set of the cache is full */
        char *at = pages + (size_t)order[i] * PAGE + order[i] * 7 % LINES * 64;
        const size_t next = order[(i + 1) % n];
        char *to = pages + next * PAGE + next * 7 % LINES * 64;
        memcpy(at, &to, sizeof(to));
    }
    char *at = pages + (size_t)order[0] * PAGE + order[0] * 7 % LINES * 64;
    for (int r = -1; r < options->rounds; r++) { /* once to warm up */
        const size_t loads = 20 * n;
        double began = bench_clock(options);
        for (size_t i = 0; i < loads; i++)
            memcpy(&at, at, sizeof(at));
        __asm__ volatile("" : : "r"(at)); /* it is needed */
        if (r >= 0)
            ns[r] = (bench_clock(options) - began) * 1e9 / (double)loads;
    }
    bench_line(name, bench_spread_of(ns, options->rounds), "ns a load", NULL, 0, 0);
    free(order);
    munmap(base, bytes);
}

struct walks {
    const struct bench_options *options;
    struct emb_store store;
    struct bench_bare bare;
    uint64_t random, numbers[BENCH_BATCH], keys[BENCH_BATCH];
    uint32_t slots[BENCH_BATCH];
    float *rows; /* [BENCH_BATCH, dim] */
};

enum loop { BARE, SLOTS, ROWS, BOTH };

static void copy_rows(struct walks *w)
{
    const struct emb_store *store = &w->store;
    const size_t bytes = 4 * (size_t)w->options->dim, at = EMB_ROW_HEADER;
    const struct emb_fetch fetch = {
        .from = EMB_ROW_HEADER, .to = EMB_ROW_HEADER + (uint32_t)bytes, .aligned = true};
    for (size_t i = 0; i < BENCH_BATCH; i++) {
        if (i + AHEAD < BENCH_BATCH)
            emb_store_fetch(store, w->slots[i + AHEAD], fetch);
        memcpy((char *)w->rows + i * bytes, emb_store_row(store, w->slots[i]) + at, bytes);
    }
}

/* ns a row of one loop alone, over rows never the same. */
static double run(struct walks *w, enum loop loop)
{
    const uint64_t batches = w->options->tiny ? 4 : 200;
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        double busy = 0;
        for (uint64_t b = 0; b < batches; b++) {
            for (int i = 0; i < BENCH_BATCH; i++) {
                w->numbers[i] = bench_random(&w->random) % w->options->rows;
                w->keys[i] = bench_key(w->numbers[i]);
                w->slots[i] = (uint32_t)w->numbers[i]; /* they were filled in this order */
            }
            double began = bench_clock(w->options);
            if (loop == BARE)
                bench_bare_pull(&w->bare, w->numbers, BENCH_BATCH, w->rows, false);
            if (loop == SLOTS || loop == BOTH)
                emb_store_locate(&w->store, w->keys, BENCH_BATCH, w->slots);
            if (loop == ROWS || loop == BOTH)
                copy_rows(w);
            busy += bench_clock(w->options) - began;
        }
        double ns = busy * 1e9 / (double)(batches * BENCH_BATCH);
        if (pass >= WARM && (best == 0 || ns < best))
            best = ns;
    }
    return best;
}

void bench_walks(const struct bench_options *options)
{
    static const char *const names[] = {"walk_bare", "walk_slots", "walk_rows", "walk_both"};
    static struct walks w;
    struct emb_table_spec spec;
    double ns[BENCH_MAX_ROUNDS];
    chase(options, "page_near", 1024);
    chase(options, "page_far", 16384);
    bench_spec(&spec, options->dim);
    w = (struct walks){.options = options, .random = 1};
    w.rows = calloc(BENCH_BATCH * (size_t)options->dim, sizeof(float));
    const size_t value_bytes = emb_value_bytes(&spec);
    if (!w.rows || !bench_bare_open(&w.bare, options->rows, options->dim) ||
        emb_store_init(&w.store, value_bytes, 5, options->rows * (value_bytes + 128) + (64 << 20)))
        exit(71);
    for (uint64_t i = 0; i < options->rows; i++) {
        uint32_t slot;
        if (emb_store_insert(&w.store, bench_key(i), &slot) || slot != i)
            exit(70);
        memset(emb_store_row(&w.store, slot) + 8, 0, value_bytes);
    }
    for (int loop = BARE; loop <= BOTH; loop++) {
        for (int r = 0; r < options->rounds; r++)
            ns[r] = run(&w, (enum loop)loop);
        bench_line(names[loop], bench_spread_of(ns, options->rounds), "ns a row", NULL, 0, 0);
    }
    emb_store_fini(&w.store);
    bench_bare_close(&w.bare);
    free(w.rows);
}

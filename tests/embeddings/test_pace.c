/* Work is spread over time: the arithmetic of it, and snapshots of real shards that keep to it
 * while rows are pushed, until they must not. */
#include "embeddings/pace.h"

#include "tests/embeddings/rig.h"

#include <time.h>

enum { N = 20000, DIM = 8, BATCH = 500 };

static const int64_t hour_us = (int64_t)3600 * 1000000;

static void test_work_waits_while_more_of_it_is_done_than_time_has_passed(void)
{
    struct emb_pace pace = {.began_us = 1000, .spread_us = 100};
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1000, 0, 10), 0); /* nothing is done yet */
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1000, 5, 5), 50);
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1049, 5, 5), 1);
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1050, 5, 5), 0);
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 9000, 5, 5), 0); /* late */
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1000, 5, 0), 100);
    emb_pace_set(&pace, 0);
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1000, 5, 5), 0);
    emb_pace_set(&pace, 100);
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1000, 5, 5), 50);
    emb_pace_hurry(&pace); /* for good */
    emb_pace_set(&pace, 100);
    CU_ASSERT_EQUAL(emb_pace_wait_us(&pace, 1000, 5, 5), 0);
}

struct paced {
    char dir[256], file[300];
    struct emb_shard *shard;
    uint64_t step;
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* A step of rows from `first` on. */
static void step_on(struct paced *p, uint64_t first)
{
    uint64_t keys[BATCH];
    static float grads[BATCH * DIM];
    p->step++;
    for (uint64_t i = 0; i < BATCH; i++)
        keys[i] = clu_mix(first + i);
    for (int i = 0; i < BATCH * DIM; i++)
        grads[i] = 1;
    CU_ASSERT_EQUAL_FATAL(emb_shard_push(p->shard, 0, keys, BATCH, grads, p->step), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_tick(p->shard, p->step), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_commit(p->shard), CLU_OK);
}

/* A shard of N rows, and a full snapshot of them that has begun. */
static void paced_open(struct paced *p, uint64_t memory_bytes)
{
    struct emb_table_spec spec;
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = DIM;
    memset(p, 0, sizeof(*p));
    rig_folder(p->dir, sizeof(p->dir), "pace");
    snprintf(p->file, sizeof(p->file), "%s/rows", p->dir);
    struct emb_shard_options options = {.dir = p->dir, .memory_bytes = memory_bytes};
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &p->shard), CLU_OK);
    for (uint64_t first = 0; first < N; first += BATCH)
        step_on(p, first);
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(p->shard, EMB_SNAPSHOT_FULL, p->step, p->file),
                          CLU_OK);
}

static void paced_close(struct paced *p)
{
    emb_shard_close(p->shard);
    clu_remove_tree(p->dir);
}

/* Steps with slices of the snapshot between them, until it ends or `until_us`; how it stands. */
static int train_beside(struct paced *p, int64_t until_us, struct emb_snapshot_result *result_p)
{
    int status;
    uint64_t n = 0;
    do {
        step_on(p, n++ * BATCH % N);
        status = emb_shard_snapshot_advance(p->shard, 200, result_p);
        usleep(500);
    } while (status == CLU_E_AGAIN && now_us() < until_us);
    return status;
}

/* As long as it was told, from a table of which every row is pushed meanwhile; the merge too. */
static void test_a_snapshot_takes_its_time_while_rows_are_pushed(void)
{
    enum { SPREAD_US = 300000 };
    struct paced p;
    struct emb_snapshot_result result;
    paced_open(&p, 0);
    uint64_t step = p.step;
    emb_shard_spread(p.shard, SPREAD_US);
    CU_ASSERT_EQUAL_FATAL(train_beside(&p, INT64_MAX, &result), CLU_OK);
    CU_ASSERT_EQUAL(result.n_rows, N);
    CU_ASSERT_EQUAL(result.step, step);
    CU_ASSERT(result.seconds > 0.9 * SPREAD_US * 1e-6); /* a piece is not waited for */
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_confirm(p.shard, step), CLU_OK);
    paced_close(&p);
}

/* The owner's time is for pulls and pushes: one who waits for the pace leaves it to them, however
 * much of it was offered. */
static void test_a_snapshot_that_waits_for_its_time_takes_none(void)
{
    struct paced p;
    struct emb_snapshot_result result;
    paced_open(&p, 0);
    emb_shard_spread(p.shard, hour_us);
    int64_t began = now_us();
    for (int i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(emb_shard_snapshot_advance(p.shard, 2000000, &result), CLU_E_AGAIN);
        usleep(2000);
    }
    CU_ASSERT(now_us() - began < 20000000); /* a half of what was offered */
    paced_close(&p);
}

/* In the middle of the flush, and in the middle of the file. */
static void test_a_snapshot_told_to_hurry_ends(void)
{
    static const int64_t spreads[] = {hour_us, 2000000};
    for (int i = 0; i < 2; i++) {
        struct paced p;
        struct emb_snapshot_result result;
        paced_open(&p, 0);
        emb_shard_spread(p.shard, spreads[i]);
        int status = train_beside(&p, now_us() + (i ? 1900000 : 100000), &result);
        CU_ASSERT_EQUAL(status, CLU_E_AGAIN);
        emb_shard_spread(p.shard, 0);
        if (status == CLU_E_AGAIN)
            status = train_beside(&p, INT64_MAX, &result);
        CU_ASSERT_EQUAL(status, CLU_OK);
        CU_ASSERT_EQUAL(result.n_rows, N);
        CU_ASSERT(result.seconds < 0.5e-6 * (double)hour_us);
        paced_close(&p);
    }
}

/* Rows that a snapshot has not written yet must stay in memory: where there is none left, they are
 * written whatever the pace says, and no push waits or fails. */
static void test_a_snapshot_that_is_in_the_way_of_memory_keeps_no_pace(void)
{
    enum { MEMORY = 2 << 20 };
    struct paced p;
    struct emb_snapshot_result result;
    struct emb_shard_stats stats;
    uint64_t worst = 0;
    paced_open(&p, MEMORY);
    emb_shard_spread(p.shard, hour_us);
    int status = CLU_E_AGAIN;
    for (uint64_t first = N; first < 10 * N; first += BATCH) {
        step_on(&p, first);
        if (status == CLU_E_AGAIN)
            status = emb_shard_snapshot_advance(p.shard, 200, &result);
        emb_shard_stats(p.shard, &stats);
        worst = stats.memory_bytes > worst ? stats.memory_bytes : worst;
    }
    printf("  %.1f MiB of %.1f\n", (double)worst / (1 << 20), (double)MEMORY / (1 << 20));
    CU_ASSERT(worst < 2 * MEMORY);
    CU_ASSERT_EQUAL(stats.n_rows, 10 * N);
    while (status == CLU_E_AGAIN)
        status = emb_shard_snapshot_advance(p.shard, INT64_MAX, &result);
    CU_ASSERT_EQUAL(status, CLU_OK);
    CU_ASSERT_EQUAL(result.n_rows, N);
    paced_close(&p);
}

SUITE("embeddings.pace", T(test_work_waits_while_more_of_it_is_done_than_time_has_passed),
      T(test_a_snapshot_takes_its_time_while_rows_are_pushed),
      T(test_a_snapshot_that_waits_for_its_time_takes_none), T(test_a_snapshot_told_to_hurry_ends),
      T(test_a_snapshot_that_is_in_the_way_of_memory_keeps_no_pace))

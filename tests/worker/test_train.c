/* The parts of training that a job's figures hang on: the feed counts steps over epochs and starts
 * anywhere, what regularisers hide does not depend on the number of ranks, and the dense update
 * does what it says. */
#include "tests/suite.h"
#include "tests/worker/data_rig.h"

#include "cluster/hash.h"
#include "model/params.h"
#include "worker/train_dense.h"
#include "worker/train_feed.h"

#include <math.h>

static struct wrk_dataset *dataset(void)
{
    static struct wrk_dataset *open;
    if (open)
        return open;
    size_t size = 1 << 18, at = 0;
    char *log = malloc(size);
    uint64_t seed = 9;
    static const char *const actions[] = {"click", "cart", "buy"};
    at += (size_t)snprintf(log, size, "u,i,a,t\n");
    for (int e = 0; e < 2500; e++)
        at += (size_t)snprintf(log + at, size - at, "%u,%u,%s,%d\n",
                               (unsigned)(suite_random(&seed) % 40),
                               (unsigned)(suite_random(&seed) % 90),
                               actions[suite_random(&seed) % 3], 1500000000 + e * 7);
    struct wrk_prepare_report report;
    if (rig_prepare(rig_schema_text, log, "data", &report) != CLU_OK ||
        wrk_dataset_open(rig_path("data"), &open) != CLU_OK)
        abort();
    free(log);
    return open;
}

static struct wrk_features the_features;

static struct wrk_feed_options feed_options(int rank, int n_ranks)
{
    struct clu_job job;
    memset(&job, 0, sizeof(job));
    clu_settings_defaults(clu_job_settings(&job));
    if (wrk_features_init(&the_features, wrk_dataset_info(dataset()), &job) != CLU_OK)
        abort();
    return (struct wrk_feed_options){
        .dataset = dataset(),
        .features = &the_features,
        .reader = {.split = WRK_SPLIT_TRAIN,
                   .seed = 3,
                   .batch = 100,
                   .samples_per_user = 4,
                   .history = 20,
                   .rank = rank,
                   .n_ranks = n_ranks,
                   .shuffle = true},
        .first_step = 1,
        .n_slots = 4,
    };
}

/* a hash of what a slot holds that does not depend on how it is laid out over ranks: a sum over
 * samples */
static uint64_t content(const struct wrk_samples *samples)
{
    uint64_t sum = 0;
    for (int b = 0; b < samples->n_samples; b++) {
        uint64_t h = clu_mix(samples->user_value[samples->sample_user[b]] + 1);
        h = clu_mix(h + samples->item_value[samples->sample_item[b]]);
        for (int i = samples->hist_offset[b]; i < samples->hist_offset[b + 1]; i++)
            h = clu_mix(h + samples->item_value[samples->seq_item[samples->hist_seq[i]]]);
        sum += h;
    }
    return sum;
}

/* contents and history lengths of steps first..first + n - 1, summed over ranks */
static void walk(int n_ranks, double history_dropout, struct wrk_position from, uint64_t first,
                 int n, uint64_t *contents, int *n_history)
{
    memset(contents, 0, (size_t)n * sizeof(*contents));
    *n_history = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        struct wrk_feed_options options = feed_options(rank, n_ranks);
        options.history_dropout = history_dropout;
        options.from = from;
        options.first_step = first;
        struct wrk_feed *feed = NULL;
        uint64_t n_batches;
        CU_ASSERT_EQUAL_FATAL(wrk_feed_start(&options, &feed, &n_batches), CLU_OK);
        for (int i = 0; i < n; i++) {
            struct wrk_feed_slot *slot;
            CU_ASSERT_EQUAL_FATAL(wrk_feed_next(feed, 10000, &slot), CLU_OK);
            CU_ASSERT_EQUAL(slot->step, first + (uint64_t)i);
            contents[i] += content(slot->samples);
            *n_history += slot->samples->hist_offset[slot->samples->n_samples];
            wrk_feed_return(feed, slot);
        }
        wrk_feed_stop(feed);
    }
}

static void test_the_feed_starts_anywhere_and_counts_over_epochs(void)
{
    enum { N = 50 };
    struct wrk_feed_options options = feed_options(0, 1);
    struct wrk_feed *feed = NULL;
    uint64_t n_batches, all[N], rest[N];
    int unused;
    CU_ASSERT_EQUAL_FATAL(wrk_feed_start(&options, &feed, &n_batches), CLU_OK);
    wrk_feed_stop(feed); /* nothing was taken: it must end all the same */
    CU_ASSERT_FATAL(n_batches > 5 && n_batches * 2 < N);
    walk(1, 0, (struct wrk_position){0, 0}, 1, N, all, &unused);
    CU_ASSERT_NOT_EQUAL(all[0], all[n_batches]); /* another epoch, another order */
    walk(1, 0, (struct wrk_position){0, 3}, 4, N - 3, rest, &unused);
    CU_ASSERT_EQUAL(memcmp(rest, all + 3, (N - 3) * sizeof(*all)), 0);
    walk(1, 0, (struct wrk_position){1, 2}, n_batches + 3, 5, rest, &unused);
    CU_ASSERT_EQUAL(memcmp(rest, all + n_batches + 2, 5 * sizeof(*all)), 0);
}

static void test_hidden_history_does_not_depend_on_ranks(void)
{
    enum { N = 8 };
    uint64_t one[N], three[N], none[N];
    int n_one, n_three, n_none;
    walk(1, 0, (struct wrk_position){0, 0}, 1, N, none, &n_none);
    walk(1, 0.4, (struct wrk_position){0, 0}, 1, N, one, &n_one);
    walk(3, 0.4, (struct wrk_position){0, 0}, 1, N, three, &n_three);
    CU_ASSERT_EQUAL(memcmp(one, three, sizeof(one)), 0);
    CU_ASSERT_EQUAL(n_one, n_three);
    double kept = (double)n_one / n_none;
    CU_ASSERT(fabs(kept - 0.6) < 0.03); /* thousands of entries */
}

/* two feeds that share the parts of 20 steps unevenly see together what one feed sees */
static void test_asked_batches_are_the_parts_that_were_asked_for(void)
{
    enum { N = 20, RANKS = 2 };
    uint64_t all[N], dealt[N] = {0}, n_batches;
    int n_all, n_dealt = 0;
    walk(1, 0.4, (struct wrk_position){0, 0}, 1, N, all, &n_all);
    for (int rank = 0; rank < RANKS; rank++) {
        struct wrk_feed_options options = feed_options(rank, RANKS);
        options.reader.asked = true;
        options.history_dropout = 0.4;
        struct wrk_feed *feed = NULL;
        CU_ASSERT_EQUAL_FATAL(wrk_feed_start(&options, &feed, &n_batches), CLU_OK);
        struct wrk_feed_slot *slot;
        rig_quiet(true);
        CU_ASSERT_EQUAL(wrk_feed_next(feed, 20, &slot), CLU_E_TIMEOUT); /* nothing is asked for */
        CU_ASSERT_EQUAL(wrk_feed_ask(feed, 1, (struct wrk_position){0, n_batches}, 0), CLU_E_BUG);
        CU_ASSERT_EQUAL(wrk_feed_ask(feed, 1, (struct wrk_position){0, 0}, RANKS), CLU_E_BUG);
        rig_quiet(false);
        for (uint64_t i = 0; i < N * RANKS; i++) {
            if ((i % 5 == 0) != (rank == 0)) /* rank 0 takes every fifth part */
                continue;
            struct wrk_position at = {i / RANKS / n_batches, i / RANKS % n_batches};
            CU_ASSERT_EQUAL_FATAL(wrk_feed_ask(feed, i / RANKS + 1, at, (int)(i % RANKS)), CLU_OK);
            CU_ASSERT_EQUAL_FATAL(wrk_feed_next(feed, 10000, &slot), CLU_OK);
            CU_ASSERT_EQUAL(slot->step, i / RANKS + 1);
            dealt[i / RANKS] += content(slot->samples);
            n_dealt += slot->samples->hist_offset[slot->samples->n_samples];
            wrk_feed_return(feed, slot);
        }
        for (int i = 0; i < 3; i++) /* left lying when it stops */
            CU_ASSERT_EQUAL(wrk_feed_ask(feed, N, (struct wrk_position){5, 0}, 0), CLU_OK);
        wrk_feed_stop(feed);
    }
    CU_ASSERT_EQUAL(memcmp(all, dealt, sizeof(all)), 0);
    CU_ASSERT_EQUAL(n_all, n_dealt);
}

static void test_a_feed_that_nobody_fills_is_not_waited_for(void)
{
    struct wrk_feed_options options = feed_options(0, 1);
    struct wrk_feed *feed = NULL;
    uint64_t n_batches;
    CU_ASSERT_EQUAL_FATAL(wrk_feed_start(&options, &feed, &n_batches), CLU_OK);
    struct wrk_feed_slot *slots[5];
    for (int i = 0; i < 4; i++)
        CU_ASSERT_EQUAL_FATAL(wrk_feed_next(feed, 10000, &slots[i]), CLU_OK);
    rig_quiet(true);
    CU_ASSERT_EQUAL(wrk_feed_next(feed, 50, &slots[4]), CLU_E_TIMEOUT); /* all slots are out */
    rig_quiet(false);
    wrk_feed_return(feed, slots[0]);
    CU_ASSERT_EQUAL(wrk_feed_next(feed, 10000, &slots[4]), CLU_OK);
    wrk_feed_stop(feed);
}

/* ---- dense ---- */

static const struct mdl_config config = {.n_actions = 4,
                                         .history = 3,
                                         .width = 8,
                                         .heads = 2,
                                         .user_dim = 4,
                                         .item_dim = 4,
                                         .alpha = 1,
                                         .beta = 1,
                                         .gamma = 0.1f};

static struct clu_job dense_job(void)
{
    struct clu_job job;
    memset(&job, 0, sizeof(job));
    clu_settings_defaults(clu_job_settings(&job));
    return job;
}

static void set_gradient(struct wrk_dense *dense, uint64_t seed)
{
    float *grads = wrk_dense_grads(dense);
    for (size_t i = 0; i < dense->n; i++)
        grads[i] = (float)suite_uniform(&seed, -1, 1);
}

static void test_held_gradients_are_applied_as_their_mean(void)
{
    struct clu_job job = dense_job();
    struct wrk_dense plain, held;
    CU_ASSERT_EQUAL_FATAL(wrk_dense_init(&plain, &job, &config, 2), CLU_OK);
    job.staleness = CLU_STALENESS_ASYNC;
    job.dense_every = 2;
    CU_ASSERT_EQUAL_FATAL(wrk_dense_init(&held, &job, &config, 2), CLU_OK);
    CU_ASSERT_EQUAL(memcmp(plain.params, held.params, plain.n * sizeof(float)), 0);
    set_gradient(&held, 1);
    wrk_dense_hold(&held);
    set_gradient(&held, 2);
    CU_ASSERT_EQUAL(wrk_dense_update(&held, NULL, 2, 2), CLU_OK);
    set_gradient(&plain, 1);
    float *mean = malloc(plain.n * sizeof(float));
    memcpy(mean, wrk_dense_grads(&plain), plain.n * sizeof(float));
    set_gradient(&plain, 2);
    for (size_t i = 0; i < plain.n; i++)
        wrk_dense_grads(&plain)[i] = (wrk_dense_grads(&plain)[i] + mean[i]) * 0.5f;
    CU_ASSERT_EQUAL(wrk_dense_update(&plain, NULL, 2, 1), CLU_OK);
    double worst = 0, moved = 0;
    for (size_t i = 0; i < plain.n; i++) {
        worst = fmax(worst, fabs((double)plain.params[i] - (double)held.params[i]));
        moved = fmax(moved, fabs((double)plain.m[i]));
    }
    CU_ASSERT(worst < 1e-6);
    CU_ASSERT(moved > 0);
    for (size_t i = 0; i < held.n; i++)
        CU_ASSERT_EQUAL_FATAL(held.pending[i], 0);
    free(mean);
    wrk_dense_fini(&plain);
    wrk_dense_fini(&held);
}

static void test_the_learning_rate_rises_and_falls_as_the_job_says(void)
{
    struct clu_job job = dense_job();
    struct wrk_dense dense;
    job.dense_learning_rate = 0.01;
    CU_ASSERT_EQUAL_FATAL(wrk_dense_init(&dense, &job, &config, 0), CLU_OK);
    dense.last_step = 101;
    dense.warmup_steps = 0;
    dense.final_share = 1;
    CU_ASSERT_EQUAL(wrk_dense_rate(&dense, 1), 0.01);
    CU_ASSERT_EQUAL(wrk_dense_rate(&dense, 101), 0.01);
    dense.final_share = 0.2;
    CU_ASSERT_DOUBLE_EQUAL(wrk_dense_rate(&dense, 51), 0.006, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(wrk_dense_rate(&dense, 101), 0.002, 1e-12);
    dense.warmup_steps = 10;
    CU_ASSERT(wrk_dense_rate(&dense, 1) < 0.00101);
    CU_ASSERT_DOUBLE_EQUAL(wrk_dense_rate(&dense, 5), 0.5 * 0.01 * (1 - 0.8 * 4 / 100), 1e-12);
    wrk_dense_fini(&dense);
}

static void test_weights_to_use_are_the_average_where_one_is_kept(void)
{
    struct clu_job job = dense_job();
    struct wrk_dense dense;
    job.average_decay = 0;
    CU_ASSERT_EQUAL_FATAL(wrk_dense_init(&dense, &job, &config, 0), CLU_OK);
    CU_ASSERT_PTR_EQUAL(wrk_dense_weights(&dense), dense.params);
    wrk_dense_fini(&dense);
    job.average_decay = 0.9;
    CU_ASSERT_EQUAL_FATAL(wrk_dense_init(&dense, &job, &config, 0), CLU_OK);
    CU_ASSERT_PTR_EQUAL(wrk_dense_weights(&dense), dense.average);
    for (int step = 1; step <= 30; step++) {
        set_gradient(&dense, (uint64_t)step);
        CU_ASSERT_EQUAL(wrk_dense_update(&dense, NULL, (uint64_t)step, 1), CLU_OK);
    }
    CU_ASSERT(memcmp(dense.average, dense.params, dense.n * sizeof(float)) != 0);
    wrk_dense_fini(&dense);
}

SUITE("worker.train", T(test_the_feed_starts_anywhere_and_counts_over_epochs),
      T(test_hidden_history_does_not_depend_on_ranks),
      T(test_asked_batches_are_the_parts_that_were_asked_for),
      T(test_a_feed_that_nobody_fills_is_not_waited_for),
      T(test_held_gradients_are_applied_as_their_mean),
      T(test_the_learning_rate_rises_and_falls_as_the_job_says),
      T(test_weights_to_use_are_the_average_where_one_is_kept))

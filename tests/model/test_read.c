/* Reading: the fast path against the reference, against enumeration on paper, and against itself.
 *
 * Generated times are fed back through sin(8 pi T), which magnifies rounding up to 25 times a step.
 * So in float only the first step (M = 2) is compared closely; test_read_double.c compiles this
 * file again, with the model in double, and compares all of it closely.
 */
#include "cluster/status.h"
#include "model/a2gen.h"
#include "model/greedy.h"
#include "model/params.h"
#include "model/read.h"
#include "model/reference.h"
#include "model/tree.h"
#include "tests/model/random_batch.h"

#include <math.h>

#ifdef MDL_DOUBLE
#define SUITE_NAME "model.read_double"
#define CLOSE      1e-9
#define MAGNIFIED  1e-6
#else
#define SUITE_NAME "model.read"
#define CLOSE      1e-5
#define MAGNIFIED  3e-2
#endif

struct answers {
    struct mdl_reading reading;
    size_t n, n_p;
};

static void answers_init(struct answers *a, const struct mdl_config *c, int n_samples)
{
    a->n = (size_t)n_samples;
    a->n_p = a->n * (size_t)(c->n_actions + 1);
    size_t tokens = a->n * (size_t)c->n_actions;
    a->reading = (struct mdl_reading){.p = calloc(a->n_p, sizeof(mdl_real)),
                                      .time = calloc(a->n_p, sizeof(mdl_real)),
                                      .time_literal = calloc(a->n_p, sizeof(mdl_real)),
                                      .sequence_length = calloc(a->n, sizeof(int)),
                                      .sequence_action = calloc(tokens, 1),
                                      .sequence_time = calloc(tokens, sizeof(mdl_real)),
                                      .sequence_p = calloc(a->n, sizeof(mdl_real))};
}

static void answers_fini(struct answers *a)
{
    free(a->reading.p);
    free(a->reading.time);
    free(a->reading.time_literal);
    free(a->reading.sequence_length);
    free(a->reading.sequence_action);
    free(a->reading.sequence_time);
    free(a->reading.sequence_p);
}

static void read_with(int fast, const struct mdl_config *c, const mdl_real *params,
                      const struct mdl_batch *b, enum mdl_read_mode mode, struct answers *a)
{
    size_t bytes = fast ? mdl_read_workspace_bytes(c, b, mode)
                        : mdl_reference_read_workspace_bytes(c, b, mode);
    void *workspace = aligned_alloc(64, bytes);
    CU_ASSERT_EQUAL_FATAL(
        (fast ? mdl_a2gen_read : mdl_reference_read)(c, params, b, mode, workspace, &a->reading),
        0);
    free(workspace);
}

static void expect_same(const struct answers *a, const struct answers *b, double tolerance)
{
    double worst_p = 0, worst_time = 0;
    for (size_t i = 0; i < a->n_p; i++) {
        worst_p = fmax(worst_p, fabs((double)(a->reading.p[i] - b->reading.p[i])));
        worst_time = fmax(worst_time, fabs((double)(a->reading.time[i] - b->reading.time[i])));
    }
    if (worst_p > tolerance || worst_time > tolerance)
        printf("    P off by %.1e, T by %.1e\n", worst_p, worst_time);
    CU_ASSERT(worst_p <= tolerance);
    CU_ASSERT(worst_time <= tolerance);
}

static mdl_real *new_params(const struct mdl_config *c, uint64_t *state_p)
{
    mdl_real *params = calloc(mdl_n_params(c), sizeof(mdl_real));
    mdl_params_init(c, suite_random(state_p), params);
    random_params(params, mdl_n_params(c), 0.05, state_p);
    return params;
}

static struct mdl_config random_config(uint64_t *state_p)
{
    static const int heads[] = {1, 2, 4, 8};
    return (struct mdl_config){.n_actions = random_int(state_p, 2, 6),
                               .history = random_int(state_p, 1, 30),
                               .width = 16 * random_int(state_p, 1, 4),
                               .heads = heads[random_int(state_p, 0, 3)],
                               .user_dim = random_int(state_p, 1, 9),
                               .item_dim = random_int(state_p, 1, 9)};
}

static void compare_paths(const struct mdl_config *c, const mdl_real *params,
                          const struct mdl_batch *b, double tolerance)
{
    for (int mode = MDL_READ_GREEDY; mode <= MDL_READ_EXACT; mode++) {
        struct answers fast, plain;
        answers_init(&fast, c, b->n_samples);
        answers_init(&plain, c, b->n_samples);
        read_with(1, c, params, b, mode, &fast);
        read_with(0, c, params, b, mode, &plain);
        expect_same(&fast, &plain, tolerance);
        answers_fini(&fast);
        answers_fini(&plain);
    }
}

static void test_fast_reading_agrees_with_the_reference(void)
{
    uint64_t state = suite_seed();
    for (int round = 0; round < 6; round++) {
        struct mdl_config c = random_config(&state);
        struct random_sizes s = {.n_samples = random_int(&state, 1, 40),
                                 .n_items = 20,
                                 .n_seqs = 60,
                                 .max_hist = c.history,
                                 .max_tokens = c.n_actions};
        s.n_users = random_int(&state, 1, s.n_samples);
        if (round < 2)
            c.n_actions = s.max_tokens = 2;
        struct random_batch batch;
        random_batch_init(&batch, &c, &s, &state);
        mdl_real *params = new_params(&c, &state);
        compare_paths(&c, params, &batch.view, round < 2 ? CLOSE : MAGNIFIED);
        free(params);
        random_batch_fini(&batch);
    }
}

/* n candidates for each of two users, all samples of a user with one history */
static void make_candidates(struct random_batch *batch, const struct mdl_config *c, int n,
                            uint64_t *state_p)
{
    struct random_sizes s = {.n_samples = 2 * n,
                             .n_users = 2,
                             .n_items = 30,
                             .n_seqs = 40,
                             .min_hist = c->history,
                             .max_hist = c->history,
                             .max_tokens = c->n_actions};
    random_batch_init(batch, c, &s, state_p);
    for (int i = 0; i < 2 * n; i++)
        memcpy(batch->hist_seq + i * c->history, batch->hist_seq + i / n * n * c->history,
               (size_t)c->history * sizeof(int));
}

static void test_candidates_that_share_a_history_read_as_if_alone(void)
{
    uint64_t state = suite_seed();
    for (int round = 0; round < 4; round++) {
        struct mdl_config c = random_config(&state);
        c.n_actions = 2 + round % 2;
        struct random_batch batch;
        make_candidates(&batch, &c, 45, &state);
        mdl_real *params = new_params(&c, &state);
        compare_paths(&c, params, &batch.view, c.n_actions == 2 ? CLOSE : MAGNIFIED);
        /* scores so far apart that the factored softmax would underflow: the plain way is taken */
        struct mdl_tensor t;
        mdl_tensor_find(&c, "cam_item.W_q", &t);
        for (int k = 0; k < t.rows * t.cols; k++)
            params[t.offset + (size_t)k] *= 300;
        compare_paths(&c, params, &batch.view, c.n_actions == 2 ? 10 * CLOSE : MAGNIFIED);
        free(params);
        random_batch_fini(&batch);
    }
}

static void test_threads_change_no_bit(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = random_config(&state);
    struct random_batch batch;
    make_candidates(&batch, &c, 50, &state);
    mdl_real *params = new_params(&c, &state);
    struct answers one, many;
    answers_init(&one, &c, 100);
    answers_init(&many, &c, 100);
    for (int mode = MDL_READ_GREEDY; mode <= MDL_READ_EXACT; mode++) {
        c.threads = 1;
        read_with(1, &c, params, &batch.view, mode, &one);
        c.threads = 3;
        read_with(1, &c, params, &batch.view, mode, &many);
        CU_ASSERT(memcmp(one.reading.p, many.reading.p, one.n_p * sizeof(mdl_real)) == 0);
        CU_ASSERT(memcmp(one.reading.time, many.reading.time, one.n_p * sizeof(mdl_real)) == 0);
        CU_ASSERT(memcmp(one.reading.sequence_length, many.reading.sequence_length,
                         one.n * sizeof(int)) == 0);
    }
    answers_fini(&one);
    answers_fini(&many);
    free(params);
    random_batch_fini(&batch);
}

/* M = 3. After start: padding 1/10, start 5/10 (masked), 2 with 3/10, 3 with 1/10; so 1/5, 3/5,
 * 1/5. After start 2 (time 0.5): padding 1/4, 3 with 1/4; so 1/2, 1/2. After start 3: padding 0, 2
 * with 1: always 2.
 *
 *     sequences: start 1/5; start 2: 3/10; start 2 3: 3/10; start 3: 0; start 3 2: 1/5
 *     P(2) = 3/10 + 3/10 + 1/5 = 4/5, P(3) = 3/10 + 1/5 = 1/2
 *     T(2) = (3/5 * 0.5 + 1/5 * 2) / (4/5) = 0.875, T(3) = (3/10 * 1 + 1/5 * 0.5) / (1/2) = 0.8
 */
static void test_the_tree_adds_sequences_up_as_on_paper(void)
{
    struct mdl_tree tree;
    struct mdl_arena arena = {0};
    mdl_tree_take(&tree, &arena, 3);
    arena = (struct mdl_arena){.base = aligned_alloc(64, arena.used)};
    mdl_tree_take(&tree, &arena, 3);
    mdl_tree_start(&tree);
    const mdl_real P1[4] = {(mdl_real)0.1, 0.5, (mdl_real)0.3, (mdl_real)0.1}, T1[1] = {0.5};
    mdl_tree_expand(&tree, P1, T1);
    CU_ASSERT_EQUAL_FATAL(tree.level[2] - tree.level[1], 2);
    const mdl_real P2[8] = {0.25, 0.25, 0.25, 0.25, 0, 0, 1, 0}, T2[2] = {1, 2};
    mdl_tree_expand(&tree, P2, T2);
    mdl_real p[4], t[4], sequence_time[3], sequence_p;
    uint8_t action[3];
    int length;
    struct mdl_reading out = {.p = p,
                              .time = t,
                              .sequence_length = &length,
                              .sequence_action = action,
                              .sequence_time = sequence_time,
                              .sequence_p = &sequence_p};
    mdl_tree_result(&tree, 0, &out);
    CU_ASSERT_DOUBLE_EQUAL((double)p[1], 1, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)p[2], 0.8, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)p[3], 0.5, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)t[2], 0.875, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)t[3], 0.8, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)sequence_p, 0.3, 1e-6);
    CU_ASSERT_EQUAL(action[0], 1);
    CU_ASSERT_EQUAL(action[1], 2);
    CU_ASSERT_EQUAL(action[length - 1], length == 2 ? 2 : 3);
    free(arena.base);
}

/* Answers 0.2 0.1 0.7 at T 0.5, then 0.6 0.1 0.3 at T 1: takes 2, then padding.
 * P(2) = 0.7; T(2) = (0.7 * 0.5 + 0.3 * 1) / (0.7 + 0.3) = 0.65, and literally the same as the sum
 * is 1. */
static void test_greedy_takes_the_maximum_over_positions(void)
{
    struct mdl_greedy greedy;
    const mdl_real P1[3] = {(mdl_real)0.2, (mdl_real)0.1, (mdl_real)0.7};
    const mdl_real P2[3] = {(mdl_real)0.6, (mdl_real)0.1, (mdl_real)0.3};
    mdl_greedy_start(&greedy, 2);
    CU_ASSERT_EQUAL(greedy.action, 1);
    mdl_greedy_take_answer(&greedy, P1, 0.5);
    CU_ASSERT_EQUAL(greedy.action, 2);
    CU_ASSERT_DOUBLE_EQUAL((double)greedy.time, 0.5, 0);
    mdl_greedy_take_answer(&greedy, P2, 1);
    CU_ASSERT_EQUAL(greedy.action, 0);
    CU_ASSERT_DOUBLE_EQUAL((double)greedy.time, 0, 0); /* padding is fed with time 0 */
    mdl_real p[3], t[3], literal[3];
    int length;
    struct mdl_reading out = {
        .p = p, .time = t, .time_literal = literal, .sequence_length = &length};
    mdl_greedy_result(&greedy, 0, &out);
    CU_ASSERT_DOUBLE_EQUAL((double)p[2], 0.7, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)t[2], 0.65, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)literal[2], 0.65, 1e-6);
    CU_ASSERT_EQUAL(length, 2);
}

static void test_exact_probabilities_are_those_of_a_distribution(void)
{
    uint64_t state = suite_seed();
    /* 6: the whole tree; 9: a beam */
    for (int M = 6; M <= 9; M += 3) {
        struct mdl_config c = random_config(&state);
        c.n_actions = M;
        struct random_sizes s = {.n_samples = 9,
                                 .n_users = 3,
                                 .n_items = 20,
                                 .n_seqs = 60,
                                 .max_hist = c.history,
                                 .max_tokens = M};
        struct random_batch batch;
        struct answers a;
        random_batch_init(&batch, &c, &s, &state);
        mdl_real *params = new_params(&c, &state);
        answers_init(&a, &c, s.n_samples);
        read_with(1, &c, params, &batch.view, MDL_READ_EXACT, &a);
        for (size_t i = 0; i < a.n; i++) {
            CU_ASSERT(a.reading.sequence_p[i] > 0 && a.reading.sequence_p[i] <= (mdl_real)1.00001);
            CU_ASSERT(a.reading.sequence_length[i] >= 1 && a.reading.sequence_length[i] <= M);
            uint64_t seen = 0;
            for (int k = 0; k < a.reading.sequence_length[i]; k++) {
                int action = a.reading.sequence_action[i * (size_t)M + (size_t)k];
                CU_ASSERT(!(seen >> action & 1));
                seen |= (uint64_t)1 << action;
                /* what is in the most probable sequence is at least as probable as it */
                CU_ASSERT((double)a.reading.p[i * (size_t)(M + 1) + (size_t)action] >=
                          (double)a.reading.sequence_p[i] - 1e-5);
            }
            for (int k = 0; k <= M; k++) {
                mdl_real p = a.reading.p[i * (size_t)(M + 1) + (size_t)k];
                CU_ASSERT(p >= 0 && (double)p <= 1.00001);
            }
        }
        answers_fini(&a);
        free(params);
        random_batch_fini(&batch);
    }
}

static void test_a_mode_has_a_name(void)
{
    enum mdl_read_mode mode;
    CU_ASSERT_EQUAL(mdl_read_mode_of("greedy", &mode), 0);
    CU_ASSERT_EQUAL(mode, MDL_READ_GREEDY);
    CU_ASSERT_EQUAL(mdl_read_mode_of("exact", &mode), 0);
    CU_ASSERT_EQUAL(mode, MDL_READ_EXACT);
    CU_ASSERT_EQUAL(mdl_read_mode_of("beam", &mode), CLU_E_CONFIG);
}

SUITE(SUITE_NAME, T(test_fast_reading_agrees_with_the_reference),
      T(test_candidates_that_share_a_history_read_as_if_alone), T(test_threads_change_no_bit),
      T(test_the_tree_adds_sequences_up_as_on_paper),
      T(test_greedy_takes_the_maximum_over_positions),
      T(test_exact_probabilities_are_those_of_a_distribution), T(test_a_mode_has_a_name))

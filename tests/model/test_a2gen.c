/* The fast path against the reference, on every level this machine runs, and against itself on
 * threads.
 *
 * Gradients are compared tensor by tensor: the length of the difference over the length of the
 * reference's. In float to 1e-5; test_a2gen_double.c compiles this file again, with the model in
 * double, where 1e-9 holds.
 */
#include "cluster/status.h"
#include "model/a2gen.h"
#include "model/level.h"
#include "model/params.h"
#include "model/reference.h"
#include "tests/model/random_batch.h"

#include <math.h>

#ifdef MDL_DOUBLE
#define SUITE_NAME "model.a2gen_double"
#define TOLERANCE  1e-9
#else
#define SUITE_NAME "model.a2gen"
#define TOLERANCE  1e-5
#endif

struct outcome {
    struct mdl_losses losses;
    struct mdl_grads grads;
    size_t n_dense, n_user, n_item;
};

static void outcome_init(struct outcome *o, const struct mdl_config *c, const struct mdl_batch *b)
{
    o->n_dense = mdl_n_params(c);
    o->n_user = (size_t)b->n_users * c->user_dim;
    o->n_item = (size_t)b->n_items * c->item_dim;
    /* filled with rubbish: every element must be written */
    size_t n = o->n_dense + o->n_user + o->n_item;
    mdl_real *all = malloc(n * sizeof(mdl_real));
    memset(all, 0x7f, n * sizeof(mdl_real));
    o->grads = (struct mdl_grads){all, all + o->n_dense, all + o->n_dense + o->n_user};
}

static void outcome_fini(struct outcome *o)
{
    free(o->grads.dense);
}

/* |a - b| / |b|, or |a - b| over the floor when b vanishes */
static double difference(const mdl_real *a, const mdl_real *b, size_t n, double floor_)
{
    double apart = 0, length = 0;
    for (size_t i = 0; i < n; i++) {
        double delta = (double)a[i] - (double)b[i];
        apart += delta * delta;
        length += (double)b[i] * (double)b[i];
    }
    return sqrt(apart) / (sqrt(length) > floor_ ? sqrt(length) : floor_);
}

/* the worst difference of any tensor, input or loss; its name in *name_p */
static double compare(const struct mdl_config *c, const struct outcome *a, const struct outcome *b,
                      const char **name_p)
{
    static struct mdl_tensor t;
    double worst = difference(a->grads.dense, b->grads.dense, a->n_dense, 1e-30), length = 0;
    *name_p = "dense";
    for (size_t i = 0; i < b->n_dense; i++)
        length += (double)b->grads.dense[i] * (double)b->grads.dense[i];
    /* a tensor whose gradient nearly vanishes is held to a part of the whole vector's length */
    double floor_ = 1e-3 * sqrt(length);
    for (int i = 0; i < mdl_n_tensors(c); i++) {
        struct mdl_tensor next;
        mdl_tensor(c, i, &next);
        double off = difference(a->grads.dense + next.offset, b->grads.dense + next.offset,
                                (size_t)next.rows * (size_t)next.cols, floor_);
        if (!(off <= worst)) {
            worst = off;
            t = next;
            *name_p = t.name;
        }
    }
    const double rest[] = {difference(a->grads.user, b->grads.user, a->n_user, floor_),
                           difference(a->grads.item, b->grads.item, a->n_item, floor_),
                           fabs(a->losses.cls / b->losses.cls - 1),
                           fabs(a->losses.reg - b->losses.reg) / b->losses.total,
                           fabs(a->losses.order - b->losses.order) / b->losses.total};
    const char *names[] = {"user", "item", "cls", "reg", "order"};
    for (int i = 0; i < 5; i++) {
        if (!(rest[i] <= worst)) {
            worst = rest[i];
            *name_p = names[i];
        }
    }
    return worst;
}

static struct mdl_config random_config(uint64_t *state_p)
{
    static const int heads[] = {1, 2, 4, 8};
    struct mdl_config c = {.n_actions = random_int(state_p, 2, 8),
                           .history = random_int(state_p, 1, 40),
                           .width = 16 * random_int(state_p, 1, 5),
                           .heads = heads[random_int(state_p, 0, 3)],
                           .user_dim = random_int(state_p, 1, 20),
                           .item_dim = random_int(state_p, 1, 40),
                           .alpha = 1,
                           .beta = 1,
                           .gamma = 0.1f};
    return c;
}

static struct random_sizes random_shape(uint64_t *state_p, const struct mdl_config *c)
{
    struct random_sizes s = {.n_samples = random_int(state_p, 1, 100),
                             .n_items = random_int(state_p, 1, 50),
                             .n_seqs = random_int(state_p, 1, 300),
                             .max_hist = c->history,
                             .max_tokens = random_int(state_p, 1, c->n_actions)};
    s.n_users = random_int(state_p, 1, s.n_samples);
    return s;
}

static mdl_real *new_params(const struct mdl_config *c, uint64_t *state_p)
{
    mdl_real *params = calloc(mdl_n_params(c), sizeof(mdl_real));
    mdl_params_init(c, suite_random(state_p), params);
    random_params(params, mdl_n_params(c), 0.05, state_p);
    return params;
}

/* one model and batch on every level; how many levels are off */
static int levels_off(const struct mdl_config *config, const mdl_real *params,
                      const struct mdl_batch *b)
{
    struct mdl_config c = *config;
    struct outcome expected, actual;
    int n_off = 0;
    outcome_init(&expected, &c, b);
    outcome_init(&actual, &c, b);
    void *workspace = aligned_alloc(64, mdl_reference_workspace_bytes(&c, b));
    CU_ASSERT_EQUAL_FATAL(
        mdl_reference_step(&c, params, b, workspace, &expected.losses, &expected.grads), 0);
    free(workspace);
    CU_ASSERT_FATAL(mdl_fast_takes(&c));
    printf("    M %d H %d d %d h %d, %d samples:", c.n_actions, c.history, c.width, c.heads,
           b->n_samples);
    for (int i = 0; mdl_level_at(i); i++) {
        const char *name;
        struct mdl_fast fast;
        struct mdl_arena arena = {0};
        mdl_fast_take(&fast, &arena, &c, b);
        arena = (struct mdl_arena){.base = aligned_alloc(64, arena.used)};
        mdl_fast_take(&fast, &arena, &c, b);
        mdl_level_at(i)->step(&fast, params, &actual.losses, &actual.grads);
        double off = compare(&c, &actual, &expected, &name);
        printf(" %s %.1e (%s)", mdl_level_at(i)->name, off, name);
        n_off += !(off <= TOLERANCE);
        free(arena.base);
    }
    printf("\n");
    outcome_fini(&expected);
    outcome_fini(&actual);
    return n_off;
}

/* A relu whose input is zero to rounding (one in some million) may open on one side and stay shut
 * on the other, and the gradient jumps; and where a generated time meets the true one by chance,
 * the gradient is a difference of two like numbers. In float, then, a round in which a level is off
 * is repeated with every parameter moved a little: the same shapes, the same paths through the
 * code, other numbers. Only a fault is off again, and again. */
static void test_every_level_agrees_with_the_reference(void)
{
    uint64_t state = suite_seed();
    int n_tries = sizeof(mdl_real) == sizeof(float) ? 3 : 1;
    mdl_blas_single_thread();
    for (int round = 0; round < 12; round++) {
        struct mdl_config c = random_config(&state);
        struct random_sizes s = random_shape(&state, &c);
        struct random_batch batch;
        random_batch_init(&batch, &c, &s, &state);
        mdl_real *params = new_params(&c, &state);
        int n_off = levels_off(&c, params, &batch.view);
        for (int try = 1; n_off && try < n_tries; try++) {
            random_params(params, mdl_n_params(&c), 0.01, &state);
            n_off = levels_off(&c, params, &batch.view);
        }
        CU_ASSERT_EQUAL(n_off, 0);
        free(params);
        random_batch_fini(&batch);
    }
}

static void test_threads_change_no_bit(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = random_config(&state);
    struct random_sizes s = random_shape(&state, &c);
    s.n_samples = 150; /* several slices */
    s.n_users = 20;
    struct random_batch batch;
    struct outcome one, many;
    random_batch_init(&batch, &c, &s, &state);
    mdl_real *params = new_params(&c, &state);
    outcome_init(&one, &c, &batch.view);
    outcome_init(&many, &c, &batch.view);
    c.threads = 1;
    void *workspace = aligned_alloc(64, mdl_a2gen_workspace_bytes(&c, &batch.view));
    CU_ASSERT_EQUAL(mdl_a2gen_step(&c, params, &batch.view, workspace, &one.losses, &one.grads), 0);
    free(workspace);
    for (c.threads = 2; c.threads < 6; c.threads++) {
        workspace = aligned_alloc(64, mdl_a2gen_workspace_bytes(&c, &batch.view));
        CU_ASSERT_EQUAL(
            mdl_a2gen_step(&c, params, &batch.view, workspace, &many.losses, &many.grads), 0);
        CU_ASSERT(memcmp(&one.losses, &many.losses, sizeof(one.losses)) == 0);
        CU_ASSERT(memcmp(one.grads.dense, many.grads.dense,
                         (one.n_dense + one.n_user + one.n_item) * sizeof(mdl_real)) == 0);
        free(workspace);
    }
    outcome_fini(&one);
    outcome_fini(&many);
    free(params);
    random_batch_fini(&batch);
}

static void test_workspace_of_a_larger_batch_serves_and_forward_alone_gives_the_losses(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = random_config(&state);
    struct random_sizes s = random_shape(&state, &c);
    struct random_batch small, large;
    s.n_samples = 5;
    s.n_users = 2;
    random_batch_init(&small, &c, &s, &state);
    s.n_samples = 90;
    s.n_seqs *= 2;
    s.n_items *= 2;
    s.max_tokens = c.n_actions;
    random_batch_init(&large, &c, &s, &state);
    mdl_real *params = new_params(&c, &state);
    size_t bytes = mdl_a2gen_workspace_bytes(&c, &large.view);
    char *workspace = aligned_alloc(64, bytes + 64);
    memset(workspace + bytes, 0x5a, 64);
    struct outcome o;
    struct mdl_losses alone;
    outcome_init(&o, &c, &large.view);
    CU_ASSERT_EQUAL(mdl_a2gen_step(&c, params, &large.view, workspace, &o.losses, &o.grads), 0);
    CU_ASSERT_EQUAL(mdl_a2gen_step(&c, params, &large.view, workspace, &alone, NULL), 0);
    CU_ASSERT(memcmp(&alone, &o.losses, sizeof(alone)) == 0);
    CU_ASSERT(mdl_a2gen_workspace_bytes(&c, &small.view) <= bytes);
    CU_ASSERT_EQUAL(mdl_a2gen_step(&c, params, &small.view, workspace, &o.losses, &o.grads), 0);
    for (int i = 0; i < 64; i++)
        CU_ASSERT_EQUAL(workspace[bytes + (size_t)i], 0x5a);
    free(workspace);
    outcome_fini(&o);
    free(params);
    random_batch_fini(&small);
    random_batch_fini(&large);
}

static void test_two_halves_add_up_to_the_whole(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = random_config(&state);
    struct random_sizes s = random_shape(&state, &c);
    struct random_batch batch;
    s.n_samples = 40;
    s.n_users = 10;
    random_batch_init(&batch, &c, &s, &state);
    mdl_real *params = new_params(&c, &state);
    struct outcome whole, half;
    outcome_init(&whole, &c, &batch.view);
    outcome_init(&half, &c, &batch.view);
    void *workspace = aligned_alloc(64, mdl_a2gen_workspace_bytes(&c, &batch.view));
    CU_ASSERT_EQUAL(mdl_a2gen_step(&c, params, &batch.view, workspace, &whole.losses, &whole.grads),
                    0);
    mdl_real *sum = calloc(whole.n_dense, sizeof(mdl_real));
    double total = 0;
    /* the second half's offsets start elsewhere, so they are made its own */
    for (int part = 0; part < 2; part++) {
        struct mdl_batch b = batch.view;
        int hist[21], target[21], first = part * 20;
        for (int i = 0; i <= 20; i++) {
            hist[i] = batch.hist_offset[first + i] - batch.hist_offset[first];
            target[i] = batch.target_offset[first + i] - batch.target_offset[first];
        }
        b.n_samples = 20;
        b.sample_user += first;
        b.sample_item += first;
        b.hist_seq += batch.hist_offset[first];
        b.hist_offset = hist;
        b.target_action += batch.target_offset[first];
        b.target_time += batch.target_offset[first];
        b.target_offset = target;
        CU_ASSERT_EQUAL(mdl_a2gen_step(&c, params, &b, workspace, &half.losses, &half.grads), 0);
        total += half.losses.total;
        for (size_t i = 0; i < whole.n_dense; i++)
            sum[i] += half.grads.dense[i];
    }
    CU_ASSERT_DOUBLE_EQUAL(total, whole.losses.total, 1e-5 * total);
    CU_ASSERT(difference(sum, whole.grads.dense, whole.n_dense, 1e-30) <= TOLERANCE);
    free(sum);
    free(workspace);
    outcome_fini(&whole);
    outcome_fini(&half);
    free(params);
    random_batch_fini(&batch);
}

static void test_a_malformed_batch_is_refused(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = random_config(&state);
    struct random_sizes s = {.n_samples = 4,
                             .n_users = 2,
                             .n_items = 3,
                             .n_seqs = 5,
                             .min_hist = 1,
                             .max_hist = 1,
                             .max_tokens = 2};
    struct random_batch batch;
    random_batch_init(&batch, &c, &s, &state);
    const struct mdl_batch *b = &batch.view;
    CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_OK);
    int *places[] = {&batch.sample_user[1],  &batch.sample_item[0], &batch.seq_item[2],
                     &batch.hist_seq[0],     &batch.hist_offset[0], &batch.seq_offset[1],
                     &batch.target_offset[2]};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int good = *places[i];
        *places[i] = -1;
        CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_E_DATA);
        *places[i] = 1 << 30;
        CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_E_DATA);
        *places[i] = good;
    }
    uint8_t action = batch.seq_action[0];
    batch.seq_action[0] = 0;
    CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_E_DATA);
    batch.seq_action[0] = (uint8_t)(c.n_actions + 1);
    CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_E_DATA);
    batch.seq_action[0] = action;
    batch.target_time[0] = -0.5f;
    CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_E_DATA);
    CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 0), CLU_OK);
    batch.target_time[0] = (float)NAN;
    CU_ASSERT_EQUAL(mdl_batch_check(&c, b, 1), CLU_E_DATA);
    c.heads = 3;
    c.width = 16;
    CU_ASSERT_EQUAL(mdl_config_check(&c), CLU_E_CONFIG);
    random_batch_fini(&batch);
}

SUITE(SUITE_NAME, T(test_every_level_agrees_with_the_reference), T(test_threads_change_no_bit),
      T(test_workspace_of_a_larger_batch_serves_and_forward_alone_gives_the_losses),
      T(test_two_halves_add_up_to_the_whole), T(test_a_malformed_batch_is_refused))

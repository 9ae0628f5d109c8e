/* Every parameter's and every input embedding's gradient against central differences, in double.
 *
 * Two quantities are not smooth everywhere: relu, and the order loss where two times are equal.
 * With a step of 1e-6 a difference straddles such a point once in a very long while; then the
 * one-sided slopes disagree with each other, and the entry is passed over (and counted: it must
 * stay rare).
 */
#include "model/a2gen.h"
#include "model/params.h"
#include "tests/model/random_batch.h"

#include <math.h>

struct proof {
    struct mdl_config config;
    struct random_batch batch;
    mdl_real *params;
    void *workspace;
    int n_checked, n_kinks;
    double worst;
};

static double total_of(struct proof *p)
{
    struct mdl_losses losses = {0};
    if (mdl_a2gen_step(&p->config, p->params, &p->batch.view, p->workspace, &losses, NULL) != 0)
        return (double)NAN;
    return losses.total;
}

/* the gradient of the loss by x at one place, by differences; NAN at a kink */
static double slope(struct proof *p, mdl_real *x)
{
    const double step = 1e-6;
    mdl_real old = *x;
    double middle = total_of(p);
    *x = old + step;
    double up = total_of(p);
    *x = old - step;
    double down = total_of(p);
    *x = old;
    double right = (up - middle) / step, left = (middle - down) / step;
    if (fabs(right - left) > 1e-3 * (1 + fabs(right) + fabs(left)))
        return (double)NAN;
    return (up - down) / (2 * step);
}

static void check_entry(struct proof *p, mdl_real *x, double gradient, const char *name, size_t at)
{
    double expected = slope(p, x);
    p->n_checked++;
    if (isnan(expected)) {
        p->n_kinks++;
        return;
    }
    double error = fabs(expected - gradient) / (1e-2 + fabs(expected) + fabs(gradient));
    if (error > p->worst)
        p->worst = error;
    if (error > 2e-5) {
        printf("    %s[%zu]: backward %.10g, differences %.10g\n", name, at, gradient, expected);
        CU_FAIL("gradient differs");
    }
}

enum { ALL = 1 << 20 };

/* every entry of arrays up to at_most, a random sample of larger ones */
static void check_array(struct proof *p, mdl_real *x, const mdl_real *gradient, size_t n,
                        const char *name, size_t at_most, uint64_t *state_p)
{
    for (size_t k = 0; k < n && k < at_most; k++) {
        size_t i = n <= at_most ? k : suite_random(state_p) % n;
        check_entry(p, x + i, gradient[i], name, i);
    }
}

static void prove(const struct mdl_config *config, const struct random_sizes *sizes, size_t at_most,
                  uint64_t *state_p)
{
    struct proof p = {.config = *config};
    random_batch_init(&p.batch, config, sizes, state_p);
    const struct mdl_batch *b = &p.batch.view;
    size_t n = mdl_n_params(config), n_user = (size_t)sizes->n_users * config->user_dim;
    size_t n_item = (size_t)sizes->n_items * config->item_dim;
    p.params = calloc(n, sizeof(mdl_real));
    mdl_params_init(config, suite_random(state_p), p.params);
    random_params(p.params, n, 0.15, state_p);
    p.workspace = aligned_alloc(64, mdl_a2gen_workspace_bytes(config, b));
    struct mdl_grads grads = {.dense = malloc(n * sizeof(mdl_real)),
                              .user = malloc(n_user * sizeof(mdl_real)),
                              .item = malloc(n_item * sizeof(mdl_real))};
    struct mdl_losses losses;
    CU_ASSERT_EQUAL_FATAL(mdl_a2gen_step(config, p.params, b, p.workspace, &losses, &grads), 0);
    for (int i = 0; i < mdl_n_tensors(config); i++) {
        struct mdl_tensor t;
        mdl_tensor(config, i, &t);
        check_array(&p, p.params + t.offset, grads.dense + t.offset,
                    (size_t)t.rows * (size_t)t.cols, t.name, at_most, state_p);
    }
    check_array(&p, p.batch.user, grads.user, n_user, "user", 4 * at_most, state_p);
    check_array(&p, p.batch.item, grads.item, n_item, "item", 4 * at_most, state_p);
    CU_ASSERT(p.n_kinks * 200 <= p.n_checked + 400);
    printf("    M %d H %d d %d h %d, %d samples, history %d..%d: %d entries, worst %.1e, %d at a "
           "kink\n",
           config->n_actions, config->history, config->width, config->heads, sizes->n_samples,
           sizes->min_hist, sizes->max_hist, p.n_checked, p.worst, p.n_kinks);
    free(grads.dense);
    free(grads.user);
    free(grads.item);
    free(p.params);
    free(p.workspace);
    random_batch_fini(&p.batch);
}

static void test_every_gradient_agrees_with_central_differences(void)
{
    uint64_t state = suite_seed();
    static const int heads[] = {1, 2, 4, 8};
    mdl_blas_single_thread();
    for (int i = 0; i < 8; i++) {
        struct mdl_config c = {.n_actions = random_int(&state, 2, 7),
                               .history = random_int(&state, 1, 9),
                               .heads = heads[i % 4],
                               .user_dim = random_int(&state, 1, 5),
                               .item_dim = random_int(&state, 1, 6),
                               .alpha = 1,
                               .beta = 1,
                               .gamma = 0.7f};
        c.width = c.heads * random_int(&state, 1, 3);
        if (c.width < 4)
            c.width = 4;
        struct random_sizes s = {.n_samples = random_int(&state, 1, 6),
                                 .n_items = random_int(&state, 1, 6),
                                 .n_seqs = random_int(&state, 1, 12),
                                 .min_hist = 0,
                                 .max_hist = c.history,
                                 .max_tokens = c.n_actions};
        s.n_users = random_int(&state, 1, s.n_samples);
        prove(&c, &s, ALL, &state);
    }
}

static void test_gradients_hold_without_history_and_with_one_of_everything(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = {.n_actions = 5,
                           .history = 1,
                           .width = 8,
                           .heads = 2,
                           .user_dim = 3,
                           .item_dim = 4,
                           .alpha = 0.6f,
                           .beta = 1.3f,
                           .gamma = 0.4f};
    struct random_sizes empty = {.n_samples = 3,
                                 .n_users = 2,
                                 .n_items = 2,
                                 .n_seqs = 1,
                                 .min_hist = 0,
                                 .max_hist = 0,
                                 .max_tokens = 5};
    prove(&c, &empty, ALL, &state);
    /* H = 1, sequences of the start alone */
    struct random_sizes one = {.n_samples = 1,
                               .n_users = 1,
                               .n_items = 1,
                               .n_seqs = 1,
                               .min_hist = 1,
                               .max_hist = 1,
                               .max_tokens = 1};
    prove(&c, &one, ALL, &state);
}

static void test_gradients_hold_at_a_realistic_width(void)
{
    uint64_t state = suite_seed();
    struct mdl_config c = {.n_actions = 6,
                           .history = 24,
                           .width = 64,
                           .heads = 4,
                           .user_dim = 16,
                           .item_dim = 24,
                           .alpha = 1,
                           .beta = 1,
                           .gamma = 0.1f};
    struct random_sizes s = {.n_samples = 6,
                             .n_users = 2,
                             .n_items = 12,
                             .n_seqs = 30,
                             .min_hist = 0,
                             .max_hist = 24,
                             .max_tokens = 6};
    prove(&c, &s, 3, &state);
}

SUITE("model.gradients", T(test_every_gradient_agrees_with_central_differences),
      T(test_gradients_hold_without_history_and_with_one_of_everything),
      T(test_gradients_hold_at_a_realistic_width))

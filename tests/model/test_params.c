/* The table of tensors, initial values, and the dense optimiser. */
#include "cluster/status.h"
#include "model/adam.h"
#include "model/params.h"
#include "tests/suite.h"

#include <math.h>

static const struct mdl_config config = {
    .n_actions = 6, .history = 100, .width = 64, .heads = 4, .user_dim = 32, .item_dim = 48};

static void test_tensors_tile_the_vector_in_order(void)
{
    size_t at = 0;
    for (int i = 0; i < mdl_n_tensors(&config); i++) {
        struct mdl_tensor t, found;
        mdl_tensor(&config, i, &t);
        CU_ASSERT_EQUAL(t.offset, at);
        CU_ASSERT(t.rows >= 1 && t.cols >= 1 && (t.n_dims == 2 || t.rows == 1));
        CU_ASSERT_EQUAL(mdl_tensor_find(&config, t.name, &found), CLU_OK);
        CU_ASSERT_EQUAL(found.offset, t.offset);
        at += (size_t)t.rows * (size_t)t.cols;
    }
    CU_ASSERT_EQUAL(at, mdl_n_params(&config));
}

static void test_names_and_shapes_are_those_of_the_export(void)
{
    static const struct {
        const char *name;
        int n_dims, rows, cols;
    } expected[] = {
        {"token_hist.E", 2, 7, 64},   {"token_gen.W_t", 2, 9, 64}, {"token_gen.b_t", 1, 1, 64},
        {"token_hist.P", 2, 6, 64},   {"cam_act.W_x", 2, 64, 64},  {"cam_item.W_x", 2, 112, 64},
        {"cam_act.W_c", 2, 48, 64},   {"cam_gen.W_c", 2, 144, 64}, {"cam_gen.W_g", 2, 144, 4},
        {"cam_item.b_g", 1, 1, 4},    {"cam_act.W_1", 2, 64, 128}, {"cam_act.W_2", 2, 128, 64},
        {"cam_item.ln1_w", 1, 1, 64}, {"cam_item.Rho", 2, 4, 100}, {"decision.W_c2", 2, 64, 7},
        {"decision.w_t2", 1, 1, 64},  {"decision.b_t2", 1, 1, 1},  {"cam_gen.ln2_b", 1, 1, 64},
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        struct mdl_tensor t;
        CU_ASSERT_EQUAL_FATAL(mdl_tensor_find(&config, expected[i].name, &t), CLU_OK);
        CU_ASSERT_EQUAL(t.n_dims, expected[i].n_dims);
        CU_ASSERT_EQUAL(t.rows, expected[i].rows);
        CU_ASSERT_EQUAL(t.cols, expected[i].cols);
    }
    struct mdl_tensor t;
    CU_ASSERT_EQUAL(mdl_n_tensors(&config), 8 + 3 * 20 + 1 + 8);
    CU_ASSERT_EQUAL(mdl_tensor_find(&config, "cam_act.Rho", &t), CLU_E_NOT_FOUND);
}

static void test_initial_values_depend_on_the_seed_alone(void)
{
    size_t n = mdl_n_params(&config);
    mdl_real *a = malloc(n * sizeof(*a)), *b = malloc(n * sizeof(*b));
    mdl_params_init(&config, 5, a);
    mdl_params_init(&config, 5, b);
    CU_ASSERT(memcmp(a, b, n * sizeof(*a)) == 0);
    mdl_params_init(&config, 6, b);
    CU_ASSERT(memcmp(a, b, n * sizeof(*a)) != 0);
    static const char *zero[] = {"cam_item.Rho", "cam_act.W_g", "cam_gen.b_g", "cam_item.b_x"};
    for (size_t i = 0; i < 4; i++) {
        struct mdl_tensor t;
        mdl_tensor_find(&config, zero[i], &t);
        for (int k = 0; k < t.rows * t.cols; k++)
            CU_ASSERT_EQUAL(a[t.offset + (size_t)k], 0);
    }
    struct mdl_tensor t;
    mdl_tensor_find(&config, "cam_gen.ln2_w", &t);
    CU_ASSERT_EQUAL(a[t.offset + 63], 1);
    /* W_1: uniform with variance 2 / (64 + 128), mean 0 */
    mdl_tensor_find(&config, "cam_act.W_1", &t);
    double sum = 0, squares = 0, count = t.rows * t.cols;
    for (int k = 0; k < t.rows * t.cols; k++) {
        sum += (double)a[t.offset + (size_t)k];
        squares += (double)a[t.offset + (size_t)k] * (double)a[t.offset + (size_t)k];
    }
    CU_ASSERT_DOUBLE_EQUAL(sum / count, 0, 0.005);
    CU_ASSERT_DOUBLE_EQUAL(squares / count, 2.0 / 192, 0.0006);
    free(a);
    free(b);
}

static void test_decay_is_for_maps_alone(void)
{
    uint8_t *mask = malloc(mdl_n_params(&config));
    struct mdl_tensor t;
    mdl_params_decay_mask(&config, mask);
    mdl_tensor_find(&config, "cam_item.W_k", &t);
    CU_ASSERT_EQUAL(mask[t.offset], 1);
    static const char *free_of_it[] = {"token_hist.E", "cam_act.b_1", "cam_item.ln1_w",
                                       "cam_item.Rho", "decision.b_t2"};
    for (size_t i = 0; i < 5; i++) {
        mdl_tensor_find(&config, free_of_it[i], &t);
        CU_ASSERT_EQUAL(mask[t.offset], 0);
    }
    free(mask);
}

/* Step 1, g = 2: m = 0.2, v = 0.004; corrected 2 and 4; x = 1 - 0.1 * 2 / (2 + 1e-8) = 0.9.
 * Step 2, g = -1: m = 0.08, v = 0.004996; corrected 0.08 / 0.19 = 0.4210526, 0.004996 / 0.001999 =
 * 2.4992496; x = 0.9 - 0.1 * 0.4210526 / 1.5808996 = 0.8733663. With decay 0.5 at x = 1: 1 - 0.1 -
 * 0.1 * 0.5 * 1 = 0.85. */
static void test_adam_steps_as_on_paper(void)
{
    struct mdl_adam adam = mdl_adam_default();
    adam.learning_rate = 0.1;
    mdl_real x[2] = {1, 1}, m[2] = {0}, v[2] = {0}, g[2] = {2, 2};
    uint8_t decay[2] = {0, 1};
    mdl_adam_step(&adam, 1, 1, NULL, g, x, m, v);
    CU_ASSERT_DOUBLE_EQUAL((double)x[0], 0.9, 1e-6);
    g[0] = -1;
    mdl_adam_step(&adam, 2, 1, NULL, g, x, m, v);
    CU_ASSERT_DOUBLE_EQUAL((double)x[0], 0.8733663, 1e-6);
    mdl_real y[2] = {1, 1};
    memset(m, 0, sizeof(m));
    memset(v, 0, sizeof(v));
    g[0] = 2;
    adam.weight_decay = 0.5;
    mdl_adam_step(&adam, 1, 2, decay, g, y, m, v);
    CU_ASSERT_DOUBLE_EQUAL((double)y[0], 0.9, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)y[1], 0.85, 1e-6);
}

static void test_the_average_starts_as_a_copy_and_follows(void)
{
    mdl_real x[1] = {3}, average[1] = {(mdl_real)NAN};
    mdl_average_step(0.5, 1, 1, x, average);
    CU_ASSERT_EQUAL(average[0], 3);
    x[0] = 7;
    mdl_average_step(0.5, 1000, 1, x, average);
    CU_ASSERT_DOUBLE_EQUAL((double)average[0], 5, 1e-6);
    x[0] = 5;
    for (uint64_t step = 2; step < 5; step++)
        mdl_average_step(0.5, step, 1, x, average);
    CU_ASSERT_DOUBLE_EQUAL((double)average[0], 5, 1e-6);
}

SUITE("model.params", T(test_tensors_tile_the_vector_in_order),
      T(test_names_and_shapes_are_those_of_the_export),
      T(test_initial_values_depend_on_the_seed_alone), T(test_decay_is_for_maps_alone),
      T(test_adam_steps_as_on_paper), T(test_the_average_starts_as_a_copy_and_follows))

/* Each optimiser against its formula written out in double precision, and the promises about bits:
 * lanes do not depend on their neighbours, bf16 rounds both ways in the right proportion and
 * repeats. */
#include "embeddings/optimizer.h"

#include "cluster/status.h"
#include "tests/suite.h"

#include <math.h>

enum { N_UPDATES = 300, MAX_DIM = 67 };

static struct emb_table_spec spec_of(enum emb_optimizer optimizer, int dim)
{
    struct emb_table_spec spec;
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "t");
    spec.optimizer = optimizer;
    spec.dim = dim;
    spec.learning_rate = 0.05;
    spec.epsilon = optimizer == EMB_ADAM ? 1e-8 : 1e-6;
    if (optimizer == EMB_FTRL) {
        spec.beta1 = 1;
        spec.l1 = 0.01;
        spec.l2 = 0.1;
    }
    return spec;
}

/* The formulas of optimizer.h in double; state as there. */
static void reference(const struct emb_table_spec *s, double *w, double *state, const float *g,
                      int n)
{
    const double lr = s->learning_rate, eps = s->epsilon;
    double sum = 0;
    for (int i = 0; i < s->dim; i++)
        sum += (double)g[i] * g[i];
    if (s->optimizer == EMB_ROWWISE_ADAGRAD)
        state[0] += sum / s->dim;
    for (int i = 0; i < s->dim; i++) {
        double *a = &state[i], *b = &state[s->dim + i], gi = g[i];
        switch (s->optimizer) {
        case EMB_ADAM: { /* the textbook form */
            *a = s->beta1 * *a + (1 - s->beta1) * gi;
            *b = s->beta2 * *b + (1 - s->beta2) * gi * gi;
            double m = *a / (1 - pow(s->beta1, n)), v = *b / (1 - pow(s->beta2, n));
            w[i] -= lr * m / (sqrt(v) + eps);
            break;
        }
        case EMB_ROWWISE_ADAGRAD:
            w[i] -= lr * gi / (sqrt(state[0]) + eps);
            break;
        case EMB_ADAGRAD:
            *a += gi * gi;
            w[i] -= lr * gi / (sqrt(*a) + eps);
            break;
        case EMB_SGD:
            w[i] -= lr * gi;
            break;
        default: { /* ftrl */
            if (n == 1)
                *a = -w[i] * s->beta1 / lr - s->l2 * w[i];
            double root = sqrt(*b + gi * gi), sigma = (root - sqrt(*b)) / lr;
            *a += gi - sigma * w[i];
            *b += gi * gi;
            w[i] = fabs(*a) <= s->l1
                       ? 0
                       : ((*a < 0 ? -1 : 1) * s->l1 - *a) / ((s->beta1 + root) / lr + s->l2);
        }
        }
    }
}

static void run_against_reference(enum emb_optimizer optimizer, int dim, uint64_t seed)
{
    struct emb_table_spec spec = spec_of(optimizer, dim);
    struct emb_updater updater;
    float w[MAX_DIM], state[2 * MAX_DIM] = {0}, g[MAX_DIM];
    double w_ref[MAX_DIM], state_ref[2 * MAX_DIM] = {0};
    CU_ASSERT_EQUAL_FATAL(emb_updater_init(&updater, &spec), CLU_OK);
    for (int i = 0; i < dim; i++)
        w_ref[i] = w[i] = (float)suite_uniform(&seed, -0.05, 0.05);
    double worst = 0;
    for (int n = 1; n <= N_UPDATES; n++) {
        for (int i = 0; i < dim; i++)
            g[i] = (float)suite_uniform(&seed, -1, 1);
        emb_update(&updater, w, state, g, (uint32_t)n);
        reference(&spec, w_ref, state_ref, g, n);
        for (int i = 0; i < dim; i++)
            worst = fmax(worst, fabs(w[i] - w_ref[i]));
    }
    if (worst > 2e-4)
        printf("  %s, dim %d: off by %g\n", emb_optimizer_name(optimizer), dim, worst);
    CU_ASSERT(worst <= 2e-4);
    emb_updater_fini(&updater);
}

static void test_every_optimizer_follows_its_formula(void)
{
    const int dims[] = {1, 3, 8, 16, 32, 64, 67};
    uint64_t seed = suite_seed();
    for (int o = 0; o < EMB_N_OPTIMIZERS; o++)
        for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++)
            run_against_reference((enum emb_optimizer)o, dims[d], seed + d);
}

/* A lane of a wide row and the same lane alone: the same bits, so vector width cannot matter. */
static void test_a_lane_has_the_same_bits_in_any_row_width(void)
{
    uint64_t seed = suite_seed();
    for (int o = 0; o < EMB_N_OPTIMIZERS; o++) {
        if (o == EMB_ROWWISE_ADAGRAD)
            continue; /* its lanes share a sum on purpose */
        struct emb_table_spec wide = spec_of((enum emb_optimizer)o, MAX_DIM);
        struct emb_table_spec one = spec_of((enum emb_optimizer)o, 1);
        struct emb_updater wide_updater, one_updater;
        emb_updater_init(&wide_updater, &wide);
        emb_updater_init(&one_updater, &one);
        float w[MAX_DIM], state[2 * MAX_DIM] = {0}, g[MAX_DIM];
        float w1[MAX_DIM], state1[MAX_DIM][2] = {{0}};
        for (int i = 0; i < MAX_DIM; i++)
            w1[i] = w[i] = (float)suite_uniform(&seed, -0.05, 0.05);
        for (uint32_t n = 1; n <= 50; n++) {
            for (int i = 0; i < MAX_DIM; i++)
                g[i] = (float)suite_uniform(&seed, -1, 1);
            emb_update(&wide_updater, w, state, g, n);
            for (int i = 0; i < MAX_DIM; i++)
                emb_update(&one_updater, &w1[i], state1[i], &g[i], n);
        }
        CU_ASSERT_EQUAL(memcmp(w, w1, sizeof(w)), 0);
        emb_updater_fini(&wide_updater);
        emb_updater_fini(&one_updater);
    }
}

static void test_bias_correction_stands_still_after_many_updates(void)
{
    struct emb_table_spec spec = spec_of(EMB_ADAM, 1);
    struct emb_updater updater;
    emb_updater_init(&updater, &spec);
    CU_ASSERT_DOUBLE_EQUAL(updater.step_size[updater.n_corrections - 1], 0.05f, 1e-8);
    float w = 0, state[2] = {0}, g = 1;
    emb_update(&updater, &w, state, &g, UINT32_MAX);
    CU_ASSERT(isfinite(w));
    emb_updater_fini(&updater);
}

static void test_bf16_rounds_up_as_often_as_the_remainder_says(void)
{
    const float value = 1.0f + 0x1p-7f * 0.25f; /* a quarter of the way to the next bf16 */
    float wide[64], back[64];
    uint16_t narrow[64], again[64];
    int n_up = 0, n = 0;
    for (int i = 0; i < 64; i++)
        wide[i] = value;
    for (uint64_t key = 0; key < 500; key++) {
        emb_bf16_narrow(wide, 64, key, (uint32_t)(key % 7), narrow);
        emb_bf16_narrow(wide, 64, key, (uint32_t)(key % 7), again);
        CU_ASSERT_EQUAL(memcmp(narrow, again, sizeof(narrow)), 0);
        emb_bf16_widen(narrow, 64, back);
        for (int i = 0; i < 64; i++, n++) {
            CU_ASSERT(back[i] == 1.0f || back[i] == 1.0f + 0x1p-7f);
            n_up += back[i] > 1.0f;
        }
    }
    CU_ASSERT_DOUBLE_EQUAL((double)n_up / n, 0.25, 0.02);
}

static void test_bf16_keeps_what_it_can_hold_and_what_is_not_a_number(void)
{
    const float values[6] = {0.0f, -2.5f, INFINITY, -INFINITY, NAN, 0x1p-126f};
    uint32_t bits = 0x7f800001u; /* a NaN whose payload is in the low half only */
    float odd, back[6], odd_back;
    uint16_t narrow[6], odd_narrow;
    memcpy(&odd, &bits, 4);
    for (uint32_t count = 0; count < 50; count++) {
        emb_bf16_narrow(values, 6, 3, count, narrow);
        emb_bf16_widen(narrow, 6, back);
        for (int i = 0; i < 6; i++)
            CU_ASSERT(i == 4 ? isnan(back[i]) : back[i] == values[i]);
        emb_bf16_narrow(&odd, 1, 3, count, &odd_narrow);
        emb_bf16_widen(&odd_narrow, 1, &odd_back);
        CU_ASSERT(isnan(odd_back));
    }
}

static void test_a_value_that_is_not_finite_is_found_anywhere(void)
{
    float values[100] = {0};
    CU_ASSERT_TRUE(emb_all_finite(values, 100));
    for (int i = 0; i < 100; i++) {
        values[i] = i % 2 ? NAN : -INFINITY;
        CU_ASSERT_FALSE(emb_all_finite(values, 100));
        values[i] = 3e38f;
    }
    CU_ASSERT_TRUE(emb_all_finite(values, 100));
    CU_ASSERT_TRUE(emb_all_finite(values, 0));
}

static void test_names_and_numbers_agree(void)
{
    for (int o = 0; o < EMB_N_OPTIMIZERS; o++) {
        enum emb_optimizer found;
        CU_ASSERT_EQUAL(emb_optimizer_by_name(emb_optimizer_name((enum emb_optimizer)o), &found),
                        CLU_OK);
        CU_ASSERT_EQUAL((int)found, o);
    }
    enum emb_optimizer found;
    enum emb_dtype dtype;
    CU_ASSERT_EQUAL(emb_optimizer_by_name("adamw", &found), CLU_E_CONFIG);
    CU_ASSERT_EQUAL(emb_dtype_by_name("bf16", &dtype), CLU_OK);
    CU_ASSERT_EQUAL(dtype, EMB_BF16);
    CU_ASSERT_EQUAL(emb_dtype_by_name("fp16", &dtype), CLU_E_CONFIG);
    CU_ASSERT_EQUAL(emb_optimizer_n_state(EMB_ADAM, 32), 64);
    CU_ASSERT_EQUAL(emb_optimizer_n_state(EMB_ROWWISE_ADAGRAD, 32), 1);
}

static void test_specs_that_cannot_work_are_refused(void)
{
    struct emb_table_spec spec = spec_of(EMB_ADAM, 8), bad;
    CU_ASSERT_EQUAL(emb_table_spec_check(&spec), CLU_OK);
    bad = spec;
    bad.dim = 0;
    CU_ASSERT_EQUAL(emb_table_spec_check(&bad), CLU_E_CONFIG);
    bad = spec;
    bad.name[0] = 0;
    CU_ASSERT_EQUAL(emb_table_spec_check(&bad), CLU_E_CONFIG);
    bad = spec;
    bad.learning_rate = NAN;
    CU_ASSERT_EQUAL(emb_table_spec_check(&bad), CLU_E_CONFIG);
    bad = spec;
    bad.beta2 = 1;
    CU_ASSERT_EQUAL(emb_table_spec_check(&bad), CLU_E_CONFIG);
    bad = spec;
    bad.optimizer = (enum emb_optimizer)77;
    CU_ASSERT_EQUAL(emb_table_spec_check(&bad), CLU_E_CONFIG);
}

SUITE("embeddings.optimizer", T(test_every_optimizer_follows_its_formula),
      T(test_a_lane_has_the_same_bits_in_any_row_width),
      T(test_bias_correction_stands_still_after_many_updates),
      T(test_bf16_rounds_up_as_often_as_the_remainder_says),
      T(test_bf16_keeps_what_it_can_hold_and_what_is_not_a_number),
      T(test_a_value_that_is_not_finite_is_found_anywhere), T(test_names_and_numbers_agree),
      T(test_specs_that_cannot_work_are_refused))

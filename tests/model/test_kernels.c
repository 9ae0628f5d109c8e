/* The vector code under the fast path, at the level this file is compiled for: the product against
 * three loops, exp against libm, and the rows against their definitions. test_kernels_v3.c and
 * _v4.c compile it again.
 */
#include "model/fast_kernel.h"
#include "model/fast_rows.h"
#include "tests/suite.h"

#if defined(TESTED_LEVEL) && defined(__x86_64__) && !defined(__clang__)
/* before anything of this level runs */
static __attribute__((constructor)) void leave_where_it_cannot_run(void)
{
    if (__builtin_cpu_supports(TESTED_LEVEL))
        return;
    puts("this machine is not " TESTED_LEVEL);
    exit(0);
}
#endif

static void fill(uint64_t *state_p, mdl_real *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (mdl_real)suite_uniform(state_p, -1, 1);
}

static void test_the_product_is_right_for_any_shape_and_stride(void)
{
    uint64_t state = suite_seed();
    static mdl_real A[80 * 80], B[80 * 96], C[80 * 96], start[80 * 96], bias[96];
    for (int round = 0; round < 300; round++) {
        int m = (int)(suite_random(&state) % 40), n = 1 + (int)(suite_random(&state) % 90);
        int k = (int)(suite_random(&state) % 40), flags = (int)(suite_random(&state) % 4);
        int transposed = (int)(suite_random(&state) % 2),
            lda = 40 + (int)(suite_random(&state) % 40);
        const mdl_real *with = !(flags & MDL_ADD) && suite_random(&state) % 2 ? bias : NULL;
        ptrdiff_t ars = transposed ? 1 : lda, acs = transposed ? lda : 1;
        fill(&state, A, sizeof(A) / sizeof(A[0]));
        fill(&state, B, sizeof(B) / sizeof(B[0]));
        fill(&state, start, sizeof(start) / sizeof(start[0]));
        fill(&state, bias, 96);
        memcpy(C, start, sizeof(C));
        mdl_mul(m, n, k, A, ars, acs, B, 96, with, flags, C, 96);
        double worst = 0;
        for (int i = 0; i < 80; i++) {
            for (int j = 0; j < 96; j++) {
                double expected = (double)start[i * 96 + j];
                if (i < m && j < n) {
                    expected = flags & MDL_ADD ? expected : with ? (double)bias[j] : 0;
                    for (int p = 0; p < k; p++)
                        expected += (double)A[i * ars + p * acs] * (double)B[p * 96 + j];
                    if (flags & MDL_RELU)
                        expected = expected > 0 ? expected : 0;
                }
                double off = fabs(expected - (double)C[i * 96 + j]);
                worst = off > worst ? off : worst;
            }
        }
        if (worst > 1e-5)
            printf("    m %d n %d k %d flags %d: off by %g\n", m, n, k, flags, worst);
        CU_ASSERT(worst <= 1e-5);
    }
}

static void test_exp_is_within_two_ulp_and_zero_far_down(void)
{
    mdl_real x[MDL_PAD];
    double worst = 0;
    for (double at = -86.99; at < 88; at += 0.00037) {
        for (int i = 0; i < MDL_PAD; i++)
            x[i] = (mdl_real)at;
        double truth = exp((double)x[0]);
        mdl_exp_row(x, MDL_PAD);
        float near = (float)truth;
        double ulp = (double)(nextafterf(near, INFINITY) - near);
        double off = fabs((double)x[0] - truth) / ulp;
        worst = off > worst ? off : worst;
        CU_ASSERT_EQUAL(x[0], x[MDL_PAD - 1]);
    }
    printf("    worst %.2f ulp\n", worst);
    CU_ASSERT(worst <= 2);
    const double far[] = {-87.5, -1000, -1e30};
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < MDL_PAD; i++)
            x[i] = (mdl_real)far[k];
        mdl_exp_row(x, MDL_PAD);
        CU_ASSERT_EQUAL(x[0], 0);
    }
    memset(x, 0, sizeof(x));
    mdl_exp_row(x, MDL_PAD);
    CU_ASSERT_EQUAL(x[0], 1);
}

static void test_softmax_leaves_out_what_is_masked(void)
{
    mdl_real x[2 * MDL_PAD], bias[2 * MDL_PAD];
    uint64_t state = suite_seed();
    int n = MDL_PAD + 3;
    double expected[2 * MDL_PAD], sum = 0;
    for (int i = 0; i < 2 * MDL_PAD; i++) {
        x[i] = (mdl_real)suite_uniform(&state, -40, 40);
        bias[i] = i < n ? (mdl_real)suite_uniform(&state, -3, 3) : (mdl_real)-1e30;
        expected[i] = i < n ? exp((double)x[i] + (double)bias[i] - 43) : 0;
        sum += expected[i];
    }
    mdl_softmax_row(x, bias, 2 * MDL_PAD);
    for (int i = 0; i < 2 * MDL_PAD; i++)
        CU_ASSERT_DOUBLE_EQUAL((double)x[i], expected[i] / sum, 1e-5);
    CU_ASSERT_EQUAL(x[n], 0);
}

static void test_sums_maxima_and_dots_take_every_lane(void)
{
    mdl_real x[70], y[70];
    uint64_t state = suite_seed();
    fill(&state, x, 70);
    fill(&state, y, 70);
    double sum = 0, max = -2;
    for (int i = 0; i < MDL_LANES; i++) {
        sum += (double)x[i];
        max = (double)x[i] > max ? (double)x[i] : max;
    }
    CU_ASSERT_DOUBLE_EQUAL((double)mdl_sum(mdl_load(x)), sum, 1e-5);
    CU_ASSERT_EQUAL((double)mdl_max_lane(mdl_load(x)), max);
    for (int n = 0; n <= 70; n++) {
        double dot = 0;
        for (int i = 0; i < n; i++)
            dot += (double)x[i] * (double)y[i];
        CU_ASSERT_DOUBLE_EQUAL((double)mdl_dot(n, x, y), dot, 1e-5);
    }
}

static void test_sums_of_many_vectors_at_once(void)
{
    uint64_t state = suite_seed();
    mdl_real x[MDL_LANES * MDL_LANES], sums[MDL_LANES];
    mdl_vec v[MDL_LANES];
    fill(&state, x, MDL_LANES * MDL_LANES);
    for (int t = 0; t < MDL_LANES; t++)
        v[t] = mdl_load(x + t * MDL_LANES);
    mdl_store(sums, mdl_sum_each(v));
    for (int t = 0; t < MDL_LANES; t++) {
        double sum = 0;
        for (int i = 0; i < MDL_LANES; i++)
            sum += (double)x[t * MDL_LANES + i];
        CU_ASSERT_DOUBLE_EQUAL((double)sums[t], sum, 1e-5);
    }
}

/* LayerNorm forward and backward at every width of up to six vectors, beside the definitions: rows
 * that fit into registers take another way than others */
static void test_layer_norm_is_its_definition_at_every_width(void)
{
    enum { ROWS = 5, WIDEST = 6 * MDL_PAD };
    static mdl_real x[ROWS * WIDEST], add[WIDEST], w[WIDEST], b[WIDEST], norm[ROWS * WIDEST],
        inv[ROWS], y[ROWS * WIDEST], dy[ROWS * WIDEST], dx[ROWS * WIDEST], sums[3][WIDEST];
    uint64_t state = suite_seed();
    for (int d = MDL_PAD; d <= WIDEST; d += MDL_PAD) {
        fill(&state, x, ROWS * WIDEST);
        fill(&state, add, WIDEST);
        fill(&state, w, WIDEST);
        fill(&state, b, WIDEST);
        fill(&state, dy, ROWS * WIDEST);
        memset(sums, 0, sizeof(sums));
        mdl_norm_rows(ROWS, d, x, d, add, w, b, norm, inv, y);
        mdl_norm_rows_backward(ROWS, d, dy, d, w, norm, inv, dx, d, sums[0], sums[1], sums[2]);
        double worst = 0, total[3] = {0}, expected[3] = {0};
        for (int i = 0; i < ROWS; i++) {
            double mean = 0, variance = 0, along = 0, level = 0;
            for (int k = 0; k < d; k++)
                mean += ((double)x[i * d + k] + (double)add[k]) / d;
            for (int k = 0; k < d; k++)
                variance += pow((double)x[i * d + k] + (double)add[k] - mean, 2) / d;
            double scale = 1 / sqrt(variance + 1e-5);
            for (int k = 0; k < d; k++) {
                double n = ((double)x[i * d + k] + (double)add[k] - mean) * scale;
                level += (double)dy[i * d + k] * (double)w[k] / d;
                along += (double)dy[i * d + k] * (double)w[k] * n / d;
                worst = fmax(worst, fabs(n * (double)w[k] + (double)b[k] - (double)y[i * d + k]));
            }
            for (int k = 0; k < d; k++) {
                double n = ((double)x[i * d + k] + (double)add[k] - mean) * scale;
                double g = (double)dy[i * d + k];
                double want = scale * (g * (double)w[k] - level - n * along);
                worst = fmax(worst, fabs(want - (double)dx[i * d + k]));
                expected[0] += g * n * (k + 1);
                expected[1] += g * (k + 1);
                expected[2] += want * (k + 1);
            }
        }
        for (int k = 0; k < d; k++)
            for (int s = 0; s < 3; s++)
                total[s] += (double)sums[s][k] * (k + 1);
        CU_ASSERT(worst <= 2e-5);
        for (int s = 0; s < 3; s++)
            CU_ASSERT_DOUBLE_EQUAL(total[s] / d, expected[s] / d, 1e-3);
    }
}

/* a gradient that is not a number must arrive where it is looked for, not become 0 on the way */
static void test_what_is_not_a_number_stays_so(void)
{
    mdl_real x[MDL_PAD], y[MDL_PAD], sum[MDL_PAD] = {0};
    for (int i = 0; i < MDL_PAD; i++)
        x[i] = y[i] = (mdl_real)NAN;
    CU_ASSERT(isnan(mdl_vec_relu(mdl_load(x))[0]));
    CU_ASSERT(isnan(mdl_scalar_relu(x[0])));
    mdl_exp_row(x, MDL_PAD);
    CU_ASSERT(isnan(x[0]));
    x[0] = 3;
    mdl_relu_rows_backward(1, MDL_PAD, y, x, sum);
    CU_ASSERT_EQUAL(x[0], 3);
    CU_ASSERT(isnan(sum[1]));
}

SUITE("model.kernels", T(test_the_product_is_right_for_any_shape_and_stride),
      T(test_exp_is_within_two_ulp_and_zero_far_down), T(test_softmax_leaves_out_what_is_masked),
      T(test_sums_maxima_and_dots_take_every_lane), T(test_sums_of_many_vectors_at_once),
      T(test_layer_norm_is_its_definition_at_every_width), T(test_what_is_not_a_number_stays_so))

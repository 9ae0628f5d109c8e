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

SUITE("model.kernels", T(test_the_product_is_right_for_any_shape_and_stride),
      T(test_exp_is_within_two_ulp_and_zero_far_down), T(test_softmax_leaves_out_what_is_masked),
      T(test_sums_maxima_and_dots_take_every_lane))

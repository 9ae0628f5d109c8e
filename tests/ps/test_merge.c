/* Sums are in rank order, bit for bit, whatever the order of keys. */
#include "ps/merge.h"
#include "tests/suite.h"

enum { DIM = 3 };

static void test_sums_equal_a_plain_loop_in_rank_order(void)
{
    uint64_t random = suite_seed();
    struct psv_merge *merge;
    CU_ASSERT_EQUAL_FATAL(psv_merge_create(&merge), 0);
    for (int round = 0; round < 100; round++) {
        enum { N_RANKS = 5, N_KEYS = 60 };
        uint64_t keys[N_RANKS][N_KEYS];
        float grads[N_RANKS][N_KEYS * DIM], sum[N_KEYS * 2][DIM] = {{0}};
        int seen[N_KEYS * 2] = {0};
        struct psv_source sources[N_RANKS];
        size_t n_distinct = 0;
        for (int r = 0; r < N_RANKS; r++) {
            size_t n = suite_random(&random) % N_KEYS, stride = 1 + suite_random(&random) % 2;
            for (size_t i = 0; i < n; i++) {
                size_t k = (i * stride + (size_t)r) % (N_KEYS * 2);
                keys[r][i] = k * 0x9e3779b97f4a7c15u;
                n_distinct += !seen[k];
                for (int j = 0; j < DIM; j++) {
                    float g = (float)suite_uniform(&random, -1, 1);
                    grads[r][i * DIM + (size_t)j] = g;
                    sum[k][j] = seen[k] ? sum[k][j] + g : g;
                }
                seen[k] = 1;
            }
            sources[r] = (struct psv_source){keys[r], grads[r], n};
        }
        const uint64_t *out_keys;
        const float *out;
        size_t n_out;
        CU_ASSERT_EQUAL_FATAL(psv_merge_sum(merge, sources, N_RANKS, DIM, &out_keys, &out, &n_out),
                              0);
        CU_ASSERT_EQUAL_FATAL(n_out, n_distinct);
        for (size_t i = 0; i < n_out; i++)
            for (size_t k = 0; k < N_KEYS * 2; k++)
                if (out_keys[i] == k * 0x9e3779b97f4a7c15u)
                    CU_ASSERT(!memcmp(out + i * DIM, sum[k], sizeof(sum[k])));
    }
    psv_merge_free(merge);
}

static void test_one_source_is_passed_through_without_a_copy(void)
{
    struct psv_merge *merge;
    uint64_t keys[2] = {4, 5};
    float grads[2 * DIM] = {1, 2, 3, 4, 5, 6};
    struct psv_source sources[3] = {{0}, {keys, grads, 2}, {0}};
    const uint64_t *out_keys;
    const float *out;
    size_t n;
    CU_ASSERT_EQUAL_FATAL(psv_merge_create(&merge), 0);
    CU_ASSERT_EQUAL(psv_merge_sum(merge, sources, 3, DIM, &out_keys, &out, &n), 0);
    CU_ASSERT(out_keys == keys && out == grads && n == 2);
    sources[1].n = 0;
    CU_ASSERT_EQUAL(psv_merge_sum(merge, sources, 3, DIM, &out_keys, &out, &n), 0);
    CU_ASSERT_EQUAL(n, 0);
    psv_merge_free(merge);
}

SUITE("ps.merge", T(test_sums_equal_a_plain_loop_in_rank_order),
      T(test_one_source_is_passed_through_without_a_copy))

/* A CUnit suite in one line.
 *
 *     SUITE("cluster.hash", T(test_mix_is_the_finaliser_of_splitmix64), T(test_...))
 *
 * defines main(): it runs the tests and fails on a failed assertion, on a registry error, and when
 * no test ran. An argument selects the tests whose names contain it. Property tests print their
 * seed through suite_seed(), which takes it from the environment (SLUICE_TEST_SEED) or the clock.
 */
#ifndef TESTS_SUITE_H
#define TESTS_SUITE_H

#include <CUnit/Basic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct suite_test {
    const char *name;
    void (*run)(void);
};

#ifdef __SANITIZE_THREAD__
/* libzmq is not built with the sanitizer: its locks and queues are invisible to it */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libzmq.so\nrace:libzmq.so\n";
}
#endif

#define T(function)                                                                                \
    {                                                                                              \
#function, function                                                                        \
    }

#define SUITE(suite_name, ...)                                                                     \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        static const struct suite_test tests[] = {__VA_ARGS__};                                    \
        return suite_run(suite_name, tests, sizeof(tests) / sizeof(tests[0]),                      \
                         argc > 1 ? argv[1] : NULL);                                               \
    }

static inline int suite_run(const char *name, const struct suite_test *tests, size_t n_tests,
                            const char *only)
{
    if (CU_initialize_registry() != CUE_SUCCESS)
        return 2;
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);
    for (size_t i = 0; suite && i < n_tests; i++)
        if (!only || strstr(tests[i].name, only))
            if (!CU_add_test(suite, tests[i].name, tests[i].run))
                return 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    int failed = CU_get_number_of_failures() > 0 || CU_get_number_of_tests_run() == 0;
    CU_cleanup_registry();
    return failed;
}

static inline uint64_t suite_seed(void)
{
    const char *text = getenv("SLUICE_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    printf("  seed %llu (repeat with SLUICE_TEST_SEED)\n", (unsigned long long)seed);
    return seed;
}

/* splitmix64: small, seeded, the same everywhere; for test data only */
static inline uint64_t suite_random(uint64_t *state_p)
{
    uint64_t x = (*state_p += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* uniform in [lo, hi) */
static inline double suite_uniform(uint64_t *state_p, double lo, double hi)
{
    return lo + (hi - lo) * (double)(suite_random(state_p) >> 11) * 0x1p-53;
}

#endif

/* Early stopping keeps the best epoch and ends after `patience` epochs that are not better. */
#include "tests/suite.h"

#include "worker/stopping.h"

#include <math.h>
#include <string.h>

static void test_the_best_is_kept_and_patience_counts_from_it(void)
{
    struct wrk_stopping s = {.patience = 2};
    CU_ASSERT_FALSE(wrk_stopping_is_enough(&s));
    CU_ASSERT_TRUE(wrk_stopping_judge(&s, 10, 0.9));
    CU_ASSERT_FALSE(wrk_stopping_judge(&s, 20, 0.95));
    CU_ASSERT_FALSE(wrk_stopping_is_enough(&s));
    CU_ASSERT_TRUE(wrk_stopping_judge(&s, 30, 0.8));  /* patience starts anew */
    CU_ASSERT_FALSE(wrk_stopping_judge(&s, 40, 0.8)); /* a tie is not better */
    CU_ASSERT_FALSE(wrk_stopping_is_enough(&s));
    CU_ASSERT_FALSE(wrk_stopping_judge(&s, 50, 0.85));
    CU_ASSERT_TRUE(wrk_stopping_is_enough(&s));
    CU_ASSERT(s.best_step == 30 && s.best_loss == 0.8 && s.judged == 50);
}

static void test_without_patience_nothing_is_ever_enough(void)
{
    struct wrk_stopping s = {.patience = 0};
    for (uint64_t step = 1; step < 100; step++)
        wrk_stopping_judge(&s, step, (double)step);
    CU_ASSERT_FALSE(wrk_stopping_is_enough(&s));
}

static void test_a_loss_that_is_no_number_is_never_the_best(void)
{
    struct wrk_stopping s = {.patience = 2};
    CU_ASSERT_FALSE(wrk_stopping_judge(&s, 1, NAN));
    CU_ASSERT_EQUAL(s.best_step, 0);
    CU_ASSERT_TRUE(wrk_stopping_judge(&s, 2, 5));
    CU_ASSERT_FALSE(wrk_stopping_judge(&s, 3, INFINITY));
    CU_ASSERT_FALSE(wrk_stopping_judge(&s, 4, NAN));
    CU_ASSERT_TRUE(wrk_stopping_is_enough(&s));
    CU_ASSERT_EQUAL(s.best_step, 2);
}

static void test_the_loss_is_the_sum_over_the_actions(void)
{
    static struct wrk_evaluation evaluation;
    memset(&evaluation, 0, sizeof(evaluation));
    evaluation.n_actions = 3;
    evaluation.action[0].log_loss = 0.5;
    evaluation.action[1].log_loss = 0.25;
    evaluation.action[2].log_loss = 0.125;
    CU_ASSERT_TRUE(isnan(wrk_stopping_loss(&evaluation))); /* no sample was read */
    evaluation.n_samples = 7;
    CU_ASSERT_EQUAL(wrk_stopping_loss(&evaluation), 0.875);
}

SUITE("worker.stopping", T(test_the_best_is_kept_and_patience_counts_from_it),
      T(test_without_patience_nothing_is_ever_enough),
      T(test_a_loss_that_is_no_number_is_never_the_best),
      T(test_the_loss_is_the_sum_over_the_actions))

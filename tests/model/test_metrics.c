/* Metrics against counting by hand and against the quadratic definition. */
#include "cluster/status.h"
#include "model/metrics.h"
#include "tests/suite.h"

#include <math.h>

/* pairs in the right order, ties half: the definition */
static double auc_by_pairs(const float *score, const uint8_t *label, size_t n)
{
    double right = 0, pairs = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            if (!label[i] || label[j])
                continue;
            pairs++;
            right += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
        }
    }
    return right / pairs;
}

static void test_auc_counts_ties_as_half(void)
{
    /* positives 0.9 0.5, negatives 0.5 0.1: 1 + 1 + 0.5 + 1 of 4 */
    const float score[] = {0.9f, 0.5f, 0.5f, 0.1f};
    const uint8_t label[] = {1, 0, 1, 0};
    double auc;
    CU_ASSERT_EQUAL(mdl_auc(score, label, 4, &auc), 0);
    CU_ASSERT_DOUBLE_EQUAL(auc, 3.5 / 4, 0);
    const uint8_t ones[] = {1, 1, 1, 1};
    CU_ASSERT_EQUAL(mdl_auc(score, ones, 4, &auc), 0);
    CU_ASSERT(isnan(auc));
    CU_ASSERT_EQUAL(mdl_auc(score, ones, 0, &auc), 0);
    CU_ASSERT(isnan(auc));
}

static void test_auc_is_the_share_of_ordered_pairs(void)
{
    uint64_t state = suite_seed();
    float score[300];
    uint8_t label[300];
    for (int round = 0; round < 20; round++) {
        size_t n = 2 + suite_random(&state) % 298;
        for (size_t i = 0; i < n; i++) {
            /* negative scores, zeros of both signs and many ties too */
            score[i] = (float)((int)(suite_random(&state) % 41) - 20) / 8;
            if (suite_random(&state) % 9 == 0)
                score[i] = -0.0f;
            label[i] = suite_random(&state) % 3 == 0;
        }
        label[0] = 1;
        label[1] = 0;
        double auc;
        CU_ASSERT_EQUAL(mdl_auc(score, label, n, &auc), 0);
        CU_ASSERT_DOUBLE_EQUAL(auc, auc_by_pairs(score, label, n), 1e-12);
    }
}

static void test_gauc_weights_users_by_their_samples(void)
{
    /* user 7: AUC 1 over 2 samples; user 8: 0 over 3 (its positive is last); user 9 has no negative
     * */
    const uint64_t user[] = {7, 8, 7, 8, 8, 9};
    const float score[] = {0.9f, 0.1f, 0.2f, 0.5f, 0.6f, 0.3f};
    const uint8_t label[] = {1, 1, 0, 0, 0, 1};
    double gauc;
    uint64_t n_users;
    CU_ASSERT_EQUAL(mdl_gauc(user, score, label, 6, &gauc, &n_users), 0);
    CU_ASSERT_DOUBLE_EQUAL(gauc, 2.0 / 5, 1e-12);
    CU_ASSERT_EQUAL(n_users, 2);
}

static void fill(struct mdl_metrics *m, uint64_t *state_p, int n)
{
    for (int i = 0; i < n; i++) {
        float p = (float)suite_uniform(state_p, 0, 1);
        int label = suite_uniform(state_p, 0, 1) < (double)p;
        mdl_metrics_add(m, 2, suite_random(state_p) % 50, p, label);
        if (label)
            mdl_metrics_add_time(m, 2, p, p + 0.25f);
    }
}

static void test_figures_are_as_counted_by_hand(void)
{
    struct mdl_metrics *m;
    struct mdl_figures f;
    CU_ASSERT_EQUAL_FATAL(mdl_metrics_create(3, 0, &m), 0);
    mdl_metrics_add(m, 2, 1, 0.5f, 1);
    mdl_metrics_add(m, 2, 1, 0.25f, 0);
    mdl_metrics_add_time(m, 2, 1.0f, 0.5f);
    mdl_metrics_add_time(m, 2, 0.0f, 0.25f);
    CU_ASSERT_EQUAL(mdl_metrics_figures(m, 2, &f), 0);
    CU_ASSERT_EQUAL(f.n, 2);
    CU_ASSERT_EQUAL(f.n_positive, 1);
    CU_ASSERT_DOUBLE_EQUAL(f.auc, 1, 0);
    CU_ASSERT_DOUBLE_EQUAL(f.gauc, 1, 0);
    CU_ASSERT_DOUBLE_EQUAL(f.log_loss, -(log(0.5) + log(0.75)) / 2, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(f.calibration, 0.75, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(f.mae, 0.375, 1e-9);
    CU_ASSERT_EQUAL(mdl_metrics_figures(m, 3, &f), 0);
    CU_ASSERT(isnan(f.auc) && isnan(f.log_loss) && isnan(f.mae) && isnan(f.calibration));
    mdl_metrics_free(m);
}

static void test_merged_ranks_give_what_one_would(void)
{
    uint64_t state = suite_seed(), again = state;
    struct mdl_metrics *whole, *part[2];
    struct mdl_figures a, b;
    void *bytes;
    size_t size;
    mdl_metrics_create(3, 0, &whole);
    mdl_metrics_create(3, 0, &part[0]);
    mdl_metrics_create(3, 0, &part[1]);
    fill(whole, &state, 3000);
    fill(part[0], &again, 1000);
    fill(part[1], &again, 2000);
    CU_ASSERT_EQUAL_FATAL(mdl_metrics_encode(part[1], &bytes, &size), 0);
    CU_ASSERT_EQUAL(mdl_metrics_merge(part[0], bytes, size), 0);
    CU_ASSERT_EQUAL(mdl_metrics_figures(whole, 2, &a), 0);
    CU_ASSERT_EQUAL(mdl_metrics_figures(part[0], 2, &b), 0);
    CU_ASSERT_DOUBLE_EQUAL(a.auc, b.auc, 0);
    CU_ASSERT_DOUBLE_EQUAL(a.gauc, b.gauc, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(a.log_loss, b.log_loss, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(a.mae, b.mae, 1e-12);
    CU_ASSERT_EQUAL(a.n, b.n);
    /* cut anywhere, the bytes are refused and nothing changes */
    for (size_t cut = 0; cut < size; cut += 1 + cut / 7)
        CU_ASSERT_EQUAL(mdl_metrics_merge(part[0], bytes, cut), CLU_E_PROTOCOL);
    CU_ASSERT_EQUAL(mdl_metrics_figures(part[0], 2, &a), 0);
    CU_ASSERT_EQUAL(a.n, b.n);
    free(bytes);
    mdl_metrics_free(whole);
    mdl_metrics_free(part[0]);
    mdl_metrics_free(part[1]);
}

static void test_beyond_the_limit_auc_is_off_by_no_more_than_it_says(void)
{
    uint64_t state = suite_seed(), again = state;
    struct mdl_metrics *exact, *binned;
    struct mdl_figures a, b;
    void *bytes;
    size_t size;
    mdl_metrics_create(2, 0, &exact);
    mdl_metrics_create(2, 500, &binned);
    fill(exact, &state, 4000);
    fill(binned, &again, 4000);
    CU_ASSERT_EQUAL(mdl_metrics_figures(exact, 2, &a), 0);
    CU_ASSERT_EQUAL(mdl_metrics_figures(binned, 2, &b), 0);
    CU_ASSERT_EQUAL(a.n, b.n);
    CU_ASSERT(a.auc_error == 0 && b.auc_error >= 0 && b.auc_error < 1e-4);
    CU_ASSERT(fabs(a.auc - b.auc) <= b.auc_error + 1e-12);
    CU_ASSERT(isnan(b.gauc));
    /* exact into bins, and bins into bins */
    CU_ASSERT_EQUAL(mdl_metrics_encode(exact, &bytes, &size), 0);
    CU_ASSERT_EQUAL(mdl_metrics_merge(binned, bytes, size), 0);
    free(bytes);
    CU_ASSERT_EQUAL(mdl_metrics_encode(binned, &bytes, &size), 0);
    CU_ASSERT_EQUAL(mdl_metrics_merge(exact, bytes, size), 0);
    free(bytes);
    CU_ASSERT_EQUAL(mdl_metrics_figures(exact, 2, &a), 0);
    CU_ASSERT_EQUAL(a.n, 12000);
    CU_ASSERT_DOUBLE_EQUAL(a.auc, b.auc, 1e-3);
    mdl_metrics_free(exact);
    mdl_metrics_free(binned);
}

SUITE("model.metrics", T(test_auc_counts_ties_as_half), T(test_auc_is_the_share_of_ordered_pairs),
      T(test_gauc_weights_users_by_their_samples), T(test_figures_are_as_counted_by_hand),
      T(test_merged_ranks_give_what_one_would),
      T(test_beyond_the_limit_auc_is_off_by_no_more_than_it_says))

/* The four references on a log small enough to work out by hand. */
#include "tests/suite.h"

#include "tests/worker/data_rig.h"
#include "worker/references.h"

#include <math.h>

/* user 1 buys always, user 2 never; item rates say nothing. Training: items 1..8 of both; test:
 * items 9, 10 */
static const char *make_log(void)
{
    static char text[4000];
    char *at = text + sprintf(text, "u,i,a,t\n");
    for (int item = 1; item <= 10; item++)
        for (int user = 1; user <= 2; user++) {
            int time = item * 1000 + user;
            at += sprintf(at, "%d,%d,click,%d\n", user, item, time);
            if (user == 1)
                at += sprintf(at, "%d,%d,buy,%d\n", user, item, time + 5);
        }
    return text;
}

static void test_rates_rank_as_worked_out_on_paper(void)
{
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_write_text("log.csv", make_log());
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("set"));
    options.split = 0.8;
    CU_ASSERT_EQUAL_FATAL(wrk_prepare(&options, NULL), CLU_OK);
    struct wrk_dataset *dataset;
    struct wrk_references out;
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("set"), &dataset), CLU_OK);
    CU_ASSERT_EQUAL(wrk_references_measure(dataset, WRK_SPLIT_TEST, 0, 100, &out), CLU_OK);
    CU_ASSERT_EQUAL(out.n_samples, 4);
    CU_ASSERT_EQUAL(out.n_positives[4], 2);
    CU_ASSERT_DOUBLE_EQUAL(out.rate[4], 0.5, 1e-12);
    CU_ASSERT_EQUAL(out.auc[WRK_REFERENCE_USER][4], 1);
    CU_ASSERT_EQUAL(out.auc[WRK_REFERENCE_HISTORY][4], 1);
    CU_ASSERT_EQUAL(out.auc[WRK_REFERENCE_PRODUCT][4], 1);
    CU_ASSERT_EQUAL(out.auc[WRK_REFERENCE_ITEM][4], 0.5); /* unseen items: all ties */
    CU_ASSERT(isnan(out.auc[WRK_REFERENCE_USER][2]));     /* everyone clicks */
    wrk_dataset_close(dataset);
}

static void test_a_history_of_none_knows_nothing(void)
{
    struct wrk_dataset *dataset;
    struct wrk_references out;
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("set"), &dataset), CLU_OK);
    CU_ASSERT_EQUAL(wrk_references_measure(dataset, WRK_SPLIT_TEST, 0, 0, &out), CLU_OK);
    CU_ASSERT_EQUAL(out.auc[WRK_REFERENCE_HISTORY][4], 0.5);
    wrk_dataset_close(dataset);
}

SUITE("worker.references", T(test_rates_rank_as_worked_out_on_paper),
      T(test_a_history_of_none_knows_nothing))

/* Counts of an item's past: nothing of the same second or later is in them; their columns. */
#include "tests/suite.h"

#include "cluster/status.h"
#include "worker/counts.h"
#include "worker/event.h"

#include <math.h>
#include <string.h>

static void check(const uint64_t *values, double age, int n, int k2, int k3)
{
    CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[0]), log1p(age / 60) / 10, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[1]), log1p(n) / 2, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[2]), (log((k2 + 0.25) / (n + 5)) + 3) / 2, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[3]), (log((k3 + 0.25) / (n + 5)) + 3) / 2, 1e-6);
}

static void test_events_of_one_second_do_not_see_each_other(void)
{
    struct wrk_counts counts;
    uint64_t values[4];
    wrk_counts_begin(&counts, 3);
    wrk_counts_next(&counts, 5000, 2, values);
    check(values, 0, 0, 0, 0);
    wrk_counts_next(&counts, 5200, 3, values);
    check(values, 0.2, 0, 0, 0);
    wrk_counts_next(&counts, 6000, 2, values);
    check(values, 1, 2, 1, 1);
    wrk_counts_next(&counts, 6000, 2, values);
    check(values, 1, 2, 1, 1);
    wrk_counts_next(&counts, 66000, 1, values); /* start counts as an event */
    check(values, 61, 4, 3, 1);
    wrk_counts_next(&counts, 70000, 1, values);
    check(values, 65, 5, 3, 1);
    wrk_counts_begin(&counts, 3); /* another item */
    wrk_counts_next(&counts, 70000, 2, values);
    check(values, 0, 0, 0, 0);
}

static struct wrk_schema parse(const char *text)
{
    struct wrk_schema schema;
    CU_ASSERT_EQUAL_FATAL(wrk_schema_parse("test.yaml", text, strlen(text), &schema), CLU_OK);
    return schema;
}

static void test_the_columns_end_the_item_features(void)
{
    struct wrk_schema schema =
        parse("name: s\nuser: u\nitem: i\naction: a\ntime: t\ntime_format: unix\n"
              "actions: [start, click, buy]\nitem_features: [kind]\n");
    CU_ASSERT_EQUAL(wrk_counts_first(&schema), -1);
    CU_ASSERT_EQUAL(wrk_counts_add_columns(&schema), CLU_OK);
    CU_ASSERT_EQUAL(wrk_counts_first(&schema), 1);
    CU_ASSERT_EQUAL(schema.n_item_features, 5);
    CU_ASSERT_STRING_EQUAL(schema.item_feature[1].column.name, "item_age");
    CU_ASSERT_STRING_EQUAL(schema.item_feature[4].column.name, "item_buy");
    CU_ASSERT_EQUAL(schema.item_feature[4].column.kind, WRK_COLUMN_NUMERIC);
    CU_ASSERT_FALSE(wrk_schema_wants_attributes(&schema, false));
    CU_ASSERT_EQUAL(wrk_counts_add_columns(&schema), CLU_E_CONFIG); /* the names are taken */
}

SUITE("worker.counts", T(test_events_of_one_second_do_not_see_each_other),
      T(test_the_columns_end_the_item_features))

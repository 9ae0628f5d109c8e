/* The list of verbs and what their help looks like. */
#include "sched/verbs.h"
#include "tests/suite.h"

enum { HELP_COLUMNS = 100 };

static void test_a_verb_is_found_by_its_name_alone(void)
{
    for (int i = 0; schd_verb_at(i); i++)
        CU_ASSERT_PTR_EQUAL(schd_verb_find(schd_verb_at(i)->name), schd_verb_at(i));
    CU_ASSERT_PTR_NULL(schd_verb_find("tain"));
    CU_ASSERT_PTR_NULL(schd_verb_find(""));
}

static void test_a_slip_is_told_the_verb_that_was_meant(void)
{
    static const char *const slips[][2] = {
        {"tain", "train"}, {"statsu", "status"}, {"re-shard", "reshard"}, {"inspcet", "inspect"}};
    for (int i = 0; i < 4; i++) {
        const char *near = schd_verb_nearest(slips[i][0]);
        CU_ASSERT_PTR_NOT_NULL_FATAL(near);
        CU_ASSERT_STRING_EQUAL(near, slips[i][1]);
    }
    CU_ASSERT_PTR_NULL(schd_verb_nearest("zzzzzzzzzz"));
}

static void test_the_help_of_every_verb_has_an_example_and_fits_a_terminal(void)
{
    for (int i = 0; schd_verb_at(i); i++) {
        char *text = NULL, *rest = NULL;
        size_t size;
        FILE *stream = open_memstream(&text, &size);
        schd_verb_print_help(schd_verb_at(i), stream);
        fclose(stream);
        CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nexample:\n  "));
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            if (strlen(line) > HELP_COLUMNS)
                printf("  %s: %s\n", schd_verb_at(i)->name, line);
            CU_ASSERT(strlen(line) <= HELP_COLUMNS);
        }
        free(text);
    }
}

SUITE("sched.verbs", T(test_a_verb_is_found_by_its_name_alone),
      T(test_a_slip_is_told_the_verb_that_was_meant),
      T(test_the_help_of_every_verb_has_an_example_and_fits_a_terminal))

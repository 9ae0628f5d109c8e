#include "tests/suite.h"

#include "cluster/settings.h"
#include "cluster/status.h"

struct knobs {
    bool fast;
    int64_t steps;
    double rate;
    uint64_t memory;
    char name[8];
    char mode[16];
};

static const struct clu_setting rows[] = {
    {"fast", CLU_SETTING_BOOL, offsetof(struct knobs, fast), 1, "false", 0, 0, NULL, "be fast"},
    {"max_steps", CLU_SETTING_INT, offsetof(struct knobs, steps), 8, "5", 1, 100, "never=-1",
     "steps"},
    {"rate", CLU_SETTING_REAL, offsetof(struct knobs, rate), 8, "0.1", 0, 1, NULL, "rate"},
    {"memory", CLU_SETTING_SIZE, offsetof(struct knobs, memory), 8, "1MiB", 1024, 1e12, NULL,
     "bytes"},
    {"name", CLU_SETTING_TEXT, offsetof(struct knobs, name), 8, "", 0, 0, NULL, "a name"},
    {"mode", CLU_SETTING_CHOICE, offsetof(struct knobs, mode), 16, "greedy", 0, 0, "greedy|exact",
     "mode"},
};

static struct clu_binding bound(struct knobs *knobs)
{
    memset(knobs, 0, sizeof(*knobs));
    struct clu_binding binding = {rows, sizeof(rows) / sizeof(rows[0]), knobs};
    clu_settings_defaults(binding);
    return binding;
}

static int parse(struct knobs *knobs, int argc, char **argv, int *n_p)
{
    struct clu_binding binding = bound(knobs);
    return clu_settings_arguments(&binding, 1, argc, argv, n_p);
}

static void test_defaults_come_from_the_table(void)
{
    struct knobs knobs;
    bound(&knobs);
    CU_ASSERT(!knobs.fast && knobs.steps == 5 && knobs.rate == 0.1 && knobs.memory == 1 << 20);
    CU_ASSERT(knobs.name[0] == '\0' && strcmp(knobs.mode, "greedy") == 0);
}

static void test_flags_overwrite_and_positionals_keep_their_order(void)
{
    struct knobs knobs;
    int n = 0;
    char *argv[] = {"one",  "--fast", "--max-steps", "7",      "two", "--rate=0.5", "--memory",
                    "2GiB", "--set",  "mode=exact",  "--name", "x",   "--",         "--three"};
    CU_ASSERT_EQUAL(parse(&knobs, 14, argv, &n), CLU_OK);
    CU_ASSERT(n == 3 && !strcmp(argv[0], "one") && !strcmp(argv[1], "two") &&
              !strcmp(argv[2], "--three"));
    CU_ASSERT(knobs.fast && knobs.steps == 7 && knobs.rate == 0.5 &&
              knobs.memory == (uint64_t)2 << 30);
    CU_ASSERT(!strcmp(knobs.mode, "exact") && !strcmp(knobs.name, "x"));
}

static void test_a_switch_can_be_turned_off(void)
{
    struct knobs knobs;
    int n;
    char *argv[] = {"--fast", "--no-fast"};
    CU_ASSERT_EQUAL(parse(&knobs, 2, argv, &n), CLU_OK);
    CU_ASSERT(!knobs.fast);
}

static void test_bad_values_are_refused_and_change_nothing(void)
{
    static const char *const bad[][2] = {
        {"max_steps", "0"},       {"max_steps", "101"}, {"max_steps", "7x"}, {"max_steps", ""},
        {"max_steps", "1e2"},     {"rate", "nan"},      {"rate", "1.01"},    {"rate", "-0.1"},
        {"memory", "12"},         {"memory", "5XB"},    {"memory", "-1GiB"}, {"name", "12345678"},
        {"mode", "exac"},         {"mode", "exactly"},  {"mode", ""},        {"fast", "maybe"},
        {"mode", "greedy|exact"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct knobs knobs, untouched;
        struct clu_binding binding = bound(&knobs);
        bound(&untouched);
        const struct clu_setting *row = clu_settings_find(binding, bad[i][0]);
        CU_ASSERT_FATAL(row != NULL);
        CU_ASSERT_EQUAL(clu_setting_assign(row, &knobs, bad[i][1], "test"), CLU_E_CONFIG);
        CU_ASSERT_EQUAL(memcmp(&knobs, &untouched, sizeof(knobs)), 0);
    }
}

static void test_wrong_flags_are_usage_errors(void)
{
    struct knobs knobs;
    int n;
    char *unknown[] = {"--max-stepz", "7"}, *single[] = {"-f"}, *open[] = {"--rate"};
    char *set[] = {"--set", "rate"}, *range[] = {"--rate", "7"};
    CU_ASSERT_EQUAL(parse(&knobs, 2, unknown, &n), CLU_E_USAGE);
    CU_ASSERT_EQUAL(parse(&knobs, 1, single, &n), CLU_E_USAGE);
    CU_ASSERT_EQUAL(parse(&knobs, 1, open, &n), CLU_E_USAGE);
    CU_ASSERT_EQUAL(parse(&knobs, 2, set, &n), CLU_E_USAGE);
    CU_ASSERT_EQUAL(parse(&knobs, 2, range, &n), CLU_E_USAGE);
}

static void test_the_nearest_name_is_found(void)
{
    struct knobs knobs;
    struct clu_binding binding = bound(&knobs);
    CU_ASSERT_STRING_EQUAL(clu_settings_nearest(&binding, 1, "max-stepz"), "max_steps");
    CU_ASSERT_STRING_EQUAL(clu_settings_nearest(&binding, 1, "memroy"), "memory");
    CU_ASSERT_PTR_NULL(clu_settings_nearest(&binding, 1, "zzzzzzzz"));
}

static void test_the_environment_overwrites_defaults(void)
{
    struct knobs knobs;
    struct clu_binding binding = bound(&knobs);
    setenv("SLUICE_MAX_STEPS", "never", 1);
    CU_ASSERT_EQUAL(clu_settings_environment(binding), CLU_OK);
    CU_ASSERT_EQUAL(knobs.steps, -1);
    setenv("SLUICE_MAX_STEPS", "many", 1);
    CU_ASSERT_EQUAL(clu_settings_environment(binding), CLU_E_CONFIG);
    unsetenv("SLUICE_MAX_STEPS");
}

static void test_every_value_formats_to_what_reads_back(void)
{
    uint64_t random = suite_seed();
    for (int round = 0; round < 2000; round++) {
        struct knobs a, b;
        struct clu_binding binding = bound(&a);
        bound(&b);
        a.fast = suite_random(&random) & 1;
        a.steps = round % 7 == 0 ? -1 : 1 + (int64_t)(suite_random(&random) % 100);
        a.rate = suite_uniform(&random, 0, 1);
        a.memory = 1024 + suite_random(&random) % 1000000000;
        for (size_t i = 0; i < binding.n_rows; i++) {
            char text[64];
            clu_setting_format(&rows[i], &a, text, sizeof(text));
            CU_ASSERT_EQUAL(clu_setting_assign(&rows[i], &b, text, "test"), CLU_OK);
        }
        CU_ASSERT(a.fast == b.fast && a.steps == b.steps && a.rate == b.rate &&
                  a.memory == b.memory);
    }
}

SUITE("cluster.settings", T(test_defaults_come_from_the_table),
      T(test_flags_overwrite_and_positionals_keep_their_order), T(test_a_switch_can_be_turned_off),
      T(test_bad_values_are_refused_and_change_nothing), T(test_wrong_flags_are_usage_errors),
      T(test_the_nearest_name_is_found), T(test_the_environment_overwrites_defaults),
      T(test_every_value_formats_to_what_reads_back))

#include "tests/suite.h"

#include "cluster/log.h"

#include <jansson.h>
#include <unistd.h>

static char captured[16384];

/* Runs body with stderr going to a file, whose content ends up in captured. */
static void capture(void (*body)(void))
{
    FILE *file = tmpfile();
    CU_ASSERT_FATAL(file != NULL);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    body();
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    captured[fread(captured, 1, sizeof(captured) - 1, file)] = '\0';
    fclose(file);
    clu_log_init(CLU_LOG_INFO, "test", -1, false);
}

static void three_levels(void)
{
    clu_log_init(CLU_LOG_WARN, "worker", 3, false);
    clu_error("one");
    clu_warn("two %d", 2);
    clu_info("three");
}

static void test_a_line_has_time_level_role_rank_and_text(void)
{
    capture(three_levels);
    char *first = strstr(captured, " error worker 3: one\n");
    CU_ASSERT_FATAL(first != NULL);
    CU_ASSERT(first - captured == 24 && captured[4] == '-' && captured[23] == 'Z');
    CU_ASSERT_PTR_NOT_NULL(strstr(captured, " warn worker 3: two 2\n"));
    CU_ASSERT_PTR_NULL(strstr(captured, "three")); /* below the level */
}

static void odd_bytes(void)
{
    clu_info("a\nb\x1b[31m %s", "\xff\xfe");
}

static void odd_bytes_as_json(void)
{
    clu_log_init(CLU_LOG_INFO, "ps", 0, true);
    clu_info("say \"hi\"\n");
    clu_info("bytes \xff that are no text");
}

static void test_control_bytes_cannot_forge_a_line(void)
{
    capture(odd_bytes);
    CU_ASSERT_EQUAL(strchr(captured, '\n'), captured + strlen(captured) - 1);
    CU_ASSERT_PTR_NULL(strchr(captured, '\x1b'));
}

static void test_every_json_line_parses(void)
{
    capture(odd_bytes_as_json);
    int n = 0;
    for (char *line = strtok(captured, "\n"); line; line = strtok(NULL, "\n"), n++) {
        json_t *object = json_loads(line, 0, NULL);
        CU_ASSERT_FATAL(object != NULL);
        CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(object, "role")), "ps");
        CU_ASSERT_EQUAL(json_integer_value(json_object_get(object, "rank")), 0);
        CU_ASSERT(json_is_string(json_object_get(object, "text")));
        json_decref(object);
    }
    CU_ASSERT_EQUAL(n, 2);
}

static void long_text(void)
{
    static char text[9000];
    memset(text, 'x', sizeof(text) - 1);
    clu_info("%s", text);
}

static void test_a_long_text_is_cut_and_the_line_still_ends(void)
{
    capture(long_text);
    size_t length = strlen(captured);
    CU_ASSERT(length < 4096 && length > 3000 && captured[length - 1] == '\n');
}

SUITE("cluster.log", T(test_a_line_has_time_level_role_rank_and_text),
      T(test_control_bytes_cannot_forge_a_line), T(test_every_json_line_parses),
      T(test_a_long_text_is_cut_and_the_line_still_ends))

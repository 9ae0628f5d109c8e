/* What `sluice status` shows a person of an answer of the scheduler. */
#include "sched/status_text.h"

#include "tests/suite.h"

#include <stdbool.h>

static char shown[8192];

static void show(const char *json)
{
    json_t *root = json_loads(json, 0, NULL);
    FILE *out = fmemopen(shown, sizeof(shown), "w");
    CU_ASSERT_FATAL(root && out);
    schd_status_print(root, out);
    fclose(out);
    json_decref(root);
}

static bool says(const char *text)
{
    bool found = strstr(shown, text) != NULL;
    if (!found)
        printf("  not said: %s; but:\n%s", text, shown);
    return found;
}

static const char running[] =
    "{\"phase\":\"running\",\"step\":480,\"n_steps\":800,\"generation\":2,\"snapshot_step\":400,"
    "\"snapshot_under_way\":true,\"stopping\":false,\"text\":\"\","
    "\"progress\":{\"loss\":1.3072,\"loss_cls\":1.25,\"loss_reg\":0.057,\"epoch\":3,"
    "\"samples_per_second\":5321.4,\"step_seconds\":2.5,\"longest_step_seconds\":3.5,"
    "\"pull_wait_share\":0.123,\"data_wait_share\":0.001,\"staleness\":0.9,"
    "\"rank_0_samples_total\":3072},"
    "\"evaluation\":{\"like_auc\":0.7213,\"like_auc_best\":0.8,\"like_best_auc\":0.8,"
    "\"leave_auc\":0.65},"
    "\"snapshot\":{\"snapshot_rows\":1200,\"snapshot_bytes\":1468006,\"snapshot_seconds\":0.2},"
    "\"change\":{\"state\":\"moving\",\"moved\":512,\"to_move\":2048,\"seconds\":1.5,"
    "\"text\":\"2048 buckets are to move\"},"
    "\"members\":[{\"role\":\"ps\",\"rank\":0,\"state\":\"ready\",\"slow\":false,\"silent_ms\":12,"
    "\"pid\":77,\"host\":\"node-1\",\"figures\":{\"rows\":550,\"resident_rows\":467,"
    "\"memory_bytes\":2147483648,\"file_bytes\":1048576,\"rows_pulled_total\":9,"
    "\"rows_pushed_total\":8,\"refused_total\":3,\"malformed_total\":0}},"
    "{\"role\":\"ps\",\"rank\":1,\"state\":\"absent\",\"slow\":false,\"silent_ms\":0,\"pid\":0,"
    "\"host\":\"\",\"last_end\":{\"status\":\"ok\",\"text\":\"was killed by signal 9\"}},"
    "{\"role\":\"ps\",\"rank\":2,\"state\":\"drained\",\"slow\":false,\"silent_ms\":9999,"
    "\"pid\":76,\"host\":\"node-1\",\"figures\":{\"rows\":5}},"
    "{\"role\":\"worker\",\"rank\":0,\"state\":\"in\",\"slow\":true,\"silent_ms\":2,\"pid\":78,"
    "\"host\":\"node-2\"},"
    "{\"role\":\"worker\",\"rank\":1,\"state\":\"dead\",\"slow\":false,\"silent_ms\":2,\"pid\":79,"
    "\"host\":\"node-2\",\"end\":{\"status\":\"lost\",\"text\":\"silent for 9 ms\"}}],"
    "\"events\":[{\"time_ms\":1000,\"level\":\"warn\",\"text\":\"worker 0 is slow\"}]}";

static void test_a_running_job_is_told_in_words_and_units(void)
{
    show(running);
    CU_ASSERT(says("running, step 480 of 800 (60 %), about 13 min to go, life 2\n"));
    CU_ASSERT(says("loss     1.307 (classes 1.25, times 0.057"));
    CU_ASSERT(says("rate     5321 samples/s, 2.5 s a step, the longest 3.5 s\n"));
    CU_ASSERT(says("waits    12.3 % for rows, 0.1 % for data; staleness 0.9\n"));
    CU_ASSERT(says("AUC      like 0.7213, leave 0.6500\n"));
    CU_ASSERT(says("snapshot step 400 is whole; the last: 1200 rows, 1.4 MiB, 0.2 s; one is under "
                   "way\n"));
    CU_ASSERT(says("servers  2048 buckets are to move (512 of 2048 buckets moved, 1.5 s)\n"));
    CU_ASSERT(says("warn: worker 0 is slow\n"));
}

static void test_a_member_is_a_line_with_what_matters_of_its_role(void)
{
    show(running);
    CU_ASSERT(says("ps          0  serves       12 ms       77  node-1  rows 550 (467 in memory), "
                   "memory 2.0 GiB, disk 1.0 MiB, pulled 9, pushed 8, refused 3\n"));
    CU_ASSERT(says("ps          1  awaited   (the one before: was killed by signal 9)\n"));
    CU_ASSERT(says("ps          2  drained \n"));
    CU_ASSERT(says("worker      0  trains        2 ms       78  node-2  SLOW  samples 3072\n"));
    CU_ASSERT(says("worker      1  dead      lost silent for 9 ms\n"));
}

static void test_of_what_has_not_begun_nothing_is_said(void)
{
    show("{\"phase\":\"gathering\",\"step\":0,\"n_steps\":0,\"generation\":1,\"snapshot_step\":0,"
         "\"members\":[],\"events\":[],\"text\":\"\"}");
    CU_ASSERT_STRING_EQUAL(shown, "gathering, step 0, life 1\nsnapshot none is whole yet\n"
                                  "role     rank  state    heard ago      pid  host\n");
    show("{\"phase\":\"broken\",\"text\":\"ps 1 is lost\",\"stopping\":true,\"gone_on\":1,"
         "\"lost_steps\":3,\"lost_samples\":192}");
    CU_ASSERT(says("broken, step 0, life 0, stopping\nbecause  ps 1 is lost\n"));
    CU_ASSERT(
        says("lost     3 steps, 192 samples for dense weights: new workers went on 1 time\n"));
}

SUITE("sched.status_text", T(test_a_running_job_is_told_in_words_and_units),
      T(test_a_member_is_a_line_with_what_matters_of_its_role),
      T(test_of_what_has_not_begun_nothing_is_said))

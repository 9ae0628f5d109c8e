/* The generated world keeps to what is reported of real short video, and its odds are its
 * frequencies. */
#include "tests/suite.h"

#include "tests/worker/data_rig.h"
#include "worker/generate.h"
#include "worker/world.h"

#include <math.h>

enum { N_VIEWERS = 2500, N_VIEWINGS = 60, N_VIDEOS = 1000, N_AUTHORS = 125 };

struct tally {
    double near_time[7], far_time[7], near[7],
        far[7]; /* of viewings in which it had not happened */
    double watched_follow_like, watched_like_follow;
    int n_follow_like, n_like_follow;
};

static void tally_viewing(struct tally *tally, const struct wrk_video *video,
                          const struct wrk_viewing *viewing)
{
    double at[7];
    for (int a = 0; a < 7; a++)
        at[a] = INFINITY;
    for (int e = 0; e < viewing->n; e++)
        at[viewing->event[e].action] = viewing->event[e].t;
    if (isfinite(at[WRK_LIKE]) && isfinite(at[WRK_FOLLOW])) {
        bool follow_first = at[WRK_FOLLOW] < at[WRK_LIKE];
        *(follow_first ? &tally->watched_follow_like : &tally->watched_like_follow) +=
            viewing->watched;
        (*(follow_first ? &tally->n_follow_like : &tally->n_like_follow))++;
    }
    double from = 0;
    for (int b = 0; b < video->n_bins && from < viewing->watched; b++) {
        double to = fmin(video->bin_end[b], viewing->watched);
        for (int a = WRK_LIKE; a <= WRK_COLLECT; a++) {
            if (at[a] < from)
                continue;
            double time = fmin(to, at[a]) - from;
            *(video->is_near[b] ? &tally->near_time[a] : &tally->far_time[a]) += time;
            *(video->is_near[b] ? &tally->near[a] : &tally->far[a]) +=
                at[a] < video->bin_end[b] && at[a] >= from;
        }
        from = video->bin_end[b];
    }
}

static void test_what_is_reported_of_real_video_holds(void)
{
    struct tally tally = {0};
    for (uint64_t u = 1; u <= N_VIEWERS; u++) {
        struct wrk_viewer viewer;
        wrk_world_viewer(3, u, &viewer);
        uint64_t state = u;
        for (int k = 0; k < N_VIEWINGS; k++) {
            struct wrk_video video;
            struct wrk_viewing viewing;
            wrk_world_video(3, wrk_world_next(&state) % N_VIDEOS, N_AUTHORS, &video);
            wrk_world_watch(&viewer, &video, &state, &viewing);
            tally_viewing(&tally, &video, &viewing);
        }
    }
#define RATIO(a) (tally.near[a] / tally.near_time[a] / (tally.far[a] / tally.far_time[a]))
    double longer = tally.watched_follow_like / tally.n_follow_like /
                    (tally.watched_like_follow / tally.n_like_follow);
    printf(
        "  near a peak: like x %.2f, follow x %.2f, collect x %.2f; follow-like watches x %.3f\n",
        RATIO(WRK_LIKE), RATIO(WRK_FOLLOW), RATIO(WRK_COLLECT), longer);
    CU_ASSERT(RATIO(WRK_LIKE) > 4); /* likes come in peaks */
    CU_ASSERT_DOUBLE_EQUAL(RATIO(WRK_FOLLOW), 3.3, 0.3);
    CU_ASSERT_DOUBLE_EQUAL(RATIO(WRK_COLLECT), 1.52, 0.15);
    CU_ASSERT_DOUBLE_EQUAL(longer, 1.28, 0.06);
}

static void test_likes_of_a_video_have_several_peaks(void)
{
    int n_several = 0;
    for (uint64_t v = 0; v < 200; v++) {
        struct wrk_video video;
        int n_peaks = 0;
        wrk_world_video(3, v, N_AUTHORS, &video);
        CU_ASSERT(video.n_segments >= 3 && video.n_segments <= 6);
        for (int b = 1; b < video.n_bins; b++) {
            n_peaks += video.is_near[b] && !video.is_near[b - 1];
            CU_ASSERT(video.bin_end[b] > video.bin_end[b - 1]);
        }
        CU_ASSERT_EQUAL(video.bin_end[video.n_bins - 1], 1);
        n_several += n_peaks >= 2;
    }
    CU_ASSERT(n_several > 150);
}

static void test_odds_are_the_frequencies_of_the_same_process(void)
{
    uint64_t seed = suite_seed();
    enum { PAIRS = 8, DRAWS = 20000 };
    for (int i = 0; i < PAIRS; i++) {
        struct wrk_viewer viewer;
        struct wrk_video video;
        struct wrk_odds odds;
        wrk_world_viewer(5, suite_random(&seed) % 1000, &viewer);
        wrk_world_video(5, suite_random(&seed) % 1000, N_AUTHORS, &video);
        wrk_world_odds(&viewer, &video, &odds);
        double n[7] = {0}, t[7] = {0};
        uint64_t state = suite_random(&seed);
        for (int k = 0; k < DRAWS; k++) {
            struct wrk_viewing viewing;
            wrk_world_watch(&viewer, &video, &state, &viewing);
            for (int e = 0; e < viewing.n; e++) {
                n[viewing.event[e].action]++;
                t[viewing.event[e].action] += viewing.event[e].t;
            }
        }
        for (int a = WRK_LIKE; a <= WRK_LEAVE; a++) {
            double p = odds.p[a], spread = sqrt(p * (1 - p) / DRAWS);
            CU_ASSERT_DOUBLE_EQUAL(n[a] / DRAWS, p, 6 * spread + 1e-4);
            if (n[a] > 500)
                CU_ASSERT_DOUBLE_EQUAL(t[a] / n[a], odds.t[a], 0.08);
        }
        CU_ASSERT_EQUAL(odds.p[WRK_START], 1);
    }
}

static void test_generate_writes_what_was_asked_and_the_truth_of_test_samples(void)
{
    struct wrk_generate_options options = {.n_users = 50,
                                           .n_items = 200,
                                           .n_samples = 2000,
                                           .seed = 9,
                                           .split = 0.9,
                                           .dir = rig_path("set"),
                                           .log = rig_path("log.csv")};
    struct wrk_dataset_info info;
    CU_ASSERT_EQUAL_FATAL(wrk_generate(&options, &info), CLU_OK);
    CU_ASSERT_EQUAL(info.n_pairs, 2000);
    CU_ASSERT_EQUAL(info.n_test, 200);
    CU_ASSERT_EQUAL(info.n_users, 50);
    CU_ASSERT(info.has_truth);
    struct wrk_dataset *dataset;
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    struct wrk_reader_options reading = rig_reading(WRK_SPLIT_TEST);
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(options.dir, &dataset), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_open(dataset, &reading, (struct wrk_position){0, 0}, &reader),
                          CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_next(reader, &samples), CLU_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(samples->truth_probability);
    double expected = 0;
    int n_leave = 0;
    for (int i = 0; i < samples->n_samples; i++) {
        CU_ASSERT_EQUAL(samples->truth_probability[i * 7 + 1], 1);
        expected += samples->truth_probability[i * 7 + WRK_LEAVE];
        for (int k = samples->target_offset[i]; k < samples->target_offset[i + 1]; k++)
            n_leave += samples->target_action[k] == WRK_LEAVE;
    }
    CU_ASSERT_DOUBLE_EQUAL(n_leave, expected, 5 * sqrt(200 * 0.25));
    wrk_samples_free(samples);
    wrk_reader_close(reader);
    wrk_dataset_close(dataset);
}

static void test_the_log_of_a_generated_set_prepares_to_the_same_pairs(void)
{
    struct wrk_schema schema;
    struct wrk_prepare_report report;
    char *log = rig_path("log.csv");
    CU_ASSERT_EQUAL_FATAL(wrk_schema_find("video", &schema), CLU_OK);
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("prepared"));
    CU_ASSERT_EQUAL_FATAL(wrk_prepare(&options, &report), CLU_OK);
    struct wrk_dataset *dataset;
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("set"), &dataset), CLU_OK);
    const struct wrk_dataset_info *info = wrk_dataset_info(dataset);
    CU_ASSERT_EQUAL(report.info.n_pairs, info->n_pairs);
    CU_ASSERT_EQUAL(report.info.n_events, info->n_events);
    CU_ASSERT_EQUAL(report.info.split_time, info->split_time);
    for (int a = 1; a <= info->n_actions; a++)
        CU_ASSERT_EQUAL(report.info.n_with_action[a], info->n_with_action[a]);
    wrk_dataset_close(dataset);
}

static void test_the_same_arguments_give_the_same_bytes_and_another_seed_others(void)
{
    struct wrk_generate_options options = {.n_users = 20,
                                           .n_items = 100,
                                           .n_samples = 300,
                                           .seed = 1,
                                           .split = 0.9,
                                           .dir = rig_path("a")};
    CU_ASSERT_EQUAL(wrk_generate(&options, NULL), CLU_OK);
    options.dir = rig_path("b");
    CU_ASSERT_EQUAL(wrk_generate(&options, NULL), CLU_OK);
    CU_ASSERT(rig_same_files(rig_path("a/shard-00000.slu"), rig_path("b/shard-00000.slu")));
    CU_ASSERT(rig_same_files(rig_path("a/manifest.json"), rig_path("b/manifest.json")));
    options.seed = 2;
    CU_ASSERT_EQUAL(wrk_generate(&options, NULL), CLU_OK);
    CU_ASSERT(!rig_same_files(rig_path("a/shard-00000.slu"), rig_path("b/shard-00000.slu")));
}

static void test_more_samples_than_pairs_are_refused(void)
{
    struct wrk_generate_options options = {.n_users = 2,
                                           .n_items = 10,
                                           .n_samples = 11,
                                           .seed = 1,
                                           .split = 0.9,
                                           .dir = rig_path("c")};
    CU_ASSERT_EQUAL(wrk_generate(&options, NULL), CLU_E_USAGE);
    CU_ASSERT(!clu_path_exists(rig_path("c")) && !clu_path_exists(rig_path("c.part")));
}

SUITE("worker.world", T(test_what_is_reported_of_real_video_holds),
      T(test_likes_of_a_video_have_several_peaks),
      T(test_odds_are_the_frequencies_of_the_same_process),
      T(test_generate_writes_what_was_asked_and_the_truth_of_test_samples),
      T(test_the_log_of_a_generated_set_prepares_to_the_same_pairs),
      T(test_the_same_arguments_give_the_same_bytes_and_another_seed_others),
      T(test_more_samples_than_pairs_are_refused))

/* Logs in, data sets out: DATA.md's rules by hand, and against a plain implementation of them on
 * random logs. */
#include "tests/suite.h"

#include "tests/worker/data_rig.h"
#include "worker/counts.h"
#include "worker/event.h"

#include <math.h>
#include <zlib.h>

/* one sample as text: user|item|time|history|label, so that sets of samples can be compared */
static void describe(const struct wrk_dataset_info *info, const struct wrk_samples *s, int i,
                     char *out)
{
    const struct wrk_id *user = &s->user_id[s->sample_user[i]];
    const struct wrk_id *item = &s->item_id[s->sample_item[i]];
    out += sprintf(out, "%.*s|%.*s|%lld|", user->size_bytes, user->text, item->size_bytes,
                   item->text, (long long)s->sample_time[i]);
    for (int h = s->hist_offset[i]; h < s->hist_offset[i + 1]; h++) {
        int seq = s->hist_seq[h];
        const struct wrk_id *other = &s->item_id[s->seq_item[seq]];
        out += sprintf(out, "%.*s(", other->size_bytes, other->text);
        for (int k = s->seq_offset[seq]; k < s->seq_offset[seq + 1]; k++)
            out += sprintf(out, "%s:%.5f ", info->action[s->seq_action[k]], (double)s->seq_time[k]);
        out += sprintf(out, ")");
    }
    out += sprintf(out, "|");
    for (int k = s->target_offset[i]; k < s->target_offset[i + 1]; k++)
        out +=
            sprintf(out, "%s:%.5f ", info->action[s->target_action[k]], (double)s->target_time[k]);
}

/* all samples of a split, each as a line of its own; returns their number */
static int read_all(const char *dir, enum wrk_split split, char lines[][4096], int max)
{
    struct wrk_dataset *dataset;
    if (wrk_dataset_open(dir, &dataset) != CLU_OK)
        return -1;
    struct wrk_reader_options options = rig_reading(split);
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    int n = 0;
    if (wrk_dataset_n_samples(dataset, split, 0) > 0) {
        CU_ASSERT_EQUAL_FATAL(
            wrk_reader_open(dataset, &options, (struct wrk_position){0, 0}, &reader), CLU_OK);
        while (wrk_reader_next(reader, &samples) == CLU_OK && samples) {
            for (int i = 0; i < samples->n_samples && n < max; i++)
                describe(wrk_dataset_info(dataset), samples, i, lines[n++]);
            wrk_samples_free(samples);
        }
        wrk_reader_close(reader);
    }
    wrk_dataset_close(dataset);
    return n;
}

static char lines[4096][4096];

static bool has_line(int n, const char *expected)
{
    for (int i = 0; i < n; i++)
        if (strcmp(lines[i], expected) == 0)
            return true;
    printf("  not found: %s\n", expected);
    for (int i = 0; i < n && i < 20; i++)
        printf("      there: %s\n", lines[i]);
    return false;
}

static void test_a_pair_keeps_first_occurrences_in_order_with_a_start_in_front(void)
{
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text,
                                "u,i,a,t\n"
                                "7,x,buy,220\n7,x,click,100\n7,x,click,160\n7,x,cart,160\n",
                                "one", NULL),
                    CLU_OK);
    int n = read_all(rig_path("one"), WRK_SPLIT_TEST, lines, 10);
    CU_ASSERT_EQUAL(n, 1); /* floor(0.9 x 1) = 0: the first sample is the split */
    /* log1p(1) / 10, log1p(2) / 10 */
    CU_ASSERT(has_line(n, "7|x|100||start:0.00000 click:0.00000 cart:0.06931 buy:0.10986 "));
}

static void test_ties_follow_the_order_of_the_action_list(void)
{
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text,
                                "u,i,a,t\n7,x,buy,100\n7,x,cart,100\n7,x,click,100\n", "ties",
                                NULL),
                    CLU_OK);
    int n = read_all(rig_path("ties"), WRK_SPLIT_TEST, lines, 10);
    CU_ASSERT(has_line(n, "7|x|100||start:0.00000 click:0.00000 cart:0.00000 buy:0.00000 "));
}

static void test_history_shows_only_what_had_happened_strictly_before(void)
{
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_write_text("log.csv", "u,i,a,t\n"
                                          "7,a,click,100\n7,a,cart,200\n7,a,buy,300\n"
                                          "7,b,click,200\n7,c,click,201\n");
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("strict"));
    options.split = 1;
    CU_ASSERT_EQUAL(wrk_prepare(&options, NULL), CLU_OK);
    int n = read_all(rig_path("strict"), WRK_SPLIT_TRAIN, lines, 10);
    CU_ASSERT_EQUAL(n, 3);
    /* the cart at 200 is not before 200, but is before 201 */
    CU_ASSERT(has_line(n, "7|b|200|a(start:0.00000 click:0.00000 )|start:0.00000 click:0.00000 "));
    CU_ASSERT(has_line(n, "7|c|201|a(start:0.00000 click:0.00000 cart:0.09808 )"
                          "b(start:0.00000 click:0.00000 )|start:0.00000 click:0.00000 "));
}

static void test_pairs_of_one_second_are_ordered_by_item_key_and_do_not_see_each_other(void)
{
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_write_text("log.csv", "u,i,a,t\n7,9,click,100\n7,3,click,100\n7,5,click,100\n"
                                          "7,1,click,101\n");
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("second"));
    options.split = 1;
    CU_ASSERT_EQUAL(wrk_prepare(&options, NULL), CLU_OK);
    int n = read_all(rig_path("second"), WRK_SPLIT_TRAIN, lines, 10);
    CU_ASSERT(has_line(n, "7|9|100||start:0.00000 click:0.00000 "));
    CU_ASSERT(has_line(n, "7|3|100||start:0.00000 click:0.00000 "));
    CU_ASSERT(has_line(n, "7|1|101|3(start:0.00000 click:0.00000 )"
                          "5(start:0.00000 click:0.00000 )9(start:0.00000 click:0.00000 )"
                          "|start:0.00000 click:0.00000 "));
}

static void test_a_label_window_bounds_the_label_and_not_the_history(void)
{
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_write_text("log.csv", "u,i,a,t\n7,a,click,100\n7,a,cart,110\n7,a,buy,111\n"
                                          "7,b,click,500\n");
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("window"));
    options.split = 1;
    options.label_window_ms = 10000;
    CU_ASSERT_EQUAL(wrk_prepare(&options, NULL), CLU_OK);
    int n = read_all(rig_path("window"), WRK_SPLIT_TRAIN, lines, 10);
    CU_ASSERT(has_line(n, "7|a|100||start:0.00000 click:0.00000 cart:0.01542 "));
    CU_ASSERT(has_line(n, "7|b|500|a(start:0.00000 click:0.00000 cart:0.01542 buy:0.01683 )"
                          "|start:0.00000 click:0.00000 "));
}

static void test_ids_come_back_as_the_log_wrote_them(void)
{
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text,
                                "u,i,a,t\n"
                                "-3499919498720038879,007,click,1\n"
                                "18446744073709551615,\"a \"\"b\"\", c\",click,2\n"
                                "u1,0,click,3\n",
                                "ids", NULL),
                    CLU_OK);
    int n = read_all(rig_path("ids"), WRK_SPLIT_TRAIN, lines, 10);
    n += read_all(rig_path("ids"), WRK_SPLIT_TEST, lines + n, 10);
    CU_ASSERT_EQUAL(n, 3);
    CU_ASSERT(has_line(n, "-3499919498720038879|007|1||start:0.00000 click:0.00000 "));
    CU_ASSERT(has_line(n, "18446744073709551615|a \"b\", c|2||start:0.00000 click:0.00000 "));
    CU_ASSERT(has_line(n, "u1|0|3||start:0.00000 click:0.00000 "));
}

/* --- the plain implementation --- */
struct event {
    int user, item, action;
    long time;
};

static void plain_label(const struct event *events, int n, int user, int item, long before,
                        bool as_history, char **out_p)
{
    static const char *const names[] = {"", "start", "click", "cart", "buy"};
    long first[5], start = LONG_MAX;
    for (int a = 2; a <= 4; a++) {
        first[a] = LONG_MAX;
        for (int e = 0; e < n; e++)
            if (events[e].user == user && events[e].item == item && events[e].action == a &&
                events[e].time < first[a])
                first[a] = events[e].time;
        start = first[a] < start ? first[a] : start;
    }
    *out_p += sprintf(*out_p, "start:0.00000 ");
    for (int done = 0; done < 3; done++) {
        int best = 0;
        for (int a = 4; a >= 2; a--)
            if (first[a] != LONG_MAX && (!best || first[a] <= first[best]))
                best = a;
        if (!best || (as_history && first[best] >= before))
            break;
        *out_p += sprintf(*out_p, "%s:%.5f ", names[best],
                          (double)(float)(log1p((double)(first[best] - start) / 60) / 10));
        first[best] = LONG_MAX;
    }
}

static long start_of(const struct event *events, int n, int user, int item)
{
    long start = LONG_MAX;
    for (int e = 0; e < n; e++)
        if (events[e].user == user && events[e].item == item && events[e].time < start)
            start = events[e].time;
    return start;
}

static void plain_sample(const struct event *events, int n, int user, int item, int n_items,
                         int history, char *out)
{
    long start = start_of(events, n, user, item);
    out += sprintf(out, "%d|%d|%ld|", user, item, start);
    int before[64], n_before = 0;
    for (int other = 0; other < n_items; other++)
        if (start_of(events, n, user, other) < start)
            before[n_before++] = other;
    for (int i = 0; i < n_before; i++) /* by (start, item) */
        for (int j = i + 1; j < n_before; j++) {
            long a = start_of(events, n, user, before[i]), b = start_of(events, n, user, before[j]);
            if (b < a || (b == a && before[j] < before[i])) {
                int swap = before[i];
                before[i] = before[j];
                before[j] = swap;
            }
        }
    for (int i = n_before > history ? n_before - history : 0; i < n_before; i++) {
        out += sprintf(out, "%d(", before[i]);
        plain_label(events, n, user, before[i], start, true, &out);
        out += sprintf(out, ")");
    }
    out += sprintf(out, "|");
    plain_label(events, n, user, item, 0, false, &out);
}

static void test_random_logs_agree_with_a_plain_implementation(void)
{
    enum { EVENTS = 400, USERS = 5, ITEMS = 24 };
    static struct event events[EVENTS];
    static char text[EVENTS * 40], expected[4096];
    static const char *const names[] = {"", "start", "click", "cart", "buy"};
    uint64_t seed = suite_seed();
    for (int round = 0; round < 6; round++) {
        int n = 1 + (int)(suite_random(&seed) % EVENTS), span = round % 2 ? 40 : 4000;
        char *at = text + sprintf(text, "u,i,a,t\n");
        for (int e = 0; e < n; e++) {
            events[e] = (struct event){
                (int)(suite_random(&seed) % USERS), (int)(suite_random(&seed) % ITEMS),
                2 + (int)(suite_random(&seed) % 3), (long)(suite_random(&seed) % (uint64_t)span)};
            at += sprintf(at, "%d,%d,%s,%ld\n", events[e].user, events[e].item,
                          names[events[e].action], events[e].time);
        }
        struct wrk_prepare_report report;
        CU_ASSERT_EQUAL_FATAL(rig_prepare(rig_schema_text, text, "random", &report), CLU_OK);
        int n_train = read_all(rig_path("random"), WRK_SPLIT_TRAIN, lines, 4096);
        int n_all = n_train + read_all(rig_path("random"), WRK_SPLIT_TEST, lines + n_train, 4096);
        int n_pairs = 0, n_before = 0;
        for (int user = 0; user < USERS; user++)
            for (int item = 0; item < ITEMS; item++) {
                long start = start_of(events, n, user, item);
                if (start == LONG_MAX)
                    continue;
                n_pairs++;
                n_before += start * 1000 < report.info.split_time;
                plain_sample(events, n, user, item, ITEMS, 100, expected);
                CU_ASSERT(has_line(n_all, expected));
            }
        CU_ASSERT_EQUAL(n_all, n_pairs);
        CU_ASSERT_EQUAL(n_train, n_before);
        CU_ASSERT(n_before <= (int)(0.9 * n_pairs)); /* sample floor(0.9 n) is the first of test */
        CU_ASSERT_EQUAL(report.info.n_events, (uint64_t)n);
    }
}

/* an item's numbers at a pair's start, counted over the whole log */
static void check_counts(const struct event *events, int n, int item, long start,
                         const uint64_t *values)
{
    int n_before = 0, of[5] = {0};
    long first = start;
    for (int e = 0; e < n; e++)
        if (events[e].item == item && events[e].time < start) {
            n_before++;
            of[events[e].action]++;
            first = events[e].time < first ? events[e].time : first;
        }
    CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[0]), log1p((double)(start - first) / 60) / 10,
                           1e-6);
    CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[1]), log1p(n_before) / 2, 1e-6);
    for (int a = 2; a <= 4; a++)
        CU_ASSERT_DOUBLE_EQUAL(wrk_value_float(values[a]),
                               (log((of[a] + 0.25) / (n_before + 5)) + 3) / 2, 1e-6);
}

static void test_counts_of_items_are_those_of_the_pairs_start(void)
{
    enum { EVENTS = 600, USERS = 20, ITEMS = 12 };
    static struct event events[EVENTS];
    static char text[EVENTS * 40];
    static const char *const names[] = {"", "start", "click", "cart", "buy"};
    uint64_t seed = suite_seed();
    char *at = text + sprintf(text, "u,i,a,t\n");
    for (int e = 0; e < EVENTS; e++) {
        events[e] =
            (struct event){(int)(suite_random(&seed) % USERS), (int)(suite_random(&seed) % ITEMS),
                           2 + (int)(suite_random(&seed) % 3), (long)(suite_random(&seed) % 900)};
        at += sprintf(at, "%d,%d,%s,%ld\n", events[e].user, events[e].item, names[events[e].action],
                      events[e].time);
    }
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_write_text("log.csv", text);
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("counted"));
    options.split = 1;
    CU_ASSERT_EQUAL_FATAL(wrk_counts_add_columns(&schema), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_prepare(&options, NULL), CLU_OK);
    struct wrk_dataset *dataset;
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    struct wrk_reader_options reading = rig_reading(WRK_SPLIT_TRAIN);
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("counted"), &dataset), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_info(dataset)->n_item_columns, 1 + 5);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_open(dataset, &reading, (struct wrk_position){0, 0}, &reader),
                          CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_next(reader, &samples), CLU_OK);
    CU_ASSERT(samples->n_samples > 100);
    for (int i = 0; i < samples->n_samples; i++) {
        const uint64_t *values = samples->item_value + 6 * samples->sample_item[i];
        check_counts(events, EVENTS, (int)values[0], (long)samples->sample_time[i], values + 1);
    }
    wrk_samples_free(samples);
    wrk_reader_close(reader);
    wrk_dataset_close(dataset);
}

static void test_the_split_is_the_start_of_sample_floor_of_nine_tenths(void)
{
    char text[1000] = "u,i,a,t\n", *at = text + strlen(text);
    for (int i = 0; i < 25; i++)
        at += sprintf(at, "%d,1,click,%d\n", i, 1000 + 10 * i);
    struct wrk_prepare_report report;
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, text, "split", &report), CLU_OK);
    CU_ASSERT_EQUAL(report.info.split_time, (1000 + 10 * 22) * 1000); /* floor(22.5) */
    CU_ASSERT_EQUAL(report.info.n_train, 22);
    CU_ASSERT_EQUAL(report.info.n_test, 3);
}

static void test_bad_lines_are_refused_unless_allowed_and_then_counted(void)
{
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_write_text("log.csv", "u,i,a,t\n1,1,click,1\n1,1,jump,2\n1,2,click\n"
                                          "1,3,click,soon\n,3,click,3\n1,4,buy,9\n");
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("bad"));
    struct wrk_prepare_report report;
    CU_ASSERT_EQUAL(wrk_prepare(&options, &report), CLU_E_DATA);
    CU_ASSERT(!clu_path_exists(rig_path("bad")));
    CU_ASSERT(!clu_path_exists(rig_path("bad.part")));
    options.max_bad = 3;
    CU_ASSERT_EQUAL(wrk_prepare(&options, &report), CLU_E_DATA);
    options.max_bad = 4;
    CU_ASSERT_EQUAL(wrk_prepare(&options, &report), CLU_OK);
    CU_ASSERT_EQUAL(report.n_bad, 4);
    CU_ASSERT_EQUAL(report.info.n_events, 2);
    CU_ASSERT_EQUAL(report.info.n_skipped, 4);
}

static void test_a_folder_that_is_no_data_set_is_left_alone(void)
{
    char *dir = rig_path("precious");
    CU_ASSERT_EQUAL(clu_mkdirs(dir), CLU_OK);
    rig_write_text("precious/thesis.txt", "years of work");
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, "u,i,a,t\n1,1,click,1\n", "precious", NULL),
                    CLU_E_EXISTS);
    CU_ASSERT(clu_path_exists(rig_path("precious/thesis.txt")));
}

static void test_a_data_set_is_replaced_and_the_same_log_gives_the_same_bytes(void)
{
    const char *log = "u,i,a,t\n1,1,click,1\n2,1,buy,1\n1,3,click,7\n";
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, log, "again", NULL), CLU_OK);
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, log, "other", NULL), CLU_OK);
    CU_ASSERT(rig_same_files(rig_path("again/manifest.json"), rig_path("other/manifest.json")));
    CU_ASSERT(rig_same_files(rig_path("again/shard-00000.slu"), rig_path("other/shard-00000.slu")));
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, "u,i,a,t\n1,1,click,1\n", "again", NULL), CLU_OK);
    CU_ASSERT(!rig_same_files(rig_path("again/manifest.json"), rig_path("other/manifest.json")));
    CU_ASSERT(!clu_path_exists(rig_path("again.old")));
    CU_ASSERT(!clu_path_exists(rig_path("again.part")));
}

static void test_a_log_in_several_files_and_gzip_is_one_log(void)
{
    struct wrk_schema schema = rig_schema(rig_schema_text);
    gzFile zipped = gzopen(rig_path("b.bin"), "wb");
    static const char second[] = "\xef\xbb\xbft,a,i,u\r\n5,buy,1,1\r\n";
    gzwrite(zipped, second, sizeof(second) - 1);
    gzclose(zipped);
    char *logs[2];
    logs[0] = rig_write_text("a.csv", "u,i,a,t\n1,1,click,1\n");
    logs[1] = rig_path("b.bin");
    struct wrk_prepare_options options = rig_options(&schema, logs, 2, rig_path("two"));
    CU_ASSERT_EQUAL(wrk_prepare(&options, NULL), CLU_OK);
    int n = read_all(rig_path("two"), WRK_SPLIT_TEST, lines, 10);
    CU_ASSERT(has_line(n, "1|1|1||start:0.00000 click:0.00000 buy:0.00645 "));
}

static void test_attributes_are_joined_by_id_with_their_prefix(void)
{
    struct wrk_schema schema =
        rig_schema("user: u\nitem: i\naction: a\ntime: t\ntime_format: unix\nactions: [click]\n"
                   "item_attributes: {key: id, key_prefix: i}\n"
                   "item_features:\n  - {name: category, from: attributes}\n"
                   "  - {name: price, kind: numeric, from: attributes}\n");
    char *log = rig_write_text("log.csv", "u,i,a,t\n1,i5,click,1\n1,i6,click,2\n");
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("joined"));
    options.item_attributes = rig_write_text("items.csv", "id,category,price\n5,77,2.5\n");
    options.split = 1;
    struct wrk_prepare_report report;
    CU_ASSERT_EQUAL(wrk_prepare(&options, &report), CLU_OK);
    CU_ASSERT_EQUAL(report.n_unjoined, 1);
    struct wrk_dataset *dataset;
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    struct wrk_reader_options reading = rig_reading(WRK_SPLIT_TRAIN);
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("joined"), &dataset), CLU_OK);
    CU_ASSERT_EQUAL(wrk_dataset_info(dataset)->n_item_columns, 3);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_open(dataset, &reading, (struct wrk_position){0, 0}, &reader),
                          CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_next(reader, &samples), CLU_OK);
    const uint64_t *known = samples->item_value + 3 * samples->sample_item[0];
    float price;
    memcpy(&price, &known[2], sizeof(price));
    CU_ASSERT_EQUAL(known[1], 77);
    CU_ASSERT_EQUAL(price, 2.5f);
    const uint64_t *unknown = samples->item_value + 3 * samples->sample_item[1];
    CU_ASSERT_EQUAL(unknown[2], 0);
    wrk_samples_free(samples);
    wrk_reader_close(reader);
    wrk_dataset_close(dataset);
}

static void test_missing_columns_files_and_empty_logs_are_refused(void)
{
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, "u,i,what,t\n1,1,click,1\n", "no", NULL),
                    CLU_E_DATA);
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, "u,i,a,t\n", "no", NULL), CLU_E_DATA);
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, "", "no", NULL), CLU_E_DATA);
    struct wrk_schema schema = rig_schema(rig_schema_text);
    char *log = rig_path("nowhere.csv");
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, rig_path("no"));
    CU_ASSERT_EQUAL(wrk_prepare(&options, NULL), CLU_E_NOT_FOUND);
    CU_ASSERT(!clu_path_exists(rig_path("no")));
}

SUITE("worker.prepare", T(test_a_pair_keeps_first_occurrences_in_order_with_a_start_in_front),
      T(test_ties_follow_the_order_of_the_action_list),
      T(test_history_shows_only_what_had_happened_strictly_before),
      T(test_pairs_of_one_second_are_ordered_by_item_key_and_do_not_see_each_other),
      T(test_a_label_window_bounds_the_label_and_not_the_history),
      T(test_ids_come_back_as_the_log_wrote_them),
      T(test_random_logs_agree_with_a_plain_implementation),
      T(test_counts_of_items_are_those_of_the_pairs_start),
      T(test_the_split_is_the_start_of_sample_floor_of_nine_tenths),
      T(test_bad_lines_are_refused_unless_allowed_and_then_counted),
      T(test_a_folder_that_is_no_data_set_is_left_alone),
      T(test_a_data_set_is_replaced_and_the_same_log_gives_the_same_bytes),
      T(test_a_log_in_several_files_and_gzip_is_one_log),
      T(test_attributes_are_joined_by_id_with_their_prefix),
      T(test_missing_columns_files_and_empty_logs_are_refused))

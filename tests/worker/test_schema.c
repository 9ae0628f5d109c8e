/* Schemas: what they mean, what is refused and with which place; rows of logs and what can be wrong
 * with them. */
#include "tests/suite.h"

#include "tests/worker/data_rig.h"
#include "worker/event.h"
#include "worker/logfile.h"
#include "worker/preset.h"

#include <math.h>
#include <zlib.h>

static int parse(const char *text)
{
    struct wrk_schema schema;
    return wrk_schema_parse("test.yaml", text, strlen(text), &schema);
}

#define BASE "user: u\nitem: i\naction: a\ntime: t\nactions: [click, buy]\n"

static void test_every_preset_is_a_schema(void)
{
    static const struct {
        const char *name;
        int n_actions, n_item_columns;
    } expected[] = {
        {"rec-tmall", 5, 4}, {"userbehavior", 5, 2}, {"deskdrop", 6, 1}, {"video", 6, 3}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        struct wrk_schema schema;
        struct wrk_dataset_info info = {0};
        CU_ASSERT_EQUAL_FATAL(wrk_schema_find(expected[i].name, &schema), CLU_OK);
        wrk_schema_columns(&schema, &info);
        CU_ASSERT_STRING_EQUAL(schema.name, expected[i].name);
        CU_ASSERT_STRING_EQUAL(schema.action[1], "start");
        CU_ASSERT_EQUAL(schema.n_actions, expected[i].n_actions);
        CU_ASSERT_EQUAL(info.n_item_columns, expected[i].n_item_columns);
    }
    struct wrk_schema schema;
    CU_ASSERT_EQUAL(wrk_schema_find("no-such", &schema), CLU_E_USAGE);
    CU_ASSERT_EQUAL(wrk_schema_find("no/such.yaml", &schema), CLU_E_NOT_FOUND);
}

static void test_defaults_and_start_are_put_in_where_left_out(void)
{
    struct wrk_schema schema = rig_schema(BASE);
    CU_ASSERT_EQUAL(schema.n_actions, 3);
    CU_ASSERT_STRING_EQUAL(schema.action[2], "click");
    CU_ASSERT_EQUAL(schema.delimiter, ',');
    CU_ASSERT(schema.header);
    CU_ASSERT_EQUAL(schema.time_format, WRK_TIME_UNIX);
    CU_ASSERT_EQUAL(schema.transform.unit_seconds, 60);
    CU_ASSERT_EQUAL(schema.transform.scale, 10);
    CU_ASSERT_STRING_EQUAL(schema.name, "test.yaml");
}

static void test_what_cannot_be_is_refused(void)
{
    static const char *const bad[] = {
        "",
        "- a list",
        "user: u\n",
        BASE "usr: x\n",
        BASE "delimiter: ab\n",
        BASE "delimiter: '\"'\n",
        BASE "header: maybe\n",
        BASE "header: false\n",
        BASE "header: false\ncolumns: [u, i, a]\n",
        BASE "columns: [u, u]\n",
        BASE "time_format: sometimes\n",
        BASE "time_format: []\n",
        BASE "time_from: 10\ntime_to: 10\n",
        BASE "time_from: soon\n",
        BASE "time_outside: maybe\n",
        BASE "transform: square\n",
        BASE "transform: duration\n",
        BASE "duration: d\n",
        BASE "unit_seconds: 0\n",
        BASE "scale: -1\n",
        BASE "scale: nan\n",
        BASE "user_features: [user]\n",
        BASE "user_features: [x, x]\n",
        BASE "user_features: [{name: x, kind: other}]\n",
        BASE "user_features: [{kind: numeric}]\n",
        BASE "user_features: [{name: x, kind: numeric, table: t}]\n",
        BASE "user_features: [{name: x, from: attributes}]\n",
        BASE "item_attributes: {delimiter: tab}\n",
        "user: u\nitem: i\naction: a\ntime: t\nactions: []\n",
        "user: u\nitem: i\naction: a\ntime: t\nactions: [start]\n",
        "user: u\nitem: i\naction: a\ntime: t\nactions: [click, click]\n",
        "user: u\nitem: i\naction: a\ntime: t\nactions: [click, {buy: click}]\n",
        "user: u\nitem: i\naction: a\ntime: t\nactions: [click, start]\n",
        "user: u\nitem: i\naction: a\ntime: t\n"
        "actions: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]\n",
        "user: 0123456789012345678901234567890123456789012345678901234567890123\nitem: i\n"
        "action: a\ntime: t\nactions: [click]\n",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int status = parse(bad[i]);
        CU_ASSERT_EQUAL(status, CLU_E_CONFIG);
        if (status != CLU_E_CONFIG)
            printf("  taken: %s\n", bad[i]);
    }
}

/* rows of a file as "line:field|field;" ; faults as "line!" */
static void rows_of(const char *path, bool strict, char *out)
{
    struct wrk_logfile *file;
    struct wrk_row row;
    bool more;
    CU_ASSERT_EQUAL_FATAL(wrk_logfile_open(path, ',', strict, &file), CLU_OK);
    out[0] = 0;
    while (wrk_logfile_next(file, &row, &more) == CLU_OK && more) {
        out += sprintf(out, "%llu", (unsigned long long)row.line);
        if (row.fault)
            out += sprintf(out, "!");
        for (int i = 0; i < row.n_fields; i++)
            out += sprintf(out, "%c%s", i ? '|' : ':', row.field[i].text);
        out += sprintf(out, ";");
    }
    wrk_logfile_close(file);
}

static void check_rows(const char *text, bool strict, const char *expected)
{
    char out[4096];
    rows_of(rig_write_text("rows.csv", text), strict, out);
    if (strcmp(out, expected) != 0)
        printf("  %s instead of %s\n", out, expected);
    CU_ASSERT_STRING_EQUAL(out, expected);
}

static void test_rows_know_their_lines_whatever_ends_them(void)
{
    check_rows("a,b\nc,d\n", true, "1:a|b;2:c|d;");
    check_rows("a,b\r\nc,d\r\n", true, "1:a|b;2:c|d;");
    check_rows("a,b\nc,d", true, "1:a|b;2:c|d;");
    check_rows("\n\na,b\n\n\nc,d\n\n", true, "3:a|b;6:c|d;");
    check_rows("\xef\xbb\xbf"
               "a,b\n",
               true, "1:a|b;");
    check_rows("a,\"x\ny\",b\nc,d\n", true, "1:a|x\ny|b;3:c|d;");
    check_rows("\"x\n\ny\",b\nc,d\n", true, "1:x\n\ny|b;4:c|d;");
    check_rows("a, b ,\"c,\"\"d\"\"\"\n,,\n", true, "1:a|b|c,\"d\";2:||;");
    check_rows("", true, "");
    check_rows("a\rb\r", true, "1:a;1:b;");
}

static void test_a_fault_costs_its_own_line_only(void)
{
    check_rows("a,b\nc,x\"y\nd,e\n", true, "1:a|b;2!;3:d|e;");
    check_rows("a,b\nc,x\"y\nd,e\n", false, "1:a|b;2:c|x\"y;3:d|e;");
    check_rows("a,b\n\"c\"d,e\nf,g\n", true, "1:a|b;2!;3:f|g;");
    check_rows("a,b\nc,\"d\ne,f\n", true, "1:a|b;2!;"); /* never closed */
}

static void test_a_row_across_chunks_and_a_runaway_quote_are_survived(void)
{
    size_t size = 3 << 20;
    char *text = malloc(size + 100), *out = malloc(size + 4096);
    CU_ASSERT_FATAL(text && out);
    memset(text, 'x', size);
    for (size_t i = 79; i < size; i += 80)
        text[i] = '\n';
    memcpy(text, "a,b\nc,\"", 7); /* opens a quote that nothing closes */
    rig_write("rows.csv", text, size);
    struct wrk_logfile *file;
    struct wrk_row row;
    bool more;
    uint64_t n_rows = 0, n_lines = 0;
    CU_ASSERT_EQUAL_FATAL(wrk_logfile_open(rig_path("rows.csv"), ',', true, &file), CLU_OK);
    while (wrk_logfile_next(file, &row, &more) == CLU_OK && more) {
        n_rows++;
        n_lines += row.n_lines;
        if (n_rows == 2) {
            CU_ASSERT_PTR_NOT_NULL(row.fault);
            CU_ASSERT_EQUAL(row.line, 2);
            CU_ASSERT(row.n_lines > 10000 && row.n_lines < 14000); /* about 1 MiB of lines */
        }
    }
    wrk_logfile_close(file);
    uint64_t expected = 0;
    for (size_t i = 0; i < size; i++)
        expected += text[i] == '\n';
    expected += text[size - 1] != '\n';
    CU_ASSERT_EQUAL(n_lines, expected); /* every line is in one row or fault */
    free(text);
    free(out);
}

static void test_a_truncated_gzip_and_utf_16_are_refused(void)
{
    gzFile zipped = gzopen(rig_path("log.gz"), "wb");
    for (int i = 0; i < 10000; i++)
        gzprintf(zipped, "%d,%d\n", i, i * 7919 % 10007);
    gzclose(zipped);
    char *data;
    size_t size;
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(rig_path("log.gz"), 1 << 20, &data, &size), CLU_OK);
    rig_write("cut.gz", data, size / 2);
    free(data);
    struct wrk_logfile *file;
    struct wrk_row row;
    bool more;
    CU_ASSERT_EQUAL_FATAL(wrk_logfile_open(rig_path("cut.gz"), ',', true, &file), CLU_OK);
    int status;
    while ((status = wrk_logfile_next(file, &row, &more)) == CLU_OK && more)
        ;
    CU_ASSERT_EQUAL(status, CLU_E_CORRUPT);
    wrk_logfile_close(file);
    CU_ASSERT_EQUAL_FATAL(wrk_logfile_open(rig_write("wide.csv",
                                                     "\xff\xfe"
                                                     "a\0",
                                                     4),
                                           ',', true, &file),
                          CLU_OK);
    CU_ASSERT_EQUAL(wrk_logfile_next(file, &row, &more), CLU_E_DATA);
    wrk_logfile_close(file);
}

/* one row of a log with header u,i,a,t under a schema */
static enum wrk_row_result read_row(const struct wrk_schema *schema, const char *const *fields,
                                    int n, struct wrk_event *event, char text[256])
{
    static const char *const names[] = {"u", "i", "a", "t", "d", "p"};
    struct wrk_field header_fields[6], row_fields[6];
    for (int i = 0; i < n; i++) {
        header_fields[i] = (struct wrk_field){names[i], 1};
        row_fields[i] = (struct wrk_field){fields[i], strlen(fields[i])};
    }
    struct wrk_row header = {.field = header_fields, .n_fields = n, .line = 1};
    struct wrk_row row = {.field = row_fields, .n_fields = n, .line = 2};
    struct wrk_binding binding;
    CU_ASSERT_EQUAL_FATAL(wrk_binding_init(&binding, schema, "test", &header), CLU_OK);
    return wrk_event_read(&binding, &row, event, text, 256);
}

static void test_times_are_read_in_every_declared_way(void)
{
    struct wrk_event event;
    char text[256];
    static const struct {
        const char *format, *time;
        int64_t ms; /* -1: refused */
    } cases[] = {{"unix", "1511544070", 1511544070000},
                 {"unix", "-5", -5000},
                 {"unix", "1511544070.5", -1},
                 {"unix", "", -1},
                 {"unix", "9999999999999", -1},
                 {"unix_ms", "1511544070123", 1511544070123},
                 {"'%Y/%m/%d %H:%M'", "2014/9/18 15:03", 1411052580000},
                 {"'%Y/%m/%d %H:%M'", "2014/9/18 15:03:11", -1},
                 {"['%Y/%m/%d %H:%M:%S', '%Y/%m/%d %H:%M']", "2014/9/18 15:03", 1411052580000},
                 {"['%Y/%m/%d %H:%M:%S', '%Y/%m/%d %H:%M']", "2014/9/18 15:03:11", 1411052591000},
                 {"'%m-%d'", "6-4", 13305600000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char schema_text[256];
        sprintf(schema_text, BASE "time_format: %s\n", cases[i].format);
        struct wrk_schema schema = rig_schema(schema_text);
        const char *fields[] = {"1", "2", "click", cases[i].time};
        enum wrk_row_result result = read_row(&schema, fields, 4, &event, text);
        CU_ASSERT_EQUAL(result, cases[i].ms == -1 ? WRK_ROW_BAD : WRK_ROW_OK);
        if (result == WRK_ROW_OK)
            CU_ASSERT_EQUAL(event.time_ms, cases[i].ms);
    }
}

static void test_a_bad_row_names_its_column_and_what_was_expected(void)
{
    struct wrk_schema schema = rig_schema(BASE "time_from: 100\ntime_to: 200\n");
    struct wrk_event event;
    char text[256];
    const char *unknown[] = {"1", "2", "jump", "150"};
    CU_ASSERT_EQUAL(read_row(&schema, unknown, 4, &event, text), WRK_ROW_BAD);
    CU_ASSERT_STRING_EQUAL(text, "column 3 (a): expected one of click, buy, found 'jump'");
    const char *late[] = {"1", "2", "buy", "200"};
    CU_ASSERT_EQUAL(read_row(&schema, late, 4, &event, text), WRK_ROW_BAD);
    schema.skip_outside = true;
    CU_ASSERT_EQUAL(read_row(&schema, late, 4, &event, text), WRK_ROW_OUTSIDE);
    const char *edge[] = {"1", "2", "buy", "199"};
    CU_ASSERT_EQUAL(read_row(&schema, edge, 4, &event, text), WRK_ROW_OK);
    struct wrk_schema video = rig_schema(BASE "transform: duration\nduration: d\nposition: p\n");
    const char *zero[] = {"1", "2", "buy", "9", "0", "1"};
    CU_ASSERT_EQUAL(read_row(&video, zero, 6, &event, text), WRK_ROW_BAD);
    const char *negative[] = {"1", "2", "buy", "9", "10", "-1"};
    CU_ASSERT_EQUAL(read_row(&video, negative, 6, &event, text), WRK_ROW_BAD);
    const char *none[] = {"1", "2", "buy", "9", "10", ""};
    CU_ASSERT_EQUAL(read_row(&video, none, 6, &event, text), WRK_ROW_OK);
    CU_ASSERT(isnan(event.position_s));
}

static void test_t_is_what_the_page_says(void)
{
    struct wrk_transform log = {WRK_TRANSFORM_LOG, 60, 10};
    CU_ASSERT_DOUBLE_EQUAL(wrk_transform_apply(&log, 60000, 0), 0.07, 0.005);
    CU_ASSERT_DOUBLE_EQUAL(wrk_transform_apply(&log, 7200000, 0), 0.48, 0.005);
    CU_ASSERT_DOUBLE_EQUAL(wrk_transform_apply(&log, 9 * 86400000LL, 0), 0.95, 0.005);
    struct wrk_transform video = {WRK_TRANSFORM_DURATION, 0, 0};
    CU_ASSERT_EQUAL(wrk_transform_apply(&video, 5000, 20), 0.25f);
    CU_ASSERT_DOUBLE_EQUAL(wrk_transform_invert(&log, wrk_transform_apply(&log, 12345, 0), 0),
                           12.345, 1e-4);
    CU_ASSERT_EQUAL(wrk_transform_invert(&video, 0.25, 20), 5);
}

SUITE("worker.schema", T(test_every_preset_is_a_schema),
      T(test_defaults_and_start_are_put_in_where_left_out), T(test_what_cannot_be_is_refused),
      T(test_rows_know_their_lines_whatever_ends_them), T(test_a_fault_costs_its_own_line_only),
      T(test_a_row_across_chunks_and_a_runaway_quote_are_survived),
      T(test_a_truncated_gzip_and_utf_16_are_refused), T(test_times_are_read_in_every_declared_way),
      T(test_a_bad_row_names_its_column_and_what_was_expected), T(test_t_is_what_the_page_says))

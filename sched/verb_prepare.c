/* sluice prepare: logs to a data set. */
#include "cluster/log.h"
#include "cluster/status.h"
#include "sched/verb.h"
#include "worker/counts.h"
#include "worker/json_file.h"
#include "worker/prepare.h"

#include <inttypes.h>
#include <stdio.h>

struct options {
    char schema[CLU_PATH_BYTES], out[CLU_PATH_BYTES];
    char user_attributes[CLU_PATH_BYTES], item_attributes[CLU_PATH_BYTES];
    int64_t max_bad;
    double label_window, split;
    uint64_t memory;
    bool item_counts, json;
};

#define FIELD(field) offsetof(struct options, field), sizeof(((struct options *)0)->field)

static const struct clu_setting rows[] = {
    {"schema", CLU_SETTING_TEXT, FIELD(schema), "", 0, 0, NULL,
     "what the columns mean: rec-tmall, userbehavior, deskdrop, video, or a YAML file"},
    {"out", CLU_SETTING_TEXT, FIELD(out), "", 0, 0, NULL, "the data set's folder"},
    {"user_attributes", CLU_SETTING_TEXT, FIELD(user_attributes), "", 0, 0, NULL,
     "a file with features of users, joined by id"},
    {"item_attributes", CLU_SETTING_TEXT, FIELD(item_attributes), "", 0, 0, NULL,
     "a file with features of items, joined by id"},
    {"max_bad", CLU_SETTING_INT, FIELD(max_bad), "0", 0, 9e15, NULL,
     "bad lines to leave out (and count) before giving up"},
    {"label_window", CLU_SETTING_REAL, FIELD(label_window), "0", 0, 9e12, NULL,
     "seconds after a sample's start that its label covers, 0: as far as the log goes"},
    {"split", CLU_SETTING_REAL, FIELD(split), "0.9", 0, 1, NULL,
     "share of the samples, in time order, that is for training"},
    {"item_counts", CLU_SETTING_BOOL, FIELD(item_counts), "true", 0, 0, NULL,
     "add numeric item columns: its age, and its events and actions before the sample"},
    {"memory", CLU_SETTING_SIZE, FIELD(memory), "1GiB", 32 << 20, 1e18, NULL,
     "memory to use; what does not fit goes through temporary files"},
    {"json", CLU_SETTING_BOOL, FIELD(json), "false", 0, 0, NULL, "report as one JSON object"},
};

static int print_json(const struct wrk_prepare_report *report, const char *dir)
{
    const struct wrk_dataset_info *info = &report->info;
    json_t *json = json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "out", dir, "schema",
        info->schema, "events", (json_int_t)info->n_events, "users", (json_int_t)info->n_users,
        "items", (json_int_t)info->n_items, "pairs", (json_int_t)info->n_pairs, "samples",
        (json_int_t)info->n_pairs, "train", (json_int_t)info->n_train, "test",
        (json_int_t)info->n_test, "bad_lines", (json_int_t)report->n_bad, "outside_time",
        (json_int_t)report->n_outside, "unjoined", (json_int_t)report->n_unjoined, "text_bytes",
        (json_int_t)report->text_bytes, "spill_bytes", (json_int_t)report->spill_bytes, "seconds",
        report->seconds);
    return wrk_json_print(json, stdout);
}

static void print_lines(const struct wrk_prepare_report *report, const char *dir)
{
    const struct wrk_dataset_info *info = &report->info;
    printf("%s: %" PRIu64 " events, %" PRIu64 " users, %" PRIu64 " items, %" PRIu64
           " samples (%" PRIu64 " train, %" PRIu64 " test)\n",
           dir, info->n_events, info->n_users, info->n_items, info->n_pairs, info->n_train,
           info->n_test);
    if (report->n_bad)
        printf("left out: %" PRIu64 " bad lines\n", report->n_bad);
    if (report->n_outside)
        printf("left out: %" PRIu64 " events outside the schema's time range\n", report->n_outside);
    if (report->n_unjoined)
        printf("unknown attributes: %" PRIu64 " events have an id that is not in the file\n",
               report->n_unjoined);
    printf("%.1f MB of text in %.1f s (%.1f MB/s), %.1f MB through temporary files\n",
           (double)report->text_bytes * 1e-6, report->seconds,
           (double)report->text_bytes * 1e-6 / (report->seconds > 0 ? report->seconds : 1),
           (double)report->spill_bytes * 1e-6);
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    if (!options->schema[0])
        return clu_fail(CLU_E_USAGE, "--schema is missing");
    if (!options->out[0])
        return clu_fail(CLU_E_USAGE, "--out is missing");
    struct wrk_schema schema;
    int status = wrk_schema_find(options->schema, &schema);
    if (status == CLU_OK && options->item_counts)
        status = wrk_counts_add_columns(&schema);
    if (status != CLU_OK)
        return status;
    struct wrk_prepare_options prepare = {.schema = &schema,
                                          .logs = call->positionals,
                                          .n_logs = call->n_positionals,
                                          .dir = options->out,
                                          .user_attributes = options->user_attributes,
                                          .item_attributes = options->item_attributes,
                                          .max_bad = (uint64_t)options->max_bad,
                                          .label_window_ms =
                                              (int64_t)(options->label_window * 1000),
                                          .split = options->split,
                                          .memory_bytes = options->memory};
    struct wrk_prepare_report report;
    status = wrk_prepare(&prepare, &report);
    if (status != CLU_OK)
        return status;
    if (options->json)
        return print_json(&report, options->out);
    print_lines(&report, options->out);
    return CLU_OK;
}

const struct schd_verb schd_verb_prepare = {
    .name = "prepare",
    .summary = "make a data set of logs",
    .usage = "LOG... --schema NAME|FILE.yaml --out DIR",
    .example = "sluice prepare users_interactions.csv.gz --schema deskdrop --out data",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 1,
    .max_positionals = -1,
    .run = run,
};

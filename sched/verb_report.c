/* `sluice report`: what a finished run reached, as a table and as OUT/report.json. */
#include "sched/verb.h"

#include "worker/report.h"

#include <stdio.h>

struct options {
    char data[CLU_PATH_BYTES];
    double build_seconds, total_seconds;
};

static const struct clu_setting rows[] = {
    {"data", CLU_SETTING_TEXT, offsetof(struct options, data), CLU_PATH_BYTES, "", 0, 0, NULL,
     "the data set's folder, for the list of places"},
    {"build_seconds", CLU_SETTING_REAL, offsetof(struct options, build_seconds), sizeof(double),
     "-1", -1, 1e9, NULL, "time that packages and build took, as the caller measured it"},
    {"total_seconds", CLU_SETTING_REAL, offsetof(struct options, total_seconds), sizeof(double),
     "-1", -1, 1e9, NULL, "time that everything took"},
};

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    struct wrk_report_options report = {
        .out = call->positionals[0],
        .data = options->data,
        .build_seconds = options->build_seconds,
        .total_seconds = options->total_seconds,
    };
    return wrk_report(&report, stdout);
}

const struct schd_verb schd_verb_report = {
    .name = "report",
    .summary = "what a finished and scored run reached, beside the best possible",
    .usage = "OUT [--data DIR]",
    .example = "sluice report sluice-run --data sluice-run/data",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 1,
    .max_positionals = 1,
    .run = run,
};

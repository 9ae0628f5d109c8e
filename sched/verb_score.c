/* `sluice score`: the test samples of a data set, read by an exported model, one line of JSON each.
 */
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/score.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct options {
    char export[CLU_PATH_BYTES];
    char data[CLU_PATH_BYTES];
    char out[CLU_PATH_BYTES];
    char read[CLU_WORD_BYTES];
};

static const struct clu_setting rows[] = {
    {"export", CLU_SETTING_TEXT, offsetof(struct options, export), CLU_PATH_BYTES, "", 0, 0, NULL,
     "the exported model's folder"},
    {"data", CLU_SETTING_TEXT, offsetof(struct options, data), CLU_PATH_BYTES, "", 0, 0, NULL,
     "the data set whose test samples are scored"},
    {"out", CLU_SETTING_TEXT, offsetof(struct options, out), CLU_PATH_BYTES, "", 0, 0, NULL,
     "the file of JSON lines to write"},
    {"read", CLU_SETTING_CHOICE, offsetof(struct options, read), CLU_WORD_BYTES, "default", 0, 0,
     "default|greedy|exact", "how a sequence is read off the model; default: as the export says"},
};

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    if (!options->export[0] || !options->data[0] || !options->out[0])
        return clu_fail(CLU_E_USAGE, "score needs --export DIR, --data DIR and --out FILE");
    struct wrk_score_options score = {
        .export_dir = options->export,
        .data_dir = options->data,
        .out_path = options->out,
        .read = strcmp(options->read, "default") ? options->read : NULL,
    };
    struct wrk_score_result result;
    int status = wrk_score(&score, &result);
    if (!status)
        printf("%llu samples scored in %.1f s (%.0f a second): %s\n",
               (unsigned long long)result.n_samples, result.seconds,
               (double)result.n_samples / (result.seconds > 0 ? result.seconds : 1e-9),
               options->out);
    return status;
}

const struct schd_verb schd_verb_score = {
    .name = "score",
    .summary = "score the test samples of a data set with an export",
    .usage = "--export DIR --data DIR --out FILE.jsonl [--read greedy|exact]",
    .example = "sluice score --export sluice-run/export --data sluice-run/data --out scores.jsonl",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

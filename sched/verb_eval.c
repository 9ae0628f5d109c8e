/* `sluice eval`: how well an export or a snapshot ranks a data set's test samples. */
#include "sched/verb.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/evaluate_export.h"
#include "worker/export.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    char export[CLU_PATH_BYTES];
    char snapshot[CLU_PATH_BYTES];
    char data[CLU_PATH_BYTES];
    char scratch[CLU_PATH_BYTES];
    char read[CLU_WORD_BYTES];
    int64_t valid_percent;
    bool references, json;
};

static const struct clu_setting rows[] = {
    {"export", CLU_SETTING_TEXT, offsetof(struct options, export), CLU_PATH_BYTES, "", 0, 0, NULL,
     "the exported model's folder"},
    {"snapshot", CLU_SETTING_TEXT, offsetof(struct options, snapshot), CLU_PATH_BYTES, "", 0, 0,
     NULL, "or a snapshot's folder, which is exported to a temporary place first"},
    {"data", CLU_SETTING_TEXT, offsetof(struct options, data), CLU_PATH_BYTES, "", 0, 0, NULL,
     "the data set whose test samples are read"},
    {"scratch", CLU_SETTING_TEXT, offsetof(struct options, scratch), CLU_PATH_BYTES, "/tmp", 0, 0,
     NULL, "where the temporary export of a snapshot goes"},
    {"read", CLU_SETTING_CHOICE, offsetof(struct options, read), CLU_WORD_BYTES, "both", 0, 0,
     "both|greedy|exact", "how a sequence is read off the model"},
    {"valid_percent", CLU_SETTING_INT, offsetof(struct options, valid_percent), sizeof(int64_t),
     "0", 0, 20, NULL,
     "read the last part of the training samples, kept out by the same key of the job, instead"},
    {"references", CLU_SETTING_BOOL, offsetof(struct options, references), sizeof(bool), "true", 0,
     0, NULL, "print what counting alone can rank beside the model"},
    {"json", CLU_SETTING_BOOL, offsetof(struct options, json), sizeof(bool), "false", 0, 0, NULL,
     "print one JSON object an evaluation"},
};

static int evaluate(const char *export, const struct options *options)
{
    struct wrk_evaluate_export_options evaluation = {
        .export_dir = export,
        .data_dir = options->data,
        .read = options->read,
        .split = options->valid_percent ? WRK_SPLIT_VALID : WRK_SPLIT_TEST,
        .valid_percent = (int)options->valid_percent,
        .references = options->references,
        .json = options->json,
    };
    return wrk_evaluate_export(&evaluation, stdout);
}

static int evaluate_snapshot(const struct options *options)
{
    char folder[CLU_PATH_BYTES], export[CLU_PATH_BYTES];
    if (snprintf(folder, sizeof(folder), "%s/sluice-eval-%ld", options->scratch, (long)getpid()) >=
        (int)sizeof(folder))
        return clu_fail(CLU_E_CONFIG, "%s: the path is too long", options->scratch);
    if (mkdir(folder, 0700) < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: no temporary folder can be made: %s",
                        folder, strerror(errno));
    int status = clu_path_join(export, sizeof(export), folder, "export");
    if (!status)
        status = wrk_export_create(options->snapshot, export);
    if (!status)
        status = evaluate(export, options);
    int removed = clu_remove_tree(folder);
    return status ? status : removed;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    if (!options->data[0] || !options->export[0] == !options->snapshot[0])
        return clu_fail(CLU_E_USAGE, "eval needs --data DIR and one of --export and --snapshot");
    return options->export[0] ? evaluate(options->export, options) : evaluate_snapshot(options);
}

const struct schd_verb schd_verb_eval = {
    .name = "eval",
    .summary = "AUC and MAE per action of an export or snapshot on a data set's test samples",
    .usage = "--export DIR | --snapshot DIR  --data DIR [--read both|greedy|exact] [--json]",
    .example = "sluice eval --export sluice-run/export --data sluice-run/data",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

/* `sluice export`: a snapshot becomes a folder that anybody can serve. */
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/export.h"

#include <stddef.h>

struct options {
    char snapshot[CLU_PATH_BYTES];
    char out[CLU_PATH_BYTES];
};

static const struct clu_setting rows[] = {
    {"snapshot", CLU_SETTING_TEXT, offsetof(struct options, snapshot), CLU_PATH_BYTES, "", 0, 0,
     NULL, "a snapshot's folder, or a folder of snapshots, whose newest is taken"},
    {"out", CLU_SETTING_TEXT, offsetof(struct options, out), CLU_PATH_BYTES, "", 0, 0, NULL,
     "where the export goes; an export that stands there is replaced"},
};

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    if (!options->snapshot[0] || !options->out[0])
        return clu_fail(CLU_E_USAGE, "export needs --snapshot DIR and --out DIR");
    return wrk_export_create(options->snapshot, options->out);
}

const struct schd_verb schd_verb_export = {
    .name = "export",
    .summary = "write a snapshot as a folder for serving",
    .usage = "--snapshot DIR --out DIR",
    .example = "sluice export --snapshot sluice-run/run/snapshot --out sluice-run/export",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

/* `sluice inspect`: what stands in a folder, be it a data set, a snapshot or an export. */
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/dataset.h"
#include "worker/export_inspect.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct options {
    bool digest, verify, json;
};

static const struct clu_setting rows[] = {
    {"digest", CLU_SETTING_BOOL, offsetof(struct options, digest), sizeof(bool), "false", 0, 0,
     NULL, "print one hash of a snapshot's or export's content, whatever its files"},
    {"verify", CLU_SETTING_BOOL, offsetof(struct options, verify), sizeof(bool), "false", 0, 0,
     NULL, "read every byte against its checksum first"},
    {"json", CLU_SETTING_BOOL, offsetof(struct options, json), sizeof(bool), "false", 0, 0, NULL,
     "print one JSON object"},
};

static int inspect_dataset(const char *dir, const struct options *options)
{
    struct wrk_dataset *dataset = NULL;
    int status = wrk_dataset_open(dir, &dataset);
    if (!status && options->verify)
        status = wrk_dataset_verify(dataset);
    if (!status)
        status = wrk_dataset_print(dataset, options->json, stdout);
    wrk_dataset_close(dataset);
    return status;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    const char *dir = call->positionals[0];
    bool is_dataset = wrk_dataset_is_one(dir);
    if (call->n_positionals == 2)
        return clu_fail(CLU_E_USAGE, "a row is named by two words: TABLE and KEY");
    if (is_dataset && (options->digest || call->n_positionals > 1))
        return clu_fail(CLU_E_USAGE, "%s is a data set: it has no tables and no digest", dir);
    if (is_dataset)
        return inspect_dataset(dir, options);
    if (call->n_positionals == 3)
        return wrk_inspect_row(dir, call->positionals[1], call->positionals[2], options->json,
                               stdout);
    if (!options->digest)
        return wrk_inspect_print(dir, options->verify, options->json, stdout);
    uint64_t digest;
    int status = wrk_inspect_digest(dir, &digest);
    if (!status)
        printf("%016" PRIx64 "\n", digest);
    return status;
}

const struct schd_verb schd_verb_inspect = {
    .name = "inspect",
    .summary = "show a data set, a snapshot, an export, or one row",
    .usage = "DIR [TABLE KEY] [--verify] [--json] | --digest DIR",
    .example = "sluice inspect sluice-run/data\n"
               "sluice inspect sluice-run/run/snapshot item 42\n"
               "sluice inspect --digest sluice-run/run/snapshot",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 1,
    .max_positionals = 3,
    .run = run,
};

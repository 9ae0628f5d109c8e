/* sluice generate: a synthetic data set with known probabilities. */
#include "cluster/log.h"
#include "cluster/status.h"
#include "sched/verb.h"
#include "worker/generate.h"

#include <inttypes.h>
#include <stdio.h>

struct options {
    int64_t users, items, samples, seed;
    double split;
    char out[CLU_PATH_BYTES], log[CLU_PATH_BYTES];
    bool json;
};

#define FIELD(field) offsetof(struct options, field), sizeof(((struct options *)0)->field)

static const struct clu_setting rows[] = {
    {"users", CLU_SETTING_INT, FIELD(users), "1000", 1, 1e12, NULL, "number of users"},
    {"items", CLU_SETTING_INT, FIELD(items), "1000", 2, 1e12, NULL, "number of videos"},
    {"samples", CLU_SETTING_INT, FIELD(samples), "50000", 1, 1e12, NULL, "number of viewings"},
    {"seed", CLU_SETTING_INT, FIELD(seed), "1", 0, 9e15, NULL, "another number, another world"},
    {"split", CLU_SETTING_REAL, FIELD(split), "0.9", 0, 1, NULL,
     "share of the samples, in time order, that is for training"},
    {"out", CLU_SETTING_TEXT, FIELD(out), "", 0, 0, NULL, "the data set's folder"},
    {"log", CLU_SETTING_TEXT, FIELD(log), "", 0, 0, NULL,
     "also write the events to this file, as a log for the video preset"},
    {"json", CLU_SETTING_BOOL, FIELD(json), "false", 0, 0, NULL, "report as one JSON object"},
};

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    if (!options->out[0])
        return clu_fail(CLU_E_USAGE, "--out is missing");
    struct wrk_generate_options generate = {.n_users = (uint64_t)options->users,
                                            .n_items = (uint64_t)options->items,
                                            .n_samples = (uint64_t)options->samples,
                                            .seed = (uint64_t)options->seed,
                                            .split = options->split,
                                            .dir = options->out,
                                            .log = options->log};
    struct wrk_dataset_info info;
    int status = wrk_generate(&generate, &info);
    if (status != CLU_OK)
        return status;
    const char *format = options->json ? "{\"events\": %" PRIu64 ", \"users\": %" PRIu64
                                         ", \"items\": %" PRIu64 ", \"samples\": %" PRIu64
                                         ", \"train\": %" PRIu64 ", \"test\": %" PRIu64 "}\n"
                                       : "%" PRIu64 " events, %" PRIu64 " users, %" PRIu64
                                         " items, %" PRIu64 " samples (%" PRIu64 " train, %" PRIu64
                                         " test)\n";
    printf(format, info.n_events, info.n_users, info.n_items, info.n_pairs, info.n_train,
           info.n_test);
    return CLU_OK;
}

const struct schd_verb schd_verb_generate = {
    .name = "generate",
    .summary = "make a synthetic data set whose probabilities are known",
    .usage = "--out DIR [--users N] [--items N] [--samples N] [--seed N]",
    .example = "sluice generate --users 500 --items 800 --samples 40000 --out data",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

/* `sluice reshard`: a snapshot, or a chain of them, as one full snapshot of another shape. */
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/json_file.h"
#include "worker/reshard.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

struct options {
    char out[CLU_PATH_BYTES];
    int64_t servers, shards;
    uint64_t memory;
    bool json;
};

static const struct clu_setting rows[] = {
    {"out", CLU_SETTING_TEXT, offsetof(struct options, out), CLU_PATH_BYTES, "", 0, 0, NULL,
     "folder of snapshots that the new one, step-N, is put into; a job's is OUT/run/snapshot"},
    {"servers", CLU_SETTING_INT, offsetof(struct options, servers), sizeof(int64_t), "0", 0, 1024,
     NULL, "servers of the new shape; 0: as many as wrote the snapshot"},
    {"shards", CLU_SETTING_INT, offsetof(struct options, shards), sizeof(int64_t), "0", 0, 64, NULL,
     "shards of a server; 0: as many as a server had"},
    {"memory", CLU_SETTING_SIZE, offsetof(struct options, memory), sizeof(uint64_t), "1GiB",
     8 << 20, 0x1p50, NULL, "most memory for blocks of files: about 1 MiB one read, 4 one written"},
    {"json", CLU_SETTING_BOOL, offsetof(struct options, json), sizeof(bool), "false", 0, 0, NULL,
     "print one JSON object"},
};

struct bar {
    bool terminal;
    int shown; /* per cent */
};

/* On a terminal the per cent that are done, one line; elsewhere nothing until the end. */
static void show(void *context, double done, uint64_t n_rows)
{
    enum { WIDTH = 24 };
    static const char full[] = "########################", empty[] = "........................";
    struct bar *bar = context;
    int percent = (int)(100 * done), width = (int)(WIDTH * done);
    if (!bar->terminal || percent == bar->shown)
        return;
    bar->shown = percent;
    fprintf(stderr, "\r\033[K[%.*s%.*s]  %d %%  %" PRIu64 " rows", width, full, WIDTH - width,
            empty, percent, n_rows);
    fflush(stderr);
}

static int print_json(const struct wrk_reshard_result *r)
{
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:I, s:i, s:i, s:I, s:I, s:f}", "from", r->from, "to", r->to,
                  "links", (json_int_t)r->n_links, "step", (json_int_t)r->step, "servers",
                  r->n_servers, "shards", r->n_shards, "rows", (json_int_t)r->n_rows, "row_bytes",
                  (json_int_t)r->size_bytes, "seconds", r->seconds);
    return wrk_json_print(json, stdout);
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    if (!options->out[0])
        return clu_fail(CLU_E_USAGE, "--out is missing");
    struct bar bar = {.terminal = isatty(STDERR_FILENO), .shown = -1};
    struct wrk_reshard_options reshard = {
        .snapshot = call->positionals[0],
        .out = options->out,
        .n_servers = (int)options->servers,
        .n_shards = (int)options->shards,
        .memory_bytes = options->memory,
        .progress = show,
        .context = &bar,
    };
    struct wrk_reshard_result r;
    int status = wrk_reshard(&reshard, &r);
    if (bar.terminal && bar.shown >= 0)
        fputs("\r\033[K", stderr);
    if (status || options->json)
        return status ? status : print_json(&r);
    printf("%s: step %" PRIu64 ", %" PRIu64 " rows, %" PRIu64
           " bytes, for %d server%s of %d shards; "
           "read from %zu snapshot%s in %.1f s, %.2f M rows/s\n",
           r.to, r.step, r.n_rows, r.size_bytes, r.n_servers, r.n_servers == 1 ? "" : "s",
           r.n_shards / r.n_servers, r.n_links, r.n_links == 1 ? "" : "s", r.seconds,
           (double)r.n_rows * 1e-6 / (r.seconds > 0 ? r.seconds : 1e-9));
    return CLU_OK;
}

const struct schd_verb schd_verb_reshard = {
    .name = "reshard",
    .summary = "rewrite a snapshot or a chain of them as one full snapshot of another shape",
    .usage = "SNAPSHOT --out DIR [--servers M] [--shards K] [--memory SIZE] [--json]",
    .example = "sluice reshard sluice-run/run/snapshot --servers 4 --shards 2 "
               "--out wider-run/run/snapshot\n"
               "sluice reshard sluice-run/run/snapshot/step-000000001500 --out flat",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 1,
    .max_positionals = 1,
    .run = run,
};

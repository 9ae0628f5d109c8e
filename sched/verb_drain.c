/* `sluice drain`: a running job goes on with fewer servers, or with more.
 *
 * The job trains on meanwhile: buckets move from server to server, a few between two steps, and a
 * server that has none any more ends. With --restart the job stops at its next step with a snapshot
 * and starts again from it in the new shape, by itself and within seconds: for a job whose servers
 * have no memory or disk to spare while buckets move. Either way nothing is lost and, at staleness
 * 0, no bit of the result changes.
 */
#include "sched/ask.h"
#include "sched/verb.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct options {
    int64_t servers;
    bool restart;
};

static const struct clu_setting rows[] = {
    {"servers", CLU_SETTING_INT, offsetof(struct options, servers), sizeof(int64_t), "0", 0, 1024,
     NULL, "servers to go on with: the last ones are drained, or more are added; 0: one fewer"},
    {"restart", CLU_SETTING_BOOL, offsetof(struct options, restart), sizeof(bool), "false", 0, 0,
     NULL, "stop with a snapshot and start again in the new shape, instead of moving buckets"},
};

/* How many servers the job has now. */
static int servers_of(const char *out, int64_t *servers_p)
{
    char path[CLU_PATH_BYTES];
    struct clu_job *job = calloc(1, sizeof(*job));
    int status = job ? clu_path_join(path, sizeof(path), out, "run/job.yaml") : CLU_E_NO_MEMORY;
    if (!status && !clu_path_exists(path))
        status = clu_fail(CLU_E_NOT_FOUND, "%s is not there: no job was started in %s", path, out);
    if (!status)
        status = clu_job_load(path, job);
    if (!status)
        *servers_p = job->servers;
    free(job);
    return status;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    const char *out = call->n_positionals > 0 ? call->positionals[0] : "sluice-run";
    const char *node = call->n_positionals > 1 ? call->positionals[1] : NULL;
    char question[300];
    int64_t servers = options->servers;
    if (node && (servers || options->restart))
        return clu_fail(CLU_E_USAGE,
                        "%s is one of the servers, --%s another way to say which: "
                        "give one of the two",
                        node, servers ? "servers" : "restart");
    if (node) {
        snprintf(question, sizeof(question), "drain %.280s", node);
        return schd_ask(out, question, NULL);
    }
    int status = servers == 0 ? servers_of(out, &servers) : CLU_OK;
    if (status)
        return status;
    if (options->servers == 0 && --servers < 1)
        return clu_fail(CLU_E_USAGE, "the job has one server: it cannot do with fewer");
    snprintf(question, sizeof(question), "%s %d", options->restart ? "reshape" : "servers",
             (int)servers);
    return schd_ask(out, question, NULL);
}

const struct schd_verb schd_verb_drain = {
    .name = "drain",
    .summary = "let a running job go on with fewer servers, or more",
    .usage = "[OUT] [NODE: a server's rank or host] [--servers N] [--restart]",
    .example = "sluice drain sluice-run 2",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 2,
    .exits = SCHD_ASK_EXITS,
    .run = run,
};

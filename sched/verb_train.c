/* `sluice train JOB.yaml`: runs a whole job on this machine, from its start (or its last snapshot)
 * to its last snapshot.
 */
#include "sched/supervise.h"
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <unistd.h>

/* Roles must find the folders whatever they take for their current one. */
static int make_absolute(char path[CLU_PATH_BYTES])
{
    char copy[CLU_PATH_BYTES], *here;
    if (path[0] == '/' || path[0] == '\0')
        return CLU_OK;
    here = getcwd(NULL, 0);
    int n = here ? snprintf(copy, sizeof(copy), "%s/%s", here, path) : (int)sizeof(copy);
    free(here);
    if (n >= (int)sizeof(copy))
        return clu_fail(CLU_E_CONFIG, "the path %s is too long", path);
    snprintf(path, CLU_PATH_BYTES, "%s", copy);
    return CLU_OK;
}

static int run(const struct schd_call *call)
{
    struct clu_job *job = call->job;
    int status = clu_job_check(job);
    if (!status)
        status = make_absolute(job->data);
    if (!status)
        status = make_absolute(job->out);
    if (!status)
        status = make_absolute(job->hostfile);
    if (!status)
        status = make_absolute(job->keys);
    return status ? status : schd_supervise(job, call->program);
}

const struct schd_verb schd_verb_train = {
    .name = "train",
    .summary = "launch a job and supervise it to its end",
    .usage = "[JOB.yaml] [--data DIR] [--out DIR] [--KEY VALUE ... | --set KEY=VALUE ...]",
    .example = "sluice train job.yaml --out run1 --servers 2 --workers 2",
    .takes_job = true,
    .min_positionals = 0,
    .max_positionals = 1,
    .run = run,
};

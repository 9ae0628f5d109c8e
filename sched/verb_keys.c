/* `sluice keys`: a folder of CURVE keys for a job's sockets.
 */
#include "cluster/security.h"
#include "cluster/status.h"
#include "sched/verb.h"

#include <stdio.h>

static int run(const struct schd_call *call)
{
    int status = clu_security_generate(call->positionals[0]);
    if (!status)
        printf(
            "keys are in %s: name the folder in the job file (keys: %s) and copy it, modes kept, "
            "to every host of the job; add the public keys of further clients to its file "
            "\"allow\"\n",
            call->positionals[0], call->positionals[0]);
    return status;
}

const struct schd_verb schd_verb_keys = {
    .name = "keys",
    .summary = "make a folder of CURVE keys and an allow list for a job",
    .usage = "DIR",
    .example = "sluice keys keys && sluice train job.yaml --keys keys",
    .min_positionals = 1,
    .max_positionals = 1,
    .run = run,
};

/* `sluice worker`: one rank of the MPI job. It is started by mpirun, which `sluice train` starts;
 * those who launch by themselves start it the same way.
 */
#include "sched/outside.h"
#include "sched/process.h"
#include "sched/verb.h"

#include "cluster/status.h"
#include "worker/train.h"

#include <stddef.h>

struct options {
    char job[CLU_PATH_BYTES];
    char sched[256];
};

static const struct clu_setting rows[] = {
    {"job", CLU_SETTING_TEXT, offsetof(struct options, job), CLU_PATH_BYTES, "job.yaml", 0, 0, NULL,
     "the effective job file"},
    {"sched", CLU_SETTING_TEXT, offsetof(struct options, sched), 256, "", 0, 0, NULL,
     "the scheduler's endpoint, tcp://host:port; default: read from the job's run folder"},
};

static const char *serve(void *context, const struct clu_job *job, int rank)
{
    return schd_outside_serve(context, job, CLU_ROLE_WORKER, rank);
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    schd_die_with_parent(); /* mpirun, killed, leaves its ranks behind */
    struct schd_outside *outside;
    int status = schd_outside_open(&outside);
    if (status)
        return status;
    struct wrk_train_options train = {
        .job_path = options->job,
        .sched_endpoint = options->sched,
        .metrics = schd_outside_metrics(outside),
        .serve = serve,
        .context = outside,
    };
    status = wrk_train_run(&train);
    schd_outside_close(outside);
    /* a stop on request is no failure to mpirun, which would kill the ranks that end a moment
     * later; the scheduler knows, and `sluice train` ends with 75 */
    return status == CLU_E_INTERRUPTED ? CLU_OK : status;
}

const struct schd_verb schd_verb_worker = {
    .name = "worker",
    .summary = "a training rank, as started by mpirun",
    .usage = "--job FILE --sched ENDPOINT",
    .example = "mpirun -n 2 sluice worker --job run/job.yaml --sched tcp://127.0.0.1:7700",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

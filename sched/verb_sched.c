/* `sluice sched`: the scheduler role, as `sluice train` starts it; those who launch by themselves
 * start it first, and find where it listens in OUT/run/sched.endpoint.
 */
#include "sched/scheduler.h"
#include "sched/verb.h"

#include <stddef.h>

struct options {
    char job[CLU_PATH_BYTES];
    bool supervised, again;
};

static const struct clu_setting rows[] = {
    {"job", CLU_SETTING_TEXT, offsetof(struct options, job), CLU_PATH_BYTES, "job.yaml", 0, 0, NULL,
     "the effective job file"},
    {"supervised", CLU_SETTING_BOOL, offsetof(struct options, supervised), sizeof(bool), "false", 0,
     0, NULL, "take commands from stdin and write events to stdout"},
    {"again", CLU_SETTING_BOOL, offsetof(struct options, again), sizeof(bool), "false", 0, 0, NULL,
     "take up the job of a scheduler that died"},
};

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    struct schd_scheduler_options scheduler = {
        .job = call->job, .supervised = options->supervised, .again = options->again};
    return schd_scheduler_run(&scheduler);
}

const struct schd_verb schd_verb_sched = {
    .name = "sched",
    .summary = "the scheduler of a job, one process",
    .usage = "--job FILE",
    .example = "sluice sched --job sluice-run/run/job.yaml",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .takes_job = true,
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

/* The supervisor: one process that starts a job's roles, watches them, restarts what may be
 * restarted, and leaves nothing behind. It is what `sluice train` runs.
 *
 *     train --+-- pipe: events, commands -- sched
 *             +-- pipe: log --------------- ps 0 ... ps S-1
 *             '-- pipe: log --------------- mpirun --- worker 0 ... worker W-1
 *
 * Every way a job can end goes through one place, with a status and a sentence that names the role.
 * Threads: one.
 */
#ifndef SCHED_SUPERVISE_H
#define SCHED_SUPERVISE_H

#include "cluster/job.h"

/* Runs a checked job until it ends, and returns its status: OK when the last step is done and its
 * snapshot whole, INTERRUPTED after a stop on request, else what it failed with (logged: one
 * sentence). EXISTS when another supervisor works in the same folder. program: this executable. */
int schd_supervise(const struct clu_job *job, const char *program);

#endif

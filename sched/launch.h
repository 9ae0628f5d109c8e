/* How each role of a job is started, here and on other hosts: command lines and environments,
 * nothing else.
 *
 *     sched     sluice sched --job OUT/run/job.yaml --supervised
 *     ps r      sluice ps --job OUT/run/job.yaml --rank r --sched ENDPOINT
 *               with a hostfile: mpirun -n 1 --host HOST sluice ps ..., the hosts in turn
 *     workers   mpirun -n W ... sluice worker --job OUT/run/job.yaml --sched ENDPOINT
 *
 * Threads: the supervisor's own (see process.h).
 */
#ifndef SCHED_LAUNCH_H
#define SCHED_LAUNCH_H

#include "cluster/job.h"
#include "sched/launch_words.h"
#include "sched/process.h"

struct schd_launch {
    const struct clu_job *job;
    const char *program; /* this executable */
    char job_path[CLU_PATH_BYTES];
    char endpoint[CLU_ENDPOINT_BYTES]; /* of the scheduler, once it listens */
    char scratch[CLU_PATH_BYTES]; /* Open MPI's session files and shared memory; "" its default */
    struct schd_janitor janitor;  /* removes them when we cannot */
};

/* Makes the scratch folder, in shared memory where there is some, to be removed at our death, too;
 * and removes those of supervisors that were killed together with their janitors. */
void schd_launch_open(struct schd_launch *launch);

/* Ends the janitor: before strays are looked for, as it is a child that would count as one. */
void schd_launch_dismiss(struct schd_launch *launch);

/* Removes the scratch folder. */
void schd_launch_close(struct schd_launch *launch);

int schd_launch_sched(const struct schd_launch *launch, bool again, struct schd_process *process);
int schd_launch_ps(const struct schd_launch *launch, int rank, struct schd_process *process);
int schd_launch_workers(const struct schd_launch *launch, struct schd_process *process);

/* Whether a process of those above ended because Open MPI's launcher could not start it, by what
 * that wrote; out: where, why and what to check, as words that follow its name. */
bool schd_launch_why(const struct schd_launch *launch, const struct schd_process *process,
                     const struct schd_launch_words *words, char *out, size_t out_bytes);

#endif

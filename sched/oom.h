/* Tells a process that the kernel killed for want of memory from one that somebody else killed.
 *
 * Both end by SIGKILL. But a memory cgroup counts the kernel's kills in a file, and all local
 * processes of a job are in the supervisor's cgroup or below it: a count that is higher at a death
 * than it was before says who did it. Deaths on other hosts, and cgroups that cannot be read, stay
 * "killed by signal 9".
 *
 * Threads: one owner.
 */
#ifndef SCHED_OOM_H
#define SCHED_OOM_H

#include "cluster/job.h"

#include <stdbool.h>

struct schd_oom {
    char file[CLU_PATH_BYTES];   /* the counter's; "" when there is none */
    char cgroup[CLU_PATH_BYTES]; /* its name, for the sentence */
    long n_kills;                /* so far */
};

/* Finds this process's counter and reads it. groups_path and root are /proc/self/cgroup and
 * /sys/fs/cgroup, but for a test. */
void schd_oom_open(struct schd_oom *oom, const char *groups_path, const char *root);

/* At a death by SIGKILL: true when the kernel has killed since the last time that was asked. */
bool schd_oom_killed(struct schd_oom *oom);

#endif

/* The scheduler role: the coordinator with a socket, a disk and a clock. `sluice sched`.
 *
 *     members, tools --socket--> scheduler --> coordinator --> actions --> sockets, files, events
 *
 * It writes, under the job's OUT/run: sched.endpoint (where it listens), metrics.jsonl (a line a
 * report), snapshot/ (it commits what others wrote), state/ (what it needs to come back after a
 * kill).
 *
 * Supervised, it is one end of two pipes: events as JSON lines on stdout, commands as lines on
 * stdin ("stop WHY", "snapshot", "dump", "gone ROLE RANK STATUS WHY", "plan" and "recover", both
 * with or without " anew", "quit"); the end
 * of stdin means that the supervisor is gone, and ends it.
 *
 *     {"event":"listening","endpoint":...}
 *     {"event":"progress","step":...,"n_steps":...,"figures":{...}}
 *     {"event":"evaluated",...}               {"event":"phase","phase":"running"}
 *     {"event":"broken","status":-7,"text":...}
 *     {"event":"plan","way":"stand","servers":[1],"workers":false}    whom to end, then to start
 *     {"event":"recovered","generation":...,"step":...,"way":"stand"}  or a plan again
 *     {"event":"start","rank":3}: an added server; {"event":"release","rank":2}: its end is well
 *     {"event":"change","state":"moving","text":...}
 *     {"event":"alive"}, every heartbeat      {"event":"reshape","servers":3}, before such an end
 *     {"event":"snapshot","step":...,"status":0}  {"event":"end","status":0,"text":...}
 *
 * Threads: one, and one more while a snapshot is committed.
 */
#ifndef SCHED_SCHEDULER_H
#define SCHED_SCHEDULER_H

#include "cluster/job.h"

#include <stdbool.h>

struct schd_scheduler_options {
    const struct clu_job *job;
    bool supervised;
    bool again; /* a restart after a kill: take up the stored state, on the same endpoint */
};

/* Runs until the job ends; the status is the job's. */
int schd_scheduler_run(const struct schd_scheduler_options *options);

#endif

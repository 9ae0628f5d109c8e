/* What a server or a worker rank shows of itself: its metrics over HTTP, and its state in the log
 * when it is sent SIGUSR1.
 *
 *     GET /metrics     Prometheus text, version 0.0.4, rendered from the process's registry
 *
 * The role writes to the registry (cluster/metrics.h) without a lock; a thread of HTTP and one of
 * signals read it whenever they are asked. So neither disturbs a thread that owns a shard, and both
 * answer while the role's own threads wait for something that does not come.
 *
 * Threads: one owner, the process's first; open before any other thread is started, so that all
 * inherit that the signal is blocked.
 */
#ifndef SCHED_OUTSIDE_H
#define SCHED_OUTSIDE_H

#include "cluster/control.h"

#include <stdio.h>

struct clu_job;
struct clu_metrics;
struct schd_outside;

/* An empty registry, and SIGUSR1 taken care of. */
int schd_outside_open(struct schd_outside **outside_p);

/* The registry, for the role to fill. Valid until close. */
struct clu_metrics *schd_outside_metrics(struct schd_outside *outside);

/* Serves where the job says (metrics_host, metrics_port). Returns the URL, valid until close; ""
 * where the job wants none, or where it cannot: then it is logged, and the role goes on without. */
const char *schd_outside_serve(struct schd_outside *outside, const struct clu_job *job,
                               enum clu_role role, int rank);

/* Stops both and frees; NULL is fine. */
void schd_outside_close(struct schd_outside *outside);

/* Memory and processor time of this process, as Prometheus text. labels: `role="ps",rank="1"`.
 * Thread: any. */
void schd_print_process(FILE *out, const char *labels);

#endif

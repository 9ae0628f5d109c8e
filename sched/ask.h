/* How a person's command reaches a running job: the verbs status, snapshot, drain and stop.
 *
 * A job is named by its folder (`--out` of sluice train). OUT/run/sched.endpoint says where its
 * scheduler listens, OUT/run/job.yaml which keys it wants. Threads: any.
 */
#ifndef SCHED_ASK_H
#define SCHED_ASK_H

#include <stdbool.h>

/* Asks the job in folder out (NULL or "": sluice-run). body_p: malloc'd JSON text, caller frees, or
 * NULL. Errors: NOT_FOUND: no job was ever started there; TIMEOUT: none runs there now; else the
 * answer's. Logged. */
int schd_ask(const char *out, const char *question, char **body_p);

/* Whether a `sluice train` looks after the job in this folder now: it holds OUT/run/lock. */
bool schd_is_supervised(const char *out);

#endif

/* How a person's command reaches a running job: the verbs status, snapshot, drain and stop.
 *
 * A job is named by its folder (`--out` of sluice train). OUT/run/sched.endpoint says where its
 * scheduler listens, OUT/run/job.yaml which keys it wants. When nobody holds the folder (folder.h)
 * and nobody listens there, the answer is there at once: no job runs, and how the last one ended.
 * Threads: any.
 */
#ifndef SCHED_ASK_H
#define SCHED_ASK_H

enum { SCHD_ANSWER_WITHIN_MS = 3000 };

/* For --help of the verbs that ask. */
#define SCHD_ASK_EXITS                                                                             \
    "69 when no job runs there now (it says how the last one ended), 66 when none ever did"

/* Asks the job in folder out (NULL or "": sluice-run). body_p: malloc'd JSON text, caller frees, or
 * NULL. Errors: NOT_FOUND: no job was ever started there; UNAVAILABLE: none runs there now;
 * TIMEOUT: one does, and its scheduler does not answer within SCHD_ANSWER_WITHIN_MS; else the
 * answer's. Logged. */
int schd_ask(const char *out, const char *question, char **body_p);

/* The same for who asks again and again, and waits as long as he likes for each answer:
 * UNAVAILABLE and TIMEOUT are not logged. */
int schd_ask_again(const char *out, const char *question, int timeout_ms, char **body_p);

/* The job's folder that out means. */
const char *schd_ask_folder(const char *out);

#endif

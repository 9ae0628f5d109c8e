/* A job's folder as those outside of the job see it: whether somebody runs a job in it now, and how
 * the last one ended.
 *
 *     OUT/run/lock        held while a job runs: by `sluice train`, or by a scheduler without one
 *     OUT/run/end.json    how it ended: {"status", "exit_code", "text", "step", "n_steps",
 *                         "time_ms"}; written as the last thing before the lock is released,
 *                         removed as the first thing after it is taken
 *
 * So a folder without either is that of a job whose supervisor was killed: nobody wrote down how it
 * ended. Threads: any.
 */
#ifndef SCHED_FOLDER_H
#define SCHED_FOLDER_H

#include "cluster/control.h"

#include <stdbool.h>
#include <stdint.h>

/* Takes OUT/run/lock, until *fd_p is closed or this process ends, and forgets how the last job
 * ended. EXISTS, logged, when a job runs there. */
int schd_folder_lock(const char *out, int *fd_p);

/* Whether somebody holds it. */
bool schd_folder_is_held(const char *out);

/* How the last job ended. */
struct schd_end {
    bool told;  /* it was written down: status, text, n_steps and time_ms are known */
    int status; /* LOST when it was not */
    char text[2 * CLU_TEXT_BYTES]; /* one sentence, as on the terminal */
    uint64_t step;                 /* the last one heard of; 0: none */
    uint64_t n_steps;
    int64_t time_ms;        /* since 1970 */
    uint64_t snapshot_step; /* of the newest whole snapshot; 0: none. */
};

/* Writes it down, at this moment. */
int schd_folder_save_end(const char *out, int status, const char *text, uint64_t step,
                         uint64_t n_steps);

/* What is known, from end.json, or else from the tail of metrics.jsonl. Cheap. */
void schd_folder_load_end(const char *out, struct schd_end *end_p);

/* "ended 2026-01-31 12:00:00: done: step 85 ...": what is known, as one clause; returns out_p. */
const char *schd_end_describe(const struct schd_end *end, char *out_p, size_t out_bytes);

#endif

/* The supervisor's state, shared by its loop (supervise.c) and by what it hears (supervise_hear.c).
 * Nobody else includes this.
 */
#ifndef SCHED_SUPERVISE_INTERNAL_H
#define SCHED_SUPERVISE_INTERNAL_H

#include "sched/launch.h"
#include "sched/oom.h"
#include "sched/progress.h"
#include "sched/supervise.h"

#include <stdio.h>

/* What went wrong first, or so it is believed. */
struct schd_verdict {
    bool there;
    bool launch;       /* a process was not started at all */
    bool by_scheduler; /* a member's own words, or the scheduler's observation */
    int status;
    int64_t time_ms;
    char text[CLU_TEXT_BYTES]; /* begins with who */
};

struct schd_supervisor {
    struct clu_job *job; /* our own copy: its shape may change */
    struct schd_launch launch;
    char run[CLU_PATH_BYTES], log_folder[CLU_PATH_BYTES];
    int lock_fd, signal_fd;
    struct schd_process sched, workers;
    struct schd_process *ps; /* [n_ps], room for CLU_MAX_SHARDS */
    int n_ps; /* ranks that there are or were; job->servers of them are not released */
    bool released[CLU_MAX_SHARDS]; /* may end, and is not started again */
    bool joining;                  /* servers are being added: their end is not the job's */
    int first_added;
    int reshape_servers; /* go on with as many when the job has stopped; 0: no */
    FILE *sched_log, *mpi_log;
    FILE **ps_log, **worker_log; /* [CLU_MAX_SHARDS], [workers] */
    struct schd_progress progress;

    /* what the scheduler told */
    bool began; /* a scheduler of this job has listened: the next one takes up its state */
    bool listening, planned, recovered;
    bool recovering;    /* between the question how, and the answer that it is done */
    bool start_workers; /* the plan: whom to end and to start */
    bool *start_ps;     /* [servers] */
    char way[16];
    int64_t sched_heard_ms;
    char phase[16];
    uint64_t step, n_steps, snapshot_step;
    bool end_told;
    int end_status;
    int64_t end_ms;
    char end_text[CLU_TEXT_BYTES];
    char kept[CLU_TEXT_BYTES];           /* which step is kept and why; "": the last */
    char last_words[2 * CLU_TEXT_BYTES]; /* why the job ends, once that is said; "": not yet */

    struct schd_oom oom;
    bool killing; /* the end of a process is our own doing */
    int n_interrupts;
    struct schd_verdict verdict;
    struct schd_launch_words
        *words;    /* [2 + CLU_MAX_SHARDS], as the processes: of their launchers */
    int dead_rank; /* the rank mpirun says was lost; -1 */
    char dead_how[256];

    int n_restarts, n_back_off /* since the job last got further than it had been */;
    uint64_t died_at_step;
    char died_who[64];
    int n_deaths_at_step;
};

/* Servers that are added, and those that may end. */
void schd_supervisor_start_server(struct schd_supervisor *s, int rank);
void schd_supervisor_release_server(struct schd_supervisor *s, int rank);

/* Opens the log of a server's rank. */
int schd_supervisor_open_ps_log(struct schd_supervisor *s, int rank);

/* A line of an event from the scheduler; context is the supervisor. */
void schd_supervisor_event(void *context, char *line);

/* A line of a role's log; each is written to the role's file, and shown when it is a warning or an
 * error. */
void schd_supervisor_sched_line(void *context, char *line);
void schd_supervisor_worker_line(void *context, char *line);
void schd_supervisor_ps_line(struct schd_supervisor *s, int rank, char *line);

/* Writes a sentence to the terminal and to train.log. */
void schd_supervisor_say(struct schd_supervisor *s, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Records a failure, when it is the first. */
void schd_supervisor_blame(struct schd_supervisor *s, int status, bool by_scheduler,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Opens and closes the log files. */
int schd_supervisor_open_logs(struct schd_supervisor *s);
void schd_supervisor_close_logs(struct schd_supervisor *s);

#endif

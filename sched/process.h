/* One child process of the supervisor: started, listened to, ended, and never left behind.
 *
 * A child runs in a process group of its own (so that a Ctrl-C at the terminal reaches only the
 * supervisor, which then ends the job in order), and asks the kernel to be killed when the
 * supervisor dies, however it dies. What it writes comes back through pipes.
 *
 * Threads: one owner, and it must be the thread that lives as long as the process: the kernel ties
 * the death signal to the thread that forked.
 */
#ifndef SCHED_PROCESS_H
#define SCHED_PROCESS_H

#include "cluster/control.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum { SCHD_LINE_BYTES = 8192 };

/* A pipe's end and the line that is not complete yet. */
struct schd_lines {
    int fd; /* -1: closed */
    size_t n_bytes;
    char text[SCHD_LINE_BYTES];
};

struct schd_process {
    char name[64]; /* "ps 1", "workers": for sentences */
    enum clu_role role;
    int rank;
    pid_t pid; /* 0: not started */
    bool ended;
    bool unwanted;            /* its end is our own doing */
    int wait_status;          /* of waitpid, once ended */
    int command_fd;           /* its stdin, or -1 */
    struct schd_lines events; /* its stdout, when it is not part of the log */
    struct schd_lines log;    /* its stderr (and stdout) */
};

struct schd_process_options {
    const char *const *argv;        /* NULL at the end; argv[0] is looked up in PATH */
    const char *const *environment; /* NAME=VALUE to set, NULL at the end */
    bool commands;                  /* stdin is a pipe; else /dev/null */
    bool events;                    /* stdout is a pipe of its own; else it joins the log */
};

/* Starts a child; process is filled but for name, role and rank, which are the caller's. Errors:
 * UNAVAILABLE, logged, when it cannot be forked. A program that cannot be executed exits with 127.
 * */
int schd_process_start(struct schd_process *process, const struct schd_process_options *options);

/* Sends a signal to the child's whole group, when it still runs. */
void schd_process_signal(const struct schd_process *process, int signal_number);

/* Closes the pipes. */
void schd_process_close(struct schd_process *process);

/* Reads what is there; calls take for every complete line (without its end). At the end of the pipe
 * closes it, handing out what is left as a line. */
void schd_lines_read(struct schd_lines *lines, void (*take)(void *context, char *line),
                     void *context);

/* How a process ended, as words that follow its name: "was killed by signal 9 (Killed)", "ended
 * with exit code 65 (input data is not as expected)". */
void schd_describe_end(int wait_status, char *out, size_t out_bytes);

/* The status for a process's end: by its exit code; LOST when a signal killed it. */
int schd_status_of_end(int wait_status);

/* True for the exit code of a role that was told to stop. */
bool schd_is_stop(int wait_status);

/* Has signals arrive on a descriptor (*fd_p, not blocking, of struct signalfd_siginfo), for any
 * thread to read; called by the process's first, of which threads and children started later
 * inherit that they are blocked. signals ends with 0. Errors: by errno, logged. */
int schd_signals_open(const int *signals, int *fd_p);

/* For a role's own use: die when the process that started it does. A no-op without a parent to die
 * with. */
void schd_die_with_parent(void);

struct schd_janitor {
    pid_t pid; /* 0: none */
    int fd;    /* the end of a pipe that closes when we die */
};

/* Forks a process that removes a folder when this one has died, however it died. It holds nothing
 * else of ours open: no lock, no terminal. Errors: UNAVAILABLE, logged. */
int schd_janitor_start(struct schd_janitor *janitor, const char *folder);

/* Ends it; the folder stays. */
void schd_janitor_stop(struct schd_janitor *janitor);

/* Kills every process that has become a child of this one (see PR_SET_CHILD_SUBREAPER) and reaps
 * them, within timeout_ms. Returns how many there were. */
int schd_reap_strays(int timeout_ms);

#endif

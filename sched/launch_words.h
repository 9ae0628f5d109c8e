/* What Open MPI's launcher says when it cannot start a role on some host, in words for an operator.
 *
 * It starts a daemon on each host, by ssh or what is set in its place, and the daemon starts the
 * role. When that fails, mpirun ends with whatever the last one it asked ended with: its exit code
 * says nothing. What it writes does: what ssh said, and then a box of dashes with an explanation
 * for everybody.
 *
 *     ssh: Could not resolve hostname nod2: Name or service not known
 *     ---------------------------------------------------------------
 *     ORTE was unable to reliably start one or more daemons.
 *     ...
 *
 * Threads: one owner.
 */
#ifndef SCHED_LAUNCH_WORDS_H
#define SCHED_LAUNCH_WORDS_H

#include <stdbool.h>
#include <stddef.h>

enum schd_launch_fault {
    SCHD_LAUNCH_WELL,
    SCHD_LAUNCH_NO_DAEMON,  /* a host was not reached, or has no Open MPI */
    SCHD_LAUNCH_NO_AGENT,   /* nothing was asked: ssh, or what stands for it, is not there */
    SCHD_LAUNCH_NO_PROGRAM, /* the host has no such program */
};

/* Zeroed before the first line. */
struct schd_launch_words {
    enum schd_launch_fault fault;
    bool in_box;
    char said[1024]; /* lines outside of boxes, '\n' between them */
    char thing[256]; /* the agent or the program that is not there */
    char host[128];  /* that has no program */
};

/* Hears a line of mpirun's; lines of the roles themselves (cluster/log.h) are passed over. */
void schd_launch_words_hear(struct schd_launch_words *words, const char *line);

/* What could not be done, on which hosts, and what to check, as words that follow a name: "could
 * not be started: ...". hosts: the job's, as in its hostfile, spaces between them; those that were
 * named are told, or else all. False when the launcher said nothing of the kind. */
bool schd_launch_words_describe(const struct schd_launch_words *words, const char *hosts, char *out,
                                size_t out_bytes);

#endif

/* A verb: what `sluice <verb>` does.
 *
 * One file sched/verb_<name>.c defines `const struct schd_verb schd_verb_<name>`, and one line in
 * sched/verbs.h lists it; main.c does the rest: parses flags into a zeroed options object by the
 * verb's table (and into a struct clu_job when takes_job is set), answers --help and the man page
 * from the same table, and turns the status into an exit code.
 */
#ifndef SCHED_VERB_H
#define SCHED_VERB_H

#include "cluster/job.h"
#include "cluster/settings.h"

#include <stdbool.h>
#include <stddef.h>

struct schd_call {
    void *options;       /* object_bytes, filled by the verb's table; NULL when it has none */
    struct clu_job *job; /* the effective job when takes_job is set, else NULL */
    int n_positionals;
    char **positionals;
    const char *program; /* path of this executable, for starting roles */
};

struct schd_verb {
    const char *name;
    const char *summary; /* lower case, no full stop */
    const char *usage;   /* "LOG... --out DIR", without `sluice <name>` */
    const char *example; /* whole command lines, one a line */
    const char *exits; /* what its exit codes mean beyond the common table, lines; NULL: nothing */
    const struct clu_setting *rows; /* flags of its own; NULL when none */
    size_t n_rows, object_bytes;
    /* every job key is a flag too; the first positional, when there is one, is the job file (a role
     * that is started with `--job FILE` has a row named "job" instead) */
    bool takes_job;
    int min_positionals, max_positionals; /* max -1: any number */
    /* The verb itself; the status becomes the exit code. */
    int (*run)(const struct schd_call *call);
};

#endif

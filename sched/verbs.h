/* The verbs of `sluice`, in the order of its help: one line each, the definition in
 * sched/verb_<name>.c. */
#ifndef SCHED_VERBS_H
#define SCHED_VERBS_H

#include "sched/verb.h"

#define SCHD_VERB_LIST(X)                                                                          \
    X(prepare)                                                                                     \
    X(generate)                                                                                    \
    X(train)                                                                                       \
    X(keys)                                                                                        \
    X(sched)                                                                                       \
    X(status)                                                                                      \
    X(snapshot)                                                                                    \
    X(drain)                                                                                       \
    X(stop)                                                                                        \
    X(ps)                                                                                          \
    X(worker)                                                                                      \
    X(eval)                                                                                        \
    X(export)                                                                                      \
    X(score)                                                                                       \
    X(report)                                                                                      \
    X(inspect)                                                                                     \
    X(reshard)                                                                                     \
    X(help)

#define SCHD_X(name) extern const struct schd_verb schd_verb_##name;
SCHD_VERB_LIST(SCHD_X)
#undef SCHD_X

/* The verb of that name, or NULL. */
const struct schd_verb *schd_verb_find(const char *name);

/* The verb that the name is a slip of, or NULL. */
const char *schd_verb_nearest(const char *name);

/* The i-th verb, NULL past the last. */
const struct schd_verb *schd_verb_at(int i);

/* What `sluice NAME --help` prints. */
void schd_verb_print_help(const struct schd_verb *verb, FILE *stream);

#endif

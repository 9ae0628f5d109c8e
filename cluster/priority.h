/* How a thread stands back behind those that train. */
#ifndef CLUSTER_PRIORITY_H
#define CLUSTER_PRIORITY_H

#include <stdbool.h>

/* The calling thread alone, from now on, and for good: the way back needs a right that jobs do not
 * have. low: it runs on what the cores have left over (SCHED_IDLE), which on a machine that is busy
 * throughout is almost nothing; else it yields only where it competes. Any thread, best at its
 * start; a thread that holds what others wait for must not. */
void clu_stand_back(bool low);

#endif

/* Linux gives every thread its own niceness and policy, whatever POSIX says of processes. */
#include "cluster/priority.h"

#include "cluster/log.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

enum { NICENESS = 10 };

void clu_stand_back(bool low)
{
    struct sched_param none = {0};
    errno = 0;
    if (low ? sched_setscheduler(0, SCHED_IDLE, &none) != 0 : nice(NICENESS) == -1 && errno)
        clu_debug("a thread keeps its priority: %s", strerror(errno));
}

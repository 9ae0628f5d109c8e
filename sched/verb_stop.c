/* `sluice stop`: asks a running job to take a last snapshot and end; `sluice train` then exits with
 * 75, and goes on from there when it is started again.
 */
#include "sched/ask.h"
#include "sched/verb.h"

#include <stddef.h>

static int run(const struct schd_call *call)
{
    return schd_ask(call->n_positionals > 0 ? call->positionals[0] : NULL, "stop", NULL);
}

const struct schd_verb schd_verb_stop = {
    .name = "stop",
    .summary = "end a running job after a last snapshot",
    .usage = "[OUT]",
    .example = "sluice stop sluice-run",
    .min_positionals = 0,
    .max_positionals = 1,
    .exits = SCHD_ASK_EXITS,
    .run = run,
};

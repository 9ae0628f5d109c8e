/* `sluice snapshot`: asks a running job for a snapshot at its next step; it is whole some time
 * after the answer (sluice status).
 */
#include "sched/ask.h"
#include "sched/verb.h"

#include <stddef.h>

static int run(const struct schd_call *call)
{
    return schd_ask(call->n_positionals > 0 ? call->positionals[0] : NULL, "snapshot", NULL);
}

const struct schd_verb schd_verb_snapshot = {
    .name = "snapshot",
    .summary = "ask a running job for a snapshot now",
    .usage = "[OUT]",
    .example = "sluice snapshot sluice-run",
    .min_positionals = 0,
    .max_positionals = 1,
    .exits = SCHD_ASK_EXITS,
    .run = run,
};

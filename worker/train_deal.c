/* Parts on demand in a rank's life: what worker/deal.c deals, the feed is asked for.
 *
 * A dealt rank counts in turns: one part each, of whatever step. Between two meetings `done` stands
 * still at the last one; at the next it is its step, and the position that of the batch behind it,
 * as if every rank had taken its own part of every step. So all that happens at boundaries
 * (snapshots, evaluations, verdicts, moves, the end) means what it means elsewhere.
 *
 * (A1) Turns are asked for n_ahead + 1 beyond the one that is computed: the feed fills the last
 *      while it is, and it is pulled after. That is all a rank has in hand: n_ahead + 2 turns, and
 *      as many steps of an interval are nobody else's (wrk_deal_options.n_own).
 * (A2) A meeting is due when nothing is left to draw, which is known before the last turn is
 *      computed, because a later one was asked for in vain.
 */
#include "worker/train_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <inttypes.h>
#include <stdlib.h>

/* the first step after `step` at which all ranks meet */
static uint64_t next_meeting(const struct wrk_trainer *t, uint64_t step)
{
    uint64_t meeting = step + 1;
    while (!wrk_train_meets_at(t, meeting))
        meeting++;
    return meeting;
}

/* of the batch of a step after those done */
static struct wrk_position position_of(const struct wrk_trainer *t, uint64_t step)
{
    uint64_t number = t->position.epoch * t->n_batches + t->position.batch + (step - t->done - 1);
    return (struct wrk_position){number / t->n_batches, number % t->n_batches};
}

static int draw(void *context, uint64_t round, int64_t *number_p)
{
    struct wrk_trainer *t = context;
    return wrk_mpi_draw(t->mpi, round, number_p, WRK_MPI_TIMEOUT_MS);
}

bool wrk_train_is_dealt(const struct wrk_trainer *t)
{
    return t->job.deal && t->job.staleness == CLU_STALENESS_ASYNC && t->n_ranks > 1 &&
           t->job.dense_every > WRK_DEALT_AHEAD + 2;
}

int wrk_train_start_dealing(struct wrk_trainer *t)
{
    t->deal.options = (struct wrk_deal_options){
        .rank = t->rank,
        .n_ranks = t->n_ranks,
        .n_own = t->n_ahead + 2, /* (A1) */
        .draw = draw,
        .context = t,
    };
    t->meetings = calloc((size_t)t->n_slots, sizeof(*t->meetings));
    if (!t->meetings)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %d turns", t->n_slots);
    wrk_deal_begin(&t->deal, t->done, next_meeting(t, t->done));
    return wrk_mpi_start_draws(t->mpi);
}

int wrk_train_ask(struct wrk_trainer *t)
{
    uint64_t *meetings = t->meetings, n_slots = (uint64_t)t->n_slots;
    while (t->asked < t->turn + 2 + (uint64_t)t->n_ahead && t->deal.begin < t->last_step) {
        struct wrk_deal_part part;
        int status = wrk_deal_next(&t->deal, t->done, &part);
        if (status == CLU_E_AGAIN)
            break;
        if (status == CLU_E_NOT_FOUND) {
            meetings[t->asked % n_slots] = t->deal.end;
            wrk_deal_begin(&t->deal, t->deal.end, next_meeting(t, t->deal.end));
            continue;
        }
        if (!status)
            status = wrk_feed_ask(t->feed, part.step, position_of(t, part.step), part.part);
        if (status)
            return status;
        meetings[++t->asked % n_slots] = 0;
    }
    return CLU_OK;
}

void wrk_train_end_turn(struct wrk_trainer *t)
{
    uint64_t meeting = t->meetings[t->turn % (uint64_t)t->n_slots]; /* (A2) */
    if (!meeting)
        return;
    struct wrk_position last = position_of(t, meeting);
    t->position = (struct wrk_position){last.epoch, last.batch + 1};
    t->since_reduce = (int64_t)(meeting - t->done);
    t->done = meeting;
}

/* Parts on demand: a slow rank does fewer, and no rank waits for one that another was to take.
 *
 * Without a bound on staleness nothing holds ranks together but the dense all-reduce every so many
 * steps, their meeting. What lies between two meetings is a pool of (steps x ranks) parts, numbered
 * step by step; the first n_own steps of it are fixed, the others are drawn from one counter of all
 * ranks (worker/mpi.h):
 *
 *     number k = n_own x n_ranks + draw -> step begin + 1 + k / n_ranks, part k % n_ranks
 *
 * The own parts keep a rank busy over the meeting: their rows are asked for before it. They are as
 * many as a rank has in hand at once, so a rank is waited for at a meeting by at most what it has
 * in hand; one that is slower than interval / n_own times the others still delays them.
 *
 * Why at a meeting nothing is lost and nothing done twice: a rank goes there when the counter gave
 * a number past the pool, so every number below was drawn before, by a rank that goes there itself
 * only after doing it. The counter needs no place in a snapshot: a life that begins at a meeting
 * begins a round, and one whose group dies begins again at the last snapshot, which is of a
 * meeting.
 *
 * What it costs: a rank reads little ahead, and decodes frames of which others use a part
 * too; where a step takes 3 ms and the cores are short, ranks that are all as fast do a
 * quarter to a half less. Figures: tests/bench/README.md.
 *
 * Rejected: MPI's one-sided operations (where ranks are on several hosts they need the target
 * inside MPI, and rank 0 is computing); a counter of the scheduler's or a server's (it would
 * outlive, or not, the group whose parts it counts: two lives to keep in step); shares by the
 * speed of the interval before (nothing is dealt to those who are fast now).
 */
#include "worker/deal.h"

#include "cluster/status.h"

void wrk_deal_begin(struct wrk_deal *deal, uint64_t begin, uint64_t end)
{
    deal->begin = begin;
    deal->end = end;
    deal->n_given = 0;
    deal->is_empty = false;
}

int wrk_deal_next(struct wrk_deal *deal, uint64_t done, struct wrk_deal_part *part_p)
{
    uint64_t n_steps = deal->end - deal->begin, n_ranks = (uint64_t)deal->options.n_ranks;
    uint64_t n_own = (uint64_t)deal->options.n_own;
    if (deal->n_given < n_own && deal->n_given < n_steps) {
        *part_p = (struct wrk_deal_part){deal->begin + ++deal->n_given, deal->options.rank};
        return CLU_OK;
    }
    if (n_steps <= n_own || deal->is_empty)
        return CLU_E_NOT_FOUND;
    if (done != deal->begin)
        return CLU_E_AGAIN;
    int64_t number;
    int status = deal->options.draw(deal->options.context, deal->begin, &number);
    if (status)
        return status;
    uint64_t k = n_own * n_ranks + (uint64_t)number;
    if (k >= n_steps * n_ranks) {
        deal->is_empty = true;
        return CLU_E_NOT_FOUND;
    }
    *part_p = (struct wrk_deal_part){deal->begin + 1 + k / n_ranks, (int)(k % n_ranks)};
    return CLU_OK;
}

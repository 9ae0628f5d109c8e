/* Who takes which part of the batches between two meetings of the ranks, where parts are dealt.
 *
 *     meeting at step B                                        meeting at step E
 *        |  steps B + 1 .. B + n_own: each rank its own part       |
 *        |  the other parts: whoever draws them first              |  all are done
 *
 * A part is what a rank takes of a step's batch where nothing is dealt (worker/reader.h): the same
 * parts, whoever takes them. Own parts are known without a word, so a rank may read ahead over a
 * meeting; nothing is drawn before the meeting that its interval begins with, and everything drawn
 * is done at the one that it ends with. So at a meeting the position in the data is a step again.
 * Threads: one owner.
 */
#ifndef WORKER_DEAL_H
#define WORKER_DEAL_H

#include <stdbool.h>
#include <stdint.h>

struct wrk_deal_options {
    int rank, n_ranks;
    int n_own; /* 1..: steps of an interval whose parts are not dealt */
    /* The next number of a round, over all ranks: 0, 1, 2 ... each handed out once. */
    int (*draw)(void *context, uint64_t round, int64_t *number_p);
    void *context;
};

struct wrk_deal {
    struct wrk_deal_options options;
    uint64_t begin, end; /* the interval in hand: steps begin + 1 .. end */
    uint64_t n_given;    /* own parts given of it */
    bool is_empty;       /* a draw found nothing left */
};

struct wrk_deal_part {
    uint64_t step;
    int part; /* 0 .. n_ranks - 1 */
};

/* Turns to the interval of steps begin + 1 .. end, end > begin: at first, and after NOT_FOUND. */
void wrk_deal_begin(struct wrk_deal *deal, uint64_t begin, uint64_t end);

/* The next part for this rank; steps never fall. done: the step of the last meeting. CLU_E_AGAIN:
 * the meeting at `begin` comes first. CLU_E_NOT_FOUND: nothing is left of the interval for this
 * rank: it meets the others at `end` when what it took is done. Else: draw's status. */
int wrk_deal_next(struct wrk_deal *deal, uint64_t done, struct wrk_deal_part *part_p);

#endif

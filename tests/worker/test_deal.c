/* Parts on demand: over ranks of any speed every part is taken once, the ranks meet where they say,
 * a slow rank takes fewer, and a life that begins at a meeting goes on where the one before stood.
 */
#include "tests/suite.h"

#include "cluster/status.h"
#include "worker/deal.h"

enum { MAX_RANKS = 7, MAX_STEPS = 200, N_OWN = 3 };

/* the counter of all ranks, as rank 0 keeps it */
static struct {
    uint64_t round;
    int64_t next;
    int n_draws;
} counter;

static int draw(void *context, uint64_t round, int64_t *number_p)
{
    (void)context;
    if (counter.round != round) {
        CU_ASSERT(round > counter.round || counter.next == 0); /* nobody draws from an old one */
        counter.round = round;
        counter.next = 0;
    }
    *number_p = counter.next++;
    counter.n_draws++;
    return CLU_OK;
}

static uint64_t meeting_after(uint64_t step, uint64_t every, uint64_t last)
{
    uint64_t next = (step / every + 1) * every;
    return step < last && next > last ? last : next;
}

struct rank {
    struct wrk_deal deal;
    struct wrk_deal_part held[N_OWN]; /* taken, not done; oldest first */
    int n_held;
    bool is_at_meeting;
    uint64_t meeting; /* known: after what is held up to here */
    int n_before;     /* held parts before the meeting */
    double busy_until, seconds;
    int n_done;
};

static int times_done[MAX_STEPS + 1][MAX_RANKS];

/* takes ahead as a rank of training does */
static void take(struct rank *rank, uint64_t done, uint64_t every, uint64_t last)
{
    while (rank->n_held < N_OWN && rank->deal.begin < last) {
        struct wrk_deal_part part;
        int status = wrk_deal_next(&rank->deal, done, &part);
        if (status == CLU_E_AGAIN)
            return;
        if (status == CLU_E_NOT_FOUND) {
            if (rank->meeting)
                return; /* two meetings ahead: later */
            rank->meeting = rank->deal.end;
            rank->n_before = rank->n_held;
            wrk_deal_begin(&rank->deal, rank->deal.end, meeting_after(rank->deal.end, every, last));
            continue;
        }
        CU_ASSERT_EQUAL_FATAL(status, CLU_OK);
        CU_ASSERT(rank->n_held == 0 || rank->held[rank->n_held - 1].step <= part.step);
        rank->held[rank->n_held++] = part;
    }
}

/* Lets ranks of these speeds work from step begin to stop, a meeting of last; returns the time it
 * takes. */
static double work(struct rank *ranks, int n_ranks, uint64_t begin, uint64_t stop, uint64_t every,
                   uint64_t last)
{
    uint64_t done = begin;
    double now = 0;
    memset(&counter, 0, sizeof(counter));
    for (int r = 0; r < n_ranks; r++) {
        struct rank *rank = &ranks[r];
        double seconds = rank->seconds;
        memset(rank, 0, sizeof(*rank));
        rank->seconds = rank->busy_until = seconds;
        rank->deal.options = (struct wrk_deal_options){r, n_ranks, N_OWN, draw, NULL};
        wrk_deal_begin(&rank->deal, begin, meeting_after(begin, every, last));
        take(rank, done, every, last);
    }
    while (done < stop) {
        struct rank *first = NULL; /* who is done with a part next */
        for (int r = 0; r < n_ranks; r++)
            if (!ranks[r].is_at_meeting && (!first || ranks[r].busy_until < first->busy_until))
                first = &ranks[r];
        if (!first) { /* all have met */
            done = ranks[0].meeting;
            for (uint64_t s = begin + 1; s <= done; s++)
                for (int part = 0; part < n_ranks; part++)
                    CU_ASSERT_EQUAL_FATAL(times_done[s][part], 1); /* all drawn is done */
            for (int r = 0; r < n_ranks; r++) {
                CU_ASSERT_EQUAL_FATAL(ranks[r].meeting, done);
                ranks[r].meeting = 0;
                ranks[r].is_at_meeting = false;
                ranks[r].busy_until = now + ranks[r].seconds;
                take(&ranks[r], done, every, last);
            }
            continue;
        }
        CU_ASSERT_FATAL(first->n_held > 0);
        now = first->busy_until;
        struct wrk_deal_part part = first->held[0];
        CU_ASSERT_FATAL(part.step > done && part.step <= MAX_STEPS);
        times_done[part.step][part.part]++;
        first->n_done++;
        memmove(first->held, first->held + 1, sizeof(part) * (size_t)--first->n_held);
        first->n_before--;
        take(first, done, every, last);
        if (first->meeting && first->n_before <= 0)
            first->is_at_meeting = true;
        else
            first->busy_until = now + first->seconds;
    }
    return now;
}

static void test_every_part_is_taken_once_by_ranks_of_any_speed(void)
{
    uint64_t seed = 4711;
    for (int round = 0; round < 300; round++) {
        struct rank ranks[MAX_RANKS];
        int n_ranks = 1 + (int)(suite_random(&seed) % MAX_RANKS);
        uint64_t every = 1 + suite_random(&seed) % 40, last = 1 + suite_random(&seed) % MAX_STEPS;
        for (int r = 0; r < n_ranks; r++)
            ranks[r].seconds = suite_uniform(&seed, 0.1, 10);
        memset(times_done, 0, sizeof(times_done));
        work(ranks, n_ranks, 0, last, every, last);
        int total = 0;
        for (int r = 0; r < n_ranks; r++)
            total += ranks[r].n_done;
        CU_ASSERT_EQUAL((uint64_t)total, last * (uint64_t)n_ranks);
        for (uint64_t s = last + 1; s <= MAX_STEPS; s++)
            CU_ASSERT_EQUAL(times_done[s][0], 0);
    }
}

static void test_a_life_that_begins_at_a_meeting_does_the_rest(void)
{
    struct rank ranks[MAX_RANKS];
    enum { EVERY = 16, LAST = 150, AT = 64 };
    memset(times_done, 0, sizeof(times_done));
    for (int r = 0; r < 4; r++)
        ranks[r].seconds = 1 + r;
    work(ranks, 4, 0, AT, EVERY, LAST);
    int before = ranks[0].n_done + ranks[1].n_done + ranks[2].n_done + ranks[3].n_done;
    CU_ASSERT_EQUAL(before, AT * 4); /* what they hold for later is not done: it is done below */
    for (int r = 0; r < 4; r++)
        ranks[r].seconds = 4 - r;
    work(ranks, 4, AT, LAST, EVERY, LAST);
    int after = ranks[0].n_done + ranks[1].n_done + ranks[2].n_done + ranks[3].n_done;
    CU_ASSERT_EQUAL(after, (LAST - AT) * 4);
    for (int s = 1; s <= LAST; s++)
        for (int part = 0; part < 4; part++)
            CU_ASSERT_EQUAL(times_done[s][part], 1);
}

static void test_a_slow_rank_takes_fewer_and_is_waited_for_by_what_it_holds(void)
{
    struct rank ranks[4];
    enum { EVERY = 64, LAST = 128 };
    memset(times_done, 0, sizeof(times_done));
    for (int r = 0; r < 4; r++)
        ranks[r].seconds = r == 2 ? 8 : 1;
    double seconds = work(ranks, 4, 0, LAST, EVERY, LAST);
    CU_ASSERT(ranks[2].n_done * 6 < ranks[0].n_done);
    CU_ASSERT(ranks[2].n_done >= 2 * N_OWN);
    double best = LAST * 4 / (3 + 1.0 / 8); /* nobody ever waits */
    CU_ASSERT(seconds >= best * 0.99);
    CU_ASSERT(seconds <= best + 2 * N_OWN * 8); /* two meetings */
    CU_ASSERT(seconds * 4 < LAST * 8);          /* against a fixed part of each step */
}

static void test_short_intervals_are_not_dealt(void)
{
    struct rank ranks[3];
    memset(times_done, 0, sizeof(times_done));
    for (int r = 0; r < 3; r++)
        ranks[r].seconds = 1 + 9 * r;
    work(ranks, 3, 0, 60, N_OWN, 60);
    CU_ASSERT_EQUAL(counter.n_draws, 0);
    for (int r = 0; r < 3; r++)
        CU_ASSERT_EQUAL(ranks[r].n_done, 60);
}

SUITE("worker.deal", T(test_every_part_is_taken_once_by_ranks_of_any_speed),
      T(test_a_life_that_begins_at_a_meeting_does_the_rest),
      T(test_a_slow_rank_takes_fewer_and_is_waited_for_by_what_it_holds),
      T(test_short_intervals_are_not_dealt))

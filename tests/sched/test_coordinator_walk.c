/* A walk over what can happen to a job: 2 servers, 2 workers, a crash of any process at any point,
 * and every order in which their messages can arrive. In no state does something wait for ever, and
 * no promise breaks:
 *
 * - the job ends, and ends well (a crash is recovered from);
 * - it ends well only with the last step's snapshot committed, after rank 0 said that it finished;
 * - the worker ranks only ever step together, with every server ready, in one life of the job, and
 *   with rows of exactly their own step: none is missing, none counts twice;
 * - a member of an earlier life is never taken for one of this;
 * - a life begins at a snapshot that was committed, and goes back no further than it must: not at
 *   all when the dead was a server whose rows are on its disk, or the scheduler;
 * - whom the job lets go on is a process that lives.
 *
 * Kinds of job: rows that must go back (durability snapshot), rows that stand while workers go back
 * (log, staleness 0), rows that stand for other workers as well (log, staleness > 0). The first two
 * also while a server is drained, and while one is added: what is promised of that is in
 * coordinator_world_moves.h.
 *
 * The world around the coordinator is modelled: members as small state machines with a queue in
 * each direction, rows on the servers' disks (one crash may take a disk with it), a supervisor that
 * starts whom the coordinator names, messages of the dead that arrive late, a disk that commits at
 * once or later. The walk is depth first over which event comes next; a state is known by a hash of
 * everything that can matter, and is entered once. It is reached again by replaying the choices
 * that led to it, since a coordinator cannot be copied. Time passes only when nothing else can
 * happen: a minute of that, and the state is stuck. The whole of it, with one crash, takes minutes
 * (label slow; of the changes of shape a bounded number of states); the normal run takes a part of
 * it, and random orders of events with up to three crashes (one while the shape changes), in which
 * time passes at any moment.
 */
#include "tests/sched/coordinator_world.h"

/* ---- the walk ---- */

enum { MOST_CHANGED = 200000, MOST_STROLLS = 20000 /* hours otherwise */ };

static uint64_t *seen;
static uint64_t n_states, n_events, n_ends, n_recovered;
static uint64_t max_states;
static uint8_t path[MAX_DEPTH];

static bool enter(uint64_t hash)
{
    uint64_t slot = hash & (TABLE - 1);
    while (seen[slot] && seen[slot] != hash)
        slot = (slot + 1) & (TABLE - 1);
    if (seen[slot] == hash)
        return false;
    seen[slot] = hash;
    n_states++;
    return true;
}

static void replay(struct world *w, int depth)
{
    open_world(w);
    for (int i = 0; i < depth; i++)
        event(w, path[i]);
    n_events += (uint64_t)depth;
}

/* From here on events come in a fixed order, first come first served, and time passes when there
 * are none: the job must end, and end well. */
static const char *finish(struct world *w)
{
    int64_t idle_since = w->now;
    for (int i = 0; i < 5000; i++) {
        if (w->broken)
            return w->broken;
        if (w->overflow)
            return "a queue overflowed";
        if (w->ended) {
            n_ends++;
            n_recovered += w->n_recoveries > 0;
            if (w->end_status != CLU_OK)
                return "the job ended badly";
            if (!w->finished_said)
                return "the job ended well before rank 0 said that it finished";
            if (w->c->life.generation > 1 && w->sched_crashed && w->n_crashes == 1)
                return "the job went back because its scheduler died";
            if (w->committed != N_STEPS)
                return "the job ended well without its last snapshot";
            return wrong_shape(w);
        }
        int n = event(w, -1);
        int crashes = n_crash_events(w); /* those come last, and are not for now */
        n_events++;
        if (n - crashes > 0) {
            event(w, 0);
            idle_since = w->now;
            continue;
        }
        pass_time(w);
        if (w->now - idle_since > STUCK_MS)
            return "something waits for ever";
    }
    return "the job goes on for ever";
}

static void print_wrong(const struct world *w, const char *wrong, const uint8_t *choices, int n)
{
    printf("  %s; choices:", wrong);
    for (int i = 0; i < n; i++)
        printf(" %d", choices[i]);
    printf("\n  phase %s, members:", schd_phase_name(w->c->phase));
    for (int i = 0; i < N; i++)
        printf(" %d/%s", w->p[i].life, schd_member_state_name(state_of(w, i)));
    printf("\n  change %s, owners %d of rank 0, %d stored, %d told%s\n",
           schd_change_name(w->c->change), (int)w->p[2].owners, (int)w->c->map.owners,
           (int)w->p[2].told_owners, w->p[2].move_ordered ? ", more is to move" : "");
}

static bool check(int depth)
{
    struct world w;
    replay(&w, depth);
    const char *wrong = finish(&w);
    if (wrong)
        print_wrong(&w, wrong, path, depth);
    close_world(&w);
    return !wrong;
}

/* Depth first; every new state is finished in order from there. Returns false at the first that
 * goes wrong. */
static bool walk(void)
{
    struct world w;
    int depth = 0, next[MAX_DEPTH] = {0};
    for (;;) {
        replay(&w, depth);
        int n = event(&w, -1);
        bool fresh = next[depth] > 0 || enter(hash_world(&w));
        close_world(&w);
        if (fresh && next[depth] == 0 && !check(depth))
            return false;
        if (fresh && next[depth] < n && depth < MAX_DEPTH - 1 && n_states < max_states) {
            path[depth] = (uint8_t)next[depth]++;
            next[++depth] = 0;
            continue;
        }
        if (depth == 0)
            return true;
        depth--;
    }
}

enum { TIME_PASSES = 255 };

/* One random order of events, then on in order to the end. false when it goes wrong. */
static bool stroll(uint64_t *random)
{
    struct world w;
    int depth = (int)(suite_random(random) % 120), n_passed = 0;
    open_world(&w);
    w.max_crashes = changes == STAYS ? 1 + (int)(suite_random(random) % 3) : 1;
    for (int i = 0; i < depth; i++) {
        int crashes = n_crash_events(&w), n = event(&w, -1) - crashes;
        bool crash = crashes > 0 && suite_random(random) % 24 == 0;
        path[i] = TIME_PASSES;
        if (crash)
            path[i] = (uint8_t)(n + (int)(suite_random(random) % (uint64_t)crashes));
        else if (n > 0 && (n_passed > 20 || suite_random(random) % 40 > 0))
            path[i] = (uint8_t)(suite_random(random) % (uint64_t)n);
        else if (n == 0 && n_passed > 20)
            depth = i;
        if (path[i] != TIME_PASSES)
            event(&w, path[i]);
        else if (i < depth && n_passed++ >= 0)
            pass_time(&w);
        if (w.ended || w.broken)
            depth = i + 1;
    }
    w.max_crashes = 0;
    const char *wrong = finish(&w);
    if (wrong)
        print_wrong(&w, wrong, path, depth);
    n_states++;
    close_world(&w);
    return !wrong;
}

/* A sanitizer makes a walk some twenty times slower: there one kind of job has to do. */
static bool is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

static void walk_all(bool servers_stand, bool workers_stand)
{
    if (is_sanitized() && (servers_stand || workers_stand || changes != STAYS))
        return;
    const char *more = getenv("SLUICE_WALK_STATES");
    max_states = more ? strtoull(more, NULL, 0) : changes == STAYS ? 5000 : 1500;
    if (changes != STAYS && max_states > MOST_CHANGED)
        max_states = MOST_CHANGED;
    shape.servers_stand = servers_stand;
    shape.workers_stand = workers_stand;
    n_states = n_events = n_ends = n_recovered = 0;
    seen = calloc(TABLE, sizeof(*seen));
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen);
    CU_ASSERT_TRUE(walk());
    printf("  %llu states, %llu events, %llu ends of which %llu after a recovery%s\n",
           (unsigned long long)n_states, (unsigned long long)n_events, (unsigned long long)n_ends,
           (unsigned long long)n_recovered,
           n_states >= max_states ? " (bounded; SLUICE_WALK_STATES for more)" : "");
    CU_ASSERT(n_states > 1000);
    CU_ASSERT(n_recovered > 0);
    free(seen);
    if (changes != STAYS && max_states <= 10000)
        return; /* random orders there: only in the slow run (sched/README.md says why) */
    uint64_t random = suite_seed();
    n_states = n_recovered = n_ends = 0;
    bool well = true;
    for (uint64_t i = 0; i < max_states && i < MOST_STROLLS && well; i++)
        well = stroll(&random);
    CU_ASSERT(well);
    printf("  %llu random orders, %llu with a recovery\n", (unsigned long long)n_states,
           (unsigned long long)n_recovered);
}

static void test_no_order_of_events_and_no_crash_leaves_the_job_waiting(void)
{
    walk_all(false, false);
}

static void test_the_same_where_rows_stand_and_workers_go_back(void)
{
    walk_all(true, false);
}

static void test_the_same_where_rows_stand_for_other_workers(void)
{
    walk_all(true, true);
}

static void test_the_same_while_a_server_is_drained(void)
{
    changes = DRAINS;
    walk_all(false, false);
    walk_all(true, false);
    changes = STAYS;
}

static void test_the_same_while_a_server_is_added(void)
{
    changes = ADDS;
    walk_all(false, false);
    walk_all(true, false);
    changes = STAYS;
}

SUITE("sched.coordinator_walk", T(test_no_order_of_events_and_no_crash_leaves_the_job_waiting),
      T(test_the_same_where_rows_stand_and_workers_go_back),
      T(test_the_same_where_rows_stand_for_other_workers),
      T(test_the_same_while_a_server_is_drained), T(test_the_same_while_a_server_is_added))

/* A walk over what can happen to a job: 2 servers, 2 workers, a crash of any process at any point,
 * and every order in which their messages can arrive. In no state does something wait for ever, and
 * no promise breaks:
 *
 * - the job ends, and ends well (a crash is recovered from);
 * - it ends well only with the last step's snapshot committed, after rank 0 said that it finished;
 *   asked to stop, it ends with a snapshot of the last step that was done;
 * - the worker ranks only ever step together, with every server ready, in one life of the job, with
 *   servers that they can find by the map they have, that hold the buckets which the workers think
 *   they hold, and rows of exactly their own step: none is missing, none counts twice;
 * - a member of an earlier life is never taken for one of this;
 * - a life begins at a snapshot that was committed, and goes back no further than it must: not at
 *   all when the dead was a server whose rows are on its disk, or the scheduler, however it died;
 * - whom the job lets go on is a process that lives;
 * - no queue grows without bound.
 *
 * Kinds of job: rows that must go back (durability snapshot), rows that stand while workers go back
 * (log, staleness 0), rows that stand for other workers as well (log, staleness > 0); each also
 * while somebody asks it to stop; the first two also while a server is drained, and while one is
 * added: what is promised of that is in coordinator_world_moves.h.
 *
 * The world around the coordinator is modelled (coordinator_world.h): members as small state
 * machines with a queue in each direction, rows on the servers' disks, a supervisor that notices
 * ends, asks for a plan and starts whom it names, messages of the dead that arrive late, a disk
 * that commits at once or later. Three ways through it:
 *
 * - The walk: depth first over which event comes next. A state is known by a hash of everything
 *   that can matter, deadlines included, and is entered once. Time passes only when nothing else
 *   can happen. After the crash an event that commutes with all others is taken first and alone.
 * - Some random orders, and in each of them every crash at every point; what follows comes in order
 *   or at random.
 * - Random orders with up to three crashes in which time passes at any moment, so that whoever is
 *   slow may be taken for dead.
 *
 * The normal run walks the first kind of job to the end of it (345 thousand states), begins the
 * walks of the others, and takes a few orders of each. coordinator_walk_whole (label slow) takes
 * more of both (SLUICE_WALK_STATES, SLUICE_WALK_ORDERS): it ends the walks of all three kinds while
 * the shape stays (345, 847 and 960 thousand states), and of the others sees five million states
 * each at most. "bounded" is printed where a walk is not whole. What goes wrong is printed as its
 * choices, and told event by event.
 *
 * How strong this is was tried by 40 faults planted in the coordinator, one at a time (an order not
 * given again, a version not raised, a state not stored or stored too late, a deadline left out, a
 * dead server counted as ready, a check of C1, C2, C6, C7 or S1 left out): the walk found 26, the
 * scripted tests beside it (test_coordinator*.c, test_shape.c) 12 of the others. The two that are
 * left mend themselves: the end of a change of shape not stored, at the change's next deadline; a
 * new life not stored before anybody is welcomed to it, by one recovery more.
 */
#include "tests/sched/coordinator_world_events.h"
#include "tests/sched/coordinator_world_hash.h"

enum {
    TIME_PASSES = 255,
    CRASHES = 128,     /* a choice from here on: a crash */
    MAX_EVENTS = 5000, /* of one order of events, ended in order */
    MOST_STATES = 1000000,
};

static uint64_t n_states, n_calm /* of them before anything died */, n_events, n_ends, n_recovered;
static uint8_t path[MAX_EVENTS];

/* ---- one world ---- */

/* Carries a choice out; false when it is none. */
static bool choose(struct world *w, uint8_t choice)
{
    bool is_void = false;
    n_events++;
    if (choice == TIME_PASSES)
        pass_time(w);
    else if (choice >= CRASHES)
        crash(w, choice - CRASHES, &is_void);
    else
        happen(w, choice);
    return !is_void;
}

/* NULL, or what is wrong in this state, whatever follows. */
static const char *wrong_state(const struct world *w)
{
    if (w->broken)
        return w->broken;
    for (int i = 0; i < 2; i++)
        if (w->c->phase == SCHD_RUNNING && state_of(w, i) != SCHD_READY &&
            state_of(w, i) != SCHD_DRAINED)
            return "the job runs without one of its servers";
    if (w->now - w->idle_since > STUCK_MS && !w->ended)
        return "something waits for ever";
    return NULL;
}

/* NULL, or what is wrong with the end of a job. */
static const char *wrong_end(struct world *w)
{
    bool stopped = w->end_status == CLU_E_INTERRUPTED && changes == STOPS && w->asked;
    bool calm = !w->hurried && (w->n_crashes == 0 || (w->sched_crashed && w->n_crashes == 1));
    if (w->end_status != CLU_OK && !stopped)
        return "the job ended badly";
    if (calm && w->c->life.generation > 1 && !stopped)
        return "the job went back though nobody died, or its scheduler alone";
    if (calm && stopped && w->asked_complete && w->n_recoveries == 0 &&
        w->committed != w->p[2].step)
        return "the job stopped without a snapshot of its last step";
    if (stopped)
        return NULL;
    if (!w->finished_said)
        return "the job ended well before rank 0 said that it finished";
    if (w->committed != N_STEPS)
        return "the job ended well without its last snapshot";
    return wrong_shape(w);
}

/* NULL, or what is wrong with a state or an end; an end is counted. */
static const char *wrong(struct world *w)
{
    const char *what = wrong_state(w);
    if (!what && w->ended) {
        n_ends++;
        n_recovered += w->n_recoveries > 0;
        what = wrong_end(w);
    }
    return what;
}

/* From here on nothing dies. Events come in order, first come first served, or at random; time
 * passes when there are none. NULL when the job ends, and ends well. Choices go to the path from
 * *depth_p on. */
static const char *finish(struct world *w, uint64_t *random, int *depth_p)
{
    while (*depth_p < MAX_EVENTS) {
        const char *what = wrong(w);
        if (what || w->ended)
            return what;
        int n = happen(w, -1);
        uint8_t choice = n == 0   ? TIME_PASSES
                         : random ? (uint8_t)(suite_random(random) % (uint64_t)n)
                                  : 0;
        path[(*depth_p)++] = choice;
        choose(w, choice);
    }
    return "the job goes on for ever";
}

static void print_wrong(const char *what, int depth, int max_crashes)
{
    struct world *w = malloc(sizeof(*w));
    CU_ASSERT_PTR_NOT_NULL_FATAL(w);
    printf("  %s; choices:", what);
    for (int i = 0; i < depth; i++)
        printf(" %d", path[i]);
    puts("\n  once more:");
    open_world(w);
    w->max_crashes = max_crashes;
    traced = true;
    for (int i = 0; i < depth; i++)
        choose(w, path[i]);
    traced = false;
    printf("  phase %s, change %s, members:", schd_phase_name(w->c->phase),
           schd_change_name(w->c->change));
    for (int i = 0; i < N; i++)
        printf(" %d/%s", w->p[i].life, schd_member_state_name(state_of(w, i)));
    putchar('\n');
    close_world(w);
    free(w);
}

/* ---- the walk ---- */

static uint64_t *seen, n_slots; /* hashes of the states entered; 0: free */

static void grow_seen(void)
{
    uint64_t *old = seen, n_old = n_slots;
    n_slots = n_old ? 2 * n_old : 1 << 16;
    seen = calloc(n_slots, sizeof(*seen));
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen);
    for (uint64_t i = 0; i < n_old; i++) {
        uint64_t slot = old[i] & (n_slots - 1);
        while (old[i] && seen[slot])
            slot = (slot + 1) & (n_slots - 1);
        if (old[i])
            seen[slot] = old[i];
    }
    free(old);
}

static bool enter(const struct world *w)
{
    uint64_t hash = hash_world(w);
    if (2 * n_states >= n_slots)
        grow_seen();
    uint64_t slot = hash & (n_slots - 1);
    while (seen[slot] && seen[slot] != hash)
        slot = (slot + 1) & (n_slots - 1);
    if (seen[slot] == hash)
        return false;
    seen[slot] = hash;
    n_states++;
    n_calm += w->n_crashes == 0;
    return true;
}

struct place {
    struct world w;
    int n, n_crashes, next; /* events that can happen here, and the next to be tried */
    int only;               /* the one that does instead of all; -1: none */
};

static void arrive(struct place *place)
{
    bool is_void;
    place->n = happen(&place->w, -1);
    place->n_crashes = crash(&place->w, -1, &is_void);
    place->only = private_event(&place->w);
    place->next = 0;
}

/* The next choice here; false when all have been tried. */
static bool next_choice(struct place *place, uint8_t *choice_p)
{
    int n = place->n ? place->n : 1, at = place->next++;
    if (place->w.ended || at >= (place->only >= 0 ? 1 : n + place->n_crashes))
        return false;
    if (place->only >= 0)
        at = place->only;
    *choice_p = at >= n ? (uint8_t)(CRASHES + at - n) : place->n ? (uint8_t)at : TIME_PASSES;
    return true;
}

/* Depth first over every event that can come next. A state is entered once. NULL, or what went
 * wrong at path[0, *depth_p). Beyond max_states none is entered: the newest is ended in order. */
static const char *walk(uint64_t max_states, int *depth_p)
{
    static struct place *places[MAX_DEPTH]; /* kept: a walk comes back to each depth */
    const char *what = NULL;
    int depth = 0;
    if (!places[0])
        places[0] = malloc(sizeof(*places[0]));
    CU_ASSERT_PTR_NOT_NULL_FATAL(places[0]);
    open_world(&places[0]->w);
    enter(&places[0]->w);
    arrive(places[0]);
    while (depth >= 0 && !what) {
        if (!next_choice(places[depth], &path[depth])) {
            close_world(&places[depth--]->w);
            continue;
        }
        if (!places[depth + 1])
            places[depth + 1] = malloc(sizeof(*places[0]));
        struct place *to = places[depth + 1];
        CU_ASSERT_PTR_NOT_NULL_FATAL(to);
        copy_world(&to->w, &places[depth]->w);
        *depth_p = depth + 1;
        bool fresh = choose(&to->w, path[depth]) && (to->w.broken || enter(&to->w));
        if (fresh)
            what = wrong(&to->w);
        if (fresh && !what && n_states >= max_states)
            what = finish(&to->w, NULL, depth_p);
        else if (fresh && !what && depth + 2 == MAX_DEPTH)
            what = "the job goes on for ever";
        else if (fresh && !what) {
            arrive(places[++depth]);
            continue;
        }
        close_world(&to->w);
        if (n_states >= max_states)
            break;
    }
    for (; depth >= 0; depth--)
        close_world(&places[depth]->w);
    return what;
}

/* ---- random orders ---- */

/* Every crash at every point of one random order of events; what follows each comes in order, or at
 * random. */
static const char *crash_everywhere(uint64_t *random, int *depth_p)
{
    static struct world w, other;
    const char *what = NULL;
    bool is_void;
    int depth = 0;
    open_world(&w);
    while (!what && !w.ended && depth < MAX_DEPTH) {
        int n = happen(&w, -1), n_crashes = crash(&w, -1, &is_void);
        for (int i = 0; i < n_crashes && !what; i++) {
            copy_world(&other, &w);
            path[depth] = (uint8_t)(CRASHES + i);
            *depth_p = depth + 1;
            if (choose(&other, path[depth]))
                what = finish(&other, i % 2 ? random : NULL, depth_p);
            n_states += !what;
            close_world(&other);
        }
        if (what)
            break;
        path[depth] = n ? (uint8_t)(suite_random(random) % (uint64_t)n) : TIME_PASSES;
        choose(&w, path[depth]);
        *depth_p = ++depth;
        what = wrong(&w);
    }
    close_world(&w);
    return what;
}

/* One random order of events with several crashes, in which time passes at any moment; then on in
 * order to the end. */
static const char *stroll(uint64_t *random, int max_crashes, int *depth_p)
{
    static struct world w;
    const char *what = NULL;
    bool is_void;
    int depth = 0, n_passed = 0, until = (int)(suite_random(random) % 160);
    open_world(&w);
    w.max_crashes = max_crashes;
    while (!what && !w.ended && depth < until) {
        int n = happen(&w, -1), n_crashes = crash(&w, -1, &is_void);
        if (n_crashes && suite_random(random) % 24 == 0)
            path[depth] = (uint8_t)(CRASHES + (int)(suite_random(random) % (uint64_t)n_crashes));
        else if (n && (n_passed > 20 || suite_random(random) % 40))
            path[depth] = (uint8_t)(suite_random(random) % (uint64_t)n);
        else {
            path[depth] = TIME_PASSES;
            n_passed++;
        }
        choose(&w, path[depth++]);
        what = wrong_state(&w);
    }
    *depth_p = depth;
    if (!what)
        what = finish(&w, NULL, depth_p);
    n_states++;
    close_world(&w);
    return what;
}

/* ---- the tests ---- */

/* A sanitizer makes a walk some twenty times slower: there one kind of job has to do. */
static bool is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void judge(const char *what, int depth, int max_crashes, const char *of)
{
    if (what)
        print_wrong(what, depth, max_crashes);
    CU_ASSERT_PTR_NULL(what);
    printf("  %s: %llu states (%llu before a crash), %llu events, %llu ends, %llu recovered\n", of,
           (unsigned long long)n_states, (unsigned long long)n_calm, (unsigned long long)n_events,
           (unsigned long long)n_ends, (unsigned long long)n_recovered);
    CU_ASSERT(what || n_ends > 0);
    n_states = n_calm = n_events = n_ends = n_recovered = 0;
}

static void walk_all(bool servers_stand, bool workers_stand)
{
    uint64_t random = suite_seed(), n_orders = setting("SLUICE_WALK_ORDERS", 10);
    const char *what = NULL;
    int depth = 0;
    if (is_sanitized() && (servers_stand || workers_stand || changes != STAYS))
        return;
    shape.servers_stand = servers_stand;
    shape.workers_stand = workers_stand;
    bool whole = changes == STAYS && !servers_stand;
    uint64_t max_states = setting("SLUICE_WALK_STATES", whole ? MOST_STATES : 2000);
    what = walk(max_states, &depth);
    judge(what, depth, 1, n_states < max_states ? "the whole walk" : "the walk, bounded");
    free(seen);
    seen = NULL;
    n_slots = 0;
    if (n_orders == 0)
        return;
    for (uint64_t i = 0; i < n_orders && !what; i++)
        what = crash_everywhere(&random, &depth);
    judge(what, depth, 1, "a crash at every point of some orders");
    int most = 0;
    what = NULL;
    for (uint64_t i = 0; i < 50 * n_orders && !what; i++) {
        most = 1 + (int)(suite_random(&random) % 3);
        what = stroll(&random, most, &depth);
    }
    judge(what, depth, most, "several crashes at random");
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

static void test_the_same_while_somebody_asks_the_job_to_stop(void)
{
    changes = STOPS;
    walk_all(false, false);
    walk_all(true, false);
    walk_all(true, true);
    changes = STAYS;
}

SUITE("sched.coordinator_walk", T(test_no_order_of_events_and_no_crash_leaves_the_job_waiting),
      T(test_the_same_where_rows_stand_and_workers_go_back),
      T(test_the_same_where_rows_stand_for_other_workers),
      T(test_the_same_while_a_server_is_drained), T(test_the_same_while_a_server_is_added),
      T(test_the_same_while_somebody_asks_the_job_to_stop))

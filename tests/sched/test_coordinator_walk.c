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
 * while somebody asks it to stop, while a server is drained, and while one is added: what is
 * promised of that is in coordinator_world_moves.h.
 *
 * The world around the coordinator is modelled (coordinator_world.h): members as small state
 * machines with a queue in each direction, rows on the servers' disks, a supervisor that notices
 * ends, asks for a plan and starts whom it names, messages of the dead that arrive late, a disk
 * that commits at once or later. Three ways through it:
 *
 * - The walk: depth first over which event comes next, once for each who may die. A state is
 *   entered once; it is known by a hash of everything that can matter, in names that do not tell
 *   what nobody can (coordinator_world_hash.h says which, and why that is the same). An event of
 *   which nobody can tell whether it has happened yet is taken first and alone
 *   (coordinator_world_commute.h says which, and why no order is lost by it). Where there is but
 *   one way to go, the states on it are looked at and not kept. Time passes only when nothing else
 *   can happen; a state that comes again on the way from itself is one in which something waits for
 *   ever, though there are beats.
 * - Some random orders, and in each of them every crash at every point; what follows comes in order
 *   or at random.
 * - Random orders with up to three crashes in which time passes at any moment, so that whoever is
 *   slow may be taken for dead.
 *
 * Both reductions are tried as well: what can be told of a job in all the states of a walk is the
 * same where no order is left out; and of states with one hash, some are asked whether the same can
 * come next. (The first found that an event may not come before the crash of its member, or of the
 * scheduler: 42 of 3951 views were missing.)
 *
 * The normal run ends the walks of the three kinds while the shape stays, and of the first two that
 * are asked to stop; it begins the others. coordinator_walk_whole (label slow) goes on with them,
 * up to 100 million states each, and takes more orders (SLUICE_WALK_STATES, SLUICE_WALK_ORDERS).
 * "bounded" is printed where a walk is not whole. What goes wrong is printed as its choices, and
 * told event by event.
 *
 * How strong this is was tried by 40 faults planted in the coordinator, one at a time (an order not
 * given again, a version not raised, a state not stored or stored too late, a deadline left out, a
 * dead server counted as ready, a check of C1, C2, C6, C7 or S1 left out): the walk found 26, the
 * scripted tests beside it (test_coordinator*.c, test_shape.c) 12 of the others. The two that are
 * left mend themselves: the end of a change of shape not stored, at the change's next deadline; a
 * new life not stored before anybody is welcomed to it, by one recovery more.
 */
#include "tests/sched/coordinator_world_commute.h"
#include "tests/sched/coordinator_world_order.h"
#include "tests/sched/coordinator_world_seen.h"

enum { SOME_STATES = 12000, MOST_STATES = 4000000 };

/* ---- the walk ---- */

static struct seen entered;                          /* the states of a walk */
static struct seen futures = {.with_numbers = true}; /* of some: what can come of them */
static struct seen views;                            /* what can be told of all, where asked for */
static bool all_orders, compares_futures, keeps_views;
static int only_mortal = ANYBODY; /* the others do not die */

static bool enter(const struct world *w, uint64_t hash)
{
    if (!seen_add(&entered, hash))
        return false;
    n_states++;
    n_calm += w->n_crashes == 0;
    return true;
}

struct place {
    struct world w;
    int n, n_crashes, next; /* events that can happen here, and the next to be tried */
    int only;               /* the one that does instead of all; -1: none */
    int depth;              /* choices that led here */
    uint64_t hash;
};

static void arrive(struct place *place)
{
    bool is_void;
    place->n = happen(&place->w, -1);
    place->n_crashes = crash(&place->w, -1, &is_void);
    place->only = all_orders ? -1 : private_event(&place->w);
    place->next = 0;
}

/* The next choice here; false when all have been tried. */
static bool next_choice(struct place *place, uint8_t *choice_p)
{
    int n = place->n ? place->n : 1, at = place->next++;
    if (place->w.ended || at >= (place->only >= 0 ? 1 : n + place->n_crashes))
        return false;
    *choice_p = place->only >= 0 ? (uint8_t)place->only
                : at >= n        ? (uint8_t)(CRASHES + at - n)
                : place->n       ? (uint8_t)at
                                 : TIME_PASSES;
    return true;
}

/* Goes on from a place while there is but one way to go: nobody else needs to have been there.
 * NULL, or what went wrong on it. */
static const char *go_on(struct place *place)
{
    for (;;) {
        const char *what = wrong(&place->w);
        if (keeps_views)
            seen_add(&views, view_of(&place->w));
        if (what || place->w.ended)
            return what;
        arrive(place);
        if (place->only < 0 && (place->n > 1 || place->n_crashes))
            return NULL;
        if (place->depth == MAX_EVENTS)
            return "the job goes on for ever";
        next_choice(place, &path[place->depth]);
        choose(&place->w, path[place->depth++]);
    }
}

static struct place *place_at(int i)
{
    static struct place *places[MAX_DEPTH]; /* kept: a walk comes back to each depth */
    if (i < MAX_DEPTH && !places[i])
        places[i] = malloc(sizeof(*places[i]));
    CU_ASSERT_FATAL(i < MAX_DEPTH && places[i]);
    return places[i];
}

/* Two states of one hash are one, so what can come next is the same. Asked of one in 16. */
static bool is_one_future(struct place *place, uint64_t hash)
{
    static struct world other;
    uint64_t number = 0, n_before = n_events;
    uint8_t choice;
    if (!compares_futures || hash >> 60)
        return true;
    while (next_choice(place, &choice)) {
        copy_world(&other, &place->w);
        bool is_one = choose(&other, choice);
        number = clu_mix(number ^ (is_one && !other.broken ? hash_world(&other) : is_one));
        close_world(&other);
    }
    place->next = 0;
    n_events = n_before;
    return seen_agrees(&futures, hash, number);
}

/* Whether a state is one of those on the way to it. Then the job may come to it again and again:
 * something waits for ever, though there are beats. */
static bool comes_again(uint64_t hash, int at)
{
    while (at >= 0 && place_at(at)->hash != hash)
        at--;
    return at >= 0;
}

/* Depth first over every event that can come next where only one may die. A state is entered once.
 * NULL, or what went wrong at path[0, *depth_p). After max_states the newest is ended in order. */
static const char *walk_one(uint64_t max_states, int *depth_p)
{
    const char *what = NULL;
    int at = 0;
    open_world(&place_at(0)->w);
    place_at(0)->depth = 0;
    place_at(0)->hash = hash_world(&place_at(0)->w);
    if (n_states < max_states)
        enter(&place_at(0)->w, place_at(0)->hash);
    arrive(place_at(0));
    while (at >= 0 && !what && n_states < max_states) {
        if (at + 1 == MAX_DEPTH) {
            what = "the job goes on for ever";
            break;
        }
        struct place *from = place_at(at), *to = place_at(at + 1);
        if (!next_choice(from, &path[from->depth])) {
            close_world(&from->w);
            at--;
            continue;
        }
        copy_world(&to->w, &from->w);
        to->depth = from->depth + 1;
        bool is_one = choose(&to->w, path[from->depth]), is_fresh = false;
        what = is_one ? go_on(to) : NULL;
        *depth_p = to->depth;
        if (is_one && !what && !to->w.ended) {
            to->hash = hash_world(&to->w);
            is_fresh = enter(&to->w, to->hash);
            if (!is_fresh && comes_again(to->hash, at))
                what = "the job comes to the same again and again";
            else if (!is_one_future(to, to->hash))
                what = "two states of one hash are not one";
        }
        if (is_fresh && !what)
            at++;
        else
            close_world(&to->w);
    }
    if (at >= 0 && !what)
        what = finish(&place_at(at)->w, NULL, depth_p);
    for (; at >= 0; at--)
        close_world(&place_at(at)->w);
    return what;
}

/* The same for everybody who may die, one after the other: each may enter as many states as are
 * left of his share and those before. *whole_p: nothing was left out. */
static const char *walk(uint64_t max_states, int *depth_p, bool *whole_p)
{
    const char *what = NULL;
    *whole_p = true;
    for (int who = 0; who < ANYBODY && !what; who++) {
        uint64_t until = max_states / ANYBODY * (uint64_t)(who + 1);
        if ((who == ADDED && changes != ADDS) || (only_mortal < ANYBODY && only_mortal != who))
            continue;
        mortal = who; /* (kept for who tells what went wrong) */
        what = walk_one(until, depth_p);
        *whole_p &= !what && n_states < until;
    }
    seen_clear(&entered);
    seen_clear(&futures);
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

enum kind { GOES_BACK, ROWS_STAND, ALL_STAND, N_KINDS };

static void make_kind(enum kind kind)
{
    static const char *const names[] = {"all goes back", "rows stand and workers go back",
                                        "rows stand for other workers"};
    shape.servers_stand = kind >= ROWS_STAND;
    shape.workers_stand = kind == ALL_STAND;
    printf("  %s:\n", names[kind]);
}

static void walk_kind(enum kind kind, uint64_t most_states)
{
    uint64_t random = suite_seed(), n_orders = setting("SLUICE_WALK_ORDERS", 10);
    const char *what = NULL;
    bool whole;
    int depth = 0, most = 0;
    if (is_sanitized() && (kind != GOES_BACK || changes != STAYS))
        return;
    make_kind(kind);
    what = walk(setting("SLUICE_WALK_STATES", most_states), &depth, &whole);
    judge(what, depth, 1, whole ? "the whole walk" : "the walk, bounded");
    mortal = ANYBODY;
    if (n_orders == 0)
        return;
    what = NULL;
    for (uint64_t i = 0; i < n_orders && !what; i++)
        what = crash_everywhere(&random, &depth);
    judge(what, depth, 1, "a crash at every point of some orders");
    what = NULL;
    for (uint64_t i = 0; i < 50 * n_orders && !what; i++) {
        most = 1 + (int)(suite_random(&random) % 3);
        what = stroll(&random, most, &depth);
    }
    judge(what, depth, most, "several crashes at random");
}

static void test_no_order_of_events_and_no_crash_leaves_the_job_waiting(void)
{
    walk_kind(GOES_BACK, MOST_STATES);
    walk_kind(ROWS_STAND, MOST_STATES);
    walk_kind(ALL_STAND, MOST_STATES);
}

static void test_the_same_while_somebody_asks_the_job_to_stop(void)
{
    changes = STOPS;
    walk_kind(GOES_BACK, MOST_STATES);
    walk_kind(ROWS_STAND, MOST_STATES);
    walk_kind(ALL_STAND, SOME_STATES);
    changes = STAYS;
}

static void test_the_same_while_a_server_is_drained(void)
{
    changes = DRAINS;
    walk_kind(GOES_BACK, SOME_STATES);
    walk_kind(ROWS_STAND, SOME_STATES);
    walk_kind(ALL_STAND, SOME_STATES);
    changes = STAYS;
}

static void test_the_same_while_a_server_is_added(void)
{
    changes = ADDS;
    walk_kind(GOES_BACK, SOME_STATES);
    walk_kind(ROWS_STAND, SOME_STATES);
    walk_kind(ALL_STAND, SOME_STATES);
    changes = STAYS;
}

/* What the walk sees of a job, and what it would see without leaving any order out. */
static void compare_views(int who, uint64_t max_states)
{
    int depth = 0;
    bool whole, all_whole;
    keeps_views = true;
    only_mortal = who;
    make_kind(GOES_BACK);
    const char *what = walk(max_states, &depth, &whole);
    judge(what, depth, 1, "orders that differ");
    struct seen few = views;
    views = (struct seen){0};
    all_orders = true;
    what = walk(max_states, &depth, &all_whole);
    judge(what, depth, 1, "all orders");
    mortal = ANYBODY;
    only_mortal = ANYBODY;
    all_orders = keeps_views = false;
    printf("  %llu views of them, and %llu\n", (unsigned long long)few.n,
           (unsigned long long)views.n);
    CU_ASSERT(whole && all_whole && few.n > 100);
    CU_ASSERT_EQUAL(seen_n_missing(&views, &few), 0);
    CU_ASSERT_EQUAL(seen_n_missing(&few, &views), 0);
    seen_clear(&few);
    seen_clear(&views);
}

static void test_an_order_left_out_shows_nothing_else(void)
{
    bool at_length = setting("SLUICE_WALK_STATES", 0) > MOST_STATES;
    if (is_sanitized())
        return;
    n_steps = at_length ? 2 : 1;
    compare_views(at_length ? ANYBODY : 1, setting("SLUICE_WALK_STATES", MOST_STATES));
    if (at_length) {
        changes = STOPS;
        compare_views(ANYBODY, setting("SLUICE_WALK_STATES", MOST_STATES));
        changes = STAYS;
    }
    n_steps = 2;
}

/* The hash leaves nothing out that matters: whatever can follow is the same. */
static void test_states_of_one_hash_have_one_future(void)
{
    uint64_t max_states = setting("SLUICE_WALK_STATES", 0) / 50 + SOME_STATES;
    int depth = 0;
    bool whole;
    if (is_sanitized())
        return;
    all_orders = compares_futures = true;
    for (changes = STAYS; changes <= STOPS; changes++)
        for (enum kind kind = GOES_BACK; kind < N_KINDS; kind++) {
            make_kind(kind);
            const char *what = walk(max_states, &depth, &whole);
            judge(what, depth, 1, "futures compared");
        }
    changes = STAYS;
    mortal = ANYBODY;
    all_orders = compares_futures = false;
}

SUITE("sched.coordinator_walk", T(test_no_order_of_events_and_no_crash_leaves_the_job_waiting),
      T(test_the_same_while_somebody_asks_the_job_to_stop),
      T(test_the_same_while_a_server_is_drained), T(test_the_same_while_a_server_is_added),
      T(test_an_order_left_out_shows_nothing_else), T(test_states_of_one_hash_have_one_future))

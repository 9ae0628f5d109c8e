/* One order of events of the world that test_coordinator_walk.c walks: its choices, what is wrong
 * in a state or with an end, an order's last part, and an order that went wrong told once more.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_ORDER_H
#define TESTS_SCHED_COORDINATOR_WORLD_ORDER_H

#include "tests/sched/coordinator_world_events.h"

enum {
    TIME_PASSES = 255,
    CRASHES = 128,     /* a choice from here on: a crash */
    MAX_EVENTS = 5000, /* of one order of events, ended in order */
};

static uint64_t n_states, n_calm /* of them before anything died */, n_events, n_ends, n_recovered;
static uint8_t path[MAX_EVENTS];

/* ---- one world ---- */

/* Carries a choice out; false when it is none. */
static inline bool choose(struct world *w, uint8_t choice)
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
static inline const char *wrong_state(const struct world *w)
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
static inline const char *wrong_end(struct world *w)
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
    if (w->committed != n_steps)
        return "the job ended well without its last snapshot";
    return wrong_shape(w);
}

/* NULL, or what is wrong with a state or an end; an end is counted. */
static inline const char *wrong(struct world *w)
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
static inline const char *finish(struct world *w, uint64_t *random, int *depth_p)
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

static inline void print_wrong(const char *what, int depth, int max_crashes)
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
    mortal = ANYBODY;
}

#endif

/* Every event of the world that test_coordinator_walk.c walks, by its number: what goes on by
 * itself (happen), what dies (crash), and time, which passes only when nothing else can happen (or,
 * in random orders, at any moment).
 *
 * What can die: a member, seen by the supervisor some time later, its last words heard before or
 * after that; a member that falls silent and that nobody sees end; a server and its disk; the
 * scheduler between two events, or within one, just before it stores its state: what it sent until
 * then may arrive, or not.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_EVENTS_H
#define TESTS_SCHED_COORDINATOR_WORLD_EVENTS_H

#include "tests/sched/coordinator_world_members.h"

/* ---- the supervisor (sched/supervise.c) ---- */

/* As an exit code tells it: LOST shares one with others. */
static inline int end_of(const struct process *p)
{
    if (p->life != GONE)
        return CLU_E_LOST;
    return p->leave_status == CLU_E_LOST ? CLU_E_UNAVAILABLE : p->leave_status;
}

static inline void tell_gone(struct world *w, int i, int status, const char *how)
{
    w->unseen[i] = false;
    TRACE("  the supervisor tells that %d %s\n", i, how);
    schd_coordinator_gone(w->c, w->now, role_of(i), rank_of(i), status, how);
    carry_out(w);
}

/* It sees that a process has ended (on_end). */
static inline void notice(struct world *w, int i)
{
    int status = end_of(&w->p[i]);
    bool server = role_of(i) == CLU_ROLE_PS;
    bool joining = i == ADDED && w->c->change == SCHD_CHANGE_JOINING;
    bool over = w->ended || w->c->phase == SCHD_STOPPING || w->c->phase == SCHD_ENDED;
    w->unseen[i] = false;
    if (w->released[i] || status == CLU_E_INTERRUPTED || (server && status == CLU_OK && over))
        return;
    if (!server && !has_ended(&w->p[5 - i])) { /* mpirun ends the other rank as well */
        w->p[5 - i].life = CRASHED;
        w->p[5 - i].n_down = 0;
    }
    tell_gone(w, i, status ? status : CLU_E_LOST, "has ended");
    if (!joining && (server || !w->planned))
        w->need_recovery = !w->ended;
}

/* A plan goes back no further than what is known when it is made first demands. */
static inline void check_plan(struct world *w, enum schd_way way)
{
    bool lost_server = w->p[0].life == CRASHED || w->p[1].life == CRASHED;
    if (w->n_crashes == 1 && way >= SCHD_WAY_BACK && w->c->ran &&
        w->c->change != SCHD_CHANGE_MOVING && w->c->shape.servers_stand && lost_server &&
        !w->disk_lost && !w->c->must_go_back && schd_core_workers_stay(w->c))
        break_promise(w, "the job goes back for a server whose rows stand");
}

static inline void check_living(struct world *w)
{
    for (int i = 0; i < N; i++) {
        const struct member *c = member_of(w, i);
        if (!c || w->starts[i])
            continue;
        if (w->replaced[i] && schd_core_is_here(c))
            break_promise(w, "the job goes on with somebody whom its own plan has ended");
        if (w->p[i].life == CRASHED && !schd_core_is_here(c) /* (else it falls silent) */ &&
            c->state != SCHD_LEFT && c->state != SCHD_DRAINED &&
            !(role_of(i) == CLU_ROLE_PS && schd_core_is_needless(w->c, rank_of(i))) &&
            w->c->phase != SCHD_ENDED && !w->c->finished)
            break_promise(w, "the job goes on with a process that is no more");
    }
}

/* Has the scheduler decide, and ends whom it names; true when the plan is another than before. */
static inline bool plan(struct world *w)
{
    enum schd_way way = schd_coordinator_plan(w->c);
    bool differs = !w->planned || way != w->way;
    carry_out(w);
    if (w->is_cut)
        return true;
    if (!w->planned)
        check_plan(w, way);
    w->way = way;
    for (int i = 0; i < N; i++) {
        bool starts = member_of(w, i) && schd_coordinator_starts(w->c, way, role_of(i), rank_of(i));
        differs |= starts != w->starts[i];
        w->starts[i] = starts;
        if (starts && !has_ended(&w->p[i])) {
            w->p[i].life = CRASHED; /* what it said last may still be on the way */
            w->replaced[i] = true;
        }
        if (starts) {
            w->p[i].n_down = 0;
            w->unseen[i] = false; /* its end is ours */
        }
    }
    TRACE("  a plan: way %d, starts %d %d %d %d %d\n", way, w->starts[0], w->starts[1],
          w->starts[2], w->starts[3], w->starts[4]);
    w->planned = true;
    w->need_recovery = false;
    return differs;
}

static inline void commit(struct world *w)
{
    w->commit_due = false;
    w->committed = w->commit_step > w->committed ? w->commit_step : w->committed;
    TRACE("  a snapshot is whole\n");
    schd_coordinator_committed(w->c, w->now, w->commit_step, CLU_OK);
    carry_out(w);
}

/* Those named have ended: the job goes on, and they are started; unless the plan has changed. */
static inline void recover(struct world *w)
{
    TRACE("  a recovery\n");
    if (w->commit_due) /* one that is nearly whole is waited for */
        commit(w);
    if (w->is_cut || plan(w))
        return;
    check_living(w);
    schd_coordinator_recover(w->c, w->now, w->way, w->committed ? "snapshot" : "", w->committed);
    w->planned = false;
    carry_out(w);
    if (w->is_cut) {
        w->need_recovery = true; /* the supervisor had no answer: it asks the next one */
        return;
    }
    w->n_recoveries++;
    for (int i = 0; i < N; i++) {
        if (w->starts[i])
            start_process(w, i);
        else if (member_of(w, i) && state_of(w, i) == SCHD_ABSENT && w->c->phase != SCHD_STOPPING &&
                 w->c->phase != SCHD_ENDED)
            break_promise(w, "somebody is missing who was not to be started");
        w->starts[i] = false;
    }
}

/* ---- what goes on ---- */

/* The n-th of the events that can happen now is carried out; the number of those there are. */
static inline int happen(struct world *w, int n)
{
    int k = 0;
    if (w->ended || w->broken)
        return 0;
    for (int i = 0; i < N; i++) {
        struct process *p = &w->p[i];
        if (p->n_up > 0 && k++ == n)
            hear(w, i, pop(p->up, &p->n_up));
        if (p->n_down > 0 && k++ == n)
            receive(w, i);
        if (act(w, i, true) && k++ == n)
            act(w, i, false);
        if (w->unseen[i] && k++ == n)
            notice(w, i);
    }
    if (move(w, true) && k++ == n)
        move(w, false);
    if (ask(w, true) && k++ == n)
        ask(w, false);
    if (w->n_stale > 0 && k++ == n) {
        struct stale first = w->stale[0];
        memmove(w->stale, w->stale + 1, (size_t)--w->n_stale * sizeof(w->stale[0]));
        hear(w, first.who, first.note);
    }
    if (w->commit_due && k++ == n)
        commit(w);
    if (w->need_recovery && !w->planned && k++ == n)
        plan(w);
    if (w->planned && k++ == n)
        recover(w);
    if (n >= 0 && n < k)
        w->idle_since = w->now;
    return k;
}

/* Whether nobody but member i can tell when it receives this: what it changes is asked by nobody
 * else, and what it says waits at the end of its own queue. A server only (a worker may act of
 * itself meanwhile), and not where it begins or ends to serve. */
static inline bool is_private(const struct process *p, int i, const struct note *note)
{
    if (note->op == CLU_CONTROL_RECEIPT)
        return note->number > 0;
    if (role_of(i) != CLU_ROLE_PS)
        return note->op == CLU_CONTROL_WELCOME && p->life == JOINING && !p->was_in && !note->stand;
    return note->op == CLU_CONTROL_BEAT || note->op == CLU_CONTROL_WELCOME ||
           (note->op == CLU_CONTROL_REFUSE && note->status == CLU_E_AGAIN);
}

/* The number of an event that commutes with all others, so that no order is lost by taking it
 * first; -1: there is none. Only when nothing dies any more: a crash commutes with nothing. */
static inline int private_event(const struct world *w)
{
    int k = 0;
    for (int i = 0; i < N && w->n_crashes >= w->max_crashes; i++) {
        const struct process *p = &w->p[i];
        if (p->n_up > 0 && p->up[0].op == CLU_CONTROL_BEAT)
            return k;
        k += p->n_up > 0;
        if (p->n_down > 0 && is_private(p, i, &p->down[0]))
            return k;
        k += p->n_down > 0;
        if (p->life == FRESH)
            return k;
        k += act((struct world *)w, i, true);
        k += w->unseen[i];
    }
    return -1;
}

/* A second passes: members beat, or ask again; the coordinator looks at its deadlines. */
static inline void pass_time(struct world *w)
{
    w->hurried |= happen(w, -1) > 0;
    w->now += 1000;
    TRACE("  time passes\n");
    for (int i = 0; i < N; i++) {
        struct process *p = &w->p[i];
        if (p->life == JOINING || (p->rejoining && !has_ended(p)))
            say(w, i, (struct note){.op = CLU_CONTROL_JOIN});
        else if (p->life >= IN && p->life <= COMMITTING)
            say(w, i, (struct note){.op = CLU_CONTROL_BEAT, .number = p->last_order});
        else if (p->life == GONE && p->says_again)
            say(w, i, (struct note){.op = CLU_CONTROL_LEAVE, .status = p->leave_status});
        if (p->life == GONE)
            p->says_again = false;
    }
    schd_coordinator_tick(w->c, w->now);
    carry_out(w);
}

/* ---- what dies ---- */

enum crash { KILLED, STILL, WITH_DISK };

static inline void crash_member(struct world *w, int i, enum crash how)
{
    TRACE("  CRASH of %d, how %d\n", i, how);
    w->disk_lost |= how == WITH_DISK;
    if (how == WITH_DISK)
        w->rows[rank_of(i)] = w->rows_generation[rank_of(i)] = 0;
    w->p[i].life = CRASHED;
    w->p[i].n_down = 0;
    w->unseen[i] = how != STILL;
}

/* The scheduler has died and is started again from its store. What nobody has heard is lost. */
static inline void restart_scheduler(struct world *w, bool downs_arrive)
{
    struct schd_life life = {0};
    struct schd_action a;
    bool all_run = true;
    TRACE("  CRASH of the scheduler\n");
    w->sched_crashed = w->p[2].step < N_STEPS; /* later the last words may be lost with it */
    schd_coordinator_free(w->c);
    w->c = schd_coordinator_create(&shape, &life, w->now);
    while (schd_coordinator_next(w->c, &a)) /* its own first SAVE is not carried out */
        schd_action_fini(&a);
    if (schd_coordinator_load(w->c, w->now, w->stored, w->stored_bytes))
        break_promise(w, "the stored state cannot be loaded");
    w->commit_due = w->planned = w->cuts = w->is_cut = false;
    for (int i = 0; i < N; i++) {
        w->p[i].n_up = 0;
        if (!downs_arrive)
            w->p[i].n_down = 0;
    }
    w->n_stale = 0;
    carry_out(w);
    for (int i = 0; i < 2; i++) /* mpirun runs while one of its ranks does */
        all_run &= w->released[i] || !has_ended(&w->p[i]);
    all_run &= w->released[ADDED] || !w->p[ADDED].pid || !has_ended(&w->p[ADDED]);
    all_run &= w->p[2].life != CRASHED && w->p[3].life != CRASHED &&
               !(has_ended(&w->p[2]) && has_ended(&w->p[3]));
    for (int i = 0; i < N && !all_run; i++) /* tell_ends: what it cannot have seen */
        if (w->p[i].pid && has_ended(&w->p[i]) && i != 3 && !w->ended)
            tell_gone(w, i, end_of(&w->p[i]) ? end_of(&w->p[i]) : CLU_E_LOST, "has ended");
    w->need_recovery = !w->ended && (!all_run || w->c->phase == SCHD_BROKEN);
}

/* While it deals with one more event; false when it stores nothing then. */
static inline bool crash_within(struct world *w, int of, bool downs_arrive)
{
    w->cuts = true;
    if (of < N)
        hear(w, of, pop(w->p[of].up, &w->p[of].n_up));
    else if (of == N)
        commit(w);
    else
        recover(w);
    w->cuts = false;
    if (!w->is_cut)
        return false;
    restart_scheduler(w, downs_arrive);
    return true;
}

/* The n-th of the crashes that are possible now; their number. *void_p: it would be another one. */
static inline int crash(struct world *w, int n, bool *void_p)
{
    int k = 0;
    if (w->ended || w->broken || w->n_crashes >= w->max_crashes)
        return 0;
    for (int i = 0; i < N; i++) {
        int kinds = i < 2 && w->c->shape.servers_stand ? 3 : 2;
        for (int how = 0; how < kinds && !has_ended(&w->p[i]); how++)
            if (k++ == n)
                crash_member(w, i, (enum crash)how);
    }
    for (int arrive = 0; arrive < 2; arrive++)
        if (k++ == n)
            restart_scheduler(w, arrive);
    for (int of = 0; of < N + 2; of++) {
        bool can = of < N ? w->p[of].n_up > 0 : of == N ? w->commit_due : w->planned;
        for (int arrive = 0; arrive < 2 && can; arrive++)
            if (k++ == n)
                *void_p = !crash_within(w, of, arrive);
    }
    if (n >= 0 && n < k) {
        w->n_crashes++;
        w->idle_since = w->now;
    }
    return k;
}

#endif

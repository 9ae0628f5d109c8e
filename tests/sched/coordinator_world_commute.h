/* Which event may come first, and alone, for test_coordinator_walk.c: one of which nobody can tell
 * whether it has happened yet. What every order of events can bring about, the orders in which such
 * an event comes at once bring about as well, for
 *
 * - it happens whatever the others do: it is the next that its member does, or hears, or the next
 *   that the scheduler hears of it;
 * - it commutes with all that can come before it: it changes what only its own member asks (or, of
 *   a beat, the scheduler only when time has passed, which it does when nothing is left to happen),
 *   what it says waits at the end of its member's queue, and it makes nothing impossible;
 * - none of the promises looks at what it changes.
 *
 * With the crash of its member it does not commute, nor with that of the scheduler, who forgets and
 * loses what is on the way. So there is a walk for each who may die (mortal), in which nothing of
 * his, and nothing at all where it is the scheduler, comes first before he has died. The supervisor
 * may end a member, too. That leaves the same before the event as after it: what it changed is
 * forgotten with the process; a server that is about to be welcomed is part of the job, so no plan
 * names it; and of one that had not asked yet, what it would have asked is passed over while the
 * job is broken (C7).
 *
 * These are: a process asks to be let in; a member has a receipt; a server hears a map (it looks at
 * it when it is told to go back, with the newest one before that), a welcome, or that it has to ask
 * again; a worker its first welcome. Of beats: those of servers, of the dead, and of those who have
 * to join again. With which map another's beat is answered depends on when it is heard: a worker's
 * is not among them, but rank 0's where no other map can be made before (is_map_steady); nor is
 * that of a server which may be drained meanwhile.
 *
 * That nothing is lost is also tried: test_an_order_left_out_shows_nothing_else.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_COMMUTE_H
#define TESTS_SCHED_COORDINATOR_WORLD_COMMUTE_H

#include "tests/sched/coordinator_world_events.h"
#include "tests/sched/coordinator_world_hash.h"

/* A server that may be drained while it lives: what its beats are answered may be another thing. */
static inline bool may_be_drained(int i)
{
    return (changes == DRAINS && i == 1) || i == ADDED;
}

/* A member that trains or serves, and that the job counts on; nothing is on the way by which it
 * could end, or begin anew. */
static inline bool is_settled(const struct world *w, int i)
{
    const struct process *p = &w->p[i];
    const struct member *c = member_of(w, i);
    if (!c || c->state == SCHD_DRAINED)
        return !c || has_ended(p);
    if (has_ended(p) || !p->was_in || p->rejoining || !c->attached ||
        c->incarnation != p->incarnation || (c->state != SCHD_IN && c->state != SCHD_READY))
        return false;
    for (int j = 0; j < p->n_up; j++)
        if (p->up[j].op == CLU_CONTROL_JOIN || p->up[j].op == CLU_CONTROL_LEAVE)
            return false;
    for (int j = 0; j < p->n_down; j++)
        if (p->down[j].op == CLU_CONTROL_REFUSE || p->down[j].op == CLU_CONTROL_WELCOME ||
            (p->down[j].op == CLU_CONTROL_ORDER &&
             (p->down[j].order == CLU_ORDER_STOP || p->down[j].order == CLU_ORDER_RESTORE)))
            return false;
    return true;
}

/* Nothing can happen that makes another map before what rank 0 says next is heard: nobody is lost
 * or will be, and the change of shape, if there is one, ends by a word of rank 0's own. */
static inline bool is_map_steady(const struct world *w)
{
    bool steady =
        w->n_crashes >= w->max_crashes && w->c->phase == SCHD_RUNNING && !w->need_recovery &&
        !w->planned && w->n_stale == 0 &&
        (w->c->change == SCHD_CHANGE_MOVING ||
         (w->c->change == SCHD_CHANGE_NONE && (w->asked || changes == STAYS || changes == STOPS)));
    for (int i = 0; i < N && steady; i++)
        steady = !w->unseen[i] && is_settled(w, i);
    return steady;
}

/* A beat that does nothing but acknowledge, and whose answer nobody asks for: what it brings again
 * is passed over, a server looks at its map only when it is told to go back, with a map, and rank 0
 * has the newest. */
static inline bool is_private_beat(const struct world *w, int i)
{
    const struct process *p = &w->p[i];
    const struct member *c = member_of(w, i);
    if (p->n_up == 0 || p->up[0].op != CLU_CONTROL_BEAT || may_be_drained(i))
        return false;
    return has_ended(p) || role_of(i) == CLU_ROLE_PS || (c && !c->attached) ||
           (i == 2 && p->up[0].map.version == w->c->map.version && is_map_steady(w));
}

/* What it changes is asked by nobody else, and what it says waits at the end of its own queue. */
static inline bool is_private_note(const struct world *w, int i)
{
    const struct process *p = &w->p[i];
    const struct note *note = &p->down[0];
    if (p->n_down == 0)
        return false;
    if (note->op == CLU_CONTROL_RECEIPT)
        return note->number > 0;
    if (note->op == CLU_CONTROL_WELCOME && role_of(i) == CLU_ROLE_PS) /* (it looks at the newest) */
        return !w->commit_due && (!p->was_in || note->incarnation == p->incarnation);
    if (role_of(i) != CLU_ROLE_PS)
        return note->op == CLU_CONTROL_WELCOME && p->life == JOINING && !p->was_in && !note->stand;
    return note->op == CLU_CONTROL_BEAT ||
           (note->op == CLU_CONTROL_REFUSE && note->status == CLU_E_AGAIN && p->life != IN);
}

/* The number of an event that commutes with all others, so that no order is lost by taking it
 * first (see test_coordinator_walk.c); -1: there is none. */
static inline int private_event(const struct world *w)
{
    int k = 0;
    bool calm = w->n_crashes < w->max_crashes;
    for (int i = 0; i < N && (!calm || mortal < N); i++) {
        const struct process *p = &w->p[i];
        bool may = !calm || mortal != i;
        if (may && is_private_beat(w, i))
            return k;
        k += p->n_up > 0;
        if (may && is_private_note(w, i))
            return k;
        k += p->n_down > 0;
        if (may && p->life == FRESH)
            return k;
        k += act((struct world *)w, i, true);
        k += w->unseen[i];
    }
    return -1;
}

/* ---- what can be told ---- */

/* What everybody can tell of a state: the coordinator's decisions, whom it counts as what, what the
 * supervisor knows, and where those are who train or serve. No event that may come first changes
 * it. */
static inline uint64_t view_of(const struct world *w)
{
    struct hashing s = {.w = w, .as_is = true};
    const struct schd_coordinator *c = w->c;
    fold_supervisor(&s);
    fold_decisions(&s);
    for (int i = 0; i < N; i++) {
        const struct process *p = &w->p[i];
        const struct member *as = member_of(w, i);
        bool trains = p->life == TRAINING || p->life == COMMITTING, serves = p->life == SERVING;
        fold(&s, (uint64_t)(as ? as->state : NOT_NAMED) << 8 | (uint64_t)(as && as->attached) << 2 |
                     (uint64_t)(as && as->stand) << 1 | (uint64_t)(as && as->kept));
        fold(&s, (uint64_t)(trains || serves || p->life == CRASHED ? p->life : 0));
        if (trains)
            fold(&s, p->step << 16 | p->owners << 8 | p->generation);
        if (serves)
            fold(&s, w->rows[rank_of(i)] << 16 | p->serves << 8 | p->generation);
    }
    fold(&s, c->map.owners << 8 | (uint64_t)(uint8_t)-w->end_status);
    return s.h ? s.h : 1;
}

#endif

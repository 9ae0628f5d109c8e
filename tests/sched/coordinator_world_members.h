/* The members of the world that test_coordinator_walk.c walks: what cluster/member.c, ps/role.c and
 * worker/train.c do with what they hear, and of themselves. What differs from those on purpose: the
 * ranks' all-reduce is one event, every step ends with a snapshot that is waited for, and an order
 * is obeyed as soon as it is received.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_MEMBERS_H
#define TESTS_SCHED_COORDINATOR_WORLD_MEMBERS_H

#include "tests/sched/coordinator_world_moves.h"

/* A role has returned; whoever started it will see how. */
static inline void end_role(struct world *w, int i, int status)
{
    w->p[i].life = GONE;
    w->p[i].leave_status = status;
    w->unseen[i] = role_of(i) == CLU_ROLE_PS || (status && status != CLU_E_INTERRUPTED);
}

static inline void leave(struct world *w, int i, int status)
{
    say(w, i, (struct note){.op = CLU_CONTROL_LEAVE, .status = status});
    end_role(w, i, status);
    w->p[i].says_again = true;
}

/* What an order answers (settle), or else a receipt. */
static inline void forget_pending(struct process *p, const struct note *answer)
{
    int kept = 0;
    for (int i = 0; i < p->n_pending; i++) {
        const struct note *r = &p->pending[i];
        bool by_order = r->kind == CLU_REPORT_SNAPSHOT || r->kind == CLU_REPORT_MOVED;
        bool done = answer->op == CLU_CONTROL_RECEIPT ? !by_order && r->number <= answer->number
                    : answer->order == CLU_ORDER_COMMITTED
                        ? r->kind == CLU_REPORT_SNAPSHOT && r->step <= answer->step
                        : r->kind == CLU_REPORT_MOVED && r->step <= answer->step;
        if (!done)
            p->pending[kept++] = *r;
    }
    p->n_pending = kept;
}

/* A server comes to what its welcome, or an order, says, by the map that it has. */
static inline void restore(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    int r = rank_of(i);
    p->generation = note.generation;
    p->serves = p->map.owners;
    if (note.stand && w->rows_generation[r] != note.generation) {
        leave(w, i, CLU_E_LOST);
        return;
    }
    p->life = IN;
    if (note.stand)
        return;
    w->rows[r] = note.step;
    w->rows_generation[r] = note.generation;
    if (i == ADDED && !is_asked(w, i)) /* it joins a life that goes on */
        return;
    if (note.step > w->committed)
        break_promise(w, "a life began at a snapshot that was never committed");
    if (note.step < w->committed)
        break_promise(w, "a life began at an older snapshot than it could");
}

static inline bool is_complete(const struct known *map)
{
    for (int r = 0; r < N_SERVERS; r++)
        if (owned[map->owners][r] && !map->at[r])
            return false;
    return true;
}

static inline void on_welcome(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    if (p->life != JOINING && !p->rejoining)
        return;
    if (p->was_in && note.incarnation != p->incarnation) {
        end_role(w, i, CLU_E_LOST);
        return;
    }
    p->map = note.map;
    if (!p->was_in && !is_complete(&p->map))
        return; /* it asks again */
    if (!p->was_in && note.step != 0 && note.step > w->committed)
        break_promise(w, "a life began at a snapshot that was never committed");
    p->incarnation = note.incarnation;
    p->last_order = 0;
    if (!p->was_in) {
        p->generation = note.generation; /* afterwards a server's grows by order alone */
        if (i == 2)
            take_owners(w, note.map.owners);
        p->step = p->resume = note.step;
        p->stand = note.stand;
        p->life = IN;
        if (role_of(i) == CLU_ROLE_PS)
            restore(w, i, note);
    }
    p->was_in = true;
    p->rejoining = false;
    for (int j = 0; j < p->n_pending; j++)
        say(w, i, p->pending[j]);
}

static inline void on_stop(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    bool agree = role_of(i) == CLU_ROLE_WORKER && note.status == CLU_E_INTERRUPTED &&
                 (p->life == TRAINING || p->life == COMMITTING || p->life == IN);
    if (agree)
        p->stop_ordered = true; /* at the next all-reduce */
    else
        leave(w, i, note.status);
}

static inline void on_order(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    if (p->rejoining || note.number > p->last_order + 1)
        return;
    bool again = note.number <= p->last_order;
    p->last_order = again ? p->last_order : note.number;
    say(w, i, (struct note){.op = CLU_CONTROL_BEAT, .number = p->last_order});
    if (again)
        return;
    switch (note.order) {
    case CLU_ORDER_COMMITTED:
        forget_pending(p, &note);
        if (note.status == CLU_OK && note.step > w->committed)
            break_promise(w, "rank 0 was told of a snapshot that is not whole");
        if (p->life == COMMITTING && note.step == p->step)
            p->life = TRAINING;
        break;
    case CLU_ORDER_RESTORE:
        if (note.generation > p->generation)
            restore(w, i, note);
        break;
    case CLU_ORDER_MOVE:
        p->move_ordered = note.step;
        break;
    case CLU_ORDER_MOVED:
        forget_pending(p, &note);
        if (note.step > w->stored_owners)
            break_promise(w, "rank 0 was told of owners that are not stored");
        if (note.step > p->told_owners)
            p->told_owners = note.step;
        break;
    case CLU_ORDER_STOP:
        on_stop(w, i, note);
        break;
    default:
        break;
    }
}

static inline void receive(struct world *w, int i)
{
    struct process *p = &w->p[i];
    struct note note = pop(p->down, &p->n_down);
    TRACE("  %d receives op %d order %d number %d status %d\n", i, note.op, note.order,
          (int)note.number, note.status);
    if (note.op == CLU_CONTROL_WELCOME)
        on_welcome(w, i, note);
    else if (note.op == CLU_CONTROL_ORDER && p->was_in)
        on_order(w, i, note);
    else if (note.op == CLU_CONTROL_BEAT && note.map.version > p->map.version)
        p->map = note.map;
    else if (note.op == CLU_CONTROL_RECEIPT && note.number > 0)
        forget_pending(p, &note);
    else if (note.op == CLU_CONTROL_REFUSE && note.status == CLU_E_AGAIN && p->was_in) {
        if (!p->rejoining)
            say(w, i, (struct note){.op = CLU_CONTROL_JOIN});
        p->rejoining = true;
    } else if (note.op == CLU_CONTROL_REFUSE && note.status != CLU_E_AGAIN) {
        end_role(w, i, CLU_E_LOST); /* no longer part of the job: it says no goodbye */
    }
}

/* Both ranks stand at the same step, with nothing to wait for: the all-reduce goes through. */
static inline bool can_step(const struct world *w)
{
    const struct process *a = &w->p[2], *b = &w->p[3];
    for (int i = 0; i < N; i++)
        if (role_of(i) == CLU_ROLE_PS && is_asked(w, i) &&
            (!reaches(w, 2, i) || !reaches(w, 3, i) || w->rows[rank_of(i)] < a->step))
            return false;
    return a->life == TRAINING && b->life == TRAINING && a->step == b->step &&
           a->generation == b->generation && a->step < N_STEPS && !is_held_up(w);
}

/* Workers that go on with rows as they stand: after the step that any shard has reached; the others
 * skip what they miss (ps/shard_life.c). */
static inline void agree_on_rows(struct world *w, struct process *p)
{
    uint64_t most = w->rows[0] > w->rows[1] ? w->rows[0] : w->rows[1];
    p->step = w->rows[0] = w->rows[1] = most;
}

static inline void step_together(struct world *w)
{
    for (int i = 0; i < N; i++) {
        if (role_of(i) != CLU_ROLE_PS || !is_asked(w, i))
            continue;
        if (w->p[i].generation != w->p[2].generation)
            break_promise(w, "workers and servers of two lives trained together");
        if (w->rows[rank_of(i)] != w->p[2].step)
            break_promise(w, "rows of another step than the workers'");
        if (w->rows_generation[rank_of(i)] != w->p[2].generation)
            break_promise(w, "rows of another life than the workers'");
        if (w->p[i].serves != w->p[2].owners)
            break_promise(w, "a server has the buckets of other owners than the workers'");
        if (state_of(w, i) != SCHD_READY && w->c->phase == SCHD_RUNNING)
            break_promise(w, "the job runs with a server that is not ready");
    }
    w->p[2].step = ++w->p[3].step;
    w->p[2].life =
        COMMITTING; /* every step's snapshot is waited for: it is the last one's that matters */
    report(w, 2, CLU_REPORT_SNAPSHOT, w->p[2].step);
    w->rows[2] += is_asked(w, ADDED);
    w->rows[0]++; /* the other server's push may be under way still */
}

/* At the next all-reduce all ranks know that they are to stop; what they have done is whole. */
static inline bool can_stop(const struct world *w, int i)
{
    const struct process *a = &w->p[2], *b = &w->p[3];
    if (w->p[i].life != TRAINING || (!a->stop_ordered && !b->stop_ordered))
        return false;
    return i == 2 ? b->life == TRAINING && a->step == b->step
                  : a->life == GONE && a->leave_status == CLU_E_INTERRUPTED;
}

static inline bool can_finish(const struct world *w, int i)
{
    return w->p[i].life == TRAINING && w->p[i].step == N_STEPS &&
           (i == 2 || (w->p[2].life == GONE && w->p[2].leave_status == CLU_OK));
}

static inline bool act_training(struct world *w, int i, bool dry)
{
    if (can_stop(w, i)) {
        if (!dry)
            leave(w, i, CLU_E_INTERRUPTED);
        return true;
    }
    if (i == 2 && can_step(w)) {
        if (!dry)
            step_together(w);
        return true;
    }
    if (!can_finish(w, i)) /* the last all-reduce: rank 0 ends first */
        return false;
    if (!dry && i == 2) {
        report(w, i, CLU_REPORT_FINISHED, w->p[i].step);
        w->finished_said = true;
    }
    if (!dry)
        leave(w, i, CLU_OK);
    return true;
}

static inline bool act_in(struct world *w, int i, bool dry)
{
    struct process *p = &w->p[i];
    bool worker = role_of(i) == CLU_ROLE_WORKER;
    if (worker && p->stand && (!reaches(w, i, 0) || !reaches(w, i, 1)))
        return false; /* it has to ask both */
    if (dry)
        return true;
    if (worker && p->stand)
        agree_on_rows(w, p);
    if (!worker)
        report(w, i, CLU_REPORT_READY, 0);
    p->life = worker ? TRAINING : SERVING;
    if (i == 2 && p->stand && p->step == N_STEPS && p->resume != p->step) {
        p->life = COMMITTING; /* the dead had done the last step, but not stored it */
        report(w, i, CLU_REPORT_SNAPSHOT, p->step);
    }
    return true;
}

/* A push that was under way, or is tried again, where it is asked for by now. */
static inline bool act_serving(struct world *w, int i, bool dry)
{
    if (i != 1 || !is_asked(w, 1) || w->rows[1] >= w->p[2].step ||
        w->p[2].generation != w->rows_generation[1] || !reaches(w, 2, 1) ||
        (w->p[2].life != TRAINING && w->p[2].life != COMMITTING))
        return false;
    w->rows[1] += !dry;
    return true;
}

/* What a member does by itself; false when there is nothing. dry: only tells. */
static inline bool act(struct world *w, int i, bool dry)
{
    struct process *p = &w->p[i];
    switch (p->life) {
    case FRESH:
        if (!dry) {
            p->life = JOINING;
            say(w, i, (struct note){.op = CLU_CONTROL_JOIN});
        }
        return true;
    case IN:
        return act_in(w, i, dry);
    case SERVING:
        return act_serving(w, i, dry);
    case TRAINING:
        return act_training(w, i, dry);
    default:
        return false;
    }
}

#endif

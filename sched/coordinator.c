/* The coordinator. See the header for the states; here is who moves what:
 *
 *     transition                        function
 *     GATHERING -> RESTORING            schd_core_join -> servers_complete
 *     RESTORING, MENDING -> RUNNING     take_report(READY) -> servers_ready
 *     RUNNING -> STOPPING               take_leave -> workers_left
 *     STOPPING -> ENDED                 take_leave -> servers_left
 *     any -> BROKEN                     fail
 *     BROKEN -> GATHERING, MENDING      schd_coordinator_recover
 *     BROKEN -> ENDED                   tick, when nobody supervises
 *
 * Invariants, cited below:
 * (C1) A member is known by its incarnation. A message with another one changes nothing and is
 * refused.
 * (C2) An order stays queued until a beat shows that it arrived; it is sent again every heartbeat.
 * (C3) Nothing waits without a deadline: gathering, restoring, workers' joining, stopping, a silent
 * member.
 * (C4) SAVE comes before the message that relies on it: before a WELCOME, as a restarted scheduler
 * must know whom it let in, and before a receipt, with which a member forgets what it said.
 * (C5) The job ends well only when rank 0 said FINISHED and every member left with status 0.
 * (C6) A server serves one life: its READY names the generation, and another one's counts for
 * nothing; workers are let in while every server is READY.
 * (C7) While the job is BROKEN, and a supervisor may start others in their place, nobody joins.
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *schd_phase_name(enum schd_phase phase)
{
    static const char *const names[] = {"gathering", "restoring", "running", "mending",
                                        "stopping",  "broken",    "ended"};
    return names[phase];
}

const char *schd_member_state_name(enum schd_member_state state)
{
    static const char *const names[] = {"absent", "joined", "in",     "ready",
                                        "left",   "dead",   "drained"};
    return names[state];
}

void schd_action_fini(struct schd_action *action)
{
    free(action->report);
    action->report = NULL;
}

/* ---- time ---- */

static void check_silence(struct schd_coordinator *c, int64_t now)
{
    for (int i = 0; i < c->n_members && c->phase != SCHD_BROKEN; i++) {
        struct member *m = &c->members[i];
        int64_t silent = now - m->heard_ms;
        if (!schd_core_is_here(m))
            continue;
        if (silent > c->shape.dead_after_ms && m->attached) {
            if (schd_core_is_spare(c, m, "fell silent"))
                continue;
            m->state = SCHD_DEAD;
            m->status = CLU_E_LOST;
            snprintf(m->text, sizeof(m->text), "silent for %lld ms", (long long)silent);
            schd_core_fail(c, now, CLU_E_LOST, "%s %d is lost: no heartbeat for %lld ms",
                           clu_role_name(m->role), m->rank, (long long)silent);
        } else if (silent > c->shape.start_timeout_ms && !m->attached) {
            m->state = SCHD_DEAD;
            m->status = CLU_E_LOST;
            schd_core_fail(c, now, CLU_E_LOST, "%s %d did not come back to the restarted scheduler",
                           clu_role_name(m->role), m->rank);
        } else if (silent > 3 * c->shape.heartbeat_ms && silent > c->shape.dead_after_ms / 3 &&
                   !m->suspect && m->attached) {
            m->suspect = true;
            schd_core_tell(c, CLU_LOG_WARN, "%s %d is slow: no heartbeat for %lld ms",
                           clu_role_name(m->role), m->rank, (long long)silent);
        }
    }
}

static void name_missing(struct schd_coordinator *c, int64_t now, enum clu_role role,
                         enum schd_member_state until, const char *what)
{
    for (int i = 0; i < c->n_members; i++)
        if (c->members[i].role == role && c->members[i].state < until) {
            schd_core_fail(c, now, CLU_E_TIMEOUT, "%s %d has not %s within %lld ms",
                           clu_role_name(role), c->members[i].rank, what,
                           (long long)c->shape.start_timeout_ms);
            return;
        }
}

static void check_deadlines(struct schd_coordinator *c, int64_t now) /* (C3) */
{
    if (c->stopping && c->phase != SCHD_ENDED && now > c->stop_deadline_ms) {
        schd_core_end(c, CLU_E_INTERRUPTED,
                      "stopped on request, without a last snapshot: it took too long");
        return;
    }
    if (now <= c->deadline_ms)
        return;
    switch (c->phase) {
    case SCHD_GATHERING:
        name_missing(c, now, CLU_ROLE_PS, SCHD_JOINED, "joined");
        break;
    case SCHD_RESTORING:
        name_missing(c, now, CLU_ROLE_PS, SCHD_READY, "restored its rows");
        break;
    case SCHD_RUNNING:
        name_missing(c, now, CLU_ROLE_WORKER, SCHD_IN, "joined");
        break;
    case SCHD_MENDING:
        name_missing(c, now, CLU_ROLE_PS, SCHD_READY, "come back");
        break;
    case SCHD_STOPPING:
        if (c->finished)
            schd_core_end(c, CLU_OK, "done; a server did not say goodbye in time");
        else
            schd_core_end(c, CLU_E_INTERRUPTED, c->stop_why);
        break;
    case SCHD_BROKEN:
        if (!c->shape.supervised)
            schd_core_end(c, c->status, c->text);
        break;
    case SCHD_ENDED:
        break;
    }
}

void schd_coordinator_tick(struct schd_coordinator *c, int64_t now)
{
    if (c->phase == SCHD_ENDED)
        return;
    check_silence(c, now);
    check_deadlines(c, now);
    schd_core_check_change(c, now);
    if (c->phase == SCHD_RUNNING && c->shape.snapshot_ms > 0 && now >= c->snapshot_due_ms)
        schd_coordinator_snapshot(c, now);
    if (c->phase == SCHD_BROKEN && !c->shape.supervised) {
        for (int i = 0; i < c->n_members; i++)
            if (schd_core_is_here(&c->members[i]))
                return;
        schd_core_end(c, c->status, c->text);
    }
    if (c->out_of_memory)
        schd_core_fail(c, now, CLU_E_NO_MEMORY, "sched: out of memory");
}

/* ---- requests ---- */

void schd_coordinator_committed(struct schd_coordinator *c, int64_t now, uint64_t step, int status)
{
    c->snapshot = SNAPSHOT_NONE;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    if (!status && step > c->whole_step)
        c->whole_step = step;
    if (!status)
        schd_core_tell(c, CLU_LOG_INFO, "snapshot of step %llu is whole", (unsigned long long)step);
    else
        schd_core_tell(c, CLU_LOG_WARN, "the snapshot of step %llu is not committed: %s",
                       (unsigned long long)step, clu_status_text(status));
    schd_core_save(c);
    struct clu_order told = {.kind = CLU_ORDER_COMMITTED, .step = step, .status = status};
    struct member *m = schd_core_find(c, CLU_ROLE_WORKER, 0);
    if (m)
        schd_core_order(c, m, &told);
}

int schd_coordinator_snapshot(struct schd_coordinator *c, int64_t now)
{
    if (c->phase != SCHD_RUNNING || c->snapshot != SNAPSHOT_NONE || c->stopping || c->finished)
        return CLU_E_AGAIN;
    c->snapshot = SNAPSHOT_ORDERED;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    struct clu_order snapshot = {.kind = CLU_ORDER_SNAPSHOT, .step = c->step};
    schd_core_order(c, schd_core_find(c, CLU_ROLE_WORKER, 0), &snapshot);
    return CLU_OK;
}

void schd_coordinator_stop(struct schd_coordinator *c, int64_t now, const char *why)
{
    if (c->stopping || c->phase == SCHD_ENDED)
        return;
    c->stopping = true;
    c->stop_deadline_ms = now + c->shape.stop_timeout_ms;
    snprintf(c->stop_why, sizeof(c->stop_why), "%s", why);
    schd_core_save(c);
    if (c->phase == SCHD_BROKEN || c->phase == SCHD_STOPPING)
        return;
    bool running = (c->phase == SCHD_RUNNING || c->phase == SCHD_MENDING) &&
                   schd_core_count(c, CLU_ROLE_WORKER, SCHD_IN) == c->shape.n_workers;
    struct clu_order stop = {
        .kind = CLU_ORDER_STOP, .status = CLU_E_INTERRUPTED, .snapshot = running};
    snprintf(stop.text, sizeof(stop.text), "%s", why);
    schd_core_tell(c, CLU_LOG_INFO, "stopping: %s%s", why,
                   running ? "; a last snapshot first" : "");
    schd_core_order_all(c, CLU_ROLE_WORKER, &stop);
    bool complete = schd_core_count(c, CLU_ROLE_WORKER, SCHD_ABSENT) == 0 &&
                    schd_core_count(c, CLU_ROLE_WORKER, SCHD_JOINED) == 0;
    if (running || (c->phase == SCHD_RUNNING && complete))
        return; /* not all are in any longer: some have left, the others do */
    schd_core_end(c, CLU_E_INTERRUPTED, why); /* nothing has been trained: nothing to keep */
}

void schd_coordinator_gone(struct schd_coordinator *c, int64_t now, enum clu_role role, int rank,
                           int status, const char *why)
{
    struct member *m = schd_core_find(c, role, rank);
    if (!m || (!schd_core_is_here(m) && m->state != SCHD_ABSENT) || schd_core_is_spare(c, m, why) ||
        !schd_core_is_here(m))
        return;
    if (m->stand && m->role == CLU_ROLE_PS && m->state != SCHD_READY && status != CLU_E_LOST)
        c->must_go_back = true; /* it ended by itself: its rows will not do */
    m->state = SCHD_DEAD;
    m->status = status;
    snprintf(m->text, sizeof(m->text), "%s", why);
    schd_core_drop_orders(m);
    schd_core_fail(c, now, status, "%s %d %s", clu_role_name(role), rank, why);
}

void schd_coordinator_dump(struct schd_coordinator *c)
{
    struct clu_order dump = {.kind = CLU_ORDER_DUMP};
    schd_core_order_all(c, CLU_ROLE_PS, &dump);
    schd_core_order_all(c, CLU_ROLE_WORKER, &dump);
}

/* ---- life ---- */

struct schd_coordinator *schd_coordinator_create(const struct schd_shape *shape,
                                                 const struct schd_life *life, int64_t now)
{
    struct schd_coordinator *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->shape = *shape;
    c->life = *life;
    c->n_servers = shape->n_servers;
    c->n_members = shape->n_servers + shape->n_workers;
    c->members = calloc((size_t)c->n_members + 1, sizeof(c->members[0]));
    c->last_action_p = &c->first_action;
    c->deadline_ms = now + shape->start_timeout_ms;
    c->step = life->resume_step;
    c->whole_step = life->resume_step;
    c->least_incarnation = life->generation << 32;
    if (!c->members || clu_map_init(&c->map, shape->n_servers, shape->shards_per_server)) {
        schd_coordinator_free(c);
        return NULL;
    }
    for (int i = 0; i < c->n_members; i++) {
        bool server = i < c->n_servers;
        c->members[i].role = server ? CLU_ROLE_PS : CLU_ROLE_WORKER;
        c->members[i].rank = server ? i : i - c->n_servers;
    }
    schd_core_save(c);
    return c;
}

void schd_coordinator_free(struct schd_coordinator *c)
{
    if (!c)
        return;
    struct schd_action action;
    while (schd_coordinator_next(c, &action))
        schd_action_fini(&action);
    for (int i = 0; c->members && i < c->n_members; i++)
        schd_core_forget(c, &c->members[i]);
    free(c->members);
    free(c);
}

/* The coordinator's hands: queueing actions, giving orders, and moving the job from one phase to
 * the next. The table of transitions and the invariants are in coordinator.c.
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- actions ---- */

struct schd_action *schd_core_add_action(struct schd_coordinator *c, enum schd_action_kind kind)
{
    struct queued_action *queued = calloc(1, sizeof(*queued));
    if (!queued) {
        c->out_of_memory = true;
        return &c->scratch;
    }
    queued->action.kind = kind;
    *c->last_action_p = queued;
    c->last_action_p = &queued->next;
    return &queued->action;
}

bool schd_coordinator_next(struct schd_coordinator *c, struct schd_action *action_p)
{
    struct queued_action *first = c->first_action;
    if (!first)
        return false;
    c->first_action = first->next;
    if (!c->first_action)
        c->last_action_p = &c->first_action;
    *action_p = first->action;
    free(first);
    return true;
}

void schd_core_tell(struct schd_coordinator *c, int level, const char *format, ...)
{
    struct schd_action *action = schd_core_add_action(c, SCHD_TELL);
    va_list args;
    va_start(args, format);
    vsnprintf(action->text, sizeof(action->text), format, args);
    va_end(args);
    action->level = level;
}

struct schd_action *schd_core_send_to(struct schd_coordinator *c, const struct clu_peer *peer,
                                      enum clu_control_op op)
{
    struct schd_action *action = schd_core_add_action(c, SCHD_SEND);
    action->peer = *peer;
    action->op = op;
    return action;
}

void schd_core_refuse(struct schd_coordinator *c, const struct clu_peer *peer, int status,
                      const char *text)
{
    struct schd_action *action = schd_core_send_to(c, peer, CLU_CONTROL_REFUSE);
    action->status = status;
    snprintf(action->text, sizeof(action->text), "%s", text);
}

void schd_core_save(struct schd_coordinator *c)
{
    schd_core_add_action(c, SCHD_SAVE);
}

/* ---- members ---- */

struct member *schd_core_find(struct schd_coordinator *c, enum clu_role role, int rank)
{
    if (role == CLU_ROLE_PS && rank >= 0 && rank < c->n_servers)
        return &c->members[rank];
    if (role == CLU_ROLE_WORKER && rank >= 0 && rank < c->shape.n_workers)
        return &c->members[c->n_servers + rank];
    return NULL;
}

bool schd_core_is_here(const struct member *m)
{
    return m->state == SCHD_JOINED || m->state == SCHD_IN || m->state == SCHD_READY;
}

int schd_core_count(const struct schd_coordinator *c, enum clu_role role,
                    enum schd_member_state state)
{
    int n = 0;
    for (int i = 0; i < c->n_members; i++)
        n += c->members[i].role == role && c->members[i].state == state;
    return n;
}

void schd_core_send_order(struct schd_coordinator *c, struct member *m,
                          const struct queued_order *queued)
{
    if (!m->attached)
        return;
    struct schd_action *action = schd_core_send_to(c, &m->peer, CLU_CONTROL_ORDER);
    action->number = queued->number;
    action->order = queued->order;
}

/* (C2) */
void schd_core_order(struct schd_coordinator *c, struct member *m, const struct clu_order *what)
{
    if (!schd_core_is_here(m))
        return;
    struct queued_order *queued = calloc(1, sizeof(*queued));
    if (!queued) {
        c->out_of_memory = true;
        return;
    }
    queued->order = *what;
    queued->number = ++m->n_orders;
    struct queued_order **end = &m->orders;
    while (*end)
        end = &(*end)->next;
    *end = queued;
    schd_core_send_order(c, m, queued);
}

void schd_core_order_all(struct schd_coordinator *c, enum clu_role role,
                         const struct clu_order *what)
{
    for (int i = 0; i < c->n_members; i++)
        if (c->members[i].role == role)
            schd_core_order(c, &c->members[i], what);
}

void schd_core_drop_orders(struct member *m)
{
    while (m->orders) {
        struct queued_order *next = m->orders->next;
        free(m->orders);
        m->orders = next;
    }
}

bool schd_core_workers_stay(const struct schd_coordinator *c)
{
    for (int i = c->n_servers; i < c->n_members; i++)
        if (!schd_core_is_here(&c->members[i]) &&
            !(c->finished && c->members[i].state == SCHD_LEFT))
            return false;
    return true;
}

void schd_core_forget(struct schd_coordinator *c, struct member *m)
{
    schd_core_drop_orders(m);
    free(m->figures);
    if (m->role == CLU_ROLE_PS)
        for (int i = 0; i < c->map.n_shards; i++)
            if (c->map.server_of[i] == m->rank)
                c->map.endpoint[i][0] = '\0';
    struct member fresh = {.role = m->role, .rank = m->rank, .status = m->status};
    memcpy(fresh.text, m->text, sizeof(fresh.text)); /* how the one before ended */
    *m = fresh;
}

void schd_core_order_restore(struct schd_coordinator *c, struct member *m)
{
    /* it goes back by the map that it has: buckets may have moved since it last had one. Sent
     * again, an order follows a beat with the map, or a welcome */
    if (m->attached)
        schd_core_send_to(c, &m->peer, CLU_CONTROL_BEAT)->with_map = true;
    struct clu_order restore = {.kind = CLU_ORDER_RESTORE,
                                .step = c->life.resume_step,
                                .generation = c->life.generation,
                                .least_incarnation = c->least_incarnation};
    schd_core_order(c, m, &restore);
}

void schd_core_welcome(struct schd_coordinator *c, struct member *m)
{
    struct schd_action *action = schd_core_send_to(c, &m->peer, CLU_CONTROL_WELCOME);
    action->with_map = true;
    action->welcome.job_id = c->life.job_id;
    action->welcome.generation = c->life.generation;
    action->welcome.incarnation = m->incarnation;
    action->welcome.n_servers = schd_core_n_servers(c);
    action->welcome.n_shards = c->map.n_shards;
    action->welcome.n_workers = c->shape.n_workers;
    action->welcome.resume_step = c->life.resume_step;
    action->welcome.least_incarnation = c->least_incarnation;
    action->welcome.stand = m->stand;
    memcpy(action->welcome.resume, c->life.resume, CLU_PATH_BYTES);
    if (m->role == CLU_ROLE_WORKER && m->stand) {
        action->welcome.resume_step = c->whole_at;
        memcpy(action->welcome.resume, c->whole, CLU_PATH_BYTES);
    }
}

/* ---- phases ---- */

void schd_core_end(struct schd_coordinator *c, int status, const char *text)
{
    c->phase = SCHD_ENDED;
    c->status = status;
    if (text != c->text)
        snprintf(c->text, sizeof(c->text), "%s", text);
    schd_core_save(c);
    struct schd_action *action = schd_core_add_action(c, SCHD_END);
    action->status = status;
    snprintf(action->text, sizeof(action->text), "%s", c->text);
}

/* Something that the job cannot go on without is lost. A supervisor recovers or ends: workers that
 * may stay are let alone until then, and servers always. Without one every member is told to stop,
 * and the scheduler ends when they had time to. */
void schd_core_fail(struct schd_coordinator *c, int64_t now, int status, const char *format, ...)
{
    if (c->phase == SCHD_BROKEN || c->phase == SCHD_ENDED)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->text, sizeof(c->text), format, args);
    va_end(args);
    c->phase = SCHD_BROKEN;
    c->status = status;
    c->deadline_ms = now + BROKEN_MS;
    schd_core_tell(c, CLU_LOG_ERROR, "%s", c->text);
    schd_core_save(c);
    struct clu_order stop = {.kind = CLU_ORDER_STOP, .status = status};
    snprintf(stop.text, sizeof(stop.text), "%s", c->text);
    if (c->shape.supervised && schd_core_way(c) == SCHD_WAY_STAND)
        return;
    if (c->snapshot != SNAPSHOT_NONE) {
        schd_core_add_action(c, SCHD_DROP)->step = c->snapshot_step;
        c->snapshot = SNAPSHOT_NONE;
    }
    schd_core_order_all(c, CLU_ROLE_WORKER, &stop);
    if (!c->shape.supervised)
        schd_core_order_all(c, CLU_ROLE_PS, &stop);
}

void schd_core_servers_complete(struct schd_coordinator *c, int64_t now)
{
    if (c->phase != SCHD_GATHERING ||
        schd_core_count(c, CLU_ROLE_PS, SCHD_JOINED) < schd_core_n_servers(c))
        return;
    c->phase = SCHD_RESTORING;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    schd_core_save(c); /* (C4) */
    schd_core_tell(c, CLU_LOG_INFO, "%d server%s joined, %d shards%s%s", schd_core_n_servers(c),
                   schd_core_n_servers(c) == 1 ? "" : "s", c->map.n_shards,
                   c->life.resume[0] ? "; resuming from " : "", c->life.resume);
    for (int i = 0; i < c->n_servers; i++) {
        if (c->members[i].state == SCHD_DRAINED)
            continue;
        c->members[i].state = SCHD_IN;
        if (c->members[i].kept)
            schd_core_order_restore(c, &c->members[i]);
        else
            schd_core_welcome(c, &c->members[i]);
    }
}

void schd_core_admit_worker(struct schd_coordinator *c, struct member *m)
{
    m->state = SCHD_IN;
    m->stand = c->workers_stand;
    schd_core_save(c); /* (C4) */
    schd_core_welcome(c, m);
    if (m->rank == 0)
        schd_core_order_move(c);
    if (schd_core_count(c, CLU_ROLE_WORKER, SCHD_IN) == c->shape.n_workers)
        schd_core_tell(c, CLU_LOG_INFO, "%d worker%s joined, generation %llu, step %llu",
                       c->shape.n_workers, c->shape.n_workers == 1 ? "" : "s",
                       (unsigned long long)c->life.generation,
                       (unsigned long long)(c->workers_stand ? c->step : c->life.resume_step));
}

/* Where the servers listen now, without waiting for the next beat. */
static void send_map(struct schd_coordinator *c)
{
    for (int i = c->n_servers; i < c->n_members; i++)
        if (schd_core_is_here(&c->members[i]) && c->members[i].attached)
            schd_core_send_to(c, &c->members[i].peer, CLU_CONTROL_BEAT)->with_map = true;
}

void schd_core_servers_ready(struct schd_coordinator *c, int64_t now)
{
    if ((c->phase != SCHD_RESTORING && c->phase != SCHD_MENDING) ||
        schd_core_count(c, CLU_ROLE_PS, SCHD_READY) < schd_core_n_servers(c))
        return;
    c->phase = SCHD_RUNNING;
    c->ran = true;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    schd_core_save(c);
    for (int i = c->n_servers; i < c->n_members; i++)
        if (c->members[i].state == SCHD_JOINED)
            schd_core_admit_worker(c, &c->members[i]);
    send_map(c);
    schd_core_workers_left(c, now);
}

void schd_core_stop_servers(struct schd_coordinator *c, int64_t now)
{
    c->phase = SCHD_STOPPING;
    c->deadline_ms = now + BROKEN_MS;
    schd_core_save(c);
    struct clu_order stop = {.kind = CLU_ORDER_STOP,
                             .status = c->finished ? CLU_OK : CLU_E_INTERRUPTED};
    schd_core_order_all(c, CLU_ROLE_PS, &stop);
}

void schd_core_workers_left(struct schd_coordinator *c, int64_t now)
{
    if ((c->phase != SCHD_RUNNING && c->phase != SCHD_STOPPING) ||
        schd_core_count(c, CLU_ROLE_WORKER, SCHD_LEFT) < c->shape.n_workers)
        return;
    if (!c->finished && !c->stopping)
        schd_core_fail(c, now, CLU_E_BUG, "the workers left before the last step was done");
    else if (c->phase == SCHD_RUNNING)
        schd_core_stop_servers(c, now);
}

void schd_core_servers_left(struct schd_coordinator *c)
{
    if (c->phase != SCHD_STOPPING)
        return;
    for (int i = 0; i < c->n_members; i++)
        if (schd_core_is_here(&c->members[i]))
            return;
    if (c->finished)
        schd_core_end(c, CLU_OK, "done");
    else
        schd_core_end(c, CLU_E_INTERRUPTED, c->stop_why);
}

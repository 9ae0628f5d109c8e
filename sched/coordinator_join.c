/* Who is let in: members that join for the first time, that join again (this scheduler is new, or
 * they have not heard it for long), and late words of processes that are no more, which must not
 * keep their successors out. The invariants are in coordinator.c.
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <string.h>

enum { RIVAL_MS = 600 /* a joining member asks more often */ };

/* Orders that are still unknown to a member that joined again are numbered from 1: it has
 * forgotten, or this scheduler has. */
static void renumber_orders(struct member *m)
{
    m->n_orders = 0;
    for (struct queued_order *queued = m->orders; queued; queued = queued->next)
        queued->number = ++m->n_orders;
}

static void attach(struct member *m, const struct clu_peer *peer,
                   const struct clu_control_message *message)
{
    m->peer = *peer;
    m->attached = true;
    if (message->op == CLU_CONTROL_JOIN) {
        m->pid = message->pid;
        memcpy(m->host, message->host, sizeof(m->host));
    }
}

static bool same_process(const struct member *m, const struct clu_control_message *message)
{
    return m->pid == message->pid && strcmp(m->host, message->host) == 0;
}

static bool is_queued(const struct member *m, enum clu_order_kind kind)
{
    for (const struct queued_order *queued = m->orders; queued; queued = queued->next)
        if (queued->order.kind == kind)
            return true;
    return false;
}

/* An order that this scheduler's predecessor may have given, or not, is given again: taking it
 * twice does no harm. Others may be queued already: of a snapshot that was due before this member
 * came back. */
static void order_again(struct schd_coordinator *c, struct member *m)
{
    struct clu_order stop = {.kind = CLU_ORDER_STOP, .status = CLU_E_INTERRUPTED};
    if (c->phase == SCHD_RESTORING && m->kept && m->state == SCHD_IN) {
        if (!is_queued(m, CLU_ORDER_RESTORE))
            schd_core_order_restore(c, m);
    } else if (c->phase == SCHD_STOPPING && m->role == CLU_ROLE_PS) {
        stop.status = c->finished ? CLU_OK : CLU_E_INTERRUPTED;
        if (!is_queued(m, CLU_ORDER_STOP))
            schd_core_order(c, m, &stop);
    } else if (c->phase == SCHD_RUNNING && c->stopping && m->role == CLU_ROLE_WORKER) {
        stop.snapshot = true;
        if (!is_queued(m, CLU_ORDER_STOP))
            schd_core_order(c, m, &stop);
    } else if (c->phase == SCHD_RUNNING && m->role == CLU_ROLE_WORKER && m->rank == 0) {
        if (!is_queued(m, CLU_ORDER_MOVE))
            schd_core_order_again(c);
    }
}

/* A member that was let in before comes back: after a silence, or because this scheduler is new. */
static void on_rejoin(struct schd_coordinator *c, struct member *m, const struct clu_peer *peer,
                      const struct clu_control_message *message)
{
    if (m->incarnation != message->incarnation ||
        (m->state != SCHD_IN && m->state != SCHD_READY && !(m->state == SCHD_JOINED && m->kept))) {
        schd_core_refuse(c, peer, CLU_E_LOST, "the job has gone on without this member");
        return;
    }
    attach(m, peer, message);
    schd_core_tell(c, CLU_LOG_INFO, "%s %d joined again", clu_role_name(m->role), m->rank);
    schd_core_welcome(c, m);
    renumber_orders(m);
    for (struct queued_order *queued = m->orders; queued; queued = queued->next)
        schd_core_send_order(c, m, queued);
    order_again(c, m);
}

/* A server is welcomed with all others, or, within a life that goes on, by itself. */
static void server_joined(struct schd_coordinator *c, int64_t now, struct member *m)
{
    if (c->phase != SCHD_MENDING && c->phase != SCHD_RESTORING) {
        schd_core_admit_added(c, m);
        schd_core_servers_complete(c, now);
        return;
    }
    m->state = SCHD_IN;
    schd_core_save(c); /* (C4) */
    schd_core_welcome(c, m);
}

static void take_endpoints(struct schd_coordinator *c, const struct member *m,
                           const struct clu_control_message *message)
{
    int first = clu_map_first_shard(&c->map, m->rank);
    for (int i = 0; i < message->n_endpoints; i++)
        memcpy(c->map.endpoint[first + i], message->endpoints[i], CLU_ENDPOINT_BYTES);
    if (c->phase == SCHD_MENDING)
        c->map.version++; /* workers may know already that it was away */
}

/* Another process asks for a member's rank. Both cannot be meant: one that speaks keeps it; of one
 * that was never READY and says nothing more, a last JOIN came late, and it is forgotten. */
static bool outlives_rival(struct schd_coordinator *c, int64_t now, struct member *m,
                           const struct clu_peer *peer)
{
    bool settled = m->state == SCHD_READY || m->state == SCHD_LEFT || m->state == SCHD_DEAD;
    if (settled || (m->rival_ms && m->heard_ms > m->rival_ms)) {
        schd_core_refuse(c, peer, CLU_E_EXISTS, "another process has this rank");
        return false;
    }
    if (!m->rival_ms)
        m->rival_ms = now;
    if (now - m->rival_ms < 2 * c->shape.heartbeat_ms + RIVAL_MS)
        return false; /* it asks again */
    bool stand = m->stand;
    schd_core_forget(c, m);
    m->stand = stand;
    return true;
}

void schd_core_join(struct schd_coordinator *c, int64_t now, struct member *m,
                    const struct clu_peer *peer, const struct clu_control_message *message)
{
    if (m->role == CLU_ROLE_PS && message->n_endpoints != c->shape.shards_per_server) {
        schd_core_refuse(c, peer, CLU_E_CONFIG,
                         "the job file of this server says another number of shards");
        return;
    }
    if (c->phase == SCHD_ENDED || c->phase == SCHD_BROKEN || c->phase == SCHD_STOPPING) {
        if (c->phase != SCHD_BROKEN || !c->shape.supervised)
            schd_core_refuse(c, peer, CLU_E_LOST, "the job has ended");
        return; /* (C7) it may belong to what comes next; it will ask again */
    }
    if (m->state == SCHD_DRAINED) {
        schd_core_refuse(c, peer, CLU_E_LOST, "the job does without this server");
        return;
    }
    if (message->incarnation) {
        m->heard_ms = now;
        on_rejoin(c, m, peer, message);
        return;
    }
    if (m->state != SCHD_ABSENT && !same_process(m, message) && !outlives_rival(c, now, m, peer))
        return;
    m->heard_ms = now;
    m->rival_ms = 0;
    attach(m, peer, message);
    switch (m->state) {
    case SCHD_JOINED:    /* it waits for the others, and asks again */
        m->kept = false; /* one who asks like this has never been welcomed */
        if (m->role == CLU_ROLE_PS)
            server_joined(c, now, m);
        if (m->role == CLU_ROLE_WORKER && c->phase == SCHD_RUNNING)
            schd_core_admit_worker(c, m);
        break;
    case SCHD_ABSENT:
        m->incarnation = c->life.generation << 32 | ++c->n_incarnations;
        m->state = SCHD_JOINED;
        m->last_report = 0;
        if (m->role == CLU_ROLE_PS) {
            take_endpoints(c, m, message);
            server_joined(c, now, m);
        }
        if (m->role == CLU_ROLE_WORKER && c->phase == SCHD_RUNNING)
            schd_core_admit_worker(c, m);
        break;
    case SCHD_IN:
    case SCHD_READY:
        schd_core_welcome(c, m); /* the first one was lost, with its orders perhaps */
        order_again(c, m);
        break;
    default:
        break;
    }
}

/* What the coordinator does with the messages of members. The table of transitions and the
 * invariants are in coordinator.c.
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RIVAL_MS = 600 /* a joining member asks more often */ };

static const double SLOW_SECONDS = 0.25; /* less is the noise of a busy machine */

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

static void on_join(struct schd_coordinator *c, int64_t now, struct member *m,
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

static void on_beat(struct schd_coordinator *c, struct member *m, const struct clu_peer *peer,
                    const struct clu_control_message *message)
{
    if (!m->attached) { /* known from the store: orders must be numbered afresh */
        schd_core_refuse(c, peer, CLU_E_AGAIN, "join again");
        return;
    }
    /* from another connection than the one its orders went to: the numbers may be of before a
     * rejoin */
    bool same = m->peer.size_bytes == peer->size_bytes &&
                memcmp(m->peer.bytes, peer->bytes, peer->size_bytes) == 0;
    m->peer = *peer;
    while (same && m->orders && m->orders->number <= message->number) {
        struct queued_order *next = m->orders->next;
        free(m->orders);
        m->orders = next;
    }
    struct schd_action *action = schd_core_send_to(c, peer, CLU_CONTROL_BEAT);
    action->with_map = message->map_version < c->map.version;
    for (struct queued_order *queued = m->orders; queued; queued = queued->next)
        schd_core_send_order(c, m, queued);
}

static void on_snapshot_report(struct schd_coordinator *c, const struct clu_report *report)
{
    if (report->status) {
        schd_core_tell(c, CLU_LOG_WARN, "the snapshot of step %llu failed: %s",
                       (unsigned long long)report->step,
                       report->text[0] ? report->text : clu_status_text(report->status));
        schd_core_add_action(c, SCHD_DROP)->step = report->step;
        c->snapshot = SNAPSHOT_NONE;
        return;
    }
    c->snapshot = SNAPSHOT_COMMITTING;
    c->snapshot_step = report->step;
    schd_core_add_action(c, SCHD_COMMIT)->step = report->step;
}

/* Hands a report on to whoever writes metrics and lists files. */
static void pass_on(struct schd_coordinator *c, const struct member *m,
                    const struct clu_report *report)
{
    struct schd_action *action = schd_core_add_action(c, SCHD_PROGRESS);
    action->role = m->role;
    action->rank = m->rank;
    action->step = report->step;
    action->report = malloc(sizeof(*report));
    if (action->report)
        *action->report = *report;
    else
        c->out_of_memory = true;
}

/* Marks the one worker that lags (-1: none does); true when it has just begun to. */
static bool begins_to_lag(struct schd_coordinator *c, int rank)
{
    bool begins = false;
    for (int r = 0; r < c->shape.n_workers; r++) {
        struct member *m = schd_core_find(c, CLU_ROLE_WORKER, r);
        begins |= r == rank && !m->lags;
        m->lags = r == rank;
    }
    return begins;
}

/* A rank that took far longer than the others for an interval, or than the slowest usually does for
 * a step. It is named when it begins to, and stays marked until a report without it. */
static void name_straggler(struct schd_coordinator *c, const struct clu_report *report)
{
    const struct clu_figures *figures = &report->figures;
    double step_seconds = clu_figures_get(figures, "slowest_rank_seconds", 0);
    double seconds = clu_figures_get(figures, "laggard_seconds", 0);
    double others = clu_figures_get(figures, "other_ranks_seconds", 0);
    int laggard = (int)clu_figures_get(figures, "laggard_rank", -1);
    int slowest = (int)clu_figures_get(figures, "slowest_rank", -1);
    bool unusual = c->usual_seconds > 0 && step_seconds > 3 * c->usual_seconds &&
                   step_seconds > SLOW_SECONDS && slowest >= 0;
    if (step_seconds > 0 && !unusual)
        c->usual_seconds =
            c->usual_seconds > 0 ? 0.8 * c->usual_seconds + 0.2 * step_seconds : step_seconds;
    if (laggard >= 0 && seconds > 2 * others && seconds - others > SLOW_SECONDS) {
        if (begins_to_lag(c, laggard))
            schd_core_tell(c, CLU_LOG_WARN,
                           "worker %d is slow: it computed for %.2f s before step %llu, the others "
                           "for %.2f s",
                           laggard, seconds, (unsigned long long)report->step, others);
    } else if (begins_to_lag(c, unusual ? slowest : -1)) {
        schd_core_tell(c, CLU_LOG_WARN,
                       "worker %d is slow: %.2f s for a step before step %llu, usually %.2f s",
                       slowest, step_seconds, (unsigned long long)report->step, c->usual_seconds);
    }
}

static void keep_figures(struct schd_coordinator *c, struct member *m,
                         const struct clu_report *report)
{
    if (!m->figures)
        m->figures = malloc(sizeof(*m->figures));
    if (m->figures)
        *m->figures = report->figures;
    else
        c->out_of_memory = true;
}

/* New workers took over: what the dense weights missed is said, and added up. */
static void on_gone_on(struct schd_coordinator *c, const struct clu_report *report)
{
    const struct clu_figures *figures = &report->figures;
    double lost = clu_figures_get(figures, "lost_steps", 0);
    double samples = clu_figures_get(figures, "lost_samples", 0);
    c->n_gone_on++;
    c->lost_steps += (uint64_t)lost;
    c->lost_samples += (uint64_t)samples;
    if (report->step > c->step)
        c->step = report->step;
    schd_core_save(c);
    schd_core_tell(
        c, CLU_LOG_WARN,
        "new workers go on after step %llu with the rows as they stand; the dense weights "
        "are of step %.0f: they miss %.0f steps, %.0f samples; %.0f unfinished steps of "
        "the rows are dropped",
        (unsigned long long)report->step, clu_figures_get(figures, "dense_step", 0), lost, samples,
        clu_figures_get(figures, "dropped_steps", 0));
}

static void take_report(struct schd_coordinator *c, int64_t now, struct member *m,
                        const struct clu_report *report)
{
    switch (report->kind) {
    case CLU_REPORT_READY:
        if (m->role == CLU_ROLE_PS && m->state == SCHD_IN &&
            report->generation == c->life.generation) { /* (C6) */
            m->state = SCHD_READY;
            m->kept = m->stand = false;
            schd_core_save(c);
            schd_core_servers_ready(c, now);
            schd_core_added_ready(c);
        }
        break;
    case CLU_REPORT_PROGRESS:
        if (report->step > c->step)
            c->step = report->step;
        c->n_steps = report->n_steps;
        c->progress = report->figures;
        name_straggler(c, report);
        pass_on(c, m, report);
        break;
    case CLU_REPORT_EVALUATED:
        c->evaluation = report->figures;
        pass_on(c, m, report);
        break;
    case CLU_REPORT_STATE:
        keep_figures(c, m, report);
        pass_on(c, m, report);
        break;
    case CLU_REPORT_PART:
        pass_on(c, m, report);
        break;
    case CLU_REPORT_SNAPSHOT:
        pass_on(c, m, report); /* its files first */
        on_snapshot_report(c, report);
        break;
    case CLU_REPORT_FINISHED:
        c->finished = true;
        schd_core_save(c);
        break;
    case CLU_REPORT_GONE_ON:
        on_gone_on(c, report);
        pass_on(c, m, report);
        break;
    case CLU_REPORT_MOVED:
        schd_core_moved(c, now, report);
        break;
    case CLU_REPORT_SETTLED:
        schd_core_settled(c, now);
        break;
    case CLU_REPORT_TROUBLE:
        schd_core_tell(c, CLU_LOG_WARN, "%s %d: %s", clu_role_name(m->role), m->rank, report->text);
        break;
    }
}

/* A report counts once. Its receipt comes last: with it the member forgets the report, so whatever
 * it changed is stored by then (C4). */
static void on_report(struct schd_coordinator *c, int64_t now, struct member *m,
                      const struct clu_control_message *message)
{
    if (message->number > m->last_report) {
        m->last_report = message->number;
        take_report(c, now, m, &message->report);
    }
    schd_core_send_to(c, &m->peer, CLU_CONTROL_RECEIPT)->number = message->number;
}

static void take_leave(struct schd_coordinator *c, int64_t now, struct member *m,
                       const struct clu_control_message *message)
{
    m->status = message->status;
    memcpy(m->text, message->text, sizeof(m->text));
    schd_core_drop_orders(m);
    if (schd_core_is_spare(c, m, message->text[0] ? message->text : "left"))
        return;
    bool well = message->status == CLU_OK || (message->status == CLU_E_INTERRUPTED && c->stopping);
    if (!well && m->role == CLU_ROLE_PS && m->stand && m->state != SCHD_READY)
        c->must_go_back = true;
    m->state = well ? SCHD_LEFT : SCHD_DEAD;
    schd_core_save(c);
    if (!well) {
        schd_core_fail(c, now, message->status, "%s %d failed: %s", clu_role_name(m->role), m->rank,
                       message->text[0] ? message->text : clu_status_text(message->status));
        return;
    }
    if (m->role == CLU_ROLE_PS && c->phase != SCHD_STOPPING && c->phase != SCHD_BROKEN)
        schd_core_fail(c, now, CLU_E_LOST, "ps %d left while the job needed it", m->rank);
    schd_core_workers_left(c, now);
    schd_core_servers_left(c);
}

static void on_leave(struct schd_coordinator *c, int64_t now, struct member *m,
                     const struct clu_peer *peer, const struct clu_control_message *message)
{
    if (schd_core_is_here(m))
        take_leave(c, now, m, message);
    schd_core_send_to(c, peer, CLU_CONTROL_RECEIPT)->number = 0; /* as of a report */
}

void schd_coordinator_hear(struct schd_coordinator *c, int64_t now, const struct clu_peer *peer,
                           const struct clu_control_message *message)
{
    struct member *m = schd_core_find(c, message->role, message->rank);
    if (!m) {
        if (message->op == CLU_CONTROL_JOIN)
            schd_core_refuse(c, peer, CLU_E_CONFIG,
                             "the job has no such rank: its shape is another one");
        return;
    }
    if (message->op == CLU_CONTROL_JOIN) {
        on_join(c, now, m, peer, message);
        return;
    }
    if (m->incarnation != message->incarnation || m->state == SCHD_DEAD || /* (C1) */
        m->state == SCHD_ABSENT || m->state == SCHD_DRAINED) {
        if (message->op == CLU_CONTROL_LEAVE)
            schd_core_send_to(c, peer, CLU_CONTROL_RECEIPT)->number = 0;
        else
            schd_core_refuse(c, peer, CLU_E_LOST, "the job has gone on without this member");
        return;
    }
    m->heard_ms = now;
    m->suspect = false;
    switch (message->op) {
    case CLU_CONTROL_BEAT:
        on_beat(c, m, peer, message);
        break;
    case CLU_CONTROL_REPORT:
        if (m->attached)
            on_report(c, now, m, message);
        break;
    case CLU_CONTROL_LEAVE:
        on_leave(c, now, m, peer, message);
        break;
    default:
        break;
    }
}

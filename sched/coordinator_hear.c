/* What the coordinator does with the messages of members: beats, reports, goodbyes; joins are
 * another file's (coordinator_join.c). The table of transitions and the invariants are in
 * coordinator.c.
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SLOW_SECONDS = 0.25; /* less is the noise of a busy machine */

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
        if (report->step > c->step)
            c->step = report->step;
        if (!c->stopping)
            memcpy(c->stop_why, report->text, sizeof(c->stop_why));
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
        schd_core_join(c, now, m, peer, message);
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

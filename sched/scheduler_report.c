/* What the scheduler tells others: events for its supervisor, lines of metrics.jsonl for plots, the
 * status for `sluice status`. All of it is JSON, built by jansson but for the figures, whose order
 * is kept.
 */
#include "sched/scheduler_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "cluster/transport.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Writes an event line and frees it. */
static void emit(struct schd_scheduler *s, json_t *event)
{
    if (s->supervised && event) {
        json_dumpf(event, stdout, JSON_COMPACT);
        fputc('\n', stdout);
        fflush(stdout);
    }
    json_decref(event);
}

static json_t *figures_json(const struct clu_figures *figures)
{
    json_t *object = json_object();
    for (int i = 0; i < figures->n; i++)
        json_object_set_new(object, figures->figure[i].name, json_real(figures->figure[i].value));
    return object;
}

void schd_event_listening(struct schd_scheduler *s)
{
    emit(s, json_pack("{s:s, s:s}", "event", "listening", "endpoint", s->endpoint));
}

void schd_event_alive(struct schd_scheduler *s)
{
    emit(s, json_pack("{s:s}", "event", "alive"));
}

void schd_event_phase(struct schd_scheduler *s, const struct schd_view *view)
{
    if (view->phase == SCHD_BROKEN && !view->text[0])
        return; /* paused by the supervisor's own plan: nothing new is lost */
    if (view->phase == SCHD_BROKEN)
        emit(s, json_pack("{s:s, s:i, s:s, s:I}", "event", "broken", "status", view->status, "text",
                          view->text, "step", (json_int_t)view->step));
    else
        emit(s, json_pack("{s:s, s:s, s:I}", "event", "phase", "phase",
                          schd_phase_name(view->phase), "step", (json_int_t)view->step));
}

void schd_event_figures(struct schd_scheduler *s, enum clu_role role, int rank,
                        const struct clu_report *report)
{
    const char *kind = report->kind == CLU_REPORT_EVALUATED ? "evaluated"
                       : report->kind == CLU_REPORT_GONE_ON ? "gone_on"
                                                            : "progress";
    fprintf(s->metrics_file,
            "{\"time_ms\":%" PRId64 ",\"kind\":\"%s\",\"role\":\"%s\",\"rank\":%d,\"step\":%" PRIu64
            "%s",
            schd_wall_ms(), kind, clu_role_name(role), rank, report->step,
            report->figures.n ? "," : "");
    clu_figures_print_json(&report->figures, s->metrics_file);
    fputs("}\n", s->metrics_file);
    fflush(s->metrics_file);
    emit(s, json_pack("{s:s, s:I, s:I, s:o}", "event", kind, "step", (json_int_t)report->step,
                      "n_steps", (json_int_t)report->n_steps, "figures",
                      figures_json(&report->figures)));
}

void schd_event_snapshot(struct schd_scheduler *s, uint64_t step, uint64_t base_step, int status)
{
    fprintf(s->metrics_file,
            "{\"time_ms\":%" PRId64 ",\"kind\":\"snapshot\",\"step\":%" PRIu64
            ",\"base_step\":%" PRIu64 ",\"status\":%d%s",
            schd_wall_ms(), step, base_step, status, s->snapshot_figures.n ? "," : "");
    clu_figures_print_json(&s->snapshot_figures, s->metrics_file);
    fputs("}\n", s->metrics_file);
    fflush(s->metrics_file);
    emit(s, json_pack("{s:s, s:I, s:I, s:i}", "event", "snapshot", "step", (json_int_t)step,
                      "base_step", (json_int_t)base_step, "status", status));
}

static const char *const way_names[] = {"stand", "workers", "back", "anew"};

bool schd_event_plan(struct schd_scheduler *s, enum schd_way way)
{
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    json_t *servers = json_array();
    for (int r = 0; r < view.n_members - (int)s->job->workers; r++)
        if (schd_coordinator_starts(s->coordinator, way, CLU_ROLE_PS, r))
            json_array_append_new(servers, json_integer(r));
    json_t *event = json_pack("{s:s, s:s, s:o, s:b}", "event", "plan", "way", way_names[way],
                              "servers", servers, "workers",
                              schd_coordinator_starts(s->coordinator, way, CLU_ROLE_WORKER, 0));
    char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;
    if (text && s->plan && strcmp(text, s->plan) == 0) {
        free(text);
        json_decref(event);
        return false;
    }
    free(s->plan);
    s->plan = text;
    emit(s, event);
    return true;
}

void schd_event_recovered(struct schd_scheduler *s, enum schd_way way)
{
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    fprintf(s->metrics_file,
            "{\"time_ms\":%" PRId64 ",\"kind\":\"recovered\",\"step\":%" PRIu64
            ",\"way\":\"%s\",\"generation\":%" PRIu64 "}\n",
            schd_wall_ms(), view.step, way_names[way], view.generation);
    fflush(s->metrics_file);
    emit(s, json_pack("{s:s, s:I, s:I, s:s}", "event", "recovered", "generation",
                      (json_int_t)view.generation, "step", (json_int_t)view.step, "way",
                      way_names[way]));
}

void schd_event_server(struct schd_scheduler *s, const char *event, int rank)
{
    emit(s, json_pack("{s:s, s:i}", "event", event, "rank", rank));
}

void schd_event_change(struct schd_scheduler *s, const struct schd_view *view)
{
    fprintf(s->metrics_file,
            "{\"time_ms\":%" PRId64 ",\"kind\":\"change\",\"step\":%" PRIu64
            ",\"state\":\"%s\",\"moved\":%d,\"seconds\":%.3f}\n",
            schd_wall_ms(), view->step, schd_change_name(view->change), view->n_moved,
            (double)view->change_ms * 1e-3);
    fflush(s->metrics_file);
    emit(s, json_pack("{s:s, s:s, s:s}", "event", "change", "state", schd_change_name(view->change),
                      "text", view->change_text));
}

void schd_event_reshape(struct schd_scheduler *s, int servers)
{
    emit(s, json_pack("{s:s, s:i}", "event", "reshape", "servers", servers));
}

void schd_event_end(struct schd_scheduler *s, int status, const char *text)
{
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    emit(s, json_pack("{s:s, s:i, s:s, s:I, s:s}", "event", "end", "status", status, "text", text,
                      "step", (json_int_t)view.step, "kept", view.kept));
}

void schd_remember(struct schd_scheduler *s, int level, const char *text)
{
    if (level > CLU_LOG_WARN)
        return;
    struct schd_remembered *slot = &s->remembered[s->n_remembered++ % N_REMEMBERED];
    slot->time_ms = schd_wall_ms();
    slot->level = level;
    snprintf(slot->text, sizeof(slot->text), "%s", text);
}

static json_t *member_json(const struct schd_scheduler *s, const struct schd_member_view *m)
{
    json_t *object = json_pack(
        "{s:s, s:i, s:s, s:b, s:I, s:I, s:s}", "role", clu_role_name(m->role), "rank", m->rank,
        "state", schd_member_state_name(m->state), "slow", m->suspect || m->lags, "silent_ms",
        (json_int_t)m->silent_ms, "pid", (json_int_t)m->pid, "host", m->host);
    bool ended = m->state == SCHD_DEAD || m->state == SCHD_LEFT;
    if (object && (ended || m->text[0])) /* of one that runs again: how the one before it ended */
        json_object_set_new(
            object, ended ? "end" : "last_end",
            json_pack("{s:s, s:s}", "status", clu_status_name(m->status), "text", m->text));
    const char *url = schd_metrics_url(s, m->role, m->rank);
    if (object && url[0])
        json_object_set_new(object, "metrics", json_string(url));
    if (object && m->figures)
        json_object_set_new(object, "figures", figures_json(m->figures));
    return object;
}

/* The newest change of shape: how far it is, or how it went. */
static json_t *change_json(const struct schd_view *view)
{
    return json_pack("{s:s, s:i, s:i, s:f, s:s}", "state", schd_change_name(view->change), "moved",
                     view->n_moved, "to_move", view->n_to_move, "seconds",
                     (double)view->change_ms * 1e-3, "text", view->change_text);
}

char *schd_status_json(struct schd_scheduler *s)
{
    struct schd_view view;
    int64_t now = schd_now_ms();
    schd_coordinator_view(s->coordinator, &view);
    json_t *members = json_array(), *events = json_array();
    for (int i = 0; i < view.n_members; i++) {
        struct schd_member_view member;
        schd_coordinator_member(s->coordinator, i, now, &member);
        json_array_append_new(members, member_json(s, &member));
    }
    int first = s->n_remembered > N_REMEMBERED ? s->n_remembered - N_REMEMBERED : 0;
    for (int i = first; i < s->n_remembered; i++) {
        const struct schd_remembered *event = &s->remembered[i % N_REMEMBERED];
        json_array_append_new(events,
                              json_pack("{s:I, s:s, s:s}", "time_ms", (json_int_t)event->time_ms,
                                        "level", event->level == CLU_LOG_ERROR ? "error" : "warn",
                                        "text", event->text));
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:I, s:s, s:o, s:o, "
        "s:o, s:o, s:o}",
        "phase", schd_phase_name(view.phase), "endpoint", s->endpoint, "generation",
        (json_int_t)view.generation, "step", (json_int_t)view.step, "n_steps",
        (json_int_t)view.n_steps, "snapshot_step", (json_int_t)view.snapshot_step, "gone_on",
        (json_int_t)view.n_gone_on, "lost_steps", (json_int_t)view.lost_steps, "lost_samples",
        (json_int_t)view.lost_samples, "snapshot_under_way", view.snapshot_under_way, "stopping",
        view.stopping, "uptime_ms", (json_int_t)(now - s->started_ms), "malformed_messages",
        (json_int_t)clu_control_n_malformed(s->control), "denied_connections",
        (json_int_t)clu_transport_denied(s->transport), "text", view.text, "progress",
        figures_json(view.progress), "evaluation", figures_json(view.evaluation), "snapshot",
        figures_json(&s->snapshot_figures), "members", members, "events", events);
    json_object_set_new(root, "servers", json_integer(view.n_servers));
    json_object_set_new(root, "change", change_json(&view));
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    return text;
}

void schd_dump(struct schd_scheduler *s)
{
    struct schd_view view;
    int64_t now = schd_now_ms();
    schd_coordinator_view(s->coordinator, &view);
    clu_info("state: %s, generation %" PRIu64 ", step %" PRIu64 " of %" PRIu64
             ", newest snapshot %" PRIu64 "%s%s",
             schd_phase_name(view.phase), view.generation, view.step, view.n_steps,
             view.snapshot_step, view.snapshot_under_way ? ", a snapshot is under way" : "",
             view.stopping ? ", stopping" : "");
    for (int i = 0; i < view.n_members; i++) {
        struct schd_member_view m;
        schd_coordinator_member(s->coordinator, i, now, &m);
        clu_info("state: %s %d %s, pid %" PRId64 " on %s, heard %" PRId64 " ms ago%s",
                 clu_role_name(m.role), m.rank, schd_member_state_name(m.state), m.pid,
                 m.host[0] ? m.host : "-", m.silent_ms, m.suspect || m.lags ? ", slow" : "");
    }
}

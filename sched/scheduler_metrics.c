/* The scheduler's metrics as Prometheus text: the job, its members as heartbeats see them, and the
 * figures that members report, so that one scrape a job is enough to see how it goes.
 *
 *     sluice_step 480                               sluice_member_up{role="ps",rank="1"} 1
 *     sluice_progress{figure="loss"} 1.3072         sluice_ps{rank="1",figure="rows"} 120331
 */
#include "sched/outside.h"
#include "sched/scheduler_internal.h"

#include "cluster/status.h"
#include "cluster/transport.h"
#include "ps/client.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A counter, where the name says so. */
static void print_gauge(FILE *out, const char *name, const char *help, double value)
{
    size_t n = strlen(name);
    bool counts = n > 6 && strcmp(name + n - 6, "_total") == 0;
    fprintf(out, "# HELP sluice_%s %s\n# TYPE sluice_%s %s\nsluice_%s %.15g\n", name, help, name,
            counts ? "counter" : "gauge", name, value);
}

static void print_figures(FILE *out, const char *name, const char *labels,
                          const struct clu_figures *figures)
{
    for (int i = 0; figures && i < figures->n; i++)
        if (isfinite(figures->figure[i].value))
            fprintf(out, "sluice_%s{%sfigure=\"%s\"} %.12g\n", name, labels,
                    figures->figure[i].name, figures->figure[i].value);
}

/* The bins of rank 0's report as a histogram; its last bin, "or more", is beyond every bound. */
static void print_staleness(FILE *out, const struct clu_figures *progress)
{
    double n = 0, sum = 0;
    fputs("# HELP sluice_pull_staleness_steps steps that the rows of a pull missed\n"
          "# TYPE sluice_pull_staleness_steps histogram\n",
          out);
    for (int i = 0; i < PSV_STALENESS_BINS; i++) {
        char name[CLU_FIGURE_NAME_BYTES];
        snprintf(name, sizeof(name), "staleness_%d_total", i);
        double count = progress ? clu_figures_get(progress, name, 0) : 0;
        n += count;
        sum += count * i;
        if (i + 1 < PSV_STALENESS_BINS)
            fprintf(out, "sluice_pull_staleness_steps_bucket{le=\"%d\"} %.0f\n", i, n);
    }
    fprintf(out,
            "sluice_pull_staleness_steps_bucket{le=\"+Inf\"} %.0f\n"
            "sluice_pull_staleness_steps_sum %.0f\nsluice_pull_staleness_steps_count %.0f\n",
            n, sum, n);
}

static void print_members(FILE *out, const struct schd_scheduler *s, int n)
{
    struct schd_member_view m;
    int64_t now = schd_now_ms();
    fputs("# HELP sluice_member_up whether a member is part of the job\n"
          "# TYPE sluice_member_up gauge\n",
          out);
    for (int i = 0; i < n; i++) {
        schd_coordinator_member(s->coordinator, i, now, &m);
        fprintf(out, "sluice_member_up{role=\"%s\",rank=\"%d\"} %d\n", clu_role_name(m.role),
                m.rank, m.state == SCHD_IN || m.state == SCHD_READY);
    }
    fputs("# HELP sluice_member_silent_seconds time since a member was heard\n"
          "# TYPE sluice_member_silent_seconds gauge\n",
          out);
    for (int i = 0; i < n; i++) {
        schd_coordinator_member(s->coordinator, i, now, &m);
        fprintf(out, "sluice_member_silent_seconds{role=\"%s\",rank=\"%d\"} %.3f\n",
                clu_role_name(m.role), m.rank, (double)m.silent_ms / 1000);
    }
    fputs("# HELP sluice_ps what a server says of itself\n# TYPE sluice_ps untyped\n", out);
    for (int i = 0; i < n; i++) {
        char labels[32];
        schd_coordinator_member(s->coordinator, i, now, &m);
        snprintf(labels, sizeof(labels), "rank=\"%d\",", m.rank);
        if (m.role == CLU_ROLE_PS)
            print_figures(out, "ps", labels, m.figures);
    }
}

char *schd_metrics_text(struct schd_scheduler *s)
{
    struct schd_view view;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    schd_print_process(out, "role=\"sched\",rank=\"0\"");
    schd_coordinator_view(s->coordinator, &view);
    print_gauge(out, "step", "steps done", (double)view.step);
    print_gauge(out, "steps", "steps the job will have; 0: unknown", (double)view.n_steps);
    print_gauge(out, "servers", "servers that hold rows", view.n_servers);
    print_gauge(out, "buckets_to_move", "buckets of the newest change of shape", view.n_to_move);
    print_gauge(out, "buckets_moved", "of them, where they are to be", view.n_moved);
    print_gauge(out, "change_seconds", "time that the newest change of shape has taken",
                (double)view.change_ms * 1e-3);
    print_gauge(out, "generation", "life of the job: grows with every roll-back or restart",
                (double)view.generation);
    print_gauge(out, "snapshot_step", "step of the newest whole snapshot",
                (double)view.snapshot_step);
    print_gauge(out, "gone_on_total", "times that new workers went on with rows as they stood",
                (double)view.n_gone_on);
    print_gauge(out, "lost_steps_total", "steps that dense weights missed by it",
                (double)view.lost_steps);
    print_gauge(out, "lost_samples_total", "samples of those steps", (double)view.lost_samples);
    print_gauge(out, "uptime_seconds", "of the scheduler",
                (double)(schd_now_ms() - s->started_ms) / 1000);
    print_gauge(out, "malformed_messages_total", "control messages dropped",
                (double)clu_control_n_malformed(s->control));
    print_gauge(out, "denied_connections_total",
                "connections to the scheduler refused for their key or mechanism",
                (double)clu_transport_denied(s->transport));
    fprintf(out,
            "# HELP sluice_phase the phase the job is in\n# TYPE sluice_phase gauge\n"
            "sluice_phase{phase=\"%s\"} 1\n",
            schd_phase_name(view.phase));
    fputs("# HELP sluice_progress figures of the last interval\n# TYPE sluice_progress untyped\n",
          out);
    print_figures(out, "progress", "", view.progress);
    print_staleness(out, view.progress);
    fputs("# HELP sluice_snapshot figures of the last snapshot\n# TYPE sluice_snapshot untyped\n",
          out);
    print_figures(out, "snapshot", "", &s->snapshot_figures);
    fputs("# HELP sluice_evaluation figures of the last evaluation\n"
          "# TYPE sluice_evaluation untyped\n",
          out);
    print_figures(out, "evaluation", "", view.evaluation);
    print_members(out, s, view.n_members);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

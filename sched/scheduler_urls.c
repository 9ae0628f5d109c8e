/* Where the members of a job serve their metrics. They say so whenever they join, to every
 * scheduler of the job anew, so nothing of it is stored, and no decision rests on it. */
#include "sched/page.h"
#include "sched/scheduler_internal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

void schd_note_metrics_url(struct schd_scheduler *s, const struct clu_control_message *message)
{
    int most = message->role == CLU_ROLE_WORKER ? (int)s->job->workers : CLU_MAX_SHARDS;
    struct schd_urls *urls = &s->urls[message->role];
    if (message->op != CLU_CONTROL_JOIN || message->rank >= most)
        return;
    if (message->rank >= urls->n) {
        int n = message->rank + 1;
        void *grown = realloc(urls->url, (size_t)n * sizeof(*urls->url));
        if (!grown)
            return; /* then it is not shown */
        urls->url = grown;
        memset(urls->url + urls->n, 0, (size_t)(n - urls->n) * sizeof(*urls->url));
        urls->n = n;
    }
    memcpy(urls->url[message->rank], message->metrics_url, sizeof(*urls->url));
}

const char *schd_metrics_url(const struct schd_scheduler *s, enum clu_role role, int rank)
{
    return rank < s->urls[role].n ? s->urls[role].url[rank] : "";
}

void schd_forget_metrics_urls(struct schd_scheduler *s)
{
    for (int role = 0; role < CLU_N_ROLES; role++) {
        free(s->urls[role].url);
        s->urls[role] = (struct schd_urls){0};
    }
}

/* "http://host:port/" as "host:port" */
static void add_target(json_t *targets, const char *url)
{
    static const char scheme[] = "http://";
    size_t length = sizeof(scheme) - 1;
    if (strncmp(url, scheme, length) == 0)
        json_array_append_new(targets, json_stringn(url + length, strcspn(url + length, "/")));
}

char *schd_targets_json(struct schd_scheduler *s)
{
    struct schd_view view;
    json_t *targets = json_array();
    schd_coordinator_view(s->coordinator, &view);
    add_target(targets, schd_page_url(s->page));
    for (int i = 0; i < view.n_members; i++) {
        struct schd_member_view m;
        schd_coordinator_member(s->coordinator, i, schd_now_ms(), &m);
        if (m.state == SCHD_IN || m.state == SCHD_READY)
            add_target(targets, schd_metrics_url(s, m.role, m.rank));
    }
    json_t *root = json_pack("[{s:o}]", "targets", targets);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

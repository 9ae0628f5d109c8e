/* What the supervisor hears: events of the scheduler (JSON lines) and the roles' logs. Every line
 * of a log goes to a file of its role and rank; warnings and errors also to the terminal. Lines of
 * all ranks come through mpirun's pipe mixed, and are told apart by the role and rank that every
 * line carries.
 */
#include "sched/supervise_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void schd_supervisor_say(struct schd_supervisor *s, int level, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    schd_progress_clear(&s->progress);
    clu_log((enum clu_log_level)level, "%s", text);
}

void schd_supervisor_blame(struct schd_supervisor *s, int status, bool by_scheduler,
                           const char *format, ...)
{
    struct schd_verdict *v = &s->verdict;
    /* the member's own words are better than "ended with exit code 65" a moment before */
    bool better = v->there && by_scheduler && !v->by_scheduler && !v->launch &&
                  v->status == status && status != CLU_E_LOST;
    if (s->killing || (v->there && !better))
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(v->text, sizeof(v->text), format, args);
    va_end(args);
    v->status = status;
    v->launch = false;
    v->by_scheduler = by_scheduler;
    if (!v->there)
        v->time_ms = now_ms();
    v->there = true;
}

/* ---- log files ---- */

static FILE *open_log(const struct schd_supervisor *s, const char *role, int rank)
{
    char name[64], path[CLU_PATH_BYTES];
    if (rank >= 0)
        snprintf(name, sizeof(name), "%s-%d.log", role, rank);
    else
        snprintf(name, sizeof(name), "%s.log", role);
    if (clu_path_join(path, sizeof(path), s->log_folder, name))
        return NULL;
    FILE *file = fopen(path, "ae");
    if (file)
        setvbuf(file, NULL, _IOLBF, 0);
    else
        clu_error("%s: %s", path, strerror(errno));
    return file;
}

int schd_supervisor_open_ps_log(struct schd_supervisor *s, int rank)
{
    if (!s->ps_log[rank])
        s->ps_log[rank] = open_log(s, "ps", rank);
    return s->ps_log[rank] ? CLU_OK : CLU_E_IO;
}

int schd_supervisor_open_logs(struct schd_supervisor *s)
{
    s->ps_log = calloc(CLU_MAX_SHARDS, sizeof(*s->ps_log));
    s->worker_log = calloc((size_t)s->job->workers, sizeof(*s->worker_log));
    s->sched_log = open_log(s, "sched", 0);
    s->mpi_log = open_log(s, "mpirun", -1);
    if (!s->ps_log || !s->worker_log || !s->sched_log || !s->mpi_log)
        return CLU_E_IO;
    for (int r = 0; r < s->n_ps; r++)
        if (schd_supervisor_open_ps_log(s, r))
            return CLU_E_IO;
    return CLU_OK; /* a rank's file is opened by its first line: they may be thousands */
}

static void close_all(FILE **files, int64_t n)
{
    for (int64_t i = 0; files && i < n; i++)
        if (files[i])
            fclose(files[i]);
    free(files);
}

void schd_supervisor_close_logs(struct schd_supervisor *s)
{
    close_all(s->ps_log, s->n_ps);
    close_all(s->worker_log, s->job->workers);
    if (s->sched_log)
        fclose(s->sched_log);
    if (s->mpi_log)
        fclose(s->mpi_log);
    s->ps_log = s->worker_log = NULL;
    s->sched_log = s->mpi_log = NULL;
}

/* ---- lines ---- */

/* "TIME LEVEL ROLE RANK: text", or the JSON of it. */
static bool is_alarming(const char *line)
{
    if (line[0] == '{')
        return strstr(line, "\"level\":\"warn\"") || strstr(line, "\"level\":\"error\"");
    const char *level = strchr(line, ' ');
    return level && line[0] >= '0' && line[0] <= '9' &&
           (strncmp(level, " warn ", 6) == 0 || strncmp(level, " error ", 7) == 0);
}

static int rank_of(const char *line)
{
    int rank;
    if (line[0] == '{') {
        const char *at = strstr(line, "\"rank\":");
        return strstr(line, "\"role\":\"worker\"") && at ? atoi(at + 7) : -1;
    }
    return sscanf(line, "%*40s %*8s worker %d:", &rank) == 1 ? rank : -1;
}

static void relay(struct schd_supervisor *s, bool unwanted, FILE *file, const char *line)
{
    if (file)
        fprintf(file, "%s\n", line);
    /* what follows from a failure, and the noise of roles that are being ended, is for the files */
    if (s->killing || unwanted || s->verdict.there || !is_alarming(line))
        return;
    schd_progress_clear(&s->progress);
    fprintf(stderr, "%s\n", line);
}

void schd_supervisor_sched_line(void *context, char *line)
{
    struct schd_supervisor *s = context;
    relay(s, s->sched.unwanted, s->sched_log, line);
}

void schd_supervisor_ps_line(struct schd_supervisor *s, int rank, char *line)
{
    schd_launch_words_hear(&s->words[2 + rank], line);
    relay(s, s->ps[rank].unwanted, s->ps_log[rank], line);
}

void schd_supervisor_worker_line(void *context, char *line)
{
    struct schd_supervisor *s = context;
    int rank = rank_of(line);
    if (rank >= 0 && rank < s->job->workers) {
        if (!s->worker_log[rank])
            s->worker_log[rank] = open_log(s, "worker", rank);
        relay(s, s->workers.unwanted, s->worker_log[rank], line);
        return;
    }
    schd_launch_words_hear(&s->words[1], line);
    relay(s, s->workers.unwanted, s->mpi_log, line);
    /* "mpirun noticed that process rank 1 with PID 7 on node x exited on signal 9 (Killed)." */
    const char *at = strstr(line, "process rank ");
    const char *how = strstr(line, "exited on signal ");
    if (at && how && s->dead_rank < 0) {
        s->dead_rank = atoi(at + strlen("process rank "));
        snprintf(s->dead_how, sizeof(s->dead_how), "was killed by signal %.80s",
                 how + strlen("exited on signal "));
        s->dead_how[strcspn(s->dead_how, ".")] = '\0';
    }
}

/* ---- events ---- */

static void on_figures(struct schd_supervisor *s, json_t *event, bool evaluated)
{
    struct clu_figures figures = {0};
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(event, "figures"), name, value)
        clu_figures_put(&figures, name, json_number_value(value));
    uint64_t step = (uint64_t)json_integer_value(json_object_get(event, "step"));
    if (!evaluated) {
        s->step = step;
        s->n_steps = (uint64_t)json_integer_value(json_object_get(event, "n_steps"));
        schd_progress_show(&s->progress, now_ms(), s->step, s->n_steps, &figures);
        return;
    }
    s->step = step > s->step ? step : s->step;
    char text[900] = "";
    size_t n = 0;
    for (int i = 0; i < figures.n && n < sizeof(text) - 160; i++) {
        const char *at = strstr(figures.figure[i].name, "_auc");
        int size = (int)(at - figures.figure[i].name);
        if (!at || at[4] || (size >= 5 && strncmp(at - 5, "_best", 5) == 0))
            continue;
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s %.*s %.4f", n ? "," : "", size,
                              figures.figure[i].name, figures.figure[i].value);
    }
    schd_supervisor_say(s, CLU_LOG_INFO, "evaluated at step %llu, AUC:%s", (unsigned long long)step,
                        text);
}

static void copy_text(char *out, size_t out_bytes, json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));
    snprintf(out, out_bytes, "%s", text ? text : "");
}

static void on_plan(struct schd_supervisor *s, json_t *event)
{
    size_t i;
    json_t *rank;
    s->planned = true;
    copy_text(s->way, sizeof(s->way), event, "way");
    s->start_workers = json_is_true(json_object_get(event, "workers"));
    for (int r = 0; r < s->n_ps; r++)
        s->start_ps[r] = false;
    json_array_foreach(json_object_get(event, "servers"), i, rank)
    {
        json_int_t r = json_integer_value(rank);
        if (r >= 0 && r < s->n_ps)
            s->start_ps[r] = true;
    }
}

static void on_change(struct schd_supervisor *s, json_t *event)
{
    char text[CLU_TEXT_BYTES];
    const char *state = json_string_value(json_object_get(event, "state"));
    copy_text(text, sizeof(text), event, "text");
    s->joining = state && strcmp(state, "joining") == 0;
    schd_supervisor_say(s, CLU_LOG_INFO, "%s", text);
}

static void on_end(struct schd_supervisor *s, json_t *event)
{
    uint64_t step = (uint64_t)json_integer_value(json_object_get(event, "step"));
    s->end_told = true;
    s->end_status = (int)json_integer_value(json_object_get(event, "status"));
    s->end_ms = now_ms();
    s->step = step > s->step ? step : s->step;
    copy_text(s->end_text, sizeof(s->end_text), event, "text");
    copy_text(s->kept, sizeof(s->kept), event, "kept");
}

void schd_supervisor_event(void *context, char *line)
{
    struct schd_supervisor *s = context;
    json_t *event = json_loads(line, 0, NULL);
    const char *kind = json_string_value(json_object_get(event, "event"));
    char text[CLU_TEXT_BYTES];
    int status = (int)json_integer_value(json_object_get(event, "status"));
    s->sched_heard_ms = now_ms();
    if (!kind) {
        clu_debug("the scheduler said something that is no event: %s", line);
    } else if (strcmp(kind, "listening") == 0) {
        copy_text(s->launch.endpoint, sizeof(s->launch.endpoint), event, "endpoint");
        s->listening = true;
    } else if (strcmp(kind, "progress") == 0 || strcmp(kind, "evaluated") == 0) {
        on_figures(s, event, kind[0] == 'e');
    } else if (strcmp(kind, "phase") == 0) {
        copy_text(s->phase, sizeof(s->phase), event, "phase");
    } else if (strcmp(kind, "broken") == 0) {
        copy_text(text, sizeof(text), event, "text");
        schd_supervisor_blame(s, status, true, "%s", text);
    } else if (strcmp(kind, "recovered") == 0) {
        s->recovered = s->planned = true;
        s->step = (uint64_t)json_integer_value(json_object_get(event, "step"));
    } else if (strcmp(kind, "plan") == 0) {
        on_plan(s, event);
    } else if (strcmp(kind, "snapshot") == 0 && status == 0) {
        s->snapshot_step = (uint64_t)json_integer_value(json_object_get(event, "step"));
    } else if (strcmp(kind, "start") == 0) {
        schd_supervisor_start_server(s, (int)json_integer_value(json_object_get(event, "rank")));
    } else if (strcmp(kind, "release") == 0) {
        schd_supervisor_release_server(s, (int)json_integer_value(json_object_get(event, "rank")));
    } else if (strcmp(kind, "change") == 0) {
        on_change(s, event);
    } else if (strcmp(kind, "reshape") == 0) {
        s->reshape_servers = (int)json_integer_value(json_object_get(event, "servers"));
    } else if (strcmp(kind, "end") == 0) {
        on_end(s, event);
    }
    json_decref(event);
}

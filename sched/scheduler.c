/* The scheduler's loop: wait for a message, a command or a signal; feed the coordinator; carry out
 * what it answers. All policy is in the coordinator; what is here is I/O, and two things only a
 * process can do:
 *
 * - Committing a snapshot may take as long as the disk likes, and members must not fall silent
 * meanwhile:
 *   it happens in a thread of its own, one at a time.
 * - The state is stored before the messages that rely on it are sent (coordinator.c, C4): actions
 * are
 *   carried out strictly in order, and SAVE is one of them.
 */
#include "sched/folder.h"
#include "sched/page.h"
#include "sched/process.h"
#include "sched/scheduler_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 50, PAGE_MS = 1000, STOP_TIMEOUT_MS = 120000, COMMAND_BYTES = 4096 };

int64_t schd_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t schd_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- committing, in a thread of its own ---- */

static void *commit_thread(void *context)
{
    struct schd_scheduler *s = context;
    s->commit_status = clu_snapshot_commit(s->snapshot_root, &s->committing, s->job->keep);
    uint64_t one = 1;
    while (write(s->commit_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    return NULL;
}

static void forget_files(struct schd_scheduler *s)
{
    free(s->files);
    s->files = NULL;
    s->n_files = 0;
}

/* Starts committing with the files that were reported for this step. */
static void start_commit(struct schd_scheduler *s, uint64_t step)
{
    if (s->commit_running)
        return; /* the report came twice; the first is being carried out */
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    s->committing = (struct clu_manifest){
        .job_id = view.job_id,
        .generation = view.generation,
        .step = step,
        .base_step = s->files_step == step ? s->files_base : 0,
        .time_ms = schd_wall_ms(),
        .n_servers = view.n_servers,
        .n_shards = schd_coordinator_map(s->coordinator)->n_shards,
        .n_workers = (int)s->job->workers,
        .n_files = s->files_step == step ? s->n_files : 0,
        .files = s->files_step == step ? s->files : NULL,
    };
    if (s->files_step == step) {
        s->files = NULL;
        s->n_files = 0;
    }
    s->commit_running = true;
    if (pthread_create(&s->commit, NULL, commit_thread, s)) {
        commit_thread(s);
        s->commit_inline = true;
    }
}

/* Takes the result of a commit that has ended. */
static void finish_commit(struct schd_scheduler *s)
{
    uint64_t count;
    if (!s->commit_running || read(s->commit_fd, &count, sizeof(count)) != sizeof(count))
        return;
    if (!s->commit_inline)
        pthread_join(s->commit, NULL);
    s->commit_inline = s->commit_running = false;
    if (!s->commit_status) /* written just now; upon what, was known or not */
        s->sure_step = !s->committing.base_step || s->committing.base_step == s->sure_step
                           ? s->committing.step
                           : 0;
    schd_event_snapshot(s, s->committing.step, s->committing.base_step, s->commit_status);
    schd_coordinator_committed(s->coordinator, schd_now_ms(), s->committing.step, s->commit_status);
    if (!s->commit_status)
        schd_scheduler_sweep(s);
    clu_manifest_fini(&s->committing);
}

/* Remembers files of a snapshot under way. */
static void take_files(struct schd_scheduler *s, const struct clu_report *report)
{
    if (report->kind != CLU_REPORT_SNAPSHOT && report->n_files == 0)
        return;
    if (report->step != s->files_step) {
        forget_files(s);
        s->files_step = report->step;
    }
    if (report->kind == CLU_REPORT_SNAPSHOT) {
        s->files_base = report->base_step;
        s->snapshot_figures = report->figures;
    }
    if (report->n_files == 0)
        return;
    void *grown = realloc(s->files, (size_t)(s->n_files + report->n_files) * sizeof(s->files[0]));
    if (!grown)
        return; /* unreported files are read and summed by the commit */
    s->files = grown;
    memcpy(s->files + s->n_files, report->files, (size_t)report->n_files * sizeof(s->files[0]));
    s->n_files += report->n_files;
}

static void drop_part(struct schd_scheduler *s, uint64_t step)
{
    char folder[CLU_PATH_BYTES];
    if (step > 0 && !s->commit_running &&
        !clu_snapshot_folder(s->snapshot_root, step, true, folder))
        clu_remove_tree(folder);
}

/* ---- actions ---- */

static void carry_send(struct schd_scheduler *s, const struct schd_action *action)
{
    struct clu_control_message *out = s->out;
    memset(out, 0, sizeof(*out));
    out->op = action->op;
    out->role = CLU_ROLE_SCHED;
    out->number = action->number;
    out->status = action->status;
    memcpy(out->text, action->text, sizeof(out->text));
    out->welcome = action->welcome;
    out->order = action->order;
    out->map_version = schd_coordinator_map(s->coordinator)->version;
    if (action->with_map) {
        out->has_map = true;
        out->map = (struct clu_bucket_map *)schd_coordinator_map(s->coordinator);
    }
    int status = clu_control_send(s->control, &action->peer, out);
    if (status)
        clu_debug("control message not sent: %s", clu_status_text(status));
}

static void carry_report(struct schd_scheduler *s, const struct schd_action *action)
{
    const struct clu_report *report = action->report;
    if (!report)
        return;
    take_files(s, report);
    if (report->kind == CLU_REPORT_PROGRESS || report->kind == CLU_REPORT_EVALUATED ||
        report->kind == CLU_REPORT_GONE_ON)
        schd_event_figures(s, action->role, action->rank, report);
}

static void carry_out(struct schd_scheduler *s, struct schd_action *action)
{
    switch (action->kind) {
    case SCHD_SEND:
        carry_send(s, action);
        break;
    case SCHD_COMMIT:
        start_commit(s, action->step);
        break;
    case SCHD_DROP:
        drop_part(s, action->step);
        break;
    case SCHD_SAVE:
        schd_scheduler_store(s);
        break;
    case SCHD_TELL:
        /* a supervisor says itself why a job broke: one sentence, not two */
        clu_log(s->supervised && action->level == CLU_LOG_ERROR ? CLU_LOG_INFO
                                                                : (enum clu_log_level)action->level,
                "%s", action->text);
        schd_remember(s, action->level, action->text);
        break;
    case SCHD_PROGRESS:
        carry_report(s, action);
        break;
    case SCHD_START:
    case SCHD_RELEASE:
        schd_event_server(s, action->kind == SCHD_START ? "start" : "release", action->rank);
        break;
    case SCHD_END:
        s->ended = true;
        s->end_status = action->status;
        memcpy(s->end_text, action->text, sizeof(s->end_text));
        schd_event_end(s, action->status, action->text);
        break;
    }
    schd_action_fini(action);
}

static void carry_out_all(struct schd_scheduler *s)
{
    struct schd_action action;
    while (schd_coordinator_next(s->coordinator, &action))
        carry_out(s, &action);
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    if (view.phase != s->phase) {
        s->phase = view.phase;
        schd_event_phase(s, &view);
    }
    if (view.change != s->change) {
        s->change = view.change;
        if (view.change == SCHD_CHANGE_NONE)
            clu_remove_tree(s->move_root); /* what the last old owners left */
        schd_event_change(s, &view);
    }
}

/* ---- commands, signals, questions ---- */

static enum schd_way plan(struct schd_scheduler *s, bool anew)
{
    enum schd_way way = schd_coordinator_plan(s->coordinator);
    carry_out_all(s);
    return anew ? SCHD_WAY_ANEW : way;
}

/* As planned; or, when somebody else was lost since, another plan. */
static void recover(struct schd_scheduler *s, bool anew)
{
    char folder[CLU_PATH_BYTES] = "";
    struct clu_manifest manifest = {0};
    if (s->commit_running && !s->commit_inline) {
        pthread_join(s->commit,
                     NULL); /* a snapshot that is nearly whole is the one to start from */
        s->commit_inline = true;
        finish_commit(s);
    }
    enum schd_way way = plan(s, anew);
    if (schd_event_plan(s, way))
        return;
    if (way != SCHD_WAY_STAND) {
        /* Gone back to once without reading all of it, which is the table: servers that hold that
         * state read none of it, and one that does checks what it reads. When the job is here
         * again before another snapshot, it is read first. */
        if (clu_snapshot_newest(s->snapshot_root, s->sure_step, folder, &manifest))
            folder[0] = '\0';
        s->sure_step = 0;
        clu_snapshot_set_aside(s->snapshot_root, manifest.step);
        clu_snapshot_sweep(s->snapshot_root, CLU_SNAPSHOT_ALL); /* whoever wrote there is gone */
        clu_remove_tree(s->move_root);
    }
    schd_coordinator_recover(s->coordinator, schd_now_ms(), way, folder, manifest.step);
    carry_out_all(s);
    schd_event_recovered(s, way);
    clu_manifest_fini(&manifest);
}

static void on_command(struct schd_scheduler *s, const char *line)
{
    char role[16], why[256];
    int rank, status, at = 0;
    int64_t now = schd_now_ms();
    if (strncmp(line, "stop", 4) == 0) {
        schd_coordinator_stop(s->coordinator, now, line[4] ? line + 5 : "stopped on request");
    } else if (strcmp(line, "snapshot") == 0) {
        schd_coordinator_snapshot(s->coordinator, now);
    } else if (strcmp(line, "dump") == 0) {
        schd_coordinator_dump(s->coordinator);
        schd_dump(s);
    } else if (strcmp(line, "plan") == 0 || strcmp(line, "plan anew") == 0) {
        free(s->plan);
        s->plan = NULL;
        schd_event_plan(s, plan(s, line[4] != '\0'));
    } else if (strcmp(line, "recover") == 0 || strcmp(line, "recover anew") == 0) {
        recover(s, line[7] != '\0');
    } else if (strncmp(line, "note ", 5) == 0) { /* what the scheduler before could not say */
        schd_remember(s, CLU_LOG_WARN, line + 5);
    } else if (strcmp(line, "quit") == 0) {
        s->ended = true;
        s->end_status = CLU_E_INTERRUPTED;
    } else if (sscanf(line, "gone %15s %d %d %n", role, &rank, &status, &at) == 3 && at > 0) {
        snprintf(why, sizeof(why), "%s", line + at);
        schd_coordinator_gone(s->coordinator, now,
                              strcmp(role, "ps") == 0 ? CLU_ROLE_PS : CLU_ROLE_WORKER, rank, status,
                              why);
    } else {
        clu_warn("unknown command '%s' on stdin", line);
    }
}

static void read_commands(struct schd_scheduler *s)
{
    struct pollfd item = {.fd = STDIN_FILENO, .events = POLLIN};
    while (s->supervised && !s->ended && poll(&item, 1, 0) > 0) {
        ssize_t n = read(STDIN_FILENO, s->command + s->command_bytes,
                         sizeof(s->command) - s->command_bytes - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            clu_error("the supervisor is gone");
            s->ended = true;
            s->end_status = CLU_E_LOST;
            return;
        }
        s->command_bytes += (size_t)n;
        s->command[s->command_bytes] = '\0';
        char *line = s->command, *line_end;
        while ((line_end = strchr(line, '\n'))) {
            *line_end = '\0';
            on_command(s, line);
            line = line_end + 1;
        }
        s->command_bytes = strlen(line);
        memmove(s->command, line, s->command_bytes + 1);
        if (s->command_bytes == sizeof(s->command) - 1)
            s->command_bytes = 0;
    }
}

static void read_signals(struct schd_scheduler *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGUSR1) {
            schd_coordinator_dump(s->coordinator);
            schd_dump(s);
        } else {
            schd_coordinator_stop(s->coordinator, schd_now_ms(),
                                  info.ssi_signo == SIGINT ? "stopped by an interrupt (SIGINT)"
                                                           : "stopped by SIGTERM");
        }
    }
}

static void answer(struct schd_scheduler *s, const struct clu_peer *peer, int status,
                   const char *text, char *body)
{
    struct clu_control_message *out = s->out;
    memset(out, 0, sizeof(*out));
    out->op = CLU_CONTROL_ANSWER;
    out->status = status;
    snprintf(out->text, sizeof(out->text), "%s", text);
    out->body = body;
    out->body_bytes = body ? strlen(body) : 0;
    clu_control_send(s->control, peer, out);
    free(body);
}

/* Stops the job at its next step with a snapshot, and tells the supervisor to go on with as many
 * servers. */
static int reshape(struct schd_scheduler *s, int servers)
{
    if (!s->supervised || s->phase != SCHD_RUNNING)
        return CLU_E_AGAIN;
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    if (servers == view.n_servers || servers < 1 || servers * s->job->shards > CLU_MAX_SHARDS)
        return CLU_E_USAGE;
    char why[64];
    snprintf(why, sizeof(why), "going on with %d server%s", servers, servers == 1 ? "" : "s");
    schd_coordinator_stop(s->coordinator, schd_now_ms(), why);
    schd_event_reshape(s, servers);
    return CLU_OK;
}

/* Servers by rank or by host: leaves[rank] for those that `node` names. */
static void name_servers(struct schd_scheduler *s, const char *node, bool *leaves)
{
    struct schd_view view;
    char *end;
    long rank = strtol(node, &end, 10);
    bool is_rank = node[0] && !*end;
    schd_coordinator_view(s->coordinator, &view);
    for (int i = 0; i < view.n_members; i++) {
        struct schd_member_view m;
        schd_coordinator_member(s->coordinator, i, schd_now_ms(), &m);
        if (m.role == CLU_ROLE_PS && m.state != SCHD_DRAINED)
            leaves[m.rank] = is_rank ? m.rank == rank : strcmp(m.host, node) == 0;
    }
}

/* The n servers with the highest ranks. */
static void name_last(struct schd_scheduler *s, int n, bool *leaves)
{
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    for (int i = view.n_members; i-- > 0 && n > 0;) {
        struct schd_member_view m;
        schd_coordinator_member(s->coordinator, i, schd_now_ms(), &m);
        if (m.role == CLU_ROLE_PS && m.state != SCHD_DRAINED) {
            leaves[m.rank] = true;
            n--;
        }
    }
}

/* Changes the shape while the job trains: "drain NODE", or "servers N". */
static int change_shape(struct schd_scheduler *s, const char *node, int servers, const char **why_p)
{
    bool leaves[CLU_MAX_SHARDS] = {false};
    struct schd_view view;
    int64_t now = schd_now_ms();
    schd_coordinator_view(s->coordinator, &view);
    if (node) {
        name_servers(s, node, leaves);
        return schd_coordinator_drain(s->coordinator, now, leaves, why_p);
    }
    *why_p = "from 1 server up, and another number than now";
    if (servers < 1 || servers == view.n_servers)
        return CLU_E_USAGE;
    if (servers > view.n_servers)
        return schd_coordinator_add(s->coordinator, now, servers - view.n_servers, why_p);
    name_last(s, view.n_servers - servers, leaves);
    return schd_coordinator_drain(s->coordinator, now, leaves, why_p);
}

static void on_ask(struct schd_scheduler *s, const struct clu_peer *peer, const char *question)
{
    int64_t now = schd_now_ms();
    int servers = 0;
    if (strcmp(question, "status") == 0) {
        answer(s, peer, CLU_OK, "", schd_status_json(s));
    } else if (strcmp(question, "snapshot") == 0) {
        int status = schd_coordinator_snapshot(s->coordinator, now);
        answer(s, peer, status, status ? "a snapshot is under way, or the job is not training" : "",
               NULL);
    } else if (strncmp(question, "stop", 4) == 0) {
        schd_coordinator_stop(s->coordinator, now, "stopped on request");
        answer(s, peer, CLU_OK, "", NULL);
    } else if (strncmp(question, "drain ", 6) == 0 ||
               sscanf(question, "servers %d", &servers) == 1) {
        const char *why = "";
        int status = change_shape(s, question[0] == 'd' ? question + 6 : NULL, servers, &why);
        answer(s, peer, status, status ? why : "", NULL);
    } else if (sscanf(question, "reshape %d", &servers) == 1) {
        int status = reshape(s, servers);
        answer(s, peer, status,
               status == CLU_E_USAGE
                   ? "from 1 server up, and another number than now"
                   : "only a supervised job that is training can change its shape",
               NULL);
    } else if (strcmp(question, "dump") == 0) {
        schd_coordinator_dump(s->coordinator);
        schd_dump(s);
        answer(s, peer, CLU_OK, "", NULL);
    } else {
        answer(s, peer, CLU_E_USAGE, "the scheduler does not know this question", NULL);
    }
}

static void loop(struct schd_scheduler *s)
{
    struct clu_peer peer;
    int64_t ticked_ms = 0;
    while (!s->ended) {
        int status = clu_control_receive(s->control, TICK_MS, &peer, s->in);
        int64_t now = schd_now_ms();
        if (!status && s->in->op == CLU_CONTROL_ASK)
            on_ask(s, &peer, s->in->text);
        else if (!status) {
            schd_note_metrics_url(s, s->in);
            schd_coordinator_hear(s->coordinator, now, &peer, s->in);
        } else if (status != CLU_E_TIMEOUT && status != CLU_E_AGAIN) {
            clu_error("the control socket failed: %s", clu_status_text(status));
            s->ended = true;
            s->end_status = status;
        }
        if (status || now - ticked_ms >= TICK_MS) {
            read_commands(s);
            read_signals(s);
            finish_commit(s);
            schd_coordinator_tick(s->coordinator, now);
            ticked_ms = now;
            if (now - s->alive_ms >= s->job->heartbeat_ms) {
                s->alive_ms = now;
                schd_event_alive(s);
            }
            if (s->page && now - s->page_ms >= PAGE_MS) {
                s->page_ms = now;
                schd_page_update(s->page,
                                 (struct schd_page_texts){schd_status_json(s), schd_metrics_text(s),
                                                          schd_targets_json(s)});
            }
        }
        carry_out_all(s);
    }
}

/* ---- start and end ---- */

static uint64_t random_id(void)
{
    uint64_t id = 0;
    while (id == 0)
        if (getrandom(&id, sizeof(id), 0) != sizeof(id))
            id = (uint64_t)schd_wall_ms() << 16 ^ (uint64_t)getpid();
    return id >> 1; /* fits a JSON integer */
}

/* Signals arrive as bytes on a descriptor; blocked before any thread starts, so that all inherit
 * it. */
static int open_signals(struct schd_scheduler *s)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, 0};
    int status = schd_signals_open(signals, &s->signal_fd);
    s->commit_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!status && s->commit_fd < 0)
        status = clu_fail(clu_status_from_errno(errno), "no descriptor for commits: %s",
                          strerror(errno));
    return status;
}

/* A port that a predecessor had is asked for first: members that lost it find its successor there.
 * */
static int open_control(struct schd_scheduler *s, bool again)
{
    char path[CLU_PATH_BYTES], *old = NULL;
    size_t size;
    int64_t port = s->job->port;
    int status = clu_path_join(path, sizeof(path), s->run, "sched.endpoint");
    if (!status && again && port == 0 && clu_path_exists(path) &&
        !clu_file_read_all(path, 4096, &old, &size)) {
        const char *colon = strrchr(old, ':');
        port = colon ? strtoll(colon + 1, NULL, 10) : 0;
        free(old);
    }
    if (!status)
        status = clu_control_open(s->transport, s->job->host, port, &s->control, s->endpoint);
    if (status && port != s->job->port)
        status = clu_control_open(s->transport, s->job->host, 0, &s->control, s->endpoint);
    if (status)
        return status;
    int fds[] = {s->signal_fd, s->commit_fd, STDIN_FILENO};
    clu_control_watch(s->control, fds, s->supervised ? 3 : 2);
    char line[CLU_ENDPOINT_BYTES + 1];
    int length = snprintf(line, sizeof(line), "%s\n", s->endpoint);
    return clu_file_write_atomic(path, line, (size_t)length);
}

/* The page is a convenience: a job without one trains as well. */
static void open_page(struct schd_scheduler *s)
{
    char path[CLU_PATH_BYTES], line[512];
    const char *host = clu_job_metrics_host(s->job);
    if (s->job->page_port < 0 || schd_page_start(host, s->job->page_port, &s->page) ||
        clu_path_join(path, sizeof(path), s->run, "page.url"))
        return;
    int size = snprintf(line, sizeof(line), "%s\n", schd_page_url(s->page));
    clu_file_write_atomic(path, line, (size_t)size);
    clu_info("status page and metrics: %s", schd_page_url(s->page));
}

/* Where this life starts: the newest whole snapshot, one generation after the last. */
static int begin_life(struct schd_scheduler *s, bool again)
{
    struct schd_shape shape = {
        .n_servers = (int)s->job->servers,
        .shards_per_server = (int)s->job->shards,
        .n_workers = (int)s->job->workers,
        .heartbeat_ms = s->job->heartbeat_ms,
        .dead_after_ms = s->job->dead_after_ms,
        .start_timeout_ms = s->job->start_timeout_ms,
        .stop_timeout_ms = STOP_TIMEOUT_MS,
        .snapshot_ms = (int64_t)(s->job->snapshot_minutes * 60000),
        .supervised = s->supervised,
        .servers_stand = strcmp(s->job->durability, "log") == 0,
        .workers_stand = strcmp(s->job->durability, "log") == 0 && s->job->staleness != 0,
    };
    struct schd_life life = {0};
    struct clu_manifest manifest = {0};
    if (!again) {
        if (!clu_snapshot_newest(s->snapshot_root, 0, life.resume, &manifest))
            clu_info("resuming from %s", life.resume);
        s->sure_step = manifest.step;
        clu_snapshot_set_aside(s->snapshot_root, manifest.step);
        clu_snapshot_sweep(s->snapshot_root, CLU_SNAPSHOT_ALL);
        clu_remove_tree(s->move_root);
    } else { /* servers may be writing a .part */
        clu_snapshot_sweep(s->snapshot_root, 0);
    }
    life.resume_step = manifest.step;
    schd_scheduler_last_life(s, &life.job_id, &life.generation);
    if (life.job_id == 0)
        life.job_id = random_id();
    life.generation++;
    clu_manifest_fini(&manifest);
    s->coordinator = schd_coordinator_create(&shape, &life, schd_now_ms());
    if (!s->coordinator)
        return clu_fail(CLU_E_NO_MEMORY, "no coordinator for this job");
    if (again && life.generation > 1)
        return schd_scheduler_restore(s);
    /* before anybody hears of us: a successor takes up this, nothing older */
    schd_scheduler_store(s);
    return CLU_OK;
}

static int start(struct schd_scheduler *s, bool again)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(s->run, sizeof(s->run), s->job->out, "run");
    if (!status)
        status = clu_mkdirs(s->run);
    if (!status && !s->supervised)
        status = schd_folder_lock(s->job->out, &s->lock_fd);
    if (!status)
        status = clu_path_join(s->move_root, sizeof(s->move_root), s->run, "moving");
    if (!status)
        status = clu_snapshot_root(s->job->out, s->snapshot_root);
    if (!status)
        status = clu_mkdirs(s->snapshot_root);
    if (!status)
        status = open_signals(s);
    if (!status && s->job->keys[0]) {
        status = clu_security_load(s->job->keys, "sched", &s->security);
        s->secure = !status;
    }
    struct clu_transport_options options = {.security = s->secure ? &s->security : NULL,
                                            .insecure = s->job->insecure};
    if (!status)
        status = clu_transport_create(&options, &s->transport);
    if (!status)
        status = clu_path_join(path, sizeof(path), s->run, "metrics.jsonl");
    if (!status && !(s->metrics_file = fopen(path, "ae")))
        status = clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    if (!status)
        status = schd_scheduler_open_store(s);
    if (!status)
        status = begin_life(s, again);
    return status ? status : open_control(s, again);
}

static void stop(struct schd_scheduler *s)
{
    if (s->commit_running && !s->commit_inline)
        pthread_join(s->commit, NULL);
    schd_scheduler_sweep_end(s);
    clu_manifest_fini(&s->committing);
    forget_files(s);
    schd_page_stop(s->page);
    schd_forget_metrics_urls(s);
    schd_coordinator_free(s->coordinator);
    clu_control_close(s->control);
    clu_transport_free(s->transport);
    if (s->secure)
        clu_security_fini(&s->security);
    if (s->metrics_file)
        fclose(s->metrics_file);
    schd_scheduler_close_store(s);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    if (s->commit_fd >= 0)
        close(s->commit_fd);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s->plan);
    free(s->in);
    free(s->out);
    free(s);
}

/* What a supervisor would write. */
static void write_end(struct schd_scheduler *s)
{
    struct schd_view view;
    schd_coordinator_view(s->coordinator, &view);
    const char *why = s->end_text[0] ? s->end_text : clu_status_text(s->end_status);
    schd_folder_save_end(s->job->out, s->end_status, view.kept[0] ? view.kept : why, view.step,
                         view.n_steps);
}

int schd_scheduler_run(const struct schd_scheduler_options *options)
{
    struct schd_scheduler *s = calloc(1, sizeof(*s));
    if (!s)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the scheduler");
    s->job = options->job;
    s->supervised = options->supervised;
    s->signal_fd = s->commit_fd = s->lock_fd = -1;
    s->started_ms = schd_now_ms();
    s->in = calloc(1, sizeof(*s->in));
    s->out = calloc(1, sizeof(*s->out));
    int status = s->in && s->out ? start(s, options->again) : CLU_E_NO_MEMORY;
    if (!status) {
        clu_info("listening on %s", s->endpoint);
        schd_event_listening(s);
        open_page(s);
        carry_out_all(s);
        loop(s);
        status = s->end_status;
        if (!s->supervised)
            write_end(s);
    }
    stop(s);
    return status;
}

/* The coordinator. See the header for the states; here is who moves what:
 *
 *     transition                        function
 *     GATHERING -> RESTORING            on_join -> servers_complete
 *     RESTORING -> RUNNING              on_report(READY) -> servers_ready
 *     RUNNING -> STOPPING               on_leave -> workers_left
 *     STOPPING -> ENDED                 on_leave -> servers_left
 *     any -> BROKEN                     fail
 *     BROKEN -> GATHERING               schd_coordinator_recover
 *     BROKEN -> ENDED                   tick, when nobody supervises
 *
 * Invariants, cited below:
 * (C1) A member is known by its incarnation. A message with another one changes nothing and is refused.
 * (C2) An order stays queued until a beat shows that it arrived; it is sent again every heartbeat.
 * (C3) Nothing waits without a deadline: gathering, restoring, workers' joining, stopping, a silent member.
 * (C4) SAVE comes before the WELCOME it makes possible: a restarted scheduler knows whom it let in.
 * (C5) The job ends well only when rank 0 said FINISHED and every member left with status 0.
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
    static const char *const names[] = {"gathering", "restoring", "running",
                                        "stopping",  "broken",    "ended"};
    return names[phase];
}

const char *schd_member_state_name(enum schd_member_state state)
{
    static const char *const names[] = {"absent", "joined", "in", "ready", "left", "dead"};
    return names[state];
}

void schd_action_fini(struct schd_action *action)
{
    free(action->report);
    action->report = NULL;
}

/* ---- actions ---- */

static struct schd_action *add_action(struct schd_coordinator *c, enum schd_action_kind kind)
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

static void tell(struct schd_coordinator *c, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void tell(struct schd_coordinator *c, int level, const char *format, ...)
{
    struct schd_action *action = add_action(c, SCHD_TELL);
    va_list args;
    va_start(args, format);
    vsnprintf(action->text, sizeof(action->text), format, args);
    va_end(args);
    action->level = level;
}

static struct schd_action *send_to(struct schd_coordinator *c, const struct clu_peer *peer,
                                   enum clu_control_op op)
{
    struct schd_action *action = add_action(c, SCHD_SEND);
    action->peer = *peer;
    action->op = op;
    return action;
}

static void refuse(struct schd_coordinator *c, const struct clu_peer *peer, int status,
                   const char *text)
{
    struct schd_action *action = send_to(c, peer, CLU_CONTROL_REFUSE);
    action->status = status;
    snprintf(action->text, sizeof(action->text), "%s", text);
}

static void save(struct schd_coordinator *c)
{
    add_action(c, SCHD_SAVE);
}

/* ---- members ---- */

static struct member *find(struct schd_coordinator *c, enum clu_role role, int rank)
{
    if (role == CLU_ROLE_PS && rank >= 0 && rank < c->n_servers)
        return &c->members[rank];
    if (role == CLU_ROLE_WORKER && rank >= 0 && rank < c->shape.n_workers)
        return &c->members[c->n_servers + rank];
    return NULL;
}

static bool is_here(const struct member *m)
{
    return m->state == SCHD_JOINED || m->state == SCHD_IN || m->state == SCHD_READY;
}

static int count(const struct schd_coordinator *c, enum clu_role role, enum schd_member_state state)
{
    int n = 0;
    for (int i = 0; i < c->n_members; i++)
        n += c->members[i].role == role && c->members[i].state == state;
    return n;
}

static void send_order(struct schd_coordinator *c, struct member *m,
                       const struct queued_order *queued)
{
    if (!m->attached)
        return;
    struct schd_action *action = send_to(c, &m->peer, CLU_CONTROL_ORDER);
    action->number = queued->number;
    action->order = queued->order;
}

/* (C2) */
static void order(struct schd_coordinator *c, struct member *m, const struct clu_order *what)
{
    if (!is_here(m))
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
    send_order(c, m, queued);
}

static void order_all(struct schd_coordinator *c, enum clu_role role, const struct clu_order *what)
{
    for (int i = 0; i < c->n_members; i++)
        if (c->members[i].role == role)
            order(c, &c->members[i], what);
}

static void drop_orders(struct member *m)
{
    while (m->orders) {
        struct queued_order *next = m->orders->next;
        free(m->orders);
        m->orders = next;
    }
    m->n_orders = 0;
}

/* Orders that are still unknown to a member that joined again are numbered from 1: it has forgotten, or
 * this scheduler has. */
static void renumber_orders(struct member *m)
{
    m->n_orders = 0;
    for (struct queued_order *queued = m->orders; queued; queued = queued->next)
        queued->number = ++m->n_orders;
}

static void welcome(struct schd_coordinator *c, struct member *m)
{
    struct schd_action *action = send_to(c, &m->peer, CLU_CONTROL_WELCOME);
    action->with_map = true;
    action->welcome.job_id = c->life.job_id;
    action->welcome.generation = c->life.generation;
    action->welcome.incarnation = m->incarnation;
    action->welcome.n_servers = c->n_servers;
    action->welcome.n_shards = c->map.n_shards;
    action->welcome.n_workers = c->shape.n_workers;
    action->welcome.resume_step = c->life.resume_step;
    memcpy(action->welcome.resume, c->life.resume, CLU_PATH_BYTES);
}

/* ---- phases ---- */

static void end(struct schd_coordinator *c, int status, const char *text)
{
    c->phase = SCHD_ENDED;
    c->status = status;
    if (text != c->text)
        snprintf(c->text, sizeof(c->text), "%s", text);
    save(c);
    struct schd_action *action = add_action(c, SCHD_END);
    action->status = status;
    snprintf(action->text, sizeof(action->text), "%s", c->text);
}

/* Something that the job cannot go on without is lost. A supervisor recovers or ends; without one every
 * member is told to stop, and the scheduler ends when they had time to. */
static void fail(struct schd_coordinator *c, int64_t now, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void fail(struct schd_coordinator *c, int64_t now, int status, const char *format, ...)
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
    if (c->snapshot != SNAPSHOT_NONE) {
        add_action(c, SCHD_DROP)->step = c->snapshot_step;
        c->snapshot = SNAPSHOT_NONE;
    }
    tell(c, CLU_LOG_ERROR, "%s", c->text);
    save(c);
    struct clu_order stop = {.kind = CLU_ORDER_STOP, .status = status};
    snprintf(stop.text, sizeof(stop.text), "%s", c->text);
    order_all(c, CLU_ROLE_WORKER, &stop);
    order_all(c, CLU_ROLE_PS, &stop);
}

static void servers_complete(struct schd_coordinator *c, int64_t now)
{
    if (c->phase != SCHD_GATHERING || count(c, CLU_ROLE_PS, SCHD_JOINED) < c->n_servers)
        return;
    c->phase = SCHD_RESTORING;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    save(c); /* (C4) */
    tell(c, CLU_LOG_INFO, "%d server%s joined, %d shards%s%s", c->n_servers,
         c->n_servers == 1 ? "" : "s", c->map.n_shards, c->life.resume[0] ? "; resuming from " : "",
         c->life.resume);
    for (int i = 0; i < c->n_servers; i++) {
        c->members[i].state = SCHD_IN;
        welcome(c, &c->members[i]);
    }
}

static void admit_worker(struct schd_coordinator *c, struct member *m)
{
    m->state = SCHD_IN;
    save(c); /* (C4) */
    welcome(c, m);
    if (count(c, CLU_ROLE_WORKER, SCHD_IN) == c->shape.n_workers)
        tell(c, CLU_LOG_INFO, "%d worker%s joined, generation %llu, step %llu", c->shape.n_workers,
             c->shape.n_workers == 1 ? "" : "s", (unsigned long long)c->life.generation,
             (unsigned long long)c->life.resume_step);
}

static void servers_ready(struct schd_coordinator *c, int64_t now)
{
    if (c->phase != SCHD_RESTORING || count(c, CLU_ROLE_PS, SCHD_READY) < c->n_servers)
        return;
    c->phase = SCHD_RUNNING;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    save(c);
    for (int i = c->n_servers; i < c->n_members; i++)
        if (c->members[i].state == SCHD_JOINED)
            admit_worker(c, &c->members[i]);
}

static void stop_servers(struct schd_coordinator *c, int64_t now)
{
    c->phase = SCHD_STOPPING;
    c->deadline_ms = now + BROKEN_MS;
    save(c);
    struct clu_order stop = {.kind = CLU_ORDER_STOP,
                             .status = c->finished ? CLU_OK : CLU_E_INTERRUPTED};
    order_all(c, CLU_ROLE_PS, &stop);
}

static void workers_left(struct schd_coordinator *c, int64_t now)
{
    if ((c->phase != SCHD_RUNNING && c->phase != SCHD_STOPPING) ||
        count(c, CLU_ROLE_WORKER, SCHD_LEFT) < c->shape.n_workers)
        return;
    if (!c->finished && !c->stopping)
        fail(c, now, CLU_E_BUG, "the workers left before the last step was done");
    else if (c->phase == SCHD_RUNNING)
        stop_servers(c, now);
}

static void servers_left(struct schd_coordinator *c)
{
    if (c->phase != SCHD_STOPPING)
        return;
    for (int i = 0; i < c->n_members; i++)
        if (is_here(&c->members[i]))
            return;
    if (c->finished)
        end(c, CLU_OK, "done");
    else
        end(c, CLU_E_INTERRUPTED, c->stop_why);
}

/* ---- messages ---- */

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

/* A member that was let in before comes back: after a silence, or because this scheduler is new. */
static void on_rejoin(struct schd_coordinator *c, struct member *m, const struct clu_peer *peer,
                      const struct clu_control_message *message)
{
    if (m->incarnation != message->incarnation || (m->state != SCHD_IN && m->state != SCHD_READY)) {
        refuse(c, peer, CLU_E_LOST, "the job has gone on without this member");
        return;
    }
    attach(m, peer, message);
    tell(c, CLU_LOG_INFO, "%s %d joined again", clu_role_name(m->role), m->rank);
    welcome(c, m);
    renumber_orders(m);
    for (struct queued_order *queued = m->orders; queued; queued = queued->next)
        send_order(c, m, queued);
}

static void take_endpoints(struct schd_coordinator *c, const struct member *m,
                           const struct clu_control_message *message)
{
    int first = clu_map_first_shard(&c->map, m->rank);
    for (int i = 0; i < message->n_endpoints; i++)
        memcpy(c->map.endpoint[first + i], message->endpoints[i], CLU_ENDPOINT_BYTES);
}

static void on_join(struct schd_coordinator *c, int64_t now, struct member *m,
                    const struct clu_peer *peer, const struct clu_control_message *message)
{
    if (m->role == CLU_ROLE_PS && message->n_endpoints != c->shape.shards_per_server) {
        refuse(c, peer, CLU_E_CONFIG, "the job file of this server says another number of shards");
        return;
    }
    if (c->phase == SCHD_ENDED || c->phase == SCHD_BROKEN || c->phase == SCHD_STOPPING) {
        if (c->phase != SCHD_BROKEN || !c->shape.supervised)
            refuse(c, peer, CLU_E_LOST, "the job has ended");
        return; /* broken and supervised: it may belong to the next life; it will ask again */
    }
    m->heard_ms = now;
    if (message->incarnation) {
        on_rejoin(c, m, peer, message);
        return;
    }
    if (m->state != SCHD_ABSENT && !same_process(m, message)) {
        refuse(c, peer, CLU_E_EXISTS, "another process has this rank");
        return;
    }
    attach(m, peer, message);
    switch (m->state) {
    case SCHD_ABSENT:
        m->incarnation = c->life.generation << 32 | ++c->n_incarnations;
        m->state = SCHD_JOINED;
        m->last_report = 0;
        if (m->role == CLU_ROLE_PS)
            take_endpoints(c, m, message);
        servers_complete(c, now);
        if (m->role == CLU_ROLE_WORKER && c->phase == SCHD_RUNNING)
            admit_worker(c, m);
        break;
    case SCHD_IN:
    case SCHD_READY:
        welcome(c, m); /* the first one was lost */
        break;
    default:
        break; /* it waits for the others */
    }
}

static void on_beat(struct schd_coordinator *c, struct member *m, const struct clu_peer *peer,
                    const struct clu_control_message *message)
{
    if (!m->attached) { /* known from the store: orders must be numbered afresh */
        refuse(c, peer, CLU_E_AGAIN, "join again");
        return;
    }
    m->peer = *peer;
    while (m->orders && m->orders->number <= message->number) {
        struct queued_order *next = m->orders->next;
        free(m->orders);
        m->orders = next;
    }
    struct schd_action *action = send_to(c, peer, CLU_CONTROL_BEAT);
    action->with_map = message->map_version < c->map.version;
    for (struct queued_order *queued = m->orders; queued; queued = queued->next)
        send_order(c, m, queued);
}

static void on_snapshot_report(struct schd_coordinator *c, const struct clu_report *report)
{
    if (report->status) {
        tell(c, CLU_LOG_WARN, "the snapshot of step %llu failed: %s",
             (unsigned long long)report->step,
             report->text[0] ? report->text : clu_status_text(report->status));
        add_action(c, SCHD_DROP)->step = report->step;
        c->snapshot = SNAPSHOT_NONE;
        return;
    }
    c->snapshot = SNAPSHOT_COMMITTING;
    c->snapshot_step = report->step;
    add_action(c, SCHD_COMMIT)->step = report->step;
}

/* Hands a report on to whoever writes metrics and lists files. */
static void pass_on(struct schd_coordinator *c, const struct member *m,
                    const struct clu_report *report)
{
    struct schd_action *action = add_action(c, SCHD_PROGRESS);
    action->role = m->role;
    action->rank = m->rank;
    action->step = report->step;
    action->report = malloc(sizeof(*report));
    if (action->report)
        *action->report = *report;
    else
        c->out_of_memory = true;
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

static void on_report(struct schd_coordinator *c, int64_t now, struct member *m,
                      const struct clu_control_message *message)
{
    const struct clu_report *report = &message->report;
    send_to(c, &m->peer, CLU_CONTROL_RECEIPT)->number = message->number;
    if (message->number <= m->last_report)
        return;
    m->last_report = message->number;
    switch (report->kind) {
    case CLU_REPORT_READY:
        if (m->role == CLU_ROLE_PS && m->state == SCHD_IN) {
            m->state = SCHD_READY;
            save(c);
            servers_ready(c, now);
        }
        break;
    case CLU_REPORT_PROGRESS:
        if (report->step > c->step)
            c->step = report->step;
        c->n_steps = report->n_steps;
        c->progress = report->figures;
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
        save(c);
        break;
    case CLU_REPORT_MOVED:
        break;
    case CLU_REPORT_TROUBLE:
        tell(c, CLU_LOG_WARN, "%s %d: %s", clu_role_name(m->role), m->rank, report->text);
        break;
    }
}

static void on_leave(struct schd_coordinator *c, int64_t now, struct member *m,
                     const struct clu_peer *peer, const struct clu_control_message *message)
{
    send_to(c, peer, CLU_CONTROL_RECEIPT)->number = 0;
    if (!is_here(m))
        return;
    m->status = message->status;
    memcpy(m->text, message->text, sizeof(m->text));
    drop_orders(m);
    bool well = message->status == CLU_OK || (message->status == CLU_E_INTERRUPTED && c->stopping);
    m->state = well ? SCHD_LEFT : SCHD_DEAD;
    save(c);
    if (!well) {
        fail(c, now, message->status, "%s %d failed: %s", clu_role_name(m->role), m->rank,
             message->text[0] ? message->text : clu_status_text(message->status));
        return;
    }
    if (m->role == CLU_ROLE_PS && c->phase != SCHD_STOPPING && c->phase != SCHD_BROKEN)
        fail(c, now, CLU_E_LOST, "ps %d left while the job needed it", m->rank);
    workers_left(c, now);
    servers_left(c);
}

void schd_coordinator_hear(struct schd_coordinator *c, int64_t now, const struct clu_peer *peer,
                           const struct clu_control_message *message)
{
    struct member *m = find(c, message->role, message->rank);
    if (!m) {
        if (message->op == CLU_CONTROL_JOIN)
            refuse(c, peer, CLU_E_CONFIG, "the job has no such rank: its shape is another one");
        return;
    }
    if (message->op == CLU_CONTROL_JOIN) {
        on_join(c, now, m, peer, message);
        return;
    }
    if (m->incarnation != message->incarnation || m->state == SCHD_DEAD || /* (C1) */
        m->state == SCHD_ABSENT) {
        if (message->op == CLU_CONTROL_LEAVE)
            send_to(c, peer, CLU_CONTROL_RECEIPT)->number = 0;
        else
            refuse(c, peer, CLU_E_LOST, "the job has gone on without this member");
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

/* ---- time ---- */

static void check_silence(struct schd_coordinator *c, int64_t now)
{
    for (int i = 0; i < c->n_members && c->phase != SCHD_BROKEN; i++) {
        struct member *m = &c->members[i];
        int64_t silent = now - m->heard_ms;
        if (!is_here(m))
            continue;
        if (silent > c->shape.dead_after_ms && m->attached) {
            m->state = SCHD_DEAD;
            m->status = CLU_E_LOST;
            snprintf(m->text, sizeof(m->text), "silent for %lld ms", (long long)silent);
            fail(c, now, CLU_E_LOST, "%s %d is lost: no heartbeat for %lld ms",
                 clu_role_name(m->role), m->rank, (long long)silent);
        } else if (silent > c->shape.start_timeout_ms && !m->attached) {
            m->state = SCHD_DEAD;
            m->status = CLU_E_LOST;
            fail(c, now, CLU_E_LOST, "%s %d did not come back to the restarted scheduler",
                 clu_role_name(m->role), m->rank);
        } else if (silent > 3 * c->shape.heartbeat_ms && silent > c->shape.dead_after_ms / 3 &&
                   !m->suspect && m->attached) {
            m->suspect = true;
            tell(c, CLU_LOG_WARN, "%s %d is slow: no heartbeat for %lld ms", clu_role_name(m->role),
                 m->rank, (long long)silent);
        }
    }
}

static void name_missing(struct schd_coordinator *c, int64_t now, enum clu_role role,
                         enum schd_member_state until, const char *what)
{
    for (int i = 0; i < c->n_members; i++)
        if (c->members[i].role == role && c->members[i].state < until) {
            fail(c, now, CLU_E_TIMEOUT, "%s %d has not %s within %lld ms", clu_role_name(role),
                 c->members[i].rank, what, (long long)c->shape.start_timeout_ms);
            return;
        }
}

static void check_deadlines(struct schd_coordinator *c, int64_t now) /* (C3) */
{
    if (c->stopping && c->phase != SCHD_ENDED && now > c->stop_deadline_ms) {
        end(c, CLU_E_INTERRUPTED, "stopped on request, without a last snapshot: it took too long");
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
    case SCHD_STOPPING:
        if (c->finished)
            end(c, CLU_OK, "done; a server did not say goodbye in time");
        else
            end(c, CLU_E_INTERRUPTED, c->stop_why);
        break;
    case SCHD_BROKEN:
        if (!c->shape.supervised)
            end(c, c->status, c->text);
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
    if (c->phase == SCHD_RUNNING && c->shape.snapshot_ms > 0 && now >= c->snapshot_due_ms)
        schd_coordinator_snapshot(c, now);
    if (c->phase == SCHD_BROKEN && !c->shape.supervised) {
        for (int i = 0; i < c->n_members; i++)
            if (is_here(&c->members[i]))
                return;
        end(c, c->status, c->text);
    }
    if (c->out_of_memory)
        fail(c, now, CLU_E_NO_MEMORY, "sched: out of memory");
}

/* ---- requests ---- */

void schd_coordinator_committed(struct schd_coordinator *c, int64_t now, uint64_t step, int status)
{
    c->snapshot = SNAPSHOT_NONE;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    if (!status && step > c->whole_step)
        c->whole_step = step;
    if (!status)
        tell(c, CLU_LOG_INFO, "snapshot of step %llu is whole", (unsigned long long)step);
    else
        tell(c, CLU_LOG_WARN, "the snapshot of step %llu is not committed: %s",
             (unsigned long long)step, clu_status_text(status));
    save(c);
    struct clu_order told = {.kind = CLU_ORDER_COMMITTED, .step = step, .status = status};
    struct member *m = find(c, CLU_ROLE_WORKER, 0);
    if (m)
        order(c, m, &told);
}

int schd_coordinator_snapshot(struct schd_coordinator *c, int64_t now)
{
    if (c->phase != SCHD_RUNNING || c->snapshot != SNAPSHOT_NONE || c->stopping || c->finished)
        return CLU_E_AGAIN;
    c->snapshot = SNAPSHOT_ORDERED;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    struct clu_order snapshot = {.kind = CLU_ORDER_SNAPSHOT, .step = c->step};
    order(c, find(c, CLU_ROLE_WORKER, 0), &snapshot);
    return CLU_OK;
}

void schd_coordinator_stop(struct schd_coordinator *c, int64_t now, const char *why)
{
    if (c->stopping || c->phase == SCHD_ENDED)
        return;
    c->stopping = true;
    c->stop_deadline_ms = now + c->shape.stop_timeout_ms;
    snprintf(c->stop_why, sizeof(c->stop_why), "%s", why);
    save(c);
    if (c->phase == SCHD_BROKEN || c->phase == SCHD_STOPPING)
        return;
    bool running =
        c->phase == SCHD_RUNNING && count(c, CLU_ROLE_WORKER, SCHD_IN) == c->shape.n_workers;
    struct clu_order stop = {
        .kind = CLU_ORDER_STOP, .status = CLU_E_INTERRUPTED, .snapshot = running};
    snprintf(stop.text, sizeof(stop.text), "%s", why);
    tell(c, CLU_LOG_INFO, "stopping: %s%s", why, running ? "; a last snapshot first" : "");
    order_all(c, CLU_ROLE_WORKER, &stop);
    if (running || c->phase == SCHD_RUNNING)
        return;
    end(c, CLU_E_INTERRUPTED, why); /* nothing has been trained: nothing to keep */
}

void schd_coordinator_gone(struct schd_coordinator *c, int64_t now, enum clu_role role, int rank,
                           int status, const char *why)
{
    struct member *m = find(c, role, rank);
    if (!m || !is_here(m))
        return;
    m->state = SCHD_DEAD;
    m->status = status;
    snprintf(m->text, sizeof(m->text), "%s", why);
    drop_orders(m);
    fail(c, now, status, "%s %d %s", clu_role_name(role), rank, why);
}

static void forget_members(struct schd_coordinator *c)
{
    for (int i = 0; i < c->n_members; i++) {
        struct member *m = &c->members[i];
        drop_orders(m);
        free(m->figures);
        *m = (struct member){.role = m->role, .rank = m->rank};
    }
}

void schd_coordinator_recover(struct schd_coordinator *c, int64_t now, const char *resume,
                              uint64_t resume_step)
{
    forget_members(c);
    c->life.generation++;
    c->life.resume_step = resume_step;
    snprintf(c->life.resume, sizeof(c->life.resume), "%s", resume);
    c->phase = SCHD_GATHERING;
    c->status = CLU_OK;
    c->text[0] = '\0';
    c->step = resume_step;
    c->finished = false;
    c->snapshot = SNAPSHOT_NONE;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    c->map.version++;
    for (int i = 0; i < c->map.n_shards; i++)
        c->map.endpoint[i][0] = '\0';
    save(c);
    if (c->stopping)
        end(c, CLU_E_INTERRUPTED, c->stop_why);
}

void schd_coordinator_dump(struct schd_coordinator *c)
{
    struct clu_order dump = {.kind = CLU_ORDER_DUMP};
    order_all(c, CLU_ROLE_PS, &dump);
    order_all(c, CLU_ROLE_WORKER, &dump);
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
    if (!c->members || clu_map_init(&c->map, shape->n_servers, shape->shards_per_server)) {
        schd_coordinator_free(c);
        return NULL;
    }
    for (int i = 0; i < c->n_members; i++) {
        bool server = i < c->n_servers;
        c->members[i].role = server ? CLU_ROLE_PS : CLU_ROLE_WORKER;
        c->members[i].rank = server ? i : i - c->n_servers;
    }
    save(c);
    return c;
}

void schd_coordinator_free(struct schd_coordinator *c)
{
    if (!c)
        return;
    struct schd_action action;
    while (schd_coordinator_next(c, &action))
        schd_action_fini(&action);
    if (c->members)
        forget_members(c);
    free(c->members);
    free(c);
}

/* A job's shape changes while it trains: servers are drained, or added.
 *
 *     NONE --add--> JOINING --all READY--> MOVING --rank 0: SETTLED--> NONE, or when servers leave:
 *       '---------------- drain --------------^                        LEAVING --all left--> NONE
 *
 * The map says what is wanted: shards of new servers own nothing yet, shards of servers that are to
 * go are `leaving`. Rank 0 makes the plan from it and carries it out group by group between steps
 * (worker/train_move.c); each group that has moved is stored here before anything is forgotten
 * where it was (C4), so the map of a restarted scheduler, or of another life of the job, is always
 * one by which every row is where it should be at that life's beginning.
 *
 * (S1) While buckets move, a loss rolls the job back to its last snapshot, whatever the durability:
 *      what a server holds may be one group ahead of the map that is stored. Before the first group
 *      and after SETTLED recovery is as ever.
 * (S2) A server that does not come, or that goes before it owns anything, ends the change and not
 *      the job. One that is drained is not needed any more: however it ends is well.
 * (S3) A drained server's rank is never used again, so that a number means one place ((M2) of
 *      cluster/map.c).
 *
 * Snapshots and moves do not meet: rank 0, who begins both, sees to it.
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int schd_core_n_servers(const struct schd_coordinator *c)
{
    int n = 0;
    for (int r = 0; r < c->n_servers; r++)
        n += c->members[r].state != SCHD_DRAINED;
    return n;
}

static bool owns(const struct schd_coordinator *c, int server)
{
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        if (c->map.server_of[c->map.shard_of[b]] == server)
            return true;
    return false;
}

static bool is_leaving(const struct schd_coordinator *c, int server)
{
    int first = clu_map_first_shard(&c->map, server);
    return first >= 0 && c->map.leaving[first];
}

bool schd_core_is_needless(const struct schd_coordinator *c, int server)
{
    return c->members[server].state == SCHD_DRAINED || (is_leaving(c, server) && !owns(c, server));
}

static void set_leaving(struct schd_coordinator *c, int server)
{
    for (int i = 0; i < c->map.n_shards; i++)
        if (c->map.server_of[i] == server)
            c->map.leaving[i] = true;
}

static int n_to_move(const struct schd_coordinator *c)
{
    static const int max = CLU_N_BUCKETS;
    bool alive[CLU_MAX_SHARDS];
    uint16_t *scratch = malloc(2 * (size_t)max * sizeof(*scratch));
    if (!scratch)
        return 0;
    clu_map_staying(&c->map, alive);
    int n = clu_map_plan(&c->map, alive, CLU_MAX_SHARDS, scratch, scratch + max);
    free(scratch);
    return n > 0 ? n : 0;
}

/* An event of the change, for people. */
static void tell_change(struct schd_coordinator *c, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void tell_change(struct schd_coordinator *c, int level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->change_text, sizeof(c->change_text), format, args);
    va_end(args);
    schd_core_tell(c, level, "%s", c->change_text);
}

/* Whoever starts processes hears that a server is to come, or that the end of one is well. */
static void tell_supervisor(struct schd_coordinator *c, enum schd_action_kind kind, int server)
{
    struct schd_action *action = schd_core_add_action(c, kind);
    action->role = CLU_ROLE_PS;
    action->rank = server;
}

/* A server that has no part in the job any more. */
static void drained(struct schd_coordinator *c, struct member *m)
{
    schd_core_drop_orders(m);
    m->state = SCHD_DRAINED;
    m->suspect = false;
    for (int i = 0; i < c->map.n_shards; i++)
        if (c->map.server_of[i] == m->rank)
            c->map.endpoint[i][0] = '\0';
}

/* ---- requests ---- */

/* NULL, or why the shape cannot change now. */
static const char *why_not(const struct schd_coordinator *c)
{
    if (c->change != SCHD_CHANGE_NONE)
        return "the job is changing its shape already: sluice status says how far";
    if (c->phase != SCHD_RUNNING || c->stopping || c->finished ||
        schd_core_count(c, CLU_ROLE_WORKER, SCHD_IN) < c->shape.n_workers)
        return "only a job that is training can change its shape";
    return NULL;
}

static void begin_moving(struct schd_coordinator *c)
{
    c->map.version++;
    c->change = SCHD_CHANGE_MOVING;
    c->n_moved = 0;
    c->n_to_move = n_to_move(c);
    schd_core_save(c);
    tell_change(c, CLU_LOG_INFO, "%d buckets are to move", c->n_to_move);
    schd_core_order_move(c);
}

void schd_core_order_move(struct schd_coordinator *c)
{
    struct clu_order move = {.kind = CLU_ORDER_MOVE, .step = c->map.version};
    struct member *m = schd_core_find(c, CLU_ROLE_WORKER, 0);
    if (c->change == SCHD_CHANGE_MOVING && m)
        schd_core_order(c, m, &move);
}

int schd_coordinator_drain(struct schd_coordinator *c, int64_t now, const bool *leaves,
                           const char **why_p)
{
    int n_leave = 0;
    *why_p = why_not(c);
    if (*why_p)
        return CLU_E_AGAIN;
    for (int r = 0; r < c->n_servers; r++)
        n_leave += leaves[r] && c->members[r].state != SCHD_DRAINED;
    *why_p = n_leave ? "the last server cannot be drained" : "no such server is in the job";
    if (!n_leave || n_leave == schd_core_n_servers(c))
        return n_leave ? CLU_E_USAGE : CLU_E_NOT_FOUND;
    for (int r = 0; r < c->n_servers; r++)
        if (leaves[r] && c->members[r].state != SCHD_DRAINED) {
            set_leaving(c, r);
            tell_change(c, CLU_LOG_INFO, "ps %d is drained: its buckets go to the others", r);
        }
    c->change_began_ms = now;
    begin_moving(c);
    return CLU_OK;
}

/* Room for n more servers behind those that are there; workers move up. */
static int make_room(struct schd_coordinator *c, int n)
{
    struct member *members = calloc((size_t)(c->n_members + n) + 1, sizeof(*members));
    if (!members)
        return CLU_E_NO_MEMORY;
    memcpy(members, c->members, (size_t)c->n_servers * sizeof(*members));
    memcpy(members + c->n_servers + n, c->members + c->n_servers,
           (size_t)(c->n_members - c->n_servers) * sizeof(*members));
    for (int i = 0; i < n; i++)
        members[c->n_servers + i] = (struct member){.role = CLU_ROLE_PS, .rank = c->n_servers + i};
    free(c->members);
    c->members = members;
    c->n_servers += n;
    c->n_members += n;
    return CLU_OK;
}

int schd_coordinator_add(struct schd_coordinator *c, int64_t now, int n, const char **why_p)
{
    int first = c->n_servers;
    *why_p = why_not(c);
    if (*why_p)
        return CLU_E_AGAIN;
    *why_p = "nobody is there to start another server: the job has no supervisor";
    if (!c->shape.supervised)
        return CLU_E_USAGE;
    *why_p = "the map has no room for so many shards, those of drained servers included";
    if (n < 1 || n > (CLU_MAX_SHARDS - c->map.n_shards) / c->shape.shards_per_server)
        return CLU_E_USAGE;
    *why_p = "out of memory";
    if (make_room(c, n))
        return CLU_E_NO_MEMORY;
    for (int r = first; r < c->n_servers; r++) {
        clu_map_add_server(&c->map, r, c->shape.shards_per_server);
        tell_change(c, CLU_LOG_INFO, "ps %d is added: waiting for it to join", r);
    }
    c->change = SCHD_CHANGE_JOINING;
    c->change_began_ms = now;
    c->change_deadline_ms = now + c->shape.start_timeout_ms;
    c->first_added = first;
    c->n_moved = c->n_to_move = 0;
    schd_core_save(c);
    for (int r = first; r < c->n_servers; r++)
        tell_supervisor(c, SCHD_START, r);
    return CLU_OK;
}

/* ---- joining ---- */

void schd_core_admit_added(struct schd_coordinator *c, struct member *m)
{
    if (c->phase != SCHD_RUNNING || c->change != SCHD_CHANGE_JOINING || m->role != CLU_ROLE_PS ||
        m->rank < c->first_added || m->state != SCHD_JOINED)
        return;
    m->state = SCHD_IN;
    schd_core_save(c); /* (C4) */
    schd_core_welcome(c, m);
}

void schd_core_added_ready(struct schd_coordinator *c)
{
    if (c->phase != SCHD_RUNNING || c->change != SCHD_CHANGE_JOINING)
        return;
    for (int r = c->first_added; r < c->n_servers; r++)
        if (c->members[r].state != SCHD_READY)
            return;
    tell_change(c, CLU_LOG_INFO, "%d server%s added", c->n_servers - c->first_added,
                c->n_servers - c->first_added == 1 ? " is" : "s are");
    begin_moving(c);
}

/* (S2) */
static void give_up_adding(struct schd_coordinator *c, const char *why)
{
    struct clu_order stop = {.kind = CLU_ORDER_STOP};
    c->change = SCHD_CHANGE_NONE;
    for (int r = c->first_added; r < c->n_servers; r++) {
        struct member *m = &c->members[r];
        set_leaving(c, r);
        tell_supervisor(c, SCHD_RELEASE, r);
        schd_core_order(c, m, &stop);
        if (!schd_core_is_here(m))
            drained(c, m);
    }
    tell_change(c, CLU_LOG_WARN, "no server is added: %s; the job goes on as it was", why);
    schd_core_save(c);
}

bool schd_core_is_spare(struct schd_coordinator *c, struct member *m, const char *why)
{
    char text[CLU_TEXT_BYTES];
    if (m->role != CLU_ROLE_PS || m->state == SCHD_DRAINED)
        return false;
    if (c->change == SCHD_CHANGE_JOINING && m->rank >= c->first_added) {
        snprintf(text, sizeof(text), "ps %d %.200s", m->rank, why);
        drained(c, m);
        give_up_adding(c, text);
        return true;
    }
    if (!schd_core_is_needless(c, m->rank) || c->change == SCHD_CHANGE_MOVING)
        return false;
    drained(c, m);
    schd_core_save(c);
    schd_core_all_left(c);
    return true;
}

/* ---- moving ---- */

static void order_moved(struct schd_coordinator *c)
{
    struct clu_order moved = {.kind = CLU_ORDER_MOVED, .step = c->map.owners};
    struct member *m = schd_core_find(c, CLU_ROLE_WORKER, 0);
    if (m)
        schd_core_order(c, m, &moved);
}

void schd_core_order_again(struct schd_coordinator *c)
{
    if (c->change == SCHD_CHANGE_NONE)
        return;
    order_moved(c);
    schd_core_order_move(c);
}

void schd_core_moved(struct schd_coordinator *c, int64_t now, const struct clu_report *report)
{
    bool fits = report->owners == c->map.owners + 1;
    for (int b = 0; b < CLU_N_BUCKETS && fits; b++)
        fits = report->shard_of[b] < c->map.n_shards;
    if (report->owners > c->map.owners && !fits) {
        schd_core_fail(c, now, CLU_E_BUG, "worker 0 moved buckets by a map that is not the job's");
        return;
    }
    if (fits) {
        for (int b = 0; b < CLU_N_BUCKETS; b++)
            c->n_moved += report->shard_of[b] != c->map.shard_of[b];
        memcpy(c->map.shard_of, report->shard_of, sizeof(c->map.shard_of));
        c->map.owners = report->owners;
        schd_core_save(c);
    }
    order_moved(c); /* (C4) */
}

static void end_change(struct schd_coordinator *c, int64_t now)
{
    tell_change(c, CLU_LOG_INFO, "%d buckets moved in %.1f s; the job has %d server%s", c->n_moved,
                (double)(now - c->change_began_ms) * 1e-3, schd_core_n_servers(c),
                schd_core_n_servers(c) == 1 ? "" : "s");
    c->change = SCHD_CHANGE_NONE;
    c->map.version++;
    schd_core_save(c);
}

void schd_core_settled(struct schd_coordinator *c, int64_t now)
{
    struct clu_order stop = {.kind = CLU_ORDER_STOP};
    bool any = false;
    if (c->change != SCHD_CHANGE_MOVING)
        return;
    if (n_to_move(c)) { /* what was asked for has changed meanwhile */
        schd_core_order_move(c);
        return;
    }
    c->change = SCHD_CHANGE_LEAVING;
    c->change_deadline_ms = now + BROKEN_MS;
    schd_core_save(c);
    for (int r = 0; r < c->n_servers; r++) {
        struct member *m = &c->members[r];
        if (!is_leaving(c, r) || m->state == SCHD_DRAINED)
            continue;
        any = true;
        tell_supervisor(c, SCHD_RELEASE, r);
        snprintf(stop.text, sizeof(stop.text), "drained");
        schd_core_order(c, m, &stop);
    }
    if (!any)
        end_change(c, now);
    c->change_now_ms = now;
}

void schd_core_all_left(struct schd_coordinator *c)
{
    if (c->change != SCHD_CHANGE_LEAVING)
        return;
    for (int r = 0; r < c->n_servers; r++)
        if (is_leaving(c, r) && c->members[r].state != SCHD_DRAINED)
            return;
    end_change(c, c->change_now_ms);
}

/* ---- time, and other lives ---- */

void schd_core_check_change(struct schd_coordinator *c, int64_t now) /* (C3) */
{
    char text[CLU_TEXT_BYTES];
    c->change_now_ms = now;
    schd_core_servers_complete(c, now); /* who was waited for may have become needless */
    schd_core_servers_ready(c, now);
    if (c->phase != SCHD_RUNNING || now <= c->change_deadline_ms)
        return;
    if (c->change == SCHD_CHANGE_JOINING) {
        snprintf(text, sizeof(text), "it has not joined within %lld ms",
                 (long long)c->shape.start_timeout_ms);
        give_up_adding(c, text);
    } else if (c->change == SCHD_CHANGE_LEAVING) {
        for (int r = 0; r < c->n_servers; r++)
            if (is_leaving(c, r) && c->members[r].state != SCHD_DRAINED)
                drained(c, &c->members[r]);
        schd_core_all_left(c);
    }
}

void schd_core_change_lives(struct schd_coordinator *c)
{
    struct clu_order stop = {.kind = CLU_ORDER_STOP};
    for (int r = 0; r < c->n_servers; r++)
        if (schd_core_is_needless(c, r) && c->members[r].state != SCHD_DRAINED) {
            tell_supervisor(c, SCHD_RELEASE, r);
            schd_core_order(c, &c->members[r], &stop);
            drained(c, &c->members[r]);
        }
    if (c->change == SCHD_CHANGE_JOINING)
        give_up_adding(c, "the job has to recover first"); /* (S2) */
    else if (c->change == SCHD_CHANGE_LEAVING)
        c->change = SCHD_CHANGE_NONE;
    if (c->change == SCHD_CHANGE_MOVING && !n_to_move(c))
        c->change = SCHD_CHANGE_NONE;
    c->n_to_move = c->n_moved + (c->change == SCHD_CHANGE_MOVING ? n_to_move(c) : 0);
}

const char *schd_change_name(enum schd_change change)
{
    static const char *const names[] = {"none", "joining", "moving", "leaving"};
    return names[change];
}

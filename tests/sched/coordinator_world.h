/* The world around a coordinator, as test_coordinator_walk.c walks it: what there is (this file),
 * what members do by themselves (coordinator_world_members.h), how a job's shape changes
 * (coordinator_world_moves.h), every event that can happen next, by its number
 * (coordinator_world_events.h), and a state's hash (coordinator_world_hash.h).
 *
 * Wires keep order. A message that says nothing new while its like still waits (a beat behind the
 * same beat, an order that is sent again) is left out, so that queues are as long as there is
 * something to say: one that overflows would be a bug, not bad luck.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_H
#define TESTS_SCHED_COORDINATOR_WORLD_H

#include "sched/coordinator_internal.h"

#include "cluster/hash.h"
#include "cluster/status.h"
#include "tests/suite.h"

#include <stddef.h>

enum {
    N = 5, /* members: ps 0, ps 1, worker 0, worker 1, and ps 2 where one is added */
    ADDED = 4,
    N_SERVERS = 3,
    MAX_OWNERS = 8, /* versions of who owns which bucket */
    MAX_QUEUE = 20,
    MAX_DEPTH = 600,
    N_STEPS = 2, /* a snapshot after each */
    MAX_STALE = 4,
    MAX_STORED = 12288,
    STUCK_MS = 100000, /* longer than any deadline of the job */
};

enum life { FRESH, JOINING, IN, SERVING, TRAINING, COMMITTING, GONE, CRASHED };

/* What a member knows of the bucket map. */
struct known {
    uint64_t version, owners;
    bool leaving[N_SERVERS];
    int at[N_SERVERS]; /* where a server listens: the pid of its process; 0: nowhere */
};

struct note { /* a message in a queue, either way */
    enum clu_control_op op;
    enum clu_report_kind kind;
    enum clu_order_kind order;
    uint64_t number, step, incarnation, generation;
    int status, pid;
    bool stand, with_map, snapshot;
    struct known map;
};

struct process {
    enum life life;
    uint64_t incarnation, generation, last_order, n_reports, step, resume;
    bool was_in, rejoining, stand, stop_ordered;
    struct known map;
    uint64_t serves; /* a server: by which owners */
    /* rank 0: the owners by which it asks; known to be stored; map version of an order MOVE */
    uint64_t owners, told_owners, move_ordered;
    int n_up, n_down, pid, leave_status;
    bool says_again; /* its goodbye, a second later */
    struct note up[MAX_QUEUE], down[MAX_QUEUE];
    struct note pending[MAX_QUEUE]; /* reports without a receipt */
    int n_pending;
};

struct stale { /* said by a process that is no more */
    int who;
    struct note note;
};

struct world {
    struct schd_coordinator *c;
    struct process p[N];
    struct stale stale[MAX_STALE];
    int n_stale;
    uint64_t rows[N_SERVERS], rows_generation[N_SERVERS]; /* on disk: steps applied, which life */
    bool disk_lost, sched_crashed, finished_said;
    int64_t now, idle_since;
    bool hurried; /* time passed while something could happen: silence may be no death */
    int n_crashes, max_crashes;
    bool ended, commit_due;
    int end_status, next_pid;
    uint64_t committed, commit_step;
    /* the supervisor */
    bool unseen[N]; /* it has ended, and nobody has noticed yet */
    bool need_recovery, planned, starts[N], released[N];
    bool replaced[N]; /* ended by a plan, and not started yet */
    enum schd_way way;
    int n_recoveries;
    /* what SAVE wrote last */
    uint8_t stored[MAX_STORED];
    size_t stored_bytes;
    uint64_t stored_owners, stored_incarnation[N], stored_hash; /* of all the rest */
    bool cuts, is_cut;  /* the scheduler dies at its next SAVE; it did */
    const char *broken; /* a promise that broke */
    bool asked;         /* for another shape, or to stop */
    bool asked_complete;
};

static enum { STAYS, DRAINS, ADDS, STOPS } changes; /* ps 1 is drained, ps 2 added, or the end */

/* Who owns which bucket, by version: the same in every order of events, as a plan depends on the
 * shape alone. owned[v][r]: how many of them server r has; 0 in all: not known yet. */
static uint16_t shard_of[MAX_OWNERS][CLU_N_BUCKETS], owned[MAX_OWNERS][N_SERVERS];

static struct schd_shape shape = {.n_servers = 2,
                                  .shards_per_server = 1,
                                  .n_workers = 2,
                                  .heartbeat_ms = 1000,
                                  .dead_after_ms = 5000,
                                  .start_timeout_ms = 30000,
                                  .stop_timeout_ms = 60000,
                                  .supervised = true};
static struct clu_control_message m;
static bool traced; /* events and messages are printed: of an order that went wrong */

#define TRACE(...)                                                                                 \
    do {                                                                                           \
        if (traced)                                                                                \
            printf(__VA_ARGS__);                                                                   \
    } while (0)

/* A member is known here by a number that is not its place in the coordinator: servers come. */
static inline enum clu_role role_of(int i)
{
    return i < 2 || i == ADDED ? CLU_ROLE_PS : CLU_ROLE_WORKER;
}

static inline int rank_of(int i)
{
    return i == ADDED ? 2 : i % 2;
}

/* What the coordinator knows of it; NULL when it has never heard of such a member. */
static inline struct member *member_of(const struct world *w, int i)
{
    return schd_core_find(w->c, role_of(i), rank_of(i));
}

static inline enum schd_member_state state_of(const struct world *w, int i)
{
    const struct member *found = member_of(w, i);
    return found ? found->state : SCHD_ABSENT;
}

static inline bool has_ended(const struct process *p)
{
    return p->life == GONE || p->life == CRASHED;
}

static inline void break_promise(struct world *w, const char *what)
{
    if (!w->broken)
        w->broken = what;
}

/* In place of what is left of the one before, whose last words may still be on the way. */
static inline void start_process(struct world *w, int i)
{
    for (int j = 0; j < w->p[i].n_up && w->n_stale < MAX_STALE; j++)
        w->stale[w->n_stale++] = (struct stale){i, w->p[i].up[j]};
    w->p[i] = (struct process){.life = FRESH, .pid = ++w->next_pid};
    w->unseen[i] = w->replaced[i] = false;
}

/* ---- wires ---- */

static inline bool is_same(const struct note *a, const struct note *b)
{
    return a->op == b->op && a->order == b->order && a->kind == b->kind && a->number == b->number &&
           a->step == b->step && a->status == b->status && a->incarnation == b->incarnation &&
           a->pid == b->pid && a->generation == b->generation && a->map.version == b->map.version &&
           a->with_map == b->with_map;
}

/* Its like still waits, and nothing behind that one could have made it forgotten. */
static inline bool is_repeated(const struct note *queue, int n, const struct note *note)
{
    for (int i = n - 1; i >= 0; i--) {
        if (is_same(&queue[i], note))
            return true;
        if (note->op != CLU_CONTROL_ORDER || queue[i].op == CLU_CONTROL_WELCOME)
            return false;
    }
    return false;
}

static inline void push(struct world *w, struct note *queue, int *n, struct note note)
{
    if (is_repeated(queue, *n, &note))
        return;
    if (*n == MAX_QUEUE)
        break_promise(w, "a queue overflowed");
    else
        queue[(*n)++] = note;
}

static inline struct note pop(struct note *queue, int *n)
{
    struct note first = queue[0];
    memmove(queue, queue + 1, (size_t)-- * n * sizeof(*queue));
    return first;
}

/* The coordinator's map, as a message carries it. */
static inline struct known map_of(const struct world *w)
{
    const struct clu_bucket_map *map = &w->c->map;
    struct known known = {.version = map->version, .owners = map->owners};
    for (int i = 0; i < map->n_shards; i++) {
        const char *colon = strrchr(map->endpoint[i], ':');
        known.leaving[map->server_of[i]] = map->leaving[i];
        known.at[map->server_of[i]] = colon ? atoi(colon + 1) : 0;
    }
    return known;
}

/* ---- the coordinator's actions, carried out ---- */

static inline void send(struct world *w, const struct schd_action *a)
{
    int i = a->peer.bytes[0];
    struct process *p = &w->p[i];
    bool order = a->op == CLU_CONTROL_ORDER, welcome = a->op == CLU_CONTROL_WELCOME;
    if (has_ended(p) || a->peer.bytes[1] != (uint8_t)p->pid)
        return; /* to a process that is no more */
    if (a->op == CLU_CONTROL_BEAT && !a->with_map)
        return; /* it is alive: nobody here doubts that */
    TRACE("      to %d: op %d order %d number %d step %d%s\n", i, a->op, order ? a->order.kind : 0,
          (int)a->number, (int)a->order.step, a->with_map ? ", the map" : "");
    struct note note = {.op = a->op,
                        .order = order ? a->order.kind : 0,
                        .number = a->number,
                        .step = order     ? a->order.step
                                : welcome ? a->welcome.resume_step
                                          : 0,
                        .incarnation = a->welcome.incarnation,
                        .generation = order ? a->order.generation : a->welcome.generation,
                        .stand = a->welcome.stand,
                        .snapshot = a->order.snapshot,
                        .with_map = a->with_map,
                        .status = order ? a->order.status : a->status};
    if (a->with_map)
        note.map = map_of(w);
    push(w, p->down, &p->n_down, note);
}

/* What is stored, as a hash that does not know who joined before whom. */
static inline void note_stored(struct world *w, struct clu_packer *packer)
{
    const uint64_t n = w->c->n_incarnations, least = w->c->least_incarnation;
    w->c->n_incarnations = w->c->least_incarnation = 0;
    for (int i = 0; i < N; i++)
        if (member_of(w, i)) {
            w->stored_incarnation[i] = member_of(w, i)->incarnation;
            member_of(w, i)->incarnation = 0;
        }
    schd_coordinator_save(w->c, packer);
    w->stored_hash = clu_hash_bytes(packer->data, packer->size_bytes);
    for (int i = 0; i < N; i++)
        if (member_of(w, i))
            member_of(w, i)->incarnation = w->stored_incarnation[i];
    w->c->n_incarnations = n;
    w->c->least_incarnation = least;
}

static inline void save(struct world *w)
{
    static struct clu_packer packer; /* one for all worlds, never freed */
    if (!packer.data)
        clu_packer_init(&packer);
    schd_coordinator_save(w->c, &packer);
    if (packer.size_bytes > MAX_STORED) {
        break_promise(w, "the stored state is larger than this test thought");
        return;
    }
    memcpy(w->stored, packer.data, packer.size_bytes);
    w->stored_bytes = packer.size_bytes;
    w->stored_owners = w->c->map.owners;
    note_stored(w, &packer);
}

static inline void carry_one(struct world *w, const struct schd_action *a)
{
    switch (a->kind) {
    case SCHD_SEND:
        send(w, a);
        break;
    case SCHD_SAVE:
        save(w);
        break;
    case SCHD_COMMIT:
        w->commit_due = true;
        w->commit_step = a->step;
        break;
    case SCHD_START:
        if (!w->p[ADDED].pid) /* told again by a restarted scheduler */
            start_process(w, ADDED);
        break;
    case SCHD_RELEASE:
        w->released[a->rank == 2 ? ADDED : a->rank] = true;
        break;
    case SCHD_END:
        w->ended = true;
        w->end_status = a->status;
        break;
    case SCHD_TELL:
        TRACE("      \"%s\"\n", a->text);
        break;
    default:
        break;
    }
}

/* In order; up to the first SAVE where the scheduler is to die just before it. */
static inline void carry_out(struct world *w)
{
    struct schd_action a;
    while (schd_coordinator_next(w->c, &a)) {
        w->is_cut = w->is_cut || (w->cuts && a.kind == SCHD_SAVE);
        if (!w->is_cut)
            carry_one(w, &a);
        schd_action_fini(&a);
    }
    if (!w->is_cut && w->c->phase == SCHD_BROKEN && !w->planned)
        w->need_recovery = true;
}

static inline void hear(struct world *w, int i, struct note note)
{
    struct clu_peer peer = {.size_bytes = 2, .bytes = {(uint8_t)i, (uint8_t)note.pid}};
    memset(&m, 0, offsetof(struct clu_control_message, endpoints));
    memset(&m.report, 0, offsetof(struct clu_report, figures));
    TRACE("  the scheduler hears %d: op %d report %d number %d step %d status %d\n", i, note.op,
          note.kind, (int)note.number, (int)note.step, note.status);
    m.op = note.op;
    m.role = role_of(i);
    m.rank = rank_of(i);
    m.incarnation = note.incarnation;
    m.number = note.number;
    m.status = note.status;
    m.pid = note.pid;
    m.map_version = note.map.version;
    m.report.kind = note.kind;
    m.report.step = note.step;
    m.report.generation = note.generation;
    if (note.kind == CLU_REPORT_MOVED) {
        m.report.owners = note.step;
        memcpy(m.report.shard_of, shard_of[note.step], sizeof(m.report.shard_of));
    }
    m.n_endpoints = role_of(i) == CLU_ROLE_PS && note.op == CLU_CONTROL_JOIN;
    snprintf(m.endpoints[0], sizeof(m.endpoints[0]), "tcp://127.0.0.1:%d", note.pid);
    schd_coordinator_hear(w->c, w->now, &peer, &m);
    carry_out(w);
}

/* ---- many worlds ---- */

static inline void open_world(struct world *w)
{
    struct schd_life life = {.job_id = 1, .generation = 1};
    memset(w, 0, sizeof(*w));
    w->max_crashes = 1;
    w->now = w->idle_since = 1000;
    w->c = schd_coordinator_create(&shape, &life, w->now);
    CU_ASSERT_PTR_NOT_NULL_FATAL(w->c);
    for (int i = 0; i < ADDED; i++)
        start_process(w, i);
    w->p[ADDED].life = GONE; /* it has not begun */
    memset(owned, 0, sizeof(owned));
    memcpy(shard_of[w->c->map.owners], w->c->map.shard_of, sizeof(w->c->map.shard_of));
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        owned[w->c->map.owners][w->c->map.shard_of[b]]++;
    w->p[2].owners = w->c->map.owners;
    carry_out(w);
}

static inline void close_world(struct world *w)
{
    schd_coordinator_free(w->c);
    w->c = NULL;
}

/* A coordinator that has nothing to be carried out, once more. Endpoints of shards that are not
 * there are left alone: they are most of its bytes. */
static inline struct schd_coordinator *copy_coordinator(const struct schd_coordinator *c)
{
    size_t shards = offsetof(struct schd_coordinator, map.endpoint),
           rest = offsetof(struct schd_coordinator, map.leaving);
    struct schd_coordinator *copy = calloc(1, sizeof(*copy));
    size_t n = (size_t)c->n_members + 1;
    struct member *members = malloc(n * sizeof(*members));
    CU_ASSERT_FATAL(copy && members && !c->first_action);
    memcpy(copy, c, shards + (size_t)c->map.n_shards * sizeof(c->map.endpoint[0]));
    memcpy((char *)copy + rest, (const char *)c + rest, sizeof(*c) - rest);
    memcpy(members, c->members, n * sizeof(*members));
    copy->members = members;
    copy->last_action_p = &copy->first_action;
    for (int i = 0; i < c->n_members; i++) {
        struct queued_order **link = &members[i].orders;
        members[i].figures = NULL; /* nobody decides by them */
        for (const struct queued_order *q = c->members[i].orders; q; q = q->next) {
            *link = malloc(sizeof(**link));
            CU_ASSERT_PTR_NOT_NULL_FATAL(*link);
            **link = *q;
            link = &(*link)->next;
        }
        *link = NULL;
    }
    return copy;
}

static inline void copy_world(struct world *to, const struct world *from)
{
    memcpy(to, from, sizeof(*to));
    to->c = copy_coordinator(from->c);
}

#endif

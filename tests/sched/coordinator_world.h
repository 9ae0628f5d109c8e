/* The world around a coordinator, as test_coordinator_walk.c walks it: members, disks, wires and a
 * supervisor as small state machines, and every event that can happen next by its number.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_H
#define TESTS_SCHED_COORDINATOR_WORLD_H

#include "sched/coordinator_internal.h"

#include "cluster/hash.h"
#include "cluster/status.h"
#include "tests/suite.h"

enum {
    N = 5, /* members: ps 0, ps 1, worker 0, worker 1, and ps 2 where one is added */
    ADDED = 4,
    MAX_OWNERS = 8, /* versions of who owns which bucket */
    MAX_QUEUE = 24,
    MAX_DEPTH = 400,
    N_STEPS = 2, /* a snapshot after each */
    TABLE = 1 << 22,
    MAX_STALE = 3,
    STUCK_MS = 60000,
};

enum life { FRESH, JOINING, IN, SERVING, TRAINING, COMMITTING, GONE, CRASHED };

struct note { /* a message in a queue, either way */
    enum clu_control_op op;
    enum clu_report_kind kind;
    enum clu_order_kind order;
    uint64_t number, step, incarnation, generation, owners;
    int status, pid;
    bool stand;
};

struct process {
    enum life life;
    uint64_t incarnation, generation, last_order, n_reports, step, resume;
    bool was_in, rejoining, stand;
    uint64_t owners, told_owners; /* rank 0: of its map; known to be stored */
    bool move_ordered;
    int n_up, n_down, pid, leave_status;
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
    uint64_t rows[3], rows_generation[3]; /* on the servers' disks: steps applied, in which life */
    bool disk_lost, sched_crashed, finished_said;
    int64_t now, idle_since;
    int n_crashes, max_crashes;
    bool ended, need_recovery, commit_due, overflow;
    int end_status, next_pid;
    uint64_t committed, commit_step, n_recoveries;
    struct clu_packer stored; /* what SAVE wrote last */
    const char *broken;       /* a promise that broke */
    /* a change of shape */
    bool asked, released[N]; /* the end of a released process is well */
    uint64_t stored_owners;
    uint16_t shard_of[MAX_OWNERS][CLU_N_BUCKETS], owned[MAX_OWNERS][3];
};

static enum { STAYS, DRAINS, ADDS } changes; /* ps 1 is drained, or ps 2 added */

static struct schd_shape shape = {.n_servers = 2,
                                  .shards_per_server = 1,
                                  .n_workers = 2,
                                  .heartbeat_ms = 1000,
                                  .dead_after_ms = 5000,
                                  .start_timeout_ms = 30000,
                                  .stop_timeout_ms = 30000,
                                  .supervised = true};
static struct clu_control_message m;

static inline void carry_out(struct world *w);
static inline void report(struct world *w, int i, enum clu_report_kind kind, uint64_t step);
static inline void start_process(struct world *w, int i);

#include "tests/sched/coordinator_world_moves.h"

static inline void push(struct world *w, struct note *queue, int *n, struct note note)
{
    if (*n == MAX_QUEUE)
        w->overflow = true;
    else
        queue[(*n)++] = note;
}

static inline struct note pop(struct note *queue, int *n)
{
    struct note first = queue[0];
    memmove(queue, queue + 1, (size_t)-- * n * sizeof(*queue));
    return first;
}

/* ---- the coordinator's actions, carried out ---- */

static inline void send(struct world *w, const struct schd_action *a)
{
    int i = a->peer.bytes[0];
    struct process *p = &w->p[i];
    if (p->life == CRASHED || p->life == GONE || a->peer.bytes[1] != (uint8_t)p->pid)
        return; /* to a process that is no more */
    push(w, p->down, &p->n_down,
         (struct note){.op = a->op,
                       .order = a->order.kind,
                       .number = a->number,
                       .step = a->op == CLU_CONTROL_ORDER ? a->order.step : a->welcome.resume_step,
                       .incarnation = a->welcome.incarnation,
                       .generation =
                           a->op == CLU_CONTROL_ORDER ? a->order.generation : a->welcome.generation,
                       .owners = w->c->map.owners,
                       .stand = a->welcome.stand,
                       .status = a->op == CLU_CONTROL_ORDER ? a->order.status : a->status});
}

static inline void carry_out(struct world *w)
{
    struct schd_action a;
    while (schd_coordinator_next(w->c, &a)) {
        if (a.kind == SCHD_SEND) {
            send(w, &a);
        } else if (a.kind == SCHD_SAVE) {
            schd_coordinator_save(w->c, &w->stored);
            w->stored_owners = w->c->map.owners;
        } else if (a.kind == SCHD_COMMIT) {
            w->commit_due = true;
            w->commit_step = a.step;
        } else if (a.kind == SCHD_START) {
            start_process(w, ADDED);
        } else if (a.kind == SCHD_RELEASE) {
            w->released[a.rank == 2 ? ADDED : a.rank] = true;
        } else if (a.kind == SCHD_END) {
            w->ended = true;
            w->end_status = a.status;
        }
        schd_action_fini(&a);
    }
    if (w->c->phase == SCHD_BROKEN)
        w->need_recovery = true;
}

static inline void hear(struct world *w, int i, struct note note)
{
    struct clu_peer peer = {.size_bytes = 2, .bytes = {(uint8_t)i, (uint8_t)note.pid}};
    memset(&m, 0, offsetof(struct clu_control_message, endpoints));
    memset(&m.report, 0, offsetof(struct clu_report, figures));
    m.op = note.op;
    m.role = role_of(i);
    m.rank = rank_of(i);
    m.incarnation = note.incarnation;
    m.number = note.number;
    m.status = note.status;
    m.pid = note.pid;
    m.map_version = 1000000;
    m.report.kind = note.kind;
    m.report.step = note.step;
    m.report.generation = note.generation;
    if (note.kind == CLU_REPORT_MOVED) {
        m.report.owners = note.step;
        memcpy(m.report.shard_of, w->shard_of[note.step], sizeof(m.report.shard_of));
    }
    if (role_of(i) == CLU_ROLE_PS && note.op == CLU_CONTROL_JOIN) {
        m.n_endpoints = 1;
        strcpy(m.endpoints[0], "tcp://127.0.0.1:1");
    }
    schd_coordinator_hear(w->c, w->now, &peer, &m);
    carry_out(w);
}

/* ---- the members ---- */

static inline void say(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    note.incarnation = p->incarnation;
    note.pid = p->pid;
    push(w, p->up, &p->n_up, note);
}

static inline void report(struct world *w, int i, enum clu_report_kind kind, uint64_t step)
{
    struct process *p = &w->p[i];
    struct note note = {.op = CLU_CONTROL_REPORT,
                        .kind = kind,
                        .step = step,
                        .number = ++p->n_reports,
                        .generation = p->generation,
                        .incarnation = p->incarnation};
    push(w, p->pending, &p->n_pending, note);
    if (!p->rejoining) /* all go again with the welcome */
        say(w, i, note);
}

static inline void leave(struct world *w, int i, int status)
{
    say(w, i, (struct note){.op = CLU_CONTROL_LEAVE, .status = status});
    w->p[i].life = GONE;
    w->p[i].leave_status = status;
}

static inline void forget_pending(struct process *p, uint64_t number, bool snapshots, uint64_t step)
{
    int kept = 0;
    for (int i = 0; i < p->n_pending; i++) {
        bool snapshot = p->pending[i].kind == CLU_REPORT_SNAPSHOT;
        bool done = snapshots ? snapshot && p->pending[i].step <= step
                              : !snapshot && p->pending[i].number <= number;
        if (!done)
            p->pending[kept++] = p->pending[i];
    }
    p->n_pending = kept;
}

/* A server comes to what its welcome, or an order, says. */
static inline void restore(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    int r = rank_of(i);
    p->generation = note.generation;
    if (note.stand && w->rows_generation[r] != note.generation) {
        leave(w, i, CLU_E_LOST);
        return;
    }
    p->life = IN;
    if (note.stand)
        return;
    w->rows[r] = note.step;
    w->rows_generation[r] = note.generation;
    if (i == ADDED && !is_asked(w, i)) /* it joins a life that goes on */
        return;
    if (note.step > w->committed)
        w->broken = "a life began at a snapshot that was never committed";
    if (note.step < w->committed)
        w->broken = "a life began at an older snapshot than it could";
}

static inline void on_welcome(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    if (p->life != JOINING && !p->rejoining)
        return;
    if (p->was_in && note.incarnation != p->incarnation) {
        p->life = GONE;
        return;
    }
    if (!p->was_in && note.step != 0 && note.step > w->committed)
        w->broken = "a life began at a snapshot that was never committed";
    p->incarnation = note.incarnation;
    if (!p->was_in)
        p->generation = note.generation; /* afterwards a server's grows by order alone */
    p->last_order = 0;
    if (!p->was_in && i == 2)
        take_owners(w, note.owners);
    if (!p->was_in && role_of(i) == CLU_ROLE_PS) {
        restore(w, i, note);
    } else if (!p->was_in) {
        p->step = p->resume = note.step;
        p->stand = note.stand;
        p->life = IN;
    }
    p->was_in = true;
    p->rejoining = false;
    for (int j = 0; j < p->n_pending; j++)
        say(w, i, p->pending[j]);
}

static inline void on_order(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    if (p->rejoining || note.number != p->last_order + 1)
        return;
    p->last_order = note.number;
    say(w, i, (struct note){.op = CLU_CONTROL_BEAT, .number = p->last_order});
    if (note.order == CLU_ORDER_COMMITTED) {
        forget_pending(p, 0, true, note.step);
        if (p->life == COMMITTING && note.step == p->step)
            p->life = TRAINING;
    } else if (note.order == CLU_ORDER_RESTORE && note.generation > p->generation) {
        restore(w, i, note);
    } else if (note.order == CLU_ORDER_MOVE) {
        p->move_ordered = true;
    } else if (note.order == CLU_ORDER_MOVED) {
        if (note.step > w->stored_owners)
            w->broken = "rank 0 was told of owners that are not stored";
        p->told_owners = note.step;
    } else if (note.order == CLU_ORDER_STOP) {
        leave(w, i, note.status);
    }
}

static inline void receive(struct world *w, int i)
{
    struct process *p = &w->p[i];
    struct note note = pop(p->down, &p->n_down);
    if (note.op == CLU_CONTROL_WELCOME)
        on_welcome(w, i, note);
    else if (note.op == CLU_CONTROL_ORDER && p->was_in)
        on_order(w, i, note);
    else if (note.op == CLU_CONTROL_RECEIPT && note.number > 0)
        forget_pending(p, note.number, false, 0);
    else if (note.op == CLU_CONTROL_REFUSE && note.status == CLU_E_AGAIN && p->was_in) {
        p->rejoining = true;
        say(w, i, (struct note){.op = CLU_CONTROL_JOIN});
    } else if (note.op == CLU_CONTROL_REFUSE && note.status != CLU_E_AGAIN) {
        p->life = GONE;
    }
}

/* Both ranks stand at the same step, with nothing to wait for: the all-reduce goes through. */
static inline bool can_step(const struct world *w)
{
    const struct process *a = &w->p[2], *b = &w->p[3];
    for (int i = 0; i < N; i++)
        if (role_of(i) == CLU_ROLE_PS && is_asked(w, i) &&
            (w->p[i].life != SERVING || w->rows[rank_of(i)] < a->step))
            return false;
    return a->life == TRAINING && b->life == TRAINING && a->step == b->step &&
           a->generation == b->generation && a->step < N_STEPS && !is_held_up(w);
}

/* Workers that go on with rows as they stand: after the step that any shard has reached; the others
 * skip what they miss (ps/shard_life.c). */
static inline void agree_on_rows(struct world *w, struct process *p)
{
    uint64_t most = w->rows[0] > w->rows[1] ? w->rows[0] : w->rows[1];
    p->step = w->rows[0] = w->rows[1] = most;
}

static inline void step_together(struct world *w)
{
    for (int i = 0; i < N; i++) {
        if (role_of(i) != CLU_ROLE_PS || !is_asked(w, i))
            continue;
        if (w->p[i].generation != w->p[2].generation)
            w->broken = "workers and servers of two lives trained together";
        if (w->rows[rank_of(i)] != w->p[2].step)
            w->broken = "rows of another step than the workers'";
        if (w->rows_generation[rank_of(i)] != w->p[2].generation)
            w->broken = "rows of another life than the workers'";
        if (state_of(w, i) != SCHD_READY && w->c->phase == SCHD_RUNNING)
            w->broken = "the job runs with a server that is not ready";
    }
    w->p[2].step = ++w->p[3].step;
    w->p[2].life =
        COMMITTING; /* every step's snapshot is waited for: it is the last one's that matters */
    report(w, 2, CLU_REPORT_SNAPSHOT, w->p[2].step);
    w->rows[2] += is_asked(w, ADDED);
    w->rows[0]++; /* the other server's push may be under way still */
}

/* What a member does by itself; false when there is nothing. dry: only tells. */
static inline bool act(struct world *w, int i, bool dry)
{
    struct process *p = &w->p[i];
    switch (p->life) {
    case FRESH:
        if (!dry) {
            p->life = JOINING;
            say(w, i, (struct note){.op = CLU_CONTROL_JOIN});
        }
        return true;
    case IN:
        if (role_of(i) == CLU_ROLE_WORKER && p->stand &&
            (w->p[0].life != SERVING || w->p[1].life != SERVING))
            return false; /* it has to ask both */
        if (!dry && role_of(i) == CLU_ROLE_WORKER && p->stand)
            agree_on_rows(w, p);
        if (!dry && role_of(i) == CLU_ROLE_PS)
            report(w, i, CLU_REPORT_READY, 0);
        if (!dry)
            p->life = role_of(i) == CLU_ROLE_PS ? SERVING : TRAINING;
        if (!dry && i == 2 && p->stand && p->step == N_STEPS && p->resume != p->step) {
            p->life = COMMITTING; /* the dead had done the last step, but not stored it */
            report(w, i, CLU_REPORT_SNAPSHOT, p->step);
        }
        return true;
    case SERVING:
        if (i != 1 || !is_asked(w, 1) || w->rows[1] >= w->p[2].step ||
            w->p[2].generation != w->rows_generation[1] ||
            (w->p[2].life != TRAINING && w->p[2].life != COMMITTING))
            return false;
        if (!dry)
            w->rows[1]++; /* the push that was under way, or is tried again */
        return true;
    case TRAINING:
        if (p->step < N_STEPS)
            return i == 2 && can_step(w) && (dry || (step_together(w), true));
        if (i == 3 && w->p[2].life != GONE)
            return false; /* the last all-reduce: rank 0 ends first */
        if (!dry) {
            if (i == 2) {
                report(w, i, CLU_REPORT_FINISHED, p->step);
                w->finished_said = true;
            }
            leave(w, i, CLU_OK);
        }
        return true;
    default:
        return false;
    }
}

/* ---- the world ---- */

/* In place of what is left of the one before, whose last words may still be on the way. */
static inline void start_process(struct world *w, int i)
{
    for (int j = 0; j < w->p[i].n_up && w->n_stale < MAX_STALE; j++)
        w->stale[w->n_stale++] = (struct stale){i, w->p[i].up[j]};
    w->p[i] = (struct process){.life = FRESH, .pid = ++w->next_pid};
}

static inline void open_world(struct world *w)
{
    struct schd_life life = {.job_id = 1, .generation = 1};
    memset(w, 0, sizeof(*w));
    w->max_crashes = 1;
    clu_packer_init(&w->stored);
    w->now = 1000;
    w->c = schd_coordinator_create(&shape, &life, w->now);
    for (int i = 0; i < ADDED; i++)
        start_process(w, i);
    w->p[ADDED].life = GONE; /* it has not begun */
    memcpy(w->shard_of[w->c->map.owners], w->c->map.shard_of, sizeof(w->c->map.shard_of));
    count_owned(w, w->c->map.owners);
    w->p[2].owners = w->c->map.owners;
    carry_out(w);
}

static inline void close_world(struct world *w)
{
    schd_coordinator_free(w->c);
    clu_packer_fini(&w->stored);
}

static inline void crash_member(struct world *w, int i, bool with_disk)
{
    w->n_crashes++;
    w->disk_lost |= with_disk;
    if (with_disk)
        w->rows[rank_of(i)] = w->rows_generation[rank_of(i)] = 0;
    w->p[i].life = CRASHED;
    w->p[i].n_up = w->p[i].n_down = 0;
    schd_coordinator_gone(w->c, w->now, role_of(i), rank_of(i), CLU_E_LOST, "was killed");
    carry_out(w);
    w->need_recovery =
        !w->ended && !w->released[i]; /* the supervisor saw it, whatever the coordinator thinks */
}

/* The scheduler dies and is started again from its store; what was on the wire is lost. */
static inline void crash_scheduler(struct world *w)
{
    struct schd_life life = {0};
    struct schd_action a;
    w->n_crashes++;
    w->sched_crashed = w->p[2].step < N_STEPS; /* later the last words may be lost with it */
    schd_coordinator_free(w->c);
    w->c = schd_coordinator_create(&shape, &life, w->now);
    while (schd_coordinator_next(w->c, &a)) /* its own first SAVE is not carried out */
        schd_action_fini(&a);
    if (schd_coordinator_load(w->c, w->now, w->stored.data, w->stored.size_bytes))
        w->broken = "the stored state cannot be loaded";
    w->commit_due = false;
    for (int i = 0; i < N; i++)
        w->p[i].n_up = w->p[i].n_down = 0;
    carry_out(w);
    for (int i = 0; i < N && !w->ended; i++) /* the supervisor tells what it cannot have seen */
        if (w->p[i].life == CRASHED) {
            schd_coordinator_gone(w->c, w->now, role_of(i), rank_of(i), CLU_E_LOST, "was killed");
            carry_out(w);
        }
}

static inline void commit(struct world *w)
{
    w->commit_due = false;
    w->committed = w->commit_step > w->committed ? w->commit_step : w->committed;
    schd_coordinator_committed(w->c, w->now, w->commit_step, CLU_OK);
    carry_out(w);
}

/* The supervisor has the scheduler decide, and starts whom it names. */
static inline void recover(struct world *w)
{
    w->need_recovery = false;
    w->n_recoveries++;
    if (w->commit_due) /* one that is nearly whole is waited for */
        commit(w);
    enum schd_way way = schd_coordinator_plan(w->c);
    bool lost_server = w->p[0].life == CRASHED || w->p[1].life == CRASHED;
    bool start[N];
    if (w->n_crashes == 1 && way >= SCHD_WAY_BACK && w->c->ran &&
        w->c->change != SCHD_CHANGE_MOVING && w->c->shape.servers_stand && lost_server &&
        !w->disk_lost && !w->c->must_go_back && schd_core_workers_stay(w->c))
        w->broken = "the job goes back for a server whose rows stand";
    for (int i = 0; i < N; i++) {
        start[i] = member_of(w, i) && schd_coordinator_starts(w->c, way, role_of(i), rank_of(i));
        if (start[i])
            start_process(w, i); /* what is left of it is dead: it starts when the job goes on */
        else if (w->p[i].life == CRASHED && state_of(w, i) != SCHD_LEFT &&
                 !(role_of(i) == CLU_ROLE_PS && schd_core_is_needless(w->c, rank_of(i))) &&
                 w->n_crashes == 1 && w->c->phase != SCHD_ENDED && !w->c->finished)
            w->broken = "the job goes on with a process that is no more";
    }
    carry_out(w);
    w->need_recovery = false;
    schd_coordinator_recover(w->c, w->now, way, w->committed ? "snapshot" : "", w->committed);
    carry_out(w);
    for (int i = 0; i < N; i++)
        if (!start[i] && member_of(w, i) && state_of(w, i) == SCHD_ABSENT &&
            w->c->phase != SCHD_STOPPING && w->c->phase != SCHD_ENDED)
            w->broken = "somebody is missing who was not to be started";
}

/* A second passes: members beat, or ask again; the coordinator looks at its deadlines. */
static inline void pass_time(struct world *w)
{
    w->now += 1000;
    for (int i = 0; i < N; i++) {
        struct process *p = &w->p[i];
        if (p->life == JOINING || (p->rejoining && p->life != GONE && p->life != CRASHED))
            say(w, i, (struct note){.op = CLU_CONTROL_JOIN});
        else if (p->life >= IN && p->life <= COMMITTING)
            say(w, i, (struct note){.op = CLU_CONTROL_BEAT, .number = p->last_order});
        else if (p->life == GONE && p->was_in && state_of(w, i) != SCHD_LEFT &&
                 state_of(w, i) != SCHD_DRAINED)
            say(w, i, (struct note){.op = CLU_CONTROL_LEAVE, .status = p->leave_status});
    }
    schd_coordinator_tick(w->c, w->now);
    carry_out(w);
}

static inline bool may_crash(const struct world *w)
{
    return w->n_crashes < w->max_crashes;
}

/* How many of the events that can happen now are crashes. */
static inline int n_crash_events(const struct world *w)
{
    int n = may_crash(w);
    for (int i = 0; i < N && may_crash(w); i++)
        n += (w->p[i].life != GONE && w->p[i].life != CRASHED) *
             (i < 2 && w->c->shape.servers_stand ? 2 : 1);
    return n;
}

/* The n-th event that can happen now is carried out; the number of those there are. */
static inline int event(struct world *w, int n)
{
    int k = 0;
    if (w->ended || w->broken || w->overflow)
        return 0;
    for (int i = 0; i < N; i++) {
        struct process *p = &w->p[i];
        if (p->n_up > 0 && k++ == n)
            hear(w, i, pop(p->up, &p->n_up));
        if (p->n_down > 0 && k++ == n)
            receive(w, i);
        if (act(w, i, true) && k++ == n)
            act(w, i, false);
    }
    if (move(w, true) && k++ == n)
        move(w, false);
    if (ask_shape(w, true) && k++ == n)
        ask_shape(w, false);
    if (w->n_stale > 0 && k++ == n) {
        struct stale first = w->stale[0];
        memmove(w->stale, w->stale + 1, (size_t)--w->n_stale * sizeof(w->stale[0]));
        hear(w, first.who, first.note);
    }
    if (w->commit_due && k++ == n)
        commit(w);
    if (w->need_recovery && k++ == n)
        recover(w);
    for (int i = 0; i < N && may_crash(w); i++)
        if (w->p[i].life != GONE && w->p[i].life != CRASHED && k++ == n)
            crash_member(w, i, false);
    for (int i = 0; i < 2 && may_crash(w) && w->c->shape.servers_stand; i++)
        if (w->p[i].life != GONE && w->p[i].life != CRASHED && k++ == n)
            crash_member(w, i, true);
    if (may_crash(w) && k++ == n)
        crash_scheduler(w);
    return k;
}

static inline uint64_t fold(uint64_t hash, uint64_t value)
{
    return clu_mix(hash ^ value) + 0x9e3779b97f4a7c15u;
}

static inline uint64_t hash_note(uint64_t h, const struct note *note)
{
    h = fold(h, (uint64_t)note->op << 16 | (uint64_t)note->kind << 8 | (uint64_t)note->order);
    h = fold(h, note->number << 32 | note->step << 8 | (uint64_t)(-note->status));
    return fold(h, note->incarnation << 8 | note->generation << 1 | note->stand);
}

/* Everything that the future depends on, but time and numbers that only grow. */
static inline uint64_t hash_world(const struct world *w)
{
    uint64_t h = fold(w->committed, (uint64_t)w->n_crashes << 8 | (uint64_t)w->need_recovery << 1 |
                                        (uint64_t)w->commit_due << 2 | (uint64_t)w->ended << 3);
    h = fold(h, w->commit_step << 8 | (uint64_t)w->c->phase << 4 | (uint64_t)w->c->finished);
    h = fold(h, w->c->life.generation << 8 | (uint64_t)w->c->snapshot);
    h = fold(h, (uint64_t)w->c->ran | (uint64_t)w->c->must_go_back << 1 |
                    (uint64_t)w->c->workers_stand << 2 | (uint64_t)w->finished_said << 3);
    for (int i = 0; i < w->n_stale; i++)
        h = hash_note(fold(h, (uint64_t)w->stale[i].who), &w->stale[i].note);
    h = fold(h, w->rows[0] << 32 | w->rows[1] << 16 | w->rows_generation[0] << 8 |
                    w->rows_generation[1]);
    h = fold(h, w->rows[2] << 32 | w->rows_generation[2] << 8 | w->c->map.owners << 4 |
                    (uint64_t)w->c->change << 2 | (uint64_t)w->asked);
    h = fold(h, w->p[2].owners << 16 | w->p[2].told_owners << 8 | (uint64_t)w->p[2].move_ordered |
                    (uint64_t)w->released[1] << 1 | (uint64_t)w->released[ADDED] << 2);
    for (int i = 0; i < N; i++) {
        const struct process *p = &w->p[i];
        static const struct member nobody;
        const struct member *c = member_of(w, i) ? member_of(w, i) : &nobody;
        h = fold(h, (uint64_t)p->life << 8 | (uint64_t)p->was_in << 1 | (uint64_t)p->rejoining |
                        (uint64_t)p->stand << 2 | p->generation << 16);
        h = fold(h, p->step << 32 | p->last_order << 16 | p->n_reports);
        h = fold(h, p->incarnation);
        h = fold(h, (uint64_t)c->state << 8 | (uint64_t)c->attached << 4 | (uint64_t)c->stand << 1 |
                        (uint64_t)c->kept);
        h = fold(h, c->last_report << 16 | c->n_orders);
        for (const struct queued_order *q = c->orders; q; q = q->next)
            h = fold(h, q->number << 16 | (uint64_t)q->order.kind << 8 | q->order.step);
        for (int j = 0; j < p->n_up; j++)
            h = hash_note(h, &p->up[j]);
        h = fold(h, 77);
        for (int j = 0; j < p->n_down; j++)
            h = hash_note(h, &p->down[j]);
        h = fold(h, (uint64_t)p->n_pending);
    }
    return h ? h : 1;
}

#endif

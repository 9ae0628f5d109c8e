/* The part of the world that changes the job's shape: one server more, or one fewer, and rank 0 who
 * moves buckets between steps in two or three groups, as worker/train_move.c does.
 *
 * Promises: nothing is told to be stored that is not; buckets move between servers that have the
 * rows of all steps; where a change began, the job does not end before it is over, and then every
 * bucket is where the shape wants it.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_MOVES_H
#define TESTS_SCHED_COORDINATOR_WORLD_MOVES_H

#include "tests/sched/coordinator_world.h"

enum { GROUP = 900 };

static inline void say(struct world *w, int i, struct note note)
{
    struct process *p = &w->p[i];
    note.incarnation = p->incarnation;
    note.pid = p->pid;
    note.map.version = p->map.version;
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

/* Whether rank 0 asks this server for rows. */
static inline bool is_asked(const struct world *w, int i)
{
    return owned[w->p[2].owners][rank_of(i)] > 0;
}

/* A worker asks where the server listened when it last heard; the server serves. */
static inline bool reaches(const struct world *w, int worker, int i)
{
    return w->p[i].life == SERVING && w->p[worker].map.at[rank_of(i)] == w->p[i].pid;
}

/* Rank 0 is welcomed: it has the map of the job. */
static inline void take_owners(struct world *w, uint64_t owners)
{
    w->p[2].owners = w->p[2].told_owners = owners;
    w->p[2].move_ordered = 0;
}

/* What is to move, by the owners that rank 0 has and the servers that it knows. */
static inline int plan_moves(const struct world *w, struct clu_bucket_map *map_p, uint16_t *bucket,
                             uint16_t *to)
{
    bool alive[CLU_MAX_SHARDS];
    const struct process *p = &w->p[2];
    clu_map_init(map_p, 2, 1);
    if (w->c->map.n_shards > 2 && p->map.at[2])
        clu_map_add_server(map_p, 2, 1);
    memcpy(map_p->shard_of, shard_of[p->owners], sizeof(map_p->shard_of));
    for (int i = 0; i < map_p->n_shards; i++)
        map_p->leaving[i] = p->map.leaving[i];
    clu_map_staying(map_p, alive);
    return clu_map_plan(map_p, alive, CLU_MAX_SHARDS, bucket, to);
}

static inline bool can_move(const struct world *w)
{
    const struct process *p = &w->p[2];
    if (p->life != TRAINING || !p->move_ordered || p->map.version < p->move_ordered ||
        p->told_owners < p->owners || p->owners + 1 >= MAX_OWNERS)
        return false;
    for (int i = 0; i < N; i++) /* every old owner has all steps */
        if (role_of(i) == CLU_ROLE_PS && is_asked(w, i) &&
            (!reaches(w, 2, i) || w->rows[rank_of(i)] != p->step))
            return false;
    return true;
}

/* The next owners: n of the plan's moves carried out. */
static inline void next_owners(struct world *w, int n, const uint16_t *bucket, const uint16_t *to)
{
    static uint16_t next[CLU_N_BUCKETS];
    uint64_t owners = ++w->p[2].owners;
    bool known = owned[owners][0] + owned[owners][1] + owned[owners][2] > 0;
    memcpy(next, shard_of[owners - 1], sizeof(next));
    for (int i = 0; i < n && i < GROUP; i++)
        next[bucket[i]] = to[i];
    if (known && memcmp(next, shard_of[owners], sizeof(next)) != 0)
        break_promise(w, "the same owners are two");
    memcpy(shard_of[owners], next, sizeof(next));
    memset(owned[owners], 0, sizeof(owned[owners]));
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        owned[owners][next[b]]++;
}

/* Rank 0 between two steps: the next group, or word that all is done. False when the next owner is
 * not there (yet). */
static inline bool move(struct world *w, bool dry)
{
    static struct clu_bucket_map map;
    static uint16_t bucket[CLU_N_BUCKETS], to[CLU_N_BUCKETS];
    struct process *p = &w->p[2];
    if (!can_move(w))
        return false;
    int n = plan_moves(w, &map, bucket, to);
    bool adds = n > 0 && map.server_of[to[0]] == 2;
    if (adds && !reaches(w, 2, ADDED))
        return false;
    if (dry)
        return true;
    TRACE("  rank 0: %d buckets are to move\n", n);
    if (n == 0) {
        p->move_ordered = 0;
        report(w, 2, CLU_REPORT_SETTLED, 0);
        return true;
    }
    for (int i = 0; i < N; i++) /* all who take part now, or will */
        if (role_of(i) == CLU_ROLE_PS && (is_asked(w, i) || (adds && i == ADDED)))
            w->p[i].serves = p->owners + 1;
    next_owners(w, n, bucket, to);
    if (adds) { /* it takes part from this step */
        w->rows[2] = p->step;
        w->rows_generation[2] = p->generation;
    }
    report(w, 2, CLU_REPORT_MOVED, p->owners);
    return true;
}

/* Somebody asks for another shape, once, as soon as the job can change it; or to stop, any time. */
static inline bool ask(struct world *w, bool dry)
{
    const char *why;
    bool leaves[3] = {false, true, false};
    bool complete = w->c->phase == SCHD_RUNNING && !w->c->finished &&
                    schd_core_count(w->c, CLU_ROLE_WORKER, SCHD_IN) == 2;
    if (changes == STAYS || w->asked || (changes != STOPS && !complete))
        return false;
    if (dry)
        return true;
    w->asked = true;
    w->asked_complete = complete;
    int status = CLU_OK;
    TRACE("  somebody asks for a change\n");
    if (changes == STOPS)
        schd_coordinator_stop(w->c, w->now, "stopped on request");
    else if (changes == DRAINS)
        status = schd_coordinator_drain(w->c, w->now, leaves, &why);
    else
        status = schd_coordinator_add(w->c, w->now, 1, &why);
    if (status)
        break_promise(w, "a job that trains will not change its shape");
    carry_out(w);
    return true;
}

/* The job is longer than its change of shape takes, or than an order to stop is under way. */
static inline bool is_held_up(const struct world *w)
{
    if (changes == STOPS)
        return w->p[2].step == N_STEPS - 1 && w->c->stopping && w->asked_complete;
    return (changes == DRAINS || changes == ADDS) && w->p[2].step == N_STEPS - 1 &&
           (!w->asked || w->c->change != SCHD_CHANGE_NONE);
}

/* NULL, or what is wrong with the shape at the end. */
static inline const char *wrong_shape(struct world *w)
{
    static struct clu_bucket_map map;
    static bool alive[CLU_MAX_SHARDS];
    static uint16_t bucket[CLU_N_BUCKETS], to[CLU_N_BUCKETS];
    if (changes != DRAINS && changes != ADDS)
        return NULL;
    if (!w->asked)
        return "the job ended before its shape could change";
    map = w->c->map;
    clu_map_staying(&map, alive);
    if (clu_map_plan(&map, alive, CLU_MAX_SHARDS, bucket, to) != 0)
        return "buckets are not where the shape wants them";
    if (memcmp(map.shard_of, shard_of[w->p[2].owners], sizeof(map.shard_of)) != 0)
        return "the stored owners are not those that rank 0 has";
    if (w->n_crashes + w->n_recoveries == 0 && w->c->n_moved == 0)
        return "nothing moved"; /* else a loss may have ended it before it began (S2) */
    return changes == DRAINS && is_asked(w, 1) ? "the drained server owns buckets" : NULL;
}

#endif

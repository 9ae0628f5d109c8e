/* The part of coordinator_world.h that changes the job's shape: one server more, or one fewer, and
 * rank 0 who moves buckets between steps in two or three groups, as worker/train_move.c does.
 * Included by coordinator_world.h alone, behind its types.
 *
 * Promises: nothing is told to be stored that is not; buckets move between servers that have the
 * rows of all steps; where a change began, the job does not end before it is over, and then every
 * bucket is where the shape wants it.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_MOVES_H
#define TESTS_SCHED_COORDINATOR_WORLD_MOVES_H

enum { GROUP = 900 };

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

/* Whether rank 0 asks this server for rows. */
static inline bool is_asked(const struct world *w, int i)
{
    return w->owned[w->p[2].owners][i == ADDED ? 2 : i] > 0;
}

static inline void count_owned(struct world *w, uint64_t owners)
{
    memset(w->owned[owners], 0, sizeof(w->owned[owners]));
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        w->owned[owners][w->shard_of[owners][b]]++;
}

/* Rank 0 is welcomed: it has the map of the job. */
static inline void take_owners(struct world *w, uint64_t owners)
{
    w->p[2].owners = w->p[2].told_owners = owners;
    w->p[2].move_ordered = false;
}

/* The newest servers with rank 0's owners: what is to move. */
static inline int plan_moves(const struct world *w, struct clu_bucket_map *map_p, uint16_t *bucket,
                             uint16_t *to)
{
    bool alive[CLU_MAX_SHARDS];
    *map_p = w->c->map;
    memcpy(map_p->shard_of, w->shard_of[w->p[2].owners], sizeof(map_p->shard_of));
    clu_map_staying(map_p, alive);
    return clu_map_plan(map_p, alive, CLU_MAX_SHARDS, bucket, to);
}

static inline bool can_move(const struct world *w)
{
    const struct process *p = &w->p[2];
    if (p->life != TRAINING || !p->move_ordered || p->told_owners < p->owners ||
        p->owners + 1 >= MAX_OWNERS)
        return false;
    for (int i = 0; i < N; i++) /* every old owner has all steps */
        if (role_of(i) == CLU_ROLE_PS && is_asked(w, i) &&
            (w->p[i].life != SERVING || w->rows[rank_of(i)] != p->step))
            return false;
    return true;
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
    if (adds && w->p[ADDED].life != SERVING)
        return false;
    if (dry)
        return true;
    if (n == 0) {
        p->move_ordered = false;
        report(w, 2, CLU_REPORT_SETTLED, 0);
        return true;
    }
    p->owners++;
    memcpy(w->shard_of[p->owners], w->shard_of[p->owners - 1], sizeof(w->shard_of[0]));
    for (int i = 0; i < n && i < GROUP; i++)
        w->shard_of[p->owners][bucket[i]] = to[i];
    count_owned(w, p->owners);
    if (adds) { /* it takes part from this step */
        w->rows[2] = p->step;
        w->rows_generation[2] = p->generation;
    }
    report(w, 2, CLU_REPORT_MOVED, p->owners);
    return true;
}

/* Somebody asks for another shape, once, as soon as the job can change it. */
static inline bool ask_shape(struct world *w, bool dry)
{
    const char *why;
    bool leaves[3] = {false, true, false};
    if (changes == STAYS || w->asked || w->c->phase != SCHD_RUNNING || w->c->finished ||
        schd_core_count(w->c, CLU_ROLE_WORKER, SCHD_IN) < 2)
        return false;
    if (dry)
        return true;
    w->asked = true;
    int status = changes == DRAINS ? schd_coordinator_drain(w->c, w->now, leaves, &why)
                                   : schd_coordinator_add(w->c, w->now, 1, &why);
    if (status)
        w->broken = "a job that trains will not change its shape";
    carry_out(w);
    return true;
}

/* The job is longer than its change of shape takes. */
static inline bool is_held_up(const struct world *w)
{
    return changes != STAYS && w->p[2].step == N_STEPS - 1 &&
           (!w->asked || w->c->change != SCHD_CHANGE_NONE);
}

/* NULL, or what is wrong with the shape at the end. */
static inline const char *wrong_shape(struct world *w)
{
    static struct clu_bucket_map map;
    static uint16_t bucket[CLU_N_BUCKETS], to[CLU_N_BUCKETS];
    if (changes == STAYS)
        return NULL;
    if (!w->asked)
        return "the job ended before its shape could change";
    if (plan_moves(w, &map, bucket, to) != 0)
        return "buckets are not where the shape wants them";
    if (memcmp(w->c->map.shard_of, map.shard_of, sizeof(map.shard_of)) != 0)
        return "the stored owners are not those that rank 0 has";
    if (w->n_crashes == 0 && w->c->n_moved == 0)
        return "nothing moved";
    return changes == DRAINS && is_asked(w, 1) ? "the drained server owns buckets" : NULL;
}

#endif

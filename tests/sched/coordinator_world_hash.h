/* Telling states of the world apart, for test_coordinator_walk.c: a hash of everything that the
 * future depends on. What only grows (time) counts by how far it is from what it is compared with;
 * what nobody decides by (figures, texts, counts for people) does not count.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_HASH_H
#define TESTS_SCHED_COORDINATOR_WORLD_HASH_H

#include "tests/sched/coordinator_world.h"

/* An incarnation of member i. Its number tells who joined before whom, which nobody here asks: what
 * counts is whether it is that of the process, of the member as the coordinator knows it, or as it
 * is stored. */
static inline uint64_t name_incarnation(const struct world *w, int i, uint64_t incarnation)
{
    const struct member *c = member_of(w, i);
    return incarnation >> 32 << 8 | (uint64_t)(incarnation != 0) << 3 |
           (uint64_t)(c && incarnation == c->incarnation) << 2 |
           (uint64_t)(incarnation == w->p[i].incarnation) << 1 |
           (uint64_t)(incarnation == w->stored_incarnation[i]);
}

static inline uint64_t fold(uint64_t hash, uint64_t value)
{
    return clu_mix(hash ^ value) + 0x9e3779b97f4a7c15u;
}

static inline uint64_t hash_known(uint64_t h, const struct known *map)
{
    h = fold(h, map->version << 8 | map->owners);
    for (int r = 0; r < N_SERVERS; r++)
        h = fold(h, (uint64_t)map->at[r] << 1 | map->leaving[r]);
    return h;
}

static inline uint64_t hash_note(uint64_t h, const struct world *w, int i, const struct note *note)
{
    h = fold(h, (uint64_t)note->op << 16 | (uint64_t)note->kind << 8 | (uint64_t)note->order);
    h = fold(h, note->number << 32 | note->step << 8 | (uint64_t)(-note->status));
    h = fold(h, name_incarnation(w, i, note->incarnation) << 16 | note->generation << 3 |
                    (uint64_t)note->stand << 2 | (uint64_t)note->snapshot << 1 |
                    (uint64_t)note->with_map);
    return hash_known(fold(h, (uint64_t)note->pid), &note->map);
}

static inline uint64_t hash_process(uint64_t h, const struct world *w, int i)
{
    const struct process *p = &w->p[i];
    h = fold(h, (uint64_t)p->life << 8 | (uint64_t)p->was_in << 1 | (uint64_t)p->rejoining |
                    (uint64_t)p->stand << 2 | (uint64_t)p->stop_ordered << 3 |
                    (uint64_t)p->says_again << 4 | p->generation << 16);
    h = fold(h, p->step << 32 | p->last_order << 16 | p->n_reports);
    h = fold(h, name_incarnation(w, i, p->incarnation));
    h = fold(h, p->owners << 32 | p->told_owners << 24 | p->serves << 16 | p->move_ordered);
    h = fold(h, p->resume << 32 | (uint64_t)p->pid << 8 | (uint64_t)(-p->leave_status));
    h = hash_known(h, &p->map);
    for (int j = 0; j < p->n_up; j++)
        h = hash_note(h, w, i, &p->up[j]);
    h = fold(h, 77);
    for (int j = 0; j < p->n_down; j++)
        h = hash_note(h, w, i, &p->down[j]);
    h = fold(h, 78);
    for (int j = 0; j < p->n_pending; j++)
        h = hash_note(h, w, i, &p->pending[j]);
    return h;
}

static inline uint64_t hash_member(uint64_t h, const struct world *w, int i)
{
    static const struct member nobody;
    const struct member *c = member_of(w, i) ? member_of(w, i) : &nobody;
    h = fold(h, (uint64_t)c->state << 8 | (uint64_t)c->attached << 4 | (uint64_t)c->stand << 1 |
                    (uint64_t)c->kept | (uint64_t)c->suspect << 5);
    h = fold(h, c->last_report << 16 | c->n_orders);
    h = fold(h, name_incarnation(w, i, c->incarnation));
    if (schd_core_is_here(c)) /* else nobody asks when */
        h = fold(h, (uint64_t)(w->now - c->heard_ms) << 32 |
                        (uint64_t)(c->rival_ms ? w->now - c->rival_ms + 1 : 0));
    for (const struct queued_order *q = c->orders; q; q = q->next)
        h = fold(h, q->number << 16 | (uint64_t)q->order.kind << 8 | q->order.step);
    return h;
}

/* How long until a deadline: times themselves only grow. */
static inline uint64_t left(const struct world *w, int64_t deadline_ms)
{
    return (uint64_t)(deadline_ms > w->now ? deadline_ms - w->now : 0);
}

static inline uint64_t hash_coordinator(uint64_t h, const struct world *w)
{
    const struct schd_coordinator *c = w->c;
    bool deadlines = c->phase != SCHD_ENDED && c->phase != SCHD_BROKEN;
    h = fold(h, (uint64_t)c->phase << 4 | (uint64_t)c->finished | (uint64_t)c->stopping << 1 |
                    (uint64_t)c->planned << 8);
    h = fold(h, c->life.generation << 8 | (uint64_t)c->snapshot);
    h = fold(h, (uint64_t)c->ran | (uint64_t)c->must_go_back << 1 |
                    (uint64_t)c->workers_stand << 2 | c->life.resume_step << 8 | c->whole_at << 16);
    h = fold(h, c->map.version << 16 | c->map.owners << 8 | (uint64_t)c->change);
    h = fold(h, c->snapshot_step << 8 | c->whole_step);
    h = fold(h, deadlines ? left(w, c->deadline_ms) : 0);
    h = fold(h, c->stopping ? left(w, c->stop_deadline_ms) : 0);
    h = fold(h, c->change != SCHD_CHANGE_NONE ? left(w, c->change_deadline_ms) : 0);
    const struct known map = map_of(w);
    return hash_known(h, &map);
}

/* Everything that the future depends on. */
static inline uint64_t hash_world(const struct world *w)
{
    uint64_t h =
        fold(w->committed, (uint64_t)w->n_crashes << 8 | (uint64_t)w->need_recovery << 1 |
                               (uint64_t)w->commit_due << 2 | (uint64_t)w->ended << 3 |
                               (uint64_t)w->planned << 4 | (uint64_t)w->asked << 5 |
                               (uint64_t)w->finished_said << 6 | (uint64_t)w->asked_complete << 7);
    h = fold(h, w->commit_step << 32 | (uint64_t)w->way << 8 | (uint64_t)w->next_pid << 16);
    h = fold(h, (uint64_t)(w->now - w->idle_since) << 8 | (uint64_t)w->sched_crashed << 1 |
                    (uint64_t)w->disk_lost);
    h = hash_coordinator(h, w);
    if (w->n_crashes < w->max_crashes)
        h = fold(h, w->stored_hash);
    for (int i = 0; i < w->n_stale; i++)
        h = hash_note(fold(h, (uint64_t)w->stale[i].who), w, w->stale[i].who, &w->stale[i].note);
    for (int r = 0; r < N_SERVERS; r++)
        h = fold(h, w->rows[r] << 8 | w->rows_generation[r]);
    for (int i = 0; i < N; i++) {
        h = fold(h, (uint64_t)w->unseen[i] | (uint64_t)w->starts[i] << 1 |
                        (uint64_t)w->replaced[i] << 3 | (uint64_t)w->released[i] << 2);
        h = hash_process(h, w, i);
        h = hash_member(h, w, i);
    }
    return h ? h : 1;
}

#endif

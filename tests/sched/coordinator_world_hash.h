/* Telling states of the world apart, for test_coordinator_walk.c: a hash of everything that the
 * future depends on, and of nothing else, so that states which differ in nothing that anybody can
 * ever tell are one. Each of these keeps apart what a comparison in the coordinator or in the world
 * can tell apart:
 *
 * (H1) Time counts by how far it is from what it is compared with, and a deadline only while
 *      something waits for it.
 * (H2) What nobody decides by (figures, texts, counts for people) does not count, nor what a
 *      process knew that is no more, but for what is read of it after its end.
 * (H3) A process, and an incarnation, are only ever asked whether they are the same as another:
 *      they are called by the order in which the state mentions them. Where a server listens is
 *      compared with where it listens now: there, elsewhere, or nowhere.
 * (H4) Versions of the map, and lives, are compared by order, and the next is the coordinator's
 *      plus one: they are called by their rank below the coordinator's, or by how far they are
 *      above.
 * (H5) Numbers of orders, and of reports, are compared with others of the same member: they are
 *      called by their distance from the newest, or from the oldest, unless numbering may yet begin
 *      anew. Below the oldest report that is under way all numbers are alike.
 *
 * While a scheduler may still die, versions, lives and processes go by their own names, as what is
 * stored mentions them.
 */
#ifndef TESTS_SCHED_COORDINATOR_WORLD_HASH_H
#define TESTS_SCHED_COORDINATOR_WORLD_HASH_H

#include "tests/sched/coordinator_world.h"

enum { MAX_NAMES = 16, NOT_NAMED = 255 };

/* Values by the order in which they came; 0 is 0. */
struct names {
    uint64_t value[MAX_NAMES];
    int n;
};

/* Values by rank: those below top that are mentioned at all, as bits. */
struct ranks {
    uint64_t top, mentioned;
};

struct hashing {
    const struct world *w;
    bool as_is; /* versions, lives and processes by their own names */
    uint64_t h;
    struct names pids[N], incarnations[N];
    struct ranks versions, lives;
    uint64_t order_base[N], report_base[N];
    bool no_orders[N]; /* their numbers cannot be compared any more */
};

static inline void fold(struct hashing *s, uint64_t value)
{
    s->h = clu_mix(s->h ^ value) + 0x9e3779b97f4a7c15u;
}

/* ---- names ---- */

static inline uint64_t name(struct names *names, uint64_t value)
{
    if (value == 0)
        return 0;
    for (int i = 0; i < names->n; i++)
        if (names->value[i] == value)
            return (uint64_t)i + 1;
    CU_ASSERT_FATAL(names->n < MAX_NAMES);
    names->value[names->n++] = value;
    return (uint64_t)names->n;
}

static inline uint64_t name_pid(struct hashing *s, int i, int64_t pid)
{
    return s->as_is ? (uint64_t)pid : name(&s->pids[i], (uint64_t)pid);
}

static inline uint64_t name_incarnation(struct hashing *s, int i, uint64_t incarnation)
{
    return name(&s->incarnations[i], incarnation);
}

/* Says that value is there, and its name by what has been said to be there. */
static inline uint64_t rank(struct hashing *s, struct ranks *ranks, uint64_t value)
{
    if (s->as_is || value == 0)
        return value;
    if (value >= ranks->top)
        return 128 + value - ranks->top;
    CU_ASSERT_FATAL(value < 64);
    ranks->mentioned |= UINT64_C(1) << value;
    return 1 + (uint64_t)__builtin_popcountll(ranks->mentioned >> value >> 1);
}

static inline uint64_t name_version(struct hashing *s, uint64_t version)
{
    return rank(s, &s->versions, version);
}

static inline uint64_t name_life(struct hashing *s, uint64_t generation)
{
    return rank(s, &s->lives, generation);
}

static inline uint64_t name_order(const struct hashing *s, int i, uint64_t number)
{
    return s->no_orders[i] ? 0 : number - s->order_base[i];
}

static inline uint64_t name_report(const struct hashing *s, int i, uint64_t number)
{
    return number < s->report_base[i] ? 0 : number - s->report_base[i] + 1;
}

/* No number of an order to member i that is, or will be, can meet one of before a new beginning of
 * them: the scheduler has seen this process and does not die, and it does not join again. */
static inline bool is_numbered_on(const struct hashing *s, int i)
{
    const struct process *p = &s->w->p[i];
    const struct member *c = member_of(s->w, i);
    if (s->as_is || !c || !c->attached || !p->was_in || p->rejoining ||
        c->incarnation != p->incarnation)
        return false;
    for (int j = 0; j < p->n_up; j++)
        if (p->up[j].op == CLU_CONTROL_JOIN)
            return false;
    for (int j = 0; j < p->n_down; j++)
        if (p->down[j].op == CLU_CONTROL_REFUSE || p->down[j].op == CLU_CONTROL_WELCOME)
            return false;
    return true;
}

/* Whether what a process that is no more said may still count: it is known as a member, by the
 * incarnation that it gave. */
static inline bool is_heeded(const struct hashing *s, int i, const struct note *note)
{
    const struct member *c = member_of(s->w, i);
    return s->as_is || (c && c->incarnation == note->incarnation && c->state != SCHD_ABSENT &&
                        c->state != SCHD_DEAD && c->state != SCHD_DRAINED);
}

static inline void take_oldest(const struct note *note, uint64_t *oldest_p)
{
    bool numbered = note->op == CLU_CONTROL_REPORT || note->op == CLU_CONTROL_RECEIPT;
    if (numbered && note->number && note->number < *oldest_p)
        *oldest_p = note->number;
}

/* (H5) */
static inline void find_bases(struct hashing *s, int i)
{
    const struct process *p = &s->w->p[i];
    const struct member *c = member_of(s->w, i);
    bool lives = !has_ended(p), beats = lives;
    uint64_t oldest = lives ? p->n_reports + 1 : UINT64_MAX;
    for (int j = 0; j < p->n_up; j++)
        if (lives || is_heeded(s, i, &p->up[j])) {
            beats |= p->up[j].op == CLU_CONTROL_BEAT;
            take_oldest(&p->up[j], &oldest);
        }
    for (int j = 0; j < s->w->n_stale; j++)
        if (s->w->stale[j].who == i && is_heeded(s, i, &s->w->stale[j].note)) {
            beats |= s->w->stale[j].note.op == CLU_CONTROL_BEAT;
            take_oldest(&s->w->stale[j].note, &oldest);
        }
    for (int j = 0; j < p->n_pending && lives; j++)
        take_oldest(&p->pending[j], &oldest);
    for (int j = 0; j < p->n_down; j++)
        take_oldest(&p->down[j], &oldest);
    s->report_base[i] = oldest;
    s->order_base[i] = is_numbered_on(s, i) ? c->n_orders : 0;
    s->no_orders[i] = !beats;
}

/* ---- messages ---- */

static inline bool is_worker(int i)
{
    return role_of(i) == CLU_ROLE_WORKER;
}

/* Whether a server listens where a map says: 0: nowhere; 1: there; 2: it did. */
static inline uint64_t name_place(const struct world *w, const struct known *map, int r)
{
    const struct process *p = &w->p[r == 2 ? ADDED : r];
    return map->at[r] == 0 ? 0 : map->at[r] == p->pid ? 1 : 2;
}

/* What member i asks of a map: a worker where servers are, rank 0 who leaves as well; and everybody
 * once whether it is complete. */
static inline void fold_map(struct hashing *s, int i, const struct known *map, bool to_begin)
{
    uint64_t v = name_version(s, map->version) << 16 | map->owners << 8;
    for (int r = 0; r < N_SERVERS; r++) {
        uint64_t place = name_place(s->w, map, r);
        v |= (is_worker(i) ? place : to_begin && place) << (2 * r);
        v |= (uint64_t)(i == 2 && map->leaving[r]) << (6 + r) << 16;
    }
    fold(s, v);
}

/* From member i; past: of a process that is no more. */
static inline void fold_up(struct hashing *s, int i, const struct note *note, bool past)
{
    bool numbered = note->op == CLU_CONTROL_BEAT || note->op == CLU_CONTROL_REPORT;
    if (past && numbered && !is_heeded(s, i, note)) {
        fold(s, 1003); /* it is refused, whatever it says */
        return;
    }
    bool ready = note->op == CLU_CONTROL_REPORT && note->kind == CLU_REPORT_READY;
    uint64_t number = note->op == CLU_CONTROL_REPORT ? name_report(s, i, note->number)
                      : note->op == CLU_CONTROL_BEAT ? name_order(s, i, note->number)
                                                     : note->number;
    fold(s, (uint64_t)note->op << 48 | (uint64_t)note->kind << 40 | (number & 0xffff) << 24 |
                note->step << 16 | (uint64_t)(uint8_t)note->status << 8 |
                name_incarnation(s, i, note->incarnation));
    fold(s, name_version(s, note->map.version) << 8 | (ready ? name_life(s, note->generation) : 0));
}

static inline void fold_down(struct hashing *s, int i, const struct note *note)
{
    bool moves = note->op == CLU_CONTROL_ORDER && note->order == CLU_ORDER_MOVE;
    uint64_t number = note->op == CLU_CONTROL_ORDER     ? name_order(s, i, note->number)
                      : note->op == CLU_CONTROL_RECEIPT ? name_report(s, i, note->number)
                                                        : note->number;
    fold(s, (uint64_t)note->op << 48 | (uint64_t)note->order << 40 | (number & 0xffff) << 24 |
                (moves ? name_version(s, note->step) : note->step) << 8 |
                (uint64_t)(uint8_t)note->status);
    fold(s, name_incarnation(s, i, note->incarnation) << 16 | name_life(s, note->generation) << 2 |
                (uint64_t)note->stand << 1 | (uint64_t)note->with_map);
    if (note->with_map)
        fold_map(s, i, &note->map, true);
}

/* ---- members ---- */

/* (H2) of one that has ended */
static inline void fold_ended(struct hashing *s, int i)
{
    const struct process *p = &s->w->p[i];
    fold(s, (uint64_t)p->life << 8 | name_pid(s, i, p->pid) << 16);
    if (p->life != GONE)
        return;
    fold(s, (uint64_t)p->says_again << 16 | (uint64_t)p->stop_ordered << 8 |
                (uint64_t)(uint8_t)p->leave_status);
    if (p->says_again)
        fold(s, name_incarnation(s, i, p->incarnation));
    if (i == 2) /* the other rank, and the end, look at what it had come to */
        fold(s, p->step << 8 | p->owners);
}

static inline void fold_process(struct hashing *s, int i)
{
    const struct process *p = &s->w->p[i];
    fold(s, 1000);
    if (has_ended(p)) {
        fold_ended(s, i);
    } else {
        fold(s, (uint64_t)p->life << 8 | (uint64_t)p->was_in << 1 | (uint64_t)p->rejoining |
                    (uint64_t)p->stand << 2 | (uint64_t)p->stop_ordered << 3 |
                    name_life(s, p->generation) << 16);
        fold(s, p->step << 32 | (name_order(s, i, p->last_order) & 0xffff) << 16 |
                    name_report(s, i, p->n_reports));
        fold(s, name_pid(s, i, p->pid) << 8 | name_incarnation(s, i, p->incarnation));
        fold(s, p->owners << 32 | p->told_owners << 24 | p->serves << 16 |
                    name_version(s, p->move_ordered) << 8 | p->resume);
        fold_map(s, i, &p->map, false);
    }
    for (int j = 0; j < p->n_up; j++)
        fold_up(s, i, &p->up[j], has_ended(p));
    fold(s, 1001);
    for (int j = 0; j < p->n_down; j++)
        fold_down(s, i, &p->down[j]);
    fold(s, 1002);
    for (int j = 0; j < p->n_pending && !has_ended(p); j++)
        fold_up(s, i, &p->pending[j], false);
}

/* A member as the coordinator knows it. */
static inline void fold_member(struct hashing *s, int i)
{
    const struct world *w = s->w;
    const struct member *c = member_of(w, i);
    fold(s, c ? (uint64_t)c->state : NOT_NAMED);
    if (!c || c->state == SCHD_DRAINED)
        return;
    fold(s, (uint64_t)c->attached << 4 | (uint64_t)c->stand << 1 | (uint64_t)c->kept);
    fold(s, name_pid(s, i, c->pid));
    if (c->state == SCHD_ABSENT || c->state == SCHD_DEAD)
        return; /* nothing that it says counts */
    fold(s, (name_report(s, i, c->last_report) & 0xffff) << 24 |
                (name_order(s, i, c->n_orders) & 0xffff) << 8 |
                name_incarnation(s, i, c->incarnation));
    fold(s, c->attached ? name_pid(s, i, c->peer.bytes[1]) : 0);
    if (schd_core_is_here(c)) /* else nobody asks when */
        fold(s, (uint64_t)(w->now - c->heard_ms) << 32 |
                    (uint64_t)(c->rival_ms ? w->now - c->rival_ms + 1 : 0));
    for (const struct queued_order *q = c->orders; q; q = q->next) {
        bool moves = q->order.kind == CLU_ORDER_MOVE;
        fold(s, (name_order(s, i, q->number) & 0xffff) << 32 | (uint64_t)q->order.kind << 24 |
                    (moves ? name_version(s, q->order.step) : q->order.step) << 8 |
                    (uint64_t)(uint8_t)q->order.status);
        fold(s, name_life(s, q->order.generation));
    }
}

/* ---- the coordinator, and all ---- */

/* How long until a deadline: times themselves only grow. */
static inline uint64_t left(const struct world *w, int64_t deadline_ms)
{
    return (uint64_t)(deadline_ms > w->now ? deadline_ms - w->now : 0);
}

/* (H1) While the job runs it is that of workers who have not joined. */
static inline bool has_deadline(const struct schd_coordinator *c)
{
    bool all_in = schd_core_count(c, CLU_ROLE_WORKER, SCHD_ABSENT) == 0 &&
                  schd_core_count(c, CLU_ROLE_WORKER, SCHD_JOINED) == 0;
    return c->phase != SCHD_ENDED && c->phase != SCHD_BROKEN &&
           !(c->phase == SCHD_RUNNING && all_in);
}

static inline void fold_decisions(struct hashing *s)
{
    const struct schd_coordinator *c = s->w->c;
    fold(s, (uint64_t)c->phase << 8 | (uint64_t)c->finished | (uint64_t)c->stopping << 1 |
                (uint64_t)c->ran << 2 | (uint64_t)c->must_go_back << 3 |
                (uint64_t)c->workers_stand << 4 | (uint64_t)c->planned << 16 |
                (uint64_t)c->change << 24 | (uint64_t)c->n_servers << 32);
    fold(s, name_life(s, c->life.generation) << 32 | c->life.resume_step << 16 |
                (c->workers_stand ? c->whole_at : 0));
}

static inline void fold_coordinator(struct hashing *s)
{
    const struct world *w = s->w;
    const struct schd_coordinator *c = w->c;
    const struct known map = map_of(w);
    bool changes_by = c->change == SCHD_CHANGE_JOINING || c->change == SCHD_CHANGE_LEAVING;
    uint64_t places = 0;
    for (int r = 0; r < N_SERVERS; r++)
        places |= (name_place(w, &map, r) << 1 | map.leaving[r]) << (3 * r);
    fold_decisions(s);
    fold(s, name_version(s, map.version) << 24 | map.owners << 16 | places);
    fold(s, has_deadline(c) ? left(w, c->deadline_ms) : 0);
    fold(s, c->stopping ? left(w, c->stop_deadline_ms) : 0);
    fold(s, changes_by ? left(w, c->change_deadline_ms) : 0);
}

/* Without whom it has not seen end yet. */
static inline void fold_supervisor(struct hashing *s)
{
    const struct world *w = s->w;
    fold(s, w->committed << 32 | (uint64_t)w->n_crashes << 24 | (uint64_t)w->need_recovery << 1 |
                (uint64_t)w->commit_due << 2 | (uint64_t)w->ended << 3 | (uint64_t)w->planned << 4 |
                (uint64_t)w->asked << 5 | (uint64_t)w->finished_said << 6 |
                (uint64_t)w->asked_complete << 7 | (uint64_t)w->sched_crashed << 8 |
                (uint64_t)w->disk_lost << 9 | (uint64_t)(w->n_recoveries > 0) << 10 |
                (uint64_t)(w->sched_crashed && w->c->life.generation > 1) << 11);
    fold(s, (w->commit_due ? w->commit_step : 0) << 32 | (uint64_t)(w->planned ? w->way : 0) << 16 |
                w->stored_owners);
    for (int i = 0; i < N; i++)
        fold(s, (uint64_t)(w->planned && w->starts[i]) << 1 | (uint64_t)w->replaced[i] << 3 |
                    (uint64_t)w->released[i] << 2);
}

static inline void fold_all(struct hashing *s)
{
    const struct world *w = s->w;
    fold_supervisor(s);
    fold_coordinator(s);
    fold(s, (uint64_t)(w->now - w->idle_since));
    for (int i = 0; i < w->n_stale; i++) {
        int who = w->stale[i].who;
        fold(s, (uint64_t)who << 8 | name_pid(s, who, w->stale[i].note.pid));
        fold_up(s, who, &w->stale[i].note, true);
    }
    for (int r = 0; r < N_SERVERS; r++)
        fold(s, w->rows[r] << 8 | name_life(s, w->rows_generation[r]));
    for (int i = 0; i < N; i++) {
        fold(s, w->unseen[i]);
        fold_process(s, i);
        fold_member(s, i);
        if (s->as_is)
            fold(s, name_incarnation(s, i, w->stored_incarnation[i]));
    }
    if (s->as_is)
        fold(s, w->stored_hash << 3 ^ (uint64_t)mortal); /* (who has died does not matter) */
}

/* Everything that the future depends on. Twice over: ranks have to be known first. */
static inline uint64_t hash_world(const struct world *w)
{
    struct hashing s = {.w = w,
                        .as_is = w->n_crashes < w->max_crashes,
                        .versions.top = w->c->map.version,
                        .lives.top = w->c->life.generation};
    for (int i = 0; i < N; i++)
        find_bases(&s, i);
    if (!s.as_is)
        fold_all(&s);
    s.h = 0;
    fold_all(&s);
    return s.h ? s.h : 1;
}

#endif

/* How a job goes on after a loss: what may stand, what must go back, who is started again.
 *
 * Rows of durability `log` outlive their server's process: everything acknowledged is on its disk.
 * So a dead server is started again, finds its rows, and nobody else need notice more than a wait:
 * the workers' requests are tried again until it answers, and each push is known by its
 * (incarnation, seq) and its step (ps/shard.h, R1 to R4). That holds at any staleness: at 0, too,
 * every step is applied once, after all ranks' pushes of it, and a pull is answered by the same
 * rows whenever it is asked again; so the bits are those of an undisturbed run, and going back
 * would buy nothing. (STAND)
 *
 * Dead workers are another matter. Their dense weights are gone, and those that can be had (a
 * snapshot's, or a dense checkpoint's) are of a step before the rows'. At staleness 0 rows and
 * weights must be of one step: the job goes back to a snapshot (BACK). Otherwise a bound, not
 * equality, was promised: new workers take older dense weights and the rows as they stand
 * (WORKERS); which steps they miss is counted (ps/shard_life.c, worker/train_stand.c).
 *
 *     lost                              durability snapshot   log, staleness 0   log, staleness > 0
 *     a server                          BACK                  STAND              STAND
 *     workers                           BACK                  BACK               WORKERS
 *     a server whose rows are gone too  BACK                  BACK               BACK
 *     anyone, before all were READY     BACK                  BACK               BACK
 *     anyone, while buckets move        BACK                  BACK               BACK
 *
 * To go back is to begin the next generation. Servers that live are kept: they are given the order
 * to go back in place, which costs what changed since the snapshot, not the table. A server is
 * believed to live while it is part of the job here; the supervisor tells of the others (gone), and
 * who falls silent is told by the clock.
 *
 * Why no message of the past can be mistaken for one of now: a worker's pushes carry its
 * incarnation, and servers are told the least that counts; a server's READY carries the generation
 * it restored (C6); a process that was given up is known by an incarnation that no member has (C1),
 * and cannot have asked for another between the plan and its end (C7). A plan is not taken back by
 * what is heard after it: those it names are dead by then. What it asked before that
 * may still be on the way: such a JOIN is taken for that of its successor, until the successor asks
 * as well, and nothing more is heard of the other (rivals: coordinator_join.c).
 */
#include "sched/coordinator_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <string.h>

/* All is done and stored: nobody is needed any more. */
static bool is_done(const struct schd_coordinator *c)
{
    return c->finished && schd_core_count(c, CLU_ROLE_WORKER, SCHD_LEFT) == c->shape.n_workers;
}

enum schd_way schd_core_way(const struct schd_coordinator *c)
{
    if (is_done(c))
        return SCHD_WAY_STAND;
    if (!c->shape.servers_stand || !c->ran || c->must_go_back ||
        c->change == SCHD_CHANGE_MOVING) /* (S1) of coordinator_shape.c */
        return SCHD_WAY_BACK;
    if (schd_core_workers_stay(c))
        return SCHD_WAY_STAND;
    return c->shape.workers_stand ? SCHD_WAY_WORKERS : SCHD_WAY_BACK;
}

enum schd_way schd_coordinator_plan(struct schd_coordinator *c)
{
    if (c->phase != SCHD_ENDED && c->phase != SCHD_BROKEN) {
        c->phase = SCHD_BROKEN; /* (C7) */
        c->status = CLU_E_LOST;
        schd_core_save(c);
    }
    enum schd_way way = schd_core_way(c);
    if (way < c->planned && !is_done(c))
        way = c->planned; /* whom that ends does not come back, whatever is heard meanwhile */
    c->planned = way;
    return way;
}

bool schd_coordinator_starts(const struct schd_coordinator *c, enum schd_way way,
                             enum clu_role role, int rank)
{
    if (is_done(c) || c->phase == SCHD_ENDED)
        return false;
    if (role == CLU_ROLE_WORKER)
        return way != SCHD_WAY_STAND;
    if (schd_core_is_needless(c, rank))
        return false;
    return way == SCHD_WAY_ANEW || !schd_core_is_here(&c->members[rank]);
}

static void drop_snapshot(struct schd_coordinator *c)
{
    if (c->snapshot != SNAPSHOT_NONE)
        schd_core_add_action(c, SCHD_DROP)->step = c->snapshot_step;
    c->snapshot = SNAPSHOT_NONE;
}

static void forget_workers(struct schd_coordinator *c)
{
    for (int i = c->n_servers; i < c->n_members; i++)
        schd_core_forget(c, &c->members[i]);
    drop_snapshot(c); /* its writer was rank 0 */
}

/* The life goes on: lost servers are to come back with their rows. */
static void stand(struct schd_coordinator *c, int64_t now, bool workers)
{
    for (int i = 0; i < c->n_servers; i++) {
        struct member *m = &c->members[i];
        if (schd_core_is_here(m) || m->state == SCHD_DRAINED ||
            schd_core_is_spare(c, m, "is away while the job recovers"))
            continue; /* nobody starts a server that is not needed any more: it is not waited for */
        schd_core_forget(c, m);
        m->stand = true;
    }
    if (workers) {
        forget_workers(c);
        c->workers_stand = true;
        c->least_incarnation = c->life.generation << 32 | (c->n_incarnations + 1);
        c->finished = false;
    }
    c->phase = SCHD_MENDING;
    if (is_done(c)) { /* without the lost ones */
        schd_core_stop_servers(c, now);
        schd_core_servers_left(c);
    }
}

/* Another life, from a snapshot. */
static void go_back(struct schd_coordinator *c, bool anew)
{
    forget_workers(c);
    schd_core_change_lives(c);
    for (int i = 0; i < c->n_servers; i++) {
        struct member *m = &c->members[i];
        if (m->state == SCHD_DRAINED)
            continue;
        if (anew || !schd_core_is_here(m)) {
            schd_core_forget(c, m);
            continue;
        }
        /* its orders stay: a number that it might have seen cannot be given again */
        m->kept = m->kept || m->state != SCHD_JOINED; /* welcomed once: from now on by order */
        m->state = SCHD_JOINED;
        m->stand = false;
    }
    c->life.generation++;
    c->least_incarnation = c->life.generation << 32;
    c->step = c->life.resume_step;
    c->ran = c->must_go_back = c->workers_stand = c->finished = false;
    c->phase = SCHD_GATHERING;
}

void schd_coordinator_recover(struct schd_coordinator *c, int64_t now, enum schd_way way,
                              const char *resume, uint64_t resume_step)
{
    c->status = CLU_OK;
    c->text[0] = '\0';
    c->planned = SCHD_WAY_STAND;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    c->map.version++;
    if (way == SCHD_WAY_WORKERS) {
        snprintf(c->whole, sizeof(c->whole), "%s", resume);
        c->whole_at = resume_step;
    } else if (way != SCHD_WAY_STAND) {
        snprintf(c->life.resume, sizeof(c->life.resume), "%s", resume);
        c->life.resume_step = resume_step;
    }
    if (way == SCHD_WAY_STAND || way == SCHD_WAY_WORKERS)
        stand(c, now, way == SCHD_WAY_WORKERS);
    else
        go_back(c, way == SCHD_WAY_ANEW);
    schd_core_save(c);
    if (c->stopping && way != SCHD_WAY_STAND) {
        schd_core_end(c, CLU_E_INTERRUPTED, c->stop_why);
        return;
    }
    schd_core_servers_complete(c, now);
    schd_core_servers_ready(c, now);
}

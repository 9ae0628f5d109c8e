/* The mover: see the header for its states.
 *
 * The plan is clu_map_plan's, made once from the owners that the client has and the scheduler's
 * servers; buckets move in its order, so the map of the moment is the plan's first so many carried
 * out, and a life that ends in the middle goes on from the map that the scheduler stored. How many
 * move at once follows from how long the last group took: as many rows as fit move_ms, at least one
 * bucket. So steps are delayed by little, and often.
 *
 * Snapshots and moves exclude each other here, in the one place that begins both, and not in the
 * scheduler: a snapshot that is due waits for the group in hand to be forgotten where it was (two
 * or three steps; else its rows would be in two files), and no group moves while a snapshot is
 * wanted or written.
 */
#include "worker/train_move.h"

#include "cluster/log.h"
#include "cluster/member.h"
#include "cluster/status.h"
#include "ps/client.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIRST_ROWS = 4000, LEAST_ROWS = 256, MOST_ROWS = 1 << 20, END_NAP_MS = 5 };

enum state { IDLE, COLLECTING, READY, RELEASING, SETTLING, FORGETTING };

struct wrk_mover {
    struct wrk_mover_options options;
    enum state state;
    uint64_t ordered;          /* map version of the order in hand; 0: none */
    struct clu_bucket_map map; /* that the client has, or will have */
    int n, at;                 /* moves of the plan, and how many are done */
    struct psv_move *moves;    /* [CLU_N_BUCKETS] */
    uint64_t *collected;       /* [n - collected_at] as psv_client_wait_collect; or NULL */
    int collected_at;
    int n_group;         /* moves in hand: from `at` on */
    uint64_t n_rows;     /* of the group */
    double rows_at_once; /* what fits move_ms */
    uint64_t ticket, step, owners_stored;
    double began;
};

static double clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int wrk_mover_create(const struct wrk_mover_options *options, struct wrk_mover **mover_p)
{
    struct wrk_mover *m = calloc(1, sizeof(*m));
    if (m)
        m->moves = calloc(CLU_N_BUCKETS, sizeof(*m->moves));
    if (!m || !m->moves) {
        free(m);
        return clu_fail(CLU_E_NO_MEMORY, "no memory to move buckets");
    }
    m->options = *options;
    m->options.map = NULL;
    m->map = *options->map;
    m->rows_at_once = FIRST_ROWS;
    *mover_p = m;
    return CLU_OK;
}

void wrk_mover_free(struct wrk_mover *m)
{
    if (!m)
        return;
    free(m->collected);
    free(m->moves);
    free(m);
}

void wrk_mover_order(struct wrk_mover *m, uint64_t map_version)
{
    m->ordered = map_version;
}

void wrk_mover_stored(struct wrk_mover *m, uint64_t owners)
{
    if (owners > m->owners_stored)
        m->owners_stored = owners;
}

uint64_t wrk_mover_owners(const struct wrk_mover *m)
{
    return m->map.owners;
}

bool wrk_mover_is_ready(const struct wrk_mover *m)
{
    return m->state == READY;
}

bool wrk_mover_is_busy(const struct wrk_mover *m)
{
    return m->state >= RELEASING;
}

static int report(struct wrk_mover *m, enum clu_report_kind kind)
{
    struct clu_report *report = calloc(1, sizeof(*report));
    if (!report)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a report");
    report->kind = kind;
    report->step = m->step;
    if (kind == CLU_REPORT_MOVED) {
        report->owners = m->map.owners;
        memcpy(report->shard_of, m->map.shard_of, sizeof(report->shard_of));
    }
    int status = clu_member_report(m->options.member, report);
    free(report);
    return status;
}

/* The scheduler's newest map, but for the owners, which only change here. */
static int take_servers(struct wrk_mover *m)
{
    struct clu_bucket_map *newest = malloc(sizeof(*newest));
    if (!newest)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the bucket map");
    int status = clu_member_map(m->options.member, newest);
    if (!status && newest->n_shards >= m->map.n_shards) {
        newest->owners = m->map.owners;
        memcpy(newest->shard_of, m->map.shard_of, sizeof(newest->shard_of));
        m->map = *newest;
    }
    free(newest);
    return status;
}

static int make_plan(struct wrk_mover *m)
{
    static const int max = CLU_N_BUCKETS;
    bool alive[CLU_MAX_SHARDS];
    uint16_t *bucket = malloc(2 * (size_t)max * sizeof(*bucket)),
             *to = bucket ? bucket + max : NULL;
    int status = bucket ? take_servers(m) : clu_fail(CLU_E_NO_MEMORY, "no memory for a plan");
    if (!status) {
        clu_map_staying(&m->map, alive);
        m->n = clu_map_plan(&m->map, alive, CLU_MAX_SHARDS, bucket, to);
        status = m->n < 0 ? m->n : CLU_OK;
    }
    for (int i = 0; !status && i < m->n; i++)
        m->moves[i] = (struct psv_move){bucket[i], m->map.shard_of[bucket[i]], to[i]};
    m->at = 0;
    free(bucket);
    return status;
}

static int collect(struct wrk_mover *m)
{
    free(m->collected);
    m->collected = NULL;
    m->collected_at = m->at;
    m->state = COLLECTING;
    return psv_client_collect(m->options.client, m->moves + m->at, m->n - m->at, &m->ticket);
}

/* How many of the listed moves make the next group; 0: the next one is not listed. */
static int choose_group(struct wrk_mover *m)
{
    m->n_group = 0;
    m->n_rows = 0;
    for (int i = m->at; i < m->n && m->collected[i - m->collected_at]; i++) {
        uint64_t n_rows = m->collected[i - m->collected_at] - 1;
        if (m->n_group && (double)(m->n_rows + n_rows) > m->rows_at_once)
            break;
        m->n_group++;
        m->n_rows += n_rows;
    }
    return m->n_group;
}

static int begin(struct wrk_mover *m)
{
    if (!m->ordered || clu_member_map_version(m->options.member) < m->ordered)
        return CLU_OK;
    int status = make_plan(m);
    if (status)
        return status;
    m->ordered = 0;
    if (!m->n)
        return report(m, CLU_REPORT_SETTLED);
    clu_info("%d buckets are to move", m->n);
    return collect(m);
}

/* After a group, or when what is left has been listed. */
static int go_on(struct wrk_mover *m)
{
    if (m->at == m->n) {
        m->state = IDLE;
        return report(m, CLU_REPORT_SETTLED);
    }
    m->state = READY;
    return choose_group(m) ? CLU_OK : collect(m);
}

/* OK, AGAIN while the ticket is open, or what became of it. */
static int poll_ticket(struct wrk_mover *m)
{
    if (m->state != COLLECTING)
        return psv_client_wait(m->options.client, m->ticket, 0);
    return psv_client_wait_collect(m->options.client, m->ticket, 0, &m->collected);
}

int wrk_mover_advance(struct wrk_mover *m, uint64_t done)
{
    int status = CLU_OK;
    switch (m->state) {
    case IDLE:
        return begin(m);
    case COLLECTING:
        status = poll_ticket(m);
        return status == CLU_E_AGAIN ? CLU_OK : status ? status : go_on(m);
    case SETTLING:
        if (done < m->step + 1 + (uint64_t)m->options.n_ahead || m->owners_stored < m->map.owners)
            return CLU_OK;
        m->state = FORGETTING;
        return psv_client_forget(m->options.client, m->moves + m->at, m->n_group, m->map.owners,
                                 &m->ticket);
    case FORGETTING:
        status = poll_ticket(m);
        if (status)
            return status == CLU_E_AGAIN ? CLU_OK : status;
        m->at += m->n_group;
        return go_on(m);
    case READY:
    case RELEASING:
        break;
    }
    return CLU_OK;
}

int wrk_mover_release(struct wrk_mover *m, uint64_t step, struct clu_bucket_map *map_p)
{
    int status = take_servers(m);
    if (status)
        return status;
    m->began = clock_s();
    m->step = step;
    m->map.owners++;
    for (int i = m->at; i < m->at + m->n_group; i++)
        m->map.shard_of[m->moves[i].bucket] = m->moves[i].to;
    m->state = RELEASING;
    *map_p = m->map;
    return psv_client_release(m->options.client, m->moves + m->at, m->n_group, step, m->map.owners,
                              &m->ticket);
}

static void learn_rate(struct wrk_mover *m, double seconds)
{
    double rate = (double)(m->n_rows + LEAST_ROWS) / (seconds > 1e-4 ? seconds : 1e-4);
    double fits = rate * (double)m->options.move_ms * 1e-3;
    if (fits > 2 * m->rows_at_once)
        fits = 2 * m->rows_at_once; /* a small group says little about a large one */
    m->rows_at_once = fits < LEAST_ROWS ? LEAST_ROWS : fits > MOST_ROWS ? MOST_ROWS : fits;
}

int wrk_mover_finish(struct wrk_mover *m)
{
    if (m->state != RELEASING)
        return CLU_OK;
    int status = m->options.wait(m->options.context, m->ticket);
    if (!status)
        status = psv_client_switch(m->options.client, &m->map);
    if (!status)
        status = psv_client_adopt(m->options.client, m->moves + m->at, m->n_group, m->step,
                                  m->map.owners, &m->ticket);
    if (!status)
        status = m->options.wait(m->options.context, m->ticket);
    if (status)
        return status;
    double seconds = clock_s() - m->began;
    clu_debug("%d buckets, about %" PRIu64 " rows, moved after step %" PRIu64 " in %.1f ms",
              m->n_group, m->n_rows, m->step, seconds * 1e3);
    learn_rate(m, seconds);
    m->state = SETTLING;
    return report(m, CLU_REPORT_MOVED);
}

int wrk_mover_end(struct wrk_mover *m, int timeout_ms)
{
    int status = wrk_mover_finish(m);
    for (int waited = 0; !status && wrk_mover_is_busy(m); waited += END_NAP_MS) {
        if (waited > timeout_ms)
            return clu_fail(CLU_E_TIMEOUT,
                            "the scheduler has not stored the buckets' owners within %d ms",
                            timeout_ms);
        struct timespec nap = {0, END_NAP_MS * 1000000L};
        nanosleep(&nap, NULL);
        status = m->options.wait(m->options.context, 0);
        if (!status)
            status = wrk_mover_advance(m, UINT64_MAX);
    }
    return status;
}

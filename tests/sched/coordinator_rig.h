/* A coordinator and everybody around it, played by the test: no socket, no sleep. */
#ifndef TESTS_SCHED_COORDINATOR_RIG_H
#define TESTS_SCHED_COORDINATOR_RIG_H

#include "sched/coordinator.h"

#include "cluster/status.h"
#include "tests/suite.h"

static struct schd_coordinator *c;
static int64_t now;
static struct clu_control_message m;
static struct schd_action actions[256];
static int n_actions;

static const struct schd_shape shape = {.n_servers = 2,
                                        .shards_per_server = 2,
                                        .n_workers = 2,
                                        .heartbeat_ms = 100,
                                        .dead_after_ms = 1000,
                                        .start_timeout_ms = 5000,
                                        .stop_timeout_ms = 3000};

static inline void clear(void)
{
    for (int i = 0; i < n_actions; i++)
        schd_action_fini(&actions[i]);
    n_actions = 0;
}

static inline void collect(void)
{
    while (n_actions < 256 && schd_coordinator_next(c, &actions[n_actions]))
        n_actions++;
}

/* The last collected action of a kind (and op, for SEND); NULL when there was none. */
static inline struct schd_action *last(enum schd_action_kind kind, enum clu_control_op op)
{
    for (int i = n_actions - 1; i >= 0; i--)
        if (actions[i].kind == kind && (kind != SCHD_SEND || actions[i].op == op))
            return &actions[i];
    return NULL;
}

static inline int sent(enum clu_control_op op)
{
    int n = 0;
    for (int i = 0; i < n_actions; i++)
        n += actions[i].kind == SCHD_SEND && actions[i].op == op;
    return n;
}

static inline enum schd_phase phase(void)
{
    struct schd_view view;
    schd_coordinator_view(c, &view);
    return view.phase;
}

static inline struct schd_member_view member(enum clu_role role, int rank)
{
    struct schd_member_view view;
    schd_coordinator_member(c, role == CLU_ROLE_PS ? rank : 2 + rank, now, &view);
    return view;
}

static inline struct clu_peer peer_of(enum clu_role role, int rank)
{
    return (struct clu_peer){.size_bytes = 2, .bytes = {(uint8_t)role, (uint8_t)rank}};
}

static inline void hear(enum clu_role role, int rank, enum clu_control_op op)
{
    struct clu_peer peer = peer_of(role, rank);
    m.op = op;
    m.role = role;
    m.rank = rank;
    schd_coordinator_hear(c, now, &peer, &m);
    collect();
    memset(&m, 0, sizeof(m));
}

static inline void join(enum clu_role role, int rank)
{
    m.pid = 100 * (role + 1) + rank;
    if (role == CLU_ROLE_PS) {
        m.n_endpoints = 2;
        snprintf(m.endpoints[0], CLU_ENDPOINT_BYTES, "tcp://127.0.0.1:%d", 1000 + 2 * rank);
        snprintf(m.endpoints[1], CLU_ENDPOINT_BYTES, "tcp://127.0.0.1:%d", 1001 + 2 * rank);
    }
    hear(role, rank, CLU_CONTROL_JOIN);
}

static inline void beat(enum clu_role role, int rank)
{
    m.incarnation = member(role, rank).incarnation;
    m.number = 1000;
    hear(role, rank, CLU_CONTROL_BEAT);
}

static uint64_t n_reports;

static inline void report(enum clu_role role, int rank, enum clu_report_kind kind, uint64_t step)
{
    m.incarnation = member(role, rank).incarnation;
    m.number = ++n_reports;
    struct schd_view view;
    schd_coordinator_view(c, &view);
    m.report.kind = kind;
    m.report.step = step;
    m.report.generation = view.generation;
    hear(role, rank, CLU_CONTROL_REPORT);
}

static inline void leave(enum clu_role role, int rank, int status)
{
    m.incarnation = member(role, rank).incarnation;
    m.status = status;
    hear(role, rank, CLU_CONTROL_LEAVE);
}

static inline void begin(bool supervised)
{
    struct schd_shape s = shape;
    struct schd_life life = {.job_id = 1, .generation = 1};
    s.supervised = supervised;
    now = 1000;
    n_reports = 0;
    c = schd_coordinator_create(&s, &life, now);
    CU_ASSERT_PTR_NOT_NULL_FATAL(c);
    collect();
}

static inline void end(void)
{
    clear();
    schd_coordinator_free(c);
}

/* To RUNNING, with both workers in. */
static inline void run(void)
{
    for (int i = 0; i < 2; i++)
        join(CLU_ROLE_PS, i);
    for (int i = 0; i < 2; i++)
        report(CLU_ROLE_PS, i, CLU_REPORT_READY, 0);
    for (int i = 0; i < 2; i++)
        join(CLU_ROLE_WORKER, i);
    CU_ASSERT_EQUAL_FATAL(phase(), SCHD_RUNNING);
    clear();
}

static inline void tick(int64_t later)
{
    now += later;
    schd_coordinator_tick(c, now);
    collect();
}

/* Time passes with everybody alive. */
static inline void live(int64_t ms)
{
    for (; ms > 0; ms -= 100) {
        for (int i = 0; i < 2; i++) {
            beat(CLU_ROLE_PS, i);
            beat(CLU_ROLE_WORKER, i);
        }
        clear();
        tick(100);
    }
}

#endif

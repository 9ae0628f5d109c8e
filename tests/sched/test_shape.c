/* The coordinator's policies of a change of shape (sched/coordinator_shape.c), with members that
 * answer by themselves, in any order, and die at any moment: no socket, no sleep. */
#include "sched/coordinator.h"

#include "cluster/pack.h"
#include "cluster/status.h"
#include "tests/suite.h"

enum { MAX_SERVERS = 6, N_WORKERS = 2, SHARDS = 2, LATE_MS = 100 };

/* What a process of the job knows. */
struct process {
    bool runs, ready, stops;
    uint64_t incarnation, generation, n_reports, last_order;
};

static struct schd_coordinator *c;
static const struct schd_shape shape = {.n_servers = 2,
                                        .shards_per_server = SHARDS,
                                        .n_workers = N_WORKERS,
                                        .heartbeat_ms = 100,
                                        .dead_after_ms = 1000,
                                        .start_timeout_ms = 5000,
                                        .stop_timeout_ms = 3000,
                                        .supervised = true};
static int64_t now;
static struct process ps[MAX_SERVERS], worker[N_WORKERS];
static struct clu_bucket_map owners; /* rank 0's */
static int n_groups;                 /* MOVED reports that rank 0 has sent */
static uint64_t told_owners;         /* by order MOVED */
static bool move_ordered, released[MAX_SERVERS], ended;
static int n_started, saves, end_status;
static struct clu_control_message m;

static struct schd_view view(void)
{
    struct schd_view v;
    schd_coordinator_view(c, &v);
    return v;
}

static struct process *process_of(enum clu_role role, int rank)
{
    return role == CLU_ROLE_PS ? &ps[rank] : &worker[rank];
}

static void take_order(struct process *p, const struct schd_action *action)
{
    if (!p->runs || action->number != p->last_order + 1)
        return;
    p->last_order = action->number;
    switch (action->order.kind) {
    case CLU_ORDER_MOVE:
        move_ordered = true;
        CU_ASSERT(action->order.step <= schd_coordinator_map(c)->version);
        break;
    case CLU_ORDER_MOVED:
        CU_ASSERT(saves > 0); /* stored before it is told */
        told_owners = action->order.step;
        break;
    case CLU_ORDER_STOP:
        p->stops = true;
        break;
    case CLU_ORDER_RESTORE:
        p->ready = false;
        p->generation = action->order.generation;
        break;
    default:
        break;
    }
}

static void carry_out(void)
{
    struct schd_action action;
    while (schd_coordinator_next(c, &action)) {
        if (action.kind == SCHD_SEND && action.peer.size_bytes) {
            struct process *p = process_of(action.peer.bytes[0], action.peer.bytes[1]);
            if (action.op == CLU_CONTROL_WELCOME && p->runs) {
                p->incarnation = action.welcome.incarnation;
                p->generation = action.welcome.generation;
                p->last_order = 0;
            } else if (action.op == CLU_CONTROL_ORDER) {
                take_order(p, &action);
            }
        } else if (action.kind == SCHD_START) {
            ps[action.rank] = (struct process){.runs = true};
            n_started++;
        } else if (action.kind == SCHD_RELEASE) {
            released[action.rank] = true;
        } else if (action.kind == SCHD_SAVE) {
            saves++;
        } else if (action.kind == SCHD_END) {
            ended = true;
            end_status = action.status;
        }
        schd_action_fini(&action);
    }
}

static void hear(enum clu_role role, int rank, enum clu_control_op op)
{
    struct clu_peer peer = {.size_bytes = 2, .bytes = {(uint8_t)role, (uint8_t)rank}};
    m.op = op;
    m.role = role;
    m.rank = rank;
    m.incarnation = process_of(role, rank)->incarnation;
    schd_coordinator_hear(c, now, &peer, &m);
    carry_out();
    memset(&m, 0, sizeof(m));
}

static void report(enum clu_role role, int rank, enum clu_report_kind kind)
{
    m.number = ++process_of(role, rank)->n_reports;
    m.report.kind = kind;
    hear(role, rank, CLU_CONTROL_REPORT);
}

/* One thing that a process does of itself; false when it has nothing to do. */
static bool act(enum clu_role role, int rank)
{
    struct process *p = process_of(role, rank);
    if (!p->runs)
        return false;
    if (!p->incarnation) {
        m.pid = 100 * (role + 1) + rank;
        m.n_endpoints = role == CLU_ROLE_PS ? SHARDS : 0;
        for (int i = 0; i < m.n_endpoints; i++)
            snprintf(m.endpoints[i], CLU_ENDPOINT_BYTES, "tcp://127.0.0.1:%d", 1000 + 9 * rank + i);
        hear(role, rank, CLU_CONTROL_JOIN);
        return p->incarnation != 0;
    }
    if (role == CLU_ROLE_PS && !p->ready && !p->stops) {
        p->ready = true;
        m.report.generation = p->generation;
        report(role, rank, CLU_REPORT_READY);
        return true;
    }
    if (role == CLU_ROLE_PS && p->stops) {
        hear(role, rank, CLU_CONTROL_LEAVE);
        p->runs = false;
        return true;
    }
    m.number = p->last_order;
    hear(role, rank, CLU_CONTROL_BEAT);
    return false;
}

/* Rank 0 between two steps: the next group moves, or all have. */
static bool move_a_group(void)
{
    static uint16_t bucket[CLU_N_BUCKETS], to[CLU_N_BUCKETS];
    static bool alive[CLU_MAX_SHARDS];
    if (!move_ordered || !worker[0].runs || told_owners < owners.owners)
        return false;
    struct clu_bucket_map map = *schd_coordinator_map(c);
    map.owners = owners.owners;
    memcpy(map.shard_of, owners.shard_of, sizeof(map.shard_of));
    clu_map_staying(&map, alive);
    int n = clu_map_plan(&map, alive, CLU_MAX_SHARDS, bucket, to);
    if (!n) {
        move_ordered = false;
        report(CLU_ROLE_WORKER, 0, CLU_REPORT_SETTLED);
        return true;
    }
    for (int i = 0; i < n && i < 700; i++)
        map.shard_of[bucket[i]] = to[i];
    map.owners++;
    owners = map;
    n_groups++;
    saves = 0;
    m.report.owners = owners.owners;
    memcpy(m.report.shard_of, owners.shard_of, sizeof(owners.shard_of));
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_MOVED);
    return true;
}

static void all_act(void)
{
    for (int round = 0; round < 200; round++) {
        bool any = move_a_group();
        for (int r = 0; r < MAX_SERVERS; r++)
            any |= act(CLU_ROLE_PS, r);
        for (int r = 0; r < N_WORKERS; r++)
            any |= act(CLU_ROLE_WORKER, r);
        if (!any)
            return;
    }
    CU_FAIL("the job never comes to rest");
}

/* Everybody joins, as after a start of the scheduler. */
static void all_join(int n_servers)
{
    for (int r = 0; r < n_servers; r++) {
        m.pid = 100 * (CLU_ROLE_PS + 1) + r;
        m.n_endpoints = SHARDS;
        hear(CLU_ROLE_PS, r, CLU_CONTROL_JOIN);
    }
    for (int r = 0; r < N_WORKERS; r++) {
        m.pid = 100 * (CLU_ROLE_WORKER + 1) + r;
        hear(CLU_ROLE_WORKER, r, CLU_CONTROL_JOIN);
    }
}

static void start_workers(void)
{
    for (int r = 0; r < N_WORKERS; r++)
        worker[r] = (struct process){.runs = true};
    owners = *schd_coordinator_map(c);
    told_owners = owners.owners;
    move_ordered = false;
}

static void begin(int n_servers)
{
    struct schd_shape s = shape;
    struct schd_life life = {.job_id = 1, .generation = 1};
    s.n_servers = n_servers;
    now = 1000;
    memset(ps, 0, sizeof(ps));
    memset(released, 0, sizeof(released));
    ended = false;
    n_started = n_groups = 0;
    c = schd_coordinator_create(&s, &life, now);
    CU_ASSERT_PTR_NOT_NULL_FATAL(c);
    for (int r = 0; r < n_servers; r++)
        ps[r].runs = true;
    start_workers();
    all_act();
    CU_ASSERT_EQUAL_FATAL(view().phase, SCHD_RUNNING);
}

static void tick(int64_t later)
{
    for (; later > 0; later -= LATE_MS) {
        now += LATE_MS;
        for (int r = 0; r < MAX_SERVERS; r++)
            if (ps[r].runs && ps[r].incarnation)
                act(CLU_ROLE_PS, r);
        for (int r = 0; r < N_WORKERS; r++)
            act(CLU_ROLE_WORKER, r);
        schd_coordinator_tick(c, now);
        carry_out();
    }
}

/* As the supervisor does: those who are to be started again. */
static void recover(void)
{
    enum schd_way way = schd_coordinator_plan(c);
    bool starts[MAX_SERVERS];
    int n = schd_coordinator_map(c)->n_shards / SHARDS;
    CU_ASSERT_EQUAL(way, SCHD_WAY_BACK);
    for (int r = 0; r < n; r++)
        if ((starts[r] = schd_coordinator_starts(c, way, CLU_ROLE_PS, r)))
            ps[r].runs = false;
    for (int r = 0; r < N_WORKERS; r++)
        worker[r].runs = false;
    schd_coordinator_recover(c, now, way, "", 0);
    carry_out();
    for (int r = 0; r < n; r++)
        if (starts[r])
            ps[r] = (struct process){.runs = true};
    start_workers();
    carry_out();
}

static int n_buckets_of(int server)
{
    const struct clu_bucket_map *map = schd_coordinator_map(c);
    int n = 0;
    for (int i = 0; i < map->n_shards; i++)
        if (map->server_of[i] == server)
            n += clu_map_n_buckets(map, i);
    return n;
}

static int drain(int rank)
{
    bool leaves[CLU_MAX_SHARDS] = {false};
    const char *why = NULL;
    leaves[rank] = true;
    int status = schd_coordinator_drain(c, now, leaves, &why);
    CU_ASSERT(!status || why[0]);
    carry_out();
    return status;
}

static int add(int n)
{
    const char *why = NULL;
    int status = schd_coordinator_add(c, now, n, &why);
    CU_ASSERT(!status || why[0]);
    carry_out();
    return status;
}

static void test_a_drained_server_gives_its_buckets_away_and_ends(void)
{
    begin(3);
    CU_ASSERT_EQUAL(drain(4), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(drain(1), 0);
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_MOVING);
    CU_ASSERT_EQUAL(view().n_to_move, n_buckets_of(1));
    CU_ASSERT_EQUAL(drain(2), CLU_E_AGAIN); /* one change at a time */
    CU_ASSERT_EQUAL(add(1), CLU_E_AGAIN);
    all_act();
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT_EQUAL(view().n_moved, view().n_to_move);
    CU_ASSERT_EQUAL(view().n_servers, 2);
    CU_ASSERT(n_buckets_of(1) == 0 && n_buckets_of(0) == 2048 && n_buckets_of(2) == 2048);
    CU_ASSERT(released[1] && !ps[1].runs && ps[0].runs && n_groups > 1);
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    tick(3000); /* nobody misses it */
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    CU_ASSERT_EQUAL(drain(1), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(drain(0), 0);
    all_act();
    CU_ASSERT_EQUAL(n_buckets_of(2), CLU_N_BUCKETS);
    CU_ASSERT_EQUAL(drain(2), CLU_E_USAGE); /* the last one */
    schd_coordinator_free(c);
}

static void test_added_servers_get_their_share(void)
{
    begin(1);
    CU_ASSERT_EQUAL(add(CLU_MAX_SHARDS), CLU_E_USAGE);
    CU_ASSERT_EQUAL(add(2), 0);
    CU_ASSERT_EQUAL(n_started, 2);
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_JOINING);
    all_act();
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT_EQUAL(view().n_servers, 3);
    for (int r = 0; r < 3; r++)
        CU_ASSERT(n_buckets_of(r) >= 1364 && n_buckets_of(r) <= 1366);
    tick(3000);
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    CU_ASSERT_EQUAL(drain(0), 0); /* and the first may go */
    all_act();
    CU_ASSERT(n_buckets_of(0) == 0 && view().n_servers == 2);
    schd_coordinator_free(c);
}

static void test_a_server_that_does_not_come_ends_the_change_not_the_job(void)
{
    for (int how = 0; how < 2; how++) {
        begin(2);
        CU_ASSERT_EQUAL(add(1), 0);
        ps[2].runs = false;
        if (how == 0) { /* its process ended at once */
            schd_coordinator_gone(c, now, CLU_ROLE_PS, 2, CLU_E_IO, "ended with exit code 74");
            carry_out();
        } else {
            tick(shape.start_timeout_ms + LATE_MS);
        }
        CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
        CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
        CU_ASSERT_EQUAL(view().n_servers, 2);
        CU_ASSERT(released[2]);
        CU_ASSERT_EQUAL(add(1), 0); /* as another rank */
        all_act();
        CU_ASSERT_EQUAL(view().n_servers, 3);
        CU_ASSERT(n_buckets_of(2) == 0 && n_buckets_of(3) > 0);
        schd_coordinator_free(c);
    }
}

static void test_a_loss_while_buckets_move_goes_back_by_the_map_that_is_stored(void)
{
    begin(3);
    CU_ASSERT_EQUAL(drain(2), 0);
    CU_ASSERT(move_a_group());
    act(CLU_ROLE_WORKER, 0);
    int left = n_buckets_of(2);
    CU_ASSERT(left > 0 && left < 1365);
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 0, CLU_E_LOST, "was killed by signal 9");
    carry_out();
    CU_ASSERT_EQUAL(view().phase, SCHD_BROKEN);
    recover();
    CU_ASSERT_EQUAL(n_buckets_of(2), left);
    all_act(); /* and the rest moves in the next life */
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT(n_buckets_of(2) == 0 && released[2] && !ps[2].runs);
    schd_coordinator_free(c);
}

static void test_a_drained_server_may_end_as_it_likes(void)
{
    begin(3);
    CU_ASSERT_EQUAL(drain(2), 0);
    while (view().change == SCHD_CHANGE_MOVING) {
        CU_ASSERT_FATAL(move_a_group());
        act(CLU_ROLE_WORKER, 0);
    }
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_LEAVING);
    ps[2].runs = false;
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 2, CLU_E_LOST, "was killed by signal 9");
    carry_out();
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    schd_coordinator_free(c);
}

static void test_a_restarted_scheduler_takes_the_change_up(void)
{
    struct clu_packer packer;
    struct schd_life life = {.job_id = 1, .generation = 1};
    begin(2);
    CU_ASSERT_EQUAL(add(1), 0);
    for (int i = 0; i < 3; i++) {
        act(CLU_ROLE_PS, 2);
    }
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_MOVING);
    CU_ASSERT(move_a_group());
    clu_packer_init(&packer);
    schd_coordinator_save(c, &packer);
    schd_coordinator_free(c);
    c = schd_coordinator_create(&shape, &life, now); /* of two servers, as the job file said */
    carry_out();
    CU_ASSERT_EQUAL_FATAL(schd_coordinator_load(c, now, packer.data, packer.size_bytes), 0);
    for (size_t cut = 0; cut < packer.size_bytes; cut += 1 + cut / 50) {
        struct schd_coordinator *other = schd_coordinator_create(&shape, &life, now);
        CU_ASSERT_EQUAL(schd_coordinator_load(other, now, packer.data, cut), CLU_E_CORRUPT);
        schd_coordinator_free(other);
    }
    clu_packer_fini(&packer);
    told_owners = move_ordered = 0; /* whatever was under way is lost */
    all_join(3);
    all_act();
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT(n_buckets_of(2) >= 1364);
    schd_coordinator_free(c);
}

/* The last word of a change before this one may be said again to a restarted scheduler. */
static void test_a_late_word_that_all_has_moved_ends_no_other_change(void)
{
    begin(3);
    CU_ASSERT_EQUAL(drain(2), 0);
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_SETTLED);
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_MOVING);
    CU_ASSERT(!released[2]);
    all_act();
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT(released[2] && n_buckets_of(2) == 0);
    schd_coordinator_free(c);
}

/* The scheduler is started again, and whoever was known to it joins again. */
static void restart_scheduler(int n_servers)
{
    struct clu_packer packer;
    struct schd_life life = {.job_id = 1, .generation = 1};
    struct schd_shape s = shape;
    s.n_servers = n_servers;
    s.servers_stand = true;
    clu_packer_init(&packer);
    schd_coordinator_save(c, &packer);
    schd_coordinator_free(c);
    c = schd_coordinator_create(&s, &life, now);
    carry_out();
    CU_ASSERT_EQUAL_FATAL(schd_coordinator_load(c, now, packer.data, packer.size_bytes), 0);
    clu_packer_fini(&packer);
    move_ordered = false;
}

/* Another order was queued for rank 0 before it came back, or it had never had its welcome. */
static void test_a_restarted_scheduler_orders_the_move_again_whatever_else_it_orders(void)
{
    for (int how = 0; how < 2; how++) {
        begin(3);
        CU_ASSERT_EQUAL(drain(2), 0);
        restart_scheduler(3);
        int status = how == 0 ? schd_coordinator_snapshot(c, now) : CLU_OK;
        CU_ASSERT_EQUAL(status, CLU_OK);
        if (how == 1)
            worker[0].incarnation = 0;
        m.pid = 100 * (CLU_ROLE_WORKER + 1);
        hear(CLU_ROLE_WORKER, 0, CLU_CONTROL_JOIN);
        CU_ASSERT(move_ordered);
        schd_coordinator_free(c);
    }
}

/* Three servers whose rows stand (durability log). */
static void begin_standing(void)
{
    begin(3);
    restart_scheduler(3);
    all_join(3);
}

/* The last word of rank 0 is that all has moved; the drained server had died a moment before. */
static void test_a_drained_server_that_died_before_all_had_moved_is_not_waited_for(void)
{
    begin_standing();
    CU_ASSERT_EQUAL(drain(2), 0);
    while (n_buckets_of(2) > 0) {
        CU_ASSERT_FATAL(move_a_group());
        act(CLU_ROLE_WORKER, 0);
    }
    ps[2].runs = false;
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 2, CLU_E_LOST, "was killed by signal 9");
    carry_out();
    CU_ASSERT(move_a_group()); /* SETTLED, while the job is broken */
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_STAND);
    CU_ASSERT(!schd_coordinator_starts(c, SCHD_WAY_STAND, CLU_ROLE_PS, 2));
    schd_coordinator_recover(c, now, SCHD_WAY_STAND, "", 0);
    carry_out();
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    CU_ASSERT_EQUAL(view().n_servers, 2);
    schd_coordinator_free(c);
}

/* The same, but the word comes when the workers have been ended already, for the sake of a plan. */
static void test_whom_a_plan_has_ended_is_started_whatever_is_heard_later(void)
{
    begin_standing();
    CU_ASSERT_EQUAL(drain(2), 0);
    while (n_buckets_of(2) > 0) {
        CU_ASSERT_FATAL(move_a_group());
        act(CLU_ROLE_WORKER, 0);
    }
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 2, CLU_E_LOST, "was killed by signal 9");
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK); /* (S1) */
    CU_ASSERT(schd_coordinator_starts(c, SCHD_WAY_BACK, CLU_ROLE_WORKER, 0));
    carry_out();
    CU_ASSERT(move_a_group()); /* SETTLED: said before its end */
    ps[2].runs = false;
    recover();
    CU_ASSERT_EQUAL(view().change, SCHD_CHANGE_NONE);
    all_act();
    CU_ASSERT_EQUAL(view().phase, SCHD_RUNNING);
    CU_ASSERT_EQUAL(view().n_servers, 2);
    schd_coordinator_free(c);
}

/* ---- a walk: any of these at any moment ---- */

static int n_free_ranks(void)
{
    return MAX_SERVERS - schd_coordinator_map(c)->n_shards / SHARDS;
}

static void kill_one(uint64_t *random)
{
    int who = (int)(suite_random(random) % (MAX_SERVERS + N_WORKERS));
    enum clu_role role = who < MAX_SERVERS ? CLU_ROLE_PS : CLU_ROLE_WORKER;
    int rank = who < MAX_SERVERS ? who : who - MAX_SERVERS;
    struct process *p = process_of(role, rank);
    if (!p->runs)
        return;
    p->runs = false;
    schd_coordinator_gone(c, now, role, rank, CLU_E_LOST, "was killed");
    carry_out();
    if (role == CLU_ROLE_WORKER || !released[rank])
        recover(); /* the supervisor saw it, whatever the scheduler knew of it */
}

static void test_no_order_of_events_leaves_the_job_waiting(void)
{
    uint64_t random = suite_seed();
    unsigned before = CU_get_number_of_failures();
    for (int round = 0; round < 300; round++) {
        begin(1 + (int)(suite_random(&random) % 3));
        for (int event = 0; event < 60; event++) {
            uint64_t what = suite_random(&random) % 12;
            if (view().phase == SCHD_BROKEN)
                recover();
            else if (what < 2)
                drain((int)(suite_random(&random) % MAX_SERVERS));
            else if (what < 4 && n_free_ranks() > 0)
                add(1);
            else if (what < 7)
                move_a_group();
            else if (what < 11)
                act(what % 2 ? CLU_ROLE_PS : CLU_ROLE_WORKER,
                    (int)(suite_random(&random) % (what % 2 ? MAX_SERVERS : N_WORKERS)));
            else if (suite_random(&random) % 8 == 0)
                kill_one(&random);
            tick(suite_random(&random) % 3 ? 0 : LATE_MS);
        }
        for (int i = 0; i < 5 && view().phase == SCHD_BROKEN; i++)
            recover();
        all_act(); /* nothing is lost any more: all comes to rest */
        tick(shape.start_timeout_ms + LATE_MS);
        all_act();
        struct schd_view v = view();
        CU_ASSERT_EQUAL(v.phase, SCHD_RUNNING);
        CU_ASSERT_EQUAL(v.change, SCHD_CHANGE_NONE);
        int n = 0, most = 0, least = CLU_N_BUCKETS;
        const struct clu_bucket_map *map = schd_coordinator_map(c);
        for (int i = 0; i < map->n_shards; i++) {
            int have = clu_map_n_buckets(map, i);
            n += have;
            most = have > most ? have : most;
            if (!map->leaving[i])
                least = have < least ? have : least;
            CU_ASSERT(!map->leaving[i] || !have);
        }
        CU_ASSERT(n == CLU_N_BUCKETS && most - least <= 1);
        CU_ASSERT(!memcmp(map->shard_of, owners.shard_of, sizeof(owners.shard_of)));
        for (int i = 0; i < v.n_members && CU_get_number_of_failures() > before; i++) {
            struct schd_member_view w;
            schd_coordinator_member(c, i, now, &w);
            printf("  %s %d %s\n", clu_role_name(w.role), w.rank, schd_member_state_name(w.state));
        }
        schd_coordinator_free(c);
        if (CU_get_number_of_failures() > before) {
            printf("  round %d: %s, %s: %s\n", round, schd_phase_name(v.phase),
                   schd_change_name(v.change), v.text);
            return;
        }
    }
}

SUITE("sched.shape", T(test_a_drained_server_gives_its_buckets_away_and_ends),
      T(test_added_servers_get_their_share),
      T(test_a_server_that_does_not_come_ends_the_change_not_the_job),
      T(test_a_loss_while_buckets_move_goes_back_by_the_map_that_is_stored),
      T(test_a_drained_server_may_end_as_it_likes),
      T(test_a_late_word_that_all_has_moved_ends_no_other_change),
      T(test_a_restarted_scheduler_takes_the_change_up),
      T(test_a_restarted_scheduler_orders_the_move_again_whatever_else_it_orders),
      T(test_a_drained_server_that_died_before_all_had_moved_is_not_waited_for),
      T(test_whom_a_plan_has_ended_is_started_whatever_is_heard_later),
      T(test_no_order_of_events_leaves_the_job_waiting))

/* Control messages as bytes, and a member against a scheduler's socket. */
#include "cluster/control.h"
#include "cluster/member.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "tests/suite.h"

#include <pthread.h>
#include <unistd.h>

static struct clu_control_message in, out;
static struct clu_bucket_map map, map_in;

static void round_trip(void)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    clu_control_pack(&out, &packer);
    CU_ASSERT_EQUAL(clu_packer_status(&packer), CLU_OK);
    in.map = &map_in;
    CU_ASSERT_EQUAL(clu_control_unpack(packer.data, packer.size_bytes, &in), CLU_OK);
    for (size_t cut = 0; cut < packer.size_bytes; cut += cut < 600 ? 1 : 97)
        CU_ASSERT_EQUAL(clu_control_unpack(packer.data, cut, &(struct clu_control_message){0}),
                        CLU_E_PROTOCOL);
    clu_control_unpack(packer.data, packer.size_bytes, &in);
    clu_packer_fini(&packer);
}

static void test_a_welcome_with_a_map_comes_back(void)
{
    memset(&out, 0, sizeof(out));
    clu_map_init(&map, 2, 2);
    strcpy(map.endpoint[3], "tcp://10.0.0.1:7");
    out.op = CLU_CONTROL_WELCOME;
    out.welcome = (struct clu_welcome){.job_id = 1ull << 62,
                                       .generation = 3,
                                       .incarnation = 9,
                                       .n_servers = 2,
                                       .n_shards = 4,
                                       .n_workers = 8,
                                       .resume_step = 12};
    strcpy(out.welcome.resume, "/x/step-000000000012");
    out.map = &map;
    out.has_map = true;
    round_trip();
    CU_ASSERT_EQUAL(memcmp(&in.welcome, &out.welcome, sizeof(in.welcome)), 0);
    CU_ASSERT_TRUE(in.has_map);
    CU_ASSERT_STRING_EQUAL(map_in.endpoint[3], "tcp://10.0.0.1:7");
}

static void test_a_report_with_everything_comes_back(void)
{
    memset(&out, 0, sizeof(out));
    out.op = CLU_CONTROL_REPORT;
    out.role = CLU_ROLE_WORKER;
    out.rank = 3;
    out.incarnation = 1ull << 33 | 5;
    out.number = 17;
    out.report.kind = CLU_REPORT_SNAPSHOT;
    out.report.step = 1000;
    out.report.status = CLU_E_FULL;
    strcpy(out.report.text, "no space");
    clu_figures_put(&out.report.figures, "loss", 1.5);
    out.report.n_files = 2;
    strcpy(out.report.files[1].path, "rows/1");
    out.report.files[1].size_bytes = 1ull << 40;
    out.report.files[1].checksum = UINT64_MAX;
    out.report.owners = 1ull << 40;
    out.report.shard_of[0] = 1;
    out.report.shard_of[CLU_N_BUCKETS - 1] = CLU_MAX_SHARDS - 1;
    round_trip();
    CU_ASSERT_EQUAL(in.role, CLU_ROLE_WORKER);
    CU_ASSERT_EQUAL(in.incarnation, out.incarnation);
    CU_ASSERT_EQUAL(in.number, 17);
    CU_ASSERT_EQUAL(in.report.status, CLU_E_FULL);
    CU_ASSERT_STRING_EQUAL(in.report.text, "no space");
    CU_ASSERT_EQUAL(clu_figures_get(&in.report.figures, "loss", 0), 1.5);
    CU_ASSERT_EQUAL(in.report.n_files, 2);
    CU_ASSERT_EQUAL(in.report.files[1].checksum, UINT64_MAX);
    CU_ASSERT_EQUAL(in.report.owners, 1ull << 40);
    CU_ASSERT(!memcmp(in.report.shard_of, out.report.shard_of, sizeof(in.report.shard_of)));
}

static void test_hostile_bytes_are_refused_or_read_never_worse(void)
{
    uint64_t random = suite_seed();
    struct clu_packer packer;
    memset(&out, 0, sizeof(out));
    out.op = CLU_CONTROL_JOIN;
    out.n_endpoints = 3;
    strcpy(out.host, "h");
    strcpy(out.metrics_url, "http://h:1/");
    strcpy(out.endpoints[1], "tcp://127.0.0.1:1");
    clu_packer_init(&packer);
    clu_control_pack(&out, &packer);
    for (int i = 0; i < 20000; i++) {
        char bytes[512];
        size_t size = packer.size_bytes;
        memcpy(bytes, packer.data, size);
        for (int flips = 1 + (int)(suite_random(&random) % 4); flips > 0; flips--)
            bytes[suite_random(&random) % size] = (char)suite_random(&random);
        in.map = NULL;
        int status = clu_control_unpack(bytes, size, &in);
        CU_ASSERT(status == CLU_OK || status == CLU_E_PROTOCOL);
        if (!status)
            CU_ASSERT(in.n_endpoints >= 0 && in.n_endpoints <= 64);
    }
    clu_packer_fini(&packer);
}

/* ---- a member and a scheduler's socket ---- */

struct end {
    struct clu_transport *transport;
    struct clu_control *control;
    char endpoint[CLU_ENDPOINT_BYTES];
    struct clu_member_options options;
    struct clu_member *member;
    int joined;
    pthread_t thread;
    struct clu_peer peer;
};

static void *join_thread(void *context)
{
    struct end *e = context;
    e->joined = clu_member_join(&e->options, &e->member);
    return NULL;
}

static void open_end(struct end *e, int64_t join_timeout_ms)
{
    struct clu_transport_options options = {0};
    memset(e, 0, sizeof(*e));
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &e->transport), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_control_open(e->transport, "127.0.0.1", 0, &e->control, e->endpoint),
                          CLU_OK);
    e->options = (struct clu_member_options){.endpoint = e->endpoint,
                                             .role = CLU_ROLE_WORKER,
                                             .rank = 1,
                                             .heartbeat_ms = 50,
                                             .lost_after_ms = 400,
                                             .join_timeout_ms = join_timeout_ms,
                                             .transport = e->transport,
                                             .metrics_url = "http://127.0.0.1:9/"};
    pthread_create(&e->thread, NULL, join_thread, e);
}

static void close_end(struct end *e)
{
    clu_control_close(e->control);
    clu_transport_free(e->transport);
}

/* The next message with this op; others are passed over. */
static bool expect(struct end *e, enum clu_control_op op)
{
    for (int i = 0; i < 100; i++) {
        in.map = NULL;
        if (clu_control_receive(e->control, 50, &e->peer, &in) == CLU_OK && in.op == op)
            return true;
    }
    return false;
}

static void reply(struct end *e, enum clu_control_op op, uint64_t number)
{
    memset(&out, 0, sizeof(out));
    out.op = op;
    out.number = number;
    out.welcome.incarnation = 7;
    out.welcome.generation = 1;
    if (op == CLU_CONTROL_ORDER)
        out.order = (struct clu_order){.kind = CLU_ORDER_SNAPSHOT, .step = number};
    if (op == CLU_CONTROL_WELCOME) {
        clu_map_init(&map, 1, 1);
        strcpy(map.endpoint[0], "tcp://127.0.0.1:1");
        out.map = &map;
        out.has_map = true;
    }
    CU_ASSERT_EQUAL(clu_control_send(e->control, &e->peer, &out), CLU_OK);
}

static void test_a_member_joins_takes_orders_once_and_leaves(void)
{
    struct end e;
    struct clu_order order;
    static struct clu_report report = {.kind = CLU_REPORT_PROGRESS, .step = 5};
    open_end(&e, 5000);
    CU_ASSERT_FATAL(expect(&e, CLU_CONTROL_JOIN));
    CU_ASSERT_EQUAL(in.rank, 1);
    CU_ASSERT_EQUAL(in.pid, getpid());
    CU_ASSERT_STRING_EQUAL(in.metrics_url, "http://127.0.0.1:9/");
    reply(&e, CLU_CONTROL_WELCOME, 0);
    pthread_join(e.thread, NULL);
    CU_ASSERT_EQUAL_FATAL(e.joined, CLU_OK);
    CU_ASSERT_EQUAL(clu_member_welcome(e.member)->incarnation, 7);
    CU_ASSERT_EQUAL(clu_member_map_version(e.member), 1);
    CU_ASSERT_EQUAL(clu_member_next_order(e.member, &order), CLU_E_AGAIN);
    reply(&e, CLU_CONTROL_ORDER, 2); /* a gap: waits for 1 */
    reply(&e, CLU_CONTROL_ORDER, 1);
    reply(&e, CLU_CONTROL_ORDER, 1);
    reply(&e, CLU_CONTROL_ORDER, 2);
    CU_ASSERT_EQUAL(clu_member_wait_order(e.member, 2000, &order), CLU_OK);
    CU_ASSERT_EQUAL(order.step, 1);
    CU_ASSERT_EQUAL(clu_member_wait_order(e.member, 2000, &order), CLU_OK);
    CU_ASSERT_EQUAL(order.step, 2);
    CU_ASSERT_EQUAL(clu_member_wait_order(e.member, 100, &order), CLU_E_TIMEOUT);
    CU_ASSERT_EQUAL(clu_member_report(e.member, &report), CLU_OK);
    CU_ASSERT(expect(&e, CLU_CONTROL_REPORT));
    CU_ASSERT_EQUAL(in.report.step, 5);
    CU_ASSERT_EQUAL(in.incarnation, 7);
    reply(&e, CLU_CONTROL_RECEIPT, in.number);
    clu_member_leave(e.member, CLU_E_DATA,
                     "bad data"); /* nobody answers: it goes within a second */
    CU_ASSERT(expect(&e, CLU_CONTROL_LEAVE));
    CU_ASSERT_EQUAL(in.status, CLU_E_DATA);
    CU_ASSERT_STRING_EQUAL(in.text, "bad data");
    close_end(&e);
}

static void test_joining_nobody_ends_at_its_deadline(void)
{
    struct end e;
    open_end(&e, 700);
    pthread_join(e.thread, NULL);
    CU_ASSERT_EQUAL(e.joined, CLU_E_TIMEOUT);
    close_end(&e);
}

static void test_a_refusal_ends_joining(void)
{
    struct end e;
    open_end(&e, 5000);
    CU_ASSERT_FATAL(expect(&e, CLU_CONTROL_JOIN));
    memset(&out, 0, sizeof(out));
    out.op = CLU_CONTROL_REFUSE;
    out.status = CLU_E_CONFIG;
    clu_control_send(e.control, &e.peer, &out);
    pthread_join(e.thread, NULL);
    CU_ASSERT_EQUAL(e.joined, CLU_E_CONFIG);
    close_end(&e);
}

static void test_a_silent_scheduler_is_joined_again_then_lost(void)
{
    struct end e;
    struct clu_order order;
    static struct clu_report report = {.kind = CLU_REPORT_SNAPSHOT, .step = 5};
    open_end(&e, 5000);
    CU_ASSERT_FATAL(expect(&e, CLU_CONTROL_JOIN));
    reply(&e, CLU_CONTROL_WELCOME, 0);
    pthread_join(e.thread, NULL);
    CU_ASSERT_EQUAL_FATAL(e.joined, CLU_OK);
    clu_member_report(e.member, &report);
    CU_ASSERT(expect(&e, CLU_CONTROL_REPORT));
    reply(&e, CLU_CONTROL_RECEIPT, in.number);
    CU_ASSERT_FATAL(expect(&e, CLU_CONTROL_JOIN)); /* after 400 ms of silence, as whom it was */
    CU_ASSERT_EQUAL(in.incarnation, 7);
    reply(&e, CLU_CONTROL_WELCOME, 0);
    CU_ASSERT(expect(&e, CLU_CONTROL_REPORT)); /* not committed yet: told again */
    CU_ASSERT_EQUAL(in.report.step, 5);
    CU_ASSERT_EQUAL(clu_member_wait_order(e.member, 3000, &order), CLU_E_LOST);
    CU_ASSERT_EQUAL(clu_member_report(e.member, &report), CLU_E_LOST);
    clu_member_leave(e.member, CLU_E_LOST, NULL);
    close_end(&e);
}

static void *answer_thread(void *context)
{
    struct end *e = context;
    if (expect(e, CLU_CONTROL_ASK)) {
        memset(&out, 0, sizeof(out));
        out.op = CLU_CONTROL_ANSWER;
        out.body = "{\"phase\":\"running\"}";
        out.body_bytes = strlen(out.body);
        clu_control_send(e->control, &e->peer, &out);
    }
    return NULL;
}

static void test_a_question_is_answered_or_times_out(void)
{
    struct end e;
    char *body = NULL;
    open_end(&e, 100);
    pthread_join(e.thread, NULL);
    pthread_create(&e.thread, NULL, answer_thread, &e);
    CU_ASSERT_EQUAL(clu_control_ask(e.transport, e.endpoint, "status", 3000, &body), CLU_OK);
    pthread_join(e.thread, NULL);
    CU_ASSERT_STRING_EQUAL(body, "{\"phase\":\"running\"}");
    free(body);
    CU_ASSERT_EQUAL(clu_control_ask(e.transport, e.endpoint, "status", 200, NULL), CLU_E_TIMEOUT);
    close_end(&e);
}

SUITE("cluster.control", T(test_a_welcome_with_a_map_comes_back),
      T(test_a_report_with_everything_comes_back),
      T(test_hostile_bytes_are_refused_or_read_never_worse),
      T(test_a_member_joins_takes_orders_once_and_leaves),
      T(test_joining_nobody_ends_at_its_deadline), T(test_a_refusal_ends_joining),
      T(test_a_silent_scheduler_is_joined_again_then_lost),
      T(test_a_question_is_answered_or_times_out))

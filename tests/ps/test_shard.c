/* A shard's mind alone, with time passed in: rules (R1), (R4) and (R6) of ps/shard.h. The store is
 * the real one; its pushes and commits can be made to fail (linked with --wrap).
 */
#include "cluster/file.h"
#include "cluster/pack.h"
#include "cluster/status.h"
#include "embeddings/shard.h"
#include "ps/shard.h"
#include "tests/suite.h"

#include <unistd.h>

enum { N_RANKS = 2, N_TABLES = 3, DIM = 4, N_KEYS = 6, MAX_REPLIES = 64, MAX_KEYS_HELD = 4096 };

static uint64_t fault_random, born; /* added to the incarnations that ask */
static int fault_of_100, fault_status;

int __real_emb_shard_push(struct emb_shard *shard, int table, const uint64_t *keys, size_t n,
                          const float *grads, uint64_t step);
int __wrap_emb_shard_push(struct emb_shard *shard, int table, const uint64_t *keys, size_t n,
                          const float *grads, uint64_t step);
int __real_emb_shard_commit(struct emb_shard *shard);
int __wrap_emb_shard_commit(struct emb_shard *shard);

static bool fails(void)
{
    return (int)(suite_random(&fault_random) % 100) < fault_of_100;
}

int __wrap_emb_shard_push(struct emb_shard *shard, int table, const uint64_t *keys, size_t n,
                          const float *grads, uint64_t step)
{
    return fails() ? fault_status : __real_emb_shard_push(shard, table, keys, n, grads, step);
}

int __wrap_emb_shard_commit(struct emb_shard *shard)
{
    return fails() ? fault_status : __real_emb_shard_commit(shard);
}

struct box {
    char dir[128];
    struct emb_shard *rows;
    struct psv_shard *shard;
    struct emb_table_spec tables[N_TABLES];
    int n_replies;
    struct {
        int op, status;
        uint64_t seq, step;
        unsigned char peer;
        char sentence[256];
        float rows[N_KEYS * DIM];
    } reply[MAX_REPLIES];
};

static int take(void *context, struct clu_message *message)
{
    struct box *box = context;
    struct clu_wire_reply reply;
    CU_ASSERT_FATAL(box->n_replies < MAX_REPLIES);
    CU_ASSERT_EQUAL_FATAL(clu_wire_decode_reply(clu_frame_data(&message->frame[0]),
                                                clu_frame_size(&message->frame[0]), &reply),
                          0);
    int i = box->n_replies++;
    box->reply[i].op = reply.op;
    box->reply[i].status = reply.status;
    box->reply[i].seq = reply.seq;
    box->reply[i].step = reply.step;
    box->reply[i].peer = message->peer[0];
    snprintf(box->reply[i].sentence, sizeof(box->reply[i].sentence), "%.*s", (int)reply.n_text,
             reply.text);
    if (message->n_frames > 1 && clu_frame_size(&message->frame[1]) <= sizeof(box->reply[i].rows))
        memcpy(box->reply[i].rows, clu_frame_data(&message->frame[1]),
               clu_frame_size(&message->frame[1]));
    clu_message_close(message);
    return 0;
}

static void box_open(struct box *box, int64_t staleness)
{
    static int count;
    memset(box, 0, sizeof(*box));
    fault_of_100 = 0;
    born = 0;
    snprintf(box->dir, sizeof(box->dir), "%s/sluice-mind-%d-%d", P_tmpdir, (int)getpid(), count++);
    for (int t = 0; t < N_TABLES; t++) {
        emb_table_spec_init(&box->tables[t]);
        snprintf(box->tables[t].name, sizeof(box->tables[t].name), "table %d", t);
        box->tables[t].dim = DIM;
        box->tables[t].learning_rate = 0.01;
    }
    struct emb_shard_options rows = {.dir = box->dir, .map_bytes = 64 << 20};
    CU_ASSERT_EQUAL_FATAL(clu_mkdirs(box->dir), 0);
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&rows, box->tables, N_TABLES, &box->rows), 0);
    struct psv_shard_options options = {.rows = box->rows,
                                        .terms = {.n_ranks = N_RANKS,
                                                  .staleness = staleness,
                                                  .tables = box->tables,
                                                  .n_tables = N_TABLES},
                                        .max_held = 4,
                                        .max_buffered_bytes = MAX_KEYS_HELD * sizeof(uint64_t),
                                        .send = take,
                                        .context = box};
    CU_ASSERT_EQUAL_FATAL(psv_shard_create(&options, &box->shard), 0);
}

static void box_close(struct box *box)
{
    psv_shard_free(box->shard);
    emb_shard_close(box->rows);
    clu_remove_tree(box->dir);
}

/* a push of all tables, or a pull of one, from rank's peer; the same numbers for the same step */
static void ask(struct box *box, int op, uint32_t rank, uint64_t step, unsigned char peer,
                int64_t now_ms)
{
    struct clu_wire_request header = {.op = op,
                                      .dtype = CLU_WIRE_FP32,
                                      .rank = rank,
                                      .incarnation = rank + 1 + born,
                                      .seq = step,
                                      .step = step,
                                      .deadline_ms = 1000};
    struct clu_message message;
    uint64_t keys[N_TABLES * N_KEYS], random = step * 100 + rank;
    float grads[N_TABLES * N_KEYS * DIM];
    header.n_parts = op == CLU_WIRE_PUSH ? N_TABLES : 1;
    for (int p = 0; p < header.n_parts; p++) {
        header.part[p] = (struct clu_wire_part){(uint16_t)p, N_KEYS};
        for (int i = 0; i < N_KEYS; i++)
            keys[p * N_KEYS + i] = (uint64_t)(i * (op == CLU_WIRE_PUSH ? 1 + (int)rank : 1));
    }
    for (int i = 0; i < N_TABLES * N_KEYS * DIM; i++)
        grads[i] = (float)suite_uniform(&random, -1, 1);
    clu_message_init(&message);
    message.peer[0] = peer;
    message.peer_size = 1;
    clu_frame_init_size(clu_message_add(&message), clu_wire_request_size(&header));
    clu_wire_encode_request(&header, clu_frame_data(&message.frame[0]));
    size_t n_keys = (size_t)header.n_parts * N_KEYS;
    clu_frame_init_copy(clu_message_add(&message), keys, n_keys * sizeof(*keys));
    if (op == CLU_WIRE_PUSH)
        clu_frame_init_copy(clu_message_add(&message), grads, n_keys * DIM * sizeof(*grads));
    psv_shard_handle(box->shard, &message, now_ms);
    clu_message_close(&message);
}

static int count(const struct box *box, int op, int status)
{
    int n = 0;
    for (int i = 0; i < box->n_replies; i++)
        n += box->reply[i].op == op && box->reply[i].status == status;
    return n;
}

static void test_a_pull_is_held_exactly_as_long_as_the_bound_says(void)
{
    for (int64_t staleness = 0; staleness < 3; staleness++) {
        struct box box;
        box_open(&box, staleness);
        for (uint64_t step = 1; step <= 1 + (uint64_t)staleness; step++)
            ask(&box, CLU_WIRE_PULL, 0, step, 1, 0);
        CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 1 + (int)staleness);
        ask(&box, CLU_WIRE_PULL, 0, 2 + (uint64_t)staleness, 1, 0);
        ask(&box, CLU_WIRE_PUSH, 1, 1, 2, 0);
        CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 1 + (int)staleness);
        ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 0);
        CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 2 + (int)staleness);
        CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, 0), 2);
        box_close(&box);
    }
}

static void test_a_push_again_is_acknowledged_where_it_came_from_last(void)
{
    struct box box;
    struct psv_shard_stats stats;
    box_open(&box, 0);
    ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 0);
    ask(&box, CLU_WIRE_PUSH, 0, 1, 7, 10); /* over another connection: told that it waits here */
    CU_ASSERT_EQUAL_FATAL(box.n_replies, 1);
    CU_ASSERT(box.reply[0].peer == 7 && box.reply[0].status == CLU_E_EXISTS);
    box.n_replies = 0;
    ask(&box, CLU_WIRE_PUSH, 1, 1, 2, 20);
    CU_ASSERT_EQUAL_FATAL(box.n_replies, 2);
    CU_ASSERT(box.reply[0].peer == 7 && box.reply[1].peer == 2);
    ask(&box, CLU_WIRE_PUSH, 0, 1, 8, 30); /* and once more, after it was applied */
    CU_ASSERT_EQUAL_FATAL(box.n_replies, 3);
    CU_ASSERT(box.reply[2].peer == 8 && box.reply[2].status == 0);
    psv_shard_stats(box.shard, &stats);
    CU_ASSERT_EQUAL(stats.duplicates, 2);
    CU_ASSERT_EQUAL(stats.rows_pushed, 2 * N_TABLES * N_KEYS);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 1);
    box_close(&box);
}

static void test_what_waits_is_bounded_and_ends_at_its_deadline(void)
{
    struct box box;
    box_open(&box, 0);
    for (uint64_t step = 2; step < 8; step++)
        ask(&box, CLU_WIRE_PULL, 0, step, 1, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_AGAIN), 2); /* max_held is 4 */
    ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 500);
    psv_shard_tick(box.shard, 999);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_TIMEOUT), 0);
    psv_shard_tick(box.shard, 1000);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_TIMEOUT), 4);
    CU_ASSERT_PTR_NOT_NULL(strstr(box.reply[box.n_replies - 1].sentence, "step 1 of rank 1"));
    psv_shard_tick(box.shard, 2000); /* the push too is told, and stays */
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, CLU_E_TIMEOUT), 1);
    ask(&box, CLU_WIRE_PUSH, 1, 1, 2, 2010);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 1);
    box_close(&box);
}

/* A pull of n keys whose step is far away, so that it is held; coded or plain, keys [n] or NULL. */
static void pull_coded(struct box *box, uint64_t seq, uint64_t step, uint32_t n, bool coded,
                       size_t cut)
{
    struct clu_wire_request header = {.op = CLU_WIRE_PULL,
                                      .dtype = CLU_WIRE_FP32,
                                      .coded = coded,
                                      .incarnation = 1,
                                      .seq = seq,
                                      .step = step,
                                      .deadline_ms = 1000,
                                      .n_parts = 1,
                                      .part = {{0, n}}};
    struct clu_message message;
    uint64_t *keys = calloc(n, sizeof(*keys));
    for (uint32_t i = 0; i < n; i++)
        keys[i] = i;
    size_t size = coded ? clu_wire_coded_keys_size(header.part, 1, keys) : n * sizeof(*keys);
    clu_message_init(&message);
    message.peer_size = 1;
    clu_frame_init_size(clu_message_add(&message), clu_wire_request_size(&header));
    clu_wire_encode_request(&header, clu_frame_data(&message.frame[0]));
    unsigned char *bytes = malloc(size);
    if (coded)
        clu_wire_encode_keys(header.part, 1, keys, bytes, size);
    else
        memcpy(bytes, keys, size);
    clu_frame_init_copy(clu_message_add(&message), bytes, size - cut);
    psv_shard_handle(box->shard, &message, 0);
    clu_message_close(&message);
    free(bytes);
    free(keys);
}

static void test_coded_keys_are_the_same_keys_and_cut_ones_are_refused(void)
{
    struct box box;
    struct psv_shard_stats stats;
    box_open(&box, 0);
    pull_coded(&box, 1, 1, N_KEYS, false, 0);
    pull_coded(&box, 2, 1, N_KEYS, true, 0);
    CU_ASSERT_EQUAL_FATAL(count(&box, CLU_WIRE_PULL, 0), 2);
    CU_ASSERT(!memcmp(box.reply[0].rows, box.reply[1].rows, sizeof(box.reply[0].rows)));
    pull_coded(&box, 3, 1, N_KEYS, true, 1);
    pull_coded(&box, 4, 1, N_KEYS, false, 1);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_PROTOCOL), 2);
    psv_shard_stats(box.shard, &stats);
    CU_ASSERT_EQUAL(stats.malformed, 2);
    box_close(&box);
}

static void test_bytes_of_held_requests_are_bounded_too(void)
{
    struct box box;
    box_open(&box, 0);
    pull_coded(&box, 1, 9, 4 * MAX_KEYS_HELD, false, 0); /* alone it may wait, however large */
    pull_coded(&box, 2, 9, 10, false, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_AGAIN), 1);
    psv_shard_tick(box.shard, 1000); /* its deadline */
    pull_coded(&box, 3, 9, MAX_KEYS_HELD / 2, true, 0);
    pull_coded(&box, 4, 9, 10, false, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_AGAIN), 1);
    pull_coded(&box, 5, 9, MAX_KEYS_HELD, true, 0); /* it counts as what it becomes */
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_AGAIN), 2);
    box_close(&box);
}

/* The rows after 6 steps with storage failing of_100 times of 100. */
static void run_with_faults(int of_100, int status, float rows_p[N_KEYS * DIM])
{
    struct box box;
    int64_t now = 0;
    box_open(&box, 0);
    fault_of_100 = of_100;
    fault_status = status;
    for (uint64_t step = 1; step <= 6; step++) {
        box.n_replies = 0;
        ask(&box, CLU_WIRE_PUSH, 0, step, 1, now);
        ask(&box, CLU_WIRE_PUSH, 1, step, 2, now);
        for (int i = 0; i < 1000 && psv_shard_applied(box.shard) < step; i++) {
            CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, 0), 0); /* not stored: not acknowledged */
            psv_shard_tick(box.shard, now += 200);
        }
        CU_ASSERT_EQUAL_FATAL(psv_shard_applied(box.shard), step);
        CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, 0), 2);
    }
    box.n_replies = 0;
    ask(&box, CLU_WIRE_PULL, 0, 7, 1, now);
    CU_ASSERT_EQUAL_FATAL(count(&box, CLU_WIRE_PULL, 0), 1);
    memcpy(rows_p, box.reply[0].rows, sizeof(box.reply[0].rows));
    fault_of_100 = 0;
    box_close(&box);
}

static void test_storage_that_fails_is_tried_again_and_no_gradient_counts_twice(void)
{
    float calm[N_KEYS * DIM], wild[N_KEYS * DIM];
    fault_random = suite_seed();
    run_with_faults(0, 0, calm);
    run_with_faults(60, CLU_E_FULL, wild);
    CU_ASSERT(!memcmp(calm, wild, sizeof(calm)));
    run_with_faults(60, CLU_E_NO_MEMORY, wild);
    CU_ASSERT(!memcmp(calm, wild, sizeof(calm)));
    run_with_faults(60, CLU_E_IO, wild);
    CU_ASSERT(!memcmp(calm, wild, sizeof(calm)));
}

static void test_full_storage_is_told_to_those_who_wait(void)
{
    struct box box;
    box_open(&box, 0);
    fault_of_100 = 100;
    fault_status = CLU_E_FULL;
    ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 0);
    ask(&box, CLU_WIRE_PUSH, 1, 1, 2, 0);
    ask(&box, CLU_WIRE_PULL, 0, 1, 1, 0); /* needs no more steps: answered */
    ask(&box, CLU_WIRE_PULL, 0, 2, 1, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 1);
    for (int64_t now = 0; now <= 1100; now += 100)
        psv_shard_tick(box.shard, now);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, CLU_E_FULL), 2);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, CLU_E_FULL), 1);
    fault_of_100 = 0;
    psv_shard_tick(box.shard, 5000);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 1);
    CU_ASSERT_EQUAL(psv_shard_status(box.shard), 0);
    box_close(&box);
}

static void test_a_damaged_store_ends_the_job(void)
{
    struct box box;
    box_open(&box, 0);
    fault_of_100 = 100;
    fault_status = CLU_E_CORRUPT;
    ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 0);
    ask(&box, CLU_WIRE_PUSH, 1, 1, 2, 0);
    CU_ASSERT_EQUAL(psv_shard_status(box.shard), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, CLU_E_CORRUPT), 2);
    fault_of_100 = 0;
    ask(&box, CLU_WIRE_PUSH, 0, 2, 1, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, CLU_E_CORRUPT), 3);
    box_close(&box);
}

static void test_an_earlier_start_of_a_rank_is_refused(void)
{
    struct box box;
    struct clu_wire_request header = {.op = CLU_WIRE_PUSH, .incarnation = 9, .seq = 1, .step = 1};
    struct clu_message message;
    box_open(&box, 0);
    clu_message_init(&message);
    message.peer_size = 1;
    clu_frame_init_size(clu_message_add(&message), clu_wire_request_size(&header));
    clu_wire_encode_request(&header, clu_frame_data(&message.frame[0]));
    psv_shard_handle(box.shard, &message, 0);
    CU_ASSERT_EQUAL(box.n_replies, 0);
    ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 0); /* incarnation 1 */
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, CLU_E_LOST), 1);
    clu_message_close(&message);
    box_close(&box);
}

/* HELLO or BEGIN of a rank, at its incarnation. */
static void tell(struct box *box, int op, uint32_t rank, uint64_t step)
{
    struct clu_packer text;
    struct psv_terms terms = {
        .n_ranks = N_RANKS, .staleness = 1, .tables = box->tables, .n_tables = N_TABLES};
    struct clu_message message;
    clu_packer_init(&text);
    psv_hello_pack(&terms, &text);
    struct clu_wire_request header = {.op = op,
                                      .rank = rank,
                                      .incarnation = rank + 1 + born,
                                      .seq = 1,
                                      .step = step,
                                      .deadline_ms = 1000,
                                      .text = text.data,
                                      .n_text =
                                          op == CLU_WIRE_HELLO ? (uint32_t)text.size_bytes : 0};
    clu_message_init(&message);
    message.peer_size = 1;
    clu_frame_init_size(clu_message_add(&message), clu_wire_request_size(&header));
    clu_wire_encode_request(&header, clu_frame_data(&message.frame[0]));
    psv_shard_handle(box->shard, &message, 0);
    clu_message_close(&message);
    clu_packer_fini(&text);
}

/* Steps 1 and 2 are whole, of step 3 rank 1's push is missing when the group dies. */
static void test_a_new_group_of_workers_goes_on_where_the_dead_one_left(void)
{
    struct box box;
    box_open(&box, 1);
    for (uint64_t step = 1; step <= 3; step++) {
        ask(&box, CLU_WIRE_PUSH, 0, step, 1, 0);
        if (step < 3)
            ask(&box, CLU_WIRE_PUSH, 1, step, 2, 0);
    }
    ask(&box, CLU_WIRE_PULL, 0, 5, 1, 0); /* held, and nobody's any more */
    born = 10;
    box.n_replies = 0;
    tell(&box, CLU_WIRE_HELLO, 0, 0);
    CU_ASSERT_EQUAL_FATAL(box.n_replies, 1);
    CU_ASSERT(box.reply[0].status == 0 && box.reply[0].step == 2);
    born = 0; /* the dead one's word comes late: the step must not become whole by it */
    ask(&box, CLU_WIRE_PUSH, 0, 3, 1, 0);
    ask(&box, CLU_WIRE_PUSH, 1, 3, 2, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, CLU_E_LOST), 1);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 2);
    tell(&box, CLU_WIRE_BEGIN, 0, 9);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_BEGIN, CLU_E_LOST), 1);
    born = 10;
    tell(&box, CLU_WIRE_HELLO, 1, 0);
    tell(&box, CLU_WIRE_BEGIN, 0, 4); /* another shard had got as far as that */
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_BEGIN, 0), 1);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 4);
    CU_ASSERT_EQUAL(emb_shard_step(box.rows), 4);
    tell(&box, CLU_WIRE_BEGIN, 0, 4);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_BEGIN, 0), 2);
    box.n_replies = 0;
    ask(&box, CLU_WIRE_PULL, 0, 6, 1, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 1);
    ask(&box, CLU_WIRE_PULL, 1, 7, 2, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 1); /* the bound holds */
    ask(&box, CLU_WIRE_PUSH, 0, 5, 1, 0);
    ask(&box, CLU_WIRE_PUSH, 1, 5, 2, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PUSH, 0), 2);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_PULL, 0), 2);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 5);
    box_close(&box);
}

static void test_a_step_that_is_whole_is_stored_before_the_next_group_is_greeted(void)
{
    struct box box;
    box_open(&box, 1);
    fault_of_100 = 100;
    fault_status = CLU_E_FULL;
    ask(&box, CLU_WIRE_PUSH, 0, 1, 1, 0);
    ask(&box, CLU_WIRE_PUSH, 1, 1, 2, 0);
    born = 10;
    tell(&box, CLU_WIRE_HELLO, 0, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_HELLO, CLU_E_AGAIN), 1);
    fault_of_100 = 0;
    psv_shard_tick(box.shard, 5000);
    CU_ASSERT_EQUAL(psv_shard_applied(box.shard), 1);
    tell(&box, CLU_WIRE_HELLO, 0, 0);
    CU_ASSERT_EQUAL(count(&box, CLU_WIRE_HELLO, 0), 1);
    box_close(&box);
}

SUITE("ps.shard", T(test_a_new_group_of_workers_goes_on_where_the_dead_one_left),
      T(test_a_step_that_is_whole_is_stored_before_the_next_group_is_greeted),
      T(test_a_pull_is_held_exactly_as_long_as_the_bound_says),
      T(test_a_push_again_is_acknowledged_where_it_came_from_last),
      T(test_what_waits_is_bounded_and_ends_at_its_deadline),
      T(test_coded_keys_are_the_same_keys_and_cut_ones_are_refused),
      T(test_bytes_of_held_requests_are_bounded_too),
      T(test_storage_that_fails_is_tried_again_and_no_gradient_counts_twice),
      T(test_full_storage_is_told_to_those_who_wait), T(test_a_damaged_store_ends_the_job),
      T(test_an_earlier_start_of_a_rank_is_refused))

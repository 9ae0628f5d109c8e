/* Buckets move while pulls and pushes go on: the promises of ps/shard_move.c, first with two minds
 * and no socket, then with a server, its clients and every staleness, rows compared with a run in
 * which nothing moves. */
#include "embeddings/shard.h"
#include "ps/restore.h"
#include "ps/shard.h"
#include "tests/ps/rig.h"

enum { DIM = 4, MAX_REPLIES = 64, BUCKET = 77, N_KEYS = 5 };

/* ---- two minds ---- */

struct mind {
    struct emb_shard *rows;
    struct psv_shard *shard;
    int n_replies;
    struct {
        int op, status;
        uint64_t seq;
        float rows[N_KEYS * DIM];
    } reply[MAX_REPLIES];
};

struct minds {
    char dir[128], move_root[160];
    struct emb_table_spec table;
    struct clu_bucket_map map;
    uint64_t keys[N_KEYS]; /* all in BUCKET */
    struct mind mind[2];
};

static int take(void *context, struct clu_message *message)
{
    struct mind *mind = context;
    struct clu_wire_reply reply;
    CU_ASSERT_FATAL(mind->n_replies < MAX_REPLIES);
    CU_ASSERT_EQUAL_FATAL(clu_wire_decode_reply(clu_frame_data(&message->frame[0]),
                                                clu_frame_size(&message->frame[0]), &reply),
                          0);
    int i = mind->n_replies++;
    mind->reply[i].op = reply.op;
    mind->reply[i].status = reply.status;
    mind->reply[i].seq = reply.seq;
    if (message->n_frames > 1 && clu_frame_size(&message->frame[1]) <= sizeof(mind->reply[i].rows))
        memcpy(mind->reply[i].rows, clu_frame_data(&message->frame[1]),
               clu_frame_size(&message->frame[1]));
    clu_message_close(message);
    return 0;
}

static void open_mind(struct minds *m, int i, const char *durability)
{
    char dir[200];
    unsigned char owned[CLU_N_BUCKETS / 8];
    struct mind *mind = &m->mind[i];
    snprintf(dir, sizeof(dir), "%s/%d", m->dir, i);
    CU_ASSERT_EQUAL_FATAL(clu_mkdirs(dir), 0);
    struct emb_shard_options rows = {.dir = dir, .map_bytes = 64 << 20};
    emb_durability_by_name(durability, &rows.durability);
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&rows, &m->table, 1, &mind->rows), 0);
    struct psv_origin origin = {.map = &m->map, .first_shard = i, .folder = "", .generation = 1};
    CU_ASSERT_EQUAL_FATAL(
        psv_restore_shard(mind->rows, &origin, 0, rows.durability == EMB_DURABILITY_LOG), 0);
    psv_restore_owned(&m->map, i, owned);
    struct psv_shard_options options = {
        .rows = mind->rows,
        .terms = {.n_ranks = 1, .staleness = 1, .tables = &m->table, .n_tables = 1},
        .number = i,
        .applied = emb_shard_step(mind->rows),
        .owners = m->map.owners,
        .owned = owned,
        .move_root = m->move_root,
        .send = take,
        .context = mind};
    CU_ASSERT_EQUAL_FATAL(psv_shard_create(&options, &mind->shard), 0);
    mind->n_replies = 0;
}

static void close_mind(struct minds *m, int i)
{
    psv_shard_free(m->mind[i].shard);
    emb_shard_close(m->mind[i].rows);
}

static void open_minds(struct minds *m, const char *durability)
{
    static int count;
    memset(m, 0, sizeof(*m));
    snprintf(m->dir, sizeof(m->dir), "%s/sluice-move-%d-%d", P_tmpdir, (int)getpid(), count++);
    snprintf(m->move_root, sizeof(m->move_root), "%s/moving", m->dir);
    clu_remove_tree(m->dir);
    emb_table_spec_init(&m->table);
    snprintf(m->table.name, sizeof(m->table.name), "t");
    m->table.dim = DIM;
    m->table.learning_rate = 0.1;
    clu_map_init(&m->map, 2, 1);
    m->map.shard_of[BUCKET] = 0;
    uint64_t key = 0;
    for (int i = 0; i < N_KEYS; key++)
        if (clu_bucket_of(clu_table_hash("t"), key) == BUCKET)
            m->keys[i++] = key;
    for (int i = 0; i < 2; i++)
        open_mind(m, i, durability);
}

static void close_minds(struct minds *m)
{
    for (int i = 0; i < 2; i++)
        close_mind(m, i);
    clu_remove_tree(m->dir);
}

/* A request of rank 0 to mind i; keys: of a push or pull, NULL for none. */
static void send_to(struct minds *m, int i, int op, uint64_t step, uint32_t owners, uint64_t seq,
                    bool with_keys)
{
    static const unsigned char move[] = {BUCKET, 0, 0, 0, 1, 0};
    bool moves = op >= CLU_WIRE_COLLECT && op <= CLU_WIRE_FORGET;
    struct clu_wire_request header = {.op = op,
                                      .dtype = CLU_WIRE_FP32,
                                      .incarnation = 1,
                                      .seq = seq,
                                      .step = step,
                                      .owners = owners,
                                      .deadline_ms = 1000,
                                      .n_parts = with_keys,
                                      .part = {{0, N_KEYS}},
                                      .text = (const char *)move,
                                      .n_text = moves ? sizeof(move) : 0};
    struct clu_message message;
    float grads[N_KEYS * DIM];
    for (int j = 0; j < N_KEYS * DIM; j++)
        grads[j] = (float)(step + (uint64_t)j) - 3.5f;
    clu_message_init(&message);
    message.peer_size = 1;
    clu_frame_init_size(clu_message_add(&message), clu_wire_request_size(&header));
    clu_wire_encode_request(&header, clu_frame_data(&message.frame[0]));
    if (with_keys)
        clu_frame_init_copy(clu_message_add(&message), m->keys, sizeof(m->keys));
    if (with_keys && op == CLU_WIRE_PUSH)
        clu_frame_init_copy(clu_message_add(&message), grads, sizeof(grads));
    psv_shard_handle(m->mind[i].shard, &message, 0);
    clu_message_close(&message);
    for (int tick = 0; tick < 3; tick++)
        psv_shard_tick(m->mind[i].shard, 0);
}

/* The status of the answer to seq, or 1 when there is none. */
static int answered(const struct mind *mind, int op, uint64_t seq)
{
    int status = 1;
    for (int i = 0; i < mind->n_replies; i++)
        if (mind->reply[i].op == op && mind->reply[i].seq == seq)
            status = mind->reply[i].status;
    return status;
}

static const float *pulled(const struct mind *mind, uint64_t seq)
{
    for (int i = 0; i < mind->n_replies; i++)
        if (mind->reply[i].op == CLU_WIRE_PULL && mind->reply[i].seq == seq)
            return mind->reply[i].rows;
    CU_FAIL_FATAL("no rows came");
    return NULL;
}

static void push_both(struct minds *m, uint64_t step, uint32_t owners, int with_rows)
{
    for (int i = 0; i < 2; i++)
        send_to(m, i, CLU_WIRE_PUSH, step, owners, step, i == with_rows);
}

static bool exists(const struct minds *m, int i, uint32_t count)
{
    struct emb_row row;
    for (int k = 0; k < N_KEYS; k++)
        if (emb_shard_row(m->mind[i].rows, 0, m->keys[k], &row) || row.count != count)
            return false;
    return true;
}

static void test_pulls_are_answered_by_whoever_they_were_split_for(void)
{
    static struct minds m;
    open_minds(&m, "snapshot");
    push_both(&m, 1, 1, 0);
    push_both(&m, 2, 1, 0);
    send_to(&m, 0, CLU_WIRE_COLLECT, 0, 1, 50, false);
    CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_COLLECT, 50), 0);
    /* asked before step 3 is pushed: the release waits for it; a pull of step 5 too */
    send_to(&m, 0, CLU_WIRE_RELEASE, 3, 2, 51, false);
    send_to(&m, 0, CLU_WIRE_PULL, 5, 1, 60, true);
    CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_RELEASE, 51), 1);
    push_both(&m, 3, 1, 0);
    CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_RELEASE, 51), 0);
    CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_PULL, 60), 0);
    /* one who was quicker asks the new owner, by owners it has not heard of */
    send_to(&m, 1, CLU_WIRE_PULL, 5, 2, 61, true);
    CU_ASSERT_EQUAL(answered(&m.mind[1], CLU_WIRE_PULL, 61), 1);
    send_to(&m, 1, CLU_WIRE_ADOPT, 3, 2, 52, false);
    CU_ASSERT_EQUAL(answered(&m.mind[1], CLU_WIRE_ADOPT, 52), 0);
    CU_ASSERT_EQUAL_FATAL(answered(&m.mind[1], CLU_WIRE_PULL, 61), 0);
    CU_ASSERT(
        !memcmp(pulled(&m.mind[0], 60), pulled(&m.mind[1], 61), sizeof(float) * DIM * N_KEYS));
    send_to(&m, 0, CLU_WIRE_ADOPT, 3, 2, 52, false);
    /* a late one, by the old owners, while step 4 is with the new: as of step 3, as it may be */
    push_both(&m, 4, 2, 1);
    send_to(&m, 0, CLU_WIRE_PULL, 5, 1, 62, true);
    CU_ASSERT_EQUAL_FATAL(answered(&m.mind[0], CLU_WIRE_PULL, 62), 0);
    CU_ASSERT(
        !memcmp(pulled(&m.mind[0], 60), pulled(&m.mind[0], 62), sizeof(float) * DIM * N_KEYS));
    CU_ASSERT(exists(&m, 0, 3) && exists(&m, 1, 4));
    send_to(&m, 0, CLU_WIRE_FORGET, 0, 2, 53, false);
    CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_FORGET, 53), 0);
    CU_ASSERT(!exists(&m, 0, 3) && exists(&m, 1, 4));
    close_minds(&m);
}

static void test_what_is_asked_twice_is_done_once(void)
{
    static struct minds m;
    struct psv_shard_stats stats;
    open_minds(&m, "snapshot");
    push_both(&m, 1, 1, 0);
    for (uint64_t again = 0; again < 2; again++) {
        send_to(&m, 0, CLU_WIRE_COLLECT, 0, 1, 50 + again, false);
        CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_COLLECT, 50 + again), 0);
    }
    for (uint64_t again = 0; again < 2; again++) {
        send_to(&m, 0, CLU_WIRE_RELEASE, 1, 2, 60 + again, false);
        CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_RELEASE, 60 + again), 0);
    }
    for (uint64_t again = 0; again < 2; again++)
        for (int i = 0; i < 2; i++) {
            send_to(&m, i, CLU_WIRE_ADOPT, 1, 2, 70 + again, false);
            CU_ASSERT_EQUAL(answered(&m.mind[i], CLU_WIRE_ADOPT, 70 + again), 0);
        }
    push_both(&m, 2, 2, 1);
    for (int i = 0; i < 2; i++) { /* late tries, after the next step */
        send_to(&m, i, CLU_WIRE_RELEASE, 1, 2, 80, false);
        send_to(&m, i, CLU_WIRE_ADOPT, 1, 2, 81, false);
        CU_ASSERT_EQUAL(answered(&m.mind[i], CLU_WIRE_ADOPT, 81), 0);
    }
    CU_ASSERT(exists(&m, 0, 1) && exists(&m, 1, 2));
    psv_shard_stats(m.mind[1].shard, &stats);
    CU_ASSERT_EQUAL(stats.rows_moved_in, N_KEYS);
    for (uint64_t again = 0; again < 2; again++) {
        send_to(&m, 0, CLU_WIRE_FORGET, 0, 2, 90 + again, false);
        CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_FORGET, 90 + again), 0);
    }
    close_minds(&m);
}

static void test_a_push_split_for_other_owners_is_never_applied(void)
{
    static struct minds m;
    open_minds(&m, "snapshot");
    send_to(&m, 1, CLU_WIRE_PUSH, 1, 2, 1, true); /* the owners here are 1 */
    CU_ASSERT_EQUAL(psv_shard_status(m.mind[1].shard), CLU_E_BUG);
    CU_ASSERT(!exists(&m, 1, 1));
    send_to(&m, 0, CLU_WIRE_RELEASE, 5, 9, 60, false); /* nothing was collected */
    for (uint64_t step = 1; step <= 5; step++)
        send_to(&m, 0, CLU_WIRE_PUSH, step, 1, step, true);
    CU_ASSERT_EQUAL(answered(&m.mind[0], CLU_WIRE_RELEASE, 60), CLU_E_NOT_FOUND);
    close_minds(&m);
}

/* A process that died between any two of the steps comes back with what it acknowledged, when rows
 * are logged, and knows which buckets it holds. */
static void test_a_crash_in_between_keeps_what_was_acknowledged(void)
{
    static struct minds m;
    for (int crash_after = 0; crash_after < 3; crash_after++) {
        open_minds(&m, "log");
        push_both(&m, 1, 1, 0);
        send_to(&m, 0, CLU_WIRE_COLLECT, 0, 1, 50, false);
        send_to(&m, 0, CLU_WIRE_RELEASE, 1, 2, 51, false);
        if (crash_after > 0)
            for (int i = 0; i < 2; i++) {
                send_to(&m, i, CLU_WIRE_ADOPT, 1, 2, 52, false);
                CU_ASSERT_EQUAL(answered(&m.mind[i], CLU_WIRE_ADOPT, 52), 0);
            }
        if (crash_after > 1)
            send_to(&m, 0, CLU_WIRE_FORGET, 0, 2, 53, false);
        if (crash_after > 0) {
            m.map.shard_of[BUCKET] = 1;
            m.map.owners = 2;
        }
        for (int i = 0; i < 2; i++) {
            close_mind(&m, i);
            open_mind(&m, i, "log");
        }
        /* by the map of that moment the rows stand where they were acknowledged */
        CU_ASSERT(exists(&m, crash_after > 0, 1));
        CU_ASSERT_EQUAL(exists(&m, 1, 1), crash_after > 0);
        CU_ASSERT_EQUAL(exists(&m, 0, 1), crash_after == 0);
        /* by another map the store is not taken for ours */
        m.map.shard_of[BUCKET] = crash_after > 0 ? 0 : 1;
        for (int i = 0; i < 2; i++) {
            close_mind(&m, i);
            open_mind(&m, i, "log");
            CU_ASSERT_EQUAL(emb_shard_step(m.mind[i].rows), 0);
        }
        close_minds(&m);
    }
}

/* ---- a server and its clients ---- */

enum { STEPS = 40, N_RANKS = 2, N_SHARDS = 4 };

struct world {
    struct rig rig;
    struct psv_client *client[N_RANKS];
    struct rig_batch batch[N_RANKS][STEPS + 4];
    uint64_t pull[N_RANKS][STEPS + 4], push[N_RANKS][STEPS + 4];
    float rows[N_RANKS][STEPS + 4][RIG_N_TABLES][64 * 16]; /* as pulled */
    uint64_t pulled, digest, n_pushed;
};

/* shards 0 and 1 own everything, 2 and 3 nothing yet */
static void open_world(struct world *w, int64_t staleness, const char *durability)
{
    char move_root[200];
    rig_open(&w->rig, N_SHARDS, N_RANKS, staleness, durability);
    CU_ASSERT_EQUAL(psv_server_stop(w->rig.server), 0);
    snprintf(move_root, sizeof(move_root), "%s/moving", w->rig.dir);
    w->rig.options.move_root = move_root;
    CU_ASSERT_EQUAL_FATAL(psv_server_open(&w->rig.options, &w->rig.server), 0);
    w->rig.options.move_root = NULL;
    clu_map_init(&w->rig.map, 1, N_SHARDS);
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        w->rig.map.shard_of[b] = (uint16_t)(b % 2);
    for (int s = 0; s < N_SHARDS; s++)
        snprintf(w->rig.map.endpoint[s], sizeof(w->rig.map.endpoint[s]), "%s",
                 psv_server_endpoint(w->rig.server, s));
    struct psv_origin origin = {.map = &w->rig.map, .folder = "", .generation = 1};
    CU_ASSERT_EQUAL_FATAL(psv_server_restore(w->rig.server, &origin), 0);
    CU_ASSERT_EQUAL_FATAL(psv_server_start(w->rig.server, 0), 0);
    for (int r = 0; r < N_RANKS; r++)
        CU_ASSERT_EQUAL_FATAL(rig_client(&w->rig, r, (uint64_t)r + 5, "fp32", &w->client[r]), 0);
    w->pulled = 0;
}

static void pull_up_to(struct world *w, uint64_t step)
{
    for (; w->pulled < step && w->pulled < STEPS; w->pulled++)
        for (int r = 0; r < N_RANKS; r++) {
            uint64_t s = w->pulled + 1;
            struct psv_part part[RIG_N_TABLES];
            rig_batch(&w->rig, 3, s, r, &w->batch[r][s]);
            for (int t = 0; t < RIG_N_TABLES; t++) {
                part[t] = w->batch[r][s].part[t];
                part[t].rows = w->rows[r][s][t];
            }
            CU_ASSERT_EQUAL_FATAL(
                psv_client_pull(w->client[r], part, RIG_N_TABLES, s, &w->pull[r][s]), 0);
        }
}

static int plan(struct world *w, uint64_t *random, struct psv_move *moves)
{
    int n = 0;
    for (int b = 0; b < CLU_N_BUCKETS; b++) {
        int to = (int)(suite_random(random) % N_SHARDS);
        if (to != w->rig.map.shard_of[b] && suite_random(random) % 2)
            moves[n++] = (struct psv_move){(uint16_t)b, w->rig.map.shard_of[b], (uint16_t)to};
    }
    return n;
}

/* As rank 0 and the others do it at the boundary after step. */
static void move(struct world *w, const struct psv_move *moves, int n, uint64_t step)
{
    uint64_t ticket = 0;
    uint64_t owners = w->rig.map.owners + 1;
    CU_ASSERT_EQUAL_FATAL(psv_client_release(w->client[0], moves, n, step, owners, &ticket), 0);
    for (int i = 0; i < n; i++)
        w->rig.map.shard_of[moves[i].bucket] = moves[i].to;
    w->rig.map.owners = owners;
    if (w->rig.options.staleness >= 0) /* others need not wait for rank 0 */
        CU_ASSERT_EQUAL_FATAL(psv_client_switch(w->client[1], &w->rig.map), 0);
    CU_ASSERT_EQUAL_FATAL(psv_client_wait(w->client[0], ticket, -1), 0);
    CU_ASSERT_EQUAL_FATAL(psv_client_switch(w->client[0], &w->rig.map), 0);
    CU_ASSERT_EQUAL_FATAL(psv_client_adopt(w->client[0], moves, n, step, owners, &ticket), 0);
    CU_ASSERT_EQUAL_FATAL(psv_client_wait(w->client[0], ticket, -1), 0);
    if (w->rig.options.staleness < 0)
        CU_ASSERT_EQUAL_FATAL(psv_client_switch(w->client[1], &w->rig.map), 0);
}

static void train(struct world *w, bool moves_too)
{
    static struct psv_move moves[PSV_MAX_MOVES];
    uint64_t random = suite_seed(), ticket = 0, forget_at = 0;
    int ahead = w->rig.options.staleness < 0 ? 2 : (int)w->rig.options.staleness, n = 0;
    bool collecting = false;
    for (uint64_t step = 1; step <= STEPS; step++) {
        pull_up_to(w, step);
        for (int r = 0; r < N_RANKS; r++)
            CU_ASSERT_EQUAL_FATAL(psv_client_wait(w->client[r], w->pull[r][step], -1), 0);
        for (int r = 0; r < N_RANKS; r++)
            CU_ASSERT_EQUAL_FATAL(psv_client_push(w->client[r], w->batch[r][step].part,
                                                  RIG_N_TABLES, step, &w->push[r][step]),
                                  0);
        pull_up_to(w, step + 1 + (uint64_t)ahead);
        for (int r = 0; r < N_RANKS; r++)
            CU_ASSERT_EQUAL_FATAL(psv_client_wait(w->client[r], w->push[r][step], -1), 0);
        if (!moves_too)
            continue;
        if (!n) {
            n = plan(w, &random, moves);
            CU_ASSERT_EQUAL_FATAL(psv_client_collect(w->client[0], moves, n, &ticket), 0);
            collecting = true;
        } else if (collecting) { /* pushes went on meanwhile */
            uint64_t *collected = NULL;
            CU_ASSERT_EQUAL_FATAL(psv_client_wait_collect(w->client[0], ticket, -1, &collected), 0);
            for (int i = 0; i < n; i++)
                CU_ASSERT(collected[i] > 0);
            free(collected);
            move(w, moves, n, step);
            collecting = false;
            forget_at = step + 1 + (uint64_t)ahead;
        } else if (step >= forget_at) {
            CU_ASSERT_EQUAL_FATAL(
                psv_client_forget(w->client[0], moves, n, w->rig.map.owners, &ticket), 0);
            CU_ASSERT_EQUAL_FATAL(psv_client_wait(w->client[0], ticket, -1), 0);
            n = 0;
        }
    }
}

static void close_world(struct world *w)
{
    for (int r = 0; r < N_RANKS; r++)
        psv_client_close(w->client[r]);
    rig_close(&w->rig);
}

static void run_world(struct world *w, int64_t staleness, const char *durability, bool moves_too)
{
    uint64_t n_rows = 0, n_out = 0;
    memset(w, 0, sizeof(*w));
    open_world(w, staleness, durability);
    train(w, moves_too);
    w->digest = rig_digest(&w->rig, w->client[0], STEPS + 1);
    CU_ASSERT_EQUAL(psv_client_counter(w->client[0], "rows", &n_rows), 0);
    CU_ASSERT_EQUAL(psv_client_counter(w->client[0], "rows_moved_out", &n_out), 0);
    CU_ASSERT_EQUAL(psv_client_counter(w->client[0], "rows_pushed", &w->n_pushed), 0);
    CU_ASSERT(moves_too ? n_out > n_rows : n_out == 0);
    close_world(w);
}

static void test_rows_do_not_show_that_their_buckets_moved(void)
{
    struct world *calm = malloc(sizeof(*calm)), *moved = malloc(sizeof(*moved));
    for (int64_t staleness = 0; staleness < 3; staleness++) {
        const char *durability = staleness == 1 ? "log" : "snapshot";
        run_world(calm, staleness, durability, false);
        run_world(moved, staleness, durability, true);
        CU_ASSERT_EQUAL(calm->digest, moved->digest);
        CU_ASSERT_EQUAL(calm->n_pushed, moved->n_pushed);
        /* this test waits for every push, so each pull sees all there may be to see */
        if (staleness == 0)
            CU_ASSERT(!memcmp(calm->rows, moved->rows, sizeof(calm->rows)));
    }
    free(calm);
    free(moved);
}

static void test_without_a_bound_buckets_move_too(void)
{
    struct world *calm = malloc(sizeof(*calm)), *moved = malloc(sizeof(*moved));
    run_world(calm, -1, "log", false);
    run_world(moved, -1, "log", true);
    CU_ASSERT_EQUAL(calm->n_pushed, moved->n_pushed); /* each once */
    free(calm);
    free(moved);
}

SUITE("ps.move", T(test_pulls_are_answered_by_whoever_they_were_split_for),
      T(test_what_is_asked_twice_is_done_once),
      T(test_a_push_split_for_other_owners_is_never_applied),
      T(test_a_crash_in_between_keeps_what_was_acknowledged),
      T(test_rows_do_not_show_that_their_buckets_moved), T(test_without_a_bound_buckets_move_too))

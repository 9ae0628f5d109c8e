/* Clients and a server over loopback: staleness 0 is exact, for any number of shards and ranks;
 * deadlines, retries and disagreements end in a status.
 */
#include "cluster/wire.h"
#include "tests/ps/rig.h"

struct rank {
    struct rig *rig;
    int rank;
    uint64_t seed, n_steps;
    const char *dtype;
    uint64_t digest; /* of everything after the last step */
    int status;
};

/* pull t, push t, as a worker does it at staleness 0 */
static void *work(void *argument)
{
    struct rank *self = argument;
    struct rig_batch batch, want;
    struct psv_client *client;
    uint64_t pull, push = 0;
    self->status = rig_client(self->rig, self->rank, 1, self->dtype, &client);
    if (self->status)
        return NULL;
    for (uint64_t step = 1; !self->status && step <= self->n_steps; step++) {
        rig_batch(self->rig, self->seed, step, self->rank, &want);
        self->status = psv_client_pull(client, want.part, RIG_N_TABLES, step, &pull);
        if (!self->status)
            self->status = psv_client_wait(client, pull, -1);
        if (!self->status && push)
            self->status = psv_client_wait(client, push, -1);
        rig_batch(self->rig, self->seed, step, self->rank, &batch);
        for (int t = 0; t < RIG_N_TABLES; t++) /* gradients depend on the rows that were pulled */
            for (size_t i = 0; i < batch.part[t].n * (size_t)self->rig->tables[t].dim; i++)
                batch.rows[t][i] += want.rows[t][i];
        if (!self->status)
            self->status = psv_client_push(client, batch.part, RIG_N_TABLES, step, &push);
    }
    if (!self->status)
        self->status = psv_client_wait(client, push, -1);
    if (!self->status)
        self->digest = rig_digest(self->rig, client, self->n_steps + 1);
    psv_client_close(client);
    return NULL;
}

static uint64_t run(uint64_t seed, int n_shards, int n_ranks, uint64_t n_steps, const char *dtype,
                    const char *wire_keys)
{
    struct rig rig;
    struct rank ranks[4];
    pthread_t threads[4];
    rig_open(&rig, n_shards, n_ranks, 0, "snapshot");
    rig.wire_keys = wire_keys;
    for (int r = 0; r < n_ranks; r++) {
        ranks[r] = (struct rank){&rig, r, seed, n_steps, dtype, 0, 0};
        pthread_create(&threads[r], NULL, work, &ranks[r]);
    }
    for (int r = 0; r < n_ranks; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n_ranks; r++) {
        CU_ASSERT_EQUAL(ranks[r].status, 0);
        CU_ASSERT_EQUAL(ranks[r].digest, ranks[0].digest);
    }
    rig_close(&rig);
    return ranks[0].digest;
}

static void test_staleness_0_has_the_same_bits_on_any_number_of_shards(void)
{
    uint64_t seed = suite_seed();
    for (int n_ranks = 1; n_ranks <= 3; n_ranks++) {
        uint64_t one = run(seed, 1, n_ranks, 30, "fp32", "plain");
        CU_ASSERT_EQUAL(run(seed, 2, n_ranks, 30, "fp32", "plain"), one);
        CU_ASSERT_EQUAL(run(seed, 5, n_ranks, 30, "fp32", "plain"), one);
        CU_ASSERT_NOT_EQUAL(run(seed + 1, 2, n_ranks, 30, "fp32", "plain"), one);
    }
}

static void test_bf16_on_the_wire_has_the_same_bits_on_any_number_of_shards(void)
{
    uint64_t seed = suite_seed();
    CU_ASSERT_EQUAL(run(seed, 1, 2, 20, "bf16", "plain"), run(seed, 3, 2, 20, "bf16", "plain"));
}

static void test_delta_coded_keys_have_the_same_bits(void)
{
    uint64_t seed = suite_seed(), plain = run(seed, 2, 2, 20, "fp32", "plain");
    CU_ASSERT_EQUAL(run(seed, 1, 2, 20, "fp32", "delta"), plain);
    CU_ASSERT_EQUAL(run(seed, 3, 2, 20, "fp32", "delta"), plain);
}

static void test_rows_nobody_wrote_have_their_initial_values(void)
{
    struct rig rig;
    struct psv_client *client;
    uint64_t keys[3] = {1, 2, (uint64_t)-3}, ticket = 0;
    float rows[3 * 8], expected[8];
    rig_open(&rig, 3, 1, 0, "snapshot");
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    struct psv_part part = {0, 3, keys, rows};
    CU_ASSERT_EQUAL(psv_client_pull(client, &part, 1, 1, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    for (int i = 0; i < 3; i++) {
        clu_row_init(7, clu_table_hash("user"), keys[i], (float)rig.tables[0].init_range, 8,
                     expected);
        CU_ASSERT(!memcmp(expected, rows + i * 8, sizeof(expected)));
    }
    part.n = 0;
    CU_ASSERT_EQUAL(psv_client_pull(client, &part, 1, 1, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    psv_client_close(client);
    rig_close(&rig);
}

/* more bytes than a piece holds: every row still finds its place */
static void check_large_pull(int n_shards, const char *dtype, const char *wire_keys)
{
    enum { N = 12000, PRIME = 12007 };
    struct psv_client_stats stats;
    struct rig rig;
    struct psv_client *client;
    struct psv_part part[RIG_N_TABLES];
    uint64_t ticket = 0, n_wrong = 0;
    uint64_t *keys = malloc(RIG_N_TABLES * N * sizeof(*keys));
    float *rows = calloc((size_t)RIG_N_TABLES * N * 16, sizeof(*rows));
    bool dense = !strcmp(wire_keys, "delta");
    rig_open(&rig, n_shards, 1, 0, "snapshot");
    rig.wire_keys = wire_keys;
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, dtype, &client), 0);
    for (int t = 0; t < RIG_N_TABLES; t++) {
        for (int i = 0; i < N; i++) /* in no order */
            keys[t * N + i] = dense ? (uint64_t)(i * 7919 % PRIME) : clu_mix((uint64_t)(t * N + i));
        /* tables out of order, the second half as large */
        int table = (t + 1) % RIG_N_TABLES;
        part[t] =
            (struct psv_part){table, t == 1 ? N / 2 : N, keys + t * N, rows + (size_t)t * N * 16};
    }
    CU_ASSERT_EQUAL(psv_client_pull(client, part, RIG_N_TABLES, 1, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    for (int t = 0; t < RIG_N_TABLES; t++) {
        const struct emb_table_spec *table = &rig.tables[part[t].table];
        for (size_t i = 0; i < part[t].n; i++) {
            float expected[16];
            uint16_t half[16];
            clu_row_init(7, clu_table_hash(table->name), part[t].keys[i], (float)table->init_range,
                         table->dim, expected);
            if (!strcmp(dtype, "bf16")) {
                clu_wire_to_bf16(expected, (size_t)table->dim, half);
                clu_wire_from_bf16(half, (size_t)table->dim, expected);
            }
            n_wrong += memcmp(expected, part[t].rows + i * (size_t)table->dim,
                              (size_t)table->dim * sizeof(float)) != 0;
        }
    }
    CU_ASSERT_EQUAL(n_wrong, 0);
    psv_client_stats(client, &stats);
    uint64_t plain_bytes = 5 * N / 2 * sizeof(uint64_t);
    CU_ASSERT(dense ? stats.bytes_sent < plain_bytes / 3 : stats.bytes_sent >= plain_bytes);
    psv_client_close(client);
    rig_close(&rig);
    free(keys);
    free(rows);
}

static void test_a_large_pull_in_pieces_gets_every_row(void)
{
    check_large_pull(1, "fp32", "plain");
    check_large_pull(3, "fp32", "plain");
    check_large_pull(1, "bf16", "plain");
    check_large_pull(2, "bf16", "plain");
    check_large_pull(1, "fp32", "delta");
    check_large_pull(3, "bf16", "delta");
}

static void test_a_pull_waits_for_the_slowest_rank_and_says_for_whom(void)
{
    struct rig rig;
    struct psv_client *client;
    uint64_t key = 1, push = 0, pull = 0, barrier = 0;
    float row[8] = {0};
    rig_open(&rig, 2, 2, 0, "snapshot");
    rig.timeout_ms = 400;
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    struct psv_part part = {0, 1, &key, row};
    CU_ASSERT_EQUAL(psv_client_push(client, &part, 1, 1, &push), 0);
    CU_ASSERT_EQUAL(psv_client_pull(client, &part, 1, 2, &pull), 0);
    CU_ASSERT_EQUAL(psv_client_barrier(client, 1, &barrier), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, pull, 50), CLU_E_AGAIN);
    CU_ASSERT_EQUAL(psv_client_wait(client, pull, -1), CLU_E_TIMEOUT);
    CU_ASSERT_EQUAL(psv_client_wait(client, barrier, -1), CLU_E_TIMEOUT);
    CU_ASSERT_EQUAL(psv_client_wait(client, push, -1), CLU_E_TIMEOUT);
    psv_client_close(client);
    rig_close(&rig);
}

static void test_a_server_that_is_away_is_a_timeout_that_names_it(void)
{
    struct rig rig;
    struct psv_client *client = NULL;
    rig_open(&rig, 1, 1, 0, "snapshot");
    rig.timeout_ms = 300;
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    psv_server_abandon(rig.server);
    uint64_t key = 1, ticket = 0;
    float row[8] = {0};
    struct psv_part part = {0, 1, &key, row};
    CU_ASSERT_EQUAL(psv_client_pull(client, &part, 1, 1, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), CLU_E_TIMEOUT);
    psv_client_close(client);
    CU_ASSERT_EQUAL(rig_client(&rig, 0, 2, "fp32", &client), CLU_E_TIMEOUT);
    clu_transport_free(rig.transport);
    clu_remove_tree(rig.dir);
}

static void *come_back(void *argument)
{
    struct rig *rig = argument;
    usleep(1500 * 1000); /* longer than a request may take */
    CU_ASSERT_EQUAL(psv_server_open(&rig->options, &rig->server), 0);
    CU_ASSERT_EQUAL(psv_server_start(rig->server, 0), 0);
    return NULL;
}

static void test_a_server_that_is_started_again_elsewhere_is_found_by_the_map(void)
{
    struct rig rig;
    struct rig_batch batch;
    struct psv_client *client;
    pthread_t thread;
    uint64_t push, pull;
    rig_open(&rig, 2, 1, 0, "log");
    rig.timeout_ms = 700;
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    rig_batch(&rig, 3, 1, 0, &batch);
    CU_ASSERT_EQUAL(psv_client_push(client, batch.part, RIG_N_TABLES, 1, &push), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, push, -1), 0);
    psv_server_abandon(rig.server);
    struct clu_bucket_map away = rig.map;
    away.endpoint[0][0] = away.endpoint[1][0] = '\0';
    CU_ASSERT_EQUAL(psv_client_remap(client, &away), 0);
    rig_batch(&rig, 3, 2, 0, &batch);
    CU_ASSERT_EQUAL(psv_client_push(client, batch.part, RIG_N_TABLES, 2, &push), 0);
    CU_ASSERT_EQUAL(psv_client_pull(client, batch.part, RIG_N_TABLES, 3, &pull), 0);
    pthread_create(&thread, NULL, come_back, &rig);
    CU_ASSERT_EQUAL(psv_client_wait(client, push, 1000), CLU_E_AGAIN); /* neither done nor late */
    pthread_join(thread, NULL);
    for (int s = 0; s < 2; s++)
        snprintf(rig.map.endpoint[s], sizeof(rig.map.endpoint[s]), "%s",
                 psv_server_endpoint(rig.server, s));
    CU_ASSERT_EQUAL(psv_client_remap(client, &rig.map), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, push, -1), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, pull, -1), 0);
    psv_client_close(client);
    struct psv_client *next; /* a new group */
    uint64_t least, most;
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 2, "fp32", &next), 0);
    psv_client_applied(next, &least, &most);
    CU_ASSERT(least == 2 && most == 2);
    CU_ASSERT_EQUAL(psv_client_begin(next, 7, &push), 0);
    CU_ASSERT_EQUAL(psv_client_wait(next, push, -1), 0);
    CU_ASSERT_EQUAL(psv_client_push(next, batch.part, RIG_N_TABLES, 8, &push), 0);
    CU_ASSERT_EQUAL(psv_client_wait(next, push, -1), 0);
    psv_client_close(next);
    rig_close(&rig);
}

static void test_a_client_of_other_tables_is_refused_with_the_field(void)
{
    struct rig rig;
    struct psv_client *client;
    rig_open(&rig, 1, 1, 0, "snapshot");
    rig.tables[1].learning_rate *= 2;
    CU_ASSERT_EQUAL(rig_client(&rig, 0, 1, "fp32", &client), CLU_E_CONFIG);
    rig.tables[1].learning_rate /= 2;
    rig.options.n_ranks = 2;
    CU_ASSERT_EQUAL(rig_client(&rig, 0, 1, "fp32", &client), CLU_E_CONFIG);
    rig_close(&rig);
}

static void test_a_gradient_that_is_not_finite_ends_in_a_status(void)
{
    struct rig rig;
    struct psv_client *client;
    uint64_t key = 1, ticket = 0;
    float row[8] = {0, 0, 0, 0.0f / 0.0f};
    rig_open(&rig, 1, 1, 0, "snapshot");
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    struct psv_part part = {0, 1, &key, row};
    CU_ASSERT_EQUAL(psv_client_push(client, &part, 1, 1, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), CLU_E_DATA);
    psv_client_close(client);
    CU_ASSERT_EQUAL(psv_server_stop(rig.server), CLU_E_DATA);
    clu_transport_free(rig.transport);
    clu_remove_tree(rig.dir);
}

static void test_a_snapshot_holds_exactly_its_step_and_restores_on_any_shape(void)
{
    struct rig rig, other;
    struct psv_client *client;
    struct rig_batch batch;
    struct psv_file *files = NULL;
    int n_files = 0;
    uint64_t push = 0, snapshot = 0, rows = 0;
    uint64_t n_pushed = 0;
    char dir[256], next[256], path[600];
    rig_open(&rig, 3, 1, 0, "snapshot");
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    for (uint64_t step = 1; step <= 5; step++) {
        rig_batch(&rig, 1, step, 0, &batch);
        CU_ASSERT_EQUAL(psv_client_push(client, batch.part, RIG_N_TABLES, step, &push), 0);
        CU_ASSERT_EQUAL(psv_client_wait(client, push, -1), 0);
    }
    uint64_t digest = rig_digest(&rig, client, 6);
    CU_ASSERT_EQUAL(psv_client_counter(client, "rows", &rows), 0);
    snprintf(dir, sizeof(dir), "%s/snapshot/step-000000000005", rig.dir);
    CU_ASSERT_EQUAL_FATAL(psv_client_snapshot(client, 5, 0, 0, dir, &snapshot), 0);
    rig_batch(&rig, 1, 6, 0, &batch); /* goes on while it is written */
    CU_ASSERT_EQUAL(psv_client_push(client, batch.part, RIG_N_TABLES, 6, &push), 0);
    CU_ASSERT_EQUAL_FATAL(psv_client_wait_snapshot(client, snapshot, -1, &files, &n_files), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, push, -1), 0);
    CU_ASSERT_EQUAL(n_files, 3);
    uint64_t n_rows = 0;
    for (int i = 0; i < n_files; i++) {
        uint64_t size = 0, checksum = 0;
        snprintf(path, sizeof(path), "%s/%s", dir, files[i].name);
        CU_ASSERT_EQUAL(clu_file_checksum(path, &checksum, &size), 0);
        CU_ASSERT(size == files[i].size_bytes && checksum == files[i].checksum);
        n_rows += files[i].n_rows;
    }
    CU_ASSERT_EQUAL(n_rows, rows);
    free(files);
    /* a delta: refused upon what is not held, taken upon the last one before its confirm came */
    snprintf(next, sizeof(next), "%s/snapshot/step-000000000006", rig.dir);
    CU_ASSERT_EQUAL_FATAL(psv_client_snapshot(client, 6, 4, 0, next, &snapshot), 0);
    CU_ASSERT_EQUAL(psv_client_wait_snapshot(client, snapshot, -1, &files, &n_files),
                    CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL_FATAL(psv_client_snapshot(client, 6, 5, 0, next, &snapshot), 0);
    CU_ASSERT_EQUAL_FATAL(psv_client_wait_snapshot(client, snapshot, -1, &files, &n_files), 0);
    n_rows = 0;
    for (int i = 0; i < n_files; i++)
        n_rows += files[i].n_rows;
    free(files);
    for (int t = 0; t < RIG_N_TABLES; t++)
        n_pushed += batch.part[t].n;
    CU_ASSERT_EQUAL(n_rows, n_pushed);
    CU_ASSERT_EQUAL(psv_client_confirm(client, 5), 0);
    CU_ASSERT_NOT_EQUAL(rig_digest(&rig, client, 7), digest);
    psv_client_close(client);
    rig_open(&other, 2, 1, 0, "snapshot");
    CU_ASSERT_EQUAL(psv_server_stop(other.server), 0);
    CU_ASSERT_EQUAL_FATAL(psv_server_open(&other.options, &other.server), 0);
    rig_restore_files(&other, dir, 3, 5);
    CU_ASSERT_EQUAL_FATAL(rig_client(&other, 0, 2, "fp32", &client), 0);
    CU_ASSERT_EQUAL(rig_digest(&other, client, 6), digest);
    psv_client_close(client);
    rig_close(&other);
    rig_close(&rig);
}

static void test_staleness_k_answers_early_and_measures_it(void)
{
    struct rig rig;
    struct psv_client *client[2];
    struct psv_client_stats stats;
    uint64_t key = 1, push[2], ticket = 0;
    float row[8] = {0};
    struct psv_part part = {0, 1, &key, row};
    rig_open(&rig, 1, 2, 2, "snapshot");
    rig.timeout_ms = 500;
    for (int r = 0; r < 2; r++)
        CU_ASSERT_EQUAL_FATAL(rig_client(&rig, r, 1, "fp32", &client[r]), 0);
    /* rank 0 is two steps ahead; step 3 may miss steps 1 and 2, step 4 must see step 1 */
    for (uint64_t step = 1; step <= 2; step++)
        CU_ASSERT_EQUAL(psv_client_push(client[0], &part, 1, step, &push[step - 1]), 0);
    float pulled[8];
    struct psv_part want = {0, 1, &key, pulled};
    CU_ASSERT_EQUAL(psv_client_pull(client[0], &want, 1, 3, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[0], ticket, -1), 0);
    CU_ASSERT_EQUAL(psv_client_pull(client[0], &want, 1, 4, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[0], ticket, 100), CLU_E_AGAIN);
    uint64_t late = 0;
    CU_ASSERT_EQUAL(psv_client_push(client[1], NULL, 0, 1, &late), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[0], ticket, -1), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[1], late, -1), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[0], push[0], -1), 0);
    psv_client_stats(client[0], &stats);
    CU_ASSERT_EQUAL(stats.staleness[2], 2);
    CU_ASSERT_EQUAL(stats.staleness[3], 0);
    CU_ASSERT_EQUAL(psv_client_push(client[1], NULL, 0, 2, &late), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[0], push[1], -1), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client[1], late, -1), 0);
    for (int r = 0; r < 2; r++)
        psv_client_close(client[r]);
    rig_close(&rig);
}

static double pushed_sum(const char *dtype)
{
    enum { N = 100 };
    struct rig rig;
    struct psv_client *client;
    uint64_t key = 5, ticket = 0;
    float gradient[8], row[8];
    rig_open(&rig, 1, 1, 0, "snapshot");
    psv_server_stop(rig.server);
    clu_remove_tree(rig.dir);
    rig.tables[0].optimizer = EMB_SGD;
    rig.tables[0].learning_rate = 1;
    rig.tables[0].init_range = 0;
    CU_ASSERT_EQUAL_FATAL(rig_start(&rig), 0);
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, dtype, &client), 0);
    for (int j = 0; j < 8; j++)
        gradient[j] = 1.0f + 0x1p-9f; /* bf16 has 8 bits: it rounds to 1 */
    struct psv_part part = {0, 1, &key, gradient};
    for (uint64_t step = 1; step <= N; step++) {
        CU_ASSERT_EQUAL(psv_client_push(client, &part, 1, step, &ticket), 0);
        CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    }
    part.rows = row;
    psv_client_close(client); /* looked at without rounding */
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 2, "fp32", &client), 0);
    CU_ASSERT_EQUAL(psv_client_pull(client, &part, 1, N + 1, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    psv_client_close(client);
    rig_close(&rig);
    return -(double)row[3] / N;
}

static void test_error_feedback_loses_no_sum(void)
{
    CU_ASSERT_DOUBLE_EQUAL(pushed_sum("fp32"), 1 + 0x1p-9, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(pushed_sum("bf16"), 1, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(pushed_sum("bf16_feedback"), 1 + 0x1p-9, 1e-4);
}

static void test_async_applies_on_arrival(void)
{
    struct rig rig;
    struct psv_client *client;
    struct rig_batch batch;
    uint64_t ticket = 0, pushed = 0;
    rig_open(&rig, 2, 3, -1, "snapshot"); /* ranks 1 and 2 never show up */
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 1, "fp32", &client), 0);
    for (uint64_t step = 1; step <= 20; step++) {
        rig_batch(&rig, 3, step, 0, &batch);
        CU_ASSERT_EQUAL(psv_client_pull(client, batch.part, RIG_N_TABLES, step, &ticket), 0);
        CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
        rig_batch(&rig, 3, step, 0, &batch);
        for (int t = 0; t < RIG_N_TABLES; t++)
            pushed += batch.part[t].n;
        CU_ASSERT_EQUAL(psv_client_push(client, batch.part, RIG_N_TABLES, step, &ticket), 0);
        CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    }
    uint64_t counted = 0;
    CU_ASSERT_EQUAL(psv_client_counter(client, "rows_pushed", &counted), 0);
    CU_ASSERT_EQUAL(counted, pushed);
    psv_client_close(client);
    rig_close(&rig);
}

SUITE("ps.exchange", T(test_delta_coded_keys_have_the_same_bits),
      T(test_a_server_that_is_started_again_elsewhere_is_found_by_the_map),
      T(test_rows_nobody_wrote_have_their_initial_values),
      T(test_staleness_0_has_the_same_bits_on_any_number_of_shards),
      T(test_bf16_on_the_wire_has_the_same_bits_on_any_number_of_shards),
      T(test_a_large_pull_in_pieces_gets_every_row),
      T(test_a_pull_waits_for_the_slowest_rank_and_says_for_whom),
      T(test_a_server_that_is_away_is_a_timeout_that_names_it),
      T(test_a_client_of_other_tables_is_refused_with_the_field),
      T(test_a_gradient_that_is_not_finite_ends_in_a_status),
      T(test_a_snapshot_holds_exactly_its_step_and_restores_on_any_shape),
      T(test_staleness_k_answers_early_and_measures_it), T(test_error_feedback_loses_no_sum),
      T(test_async_applies_on_arrival))

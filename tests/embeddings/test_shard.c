/* A shard against the model: first the plain truths one by one, then long random runs of everything
 * at once under each durability, memory tight and not, with admission, expiry and both storage
 * types. */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"

#include <math.h>

static struct emb_table_spec small_spec(void)
{
    struct emb_table_spec spec;
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = RIG_DIM;
    spec.seed = 11;
    spec.learning_rate = 0.01;
    return spec;
}

static struct emb_shard *open_shard(const char *dir, const struct emb_table_spec *specs, int n,
                                    enum emb_durability durability, uint64_t memory)
{
    struct emb_shard_options options = {
        .dir = dir, .memory_bytes = memory, .durability = durability};
    struct emb_shard *shard = NULL;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, specs, n, &shard), CLU_OK);
    return shard;
}

static void test_pulls_create_nothing_and_give_initial_values(void)
{
    char dir[256];
    rig_folder(dir, sizeof(dir), "pull");
    struct emb_table_spec spec = small_spec();
    struct emb_shard *shard = open_shard(dir, &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
    uint64_t keys[3] = {5, UINT64_MAX, 5};
    float rows[3 * RIG_DIM], expected[RIG_DIM];
    CU_ASSERT_EQUAL(emb_shard_pull(shard, 0, keys, 3, rows), CLU_OK);
    for (int i = 0; i < 3; i++) {
        clu_row_init(11, clu_table_hash("item"), keys[i], 0.05f, RIG_DIM, expected);
        CU_ASSERT_EQUAL(memcmp(rows + i * RIG_DIM, expected, sizeof(expected)), 0);
    }
    struct emb_table_stats stats;
    emb_shard_table_stats(shard, 0, &stats);
    CU_ASSERT_EQUAL(stats.n_rows, 0);
    emb_shard_close(shard);
    clu_remove_tree(dir);
}

static void test_a_push_that_is_not_finite_changes_nothing(void)
{
    char dir[256];
    rig_folder(dir, sizeof(dir), "nan");
    struct emb_table_spec spec = small_spec();
    struct emb_shard *shard = open_shard(dir, &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
    uint64_t keys[2] = {1, 2};
    float grads[2 * RIG_DIM] = {1};
    grads[RIG_DIM + 3] = NAN;
    CU_ASSERT_EQUAL(emb_shard_push(shard, 0, keys, 2, grads, 1), CLU_E_DATA);
    grads[RIG_DIM + 3] = 0;
    CU_ASSERT_EQUAL(emb_shard_push(shard, 0, keys, 2, grads, 0), CLU_E_DATA);
    struct emb_row row;
    CU_ASSERT_EQUAL(emb_shard_row(shard, 0, 1, &row), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(emb_shard_push(shard, 0, keys, 2, grads, 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_row(shard, 0, 2, &row), CLU_OK);
    CU_ASSERT_EQUAL(row.count, 1);
    emb_shard_close(shard);
    clu_remove_tree(dir);
}

static void test_a_stored_table_refuses_another_shape(void)
{
    char dir[256];
    rig_folder(dir, sizeof(dir), "shape");
    struct emb_table_spec spec = small_spec();
    emb_shard_close(open_shard(dir, &spec, 1, EMB_DURABILITY_SNAPSHOT, 0));
    spec.dim = 4;
    struct emb_shard_options options = {.dir = dir};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL(emb_shard_open(&options, &spec, 1, &shard), CLU_E_CONFIG);
    spec.dim = RIG_DIM;
    spec.optimizer = EMB_SGD;
    CU_ASSERT_EQUAL(emb_shard_open(&options, &spec, 1, &shard), CLU_E_CONFIG);
    clu_remove_tree(dir);
}

/* What a random run holds on to. */
struct run {
    struct emb_shard *shard;
    struct emb_shard_options options;
    struct rig_model now, base, sealed, begun;
    bool has_sealed, running;
    bool is_delta;
    uint64_t base_step, sealed_step, begun_step, random;
    char dir[256], file[300];
    int n_files;
};

static void set_state(struct run *run, const struct rig_model *state)
{
    struct emb_updater updater = run->now.updater;
    run->now = *state;
    run->now.updater = updater;
}

static void check(struct run *run, const char *when)
{
    bool agrees = rig_agrees(run->shard, &run->now);
    if (!agrees)
        printf("  differs after %s at step %llu\n", when, (unsigned long long)run->now.clock);
    CU_ASSERT_TRUE_FATAL(agrees);
    CU_ASSERT_EQUAL(emb_shard_last_seq(run->shard, 7), run->now.clock);
}

static void check_pull(struct run *run)
{
    uint64_t keys[512];
    float rows[512 * RIG_DIM], expected[RIG_DIM];
    uint32_t numbers[512];
    for (int i = 0; i < 512; i++) {
        numbers[i] = (uint32_t)(suite_random(&run->random) % RIG_KEYS);
        keys[i] = rig_key(numbers[i]);
    }
    CU_ASSERT_EQUAL_FATAL(emb_shard_pull(run->shard, 0, keys, 512, rows), CLU_OK);
    bool same = true;
    for (int i = 0; i < 512; i++) {
        rig_pull(&run->now, numbers[i], expected);
        same &= memcmp(expected, rows + i * RIG_DIM, sizeof(expected)) == 0;
    }
    CU_ASSERT_TRUE_FATAL(same);
}

/* The file holds exactly the rows of the state at begin (full), or of those that changed since
 * base. */
static void check_file(struct run *run)
{
    struct emb_snapshot_reader *reader;
    struct emb_row row;
    static uint8_t seen[RIG_KEYS];
    memset(seen, 0, sizeof(seen));
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_reader_open(run->file, &reader), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_reader_info(reader)->step, run->begun_step);
    int status;
    bool right = true;
    while ((status = emb_snapshot_reader_next(reader, &row)) == CLU_OK) {
        uint32_t i = 0;
        while (i < RIG_KEYS && rig_key(i) != row.key)
            i++;
        CU_ASSERT_FATAL(i < RIG_KEYS);
        seen[i] = 1;
        const struct rig_row *expected = &run->begun.row[i];
        if (row.is_tombstone)
            right &= run->is_delta && !rig_exists(&run->begun, i);
        else
            right &= row.count == expected->count && row.last_step == expected->last_step &&
                     memcmp(row.embedding, expected->embedding, sizeof(expected->embedding)) == 0;
    }
    CU_ASSERT_EQUAL(status, CLU_E_NOT_FOUND);
    CU_ASSERT_TRUE_FATAL(right);
    for (uint32_t i = 0; i < RIG_KEYS && right; i++) {
        bool changed = run->begun.row[i].count != run->base.row[i].count ||
                       run->begun.row[i].last_step != run->base.row[i].last_step;
        if (rig_exists(&run->begun, i) && (!run->is_delta || changed))
            right &= seen[i];
    }
    CU_ASSERT_TRUE_FATAL(right);
    emb_snapshot_reader_close(reader);
}

static void begin_snapshot(struct run *run)
{
    run->is_delta = run->base_step > 0 && suite_random(&run->random) % 2;
    snprintf(run->file, sizeof(run->file), "%s/file-%d", run->dir, run->n_files++);
    enum emb_snapshot_kind kind = run->is_delta ? EMB_SNAPSHOT_DELTA : EMB_SNAPSHOT_FULL;
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(run->shard, kind, run->now.clock, run->file),
                          CLU_OK);
    emb_shard_spread(run->shard, (int64_t)(suite_random(&run->random) % 3) * 5000);
    run->begun = run->now;
    run->begun_step = run->now.clock;
    run->running = true;
}

static void advance_snapshot(struct run *run)
{
    struct emb_snapshot_result result;
    int64_t budget = suite_random(&run->random) % 4 == 0 ? INT64_MAX : 200;
    int status = emb_shard_snapshot_advance(run->shard, budget, &result);
    if (status == CLU_E_AGAIN)
        return;
    CU_ASSERT_EQUAL_FATAL(status, CLU_OK);
    run->running = false;
    check_file(run);
    run->sealed = run->begun;
    run->sealed_step = run->begun_step;
    run->has_sealed = true;
    unlink(run->file);
    if (suite_random(&run->random) % 3) {
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_confirm(run->shard, run->sealed_step), CLU_OK);
        run->base = run->sealed;
        run->base_step = run->sealed_step;
        run->has_sealed = false;
    }
}

/* The state a roll-back or restart leaves; a begun snapshot may or may not have sealed before. */
static void roll_back(struct run *run)
{
    bool to_sealed = run->has_sealed && suite_random(&run->random) % 2;
    uint64_t step = to_sealed ? run->sealed_step : run->base_step;
    int status = emb_shard_rollback(run->shard, step);
    run->running = false;
    if (status == CLU_E_NOT_FOUND && to_sealed) { /* folded into one that never finished */
        step = run->base_step;
        to_sealed = false;
        status = emb_shard_rollback(run->shard, step);
    }
    CU_ASSERT_EQUAL_FATAL(status, CLU_OK);
    set_state(run, to_sealed ? &run->sealed : &run->base);
    if (!to_sealed)
        run->has_sealed = false;
    check(run, "roll-back");
}

static void reopen(struct run *run, const struct emb_table_spec *spec)
{
    emb_shard_close(run->shard);
    run->running = false;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&run->options, spec, 1, &run->shard), CLU_OK);
    if (run->options.durability == EMB_DURABILITY_SNAPSHOT) {
        uint64_t step = emb_shard_step(run->shard);
        if (run->has_sealed && step == run->sealed_step) {
            set_state(run, &run->sealed);
        } else if (step == run->base_step) {
            set_state(run, &run->base);
        } else { /* sealed, its file not finished: a state there was, to be left behind */
            CU_ASSERT_EQUAL_FATAL(step, run->begun_step);
            set_state(run, &run->begun);
            CU_ASSERT_EQUAL_FATAL(emb_shard_rollback(run->shard, run->base_step), CLU_OK);
            set_state(run, &run->base);
            run->has_sealed = false;
        }
    }
    if (run->options.memory_bytes == 0) /* else it is read where it is asked for */
        CU_ASSERT_EQUAL(emb_shard_warm_advance(run->shard, INT64_MAX / 2), CLU_OK);
    check(run, "reopening");
}

static void step(struct run *run)
{
    CU_ASSERT_EQUAL_FATAL(rig_step(run->shard, &run->now, &run->random, 400), CLU_OK);
}

static void random_run(const struct emb_table_spec *spec, enum emb_durability durability,
                       uint64_t memory, int n_operations, uint64_t seed)
{
    struct run *run = calloc(1, sizeof(*run));
    char shard_dir[300];
    rig_folder(run->dir, sizeof(run->dir), "run");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", run->dir);
    run->options = (struct emb_shard_options){
        .dir = shard_dir, .memory_bytes = memory, .durability = durability, .map_bytes = 1 << 20};
    run->random = seed;
    run->now.spec = run->base.spec = *spec;
    CU_ASSERT_EQUAL_FATAL(emb_updater_init(&run->now.updater, spec), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&run->options, spec, 1, &run->shard), CLU_OK);
    for (int i = 0; i < n_operations; i++) {
        uint64_t what = suite_random(&run->random) % 100;
        if (what < 60)
            step(run);
        else if (what < 75)
            check_pull(run);
        else if (what < 93 && run->running)
            advance_snapshot(run);
        else if (what < 93)
            begin_snapshot(run);
        else if (what < 96)
            roll_back(run);
        else if (what < 98)
            reopen(run, spec);
        else
            check(run, "steps");
    }
    check(run, "the last step");
    emb_shard_close(run->shard);
    emb_updater_fini(&run->now.updater);
    clu_remove_tree(run->dir);
    free(run);
}

static void random_runs(enum emb_durability durability, uint64_t memory)
{
    uint64_t seed = suite_seed();
    struct emb_table_spec spec = small_spec();
    random_run(&spec, durability, memory, 150, seed);
    spec.expire_steps = 12;
    random_run(&spec, durability, memory, 150, seed + 1);
    spec.min_count = 3;
    spec.optimizer = EMB_ROWWISE_ADAGRAD;
    spec.epsilon = 1e-6;
    random_run(&spec, durability, memory, 150, seed + 2);
    spec.dtype = EMB_BF16;
    spec.optimizer = EMB_FTRL;
    spec.beta1 = 1;
    random_run(&spec, durability, memory, 150, seed + 3);
}

static void test_random_runs_in_ample_memory_agree_with_the_model(void)
{
    random_runs(EMB_DURABILITY_SNAPSHOT, 0);
}

static void test_random_runs_in_tight_memory_agree_with_the_model(void)
{
    random_runs(EMB_DURABILITY_SNAPSHOT, 200 << 10);
}

static void test_random_runs_with_a_log_agree_with_the_model(void)
{
    random_runs(EMB_DURABILITY_LOG, 0);
}

static void test_random_runs_with_a_log_in_tight_memory_agree_with_the_model(void)
{
    random_runs(EMB_DURABILITY_LOG, 200 << 10);
}

static uint64_t resident_bytes(void)
{
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CU_ASSERT_FATAL(file && fscanf(file, "%lu %lu", &size, &resident) == 2);
    fclose(file);
    return (uint64_t)resident * 4096;
}

struct budget_case {
    enum emb_durability durability;
    uint64_t n_rows, budget;
    int dim, batch, rounds;
    bool snapshots; /* one after the other, all the time */
};

/* A slice of a snapshot, or the beginning of the next one. */
static void go_on_with_snapshots(struct emb_shard *shard, const char *path, uint64_t step,
                                 bool *running_p)
{
    struct emb_snapshot_result result;
    if (!*running_p) {
        unlink(path);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(shard, EMB_SNAPSHOT_FULL, step, path),
                              CLU_OK);
        *running_p = true;
        return;
    }
    int status = emb_shard_snapshot_advance(shard, 300, &result);
    if (status == CLU_OK)
        status = emb_shard_snapshot_confirm(shard, result.step);
    else if (status == CLU_E_AGAIN)
        return;
    CU_ASSERT_EQUAL_FATAL(status, CLU_OK);
    *running_p = false;
}

/* Rows beyond memory, pushed and pulled in turn: resident bytes are measured from outside, and
 * every row comes back as it was. */
static void keeps_to_the_budget(const struct budget_case *c)
{
    const size_t dim = (size_t)c->dim, batch = (size_t)c->batch;
    float *grads = calloc(batch * dim, sizeof(float)), *rows = calloc(batch * dim, sizeof(float));
    uint64_t *keys = calloc(batch, sizeof(*keys)), random = suite_seed(), worst = 0;
    char dir[256], shard_dir[300], path[300];
    rig_folder(dir, sizeof(dir), "budget");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    struct emb_table_spec spec = small_spec();
    spec.dim = c->dim;
    spec.optimizer = EMB_SGD;
    spec.learning_rate = 1;
    spec.init_range = 0;
    struct emb_shard_options options = {
        .dir = shard_dir, .memory_bytes = c->budget, .durability = c->durability};
    bool running = false;
    uint64_t before = resident_bytes();
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    for (uint64_t step = 1; step <= (uint64_t)c->rounds * c->n_rows / batch; step++) {
        for (size_t i = 0; i < batch; i++) {
            keys[i] = (step * batch + i) % c->n_rows;
            for (size_t j = 0; j < dim; j++)
                grads[i * dim + j] = -(float)(keys[i] % 100);
        }
        CU_ASSERT_EQUAL_FATAL(emb_shard_push(shard, 0, keys, batch, grads, step), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_tick(shard, step), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_commit(shard), CLU_OK);
        if (c->snapshots)
            go_on_with_snapshots(shard, path, step, &running);
        if (step > 20) { /* the first ones touch code, stacks and buffers */
            uint64_t now = resident_bytes();
            worst = now > before + worst ? now - before : worst;
        }
    }
    struct emb_table_stats stats;
    emb_shard_table_stats(shard, 0, &stats);
    printf("  %.1f MiB resident of %.1f allowed, %llu of %llu rows in memory\n",
           (double)worst / (1 << 20), (double)c->budget / (1 << 20),
           (unsigned long long)stats.n_resident, (unsigned long long)stats.n_rows);
    CU_ASSERT(stats.n_rows == c->n_rows && stats.n_resident < c->n_rows);
    CU_ASSERT(stats.n_evicted > c->n_rows);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they take memory too */
    /* what the running snapshot has not written yet, and versions kept for it, stay until it has */
    CU_ASSERT(worst < (c->snapshots ? 3 * c->budget : c->budget)); /* unbounded: 43 MiB */
#endif
    bool right = true;
    for (int i = 0; i < 50; i++) {
        for (size_t k = 0; k < batch; k++)
            keys[k] = suite_random(&random) % c->n_rows;
        CU_ASSERT_EQUAL_FATAL(emb_shard_pull(shard, 0, keys, batch, rows), CLU_OK);
        for (size_t k = 0; k < batch; k++)
            right &= rows[k * dim] == (float)c->rounds * (float)(keys[k] % 100);
    }
    CU_ASSERT_TRUE(right);
    emb_shard_close(shard);
    clu_remove_tree(dir);
    free(keys);
    free(rows);
    free(grads);
}

static void test_a_table_three_times_its_memory_keeps_to_the_budget(void)
{
    for (int log = 0; log < 2; log++)
        keeps_to_the_budget(
            &(struct budget_case){.durability = log ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT,
                                  .n_rows = 150000,
                                  .budget = 8 << 20,
                                  .dim = 32,
                                  .batch = 1000,
                                  .rounds = 3});
}

/* So few rows that no flush is worth it but for the memory they take. */
static void test_a_table_of_few_large_rows_keeps_to_the_budget(void)
{
    for (int log = 0; log < 2; log++)
        keeps_to_the_budget(
            &(struct budget_case){.durability = log ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT,
                                  .n_rows = 4000,
                                  .budget = 8 << 20,
                                  .dim = 1024,
                                  .batch = 40,
                                  .rounds = 4});
}

/* What becomes dirty while a snapshot is written is written too, and what its file's thread reads
 * is not kept: it is bounded even where pushes leave it no time. */
static void test_memory_is_bounded_while_snapshots_are_written(void)
{
    for (int log = 0; log < 2; log++)
        keeps_to_the_budget(
            &(struct budget_case){.durability = log ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT,
                                  .n_rows = 200000,
                                  .budget = 10 << 20,
                                  .dim = 32,
                                  .batch = 500,
                                  .rounds = 4,
                                  .snapshots = true});
}

/* The log names tables by what is stored, not by their place in a list. */
static void test_a_log_is_replayed_whatever_the_order_of_the_tables(void)
{
    char dir[256];
    rig_folder(dir, sizeof(dir), "order");
    struct emb_table_spec specs[2] = {small_spec(), small_spec()}, turned[2];
    snprintf(specs[1].name, sizeof(specs[1].name), "user");
    specs[1].dim = 3;
    turned[0] = specs[1];
    turned[1] = specs[0];
    struct emb_shard *shard = open_shard(dir, specs, 2, EMB_DURABILITY_LOG, 0);
    uint64_t key = 9;
    float grad[RIG_DIM] = {1, 2, 3};
    CU_ASSERT_EQUAL(emb_shard_push(shard, 0, &key, 1, grad, 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_push(shard, 1, &key, 1, grad, 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_push(shard, 1, &key, 1, grad, 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_commit(shard), CLU_OK);
    emb_shard_close(shard);
    shard = open_shard(dir, turned, 2, EMB_DURABILITY_LOG, 0);
    struct emb_row row;
    CU_ASSERT_EQUAL_FATAL(emb_shard_row(shard, 0, key, &row), CLU_OK);
    CU_ASSERT(row.dim == 3 && row.count == 2);
    CU_ASSERT_EQUAL_FATAL(emb_shard_row(shard, 1, key, &row), CLU_OK);
    CU_ASSERT(row.dim == RIG_DIM && row.count == 1);
    emb_shard_close(shard);
    clu_remove_tree(dir);
}

static bool first_half(uint32_t bucket, void *arg)
{
    (void)arg;
    return bucket < CLU_N_BUCKETS / 2;
}

static bool second_half(uint32_t bucket, void *arg)
{
    return !first_half(bucket, arg);
}

static int count_row(const struct emb_row *row, void *arg)
{
    (void)row;
    ++*(uint64_t *)arg;
    return CLU_OK;
}

static uint64_t digest_of(const char *path)
{
    uint64_t digest = 0;
    CU_ASSERT_EQUAL(emb_snapshot_digest(path, &digest), CLU_OK);
    return digest;
}

/* One shard's files split over two shards, and joined again: the same digest, and the same future.
 * */
static void test_a_snapshot_loads_on_any_number_of_shards(void)
{
    char dir[256], path[6][300];
    uint64_t random = suite_seed();
    rig_folder(dir, sizeof(dir), "load");
    for (int i = 0; i < 6; i++)
        snprintf(path[i], sizeof(path[i]), "%s/%d", dir, i);
    struct emb_table_spec spec = small_spec();
    struct rig_model *model = calloc(1, sizeof(*model));
    model->spec = spec;
    emb_updater_init(&model->updater, &spec);
    struct emb_shard *one = open_shard(path[0], &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
    for (int i = 0; i < 20; i++)
        CU_ASSERT_EQUAL_FATAL(rig_step(one, model, &random, 500), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot(one, 20, path[1], NULL), CLU_OK);
    const char *files[] = {path[1]};
    struct emb_shard *half[2];
    uint64_t sum = 0, n_rows = 0;
    const char *parts[2] = {path[4], path[5]};
    for (int i = 0; i < 2; i++) {
        half[i] = open_shard(path[2 + i], &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
        CU_ASSERT_EQUAL_FATAL(emb_shard_load(half[i], files, 1, i ? second_half : first_half, NULL),
                              CLU_OK);
        CU_ASSERT_EQUAL(emb_shard_step(half[i]), 20);
        CU_ASSERT_EQUAL(emb_shard_each(half[i], NULL, count_row, &n_rows), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot(half[i], 20, parts[i], NULL), CLU_OK);
        sum += digest_of(parts[i]);
    }
    uint64_t n_first = 0;
    CU_ASSERT_EQUAL(emb_shard_each(one, NULL, count_row, &n_first), CLU_OK);
    CU_ASSERT_EQUAL(n_rows, n_first);
    CU_ASSERT_EQUAL(sum, digest_of(path[1]));
    CU_ASSERT_EQUAL(emb_shard_load(half[0], parts, 2, NULL, NULL), CLU_E_EXISTS);
    CU_ASSERT_EQUAL(emb_shard_reset(half[0]), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_load(half[0], parts, 2, NULL, NULL), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(half[0], model));
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL_FATAL(rig_step(half[0], model, &random, 500), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(half[0], model));
    emb_shard_close(one);
    emb_shard_close(half[0]);
    emb_shard_close(half[1]);
    emb_updater_fini(&model->updater);
    free(model);
    clu_remove_tree(dir);
}

/* Full at 10, delta at 15 and at 20, with expiry: rows that went must not come back. */
static void test_deltas_load_on_their_base_and_bury_what_expired(void)
{
    char dir[256], path[5][300];
    uint64_t random = suite_seed();
    rig_folder(dir, sizeof(dir), "delta");
    for (int i = 0; i < 5; i++)
        snprintf(path[i], sizeof(path[i]), "%s/%d", dir, i);
    struct emb_table_spec spec = small_spec();
    spec.expire_steps = 4;
    spec.min_count = 2;
    struct rig_model *model = calloc(1, sizeof(*model));
    model->spec = spec;
    emb_updater_init(&model->updater, &spec);
    struct emb_shard *shard = open_shard(path[0], &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
    const uint64_t steps[3] = {10, 15, 20};
    uint64_t n_tombstones = 0;
    for (int s = 0; s < 3; s++) {
        while (model->clock < steps[s])
            CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 300), CLU_OK);
        struct emb_snapshot_result result;
        enum emb_snapshot_kind kind = s ? EMB_SNAPSHOT_DELTA : EMB_SNAPSHOT_FULL;
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(shard, kind, steps[s], path[1 + s]), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_advance(shard, INT64_MAX, &result), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_confirm(shard, steps[s]), CLU_OK);
        n_tombstones += result.n_tombstones;
    }
    CU_ASSERT(n_tombstones > 0);
    struct emb_shard *loaded = open_shard(path[4], &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
    const char *incomplete[] = {path[1], path[3]}, *files[] = {path[3], path[1], path[2]};
    CU_ASSERT_EQUAL(emb_shard_load(loaded, incomplete, 2, NULL, NULL), CLU_E_DATA);
    CU_ASSERT_EQUAL_FATAL(emb_shard_load(loaded, files, 3, NULL, NULL), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(loaded, model));
    for (int i = 0; i < 5; i++) /* waiting keys came along too */
        CU_ASSERT_EQUAL_FATAL(rig_step(loaded, model, &random, 300), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(loaded, model));
    emb_shard_close(shard);
    emb_shard_close(loaded);
    emb_updater_fini(&model->updater);
    free(model);
    clu_remove_tree(dir);
}

static int move_row(const struct emb_row *row, void *arg)
{
    return emb_shard_put(arg, row);
}

static void test_rows_move_from_shard_to_shard(void)
{
    char dir[256], path[2][300];
    uint64_t random = suite_seed();
    rig_folder(dir, sizeof(dir), "move");
    struct emb_table_spec spec = small_spec();
    struct rig_model *model = calloc(1, sizeof(*model));
    model->spec = spec;
    emb_updater_init(&model->updater, &spec);
    struct emb_shard *shard[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%d", dir, i);
        shard[i] = open_shard(path[i], &spec, 1, EMB_DURABILITY_SNAPSHOT, 0);
    }
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL_FATAL(rig_step(shard[0], model, &random, 800), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_each(shard[0], first_half, move_row, shard[1]), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_drop(shard[0], first_half, NULL), CLU_OK);
    uint64_t n = 0;
    CU_ASSERT_EQUAL(emb_shard_each(shard[0], first_half, count_row, &n), CLU_OK);
    CU_ASSERT_EQUAL(n, 0);
    CU_ASSERT_EQUAL(emb_shard_each(shard[0], NULL, move_row, shard[1]), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(shard[1], model));
    emb_shard_close(shard[0]);
    emb_shard_close(shard[1]);
    emb_updater_fini(&model->updater);
    free(model);
    clu_remove_tree(dir);
}

/* Steps from *step_p on, each a push of a thousand keys: every second one new, up to n_keys. */
static void push_many(struct emb_shard *shard, uint64_t *random, uint64_t *step_p, int n_steps,
                      uint64_t *n_keys_p)
{
    enum { N = 1000 };
    static uint64_t keys[N];
    static float grads[N * RIG_DIM];
    for (int s = 0; s < n_steps; s++) {
        uint64_t old = *n_keys_p, step = ++*step_p;
        for (uint64_t i = 0; i < N; i++) {
            uint64_t stride = old / N; /* the old ones of a push differ */
            bool is_new = i % 2 == 0 || stride == 0;
            keys[i] = clu_mix(is_new ? (*n_keys_p)++ : i * stride + suite_random(random) % stride);
        }
        for (int i = 0; i < N * RIG_DIM; i++)
            grads[i] = (float)suite_uniform(random, -1, 1);
        CU_ASSERT_EQUAL_FATAL(emb_shard_push(shard, 0, keys, N, grads, step), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_tick(shard, step), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_commit(shard), CLU_OK);
    }
}

static uint64_t count_of(struct emb_shard *shard)
{
    struct emb_table_stats stats;
    emb_shard_table_stats(shard, 0, &stats);
    return stats.n_rows;
}

static bool every_fifth_bucket(uint32_t bucket, void *arg)
{
    return bucket % 5 == *(uint32_t *)arg;
}

/* A shard under a log keeps nothing at its end that a killed one would not have: closing and
 * opening it is a crash as far as counts go. Between two such ends rows are created and written
 * back, dropped and created again, with checkpoints and snapshots running or given up. */
static void test_rows_are_counted_right_after_a_restart_in_tight_memory(void)
{
    char dir[256], path[300];
    rig_folder(dir, sizeof(dir), "count");
    snprintf(path, sizeof(path), "%s/shard", dir);
    struct emb_table_spec spec = small_spec();
    struct emb_shard_options options = {
        .dir = path, .memory_bytes = 2 << 20, .durability = EMB_DURABILITY_LOG};
    uint64_t random = suite_seed(), step = 0, n_keys = 0, n_written = 0;
    for (uint32_t life = 0; life < 8; life++) {
        struct emb_shard *shard = NULL;
        struct emb_shard_stats stats;
        struct emb_snapshot_result result;
        char file[300];
        options.log_bytes = life % 2 ? 2 << 20 : 0; /* checkpoints, or none */
        CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
        CU_ASSERT_EQUAL(count_of(shard), rig_count(shard));
        push_many(shard, &random, &step, 15, &n_keys);
        if (life % 3 == 1) {
            snprintf(file, sizeof(file), "%s/%u", dir, life);
            CU_ASSERT_EQUAL(emb_shard_snapshot_begin(shard, EMB_SNAPSHOT_FULL, step, file), CLU_OK);
            push_many(shard, &random, &step, 2, &n_keys);
            int status = emb_shard_snapshot_advance(shard, 1000, &result);
            push_many(shard, &random, &step, 2, &n_keys);
            if (status == CLU_E_AGAIN && life % 2)
                emb_shard_snapshot_abort(shard);
            else if (status == CLU_E_AGAIN)
                status = emb_shard_snapshot_advance(shard, INT64_MAX, &result);
            CU_ASSERT(status == CLU_OK || (status == CLU_E_AGAIN && life % 2));
            push_many(shard, &random, &step, 5, &n_keys);
        }
        if (life % 3 == 2)
            CU_ASSERT_EQUAL(emb_shard_drop(shard, every_fifth_bucket, &(uint32_t){life % 5}),
                            CLU_OK);
        push_many(shard, &random, &step, 8, &n_keys);
        CU_ASSERT_EQUAL(count_of(shard), rig_count(shard));
        emb_shard_stats(shard, &stats);
        n_written += stats.written_bytes;
        CU_ASSERT(stats.n_resident < stats.n_rows);
        emb_shard_close(shard);
    }
    printf("  %llu keys, %llu MB written\n", (unsigned long long)n_keys,
           (unsigned long long)n_written >> 20);
    clu_remove_tree(dir);
}

/* A table that is wholly in memory is so again after going back: nothing is looked for on disk. */
static void test_going_back_leaves_all_rows_in_memory(void)
{
    enum { N = 4000, DIM = 8 };
    char dir[256], path[300];
    struct emb_table_spec spec;
    struct emb_shard *shard;
    struct emb_table_stats before, after;
    static uint64_t keys[2 * N];
    static float grads[2 * N * DIM], at_snapshot[N * DIM], rows[2 * N * DIM];
    uint64_t random = suite_seed();
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = DIM;
    for (int i = 0; i < 2 * N; i++)
        keys[i] = rig_key((uint32_t)i);
    for (int i = 0; i < 2 * N * DIM; i++)
        grads[i] = (float)suite_uniform(&random, -1, 1);
    rig_folder(dir, sizeof(dir), "back");
    snprintf(path, sizeof(path), "%s/rows", dir);
    struct emb_shard_options options = {.dir = dir};
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_push(shard, 0, keys, N, grads, 1), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_tick(shard, 1), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot(shard, 1, path, NULL), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_pull(shard, 0, keys, N, at_snapshot), CLU_OK);
    /* half of the old rows change, as many are new */
    CU_ASSERT_EQUAL_FATAL(emb_shard_push(shard, 0, keys + N / 2, N, grads, 2), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_tick(shard, 2), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_commit(shard), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_rollback(shard, 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_warm_advance(shard, INT64_MAX / 2), CLU_OK);
    emb_shard_table_stats(shard, 0, &before);
    CU_ASSERT_EQUAL(before.n_rows, N);
    CU_ASSERT_EQUAL(before.n_resident, N);
    CU_ASSERT_EQUAL_FATAL(emb_shard_pull(shard, 0, keys, 2 * N, rows), CLU_OK);
    CU_ASSERT_EQUAL(memcmp(rows, at_snapshot, sizeof(at_snapshot)), 0);
    emb_shard_table_stats(shard, 0, &after);
    CU_ASSERT_EQUAL(after.n_missed, before.n_missed);
    emb_shard_close(shard);
    clu_remove_tree(dir);
}

SUITE("embeddings.shard", T(test_pulls_create_nothing_and_give_initial_values),
      T(test_a_push_that_is_not_finite_changes_nothing),
      T(test_a_stored_table_refuses_another_shape),
      T(test_random_runs_in_ample_memory_agree_with_the_model),
      T(test_random_runs_in_tight_memory_agree_with_the_model),
      T(test_random_runs_with_a_log_agree_with_the_model),
      T(test_random_runs_with_a_log_in_tight_memory_agree_with_the_model),
      T(test_a_table_three_times_its_memory_keeps_to_the_budget),
      T(test_a_table_of_few_large_rows_keeps_to_the_budget),
      T(test_memory_is_bounded_while_snapshots_are_written),
      T(test_a_log_is_replayed_whatever_the_order_of_the_tables),
      T(test_a_snapshot_loads_on_any_number_of_shards),
      T(test_deltas_load_on_their_base_and_bury_what_expired),
      T(test_rows_are_counted_right_after_a_restart_in_tight_memory),
      T(test_rows_move_from_shard_to_shard), T(test_going_back_leaves_all_rows_in_memory))

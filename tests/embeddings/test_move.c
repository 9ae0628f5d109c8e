/* Buckets move from shard to shard and back while both serve, under each durability and in tight
 * memory: every row is where its bucket's owner is and nowhere else, as the model has it, also
 * after both were closed and opened again. */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"

enum { GROUPS = 8, STEPS = 60, A_STEP = 400 };

struct pair {
    char dir[2][300];
    struct emb_shard_options options[2];
    struct emb_shard *shard[2];
    struct rig_model *model;
    int owner[GROUPS]; /* of buckets with this number mod GROUPS */
    uint64_t random;
};

static int group_of(const struct pair *pair, uint64_t key)
{
    return (int)(clu_bucket_of(clu_table_hash(pair->model->spec.name), key) % GROUPS);
}

static bool in_group(uint32_t bucket, void *arg)
{
    return (int)(bucket % GROUPS) == *(int *)arg;
}

static void open_both(struct pair *pair)
{
    for (int i = 0; i < 2; i++)
        CU_ASSERT_EQUAL_FATAL(
            emb_shard_open(&pair->options[i], &pair->model->spec, 1, &pair->shard[i]), CLU_OK);
}

static void close_both(struct pair *pair)
{
    for (int i = 0; i < 2; i++)
        emb_shard_close(pair->shard[i]);
}

static bool is_right(const struct pair *pair)
{
    for (uint32_t i = 0; i < RIG_KEYS; i++) {
        const int owner = pair->owner[group_of(pair, rig_key(i))];
        const struct rig_row *expected = &pair->model->row[i];
        struct emb_row row;
        int status = emb_shard_row(pair->shard[owner], 0, rig_key(i), &row);
        bool exists = rig_exists(pair->model, i);
        if (status != (exists ? CLU_OK : CLU_E_NOT_FOUND) ||
            emb_shard_row(pair->shard[!owner], 0, rig_key(i), &row) != CLU_E_NOT_FOUND) {
            printf("  key %u: %s, the model says %s\n", i, clu_status_name(status),
                   exists ? "there" : "not there");
            return false;
        }
        if (!exists)
            continue;
        emb_shard_row(pair->shard[owner], 0, rig_key(i), &row);
        if (row.count != expected->count || row.last_step != expected->last_step ||
            memcmp(row.embedding, expected->embedding, 4 * (size_t)row.dim) != 0 ||
            memcmp(row.state, expected->state, 4 * (size_t)row.n_state) != 0) {
            printf("  key %u: count %u and %u, last step %u and %u\n", i, row.count,
                   expected->count, row.last_step, expected->last_step);
            return false;
        }
    }
    return true;
}

struct arriving {
    struct emb_shard *shard;
    int budget; /* rows until the visitor wants a break */
};

static int arrive(const struct emb_row *row, void *arg)
{
    struct arriving *a = arg;
    int status = emb_shard_put(a->shard, row);
    return status ? status : --a->budget > 0 ? CLU_OK : CLU_E_AGAIN;
}

static int arrive_waiting(int table, uint64_t key, uint32_t count, void *arg)
{
    return emb_shard_put_waiting(arg, table, key, count);
}

/* A step's pushes, one by one; those to the moving group wait for the end of the move. */
struct step {
    uint32_t numbers[RIG_KEYS];
    float grads[RIG_KEYS * RIG_DIM];
    size_t n, at;
    uint64_t number;
};

static void push_one(struct pair *pair, const struct step *step, size_t i)
{
    uint64_t key = rig_key(step->numbers[i]);
    struct emb_shard *shard = pair->shard[pair->owner[group_of(pair, key)]];
    CU_ASSERT_EQUAL_FATAL(
        emb_shard_push(shard, 0, &key, 1, step->grads + i * RIG_DIM, step->number), CLU_OK);
    rig_push(pair->model, step->numbers[i], step->grads + i * RIG_DIM, step->number);
}

static void move_group(struct pair *pair, struct step *step, int group)
{
    struct emb_shard *from = pair->shard[pair->owner[group]];
    struct arriving arriving = {.shard = pair->shard[!pair->owner[group]]};
    struct emb_move *move;
    int status;
    CU_ASSERT_EQUAL_FATAL(emb_move_begin(from, in_group, &group, &move), CLU_OK);
    do {
        arriving.budget = 1 + (int)(suite_random(&pair->random) % 64);
        status = emb_move_rows(move, 1, arrive, &arriving);
        CU_ASSERT_FATAL(status == CLU_OK || status == CLU_E_AGAIN);
        for (int i = 0; i < 5 && step->at < step->n; i++, step->at++)
            if (group_of(pair, rig_key(step->numbers[step->at])) != group)
                push_one(pair, step, step->at);
        float row[RIG_DIM];
        uint64_t key = rig_key((uint32_t)(suite_random(&pair->random) % RIG_KEYS));
        CU_ASSERT_EQUAL_FATAL(emb_shard_pull(from, 0, &key, 1, row), CLU_OK);
    } while (status);
    CU_ASSERT_EQUAL_FATAL(emb_move_waiting(move, arrive_waiting, arriving.shard), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_commit(arriving.shard), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_move_drop(move), CLU_OK);
    emb_move_end(move);
    CU_ASSERT_EQUAL_FATAL(emb_shard_commit(from), CLU_OK);
    pair->owner[group] = !pair->owner[group];
}

static void one_step(struct pair *pair, bool moves)
{
    static struct step step;
    int group = moves ? (int)(suite_random(&pair->random) % GROUPS) : -1;
    step.number = pair->model->clock + 1;
    step.n = rig_pick(&pair->random, A_STEP, step.numbers);
    step.at = 0;
    for (size_t i = 0; i < step.n * RIG_DIM; i++)
        step.grads[i] = (float)suite_uniform(&pair->random, -1, 1);
    size_t waited = step.n;
    if (moves) {
        move_group(pair, &step, group);
        waited = step.at;
    }
    for (size_t i = 0; i < step.n; i++)
        if (!moves || i >= waited || group_of(pair, rig_key(step.numbers[i])) == group)
            push_one(pair, &step, i);
    for (int i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL_FATAL(emb_shard_mark(pair->shard[i], 7, step.number), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_tick(pair->shard[i], step.number), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_commit(pair->shard[i]), CLU_OK);
    }
    pair->model->clock = step.number;
}

static void run(enum emb_durability durability, uint64_t memory_bytes, enum emb_dtype dtype)
{
    char dir[256];
    struct emb_table_spec spec;
    struct pair pair = {.random = suite_seed(), .model = calloc(1, sizeof(*pair.model))};
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = RIG_DIM;
    spec.learning_rate = 0.01;
    spec.dtype = dtype;
    spec.min_count = 2;
    spec.expire_steps = 15;
    pair.model->spec = spec;
    emb_updater_init(&pair.model->updater, &spec);
    rig_folder(dir, sizeof(dir), "move");
    for (int i = 0; i < 2; i++) {
        snprintf(pair.dir[i], sizeof(pair.dir[i]), "%s/%d", dir, i);
        pair.options[i] = (struct emb_shard_options){.dir = pair.dir[i],
                                                     .memory_bytes = memory_bytes,
                                                     .durability = durability,
                                                     .log_bytes = 200 << 10,
                                                     .cold = memory_bytes > 0};
    }
    open_both(&pair);
    for (int s = 0; s < STEPS; s++) {
        one_step(&pair, s % 4 == 3);
        if (s % 8 != 7)
            continue;
        CU_ASSERT_TRUE_FATAL(is_right(&pair));
        if (durability != EMB_DURABILITY_LOG)
            continue;
        close_both(&pair);
        open_both(&pair);
        CU_ASSERT_TRUE_FATAL(is_right(&pair));
        CU_ASSERT_EQUAL(emb_shard_last_seq(pair.shard[0], 7), pair.model->clock);
    }
    CU_ASSERT_TRUE(is_right(&pair));
    close_both(&pair);
    emb_updater_fini(&pair.model->updater);
    free(pair.model);
    clu_remove_tree(dir);
}

static void test_buckets_move_under_durability_snapshot(void)
{
    run(EMB_DURABILITY_SNAPSHOT, 0, EMB_FP32);
    run(EMB_DURABILITY_SNAPSHOT, 150 << 10, EMB_BF16);
}

static void test_buckets_move_under_durability_log_and_survive_a_restart(void)
{
    run(EMB_DURABILITY_LOG, 0, EMB_BF16);
    run(EMB_DURABILITY_LOG, 150 << 10, EMB_FP32);
}

SUITE("embeddings.move", T(test_buckets_move_under_durability_snapshot),
      T(test_buckets_move_under_durability_log_and_survive_a_restart))

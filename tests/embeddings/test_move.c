/* Buckets move from shard to shard and back while both serve, under each durability and in tight
 * memory: every row is where its bucket's owner is and nowhere else, as the model has it, also
 * after both were closed and opened again. */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"

enum { A_STEP = 400 };

struct pair {
    char dir[2][300];
    struct emb_shard_options options[2];
    struct emb_shard *shard[2];
    struct rig_model *model;
    int owner[CLU_N_BUCKETS];
    uint64_t random;
};

static uint32_t bucket_of(const struct pair *pair, uint64_t key)
{
    return clu_bucket_of(clu_table_hash(pair->model->spec.name), key);
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
        const int owner = pair->owner[bucket_of(pair, rig_key(i))];
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

/* A step's pushes, one by one. */
struct step {
    uint32_t numbers[RIG_KEYS];
    float grads[RIG_KEYS * RIG_DIM];
    size_t n;
    uint64_t number;
};

static void push_one(struct pair *pair, const struct step *step, size_t i)
{
    uint64_t key = rig_key(step->numbers[i]);
    struct emb_shard *shard = pair->shard[pair->owner[bucket_of(pair, key)]];
    CU_ASSERT_EQUAL_FATAL(
        emb_shard_push(shard, 0, &key, 1, step->grads + i * RIG_DIM, step->number), CLU_OK);
    rig_push(pair->model, step->numbers[i], step->grads + i * RIG_DIM, step->number);
}

static void begin(struct pair *pair, char *dir, size_t dir_bytes, enum emb_durability durability,
                  uint64_t memory_bytes, enum emb_dtype dtype)
{
    struct emb_table_spec spec;
    memset(pair, 0, sizeof(*pair));
    pair->random = suite_seed();
    pair->model = calloc(1, sizeof(*pair->model));
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = RIG_DIM;
    spec.learning_rate = 0.01;
    spec.dtype = dtype;
    spec.min_count = 2;
    spec.expire_steps = 15;
    pair->model->spec = spec;
    emb_updater_init(&pair->model->updater, &spec);
    rig_folder(dir, dir_bytes, "move");
    for (int i = 0; i < 2; i++) {
        snprintf(pair->dir[i], sizeof(pair->dir[i]), "%s/%d", dir, i);
        pair->options[i] = (struct emb_shard_options){.dir = pair->dir[i],
                                                      .memory_bytes = memory_bytes,
                                                      .durability = durability,
                                                      .log_bytes = 200 << 10};
    }
    open_both(pair);
}

static void end(struct pair *pair, const char *dir)
{
    CU_ASSERT_TRUE(is_right(pair));
    close_both(pair);
    emb_updater_fini(&pair->model->updater);
    free(pair->model);
    clu_remove_tree(dir);
}

enum { AT_ONCE = 61, N_LEAVING = CLU_N_BUCKETS - 100 };

struct leave {
    uint16_t buckets[N_LEAVING]; /* of shard 0, in the order they go */
    int n_moved, n_forgotten;    /* the first so many */
    bool listed;
    uint8_t moving[CLU_N_BUCKETS];
};

static bool is_moving(uint32_t bucket, void *arg)
{
    return ((struct leave *)arg)->moving[bucket];
}

/* Between two steps: the next buckets that are listed go to shard 1. */
static void move_some(struct pair *pair, struct leave *leave, const char *dir)
{
    char path[300];
    uint64_t n_rows, n_out = 0, n_in = 0;
    int n = 0;
    const uint16_t *first = leave->buckets + leave->n_moved;
    memset(leave->moving, 0, sizeof(leave->moving));
    while (n < AT_ONCE && leave->n_moved + n < N_LEAVING &&
           emb_shard_collected(pair->shard[0], first[n], &n_rows))
        leave->moving[first[n++]] = 1;
    if (!n) { /* those that were listed have moved: list the rest */
        CU_ASSERT_EQUAL_FATAL(emb_shard_collect(pair->shard[0], first, N_LEAVING - leave->n_moved),
                              CLU_OK);
        leave->listed = false;
        return;
    }
    snprintf(path, sizeof(path), "%s/%d.rows", dir, leave->n_moved);
    CU_ASSERT_EQUAL_FATAL(emb_shard_export(pair->shard[0], first, n, path, &n_out), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_adopt(pair->shard[1], path, is_moving, leave, &n_in), CLU_OK);
    CU_ASSERT_EQUAL(n_in, n_out);
    if (leave->n_moved % 2) /* again, as after a failure */
        CU_ASSERT_EQUAL_FATAL(emb_shard_adopt(pair->shard[1], path, is_moving, leave, &n_in),
                              CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_commit(pair->shard[1]), CLU_OK);
    for (int i = 0; i < n; i++)
        pair->owner[first[i]] = 1;
    leave->n_moved += n;
}

/* The process died before the buckets that moved last were forgotten: a restore drops them. */
static void restart_and_drop(struct pair *pair, struct leave *leave)
{
    close_both(pair);
    open_both(pair);
    CU_ASSERT_EQUAL_FATAL(emb_shard_drop(pair->shard[0], is_moving, leave), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_commit(pair->shard[0]), CLU_OK);
    leave->n_forgotten = leave->n_moved;
    leave->listed = true; /* nothing asked for any more: lists went with the process */
    CU_ASSERT_TRUE_FATAL(is_right(pair));
}

static void leave_a_slice(struct pair *pair, struct leave *leave)
{
    if (!leave->listed) {
        int status = emb_shard_collect_advance(pair->shard[0], 1);
        CU_ASSERT_FATAL(status == CLU_OK || status == CLU_E_AGAIN);
        leave->listed = !status;
    } else if (leave->n_forgotten < leave->n_moved) {
        int n = leave->n_moved - leave->n_forgotten;
        int status = emb_shard_forget(pair->shard[0], leave->buckets + leave->n_forgotten, n, 1);
        CU_ASSERT_FATAL(status == CLU_OK || status == CLU_E_AGAIN);
        leave->n_forgotten += status ? 0 : n;
    }
}

static void push_step(struct pair *pair, struct leave *leave)
{
    static struct step step;
    step.number = pair->model->clock + 1;
    step.n = rig_pick(&pair->random, A_STEP, step.numbers);
    for (size_t i = 0; i < step.n * RIG_DIM; i++)
        step.grads[i] = (float)suite_uniform(&pair->random, -1, 1);
    for (size_t i = 0; i < step.n; i++) {
        push_one(pair, &step, i);
        if (i % 32 == 0)
            leave_a_slice(pair, leave);
    }
    for (int i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL_FATAL(emb_shard_tick(pair->shard[i], step.number), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_commit(pair->shard[i]), CLU_OK);
    }
    pair->model->clock = step.number;
}

static void run_leave(enum emb_durability durability, uint64_t memory_bytes, enum emb_dtype dtype)
{
    char dir[256];
    static struct pair pair;
    static struct leave leave;
    uint64_t n_rows;
    begin(&pair, dir, sizeof(dir), durability, memory_bytes, dtype);
    memset(&leave, 0, sizeof(leave));
    for (int i = 0; i < N_LEAVING; i++)
        leave.buckets[i] = (uint16_t)((i * 5 + 3) % CLU_N_BUCKETS);
    leave.listed = true; /* nothing asked for yet */
    for (int s = 0; s < 10; s++)
        push_step(&pair, &leave);
    CU_ASSERT_EQUAL(emb_shard_export(pair.shard[0], leave.buckets, 1, dir, &n_rows),
                    CLU_E_NOT_FOUND);
    for (int s = 0; leave.n_forgotten < N_LEAVING; s++) {
        CU_ASSERT_FATAL(s < 2000);
        push_step(&pair, &leave);
        if (leave.listed && leave.n_forgotten == leave.n_moved && leave.n_moved < N_LEAVING) {
            move_some(&pair, &leave, dir);
            if (durability == EMB_DURABILITY_LOG && leave.n_forgotten < leave.n_moved && s % 3 == 0)
                restart_and_drop(&pair, &leave);
        }
        if (s % 10 || leave.n_forgotten < leave.n_moved)
            continue;
        CU_ASSERT_TRUE_FATAL(is_right(&pair));
        if (durability != EMB_DURABILITY_LOG || s % 30)
            continue;
        close_both(&pair); /* lists go with the process */
        open_both(&pair);
        CU_ASSERT_TRUE_FATAL(is_right(&pair));
        leave.listed = true;
    }
    CU_ASSERT_TRUE_FATAL(is_right(&pair));
    if (durability == EMB_DURABILITY_LOG) {
        close_both(&pair);
        open_both(&pair);
    }
    end(&pair, dir);
}

static void test_buckets_leave_one_after_the_other_while_pushes_go_on(void)
{
    run_leave(EMB_DURABILITY_SNAPSHOT, 0, EMB_FP32);
    run_leave(EMB_DURABILITY_SNAPSHOT, 150 << 10, EMB_FP32);
}

static void test_buckets_that_left_stay_away_after_a_restart(void)
{
    run_leave(EMB_DURABILITY_LOG, 0, EMB_FP32);
    run_leave(EMB_DURABILITY_LOG, 150 << 10, EMB_BF16);
}

SUITE("embeddings.move", T(test_buckets_leave_one_after_the_other_while_pushes_go_on),
      T(test_buckets_that_left_stay_away_after_a_restart))

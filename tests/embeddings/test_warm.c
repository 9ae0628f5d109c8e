/* Rows that are read ahead after the open: a shard serves at once, whatever goes on before the last
 * row is in memory shows in no row, and in the end nothing is looked for on disk any more. */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"

struct life {
    char dir[256], shard[300];
    struct emb_shard_options options;
    struct emb_table_spec spec;
    struct emb_shard *rows;
    struct rig_model model, kept; /* as it is; as of the last snapshot */
    uint64_t random;
    int n_files;
};

static void open_again(struct life *life)
{
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&life->options, &life->spec, 1, &life->rows), CLU_OK);
}

static struct life *create(enum emb_durability durability, uint64_t memory_bytes, uint64_t seed)
{
    struct life *life = calloc(1, sizeof(*life));
    life->random = seed;
    rig_folder(life->dir, sizeof(life->dir), "warm");
    snprintf(life->shard, sizeof(life->shard), "%s/shard", life->dir);
    life->options = (struct emb_shard_options){
        .dir = life->shard, .memory_bytes = memory_bytes, .durability = durability};
    emb_table_spec_init(&life->spec);
    snprintf(life->spec.name, sizeof(life->spec.name), "item");
    life->spec.dim = RIG_DIM;
    return life;
}

static void begin(struct life *life)
{
    life->model.spec = life->spec;
    emb_updater_init(&life->model.updater, &life->spec);
    life->kept = life->model;
    open_again(life);
}

static void end(struct life *life)
{
    emb_shard_close(life->rows);
    emb_updater_fini(&life->model.updater);
    clu_remove_tree(life->dir);
    free(life);
}

static void step(struct life *life)
{
    CU_ASSERT_EQUAL_FATAL(rig_step(life->rows, &life->model, &life->random, 900), CLU_OK);
}

static void snapshot(struct life *life)
{
    char path[300];
    struct emb_snapshot_result result;
    snprintf(path, sizeof(path), "%s/file-%d", life->dir, life->n_files++);
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot(life->rows, life->model.clock, path, &result), CLU_OK);
    life->kept = life->model;
}

static struct emb_table_stats look(struct life *life)
{
    struct emb_table_stats stats;
    emb_shard_table_stats(life->rows, 0, &stats);
    return stats;
}

/* True when a key that nobody pushed is not looked for in LMDB. */
static bool is_all_in_memory(struct life *life)
{
    float row[RIG_DIM];
    uint64_t stranger = clu_mix(1 << 20), missed = look(life).n_missed;
    CU_ASSERT_EQUAL(emb_shard_pull(life->rows, 0, &stranger, 1, row), CLU_OK);
    return look(life).n_missed == missed;
}

/* A shard with a snapshot of 12 steps behind it. */
static struct life *create_seasoned(void)
{
    struct life *life = create(EMB_DURABILITY_SNAPSHOT, 0, suite_seed());
    begin(life);
    for (int i = 0; i < 12; i++)
        step(life);
    snapshot(life);
    return life;
}

static void test_it_serves_at_once_and_reads_the_rest_in_pieces(void)
{
    struct life *life = create_seasoned();
    emb_shard_close(life->rows);
    open_again(life);
    CU_ASSERT_EQUAL(look(life).n_resident, 0);
    CU_ASSERT_FALSE(is_all_in_memory(life));
    step(life);
    CU_ASSERT_TRUE(rig_agrees(life->rows, &life->model));
    int n_calls = 1;
    while (emb_shard_warm_advance(life->rows, 0) == CLU_E_AGAIN)
        n_calls++;
    CU_ASSERT(n_calls > 1);
    CU_ASSERT_EQUAL(look(life).n_resident, look(life).n_rows);
    CU_ASSERT_TRUE(is_all_in_memory(life));
    CU_ASSERT_TRUE(rig_agrees(life->rows, &life->model));
    end(life);
}

/* A roll-back takes rows out of memory that the walk had passed already. */
static void test_a_roll_back_on_the_way_leaves_no_row_out(void)
{
    struct life *life = create_seasoned();
    emb_shard_close(life->rows);
    open_again(life);
    CU_ASSERT_EQUAL(emb_shard_warm_advance(life->rows, 0), CLU_E_AGAIN);
    step(life);
    life->model = life->kept;
    CU_ASSERT_EQUAL(emb_shard_rollback(life->rows, life->kept.clock), CLU_OK);
    while (emb_shard_warm_advance(life->rows, 0) == CLU_E_AGAIN)
        ;
    CU_ASSERT_EQUAL(look(life).n_resident, look(life).n_rows);
    CU_ASSERT_TRUE(is_all_in_memory(life));
    CU_ASSERT_TRUE(rig_agrees(life->rows, &life->model));
    end(life);
}

/* Back without reading; what it took out of memory comes in before any walk, after a second one
 * too. */
static void test_what_a_roll_back_took_is_read_again_first(void)
{
    struct life *life = create_seasoned();
    CU_ASSERT_EQUAL(emb_shard_warm_advance(life->rows, INT64_MAX / 2), CLU_OK);
    for (int i = 0; i < 2; i++) {
        step(life);
        life->model = life->kept;
        CU_ASSERT_EQUAL(emb_shard_rollback(life->rows, life->kept.clock), CLU_OK);
        CU_ASSERT(look(life).n_resident < look(life).n_rows);
        CU_ASSERT_FALSE(is_all_in_memory(life));
    }
    for (int i = 0; i < 2; i++) /* at most twice 900 rows, by 1024; a walk would take 3 */
        (void)emb_shard_warm_advance(life->rows, 0);
    CU_ASSERT_EQUAL(look(life).n_resident, look(life).n_rows);
    CU_ASSERT_TRUE(is_all_in_memory(life));
    CU_ASSERT_TRUE(rig_agrees(life->rows, &life->model));
    end(life);
}

static void go_back(struct life *life)
{
    int status = emb_shard_rollback(life->rows, life->kept.clock);
    CU_ASSERT_TRUE(status == CLU_OK || status == CLU_E_NOT_FOUND); /* a merge may be on */
    if (!status)
        life->model = life->kept;
}

static void start_again(struct life *life)
{
    emb_shard_close(life->rows);
    open_again(life);
    if (life->options.durability == EMB_DURABILITY_SNAPSHOT)
        life->model = life->kept;
}

static void test_whatever_goes_on_meanwhile_shows_in_no_row(void)
{
    const uint64_t seed = suite_seed();
    rig_quiet(true); /* each replay of a log is told */
    for (int run = 0; run < 16; run++) {
        struct life *life = create(run & 1 ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT,
                                   run & 2 ? 400 << 10 : 0, seed + (uint64_t)run);
        life->spec.expire_steps = run & 4 ? 6 : 0;
        life->spec.min_count = run & 8 ? 2 : 1;
        begin(life);
        for (int i = 0; i < 6; i++)
            step(life);
        snapshot(life);
        for (int i = 0; i < 150; i++) {
            uint64_t dice = suite_random(&life->random) % 16;
            if (dice < 5)
                step(life);
            else if (dice == 5)
                snapshot(life);
            else if (dice == 6 && life->kept.clock)
                go_back(life);
            else if (dice == 7)
                start_again(life);
            else {
                int status = emb_shard_warm_advance(life->rows, 0);
                CU_ASSERT_TRUE(status == CLU_OK || status == CLU_E_AGAIN);
            }
            if (i % 10 == 9 && !rig_agrees(life->rows, &life->model)) {
                CU_FAIL("rows differ");
                break;
            }
        }
        CU_ASSERT_EQUAL(emb_shard_warm_advance(life->rows, INT64_MAX / 2), CLU_OK);
        CU_ASSERT_TRUE(rig_agrees(life->rows, &life->model));
        end(life);
    }
    rig_quiet(false);
}

SUITE("embeddings.warm", T(test_it_serves_at_once_and_reads_the_rest_in_pieces),
      T(test_a_roll_back_on_the_way_leaves_no_row_out),
      T(test_what_a_roll_back_took_is_read_again_first),
      T(test_whatever_goes_on_meanwhile_shows_in_no_row))

/* From a snapshot to an export: every row arrives, whatever the number of files; what was never
 * written has its initial value; one digest for the same content; damage is named, and the snapshot
 * before it used. */
#include "tests/suite.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/job.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "embeddings/shard.h"
#include "model/params.h"
#include "worker/export.h"
#include "worker/export_inspect.h"
#include "worker/inspect_tables.h"
#include "worker/state.h"

#include <unistd.h>

enum { N_KEYS = 500, USER_DIM = 4, ITEM_DIM = 6 };

static const struct mdl_config config = {.n_actions = 3,
                                         .history = 5,
                                         .width = 8,
                                         .heads = 2,
                                         .user_dim = USER_DIM,
                                         .item_dim = ITEM_DIM,
                                         .alpha = 1,
                                         .beta = 1,
                                         .gamma = 0.1f};

static char base[128];

static void make_base(void)
{
    snprintf(base, sizeof(base), "/tmp/sluice-export-%ld", (long)getpid());
    clu_remove_tree(base);
    clu_mkdirs(base);
}

static uint64_t key_of(int i)
{
    return clu_mix((uint64_t)i + 1);
}

static void specs_of(struct emb_table_spec specs[2])
{
    static const char *const names[] = {"user", "item"};
    for (int t = 0; t < 2; t++) {
        emb_table_spec_init(&specs[t]);
        snprintf(specs[t].name, sizeof(specs[t].name), "%s", names[t]);
        specs[t].dim = t ? ITEM_DIM : USER_DIM;
        specs[t].seed = 11;
    }
}

/* pushes keys whose bucket is this shard's into a shard of its own and writes its snapshot file */
static void write_shard(const char *folder, int shard_number, int n_shards, uint64_t step)
{
    struct emb_table_spec specs[2];
    specs_of(specs);
    char dir[256], path[CLU_PATH_BYTES + 32];
    snprintf(dir, sizeof(dir), "%s/work-%d-%d", base, n_shards, shard_number);
    snprintf(path, sizeof(path), "%s/rows/shard-%04d.rows", folder, shard_number);
    clu_remove_tree(dir);
    struct emb_shard_options options = {.dir = dir};
    struct emb_shard *shard = NULL;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, specs, 2, &shard), CLU_OK);
    for (int t = 0; t < 2; t++) {
        uint64_t hash = clu_table_hash(specs[t].name);
        for (int i = 0; i < N_KEYS; i++) {
            uint64_t key = key_of(i);
            float grads[ITEM_DIM];
            for (int lane = 0; lane < specs[t].dim; lane++)
                grads[lane] = (float)(i % 7 - 3) + (float)lane * 0.25f;
            if ((int)(clu_bucket_of(hash, key) % (uint32_t)n_shards) != shard_number)
                continue;
            CU_ASSERT_EQUAL(emb_shard_push(shard, t, &key, 1, grads, 1 + (uint64_t)i % step),
                            CLU_OK);
        }
    }
    CU_ASSERT_EQUAL(emb_shard_tick(shard, step), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_commit(shard), CLU_OK);
    struct emb_snapshot_result result;
    CU_ASSERT_EQUAL(emb_shard_snapshot(shard, step, path, &result), CLU_OK);
    emb_shard_close(shard);
    clu_remove_tree(dir);
}

/* best: the best epoch's step that the snapshot knows, 0 for none */
static void write_dense(const char *folder, uint64_t step, uint64_t best)
{
    size_t n = mdl_n_params(&config);
    struct wrk_manifest manifest = {
        .model = "a2gen",
        .read = "exact",
        .config = config,
        .n_actions = 3,
        .action = {"start", "like", "leave"},
        .n_user_columns = 1,
        .n_item_columns = 1,
        .n_tables = 2,
        .user_column = {{"user", "user", USER_DIM, 0}},
        .item_column = {{"item", "item", ITEM_DIM, 0}},
        .table = {{"user", USER_DIM, 0, 11, 0.05}, {"item", ITEM_DIM, 0, 11, 0.05}},
    };
    manifest.data = json_object();
    float *values = calloc(n, sizeof(float));
    mdl_params_init(&config, step, values);
    struct wrk_state state = {.step = step,
                              .batch = step,
                              .seed = 11,
                              .updates = step,
                              .stopping = {2, step, best, 0.5, 0},
                              .config = config,
                              .weights = values,
                              .adam_m = values,
                              .adam_v = values};
    CU_ASSERT_EQUAL(wrk_state_save(folder, &state, &manifest), CLU_OK);
    wrk_manifest_fini(&manifest);
    free(values);
}

static void write_judged(const char *root, uint64_t step, int n_shards, uint64_t best)
{
    char folder[CLU_PATH_BYTES];
    clu_mkdirs(root);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_begin(root, step, folder), CLU_OK);
    for (int s = 0; s < n_shards; s++)
        write_shard(folder, s, n_shards, step);
    write_dense(folder, step, best);
    struct clu_manifest manifest = {.job_id = 1,
                                    .generation = 1,
                                    .step = step,
                                    .n_servers = 1,
                                    .n_shards = n_shards,
                                    .n_workers = 1};
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_commit(root, &manifest, 0), CLU_OK);
}

static void write_snapshot(const char *root, uint64_t step, int n_shards)
{
    write_judged(root, step, n_shards, 0);
}

static void join(char out[256], const char *name)
{
    snprintf(out, 256, "%s/%s", base, name);
}

static int count_row(void *context, uint64_t key, const float *row)
{
    (void)key, (void)row;
    ++*(int *)context;
    return CLU_OK;
}

static void test_every_row_arrives_and_others_have_their_initial_value(void)
{
    char root[256], out[256];
    make_base();
    join(root, "snapshot");
    join(out, "export");
    write_snapshot(root, 3, 3);
    CU_ASSERT_EQUAL_FATAL(wrk_export_create(root, out), CLU_OK);
    struct wrk_export *export = NULL;
    CU_ASSERT_EQUAL_FATAL(wrk_export_open(out, true, &export), CLU_OK);
    CU_ASSERT_EQUAL(wrk_export_manifest(export)->step, 3);
    for (int t = 0; t < 2; t++) {
        int n = 0, dim = wrk_export_manifest(export)->table[t].dim;
        CU_ASSERT_EQUAL(wrk_export_each_row(export, t, count_row, &n), CLU_OK);
        CU_ASSERT_EQUAL(n, N_KEYS);
        CU_ASSERT_EQUAL(wrk_export_manifest(export)->table[t].count, N_KEYS);
        uint64_t keys[2] = {key_of(17), key_of(N_KEYS + 17)};
        float rows[2 * ITEM_DIM], fresh[ITEM_DIM];
        CU_ASSERT_EQUAL(wrk_export_rows(export, t, keys, 2, rows), CLU_OK);
        uint64_t hash = clu_table_hash(wrk_export_manifest(export)->table[t].name);
        clu_row_init(11, hash, keys[0], 0.05f, dim, fresh);
        CU_ASSERT(memcmp(rows, fresh, (size_t)dim * sizeof(float)) != 0); /* it was trained */
        clu_row_init(11, hash, keys[1], 0.05f, dim, fresh);
        CU_ASSERT_EQUAL(memcmp(rows + dim, fresh, (size_t)dim * sizeof(float)), 0);
    }
    wrk_export_close(export);
    clu_remove_tree(base);
}

static void test_the_digest_does_not_know_the_number_of_shards(void)
{
    char one[256], three[256], out_one[256], out_three[256];
    uint64_t a, b, c;
    make_base();
    join(one, "one");
    join(three, "three");
    join(out_one, "export-one");
    join(out_three, "export-three");
    write_snapshot(one, 3, 1);
    write_snapshot(three, 3, 3);
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_digest(one, &a), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_digest(three, &b), CLU_OK);
    CU_ASSERT_EQUAL(a, b);
    CU_ASSERT_EQUAL_FATAL(wrk_export_create(one, out_one), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_export_create(three, out_three), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_digest(out_one, &a), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_digest(out_three, &b), CLU_OK);
    CU_ASSERT_EQUAL(a, b);
    write_snapshot(three, 4, 3); /* another step: other rows, other weights */
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_digest(three, &c), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_digest(one, &a), CLU_OK);
    CU_ASSERT_NOT_EQUAL(a, c);
    clu_remove_tree(base);
}

/* Key i was pushed once, in step 1 + i % step (write_shard). */
static void test_tables_are_told_with_bytes_and_ages(void)
{
    enum { STEP = 9 };
    char root[256], folder[CLU_PATH_BYTES];
    struct wrk_manifest manifest = {0};
    struct wrk_table_figures figures[2];
    make_base();
    join(root, "snapshot");
    write_snapshot(root, STEP, 2);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_resolve(root, folder), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_state_manifest(folder, &manifest), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_inspect_tables(folder, &manifest, STEP, figures), CLU_OK);
    for (int t = 0; t < 2; t++) {
        const uint64_t dim = (uint64_t)manifest.table[t].dim;
        uint64_t n_young = 0;
        for (int i = 0; i < N_KEYS; i++)
            n_young += STEP - (1 + i % STEP) == 0;
        CU_ASSERT_EQUAL(figures[t].n_rows, N_KEYS);
        CU_ASSERT_EQUAL(figures[t].n_updates, N_KEYS);
        CU_ASSERT_EQUAL(figures[t].row_bytes, N_KEYS * (16 + 3 * 4 * dim)); /* adam */
        CU_ASSERT_EQUAL(figures[t].least_age, 0);
        CU_ASSERT_EQUAL(figures[t].most_age, STEP - 1);
        CU_ASSERT_EQUAL(figures[t].by_age[0], n_young);
        CU_ASSERT_EQUAL(wrk_median_age(&figures[t]), 7); /* of 0..8: 4, in the class 4..7 */
    }
    wrk_manifest_fini(&manifest);
    clu_remove_tree(base);
}

static void flip(const char *path, long at)
{
    FILE *stream = fopen(path, "r+b");
    CU_ASSERT_PTR_NOT_NULL_FATAL(stream);
    fseek(stream, at, SEEK_SET);
    int byte = fgetc(stream);
    fseek(stream, at, SEEK_SET);
    fputc(byte ^ 1, stream);
    fclose(stream);
}

static void test_a_damaged_snapshot_gives_way_to_the_one_before(void)
{
    char root[256], out[256], file[512];
    make_base();
    join(root, "snapshot");
    join(out, "export");
    write_snapshot(root, 3, 2);
    write_snapshot(root, 5, 2);
    snprintf(file, sizeof(file), "%s/step-000000000005/rows/shard-0001.rows", root);
    flip(file, 600);
    CU_ASSERT_EQUAL_FATAL(wrk_export_create(root, out), CLU_OK);
    struct wrk_export *export = NULL;
    CU_ASSERT_EQUAL_FATAL(wrk_export_open(out, true, &export), CLU_OK);
    CU_ASSERT_EQUAL(wrk_export_manifest(export)->step, 3);
    wrk_export_close(export);
    snprintf(file, sizeof(file), "%s/step-000000000005", root);
    CU_ASSERT_EQUAL(wrk_export_create(file, out), CLU_E_CORRUPT); /* this one, no other */
    clu_remove_tree(base);
}

static uint64_t exported_step(const char *snapshot)
{
    char out[256];
    struct wrk_export *export = NULL;
    join(out, "export");
    CU_ASSERT_EQUAL_FATAL(wrk_export_create(snapshot, out), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_export_open(out, true, &export), CLU_OK);
    uint64_t step = wrk_export_manifest(export)->step;
    wrk_export_close(export);
    return step;
}

static void test_the_best_epoch_is_exported_where_the_newest_names_one(void)
{
    char root[256], file[512];
    make_base();
    join(root, "snapshot");
    write_judged(root, 3, 2, 3);
    write_judged(root, 5, 2, 3);
    write_judged(root, 7, 2, 3);
    CU_ASSERT_EQUAL(exported_step(root), 3);
    snprintf(file, sizeof(file), "%s/step-000000000005", root);
    CU_ASSERT_EQUAL(exported_step(file), 5); /* asked for by name */
    snprintf(file, sizeof(file), "%s/step-000000000003/rows/shard-0001.rows", root);
    flip(file, 600);
    CU_ASSERT_EQUAL(exported_step(root), 7);
    write_judged(root, 9, 2, 0); /* a later life without patience: the newest, as ever */
    CU_ASSERT_EQUAL(exported_step(root), 9);
    clu_remove_tree(base);
}

static void test_an_export_is_replaced_and_anything_else_is_kept(void)
{
    char root[256], out[256], other[256], file[512];
    make_base();
    join(root, "snapshot");
    join(out, "export");
    join(other, "mine");
    write_snapshot(root, 3, 1);
    CU_ASSERT_EQUAL(wrk_export_create(root, out), CLU_OK);
    write_snapshot(root, 6, 2);
    CU_ASSERT_EQUAL(wrk_export_create(root, out), CLU_OK);
    struct wrk_export *export = NULL;
    CU_ASSERT_EQUAL_FATAL(wrk_export_open(out, false, &export), CLU_OK);
    CU_ASSERT_EQUAL(wrk_export_manifest(export)->step, 6);
    wrk_export_close(export);
    snprintf(file, sizeof(file), "%s/precious", other);
    clu_mkdirs(file);
    CU_ASSERT_EQUAL(wrk_export_create(root, other), CLU_E_EXISTS);
    CU_ASSERT(clu_path_exists(file));
    clu_remove_tree(base);
}

static void test_a_flipped_bit_in_an_export_is_found(void)
{
    char root[256], out[256], file[512];
    make_base();
    join(root, "snapshot");
    join(out, "export");
    write_snapshot(root, 3, 1);
    CU_ASSERT_EQUAL(wrk_export_create(root, out), CLU_OK);
    snprintf(file, sizeof(file), "%s/dense.safetensors", out);
    flip(file, 6000);
    struct wrk_export *export = NULL;
    CU_ASSERT_EQUAL(wrk_export_open(out, true, &export), CLU_E_CORRUPT);
    clu_remove_tree(base);
}

SUITE("worker.export", T(test_every_row_arrives_and_others_have_their_initial_value),
      T(test_the_digest_does_not_know_the_number_of_shards),
      T(test_tables_are_told_with_bytes_and_ages),
      T(test_a_damaged_snapshot_gives_way_to_the_one_before),
      T(test_the_best_epoch_is_exported_where_the_newest_names_one),
      T(test_an_export_is_replaced_and_anything_else_is_kept),
      T(test_a_flipped_bit_in_an_export_is_found))

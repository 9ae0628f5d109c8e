/* The dense half of a snapshot comes back bit for bit, and another model's snapshot is refused. */
#include "tests/suite.h"

#include "cluster/file.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "model/params.h"
#include "worker/state.h"

#include <unistd.h>

static const struct mdl_config config = {.n_actions = 5,
                                         .history = 7,
                                         .width = 8,
                                         .heads = 2,
                                         .user_dim = 4,
                                         .item_dim = 7,
                                         .alpha = 1,
                                         .beta = 1,
                                         .gamma = 0.1f};

static void describe(struct wrk_manifest *manifest)
{
    *manifest = (struct wrk_manifest){
        .step = 12,
        .model = "a2gen",
        .read = "exact",
        .config = config,
        .n_actions = 5,
        .action = {"start", "click", "cart", "collect", "pay"},
        .n_user_columns = 1,
        .n_item_columns = 3,
        .n_tables = 2,
        .user_column = {{"user", "user", 4, 0}},
        .item_column = {{"item", "item", 4, 0}, {"price", "", 1, 4}, {"kind", "kind", 2, 5}},
        .table = {{"user", 4, 3, 1, 0.05}, {"item", 4, 9, 1, 0.05}},
        .data = NULL,
    };
    manifest->n_tables = 3;
    manifest->table[2] = (struct wrk_manifest_table){"kind", 2, 0, 1, 0.1};
    manifest->data = json_pack("{s:s}", "name", "a test");
}

static float *filled(size_t n, uint64_t seed)
{
    float *values = malloc(n * sizeof(*values));
    for (size_t i = 0; i < n; i++)
        values[i] = (float)suite_uniform(&seed, -1, 1);
    return values;
}

static void folder_of(char folder[128])
{
    snprintf(folder, 128, "/tmp/sluice-state-%ld", (long)getpid());
    clu_remove_tree(folder);
    clu_mkdirs(folder);
}

static bool is_pinned(const char *folder)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, CLU_SNAPSHOT_PIN_FILE);
    return clu_path_exists(path);
}

static void test_a_saved_state_comes_back_bit_for_bit(void)
{
    char folder[128];
    folder_of(folder);
    size_t n = mdl_n_params(&config);
    struct wrk_manifest manifest;
    describe(&manifest);
    struct wrk_state saved = {.step = 12,
                              .epoch = 1,
                              .batch = 4,
                              .samples_done = 3000,
                              .seed = 7,
                              .updates = 12,
                              .stopping = {3, 8, 8, 0.1 + 0.2, 1},
                              .config = config,
                              .weights = filled(n, 1),
                              .adam_m = filled(n, 2),
                              .adam_v = filled(n, 3),
                              .average = filled(n, 4)};
    CU_ASSERT_EQUAL_FATAL(wrk_state_save(folder, &saved, &manifest), CLU_OK);
    struct wrk_state loaded = {.seed = 7,
                               .config = config,
                               .weights = malloc(n * sizeof(float)),
                               .adam_m = malloc(n * sizeof(float)),
                               .adam_v = malloc(n * sizeof(float)),
                               .average = malloc(n * sizeof(float))};
    CU_ASSERT_EQUAL_FATAL(wrk_state_load(folder, &loaded), CLU_OK);
    CU_ASSERT(loaded.step == 12 && loaded.epoch == 1 && loaded.batch == 4);
    CU_ASSERT(loaded.samples_done == 3000 && loaded.updates == 12);
    CU_ASSERT(loaded.stopping.judged == 8 && loaded.stopping.best_step == 8);
    CU_ASSERT(loaded.stopping.best_loss == 0.1 + 0.2 && loaded.stopping.n_not_better == 1);
    CU_ASSERT_FALSE(is_pinned(folder)); /* step 8 was the best, this is 12 */
    saved.stopping.best_step = 12;
    CU_ASSERT_EQUAL(wrk_state_save(folder, &saved, &manifest), CLU_OK);
    CU_ASSERT_TRUE(is_pinned(folder));
    CU_ASSERT_EQUAL(memcmp(loaded.weights, saved.weights, n * sizeof(float)), 0);
    CU_ASSERT_EQUAL(memcmp(loaded.adam_m, saved.adam_m, n * sizeof(float)), 0);
    CU_ASSERT_EQUAL(memcmp(loaded.adam_v, saved.adam_v, n * sizeof(float)), 0);
    CU_ASSERT_EQUAL(memcmp(loaded.average, saved.average, n * sizeof(float)), 0);
    struct wrk_state wrong = loaded;
    wrong.seed = 8;
    CU_ASSERT_EQUAL(wrk_state_load(folder, &wrong), CLU_E_CONFIG);
    wrong = loaded;
    wrong.config.history = 8; /* Rho is then wider */
    CU_ASSERT_EQUAL(wrk_state_load(folder, &wrong), CLU_E_CONFIG);
    float *all[] = {saved.weights,  saved.adam_m,  saved.adam_v,  saved.average,
                    loaded.weights, loaded.adam_m, loaded.adam_v, loaded.average};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    wrk_manifest_fini(&manifest);
    clu_remove_tree(folder);
}

static void test_a_manifest_survives_json(void)
{
    struct wrk_manifest manifest, back;
    describe(&manifest);
    json_t *json = wrk_manifest_to_json(&manifest);
    CU_ASSERT_PTR_NOT_NULL_FATAL(json);
    CU_ASSERT_EQUAL_FATAL(wrk_manifest_from_json(json, "here", &back), CLU_OK);
    CU_ASSERT_EQUAL(memcmp(&back.config, &manifest.config, sizeof(config)), 0);
    CU_ASSERT_EQUAL(memcmp(back.item_column, manifest.item_column, sizeof(back.item_column)), 0);
    CU_ASSERT_EQUAL(memcmp(back.table, manifest.table, sizeof(back.table)), 0);
    CU_ASSERT_STRING_EQUAL(back.action[4], "pay");
    CU_ASSERT(json_equal(back.data, manifest.data));
    CU_ASSERT_EQUAL(back.n_counts, 0);
    wrk_manifest_fini(&back);
    json_decref(json);
    manifest.n_counts = 10; /* F_u ends with counts: wider than its columns */
    json = wrk_manifest_to_json(&manifest);
    CU_ASSERT_EQUAL(wrk_manifest_from_json(json, "here", &back), CLU_E_CORRUPT);
    json_decref(json);
    manifest.config.user_dim += 10;
    json = wrk_manifest_to_json(&manifest);
    CU_ASSERT_EQUAL_FATAL(wrk_manifest_from_json(json, "here", &back), CLU_OK);
    CU_ASSERT_EQUAL(back.n_counts, 10);
    wrk_manifest_fini(&back);
    wrk_manifest_fini(&manifest);
    json_decref(json);
}

/* one field at a time is made wrong; each alone must be refused */
static void test_a_manifest_with_any_wrong_field_is_refused(void)
{
    static const char *const edits[][2] = {
        {"/format", "\"other\""},
        {"/version", "2"},
        {"/step", "-1"},
        {"/model/width", "9"},
        {"/model/heads", "0"},
        {"/model/item_dim", "8"},
        {"/model/n_actions", "6"},
        {"/model/read", "17"},
        {"/user_columns", "[]"},
        {"/tables", "[]"},
        {"/actions", "[\"start\", 3]"},
        {"/item_columns", "7"},
    };
    for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
        struct wrk_manifest manifest, back;
        describe(&manifest);
        json_t *json = wrk_manifest_to_json(&manifest), *at = json;
        char path[64];
        snprintf(path, sizeof(path), "%s", edits[i][0] + 1);
        char *slash = strchr(path, '/'), *leaf = path;
        if (slash) {
            *slash = 0;
            at = json_object_get(json, path);
            leaf = slash + 1;
        }
        json_object_set_new(at, leaf, json_loads(edits[i][1], JSON_DECODE_ANY, NULL));
        CU_ASSERT_EQUAL(wrk_manifest_from_json(json, "here", &back), CLU_E_CORRUPT);
        json_decref(json);
        wrk_manifest_fini(&manifest);
    }
}

SUITE("worker.state", T(test_a_saved_state_comes_back_bit_for_bit),
      T(test_a_manifest_survives_json), T(test_a_manifest_with_any_wrong_field_is_refused))

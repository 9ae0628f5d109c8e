/* Files read as one: against a model, over random chains, shards, moved buckets and expiry; and a
 * chain of deltas reads as the full snapshot that a twin took in its place. */
#include "embeddings/snapshot_merge.h"

#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"
#include "tests/embeddings/rig.h"

enum { N_KEYS = 400, MAX_SHARDS = 4, MAX_LINKS = 6, DIM = 3, EXPIRE = 25 };

struct value {
    uint32_t count, last_step;
    float embedding[DIM];
};

struct model {
    struct value row[N_KEYS]; /* count 0: there is none */
    uint32_t waiting[N_KEYS];
    int shard_of[CLU_N_BUCKETS]; /* who has the bucket */
    bool changed[N_KEYS];        /* since the last link */
    bool buried[MAX_SHARDS][N_KEYS];
};

static struct emb_table_spec spec_of(void)
{
    struct emb_table_spec spec;
    emb_table_spec_init(&spec);
    strcpy(spec.name, "item");
    spec.dim = DIM;
    spec.optimizer = EMB_SGD;
    spec.expire_steps = EXPIRE;
    return spec;
}

static uint32_t bucket_of(uint64_t key)
{
    return clu_bucket_of(clu_table_hash("item"), key);
}

/* The file of one shard: everything it has (full), or what changed and what it lost. */
static void write_file(const struct model *model, const char *path, int shard, uint64_t step,
                       uint64_t base)
{
    struct emb_snapshot_info info = {
        .is_delta = base > 0, .step = step, .base_step = base, .n_tables = 1};
    info.tables[0] = spec_of();
    struct emb_snapshot_writer *writer;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_writer_open(path, &info, &writer), CLU_OK);
    for (uint64_t k = 0; k < N_KEYS; k++) {
        bool mine = model->shard_of[bucket_of(k)] == shard;
        const struct value *row = &model->row[k];
        bool is_row = mine && row->count && (!base || model->changed[k]);
        bool is_gone = base && (model->buried[shard][k] || (mine && model->changed[k]));
        if (is_row || is_gone)
            CU_ASSERT_EQUAL(emb_snapshot_writer_row(writer, 0, k, is_row ? row : NULL), CLU_OK);
    }
    for (uint64_t k = 0; k < N_KEYS; k++)
        if (model->waiting[k] && model->shard_of[bucket_of(k)] == shard)
            CU_ASSERT_EQUAL(emb_snapshot_writer_candidate(writer, 0, k, model->waiting[k]), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_writer_finish(writer, NULL), CLU_OK);
}

/* Steps between two links: rows change, are swept, wait; buckets move. */
static void live(struct model *model, int n_shards, uint64_t step, uint64_t *random)
{
    memset(model->changed, 0, sizeof(model->changed));
    memset(model->buried, 0, sizeof(model->buried));
    memset(model->waiting, 0, sizeof(model->waiting));
    for (int i = 0; i < 60; i++) {
        uint64_t k = suite_random(random) % N_KEYS;
        model->row[k].count++;
        model->row[k].last_step = (uint32_t)step - (uint32_t)(suite_random(random) % 5);
        model->row[k].embedding[0] = (float)suite_uniform(random, -1, 1);
        model->changed[k] = true;
    }
    for (uint64_t k = 0; k < N_KEYS; k++) {
        bool gone = model->row[k].count && model->row[k].last_step + EXPIRE < step;
        if (gone && suite_random(random) % 2) { /* swept; the others are still to be */
            model->row[k].count = 0;
            model->changed[k] = true;
        }
        if (!model->row[k].count && suite_random(random) % 8 == 0)
            model->waiting[k] = 1 + (uint32_t)(suite_random(random) % 3);
    }
    for (int i = 0; i < 30; i++) { /* a moved row is new where it came to, buried where it left */
        uint32_t bucket = bucket_of(suite_random(random) % N_KEYS);
        int from = model->shard_of[bucket], to = (int)(suite_random(random) % (uint64_t)n_shards);
        for (uint64_t k = 0; k < N_KEYS && from != to; k++)
            if (bucket_of(k) == bucket) {
                model->buried[from][k] = true;
                model->changed[k] = true;
            }
        model->shard_of[bucket] = to;
    }
}

static bool is_live(const struct model *model, uint64_t k, uint64_t step)
{
    return model->row[k].count && model->row[k].last_step + EXPIRE >= step;
}

/* Reads the files of some buckets (half of them, or all) and compares. */
static void check(const struct model *model, const char *const *paths, size_t n, uint64_t step,
                  bool half)
{
    uint8_t buckets[EMB_BUCKET_BYTES] = {0};
    bool seen[N_KEYS] = {false}, waits[N_KEYS] = {false}, right = true, is_candidate;
    for (uint32_t b = 0; b < CLU_N_BUCKETS / 2; b++)
        emb_bucket_add(buckets, b);
    struct emb_snapshot_merge *merge;
    struct emb_row row;
    const void *value;
    int status;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_merge_open(paths, n, half ? buckets : NULL, &merge), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_merge_info(merge)->step, step);
    uint64_t last = 0;
    while (!(status = emb_snapshot_merge_entry(merge, &row, &value, &is_candidate))) {
        bool *seen_p = is_candidate ? &waits[row.key] : &seen[row.key];
        right &= !*seen_p && (row.key > last || row.key == 0 || is_candidate);
        *seen_p = true;
        if (is_candidate)
            right &= row.count == model->waiting[row.key];
        else
            right &= row.count == model->row[row.key].count &&
                     memcmp(value, &model->row[row.key].last_step, 4 + 4 * DIM) == 0;
        last = is_candidate ? last : row.key;
    }
    CU_ASSERT_EQUAL(status, CLU_E_NOT_FOUND);
    for (uint64_t k = 0; k < N_KEYS; k++) {
        bool wanted = !half || bucket_of(k) < CLU_N_BUCKETS / 2;
        right &= seen[k] == (wanted && is_live(model, k, step));
        right &= waits[k] == (wanted && model->waiting[k] > 0);
    }
    CU_ASSERT_TRUE(right);
    emb_snapshot_merge_close(merge);
}

static void test_random_chains_read_as_the_state_they_stand_for(void)
{
    char dir[256], path[MAX_LINKS * MAX_SHARDS][300];
    const char *paths[MAX_LINKS * MAX_SHARDS];
    uint64_t random = suite_seed();
    rig_folder(dir, sizeof(dir), "merge");
    for (int round = 0; round < 20; round++) {
        static struct model model;
        memset(&model, 0, sizeof(model));
        int n_shards = 1 + (int)(suite_random(&random) % MAX_SHARDS);
        int n_links = 1 + (int)(suite_random(&random) % MAX_LINKS);
        size_t n = 0;
        for (int b = 0; b < CLU_N_BUCKETS; b++)
            model.shard_of[b] = b % n_shards;
        uint64_t step = 0;
        for (int link = 0; link < n_links; link++) {
            uint64_t base = step;
            step += 10;
            live(&model, n_shards, step, &random);
            for (int s = 0; s < n_shards; s++, n++) {
                snprintf(path[n], sizeof(path[n]), "%s/%d-%d-%d", dir, round, link, s);
                write_file(&model, path[n], s, step, base);
            }
        }
        for (size_t i = 0; i < n; i++) /* any order */
            paths[i] = path[(i + (size_t)round) % n];
        check(&model, paths, n, step, false);
        check(&model, paths, n, step, true);
    }
    clu_remove_tree(dir);
}

static uint64_t digest(const char *const *paths, size_t n)
{
    struct emb_snapshot_merge *merge;
    struct emb_row row;
    uint64_t sum = 0;
    int status;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_merge_open(paths, n, NULL, &merge), CLU_OK);
    while (!(status = emb_snapshot_merge_next(merge, &row)))
        sum += emb_row_digest(emb_snapshot_merge_info(merge)->tables[row.table].name, &row);
    CU_ASSERT_EQUAL(status, CLU_E_NOT_FOUND);
    emb_snapshot_merge_close(merge);
    return sum;
}

/* Two shards with the same pushes, one with deltas, the other with full snapshots; rows expire, so
 * some have expired in a delta's base that no sweep had reached. */
static void test_a_chain_reads_as_the_full_snapshot_in_its_place(void)
{
    enum { N = 6 };
    char dir[256], path[2][N][300], folder[2][300];
    const char *chain[N];
    struct emb_shard *shard[2];
    struct rig_model *model[2];
    uint64_t seed = suite_seed(), random[2] = {seed, seed};
    rig_folder(dir, sizeof(dir), "twins");
    struct emb_table_spec spec = {0};
    emb_table_spec_init(&spec);
    strcpy(spec.name, "item");
    spec.dim = RIG_DIM;
    spec.expire_steps = 7;
    spec.min_count = 2;
    for (int i = 0; i < 2; i++) {
        snprintf(folder[i], sizeof(folder[i]), "%s/shard-%d", dir, i);
        struct emb_shard_options options = {.dir = folder[i], .map_bytes = 64 << 20};
        CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard[i]), CLU_OK);
        model[i] = calloc(1, sizeof(*model[i]));
        model[i]->spec = spec;
        emb_updater_init(&model[i]->updater, &spec);
    }
    for (int s = 0; s < N; s++) {
        uint64_t step = 10 * (uint64_t)(s + 1);
        for (int i = 0; i < 2; i++) {
            struct emb_snapshot_result result;
            snprintf(path[i][s], sizeof(path[i][s]), "%s/%d-%d", dir, i, s);
            while (model[i]->clock < step)
                CU_ASSERT_EQUAL_FATAL(rig_step(shard[i], model[i], &random[i], 250), CLU_OK);
            enum emb_snapshot_kind kind = i || !s ? EMB_SNAPSHOT_FULL : EMB_SNAPSHOT_DELTA;
            CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(shard[i], kind, step, path[i][s]),
                                  CLU_OK);
            CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_advance(shard[i], INT64_MAX, &result), CLU_OK);
            CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_confirm(shard[i], step), CLU_OK);
            if (!i)
                CU_ASSERT_EQUAL(result.base_step, s ? step - 10 : 0);
        }
        chain[s] = path[0][s];
        const char *full = path[1][s];
        CU_ASSERT_EQUAL(digest(chain, (size_t)s + 1), digest(&full, 1));
    }
    for (int i = 0; i < 2; i++) {
        emb_shard_close(shard[i]);
        emb_updater_fini(&model[i]->updater);
        free(model[i]);
    }
    clu_remove_tree(dir);
}

static void test_a_damaged_or_missing_file_is_named(void)
{
    char dir[256], path[3][300];
    const char *paths[3];
    static struct model model;
    struct emb_snapshot_merge *merge;
    uint64_t random = 5;
    memset(&model, 0, sizeof(model));
    rig_folder(dir, sizeof(dir), "merge-damage");
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%d", dir, i);
        paths[i] = path[i];
        live(&model, 1, 10 * (uint64_t)(i + 1), &random);
        write_file(&model, path[i], 0, 10 * (uint64_t)(i + 1), 10 * (uint64_t)i);
    }
    rig_quiet(true);
    const char *hole[] = {path[0], path[2]};
    CU_ASSERT_EQUAL(emb_snapshot_merge_open(hole, 2, NULL, &merge), CLU_E_DATA);
    CU_ASSERT_EQUAL(emb_snapshot_merge_open(paths + 1, 2, NULL, &merge), CLU_E_DATA);
    for (int i = 0; i < 3; i++) { /* a bit of a row, and one of the buckets at the end */
        char *data;
        size_t size;
        CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path[i], 1 << 20, &data, &size), CLU_OK);
        const size_t at[] = {size / 2, size - 100};
        for (int j = 0; j < 2; j++) {
            struct emb_row row;
            uint8_t all[EMB_BUCKET_BYTES];
            memset(all, 0xff, sizeof(all));
            data[at[j]] ^= 4;
            CU_ASSERT_EQUAL(clu_file_write_atomic(path[i], data, size), CLU_OK);
            int status = emb_snapshot_merge_open(paths, 3, all, &merge);
            if (!status) {
                while (!(status = emb_snapshot_merge_next(merge, &row)))
                    ;
                emb_snapshot_merge_close(merge);
            }
            CU_ASSERT_EQUAL(status, CLU_E_CORRUPT);
            data[at[j]] ^= 4;
        }
        CU_ASSERT_EQUAL(clu_file_write_atomic(path[i], data, size), CLU_OK);
        free(data);
    }
    rig_quiet(false);
    check(&model, paths, 3, 30, false);
    clu_remove_tree(dir);
}

SUITE("embeddings.snapshot_merge", T(test_random_chains_read_as_the_state_they_stand_for),
      T(test_a_chain_reads_as_the_full_snapshot_in_its_place),
      T(test_a_damaged_or_missing_file_is_named))

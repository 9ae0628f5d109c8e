/* Files of one shape become files of another: what is read back is the same, to the bit, whatever
 * the shapes and however little memory there is; a failure leaves nothing behind. */
#include "embeddings/snapshot_split.h"

#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"
#include "embeddings/snapshot_merge.h"
#include "tests/embeddings/rig.h"

enum { N_KEYS = 5000, MAX_FILES = 24 };

static char dir[256], path[4][MAX_FILES][300];

static const char *const *paths_of(int set, int n)
{
    static const char *list[4][MAX_FILES];
    for (int i = 0; i < n; i++) {
        snprintf(path[set][i], sizeof(path[set][i]), "%s/%d-%d", dir, set, i);
        list[set][i] = path[set][i];
    }
    return list[set];
}

/* Two tables, bf16 and fp32 with state, over three shards, full and one delta: six files. */
static void write_chain(uint64_t *random)
{
    struct emb_snapshot_info info = {.step = 10, .n_tables = 2};
    paths_of(0, 6);
    for (int t = 0; t < 2; t++) {
        emb_table_spec_init(&info.tables[t]);
        strcpy(info.tables[t].name, t ? "user" : "item");
        info.tables[t].dim = t ? 5 : 8;
        info.tables[t].dtype = t ? EMB_BF16 : EMB_FP32;
        info.tables[t].expire_steps = 12;
    }
    for (int f = 0; f < 6; f++) {
        struct emb_snapshot_writer *writer;
        info.is_delta = f >= 3;
        info.step = f < 3 ? 10 : 20;
        info.base_step = f < 3 ? 0 : 10;
        CU_ASSERT_EQUAL_FATAL(emb_snapshot_writer_open(path[0][f], &info, &writer), CLU_OK);
        for (int t = 0; t < 2; t++) {
            uint64_t hash = clu_table_hash(info.tables[t].name);
            for (uint64_t k = 0; k < N_KEYS; k++) {
                char value[256];
                bool mine = clu_bucket_of(hash, k) % 3 == (uint32_t)(f % 3);
                uint64_t dice = suite_random(random) % 10;
                if (!mine || (f >= 3 && dice > 2))
                    continue;
                for (size_t i = 0; i < sizeof(value); i++)
                    value[i] = (char)suite_random(random);
                emb_value_set_u32(value, EMB_VALUE_COUNT, 1 + (uint32_t)dice);
                emb_value_set_u32(value, EMB_VALUE_STEP, f < 3 ? (uint32_t)(k % 10) + 1 : 15);
                bool gone = f >= 3 && dice == 0;
                CU_ASSERT_EQUAL(emb_snapshot_writer_row(writer, t, k, gone ? NULL : value), CLU_OK);
            }
            for (uint64_t k = N_KEYS; k < N_KEYS + 50; k++)
                if (clu_bucket_of(hash, k) % 3 == (uint32_t)(f % 3))
                    CU_ASSERT_EQUAL(emb_snapshot_writer_candidate(writer, t, k, 1), CLU_OK);
        }
        CU_ASSERT_EQUAL(emb_snapshot_writer_finish(writer, NULL), CLU_OK);
    }
}

/* A hash over every entry that files read as, in order. */
static uint64_t fingerprint(const char *const *paths, size_t n)
{
    struct emb_snapshot_merge *merge;
    struct emb_row row;
    const void *value;
    bool is_candidate;
    uint64_t hash = 0;
    int status;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_merge_open(paths, n, NULL, &merge), CLU_OK);
    const struct emb_snapshot_info *info = emb_snapshot_merge_info(merge);
    while (!(status = emb_snapshot_merge_entry(merge, &row, &value, &is_candidate))) {
        uint64_t link[5] = {hash, (uint64_t)row.table, row.key, row.count, is_candidate};
        hash = clu_hash_bytes(link, sizeof(link));
        if (!is_candidate)
            hash ^= clu_hash_bytes(value, emb_value_bytes(&info->tables[row.table]) - 4);
    }
    CU_ASSERT_EQUAL(status, CLU_E_NOT_FOUND);
    emb_snapshot_merge_close(merge);
    return hash;
}

struct seen {
    double done;
    int n;
};

static void see(void *context, double done, uint64_t n_rows)
{
    struct seen *seen = context;
    CU_ASSERT(done >= seen->done && done <= 1 && n_rows > 0);
    seen->done = done;
    seen->n++;
}

static int split(int from, int n_from, int to, int n_to, uint64_t memory_bytes)
{
    struct emb_snapshot_result results[MAX_FILES];
    struct seen seen = {0};
    struct emb_split_options options = {.in = paths_of(from, n_from),
                                        .n_in = (size_t)n_from,
                                        .out = paths_of(to, n_to),
                                        .n_out = n_to,
                                        .memory_bytes = memory_bytes,
                                        .progress = see,
                                        .context = &seen};
    for (uint32_t b = 0; b < CLU_N_BUCKETS; b++)
        options.shard_of[b] = (uint16_t)(b * (uint32_t)n_to / CLU_N_BUCKETS);
    int status = emb_snapshot_split(&options, results);
    for (int i = 0; i < n_to && !status; i++) {
        uint64_t checksum, size;
        CU_ASSERT_EQUAL(clu_file_checksum(path[to][i], &checksum, &size), CLU_OK);
        CU_ASSERT(checksum == results[i].checksum && size == results[i].size_bytes);
        CU_ASSERT_EQUAL(results[i].n_tombstones, 0);
        CU_ASSERT_EQUAL(emb_snapshot_verify(path[to][i], NULL, NULL), CLU_OK);
    }
    if (!status)
        CU_ASSERT(seen.n > 0 && seen.done > 0.999);
    return status;
}

static void test_any_shape_reads_back_the_same(void)
{
    static const int shapes[] = {1, 2, 3, 7, 24};
    uint64_t random = suite_seed();
    rig_folder(dir, sizeof(dir), "split");
    write_chain(&random);
    uint64_t before = fingerprint(paths_of(0, 6), 6);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 2; j++) { /* in one pass, and a file a pass */
            int n = shapes[i];
            CU_ASSERT_EQUAL_FATAL(split(0, 6, 1, n, j ? (uint64_t)12 << 20 : (uint64_t)1 << 30),
                                  CLU_OK);
            CU_ASSERT_EQUAL(fingerprint(paths_of(1, n), (size_t)n), before);
            CU_ASSERT_EQUAL_FATAL(split(1, n, 2, 3, (uint64_t)1 << 30), CLU_OK); /* and back */
            CU_ASSERT_EQUAL(fingerprint(paths_of(2, 3), 3), before);
            for (int f = 0; f < n; f++)
                unlink(path[1][f]);
            for (int f = 0; f < 3; f++)
                unlink(path[2][f]);
        }
    clu_remove_tree(dir);
}

static void test_a_failure_leaves_no_file(void)
{
    uint64_t random = 3, size;
    char *data;
    rig_folder(dir, sizeof(dir), "split-fails");
    write_chain(&random);
    rig_quiet(true);
    CU_ASSERT_EQUAL(split(0, 6, 1, 4, (uint64_t)4 << 20), CLU_E_CONFIG); /* too little memory */
    CU_ASSERT_EQUAL_FATAL(clu_file_checksum(path[0][5], NULL, &size), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path[0][5], size, &data, &size), CLU_OK);
    data[size - 700] ^= 1; /* found late, after files of earlier passes were finished */
    CU_ASSERT_EQUAL(clu_file_write_atomic(path[0][5], data, size), CLU_OK);
    CU_ASSERT_EQUAL(split(0, 6, 1, 4, (uint64_t)12 << 20), CLU_E_CORRUPT);
    rig_quiet(false);
    for (int i = 0; i < 4; i++)
        CU_ASSERT_FALSE(clu_path_exists(path[1][i]));
    free(data);
    clu_remove_tree(dir);
}

SUITE("embeddings.snapshot_split", T(test_any_shape_reads_back_the_same),
      T(test_a_failure_leaves_no_file))

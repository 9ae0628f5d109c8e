/* The rows of an export: what is put is got, by key, whole or not at all. */
#include "embeddings/export.h"

#include "tests/embeddings/rig.h"

static int sum_keys(uint64_t key, const float *row, void *arg)
{
    *(uint64_t *)arg += key + (uint64_t)row[0];
    return CLU_OK;
}

static void test_rows_put_in_any_order_are_found(void)
{
    char dir[256], path[300];
    rig_folder(dir, sizeof(dir), "export");
    snprintf(path, sizeof(path), "%s/rows", dir);
    struct emb_export_writer *writer;
    int a, b;
    CU_ASSERT_EQUAL_FATAL(emb_export_create(path, &writer), CLU_OK);
    CU_ASSERT_EQUAL(emb_export_table(writer, "user", 3, &a), CLU_OK);
    CU_ASSERT_EQUAL(emb_export_table(writer, "item", 1, &b), CLU_OK);
    CU_ASSERT_FALSE(clu_path_exists(path));
    uint64_t expected = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t key = i < 5000 ? 2 * i : clu_mix(i) | 1;
        float row[3] = {(float)i, 1, 2};
        expected += key + i;
        CU_ASSERT_EQUAL_FATAL(emb_export_put(writer, a, key, row), CLU_OK);
    }
    float one = 7;
    CU_ASSERT_EQUAL(emb_export_put(writer, b, UINT64_MAX, &one), CLU_OK);
    uint64_t counts[2];
    CU_ASSERT_EQUAL_FATAL(emb_export_commit(writer, counts), CLU_OK);
    CU_ASSERT(counts[0] == 10000 && counts[1] == 1);
    CU_ASSERT_EQUAL(emb_export_create(path, &writer), CLU_E_EXISTS);
    struct emb_export_reader *reader;
    int table;
    CU_ASSERT_EQUAL_FATAL(emb_export_open(path, &reader), CLU_OK);
    CU_ASSERT_EQUAL(emb_export_find(reader, "nobody", 3, &table), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(emb_export_find(reader, "user", 4, &table), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL_FATAL(emb_export_find(reader, "user", 3, &table), CLU_OK);
    uint64_t keys[3] = {4, 5, clu_mix(9999) | 1}, sum = 0, n;
    float rows[9] = {-1, -1, -1, -1, -1, -1, -1, -1, -1};
    uint8_t found[3];
    CU_ASSERT_EQUAL(emb_export_get(reader, table, keys, 3, rows, found), CLU_OK);
    CU_ASSERT(found[0] == 1 && found[1] == 0 && found[2] == 1);
    CU_ASSERT(rows[0] == 2 && rows[2] == 2 && rows[3] == -1 && rows[6] == 9999);
    CU_ASSERT_EQUAL(emb_export_each(reader, table, sum_keys, &sum), CLU_OK);
    CU_ASSERT_EQUAL(sum, expected);
    CU_ASSERT_EQUAL(emb_export_count(reader, table, &n), CLU_OK);
    CU_ASSERT_EQUAL(n, 10000);
    emb_export_close(reader);
    clu_remove_tree(dir);
}

static void test_an_export_given_up_leaves_nothing(void)
{
    char dir[256], path[300], part[320];
    rig_folder(dir, sizeof(dir), "abort");
    snprintf(path, sizeof(path), "%s/rows", dir);
    snprintf(part, sizeof(part), "%s.part", path);
    struct emb_export_writer *writer;
    struct emb_export_reader *reader;
    int table;
    float row = 1;
    CU_ASSERT_EQUAL_FATAL(emb_export_create(path, &writer), CLU_OK);
    CU_ASSERT_EQUAL(emb_export_table(writer, "user", 1, &table), CLU_OK);
    CU_ASSERT_EQUAL(emb_export_put(writer, table, 1, &row), CLU_OK);
    emb_export_abort(writer);
    CU_ASSERT_FALSE(clu_path_exists(path));
    CU_ASSERT_FALSE(clu_path_exists(part));
    CU_ASSERT_EQUAL(emb_export_open(path, &reader), CLU_E_NOT_FOUND);
    clu_remove_tree(dir);
}

SUITE("embeddings.export", T(test_rows_put_in_any_order_are_found),
      T(test_an_export_given_up_leaves_nothing))

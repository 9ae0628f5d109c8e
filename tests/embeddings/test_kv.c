/* The small map: durable one by one, whole in groups, and honest about damage. */
#include "embeddings/kv.h"

#include "tests/embeddings/rig.h"

#include <fcntl.h>

static int append(const char *key, const void *data, size_t size_bytes, void *arg)
{
    char *text = arg;
    snprintf(text + strlen(text), 200 - strlen(text), "%s=%.*s;", key, (int)size_bytes,
             (const char *)data);
    return CLU_OK;
}

static void test_what_was_put_is_there_after_reopening(void)
{
    char dir[256], text[200] = "";
    rig_folder(dir, sizeof(dir), "kv");
    struct emb_kv *kv;
    CU_ASSERT_EQUAL_FATAL(emb_kv_open(dir, &kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "member/2", "b", 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "member/1", "a", 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "step", "", 0), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "", "x", 1), CLU_E_DATA);
    emb_kv_close(kv);
    CU_ASSERT_EQUAL_FATAL(emb_kv_open(dir, &kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_each(kv, "member/", append, text), CLU_OK);
    CU_ASSERT_STRING_EQUAL(text, "member/1=a;member/2=b;");
    text[0] = 0;
    CU_ASSERT_EQUAL(emb_kv_delete(kv, "member/2"), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_delete(kv, "member/2"), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_each(kv, "", append, text), CLU_OK);
    CU_ASSERT_STRING_EQUAL(text, "member/1=a;step=;");
    void *data;
    size_t size;
    CU_ASSERT_EQUAL(emb_kv_get(kv, "member/2", &data, &size), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL_FATAL(emb_kv_get(kv, "step", &data, &size), CLU_OK);
    CU_ASSERT_EQUAL(size, 0);
    free(data);
    emb_kv_close(kv);
    clu_remove_tree(dir);
}

static void test_a_group_given_up_changes_nothing(void)
{
    char dir[256];
    rig_folder(dir, sizeof(dir), "kvgroup");
    struct emb_kv *kv;
    void *data;
    size_t size;
    CU_ASSERT_EQUAL_FATAL(emb_kv_open(dir, &kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_begin(kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "a", "1", 1), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_kv_get(kv, "a", &data, &size), CLU_OK);
    free(data);
    emb_kv_abort(kv);
    CU_ASSERT_EQUAL(emb_kv_get(kv, "a", &data, &size), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(emb_kv_begin(kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "a", "1", 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "b", "2", 1), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_commit(kv), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_kv_get(kv, "b", &data, &size), CLU_OK);
    CU_ASSERT_STRING_EQUAL((char *)data, "2");
    free(data);
    emb_kv_close(kv);
    clu_remove_tree(dir);
}

static void test_a_damaged_value_is_refused(void)
{
    char dir[256], path[300], *bytes;
    rig_folder(dir, sizeof(dir), "kvflip");
    struct emb_kv *kv;
    void *data;
    size_t size;
    CU_ASSERT_EQUAL_FATAL(emb_kv_open(dir, &kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_put(kv, "a", "findmehere", 10), CLU_OK);
    emb_kv_close(kv);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 24, &bytes, &size), CLU_OK);
    char *at = memmem(bytes, size, "findmehere", 10);
    CU_ASSERT_FATAL(at != NULL);
    int fd = open(path, O_WRONLY);
    CU_ASSERT_EQUAL(pwrite(fd, "F", 1, at - bytes), 1);
    close(fd);
    free(bytes);
    CU_ASSERT_EQUAL_FATAL(emb_kv_open(dir, &kv), CLU_OK);
    CU_ASSERT_EQUAL(emb_kv_get(kv, "a", &data, &size), CLU_E_CORRUPT);
    emb_kv_close(kv);
    clu_remove_tree(dir);
}

SUITE("embeddings.kv", T(test_what_was_put_is_there_after_reopening),
      T(test_a_group_given_up_changes_nothing), T(test_a_damaged_value_is_refused))

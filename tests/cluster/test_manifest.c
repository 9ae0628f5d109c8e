/* Snapshots on disk: committed whole, found again, refused when damaged. */
#include "cluster/file.h"
#include "cluster/manifest.h"
#include "cluster/status.h"
#include "tests/suite.h"

#include <sys/stat.h>
#include <unistd.h>

static char root[CLU_PATH_BYTES];

static void open_root(void)
{
    snprintf(root, sizeof(root), "/tmp/sluice-manifest-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(root));
}

static void close_root(void)
{
    clu_remove_tree(root);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[CLU_PATH_BYTES];
    clu_path_join(path, sizeof(path), folder, name);
    CU_ASSERT_EQUAL(clu_file_write_atomic(path, text, strlen(text)), CLU_OK);
}

/* Writes the files of a snapshot, not yet committed. */
static void begin(uint64_t step)
{
    char folder[CLU_PATH_BYTES], text[64];
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_begin(root, step, folder), CLU_OK);
    snprintf(text, sizeof(text), "dense of %llu", (unsigned long long)step);
    put(folder, "dense.safetensors", text);
    put(folder, "rows/shard-0", "rows of shard 0");
    put(folder, "rows/shard-1", "rows of shard 1");
}

static void commit(uint64_t step, int64_t keep)
{
    struct clu_manifest manifest = {
        .job_id = 5, .generation = 2, .step = step, .n_servers = 1, .n_shards = 2, .n_workers = 3};
    begin(step);
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &manifest, keep), CLU_OK);
}

static uint64_t newest(void)
{
    char folder[CLU_PATH_BYTES];
    struct clu_manifest manifest;
    if (clu_snapshot_newest(root, folder, &manifest))
        return 0;
    uint64_t step = manifest.step;
    clu_manifest_fini(&manifest);
    return step;
}

static bool is_there(const char *name)
{
    char path[CLU_PATH_BYTES];
    clu_path_join(path, sizeof(path), root, name);
    return clu_path_exists(path);
}

static void test_a_committed_snapshot_is_found_and_verifies(void)
{
    char folder[CLU_PATH_BYTES];
    struct clu_manifest manifest;
    open_root();
    CU_ASSERT_EQUAL(clu_snapshot_newest(root, folder, NULL), CLU_E_NOT_FOUND);
    commit(100, 0);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_newest(root, folder, &manifest), CLU_OK);
    CU_ASSERT_EQUAL(manifest.job_id, 5);
    CU_ASSERT_EQUAL(manifest.generation, 2);
    CU_ASSERT_EQUAL(manifest.step, 100);
    CU_ASSERT_EQUAL(manifest.n_shards, 2);
    CU_ASSERT_EQUAL(manifest.n_workers, 3);
    CU_ASSERT_EQUAL(manifest.n_files, 3);
    CU_ASSERT_STRING_EQUAL(manifest.files[1].path, "rows/shard-0");
    CU_ASSERT_EQUAL(manifest.files[1].size_bytes, 15);
    clu_manifest_fini(&manifest);
    CU_ASSERT_FALSE(is_there("step-000000000100.part"));
    CU_ASSERT_TRUE(is_there("latest"));
    close_root();
}

static void test_an_uncommitted_snapshot_does_not_count_and_is_swept(void)
{
    open_root();
    commit(100, 0);
    begin(200);
    CU_ASSERT_EQUAL(newest(), 100);
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root), CLU_OK);
    CU_ASSERT_FALSE(is_there("step-000000000200.part"));
    CU_ASSERT_EQUAL(newest(), 100);
    close_root();
}

static void test_keep_removes_the_oldest(void)
{
    open_root();
    for (uint64_t step = 1; step <= 5; step++)
        commit(step, 2);
    CU_ASSERT_FALSE(is_there("step-000000000003"));
    CU_ASSERT_TRUE(is_there("step-000000000004"));
    CU_ASSERT_EQUAL(newest(), 5);
    close_root();
}

static void damage(const char *name, int how)
{
    char path[CLU_PATH_BYTES];
    clu_path_join(path, sizeof(path), root, name);
    struct stat info;
    CU_ASSERT_EQUAL_FATAL(stat(path, &info), 0);
    if (how == 0) {
        CU_ASSERT_EQUAL(truncate(path, info.st_size / 2), 0);
    } else if (how == 1) {
        CU_ASSERT_EQUAL(unlink(path), 0);
    } else {
        FILE *file = fopen(path, "r+");
        CU_ASSERT_PTR_NOT_NULL_FATAL(file);
        fseek(file, info.st_size / 2, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, info.st_size / 2, SEEK_SET);
        fputc(byte ^ 0x10, file);
        fclose(file);
    }
}

static void test_a_damaged_snapshot_is_passed_over_for_the_one_before(void)
{
    static const char *const files[] = {"dense.safetensors", "rows/shard-1", "manifest.json"};
    for (size_t file = 0; file < 3; file++)
        for (int how = 0; how < 3; how++) {
            char name[128];
            open_root();
            commit(10, 0);
            commit(20, 0);
            snprintf(name, sizeof(name), "step-000000000020/%s", files[file]);
            damage(name, how);
            /* a flipped bit in the middle of the manifest may be in a name, a number, a sum: all
             * noticed */
            CU_ASSERT_EQUAL(newest(), 10);
            close_root();
        }
}

static void test_a_commit_is_refused_when_the_disk_disagrees_with_a_report(void)
{
    struct clu_manifest_file told = {.path = "rows/shard-0", .size_bytes = 16, .checksum = 1};
    struct clu_manifest manifest = {.step = 7, .n_files = 1, .files = &told};
    open_root();
    begin(7);
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &manifest, 0), CLU_E_CORRUPT);
    strcpy(told.path, "rows/shard-9");
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &manifest, 0), CLU_E_CORRUPT);
    CU_ASSERT_TRUE(is_there("step-000000000007.part"));
    CU_ASSERT_EQUAL(newest(), 0);
    close_root();
}

static void test_a_reported_sum_is_taken_without_reading(void)
{
    struct clu_manifest_file told = {.path = "rows/shard-0", .size_bytes = 15, .checksum = 1};
    struct clu_manifest manifest = {.step = 7, .n_files = 1, .files = &told}, back;
    char folder[CLU_PATH_BYTES];
    open_root();
    begin(7);
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &manifest, 0), CLU_OK);
    clu_snapshot_folder(root, 7, false, folder);
    CU_ASSERT_EQUAL_FATAL(clu_manifest_load(folder, &back), CLU_OK);
    CU_ASSERT_EQUAL(back.files[1].checksum, 1);
    CU_ASSERT_EQUAL(clu_manifest_verify(folder, &back, false), CLU_OK);
    CU_ASSERT_EQUAL(clu_manifest_verify(folder, &back, true), CLU_E_CORRUPT);
    clu_manifest_fini(&back);
    close_root();
}

static void test_committing_twice_is_committing_once(void)
{
    struct clu_manifest manifest = {.step = 3};
    open_root();
    commit(3, 0);
    begin(3);
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &manifest, 0), CLU_OK);
    CU_ASSERT_EQUAL(newest(), 3);
    CU_ASSERT_FALSE(is_there("step-000000000003.part"));
    close_root();
}

static void test_a_damaged_snapshot_is_replaced_and_set_aside(void)
{
    open_root();
    commit(10, 0);
    commit(20, 0);
    damage("step-000000000020/rows/shard-0", 0);
    commit(20, 0);
    CU_ASSERT_EQUAL(newest(), 20);
    damage("step-000000000020/rows/shard-0", 2);
    CU_ASSERT_EQUAL(clu_snapshot_set_aside(root, 10), CLU_OK);
    CU_ASSERT_TRUE(is_there("step-000000000020.damaged"));
    commit(15, 1); /* would else be the older of two, and go */
    CU_ASSERT_EQUAL(newest(), 15);
    close_root();
}

static void test_a_path_means_the_newest_or_itself(void)
{
    char folder[CLU_PATH_BYTES], path[CLU_PATH_BYTES];
    open_root();
    CU_ASSERT_EQUAL(clu_snapshot_resolve(root, folder), CLU_E_NOT_FOUND);
    commit(10, 0);
    commit(20, 0);
    CU_ASSERT_EQUAL(clu_snapshot_resolve(root, folder), CLU_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(folder, "/step-000000000020"));
    clu_snapshot_folder(root, 10, false, path);
    CU_ASSERT_EQUAL(clu_snapshot_resolve(path, folder), CLU_OK);
    CU_ASSERT_STRING_EQUAL(folder, path);
    close_root();
}

SUITE("cluster.manifest", T(test_a_committed_snapshot_is_found_and_verifies),
      T(test_an_uncommitted_snapshot_does_not_count_and_is_swept), T(test_keep_removes_the_oldest),
      T(test_a_damaged_snapshot_is_passed_over_for_the_one_before),
      T(test_a_commit_is_refused_when_the_disk_disagrees_with_a_report),
      T(test_a_reported_sum_is_taken_without_reading), T(test_committing_twice_is_committing_once),
      T(test_a_damaged_snapshot_is_replaced_and_set_aside),
      T(test_a_path_means_the_newest_or_itself))

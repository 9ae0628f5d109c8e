/* Snapshots on disk: committed whole, found again, refused when damaged; chains of deltas with
 * damage in any file of any link, and a committer that dies at any of its calls. */
#include "cluster/file.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "tests/suite.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[CLU_PATH_BYTES];

static void open_root(void)
{
    const char *top = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* disks are slow */
    snprintf(root, sizeof(root), "%s/sluice-snapshot-XXXXXX", top);
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

/* A folder with something in it, and no manifest. */
static void put_folder(const char *name)
{
    char folder[CLU_PATH_BYTES];
    clu_path_join(folder, sizeof(folder), root, name);
    CU_ASSERT_EQUAL(clu_mkdirs(folder), CLU_OK);
    put(folder, "dense.safetensors", "dense");
}

/* base 0: a full one */
static int try_commit(uint64_t step, uint64_t base, int64_t keep)
{
    struct clu_manifest manifest = {.job_id = 5,
                                    .generation = 2,
                                    .step = step,
                                    .base_step = base,
                                    .n_servers = 1,
                                    .n_shards = 2,
                                    .n_workers = 3};
    begin(step);
    return clu_snapshot_commit(root, &manifest, keep);
}

static void commit(uint64_t step, int64_t keep)
{
    CU_ASSERT_EQUAL(try_commit(step, 0, keep), CLU_OK);
}

static void commit_delta(uint64_t step, uint64_t base, int64_t keep)
{
    CU_ASSERT_EQUAL(try_commit(step, base, keep), CLU_OK);
}

static uint64_t newest(void)
{
    char folder[CLU_PATH_BYTES];
    struct clu_manifest manifest;
    if (clu_snapshot_newest(root, 0, folder, &manifest))
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
    CU_ASSERT_EQUAL(clu_snapshot_newest(root, 0, folder, NULL), CLU_E_NOT_FOUND);
    commit(100, 0);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_newest(root, 0, folder, &manifest), CLU_OK);
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
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root, CLU_SNAPSHOT_ALL), CLU_OK);
    CU_ASSERT_FALSE(is_there("step-000000000200.part"));
    CU_ASSERT_EQUAL(newest(), 100);
    close_root();
}

/* Rubbish goes; what may be somebody's work stays. */
static void test_a_sweep_spares_what_is_being_written(void)
{
    char folder[CLU_PATH_BYTES];
    int fd;
    open_root();
    commit(100, 0);
    put_folder("step-000000000040");
    put_folder("step-000000000050.old");
    begin(90);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_begin(root, 80, folder), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_lock(folder, &fd), CLU_OK);
    CU_ASSERT_EQUAL(clu_snapshot_begin(root, 80, folder), CLU_E_AGAIN);
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root, 0), CLU_OK); /* a scheduler that was killed */
    CU_ASSERT_FALSE(is_there("step-000000000050.old"));
    CU_ASSERT(is_there("step-000000000090.part") && is_there("step-000000000040"));
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root, 90), CLU_OK);
    CU_ASSERT(is_there("step-000000000090.part"));
    commit(110, 1); /* what is older is not being written any more */
    CU_ASSERT_FALSE(is_there("step-000000000090.part") || is_there("step-000000000100"));
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root, CLU_SNAPSHOT_ALL), CLU_OK);
    CU_ASSERT_FALSE(is_there("step-000000000040"));
    CU_ASSERT_TRUE(is_there("step-000000000080.part/rows")); /* locked, all the time */
    close(fd);
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root, CLU_SNAPSHOT_ALL), CLU_OK);
    CU_ASSERT_FALSE(is_there("step-000000000080.part"));
    CU_ASSERT_EQUAL(newest(), 110);
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

static void commit_pinned(uint64_t step, int64_t keep)
{
    struct clu_manifest manifest = {.job_id = 5, .generation = 2, .step = step};
    char folder[CLU_PATH_BYTES];
    begin(step);
    clu_snapshot_folder(root, step, true, folder);
    put(folder, CLU_SNAPSHOT_PIN_FILE, "the best");
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &manifest, keep), CLU_OK);
}

static void test_a_pinned_snapshot_stays_until_a_newer_one_is_pinned(void)
{
    open_root();
    commit(1, 2);
    commit_pinned(2, 2);
    for (uint64_t step = 3; step <= 6; step++)
        commit(step, 2);
    CU_ASSERT_FALSE(is_there("step-000000000001"));
    CU_ASSERT_TRUE(is_there("step-000000000002"));
    CU_ASSERT_FALSE(is_there("step-000000000004"));
    CU_ASSERT_TRUE(is_there("step-000000000005"));
    CU_ASSERT_EQUAL(newest(), 6);
    commit_pinned(7, 2);
    CU_ASSERT_FALSE(is_there("step-000000000002"));
    CU_ASSERT_TRUE(is_there("step-000000000006"));
    commit(8, 1);
    CU_ASSERT_TRUE(is_there("step-000000000007"));
    CU_ASSERT_FALSE(is_there("step-000000000006"));
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

static uint64_t newest_if_sure_of(uint64_t step)
{
    char folder[CLU_PATH_BYTES];
    struct clu_manifest manifest = {0};
    (void)clu_snapshot_newest(root, step, folder, &manifest);
    uint64_t found = manifest.step;
    clu_manifest_fini(&manifest);
    return found;
}

/* Who is sure of a snapshot reads all but its rows, of which the sizes must be right; what an older
 * one stands upon is then read all the same. */
static void test_of_a_snapshot_one_is_sure_of_the_rows_are_not_read(void)
{
    static const struct {
        const char *name;
        int how;
        uint64_t found;
    } cases[] = {
        {"step-000000000030/rows/shard-0", 2, 30}, {"step-000000000030/rows/shard-0", 0, 20},
        {"step-000000000030/rows/shard-0", 1, 20}, {"step-000000000030/dense.safetensors", 2, 20},
        {"step-000000000020/rows/shard-1", 2, 30}, {"step-000000000020/rows/shard-1", 0, 10},
        {"step-000000000010/rows/shard-1", 2, 30}, {"step-000000000010/rows/shard-1", 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        open_root();
        commit(10, 0);
        commit_delta(20, 10, 0);
        commit_delta(30, 20, 0);
        damage(cases[i].name, cases[i].how);
        CU_ASSERT_EQUAL(newest_if_sure_of(30), cases[i].found);
        CU_ASSERT(newest_if_sure_of(20) < 30);
        CU_ASSERT(newest() < 30);
        close_root();
    }
    open_root();
    commit(10, 0);
    commit_delta(20, 10, 0);
    commit_delta(30, 20, 0);
    damage("step-000000000010/rows/shard-0", 2);
    damage("step-000000000030/dense.safetensors", 2);
    CU_ASSERT_EQUAL(newest_if_sure_of(30), 0);
    close_root();
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

/* full 10 <- 20 <- 30, full 40 <- 50 */
static void commit_two_chains(int64_t keep)
{
    commit(10, keep);
    commit_delta(20, 10, keep);
    commit_delta(30, 20, keep);
    commit(40, keep);
    commit_delta(50, 40, keep);
}

static void test_a_chain_opens_with_all_its_links(void)
{
    char folder[CLU_PATH_BYTES];
    struct clu_snapshot chain;
    const char **paths;
    size_t n;
    open_root();
    commit_two_chains(0);
    CU_ASSERT_EQUAL(newest(), 50);
    clu_snapshot_folder(root, 30, false, folder);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_open(folder, &chain), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(chain.n_links, 3);
    for (uint64_t i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(chain.links[i].manifest.step, 10 * (i + 1));
    CU_ASSERT_EQUAL(clu_snapshot_verify(&chain, true), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_row_files(&chain, &paths, &n), CLU_OK);
    CU_ASSERT_EQUAL(n, 6);
    CU_ASSERT_PTR_NOT_NULL(strstr(paths[5], "step-000000000030/rows/shard-1"));
    free(paths);
    clu_snapshot_fini(&chain);
    close_root();
}

static void test_damage_in_any_file_of_any_link_falls_back_to_the_newest_whole_chain(void)
{
    static const char *const files[] = {"dense.safetensors", "rows/shard-0", "rows/shard-1",
                                        "manifest.json"};
    static const struct {
        uint64_t link, found;
    } cases[] = {{50, 40}, {40, 30}, {30, 50}, {20, 50}, {10, 50}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t file = 0; file < 4; file++)
            for (int how = 0; how < 3; how++) {
                char name[128];
                struct clu_snapshot chain;
                char folder[CLU_PATH_BYTES];
                open_root();
                commit_two_chains(0);
                snprintf(name, sizeof(name), "step-%012llu/%s", (unsigned long long)cases[i].link,
                         files[file]);
                damage(name, how);
                CU_ASSERT_EQUAL(newest(), cases[i].found);
                clu_snapshot_folder(root, cases[i].link >= 40 ? 50 : 30, false, folder);
                int status = clu_snapshot_open(folder, &chain);
                if (!status) {
                    status = clu_snapshot_verify(&chain, true);
                    clu_snapshot_fini(&chain);
                }
                CU_ASSERT(status == CLU_E_CORRUPT || (how == 1 && status == CLU_E_NOT_FOUND));
                if (cases[i].link != 40)
                    damage("step-000000000040/rows/shard-0", 1);
                /* only the older chain is left */
                CU_ASSERT_EQUAL(newest(), cases[i].link < 40 ? cases[i].link - 10 : 30);
                close_root();
            }
}

static void test_any_bit_of_a_manifest_that_changes_is_noticed(void)
{
    char path[CLU_PATH_BYTES], folder[CLU_PATH_BYTES], *text;
    size_t size;
    struct clu_manifest manifest;
    open_root();
    commit_two_chains(0);
    clu_snapshot_folder(root, 30, false, folder);
    clu_path_join(path, sizeof(path), folder, "manifest.json");
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 20, &text, &size), CLU_OK);
    for (size_t i = 0; i < 8 * size; i++) { /* every bit */
        text[i / 8] ^= (char)(1 << i % 8);
        CU_ASSERT_EQUAL(clu_file_write_atomic(path, text, size), CLU_OK);
        CU_ASSERT_EQUAL(clu_manifest_load(folder, &manifest), CLU_E_CORRUPT);
        text[i / 8] ^= (char)(1 << i % 8);
    }
    CU_ASSERT_EQUAL(clu_file_write_atomic(path, text, size / 2), CLU_OK);
    CU_ASSERT_EQUAL(clu_manifest_load(folder, &manifest), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(clu_file_write_atomic(path, text, size), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_manifest_load(folder, &manifest), CLU_OK);
    CU_ASSERT_EQUAL(manifest.base_step, 20);
    clu_manifest_fini(&manifest);
    free(text);
    close_root();
}

static void test_a_delta_upon_another_snapshot_of_that_step_is_refused(void)
{
    open_root();
    commit(10, 0);
    commit_delta(20, 10, 0);
    char folder[CLU_PATH_BYTES];
    struct clu_manifest other = {.job_id = 5, .generation = 3, .step = 10};
    begin(10); /* of another life: it replaces the first */
    CU_ASSERT_EQUAL(clu_snapshot_commit(root, &other, 0), CLU_OK);
    CU_ASSERT_EQUAL(newest(), 10);
    struct clu_snapshot chain;
    clu_snapshot_folder(root, 20, false, folder);
    CU_ASSERT_EQUAL(clu_snapshot_open(folder, &chain), CLU_E_CORRUPT);
    close_root();
}

static void test_a_delta_is_not_committed_upon_a_damaged_or_missing_base(void)
{
    open_root();
    CU_ASSERT_EQUAL(try_commit(20, 10, 0), CLU_E_NOT_FOUND);
    commit(10, 0);
    commit_delta(20, 10, 0);
    damage("step-000000000010/rows/shard-1", 0);
    CU_ASSERT_EQUAL(try_commit(30, 20, 0), CLU_E_CORRUPT); /* the chain below it counts too */
    CU_ASSERT_FALSE(is_there("step-000000000030"));
    damage("step-000000000010/manifest.json", 1);
    CU_ASSERT_EQUAL(try_commit(30, 20, 0), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(try_commit(30, 0, 0), CLU_OK);
    CU_ASSERT_EQUAL(newest(), 30);
    close_root();
}

static void test_keep_counts_what_can_be_restored_and_spares_its_bases(void)
{
    open_root();
    commit(10, 2);
    commit_delta(20, 10, 2);
    commit_delta(30, 20, 2);
    CU_ASSERT_TRUE(is_there("step-000000000010")); /* 20 and 30 are kept, and need it */
    commit(40, 2);
    CU_ASSERT_TRUE(is_there("step-000000000010") && is_there("step-000000000030"));
    commit_delta(50, 40, 2);
    CU_ASSERT_FALSE(is_there("step-000000000030") || is_there("step-000000000020") ||
                    is_there("step-000000000010"));
    damage("step-000000000050/rows/shard-1", 0);
    commit_delta(60, 40, 2); /* 50 does not count, and stays for a look */
    CU_ASSERT_TRUE(is_there("step-000000000050") && is_there("step-000000000040"));
    commit(70, 1);
    CU_ASSERT_FALSE(is_there("step-000000000060") || is_there("step-000000000050"));
    CU_ASSERT_EQUAL(newest(), 70);
    close_root();
}

/* ---- a committer that dies ---- */

static int calls_left = -1; /* of those below, in the child; -1: any number */

static void count_call(void)
{
    if (calls_left >= 0 && calls_left-- == 0)
        _exit(9);
}

int __real_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    count_call();
    return __real_renameat2(from_dir, from, to_dir, to, flags);
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    count_call();
    return __real_unlink(path);
}

int __real_rmdir(const char *path);
int __wrap_rmdir(const char *path);
int __wrap_rmdir(const char *path)
{
    count_call();
    return __real_rmdir(path);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    count_call();
    return __real_fsync(fd);
}

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    count_call();
    return __real_write(fd, data, size);
}

/* Commits step 50 upon 40 in a child that dies at its n-th call; true when it did not get there. */
static bool die_at(int n)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        calls_left = n;
        _exit(try_commit(50, 40, 1) ? 1 : 0);
    }
    int status;
    CU_ASSERT_EQUAL_FATAL(waitpid(child, &status, 0), child);
    CU_ASSERT_FATAL(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
    return WEXITSTATUS(status) == 9;
}

/* How many entries of the root are neither `latest`, nor a snapshot with its manifest, nor the one
 * that is allowed. names_only: of those, how many look like a snapshot by their name. */
static int n_rubbish(const char *allowed, bool names_only)
{
    int n = 0;
    DIR *dir = opendir(root);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char manifest[300];
        const char *name = entry->d_name;
        snprintf(manifest, sizeof(manifest), "%s/manifest.json", name);
        bool step = strncmp(name, "step-", 5) == 0 && !strchr(name, '.');
        if (name[0] == '.' || strcmp(name, "latest") == 0 || strcmp(name, allowed) == 0 ||
            (step && is_there(manifest)) || (names_only && !step))
            continue;
        printf("  rubbish: %s\n", name);
        n++;
    }
    if (dir)
        closedir(dir);
    return n;
}

/* The committer dies at its n-th call; then its successor or a new life begins, and commits. True
 * when it died. */
static bool die_and_go_on(int n, bool new_life, int *n_old_p)
{
    open_root();
    commit(10, 0); /* what keep 1 removes at the end: a chain */
    commit_delta(20, 10, 0);
    commit_delta(30, 20, 0);
    commit(40, 0);
    bool died = die_at(n);
    uint64_t found = newest();
    CU_ASSERT(found == 40 || found == 50);
    *n_old_p += found == 40;
    CU_ASSERT_EQUAL(n_rubbish("", true), 0);
    CU_ASSERT_EQUAL(clu_snapshot_sweep(root, new_life ? CLU_SNAPSHOT_ALL : 0), CLU_OK);
    CU_ASSERT_EQUAL(n_rubbish(new_life ? "" : "step-000000000050.part", false), 0);
    CU_ASSERT_EQUAL(newest(), found);
    commit_delta(60, found, 1);
    CU_ASSERT_EQUAL(newest(), 60);
    CU_ASSERT_EQUAL(n_rubbish("", false), 0);
    CU_ASSERT_FALSE(is_there("step-000000000030") || is_there("step-000000000010"));
    close_root();
    return died;
}

static void test_a_commit_that_dies_at_any_call_leaves_a_restorable_chain_and_no_rubbish(void)
{
    for (int new_life = 0; new_life < 2; new_life++) {
        int n = 0, n_old = 0;
        while (die_and_go_on(n, new_life, &n_old))
            n++;
        printf("  %d calls, %d before the new one counts\n", n, n_old);
        CU_ASSERT(n > 30 && n_old > 5 && n_old < n - 5);
    }
}

SUITE("cluster.snapshot", T(test_a_committed_snapshot_is_found_and_verifies),
      T(test_an_uncommitted_snapshot_does_not_count_and_is_swept),
      T(test_a_sweep_spares_what_is_being_written), T(test_keep_removes_the_oldest),
      T(test_a_pinned_snapshot_stays_until_a_newer_one_is_pinned),
      T(test_a_damaged_snapshot_is_passed_over_for_the_one_before),
      T(test_of_a_snapshot_one_is_sure_of_the_rows_are_not_read),
      T(test_a_commit_is_refused_when_the_disk_disagrees_with_a_report),
      T(test_a_reported_sum_is_taken_without_reading), T(test_committing_twice_is_committing_once),
      T(test_a_damaged_snapshot_is_replaced_and_set_aside),
      T(test_a_path_means_the_newest_or_itself), T(test_a_chain_opens_with_all_its_links),
      T(test_damage_in_any_file_of_any_link_falls_back_to_the_newest_whole_chain),
      T(test_any_bit_of_a_manifest_that_changes_is_noticed),
      T(test_a_delta_upon_another_snapshot_of_that_step_is_refused),
      T(test_a_delta_is_not_committed_upon_a_damaged_or_missing_base),
      T(test_keep_counts_what_can_be_restored_and_spares_its_bases),
      T(test_a_commit_that_dies_at_any_call_leaves_a_restorable_chain_and_no_rubbish))

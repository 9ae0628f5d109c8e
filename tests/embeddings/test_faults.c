/* What goes wrong around a shard: no memory at any allocation, a full disk, torn and altered files.
 * Every failure is a status, nothing that was there before is harmed, and the same call works once
 * the cause is gone. */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"

#include <dirent.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* ---- allocations that fail on demand (the linker puts these in front of malloc and its kin) ----
 * */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static _Atomic long allocations_left = -1; /* -1: all succeed; atomic: the scribe allocates too */

static bool refused(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left == 0)
        return true;
    allocations_left--;
    return false;
}

void *__wrap_malloc(size_t size)
{
    return refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refused() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return refused() ? NULL : __real_realloc(old, size);
}

static struct emb_table_spec fault_spec(void)
{
    struct emb_table_spec spec;
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = RIG_DIM;
    spec.learning_rate = 0.01;
    return spec;
}

static struct rig_model *new_model(const struct emb_table_spec *spec)
{
    struct rig_model *model = calloc(1, sizeof(*model));
    model->spec = *spec;
    emb_updater_init(&model->updater, spec);
    return model;
}

static void free_model(struct rig_model *model)
{
    emb_updater_fini(&model->updater);
    free(model);
}

/* One push with the n-th allocation failing; then, if it failed, again without. */
static int push_with_fault(struct emb_shard *shard, const uint64_t *keys, size_t n,
                           const float *grads, uint64_t step, long fail_at)
{
    allocations_left = fail_at;
    int status = emb_shard_push(shard, 0, keys, n, grads, step);
    allocations_left = -1;
    return status;
}

static int snapshot_with_fault(struct emb_shard *shard, uint64_t step, const char *path,
                               long fail_at)
{
    allocations_left = fail_at;
    int status = emb_shard_snapshot(shard, step, path, NULL);
    allocations_left = -1;
    return status;
}

/* Every allocation of a life fails once: open, push, mark, commit, snapshot; the state stays the
 * model's. */
static void test_every_allocation_may_fail_once(void)
{
    char dir[256], shard_dir[300], path[300];
    static uint32_t numbers[RIG_KEYS];
    static uint64_t keys[RIG_KEYS];
    static float grads[RIG_KEYS * RIG_DIM];
    uint64_t random = suite_seed();
    struct emb_table_spec spec = fault_spec();
    spec.min_count = 2;
    struct rig_model *model = new_model(&spec);
    rig_folder(dir, sizeof(dir), "alloc");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    struct emb_shard_options options = {.dir = shard_dir, .durability = EMB_DURABILITY_LOG};
    rig_quiet(true);
    int n_failed = 0;
    bool right = true;
    for (long fail_at = 0; fail_at < 120 && right; fail_at++) {
        struct emb_shard *shard = NULL;
        allocations_left = fail_at;
        int status = emb_shard_open(&options, &spec, 1, &shard);
        allocations_left = -1;
        n_failed += status != CLU_OK;
        right &= status == CLU_OK || status == CLU_E_NO_MEMORY;
        if (status)
            status = emb_shard_open(&options, &spec, 1, &shard);
        right &= status == CLU_OK;
        for (int i = 0; i < 3 && right; i++) {
            size_t n = rig_pick(&random, 200, numbers);
            uint64_t step = model->clock + 1;
            for (size_t k = 0; k < n; k++) {
                keys[k] = rig_key(numbers[k]);
                for (int j = 0; j < RIG_DIM; j++)
                    grads[k * RIG_DIM + (size_t)j] = (float)suite_uniform(&random, -1, 1);
            }
            status = push_with_fault(shard, keys, n, grads, step, fail_at % 12);
            n_failed += status != CLU_OK;
            right &= status == CLU_OK || status == CLU_E_NO_MEMORY;
            if (status)
                right &= push_with_fault(shard, keys, n, grads, step, -1) == CLU_OK;
            for (size_t k = 0; k < n; k++)
                rig_push(model, numbers[k], grads + k * RIG_DIM, step);
            model->clock = step;
            right &= emb_shard_mark(shard, 7, step) == CLU_OK;
            right &= emb_shard_tick(shard, step) == CLU_OK && emb_shard_commit(shard) == CLU_OK;
        }
        status = snapshot_with_fault(shard, model->clock, path, fail_at);
        n_failed += status != CLU_OK;
        right &= status == CLU_OK || status == CLU_E_NO_MEMORY;
        if (status) {
            clu_remove_tree(path);
            right &= snapshot_with_fault(shard, model->clock, path, -1) == CLU_OK;
        }
        right &= clu_remove_tree(path) == CLU_OK;
        right &= rig_agrees(shard, model);
        emb_shard_close(shard);
    }
    rig_quiet(false);
    printf("  %d failures survived\n", n_failed);
    CU_ASSERT_TRUE(right);
    CU_ASSERT(n_failed > 50);
    free_model(model);
    clu_remove_tree(dir);
}

/* ---- disk full ---- */

/* A file system of so much room at path; false, and said, where that is not allowed. */
static bool mount_small(const char *path, const char *size)
{
    clu_mkdirs(path);
    if (mount("tmpfs", path, "tmpfs", 0, size) == 0)
        return true;
    printf("  skipped: a small file system can only be mounted by root\n");
    return false;
}

static void test_a_full_disk_loses_nothing_acknowledged(void)
{
    char dir[256], shard_dir[300], path[300], ballast[300];
    uint64_t random = suite_seed();
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    rig_folder(dir, sizeof(dir), "full");
    if (!mount_small(dir, "size=6m")) {
        free_model(model);
        clu_remove_tree(dir);
        return;
    }
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
    char *mib = calloc(1, 1 << 20);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(ballast, mib, 1 << 20), CLU_OK);
    free(mib);
    struct emb_shard_options options = {.dir = shard_dir, .durability = EMB_DURABILITY_LOG};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    rig_quiet(true);
    int status = CLU_OK, n = 0;
    while (!status && n++ < 3000)
        status = rig_step(shard, model, &random, 400);
    int again = emb_shard_commit(shard); /* still full, still pending */
    rig_quiet(false);
    printf("  full after %d steps\n", n);
    CU_ASSERT_EQUAL(status, CLU_E_FULL);
    CU_ASSERT_EQUAL(again, CLU_E_FULL);
    CU_ASSERT_EQUAL(clu_remove_tree(ballast), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_commit(shard), CLU_OK); /* room again: it goes through */
    CU_ASSERT_TRUE(rig_agrees(shard, model));
    emb_shard_close(shard);
    clu_remove_tree(ballast);
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(shard, model));
    emb_shard_close(shard);
    umount(dir);
    free_model(model);
    clu_remove_tree(dir);
}

static void test_a_snapshot_on_a_full_disk_fails_and_harms_nothing(void)
{
    char dir[256], disk[300], path[400], shard_dir[300];
    uint64_t random = suite_seed();
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    rig_folder(dir, sizeof(dir), "fullfile");
    snprintf(disk, sizeof(disk), "%s/disk", dir);
    snprintf(path, sizeof(path), "%s/file", disk);
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    if (!mount_small(disk, "size=64k")) {
        free_model(model);
        clu_remove_tree(dir);
        return;
    }
    struct emb_shard_options options = {.dir = shard_dir};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    for (int i = 0; i < 10; i++)
        CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 800), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_snapshot(shard, 10, path, NULL), CLU_E_FULL);
    CU_ASSERT_FALSE(clu_path_exists(path));
    CU_ASSERT_TRUE(rig_agrees(shard, model));
    CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 800), CLU_OK);
    snprintf(path, sizeof(path), "%s/file", dir);
    CU_ASSERT_EQUAL(emb_shard_snapshot(shard, 11, path, NULL), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(shard, model));
    emb_shard_close(shard);
    umount(disk);
    free_model(model);
    clu_remove_tree(dir);
}

/* Takes all the room of a file system, to the last byte. */
static void fill_up(const char *path)
{
    static const char zeros[1 << 16];
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    CU_ASSERT_FATAL(fd >= 0);
    for (size_t size = sizeof(zeros); size > 0;)
        if (write(fd, zeros, size) <= 0)
            size /= 2;
    close(fd);
}

/* Durability snapshot: what a step needs is in memory. That an older snapshot cannot be merged now
 * is no reason to refuse it; the next snapshot needs the merge, and says so. */
static void test_a_merge_on_a_full_disk_stops_no_step(void)
{
    enum { ROWS = 800 };
    char dir[256], shard_dir[300], path[300], ballast[400];
    uint64_t random = suite_seed(), step = 0;
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    rig_folder(dir, sizeof(dir), "fullmerge");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(ballast, sizeof(ballast), "%s/ballast", shard_dir);
    if (!mount_small(shard_dir, "size=16m")) {
        free_model(model);
        clu_remove_tree(dir);
        return;
    }
    struct emb_shard_options options = {.dir = shard_dir};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    for (int i = 0; i < 2; i++) { /* the first becomes the base, the second is to be merged */
        for (int j = 0; j < 10; j++, step++)
            CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, ROWS), CLU_OK);
        unlink(path);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot(shard, step, path, NULL), CLU_OK);
    }
    fill_up(ballast);
    rig_quiet(true);
    for (int i = 0; i < 40; i++, step++) {
        CU_ASSERT_EQUAL(rig_step(shard, model, &random, ROWS), CLU_OK);
        usleep(2000); /* the merge's time */
    }
    unlink(path);
    int status = emb_shard_snapshot(shard, step, path, NULL);
    rig_quiet(false);
    CU_ASSERT_EQUAL(status, CLU_E_FULL);
    CU_ASSERT_FALSE(clu_path_exists(path));
    unlink(ballast);
    CU_ASSERT_EQUAL(emb_shard_snapshot(shard, step, path, NULL), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(shard, model));
    emb_shard_close(shard);
    umount(shard_dir);
    free_model(model);
    clu_remove_tree(dir);
}

/* A snapshot that stands still while pushes go on: what it keeps from being used again is told, and
 * it is given up when that is too much, without harm to anything. */
static void test_a_snapshot_that_stands_still_is_given_up(void)
{
    char dir[256], shard_dir[300], path[300];
    uint64_t random = suite_seed(), held = 0;
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    struct emb_snapshot_result result;
    struct emb_shard_stats stats;
    rig_folder(dir, sizeof(dir), "held");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    struct emb_shard_options options = {
        .dir = shard_dir, .memory_bytes = 200 << 10, .held_bytes = 256 << 10};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    for (int i = 0; i < 20; i++)
        CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 900), CLU_OK);
    uint64_t step = model->clock;
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(shard, EMB_SNAPSHOT_FULL, step, path), CLU_OK);
    int status = CLU_E_AGAIN;
    for (int i = 0; i < 4000 && status == CLU_E_AGAIN && held == 0; i++) {
        status = emb_shard_snapshot_advance(shard, 100, &result);
        CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 300), CLU_OK);
        emb_shard_stats(shard, &stats);
        held = stats.pages_held;
    }
    if (status == CLU_E_AGAIN) { /* its file is being written: no more advances, so it stands */
        for (int i = 0; i < 3000 && stats.pages_held * 4096 < stats.file_bytes / 2 + (300 << 10);
             i++) {
            CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 900), CLU_OK);
            emb_shard_stats(shard, &stats);
        }
        printf("  %llu of %llu KiB held\n", (unsigned long long)stats.pages_held * 4,
               (unsigned long long)stats.file_bytes >> 10);
        CU_ASSERT(stats.pages_held > held);
        rig_quiet(true);
        CU_ASSERT_EQUAL(emb_shard_snapshot_advance(shard, 100, &result), CLU_E_FULL);
        rig_quiet(false);
        CU_ASSERT_FALSE(clu_path_exists(path));
    }
    emb_shard_stats(shard, &stats);
    CU_ASSERT_EQUAL(stats.pages_held, 0);
    CU_ASSERT_TRUE(rig_agrees(shard, model));
    clu_remove_tree(path);
    CU_ASSERT_EQUAL(emb_shard_snapshot(shard, model->clock, path, NULL), CLU_OK);
    emb_shard_close(shard);
    free_model(model);
    clu_remove_tree(dir);
}

/* ---- torn and altered files ---- */

static void find_log(const char *dir, char *path, size_t path_bytes)
{
    DIR *folder = opendir(dir);
    CU_ASSERT_FATAL(folder != NULL);
    off_t largest = -1;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char candidate[600];
        struct stat st;
        snprintf(candidate, sizeof(candidate), "%s/%s", dir, entry->d_name);
        if (strncmp(entry->d_name, "push-", 5) == 0 && stat(candidate, &st) == 0 &&
            st.st_size > largest) {
            largest = st.st_size;
            snprintf(path, path_bytes, "%s", candidate);
        }
    }
    closedir(folder);
}

/* Five groups in the log of a fresh shard; size_of[i]: file size after i of them. */
static struct rig_model *write_log(const char *dir, uint64_t seed, off_t *size_of)
{
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    struct emb_shard_options options = {.dir = dir, .durability = EMB_DURABILITY_LOG};
    struct emb_shard *shard;
    char path[700];
    struct stat st;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    for (int i = 0; i <= 5; i++) {
        if (i)
            CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &seed, 20), CLU_OK);
        find_log(dir, path, sizeof(path));
        CU_ASSERT_EQUAL_FATAL(stat(path, &st), 0);
        size_of[i] = st.st_size;
    }
    emb_shard_close(shard);
    return model;
}

static int open_and_step(const char *dir, uint64_t *step_p)
{
    struct emb_table_spec spec = fault_spec();
    struct emb_shard_options options = {.dir = dir, .durability = EMB_DURABILITY_LOG};
    struct emb_shard *shard;
    int status = emb_shard_open(&options, &spec, 1, &shard);
    if (status)
        return status;
    *step_p = emb_shard_step(shard);
    emb_shard_close(shard);
    return CLU_OK;
}

static void test_a_torn_group_at_the_end_is_cut_off(void)
{
    char dir[256], path[700];
    off_t size_of[6];
    uint64_t random = suite_seed();
    for (int round = 0; round < 12; round++) {
        rig_folder(dir, sizeof(dir), "torn");
        free_model(write_log(dir, 5, size_of));
        off_t size =
            size_of[4] + (off_t)(suite_random(&random) % (uint64_t)(size_of[5] - size_of[4]));
        find_log(dir, path, sizeof(path));
        CU_ASSERT_EQUAL_FATAL(truncate(path, size), 0);
        uint64_t step = 0;
        rig_quiet(true);
        CU_ASSERT_EQUAL(open_and_step(dir, &step), CLU_OK);
        rig_quiet(false);
        CU_ASSERT_EQUAL(step, 4);
    }
    clu_remove_tree(dir);
}

static void flip(const char *path, off_t at)
{
    char byte = 0;
    int fd = open(path, O_RDWR);
    CU_ASSERT_FATAL(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 4;
    CU_ASSERT_EQUAL(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_a_bit_flipped_inside_the_log_is_refused(void)
{
    char dir[256], path[700];
    off_t size_of[6];
    uint64_t random = suite_seed();
    for (int round = 0; round < 12; round++) {
        rig_folder(dir, sizeof(dir), "flip");
        free_model(write_log(dir, 5, size_of));
        find_log(dir, path, sizeof(path));
        flip(path, (off_t)(suite_random(&random) % (uint64_t)size_of[4]));
        uint64_t step = 0;
        rig_quiet(true);
        CU_ASSERT_EQUAL(open_and_step(dir, &step), CLU_E_CORRUPT);
        rig_quiet(false);
    }
    clu_remove_tree(dir);
}

static void test_a_bit_flipped_in_a_stored_row_is_refused(void)
{
    char dir[256], shard_dir[300], path[320], *bytes;
    uint64_t random = suite_seed();
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    rig_folder(dir, sizeof(dir), "row");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    struct emb_shard_options options = {.dir = shard_dir};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 300), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot(shard, 3, path, NULL), CLU_OK);
    emb_shard_close(shard);
    uint32_t i = 0;
    while (!model->row[i].count)
        i++;
    size_t size;
    snprintf(path, sizeof(path), "%s/data.mdb", shard_dir);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 28, &bytes, &size), CLU_OK);
    int n_found = 0;
    for (char *at = bytes; (at = memmem(at, size - (size_t)(at - bytes), model->row[i].state,
                                        sizeof(model->row[i].state))) != NULL;
         at++, n_found++)
        flip(path, at - bytes + 7);
    CU_ASSERT(n_found > 0);
    free(bytes);
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    uint64_t key = rig_key(i);
    float row[RIG_DIM];
    CU_ASSERT_EQUAL(emb_shard_pull(shard, 0, &key, 1, row), CLU_E_CORRUPT);
    emb_shard_close(shard);
    free_model(model);
    clu_remove_tree(dir);
}

static void test_a_machine_that_went_down_is_noticed(void)
{
    char dir[256], path[300];
    uint64_t random = suite_seed();
    struct emb_table_spec spec = fault_spec();
    struct rig_model *model = new_model(&spec);
    struct emb_shard_options options;
    rig_folder(dir, sizeof(dir), "boot");
    snprintf(path, sizeof(path), "%s/boot", dir);
    options = (struct emb_shard_options){.dir = dir};
    struct emb_shard *shard, *other;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(rig_step(shard, model, &random, 300), CLU_OK);
    emb_shard_close(shard);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, "open another-boot\n", 18), CLU_OK);
    CU_ASSERT_EQUAL(emb_shard_open(&options, &spec, 1, &other), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, "clean another-boot\n", 19), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &other), CLU_OK);
    emb_shard_close(other);
    free_model(model);
    clu_remove_tree(dir);
}

SUITE("embeddings.faults", T(test_every_allocation_may_fail_once),
      T(test_a_full_disk_loses_nothing_acknowledged),
      T(test_a_snapshot_on_a_full_disk_fails_and_harms_nothing),
      T(test_a_merge_on_a_full_disk_stops_no_step),
      T(test_a_snapshot_that_stands_still_is_given_up), T(test_a_torn_group_at_the_end_is_cut_off),
      T(test_a_bit_flipped_inside_the_log_is_refused),
      T(test_a_bit_flipped_in_a_stored_row_is_refused), T(test_a_machine_that_went_down_is_noticed))

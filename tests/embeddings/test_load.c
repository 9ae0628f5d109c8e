/* Filling a shard from snapshot files: the same rows whatever the memory and the durability, and
 * when memory runs out, a bit is flipped, the map is small or the process is killed in between, an
 * empty shard that can be filled again. */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"
#include "tests/oom.h"

#include <signal.h>
#include <sys/wait.h>

enum { N_STEPS = 12 };

struct rig {
    char dir[256], shard[300], file[2][300];
    struct emb_table_spec spec;
    struct rig_model model;
    uint64_t random;
};

/* Two files: the snapshot of step 8 of a model's life, and a delta upon it. */
static struct rig *rig_create(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    rig->random = suite_seed();
    rig_folder(rig->dir, sizeof(rig->dir), "load");
    snprintf(rig->shard, sizeof(rig->shard), "%s/shard", rig->dir);
    emb_table_spec_init(&rig->spec);
    snprintf(rig->spec.name, sizeof(rig->spec.name), "item");
    rig->spec.dim = RIG_DIM;
    rig->spec.min_count = 2;
    rig->model.spec = rig->spec;
    emb_updater_init(&rig->model.updater, &rig->spec);
    char source[300];
    snprintf(source, sizeof(source), "%s/source", rig->dir);
    struct emb_shard_options options = {.dir = source};
    struct emb_shard *shard;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &rig->spec, 1, &shard), CLU_OK);
    for (int f = 0; f < 2; f++) {
        struct emb_snapshot_result result;
        while (rig->model.clock < (f ? N_STEPS : 8))
            CU_ASSERT_EQUAL_FATAL(rig_step(shard, &rig->model, &rig->random, 900), CLU_OK);
        snprintf(rig->file[f], sizeof(rig->file[f]), "%s/file-%d", rig->dir, f);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_begin(shard,
                                                       f ? EMB_SNAPSHOT_DELTA : EMB_SNAPSHOT_FULL,
                                                       rig->model.clock, rig->file[f]),
                              CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_advance(shard, INT64_MAX, &result), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(emb_shard_snapshot_confirm(shard, rig->model.clock), CLU_OK);
    }
    emb_shard_close(shard);
    return rig;
}

static void rig_free(struct rig *rig)
{
    emb_updater_fini(&rig->model.updater);
    clu_remove_tree(rig->dir);
    free(rig);
}

static int load(struct rig *rig, struct emb_shard *shard)
{
    const char *files[] = {rig->file[1], rig->file[0]};
    return emb_shard_load(shard, files, 2, NULL, NULL);
}

static struct emb_shard *open_shard(const struct rig *rig, enum emb_durability durability,
                                    uint64_t memory_bytes)
{
    struct emb_shard_options options = {.dir = rig->shard,
                                        .memory_bytes = memory_bytes,
                                        .durability = durability,
                                        .map_bytes = 1 << 20}; /* it has to grow meanwhile */
    struct emb_shard *shard = NULL;
    CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &rig->spec, 1, &shard), CLU_OK);
    return shard;
}

/* How many rows a load leaves in memory is a matter of the budget, which rows there are is not. */
static void test_rows_are_the_same_whatever_the_memory_and_durability(void)
{
    struct rig *rig = rig_create();
    const struct rig_model before = rig->model;
    for (int i = 0; i < 6; i++) {
        const uint64_t memory[] = {0, 96 << 10, 400 << 10};
        enum emb_durability durability = i & 1 ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT;
        struct emb_shard *shard = open_shard(rig, durability, memory[i % 3]);
        CU_ASSERT_EQUAL_FATAL(load(rig, shard), CLU_OK);
        struct emb_shard_stats stats;
        emb_shard_stats(shard, &stats);
        if (memory[i % 3] == 0)
            CU_ASSERT_EQUAL(stats.n_resident, stats.n_rows)
        else
            CU_ASSERT(stats.n_resident < stats.n_rows);
        CU_ASSERT_TRUE(rig_agrees(shard, &rig->model));
        emb_shard_close(shard); /* what was loaded is on disk, without a commit */
        shard = open_shard(rig, durability, memory[i % 3]);
        CU_ASSERT_EQUAL(emb_shard_step(shard), N_STEPS);
        for (int s = 0; s < 3; s++)
            CU_ASSERT_EQUAL_FATAL(rig_step(shard, &rig->model, &rig->random, 600), CLU_OK);
        CU_ASSERT_TRUE(rig_agrees(shard, &rig->model));
        emb_shard_close(shard);
        clu_remove_tree(rig->shard);
        rig->model = before;
    }
    rig_free(rig);
}

static bool is_empty(struct emb_shard *shard)
{
    struct emb_shard_stats stats;
    emb_shard_stats(shard, &stats);
    return stats.n_rows == 0 && stats.step == 0 && rig_count(shard) == 0;
}

static void test_every_allocation_may_fail_once(void)
{
    struct rig *rig = rig_create();
    int n_failed = 0, status;
    rig_quiet(true);
    for (long n = 0, hit = 1; hit; n++) {
        struct emb_shard *shard =
            open_shard(rig, n & 1 ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT, 0);
        oom_arm(n);
        status = load(rig, shard);
        hit = oom_disarm();
        n_failed += status != CLU_OK; /* a row that finds no memory may stay on disk instead */
        CU_ASSERT(status == CLU_OK || (hit && status == CLU_E_NO_MEMORY));
        if (status) {
            CU_ASSERT_TRUE(is_empty(shard));
            status = load(rig, shard);
        }
        CU_ASSERT_EQUAL(status, CLU_OK);
        CU_ASSERT_TRUE(rig_agrees(shard, &rig->model));
        emb_shard_close(shard);
        clu_remove_tree(rig->shard);
    }
    rig_quiet(false);
    printf("  %d failures survived\n", n_failed);
    CU_ASSERT(n_failed > 10);
    rig_free(rig);
}

static void test_a_flipped_bit_leaves_an_empty_shard(void)
{
    struct rig *rig = rig_create();
    struct emb_shard *shard = open_shard(rig, EMB_DURABILITY_LOG, 0);
    rig_quiet(true);
    for (int round = 0; round < 60; round++) {
        char *bytes;
        size_t size;
        const char *path = rig->file[round & 1];
        CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 28, &bytes, &size), CLU_OK);
        size_t at = suite_random(&rig->random) % size;
        char bit = (char)(1 << suite_random(&rig->random) % 8);
        bytes[at] ^= bit;
        CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, bytes, size), CLU_OK);
        CU_ASSERT_EQUAL(load(rig, shard), CLU_E_CORRUPT);
        CU_ASSERT_TRUE(is_empty(shard));
        bytes[at] ^= bit;
        CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, bytes, size), CLU_OK);
        free(bytes);
    }
    rig_quiet(false);
    CU_ASSERT_EQUAL(load(rig, shard), CLU_OK);
    CU_ASSERT_TRUE(rig_agrees(shard, &rig->model));
    emb_shard_close(shard);
    rig_free(rig);
}

/* Killed at any point of a load: opened again, the shard is empty or has all of it. */
static void test_a_killed_load_is_undone(void)
{
    struct rig *rig = rig_create();
    int n_empty = 0, n_whole = 0;
    for (int round = 0; round < 40; round++) {
        enum emb_durability durability = round & 1 ? EMB_DURABILITY_LOG : EMB_DURABILITY_SNAPSHOT;
        fflush(stdout);
        pid_t pid = fork();
        CU_ASSERT_FATAL(pid >= 0);
        if (pid == 0) {
            struct emb_shard *child = open_shard(rig, durability, 0);
            _exit(load(rig, child) != CLU_OK);
        }
        usleep((unsigned)(suite_random(&rig->random) % 12000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        rig_quiet(true);
        struct emb_shard *shard = open_shard(rig, durability, 0);
        if (emb_shard_step(shard) == 0) {
            CU_ASSERT_TRUE(is_empty(shard));
            CU_ASSERT_EQUAL(load(rig, shard), CLU_OK);
            n_empty++;
        } else {
            n_whole++;
        }
        rig_quiet(false);
        CU_ASSERT_EQUAL(emb_shard_step(shard), N_STEPS);
        CU_ASSERT_TRUE(rig_agrees(shard, &rig->model));
        emb_shard_close(shard);
        clu_remove_tree(rig->shard);
    }
    printf("  killed before the end %d times, after it %d times\n", n_empty, n_whole);
    CU_ASSERT(n_empty > 0);
    rig_free(rig);
}

/* Loads are not synced before their end: an environment of a machine that went down in one is
 * refused, also where everything else is synced. */
static void test_a_machine_that_went_down_in_a_load_is_noticed(void)
{
    struct rig *rig = rig_create();
    char path[320];
    snprintf(path, sizeof(path), "%s/boot", rig->shard);
    struct emb_shard *shard = open_shard(rig, EMB_DURABILITY_LOG, 0);
    CU_ASSERT_EQUAL(load(rig, shard), CLU_OK);
    char *text;
    size_t size;
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 4096, &text, &size), CLU_OK);
    CU_ASSERT_EQUAL(strncmp(text, "open ", 5), 0); /* synced from here on */
    free(text);
    emb_shard_close(shard);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, "loading another-boot\n", 21), CLU_OK);
    struct emb_shard_options options = {.dir = rig->shard, .durability = EMB_DURABILITY_LOG};
    rig_quiet(true);
    CU_ASSERT_EQUAL(emb_shard_open(&options, &rig->spec, 1, &shard), CLU_E_CORRUPT);
    rig_quiet(false);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, "open another-boot\n", 18), CLU_OK);
    shard = open_shard(rig, EMB_DURABILITY_LOG, 0);
    CU_ASSERT_TRUE(rig_agrees(shard, &rig->model));
    emb_shard_close(shard);
    rig_free(rig);
}

SUITE("embeddings.load", T(test_rows_are_the_same_whatever_the_memory_and_durability),
      T(test_every_allocation_may_fail_once), T(test_a_flipped_bit_leaves_an_empty_shard),
      T(test_a_killed_load_is_undone), T(test_a_machine_that_went_down_in_a_load_is_noticed))

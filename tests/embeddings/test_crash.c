/* kill -9 at random moments. A child pushes, commits, takes snapshots, rolls its log, in memory too
 * small for its table, and tells the parent of every step it has acknowledged; the parent kills it,
 * opens what is left, and compares every row with a model that ran the same steps.
 * SLUICE_TEST_KILLS says how often (default 30). */
#include "embeddings/shard.h"

#include "tests/embeddings/rig.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

enum { STEPS_A_LIFE = 400 };

static struct emb_table_spec crash_spec(int expire_steps)
{
    struct emb_table_spec spec;
    emb_table_spec_init(&spec);
    snprintf(spec.name, sizeof(spec.name), "item");
    spec.dim = RIG_DIM;
    spec.learning_rate = 0.01;
    spec.min_count = 2;
    spec.expire_steps = expire_steps;
    return spec;
}

/* What step t pushes depends on t alone, so parent and child, and a child that comes back, agree.
 * */
static uint64_t random_of(uint64_t seed, uint64_t step)
{
    return clu_mix(seed + step);
}

struct word {      /* child to parent: one write each */
    uint32_t kind; /* 1: step acknowledged, 2: snapshot finished, 3: confirmed, 9: failed */
    uint32_t status;
    uint64_t step;
};

static void say(int pipe_fd, uint32_t kind, uint64_t step, int status)
{
    struct word word = {kind, (uint32_t)-status, step};
    if (write(pipe_fd, &word, sizeof(word)) != sizeof(word))
        _exit(1);
}

static void child(const struct emb_shard_options *options, struct emb_table_spec spec,
                  uint64_t seed, int pipe_fd, int life, const char *dir)
{
    struct rig_model *model = calloc(1, sizeof(*model)); /* only its clock is used */
    struct emb_shard *shard;
    struct emb_snapshot_result result;
    char path[400];
    int status = emb_shard_open(options, &spec, 1, &shard), n_files = 0;
    if (status || !model)
        say(pipe_fd, 9, 0, status);
    model->spec = spec;
    emb_updater_init(&model->updater, &spec);
    model->clock = emb_shard_step(shard);
    uint64_t random = random_of(seed, (uint64_t)life), confirm = 0;
    bool running = false;
    for (int i = 0; i < STEPS_A_LIFE && !status; i++) {
        uint64_t of_step = random_of(seed, model->clock + 1);
        status = rig_step(shard, model, &of_step, 300);
        if (!status)
            say(pipe_fd, 1, model->clock, 0);
        if (!status && confirm && suite_random(&random) % 2) {
            status = emb_shard_snapshot_confirm(shard, confirm);
            if (!status)
                say(pipe_fd, 3, confirm, 0);
            if (status == CLU_E_NOT_FOUND) /* a later one has taken it in */
                status = CLU_OK;
            confirm = 0;
        }
        if (status || (!running && suite_random(&random) % 8))
            continue;
        if (!running) {
            snprintf(path, sizeof(path), "%s/%d-%d", dir, life, n_files++);
            status = emb_shard_snapshot_begin(shard, EMB_SNAPSHOT_FULL, model->clock, path);
            running = !status;
            continue;
        }
        status = emb_shard_snapshot_advance(shard, 300, &result);
        if (status == CLU_OK) {
            say(pipe_fd, 2, result.step, 0);
            confirm = result.step;
            running = false;
            unlink(path);
        } else if (status == CLU_E_AGAIN) {
            status = CLU_OK;
        }
    }
    say(pipe_fd, 9, 0, status);
    emb_shard_close(shard);
    _exit(0);
}

struct heard {
    uint64_t acknowledged, finished, confirmed;
    bool failed;
};

static void listen(int pipe_fd, struct heard *heard)
{
    struct word word;
    ssize_t n;
    while ((n = read(pipe_fd, &word, sizeof(word))) == sizeof(word) || (n < 0 && errno == EINTR)) {
        if (word.kind == 1)
            heard->acknowledged = word.step;
        else if (word.kind == 2)
            heard->finished = word.step;
        else if (word.kind == 3)
            heard->confirmed = word.step;
        else if (word.status)
            heard->failed = true;
    }
}

/* Runs a child, kills it after some milliseconds, and gathers what it had said. */
static void live_and_die(const struct emb_shard_options *options, const struct emb_table_spec *spec,
                         uint64_t seed, int life, const char *dir, unsigned delay_us,
                         struct heard *heard)
{
    int fds[2];
    CU_ASSERT_EQUAL_FATAL(pipe(fds), 0);
    fflush(stdout);
    pid_t pid = fork();
    CU_ASSERT_FATAL(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        child(options, *spec, seed, fds[1], life, dir);
    }
    close(fds[1]);
    usleep(delay_us);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    listen(fds[0], heard);
    close(fds[0]);
}

/* The model as it is after a number of steps. */
static void replay_model(struct rig_model *model, uint64_t seed, uint64_t steps)
{
    static uint32_t numbers[RIG_KEYS];
    struct emb_updater updater = model->updater;
    struct emb_table_spec spec = model->spec;
    memset(model, 0, sizeof(*model));
    model->updater = updater;
    model->spec = spec;
    for (uint64_t step = 1; step <= steps; step++) {
        uint64_t random = random_of(seed, step);
        size_t n = rig_pick(&random, 300, numbers);
        float grad[RIG_DIM];
        for (size_t i = 0; i < n; i++) {
            for (int j = 0; j < RIG_DIM; j++)
                grad[j] = (float)suite_uniform(&random, -1, 1);
            rig_push(model, numbers[i], grad, step);
        }
        model->clock = step;
    }
}

static int n_kills(void)
{
    const char *text = getenv("SLUICE_TEST_KILLS");
    return text ? atoi(text) : 30;
}

/* A walk over the rows and the shard's count of them agree, but for expired rows that wait for the
 * sweep. */
static void check_count(struct emb_shard *shard, const struct emb_table_spec *spec)
{
    struct emb_shard_stats stats;
    uint64_t n = rig_count(shard);
    emb_shard_stats(shard, &stats);
    if (stats.n_rows != n && (spec->expire_steps == 0 || stats.n_rows < n))
        printf("  %llu rows counted, %llu found\n", (unsigned long long)stats.n_rows,
               (unsigned long long)n);
    CU_ASSERT(stats.n_rows == n || (spec->expire_steps > 0 && stats.n_rows > n));
}

/* The same once all have expired and nothing waits for the sweep. */
static void check_count_when_swept(struct emb_shard *shard, struct emb_table_spec spec)
{
    const int sweep_steps = spec.expire_steps ? 60 : 0;
    for (int i = 0; i < spec.expire_steps + sweep_steps; i++) {
        CU_ASSERT_EQUAL(emb_shard_tick(shard, emb_shard_step(shard) + 1), CLU_OK);
        CU_ASSERT_EQUAL(emb_shard_commit(shard), CLU_OK);
    }
    spec.expire_steps = 0;
    check_count(shard, &spec);
}

static void many_lives(enum emb_durability durability, int expire_steps)
{
    char dir[256], shard_dir[300];
    uint64_t seed = suite_seed(), random = seed;
    rig_folder(dir, sizeof(dir), "crash");
    snprintf(shard_dir, sizeof(shard_dir), "%s/shard", dir);
    struct emb_shard_options options = {.dir = shard_dir,
                                        .memory_bytes = 200 << 10,
                                        .durability = durability,
                                        .map_bytes = 1 << 20,
                                        .log_bytes = 200 << 10};
    struct emb_table_spec spec = crash_spec(expire_steps);
    struct rig_model *model = calloc(1, sizeof(*model));
    model->spec = spec;
    emb_updater_init(&model->updater, &spec);
    uint64_t n_steps = 0;
    for (int life = 0; life < n_kills(); life++) {
        struct heard heard = {0};
        uint64_t before = model->clock;
        unsigned delay_us = 2000 + (unsigned)(suite_random(&random) % 60000);
        live_and_die(&options, &spec, seed, life, dir, delay_us, &heard);
        CU_ASSERT_FALSE_FATAL(heard.failed);
        struct emb_shard *shard;
        CU_ASSERT_EQUAL_FATAL(emb_shard_open(&options, &spec, 1, &shard), CLU_OK);
        uint64_t step = emb_shard_step(shard), last = heard.acknowledged;
        if (last < before)
            last = before;
        if (durability == EMB_DURABILITY_LOG) /* the last commit may have been under way */
            CU_ASSERT_FATAL(step == last || step == last + 1)
        else
            CU_ASSERT_FATAL(step >= heard.finished && step <= last + 1);
        replay_model(model, seed, step);
        CU_ASSERT_TRUE_FATAL(rig_agrees(shard, model));
        CU_ASSERT_EQUAL(emb_shard_last_seq(shard, 7), step);
        check_count(shard, &spec);
        if (life == n_kills() - 1)
            check_count_when_swept(shard, spec);
        n_steps += last > before ? last - before : 0;
        emb_shard_close(shard);
    }
    printf("  %d kills, %llu steps acknowledged in all\n", n_kills(), (unsigned long long)n_steps);
    CU_ASSERT(n_steps > 0);
    emb_updater_fini(&model->updater);
    free(model);
    clu_remove_tree(dir);
}

static void test_with_a_log_no_acknowledged_push_is_lost_or_applied_twice(void)
{
    many_lives(EMB_DURABILITY_LOG, 40);
}

static void test_rows_are_counted_right_after_every_kill(void)
{
    many_lives(EMB_DURABILITY_LOG, 0);
}

static void test_without_a_log_what_is_left_is_a_whole_snapshot(void)
{
    many_lives(EMB_DURABILITY_SNAPSHOT, 40);
}

SUITE("embeddings.crash", T(test_with_a_log_no_acknowledged_push_is_lost_or_applied_twice),
      T(test_rows_are_counted_right_after_every_kill),
      T(test_without_a_log_what_is_left_is_a_whole_snapshot))

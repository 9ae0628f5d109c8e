/* The promises of staleness 0, held to whole jobs: the same bits for any number of servers and
 * shards, the same to rounding for any number of workers, and the same bits across a stop and a
 * resume. */
#include "tests/suite.h"

#include "tests/cluster_e2e/driver.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/export_inspect.h"
#include "worker/safetensors.h"

#include <math.h>

#define PROGRAM (getenv("SLUICE_PROGRAM"))

static char data_folder[256];

/* a small log with ids, an attribute and ties in time, prepared once */
static const char *data(void)
{
    if (data_folder[0])
        return data_folder;
    char log[300], schema[300], command[2048];
    snprintf(data_folder, sizeof(data_folder), "/tmp/sluice-exact-%ld", (long)getpid());
    snprintf(command, sizeof(command), "mkdir -p %s", data_folder);
    CU_ASSERT_EQUAL_FATAL(system(command), 0);
    snprintf(log, sizeof(log), "%s/log.csv", data_folder);
    snprintf(schema, sizeof(schema), "%s/schema.yaml", data_folder);
    FILE *file = fopen(schema, "w");
    fputs("name: small\nuser: u\nitem: i\naction: what\ntime: at\ntime_format: unix\n"
          "actions: [start, click, cart, pay]\n"
          "item_features:\n  - {name: kind, column: kind}\n",
          file);
    fclose(file);
    file = fopen(log, "w");
    fputs("u,i,kind,what,at\n", file);
    uint64_t seed = 5;
    static const char *const actions[] = {"click", "cart", "pay"};
    for (int e = 0; e < 4000; e++) {
        unsigned item = (unsigned)(suite_random(&seed) % 150);
        fprintf(file, "u%u,%u,k%u,%s,%d\n", (unsigned)(suite_random(&seed) % 60), item, item % 7,
                actions[suite_random(&seed) % 3], 1500000000 + e * 3);
    }
    fclose(file);
    snprintf(command, sizeof(command), "%s prepare --schema %s %s --out %s/data 2>%s/prepare.log",
             PROGRAM, schema, log, data_folder, data_folder);
    CU_ASSERT_EQUAL_FATAL(system(command), 0);
    strcat(data_folder, "/data");
    return data_folder;
}

static void remove_data(void)
{
    char command[300];
    if (!data_folder[0])
        return;
    data_folder[strlen(data_folder) - 5] = '\0';
    snprintf(command, sizeof(command), "rm -rf %s", data_folder);
    if (system(command) != 0)
        printf("  %s is not removed\n", data_folder);
}

/* a job of this shape; extra: further lines of the job file */
static void open_job(struct driver *d, int servers, int shards, int workers, const char *extra)
{
    char text[2048];
    snprintf(text, sizeof(text),
             "data: %s\nservers: %d\nshards: %d\nworkers: %d\nwidth: 16\nheads: 2\nhistory: 10\n"
             "user_dim: 8\nitem_dim: 8\nfeature_dim: 4\nbatch: 64\nstaleness: 0\n%s%s",
             data(), servers, shards, workers,
             strstr(extra, "epochs:") ? "" : "max_steps: 20\nepochs: 3\n", extra);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void run_job(struct driver *d, int expected)
{
    CU_ASSERT_EQUAL_FATAL(driver_start(d, PROGRAM, NULL), 0);
    int code = driver_wait(d, 90000);
    CU_ASSERT_EQUAL(code, expected);
    CU_ASSERT_EQUAL(driver_left(d, 5000), 0);
    if (code != expected)
        printf("--- exit %d, expected %d\n%s---\n", code, expected, d->text);
}

static uint64_t digest_of(const struct driver *d)
{
    char path[700];
    uint64_t digest = 0;
    snprintf(path, sizeof(path), "%s/out/run/snapshot", d->folder);
    CU_ASSERT_EQUAL(wrk_inspect_digest(path, &digest), CLU_OK);
    return digest;
}

static uint64_t run_for_digest(int servers, int shards, int workers, const char *extra)
{
    struct driver d;
    open_job(&d, servers, shards, workers, extra);
    run_job(&d, 0);
    uint64_t digest = digest_of(&d);
    driver_close(&d, digest == 0);
    return digest;
}

static void test_any_number_of_servers_gives_the_same_bits(void)
{
    uint64_t one = run_for_digest(1, 1, 1, "");
    uint64_t four = run_for_digest(2, 2, 1, "");
    CU_ASSERT_NOT_EQUAL(one, 0);
    CU_ASSERT_EQUAL(one, four);
    uint64_t other = run_for_digest(1, 1, 1, "seed: 2\n"); /* the digest can differ */
    CU_ASSERT_NOT_EQUAL(one, other);
}

static void open_dense(const struct driver *d, struct wrk_safetensors **file_p)
{
    char path[700];
    snprintf(path, sizeof(path), "%s/out/run/snapshot/step-000000000020/dense.safetensors",
             d->folder);
    CU_ASSERT_EQUAL_FATAL(wrk_safetensors_open(path, file_p), CLU_OK);
}

static void test_two_workers_agree_with_one_to_rounding(void)
{
    struct driver one, two;
    struct wrk_safetensors *a = NULL, *b = NULL;
    /* Adam divides by a gradient's own size and so turns the rounding of a tiny one into a whole
     * step; plain SGD on the rows keeps a difference what it is */
    open_job(&one, 1, 2, 1, "sparse_optimizer: sgd\nsparse_learning_rate: 0.1\n");
    open_job(&two, 1, 2, 2, "sparse_optimizer: sgd\nsparse_learning_rate: 0.1\n");
    run_job(&one, 0);
    run_job(&two, 0);
    open_dense(&one, &a);
    open_dense(&two, &b);
    double worst = 0, moved = 0;
    for (size_t t = 0; t < wrk_safetensors_count(a); t++) {
        const struct wrk_tensor *x = wrk_safetensors_at(a, t), *y = wrk_safetensors_at(b, t);
        size_t n = (x->rows ? x->rows : 1) * x->cols;
        for (size_t i = 0; i < n; i++) {
            worst = fmax(worst, fabs((double)x->data[i] - (double)y->data[i]));
            moved = fmax(moved, fabs((double)x->data[i]));
        }
    }
    printf("  largest difference of a dense weight after 20 steps: %.2e\n", worst);
    CU_ASSERT(moved > 0.1);
    CU_ASSERT(worst < 1e-4); /* twenty steps moved the weights by up to 2e-2 */
    wrk_safetensors_close(a);
    wrk_safetensors_close(b);
    driver_close(&one, false);
    driver_close(&two, false);
}

static void test_a_resumed_job_ends_in_the_same_bits(void)
{
    uint64_t calm = run_for_digest(1, 2, 1, "id_dropout: 0.3\naverage_decay: 0.9\n");
    struct driver d;
    open_job(&d, 1, 2, 1, "id_dropout: 0.3\naverage_decay: 0.9\n");
    char *half[] = {"--max-steps", "9", NULL};
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, PROGRAM, half), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, 90000), 0);
    run_job(&d, 0);
    uint64_t resumed = digest_of(&d);
    CU_ASSERT_EQUAL(calm, resumed);
    driver_close(&d, calm != resumed);
}

/* Labels are drawn at random, so there is little to learn and a long step soon learns them by
 * heart: the validation loss turns, and training ends long before its 40 epochs. */
static const char early[] = "valid_percent: 20\npatience: 2\nepochs: 40\n"
                            "dense_learning_rate: 0.01\nwarmup_steps: 0\naverage_decay: 0.5\n";

/* the step of the last evaluation */
static long evaluated_step(const struct driver *d)
{
    char path[700], line[16384];
    long step = -1;
    snprintf(path, sizeof(path), "%s/out/run/eval.jsonl", d->folder);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file)) {
        const char *at = strstr(line, "\"step\":");
        step = at ? atol(at + 7) : -1;
    }
    if (file)
        fclose(file);
    return step;
}

static long newest_step(const struct driver *d)
{
    char path[700];
    long step = -1;
    snprintf(path, sizeof(path), "%s/out/run/snapshot/latest", d->folder);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "step-%ld", &step) != 1)
        step = -1;
    if (file)
        fclose(file);
    return step;
}

static void test_early_stopping_keeps_the_same_epoch_for_any_servers_and_across_a_stop(void)
{
    struct driver one, four, broken;
    open_job(&one, 1, 1, 1, early);
    run_job(&one, 0);
    long last = newest_step(&one), best = evaluated_step(&one);
    uint64_t digest = digest_of(&one);
    printf("  stopped after step %ld, step %ld is kept\n", last, best);
    CU_ASSERT(last > 0 && last < 20 * 40);
    CU_ASSERT(best > 0 && best < last);
    run_job(&one, 0); /* nothing is left to do */
    CU_ASSERT_EQUAL(newest_step(&one), last);
    open_job(&four, 2, 2, 1, early);
    run_job(&four, 0);
    CU_ASSERT_EQUAL(newest_step(&four), last);
    CU_ASSERT_EQUAL(digest_of(&four), digest);
    char best_step[32];
    open_job(&broken, 1, 2, 1, early);
    snprintf(best_step, sizeof(best_step), "%ld", best + 3); /* in the epoch after the best */
    char *some[] = {"--max-steps", best_step, NULL};
    CU_ASSERT_EQUAL_FATAL(driver_start(&broken, PROGRAM, some), 0);
    CU_ASSERT_EQUAL(driver_wait(&broken, 90000), 0);
    run_job(&broken, 0);
    CU_ASSERT_EQUAL(newest_step(&broken), last);
    CU_ASSERT_EQUAL(evaluated_step(&broken), best);
    CU_ASSERT_EQUAL(digest_of(&broken), digest);
    driver_close(&one, false);
    driver_close(&four, false);
    driver_close(&broken, false);
    remove_data();
}

SUITE("cluster_e2e.exact", T(test_any_number_of_servers_gives_the_same_bits),
      T(test_two_workers_agree_with_one_to_rounding), T(test_a_resumed_job_ends_in_the_same_bits),
      T(test_early_stopping_keeps_the_same_epoch_for_any_servers_and_across_a_stop))

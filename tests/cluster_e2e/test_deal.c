/* Stragglers at staleness async: a rank that is slow does fewer samples, the others more, nobody
 * waits long, and the samples of the job are exactly those of its epochs, over a restart too. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum { EPOCHS = 12, EPOCH_SAMPLES = 5400, BATCH = 128, FIRST_STEPS = 250 };

/* The last value of a figure in metrics.jsonl; -1. */
static double last_figure(const struct driver *d, const char *name)
{
    char path[700], line[16384], key[64];
    double value = -1;
    snprintf(path, sizeof(path), "%s/out/run/metrics.jsonl", d->folder);
    snprintf(key, sizeof(key), "\"%s\":", name);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file)) {
        const char *at = strstr(line, key);
        if (at)
            value = strtod(at + strlen(key), NULL);
    }
    if (file)
        fclose(file);
    return value;
}

/* The process that is rank 1 of the group of workers; -1. */
static pid_t find_rank_1(const struct driver *d)
{
    for (int nth = 0;; nth++) {
        char path[64], text[65536];
        pid_t pid = driver_find(d, "sluice worker", "", nth);
        if (pid < 0)
            return -1;
        snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
        FILE *file = fopen(path, "r");
        size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
        if (file)
            fclose(file);
        for (size_t i = 0; i < n; i++) /* its variables, one after another */
            if (!text[i])
                text[i] = '\n';
        text[n] = '\0';
        if (strstr(text, "\nOMPI_COMM_WORLD_RANK=1\n"))
            return pid;
    }
}

/* Runs until max_steps (0: the end) with rank 1 stopped most of the time; its exit code. */
static int run_with_a_slow_rank(struct driver *d, const char *max_steps)
{
    char *extra[] = {"--max-steps", (char *)max_steps, NULL};
    driver_start(d, SLUICE, extra);
    int64_t until = driver_now_ms() + 60000;
    pid_t pid;
    while ((pid = find_rank_1(d)) < 0 && driver_now_ms() < until)
        driver_nap(10);
    CU_ASSERT_FATAL(pid > 0);
    while (kill(pid, SIGSTOP) == 0 && driver_now_ms() < until) {
        driver_nap(30);
        kill(pid, SIGCONT);
        driver_nap(6);
        if (find_rank_1(d) != pid)
            break;
    }
    return driver_wait(d, 60000);
}

/* A data set and a driver for a job of two ranks over it. */
static void open_job(struct small_data *data, struct driver *d, const char *more)
{
    char text[1024];
    CU_ASSERT_EQUAL_FATAL(small_data_open(data, SLUICE), 0);
    snprintf(text, sizeof(text),
             "data: %s\nworkers: 2\nwidth: 32\nheads: 2\nhistory: 20\nbatch: %d\nread: greedy\n"
             "epochs: %d\nstaleness: async\ndense_every: 64\nlog_every: 1\nsnapshot_every: 100\n%s",
             data->set, BATCH, EPOCHS, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void test_a_slow_rank_does_less_and_all_samples_are_done_once(void)
{
    struct small_data data;
    struct driver d;
    char steps[16];
    unsigned before = CU_get_number_of_failures();
    open_job(&data, &d, "");
    snprintf(steps, sizeof(steps), "%d", FIRST_STEPS); /* no multiple of dense_every */
    CU_ASSERT_EQUAL(run_with_a_slow_rank(&d, steps), 0);
    /* 5400 = 42 batches of 128 and one of 24: the first 250 steps are 5 epochs and 35 batches */
    double first = 5 * EPOCH_SAMPLES + (FIRST_STEPS - 5 * 43) * BATCH;
    CU_ASSERT_EQUAL(last_figure(&d, "samples"), first);
    double fast = last_figure(&d, "rank_0_samples_total");
    double slow = last_figure(&d, "rank_1_samples_total");
    printf("  of %.0f samples rank 0 did %.0f, rank 1, stopped most of the time, %.0f\n", first,
           fast, slow);
    CU_ASSERT_EQUAL(fast + slow, first);
    CU_ASSERT(slow * 2 < fast);
    CU_ASSERT_EQUAL(run_with_a_slow_rank(&d, "0"), 0);
    CU_ASSERT_EQUAL(last_figure(&d, "samples"), (double)EPOCHS * EPOCH_SAMPLES);
    fast = last_figure(&d, "rank_0_samples_total");
    slow = last_figure(&d, "rank_1_samples_total");
    CU_ASSERT_EQUAL(fast + slow, (double)EPOCHS * EPOCH_SAMPLES - first);
    CU_ASSERT(slow * 2 < fast);
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
    small_data_close(&data);
}

/* deal: false: the fast rank waits, and both do their own parts, which are cut between users. */
static void test_ranks_keep_their_parts_when_nothing_is_dealt(void)
{
    struct small_data data;
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&data, &d, "deal: false\n");
    CU_ASSERT_EQUAL(run_with_a_slow_rank(&d, "86"), 0);
    const double samples = 2 * EPOCH_SAMPLES, fast = last_figure(&d, "rank_0_samples_total");
    CU_ASSERT_EQUAL(last_figure(&d, "samples"), samples);
    CU_ASSERT_EQUAL(fast + last_figure(&d, "rank_1_samples_total"), samples);
    CU_ASSERT(fast > 0.49 * samples && fast < 0.51 * samples);
    driver_close(&d, CU_get_number_of_failures() > before);
    small_data_close(&data);
}

SUITE("cluster_e2e.deal", T(test_a_slow_rank_does_less_and_all_samples_are_done_once),
      T(test_ranks_keep_their_parts_when_nothing_is_dealt))

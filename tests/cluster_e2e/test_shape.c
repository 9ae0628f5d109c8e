/* Shape changes: a snapshot of one number of servers, shards and workers goes on with any other,
 * bit for bit as far as the shape allows: any servers at the same workers, and any workers to
 * rounding (test_exact.c). */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

static struct small_data data;

/* Runs the job with these flags until step `until` (0: its end), and takes its digest. */
static void run(struct driver *d, const char *servers, const char *shards, const char *until,
                int expected, char digest[64])
{
    char out[600];
    char *extra[] = {"--servers",   (char *)servers, "--shards", (char *)shards,
                     "--max-steps", (char *)until,   NULL};
    driver_start(d, SLUICE, extra);
    int code = driver_wait(d, 60000);
    CU_ASSERT_EQUAL(code, expected);
    CU_ASSERT_EQUAL(driver_left(d, 2000), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT(digest[0] != '\0');
}

static void open_job(struct driver *d)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "data: %s\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\nbatch: 64\nread: greedy\n"
             "epochs: 2\n",
             data.set);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void test_a_snapshot_goes_on_with_any_number_of_servers(void)
{
    struct driver calm, d;
    char whole[64], digest[64], first[64], again[64];
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    open_job(&calm);
    run(&calm, "1", "1", "0", 0, whole);
    driver_close(&calm, CU_get_number_of_failures() > before);
    open_job(&d);
    run(&d, "2", "2", "40", 0, first);
    run(&d, "3", "1", "40", 0, again); /* only restored: nothing to train */
    CU_ASSERT_STRING_EQUAL(first, again);
    run(&d, "3", "1", "80", 0, digest);
    run(&d, "1", "4", "120", 0, digest);
    run(&d, "2", "2", "0", 0, digest);
    CU_ASSERT_STRING_EQUAL(digest, whole);
    driver_close(&d, CU_get_number_of_failures() > before);
    small_data_close(&data);
}

/* Runs a verb on the running job; its exit code. */
static int ask(const struct driver *d, const char *verb, const char *flags)
{
    char command[1200];
    snprintf(command, sizeof(command), "'%s' %s '%s/out' %s", SLUICE, verb, d->folder, flags);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_a_running_job_goes_on_in_another_shape_after_a_restart(void)
{
    struct driver calm, d;
    char out[600], whole[64], digest[64];
    char *extra[] = {"--epochs", "20", "--servers", "2", "--log-every", "5", NULL};
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    open_job(&calm);
    driver_start(&calm, SLUICE, extra);
    CU_ASSERT_EQUAL(driver_wait(&calm, 90000), 0);
    snprintf(out, sizeof(out), "%s/out", calm.folder);
    small_data_digest(SLUICE, out, whole);
    driver_close(&calm, CU_get_number_of_failures() > before);
    open_job(&d);
    driver_start(&d, SLUICE, extra);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":100,", 30000));
    CU_ASSERT_EQUAL(ask(&d, "drain", "--restart --servers 2"), 64);
    CU_ASSERT_EQUAL(ask(&d, "drain", "--restart"), 0);
    CU_ASSERT(driver_await_text(&d, "log/sched-0.log", "1 server joined", 20000));
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":600,", 30000));
    CU_ASSERT_EQUAL(ask(&d, "drain", "--restart --servers 3"), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, 90000), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "going on with 1 server"));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "going on with 3 servers"));
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, whole);
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
    small_data_close(&data);
}

/* ---- live: the job trains on while buckets move ---- */

static char *const live[] = {"--epochs", "20",          "--servers", "3", "--shards",
                             "2",        "--log-every", "5",         NULL};

/* The digest of a job in which nothing moves. */
static void calm_digest(char *const *extra, char whole[64])
{
    struct driver calm;
    char out[600];
    unsigned before = CU_get_number_of_failures();
    open_job(&calm);
    driver_start(&calm, SLUICE, extra);
    CU_ASSERT_EQUAL(driver_wait(&calm, 90000), 0);
    snprintf(out, sizeof(out), "%s/out", calm.folder);
    small_data_digest(SLUICE, out, whole);
    driver_close(&calm, CU_get_number_of_failures() > before);
}

/* The job ends well, as if it had never been touched. */
static void end_like(struct driver *d, const char *whole, unsigned before)
{
    char out[600], digest[64];
    CU_ASSERT_EQUAL(driver_wait(d, 90000), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    if (whole)
        CU_ASSERT_STRING_EQUAL(digest, whole);
    CU_ASSERT(digest[0] != '\0');
    CU_ASSERT_EQUAL(driver_left(d, 2000), 0);
    driver_close(d, CU_get_number_of_failures() > before);
}

static void test_servers_are_drained_and_added_while_the_job_trains(void)
{
    struct driver d;
    char whole[64];
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    calm_digest(live, whole);
    open_job(&d);
    driver_start(&d, SLUICE, live);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":100,", 30000));
    CU_ASSERT_EQUAL(ask(&d, "drain", "7"), 66);             /* no such rank */
    CU_ASSERT_EQUAL(ask(&d, "drain", "nowhere"), 66);       /* no such host */
    CU_ASSERT_EQUAL(ask(&d, "drain", "--servers 3"), 64);   /* as many as now */
    CU_ASSERT_EQUAL(ask(&d, "drain", "1 --servers 2"), 64); /* one or the other */
    CU_ASSERT_EQUAL(ask(&d, "drain", "1"), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"state\":\"none\"", 20000));
    CU_ASSERT_EQUAL(driver_find(&d, " ps ", "--rank 1 ", 0), -1);
    CU_ASSERT_EQUAL(ask(&d, "drain", "--servers 4"), 0);
    CU_ASSERT(driver_await_text(&d, "log/ps-4.log", "takes part from step", 20000));
    end_like(&d, whole, before);
    small_data_close(&data);
}

/* The first line of what a shell command prints, with $R the job's run folder. */
static void expect(const struct driver *d, const char *script, const char *expected)
{
    char command[1400], line[256] = "";
    snprintf(command, sizeof(command), "R='%s/out/run'; %s", d->folder, script);
    FILE *pipe = popen(command, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(pipe);
    if (fgets(line, sizeof(line), pipe))
        line[strcspn(line, "\n")] = '\0';
    pclose(pipe);
    if (strcmp(line, expected) != 0)
        printf("  %s\n  printed: %s\n", script, line);
    CU_ASSERT_STRING_EQUAL(line, expected);
}

/* Asks for a snapshot, again where the job is not ready for one, and waits until one more is whole.
 */
static void take_snapshot(const struct driver *d, int nth)
{
    int64_t until = driver_now_ms() + 30000;
    while (ask(d, "snapshot", "2>/dev/null") != 0 && driver_now_ms() < until)
        driver_nap(50);
    CU_ASSERT(driver_await_snapshots(d, nth, 30000));
}

/* The folder of a drained server is there until a snapshot without it is whole, and goes then, also
 * what a scheduler that was killed at it left. A job whose newest snapshot is damaged goes back to
 * one from before the drain, and needs it not. */
static void test_a_drained_servers_folder_goes_with_the_next_snapshot(void)
{
    struct driver d;
    char whole[64];
    char *extra[] = {"--epochs",       "30", "--servers", "3", "--shards", "2", "--log-every", "5",
                     "--max-restarts", "4",  "--keep",    "9", NULL};
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    calm_digest(extra, whole);
    open_job(&d);
    driver_start(&d, SLUICE, extra);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":50,", 30000));
    take_snapshot(&d, 1);
    expect(&d, "mkdir $R/server-3 && touch $R/server-3/rows && echo left", "left");
    CU_ASSERT_EQUAL(ask(&d, "drain", "1"), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"state\":\"none\"", 20000));
    expect(&d, "cd $R && echo server-*", "server-0 server-1 server-2 server-3");
    CU_ASSERT(driver_kill(driver_find(&d, " sched ", "", 0), SIGKILL));
    expect(&d, "mkdir $R/server-9.gone && touch $R/server-9.gone/rows && echo left", "left");
    take_snapshot(&d, 2);
    expect(
        &d,
        "cd $R; for i in $(seq 600); do [ \"$(echo server-*)\" = 'server-0 server-2' ] && break; "
        "sleep 0.05; done; echo server-*",
        "server-0 server-2");
    expect(&d,
           "cd $R/snapshot/$(cat $R/snapshot/latest) && printf '\\125\\252' | dd "
           "of=dense.safetensors bs=1 seek=3000 conv=notrunc 2>/dev/null; echo damaged",
           "damaged");
    CU_ASSERT(driver_kill(driver_find_worker(&d, 1), SIGKILL));
    end_like(&d, whole, before);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "is damaged and passed over"));
    small_data_close(&data);
}

static void test_buckets_move_at_every_staleness(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    const char *const staleness[] = {"1", "async"};
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    for (int i = 0; i < 2; i++) {
        char *extra[] = {"--epochs",
                         "20",
                         "--servers",
                         "2",
                         "--log-every",
                         "5",
                         "--staleness",
                         (char *)staleness[i],
                         "--durability",
                         i ? "log" : "snapshot",
                         NULL};
        open_job(&d);
        driver_start(&d, SLUICE, extra);
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":50,", 30000));
        CU_ASSERT_EQUAL(ask(&d, "drain", "--servers 3"), 0);
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"state\":\"none\"", 20000));
        CU_ASSERT_EQUAL(ask(&d, "drain", "0"), 0);
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"state\":\"leaving\"", 20000));
        end_like(&d, NULL, before);
    }
    small_data_close(&data);
}

/* Buckets that move one by one take a while: whoever is killed meanwhile, the job goes on from its
 * last snapshot and ends with the bits of a calm one. */
static void test_a_kill_while_buckets_move_changes_nothing(void)
{
    struct driver d;
    char whole[64];
    static const char *const victim[][2] = {
        {" ps ", "--rank 0 "}, {" ps ", "--rank 3 "}, {" worker ", ""}, {" sched ", ""}};
    char *extra[] = {"--epochs",       "20", "--servers", "3", "--shards",         "2",
                     "--log-every",    "5",  "--move-ms", "1", "--snapshot-every", "140",
                     "--max-restarts", "3",  NULL};
    unsigned before = CU_get_number_of_failures();
    uint64_t random = suite_seed();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    calm_digest(extra, whole);
    int first = (int)(suite_random(&random) % 4);
    for (int n = 0; n < 2; n++) { /* two of the four, each time others */
        int i = (first + n) % 4;
        open_job(&d);
        driver_start(&d, SLUICE, extra);
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":160,", 30000));
        CU_ASSERT_EQUAL(ask(&d, "drain", i % 2 ? "--servers 4" : "2"), 0);
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"state\":\"moving\"", 20000));
        driver_nap((int)(suite_random(&random) % 60));
        pid_t pid = driver_find(&d, victim[i][0], victim[i][1], 0);
        CU_ASSERT(pid > 0);
        if (pid > 0)
            kill(pid, SIGKILL);
        end_like(&d, whole, before);
    }
    small_data_close(&data);
}

SUITE("cluster_e2e.shape", T(test_a_snapshot_goes_on_with_any_number_of_servers),
      T(test_a_running_job_goes_on_in_another_shape_after_a_restart),
      T(test_servers_are_drained_and_added_while_the_job_trains),
      T(test_a_drained_servers_folder_goes_with_the_next_snapshot),
      T(test_buckets_move_at_every_staleness), T(test_a_kill_while_buckets_move_changes_nothing))

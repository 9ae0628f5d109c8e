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

static void test_a_running_job_goes_on_with_fewer_and_with_more_servers(void)
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
    CU_ASSERT_EQUAL(ask(&d, "drain", "--servers 2"), 64);
    CU_ASSERT_EQUAL(ask(&d, "drain", ""), 0);
    CU_ASSERT(driver_await_text(&d, "log/sched-0.log", "1 server joined", 20000));
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":600,", 30000));
    CU_ASSERT_EQUAL(ask(&d, "drain", "--servers 3"), 0);
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

SUITE("cluster_e2e.shape", T(test_a_snapshot_goes_on_with_any_number_of_servers),
      T(test_a_running_job_goes_on_with_fewer_and_with_more_servers))

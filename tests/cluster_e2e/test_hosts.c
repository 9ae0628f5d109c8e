/* Several hosts (tests/cluster_e2e/hosts.h). The job's result must not depend on the network:
 * neither on where the roles run, nor on delay, loss, a cut, or the death of a role on another
 * host.
 *
 * Skipped (77) where namespaces cannot be made: it needs root and iproute2.
 */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/hosts.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum { WITHIN_MS = 90000 };

static struct small_data data;
static struct hosts hosts;
static char calm[64];

static void open_job(struct driver *d, const char *more)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: 4\nread: greedy\nsnapshot_every: 60\nhost: eth0\n"
             "insecure: true\nmax_restarts: 10\nheartbeat_ms: 300\ndead_after_ms: 4000\n%s",
             data.set, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
    CU_ASSERT_EQUAL_FATAL(hosts_prepare(&hosts, d), 0);
}

static void start(struct driver *d)
{
    CU_ASSERT_EQUAL_FATAL(hosts_start(&hosts, d, SLUICE), 0);
}

/* said: what the terminal must show; NULL: nothing. All that it shows is printed on a failure. */
static void finish(struct driver *d, unsigned before, const char *said)
{
    char out[600], digest[64];
    int64_t began_ms = driver_now_ms();
    CU_ASSERT_EQUAL(driver_wait(d, WITHIN_MS), 0);
    printf("  %lld ms more\n", (long long)(driver_now_ms() - began_ms));
    CU_ASSERT_EQUAL(driver_remains(d, 3000), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    CU_ASSERT(!said || strstr(d->text, said));
    if (getenv("SLUICE_TEST_VERBOSE"))
        printf("%s", d->text);
    driver_close(d, CU_get_number_of_failures() > before);
}

static void test_a_host_for_each_role_gives_what_one_host_gives(void)
{
    struct driver d;
    char out[600];
    char *local[] = {"--host", "127.0.0.1", NULL};
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    open_job(&d, "");
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, local), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 0);
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(SLUICE, out, calm);
    CU_ASSERT_FATAL(calm[0] != '\0');
    driver_close(&d, false);
    open_job(&d, "");
    start(&d);
    finish(&d, before, NULL);
}

static void test_a_server_killed_on_another_host_changes_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    pid_t pid = driver_find_role(&d, " ps ", "--rank 1", 0);
    CU_ASSERT_FATAL(pid > 0);
    kill(pid, SIGKILL);
    finish(&d, before, "ps 1 was killed by signal 9");
}

/* Its session files, too, are gone when the job is: finish looks. */
static void test_a_killed_mpirun_changes_nothing_and_leaves_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    pid_t pid = driver_find(&d, "mpirun -n 2", "", 0);
    CU_ASSERT_FATAL(pid > 0);
    kill(pid, SIGKILL);
    finish(&d, before, "mpirun, the workers' launcher, was killed by signal 9");
}

/* Packets between any two hosts are lost for half of the job; for two seconds those between a
 * worker and the servers are late. */
static void test_a_slow_and_lossy_network_changes_nothing(void)
{
    struct driver d;
    struct wire_counts counts;
    unsigned before = CU_get_number_of_failures();
    if (!hosts.wire) {
        printf("  no network here that loses and delays\n");
        return;
    }
    open_job(&d, "");
    for (int i = 0; i < HOSTS_N; i++)
        CU_ASSERT_EQUAL(hosts_bend_all(&hosts, i, WIRE_LOSE), 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 60000));
    hosts_bend(&hosts, 1, 3, WIRE_DELAY);
    hosts_bend(&hosts, 2, 3, WIRE_DELAY);
    driver_nap(2000);
    hosts_bend(&hosts, 1, 3, WIRE_LOSE);
    hosts_bend(&hosts, 2, 3, WIRE_LOSE);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":160,", 60000));
    for (int i = 0; i < HOSTS_N; i++)
        CU_ASSERT_EQUAL(hosts_bend_all(&hosts, i, WIRE_PASS), 0);
    finish(&d, before, NULL);
    for (int i = 0; i < HOSTS_N; i++) {
        for (int k = 0; k < i; k++) {
            wire_between_counts(hosts.wire, i, k, &counts);
            printf("  %s and %s: %llu packets passed, %llu lost, %llu late\n", hosts_roles[k],
                   hosts_roles[i], (unsigned long long)counts.passed,
                   (unsigned long long)counts.lost, (unsigned long long)counts.delayed);
        }
    }
    wire_between_counts(hosts.wire, 1, 3, &counts);
    CU_ASSERT(counts.lost > 10 && counts.delayed > 2);
    wire_between_counts(hosts.wire, 3, 4, &counts); /* the ranks' all-reduce */
    CU_ASSERT(counts.lost > 10);
}

static void test_a_cut_of_two_seconds_changes_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    CU_ASSERT_EQUAL(hosts_bend_all(&hosts, 3, WIRE_CUT), 0);
    driver_nap(2000);
    CU_ASSERT_EQUAL(hosts_bend_all(&hosts, 3, WIRE_PASS), 0);
    finish(&d, before, NULL);
}

static void test_a_host_cut_off_for_good_is_named_and_ends_the_job(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "epochs: 1000\n");
    char command[700];
    snprintf(command, sizeof(command), "sed -i '/^epochs: 4$/d; /^max_restarts/d' %s/job.yaml",
             d.folder);
    CU_ASSERT_EQUAL(system(command), 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    CU_ASSERT_EQUAL(hosts_bend_all(&hosts, 4, WIRE_CUT), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, 30000), 69);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "is lost: no heartbeat for"));
    hosts_bend_all(&hosts, 4, WIRE_PASS);
    CU_ASSERT_EQUAL(driver_remains(&d, 15000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
    small_data_close(&data);
}

int main(int argc, char **argv)
{
    static const struct suite_test tests[] = {
        T(test_a_host_for_each_role_gives_what_one_host_gives),
        T(test_a_server_killed_on_another_host_changes_nothing),
        T(test_a_killed_mpirun_changes_nothing_and_leaves_nothing),
        T(test_a_slow_and_lossy_network_changes_nothing),
        T(test_a_cut_of_two_seconds_changes_nothing),
        T(test_a_host_cut_off_for_good_is_named_and_ends_the_job),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!hosts_open(&hosts)) {
        hosts_close(&hosts);
        printf("network namespaces cannot be made here\n");
        return 77;
    }
    int failed = suite_run("cluster_e2e.hosts", tests, sizeof(tests) / sizeof(tests[0]),
                           argc > 1 ? argv[1] : NULL);
    hosts_close(&hosts);
    return failed;
}

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

static void finish(struct driver *d, unsigned before)
{
    char out[600], digest[64];
    int64_t began_ms = driver_now_ms();
    CU_ASSERT_EQUAL(driver_wait(d, WITHIN_MS), 0);
    printf("  %lld ms more\n", (long long)(driver_now_ms() - began_ms));
    CU_ASSERT_EQUAL(driver_left(d, 3000), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    if (getenv("SLUICE_TEST_VERBOSE"))
        printf("%s", d->text);
    driver_close(d, CU_get_number_of_failures() > before);
}

static void test_three_hosts_give_what_one_host_gives(void)
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
    finish(&d, before);
}

static void test_a_server_killed_on_another_host_changes_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    pid_t pid = -1;
    for (int i = 0; (pid = driver_find(&d, " ps ", "--rank 1", i)) > 0; i++) {
        char line[8192];
        driver_command_line(pid, line, sizeof(line));
        if (strncmp(line, "mpirun", 6) != 0)
            break;
    }
    CU_ASSERT_FATAL(pid > 0);
    kill(pid, SIGKILL);
    finish(&d, before);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "ps 1 was killed by signal 9"));
}

static void test_a_slow_and_lossy_network_changes_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "max_steps: 340\n");
    if (hosts_bend(&hosts, 2, "delay 5ms loss 5%")) {
        printf("  no netem here\n");
        driver_close(&d, false);
        return;
    }
    start(&d);
    finish(&d, before);
    hosts_bend(&hosts, 2, NULL);
}

static void test_a_cut_of_two_seconds_changes_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    CU_ASSERT_EQUAL(hosts_shell("ip -n %sr link set va down", hosts.net), 0);
    driver_nap(2000);
    CU_ASSERT_EQUAL(hosts_shell("ip -n %sr link set va up", hosts.net), 0);
    finish(&d, before);
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
    CU_ASSERT_EQUAL(hosts_shell("ip -n %sr link set vb down", hosts.net), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, 30000), 69);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "is lost: no heartbeat for"));
    hosts_shell("ip -n %sr link set vb up", hosts.net);
    CU_ASSERT_EQUAL(driver_left(&d, 15000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
    small_data_close(&data);
}

int main(int argc, char **argv)
{
    static const struct suite_test tests[] = {
        T(test_three_hosts_give_what_one_host_gives),
        T(test_a_server_killed_on_another_host_changes_nothing),
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

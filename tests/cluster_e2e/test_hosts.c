/* Several hosts: each a network namespace with an address of its own, joined by a bridge; mpirun
 * reaches them through a launch agent, as it would over ssh. The job's result must not depend on
 * the network: neither on where the roles run, nor on delay, loss, a cut, or the death of a role on
 * another host.
 *
 *     SLM  sched, mpirun --.
 *     SLA  ps 0, worker 0 --+-- bridge
 *     SLB  ps 1, worker 1 -'
 *
 * Skipped (77) where namespaces cannot be made: it needs root and iproute2.
 */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

#include <stdarg.h>

enum { WITHIN_MS = 90000 };

static struct small_data data;
static char calm[64], net[16];

static int shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int shell(const char *format, ...)
{
    char command[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void take_down(void)
{
    for (const char *c = "rmab"; *c; c++)
        shell("ip netns del %s%c 2>/dev/null", net, *c);
}

/* True when the three hosts stand. */
static int bring_up(void)
{
    snprintf(net, sizeof(net), "sl%d", (int)getpid() % 1000000);
    if (geteuid() != 0 || shell("ip netns add %sr 2>/dev/null", net) ||
        shell("ip -n %sr link add br0 type bridge && ip -n %sr link set br0 up", net, net))
        return 0;
    for (int i = 0; i < 3; i++) {
        char c = "mab"[i];
        if (shell("ip netns add %s%c && ip -n %s%c link add eth0 type veth peer name v%c netns %sr",
                  net, c, net, c, c, net) ||
            shell("ip -n %sr link set v%c master br0 && ip -n %sr link set v%c up", net, c, net,
                  c) ||
            shell("ip -n %s%c addr add 10.77.0.%d/24 dev eth0 && ip -n %s%c link set eth0 up && "
                  "ip -n %s%c link set lo up",
                  net, c, i + 1, net, c, net, c))
            return 0;
    }
    return 1;
}

static void open_job(struct driver *d, const char *more)
{
    char text[1024], path[700];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: 4\nread: greedy\nsnapshot_every: 60\nhost: eth0\n"
             "insecure: true\nmax_restarts: 10\nheartbeat_ms: 300\ndead_after_ms: 4000\n%s",
             data.set, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
    snprintf(path, sizeof(path), "%s/agent", d->folder);
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fputs("#!/bin/sh\nhost=$1\nshift\nexec ip netns exec $host sh -c \"$*\"\n", file);
    fclose(file);
    chmod(path, 0755);
    setenv("OMPI_MCA_plm_rsh_agent", path, 1);
    snprintf(path, sizeof(path), "%s/hosts", d->folder);
    file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fprintf(file, "%sa slots=1\n%sb slots=1\n", net, net);
    fclose(file);
}

/* `ip netns exec HOST sluice train ...`: the driver starts a script that does. */
static void start(struct driver *d)
{
    static char path[700], hosts[700];
    char *extra[] = {"--hostfile", hosts, NULL};
    snprintf(path, sizeof(path), "%s/train", d->folder);
    snprintf(hosts, sizeof(hosts), "%s/hosts", d->folder);
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fprintf(file, "#!/bin/sh\nexec ip netns exec %sm '%s' \"$@\"\n", net, SLUICE);
    fclose(file);
    chmod(path, 0755);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, path, extra), 0);
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
    if (shell("ip netns exec %sb tc qdisc add dev eth0 root netem delay 5ms loss 5%% 2>/dev/null",
              net)) {
        printf("  no netem here\n");
        driver_close(&d, false);
        return;
    }
    start(&d);
    finish(&d, before);
    shell("ip netns exec %sb tc qdisc del dev eth0 root", net);
}

static void test_a_cut_of_two_seconds_changes_nothing(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":80,", 30000));
    CU_ASSERT_EQUAL(shell("ip -n %sr link set va down", net), 0);
    driver_nap(2000);
    CU_ASSERT_EQUAL(shell("ip -n %sr link set va up", net), 0);
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
    CU_ASSERT_EQUAL(shell("ip -n %sr link set vb down", net), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, 30000), 69);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "is lost: no heartbeat for"));
    shell("ip -n %sr link set vb up", net);
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
    if (!bring_up()) {
        take_down();
        printf("network namespaces cannot be made here\n");
        return 77;
    }
    int failed = suite_run("cluster_e2e.hosts", tests, sizeof(tests) / sizeof(tests[0]),
                           argc > 1 ? argv[1] : NULL);
    take_down();
    return failed;
}

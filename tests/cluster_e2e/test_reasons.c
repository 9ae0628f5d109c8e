/* Why a role ended is told: on `sluice status --json` after others have taken its place, and for a
 * real lack of memory, in a cgroup of the test's own, where the machine lets it make one. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

#include <jansson.h>

enum { WITHIN_MS = 30000 };

static struct small_data data;

static void open_job(struct driver *d, int max_restarts)
{
    char text[1024];
    if (!data.folder[0])
        CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: 1000\nread: greedy\nmax_restarts: %d\n"
             "durability: log\nheartbeat_ms: 100\n",
             data.set, max_restarts);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

/* True when an event of the status has this text in it. */
static bool has_event(json_t *root, const char *text)
{
    size_t i;
    json_t *event;
    json_array_foreach(json_object_get(root, "events"), i, event)
    {
        const char *is = json_string_value(json_object_get(event, "text"));
        if (is && strstr(is, text))
            return true;
    }
    return false;
}

/* True when the status says of server 1, which runs, how the one before it ended. */
static bool has_last_end(json_t *root, const char *text)
{
    size_t i;
    json_t *member;
    json_array_foreach(json_object_get(root, "members"), i, member)
    {
        json_t *end = json_object_get(member, "last_end");
        const char *role = json_string_value(json_object_get(member, "role"));
        const char *is = json_string_value(json_object_get(end, "text"));
        if (is && strcmp(role, "ps") == 0 && strstr(is, text) &&
            json_integer_value(json_object_get(member, "rank")) == 1)
            return true;
    }
    return false;
}

/* Waits until the status has an event, and, unless last_end is NULL, that of server 1. */
static bool await_status(const struct driver *d, const char *event, const char *last_end)
{
    static char answer[262144];
    for (int64_t until = driver_now_ms() + WITHIN_MS; driver_now_ms() < until; driver_nap(50)) {
        if (driver_ask(d, SLUICE, "status", "--json", answer, sizeof(answer)) != 0)
            continue;
        json_t *root = json_loads(answer, 0, NULL);
        const char *phase = json_string_value(json_object_get(root, "phase"));
        bool well = phase && strcmp(phase, "running") == 0 && has_event(root, event) &&
                    (!last_end || has_last_end(root, last_end));
        json_decref(root);
        if (well)
            return true;
    }
    printf("  the last status: %s\n", answer);
    return false;
}

static void test_the_status_tells_why_those_before_ended(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 5);
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":10", WITHIN_MS));
    CU_ASSERT(driver_kill(driver_find(&d, "sluice ps", "--rank 1", 0), SIGKILL));
    CU_ASSERT(await_status(&d, "ps 1 was killed by signal 9 (Killed)",
                           "was killed by signal 9 (Killed)"));
    CU_ASSERT(driver_kill(driver_find(&d, "sluice sched", "", 0), SIGKILL));
    CU_ASSERT(await_status(&d, "sched was killed by signal 9 (Killed)", NULL));
    kill(d.pid, SIGTERM);
    CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 75);
    CU_ASSERT_EQUAL(driver_remains(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static bool write_number(const char *folder, const char *name, long number)
{
    char path[300], text[32];
    int n = snprintf(text, sizeof(text), "%ld", number);
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY);
    bool well = fd >= 0 && write(fd, text, (size_t)n) == n;
    if (fd >= 0)
        close(fd);
    return well;
}

/* A memory cgroup, of version 1 or 2, with a limit too low for a job; false when none can be made.
 */
static bool make_cgroup(char folder[200])
{
    static const char *const roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    static const char *const limits[] = {"memory.limit_in_bytes", "memory.max"};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false; /* there the supervisor is as large as a role, and may be the victim */
#endif
    for (int i = 0; i < 2; i++) {
        snprintf(folder, 200, "%s/sluice-test-%d", roots[i], (int)getpid());
        if (mkdir(folder, 0755))
            continue;
        if (write_number(folder, limits[i], 36L << 20)) {
            write_number(folder, "memory.swap.max", 0);
            return true;
        }
        rmdir(folder);
    }
    return false;
}

/* A process that stands in a cgroup and then becomes the supervisor. */
static void start_in(struct driver *d, const char *cgroup)
{
    char command[2048];
    snprintf(command, sizeof(command),
             "echo $$ > '%s/cgroup.procs' && exec '%s' train '%s/job.yaml' > '%s/terminal' 2>&1",
             cgroup, SLUICE, d->folder, d->folder);
    d->pid = fork();
    if (d->pid == 0) {
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    CU_ASSERT_FATAL(d->pid > 0);
}

static void test_a_lack_of_memory_is_named_with_its_cgroup(void)
{
    struct driver d;
    char cgroup[200], name[64];
    unsigned before = CU_get_number_of_failures();
    if (!make_cgroup(cgroup)) {
        printf("  no memory cgroup can be made here ");
        return;
    }
    open_job(&d, 0);
    start_in(&d, cgroup);
    CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 69);
    snprintf(name, sizeof(name), "sluice-test-%d", (int)getpid());
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, " was killed by the kernel: out of memory (cgroup /"));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, name));
    CU_ASSERT_EQUAL(driver_remains(&d, 2000), 0);
    for (int i = 0; rmdir(cgroup) && i < 50; i++)
        driver_nap(20); /* its last process is still on its way out */
    CU_ASSERT_NOT_EQUAL(access(cgroup, F_OK), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

/* A roll-back costs what changed, because servers that live are not started again. */
static void test_servers_are_the_same_processes_after_a_roll_back(void)
{
    unsigned before = CU_get_number_of_failures();
    struct driver d;
    pid_t server[2];
    char answer[1024];
    open_job(&d, 5);
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20,", WITHIN_MS));
    CU_ASSERT_EQUAL(driver_ask(&d, SLUICE, "snapshot", "", answer, sizeof(answer)), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"kind\":\"snapshot\"", WITHIN_MS));
    for (int i = 0; i < 2; i++)
        server[i] = driver_find(&d, "sluice ps", i ? "--rank 1" : "--rank 0", 0);
    CU_ASSERT(server[0] > 0 && server[1] > 0);
    pid_t worker = driver_find_worker(&d, 0);
    CU_ASSERT_FATAL(worker > 0 && kill(worker, SIGKILL) == 0);
    CU_ASSERT(
        driver_await_text(&d, "../../terminal", "going back to the last snapshot", WITHIN_MS));
    CU_ASSERT(await_status(&d, "worker 0 was killed", NULL)); /* and runs */
    CU_ASSERT_NOT_EQUAL(driver_find_worker(&d, 0), worker);
    for (int i = 0; i < 2; i++)
        CU_ASSERT_EQUAL(driver_find(&d, "sluice ps", i ? "--rank 1" : "--rank 0", 0), server[i]);
    kill(d.pid, SIGTERM);
    CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 75);
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_clean_up(void)
{
    small_data_close(&data);
    CU_ASSERT_NOT_EQUAL(access(data.set, R_OK), 0);
}

SUITE("cluster_e2e.reasons", T(test_the_status_tells_why_those_before_ended),
      T(test_a_lack_of_memory_is_named_with_its_cgroup),
      T(test_servers_are_the_same_processes_after_a_roll_back), T(test_clean_up))

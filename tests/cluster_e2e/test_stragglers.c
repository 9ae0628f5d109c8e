/* A worker that stands still, and one that is starved: the job goes on, names it in the log and on
 * `sluice status --json`, and ends in the bits of a calm run.
 *
 * A busy machine makes others slow as well, now and then: so what is waited for is the sentence
 * about this worker, and nothing is made of who else is named. And it may keep the test waiting: so
 * a worker stands still, and the job with it, until the test has everything ready. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

#include <jansson.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum {
    DEAD_AFTER_MS = 24000,
    NAMED_WITHIN_MS = DEAD_AFTER_MS - 4000, /* a third of it is when silence is named */
    STARVED_DEAD_AFTER_MS = 120000,         /* its heartbeats starve, too */
    STARVED_WITHIN_MS = 100000,
    TRAINS_WITHIN_MS = 60000,
    ENDS_WITHIN_MS = 150000
};

static struct small_data data;
static char calm[64];

/* A step computes for longer than a core lets a thread run that has company: what starves does so
 * while it computes, and not only at its next message. */
static void open_job(struct driver *d, int dead_after_ms)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 1\nshards: 2\nworkers: 2\nwidth: 64\nheads: 2\nhistory: 50\n"
             "batch: 256\nlog_every: 2\nepochs: 7\nread: greedy\nmax_restarts: 0\n"
             "heartbeat_ms: 100\ndead_after_ms: %d\nrequest_timeout_ms: 120000\n",
             data.set, dead_after_ms);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

/* The rank of a process of the job, as the scheduler knows it; and of that rank whether it is slow.
 * -1 when the job does not answer. */
static int rank_of(const struct driver *d, pid_t pid, bool *slow_p)
{
    static char answer[262144];
    int rank = -1;
    size_t i;
    json_t *member;
    *slow_p = false;
    if (driver_ask(d, SLUICE, "status", "--json", answer, sizeof(answer)) != 0)
        return -1;
    json_t *root = json_loads(answer, 0, NULL);
    json_array_foreach(json_object_get(root, "members"), i, member)
    {
        if (json_integer_value(json_object_get(member, "pid")) != pid ||
            strcmp(json_string_value(json_object_get(member, "role")), "worker") != 0)
            continue;
        rank = (int)json_integer_value(json_object_get(member, "rank"));
        *slow_p = json_is_true(json_object_get(member, "slow"));
    }
    json_decref(root);
    return rank;
}

/* Waits until the log names this worker, and the status says so too. */
static bool await_slow(const struct driver *d, pid_t pid, const char *named, int timeout_ms)
{
    bool slow = false;
    int64_t until = driver_now_ms() + timeout_ms;
    if (!driver_await_text(d, "log/sched-0.log", named, timeout_ms))
        return false;
    while (!(rank_of(d, pid, &slow) >= 0 && slow) && driver_now_ms() < until)
        driver_nap(50);
    return slow;
}

/* A job that trains, and then stands still because one of its two workers does; the process of the
 * other, and its rank. */
static pid_t start_and_hold(struct driver *d, int dead_after_ms, pid_t *held_p, int *rank_p)
{
    bool slow;
    open_job(d, dead_after_ms);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(d, "metrics.jsonl", "\"step\":8,", TRAINS_WITHIN_MS));
    pid_t pid = driver_find_worker(d, 1);
    *held_p = driver_find_worker(d, 0);
    CU_ASSERT_FATAL(driver_kill(*held_p, SIGSTOP));
    CU_ASSERT_FATAL(pid > 0);
    *rank_p = -1;
    for (int i = 0; i < 10 && *rank_p < 0; i++) /* a busy scheduler may miss an answer */
        *rank_p = rank_of(d, pid, &slow);
    CU_ASSERT_FATAL(*rank_p >= 0);
    return pid;
}

/* It ends well, in the calm run's bits; what was said is in the scheduler's log. */
static void finish(struct driver *d, unsigned before, const char *named)
{
    char out[600], digest[64];
    CU_ASSERT_EQUAL(driver_wait(d, ENDS_WITHIN_MS), 0);
    CU_ASSERT(driver_await_text(d, "log/sched-0.log", named, 0));
    CU_ASSERT_PTR_NOT_NULL(strstr(d->text, named)); /* and on the terminal */
    CU_ASSERT_PTR_NULL(strstr(d->text, "restart"));
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    CU_ASSERT_EQUAL(driver_remains(d, 2000), 0);
    driver_close(d, CU_get_number_of_failures() > before);
}

static void test_a_calm_job_names_nobody(void)
{
    struct driver d;
    char out[600];
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    open_job(&d, DEAD_AFTER_MS);
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, ENDS_WITHIN_MS), 0);
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(SLUICE, out, calm);
    CU_ASSERT_FATAL(calm[0] != '\0');
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_a_worker_that_stands_still_is_named_and_goes_on(void)
{
    struct driver d;
    int rank;
    char named[64];
    pid_t held;
    unsigned before = CU_get_number_of_failures();
    start_and_hold(&d, DEAD_AFTER_MS, &held, &rank);
    snprintf(named, sizeof(named), "worker %d is slow: no heartbeat for", 1 - rank);
    CU_ASSERT(await_slow(&d, held, named, NAMED_WITHIN_MS));
    CU_ASSERT(driver_kill(held, SIGCONT));
    finish(&d, before, named);
}

/* Every thread of a process on some cores, at this priority. */
static void confine(pid_t pid, const cpu_set_t *cores, int priority)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        pid_t thread = (pid_t)atoi(entry->d_name);
        if (thread > 0 && (sched_setaffinity(thread, sizeof(*cores), cores) ||
                           setpriority(PRIO_PROCESS, (id_t)thread, priority)))
            printf("  thread %d has not got priority %d: %s\n", (int)thread, priority,
                   strerror(errno));
    }
    if (dir)
        closedir(dir);
}

/* A process that wants a core for itself. */
static pid_t burn(int core)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sched_setaffinity(0, sizeof(set), &set);
    for (volatile unsigned long n = 0; getppid() == parent; n = n + 1)
        for (volatile unsigned long k = 0; k < 100000; k = k + 1)
            ;
    _exit(0);
}

static void test_a_starved_worker_is_named_until_it_keeps_up(void)
{
    struct driver d;
    int rank, core = 0;
    char named[64];
    cpu_set_t all, one;
    unsigned before = CU_get_number_of_failures();
    pid_t held, pid = start_and_hold(&d, STARVED_DEAD_AFTER_MS, &held, &rank);
    CU_ASSERT_EQUAL_FATAL(sched_getaffinity(0, sizeof(all), &all), 0);
    while (!CPU_ISSET(core, &all))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    snprintf(named, sizeof(named), "worker %d is slow: ", rank);
    confine(pid, &one, 19);
    pid_t burner = burn(core);
    CU_ASSERT_FATAL(burner > 0);
    CU_ASSERT(driver_kill(held, SIGCONT));
    CU_ASSERT(await_slow(&d, pid, named, STARVED_WITHIN_MS));
    kill(burner, SIGKILL);
    waitpid(burner, NULL, 0);
    confine(pid, &all, 0); /* else whoever else is at work here starves it on */
    finish(&d, before, named);
}

static void test_clean_up(void)
{
    small_data_close(&data);
    CU_ASSERT_NOT_EQUAL(access(data.set, R_OK), 0);
}

SUITE("cluster_e2e.stragglers", T(test_a_calm_job_names_nobody),
      T(test_a_worker_that_stands_still_is_named_and_goes_on),
      T(test_a_starved_worker_is_named_until_it_keeps_up), T(test_clean_up))

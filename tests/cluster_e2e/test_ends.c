/* Whatever dies, and however: a job's end leaves nothing behind. For each kind of death of a real
 * job: its exit code, and then a look for processes, sockets, shared memory and Open MPI's session
 * files. While the job trains the test notes what its processes have mapped from /dev/shm, whatever
 * its name: none of that may be there afterwards. TMPDIR is a folder of the test's own, and must be
 * empty. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum { DIES_WITHIN_MS = 10000, MAX_MAPPED = 64 };

struct traces {
    char temporary[600];
    char mapped[MAX_MAPPED][256];
    int n_mapped;
};

static struct small_data data;

static void open_job(struct driver *d, const char *more)
{
    char text[1024];
    if (!data.folder[0])
        CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: 1000\nread: greedy\nheartbeat_ms: 100\n%s",
             data.set, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

/* Notes the files in shared memory that a process has mapped. */
static void note_mapped(pid_t pid, struct traces *t)
{
    char path[64], line[1024];
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file)) {
        char *name = strstr(line, "/dev/shm/");
        if (!name || t->n_mapped == MAX_MAPPED)
            continue;
        name[strcspn(name, "\n")] = '\0';
        snprintf(t->mapped[t->n_mapped++], sizeof(t->mapped[0]), "%.255s", name);
    }
    if (file)
        fclose(file);
}

/* Starts a job whose temporary files go to a folder of its own, and waits until it trains. */
static void start(struct driver *d, struct traces *t)
{
    pid_t pid;
    const char *before = getenv("TMPDIR");
    char *copy = before ? strdup(before) : NULL;
    t->n_mapped = 0;
    snprintf(t->temporary, sizeof(t->temporary), "%s/tmp", d->folder);
    CU_ASSERT_EQUAL_FATAL(mkdir(t->temporary, 0700), 0);
    setenv("TMPDIR", t->temporary, 1);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, NULL), 0);
    if (copy)
        setenv("TMPDIR", copy, 1);
    else
        unsetenv("TMPDIR");
    free(copy);
    CU_ASSERT(driver_await_text(d, "metrics.jsonl", "\"step\":10", 30000));
    for (int i = 0; (pid = driver_find(d, "", "", i)) > 0; i++)
        note_mapped(pid, t);
    if (access("/dev/shm", W_OK) == 0)
        CU_ASSERT(t->n_mapped > 0); /* what two ranks on one machine share */
}

static int n_entries(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            printf("  left behind: %s/%s\n", folder, entry->d_name);
            n++;
        }
    if (dir)
        closedir(dir);
    return n;
}

static int n_left(const struct driver *d, const struct traces *t, int timeout_ms)
{
    int n = driver_remains(d, timeout_ms) + n_entries(t->temporary);
    for (int i = 0; i < t->n_mapped; i++)
        if (access(t->mapped[i], F_OK) == 0) {
            printf("  left behind: %s\n", t->mapped[i]);
            n++;
        }
    return n;
}

static pid_t find(const struct driver *d, const char *who)
{
    if (strcmp(who, "train") == 0)
        return d->pid;
    if (strcmp(who, "worker") == 0)
        return driver_find_worker(d, 1);
    return driver_find(d, who, "", 0);
}

static void die(const char *who, int signal_number, int n_signals, int expected)
{
    struct driver d;
    static struct traces t;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d, &t);
    pid_t pid = find(&d, who);
    CU_ASSERT_FATAL(pid > 0);
    for (int i = 0; i < n_signals; i++) {
        if (i > 0)
            driver_nap(100);
        kill(pid, signal_number);
    }
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), expected);
    CU_ASSERT_EQUAL(n_left(&d, &t, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_a_killed_scheduler_leaves_nothing(void)
{
    die("sluice sched", SIGKILL, 1, 69);
}

static void test_a_killed_server_leaves_nothing(void)
{
    die("sluice ps", SIGKILL, 1, 69);
}

static void test_a_killed_worker_leaves_nothing(void)
{
    die("worker", SIGKILL, 1, 69);
}

static void test_a_killed_mpirun_leaves_nothing(void)
{
    die("mpirun -n", SIGKILL, 1, 69);
}

static void test_a_killed_supervisor_leaves_nothing(void)
{
    die("train", SIGKILL, 1, 128 + SIGKILL);
}

static void test_sigterm_leaves_nothing(void)
{
    die("train", SIGTERM, 1, 75);
}

static void test_an_interrupt_and_two_of_them_leave_nothing(void)
{
    die("train", SIGINT, 1, 75);
    die("train", SIGINT, 2, 75);
}

/* Everything that could clean up is killed at once: the next job does it. */
static void test_the_next_job_cleans_up_when_nobody_was_left_to(void)
{
    struct driver d, next;
    static struct traces t;
    char scratch[64];
    pid_t pid;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, "");
    start(&d, &t);
    kill(d.pid, SIGSTOP); /* it starts nothing again, and reaps nobody */
    for (int i = 0; (pid = driver_find(&d, "", "", i)) > 0; i++)
        if (pid != d.pid)
            kill(pid, SIGKILL), i = -1;
    kill(d.pid, SIGKILL);
    CU_ASSERT_EQUAL(driver_wait(&d, 1000), 128 + SIGKILL);
    snprintf(scratch, sizeof(scratch), "/dev/shm/sluice-mpi-%d", (int)d.pid);
    if (access(scratch, F_OK))
        snprintf(scratch, sizeof(scratch), "/tmp/sluice-mpi-%d", (int)d.pid);
    CU_ASSERT_EQUAL(access(scratch, F_OK), 0);
    open_job(&next, "max_steps: 2\n");
    CU_ASSERT_EQUAL_FATAL(driver_start(&next, SLUICE, NULL), 0);
    CU_ASSERT_EQUAL(driver_wait(&next, 60000), 0);
    CU_ASSERT_NOT_EQUAL(access(scratch, F_OK), 0);
    CU_ASSERT_EQUAL(n_left(&d, &t, 0) + driver_remains(&next, 0), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
    driver_close(&next, CU_get_number_of_failures() > before);
}

static void test_clean_up(void)
{
    small_data_close(&data);
    CU_ASSERT_NOT_EQUAL(access(data.set, R_OK), 0);
}

SUITE("cluster_e2e.ends", T(test_a_killed_scheduler_leaves_nothing),
      T(test_a_killed_server_leaves_nothing), T(test_a_killed_worker_leaves_nothing),
      T(test_a_killed_mpirun_leaves_nothing), T(test_a_killed_supervisor_leaves_nothing),
      T(test_sigterm_leaves_nothing), T(test_an_interrupt_and_two_of_them_leave_nothing),
      T(test_the_next_job_cleans_up_when_nobody_was_left_to), T(test_clean_up))

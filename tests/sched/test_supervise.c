/* The supervisor and the scheduler, real processes really killed; the roles are stand-ins
 * (standin.c). */
#include "tests/cluster_e2e/driver.h"
#include "tests/suite.h"

static const char *const job_text = "data: /tmp\n"
                                    "servers: 2\nshards: 2\nworkers: 2\n"
                                    "max_steps: %d\nlog_every: 10\nmax_restarts: %d\n"
                                    "snapshot_every: %d\ndead_after_ms: 4000\nheartbeat_ms: 200\n"
                                    "start_timeout_ms: 20000\n";

enum { LONG = 100000, DIES_WITHIN_MS = 10000 };

static void open_job(struct driver *d, int max_steps, int max_restarts, int snapshot_every)
{
    char text[1024];
    snprintf(text, sizeof(text), job_text, max_steps, max_restarts, snapshot_every);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void start(struct driver *d)
{
    CU_ASSERT_EQUAL_FATAL(driver_start(d, STANDIN, NULL), 0);
}

/* The number of failures so far: what a test prints depends on it. */
static void close_job(struct driver *d, unsigned failures_before)
{
    CU_ASSERT_EQUAL(driver_left(d, 1000), 0);
    driver_close(d, CU_get_number_of_failures() > failures_before);
}

static void test_a_job_ends_with_0_and_a_whole_snapshot(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char path[700];
    open_job(&d, 60, 0, 20);
    start(&d);
    CU_ASSERT_EQUAL(driver_wait(&d, 30000), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "done: step 60"));
    snprintf(path, sizeof(path), "%s/out/run/snapshot/step-000000000060/manifest.json", d.folder);
    CU_ASSERT_EQUAL(access(path, R_OK), 0);
    snprintf(path, sizeof(path), "%s/out/run/snapshot/step-000000000020", d.folder);
    CU_ASSERT_NOT_EQUAL(access(path, R_OK), 0); /* keep: 2 */
    snprintf(path, sizeof(path), "%s/out/run/log/worker-0.log", d.folder);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":60", 0));
    close_job(&d, before);
}

/* Kills a process of a running job and checks how it ends. */
static void kill_one(const char *word, const char *word2, int signal_number, const char *sentence)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    pid_t pid = driver_find(&d, word, word2, 0);
    CU_ASSERT_FATAL(pid > 0);
    int64_t killed_ms = driver_now_ms();
    kill(pid, signal_number);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 69);
    printf("  ended after %lld ms\n", (long long)(driver_now_ms() - killed_ms));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, sentence));
    close_job(&d, before);
}

static void test_a_killed_server_ends_the_job_and_is_named(void)
{
    kill_one(" ps ", "--rank 1", SIGKILL, "ps 1 was killed by signal 9 (Killed)");
}

static void test_a_killed_scheduler_ends_the_job_and_is_named(void)
{
    kill_one("--supervised", "", SIGKILL, "sched was killed by signal 9 (Killed)");
}

static void test_a_killed_worker_ends_the_job_and_is_named(void)
{
    /* the ranks' command line is mpirun's, too: the rank is the one that does not start with it */
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    pid_t pid = driver_find(&d, "standin worker", "", 0);
    char line[8192];
    for (int i = 1; pid > 0; i++) {
        driver_command_line(pid, line, sizeof(line));
        if (strncmp(line, "mpirun", 6) != 0)
            break;
        pid = driver_find(&d, "standin worker", "", i);
    }
    CU_ASSERT_FATAL(pid > 0);
    kill(pid, SIGKILL);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 69);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "was killed by signal 9 (Killed)"));
    CU_ASSERT(strstr(d.text, "error train: worker 0") || strstr(d.text, "error train: worker 1"));
    close_job(&d, before);
}

static void test_a_killed_mpirun_ends_the_job_and_is_named(void)
{
    kill_one("mpirun -n", "", SIGKILL, "mpirun, the workers' launcher, was killed by signal 9");
}

static void test_a_stopped_server_is_lost_and_named(void)
{
    kill_one(" ps ", "--rank 0", SIGSTOP, "ps 0 is lost: no heartbeat for");
}

static void test_a_killed_supervisor_leaves_nothing_behind(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    kill(d.pid, SIGKILL);
    CU_ASSERT_EQUAL(driver_wait(&d, 1000), 128 + SIGKILL);
    close_job(&d, before);
}

static void test_an_interrupt_takes_a_snapshot_and_the_same_command_goes_on(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 400, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    kill(d.pid, SIGINT);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "stopped by an interrupt"));
    CU_ASSERT_EQUAL(driver_left(&d, 1000), 0);
    start(&d);
    CU_ASSERT_EQUAL(driver_wait(&d, 30000), 0);
    CU_ASSERT(driver_await_text(&d, "log/sched-0.log", "resuming from", 0));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "done: step 400"));
    close_job(&d, before);
}

static void test_two_interrupts_end_it_at_once(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    pid_t server = driver_find(&d, " ps ", "--rank 0", 0);
    kill(server, SIGSTOP); /* an orderly stop would wait for it */
    kill(d.pid, SIGINT);
    driver_nap(200);
    kill(d.pid, SIGINT);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    close_job(&d, before);
}

static void test_a_role_that_fails_at_its_start_is_named_with_its_exit_code(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    setenv("SLUICE_STANDIN_EXIT", "ps:1:0:77", 1);
    open_job(&d, LONG, 0, 0);
    start(&d);
    unsetenv("SLUICE_STANDIN_EXIT");
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 77);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "ps 1 ended with exit code 77 (not allowed)"));
    close_job(&d, before);
}

/* A host that Open MPI's launch agent does not reach: every try is counted, and the end names the
 * host, what the agent said, and no bug. For servers and for workers. */
static void unreached(const char *hosts, const char *who)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char path[700], text[2048], sentence[256];
    int n = snprintf(text, sizeof(text), job_text, LONG, 5, 0);
    open_job(&d, LONG, 5, 0);
    const char *const files[][2] = {
        {"agent", "#!/bin/sh\necho \"agent: no way to $1\" >&2\nexit 77\n"}, {"hosts", hosts}};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", d.folder, files[i][0]);
        FILE *file = fopen(path, "w");
        CU_ASSERT_PTR_NOT_NULL_FATAL(file);
        fputs(files[i][1], file);
        fclose(file);
        chmod(path, 0755);
    }
    snprintf(text + n, sizeof(text) - (size_t)n, "out: %s/out\nhostfile: %s\n", d.folder, path);
    char job[700];
    snprintf(job, sizeof(job), "%s/job.yaml", d.folder);
    FILE *file = fopen(job, "w");
    fputs(text, file);
    fclose(file);
    path[strlen(path) - strlen("hosts")] = '\0';
    strcat(path, "agent");
    setenv("OMPI_MCA_plm_rsh_agent", path, 1);
    start(&d);
    unsetenv("OMPI_MCA_plm_rsh_agent");
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 69);
    snprintf(sentence, sizeof(sentence),
             "%s could not be started: Open MPI's launcher could not start its daemon on sluice-no "
             "(agent: no way to sluice-no): check the name",
             who);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, sentence));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "; restart 2 of at most 5"));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "the job ends at step 0, after 3 tries"));
    CU_ASSERT_PTR_NULL(strstr(d.text, "invariant"));
    CU_ASSERT_PTR_NULL(strstr(d.text, "a bug"));
    close_job(&d, before);
}

static void test_a_host_that_is_not_reached_is_named(void)
{
    unreached("sluice-no slots=4\n", ""); /* whoever is heard first */
    unreached("localhost slots=1\nlocalhost\nsluice-no slots=4\n", "the workers");
}

static void test_a_second_supervisor_in_the_same_folder_is_refused(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    pid_t first = d.pid;
    start(&d);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 73);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "another job runs in"));
    d.pid = first;
    kill(d.pid, SIGKILL);
    driver_wait(&d, 1000);
    close_job(&d, before);
}

static void test_sigusr1_makes_everybody_write_their_state(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, 0, 0);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 20000));
    kill(d.pid, SIGUSR1);
    CU_ASSERT(driver_await_text(&d, "log/ps-1.log", "state: a stand-in, serving", 5000));
    CU_ASSERT(driver_await_text(&d, "log/sched-0.log", "state: running, generation 1", 5000));
    CU_ASSERT(driver_await_text(&d, "log/sched-0.log", "state: worker 1 in, pid", 5000));
    kill(d.pid, SIGTERM);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "state: phase running"));
    close_job(&d, before);
}

/* Kills processes of a job that may be restarted; it must end as if nothing had been. */
static void survive(const char *word, const char *word2, int max_steps, int n_kills)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char path[700], text[64] = "";
    open_job(&d, max_steps, 8, 20);
    start(&d);
    for (int i = 0; i < n_kills; i++) {
        char step[32];
        snprintf(step, sizeof(step), "\"step\":%d", 50 * (i + 1));
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", step, 20000));
        pid_t pid = driver_await(&d, word, word2, 0, 5000);
        CU_ASSERT_FATAL(pid > 0);
        kill(pid, SIGKILL);
    }
    CU_ASSERT_EQUAL(driver_wait(&d, 40000), 0);
    snprintf(path, sizeof(path), "%s/out/run/snapshot/step-%012d/dense.safetensors", d.folder,
             max_steps);
    FILE *file = fopen(path, "r");
    CU_ASSERT_PTR_NOT_NULL(file);
    if (file) {
        CU_ASSERT_PTR_NOT_NULL(fgets(text, sizeof(text), file));
        fclose(file);
    }
    snprintf(path, sizeof(path), "dense.safetensors of step %d\n", max_steps);
    CU_ASSERT_STRING_EQUAL(text, path);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "restart 1 of at most 8"));
    close_job(&d, before);
}

static void test_a_job_survives_killed_servers(void)
{
    survive(" ps ", "--rank 1", 200, 2);
}

static void test_a_job_survives_a_killed_mpirun(void)
{
    survive("mpirun -n", "", 200, 2);
}

static void test_a_job_survives_a_killed_scheduler(void)
{
    survive("--supervised", "", 400, 2);
}

/* A scheduler that stands still at any moment of a restart finds old and new words waiting for it:
 * the job goes on all the same. */
static void test_a_scheduler_that_stands_still_during_a_restart_mixes_nothing_up(void)
{
    enum { N = 3, APART = 250 };
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, (N + 1) * APART, 2 * N, 20);
    start(&d);
    pid_t sched = driver_await(&d, "--supervised", "", 0, 5000);
    CU_ASSERT_FATAL(sched > 0);
    for (int i = 0; i < N; i++) { /* each only after progress: else it were a bug, not bad luck */
        char step[32];
        snprintf(step, sizeof(step), "\"step\":%d", APART * (i + 1));
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", step, 20000));
        pid_t pid = driver_await(&d, " ps ", "--rank 0", 0, 5000);
        CU_ASSERT_FATAL(pid > 0);
        kill(pid, SIGKILL);
        driver_nap(i * 80);
        kill(sched, SIGSTOP);
        driver_nap(1000);
        kill(sched, SIGCONT);
    }
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "restart 3 of at most 6"));
    close_job(&d, before);
}

static void test_the_same_death_three_times_is_a_bug(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    setenv("SLUICE_STANDIN_EXIT", "worker:0:25:71", 1);
    open_job(&d, LONG, 8, 20);
    start(&d);
    unsetenv("SLUICE_STANDIN_EXIT");
    CU_ASSERT_EQUAL(driver_wait(&d, 40000), 70);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "that is a bug, not bad luck"));
    close_job(&d, before);
}

static void test_the_same_failure_to_write_three_times_is_a_disk(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    setenv("SLUICE_STANDIN_EXIT", "worker:0:25:74", 1);
    open_job(&d, LONG, 8, 20);
    start(&d);
    unsetenv("SLUICE_STANDIN_EXIT");
    CU_ASSERT_EQUAL(driver_wait(&d, 40000), 74);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "make room on its disk"));
    close_job(&d, before);
}

SUITE("sched.supervise", T(test_a_job_ends_with_0_and_a_whole_snapshot),
      T(test_a_killed_server_ends_the_job_and_is_named),
      T(test_a_killed_scheduler_ends_the_job_and_is_named),
      T(test_a_killed_worker_ends_the_job_and_is_named),
      T(test_a_killed_mpirun_ends_the_job_and_is_named), T(test_a_stopped_server_is_lost_and_named),
      T(test_a_killed_supervisor_leaves_nothing_behind),
      T(test_an_interrupt_takes_a_snapshot_and_the_same_command_goes_on),
      T(test_two_interrupts_end_it_at_once),
      T(test_a_role_that_fails_at_its_start_is_named_with_its_exit_code),
      T(test_a_host_that_is_not_reached_is_named),
      T(test_a_second_supervisor_in_the_same_folder_is_refused),
      T(test_sigusr1_makes_everybody_write_their_state), T(test_a_job_survives_killed_servers),
      T(test_a_scheduler_that_stands_still_during_a_restart_mixes_nothing_up),
      T(test_a_job_survives_a_killed_mpirun), T(test_a_job_survives_a_killed_scheduler),
      T(test_the_same_death_three_times_is_a_bug),
      T(test_the_same_failure_to_write_three_times_is_a_disk))

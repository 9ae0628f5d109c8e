/* Whole jobs, with real servers, real ranks and real training: how they end, well and otherwise. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum {
    DIES_WITHIN_MS = 10000,
    ANSWER_WITHIN_MS = 3000, /* what a question to a running job waits for its answer */
    LONG = 1000              /* epochs: longer than any test */
};

static struct small_data data;

static void open_job(struct driver *d, int epochs, const char *more)
{
    char text[1024];
    if (!data.folder[0])
        CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: %d\nread: greedy\nmax_restarts: 0\n%s",
             data.set, epochs, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void close_job(struct driver *d, unsigned failures_before)
{
    CU_ASSERT_EQUAL(driver_remains(d, 2000), 0);
    driver_close(d, CU_get_number_of_failures() > failures_before);
}

static void test_a_job_trains_and_ends_with_0(void)
{
    struct driver d;
    char out[600], digest[64];
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 1, "");
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "done: step 85"));
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"kind\":\"evaluated\"", 0));
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT(strlen(digest) >= 8);
    close_job(&d, before);
}

/* The last line names the step that is kept, which the newest pinned snapshot is of, and why; also
 * when there is nothing left to do. */
static void test_a_job_that_stops_early_names_the_step_that_it_keeps(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char command[900], kept[128];
    unsigned long long step = 0;
    open_job(&d, LONG, "valid_percent: 20\npatience: 2\nkeep: 100\n");
    for (int again = 0; again < 2; again++) {
        CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
        CU_ASSERT_EQUAL(driver_wait(&d, 90000), 0);
        snprintf(command, sizeof(command),
                 "ls -d '%s'/out/run/snapshot/step-*/pinned | tail -1 | sed 's/.*step-0*//'",
                 d.folder);
        FILE *pipe = popen(command, "r");
        CU_ASSERT_EQUAL_FATAL(fscanf(pipe, "%llu", &step), 1);
        pclose(pipe);
        const char *line = strstr(d.text, "done: step ");
        for (const char *next = line; next; next = strstr(next + 1, "done: step "))
            line = next; /* of this start */
        CU_ASSERT_PTR_NOT_NULL_FATAL(line);
        printf("  %.200s\n", line);
        CU_ASSERT(strtoull(line + strlen("done: step "), NULL, 10) > step);
        snprintf(kept, sizeof(kept), ", step %llu: its validation loss, ", step);
        CU_ASSERT_PTR_NOT_NULL(strstr(line, kept));
        CU_ASSERT_PTR_NOT_NULL(strstr(line, "is the best, better than the 2 after it"));
        CU_ASSERT_PTR_NULL(strstr(line, "step 0 "));
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "was reached before"));
    close_job(&d, before);
}

static void test_the_same_command_again_has_nothing_left_to_do(void)
{
    struct driver d;
    char out[600], first[64], second[64];
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 1, "");
    snprintf(out, sizeof(out), "%s/out", d.folder);
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    small_data_digest(SLUICE, out, first);
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    small_data_digest(SLUICE, out, second);
    CU_ASSERT_STRING_EQUAL(first, second);
    close_job(&d, before);
}

/* Kills one process of a training job: it must end in time, named, and leave nothing. */
static void kill_one(const char *word, const char *word2, int worker, const char *sentence)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, "");
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 30000));
    pid_t pid = worker >= 0 ? driver_find_worker(&d, worker) : driver_find(&d, word, word2, 0);
    CU_ASSERT_FATAL(pid > 0);
    int64_t killed_ms = driver_now_ms();
    kill(pid, SIGKILL);
    int code = driver_wait(&d, DIES_WITHIN_MS);
    CU_ASSERT_EQUAL(code, 69);
    printf("  ended after %lld ms\n", (long long)(driver_now_ms() - killed_ms));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, sentence));
    close_job(&d, before);
}

static void test_a_killed_server_is_named(void)
{
    kill_one("sluice ps", "--rank 1", -1, "error train: ps 1 was killed by signal 9 (Killed)");
}

static void test_a_killed_scheduler_is_named(void)
{
    kill_one("sluice sched", "", -1, "error train: sched was killed by signal 9 (Killed)");
}

static void test_a_killed_worker_is_named(void)
{
    kill_one("", "", 1, " was killed by signal 9 (Killed); the job ends");
}

static void test_a_killed_mpirun_is_named(void)
{
    kill_one("mpirun -n", "", -1, "error train: mpirun, the workers' launcher, was killed");
}

/* The one that could tell is dead, the one that will have to know is not there yet: still the new
 * scheduler learns who died between the two, and waits for nobody. */
static void test_who_dies_while_the_scheduler_is_restarted_is_missed_by_the_new_one(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 4, "");
    char *more[] = {"--max-restarts", "8", "--durability", "log", "--start-timeout-ms",
                    "20000",          NULL};
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, more), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20,", 30000));
    pid_t sched = driver_find(&d, "sluice sched", "", 0),
          mpirun = driver_find(&d, "mpirun -n", "", 0);
    CU_ASSERT_FATAL(sched > 0 && mpirun > 0);
    kill(sched, SIGKILL);
    CU_ASSERT(driver_await_text(&d, "../../terminal", ", from where it was", 5000));
    kill(mpirun, SIGKILL);
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "launcher, was killed by signal 9"));
    CU_ASSERT_PTR_NULL(strstr(d.text, "did not come back"));
    close_job(&d, before);
}

/* How many lines of the scheduler's log hold a text. */
static int n_said(const struct driver *d, const char *text)
{
    char path[700], line[1024];
    int n = 0;
    snprintf(path, sizeof(path), "%s/out/run/log/sched-0.log", d->folder);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file))
        n += strstr(line, text) != NULL;
    if (file)
        fclose(file);
    return n;
}

/* A job that was stopped is started again, and its scheduler dies in its first moments: the next
 * one begins this job, it does not take up the end of the one before. */
static void test_a_scheduler_killed_as_it_starts_takes_up_nothing_old(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char *more[] = {"--max-restarts", "8", "--durability", "log", NULL};
    open_job(&d, LONG, "");
    for (int i = 0; i < 5; i++) {
        const int n_joined = n_said(&d, "2 workers joined");
        CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, more), 0);
        pid_t sched = driver_await(&d, "sluice sched", "", 0, 10000);
        CU_ASSERT_FATAL(sched > 0);
        if (i > 0) {
            driver_nap((i - 1) * 6);
            kill(sched, SIGKILL);
        }
        int64_t until = driver_now_ms() + 30000;
        while (n_said(&d, "2 workers joined") == n_joined && driver_now_ms() < until &&
               driver_find(&d, "train", "", 0) > 0)
            driver_nap(20);
        CU_ASSERT(n_said(&d, "2 workers joined") > n_joined);
        kill(d.pid, SIGTERM);
        CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "sched was killed by signal 9"));
    close_job(&d, before);
}

static void test_an_interrupt_stops_cleanly_and_the_job_resumes(void)
{
    struct driver d;
    char out[600], stopped[64], calm[64];
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 3, "");
    snprintf(out, sizeof(out), "%s/out", d.folder);
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 30000));
    kill(d.pid, SIGINT);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    CU_ASSERT_EQUAL(driver_left(&d, 1000), 0);
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    small_data_digest(SLUICE, out, stopped);
    close_job(&d, before);
    open_job(&d, 3, "");
    snprintf(out, sizeof(out), "%s/out", d.folder);
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT_EQUAL(driver_wait(&d, 60000), 0);
    small_data_digest(SLUICE, out, calm);
    CU_ASSERT_STRING_EQUAL(stopped, calm); /* sample-exact */
    CU_ASSERT(calm[0] != '\0');
    close_job(&d, before);
}

/* At any moment from its first deed on. */
static void test_an_interrupt_while_the_job_starts_ends_it_with_75(void)
{
    static const int after_ms[] = {0, 5, 20, 60, 120, 180, 250, 350};
    for (size_t i = 0; i < sizeof(after_ms) / sizeof(after_ms[0]); i++) {
        struct driver d;
        unsigned before = CU_get_number_of_failures();
        open_job(&d, LONG, "");
        CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
        CU_ASSERT(driver_await_start(&d, 10000));
        driver_nap(after_ms[i]);
        kill(d.pid, SIGTERM);
        CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
        CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "stopped by SIGTERM at step"));
        CU_ASSERT_PTR_NULL(strstr(d.text, "error"));
        close_job(&d, before);
    }
}

static void test_a_scheduler_that_is_told_to_stop_stops_the_job(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, "");
    unsetenv("OPENBLAS_NUM_THREADS"); /* its threads are there before any signal is blocked */
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 30000));
    pid_t pid = driver_find(&d, "sluice sched", "", 0);
    CU_ASSERT_FATAL(pid > 0);
    kill(pid, SIGTERM);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "stopped by SIGTERM at step"));
    close_job(&d, before);
}

static void test_a_bad_job_file_is_78_with_its_line(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 1, "stalness: 1\n");
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT_EQUAL(driver_wait(&d, 5000), 78);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "line 14"));
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "did you mean 'staleness'"));
    close_job(&d, before);
}

static void test_missing_data_is_named_before_anything_is_trained(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char *extra[] = {"--data", "/nonexistent/data", NULL};
    open_job(&d, 1, "");
    driver_start(&d, SLUICE, extra);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 66);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "/nonexistent/data"));
    close_job(&d, before);
}

static int ask(const struct driver *d, const char *verb, char *answer, size_t answer_bytes)
{
    const char *flag = strcmp(verb, "status") == 0 ? "--json" : "";
    return driver_ask(d, SLUICE, verb, flag, answer, answer_bytes);
}

/* That no job runs is told at once, by every verb that asks one, with what is known of its end. */
static void expect_gone(const struct driver *d, const char *how)
{
    static const char *const verbs[] = {"status", "snapshot", "stop", "drain"};
    static char answer[65536];
    for (int i = 0; i < 4; i++) {
        int64_t asked_ms = driver_now_ms();
        CU_ASSERT_EQUAL(driver_ask(d, SLUICE, verbs[i], "", answer, sizeof(answer)), 69);
        CU_ASSERT(driver_now_ms() - asked_ms < ANSWER_WITHIN_MS); /* else it has asked somebody */
        CU_ASSERT_PTR_NOT_NULL(strstr(answer, "does not run; it ended "));
        CU_ASSERT_PTR_NOT_NULL(strstr(answer, how));
    }
}

static void test_a_running_job_answers_status_snapshot_and_stop(void)
{
    struct driver d;
    static char answer[65536];
    unsigned before = CU_get_number_of_failures();
    open_job(&d, LONG, "");
    driver_start(&d, SLUICE, NULL);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 30000));
    CU_ASSERT_EQUAL(ask(&d, "status", answer, sizeof(answer)), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "\"phase\": \"running\""));
    CU_ASSERT_EQUAL(ask(&d, "snapshot", answer, sizeof(answer)), 0);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"kind\":\"snapshot\"", 10000));
    CU_ASSERT_EQUAL(ask(&d, "stop", answer, sizeof(answer)), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    expect_gone(&d, "(exit code 75): stopped on request at step");
    CU_ASSERT_EQUAL(ask(&d, "status", answer, sizeof(answer)), 69); /* --json */
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "\"phase\": \"gone\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "\"exit_code\": 75"));
    close_job(&d, before);
}

/* Watches a job that ends after `deed`; what the watcher wrote, and its exit code. */
static int watch(struct driver *d, void (*deed)(struct driver *), int code, char *said,
                 size_t bytes)
{
    char command[1400], *last = NULL;
    snprintf(command, sizeof(command), "'%s' status '%s/out' --watch --every-ms 100 2>&1", SLUICE,
             d->folder);
    CU_ASSERT(driver_await_text(d, "metrics.jsonl", "\"step\":20", 30000));
    FILE *pipe = popen(command, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(pipe);
    said[0] = (char)fgetc(pipe); /* it is at it */
    deed(d);
    CU_ASSERT_EQUAL(driver_wait(d, 60000), code);
    size_t n = 1 + fread(said + 1, 1, bytes - 2, pipe);
    int status = pclose(pipe);
    said[n] = '\0';
    CU_ASSERT(n > 1 && said[n - 1] == '\n');
    CU_ASSERT_PTR_NULL(strstr(said, " error "));
    CU_ASSERT_PTR_NULL(strstr(said, " warn "));
    said[n - 1] = '\0';
    last = strrchr(said, '\n');
    memmove(said, last ? last + 1 : said, strlen(last ? last + 1 : said) + 1);
    return WEXITSTATUS(status);
}

static void do_nothing(struct driver *d)
{
    (void)d;
}

static void stop_it(struct driver *d)
{
    kill(d->pid, SIGTERM);
}

static void kill_a_server(struct driver *d)
{
    CU_ASSERT(driver_kill(driver_find(d, "sluice ps", "--rank 1", 0), SIGKILL));
}

static void kill_the_supervisor(struct driver *d)
{
    kill(d->pid, SIGKILL);
}

/* Whoever watches a job sees it end, and how, and nothing else. */
static void test_a_watched_job_ends_with_how_it_ended(void)
{
    static const struct {
        int epochs, code, watchers_code;
        void (*deed)(struct driver *);
        const char *last;
    } ends[] = {
        {3, 0, 0, do_nothing, "(exit code 0): done: step 255 after"},
        {LONG, 75, 75, stop_it, "(exit code 75): stopped by SIGTERM at step"},
        {LONG, 69, 69, kill_a_server, "(exit code 69): ps 1 was killed by signal 9 (Killed); "},
        {LONG, 128 + SIGKILL, 69, kill_the_supervisor, "the job ended without a word"},
    };
    static char said[1 << 20];
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct driver d;
        unsigned before = CU_get_number_of_failures();
        open_job(&d, ends[i].epochs, "");
        CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
        CU_ASSERT_EQUAL(watch(&d, ends[i].deed, ends[i].code, said, sizeof(said)),
                        ends[i].watchers_code);
        if (!strstr(said, ends[i].last))
            printf("  the last line: %s\n", said);
        CU_ASSERT_PTR_NOT_NULL(strstr(said, ends[i].last));
        CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
        expect_gone(&d, strstr(ends[i].last, "ended") ? "without a word" : ends[i].last);
        close_job(&d, before);
    }
}

static void test_clean_up(void)
{
    small_data_close(&data);
    CU_ASSERT_NOT_EQUAL(access(data.set, R_OK), 0);
}

SUITE("cluster_e2e.job", T(test_a_job_trains_and_ends_with_0),
      T(test_a_job_that_stops_early_names_the_step_that_it_keeps),
      T(test_the_same_command_again_has_nothing_left_to_do), T(test_a_killed_server_is_named),
      T(test_a_killed_scheduler_is_named), T(test_a_killed_worker_is_named),
      T(test_a_killed_mpirun_is_named),
      T(test_who_dies_while_the_scheduler_is_restarted_is_missed_by_the_new_one),
      T(test_a_scheduler_killed_as_it_starts_takes_up_nothing_old),
      T(test_an_interrupt_stops_cleanly_and_the_job_resumes),
      T(test_an_interrupt_while_the_job_starts_ends_it_with_75),
      T(test_a_scheduler_that_is_told_to_stop_stops_the_job),
      T(test_a_bad_job_file_is_78_with_its_line),
      T(test_missing_data_is_named_before_anything_is_trained),
      T(test_a_running_job_answers_status_snapshot_and_stop),
      T(test_a_watched_job_ends_with_how_it_ended), T(test_clean_up))

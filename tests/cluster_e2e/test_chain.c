/* Jobs whose snapshots are chains of deltas: each reads as the full snapshot in its place, restores
 * on any shape, survives kills bit for bit, and falls back where a link is damaged. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum { RUN_WITHIN_MS = 90000 };

static struct small_data data;
static char calm[64]; /* the digest that every undisturbed run ends in */

/* Few of many rows change between two snapshots, so deltas are small and chains long. */
static int make_data(void)
{
    char command[1200];
    if (small_data_open(&data, SLUICE))
        return -1;
    snprintf(command, sizeof(command),
             "rm -rf '%s' && '%s' generate --users 3000 --items 4000 --samples 6000 --seed 3 "
             "--out '%s' >/dev/null",
             data.set, SLUICE, data.set);
    return system(command);
}

static void open_job(struct driver *d)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 10\nepochs: 4\nread: greedy\nmax_restarts: 20\nkeep: 100\n"
             "snapshot_every: 20\nheartbeat_ms: 200\ndead_after_ms: 2000\n"
             "request_timeout_ms: 10000\nexpire_steps: 120\n",
             data.set);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void run(struct driver *d, char *const *extra, int expected)
{
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, extra), 0);
    CU_ASSERT_EQUAL(driver_wait(d, RUN_WITHIN_MS), expected);
    CU_ASSERT_EQUAL(driver_left(d, 2000), 0);
}

/* The first line of what a shell command prints, with $S the program and $R the job's snapshots. */
static void shell(const struct driver *d, const char *script, char *line, size_t line_bytes)
{
    char command[2400];
    snprintf(command, sizeof(command), "S='%s'; D='%s'; R=\"$D/out/run/snapshot\"; %s", SLUICE,
             d->folder, script);
    line[0] = '\0';
    FILE *pipe = popen(command, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(pipe);
    if (fgets(line, (int)line_bytes, pipe))
        line[strcspn(line, "\n")] = '\0';
    pclose(pipe);
}

static void expect(const struct driver *d, const char *script, const char *expected)
{
    char line[1024];
    shell(d, script, line, sizeof(line));
    if (strcmp(line, expected) != 0)
        printf("  %s\n  printed: %s\n  expected: %s\n", script, line, expected);
    CU_ASSERT_STRING_EQUAL(line, expected);
}

/* The process of a rank; -1. */
static pid_t find_rank(const struct driver *d, int rank)
{
    char path[64], text[16384], wanted[64];
    int size = snprintf(wanted, sizeof(wanted), "OMPI_COMM_WORLD_RANK=%d", rank);
    for (int i = 0;; i++) {
        pid_t pid = driver_find_worker(d, i);
        snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
        FILE *file = pid > 0 ? fopen(path, "r") : NULL;
        size_t n = file ? fread(text, 1, sizeof(text), file) : 0;
        if (file)
            fclose(file);
        if (pid < 0 || memmem(text, n, wanted, (size_t)size + 1))
            return pid;
    }
}

static bool is_being_written(const struct driver *d)
{
    char path[700];
    bool found = false;
    snprintf(path, sizeof(path), "%s/out/run/snapshot", d->folder);
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        found |= strstr(entry->d_name, ".part") != NULL;
    if (dir)
        closedir(dir);
    return found;
}

/* Has the job take its nth snapshot, a few steps on, and wait for it: rank 1 stands still, and with
 * it everybody at their next sum, but for the moment in which the snapshot begins. So what lies
 * between two snapshots does not depend on how busy the machine is. */
static void take_snapshot(const struct driver *d, pid_t rank1, int nth)
{
    char answer[1024];
    int64_t until = driver_now_ms() + RUN_WITHIN_MS;
    while (driver_ask(d, SLUICE, "snapshot", "", answer, sizeof(answer)) != 0 &&
           driver_now_ms() < until)
        driver_nap(20);
    CU_ASSERT(driver_kill(rank1, SIGCONT));
    while (!is_being_written(d) && driver_n_snapshots(d) < nth && driver_now_ms() < until)
        driver_nap(1);
    CU_ASSERT(driver_kill(rank1, SIGSTOP));
    while (driver_n_snapshots(d) < nth && driver_now_ms() < until)
        driver_nap(20);
    CU_ASSERT_EQUAL(driver_n_snapshots(d), nth);
}

/* Stops the job, in its second epoch, where its newest snapshot is a delta with three links below
 * it or more. */
static void stop_on_a_chain(struct driver *d)
{
    char *by_hand[] = {"--snapshot-every", "0", "--dead-after-ms", "120000", "--request-timeout-ms",
                       "120000",           NULL};
    char line[256];
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, by_hand), 0);
    CU_ASSERT(driver_await_text(d, "metrics.jsonl", "\"step\":100,", RUN_WITHIN_MS));
    pid_t rank1 = find_rank(d, 1);
    CU_ASSERT_FATAL(driver_kill(rank1, SIGSTOP));
    for (int nth = 1; nth <= 4; nth++)
        take_snapshot(d, rank1, nth);
    kill(d->pid, SIGTERM);
    CU_ASSERT(driver_kill(rank1, SIGCONT));
    CU_ASSERT_EQUAL(driver_wait(d, RUN_WITHIN_MS), 75);
    shell(d, "$S inspect $R | grep -o 'kind       delta upon step'", line, sizeof(line));
    CU_ASSERT_STRING_EQUAL(line, "kind       delta upon step");
    expect(d, "[ $($S inspect --json $R | grep -o '\"folder\"' | wc -l) -ge 4 ] && echo long",
           "long");
}

/* The nth newest snapshot of a chain is, row for row and exported, the full one that another job
 * ends with which ends at its step. */
static void compare(const struct driver *d, struct driver *full, int nth)
{
    char script[1600], step[64], here[64];
    char *until[] = {"--max-steps", step, "--snapshot-every", "0", NULL};
    snprintf(script, sizeof(script), "ls -d $R/step-* | tail -%d | head -1 | sed 's/.*step-0*//'",
             nth);
    shell(d, script, step, sizeof(step));
    snprintf(
        script, sizeof(script),
        "t=$R/step-$(printf %%012d %s); grep -q '\"base\": null' $t/manifest.json && echo full; "
        "$S inspect --digest $t",
        step);
    shell(d, script, here, sizeof(here)); /* a delta */
    run(full, until, 0);
    expect(full, "grep -c '\"base\": null' $R/$(cat $R/latest)/manifest.json", "1");
    expect(full, "$S inspect --digest $R", here);
    snprintf(script, sizeof(script),
             "rm -rf $D/a $D/b; $S export --snapshot $R/step-$(printf %%012d %s) --out $D/a "
             "2>$D/why && $S export --snapshot '%s'/out/run/snapshot --out $D/b 2>$D/why && "
             "[ $($S inspect --digest $D/a) = $($S inspect --digest $D/b) ] && echo same",
             step, full->folder);
    expect(d, script, "same");
}

static void test_a_chain_is_the_full_snapshot_in_its_place(void)
{
    struct driver d, full;
    char *all_full[] = {"--snapshot-every", "40", "--snapshot-full-every", "1", NULL};
    char out[600], digest[64];
    unsigned before = CU_get_number_of_failures();
    open_job(&d);
    stop_on_a_chain(&d);
    open_job(&full);
    compare(&d, &full, 3);
    compare(&d, &full, 1);
    run(&full, all_full, 0);
    expect(&full, "cat $R/step-*/manifest.json | grep '\"base\"' | sort -u", " \"base\": null,");
    snprintf(out, sizeof(out), "%s/out", full.folder);
    small_data_digest(SLUICE, out, calm);
    CU_ASSERT_FATAL(calm[0] != '\0');
    run(&d, NULL, 0);
    expect(&d, "$S inspect $R | grep '^kind'", "kind       full"); /* the last of a job is */
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    driver_close(&d, CU_get_number_of_failures() > before);
    driver_close(&full, CU_get_number_of_failures() > before);
}

/* Ends a test: the job's last snapshot is the calm run's. */
static void check_digest(struct driver *d, unsigned before)
{
    char out[600], digest[64];
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    driver_close(d, CU_get_number_of_failures() > before);
}

static void test_a_chain_goes_on_with_other_numbers_of_servers(void)
{
    struct driver d;
    char *three[] = {"--servers", "3", "--shards", "1", "--max-steps", "260", NULL};
    unsigned before = CU_get_number_of_failures();
    open_job(&d);
    stop_on_a_chain(&d);
    run(&d, three, 0);
    run(&d, NULL, 0); /* and back to two of two */
    check_digest(&d, before);
}

static void test_a_chain_goes_on_with_other_numbers_of_workers_at_the_same_sample(void)
{
    static const char place[] = "$S inspect --json $R | tr ',' '\\n' | "
                                "grep -E '\"(step|epoch|batch|samples_done)\"' | tr -d '\\n'";
    struct driver d, other;
    char *until[] = {"--max-steps", "300", NULL}, there[256];
    char *one[] = {"--workers", "1", "--max-steps", "300", NULL};
    unsigned before = CU_get_number_of_failures();
    open_job(&d);
    run(&d, until, 0);
    shell(&d, place, there, sizeof(there));
    CU_ASSERT_PTR_NOT_NULL(strstr(there, "\"step\":300"));
    open_job(&other);
    stop_on_a_chain(&other);
    run(&other, one, 0);
    expect(&other, place, there);
    driver_close(&other, CU_get_number_of_failures() > before);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_a_damaged_link_falls_back_to_the_newest_whole_chain(void)
{
    struct driver d;
    char below[1024], script[1600];
    unsigned before = CU_get_number_of_failures();
    open_job(&d);
    stop_on_a_chain(&d);
    expect(&d, "$S inspect --verify $R >/dev/null && echo whole", "whole");
    shell(&d,
          "$S inspect --json $R | grep -o '\"folder\":\"[^\"]*\"' | cut -d'\"' -f4 >$D/links; "
          "tail -3 $D/links | head -1",
          below, sizeof(below));
    expect(&d,
           "f=$(tail -2 $D/links | head -1)/rows/shard-0002.rows; printf '\\125\\252' | dd "
           "of=$f bs=1 seek=$(($(stat -c %s $f) / 3)) conv=notrunc 2>/dev/null; "
           "$S inspect --verify $R 2>&1 >/dev/null | grep -c \"$f: its bytes have changed\"",
           "1");
    expect(&d, "$S export --snapshot $(tail -1 $D/links) --out $D/export 2>/dev/null; echo $?",
           "65");
    run(&d, NULL, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "is damaged, and"));
    snprintf(script, sizeof(script),
             "grep -q 'resuming from %s$' $D/out/run/log/sched-0.log && echo below", below);
    expect(&d, script, "below");
    expect(&d, "[ -d $(tail -2 $D/links | head -1).damaged ] && echo aside", "aside");
    check_digest(&d, before);
}

static void test_a_chain_is_resharded_and_the_job_goes_on_from_that(void)
{
    struct driver d;
    char digest[64], line[256];
    char *five[] = {"--servers", "5", "--shards", "1", NULL};
    unsigned before = CU_get_number_of_failures();
    open_job(&d);
    stop_on_a_chain(&d);
    shell(&d, "$S inspect --digest $R", digest, sizeof(digest));
    expect(&d, "$S reshard $R --out $D/flat >/dev/null && $S inspect --digest $D/flat", digest);
    expect(&d, "ls $D/flat/step-*/rows | wc -l", "4"); /* the shape as it was */
    expect(&d, "$S reshard $D/flat --out $D/flat 2>/dev/null; echo $?", "73");
    expect(&d,
           "$S reshard $R --servers 5 --shards 1 --out $D/new --memory 32MiB --json | "
           "grep -o '\"shards\": 5' && rm -rf $R && mv $D/new $R",
           "\"shards\": 5");
    expect(&d, "$S inspect --verify $R | grep -o 'kind .*'", "kind       full");
    expect(&d, "$S inspect --digest $R", digest);
    run(&d, five, 0);
    shell(&d, "grep 'resuming from' $D/out/run/log/sched-0.log | tail -1", line, sizeof(line));
    CU_ASSERT(line[0] != '\0');
    check_digest(&d, before);
}

static void test_what_snapshots_cost_is_seen_and_a_signal_dumps_the_state(void)
{
    struct driver d;
    char *longer[] = {"--epochs", "200", "--keep", "2", NULL};
    unsigned before = CU_get_number_of_failures();
    open_job(&d);
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, longer), 0);
    CU_ASSERT(
        driver_await_text(&d, "metrics.jsonl", "\"snapshot_longest_step_seconds\"", RUN_WITHIN_MS));
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"snapshot_bytes\"", RUN_WITHIN_MS));
    expect(&d, "$S status $D/out --json | grep -c '\"snapshot_longest_step_seconds\"'", "1");
    expect(&d, "$S status $D/out --json | grep -c '\"snapshot_bytes\"'", "1");
    driver_nap(1200); /* the page follows once a second */
    expect(&d,
           "p=$(cut -d: -f3 $D/out/run/page.url | tr -d /); bash -c \"exec "
           "3<>/dev/tcp/127.0.0.1/$p; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\" | "
           "grep -c -E 'figure=.(snapshot_longest_step_seconds|snapshot_bytes).'",
           "2");
    kill(d.pid, SIGUSR1);
    CU_ASSERT(driver_await_text(&d, "log/sched-0.log", "state: ps 1", RUN_WITHIN_MS));
    CU_ASSERT(driver_await_text(&d, "log/worker-0.log", "rows asked for up to", RUN_WITHIN_MS) ||
              driver_await_text(&d, "log/mpirun.log", "rows asked for up to", 1000));
    kill(d.pid, SIGTERM);
    CU_ASSERT_EQUAL(driver_wait(&d, RUN_WITHIN_MS), 75);
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

/* Whoever is killed, and whatever it was writing or removing then: the digest of the calm run, and
 * nothing but whole snapshots. Left-overs of an earlier death are put there, too. */
static void test_a_killed_job_with_chains_ends_in_the_same_digest(void)
{
    static const char *const roles[][2] = {{"sluice ps", "--rank 0"},
                                           {"sluice ps", "--rank 1"},
                                           {"mpirun -n", ""},
                                           {"sluice sched", ""}};
    char *keep[] = {"--keep", "2", NULL};
    uint64_t random = suite_seed();
    for (int round = 0; round < 3; round++) {
        struct driver d;
        unsigned before = CU_get_number_of_failures();
        open_job(&d);
        CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, keep), 0);
        CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":10,", RUN_WITHIN_MS));
        expect(&d,
               "mkdir -p $R/step-000000000001.old/rows $R/step-000000000002.part/rows && "
               "touch $R/latest.1.part && echo there",
               "there");
        for (int i = 0; i < 3; i++) {
            const char *const *who = roles[suite_random(&random) % 4];
            driver_nap(300 + (int)(suite_random(&random) % 900));
            pid_t pid = driver_find(&d, who[0], who[1], 0);
            if (pid > 0)
                kill(pid, SIGKILL);
        }
        CU_ASSERT_EQUAL(driver_wait(&d, RUN_WITHIN_MS), 0);
        CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
        expect(&d,
               "for s in $R/step-*[0-9]; do $S inspect --verify $s >/dev/null || echo $s; done; "
               "echo all whole",
               "all whole");
        CU_ASSERT_EQUAL(driver_snapshot_rubbish(&d), 0);
        check_digest(&d, before);
    }
}

static void test_the_data_is_made(void)
{
    CU_ASSERT_EQUAL_FATAL(make_data(), 0);
}

static void test_the_data_is_removed(void)
{
    small_data_close(&data);
}

SUITE("cluster_e2e.chain", T(test_the_data_is_made),
      T(test_a_chain_is_the_full_snapshot_in_its_place),
      T(test_a_chain_goes_on_with_other_numbers_of_servers),
      T(test_a_chain_goes_on_with_other_numbers_of_workers_at_the_same_sample),
      T(test_a_damaged_link_falls_back_to_the_newest_whole_chain),
      T(test_a_chain_is_resharded_and_the_job_goes_on_from_that),
      T(test_what_snapshots_cost_is_seen_and_a_signal_dumps_the_state),
      T(test_a_killed_job_with_chains_ends_in_the_same_digest), T(test_the_data_is_removed))

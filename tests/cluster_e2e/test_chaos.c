/* Chaos: a real job, and at random moments something dies (its disk, too), stands still, or a
 * snapshot on disk is damaged. Each round must end with exit code 0, within a deadline, and leave
 * nothing behind: no process, no shared memory, no session files. Rounds are of five kinds in turn:
 *
 *     0  staleness 0, durability snapshot   the digest of the calm run: bit for bit the same job
 *     1  the same, stopping early           and the same epoch is kept
 *     2  staleness 0, durability log        the digest of the calm run
 *     3  staleness 1, durability log        all steps done, and no more of them lost for the dense
 *                                           weights, each time that other workers went on, than
 *                                           dense checkpoints allow (printed, metrics.jsonl)
 *     4  staleness 0, over a network        the digest of the calm run
 *
 * In rounds of the last kind, and in every other five rounds all, each role runs on a host of its
 * own (hosts.h), and the network between any two fails as well: it is cut for some seconds, 200 ms
 * late, or loses 5 % of the packets. Where hosts cannot be made, those rounds run without them, and
 * say so.
 *
 *     test_cluster_e2e_chaos [rounds [seed [first round]]]
 *
 * The seed is printed; a round's events follow from it alone, but for when exactly they meet the
 * job.
 */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/hosts.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum {
    MAX_EVENTS = 5,
    ROUND_WITHIN_MS = 90000,
    CALM_MS = 2500 /* about what the calm job takes */
};

enum what { KILL, STOP_AND_GO, INTERRUPT, DAMAGE, DISK, CUT, DELAY, LOSS };

enum kind { PLAIN, STOPS_EARLY, LOG, BOUNDED, NETWORK, N_KINDS };

enum { CHECKPOINT_STEPS = 20 };

struct event {
    int64_t at_ms;
    enum what what;
    const char *who;
    int pause_ms;
    int hosts[2];
};

static const char *program = SLUICE;
static struct small_data data;
static struct hosts hosts;
static bool hosts_stand;
static uint64_t seed;
static int n_rounds = 6, first_round;
static char calm[2][64];   /* [1]: of the job that stops early */
static char last_step[32]; /* of the calm job's snapshot: "step-..." */

static void open_job(struct driver *d, enum kind kind, bool on_hosts)
{
    static const char *const more[N_KINDS] = {
        "", "valid_percent: 10\npatience: 2\ndense_learning_rate: 0.01\n", "durability: log\n",
        "durability: log\nstaleness: 1\ndense_checkpoint_steps: 20\n", ""};
    char text[1024];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 10\nepochs: 14\nread: greedy\nmax_restarts: 20\n"
             "snapshot_every: 60\nheartbeat_ms: 200\ndead_after_ms: 2000\n"
             "request_timeout_ms: 10000\nkeep: 3\n%s%s",
             data.set, more[kind], on_hosts ? "host: eth0\ninsecure: true\n" : "");
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
    if (on_hosts)
        CU_ASSERT_EQUAL_FATAL(hosts_prepare(&hosts, d), 0);
}

/* A process of the named kind, or -1 when there is none at the moment. */
static pid_t find(const struct driver *d, const char *who)
{
    if (strncmp(who, "ps", 2) == 0)
        return driver_find_role(d, "sluice ps", who[2] == '0' ? "--rank 0" : "--rank 1", 0);
    if (strcmp(who, "sched") == 0)
        return driver_find(d, "sluice sched", "", 0);
    if (strcmp(who, "mpirun") == 0)
        return driver_find(d, "mpirun -n", "sluice worker", 0);
    return driver_find_worker(d, who[6] - '0');
}

/* Cuts or flips one file of one of the three newest snapshots, while no job runs: those that stand
 * upon it in a chain go with it, and the newest whole one before must be used. */
static void damage(const struct driver *d, uint64_t *random)
{
    char command[1400];
    int how = (int)(suite_random(random) % 2), file = 1 + (int)(suite_random(random) % 8);
    int snapshot = 1 + (int)(suite_random(random) % 3);
    snprintf(command, sizeof(command),
             "cd '%s/out/run/snapshot' 2>/dev/null || exit 0; s=$(ls -d step-*[0-9] 2>/dev/null | "
             "tail -%d | head -1); "
             "[ $(ls -d step-*[0-9] 2>/dev/null | wc -l) -ge 2 ] || exit 0; "
             "f=$(find $s -type f | sort | sed -n %dp); [ -n \"$f\" ] || exit 0; "
             "n=$(stat -c %%s $f); if [ %d = 0 ]; then truncate -s $((n / 2)) $f; else "
             "printf '\\125\\252' | dd of=$f bs=1 seek=$((n / 3)) conv=notrunc 2>/dev/null; fi; "
             "echo \"    damaged $f\"",
             d->folder, snapshot, file, how);
    fflush(stdout);
    if (system(command) != 0)
        printf("    no snapshot to damage\n");
}

/* What a network does: between any two, and what a job hardly feels as well. */
static void plan_network(uint64_t *random, struct event *e)
{
    uint64_t dice = suite_random(random) % 3;
    e->what = dice == 0 ? CUT : dice == 1 ? DELAY : LOSS;
    e->hosts[0] = (int)(suite_random(random) % HOSTS_N);
    e->hosts[1] = (e->hosts[0] + 1 + (int)(suite_random(random) % (HOSTS_N - 1))) % HOSTS_N;
}

static int plan(uint64_t *random, bool on_hosts, struct event *events)
{
    static const char *const roles[] = {"ps0", "ps1", "sched", "worker0", "worker1", "mpirun"};
    int n = 1 + (int)(suite_random(random) % (on_hosts ? MAX_EVENTS : MAX_EVENTS - 1));
    for (int i = 0; i < n; i++) {
        uint64_t dice = suite_random(random) % 20;
        events[i].what = dice < 11   ? KILL
                         : dice < 15 ? STOP_AND_GO
                         : dice < 17 ? INTERRUPT
                         : dice < 19 ? DAMAGE
                                     : DISK;
        events[i].who = roles[suite_random(random) % 6];
        events[i].at_ms = (int64_t)(suite_random(random) % CALM_MS);
        events[i].pause_ms = 100 + (int)(suite_random(random) % 3500);
        if (on_hosts && suite_random(random) % 4)
            plan_network(random, &events[i]);
    }
    return n;
}

static void bend_network(const struct event *e)
{
    static const enum wire_verdict verdicts[] = {
        [CUT] = WIRE_CUT, [DELAY] = WIRE_DELAY, [LOSS] = WIRE_LOSE};
    static const char *const names[] = {
        [CUT] = "cut", [DELAY] = "200 ms late", [LOSS] = "5 % lost"};
    const int one = e->hosts[0], two = e->hosts[1];
    enum what what = e->what;
    if (hosts_bend(&hosts, one, two, verdicts[what])) {
        what = CUT;
        CU_ASSERT_EQUAL(hosts_bend(&hosts, one, two, WIRE_CUT), 0);
    }
    printf("    between %s and %s: %s, %d ms long\n", hosts_roles[one], hosts_roles[two],
           names[what], e->pause_ms);
    driver_nap(e->pause_ms);
    CU_ASSERT_EQUAL(hosts_bend(&hosts, one, two, WIRE_PASS), 0);
}

static int start(struct driver *d, bool on_hosts)
{
    return on_hosts ? hosts_start(&hosts, d, program) : driver_start(d, program, NULL);
}

/* Stops the job by SIGTERM, perhaps damages its newest snapshot, and starts it again. */
static void interrupt(struct driver *d, bool with_damage, bool on_hosts, uint64_t *random)
{
    CU_ASSERT(driver_await_start(d, 10000)); /* it may just have been started */
    kill(d->pid, SIGTERM);
    int code = driver_wait(d, ROUND_WITHIN_MS);
    CU_ASSERT(code == 75 || code == 0); /* 0: it was just done */
    CU_ASSERT_EQUAL(driver_left(d, 2000), 0);
    if (with_damage)
        damage(d, random);
    CU_ASSERT_EQUAL(start(d, on_hosts), 0);
}

static void happen(struct driver *d, const struct event *e, bool on_hosts, uint64_t *random)
{
    if (e->what >= CUT) {
        bend_network(e);
        return;
    }
    if (e->what == INTERRUPT || e->what == DAMAGE) {
        printf("    interrupt%s\n", e->what == DAMAGE ? ", damage" : "");
        interrupt(d, e->what == DAMAGE, on_hosts, random);
        return;
    }
    const char *who = e->what == DISK ? "ps1" : e->who;
    pid_t pid = find(d, who);
    printf("    %s %s%s%s\n", e->what == STOP_AND_GO ? "stop" : "kill", who,
           e->what == DISK ? " and its disk" : "", pid < 0 ? " (not there)" : "");
    if (pid < 0)
        return;
    kill(pid, e->what == STOP_AND_GO ? SIGSTOP : SIGKILL);
    if (e->what == DISK) {
        char command[700];
        snprintf(command, sizeof(command), "rm -rf '%s/out/run/server-1'", d->folder);
        if (system(command) != 0)
            printf("    the disk is not empty\n");
    }
    if (e->what == STOP_AND_GO) {
        driver_nap(e->pause_ms);
        kill(pid, SIGCONT);
    }
}

/* A figure of a line of metrics.jsonl. */
static double figure(const char *line, const char *name)
{
    char key[64];
    snprintf(key, sizeof(key), "\"%s\":", name);
    const char *at = strstr(line, key);
    return at ? atof(at + strlen(key)) : -1;
}

/* What a job at staleness 1 promises: every step, and a bounded window lost each time that other
 * workers went on. A checkpoint is begun every CHECKPOINT_STEPS steps, unless one is being written
 * (another interval), and pushes are 2 steps ahead at most. */
static void check_window(const struct driver *d)
{
    char path[700], line[16384];
    int n_gone_on = 0;
    double lost = 0, worst = 0, dropped = 0;
    snprintf(path, sizeof(path), "%s/out/run/snapshot/%s", d->folder, last_step);
    CU_ASSERT_EQUAL(access(path, R_OK), 0);
    snprintf(path, sizeof(path), "%s/out/run/metrics.jsonl", d->folder);
    FILE *file = fopen(path, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    while (fgets(line, sizeof(line), file)) {
        if (!strstr(line, "\"kind\":\"gone_on\""))
            continue;
        double steps = figure(line, "lost_steps");
        n_gone_on++;
        lost += steps;
        worst = steps > worst ? steps : worst;
        double unfinished = figure(line, "dropped_steps");
        dropped = unfinished > dropped ? unfinished : dropped;
    }
    fclose(file);
    if (n_gone_on)
        printf(
            "    others went on %d times: %.0f steps lost, %.0f at most at once, %.0f unfinished\n",
            n_gone_on, lost, worst, dropped);
    CU_ASSERT(worst <= 3 * CHECKPOINT_STEPS + 2);
}

static bool chaos_round(int number)
{
    struct driver d;
    struct event events[MAX_EVENTS];
    char out[600], digest[64];
    unsigned before = CU_get_number_of_failures();
    uint64_t random = seed + (uint64_t)number * 1000003;
    enum kind kind = (enum kind)(number % N_KINDS);
    const bool wanted = kind == NETWORK || number / N_KINDS % 2 == 1,
               on_hosts = wanted && hosts_stand;
    open_job(&d, kind, on_hosts);
    int n = plan(&random, on_hosts, events);
    int64_t began_ms = driver_now_ms();
    static const char *const names[] = {"plain", "stops early", "log", "log, staleness 1",
                                        "network"};
    printf("  round %d (seed %llu), %s%s\n", number, (unsigned long long)seed, names[kind],
           on_hosts ? ", a host for each role"
           : wanted ? ", on one host: network namespaces cannot be made here"
                    : "");
    CU_ASSERT_EQUAL_FATAL(start(&d, on_hosts), 0);
    for (int i = 0; i < n; i++) {
        driver_nap((int)events[i].at_ms);
        if (kill(d.pid, 0) || driver_find(&d, "train", "", 0) < 0)
            break; /* it ended before */
        happen(&d, &events[i], on_hosts, &random);
    }
    int code = driver_wait(&d, ROUND_WITHIN_MS);
    CU_ASSERT_EQUAL(code, 0);
    CU_ASSERT_EQUAL(driver_remains(&d, 2000), 0);
    CU_ASSERT_EQUAL(driver_snapshot_rubbish(&d), 0);
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(program, out, digest);
    if (kind == BOUNDED)
        check_window(&d);
    else
        CU_ASSERT_STRING_EQUAL(digest, calm[kind == STOPS_EARLY]);
    bool failed = CU_get_number_of_failures() > before;
    printf("    %s, exit code %d, %lld ms\n", failed ? "FAILED" : "as promised", code,
           (long long)(driver_now_ms() - began_ms));
    if (getenv("SLUICE_TEST_VERBOSE"))
        printf("%s", d.text);
    driver_close(&d, failed);
    return !failed;
}

static void newest_snapshot(const struct driver *d)
{
    char command[700];
    snprintf(command, sizeof(command), "ls '%s/out/run/snapshot' | grep '^step-[0-9]*$' | tail -1",
             d->folder);
    FILE *pipe = popen(command, "r");
    if (pipe && fgets(last_step, sizeof(last_step), pipe))
        last_step[strcspn(last_step, "\n")] = '\0';
    if (pipe)
        pclose(pipe);
}

static void test_a_job_ends_as_promised_whatever_dies(void)
{
    struct driver d;
    char out[600];
    int n_failed = 0;
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, program), 0);
    for (int i = 0; i < 2; i++) {
        open_job(&d, i ? STOPS_EARLY : PLAIN, false);
        driver_start(&d, program, NULL);
        CU_ASSERT_EQUAL_FATAL(driver_wait(&d, ROUND_WITHIN_MS), 0);
        snprintf(out, sizeof(out), "%s/out", d.folder);
        small_data_digest(program, out, calm[i]);
        CU_ASSERT_FATAL(calm[i][0] != '\0');
        if (i == 0)
            newest_snapshot(&d);
        driver_close(&d, false);
    }
    for (int i = 0; i < n_rounds; i++)
        n_failed += !chaos_round(first_round + i);
    printf("  %d rounds, %d failed\n", n_rounds, n_failed);
    small_data_close(&data);
}

int main(int argc, char **argv)
{
    static const struct suite_test tests[] = {T(test_a_job_ends_as_promised_whatever_dies)};
    if (argc > 1)
        n_rounds = atoi(argv[1]);
    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : suite_seed();
    if (argc > 3)
        first_round = atoi(argv[3]);
    if (getenv("SLUICE_PROGRAM")) /* a copy, say, for a long run beside other work */
        program = getenv("SLUICE_PROGRAM");
    setvbuf(stdout, NULL, _IOLBF, 0);
    hosts_stand = hosts_open(&hosts);
    int failed = suite_run("cluster_e2e.chaos", tests, 1, NULL);
    hosts_close(&hosts);
    return failed;
}

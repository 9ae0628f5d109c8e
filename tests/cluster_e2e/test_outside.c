/* What a job shows of itself while it trains: every process's metrics, read as Prometheus would;
 * where they are told to be; and what SIGUSR1 makes each process write. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/scrape.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

#include <jansson.h>

enum { STARTS_WITHIN_MS = 30000, ENDS_WITHIN_MS = 60000, MOST_MEMBERS = 8 };

static struct small_data data;

/* Where a process is: "ps 1", its pid, its port. */
struct place {
    char name[32];
    pid_t pid;
    int port; /* 0: it serves nothing */
};

static struct scrape first, second;
static char text[1 << 20];

static void open_job(struct driver *d, int servers, int workers, const char *more)
{
    char job[1024];
    snprintf(job, sizeof(job),
             "data: %s\nservers: %d\nshards: 2\nworkers: %d\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 10\nepochs: 1000\nread: greedy\n%s",
             data.set, servers, workers, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, job), 0);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(d, "metrics.jsonl", "\"step\":30", STARTS_WITHIN_MS));
}

static void end_job(struct driver *d, unsigned before)
{
    kill(d->pid, SIGTERM);
    CU_ASSERT_EQUAL(driver_wait(d, ENDS_WITHIN_MS), 75);
    CU_ASSERT_EQUAL(driver_remains(d, 2000), 0);
    driver_close(d, CU_get_number_of_failures() > before);
}

static int port_of(const char *url)
{
    static const char loopback[] = "http://127.0.0.1:";
    if (strncmp(url, loopback, sizeof(loopback) - 1) != 0)
        printf("  beyond loopback: %s\n", url);
    return strncmp(url, loopback, sizeof(loopback) - 1) ? -1 : atoi(url + sizeof(loopback) - 1);
}

/* The members, as `sluice status --json` names them; how many. */
static int find_members(const struct driver *d, struct place *places_p)
{
    int n = 0;
    size_t i;
    json_t *member;
    CU_ASSERT_EQUAL(driver_ask(d, SLUICE, "status", "--json", text, sizeof(text)), 0);
    json_t *root = json_loads(text, 0, NULL);
    json_array_foreach(json_object_get(root, "members"), i, member)
    {
        struct place *p = &places_p[n < MOST_MEMBERS ? n++ : 0];
        const char *url = json_string_value(json_object_get(member, "metrics"));
        snprintf(p->name, sizeof(p->name), "%s %d",
                 json_string_value(json_object_get(member, "role")),
                 (int)json_integer_value(json_object_get(member, "rank")));
        p->pid = (pid_t)json_integer_value(json_object_get(member, "pid"));
        p->port = url ? port_of(url) : 0;
    }
    json_decref(root);
    return n;
}

static void find_scheduler(const struct driver *d, struct place *place_p)
{
    char path[700], url[200] = "";
    snprintf(path, sizeof(path), "%s/out/run/page.url", d->folder);
    FILE *file = fopen(path, "r");
    CU_ASSERT_FATAL(file && fgets(url, sizeof(url), file));
    fclose(file);
    strcpy(place_p->name, "sched 0");
    place_p->pid = driver_find(d, "sluice sched", "", 0);
    place_p->port = port_of(url);
}

static void scrape(const struct place *place, struct scrape *s)
{
    CU_ASSERT_FATAL(scrape_get("127.0.0.1", place->port, "/metrics", text, sizeof(text)));
    scrape_read(s, text);
    if (s->n_broken)
        printf("  of %s\n", place->name);
    CU_ASSERT_EQUAL(s->n_broken, 0);
}

/* A series of a process, its labels after role and rank; -1 when it is not there. */
static double value(const struct scrape *s, const struct place *place, const char *name,
                    const char *labels)
{
    char series[320], role[16];
    int rank;
    CU_ASSERT_EQUAL(sscanf(place->name, "%15s %d", role, &rank), 2);
    snprintf(series, sizeof(series), "sluice_%s{role=\"%s\",rank=\"%d\"%s}", name, role, rank,
             labels);
    double found = scrape_value(s, series);
    return isnan(found) ? -1 : found;
}

/* No counter, bucket, count or sum falls from one scrape to the next. */
static void nothing_falls(void)
{
    for (int i = 0; i < first.n; i++) {
        const char *series = first.sample[i].series;
        char name[96];
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(series, "{"), series);
        if (!strstr(name, "_total") && !strstr(name, "_bucket") && !strstr(name, "_count"))
            continue;
        bool fell = !(scrape_value(&second, series) >= first.sample[i].value);
        if (fell)
            printf("  %s fell from %g to %g\n", series, first.sample[i].value,
                   scrape_value(&second, series));
        CU_ASSERT_FALSE(fell);
    }
}

static void look_at_server(const struct place *place)
{
    static const char *const shards[] = {",shard=\"0\"", ",shard=\"1\""};
    double rows = 0, pulled = 0, messages = 0;
    for (int i = 0; i < 2; i++) {
        rows += value(&second, place, "rows", shards[i]);
        pulled += value(&second, place, "pulled_rows_total", shards[i]);
        messages += value(&second, place, "message_seconds_count", shards[i]);
        CU_ASSERT(value(&second, place, "step", shards[i]) >= 30);
        CU_ASSERT(value(&second, place, "message_seconds_sum", shards[i]) > 0);
        CU_ASSERT(value(&second, place, "message_seconds_count", shards[i]) >
                  value(&first, place, "message_seconds_count", shards[i]));
    }
    CU_ASSERT(rows > 0 && pulled > 0);
    CU_ASSERT(messages >= 2 * 2 * 30); /* a pull and a push a step and rank, in either shard */
    CU_ASSERT_EQUAL(value(&second, place, "denied_connections_total", ""), 0);
}

static void look_at_worker(const struct place *place)
{
    CU_ASSERT(value(&second, place, "step", "") > value(&first, place, "step", ""));
    CU_ASSERT(value(&second, place, "loss", "") > 0);
    CU_ASSERT(value(&second, place, "samples_total", "") > 30 * 64 / 4);
    CU_ASSERT(value(&second, place, "compute_seconds_count", "") >= 30);
    CU_ASSERT(value(&second, place, "compute_seconds_sum", "") > 0);
    CU_ASSERT(value(&second, place, "reduce_seconds_count", "") >= 30);
    CU_ASSERT(value(&second, place, "pull_wait_seconds_count", "") >= 30);
    CU_ASSERT(value(&second, place, "received_bytes_total", "") >
              value(&first, place, "received_bytes_total", ""));
}

/* Prometheus is told of everybody by the scheduler. */
static void look_at_targets(const struct place *scheduler, const struct place *places, int n)
{
    CU_ASSERT_FATAL(scrape_get("127.0.0.1", scheduler->port, "/targets.json", text, sizeof(text)));
    json_t *root = json_loads(text, 0, NULL);
    json_t *targets = json_object_get(json_array_get(root, 0), "targets");
    CU_ASSERT_EQUAL(json_array_size(targets), (size_t)n);
    for (int i = 0; i < n; i++) {
        char target[64];
        snprintf(target, sizeof(target), "\"127.0.0.1:%d\"", places[i].port);
        CU_ASSERT_PTR_NOT_NULL(strstr(text, target));
    }
    json_decref(root);
}

static void test_every_process_serves_its_metrics_while_it_trains(void)
{
    struct driver d;
    struct place places[MOST_MEMBERS + 1];
    unsigned before = CU_get_number_of_failures();
    CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    open_job(&d, 2, 2, "");
    driver_nap(1200); /* servers follow twice a second, the page once */
    int n = find_members(&d, places);
    CU_ASSERT_EQUAL_FATAL(n, 4);
    find_scheduler(&d, &places[n++]);
    for (int i = 0; i < n; i++) {
        CU_ASSERT_FATAL(places[i].port > 0);
        CU_ASSERT_FALSE(scrape_get("127.0.0.2", places[i].port, "/metrics", text, sizeof(text)));
        scrape(&places[i], &first);
        driver_nap(1200);
        scrape(&places[i], &second);
        nothing_falls();
        CU_ASSERT(value(&second, &places[i], "process_resident_bytes", "") > 1 << 20);
        CU_ASSERT(value(&second, &places[i], "process_cpu_seconds_total", "") > 0);
        if (places[i].name[0] == 'p')
            look_at_server(&places[i]);
        if (places[i].name[0] == 'w')
            look_at_worker(&places[i]);
    }
    CU_ASSERT(scrape_value(&second, "sluice_step") >= 30);
    CU_ASSERT_EQUAL(scrape_value(&second, "sluice_member_up{role=\"worker\",rank=\"1\"}"), 1);
    look_at_targets(&places[n - 1], places, n);
    end_job(&d, before);
}

/* A role's state is in its log: its own file, or that of its launcher. */
static bool has_dumped(const struct driver *d, const char *name, const char *wanted)
{
    char file[64];
    snprintf(file, sizeof(file), "log/%.31s.log", name);
    *strchr(file, ' ') = '-';
    return driver_await_text(d, file, wanted, 5000) ||
           driver_await_text(d, "log/mpirun.log", wanted, 1000);
}

static void test_a_signal_makes_each_process_write_its_state_and_train_on(void)
{
    struct driver d;
    struct place places[MOST_MEMBERS + 1];
    char step[32];
    unsigned before = CU_get_number_of_failures();
    open_job(&d, 1, 2, "metrics_port: -1\n");
    driver_nap(600);
    int n = find_members(&d, places);
    CU_ASSERT_EQUAL_FATAL(n, 3);
    for (int i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(places[i].port, 0);
        CU_ASSERT_EQUAL(kill(places[i].pid, SIGUSR1), 0);
        bool server = places[i].name[0] == 'p';
        CU_ASSERT(has_dumped(&d, places[i].name,
                             server ? "state of shard=\"1\": step " : "state: step "));
        CU_ASSERT(has_dumped(&d, places[i].name, server ? "; rows " : "; compute_seconds "));
    }
    CU_ASSERT(driver_kill(driver_find(&d, "sluice sched", "", 0), SIGUSR1));
    CU_ASSERT(has_dumped(&d, "sched 0", "state: running, generation 1"));
    CU_ASSERT(driver_kill(driver_find(&d, "mpirun -n", "", 0), SIGUSR1)); /* to every rank */
    CU_ASSERT_EQUAL(kill(d.pid, SIGUSR1), 0);
    driver_nap(500);
    driver_ask(&d, SLUICE, "status", "--json", text, sizeof(text));
    const char *at = strstr(text, "\"step\": ");
    CU_ASSERT_FATAL(at != NULL);
    snprintf(step, sizeof(step), "\"step\":%d", (atoi(at + 8) / 10 + 5) * 10);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", step, 20000)); /* nobody died of it */
    end_job(&d, before);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "state: phase running"));
}

/* The first of n free ports in a row. */
static int free_ports(int n)
{
    for (int base = 21000 + (int)(getpid() % 9000);; base += n) {
        int fds[MOST_MEMBERS], got = 0;
        for (; got < n; got++) {
            struct sockaddr_in at = {.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)(base + got)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            fds[got] = socket(AF_INET, SOCK_STREAM, 0);
            if (bind(fds[got], (struct sockaddr *)&at, sizeof(at))) {
                close(fds[got]);
                break;
            }
        }
        for (int i = 0; i < got; i++)
            close(fds[i]);
        if (got == n)
            return base;
    }
}

static void test_ports_are_those_that_the_job_names(void)
{
    struct driver d;
    struct place places[MOST_MEMBERS + 1];
    char more[64];
    unsigned before = CU_get_number_of_failures();
    int base = free_ports(2);
    snprintf(more, sizeof(more), "metrics_port: %d\n", base);
    open_job(&d, 1, 1, more);
    CU_ASSERT_EQUAL_FATAL(find_members(&d, places), 2);
    for (int i = 0; i < 2; i++)
        CU_ASSERT_EQUAL(places[i].port, places[i].name[0] == 'w' ? base : base + 1);
    end_job(&d, before);
}

static void test_clean_up(void)
{
    small_data_close(&data);
    CU_ASSERT_NOT_EQUAL(access(data.set, R_OK), 0);
}

SUITE("cluster_e2e.outside", T(test_every_process_serves_its_metrics_while_it_trains),
      T(test_a_signal_makes_each_process_write_its_state_and_train_on),
      T(test_ports_are_those_that_the_job_names), T(test_clean_up))

/* Does it pay to send keys sorted and coded (wire_keys: delta)? The same steps with and without,
 * end to end: pull 10 000 rows of the next step, push the gradients of this one, wait for both;
 * once over loopback and once between two hosts (network namespaces) whose link has a given rate,
 * for ids of a dense space and for hashes, rows of 8 numbers as bf16 and rows of 32 as fp32. One
 * shard of 1 M rows (sgd), the two modes taking turns.
 *
 *     bench_keys [--tiny] [--rounds N] [--only NAME]
 *
 * A link needs root and iproute2; without, those figures are skipped with a sentence.
 */
#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/map.h"
#include "cluster/transport.h"
#include "embeddings/table.h"
#include "ps/client.h"
#include "ps/server.h"
#include "tests/bench/bench_numbers.h"
#include "tests/cluster_e2e/hosts.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_KEYS = 10000, N_MODES = 2, MAX_ROUNDS = 15, N_TABLES = 2, MAX_DIM = 32 };

struct bench {
    bool tiny;
    int rounds;
    const char *only;
    uint64_t n_rows;
    char dir[128], net[32]; /* net: what the namespaces' names begin with */
    struct emb_table_spec tables[N_TABLES];
};

struct network {
    const char *name, *rate; /* rate: as tc takes it; NULL: loopback */
};

struct mode {
    struct psv_client *client;
    uint64_t step;
    double rows_per_second[MAX_ROUNDS], cpu[MAX_ROUNDS]; /* cpu: us a step, client */
    double bytes_a_row;
};

static const struct network networks[] = {
    {"loopback", NULL}, {"10gbit", "10gbit"}, {"1gbit", "1gbit"}, {"100mbit", "100mbit"}};

static void fail_if(int status, const char *what)
{
    if (status) {
        fprintf(stderr, "bench_keys: %s failed (%d)\n", what, status);
        exit(1);
    }
}

static double now_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the link ---- */

static void take_down(const struct bench *bench)
{
    hosts_shell("ip netns del %ss 2>/dev/null; ip netns del %sc 2>/dev/null", bench->net,
                bench->net);
}

/* Two hosts and a link of that rate between them; false where they cannot be made. */
static bool bring_up(const struct bench *bench, const char *rate)
{
    const char *n = bench->net;
    return geteuid() == 0 &&
           !hosts_shell("ip netns add %ss 2>/dev/null && ip netns add %sc 2>/dev/null", n, n) &&
           !hosts_shell("ip -n %ss link add eth0 type veth peer name eth0 netns %sc", n, n) &&
           !hosts_shell("ip -n %ss addr add 10.78.0.1/24 dev eth0 && ip -n %ss link set eth0 up", n,
                        n) &&
           !hosts_shell("ip -n %sc addr add 10.78.0.2/24 dev eth0 && ip -n %sc link set eth0 up", n,
                        n) &&
           !hosts_shell(
               "for h in %ss %sc; do tc -n $h qdisc add dev eth0 root tbf rate %s burst 256kb "
               "latency 100ms || exit 1; done",
               n, n, rate);
}

static void enter(const struct bench *bench, char host)
{
    char path[64];
    snprintf(path, sizeof(path), "/run/netns/%s%c", bench->net, host);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    fail_if(fd < 0 || setns(fd, CLONE_NEWNET), path);
    close(fd);
}

/* ---- server ---- */

static void serve(struct bench *bench, const char *bind, int ready)
{
    struct clu_transport_options transport = {.insecure = true};
    struct psv_threads_options options = {
        .tables = bench->tables,
        .n_tables = N_TABLES,
        .n_shards = 1,
        .n_ranks = N_MODES,
        .staleness = -1,
        .dir = bench->dir,
        .durability = "snapshot",
        .bind = bind,
    };
    struct psv_server *server;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fail_if(clu_transport_create(&transport, &options.transport), "transport");
    fail_if(psv_server_open(&options, &server), "server");
    fail_if(psv_server_start(server, 0), "server");
    const char *endpoint = psv_server_endpoint(server, 0);
    size_t size = strlen(endpoint) + 1;
    fail_if(write(ready, endpoint, size) != (ssize_t)size, "pipe");
    for (;;)
        pause();
}

/* ---- client ---- */

struct batch {
    uint64_t keys[N_KEYS];
    float rows[N_KEYS * MAX_DIM];
};

/* Distinct keys of a table of n_rows in no order; dense: the ids themselves, else their hashes. */
static void choose(const struct bench *bench, struct batch *batch, bool dense, uint64_t seed)
{
    uint64_t stride = bench->n_rows / N_KEYS;
    for (uint64_t i = 0; i < N_KEYS; i++) {
        uint64_t id = i * stride + clu_mix(seed + i) % stride;
        batch->keys[i] = dense ? id : clu_mix(id);
    }
    for (uint64_t i = N_KEYS; i > 1; i--) {
        uint64_t other = clu_mix(seed * 31 + i) % i, last = batch->keys[i - 1];
        batch->keys[i - 1] = batch->keys[other];
        batch->keys[other] = last;
    }
}

static void run_steps(struct mode *mode, int table, struct batch *batch, int n_steps)
{
    uint64_t pull, push;
    for (int i = 0; i < n_steps; i++) {
        struct psv_part next = {table, N_KEYS, batch[(i + 1) % 2].keys, batch[2].rows};
        struct psv_part done = {table, N_KEYS, batch[i % 2].keys, batch[i % 2].rows};
        mode->step++;
        fail_if(psv_client_pull(mode->client, &next, 1, mode->step, &pull), "pull");
        fail_if(psv_client_push(mode->client, &done, 1, mode->step, &push), "push");
        fail_if(psv_client_wait(mode->client, pull, -1), "pull");
        fail_if(psv_client_wait(mode->client, push, -1), "push");
    }
}

static void measure(const struct bench *bench, const struct network *network, struct mode *mode,
                    int table, bool dense, const char *dtype)
{
    static struct batch batch[3];
    struct psv_client_stats before, after;
    double ratio[MAX_ROUNDS];
    char name[96];
    int n_steps = bench->tiny ? 2 : 4;
    snprintf(name, sizeof(name), "keys_%s_%s_%dx%s", network->name, dense ? "dense" : "hashed",
             bench->tables[table].dim, dtype);
    if (bench->only && !strstr(name, bench->only))
        return;
    choose(bench, &batch[0], dense, 1);
    choose(bench, &batch[1], dense, 2);
    for (int r = -1; r < bench->rounds;
         r++) { /* the first warms up, and finds out how many steps */
        for (int m = 0; m < N_MODES; m++) {
            psv_client_stats(mode[m].client, &before);
            double begin = now_s(CLOCK_MONOTONIC), cpu = now_s(CLOCK_PROCESS_CPUTIME_ID);
            run_steps(&mode[m], table, batch, n_steps);
            double seconds = now_s(CLOCK_MONOTONIC) - begin;
            psv_client_stats(mode[m].client, &after);
            double n_rows = 2.0 * N_KEYS * n_steps;
            mode[m].bytes_a_row = (double)(after.bytes_sent + after.bytes_received -
                                           before.bytes_sent - before.bytes_received) /
                                  n_rows;
            if (r < 0 && m == 1 && !bench->tiny)
                n_steps = 1 + (int)(0.4 * n_steps / seconds);
            if (r < 0)
                continue;
            mode[m].rows_per_second[r] = n_rows / seconds;
            mode[m].cpu[r] = 1e6 * (now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu) / n_steps;
        }
        if (r >= 0)
            ratio[r] = mode[1].rows_per_second[r] / mode[0].rows_per_second[r];
    }
    double middle = bench_middle(ratio, bench->rounds);
    printf("{\"bench\":\"keys\",\"name\":\"%s\",\"value\":%.0f,\"unit\":\"rows/s\","
           "\"baseline\":%.0f,\"ratio\":%.3f,\"min\":%.3f,\"max\":%.3f,\"bytes_a_row\":%.1f,"
           "\"plain_bytes_a_row\":%.1f,\"client_cpu_us_a_step\":%.0f,"
           "\"plain_client_cpu_us_a_step\":%.0f}\n",
           name, bench_middle(mode[1].rows_per_second, bench->rounds),
           bench_middle(mode[0].rows_per_second, bench->rounds), middle, ratio[0],
           ratio[bench->rounds - 1], mode[1].bytes_a_row, mode[0].bytes_a_row,
           bench_middle(mode[1].cpu, bench->rounds), bench_middle(mode[0].cpu, bench->rounds));
    fflush(stdout);
}

static void measure_all(struct bench *bench, const struct network *network, const char *endpoint)
{
    static struct clu_bucket_map map;
    static const char *const wire_keys[N_MODES] = {"plain", "delta"};
    static const char *const dtype[N_TABLES] = {"bf16", "fp32"};
    struct clu_transport_options transport = {.insecure = true};
    struct psv_client_options options = {
        .map = &map,
        .tables = bench->tables,
        .n_tables = N_TABLES,
        .n_ranks = N_MODES,
        .staleness = -1,
        .request_timeout_ms = 60000,
        .retry_ms = 20000,
    };
    fail_if(clu_transport_create(&transport, &options.transport), "transport");
    clu_map_init(&map, 1, 1);
    snprintf(map.endpoint[0], sizeof(map.endpoint[0]), "%s", endpoint);
    for (int table = 0; table < N_TABLES; table++)
        for (int dense = 1; dense >= 0; dense--) {
            struct mode mode[N_MODES];
            memset(mode, 0, sizeof(mode));
            for (int m = 0; m < N_MODES; m++) {
                options.rank = m;
                options.wire_dtype = dtype[table];
                options.wire_keys = wire_keys[m];
                options.incarnation++;
                fail_if(psv_client_open(&options, &mode[m].client), "client");
            }
            measure(bench, network, mode, table, dense, dtype[table]);
            for (int m = 0; m < N_MODES; m++)
                psv_client_close(mode[m].client);
        }
    clu_transport_free(options.transport);
}

/* Runs both ends as processes of their own, each on its host. */
static void run(struct bench *bench, const struct network *network)
{
    int pipes[2];
    char endpoint[CLU_ENDPOINT_SIZE] = "";
    if (network->rate && !bring_up(bench, network->rate)) {
        take_down(bench);
        printf("{\"bench\":\"keys\",\"name\":\"keys_%s\",\"skipped\":\"two hosts and a link need "
               "root, ip and tc\"}\n",
               network->name);
        return;
    }
    fflush(stdout);
    fail_if(pipe(pipes), "pipe");
    fail_if(clu_remove_tree(bench->dir) || clu_mkdirs(bench->dir), "a folder");
    pid_t server = fork(), client = -1;
    if (server == 0) {
        if (network->rate)
            enter(bench, 's');
        serve(bench, network->rate ? "tcp://10.78.0.1:*" : "tcp://127.0.0.1:*", pipes[1]);
    }
    close(pipes[1]);
    bool started = read(pipes[0], endpoint, sizeof(endpoint)) > 0;
    close(pipes[0]);
    if (started && (client = fork()) == 0) {
        if (network->rate)
            enter(bench, 'c');
        measure_all(bench, network, endpoint);
        exit(0);
    }
    int status = 1;
    if (client > 0)
        waitpid(client, &status, 0);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    if (network->rate)
        take_down(bench);
    fail_if(status, network->name);
}

int main(int argc, char **argv)
{
    static struct bench bench = {.rounds = 7, .n_rows = 1000000};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--tiny")) {
            bench.tiny = true;
            bench.rounds = 1;
        } else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
            bench.rounds = atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--only") && i + 1 < argc) {
            bench.only = argv[++i];
        } else {
            fprintf(stderr, "bench_keys [--tiny] [--rounds N] [--only NAME]\n");
            exit(64);
        }
    }
    if (bench.rounds < 1 || bench.rounds > MAX_ROUNDS)
        exit(64);
    snprintf(bench.dir, sizeof(bench.dir), "%s/sluice-bench-keys-%d", P_tmpdir, (int)getpid());
    snprintf(bench.net, sizeof(bench.net), "sk%d", (int)getpid());
    for (int t = 0; t < N_TABLES; t++) {
        emb_table_spec_init(&bench.tables[t]);
        snprintf(bench.tables[t].name, sizeof(bench.tables[t].name), "t%d", t);
        bench.tables[t].dim = t ? MAX_DIM : 8;
        bench.tables[t].optimizer = EMB_SGD;
        bench.tables[t].learning_rate = 0.01;
    }
    for (size_t n = 0; n < sizeof(networks) / sizeof(networks[0]); n++)
        if (!(bench.tiny && networks[n].rate) &&
            (!bench.only || strstr(bench.only, "keys_") != bench.only ||
             strstr(bench.only, networks[n].name)))
            run(&bench, &networks[n]);
    return clu_remove_tree(bench.dir) != 0;
}

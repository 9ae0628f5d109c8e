/* How fast rows move: pulls, pushes and both of 1, 1000 and 10000 rows of 32 floats, 1 and 4
 * requests outstanding, through one shard of a real server, beside bare libzmq with the same bytes
 * (echo), with the same rows gathered from or added to a plain array (array: the limit that
 * `ratio` is taken against), and with msgpack arrays in place of raw frames. One JSON line a
 * figure, on stdout.
 *
 * Client and server are two processes. The contestants take turns, round by round, so that what
 * else the machine does meets all of them; a figure is the median of the rounds, its spread (max -
 * min) / median. Arguments: --tiny (one short round: does it run), --ipc (ipc in place of tcp),
 * --rounds N, --rows N (in the table), --only NAME (figures whose
 * names contain it).
 */
#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/map.h"
#include "cluster/transport.h"
#include "embeddings/table.h"
#include "ps/client.h"
#include "ps/server.h"
#include "tests/bench/bench_wire_bare.h"

#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_CONTESTANTS = 4, MAX_ROUNDS = 15, MAX_OUTSTANDING = 4, MAX_REQUESTS = 20000 };

enum contestant { OURS, ECHO, ARRAY, MSGPACK };

static const char *const contestant_name[] = {"sluice", "echo", "array", "msgpack"};

enum op { PULL, PUSH, BOTH };

static const char *const op_name[] = {"pull", "push", "pull_push"};

struct figure {
    double rows_per_second, p50_us, p99_us, client_cpu, server_cpu; /* cpu: s per million rows */
};

struct bench {
    bool tiny, ipc;
    int rounds;
    size_t n_rows;
    const char *only; /* the beginning of figures' names */
    char dir[128];
    pid_t pid[N_CONTESTANTS];
    char endpoint[N_CONTESTANTS][128];
    struct bare_client *bare[N_CONTESTANTS];
    struct clu_transport *transport;
    struct psv_client *client;
    struct emb_table_spec table;
    uint64_t step;
    uint64_t *keys; /* [MAX_OUTSTANDING, 10000] */
    float *rows;    /* [MAX_OUTSTANDING, 10000, dim] */
    double latency_us[MAX_REQUESTS];
};

static void fail_if(int status, const char *what)
{
    if (status) {
        fprintf(stderr, "bench_wire: %s failed (%d)\n", what, status);
        exit(1);
    }
}

static double now_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- servers ---- */

static void serve_ours(struct bench *bench, const char *bind, int ready)
{
    struct clu_transport_options transport = {0};
    struct psv_server *server;
    fail_if(clu_transport_create(&transport, &bench->transport), "transport");
    struct psv_threads_options options = {
        .transport = bench->transport,
        .tables = &bench->table,
        .n_tables = 1,
        .n_shards = 1,
        .n_ranks = 1,
        .staleness = -1,
        .dir = bench->dir,
        .durability = "snapshot",
        .bind = bind,
    };
    fail_if(psv_server_open(&options, &server), "server");
    fail_if(psv_server_start(server, 0), "server");
    const char *endpoint = psv_server_endpoint(server, 0);
    size_t size = strlen(endpoint) + 1;
    fail_if(write(ready, endpoint, size) != (ssize_t)size, "pipe");
    for (;;)
        pause();
}

static void start(struct bench *bench, enum contestant contestant)
{
    int pipes[2];
    char bind[160] = "tcp://127.0.0.1:*";
    if (bench->ipc)
        snprintf(bind, sizeof(bind), "ipc://%s/%s.sock", bench->dir, contestant_name[contestant]);
    fail_if(pipe(pipes), "pipe");
    pid_t pid = fork();
    fail_if(pid < 0, "fork");
    if (pid == 0) {
        close(pipes[0]);
        if (contestant == OURS)
            serve_ours(bench, bind, pipes[1]);
        bare_serve(contestant == ECHO    ? BARE_ECHO
                   : contestant == ARRAY ? BARE_ARRAY
                                         : BARE_MSGPACK,
                   bind, bench->n_rows, pipes[1]);
        exit(1);
    }
    close(pipes[1]);
    bench->pid[contestant] = pid;
    fail_if(read(pipes[0], bench->endpoint[contestant], sizeof(bench->endpoint[0])) <= 0,
            "a server's start");
    close(pipes[0]);
}

static void connect_all(struct bench *bench)
{
    static struct clu_bucket_map map;
    struct clu_transport_options transport = {0};
    fail_if(clu_transport_create(&transport, &bench->transport), "transport");
    clu_map_init(&map, 1, 1);
    snprintf(map.endpoint[0], sizeof(map.endpoint[0]), "%s", bench->endpoint[OURS]);
    struct psv_client_options options = {
        .transport = bench->transport,
        .map = &map,
        .tables = &bench->table,
        .n_tables = 1,
        .n_ranks = 1,
        .incarnation = 1,
        .staleness = -1,
        .wire_dtype = "fp32",
        .request_timeout_ms = 30000,
    };
    fail_if(psv_client_open(&options, &bench->client), "client");
    bench->bare[ECHO] = bare_connect(BARE_ECHO, bench->endpoint[ECHO]);
    bench->bare[ARRAY] = bare_connect(BARE_ARRAY, bench->endpoint[ARRAY]);
    bench->bare[MSGPACK] = bare_connect(BARE_MSGPACK, bench->endpoint[MSGPACK]);
}

static uint64_t key_of(size_t row)
{
    return clu_mix(row + 1);
}

/* every row exists at the server, in batches of 10000 */
static void fill(struct bench *bench)
{
    for (size_t row = 0; row < bench->n_rows; row += 10000) {
        uint64_t ticket;
        size_t n = bench->n_rows - row < 10000 ? bench->n_rows - row : 10000;
        for (size_t i = 0; i < n; i++)
            bench->keys[i] = key_of(row + i);
        struct psv_part part = {0, n, bench->keys, bench->rows};
        fail_if(psv_client_push(bench->client, &part, 1, ++bench->step, &ticket), "push");
        fail_if(psv_client_wait(bench->client, ticket, -1), "push");
    }
}

/* ---- one measurement ---- */

struct flight {
    uint64_t ticket;
    double sent;
    bool push;
};

static void send_one(struct bench *bench, enum contestant contestant, int slot, size_t n,
                     struct flight *flight)
{
    uint64_t *keys = bench->keys + (size_t)slot * 10000;
    float *rows = bench->rows + (size_t)slot * 10000 * BARE_DIM;
    flight->sent = now_s(CLOCK_MONOTONIC);
    if (contestant != OURS) {
        bare_send(bench->bare[contestant], keys, flight->push ? rows : NULL, n);
        return;
    }
    struct psv_part part = {0, n, keys, rows};
    if (flight->push)
        fail_if(psv_client_push(bench->client, &part, 1, ++bench->step, &flight->ticket), "push");
    else
        fail_if(psv_client_pull(bench->client, &part, 1, bench->step + 1, &flight->ticket), "pull");
}

static double receive_one(struct bench *bench, enum contestant contestant, int slot, size_t n,
                          const struct flight *flight)
{
    if (contestant == OURS)
        fail_if(psv_client_wait(bench->client, flight->ticket, -1), "wait");
    else
        bare_receive(bench->bare[contestant], bench->rows + (size_t)slot * 10000 * BARE_DIM, n);
    return now_s(CLOCK_MONOTONIC) - flight->sent;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct figure measure(struct bench *bench, enum contestant contestant, enum op op, size_t n,
                             int outstanding, double seconds)
{
    struct flight flight[MAX_OUTSTANDING];
    clockid_t server_clock = CLOCK_MONOTONIC;
    uint64_t random = clu_mix(n + (uint64_t)op);
    int n_sent = 0, n_done = 0;
    clock_getcpuclockid(bench->pid[contestant], &server_clock);
    for (int s = 0; s < outstanding; s++)
        for (size_t i = 0; i < n; i++) {
            random = clu_mix(random + i);
            /* distinct keys, spread over the table */
            size_t stride = bench->n_rows / n;
            bench->keys[(size_t)s * 10000 + i] = contestant == OURS
                                                     ? key_of(i * stride + random % stride)
                                                     : i * stride + random % stride;
        }
    for (int s = 0; s < outstanding; s++) /* no order that an array could profit from */
        for (size_t i = n; i > 1; i--) {
            random = clu_mix(random + i);
            uint64_t *keys = bench->keys + (size_t)s * 10000, last = keys[i - 1];
            keys[i - 1] = keys[random % i];
            keys[random % i] = last;
        }
    double server_cpu = now_s(server_clock), client_cpu = now_s(CLOCK_PROCESS_CPUTIME_ID);
    double begin = now_s(CLOCK_MONOTONIC), end = begin;
    while (n_done < MAX_REQUESTS && (end - begin < seconds || n_done < n_sent)) {
        bool more = end - begin < seconds && n_sent < MAX_REQUESTS;
        if (more && n_sent - n_done < outstanding) {
            struct flight *f = &flight[n_sent % outstanding];
            f->push = op == PUSH || (op == BOTH && n_sent % 2);
            send_one(bench, contestant, n_sent % outstanding, n, f);
            n_sent++;
            continue;
        }
        if (n_done == n_sent)
            break;
        int slot = n_done % outstanding;
        bench->latency_us[n_done++] = 1e6 * receive_one(bench, contestant, slot, n, &flight[slot]);
        end = now_s(CLOCK_MONOTONIC);
    }
    double n_moved = (double)n_done * (double)n;
    struct figure figure = {
        .rows_per_second = n_moved / (end - begin),
        .client_cpu = 1e6 * (now_s(CLOCK_PROCESS_CPUTIME_ID) - client_cpu) / n_moved,
        .server_cpu = 1e6 * (now_s(server_clock) - server_cpu) / n_moved,
    };
    qsort(bench->latency_us, (size_t)n_done, sizeof(double), compare);
    figure.p50_us = bench->latency_us[n_done / 2];
    figure.p99_us = bench->latency_us[n_done * 99 / 100];
    return figure;
}

/* ---- figures ---- */

static struct figure median(struct figure *figures, int n, double *spread_p)
{
    double *field = (double *)figures, values[MAX_ROUNDS];
    size_t n_fields = sizeof(struct figure) / sizeof(double);
    struct figure result;
    for (size_t f = 0; f < n_fields; f++) {
        for (int i = 0; i < n; i++)
            values[i] = field[(size_t)i * n_fields + f];
        qsort(values, (size_t)n, sizeof(double), compare);
        ((double *)&result)[f] = values[n / 2];
        if (f == 0)
            *spread_p = (values[n - 1] - values[0]) / values[n / 2];
    }
    return result;
}

static void run(struct bench *bench, enum op op, size_t n, int outstanding)
{
    static struct figure figures[N_CONTESTANTS][MAX_ROUNDS];
    struct figure result[N_CONTESTANTS];
    double ratio[MAX_ROUNDS], spread[N_CONTESTANTS], seconds = bench->tiny ? 0.01 : 0.4;
    char name[64];
    snprintf(name, sizeof(name), "%s_%zu%s", op_name[op], n, outstanding > 1 ? "_x4" : "");
    if (bench->only && strncmp(name, bench->only, strlen(bench->only)))
        return;
    for (int c = 0; c < N_CONTESTANTS; c++) /* warm */
        measure(bench, (enum contestant)c, op, n, outstanding, seconds / 8);
    for (int r = 0; r < bench->rounds; r++)
        for (int c = 0; c < N_CONTESTANTS; c++)
            figures[c][r] = measure(bench, (enum contestant)c, op, n, outstanding,
                                    c == MSGPACK ? seconds / 4 : seconds);
    for (int r = 0; r < bench->rounds; r++)
        ratio[r] = figures[OURS][r].rows_per_second / figures[ARRAY][r].rows_per_second;
    qsort(ratio, (size_t)bench->rounds, sizeof(*ratio), compare);
    for (int c = 0; c < N_CONTESTANTS; c++)
        result[c] = median(figures[c], bench->rounds, &spread[c]);
    printf("{\"bench\":\"wire\",\"name\":\"%s\",\"value\":%.0f,\"unit\":\"rows/s\","
           "\"baseline\":%.0f,\"ratio\":%.3f,\"min\":%.3f,\"max\":%.3f,\"spread\":%.3f,"
           "\"baseline_spread\":%.3f,"
           "\"transport\":\"%s\",\"outstanding\":%d,\"echo\":%.0f,\"msgpack\":%.0f,",
           name, result[OURS].rows_per_second, result[ARRAY].rows_per_second,
           ratio[bench->rounds / 2], ratio[0], ratio[bench->rounds - 1], spread[OURS],
           spread[ARRAY], bench->ipc ? "ipc" : "tcp", outstanding, result[ECHO].rows_per_second,
           result[MSGPACK].rows_per_second);
    for (int c = 0; c < 3; c++)
        printf("\"%s_p50_us\":%.1f,\"%s_p99_us\":%.1f,\"%s_client_cpu_s_per_mrow\":%.4f,"
               "\"%s_server_cpu_s_per_mrow\":%.4f%s",
               contestant_name[c], result[c].p50_us, contestant_name[c], result[c].p99_us,
               contestant_name[c], result[c].client_cpu, contestant_name[c], result[c].server_cpu,
               c < 2 ? "," : "}\n");
    fflush(stdout);
}

static void parse(struct bench *bench, int argc, char **argv)
{
    bench->rounds = 7;
    bench->n_rows = 1000000;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--tiny")) {
            bench->tiny = true;
            bench->rounds = 1;
            bench->n_rows = 20000;
        } else if (!strcmp(argv[i], "--ipc")) {
            bench->ipc = true;
        } else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
            bench->rounds = atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--only") && i + 1 < argc) {
            bench->only = argv[++i];
        } else if (!strcmp(argv[i], "--rows") && i + 1 < argc) {
            bench->n_rows = (size_t)atoll(argv[++i]);
        } else {
            fprintf(stderr, "bench_wire [--tiny] [--ipc] [--rounds N] [--rows N] [--only NAME]\n");
            exit(64);
        }
    }
    if (bench->rounds < 1 || bench->rounds > MAX_ROUNDS || bench->n_rows < 10000)
        exit(64);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    static const size_t sizes[] = {1, 1000, 10000};
    parse(&bench, argc, argv);
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* for all contestants, as our transport does */
    mallopt(M_TRIM_THRESHOLD, 128 << 20);
    snprintf(bench.dir, sizeof(bench.dir), "%s/sluice-bench-wire-%d", P_tmpdir, (int)getpid());
    fail_if(clu_mkdirs(bench.dir), "a folder");
    emb_table_spec_init(&bench.table);
    snprintf(bench.table.name, sizeof(bench.table.name), "t");
    bench.table.dim = BARE_DIM;
    bench.table.optimizer = EMB_SGD; /* an addition a number, as the limit does */
    bench.table.learning_rate = 0.01;
    bench.keys = calloc(MAX_OUTSTANDING * 10000, sizeof(*bench.keys));
    bench.rows = calloc((size_t)MAX_OUTSTANDING * 10000 * BARE_DIM, sizeof(*bench.rows));
    fail_if(!bench.keys || !bench.rows, "memory");
    for (int c = 0; c < N_CONTESTANTS; c++)
        start(&bench, (enum contestant)c);
    connect_all(&bench);
    fill(&bench);
    for (int op = PULL; op <= BOTH; op++)
        for (int s = 0; s < 3; s++)
            for (int outstanding = 1; outstanding <= 4; outstanding += 3)
                run(&bench, (enum op)op, sizes[s], outstanding);
    psv_client_close(bench.client);
    clu_transport_free(bench.transport);
    for (int c = 0; c < N_CONTESTANTS; c++) {
        if (c != OURS)
            bare_close(bench.bare[c]);
        kill(bench.pid[c], SIGKILL);
        waitpid(bench.pid[c], NULL, 0);
    }
    free(bench.keys);
    free(bench.rows);
    return clu_remove_tree(bench.dir) != 0;
}

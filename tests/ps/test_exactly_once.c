/* A bad network and a server that dies: the tables end as they would have without, bit for bit.
 *
 * Each seed runs one job of two ranks twice: straight, and through proxies that lose, double,
 * delay, reorder and cut messages, while the server is ended without a commit now and then and
 * opened again (durability: log). The number of seeds is the first argument's business: `slow`
 * runs thousands.
 */
#include "tests/ps/proxy.h"
#include "tests/ps/rig.h"

#include <stdatomic.h>

enum { N_RANKS = 2, N_SHARDS = 2, N_STEPS = 12, MAX_SHARDS = 2 };

struct job {
    struct rig *rig;
    int rank;
    uint64_t seed;
    _Atomic int *n_done; /* steps, over ranks: when to kill */
    int status;
    uint64_t retries;
};

/* At staleness 0 gradients depend on pulled rows; otherwise what a pull sees is not determined, so
 * they do not, and at async they are dyadic and the tables SGD: then sums are exact in any order.
 * */
static void make_gradients(const struct job *job, uint64_t step, const struct rig_batch *pulled,
                           struct rig_batch *batch)
{
    int64_t staleness = job->rig->options.staleness;
    rig_batch(job->rig, job->seed, step, job->rank, batch);
    for (int t = 0; t < RIG_N_TABLES; t++)
        for (size_t i = 0; i < batch->part[t].n * (size_t)job->rig->tables[t].dim; i++) {
            if (staleness == 0)
                batch->rows[t][i] += pulled->rows[t][i];
            else if (staleness < 0)
                batch->rows[t][i] = (float)(int)(batch->rows[t][i] * 8) / 16;
        }
}

static void *work(void *argument)
{
    struct job *job = argument;
    struct rig_batch batch, pulled;
    struct psv_client *client;
    struct psv_client_stats stats;
    uint64_t pull = 0, push = 0;
    job->status = rig_client(job->rig, job->rank, (uint64_t)job->rank + 1, "fp32", &client);
    if (job->status)
        return NULL;
    for (uint64_t step = 1; !job->status && step <= N_STEPS; step++) {
        rig_batch(job->rig, job->seed, step, job->rank, &pulled);
        job->status = psv_client_pull(client, pulled.part, RIG_N_TABLES, step, &pull);
        if (!job->status)
            job->status = psv_client_wait(client, pull, -1);
        if (!job->status && push)
            job->status = psv_client_wait(client, push, -1);
        make_gradients(job, step, &pulled, &batch);
        if (!job->status)
            job->status = psv_client_push(client, batch.part, RIG_N_TABLES, step, &push);
        atomic_fetch_add(job->n_done, 1);
    }
    if (!job->status)
        job->status = psv_client_wait(client, push, -1);
    psv_client_stats(client, &stats);
    job->retries = stats.retries;
    psv_client_close(client);
    return NULL;
}

/* Ends the server as a kill would, and opens it again on the same folder; clients know the proxies
 * only. */
static int kill_and_restart(struct rig *rig, struct proxy *proxies)
{
    psv_server_abandon(rig->server);
    rig->server = NULL;
    int status = psv_server_open(&rig->options, &rig->server);
    if (!status)
        status = psv_server_start(rig->server, 0);
    for (int s = 0; !status && s < N_SHARDS; s++)
        proxy_move(&proxies[s], psv_server_endpoint(rig->server, s));
    return status;
}

static uint64_t run(uint64_t seed, int64_t staleness, const struct proxy_faults *faults,
                    int n_kills, uint64_t *retries_p)
{
    struct rig rig;
    struct job jobs[N_RANKS];
    pthread_t threads[N_RANKS];
    static struct proxy proxies[MAX_SHARDS];
    struct clu_bucket_map straight;
    _Atomic int n_done = 0;
    uint64_t random = seed;
    rig_open(&rig, N_SHARDS, N_RANKS, staleness, "log");
    if (staleness < 0) { /* see make_gradients */
        psv_server_stop(rig.server);
        clu_remove_tree(rig.dir);
        for (int t = 0; t < RIG_N_TABLES; t++) {
            rig.tables[t].optimizer = EMB_SGD;
            rig.tables[t].learning_rate = 1;
            rig.tables[t].init_range = 0;
        }
        CU_ASSERT_EQUAL_FATAL(rig_start(&rig), 0);
    }
    rig.retry_ms = 4;
    rig.wire_keys = seed % 2 ? "delta" : "plain";
    for (int s = 0; faults && s < N_SHARDS; s++) {
        proxy_start(&proxies[s], rig.transport, suite_random(&random), faults, rig.map.endpoint[s]);
        snprintf(rig.map.endpoint[s], sizeof(rig.map.endpoint[s]), "%s", proxies[s].endpoint);
    }
    for (int r = 0; r < N_RANKS; r++) {
        jobs[r] = (struct job){&rig, r, seed, &n_done, 0, 0};
        pthread_create(&threads[r], NULL, work, &jobs[r]);
    }
    for (int k = 0; k < n_kills; k++) {
        int at = (int)(suite_random(&random) % (N_STEPS * N_RANKS / n_kills)) +
                 k * N_STEPS * N_RANKS / n_kills;
        for (int i = 0; i < 10000 && n_done < at; i++)
            usleep(1000);
        CU_ASSERT_EQUAL(kill_and_restart(&rig, proxies), 0);
    }
    for (int r = 0; r < N_RANKS; r++) {
        pthread_join(threads[r], NULL);
        CU_ASSERT_EQUAL(jobs[r].status, 0);
        *retries_p += jobs[r].retries;
    }
    for (int s = 0; faults && s < N_SHARDS; s++)
        proxy_stop(&proxies[s]);
    /* look at the rows without the proxies */
    straight = rig.map;
    for (int s = 0; s < N_SHARDS; s++)
        snprintf(straight.endpoint[s], sizeof(straight.endpoint[s]), "%s",
                 psv_server_endpoint(rig.server, s));
    rig.map = straight;
    struct psv_client *client;
    CU_ASSERT_EQUAL_FATAL(rig_client(&rig, 0, 99, "fp32", &client), 0);
    uint64_t digest = rig_digest(&rig, client, N_STEPS + 1);
    psv_client_close(client);
    rig_close(&rig);
    return digest;
}

static int n_seeds(void)
{
    const char *text = getenv("SLUICE_TEST_SEEDS");
    return text ? atoi(text) : 24;
}

static void check(int64_t staleness)
{
    static const struct proxy_faults faults = {
        .drop = 30, .duplicate = 60, .delay = 200, .cut = 20, .max_delay_ms = 6};
    uint64_t first = suite_seed(), retries = 0;
    for (uint64_t seed = first; seed < first + (uint64_t)n_seeds(); seed++) {
        uint64_t calm = run(seed, staleness, NULL, 0, &retries);
        uint64_t wild = run(seed, staleness, &faults, (int)(seed % 3), &retries);
        if (calm != wild)
            printf("  seed %llu at staleness %d: the tables differ\n", (unsigned long long)seed,
                   (int)staleness);
        CU_ASSERT_EQUAL_FATAL(wild, calm);
    }
    CU_ASSERT(retries > 0);
}

static void test_staleness_0_ends_with_the_same_bits(void)
{
    check(0);
}

static void test_staleness_2_ends_with_the_same_bits(void)
{
    check(2);
}

static void test_async_ends_with_the_same_sums(void)
{
    check(-1);
}

SUITE("ps.exactly_once", T(test_staleness_0_ends_with_the_same_bits),
      T(test_staleness_2_ends_with_the_same_bits), T(test_async_ends_with_the_same_sums))

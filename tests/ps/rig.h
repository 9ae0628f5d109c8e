/* A server and its clients in one process, over loopback tcp: what the tests of ps/ share. Folders
 * are made in memory where there is room (what is tested does not depend on a disk, but would wait
 * for its syncs), else in the temporary folder, and removed again.
 */
#ifndef TESTS_PS_RIG_H
#define TESTS_PS_RIG_H

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/map.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "embeddings/table.h"
#include "ps/client.h"
#include "ps/server.h"
#include "tests/suite.h"

#include <pthread.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { RIG_MAX_SHARDS = 8, RIG_N_TABLES = 3 };

struct rig {
    char dir[128];
    struct clu_transport *transport;
    struct emb_table_spec tables[RIG_N_TABLES];
    struct psv_server *server;
    struct clu_bucket_map map;
    struct psv_threads_options options;
    int timeout_ms, retry_ms;
    const char *wire_keys; /* NULL: plain */
};

static inline void rig_tables(struct emb_table_spec *tables)
{
    static const char *const name[RIG_N_TABLES] = {"user", "item", "category"};
    static const int dim[RIG_N_TABLES] = {8, 5, 16};
    for (int t = 0; t < RIG_N_TABLES; t++) {
        emb_table_spec_init(&tables[t]);
        snprintf(tables[t].name, sizeof(tables[t].name), "%s", name[t]);
        tables[t].dim = dim[t];
        tables[t].learning_rate = 0.01;
        tables[t].seed = 7;
        tables[t].optimizer = t == 2 ? EMB_ROWWISE_ADAGRAD : EMB_ADAM;
    }
}

static inline const char *rig_root(void)
{
    struct statvfs room;
    bool in_memory = !access("/dev/shm", W_OK) && !statvfs("/dev/shm", &room) &&
                     (uint64_t)room.f_bavail * room.f_frsize > (uint64_t)512 << 20;
    return in_memory ? "/dev/shm" : P_tmpdir;
}

static inline int rig_start(struct rig *rig)
{
    int n = rig->options.n_shards;
    int status = psv_server_open(&rig->options, &rig->server);
    if (!status)
        status = psv_server_start(rig->server, 0);
    if (status)
        return status;
    uint64_t version = rig->map.version;
    clu_map_init(&rig->map, 1, n);
    rig->map.version = version + 1;
    for (int s = 0; s < n; s++)
        snprintf(rig->map.endpoint[s], sizeof(rig->map.endpoint[s]), "%s",
                 psv_server_endpoint(rig->server, s));
    return 0;
}

static inline void rig_open(struct rig *rig, int n_shards, int n_ranks, int64_t staleness,
                            const char *durability)
{
    static int count;
    memset(rig, 0, sizeof(*rig));
    snprintf(rig->dir, sizeof(rig->dir), "%s/sluice-ps-%d-%d", rig_root(), (int)getpid(), count++);
    clu_remove_tree(rig->dir);
    struct clu_transport_options transport = {0};
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&transport, &rig->transport), 0);
    rig_tables(rig->tables);
    rig->timeout_ms = 20000;
    rig->options = (struct psv_threads_options){
        .transport = rig->transport,
        .tables = rig->tables,
        .n_tables = RIG_N_TABLES,
        .n_shards = n_shards,
        .n_ranks = n_ranks,
        .staleness = staleness,
        .dir = rig->dir,
        .durability = durability,
        .map_bytes = 64 << 20, /* a sanitizer's address space holds few large maps */
        .bind = "tcp://127.0.0.1:*",
        .heartbeat_ms = 500,
    };
    CU_ASSERT_EQUAL_FATAL(rig_start(rig), 0);
}

static inline void rig_close(struct rig *rig)
{
    CU_ASSERT_EQUAL(psv_server_stop(rig->server), 0);
    clu_transport_free(rig->transport);
    clu_remove_tree(rig->dir);
}

static inline int rig_client(struct rig *rig, int rank, uint64_t incarnation, const char *dtype,
                             struct psv_client **client_p)
{
    struct psv_client_options options = {
        .transport = rig->transport,
        .map = &rig->map,
        .tables = rig->tables,
        .n_tables = RIG_N_TABLES,
        .rank = rank,
        .n_ranks = rig->options.n_ranks,
        .incarnation = incarnation,
        .staleness = rig->options.staleness,
        .wire_dtype = dtype,
        .wire_keys = rig->wire_keys,
        .request_timeout_ms = rig->timeout_ms,
        .retry_ms = rig->retry_ms,
        .heartbeat_ms = 500,
    };
    return psv_client_open(&options, client_p);
}

/* Commits what a snapshot's folder holds, and starts the opened server from it. */
static inline void rig_restore_files(struct rig *rig, const char *folder, int n_shards,
                                     uint64_t step)
{
    char root[512], part[512];
    struct clu_manifest manifest = {.step = step, .n_shards = n_shards};
    snprintf(root, sizeof(root), "%.*s", (int)(strrchr(folder, '/') - folder), folder);
    snprintf(part, sizeof(part), "%s.part", folder);
    CU_ASSERT_EQUAL(rename(folder, part), 0);
    CU_ASSERT_EQUAL_FATAL(clu_snapshot_commit(root, &manifest, 0), 0);
    clu_map_init(&rig->map, 1, rig->options.n_shards);
    struct psv_origin origin = {.map = &rig->map, .folder = folder, .step = step, .generation = 1};
    CU_ASSERT_EQUAL_FATAL(psv_server_restore(rig->server, &origin), 0);
    CU_ASSERT_EQUAL_FATAL(psv_server_start(rig->server, 0), 0);
    for (int s = 0; s < rig->options.n_shards; s++)
        snprintf(rig->map.endpoint[s], sizeof(rig->map.endpoint[s]), "%s",
                 psv_server_endpoint(rig->server, s));
}

/* Key i of a table: ids of a dense space in the first one, hashes in the others. */
static inline uint64_t rig_key(int table, uint64_t i)
{
    return table ? i * 0x9e3779b97f4a7c15u : i;
}

/* A step's keys and gradients of a rank: the same for the same (seed, step, rank). */
struct rig_batch {
    struct psv_part part[RIG_N_TABLES];
    uint64_t keys[RIG_N_TABLES][64];
    float rows[RIG_N_TABLES][64 * 16];
};

static inline void rig_batch(const struct rig *rig, uint64_t seed, uint64_t step, int rank,
                             struct rig_batch *batch)
{
    uint64_t random = clu_mix(seed * 1000003 + step * 1009 + (uint64_t)rank);
    for (int t = 0; t < RIG_N_TABLES; t++) {
        size_t n = suite_random(&random) % 64;
        uint64_t key = suite_random(&random) % 50;
        for (size_t i = 0; i < n; i++, key += 1 + suite_random(&random) % 4) {
            batch->keys[t][i] = rig_key(t, key);
            for (int j = 0; j < rig->tables[t].dim; j++)
                batch->rows[t][i * (size_t)rig->tables[t].dim + (size_t)j] =
                    (float)suite_uniform(&random, -1, 1);
        }
        batch->part[t] = (struct psv_part){t, n, batch->keys[t], batch->rows[t]};
    }
}

/* XXH3 over what a pull of every key the batches can name returns at step. */
static inline uint64_t rig_digest(struct rig *rig, struct psv_client *client, uint64_t step)
{
    enum { N = 400 };
    uint64_t keys[RIG_N_TABLES][N];
    float rows[RIG_N_TABLES][N * 16];
    struct psv_part part[RIG_N_TABLES];
    uint64_t ticket = 0, digest = 0;
    memset(rows, 0, sizeof(rows));
    for (int t = 0; t < RIG_N_TABLES; t++) {
        for (uint64_t i = 0; i < N; i++)
            keys[t][i] = rig_key(t, i);
        part[t] = (struct psv_part){t, N, keys[t], rows[t]};
    }
    CU_ASSERT_EQUAL(psv_client_pull(client, part, RIG_N_TABLES, step, &ticket), 0);
    CU_ASSERT_EQUAL(psv_client_wait(client, ticket, -1), 0);
    for (int t = 0; t < RIG_N_TABLES; t++)
        digest = clu_mix(digest + clu_hash_bytes(rows[t], (size_t)rig->tables[t].dim * N * 4));
    return digest;
}

#endif

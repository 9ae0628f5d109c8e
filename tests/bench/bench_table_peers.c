/* The other stores of the beyond-memory case: plain LMDB, and RocksDB through its C API. Both hold
 * a row as one value under its key in big-endian order (LMDB: its own integer keys), and update it
 * as the shard does: read the batch, apply adam, write the batch. */
#include "cluster/file.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"
#include "embeddings/row.h"
#include "tests/bench/bench_table.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef BENCH_ROCKSDB
#include <rocksdb/c.h>
#endif

enum { BATCH = 4096, LOAD_BATCH = 50000, LOAD_FILE = 160000 /* 64 MB, as RocksDB's own */ };

/* What both need to apply an update. */
struct peer {
    struct emb_updater updater;
    size_t value_bytes;
    int dim;
    char *values; /* [BATCH, value_bytes] */
};

static bool peer_init(struct peer *peer, int dim)
{
    struct emb_table_spec spec;
    bench_spec(&spec, dim);
    peer->dim = dim;
    peer->value_bytes = emb_value_bytes(&spec);
    peer->values = calloc(BATCH, peer->value_bytes);
    return peer->values && emb_updater_init(&peer->updater, &spec) == CLU_OK;
}

static void peer_fini(struct peer *peer)
{
    emb_updater_fini(&peer->updater);
    free(peer->values);
}

static void peer_update(struct peer *peer, size_t i, const float *grad, uint64_t step)
{
    char *value = peer->values + i * peer->value_bytes;
    uint32_t count = emb_value_u32(value, EMB_VALUE_COUNT) + 1;
    emb_value_set_u32(value, EMB_VALUE_COUNT, count);
    emb_value_set_u32(value, EMB_VALUE_STEP, (uint32_t)step);
    float *w = (float *)(void *)(value + EMB_VALUE_EMBEDDING);
    emb_update(&peer->updater, w, w + peer->dim, grad, count);
}

/* ---- LMDB ---- */

struct lmdb {
    struct peer peer;
    MDB_env *env;
    MDB_dbi dbi;
};

static int lmdb_read(struct lmdb *l, MDB_txn *txn, const uint64_t *keys, size_t n, float *rows)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t key = keys[i];
        MDB_val k = {8, &key}, value;
        if (mdb_get(txn, l->dbi, &k, &value))
            return CLU_E_NOT_FOUND;
        if (rows)
            memcpy(rows + i * (size_t)l->peer.dim, (char *)value.mv_data + EMB_VALUE_EMBEDDING,
                   4 * (size_t)l->peer.dim);
        else
            memcpy(l->peer.values + i * l->peer.value_bytes, value.mv_data, l->peer.value_bytes);
    }
    return CLU_OK;
}

static int lmdb_pull(void *self, const uint64_t *keys, size_t n, float *rows)
{
    struct lmdb *l = self;
    MDB_txn *txn;
    if (mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn))
        return CLU_E_IO;
    int status = lmdb_read(l, txn, keys, n, rows);
    mdb_txn_abort(txn);
    return status;
}

static int lmdb_push(void *self, const uint64_t *keys, size_t n, const float *grads, uint64_t step)
{
    struct lmdb *l = self;
    MDB_txn *txn;
    if (mdb_txn_begin(l->env, NULL, 0, &txn))
        return CLU_E_IO;
    int status = lmdb_read(l, txn, keys, n, NULL);
    for (size_t i = 0; i < n && !status; i++) {
        uint64_t key = keys[i];
        peer_update(&l->peer, i, grads + i * (size_t)l->peer.dim, step);
        MDB_val k = {8, &key};
        MDB_val value = {l->peer.value_bytes, l->peer.values + i * l->peer.value_bytes};
        status = mdb_put(txn, l->dbi, &k, &value, 0) ? CLU_E_IO : CLU_OK;
    }
    return status ? status : mdb_txn_commit(txn) ? CLU_E_IO : CLU_OK;
}

static void lmdb_close(void *self)
{
    struct lmdb *l = self;
    mdb_env_close(l->env);
    peer_fini(&l->peer);
    free(l);
}

static int lmdb_load(struct lmdb *l, uint64_t n_rows)
{
    MDB_txn *txn = NULL;
    emb_value_set_u32(l->peer.values, EMB_VALUE_COUNT, 1);
    for (uint64_t i = 0; i < n_rows; i++) {
        uint64_t key = bench_spread_key(i, n_rows);
        MDB_val k = {8, &key}, value = {l->peer.value_bytes, l->peer.values};
        if (i % LOAD_BATCH == 0) {
            if (txn && mdb_txn_commit(txn))
                return CLU_E_IO;
            if (mdb_txn_begin(l->env, NULL, 0, &txn))
                return CLU_E_IO;
            if (i == 0 && mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &l->dbi))
                return CLU_E_IO;
        }
        if (mdb_put(txn, l->dbi, &k, &value, MDB_APPEND))
            return CLU_E_IO;
    }
    return txn && mdb_txn_commit(txn) ? CLU_E_IO : CLU_OK;
}

bool bench_open_lmdb(struct bench_store *store, const struct bench_options *options,
                     uint64_t n_rows, uint64_t memory_bytes)
{
    char dir[600];
    struct lmdb *l = calloc(1, sizeof(*l));
    (void)memory_bytes; /* it has no cache of its own */
    snprintf(dir, sizeof(dir), "%s/lmdb", options->dir);
    if (!l || !peer_init(&l->peer, options->dim) || clu_remove_tree(dir) || clu_mkdirs(dir) ||
        mdb_env_create(&l->env))
        return false;
    mdb_env_set_mapsize(l->env, (size_t)64 << 30);
    if (mdb_env_open(l->env, dir, MDB_NOSYNC | MDB_NORDAHEAD | MDB_NOMEMINIT, 0644) ||
        lmdb_load(l, n_rows))
        return false;
    *store = (struct bench_store){"lmdb", l, lmdb_pull, lmdb_push, lmdb_close};
    return true;
}

/* ---- RocksDB ---- */

#ifdef BENCH_ROCKSDB

struct rocks {
    struct peer peer;
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    uint64_t big[BATCH];
    const char *key[BATCH];
    size_t key_size[BATCH], value_size[BATCH];
    char *value[BATCH], *error[BATCH];
};

static int rocks_read(struct rocks *r, const uint64_t *keys, size_t n, float *rows)
{
    int status = CLU_OK;
    for (size_t i = 0; i < n; i++) {
        r->big[i] = __builtin_bswap64(keys[i]);
        r->key[i] = (const char *)&r->big[i];
        r->key_size[i] = 8;
    }
    rocksdb_multi_get(r->db, r->read, n, r->key, r->key_size, r->value, r->value_size, r->error);
    for (size_t i = 0; i < n; i++) {
        if (r->error[i] || !r->value[i])
            status = CLU_E_NOT_FOUND;
        else if (rows)
            memcpy(rows + i * (size_t)r->peer.dim, r->value[i] + EMB_VALUE_EMBEDDING,
                   4 * (size_t)r->peer.dim);
        else
            memcpy(r->peer.values + i * r->peer.value_bytes, r->value[i], r->peer.value_bytes);
        rocksdb_free(r->value[i]);
    }
    return status;
}

static int rocks_pull(void *self, const uint64_t *keys, size_t n, float *rows)
{
    return rocks_read(self, keys, n, rows);
}

static int rocks_push(void *self, const uint64_t *keys, size_t n, const float *grads, uint64_t step)
{
    struct rocks *r = self;
    int status = rocks_read(r, keys, n, NULL);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < n && !status; i++) {
        peer_update(&r->peer, i, grads + i * (size_t)r->peer.dim, step);
        rocksdb_writebatch_put(batch, r->key[i], 8, r->peer.values + i * r->peer.value_bytes,
                               r->peer.value_bytes);
    }
    char *error = NULL;
    rocksdb_write(r->db, r->write, batch, &error);
    rocksdb_writebatch_destroy(batch);
    free(error);
    return status ? status : error ? CLU_E_IO : CLU_OK;
}

static void rocks_close(void *self)
{
    struct rocks *r = self;
    rocksdb_close(r->db);
    rocksdb_readoptions_destroy(r->read);
    rocksdb_writeoptions_destroy(r->write);
    rocksdb_options_destroy(r->options);
    peer_fini(&r->peer);
    free(r);
}

/* Rows [*i_p, n_rows) as far as a file of LOAD_FILE rows goes, sorted, handed over as it is. */
static char *rocks_load_file(struct rocks *r, const char *path, uint64_t *i_p, uint64_t n_rows)
{
    char *error = NULL;
    rocksdb_envoptions_t *env = rocksdb_envoptions_create();
    rocksdb_sstfilewriter_t *file = rocksdb_sstfilewriter_create(env, r->options);
    rocksdb_ingestexternalfileoptions_t *how = rocksdb_ingestexternalfileoptions_create();
    rocksdb_sstfilewriter_open(file, path, &error);
    for (uint64_t end = *i_p + LOAD_FILE; *i_p < end && *i_p < n_rows && !error; ++*i_p) {
        uint64_t big = __builtin_bswap64(bench_spread_key(*i_p, n_rows));
        rocksdb_sstfilewriter_put(file, (const char *)&big, 8, r->peer.values, r->peer.value_bytes,
                                  &error);
    }
    if (!error)
        rocksdb_sstfilewriter_finish(file, &error);
    rocksdb_ingestexternalfileoptions_set_move_files(how, 1);
    if (!error)
        rocksdb_ingest_external_file(r->db, &path, 1, how, &error);
    rocksdb_ingestexternalfileoptions_destroy(how);
    rocksdb_sstfilewriter_destroy(file);
    rocksdb_envoptions_destroy(env);
    return error;
}

/* Sorted files into the last level: what a compaction of everything would leave, written once. */
static int rocks_load(struct rocks *r, const char *dir, uint64_t n_rows)
{
    char path[640];
    emb_value_set_u32(r->peer.values, EMB_VALUE_COUNT, 1);
    snprintf(path, sizeof(path), "%s/load.sst", dir);
    for (uint64_t i = 0; i < n_rows;) {
        char *error = rocks_load_file(r, path, &i, n_rows);
        if (error) {
            fprintf(stderr, "bench_table: rocksdb: %s\n", error);
            free(error);
            return CLU_E_IO;
        }
    }
    return CLU_OK;
}

bool bench_open_rocksdb(struct bench_store *store, const struct bench_options *options,
                        uint64_t n_rows, uint64_t memory_bytes)
{
    char dir[600], *error = NULL;
    struct rocks *r = calloc(1, sizeof(*r));
    snprintf(dir, sizeof(dir), "%s/rocksdb", options->dir);
    if (!r || !peer_init(&r->peer, options->dim))
        return false;
    const size_t buffer =
        memory_bytes / 8 < ((size_t)64 << 20) ? memory_bytes / 8 : (size_t)64 << 20;
    r->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(r->options, 1);
    rocksdb_options_increase_parallelism(r->options, 2);
    rocksdb_options_set_write_buffer_size(r->options, buffer);
    rocksdb_options_set_compression(r->options, rocksdb_no_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(r->options, 1); /* as it advises */
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_cache_t *cache = rocksdb_cache_create_lru(memory_bytes - 2 * buffer);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom(10));
    rocksdb_options_set_block_based_table_factory(r->options, table);
    r->read = rocksdb_readoptions_create();
    r->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(r->write, 1);
    r->db = rocksdb_open(r->options, dir, &error);
    rocksdb_block_based_options_destroy(table);
    rocksdb_cache_destroy(cache);
    if (error || rocks_load(r, dir, n_rows))
        return false;
    *store = (struct bench_store){"rocksdb", r, rocks_pull, rocks_push, rocks_close};
    return true;
}

#else

bool bench_open_rocksdb(struct bench_store *store, const struct bench_options *options,
                        uint64_t n_rows, uint64_t memory_bytes)
{
    (void)store;
    (void)options;
    (void)n_rows;
    (void)memory_bytes;
    return false;
}

#endif

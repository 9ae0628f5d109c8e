/* The small map: one unnamed LMDB database, synced commits, an 8-byte XXH3 before every value.
 *
 * (K1) At most one write transaction is open; outside begin .. commit every put makes its own.
 */
#include "embeddings/kv.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/mdb.h"

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEY = 500 };
static const size_t map_bytes = (size_t)1 << 30;

struct emb_kv {
    char *path;
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *write; /* between begin and commit */
};

static int fail(const struct emb_kv *kv, int code, const char *action)
{
    return emb_mdb_fail(code, action, kv->path);
}

int emb_kv_open(const char *dir, struct emb_kv **kv_p)
{
    struct emb_kv *kv = calloc(1, sizeof(*kv));
    if (!kv || !(kv->path = strdup(dir))) {
        free(kv);
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a store", dir);
    }
    int status = clu_mkdirs(dir);
    if (!status)
        status = fail(kv, mdb_env_create(&kv->env), "cannot create an environment");
    if (!status) {
        mdb_env_set_mapsize(kv->env, map_bytes);
        status = fail(kv, mdb_env_open(kv->env, dir, MDB_NOTLS, 0644), "cannot open");
    }
    int dead = 0;
    MDB_txn *txn = NULL;
    if (!status)
        status = fail(kv, mdb_reader_check(kv->env, &dead), "cannot check readers");
    if (!status)
        status = fail(kv, mdb_txn_begin(kv->env, NULL, 0, &txn), "cannot begin a transaction");
    if (!status) {
        int code = mdb_dbi_open(txn, NULL, 0, &kv->dbi);
        if (!code)
            code = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
        status = fail(kv, code, "cannot open the database");
    }
    if (status) {
        emb_kv_close(kv);
        return status;
    }
    *kv_p = kv;
    return CLU_OK;
}

void emb_kv_close(struct emb_kv *kv)
{
    if (!kv)
        return;
    emb_kv_abort(kv);
    if (kv->env)
        mdb_env_close(kv->env);
    free(kv->path);
    free(kv);
}

int emb_kv_begin(struct emb_kv *kv)
{
    if (kv->write) /* (K1) */
        return clu_fail(CLU_E_BUG, "%s: a transaction is open already", kv->path);
    return fail(kv, mdb_txn_begin(kv->env, NULL, 0, &kv->write), "cannot begin a transaction");
}

int emb_kv_commit(struct emb_kv *kv)
{
    if (!kv->write)
        return clu_fail(CLU_E_BUG, "%s: no transaction is open", kv->path);
    MDB_txn *txn = kv->write;
    kv->write = NULL;
    return fail(kv, mdb_txn_commit(txn), "cannot commit");
}

void emb_kv_abort(struct emb_kv *kv)
{
    if (kv->write)
        mdb_txn_abort(kv->write);
    kv->write = NULL;
}

static int check_key(const struct emb_kv *kv, const char *key, MDB_val *key_p)
{
    size_t size = strlen(key);
    if (size < 1 || size > MAX_KEY)
        return clu_fail(CLU_E_DATA, "%s: a key has %zu bytes, expected 1..%d", kv->path, size,
                        MAX_KEY);
    *key_p = (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)key};
    return CLU_OK;
}

/* Runs change in the open transaction, or in one of its own. */
static int in_transaction(struct emb_kv *kv, const char *key,
                          int (*change)(struct emb_kv *, MDB_txn *, MDB_val *, void *), void *arg)
{
    MDB_val k;
    MDB_txn *txn = kv->write;
    int status = check_key(kv, key, &k);
    if (!status && !kv->write)
        status = fail(kv, mdb_txn_begin(kv->env, NULL, 0, &txn), "cannot begin a transaction");
    if (status)
        return status;
    int code = change(kv, txn, &k, arg);
    if (!kv->write) {
        if (!code)
            code = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    return fail(kv, code, "cannot write");
}

struct bytes {
    const void *data;
    size_t size;
};

static int put(struct emb_kv *kv, MDB_txn *txn, MDB_val *key, void *arg)
{
    const struct bytes *bytes = arg;
    MDB_val value = {.mv_size = 8 + bytes->size, .mv_data = NULL};
    int code = mdb_put(txn, kv->dbi, key, &value, MDB_RESERVE);
    if (code)
        return code;
    uint64_t check = clu_hash_bytes(bytes->data, bytes->size);
    memcpy(value.mv_data, &check, 8);
    if (bytes->size)
        memcpy((char *)value.mv_data + 8, bytes->data, bytes->size);
    return 0;
}

int emb_kv_put(struct emb_kv *kv, const char *key, const void *data, size_t size_bytes)
{
    struct bytes bytes = {data, size_bytes};
    return in_transaction(kv, key, put, &bytes);
}

static int del(struct emb_kv *kv, MDB_txn *txn, MDB_val *key, void *arg)
{
    (void)arg;
    int code = mdb_del(txn, kv->dbi, key, NULL);
    return code == MDB_NOTFOUND ? 0 : code;
}

int emb_kv_delete(struct emb_kv *kv, const char *key)
{
    return in_transaction(kv, key, del, NULL);
}

static int check_value(const struct emb_kv *kv, const MDB_val *value)
{
    uint64_t check;
    if (value->mv_size >= 8) {
        memcpy(&check, value->mv_data, 8);
        if (check == clu_hash_bytes((char *)value->mv_data + 8, value->mv_size - 8))
            return CLU_OK;
    }
    return clu_fail(CLU_E_CORRUPT, "%s: a stored value is damaged", kv->path);
}

static int begin_read(struct emb_kv *kv, MDB_txn **txn_p)
{
    *txn_p = kv->write;
    if (kv->write)
        return CLU_OK;
    return fail(kv, mdb_txn_begin(kv->env, NULL, MDB_RDONLY, txn_p), "cannot begin a transaction");
}

static void end_read(const struct emb_kv *kv, MDB_txn *txn)
{
    if (!kv->write)
        mdb_txn_abort(txn);
}

int emb_kv_get(struct emb_kv *kv, const char *key, void **data_p, size_t *size_p)
{
    MDB_val k, value;
    MDB_txn *txn;
    int status = check_key(kv, key, &k);
    if (!status)
        status = begin_read(kv, &txn);
    if (status)
        return status;
    status = fail(kv, mdb_get(txn, kv->dbi, &k, &value), "cannot read");
    if (!status)
        status = check_value(kv, &value);
    if (!status) {
        size_t size = value.mv_size - 8;
        char *copy = malloc(size + 1);
        if (copy) {
            memcpy(copy, (char *)value.mv_data + 8, size);
            copy[size] = 0;
            *data_p = copy;
            *size_p = size;
        } else {
            status = clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a value", kv->path);
        }
    }
    end_read(kv, txn);
    return status;
}

int emb_kv_each(struct emb_kv *kv, const char *prefix,
                int (*visit)(const char *key, const void *data, size_t size_bytes, void *arg),
                void *arg)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    int status = begin_read(kv, &txn);
    if (status)
        return status;
    int code = mdb_cursor_open(txn, kv->dbi, &cursor);
    if (code) {
        end_read(kv, txn);
        return fail(kv, code, "cannot open a cursor");
    }
    const size_t length = strlen(prefix);
    MDB_val k = {.mv_size = length, .mv_data = (void *)(uintptr_t)prefix}, value;
    code = mdb_cursor_get(cursor, &k, &value, length ? MDB_SET_RANGE : MDB_FIRST);
    while (!code && !status && k.mv_size >= length && memcmp(k.mv_data, prefix, length) == 0) {
        char key[MAX_KEY + 1];
        memcpy(key, k.mv_data, k.mv_size < MAX_KEY ? k.mv_size : MAX_KEY);
        key[k.mv_size < MAX_KEY ? k.mv_size : MAX_KEY] = 0;
        status = check_value(kv, &value);
        if (!status)
            status = visit(key, (char *)value.mv_data + 8, value.mv_size - 8, arg);
        if (!status)
            code = mdb_cursor_get(cursor, &k, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    end_read(kv, txn);
    return status || code == MDB_NOTFOUND ? status : fail(kv, code, "cannot read on");
}

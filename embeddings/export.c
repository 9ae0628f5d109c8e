/* The rows of an export.
 *
 * The writer fills an environment in DIR.part without sync (it may be thrown away at any moment),
 * in transactions of a bounded number of bytes, growing the map when it is full; commit syncs,
 * closes and renames. A row whose key follows the last one of its table is appended, which packs
 * pages fully.
 *
 * (E1) The folder DIR appears only when everything in it is on disk.
 */
#include "embeddings/export.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/mdb.h"
#include "embeddings/table.h"

#include <errno.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRANSACTION_BYTES = 32 << 20 };
static const size_t first_map_bytes = (size_t)64 << 30;
static const size_t smaller_map_bytes = (size_t)1 << 30;

struct table {
    MDB_dbi dbi;
    int dim;
    uint64_t last_key;
    bool has_last;
};

struct emb_export_writer {
    char *dir, *part;
    MDB_env *env;
    MDB_txn *txn;
    size_t txn_bytes;
    struct table table[EMB_MAX_TABLES];
    int n_tables;
};

struct emb_export_reader {
    char *dir;
    MDB_env *env;
    struct table table[EMB_MAX_TABLES];
    int n_tables;
};

static int open_environment(const char *path, unsigned flags, MDB_env **env_p)
{
    /* Where address space is limited, a smaller map does too: it only bounds the size. */
    for (size_t map = first_map_bytes;; map = smaller_map_bytes) {
        MDB_env *env;
        int code = mdb_env_create(&env);
        if (code)
            return emb_mdb_fail(code, "cannot create an environment", path);
        mdb_env_set_maxdbs(env, EMB_MAX_TABLES);
        mdb_env_set_maxreaders(env, 1024);
        mdb_env_set_mapsize(env, map);
        code = mdb_env_open(env, path, flags | MDB_NOTLS, 0644);
        if (!code) {
            *env_p = env;
            return CLU_OK;
        }
        mdb_env_close(env);
        if (code != ENOMEM || map == smaller_map_bytes)
            return emb_mdb_fail(code, "cannot open the environment", path);
    }
}

int emb_export_create(const char *dir, struct emb_export_writer **writer_p)
{
    if (clu_path_exists(dir))
        return clu_fail(CLU_E_EXISTS, "%s: something stands there already", dir);
    struct emb_export_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for an export", dir);
    w->dir = strdup(dir);
    int status = CLU_OK;
    if (!w->dir || asprintf(&w->part, "%s.part", dir) < 0) {
        w->part = NULL;
        status = clu_fail(CLU_E_NO_MEMORY, "%s: no memory for an export", dir);
    }
    if (!status)
        status = clu_remove_tree(w->part); /* left by one that was killed */
    if (!status)
        status = clu_mkdirs(w->part);
    if (!status)
        status = open_environment(w->part, MDB_NOSYNC | MDB_NOMEMINIT, &w->env);
    if (!status)
        status = emb_mdb_fail(mdb_txn_begin(w->env, NULL, 0, &w->txn), "cannot begin", w->part);
    if (status) {
        emb_export_abort(w);
        return status;
    }
    *writer_p = w;
    return CLU_OK;
}

static void writer_free(struct emb_export_writer *w)
{
    if (w->txn)
        mdb_txn_abort(w->txn);
    if (w->env)
        mdb_env_close(w->env);
    free(w->dir);
    free(w->part);
    free(w);
}

void emb_export_abort(struct emb_export_writer *w)
{
    if (!w)
        return;
    if (w->txn)
        mdb_txn_abort(w->txn);
    w->txn = NULL;
    if (w->part)
        (void)clu_remove_tree(w->part);
    writer_free(w);
}

/* Ends the transaction and begins another. */
static int turn(struct emb_export_writer *w)
{
    MDB_txn *txn = w->txn;
    w->txn = NULL;
    int code = mdb_txn_commit(txn);
    if (code)
        return emb_mdb_fail(code, "cannot commit", w->part);
    MDB_envinfo info;
    mdb_env_info(w->env, &info);
    if ((info.me_last_pgno + 1) * (size_t)4096 + 4 * (size_t)TRANSACTION_BYTES > info.me_mapsize)
        code = mdb_env_set_mapsize(w->env, info.me_mapsize * 2);
    if (!code)
        code = mdb_txn_begin(w->env, NULL, 0, &w->txn);
    w->txn_bytes = 0;
    return emb_mdb_fail(code, "cannot begin", w->part);
}

int emb_export_table(struct emb_export_writer *w, const char *name, int dim, int *table_p)
{
    if (w->n_tables == EMB_MAX_TABLES)
        return clu_fail(CLU_E_CONFIG, "%s: more than %d tables", w->dir, EMB_MAX_TABLES);
    if (!w->txn)
        return clu_fail(CLU_E_IO, "%s: an earlier write failed", w->dir);
    struct table *table = &w->table[w->n_tables];
    int code = mdb_dbi_open(w->txn, name, MDB_CREATE | MDB_INTEGERKEY, &table->dbi);
    if (code)
        return emb_mdb_fail(code, "cannot create a table", w->part);
    table->dim = dim;
    *table_p = w->n_tables++;
    return CLU_OK;
}

int emb_export_put(struct emb_export_writer *w, int table_number, uint64_t key, const float *row)
{
    struct table *table = &w->table[table_number];
    if (!w->txn)
        return clu_fail(CLU_E_IO, "%s: an earlier write failed", w->dir);
    if (w->txn_bytes > TRANSACTION_BYTES) {
        int status = turn(w);
        if (status)
            return status;
    }
    bool follows = !table->has_last || key > table->last_key;
    MDB_val k = {.mv_size = 8, .mv_data = &key};
    MDB_val value = {.mv_size = 4 * (size_t)table->dim, .mv_data = (void *)(uintptr_t)row};
    int code = mdb_put(w->txn, table->dbi, &k, &value, follows ? MDB_APPEND : 0);
    if (code) {
        mdb_txn_abort(w->txn);
        w->txn = NULL;
        return emb_mdb_fail(code, "cannot write a row", w->part);
    }
    if (follows)
        table->last_key = key;
    table->has_last = true;
    w->txn_bytes += value.mv_size + 16;
    return CLU_OK;
}

static int count_tables(struct emb_export_writer *w, uint64_t *counts_p)
{
    for (int t = 0; t < w->n_tables; t++) {
        MDB_stat stat;
        int code = mdb_stat(w->txn, w->table[t].dbi, &stat);
        if (code)
            return emb_mdb_fail(code, "cannot count rows", w->part);
        counts_p[t] = stat.ms_entries;
    }
    return CLU_OK;
}

int emb_export_commit(struct emb_export_writer *w, uint64_t *counts_p)
{
    int status = w->txn ? CLU_OK : clu_fail(CLU_E_IO, "%s: an earlier write failed", w->dir);
    if (!status && counts_p)
        status = count_tables(w, counts_p);
    if (!status) {
        MDB_txn *txn = w->txn;
        w->txn = NULL;
        status = emb_mdb_fail(mdb_txn_commit(txn), "cannot commit", w->part);
    }
    if (!status)
        status = emb_mdb_fail(mdb_env_sync(w->env, 1), "cannot sync", w->part);
    if (!status) {
        mdb_env_close(w->env);
        w->env = NULL;
        char lock[4096];
        if (clu_path_join(lock, sizeof(lock), w->part, "lock.mdb") == CLU_OK)
            (void)unlink(lock);                       /* made anew by whoever opens it */
        status = clu_rename_durable(w->part, w->dir); /* (E1) */
    }
    if (status)
        emb_export_abort(w);
    else
        writer_free(w);
    return status;
}

int emb_export_open(const char *dir, struct emb_export_reader **reader_p)
{
    struct emb_export_reader *r = calloc(1, sizeof(*r));
    if (!r || !(r->dir = strdup(dir))) {
        free(r);
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a reader", dir);
    }
    /* a read-only folder is fine: then without the lock file, as nobody can write either */
    unsigned flags = MDB_RDONLY | (access(dir, W_OK) == 0 ? 0 : MDB_NOLOCK);
    int status = open_environment(dir, flags, &r->env);
    if (status) {
        emb_export_close(r);
        return status;
    }
    *reader_p = r;
    return CLU_OK;
}

void emb_export_close(struct emb_export_reader *r)
{
    if (!r)
        return;
    if (r->env)
        mdb_env_close(r->env);
    free(r->dir);
    free(r);
}

static int check_first(const struct emb_export_reader *r, MDB_txn *txn, MDB_dbi dbi, int dim,
                       const char *name)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int code = mdb_cursor_open(txn, dbi, &cursor);
    if (code)
        return emb_mdb_fail(code, "cannot open a cursor", r->dir);
    code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    mdb_cursor_close(cursor);
    if (code == MDB_NOTFOUND)
        return CLU_OK;
    if (!code && value.mv_size != 4 * (size_t)dim)
        return clu_fail(CLU_E_CORRUPT, "%s: rows of table %s have %zu bytes, expected %d floats",
                        r->dir, name, value.mv_size, dim);
    return emb_mdb_fail(code, "cannot read a row", r->dir);
}

int emb_export_find(struct emb_export_reader *r, const char *name, int dim, int *table_p)
{
    MDB_txn *txn;
    struct table *table = &r->table[r->n_tables];
    if (r->n_tables == EMB_MAX_TABLES)
        return clu_fail(CLU_E_CONFIG, "%s: more than %d tables", r->dir, EMB_MAX_TABLES);
    int code = mdb_txn_begin(r->env, NULL, MDB_RDONLY, &txn);
    if (code)
        return emb_mdb_fail(code, "cannot begin a transaction", r->dir);
    code = mdb_dbi_open(txn, name, MDB_INTEGERKEY, &table->dbi);
    int status = code ? emb_mdb_fail(code, "cannot open a table", r->dir)
                      : check_first(r, txn, table->dbi, dim, name);
    if (status) {
        mdb_txn_abort(txn);
        return status;
    }
    mdb_txn_commit(txn); /* keeps the handle */
    table->dim = dim;
    *table_p = r->n_tables++;
    return CLU_OK;
}

int emb_export_count(struct emb_export_reader *r, int table, uint64_t *n_p)
{
    MDB_txn *txn;
    MDB_stat stat;
    int code = mdb_txn_begin(r->env, NULL, MDB_RDONLY, &txn);
    if (code)
        return emb_mdb_fail(code, "cannot begin a transaction", r->dir);
    code = mdb_stat(txn, r->table[table].dbi, &stat);
    mdb_txn_abort(txn);
    if (!code)
        *n_p = stat.ms_entries;
    return emb_mdb_fail(code, "cannot count rows", r->dir);
}

int emb_export_get(struct emb_export_reader *r, int table_number, const uint64_t *keys, size_t n,
                   float *rows_p, uint8_t *found_p)
{
    const struct table *table = &r->table[table_number];
    const size_t bytes = 4 * (size_t)table->dim;
    MDB_txn *txn;
    int code = mdb_txn_begin(r->env, NULL, MDB_RDONLY, &txn);
    if (code)
        return emb_mdb_fail(code, "cannot begin a transaction", r->dir);
    int status = CLU_OK;
    for (size_t i = 0; i < n && !status; i++) {
        uint64_t key = keys[i];
        MDB_val k = {.mv_size = 8, .mv_data = &key}, value;
        code = mdb_get(txn, table->dbi, &k, &value);
        if (found_p)
            found_p[i] = code == 0;
        if (code == MDB_NOTFOUND)
            continue;
        if (code)
            status = emb_mdb_fail(code, "cannot read a row", r->dir);
        else if (value.mv_size != bytes)
            status = clu_fail(CLU_E_CORRUPT, "%s: a row has %zu bytes, expected %zu", r->dir,
                              value.mv_size, bytes);
        else
            memcpy(rows_p + i * (size_t)table->dim, value.mv_data, bytes);
    }
    mdb_txn_abort(txn);
    return status;
}

int emb_export_each(struct emb_export_reader *r, int table_number,
                    int (*visit)(uint64_t key, const float *row, void *arg), void *arg)
{
    const struct table *table = &r->table[table_number];
    const size_t bytes = 4 * (size_t)table->dim;
    float *row = malloc(bytes);
    MDB_txn *txn;
    MDB_cursor *cursor;
    if (!row)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a row", r->dir);
    int code = mdb_txn_begin(r->env, NULL, MDB_RDONLY, &txn);
    if (!code && (code = mdb_cursor_open(txn, table->dbi, &cursor)) != 0)
        mdb_txn_abort(txn);
    if (code) {
        free(row);
        return emb_mdb_fail(code, "cannot open a cursor", r->dir);
    }
    MDB_val k, value;
    int status = CLU_OK;
    while (!status && (code = mdb_cursor_get(cursor, &k, &value, MDB_NEXT)) == 0) {
        uint64_t key;
        if (k.mv_size != 8 || value.mv_size != bytes) {
            status = clu_fail(CLU_E_CORRUPT, "%s: a row has %zu bytes, expected %zu", r->dir,
                              value.mv_size, bytes);
            break;
        }
        memcpy(&key, k.mv_data, 8);
        memcpy(row, value.mv_data, bytes);
        status = visit(key, row, arg);
    }
    if (!status && code != MDB_NOTFOUND)
        status = emb_mdb_fail(code, "cannot read on", r->dir);
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    free(row);
    return status;
}

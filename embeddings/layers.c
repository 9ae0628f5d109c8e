/* The environment of a shard.
 *
 * LMDB gives atomic commits and consistent readers that writers do not wait for; what it lacks for
 * us is added here: checksums of values, growth of the map, a bound on what the map keeps resident,
 * and the layers.
 *
 * Without sync, commits go to the page cache only: a killed process loses nothing, a machine that
 * goes down may leave the file damaged in ways LMDB cannot see. So a marker holds the boot it was
 * written under; an environment that was not closed and comes from another boot is refused, and the
 * snapshot files (which are synced) are loaded instead.
 *
 * (L1) At most one write transaction is open, of the thread that holds the lock.
 * (L2) The lookup transaction is reset whenever no lookup runs, so it pins no pages and a resize is
 *      allowed.
 * (L3) The map grows only while no view is open; until then a full map is FULL. Only the owner
 *      grows it, under the lock: another thread's transaction or view would lose its pages.
 * (L4) Between the first commit that is not synced and the sync of all, the marker tells the boot.
 */
#include "embeddings/layers_internal.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    VALUE_HEADER = 6, /* check, kind; then the lsn, where there is one */
    VALUE_LSN = 8,
    KIND_HAS_LSN = 2, /* beside the kind */
};

static uint32_t value_check(uint64_t key, const void *after_check, size_t size)
{
    return (uint32_t)(clu_hash_bytes(after_check, size) ^ clu_mix(key));
}

/* ---- reading ---- */

int emb_layers_decode(const struct emb_layers *layers, int table, uint64_t key, const MDB_val *data,
                      struct emb_stored *stored)
{
    const char *at = data->mv_data;
    uint32_t check;
    uint16_t kind;
    if (data->mv_size < VALUE_HEADER)
        goto damaged;
    memcpy(&check, at, 4);
    memcpy(&kind, at + 4, 2);
    const size_t header = VALUE_HEADER + (kind & KIND_HAS_LSN ? VALUE_LSN : 0);
    const bool is_row = (kind & ~KIND_HAS_LSN) == EMB_VALUE_ROW;
    if (data->mv_size != header + (is_row ? layers->row_bytes[table] : 0) ||
        (kind & ~KIND_HAS_LSN) > EMB_VALUE_TOMBSTONE ||
        check != value_check(key, at + 4, data->mv_size - 4))
        goto damaged;
    stored->key = key;
    stored->lsn = 0;
    if (kind & KIND_HAS_LSN)
        memcpy(&stored->lsn, at + VALUE_HEADER, VALUE_LSN);
    stored->value = is_row ? at + header : NULL;
    return CLU_OK;
damaged:
    return clu_fail(CLU_E_CORRUPT, "%s: table %d, key %llu: the stored row is damaged",
                    layers->path, table, (unsigned long long)key);
}

int emb_layers_find(struct emb_layers *layers, int table, const int *order, int n_order,
                    const uint64_t *keys, size_t n,
                    int (*found)(void *context, size_t i, const struct emb_stored *stored),
                    void *context)
{
    MDB_cursor *cursor[EMB_N_LAYERS];
    int n_cursors = 0, status = CLU_OK;
    int code = mdb_txn_renew(layers->read);
    if (code)
        return emb_layers_fail(layers, code, "cannot renew a transaction");
    for (int l = 0; l < n_order && !status; l++) {
        MDB_stat stat;
        MDB_dbi dbi = layers->dbi[table][order[l]];
        code = mdb_stat(layers->read, dbi, &stat);
        if (!code && stat.ms_entries > 0)
            code = mdb_cursor_open(layers->read, dbi, &cursor[n_cursors++]);
        if (code) {
            status = emb_layers_fail(layers, code, "cannot open a cursor");
            n_cursors -= stat.ms_entries > 0;
        }
    }
    for (size_t i = 0; i < n && !status; i++) {
        uint64_t key = keys[i];
        MDB_val k = {.mv_size = 8, .mv_data = &key}, data;
        for (int c = 0; c < n_cursors && !status; c++) {
            code = mdb_cursor_get(cursor[c], &k, &data, MDB_SET);
            if (code == MDB_NOTFOUND)
                continue;
            struct emb_stored stored;
            status = code ? emb_layers_fail(layers, code, "cannot read a row")
                          : emb_layers_decode(layers, table, key, &data, &stored);
            if (!status)
                status = found(context, i, &stored);
            break;
        }
    }
    /* a leaf in each layer, and what is above one of them */
    emb_mapped_touch(&layers->mapped, n_cursors ? n * (size_t)(n_cursors + 1) : 0);
    for (int c = 0; c < n_cursors; c++)
        mdb_cursor_close(cursor[c]);
    mdb_txn_reset(layers->read); /* (L2) */
    return status;
}

int emb_layers_get_value(struct emb_layers *layers, const char *name, void **data_p, size_t *size_p)
{
    int code = mdb_txn_renew(layers->read);
    if (code)
        return emb_layers_fail(layers, code, "cannot renew a transaction");
    MDB_val k = {.mv_size = strlen(name), .mv_data = (void *)(uintptr_t)name}, data;
    int status =
        emb_layers_fail(layers, mdb_get(layers->read, layers->values, &k, &data), "cannot read");
    uint64_t check = 0;
    if (!status && data.mv_size >= 8)
        memcpy(&check, data.mv_data, 8);
    if (!status &&
        (data.mv_size < 8 || check != clu_hash_bytes((char *)data.mv_data + 8, data.mv_size - 8)))
        status =
            clu_fail(CLU_E_CORRUPT, "%s: the stored value '%s' is damaged", layers->path, name);
    if (!status) {
        size_t size = data.mv_size - 8;
        char *copy = malloc(size + 1);
        if (copy) {
            memcpy(copy, (char *)data.mv_data + 8, size);
            *data_p = copy;
            *size_p = size;
        } else {
            status = clu_fail(CLU_E_NO_MEMORY, "no memory for the value '%s'", name);
        }
    }
    mdb_txn_reset(layers->read);
    return status;
}

/* ---- writing ---- */

static bool any_view(const struct emb_layers *layers)
{
    for (int i = 0; i < EMB_MAX_VIEWS; i++)
        if (__atomic_load_n(&layers->view_first_page[i], __ATOMIC_ACQUIRE))
            return true;
    return false;
}

static int grow(struct emb_layers *layers)
{
    MDB_envinfo info;
    mdb_env_info(layers->env, &info);
    int code =
        any_view(layers) ? MDB_MAP_FULL : mdb_env_set_mapsize(layers->env, info.me_mapsize * 2);
    if (code)
        return emb_layers_fail(layers, code, "cannot grow the map");
    emb_mapped_moved(&layers->mapped);
    clu_debug("%s: map grown to %zu MiB", layers->path, (info.me_mapsize * 2) >> 20);
    return CLU_OK;
}

int emb_layers_grow(struct emb_layers *layers)
{
    pthread_mutex_lock(&layers->lock);
    int status = layers->too_small ? grow(layers) : CLU_E_FULL;
    layers->too_small = false;
    pthread_mutex_unlock(&layers->lock);
    return status;
}

static void end_write(struct emb_layers *layers)
{
    layers->write = NULL;
    layers->tail = NULL;
    pthread_mutex_unlock(&layers->lock);
}

/* Ends the transaction after a failed call; a full map is grown where that is possible (L3). */
static int write_failed(struct emb_layers *layers, int code, const char *action)
{
    int status;
    if (layers->write)
        mdb_txn_abort(layers->write);
    layers->too_small = layers->beside && code == MDB_MAP_FULL;
    if (layers->too_small)
        status = CLU_E_FULL;
    else if (code != MDB_MAP_FULL || any_view(layers))
        status = emb_layers_fail(layers, code, action);
    else
        status = grow(layers);
    end_write(layers);
    return status ? status : CLU_E_AGAIN;
}

int emb_layers_begin(struct emb_layers *layers)
{
    pthread_mutex_lock(&layers->lock);
    assert(!layers->write); /* (L1) */
    int code = mdb_txn_begin(layers->env, NULL, 0, &layers->write);
    if (!code)
        return CLU_OK;
    layers->write = NULL;
    return write_failed(layers, code, "cannot begin a transaction");
}

void emb_layers_beside_begin(struct emb_layers *layers)
{
    pthread_mutex_lock(&layers->lock);
    layers->beside = true;
}

void emb_layers_beside_end(struct emb_layers *layers)
{
    layers->beside = false;
    pthread_mutex_unlock(&layers->lock);
}

/* The cursor that appends to a layer; it lasts as long as the transaction. */
static int tail_cursor(struct emb_layers *layers, MDB_dbi dbi)
{
    if (layers->tail && mdb_cursor_dbi(layers->tail) == dbi)
        return 0;
    if (layers->tail)
        mdb_cursor_close(layers->tail);
    layers->tail = NULL;
    return mdb_cursor_open(layers->write, dbi, &layers->tail);
}

static void encode(char *at, const struct emb_stored *stored, size_t row_bytes)
{
    uint16_t kind = stored->value ? EMB_VALUE_ROW : EMB_VALUE_TOMBSTONE;
    size_t size = VALUE_HEADER;
    if (stored->lsn) {
        kind |= KIND_HAS_LSN;
        memcpy(at + size, &stored->lsn, VALUE_LSN);
        size += VALUE_LSN;
    }
    memcpy(at + 4, &kind, 2);
    if (stored->value)
        memcpy(at + size, stored->value, row_bytes);
    size += stored->value ? row_bytes : 0;
    uint32_t check = value_check(stored->key, at + 4, size - 4);
    memcpy(at, &check, 4);
}

/* The value is written where LMDB keeps it. */
static int put(struct emb_layers *layers, int table, int layer, const struct emb_stored *stored,
               unsigned flags)
{
    uint64_t key = stored->key;
    const MDB_dbi dbi = layers->dbi[table][layer];
    MDB_val k = {.mv_size = 8, .mv_data = &key};
    MDB_val data = {.mv_size = VALUE_HEADER + (stored->lsn ? VALUE_LSN : 0) +
                               (stored->value ? layers->row_bytes[table] : 0)};
    int code = flags & MDB_APPEND ? tail_cursor(layers, dbi) : 0;
    if (!code && (flags & MDB_APPEND))
        code = mdb_cursor_put(layers->tail, &k, &data, flags | MDB_RESERVE);
    else if (!code)
        code = mdb_put(layers->write, dbi, &k, &data, flags | MDB_RESERVE);
    if (code == MDB_KEYEXIST && (flags & MDB_NOOVERWRITE))
        return CLU_OK;
    if (code)
        return write_failed(layers, code, "cannot write a row");
    __atomic_fetch_add(&layers->written_bytes, data.mv_size + 8, __ATOMIC_RELAXED);
    emb_mapped_touch(&layers->mapped, 1); /* the page it goes to is read from the map first */
    encode(data.mv_data, stored, layers->row_bytes[table]);
    return CLU_OK;
}

int emb_layers_put(struct emb_layers *layers, int table, int layer, const struct emb_stored *stored)
{
    return put(layers, table, layer, stored, 0);
}

int emb_layers_put_absent(struct emb_layers *layers, int table, int layer,
                          const struct emb_stored *stored)
{
    return put(layers, table, layer, stored, MDB_NOOVERWRITE);
}

int emb_layers_append(struct emb_layers *layers, int table, int layer,
                      const struct emb_stored *stored)
{
    return put(layers, table, layer, stored, MDB_APPEND);
}

int emb_layers_delete(struct emb_layers *layers, int table, int layer, uint64_t key)
{
    MDB_val k = {.mv_size = 8, .mv_data = &key};
    int code = mdb_del(layers->write, layers->dbi[table][layer], &k, NULL);
    return code && code != MDB_NOTFOUND ? write_failed(layers, code, "cannot delete a row")
                                        : CLU_OK;
}

int emb_layers_clear(struct emb_layers *layers, int table, int layer)
{
    int code = mdb_drop(layers->write, layers->dbi[table][layer], 0);
    return code ? write_failed(layers, code, "cannot empty a layer") : CLU_OK;
}

int emb_layers_put_value(struct emb_layers *layers, const char *name, const void *data,
                         size_t size_bytes)
{
    MDB_val k = {.mv_size = strlen(name), .mv_data = (void *)(uintptr_t)name};
    MDB_val value = {.mv_size = 8 + size_bytes, .mv_data = NULL};
    int code = mdb_put(layers->write, layers->values, &k, &value, MDB_RESERVE);
    if (code)
        return write_failed(layers, code, "cannot write a value");
    uint64_t check = clu_hash_bytes(data, size_bytes);
    memcpy(value.mv_data, &check, 8);
    if (size_bytes)
        memcpy((char *)value.mv_data + 8, data, size_bytes);
    return CLU_OK;
}

int emb_layers_commit(struct emb_layers *layers)
{
    int code = mdb_txn_commit(layers->write);
    layers->write = NULL; /* LMDB freed it whatever the outcome, */
    layers->tail = NULL;  /* and its cursors */
    if (code)
        return write_failed(layers, code, "cannot commit");
    end_write(layers);
    return CLU_OK;
}

void emb_layers_abort(struct emb_layers *layers)
{
    if (!layers->write)
        return;
    mdb_txn_abort(layers->write);
    end_write(layers);
}

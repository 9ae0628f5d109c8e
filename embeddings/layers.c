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
#include "embeddings/layers.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/mapped.h"
#include "embeddings/mdb.h"

#include <assert.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VALUE_HEADER = 6, /* check, kind; then the lsn, where there is one */
    VALUE_LSN = 8,
    KIND_HAS_LSN = 2, /* beside the kind */
    MAX_VIEWS = 8,
    RUN_BYTES = 64 << 10, /* a walk tells how much it has read whenever it is this much */
};
static const uint64_t default_map_bytes = (uint64_t)64 << 30;
static const uint64_t smallest_map_bytes = (uint64_t)1 << 20;

struct emb_layers {
    char *path; /* of the folder */
    MDB_env *env;
    MDB_dbi dbi[EMB_MAX_TABLES][EMB_N_LAYERS];
    MDB_dbi values;
    size_t row_bytes[EMB_MAX_TABLES];
    int n_tables;
    bool sync, grown /* the open transaction met a full map, and it has been grown */;
    MDB_txn *write, *read;  /* read: reset but for the time of a lookup (L2) */
    MDB_cursor *tail;       /* of write, or NULL */
    pthread_mutex_t lock;   /* of `write`, `tail` and the map's size; recursive */
    bool beside, too_small; /* under the lock: not the owner has it; it met a full map */
    uint64_t written_bytes; /* atomic */
    struct emb_mapped mapped;
    size_t view_first_page[MAX_VIEWS]; /* last page of the file when view i was opened; 0: free */
};

struct emb_layers_view {
    struct emb_layers *layers;
    MDB_txn *txn;
    int place;
};

static uint32_t value_check(uint64_t key, const void *after_check, size_t size)
{
    return (uint32_t)(clu_hash_bytes(after_check, size) ^ clu_mix(key));
}

static int fail(const struct emb_layers *layers, int code, const char *action)
{
    return emb_mdb_fail(code, action, layers->path);
}

/* ---- the marker ---- */

static void read_boot_id(char *id, size_t id_bytes)
{
    snprintf(id, id_bytes, "unknown");
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file)
        return;
    if (fgets(id, (int)id_bytes, file))
        id[strcspn(id, "\n")] = 0;
    fclose(file);
}

/* state: "open", "clean", or "loading": open, and not synced whatever the durability. */
static int write_marker(const struct emb_layers *layers, const char *state)
{
    char path[4096], id[64], text[128];
    int status = clu_path_join(path, sizeof(path), layers->path, "boot");
    if (status)
        return status;
    read_boot_id(id, sizeof(id));
    int size = snprintf(text, sizeof(text), "%s %s\n", state, id);
    return clu_file_write_atomic(path, text, (size_t)size);
}

/* CORRUPT when the environment was left open under another boot without sync (L4). */
static int check_marker(const struct emb_layers *layers)
{
    char path[4096], id[64], *text;
    int status = clu_path_join(path, sizeof(path), layers->path, "boot");
    if (status || !clu_path_exists(path))
        return status;
    size_t size;
    status = clu_file_read_all(path, 4096, &text, &size);
    if (status)
        return status;
    read_boot_id(id, sizeof(id));
    const bool was_open = strncmp(text, "open ", 5) == 0 && !layers->sync;
    const bool was_loading = strncmp(text, "loading ", 8) == 0;
    const char *boot = was_open ? text + 5 : text + 8;
    const bool sound = (!was_open && !was_loading) || strncmp(boot, id, strlen(id)) == 0;
    free(text);
    if (sound)
        return CLU_OK;
    return clu_fail(CLU_E_CORRUPT,
                    "%s: the machine went down while it was written; remove it and load the last "
                    "snapshot",
                    layers->path);
}

/* ---- opening ---- */

static int open_databases(struct emb_layers *layers, const struct emb_table_spec *tables)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(layers->env, NULL, 0, &txn);
    if (code)
        return fail(layers, code, "cannot begin a transaction");
    code = mdb_dbi_open(txn, "values", MDB_CREATE, &layers->values);
    for (int t = 0; t < layers->n_tables && !code; t++)
        for (int l = 0; l < EMB_N_LAYERS && !code; l++) {
            char name[EMB_NAME_BYTES + 16];
            snprintf(name, sizeof(name), "t:%s/%c", tables[t].name, '0' + l);
            code = mdb_dbi_open(txn, name, MDB_CREATE | MDB_INTEGERKEY, &layers->dbi[t][l]);
        }
    if (code) {
        mdb_txn_abort(txn);
        return fail(layers, code, "cannot open the databases");
    }
    return fail(layers, mdb_txn_commit(txn), "cannot commit");
}

static int open_environment(struct emb_layers *layers, uint64_t map_bytes)
{
    int code = mdb_env_create(&layers->env);
    if (code)
        return fail(layers, code, "cannot create an environment");
    if (map_bytes == 0)
        map_bytes = default_map_bytes;
    if (map_bytes < smallest_map_bytes)
        map_bytes = smallest_map_bytes;
    mdb_env_set_maxdbs(layers->env, EMB_MAX_TABLES * EMB_N_LAYERS + 1);
    mdb_env_set_maxreaders(layers->env, 16 + MAX_VIEWS);
    mdb_env_set_mapsize(layers->env, map_bytes & ~(uint64_t)4095);
    unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMEMINIT;
    if (!layers->sync)
        flags |= MDB_NOSYNC | MDB_NOMETASYNC;
    code = mdb_env_open(layers->env, layers->path, flags, 0644);
    if (code)
        return fail(layers, code, "cannot open the environment");
    int dead = 0;
    code = mdb_reader_check(layers->env, &dead);
    if (!code && dead > 0)
        clu_info("%s: cleared %d readers of processes that are gone", layers->path, dead);
    return fail(layers, code, "cannot check its readers");
}

int emb_layers_open(const struct emb_layers_options *options, const struct emb_table_spec *tables,
                    int n_tables, struct emb_layers **layers_p)
{
    struct emb_layers *layers = calloc(1, sizeof(*layers));
    if (!layers)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for an environment");
    emb_mapped_init(&layers->mapped);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&layers->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    layers->sync = options->sync;
    layers->n_tables = n_tables;
    layers->path = strdup(options->dir);
    for (int t = 0; t < n_tables; t++)
        layers->row_bytes[t] = options->row_bytes[t];
    int status = !layers->path ? clu_fail(CLU_E_NO_MEMORY, "no memory for an environment")
                               : clu_mkdirs(layers->path);
    if (!status)
        status = check_marker(layers);
    if (!status)
        status = open_environment(layers, options->map_bytes);
    if (!status)
        status = open_databases(layers, tables);
    if (!status)
        status = write_marker(layers, "open");
    if (!status) {
        int code = mdb_txn_begin(layers->env, NULL, MDB_RDONLY, &layers->read);
        status = fail(layers, code, "cannot begin a transaction");
        if (!status)
            mdb_txn_reset(layers->read);
    }
    if (status) {
        emb_layers_close(layers);
        return status;
    }
    *layers_p = layers;
    return CLU_OK;
}

void emb_layers_close(struct emb_layers *layers)
{
    if (!layers)
        return;
    emb_layers_abort(layers);
    if (layers->read) {
        mdb_txn_abort(layers->read);
        if (mdb_env_sync(layers->env, 1) == 0)
            (void)write_marker(layers, "clean");
    }
    emb_mapped_fini(&layers->mapped);
    if (layers->env)
        mdb_env_close(layers->env);
    pthread_mutex_destroy(&layers->lock);
    free(layers->path);
    free(layers);
}

/* ---- reading ---- */

/* Checks a stored value and takes it apart. */
static int decode(const struct emb_layers *layers, int table, uint64_t key, const MDB_val *data,
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
        return fail(layers, code, "cannot renew a transaction");
    for (int l = 0; l < n_order && !status; l++) {
        MDB_stat stat;
        MDB_dbi dbi = layers->dbi[table][order[l]];
        code = mdb_stat(layers->read, dbi, &stat);
        if (!code && stat.ms_entries > 0)
            code = mdb_cursor_open(layers->read, dbi, &cursor[n_cursors++]);
        if (code) {
            status = fail(layers, code, "cannot open a cursor");
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
            status = code ? fail(layers, code, "cannot read a row")
                          : decode(layers, table, key, &data, &stored);
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
        return fail(layers, code, "cannot renew a transaction");
    MDB_val k = {.mv_size = strlen(name), .mv_data = (void *)(uintptr_t)name}, data;
    int status = fail(layers, mdb_get(layers->read, layers->values, &k, &data), "cannot read");
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
    for (int i = 0; i < MAX_VIEWS; i++)
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
        return fail(layers, code, "cannot grow the map");
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
        status = fail(layers, code, action);
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

int emb_layers_defer_sync(struct emb_layers *layers, bool defer)
{
    if (!layers->sync)
        return CLU_OK;
    const unsigned flags = MDB_NOSYNC | MDB_NOMETASYNC;
    int code = defer ? 0 : mdb_env_sync(layers->env, 1);
    int status = fail(layers, code, "cannot sync");
    if (!status && defer) /* before the first page that may not reach the disk (L4) */
        status = write_marker(layers, "loading");
    if (!status)
        status = fail(layers, mdb_env_set_flags(layers->env, flags, defer), "cannot set its flags");
    if (!status && !defer)
        status = write_marker(layers, "open");
    return status;
}

/* ---- views ---- */

static size_t last_page(const struct emb_layers *layers)
{
    MDB_envinfo info;
    mdb_env_info(layers->env, &info);
    return info.me_last_pgno + 1;
}

int emb_layers_view_open(struct emb_layers *layers, struct emb_layers_view **view_p)
{
    int place = 0;
    for (size_t free_place = 0; place < MAX_VIEWS; place++, free_place = 0)
        if (__atomic_compare_exchange_n(&layers->view_first_page[place], &free_place, 1, false,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            break;
    if (place == MAX_VIEWS)
        return clu_fail(CLU_E_AGAIN, "%s: %d views are open already", layers->path, MAX_VIEWS);
    struct emb_layers_view *view = malloc(sizeof(*view));
    int code = view ? mdb_txn_begin(layers->env, NULL, MDB_RDONLY, &view->txn) : 0;
    if (!view || code) {
        __atomic_store_n(&layers->view_first_page[place], 0, __ATOMIC_RELEASE);
        free(view);
        return view ? fail(layers, code, "cannot begin a transaction")
                    : clu_fail(CLU_E_NO_MEMORY, "no memory for a view");
    }
    view->layers = layers;
    view->place = place;
    __atomic_store_n(&layers->view_first_page[place], last_page(layers), __ATOMIC_RELEASE);
    *view_p = view;
    return CLU_OK;
}

void emb_layers_view_close(struct emb_layers_view *view)
{
    if (!view)
        return;
    mdb_txn_abort(view->txn);
    __atomic_store_n(&view->layers->view_first_page[view->place], 0, __ATOMIC_RELEASE);
    free(view);
}

struct head { /* where one layer's cursor of a walk stands */
    MDB_cursor *cursor;
    bool at_end;
    uint64_t key;
    MDB_val data;
};

static int advance(struct head *head, MDB_cursor_op op, uint64_t from)
{
    MDB_val k = {.mv_size = 8, .mv_data = &from};
    int code = mdb_cursor_get(head->cursor, &k, &head->data, op);
    head->at_end = code == MDB_NOTFOUND;
    if (code == MDB_NOTFOUND)
        return 0;
    if (!code)
        memcpy(&head->key, k.mv_data, 8);
    return code;
}

/* The smallest key of all heads is visited once, with the newest layer's value. */
static int walk_heads(struct emb_layers *layers, int table, struct head *heads, int n_heads,
                      int (*visit)(void *, const struct emb_stored *), void *context)
{
    for (size_t read = 0;;) {
        int first = -1, code = 0;
        if (read >= RUN_BYTES) {
            emb_mapped_touch_run(&layers->mapped, read);
            read = 0;
        }
        for (int i = 0; i < n_heads; i++)
            if (!heads[i].at_end && (first < 0 || heads[i].key < heads[first].key))
                first = i;
        if (first < 0)
            return CLU_OK;
        struct emb_stored stored;
        uint64_t key = heads[first].key;
        int status = decode(layers, table, key, &heads[first].data, &stored);
        if (!status)
            status = visit(context, &stored);
        if (status)
            return status;
        for (int i = first; i < n_heads && !code; i++)
            if (!heads[i].at_end && heads[i].key == key) {
                read += 2 * heads[i].data.mv_size; /* pages may be half empty */
                code = advance(&heads[i], MDB_NEXT, 0);
            }
        if (code)
            return fail(layers, code, "cannot read on");
    }
}

int emb_layers_walk(struct emb_layers_view *view, int table, const int *order, int n_order,
                    uint64_t from, int (*visit)(void *context, const struct emb_stored *stored),
                    void *context)
{
    struct emb_layers *layers = view->layers;
    struct head heads[EMB_N_LAYERS];
    int n_heads = 0, code = 0;
    for (; n_heads < n_order && !code; n_heads++) {
        code =
            mdb_cursor_open(view->txn, layers->dbi[table][order[n_heads]], &heads[n_heads].cursor);
        if (code)
            break;
        code = advance(&heads[n_heads], MDB_SET_RANGE, from);
    }
    int status = code ? fail(layers, code, "cannot open a cursor")
                      : walk_heads(layers, table, heads, n_heads, visit, context);
    for (int i = 0; i < n_heads; i++)
        mdb_cursor_close(heads[i].cursor);
    return status;
}

/* ---- figures ---- */

int emb_layers_count(struct emb_layers *layers, int table, int layer, uint64_t *n_p)
{
    MDB_stat stat;
    int code = mdb_txn_renew(layers->read);
    if (code)
        return fail(layers, code, "cannot renew a transaction");
    code = mdb_stat(layers->read, layers->dbi[table][layer], &stat);
    mdb_txn_reset(layers->read);
    if (!code)
        *n_p = stat.ms_entries;
    return fail(layers, code, "cannot count rows");
}

void emb_layers_stats(const struct emb_layers *layers, struct emb_layers_stats *stats_p)
{
    MDB_envinfo info;
    mdb_env_info(layers->env, &info);
    stats_p->map_bytes = info.me_mapsize;
    stats_p->file_bytes = (info.me_last_pgno + 1) * 4096;
    stats_p->written_bytes = __atomic_load_n(&layers->written_bytes, __ATOMIC_RELAXED);
    stats_p->pages_held = 0;
    for (int i = 0; i < MAX_VIEWS; i++) {
        size_t first = __atomic_load_n(&layers->view_first_page[i], __ATOMIC_ACQUIRE);
        if (first && info.me_last_pgno + 1 - first > stats_p->pages_held)
            stats_p->pages_held = info.me_last_pgno + 1 - first;
    }
}

void emb_layers_trim(struct emb_layers *layers)
{
    emb_mapped_trim(&layers->mapped, layers->env, last_page(layers) * 4096);
}

uint64_t emb_layers_touched(const struct emb_layers *layers)
{
    return emb_mapped_touched(&layers->mapped);
}

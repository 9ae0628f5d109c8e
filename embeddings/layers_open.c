/* Opening and closing an environment, and the marker of (L4): whether the file can be trusted. */
#include "embeddings/layers_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t default_map_bytes = (uint64_t)64 << 30;
static const uint64_t smallest_map_bytes = (uint64_t)1 << 20;

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
        return emb_layers_fail(layers, code, "cannot begin a transaction");
    code = mdb_dbi_open(txn, "values", MDB_CREATE, &layers->values);
    for (int t = 0; t < layers->n_tables && !code; t++)
        for (int l = 0; l < EMB_N_LAYERS && !code; l++) {
            char name[EMB_NAME_BYTES + 16];
            snprintf(name, sizeof(name), "t:%s/%c", tables[t].name, '0' + l);
            code = mdb_dbi_open(txn, name, MDB_CREATE | MDB_INTEGERKEY, &layers->dbi[t][l]);
        }
    if (code) {
        mdb_txn_abort(txn);
        return emb_layers_fail(layers, code, "cannot open the databases");
    }
    return emb_layers_fail(layers, mdb_txn_commit(txn), "cannot commit");
}

static int open_environment(struct emb_layers *layers, uint64_t map_bytes)
{
    int code = mdb_env_create(&layers->env);
    if (code)
        return emb_layers_fail(layers, code, "cannot create an environment");
    if (map_bytes == 0)
        map_bytes = default_map_bytes;
    if (map_bytes < smallest_map_bytes)
        map_bytes = smallest_map_bytes;
    mdb_env_set_maxdbs(layers->env, EMB_MAX_TABLES * EMB_N_LAYERS + 1);
    mdb_env_set_maxreaders(layers->env, 16 + EMB_MAX_VIEWS);
    mdb_env_set_mapsize(layers->env, map_bytes & ~(uint64_t)4095);
    unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMEMINIT;
    if (!layers->sync)
        flags |= MDB_NOSYNC | MDB_NOMETASYNC;
    code = mdb_env_open(layers->env, layers->path, flags, 0644);
    if (code)
        return emb_layers_fail(layers, code, "cannot open the environment");
    int dead = 0;
    code = mdb_reader_check(layers->env, &dead);
    if (!code && dead > 0)
        clu_info("%s: cleared %d readers of processes that are gone", layers->path, dead);
    return emb_layers_fail(layers, code, "cannot check its readers");
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
        status = emb_layers_fail(layers, code, "cannot begin a transaction");
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

int emb_layers_defer_sync(struct emb_layers *layers, bool defer)
{
    if (!layers->sync)
        return CLU_OK;
    const unsigned flags = MDB_NOSYNC | MDB_NOMETASYNC;
    int code = defer ? 0 : mdb_env_sync(layers->env, 1);
    int status = emb_layers_fail(layers, code, "cannot sync");
    if (!status && defer) /* before the first page that may not reach the disk (L4) */
        status = write_marker(layers, "loading");
    if (!status)
        status = emb_layers_fail(layers, mdb_env_set_flags(layers->env, flags, defer),
                                 "cannot set its flags");
    if (!status && !defer)
        status = write_marker(layers, "open");
    return status;
}

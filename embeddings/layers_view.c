/* Views: consistent readers that writers do not wait for; what they hold, and what there is. */
#include "embeddings/layers_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

enum { RUN_BYTES = 64 << 10 /* a walk tells how much it has read whenever it is this much */ };

struct emb_layers_view {
    struct emb_layers *layers;
    MDB_txn *txn;
    int place;
};

static size_t last_page(const struct emb_layers *layers)
{
    MDB_envinfo info;
    mdb_env_info(layers->env, &info);
    return info.me_last_pgno + 1;
}

int emb_layers_view_open(struct emb_layers *layers, struct emb_layers_view **view_p)
{
    int place = 0;
    for (size_t free_place = 0; place < EMB_MAX_VIEWS; place++, free_place = 0)
        if (__atomic_compare_exchange_n(&layers->view_first_page[place], &free_place, 1, false,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            break;
    if (place == EMB_MAX_VIEWS)
        return clu_fail(CLU_E_AGAIN, "%s: %d views are open already", layers->path, EMB_MAX_VIEWS);
    struct emb_layers_view *view = malloc(sizeof(*view));
    int code = view ? mdb_txn_begin(layers->env, NULL, MDB_RDONLY, &view->txn) : 0;
    if (!view || code) {
        __atomic_store_n(&layers->view_first_page[place], 0, __ATOMIC_RELEASE);
        int status = code ? emb_layers_fail(layers, code, "cannot begin a transaction")
                          : clu_fail(CLU_E_NO_MEMORY, "no memory for a view");
        free(view);
        return status;
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
        int status = emb_layers_decode(layers, table, key, &heads[first].data, &stored);
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
            return emb_layers_fail(layers, code, "cannot read on");
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
    int status = code ? emb_layers_fail(layers, code, "cannot open a cursor")
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
        return emb_layers_fail(layers, code, "cannot renew a transaction");
    code = mdb_stat(layers->read, layers->dbi[table][layer], &stat);
    mdb_txn_reset(layers->read);
    if (!code)
        *n_p = stat.ms_entries;
    return emb_layers_fail(layers, code, "cannot count rows");
}

void emb_layers_stats(const struct emb_layers *layers, struct emb_layers_stats *stats_p)
{
    MDB_envinfo info;
    mdb_env_info(layers->env, &info);
    stats_p->map_bytes = info.me_mapsize;
    stats_p->file_bytes = (info.me_last_pgno + 1) * 4096;
    stats_p->written_bytes = __atomic_load_n(&layers->written_bytes, __ATOMIC_RELAXED);
    stats_p->pages_held = 0;
    for (int i = 0; i < EMB_MAX_VIEWS; i++) {
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

/* Copying one layer into another, a slice at a time: the fold before a seal, and the merge of a
 * confirmed snapshot's layer into the base.
 *
 * The merge is given to the scribe in pieces. Who must write to the layers waits for the one under
 * way, so a piece is small.
 */
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    COPY_ROWS = 4096,  /* at one go, at most */
    MERGE_ROWS = 1024, /* the same, by the scribe */
};

struct copied {
    size_t n, value_bytes;
    struct emb_stored *items; /* [limit] */
    char *values;             /* [limit, value_bytes] */
    size_t limit;
};

static int copy_out(void *context, const struct emb_stored *stored)
{
    struct copied *c = context;
    if (c->n == c->limit)
        return CLU_E_AGAIN;
    struct emb_stored *item = &c->items[c->n];
    *item = *stored;
    if (stored->value) {
        item->value = c->values + c->n * c->value_bytes;
        memcpy(c->values + c->n * c->value_bytes, stored->value, c->value_bytes);
    }
    c->n++;
    return CLU_OK;
}

/* merge: rows overwrite, tombstones delete. fold: only keys that `to` does not have, tombstones
 * included. */
static int copy_in(struct emb_shard *shard, int t, int to, bool merge, const struct copied *c)
{
    int status;
    do {
        status = emb_layers_begin(shard->layers);
        for (size_t i = 0; i < c->n && !status; i++) {
            if (!merge)
                status = emb_layers_put_absent(shard->layers, t, to, &c->items[i]);
            else if (c->items[i].value)
                status = emb_layers_put(shard->layers, t, to, &c->items[i]);
            else
                status = emb_layers_delete(shard->layers, t, to, c->items[i].key);
        }
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    return status;
}

int emb_copy_slice(struct emb_shard *shard, int from, int to, bool merge, size_t limit,
                   int *table_p, uint64_t *key_p)
{
    if (*table_p >= shard->n_tables)
        return CLU_OK;
    const struct emb_table *table = &shard->table[*table_p];
    struct copied c = {.value_bytes = table->value_bytes,
                       .limit = limit < COPY_ROWS ? limit : COPY_ROWS};
    c.items = malloc(c.limit * sizeof(*c.items));
    c.values = malloc(c.limit * table->value_bytes);
    struct emb_layers_view *view = NULL;
    int status =
        c.items && c.values ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory to merge layers");
    if (!status)
        status = emb_layers_view_open(shard->layers, &view);
    if (!status)
        status = emb_layers_walk(view, *table_p, &from, 1, *key_p, copy_out, &c);
    emb_layers_view_close(view);
    bool more = status == CLU_E_AGAIN;
    if ((!status || more) && c.n)
        status = copy_in(shard, *table_p, to, merge, &c);
    if (!status) {
        if (more && c.items[c.n - 1].key < UINT64_MAX) {
            *key_p = c.items[c.n - 1].key + 1;
        } else {
            ++*table_p;
            *key_p = 0;
        }
        status = *table_p < shard->n_tables ? CLU_E_AGAIN : CLU_OK;
    }
    free(c.items);
    free(c.values);
    return status;
}

/* ---- the merge ---- */

int emb_merge_end(struct emb_shard *shard, bool swap)
{
    struct emb_roles roles = shard->roles;
    struct emb_info info;
    int status = emb_info_get(shard, "info.sealed", &info);
    if (status)
        return status;
    int empty = swap ? (int)roles.base : (int)roles.sealed;
    if (swap)
        roles.base = roles.sealed;
    roles.base_step = roles.sealed_step;
    roles.sealed = EMB_N_LAYERS;
    roles.sealed_step = 0;
    roles.merging = 0;
    do {
        status = emb_layers_begin(shard->layers);
        for (int t = 0; t < shard->n_tables && !status; t++)
            status = emb_layers_clear(shard->layers, t, empty);
        if (!status)
            status = emb_roles_put(shard, &roles);
        if (!status)
            status = emb_info_put(shard, "info.base", &info);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    emb_info_fini(&info);
    if (!status) {
        shard->roles = roles;
        shard->merge_running = false;
    }
    return status;
}

static int merge_piece(void *context)
{
    struct emb_shard *shard = context;
    emb_layers_beside_begin(shard->layers);
    int status = emb_copy_slice(shard, shard->merge_from, shard->merge_to, true, MERGE_ROWS,
                                &shard->merge_table, &shard->merge_key);
    emb_layers_beside_end(shard->layers);
    return status;
}

int emb_merge_settle(struct emb_shard *shard)
{
    if (!shard->merge_given)
        return CLU_E_AGAIN;
    shard->merge_given = false;
    int status = emb_scribe_take(shard->scribe);
    return status == CLU_E_FULL && emb_layers_grow(shard->layers) == CLU_OK ? CLU_E_AGAIN : status;
}

int emb_merge_advance(struct emb_shard *shard, bool wait)
{
    if (!shard->merge_running)
        return CLU_OK;
    if (shard->merge_given && !wait && emb_scribe_is_busy(shard->scribe))
        return CLU_E_AGAIN;
    int status = emb_merge_settle(shard);
    while (wait && status == CLU_E_AGAIN)
        status = emb_copy_slice(shard, (int)shard->roles.sealed, (int)shard->roles.base, true,
                                COPY_ROWS, &shard->merge_table, &shard->merge_key);
    if (status != CLU_E_AGAIN)
        return status ? status : emb_merge_end(shard, false);
    shard->merge_given = true;
    shard->merge_done += MERGE_ROWS;
    shard->merge_left -= shard->merge_left < MERGE_ROWS ? shard->merge_left : MERGE_ROWS;
    shard->merge_from = (int)shard->roles.sealed;
    shard->merge_to = (int)shard->roles.base;
    emb_scribe_give(shard->scribe, merge_piece, shard);
    return CLU_E_AGAIN;
}

int emb_merge_begin(struct emb_shard *shard)
{
    struct emb_roles roles = shard->roles;
    roles.merging = 1;
    shard->merge_done = shard->merge_left = 0;
    for (int t = 0; t < shard->n_tables; t++) {
        uint64_t n = 0;
        int counted = emb_layers_count(shard->layers, t, (int)roles.sealed, &n);
        if (counted)
            return counted;
        shard->merge_left += n;
    }
    int status = emb_layers_reset(shard, NULL, 0, &roles, NULL);
    if (status)
        return status;
    shard->merge_running = true;
    shard->merge_pace.began_us = emb_now_us();
    shard->merge_table = 0;
    shard->merge_key = 0;
    return CLU_OK;
}

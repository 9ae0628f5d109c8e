/* Going back to a snapshot that the environment still holds: the last confirmed one, or a later
 * finished one. Later layers are dropped, and of the rows in memory those that changed since are
 * forgotten, to be read again by and by (shard_load.c). So it costs what changed, not the table.
 */
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <stdlib.h>

static void note_gone(struct emb_gone *gone, uint64_t key)
{
    if (gone->all && gone->n == gone->capacity) {
        size_t capacity = gone->capacity ? 2 * gone->capacity : 1024;
        uint64_t *keys = realloc(gone->keys, capacity * sizeof(*keys));
        gone->all = keys != NULL; /* without memory they come when they are asked for */
        if (keys) {
            gone->keys = keys;
            gone->capacity = capacity;
        }
    }
    if (gone->all)
        gone->keys[gone->n++] = key;
}

/* Forgets the rows in memory that are not those of the state with this clock: what is not in a
 * layer, and, where layers were dropped that held rows, what changed later (else a row that is as
 * the layers hold it (I2) did not). gone [n_tables], zeroed. */
static void forget_later(struct emb_shard *shard, uint64_t clock, bool dropped,
                         struct emb_gone *gone)
{
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table *table = &shard->table[t];
        gone[t] = shard->gone[t]; /* of a roll-back before, not read again yet */
        shard->gone[t] = (struct emb_gone){0};
        gone[t].all |= !table->on_disk_only;
        for (uint32_t slot = 0; slot < table->store.n_slots; slot++) {
            uint8_t flags = *emb_store_flags(&table->store, slot);
            if (!(flags & EMB_SLOT_LIVE))
                continue;
            bool later =
                (flags & (EMB_SLOT_DIRTY | EMB_SLOT_SEALING | EMB_SLOT_TOMBSTONE)) ||
                (dropped && emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_STEP) > clock);
            if (!later && !shard->rows_put)
                continue;
            note_gone(&gone[t], emb_store_key(&table->store, slot));
            emb_store_remove(&table->store, slot);
        }
        table->n_tombstones = table->n_dirty = 0;
        table->on_disk_only = true;
    }
}

/* Whether any of the layers holds anything. */
static int hold_rows(struct emb_shard *shard, const int *layers, int n_layers, bool *rows_p)
{
    uint64_t n = 0;
    int status = CLU_OK;
    for (int t = 0; t < shard->n_tables && !status && n == 0; t++)
        for (int l = 0; l < n_layers && !status && n == 0; l++)
            status = emb_layers_count(shard->layers, t, layers[l], &n);
    *rows_p = n > 0;
    return status;
}

int emb_shard_rollback(struct emb_shard *shard, uint64_t step)
{
    emb_leave_free(shard);
    emb_shard_snapshot_abort(shard);
    if (shard->flush.kind != EMB_FLUSH_NONE)
        emb_flush_abort(shard);
    struct emb_roles roles = shard->roles;
    int layers[2] = {(int)roles.current, emb_layer_spare(&roles)}, n_layers = 1;
    const char *role = "info.sealed";
    if (roles.sealed == EMB_N_LAYERS || roles.sealed_step != step) {
        if (roles.base_step != step || roles.merging)
            return CLU_E_NOT_FOUND;
        role = "info.base";
        roles.sealed = EMB_N_LAYERS;
        roles.sealed_step = 0;
        n_layers = 2;
    }
    struct emb_info info = {0};
    struct emb_gone gone[EMB_MAX_TABLES] = {0};
    bool dropped = true;
    int status = emb_info_get(shard, role, &info);
    if (status == CLU_E_NOT_FOUND)
        status = CLU_OK; /* the state before training */
    if (!status)
        status = hold_rows(shard, layers, n_layers, &dropped);
    if (status) {
        emb_info_fini(&info);
        return status;
    }
    if (shard->log)
        emb_pushlog_drop(shard->log);
    info.lsn = shard->durable_lsn; /* what the log holds is void */
    status = emb_layers_reset(shard, layers, n_layers, &roles, &info);
    if (!status)
        forget_later(shard, info.clock, dropped, gone);
    if (!status)
        status = emb_info_adopt(shard, &info);
    emb_info_fini(&info);
    if (!status && shard->log) {
        status = emb_pushlog_rotate(shard->log);
        if (!status)
            status = emb_pushlog_cut(shard->log, shard->durable_lsn);
    }
    shard->rows_put = false;
    if (!status)
        emb_warm_again(shard, gone);
    for (int t = 0; t < shard->n_tables; t++)
        free(gone[t].keys);
    return status;
}

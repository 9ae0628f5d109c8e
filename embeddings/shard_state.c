/* What a shard remembers beside its rows, and how it finds its feet at open.
 *
 * Values in LMDB:
 *     roles         struct emb_roles: which layer is which (I5)
 *     specs         the tables, to refuse a job file that no longer fits
 *     info.base     marks, clock, row counts and waiting keys of the base layer's state
 *     info.sealed   the same of the sealed layer's
 *     info.current  the same of the last checkpoint (log) or seal
 *     stored        rows in all layers together, a table each (I7)
 *
 * Opening, durability snapshot: the current layer is emptied; what remains is the sealed state, or
 * the base. Durability log: current layer, info.current, then every group of the log beyond its
 * lsn; rows that were written back after that checkpoint carry a later lsn, and groups up to it are
 * not applied to them again. Such rows are in no info's count, so the rows are those of "stored".
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- marks ---- */

static size_t mark_place(const struct emb_marks *marks, uint64_t incarnation)
{
    size_t low = 0, high = marks->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (marks->items[middle].incarnation < incarnation)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int emb_marks_set(struct emb_marks *marks, uint64_t incarnation, uint64_t seq)
{
    size_t at = mark_place(marks, incarnation);
    if (at < marks->n && marks->items[at].incarnation == incarnation) {
        if (seq > marks->items[at].seq)
            marks->items[at].seq = seq;
        return CLU_OK;
    }
    if (marks->n == marks->capacity) {
        size_t capacity = marks->capacity ? 2 * marks->capacity : 16;
        struct emb_mark *items = realloc(marks->items, capacity * sizeof(*items));
        if (!items)
            return clu_fail(CLU_E_NO_MEMORY, "no memory for marks");
        marks->items = items;
        marks->capacity = capacity;
    }
    memmove(marks->items + at + 1, marks->items + at, (marks->n - at) * sizeof(*marks->items));
    marks->items[at] = (struct emb_mark){incarnation, seq};
    marks->n++;
    return CLU_OK;
}

uint64_t emb_shard_last_seq(const struct emb_shard *shard, uint64_t incarnation)
{
    size_t at = mark_place(&shard->marks, incarnation);
    bool known = at < shard->marks.n && shard->marks.items[at].incarnation == incarnation;
    return known ? shard->marks.items[at].seq : 0;
}

/* ---- info ---- */

int emb_info_capture(const struct emb_shard *shard, struct emb_info *info_p)
{
    struct emb_info info = {.clock = shard->clock, .lsn = shard->durable_lsn};
    int status = CLU_OK;
    for (size_t i = 0; i < shard->marks.n && !status; i++)
        status = emb_marks_set(&info.marks, shard->marks.items[i].incarnation,
                               shard->marks.items[i].seq);
    for (int t = 0; t < shard->n_tables && !status; t++) {
        info.n_rows[t] = shard->table[t].n_rows;
        if (shard->table[t].sketch)
            status = emb_sketch_dup(shard->table[t].sketch, &info.sketch[t]);
    }
    if (status) {
        emb_info_fini(&info);
        return status;
    }
    *info_p = info;
    return CLU_OK;
}

void emb_info_fini(struct emb_info *info)
{
    free(info->marks.items);
    for (int t = 0; t < EMB_MAX_TABLES; t++)
        emb_sketch_free(info->sketch[t]);
    memset(info, 0, sizeof(*info));
}

/* Layout: clock, lsn, marks n, tables n; marks; then a table each: hash of the name, rows, waiting
 * keys n, those. All 8 bytes. */
int emb_info_put(struct emb_shard *shard, const char *role, const struct emb_info *info)
{
    size_t n = 4 + 2 * info->marks.n;
    for (int t = 0; t < shard->n_tables; t++)
        n += 3 + (info->sketch[t] ? 2 * emb_sketch_count(info->sketch[t]) : 0);
    uint64_t *blob = malloc(n * 8), *at = blob;
    if (!blob) {
        emb_layers_abort(shard->layers);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a state of %zu bytes", n * 8);
    }
    *at++ = info->clock;
    *at++ = info->lsn;
    *at++ = info->marks.n;
    *at++ = (uint64_t)shard->n_tables;
    if (info->marks.n)
        memcpy(at, info->marks.items, info->marks.n * sizeof(struct emb_mark));
    at += 2 * info->marks.n;
    for (int t = 0; t < shard->n_tables; t++) {
        const struct emb_sketch *sketch = info->sketch[t];
        *at++ = shard->table[t].hash;
        *at++ = info->n_rows[t];
        *at++ = sketch ? emb_sketch_count(sketch) : 0;
        if (sketch) {
            emb_sketch_list(sketch, (struct emb_candidate *)(void *)at);
            at += 2 * emb_sketch_count(sketch);
        }
    }
    int status = emb_layers_put_value(shard->layers, role, blob, n * 8);
    free(blob);
    return status;
}

static int parse_info(struct emb_shard *shard, const uint64_t *at, size_t n, struct emb_info *info)
{
    const uint64_t *end = at + n;
    if (n < 4 || at[2] > n || at[3] > EMB_MAX_TABLES)
        return CLU_E_CORRUPT;
    info->clock = at[0];
    info->lsn = at[1];
    uint64_t n_marks = at[2], n_tables = at[3];
    at += 4;
    int status = CLU_OK;
    for (uint64_t i = 0; i < n_marks && !status; i++, at += 2)
        status = end - at < 2 ? CLU_E_CORRUPT : emb_marks_set(&info->marks, at[0], at[1]);
    for (uint64_t i = 0; i < n_tables && !status; i++) {
        if (end - at < 3 || at[2] > (uint64_t)(end - at - 3) / 2)
            return CLU_E_CORRUPT;
        int t = 0;
        while (t < shard->n_tables && shard->table[t].hash != at[0])
            t++;
        uint64_t n_waiting = at[2];
        if (t < shard->n_tables) {
            info->n_rows[t] = at[1];
            if (shard->table[t].sketch)
                status = emb_sketch_create(&info->sketch[t]);
        }
        at += 3;
        for (uint64_t j = 0; j < n_waiting; j++, at += 2)
            if (t < shard->n_tables && info->sketch[t])
                emb_sketch_set(info->sketch[t], clu_bucket_of(shard->table[t].hash, at[0]), at[0],
                               (uint32_t)at[1]);
    }
    return status;
}

int emb_info_get(struct emb_shard *shard, const char *role, struct emb_info *info_p)
{
    void *data;
    size_t size;
    int status = emb_layers_get_value(shard->layers, role, &data, &size);
    if (status)
        return status;
    struct emb_info info = {0};
    status = parse_info(shard, data, size / 8, &info);
    free(data);
    if (status) {
        emb_info_fini(&info);
        return clu_fail(status, "%s: the stored value '%s' makes no sense", shard->dir, role);
    }
    *info_p = info;
    return CLU_OK;
}

int emb_info_adopt(struct emb_shard *shard, struct emb_info *info)
{
    for (int t = 0; t < shard->n_tables; t++) {
        struct emb_table *table = &shard->table[t];
        table->n_rows = table->n_stored = info->n_rows[t];
        if (!table->sketch)
            continue;
        if (!info->sketch[t]) {
            int status = emb_sketch_create(&info->sketch[t]);
            if (status)
                return status;
        }
        emb_sketch_free(table->sketch);
        table->sketch = info->sketch[t];
        info->sketch[t] = NULL;
    }
    free(shard->marks.items);
    shard->marks = info->marks;
    info->marks = (struct emb_marks){0};
    shard->clock = info->clock;
    shard->floor = info->clock + 1;
    if (info->lsn > shard->durable_lsn)
        shard->durable_lsn = info->lsn;
    emb_info_fini(info);
    return CLU_OK;
}

/* ---- roles and specs ---- */

int emb_roles_put(struct emb_shard *shard, const struct emb_roles *roles)
{
    return emb_layers_put_value(shard->layers, "roles", roles, sizeof(*roles));
}

enum { ROLES_VERSION = 2 }; /* of everything stored */

static const struct emb_roles fresh_roles = {
    .version = ROLES_VERSION, .base = 0, .current = 1, .sealed = EMB_N_LAYERS};

static int get_roles(struct emb_shard *shard)
{
    void *data;
    size_t size;
    int status = emb_layers_get_value(shard->layers, "roles", &data, &size);
    shard->roles = fresh_roles;
    if (status == CLU_E_NOT_FOUND)
        return CLU_OK;
    if (status)
        return status;
    struct emb_roles roles = {0};
    if (size == sizeof(roles))
        memcpy(&roles, data, size);
    free(data);
    bool sane = roles.version == ROLES_VERSION && roles.base < EMB_N_LAYERS &&
                roles.current < EMB_N_LAYERS && roles.base != roles.current;
    if (!sane || (roles.sealed != EMB_N_LAYERS && (int)roles.sealed != emb_layer_spare(&roles)))
        return clu_fail(CLU_E_CORRUPT, "%s: the stored roles make no sense", shard->dir);
    shard->roles = roles;
    return CLU_OK;
}

struct stored_spec {
    char name[EMB_NAME_BYTES];
    uint32_t dim, optimizer, dtype, zero;
    uint64_t seed;
    double init_range;
};

static int compare_spec(const struct emb_shard *shard, const struct emb_table_spec *spec,
                        const struct stored_spec *stored)
{
    const char *what = NULL;
    if ((uint32_t)spec->dim != stored->dim)
        what = "dim";
    else if (spec->optimizer != stored->optimizer)
        what = "optimizer";
    else if (spec->dtype != stored->dtype)
        what = "dtype";
    else if (spec->seed != stored->seed)
        what = "seed";
    else if ((float)spec->init_range != (float)stored->init_range)
        what = "init_range";
    return what ? clu_fail(CLU_E_CONFIG, "%s: table %s was stored with another %s than now asked",
                           shard->dir, spec->name, what)
                : CLU_OK;
}

int emb_specs_check(struct emb_shard *shard)
{
    struct stored_spec *specs = NULL;
    size_t size = 0;
    void *data = NULL;
    int status = emb_layers_get_value(shard->layers, "specs", &data, &size);
    if (status && status != CLU_E_NOT_FOUND)
        return status;
    size_t n = size / sizeof(*specs);
    specs = calloc(n + (size_t)shard->n_tables, sizeof(*specs));
    status = specs ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory for the tables' specs");
    if (!status && n)
        memcpy(specs, data, n * sizeof(*specs));
    free(data);
    size_t n_before = n;
    for (int t = 0; t < shard->n_tables && !status; t++) {
        const struct emb_table_spec *spec = &shard->table[t].spec;
        size_t i = 0;
        while (i < n && strncmp(specs[i].name, spec->name, EMB_NAME_BYTES) != 0)
            i++;
        shard->table[t].id = (int)i;
        if (i < n) {
            status = compare_spec(shard, spec, &specs[i]);
            continue;
        }
        specs[n] = (struct stored_spec){.dim = (uint32_t)spec->dim,
                                        .optimizer = spec->optimizer,
                                        .dtype = spec->dtype,
                                        .seed = spec->seed,
                                        .init_range = spec->init_range};
        memcpy(specs[n++].name, spec->name, EMB_NAME_BYTES);
    }
    while (!status && n > n_before) {
        status = emb_layers_begin(shard->layers);
        if (!status)
            status = emb_layers_put_value(shard->layers, "specs", specs, n * sizeof(*specs));
        if (!status)
            status = emb_layers_commit(shard->layers);
        if (status == CLU_E_AGAIN)
            status = CLU_OK;
        else
            break;
    }
    if (!status && n > EMB_MAX_TABLES)
        status = clu_fail(CLU_E_CONFIG, "%s: more than %d different tables were stored here",
                          shard->dir, EMB_MAX_TABLES);
    for (size_t i = 0; i < n && !status; i++)
        shard->stored_dims[i] = (int)specs[i].dim;
    shard->n_stored = (int)n;
    free(specs);
    return status;
}

/* ---- how many rows the layers hold (I7) ---- */

struct stored_count {
    uint64_t hash, n; /* hash of the table's name */
};

int emb_stored_put(struct emb_shard *shard, const uint64_t *n_stored)
{
    struct stored_count counts[EMB_MAX_TABLES];
    for (int t = 0; t < shard->n_tables; t++)
        counts[t] = (struct stored_count){shard->table[t].hash, n_stored[t]};
    return emb_layers_put_value(shard->layers, "stored", counts,
                                (size_t)shard->n_tables * sizeof(*counts));
}

/* Durability log, before the replay. Where nothing was written yet, the info's count stands. */
static int adopt_stored(struct emb_shard *shard)
{
    struct stored_count *counts;
    void *data;
    size_t size;
    int status = emb_layers_get_value(shard->layers, "stored", &data, &size);
    if (status)
        return status == CLU_E_NOT_FOUND ? CLU_OK : status;
    counts = data;
    for (size_t i = 0; i < size / sizeof(*counts); i++)
        for (int t = 0; t < shard->n_tables; t++)
            if (shard->table[t].hash == counts[i].hash)
                shard->table[t].n_rows = shard->table[t].n_stored = counts[i].n;
    free(data);
    return CLU_OK;
}

/* ---- opening ---- */

/* Empties layers, writes the roles and, when given, info.current, in one transaction. */
int emb_layers_reset(struct emb_shard *shard, const int *layers, int n_layers,
                     const struct emb_roles *roles, const struct emb_info *current)
{
    int status;
    do {
        status = emb_layers_begin(shard->layers);
        for (int t = 0; t < shard->n_tables; t++)
            for (int l = 0; l < n_layers && !status; l++)
                status = emb_layers_clear(shard->layers, t, layers[l]);
        if (!status)
            status = emb_roles_put(shard, roles);
        if (!status && current)
            status = emb_info_put(shard, "info.current", current);
        if (!status && current)
            status = emb_stored_put(shard, current->n_rows);
        if (!status)
            status = emb_layers_commit(shard->layers);
    } while (status == CLU_E_AGAIN);
    if (!status)
        shard->roles = *roles;
    return status;
}

/* Any status but NOT_FOUND, which means a state without anything. */
static int adopt_state(struct emb_shard *shard, const char *role)
{
    struct emb_info info;
    int status = emb_info_get(shard, role, &info);
    if (status == CLU_E_NOT_FOUND)
        return CLU_OK;
    return status ? status : emb_info_adopt(shard, &info);
}

/* Durability snapshot: what came after the sealed state, or the base's, is forgotten. */
static int return_to_snapshot(struct emb_shard *shard)
{
    struct emb_roles roles = shard->roles;
    struct emb_info info = {0};
    int status =
        emb_info_get(shard, roles.sealed < EMB_N_LAYERS ? "info.sealed" : "info.base", &info);
    if (status && status != CLU_E_NOT_FOUND)
        return status;
    status = emb_layers_reset(shard, (int[]){(int)roles.current}, 1, &roles, &info);
    if (!status)
        status = emb_info_adopt(shard, &info);
    emb_info_fini(&info);
    return status;
}

static int find_rows(struct emb_shard *shard)
{
    for (int t = 0; t < shard->n_tables; t++)
        for (int l = 0; l < EMB_N_LAYERS; l++) {
            uint64_t n;
            int status = emb_layers_count(shard->layers, t, l, &n);
            if (status)
                return status;
            shard->table[t].on_disk_only |= n > 0;
        }
    return CLU_OK;
}

static void stop_waiting(struct emb_table *table, uint64_t key)
{
    if (table->sketch)
        emb_sketch_remove(table->sketch, clu_bucket_of(table->hash, key), key);
}

bool emb_replayed(const struct emb_shard *shard, int table, uint64_t key, uint64_t lsn)
{
    const struct emb_store *ahead = &shard->ahead[table];
    uint32_t slot = emb_store_find(ahead, key);
    uint64_t included = 0;
    if (slot != EMB_NO_SLOT)
        memcpy(&included, emb_store_row(ahead, slot) + 8, 8);
    return included >= lsn;
}

static int replay_push(struct emb_shard *shard, uint64_t lsn,
                       const struct emb_pushlog_record *record)
{
    struct emb_store *ahead = &shard->ahead[record->table];
    const size_t dim = (size_t)shard->table[record->table].spec.dim;
    int status = emb_shard_fetch_all(shard, record->table, record->keys, record->n);
    if (status)
        return status;
    if (ahead->n_rows == 0)
        return emb_shard_push_rows(shard, record->table, record->keys, record->n, record->grads,
                                   record->step);
    uint64_t *keys = malloc((record->n + 1) * sizeof(*keys));
    float *grads = malloc((record->n + 1) * dim * sizeof(*grads));
    size_t n = 0;
    for (size_t i = 0; i < record->n && keys && grads; i++) {
        if (emb_replayed(shard, record->table, record->keys[i], lsn)) {
            /* the row came to be in between: it no longer waits */
            stop_waiting(&shard->table[record->table], record->keys[i]);
            continue;
        }
        keys[n] = record->keys[i];
        memcpy(grads + n++ * dim, record->grads + i * dim, dim * sizeof(*grads));
    }
    status = !keys || !grads
                 ? clu_fail(CLU_E_NO_MEMORY, "no memory to replay a push of %zu keys", record->n)
                 : emb_shard_push_rows(shard, record->table, keys, n, grads, record->step);
    free(keys);
    free(grads);
    return status;
}

static int apply_record(struct emb_shard *shard, uint64_t lsn,
                        const struct emb_pushlog_record *record)
{
    if (record->kind == EMB_LOG_MARK)
        return emb_marks_set(&shard->marks, record->incarnation, record->seq);
    if (record->kind == EMB_LOG_DROP)
        return emb_replay_moved(shard, lsn, record);
    if (record->kind != EMB_LOG_TICK) {
        struct emb_pushlog_record here = *record;
        here.table = 0;
        while (here.table < shard->n_tables && shard->table[here.table].id != record->table)
            here.table++;
        if (here.table == shard->n_tables)
            return CLU_OK; /* a table that the job no longer has */
        return here.kind == EMB_LOG_PUSH ? replay_push(shard, lsn, &here)
                                         : emb_replay_moved(shard, lsn, &here);
    }
    if (record->step > shard->clock)
        shard->clock = record->step;
    return CLU_OK;
}

static int replay_record(void *context, uint64_t lsn, const struct emb_pushlog_record *record)
{
    struct emb_shard *shard = context;
    if (lsn != shard->replay_lsn) { /* a new group: what is before it is complete (I4) */
        shard->durable_lsn = lsn - 1;
        shard->replay_lsn = lsn;
        shard->in_group = false;
        int status = emb_housekeeping(shard);
        if (status)
            return status;
    }
    shard->in_group = true;
    return apply_record(shard, lsn, record);
}

/* Opens the log and applies what it holds beyond the checkpoint; durability snapshot: removes one.
 * */
static int open_log(struct emb_shard *shard)
{
    const int *dims = shard->stored_dims;
    const int n_dims = shard->n_stored;
    if (shard->options.durability != EMB_DURABILITY_LOG)
        return emb_pushlog_open(shard->dir, dims, n_dims, 0, NULL, NULL, NULL);
    int status = CLU_OK;
    shard->ahead = calloc((size_t)shard->n_tables, sizeof(*shard->ahead));
    if (!shard->ahead)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to replay the log");
    for (int t = 0; t < shard->n_tables && !status; t++)
        status = emb_store_init(&shard->ahead[t], 8, 1, (size_t)1 << 34);
    int64_t began = emb_now_us();
    uint64_t before = shard->durable_lsn;
    shard->replay_lsn = before + 1;
    if (!status)
        status =
            emb_pushlog_open(shard->dir, dims, n_dims, before, replay_record, shard, &shard->log);
    shard->replay_lsn = 0;
    shard->in_group = false;
    for (int t = 0; t < shard->n_tables; t++)
        emb_store_fini(&shard->ahead[t]);
    free(shard->ahead);
    shard->ahead = NULL;
    if (status)
        return status;
    shard->durable_lsn = emb_pushlog_lsn(shard->log);
    if (shard->durable_lsn > before)
        clu_info("%s: replayed %llu groups of the push log in %.1f s", shard->dir,
                 (unsigned long long)(shard->durable_lsn - before),
                 (double)(emb_now_us() - began) * 1e-6);
    return CLU_OK;
}

int emb_state_open(struct emb_shard *shard)
{
    int status = emb_specs_check(shard);
    if (!status)
        status = get_roles(shard);
    if (!status && shard->roles.loading) {
        clu_warn("%s: an earlier restore did not finish; it is undone", shard->dir);
        struct emb_info nothing = {0};
        status = emb_layers_reset(shard, (int[]){0, 1, 2}, 3, &fresh_roles, &nothing);
    }
    if (!status && shard->options.durability == EMB_DURABILITY_LOG) {
        status = adopt_state(shard, "info.current");
        if (!status)
            status = adopt_stored(shard);
    } else if (!status) {
        status = return_to_snapshot(shard);
    }
    if (!status)
        status = find_rows(shard);
    shard->merge_running = shard->roles.merging;
    shard->merge_table = 0;
    shard->merge_key = 0;
    if (!status)
        status = open_log(shard);
    return status;
}

/* Buckets that leave one after the other while pushes to them go on.
 *
 * emb_shard_drop (shard_move.c) looks at every row of the shard in one go. Here many buckets leave,
 * a few between two steps each time, and no step may wait for a look at the table. So one look
 * lists the keys of all of them beforehand, in slices, a list a bucket; and as pushes go on
 * meanwhile, what they create is added:
 *
 *     collect   memory by slots, then layers by keys      keys -> the list of their bucket
 *     push      creates a row, or brings one into memory  key  -> the list of its bucket
 *     export    a bucket's rows as they stand, by its list, into a file
 *     forget    a bucket's rows go, by its list
 *
 * (L1) Once collect is through, every row of a listed bucket is on its list: it was in memory when
 *      its slot was looked at; or entered memory afterwards, by creation or from a layer, and was
 *      added then; or was in a layer and not in memory when the layers were looked at. Some are
 *      listed twice, and some are gone by the time: export and forget pass over both.
 * (L2) A row that cannot be added for want of memory spoils the lists: export then says NO_MEMORY.
 *
 * A file holds a bucket's counts of admission by ascending key, as a snapshot does: the counts are
 * exact on the other side, the order of arrival among equal counts is not, so a bucket in which
 * more keys wait than its set holds may drop another of the least counted than it would have here.
 * A row never needs fewer pushes than asked.
 *
 * Memory: 16 bytes a key, at most a sixteenth of the shard's budget as far as can be known ahead
 * (rows are taken to be spread evenly over buckets): collect takes no more buckets than that.
 */
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/shard_internal.h"
#include "embeddings/snapshot_file.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOK_SLOTS = 1024,
    LOOK_STORED = 1024,
    CHUNK_ROWS = 1024, /* exported at once */
    BURY_ROWS = 256,
    LEAST_KEYS = 1 << 16,
};
static const uint64_t most_keys = (uint64_t)4 << 20;

struct leaving {
    uint32_t bucket;
    struct emb_entry *keys; /* slot: the table */
    size_t n, capacity, n_forgotten;
    bool dropping; /* being forgotten, and the log knows */
};

struct emb_leave {
    int16_t place[CLU_N_BUCKETS]; /* of the bucket in leaving and 1; 0: stays, or is not listed */
    struct leaving *leaving;
    int n;
    size_t bytes;
    int status; /* (L2) */
    /* where collect is */
    int table;
    bool in_layers;
    uint32_t slot;
    uint64_t key;
    size_t n_looked;
    bool done;
};

size_t emb_leave_memory(const struct emb_shard *shard)
{
    return shard->leave ? shard->leave->bytes : 0;
}

void emb_leave_free(struct emb_shard *shard)
{
    struct emb_leave *leave = shard->leave;
    if (!leave)
        return;
    for (int i = 0; i < leave->n; i++)
        free(leave->leaving[i].keys);
    free(leave->leaving);
    free(leave);
    shard->leave = NULL;
}

void emb_leave_add(struct emb_shard *shard, int t, uint64_t key)
{
    struct emb_leave *leave = shard->leave;
    int place = leave->place[clu_bucket_of(shard->table[t].hash, key)];
    if (!place)
        return;
    struct leaving *l = &leave->leaving[place - 1];
    if (l->dropping)
        return;
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct emb_entry *keys = realloc(l->keys, capacity * sizeof(*keys));
        if (!keys) {
            leave->status = CLU_E_NO_MEMORY;
            return;
        }
        leave->bytes += (capacity - l->capacity) * sizeof(*keys);
        l->keys = keys;
        l->capacity = capacity;
    }
    l->keys[l->n++] = (struct emb_entry){.key = key, .slot = (uint32_t)t};
}

/* ---- collect ---- */

/* How many of n buckets can be listed. */
static int n_affordable(const struct emb_shard *shard, int n)
{
    uint64_t n_rows = 0, budget = shard->options.memory_bytes;
    for (int t = 0; t < shard->n_tables; t++)
        n_rows += shard->table[t].n_rows;
    uint64_t keys = budget ? budget / 16 / sizeof(struct emb_entry) : most_keys;
    keys = keys < LEAST_KEYS ? LEAST_KEYS : keys > most_keys ? most_keys : keys;
    /* the shard owns these buckets at least, so no more than this are in each on average */
    uint64_t a_bucket = n_rows / (uint64_t)n + 1;
    return keys / a_bucket < (uint64_t)n ? (int)(keys / a_bucket) + 1 : n;
}

int emb_shard_collect(struct emb_shard *shard, const uint16_t *buckets, int n)
{
    emb_leave_free(shard);
    struct emb_leave *leave = calloc(1, sizeof(*leave));
    int n_taken = n_affordable(shard, n);
    if (leave)
        leave->leaving = calloc((size_t)n_taken, sizeof(*leave->leaving));
    if (!leave || !leave->leaving) {
        free(leave);
        return clu_fail(CLU_E_NO_MEMORY, "no memory to list rows that leave");
    }
    for (int i = 0; i < n_taken; i++) {
        leave->leaving[i].bucket = buckets[i];
        leave->place[buckets[i]] = (int16_t)(i + 1);
    }
    leave->n = n_taken;
    shard->leave = leave;
    return CLU_OK;
}

static void look_at_slots(struct emb_shard *shard)
{
    struct emb_leave *leave = shard->leave;
    const struct emb_table *table = &shard->table[leave->table];
    const struct emb_store *store = &table->store;
    for (int i = 0; i < LOOK_SLOTS && leave->slot < store->n_slots; i++) {
        uint32_t slot = leave->slot++;
        if (slot + 8 < store->n_slots)
            __builtin_prefetch(emb_store_row(store, slot + 8));
        if ((*emb_store_flags(store, slot) & EMB_SLOT_LIVE) &&
            emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_COUNT))
            emb_leave_add(shard, leave->table, emb_store_key(store, slot));
    }
    if (leave->slot >= store->n_slots)
        leave->in_layers = true;
}

static int look_at_stored(void *context, const struct emb_stored *stored)
{
    struct emb_shard *shard = context;
    struct emb_leave *leave = shard->leave;
    if (leave->n_looked++ == LOOK_STORED)
        return CLU_E_AGAIN;
    leave->key = stored->key < UINT64_MAX ? stored->key + 1 : stored->key;
    if (stored->value &&
        emb_store_find(&shard->table[leave->table].store, stored->key) == EMB_NO_SLOT)
        emb_leave_add(shard, leave->table, stored->key);
    return CLU_OK;
}

static int look_at_layers(struct emb_shard *shard)
{
    struct emb_leave *leave = shard->leave;
    struct emb_layers_view *view = NULL;
    int status = CLU_OK, order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    leave->n_looked = 0;
    if (shard->table[leave->table].on_disk_only) {
        status = emb_layers_view_open(shard->layers, &view);
        if (!status)
            status = emb_layers_walk(view, leave->table, order, n_order, leave->key, look_at_stored,
                                     shard);
        emb_layers_view_close(view);
        emb_trim_map(shard);
    }
    if (status)
        return status == CLU_E_AGAIN && leave->n_looked > LOOK_STORED ? CLU_OK : status;
    leave->table++;
    leave->in_layers = false;
    leave->slot = 0;
    leave->key = 0;
    return CLU_OK;
}

int emb_shard_collect_advance(struct emb_shard *shard, int64_t budget_us)
{
    struct emb_leave *leave = shard->leave;
    const int64_t until = emb_now_us() + budget_us;
    if (!leave)
        return clu_fail(CLU_E_BUG, "%s: no buckets are being listed", shard->dir);
    while (leave->table < shard->n_tables) {
        int status = CLU_OK;
        if (leave->in_layers)
            status = look_at_layers(shard);
        else
            look_at_slots(shard);
        if (status || leave->status)
            return status ? status : leave->status;
        if (leave->table < shard->n_tables && emb_now_us() >= until)
            return CLU_E_AGAIN;
    }
    leave->done = true;
    return leave->status;
}

static struct leaving *find_leaving(const struct emb_shard *shard, uint16_t bucket)
{
    const struct emb_leave *leave = shard->leave;
    int place = leave && leave->done && bucket < CLU_N_BUCKETS ? leave->place[bucket] : 0;
    return place ? &leave->leaving[place - 1] : NULL;
}

bool emb_shard_collected(const struct emb_shard *shard, uint16_t bucket, uint64_t *n_rows_p)
{
    const struct leaving *l = find_leaving(shard, bucket);
    *n_rows_p = l ? l->n : 0;
    return l != NULL;
}

/* ---- export ---- */

struct chunk { /* rows of one table on their way to the file */
    const uint64_t *keys;
    size_t n, value_bytes;
    size_t missing_at[CHUNK_ROWS];
    bool there[CHUNK_ROWS];
    char *values; /* [CHUNK_ROWS, value_bytes] */
};

static int chunk_found(void *context, size_t i, const struct emb_stored *stored)
{
    struct chunk *c = context;
    size_t at = c->missing_at[i];
    if (stored->value) {
        memcpy(c->values + at * c->value_bytes, stored->value, c->value_bytes);
        c->there[at] = true;
    }
    return CLU_OK;
}

static int read_chunk(struct emb_shard *shard, int t, struct chunk *c)
{
    const struct emb_table *table = &shard->table[t];
    uint64_t missing[CHUNK_ROWS];
    size_t n_missing = 0;
    for (size_t i = 0; i < c->n; i++) {
        uint32_t slot = emb_store_find(&table->store, c->keys[i]);
        c->there[i] = slot != EMB_NO_SLOT;
        if (c->there[i]) {
            memcpy(c->values + i * c->value_bytes, emb_slot_value(table, slot), c->value_bytes);
        } else {
            c->missing_at[n_missing] = i;
            missing[n_missing++] = c->keys[i];
        }
    }
    if (!n_missing || !table->on_disk_only)
        return CLU_OK;
    int order[EMB_N_LAYERS], n_order = emb_shard_order(shard, order);
    int status =
        emb_layers_find(shard->layers, t, order, n_order, missing, n_missing, chunk_found, c);
    emb_trim_map(shard);
    return status;
}

static int write_chunk(struct emb_shard *shard, int t, const struct chunk *c,
                       struct emb_snapshot_writer *writer)
{
    int status = CLU_OK;
    for (size_t i = 0; i < c->n && !status; i++) {
        const char *value = c->values + i * c->value_bytes;
        if (c->there[i] && emb_value_u32(value, EMB_VALUE_COUNT) &&
            !emb_expired(shard, &shard->table[t], emb_value_u32(value, EMB_VALUE_STEP)))
            status = emb_snapshot_writer_row(writer, t, c->keys[i], value);
    }
    return status;
}

static int export_rows(struct emb_shard *shard, int t, const uint64_t *keys, size_t n,
                       struct emb_snapshot_writer *writer)
{
    struct chunk c = {.value_bytes = shard->table[t].value_bytes};
    int status = CLU_OK;
    c.values = malloc(CHUNK_ROWS * c.value_bytes);
    if (!c.values)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to copy rows that leave");
    for (size_t at = 0; at < n && !status; at += CHUNK_ROWS) {
        c.keys = keys + at;
        c.n = n - at < CHUNK_ROWS ? n - at : CHUNK_ROWS;
        status = read_chunk(shard, t, &c);
        if (!status)
            status = write_chunk(shard, t, &c, writer);
    }
    free(c.values);
    return status;
}

static int by_key(const void *a, const void *b)
{
    uint64_t x = ((const struct emb_candidate *)a)->key;
    uint64_t y = ((const struct emb_candidate *)b)->key;
    return x < y ? -1 : x > y;
}

static int export_waiting(const struct emb_shard *shard, int t, const uint16_t *buckets, int n,
                          struct emb_snapshot_writer *writer)
{
    const struct emb_sketch *sketch = shard->table[t].sketch;
    int status = CLU_OK;
    size_t n_waiting = 0;
    if (!sketch)
        return CLU_OK;
    struct emb_candidate *waiting = malloc((size_t)n * EMB_SKETCH_WAYS * sizeof(*waiting));
    if (!waiting)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for keys that wait for admission");
    for (int i = 0; i < n; i++)
        n_waiting += emb_sketch_bucket(sketch, buckets[i], waiting + n_waiting);
    qsort(waiting, n_waiting, sizeof(*waiting), by_key);
    for (size_t i = 0; i < n_waiting && !status; i++)
        status =
            emb_snapshot_writer_candidate(writer, t, waiting[i].key, (uint32_t)waiting[i].count);
    free(waiting);
    return status;
}

/* The keys of a table on the lists of n buckets, ascending, each once. */
static int sort_keys(const struct emb_shard *shard, int t, const uint16_t *buckets, int n,
                     uint64_t **keys_p, size_t *n_keys_p)
{
    size_t n_keys = 0, n_once = 0;
    for (int b = 0; b < n; b++)
        n_keys += find_leaving(shard, buckets[b])->n;
    struct emb_entry *entries = malloc((2 * n_keys + 1) * sizeof(*entries));
    uint64_t *keys = malloc((n_keys + 1) * sizeof(*keys));
    if (!entries || !keys) {
        free(entries);
        free(keys);
        return clu_fail(CLU_E_NO_MEMORY, "no memory to sort %zu keys that leave", n_keys);
    }
    size_t n_listed = n_keys;
    n_keys = 0;
    for (int b = 0; b < n; b++) {
        const struct leaving *l = find_leaving(shard, buckets[b]);
        for (size_t i = 0; i < l->n; i++)
            if (l->keys[i].slot == (uint32_t)t)
                entries[n_keys++] = l->keys[i];
    }
    emb_sort_entries(entries, entries + n_listed, n_keys);
    for (size_t i = 0; i < n_keys; i++)
        if (i == 0 || entries[i].key != entries[i - 1].key)
            keys[n_once++] = entries[i].key;
    free(entries);
    *keys_p = keys;
    *n_keys_p = n_once;
    return CLU_OK;
}

int emb_shard_export(struct emb_shard *shard, const uint16_t *buckets, int n, const char *path,
                     uint64_t *n_rows_p)
{
    struct emb_snapshot_writer *writer;
    struct emb_snapshot_info info = {.step = shard->clock, .n_tables = shard->n_tables};
    for (int b = 0; b < n; b++)
        if (!find_leaving(shard, buckets[b]))
            return clu_fail(CLU_E_NOT_FOUND, "%s: bucket %d is not listed", shard->dir, buckets[b]);
    if (shard->leave && shard->leave->status)
        return clu_fail(shard->leave->status, "%s: rows that leave could not be listed",
                        shard->dir);
    for (int t = 0; t < shard->n_tables; t++)
        info.tables[t] = shard->table[t].spec;
    int status = emb_snapshot_writer_open(path, &info, &writer);
    if (status)
        return status;
    emb_snapshot_writer_pass_on(writer);
    for (int t = 0; t < shard->n_tables && !status; t++) {
        uint64_t *keys = NULL;
        size_t n_keys = 0;
        status = sort_keys(shard, t, buckets, n, &keys, &n_keys);
        if (!status)
            status = export_rows(shard, t, keys, n_keys, writer);
        if (!status)
            status = export_waiting(shard, t, buckets, n, writer);
        free(keys);
    }
    struct emb_snapshot_written written;
    if (!status) {
        status = emb_snapshot_writer_finish(writer, &written);
        if (!status)
            *n_rows_p = written.n_rows;
        return status;
    }
    emb_snapshot_writer_abort(writer);
    return status;
}

/* ---- adopt ---- */

int emb_shard_adopt(struct emb_shard *shard, const char *path,
                    bool (*keep)(uint32_t bucket, void *arg), void *arg, uint64_t *n_rows_p)
{
    struct emb_snapshot_reader *reader;
    struct emb_row row;
    const void *value;
    int is_candidate, status = emb_snapshot_reader_open(path, &reader);
    uint64_t n_rows = 0;
    if (status)
        return status;
    if (emb_snapshot_reader_info(reader)->n_tables != shard->n_tables)
        status = clu_fail(CLU_E_CONFIG, "%s: has other tables than this shard", path);
    while (!status) {
        status = emb_snapshot_reader_entry(reader, &row, &value, &is_candidate);
        if (status || !keep(clu_bucket_of(shard->table[row.table].hash, row.key), arg))
            continue;
        if (is_candidate) {
            status = emb_shard_put_waiting(shard, row.table, row.key, row.count);
        } else {
            emb_snapshot_reader_widen(reader, value, &row);
            status = emb_shard_put(shard, &row);
            n_rows++;
        }
    }
    emb_snapshot_reader_close(reader);
    if (status != CLU_E_NOT_FOUND) /* the end */
        return status;
    *n_rows_p = n_rows;
    return CLU_OK;
}

/* ---- forget ---- */

/* Durability log: the buckets are dropped, whatever of that has been carried out when a crash
 * comes. */
static int note_drop(struct emb_shard *shard, struct leaving *l)
{
    uint64_t bits[CLU_N_BUCKETS / 64] = {0};
    struct emb_pushlog_record record = {
        .kind = EMB_LOG_DROP, .n = CLU_N_BUCKETS / 64, .keys = bits};
    if (l->dropping)
        return CLU_OK;
    bits[l->bucket / 64] = (uint64_t)1 << l->bucket % 64;
    int status = shard->log ? emb_pushlog_add(shard->log, &record) : CLU_OK;
    l->dropping = !status;
    return status;
}

/* Buries up to BURY_ROWS of a list, all of one table. */
static int bury_some(struct emb_shard *shard, struct leaving *l)
{
    uint64_t keys[BURY_ROWS];
    size_t n = 0;
    const struct emb_entry *from = l->keys + l->n_forgotten;
    const uint32_t t = from->slot;
    struct emb_table *table = &shard->table[t];
    do
        keys[n] = from[n].key;
    while (++n < BURY_ROWS && l->n_forgotten + n < l->n && from[n].slot == t);
    int status = emb_shard_fetch_all(shard, (int)t, keys, n);
    for (size_t i = 0; i < n && !status; i++) {
        uint32_t slot = emb_store_find(&table->store, keys[i]);
        if (slot != EMB_NO_SLOT && emb_value_u32(emb_slot_value(table, slot), EMB_VALUE_COUNT))
            status = emb_bury(shard, table, slot);
    }
    if (!status)
        l->n_forgotten += n;
    shard->rows_put = true;
    return status;
}

static void end_list(struct emb_shard *shard, struct leaving *l)
{
    for (int t = 0; t < shard->n_tables; t++)
        if (shard->table[t].sketch)
            emb_sketch_drop(shard->table[t].sketch, l->bucket);
    shard->leave->place[l->bucket] = 0;
    shard->leave->bytes -= l->capacity * sizeof(*l->keys);
    free(l->keys);
    l->keys = NULL;
    l->n = l->capacity = 0;
}

int emb_shard_forget(struct emb_shard *shard, const uint16_t *buckets, int n, int64_t budget_us)
{
    const int64_t until = emb_now_us() + budget_us;
    for (int b = 0; b < n; b++) {
        struct leaving *l = find_leaving(shard, buckets[b]);
        if (!l)
            continue; /* forgotten already */
        int status = note_drop(shard, l);
        while (!status && l->n_forgotten < l->n) {
            status = bury_some(shard, l);
            if (!status && emb_now_us() >= until)
                return CLU_E_AGAIN;
        }
        if (status)
            return status;
        end_list(shard, l);
    }
    return CLU_OK;
}

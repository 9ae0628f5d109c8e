/* Every (row, column) cell of the user and item matrices that reads a table is a place: the index
 * of its key among the table's distinct keys. fill finds the places by a hash table per embedding
 * table; gather and scatter then are loops over places without any hashing.
 *
 * Invariants: (I1) a place is below n_keys of its table, or DROPPED: then it reads zeros and takes
 * no gradient. (I2) scatter walks users, then items, row by row: one fixed order of sums.
 */
#include "worker/batch.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/counts.h"
#include "worker/event.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t DROPPED = UINT32_MAX;

/* the distinct keys of one table */
struct keys {
    uint64_t *keys;
    float *rows, *grads;
    size_t n, capacity;
    uint32_t *slots; /* [n_slots] index of a key + 1 */
    size_t n_slots;
    uint64_t table_hash;
};

/* the cells of one side (users or items) */
struct side {
    int n_columns, dim;
    const struct wrk_column *column;
    const struct wrk_slot *slot;
    int n_rows;
    const uint64_t *value; /* [distinct rows, n_columns], of the samples */
    const int *value_row;  /* [n_rows] the row of value that a row reads; NULL: the same row */
    uint32_t *place;       /* [n_rows, n_columns] */
    mdl_real *matrix;      /* [n_rows, dim] */
    size_t row_capacity;
};

struct wrk_batch {
    struct wrk_features features;
    struct keys keys[CLU_MAX_TABLES];
    struct wrk_batch_table tables[CLU_MAX_TABLES];
    struct side user, item;
    const struct wrk_samples *samples;
    int *sample_row; /* [n_samples] 0, 1, ..: with counts, every sample has a user row of its own */
    size_t sample_capacity;
    struct mdl_batch view;
};

int wrk_batch_create(const struct wrk_features *features, struct wrk_batch **batch_p)
{
    struct wrk_batch *batch = calloc(1, sizeof(*batch));
    if (!batch)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for a batch");
    batch->features = *features;
    for (int t = 0; t < features->n_tables; t++)
        batch->keys[t].table_hash = clu_table_hash(features->table[t].name);
    batch->user = (struct side){.n_columns = features->n_user_columns,
                                .dim = features->user_dim,
                                .column = batch->features.user_column,
                                .slot = batch->features.user_slot};
    batch->item = (struct side){.n_columns = features->n_item_columns,
                                .dim = features->item_dim,
                                .column = batch->features.item_column,
                                .slot = batch->features.item_slot};
    *batch_p = batch;
    return CLU_OK;
}

void wrk_batch_free(struct wrk_batch *batch)
{
    if (!batch)
        return;
    for (int t = 0; t < batch->features.n_tables; t++) {
        free(batch->keys[t].keys);
        free(batch->keys[t].rows);
        free(batch->keys[t].grads);
        free(batch->keys[t].slots);
    }
    free(batch->user.place);
    free(batch->user.matrix);
    free(batch->item.place);
    free(batch->item.matrix);
    free(batch->sample_row);
    free(batch);
}

static int no_memory(void)
{
    return clu_fail(CLU_E_NO_MEMORY, "out of memory for a batch");
}

/* false when memory is out; *array_p keeps its old content in any case */
static bool resize(void *array_p, size_t bytes)
{
    void *array = realloc(*(void **)array_p, bytes ? bytes : 1);
    if (array)
        *(void **)array_p = array;
    return array != NULL;
}

static int reserve_side(struct side *side, int n_rows)
{
    side->n_rows = n_rows;
    if ((size_t)n_rows <= side->row_capacity && side->place)
        return CLU_OK;
    size_t capacity = (size_t)n_rows + (size_t)n_rows / 4 + 16;
    if (!resize(&side->place, capacity * (size_t)side->n_columns * sizeof(*side->place)) ||
        !resize(&side->matrix, capacity * (size_t)side->dim * sizeof(*side->matrix)))
        return no_memory();
    side->row_capacity = capacity;
    return CLU_OK;
}

/* room for n keys at most; rows and grads follow once the number is known */
static int reserve_keys(struct keys *keys, size_t n)
{
    if (n > keys->capacity) {
        size_t capacity = n + n / 4 + 16, n_slots = 64;
        while (n_slots < 2 * capacity)
            n_slots *= 2;
        if (!resize(&keys->keys, capacity * sizeof(*keys->keys)) ||
            !resize(&keys->slots, n_slots * sizeof(*keys->slots)))
            return no_memory();
        keys->capacity = capacity;
        keys->n_slots = n_slots;
    }
    keys->n = 0;
    memset(keys->slots, 0, keys->n_slots * sizeof(*keys->slots));
    return CLU_OK;
}

static uint32_t place_of(struct keys *keys, uint64_t key)
{
    size_t slot = clu_mix(key) & (keys->n_slots - 1);
    for (; keys->slots[slot]; slot = (slot + 1) & (keys->n_slots - 1))
        if (keys->keys[keys->slots[slot] - 1] == key)
            return keys->slots[slot] - 1;
    keys->keys[keys->n] = key;
    keys->slots[slot] = (uint32_t)++keys->n;
    return (uint32_t)keys->n - 1;
}

static bool is_dropped(const struct wrk_dropout *dropout, uint64_t table_hash, uint64_t key)
{
    uint64_t hash = clu_mix(clu_mix(clu_mix(dropout->seed + table_hash) + dropout->step) + key);
    return (double)(hash >> 11) * 0x1p-53 < dropout->probability;
}

/* a row's feature values */
static const uint64_t *values_of(const struct side *side, int row)
{
    size_t at = (size_t)(side->value_row ? side->value_row[row] : row);
    return side->value + at * (size_t)side->n_columns;
}

static void place_side(struct wrk_batch *batch, struct side *side,
                       const struct wrk_dropout *dropout)
{
    for (int r = 0; r < side->n_rows; r++) {
        const uint64_t *value = values_of(side, r);
        uint32_t *place = side->place + (size_t)r * (size_t)side->n_columns;
        for (int c = 0; c < side->n_columns; c++) {
            int table = side->slot[c].table;
            if (table < 0)
                continue;
            struct keys *keys = &batch->keys[table];
            bool dropped = c == 0 && dropout && dropout->probability > 0 &&
                           is_dropped(dropout, keys->table_hash, value[c]);
            place[c] = dropped ? DROPPED : place_of(keys, value[c]);
        }
    }
}

static int reserve_sample_rows(struct wrk_batch *batch, size_t n)
{
    if (n <= batch->sample_capacity)
        return CLU_OK;
    size_t capacity = n + n / 4 + 16;
    if (!resize(&batch->sample_row, capacity * sizeof(*batch->sample_row)))
        return no_memory();
    for (size_t i = 0; i < capacity; i++)
        batch->sample_row[i] = (int)i;
    batch->sample_capacity = capacity;
    return CLU_OK;
}

int wrk_batch_fill(struct wrk_batch *batch, const struct wrk_samples *samples,
                   const struct wrk_dropout *dropout)
{
    batch->samples = samples;
    bool counts = batch->features.n_counts > 0;
    int status = reserve_side(&batch->user, counts ? samples->n_samples : samples->n_users);
    if (status == CLU_OK)
        status = reserve_side(&batch->item, samples->n_items);
    if (status == CLU_OK && counts)
        status = reserve_sample_rows(batch, (size_t)samples->n_samples);
    batch->user.value = samples->user_value;
    batch->user.value_row = counts ? samples->sample_user : NULL;
    batch->item.value = samples->item_value;
    size_t most[CLU_MAX_TABLES] = {0};
    for (int c = 0; c < batch->user.n_columns; c++)
        if (batch->user.slot[c].table >= 0)
            most[batch->user.slot[c].table] += (size_t)samples->n_users;
    for (int c = 0; c < batch->item.n_columns; c++)
        if (batch->item.slot[c].table >= 0)
            most[batch->item.slot[c].table] += (size_t)samples->n_items;
    for (int t = 0; t < batch->features.n_tables && status == CLU_OK; t++) {
        size_t before = batch->keys[t].capacity;
        status = reserve_keys(&batch->keys[t], most[t]);
        size_t floats = batch->keys[t].capacity * (size_t)batch->features.table[t].dim;
        if (status == CLU_OK && batch->keys[t].capacity != before &&
            (!resize(&batch->keys[t].rows, floats * sizeof(float)) ||
             !resize(&batch->keys[t].grads, floats * sizeof(float))))
            status = no_memory();
        if (status != CLU_OK)
            batch->keys[t].capacity = 0;
    }
    if (status != CLU_OK)
        return status;
    place_side(batch, &batch->user, dropout);
    place_side(batch, &batch->item, dropout);
    for (int t = 0; t < batch->features.n_tables; t++)
        batch->tables[t] = (struct wrk_batch_table){t,
                                                    batch->features.table[t].dim,
                                                    batch->keys[t].n,
                                                    batch->keys[t].keys,
                                                    batch->keys[t].rows,
                                                    batch->keys[t].grads};
    return CLU_OK;
}

struct wrk_batch_table *wrk_batch_tables(struct wrk_batch *batch, int *n_tables_p)
{
    *n_tables_p = batch->features.n_tables;
    return batch->tables;
}

static void gather_side(struct wrk_batch *batch, struct side *side)
{
    for (int r = 0; r < side->n_rows; r++) {
        const size_t first = (size_t)r * (size_t)side->n_columns;
        const uint64_t *value = values_of(side, r);
        mdl_real *out = side->matrix + (size_t)r * (size_t)side->dim;
        for (int c = 0; c < side->n_columns; c++) {
            const struct wrk_slot *slot = &side->slot[c];
            if (slot->table < 0) {
                out[slot->offset] = (mdl_real)wrk_value_float(value[c]);
                continue;
            }
            uint32_t place = side->place[first + (size_t)c];
            if (place == DROPPED) { /* (I1) */
                memset(out + slot->offset, 0, (size_t)slot->dim * sizeof(*out));
                continue;
            }
            const float *row = batch->keys[slot->table].rows + (size_t)place * (size_t)slot->dim;
            for (int i = 0; i < slot->dim; i++)
                out[slot->offset + i] = (mdl_real)row[i];
        }
    }
}

/* rates of actions 2..M over entries [begin, end) of the histories; returns behind the last one */
static mdl_real *put_rates(const struct wrk_samples *s, int begin, int end, int n_actions,
                           mdl_real *out)
{
    uint64_t count[WRK_MAX_ACTIONS + 1] = {0};
    for (int i = begin; i < end; i++)
        for (int k = s->seq_offset[s->hist_seq[i]]; k < s->seq_offset[s->hist_seq[i] + 1]; k++)
            count[s->seq_action[k]]++;
    for (int a = 2; a <= n_actions; a++)
        *out++ = (mdl_real)wrk_count_rate(count[a], (uint64_t)(end - begin));
    return out;
}

/* the last lanes of F_u, a row a sample (worker/counts.h) */
static void gather_counts(struct wrk_batch *batch)
{
    const struct wrk_samples *s = batch->samples;
    int n_counts = batch->features.n_counts, dim = batch->features.user_dim;
    int n_actions = batch->features.n_actions;
    for (int b = 0; b < s->n_samples; b++) {
        int begin = s->hist_offset[b], end = s->hist_offset[b + 1];
        int recent = end - begin > WRK_N_RECENT ? end - WRK_N_RECENT : begin;
        mdl_real *out = batch->user.matrix + (size_t)b * (size_t)dim + (size_t)(dim - n_counts);
        *out++ = (mdl_real)wrk_count_number((uint64_t)(end - begin));
        out = put_rates(s, begin, end, n_actions, out);
        out = put_rates(s, recent, end, n_actions, out);
        *out = (mdl_real)wrk_count_age(end > begin ? (double)s->sample_gap[b] : 0);
    }
}

const struct mdl_batch *wrk_batch_gather(struct wrk_batch *batch)
{
    gather_side(batch, &batch->user);
    gather_side(batch, &batch->item);
    bool counts = batch->features.n_counts > 0;
    if (counts)
        gather_counts(batch);
    const struct wrk_samples *samples = batch->samples;
    batch->view =
        (struct mdl_batch){.n_samples = samples->n_samples,
                           .n_global = samples->n_global,
                           .n_users = batch->user.n_rows,
                           .n_items = samples->n_items,
                           .n_seqs = samples->n_seqs,
                           .user = batch->user.matrix,
                           .item = batch->item.matrix,
                           .sample_user = counts ? batch->sample_row : samples->sample_user,
                           .sample_item = samples->sample_item,
                           .seq_item = samples->seq_item,
                           .seq_offset = samples->seq_offset,
                           .seq_action = samples->seq_action,
                           .seq_time = samples->seq_time,
                           .hist_offset = samples->hist_offset,
                           .hist_seq = samples->hist_seq,
                           .target_offset = samples->target_offset,
                           .target_action = samples->target_action,
                           .target_time = samples->target_time};
    return &batch->view;
}

static void scatter_side(struct wrk_batch *batch, const struct side *side, const mdl_real *d)
{
    for (int r = 0; r < side->n_rows; r++)
        for (int c = 0; c < side->n_columns; c++) {
            const struct wrk_slot *slot = &side->slot[c];
            if (slot->table < 0)
                continue;
            uint32_t place = side->place[(size_t)r * (size_t)side->n_columns + (size_t)c];
            if (place == DROPPED)
                continue;
            const mdl_real *from = d + (size_t)r * (size_t)side->dim + slot->offset;
            float *to = batch->keys[slot->table].grads + (size_t)place * (size_t)slot->dim;
            for (int i = 0; i < slot->dim; i++)
                to[i] += (float)from[i];
        }
}

void wrk_batch_scatter(struct wrk_batch *batch, const mdl_real *d_user, const mdl_real *d_item)
{
    for (int t = 0; t < batch->features.n_tables; t++)
        memset(batch->keys[t].grads, 0,
               batch->keys[t].n * (size_t)batch->features.table[t].dim * sizeof(float));
    scatter_side(batch, &batch->user, d_user); /* (I2) */
    scatter_side(batch, &batch->item, d_item);
}

const struct wrk_samples *wrk_batch_samples(const struct wrk_batch *batch)
{
    return batch->samples;
}

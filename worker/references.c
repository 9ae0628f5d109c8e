/* Counts are kept per key in an open-addressing table; scores of the split in one array per
 * reference and action, since AUC needs them all at once. */
#include "worker/references.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "model/metrics.h"
#include "worker/reader.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PSEUDO_COUNTS = 5, BATCH = 4096 };

/* per key: number of pairs, then pairs with action 1..M */
struct counts {
    int width; /* M + 1 */
    size_t n, n_slots;
    uint64_t *keys;
    uint32_t *slots; /* row + 1 */
    uint32_t *rows;  /* [n_slots / 2, width] */
};

struct scores {
    size_t n, capacity;
    float *score[WRK_N_REFERENCES][WRK_MAX_ACTIONS + 1];
    uint8_t *label[WRK_MAX_ACTIONS + 1];
};

struct work {
    int n_actions;
    struct counts users, items;
    uint64_t n_train;
    struct scores scores;
    struct wrk_references *out;
};

const char *wrk_reference_name(enum wrk_reference reference)
{
    static const char *const names[] = {"user", "item", "product", "history"};
    return names[reference];
}

static int no_memory(void)
{
    return clu_fail(CLU_E_NO_MEMORY, "out of memory for the references");
}

static bool resize(void *array_p, size_t bytes)
{
    void *array = realloc(*(void **)array_p, bytes);
    if (array)
        *(void **)array_p = array;
    return array != NULL;
}

/* the row of a key, or NULL; *slot_p is then where it would go */
static uint32_t *find(const struct counts *counts, uint64_t key, size_t *slot_p)
{
    size_t slot = clu_mix(key) & (counts->n_slots - 1);
    for (; counts->slots[slot]; slot = (slot + 1) & (counts->n_slots - 1))
        if (counts->keys[counts->slots[slot] - 1] == key)
            return counts->rows + (size_t)(counts->slots[slot] - 1) * (size_t)counts->width;
    *slot_p = slot;
    return NULL;
}

static int grow(struct counts *counts)
{
    size_t n_slots = counts->n_slots ? 2 * counts->n_slots : 2048, slot = 0;
    uint32_t *slots = calloc(n_slots, sizeof(*slots));
    if (!slots || !resize(&counts->keys, n_slots / 2 * sizeof(*counts->keys)) ||
        !resize(&counts->rows, n_slots / 2 * (size_t)counts->width * sizeof(*counts->rows))) {
        free(slots);
        return no_memory();
    }
    free(counts->slots);
    counts->slots = slots;
    counts->n_slots = n_slots;
    for (size_t i = 0; i < counts->n; i++) {
        find(counts, counts->keys[i], &slot);
        slots[slot] = (uint32_t)i + 1;
    }
    return CLU_OK;
}

static int count(struct counts *counts, uint64_t key, const uint8_t *actions, int n)
{
    if (2 * (counts->n + 1) > counts->n_slots) {
        int status = grow(counts);
        if (status != CLU_OK)
            return status;
    }
    size_t slot = 0;
    uint32_t *row = find(counts, key, &slot);
    if (!row) {
        counts->keys[counts->n] = key;
        row = counts->rows + counts->n * (size_t)counts->width;
        memset(row, 0, (size_t)counts->width * sizeof(*row));
        counts->slots[slot] = (uint32_t)++counts->n;
    }
    row[0]++;
    for (int i = 0; i < n; i++)
        row[actions[i]]++;
    return CLU_OK;
}

static void free_counts(struct counts *counts)
{
    free(counts->keys);
    free(counts->slots);
    free(counts->rows);
}

static double smooth(double hits, double n, double mean)
{
    return (hits + PSEUDO_COUNTS * mean) / (n + PSEUDO_COUNTS);
}

static double rate_of(const struct work *work, const struct counts *counts, uint64_t key,
                      int action)
{
    size_t slot;
    const uint32_t *row = counts->n_slots ? find(counts, key, &slot) : NULL;
    return smooth(row ? row[action] : 0, row ? row[0] : 0, work->out->rate[action]);
}

static int train_batch(struct work *work, const struct wrk_samples *s, int n_user_columns,
                       int n_item_columns)
{
    for (int i = 0; i < s->n_samples; i++) {
        const uint8_t *actions = s->target_action + s->target_offset[i];
        int n = s->target_offset[i + 1] - s->target_offset[i];
        int status =
            count(&work->users, s->user_value[s->sample_user[i] * n_user_columns], actions, n);
        if (status == CLU_OK)
            status =
                count(&work->items, s->item_value[s->sample_item[i] * n_item_columns], actions, n);
        if (status != CLU_OK)
            return status;
        for (int k = 0; k < n; k++)
            work->out->rate[actions[k]]++;
        work->n_train++;
    }
    return CLU_OK;
}

static int reserve_scores(struct scores *scores, size_t n, int n_actions)
{
    if (n <= scores->capacity)
        return CLU_OK;
    size_t capacity = 2 * n;
    for (int a = 1; a <= n_actions; a++) {
        if (!resize(&scores->label[a], capacity))
            return no_memory();
        for (int r = 0; r < WRK_N_REFERENCES; r++)
            if (!resize(&scores->score[r][a], capacity * sizeof(float)))
                return no_memory();
    }
    scores->capacity = capacity;
    return CLU_OK;
}

static int test_batch(struct work *work, const struct wrk_samples *s, int n_user_columns,
                      int n_item_columns)
{
    struct scores *scores = &work->scores;
    int status = reserve_scores(scores, scores->n + (size_t)s->n_samples, work->n_actions);
    for (int i = 0; i < s->n_samples && status == CLU_OK; i++) {
        size_t at = scores->n++;
        double seen[WRK_MAX_ACTIONS + 1] = {0};
        int n_history = s->hist_offset[i + 1] - s->hist_offset[i];
        for (int h = s->hist_offset[i]; h < s->hist_offset[i + 1]; h++)
            for (int k = s->seq_offset[s->hist_seq[h]]; k < s->seq_offset[s->hist_seq[h] + 1]; k++)
                seen[s->seq_action[k]]++;
        for (int a = 1; a <= work->n_actions; a++) {
            double user =
                rate_of(work, &work->users, s->user_value[s->sample_user[i] * n_user_columns], a);
            double item =
                rate_of(work, &work->items, s->item_value[s->sample_item[i] * n_item_columns], a);
            scores->label[a][at] = 0;
            scores->score[WRK_REFERENCE_USER][a][at] = (float)user;
            scores->score[WRK_REFERENCE_ITEM][a][at] = (float)item;
            scores->score[WRK_REFERENCE_PRODUCT][a][at] = (float)(user * item);
            scores->score[WRK_REFERENCE_HISTORY][a][at] =
                (float)smooth(seen[a], n_history, work->out->rate[a]);
        }
        for (int k = s->target_offset[i]; k < s->target_offset[i + 1]; k++) {
            scores->label[s->target_action[k]][at] = 1;
            work->out->n_positives[s->target_action[k]]++;
        }
    }
    return status;
}

static int pass(struct work *work, const struct wrk_dataset *dataset, enum wrk_split split,
                int valid_percent, int history, bool training)
{
    const struct wrk_dataset_info *info = wrk_dataset_info(dataset);
    struct wrk_reader_options options = {.split = split,
                                         .valid_percent = valid_percent,
                                         .batch = BATCH,
                                         .samples_per_user = BATCH,
                                         .history = history,
                                         .n_ranks = 1};
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    int status = wrk_reader_open(dataset, &options, (struct wrk_position){0, 0}, &reader);
    if (status != CLU_OK)
        return status;
    while ((status = wrk_reader_next(reader, &samples)) == CLU_OK && samples) {
        status = training ? train_batch(work, samples, info->n_user_columns, info->n_item_columns)
                          : test_batch(work, samples, info->n_user_columns, info->n_item_columns);
        wrk_samples_free(samples);
        if (status != CLU_OK)
            break;
    }
    wrk_reader_close(reader);
    return status;
}

static int figure(struct work *work)
{
    int status = CLU_OK;
    work->out->n_samples = work->scores.n;
    for (int a = 1; a <= work->n_actions; a++)
        for (int r = 0; r < WRK_N_REFERENCES && status == CLU_OK; r++)
            status = mdl_auc(work->scores.score[r][a], work->scores.label[a], work->scores.n,
                             &work->out->auc[r][a]);
    return status;
}

int wrk_references_measure(const struct wrk_dataset *dataset, enum wrk_split split,
                           int valid_percent, int history, struct wrk_references *references_p)
{
    struct wrk_references out;
    struct work work = {.n_actions = wrk_dataset_info(dataset)->n_actions, .out = &out};
    memset(&out, 0, sizeof(out));
    out.n_actions = work.n_actions;
    work.users.width = work.items.width = work.n_actions + 1;
    int status = CLU_OK;
    if (wrk_dataset_n_samples(dataset, WRK_SPLIT_TRAIN, valid_percent) > 0)
        status = pass(&work, dataset, WRK_SPLIT_TRAIN, valid_percent, 0, true);
    for (int a = 1; a <= work.n_actions; a++)
        out.rate[a] = work.n_train ? out.rate[a] / (double)work.n_train : 0;
    if (status == CLU_OK)
        status = pass(&work, dataset, split, valid_percent, history, false);
    if (status == CLU_OK)
        status = figure(&work);
    free_counts(&work.users);
    free_counts(&work.items);
    for (int a = 1; a <= work.n_actions; a++) {
        free(work.scores.label[a]);
        for (int r = 0; r < WRK_N_REFERENCES; r++)
            free(work.scores.score[r][a]);
    }
    if (status == CLU_OK)
        *references_p = out;
    return status;
}

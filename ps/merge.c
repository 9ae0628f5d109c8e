/* An open-addressing index from key to the row of its sum, made afresh for each call: the sources
 * are read once, in rank order; a key met first copies its gradient, a key met again adds.
 *
 * Keys are distinct within a source by contract. A peer that breaks it harms nothing but its own
 * rows: here a repeated key is summed, and a lone source goes to the store as it is, which updates
 * the row twice.
 */
#include "ps/merge.h"

#include "cluster/hash.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

struct psv_merge {
    uint32_t *slot; /* [n_slots] row + 1, or 0 */
    size_t n_slots;
    uint64_t *keys; /* [capacity] */
    size_t capacity;
    float *grads;
    size_t n_floats;
};

int psv_merge_create(struct psv_merge **merge_p)
{
    *merge_p = calloc(1, sizeof(**merge_p));
    return *merge_p ? 0 : CLU_E_NO_MEMORY;
}

void psv_merge_free(struct psv_merge *merge)
{
    if (!merge)
        return;
    free(merge->slot);
    free(merge->keys);
    free(merge->grads);
    free(merge);
}

static int reserve(struct psv_merge *merge, size_t n, int dim)
{
    size_t n_slots = 64;
    while (n_slots < 2 * n)
        n_slots *= 2;
    if (n_slots > merge->n_slots) {
        free(merge->slot);
        merge->slot = malloc(n_slots * sizeof(*merge->slot));
        merge->n_slots = merge->slot ? n_slots : 0;
        if (!merge->slot)
            return CLU_E_NO_MEMORY;
    }
    if (n > merge->capacity) {
        free(merge->keys);
        merge->keys = malloc(n * sizeof(*merge->keys));
        merge->capacity = merge->keys ? n : 0;
        if (!merge->capacity)
            return CLU_E_NO_MEMORY;
    }
    if (n * (size_t)dim > merge->n_floats) {
        free(merge->grads);
        merge->grads = malloc(n * (size_t)dim * sizeof(*merge->grads));
        merge->n_floats = merge->grads ? n * (size_t)dim : 0;
        if (!merge->grads)
            return CLU_E_NO_MEMORY;
    }
    return 0;
}

/* the row of a key: an old one, or n when it is new (and then entered) */
static size_t find(struct psv_merge *merge, size_t mask, uint64_t key, size_t n)
{
    size_t at = (size_t)clu_mix(key) & mask;
    while (merge->slot[at]) {
        size_t row = merge->slot[at] - 1;
        if (merge->keys[row] == key)
            return row;
        at = (at + 1) & mask;
    }
    merge->slot[at] = (uint32_t)(n + 1);
    merge->keys[n] = key;
    return n;
}

int psv_merge_sum(struct psv_merge *merge, const struct psv_source *sources, int n_sources, int dim,
                  const uint64_t **keys_p, const float **grads_p, size_t *n_p)
{
    size_t total = 0, n = 0, width = (size_t)dim;
    int n_filled = 0, only = 0;
    for (int s = 0; s < n_sources; s++)
        if (sources[s].n) {
            total += sources[s].n;
            n_filled++;
            only = s;
        }
    if (n_filled <= 1) {
        *keys_p = n_filled ? sources[only].keys : NULL;
        *grads_p = n_filled ? sources[only].grads : NULL;
        *n_p = total;
        return 0;
    }
    int status = total < UINT32_MAX / 4 ? reserve(merge, total, dim) : CLU_E_NO_MEMORY;
    if (status)
        return status;
    size_t n_slots = 64;
    while (n_slots < 2 * total)
        n_slots *= 2;
    memset(merge->slot, 0, n_slots * sizeof(*merge->slot));
    for (int s = 0; s < n_sources; s++) {
        const struct psv_source *source = &sources[s];
        for (size_t i = 0; i < source->n; i++) {
            const float *grad = source->grads + i * width;
            size_t row = find(merge, n_slots - 1, source->keys[i], n);
            float *sum = merge->grads + row * width;
            if (row == n) {
                memcpy(sum, grad, width * sizeof(*sum));
                n++;
            } else {
                for (size_t j = 0; j < width; j++)
                    sum[j] += grad[j];
            }
        }
    }
    *keys_p = merge->keys;
    *grads_p = merge->grads;
    *n_p = n;
    return 0;
}

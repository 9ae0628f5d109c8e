/* Admission sets.
 *
 * A counting Bloom filter or count-min sketch would be smaller, but both count too much when keys
 * collide, and "min_count" would not be what it says; so whole keys, a fixed number a bucket, and
 * forgetting instead of mixing. Entries of a set are ordered by arrival, so "longest there" is the
 * first with the least count.
 */
#include "embeddings/sketch.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

struct set {
    uint32_t n;
    uint8_t count[EMB_SKETCH_WAYS];
    uint64_t key[EMB_SKETCH_WAYS];
};

struct emb_sketch {
    size_t n;
    struct set set[CLU_N_BUCKETS];
};

int emb_sketch_create(struct emb_sketch **sketch_p)
{
    struct emb_sketch *sketch = calloc(1, sizeof(*sketch));
    if (!sketch)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for counting new keys");
    *sketch_p = sketch;
    return CLU_OK;
}

void emb_sketch_free(struct emb_sketch *sketch)
{
    free(sketch);
}

int emb_sketch_dup(const struct emb_sketch *sketch, struct emb_sketch **copy_p)
{
    struct emb_sketch *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for counting new keys");
    copy->n = sketch->n;
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        if (sketch->set[b].n)
            copy->set[b] = sketch->set[b];
    *copy_p = copy;
    return CLU_OK;
}

static uint32_t find(const struct set *set, uint64_t key)
{
    uint32_t i = 0;
    while (i < set->n && set->key[i] != key)
        i++;
    return i;
}

static void remove_at(struct set *set, uint32_t i)
{
    set->n--;
    memmove(&set->key[i], &set->key[i + 1], (set->n - i) * sizeof(set->key[0]));
    memmove(&set->count[i], &set->count[i + 1], set->n - i);
}

/* Place of a key, made when it is not there. */
static uint32_t place_of(struct emb_sketch *sketch, struct set *set, uint64_t key)
{
    uint32_t i = find(set, key);
    if (i < set->n)
        return i;
    if (set->n == EMB_SKETCH_WAYS) {
        uint32_t least = 0;
        for (uint32_t j = 1; j < set->n; j++)
            if (set->count[j] < set->count[least])
                least = j;
        remove_at(set, least);
        sketch->n--;
    }
    i = set->n++;
    set->key[i] = key;
    set->count[i] = 0;
    sketch->n++;
    return i;
}

uint32_t emb_sketch_add(struct emb_sketch *sketch, uint32_t bucket, uint64_t key)
{
    struct set *set = &sketch->set[bucket];
    uint32_t i = place_of(sketch, set, key);
    if (set->count[i] < UINT8_MAX)
        set->count[i]++;
    return set->count[i];
}

void emb_sketch_set(struct emb_sketch *sketch, uint32_t bucket, uint64_t key, uint32_t count)
{
    struct set *set = &sketch->set[bucket];
    set->count[place_of(sketch, set, key)] = count < UINT8_MAX ? (uint8_t)count : UINT8_MAX;
}

void emb_sketch_remove(struct emb_sketch *sketch, uint32_t bucket, uint64_t key)
{
    struct set *set = &sketch->set[bucket];
    uint32_t i = find(set, key);
    if (i == set->n)
        return;
    remove_at(set, i);
    sketch->n--;
}

void emb_sketch_drop(struct emb_sketch *sketch, uint32_t bucket)
{
    sketch->n -= sketch->set[bucket].n;
    sketch->set[bucket].n = 0;
}

size_t emb_sketch_count(const struct emb_sketch *sketch)
{
    return sketch->n;
}

static int by_key(const void *a, const void *b)
{
    uint64_t x = ((const struct emb_candidate *)a)->key;
    uint64_t y = ((const struct emb_candidate *)b)->key;
    return x < y ? -1 : x > y;
}

void emb_sketch_list(const struct emb_sketch *sketch, struct emb_candidate *candidates_p)
{
    size_t n = 0;
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        for (uint32_t i = 0; i < sketch->set[b].n; i++)
            candidates_p[n++] =
                (struct emb_candidate){sketch->set[b].key[i], sketch->set[b].count[i]};
    qsort(candidates_p, n, sizeof(*candidates_p), by_key);
}

size_t emb_sketch_bucket(const struct emb_sketch *sketch, uint32_t bucket,
                         struct emb_candidate *candidates_p)
{
    const struct set *set = &sketch->set[bucket];
    for (uint32_t i = 0; i < set->n; i++)
        candidates_p[i] = (struct emb_candidate){set->key[i], set->count[i]};
    return set->n;
}

size_t emb_sketch_memory(void)
{
    return sizeof(struct emb_sketch);
}

/* Merge: the gradients of several ranks for one table, summed per key in rank order.
 *
 *     rank 0   k3:a k7:b          keys   k3   k7     k9
 *     rank 1   k7:c k9:d    -->   sums   a    b + c  d
 *
 * The order of summing is the order of the sources, whatever the keys' order, so a sum has the same
 * bits on any number of shards. Memory grows to the largest step and is kept. Threads: one object,
 * one thread.
 */
#ifndef PS_MERGE_H
#define PS_MERGE_H

#include <stddef.h>
#include <stdint.h>

struct psv_source {
    const uint64_t *keys; /* [n] distinct */
    const float *grads;   /* [n, dim] */
    size_t n;
};

struct psv_merge;

int psv_merge_create(struct psv_merge **merge_p);
void psv_merge_free(struct psv_merge *merge);

/* Sums n_sources sources. The results are views, valid until the next call; with one source that
 * has keys they are its own arrays. Errors: CLU_E_NO_MEMORY. */
int psv_merge_sum(struct psv_merge *merge, const struct psv_source *sources, int n_sources, int dim,
                  const uint64_t **keys_p, const float **grads_p, size_t *n_p);

#endif

/* Partition: which shard each key of a batch belongs to, for one table, in one pass.
 *
 *     keys      k0 k1 k2 k3 k4 k5                 bucket_of(key) -> shard_of[bucket]
 *     order     0  2  5 | 1  4 | 3                indices by shard, in the keys' own order within a
 * shard offset    0         3      5   6
 *
 * The order within a shard is the caller's, so nothing depends on the number of shards but where a
 * key goes. Memory is the caller's. Threads: any. Cost: two passes over the keys, one hash each.
 */
#ifndef PS_PARTITION_H
#define PS_PARTITION_H

#include <stddef.h>
#include <stdint.h>

struct clu_bucket_map;

/* Writes order_p [n] and offset_p [n_shards + 1]; shard_p [n] is scratch. n < 2^32. */
void psv_partition(const struct clu_bucket_map *map, uint64_t table_hash, const uint64_t *keys,
                   size_t n, uint16_t *shard_p, uint32_t *order_p, uint32_t *offset_p);

/* Scratch of psv_sort_by_key. */
struct psv_place {
    uint64_t key;
    uint32_t index;
};

/* Sorts positions order [n] by the keys they name, ascending. scratch [2 n]. Thread: any. */
void psv_sort_by_key(const uint64_t *keys, uint32_t *order, size_t n, struct psv_place *scratch);

#endif

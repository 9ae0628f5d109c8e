/* One pass to hash every key to its shard and count, one to write the indices: a counting sort by
 * shard that keeps the keys' order within a shard. One shard needs neither.
 */
#include "ps/partition.h"

#include "cluster/map.h"

void psv_partition(const struct clu_bucket_map *map, uint64_t table_hash, const uint64_t *keys,
                   size_t n, uint16_t *shard_p, uint32_t *order_p, uint32_t *offset_p)
{
    int n_shards = map->n_shards;
    for (int s = 0; s <= n_shards; s++)
        offset_p[s] = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t shard = map->shard_of[clu_bucket_of(table_hash, keys[i])];
        shard_p[i] = shard;
        offset_p[shard + 1]++;
    }
    for (int s = 0; s < n_shards; s++)
        offset_p[s + 1] += offset_p[s];
    /* offset_p[s] serves as the write position of shard s, and so ends as the start of s + 1 */
    for (size_t i = 0; i < n; i++)
        order_p[offset_p[shard_p[i]]++] = (uint32_t)i;
    for (int s = n_shards; s > 0; s--)
        offset_p[s] = offset_p[s - 1];
    offset_p[0] = 0;
}

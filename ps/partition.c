/* One pass to hash every key to its shard and count, one to write the indices: a counting sort by
 * shard that keeps the keys' order within a shard. One shard needs neither.
 */
#include "ps/partition.h"

#include "cluster/map.h"

#include <string.h>

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

enum { FEW = 48, N_DIGITS = 8, DIGIT_VALUES = 256 };

static void sort_few(const uint64_t *keys, uint32_t *order, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint32_t index = order[i];
        size_t at = i;
        for (; at > 0 && keys[order[at - 1]] > keys[index]; at--)
            order[at] = order[at - 1];
        order[at] = index;
    }
}

/* By bytes from the lowest; a byte that is the same in all keys is passed over, so small ids cost
 * few passes. */
void psv_sort_by_key(const uint64_t *keys, uint32_t *order, size_t n, struct psv_place *scratch)
{
    uint32_t count[N_DIGITS][DIGIT_VALUES];
    struct psv_place *from = scratch, *to = scratch + n;
    if (n < FEW) {
        sort_few(keys, order, n);
        return;
    }
    memset(count, 0, sizeof(count));
    for (size_t i = 0; i < n; i++) {
        uint64_t key = keys[order[i]];
        from[i] = (struct psv_place){key, order[i]};
        for (int d = 0; d < N_DIGITS; d++)
            count[d][key >> 8 * d & 0xff]++;
    }
    for (int d = 0; d < N_DIGITS; d++) {
        if (count[d][from[0].key >> 8 * d & 0xff] == n)
            continue;
        uint32_t at = 0;
        for (int v = 0; v < DIGIT_VALUES; v++) {
            uint32_t here = count[d][v];
            count[d][v] = at;
            at += here;
        }
        for (size_t i = 0; i < n; i++)
            to[count[d][from[i].key >> 8 * d & 0xff]++] = from[i];
        struct psv_place *other = from;
        from = to;
        to = other;
    }
    for (size_t i = 0; i < n; i++)
        order[i] = from[i].index;
}

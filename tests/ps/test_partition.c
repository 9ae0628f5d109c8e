/* Every key goes to the shard of its bucket, in the caller's order. */
#include "cluster/hash.h"
#include "cluster/map.h"
#include "ps/partition.h"
#include "tests/suite.h"

static struct clu_bucket_map map;

static void test_each_key_once_at_its_shard_in_order(void)
{
    uint64_t random = suite_seed();
    for (int round = 0; round < 50; round++) {
        int n_servers = 1 + (int)(suite_random(&random) % 5);
        int n_threads = 1 + (int)(suite_random(&random) % 4);
        CU_ASSERT_EQUAL_FATAL(clu_map_init(&map, n_servers, n_threads), 0);
        size_t n = suite_random(&random) % 3000;
        uint64_t table = suite_random(&random);
        uint64_t *keys = malloc((n + 1) * sizeof(*keys));
        uint16_t *shard = malloc((n + 1) * sizeof(*shard));
        uint32_t *order = malloc((n + 1) * sizeof(*order));
        uint32_t *offset = malloc(((size_t)map.n_shards + 1) * sizeof(*offset));
        for (size_t i = 0; i < n; i++)
            keys[i] = suite_random(&random);
        psv_partition(&map, table, keys, n, shard, order, offset);
        CU_ASSERT_EQUAL(offset[0], 0);
        CU_ASSERT_EQUAL(offset[map.n_shards], n);
        for (int s = 0; s < map.n_shards; s++)
            for (uint32_t i = offset[s]; i < offset[s + 1]; i++) {
                CU_ASSERT_EQUAL(map.shard_of[clu_bucket_of(table, keys[order[i]])], s);
                CU_ASSERT(i == offset[s] || order[i] > order[i - 1]);
            }
        free(keys);
        free(shard);
        free(order);
        free(offset);
    }
}

static void test_positions_are_sorted_by_their_keys(void)
{
    uint64_t random = suite_seed();
    for (int round = 0; round < 200; round++) {
        size_t n = suite_random(&random) % 400;
        uint64_t range = (uint64_t)1 << suite_random(&random) % 64, keys[400], seen = 0, all = 0;
        uint32_t order[400];
        struct psv_place scratch[800];
        for (size_t i = 0; i < n; i++) {
            keys[i] = suite_random(&random) % range;
            order[i] = (uint32_t)(n - 1 - i);
            all += i;
        }
        psv_sort_by_key(keys, order, n, scratch);
        for (size_t i = 0; i < n; i++) {
            seen += order[i];
            CU_ASSERT(i == 0 || keys[order[i]] >= keys[order[i - 1]]);
        }
        CU_ASSERT_EQUAL(seen, all);
    }
}

static void test_no_keys_at_all(void)
{
    uint32_t offset[3], order[1];
    uint16_t shard[1];
    CU_ASSERT_EQUAL_FATAL(clu_map_init(&map, 2, 1), 0);
    psv_partition(&map, 1, NULL, 0, shard, order, offset);
    CU_ASSERT(offset[0] == 0 && offset[1] == 0 && offset[2] == 0);
}

SUITE("ps.partition", T(test_each_key_once_at_its_shard_in_order),
      T(test_positions_are_sorted_by_their_keys), T(test_no_keys_at_all))

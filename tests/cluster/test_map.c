/* The bucket map. */
#include "cluster/map.h"
#include "cluster/status.h"
#include "tests/suite.h"

static struct clu_bucket_map a, b;

static void fill_endpoints(struct clu_bucket_map *map)
{
    for (int i = 0; i < map->n_shards; i++)
        snprintf(map->endpoint[i], CLU_ENDPOINT_BYTES, "tcp://127.0.0.1:%d", 7000 + i);
}

static void test_a_fresh_map_deals_buckets_evenly(void)
{
    CU_ASSERT_EQUAL(clu_map_init(&a, 3, 2), CLU_OK);
    CU_ASSERT_EQUAL(a.n_shards, 6);
    for (int i = 0; i < 6; i++) {
        CU_ASSERT_EQUAL(a.server_of[i], i / 2);
        CU_ASSERT(clu_map_n_buckets(&a, i) == 682 || clu_map_n_buckets(&a, i) == 683);
    }
    CU_ASSERT_EQUAL(clu_map_first_shard(&a, 2), 4);
    CU_ASSERT_EQUAL(clu_map_first_shard(&a, 3), -1);
}

static void test_an_impossible_shape_is_refused(void)
{
    CU_ASSERT_EQUAL(clu_map_init(&a, 0, 1), CLU_E_USAGE);
    CU_ASSERT_EQUAL(clu_map_init(&a, CLU_MAX_SHARDS, 2), CLU_E_USAGE);
    CU_ASSERT_EQUAL(clu_map_init(&a, CLU_MAX_SHARDS / 2, 2), CLU_OK);
}

static void test_a_map_is_complete_when_every_owner_has_an_endpoint(void)
{
    clu_map_init(&a, 2, 2);
    CU_ASSERT_FALSE(clu_map_is_complete(&a));
    fill_endpoints(&a);
    CU_ASSERT_TRUE(clu_map_is_complete(&a));
    a.endpoint[3][0] = '\0';
    CU_ASSERT_FALSE(clu_map_is_complete(&a));
    for (int i = 0; i < CLU_N_BUCKETS; i++)
        a.shard_of[i] = 0;
    CU_ASSERT_TRUE(clu_map_is_complete(&a)); /* a drained shard needs none */
}

static void test_a_packed_map_comes_back(void)
{
    struct clu_packer packer;
    struct clu_unpacker unpacker;
    clu_map_init(&a, 5, 3);
    fill_endpoints(&a);
    a.version = 77;
    a.owners = 5;
    a.leaving[3] = true;
    a.shard_of[17] = 9;
    clu_packer_init(&packer);
    clu_map_pack(&a, &packer);
    memset(&b, 0xff, sizeof(b));
    clu_unpacker_init(&unpacker, packer.data, packer.size_bytes);
    CU_ASSERT_EQUAL(clu_map_unpack(&unpacker, &b), CLU_OK);
    CU_ASSERT_EQUAL(b.version, 77);
    CU_ASSERT_EQUAL(b.owners, 5);
    CU_ASSERT(b.leaving[3] && !b.leaving[2] && !b.leaving[4]);
    CU_ASSERT_EQUAL(b.n_shards, 15);
    CU_ASSERT_EQUAL(memcmp(a.shard_of, b.shard_of, sizeof(a.shard_of)), 0);
    CU_ASSERT_EQUAL(memcmp(a.server_of, b.server_of, 15 * sizeof(a.server_of[0])), 0);
    for (int i = 0; i < 15; i++)
        CU_ASSERT_STRING_EQUAL(a.endpoint[i], b.endpoint[i]);
    for (size_t cut = 0; cut < packer.size_bytes; cut += cut < 400 ? 1 : 61) {
        clu_unpacker_init(&unpacker, packer.data, cut);
        CU_ASSERT_EQUAL(clu_map_unpack(&unpacker, &b), CLU_E_PROTOCOL);
    }
    packer.data[packer.size_bytes - 1] = 1; /* bucket 4095 to shard 256 + ... */
    clu_unpacker_init(&unpacker, packer.data, packer.size_bytes);
    CU_ASSERT_EQUAL(clu_map_unpack(&unpacker, &b), CLU_E_PROTOCOL);
    clu_packer_fini(&packer);
}

static void test_who_owns_no_bucket_takes_no_part_and_who_leaves_does_not_stay(void)
{
    static bool takes_part[CLU_MAX_SHARDS], alive[CLU_MAX_SHARDS];
    clu_map_init(&a, 2, 2);
    clu_map_add_server(&a, 2, 1);
    clu_map_members(&a, takes_part);
    CU_ASSERT(takes_part[0] && takes_part[3] && !takes_part[4]);
    a.leaving[2] = a.leaving[3] = true;
    clu_map_staying(&a, alive);
    CU_ASSERT(alive[0] && !alive[1] && alive[2] && !alive[3]);
}

/* Any set of servers alive: afterwards all buckets are on them, evenly, and none moved without
 * need. */
static void test_a_plan_is_even_and_moves_no_more_than_it_must(void)
{
    static uint16_t bucket[CLU_N_BUCKETS], to[CLU_N_BUCKETS];
    uint64_t random = suite_seed();
    for (int round = 0; round < 50; round++) {
        bool alive[8];
        int n_servers = 1 + (int)(suite_random(&random) % 8), n_shards = 0, lost = 0;
        int shards = 1 + (int)(suite_random(&random) % 3);
        clu_map_init(&a, n_servers, shards);
        for (int i = 0; i < n_servers; i++)
            alive[i] = suite_random(&random) % 3 != 0;
        alive[suite_random(&random) % (uint64_t)n_servers] = true;
        for (int i = 0; i < a.n_shards; i++)
            n_shards += alive[a.server_of[i]];
        for (int i = 0; i < CLU_N_BUCKETS; i++)
            lost += !alive[a.server_of[a.shard_of[i]]];
        int n = clu_map_plan(&a, alive, n_servers, bucket, to);
        CU_ASSERT(n >= lost && n <= lost + n_shards);
        for (int i = 0; i < n; i++) {
            CU_ASSERT_NOT_EQUAL(a.shard_of[bucket[i]], to[i]);
            a.shard_of[bucket[i]] = to[i];
        }
        for (int i = 0; i < a.n_shards; i++) {
            int have = clu_map_n_buckets(&a, i), share = CLU_N_BUCKETS / n_shards;
            CU_ASSERT(alive[a.server_of[i]] ? have == share || have == share + 1 : have == 0);
        }
        CU_ASSERT_EQUAL(clu_map_plan(&a, alive, n_servers, bucket, to), 0);
    }
}

static void test_an_added_server_takes_its_share(void)
{
    static uint16_t bucket[CLU_N_BUCKETS], to[CLU_N_BUCKETS];
    bool alive[3] = {true, true, true};
    clu_map_init(&a, 2, 2);
    CU_ASSERT_EQUAL(clu_map_add_server(&a, 2, 2), CLU_OK);
    int n = clu_map_plan(&a, alive, 3, bucket, to);
    CU_ASSERT(n >= 1364 && n <= 1366);
    for (int i = 0; i < n; i++)
        CU_ASSERT(to[i] >= 4);
    alive[0] = alive[1] = alive[2] = false;
    CU_ASSERT_EQUAL(clu_map_plan(&a, alive, 3, bucket, to), CLU_E_USAGE);
}

SUITE("cluster.map", T(test_a_fresh_map_deals_buckets_evenly),
      T(test_an_impossible_shape_is_refused),
      T(test_a_map_is_complete_when_every_owner_has_an_endpoint), T(test_a_packed_map_comes_back),
      T(test_who_owns_no_bucket_takes_no_part_and_who_leaves_does_not_stay),
      T(test_a_plan_is_even_and_moves_no_more_than_it_must),
      T(test_an_added_server_takes_its_share))

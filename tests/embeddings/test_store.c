/* The row store against a plain array: inserts, removals, lookups by batch, growth without long
 * stops. */
#include "embeddings/store.h"

#include "cluster/hash.h"
#include "cluster/status.h"
#include "tests/suite.h"

static void test_random_inserts_and_removals_agree_with_an_array(void)
{
    enum { N = 60000 };
    uint64_t random = suite_seed();
    struct emb_store store;
    CU_ASSERT_EQUAL_FATAL(emb_store_init(&store, 20, 5, 64 << 20), CLU_OK);
    uint32_t *slots = malloc(N * sizeof(*slots));
    memset(slots, 0xff, N * sizeof(*slots));
    uint32_t n_rows = 0;
    for (int i = 0; i < 600000; i++) {
        uint32_t number = (uint32_t)(suite_random(&random) % N);
        uint64_t key = clu_mix(number);
        if (emb_store_find(&store, key) != slots[number])
            CU_FAIL_FATAL("a lookup differs");
        if (slots[number] == EMB_NO_SLOT) {
            CU_ASSERT_EQUAL_FATAL(emb_store_insert(&store, key, &slots[number]), CLU_OK);
            memcpy(emb_store_row(&store, slots[number]) + 8, &number, 4);
            n_rows++;
        } else if (suite_random(&random) % 3) {
            uint32_t stored;
            memcpy(&stored, emb_store_row(&store, slots[number]) + 8, 4);
            CU_ASSERT_EQUAL_FATAL(stored, number);
            emb_store_remove(&store, slots[number]);
            slots[number] = EMB_NO_SLOT;
            n_rows--;
        }
    }
    CU_ASSERT_EQUAL(store.n_rows, n_rows);
    CU_ASSERT_EQUAL(store.n_slots - store.n_free, n_rows);
    emb_store_trim(&store);
    for (uint32_t i = 0; i < N; i++)
        if (emb_store_find(&store, clu_mix(i)) != slots[i])
            CU_FAIL_FATAL("a lookup differs after trimming");
    emb_store_clear(&store);
    CU_ASSERT_EQUAL(emb_store_find(&store, clu_mix(1)), EMB_NO_SLOT);
    uint32_t slot;
    CU_ASSERT_EQUAL(emb_store_insert(&store, 9, &slot), CLU_OK);
    CU_ASSERT_EQUAL(emb_store_find(&store, 9), slot);
    free(slots);
    emb_store_fini(&store);
}

/* Every way to look a batch up, on a store with full buckets (a segment just before it splits), for
 * keys that are there and not, also keys that look like what stands behind a bucket's keys. */
static void test_every_way_finds_the_same(void)
{
    enum { N = 5000, KEYS = 20000 };
    static uint64_t keys[N];
    static uint32_t slots[N + 1];
    uint64_t random = suite_seed();
    struct emb_store store;
    CU_ASSERT_EQUAL_FATAL(emb_store_init(&store, 20, 5, 64 << 20), CLU_OK);
    CU_ASSERT_PTR_EQUAL(store.locate, emb_locate_way(0));
    CU_ASSERT_PTR_NOT_NULL(emb_locate_way(0));
    size_t n_late = 0;
    for (uint64_t key = 0; key < KEYS; key += 2) {
        uint32_t slot;
        CU_ASSERT_EQUAL_FATAL(emb_store_insert(&store, key, &slot), CLU_OK);
    }
    for (uint64_t key = 0; key < KEYS; key += 2)
        n_late += emb_store_bucket(&store, emb_store_hash(&store, key))->passed > 0;
    CU_ASSERT(n_late > 100); /* else the harder half is not tested */
    for (int way = 0; (store.locate = emb_locate_way(way)); way++)
        for (size_t n = 0; n <= N; n = n < 200 ? n + 1 : n * 2) {
            size_t n_wrong = 0;
            for (size_t i = 0; i < n; i++)
                keys[i] = i % 7 ? suite_random(&random) % KEYS : suite_random(&random) << 32 | 5;
            slots[n] = 12345;
            emb_store_locate(&store, keys, n, slots);
            for (size_t i = 0; i < n; i++) {
                n_wrong += slots[i] != emb_store_find(&store, keys[i]);
                n_wrong += (slots[i] != EMB_NO_SLOT) != (keys[i] < KEYS && keys[i] % 2 == 0);
                n_wrong += slots[i] != EMB_NO_SLOT && emb_store_key(&store, slots[i]) != keys[i];
            }
            CU_ASSERT_EQUAL(n_wrong, 0);
            CU_ASSERT_EQUAL(slots[n], 12345);
        }
    emb_store_fini(&store);
}

/* A store that has grown large stays ahead of its use, and clearing, trimming and freeing it while
 * pages are being made ready harms nothing. */
static void test_memory_is_ready_ahead_of_need(void)
{
    enum { N = 60000, VALUE = 392 };
    struct emb_store store;
    CU_ASSERT_EQUAL_FATAL(emb_store_init(&store, VALUE, 5, 64 << 20), CLU_OK);
    for (int round = 0; round < 3; round++) {
        for (uint64_t key = 0; key < N; key++) {
            uint32_t slot;
            CU_ASSERT_EQUAL_FATAL(emb_store_insert(&store, key, &slot), CLU_OK);
            memcpy(emb_store_row(&store, slot) + 8, &key, 8);
            if (key % 256 == 0)
                emb_store_ahead(&store);
        }
        CU_ASSERT_PTR_NOT_NULL(store.feeder);
        CU_ASSERT(emb_store_room(&store) >= (1 << 20) / store.stride);
        for (uint64_t key = 0; key < N; key++) {
            uint64_t value;
            memcpy(&value, emb_store_row(&store, emb_store_find(&store, key)) + 8, 8);
            CU_ASSERT_EQUAL_FATAL(value, key);
        }
        if (round == 0)
            emb_store_clear(&store);
        for (uint64_t key = N; round == 1 && key-- > 0;)
            emb_store_remove(&store, emb_store_find(&store, key));
        if (round == 1)
            emb_store_trim(&store);
    }
    emb_store_fini(&store);
}

static void test_memory_per_row_is_close_to_the_row(void)
{
    enum { N = 200000, VALUE = 8 + 128 + 256 };
    struct emb_store store;
    CU_ASSERT_EQUAL_FATAL(emb_store_init(&store, VALUE, 5, (size_t)1 << 30), CLU_OK);
    for (uint64_t key = 0; key < N; key++) {
        uint32_t slot;
        CU_ASSERT_EQUAL_FATAL(emb_store_insert(&store, key, &slot), CLU_OK);
    }
    double ratio = (double)emb_store_memory(&store) / ((double)N * (8 + 128 + 256));
    printf("  bytes held per byte of row: %.3f\n", ratio);
    CU_ASSERT(ratio <= 1.25);
    emb_store_fini(&store);
}

SUITE("embeddings.store", T(test_random_inserts_and_removals_agree_with_an_array),
      T(test_every_way_finds_the_same), T(test_memory_is_ready_ahead_of_need),
      T(test_memory_per_row_is_close_to_the_row))

/* Admission counts: never too many, forgotten only under pressure, and then the least. */
#include "embeddings/sketch.h"

#include "cluster/hash.h"
#include "cluster/status.h"
#include "tests/suite.h"

static void test_counts_are_exact_while_sets_have_room(void)
{
    struct emb_sketch *sketch;
    uint64_t random = suite_seed();
    CU_ASSERT_EQUAL_FATAL(emb_sketch_create(&sketch), CLU_OK);
    uint32_t counts[EMB_SKETCH_WAYS] = {0};
    for (int i = 0; i < 2000; i++) {
        uint32_t key = (uint32_t)(suite_random(&random) % EMB_SKETCH_WAYS);
        CU_ASSERT_EQUAL(emb_sketch_add(sketch, 17, key), ++counts[key]);
    }
    CU_ASSERT_EQUAL(emb_sketch_add(sketch, 18, 3), 1);
    emb_sketch_free(sketch);
}

static void test_a_full_set_drops_the_least_counted_longest_there(void)
{
    struct emb_sketch *sketch;
    CU_ASSERT_EQUAL_FATAL(emb_sketch_create(&sketch), CLU_OK);
    for (uint64_t key = 0; key < EMB_SKETCH_WAYS; key++)
        emb_sketch_add(sketch, 0, key);
    emb_sketch_add(sketch, 0, 0);
    emb_sketch_add(sketch, 0, 1000); /* drops key 1 */
    CU_ASSERT_EQUAL(emb_sketch_count(sketch), EMB_SKETCH_WAYS);
    CU_ASSERT_EQUAL(emb_sketch_add(sketch, 0, 0), 3);
    CU_ASSERT_EQUAL(emb_sketch_add(sketch, 0, 2), 2);
    CU_ASSERT_EQUAL(emb_sketch_add(sketch, 0, 1), 1);
    emb_sketch_free(sketch);
}

static void test_no_key_is_counted_more_often_than_it_came(void)
{
    enum { KEYS = 5000 };
    struct emb_sketch *sketch;
    static uint32_t came[KEYS];
    uint64_t random = suite_seed();
    CU_ASSERT_EQUAL_FATAL(emb_sketch_create(&sketch), CLU_OK);
    for (int i = 0; i < 200000; i++) { /* far more keys than two buckets hold */
        uint32_t key = (uint32_t)(suite_random(&random) % KEYS);
        uint32_t counted = emb_sketch_add(sketch, key % 2, key);
        came[key]++;
        if (counted > came[key] && counted < 255)
            CU_FAIL_FATAL("counted too often");
    }
    emb_sketch_free(sketch);
}

static void test_listing_copying_and_forgetting(void)
{
    struct emb_sketch *sketch, *copy;
    struct emb_candidate list[3];
    CU_ASSERT_EQUAL_FATAL(emb_sketch_create(&sketch), CLU_OK);
    emb_sketch_set(sketch, 5, 30, 2);
    emb_sketch_set(sketch, 4000, 10, 1);
    emb_sketch_set(sketch, 5, 20, 7);
    CU_ASSERT_EQUAL_FATAL(emb_sketch_dup(sketch, &copy), CLU_OK);
    emb_sketch_remove(sketch, 5, 30);
    emb_sketch_drop(sketch, 4000);
    CU_ASSERT_EQUAL(emb_sketch_count(sketch), 1);
    CU_ASSERT_EQUAL_FATAL(emb_sketch_count(copy), 3);
    emb_sketch_list(copy, list);
    CU_ASSERT(list[0].key == 10 && list[1].key == 20 && list[2].key == 30);
    CU_ASSERT(list[0].count == 1 && list[1].count == 7 && list[2].count == 2);
    emb_sketch_free(sketch);
    emb_sketch_free(copy);
}

SUITE("embeddings.sketch", T(test_counts_are_exact_while_sets_have_room),
      T(test_a_full_set_drops_the_least_counted_longest_there),
      T(test_no_key_is_counted_more_often_than_it_came), T(test_listing_copying_and_forgetting))

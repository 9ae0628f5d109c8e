/* Many keys looked up at once.
 *
 * A lookup touches one cache line at random, and which of its entries holds the key cannot be
 * foretold. So: the line is asked for AHEAD keys before it is read, and all its keys are compared,
 * with the widest registers there are. What the store says of itself is copied first: else every
 * slot that is stored could have changed it, and it is read again for each key (15 ns for 10).
 *
 * What it costs, 2 M rows, an index of 67 MB: 10 ns a key with 512-bit registers, 14 ns with plain
 * code; touching the line alone takes 7 ns. Tried without gain: keys whose home bucket was full
 * (one in a hundred to one in ten) put aside and looked up together; a loop for each stage.
 *
 * The ways are chosen by hand, not by target_clones: GCC lowers the vectors of inlined functions
 * before it makes clones.
 */
#include "embeddings/store.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAS_WAYS 1
#endif

enum { AHEAD = 32 };

/* A bit for each of the first entries of a bucket, in use or not, that hold a key. */
typedef uint32_t match_fn(const struct emb_bucket *bucket, uint64_t key);

static inline __attribute__((always_inline)) void locate(const struct emb_store *live,
                                                         const uint64_t *keys, size_t n,
                                                         uint32_t *slots, match_fn *match)
{
    const struct emb_store held = *live, *store = &held;
    const struct emb_bucket *home[AHEAD];
    for (size_t i = 0; i < n + AHEAD; i++) {
        if (i >= AHEAD) {
            const size_t at = i - AHEAD;
            const struct emb_bucket *bucket = home[at % AHEAD];
            uint32_t found = match(bucket, keys[at]) & (((uint32_t)1 << bucket->n) - 1);
            if (found)
                slots[at] = bucket->slot[__builtin_ctz(found)];
            else
                slots[at] = bucket->passed ? emb_store_find(live, keys[at]) : EMB_NO_SLOT;
        }
        if (i < n) {
            home[i % AHEAD] = emb_store_bucket(store, emb_store_hash(store, keys[i]));
            __builtin_prefetch(home[i % AHEAD], 0, 2);
        }
    }
}

static inline uint32_t match_plain(const struct emb_bucket *bucket, uint64_t key)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < EMB_BUCKET_ENTRIES; i++)
        found |= (uint32_t)(bucket->key[i] == key) << i;
    return found;
}

static void locate_plain(const struct emb_store *store, const uint64_t *keys, size_t n,
                         uint32_t *slots)
{
    locate(store, keys, n, slots, match_plain);
}

#ifdef HAS_WAYS

#define WITH_V3 __attribute__((target("arch=x86-64-v3")))
#define WITH_V4 __attribute__((target("arch=x86-64-v4")))

WITH_V3 static inline uint32_t match_v3(const struct emb_bucket *bucket, uint64_t key)
{
    const __m256i wanted = _mm256_set1_epi64x((long long)key);
    __m256i first = _mm256_load_si256((const void *)bucket->key);
    int found = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(first, wanted)));
    return (uint32_t)found | (uint32_t)(bucket->key[4] == key) << 4;
}

WITH_V3 static void locate_v3(const struct emb_store *store, const uint64_t *keys, size_t n,
                              uint32_t *slots)
{
    locate(store, keys, n, slots, match_v3);
}

/* Compares the slots behind the keys too: what matches there is no entry in use. */
WITH_V4 static inline uint32_t match_v4(const struct emb_bucket *bucket, uint64_t key)
{
    return _mm512_cmpeq_epi64_mask(_mm512_load_si512(bucket), _mm512_set1_epi64((long long)key));
}

WITH_V4 static void locate_v4(const struct emb_store *store, const uint64_t *keys, size_t n,
                              uint32_t *slots)
{
    locate(store, keys, n, slots, match_v4);
}

#endif

emb_locate_fn *emb_locate_way(int i)
{
    emb_locate_fn *ways[4] = {NULL};
    int n = 0;
#ifdef HAS_WAYS
    if (__builtin_cpu_supports("x86-64-v4"))
        ways[n++] = locate_v4;
    if (__builtin_cpu_supports("x86-64-v3"))
        ways[n++] = locate_v3;
#endif
    ways[n] = locate_plain;
    return i < 4 ? ways[i] : NULL;
}

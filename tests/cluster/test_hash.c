/* Keys, buckets and initial rows: the values here were computed apart (Python's xxhash and the
 * formulas of hash.h), since every server, worker and reader of an export must get the same ones
 * for ever. */
#include "tests/suite.h"

#include "cluster/hash.h"

#include <math.h>

static void test_mix_is_the_finaliser_of_splitmix64(void)
{
    CU_ASSERT_EQUAL(clu_mix(0), 0);
    CU_ASSERT_EQUAL(clu_mix(0x9e3779b97f4a7c15u),
                    0xe220a8397b1dcdafu); /* splitmix64's first of seed 0 */
}

static uint64_t key_of(const char *text)
{
    return clu_key_of_text(text, strlen(text));
}

static void test_an_integer_id_is_its_64_bits(void)
{
    CU_ASSERT_EQUAL(key_of("0"), 0);
    CU_ASSERT_EQUAL(key_of("42"), 42);
    CU_ASSERT_EQUAL(key_of("-1"), UINT64_MAX);
    CU_ASSERT_EQUAL(key_of("-8845298781299428018"), (uint64_t)-8845298781299428018);
    CU_ASSERT_EQUAL(key_of("18446744073709551615"), UINT64_MAX);
    CU_ASSERT_EQUAL(key_of("-9223372036854775808"), (uint64_t)1 << 63);
}

static void test_any_other_id_is_its_xxh3(void)
{
    static const char *const texts[] = {"",
                                        "i161",
                                        "007",
                                        "-0",
                                        "+1",
                                        "1.5",
                                        " 1",
                                        "1 ",
                                        "-",
                                        "18446744073709551616",
                                        "-9223372036854775809"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        CU_ASSERT_EQUAL(key_of(texts[i]), clu_hash_bytes(texts[i], strlen(texts[i])));
    CU_ASSERT_EQUAL(clu_hash_bytes("", 0), 0x2d06800538d394c2u); /* XXH3's own test vector */
}

static void test_a_new_row_has_the_value_of_the_formula(void)
{
    uint64_t seed = 7, table = clu_table_hash("item"), key = 12345;
    float row[5];
    clu_row_init(seed, table, key, 0.05f, 5, row);
    uint64_t h = clu_mix(clu_mix(seed + table) + key);
    for (int i = 0; i < 5; i++) {
        double unit =
            (double)(clu_mix(h + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u) >> 40) / 8388608.0;
        CU_ASSERT_DOUBLE_EQUAL(row[i], (unit - 1.0) * 0.05, 1e-9);
    }
}

static void test_new_rows_are_uniform_in_the_range(void)
{
    enum { N = 20000 };
    double sum = 0, squares = 0, largest = 0;
    for (uint64_t key = 0; key < N; key++) {
        float row[4];
        clu_row_init(1, clu_table_hash("user"), key, 0.5f, 4, row);
        for (int i = 0; i < 4; i++) {
            sum += row[i];
            squares += (double)row[i] * row[i];
            largest = fmax(largest, fabs(row[i]));
        }
    }
    CU_ASSERT(fabs(sum / (4.0 * N)) < 0.005);
    CU_ASSERT(fabs(squares / (4.0 * N) - 0.25 / 3) < 0.001);
    CU_ASSERT(largest <= 0.5 && largest > 0.499);
}

static void test_consecutive_keys_spread_over_all_buckets(void)
{
    static int count[CLU_N_BUCKETS];
    memset(count, 0, sizeof(count));
    for (uint64_t key = 0; key < 64 * CLU_N_BUCKETS; key++) {
        uint32_t bucket = clu_bucket_of(clu_table_hash("item"), key);
        CU_ASSERT_FATAL(bucket < CLU_N_BUCKETS);
        count[bucket]++;
    }
    int fewest = count[0], most = count[0];
    for (int b = 1; b < CLU_N_BUCKETS; b++) {
        fewest = count[b] < fewest ? count[b] : fewest;
        most = count[b] > most ? count[b] : most;
    }
    CU_ASSERT(fewest > 24 && most < 120); /* Poisson of mean 64 */
}

SUITE("cluster.hash", T(test_mix_is_the_finaliser_of_splitmix64),
      T(test_an_integer_id_is_its_64_bits), T(test_any_other_id_is_its_xxh3),
      T(test_a_new_row_has_the_value_of_the_formula), T(test_new_rows_are_uniform_in_the_range),
      T(test_consecutive_keys_spread_over_all_buckets))

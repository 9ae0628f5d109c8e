#include "tests/suite.h"

#include "cluster/pack.h"
#include "cluster/status.h"

#include <math.h>

/* Writes one of everything. */
static void write_sample(struct clu_packer *packer)
{
    clu_pack_map(packer, 2);
    clu_pack_text(packer, "list");
    clu_pack_array(packer, 9);
    clu_pack_nil(packer);
    clu_pack_bool(packer, true);
    clu_pack_uint(packer, UINT64_MAX);
    clu_pack_int(packer, INT64_MIN);
    clu_pack_int(packer, -7);
    clu_pack_float(packer, 1.5f);
    clu_pack_real(packer, -0.1);
    clu_pack_text_n(packer, "a\0b", 3);
    clu_pack_bin(packer, "\x01\x02", 2);
    clu_pack_text(packer, "end");
    clu_pack_uint(packer, 3);
}

/* Reads it back; the status of the first call that fails. */
static int read_sample(const void *data, size_t size)
{
    struct clu_unpacker in;
    size_t n = 0, bytes = 0;
    bool match = false, flag = false;
    uint64_t u = 0;
    int64_t i = 0, j = 0;
    double x = 0, y = 0;
    const char *text = NULL;
    const void *bin = NULL;
    clu_unpacker_init(&in, data, size);
    int status = clu_unpack_map(&in, &n);
    status = status ? status : clu_unpack_key_is(&in, "list", &match);
    status = status ? status : clu_unpack_array(&in, &n);
    status = status ? status : clu_unpack_nil(&in);
    status = status ? status : clu_unpack_bool(&in, &flag);
    status = status ? status : clu_unpack_uint(&in, &u);
    status = status ? status : clu_unpack_int(&in, &i);
    status = status ? status : clu_unpack_int(&in, &j);
    status = status ? status : clu_unpack_real(&in, &x);
    status = status ? status : clu_unpack_real(&in, &y);
    status = status ? status : clu_unpack_text(&in, &text, &bytes);
    status = status ? status : clu_unpack_bin(&in, &bin, &bytes);
    status = status ? status : clu_unpack_skip(&in);
    status = status ? status : clu_unpack_skip(&in);
    if (status != CLU_OK)
        return status;
    CU_ASSERT(match && n == 9 && flag && u == UINT64_MAX && i == INT64_MIN && j == -7);
    CU_ASSERT(x == 1.5 && y == -0.1 && memcmp(text, "a\0b", 3) == 0 &&
              memcmp(bin, "\x01\x02", 2) == 0);
    CU_ASSERT(clu_unpack_at_end(&in));
    return CLU_OK;
}

static void test_what_is_written_reads_back(void)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    write_sample(&packer);
    CU_ASSERT_EQUAL(clu_packer_status(&packer), CLU_OK);
    CU_ASSERT_EQUAL(read_sample(packer.data, packer.size_bytes), CLU_OK);
    clu_packer_fini(&packer);
}

static void test_a_cut_at_any_byte_is_a_protocol_error(void)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    write_sample(&packer);
    for (size_t size = 0; size < packer.size_bytes; size++) {
        char *cut = malloc(size + 1); /* its own block, so that a sanitizer sees a read past it */
        CU_ASSERT_FATAL(cut != NULL);
        char *exact = realloc(cut, size ? size : 1);
        memcpy(exact, packer.data, size);
        CU_ASSERT_EQUAL(read_sample(exact, size), CLU_E_PROTOCOL);
        free(exact);
    }
    clu_packer_fini(&packer);
}

static void test_another_type_is_refused_and_not_consumed_as_one(void)
{
    static const uint8_t text[] = {0xa1, 'x'}, negative[] = {0xff},
                         big[] = {0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0};
    struct clu_unpacker in;
    uint64_t u;
    int64_t i;
    clu_unpacker_init(&in, text, sizeof(text));
    CU_ASSERT_EQUAL(clu_unpack_uint(&in, &u), CLU_E_PROTOCOL);
    CU_ASSERT_EQUAL(clu_unpack_skip(&in), CLU_OK);
    clu_unpacker_init(&in, negative, sizeof(negative));
    CU_ASSERT_EQUAL(clu_unpack_uint(&in, &u), CLU_E_PROTOCOL);
    CU_ASSERT_EQUAL(clu_unpack_bits(&in, &u), CLU_OK);
    CU_ASSERT_EQUAL(u, UINT64_MAX);
    clu_unpacker_init(&in, big, sizeof(big));
    CU_ASSERT_EQUAL(clu_unpack_int(&in, &i), CLU_E_PROTOCOL);
}

static void test_a_container_larger_than_the_message_is_refused(void)
{
    static const uint8_t array[] = {0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0};
    static const uint8_t map[] = {0x82, 0xc0, 0xc0, 0xc0}; /* two pairs, three items */
    struct clu_unpacker in;
    size_t n;
    clu_unpacker_init(&in, array, sizeof(array));
    CU_ASSERT_EQUAL(clu_unpack_array(&in, &n), CLU_E_PROTOCOL);
    clu_unpacker_init(&in, map, sizeof(map));
    CU_ASSERT_EQUAL(clu_unpack_map(&in, &n), CLU_E_PROTOCOL);
    CU_ASSERT_EQUAL(clu_unpack_skip(&in), CLU_E_PROTOCOL);
    CU_ASSERT_EQUAL(in.at, 0);
}

static void test_nesting_without_end_is_refused(void)
{
    uint8_t deep[4096];
    memset(deep, 0x91, sizeof(deep)); /* arrays of one array of one array ... */
    struct clu_unpacker in;
    clu_unpacker_init(&in, deep, sizeof(deep));
    CU_ASSERT_EQUAL(clu_unpack_skip(&in), CLU_E_PROTOCOL);
}

static void test_random_bytes_never_lead_past_the_end(void)
{
    uint64_t random = suite_seed();
    for (int round = 0; round < 20000; round++) {
        size_t size = suite_random(&random) % 24;
        uint8_t *bytes = malloc(size ? size : 1);
        CU_ASSERT_FATAL(bytes != NULL);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)suite_random(&random);
        struct clu_unpacker in;
        clu_unpacker_init(&in, bytes, size);
        while (clu_unpack_skip(&in) == CLU_OK)
            CU_ASSERT(in.at <= size);
        CU_ASSERT(in.at <= size);
        free(bytes);
    }
}

SUITE("cluster.pack", T(test_what_is_written_reads_back),
      T(test_a_cut_at_any_byte_is_a_protocol_error),
      T(test_another_type_is_refused_and_not_consumed_as_one),
      T(test_a_container_larger_than_the_message_is_refused),
      T(test_nesting_without_end_is_refused), T(test_random_bytes_never_lead_past_the_end))

/* The headers' bytes are fixed; a cut, a flip or noise is refused, never read past. */
#include "cluster/status.h"
#include "cluster/wire.h"
#include "tests/suite.h"

#include <math.h>
#include <msgpack.h>

static struct clu_wire_request example(void)
{
    struct clu_wire_request request = {
        .op = CLU_WIRE_PULL,
        .dtype = CLU_WIRE_FP32,
        .rank = 1,
        .owners = 1,
        .deadline_ms = 1000,
        .incarnation = 7,
        .seq = 9,
        .step = 3,
        .n_parts = 1,
    };
    request.part[0] = (struct clu_wire_part){2, 2};
    return request;
}

static void test_a_request_has_the_bytes_of_the_worked_example(void)
{
    static const unsigned char golden[] = {
        0x9b, 0x02, 0x02, 0x01, 0xce, 0, 0,    0, 1, 0xcf, 0, 0,    0,    0, 0,
        0,    0,    7,    0xcf, 0,    0, 0,    0, 0, 0,    0, 9,    0xcf, 0, 0,
        0,    0,    0,    0,    0,    3, 0xce, 0, 0, 0,    1, 0xce, 0,    0, 0x03,
        0xe8, 0x91, 0x92, 0xcd, 0,    2, 0xce, 0, 0, 0,    2, 0xc4, 0};
    unsigned char bytes[256];
    struct clu_wire_request request = example();
    CU_ASSERT_EQUAL(clu_wire_request_size(&request), sizeof(golden));
    CU_ASSERT_EQUAL(clu_wire_encode_request(&request, bytes), sizeof(golden));
    CU_ASSERT(!memcmp(bytes, golden, sizeof(golden)));
}

static void test_a_reply_has_the_bytes_of_the_worked_example(void)
{
    static const unsigned char golden[] = {0x97, 0x02, 0x02, 0x01, 0xd0, 0, 0xcf, 0, 0,
                                           0,    0,    0,    0,    0,    9, 0xcf, 0, 0,
                                           0,    0,    0,    0,    0,    2, 0xc4, 0};
    unsigned char bytes[64];
    struct clu_wire_reply reply = {
        .op = CLU_WIRE_PULL, .dtype = CLU_WIRE_FP32, .seq = 9, .step = 2};
    CU_ASSERT_EQUAL(clu_wire_reply_size(&reply), sizeof(golden));
    CU_ASSERT_EQUAL(clu_wire_encode_reply(&reply, bytes), sizeof(golden));
    CU_ASSERT(!memcmp(bytes, golden, sizeof(golden)));
}

static void test_the_headers_are_msgpack_that_any_library_reads(void)
{
    unsigned char bytes[256];
    struct clu_wire_request request = example();
    size_t size = clu_wire_encode_request(&request, bytes);
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    CU_ASSERT_EQUAL(msgpack_unpack_next(&message, (const char *)bytes, size, NULL),
                    MSGPACK_UNPACK_SUCCESS);
    CU_ASSERT_EQUAL(message.data.type, MSGPACK_OBJECT_ARRAY);
    CU_ASSERT_EQUAL(message.data.via.array.size, 11);
    CU_ASSERT_EQUAL(message.data.via.array.ptr[4].via.u64, 7);
    msgpack_unpacked_destroy(&message);
}

static void test_what_is_written_is_read_back(void)
{
    static unsigned char bytes[64 << 10];
    static char text[CLU_WIRE_MAX_TEXT];
    static struct clu_wire_request request, back;
    uint64_t random = suite_seed();
    const char *reason;
    for (int round = 0; round < 200; round++) {
        request.op = 1 + (int)(suite_random(&random) % (CLU_WIRE_N_OPS - 1));
        request.dtype = (int)(suite_random(&random) % CLU_WIRE_N_DTYPES);
        request.rank = (uint32_t)suite_random(&random);
        request.owners = (uint32_t)suite_random(&random);
        request.deadline_ms = (uint32_t)suite_random(&random);
        request.incarnation = suite_random(&random);
        request.seq = suite_random(&random) >> (suite_random(&random) % 64);
        request.step = suite_random(&random);
        request.n_parts = (int)(suite_random(&random) % (CLU_WIRE_MAX_PARTS + 1));
        uint64_t n_keys = 0;
        for (int i = 0; i < request.n_parts; i++) {
            request.part[i].table = (uint16_t)suite_random(&random);
            request.part[i].n = (uint32_t)(suite_random(&random) % 10000);
            n_keys += request.part[i].n;
        }
        request.text = text;
        request.n_text = (uint32_t)(suite_random(&random) % sizeof(text));
        size_t size = clu_wire_encode_request(&request, bytes);
        CU_ASSERT_EQUAL_FATAL(size, clu_wire_request_size(&request));
        CU_ASSERT_EQUAL_FATAL(clu_wire_decode_request(bytes, size, &back, &reason), 0);
        CU_ASSERT(back.op == request.op && back.dtype == request.dtype &&
                  back.rank == request.rank && back.owners == request.owners &&
                  back.deadline_ms == request.deadline_ms &&
                  back.incarnation == request.incarnation && back.seq == request.seq &&
                  back.step == request.step && back.n_parts == request.n_parts &&
                  back.n_keys == n_keys && back.n_text == request.n_text);
        CU_ASSERT(
            !memcmp(back.part, request.part, (size_t)request.n_parts * sizeof(request.part[0])));
    }
}

static void test_a_header_cut_at_any_byte_is_refused(void)
{
    unsigned char bytes[256];
    struct clu_wire_request request = example(), back;
    struct clu_wire_reply reply = {.op = CLU_WIRE_PUSH,
                                   .status = CLU_E_AGAIN,
                                   .seq = 1,
                                   .text = "no room",
                                   .n_text = 7},
                          reply_back;
    const char *reason;
    size_t size = clu_wire_encode_request(&request, bytes);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees a read beyond */
        memcpy(exact, bytes, cut);
        CU_ASSERT_EQUAL(clu_wire_decode_request(exact, cut, &back, &reason), CLU_E_PROTOCOL);
        free(exact);
    }
    bytes[size] = 0;
    CU_ASSERT_EQUAL(clu_wire_decode_request(bytes, size + 1, &back, &reason), CLU_E_PROTOCOL);
    size = clu_wire_encode_reply(&reply, bytes);
    CU_ASSERT_EQUAL(clu_wire_decode_reply(bytes, size, &reply_back), 0);
    CU_ASSERT_EQUAL(reply_back.status, CLU_E_AGAIN);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *exact = malloc(cut ? cut : 1);
        memcpy(exact, bytes, cut);
        CU_ASSERT_EQUAL(clu_wire_decode_reply(exact, cut, &reply_back), CLU_E_PROTOCOL);
        free(exact);
    }
}

static void test_what_is_beyond_a_limit_is_refused_with_a_reason(void)
{
    unsigned char bytes[4096];
    static struct clu_wire_request request, back;
    const char *reason;
    request = example();
    request.part[0].n = CLU_WIRE_MAX_KEYS + 1;
    size_t size = clu_wire_encode_request(&request, bytes);
    CU_ASSERT_EQUAL(clu_wire_decode_request(bytes, size, &back, &reason), CLU_E_PROTOCOL);
    CU_ASSERT_STRING_EQUAL(reason, "parts");
    request = example();
    request.op = CLU_WIRE_N_OPS;
    size = clu_wire_encode_request(&request, bytes);
    CU_ASSERT_EQUAL(clu_wire_decode_request(bytes, size, &back, &reason), CLU_E_PROTOCOL);
    CU_ASSERT_STRING_EQUAL(reason, "op");
    request = example();
    size = clu_wire_encode_request(&request, bytes);
    bytes[1] = CLU_WIRE_VERSION + 1;
    CU_ASSERT_EQUAL(clu_wire_decode_request(bytes, size, &back, &reason), CLU_E_PROTOCOL);
    CU_ASSERT_STRING_EQUAL(reason, "version");
}

static void test_noise_is_refused_or_obeys_every_limit(void)
{
    uint64_t random = suite_seed();
    static struct clu_wire_request back;
    struct clu_wire_request request = example();
    unsigned char bytes[256];
    const char *reason;
    size_t size = clu_wire_encode_request(&request, bytes);
    for (int round = 0; round < 200000; round++) {
        unsigned char flipped[256];
        memcpy(flipped, bytes, size);
        for (int i = 0; i < 1 + (int)(round % 5); i++)
            flipped[suite_random(&random) % size] = (unsigned char)suite_random(&random);
        if (clu_wire_decode_request(flipped, size, &back, &reason))
            continue;
        uint64_t sum = 0;
        for (int i = 0; i < back.n_parts; i++)
            sum += back.part[i].n;
        CU_ASSERT_FATAL(back.n_parts <= CLU_WIRE_MAX_PARTS && sum == back.n_keys &&
                        sum <= CLU_WIRE_MAX_KEYS && back.n_text <= size);
    }
}

static void test_coded_keys_have_the_bytes_of_the_worked_example(void)
{
    static const unsigned char golden[] = {2, 5, 0, 1, 0, 0x26, 1};
    static const uint64_t keys[] = {5, 6, 300};
    struct clu_wire_part part = {0, 3};
    unsigned char bytes[sizeof(golden)];
    uint64_t back[3];
    CU_ASSERT_EQUAL_FATAL(clu_wire_coded_keys_size(&part, 1, keys), sizeof(golden));
    clu_wire_encode_keys(&part, 1, keys, bytes, sizeof(bytes));
    CU_ASSERT(!memcmp(bytes, golden, sizeof(golden)));
    CU_ASSERT(clu_wire_are_coded_keys(sizeof(golden), 3));
    CU_ASSERT_EQUAL(clu_wire_decode_keys(golden, sizeof(golden), &part, 1, back), 0);
    CU_ASSERT(!memcmp(back, keys, sizeof(keys)));
    bytes[0] = 9;
    CU_ASSERT_EQUAL(clu_wire_decode_keys(bytes, sizeof(bytes), &part, 1, back), CLU_E_PROTOCOL);
    bytes[0] = 0;
    CU_ASSERT_EQUAL(clu_wire_decode_keys(bytes, sizeof(bytes), &part, 1, back), CLU_E_PROTOCOL);
}

/* Blocks have their exact size, so that a sanitizer sees any byte too much. */
static void test_coded_keys_are_read_back_and_refused_when_cut_anywhere(void)
{
    uint64_t random = suite_seed();
    for (int round = 0; round < 200; round++) {
        struct clu_wire_part part[3];
        size_t n = 0;
        for (int p = 0; p < 3; p++) {
            part[p] = (struct clu_wire_part){(uint16_t)p, (uint32_t)(suite_random(&random) % 200)};
            n += part[p].n;
        }
        uint64_t *keys = malloc(n * sizeof(*keys) + 1), *back = malloc(n * sizeof(*keys) + 1);
        uint64_t key = 0, gap = (uint64_t)1 << suite_random(&random) % 63;
        for (size_t i = 0; i < n; i++)
            keys[i] = round % 4 ? (key += 1 + suite_random(&random) % gap) : suite_random(&random);
        size_t size = clu_wire_coded_keys_size(part, 3, keys);
        unsigned char *bytes = malloc(size + 1);
        clu_wire_encode_keys(part, 3, keys, bytes, size);
        CU_ASSERT_EQUAL(clu_wire_decode_keys(bytes, size, part, 3, back), 0);
        CU_ASSERT(!memcmp(back, keys, n * sizeof(*keys)));
        for (int i = 0; i < 20 && size; i++) {
            size_t cut = suite_random(&random) % size;
            unsigned char *shorter = malloc(cut + 1);
            memcpy(shorter, bytes, cut);
            CU_ASSERT_EQUAL(clu_wire_decode_keys(shorter, cut, part, 3, back), CLU_E_PROTOCOL);
            free(shorter);
        }
        CU_ASSERT_EQUAL(clu_wire_decode_keys(bytes, size + 1, part, 3, back), CLU_E_PROTOCOL);
        free(bytes);
        free(back);
        free(keys);
    }
}

static void test_bf16_rounds_to_nearest_even_and_keeps_nan(void)
{
    const float from[] = {1.0f, 1.00390625f, 1.01171875f, -2.5f, INFINITY, -INFINITY,
                          NAN,  3.4e38f,     0.0f,        -0.0f, 1e-40f};
    enum { N = sizeof(from) / sizeof(from[0]) };
    uint16_t half[N];
    float back[N];
    clu_wire_to_bf16(from, N, half);
    clu_wire_from_bf16(half, N, back);
    CU_ASSERT_EQUAL(half[0], 0x3f80);
    CU_ASSERT_EQUAL(half[1], 0x3f80); /* a tie goes to even */
    CU_ASSERT_EQUAL(half[2], 0x3f82);
    CU_ASSERT_EQUAL(back[3], -2.5f);
    CU_ASSERT(isinf(back[4]) && back[4] > 0 && isinf(back[5]) && back[5] < 0);
    CU_ASSERT(isnan(back[6]));
    CU_ASSERT(isinf(back[7]));
    CU_ASSERT(back[8] == 0 && !signbit(back[8]) && signbit(back[9]));
    for (uint32_t i = 0; i < 65536; i++) { /* every bf16 comes back as itself */
        uint16_t all = (uint16_t)i, again;
        float value;
        clu_wire_from_bf16(&all, 1, &value);
        clu_wire_to_bf16(&value, 1, &again);
        if (!isnan(value))
            CU_ASSERT_EQUAL(again, all);
    }
}

SUITE("cluster.wire", T(test_a_request_has_the_bytes_of_the_worked_example),
      T(test_a_reply_has_the_bytes_of_the_worked_example),
      T(test_the_headers_are_msgpack_that_any_library_reads), T(test_what_is_written_is_read_back),
      T(test_a_header_cut_at_any_byte_is_refused),
      T(test_what_is_beyond_a_limit_is_refused_with_a_reason),
      T(test_noise_is_refused_or_obeys_every_limit),
      T(test_coded_keys_have_the_bytes_of_the_worked_example),
      T(test_coded_keys_are_read_back_and_refused_when_cut_anywhere),
      T(test_bf16_rounds_to_nearest_even_and_keeps_nan))

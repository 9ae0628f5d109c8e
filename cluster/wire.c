/* Encoding and decoding of the two headers that wire.h describes.
 *
 * The writer uses msgpack's fixed-width packers, so that every offset of the tables in wire.h is a
 * constant; the reader walks with the bounds-checked unpacker, which allocates nothing, and takes
 * any width. Whatever a reader accepts obeys every limit of wire.h, ends exactly at the frame's
 * end, and its n_keys is the exact sum of its parts (I1); callers size their buffers by that.
 */
#include "cluster/wire.h"

#include "cluster/pack.h"
#include "cluster/status.h"

#include <msgpack.h>
#include <string.h>

struct cursor {
    unsigned char *at;
};

static int write_bytes(void *data, const char *bytes, size_t size)
{
    struct cursor *cursor = data;
    if (size) /* an empty text may be NULL */
        memcpy(cursor->at, bytes, size);
    cursor->at += size;
    return 0;
}

static size_t array_head(size_t n)
{
    return n < 16 ? 1 : 3;
}

static size_t bin_head(size_t n)
{
    return n < 256 ? 2 : 3;
}

size_t clu_wire_request_size(const struct clu_wire_request *request)
{
    size_t n_parts = (size_t)request->n_parts;
    return CLU_WIRE_REQUEST_FIXED + array_head(n_parts) + n_parts * CLU_WIRE_PART_SIZE +
           bin_head(request->n_text) + request->n_text;
}

size_t clu_wire_encode_request(const struct clu_wire_request *request, void *buffer)
{
    struct cursor cursor = {buffer};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &cursor, write_bytes);
    msgpack_pack_array(&packer, 11);
    msgpack_pack_uint8(&packer, CLU_WIRE_VERSION);
    msgpack_pack_uint8(&packer, (uint8_t)request->op);
    msgpack_pack_uint8(&packer, (uint8_t)(request->dtype | (request->coded ? CLU_WIRE_CODED : 0)));
    msgpack_pack_fix_uint32(&packer, request->rank);
    msgpack_pack_fix_uint64(&packer, request->incarnation);
    msgpack_pack_fix_uint64(&packer, request->seq);
    msgpack_pack_fix_uint64(&packer, request->step);
    msgpack_pack_fix_uint32(&packer, request->owners);
    msgpack_pack_fix_uint32(&packer, request->deadline_ms);
    msgpack_pack_array(&packer, (size_t)request->n_parts);
    for (int i = 0; i < request->n_parts; i++) {
        msgpack_pack_array(&packer, 2);
        msgpack_pack_fix_uint16(&packer, request->part[i].table);
        msgpack_pack_fix_uint32(&packer, request->part[i].n);
    }
    msgpack_pack_bin(&packer, request->n_text);
    msgpack_pack_bin_body(&packer, request->text, request->n_text);
    return (size_t)(cursor.at - (unsigned char *)buffer);
}

/* an unsigned number of at most max */
static int read_uint(struct clu_unpacker *unpacker, uint64_t max, uint64_t *value_p)
{
    uint64_t value;
    if (clu_unpack_uint(unpacker, &value) || value > max)
        return CLU_E_PROTOCOL;
    *value_p = value;
    return 0;
}

static int read_text(struct clu_unpacker *unpacker, const char **text_p, uint32_t *n_p)
{
    const void *data;
    size_t size;
    if (clu_unpack_bin(unpacker, &data, &size) || size > CLU_WIRE_MAX_TEXT ||
        !clu_unpack_at_end(unpacker))
        return CLU_E_PROTOCOL;
    *text_p = data;
    *n_p = (uint32_t)size;
    return 0;
}

static int read_parts(struct clu_unpacker *unpacker, struct clu_wire_request *request)
{
    size_t n, two;
    uint64_t table, n_keys;
    request->n_keys = 0;
    if (clu_unpack_array(unpacker, &n) || n > CLU_WIRE_MAX_PARTS)
        return CLU_E_PROTOCOL;
    for (size_t i = 0; i < n; i++) {
        if (clu_unpack_array(unpacker, &two) || two != 2 ||
            read_uint(unpacker, UINT16_MAX, &table) ||
            read_uint(unpacker, CLU_WIRE_MAX_KEYS, &n_keys))
            return CLU_E_PROTOCOL;
        request->part[i] = (struct clu_wire_part){(uint16_t)table, (uint32_t)n_keys};
        request->n_keys += n_keys;
        if (request->n_keys > CLU_WIRE_MAX_KEYS)
            return CLU_E_PROTOCOL;
    }
    request->n_parts = (int)n;
    return 0;
}

int clu_wire_decode_request(const void *data, size_t size_bytes, struct clu_wire_request *request_p,
                            const char **reason_p)
{
    struct clu_unpacker unpacker;
    size_t n;
    uint64_t version, op, dtype, rank, owners, deadline_ms;
    clu_unpacker_init(&unpacker, data, size_bytes);
    *reason_p = "header";
    if (clu_unpack_array(&unpacker, &n) || n < 1 || read_uint(&unpacker, UINT16_MAX, &version))
        return CLU_E_PROTOCOL;
    if (version != CLU_WIRE_VERSION) {
        *reason_p = "version";
        return CLU_E_PROTOCOL;
    }
    if (n != 11 || read_uint(&unpacker, 255, &op) || read_uint(&unpacker, 255, &dtype))
        return CLU_E_PROTOCOL;
    request_p->coded = dtype & CLU_WIRE_CODED;
    dtype &= ~(uint64_t)CLU_WIRE_CODED;
    if (op < CLU_WIRE_HELLO || op >= CLU_WIRE_N_OPS || dtype >= CLU_WIRE_N_DTYPES) {
        *reason_p = "op";
        return CLU_E_PROTOCOL;
    }
    request_p->op = (int)op;
    request_p->dtype = (int)dtype;
    if (read_uint(&unpacker, UINT32_MAX, &rank) ||
        read_uint(&unpacker, UINT64_MAX, &request_p->incarnation) ||
        read_uint(&unpacker, UINT64_MAX, &request_p->seq) ||
        read_uint(&unpacker, UINT64_MAX, &request_p->step) ||
        read_uint(&unpacker, UINT32_MAX, &owners) || read_uint(&unpacker, UINT32_MAX, &deadline_ms))
        return CLU_E_PROTOCOL;
    request_p->rank = (uint32_t)rank;
    request_p->owners = (uint32_t)owners;
    request_p->deadline_ms = (uint32_t)deadline_ms;
    *reason_p = "parts";
    int status = read_parts(&unpacker, request_p);
    if (status)
        return status;
    *reason_p = "text";
    return read_text(&unpacker, &request_p->text, &request_p->n_text);
}

size_t clu_wire_reply_size(const struct clu_wire_reply *reply)
{
    return CLU_WIRE_REPLY_FIXED + bin_head(reply->n_text) + reply->n_text;
}

size_t clu_wire_encode_reply(const struct clu_wire_reply *reply, void *buffer)
{
    struct cursor cursor = {buffer};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &cursor, write_bytes);
    msgpack_pack_array(&packer, 7);
    msgpack_pack_uint8(&packer, CLU_WIRE_VERSION);
    msgpack_pack_uint8(&packer, (uint8_t)reply->op);
    msgpack_pack_uint8(&packer, (uint8_t)reply->dtype);
    msgpack_pack_fix_int8(&packer, (int8_t)reply->status);
    msgpack_pack_fix_uint64(&packer, reply->seq);
    msgpack_pack_fix_uint64(&packer, reply->step);
    msgpack_pack_bin(&packer, reply->n_text);
    msgpack_pack_bin_body(&packer, reply->text, reply->n_text);
    return (size_t)(cursor.at - (unsigned char *)buffer);
}

int clu_wire_decode_reply(const void *data, size_t size_bytes, struct clu_wire_reply *reply_p)
{
    struct clu_unpacker unpacker;
    size_t n;
    uint64_t version, op, dtype;
    int64_t status;
    clu_unpacker_init(&unpacker, data, size_bytes);
    if (clu_unpack_array(&unpacker, &n) || n != 7 || read_uint(&unpacker, UINT16_MAX, &version) ||
        version != CLU_WIRE_VERSION || read_uint(&unpacker, CLU_WIRE_N_OPS - 1, &op) ||
        read_uint(&unpacker, CLU_WIRE_N_DTYPES - 1, &dtype) || clu_unpack_int(&unpacker, &status) ||
        status > 0 || status <= -CLU_ORDINAL_END ||
        read_uint(&unpacker, UINT64_MAX, &reply_p->seq) ||
        read_uint(&unpacker, UINT64_MAX, &reply_p->step))
        return CLU_E_PROTOCOL;
    reply_p->op = (int)op;
    reply_p->dtype = (int)dtype;
    reply_p->status = (int)status;
    return read_text(&unpacker, &reply_p->text, &reply_p->n_text);
}

size_t clu_wire_dtype_size(int dtype)
{
    return dtype == CLU_WIRE_FP32 ? 4 : dtype == CLU_WIRE_BF16 ? 2 : 0;
}

int clu_wire_dtype_of(const char *name)
{
    if (!strcmp(name, "bf16") || !strcmp(name, "bf16_feedback"))
        return CLU_WIRE_BF16;
    return !strcmp(name, "fp32") ? CLU_WIRE_FP32 : 0;
}

void clu_wire_to_bf16(const float *from, size_t n, uint16_t *to_p)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof(bits));
        uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
        uint32_t is_nan = (bits & 0x7fffffff) > 0x7f800000;
        /* rounding could turn a NaN into an infinity: keep its top half, with a bit set */
        to_p[i] = (uint16_t)((is_nan ? bits | 0x400000 : rounded) >> 16);
    }
}

void clu_wire_from_bf16(const void *from, size_t n, float *to_p)
{
    const unsigned char *at = from;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, at + 2 * i, sizeof(half));
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&to_p[i], &bits, sizeof(bits));
    }
}

/* Writing goes through msgpack-c's packer with a buffer of ours as its sink. Reading is by a cursor
 * over the format bytes instead of msgpack-c's object tree: a tree allocates per item and per
 * message, and its lifetime would tie views to a zone. The cursor knows the whole format (spec of
 * 2013), reads nothing past the buffer (I1: every length is compared with what is left before it is
 * used), and allocates nothing.
 */
#include "cluster/pack.h"

#include "cluster/status.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32 };

/* ---- writer ---- */

void clu_packer_init(struct clu_packer *packer)
{
    *packer = (struct clu_packer){0};
}

void clu_packer_fini(struct clu_packer *packer)
{
    free(packer->data);
    *packer = (struct clu_packer){0};
}

void clu_packer_clear(struct clu_packer *packer)
{
    packer->size_bytes = 0;
    packer->status = CLU_OK;
}

int clu_packer_status(const struct clu_packer *packer)
{
    return packer->status;
}

static int sink(void *data, const char *bytes, size_t size)
{
    struct clu_packer *packer = data;
    if (packer->status != CLU_OK)
        return -1;
    if (size > packer->capacity - packer->size_bytes) {
        size_t capacity = packer->capacity ? packer->capacity : 256;
        while (capacity - packer->size_bytes < size)
            capacity *= 2;
        char *grown = realloc(packer->data, capacity);
        if (!grown) {
            packer->status = CLU_E_NO_MEMORY;
            return -1;
        }
        packer->data = grown;
        packer->capacity = capacity;
    }
    if (size > 0)
        memcpy(packer->data + packer->size_bytes, bytes, size);
    packer->size_bytes += size;
    return 0;
}

static msgpack_packer to(struct clu_packer *packer)
{
    msgpack_packer target;
    msgpack_packer_init(&target, packer, sink);
    return target;
}

void clu_pack_nil(struct clu_packer *packer)
{
    msgpack_packer target = to(packer);
    msgpack_pack_nil(&target);
}

void clu_pack_bool(struct clu_packer *packer, bool value)
{
    msgpack_packer target = to(packer);
    if (value)
        msgpack_pack_true(&target);
    else
        msgpack_pack_false(&target);
}

void clu_pack_uint(struct clu_packer *packer, uint64_t value)
{
    msgpack_packer target = to(packer);
    msgpack_pack_uint64(&target, value);
}

void clu_pack_int(struct clu_packer *packer, int64_t value)
{
    msgpack_packer target = to(packer);
    msgpack_pack_int64(&target, value);
}

void clu_pack_float(struct clu_packer *packer, float value)
{
    msgpack_packer target = to(packer);
    msgpack_pack_float(&target, value);
}

void clu_pack_real(struct clu_packer *packer, double value)
{
    msgpack_packer target = to(packer);
    msgpack_pack_double(&target, value);
}

void clu_pack_text_n(struct clu_packer *packer, const char *text, size_t size_bytes)
{
    msgpack_packer target = to(packer);
    msgpack_pack_str(&target, size_bytes);
    msgpack_pack_str_body(&target, text, size_bytes);
}

void clu_pack_text(struct clu_packer *packer, const char *text)
{
    clu_pack_text_n(packer, text, strlen(text));
}

void clu_pack_bin(struct clu_packer *packer, const void *data, size_t size_bytes)
{
    msgpack_packer target = to(packer);
    msgpack_pack_bin(&target, size_bytes);
    msgpack_pack_bin_body(&target, data, size_bytes);
}

void clu_pack_array(struct clu_packer *packer, size_t n)
{
    msgpack_packer target = to(packer);
    msgpack_pack_array(&target, n);
}

void clu_pack_map(struct clu_packer *packer, size_t n)
{
    msgpack_packer target = to(packer);
    msgpack_pack_map(&target, n);
}

/* ---- reader ---- */

void clu_unpacker_init(struct clu_unpacker *unpacker, const void *data, size_t size_bytes)
{
    *unpacker = (struct clu_unpacker){data, size_bytes, 0};
}

bool clu_unpack_at_end(const struct clu_unpacker *unpacker)
{
    return unpacker->at == unpacker->size_bytes;
}

/* One item's head: its kind, how many bytes the head takes, and the number in it (a value, a length
 * or a count). */
struct head {
    enum clu_pack_kind kind;
    size_t head_bytes;
    uint64_t
        number; /* bits of the value for INTEGER and REAL; 0/1 for BOOL; bytes or items otherwise */
    bool negative; /* INTEGER: number is the bits of an int64 below zero */
    bool wide;     /* REAL: number is the bits of a double, else of a float */
};

static uint64_t big_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* A head with a big-endian number of n bytes behind the type byte. */
static int head_number(const struct clu_unpacker *unpacker, enum clu_pack_kind kind, int n,
                       size_t extra_bytes, struct head *head_p)
{
    if (unpacker->size_bytes - unpacker->at < (size_t)n + 1) /* (I1) */
        return CLU_E_PROTOCOL;
    *head_p = (struct head){.kind = kind,
                            .head_bytes = (size_t)n + 1 + extra_bytes,
                            .number = big_endian(unpacker->data + unpacker->at + 1, n)};
    return CLU_OK;
}

static int head_signed(const struct clu_unpacker *unpacker, int n, struct head *head_p)
{
    int status = head_number(unpacker, CLU_PACK_INTEGER, n, 0, head_p);
    if (status != CLU_OK)
        return status;
    int shift = 64 - 8 * n;
    int64_t value = (int64_t)(head_p->number << shift) >> shift;
    head_p->number = (uint64_t)value;
    head_p->negative = value < 0;
    return CLU_OK;
}

static int read_head(const struct clu_unpacker *unpacker, struct head *head_p)
{
    if (unpacker->at >= unpacker->size_bytes)
        return CLU_E_PROTOCOL;
    uint8_t type = unpacker->data[unpacker->at];
    struct head small = {.head_bytes = 1};
    if (type < 0x80) {
        small.kind = CLU_PACK_INTEGER;
        small.number = type;
    } else if (type < 0x90) {
        small.kind = CLU_PACK_MAP;
        small.number = type & 0x0f;
    } else if (type < 0xa0) {
        small.kind = CLU_PACK_ARRAY;
        small.number = type & 0x0f;
    } else if (type < 0xc0) {
        small.kind = CLU_PACK_TEXT;
        small.number = type & 0x1f;
    } else if (type >= 0xe0) {
        small.kind = CLU_PACK_INTEGER;
        small.number = (uint64_t)(int64_t)(int8_t)type;
        small.negative = true;
    } else {
        switch (type) {
        case 0xc0:
            small.kind = CLU_PACK_NIL;
            break;
        case 0xc2:
        case 0xc3:
            small.kind = CLU_PACK_BOOL;
            small.number = type & 1;
            break;
        case 0xc4:
        case 0xc5:
        case 0xc6:
            return head_number(unpacker, CLU_PACK_BIN, 1 << (type - 0xc4), 0, head_p);
        case 0xc7:
        case 0xc8:
        case 0xc9: /* ext: a length, a type byte, the bytes */
            return head_number(unpacker, CLU_PACK_OTHER, 1 << (type - 0xc7), 1, head_p);
        case 0xca:
            return head_number(unpacker, CLU_PACK_REAL, 4, 0, head_p);
        case 0xcb: {
            int status = head_number(unpacker, CLU_PACK_REAL, 8, 0, head_p);
            if (status == CLU_OK)
                head_p->wide = true;
            return status;
        }
        case 0xcc:
        case 0xcd:
        case 0xce:
        case 0xcf:
            return head_number(unpacker, CLU_PACK_INTEGER, 1 << (type - 0xcc), 0, head_p);
        case 0xd0:
        case 0xd1:
        case 0xd2:
        case 0xd3:
            return head_signed(unpacker, 1 << (type - 0xd0), head_p);
        case 0xd4:
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8: /* fixext: a type byte, then 1 .. 16 bytes */
            small.kind = CLU_PACK_OTHER;
            small.head_bytes = 2;
            small.number = 1u << (type - 0xd4);
            break;
        case 0xd9:
        case 0xda:
        case 0xdb:
            return head_number(unpacker, CLU_PACK_TEXT, 1 << (type - 0xd9), 0, head_p);
        case 0xdc:
        case 0xdd:
            return head_number(unpacker, CLU_PACK_ARRAY, 2 << (type - 0xdc), 0, head_p);
        case 0xde:
        case 0xdf:
            return head_number(unpacker, CLU_PACK_MAP, 2 << (type - 0xde), 0, head_p);
        default: /* 0xc1 is never used */
            return CLU_E_PROTOCOL;
        }
    }
    *head_p = small;
    return CLU_OK;
}

/* Reads the head of an item of one kind and steps over it. */
static int take_head(struct clu_unpacker *unpacker, enum clu_pack_kind kind, struct head *head_p)
{
    struct head head;
    int status = read_head(unpacker, &head);
    if (status != CLU_OK || head.kind != kind)
        return CLU_E_PROTOCOL;
    unpacker->at += head.head_bytes;
    *head_p = head;
    return CLU_OK;
}

int clu_unpack_peek(const struct clu_unpacker *unpacker, enum clu_pack_kind *kind_p)
{
    struct head head;
    int status = read_head(unpacker, &head);
    if (status == CLU_OK)
        *kind_p = head.kind;
    return status;
}

int clu_unpack_nil(struct clu_unpacker *unpacker)
{
    struct head head;
    return take_head(unpacker, CLU_PACK_NIL, &head);
}

int clu_unpack_bool(struct clu_unpacker *unpacker, bool *value_p)
{
    struct head head;
    int status = take_head(unpacker, CLU_PACK_BOOL, &head);
    if (status == CLU_OK)
        *value_p = head.number != 0;
    return status;
}

/* An integer whose sign the caller accepts; the cursor stays where it was otherwise. */
static int take_integer(struct clu_unpacker *unpacker, bool negative_allowed, uint64_t max_positive,
                        uint64_t *bits_p)
{
    size_t at = unpacker->at;
    struct head head;
    int status = take_head(unpacker, CLU_PACK_INTEGER, &head);
    if (status != CLU_OK)
        return status;
    if (head.negative ? !negative_allowed : head.number > max_positive) {
        unpacker->at = at;
        return CLU_E_PROTOCOL;
    }
    *bits_p = head.number;
    return CLU_OK;
}

int clu_unpack_uint(struct clu_unpacker *unpacker, uint64_t *value_p)
{
    return take_integer(unpacker, false, UINT64_MAX, value_p);
}

int clu_unpack_int(struct clu_unpacker *unpacker, int64_t *value_p)
{
    uint64_t bits;
    int status = take_integer(unpacker, true, INT64_MAX, &bits);
    if (status == CLU_OK)
        *value_p = (int64_t)bits;
    return status;
}

int clu_unpack_bits(struct clu_unpacker *unpacker, uint64_t *bits_p)
{
    return take_integer(unpacker, true, UINT64_MAX, bits_p);
}

int clu_unpack_real(struct clu_unpacker *unpacker, double *value_p)
{
    struct head head;
    int status = read_head(unpacker, &head);
    if (status != CLU_OK || (head.kind != CLU_PACK_REAL && head.kind != CLU_PACK_INTEGER))
        return CLU_E_PROTOCOL;
    unpacker->at += head.head_bytes;
    if (head.kind == CLU_PACK_INTEGER) {
        *value_p = head.negative ? (double)(int64_t)head.number : (double)head.number;
    } else if (head.wide) {
        memcpy(value_p, &head.number, sizeof(*value_p));
    } else {
        uint32_t bits = (uint32_t)head.number;
        float value;
        memcpy(&value, &bits, sizeof(value));
        *value_p = value;
    }
    return CLU_OK;
}

static int take_bytes(struct clu_unpacker *unpacker, enum clu_pack_kind kind, const void **data_p,
                      size_t *size_p)
{
    size_t at = unpacker->at;
    struct head head;
    int status = take_head(unpacker, kind, &head);
    if (status != CLU_OK)
        return status;
    if (head.number > unpacker->size_bytes - unpacker->at) { /* (I1) */
        unpacker->at = at;
        return CLU_E_PROTOCOL;
    }
    *data_p = unpacker->data + unpacker->at;
    *size_p = (size_t)head.number;
    unpacker->at += (size_t)head.number;
    return CLU_OK;
}

int clu_unpack_text(struct clu_unpacker *unpacker, const char **text_p, size_t *size_p)
{
    const void *data;
    int status = take_bytes(unpacker, CLU_PACK_TEXT, &data, size_p);
    if (status == CLU_OK)
        *text_p = data;
    return status;
}

int clu_unpack_bin(struct clu_unpacker *unpacker, const void **data_p, size_t *size_p)
{
    return take_bytes(unpacker, CLU_PACK_BIN, data_p, size_p);
}

static int take_container(struct clu_unpacker *unpacker, enum clu_pack_kind kind, size_t min_bytes,
                          size_t *n_p)
{
    size_t at = unpacker->at;
    struct head head;
    int status = take_head(unpacker, kind, &head);
    if (status != CLU_OK)
        return status;
    if (head.number > (unpacker->size_bytes - unpacker->at) / min_bytes) { /* (I1) */
        unpacker->at = at;
        return CLU_E_PROTOCOL;
    }
    *n_p = (size_t)head.number;
    return CLU_OK;
}

int clu_unpack_array(struct clu_unpacker *unpacker, size_t *n_p)
{
    return take_container(unpacker, CLU_PACK_ARRAY, 1, n_p);
}

int clu_unpack_map(struct clu_unpacker *unpacker, size_t *n_p)
{
    return take_container(unpacker, CLU_PACK_MAP, 2, n_p);
}

int clu_unpack_key_is(struct clu_unpacker *unpacker, const char *key, bool *match_p)
{
    const char *text;
    size_t size;
    int status = clu_unpack_text(unpacker, &text, &size);
    if (status == CLU_OK)
        *match_p = size == strlen(key) && memcmp(text, key, size) == 0;
    return status;
}

static int skip_levels(struct clu_unpacker *unpacker, int levels)
{
    struct head head;
    int status = read_head(unpacker, &head);
    if (status != CLU_OK || levels == 0)
        return CLU_E_PROTOCOL;
    size_t left = unpacker->size_bytes - unpacker->at;
    if (head.kind == CLU_PACK_TEXT || head.kind == CLU_PACK_BIN || head.kind == CLU_PACK_OTHER) {
        if (head.head_bytes > left || head.number > left - head.head_bytes) /* (I1) */
            return CLU_E_PROTOCOL;
        unpacker->at += head.head_bytes + (size_t)head.number;
        return CLU_OK;
    }
    unpacker->at += head.head_bytes;
    uint64_t n = head.kind == CLU_PACK_ARRAY ? head.number
                 : head.kind == CLU_PACK_MAP ? 2 * head.number
                                             : 0;
    for (uint64_t i = 0; i < n; i++) {
        status = skip_levels(unpacker, levels - 1);
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

int clu_unpack_skip(struct clu_unpacker *unpacker)
{
    size_t at = unpacker->at;
    int status = skip_levels(unpacker, MAX_DEPTH);
    if (status != CLU_OK)
        unpacker->at = at;
    return status;
}

/* Coded keys: groups of differences, each group in as many bytes a difference as its largest needs.
 *
 * Varints a key were measured, too (tests/bench/README.md, bench_keys): a third larger for ids some
 * hundred apart, whose differences need the eighth bit that a varint spends on its end.
 *
 * Differences are modulo 2^64 and each part begins at 0, so any keys can be coded; only ascending
 * ones become small.
 */
#include "cluster/wire.h"

#include "cluster/status.h"

#include <string.h>

enum { GROUP = 64 };

static size_t min_size(size_t n)
{
    return n + (n + GROUP - 1) / GROUP;
}

/* Bytes that each of some numbers needs, at least one. all_bits: their union. */
static unsigned width_of(uint64_t all_bits)
{
    return all_bits ? (71u - (unsigned)__builtin_clzll(all_bits)) / 8u : 1u;
}

static unsigned group_width(const uint64_t *keys, size_t n, uint64_t before)
{
    uint64_t bits = keys[0] - before;
    for (size_t i = 1; i < n; i++)
        bits |= keys[i] - keys[i - 1];
    return width_of(bits);
}

static size_t group_size(size_t at, size_t n)
{
    return n - at < GROUP ? n - at : GROUP;
}

size_t clu_wire_coded_keys_size(const struct clu_wire_part *part, int n_parts, const uint64_t *keys)
{
    size_t size = 0;
    for (int p = 0; p < n_parts; keys += part[p++].n) {
        uint64_t before = 0;
        for (size_t at = 0; at < part[p].n; at += GROUP) {
            size_t count = group_size(at, part[p].n);
            size += 1 + count * group_width(keys + at, count, before);
            before = keys[at + count - 1];
        }
    }
    return size;
}

static unsigned char *write_group(const uint64_t *keys, size_t n, uint64_t before,
                                  unsigned char *out, const unsigned char *end)
{
    unsigned width = group_width(keys, n, before);
    *out++ = (unsigned char)width;
    for (size_t i = 0; i < n; i++, out += width) {
        uint64_t difference = keys[i] - before;
        /* what is written too much is written over by the next */
        size_t room = (size_t)(end - out);
        memcpy(out, &difference, room >= sizeof(difference) ? sizeof(difference) : width);
        before = keys[i];
    }
    return out;
}

void clu_wire_encode_keys(const struct clu_wire_part *part, int n_parts, const uint64_t *keys,
                          void *buffer, size_t size_bytes)
{
    unsigned char *out = buffer, *end = out + size_bytes;
    for (int p = 0; p < n_parts; keys += part[p++].n) {
        uint64_t before = 0;
        for (size_t at = 0; at < part[p].n; at += GROUP) {
            size_t count = group_size(at, part[p].n);
            out = write_group(keys + at, count, before, out, end);
            before = keys[at + count - 1];
        }
    }
}

bool clu_wire_are_coded_keys(size_t size_bytes, size_t n_keys)
{
    return size_bytes >= min_size(n_keys) && size_bytes < n_keys * sizeof(uint64_t);
}

/* One group; NULL when it is none, or goes beyond the end. */
static const unsigned char *read_group(const unsigned char *in, const unsigned char *end, size_t n,
                                       uint64_t before, uint64_t *keys_p)
{
    if (in == end || *in < 1 || *in > 8)
        return NULL;
    unsigned width = *in++;
    size_t left = (size_t)(end - in), bytes = n * width;
    if (left < bytes)
        return NULL;
    uint64_t difference = 0, mask = UINT64_MAX >> (64 - 8 * width);
    if (left - bytes < sizeof(difference)) { /* near the end: not a byte too much */
        for (size_t i = 0; i < n; i++) {
            memcpy(&difference, in + i * width, width);
            keys_p[i] = before += difference;
        }
        return in + bytes;
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(&difference, in + i * width, sizeof(difference));
        keys_p[i] = before += difference & mask;
    }
    return in + bytes;
}

int clu_wire_decode_keys(const void *data, size_t size_bytes, const struct clu_wire_part *part,
                         int n_parts, uint64_t *keys_p)
{
    const unsigned char *in = data, *end = in + size_bytes;
    for (int p = 0; p < n_parts; keys_p += part[p++].n) {
        uint64_t before = 0;
        for (size_t at = 0; at < part[p].n; at += GROUP) {
            size_t count = group_size(at, part[p].n);
            in = read_group(in, end, count, before, keys_p + at);
            if (!in)
                return CLU_E_PROTOCOL;
            before = keys_p[at + count - 1];
        }
    }
    return in == end ? 0 : CLU_E_PROTOCOL;
}

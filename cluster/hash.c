/* XXH3 for bytes, splitmix64's finaliser for numbers. The bucket takes the high bits of a mix of
 * table and key, so that neither consecutive ids nor equal ids in two tables share a bucket by
 * construction; the row store may use the low bits of the same mix as its hash without the two
 * being correlated. */
#include "cluster/hash.h"

#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

uint64_t clu_hash_bytes(const void *data, size_t size_bytes)
{
    return XXH3_64bits(data, size_bytes);
}

struct clu_hash_stream *clu_hash_stream_create(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state)
        XXH3_64bits_reset(state);
    return (struct clu_hash_stream *)state;
}

void clu_hash_stream_add(struct clu_hash_stream *stream, const void *data, size_t size_bytes)
{
    XXH3_64bits_update((XXH3_state_t *)stream, data, size_bytes);
}

uint64_t clu_hash_stream_value(const struct clu_hash_stream *stream)
{
    return XXH3_64bits_digest((const XXH3_state_t *)stream);
}

void clu_hash_stream_free(struct clu_hash_stream *stream)
{
    XXH3_freeState((XXH3_state_t *)stream);
}

uint64_t clu_mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 31;
    return x;
}

/* Reads a canonical decimal integer; false when the text is anything else or does not fit 64 bits.
 */
static bool parse_integer(const char *text, size_t size, uint64_t *value_p)
{
    bool negative = size > 0 && text[0] == '-';
    size_t i = negative ? 1 : 0;
    if (i == size || size - i > 20 || (text[i] == '0' && size > 1))
        return false;
    uint64_t value = 0;
    for (; i < size; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (negative && value > (uint64_t)1 << 63)
        return false;
    *value_p = negative ? 0 - value : value;
    return true;
}

uint64_t clu_key_of_text(const char *text, size_t size_bytes)
{
    uint64_t key;
    return parse_integer(text, size_bytes, &key) ? key : XXH3_64bits(text, size_bytes);
}

uint64_t clu_table_hash(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

uint32_t clu_bucket_of(uint64_t table_hash, uint64_t key)
{
    return (uint32_t)(clu_mix(table_hash + clu_mix(key)) >> 52);
}

void clu_row_init(uint64_t seed, uint64_t table_hash, uint64_t key, float init_range, int dim,
                  float *row_p)
{
    uint64_t h = clu_mix(clu_mix(seed + table_hash) + key);
    for (int i = 0; i < dim; i++) {
        uint64_t bits = clu_mix(h + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u) >> 40;
        row_p[i] = ((float)bits * 0x1p-23f - 1.0f) * init_range;
    }
}

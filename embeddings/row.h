/* How a row's value lies in memory, in LMDB and in snapshots: count 4 | last step 4 | embedding |
 * state. The embedding is dim x 4 bytes, or dim x 2 padded to 4; so the state is always on a
 * multiple of 4. */
#ifndef EMBEDDINGS_ROW_H
#define EMBEDDINGS_ROW_H

#include "embeddings/table.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { EMB_VALUE_COUNT = 0, EMB_VALUE_STEP = 4, EMB_VALUE_EMBEDDING = 8 };

/* A tombstone in memory keeps the lsn of its burial where a row keeps its embedding. */
static inline uint64_t emb_value_burial(const void *value)
{
    uint64_t lsn;
    memcpy(&lsn, (const char *)value + EMB_VALUE_EMBEDDING, 8);
    return lsn;
}

static inline void emb_value_set_burial(void *value, uint64_t lsn)
{
    memcpy((char *)value + EMB_VALUE_EMBEDDING, &lsn, 8);
}

static inline size_t emb_embedding_bytes(const struct emb_table_spec *spec)
{
    size_t dim = (size_t)spec->dim;
    return spec->dtype == EMB_BF16 ? (2 * dim + 3) / 4 * 4 : 4 * dim;
}

/* Bytes of a value: count, last step, embedding, state. */
static inline size_t emb_value_bytes(const struct emb_table_spec *spec)
{
    return EMB_VALUE_EMBEDDING + emb_embedding_bytes(spec) +
           4 * (size_t)emb_optimizer_n_state(spec->optimizer, spec->dim);
}

static inline uint32_t emb_value_u32(const void *value, size_t offset)
{
    uint32_t number;
    memcpy(&number, (const char *)value + offset, 4);
    return number;
}

static inline void emb_value_set_u32(void *value, size_t offset, uint32_t number)
{
    memcpy((char *)value + offset, &number, 4);
}

#endif

/* The user block's format (worker/shard.h), both ways.
 *
 * Decoding trusts nothing: counts are bounded by the bytes left (cluster/pack.h), actions by M,
 * times by what arithmetic can hold, and pairs must come in order, since the reader's walks rely on
 * it.
 */
#include "worker/shard.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* far beyond any log, far below overflow */
static const int64_t max_ms = (int64_t)1 << 53;

void wrk_shape_init(struct wrk_shape *shape, const struct wrk_dataset_info *info,
                    const struct wrk_transform *transform)
{
    memset(shape, 0, sizeof(*shape));
    shape->n_actions = info->n_actions;
    shape->n_user_columns = info->n_user_columns;
    shape->n_item_columns = info->n_item_columns;
    for (int i = 0; i < info->n_user_columns; i++)
        shape->user_numeric[i] = info->user_column[i].kind == WRK_COLUMN_NUMERIC;
    for (int i = 0; i < info->n_item_columns; i++)
        shape->item_numeric[i] = info->item_column[i].kind == WRK_COLUMN_NUMERIC;
    shape->transform = *transform;
}

static void pack_id(struct clu_packer *packer, const struct wrk_stored_id *id)
{
    if (id->text)
        clu_pack_text_n(packer, id->text, id->size_bytes);
    else if (id->is_unsigned)
        clu_pack_uint(packer, id->key);
    else
        clu_pack_int(packer, (int64_t)id->key);
}

static void pack_values(struct clu_packer *packer, const bool *numeric, int n_columns,
                        const uint64_t *value)
{
    for (int c = 1; c < n_columns; c++)
        if (numeric[c])
            clu_pack_float(packer, wrk_value_float(value[c - 1]));
        else
            clu_pack_uint(packer, value[c - 1]);
}

static void pack_tokens(struct clu_packer *packer, const struct wrk_shape *shape,
                        const struct wrk_pair *pair, const struct wrk_token *tokens)
{
    bool stored = shape->transform.kind == WRK_TRANSFORM_DURATION;
    clu_pack_array(packer, (size_t)(pair->n_tokens - 1) * (stored ? 3 : 2));
    for (uint32_t i = 1; i < pair->n_tokens; i++) {
        const struct wrk_token *token = &tokens[pair->first_token + i];
        clu_pack_uint(packer, token->action);
        clu_pack_uint(packer, (uint64_t)(token->time_ms - pair->start_ms));
        if (stored)
            clu_pack_float(packer, token->t);
    }
}

void wrk_block_pack(struct clu_packer *packer, const struct wrk_shape *shape,
                    const struct wrk_timeline *timeline)
{
    clu_pack_array(packer, 3);
    clu_pack_array(packer, (size_t)shape->n_user_columns);
    pack_id(packer, &timeline->user);
    pack_values(packer, shape->user_numeric, shape->n_user_columns, timeline->value);
    clu_pack_uint(packer, timeline->n_pairs);
    clu_pack_array(packer, timeline->n_pairs);
    int64_t before = 0;
    for (size_t i = 0; i < timeline->n_pairs; i++) {
        const struct wrk_pair *pair = &timeline->pair[i];
        clu_pack_array(packer, (size_t)shape->n_item_columns + 3);
        pack_id(packer, &pair->item);
        pack_values(packer, shape->item_numeric, shape->n_item_columns, pair->value);
        clu_pack_int(packer, pair->start_ms - before);
        before = pair->start_ms;
        pack_tokens(packer, shape, pair, timeline->token);
        if (pair->truth)
            clu_pack_bin(packer, pair->truth, (size_t)shape->n_actions * 2 * sizeof(float));
        else
            clu_pack_nil(packer);
    }
}

void wrk_block_init(struct wrk_block *block)
{
    memset(block, 0, sizeof(*block));
}

void wrk_block_fini(struct wrk_block *block)
{
    free(block->user);
    free(block->user_value);
    free(block->pair);
    free(block->item_value);
    free(block->token);
    free(block->floats);
    free(block->content);
    memset(block, 0, sizeof(*block));
}

/* room for needed items in up to two arrays that grow together */
static int grow(size_t *capacity_p, size_t needed, void **first_p, size_t first_bytes,
                void **second_p, size_t second_bytes)
{
    if (needed <= *capacity_p)
        return CLU_OK;
    size_t capacity = needed + needed / 2 + 64;
    void *first = realloc(*first_p, capacity * first_bytes);
    if (first)
        *first_p = first;
    void *second = second_p ? realloc(*second_p, capacity * second_bytes) : NULL;
    if (second)
        *second_p = second;
    if (!first || (second_p && !second))
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for a data block");
    *capacity_p = capacity;
    return CLU_OK;
}

static int unpack_id(struct clu_unpacker *unpacker, struct wrk_stored_id *id)
{
    enum clu_pack_kind kind;
    int status = clu_unpack_peek(unpacker, &kind);
    if (status != CLU_OK)
        return status;
    *id = (struct wrk_stored_id){0};
    if (kind == CLU_PACK_TEXT) {
        size_t size;
        status = clu_unpack_text(unpacker, &id->text, &size);
        if (status == CLU_OK) {
            id->size_bytes = (uint32_t)size;
            id->key = clu_key_of_text(id->text, size);
        }
        return status;
    }
    size_t at = unpacker->at;
    int64_t number;
    if (clu_unpack_int(unpacker, &number) == CLU_OK) {
        id->key = (uint64_t)number;
        return CLU_OK;
    }
    unpacker->at = at;
    status = clu_unpack_uint(unpacker, &id->key);
    id->is_unsigned = true;
    return status;
}

static int unpack_values(struct clu_unpacker *unpacker, const bool *numeric, int n_columns,
                         uint64_t key, uint64_t *values)
{
    values[0] = key;
    for (int c = 1; c < n_columns; c++) {
        int status;
        if (numeric[c]) {
            double number = 0;
            status = clu_unpack_real(unpacker, &number);
            if (status == CLU_OK && !isfinite(number))
                status = CLU_E_CORRUPT;
            values[c] = wrk_float_value((float)number);
        } else
            status = clu_unpack_bits(unpacker, &values[c]);
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

static int unpack_tokens(struct clu_unpacker *unpacker, const struct wrk_shape *shape,
                         struct wrk_block *block, struct wrk_pair *pair)
{
    bool stored = shape->transform.kind == WRK_TRANSFORM_DURATION;
    size_t n, width = stored ? 3 : 2;
    int status = clu_unpack_array(unpacker, &n);
    if (status != CLU_OK)
        return status;
    if (n % width != 0 || n / width > (size_t)shape->n_actions - 1)
        return CLU_E_CORRUPT;
    n /= width;
    status = grow(&block->token_capacity, block->n_tokens + n + 1, (void **)&block->token,
                  sizeof(*block->token), NULL, 0);
    if (status != CLU_OK)
        return status;
    pair->first_token = (uint32_t)block->n_tokens;
    pair->n_tokens = (uint32_t)n + 1;
    block->token[block->n_tokens++] = (struct wrk_token){pair->start_ms, 0, 1};
    unsigned seen = 1u << 1;
    uint64_t before = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t action, after;
        double t = 0;
        status = clu_unpack_uint(unpacker, &action);
        if (status == CLU_OK)
            status = clu_unpack_uint(unpacker, &after);
        if (status == CLU_OK && stored)
            status = clu_unpack_real(unpacker, &t);
        if (status != CLU_OK)
            return status;
        if (action < 2 || action > (uint64_t)shape->n_actions || seen & 1u << action ||
            after < before || after > (uint64_t)max_ms || !(t >= 0) || t > 3e38)
            return CLU_E_CORRUPT;
        seen |= 1u << action;
        before = after;
        float value = stored ? (float)t : wrk_transform_apply(&shape->transform, (int64_t)after, 0);
        block->token[block->n_tokens++] =
            (struct wrk_token){pair->start_ms + (int64_t)after, value, (uint8_t)action};
    }
    return CLU_OK;
}

/* floats are copied out because a bin is not aligned; pair->truth holds their place until the block
 * is done */
static int unpack_truth(struct clu_unpacker *unpacker, const struct wrk_shape *shape,
                        struct wrk_block *block, struct wrk_pair *pair)
{
    enum clu_pack_kind kind;
    int status = clu_unpack_peek(unpacker, &kind);
    if (status != CLU_OK)
        return status;
    pair->truth = NULL;
    if (kind == CLU_PACK_NIL)
        return clu_unpack_nil(unpacker);
    const void *data;
    size_t size, n = (size_t)shape->n_actions * 2;
    status = clu_unpack_bin(unpacker, &data, &size);
    if (status != CLU_OK)
        return status;
    if (size != n * sizeof(float))
        return CLU_E_CORRUPT;
    status = grow(&block->float_capacity, block->n_floats + n, (void **)&block->floats,
                  sizeof(float), NULL, 0);
    if (status != CLU_OK)
        return status;
    memcpy(block->floats + block->n_floats, data, size);
    pair->truth = (const float *)(uintptr_t)(block->n_floats + 1);
    block->n_floats += n;
    return CLU_OK;
}

static int unpack_pair(struct clu_unpacker *unpacker, const struct wrk_shape *shape,
                       struct wrk_block *block, const struct wrk_pair *previous)
{
    size_t n;
    int status = clu_unpack_array(unpacker, &n);
    if (status == CLU_OK && n != (size_t)shape->n_item_columns + 3)
        status = CLU_E_CORRUPT;
    if (status != CLU_OK)
        return status;
    struct wrk_pair *pair = &block->pair[block->n_pairs];
    memset(pair, 0, sizeof(*pair));
    status = unpack_id(unpacker, &pair->item);
    if (status == CLU_OK)
        status = unpack_values(unpacker, shape->item_numeric, shape->n_item_columns, pair->item.key,
                               block->item_value + block->n_pairs * (size_t)shape->n_item_columns);
    int64_t start = 0;
    if (status == CLU_OK)
        status = clu_unpack_int(unpacker, &start);
    if (status != CLU_OK)
        return status;
    if (start > max_ms || start < -max_ms)
        return CLU_E_CORRUPT;
    pair->start_ms = previous ? previous->start_ms + start : start;
    if (pair->start_ms > max_ms || pair->start_ms < -max_ms ||
        (previous && wrk_second_of(pair->start_ms) < wrk_second_of(previous->start_ms)))
        return CLU_E_CORRUPT;
    status = unpack_tokens(unpacker, shape, block, pair);
    if (status == CLU_OK)
        status = unpack_truth(unpacker, shape, block, pair);
    if (status == CLU_OK)
        block->n_pairs++;
    return status;
}

static int unpack_user(struct clu_unpacker *unpacker, const struct wrk_shape *shape,
                       struct wrk_block *block)
{
    size_t n, n_columns, n_list;
    uint64_t n_pairs = 0;
    int status = clu_unpack_array(unpacker, &n);
    if (status == CLU_OK)
        status = clu_unpack_array(unpacker, &n_columns);
    if (status == CLU_OK && (n != 3 || n_columns != (size_t)shape->n_user_columns))
        status = CLU_E_CORRUPT;
    if (status == CLU_OK)
        status = grow(&block->user_capacity, block->n_users + 1, (void **)&block->user,
                      sizeof(*block->user), (void **)&block->user_value,
                      (size_t)shape->n_user_columns * 8);
    if (status != CLU_OK)
        return status;
    struct wrk_block_user *user = &block->user[block->n_users];
    status = unpack_id(unpacker, &user->id);
    if (status == CLU_OK)
        status = unpack_values(unpacker, shape->user_numeric, shape->n_user_columns, user->id.key,
                               block->user_value + block->n_users * (size_t)shape->n_user_columns);
    if (status == CLU_OK)
        status = clu_unpack_uint(unpacker, &n_pairs);
    if (status == CLU_OK)
        status = clu_unpack_array(unpacker, &n_list);
    if (status == CLU_OK && (n_pairs != n_list || n_list == 0))
        status = CLU_E_CORRUPT;
    if (status == CLU_OK)
        status = grow(&block->pair_capacity, block->n_pairs + n_list, (void **)&block->pair,
                      sizeof(*block->pair), (void **)&block->item_value,
                      (size_t)shape->n_item_columns * 8);
    if (status != CLU_OK)
        return status;
    user->first_pair = (uint32_t)block->n_pairs;
    user->n_pairs = (uint32_t)n_list;
    for (size_t i = 0; i < n_list; i++) {
        status = unpack_pair(unpacker, shape, block, i ? &block->pair[block->n_pairs - 1] : NULL);
        if (status != CLU_OK)
            return status;
    }
    block->n_users++;
    return CLU_OK;
}

int wrk_block_unpack(struct wrk_block *block, const struct wrk_shape *shape, const void *content,
                     size_t size_bytes)
{
    block->n_users = block->n_pairs = block->n_tokens = block->n_floats = 0;
    int status =
        grow(&block->content_capacity, size_bytes + 1, (void **)&block->content, 1, NULL, 0);
    if (status != CLU_OK)
        return status;
    if (content != block->content)
        memcpy(block->content, content, size_bytes);
    struct clu_unpacker unpacker;
    clu_unpacker_init(&unpacker, block->content, size_bytes);
    while (!clu_unpack_at_end(&unpacker)) {
        status = unpack_user(&unpacker, shape, block);
        if (status == CLU_E_NO_MEMORY)
            return status;
        if (status != CLU_OK)
            return CLU_E_CORRUPT;
    }
    for (size_t i = 0; i < block->n_pairs; i++)
        if (block->pair[i].truth)
            block->pair[i].truth = block->floats + ((uintptr_t)block->pair[i].truth - 1);
    return CLU_OK;
}

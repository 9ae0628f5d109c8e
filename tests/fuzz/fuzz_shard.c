/* What lies in a data shard behind its checksums: a frame's content and the index. The first byte
 * chooses: even the content of a frame (with times by logarithm or, for multiples of 4, by
 * duration), odd an index. */
#include "cluster/status.h"
#include "tests/fuzz/target.h"
#include "worker/shard.h"

#include <stdlib.h>

static void check(const struct wrk_block *block)
{
    for (size_t u = 0; u < block->n_users; u++) {
        const struct wrk_block_user *user = &block->user[u];
        if (user->first_pair + user->n_pairs > block->n_pairs)
            abort();
        for (uint32_t p = user->first_pair; p < user->first_pair + user->n_pairs; p++) {
            const struct wrk_pair *pair = &block->pair[p];
            if (pair->n_tokens < 1 || pair->first_token + pair->n_tokens > block->n_tokens ||
                block->token[pair->first_token].action != 1)
                abort();
            for (uint32_t k = 1; k < pair->n_tokens; k++) {
                const struct wrk_token *token = &block->token[pair->first_token + k];
                if (token->action < 2 || token->action > 4 || !(token->t >= 0) ||
                    token->time_ms < token[-1].time_ms)
                    abort();
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 2) {
        struct wrk_frame *frames;
        size_t n;
        if (wrk_index_parse(data + 1, size - 1, 1000, &frames, &n) == 0) {
            for (size_t i = 0; i < n; i++)
                if (frames[i].offset + frames[i].size_bytes > 1000)
                    abort();
            free(frames);
        }
        return 0;
    }
    struct wrk_shape shape = {.n_actions = 4,
                              .n_user_columns = 2,
                              .n_item_columns = 2,
                              .item_numeric = {false, true},
                              .transform = {WRK_TRANSFORM_LOG, 60, 10}};
    if (data[0] % 4 == 0)
        shape.transform.kind = WRK_TRANSFORM_DURATION;
    struct wrk_block block;
    wrk_block_init(&block);
    if (wrk_block_unpack(&block, &shape, data + 1, size - 1) == 0)
        check(&block);
    wrk_block_fini(&block);
    return 0;
}

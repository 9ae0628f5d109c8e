/* A data shard: user blocks in compressed frames, and an index behind them.
 *
 *     offset        size  what
 *     0             8     "SLUDATA1"
 *     8             ...   frames, back to back, each one zstd frame
 *     index_offset  ...   the index: one msgpack array of frames, see below
 *     end - 32      8     index_offset, u64 little-endian
 *     end - 24      8     index_size, u64
 *     end - 16      8     XXH3 of the index, u64
 *     end - 8       8     "SLUINDX1"
 *
 * An index entry is an array: [offset, size, content_size, XXH3 of the size bytes, n_users,
 * n_samples in the test split, then for p = 0..20 the samples of the training split before its last
 * p percent].
 *
 * A frame's content is user blocks one after the other, each a msgpack array of three:
 *     user     [id, value...]           id: int or text; a value: int key, or float for a numeric
 *     column n_pairs  int
 *     pairs    n_pairs arrays:          [id, value..., start, tokens, truth]
 *              start    ms since 1970 for the first pair, ms after the pair before for the others
 *              tokens   an array of numbers without the start token: action, ms after start, and,
 *              where
 *                       the transform is by duration, T as float; again for the next token
 *              truth    nil, or bin: 2 M floats, little-endian: P of actions 1..M, then expected T
 *
 * Worked example, without features or truth: user 7, item "a" at 1000 ms with action 2 after 500 ms
 * is
 *     93 91 07 01 91 94 a1 61 cd 03 e8 92 02 cd 01 f4 c0
 *
 * Writer and reader own their buffers. Threads: a writer has one owner; a reader's frames may be
 * read by any thread at once (pread).
 */
#ifndef WORKER_SHARD_H
#define WORKER_SHARD_H

#include "cluster/pack.h"
#include "worker/dataset.h"
#include "worker/timeline.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What both sides must agree on; from the manifest. */
struct wrk_shape {
    int n_actions, n_user_columns, n_item_columns;
    bool user_numeric[WRK_MAX_COLUMNS], item_numeric[WRK_MAX_COLUMNS];
    struct wrk_transform transform;
};

void wrk_shape_init(struct wrk_shape *shape, const struct wrk_dataset_info *info,
                    const struct wrk_transform *transform);

/* One frame in the index. */
struct wrk_frame {
    uint64_t offset, checksum;
    uint32_t size_bytes, content_bytes, n_users;
    uint32_t n_test, n_train[WRK_MAX_VALID_PERCENT + 1];
};

/* Appends a timeline as one user block. */
void wrk_block_pack(struct clu_packer *packer, const struct wrk_shape *shape,
                    const struct wrk_timeline *timeline);

/* A decoded frame: every array in one struct, users' pairs back to back, in order. */
struct wrk_block_user {
    struct wrk_stored_id id;
    uint32_t first_pair, n_pairs;
};

struct wrk_block {
    size_t n_users, n_pairs, n_tokens;
    struct wrk_block_user *user;
    uint64_t *user_value;  /* [n_users, n_user_columns], the key first */
    struct wrk_pair *pair; /* value is NULL: see item_value */
    uint64_t *item_value;  /* [n_pairs, n_item_columns], the key first */
    struct wrk_token *token;
    /* capacities, and the content that texts and truths borrow from */
    size_t user_capacity, pair_capacity, token_capacity, content_capacity, float_capacity;
    size_t n_floats;
    float *floats;
    char *content;
};

void wrk_block_init(struct wrk_block *block);
void wrk_block_fini(struct wrk_block *block);

/* Decodes a frame's content into a block (whose arrays are used again); the content is copied.
 * Errors: CORRUPT (not logged: the caller knows the file), NO_MEMORY. Any bytes are safe. */
int wrk_block_unpack(struct wrk_block *block, const struct wrk_shape *shape, const void *content,
                     size_t size_bytes);

/* --- writing one file --- */
struct wrk_shard_writer;

int wrk_shard_create(const char *path, struct wrk_shard_writer **writer_p);

/* Compresses and appends a frame; *frame_p gets all but the sample counts. */
int wrk_shard_append(struct wrk_shard_writer *writer, const void *content, size_t size_bytes,
                     struct wrk_frame *frame_p);

/* Closes the file for now; finish opens it again. Until all data is written nobody knows the split,
 * and so the counts of the index; a data set of many shards must not hold all of them open. */
int wrk_shard_pause(struct wrk_shard_writer *writer);

/* Writes index and footer, fsyncs and closes; frees the writer in any case. */
int wrk_shard_finish(struct wrk_shard_writer *writer, const struct wrk_frame *frames,
                     size_t n_frames);

/* Bytes written so far. */
uint64_t wrk_shard_size(const struct wrk_shard_writer *writer);

void wrk_shard_abandon(struct wrk_shard_writer *writer); /* NULL is fine */

/* --- reading --- */
struct wrk_shard;

/* Opens and reads the index. Errors: NOT_FOUND; CORRUPT, naming the file and what is off. */
int wrk_shard_open(const char *path, struct wrk_shard **shard_p);

uint64_t wrk_shard_file_bytes(const struct wrk_shard *shard);
size_t wrk_shard_n_frames(const struct wrk_shard *shard);
const struct wrk_frame *wrk_shard_frame(const struct wrk_shard *shard, size_t i);

/* Reads, checks and decodes frame i. Errors: CORRUPT, naming the file. Thread: any. */
int wrk_shard_read(const struct wrk_shard *shard, const struct wrk_shape *shape, size_t i,
                   struct wrk_block *block);

void wrk_shard_close(struct wrk_shard *shard); /* NULL is fine */

/* Parses an index from memory, for shards and for tests; *frames_p is the caller's to free. Checks
 * that frames lie within [8, limit). CORRUPT is not logged. */
int wrk_index_parse(const void *data, size_t size_bytes, uint64_t limit,
                    struct wrk_frame **frames_p, size_t *n_p);

#endif

/* Snapshot files rewritten as files of other shards: any number of files in (full ones and deltas
 * upon them, snapshot_merge.h), one full file a new shard out, by bucket.
 *
 *     in [n_in] --merge by (table, key)--> bucket --shard_of[]--> out [n_out]
 *
 * Rows stream: a file takes a block of memory, read or written, and nothing grows with the rows.
 * Where memory is too small for all new files at once, they are written in several passes, each
 * reading only what it needs. Waiting keys come along. Threads: one caller.
 */
#ifndef EMBEDDINGS_SNAPSHOT_SPLIT_H
#define EMBEDDINGS_SNAPSHOT_SPLIT_H

#include "cluster/hash.h"
#include "embeddings/shard.h"

#include <stddef.h>
#include <stdint.h>

struct emb_split_options {
    const char *const *in; /* [n_in] paths, in any order */
    size_t n_in;
    const char *const *out; /* [n_out] paths, which must not exist */
    int n_out;
    uint16_t shard_of[CLU_N_BUCKETS]; /* each < n_out */
    uint64_t memory_bytes;
    /* now and then, with the share that is done, 0..1; NULL: not wanted */
    void (*progress)(void *context, double done, uint64_t n_rows);
    void *context;
};

/* results_p [n_out]: of each file written. On failure every out file is removed. Errors: as
 * emb_snapshot_merge_open; CONFIG when memory_bytes is too small for one new file. */
int emb_snapshot_split(const struct emb_split_options *options,
                       struct emb_snapshot_result *results_p);

#endif

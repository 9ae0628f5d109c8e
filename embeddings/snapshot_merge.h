/* Snapshot files read as one: any number of shards' files, full ones and deltas upon them, merged
 * into one stream by table and ascending key, each key once, as of the newest step.
 *
 *     shard-0000.rows  full of step 100 --.
 *     shard-0001.rows  full of step 100 --+
 *     shard-0000.rows  delta of 200     --+-- (table, key), newest first --> rows, waiting keys
 *     shard-0001.rows  delta of 200     --'
 *
 * For a key in several files the one of the highest step counts; at the same step (a bucket moved
 * from shard to shard) a row counts before a tombstone. Gone are rows whose newest entry is a
 * tombstone and rows that have expired by the newest step; so a chain reads as the full snapshot
 * that would have been taken in its place. Waiting keys are those of the newest step: every delta
 * carries them all.
 *
 * Threads: one owner. Memory: a block (about 1 MiB) a file; time a row: log of the number of files.
 */
#ifndef EMBEDDINGS_SNAPSHOT_MERGE_H
#define EMBEDDINGS_SNAPSHOT_MERGE_H

#include "embeddings/snapshot.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct emb_snapshot_merge;

/* Opens files [n_paths], in any order. buckets: only entries of these (bit b % 8 of byte b / 8);
 * files without any of them are not read; NULL: all. Errors: CORRUPT with the file named (damage,
 * or tables that are not those of the files beside it), DATA when a delta's base is not among the
 * files, NOT_FOUND, NO_MEMORY. */
int emb_snapshot_merge_open(const char *const *paths, size_t n_paths, const uint8_t *buckets,
                            struct emb_snapshot_merge **merge_p);

/* NULL is fine. */
void emb_snapshot_merge_close(struct emb_snapshot_merge *merge);

/* The tables, and the newest step; is_delta is false: it reads as a full one. */
const struct emb_snapshot_info *emb_snapshot_merge_info(const struct emb_snapshot_merge *merge);

/* The next row or waiting key: rows of a table before its waiting keys (*is_candidate_p; of these
 * only table, key and count). value_p: the raw value of a row (last step, embedding, state), a view
 * until the next call; *row_p has no embedding and state. NOT_FOUND (not logged) after the last,
 * once every file has been read to its end. */
int emb_snapshot_merge_entry(struct emb_snapshot_merge *merge, struct emb_row *row_p,
                             const void **value_p, bool *is_candidate_p);

/* Bytes read so far, and of all files that are read; for a bar. */
void emb_snapshot_merge_progress(const struct emb_snapshot_merge *merge, uint64_t *read_p,
                                 uint64_t *total_p);

/* The next row, waiting keys passed over, with embedding and state: views until the next call. */
int emb_snapshot_merge_next(struct emb_snapshot_merge *merge, struct emb_row *row_p);

#endif

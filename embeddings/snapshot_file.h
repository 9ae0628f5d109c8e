/* Writing a snapshot file (format: snapshot.h): rows go in by table and ascending key, and out in
 * blocks of about 1 MiB, each checksummed, with sequential writes only. The file counts once finish
 * has returned OK: it is then whole and on disk. Threads: one owner. */
#ifndef EMBEDDINGS_SNAPSHOT_FILE_H
#define EMBEDDINGS_SNAPSHOT_FILE_H

#include "embeddings/snapshot.h"

#include <stddef.h>
#include <stdint.h>

enum {
    EMB_SNAPSHOT_HEADER = 40,
    EMB_SNAPSHOT_VERSION = 2,
    EMB_SNAPSHOT_TABLE = 104,
    EMB_SNAPSHOT_BLOCK = 40,
    EMB_SNAPSHOT_END = 24 + EMB_BUCKET_BYTES, /* payload of the end block */
    EMB_SNAPSHOT_MAX_ENTRIES = 1 << 20,
};
enum { EMB_BLOCK_ROWS, EMB_BLOCK_CANDIDATES, EMB_BLOCK_END };

#define EMB_SNAPSHOT_MAGIC "SLUICESN"
#define EMB_BLOCK_MAGIC    "BLCK"

struct emb_snapshot_writer;

/* Creates the file, which must not exist (EXISTS), and writes the header. */
int emb_snapshot_writer_open(const char *path, const struct emb_snapshot_info *info,
                             struct emb_snapshot_writer **writer_p);

/* Adds a row (value: count, last step, embedding, state) or, with value NULL, a tombstone. */
int emb_snapshot_writer_row(struct emb_snapshot_writer *writer, int table, uint64_t key,
                            const void *value);

/* Adds a key that has been pushed `pushes` times and is not admitted yet; after the table's rows.
 * */
int emb_snapshot_writer_candidate(struct emb_snapshot_writer *writer, int table, uint64_t key,
                                  uint32_t pushes);

/* The file is read at once and need not outlive the machine: finish does not sync it. */
void emb_snapshot_writer_pass_on(struct emb_snapshot_writer *writer);

struct emb_snapshot_written {
    uint64_t n_rows, n_tombstones, size_bytes;
    uint64_t checksum; /* as clu_file_checksum */
};

/* End block, fsync, close, free; on failure the file is removed. written_p may be NULL. */
int emb_snapshot_writer_finish(struct emb_snapshot_writer *writer,
                               struct emb_snapshot_written *written_p);

/* Gives up: removes the file, frees. NULL is fine. */
void emb_snapshot_writer_abort(struct emb_snapshot_writer *writer);

/* The next row, tombstone or candidate of a reader: *is_candidate_p tells; a candidate has only
 * table, key and count. Otherwise as emb_snapshot_reader_next. value_p: the raw value (count not
 * included: last step, embedding, state), NULL for the others. */
int emb_snapshot_reader_entry(struct emb_snapshot_reader *reader, struct emb_row *row_p,
                              const void **value_p, int *is_candidate_p);

/* Gives the row of such an entry its embedding and state, out of its raw value: views until the
 * next call. */
void emb_snapshot_reader_widen(struct emb_snapshot_reader *reader, const void *value,
                               struct emb_row *row_p);

/* Adds the bytes read so far and the file's. */
void emb_snapshot_reader_progress(const struct emb_snapshot_reader *reader, uint64_t *read_p,
                                  uint64_t *total_p);

/* Sets the bit of a bucket. */
static inline void emb_bucket_add(uint8_t *buckets, uint32_t bucket)
{
    buckets[bucket / 8] |= (uint8_t)(1u << bucket % 8);
}

#endif

/* The snapshot file of a shard: a header, checksummed blocks of rows, an end block. Little-endian.
 *
 *   header    offset size meaning
 *             0      8    "SLUICESN"
 *             8      4    version, 2
 *             12     4    kind: 0 full, 1 delta
 *             16     8    step
 *             24     8    base step (delta), else 0
 *             32     4    number of tables T
 *             36     4    zero
 *             40     104 T the tables
 *             40+104T 8   XXH3 of all bytes before
 *   table     0      64   name, filled up with zeros
 *             64     4    dim
 *             68     4    optimizer (enum emb_optimizer)
 *             72     4    dtype (enum emb_dtype)
 *             76     4    n_state
 *             80     8    seed
 *             88     4    init_range, a float
 *             92     4    bytes of a value
 *             96     8    expire_steps: rows whose last step is further back are gone; 0: none
 *   block     0      4    "BLCK"
 *             4      4    type: 0 rows, 1 candidates (keys not yet admitted), 2 end
 *             8      4    table; end: 0
 *             12     4    number of entries n, 1..2^20; end: 0
 *             16     8    payload bytes
 *             24     8    XXH3 of the payload
 *             32     8    XXH3 of the 32 bytes before
 *             40          the payload
 *   rows                  keys n x 8, counts n x 4 (updates; 0: a tombstone), then the value of
 *                         each that is not a tombstone: last step 4, embedding dim x 4 (fp32) or
 *                         x 2 (bf16; padded to 4), state n_state x 4
 *   candidates            keys n x 8, pushes seen n x 4
 *   end                   rows 8, tombstones 8, candidates 8: totals of the file; buckets 512: bit
 *                         b % 8 of byte b / 8 is set when some entry lies in bucket b
 *
 * Tables come in order, and within a table entries by ascending key; nothing follows the end block.
 * So files merge by streaming, and a torn, cut or altered file is refused: CORRUPT, with path and
 * offset in the log. tests/embeddings/test_snapshot.c holds a worked example byte for byte.
 * Threads: one object, one thread. Memory: one block (about 1 MiB) each.
 */
#ifndef EMBEDDINGS_SNAPSHOT_H
#define EMBEDDINGS_SNAPSHOT_H

#include "embeddings/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct emb_snapshot_info {
    bool is_delta;
    uint64_t step, base_step;
    int n_tables;
    struct emb_table_spec tables[EMB_MAX_TABLES]; /* only what the header holds is meaningful */
};

/* ---- reading ---- */

struct emb_snapshot_reader;

/* Opens and checks the header. NOT_FOUND, IO, CORRUPT. */
int emb_snapshot_reader_open(const char *path, struct emb_snapshot_reader **reader_p);

const struct emb_snapshot_info *emb_snapshot_reader_info(const struct emb_snapshot_reader *reader);

/* The next row or tombstone, a view until the next call; NOT_FOUND (not logged) after the last,
 * once the end block has been found and agrees. Candidates are passed over. */
int emb_snapshot_reader_next(struct emb_snapshot_reader *reader, struct emb_row *row_p);

enum { EMB_BUCKET_BYTES = 512 };

/* What the end block says of a file. Whoever needs none of its buckets need not read it. */
struct emb_snapshot_totals {
    uint64_t n_rows, n_tombstones, n_candidates;
    uint8_t buckets[EMB_BUCKET_BYTES];
};

/* Reads the end block alone, before the entries. CORRUPT. */
int emb_snapshot_reader_totals(struct emb_snapshot_reader *reader,
                               struct emb_snapshot_totals *totals_p);

void emb_snapshot_reader_close(struct emb_snapshot_reader *reader);

/* Reads the whole file and checks every block and the buckets; counts may be NULL. */
int emb_snapshot_verify(const char *path, uint64_t *n_rows_p, uint64_t *n_tombstones_p);

/* A digest of rows that does not depend on their order or on the number of files: the sum over rows
 * of XXH3(table name, key, embedding, state, count, last step) for files that are read with this
 * and added up. Tombstones and candidates do not count. */
int emb_snapshot_digest(const char *path, uint64_t *digest_p);

/* The summand of one row. */
uint64_t emb_row_digest(const char *table_name, const struct emb_row *row);

#endif

/* The rows of a snapshot, walked once in order, whatever the number of files they lie in.
 *
 *     rows/shard-0.rows --.
 *     rows/shard-1.rows --+-- merge by (table, key) --> one stream of rows, each key once
 *     rows/...          --'
 *
 * Files hold rows by table and ascending key, so a merge needs one block of each (about 1 MiB).
 * Where files overlap (a full file and deltas upon it) the row of the highest step counts, and a
 * tombstone there means that the row is gone. Threads: one owner.
 */
#ifndef WORKER_STATE_ROWS_H
#define WORKER_STATE_ROWS_H

#include "embeddings/table.h"

#include <stdint.h>

struct wrk_state_rows;

/* Opens every file under rows/ that the snapshot folder's manifest lists. Errors: CLU_E_CORRUPT
 * naming the file (damage, or files of different tables), CLU_E_NOT_FOUND, CLU_E_NO_MEMORY. */
int wrk_state_rows_open(const char *folder, struct wrk_state_rows **rows_p);

/* The tables, as the files' headers describe them (view). */
int wrk_state_rows_n_tables(const struct wrk_state_rows *rows);
const struct emb_table_spec *wrk_state_rows_table(const struct wrk_state_rows *rows, int table);

/* The next row by (table, key), a view until the next call; CLU_E_NOT_FOUND (not logged) after the
 * last. */
int wrk_state_rows_next(struct wrk_state_rows *rows, struct emb_row *row_p);

/* NULL is fine. */
void wrk_state_rows_close(struct wrk_state_rows *rows);

#endif

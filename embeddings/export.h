/* The rows of an export: one LMDB environment, a named database per table, u64 key -> dim floats.
 *
 * This is what serving reads, so the format is LMDB's own and nothing more: MDB_INTEGERKEY keys of
 * 8 bytes, values of exactly 4 dim bytes, fp32 whatever the training stored. The folder holds
 * data.mdb (and a lock.mdb while it is open); it is made in a name beside and appears whole.
 *
 * Writing: create, put in any order (ascending keys per table are fastest), commit. Reading: many
 * threads may share a reader, each with its own emb_export_get calls. Keys that are not there: the
 * caller uses clu_row_init with the table's seed, as training did.
 */
#ifndef EMBEDDINGS_EXPORT_H
#define EMBEDDINGS_EXPORT_H

#include <stddef.h>
#include <stdint.h>

struct emb_export_writer;
struct emb_export_reader;

/* Starts an environment in a new folder dir; EXISTS when something stands there. Owner thread. */
int emb_export_create(const char *dir, struct emb_export_writer **writer_p);

/* Adds a table; *table_p numbers from 0. */
int emb_export_table(struct emb_export_writer *writer, const char *name, int dim, int *table_p);

/* Writes (or overwrites) a row [dim]. FULL, IO. */
int emb_export_put(struct emb_export_writer *writer, int table, uint64_t key, const float *row);

/* Makes it whole: sync, close, free; *counts_p [tables] receives the rows of each when not NULL. On
 * failure the folder is removed; the writer is gone either way. */
int emb_export_commit(struct emb_export_writer *writer, uint64_t *counts_p);

/* Gives up: removes the folder, frees. NULL is fine. */
void emb_export_abort(struct emb_export_writer *writer);

/* Opens for reading; a table is opened by name on demand. NOT_FOUND, CORRUPT, IO. */
int emb_export_open(const char *dir, struct emb_export_reader **reader_p);
void emb_export_close(struct emb_export_reader *reader);

/* Finds a table; dim is what the caller expects (checked against the first value, CORRUPT when it
 * differs); NOT_FOUND when there is no such table. Call for every table before sharing the reader
 * among threads. */
int emb_export_find(struct emb_export_reader *reader, const char *name, int dim, int *table_p);

/* Number of rows of a table. */
int emb_export_count(struct emb_export_reader *reader, int table, uint64_t *n_p);

/* Rows of n keys into rows_p [n, dim]; found_p [n] (may be NULL) gets 1 or 0, and rows not there
 * are left as they are. Any thread. */
int emb_export_get(struct emb_export_reader *reader, int table, const uint64_t *keys, size_t n,
                   float *rows_p, uint8_t *found_p);

/* Calls visit for each row of a table by ascending key, until it returns non-zero, which is
 * returned. */
int emb_export_each(struct emb_export_reader *reader, int table,
                    int (*visit)(uint64_t key, const float *row, void *arg), void *arg);

#endif

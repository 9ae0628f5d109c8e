/* A shard: the tables of one server thread, rows in memory over one LMDB environment.
 *
 *      pull, push                   tick, commit                    snapshot
 *          |                             |                             |
 *    rows in memory  --dirty, sorted-->  LMDB layers: base | sealed | current  --> one file
 *                                        push log (durability: log)
 *
 * One thread owns a shard and makes every call; nothing inside is locked (a snapshot's file is
 * written by a thread of its own, which only reads a committed LMDB state). Results depend on the
 * keys, gradients, steps and counts alone: not on the order of calls of one step, the number of
 * shards, the CPU or restarts.
 *
 * The rhythm of a step t at a shard:
 *    for each table: emb_shard_push(shard, table, keys, n, grads, t)   summed by the caller
 *    for each rank:  emb_shard_mark(shard, incarnation, seq)
 *    emb_shard_tick(shard, t)                                          applied: clock = t
 *    emb_shard_commit(shard)                                           acknowledge once this is OK
 *
 * After a process died, emb_shard_open gives, by durability:
 *    snapshot   the state of the last sealed snapshot (emb_shard_step says which), marks included
 *    log        the state of the last commit that returned, marks included
 * Going back: emb_shard_rollback to a snapshot that the environment still holds costs what changed
 * since; any other is emb_shard_reset and emb_shard_load from files, and costs the table.
 */
#ifndef EMBEDDINGS_SHARD_H
#define EMBEDDINGS_SHARD_H

#include "embeddings/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum emb_durability { EMB_DURABILITY_SNAPSHOT, EMB_DURABILITY_LOG };

struct emb_shard_options {
    const char *dir;       /* made when it is not there; belongs to this shard alone */
    uint64_t memory_bytes; /* the most resident bytes this shard may take; 0: no bound */
    enum emb_durability durability;
    uint64_t map_bytes;  /* address space for LMDB at the start (it grows); 0: chosen */
    uint64_t log_bytes;  /* push log at which rows are written back; 0: 512 MiB */
    uint64_t held_bytes; /* see emb_shard_snapshot_advance; 0: 1 GiB */
};

struct emb_shard;

/* "snapshot", "log"; CONFIG, logged, for any other. */
int emb_durability_by_name(const char *name, enum emb_durability *durability_p);

/* Opens or creates. The tables must be those of the last time, in any order (new ones may be
 * added): CONFIG with the field named when a stored table differs in dim, optimiser, dtype or seed.
 * CORRUPT when what is stored is damaged (then: remove the folder and load a snapshot). tables are
 * copied. */
int emb_shard_open(const struct emb_shard_options *options, const struct emb_table_spec *tables,
                   int n_tables, struct emb_shard **shard_p);

/* After an open or a roll-back, which leave rows in LMDB and so cost no table: reads them ahead for
 * about budget_us; a row that is asked for before its turn is looked up there. AGAIN: call on, when
 * nothing else is to do; pulls, pushes, ticks and commits go on between calls. OK: all rows are in
 * memory, or there is no room for more. CORRUPT and I/O codes as of a pull. */
int emb_shard_warm_advance(struct emb_shard *shard, int64_t budget_us);

/* Stops a running snapshot, commits nothing, frees. NULL is fine. */
void emb_shard_close(struct emb_shard *shard);

int emb_shard_n_tables(const struct emb_shard *shard);
const struct emb_table_spec *emb_shard_spec(const struct emb_shard *shard, int table);

/* Rows of n keys into rows_p [n, dim], in the order of the keys; keys may repeat. Rows that do not
 * exist have their initial value and are not created. On an error rows_p is partly written: I/O
 * codes, CORRUPT, NO_MEMORY. */
int emb_shard_pull(struct emb_shard *shard, int table, const uint64_t *keys, size_t n,
                   float *rows_p);

/* One optimiser update of each of n distinct keys by its gradient, grads [n, dim], and creation of
 * rows not there yet (see min_count). step: 1..2^32 - 1. A gradient with a NaN or infinity is
 * refused whole: DATA, nothing changed. On NO_MEMORY, FULL and I/O codes nothing was changed
 * either: the call may be repeated. */
int emb_shard_push(struct emb_shard *shard, int table, const uint64_t *keys, size_t n,
                   const float *grads, uint64_t step);

/* Remembers that everything up to seq of this worker incarnation is applied; kept with the rows.
 * seq never goes down. */
int emb_shard_mark(struct emb_shard *shard, uint64_t incarnation, uint64_t seq);

/* The last seq marked; 0 when the incarnation is not known. */
uint64_t emb_shard_last_seq(const struct emb_shard *shard, uint64_t incarnation);

/* Step `step` is wholly applied: moves the clock (expiry counts by it; it never goes down) and does
 * a slice of the housekeeping (expiry, write-back, eviction). To be called for every step, pushes
 * or none. */
int emb_shard_tick(struct emb_shard *shard, uint64_t step);

/* Everything pushed and marked since the last commit becomes as durable as the durability says;
 * log: one group, written and fdatasynced. On FULL or IO nothing of the group is durable and it
 * stays pending: do not acknowledge; call again later. */
int emb_shard_commit(struct emb_shard *shard);

/* The clock: after open or load, the step of the state found. */
uint64_t emb_shard_step(const struct emb_shard *shard);

/* ---- snapshots ---- */

enum emb_snapshot_kind { EMB_SNAPSHOT_FULL, EMB_SNAPSHOT_DELTA };

struct emb_snapshot_result {
    uint64_t step, base_step; /* base_step: of the snapshot that a delta starts from; else 0 */
    uint64_t n_rows, n_tombstones;
    uint64_t size_bytes, checksum; /* of the file; as clu_file_checksum */
    double seconds;                /* from begin to the last byte on disk */
};

/* Begins a snapshot of the state as it stands now (after the tick of `step`), into one file at
 * path, which must not exist. Takes no longer than a copy of the marks. A delta holds what changed
 * since the last confirmed snapshot (NOT_FOUND when there is none). AGAIN while another snapshot
 * runs. */
int emb_shard_snapshot_begin(struct emb_shard *shard, enum emb_snapshot_kind kind, uint64_t step,
                             const char *path);

/* While the scribe (scribe.h) has what is to be written: at a priority below what trains, or, in a
 * hurry, as other threads, because on a busy machine it would take too long. */
void emb_shard_hurry(struct emb_shard *shard, bool hurry);

/* The running snapshot is written over about so long, counted from its beginning, and merged after
 * its confirmation over as long again; 0, as it is at first: as fast as it can be. Where memory or
 * the map run short meanwhile it is not waited for. */
void emb_shard_spread(struct emb_shard *shard, int64_t spread_us);

/* Works on the running snapshot for about budget_us microseconds and returns; pulls, pushes, ticks
 * and commits go on between calls. AGAIN: not done yet (call on, every few ms at most); OK: the
 * file is whole and on disk, *result_p is filled. Another status: it failed, the file is removed,
 * the shard is as it was; FULL also when the environment grew by more than held_bytes and half its
 * size meanwhile, as pages that the file is written from cannot be used again. */
int emb_shard_snapshot_advance(struct emb_shard *shard, int64_t budget_us,
                               struct emb_snapshot_result *result_p);

/* Gives the running snapshot up and removes its file; nothing running is fine. */
void emb_shard_snapshot_abort(struct emb_shard *shard);

/* The job's snapshot of this step is committed: it becomes what deltas start from, and the state
 * that rollback and (durability: snapshot) restarts return to. Costs nothing now; the layers merge
 * during ticks. NOT_FOUND when this step's snapshot was not finished here. */
int emb_shard_snapshot_confirm(struct emb_shard *shard, uint64_t step);

/* All of the above in one: begin (full), advance until done, confirm. */
int emb_shard_snapshot(struct emb_shard *shard, uint64_t step, const char *path,
                       struct emb_snapshot_result *result_p);

/* Back to the state of a finished snapshot that the environment holds: the last confirmed one, or a
 * finished one after it. Also gives up a running snapshot. NOT_FOUND: it is not held (reset and
 * load). */
int emb_shard_rollback(struct emb_shard *shard, uint64_t step);

/* Back to the state before training: no rows, no marks, step 0; the environment's file is made
 * anew. */
int emb_shard_reset(struct emb_shard *shard);

/* Fills an empty shard (fresh or reset) from snapshot files of any number of shards: each row whose
 * bucket satisfies `keep` (NULL: all). Full files and deltas upon them may be mixed; for a row in
 * several the file of the highest step counts. Tables are matched by name; a table the shard does
 * not have is passed over with a warning. The step becomes the highest of the files. Marks are not
 * taken: whoever restores starts new incarnations. EXISTS when the shard is not empty; CORRUPT
 * names the file. */
int emb_shard_load(struct emb_shard *shard, const char *const *paths, size_t n_paths,
                   bool (*keep)(uint32_t bucket, void *arg), void *arg);

/* ---- looking at rows, moving buckets ---- */

/* One row as it stands; NOT_FOUND when it does not exist. */
int emb_shard_row(struct emb_shard *shard, int table, uint64_t key, struct emb_row *row_p);

/* Calls visit for each row of the buckets that satisfy keep (NULL: all), tables in order, rows of a
 * table in no order; stops at its first non-zero status and returns it. visit must not call the
 * shard. */
int emb_shard_each(struct emb_shard *shard, bool (*keep)(uint32_t bucket, void *arg),
                   int (*visit)(const struct emb_row *row, void *arg), void *arg);

/* Buckets move between steps. Marks do not: they say what a shard has applied, not what a row has.
 * Durability log: what is put or dropped is as durable as a push. Durability snapshot: like pushes
 * it is forgotten with the state since the last snapshot; a restore says anew which buckets are
 * whose. In deltas a dropped row is a tombstone here and a row there, of the same step: the row
 * counts. */

/* Many buckets that leave one after the other while pushes to them go on (shard_leave.c): listed
 * once, beside the steps, then exported and forgotten a few at a time.
 *
 * Begins to list the rows of buckets [n]: the first so many as there is memory for. Lists begun
 * before are dropped. NO_MEMORY. */
int emb_shard_collect(struct emb_shard *shard, const uint16_t *buckets, int n);

/* Goes on listing for about budget_us; AGAIN: call on; pulls, pushes, ticks and commits go on
 * between calls, and after. */
int emb_shard_collect_advance(struct emb_shard *shard, int64_t budget_us);

/* True when the bucket is listed and not yet forgotten. *n_rows_p: rows, or a few more. */
bool emb_shard_collected(const struct emb_shard *shard, uint16_t bucket, uint64_t *n_rows_p);

/* Writes what listed buckets hold now, rows and waiting keys, into a snapshot file at path, which
 * must not exist. It is not synced: whoever lost it would have to begin anew anyway. NOT_FOUND: a
 * bucket is not listed. */
int emb_shard_export(struct emb_shard *shard, const uint16_t *buckets, int n, const char *path,
                     uint64_t *n_rows_p);

/* Takes in what such a file has of the buckets that satisfy keep; the caller commits. CORRUPT names
 * the file. May be repeated after a failure. */
int emb_shard_adopt(struct emb_shard *shard, const char *path,
                    bool (*keep)(uint32_t bucket, void *arg), void *arg, uint64_t *n_rows_p);

/* Drops listed buckets, for about budget_us; AGAIN: call on. The caller commits at the end. */
int emb_shard_forget(struct emb_shard *shard, const uint16_t *buckets, int n, int64_t budget_us);

/* Writes a row as it is (a row that moved here from another shard). dim and n_state must fit: DATA.
 */
int emb_shard_put(struct emb_shard *shard, const struct emb_row *row);

/* A key that has been pushed count times elsewhere and waits for admission. */
int emb_shard_put_waiting(struct emb_shard *shard, int table, uint64_t key, uint32_t count);

/* Removes every row of the buckets that satisfy wanted, in one go: a look at the whole table. */
int emb_shard_drop(struct emb_shard *shard, bool (*wanted)(uint32_t bucket, void *arg), void *arg);

struct emb_table_stats {
    uint64_t n_rows, n_resident; /* rows that exist; those of them in memory */
    uint64_t n_dirty;            /* in memory, not yet in LMDB */
    uint64_t row_bytes;          /* a row's own bytes: key, embedding, state */
    uint64_t memory_bytes;       /* resident for this table: rows, index, flags, sketch */
    uint64_t n_pulled, n_pushed, n_created, n_expired, n_evicted, n_missed /* looked up in LMDB */;
};

struct emb_shard_stats {
    uint64_t step, n_rows, n_resident, n_dirty;
    uint64_t memory_bytes, file_bytes, map_bytes, log_bytes;
    uint64_t written_bytes;   /* to LMDB and log, since open */
    uint64_t snapshot_step;   /* last confirmed; 0: none */
    int64_t longest_slice_us; /* longest tick or advance since the last call of emb_shard_stats */
    uint64_t pages_held;      /* LMDB pages a running snapshot keeps from being reused */
};

void emb_shard_stats(struct emb_shard *shard, struct emb_shard_stats *stats_p);
void emb_shard_table_stats(struct emb_shard *shard, int table, struct emb_table_stats *stats_p);

#endif

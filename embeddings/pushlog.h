/* The push log of a shard (durability: log): groups of records, appended and synced as one.
 *
 *   file      push-<first lsn, 16 hex digits>.log, in the shard's folder
 *   group     offset size meaning
 *             0      4    "GRUP"
 *             4      4    number of records
 *             8      8    lsn: one more than the group before
 *             16     8    payload bytes
 *             24     8    XXH3 of the payload
 *             32     8    XXH3 of the 32 bytes before
 *             40          records, one after the other
 *   record    0      4    kind: 1 push, 2 mark, 3 tick, 4 rows, 5 waiting, 6 drop
 *             4      4    push, rows, waiting: table, by its number here; else 0
 *             8      8    push, tick: step; mark: incarnation; rows: bytes of a value; else 0
 *             16     8    mark: seq; tick: 0; others: number of keys n
 *             24          keys n x 8, then push: gradients n x dim x 4; rows: values, n of the
 *                         bytes said; waiting: pushes counted, n x 4; filled up to 8
 *
 * A drop's keys are the set of buckets that went away, a bit each: 64 words.
 *
 * A group is what one commit acknowledges: after a crash it is there whole or not at all. A torn
 * group at the end of the newest file is cut off; damage anywhere else is CORRUPT. Threads: one
 * owner.
 */
#ifndef EMBEDDINGS_PUSHLOG_H
#define EMBEDDINGS_PUSHLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct emb_pushlog;

struct emb_pushlog_record {
    enum {
        EMB_LOG_PUSH = 1,
        EMB_LOG_MARK,
        EMB_LOG_TICK,
        EMB_LOG_ROWS,    /* put as they are */
        EMB_LOG_WAITING, /* counts of admission, set */
        EMB_LOG_DROP,    /* of whole buckets */
    } kind;
    int table;
    uint64_t step, incarnation, seq;
    size_t value_bytes; /* rows */
    size_t n;
    const uint64_t *keys;
    const float *grads; /* push: [n, dim] */
    const void *values; /* rows: [n, value_bytes]; waiting: [n] uint32_t */
};

/* Opens the log in a folder: replays every group with lsn > after, in order, through apply (a
 * record at a time; its status other than OK ends the opening), cuts a torn end, and goes on in a
 * new file. dims [n_tables]. With apply NULL the files are removed instead. *last_lsn_p: the
 * highest lsn seen, or after. */
int emb_pushlog_open(const char *dir, const int *dims, int n_tables, uint64_t after,
                     int (*apply)(void *context, uint64_t lsn,
                                  const struct emb_pushlog_record *record),
                     void *context, struct emb_pushlog **log_p);
void emb_pushlog_close(struct emb_pushlog *log);

/* Adds a record to the pending group, in memory. NO_MEMORY: nothing added. */
int emb_pushlog_add(struct emb_pushlog *log, const struct emb_pushlog_record *record);

/* True while records are pending. */
bool emb_pushlog_pending(const struct emb_pushlog *log);

/* Writes and syncs the pending group; *lsn_p is its number. On FULL or IO the file is as before and
 * the group stays pending. Nothing pending: OK, *lsn_p the last one's. */
int emb_pushlog_commit(struct emb_pushlog *log, uint64_t *lsn_p);

/* Takes the last added record out of the pending group again. */
void emb_pushlog_retract(struct emb_pushlog *log);

/* Drops the pending group. */
void emb_pushlog_drop(struct emb_pushlog *log);

/* lsn of the last committed group. */
uint64_t emb_pushlog_lsn(const struct emb_pushlog *log);

/* Starts a new file, so that groups up to now can be cut. */
int emb_pushlog_rotate(struct emb_pushlog *log);

/* Removes the files that hold only groups with lsn <= up_to (never the open one). */
int emb_pushlog_cut(struct emb_pushlog *log, uint64_t up_to);

/* Bytes in all files, and bytes written since open. */
uint64_t emb_pushlog_bytes(const struct emb_pushlog *log);
uint64_t emb_pushlog_written(const struct emb_pushlog *log);

#endif

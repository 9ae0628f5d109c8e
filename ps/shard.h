/* A shard's mind: what each request does, when it is held, what is applied in which order. No
 * socket, no clock, no thread: messages and the time are passed in, replies go out through a
 * function.
 *
 *                       .-> HELLO, STATS ------------------------------------------> reply
 *     message -> check -+-> PULL  --ready?-- no --> held (deadline, bounded) --.
 *                       |             '----- yes -------------------------------+--> rows
 *                       +-> PUSH  --> gate --complete--> sum, apply, mark, commit --> reply to each
 *                       +-> STEP, SNAPSHOT, DRAIN: held until the step is applied
 *                       '-> malformed: counted, and a status reply
 *
 * Rules
 *  (R1) staleness s >= 0: a pull of step t is answered when every step <= t - 1 - s is applied.
 *  (R2) a step is applied once, when all ranks' pushes of it are here; a row's gradients are summed
 *       in rank order.
 *  (R3) async: a rank's pushes are applied in the order of their seq, each once.
 *  (R4) a push is acknowledged after its rows and its mark are committed; a repeated one is
 *       acknowledged again and applied never again.
 *  (R5) a snapshot of step t holds exactly the steps <= t: it begins after t is applied and before
 *       t + 1 is.
 *  (R6) storage that is full or fails stops the applying, not the shard: nothing is acknowledged,
 *       it is tried again, and pulls that need no more steps are answered. A gradient that is not
 *       finite, or a store that is damaged, ends the job: every later push gets that status.
 *  (R7) nothing is allocated for a message before its sizes are checked; what is held is bounded,
 *       and more is refused with AGAIN.
 *  (R8) once a rank's hello is answered, no push of an older incarnation of that rank is taken, and
 *       none of those that waited is left (ps/shard_life.c).
 *  (R9) a push is applied by the owners that it was split for; a pull by owners that are not known
 *       here yet is held until they are (ps/shard_move.c).
 *  (R10) a snapshot takes about a twentieth of the shard's time while it serves, in slices shorter
 *        than anybody notices, and of the cores what is left over (emb_shard_hurry), spread over as
 *        long as its request says; all of it when nobody asks for rows, or when it becomes late.
 *
 * Threads: one object, one thread.
 */
#ifndef PS_SHARD_H
#define PS_SHARD_H

#include "cluster/transport.h"
#include "cluster/wire.h"
#include "ps/hello.h"

#include <stdbool.h>
#include <stdint.h>

struct emb_shard;
struct psv_shard;

struct psv_shard_options {
    struct emb_shard *rows;      /* outlives this object */
    struct psv_terms terms;      /* tables are copied */
    int number;                  /* job-wide: names the snapshot's file */
    uint64_t applied;            /* steps already in rows */
    uint64_t least_incarnation;  /* pushes of older ones belong to a life that is over */
    const char *snapshot_root;   /* snapshots are written below it only; NULL: anywhere */
    const char *move_root;       /* rows of buckets that move lie there; NULL: none move */
    uint64_t owners;             /* version of the map's owners; 0: not told, any will do */
    const unsigned char *owned;  /* [CLU_N_BUCKETS / 8] a bit each, copied; NULL: not told */
    uint64_t max_buffered_bytes; /* of pushes that wait, and again of all else; 0: 1 GiB */
    uint64_t max_reply_bytes;    /* of a pull's rows; 0: 256 MiB */
    int max_held;                /* pulls and other requests; 0: 1024 and 32 a rank */

    /* Sends a reply, which it empties; 0, CLU_E_AGAIN: the peer does not read, CLU_E_UNAVAILABLE:
     * it is gone. In both cases the reply is dropped and counted: the peer asks again. */
    int (*send)(void *context, struct clu_message *message);
    void *context;
};

int psv_shard_create(const struct psv_shard_options *options, struct psv_shard **shard_p);

/* Drops what is held. The rows stay the caller's. NULL is fine. */
void psv_shard_free(struct psv_shard *shard);

/* Takes one message (emptied). now_ms: any monotonic clock. */
void psv_shard_handle(struct psv_shard *shard, struct clu_message *message, int64_t now_ms);

/* Counts a message that the transport had to drop. */
void psv_shard_count_malformed(struct psv_shard *shard);

/* Lets time pass: deadlines, storage tried again, a slice of a running snapshot. To be called
 * after each batch of messages and when the returned number of milliseconds (0..50) has passed.
 * */
int psv_shard_tick(struct psv_shard *shard, int64_t now_ms);

/* The last step applied (async: the highest seen). */
uint64_t psv_shard_applied(const struct psv_shard *shard);

/* The status that ends the job (R6), or 0. */
int psv_shard_status(const struct psv_shard *shard);

struct psv_shard_stats {
    uint64_t requests[CLU_WIRE_N_OPS];
    uint64_t malformed;  /* all reasons */
    uint64_t refused;    /* AGAIN: no room */
    uint64_t duplicates; /* pushes here already */
    uint64_t expired;    /* held past their deadline */
    uint64_t unsent;     /* replies whose peer was gone or did not read */
    uint64_t rows_pulled, rows_pushed, keys_summed;
    uint64_t rows_moved_in, rows_moved_out; /* with their buckets */
    uint64_t held, buffered_bytes;          /* now */
    uint64_t applied;
    uint64_t stalled_ms; /* storage kept failing for so long by now */
};

void psv_shard_stats(const struct psv_shard *shard, struct psv_shard_stats *stats_p);

#endif

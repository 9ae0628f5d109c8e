/* Rank 0's part in a change of shape: it lets buckets move from server to server while the job
 * trains, a few between two steps each time, until all are where the scheduler's plan wants them.
 *
 *     IDLE --order--> COLLECTING --listed--> READY --all ranks agree--> RELEASING --> SETTLING
 *       ^                 ^                    ^        (a step T)     before T + 1     |  MOVED is
 *       '-- SETTLED --- nothing left           '------- more listed <-- FORGETTING <----'  stored
 *
 * What the servers do, and why nothing is lost: ps/shard_move.c. Threads: the training thread.
 */
#ifndef WORKER_TRAIN_MOVE_H
#define WORKER_TRAIN_MOVE_H

#include "cluster/map.h"

#include <stdbool.h>
#include <stdint.h>

struct clu_member;
struct psv_client;
struct wrk_mover;

struct wrk_mover_options {
    struct clu_member *member; /* both outlive the mover */
    struct psv_client *client;
    const struct clu_bucket_map *map; /* that the client has; copied */
    int n_ahead;                      /* steps whose rows are asked for beyond the next */
    int64_t move_ms;                  /* longest that a step is to wait for buckets */
    int (*wait)(void *context, uint64_t ticket); /* for a ticket of the client */
    void *context;
};

int wrk_mover_create(const struct wrk_mover_options *options, struct wrk_mover **mover_p);
void wrk_mover_free(struct wrk_mover *mover);

/* Order MOVE: what is to move is in the scheduler's map of this version. */
void wrk_mover_order(struct wrk_mover *mover, uint64_t map_version);

/* Order MOVED: these owners are stored. */
void wrk_mover_stored(struct wrk_mover *mover, uint64_t owners);

/* Between steps, done of them: goes on with all that needs no agreement. Never waits. */
int wrk_mover_advance(struct wrk_mover *mover, uint64_t done);

/* Buckets could move at the next boundary. */
bool wrk_mover_is_ready(const struct wrk_mover *mover);

/* Version of the owners that requests go by. */
uint64_t wrk_mover_owners(const struct wrk_mover *mover);

/* Some have moved and are not yet forgotten where they were: no snapshot may begin. */
bool wrk_mover_is_busy(const struct wrk_mover *mover);

/* All ranks agreed that they move after this step: begins it. *map_p: by which every rank asks from
 * now on. Call finish before the push of step + 1. */
int wrk_mover_release(struct wrk_mover *mover, uint64_t step, struct clu_bucket_map *map_p);

/* The new owners have what they need, when this returns; nothing to do is fine. */
int wrk_mover_finish(struct wrk_mover *mover);

/* No rank waits for rows any more and no step follows: what has moved is forgotten where it was, as
 * soon as it is stored; at most timeout_ms. */
int wrk_mover_end(struct wrk_mover *mover, int timeout_ms);

#endif

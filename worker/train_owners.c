/* What all ranks do when buckets move from server to server: agree on a step, and ask by the new
 * owners after it. Which buckets, and the servers' part, is rank 0's business (train_move.c).
 *
 * Rank 0 says in the dense all-reduce that buckets are ready; so every rank knows at the same
 * boundary, and rank 0 sends the new map to all. With a bound on staleness nobody waits: no shard
 * applies the next step before rank 0 has pushed it, which it does when the new owners are ready
 * (wrk_mover_finish in train_step.c); meanwhile all ranks compute. Without one, nothing holds a
 * request back, so all ranks wait, with every push answered.
 */
#include "worker/train_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>

/* for the mover: a ticket, or only the orders */
static int wait_and_obey(void *context, uint64_t ticket)
{
    struct wrk_trainer *t = context;
    return ticket ? wrk_train_wait(t, ticket) : wrk_train_orders(t);
}

int wrk_train_create_mover(struct wrk_trainer *t)
{
    struct clu_bucket_map *map = malloc(sizeof(*map));
    if (!map)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the bucket map");
    psv_client_map(t->client, map);
    struct wrk_mover_options options = {
        .member = t->member,
        .client = t->client,
        .map = map,
        .n_ahead = t->n_ahead,
        .move_ms = t->job.move_ms,
        .wait = wait_and_obey,
        .context = t,
    };
    int status = wrk_mover_create(&options, &t->mover);
    free(map);
    return status;
}

bool wrk_train_may_move(struct wrk_trainer *t)
{
    return t->mover && wrk_mover_is_ready(t->mover) && !t->snapshot_wish &&
           !wrk_snapshotter_busy(t->snapshotter) && t->done != t->last_step;
}

/* All ranks are here. */
static int barrier(struct wrk_trainer *t)
{
    int64_t here = 0;
    return wrk_mpi_max_ints(t->mpi, &here, 1, WRK_MPI_TIMEOUT_MS);
}

int wrk_train_move(struct wrk_trainer *t)
{
    bool async = t->job.staleness == CLU_STALENESS_ASYNC;
    struct clu_bucket_map *map = malloc(sizeof(*map));
    int status = map ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory for the bucket map");
    if (!status && async)
        status = wrk_train_retire(t, t->turn);
    if (!status && async)
        status = barrier(t);
    if (!status && t->rank == 0)
        status = wrk_mover_release(t->mover, t->done, map);
    if (!status && t->rank == 0 && async)
        status = wrk_mover_finish(t->mover);
    if (!status)
        status = wrk_mpi_broadcast(t->mpi, map, sizeof(*map), WRK_MPI_TIMEOUT_MS);
    if (!status && t->rank != 0)
        status = psv_client_switch(t->client, map);
    free(map);
    return status;
}

int wrk_train_settle(struct wrk_trainer *t)
{
    int64_t busy = t->mover && wrk_mover_is_busy(t->mover);
    int status = wrk_mpi_max_ints(t->mpi, &busy, 1, WRK_MPI_TIMEOUT_MS);
    if (status || !busy)
        return status;
    if (t->mover)
        status = wrk_mover_finish(t->mover);
    if (!status)
        status = wrk_train_receive(t);
    if (!status)
        status = barrier(t); /* then nobody waits for rows of old owners */
    if (!status && t->mover)
        status = wrk_mover_end(t->mover, (int)t->job.request_timeout_ms);
    return status;
}

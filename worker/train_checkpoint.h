/* Dense checkpoints: what workers that are started again within a life of the job begin from, when
 * the servers' rows stand as they are (train_stand.c).
 *
 *     OUT/run/dense/<generation>-<step>/    the three files of state.h: a few MB, the newest only
 *
 * Written by a thread of rank 0 beside training, appearing whole by a rename. One of another
 * generation is of a life that is over, and never used. Threads: one owner, beside the writer's
 * own.
 */
#ifndef WORKER_TRAIN_CHECKPOINT_H
#define WORKER_TRAIN_CHECKPOINT_H

#include "cluster/job.h"
#include "worker/state.h"

#include <stdint.h>

struct wrk_checkpointer;

/* Removes what other generations left. manifest outlives the checkpointer. */
int wrk_checkpointer_create(const struct clu_job *job, const struct wrk_manifest *manifest,
                            size_t n_params, uint64_t generation,
                            struct wrk_checkpointer **checkpointer_p);

/* Waits for the writer and frees. NULL is fine. */
void wrk_checkpointer_free(struct wrk_checkpointer *checkpointer);

/* Copies the state and begins to write it; does nothing while the one before is being written. A
 * failure to write is a warning: what is lost is a shorter way back. */
void wrk_checkpointer_begin(struct wrk_checkpointer *checkpointer, const struct wrk_state *state);

/* The newest of a generation under OUT. NOT_FOUND, not logged, when there is none. */
int wrk_checkpoint_find(const char *out, uint64_t generation, char folder_p[CLU_PATH_BYTES],
                        uint64_t *step_p);

#endif

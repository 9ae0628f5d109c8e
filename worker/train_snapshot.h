/* Rank 0's part in a snapshot: written beside training.
 *
 *     IDLE --begin(step)--> WRITING --files there, reported--> REPORTED --COMMITTED--> IDLE
 *                              '-------- failed, reported --------------------------> IDLE
 *
 * begin runs on the training thread at a step boundary, between the push of step t and that of t +
 * 1: it copies the dense state, makes the folder and asks every shard for its rows as of t. A
 * thread then writes the dense files, waits for the shards and reports all parts to the scheduler,
 * which commits. Full or delta is decided here, once for all shards; shards and scheduler refuse a
 * delta whose base they do not have, and then the next is full. One snapshot at a time. Threads:
 * the training thread, beside the writer's own.
 */
#ifndef WORKER_TRAIN_SNAPSHOT_H
#define WORKER_TRAIN_SNAPSHOT_H

#include "cluster/job.h"
#include "cluster/member.h"
#include "ps/client.h"
#include "worker/export_manifest.h"
#include "worker/state.h"

#include <stdbool.h>
#include <stdint.h>

struct wrk_snapshotter;

struct wrk_snapshotter_options {
    const struct clu_job *job; /* all of these outlive the snapshotter */
    struct clu_member *member;
    struct psv_client *client;
    const struct wrk_manifest *manifest;
    size_t n_params;
};

int wrk_snapshotter_create(const struct wrk_snapshotter_options *options,
                           struct wrk_snapshotter **snapshotter_p);

/* Waits for the writer (whose waits all have deadlines) and frees. NULL is fine. */
void wrk_snapshotter_free(struct wrk_snapshotter *snapshotter);

/* True from begin until the snapshot is committed or has failed. */
bool wrk_snapshotter_busy(struct wrk_snapshotter *snapshotter);

/* Begins the snapshot of state->step. state is copied. Its rows are those that changed since the
 * one before, or all: when the plan says so (cluster/chain.h) or full is set. at_once: somebody
 * waits for it; otherwise the job's snapshot_spread counts from the one before. Errors: CLU_E_AGAIN
 * while busy; I/O codes, after which the snapshotter is idle. */
int wrk_snapshotter_begin(struct wrk_snapshotter *snapshotter, const struct wrk_state *state,
                          bool full, bool at_once);

/* True when the last one failed because of what it was a delta upon: a full one is due now. */
bool wrk_snapshotter_wants_full(struct wrk_snapshotter *snapshotter);

/* The scheduler's word on a step's snapshot: order COMMITTED. */
void wrk_snapshotter_committed(struct wrk_snapshotter *snapshotter, uint64_t step, int status);

/* How the last snapshot ended (CLU_OK when committed), and the newest step that is committed. */
int wrk_snapshotter_status(struct wrk_snapshotter *snapshotter, uint64_t *committed_step_p);

#endif

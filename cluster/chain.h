/* Chains of snapshots: a full one, and deltas that hold what changed since the one before. Here is
 * what follows from their steps, bases and damage alone; the files are cluster/snapshot.h's.
 *
 *     step   100   200   300   400   500 | 600   700
 *     kind   full <- d  <- d  <- d  <- d | full <- d      snapshot_full_every: 5
 *
 * A snapshot can be restored when it and every link below it, down to a full one, are whole and are
 * the very ones it was made upon (a delta knows its base's step and manifest checksum). Threads:
 * any; plain data.
 */
#ifndef CLUSTER_CHAIN_H
#define CLUSTER_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a snapshot's manifest says of its place in a chain. */
struct clu_link {
    uint64_t step;
    uint64_t base_step;               /* what it is a delta upon; 0: full */
    uint64_t checksum, base_checksum; /* of its manifest, and of its base's as it was */
    bool whole;                       /* its own files are there */
    bool pinned;                      /* it is to stay until a newer one is pinned */
};

enum { CLU_LINK_FULL = -1, CLU_LINK_BROKEN = -2 };

/* The base of link i among links [n, ascending step]: its index; CLU_LINK_FULL: it needs none;
 * CLU_LINK_BROKEN: it is not there, or is not the one that i was made upon. */
int clu_chain_base(const struct clu_link *links, size_t n, size_t i);

/* The number of links that i is restored from, itself included; 0: it cannot be. */
size_t clu_chain_length(const struct clu_link *links, size_t n, size_t i);

/* Retention: kept_p [n] becomes true for the newest `keep` that can be restored and for every
 * link they need (keep < 1: for all), for the newest pinned one and its links, and for what is
 * broken and newer than the oldest of these, which somebody may want to look at. */
void clu_chain_keep(const struct clu_link *links, size_t n, int64_t keep, bool *kept_p);

/* ---- what the next one will be ---- */

/* Held by whoever orders snapshots, from the start of a life of the job on: a life begins with a
 * full one. */
struct clu_chain_plan {
    int64_t full_every;  /* every so many-th is full; 1: all */
    uint64_t base_step;  /* the newest committed in this life; 0: none, or not to be built upon */
    int64_t n_links;     /* of its chain */
    uint64_t full_bytes; /* of the chain's full one; and of its deltas together */
    uint64_t delta_bytes;
};

/* The step that the next snapshot is a delta upon; 0: it is full: the first of a life, every
 * full_every-th, and when the deltas have grown to the size of the full one (a restore reads at
 * most about twice a full snapshot). */
uint64_t clu_chain_next(const struct clu_chain_plan *plan);

/* The snapshot of step is committed: base_step as it was ordered; bytes of its rows. */
void clu_chain_committed(struct clu_chain_plan *plan, uint64_t step, uint64_t base_step,
                         uint64_t bytes);

/* It was not, with status. When that speaks against the base (NOT_FOUND, CORRUPT), the next one is
 * full; otherwise (a full disk, a lost answer) the base stands, and the next holds what changed
 * since. */
void clu_chain_failed(struct clu_chain_plan *plan, int status);

#endif

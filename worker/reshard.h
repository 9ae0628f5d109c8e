/* A snapshot rewritten for another number of servers and shards, as one full snapshot: rows by
 * bucket into new files, the dense half as it is. Its digest is the same. Also how a chain of
 * deltas becomes one folder that needs no other. */
#ifndef WORKER_RESHARD_H
#define WORKER_RESHARD_H

#include "cluster/job.h"

#include <stddef.h>
#include <stdint.h>

struct wrk_reshard_options {
    const char *snapshot; /* a snapshot's folder, or one that holds some: as for an export */
    const char *out;      /* a folder of snapshots; made when it is not there */
    int n_servers;        /* 0: as many as wrote the snapshot */
    int n_shards;         /* a server; 0: as many as a server had */
    uint64_t memory_bytes;
    void (*progress)(void *context, double done, uint64_t n_rows); /* NULL: not wanted */
    void *context;
};

struct wrk_reshard_result {
    char from[CLU_PATH_BYTES], to[CLU_PATH_BYTES]; /* the folders read and written */
    size_t n_links;                                /* snapshots read: more than one for a chain */
    uint64_t step, n_rows, size_bytes;             /* rows, and bytes of their files, written */
    int n_servers, n_shards /* over all servers */;
    double seconds;
};

/* Reads the snapshot (verified by checksum first) and commits OUT/step-N as any snapshot is: whole
 * or not there. Errors: EXISTS when OUT holds that step already; as wrk_export_create and
 * emb_snapshot_split. */
int wrk_reshard(const struct wrk_reshard_options *options, struct wrk_reshard_result *result_p);

#endif

/* The manifest of a snapshot: what it is, what it is a delta upon, and every file with its size and
 * checksum. How a folder with one becomes a whole snapshot is cluster/snapshot.h's.
 *
 *     {"checksum": of this text, "format": 2, "kind": "snapshot", "job", "generation", "step",
 *      "base": null (full) or {"step", "checksum": of its manifest}, "time_ms", "servers",
 *      "shards", "workers", "files": [{"path", "size_bytes", "xxh3"}, ...]}
 *
 * Threads: any; plain data.
 */
#ifndef CLUSTER_MANIFEST_H
#define CLUSTER_MANIFEST_H

#include "cluster/job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLU_FILE_NAME_BYTES = 256 };

/* One file of a snapshot. */
struct clu_manifest_file {
    char path[CLU_FILE_NAME_BYTES]; /* relative to the snapshot's folder, '/' between parts */
    uint64_t size_bytes;
    uint64_t checksum; /* clu_file_checksum: XXH3 of the bytes */
};

struct clu_manifest {
    uint64_t job_id;     /* which job wrote it */
    uint64_t generation; /* and which of its lives */
    uint64_t step;
    uint64_t base_step;     /* its rows are those that changed since this snapshot; 0: all */
    uint64_t base_checksum; /* of that snapshot's manifest */
    uint64_t checksum;      /* of this one; filled in by load */
    int64_t time_ms;        /* of the commit, since 1970 */
    int n_servers, n_shards /* over all servers */, n_workers;
    int n_files;
    struct clu_manifest_file *files; /* owned; sorted by path */
};

void clu_manifest_fini(struct clu_manifest *manifest);

/* Copies what reported says and lists the files of the folder (manifest.json apart). Those that
 * reported->files [n_files, any order] names are taken by their reported sums, after their sizes
 * agreed with the disk (CORRUPT, also for one that is not there); others are read and summed.
 * Caller: fini. */
int clu_manifest_list(const char *folder, const struct clu_manifest *reported,
                      struct clu_manifest *manifest_p);

/* Bytes of the files whose paths begin with prefix. */
uint64_t clu_manifest_bytes(const struct clu_manifest *manifest, const char *prefix);

/* Writes FOLDER/manifest.json whole and synced, then syncs rows/ and the folder. */
int clu_manifest_save(const char *folder, const struct clu_manifest *manifest);

/* Reads FOLDER/manifest.json. NOT_FOUND without one, CORRUPT when a byte of it has changed. Caller:
 * fini. */
int clu_manifest_load(const char *folder, struct clu_manifest *manifest_p);

/* Checks that every file of the manifest is there, whole and unchanged. sums: also reads them all
 * for the checksum; without it sizes only. CORRUPT with the file named. */
int clu_manifest_verify(const char *folder, const struct clu_manifest *manifest, bool sums);

/* The same with sums, but of files in rows/, which may be most of a disk, sizes only. */
int clu_manifest_verify_small(const char *folder, const struct clu_manifest *manifest);

#endif

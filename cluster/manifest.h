/* Snapshots on disk: how a folder becomes a whole snapshot, and how a reader knows that it is one.
 *
 *     OUT/run/snapshot/
 *         latest                    one line: the name of the newest whole snapshot
 *         step-000000001000/        manifest.json, dense.safetensors, state.json, rows/...
 *         step-000000002000.part/   being written
 *
 * Writers put their files into the .part folder and fsync each. Then one process commits: it lists
 * the folder, writes manifest.json (every file's size and XXH3), fsyncs it, the folder and rows/,
 * renames .part away, fsyncs the parent, replaces `latest`, and only then removes snapshots beyond
 * `keep`. So a folder without .part is whole, unless the disk lies; clu_manifest_verify finds out.
 *
 * Threads: any, but one committer a root. Cost: commit stats files; it reads only those nobody
 * reported.
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
    int64_t time_ms; /* of the commit, since 1970 */
    int n_servers, n_shards /* over all servers */, n_workers;
    int n_files;
    struct clu_manifest_file *files; /* owned; sorted by path */
};

void clu_manifest_fini(struct clu_manifest *manifest);

/* OUT/run/snapshot, the root that everything below takes. USAGE when it does not fit. */
int clu_snapshot_root(const char *out, char root_p[CLU_PATH_BYTES]);

/* ROOT/step-<12 digits>, with ".part" while it is being written. */
int clu_snapshot_folder(const char *root, uint64_t step, bool part, char folder_p[CLU_PATH_BYTES]);

/* Makes an empty ROOT/step-N.part (and ROOT/step-N.part/rows), removing a left-over of that name.
 */
int clu_snapshot_begin(const char *root, uint64_t step, char folder_p[CLU_PATH_BYTES]);

/* Commits ROOT/step-N.part as above and removes the oldest whole snapshots beyond keep (keep < 1:
 * keeps all). manifest says what is known of the job; its files[] are those with reported sums,
 * which need not be all: a reported size is checked against the disk (CORRUPT), a file not reported
 * is read and summed, a file reported and not there is CORRUPT. A snapshot of the step that is
 * whole and of the same life is not written again: CLU_OK, the .part removed; any other is
 * replaced. Errors leave the .part and every older snapshot as they were. */
int clu_snapshot_commit(const char *root, const struct clu_manifest *manifest, int64_t keep);

/* Reads FOLDER/manifest.json. NOT_FOUND without one, CORRUPT when it cannot be read. Caller: fini.
 */
int clu_manifest_load(const char *folder, struct clu_manifest *manifest_p);

/* Checks that every file of the manifest is there, whole and unchanged. sums: also reads them all
 * for the checksum; without it sizes only. CORRUPT with the file named. */
int clu_manifest_verify(const char *folder, const struct clu_manifest *manifest, bool sums);

/* The snapshot folder meant by a path that a user gave: a step folder is itself; a root is its
 * newest whole snapshot; so is a job's OUT or OUT/run. NOT_FOUND with what was looked for. Does not
 * verify sums. */
int clu_snapshot_resolve(const char *path, char folder_p[CLU_PATH_BYTES]);

/* The newest snapshot under root that verifies with sums; damaged ones are named in a warning and
 * passed over. NOT_FOUND (not logged) when there is none. manifest_p may be NULL; caller: fini. */
int clu_snapshot_newest(const char *root, char folder_p[CLU_PATH_BYTES],
                        struct clu_manifest *manifest_p);

/* Renames every snapshot of a later step to step-N.damaged, so that it neither counts for `keep`
 * nor is taken for the newest. For the one who resumes from step: what is later was passed over. */
int clu_snapshot_set_aside(const char *root, uint64_t step);

/* Removes .part folders and files of an unfinished commit. At the start of a job's life. */
int clu_snapshot_sweep(const char *root);

#endif

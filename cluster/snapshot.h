/* Snapshots on disk: how a folder becomes a whole snapshot, and how a reader finds one.
 *
 *     OUT/run/snapshot/
 *         latest                    one line: the name of the newest whole snapshot
 *         step-000000001000/        manifest.json, dense.safetensors, state.json, rows/...
 *         step-000000002000/        the same; its rows/ only what changed since step 1000: a delta
 *         step-000000003000.part/   being written
 *
 * Writers put their files into the .part folder and fsync each. Then one process commits: it lists
 * the folder, writes manifest.json (every file's size and XXH3, and what it is a delta upon),
 * fsyncs it, the folder and rows/, renames .part away, fsyncs the parent, replaces `latest`, and
 * only then removes what `keep` no longer wants (as step-N.old) and what dead committers left. So a
 * folder without .part is whole, unless the disk lies; verifying finds out. A snapshot that has a
 * file named `pinned` stays, beyond `keep`, until a newer one has one too: the best epoch of a job
 * outlives those after it. A delta can be restored while every link of its chain (cluster/chain.h)
 * can; its dense state and data position are whole in itself.
 *
 * Threads: any, but one committer a root. Cost: commit stats files; it reads only those nobody
 * reported.
 */
#ifndef CLUSTER_SNAPSHOT_H
#define CLUSTER_SNAPSHOT_H

#include "cluster/job.h"
#include "cluster/manifest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLU_SNAPSHOT_PIN_FILE "pinned"
#define CLU_SNAPSHOT_ALL      UINT64_MAX /* clu_snapshot_sweep */

/* OUT/run/snapshot, the root that everything below takes. USAGE when it does not fit. */
int clu_snapshot_root(const char *out, char root_p[CLU_PATH_BYTES]);

/* ROOT/step-<12 digits>, with ".part" while it is being written. */
int clu_snapshot_folder(const char *root, uint64_t step, bool part, char folder_p[CLU_PATH_BYTES]);

/* Makes an empty ROOT/step-N.part (and ROOT/step-N.part/rows), removing a left-over of that name.
 * AGAIN when it is locked (clu_snapshot_lock). */
int clu_snapshot_begin(const char *root, uint64_t step, char folder_p[CLU_PATH_BYTES]);

/* Commits ROOT/step-N.part as above and removes the oldest that can be restored beyond keep, but
 * none that a kept one needs (keep < 1: keeps all). manifest says what is known of the job; its
 * files[] are those with reported sums (clu_manifest_list). base_step: it is a delta; when the base
 * and its chain are not all there, NOT_FOUND or CORRUPT, and a full one is wanted. A snapshot of
 * the step that is whole and of the same life is not written again: CLU_OK, the .part removed; any
 * other is replaced. Errors leave the .part and every older snapshot as they were. */
int clu_snapshot_commit(const char *root, const struct clu_manifest *manifest, int64_t keep);

/* The snapshot folder meant by a path that a user gave: a step folder is itself; a root is its
 * newest whole snapshot; so is a job's OUT or OUT/run. NOT_FOUND with what was looked for. Does not
 * verify sums. */
int clu_snapshot_resolve(const char *path, char folder_p[CLU_PATH_BYTES]);

/* The newest snapshot under root whose links all verify with sums; damaged ones are named in a
 * warning and passed over. sure: a step whose snapshot, links too, the caller has written or read
 * whole a while ago: its rows, which are most of it, are not read again (0: none). NOT_FOUND (not
 * logged) when there is none. manifest_p may be NULL; caller: fini. Cost: reads what it verifies.
 */
int clu_snapshot_newest(const char *root, uint64_t sure, char folder_p[CLU_PATH_BYTES],
                        struct clu_manifest *manifest_p);

/* Renames every snapshot of a later step to step-N.damaged, so that it neither counts for `keep`
 * nor is taken for the newest. For the one who resumes from step: what is later was passed over. */
int clu_snapshot_set_aside(const char *root, uint64_t step);

/* Removes what dead committers left: folders that were being removed, and .part folders of steps
 * below before_step. With CLU_SNAPSHOT_ALL, for the start of a life, when nobody writes there:
 * every .part, and folders without a manifest. A .part that is locked stays. */
int clu_snapshot_sweep(const char *root, uint64_t before_step);

/* Says to every sweep, while *fd_p is open (the caller closes it), that a .part folder is being
 * written: for a writer outside of any job. AGAIN when another process is at it. */
int clu_snapshot_lock(const char *folder, int *fd_p);

/* ---- reading one ---- */

struct clu_snapshot_link {
    char folder[CLU_PATH_BYTES];
    struct clu_manifest manifest;
};

/* A snapshot with everything it is restored from. */
struct clu_snapshot {
    size_t n_links;
    struct clu_snapshot_link *links; /* [n_links] the full one first, itself last; owned */
};

/* Reads the manifests of a snapshot's folder and of the links below it, which stand beside it.
 * CORRUPT or NOT_FOUND with the folder that is damaged, missing or not the one it was made upon.
 * Caller: fini. */
int clu_snapshot_open(const char *folder, struct clu_snapshot *snapshot_p);
void clu_snapshot_fini(struct clu_snapshot *snapshot);

/* clu_manifest_verify of every link, the full one first. */
int clu_snapshot_verify(const struct clu_snapshot *snapshot, bool sums);

/* The row files of all links, as a list that one free() releases. CORRUPT when a link has none. */
int clu_snapshot_row_files(const struct clu_snapshot *snapshot, const char ***paths_p, size_t *n_p);

#endif

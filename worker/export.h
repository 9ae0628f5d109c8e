/* An export: a trained model as a folder that anybody can serve.
 *
 *     export/
 *       manifest.json        what it is (export_manifest.h), sizes and checksums of the others
 *       dense.safetensors    the dense weights, fp32, maps as [in, out]
 *       rows/                one LMDB environment, a named database a table: u64 key -> dim floats
 *
 * Rows that were never written are not there: they have their initial value, a hash of (seed,
 * table, key), which wrk_export_rows computes. An export is written beside its final name and
 * renamed, so that whoever opens one finds all of it; opening it checks sizes, and with verify the
 * checksums too.
 *
 * Threads: an opened export is read by one thread at a time; open one per thread for more.
 */
#ifndef WORKER_EXPORT_H
#define WORKER_EXPORT_H

#include "cluster/job.h"
#include "worker/export_manifest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wrk_export;

/* Makes an export at out from a snapshot: a step's folder, or a folder of snapshots, of which the
 * best epoch is taken where the job keeps one, else the latest whole one. An export already at out
 * is replaced; anything else there is refused.
 * Errors: CLU_E_CORRUPT, CLU_E_NOT_FOUND, CLU_E_EXISTS, CLU_E_IO, CLU_E_FULL. */
int wrk_export_create(const char *snapshot, const char *out);

/* The snapshot folder that a path means (a step, a folder of snapshots, a job's folder), verified
 * by checksum. Of several: the best epoch where the newest names one (patience), else the newest;
 * what is damaged is passed over with a warning. */
int wrk_export_find_snapshot(const char *path, char folder_p[CLU_PATH_BYTES]);

/* True when the folder looks like an export. Logs nothing. */
bool wrk_export_is_one(const char *dir);

/* Opens an export for reading. verify: read every file and compare its checksum. Errors:
 * CLU_E_CORRUPT with the file, CLU_E_NOT_FOUND. */
int wrk_export_open(const char *dir, bool verify, struct wrk_export **export_p);

/* What the export says it is (view, lives until close). */
const struct wrk_manifest *wrk_export_manifest(const struct wrk_export *export);

/* The dense weights, one flat vector in the model's layout [mdl_n_params]. View. */
const float *wrk_export_params(const struct wrk_export *export);

/* Rows of keys [n] of a table (index into the manifest's tables), stored or initial, into rows_p
 * [n, dim]. */
int wrk_export_rows(struct wrk_export *export, int table, const uint64_t *keys, size_t n,
                    float *rows_p);

/* One row, and whether it is stored (else *row_p has its initial value). */
int wrk_export_row_is_stored(struct wrk_export *export, int table, uint64_t key, float *row_p,
                             bool *stored_p);

/* Calls visit for every stored row of a table in key order until it returns non-zero, which is
 * returned. */
int wrk_export_each_row(struct wrk_export *export, int table,
                        int (*visit)(void *context, uint64_t key, const float *row), void *context);

/* NULL is fine. */
void wrk_export_close(struct wrk_export *export);

#endif

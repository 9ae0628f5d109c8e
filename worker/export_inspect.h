/* Looking into snapshots and exports: what they are, one row of a table, and one hash of the
 * content.
 *
 * The digest says whether two snapshots (or two exports) hold the same, whatever the number of
 * servers, shards and files. It is XXH3 over eight little-endian u64:
 *
 *     1 kind: 1 snapshot, 2 export        2 step
 *     3 epoch   4 batch   5 samples done   (0 for an export)
 *     6 the number of rows                7 the sum over rows of a row's hash
 *     8 the hash of the dense tensors
 *
 * A sum does not depend on order, so rows need no sorting and memory stays at a block a file. A
 * row's hash covers table name, key and embedding, in a snapshot also optimiser state, update count
 * and last step (emb_row_digest). The dense hash chains, tensor by tensor in the file's order,
 * name, shape and numbers; a snapshot's covers the optimiser's moments too. Threads: any.
 */
#ifndef WORKER_EXPORT_INSPECT_H
#define WORKER_EXPORT_INSPECT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The digest of a snapshot (a step's folder, or a folder of snapshots: its newest) or of an export.
 * */
int wrk_inspect_digest(const char *path, uint64_t *digest_p);

/* What stands at path, as lines for a person or one JSON object: model, tables, rows, step, files;
 * of a snapshot also bytes and ages of each table's rows, what it is a delta upon, and every link
 * it is restored from. verify: read every byte, of all links, against its checksum first. Errors:
 * CLU_E_NOT_FOUND when it is neither. */
int wrk_inspect_print(const char *path, bool verify, bool json, FILE *stream);

/* One row of a table, by the id as it stands in a log (an integer or any text): its key, numbers,
 * and in a snapshot its optimiser state, count and last step; or that it was never written, and its
 * initial value. */
int wrk_inspect_row(const char *path, const char *table, const char *id, bool json, FILE *stream);

#endif

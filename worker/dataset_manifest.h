/* manifest.json of a data set, as a struct and as a file.
 *
 * The JSON carries its own checksum: "checksum" is the XXH3 (16 hex digits) of the compact,
 * key-sorted dump of everything else. It is written last, so a folder without one is not a data
 * set. Threads: any on distinct objects.
 */
#ifndef WORKER_DATASET_MANIFEST_H
#define WORKER_DATASET_MANIFEST_H

#include "worker/dataset.h"
#include "worker/schema.h"

#include <jansson.h>

struct wrk_shard_entry {
    char file[WRK_NAME_BYTES];
    uint64_t size_bytes, checksum; /* XXH3 of the whole file */
};

struct wrk_dataset_manifest {
    struct wrk_dataset_info info;
    struct wrk_transform transform;
    /* valid_cut_ms[p]: samples that start at or after it are the last p percent of the training
     * part */
    int64_t valid_cut_ms[WRK_MAX_VALID_PERCENT + 1];
    uint64_t n_train_before[WRK_MAX_VALID_PERCENT + 1]; /* samples before the cut */
    char *schema_json;                                  /* owned */
    size_t n_shards;
    struct wrk_shard_entry *shard; /* owned */
    uint64_t checksum;             /* of the manifest itself */
};

/* Writes DIR/manifest.json. */
int wrk_dataset_manifest_save(const struct wrk_dataset_manifest *manifest, const char *dir);

/* Reads and checks it. Errors: NOT_FOUND, CORRUPT (with file and key). */
int wrk_dataset_manifest_load(const char *dir, struct wrk_dataset_manifest *manifest_p);

/* The same from memory; name stands for the file in messages. */
int wrk_dataset_manifest_parse(const char *name, const char *text, size_t size_bytes,
                               struct wrk_dataset_manifest *manifest_p);

/* Columns as they stand in it: a list of {name, kind, table}; NULL when out of memory. */
json_t *wrk_columns_json(const struct wrk_column *columns, int n);

void wrk_dataset_manifest_fini(struct wrk_dataset_manifest *manifest);

#endif

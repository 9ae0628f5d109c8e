/* What a trained model is, apart from its numbers: the part of an export's manifest.json from
 * which, with MODEL.md, anybody can recompute its scores.
 *
 *     {"format": "sluice-export", "version": 1, "step": N,
 *      "model": {"name": "a2gen", "width", "heads", "history", "n_actions", "n_classes",
 *                "user_dim", "item_dim", "alpha", "beta", "gamma", "read",
 *                "history_counts"},       the last numbers of F_u count the history
 *                                         (worker/counts.h)
 *      "actions": ["start", ...],                  class i + 1 is actions[i]; class 0 is padding
 *      "user_columns": [{"name", "kind": "sparse" | "numeric", "table", "dim", "offset"}, ...],
 *      "item_columns": [...],                      F_u, F_x: these, concatenated in this order
 *      "tables": [{"name", "dim", "dtype": "f32", "count", "seed", "init_range"}, ...],
 *      "data": {...},                              the data set's schema, as prepare wrote it
 *      "files": [{"path", "size", "xxh3"}, ...]}
 *
 * The same object, without files and counts, stands in a snapshot's state.json: a snapshot needs
 * nothing but itself to become an export. Threads: any; plain data.
 */
#ifndef WORKER_EXPORT_MANIFEST_H
#define WORKER_EXPORT_MANIFEST_H

#include "model/config.h"

#include <jansson.h>
#include <stdint.h>

enum { WRK_MANIFEST_MAX_COLUMNS = 64, WRK_MANIFEST_MAX_TABLES = 64, WRK_MANIFEST_MAX_ACTIONS = 32 };

struct wrk_manifest_column {
    char name[64];
    char table[64]; /* empty for a numeric column */
    int dim;        /* 1 for a numeric column */
    int offset;     /* first lane in F_u or F_x */
};

struct wrk_manifest_table {
    char name[64];
    int dim;
    uint64_t count; /* rows stored; every other row is init(seed, name, key) */
    uint64_t seed;
    double init_range;
};

struct wrk_manifest {
    uint64_t step;
    char model[32];
    char read[16];
    struct mdl_config config;
    int n_counts; /* as in struct wrk_features */
    int n_actions;
    char action[WRK_MANIFEST_MAX_ACTIONS][32]; /* action[i] is class i + 1 */
    int n_user_columns, n_item_columns, n_tables;
    struct wrk_manifest_column user_column[WRK_MANIFEST_MAX_COLUMNS];
    struct wrk_manifest_column item_column[WRK_MANIFEST_MAX_COLUMNS];
    struct wrk_manifest_table table[WRK_MANIFEST_MAX_TABLES];
    json_t *data; /* owned: the data set's schema, or NULL */
};

/* The manifest as a new JSON object (the caller's reference). NULL when out of memory. */
json_t *wrk_manifest_to_json(const struct wrk_manifest *manifest);

/* Reads a manifest out of a JSON object, every field checked. place: named in errors. Errors:
 * CLU_E_CORRUPT with the field. The caller ends it with wrk_manifest_fini. */
int wrk_manifest_from_json(const json_t *json, const char *place, struct wrk_manifest *manifest_p);

/* Releases what the manifest owns. */
void wrk_manifest_fini(struct wrk_manifest *manifest);

#endif

/* A data set: the folder that prepare and generate write and every later step reads.
 *
 *     DIR/manifest.json        schema, columns, actions, counts, split, checksums, tool version
 *     DIR/shard-00000.slu ...  user blocks in zstd frames, an index behind them (worker/shard.h)
 *
 * A user's timeline is stored once; samples and their histories are views of it, made by
 * worker/reader.h. A sample is a (user, item) pair at its first event. All rules are DATA.md's.
 *
 * Opening reads the manifest and the shards' indexes and checks sizes and checksums of both; the
 * frames are checked as they are read. Threads: an open data set is immutable, any thread may use
 * it.
 */
#ifndef WORKER_DATASET_H
#define WORKER_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    WRK_MAX_ACTIONS = 15, /* M at most; ids 1..M, 0 is padding */
    WRK_MAX_COLUMNS = 32, /* of the user or of the item, the id included */
    WRK_NAME_BYTES = 64,
    WRK_ACTION_BYTES = 32,
    WRK_MAX_VALID_PERCENT = 20,
};

enum wrk_column_kind {
    WRK_COLUMN_SPARSE,  /* a key into a table */
    WRK_COLUMN_NUMERIC, /* a number, which enters F_u or F_x as it is */
};

/* One feature column. Column 0 of the user is the user id (table "user"), column 0 of the item the
 * item id (table "item"). */
struct wrk_column {
    char name[WRK_NAME_BYTES];
    enum wrk_column_kind kind;
    char table[WRK_NAME_BYTES]; /* of a sparse column; two columns may share one; "" for numeric */
};

enum wrk_split {
    WRK_SPLIT_TRAIN, /* without the validation part, when one is cut */
    WRK_SPLIT_VALID, /* the last valid_percent of the training part, by time */
    WRK_SPLIT_TEST,
    WRK_N_SPLITS,
};

struct wrk_dataset_info {
    char schema[WRK_NAME_BYTES]; /* the preset's name, or the schema file's */
    int n_actions;               /* M */
    char action[WRK_MAX_ACTIONS + 1][WRK_ACTION_BYTES]; /* [1] is "start"; [0] is "" */
    int n_user_columns, n_item_columns;
    struct wrk_column user_column[WRK_MAX_COLUMNS], item_column[WRK_MAX_COLUMNS];
    uint64_t n_events, n_users, n_items, n_pairs /* = samples */, n_skipped;
    uint64_t n_train, n_test; /* samples; n_train includes what valid_percent may cut off */
    uint64_t n_with_action[WRK_MAX_ACTIONS + 1]; /* pairs with that action */
    int64_t first_time, last_time, split_time;   /* ms since 1970; test: start >= split_time */
    double split;                                /* the fraction asked for, 0.9 */
    int64_t label_window_ms;                     /* 0: no bound */
    int64_t time_unit_ms; /* 1000: times of the log are seconds, 1: milliseconds */
    bool has_truth;       /* test samples carry their true probabilities (generate) */
};

struct wrk_dataset;

/* Opens a data set. Errors: NOT_FOUND (no such folder or not a data set), CORRUPT with the file
 * named. */
int wrk_dataset_open(const char *dir, struct wrk_dataset **dataset_p);

/* Lives as long as the data set. */
const struct wrk_dataset_info *wrk_dataset_info(const struct wrk_dataset *dataset);
const char *wrk_dataset_dir(const struct wrk_dataset *dataset);

/* The manifest's "schema" object as JSON text, for an export; lives as long as the data set. */
const char *wrk_dataset_schema_json(const struct wrk_dataset *dataset);

/* XXH3 of manifest.json, which names the checksum of every shard: equal means the same data. */
uint64_t wrk_dataset_checksum(const struct wrk_dataset *dataset);

/* Number of samples of a split when valid_percent (0..WRK_MAX_VALID_PERCENT) of the training part
 * is cut off for validation. */
uint64_t wrk_dataset_n_samples(const struct wrk_dataset *dataset, enum wrk_split split,
                               int valid_percent);

/* Reads every byte of every shard against its checksums. Errors: CORRUPT, naming the file. */
int wrk_dataset_verify(const struct wrk_dataset *dataset);

/* What a person wants to know of it, as lines or as one JSON object: the data set part of
 * `inspect`. */
int wrk_dataset_print(const struct wrk_dataset *dataset, bool json, FILE *stream);

/* True when the folder looks like a data set (has a manifest that says so): tells inspect what it
 * holds, and tells prepare what it may replace. Logs nothing. */
bool wrk_dataset_is_one(const char *dir);

void wrk_dataset_close(struct wrk_dataset *dataset); /* NULL is fine */

#endif

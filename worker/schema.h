/* A schema: what the columns of a log mean. Read from a YAML file or from a preset, which is the
 * same YAML kept in the program (worker/preset.h).
 *
 *     name: my-log                 # a word for messages; the file's name when left out
 *     delimiter: ","               # one character, or the word tab
 *     header: true                 # the first line names the columns; else give them:
 *     columns: [u, i, what, at]    # (header: false)
 *     user: u                      # columns of the log
 *     item: i
 *     action: what
 *     time: at
 *     time_format: unix            # unix | unix_ms | a strptime pattern, in UTC | a list of
 * patterns time_from: 1511539200        # events before it, or at or after time_to, are outside
 *     time_to: 1512316800
 *     time_outside: refuse         # refuse: a bad line | skip: left out and counted
 *     actions: [start, click, {pay: [buy, alipay]}]   # in order; a name, or a name and its texts
 * in the log transform: log               # log | duration (worker/transform.h) unit_seconds: 60 #
 * log scale: 10 duration: seconds            # duration: a column with the video's length, in
 * seconds position: at_second          # duration: a column with the position, in seconds
 * (optional) user_features: [country, {name: age, kind: numeric}] item_features: [{name: category,
 * column: category_id, from: attributes, table: cat, log1p: false}] item_attributes: {key: item_id,
 * key_prefix: "", delimiter: ",", header: true} user_attributes: ...         # the same for the
 * user
 *
 * Plain data, copyable. Threads: any on distinct objects.
 */
#ifndef WORKER_SCHEMA_H
#define WORKER_SCHEMA_H

#include "worker/dataset.h"
#include "worker/transform.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WRK_MAX_FIELDS = 256, /* columns of a log */
    WRK_MAX_ALIASES = 64,
    WRK_MAX_PATTERNS = 4,
};

enum wrk_time_format { WRK_TIME_UNIX, WRK_TIME_UNIX_MS, WRK_TIME_PATTERN };

/* A text in the log's action column and the action it stands for. */
struct wrk_alias {
    char text[WRK_NAME_BYTES];
    int action; /* 1..M */
};

struct wrk_feature {
    struct wrk_column column;
    char field[WRK_NAME_BYTES]; /* its column in the log or in the attribute file */
    bool from_attributes, log1p /* a numeric value v enters as log1p(max(v, 0)) */;
    bool is_counted; /* in no file: made by prepare from the item's past (worker/counts.h) */
};

/* How an attribute file, joined by id, is written. */
struct wrk_attribute_format {
    char key[WRK_NAME_BYTES];        /* its id column */
    char key_prefix[WRK_NAME_BYTES]; /* put in front of its ids to make them the log's */
    char delimiter;
    bool header;
    int n_fields; /* names of its columns when it has no header */
    char field[WRK_MAX_COLUMNS][WRK_NAME_BYTES];
};

struct wrk_schema {
    char name[WRK_NAME_BYTES];
    char delimiter;
    bool header;
    int n_fields; /* names of the log's columns when it has no header */
    char field[WRK_MAX_COLUMNS][WRK_NAME_BYTES];
    char user[WRK_NAME_BYTES], item[WRK_NAME_BYTES], action_field[WRK_NAME_BYTES];
    char time[WRK_NAME_BYTES];
    enum wrk_time_format time_format;
    int n_patterns;
    char pattern[WRK_MAX_PATTERNS][WRK_NAME_BYTES];
    int64_t from_ms, to_ms; /* INT64_MIN, INT64_MAX where not given */
    bool skip_outside;
    int n_actions; /* M */
    char action[WRK_MAX_ACTIONS + 1][WRK_ACTION_BYTES];
    int n_aliases;
    struct wrk_alias alias[WRK_MAX_ALIASES];
    struct wrk_transform transform;
    char duration[WRK_NAME_BYTES], position[WRK_NAME_BYTES]; /* "" where there is none */
    int n_user_features, n_item_features;                    /* without the ids */
    struct wrk_feature user_feature[WRK_MAX_COLUMNS], item_feature[WRK_MAX_COLUMNS];
    struct wrk_attribute_format user_attributes, item_attributes;
};

/* Reads a schema file. Errors: NOT_FOUND; CONFIG with file, line, key and what is allowed. */
int wrk_schema_load(const char *path, struct wrk_schema *schema_p);

/* The same from memory; name stands for the file in messages. */
int wrk_schema_parse(const char *name, const char *text, size_t size_bytes,
                     struct wrk_schema *schema_p);

/* A preset's name or a path: a path when it holds a '/' or ends in .yaml or .yml. */
int wrk_schema_find(const char *name_or_path, struct wrk_schema *schema_p);

/* The schema as a new JSON object, as the manifest keeps it; NULL when memory is out. */
json_t *wrk_schema_json(const struct wrk_schema *schema);

/* The columns a data set of this schema has: the ids first, then the features. */
void wrk_schema_columns(const struct wrk_schema *schema, struct wrk_dataset_info *info);

/* True when a feature of the user (item) comes from an attribute file. */
bool wrk_schema_wants_attributes(const struct wrk_schema *schema, bool of_user);

#endif

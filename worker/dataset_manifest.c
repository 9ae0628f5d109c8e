/* Reading is a list of "take" calls that remember the first failure, so that each key is named
 * once. */
#include "worker/dataset_manifest.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1, MAX_MANIFEST_BYTES = 64 << 20 };

static const char kind_text[] = "sluice data set";

json_t *wrk_columns_json(const struct wrk_column *columns, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:s}", "name", columns[i].name, "kind",
                                        columns[i].kind == WRK_COLUMN_SPARSE ? "sparse" : "numeric",
                                        "table", columns[i].table));
    return list;
}

static json_t *hex_json(uint64_t value)
{
    return json_sprintf("%016" PRIx64, value);
}

static json_t *counts_json(const struct wrk_dataset_info *info)
{
    json_t *with = json_array();
    for (int a = 1; a <= info->n_actions; a++)
        json_array_append_new(with, json_integer((json_int_t)info->n_with_action[a]));
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "events", (json_int_t)info->n_events,
                     "users", (json_int_t)info->n_users, "items", (json_int_t)info->n_items,
                     "pairs", (json_int_t)info->n_pairs, "skipped", (json_int_t)info->n_skipped,
                     "train", (json_int_t)info->n_train, "test", (json_int_t)info->n_test,
                     "pairs_with_action", with);
}

static json_t *manifest_json(const struct wrk_dataset_manifest *manifest)
{
    const struct wrk_dataset_info *info = &manifest->info;
    json_t *actions = json_array(), *cuts = json_array(), *before = json_array(),
           *shards = json_array();
    for (int a = 1; a <= info->n_actions; a++)
        json_array_append_new(actions, json_string(info->action[a]));
    for (int p = 0; p <= WRK_MAX_VALID_PERCENT; p++) {
        json_array_append_new(cuts, json_integer(manifest->valid_cut_ms[p]));
        json_array_append_new(before, json_integer((json_int_t)manifest->n_train_before[p]));
    }
    for (size_t i = 0; i < manifest->n_shards; i++)
        json_array_append_new(shards, json_pack("{s:s,s:I,s:o}", "file", manifest->shard[i].file,
                                                "size", (json_int_t)manifest->shard[i].size_bytes,
                                                "checksum", hex_json(manifest->shard[i].checksum)));
    json_t *transform = json_pack(
        "{s:s,s:f,s:f}", "kind", manifest->transform.kind == WRK_TRANSFORM_LOG ? "log" : "duration",
        "unit_seconds", manifest->transform.unit_seconds, "scale", manifest->transform.scale);
    json_t *split =
        json_pack("{s:f,s:I,s:o,s:o}", "fraction", info->split, "time_ms",
                  (json_int_t)info->split_time, "valid_cut_ms", cuts, "train_before_cut", before);
    return json_pack(
        "{s:s,s:i,s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:b,s:o,s:o}", "kind", kind_text,
        "version", FORMAT_VERSION, "tool", "sluice " SLUICE_VERSION, "schema_name", info->schema,
        "schema", json_loads(manifest->schema_json, 0, NULL), "actions", actions, "user_columns",
        wrk_columns_json(info->user_column, info->n_user_columns), "item_columns",
        wrk_columns_json(info->item_column, info->n_item_columns), "counts", counts_json(info),
        "split", split, "label_window_ms", (json_int_t)info->label_window_ms, "time_unit_ms",
        (json_int_t)info->time_unit_ms, "first_time_ms", (json_int_t)info->first_time,
        "last_time_ms", (json_int_t)info->last_time, "has_truth", info->has_truth, "transform",
        transform, "shards", shards);
}

/* false when memory is out */
static bool checksum_of(json_t *json, uint64_t *checksum_p)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        return false;
    *checksum_p = clu_hash_bytes(text, strlen(text));
    free(text);
    return true;
}

int wrk_dataset_manifest_save(const struct wrk_dataset_manifest *manifest, const char *dir)
{
    char path[PATH_MAX];
    int status = clu_path_join(path, sizeof(path), dir, "manifest.json");
    if (status != CLU_OK)
        return status;
    json_t *json = manifest_json(manifest);
    uint64_t checksum;
    char *text = NULL;
    if (json && checksum_of(json, &checksum) &&
        json_object_set_new(json, "checksum", hex_json(checksum)) == 0)
        text = json_dumps(json, JSON_INDENT(1));
    json_decref(json);
    if (!text)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    size_t size = strlen(text);
    text[size] = '\n'; /* over the NUL; the size is passed on */
    status = clu_file_write_atomic(path, text, size + 1);
    free(text);
    return status;
}

struct taker {
    const char *name;
    int status;
};

static void refuse(struct taker *taker, const char *key, const char *expected)
{
    if (taker->status == CLU_OK)
        taker->status =
            clu_fail(CLU_E_CORRUPT, "%s: key '%s': expected %s", taker->name, key, expected);
}

static int64_t take_int(struct taker *taker, const json_t *object, const char *key, int64_t min,
                        int64_t max)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max) {
        refuse(taker, key, "an integer in its range");
        return min;
    }
    return json_integer_value(value);
}

static uint64_t take_count(struct taker *taker, const json_t *object, const char *key)
{
    return (uint64_t)take_int(taker, object, key, 0, INT64_MAX);
}

static double take_real(struct taker *taker, const json_t *object, const char *key, double min,
                        double max)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value) || !(json_number_value(value) >= min) ||
        !(json_number_value(value) <= max)) {
        refuse(taker, key, "a number in its range");
        return min;
    }
    return json_number_value(value);
}

static void take_text(struct taker *taker, const json_t *object, const char *key, char *out,
                      size_t out_bytes)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) >= out_bytes)
        refuse(taker, key, "a short text");
    else
        memcpy(out, text, strlen(text) + 1);
}

static uint64_t take_hex(struct taker *taker, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) {
        refuse(taker, key, "16 hex digits");
        return 0;
    }
    return strtoull(text, NULL, 16);
}

static const json_t *take_list(struct taker *taker, const json_t *object, const char *key,
                               size_t min, size_t max)
{
    const json_t *list = json_object_get(object, key);
    if (!json_is_array(list) || json_array_size(list) < min || json_array_size(list) > max) {
        refuse(taker, key, "a list of the right length");
        return NULL;
    }
    return list;
}

static int take_columns(struct taker *taker, const json_t *object, const char *key,
                        struct wrk_column *columns)
{
    const json_t *list = take_list(taker, object, key, 1, WRK_MAX_COLUMNS);
    int n = (int)json_array_size(list);
    for (int i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, (size_t)i);
        char kind[16] = "";
        take_text(taker, entry, "name", columns[i].name, WRK_NAME_BYTES);
        take_text(taker, entry, "table", columns[i].table, WRK_NAME_BYTES);
        take_text(taker, entry, "kind", kind, sizeof(kind));
        if (strcmp(kind, "sparse") != 0 && strcmp(kind, "numeric") != 0)
            refuse(taker, key, "columns of kind sparse or numeric");
        columns[i].kind = kind[0] == 's' ? WRK_COLUMN_SPARSE : WRK_COLUMN_NUMERIC;
    }
    return n;
}

static void take_numbers(struct taker *taker, const json_t *object, const char *key, size_t n,
                         int64_t *out)
{
    const json_t *list = take_list(taker, object, key, n, n);
    for (size_t i = 0; list && i < n; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value))
            refuse(taker, key, "integers");
        out[i] = json_integer_value(value);
    }
}

static void take_info(struct taker *taker, const json_t *json, struct wrk_dataset_info *info)
{
    take_text(taker, json, "schema_name", info->schema, sizeof(info->schema));
    const json_t *actions = take_list(taker, json, "actions", 2, WRK_MAX_ACTIONS);
    info->n_actions = (int)json_array_size(actions);
    for (int a = 1; a <= info->n_actions; a++) {
        const char *name = json_string_value(json_array_get(actions, (size_t)a - 1));
        if (!name || strlen(name) >= WRK_ACTION_BYTES)
            refuse(taker, "actions", "names of up to 31 bytes");
        else
            memcpy(info->action[a], name, strlen(name) + 1);
    }
    info->n_user_columns = take_columns(taker, json, "user_columns", info->user_column);
    info->n_item_columns = take_columns(taker, json, "item_columns", info->item_column);
    const json_t *counts = json_object_get(json, "counts");
    info->n_events = take_count(taker, counts, "events");
    info->n_users = take_count(taker, counts, "users");
    info->n_items = take_count(taker, counts, "items");
    info->n_pairs = take_count(taker, counts, "pairs");
    info->n_skipped = take_count(taker, counts, "skipped");
    info->n_train = take_count(taker, counts, "train");
    info->n_test = take_count(taker, counts, "test");
    int64_t with[WRK_MAX_ACTIONS] = {0};
    take_numbers(taker, counts, "pairs_with_action", (size_t)info->n_actions, with);
    for (int a = 1; a <= info->n_actions; a++)
        info->n_with_action[a] = (uint64_t)with[a - 1];
    const json_t *split = json_object_get(json, "split");
    info->split = take_real(taker, split, "fraction", 0, 1);
    info->split_time = take_int(taker, split, "time_ms", INT64_MIN, INT64_MAX);
    info->label_window_ms = take_int(taker, json, "label_window_ms", 0, INT64_MAX);
    info->time_unit_ms = take_int(taker, json, "time_unit_ms", 1, 1000);
    info->first_time = take_int(taker, json, "first_time_ms", INT64_MIN, INT64_MAX);
    info->last_time = take_int(taker, json, "last_time_ms", INT64_MIN, INT64_MAX);
    info->has_truth = json_is_true(json_object_get(json, "has_truth"));
    if (taker->status == CLU_OK && info->n_train + info->n_test != info->n_pairs)
        refuse(taker, "counts", "train and test to add up to pairs");
}

static void take_shards(struct taker *taker, const json_t *json,
                        struct wrk_dataset_manifest *manifest)
{
    const json_t *list = take_list(taker, json, "shards", 1, 1 << 20);
    size_t n = json_array_size(list);
    manifest->shard = calloc(n + 1, sizeof(*manifest->shard));
    if (!manifest->shard) {
        taker->status = clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", taker->name);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, i);
        struct wrk_shard_entry *shard = &manifest->shard[i];
        take_text(taker, entry, "file", shard->file, sizeof(shard->file));
        shard->size_bytes = take_count(taker, entry, "size");
        shard->checksum = take_hex(taker, entry, "checksum");
        if (strchr(shard->file, '/') || shard->file[0] == '.')
            refuse(taker, "shards", "file names within the folder");
    }
    manifest->n_shards = n;
}

static int take_manifest(struct taker *taker, json_t *json, struct wrk_dataset_manifest *manifest)
{
    char kind[32] = "";
    take_text(taker, json, "kind", kind, sizeof(kind));
    if (strcmp(kind, kind_text) != 0)
        refuse(taker, "kind", "a data set's manifest");
    take_int(taker, json, "version", FORMAT_VERSION, FORMAT_VERSION);
    manifest->checksum = take_hex(taker, json, "checksum");
    if (taker->status != CLU_OK)
        return taker->status;
    uint64_t checksum;
    json_object_del(json, "checksum");
    if (!checksum_of(json, &checksum))
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", taker->name);
    if (checksum != manifest->checksum)
        return clu_fail(CLU_E_CORRUPT, "%s: the content does not match its checksum", taker->name);
    take_info(taker, json, &manifest->info);
    const json_t *transform = json_object_get(json, "transform");
    char word[16] = "";
    take_text(taker, transform, "kind", word, sizeof(word));
    manifest->transform.kind =
        strcmp(word, "log") == 0 ? WRK_TRANSFORM_LOG : WRK_TRANSFORM_DURATION;
    manifest->transform.unit_seconds = take_real(taker, transform, "unit_seconds", 1e-9, 1e18);
    manifest->transform.scale = take_real(taker, transform, "scale", 1e-9, 1e18);
    const json_t *split = json_object_get(json, "split");
    int64_t before[WRK_MAX_VALID_PERCENT + 1] = {0};
    take_numbers(taker, split, "valid_cut_ms", WRK_MAX_VALID_PERCENT + 1, manifest->valid_cut_ms);
    take_numbers(taker, split, "train_before_cut", WRK_MAX_VALID_PERCENT + 1, before);
    for (int p = 0; p <= WRK_MAX_VALID_PERCENT; p++) {
        manifest->n_train_before[p] = (uint64_t)before[p];
        if (before[p] < 0 || manifest->n_train_before[p] > manifest->info.n_train)
            refuse(taker, "train_before_cut", "counts of training samples");
    }
    const json_t *schema = json_object_get(json, "schema");
    if (!json_is_object(schema))
        refuse(taker, "schema", "an object");
    if (taker->status == CLU_OK)
        take_shards(taker, json, manifest);
    if (taker->status != CLU_OK)
        return taker->status;
    manifest->schema_json = json_dumps(schema, JSON_COMPACT);
    if (!manifest->schema_json)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", taker->name);
    return CLU_OK;
}

/* true when the text is what save writes for this JSON: the checksum is of values, and a digit
 * beyond a double's precision would slip past it */
static bool is_as_written(const json_t *json, const char *text, size_t size_bytes)
{
    char *dump = json_dumps(json, JSON_INDENT(1));
    size_t n = dump ? strlen(dump) : 0;
    bool same = dump && (size_bytes == n || (size_bytes == n + 1 && text[n] == '\n')) &&
                memcmp(dump, text, n) == 0;
    free(dump);
    return same;
}

int wrk_dataset_manifest_parse(const char *name, const char *text, size_t size_bytes,
                               struct wrk_dataset_manifest *manifest_p)
{
    json_error_t error;
    json_t *json = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        return clu_fail(CLU_E_CORRUPT, "%s, line %d: not JSON: %s", name, error.line, error.text);
    struct wrk_dataset_manifest manifest = {0};
    struct taker taker = {name, CLU_OK};
    int status = CLU_OK;
    if (!is_as_written(json, text, size_bytes))
        status = clu_fail(CLU_E_CORRUPT, "%s: it is not as it was written", name);
    else
        status = take_manifest(&taker, json, &manifest);
    json_decref(json);
    if (status == CLU_OK)
        *manifest_p = manifest;
    else
        wrk_dataset_manifest_fini(&manifest);
    return status;
}

int wrk_dataset_manifest_load(const char *dir, struct wrk_dataset_manifest *manifest_p)
{
    char path[PATH_MAX], *text;
    size_t size;
    int status = clu_path_join(path, sizeof(path), dir, "manifest.json");
    if (status != CLU_OK)
        return status;
    if (!clu_path_exists(path))
        return clu_fail(CLU_E_NOT_FOUND,
                        "%s: not a data set: it has no manifest.json (sluice prepare makes one)",
                        dir);
    status = clu_file_read_all(path, MAX_MANIFEST_BYTES, &text, &size);
    if (status != CLU_OK)
        return status;
    status = wrk_dataset_manifest_parse(path, text, size, manifest_p);
    free(text);
    return status;
}

void wrk_dataset_manifest_fini(struct wrk_dataset_manifest *manifest)
{
    free(manifest->schema_json);
    free(manifest->shard);
    memset(manifest, 0, sizeof(*manifest));
}

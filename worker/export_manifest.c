/* The description of a model as JSON, written once and read by whoever opens a snapshot or an
 * export.
 *
 * Reading trusts nothing: a count that the arrays do not have, an offset that is not the sum of the
 * dims before it, a table that no list names, are refused with the field, because everything that
 * follows (buffer sizes, the layout of F_u and F_x) is computed from these numbers.
 */
#include "worker/export_manifest.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/counts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_DIM = 1 << 16 };

static json_t *columns_json(const struct wrk_manifest_column *columns, int n)
{
    json_t *list = json_array();
    for (int i = 0; list && i < n; i++) {
        const struct wrk_manifest_column *column = &columns[i];
        json_t *entry =
            column->table[0]
                ? json_pack("{s:s, s:s, s:s, s:i, s:i}", "name", column->name, "kind", "sparse",
                            "table", column->table, "dim", column->dim, "offset", column->offset)
                : json_pack("{s:s, s:s, s:i, s:i}", "name", column->name, "kind", "numeric", "dim",
                            column->dim, "offset", column->offset);
        if (!entry || json_array_append_new(list, entry)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *tables_json(const struct wrk_manifest *manifest)
{
    json_t *list = json_array();
    for (int i = 0; list && i < manifest->n_tables; i++) {
        const struct wrk_manifest_table *table = &manifest->table[i];
        json_t *entry = json_pack("{s:s, s:i, s:s, s:I, s:I, s:f}", "name", table->name, "dim",
                                  table->dim, "dtype", "f32", "count", (json_int_t)table->count,
                                  "seed", (json_int_t)table->seed, "init_range", table->init_range);
        if (!entry || json_array_append_new(list, entry)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *wrk_manifest_to_json(const struct wrk_manifest *manifest)
{
    const struct mdl_config *config = &manifest->config;
    json_t *actions = json_array();
    for (int i = 0; actions && i < manifest->n_actions; i++)
        json_array_append_new(actions, json_string(manifest->action[i]));
    json_t *model = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:s, s:b}", "name",
        manifest->model, "width", config->width, "heads", config->heads, "history", config->history,
        "n_actions", config->n_actions, "n_classes", config->n_actions + 1, "user_dim",
        config->user_dim, "item_dim", config->item_dim, "alpha", (double)config->alpha, "beta",
        (double)config->beta, "gamma", (double)config->gamma, "read", manifest->read,
        "history_counts", manifest->n_counts > 0);
    /* json_pack releases the parts it was given whether it succeeds or not */
    return json_pack("{s:s, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:O?}", "format", "sluice-export",
                     "version", 1, "step", (json_int_t)manifest->step, "model", model, "actions",
                     actions, "user_columns",
                     columns_json(manifest->user_column, manifest->n_user_columns), "item_columns",
                     columns_json(manifest->item_column, manifest->n_item_columns), "tables",
                     tables_json(manifest), "data", manifest->data);
}

/* ---- reading ---- */

struct reader {
    const char *place;
    int status; /* the first refusal */
};

static void refuse(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void refuse(struct reader *reader, const char *format, ...)
{
    if (reader->status)
        return;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    reader->status = clu_fail(CLU_E_CORRUPT, "%s: %s", reader->place, text);
}

static int64_t get_int(struct reader *reader, const json_t *object, const char *key, int64_t min,
                       int64_t max)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < min || number > max) {
        refuse(reader, "\"%s\" is not a whole number in %lld..%lld", key, (long long)min,
               (long long)max);
        return min;
    }
    return number;
}

static double get_real(struct reader *reader, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        refuse(reader, "\"%s\" is not a number", key);
    return json_number_value(value);
}

static void get_text(struct reader *reader, const json_t *object, const char *key, char *out,
                     size_t out_bytes)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || !*text || strlen(text) >= out_bytes) {
        refuse(reader, "\"%s\" is not a text of 1 to %zu bytes", key, out_bytes - 1);
        return;
    }
    memcpy(out, text, strlen(text) + 1);
}

static const json_t *get_list(struct reader *reader, const json_t *object, const char *key, int max,
                              int *n_p)
{
    const json_t *list = json_object_get(object, key);
    if (!json_is_array(list) || json_array_size(list) > (size_t)max) {
        refuse(reader, "\"%s\" is not a list of at most %d", key, max);
        *n_p = 0;
        return NULL;
    }
    *n_p = (int)json_array_size(list);
    return list;
}

static void read_tables(struct reader *reader, const json_t *json, struct wrk_manifest *manifest)
{
    const json_t *list =
        get_list(reader, json, "tables", WRK_MANIFEST_MAX_TABLES, &manifest->n_tables);
    for (int i = 0; i < manifest->n_tables; i++) {
        const json_t *entry = json_array_get(list, (size_t)i);
        struct wrk_manifest_table *table = &manifest->table[i];
        get_text(reader, entry, "name", table->name, sizeof(table->name));
        table->dim = (int)get_int(reader, entry, "dim", 1, MAX_DIM);
        table->seed = (uint64_t)get_int(reader, entry, "seed", INT64_MIN, INT64_MAX);
        table->init_range = get_real(reader, entry, "init_range");
        table->count = (uint64_t)get_int(reader, entry, "count", 0, INT64_MAX);
        const char *dtype = json_string_value(json_object_get(entry, "dtype"));
        if (!dtype || strcmp(dtype, "f32") != 0)
            refuse(reader, "table '%s': dtype is not f32", table->name);
    }
}

static const struct wrk_manifest_table *find_table(const struct wrk_manifest *manifest,
                                                   const char *name)
{
    for (int i = 0; i < manifest->n_tables; i++)
        if (!strcmp(manifest->table[i].name, name))
            return &manifest->table[i];
    return NULL;
}

static int read_columns(struct reader *reader, const json_t *json, const char *key,
                        const struct wrk_manifest *manifest, struct wrk_manifest_column *columns,
                        int expected_dim)
{
    int n, offset = 0;
    const json_t *list = get_list(reader, json, key, WRK_MANIFEST_MAX_COLUMNS, &n);
    for (int i = 0; i < n && !reader->status; i++) {
        const json_t *entry = json_array_get(list, (size_t)i);
        struct wrk_manifest_column *column = &columns[i];
        const char *kind = json_string_value(json_object_get(entry, "kind"));
        get_text(reader, entry, "name", column->name, sizeof(column->name));
        column->dim = (int)get_int(reader, entry, "dim", 1, MAX_DIM);
        column->offset = (int)get_int(reader, entry, "offset", 0, INT32_MAX);
        if (kind && !strcmp(kind, "sparse")) {
            get_text(reader, entry, "table", column->table, sizeof(column->table));
            const struct wrk_manifest_table *table = find_table(manifest, column->table);
            if (!table || table->dim != column->dim)
                refuse(reader, "column '%s': table '%s' with dim %d is not among the tables",
                       column->name, column->table, column->dim);
        } else if (!kind || strcmp(kind, "numeric") != 0 || column->dim != 1) {
            refuse(reader, "column '%s': neither sparse nor a numeric of dim 1", column->name);
        }
        if (column->offset != offset)
            refuse(reader, "column '%s': offset %d, expected %d", column->name, column->offset,
                   offset);
        offset += column->dim;
    }
    if (offset != expected_dim)
        refuse(reader, "\"%s\" are %d numbers wide, the model expects %d", key, offset,
               expected_dim);
    return n;
}

static void read_model(struct reader *reader, const json_t *json, struct wrk_manifest *manifest)
{
    const json_t *model = json_object_get(json, "model");
    struct mdl_config *config = &manifest->config;
    get_text(reader, model, "name", manifest->model, sizeof(manifest->model));
    get_text(reader, model, "read", manifest->read, sizeof(manifest->read));
    config->n_actions = (int)get_int(reader, model, "n_actions", 2, WRK_MANIFEST_MAX_ACTIONS);
    config->history = (int)get_int(reader, model, "history", 1, 1 << 20);
    config->width = (int)get_int(reader, model, "width", 1, MAX_DIM);
    config->heads = (int)get_int(reader, model, "heads", 1, 1024);
    config->user_dim = (int)get_int(reader, model, "user_dim", 1, 1 << 20);
    config->item_dim = (int)get_int(reader, model, "item_dim", 1, 1 << 20);
    config->alpha = (float)get_real(reader, model, "alpha");
    config->beta = (float)get_real(reader, model, "beta");
    config->gamma = (float)get_real(reader, model, "gamma");
    /* absent in what was written before the key existed: off */
    if (json_is_true(json_object_get(model, "history_counts")))
        manifest->n_counts = WRK_N_HISTORY_COUNTS(config->n_actions);
    if (!reader->status && config->width % config->heads)
        refuse(reader, "%d heads do not divide the width %d", config->heads, config->width);
}

int wrk_manifest_from_json(const json_t *json, const char *place, struct wrk_manifest *manifest_p)
{
    struct reader reader = {.place = place};
    const char *format = json_string_value(json_object_get(json, "format"));
    if (!format || strcmp(format, "sluice-export") != 0)
        refuse(&reader, "\"format\" is not \"sluice-export\"");
    get_int(&reader, json, "version", 1, 1);
    memset(manifest_p, 0, sizeof(*manifest_p));
    manifest_p->step = (uint64_t)get_int(&reader, json, "step", 0, INT64_MAX);
    read_model(&reader, json, manifest_p);
    const json_t *actions =
        get_list(&reader, json, "actions", WRK_MANIFEST_MAX_ACTIONS, &manifest_p->n_actions);
    for (int i = 0; i < manifest_p->n_actions; i++) {
        const char *name = json_string_value(json_array_get(actions, (size_t)i));
        if (!name || strlen(name) >= sizeof(manifest_p->action[i]))
            refuse(&reader, "\"actions\" holds something that is no short text");
        else
            strcpy(manifest_p->action[i], name);
    }
    if (manifest_p->n_actions != manifest_p->config.n_actions)
        refuse(&reader, "%d actions are listed, the model has %d", manifest_p->n_actions,
               manifest_p->config.n_actions);
    read_tables(&reader, json, manifest_p);
    manifest_p->n_user_columns =
        read_columns(&reader, json, "user_columns", manifest_p, manifest_p->user_column,
                     manifest_p->config.user_dim - manifest_p->n_counts);
    manifest_p->n_item_columns = read_columns(&reader, json, "item_columns", manifest_p,
                                              manifest_p->item_column, manifest_p->config.item_dim);
    json_t *data = json_object_get(json, "data");
    manifest_p->data = json_is_object(data) ? json_incref(data) : NULL;
    if (reader.status)
        wrk_manifest_fini(manifest_p);
    return reader.status;
}

void wrk_manifest_fini(struct wrk_manifest *manifest)
{
    json_decref(manifest->data);
    manifest->data = NULL;
}

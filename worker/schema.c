/* One table of keys drives reading: each row says what kind of value a key takes and where it goes,
 * so that an unknown key, a key of the wrong kind and a text too long are refused in one place,
 * with the line. What no single key can know (a duration transform needs a duration) is checked at
 * the end.
 */
#include "worker/schema.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "cluster/yaml.h"
#include "worker/preset.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* what a key's reader is given */
struct place {
    const struct clu_yaml *document;
    const char *key;
    const struct clu_yaml_node *node;
};

static int refuse(const struct place *place, const char *expected)
{
    return clu_fail(CLU_E_CONFIG, "%s, line %d: %s: expected %s", clu_yaml_name(place->document),
                    clu_yaml_line(place->node), place->key, expected);
}

static int read_text(const struct place *place, char *out, size_t out_bytes)
{
    if (clu_yaml_kind(place->node) != CLU_YAML_TEXT)
        return refuse(place, "a text");
    const char *text = clu_yaml_text(place->node);
    if (!text[0] || strlen(text) >= out_bytes)
        return refuse(place, out_bytes > WRK_ACTION_BYTES ? "a text of 1 to 63 bytes"
                                                          : "a text of 1 to 31 bytes");
    memcpy(out, text, strlen(text) + 1);
    return CLU_OK;
}

static int read_bool(const struct place *place, bool *value_p)
{
    const char *text = clu_yaml_text(place->node);
    if (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0)
        *value_p = true;
    else if (strcmp(text, "false") == 0 || strcmp(text, "no") == 0)
        *value_p = false;
    else
        return refuse(place, "true or false");
    return CLU_OK;
}

static int read_positive(const struct place *place, double *value_p)
{
    const char *text = clu_yaml_text(place->node);
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0) || !isfinite(value))
        return refuse(place, "a number above 0");
    *value_p = value;
    return CLU_OK;
}

/* seconds since 1970, kept as milliseconds */
static int read_seconds(const struct place *place, int64_t *ms_p)
{
    const char *text = clu_yaml_text(place->node);
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || llabs(value) > INT64_MAX / 1000 - 1)
        return refuse(place, "seconds since 1970");
    *ms_p = value * 1000;
    return CLU_OK;
}

static int read_delimiter(const struct place *place, char *delimiter_p)
{
    const char *text = clu_yaml_text(place->node);
    if (strcmp(text, "tab") == 0 || strcmp(text, "\t") == 0)
        *delimiter_p = '\t';
    else if (strlen(text) == 1 && !isalnum((unsigned char)text[0]) && !strchr("\"\r\n ", text[0]))
        *delimiter_p = text[0];
    else
        return refuse(place,
                      "one character that is no letter, digit, space or quote, or the word tab");
    return CLU_OK;
}

static int read_fields(const struct place *place, char field[][WRK_NAME_BYTES], int *n_p)
{
    if (clu_yaml_kind(place->node) != CLU_YAML_LIST || clu_yaml_size(place->node) > WRK_MAX_COLUMNS)
        return refuse(place, "a list of at most 32 column names");
    int n = (int)clu_yaml_size(place->node);
    for (int i = 0; i < n; i++) {
        struct place item = {place->document, place->key,
                             clu_yaml_item(place->document, place->node, (size_t)i)};
        int status = read_text(&item, field[i], WRK_NAME_BYTES);
        if (status != CLU_OK)
            return status;
        for (int j = 0; j < i; j++)
            if (strcmp(field[i], field[j]) == 0)
                return refuse(&item, "every column named once");
    }
    *n_p = n;
    return CLU_OK;
}

static int read_time_format(const struct place *place, struct wrk_schema *schema)
{
    if (clu_yaml_kind(place->node) == CLU_YAML_TEXT) {
        const char *text = clu_yaml_text(place->node);
        if (strcmp(text, "unix") == 0)
            schema->time_format = WRK_TIME_UNIX;
        else if (strcmp(text, "unix_ms") == 0)
            schema->time_format = WRK_TIME_UNIX_MS;
        else if (strchr(text, '%')) {
            schema->time_format = WRK_TIME_PATTERN;
            schema->n_patterns = 1;
            return read_text(place, schema->pattern[0], WRK_NAME_BYTES);
        } else
            return refuse(place, "unix, unix_ms or a strptime pattern such as %Y-%m-%d %H:%M:%S");
        return CLU_OK;
    }
    size_t n = clu_yaml_size(place->node);
    if (clu_yaml_kind(place->node) != CLU_YAML_LIST || n < 1 || n > WRK_MAX_PATTERNS)
        return refuse(place, "a format, or a list of 1 to 4 strptime patterns");
    schema->time_format = WRK_TIME_PATTERN;
    schema->n_patterns = (int)n;
    for (size_t i = 0; i < n; i++) {
        struct place item = {place->document, place->key,
                             clu_yaml_item(place->document, place->node, i)};
        int status = read_text(&item, schema->pattern[i], WRK_NAME_BYTES);
        if (status != CLU_OK)
            return status;
        if (!strchr(schema->pattern[i], '%'))
            return refuse(&item, "a strptime pattern such as %Y-%m-%d %H:%M:%S");
    }
    return CLU_OK;
}

static int add_alias(const struct place *place, struct wrk_schema *schema, int action)
{
    if (schema->n_aliases == WRK_MAX_ALIASES)
        return refuse(place, "at most 64 texts of actions");
    struct wrk_alias *alias = &schema->alias[schema->n_aliases];
    int status = read_text(place, alias->text, sizeof(alias->text));
    if (status != CLU_OK)
        return status;
    for (int i = 0; i < schema->n_aliases; i++)
        if (strcmp(schema->alias[i].text, alias->text) == 0)
            return refuse(place, "every text to stand for one action");
    alias->action = action;
    schema->n_aliases++;
    return CLU_OK;
}

/* one entry of the actions: a name, or a map of one name to its texts in the log */
static int read_action(const struct place *place, struct wrk_schema *schema)
{
    int action = schema->n_actions + 1;
    if (action > WRK_MAX_ACTIONS)
        return refuse(place, "at most 15 actions, start included");
    char *name = schema->action[action];
    struct place inner = *place;
    int status;
    if (clu_yaml_kind(place->node) == CLU_YAML_TEXT) {
        status = read_text(place, name, WRK_ACTION_BYTES);
        if (status == CLU_OK)
            status = add_alias(place, schema, action);
    } else {
        if (clu_yaml_kind(place->node) != CLU_YAML_MAP || clu_yaml_size(place->node) != 1)
            return refuse(place, "a name, or one name and the texts it has in the log");
        const char *key = clu_yaml_key(place->document, place->node, 0);
        if (!key[0] || strlen(key) >= WRK_ACTION_BYTES)
            return refuse(place, "a name of 1 to 31 bytes");
        memcpy(name, key, strlen(key) + 1);
        inner.node = clu_yaml_item(place->document, place->node, 0);
        status = CLU_OK;
        if (clu_yaml_kind(inner.node) == CLU_YAML_TEXT)
            status = add_alias(&inner, schema, action);
        else if (clu_yaml_kind(inner.node) != CLU_YAML_LIST)
            return refuse(place, "a text or a list of texts");
        for (size_t i = 0; status == CLU_OK && i < clu_yaml_size(inner.node); i++) {
            struct place text = {place->document, place->key,
                                 clu_yaml_item(place->document, inner.node, i)};
            status = add_alias(&text, schema, action);
        }
    }
    if (status != CLU_OK)
        return status;
    for (int i = 1; i < action; i++)
        if (strcmp(schema->action[i], name) == 0)
            return refuse(place, "every action once");
    schema->n_actions = action;
    return CLU_OK;
}

static int read_actions(const struct place *place, struct wrk_schema *schema)
{
    size_t n = clu_yaml_size(place->node);
    if (clu_yaml_kind(place->node) != CLU_YAML_LIST || n < 1)
        return refuse(place, "a list of actions in their order");
    const struct clu_yaml_node *first = clu_yaml_item(place->document, place->node, 0);
    bool starts = strcmp(clu_yaml_text(first), "start") == 0 ||
                  (clu_yaml_kind(first) == CLU_YAML_MAP &&
                   strcmp(clu_yaml_key(place->document, first, 0), "start") == 0);
    if (!starts) { /* the log has none: DATA.md, rule 1 */
        strcpy(schema->action[1], "start");
        schema->n_actions = 1;
    }
    for (size_t i = 0; i < n; i++) {
        struct place item = {place->document, place->key,
                             clu_yaml_item(place->document, place->node, i)};
        int status = read_action(&item, schema);
        if (status != CLU_OK)
            return status;
    }
    if (schema->n_actions < 2)
        return refuse(place, "an action besides start");
    return CLU_OK;
}

static int read_feature_key(const struct place *place, struct wrk_feature *feature)
{
    const char *text = clu_yaml_text(place->node);
    if (strcmp(place->key, "name") == 0)
        return read_text(place, feature->column.name, WRK_NAME_BYTES);
    if (strcmp(place->key, "column") == 0)
        return read_text(place, feature->field, WRK_NAME_BYTES);
    if (strcmp(place->key, "table") == 0)
        return read_text(place, feature->column.table, WRK_NAME_BYTES);
    if (strcmp(place->key, "log1p") == 0)
        return read_bool(place, &feature->log1p);
    if (strcmp(place->key, "kind") == 0) {
        if (strcmp(text, "sparse") != 0 && strcmp(text, "numeric") != 0)
            return refuse(place, "sparse or numeric");
        feature->column.kind = text[0] == 's' ? WRK_COLUMN_SPARSE : WRK_COLUMN_NUMERIC;
        return CLU_OK;
    }
    if (strcmp(place->key, "from") == 0) {
        if (strcmp(text, "log") != 0 && strcmp(text, "attributes") != 0)
            return refuse(place, "log or attributes");
        feature->from_attributes = text[0] == 'a';
        return CLU_OK;
    }
    return refuse(place, "one of the keys name, column, kind, from, table, log1p");
}

static int read_feature(const struct place *place, struct wrk_feature *feature)
{
    int status = CLU_OK;
    if (clu_yaml_kind(place->node) == CLU_YAML_TEXT)
        status = read_text(place, feature->column.name, WRK_NAME_BYTES);
    else if (clu_yaml_kind(place->node) != CLU_YAML_MAP)
        return refuse(place, "a column's name, or a map with a name");
    for (size_t i = 0; status == CLU_OK && clu_yaml_kind(place->node) == CLU_YAML_MAP &&
                       i < clu_yaml_size(place->node);
         i++) {
        struct place key = {place->document, clu_yaml_key(place->document, place->node, i),
                            clu_yaml_item(place->document, place->node, i)};
        status = read_feature_key(&key, feature);
    }
    if (status != CLU_OK)
        return status;
    if (!feature->column.name[0])
        return refuse(place, "a name");
    if (!feature->field[0])
        strcpy(feature->field, feature->column.name);
    if (feature->column.kind == WRK_COLUMN_NUMERIC && feature->column.table[0])
        return refuse(place, "no table for a numeric column");
    if (feature->column.kind == WRK_COLUMN_SPARSE && !feature->column.table[0])
        strcpy(feature->column.table, feature->column.name);
    return CLU_OK;
}

static int read_features(const struct place *place, struct wrk_feature *features, int *n_p)
{
    size_t n = clu_yaml_size(place->node);
    if (clu_yaml_kind(place->node) != CLU_YAML_LIST || n > WRK_MAX_COLUMNS - 1)
        return refuse(place, "a list of at most 31 features");
    for (size_t i = 0; i < n; i++) {
        struct place item = {place->document, place->key,
                             clu_yaml_item(place->document, place->node, i)};
        int status = read_feature(&item, &features[i]);
        if (status != CLU_OK)
            return status;
        const char *name = features[i].column.name;
        if (strcmp(name, "user") == 0 || strcmp(name, "item") == 0)
            return refuse(&item, "a name other than those of the id columns");
        for (size_t j = 0; j < i; j++)
            if (strcmp(features[j].column.name, name) == 0)
                return refuse(&item, "every feature once");
    }
    *n_p = (int)n;
    return CLU_OK;
}

static int read_attributes(const struct place *place, struct wrk_attribute_format *format)
{
    if (clu_yaml_kind(place->node) != CLU_YAML_MAP)
        return refuse(place, "a map with the keys key, key_prefix, delimiter, header, columns");
    for (size_t i = 0; i < clu_yaml_size(place->node); i++) {
        struct place key = {place->document, clu_yaml_key(place->document, place->node, i),
                            clu_yaml_item(place->document, place->node, i)};
        int status;
        if (strcmp(key.key, "key") == 0)
            status = read_text(&key, format->key, WRK_NAME_BYTES);
        else if (strcmp(key.key, "key_prefix") == 0)
            status = read_text(&key, format->key_prefix, WRK_NAME_BYTES);
        else if (strcmp(key.key, "delimiter") == 0)
            status = read_delimiter(&key, &format->delimiter);
        else if (strcmp(key.key, "header") == 0)
            status = read_bool(&key, &format->header);
        else if (strcmp(key.key, "columns") == 0)
            status = read_fields(&key, format->field, &format->n_fields);
        else
            status = refuse(&key, "one of the keys key, key_prefix, delimiter, header, columns");
        if (status != CLU_OK)
            return status;
    }
    return format->key[0] ? CLU_OK : refuse(place, "a key: the id column");
}

enum kind {
    TEXT,
    BOOL,
    POSITIVE,
    SECONDS,
    DELIMITER,
    FIELDS,
    OTHER,
};

static const struct row {
    const char *key;
    enum kind kind;
    size_t offset;
} rows[] = {
#define ROW(key, kind, field)                                                                      \
    {                                                                                              \
        key, kind, offsetof(struct wrk_schema, field)                                              \
    }
    ROW("name", TEXT, name),
    ROW("delimiter", DELIMITER, delimiter),
    ROW("header", BOOL, header),
    ROW("columns", FIELDS, field),
    ROW("user", TEXT, user),
    ROW("item", TEXT, item),
    ROW("action", TEXT, action_field),
    ROW("time", TEXT, time),
    ROW("time_format", OTHER, time_format),
    ROW("time_from", SECONDS, from_ms),
    ROW("time_to", SECONDS, to_ms),
    ROW("time_outside", OTHER, skip_outside),
    ROW("actions", OTHER, action),
    ROW("transform", OTHER, transform),
    ROW("unit_seconds", POSITIVE, transform.unit_seconds),
    ROW("scale", POSITIVE, transform.scale),
    ROW("duration", TEXT, duration),
    ROW("position", TEXT, position),
    ROW("user_features", OTHER, user_feature),
    ROW("item_features", OTHER, item_feature),
    ROW("user_attributes", OTHER, user_attributes),
    ROW("item_attributes", OTHER, item_attributes),
#undef ROW
};

enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

static int read_word(const struct place *place, struct wrk_schema *schema)
{
    const char *text = clu_yaml_text(place->node);
    if (strcmp(place->key, "time_outside") == 0) {
        if (strcmp(text, "skip") != 0 && strcmp(text, "refuse") != 0)
            return refuse(place, "skip or refuse");
        schema->skip_outside = text[0] == 's';
        return CLU_OK;
    }
    if (strcmp(text, "log") != 0 && strcmp(text, "duration") != 0)
        return refuse(place, "log or duration");
    schema->transform.kind = text[0] == 'l' ? WRK_TRANSFORM_LOG : WRK_TRANSFORM_DURATION;
    return CLU_OK;
}

static int read_other(const struct place *place, struct wrk_schema *schema)
{
    const char *key = place->key;
    if (strcmp(key, "time_format") == 0)
        return read_time_format(place, schema);
    if (strcmp(key, "actions") == 0)
        return read_actions(place, schema);
    if (strcmp(key, "user_features") == 0)
        return read_features(place, schema->user_feature, &schema->n_user_features);
    if (strcmp(key, "item_features") == 0)
        return read_features(place, schema->item_feature, &schema->n_item_features);
    if (strcmp(key, "user_attributes") == 0)
        return read_attributes(place, &schema->user_attributes);
    if (strcmp(key, "item_attributes") == 0)
        return read_attributes(place, &schema->item_attributes);
    return read_word(place, schema);
}

static int read_key(const struct place *place, struct wrk_schema *schema)
{
    for (int i = 0; i < N_ROWS; i++) {
        if (strcmp(rows[i].key, place->key) != 0)
            continue;
        char *field = (char *)schema + rows[i].offset;
        switch (rows[i].kind) {
        case TEXT:
            return read_text(place, field, WRK_NAME_BYTES);
        case BOOL:
            return read_bool(place, (bool *)field);
        case POSITIVE:
            return read_positive(place, (double *)field);
        case SECONDS:
            return read_seconds(place, (int64_t *)field);
        case DELIMITER:
            return read_delimiter(place, field);
        case FIELDS:
            return read_fields(place, schema->field, &schema->n_fields);
        case OTHER:
            return read_other(place, schema);
        }
    }
    char known[600] = "one of the keys";
    for (int i = 0; i < N_ROWS; i++) {
        strcat(known, i ? ", " : " ");
        strcat(known, rows[i].key);
    }
    return refuse(place, known);
}

/* a log without a header knows only the columns the schema names */
static int check_field(const struct wrk_schema *schema, const char *key, const char *name)
{
    for (int i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->field[i], name) == 0)
            return CLU_OK;
    return clu_fail(CLU_E_CONFIG, "schema %s: %s: '%s' is not among the columns", schema->name, key,
                    name);
}

static int check_fields(const struct wrk_schema *schema)
{
    if (schema->header)
        return CLU_OK;
    if (schema->n_fields == 0)
        return clu_fail(CLU_E_CONFIG,
                        "schema %s: header is false, so columns must name the log's columns",
                        schema->name);
    int status = check_field(schema, "user", schema->user);
    if (status == CLU_OK)
        status = check_field(schema, "item", schema->item);
    if (status == CLU_OK)
        status = check_field(schema, "action", schema->action_field);
    if (status == CLU_OK)
        status = check_field(schema, "time", schema->time);
    if (status == CLU_OK && schema->duration[0])
        status = check_field(schema, "duration", schema->duration);
    if (status == CLU_OK && schema->position[0])
        status = check_field(schema, "position", schema->position);
    for (int i = 0; status == CLU_OK && i < schema->n_user_features; i++)
        if (!schema->user_feature[i].from_attributes)
            status = check_field(schema, "user_features", schema->user_feature[i].field);
    for (int i = 0; status == CLU_OK && i < schema->n_item_features; i++)
        if (!schema->item_feature[i].from_attributes)
            status = check_field(schema, "item_features", schema->item_feature[i].field);
    return status;
}

static int check(const struct wrk_schema *schema)
{
    const struct {
        const char *key, *value;
    } needed[] = {{"user", schema->user},
                  {"item", schema->item},
                  {"action", schema->action_field},
                  {"time", schema->time}};
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (!needed[i].value[0])
            return clu_fail(CLU_E_CONFIG, "schema %s: %s is missing: it names a column of the log",
                            schema->name, needed[i].key);
    if (schema->n_actions == 0)
        return clu_fail(CLU_E_CONFIG, "schema %s: actions is missing: the actions in their order",
                        schema->name);
    if (schema->transform.kind == WRK_TRANSFORM_DURATION && !schema->duration[0])
        return clu_fail(CLU_E_CONFIG, "schema %s: transform duration needs a duration column",
                        schema->name);
    if (schema->transform.kind == WRK_TRANSFORM_LOG && (schema->duration[0] || schema->position[0]))
        return clu_fail(CLU_E_CONFIG,
                        "schema %s: duration and position are read by transform duration only",
                        schema->name);
    if (schema->from_ms >= schema->to_ms)
        return clu_fail(CLU_E_CONFIG, "schema %s: time_from must be before time_to", schema->name);
    if (wrk_schema_wants_attributes(schema, true) && !schema->user_attributes.key[0])
        return clu_fail(CLU_E_CONFIG, "schema %s: user_attributes is missing: it says the key",
                        schema->name);
    if (wrk_schema_wants_attributes(schema, false) && !schema->item_attributes.key[0])
        return clu_fail(CLU_E_CONFIG, "schema %s: item_attributes is missing: it says the key",
                        schema->name);
    return check_fields(schema);
}

static void set_defaults(struct wrk_schema *schema, const char *name)
{
    memset(schema, 0, sizeof(*schema));
    const char *slash = strrchr(name, '/');
    snprintf(schema->name, sizeof(schema->name), "%.*s", WRK_NAME_BYTES - 1,
             slash ? slash + 1 : name);
    schema->delimiter = ',';
    schema->header = true;
    schema->from_ms = INT64_MIN;
    schema->to_ms = INT64_MAX;
    schema->transform = (struct wrk_transform){WRK_TRANSFORM_LOG, 60, 10};
    schema->user_attributes.delimiter = schema->item_attributes.delimiter = ',';
    schema->user_attributes.header = schema->item_attributes.header = true;
}

static int read_document(const struct clu_yaml *document, struct wrk_schema *schema_p)
{
    struct wrk_schema schema;
    set_defaults(&schema, clu_yaml_name(document));
    struct place root = {document, "schema", clu_yaml_root(document)};
    if (clu_yaml_kind(root.node) != CLU_YAML_MAP)
        return refuse(&root, "keys and values");
    for (size_t i = 0; i < clu_yaml_size(root.node); i++) {
        struct place place = {document, clu_yaml_key(document, root.node, i),
                              clu_yaml_item(document, root.node, i)};
        int status = read_key(&place, &schema);
        if (status != CLU_OK)
            return status;
    }
    int status = check(&schema);
    if (status == CLU_OK)
        *schema_p = schema;
    return status;
}

int wrk_schema_load(const char *path, struct wrk_schema *schema_p)
{
    struct clu_yaml *document;
    int status = clu_yaml_load(path, &document);
    if (status != CLU_OK)
        return status;
    status = read_document(document, schema_p);
    clu_yaml_free(document);
    return status;
}

int wrk_schema_parse(const char *name, const char *text, size_t size_bytes,
                     struct wrk_schema *schema_p)
{
    struct clu_yaml *document;
    int status = clu_yaml_parse(name, text, size_bytes, &document);
    if (status != CLU_OK)
        return status;
    status = read_document(document, schema_p);
    clu_yaml_free(document);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

int wrk_schema_find(const char *name_or_path, struct wrk_schema *schema_p)
{
    if (strchr(name_or_path, '/') || ends_with(name_or_path, ".yaml") ||
        ends_with(name_or_path, ".yml"))
        return wrk_schema_load(name_or_path, schema_p);
    const struct wrk_preset *preset = wrk_preset_find(name_or_path);
    if (preset)
        return wrk_schema_parse(preset->name, preset->yaml, strlen(preset->yaml), schema_p);
    char known[256];
    wrk_preset_names(known, sizeof(known));
    return clu_fail(CLU_E_USAGE, "no schema '%s': expected one of %s, or a file that ends in .yaml",
                    name_or_path, known);
}

void wrk_schema_columns(const struct wrk_schema *schema, struct wrk_dataset_info *info)
{
    info->n_user_columns = 1 + schema->n_user_features;
    info->n_item_columns = 1 + schema->n_item_features;
    info->user_column[0] = (struct wrk_column){"user", WRK_COLUMN_SPARSE, "user"};
    info->item_column[0] = (struct wrk_column){"item", WRK_COLUMN_SPARSE, "item"};
    for (int i = 0; i < schema->n_user_features; i++)
        info->user_column[1 + i] = schema->user_feature[i].column;
    for (int i = 0; i < schema->n_item_features; i++)
        info->item_column[1 + i] = schema->item_feature[i].column;
}

bool wrk_schema_wants_attributes(const struct wrk_schema *schema, bool of_user)
{
    const struct wrk_feature *features = of_user ? schema->user_feature : schema->item_feature;
    int n = of_user ? schema->n_user_features : schema->n_item_features;
    for (int i = 0; i < n; i++)
        if (features[i].from_attributes)
            return true;
    return false;
}

static json_t *features_json(const struct wrk_feature *features, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        const struct wrk_feature *feature = &features[i];
        bool numeric = feature->column.kind == WRK_COLUMN_NUMERIC;
        json_array_append_new(
            list, json_pack("{s:s,s:s,s:s,s:s,s:s,s:b}", "name", feature->column.name, "kind",
                            numeric ? "numeric" : "sparse", "column", feature->field, "from",
                            feature->is_counted        ? "counts"
                            : feature->from_attributes ? "attributes"
                                                       : "log",
                            "table", feature->column.table, "log1p", feature->log1p));
    }
    return list;
}

static json_t *actions_json(const struct wrk_schema *schema)
{
    json_t *list = json_array();
    for (int a = 1; a <= schema->n_actions; a++) {
        json_t *texts = json_array();
        for (int i = 0; i < schema->n_aliases; i++)
            if (schema->alias[i].action == a)
                json_array_append_new(texts, json_string(schema->alias[i].text));
        json_array_append_new(list, json_pack("{s:o}", schema->action[a], texts));
    }
    return list;
}

json_t *wrk_schema_json(const struct wrk_schema *schema)
{
    json_t *format = NULL;
    if (schema->time_format == WRK_TIME_PATTERN) {
        format = json_array();
        for (int i = 0; i < schema->n_patterns; i++)
            json_array_append_new(format, json_string(schema->pattern[i]));
    } else
        format = json_string(schema->time_format == WRK_TIME_UNIX ? "unix" : "unix_ms");
    char delimiter[2] = {schema->delimiter, 0};
    json_t *json =
        json_pack("{s:s,s:s,s:b,s:s,s:s,s:s,s:s,s:o,s:o,s:s,s:f,s:f,s:s,s:s,s:o,s:o}", "name",
                  schema->name, "delimiter", delimiter, "header", schema->header, "user",
                  schema->user, "item", schema->item, "action", schema->action_field, "time",
                  schema->time, "time_format", format, "actions", actions_json(schema), "transform",
                  schema->transform.kind == WRK_TRANSFORM_LOG ? "log" : "duration", "unit_seconds",
                  schema->transform.unit_seconds, "scale", schema->transform.scale, "duration",
                  schema->duration, "position", schema->position, "user_features",
                  features_json(schema->user_feature, schema->n_user_features), "item_features",
                  features_json(schema->item_feature, schema->n_item_features));
    if (json && schema->from_ms != INT64_MIN)
        json_object_set_new(json, "time_from", json_integer(schema->from_ms / 1000));
    if (json && schema->to_ms != INT64_MAX)
        json_object_set_new(json, "time_to", json_integer(schema->to_ms / 1000));
    return json;
}

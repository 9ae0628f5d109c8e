/* The join is done while the log is read, item by item, because the values must stand beside the
 * event before events are brought together by user. Slots hold the index of a row of values plus
 * one. */
#include "worker/attributes.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/event.h"

#include <stdlib.h>
#include <string.h>

struct wrk_attributes {
    int n_features; /* of the user or item, in schema order */
    bool joined[WRK_MAX_COLUMNS];
    uint64_t unknown[WRK_MAX_COLUMNS];
    uint64_t n, capacity; /* rows */
    uint64_t *keys;       /* [capacity] */
    uint64_t *values;     /* [capacity, n_features] */
    uint32_t *slots;      /* [n_slots], a power of two */
    uint64_t n_slots;
};

/* the columns of the file */
struct columns {
    int key, feature[WRK_MAX_COLUMNS], n_needed;
};

static int list_find(const struct wrk_attribute_format *format, const char *name)
{
    for (int i = 0; i < format->n_fields; i++)
        if (strcmp(format->field[i], name) == 0)
            return i;
    return -1;
}

static int find_columns(const char *path, const struct wrk_attribute_format *format,
                        const struct wrk_feature *features, int n, const struct wrk_row *header,
                        struct columns *columns)
{
    columns->n_needed = 0;
    for (int i = -1; i < n; i++) {
        if (i >= 0 && !features[i].from_attributes)
            continue;
        const char *name = i < 0 ? format->key : features[i].field;
        int at = header ? wrk_header_find(header, name) : list_find(format, name);
        if (at < 0)
            return clu_fail(CLU_E_DATA, "%s: no column '%s', which the schema reads from it", path,
                            name);
        if (i < 0)
            columns->key = at;
        else
            columns->feature[i] = at;
        if (at + 1 > columns->n_needed)
            columns->n_needed = at + 1;
    }
    return CLU_OK;
}

static uint64_t *find_slot_values(const struct wrk_attributes *attributes, uint64_t key,
                                  uint64_t *slot_p)
{
    uint64_t slot = clu_mix(key) & (attributes->n_slots - 1);
    for (; attributes->slots[slot]; slot = (slot + 1) & (attributes->n_slots - 1)) {
        uint64_t row = attributes->slots[slot] - 1;
        if (attributes->keys[row] == key)
            return attributes->values + row * (uint64_t)attributes->n_features;
    }
    *slot_p = slot;
    return NULL;
}

static int grow(struct wrk_attributes *attributes, uint64_t memory_bytes, const char *path)
{
    uint64_t capacity = attributes->capacity ? 2 * attributes->capacity : 1024;
    uint64_t bytes = capacity * 8 * (1 + (uint64_t)attributes->n_features) + 2 * capacity * 4;
    if (bytes > memory_bytes || capacity > UINT32_MAX / 2)
        return clu_fail(CLU_E_DATA,
                        "%s: its rows need %llu MiB, a quarter of the memory allowed is %llu MiB: "
                        "give --memory %lluMiB",
                        path, (unsigned long long)(bytes >> 20),
                        (unsigned long long)(memory_bytes >> 20),
                        (unsigned long long)(4 * bytes >> 20) + 1);
    uint64_t *keys = realloc(attributes->keys, capacity * 8);
    if (keys)
        attributes->keys = keys;
    uint64_t *values = realloc(attributes->values, capacity * 8 * (uint64_t)attributes->n_features);
    if (values)
        attributes->values = values;
    uint32_t *slots = calloc(2 * capacity, sizeof(*slots));
    if (!keys || !values || !slots) {
        free(slots);
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    }
    free(attributes->slots);
    attributes->slots = slots;
    attributes->n_slots = 2 * capacity;
    attributes->capacity = capacity;
    for (uint64_t row = 0; row < attributes->n; row++) {
        uint64_t slot = 0;
        find_slot_values(attributes, keys[row], &slot);
        slots[slot] = (uint32_t)row + 1;
    }
    return CLU_OK;
}

/* the key of an id of this file, as the log would write it */
static bool key_of(const struct wrk_attribute_format *format, const struct wrk_field *field,
                   uint64_t *key_p)
{
    char text[2048];
    size_t prefix = strlen(format->key_prefix);
    if (field->size_bytes == 0 || prefix + field->size_bytes > sizeof(text))
        return false;
    memcpy(text, format->key_prefix, prefix);
    memcpy(text + prefix, field->text, field->size_bytes);
    *key_p = clu_key_of_text(text, prefix + field->size_bytes);
    return true;
}

static int add_row(struct wrk_attributes *attributes, const struct wrk_feature *features,
                   const struct wrk_attribute_format *format, const struct columns *columns,
                   const struct wrk_row *row, uint64_t memory_bytes, const char *path,
                   struct wrk_tolerance *tolerance)
{
    char text[256] = "";
    uint64_t key = 0, values[WRK_MAX_COLUMNS];
    memcpy(values, attributes->unknown, sizeof(values));
    if (row->fault)
        snprintf(text, sizeof(text), "%s", row->fault);
    else if (row->n_fields < columns->n_needed)
        snprintf(text, sizeof(text), "column %d: expected at least %d columns, found %d",
                 row->n_fields + 1, columns->n_needed, row->n_fields);
    else if (!key_of(format, &row->field[columns->key], &key))
        snprintf(text, sizeof(text), "column %d (%s): expected an id of 1 to 1024 bytes",
                 columns->key + 1, format->key);
    for (int i = 0; i < attributes->n_features && !text[0]; i++)
        if (attributes->joined[i] &&
            !wrk_feature_value(&features[i], &row->field[columns->feature[i]], &values[i]))
            snprintf(text, sizeof(text), "column %d (%s): expected a number, found '%.40s'",
                     columns->feature[i] + 1, features[i].field,
                     row->field[columns->feature[i]].text);
    if (text[0])
        return wrk_tolerance_count(tolerance, path, row->line, row->n_lines, text);
    if (attributes->n == attributes->capacity) {
        int status = grow(attributes, memory_bytes, path);
        if (status != CLU_OK)
            return status;
    }
    uint64_t slot = 0, *place = find_slot_values(attributes, key, &slot);
    if (!place) {
        attributes->slots[slot] = (uint32_t)attributes->n + 1;
        attributes->keys[attributes->n] = key;
        place = attributes->values + attributes->n++ * (uint64_t)attributes->n_features;
    }
    memcpy(place, values, (size_t)attributes->n_features * 8);
    return CLU_OK;
}

int wrk_attributes_load(const char *path, const struct wrk_schema *schema, bool of_user,
                        uint64_t memory_bytes, struct wrk_tolerance *tolerance,
                        struct wrk_attributes **attributes_p)
{
    const struct wrk_attribute_format *format =
        of_user ? &schema->user_attributes : &schema->item_attributes;
    const struct wrk_feature *features = of_user ? schema->user_feature : schema->item_feature;
    struct wrk_attributes *attributes = calloc(1, sizeof(*attributes));
    struct wrk_logfile *file = NULL;
    if (!attributes)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    attributes->n_features = of_user ? schema->n_user_features : schema->n_item_features;
    for (int i = 0; i < attributes->n_features; i++) {
        attributes->joined[i] = features[i].from_attributes;
        if (features[i].column.kind == WRK_COLUMN_SPARSE)
            attributes->unknown[i] = clu_key_of_text("", 0);
    }
    struct columns columns = {0};
    struct wrk_row row;
    bool more = true;
    int status = grow(attributes, UINT64_MAX, path);
    if (status == CLU_OK)
        status = wrk_logfile_open(path, format->delimiter, false, &file);
    if (status == CLU_OK && format->header) {
        status = wrk_logfile_next(file, &row, &more);
        if (status == CLU_OK && (!more || row.fault))
            status = clu_fail(CLU_E_DATA, "%s: expected a header line", path);
    }
    if (status == CLU_OK)
        status = find_columns(path, format, features, attributes->n_features,
                              format->header ? &row : NULL, &columns);
    while (status == CLU_OK && more) {
        status = wrk_logfile_next(file, &row, &more);
        if (status == CLU_OK && more)
            status = add_row(attributes, features, format, &columns, &row, memory_bytes, path,
                             tolerance);
    }
    wrk_logfile_close(file);
    if (status != CLU_OK) {
        wrk_attributes_free(attributes);
        return status;
    }
    *attributes_p = attributes;
    return CLU_OK;
}

bool wrk_attributes_join(const struct wrk_attributes *attributes, uint64_t key, uint64_t *values)
{
    uint64_t slot;
    const uint64_t *found = find_slot_values(attributes, key, &slot);
    const uint64_t *from = found ? found : attributes->unknown;
    for (int i = 0; i < attributes->n_features; i++)
        if (attributes->joined[i])
            values[i] = from[i];
    return found != NULL;
}

uint64_t wrk_attributes_n(const struct wrk_attributes *attributes)
{
    return attributes->n;
}

void wrk_attributes_free(struct wrk_attributes *attributes)
{
    if (!attributes)
        return;
    free(attributes->keys);
    free(attributes->values);
    free(attributes->slots);
    free(attributes);
}

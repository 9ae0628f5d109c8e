/* Every check that a row can fail stands here, in the order of the columns that fail most. Times
 * are kept in milliseconds whatever the log's unit, so that two logs of one system can be mixed.
 */
#include "worker/event.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ID_BYTES = 1024 };

/* dates beyond the year 9999 are typing errors, and their milliseconds would not survive arithmetic
 */
static const int64_t max_time_ms = 253402300800000;

struct wrk_stored_id wrk_id_of_text(const char *text, size_t size_bytes)
{
    struct wrk_stored_id id = {clu_key_of_text(text, size_bytes), text, (uint32_t)size_bytes,
                               false};
    size_t first = text[0] == '-' || text[0] == '+';
    /* the key of an integer is its bits; of a text its hash, so equal means it was read as one */
    if (size_bytes > first && size_bytes <= 20 && text[first] >= '0' && text[first] <= '9' &&
        clu_hash_bytes(text, size_bytes) != id.key && text[0] != '+') {
        id.text = NULL;
        id.size_bytes = 0;
        id.is_unsigned = text[0] != '-' && id.key > INT64_MAX;
    }
    return id;
}

float wrk_value_float(uint64_t value)
{
    uint32_t bits = (uint32_t)value;
    float number;
    memcpy(&number, &bits, sizeof(number));
    return number;
}

uint64_t wrk_float_value(float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof(bits));
    return bits;
}

int wrk_header_find(const struct wrk_row *header, const char *name)
{
    for (int i = 0; i < header->n_fields; i++)
        if (header->field[i].size_bytes == strlen(name) &&
            memcmp(header->field[i].text, name, header->field[i].size_bytes) == 0)
            return i;
    return -1;
}

static int list_find(const struct wrk_schema *schema, const char *name)
{
    for (int i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->field[i], name) == 0)
            return i;
    return -1;
}

struct binder {
    struct wrk_binding *binding;
    const char *path;
    const struct wrk_row *header;
    int status;
};

static int bind(struct binder *binder, const char *what, const char *name)
{
    const struct wrk_schema *schema = binder->binding->schema;
    int at = binder->header ? wrk_header_find(binder->header, name) : list_find(schema, name);
    if (at < 0 && binder->status == CLU_OK) {
        char have[512] = "";
        size_t used = 0;
        for (int i = 0; binder->header && i < binder->header->n_fields && used < sizeof(have); i++)
            used += (size_t)snprintf(have + used, sizeof(have) - used, "%s%.40s", i ? ", " : "",
                                     binder->header->field[i].text);
        binder->status = clu_fail(
            CLU_E_DATA, "%s, line 1: no column '%s' (the %s of schema %s); the header has: %s",
            binder->path, name, what, schema->name, have);
    }
    if (at + 1 > binder->binding->n_needed)
        binder->binding->n_needed = at + 1;
    return at;
}

int wrk_binding_init(struct wrk_binding *binding, const struct wrk_schema *schema, const char *path,
                     const struct wrk_row *header)
{
    *binding = (struct wrk_binding){.schema = schema, .duration = -1, .position = -1};
    binding->n_fields = header ? header->n_fields : schema->n_fields;
    struct binder binder = {binding, path, header, CLU_OK};
    binding->user = bind(&binder, "user", schema->user);
    binding->item = bind(&binder, "item", schema->item);
    binding->action = bind(&binder, "action", schema->action_field);
    binding->time = bind(&binder, "time", schema->time);
    if (schema->duration[0])
        binding->duration = bind(&binder, "duration", schema->duration);
    if (schema->position[0])
        binding->position = bind(&binder, "position", schema->position);
    for (int i = 0; i < schema->n_user_features; i++)
        if (!schema->user_feature[i].from_attributes)
            binding->user_feature[i] = bind(&binder, "user feature", schema->user_feature[i].field);
    for (int i = 0; i < schema->n_item_features; i++)
        if (!schema->item_feature[i].from_attributes && !schema->item_feature[i].is_counted)
            binding->item_feature[i] = bind(&binder, "item feature", schema->item_feature[i].field);
    return binder.status;
}

static enum wrk_row_result bad(char *text, size_t text_bytes, int column, const char *name,
                               const struct wrk_field *field, const char *expected)
{
    snprintf(text, text_bytes, "column %d (%s): expected %s, found '%.40s'", column + 1, name,
             expected, field->text);
    return WRK_ROW_BAD;
}

static bool whole_integer(const struct wrk_field *field, int64_t *value_p)
{
    char *end;
    errno = 0;
    long long value = strtoll(field->text, &end, 10);
    if (end == field->text || (size_t)(end - field->text) != field->size_bytes || errno)
        return false;
    *value_p = value;
    return true;
}

static bool finite_number(const struct wrk_field *field, double *value_p)
{
    char *end;
    double value = strtod(field->text, &end);
    if (end == field->text || (size_t)(end - field->text) != field->size_bytes || !isfinite(value))
        return false;
    *value_p = value;
    return true;
}

static bool read_time(const struct wrk_schema *schema, const struct wrk_field *field,
                      int64_t *time_ms_p)
{
    if (schema->time_format != WRK_TIME_PATTERN) {
        int64_t unit = schema->time_format == WRK_TIME_UNIX ? 1000 : 1, value;
        if (!whole_integer(field, &value) || value > max_time_ms / unit ||
            value < -max_time_ms / unit)
            return false;
        *time_ms_p = value * unit;
        return true;
    }
    for (int i = 0; i < schema->n_patterns; i++) {
        struct tm tm = {.tm_mday = 1, .tm_year = 70};
        const char *end = strptime(field->text, schema->pattern[i], &tm);
        if (end && (size_t)(end - field->text) == field->size_bytes) {
            *time_ms_p = (int64_t)timegm(&tm) * 1000;
            return true;
        }
    }
    return false;
}

static int find_action(const struct wrk_schema *schema, const struct wrk_field *field)
{
    for (int i = 0; i < schema->n_aliases; i++)
        if (strcmp(schema->alias[i].text, field->text) == 0 &&
            strlen(field->text) == field->size_bytes)
            return schema->alias[i].action;
    return 0;
}

bool wrk_feature_value(const struct wrk_feature *feature, const struct wrk_field *field,
                       uint64_t *value_p)
{
    if (feature->column.kind == WRK_COLUMN_SPARSE) {
        *value_p = clu_key_of_text(field->text, field->size_bytes);
        return true;
    }
    double number = 0; /* an empty number is an unknown one: 0 */
    if (field->size_bytes > 0 && !finite_number(field, &number))
        return false;
    if (feature->log1p)
        number = log1p(number > 0 ? number : 0);
    if (fabs(number) > 3e38)
        return false;
    *value_p = wrk_float_value((float)number);
    return true;
}

static enum wrk_row_result read_features(const struct wrk_feature *features, int n, const int *at,
                                         const struct wrk_row *row, uint64_t *values, char *text,
                                         size_t text_bytes)
{
    for (int i = 0; i < n; i++) {
        values[i] = 0;
        if (features[i].from_attributes || features[i].is_counted)
            continue;
        if (!wrk_feature_value(&features[i], &row->field[at[i]], &values[i]))
            return bad(text, text_bytes, at[i], features[i].field, &row->field[at[i]], "a number");
    }
    return WRK_ROW_OK;
}

static enum wrk_row_result read_position(const struct wrk_binding *binding,
                                         const struct wrk_row *row, struct wrk_event *event,
                                         char *text, size_t text_bytes)
{
    const struct wrk_schema *schema = binding->schema;
    event->position_s = NAN;
    event->duration_s = 0;
    if (binding->duration >= 0) {
        const struct wrk_field *field = &row->field[binding->duration];
        if (!finite_number(field, &event->duration_s) || event->duration_s <= 0 ||
            event->duration_s > 1e9)
            return bad(text, text_bytes, binding->duration, schema->duration, field,
                       "a duration in seconds above 0");
    }
    if (binding->position >= 0 && row->field[binding->position].size_bytes > 0) {
        const struct wrk_field *field = &row->field[binding->position];
        if (!finite_number(field, &event->position_s) || event->position_s < 0 ||
            event->position_s > 1e9)
            return bad(text, text_bytes, binding->position, schema->position, field,
                       "a position in seconds, 0 or more");
    }
    return WRK_ROW_OK;
}

enum wrk_row_result wrk_event_read(const struct wrk_binding *binding, const struct wrk_row *row,
                                   struct wrk_event *event, char *text, size_t text_bytes)
{
    const struct wrk_schema *schema = binding->schema;
    if (row->fault) {
        snprintf(text, text_bytes, "%s", row->fault);
        return WRK_ROW_BAD;
    }
    if (row->n_fields < binding->n_needed) {
        snprintf(text, text_bytes, "column %d: expected %d columns, found %d", row->n_fields + 1,
                 binding->n_fields, row->n_fields);
        return WRK_ROW_BAD;
    }
    const struct wrk_field *user = &row->field[binding->user], *item = &row->field[binding->item];
    const struct wrk_field *action = &row->field[binding->action];
    const struct wrk_field *time = &row->field[binding->time];
    if (user->size_bytes == 0 || user->size_bytes > MAX_ID_BYTES)
        return bad(text, text_bytes, binding->user, schema->user, user, "an id of 1 to 1024 bytes");
    if (item->size_bytes == 0 || item->size_bytes > MAX_ID_BYTES)
        return bad(text, text_bytes, binding->item, schema->item, item, "an id of 1 to 1024 bytes");
    event->action = find_action(schema, action);
    if (event->action == 0) {
        char expected[400] = "one of";
        for (int i = 0; i < schema->n_aliases; i++)
            if (strlen(expected) + strlen(schema->alias[i].text) + 3 < sizeof(expected))
                strcat(strcat(expected, i ? ", " : " "), schema->alias[i].text);
        return bad(text, text_bytes, binding->action, schema->action_field, action, expected);
    }
    if (!read_time(schema, time, &event->time_ms)) {
        const char *expected = schema->time_format == WRK_TIME_UNIX      ? "seconds since 1970"
                               : schema->time_format == WRK_TIME_UNIX_MS ? "milliseconds since 1970"
                                                                         : schema->pattern[0];
        return bad(text, text_bytes, binding->time, schema->time, time, expected);
    }
    if (event->time_ms < schema->from_ms || event->time_ms >= schema->to_ms) {
        if (schema->skip_outside)
            return WRK_ROW_OUTSIDE;
        return bad(text, text_bytes, binding->time, schema->time, time,
                   "a time from time_from to before time_to");
    }
    enum wrk_row_result result = read_position(binding, row, event, text, text_bytes);
    if (result == WRK_ROW_OK)
        result = read_features(schema->user_feature, schema->n_user_features, binding->user_feature,
                               row, event->user_value, text, text_bytes);
    if (result == WRK_ROW_OK)
        result = read_features(schema->item_feature, schema->n_item_features, binding->item_feature,
                               row, event->item_value, text, text_bytes);
    if (result == WRK_ROW_OK) {
        event->user = wrk_id_of_text(user->text, user->size_bytes);
        event->item = wrk_id_of_text(item->text, item->size_bytes);
    }
    return result;
}

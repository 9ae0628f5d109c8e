/* An event: one row of a log, understood by a schema.
 *
 * A binding ties a schema to the columns of one file (by its header, or by the schema's list);
 * reading a row then takes no look-ups by name. What is wrong with a row is told as a sentence with
 * the column's place and name and what was expected, for the caller to put file and line in front.
 *
 * Threads: one binding, one thread.
 */
#ifndef WORKER_EVENT_H
#define WORKER_EVENT_H

#include "worker/logfile.h"
#include "worker/schema.h"

#include <stdbool.h>
#include <stdint.h>

/* An id with the key it has in every table: integers are told apart from texts so that the log's
 * own form can be had back. */
struct wrk_stored_id {
    uint64_t key;
    const char *text; /* NULL for an integer: then the key's bits are it */
    uint32_t size_bytes;
    bool is_unsigned; /* an integer above INT64_MAX */
};

/* Makes the id of a text; a text id borrows it. */
struct wrk_stored_id wrk_id_of_text(const char *text, size_t size_bytes);

struct wrk_event {
    struct wrk_stored_id user, item;
    int64_t time_ms;
    int action;                           /* 1..M */
    double duration_s;                    /* DURATION only */
    double position_s;                    /* NaN where the log has none */
    uint64_t user_value[WRK_MAX_COLUMNS]; /* of the log's own user features, in schema order */
    uint64_t item_value[WRK_MAX_COLUMNS]; /* (those from attributes are left 0) */
};

/* Where the columns that matter stand in one file; -1: not there. */
struct wrk_binding {
    const struct wrk_schema *schema;
    int user, item, action, time, duration, position;
    int user_feature[WRK_MAX_COLUMNS], item_feature[WRK_MAX_COLUMNS];
    int n_needed; /* fields a row must have */
    int n_fields; /* of the header, or of the schema's list */
};

/* Binds by the header row (schema->header), or by the schema's list (header NULL). Errors: DATA,
 * telling the file, the missing column and those that are there. */
int wrk_binding_init(struct wrk_binding *binding, const struct wrk_schema *schema, const char *path,
                     const struct wrk_row *header);

enum wrk_row_result {
    WRK_ROW_OK,
    WRK_ROW_BAD,     /* text says why */
    WRK_ROW_OUTSIDE, /* outside the schema's time range, which it says to skip */
};

/* Reads a row. text [text_bytes] gets the sentence when the result is WRK_ROW_BAD. The event's
 * texts borrow from the row. */
enum wrk_row_result wrk_event_read(const struct wrk_binding *binding, const struct wrk_row *row,
                                   struct wrk_event *event, char *text, size_t text_bytes);

/* The column's place in a header row, or -1. */
int wrk_header_find(const struct wrk_row *header, const char *name);

/* One feature value from a field: key, or float bits. False when a number was expected. */
bool wrk_feature_value(const struct wrk_feature *feature, const struct wrk_field *field,
                       uint64_t *value_p);

/* The float behind a numeric value's bits, and back. */
float wrk_value_float(uint64_t value);
uint64_t wrk_float_value(float number);

#endif

/* Events, brought together by user within bounded memory.
 *
 *     add, add, add ... --64 parts by the top bits of mix(user key)--> memory, and files once
 *     memory is short drain: part after part, one user's events after the other's, users in order
 *     of mix(user key)
 *
 * A part that is still too large when its turn comes is split again by the next six bits, so the
 * size of a log is bounded by the disk only. What comes out does not depend on the memory given,
 * nor on whether files were needed. Within a user: by time, then in order of arrival.
 *
 * Files are unlinked as soon as they are open: a killed process leaves nothing behind. Threads: one
 * owner.
 */
#ifndef WORKER_SPILL_H
#define WORKER_SPILL_H

#include "worker/event.h"

#include <stddef.h>
#include <stdint.h>

enum {
    WRK_RECORD_USER_TEXT = 1, /* the user id is a text */
    WRK_RECORD_ITEM_TEXT = 2,
    WRK_RECORD_USER_UNSIGNED = 4, /* an integer above INT64_MAX */
    WRK_RECORD_ITEM_UNSIGNED = 8,
};

/* An event as it is kept: behind the struct stand n_user_values + n_item_values values, then the
 * two texts. Native byte order: records never leave the process. */
struct wrk_record {
    uint32_t size_bytes; /* of the whole record, a multiple of 8 */
    uint8_t action, flags;
    uint16_t user_text_bytes, item_text_bytes;
    float duration_s, position_s;
    uint64_t user_key, item_key;
    int64_t time_ms;
    uint64_t value[];
};

struct wrk_spill;

/* dir: where files go when memory_bytes run short. The values counts are those of the data set's
 * feature columns without the ids. */
int wrk_spill_create(const char *dir, uint64_t memory_bytes, int n_user_values, int n_item_values,
                     struct wrk_spill **spill_p);

/* Keeps a copy. Errors: NO_MEMORY, FULL and I/O codes. */
int wrk_spill_add(struct wrk_spill *spill, const struct wrk_event *event);

/* Given all events of one user; a status other than 0 ends the drain. */
typedef int wrk_spill_visit(void *context, const struct wrk_record *const *records, size_t n);

/* Empties the spill into visit. Errors: visit's; I/O codes; DATA when a single user's events do not
 * fit the memory. */
int wrk_spill_drain(struct wrk_spill *spill, wrk_spill_visit *visit, void *context);

/* Bytes that went through files: 0 when everything fitted. */
uint64_t wrk_spill_file_bytes(const struct wrk_spill *spill);

void wrk_spill_free(struct wrk_spill *spill); /* NULL is fine */

/* The ids of a record; texts borrow from it. */
struct wrk_stored_id wrk_record_user(const struct wrk_record *record, int n_values);
struct wrk_stored_id wrk_record_item(const struct wrk_record *record, int n_values);

#endif

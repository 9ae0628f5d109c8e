/* A joined attribute file in memory: id -> the values of the schema's features that come from it.
 *
 * Open addressing over keys, values behind; 16 to 24 bytes an entry beside 8 a value. It is refused
 * when it would take more than the bytes allowed, with what it needs. An id that the file lacks has
 * the unknown values: the key of the empty text for sparse features, 0 for numeric ones. Threads:
 * filled by one, then read by any.
 */
#ifndef WORKER_ATTRIBUTES_H
#define WORKER_ATTRIBUTES_H

#include "worker/logfile.h"
#include "worker/schema.h"
#include "worker/tolerance.h"

#include <stdbool.h>
#include <stdint.h>

struct wrk_attributes;

/* Reads the file with the format and features that the schema gives the user or the item. A later
 * row of the same id replaces the earlier one. Bad rows go to the tolerance. */
int wrk_attributes_load(const char *path, const struct wrk_schema *schema, bool of_user,
                        uint64_t memory_bytes, struct wrk_tolerance *tolerance,
                        struct wrk_attributes **attributes_p);

/* Sets the values of the features that come from the file; false when the id is not in it. */
bool wrk_attributes_join(const struct wrk_attributes *attributes, uint64_t key, uint64_t *values);

uint64_t wrk_attributes_n(const struct wrk_attributes *attributes);
void wrk_attributes_free(struct wrk_attributes *attributes); /* NULL is fine */

#endif

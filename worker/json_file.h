/* The JSON files of snapshots, exports and reports: written whole and synced, read with the line
 * named in every complaint. Threads: any. */
#ifndef WORKER_JSON_FILE_H
#define WORKER_JSON_FILE_H

#include <jansson.h>
#include <stddef.h>

/* Writes json atomically, indented, its doubles with that many digits (17 give the same bits back);
 * takes the reference. NULL (it could not be made): NO_MEMORY. */
int wrk_json_save(const char *path, json_t *json, int digits);

/* Reads a file of at most max_bytes. CORRUPT with path and line. The caller owns *json_p. */
int wrk_json_load(const char *path, size_t max_bytes, json_t **json_p);

#endif

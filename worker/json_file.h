/* The JSON files of snapshots, exports and reports: written whole and synced, read with the line
 * named in every complaint; and what --json prints. Threads: any. */
#ifndef WORKER_JSON_FILE_H
#define WORKER_JSON_FILE_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* Writes json atomically, indented, its doubles with that many digits (17 give the same bits back);
 * takes the reference. NULL (it could not be made): NO_MEMORY. */
int wrk_json_save(const char *path, json_t *json, int digits);

/* Prints json, indented, and an end of line; takes the reference. NULL: NO_MEMORY, logged. */
int wrk_json_print(json_t *json, FILE *stream);

/* Reads a file of at most max_bytes. CORRUPT with path and line. The caller owns *json_p. */
int wrk_json_load(const char *path, size_t max_bytes, json_t **json_p);

#endif

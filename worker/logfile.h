/* A delimited text file, row by row: the log itself and joined attribute files.
 *
 * Compression is recognised by content (cluster/file.h), a byte order mark and CRLF are passed
 * over, quoted fields may hold delimiters, quotes ("") and line ends. Every row knows the line it
 * began on. A row that cannot be split into fields comes back with a fault instead of fields, so
 * that the caller may count it and go on.
 *
 * Memory: one chunk and one row (at most 1 MiB). Threads: one file, one thread.
 */
#ifndef WORKER_LOGFILE_H
#define WORKER_LOGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wrk_field {
    const char *text; /* a NUL stands behind it; may hold NULs of its own */
    size_t size_bytes;
};

struct wrk_row {
    const struct wrk_field *field; /* [n_fields], valid until the next call */
    int n_fields;
    uint64_t line;     /* the line it began on, from 1 */
    uint64_t n_lines;  /* lines it took: more than 1 for quoted line ends or an unclosed quote */
    const char *fault; /* NULL, or what is wrong with the row: then there are no fields */
};

struct wrk_logfile;

/* strict: a quote inside an unquoted field is a fault, as RFC 4180 has it; otherwise it is a
 * character. */
int wrk_logfile_open(const char *path, char delimiter, bool strict, struct wrk_logfile **file_p);

/* The next row that is not empty; *more_p = false at the end. Errors: CORRUPT and I/O codes of the
 * stream, NO_MEMORY, DATA for UTF-16. */
int wrk_logfile_next(struct wrk_logfile *file, struct wrk_row *row_p, bool *more_p);

/* Bytes of text read so far, after decompression. */
uint64_t wrk_logfile_bytes(const struct wrk_logfile *file);

const char *wrk_logfile_path(const struct wrk_logfile *file);
void wrk_logfile_close(struct wrk_logfile *file); /* NULL is fine */

#endif

/* How much bad input is put up with: every bad line is counted, the first few are told, and one
 * more than allowed ends the reading. Threads: one owner.
 */
#ifndef WORKER_TOLERANCE_H
#define WORKER_TOLERANCE_H

#include <stdint.h>

struct wrk_tolerance {
    uint64_t max_bad; /* lines */
    uint64_t n_bad;   /* lines so far */
    uint64_t n_told;
};

/* Counts n_lines bad lines beginning at a line, because of text. DATA, with file, line and advice,
 * when they are too many. */
int wrk_tolerance_count(struct wrk_tolerance *tolerance, const char *path, uint64_t line,
                        uint64_t n_lines, const char *text);

#endif

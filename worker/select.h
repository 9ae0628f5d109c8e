/* Numbers too many for memory: a file of int64 or u64, its order statistics and its number of
 * distinct values.
 *
 * The split of a data set is the start time of a sample counted in time order; a sort of all starts
 * would be the obvious way, and needs the disk twice over. Selection needs at most four passes over
 * the file, whatever its size, and a fixed table of counts. Threads: one file, one thread.
 */
#ifndef WORKER_SELECT_H
#define WORKER_SELECT_H

#include <stddef.h>
#include <stdint.h>

/* A file of 8-byte numbers that is gone when it is closed. */
struct wrk_numbers {
    int fd; /* -1 while nothing was flushed */
    char dir[1024];
    uint64_t n; /* added in all */
    uint64_t *buffer;
    size_t n_buffered;
};

int wrk_numbers_init(struct wrk_numbers *numbers, const char *dir);
void wrk_numbers_fini(struct wrk_numbers *numbers);
int wrk_numbers_add(struct wrk_numbers *numbers, uint64_t value);

/* Calls visit with chunks of the numbers in the order they were added. */
typedef int wrk_numbers_visit(void *context, const uint64_t *values, size_t n);
int wrk_numbers_scan(struct wrk_numbers *numbers, wrk_numbers_visit *visit, void *context);

/* values_p[i] = the number of rank ranks[i] (from 0, < n) when sorted as int64; n_ranks <= 32. */
int wrk_numbers_select(struct wrk_numbers *numbers, const uint64_t *ranks, int n_ranks,
                       int64_t *values_p);

/* The number of distinct values, exactly, in memory_bytes and as many passes as that takes. */
int wrk_numbers_count_distinct(struct wrk_numbers *numbers, uint64_t memory_bytes,
                               uint64_t *n_distinct_p);

#endif

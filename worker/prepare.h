/* From logs to a data set, in bounded memory (DATA.md).
 *
 *     log files --rows--> events --(join attributes)--> by user (worker/spill.h) --> timelines -->
 *     data set                            '-> by item: what the item had before (worker/counts.h),
 *                                             where the schema has such columns -> by user
 *
 * The same logs, schema and options give the same bytes. Threads: one call, one thread.
 */
#ifndef WORKER_PREPARE_H
#define WORKER_PREPARE_H

#include "worker/dataset.h"
#include "worker/schema.h"

#include <stdint.h>

struct wrk_prepare_options {
    const struct wrk_schema *schema;
    char *const *logs; /* [n_logs] paths, "-" for standard input */
    int n_logs;
    const char *dir;
    /* attribute files; "" or NULL: none (a schema that reads them is then refused only for the
     * user's; for items all values are unknown, and it is said so) */
    const char *user_attributes, *item_attributes;
    uint64_t max_bad;        /* bad lines put up with */
    int64_t label_window_ms; /* 0: no bound */
    double split;            /* 0.9 */
    uint64_t memory_bytes;   /* at least WRK_MIN_MEMORY_BYTES */
};

#define WRK_MIN_MEMORY_BYTES ((uint64_t)32 << 20)

struct wrk_prepare_report {
    struct wrk_dataset_info info;
    uint64_t n_bad;       /* lines left out because they were bad */
    uint64_t n_outside;   /* left out because the schema says so for their time */
    uint64_t n_unjoined;  /* events whose item or user is not in its attribute file */
    uint64_t text_bytes;  /* read, after decompression */
    uint64_t spill_bytes; /* that went through temporary files */
    double seconds;
};

/* Errors: DATA with file, line, column and what was expected; NOT_FOUND and I/O codes; EXISTS when
 * the folder holds something else. A failed run leaves nothing behind. */
int wrk_prepare(const struct wrk_prepare_options *options, struct wrk_prepare_report *report_p);

#endif

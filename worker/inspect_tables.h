/* What a snapshot's rows say of its tables: how many, how large, how long ago they were pushed.
 * Walks every row once. Threads: any. */
#ifndef WORKER_INSPECT_TABLES_H
#define WORKER_INSPECT_TABLES_H

#include "worker/export_manifest.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

enum { WRK_AGE_CLASSES = 33 }; /* class 0: age 0; class i: ages from 2^(i-1) to 2^i - 1 */

struct wrk_table_figures {
    uint64_t n_rows, row_bytes; /* bytes of all rows: key, count, last step, embedding, state */
    uint64_t n_updates;
    uint64_t least_age, most_age; /* steps from a row's last push to the snapshot */
    uint64_t by_age[WRK_AGE_CLASSES];
};

/* figures [manifest->n_tables]: of each table of the snapshot in folder, taken at step. */
int wrk_inspect_tables(const char *folder, const struct wrk_manifest *manifest, uint64_t step,
                       struct wrk_table_figures *figures);

/* The age that at least half of the rows do not exceed, to a power of two: an upper bound. */
uint64_t wrk_median_age(const struct wrk_table_figures *figures);

void wrk_print_table_figures(const struct wrk_table_figures *figures, const char *name, int dim,
                             FILE *stream);
json_t *wrk_table_figures_json(const struct wrk_table_figures *figures); /* NULL: no memory */

#endif

/* Evaluation of an exported model, by one process and no server: what `sluice eval` prints. */
#ifndef WORKER_EVALUATE_EXPORT_H
#define WORKER_EVALUATE_EXPORT_H

#include <stdbool.h>
#include <stdio.h>

/* Reads the test split of a data set with an export and prints the figures: a table, or one JSON
 * object. Errors: as wrk_score. */
int wrk_evaluate_export(const char *export_dir, const char *data_dir, const char *read, bool json,
                        FILE *stream);

#endif

/* Evaluation of an exported model, by one process and no server: what `sluice eval` prints, with
 * the plain references (worker/references.h) beside the model where asked for. */
#ifndef WORKER_EVALUATE_EXPORT_H
#define WORKER_EVALUATE_EXPORT_H

#include "worker/dataset.h"

#include <stdbool.h>
#include <stdio.h>

struct wrk_evaluate_export_options {
    const char *export_dir, *data_dir;
    const char *read;     /* "greedy", "exact", or "both" */
    enum wrk_split split; /* TEST, or VALID with valid_percent */
    int valid_percent;
    bool references; /* measure them too, on the same samples */
    bool json;       /* one JSON object a line instead of tables */
};

/* Reads a split of a data set with an export and prints the figures. Errors: as wrk_score. */
int wrk_evaluate_export(const struct wrk_evaluate_export_options *options, FILE *stream);

#endif

/* The report of a whole run: what training measured, what the export says when a fresh process
 * reads it, and where everything lies.
 *
 *     OUT/run/eval.jsonl      the workers' last evaluation, beside the best possible
 *     OUT/run/metrics.jsonl   loss and rates of every interval
 *     OUT/scores.jsonl        every test sample, scored from the export: AUC and MAE again
 *                             --> a table for a person, OUT/report.json for a program
 *
 * Threads: one caller. Cost: one pass over the scores, 13 bytes a sample and action in memory. */
#ifndef WORKER_REPORT_H
#define WORKER_REPORT_H

#include <stdio.h>

struct wrk_report_options {
    const char *out;                     /* the run's folder */
    const char *data;                    /* the data set's folder, only named in the report */
    double build_seconds, total_seconds; /* what the caller measured; negative: not told */
};

/* Prints the report and writes OUT/report.json atomically: every figure printed is in it. Errors:
 * NOT_FOUND (a file of the run is missing), DATA (a line that is not as score or train write it,
 * with file and line), NO_MEMORY and I/O codes. */
int wrk_report(const struct wrk_report_options *options, FILE *stream);

#endif

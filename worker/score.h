/* Scoring: every test sample of a data set, read by an exported model, one line of JSON each.
 *
 *     {"user": "u17", "item": "v4", "time": 1456099200, "p": {"like": 0.03}, "t": {"like": 0.41},
 *      "sequence": [["start", 0.0], ["like", 0.4]], "label": [["start", 0.0], ["leave", 0.7]]}
 *
 * Lines stand in the order of (time, user key, item key). "p" and "t" hold every action but start;
 * label is the pair's whole sequence. Rows come from the export alone; an id it has never seen has
 * its initial row. The reader walks users, so lines are first written as they come and put in order
 * at the end: memory grows by 40 bytes a sample. Threads: one caller.
 */
#ifndef WORKER_SCORE_H
#define WORKER_SCORE_H

#include <stdint.h>

struct wrk_score_options {
    const char *export_dir;
    const char *data_dir;
    const char *read; /* "greedy" or "exact"; NULL: as the export says */
    const char *out_path;
};

struct wrk_score_result {
    uint64_t n_samples;
    double seconds;
};

/* Scores the test split and writes out_path whole and atomically. Errors: CLU_E_CONFIG when the
 * data set's columns are not the export's, CLU_E_CORRUPT, CLU_E_NOT_FOUND, CLU_E_IO, CLU_E_FULL. */
int wrk_score(const struct wrk_score_options *options, struct wrk_score_result *result_p);

#endif

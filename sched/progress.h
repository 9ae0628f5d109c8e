/* How a job shows that it goes on: a bar on a terminal, a line per report otherwise.
 *
 *     [############........]  480/800  loss 1.3072  5.3k samples/s  eta 0:42
 *
 * Threads: one owner.
 */
#ifndef SCHED_PROGRESS_H
#define SCHED_PROGRESS_H

#include "cluster/metrics.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct schd_progress {
    bool terminal, shown;
    int64_t first_ms; /* of the first report: the rate behind the estimate */
    uint64_t first_step;
};

/* Decides by what stderr is. */
void schd_progress_init(struct schd_progress *progress);

/* The text of a report, with the bar when width > 0. */
void schd_progress_format(const struct schd_progress *progress, int64_t now_ms, uint64_t step,
                          uint64_t n_steps, const struct clu_figures *figures, int bar_width,
                          char *out, size_t out_bytes);

/* Shows a report. */
void schd_progress_show(struct schd_progress *progress, int64_t now_ms, uint64_t step,
                        uint64_t n_steps, const struct clu_figures *figures);

/* Clears the bar, so that a line may be written; the next report shows it again. */
void schd_progress_clear(struct schd_progress *progress);

#endif

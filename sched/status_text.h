/* What `sluice status` shows of the scheduler's answer (scheduler_report.c) to a person: how far
 * the job is and how long it has to go, loss, rates, waits, snapshots, a change of shape, a line a
 * member, and the last events. Figures are in words and units and only those that say something;
 * all of them, under the names of metrics.jsonl, are in the JSON itself.
 *
 *     running, step 480 of 800 (60 %), about 12 min to go, life 1
 *     loss     1.307 (classes 1.25, times 0.057, order 2e-05), epoch 3
 *     rate     5321 samples/s, 0.024 s a step, the longest 0.041 s
 *     waits    0.1 % for rows, 0.0 % for data; staleness 0.9
 *     snapshot step 400 is whole; 1200 rows, 1.4 MiB, 0.2 s
 *     role    rank  state    heard ago      pid  host
 *     ps         0  serves       120 ms    12345  node-1  rows 550 (467 in memory), memory ...
 *
 * Threads: any.
 */
#ifndef SCHED_STATUS_TEXT_H
#define SCHED_STATUS_TEXT_H

#include <jansson.h>
#include <stdio.h>

void schd_status_print(json_t *status, FILE *out);

#endif

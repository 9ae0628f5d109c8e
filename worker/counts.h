/* What came before, as numbers: how often each action was taken, for F_u and F_x.
 *
 * MODEL.md's model sees an item as an id, which says nothing while it is new, and the user's
 * past as a mean, which hides how long it is. Two options give it the counts. They enter alike,
 * in a form whose weighted sums are log-odds of smoothed rates; of n, k with the action:
 *
 *     number    log1p(n) / 2                        0 for none, 3.5 for a thousand
 *     rate      (log((k + 1/4) / (n + 5)) + 3) / 2  0.002 for none, about 1.4 for always
 *     age       log1p(seconds / 60) / 10            0.95 for nine days
 *
 *     history_counts (job)      F_u ends with 2 M numbers: number of the history's items, rates of
 *                               actions 2..M over them, the same rates over the latest 10 of them,
 *                               age of the latest one (0 where there is none)
 *     --item-counts (prepare)   M + 1 numeric columns end the item's: its age at the pair's first
 *                               event, number of its events of an earlier second, and rates of
 *                               actions 2..M over them
 *
 * An item's numbers are those of the second in which the pair began: nothing later is in them, nor
 * anything of the user's own. Threads: any, on distinct objects.
 */
#ifndef WORKER_COUNTS_H
#define WORKER_COUNTS_H

#include "worker/schema.h"

#include <stddef.h>
#include <stdint.h>

double wrk_count_number(uint64_t n);
double wrk_count_rate(uint64_t k, uint64_t n);
double wrk_count_age(double seconds);

/* Numbers that history_counts adds to F_u, and the number of latest items that count as recent. */
#define WRK_N_HISTORY_COUNTS(n_actions) (2 * (n_actions))
enum { WRK_N_RECENT = 10 };

/* Adds the columns item_age, item_events, item_<action 2..M> to a schema. Errors: CONFIG when a
 * name is taken or the columns are too many. */
int wrk_counts_add_columns(struct wrk_schema *schema);

/* The place of the first of them among the item features, or -1 when the schema has none. */
int wrk_counts_first(const struct wrk_schema *schema);

/* One item's events so far. */
struct wrk_counts {
    int n_actions;                               /* M */
    int64_t first_ms, second;                    /* of its first event; of its latest */
    uint64_t n, of[WRK_MAX_ACTIONS + 1];         /* before that second */
    uint64_t n_now, of_now[WRK_MAX_ACTIONS + 1]; /* up to the latest event */
};

void wrk_counts_begin(struct wrk_counts *counts, int n_actions);

/* Takes the item's next event, in order of time, and writes what was before its second:
 * values_p [M + 1], as feature values. */
void wrk_counts_next(struct wrk_counts *counts, int64_t time_ms, int action, uint64_t *values_p);

#endif

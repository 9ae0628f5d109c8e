/* Plain references: how well an action can be ranked by counting alone. A model that does not beat
 * the best of them on an action has learned nothing there that a table of counts does not know.
 *
 *     user      the user's past rate of the action over the training part
 *     item      the item's
 *     product   user x item
 *     history   the rate over the history that the model sees of the sample (at most H pairs, with
 *     only the
 *               actions known then)
 *
 * Each rate is smoothed by 5 pseudo-counts of the mean rate of the training part. Cost: one pass
 * over the training part and one over the split; memory by the number of users and items, 4 M bytes
 * each. Threads: any.
 */
#ifndef WORKER_REFERENCES_H
#define WORKER_REFERENCES_H

#include "worker/dataset.h"

#include <stdint.h>

enum wrk_reference {
    WRK_REFERENCE_USER,
    WRK_REFERENCE_ITEM,
    WRK_REFERENCE_PRODUCT,
    WRK_REFERENCE_HISTORY,
    WRK_N_REFERENCES,
};

struct wrk_references {
    int n_actions; /* M */
    uint64_t n_samples;
    uint64_t n_positives[WRK_MAX_ACTIONS + 1];         /* of the split */
    double rate[WRK_MAX_ACTIONS + 1];                  /* mean rate over the training part */
    double auc[WRK_N_REFERENCES][WRK_MAX_ACTIONS + 1]; /* NaN where the split has one class only */
};

/* "user", "item", "product", "history". */
const char *wrk_reference_name(enum wrk_reference reference);

/* Measures all four on a split (TEST or VALID; rates come from what TRAIN means for valid_percent).
 * history is the model's H. Errors: those of the reader; NO_MEMORY. */
int wrk_references_measure(const struct wrk_dataset *dataset, enum wrk_split split,
                           int valid_percent, int history, struct wrk_references *references_p);

#endif

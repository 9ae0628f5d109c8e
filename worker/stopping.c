/* Ties are not better: of two equal epochs the earlier one is kept, which learned the same in less.
 */
#include "worker/stopping.h"

#include <math.h>

double wrk_stopping_loss(const struct wrk_evaluation *evaluation)
{
    double loss = 0;
    for (int a = 0; a < evaluation->n_actions; a++)
        loss += evaluation->action[a].log_loss;
    return evaluation->n_samples ? loss : NAN;
}

bool wrk_stopping_judge(struct wrk_stopping *stopping, uint64_t step, double loss)
{
    stopping->judged = step;
    bool better = isfinite(loss) && (!stopping->best_step || loss < stopping->best_loss);
    if (better) {
        stopping->best_step = step;
        stopping->best_loss = loss;
        stopping->n_not_better = 0;
    } else {
        stopping->n_not_better++;
    }
    return better;
}

bool wrk_stopping_is_enough(const struct wrk_stopping *stopping)
{
    return stopping->patience > 0 && stopping->n_not_better >= stopping->patience;
}

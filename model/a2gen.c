/* The training step: checks, then the fast path on the best level the machine runs, or the
 * reference for a width that does not fill vectors.
 */
#include "model/a2gen.h"

#include "cluster/status.h"
#include "model/level.h"
#include "model/reference.h"

size_t mdl_a2gen_workspace_bytes(const struct mdl_config *config, const struct mdl_batch *batch)
{
    if (!mdl_fast_takes(config))
        return mdl_reference_workspace_bytes(config, batch);
    struct mdl_arena arena = {0};
    struct mdl_fast fast;
    mdl_fast_take(&fast, &arena, config, batch);
    return arena.used;
}

int mdl_a2gen_step(const struct mdl_config *config, const mdl_real *params,
                   const struct mdl_batch *batch, void *workspace, struct mdl_losses *losses_p,
                   struct mdl_grads *grads)
{
    if (!mdl_fast_takes(config))
        return mdl_reference_step(config, params, batch, workspace, losses_p, grads);
    int status = mdl_config_check(config);
    if (status == CLU_OK)
        status = mdl_batch_check(config, batch, 1);
    if (status != CLU_OK)
        return status;
    struct mdl_arena arena = {.base = workspace};
    struct mdl_fast fast;
    mdl_fast_take(&fast, &arena, config, batch);
    mdl_level_best()->step(&fast, params, losses_p, grads);
    return CLU_OK;
}

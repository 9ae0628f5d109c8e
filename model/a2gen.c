/* The training step. */
#include "model/a2gen.h"

#include "model/reference.h"

size_t mdl_a2gen_workspace_bytes(const struct mdl_config *config, const struct mdl_batch *batch)
{
    return mdl_reference_workspace_bytes(config, batch);
}

int mdl_a2gen_step(const struct mdl_config *config, const mdl_real *params,
                   const struct mdl_batch *batch, void *workspace, struct mdl_losses *losses_p,
                   struct mdl_grads *grads)
{
    return mdl_reference_step(config, params, batch, workspace, losses_p, grads);
}

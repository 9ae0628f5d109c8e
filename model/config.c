/* Checking a configuration once, so that nothing below has to. */
#include "model/config.h"

#include "cluster/log.h"
#include "cluster/status.h"

static int in_range(const char *name, int value, int min, int max)
{
    if (value >= min && value <= max)
        return CLU_OK;
    return clu_fail(CLU_E_CONFIG, "model: %s is %d, expected %d to %d", name, value, min, max);
}

int mdl_config_check(const struct mdl_config *config)
{
    int status = in_range("number of actions", config->n_actions, 2, MDL_MAX_ACTIONS);
    if (status == CLU_OK)
        status = in_range("history", config->history, 1, MDL_MAX_HISTORY);
    if (status == CLU_OK)
        status = in_range("width", config->width, 1, MDL_MAX_WIDTH);
    if (status == CLU_OK)
        status = in_range("heads", config->heads, 1, MDL_MAX_HEADS);
    if (status == CLU_OK)
        status = in_range("user_dim", config->user_dim, 1, 1 << 20);
    if (status == CLU_OK)
        status = in_range("item_dim", config->item_dim, 1, 1 << 20);
    if (status == CLU_OK)
        status = in_range("threads", config->threads, 0, MDL_MAX_THREADS);
    if (status == CLU_OK && config->width % config->heads != 0)
        status = clu_fail(CLU_E_CONFIG, "model: width %d is not a multiple of heads %d",
                          config->width, config->heads);
    return status;
}

/* Reading: checks, then the fast path, or the reference for a width that does not fill vectors. */
#include "model/read.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "model/level.h"
#include "model/reference.h"

#include <string.h>

int mdl_read_mode_of(const char *name, enum mdl_read_mode *mode_p)
{
    if (strcmp(name, "greedy") == 0)
        *mode_p = MDL_READ_GREEDY;
    else if (strcmp(name, "exact") == 0)
        *mode_p = MDL_READ_EXACT;
    else
        return clu_fail(CLU_E_CONFIG, "read is '%s', expected greedy or exact", name);
    return CLU_OK;
}

size_t mdl_read_workspace_bytes(const struct mdl_config *config, const struct mdl_batch *batch,
                                enum mdl_read_mode mode)
{
    if (!mdl_fast_takes(config))
        return mdl_reference_read_workspace_bytes(config, batch, mode);
    struct mdl_arena arena = {0};
    struct mdl_fast_reading reading;
    mdl_fast_reading_take(&reading, &arena, config, batch, mode);
    return arena.used;
}

int mdl_a2gen_read(const struct mdl_config *config, const mdl_real *params,
                   const struct mdl_batch *batch, enum mdl_read_mode mode, void *workspace,
                   struct mdl_reading *reading_p)
{
    if (!mdl_fast_takes(config))
        return mdl_reference_read(config, params, batch, mode, workspace, reading_p);
    int status = mdl_config_check(config);
    if (status == CLU_OK)
        status = mdl_batch_check(config, batch, 0);
    if (status != CLU_OK)
        return status;
    struct mdl_arena arena = {.base = workspace};
    struct mdl_fast_reading reading;
    mdl_fast_reading_take(&reading, &arena, config, batch, mode);
    reading.out = reading_p;
    mdl_level_best()->read(&reading, params);
    return CLU_OK;
}

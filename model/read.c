/* Reading by name and by mode. */
#include "model/read.h"

#include "cluster/log.h"
#include "cluster/status.h"
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
    return mdl_reference_read_workspace_bytes(config, batch, mode);
}

int mdl_a2gen_read(const struct mdl_config *config, const mdl_real *params,
                   const struct mdl_batch *batch, enum mdl_read_mode mode, void *workspace,
                   struct mdl_reading *reading_p)
{
    return mdl_reference_read(config, params, batch, mode, workspace, reading_p);
}

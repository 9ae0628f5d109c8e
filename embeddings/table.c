/* Specs: defaults, checks, and the names of storage types. The names and sizes of optimisers stand
 * in the one registry of optimizer.c, so that adding an optimiser is one row there and one number
 * in table.h. */
#include "embeddings/table.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"

#include <math.h>
#include <string.h>

static const char *const dtype_names[EMB_N_DTYPES] = {[EMB_FP32] = "fp32", [EMB_BF16] = "bf16"};

void emb_table_spec_init(struct emb_table_spec *spec)
{
    memset(spec, 0, sizeof(*spec));
    spec->optimizer = EMB_ADAM;
    spec->learning_rate = 1e-3;
    spec->beta1 = 0.9;
    spec->beta2 = 0.999;
    spec->epsilon = 1e-8;
    spec->init_range = 0.05;
    spec->dtype = EMB_FP32;
}

int emb_table_spec_check(const struct emb_table_spec *spec)
{
    if (!memchr(spec->name, 0, sizeof(spec->name)) || spec->name[0] == 0)
        return clu_fail(CLU_E_CONFIG, "a table needs a name of 1 to %d bytes", EMB_NAME_BYTES - 1);
    if (spec->dim < 1 || spec->dim > EMB_MAX_DIM)
        return clu_fail(CLU_E_CONFIG, "table %s: dim is %d, expected 1..%d", spec->name, spec->dim,
                        EMB_MAX_DIM);
    if ((unsigned)spec->optimizer >= EMB_N_OPTIMIZERS || (unsigned)spec->dtype >= EMB_N_DTYPES)
        return clu_fail(CLU_E_CONFIG, "table %s: unknown optimizer %d or dtype %d", spec->name,
                        (int)spec->optimizer, (int)spec->dtype);
    if (!(spec->learning_rate > 0) || !isfinite(spec->learning_rate))
        return clu_fail(CLU_E_CONFIG, "table %s: learning_rate is %g, expected more than 0",
                        spec->name, spec->learning_rate);
    if (!(spec->beta1 >= 0) || !(spec->beta2 >= 0) || !(spec->epsilon >= 0) || !(spec->l1 >= 0) ||
        !(spec->l2 >= 0) || !(spec->init_range >= 0))
        return clu_fail(CLU_E_CONFIG,
                        "table %s: beta1, beta2, epsilon, l1, l2 and init_range cannot be negative",
                        spec->name);
    if (spec->optimizer == EMB_ADAM && (spec->beta1 >= 1 || spec->beta2 >= 1))
        return clu_fail(CLU_E_CONFIG, "table %s: beta1 and beta2 are %g and %g, expected below 1",
                        spec->name, spec->beta1, spec->beta2);
    if (spec->min_count < 0 || spec->min_count > 255)
        return clu_fail(CLU_E_CONFIG, "table %s: min_count is %lld, expected 0..255", spec->name,
                        (long long)spec->min_count);
    if (spec->expire_steps < 0)
        return clu_fail(CLU_E_CONFIG, "table %s: expire_steps is %lld, expected 0 or more",
                        spec->name, (long long)spec->expire_steps);
    return CLU_OK;
}

int emb_dtype_by_name(const char *name, enum emb_dtype *dtype_p)
{
    for (int i = 0; i < EMB_N_DTYPES; i++)
        if (strcmp(name, dtype_names[i]) == 0) {
            *dtype_p = (enum emb_dtype)i;
            return CLU_OK;
        }
    return clu_fail(CLU_E_CONFIG, "unknown row dtype '%s', expected fp32 or bf16", name);
}

const char *emb_dtype_name(enum emb_dtype dtype)
{
    return (unsigned)dtype < EMB_N_DTYPES ? dtype_names[dtype] : "unknown";
}

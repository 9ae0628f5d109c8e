/* The layout of F_u and F_x: columns in the data set's order, each table entered once, at its first
 * use. */
#include "worker/batch.h"

#include "cluster/log.h"
#include "cluster/settings.h"
#include "cluster/status.h"
#include "worker/counts.h"

#include <stdio.h>
#include <string.h>

static int spec_of(const struct clu_job *job, const char *name, int64_t dim,
                   struct emb_table_spec *spec)
{
    const struct clu_job_table *entry = clu_job_find_table(job, name);
    emb_table_spec_init(spec);
    snprintf(spec->name, sizeof(spec->name), "%s", name);
    spec->dim = (int)(entry && entry->dim > 0 ? entry->dim : dim);
    const char *optimizer = entry && entry->optimizer[0] ? entry->optimizer : job->sparse_optimizer;
    const char *dtype = entry && entry->dtype[0] ? entry->dtype : job->row_dtype;
    spec->learning_rate =
        entry && entry->learning_rate > 0 ? entry->learning_rate : job->sparse_learning_rate;
    spec->init_range = entry && entry->init_range > 0 ? entry->init_range : job->init_range;
    spec->min_count = entry && entry->min_count > 0 ? entry->min_count : job->min_count;
    spec->expire_steps = entry && entry->expire_steps > 0 ? entry->expire_steps : job->expire_steps;
    spec->seed = (uint64_t)job->seed;
    int status = emb_optimizer_by_name(optimizer, &spec->optimizer);
    if (status == CLU_OK)
        status = emb_dtype_by_name(dtype, &spec->dtype);
    return status == CLU_OK ? emb_table_spec_check(spec) : status;
}

static int find_table(const struct wrk_features *features, const char *name)
{
    for (int t = 0; t < features->n_tables; t++)
        if (strcmp(features->table[t].name, name) == 0)
            return t;
    return -1;
}

static int add_column(struct wrk_features *features, const struct clu_job *job,
                      const struct wrk_column *column, struct wrk_slot *slot, int *dim_p)
{
    *slot = (struct wrk_slot){-1, *dim_p, 1};
    if (column->kind == WRK_COLUMN_SPARSE) {
        slot->table = find_table(features, column->table);
        if (slot->table < 0) {
            if (features->n_tables == CLU_MAX_TABLES)
                return clu_fail(CLU_E_CONFIG, "more than %d tables", CLU_MAX_TABLES);
            int64_t dim = strcmp(column->table, "user") == 0   ? job->user_dim
                          : strcmp(column->table, "item") == 0 ? job->item_dim
                                                               : job->feature_dim;
            slot->table = features->n_tables++;
            int status = spec_of(job, column->table, dim, &features->table[slot->table]);
            if (status != CLU_OK)
                return status;
        }
        slot->dim = features->table[slot->table].dim;
    }
    *dim_p += slot->dim;
    return CLU_OK;
}

/* a table entry of the job that no column reads is a typing error */
static int check_entries(const struct wrk_features *features, const struct clu_job *job)
{
    for (int64_t i = 0; i < job->n_tables; i++) {
        if (find_table(features, job->tables[i].name) >= 0)
            continue;
        char known[512] = "";
        for (int t = 0; t < features->n_tables; t++)
            if (strlen(known) + strlen(features->table[t].name) + 3 < sizeof(known))
                strcat(strcat(known, t ? ", " : ""), features->table[t].name);
        return clu_fail(CLU_E_CONFIG,
                        "the job has an entry for table '%s', which no column of the data set "
                        "reads; its tables: %s",
                        job->tables[i].name, known);
    }
    return CLU_OK;
}

int wrk_features_init(struct wrk_features *features, const struct wrk_dataset_info *info,
                      const struct clu_job *job)
{
    memset(features, 0, sizeof(*features));
    features->n_actions = info->n_actions;
    features->n_user_columns = info->n_user_columns;
    features->n_item_columns = info->n_item_columns;
    memcpy(features->user_column, info->user_column, sizeof(features->user_column));
    memcpy(features->item_column, info->item_column, sizeof(features->item_column));
    int status = CLU_OK;
    for (int c = 0; c < info->n_user_columns && status == CLU_OK; c++)
        status = add_column(features, job, &info->user_column[c], &features->user_slot[c],
                            &features->user_dim);
    for (int c = 0; c < info->n_item_columns && status == CLU_OK; c++)
        status = add_column(features, job, &info->item_column[c], &features->item_slot[c],
                            &features->item_dim);
    if (job->history_counts) {
        features->n_counts = WRK_N_HISTORY_COUNTS(info->n_actions);
        features->user_dim += features->n_counts;
    }
    return status == CLU_OK ? check_entries(features, job) : status;
}

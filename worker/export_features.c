/* A description is made from the features, and features again from the description, through the
 * same function that laid them out for training (wrk_features_init): the layout has one author.
 * What it is fed here is a job file that names every table with the dim, seed and range of the
 * description; what comes out is compared column by column, so a data set with other columns is
 * refused by name.
 */
#include "worker/export_features.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/export.h"

#include <stdio.h>
#include <string.h>

int wrk_model_config(const struct clu_job *job, const struct wrk_dataset_info *info,
                     const struct wrk_features *features, struct mdl_config *config_p)
{
    struct mdl_config config = {
        .n_actions = info->n_actions,
        .history = (int)job->history,
        .width = (int)job->width,
        .heads = (int)job->heads,
        .user_dim = features->user_dim,
        .item_dim = features->item_dim,
        .alpha = (float)job->alpha,
        .beta = (float)job->beta,
        .gamma = (float)job->gamma,
        .threads = (int)job->threads,
    };
    int status = mdl_config_check(&config);
    if (!status)
        *config_p = config;
    return status;
}

/* names are bounded by their readers; a longer one is cut, and then compared and refused */
static void copy_text(char *out, size_t out_bytes, const char *text)
{
    size_t n = strnlen(text, out_bytes - 1);
    memcpy(out, text, n);
    out[n] = 0;
}

static void describe_columns(const struct wrk_column *columns, const struct wrk_slot *slots, int n,
                             struct wrk_manifest_column *out)
{
    for (int i = 0; i < n; i++) {
        memset(&out[i], 0, sizeof(out[i]));
        copy_text(out[i].name, sizeof(out[i].name), columns[i].name);
        if (columns[i].kind == WRK_COLUMN_SPARSE)
            copy_text(out[i].table, sizeof(out[i].table), columns[i].table);
        out[i].dim = slots[i].dim;
        out[i].offset = slots[i].offset;
    }
}

int wrk_manifest_describe(const struct clu_job *job, const struct wrk_dataset *dataset,
                          const struct wrk_features *features, struct wrk_manifest *manifest_p)
{
    const struct wrk_dataset_info *info = wrk_dataset_info(dataset);
    struct wrk_manifest manifest;
    memset(&manifest, 0, sizeof(manifest));
    int status = wrk_model_config(job, info, features, &manifest.config);
    if (status)
        return status;
    copy_text(manifest.model, sizeof(manifest.model), job->model);
    copy_text(manifest.read, sizeof(manifest.read), job->read);
    manifest.n_actions = info->n_actions;
    for (int a = 0; a < info->n_actions; a++)
        copy_text(manifest.action[a], sizeof(manifest.action[a]), info->action[a + 1]);
    manifest.n_counts = features->n_counts;
    manifest.n_user_columns = features->n_user_columns;
    manifest.n_item_columns = features->n_item_columns;
    describe_columns(features->user_column, features->user_slot, features->n_user_columns,
                     manifest.user_column);
    describe_columns(features->item_column, features->item_slot, features->n_item_columns,
                     manifest.item_column);
    manifest.n_tables = features->n_tables;
    for (int t = 0; t < features->n_tables; t++) {
        const struct emb_table_spec *spec = &features->table[t];
        copy_text(manifest.table[t].name, sizeof(manifest.table[t].name), spec->name);
        manifest.table[t].dim = spec->dim;
        manifest.table[t].seed = spec->seed;
        manifest.table[t].init_range = spec->init_range;
    }
    json_error_t error;
    manifest.data = json_loads(wrk_dataset_schema_json(dataset), 0, &error);
    if (!manifest.data)
        return clu_fail(CLU_E_CORRUPT, "%s: its schema is no JSON: %s", wrk_dataset_dir(dataset),
                        error.text);
    *manifest_p = manifest;
    return CLU_OK;
}

/* a job file that asks for exactly the tables of the description */
static void job_of(const struct wrk_manifest *manifest, struct clu_job *job_p)
{
    memset(job_p, 0, sizeof(*job_p));
    clu_settings_defaults(clu_job_settings(job_p));
    job_p->n_tables = manifest->n_tables;
    job_p->history_counts = manifest->n_counts > 0;
    for (int t = 0; t < manifest->n_tables; t++) {
        copy_text(job_p->tables[t].name, sizeof(job_p->tables[t].name), manifest->table[t].name);
        job_p->tables[t].dim = manifest->table[t].dim;
        job_p->tables[t].init_range = manifest->table[t].init_range;
        job_p->seed = (int64_t)manifest->table[t].seed;
    }
}

static int compare_columns(const char *whose, const char *dir, const struct wrk_column *columns,
                           const struct wrk_slot *slots, int n,
                           const struct wrk_manifest_column *expected, int n_expected)
{
    if (n != n_expected)
        return clu_fail(CLU_E_CONFIG, "%s has %d %s columns, the model was trained with %d", dir, n,
                        whose, n_expected);
    for (int i = 0; i < n; i++) {
        const char *table = columns[i].kind == WRK_COLUMN_SPARSE ? columns[i].table : "";
        if (strcmp(columns[i].name, expected[i].name) != 0 ||
            strcmp(table, expected[i].table) != 0 || slots[i].dim != expected[i].dim ||
            slots[i].offset != expected[i].offset)
            return clu_fail(CLU_E_CONFIG,
                            "%s: %s column %d is '%s' of table '%s', the model was "
                            "trained with '%s' of table '%s'",
                            dir, whose, i + 1, columns[i].name, table, expected[i].name,
                            expected[i].table);
    }
    return CLU_OK;
}

int wrk_manifest_features(const struct wrk_manifest *manifest, const struct wrk_dataset *dataset,
                          struct wrk_features *features_p)
{
    const struct wrk_dataset_info *info = wrk_dataset_info(dataset);
    const char *dir = wrk_dataset_dir(dataset);
    if (info->n_actions != manifest->n_actions)
        return clu_fail(CLU_E_CONFIG, "%s has %d actions, the model was trained with %d", dir,
                        info->n_actions, manifest->n_actions);
    for (int a = 0; a < info->n_actions; a++)
        if (strcmp(info->action[a + 1], manifest->action[a]) != 0)
            return clu_fail(CLU_E_CONFIG, "%s: action %d is '%s', the model was trained with '%s'",
                            dir, a + 1, info->action[a + 1], manifest->action[a]);
    struct clu_job job;
    job_of(manifest, &job);
    int status = wrk_features_init(features_p, info, &job);
    if (!status)
        status = compare_columns("user", dir, features_p->user_column, features_p->user_slot,
                                 features_p->n_user_columns, manifest->user_column,
                                 manifest->n_user_columns);
    if (!status)
        status = compare_columns("item", dir, features_p->item_column, features_p->item_slot,
                                 features_p->n_item_columns, manifest->item_column,
                                 manifest->n_item_columns);
    for (int t = 0; t < manifest->n_tables && !status; t++)
        if (t >= features_p->n_tables ||
            strcmp(features_p->table[t].name, manifest->table[t].name) != 0)
            status = clu_fail(CLU_E_CONFIG, "%s: its tables are not those of the model", dir);
    return status;
}

int wrk_export_fetch(void *export, const struct psv_part *parts, int n_parts)
{
    for (int i = 0; i < n_parts; i++) {
        int status =
            wrk_export_rows(export, parts[i].table, parts[i].keys, parts[i].n, parts[i].rows);
        if (status)
            return status;
    }
    return CLU_OK;
}

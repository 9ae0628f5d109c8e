/* The same evaluation as in training; rows come from the export's LMDB, and there is one rank.
 *
 * The references are measured on the very samples that the model is, by the same AUC, so that
 * "beats" means the same thing in every place.
 */
#include "worker/evaluate_export.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "model/a2gen.h"
#include "worker/evaluate.h"
#include "worker/export.h"
#include "worker/export_features.h"
#include "worker/references.h"

#include <math.h>
#include <string.h>

enum { BATCH = 256 };

static int print_json(json_t *object, FILE *stream)
{
    int failed = !object || json_dumpf(object, stream, JSON_COMPACT | JSON_REAL_PRECISION(9)) ||
                 fputc('\n', stream) == EOF;
    json_decref(object);
    return failed ? clu_fail(CLU_E_IO, "the figures cannot be written") : CLU_OK;
}

static json_t *references_json(const struct wrk_references *references,
                               const struct wrk_dataset_info *info)
{
    json_t *actions = json_object();
    for (int a = 2; actions && a <= references->n_actions; a++) {
        json_t *action = json_object();
        for (int r = 0; action && r < WRK_N_REFERENCES; r++) {
            double auc = references->auc[r][a];
            json_object_set_new(action, wrk_reference_name((enum wrk_reference)r),
                                isfinite(auc) ? json_real(auc) : json_null());
        }
        json_object_set_new(actions, info->action[a], action);
    }
    return json_pack("{s:s, s:I, s:o}", "read", "references", "samples",
                     (json_int_t)references->n_samples, "auc", actions);
}

static void print_references(const struct wrk_references *references,
                             const struct wrk_dataset_info *info, FILE *stream)
{
    fprintf(stream, "plain references, auc\n%-12s", "action");
    for (int r = 0; r < WRK_N_REFERENCES; r++)
        fprintf(stream, " %8s", wrk_reference_name((enum wrk_reference)r));
    fputc('\n', stream);
    for (int a = 2; a <= references->n_actions; a++) {
        fprintf(stream, "%-12s", info->action[a]);
        for (int r = 0; r < WRK_N_REFERENCES; r++)
            if (isfinite(references->auc[r][a]))
                fprintf(stream, " %8.4f", references->auc[r][a]);
            else
                fprintf(stream, " %8s", "-");
        fputc('\n', stream);
    }
}

static int measure_references(const struct wrk_evaluate_export_options *options,
                              const struct wrk_dataset *dataset, int history, FILE *stream)
{
    struct wrk_references references;
    int status = wrk_references_measure(dataset, options->split, options->valid_percent, history,
                                        &references);
    if (status)
        return status;
    const struct wrk_dataset_info *info = wrk_dataset_info(dataset);
    if (options->json)
        return print_json(references_json(&references, info), stream);
    print_references(&references, info, stream);
    return CLU_OK;
}

static int evaluate(const struct wrk_evaluate_export_options *options, struct wrk_export *export,
                    struct wrk_dataset *dataset, const struct wrk_features *features, FILE *stream)
{
    static const char *const reads[] = {"greedy", "exact"};
    const struct wrk_manifest *manifest = wrk_export_manifest(export);
    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        if (strcmp(options->read, "both") != 0 && strcmp(options->read, reads[i]) != 0)
            continue;
        struct wrk_evaluate_options evaluate_options = {
            .dataset = dataset,
            .features = features,
            .config = &manifest->config,
            .params = wrk_export_params(export),
            .rows = {wrk_export_fetch, export},
            .split = options->split,
            .valid_percent = options->valid_percent,
            .read = reads[i],
            .batch = BATCH,
            .step = manifest->step,
        };
        struct wrk_evaluation evaluation;
        int status = wrk_evaluate(&evaluate_options, &evaluation);
        if (!status && options->json)
            status = print_json(wrk_evaluation_json(&evaluation), stream);
        else if (!status)
            wrk_evaluation_print(&evaluation, stream);
        if (status)
            return status;
    }
    return CLU_OK;
}

int wrk_evaluate_export(const struct wrk_evaluate_export_options *options, FILE *stream)
{
    struct wrk_export *export = NULL;
    struct wrk_dataset *dataset = NULL;
    struct wrk_features features;
    mdl_blas_single_thread();
    int status = wrk_export_open(options->export_dir, true, &export);
    if (!status)
        status = wrk_dataset_open(options->data_dir, &dataset);
    if (!status)
        status = wrk_manifest_features(wrk_export_manifest(export), dataset, &features);
    if (!status)
        status = evaluate(options, export, dataset, &features, stream);
    if (!status && options->references)
        status = measure_references(options, dataset, wrk_export_manifest(export)->config.history,
                                    stream);
    wrk_dataset_close(dataset);
    wrk_export_close(export);
    return status;
}

/* The same evaluation as in training; rows come from the export's LMDB, and there is one rank. */
#include "worker/evaluate_export.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "model/a2gen.h"
#include "worker/evaluate.h"
#include "worker/export.h"
#include "worker/export_features.h"

enum { BATCH = 256 };

static int print(const struct wrk_evaluation *evaluation, bool json, FILE *stream)
{
    if (!json) {
        wrk_evaluation_print(evaluation, stream);
        return CLU_OK;
    }
    json_t *object = wrk_evaluation_json(evaluation);
    int failed = !object || json_dumpf(object, stream, JSON_COMPACT | JSON_REAL_PRECISION(9)) ||
                 fputc('\n', stream) == EOF;
    json_decref(object);
    return failed ? clu_fail(CLU_E_IO, "the figures cannot be written") : CLU_OK;
}

int wrk_evaluate_export(const char *export_dir, const char *data_dir, const char *read, bool json,
                        FILE *stream)
{
    struct wrk_export *export = NULL;
    struct wrk_dataset *dataset = NULL;
    struct wrk_features features;
    mdl_blas_single_thread();
    int status = wrk_export_open(export_dir, true, &export);
    if (!status)
        status = wrk_dataset_open(data_dir, &dataset);
    if (!status)
        status = wrk_manifest_features(wrk_export_manifest(export), dataset, &features);
    struct wrk_evaluation evaluation;
    if (!status) {
        const struct wrk_manifest *manifest = wrk_export_manifest(export);
        struct wrk_evaluate_options options = {
            .dataset = dataset,
            .features = &features,
            .config = &manifest->config,
            .params = wrk_export_params(export),
            .rows = {wrk_export_fetch, export},
            .split = WRK_SPLIT_TEST,
            .read = read,
            .batch = BATCH,
            .step = manifest->step,
        };
        status = wrk_evaluate(&options, &evaluation);
    }
    if (!status)
        status = print(&evaluation, json, stream);
    wrk_dataset_close(dataset);
    wrk_export_close(export);
    return status;
}

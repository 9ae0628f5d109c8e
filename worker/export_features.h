/* Between a job and its export: the layout of features that a job trains with, described; and the
 * same layout made again from the description, for a data set that is to be scored.
 */
#ifndef WORKER_EXPORT_FEATURES_H
#define WORKER_EXPORT_FEATURES_H

#include "cluster/job.h"
#include "ps/client.h"
#include "worker/batch.h"
#include "worker/dataset.h"
#include "worker/export_manifest.h"

/* The model's sizes for a job on a data set. Errors: CLU_E_CONFIG. */
int wrk_model_config(const struct clu_job *job, const struct wrk_dataset_info *info,
                     const struct wrk_features *features, struct mdl_config *config_p);

/* Describes a job's model (step and counts 0). The caller ends it with wrk_manifest_fini. */
int wrk_manifest_describe(const struct clu_job *job, const struct wrk_dataset *dataset,
                          const struct wrk_features *features, struct wrk_manifest *manifest_p);

/* Lays the features of a data set out as the manifest says. Table t of the features is table t of
 * the manifest. Errors: CLU_E_CONFIG, with the first column or action in which they differ. */
int wrk_manifest_features(const struct wrk_manifest *manifest, const struct wrk_dataset *dataset,
                          struct wrk_features *features_p);

/* An export (context) as a row source of evaluate.h: the fetch function. */
int wrk_export_fetch(void *export, const struct psv_part *parts, int n_parts);

#endif

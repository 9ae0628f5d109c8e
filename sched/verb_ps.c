/* `sluice ps`: one parameter server, as `sluice train` starts it. Which tables it holds follows
 * from the data set's columns and the job file, as at the workers; the hello of each worker checks
 * that they agree.
 */
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "ps/server.h"
#include "sched/outside.h"
#include "sched/verb.h"
#include "worker/batch.h"
#include "worker/dataset.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct options {
    char job[CLU_PATH_BYTES];
    char sched[CLU_ENDPOINT_SIZE];
    int64_t rank;
};

static const struct clu_setting rows[] = {
    {"job", CLU_SETTING_TEXT, offsetof(struct options, job), CLU_PATH_BYTES, "job.yaml", 0, 0, NULL,
     "the effective job file"},
    {"rank", CLU_SETTING_INT, offsetof(struct options, rank), 0, "0", 0, 65535, NULL,
     "which server of the job this is"},
    {"sched", CLU_SETTING_TEXT, offsetof(struct options, sched), CLU_ENDPOINT_SIZE, "", 0, 0, NULL,
     "the scheduler's endpoint, tcp://host:port; default: read from the job's run folder"},
};

static int load_features(const struct clu_job *job, struct wrk_features *features)
{
    struct wrk_dataset *dataset;
    int status = wrk_dataset_open(job->data, &dataset);
    if (status)
        return status;
    status = wrk_features_init(features, wrk_dataset_info(dataset), job);
    wrk_dataset_close(dataset);
    return status;
}

static int find_sched(const struct clu_job *job, char endpoint[CLU_ENDPOINT_SIZE])
{
    char path[CLU_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/run/sched.endpoint", job->out);
    FILE *file = fopen(path, "r");
    int n = file ? fscanf(file, "%127s", endpoint) : 0;
    if (file)
        fclose(file);
    if (n != 1)
        return clu_fail(CLU_E_UNAVAILABLE, "no --sched, and %s does not name a scheduler", path);
    return 0;
}

static int serve(const struct clu_job *job, const struct options *options,
                 const struct wrk_features *features, struct schd_outside *outside)
{
    struct clu_security security;
    struct clu_transport *transport = NULL;
    char dir[CLU_PATH_BYTES + 48], sched[CLU_ENDPOINT_SIZE];
    snprintf(sched, sizeof(sched), "%s", options->sched);
    snprintf(dir, sizeof(dir), "%s/run/server-%lld", job->out, (long long)options->rank);
    int status = sched[0] ? 0 : find_sched(job, sched);
    bool keys = job->keys[0];
    if (!status && keys)
        status = clu_security_load(job->keys, "ps", &security);
    if (status)
        return status;
    struct clu_transport_options transport_options = {
        .security = keys ? &security : NULL,
        .insecure = job->insecure,
        .io_threads = job->shards > 4 ? 2 : 1,
    };
    status = clu_transport_create(&transport_options, &transport);
    struct psv_server_options server = {
        .job = job,
        .rank = (int)options->rank,
        .sched = sched,
        .tables = features->table,
        .n_tables = features->n_tables,
        .dir = dir,
        .transport = transport,
        .metrics = schd_outside_metrics(outside),
        .metrics_url = schd_outside_serve(outside, job, CLU_ROLE_PS, (int)options->rank),
    };
    if (!status)
        status = psv_server_run(&server);
    clu_transport_free(transport);
    if (keys)
        clu_security_fini(&security);
    return status;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    struct clu_job *job = calloc(1, sizeof(*job));
    struct wrk_features *features = calloc(1, sizeof(*features));
    struct schd_outside *outside = NULL;
    int status = job && features ? clu_job_load(options->job, job)
                                 : clu_fail(CLU_E_NO_MEMORY, "no memory for the job");
    if (!status) {
        clu_log_init((enum clu_log_level)clu_log_level_of(job->log_level), "ps", (int)options->rank,
                     job->log_json);
        status = clu_job_check(job);
    }
    if (!status)
        status = schd_outside_open(&outside);
    if (!status)
        status = load_features(job, features);
    if (!status)
        status = serve(job, options, features, outside);
    schd_outside_close(outside);
    free(features);
    free(job);
    return status;
}

const struct schd_verb schd_verb_ps = {
    .name = "ps",
    .summary = "a parameter server: shard threads over LMDB",
    .usage = "--job FILE --rank N --sched ENDPOINT",
    .example = "sluice ps --job run/job.yaml --rank 0 --sched tcp://127.0.0.1:7700",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 0,
    .run = run,
};

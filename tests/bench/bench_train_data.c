/* A batch of a real data set for bench_train, read, gathered and copied once, so that only the step
 * is timed. */
#include "tests/bench/bench_train_batch.h"

#include "cluster/hash.h"
#include "cluster/job.h"
#include "cluster/settings.h"
#include "cluster/status.h"
#include "model/params.h"
#include "worker/batch.h"
#include "worker/dataset.h"
#include "worker/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *copy(const void *data, size_t count, size_t size)
{
    void *memory = malloc(count * size + 1);
    if (!memory)
        abort();
    memcpy(memory, data, count * size);
    return memory;
}

/* the view's arrays as the batch's own */
static void own(struct bench_batch *batch, const struct mdl_batch *v)
{
    size_t n = (size_t)v->n_samples, seqs = (size_t)v->n_seqs;
    const struct mdl_config *c = &batch->config;
    batch->view = *v;
    batch->view.n_global = v->n_samples;
    batch->view.user = copy(v->user, (size_t)v->n_users * (size_t)c->user_dim, sizeof(mdl_real));
    batch->view.item = copy(v->item, (size_t)v->n_items * (size_t)c->item_dim, sizeof(mdl_real));
    batch->view.sample_user = copy(v->sample_user, n, sizeof(int));
    batch->view.sample_item = copy(v->sample_item, n, sizeof(int));
    batch->view.seq_item = copy(v->seq_item, seqs, sizeof(int));
    batch->view.seq_offset = copy(v->seq_offset, seqs + 1, sizeof(int));
    batch->view.seq_action = copy(v->seq_action, (size_t)v->seq_offset[seqs], 1);
    batch->view.seq_time = copy(v->seq_time, (size_t)v->seq_offset[seqs], sizeof(float));
    batch->view.hist_offset = copy(v->hist_offset, n + 1, sizeof(int));
    batch->view.hist_seq = copy(v->hist_seq, (size_t)v->hist_offset[n], sizeof(int));
    batch->view.target_offset = copy(v->target_offset, n + 1, sizeof(int));
    batch->view.target_action = copy(v->target_action, (size_t)v->target_offset[n], 1);
    batch->view.target_time = copy(v->target_time, (size_t)v->target_offset[n], sizeof(float));
}

static int load(struct bench_batch *batch, const struct wrk_dataset *dataset, int n_samples)
{
    struct clu_job job;
    struct wrk_features features;
    struct wrk_batch *gathered = NULL;
    struct wrk_reader *reader = NULL;
    struct wrk_samples *samples = NULL;
    memset(&job, 0, sizeof(job));
    clu_settings_defaults(clu_job_settings(&job));
    struct wrk_reader_options options = {.split = WRK_SPLIT_TRAIN,
                                         .seed = 1,
                                         .batch = n_samples,
                                         .samples_per_user = 8,
                                         .history = 100,
                                         .n_ranks = 1,
                                         .shuffle = true};
    int status = wrk_features_init(&features, wrk_dataset_info(dataset), &job);
    if (status == CLU_OK)
        status = wrk_batch_create(&features, &gathered);
    if (status == CLU_OK)
        status = wrk_reader_open(dataset, &options, (struct wrk_position){0}, &reader);
    if (status == CLU_OK)
        status = wrk_reader_next(reader, &samples);
    if (status == CLU_OK && samples)
        status = wrk_batch_fill(gathered, samples, NULL);
    if (status == CLU_OK && samples) {
        int n_tables;
        struct wrk_batch_table *tables = wrk_batch_tables(gathered, &n_tables);
        for (int t = 0; t < n_tables; t++)
            for (size_t k = 0; k < tables[t].n_keys; k++)
                clu_row_init(1, clu_table_hash(features.table[tables[t].table].name),
                             tables[t].keys[k], 0.05f, tables[t].dim,
                             tables[t].rows + k * (size_t)tables[t].dim);
        batch->config = (struct mdl_config){.n_actions = wrk_dataset_info(dataset)->n_actions,
                                            .history = 100,
                                            .width = 64,
                                            .heads = 4,
                                            .user_dim = features.user_dim,
                                            .item_dim = features.item_dim,
                                            .alpha = 1,
                                            .beta = 1,
                                            .gamma = 0.1f};
        own(batch, wrk_batch_gather(gathered));
        batch->params = malloc(mdl_n_params(&batch->config) * sizeof(mdl_real));
        mdl_params_init(&batch->config, 1, batch->params);
    }
    if (samples)
        wrk_samples_free(samples);
    else if (status == CLU_OK)
        status = CLU_E_DATA;
    wrk_reader_close(reader);
    wrk_batch_free(gathered);
    return status;
}

int bench_batch_load(struct bench_batch *batch, const char *data_dir, int n_samples)
{
    struct wrk_dataset *dataset;
    if (wrk_dataset_open(data_dir, &dataset) != CLU_OK)
        return -1;
    int status = load(batch, dataset, n_samples);
    wrk_dataset_close(dataset);
    return status == CLU_OK ? 0 : -1;
}

/* Evaluation by generation, a batch at a time, merged over ranks.
 *
 * The split is read in its stored order, so a batch holds whole runs of a user and shares their
 * history. A rank keeps its own metrics; at the end their encoded states are gathered on rank 0,
 * merged in rank order, and the figures, which are plain data, are broadcast: every rank returns
 * the same numbers, and the merge does not depend on how the split was dealt.
 *
 * A rank that fails tells the others at the next collective, where all of them stop: nobody is left
 * waiting for a rank that has gone home.
 */
#include "worker/evaluate.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "model/metrics.h"
#include "model/read.h"
#include "model/workspace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N_METRICS = 3 };

/* what one evaluation holds between its batches */
struct run {
    const struct wrk_evaluate_options *options;
    const struct wrk_dataset_info *info;
    enum mdl_read_mode mode;
    struct wrk_reader *reader;
    struct wrk_batch *batch;
    /* of the model; of the truth; and the literal times, which are all the third one holds */
    struct mdl_metrics *metrics[N_METRICS];
    void *workspace;
    size_t workspace_bytes;
    float *p, *time, *literal; /* [capacity, C] */
    size_t capacity;
    uint64_t n_samples;
};

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int wrk_fetch_batch(const struct wrk_row_source *source, struct wrk_batch *batch)
{
    int n_tables;
    struct wrk_batch_table *tables = wrk_batch_tables(batch, &n_tables);
    struct psv_part parts[CLU_MAX_TABLES];
    for (int t = 0; t < n_tables; t++)
        parts[t] =
            (struct psv_part){tables[t].table, tables[t].n_keys, tables[t].keys, tables[t].rows};
    return source->fetch(source->context, parts, n_tables);
}

static int open_run(struct run *run)
{
    const struct wrk_evaluate_options *options = run->options;
    run->info = wrk_dataset_info(options->dataset);
    int status = mdl_read_mode_of(options->read, &run->mode);
    struct wrk_reader_options reader = {
        .split = options->split,
        .valid_percent = options->valid_percent,
        .batch = (int)options->batch,
        .samples_per_user = (int)options->batch,
        .history = options->config->history,
        .rank = wrk_mpi_rank(options->mpi),
        .n_ranks = wrk_mpi_size(options->mpi),
        .shuffle = false,
    };
    if (!status)
        status =
            wrk_reader_open(options->dataset, &reader, (struct wrk_position){0, 0}, &run->reader);
    if (!status)
        status = wrk_batch_create(options->features, &run->batch);
    for (int i = 0; i < N_METRICS && !status; i++)
        status = mdl_metrics_create(run->info->n_actions + 1, 0, &run->metrics[i]);
    return status;
}

static void close_run(struct run *run)
{
    wrk_batch_free(run->batch);
    wrk_reader_close(run->reader);
    for (int i = 0; i < N_METRICS; i++)
        mdl_metrics_free(run->metrics[i]);
    free(run->workspace);
    free(run->p);
    free(run->time);
    free(run->literal);
}

static int grow_outputs(struct run *run, size_t n)
{
    if (n <= run->capacity)
        return CLU_OK;
    free(run->p);
    free(run->time);
    free(run->literal);
    run->capacity = 0;
    run->p = malloc(n * sizeof(float));
    run->time = malloc(n * sizeof(float));
    run->literal = malloc(n * sizeof(float));
    if (!run->p || !run->time || !run->literal)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %zu predictions", n);
    run->capacity = n;
    return CLU_OK;
}

/* adds a batch's predictions, and the truth beside them, to the metrics */
static int count(struct run *run, const struct wrk_samples *samples)
{
    int n_classes = run->info->n_actions + 1, status = CLU_OK;
    for (int b = 0; b < samples->n_samples && !status; b++) {
        size_t row = (size_t)b * (size_t)n_classes;
        uint64_t user =
            samples
                ->user_value[(size_t)samples->sample_user[b] * (size_t)run->info->n_user_columns];
        float label_time[WRK_MAX_ACTIONS + 1];
        uint8_t label[WRK_MAX_ACTIONS + 1] = {0};
        for (int i = samples->target_offset[b]; i < samples->target_offset[b + 1]; i++) {
            label[samples->target_action[i]] = 1;
            label_time[samples->target_action[i]] = samples->target_time[i];
        }
        for (int a = 2; a < n_classes && !status; a++) {
            status = mdl_metrics_add(run->metrics[0], a, user, run->p[row + (size_t)a], label[a]);
            if (!status && samples->truth_probability)
                status = mdl_metrics_add(run->metrics[1], a, user,
                                         samples->truth_probability[row + (size_t)a], label[a]);
            if (!label[a])
                continue;
            mdl_metrics_add_time(run->metrics[0], a, run->time[row + (size_t)a], label_time[a]);
            mdl_metrics_add_time(run->metrics[2], a, run->literal[row + (size_t)a], label_time[a]);
            if (samples->truth_time)
                mdl_metrics_add_time(run->metrics[1], a, samples->truth_time[row + (size_t)a],
                                     label_time[a]);
        }
    }
    run->n_samples += (uint64_t)samples->n_samples;
    return status;
}

static int read_samples(struct run *run, const struct wrk_samples *samples)
{
    const struct wrk_evaluate_options *options = run->options;
    int status = wrk_batch_fill(run->batch, samples, NULL);
    if (!status)
        status = wrk_fetch_batch(&options->rows, run->batch);
    if (status)
        return status;
    const struct mdl_batch *view = wrk_batch_gather(run->batch);
    status = grow_outputs(run, (size_t)samples->n_samples * (size_t)(run->info->n_actions + 1));
    if (!status)
        status = mdl_workspace_grow(&run->workspace, &run->workspace_bytes,
                                    mdl_read_workspace_bytes(options->config, view, run->mode));
    struct mdl_reading reading = {.p = run->p, .time = run->time, .time_literal = run->literal};
    if (!status)
        status = mdl_a2gen_read(options->config, options->params, view, run->mode, run->workspace,
                                &reading);
    return status ? status : count(run, samples);
}

static int read_split(struct run *run)
{
    for (;;) {
        struct wrk_samples *samples = NULL;
        int status = wrk_reader_next(run->reader, &samples);
        if (status || !samples)
            return status;
        if (samples->n_samples)
            status = read_samples(run, samples);
        wrk_samples_free(samples);
        if (status)
            return status;
    }
}

/* rank 0's metrics become those of all ranks; own: how this rank fared. Collective */
static int merge(struct run *run, int own)
{
    struct wrk_mpi *mpi = run->options->mpi;
    int n_ranks = wrk_mpi_size(mpi);
    int64_t worst = own ? -own : 0;
    int status = wrk_mpi_max_ints(mpi, &worst, 1, WRK_MPI_TIMEOUT_MS);
    if (!status && worst)
        return own ? own : (int)-worst;
    size_t *sizes = calloc((size_t)n_ranks, sizeof(*sizes));
    if (!status && !sizes)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory to merge %d ranks", n_ranks);
    for (int i = 0; i < N_METRICS && !status && n_ranks > 1; i++) {
        void *bytes = NULL, *all = NULL;
        size_t size = 0, at = 0;
        status = mdl_metrics_encode(run->metrics[i], &bytes, &size);
        if (!status)
            status = wrk_mpi_gather(mpi, bytes, size, WRK_MPI_TIMEOUT_MS, &all, sizes);
        for (int r = 0; r < n_ranks && !status && all; r++) {
            if (r > 0)
                status = mdl_metrics_merge(run->metrics[i], (char *)all + at, sizes[r]);
            at += sizes[r];
        }
        free(bytes);
        free(all);
    }
    free(sizes);
    double n = (double)run->n_samples;
    if (!status)
        status = wrk_mpi_sum_doubles(mpi, &n, 1, WRK_MPI_TIMEOUT_MS);
    run->n_samples = (uint64_t)n;
    return status;
}

static int figures(const struct run *run, struct wrk_evaluation *out)
{
    for (int a = 2; a <= run->info->n_actions; a++) {
        struct wrk_action_figures *action = &out->action[out->n_actions++];
        struct mdl_figures model, truth, literal;
        int status = mdl_metrics_figures(run->metrics[0], a, &model);
        if (!status)
            status = mdl_metrics_figures(run->metrics[1], a, &truth);
        if (!status)
            status = mdl_metrics_figures(run->metrics[2], a, &literal);
        if (status)
            return status;
        snprintf(action->action, sizeof(action->action), "%s", run->info->action[a]);
        double share = (double)run->info->n_with_action[a] / (double)run->info->n_pairs;
        bool ranked = share < WRK_EVALUATE_MOST_RANKED;
        action->n_positives = model.n_positive;
        action->auc = ranked ? model.auc : NAN;
        action->auc_error = model.auc_error;
        action->gauc = ranked ? model.gauc : NAN;
        action->gauc_users = model.gauc_users;
        action->log_loss = model.log_loss;
        action->calibration = model.calibration;
        action->time_mae = model.mae;
        action->time_mae_literal = literal.mae;
        action->best_auc = truth.n && ranked ? truth.auc : NAN;
        action->best_log_loss = truth.n ? truth.log_loss : NAN;
        action->best_time_mae = truth.n_times ? truth.mae : NAN;
    }
    return CLU_OK;
}

int wrk_evaluate(const struct wrk_evaluate_options *options, struct wrk_evaluation *evaluation_p)
{
    struct run run = {.options = options};
    struct wrk_evaluation out = {.step = options->step};
    double begin = now_seconds();
    int status = open_run(&run);
    if (!status)
        status = read_split(&run);
    status = merge(&run, status);
    out.n_samples = run.n_samples;
    out.seconds = now_seconds() - begin;
    out.samples_per_second = (double)out.n_samples / (out.seconds > 0 ? out.seconds : 1e-9);
    snprintf(out.read, sizeof(out.read), "%s", options->read);
    int64_t own = 0;
    if (!status && wrk_mpi_rank(options->mpi) == 0)
        own = -figures(&run, &out);
    close_run(&run);
    if (!status)
        status = wrk_mpi_max_ints(options->mpi, &own, 1, WRK_MPI_TIMEOUT_MS);
    if (!status && own)
        status = (int)-own;
    if (!status)
        status = wrk_mpi_broadcast(options->mpi, &out, sizeof(out), WRK_MPI_TIMEOUT_MS);
    if (!status)
        *evaluation_p = out;
    return status;
}

/* ---- telling ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *wrk_evaluation_json(const struct wrk_evaluation *evaluation)
{
    json_t *actions = json_object();
    for (int a = 0; actions && a < evaluation->n_actions; a++) {
        const struct wrk_action_figures *figure = &evaluation->action[a];
        json_object_set_new(
            actions, figure->action,
            json_pack("{s:I, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "positives",
                      (json_int_t)figure->n_positives, "auc", number(figure->auc), "auc_error",
                      number(figure->auc_error), "gauc", number(figure->gauc), "gauc_users",
                      (json_int_t)figure->gauc_users, "log_loss", number(figure->log_loss),
                      "calibration", number(figure->calibration), "time_mae",
                      number(figure->time_mae), "time_mae_literal",
                      number(figure->time_mae_literal), "best_auc", number(figure->best_auc),
                      "best_log_loss", number(figure->best_log_loss), "best_time_mae",
                      number(figure->best_time_mae)));
    }
    return json_pack("{s:I, s:s, s:I, s:f, s:f, s:o}", "step", (json_int_t)evaluation->step, "read",
                     evaluation->read, "samples", (json_int_t)evaluation->n_samples, "seconds",
                     evaluation->seconds, "samples_per_second", evaluation->samples_per_second,
                     "actions", actions);
}

int wrk_evaluation_append(const struct wrk_evaluation *evaluation, const char *path)
{
    json_t *json = wrk_evaluation_json(evaluation);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!text)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a line", path);
    FILE *stream = fopen(path, "a");
    int error = !stream || fprintf(stream, "%s\n", text) < 0 ? errno : 0;
    if (stream && (fflush(stream) || fsync(fileno(stream))) && !error)
        error = errno;
    if (stream && fclose(stream) && !error)
        error = errno;
    free(text);
    return error ? clu_fail(clu_status_from_errno(error), "%s: a line cannot be added: %s", path,
                            strerror(error))
                 : CLU_OK;
}

static void cell(char *out, size_t size, double value)
{
    if (isfinite(value))
        snprintf(out, size, "%.4f", value);
    else
        snprintf(out, size, "-");
}

void wrk_evaluation_log(const struct wrk_evaluation *evaluation)
{
    clu_info("evaluation of step %" PRIu64 ", %s: %" PRIu64 " samples in %.1f s (%.0f a second)",
             evaluation->step, evaluation->read, evaluation->n_samples, evaluation->seconds,
             evaluation->samples_per_second);
    for (int a = 0; a < evaluation->n_actions; a++) {
        const struct wrk_action_figures *figure = &evaluation->action[a];
        char auc[32], best[32], gauc[32], loss[32], calibration[32], mae[32];
        cell(auc, sizeof(auc), figure->auc);
        cell(best, sizeof(best), figure->best_auc);
        cell(gauc, sizeof(gauc), figure->gauc);
        cell(loss, sizeof(loss), figure->log_loss);
        cell(calibration, sizeof(calibration), figure->calibration);
        cell(mae, sizeof(mae), figure->time_mae);
        clu_info("%-10s auc %s (best possible %s) gauc %s log loss %s calibration %s time mae %s, "
                 "%" PRIu64 " positives",
                 figure->action, auc, best, gauc, loss, calibration, mae, figure->n_positives);
    }
}

void wrk_evaluation_print(const struct wrk_evaluation *evaluation, FILE *stream)
{
    fprintf(stream, "%s reading, %" PRIu64 " samples\n", evaluation->read, evaluation->n_samples);
    fprintf(stream, "%-12s %9s %8s %8s %8s %9s %9s %9s %9s\n", "action", "positives", "auc", "best",
            "gauc", "log loss", "calibr.", "time mae", "best mae");
    for (int a = 0; a < evaluation->n_actions; a++) {
        const struct wrk_action_figures *figure = &evaluation->action[a];
        char text[7][32];
        cell(text[0], sizeof(text[0]), figure->auc);
        cell(text[1], sizeof(text[1]), figure->best_auc);
        cell(text[2], sizeof(text[2]), figure->gauc);
        cell(text[3], sizeof(text[3]), figure->log_loss);
        cell(text[4], sizeof(text[4]), figure->calibration);
        cell(text[5], sizeof(text[5]), figure->time_mae);
        cell(text[6], sizeof(text[6]), figure->best_time_mae);
        fprintf(stream, "%-12s %9" PRIu64 " %8s %8s %8s %9s %9s %9s %9s\n", figure->action,
                figure->n_positives, text[0], text[1], text[2], text[3], text[4], text[5], text[6]);
    }
}

/* What people see of training: a progress report every log_every steps or second, and evaluations.
 *
 * Figures of a report are of the interval since the last one: losses a sample, samples a second
 * over all ranks, the share of time that ranks waited for rows. They go to the scheduler, which
 * writes them down and shows them; evaluations are also a line of OUT/run/eval.jsonl.
 */
#include "worker/train_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_SECONDS = 1, MAX_SHARES = 16 };

/* The rank that computed longest in the interval, and what the others took in the mean: everybody
 * has as many samples, so a rank that takes a multiple of it is held up. */
static void put_laggard(const struct wrk_trainer *t, struct clu_figures *figures)
{
    double sum = 0;
    int laggard = 0;
    if (t->n_ranks < 2)
        return;
    for (int r = 0; r < t->n_ranks; r++) {
        sum += t->rank_compute[r];
        if (t->rank_compute[r] > t->rank_compute[laggard])
            laggard = r;
    }
    double seconds = t->rank_compute[laggard];
    clu_figures_put(figures, "laggard_rank", laggard);
    clu_figures_put(figures, "laggard_seconds", seconds);
    clu_figures_put(figures, "other_ranks_seconds", (sum - seconds) / (t->n_ranks - 1));
}

static void put_interval(const struct wrk_trainer *t, double seconds, struct clu_figures *figures)
{
    const double *sums = t->interval.sums;
    double rank_steps = sums[WRK_EXTRA_STEPS];
    double n_steps = rank_steps / t->n_ranks;
    double rank_seconds = seconds * t->n_ranks;
    clu_figures_put(figures, "loss", sums[WRK_EXTRA_TOTAL] / n_steps);
    clu_figures_put(figures, "loss_cls", sums[WRK_EXTRA_CLS] / n_steps);
    clu_figures_put(figures, "loss_reg", sums[WRK_EXTRA_REG] / n_steps);
    clu_figures_put(figures, "loss_order", sums[WRK_EXTRA_ORDER] / n_steps);
    clu_figures_put(figures, "samples_per_second", sums[WRK_EXTRA_SAMPLES] / seconds);
    clu_figures_put(figures, "step_seconds", seconds / n_steps);
    clu_figures_put(figures, "pull_wait_seconds", sums[WRK_EXTRA_WAIT] / t->n_ranks);
    clu_figures_put(figures, "pull_wait_share", sums[WRK_EXTRA_WAIT] / rank_seconds);
    clu_figures_put(figures, "data_wait_share", sums[WRK_EXTRA_FEED] / rank_seconds);
    clu_figures_put(figures, "longest_step_seconds", t->interval.longest);
    if (t->longest_beside > 0) {
        clu_figures_put(figures, "snapshot_longest_step_seconds", t->longest_beside);
        clu_figures_put(figures, "snapshot_longest_step", (double)t->longest_beside_step);
    }
    clu_figures_put(figures, "slowest_rank", t->interval.slowest);
    clu_figures_put(figures, "slowest_rank_seconds", t->interval.compute_max);
    put_laggard(t, figures);
}

/* Steps that replies of all ranks' pulls missed: their mean, and how many missed how many, counted
 * since this life of the job began (bins that are empty are left out; the last bin: or more). */
static void put_staleness(const struct wrk_trainer *t, struct clu_figures *figures)
{
    double n = 0, sum = 0;
    for (int i = 0; i < PSV_STALENESS_BINS; i++) {
        char name[CLU_FIGURE_NAME_BYTES];
        n += (double)t->staleness[i];
        sum += (double)t->staleness[i] * i;
        snprintf(name, sizeof(name), "staleness_%d_total", i);
        if (t->staleness[i])
            clu_figures_put(figures, name, (double)t->staleness[i]);
    }
    clu_figures_put(figures, "staleness", n > 0 ? sum / n : 0);
}

/* what each rank did since this life began */
static void put_shares(const struct wrk_trainer *t, struct clu_figures *figures)
{
    for (int r = 0; r < t->n_ranks && r < MAX_SHARES; r++) {
        char name[CLU_FIGURE_NAME_BYTES];
        snprintf(name, sizeof(name), "rank_%d_samples_total", r);
        clu_figures_put(figures, name, (double)t->rank_samples[r]);
    }
}

void wrk_train_progress(struct wrk_trainer *t, bool force)
{
    double now = wrk_train_clock(), seconds = now - t->interval.begin;
    if (!t->interval.sums[WRK_EXTRA_STEPS])
        return;
    if (!force && t->done % (uint64_t)t->job.log_every != 0 && seconds < REPORT_SECONDS)
        return;
    struct clu_report report;
    memset(&report, 0, sizeof(report));
    report.kind = CLU_REPORT_PROGRESS;
    report.step = t->done;
    report.n_steps = t->last_step;
    put_interval(t, seconds > 0 ? seconds : 1e-9, &report.figures);
    clu_figures_put(&report.figures, "epoch", (double)t->position.epoch);
    clu_figures_put(&report.figures, "samples", (double)t->samples_done);
    put_staleness(t, &report.figures);
    put_shares(t, &report.figures);
    clu_debug("step %llu of %llu: loss %.4f", (unsigned long long)t->done,
              (unsigned long long)t->last_step, t->last_losses[3]);
    clu_member_report(t->member, &report);
    memset(&t->interval, 0, sizeof(t->interval));
    memset(t->rank_compute, 0, (size_t)t->n_ranks * sizeof(*t->rank_compute));
    t->interval.begin = now;
}

/* ---- evaluation ---- */

/* rows from the servers, as of every step done; a job that is to stop does not wait for figures */
static int fetch(void *context, const struct psv_part *parts, int n_parts)
{
    struct wrk_trainer *t = context;
    uint64_t ticket;
    int status = wrk_train_orders(t);
    if (!status && t->stop_ordered)
        status = CLU_E_INTERRUPTED;
    if (!status)
        status = psv_client_pull(t->client, parts, n_parts, t->done + 1, &ticket);
    return status ? status : wrk_train_wait(t, ticket);
}

static void put_figure(struct clu_figures *figures, const char *action, const char *name,
                       double value)
{
    char full[CLU_FIGURE_NAME_BYTES];
    if (isfinite(value) && snprintf(full, sizeof(full), "%s_%s", action, name) < (int)sizeof(full))
        clu_figures_put(figures, full, value);
}

static int tell_evaluation(struct wrk_trainer *t, const struct wrk_evaluation *evaluation)
{
    struct clu_report report;
    memset(&report, 0, sizeof(report));
    report.kind = CLU_REPORT_EVALUATED;
    report.step = evaluation->step;
    snprintf(report.text, sizeof(report.text), "%s", evaluation->read);
    clu_figures_put(&report.figures, "eval_samples", (double)evaluation->n_samples);
    clu_figures_put(&report.figures, "eval_seconds", evaluation->seconds);
    for (int a = 0; a < evaluation->n_actions; a++) {
        const struct wrk_action_figures *action = &evaluation->action[a];
        put_figure(&report.figures, action->action, "auc", action->auc);
        put_figure(&report.figures, action->action, "gauc", action->gauc);
        put_figure(&report.figures, action->action, "mae", action->time_mae);
        put_figure(&report.figures, action->action, "best_auc", action->best_auc);
        put_figure(&report.figures, action->action, "log_loss", action->log_loss);
        put_figure(&report.figures, action->action, "calibration", action->calibration);
    }
    wrk_evaluation_log(evaluation);
    int status = clu_member_report(t->member, &report);
    char path[CLU_PATH_BYTES];
    if (!status)
        status = clu_path_join(path, sizeof(path), t->job.out, "run/eval.jsonl");
    return status ? status : wrk_evaluation_append(evaluation, path);
}

struct wrk_train_model wrk_train_current(struct wrk_trainer *t)
{
    return (struct wrk_train_model){wrk_dense_weights(&t->dense), {fetch, t}, t->done};
}

int wrk_train_evaluate(struct wrk_trainer *t, const struct wrk_train_model *model,
                       enum wrk_split split, const char *read, struct wrk_evaluation *evaluation_p)
{
    int valid_percent = (int)t->job.valid_percent;
    if (evaluation_p)
        memset(evaluation_p, 0, sizeof(*evaluation_p));
    if (!wrk_dataset_n_samples(t->dataset, split, valid_percent))
        return CLU_OK;
    /* own pushes are under way at most; after this every step done is applied everywhere */
    uint64_t ticket;
    int status = psv_client_barrier(t->client, t->done, &ticket);
    if (!status)
        status = wrk_train_wait(t, ticket);
    if (status)
        return status;
    struct wrk_evaluate_options options = {
        .dataset = t->dataset,
        .features = &t->features,
        .config = &t->config,
        .params = model->params,
        .rows = model->rows,
        .split = split,
        .valid_percent = valid_percent,
        .read = read,
        .batch = 256 * (int64_t)t->n_ranks,
        .mpi = t->mpi,
        .step = model->step,
    };
    struct wrk_evaluation evaluation;
    double begin = wrk_train_clock();
    status = wrk_evaluate(&options, &evaluation);
    t->interval.begin += wrk_train_clock() - begin; /* the interval is of training alone */
    if (status == CLU_E_INTERRUPTED) { /* every rank has this status: ranks share the worst */
        clu_info("the evaluation is left unfinished: the job is to stop");
        return CLU_OK;
    }
    if (!status && t->rank == 0)
        status = tell_evaluation(t, &evaluation);
    if (!status && evaluation_p)
        *evaluation_p = evaluation;
    return status;
}

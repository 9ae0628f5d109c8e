/* One table names every metric; an enum is its place. */
#include "worker/train_metrics.h"

#include "cluster/log.h"
#include "cluster/metrics.h"
#include "cluster/status.h"
#include "worker/train_internal.h"

#include <stdlib.h>

enum metric {
    STEP,
    STEPS,
    EPOCH,
    ASKED_STEP,
    APPLIED_STEP,
    LOSS,
    SAMPLES,
    FEED_WAIT,
    PULL_WAIT,
    COMPUTE,
    SUM,
    PULLS,
    PUSHES,
    ROWS_PULLED,
    ROWS_PUSHED,
    BYTES_SENT,
    BYTES_RECEIVED,
    RETRIES,
    MALFORMED,
    N_METRICS,
};

static const struct {
    enum clu_metric_kind kind;
    const char *name, *help;
} table[N_METRICS] = {
    [STEP] = {CLU_METRIC_GAUGE, "step", "steps done"},
    [STEPS] = {CLU_METRIC_GAUGE, "steps", "steps the job will have"},
    [EPOCH] = {CLU_METRIC_GAUGE, "epoch", "epoch of the next batch, from 0"},
    [ASKED_STEP] = {CLU_METRIC_GAUGE, "asked_step", "step up to which rows are asked for"},
    [APPLIED_STEP] = {CLU_METRIC_GAUGE, "applied_step",
                      "step up to which own pushes are known to be applied"},
    [LOSS] = {CLU_METRIC_GAUGE, "loss", "loss of the last steps that were summed, of all ranks"},
    [SAMPLES] = {CLU_METRIC_COUNTER, "samples_total", "samples this rank computed"},
    [FEED_WAIT] = {CLU_METRIC_HISTOGRAM, "data_wait_seconds", "wait for the batch of a step"},
    [PULL_WAIT] = {CLU_METRIC_HISTOGRAM, "pull_wait_seconds", "wait for the rows of a step"},
    [COMPUTE] = {CLU_METRIC_HISTOGRAM, "compute_seconds", "forward and backward of a step"},
    [SUM] = {CLU_METRIC_HISTOGRAM, "reduce_seconds",
             "sum of dense gradients, the wait for other ranks included"},
    [PULLS] = {CLU_METRIC_COUNTER, "pulls_total", "pulls asked for"},
    [PUSHES] = {CLU_METRIC_COUNTER, "pushes_total", "pushes sent"},
    [ROWS_PULLED] = {CLU_METRIC_COUNTER, "pulled_rows_total", "rows received"},
    [ROWS_PUSHED] = {CLU_METRIC_COUNTER, "pushed_rows_total", "rows of gradients sent"},
    [BYTES_SENT] = {CLU_METRIC_COUNTER, "sent_bytes_total", "sent to servers"},
    [BYTES_RECEIVED] = {CLU_METRIC_COUNTER, "received_bytes_total", "received from servers"},
    [RETRIES] = {CLU_METRIC_COUNTER, "retries_total", "requests sent again"},
    [MALFORMED] = {CLU_METRIC_COUNTER, "malformed_messages_total", "replies dropped"},
};

struct wrk_train_metrics {
    struct clu_metric *metric[N_METRICS];
};

int wrk_train_metrics_create(struct wrk_trainer *t)
{
    t->shown = calloc(1, sizeof(*t->shown));
    if (!t->shown)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for metrics");
    for (int i = 0; i < N_METRICS; i++)
        t->shown->metric[i] =
            clu_metrics_add(t->metrics, table[i].kind, table[i].name, "", table[i].help);
    return CLU_OK;
}

void wrk_train_metrics_free(struct wrk_train_metrics *metrics)
{
    free(metrics);
}

static void set(struct wrk_trainer *t, enum metric metric, uint64_t value)
{
    clu_metric_set(t->shown->metric[metric], (double)value);
}

static void observe(struct wrk_trainer *t, enum metric metric, double seconds)
{
    clu_metric_observe(t->shown->metric[metric], seconds);
}

void wrk_train_metrics_turn(struct wrk_trainer *t, int64_t n_samples,
                            struct wrk_turn_seconds seconds)
{
    observe(t, FEED_WAIT, seconds.feed);
    observe(t, PULL_WAIT, seconds.pull);
    observe(t, COMPUTE, seconds.compute);
    clu_metric_add(t->shown->metric[SAMPLES], (double)n_samples);
    set(t, STEP, t->done);
    set(t, STEPS, t->last_step);
    set(t, EPOCH, t->position.epoch);
    set(t, ASKED_STEP, t->pulled);
    set(t, APPLIED_STEP, t->retired);
}

void wrk_train_metrics_meeting(struct wrk_trainer *t, const struct psv_client_stats *client,
                               double seconds)
{
    observe(t, SUM, seconds);
    clu_metric_set(t->shown->metric[LOSS], t->last_losses[3]);
    set(t, STEP, t->done);
    set(t, PULLS, client->pulls);
    set(t, PUSHES, client->pushes);
    set(t, ROWS_PULLED, client->rows_pulled);
    set(t, ROWS_PUSHED, client->rows_pushed);
    set(t, BYTES_SENT, client->bytes_sent);
    set(t, BYTES_RECEIVED, client->bytes_received);
    set(t, RETRIES, client->retries);
    set(t, MALFORMED, client->malformed);
}

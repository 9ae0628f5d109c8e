/* One step of one rank, and what is under way around it.
 *
 * At staleness k, while step t is computed, the rows of t + 1 .. t + k are already asked for, and
 * pushes of earlier steps may still travel:
 *
 *     retired ........ done .... done + 1 = t ............ pulled
 *     pushes applied,  pushes    waits for its rows,       rows asked for
 *     slots given back under way computes, pushes
 *
 * (T1) The rows of step t + 1 + k are asked for right after the push of step t: the servers answer
 *      when every rank's push of step t is applied, and meanwhile this rank sums dense gradients.
 * (T2) A push of step t is waited for only after rows were received that needed it applied (step t
 *      + 1 + k), so that wait never stands in anyone's way.
 * (T3) A slot's keys, rows and gradients are untouched while a ticket on them is open.
 *
 * Where parts are dealt (train_deal.c) all this is said of a rank's turns.
 */
#include "worker/train_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "model/workspace.h"
#include "worker/train_metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAIT_SLICE_MS = 100 };

double wrk_train_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int wrk_train_wait(struct wrk_trainer *t, uint64_t ticket)
{
    for (;;) {
        int status = psv_client_wait(t->client, ticket, WAIT_SLICE_MS);
        if (status != CLU_E_AGAIN)
            return status;
        status = wrk_train_orders(t);
        if (status)
            return status;
    }
}

static struct wrk_feed_slot **slot_of(struct wrk_trainer *t, uint64_t turn)
{
    return &t->slots[turn % (uint64_t)t->n_slots];
}

static int make_parts(struct wrk_batch *batch, int gradients, struct psv_part *parts)
{
    int n;
    struct wrk_batch_table *tables = wrk_batch_tables(batch, &n);
    for (int i = 0; i < n; i++)
        parts[i] = (struct psv_part){tables[i].table, tables[i].n_keys, tables[i].keys,
                                     gradients ? tables[i].grads : tables[i].rows};
    return n;
}

/* asks for the rows of every turn up to `turn`, as far as turns are known and the job goes */
static int pull_up_to(struct wrk_trainer *t, uint64_t turn)
{
    uint64_t last = t->is_dealt ? t->asked : t->last_step;
    if (turn > last)
        turn = last;
    while (t->pulled < turn) {
        struct wrk_feed_slot *slot;
        int status = wrk_feed_next(t->feed, (int)t->job.start_timeout_ms, &slot);
        if (status)
            return status;
        struct psv_part parts[CLU_MAX_TABLES];
        int n = make_parts(slot->batch, 0, parts);
        status = psv_client_pull(t->client, parts, n, slot->step, &slot->pull_ticket);
        if (status)
            return status;
        t->pulled++;
        *slot_of(t, t->pulled) = slot;
    }
    return CLU_OK;
}

/* and gives their slots back */
int wrk_train_retire(struct wrk_trainer *t, uint64_t turn)
{
    while (t->retired < turn) {
        struct wrk_feed_slot *slot = *slot_of(t, t->retired + 1);
        int status = wrk_train_wait(t, slot->push_ticket);
        if (status)
            return status;
        wrk_feed_return(t->feed, slot);
        t->retired++;
    }
    return CLU_OK;
}

/* rows of a step */
static int receive(struct wrk_trainer *t, struct wrk_feed_slot *slot)
{
    int status = slot->pull_ticket ? wrk_train_wait(t, slot->pull_ticket) : CLU_OK;
    if (!status)
        slot->pull_ticket = 0;
    return status;
}

int wrk_train_receive(struct wrk_trainer *t)
{
    int status = CLU_OK;
    for (uint64_t turn = t->turn + 1; turn <= t->pulled && !status; turn++)
        status = receive(t, *slot_of(t, turn));
    return status;
}

int wrk_train_drain(struct wrk_trainer *t)
{
    int status = wrk_train_retire(t, t->turn);
    return status ? status : wrk_train_receive(t); /* what will not be computed */
}

static int grow_floats(float **array, size_t *capacity, size_t wanted)
{
    if (wanted <= *capacity)
        return CLU_OK;
    wanted += wanted / 4 + 16;
    free(*array);
    *capacity = 0;
    *array = malloc(wanted * sizeof(float));
    if (!*array)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %zu gradients", wanted);
    *capacity = wanted;
    return CLU_OK;
}

/* forward and backward of a batch; gradients go to the dense buffer and the batch's tables */
static int compute(struct wrk_trainer *t, struct wrk_feed_slot *slot)
{
    const struct mdl_batch *view = wrk_batch_gather(slot->batch);
    float *dense = wrk_dense_grads(&t->dense);
    if (!slot->samples->n_samples) { /* more ranks than chunks: this one has nothing to add */
        memset(dense, 0, t->dense.n * sizeof(float));
        return CLU_OK;
    }
    int status = mdl_workspace_grow(&t->workspace, &t->workspace_bytes,
                                    mdl_a2gen_workspace_bytes(&t->config, view));
    if (!status)
        status = grow_floats(&t->d_user, &t->d_user_capacity,
                             (size_t)view->n_users * (size_t)t->config.user_dim);
    if (!status)
        status = grow_floats(&t->d_item, &t->d_item_capacity,
                             (size_t)view->n_items * (size_t)t->config.item_dim);
    struct mdl_losses losses;
    struct mdl_grads grads = {dense, t->d_user, t->d_item};
    if (!status)
        status = mdl_a2gen_step(&t->config, t->dense.params, view, t->workspace, &losses, &grads);
    if (status)
        return status;
    wrk_batch_scatter(slot->batch, t->d_user, t->d_item);
    t->local[WRK_EXTRA_CLS] += (float)losses.cls;
    t->local[WRK_EXTRA_REG] += (float)losses.reg;
    t->local[WRK_EXTRA_ORDER] += (float)losses.order;
    t->local[WRK_EXTRA_TOTAL] += (float)losses.total;
    t->local[WRK_EXTRA_SAMPLES] += (float)slot->samples->n_samples;
    return CLU_OK;
}

static int push(struct wrk_trainer *t, struct wrk_feed_slot *slot)
{
    struct psv_part parts[CLU_MAX_TABLES];
    int n = slot->samples->n_samples ? make_parts(slot->batch, 1, parts) : 0;
    return psv_client_push(t->client, parts, n, slot->step, &slot->push_ticket);
}

/* moves the summed extras into the interval and learns what all ranks agreed on */
static void take_extras(struct wrk_trainer *t)
{
    const float *extras = wrk_dense_extras(&t->dense);
    const float *compute_seconds = extras + WRK_N_EXTRAS, *samples = compute_seconds + t->n_ranks;
    float n_steps = extras[WRK_EXTRA_STEPS] / (float)t->n_ranks;
    for (int i = 0; i < WRK_N_EXTRAS; i++)
        t->interval.sums[i] += extras[i];
    for (int i = 0; i < 4; i++)
        t->last_losses[i] = extras[WRK_EXTRA_CLS + i] / n_steps;
    for (int r = 0; r < t->n_ranks; r++) {
        t->rank_samples[r] += (uint64_t)samples[r];
        double seconds = compute_seconds[r];
        if (t->is_dealt && samples[r] > 0) /* all compute as long: what an even share would take */
            seconds *= extras[WRK_EXTRA_SAMPLES] / (float)t->n_ranks / samples[r];
        t->rank_compute[r] += seconds;
        if (seconds > t->interval.compute_max) {
            t->interval.compute_max = seconds;
            t->interval.slowest = r;
        }
    }
    for (int i = 0; i < PSV_STALENESS_BINS; i++)
        t->staleness[i] += (uint64_t)extras[WRK_EXTRA_STALENESS + i];
    t->samples_done += (uint64_t)extras[WRK_EXTRA_SAMPLES];
    t->stopping = extras[WRK_EXTRA_STOP] > 0;
    t->stopping_snapshot = extras[WRK_EXTRA_STOP_SNAPSHOT] > 0;
    t->moving = extras[WRK_EXTRA_MOVE] > 0;
}

/* what the client measured since the last time: small numbers, which a float holds exactly */
static void add_staleness(struct wrk_trainer *t, const struct psv_client_stats *stats)
{
    for (int i = 0; i < PSV_STALENESS_BINS; i++) {
        t->local[WRK_EXTRA_STALENESS + i] = (float)(stats->staleness[i] - t->staleness_told[i]);
        t->staleness_told[i] = stats->staleness[i];
    }
}

static int reduce(struct wrk_trainer *t)
{
    float *extras = wrk_dense_extras(&t->dense);
    struct psv_client_stats stats;
    psv_client_stats(t->client, &stats);
    add_staleness(t, &stats);
    memset(extras, 0, (size_t)t->dense.n_extras * sizeof(float));
    t->local[WRK_EXTRA_STOP] = t->stop_ordered;
    t->local[WRK_EXTRA_STOP_SNAPSHOT] = t->stop_snapshot;
    t->local[WRK_EXTRA_MOVE] = wrk_train_may_move(t);
    memcpy(extras, t->local, sizeof(t->local));
    extras[WRK_N_EXTRAS + t->rank] = (float)t->local_compute;
    extras[WRK_N_EXTRAS + t->n_ranks + t->rank] = t->local[WRK_EXTRA_SAMPLES];
    double begun = wrk_train_clock();
    int status = wrk_dense_update(&t->dense, t->mpi, t->done, t->since_reduce);
    if (status)
        return status;
    take_extras(t);
    wrk_train_metrics_meeting(t, &stats, wrk_train_clock() - begun);
    memset(t->local, 0, sizeof(t->local));
    t->local_compute = 0;
    t->since_reduce = 0;
    return CLU_OK;
}

bool wrk_train_meets_at(const struct wrk_trainer *t, uint64_t step)
{
    return !t->dense.pending || step % (uint64_t)t->job.dense_every == 0 || step == t->last_step ||
           wrk_train_is_judged(t, step);
}

/* rows, compute, push */
static int take_turn(struct wrk_trainer *t)
{
    double begin = wrk_train_clock();
    uint64_t turn = t->turn + 1;
    int status = t->is_dealt ? wrk_train_ask(t) : CLU_OK;
    if (!status)
        status = pull_up_to(t, turn);
    if (status)
        return status;
    struct wrk_feed_slot *slot = *slot_of(t, turn);
    double fed = wrk_train_clock();
    status = receive(t, slot);
    double pulled = wrk_train_clock();
    if (!status)
        status = compute(t, slot);
    double computed = wrk_train_clock();
    if (!status && t->mover)
        status = wrk_mover_finish(t->mover); /* before anything of this step is applied */
    if (!status)
        status = push(t, slot);
    if (status)
        return status;
    t->turn = turn;
    if (!t->is_dealt) {
        t->done = turn;
        t->position = (struct wrk_position){slot->position.epoch, slot->position.batch + 1};
        t->since_reduce++;
    }
    t->local[WRK_EXTRA_FEED] += (float)(fed - begin);
    t->local[WRK_EXTRA_WAIT] += (float)(pulled - fed);
    t->local[WRK_EXTRA_STEPS] += 1;
    t->local_compute += computed - pulled;
    wrk_train_metrics_turn(t, slot->samples->n_samples,
                           (struct wrk_turn_seconds){fed - begin, pulled - fed, computed - pulled});
    return CLU_OK;
}

int wrk_train_step(struct wrk_trainer *t, bool *reduced_p)
{
    int status = take_turn(t);
    if (!status)
        status = pull_up_to(t, t->turn + 1 + (uint64_t)t->n_ahead); /* (T1) */
    if (!status && t->turn > 1 + (uint64_t)t->n_ahead)
        status = wrk_train_retire(t, t->turn - 1 - (uint64_t)t->n_ahead); /* (T2) */
    if (status)
        return status;
    uint64_t before = t->done;
    if (t->is_dealt)
        wrk_train_end_turn(t);
    bool reduce_now = t->is_dealt ? t->done != before : wrk_train_meets_at(t, t->done);
    if (reduce_now)
        status = reduce(t);
    else
        wrk_dense_hold(&t->dense);
    *reduced_p = reduce_now;
    return status;
}

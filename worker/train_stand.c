/* Going on where other workers died: their dense weights are gone, the servers' rows stand.
 *
 *     step     0 ......... D ................ A_min .. A_max          (the dead were about here)
 *     dense    checkpoint of D               '---- rows: each shard has applied its own A
 *     now      weights of D, rows as they are, the next step is R + 1, R = max(D, A_max)
 *
 * The dense weights come from the newest of: the dense checkpoints of this life, the newest whole
 * snapshot, the initial ones. All ranks take the same: rank 0 looks, the others are told.
 *
 * What is lost, and no more: the dense weights miss the updates of steps D + 1 .. R; rows miss, at
 * a shard with A < R, the gradients of steps A + 1 .. R, of which some rank's push was missing
 * (ps/shard_life.c says why no step counts twice and why the bound holds on). The data goes on
 * behind R's batch: what the rows have seen is not shown to them again. Counted and reported: R - D
 * steps, their samples, and R - A_min. With dense checkpoints every c steps and staleness s,
 * R - D < c + s + 2 when a checkpoint takes less than c steps to write.
 *
 * Order matters: (1) every rank greets every shard (psv_client_open), which shuts the dead out; (2)
 * A is summed over ranks: final then; (3) rank 0 tells every shard R; (4) nobody pulls before that
 * is answered. A group that dies in between is followed by one that does the same again.
 */
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/train_checkpoint.h"
#include "worker/train_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Rank 0 chooses where the dense weights come from; *folder_p "" for the initial ones. Collective.
 * */
static int choose_dense(struct wrk_trainer *t, char folder_p[CLU_PATH_BYTES])
{
    const struct clu_welcome *welcome = clu_member_welcome(t->member);
    char checkpoint[CLU_PATH_BYTES];
    uint64_t step;
    snprintf(folder_p, CLU_PATH_BYTES, "%s", welcome->resume);
    if (t->rank == 0 && !wrk_checkpoint_find(t->job.out, welcome->generation, checkpoint, &step) &&
        step > welcome->resume_step)
        snprintf(folder_p, CLU_PATH_BYTES, "%s", checkpoint);
    return wrk_mpi_broadcast(t->mpi, folder_p, CLU_PATH_BYTES, WRK_MPI_TIMEOUT_MS);
}

/* Moves state's position on to that after step `to`; returns the samples passed over. */
static uint64_t skip_batches(struct wrk_trainer *t, struct wrk_state *state, uint64_t to)
{
    uint64_t n = wrk_dataset_n_samples(t->dataset, WRK_SPLIT_TRAIN, (int)t->job.valid_percent);
    uint64_t batch = (uint64_t)t->job.batch, n_batches = (n + batch - 1) / batch, samples = 0;
    for (; state->step < to; state->step++, state->batch++) {
        if (state->batch >= n_batches) {
            state->epoch++;
            state->batch = 0;
        }
        samples += state->batch + 1 < n_batches ? batch : n - batch * (n_batches - 1);
    }
    state->samples_done += samples;
    return samples;
}

static int report_loss(struct wrk_trainer *t, uint64_t dense_step, uint64_t step, uint64_t samples,
                       uint64_t dropped)
{
    struct clu_report report;
    memset(&report, 0, sizeof(report));
    report.kind = CLU_REPORT_GONE_ON;
    report.step = step;
    clu_figures_put(&report.figures, "dense_step", (double)dense_step);
    clu_figures_put(&report.figures, "lost_steps", (double)(step - dense_step));
    clu_figures_put(&report.figures, "lost_samples", (double)samples);
    clu_figures_put(&report.figures, "dropped_steps", (double)dropped);
    return clu_member_report(t->member, &report);
}

/* Every shard goes on after the same step. Collective. */
static int begin_rows(struct wrk_trainer *t, uint64_t step)
{
    int status = CLU_OK;
    uint64_t ticket;
    if (t->rank == 0)
        status = psv_client_begin(t->client, step, &ticket);
    if (t->rank == 0 && !status)
        status = wrk_train_wait(t, ticket);
    if (status)
        return status;
    int64_t together = 0;
    return wrk_mpi_max_ints(t->mpi, &together, 1, WRK_MPI_TIMEOUT_MS);
}

int wrk_train_stand(struct wrk_trainer *t, struct wrk_state *state)
{
    char folder[CLU_PATH_BYTES];
    uint64_t least, most;
    int status = choose_dense(t, folder);
    if (!status && folder[0])
        status = wrk_state_load(folder, state);
    psv_client_applied(t->client, &least, &most);
    int64_t applied[2] = {(int64_t)least, (int64_t)most};
    if (!status)
        status = wrk_mpi_max_ints(t->mpi, applied, 2, WRK_MPI_TIMEOUT_MS);
    if (status)
        return status;
    uint64_t dense_step = state->step;
    uint64_t step = (uint64_t)applied[1] > dense_step ? (uint64_t)applied[1] : dense_step;
    uint64_t samples = skip_batches(t, state, step);
    status = begin_rows(t, step);
    if (!status && t->rank == 0) {
        clu_info("going on after step %" PRIu64 " with dense weights of step %" PRIu64 " (%s)",
                 step, dense_step, folder[0] ? folder : "the initial ones");
        status = report_loss(t, dense_step, step, samples, step - (uint64_t)applied[0]);
    }
    return status;
}

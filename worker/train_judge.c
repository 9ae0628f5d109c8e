/* Epochs judged by the validation slice, and the figures that a job ends with.
 *
 * A verdict (worker/stopping.h) is given at an epoch's last step, before any snapshot of that step,
 * on figures that every rank has alike: so ranks agree without a word, and the snapshot that keeps
 * an epoch knows that it is the best.
 *
 *     epoch's end -> evaluate the slice -> best so far: snapshot it, pinned; go on
 *                                       -> not better: count it; enough: this step is the last
 *
 * (J1) A snapshot holds the verdicts up to its step. A life that begins at an epoch's end without
 *      its verdict (it was told to stop, or killed, before) gives it before it goes on.
 * (J2) The slice has told all it can, once it has chosen: the last figures are of the test part.
 */
#include "worker/train_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "worker/export.h"
#include "worker/export_features.h"

#include <inttypes.h>
#include <string.h>

enum { SHARE_TIMEOUT_MS = 3600 * 1000 }; /* while rank 0 exports */

bool wrk_train_is_judged(const struct wrk_trainer *t, uint64_t step)
{
    return t->job.patience > 0 && step > 0 && step % t->n_batches == 0;
}

enum wrk_split wrk_train_split(const struct wrk_trainer *t)
{
    return t->job.valid_percent ? WRK_SPLIT_VALID : WRK_SPLIT_TEST;
}

int wrk_train_judge(struct wrk_trainer *t)
{
    struct wrk_train_model model = wrk_train_current(t);
    struct wrk_evaluation evaluation;
    int status = wrk_train_evaluate(t, &model, WRK_SPLIT_VALID, t->job.read, &evaluation);
    if (status || !evaluation.n_samples)
        return status;
    double loss = wrk_stopping_loss(&evaluation);
    bool best = wrk_stopping_judge(&t->verdicts, t->done, loss);
    if (t->rank == 0)
        clu_info("epoch %" PRIu64 ": validation loss %.5f, %s", t->done / t->n_batches, loss,
                 best ? "the best so far" : "not better");
    if (best)
        return wrk_train_snapshot_now(t);
    if (wrk_stopping_is_enough(&t->verdicts))
        t->last_step = t->done;
    return CLU_OK;
}

int wrk_train_resume_verdicts(struct wrk_trainer *t)
{
    int status = CLU_OK;
    if (wrk_train_is_judged(t, t->done) && t->verdicts.judged != t->done)
        status = wrk_train_judge(t);
    if (wrk_stopping_is_enough(&t->verdicts) && t->done < t->last_step)
        t->last_step = t->done;
    return status;
}

void wrk_train_describe_kept(const struct wrk_trainer *t, char *text, size_t text_bytes)
{
    const struct wrk_stopping *v = &t->verdicts;
    char after[96] = "";
    text[0] = '\0';
    if (v->patience == 0 || v->best_step == 0)
        return;
    if (v->n_not_better > 0)
        snprintf(after, sizeof(after), ", better than the %" PRId64 " after it", v->n_not_better);
    snprintf(text, text_bytes,
             "kept is epoch %" PRIu64 ", step %" PRIu64
             ": its validation loss, %.5f, is the best%s",
             v->best_step / t->n_batches, v->best_step, v->best_loss, after);
}

/* reports both ways of reading, the job's own last */
static int evaluate_both(struct wrk_trainer *t, const struct wrk_train_model *model,
                         enum wrk_split split)
{
    bool exact = !strcmp(t->job.read, "exact");
    int status = wrk_train_evaluate(t, model, split, exact ? "greedy" : "exact", NULL);
    return status ? status : wrk_train_evaluate(t, model, split, t->job.read, NULL);
}

/* rank 0's status, on every rank. Collective */
static int share_status(struct wrk_trainer *t, int own)
{
    int64_t worst = own ? -own : 0;
    int status = wrk_mpi_max_ints(t->mpi, &worst, 1, SHARE_TIMEOUT_MS);
    return status ? status : (int)-worst;
}

/* The best epoch is no longer in the servers: rank 0 exports its snapshot, and every rank reads
 * that. Its folder is on the file system that the job's ranks share. Collective */
static int evaluate_best(struct wrk_trainer *t)
{
    char root[CLU_PATH_BYTES], folder[CLU_PATH_BYTES], path[CLU_PATH_BYTES];
    struct wrk_export *export = NULL;
    int status = clu_snapshot_root(t->job.out, root);
    if (!status)
        status = clu_snapshot_folder(root, t->verdicts.best_step, false, folder);
    if (!status)
        status = clu_path_join(path, sizeof(path), t->job.out, "run/best");
    if (!status && t->rank == 0)
        status = wrk_export_create(folder, path);
    status = share_status(t, status);
    if (!status)
        status = share_status(t, wrk_export_open(path, false, &export));
    if (!status) {
        struct wrk_train_model model = {
            wrk_export_params(export), {wrk_export_fetch, export}, t->verdicts.best_step};
        status = evaluate_both(t, &model, WRK_SPLIT_TEST);
    }
    status = share_status(t, status); /* nobody reads it any longer */
    wrk_export_close(export);
    if (t->rank == 0)
        clu_remove_tree(path);
    return status;
}

int wrk_train_final_evaluation(struct wrk_trainer *t)
{
    bool judged = t->verdicts.patience > 0;
    if (judged && t->verdicts.best_step && t->verdicts.best_step != t->done)
        return evaluate_best(t);
    struct wrk_train_model model = wrk_train_current(t);
    return evaluate_both(t, &model, judged ? WRK_SPLIT_TEST : wrk_train_split(t) /* (J2) */);
}

/* HSE, the hierarchical sequence encoder [7, 8], of the reference: from a batch to Vec_hist.
 *
 *     tokens of seq j, c = F_xj --CAM_act--> mean = Seq_j
 *     [Seq_j, F_xj] of all j, c = F_target --CAM_item--> mean = Vec_hist
 *
 * Threads: any, on disjoint workspaces.
 */
#ifndef MODEL_REFERENCE_HSE_H
#define MODEL_REFERENCE_HSE_H

#include "model/arena.h"
#include "model/batch.h"
#include "model/reference_cam.h"
#include "model/reference_ends.h"

struct mdl_reference_hse {
    const struct mdl_batch *batch;
    int d, item_dim;
    struct mdl_reference_tokens tokens; /* of all seqs */
    struct mdl_reference_cam act, item;
    mdl_real *act_ctx; /* [n_seqs, item_dim] F_xj */
    mdl_real *Seq;     /* [n_seqs, d] */
    mdl_real *Z;       /* [n_hist, d + item_dim] */
    mdl_real *target;  /* [n_samples, item_dim] F_target */
    mdl_real *Vec;     /* [n_samples, d] Vec_hist */
    mdl_real *dSeq, *dtok, *dYact, *dZ, *dYitem, *dact_ctx, *dtarget; /* the same shapes */
};

/* Takes the arrays for this batch, or any with no larger counts. */
void mdl_reference_hse_take(struct mdl_reference_hse *hse, struct mdl_arena *arena,
                            const struct mdl_config *config, const struct mdl_batch *batch);

/* Vec_hist of every sample. */
void mdl_reference_hse_forward(struct mdl_reference_hse *hse, const struct mdl_weights *w);

/* From dVec [n_samples, d]: adds to dw, and to d_item [n_items, item_dim]. */
void mdl_reference_hse_backward(struct mdl_reference_hse *hse, const struct mdl_weights *w,
                                const mdl_real *dVec, struct mdl_weights *dw, mdl_real *d_item);

#endif

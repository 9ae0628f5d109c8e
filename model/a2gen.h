/* A2Gen: one training step, losses and gradients, on buffers of the caller.
 *
 *     batch --HSE--> Vec_hist --AAG--> Y --decision--> P, That --> L_cls, L_reg, L_order
 *                        <------------- backward: d dense, d user, d item
 *
 * The model is MODEL.md's, the words and symbols are its. A step allocates nothing: the caller
 * hands in a workspace of mdl_a2gen_workspace_bytes() and may reuse it for every later step. With
 * config->threads = n a step starts n - 1 helper threads and joins them before it returns; the
 * result is the same bit for bit. Sums run in an order fixed by the batch. Threads: any, one call
 * at a time per workspace.
 */
#ifndef MODEL_A2GEN_H
#define MODEL_A2GEN_H

#include <stddef.h>

#include "model/batch.h"
#include "model/config.h"

/* Sums over the samples of this batch, already divided by n_global: those of all ranks add up to
 * the losses of the global batch. total = alpha cls + beta reg + gamma order. Source: [14-17]. */
struct mdl_losses {
    double cls, reg, order, total;
};

/* Where backward writes d total / d ...; every element is written, none is added to. */
struct mdl_grads {
    mdl_real *dense; /* [mdl_n_params] */
    mdl_real *user;  /* [n_users, user_dim] */
    mdl_real *item;  /* [n_items, item_dim] */
};

/* Makes BLAS use the calling thread alone (one rank a core is how Sluice runs). Call once, at the
 * start of the process. */
void mdl_blas_single_thread(void);

/* Bytes of workspace for a step on this batch, and so on any batch none of whose counts (n_samples,
 * n_users, n_items, n_seqs, tokens, history entries) is larger and with the same threads. Cheap:
 * call it per batch and grow the buffer when the answer grew. Only the counts and the offset
 * arrays' last entries are read. */
size_t mdl_a2gen_workspace_bytes(const struct mdl_config *config, const struct mdl_batch *batch);

/* Forward, losses and, unless grads is NULL, backward. params [mdl_n_params]; workspace aligned to
 * 64 bytes. Errors: CLU_E_DATA when the batch is not well formed (logged), CLU_E_CONFIG,
 * CLU_E_NO_MEMORY when a helper thread cannot start; then nothing useful is in grads. */
int mdl_a2gen_step(const struct mdl_config *config, const mdl_real *params,
                   const struct mdl_batch *batch, void *workspace, struct mdl_losses *losses_p,
                   struct mdl_grads *grads);

#endif

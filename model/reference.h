/* The reference: A2Gen computed as MODEL.md reads, one equation after the other, nothing shared
 * between samples but Seq_j, no vector code. It exists to be compared with: the fast step and the
 * fast reading are held to it by tests, and it is held to central differences itself.
 *
 * Contracts, shapes and errors are those of mdl_a2gen_step and mdl_a2gen_read; config->threads is
 * ignored. Threads: any, one call at a time per workspace.
 */
#ifndef MODEL_REFERENCE_H
#define MODEL_REFERENCE_H

#include <stddef.h>

#include "model/a2gen.h"
#include "model/read.h"

/* Bytes of workspace for mdl_reference_step on this batch or any with no larger counts. */
size_t mdl_reference_workspace_bytes(const struct mdl_config *config,
                                     const struct mdl_batch *batch);

/* As mdl_a2gen_step. */
int mdl_reference_step(const struct mdl_config *config, const mdl_real *params,
                       const struct mdl_batch *batch, void *workspace, struct mdl_losses *losses_p,
                       struct mdl_grads *grads);

/* Bytes of workspace for mdl_reference_read. */
size_t mdl_reference_read_workspace_bytes(const struct mdl_config *config,
                                          const struct mdl_batch *batch, enum mdl_read_mode mode);

/* As mdl_a2gen_read, every prefix computed from its first token. */
int mdl_reference_read(const struct mdl_config *config, const mdl_real *params,
                       const struct mdl_batch *batch, enum mdl_read_mode mode, void *workspace,
                       struct mdl_reading *reading_p);

#endif

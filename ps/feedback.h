/* Error feedback: what rounding a gradient to bf16 leaves over is added to the row's next gradient.
 *
 *     sent = bf16(gradient + left over)        left over = gradient + left over - sent
 *
 * So over many steps the sum of what a server gets is the sum of the gradients, to one rounding.
 * Left-overs are kept in a table of fixed size with one place a key's hash: of two keys that share
 * a place the newer keeps it, and the older loses one rounding, no more. Threads: one object, one
 * thread. Cost: one look-up a row.
 */
#ifndef PS_FEEDBACK_H
#define PS_FEEDBACK_H

#include <stddef.h>
#include <stdint.h>

struct psv_feedback;

/* For rows of dim floats; memory_bytes at most (at least one row). Errors: CLU_E_NO_MEMORY. */
int psv_feedback_create(int dim, size_t memory_bytes, struct psv_feedback **feedback_p);
void psv_feedback_free(struct psv_feedback *feedback);

/* Rounds one row's gradient [dim] to bf16 [dim], at any address. */
void psv_feedback_round(struct psv_feedback *feedback, uint64_t key, const float *gradient,
                        void *bf16_p);

#endif

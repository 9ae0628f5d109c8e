/* Reading: what a trained A2Gen says of a sample it has not seen, MODEL.md's "What is read off".
 *
 *     greedy   one generated sequence a sample; P(a) = max over positions
 *     exact    all sequences in which no action repeats, as a prefix tree, level by level; P(a) =
 * the total probability of those with a. Above M = 6 a beam of the MDL_READ_BEAM most probable
 * prefixes a level stands for the tree, and P is normalised by what the beam kept
 *
 * Target arrays of the batch are never read: evaluation does not see them. 100 candidates for one
 * user are a batch of 100 samples with the same history; what they share is computed once. The
 * result depends neither on threads nor on what else is in the batch. Threads: any, one call at a
 * time per workspace.
 */
#ifndef MODEL_READ_H
#define MODEL_READ_H

#include <stddef.h>
#include <stdint.h>

#include "model/batch.h"
#include "model/config.h"

enum mdl_read_mode {
    MDL_READ_GREEDY,
    MDL_READ_EXACT,
};

enum { MDL_READ_BEAM = 128 };

/* Output arrays of the caller; C = M + 1. Any of them may be NULL. */
struct mdl_reading {
    mdl_real *p;            /* [n_samples, C] P(a); p[1] = 1 for start; p[0] = 0 */
    mdl_real *time;         /* [n_samples, C] T(a); 0 for start and where P(a) = 0 */
    mdl_real *time_literal; /* [n_samples, C] the paper's unnormalised sum_i P_i[a] That_i: greedy;
                               in exact mode P(a) T(a) */
    int *sequence_length;   /* [n_samples] tokens of the reported sequence, start included */
    uint8_t
        *sequence_action; /* [n_samples, M] greedy: as generated up to the first padding, which may
                             name an action twice; exact: the most probable. 0 past the length */
    mdl_real *sequence_time; /* [n_samples, M] */
    mdl_real *sequence_p;    /* [n_samples] the sequence's probability */
};

/* MDL_READ_GREEDY or MDL_READ_EXACT by name ("greedy", "exact"): 0, or CLU_E_CONFIG (logged). */
int mdl_read_mode_of(const char *name, enum mdl_read_mode *mode_p);

/* Bytes of workspace for reading this batch, or any with no larger counts, in this mode. */
size_t mdl_read_workspace_bytes(const struct mdl_config *config, const struct mdl_batch *batch,
                                enum mdl_read_mode mode);

/* Reads every sample of the batch. A generated time is fed back as it is (phi clamps it); padding
 * is fed with time 0, as training does. workspace aligned to 64 bytes. Errors: CLU_E_DATA (logged),
 * CLU_E_CONFIG, CLU_E_NO_MEMORY as for the step. Source: MODEL.md, section 5.2 of the paper. */
int mdl_a2gen_read(const struct mdl_config *config, const mdl_real *params,
                   const struct mdl_batch *batch, enum mdl_read_mode mode, void *workspace,
                   struct mdl_reading *reading_p);

#endif

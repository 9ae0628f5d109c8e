/* A batch as the model sees it: a view over arrays that somebody else owns, packed, nothing padded.
 *
 *     sample_user, sample_item --> rows of user, item           features of distinct users and
 * items hist_offset --> hist_seq --> seq_item --> rows of item     a seq: a distinct (item, actions
 * known)
 *                              \-> seq_offset --> seq_action, seq_time      its tokens, start first
 *     target_offset --> target_action, target_time              the sample's own sequence, start
 * first
 *
 * A seq is named once, however many histories hold it: what depends on it alone is computed once.
 * Samples of one user are best put side by side; nothing depends on the order but speed (and the
 * order of sums). Threads: a batch is only read.
 */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include <stdint.h>

#include "model/config.h"

struct mdl_batch {
    int n_samples;
    int n_global; /* samples of the global batch over all ranks: the B of the losses' 1/B */
    int n_users, n_items, n_seqs;
    const mdl_real *user; /* [n_users, user_dim] F_u of the distinct users */
    const mdl_real
        *item; /* [n_items, item_dim] F_x of the distinct items, targets and history alike */
    const int *sample_user, *sample_item; /* [n_samples] rows of user and item */
    const int *seq_item;                  /* [n_seqs] row of item */
    const int *seq_offset;                /* [n_seqs + 1] into seq_action, seq_time; [0] = 0 */
    const uint8_t *seq_action; /* [seq_offset[n_seqs]] 1..M; every seq holds 1..M tokens */
    const float *seq_time;     /* the same shape; T >= 0 */
    const int
        *hist_offset;    /* [n_samples + 1] into hist_seq; [0] = 0; at most H a sample, 0 allowed */
    const int *hist_seq; /* oldest first; recency r = distance from the sample's end */
    const int *target_offset;     /* [n_samples + 1] into target_action, target_time; [0] = 0 */
    const uint8_t *target_action; /* first token start (1), 1..M tokens a sample */
    const float *target_time;
};

/* 0 when every index, offset, action and length is in range; else CLU_E_DATA with the place in the
 * log. with_targets: also checks the target arrays (reading does not use them, they may be NULL
 * there). The step and the reading call it themselves; the cost is one pass over the indices. */
int mdl_batch_check(const struct mdl_config *config, const struct mdl_batch *batch,
                    int with_targets);

#endif

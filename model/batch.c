/* Is a batch well formed? One pass over the indices; the places named are those of struct
 * mdl_batch. */
#include "model/batch.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stddef.h>

static int indices_below(const char *name, const int *index, int n, int limit)
{
    for (int i = 0; i < n; i++)
        if (index[i] < 0 || index[i] >= limit)
            return clu_fail(CLU_E_DATA, "batch: %s[%d] is %d, expected 0 to %d", name, i, index[i],
                            limit - 1);
    return CLU_OK;
}

/* offset [n + 1] starts at 0 and grows by min..max an entry */
static int offsets_step(const char *name, const int *offset, int n, int min, int max)
{
    if (offset[0] != 0)
        return clu_fail(CLU_E_DATA, "batch: %s[0] is %d, expected 0", name, offset[0]);
    for (int i = 0; i < n; i++) {
        /* by comparison, as a difference of two hostile ints may overflow */
        if (offset[i + 1] < offset[i] || offset[i + 1] - offset[i] < min ||
            offset[i + 1] - offset[i] > max)
            return clu_fail(CLU_E_DATA, "batch: %s[%d..%d] is %d..%d, expected %d to %d entries",
                            name, i, i + 1, offset[i], offset[i + 1], min, max);
    }
    return CLU_OK;
}

/* n sequences of tokens: actions 1..M, finite times, none negative */
static int tokens_fit(const char *name, const struct mdl_config *config, const uint8_t *action,
                      const float *time, int n)
{
    for (int i = 0; i < n; i++) {
        if (action[i] < 1 || action[i] > config->n_actions)
            return clu_fail(CLU_E_DATA, "batch: %s_action[%d] is %d, expected 1 to %d", name, i,
                            action[i], config->n_actions);
        if (!(time[i] >= 0 && time[i] < 1e30f))
            return clu_fail(CLU_E_DATA, "batch: %s_time[%d] is %g, expected 0 or more", name, i,
                            (double)time[i]);
    }
    return CLU_OK;
}

int mdl_batch_check(const struct mdl_config *config, const struct mdl_batch *batch,
                    int with_targets)
{
    const struct mdl_batch *b = batch;
    if (b->n_samples < 0 || b->n_users < 0 || b->n_items < 0 || b->n_seqs < 0 ||
        b->n_global < b->n_samples)
        return clu_fail(CLU_E_DATA,
                        "batch: %d samples of %d, %d users, %d items, %d seqs: expected none "
                        "negative and n_global at least n_samples",
                        b->n_samples, b->n_global, b->n_users, b->n_items, b->n_seqs);
    int M = config->n_actions;
    int status = indices_below("sample_user", b->sample_user, b->n_samples, b->n_users);
    if (status == CLU_OK)
        status = indices_below("sample_item", b->sample_item, b->n_samples, b->n_items);
    if (status == CLU_OK)
        status = indices_below("seq_item", b->seq_item, b->n_seqs, b->n_items);
    if (status == CLU_OK)
        status = offsets_step("seq_offset", b->seq_offset, b->n_seqs, 1, M);
    if (status == CLU_OK)
        status = offsets_step("hist_offset", b->hist_offset, b->n_samples, 0, config->history);
    if (status == CLU_OK)
        status = indices_below("hist_seq", b->hist_seq, b->hist_offset[b->n_samples], b->n_seqs);
    if (status == CLU_OK)
        status = tokens_fit("seq", config, b->seq_action, b->seq_time, b->seq_offset[b->n_seqs]);
    if (status != CLU_OK || !with_targets)
        return status;
    status = offsets_step("target_offset", b->target_offset, b->n_samples, 1, M);
    if (status == CLU_OK)
        status = tokens_fit("target", config, b->target_action, b->target_time,
                            b->target_offset[b->n_samples]);
    return status;
}

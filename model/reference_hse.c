/* The history encoder of the reference. A seq is encoded once (a seq is by definition a distinct
 * thing); the item dimension is computed sample by sample from Z, nothing shared.
 */
#include "model/reference_hse.h"

#include <string.h>

void mdl_reference_hse_take(struct mdl_reference_hse *hse, struct mdl_arena *arena,
                            const struct mdl_config *config, const struct mdl_batch *batch)
{
    int d = config->width, f = config->item_dim, n_seqs = batch->n_seqs;
    int n_tokens = batch->seq_offset[n_seqs], n_hist = batch->hist_offset[batch->n_samples];
    hse->batch = batch;
    hse->d = d;
    hse->item_dim = f;
    hse->tokens.d = d;
    mdl_reference_tokens_take(&hse->tokens, arena, n_tokens);
    hse->act = (struct mdl_reference_cam){.d = d, .h = config->heads, .d_s = d, .d_c = f};
    mdl_reference_cam_take(&hse->act, arena, n_seqs, n_tokens, config->n_actions);
    hse->item = (struct mdl_reference_cam){
        .d = d, .h = config->heads, .d_s = d + f, .d_c = f, .history = config->history};
    mdl_reference_cam_take(&hse->item, arena, batch->n_samples, n_hist, config->history);
    hse->act_ctx = MDL_TAKE(arena, (size_t)n_seqs * f, mdl_real);
    hse->dact_ctx = MDL_TAKE(arena, (size_t)n_seqs * f, mdl_real);
    hse->Seq = MDL_TAKE(arena, (size_t)n_seqs * d, mdl_real);
    hse->dSeq = MDL_TAKE(arena, (size_t)n_seqs * d, mdl_real);
    hse->dtok = MDL_TAKE(arena, (size_t)n_tokens * d, mdl_real);
    hse->dYact = MDL_TAKE(arena, (size_t)n_tokens * d, mdl_real);
    hse->Z = MDL_TAKE(arena, (size_t)n_hist * (d + f), mdl_real);
    hse->dZ = MDL_TAKE(arena, (size_t)n_hist * (d + f), mdl_real);
    hse->dYitem = MDL_TAKE(arena, (size_t)n_hist * d, mdl_real);
    hse->target = MDL_TAKE(arena, (size_t)batch->n_samples * f, mdl_real);
    hse->dtarget = MDL_TAKE(arena, (size_t)batch->n_samples * f, mdl_real);
    hse->Vec = MDL_TAKE(arena, (size_t)batch->n_samples * d, mdl_real);
}

/* out [d] = the mean of rows first..last - 1 of Y; zero when there are none */
static void mean_rows(const mdl_real *Y, int first, int last, int d, mdl_real *out)
{
    memset(out, 0, (size_t)d * sizeof(*out));
    for (int i = first; i < last; i++)
        for (int k = 0; k < d; k++)
            out[k] += Y[(size_t)i * d + k] / (mdl_real)(last - first);
}

static void mean_rows_backward(const mdl_real *dout, int first, int last, int d, mdl_real *dY)
{
    for (int i = first; i < last; i++)
        for (int k = 0; k < d; k++)
            dY[(size_t)i * d + k] = dout[k] / (mdl_real)(last - first);
}

static void copy_row(mdl_real *to, const mdl_real *from, int n)
{
    memcpy(to, from, (size_t)n * sizeof(*to));
}

static void add_row(mdl_real *to, const mdl_real *from, int n)
{
    for (int k = 0; k < n; k++)
        to[k] += from[k];
}

void mdl_reference_hse_forward(struct mdl_reference_hse *hse, const struct mdl_weights *w)
{
    const struct mdl_batch *b = hse->batch;
    int d = hse->d, f = hse->item_dim;
    hse->tokens.n = b->seq_offset[b->n_seqs];
    for (int s = 0; s < b->n_seqs; s++) {
        copy_row(hse->act_ctx + (size_t)s * f, b->item + (size_t)b->seq_item[s] * f, f);
        for (int i = b->seq_offset[s]; i < b->seq_offset[s + 1]; i++) {
            hse->tokens.action[i] = b->seq_action[i];
            hse->tokens.time[i] = b->seq_time[i];
            hse->tokens.position[i] = (uint8_t)(i - b->seq_offset[s]);
        }
    }
    mdl_reference_tokens_forward(&hse->tokens, &w->token_hist);
    hse->act.n_groups = b->n_seqs;
    hse->act.offset = b->seq_offset;
    hse->act.S = hse->tokens.tok;
    hse->act.ctx = hse->act_ctx;
    mdl_reference_cam_forward(&hse->act, &w->cam_act);
    for (int s = 0; s < b->n_seqs; s++)
        mean_rows(hse->act.Y, b->seq_offset[s], b->seq_offset[s + 1], d, hse->Seq + (size_t)s * d);

    for (int i = 0; i < b->hist_offset[b->n_samples]; i++) {
        int s = b->hist_seq[i];
        copy_row(hse->Z + (size_t)i * (d + f), hse->Seq + (size_t)s * d, d);
        copy_row(hse->Z + (size_t)i * (d + f) + d, b->item + (size_t)b->seq_item[s] * f, f);
    }
    for (int i = 0; i < b->n_samples; i++)
        copy_row(hse->target + (size_t)i * f, b->item + (size_t)b->sample_item[i] * f, f);
    hse->item.n_groups = b->n_samples;
    hse->item.offset = b->hist_offset;
    hse->item.S = hse->Z;
    hse->item.ctx = hse->target;
    mdl_reference_cam_forward(&hse->item, &w->cam_item);
    for (int i = 0; i < b->n_samples; i++)
        mean_rows(hse->item.Y, b->hist_offset[i], b->hist_offset[i + 1], d,
                  hse->Vec + (size_t)i * d);
}

void mdl_reference_hse_backward(struct mdl_reference_hse *hse, const struct mdl_weights *w,
                                const mdl_real *dVec, struct mdl_weights *dw, mdl_real *d_item)
{
    const struct mdl_batch *b = hse->batch;
    int d = hse->d, f = hse->item_dim;
    for (int i = 0; i < b->n_samples; i++)
        mean_rows_backward(dVec + (size_t)i * d, b->hist_offset[i], b->hist_offset[i + 1], d,
                           hse->dYitem);
    mdl_reference_cam_backward(&hse->item, &w->cam_item, hse->dYitem, &dw->cam_item, hse->dZ,
                               hse->dtarget);
    for (int i = 0; i < b->n_samples; i++)
        add_row(d_item + (size_t)b->sample_item[i] * f, hse->dtarget + (size_t)i * f, f);
    memset(hse->dSeq, 0, (size_t)b->n_seqs * d * sizeof(mdl_real));
    for (int i = 0; i < b->hist_offset[b->n_samples]; i++) {
        int s = b->hist_seq[i];
        add_row(hse->dSeq + (size_t)s * d, hse->dZ + (size_t)i * (d + f), d);
        add_row(d_item + (size_t)b->seq_item[s] * f, hse->dZ + (size_t)i * (d + f) + d, f);
    }

    for (int s = 0; s < b->n_seqs; s++)
        mean_rows_backward(hse->dSeq + (size_t)s * d, b->seq_offset[s], b->seq_offset[s + 1], d,
                           hse->dYact);
    mdl_reference_cam_backward(&hse->act, &w->cam_act, hse->dYact, &dw->cam_act, hse->dtok,
                               hse->dact_ctx);
    for (int s = 0; s < b->n_seqs; s++)
        add_row(d_item + (size_t)b->seq_item[s] * f, hse->dact_ctx + (size_t)s * f, f);
    mdl_reference_tokens_backward(&hse->tokens, &w->token_hist, hse->dtok, &dw->token_hist);
}

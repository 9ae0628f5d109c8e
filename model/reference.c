/* One step of the reference: HSE, AAG with teacher forcing, decision layer, losses, and back.
 *
 *     F_context = [F_u, F_target, Vec_hist]       Y = CAM_gen(tokens 1..M-1, F_context), causal
 *
 * The target's tokens are padded here, and only here: positions past the sample's m hold class 0
 * and time 0, are fed with their P[i], and are predicted as class 0.
 */
#include "model/reference.h"

#include "cluster/status.h"
#include "model/params.h"
#include "model/reference_hse.h"

#include <string.h>

struct reference {
    struct mdl_reference_hse hse;
    int d_c;                            /* |F_context| */
    mdl_real *context;                  /* [n_samples, d_c] */
    int *offset;                        /* [n_samples + 1] rows of the generator: M - 1 a sample */
    struct mdl_reference_tokens tokens; /* [n_samples * (M - 1)] */
    struct mdl_reference_cam gen;
    struct mdl_reference_decision decision;
    mdl_real *dY, *dtok, *dcontext, *dVec;
};

static void take(struct reference *r, struct mdl_arena *arena, const struct mdl_config *config,
                 const struct mdl_batch *batch)
{
    int d = config->width, n = batch->n_samples, rows = n * (config->n_actions - 1);
    mdl_reference_hse_take(&r->hse, arena, config, batch);
    r->d_c = config->user_dim + config->item_dim + d;
    r->context = MDL_TAKE(arena, (size_t)n * r->d_c, mdl_real);
    r->dcontext = MDL_TAKE(arena, (size_t)n * r->d_c, mdl_real);
    r->offset = MDL_TAKE(arena, n + 1, int);
    r->tokens.d = d;
    mdl_reference_tokens_take(&r->tokens, arena, rows);
    r->gen = (struct mdl_reference_cam){
        .d = d, .h = config->heads, .d_s = d, .d_c = r->d_c, .causal = 1};
    mdl_reference_cam_take(&r->gen, arena, n, rows, config->n_actions - 1);
    r->decision.d = d;
    r->decision.C = config->n_actions + 1;
    mdl_reference_decision_take(&r->decision, arena, rows);
    r->dY = MDL_TAKE(arena, (size_t)rows * d, mdl_real);
    r->dtok = MDL_TAKE(arena, (size_t)rows * d, mdl_real);
    r->dVec = MDL_TAKE(arena, (size_t)n * d, mdl_real);
}

size_t mdl_reference_workspace_bytes(const struct mdl_config *config, const struct mdl_batch *batch)
{
    struct mdl_arena arena = {0};
    struct reference r = {0};
    take(&r, &arena, config, batch);
    return arena.used;
}

/* F_context and the padded tokens of every sample */
static void fill_generator(struct reference *r, const struct mdl_config *config,
                           const struct mdl_batch *b)
{
    int M = config->n_actions, u = config->user_dim, f = config->item_dim;
    size_t real = sizeof(mdl_real);
    r->tokens.n = b->n_samples * (M - 1);
    for (int i = 0; i < b->n_samples; i++) {
        mdl_real *c = r->context + (size_t)i * r->d_c;
        memcpy(c, b->user + (size_t)b->sample_user[i] * u, (size_t)u * real);
        memcpy(c + u, b->item + (size_t)b->sample_item[i] * f, (size_t)f * real);
        memcpy(c + u + f, r->hse.Vec + (size_t)i * config->width, (size_t)config->width * real);
        r->offset[i] = i * (M - 1);
        int first = b->target_offset[i], m = b->target_offset[i + 1] - first;
        for (int k = 0; k < M - 1; k++) {
            int at = i * (M - 1) + k;
            r->tokens.action[at] = k < m ? b->target_action[first + k] : 0;
            r->tokens.time[at] = k < m ? b->target_time[first + k] : 0;
            r->tokens.position[at] = (uint8_t)k;
        }
    }
    r->offset[b->n_samples] = b->n_samples * (M - 1);
}

static void losses_of_batch(struct reference *r, const struct mdl_config *config,
                            const struct mdl_batch *b, struct mdl_losses *losses_p)
{
    int M = config->n_actions, C = M + 1;
    double sums[3] = {0};
    for (int i = 0; i < b->n_samples; i++) {
        int first = b->target_offset[i];
        size_t row = (size_t)i * (M - 1);
        mdl_sample_losses(config, b->target_offset[i + 1] - first, b->target_action + first,
                          b->target_time + first, r->decision.P + row * C, r->decision.That + row,
                          1.0 / b->n_global, sums, r->decision.dP + row * C,
                          r->decision.dThat + row);
    }
    int n = b->n_global > 0 ? b->n_global : 1;
    losses_p->cls = sums[0] / n;
    losses_p->reg = sums[1] / n;
    losses_p->order = sums[2] / n;
    losses_p->total = (double)config->alpha * losses_p->cls + (double)config->beta * losses_p->reg +
                      (double)config->gamma * losses_p->order;
}

static void backward(struct reference *r, const struct mdl_config *config,
                     const struct mdl_weights *w, const struct mdl_batch *b,
                     struct mdl_grads *grads)
{
    int d = config->width, u = config->user_dim, f = config->item_dim;
    struct mdl_weights dw;
    memset(grads->dense, 0, mdl_n_params(config) * sizeof(mdl_real));
    memset(grads->user, 0, (size_t)b->n_users * u * sizeof(mdl_real));
    memset(grads->item, 0, (size_t)b->n_items * f * sizeof(mdl_real));
    mdl_weights_view(config, grads->dense, &dw);
    mdl_reference_decision_backward(&r->decision, &w->decision, &dw.decision, r->dY);
    mdl_reference_cam_backward(&r->gen, &w->cam_gen, r->dY, &dw.cam_gen, r->dtok, r->dcontext);
    mdl_reference_tokens_backward(&r->tokens, &w->token_gen, r->dtok, &dw.token_gen);
    for (int i = 0; i < b->n_samples; i++) {
        const mdl_real *dc = r->dcontext + (size_t)i * r->d_c;
        for (int k = 0; k < u; k++)
            grads->user[(size_t)b->sample_user[i] * u + k] += dc[k];
        for (int k = 0; k < f; k++)
            grads->item[(size_t)b->sample_item[i] * f + k] += dc[u + k];
        memcpy(r->dVec + (size_t)i * d, dc + u + f, (size_t)d * sizeof(mdl_real));
    }
    mdl_reference_hse_backward(&r->hse, w, r->dVec, &dw, grads->item);
}

int mdl_reference_step(const struct mdl_config *config, const mdl_real *params,
                       const struct mdl_batch *batch, void *workspace, struct mdl_losses *losses_p,
                       struct mdl_grads *grads)
{
    int status = mdl_config_check(config);
    if (status == CLU_OK)
        status = mdl_batch_check(config, batch, 1);
    if (status != CLU_OK)
        return status;
    struct mdl_arena arena = {.base = workspace};
    struct reference r = {0};
    struct mdl_weights w;
    take(&r, &arena, config, batch);
    mdl_weights_view(config, params, &w);
    mdl_reference_hse_forward(&r.hse, &w);
    fill_generator(&r, config, batch);
    mdl_reference_tokens_forward(&r.tokens, &w.token_gen);
    r.gen.n_groups = batch->n_samples;
    r.gen.offset = r.offset;
    r.gen.S = r.tokens.tok;
    r.gen.ctx = r.context;
    mdl_reference_cam_forward(&r.gen, &w.cam_gen);
    r.decision.n = r.tokens.n;
    r.decision.Y = r.gen.Y;
    mdl_reference_decision_forward(&r.decision, &w.decision);
    losses_of_batch(&r, config, batch, losses_p);
    if (grads)
        backward(&r, config, &w, batch, grads);
    return CLU_OK;
}

/* Reading, the reference: Vec_hist of all samples at once, then one sample after the other; every
 * question to the generator feeds the whole prefix again from its first token. Nothing is cached,
 * so there is nothing to get wrong in a cache.
 */
#include "model/reference.h"

#include "cluster/status.h"
#include "model/greedy.h"
#include "model/reference_hse.h"
#include "model/tree.h"

#include <string.h>

struct reader {
    struct mdl_reference_hse hse;
    int M, d_c, d;
    mdl_real *context; /* [max nodes, d_c] the same row again and again */
    int *offset;       /* [max nodes + 1] */
    struct mdl_reference_tokens tokens;
    struct mdl_reference_cam gen;
    struct mdl_reference_decision decision;
    mdl_real *Y; /* [max nodes, d] the last row of every prefix */
    struct mdl_tree tree;
    const struct mdl_weights *w;
};

static void take(struct reader *r, struct mdl_arena *arena, const struct mdl_config *config,
                 const struct mdl_batch *batch)
{
    int d = config->width, M = config->n_actions, nodes = mdl_tree_max_level_nodes(M);
    mdl_reference_hse_take(&r->hse, arena, config, batch);
    r->M = M;
    r->d = d;
    r->d_c = config->user_dim + config->item_dim + d;
    r->context = MDL_TAKE(arena, (size_t)nodes * r->d_c, mdl_real);
    r->offset = MDL_TAKE(arena, nodes + 1, int);
    r->tokens.d = d;
    mdl_reference_tokens_take(&r->tokens, arena, nodes * M);
    r->gen = (struct mdl_reference_cam){
        .d = d, .h = config->heads, .d_s = d, .d_c = r->d_c, .causal = 1};
    mdl_reference_cam_take(&r->gen, arena, nodes, nodes * M, M);
    r->decision.d = d;
    r->decision.C = M + 1;
    mdl_reference_decision_take(&r->decision, arena, nodes);
    r->Y = MDL_TAKE(arena, (size_t)nodes * d, mdl_real);
    mdl_tree_take(&r->tree, arena, M);
}

size_t mdl_reference_read_workspace_bytes(const struct mdl_config *config,
                                          const struct mdl_batch *batch, enum mdl_read_mode mode)
{
    struct mdl_arena arena = {0};
    struct reader r = {0};
    (void)mode;
    take(&r, &arena, config, batch);
    return arena.used;
}

/* what follows each of n prefixes of length tokens, filled into r->tokens: decision.P,
 * decision.That */
static void ask(struct reader *r, int n, int length)
{
    r->tokens.n = n * length;
    for (int i = 0; i <= n; i++)
        r->offset[i] = i * length;
    for (int i = 1; i < n; i++)
        memcpy(r->context + (size_t)i * r->d_c, r->context, (size_t)r->d_c * sizeof(mdl_real));
    mdl_reference_tokens_forward(&r->tokens, &r->w->token_gen);
    r->gen.n_groups = n;
    r->gen.offset = r->offset;
    r->gen.S = r->tokens.tok;
    r->gen.ctx = r->context;
    mdl_reference_cam_forward(&r->gen, &r->w->cam_gen);
    for (int i = 0; i < n; i++)
        memcpy(r->Y + (size_t)i * r->d, r->gen.Y + ((size_t)(i + 1) * length - 1) * r->d,
               (size_t)r->d * sizeof(mdl_real));
    r->decision.n = n;
    r->decision.Y = r->Y;
    mdl_reference_decision_forward(&r->decision, &r->w->decision);
}

static void set_token(struct reader *r, int at, int action, mdl_real time, int position)
{
    r->tokens.action[at] = (uint8_t)action;
    r->tokens.time[at] = (float)time;
    r->tokens.position[at] = (uint8_t)position;
}

static void read_greedy(struct reader *r, int i, struct mdl_reading *out)
{
    struct mdl_greedy greedy;
    uint8_t action[MDL_MAX_ACTIONS];
    mdl_real time[MDL_MAX_ACTIONS];
    mdl_greedy_start(&greedy, r->M);
    for (int k = 0; k < r->M - 1; k++) {
        action[k] = greedy.action;
        time[k] = greedy.time;
        for (int j = 0; j <= k; j++)
            set_token(r, j, action[j], time[j], j);
        ask(r, 1, k + 1);
        mdl_greedy_take_answer(&greedy, r->decision.P, r->decision.That[0]);
    }
    mdl_greedy_result(&greedy, i, out);
}

static void read_exact(struct reader *r, int i, struct mdl_reading *out)
{
    struct mdl_tree *tree = &r->tree;
    mdl_tree_start(tree);
    for (int k = 0; k < r->M - 1; k++) {
        int first = tree->level[k], n = tree->level[k + 1] - first;
        for (int v = 0; v < n; v++)
            for (int u = first + v, j = k; j >= 0; u = tree->parent[u], j--)
                set_token(r, v * (k + 1) + j, tree->action[u], tree->time[u], j);
        ask(r, n, k + 1);
        mdl_tree_expand(tree, r->decision.P, r->decision.That);
    }
    mdl_tree_result(tree, i, out);
}

int mdl_reference_read(const struct mdl_config *config, const mdl_real *params,
                       const struct mdl_batch *batch, enum mdl_read_mode mode, void *workspace,
                       struct mdl_reading *reading_p)
{
    int status = mdl_config_check(config);
    if (status == CLU_OK)
        status = mdl_batch_check(config, batch, 0);
    if (status != CLU_OK)
        return status;
    struct mdl_arena arena = {.base = workspace};
    struct reader r = {0};
    struct mdl_weights w;
    take(&r, &arena, config, batch);
    mdl_weights_view(config, params, &w);
    r.w = &w;
    mdl_reference_hse_forward(&r.hse, &w);
    int u = config->user_dim, f = config->item_dim;
    for (int i = 0; i < batch->n_samples; i++) {
        size_t real = sizeof(mdl_real);
        memcpy(r.context, batch->user + (size_t)batch->sample_user[i] * u, (size_t)u * real);
        memcpy(r.context + u, batch->item + (size_t)batch->sample_item[i] * f, (size_t)f * real);
        memcpy(r.context + u + f, r.hse.Vec + (size_t)i * r.d, (size_t)r.d * real);
        if (mode == MDL_READ_GREEDY)
            read_greedy(&r, i, reading_p);
        else
            read_exact(&r, i, reading_p);
    }
    return CLU_OK;
}

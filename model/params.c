/* One table of tensors, from which everything else follows: count, offsets, names, views, initial
 * values.
 *
 * A row of the table is a member of struct mdl_weights, spelt as it is named outside
 * ("cam_act.W_x"), with its shape as two small formulas over the configuration. The order of the
 * rows is the order in memory.
 */
#include "model/params.h"

#include "cluster/hash.h"
#include "cluster/status.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* a size that depends on the configuration */
enum size_of {
    ONE,
    D,       /* width */
    TWO_D,   /* 2 d */
    CLASSES, /* C */
    ACTIONS, /* M */
    HEADS,   /* h */
    HISTORY, /* H */
    PHI,     /* 9 */
    ITEM,    /* |F_x| */
    D_ITEM,  /* d + |F_x|: Z */
    CONTEXT, /* |F_u| + |F_x| + d: F_context */
};

struct row {
    const char *name;
    size_t member; /* offset in struct mdl_weights */
    int n_dims;
    enum size_of rows, cols;
};

#define VECTOR(path, cols)                                                                         \
    {                                                                                              \
#path, offsetof(struct mdl_weights, path), 1, ONE, cols                                    \
    }
#define MAP(path, rows, cols)                                                                      \
    {                                                                                              \
#path, offsetof(struct mdl_weights, path), 2, rows, cols                                   \
    }

#define TOKEN_ROWS(t)                                                                              \
    MAP(t.E, CLASSES, D), MAP(t.W_t, PHI, D), VECTOR(t.b_t, D), MAP(t.P, ACTIONS, D)

#define CAM_ROWS(t, d_s, d_c)                                                                      \
    MAP(t.W_x, d_s, D), VECTOR(t.b_x, D), MAP(t.W_q, D, D), VECTOR(t.b_q, D), MAP(t.W_c, d_c, D),  \
        MAP(t.W_k, D, D), MAP(t.W_v, D, D), VECTOR(t.b_v, D), MAP(t.W_g, d_c, HEADS),              \
        VECTOR(t.b_g, HEADS), MAP(t.W_o, D, D), VECTOR(t.b_o, D), VECTOR(t.ln1_w, D),              \
        VECTOR(t.ln1_b, D), MAP(t.W_1, D, TWO_D), VECTOR(t.b_1, TWO_D), MAP(t.W_2, TWO_D, D),      \
        VECTOR(t.b_2, D), VECTOR(t.ln2_w, D), VECTOR(t.ln2_b, D)

static const struct row table[] = {
    TOKEN_ROWS(token_hist),
    TOKEN_ROWS(token_gen),
    CAM_ROWS(cam_act, D, ITEM),
    CAM_ROWS(cam_item, D_ITEM, ITEM),
    MAP(cam_item.Rho, HEADS, HISTORY),
    CAM_ROWS(cam_gen, D, CONTEXT),
    MAP(decision.W_c1, D, D),
    VECTOR(decision.b_c1, D),
    MAP(decision.W_c2, D, CLASSES),
    VECTOR(decision.b_c2, CLASSES),
    MAP(decision.W_t1, D, D),
    VECTOR(decision.b_t1, D),
    VECTOR(decision.w_t2, D),
    VECTOR(decision.b_t2, ONE),
};

enum { N_ROWS = sizeof(table) / sizeof(table[0]) };

static int size_value(const struct mdl_config *c, enum size_of size)
{
    switch (size) {
    case ONE:
        return 1;
    case D:
        return c->width;
    case TWO_D:
        return 2 * c->width;
    case CLASSES:
        return c->n_actions + 1;
    case ACTIONS:
        return c->n_actions;
    case HEADS:
        return c->heads;
    case HISTORY:
        return c->history;
    case PHI:
        return MDL_TIME_FEATURES;
    case ITEM:
        return c->item_dim;
    case D_ITEM:
        return c->width + c->item_dim;
    case CONTEXT:
        return c->user_dim + c->item_dim + c->width;
    }
    return 0;
}

static size_t row_count(const struct mdl_config *config, int i)
{
    return (size_t)size_value(config, table[i].rows) * (size_t)size_value(config, table[i].cols);
}

size_t mdl_n_params(const struct mdl_config *config)
{
    size_t n = 0;
    for (int i = 0; i < N_ROWS; i++)
        n += row_count(config, i);
    return n;
}

int mdl_n_tensors(const struct mdl_config *config)
{
    (void)config;
    return N_ROWS;
}

void mdl_tensor(const struct mdl_config *config, int i, struct mdl_tensor *tensor_p)
{
    size_t offset = 0;
    for (int k = 0; k < i; k++)
        offset += row_count(config, k);
    snprintf(tensor_p->name, sizeof(tensor_p->name), "%s", table[i].name);
    tensor_p->n_dims = table[i].n_dims;
    tensor_p->rows = size_value(config, table[i].rows);
    tensor_p->cols = size_value(config, table[i].cols);
    tensor_p->offset = offset;
}

int mdl_tensor_find(const struct mdl_config *config, const char *name, struct mdl_tensor *tensor_p)
{
    for (int i = 0; i < N_ROWS; i++) {
        if (strcmp(table[i].name, name) == 0) {
            mdl_tensor(config, i, tensor_p);
            return CLU_OK;
        }
    }
    return CLU_E_NOT_FOUND;
}

void mdl_weights_view(const struct mdl_config *config, const mdl_real *flat,
                      struct mdl_weights *view_p)
{
    memset(view_p, 0, sizeof(*view_p));
    const mdl_real *at = flat;
    for (int i = 0; i < N_ROWS; i++) {
        /* the view is shared with gradients, hence its members are not const */
        mdl_real *member = (mdl_real *)(uintptr_t)at;
        memcpy((char *)view_p + table[i].member, &member, sizeof(member));
        at += row_count(config, i);
    }
}

/* the last part of a tensor's name */
static const char *leaf(const char *name)
{
    return strrchr(name, '.') + 1;
}

static int is_map(const char *name)
{
    return strncmp(leaf(name), "W_", 2) == 0 || strcmp(leaf(name), "w_t2") == 0;
}

/* How far from 0 tensor i starts: uniform in +-range. W_g stays 0 so that all heads start with
 * weight 1. */
static double init_range(const struct mdl_tensor *tensor)
{
    const char *name = leaf(tensor->name);
    if (strcmp(name, "E") == 0 || strcmp(name, "P") == 0)
        return 0.1;
    if (strcmp(name, "w_t2") == 0)
        return sqrt(6.0 / (tensor->cols + 1));
    if (is_map(tensor->name) && strcmp(name, "W_g") != 0)
        return sqrt(6.0 / (tensor->rows + tensor->cols));
    return 0;
}

void mdl_params_init(const struct mdl_config *config, uint64_t seed, mdl_real *params)
{
    for (int i = 0; i < N_ROWS; i++) {
        struct mdl_tensor tensor;
        mdl_tensor(config, i, &tensor);
        size_t n = (size_t)tensor.rows * (size_t)tensor.cols;
        mdl_real *values = params + tensor.offset;
        const char *name = leaf(tensor.name);
        mdl_real constant = strcmp(name, "ln1_w") == 0 || strcmp(name, "ln2_w") == 0;
        for (size_t k = 0; k < n; k++)
            values[k] = constant;
        double range = init_range(&tensor);
        if (range == 0)
            continue;
        /* drawn by the tensor's name and the place in it, so that another tensor's size moves
         * nothing */
        uint64_t state = clu_mix(seed + clu_hash_bytes(tensor.name, strlen(tensor.name)));
        for (size_t k = 0; k < n; k++) {
            uint64_t bits = clu_mix(state + (k + 1) * 0x9e3779b97f4a7c15u);
            double unit = (double)(bits >> 40) * 0x1p-23 - 1;
            values[k] = (mdl_real)(float)(unit * range);
        }
    }
}

void mdl_params_decay_mask(const struct mdl_config *config, uint8_t *mask)
{
    for (int i = 0; i < N_ROWS; i++) {
        size_t n = row_count(config, i);
        memset(mask, is_map(table[i].name), n);
        mask += n;
    }
}

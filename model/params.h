/* The dense parameters: one flat vector, and the table that says what lies where in it.
 *
 *     token_hist. token_gen.          E [C, d]  W_t [9, d]  b_t [d]  P [M, d]
 *     cam_act. cam_item. cam_gen.     W_x b_x W_q b_q W_c W_k W_v b_v W_g b_g W_o b_o ln1_w ln1_b
 * W_1 b_1 W_2 b_2 ln2_w ln2_b cam_item.Rho [h, H] decision.                       W_c1 b_c1 W_c2
 * b_c2 W_t1 b_t1 w_t2 b_t2
 *
 * Maps are [in, out], row-major, y = x W + b. The names and the layout are those of an exported
 * dense.safetensors. Gradients and optimiser state are vectors of the same layout. Threads: any.
 */
#ifndef MODEL_PARAMS_H
#define MODEL_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

struct mdl_tensor {
    char name[32];
    int n_dims;     /* 1: a vector [cols]; 2: [rows, cols] */
    int rows, cols; /* rows = 1 for a vector */
    size_t offset;  /* of its first number in the flat vector */
};

/* Numbers in the flat vector. */
size_t mdl_n_params(const struct mdl_config *config);

/* Tensors in the table. */
int mdl_n_tensors(const struct mdl_config *config);

/* Tensor i of the table, in order of offset. i: 0..mdl_n_tensors - 1. */
void mdl_tensor(const struct mdl_config *config, int i, struct mdl_tensor *tensor_p);

/* The tensor of that full name: 0, or CLU_E_NOT_FOUND (not logged). */
int mdl_tensor_find(const struct mdl_config *config, const char *name, struct mdl_tensor *tensor_p);

/* Fills params [mdl_n_params] from the seed alone, the same on every machine: maps uniform with
 * variance 2 / (in + out), E and P uniform in +-0.1, LayerNorm weights 1, everything else (biases,
 * W_g, Rho) 0. */
void mdl_params_init(const struct mdl_config *config, uint64_t seed, mdl_real *params);

/* Fills mask [mdl_n_params] with 1 where weight decay makes sense (the maps W_*), 0 elsewhere
 * (biases, LayerNorm, embeddings, Rho). */
void mdl_params_decay_mask(const struct mdl_config *config, uint8_t *mask);

#endif

/* The memory of fast reading: a task is MDL_READ_TASK samples; their Vec_hist are made one after
 * the other, sharing what equal histories share; then their sequences are generated, MDL_READ_TILE
 * samples together, level by level, with the keys and values of earlier tokens kept by node of the
 * tree. Threads: one task at a time per room.
 */
#ifndef MODEL_FAST_READ_PLAN_H
#define MODEL_FAST_READ_PLAN_H

#include "model/fast_plan.h"
#include "model/greedy.h"
#include "model/tree.h"

enum {
    MDL_READ_TASK = 32,
    MDL_READ_TILE = 8,
    MDL_READ_ROWS = 128, /* rows of a level that go through the maps together */
};

struct mdl_read_room {
    /* the history; item.A holds softmax weights, or E of equal histories, by head [L, Lp] */
    struct mdl_item_room item;
    mdl_real *Q0, *X;   /* [H, d] without context, of the history that is shared */
    mdl_real *factor;   /* [h, Hp] e^(c W_c W_q K^T + rho - max) */
    mdl_real *fV;       /* [H, d] V times its factor */
    mdl_real *W_oG, *R; /* [d, d], [H, d] */
    /* the generator, all samples of the task */
    mdl_real *ctx; /* [task, d_c] */
    mdl_real *cc;  /* [task, wc] */
    /* of the tile */
    mdl_real *KV; /* [tile, nodes, 2d] */
    struct mdl_tree tree[MDL_READ_TILE];
    struct mdl_greedy *greedy; /* [tile] */
    mdl_real *P, *That;        /* [tile * level nodes, C padded], [tile * level nodes] */
    /* of at most MDL_READ_ROWS rows in the works */
    int *sample, *node,
        *parent;            /* [rows] sample of the tile, node of its tree, the parent (-1: none) */
    uint8_t *action;        /* [rows] */
    float *time;            /* [rows] */
    int *pair;              /* [rows] */
    mdl_real *phi;          /* [rows, 9] */
    mdl_real *XQKV;         /* [rows, 4d] */
    mdl_real *N, *T, *Y;    /* [rows, d] */
    struct mdl_kept kept;   /* [rows] */
    mdl_real *hidden, *out; /* [rows, 2d], [rows, out] */
    mdl_real *scores;       /* [h * M], padded */
};

struct mdl_fast_reading {
    struct mdl_fast fast;
    enum mdl_read_mode mode;
    struct mdl_reading *out;
    int nodes;       /* rows of KV a sample has */
    int level_nodes; /* the most nodes of a level */
    struct mdl_read_room room[MDL_MAX_THREADS];
};

/* Sets sizes and takes every array for reading this batch. */
void mdl_fast_reading_take(struct mdl_fast_reading *reading, struct mdl_arena *arena,
                           const struct mdl_config *config, const struct mdl_batch *batch,
                           enum mdl_read_mode mode);

#endif

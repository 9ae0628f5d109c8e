/* The memory of the fast step: what is prepared once per step, what the forward pass keeps for the
 * backward pass, and what a thread uses while it works. The code is in the fast_*.h headers; here
 * are only its arrays.
 *
 *     phase A   chunks of seqs       CAM_act forward, then Seq, and X Q K V of CAM_item
 *     phase B   slices of samples    CAM_item, CAM_gen, losses, and back to X Q K V of the seqs
 *     phase C   slices of seqs       sums those over the slices, and back through CAM_act
 *
 * A slice is a fixed share of the batch with gradient sums of its own, which are added up in the
 * order of slices: that, and not the number of threads, fixes the order of every sum. d: width, R_:
 * C + M + 10. Threads: as said per struct.
 */
#ifndef MODEL_FAST_PLAN_H
#define MODEL_FAST_PLAN_H

#include "model/arena.h"
#include "model/batch.h"
#include "model/weights.h"

enum {
    MDL_CHUNK_ROWS = 128, /* tokens of a chunk, about */
    MDL_MAX_SLICES = 8,
    MDL_SLICE_SAMPLES = 32, /* a slice has at least so many */
    MDL_TILE_SAMPLES = 2,   /* samples that are in the works together in phase B */
};

/* The part of a CAM behind the attention, prepared: transposed maps for the backward pass.
 * Read-only in a step. */
struct mdl_tail {
    const struct mdl_cam_weights *w;
    mdl_real *W_oT; /* [d, d] */
    mdl_real *W_1T; /* [2d, d] */
    mdl_real *W_2T; /* [d, 2d] */
};

/* c W_c, c W_c W_q / sqrt(d_h) and c W_g + b_g as one product. wc = 2 d + h, padded. */
struct mdl_context {
    int d_c, wc;
    mdl_real *W;    /* [d_c, wc] */
    mdl_real *bias; /* [wc] */
    mdl_real *WT;   /* [wc, d_c] */
};

/* CAM_act and CAM_gen: tokens are sums of few rows, so X, Q, K and V of a token are sums of the
 * images of those rows, which are made once per step. Q carries 1 / sqrt(d_h). */
struct mdl_small {
    const struct mdl_token_weights *token;
    const struct mdl_cam_weights *w;
    mdl_real *basis; /* [R_, d] the rows of E, P, W_t, and b_t */
    mdl_real *image; /* [R_, 4d] theirs in X, Q, K, V; the last with b_x, b_q, b_v */
    mdl_real *pair;  /* [C * M, 4d] image of E[a] + P[i] + b_t; row a * M + i */
    mdl_real *W_qkv; /* [d, 3d] with the scale in W_q */
    struct mdl_tail tail;
    struct mdl_context context;
};

struct mdl_item {
    const struct mdl_cam_weights *w;
    mdl_real *W_xT;   /* [d, d + f] */
    mdl_real *W_qkv;  /* [d, 3d] with the scale in W_q */
    mdl_real *b_qkv;  /* [3d] */
    mdl_real *W_qkvT; /* [3d, d] */
    struct mdl_tail tail;
    struct mdl_context context;
};

/* Both heads of the decision layer as two products: columns c1 | t1, then C logits and the time.
 * out = C + 1, padded. */
struct mdl_decision {
    int out;
    mdl_real *W_1;  /* [d, 2d] */
    mdl_real *b_1;  /* [2d] */
    mdl_real *W_1T; /* [2d, d] */
    mdl_real *W_2;  /* [2d, out], block diagonal */
    mdl_real *b_2;  /* [out] */
    mdl_real *W_2T; /* [out, 2d] */
};

/* Sums of gradients of one slice, by the prepared forms above. One thread at a time. */
struct mdl_tail_sums {
    mdl_real *W_o, *b_o, *ln1_w, *ln1_b, *W_1, *b_1, *W_2, *b_2, *ln2_w, *ln2_b;
};

struct mdl_context_sums {
    mdl_real *W, *bias;
};

struct mdl_small_sums {
    mdl_real *pair;  /* [C * M, 4d] */
    mdl_real *times; /* [9, 4d] */
    struct mdl_tail_sums tail;
    struct mdl_context_sums context;
};

struct mdl_item_sums {
    mdl_real *W_x, *b_x, *W_qkv, *b_qkv, *Rho;
    struct mdl_tail_sums tail;
    struct mdl_context_sums context;
};

struct mdl_slice {
    mdl_real *sums; /* all of the below, contiguous: [n_sums] */
    struct mdl_small_sums act, gen;
    struct mdl_item_sums item;
    mdl_real *decision_W_1, *decision_b_1, *decision_W_2, *decision_b_2;
    double losses[3];
    int *local; /* [n_seqs] place of a seq in dXQKV, or -1 */
    int n_local;
    mdl_real *dXQKV; /* [history entries of the slice's samples at most, 4d] */
};

/* What forward keeps of rows that went through a CAM. */
struct mdl_kept {
    mdl_real *A;            /* act, gen: row r's group starts at r * padded(h * M) */
    mdl_real *norm1, *inv1; /* [n, d], [n] */
    mdl_real *F;            /* [n, 2d] */
    mdl_real *norm2, *inv2; /* [n, d], [n] */
};

/* A thread's own room while it works on one chunk or one tile of small sequences. */
struct mdl_small_room {
    int max_rows, max_groups;
    mdl_real *phi;       /* [rows, 9] */
    mdl_real *XQKV;      /* [rows, 4d] */
    mdl_real *dXQKV;     /* [rows, 4d] */
    mdl_real *cc;        /* [groups, wc] */
    mdl_real *dcc;       /* [groups, wc] */
    mdl_real *ctx;       /* [groups, d_c] */
    mdl_real *dctx;      /* [groups, d_c] */
    mdl_real *N, *R, *D; /* [rows, d] */
    mdl_real *dF;        /* [rows, 2d] */
    mdl_real *scores;    /* [M, padded(h M)] */
    int *pair;           /* [rows] row of the pair table */
    int *offset;         /* [groups + 1] */
};

/* A sample in the works in CAM_item. Lp: its history length, padded. */
struct mdl_item_room {
    mdl_real *Q, *K, *V, *U; /* [H, d] gathered; U becomes the sum before the norm */
    mdl_real *KT, *VT;       /* [d, Hp] */
    mdl_real *rho;           /* [h, Hp] -1e30 past the end */
    mdl_real *A;             /* [h, H, Hp] */
    mdl_real *N;             /* [H, d] */
    struct mdl_kept kept;
    mdl_real *cc, *dcc;   /* [wc] */
    mdl_real *Vec, *dVec; /* [d] */
};

struct mdl_room {
    struct mdl_small_room act, gen;
    struct mdl_kept act_kept; /* of one chunk, when nothing is kept for backward */
    mdl_real *Z, *dZ;         /* [chunk seqs, d + f] */
    mdl_real *dX;             /* [chunk seqs, 4d] */
    mdl_real *dSeq;           /* [chunk seqs, d] */
    struct mdl_item_room item[MDL_TILE_SAMPLES];
    struct mdl_kept gen_kept;
    mdl_real *W_oG, *P;               /* [d, d] a sample's gated W_o, and N^T dO */
    mdl_real *R, *D;                  /* [H, d] */
    mdl_real *dF;                     /* [H, 2d] */
    mdl_real *dS;                     /* [H, Hp] */
    mdl_real *dQKV;                   /* [H, 4d] */
    mdl_real *Y, *dY;                 /* [tile * (M - 1), d] */
    mdl_real *hidden, *dhidden;       /* [tile * (M - 1), 2d] */
    mdl_real *out, *dout;             /* [tile * (M - 1), out] */
    mdl_real *P_, *That, *dP, *dThat; /* [M - 1, C], [M - 1], twice */
};

/* Where the time of a step on one thread goes; for benches. */
enum mdl_module {
    MDL_MODULE_ACT,      /* tokens and CAM_act */
    MDL_MODULE_INPUTS,   /* X, Q, K, V of CAM_item, once per seq */
    MDL_MODULE_ITEM,     /* the rest of CAM_item */
    MDL_MODULE_GEN,      /* CAM_gen */
    MDL_MODULE_DECISION, /* decision layer and losses */
    MDL_MODULE_OTHER,    /* preparing the weights, adding up and finishing the gradients */
    MDL_N_MODULES,
};

struct mdl_clock {
    double seconds[MDL_N_MODULES];
    double last; /* when the time before was booked */
};

struct mdl_fast {
    struct mdl_clock *clock; /* NULL: nobody asks */
    const struct mdl_config *config;
    const struct mdl_batch *batch;
    struct mdl_weights w;
    int d, h, d_h, C, M, f, u, Hp; /* Hp: H padded */
    int n_tokens, n_hist, n_slices, n_threads, n_chunks;
    size_t n_sums;
    struct mdl_small act, gen;
    struct mdl_item item;
    struct mdl_decision decision;
    int *chunk;               /* [n_chunks + 1] first seq of each chunk */
    struct mdl_kept act_kept; /* all tokens */
    mdl_real *Seq;            /* [n_seqs, d] */
    mdl_real *XQKV;           /* [n_seqs, 4d] */
    mdl_real *d_seq_item;     /* [n_seqs, f] gradient of F_x by seq */
    mdl_real *d_target;       /* [n_samples, f] gradient of F_target */
    mdl_real *d_user;         /* [n_samples, u] */
    mdl_real *scratch;        /* for preparing and finishing: [max(R_, d_c) , 4d] twice */
    struct mdl_slice slice[MDL_MAX_SLICES];
    struct mdl_room room[MDL_MAX_THREADS]; /* one a thread */
};

/* Sets sizes and takes every array for a step on this batch (a measuring arena leaves them NULL).
 * */
void mdl_fast_take(struct mdl_fast *fast, struct mdl_arena *arena, const struct mdl_config *config,
                   const struct mdl_batch *batch);

/* The same for reading: only what phase A needs without keeping anything, and the prepared weights.
 * */
void mdl_fast_take_reading(struct mdl_fast *fast, struct mdl_arena *arena,
                           const struct mdl_config *config, const struct mdl_batch *batch);

/* Cuts the seqs into chunks of at most MDL_CHUNK_ROWS tokens: fills fast->chunk, n_chunks. */
void mdl_fast_cut(struct mdl_fast *fast);

/* True when the fast path takes this configuration: width a multiple of MDL_PAD. */
int mdl_fast_takes(const struct mdl_config *config);

#endif

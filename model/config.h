/* The sizes and weights of one A2Gen model, and the number type of the whole folder.
 *
 * The words are MODEL.md's: M action types with 1 = start, C = M + 1 classes with 0 = padding, d =
 * width, h = heads, H = history, F_u and F_x the concatenated user and item features. The struct is
 * plain data; the worker fills it from the job file and the data set.
 *
 * mdl_real is float. The tests compile the same sources a second time with MDL_DOUBLE, where it is
 * double, to prove every gradient against central differences. Threads: any.
 */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#ifdef MDL_DOUBLE
typedef double mdl_real;
#else
typedef float mdl_real;
#endif

enum {
    MDL_MAX_ACTIONS = 32,   /* M at most */
    MDL_MAX_HEADS = 64,     /* h at most */
    MDL_MAX_WIDTH = 1024,   /* d at most */
    MDL_MAX_HISTORY = 4096, /* H at most */
    MDL_MAX_THREADS = 64,
    MDL_TIME_FEATURES = 9, /* the length of phi(T) */
};

struct mdl_config {
    int n_actions;            /* M, 2..MDL_MAX_ACTIONS; type 1 = start */
    int history;              /* H, >= 1 */
    int width;                /* d, a multiple of heads */
    int heads;                /* h */
    int user_dim;             /* |F_u|, >= 1 */
    int item_dim;             /* |F_x|, >= 1 */
    float alpha, beta, gamma; /* weights of L_cls, L_reg, L_order: 1, 1, 0.1 */
    int threads;              /* 0 or 1: the caller's thread only. Results do not depend on it */
};

/* 0, or CLU_E_CONFIG with the field, its value and its range in the log. */
int mdl_config_check(const struct mdl_config *config);

#endif

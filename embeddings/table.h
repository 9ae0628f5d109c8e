/* What a table is: name, row width, optimiser, initial value, storage type, admission, expiry.
 *
 * A table is a map key -> row. A row is [embedding (dim), optimiser state (n_state), update count,
 * last step], always kept together. A row that was never written has the value of
 * clu_row_init(seed, table hash, key), a pure function; rows come into being by pushes only.
 * Everything here is plain data that may be copied and sent; one registry (optimizer.c) maps names
 * to optimisers. Threads: any.
 */
#ifndef EMBEDDINGS_TABLE_H
#define EMBEDDINGS_TABLE_H

#include <stddef.h>
#include <stdint.h>

enum { EMB_NAME_BYTES = 64, EMB_MAX_DIM = 4096, EMB_MAX_TABLES = 64 };

/* Numbers are written to files and sent: only ever add at the end. */
enum emb_optimizer {
    EMB_ADAM,            /* n_state = 2 dim: m, v */
    EMB_ROWWISE_ADAGRAD, /* n_state = 1: mean of squared gradients, summed */
    EMB_ADAGRAD,         /* n_state = dim: squared gradients, summed */
    EMB_SGD,             /* n_state = 0 */
    EMB_FTRL,            /* n_state = 2 dim: z, n */
    EMB_N_OPTIMIZERS
};

enum emb_dtype { EMB_FP32, EMB_BF16, EMB_N_DTYPES };

struct emb_table_spec {
    char name[EMB_NAME_BYTES];
    int dim;                      /* 1..EMB_MAX_DIM */
    enum emb_optimizer optimizer; /* formulas in optimizer.h */
    double learning_rate;         /* > 0 */
    double beta1, beta2, epsilon; /* adam; epsilon also for the Adagrads; beta1 is ftrl's beta */
    double l1, l2;                /* ftrl; l2 >= 0, l1 >= 0 */
    double init_range;            /* rows start uniform in +-init_range */
    uint64_t seed;                /* of the initial values */
    enum emb_dtype dtype;         /* of the stored embedding; state is always fp32 */
    int64_t min_count;            /* pushes before a row exists; 0 and 1: the first creates it */
    int64_t expire_steps;         /* rows without a push for more steps than this go; 0: never */
};

/* Defaults: dim 0 (to be set), adam 1e-3 0.9 0.999 1e-8, init_range 0.05, fp32, no admission, no
 * expiry. */
void emb_table_spec_init(struct emb_table_spec *spec);

/* Refuses what cannot work, with the table and field named in the log: CONFIG. */
int emb_table_spec_check(const struct emb_table_spec *spec);

/* The optimiser of a name ("adam", "rowwise_adagrad", "adagrad", "sgd", "ftrl"); CONFIG, logged,
 * with the names that exist, for any other. */
int emb_optimizer_by_name(const char *name, enum emb_optimizer *optimizer_p);

/* Its name; "unknown" for a number out of range. Static. */
const char *emb_optimizer_name(enum emb_optimizer optimizer);

/* State floats of a row. */
int emb_optimizer_n_state(enum emb_optimizer optimizer, int dim);

/* "fp32", "bf16"; as for optimisers. */
int emb_dtype_by_name(const char *name, enum emb_dtype *dtype_p);
const char *emb_dtype_name(enum emb_dtype dtype);

/* One row as others see it, a view: valid until the next call on the object it came from. */
struct emb_row {
    int table; /* index among the object's tables */
    uint64_t key;
    const float *embedding; /* [dim], fp32 whatever the storage */
    const float *state;     /* [n_state] */
    int dim, n_state;
    uint32_t count;     /* updates applied */
    uint32_t last_step; /* of the last update; 2^32 - 1 steps are the most a table can see */
    int is_tombstone;   /* in a delta: the row is gone; embedding and state are NULL */
};

#endif

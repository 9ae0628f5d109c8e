/* From samples to what the servers and the model take: keys out, rows in, gradients back.
 *
 *     samples --fill--> per table: distinct keys --(pull)--> rows --gather--> user, item matrices,
 * mdl_batch d_user, d_item --scatter--> per table: one summed gradient a key --(push)--> servers
 *
 * struct wrk_features says which table a column reads and where its lanes stand in F_u and F_x:
 * columns in the data set's order, a sparse one taking its table's dim, a numeric one a single
 * lane. With history_counts F_u ends with 2 M lanes more (worker/counts.h); it then is a sample's
 * own, so the user matrix has a row a sample.
 *
 * A wrk_batch owns its buffers and grows them to the largest batch it met: in the steady state
 * nothing is allocated. Sums run in a fixed order (users then items, row by row), so a gradient
 * does not depend on anything but the samples. Threads: one batch, one thread at a time; several
 * batches may be in flight.
 */
#ifndef WORKER_BATCH_H
#define WORKER_BATCH_H

#include "cluster/job.h"
#include "embeddings/table.h"
#include "model/batch.h"
#include "worker/dataset.h"
#include "worker/reader.h"

#include <stddef.h>
#include <stdint.h>

/* Where one column's lanes come from and go to. */
struct wrk_slot {
    int table;  /* index into wrk_features.table, -1 for a numeric column */
    int offset; /* first lane in F_u or F_x */
    int dim;    /* lanes: the table's dim, 1 for numeric */
};

/* Plain data, copyable. */
struct wrk_features {
    int n_actions;          /* M */
    int user_dim, item_dim; /* |F_u|, |F_x| */
    int n_counts;           /* the last lanes of F_u that count the history; 0: none */
    int n_user_columns, n_item_columns;
    struct wrk_column user_column[WRK_MAX_COLUMNS], item_column[WRK_MAX_COLUMNS];
    struct wrk_slot user_slot[WRK_MAX_COLUMNS], item_slot[WRK_MAX_COLUMNS];
    int n_tables;
    struct emb_table_spec table[CLU_MAX_TABLES]; /* in order of first use; shared ones once */
};

/* Lays the columns of a data set out by the job: dims user_dim, item_dim for the tables "user" and
 * "item", feature_dim for every other, the job's table entries above them. Errors: CONFIG (too many
 * tables, a table entry that no column uses - the nearest name is told). */
int wrk_features_init(struct wrk_features *features, const struct wrk_dataset_info *info,
                      const struct clu_job *job);

/* One table's part of a batch. rows is for the pull to fill; grads is filled by scatter. */
struct wrk_batch_table {
    int table; /* index into wrk_features.table */
    int dim;
    size_t n_keys;
    const uint64_t *keys; /* [n_keys] distinct, in order of first use */
    float *rows;          /* [n_keys, dim] */
    float *grads;         /* [n_keys, dim] */
};

/* Id dropout (a regulariser beyond MODEL.md, off at 0): in a training batch a user or item id's
 * embedding is replaced by zeros, and gets no gradient, for keys with hash(seed, step, table, key)
 * below the probability. Only the id columns (column 0) are dropped; a dropped key is not pulled at
 * all. */
struct wrk_dropout {
    double probability; /* 0: none */
    uint64_t seed, step;
};

struct wrk_batch;

int wrk_batch_create(const struct wrk_features *features, struct wrk_batch **batch_p);
void wrk_batch_free(struct wrk_batch *batch); /* NULL is fine */

/* Collects the distinct keys of the samples per table. samples is borrowed until the next fill;
 * dropout may be NULL (evaluation). Errors: NO_MEMORY. */
int wrk_batch_fill(struct wrk_batch *batch, const struct wrk_samples *samples,
                   const struct wrk_dropout *dropout);

/* The tables of the last fill, one entry per table of the features, in their order (n_keys may be
 * 0). */
struct wrk_batch_table *wrk_batch_tables(struct wrk_batch *batch, int *n_tables_p);

/* Builds the user and item matrices from rows; the view is valid until the next fill. */
const struct mdl_batch *wrk_batch_gather(struct wrk_batch *batch);

/* Sums d_user [n_users, user_dim] and d_item [n_items, item_dim] into grads, one row a key. Rows of
 * a table's grads are overwritten. */
void wrk_batch_scatter(struct wrk_batch *batch, const mdl_real *d_user, const mdl_real *d_item);

/* The samples of the last fill. */
const struct wrk_samples *wrk_batch_samples(const struct wrk_batch *batch);

#endif

/* What the files of the environment share: layers_open.c (the marker, opening, closing), layers.c
 * (looking up, writing), layers_view.c (views, walks, figures). */
#ifndef EMBEDDINGS_LAYERS_INTERNAL_H
#define EMBEDDINGS_LAYERS_INTERNAL_H

#include "embeddings/layers.h"
#include "embeddings/mapped.h"
#include "embeddings/mdb.h"

#include <lmdb.h>
#include <pthread.h>

enum { EMB_MAX_VIEWS = 8 };

struct emb_layers {
    char *path; /* of the folder */
    MDB_env *env;
    MDB_dbi dbi[EMB_MAX_TABLES][EMB_N_LAYERS];
    MDB_dbi values;
    size_t row_bytes[EMB_MAX_TABLES];
    int n_tables;
    bool sync, grown /* the open transaction met a full map, and it has been grown */;
    MDB_txn *write, *read;  /* read: reset but for the time of a lookup (L2) */
    MDB_cursor *tail;       /* of write, or NULL */
    pthread_mutex_t lock;   /* of `write`, `tail` and the map's size; recursive */
    bool beside, too_small; /* under the lock: not the owner has it; it met a full map */
    uint64_t written_bytes; /* atomic */
    struct emb_mapped mapped;
    size_t
        view_first_page[EMB_MAX_VIEWS]; /* last page of the file when view i was opened; 0: free */
};

static inline int emb_layers_fail(const struct emb_layers *layers, int code, const char *action)
{
    return emb_mdb_fail(code, action, layers->path);
}

/* Checks a stored value and takes it apart; CORRUPT. */
int emb_layers_decode(const struct emb_layers *layers, int table, uint64_t key, const MDB_val *data,
                      struct emb_stored *stored);

#endif

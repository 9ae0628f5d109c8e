/* A shard's LMDB environment: for each table three layers, and a few named values.
 *
 *     lookup:  current, then sealed, then base; the first that holds the key decides
 *
 *     base     the state of the last confirmed snapshot
 *     sealed   what changed between base and the last finished snapshot, till that is confirmed
 *              and merged into base
 *     current  rows written back since the last seal
 *
 * So a roll-back forgets layers instead of restoring rows, and a delta snapshot is one layer. Which
 * of the three databases plays which part stands in the shard's roles. A stored value is
 *     check 4 | kind 2 (0 row, 1 tombstone; + 2: a lsn follows) | lsn 8 | count 4, last step 4,
 *     embedding, state
 * (the last four for rows only, the lsn where it is not 0), where check is the low half of XXH3 of
 * what follows, mixed with the key: LMDB has no checksums of its own. lsn is the push-log group up
 * to which the row includes all.
 *
 * Writes happen in transactions, of the owner thread or of one that writes beside it; a full map is
 * grown, by the owner, and the caller told to repeat (AGAIN). Views are read transactions:
 * consistent, opened, used and closed by any one thread.
 */
#ifndef EMBEDDINGS_LAYERS_H
#define EMBEDDINGS_LAYERS_H

#include "embeddings/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EMB_N_LAYERS = 3 };
enum { EMB_VALUE_ROW, EMB_VALUE_TOMBSTONE };

struct emb_layers;
struct emb_layers_view;

struct emb_layers_options {
    const char *dir;
    uint64_t map_bytes;      /* 0: chosen */
    bool sync;               /* commits reach the disk before they return */
    const size_t *row_bytes; /* [n_tables] of a value: count, last step, embedding, state */
};

/* What one layer or several hold for a key. */
struct emb_stored {
    uint64_t key, lsn;
    const void *value; /* count, last step, embedding, state; NULL: tombstone. Unaligned. */
};

/* CORRUPT when LMDB refuses the files. */
int emb_layers_open(const struct emb_layers_options *options, const struct emb_table_spec *tables,
                    int n_tables, struct emb_layers **layers_p);
void emb_layers_close(struct emb_layers *layers);

/* Looks n ascending keys up through `order` (newest layer first, n_order of them); calls found for
 * each that some layer holds. Values are valid during the call. */
int emb_layers_find(struct emb_layers *layers, int table, const int *order, int n_order,
                    const uint64_t *keys, size_t n,
                    int (*found)(void *context, size_t i, const struct emb_stored *stored),
                    void *context);

/* A write transaction. Any failing call in it ends it; AGAIN means: the map was too small and has
 * been grown, repeat from begin. Waits for the one that another thread has open. */
int emb_layers_begin(struct emb_layers *layers);

/* Around all that another thread than the owner does at one go, views included; the owner's own
 * transactions wait for its end, so it is to be short. A full map is FULL there. */
void emb_layers_beside_begin(struct emb_layers *layers);
void emb_layers_beside_end(struct emb_layers *layers);

/* The owner, after FULL beside: OK when it was the map, which has been grown: repeat. FULL when it
 * was the disk, or a view is open. */
int emb_layers_grow(struct emb_layers *layers);
int emb_layers_put(struct emb_layers *layers, int table, int layer,
                   const struct emb_stored *stored);
int emb_layers_put_absent(struct emb_layers *layers, int table, int layer,
                          const struct emb_stored *stored); /* unless the layer holds the key */
/* A key greater than all of the layer's: many times faster, and pages are filled to the brim. */
int emb_layers_append(struct emb_layers *layers, int table, int layer,
                      const struct emb_stored *stored);
int emb_layers_clear(struct emb_layers *layers, int table, int layer);
int emb_layers_put_value(struct emb_layers *layers, const char *name, const void *data,
                         size_t size_bytes);
int emb_layers_delete(struct emb_layers *layers, int table, int layer, uint64_t key);
int emb_layers_commit(struct emb_layers *layers);
void emb_layers_abort(struct emb_layers *layers);

/* From defer on commits are not synced, whatever the options; without, all is on disk when it
 * returns. An environment of a machine that went down in between is refused at open. */
int emb_layers_defer_sync(struct emb_layers *layers, bool defer);

/* A heap copy of a named value; NOT_FOUND, CORRUPT. */
int emb_layers_get_value(struct emb_layers *layers, const char *name, void **data_p,
                         size_t *size_p);

/* A consistent state of the environment, for reading beside writes. While one is open the map
 * cannot grow and pages freed since cannot be used again. */
int emb_layers_view_open(struct emb_layers *layers, struct emb_layers_view **view_p);
void emb_layers_view_close(struct emb_layers_view *view);

/* Walks a table's layers (newest first in order) by ascending key, each key once, starting at the
 * first key >= from; visit's non-zero status ends it and is returned. */
int emb_layers_walk(struct emb_layers_view *view, int table, const int *order, int n_order,
                    uint64_t from, int (*visit)(void *context, const struct emb_stored *stored),
                    void *context);

/* Entries of one layer. */
int emb_layers_count(struct emb_layers *layers, int table, int layer, uint64_t *n_p);

struct emb_layers_stats {
    uint64_t map_bytes, file_bytes, written_bytes;
    uint64_t pages_held; /* file growth, in pages, since the oldest open view */
};
void emb_layers_stats(const struct emb_layers *layers, struct emb_layers_stats *stats_p);

/* Gives the resident pages of the map back to the page cache: they stay cached, but are no longer
 * this process's. */
void emb_layers_trim(struct emb_layers *layers);

/* Approximate bytes of the map touched since the last trim. */
uint64_t emb_layers_touched(const struct emb_layers *layers);

#endif

/* What the files of a shard share: shard.c (open, end of a step), shard_rows.c (pull, push),
 * shard_state.c (what is remembered where), shard_room.c (memory budget, write-back, eviction,
 * expiry), shard_flush.c (writing rows to layers, sorted and in slices), shard_batch.c (such a
 * slice, and what a push would write over), shard_snapshot.c (seal, file, confirm), shard_merge.c
 * (layers into one), shard_rollback.c (going back), shard_load.c (restore), shard_move.c (rows one
 * by one, moving buckets), shard_leave.c (buckets that leave while pushes go on).
 *
 * Invariants they all keep:
 * (I1) A row's newest version is in memory, or, when its key is not there, in the first of the
 *      layers current, sealed, base that holds the key. `on_disk_only` false: no row is outside
 *      memory.
 * (I2) A slot without DIRTY and SEALING equals what (I1)'s layers hold for its key.
 * (I3) A slot with SEALING holds the version of the moment the running flush began; before it
 *      changes, that version goes to the flush's shelf.
 * (I4) durability log: a row is written to a layer only while no group is pending, and carries the
 *      lsn of the last group on disk; so a layer never holds a push that the log has not. A
 *      tombstone's is the last group before its burial: later pushes wait for admission anew.
 * (I5) base and sealed change only by confirm's merge and by a seal, each decided by one
 *      transaction that writes the roles.
 * (I6) A live row has count >= 1; a slot with count 0 is a tombstone.
 * (I7) n_stored is the number of keys whose newest version in the layers is a row. The value
 *      "stored" holds it, written by each transaction that changes it, so that rows are counted
 *      right wherever a process ends: at open n_rows is n_stored, and replay counts what it adds.
 *      What a write changes, STORED tells: set where the layers hold a row of the slot's key.
 */
#ifndef EMBEDDINGS_SHARD_INTERNAL_H
#define EMBEDDINGS_SHARD_INTERNAL_H

#include "embeddings/layers.h"
#include "embeddings/optimizer.h"
#include "embeddings/pace.h"
#include "embeddings/pushlog.h"
#include "embeddings/row.h"
#include "embeddings/scribe.h"
#include "embeddings/shard.h"
#include "embeddings/sketch.h"
#include "embeddings/store.h"

#include <pthread.h>

struct emb_mark {
    uint64_t incarnation, seq;
};

struct emb_marks {
    struct emb_mark *items; /* [capacity], n in use, ascending incarnation */
    size_t n, capacity;
};

/* Everything but rows that belongs to one state of the shard. */
struct emb_info {
    uint64_t clock, lsn;
    struct emb_marks marks;
    uint64_t n_rows[EMB_MAX_TABLES];
    struct emb_sketch *sketch[EMB_MAX_TABLES]; /* NULL where the table admits at once */
};

/* Which layer plays which part; one record in LMDB. The third layer, where none is sealed, is
 * empty. */
struct emb_roles {
    uint32_t version;
    uint32_t base, current, sealed; /* layers; sealed EMB_N_LAYERS: none */
    uint32_t merging;               /* sealed is confirmed and on its way into base */
    uint32_t loading;               /* base is being filled: void if found at open */
    uint64_t base_step, sealed_step;
};

struct emb_table {
    struct emb_table_spec spec;
    uint64_t hash; /* of the name */
    int id;        /* place among the tables ever stored here: what the push log calls it */
    struct emb_updater updater;
    struct emb_store store;
    struct emb_sketch *sketch;
    size_t value_bytes, embedding_bytes;
    float init_range;
    bool on_disk_only; /* some rows may be in layers only (I1) */
    uint64_t n_stored; /* (I7) */
    uint64_t n_rows, n_tombstones, n_dirty;
    uint64_t n_left_dirty; /* by the last CLEAN flush */
    uint32_t clock_hand, sweep_hand;
    uint64_t sweep_key;
    bool tracks_heat; /* memory is scarce enough for eviction to need it */
    uint64_t n_pulled, n_pushed, n_created, n_expired, n_evicted, n_missed;
};

/* A row to be written: where it stood when the flush began. */
struct emb_entry {
    uint64_t key;
    uint32_t slot, pad;
};

struct emb_shelf { /* versions kept for the running flush (I3) */
    uint64_t *keys;
    char *values;    /* [n, the store's stride - 8] */
    int8_t *changes; /* of n_stored, by writing it (I7) */
    size_t n, capacity;
};

enum emb_flush_kind { EMB_FLUSH_NONE, EMB_FLUSH_CLEAN, EMB_FLUSH_CHECKPOINT, EMB_FLUSH_SNAPSHOT };

enum emb_flush_phase { EMB_FLUSH_COLLECT, EMB_FLUSH_SORT, EMB_FLUSH_WRITE, EMB_FLUSH_SHELF };

/* Rows of a slice on their way to the current layer, by the owner's hand or the scribe's. */
struct emb_batch {
    struct emb_shard *shard;
    int table, layer;
    size_t n, end;            /* rows; the flush's `at` once they are written */
    struct emb_stored *items; /* [capacity] */
    int8_t *changes;          /* [capacity] of n_stored, told in STORED already (I7) */
    char *values;             /* [copies] of rows that the owner may change meanwhile */
    size_t capacity, copies;
    uint64_t n_stored[EMB_MAX_TABLES]; /* what it is after them */
    bool counts;                       /* that it is another number than before */
    bool given;                        /* to the scribe */
};

/* A flush: rows collected, sorted by (table, key), written in slices. */
struct emb_flush {
    enum emb_flush_kind kind;
    enum emb_flush_phase phase;
    struct emb_entry *entries, *spare; /* [capacity] each */
    size_t n, capacity, at;
    size_t table_end[EMB_MAX_TABLES]; /* entries of table t end here */
    int table;                        /* being collected, written */
    uint32_t slot;                    /* next to be looked at, collecting */
    size_t limit;                     /* CLEAN: rows to collect a table */
    struct emb_shelf shelf[EMB_MAX_TABLES];
    bool sorting; /* the sorter thread has the entries */
    int sorted;   /* set by it */
    pthread_t sorter;
    struct emb_batch batch;
    struct emb_info info; /* of the beginning; not for CLEAN */
};

/* The keys of rows that a roll-back took out of memory: where all rows were there before, fetching
 * these from the layers makes it so again (I1). */
struct emb_gone {
    uint64_t *keys;
    size_t n, capacity;
    bool all; /* keys are all that is not in memory */
};

struct emb_leave;
struct emb_snapshot_job;
struct view_row;

struct emb_shard {
    char *dir;
    struct emb_shard_options options;
    struct emb_layers *layers;
    struct emb_pushlog *log; /* durability log only */
    struct emb_roles roles;
    struct emb_table table[EMB_MAX_TABLES];
    int n_tables;
    int stored_dims[EMB_MAX_TABLES]; /* by id; n_stored of them */
    int n_stored;
    uint64_t clock; /* last step ticked */
    uint64_t
        floor; /* last steps recorded from now on are at least this: snapshots before have less */
    uint64_t durable_lsn;
    struct emb_marks marks;
    struct emb_flush flush;
    struct emb_snapshot_job *job;
    struct emb_leave *leave; /* buckets that are listed to leave, or NULL */
    bool rows_put;           /* emb_shard_put since the last seal: their steps prove nothing */
    struct emb_scribe *scribe;
    bool merge_running; /* roles.merging, and the merge's place below: the scribe's while given */
    bool merge_given, hurry;
    int64_t merge_after_us; /* it failed, and is tried again then */
    struct emb_pace merge_pace;
    uint64_t merge_done, merge_left; /* rows given to the scribe, and yet to be */
    int merge_from, merge_to;        /* layers of the piece that is given */
    int merge_table;
    uint64_t merge_key;
    int warm_table; /* what is read ahead next; n_tables: nothing is */
    uint64_t warm_key;
    struct emb_gone gone[EMB_MAX_TABLES]; /* these first */
    bool map_full; /* and a view keeps it from growing: nothing is cleaned till it is closed */
    bool in_group; /* while the log is replayed: part of a group is applied */
    uint64_t replay_lsn;     /* while the log is replayed: the group being applied; else 0 */
    struct emb_store *ahead; /* [n_tables] then: keys that layers hold with a later lsn -> it */
    size_t dirtied;          /* rows that became dirty since the last housekeeping */
    int64_t longest_slice_us;
    struct view_row *row_view; /* what emb_shard_row hands out */
    /* scratch of pull and push, grown as needed */
    size_t scratch_n;
    uint32_t *slots;
    struct emb_entry *missing;
    uint64_t *missing_keys;
};

/* ---- shard_rows.c ---- */
int emb_shard_scratch(struct emb_shard *shard, size_t n);
int emb_shard_push_rows(struct emb_shard *shard, int table, const uint64_t *keys, size_t n,
                        const float *grads, uint64_t step);
int emb_shard_fetch_all(struct emb_shard *shard, int table, const uint64_t *keys, size_t n);

/* ---- shard.c ---- */
int emb_shard_order(const struct emb_shard *shard, int *order); /* newest first; their number */

static inline bool emb_expired(const struct emb_shard *shard, const struct emb_table *table,
                               uint32_t last_step)
{
    return table->spec.expire_steps > 0 &&
           shard->clock > last_step + (uint64_t)table->spec.expire_steps;
}

static inline char *emb_slot_value(const struct emb_table *table, uint32_t slot)
{
    return emb_store_row(&table->store, slot) + 8;
}

/* Now, in microseconds of the monotonic clock. */
int64_t emb_now_us(void);

/* ---- shard_state.c ---- */
int emb_marks_set(struct emb_marks *marks, uint64_t incarnation, uint64_t seq);
int emb_marks_copy(struct emb_marks *to, const struct emb_marks *from);
int emb_info_capture(const struct emb_shard *shard, struct emb_info *info_p);
void emb_info_fini(struct emb_info *info);
int emb_info_put(struct emb_shard *shard, const char *role, const struct emb_info *info);
int emb_info_get(struct emb_shard *shard, const char *role, struct emb_info *info_p);
int emb_info_adopt(struct emb_shard *shard, struct emb_info *info); /* takes what it points to */
int emb_roles_put(struct emb_shard *shard, const struct emb_roles *roles);
/* Into the open transaction: what n_stored of each table is from its commit on (I7). */
int emb_stored_put(struct emb_shard *shard, const uint64_t *n_stored);
int emb_state_open(struct emb_shard *shard);
int emb_specs_check(struct emb_shard *shard);
/* While the log is replayed: a layer's row of this key, now in memory, includes group lsn. */
bool emb_replayed(const struct emb_shard *shard, int table, uint64_t key, uint64_t lsn);
int emb_layers_reset(struct emb_shard *shard, const int *layers, int n_layers,
                     const struct emb_roles *roles, const struct emb_info *current);

/* ---- shard_room.c ---- */
size_t emb_memory(const struct emb_shard *shard);
int emb_room_for(struct emb_shard *shard, struct emb_table *table, size_t n, bool must);
void emb_trim_map(struct emb_shard *shard);
int emb_housekeeping(struct emb_shard *shard);
int emb_bury(struct emb_shard *shard, struct emb_table *table, uint32_t slot);

/* ---- shard_batch.c ---- */
/* Entries [flush.at, end) of the flush's table, or of its shelf, to the current layer: by the
 * owner, or given to the scribe (beside). */
int emb_batch_write(struct emb_shard *shard, size_t end, bool beside);
/* Waits for the batch; what it says has become true, or never was. */
int emb_batch_settle(struct emb_shard *shard);
/* A marked row is about to change: its version for the running flush is kept aside (I3). */
int emb_flush_shelve(struct emb_shard *shard, struct emb_table *table, uint32_t slot);
/* What was shelved and never written. */
void emb_shelf_forget(struct emb_table *table, const struct emb_shelf *shelf);

/* ---- shard_flush.c ---- */
int emb_flush_begin(struct emb_shard *shard, enum emb_flush_kind kind);
int emb_flush_advance(struct emb_shard *shard, int64_t budget_us); /* AGAIN: more to do */
void emb_flush_wait_sorted(struct emb_shard *shard); /* advance never waits for the sorter */
/* Rows written and yet to be; none, and one, before they are collected. */
void emb_flush_progress(const struct emb_shard *shard, uint64_t *done_p, uint64_t *left_p);
int emb_checkpoint_end(struct emb_shard *shard);
void emb_flush_abort(struct emb_shard *shard);
void emb_flush_end(struct emb_shard *shard);
void emb_sort_entries(struct emb_entry *entries, struct emb_entry *spare, size_t n);

/* ---- shard_merge.c ---- */

static inline int emb_layer_spare(const struct emb_roles *roles) /* neither base nor current */
{
    return EMB_N_LAYERS - (int)roles->base - (int)roles->current;
}

/* Copies up to limit rows of table *table_p from key *key_p on and moves both; AGAIN until all are
 * through. merge: rows overwrite, tombstones delete; else only keys that `to` does not have are
 * copied, tombstones included. */
int emb_copy_slice(struct emb_shard *shard, int from, int to, bool merge, size_t limit,
                   int *table_p, uint64_t *key_p);

/* From here on the sealed layer is merged into the base, also after a restart. */
int emb_merge_begin(struct emb_shard *shard);
/* A piece to the scribe, when it has none; wait: all of it, here. AGAIN: more to do. */
int emb_merge_advance(struct emb_shard *shard, bool wait);
/* Waits for the piece under way. AGAIN: it is done, and more is to do. */
int emb_merge_settle(struct emb_shard *shard);
/* The sealed layer's state has become the base's: the roles and info.base say so. swap: the base
 * was empty, and the layers change places. */
int emb_merge_end(struct emb_shard *shard, bool swap);

/* ---- shard_snapshot.c ---- */

/* The running snapshot only writes its file, from a view: the current layer may be written to. */
bool emb_snapshot_in_file(const struct emb_shard *shard);
/* Microseconds until the running snapshot's flush goes on, by its pace. */
int64_t emb_snapshot_wait_us(const struct emb_shard *shard);
/* Works towards that at full speed; AGAIN: not there yet. A failure is for the next advance to
 * tell. */
int emb_snapshot_hurry(struct emb_shard *shard, int64_t budget_us);

/* ---- shard_move.c ---- */
int emb_replay_moved(struct emb_shard *shard, uint64_t lsn,
                     const struct emb_pushlog_record *record);

/* ---- shard_leave.c ---- */
void emb_leave_add(struct emb_shard *shard, int table, uint64_t key); /* only where there is one */
void emb_leave_free(struct emb_shard *shard);
size_t emb_leave_memory(const struct emb_shard *shard);

/* ---- shard_load.c ---- */
/* What is in layers only is read from the start. gone [n_tables]: first these, where
 * they are all there is; taken. NULL: nothing is known. */
void emb_warm_again(struct emb_shard *shard, struct emb_gone *gone);
void emb_warm_stop(struct emb_shard *shard);

#endif

/* What the files of training share: one rank's whole state. Not for others.
 *
 * Reading order: train.c (a rank's life) -> train_step.c (one step) -> train_judge.c (which epoch
 * is kept) -> train_report.c (what people see) -> train_feed, train_dense, train_snapshot,
 * train_move, train_metrics, train_checkpoint, train_deal (parts) -> train_owners.c (what all ranks
 * do when buckets move), train_stand.c (going on where others died).
 */
#ifndef WORKER_TRAIN_INTERNAL_H
#define WORKER_TRAIN_INTERNAL_H

#include "cluster/job.h"
#include "cluster/member.h"
#include "cluster/security.h"
#include "model/a2gen.h"
#include "ps/client.h"
#include "worker/batch.h"
#include "worker/dataset.h"
#include "worker/deal.h"
#include "worker/evaluate.h"
#include "worker/export_manifest.h"
#include "worker/mpi.h"
#include "worker/train_dense.h"
#include "worker/train_feed.h"
#include "worker/train_move.h"
#include "worker/train_snapshot.h"

#include <stdbool.h>
#include <stdint.h>

struct clu_transport;

/* What every rank adds to the dense all-reduce, behind the gradients; each is a sum since the last
 * one. */
enum wrk_extra {
    WRK_EXTRA_CLS,
    WRK_EXTRA_REG,
    WRK_EXTRA_ORDER,
    WRK_EXTRA_TOTAL,
    WRK_EXTRA_SAMPLES,
    WRK_EXTRA_WAIT,          /* seconds waiting for rows */
    WRK_EXTRA_FEED,          /* seconds waiting for the feed */
    WRK_EXTRA_STEPS,         /* steps */
    WRK_EXTRA_STOP,          /* ranks that were told to stop */
    WRK_EXTRA_STOP_SNAPSHOT, /* of them: with a snapshot */
    WRK_EXTRA_MOVE,          /* rank 0: buckets are ready to move */
    WRK_EXTRA_STALENESS,     /* pulls' replies that missed 0, 1, 2 ... steps */
    WRK_N_EXTRAS = WRK_EXTRA_STALENESS + PSV_STALENESS_BINS,
    /* then two a rank: its own seconds of compute; its own samples */
};

/* Sums of an interval between two progress reports; only rank 0's are read. */
struct wrk_interval {
    double begin; /* clock */
    double sums[WRK_N_EXTRAS];
    double compute_max; /* of the rank that computed longest in one step, and which */
    int slowest;
    uint64_t n_steps;
    double longest; /* step, seconds */
};

struct wrk_checkpointer;
struct wrk_train_metrics;

struct wrk_trainer {
    struct clu_job job;
    struct wrk_mpi *mpi;
    int rank, n_ranks;

    struct wrk_dataset *dataset;
    struct wrk_features features;
    struct mdl_config config;
    struct wrk_manifest manifest;

    struct clu_security security;
    bool has_security;
    struct clu_transport *transport;
    struct clu_member *member;
    struct psv_client *client;
    uint64_t map_version;        /* of the map that the client has */
    struct clu_metrics *metrics; /* NULL: none are kept */
    struct wrk_train_metrics *shown;
    const char *metrics_url; /* NULL or "": they are not served */

    struct wrk_dense dense;
    struct wrk_feed *feed;
    struct wrk_snapshotter *snapshotter; /* rank 0 */
    struct wrk_mover *mover;             /* rank 0 */
    struct wrk_checkpointer
        *checkpointer; /* rank 0, where workers may go on with rows as they are */

    /* turns: this rank's batches. retired <= turn <= pulled <= asked; a turn's slot is
     * slots[turn % n_slots]. Where nothing is dealt turn t is of step t, and nothing is asked */
    struct wrk_feed_slot **slots;
    int n_slots;
    int n_ahead;        /* steps whose rows are asked for before they are computed */
    uint64_t n_batches; /* of an epoch */
    uint64_t last_step; /* the job's last */
    uint64_t done;      /* steps; dealt: that of the last meeting */
    uint64_t turn, pulled, retired, asked;
    bool is_dealt;
    struct wrk_deal deal;
    uint64_t *meetings;           /* [n_slots] dealt: the meeting after a turn; 0: there is none */
    int64_t since_reduce;         /* steps since the last dense all-reduce */
    uint64_t *rank_samples;       /* [n_ranks] what each did since this life began */
    struct wrk_position position; /* the next batch */
    uint64_t samples_done;
    double last_losses[4]; /* of the last all-reduce, a step: cls, reg, order, total */

    void *workspace;
    size_t workspace_bytes;
    float *d_user, *d_item;
    size_t d_user_capacity, d_item_capacity;

    double *rank_compute;      /* [n_ranks] seconds of compute in the interval; rank 0's are read */
    float local[WRK_N_EXTRAS]; /* this rank's sums since the last all-reduce */
    uint64_t staleness_told[PSV_STALENESS_BINS]; /* of this rank's pulls, already in a reduce */
    uint64_t staleness[PSV_STALENESS_BINS];      /* of all ranks' pulls, since this life began */
    double local_compute;
    struct wrk_interval interval;
    double train_begin;

    struct wrk_stopping verdicts;     /* on the epochs so far; the same on every rank */
    uint64_t snapshot_wish;           /* rank 0: take one at a step >= this; 0: none */
    uint64_t snapshot_last;           /* rank 0: step of the last one begun */
    double longest_beside;            /* rank 0: longest step while a snapshot was under way */
    uint64_t longest_beside_step;     /* and which it was */
    uint64_t snapshot_map;            /* rank 0: version of the map it was taken with */
    uint64_t snapshot_owners;         /* and of that map's owners */
    bool stop_ordered, stop_snapshot; /* this rank was told to stop */
    bool stopping, stopping_snapshot; /* all ranks agreed to */
    bool moving;                      /* all ranks agreed that buckets move after this step */
};

/* Seconds of the monotonic clock. */
double wrk_train_clock(void);

/* Takes every order that waits. Errors: end at once with that status. */
int wrk_train_orders(struct wrk_trainer *trainer);

/* Waits for a ticket of the client in slices, between which orders are looked at: a rank that waits
 * for a dead server still hears that the job has ended. */
int wrk_train_wait(struct wrk_trainer *trainer, uint64_t ticket);

/* Where the rows stand and other workers died: fills state with the newest dense weights, and the
 * step and position to go on after; the servers agree on return. Collective. */
int wrk_train_stand(struct wrk_trainer *trainer, struct wrk_state *state);

/* One step (dealt: one turn): rows, forward and backward, push, and, where due, the all-reduce and
 * the dense update. *reduced_p: ranks are at a common boundary. Collective. */
int wrk_train_step(struct wrk_trainer *trainer, bool *reduced_p);

/* True when all ranks meet after a step, wherever it stands. */
bool wrk_train_meets_at(const struct wrk_trainer *trainer, uint64_t step);

/* Waits for the pushes of every turn up to `turn`. */
int wrk_train_retire(struct wrk_trainer *trainer, uint64_t turn);

/* Waits for all rows that are asked for; the steps that need them find them there. */
int wrk_train_receive(struct wrk_trainer *trainer);

/* Waits for every push that is under way. */
int wrk_train_drain(struct wrk_trainer *trainer);

/* Reports progress when an interval is over (or now, when forced). Rank 0. */
void wrk_train_progress(struct wrk_trainer *trainer, bool force);

/* Where an evaluation takes the model from. */
struct wrk_train_model {
    const float *params;
    struct wrk_row_source rows;
    uint64_t step;
};

/* The model as of the steps done: the servers' rows, this rank's weights. */
struct wrk_train_model wrk_train_current(struct wrk_trainer *trainer);

/* Evaluates a split; rank 0 writes eval.jsonl and reports. Given up, with CLU_OK and
 * evaluation_p->n_samples 0, when a rank is told to stop; so is a split without samples.
 * evaluation_p may be NULL. Collective. */
int wrk_train_evaluate(struct wrk_trainer *trainer, const struct wrk_train_model *model,
                       enum wrk_split split, const char *read, struct wrk_evaluation *evaluation_p);

/* ---- train_deal.c ---- */

/* Turns whose rows are asked for before they are computed, where parts are dealt: few, because what
 * a rank has in hand nobody else can take. */
enum { WRK_DEALT_AHEAD = 1 };

/* True for a job whose parts are dealt. */
bool wrk_train_is_dealt(const struct wrk_trainer *trainer);

/* The feed is there; the next turn is the first that is dealt. */
int wrk_train_start_dealing(struct wrk_trainer *trainer);

/* Asks the feed for the next turns, as far as is known or can be drawn. */
int wrk_train_ask(struct wrk_trainer *trainer);

/* A turn is done: where a meeting follows it, its step is what is done. */
void wrk_train_end_turn(struct wrk_trainer *trainer);

/* ---- train_judge.c ---- */

/* The split that evaluations in training read: the validation slice where the job keeps one out. */
enum wrk_split wrk_train_split(const struct wrk_trainer *trainer);

/* True when a step is the last of an epoch of a job that judges its epochs. */
bool wrk_train_is_judged(const struct wrk_trainer *trainer, uint64_t step);

/* Judges the epoch that ends with the steps done: keeps it, or counts it, and makes this step the
 * last when that is enough. Without a verdict when a rank is told to stop. Collective. */
int wrk_train_judge(struct wrk_trainer *trainer);

/* Takes up the verdicts of the life before this one (J1). Collective. */
int wrk_train_resume_verdicts(struct wrk_trainer *trainer);

/* "kept is epoch 2, step 170: its validation loss, 1.20345, is the best, better than the 2 after
 * it"; "" when no epochs are judged. */
void wrk_train_describe_kept(const struct wrk_trainer *trainer, char *text, size_t text_bytes);

/* The figures of the model that the job ends with, by both ways of reading, the job's own last; the
 * snapshot of the best epoch is committed. Collective. */
int wrk_train_final_evaluation(struct wrk_trainer *trainer);

/* ---- train_owners.c ---- */

/* Rank 0. */
int wrk_train_create_mover(struct wrk_trainer *trainer);

/* True on rank 0 when buckets are ready to move, and no snapshot is wanted or written. */
bool wrk_train_may_move(struct wrk_trainer *trainer);

/* All ranks agreed that buckets move after the steps done. Collective. */
int wrk_train_move(struct wrk_trainer *trainer);

/* Brings what has begun to move to its end, for those who need rows to be in one place each: a
 * snapshot of the steps done, the end of training. Collective. */
int wrk_train_settle(struct wrk_trainer *trainer);

/* ---- train.c ---- */

/* Waits until rank 0 has begun a snapshot of the steps done. Collective. */
int wrk_train_snapshot_now(struct wrk_trainer *trainer);

#endif

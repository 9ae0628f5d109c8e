/* The insides of a shard's mind, for its rooms: shard.c (requests, what is held),
 * shard_reply.c
 * (replies and pulls), shard_apply.c (steps), shard_life.c (who may push), shard_snapshot.c,
 * shard_move.c. The rules (R1) to (R10): shard.h.
 */
#ifndef PS_SHARD_INTERNAL_H
#define PS_SHARD_INTERNAL_H

#include "cluster/hash.h"
#include "cluster/job.h"
#include "embeddings/shard.h"
#include "ps/gate.h"
#include "ps/merge.h"
#include "ps/pool.h"
#include "ps/shard.h"

struct clu_packer;

enum {
    SPARE_WINDOW = 8,          /* positions a push may be early beyond what the bound needs */
    ASYNC_WINDOW = 64,         /* pushes of a rank that overtook an earlier one */
    MIN_LENT_BYTES = 32 << 10, /* smaller replies are copied: cheaper than lending */
    CHUNK_FLOATS = 16 << 10,   /* conversion to bf16 in pieces that stay in the cache */
    RETRY_STORAGE_MS = 200,
    EXPIRE_EVERY_MS = 50,
    SNAPSHOT_SLICE_US = 200, /* of this thread beside training, then a pause: (R10) */
    SNAPSHOT_PAUSE_MS = 4,
    SNAPSHOT_STAND_BACK_MS = 100, /* then its scribe competes, or a busy machine gives it no time */
    SNAPSHOT_HURRY_US = 2000,     /* of one that nobody minds, or that is late */
    SNAPSHOT_IDLE_MS = 200,
    SNAPSHOT_LATE_SHARE = 4,   /* late: a quarter of its time has passed */
    SNAPSHOT_SPREAD_SHARE = 5, /* it is spread over less than that */
    SENTENCE_BYTES = 256,
};

/* What a request for a snapshot says. */
struct psv_wish {
    char folder[CLU_PATH_BYTES];
    uint64_t base_step; /* 0: a full one */
    int64_t spread_ms;
};

struct psv_finished {
    uint64_t step; /* of the one finished; the one under way is of base_step */
    uint64_t base_step;
    char path[512]; /* as answered: relative to the snapshot's folder */
    struct emb_snapshot_result result;
    bool done;
};

struct psv_shard {
    struct psv_shard_options options;
    struct emb_table_spec *tables;
    struct emb_shard *rows;
    uint64_t applied;
    int status; /* (R6) latched */

    struct psv_gate *gate;       /* staleness bound: all ranks' */
    struct psv_gate **rank_gate; /* async: [n_ranks], made at a rank's first push */
    uint64_t *incarnation;       /* [n_ranks] the newest seen */
    int cursor;                  /* async: whose turn it is */

    int next_table; /* (I1) */
    int64_t stalled_since_ms, retry_at_ms;
    int64_t expire_at_ms;
    bool stalled;
    int stall_status; /* what storage said */

    struct psv_request **held; /* [n_held] */
    int n_held;
    uint64_t held_bytes;
    struct psv_request *snapshot; /* the one being written */
    int64_t snapshot_began_ms, snapshot_next_ms, snapshot_spread_ms;
    int64_t served_at_ms; /* the last pull or push */
    struct psv_finished finished;

    uint32_t owners;                        /* newest version heard of; 0: never told */
    unsigned char owned[CLU_N_BUCKETS / 8]; /* a bit each, by that version */
    bool waits;                             /* owns nothing yet and takes no part */
    uint32_t released;                      /* owners that the last RELEASE was for */
    struct psv_request *collecting, *forgetting;

    struct psv_merge *merge;
    struct psv_source *sources; /* [n_ranks] */
    struct psv_pool *pool;
    float *scratch; /* bf16 gradients as fp32, or a chunk of rows */
    size_t n_scratch;
    struct psv_shard_stats stats;
};

/* No bound: pushes are applied on arrival, in the order of each rank's seq. */
bool psv_shard_is_async(const struct psv_shard *shard);

/* At least n floats, kept for the next call; NULL without memory. */
float *psv_shard_scratch(struct psv_shard *shard, size_t n_floats);

/* Answers with a status and a sentence (NULL: none), or with 0 and a body. What cannot be sent is
 * counted. */
void psv_shard_reply(struct psv_shard *shard, const struct psv_request *request, int status,
                     const char *sentence);
void psv_shard_reply_body(struct psv_shard *shard, const struct psv_request *request,
                          struct clu_packer *body);

/* Answers a pull with its rows. */
void psv_shard_answer_pull(struct psv_shard *shard, struct psv_request *request);

/* Bytes of the rows of some parts. */
size_t psv_shard_rows_bytes(const struct psv_shard *shard, const struct clu_wire_part *part,
                            int n_parts, int dtype);

/* Applies whatever is complete; answers what waited for it. */
void psv_shard_apply_ready(struct psv_shard *shard, int64_t now_ms);

/* A rank was started again: what older incarnations of it left here goes (R8). AGAIN while a step
 * of theirs is half applied; LOST when this one is older than one that is known. */
int psv_shard_meet(struct psv_shard *shard, uint32_t rank, uint64_t incarnation);

/* The next step to be applied is step + 1, whatever is missing up to it. Durable on return. */
int psv_shard_go_on(struct psv_shard *shard, uint64_t step);

/* A gate as the terms want it, for steps after `done`. */
int psv_shard_create_gate(const struct psv_shard *shard, uint64_t done, struct psv_gate **gate_p);

/* Answers held requests that are ready now. */
void psv_shard_release_held(struct psv_shard *shard);

/* Starts the held snapshot whose step has just been applied. */
void psv_shard_begin_snapshot(struct psv_shard *shard);

/* A slice of the running snapshot when its time has come (R10); answers when it is whole. Returns
 * milliseconds until the next slice. */
int psv_shard_advance_snapshot(struct psv_shard *shard, int64_t now_ms);

/* Answers with the files of the finished snapshot. */
void psv_shard_answer_snapshot(struct psv_shard *shard, const struct psv_request *request);

/* ---- shard_move.c ---- */

/* NULL, or what is wrong with the text of a request about moves. */
const char *psv_shard_check_moves(const struct clu_wire_request *header);

/* True for a request by owners that this shard has not heard of. */
bool psv_shard_is_newer(const struct psv_shard *shard, const struct psv_request *request);

/* COLLECT and FORGET; takes the request. */
void psv_shard_handle_move(struct psv_shard *shard, struct psv_request *request);

/* RELEASE and ADOPT: ready; then carried out and answered. */
bool psv_shard_may_move(const struct psv_shard *shard, const struct psv_request *request);
void psv_shard_answer_move(struct psv_shard *shard, struct psv_request *request);

/* A slice of what is being listed or forgotten; true while there is more. */
bool psv_shard_advance_moves(struct psv_shard *shard);

/* What a request for a snapshot wants. DENIED: text that is none (cluster/wire.h), or a folder that
 * is not below the job's snapshots, or has a way out of them. */
int psv_shard_snapshot_wish(const struct psv_shard *shard, const struct psv_request *request,
                            struct psv_wish *wish_p);

#endif

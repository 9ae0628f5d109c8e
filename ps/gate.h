/* Gate: pushes that wait for their turn.
 *
 *     position    done | done+1   done+2   ...   done+window
 *     rank 0           |   x        x
 *     rank 1           |   x        .                          x: here, .: not yet
 *                          '-- complete: may be applied, then popped
 *
 * With a staleness bound a position is a step and a slot is complete when every rank's push is
 * there; without (async) there is one gate a rank and a position is a seq, so that pushes are
 * applied in the order they were made. Pure memory: no I/O, no clock. Threads: one.
 */
#ifndef PS_GATE_H
#define PS_GATE_H

#include "cluster/transport.h"
#include "cluster/wire.h"

#include <stddef.h>
#include <stdint.h>

/* A request that waits: a push for its turn, a pull for its step. */
struct psv_request {
    int op, dtype, n_parts;
    uint32_t rank, owners;
    uint64_t incarnation, seq, step, n_keys;
    int64_t deadline_at_ms;
    struct clu_wire_part *part; /* [n_parts] in this allocation */
    const char *text;           /* the header's text, ended by a zero */
    uint32_t n_text;
    struct clu_frame keys, rows;       /* data aligned to 8 bytes */
    unsigned char peer[CLU_PEER_SIZE]; /* who waits for the answer: the newest of several tries */
    int peer_size;
};

/* From a decoded header and its message, which is emptied. Errors: CLU_E_NO_MEMORY (message_p may
 * be emptied). */
int psv_request_create(const struct clu_wire_request *header, struct clu_message *message,
                       struct psv_request **request_p);
void psv_request_free(struct psv_request *request);

/* Bytes held by it. */
uint64_t psv_request_bytes(const struct psv_request *request);

/* Answers go to where the newer try came from. */
void psv_request_readdress(struct psv_request *request, const struct psv_request *newer);

struct psv_gate;

/* window: positions beyond `done` that may be here at once; max_bytes: of all frames here, above
 * which only position done + 1 is let in (so that there is always progress). */
int psv_gate_create(int n_ranks, int window, uint64_t max_bytes, uint64_t done,
                    struct psv_gate **gate_p);
void psv_gate_free(struct psv_gate *gate);

/* Lets a push in; rank_index: 0..n_ranks-1. 0: taken. CLU_E_AGAIN: no room, try later (not taken).
 * CLU_E_EXISTS: it is here already or applied (position <= done): not taken; while it waits its
 * peer is now that of `push`. A push of a newer incarnation replaces an older one. */
int psv_gate_offer(struct psv_gate *gate, uint64_t position, int rank_index,
                   struct psv_request *push);

/* The pushes [n_ranks] of done + 1 when all are there, else NULL. */
struct psv_request **psv_gate_ready(struct psv_gate *gate);

/* Drops what waits here of a rank's incarnations below `incarnation`. */
void psv_gate_drop(struct psv_gate *gate, int rank_index, uint64_t incarnation);

/* Frees the slot of done + 1 and moves on; it must be ready. */
void psv_gate_pop(struct psv_gate *gate);

/* Nothing up to position `to` will come here: what is there of it is freed, what is later stays. */
void psv_gate_skip(struct psv_gate *gate, uint64_t to);

uint64_t psv_gate_done(const struct psv_gate *gate);
uint64_t psv_gate_bytes(const struct psv_gate *gate);

/* A push whose deadline has passed, each told once a try; NULL when there is none. It stays. */
struct psv_request *psv_gate_overdue(struct psv_gate *gate, int64_t now_ms);

/* The lowest rank index whose push of done + 1 is missing; -1 when none is. *n_missing_p: how many.
 */
int psv_gate_missing(const struct psv_gate *gate, int *n_missing_p);

#endif

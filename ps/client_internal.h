/* What client.c (requests, tickets) and client_io.c (sockets, replies, retries) share.
 *
 *     psv_ticket     what the caller asked: parts, one block of keys (and rows) sorted by shard
 *       psv_call     its share for one shard, or a piece of it; open until answered
 *     psv_link       one shard: a socket, and the list of open calls
 *
 * One lock guards everything, sockets included, but for the atomics of a ticket and the
 * descriptors that the driver polls.
 */
#ifndef PS_CLIENT_INTERNAL_H
#define PS_CLIENT_INTERNAL_H

#include "cluster/map.h"
#include "cluster/transport.h"
#include "cluster/wire.h"
#include "embeddings/table.h"
#include "ps/client.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct psv_feedback;
struct psv_place;
struct psv_ticket;

struct psv_call {
    struct psv_ticket *ticket;
    struct psv_call *next; /* in its link's list */
    int shard, attempts;
    bool open;
    uint64_t seq;
    int64_t retry_at_ms;
    size_t first, n_keys; /* of its shard's slice: all of it, or a piece of a large pull */
    size_t row_bytes;     /* of its request or reply */
};

/* What of a ticket goes to one shard: consecutive places in its blocks. */
struct psv_slice {
    size_t n_keys, key_offset;
    size_t row_bytes, row_offset;
};

/* A pull of more than PSV_PULL_PIECE_BYTES from one shard is asked for in pieces: the server
 * gathers one while another is on its way and a third is scattered. */
enum {
    PSV_PULL_PIECE_BYTES = 320 << 10,
    PSV_MAX_PIECES = 8,
    PSV_LONG_SHARE = 10, /* a snapshot, or a move, may take so many request timeouts */
};

struct psv_ticket {
    struct psv_ticket *next;
    uint64_t id, step;
    int op, dtype;
    uint32_t owners; /* by which its keys were split */
    int status;      /* of the first failure */
    int n_open, n_damaged;
    bool done, detached; /* detached: nobody waits, the ticket retires by itself */
    int64_t timeout_ms, deadline_at_ms, server_deadline_at_ms;
    _Atomic int lent; /* frames of this ticket that the transport still reads */

    int n_parts;
    struct psv_part part[EMB_MAX_TABLES]; /* non-empty ones, ascending by table */
    bool direct;  /* blocks are the caller's own arrays: nothing was copied */
    bool ordered; /* rows and keys go by order; else as they came */
    const uint64_t *keys;
    const unsigned char *rows;

    int n_calls, n_shards; /* shards of the map it was asked by; room for as many */
    int room_shards;
    struct psv_call *calls;   /* [n_calls] */
    struct psv_slice *slices; /* [n_shards] */
    uint32_t *order;          /* [sum of n] per part: positions by shard */
    uint32_t *offset;         /* [n_parts, n_shards + 1] into the part's order */
    uint16_t *shard_of;       /* scratch of partition */
    struct psv_place *places; /* [2 keys_capacity] scratch of sorting, when keys are coded */
    uint64_t *own_keys;
    unsigned char *own_rows;
    size_t order_capacity, keys_capacity, rows_capacity, offset_capacity, places_capacity;

    const char *text; /* hello, snapshot, moves */
    uint32_t n_text;
    char *own_text;
    struct psv_file *files; /* snapshot: [n_shards] */
    const char *counter;    /* stats */
    uint64_t counter_sum;
    uint64_t *collected; /* collect: [moves] rows listed and 1, or 0 */
    char sentence[256];
};

struct psv_link {
    struct clu_socket *socket; /* NULL: takes no part, or is away */
    char endpoint[CLU_ENDPOINT_SIZE];
    struct psv_call *first;
};

struct psv_client {
    struct psv_client_options options;
    struct emb_table_spec *tables;
    uint64_t *table_hash;           /* [n_tables] */
    struct psv_feedback **feedback; /* [n_tables], or NULL */
    struct clu_bucket_map *map;
    bool takes_part[CLU_MAX_SHARDS]; /* [n_shards] owns a bucket */
    int dtype, n_shards;
    bool codes_keys;
    int64_t retry_ms;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a ticket is done, or nobody drives any more */
    pthread_cond_t work;    /* the background thread has something to look after */
    bool driving, stop;
    bool resting; /* the background thread sleeps until it is called */
    pthread_t thread;
    int wake; /* eventfd: ends the driver's poll */

    /* with room for CLU_MAX_SHARDS, so that shards can join while somebody polls */
    struct psv_link *links;  /* [n_shards] */
    struct pollfd *polls;    /* [1 + n_shards] `wake`, then the links as they are now */
    struct pollfd *driven;   /* [1 + n_shards] the driver's copy */
    struct psv_ticket *open; /* not yet waited for */
    struct psv_ticket *idle; /* may be used again, once nothing of them is lent */
    uint64_t last_ticket, last_push_seq, last_seq;
    int n_open_calls;
    uint64_t least_applied, most_applied; /* as hellos were answered */
    struct psv_client_stats stats;
    struct clu_message message; /* for receiving */
};

/* A request without rows. */
struct psv_question {
    int op;
    uint64_t step;
    uint32_t owners; /* 0: the map's */
    const char *text;
    size_t n_text;
    const char *counter;
    const bool *to; /* [n_shards]; NULL: every shard that takes part */
    int64_t timeout_ms;
};

/* What a caller takes from its ticket when that is done; NULL: not wanted. */
struct psv_wanted {
    struct psv_file **files_p;
    int *n_files_p;
    uint64_t *sum_p, **collected_p;
};

/* Asks. CLU_E_NO_MEMORY, logged. */
int psv_client_ask(struct psv_client *client, const struct psv_question *question,
                   uint64_t *ticket_p);

/* psv_client_wait, and takes what is wanted. */
int psv_client_wait_for(struct psv_client *client, uint64_t ticket, int timeout_ms,
                        const struct psv_wanted *wanted);

/* Says hello to the shards that `to` names (NULL: all that take part) and waits. Where there is no
 * bound on staleness a shard that takes part from now on must know which pushes were for others:
 * the hello's step is the last of them. */
int psv_client_greet(struct psv_client *client, const bool *to);

/* CLOCK_MONOTONIC. */
int64_t psv_client_now_ms(void);

/* A ticket's time begins now. Lock held. */
void psv_ticket_start_clock(struct psv_ticket *ticket, int64_t now_ms);

/* Opens link i's socket towards its endpoint (closing the one before); none, when it has no
 * endpoint. */
int psv_link_open(struct psv_client *client, int i);

/* Bytes of the rows of a call. */
size_t psv_call_row_bytes(const struct psv_client *client, const struct psv_call *call);

/* Sends a call, or plans when to try again. Lock held. */
void psv_call_send(struct psv_client *client, struct psv_call *call, int64_t now_ms);

/* Takes whatever replies wait at link i; returns how many. Lock held. */
int psv_link_receive(struct psv_client *client, int i);

/* Retries and deadlines; returns milliseconds until the next. Lock held. */
int psv_client_timers(struct psv_client *client, int64_t now_ms);

/* Takes a ticket that is done out of the open ones. Lock held. */
void psv_ticket_retire(struct psv_client *client, struct psv_ticket *ticket);

/* Ends a ticket with its status; its open calls are forgotten. Lock held. */
void psv_ticket_end(struct psv_client *client, struct psv_ticket *ticket, int status);

/* Drives the sockets once: waits up to timeout_ms for something to happen. Lock held, given up
 * meanwhile. */
void psv_client_drive(struct psv_client *client, int timeout_ms);

#endif

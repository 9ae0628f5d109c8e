/* The client: how a worker pulls rows and pushes gradients.
 *
 *     pull(parts, step) -> ticket  --.   one request to every shard concerned, all at once
 *     push(parts, step) -> ticket  --+-> (a push goes to every shard, be it empty)
 *     wait(ticket)  <----------------'   rows are scattered straight into parts[].rows as replies
 * arrive
 *
 * Requests are asynchronous: several steps may be in flight. Each has a deadline
 * (request_timeout_ms) and is sent again, with the same seq, while no reply comes; servers apply it
 * once. A push is answered when its step is applied at the shard: at staleness 0 that is once all
 * ranks' pushes of the step are there, so wait for the push of a step after asking for the rows of
 * the next, or later, never before other ranks could push.
 *
 * Ownership: the caller's keys and rows stay untouched until their ticket has been waited for.
 * Every ticket must be waited for once. Threads: any thread may call any function; who waits drives
 * the sockets, and a thread of the client does so when nobody waits (retries go on).
 */
#ifndef PS_CLIENT_H
#define PS_CLIENT_H

#include <stddef.h>
#include <stdint.h>

struct clu_bucket_map;
struct clu_transport;
struct emb_table_spec;
struct psv_client;

struct psv_part {
    int table; /* index into the tables of the job */
    size_t n;
    const uint64_t *keys; /* [n] distinct */
    float *rows;          /* [n, dim] pull: written; push: gradients, read */
};

struct psv_client_options {
    struct clu_transport *transport;
    const struct clu_bucket_map *map;    /* copied */
    const struct emb_table_spec *tables; /* copied */
    int n_tables;
    int rank, n_ranks;
    uint64_t incarnation; /* this start of this rank, > 0; grows with each start */
    int64_t staleness;    /* -1: async; must be the servers' */
    /* "fp32", "bf16", "bf16_feedback": bf16, and what rounding a gradient left over is added to
     * the row's next one (ps/feedback.h); then one thread pushes at a time */
    const char *wire_dtype;
    /* "delta": keys travel sorted and coded (cluster/wire.h), for slow networks and ids of a dense
     * space; NULL or "plain": as they are */
    const char *wire_keys;
    int request_timeout_ms;
    int retry_ms; /* first try again after this; 0: a twentieth of the timeout, 50 to 1000 */
    int heartbeat_ms;
};

/* Connects to every shard of the map and says hello to each; returns when all have agreed on
 * protocol version and tables. Errors, logged: CLU_E_TIMEOUT (names the endpoint), CLU_E_CONFIG (a
 * shard's tables differ; its sentence), CLU_E_PROTOCOL. */
int psv_client_open(const struct psv_client_options *options, struct psv_client **client_p);

/* Closes; requests still under way are abandoned. NULL is fine. */
void psv_client_close(struct psv_client *client);

/* Asks for rows as of step (> 0): they see every push of steps <= step - 1 - staleness. Parts may
 * be empty (n 0), each table at most once. Errors: CLU_E_NO_MEMORY. */
int psv_client_pull(struct psv_client *client, const struct psv_part *parts, int n_parts,
                    uint64_t step, uint64_t *ticket_p);

/* Contributes this rank's whole gradient of step (> 0, one push a step, in the order of steps).
 * n_parts may be 0: every shard hears of every step of every rank. */
int psv_client_push(struct psv_client *client, const struct psv_part *parts, int n_parts,
                    uint64_t step, uint64_t *ticket_p);

/* Rank 0: every shard writes its part of a snapshot as soon as exactly step is applied, into
 * dir/rows/. base_step: only what changed since the snapshot of that step, which is committed (a
 * shard that does not hold it answers NOT_FOUND); 0: all rows. spread_ms: written over about so
 * long, so that training hardly notices; 0: as fast as it can be. Call it after the push of step
 * and before the push of step + 1. Wait with psv_client_wait_snapshot. */
int psv_client_snapshot(struct psv_client *client, uint64_t step, uint64_t base_step,
                        int64_t spread_ms, const char *dir, uint64_t *ticket_p);

/* Rank 0: the job's snapshot of step is committed: servers may let go of what came before it. Sent
 * and tried again in the background; there is nothing to wait for. */
int psv_client_confirm(struct psv_client *client, uint64_t step);

/* Every step <= step is applied at every shard once this ticket is done. */
int psv_client_barrier(struct psv_client *client, uint64_t step, uint64_t *ticket_p);

/* Rank 0 of a group that goes on where another died (ps/shard_life.c): the next step that any shard
 * applies is step + 1. After every rank's open and before anybody's first pull. */
int psv_client_begin(struct psv_client *client, uint64_t step, uint64_t *ticket_p);

/* How many steps the shards had applied when they answered this client's hello: the least and the
 * most of them. */
void psv_client_applied(struct psv_client *client, uint64_t *least_p, uint64_t *most_p);

/* Waits until the ticket's request is done, at most timeout_ms (-1: until the request's own
 * deadline). 0, or: CLU_E_AGAIN: timeout_ms passed first, the ticket lives on; CLU_E_TIMEOUT: its
 * deadline passed (logged with the shards that did not answer); otherwise a server's status (logged
 * with its sentence). */
int psv_client_wait(struct psv_client *client, uint64_t ticket, int timeout_ms);

struct psv_file {
    char name[256]; /* relative to the snapshot's folder: "rows/shard-0003.rows" */
    uint64_t size_bytes, checksum, n_rows;
};

/* As psv_client_wait, for a snapshot ticket; writes the files of all shards in shard order; the
 * caller frees *files_p. */
int psv_client_wait_snapshot(struct psv_client *client, uint64_t ticket, int timeout_ms,
                             struct psv_file **files_p, int *n_files_p);

/* Shards listen elsewhere since a newer map (a server was started again): connects there and asks
 * again what is under way, which gets its whole time anew. A shard without an endpoint is being
 * started: what is asked of it waits, and its time with it, until a map says where it is. Of the
 * map only the endpoints of shards that the client knows are taken. */
int psv_client_remap(struct psv_client *client, const struct clu_bucket_map *map);

/* ---- buckets that move while the job trains: ps/shard_move.c ---- */

struct psv_move {
    uint16_t bucket, from, to; /* from which shard to which */
};

enum { PSV_MAX_MOVES = 4096 }; /* in one request */

/* A copy of the map that requests go by. */
void psv_client_map(struct psv_client *client, struct clu_bucket_map *map_p);

/* Rank 0: the shards list what of these buckets they have, beside the steps that go on. */
int psv_client_collect(struct psv_client *client, const struct psv_move *moves, int n,
                       uint64_t *ticket_p);

/* As psv_client_wait, for a collect ticket: for each move the rows listed and 1; 0: not listed, for
 * want of memory: ask again when those before it have moved. The caller frees *collected_p. */
int psv_client_wait_collect(struct psv_client *client, uint64_t ticket, int timeout_ms,
                            uint64_t **collected_p);

/* Rank 0, after its push of step and before that of step + 1, with moves that are collected: the
 * old owners write the rows as of step where the new ones find them. owners: the version that
 * begins. */
int psv_client_release(struct psv_client *client, const struct psv_move *moves, int n,
                       uint64_t step, uint64_t owners, uint64_t *ticket_p);

/* Every rank: requests go by this map from now on; the map has newer owners and may have more
 * shards. Between the push of the step that release named and the next one. What is asked already
 * is answered by the old owners. Waits for the hello of shards that take part for the first time.
 * Where there is no bound on staleness: with every push answered. */
int psv_client_switch(struct psv_client *client, const struct clu_bucket_map *map);

/* Rank 0, once release is done and the client has switched, before the push of step + 1: the new
 * owners take the rows in, and every shard hears of the owners. */
int psv_client_adopt(struct psv_client *client, const struct psv_move *moves, int n, uint64_t step,
                     uint64_t owners, uint64_t *ticket_p);

/* Rank 0, once no rank waits for rows that it asked for by the old owners: those drop them. */
int psv_client_forget(struct psv_client *client, const struct psv_move *moves, int n,
                      uint64_t owners, uint64_t *ticket_p);

/* The counters of all shards, summed by name (ps/shard.h: rows, pulls, malformed ...), as a
 * ticket's result: waits, and writes the value of `name` or 0 when no shard has it. */
int psv_client_counter(struct psv_client *client, const char *name, uint64_t *value_p);

enum { PSV_STALENESS_BINS = 18 };

struct psv_client_stats {
    uint64_t pulls, pushes, rows_pulled, rows_pushed; /* requests of the caller, rows of them */
    uint64_t bytes_sent, bytes_received, retries, malformed;
    uint64_t wait_ns;                       /* time spent inside psv_client_wait */
    uint64_t staleness[PSV_STALENESS_BINS]; /* shard replies that missed exactly i steps; the last:
                                               as many or more */
};

void psv_client_stats(struct psv_client *client, struct psv_client_stats *stats_p);

#endif

/* The server role: `sluice ps`. Some shard threads, each alone with its ROUTER and its rows, and a
 * main thread that belongs to the job (cluster/member.h) and tells them when to stop.
 *
 *     main thread   join -> map -> restore -> start threads -> orders ... stop -> join threads ->
 * leave shard thread  [ROUTER] -> request -> held, buffered, or answered from [emb_shard]
 *
 * What a request means, when it is held and what is applied in which order: ps/shard.h. Threads
 * share nothing but a stop flag and counters.
 */
#ifndef PS_SERVER_H
#define PS_SERVER_H

#include <stddef.h>
#include <stdint.h>

struct clu_job;
struct clu_transport;
struct emb_table_spec;

struct psv_server_options {
    const struct clu_job *job;
    int rank;          /* which server of the job: 0..servers-1 */
    const char *sched; /* the scheduler's endpoint */
    const struct emb_table_spec *tables;
    int n_tables;
    const char *dir; /* holds shard-<i>/; made when missing */
    struct clu_transport *transport;
};

/* Runs until an order to stop (0), or until something fails: the scheduler silent (CLU_E_LOST), a
 * shard that cannot store (CLU_E_FULL, CLU_E_IO, CLU_E_CORRUPT), a socket that cannot bind. Logged.
 */
int psv_server_run(const struct psv_server_options *options);

/* The same without a scheduler, for tests, benches and other launchers: shard threads on given
 * endpoints. */
struct psv_server;

struct psv_threads_options {
    struct clu_transport *transport;
    const struct emb_table_spec *tables;
    int n_tables;
    int n_shards;    /* threads */
    int first_shard; /* the job-wide number of this server's first shard */
    int n_ranks;
    int64_t staleness;
    const char *dir;
    uint64_t memory_bytes;  /* of all shards here */
    const char *durability; /* "snapshot" or "log" */
    const char *bind;       /* "tcp://127.0.0.1:*" */
    int heartbeat_ms;
    uint64_t max_message_bytes; /* 0: 256 MiB */
    uint64_t applied_step;      /* after a restore: the snapshot's step */
};

/* Starts the threads; each shard opened and bound when it returns. */
int psv_server_start(const struct psv_threads_options *options, struct psv_server **server_p);

/* Where shard i (0..n_shards-1) listens. Valid until stop. */
const char *psv_server_endpoint(const struct psv_server *server, int i);

/* 0 while all threads run; the first failure's status otherwise. Thread: any. */
int psv_server_status(const struct psv_server *server);

/* Stops the threads, commits and closes the shards, frees. NULL is fine. Returns the first failure.
 */
int psv_server_stop(struct psv_server *server);

/* Ends the threads at once without committing, as a kill would, and frees; for tests of recovery.
 */
void psv_server_abandon(struct psv_server *server);

#endif

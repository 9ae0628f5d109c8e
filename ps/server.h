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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct clu_bucket_map;
struct clu_job;
struct clu_metrics;
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
    struct clu_metrics *metrics; /* the process's, filled here; may be NULL */
    const char *metrics_url;     /* where they are served; told to the scheduler */
};

/* Runs until an order to stop (0), or until something fails: the scheduler silent (CLU_E_LOST), a
 * shard that cannot store (CLU_E_FULL, CLU_E_IO, CLU_E_CORRUPT), a socket that cannot bind. Logged.
 */
int psv_server_run(const struct psv_server_options *options);

/* The same in steps, without a scheduler, for tests, benches and other launchers:
 * open -> (restore) -> start -> stop. */
struct psv_server;

struct psv_threads_options {
    struct clu_transport *transport;
    const struct emb_table_spec *tables; /* copied by the shards */
    int n_tables;
    int n_shards; /* threads */
    int n_ranks;  /* workers */
    int64_t staleness;
    const char *dir;             /* holds shard-<i>/; made when missing */
    uint64_t memory_bytes;       /* of all shards here; 0: no bound */
    uint64_t map_bytes;          /* address space of a shard's store at first; 0: chosen */
    const char *durability;      /* "snapshot" or "log" */
    const char *bind;            /* "tcp://127.0.0.1:*" */
    int heartbeat_ms;            /* 0: none */
    uint64_t max_message_bytes;  /* a longer frame ends its connection; 0: 256 MiB */
    const char *snapshot_root;   /* snapshots are written below it only; NULL: anywhere */
    const char *move_root;       /* rows of buckets that move lie there; NULL: none move */
    struct clu_metrics *metrics; /* figures of the shards are shown there; may be NULL; outlives
                                    the server */
};

/* Opens and binds every shard. What is stored in dir is kept as it is until restore. */
int psv_server_open(const struct psv_threads_options *options, struct psv_server **server_p);

/* Where shard i (0..n_shards-1) listens. Valid until stop. */
const char *psv_server_endpoint(const struct psv_server *server, int i);

/* What a job's life begins from. */
struct psv_origin {
    const struct clu_bucket_map *map;
    int first_shard;     /* the job-wide number of this server's first shard */
    const char *folder;  /* snapshot to start from; "": from nothing */
    uint64_t step;       /* its step; 0 from nothing */
    uint64_t generation; /* which life of the job this is; 0: always restore */
    bool stand;          /* only rows of this very life will do: LOST when they are not there */
    uint64_t least_incarnation; /* of the workers of this life (ps/shard.h) */
};

/* Brings every shard to the origin's state. Rows that were committed within the same life by
 * durability "log" stand as they are; otherwise the store goes back to that step if it holds it,
 * else it is emptied and filled from the snapshot's files, the buckets of the map alone. Errors:
 * CLU_E_CORRUPT and others, logged. */
int psv_server_restore(struct psv_server *server, const struct psv_origin *origin);

/* Starts the threads. first_shard as above (0 where nothing was restored). */
int psv_server_start(struct psv_server *server, int first_shard);

/* Ends the threads and keeps everything else: rows in memory, sockets, endpoints. Then restore and
 * start begin another life, in place. */
void psv_server_rest(struct psv_server *server);

/* 0 while all is well; the first failure's status otherwise. Thread: any. */
int psv_server_status(const struct psv_server *server);

/* Sums over the shards, as of up to a second ago. Thread: any. */
struct psv_server_stats {
    uint64_t applied; /* the least of the shards */
    uint64_t rows, resident_rows, memory_bytes, file_bytes;
    uint64_t rows_pulled, rows_pushed, pulls, pushes, malformed, refused, duplicates, expired,
        unsent;
    uint64_t denied; /* connections refused for their key or mechanism */
    uint64_t rows_moved_in, rows_moved_out;
    uint64_t held, buffered_bytes, stalled_ms;
};
void psv_server_stats(struct psv_server *server, struct psv_server_stats *stats_p);

/* Stops the threads, commits and closes the shards, frees. NULL is fine. Returns the first
 * failure. */
int psv_server_stop(struct psv_server *server);

/* Ends the threads at once, commits nothing, frees: what a kill leaves behind, for tests of
 * recovery. */
void psv_server_abandon(struct psv_server *server);

#endif

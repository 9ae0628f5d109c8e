/* The control channel: every message between the scheduler and the members of a job, and the
 * scheduler's end of the socket.
 *
 * One ROUTER at the scheduler, one DEALER a member. A message is one frame, a msgpack map; unknown
 * keys are passed over, so that roles of neighbouring versions understand each other.
 *
 *     member                                   scheduler
 *       JOIN {role, rank, endpoints}   -->
 *                                      <--    WELCOME {ids, resume, map}    or REFUSE {status,
 * text} BEAT {seq of last order}       -->
 *                                      <--    BEAT {map version}
 *       REPORT {number, kind, ...}     -->
 *                                      <--    RECEIPT {number}
 *                                      <--    ORDER {number, kind, ...}     again until the beat
 *                                                                              shows it
 *       LEAVE {status, text}           -->
 *                                      <--    RECEIPT
 *     a tool (status, stop, ...)
 *       ASK {verb, argument}           -->
 *                                      <--    ANSWER {status, text}
 *
 * Every message a member sends carries the incarnation it was welcomed with; one of an earlier life
 * of the job is answered with REFUSE and nothing else. A malformed message is dropped and counted.
 *
 * Threads: a clu_control belongs to one thread.
 */
#ifndef CLUSTER_CONTROL_H
#define CLUSTER_CONTROL_H

#include "cluster/job.h"
#include "cluster/manifest.h"
#include "cluster/map.h"
#include "cluster/metrics.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct clu_transport;

enum {
    CLU_CONTROL_VERSION = 1,
    CLU_TEXT_BYTES = 512,
    CLU_PEER_BYTES = 32,
    CLU_MAX_PART_FILES = 64
};

enum clu_role {
    CLU_ROLE_SCHED,
    CLU_ROLE_PS,
    CLU_ROLE_WORKER,
    CLU_ROLE_LAUNCHER, /* the supervisor in `sluice train` */
    CLU_ROLE_TOOL,     /* status, snapshot, drain, stop: asks and goes */
    CLU_N_ROLES
};

/* "sched", "ps", "worker", "launcher", "tool". */
const char *clu_role_name(enum clu_role role);

/* What a member learns when it joins. */
struct clu_welcome {
    uint64_t job_id; /* of the job's folder: the same for all its lives */
    uint64_t
        generation; /* life of the job: 1, and 1 more at every roll-back or restart on the folder */
    uint64_t
        incarnation; /* of this member: unique over all members and lives; what its pushes carry */
    int n_servers, n_shards /* over all servers */, n_workers;
    char resume[CLU_PATH_BYTES]; /* folder of the snapshot to start from; "": from nothing */
    uint64_t resume_step;        /* steps done in it; 0 from nothing */
    /* the life goes on where it was: a server's rows stand as it committed them; a worker begins
     * from the newest dense weights of this life (resume names the newest whole snapshot) and the
     * servers' rows as they stand */
    bool stand;
    uint64_t least_incarnation; /* servers: workers of older ones belong to what is over */
};

enum clu_order_kind {
    CLU_ORDER_SNAPSHOT =
        1,               /* rank 0: take a snapshot at the next boundary, at step >= order.step */
    CLU_ORDER_COMMITTED, /* rank 0: the snapshot of order.step is whole (status 0) or failed (why)
                          */
    CLU_ORDER_STOP,  /* end. status 0: the work is done. INTERRUPTED: on request; with snapshot set,
                        workers take one first (the wish goes through all ranks as SNAPSHOT does)
                        and end with INTERRUPTED. Anything else: the job has failed, end at once */
    CLU_ORDER_MAP,   /* there is a newer map: clu_member_map */
    CLU_ORDER_MOVE,  /* rank 0: with the map of version order.step, let the buckets move that
                        clu_map_plan names for the servers that stay; report MOVED for each group of
                        them, SETTLED at the end */
    CLU_ORDER_DUMP,  /* write what you know of your state to the log */
    CLU_ORDER_MOVED, /* rank 0: owners order.step are stored: old places may be forgotten */
    CLU_ORDER_RESTORE, /* server: another life begins, order.generation, from the snapshot of
                          order.step (0: from nothing): go there in place, then report READY */
};

struct clu_order {
    enum clu_order_kind kind;
    uint64_t step;
    int status;
    bool snapshot;
    uint64_t generation, least_incarnation; /* RESTORE: as in clu_welcome */
    char text[CLU_TEXT_BYTES];              /* for people: why */
};

enum clu_report_kind {
    CLU_REPORT_READY = 1, /* server: restored for the life `generation`, serving */
    CLU_REPORT_PROGRESS,  /* rank 0, every log_every steps or second: step, n_steps, figures */
    CLU_REPORT_EVALUATED, /* rank 0: figures of an evaluation at step */
    CLU_REPORT_PART,      /* anyone: files written (and fsynced) for the snapshot of step */
    CLU_REPORT_SNAPSHOT,  /* rank 0: all parts of step are written: commit. Carries rank 0's own
                             files and figures (rows, bytes, seconds); answered by order
                             COMMITTED. status != 0: it failed, drop it */
    CLU_REPORT_FINISHED,  /* rank 0: the last step is done and its snapshot committed. text: which
                             step is kept and why, when that is another matter */
    CLU_REPORT_STATE,     /* anyone, now and then: figures of this process (rows, bytes, waits) */
    CLU_REPORT_MOVED,   /* rank 0: from the step after `step` on the buckets belong to shard_of, as
                           version `owners`; answered by order MOVED */
    CLU_REPORT_TROUBLE, /* anyone: something a person should see, in text; not fatal */
    CLU_REPORT_SETTLED, /* rank 0: every bucket is where the order MOVE wanted it, and only there */
    CLU_REPORT_GONE_ON, /* rank 0: a group of workers went on after step with rows as they stood;
                           figures: dense_step, lost_steps, lost_samples, dropped_steps */
};

/* Figures rank 0 reports in PROGRESS, where it has them: epoch, loss, loss_cls, loss_reg,
 * loss_order, samples (done since step 0), samples_per_second, pull_wait_seconds (of the interval),
 * step_seconds, staleness; and for stragglers, per rank, rank_<r>_seconds (its own compute of the
 * interval). */
struct clu_report {
    enum clu_report_kind kind;
    uint64_t step;
    uint64_t n_steps;    /* PROGRESS: steps the job will have, 0 unknown */
    uint64_t base_step;  /* SNAPSHOT: the snapshot that its rows are a delta upon; 0: full */
    uint64_t generation; /* READY */
    int status;
    char text[CLU_TEXT_BYTES];
    uint64_t owners;                  /* MOVED, else 0 */
    uint16_t shard_of[CLU_N_BUCKETS]; /* MOVED */
    struct clu_figures figures;
    int n_files;
    struct clu_manifest_file files[CLU_MAX_PART_FILES];
};

enum clu_control_op {
    CLU_CONTROL_JOIN = 1,
    CLU_CONTROL_WELCOME,
    CLU_CONTROL_REFUSE,
    CLU_CONTROL_BEAT,
    CLU_CONTROL_REPORT,
    CLU_CONTROL_RECEIPT,
    CLU_CONTROL_ORDER,
    CLU_CONTROL_LEAVE,
    CLU_CONTROL_ASK,
    CLU_CONTROL_ANSWER,
};

/* Any message: the fields an op does not use are zero. About 100 KiB; endpoints, map and text are
 * views. */
struct clu_control_message {
    enum clu_control_op op;
    enum clu_role role;
    int rank;
    uint64_t incarnation;
    uint64_t
        number; /* REPORT, RECEIPT, ORDER: counts from 1; BEAT from a member: last order it has */
    uint64_t map_version;                 /* BEAT from the scheduler */
    int status;                           /* REFUSE, LEAVE, ANSWER */
    int64_t pid;                          /* JOIN */
    char host[128];                       /* JOIN */
    char metrics_url[CLU_ENDPOINT_BYTES]; /* JOIN: where it serves its metrics; "": nowhere */
    char text[CLU_TEXT_BYTES];            /* REFUSE, LEAVE, ASK: the verb and its argument */
    const char *body;                     /* ANSWER: a JSON text; a view, not terminated */
    size_t body_bytes;
    int n_endpoints; /* JOIN */
    char endpoints[64][CLU_ENDPOINT_BYTES];
    struct clu_welcome welcome;
    struct clu_bucket_map
        *map; /* WELCOME and BEAT, when there is one: caller's memory; NULL: not wanted */
    bool has_map;
    struct clu_order order;
    struct clu_report report;
};

/* Writes a message into a packer (cleared first). */
void clu_control_pack(const struct clu_control_message *message, struct clu_packer *packer);

/* Reads one. message_p->map must be set by the caller (may be NULL: a map is checked and passed
 * over). body is a view into data. PROTOCOL for anything malformed; then *message_p is not to be
 * used. */
int clu_control_unpack(const void *data, size_t size_bytes, struct clu_control_message *message_p);

/* Who sent a message, as the scheduler's socket knows it. */
struct clu_peer {
    uint8_t size_bytes;
    uint8_t bytes[CLU_PEER_BYTES];
};

struct clu_control;

/* Binds the scheduler's socket to tcp://host:port, port 0 for any free one. endpoint_p: where it
 * listens. transport outlives it. EXISTS when the port is taken, DENIED and CONFIG as for
 * clu_socket_bind. */
int clu_control_open(struct clu_transport *transport, const char *host, int64_t port,
                     struct clu_control **control_p, char endpoint_p[CLU_ENDPOINT_BYTES]);
void clu_control_close(struct clu_control *control);

/* Descriptors that clu_control_receive also waits for [n], at most 4. */
void clu_control_watch(struct clu_control *control, const int *fds, int n);

/* The next message, waiting up to timeout_ms; TIMEOUT when none came, AGAIN when none came and a
 * watched descriptor is readable. Malformed ones are counted,
 * logged at debug level and passed over. body stays valid until the next call. */
int clu_control_receive(struct clu_control *control, int timeout_ms, struct clu_peer *peer_p,
                        struct clu_control_message *message_p);

/* Sends to a peer; never waits. UNAVAILABLE when the peer is gone, AGAIN when its queue is full. */
int clu_control_send(struct clu_control *control, const struct clu_peer *peer,
                     const struct clu_control_message *message);

/* How many messages were dropped as malformed. */
uint64_t clu_control_n_malformed(const struct clu_control *control);

/* A tool's question: sends ASK to a scheduler and waits for the ANSWER. body_p: malloc'd JSON text,
 * caller frees; may be NULL. Returns the answer's status (its text logged when it is an error), or
 * TIMEOUT when nobody answered. */
int clu_control_ask(struct clu_transport *transport, const char *endpoint, const char *question,
                    int timeout_ms, char **body_p);

#endif

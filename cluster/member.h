/* A member's end of the control channel: what a server or a worker rank knows of the job it is part
 * of.
 *
 *     join --> welcome (who am I, where to start from, the bucket map) --> report ... next_order
 * ... --> leave
 *
 * One object a process. A thread of its own owns the socket, sends heartbeats, and keeps the newest
 * map and the orders until they are asked for; so no call below but join and leave ever waits for
 * the network, and a member that is busy computing stays alive in the scheduler's eyes. When the
 * scheduler falls silent for longer than lost_after_ms, next_order returns LOST and the role ends
 * with 69. A scheduler that was killed and comes back is joined again without the role noticing.
 *
 * What a server does: bind its shards' sockets, join (offering their endpoints), restore
 * welcome->resume if it is not empty, report READY, serve, obey orders, leave. What a worker rank
 * does: join (it returns once every server is READY), restore welcome->resume, train, report
 * progress (rank 0), obey orders (rank 0: SNAPSHOT; every rank: STOP), leave.
 *
 * Threads: any, unless said.
 */
#ifndef CLUSTER_MEMBER_H
#define CLUSTER_MEMBER_H

#include "cluster/control.h"
#include "cluster/map.h"

struct clu_member;
struct clu_transport;

struct clu_member_options {
    const char *endpoint; /* the scheduler's control endpoint: tcp://host:port */
    enum clu_role role;
    int rank;
    int n_endpoints; /* shards offered: servers only; the job's `shards` */
    const char (*endpoints)[CLU_ENDPOINT_BYTES];          /* [n_endpoints] as others reach them */
    int64_t heartbeat_ms, lost_after_ms, join_timeout_ms; /* job: heartbeat_ms, dead_after_ms,
                                                             start_timeout_ms */
    /* how long a vanished scheduler may stay away before LOST; 0: lost_after_ms. A supervised job
     * sets it to what a restart of the scheduler takes. */
    int64_t rejoin_timeout_ms;
    struct clu_transport *transport; /* the process's; outlives the member */
    const char *metrics_url;   /* where this process serves its metrics; NULL or "": nowhere */
    const char *endpoint_file; /* OUT/run/sched.endpoint, read again when the scheduler is silent;
                                  or NULL */
};

/* Joins and blocks till welcomed with a complete map. Errors: TIMEOUT or UNAVAILABLE (says what it
 * waited for), DENIED or CONFIG when the scheduler refuses (a rank taken, a wrong shape; the reason
 * is logged). */
int clu_member_join(const struct clu_member_options *options, struct clu_member **member_p);

/* What the scheduler told at joining. Valid until leave. */
const struct clu_welcome *clu_member_welcome(const struct clu_member *member);

/* A copy of the newest map. */
int clu_member_map(struct clu_member *member, struct clu_bucket_map *map_p);

/* The newest map's version, cheaply: compare with the one in use. */
uint64_t clu_member_map_version(struct clu_member *member);

/* The oldest order not yet taken. AGAIN when there is none; LOST when the scheduler is gone or has
 * declared this member dead: end with its exit code. Never blocks. */
int clu_member_next_order(struct clu_member *member, struct clu_order *order_p);

/* As next_order, but waits up to timeout_ms; TIMEOUT in place of AGAIN. */
int clu_member_wait_order(struct clu_member *member, int timeout_ms, struct clu_order *order_p);

/* Queues a report; copied. Reports of one member arrive in order and are sent again after a
 * reconnect until the scheduler has them. NO_MEMORY, or LOST as above. */
int clu_member_report(struct clu_member *member, const struct clu_report *report);

/* Says goodbye with how it went (CLU_OK, or why not; text: one sentence or NULL), waits up to a
 * second for it to be on the wire, stops the thread and frees. member may be NULL. Owner only. */
void clu_member_leave(struct clu_member *member, int status, const char *text);

#endif

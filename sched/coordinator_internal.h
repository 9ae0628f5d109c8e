/* The coordinator's state, shared by its decisions (coordinator.c) and by what stores and shows it
 * (coordinator_state.c). Nobody else includes this.
 */
#ifndef SCHED_COORDINATOR_INTERNAL_H
#define SCHED_COORDINATOR_INTERNAL_H

#include "sched/coordinator.h"

#include <stdarg.h>

enum { BROKEN_MS = 5000 /* how long members may take to end */ };

enum snapshot_state { SNAPSHOT_NONE, SNAPSHOT_ORDERED, SNAPSHOT_COMMITTING };

struct queued_order {
    struct queued_order *next;
    uint64_t number;
    struct clu_order order;
};

struct queued_action {
    struct queued_action *next;
    struct schd_action action;
};

struct member {
    enum clu_role role;
    int rank;
    enum schd_member_state state;
    bool suspect;  /* silent */
    bool lags;     /* a worker that computed far longer than others, or than usual */
    bool attached; /* peer is valid: it has spoken to this scheduler process */
    bool stand;    /* started again within this life: its welcome says so */
    bool kept;     /* a server of the life before: it goes on by order, not by welcome */
    struct clu_peer peer;
    uint64_t incarnation, last_report;
    int64_t heard_ms, pid;
    int64_t rival_ms; /* since when another process asks for this rank; 0: none does */
    char host[128], text[CLU_TEXT_BYTES];
    int status;
    struct queued_order *orders; /* not yet acknowledged, oldest first */
    uint64_t n_orders;
    struct clu_figures *figures;
};

struct schd_coordinator {
    struct schd_shape shape;
    struct schd_life life;
    enum schd_phase phase;
    int n_servers, n_members; /* drained ones included */
    struct member *members;   /* [n_members] servers by rank, workers by rank */
    struct clu_bucket_map map;
    uint64_t n_incarnations;
    uint64_t least_incarnation; /* of the workers of this life, or of its newest group */
    bool ran;                   /* all servers were READY in this life */
    bool must_go_back;          /* a server that was to stand could not */
    enum schd_way planned;      /* while BROKEN: the way that was told; it is not softened */
    bool workers_stand;         /* the newest group of workers goes on where another died */
    char whole[CLU_PATH_BYTES]; /* then: the newest whole snapshot */
    uint64_t whole_at;          /* its step */
    int64_t deadline_ms;        /* of the phase */
    uint64_t step, n_steps;
    struct clu_figures progress, evaluation;
    double usual_seconds; /* of the slowest rank in an interval, smoothed */
    bool finished;
    /* stop on request */
    bool stopping;
    int64_t stop_deadline_ms;
    char stop_why[CLU_TEXT_BYTES]; /* or, once finished without: what rank 0 said of it */
    /* snapshot under way */
    enum snapshot_state snapshot;
    uint64_t snapshot_step, whole_step;
    uint64_t n_gone_on, lost_steps, lost_samples;
    int64_t snapshot_due_ms;
    /* change of shape */
    enum schd_change change;
    int64_t change_began_ms, change_deadline_ms, change_now_ms;
    int first_added, n_moved, n_to_move;
    char change_text[CLU_TEXT_BYTES];
    /* how it broke or ended */
    int status;
    char text[CLU_TEXT_BYTES];
    bool out_of_memory;
    struct schd_action scratch; /* written to in place of an action that could not be queued */
    struct queued_action *first_action, **last_action_p;
};

/* ---- coordinator_core.c ---- */

/* Queues an action; never NULL (out of memory: a scratch one, and the job will fail). */
struct schd_action *schd_core_add_action(struct schd_coordinator *c, enum schd_action_kind kind);
struct schd_action *schd_core_send_to(struct schd_coordinator *c, const struct clu_peer *peer,
                                      enum clu_control_op op);
void schd_core_tell(struct schd_coordinator *c, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void schd_core_refuse(struct schd_coordinator *c, const struct clu_peer *peer, int status,
                      const char *text);
void schd_core_save(struct schd_coordinator *c);

/* The member of that role and rank, or NULL. */
struct member *schd_core_find(struct schd_coordinator *c, enum clu_role role, int rank);

/* True while a process of this member is part of the job. */
bool schd_core_is_here(const struct member *m);
int schd_core_count(const struct schd_coordinator *c, enum clu_role role,
                    enum schd_member_state state);

/* Gives an order; it is sent until a beat acknowledges it. */
void schd_core_order(struct schd_coordinator *c, struct member *m, const struct clu_order *what);
void schd_core_order_all(struct schd_coordinator *c, enum clu_role role,
                         const struct clu_order *what);
void schd_core_send_order(struct schd_coordinator *c, struct member *m,
                          const struct queued_order *queued);
/* Forgets what is queued, for a member that is gone. */
void schd_core_drop_orders(struct member *m);
void schd_core_welcome(struct schd_coordinator *c, struct member *m);

/* True while every worker is part of the job, or done with it. */
bool schd_core_workers_stay(const struct schd_coordinator *c);

enum schd_way schd_core_way(const struct schd_coordinator *c);

/* Forgets a member's process. */
void schd_core_forget(struct schd_coordinator *c, struct member *m);
void schd_core_order_restore(struct schd_coordinator *c, struct member *m);
void schd_core_stop_servers(struct schd_coordinator *c, int64_t now);

/* Transitions; each does nothing unless its condition holds. */
void schd_core_servers_complete(struct schd_coordinator *c, int64_t now);
void schd_core_servers_ready(struct schd_coordinator *c, int64_t now);
void schd_core_admit_worker(struct schd_coordinator *c, struct member *m);
void schd_core_workers_left(struct schd_coordinator *c, int64_t now);
void schd_core_servers_left(struct schd_coordinator *c);
void schd_core_fail(struct schd_coordinator *c, int64_t now, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void schd_core_end(struct schd_coordinator *c, int status, const char *text);

/* ---- coordinator_join.c ---- */

/* A JOIN of the process that is member m, was, or wants to be. */
void schd_core_join(struct schd_coordinator *c, int64_t now, struct member *m,
                    const struct clu_peer *peer, const struct clu_control_message *message);

/* ---- coordinator_shape.c ---- */

/* Servers that are not drained. */
int schd_core_n_servers(const struct schd_coordinator *c);

/* Lets an added server in, and goes on when all are ready. */
void schd_core_admit_added(struct schd_coordinator *c, struct member *m);
void schd_core_added_ready(struct schd_coordinator *c);

/* Tells rank 0 what is to move, when something is. */
void schd_core_order_move(struct schd_coordinator *c);
void schd_core_order_again(struct schd_coordinator *c);
void schd_core_moved(struct schd_coordinator *c, int64_t now, const struct clu_report *report);
void schd_core_settled(struct schd_coordinator *c, int64_t now);

/* True for a server that owns nothing and is not to. */
bool schd_core_is_needless(const struct schd_coordinator *c, int server);

/* True when the job can do without this member, which has gone: the change of shape is told. */
bool schd_core_is_spare(struct schd_coordinator *c, struct member *m, const char *why);
void schd_core_all_left(struct schd_coordinator *c);
void schd_core_check_change(struct schd_coordinator *c, int64_t now);

/* Another life of the job begins: what becomes of the change. */
void schd_core_change_lives(struct schd_coordinator *c);

#endif

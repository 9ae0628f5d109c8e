/* The coordinator: every decision about a job, and nothing else. A state machine that is fed
 * messages of members, requests of people, and the time; it answers with a list of actions for
 * somebody else to carry out. It has no socket, no file, no clock, no thread, so every policy is
 * tested by calling it.
 *
 *     GATHERING -servers joined-> RESTORING -all READY-> RUNNING -workers left-> STOPPING
 *         |                           |                   |   ^                     |
 *         '--- a deadline, a silent member, a bad end ----+---|--> BROKEN    all servers left
 *                                                             |      |              |
 *         GATHERING <-- recover: back, the next generation ---|------+          ENDED
 *         MENDING <---- recover: the life goes on ------------|------'
 *            '--------- all servers READY --------------------'
 *
 * A member: ABSENT -> JOINED (waits for the others) -> IN (welcomed) -> READY (a server that has
 * restored) -> LEFT; or DEAD, when it was silent for longer than dead_after_ms or left with an
 * error. How a job recovers, and who is started again: coordinator_recover.c. DRAINED: a server
 * that the job does without since its buckets moved.
 *
 * Threads: one owner. Cost: a message is O(1) but for joins, which build a map.
 */
#ifndef SCHED_COORDINATOR_H
#define SCHED_COORDINATOR_H

#include "cluster/control.h"

#include <stdbool.h>
#include <stdint.h>

enum schd_phase {
    SCHD_GATHERING,
    SCHD_RESTORING,
    SCHD_RUNNING,
    SCHD_MENDING,
    SCHD_STOPPING,
    SCHD_BROKEN,
    SCHD_ENDED,
};

enum schd_member_state {
    SCHD_ABSENT,
    SCHD_JOINED,
    SCHD_IN,
    SCHD_READY,
    SCHD_LEFT,
    SCHD_DEAD,
    SCHD_DRAINED,
};

/* A change of shape while the job trains: coordinator_shape.c. */
enum schd_change {
    SCHD_CHANGE_NONE,
    SCHD_CHANGE_JOINING, /* waits for servers that are added */
    SCHD_CHANGE_MOVING,  /* buckets move */
    SCHD_CHANGE_LEAVING, /* waits for servers that are drained to end */
};

struct schd_shape {
    int n_servers, shards_per_server, n_workers;
    int64_t heartbeat_ms, dead_after_ms, start_timeout_ms;
    int64_t stop_timeout_ms; /* longest a stop on request may take */
    int64_t snapshot_ms;     /* a snapshot at least this often; 0: never by time */
    bool supervised;         /* somebody restarts what dies: wait for recover when broken */
    bool servers_stand;      /* rows outlive their server's process as they are (durability: log) */
    bool workers_stand;      /* and other workers may go on with them (and staleness > 0) */
};

/* Where a life of the job starts from. */
struct schd_life {
    uint64_t job_id, generation;
    char resume[CLU_PATH_BYTES]; /* "" from nothing */
    uint64_t resume_step;
};

enum schd_action_kind {
    SCHD_SEND, /* message op to peer: number, status, text, welcome, order as op needs; with_map */
    SCHD_COMMIT,   /* the snapshot of step is written: commit it, call schd_coordinator_committed */
    SCHD_DROP,     /* the snapshot of step failed: remove its .part */
    SCHD_SAVE,     /* what a restarted scheduler needs has changed: store it before going on */
    SCHD_TELL,     /* an event for people: level (CLU_LOG_*) and text */
    SCHD_PROGRESS, /* report: a line of metrics (kind PROGRESS, EVALUATED or STATE of role, rank) */
    SCHD_START,    /* start server rank: it is added */
    SCHD_RELEASE,  /* server rank will end, or need not be there: that is well */
    SCHD_END,      /* end the scheduler with status; text says how the job ended */
};

struct schd_action {
    enum schd_action_kind kind;
    struct clu_peer peer;
    enum clu_control_op op;
    uint64_t number, step;
    int status, level, rank;
    enum clu_role role;
    bool with_map;
    char text[CLU_TEXT_BYTES];
    struct clu_welcome welcome;
    struct clu_order order;
    struct clu_report *report; /* PROGRESS: owned by the action, freed by schd_action_fini */
};

void schd_action_fini(struct schd_action *action);

struct schd_coordinator;

/* A job of this shape in GATHERING. NULL when out of memory or the shape is impossible (logged). */
struct schd_coordinator *schd_coordinator_create(const struct schd_shape *shape,
                                                 const struct schd_life *life, int64_t now_ms);
void schd_coordinator_free(struct schd_coordinator *coordinator);

/* A message of a member: JOIN, BEAT, REPORT or LEAVE; others are ignored. */
void schd_coordinator_hear(struct schd_coordinator *coordinator, int64_t now_ms,
                           const struct clu_peer *peer, const struct clu_control_message *message);

/* Time has passed: what is due by now. Call at least every heartbeat. */
void schd_coordinator_tick(struct schd_coordinator *coordinator, int64_t now_ms);

/* What became of a SCHD_COMMIT. */
void schd_coordinator_committed(struct schd_coordinator *coordinator, int64_t now_ms, uint64_t step,
                                int status);

/* Somebody asks for a snapshot now. AGAIN when one is under way or the job does not run. */
int schd_coordinator_snapshot(struct schd_coordinator *coordinator, int64_t now_ms);

/* Somebody asks the job to end: after a snapshot when it runs, at once otherwise. */
void schd_coordinator_stop(struct schd_coordinator *coordinator, int64_t now_ms, const char *why);

/* Buckets of the servers with leaves[rank] true move to the others, then those servers end; or n
 * more servers are started and get their share. Both go on while the job trains, one at a time.
 * Errors, with a sentence in *why_p: AGAIN: not now; USAGE, NOT_FOUND: never. */
int schd_coordinator_drain(struct schd_coordinator *coordinator, int64_t now_ms, const bool *leaves,
                           const char **why_p);
int schd_coordinator_add(struct schd_coordinator *coordinator, int64_t now_ms, int n,
                         const char **why_p);

/* The process of a member is known to have ended (the supervisor saw it): no need to wait for
 * silence. */
void schd_coordinator_gone(struct schd_coordinator *coordinator, int64_t now_ms, enum clu_role role,
                           int rank, int status, const char *why);

/* How a job goes on after a loss; each starts all whom the one before starts. */
enum schd_way {
    SCHD_WAY_STAND,   /* the life goes on: lost servers come back with their rows, workers stay */
    SCHD_WAY_WORKERS, /* the life goes on: and a new group of workers goes on with the rows */
    SCHD_WAY_BACK,    /* another life begins at a snapshot: living servers go back in place */
    SCHD_WAY_ANEW,    /* the same, and every process is started again */
};

/* The way that the policy allows now. From this call until recover no member is let in: whoever is
 * to be replaced can be ended meanwhile, and cannot have come in by then; and a later plan only
 * ever replaces more. */
enum schd_way schd_coordinator_plan(struct schd_coordinator *coordinator);

/* Whether a member is to be started (after what is left of its process is ended) to go that way. */
bool schd_coordinator_starts(const struct schd_coordinator *coordinator, enum schd_way way,
                             enum clu_role role, int rank);

/* Goes that way, from the newest whole snapshot (ignored by STAND). */
void schd_coordinator_recover(struct schd_coordinator *coordinator, int64_t now_ms,
                              enum schd_way way, const char *resume, uint64_t resume_step);

/* Asks every member to write its state to its log. */
void schd_coordinator_dump(struct schd_coordinator *coordinator);

/* The next action; false when there is none. Caller: schd_action_fini. */
bool schd_coordinator_next(struct schd_coordinator *coordinator, struct schd_action *action_p);

/* Everything a restarted scheduler needs, as bytes; and back into a coordinator of the same shape,
 * whose members then have start_timeout_ms to join again. CORRUPT when the bytes are not that. */
void schd_coordinator_save(const struct schd_coordinator *coordinator, struct clu_packer *packer);
int schd_coordinator_load(struct schd_coordinator *coordinator, int64_t now_ms, const void *data,
                          size_t size_bytes);

/* Only the job's id and generation of such bytes. */
int schd_coordinator_peek(const void *data, size_t size_bytes, uint64_t *job_id_p,
                          uint64_t *generation_p);

/* ---- looking at it ---- */

struct schd_member_view {
    enum clu_role role;
    int rank;
    enum schd_member_state state;
    bool suspect; /* silent for longer than it should be */
    bool lags;    /* computes far longer than other workers, or than usual */
    int64_t silent_ms, pid;
    uint64_t incarnation;
    const char *host, *text;           /* text: how it left */
    int status;                        /* of LEFT and DEAD */
    const struct clu_figures *figures; /* its last STATE, or NULL */
};

struct schd_view {
    enum schd_phase phase;
    uint64_t job_id, generation;
    uint64_t step, n_steps;            /* of the last progress */
    uint64_t snapshot_step;            /* newest whole one; 0: none yet */
    uint64_t n_gone_on;                /* times that new workers went on with rows as they stood */
    uint64_t lost_steps, lost_samples; /* that the dense weights missed by it */
    bool snapshot_under_way, stopping;
    enum schd_change change;
    int n_moved, n_to_move;  /* buckets, of the newest change of shape */
    int64_t change_ms;       /* how long that has been going on */
    const char *change_text; /* what was last said of it */
    int n_servers;           /* without those that were drained */
    int n_members;
    int status; /* of BROKEN and ENDED */
    const char *text;
    const char *kept; /* of a job that is done: which step is kept and why; "": the last */
    const struct clu_figures *progress, *evaluation;
};

void schd_coordinator_view(const struct schd_coordinator *coordinator, struct schd_view *view_p);

/* Member i of n_members: servers by rank, then workers by rank. */
void schd_coordinator_member(const struct schd_coordinator *coordinator, int i, int64_t now_ms,
                             struct schd_member_view *view_p);

const struct clu_bucket_map *schd_coordinator_map(const struct schd_coordinator *coordinator);

const char *schd_change_name(enum schd_change change);
const char *schd_phase_name(enum schd_phase phase);
const char *schd_member_state_name(enum schd_member_state state);

#endif

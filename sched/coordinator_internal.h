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
    bool suspect;
    bool attached; /* peer is valid: it has spoken to this scheduler process */
    struct clu_peer peer;
    uint64_t incarnation, last_report;
    int64_t heard_ms, pid;
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
    int n_servers, n_members;
    struct member *members; /* [n_members] servers by rank, workers by rank */
    struct clu_bucket_map map;
    uint64_t n_incarnations;
    int64_t deadline_ms; /* of the phase */
    uint64_t step, n_steps;
    struct clu_figures progress, evaluation;
    bool finished;
    /* stop on request */
    bool stopping;
    int64_t stop_deadline_ms;
    char stop_why[CLU_TEXT_BYTES];
    /* snapshot under way */
    enum snapshot_state snapshot;
    uint64_t snapshot_step, whole_step;
    int64_t snapshot_due_ms;
    /* how it broke or ended */
    int status;
    char text[CLU_TEXT_BYTES];
    bool out_of_memory;
    struct schd_action scratch; /* written to in place of an action that could not be queued */
    struct queued_action *first_action, **last_action_p;
};

#endif

/* The scheduler's state, shared by its loop (scheduler.c), what it tells others
 * (scheduler_report.c), what it stores (scheduler_store.c) and removes (scheduler_sweep.c). Nobody
 * else includes this.
 */
#ifndef SCHED_SCHEDULER_INTERNAL_H
#define SCHED_SCHEDULER_INTERNAL_H

#include "cluster/security.h"
#include "cluster/snapshot.h"
#include "sched/coordinator.h"
#include "sched/scheduler.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { N_REMEMBERED = 16 };

struct schd_remembered {
    int64_t time_ms;
    int level;
    char text[CLU_TEXT_BYTES];
};

/* By rank; "" where none is known. */
struct schd_urls {
    int n;
    char (*url)[CLU_ENDPOINT_BYTES];
};

struct emb_kv;
struct schd_page;

struct schd_scheduler {
    const struct clu_job *job;
    bool supervised, secure;
    char run[CLU_PATH_BYTES], snapshot_root[CLU_PATH_BYTES];
    char endpoint[CLU_ENDPOINT_BYTES];
    struct clu_security security;
    struct clu_transport *transport;
    struct clu_control *control;
    struct clu_control_message *in, *out;
    struct schd_coordinator *coordinator;
    enum schd_phase phase; /* as last told */
    enum schd_change change;
    char move_root[CLU_PATH_BYTES]; /* rows on their way */
    int64_t started_ms, alive_ms /* last told */;
    int signal_fd;
    char command[4096];
    size_t command_bytes;

    /* reported for the snapshot of files_step: its files, its base, and what it cost */
    uint64_t files_step, files_base;
    struct clu_figures snapshot_figures;
    int n_files;
    struct clu_manifest_file *files;

    /* the commit under way */
    bool commit_running, commit_inline;
    pthread_t commit;
    int commit_fd, commit_status;
    struct clu_manifest committing;
    uint64_t sure_step; /* the newest snapshot, links too, was written or read by this process, and
                           nobody went back to it since; 0: none */

    /* the removal of what servers left, in a thread of its own (scheduler_sweep.c) */
    bool sweeping;
    pthread_t sweep;
    _Atomic bool sweep_done;

    FILE *metrics_file;
    struct emb_kv *store;
    struct schd_page *page;                          /* NULL: none */
    int64_t page_ms;                                 /* last updated */
    struct schd_urls urls[CLU_N_ROLES];              /* where members serve their metrics */
    struct schd_remembered remembered[N_REMEMBERED]; /* newest warnings and errors, a ring */
    int n_remembered;

    char *plan; /* as last told */

    bool ended;
    int end_status;
    char end_text[CLU_TEXT_BYTES];
    int lock_fd; /* without a supervisor: of the folder */
};

/* Monotonic and wall-clock milliseconds. */
int64_t schd_now_ms(void);
int64_t schd_wall_ms(void);

/* Events on stdout, and lines of metrics.jsonl. */
void schd_event_listening(struct schd_scheduler *s);
void schd_event_alive(struct schd_scheduler *s);
void schd_event_phase(struct schd_scheduler *s, const struct schd_view *view);
void schd_event_figures(struct schd_scheduler *s, enum clu_role role, int rank,
                        const struct clu_report *report);
void schd_event_snapshot(struct schd_scheduler *s, uint64_t step, uint64_t base_step, int status);
void schd_event_recovered(struct schd_scheduler *s, enum schd_way way);

/* Tells how the job is to recover. Returns false, and tells nothing, when that was told last. */
bool schd_event_plan(struct schd_scheduler *s, enum schd_way way);
void schd_event_server(struct schd_scheduler *s, const char *event, int rank);
void schd_event_change(struct schd_scheduler *s, const struct schd_view *view);
void schd_event_reshape(struct schd_scheduler *s, int servers);
void schd_event_end(struct schd_scheduler *s, int status, const char *text);

/* Keeps a warning or an error for the status page. */
void schd_remember(struct schd_scheduler *s, int level, const char *text);

/* What is known of the job as one JSON text; the caller frees it, NULL when out of memory. */
char *schd_status_json(struct schd_scheduler *s);

/* What Prometheus scrapes; the caller frees it, NULL when out of memory. */
char *schd_metrics_text(struct schd_scheduler *s);

/* Where members serve their metrics, as they say when they join: JOIN messages are noted, others
 * passed over. "" for one that does not, or is not known. */
void schd_note_metrics_url(struct schd_scheduler *s, const struct clu_control_message *message);
const char *schd_metrics_url(const struct schd_scheduler *s, enum clu_role role, int rank);
void schd_forget_metrics_urls(struct schd_scheduler *s);

/* All of them and the scheduler's own as Prometheus' http_sd_configs takes them; the caller frees
 * it, NULL when out of memory. */
char *schd_targets_json(struct schd_scheduler *s);

/* The status to the log, a line a member. */
void schd_dump(struct schd_scheduler *s);

/* The store: open before the coordinator is made, close at the end. */
int schd_scheduler_open_store(struct schd_scheduler *s);
void schd_scheduler_close_store(struct schd_scheduler *s);

/* After a snapshot was committed: removes the folders of servers that the job has no more.
 * sweep_end waits until that is done. */
void schd_scheduler_sweep(struct schd_scheduler *s);
void schd_scheduler_sweep_end(struct schd_scheduler *s);

/* Stores the coordinator's state; a failure is logged: the job goes on, but will not survive this
 * process. */
void schd_scheduler_store(struct schd_scheduler *s);

/* The job's id and its last generation; 0 and 0 when the folder is new. */
void schd_scheduler_last_life(struct schd_scheduler *s, uint64_t *job_id_p, uint64_t *generation_p);

/* Gives the coordinator the stored state. NOT_FOUND when there is none. */
int schd_scheduler_restore(struct schd_scheduler *s);

#endif

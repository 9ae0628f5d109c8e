/* Shard threads: each polls its own ROUTER and gives every message to its psv_shard.
 *
 * A thread takes messages until none waits or BURST of them are done, then lets time pass
 * (deadlines, snapshot slices), and sleeps only when nothing is left to take and no row is left to
 * be read ahead: a server that was started again serves at once, and reads its rows in between.
 * Stopping is an eventfd in the same poll. What the threads share with the rest of the process: a
 * stop flag, a status, and their figures: as metrics, which are atomics, and as a copy under a
 * lock, which is taken twice a second.
 */
#include "ps/server.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/map.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "embeddings/shard.h"
#include "ps/restore.h"
#include "ps/server_metrics.h"
#include "ps/shard.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    BURST = 64,
    QUEUE_LENGTH =
        64, /* messages a peer: a worker has a few in flight, and a reply may be megabytes */
    FIGURES_MS = 500,
    WARM_US = 500, /* that a message may wait for rows that are read ahead */
};

struct thread {
    struct psv_server *server;
    int index;
    pthread_t thread;
    bool running;
    struct clu_socket *socket;
    char endpoint[CLU_ENDPOINT_SIZE];
    int wake;
    struct emb_shard *rows;
    struct psv_shard *shard;
    struct psv_shard_metrics *metrics;
    unsigned char owned[CLU_N_BUCKETS / 8]; /* as restore was told */
    int64_t figures_at_ms;
    pthread_mutex_t lock; /* of the two below */
    struct psv_shard_stats stats;
    struct emb_shard_stats row_stats;
};

struct psv_server {
    struct psv_threads_options options;
    char snapshot_root[1024], move_root[1024];
    uint64_t owners;  /* as restore was told; 0: it was not */
    _Atomic int stop; /* 1: in order, 2: at once */
    _Atomic int status;
    uint64_t least_incarnation; /* as restore was told */
    int n_threads;
    struct thread thread[];
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t now_ms(void)
{
    return now_ns() / 1000000;
}

static void note_status(struct psv_server *server, int status)
{
    int none = 0;
    if (status)
        atomic_compare_exchange_strong(&server->status, &none, status);
}

static int send_reply(void *context, struct clu_message *message)
{
    struct thread *thread = context;
    return clu_socket_send(thread->socket, message);
}

static void keep_figures(struct thread *thread, int64_t now)
{
    struct psv_shard_stats stats;
    struct emb_shard_stats row_stats;
    thread->figures_at_ms = now + FIGURES_MS;
    psv_shard_stats(thread->shard, &stats);
    emb_shard_stats(thread->rows, &row_stats);
    psv_shard_metrics_put(thread->metrics, &stats, &row_stats);
    pthread_mutex_lock(&thread->lock);
    thread->stats = stats;
    thread->row_stats = row_stats;
    pthread_mutex_unlock(&thread->lock);
}

/* Takes up to BURST messages; true when none is left. */
static bool serve(struct thread *thread, struct clu_message *message)
{
    for (int i = 0; i < BURST; i++) {
        int status = clu_socket_recv(thread->socket, message);
        if (status == CLU_E_AGAIN)
            return true;
        if (status && status != CLU_E_PROTOCOL) {
            note_status(thread->server, status);
            return true;
        }
        if (status) {
            psv_shard_count_malformed(thread->shard);
            continue;
        }
        int64_t begun = now_ns();
        psv_shard_handle(thread->shard, message, begun / 1000000);
        psv_shard_metrics_observe(thread->metrics, (double)(now_ns() - begun) * 1e-9);
    }
    return false;
}

static void *thread_main(void *argument)
{
    struct thread *thread = argument;
    struct psv_server *server = thread->server;
    struct clu_message message;
    struct clu_poll polls[2] = {{.socket = thread->socket}, {.fd = thread->wake}};
    bool warm = false;
    clu_message_init(&message);
    while (!atomic_load(&server->stop)) {
        bool empty = serve(thread, &message);
        int64_t now = now_ms();
        int wait_ms = psv_shard_tick(thread->shard, now);
        note_status(server, psv_shard_status(thread->shard));
        if (now >= thread->figures_at_ms)
            keep_figures(thread, now);
        if (empty && !warm) {
            int status = emb_shard_warm_advance(thread->rows, WARM_US);
            warm = status != CLU_E_AGAIN;
            note_status(server, warm ? status : CLU_OK);
        }
        if (empty) /* as far as was seen: clu_poll looks before it sleeps */
            clu_poll(polls, 2, warm ? wait_ms : 0);
    }
    clu_message_close(&message);
    keep_figures(thread, now_ms());
    if (atomic_load(&server->stop) == 1)
        note_status(server, emb_shard_commit(thread->rows));
    return NULL;
}

static int open_thread(struct psv_server *server, int index)
{
    const struct psv_threads_options *options = &server->options;
    struct thread *thread = &server->thread[index];
    char name[32], dir[1024];
    thread->server = server;
    thread->index = index;
    thread->wake = -1;
    pthread_mutex_init(&thread->lock, NULL);
    server->n_threads = index + 1;
    thread->metrics = psv_shard_metrics_create(options->metrics, index);
    snprintf(name, sizeof(name), "shard-%d", index);
    int status = clu_path_join(dir, sizeof(dir), options->dir, name);
    if (!status)
        status = clu_mkdirs(dir);
    struct emb_shard_options rows = {
        .dir = dir,
        .memory_bytes = options->memory_bytes / (uint64_t)options->n_shards,
        .map_bytes = options->map_bytes,
    };
    if (!status)
        status = emb_durability_by_name(options->durability, &rows.durability);
    if (!status)
        status = emb_shard_open(&rows, options->tables, options->n_tables, &thread->rows);
    thread->wake = status ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!status && thread->wake < 0)
        status = clu_fail(clu_status_from_errno(errno), "eventfd: %s", strerror(errno));
    struct clu_socket_options socket = {
        .kind = CLU_SOCKET_ROUTER,
        .queue_length = QUEUE_LENGTH,
        .max_message_bytes =
            options->max_message_bytes ? options->max_message_bytes : (uint64_t)256 << 20,
        .heartbeat_ms = options->heartbeat_ms,
        .linger_ms = 1000,
    };
    if (!status)
        status = clu_socket_open(options->transport, &socket, &thread->socket);
    if (!status)
        status = clu_socket_bind(thread->socket, options->bind, thread->endpoint);
    return status;
}

int psv_server_open(const struct psv_threads_options *options, struct psv_server **server_p)
{
    size_t bytes = sizeof(struct psv_server) + (size_t)options->n_shards * sizeof(struct thread);
    struct psv_server *server = calloc(1, bytes);
    if (!server)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a server of %d shards", options->n_shards);
    server->options = *options;
    if (options->snapshot_root) {
        snprintf(server->snapshot_root, sizeof(server->snapshot_root), "%s",
                 options->snapshot_root);
        server->options.snapshot_root = server->snapshot_root;
    }
    if (options->move_root) {
        snprintf(server->move_root, sizeof(server->move_root), "%s", options->move_root);
        server->options.move_root = server->move_root;
    }
    int status = 0;
    for (int i = 0; !status && i < options->n_shards; i++)
        status = open_thread(server, i);
    if (status) {
        psv_server_abandon(server);
        return status;
    }
    *server_p = server;
    return 0;
}

const char *psv_server_endpoint(const struct psv_server *server, int i)
{
    return server->thread[i].endpoint;
}

int psv_server_restore(struct psv_server *server, const struct psv_origin *origin)
{
    bool keep_log = !strcmp(server->options.durability, "log");
    server->owners = origin->map->owners;
    server->least_incarnation = origin->least_incarnation;
    for (int i = 0; i < server->n_threads; i++) {
        int status = psv_restore_shard(server->thread[i].rows, origin, i, keep_log);
        if (status)
            return status;
        psv_restore_owned(origin->map, origin->first_shard + i, server->thread[i].owned);
    }
    return 0;
}

int psv_server_start(struct psv_server *server, int first_shard)
{
    const struct psv_threads_options *options = &server->options;
    for (int i = 0; i < server->n_threads; i++) {
        struct thread *thread = &server->thread[i];
        struct psv_shard_options shard = {
            .rows = thread->rows,
            .terms = {.n_ranks = options->n_ranks,
                      .staleness = options->staleness,
                      .tables = options->tables,
                      .n_tables = options->n_tables},
            .number = first_shard + i,
            .applied = emb_shard_step(thread->rows),
            .least_incarnation = server->least_incarnation,
            .snapshot_root = options->snapshot_root,
            .move_root = options->move_root,
            .owners = server->owners,
            .owned = server->owners ? thread->owned : NULL,
            .send = send_reply,
            .context = thread,
        };
        int status = psv_shard_create(&shard, &thread->shard);
        if (status)
            return status;
        int error_number = pthread_create(&thread->thread, NULL, thread_main, thread);
        if (error_number)
            return clu_fail(clu_status_from_errno(error_number), "a shard's thread: %s",
                            strerror(error_number));
        thread->running = true;
    }
    return 0;
}

int psv_server_status(const struct psv_server *server)
{
    return atomic_load(&((struct psv_server *)server)->status);
}

void psv_server_stats(struct psv_server *server, struct psv_server_stats *stats_p)
{
    struct psv_server_stats sum = {.applied = UINT64_MAX,
                                   .denied = clu_transport_denied(server->options.transport)};
    for (int i = 0; i < server->n_threads; i++) {
        struct thread *thread = &server->thread[i];
        pthread_mutex_lock(&thread->lock);
        const struct psv_shard_stats *stats = &thread->stats;
        if (stats->applied < sum.applied)
            sum.applied = stats->applied;
        sum.rows += thread->row_stats.n_rows;
        sum.resident_rows += thread->row_stats.n_resident;
        sum.memory_bytes += thread->row_stats.memory_bytes;
        sum.file_bytes += thread->row_stats.file_bytes;
        sum.rows_pulled += stats->rows_pulled;
        sum.rows_pushed += stats->rows_pushed;
        sum.rows_moved_in += stats->rows_moved_in;
        sum.rows_moved_out += stats->rows_moved_out;
        sum.pulls += stats->requests[CLU_WIRE_PULL];
        sum.pushes += stats->requests[CLU_WIRE_PUSH];
        sum.malformed += stats->malformed;
        sum.refused += stats->refused;
        sum.duplicates += stats->duplicates;
        sum.expired += stats->expired;
        sum.unsent += stats->unsent;
        sum.held += stats->held;
        sum.buffered_bytes += stats->buffered_bytes;
        if (stats->stalled_ms > sum.stalled_ms)
            sum.stalled_ms = stats->stalled_ms;
        pthread_mutex_unlock(&thread->lock);
    }
    *stats_p = sum;
}

/* Ends the threads and what they have in mind. */
static void halt(struct psv_server *server, int how)
{
    uint64_t one = 1;
    atomic_store(&server->stop, how);
    for (int i = 0; i < server->n_threads; i++)
        if (server->thread[i].running &&
            write(server->thread[i].wake, &one, sizeof(one)) != sizeof(one))
            clu_warn("waking a shard's thread: %s", strerror(errno));
    for (int i = 0; i < server->n_threads; i++) {
        struct thread *thread = &server->thread[i];
        if (thread->running)
            pthread_join(thread->thread, NULL);
        thread->running = false;
        psv_shard_free(thread->shard);
        thread->shard = NULL;
    }
}

void psv_server_rest(struct psv_server *server)
{
    uint64_t count;
    halt(server, 2);
    for (int i = 0; i < server->n_threads; i++) /* or the next life would never sleep */
        if (read(server->thread[i].wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
            clu_warn("a shard's eventfd: %s", strerror(errno));
    atomic_store(&server->stop, 0);
}

static void end_threads(struct psv_server *server, int how)
{
    halt(server, how);
    for (int i = 0; i < server->n_threads; i++) {
        struct thread *thread = &server->thread[i];
        clu_socket_close(thread->socket);
        emb_shard_close(thread->rows);
        psv_shard_metrics_free(thread->metrics);
        if (thread->wake >= 0)
            close(thread->wake);
        pthread_mutex_destroy(&thread->lock);
    }
}

int psv_server_stop(struct psv_server *server)
{
    if (!server)
        return 0;
    end_threads(server, 1);
    int status = psv_server_status(server);
    free(server);
    return status;
}

void psv_server_abandon(struct psv_server *server)
{
    if (!server)
        return;
    end_threads(server, 2);
    free(server);
}

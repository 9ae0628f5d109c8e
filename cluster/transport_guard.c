/* Who may connect: one thread a process answers libzmq's key questions (ZAP, RFC 27) and watches
 * the handshakes of every listening socket.
 *
 * With keys, libzmq asks a REP socket inside the process whether a client's public key is admitted;
 * the answer is the allow list. Failed handshakes of any kind (a stranger's key, plain text to a
 * CURVE port, CURVE to a plain port, noise) arrive as monitor events; each is counted, and logged
 * while there are few: a stranger who reconnects for ever must not fill the log.
 *
 * A monitor's socket is created by the thread that binds and handed to the guard under a lock; from
 * then on only the guard touches it.
 */
#include "cluster/log.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

enum {
    MAX_WATCHED = 1024,
    FAILURES = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
};

struct watched {
    void *pair;
    char endpoint[CLU_ENDPOINT_SIZE];
};

struct clu_guard {
    struct clu_transport *transport;
    pthread_t thread;
    pthread_mutex_t lock; /* of fresh */
    struct watched *fresh[MAX_WATCHED];
    int n_fresh;
    _Atomic int stop;
    int wake;
    void *zap; /* NULL without keys */
};

static void note_denied(struct clu_guard *guard, const char *endpoint, const char *why)
{
    uint64_t n = 1 + atomic_fetch_add(&guard->transport->denied, 1);
    if (n <= 10 || !(n & (n - 1)))
        clu_warn("connection to %s refused: %s (%llu so far)", endpoint, why,
                 (unsigned long long)n);
}

/* A frame of a ZAP request as text; false at the message's end or when it is too long. */
static bool zap_frame(void *zap, char *out, size_t capacity, size_t *size_p, bool *more_p)
{
    if (!*more_p)
        return false;
    int size = zmq_recv(zap, out, capacity, 0);
    int more = 0;
    size_t more_size = sizeof(more);
    zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &more_size);
    *more_p = more;
    if (size < 0 || (size_t)size > capacity)
        return false;
    *size_p = (size_t)size;
    return true;
}

/* One question: version, request id, domain, address, routing id, mechanism, credentials. */
static void answer_zap(struct clu_guard *guard)
{
    enum { N_FRAMES = 7, CAPACITY = 255 };
    char frame[N_FRAMES][CAPACITY];
    size_t size[N_FRAMES] = {0};
    bool more = true, whole = true;
    for (int i = 0; i < N_FRAMES; i++)
        whole = zap_frame(guard->zap, frame[i], CAPACITY, &size[i], &more) && whole;
    while (more) {
        char rest[CAPACITY];
        size_t rest_size;
        whole = false;
        zap_frame(guard->zap, rest, sizeof(rest), &rest_size, &more);
    }
    char key[CLU_KEY_TEXT_SIZE] = "";
    bool allowed = whole && size[5] == 5 && !memcmp(frame[5], "CURVE", 5) && size[6] == 32 &&
                   zmq_z85_encode(key, (const uint8_t *)frame[6], 32) &&
                   clu_security_allows(guard->transport->security, key);
    if (!allowed && atomic_load(&guard->transport->denied) < 10)
        clu_warn("key %s of %.*s is not on the allow list", key[0] ? key : "(none)", (int)size[3],
                 frame[3]);
    zmq_send(guard->zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(guard->zap, frame[1], size[1], ZMQ_SNDMORE);
    zmq_send(guard->zap, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(guard->zap, allowed ? "" : "no", allowed ? 0 : 2, ZMQ_SNDMORE);
    zmq_send(guard->zap, key, strlen(key), ZMQ_SNDMORE);
    zmq_send(guard->zap, "", 0, 0);
}

/* One event of a monitor; false when it was the last. */
static bool read_event(struct clu_guard *guard, struct watched *watched)
{
    zmq_msg_t msg;
    uint16_t event = 0;
    bool more = true;
    for (int i = 0; more; i++) {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, watched->pair, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return errno == EAGAIN || errno == EINTR;
        }
        if (i == 0 && zmq_msg_size(&msg) >= sizeof(event))
            memcpy(&event, zmq_msg_data(&msg), sizeof(event));
        more = zmq_msg_more(&msg);
        zmq_msg_close(&msg);
    }
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        note_denied(guard, watched->endpoint, "its key is not admitted");
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
        note_denied(guard, watched->endpoint, "its handshake is not ours (wrong mechanism or key)");
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        note_denied(guard, watched->endpoint, "it ended within the handshake");
    return event != ZMQ_EVENT_MONITOR_STOPPED;
}

static int take_fresh(struct clu_guard *guard, struct watched **all, int n)
{
    uint64_t count;
    if (read(guard->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
        clu_warn("guard: %s", strerror(errno));
    pthread_mutex_lock(&guard->lock);
    for (int i = 0; i < guard->n_fresh; i++) {
        if (n < MAX_WATCHED) {
            all[n++] = guard->fresh[i];
        } else {
            zmq_close(guard->fresh[i]->pair);
            free(guard->fresh[i]);
        }
    }
    guard->n_fresh = 0;
    pthread_mutex_unlock(&guard->lock);
    return n;
}

static void *guard_main(void *argument)
{
    struct clu_guard *guard = argument;
    struct watched *all[MAX_WATCHED];
    zmq_pollitem_t polls[MAX_WATCHED + 2];
    int n = 0;
    while (!atomic_load(&guard->stop)) {
        int n_polls = 0;
        polls[n_polls++] = (zmq_pollitem_t){.fd = guard->wake, .events = ZMQ_POLLIN};
        for (int i = 0; i < n; i++)
            polls[n_polls++] = (zmq_pollitem_t){.socket = all[i]->pair, .events = ZMQ_POLLIN};
        if (guard->zap)
            polls[n_polls++] = (zmq_pollitem_t){.socket = guard->zap, .events = ZMQ_POLLIN};
        if (zmq_poll(polls, n_polls, -1) < 0)
            continue;
        if (guard->zap && (polls[n_polls - 1].revents & ZMQ_POLLIN))
            answer_zap(guard);
        int kept = 0;
        for (int i = 0; i < n; i++) {
            if (!(polls[1 + i].revents & ZMQ_POLLIN) || read_event(guard, all[i])) {
                all[kept++] = all[i];
            } else {
                zmq_close(all[i]->pair);
                free(all[i]);
            }
        }
        n = kept;
        if (polls[0].revents & ZMQ_POLLIN)
            n = take_fresh(guard, all, n);
    }
    n = take_fresh(guard, all, n);
    for (int i = 0; i < n; i++) {
        zmq_close(all[i]->pair);
        free(all[i]);
    }
    return NULL;
}

static void wake_guard(struct clu_guard *guard)
{
    uint64_t one = 1;
    if (write(guard->wake, &one, sizeof(one)) != sizeof(one))
        clu_warn("guard: %s", strerror(errno));
}

int clu_guard_start(struct clu_transport *transport, struct clu_guard **guard_p)
{
    int status;
    int linger = 0;
    struct clu_guard *guard = calloc(1, sizeof(*guard));
    if (!guard)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the transport");
    guard->transport = transport;
    guard->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (guard->wake < 0) {
        status = clu_fail(clu_status_from_errno(errno), "eventfd: %s", strerror(errno));
        goto free_guard;
    }
    if (transport->security) {
        guard->zap = zmq_socket(transport->context, ZMQ_REP);
        if (!guard->zap || zmq_bind(guard->zap, "inproc://zeromq.zap.01")) {
            status = clu_fail(clu_transport_status(errno), "key handler: %s", zmq_strerror(errno));
            goto close_zap;
        }
        zmq_setsockopt(guard->zap, ZMQ_LINGER, &linger, sizeof(linger));
    }
    pthread_mutex_init(&guard->lock, NULL);
    int error_number = pthread_create(&guard->thread, NULL, guard_main, guard);
    if (error_number) {
        pthread_mutex_destroy(&guard->lock);
        status = clu_fail(clu_status_from_errno(error_number), "a thread of the transport: %s",
                          strerror(error_number));
        goto close_zap;
    }
    *guard_p = guard;
    return 0;

close_zap:
    if (guard->zap)
        zmq_close(guard->zap);
    close(guard->wake);
free_guard:
    free(guard);
    return status;
}

void clu_guard_stop(struct clu_guard *guard)
{
    if (!guard)
        return;
    atomic_store(&guard->stop, 1);
    wake_guard(guard);
    pthread_join(guard->thread, NULL);
    if (guard->zap)
        zmq_close(guard->zap);
    close(guard->wake);
    pthread_mutex_destroy(&guard->lock);
    free(guard);
}

int clu_guard_watch(struct clu_guard *guard, void *zmq_socket_handle, const char *endpoint)
{
    char name[64];
    int linger = 0;
    snprintf(name, sizeof(name), "inproc://sluice.monitor.%llu",
             (unsigned long long)atomic_fetch_add(&guard->transport->n_sockets, 1));
    struct watched *watched = calloc(1, sizeof(*watched));
    if (!watched)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to watch %s", endpoint);
    snprintf(watched->endpoint, sizeof(watched->endpoint), "%s", endpoint);
    if (zmq_socket_monitor(zmq_socket_handle, name, FAILURES | ZMQ_EVENT_MONITOR_STOPPED))
        goto fail;
    watched->pair = zmq_socket(guard->transport->context, ZMQ_PAIR);
    if (!watched->pair || zmq_connect(watched->pair, name))
        goto fail;
    zmq_setsockopt(watched->pair, ZMQ_LINGER, &linger, sizeof(linger));
    pthread_mutex_lock(&guard->lock);
    bool full = guard->n_fresh == MAX_WATCHED;
    if (!full)
        guard->fresh[guard->n_fresh++] = watched;
    pthread_mutex_unlock(&guard->lock);
    if (full)
        goto fail;
    wake_guard(guard);
    return 0;

fail:
    clu_error("watching %s: %s", endpoint, zmq_strerror(errno));
    if (watched->pair)
        zmq_close(watched->pair);
    free(watched);
    return CLU_E_IO;
}

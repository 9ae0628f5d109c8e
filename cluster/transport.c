/* Sockets and frames over libzmq.
 *
 * libzmq does the queues, the reconnecting and the framing; what is decided here is policy, and
 * each option set has its reason beside it. A frame is a zmq_msg_t in storage of the same size, so
 * that no other folder needs zmq.h and nothing is allocated for the wrapping. Sends and receives
 * never wait: whoever has several sockets or deadlines polls. A multi-frame message is atomic in
 * libzmq: when its first frame is there, or was taken, so are the others.
 */
#include "cluster/transport.h"

#include "cluster/log.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport_internal.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

_Static_assert(sizeof(struct clu_frame) == sizeof(zmq_msg_t), "a frame is a zmq message");
_Static_assert(_Alignof(struct clu_frame) >= _Alignof(zmq_msg_t), "a frame is a zmq message");

struct clu_socket {
    struct clu_transport *transport;
    void *zmq;
    enum clu_socket_kind kind;
    int fd;
    bool curve;
};

static zmq_msg_t *msg_of(struct clu_frame *frame)
{
    return (zmq_msg_t *)(void *)frame->opaque;
}

int clu_transport_status(int error_number)
{
    switch (error_number) {
    case EHOSTUNREACH:
    case ECONNREFUSED:
    case ENETDOWN:
    case ENETUNREACH:
        return CLU_E_UNAVAILABLE;
    case EADDRINUSE:
        return CLU_E_EXISTS;
    case ETERM:
    case ENOTSOCK:
        return CLU_E_INTERRUPTED;
    case EINVAL:
    case EPROTONOSUPPORT:
    case ENOCOMPATPROTO:
    case ENODEV:
    case EADDRNOTAVAIL:
        return CLU_E_CONFIG;
    case EMFILE:
        return CLU_E_NO_MEMORY;
    default:
        return clu_status_from_errno(error_number);
    }
}

int clu_transport_create(const struct clu_transport_options *options,
                         struct clu_transport **transport_p)
{
    struct clu_transport *transport = calloc(1, sizeof(*transport));
#ifdef __GLIBC__
    /* libzmq allocates each message: by default glibc maps and unmaps a megabyte every time, and
     * its page faults cost more than the copy */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 128 << 20);
#endif
    if (!transport)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the transport");
    transport->security = options->security;
    transport->insecure = options->insecure;
    transport->context = zmq_ctx_new();
    if (!transport->context) {
        free(transport);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the transport");
    }
    zmq_ctx_set(transport->context, ZMQ_IO_THREADS,
                options->io_threads > 0 ? options->io_threads : 1);
    /* a worker of a large job holds one socket a shard */
    zmq_ctx_set(transport->context, ZMQ_MAX_SOCKETS, 65535);
    int status = clu_guard_start(transport, &transport->guard);
    if (status) {
        zmq_ctx_term(transport->context);
        free(transport);
        return status;
    }
    *transport_p = transport;
    return 0;
}

void clu_transport_free(struct clu_transport *transport)
{
    if (!transport)
        return;
    clu_guard_stop(transport->guard);
    while (zmq_ctx_term(transport->context) && errno == EINTR)
        ;
    free(transport);
}

uint64_t clu_transport_denied(const struct clu_transport *transport)
{
    return atomic_load(&((struct clu_transport *)transport)->denied);
}

static void set_int(void *zmq, int option, int value)
{
    int failed = zmq_setsockopt(zmq, option, &value, sizeof(value));
    if (failed)
        clu_warn("socket option %d = %d: %s", option, value, zmq_strerror(errno));
}

static int set_options(struct clu_socket *socket, const struct clu_socket_options *options)
{
    void *zmq = socket->zmq;
    int queue_length = options->queue_length > 0 ? options->queue_length : 1000;
    /* bounded queues: back-pressure is a status for the sender, not memory */
    set_int(zmq, ZMQ_SNDHWM, queue_length);
    set_int(zmq, ZMQ_RCVHWM, queue_length);
    /* a closed socket must not hold the process: requests are retried, replies are asked for again
     */
    set_int(zmq, ZMQ_LINGER, options->linger_ms);
    /* the reader allocates what the length says: refuse it before */
    int64_t max = options->max_message_bytes ? (int64_t)options->max_message_bytes : 1 << 20;
    if (zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &max, sizeof(max)))
        return clu_transport_status(errno);
    /* who connects and says nothing holds a descriptor; who accepts and says nothing holds us */
    set_int(zmq, ZMQ_HANDSHAKE_IVL, 5000);
    if (options->heartbeat_ms > 0) {
        /* a peer cut off by the network shows no end of stream: without heartbeats its connection,
         * and what is queued for it, would stay for ever */
        set_int(zmq, ZMQ_HEARTBEAT_IVL, options->heartbeat_ms);
        set_int(zmq, ZMQ_HEARTBEAT_TIMEOUT, 5 * options->heartbeat_ms);
        set_int(zmq, ZMQ_HEARTBEAT_TTL, 5 * options->heartbeat_ms);
    }
    if (socket->kind == CLU_SOCKET_ROUTER) {
        /* a reply to a peer that is gone is an error to count, not a silent drop */
        set_int(zmq, ZMQ_ROUTER_MANDATORY, 1);
        /* all workers of a job connect at the same moment: one that finds no room in the default
         * queue of 100 believes it is connected and waits for a greeting that never comes */
        set_int(zmq, ZMQ_BACKLOG, 4096);
    } else {
        /* quick after a restart of the server, gentle when it stays away */
        set_int(zmq, ZMQ_RECONNECT_IVL, 50);
        set_int(zmq, ZMQ_RECONNECT_IVL_MAX, 1000);
        /* who retries by itself wants no queue for a server that is away: it would arrive as
         * copies */
        set_int(zmq, ZMQ_IMMEDIATE, options->only_connected);
    }
    return 0;
}

static int set_curve_server(struct clu_socket *socket)
{
    const struct clu_security *security = socket->transport->security;
    int one = 1;
    if (!security->server_secret[0])
        return clu_fail(CLU_E_CONFIG, "this role has no server key and may not accept connections");
    if (zmq_setsockopt(socket->zmq, ZMQ_CURVE_SERVER, &one, sizeof(one)) ||
        zmq_setsockopt(socket->zmq, ZMQ_CURVE_SECRETKEY, security->server_secret,
                       CLU_KEY_TEXT_SIZE) ||
        zmq_setsockopt(socket->zmq, ZMQ_ZAP_DOMAIN, "sluice", 6))
        return clu_fail(clu_transport_status(errno), "keys of a listening socket: %s",
                        zmq_strerror(errno));
    socket->curve = true;
    return 0;
}

static int set_curve_client(struct clu_socket *socket, const char *server_key)
{
    const struct clu_security *security = socket->transport->security;
    if (zmq_setsockopt(socket->zmq, ZMQ_CURVE_SERVERKEY,
                       server_key ? server_key : security->server_public, CLU_KEY_TEXT_SIZE) ||
        zmq_setsockopt(socket->zmq, ZMQ_CURVE_PUBLICKEY, security->public_key, CLU_KEY_TEXT_SIZE) ||
        zmq_setsockopt(socket->zmq, ZMQ_CURVE_SECRETKEY, security->secret_key, CLU_KEY_TEXT_SIZE))
        return clu_fail(clu_transport_status(errno), "keys of a connecting socket: %s",
                        zmq_strerror(errno));
    socket->curve = true;
    return 0;
}

int clu_socket_open(struct clu_transport *transport, const struct clu_socket_options *options,
                    struct clu_socket **socket_p)
{
    int status;
    struct clu_socket *socket = calloc(1, sizeof(*socket));
    if (!socket)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a socket");
    socket->transport = transport;
    socket->kind = options->kind;
    socket->zmq = zmq_socket(transport->context,
                             options->kind == CLU_SOCKET_ROUTER ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!socket->zmq) {
        status = clu_fail(clu_transport_status(errno), "a socket: %s", zmq_strerror(errno));
        goto free_socket;
    }
    status = set_options(socket, options);
    if (status) {
        clu_error("options of a socket: %s", zmq_strerror(errno));
        goto close_zmq;
    }
    if (transport->security) {
        status = options->kind == CLU_SOCKET_ROUTER ? set_curve_server(socket)
                                                    : set_curve_client(socket, options->server_key);
        if (status)
            goto close_zmq;
    }
    size_t size = sizeof(socket->fd);
    if (zmq_getsockopt(socket->zmq, ZMQ_FD, &socket->fd, &size)) {
        status = clu_fail(clu_transport_status(errno), "a socket: %s", zmq_strerror(errno));
        goto close_zmq;
    }
    *socket_p = socket;
    return 0;

close_zmq:
    zmq_close(socket->zmq);
free_socket:
    free(socket);
    return status;
}

/* tcp on 127.x.y.z, localhost or [::1], or no network at all */
static bool is_local(const char *endpoint)
{
    if (!strncmp(endpoint, "ipc://", 6) || !strncmp(endpoint, "inproc://", 9))
        return true;
    if (strncmp(endpoint, "tcp://", 6))
        return false;
    const char *host = endpoint + 6;
    const char *colon = strrchr(host, ':');
    size_t size = colon ? (size_t)(colon - host) : strlen(host);
    if (size == 9 && !strncmp(host, "localhost", 9))
        return true;
    if (size == 5 && !strncmp(host, "[::1]", 5))
        return true;
    return size >= 7 && !strncmp(host, "127.", 4) && strspn(host, "0123456789.") == size;
}

static int check_place(const struct clu_socket *socket, const char *endpoint, const char *what)
{
    if (strlen(endpoint) >= CLU_ENDPOINT_SIZE)
        return clu_fail(CLU_E_CONFIG, "endpoint \"%.40s...\" is too long", endpoint);
    const char *colon = strrchr(endpoint, ':');
    const char *port = colon ? colon + 1 : "";
    if (!strncmp(endpoint, "tcp://", 6) && strcmp(port, "*") &&
        (strspn(port, "0123456789") != strlen(port) || strlen(port) > 5 || atoi(port) > 65535))
        return clu_fail(CLU_E_CONFIG, "endpoint \"%s\": a port is 0..65535 or *", endpoint);
    if (!socket->curve && !socket->transport->insecure && !is_local(endpoint))
        return clu_fail(CLU_E_DENIED,
                        "%s %s: without keys only this machine (127.0.0.1, ipc) is allowed; name a "
                        "key folder in the job file (keys: DIR, made by sluice keys) or write "
                        "insecure: true",
                        what, endpoint);
    return 0;
}

int clu_socket_bind(struct clu_socket *socket, const char *endpoint,
                    char endpoint_p[static CLU_ENDPOINT_SIZE])
{
    int status = check_place(socket, endpoint, "bind to");
    if (status)
        return status;
    if (zmq_bind(socket->zmq, endpoint))
        return clu_fail(clu_transport_status(errno), "bind to %s: %s", endpoint,
                        zmq_strerror(errno));
    char bound[CLU_ENDPOINT_SIZE];
    size_t size = sizeof(bound);
    if (zmq_getsockopt(socket->zmq, ZMQ_LAST_ENDPOINT, bound, &size))
        return clu_fail(clu_transport_status(errno), "bind to %s: %s", endpoint,
                        zmq_strerror(errno));
    if (!strncmp(endpoint, "tcp://", 6)) {
        status = clu_guard_watch(socket->transport->guard, socket->zmq, bound);
        if (status)
            return status;
    }
    memcpy(endpoint_p, bound, sizeof(bound));
    return 0;
}

int clu_socket_connect(struct clu_socket *socket, const char *endpoint)
{
    int status = check_place(socket, endpoint, "connect to");
    if (status)
        return status;
    if (zmq_connect(socket->zmq, endpoint))
        return clu_fail(clu_transport_status(errno), "connect to %s: %s", endpoint,
                        zmq_strerror(errno));
    return 0;
}

void clu_socket_close(struct clu_socket *socket)
{
    if (!socket)
        return;
    zmq_socket_monitor(socket->zmq, NULL, 0);
    zmq_close(socket->zmq);
    free(socket);
}

bool clu_socket_readable(struct clu_socket *socket)
{
    int events = 0;
    size_t size = sizeof(events);
    if (zmq_getsockopt(socket->zmq, ZMQ_EVENTS, &events, &size))
        return false;
    return events & ZMQ_POLLIN;
}

int clu_socket_fd(const struct clu_socket *socket)
{
    return socket->fd;
}

/* Which sockets have a message now; how many, or a status. Looking takes in what the descriptor
 * told. */
static int look(struct clu_poll *items, int n_items)
{
    int n = 0;
    for (int i = 0; i < n_items; i++) {
        int events = 0;
        size_t size = sizeof(events);
        if (!items[i].socket)
            continue;
        if (zmq_getsockopt(items[i].socket->zmq, ZMQ_EVENTS, &events, &size))
            return clu_transport_status(errno);
        items[i].readable = events & ZMQ_POLLIN;
        n += items[i].readable;
    }
    return n;
}

/* One poll(2): how many plain descriptors are readable, -1 with errno. */
static int poll_once(struct clu_poll *items, int n_items, struct pollfd *polls, int timeout_ms)
{
    int n = 0;
    for (int i = 0; i < n_items; i++)
        polls[i] = (struct pollfd){
            .fd = items[i].socket ? items[i].socket->fd : items[i].fd,
            .events = POLLIN,
        };
    if (poll(polls, (nfds_t)n_items, timeout_ms) < 0)
        return -1;
    for (int i = 0; i < n_items; i++)
        if (!items[i].socket) {
            items[i].readable = polls[i].revents != 0;
            n += items[i].readable;
        }
    return n;
}

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* zmq_poll does the same with twice the system calls, which a shard would pay for every message. */
int clu_poll(struct clu_poll *items, int n_items, int timeout_ms)
{
    struct pollfd few[16];
    struct pollfd *polls = n_items > 16 ? malloc((size_t)n_items * sizeof(*polls)) : few;
    if (!polls)
        return CLU_E_NO_MEMORY;
    int64_t until = monotonic_ms() + timeout_ms;
    int n_messages, n_plain = 0, error_number = 0;
    for (;;) { /* again: a socket's descriptor may tell of things that are no message */
        n_messages = look(items, n_items);
        if (n_messages < 0 || n_plain > 0)
            break;
        int64_t left = timeout_ms < 0 ? -1 : until - monotonic_ms();
        bool last = n_messages > 0 || (timeout_ms >= 0 && left <= 0);
        n_plain = poll_once(items, n_items, polls, last ? 0 : (int)left);
        if (n_plain < 0)
            error_number = errno;
        if (n_plain < 0 || last)
            break;
    }
    if (polls != few)
        free(polls);
    if (n_messages < 0)
        return n_messages;
    if (n_plain < 0)
        return error_number == EINTR ? 0 : clu_transport_status(error_number);
    return n_messages + n_plain;
}

void clu_frame_init(struct clu_frame *frame)
{
    zmq_msg_init(msg_of(frame));
}

int clu_frame_init_size(struct clu_frame *frame, size_t size_bytes)
{
    if (!zmq_msg_init_size(msg_of(frame), size_bytes))
        return 0;
    clu_frame_init(frame);
    return CLU_E_NO_MEMORY;
}

int clu_frame_init_copy(struct clu_frame *frame, const void *data, size_t size_bytes)
{
    int status = clu_frame_init_size(frame, size_bytes);
    if (!status && size_bytes)
        memcpy(clu_frame_data(frame), data, size_bytes);
    return status;
}

int clu_frame_init_lend(struct clu_frame *frame, void *data, size_t size_bytes,
                        void (*release)(void *data, void *hint), void *hint)
{
    if (!zmq_msg_init_data(msg_of(frame), data, size_bytes, release, hint))
        return 0;
    clu_frame_init(frame);
    return CLU_E_NO_MEMORY;
}

void *clu_frame_data(struct clu_frame *frame)
{
    return zmq_msg_data(msg_of(frame));
}

size_t clu_frame_size(const struct clu_frame *frame)
{
    return zmq_msg_size((const zmq_msg_t *)(const void *)frame->opaque);
}

void clu_frame_move(struct clu_frame *dst, struct clu_frame *src)
{
    zmq_msg_move(msg_of(dst), msg_of(src));
}

void clu_frame_close(struct clu_frame *frame)
{
    zmq_msg_close(msg_of(frame));
    zmq_msg_init(msg_of(frame));
}

void clu_message_init(struct clu_message *message)
{
    message->peer_size = 0;
    message->n_frames = 0;
}

void clu_message_close(struct clu_message *message)
{
    for (int i = 0; i < message->n_frames; i++)
        zmq_msg_close(msg_of(&message->frame[i]));
    clu_message_init(message);
}

struct clu_frame *clu_message_add(struct clu_message *message)
{
    if (message->n_frames == CLU_MESSAGE_FRAMES)
        return NULL;
    struct clu_frame *frame = &message->frame[message->n_frames++];
    clu_frame_init(frame);
    return frame;
}

void clu_message_move(struct clu_message *dst, struct clu_message *src)
{
    clu_message_close(dst);
    memcpy(dst->peer, src->peer, (size_t)src->peer_size);
    dst->peer_size = src->peer_size;
    for (int i = 0; i < src->n_frames; i++) {
        clu_frame_init(&dst->frame[i]);
        clu_frame_move(&dst->frame[i], &src->frame[i]);
    }
    dst->n_frames = src->n_frames;
    clu_message_close(src);
}

static int recv_frame(struct clu_socket *socket, zmq_msg_t *msg)
{
    while (zmq_msg_recv(msg, socket->zmq, ZMQ_DONTWAIT) < 0) {
        if (errno == EAGAIN)
            return CLU_E_AGAIN;
        if (errno != EINTR)
            return clu_transport_status(errno);
    }
    return 0;
}

/* takes the rest of a message whose last frame read is msg */
static int drop_rest(struct clu_socket *socket, zmq_msg_t *msg)
{
    int status = 0;
    while (!status && zmq_msg_more(msg))
        status = recv_frame(socket, msg);
    zmq_msg_close(msg);
    return status && status != CLU_E_AGAIN ? status : CLU_E_PROTOCOL;
}

int clu_socket_recv(struct clu_socket *socket, struct clu_message *message_p)
{
    zmq_msg_t msg;
    clu_message_close(message_p);
    zmq_msg_init(&msg);
    int status = recv_frame(socket, &msg);
    if (status)
        return status;
    bool more = true;
    if (socket->kind == CLU_SOCKET_ROUTER) {
        size_t size = zmq_msg_size(&msg);
        if (size > CLU_PEER_SIZE || !zmq_msg_more(&msg))
            return drop_rest(socket, &msg);
        memcpy(message_p->peer, zmq_msg_data(&msg), size);
        message_p->peer_size = (int)size;
        status = recv_frame(socket, &msg);
    }
    while (!status && more) {
        struct clu_frame *frame = clu_message_add(message_p);
        if (!frame) {
            clu_message_close(message_p);
            return drop_rest(socket, &msg);
        }
        zmq_msg_move(msg_of(frame), &msg);
        more = zmq_msg_more(msg_of(frame));
        if (more)
            status = recv_frame(socket, &msg);
    }
    if (status)
        clu_message_close(message_p);
    return status;
}

static int send_frame(struct clu_socket *socket, zmq_msg_t *msg, bool more)
{
    while (zmq_msg_send(msg, socket->zmq, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0) {
        if (errno == EAGAIN)
            return CLU_E_AGAIN;
        if (errno != EINTR)
            return clu_transport_status(errno);
    }
    return 0;
}

int clu_socket_send(struct clu_socket *socket, struct clu_message *message)
{
    int status = 0;
    if (socket->kind == CLU_SOCKET_ROUTER) {
        zmq_msg_t peer;
        if (zmq_msg_init_size(&peer, (size_t)message->peer_size))
            return CLU_E_NO_MEMORY;
        memcpy(zmq_msg_data(&peer), message->peer, (size_t)message->peer_size);
        status = send_frame(socket, &peer, message->n_frames > 0);
        zmq_msg_close(&peer);
        if (status == CLU_E_AGAIN)
            return status;
    }
    for (int i = 0; !status && i < message->n_frames; i++) {
        status = send_frame(socket, msg_of(&message->frame[i]), i + 1 < message->n_frames);
        if (status == CLU_E_AGAIN && i == 0 && socket->kind == CLU_SOCKET_DEALER)
            return status;
    }
    clu_message_close(message);
    return status;
}

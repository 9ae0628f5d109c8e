/* Transport: sockets that carry messages of a few frames between the processes of a job. libzmq
 * with our policy on top: who may bind where, sizes, queue lengths, heartbeats, CURVE. No other
 * file includes zmq.h.
 *
 *     client  DEALER --.                     .-- DEALER  client
 *                       >-- tcp, ipc, inproc >
 *                      '--- ROUTER (one an endpoint, owned by one thread) ---'
 *
 *     a message as a DEALER sees it:  [header] [body] ...
 *     the same as a ROUTER sees it:   [peer]   [header] [body] ...      peer: an opaque name, reply
 * with it
 *
 * Ownership: a transport is made once a process and outlives its sockets. A socket may be used by
 * one thread at a time; handing it over needs a lock. A frame owns its bytes until it is sent,
 * moved or closed. Nothing here blocks but clu_poll. Without keys a socket binds and connects to
 * this machine only (loopback tcp, ipc, inproc), unless the transport was made insecure on purpose.
 */
#ifndef CLUSTER_TRANSPORT_H
#define CLUSTER_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct clu_security;
struct clu_socket;
struct clu_transport;

enum {
    CLU_ENDPOINT_SIZE = 128, /* bytes of an endpoint's text, end included */
    CLU_MESSAGE_FRAMES = 4,  /* at most, the peer's frame not counted */
    CLU_PEER_SIZE = 32,      /* bytes of a peer's name at most */
};

struct clu_transport_options {
    const struct clu_security *security; /* NULL: no keys; outlives the transport */
    bool insecure;                       /* without keys, allow more than this machine */
    int io_threads;                      /* 0: 1. One does about 3 GB/s */
};

/* Makes the process's transport; starts the handler that admits keys when there is an allow list.
 */
int clu_transport_create(const struct clu_transport_options *options,
                         struct clu_transport **transport_p);

/* Frees it; every socket must be closed. NULL is fine. Messages not yet sent are dropped after each
 * socket's linger. */
void clu_transport_free(struct clu_transport *transport);

/* Connections refused because of their key, their mechanism or an unreadable handshake, so far.
 * Thread: any. */
uint64_t clu_transport_denied(const struct clu_transport *transport);

enum clu_socket_kind { CLU_SOCKET_ROUTER, CLU_SOCKET_DEALER };

struct clu_socket_options {
    enum clu_socket_kind kind;
    int queue_length;           /* messages queued a peer and direction; 0: 1000 */
    uint64_t max_message_bytes; /* a peer that sends a longer frame is disconnected; 0: 1 MiB */
    int heartbeat_ms; /* 0: none. A peer silent for 5 of them is disconnected (and reconnected) */
    bool only_connected;    /* DEALER: queue for a live connection only: without one a send is
                                 * CLU_E_AGAIN, and what was queued for a lost one is dropped */
    int linger_ms;          /* how long closing waits for queued messages in the background */
    const char *server_key; /* connecting with keys: which server key to expect, Z85; NULL: the
                             * security's own server key */
};

/* Opens a socket. A ROUTER reports peers that are gone instead of dropping silently. */
int clu_socket_open(struct clu_transport *transport, const struct clu_socket_options *options,
                    struct clu_socket **socket_p);

/* Binds to "tcp://127.0.0.1:*" (any free port), "tcp://0.0.0.0:7000", "ipc:///path",
 * "inproc://name" and writes where it really is. Errors: CLU_E_DENIED: not this machine, and
 * neither keys nor insecure; CLU_E_EXISTS: in use; CLU_E_CONFIG: not an endpoint. */
int clu_socket_bind(struct clu_socket *socket, const char *endpoint,
                    char endpoint_p[static CLU_ENDPOINT_SIZE]);

/* Connects, and goes on reconnecting in the background. Errors as for clu_socket_bind. */
int clu_socket_connect(struct clu_socket *socket, const char *endpoint);

/* Closes. NULL is fine. */
void clu_socket_close(struct clu_socket *socket);

/* True when a whole message waits. Consumes the edge of clu_socket_fd, so look again after every
 * send. */
bool clu_socket_readable(struct clu_socket *socket);

/* A descriptor that polls readable when clu_socket_readable may have changed: an edge, not a level.
 * It may be polled by a thread that does not own the socket. */
int clu_socket_fd(const struct clu_socket *socket);

struct clu_poll {
    struct clu_socket *socket; /* or NULL: */
    int fd;                    /* a descriptor to read from */
    bool readable;             /* written by clu_poll */
};

/* Waits until one is readable or timeout_ms have passed (-1: no end). Returns how many are, or a
 * status. */
int clu_poll(struct clu_poll *items, int n_items, int timeout_ms);

/* One frame; plain storage of a zmq message. Never copied as a struct: move it. */
struct clu_frame {
    _Alignas(8) unsigned char opaque[64];
};

/* Empty; needs no close, and may be closed. */
void clu_frame_init(struct clu_frame *frame);

/* size_bytes of uninitialised memory. Errors: CLU_E_NO_MEMORY. */
int clu_frame_init_size(struct clu_frame *frame, size_t size_bytes);

/* A copy of data. Errors: CLU_E_NO_MEMORY. */
int clu_frame_init_copy(struct clu_frame *frame, const void *data, size_t size_bytes);

/* Lends data without a copy; release(data, hint) is called once, from any thread, when it is no
 * longer needed. Errors: CLU_E_NO_MEMORY (release is then not called). */
int clu_frame_init_lend(struct clu_frame *frame, void *data, size_t size_bytes,
                        void (*release)(void *data, void *hint), void *hint);

void *clu_frame_data(struct clu_frame *frame);
size_t clu_frame_size(const struct clu_frame *frame);

/* Closes dst, moves src to it, leaves src empty. */
void clu_frame_move(struct clu_frame *dst, struct clu_frame *src);
void clu_frame_close(struct clu_frame *frame);

struct clu_message {
    unsigned char peer[CLU_PEER_SIZE]; /* ROUTER only */
    int peer_size;
    int n_frames;
    struct clu_frame frame[CLU_MESSAGE_FRAMES];
};

/* Empty, no peer. */
void clu_message_init(struct clu_message *message);

/* Closes every frame; the message is empty again. */
void clu_message_close(struct clu_message *message);

/* Appends an empty frame, to be initialised by the caller; NULL when the message is full. */
struct clu_frame *clu_message_add(struct clu_message *message);

/* Moves src (frames, peer) to dst, which is closed first; src is empty then. */
void clu_message_move(struct clu_message *dst, struct clu_message *src);

/* Takes the next message without waiting. Errors: CLU_E_AGAIN: none; CLU_E_PROTOCOL: one with too
 * many frames was taken and dropped; CLU_E_INTERRUPTED: the transport is ending. message_p is
 * closed first. */
int clu_socket_recv(struct clu_socket *socket, struct clu_message *message_p);

/* Sends without waiting; the message is empty afterwards, whatever happened, but for CLU_E_AGAIN:
 * the queue of the peer is full and the message is left as it was. CLU_E_UNAVAILABLE: no such peer
 * (ROUTER). */
int clu_socket_send(struct clu_socket *socket, struct clu_message *message);

#endif

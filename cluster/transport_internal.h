/* What transport.c (sockets, frames) and transport_guard.c (who may connect) share: the insides of
 * a transport. */
#ifndef CLUSTER_TRANSPORT_INTERNAL_H
#define CLUSTER_TRANSPORT_INTERNAL_H

#include "cluster/transport.h"

#include <stdatomic.h>

struct clu_guard;

struct clu_transport {
    void *context;
    const struct clu_security *security;
    bool insecure;
    _Atomic uint64_t denied;
    _Atomic uint64_t n_sockets; /* names for monitors */
    struct clu_guard *guard;
};

/* Starts the guard's thread: answers the context's key questions and watches the sockets given to
 * it. */
int clu_guard_start(struct clu_transport *transport, struct clu_guard **guard_p);

/* Stops it; before the context ends. NULL is fine. */
void clu_guard_stop(struct clu_guard *guard);

/* Watches a bound socket: every failed handshake is counted and logged with the endpoint. */
int clu_guard_watch(struct clu_guard *guard, void *zmq_socket, const char *endpoint);

/* Translates zmq_errno. */
int clu_transport_status(int error_number);

#endif

/* A bad network between clients and one shard: drops, duplicates, delays, reorders and cuts
 * messages, both ways.
 *
 *     client DEALER --> ROUTER [proxy thread] DEALER (one a client) --> shard's ROUTER
 *
 * Delays are random and each message's own, so messages overtake each other. The shard's endpoint
 * may change while it runs (the server was killed and started again).
 */
#ifndef TESTS_PS_PROXY_H
#define TESTS_PS_PROXY_H

#include "cluster/status.h"
#include "cluster/transport.h"
#include "tests/suite.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

enum { PROXY_MAX_PEERS = 16, PROXY_MAX_DELAYED = 256 };

struct proxy_faults {
    int drop, duplicate, delay, cut; /* of 1000 messages */
    int max_delay_ms;
};

struct proxy_delayed {
    struct clu_message message;
    struct clu_socket *to;
    int64_t at_ms;
};

struct proxy {
    struct clu_transport *transport;
    struct proxy_faults faults;
    uint64_t random;
    struct clu_socket *front;
    char endpoint[CLU_ENDPOINT_SIZE];
    pthread_t thread;
    pthread_mutex_t lock; /* of the next two */
    char server[CLU_ENDPOINT_SIZE];
    bool moved;
    _Atomic int stop;
    int n_peers;
    struct {
        unsigned char name[CLU_PEER_SIZE];
        int size;
        struct clu_socket *back;
    } peer[PROXY_MAX_PEERS];
    int n_delayed;
    struct proxy_delayed delayed[PROXY_MAX_DELAYED];
    uint64_t n_dropped, n_duplicated, n_delayed_all, n_cut;
};

static inline int64_t proxy_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void proxy_copy(struct clu_message *to, struct clu_message *from)
{
    clu_message_init(to);
    memcpy(to->peer, from->peer, sizeof(to->peer));
    to->peer_size = from->peer_size;
    for (int i = 0; i < from->n_frames; i++)
        clu_frame_init_copy(clu_message_add(to), clu_frame_data(&from->frame[i]),
                            clu_frame_size(&from->frame[i]));
}

static inline bool proxy_chance(struct proxy *proxy, int of_1000)
{
    return (int)(suite_random(&proxy->random) % 1000) < of_1000;
}

static inline void proxy_cut(struct proxy *proxy, struct clu_message *message)
{
    struct clu_frame *frame =
        &message->frame[suite_random(&proxy->random) % (uint64_t)message->n_frames];
    struct clu_frame cut;
    size_t size = clu_frame_size(frame);
    if (!size)
        return;
    clu_frame_init_copy(&cut, clu_frame_data(frame), suite_random(&proxy->random) % size);
    clu_frame_move(frame, &cut);
    clu_frame_close(&cut);
    proxy->n_cut++;
}

/* Takes the message. */
static inline void proxy_pass(struct proxy *proxy, struct clu_socket *to,
                              struct clu_message *message)
{
    if (proxy_chance(proxy, proxy->faults.drop)) {
        proxy->n_dropped++;
        clu_message_close(message);
        return;
    }
    if (proxy_chance(proxy, proxy->faults.cut))
        proxy_cut(proxy, message);
    if (proxy_chance(proxy, proxy->faults.duplicate) && proxy->n_delayed < PROXY_MAX_DELAYED) {
        struct proxy_delayed *later = &proxy->delayed[proxy->n_delayed++];
        proxy_copy(&later->message, message);
        later->to = to;
        later->at_ms = proxy_now_ms() + (int64_t)(suite_random(&proxy->random) %
                                                  (uint64_t)(4 * proxy->faults.max_delay_ms + 1));
        proxy->n_duplicated++;
    }
    if (proxy_chance(proxy, proxy->faults.delay) && proxy->n_delayed < PROXY_MAX_DELAYED) {
        struct proxy_delayed *later = &proxy->delayed[proxy->n_delayed++];
        clu_message_init(&later->message);
        clu_message_move(&later->message, message);
        later->to = to;
        later->at_ms = proxy_now_ms() + (int64_t)(suite_random(&proxy->random) %
                                                  (uint64_t)(proxy->faults.max_delay_ms + 1));
        proxy->n_delayed_all++;
        return;
    }
    clu_socket_send(to, message);
    clu_message_close(message);
}

static inline void proxy_release(struct proxy *proxy)
{
    int64_t now = proxy_now_ms();
    for (int i = 0; i < proxy->n_delayed; i++) {
        if (now < proxy->delayed[i].at_ms)
            continue;
        clu_socket_send(proxy->delayed[i].to, &proxy->delayed[i].message);
        clu_message_close(&proxy->delayed[i].message);
        struct proxy_delayed *last = &proxy->delayed[--proxy->n_delayed];
        if (last != &proxy->delayed[i]) {
            clu_message_init(&proxy->delayed[i].message);
            clu_message_move(&proxy->delayed[i].message, &last->message);
            proxy->delayed[i].to = last->to;
            proxy->delayed[i].at_ms = last->at_ms;
        }
        i--;
    }
}

static inline void proxy_connect(struct proxy *proxy, int i)
{
    struct clu_socket_options options = {
        .kind = CLU_SOCKET_DEALER, .max_message_bytes = 64 << 20, .only_connected = true};
    clu_socket_open(proxy->transport, &options, &proxy->peer[i].back);
    clu_socket_connect(proxy->peer[i].back, proxy->server);
}

static inline int proxy_peer(struct proxy *proxy, const struct clu_message *message)
{
    for (int i = 0; i < proxy->n_peers; i++)
        if (proxy->peer[i].size == message->peer_size &&
            !memcmp(proxy->peer[i].name, message->peer, (size_t)message->peer_size))
            return i;
    if (proxy->n_peers == PROXY_MAX_PEERS)
        return -1;
    int i = proxy->n_peers++;
    proxy->peer[i].size = message->peer_size;
    memcpy(proxy->peer[i].name, message->peer, (size_t)message->peer_size);
    pthread_mutex_lock(&proxy->lock);
    proxy_connect(proxy, i);
    pthread_mutex_unlock(&proxy->lock);
    return i;
}

/* The server is elsewhere: what was on its way is lost, as it is when a process dies. */
static inline void proxy_follow(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    if (proxy->moved) {
        for (int i = 0; i < proxy->n_delayed; i++)
            clu_message_close(&proxy->delayed[i].message);
        proxy->n_delayed = 0;
        for (int i = 0; i < proxy->n_peers; i++) {
            clu_socket_close(proxy->peer[i].back);
            proxy_connect(proxy, i);
        }
        proxy->moved = false;
    }
    pthread_mutex_unlock(&proxy->lock);
}

static inline void *proxy_main(void *argument)
{
    struct proxy *proxy = argument;
    struct clu_message message;
    clu_message_init(&message);
    while (!proxy->stop) {
        struct clu_poll polls[PROXY_MAX_PEERS + 1];
        int n_peers = proxy->n_peers;
        polls[0] = (struct clu_poll){.socket = proxy->front};
        for (int i = 0; i < n_peers; i++)
            polls[i + 1] = (struct clu_poll){.socket = proxy->peer[i].back};
        clu_poll(polls, n_peers + 1, proxy->n_delayed ? 1 : 5);
        proxy_follow(proxy);
        proxy_release(proxy);
        while (!clu_socket_recv(proxy->front, &message)) {
            int i = proxy_peer(proxy, &message);
            if (i >= 0)
                proxy_pass(proxy, proxy->peer[i].back, &message);
        }
        for (int i = 0; i < n_peers; i++)
            while (!clu_socket_recv(proxy->peer[i].back, &message)) {
                memcpy(message.peer, proxy->peer[i].name, (size_t)proxy->peer[i].size);
                message.peer_size = proxy->peer[i].size;
                proxy_pass(proxy, proxy->front, &message);
            }
    }
    clu_message_close(&message);
    return NULL;
}

static inline void proxy_start(struct proxy *proxy, struct clu_transport *transport, uint64_t seed,
                               const struct proxy_faults *faults, const char *server)
{
    memset(proxy, 0, sizeof(*proxy));
    proxy->transport = transport;
    proxy->faults = *faults;
    proxy->random = seed;
    snprintf(proxy->server, sizeof(proxy->server), "%.127s", server);
    pthread_mutex_init(&proxy->lock, NULL);
    struct clu_socket_options options = {.kind = CLU_SOCKET_ROUTER, .max_message_bytes = 64 << 20};
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(transport, &options, &proxy->front), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_bind(proxy->front, "tcp://127.0.0.1:*", proxy->endpoint), 0);
    pthread_create(&proxy->thread, NULL, proxy_main, proxy);
}

static inline void proxy_move(struct proxy *proxy, const char *server)
{
    pthread_mutex_lock(&proxy->lock);
    snprintf(proxy->server, sizeof(proxy->server), "%.127s", server);
    proxy->moved = true;
    pthread_mutex_unlock(&proxy->lock);
}

static inline void proxy_stop(struct proxy *proxy)
{
    proxy->stop = 1;
    pthread_join(proxy->thread, NULL);
    for (int i = 0; i < proxy->n_delayed; i++)
        clu_message_close(&proxy->delayed[i].message);
    for (int i = 0; i < proxy->n_peers; i++)
        clu_socket_close(proxy->peer[i].back);
    clu_socket_close(proxy->front);
    pthread_mutex_destroy(&proxy->lock);
}

#endif

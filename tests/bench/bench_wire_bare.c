/* Bare libzmq, and the same with msgpack arrays: see bench_wire_bare.h. Failures end the process:
 * there is nothing to measure then.
 */
#include "tests/bench/bench_wire_bare.h"

#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

struct bare_client {
    enum bare_kind kind;
    void *context, *socket;
};

static void check(int failed, const char *what)
{
    if (failed) {
        fprintf(stderr, "bench_wire: %s: %s\n", what, zmq_strerror(zmq_errno()));
        exit(1);
    }
}

static void keep(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

static void gather(const float *array, const uint64_t *keys, size_t n, size_t n_rows, float *out)
{
    for (size_t i = 0; i < n; i++) {
        if (i + 16 < n)
            __builtin_prefetch(array + (keys[i + 16] % n_rows) * BARE_DIM);
        memcpy(out + i * BARE_DIM, array + (keys[i] % n_rows) * BARE_DIM, BARE_DIM * sizeof(float));
    }
}

static void add(float *array, const uint64_t *keys, size_t n, size_t n_rows, const float *rows)
{
    for (size_t i = 0; i < n; i++) {
        if (i + 16 < n)
            __builtin_prefetch(array + (keys[i + 16] % n_rows) * BARE_DIM, 1);
        float *row = array + (keys[i] % n_rows) * BARE_DIM;
        for (int j = 0; j < BARE_DIM; j++)
            row[j] += rows[i * BARE_DIM + (size_t)j];
    }
}

struct server {
    enum bare_kind kind;
    void *socket;
    float *array, *scratch;
    uint64_t *keys;
    size_t n_rows, n_scratch;
    char reply[BARE_REPLY_HEADER];
};

static void reserve(struct server *server, size_t n)
{
    if (n <= server->n_scratch)
        return;
    free(server->scratch);
    free(server->keys);
    server->scratch = malloc(n * BARE_DIM * sizeof(float));
    server->keys = malloc(n * sizeof(uint64_t));
    check(!server->scratch || !server->keys, "memory");
    server->n_scratch = n;
}

static size_t read_msgpack_keys(struct server *server, zmq_msg_t *frame)
{
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    msgpack_unpack_next(&message, zmq_msg_data(frame), zmq_msg_size(frame), NULL);
    size_t n = message.data.via.array.size;
    reserve(server, n);
    for (size_t i = 0; i < n; i++)
        server->keys[i] = message.data.via.array.ptr[i].via.u64;
    msgpack_unpacked_destroy(&message);
    return n;
}

static void read_msgpack_rows(const void *data, size_t size, float *rows)
{
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    msgpack_unpack_next(&message, data, size, NULL);
    for (size_t i = 0; i < message.data.via.array.size; i++)
        rows[i] = (float)message.data.via.array.ptr[i].via.f64;
    msgpack_unpacked_destroy(&message);
}

static void pack_keys(msgpack_sbuffer *buffer, const uint64_t *keys, size_t n)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, n);
    for (size_t i = 0; i < n; i++)
        msgpack_pack_uint64(&packer, keys[i]);
}

static void pack_rows(msgpack_sbuffer *buffer, const float *rows, size_t n)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, n * BARE_DIM);
    for (size_t i = 0; i < n * BARE_DIM; i++)
        msgpack_pack_float(&packer, rows[i]);
}

/* the rows' frame of a pull's reply */
static void make_rows(struct server *server, zmq_msg_t *keys, zmq_msg_t *reply)
{
    size_t n = zmq_msg_size(keys) / sizeof(uint64_t);
    if (server->kind == BARE_ECHO) {
        reserve(server, n);
        zmq_msg_init_data(reply, server->scratch, n * BARE_DIM * sizeof(float), keep, NULL);
    } else if (server->kind == BARE_ARRAY) {
        check(zmq_msg_init_size(reply, n * BARE_DIM * sizeof(float)), "memory");
        gather(server->array, zmq_msg_data(keys), n, server->n_rows, zmq_msg_data(reply));
    } else {
        msgpack_sbuffer buffer;
        n = read_msgpack_keys(server, keys);
        gather(server->array, server->keys, n, server->n_rows, server->scratch);
        msgpack_sbuffer_init(&buffer);
        pack_rows(&buffer, server->scratch, n);
        check(zmq_msg_init_size(reply, buffer.size), "memory");
        memcpy(zmq_msg_data(reply), buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
    }
}

static void take_rows(struct server *server, zmq_msg_t *keys, zmq_msg_t *rows)
{
    size_t n = zmq_msg_size(keys) / sizeof(uint64_t);
    if (server->kind == BARE_ARRAY) {
        add(server->array, zmq_msg_data(keys), n, server->n_rows, zmq_msg_data(rows));
    } else if (server->kind == BARE_MSGPACK) {
        n = read_msgpack_keys(server, keys);
        read_msgpack_rows(zmq_msg_data(rows), zmq_msg_size(rows), server->scratch);
        add(server->array, server->keys, n, server->n_rows, server->scratch);
    }
}

void bare_serve(enum bare_kind kind, const char *endpoint, size_t n_rows, int ready)
{
    struct server server = {.kind = kind, .n_rows = n_rows};
    char bound[128];
    size_t size = sizeof(bound);
    server.array = calloc(n_rows * BARE_DIM, sizeof(float));
    check(!server.array, "memory");
    memset(server.array, 1, n_rows * BARE_DIM * sizeof(float));
    void *context = zmq_ctx_new();
    server.socket = zmq_socket(context, ZMQ_ROUTER);
    check(zmq_bind(server.socket, endpoint), "bind");
    zmq_getsockopt(server.socket, ZMQ_LAST_ENDPOINT, bound, &size);
    check(write(ready, bound, size) != (ssize_t)size, "pipe");
    for (;;) {
        zmq_msg_t frame[4], reply;
        int n = 0;
        do {
            zmq_msg_init(&frame[n]);
            check(zmq_msg_recv(&frame[n], server.socket, 0) < 0, "receive");
        } while (zmq_msg_more(&frame[n++]) && n < 4);
        check(zmq_msg_send(&frame[0], server.socket, ZMQ_SNDMORE) < 0, "send");
        if (n == 3) {
            make_rows(&server, &frame[2], &reply);
            zmq_send(server.socket, server.reply, BARE_REPLY_HEADER, ZMQ_SNDMORE);
            check(zmq_msg_send(&reply, server.socket, 0) < 0, "send");
        } else {
            take_rows(&server, &frame[2], &frame[3]);
            zmq_send(server.socket, server.reply, BARE_REPLY_HEADER, 0);
        }
        for (int i = 1; i < n; i++)
            zmq_msg_close(&frame[i]);
    }
}

struct bare_client *bare_connect(enum bare_kind kind, const char *endpoint)
{
    int linger = 0;
    struct bare_client *client = calloc(1, sizeof(*client));
    check(!client, "memory");
    client->kind = kind;
    client->context = zmq_ctx_new();
    client->socket = zmq_socket(client->context, ZMQ_DEALER);
    zmq_setsockopt(client->socket, ZMQ_LINGER, &linger, sizeof(linger));
    check(zmq_connect(client->socket, endpoint), "connect");
    return client;
}

void bare_close(struct bare_client *client)
{
    zmq_close(client->socket);
    zmq_ctx_term(client->context);
    free(client);
}

static void free_buffer(void *data, void *hint)
{
    (void)hint;
    free(data);
}

static void send_frame(struct bare_client *client, const void *data, size_t size, int packed,
                       int more)
{
    zmq_msg_t frame;
    check(zmq_msg_init_data(&frame, (void *)data, size, packed ? free_buffer : keep, NULL),
          "memory");
    check(zmq_msg_send(&frame, client->socket, more) < 0, "send");
}

void bare_send(struct bare_client *client, const uint64_t *keys, const float *rows, size_t n)
{
    static const char header[BARE_HEADER];
    int more = rows ? ZMQ_SNDMORE : 0;
    zmq_send(client->socket, header, BARE_HEADER, ZMQ_SNDMORE);
    if (client->kind != BARE_MSGPACK) {
        send_frame(client, keys, n * sizeof(*keys), 0, more);
        if (rows)
            send_frame(client, rows, n * BARE_DIM * sizeof(*rows), 0, 0);
        return;
    }
    msgpack_sbuffer buffer;
    msgpack_sbuffer_init(&buffer);
    pack_keys(&buffer, keys, n);
    send_frame(client, buffer.data, buffer.size, 1, more);
    if (rows) {
        msgpack_sbuffer_init(&buffer);
        pack_rows(&buffer, rows, n);
        send_frame(client, buffer.data, buffer.size, 1, 0);
    }
}

void bare_receive(struct bare_client *client, float *rows, size_t n)
{
    zmq_msg_t frame;
    int more = 1;
    (void)n;
    for (int i = 0; more; i++) {
        zmq_msg_init(&frame);
        check(zmq_msg_recv(&frame, client->socket, 0) < 0, "receive");
        more = zmq_msg_more(&frame);
        if (i == 1 && client->kind == BARE_MSGPACK)
            read_msgpack_rows(zmq_msg_data(&frame), zmq_msg_size(&frame), rows);
        zmq_msg_close(&frame);
    }
}

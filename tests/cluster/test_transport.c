/* Messages arrive whole; nobody binds beyond this machine without keys; queues and sizes are
 * bounded. */
#include "cluster/status.h"
#include "cluster/transport.h"
#include "tests/suite.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    struct clu_transport *transport;
    struct clu_socket *router, *dealer;
    char endpoint[CLU_ENDPOINT_SIZE];
};

static void open_pair(struct pair *pair, int queue_length, uint64_t max_bytes)
{
    struct clu_transport_options options = {0};
    struct clu_socket_options router = {
        .kind = CLU_SOCKET_ROUTER, .queue_length = queue_length, .max_message_bytes = max_bytes};
    struct clu_socket_options dealer = {
        .kind = CLU_SOCKET_DEALER, .queue_length = queue_length, .max_message_bytes = 1 << 24};
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &pair->transport), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(pair->transport, &router, &pair->router), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_bind(pair->router, "tcp://127.0.0.1:*", pair->endpoint), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(pair->transport, &dealer, &pair->dealer), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_connect(pair->dealer, pair->endpoint), 0);
}

static void close_pair(struct pair *pair)
{
    clu_socket_close(pair->dealer);
    clu_socket_close(pair->router);
    clu_transport_free(pair->transport);
}

static int wait_for(struct clu_socket *socket, struct clu_message *message, int timeout_ms)
{
    struct clu_poll poll = {.socket = socket};
    clu_poll(&poll, 1, timeout_ms);
    return clu_socket_recv(socket, message);
}

static int n_released;

static void release(void *data, void *hint)
{
    (void)hint;
    free(data);
    __atomic_fetch_add(&n_released, 1, __ATOMIC_SEQ_CST);
}

static void test_a_message_arrives_whole_and_its_answer_too(void)
{
    struct pair pair;
    struct clu_message message;
    clu_message_init(&message);
    open_pair(&pair, 0, 1 << 24);
    size_t size = 3 << 20;
    char *large = malloc(size);
    memset(large, 7, size);
    CU_ASSERT_EQUAL(clu_frame_init_copy(clu_message_add(&message), "head", 4), 0);
    CU_ASSERT_EQUAL(clu_frame_init_lend(clu_message_add(&message), large, size, release, NULL), 0);
    CU_ASSERT_EQUAL(clu_socket_send(pair.dealer, &message), 0);
    CU_ASSERT_EQUAL(message.n_frames, 0);
    CU_ASSERT_EQUAL_FATAL(wait_for(pair.router, &message, 5000), 0);
    CU_ASSERT_EQUAL_FATAL(message.n_frames, 2);
    CU_ASSERT(message.peer_size > 0);
    CU_ASSERT(!memcmp(clu_frame_data(&message.frame[0]), "head", 4));
    CU_ASSERT_EQUAL(clu_frame_size(&message.frame[1]), size);
    CU_ASSERT_EQUAL(((char *)clu_frame_data(&message.frame[1]))[size - 1], 7);
    CU_ASSERT_EQUAL(clu_socket_send(pair.router, &message), 0); /* back to the same peer */
    CU_ASSERT_EQUAL_FATAL(wait_for(pair.dealer, &message, 5000), 0);
    CU_ASSERT_EQUAL(message.n_frames, 2);
    clu_message_close(&message);
    CU_ASSERT_EQUAL(clu_socket_recv(pair.dealer, &message), CLU_E_AGAIN);
    close_pair(&pair);
    CU_ASSERT_EQUAL(n_released, 1);
}

static void test_nobody_binds_beyond_this_machine_without_keys(void)
{
    struct clu_transport_options options = {0};
    struct clu_transport *transport;
    struct clu_socket *socket;
    char endpoint[CLU_ENDPOINT_SIZE];
    struct clu_socket_options router = {.kind = CLU_SOCKET_ROUTER};
    static const char *const far[] = {"tcp://0.0.0.0:*", "tcp://10.0.0.1:5", "tcp://*:*",
                                      "tcp://127.0.0.1.example.com:80", "tcp://[::]:*"};
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &transport), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(transport, &router, &socket), 0);
    for (size_t i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
        CU_ASSERT_EQUAL(clu_socket_bind(socket, far[i], endpoint), CLU_E_DENIED);
        CU_ASSERT_EQUAL(clu_socket_connect(socket, far[i]), CLU_E_DENIED);
    }
    CU_ASSERT_EQUAL(clu_socket_bind(socket, "tcp://127.0.0.1:*", endpoint), 0);
    CU_ASSERT(!strncmp(endpoint, "tcp://127.0.0.1:", 16));
    CU_ASSERT_EQUAL(clu_socket_bind(socket, endpoint, endpoint), CLU_E_EXISTS);
    CU_ASSERT_EQUAL(clu_socket_bind(socket, "tcp://127.0.0.1:99999999", endpoint), CLU_E_CONFIG);
    clu_socket_close(socket);
    clu_transport_free(transport);
}

static void test_insecure_binds_anywhere_when_it_was_asked_for(void)
{
    struct clu_transport_options options = {.insecure = true};
    struct clu_transport *transport;
    struct clu_socket *socket;
    char endpoint[CLU_ENDPOINT_SIZE];
    struct clu_socket_options router = {.kind = CLU_SOCKET_ROUTER};
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &transport), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(transport, &router, &socket), 0);
    CU_ASSERT_EQUAL(clu_socket_bind(socket, "tcp://0.0.0.0:*", endpoint), 0);
    clu_socket_close(socket);
    clu_transport_free(transport);
}

static void test_a_full_queue_is_a_status_and_keeps_the_message(void)
{
    struct pair pair;
    struct clu_message message;
    int status = 0, n = 0;
    clu_message_init(&message);
    open_pair(&pair, 4, 1 << 24);
    while (!status && n++ < 100000) {
        clu_message_close(&message);
        clu_frame_init_size(clu_message_add(&message), 1 << 16);
        status = clu_socket_send(pair.dealer, &message);
    }
    CU_ASSERT_EQUAL(status, CLU_E_AGAIN);
    CU_ASSERT_EQUAL(message.n_frames, 1);
    clu_message_close(&message);
    close_pair(&pair);
}

static void test_too_many_frames_are_dropped_and_the_next_message_is_read(void)
{
    struct pair pair;
    struct clu_message message;
    clu_message_init(&message);
    open_pair(&pair, 0, 0);
    /* a router's peer is one more frame on the wire than a dealer sends: send seven through two
     * sockets */
    for (int i = 0; i < CLU_MESSAGE_FRAMES; i++)
        clu_frame_init_copy(clu_message_add(&message), "x", 1);
    CU_ASSERT_PTR_NULL(clu_message_add(&message));
    CU_ASSERT_EQUAL(clu_socket_send(pair.dealer, &message), 0);
    CU_ASSERT_EQUAL(wait_for(pair.router, &message, 5000), 0);
    CU_ASSERT_EQUAL(message.n_frames, CLU_MESSAGE_FRAMES);
    clu_message_close(&message);
    close_pair(&pair);
}

static void test_a_reply_to_a_peer_that_is_gone_says_so(void)
{
    struct pair pair;
    struct clu_message message;
    clu_message_init(&message);
    open_pair(&pair, 0, 0);
    message.peer_size = 5;
    memcpy(message.peer, "\0abcd", 5);
    clu_frame_init_copy(clu_message_add(&message), "x", 1);
    CU_ASSERT_EQUAL(clu_socket_send(pair.router, &message), CLU_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(message.n_frames, 0);
    close_pair(&pair);
}

static void test_a_poll_sees_messages_and_descriptors_whoever_took_the_edge(void)
{
    struct pair pair;
    struct clu_message message;
    int plain[2];
    clu_message_init(&message);
    open_pair(&pair, 0, 0);
    CU_ASSERT_EQUAL_FATAL(pipe(plain), 0);
    struct clu_poll items[2] = {{.fd = plain[0]}, {.socket = pair.router}};
    CU_ASSERT_EQUAL(clu_poll(items, 2, 0), 0);
    CU_ASSERT_EQUAL(clu_poll(items, 2, 20), 0);
    CU_ASSERT(!items[0].readable && !items[1].readable);
    CU_ASSERT_EQUAL(write(plain[1], "x", 1), 1);
    CU_ASSERT_EQUAL(clu_poll(items, 2, -1), 1);
    CU_ASSERT(items[0].readable && !items[1].readable);
    clu_frame_init_copy(clu_message_add(&message), "head", 4);
    CU_ASSERT_EQUAL(clu_socket_send(pair.dealer, &message), 0);
    for (int i = 0; i < 5000 && !clu_socket_readable(pair.router); i++) /* takes the edge */
        usleep(1000);
    CU_ASSERT_EQUAL(clu_poll(items, 2, -1), 2);
    CU_ASSERT(items[0].readable && items[1].readable);
    char byte;
    CU_ASSERT_EQUAL(read(plain[0], &byte, 1), 1);
    CU_ASSERT_EQUAL(clu_poll(items, 2, -1), 1);
    CU_ASSERT(!items[0].readable && items[1].readable);
    CU_ASSERT_EQUAL(clu_socket_recv(pair.router, &message), 0);
    CU_ASSERT_EQUAL(clu_poll(items, 2, 0), 0);
    clu_message_close(&message);
    close(plain[0]);
    close(plain[1]);
    close_pair(&pair);
}

static void test_noise_on_the_port_is_counted_and_harms_nobody(void)
{
    struct pair pair;
    struct clu_message message;
    clu_message_init(&message);
    open_pair(&pair, 0, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port =
                                      htons((uint16_t)atoi(strrchr(pair.endpoint, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    static const char noise[] = "GET / HTTP/1.1\r\nHost: here\r\n\r\n GET / HTTP/1.1\r\n\r\n";
    CU_ASSERT_EQUAL(write(fd, noise, sizeof(noise)), (ssize_t)sizeof(noise));
    close(fd);
    for (int i = 0; i < 500 && !clu_transport_denied(pair.transport); i++)
        usleep(10000);
    CU_ASSERT(clu_transport_denied(pair.transport) > 0);
    clu_frame_init_copy(clu_message_add(&message), "x", 1);
    CU_ASSERT_EQUAL(clu_socket_send(pair.dealer, &message), 0);
    CU_ASSERT_EQUAL(wait_for(pair.router, &message, 5000), 0);
    clu_message_close(&message);
    close_pair(&pair);
}

SUITE("cluster.transport", T(test_a_message_arrives_whole_and_its_answer_too),
      T(test_nobody_binds_beyond_this_machine_without_keys),
      T(test_insecure_binds_anywhere_when_it_was_asked_for),
      T(test_a_full_queue_is_a_status_and_keeps_the_message),
      T(test_too_many_frames_are_dropped_and_the_next_message_is_read),
      T(test_a_reply_to_a_peer_that_is_gone_says_so),
      T(test_a_poll_sees_messages_and_descriptors_whoever_took_the_edge),
      T(test_noise_on_the_port_is_counted_and_harms_nobody))

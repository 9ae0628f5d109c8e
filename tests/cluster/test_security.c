/* Keys: made with the right modes, refused with the wrong ones; a stranger gets nothing. */
#include "cluster/file.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport.h"
#include "tests/suite.h"

#include <sys/stat.h>
#include <unistd.h>

static char dir[256];

static const char *fresh_dir(void)
{
    static int count;
    snprintf(dir, sizeof(dir), "%s/sluice-keys-%d-%d", P_tmpdir, (int)getpid(), count++);
    clu_remove_tree(dir);
    return dir;
}

static const char *in_dir(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void test_a_folder_is_made_private_and_loads_for_each_role(void)
{
    static const char *const roles[] = {"sched", "ps", "worker", "tool"};
    struct stat info;
    struct clu_security security;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    CU_ASSERT_EQUAL(stat(dir, &info), 0);
    CU_ASSERT_EQUAL(info.st_mode & 07777, 0700);
    CU_ASSERT_EQUAL(stat(in_dir("server.key"), &info), 0);
    CU_ASSERT_EQUAL(info.st_mode & 07777, 0600);
    for (int i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, roles[i], &security), 0);
        CU_ASSERT_EQUAL(strlen(security.public_key), 40);
        CU_ASSERT_EQUAL(strlen(security.server_secret), i < 2 ? 40 : 0);
        if (i < 2) {
            CU_ASSERT(clu_security_allows(&security, security.public_key));
            CU_ASSERT(!clu_security_allows(&security, security.server_public));
            CU_ASSERT_EQUAL(security.n_allowed, 4);
        }
        clu_security_fini(&security);
    }
    CU_ASSERT_EQUAL(clu_security_generate(dir), CLU_E_EXISTS);
    clu_remove_tree(dir);
}

static void test_what_others_can_touch_is_refused(void)
{
    struct clu_security security;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    chmod(in_dir("allow"), 0620);
    CU_ASSERT_EQUAL(clu_security_load(dir, "ps", &security), CLU_E_DENIED);
    chmod(in_dir("allow"), 0600);
    chmod(in_dir("server.key"), 0640);
    CU_ASSERT_EQUAL(clu_security_load(dir, "ps", &security), CLU_E_DENIED);
    chmod(in_dir("server.key"), 0600);
    chmod(dir, 0770);
    CU_ASSERT_EQUAL(clu_security_load(dir, "ps", &security), CLU_E_DENIED);
    chmod(dir, 0700);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_dir("worker.key"), "not a key\n", 10), 0);
    chmod(in_dir("worker.key"), 0600);
    CU_ASSERT_EQUAL(clu_security_load(dir, "worker", &security), CLU_E_CONFIG);
    unlink(in_dir("worker.key"));
    CU_ASSERT_EQUAL(clu_security_load(dir, "worker", &security), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(clu_security_load("/nonexistent/keys", "worker", &security), CLU_E_NOT_FOUND);
    clu_remove_tree(dir);
}

/* a server that answers each message with "row" */
struct server {
    struct clu_security security;
    struct clu_transport *transport;
    struct clu_socket *router;
    char endpoint[CLU_ENDPOINT_SIZE];
};

static void open_server(struct server *server, bool curve)
{
    struct clu_transport_options options = {.security = curve ? &server->security : NULL};
    struct clu_socket_options router = {.kind = CLU_SOCKET_ROUTER};
    if (curve)
        CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, "ps", &server->security), 0);
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &server->transport), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(server->transport, &router, &server->router), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_bind(server->router, "tcp://127.0.0.1:*", server->endpoint),
                          0);
}

static void close_server(struct server *server, bool curve)
{
    clu_socket_close(server->router);
    clu_transport_free(server->transport);
    if (curve)
        clu_security_fini(&server->security);
}

/* True when a client with these keys (NULL: none) got an answer within half a second. */
static bool gets_an_answer(struct server *server, const struct clu_security *security)
{
    struct clu_transport_options options = {.security = security};
    struct clu_transport *transport;
    struct clu_socket *dealer;
    struct clu_socket_options socket = {.kind = CLU_SOCKET_DEALER};
    struct clu_message message;
    bool answered = false;
    clu_message_init(&message);
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &transport), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(transport, &socket, &dealer), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_connect(dealer, server->endpoint), 0);
    clu_frame_init_copy(clu_message_add(&message), "row?", 4);
    CU_ASSERT_EQUAL(clu_socket_send(dealer, &message), 0);
    for (int i = 0; i < 50 && !answered; i++) {
        struct clu_poll polls[2] = {{.socket = server->router}, {.socket = dealer}};
        clu_poll(polls, 2, 10);
        if (!clu_socket_recv(server->router, &message))
            clu_socket_send(server->router, &message);
        answered = !clu_socket_recv(dealer, &message);
    }
    clu_message_close(&message);
    clu_socket_close(dealer);
    clu_transport_free(transport);
    return answered;
}

static void test_an_admitted_key_is_served(void)
{
    struct server server;
    struct clu_security worker;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, "worker", &worker), 0);
    open_server(&server, true);
    CU_ASSERT(gets_an_answer(&server, &worker));
    CU_ASSERT_EQUAL(clu_transport_denied(server.transport), 0);
    close_server(&server, true);
    clu_security_fini(&worker);
    clu_remove_tree(dir);
}

static void test_a_strangers_key_gets_nothing_and_is_counted(void)
{
    struct server server;
    struct clu_security worker, stranger;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, "worker", &worker), 0);
    open_server(&server, true);
    char own[sizeof(dir)];
    snprintf(own, sizeof(own), "%s", dir);
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0); /* another folder's keys */
    CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, "worker", &stranger), 0);
    memcpy(stranger.server_public, worker.server_public, sizeof(worker.server_public));
    CU_ASSERT(!gets_an_answer(&server, &stranger));
    CU_ASSERT(clu_transport_denied(server.transport) > 0);
    CU_ASSERT(gets_an_answer(&server, &worker)); /* nothing else happened */
    close_server(&server, true);
    clu_security_fini(&worker);
    clu_security_fini(&stranger);
    clu_remove_tree(own);
    clu_remove_tree(dir);
}

static void test_a_wrong_server_key_gets_nothing_and_is_counted(void)
{
    struct server server;
    struct clu_security worker;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, "worker", &worker), 0);
    open_server(&server, true);
    memcpy(worker.server_public, worker.public_key, sizeof(worker.server_public));
    CU_ASSERT(!gets_an_answer(&server, &worker));
    CU_ASSERT(clu_transport_denied(server.transport) > 0);
    close_server(&server, true);
    clu_security_fini(&worker);
    clu_remove_tree(dir);
}

static void test_plain_text_to_a_curve_port_gets_nothing_and_is_counted(void)
{
    struct server server;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    open_server(&server, true);
    CU_ASSERT(!gets_an_answer(&server, NULL));
    CU_ASSERT(clu_transport_denied(server.transport) > 0);
    close_server(&server, true);
    clu_remove_tree(dir);
}

static void test_a_curve_client_to_a_plain_port_gets_nothing_and_is_counted(void)
{
    struct server server;
    struct clu_security worker;
    CU_ASSERT_EQUAL_FATAL(clu_security_generate(fresh_dir()), 0);
    CU_ASSERT_EQUAL_FATAL(clu_security_load(dir, "worker", &worker), 0);
    open_server(&server, false);
    CU_ASSERT(!gets_an_answer(&server, &worker));
    CU_ASSERT(clu_transport_denied(server.transport) > 0);
    CU_ASSERT(gets_an_answer(&server, NULL));
    close_server(&server, false);
    clu_security_fini(&worker);
    clu_remove_tree(dir);
}

SUITE("cluster.security", T(test_a_folder_is_made_private_and_loads_for_each_role),
      T(test_what_others_can_touch_is_refused), T(test_an_admitted_key_is_served),
      T(test_a_strangers_key_gets_nothing_and_is_counted),
      T(test_a_wrong_server_key_gets_nothing_and_is_counted),
      T(test_plain_text_to_a_curve_port_gets_nothing_and_is_counted),
      T(test_a_curve_client_to_a_plain_port_gets_nothing_and_is_counted))

/* The two ends of the control channel that are not a member's: the scheduler's socket, and a tool's
 * single question. Both are thin: bytes come from cluster/transport.h, meaning from
 * cluster/control.c.
 */
#include "cluster/control.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "cluster/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_WATCHED = 4 };

struct clu_control {
    struct clu_socket *socket;
    struct clu_message received;
    struct clu_packer packer;
    uint64_t n_malformed;
    struct clu_poll items[1 + MAX_WATCHED]; /* the socket, then what is watched beside it */
    int n_items;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int clu_control_open(struct clu_transport *transport, const char *host, int64_t port,
                     struct clu_control **control_p, char endpoint_p[CLU_ENDPOINT_BYTES])
{
    char endpoint[CLU_ENDPOINT_BYTES];
    int size = port > 0 ? snprintf(endpoint, sizeof(endpoint), "tcp://%s:%d", host, (int)port)
                        : snprintf(endpoint, sizeof(endpoint), "tcp://%s:*", host);
    if (size >= (int)sizeof(endpoint))
        return clu_fail(CLU_E_CONFIG, "host %.40s...: longer than an endpoint may be", host);
    struct clu_control *control = calloc(1, sizeof(*control));
    if (!control)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the control socket");
    struct clu_socket_options options = {.kind = CLU_SOCKET_ROUTER, .linger_ms = 300};
    int status = clu_socket_open(transport, &options, &control->socket);
    if (!status)
        status = clu_socket_bind(control->socket, endpoint, endpoint_p);
    if (status) {
        clu_socket_close(control->socket);
        free(control);
        return status;
    }
    clu_message_init(&control->received);
    clu_packer_init(&control->packer);
    control->items[0] = (struct clu_poll){.socket = control->socket};
    control->n_items = 1;
    *control_p = control;
    return CLU_OK;
}

void clu_control_close(struct clu_control *control)
{
    if (!control)
        return;
    clu_message_close(&control->received);
    clu_packer_fini(&control->packer);
    clu_socket_close(control->socket);
    free(control);
}

void clu_control_watch(struct clu_control *control, const int *fds, int n)
{
    for (int i = 0; i < n && i < MAX_WATCHED; i++)
        control->items[1 + i] = (struct clu_poll){.fd = fds[i]};
    control->n_items = 1 + (n < MAX_WATCHED ? n : MAX_WATCHED);
}

int clu_control_receive(struct clu_control *control, int timeout_ms, struct clu_peer *peer_p,
                        struct clu_control_message *message_p)
{
    int64_t deadline = now_ms() + timeout_ms;
    for (;;) {
        int status = clu_socket_recv(control->socket, &control->received);
        if (!status) {
            struct clu_message *received = &control->received;
            if (received->n_frames == 1 && received->peer_size <= CLU_PEER_BYTES)
                status = clu_control_unpack(clu_frame_data(&received->frame[0]),
                                            clu_frame_size(&received->frame[0]), message_p);
            else
                status = CLU_E_PROTOCOL;
            if (!status) {
                peer_p->size_bytes = (uint8_t)received->peer_size;
                memcpy(peer_p->bytes, received->peer, (size_t)received->peer_size);
                return CLU_OK;
            }
        }
        if (status == CLU_E_PROTOCOL) {
            control->n_malformed++;
            clu_debug("control message dropped: malformed");
            continue;
        }
        if (status != CLU_E_AGAIN)
            return status;
        int64_t left = deadline - now_ms();
        if (left <= 0)
            return CLU_E_TIMEOUT;
        status = clu_poll(control->items, control->n_items, (int)left);
        if (status < 0)
            return status == CLU_E_INTERRUPTED ? CLU_E_AGAIN : status;
        for (int i = 1; i < control->n_items && !control->items[0].readable; i++)
            if (control->items[i].readable)
                return CLU_E_AGAIN;
    }
}

int clu_control_send(struct clu_control *control, const struct clu_peer *peer,
                     const struct clu_control_message *message)
{
    clu_control_pack(message, &control->packer);
    int status = clu_packer_status(&control->packer);
    if (status)
        return status;
    struct clu_message out;
    clu_message_init(&out);
    memcpy(out.peer, peer->bytes, peer->size_bytes);
    out.peer_size = peer->size_bytes;
    status = clu_frame_init_copy(clu_message_add(&out), control->packer.data,
                                 control->packer.size_bytes);
    if (!status)
        status = clu_socket_send(control->socket, &out);
    clu_message_close(&out);
    return status;
}

uint64_t clu_control_n_malformed(const struct clu_control *control)
{
    return control->n_malformed;
}

static int send_question(struct clu_socket *socket, const char *question)
{
    struct clu_control_message *ask = calloc(1, sizeof(*ask));
    struct clu_packer packer;
    struct clu_message out;
    clu_packer_init(&packer);
    clu_message_init(&out);
    int status = ask ? CLU_OK : CLU_E_NO_MEMORY;
    if (!status && strlen(question) >= sizeof(ask->text))
        status = CLU_E_USAGE;
    if (!status) {
        ask->op = CLU_CONTROL_ASK;
        ask->role = CLU_ROLE_TOOL;
        strcpy(ask->text, question);
        clu_control_pack(ask, &packer);
        status = clu_packer_status(&packer);
    }
    if (!status)
        status = clu_frame_init_copy(clu_message_add(&out), packer.data, packer.size_bytes);
    if (!status)
        status = clu_socket_send(socket, &out);
    clu_message_close(&out);
    clu_packer_fini(&packer);
    free(ask);
    return status;
}

/* What the answer says; its body copied out when it is wanted. */
static int take_answer(struct clu_message *received, char **body_p)
{
    struct clu_control_message *answer = calloc(1, sizeof(*answer));
    if (!answer)
        return CLU_E_NO_MEMORY;
    int status = received->n_frames == 1 ? CLU_OK : CLU_E_PROTOCOL;
    if (!status)
        status = clu_control_unpack(clu_frame_data(&received->frame[0]),
                                    clu_frame_size(&received->frame[0]), answer);
    if (!status && answer->op == CLU_CONTROL_REFUSE)
        status = answer->status ? answer->status : CLU_E_DENIED;
    else if (!status && answer->op != CLU_CONTROL_ANSWER)
        status = CLU_E_PROTOCOL;
    else if (!status)
        status = answer->status;
    if (status)
        clu_error("the scheduler answers: %s",
                  answer->text[0] ? answer->text : clu_status_text(status));
    if (!status && body_p) {
        *body_p = malloc(answer->body_bytes + 1);
        if (*body_p) {
            memcpy(*body_p, answer->body, answer->body_bytes);
            (*body_p)[answer->body_bytes] = '\0';
        } else {
            status = CLU_E_NO_MEMORY;
        }
    }
    free(answer);
    return status;
}

int clu_control_ask(struct clu_transport *transport, const char *endpoint, const char *question,
                    int timeout_ms, char **body_p)
{
    struct clu_socket_options options = {
        .kind = CLU_SOCKET_DEALER, .max_message_bytes = 64u << 20, .linger_ms = 200};
    struct clu_socket *socket = NULL;
    struct clu_message received;
    clu_message_init(&received);
    int64_t deadline = now_ms() + timeout_ms;
    int status = clu_socket_open(transport, &options, &socket);
    if (!status)
        status = clu_socket_connect(socket, endpoint);
    if (!status)
        status = send_question(socket, question);
    while (!status) {
        status = clu_socket_recv(socket, &received);
        if (!status) {
            status = take_answer(&received, body_p);
            break;
        }
        if (status != CLU_E_AGAIN)
            break;
        int64_t left = deadline - now_ms();
        if (left <= 0) {
            status = CLU_E_TIMEOUT;
            break;
        }
        struct clu_poll item = {.socket = socket};
        int n = clu_poll(&item, 1, (int)left);
        status = n < 0 && n != CLU_E_INTERRUPTED ? n : CLU_OK;
    }
    clu_message_close(&received);
    clu_socket_close(socket);
    return status;
}

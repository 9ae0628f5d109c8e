/* A member's end of the control channel. The role's threads only touch two queues behind one lock;
 * the member's own thread does all that touches the network, and is woken through an eventfd.
 *
 *     state        what the thread sends              leaves it when
 *     JOINING      JOIN, every half second            WELCOME -> IN; REFUSE -> LOST; its deadline
 * -> LOST IN           BEAT, reports, receipts by beat    silence > lost_after_ms -> JOINING (with
 * the incarnation it has); REFUSE AGAIN -> JOINING; other REFUSE -> LOST LOST         nothing -
 *     LEAVING      LEAVE, every 200 ms                RECEIPT or one second
 *
 * (B1) A report stays in the queue until its receipt came; after a rejoin all that are left go
 * again. The scheduler passes over numbers it has seen. (B2) An order is taken once: numbers that
 * are not above the last one are passed over. A WELCOME starts the numbers afresh, because a new
 * scheduler counts from 1. (B3) Every wait has a deadline: joining, silence, leaving.
 */
#include "cluster/member.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "cluster/transport.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { JOIN_EVERY_MS = 500, LEAVE_EVERY_MS = 200, LEAVE_WITHIN_MS = 1000, N_ORDERS = 64 };

enum member_state { JOINING, IN, LOST, LEAVING, GONE };

struct queued_report {
    struct queued_report *next;
    uint64_t number;
    bool sent;
    struct clu_report report;
};

struct clu_member {
    /* fixed at join */
    struct clu_transport *transport;
    enum clu_role role;
    int rank, n_endpoints;
    char (*endpoints)[CLU_ENDPOINT_BYTES];
    int64_t heartbeat_ms, lost_after_ms, rejoin_timeout_ms;
    char endpoint_file[CLU_PATH_BYTES], metrics_url[CLU_ENDPOINT_BYTES];
    int wake_fd;
    pthread_t thread;

    /* the thread's own */
    char endpoint[CLU_ENDPOINT_BYTES];
    struct clu_socket *socket;
    struct clu_control_message *out, *in;
    struct clu_packer packer;
    int64_t heard_ms, said_ms, deadline_ms; /* deadline: of JOINING or LEAVING */
    uint64_t last_order;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum member_state state;
    bool was_in; /* welcomed once */
    int lost_status;
    struct clu_welcome welcome;
    struct clu_bucket_map map, new_map;
    struct clu_order orders[N_ORDERS];
    unsigned first_order, n_orders;
    struct queued_report *first_report, **last_report_p;
    uint64_t n_reports;
    int leave_status;
    char leave_text[CLU_TEXT_BYTES];
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wake(struct clu_member *member)
{
    uint64_t one = 1;
    while (write(member->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

/* ---- the thread: out ---- */

/* Sends member->out; a full queue or a vanished peer is for the resending to mend. */
static int send_out(struct clu_member *member, enum clu_control_op op)
{
    struct clu_control_message *out = member->out;
    out->op = op;
    out->role = member->role;
    out->rank = member->rank;
    out->incarnation = member->welcome.incarnation;
    clu_control_pack(out, &member->packer);
    struct clu_message message;
    clu_message_init(&message);
    int status = clu_packer_status(&member->packer);
    if (!status)
        status = clu_frame_init_copy(clu_message_add(&message), member->packer.data,
                                     member->packer.size_bytes);
    if (!status)
        status = clu_socket_send(member->socket, &message);
    clu_message_close(&message);
    memset(out, 0, sizeof(*out));
    return status;
}

static void send_join(struct clu_member *member)
{
    struct clu_control_message *out = member->out;
    out->pid = getpid();
    gethostname(out->host, sizeof(out->host) - 1);
    memcpy(out->metrics_url, member->metrics_url, sizeof(out->metrics_url));
    out->n_endpoints = member->n_endpoints;
    for (int i = 0; i < member->n_endpoints; i++)
        memcpy(out->endpoints[i], member->endpoints[i], CLU_ENDPOINT_BYTES);
    send_out(member, CLU_CONTROL_JOIN);
}

static void send_beat(struct clu_member *member)
{
    member->out->number = member->last_order;
    member->out->map_version = member->map.version;
    send_out(member, CLU_CONTROL_BEAT);
}

static void send_leave(struct clu_member *member)
{
    member->out->status = member->leave_status;
    memcpy(member->out->text, member->leave_text, CLU_TEXT_BYTES);
    send_out(member, CLU_CONTROL_LEAVE);
}

/* Sends reports not sent yet, in order; stops at the first that does not go. Lock held. */
static void send_reports(struct clu_member *member)
{
    for (struct queued_report *r = member->first_report; r; r = r->next) {
        if (r->sent)
            continue;
        member->out->number = r->number;
        member->out->report = r->report;
        if (send_out(member, CLU_CONTROL_REPORT))
            return;
        r->sent = true;
    }
}

static int open_socket(struct clu_member *member)
{
    struct clu_socket_options options = {.kind = CLU_SOCKET_DEALER, .linger_ms = 300};
    clu_socket_close(member->socket);
    member->socket = NULL;
    int status = clu_socket_open(member->transport, &options, &member->socket);
    if (!status)
        status = clu_socket_connect(member->socket, member->endpoint);
    return status;
}

/* ---- the thread: state changes; lock held ---- */

static void become_lost(struct clu_member *member, int status, const char *why)
{
    if (member->state == LOST)
        return;
    if (member->was_in || status != CLU_E_TIMEOUT)
        clu_error("no longer part of the job: %s", why);
    member->state = LOST;
    member->lost_status = status;
    pthread_cond_broadcast(&member->changed);
}

/* Starts joining again, at the endpoint the file names now. */
static void rejoin(struct clu_member *member, int64_t now)
{
    member->state = JOINING;
    member->deadline_ms = now + member->rejoin_timeout_ms;
    member->said_ms = 0;
    if (member->endpoint_file[0] && clu_path_exists(member->endpoint_file)) {
        char *text;
        size_t size;
        if (!clu_file_read_all(member->endpoint_file, 4096, &text, &size)) {
            text[strcspn(text, "\r\n")] = '\0';
            if (text[0] && strlen(text) < CLU_ENDPOINT_BYTES)
                strcpy(member->endpoint, text);
            free(text);
        }
    }
    if (open_socket(member))
        become_lost(member, CLU_E_UNAVAILABLE, "no socket to the scheduler");
}

static void take_map(struct clu_member *member)
{
    if (member->in->has_map && member->new_map.version > member->map.version)
        member->map = member->new_map;
}

static void on_welcome(struct clu_member *member)
{
    if (member->state != JOINING)
        return;
    /* its generation may be a later one: a server that went back with the job in place */
    if (member->was_in && member->in->welcome.incarnation != member->welcome.incarnation) {
        become_lost(member, CLU_E_LOST, "the job has gone on without this member");
        return;
    }
    if (member->in->has_map)
        member->map = member->new_map;
    if (!member->was_in && !clu_map_is_complete(&member->map))
        return; /* one who knows the servers may hear that one of them is away */
    if (!member->was_in)
        member->welcome = member->in->welcome; /* once: readers hold no lock */
    member->last_order = 0;                    /* (B2) */
    for (struct queued_report *r = member->first_report; r; r = r->next)
        r->sent = false; /* (B1) */
    if (member->was_in)
        clu_info("joined the scheduler again");
    member->was_in = true;
    member->state = IN;
    pthread_cond_broadcast(&member->changed);
}

static void on_refuse(struct clu_member *member, int64_t now)
{
    const struct clu_control_message *in = member->in;
    if (in->status == CLU_E_AGAIN && member->state == IN)
        rejoin(member, now);
    else if (in->status != CLU_E_AGAIN && member->state != LEAVING)
        become_lost(member, in->status ? in->status : CLU_E_DENIED,
                    in->text[0] ? in->text : "the scheduler refuses");
}

/* Forgets the reports that an order has answered: of a snapshot that is decided, of owners that are
 * stored. */
static void settle(struct clu_member *member, const struct clu_order *order)
{
    bool snapshot = order->kind == CLU_ORDER_COMMITTED;
    struct queued_report **link = &member->first_report;
    while (*link) {
        struct queued_report *r = *link;
        bool answered = snapshot
                            ? r->report.kind == CLU_REPORT_SNAPSHOT && r->report.step <= order->step
                            : r->report.kind == CLU_REPORT_MOVED && r->report.owners <= order->step;
        if (answered && r->sent) {
            *link = r->next;
            free(r);
        } else {
            link = &r->next;
        }
    }
    member->last_report_p = link;
}

static void on_order(struct clu_member *member)
{
    const struct clu_control_message *in = member->in;
    if (member->state != IN || in->number <= member->last_order)
        return;
    if (in->number != member->last_order + 1 || member->n_orders == N_ORDERS)
        return; /* a gap or no room: the scheduler sends it again */
    member->last_order = in->number;
    if (in->order.kind == CLU_ORDER_COMMITTED || in->order.kind == CLU_ORDER_MOVED)
        settle(member, &in->order);
    member->orders[(member->first_order + member->n_orders++) % N_ORDERS] = in->order;
    pthread_cond_broadcast(&member->changed);
}

static void on_receipt(struct clu_member *member)
{
    if (member->state == LEAVING && member->in->number == 0) {
        member->state = GONE;
        return;
    }
    struct queued_report **link = &member->first_report;
    while (*link) {
        struct queued_report *r = *link;
        bool by_order = r->report.kind == CLU_REPORT_SNAPSHOT || r->report.kind == CLU_REPORT_MOVED;
        if (r->sent && r->number <= member->in->number && !by_order) {
            *link = r->next;
            free(r);
        } else {
            link = &r->next;
        }
    }
    member->last_report_p = link;
}

/* Reads one message; false when there was none. Lock held: nothing here waits. */
static bool receive_one(struct clu_member *member, int64_t now)
{
    struct clu_message received;
    clu_message_init(&received);
    int status = clu_socket_recv(member->socket, &received);
    if (status && status != CLU_E_PROTOCOL)
        return false;
    member->in->map = &member->new_map;
    if (!status && received.n_frames == 1 &&
        !clu_control_unpack(clu_frame_data(&received.frame[0]), clu_frame_size(&received.frame[0]),
                            member->in)) {
        member->heard_ms = now;
        switch (member->in->op) {
        case CLU_CONTROL_WELCOME:
            on_welcome(member);
            break;
        case CLU_CONTROL_REFUSE:
            on_refuse(member, now);
            break;
        case CLU_CONTROL_ORDER:
            on_order(member);
            if (member->state == IN)
                send_beat(member); /* the beat is the order's receipt */
            break;
        case CLU_CONTROL_RECEIPT:
            on_receipt(member);
            break;
        case CLU_CONTROL_BEAT:
            take_map(member);
            break;
        default:
            break;
        }
    }
    clu_message_close(&received);
    return true;
}

/* What is due at this moment. Returns how long the thread may sleep. Lock held. */
static int64_t do_due(struct clu_member *member, int64_t now)
{
    int64_t every = member->heartbeat_ms;
    if (member->state == IN && now - member->heard_ms > member->lost_after_ms) {
        clu_warn("the scheduler has been silent for %lld ms; joining again",
                 (long long)(now - member->heard_ms));
        rejoin(member, now);
    }
    if (member->state == JOINING && now > member->deadline_ms)
        become_lost(member, CLU_E_TIMEOUT, "the scheduler does not answer");
    if (member->state == LEAVING && now > member->deadline_ms)
        member->state = GONE;
    if (member->state == LOST || member->state == GONE)
        return 1000;
    if (member->state == JOINING)
        every = JOIN_EVERY_MS;
    else if (member->state == LEAVING)
        every = LEAVE_EVERY_MS;
    if (member->state != JOINING)
        send_reports(member); /* when leaving, too: what is queued goes before the goodbye */
    if (now - member->said_ms >= every) {
        member->said_ms = now;
        if (member->state == JOINING)
            send_join(member);
        else if (member->state == LEAVING)
            send_leave(member);
        else
            send_beat(member);
    }
    return member->said_ms + every - now;
}

static void *run(void *context)
{
    struct clu_member *member = context;
    pthread_mutex_lock(&member->lock);
    for (;;) {
        int64_t now = now_ms();
        while (member->socket && receive_one(member, now))
            ;
        int64_t sleep_ms = do_due(member, now);
        if (member->state == GONE)
            break;
        struct clu_poll items[2] = {{.fd = member->wake_fd}, {.socket = member->socket}};
        int n_items = member->socket ? 2 : 1;
        pthread_mutex_unlock(&member->lock);
        clu_poll(items, n_items, (int)(sleep_ms < 1 ? 1 : sleep_ms));
        uint64_t count;
        if (items[0].readable && read(member->wake_fd, &count, sizeof(count)) < 0)
            clu_trace("member: spurious wake");
        pthread_mutex_lock(&member->lock);
    }
    pthread_mutex_unlock(&member->lock);
    return NULL;
}

/* ---- the calls ---- */

static void destroy(struct clu_member *member)
{
    clu_socket_close(member->socket);
    clu_packer_fini(&member->packer);
    for (struct queued_report *r = member->first_report, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    if (member->wake_fd >= 0)
        close(member->wake_fd);
    pthread_cond_destroy(&member->changed);
    pthread_mutex_destroy(&member->lock);
    free(member->endpoints);
    free(member->out);
    free(member->in);
    free(member);
}

static struct clu_member *create(const struct clu_member_options *options)
{
    struct clu_member *member = calloc(1, sizeof(*member));
    if (!member)
        return NULL;
    member->transport = options->transport;
    member->role = options->role;
    member->rank = options->rank;
    member->n_endpoints = options->n_endpoints;
    member->heartbeat_ms = options->heartbeat_ms > 0 ? options->heartbeat_ms : 1000;
    member->lost_after_ms =
        options->lost_after_ms > 0 ? options->lost_after_ms : 5 * member->heartbeat_ms;
    member->rejoin_timeout_ms =
        options->rejoin_timeout_ms > 0 ? options->rejoin_timeout_ms : member->lost_after_ms;
    snprintf(member->endpoint, sizeof(member->endpoint), "%s", options->endpoint);
    if (options->endpoint_file)
        snprintf(member->endpoint_file, sizeof(member->endpoint_file), "%s",
                 options->endpoint_file);
    if (options->metrics_url)
        snprintf(member->metrics_url, sizeof(member->metrics_url), "%s", options->metrics_url);
    member->last_report_p = &member->first_report;
    pthread_mutex_init(&member->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&member->changed, &attr);
    pthread_condattr_destroy(&attr);
    clu_packer_init(&member->packer);
    member->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    member->out = calloc(1, sizeof(*member->out));
    member->in = calloc(1, sizeof(*member->in));
    member->endpoints = calloc((size_t)options->n_endpoints + 1, CLU_ENDPOINT_BYTES);
    if (member->wake_fd < 0 || !member->out || !member->in || !member->endpoints) {
        destroy(member);
        return NULL;
    }
    for (int i = 0; i < options->n_endpoints; i++)
        memcpy(member->endpoints[i], options->endpoints[i], CLU_ENDPOINT_BYTES);
    return member;
}

int clu_member_join(const struct clu_member_options *options, struct clu_member **member_p)
{
    int max_endpoints =
        (int)(sizeof(((struct clu_control_message *)0)->endpoints) / CLU_ENDPOINT_BYTES);
    if (options->n_endpoints < 0 || options->n_endpoints > max_endpoints)
        return clu_fail(CLU_E_USAGE, "%d shards in one server: at most %d are possible",
                        options->n_endpoints, max_endpoints);
    struct clu_member *member = create(options);
    if (!member)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for joining the job");
    int64_t now = now_ms();
    member->heard_ms = now;
    member->deadline_ms = now + (options->join_timeout_ms > 0 ? options->join_timeout_ms : 60000);
    int status = open_socket(member);
    if (!status && pthread_create(&member->thread, NULL, run, member))
        status = clu_fail(CLU_E_NO_MEMORY, "no thread for the control channel");
    if (status) {
        destroy(member);
        return status;
    }
    pthread_mutex_lock(&member->lock);
    while (member->state == JOINING)
        pthread_cond_wait(&member->changed, &member->lock);
    status = member->state == LOST ? member->lost_status : CLU_OK;
    pthread_mutex_unlock(&member->lock);
    if (status == CLU_E_TIMEOUT)
        clu_error(
            "the scheduler at %s has not let %s %d in within %lld ms: it is not there, or still "
            "waits for other members",
            options->endpoint, clu_role_name(options->role), options->rank,
            (long long)options->join_timeout_ms);
    if (status) {
        clu_member_leave(member, status, "never joined");
        return status;
    }
    *member_p = member;
    return CLU_OK;
}

const struct clu_welcome *clu_member_welcome(const struct clu_member *member)
{
    return &member->welcome;
}

int clu_member_map(struct clu_member *member, struct clu_bucket_map *map_p)
{
    pthread_mutex_lock(&member->lock);
    *map_p = member->map;
    pthread_mutex_unlock(&member->lock);
    return CLU_OK;
}

uint64_t clu_member_map_version(struct clu_member *member)
{
    pthread_mutex_lock(&member->lock);
    uint64_t version = member->map.version;
    pthread_mutex_unlock(&member->lock);
    return version;
}

/* Lock held. */
static int take_order(struct clu_member *member, struct clu_order *order_p)
{
    if (member->n_orders == 0)
        return member->state == LOST ? CLU_E_LOST : CLU_E_AGAIN;
    *order_p = member->orders[member->first_order];
    member->first_order = (member->first_order + 1) % N_ORDERS;
    member->n_orders--;
    return CLU_OK;
}

int clu_member_next_order(struct clu_member *member, struct clu_order *order_p)
{
    pthread_mutex_lock(&member->lock);
    int status = take_order(member, order_p);
    pthread_mutex_unlock(&member->lock);
    return status;
}

int clu_member_wait_order(struct clu_member *member, int timeout_ms, struct clu_order *order_p)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&member->lock);
    int status, expired = 0;
    while ((status = take_order(member, order_p)) == CLU_E_AGAIN && !expired)
        expired = pthread_cond_timedwait(&member->changed, &member->lock, &deadline);
    pthread_mutex_unlock(&member->lock);
    return status == CLU_E_AGAIN ? CLU_E_TIMEOUT : status;
}

int clu_member_report(struct clu_member *member, const struct clu_report *report)
{
    struct queued_report *queued = malloc(sizeof(*queued));
    if (!queued)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a report");
    queued->next = NULL;
    queued->sent = false;
    queued->report = *report;
    pthread_mutex_lock(&member->lock);
    if (member->state == LOST) {
        pthread_mutex_unlock(&member->lock);
        free(queued);
        return CLU_E_LOST;
    }
    queued->number = ++member->n_reports;
    *member->last_report_p = queued;
    member->last_report_p = &queued->next;
    pthread_mutex_unlock(&member->lock);
    wake(member);
    return CLU_OK;
}

void clu_member_leave(struct clu_member *member, int status, const char *text)
{
    if (!member)
        return;
    pthread_mutex_lock(&member->lock);
    member->leave_status = status;
    snprintf(member->leave_text, sizeof(member->leave_text), "%s", text ? text : "");
    if (member->state == IN) {
        member->state = LEAVING;
        member->deadline_ms = now_ms() + LEAVE_WITHIN_MS;
        member->said_ms = 0;
    } else {
        member->state = GONE;
    }
    pthread_mutex_unlock(&member->lock);
    wake(member);
    pthread_join(member->thread, NULL);
    destroy(member);
}

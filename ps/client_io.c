/* The moving part of a client: sends, replies, retries, and who drives.
 *
 * There is no thread between the caller and the network on the way of a request: the caller sends,
 * libzmq's own thread moves the bytes, and whoever waits polls the sockets ("drives") and scatters
 * what arrives, for everybody. At most one thread drives at a time (I1); it polls descriptors
 * without the lock and does everything else under it. The descriptors signal edges: each consumer
 * of an edge reads its socket empty before it lets the lock go (I2), so no reply is left lying. A
 * thread of the client drives every TICK_MS while calls are open and nobody waits: a lost push
 * must be sent again even if its worker is busy elsewhere.
 *
 * A frame may lend a ticket's memory to libzmq. `lent` counts such frames; a ticket's memory is
 * used again, or given back to the caller, only at zero (I3). Links queue for live connections
 * only, so a lost connection drops its frames by itself; one that hangs is closed when a deadline
 * passes.
 */
#include "ps/client_internal.h"

#include "cluster/log.h"
#include "cluster/pack.h"
#include "cluster/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    MIN_LENT_BYTES = 4 << 10, /* smaller frames are copied: cheaper than lending */
    UNSENT_RETRY_MS = 5,      /* no connection, or its queue is full */
    MAX_RETRY_MS = 4000,
    MAX_DRIVE_MS = 100,
    MAX_DAMAGED = 20,
    HELD_RETRIES = 10, /* times retry_ms */
};

int64_t psv_client_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int psv_link_open(struct psv_client *client, int i)
{
    struct psv_link *link = &client->links[i];
    struct clu_socket_options options = {
        .kind = CLU_SOCKET_DEALER,
        .queue_length = 64,
        .max_message_bytes = (uint64_t)512 << 20, /* servers are trusted more than strangers */
        .heartbeat_ms = client->options.heartbeat_ms,
        .only_connected = true,
    };
    clu_socket_close(link->socket);
    link->socket = NULL;
    client->polls[1 + i].fd = -1;
    if (!link->endpoint[0])
        return 0; /* it is away */
    int status = clu_socket_open(client->options.transport, &options, &link->socket);
    if (!status)
        status = clu_socket_connect(link->socket, link->endpoint);
    if (!status) {
        client->polls[1 + i].fd = clu_socket_fd(link->socket);
        client->polls[1 + i].events = POLLIN;
    }
    return status;
}

static void release(void *data, void *hint)
{
    (void)data;
    struct psv_ticket *ticket = hint;
    atomic_fetch_sub(&ticket->lent, 1);
}

static int add_frame(struct clu_message *message, struct psv_ticket *ticket, const void *data,
                     size_t bytes)
{
    struct clu_frame *frame = clu_message_add(message);
    if (bytes < MIN_LENT_BYTES)
        return clu_frame_init_copy(frame, data, bytes);
    atomic_fetch_add(&ticket->lent, 1); /* (I3) */
    int status = clu_frame_init_lend(frame, (void *)data, bytes, release, ticket);
    if (status)
        atomic_fetch_sub(&ticket->lent, 1);
    return status;
}

/* What of a part belongs to a call: n keys from `first` on among the part's keys at the call's
 * shard. */
struct range {
    size_t first, n;
};

/* at: where the part begins in the shard's slice; moved on to the next part. */
static struct range part_range(const struct psv_call *call, int p, size_t *at)
{
    const uint32_t *offset =
        call->ticket->offset + (size_t)p * (size_t)(call->ticket->n_shards + 1);
    size_t begin = *at, end = begin + (offset[call->shard + 1] - offset[call->shard]);
    size_t from = call->first > begin ? call->first : begin;
    size_t to = call->first + call->n_keys < end ? call->first + call->n_keys : end;
    *at = end;
    return from < to ? (struct range){from - begin, to - from} : (struct range){0, 0};
}

size_t psv_call_row_bytes(const struct psv_client *client, const struct psv_call *call)
{
    const struct psv_ticket *ticket = call->ticket;
    size_t at = 0, n_floats = 0;
    for (int p = 0; p < ticket->n_parts; p++)
        n_floats += part_range(call, p, &at).n * (size_t)client->tables[ticket->part[p].table].dim;
    return n_floats * clu_wire_dtype_size(ticket->dtype);
}

static void fill_header(const struct psv_client *client, const struct psv_call *call,
                        int64_t now_ms, struct clu_wire_request *header)
{
    const struct psv_ticket *ticket = call->ticket;
    int64_t left_ms = ticket->server_deadline_at_ms - now_ms;
    header->op = ticket->op;
    header->dtype = ticket->dtype;
    header->rank = (uint32_t)client->options.rank;
    header->owners = ticket->owners;
    header->deadline_ms = left_ms > 0 ? (uint32_t)left_ms : 0;
    header->incarnation = client->options.incarnation;
    header->seq = call->seq;
    header->step = ticket->step;
    header->text = ticket->text;
    header->n_text = ticket->n_text;
    header->n_parts = 0;
    size_t at = 0;
    for (int p = 0; p < ticket->n_parts; p++) {
        struct range range = part_range(call, p, &at);
        if (range.n)
            header->part[header->n_parts++] =
                (struct clu_wire_part){(uint16_t)ticket->part[p].table, (uint32_t)range.n};
    }
}

static int add_coded_keys(const struct clu_wire_request *header, const uint64_t *keys, size_t bytes,
                          struct clu_message *message)
{
    struct clu_frame *frame = clu_message_add(message);
    int status = clu_frame_init_size(frame, bytes);
    if (!status)
        clu_wire_encode_keys(header->part, header->n_parts, keys, clu_frame_data(frame), bytes);
    return status;
}

static int build(struct psv_client *client, struct psv_call *call, int64_t now_ms,
                 struct clu_message *message)
{
    struct clu_wire_request header;
    struct psv_ticket *ticket = call->ticket;
    const struct psv_slice *slice = &ticket->slices[call->shard];
    const uint64_t *keys = ticket->keys + slice->key_offset + call->first;
    size_t key_bytes = call->n_keys * sizeof(*keys), coded_bytes = 0;
    fill_header(client, call, now_ms, &header);
    if (client->codes_keys && call->n_keys)
        coded_bytes = clu_wire_coded_keys_size(header.part, header.n_parts, keys);
    header.coded = coded_bytes && coded_bytes < key_bytes;
    struct clu_frame *frame = clu_message_add(message);
    int status = clu_frame_init_size(frame, clu_wire_request_size(&header));
    if (status)
        return status;
    clu_wire_encode_request(&header, clu_frame_data(frame));
    if (!call->n_keys)
        return 0;
    status = header.coded ? add_coded_keys(&header, keys, coded_bytes, message)
                          : add_frame(message, ticket, keys, key_bytes);
    if (!status && ticket->op == CLU_WIRE_PUSH)
        status = add_frame(message, ticket, ticket->rows + slice->row_offset, call->row_bytes);
    return status;
}

void psv_call_send(struct psv_client *client, struct psv_call *call, int64_t now_ms)
{
    struct clu_message message;
    struct psv_link *link = &client->links[call->shard];
    clu_message_init(&message);
    int status = link->socket ? build(client, call, now_ms, &message) : CLU_E_AGAIN;
    size_t bytes = 0;
    for (int i = 0; i < message.n_frames; i++)
        bytes += clu_frame_size(&message.frame[i]);
    if (!status)
        status = clu_socket_send(link->socket, &message);
    clu_message_close(&message);
    if (status) {
        call->retry_at_ms = now_ms + UNSENT_RETRY_MS;
        return;
    }
    int64_t wait_ms = client->retry_ms << (call->attempts < 4 ? call->attempts : 4);
    call->retry_at_ms = now_ms + (wait_ms < MAX_RETRY_MS ? wait_ms : MAX_RETRY_MS);
    client->stats.retries += call->attempts > 0;
    client->stats.bytes_sent += bytes;
    call->attempts++;
}

static void unlink_call(struct psv_client *client, struct psv_call *call)
{
    struct psv_call **at = &client->links[call->shard].first;
    while (*at && *at != call)
        at = &(*at)->next;
    if (*at)
        *at = call->next;
    call->open = false;
    client->n_open_calls--;
}

void psv_ticket_retire(struct psv_client *client, struct psv_ticket *ticket)
{
    struct psv_ticket **at = &client->open;
    while (*at != ticket)
        at = &(*at)->next;
    *at = ticket->next;
    ticket->next = client->idle;
    client->idle = ticket;
}

void psv_ticket_end(struct psv_client *client, struct psv_ticket *ticket, int status)
{
    for (int c = 0; c < ticket->n_calls && ticket->n_open; c++)
        if (ticket->calls[c].open) {
            unlink_call(client, &ticket->calls[c]);
            ticket->n_open--;
        }
    ticket->status = status;
    ticket->done = true;
    pthread_cond_broadcast(&client->changed);
}

static void finish_call(struct psv_client *client, struct psv_call *call)
{
    struct psv_ticket *ticket = call->ticket;
    unlink_call(client, call);
    if (--ticket->n_open == 0)
        psv_ticket_end(client, ticket, 0);
}

/* ---- replies ---- */

/* n rows of a part into the places that the caller's keys have: from `first` on, or by order */
static void scatter(const struct psv_part *part, const uint32_t *order, struct range range,
                    size_t dim, int dtype, const unsigned char *from)
{
    float *rows = part->rows + range.first * dim;
    if (!order && dtype == CLU_WIRE_FP32) {
        memcpy(rows, from, range.n * dim * sizeof(float));
        return;
    }
    if (!order) {
        clu_wire_from_bf16(from, range.n * dim, rows);
        return;
    }
    for (size_t i = 0; i < range.n; i++) {
        float *row = part->rows + (size_t)order[range.first + i] * dim;
        if (dtype == CLU_WIRE_FP32)
            memcpy(row, from + i * dim * sizeof(float), dim * sizeof(float));
        else
            clu_wire_from_bf16(from + i * dim * 2, dim, row);
    }
}

static void scatter_call(const struct psv_client *client, const struct psv_call *call,
                         const unsigned char *from)
{
    const struct psv_ticket *ticket = call->ticket;
    const uint32_t *order = ticket->order;
    size_t at = 0;
    for (int p = 0; p < ticket->n_parts; p++) {
        const struct psv_part *part = &ticket->part[p];
        const uint32_t *offset = ticket->offset + (size_t)p * (size_t)(ticket->n_shards + 1);
        struct range range = part_range(call, p, &at);
        size_t dim = (size_t)client->tables[part->table].dim;
        if (range.n)
            scatter(part, ticket->ordered ? order + offset[call->shard] : NULL, range, dim,
                    ticket->dtype, from);
        from += range.n * dim * clu_wire_dtype_size(ticket->dtype);
        order += part->n;
    }
}

static void note_staleness(struct psv_client *client, uint64_t step, uint64_t applied)
{
    uint64_t missed = step > applied + 1 ? step - 1 - applied : 0;
    client->stats.staleness[missed < PSV_STALENESS_BINS ? missed : PSV_STALENESS_BINS - 1]++;
}

static int read_file(struct psv_client *client, struct psv_call *call, const void *data,
                     size_t bytes)
{
    struct clu_unpacker unpacker;
    struct psv_file *file = &call->ticket->files[call->shard];
    const char *name;
    size_t n, size;
    (void)client;
    clu_unpacker_init(&unpacker, data, bytes);
    if (clu_unpack_array(&unpacker, &n) || n != 1 || clu_unpack_array(&unpacker, &n) || n != 4 ||
        clu_unpack_text(&unpacker, &name, &size) || size >= sizeof(file->name) ||
        clu_unpack_uint(&unpacker, &file->size_bytes) ||
        clu_unpack_uint(&unpacker, &file->checksum) || clu_unpack_uint(&unpacker, &file->n_rows))
        return CLU_E_PROTOCOL;
    memcpy(file->name, name, size);
    file->name[size] = 0;
    return 0;
}

static int read_counter(struct psv_ticket *ticket, const void *data, size_t bytes)
{
    struct clu_unpacker unpacker;
    size_t n;
    clu_unpacker_init(&unpacker, data, bytes);
    if (clu_unpack_map(&unpacker, &n))
        return CLU_E_PROTOCOL;
    for (size_t i = 0; i < n; i++) {
        bool match;
        uint64_t value;
        if (clu_unpack_key_is(&unpacker, ticket->counter, &match) ||
            clu_unpack_uint(&unpacker, &value))
            return CLU_E_PROTOCOL;
        if (match)
            ticket->counter_sum += value;
    }
    return 0;
}

/* How many rows a shard has listed of each of its buckets that will leave. */
static int read_collected(struct psv_call *call, const void *data, size_t bytes)
{
    struct psv_ticket *ticket = call->ticket;
    struct clu_unpacker unpacker;
    size_t n, at = 0;
    const unsigned char *text = (const unsigned char *)ticket->text;
    clu_unpacker_init(&unpacker, data, bytes);
    if (clu_unpack_array(&unpacker, &n))
        return CLU_E_PROTOCOL;
    for (size_t i = 0; i < ticket->n_text / CLU_WIRE_MOVE_SIZE; i++) {
        const unsigned char *move = text + i * CLU_WIRE_MOVE_SIZE;
        if ((move[2] | move[3] << 8) != call->shard)
            continue;
        if (at++ == n || clu_unpack_uint(&unpacker, &ticket->collected[i]))
            return CLU_E_PROTOCOL;
    }
    return at == n ? 0 : CLU_E_PROTOCOL;
}

/* The good answer of a shard. CLU_E_PROTOCOL: it is not one; the call stays open. */
static int take_answer(struct psv_client *client, struct psv_call *call,
                       const struct clu_wire_reply *reply)
{
    struct psv_ticket *ticket = call->ticket;
    struct clu_frame *body = client->message.n_frames > 1 ? &client->message.frame[1] : NULL;
    size_t bytes = body ? clu_frame_size(body) : 0;
    const void *data = body ? clu_frame_data(body) : NULL;
    switch (ticket->op) {
    case CLU_WIRE_PULL:
        if (bytes != call->row_bytes || reply->dtype != ticket->dtype)
            return CLU_E_PROTOCOL;
        scatter_call(client, call, data);
        note_staleness(client, ticket->step, reply->step);
        return 0;
    case CLU_WIRE_HELLO:
        if (reply->step < client->least_applied)
            client->least_applied = reply->step;
        if (reply->step > client->most_applied)
            client->most_applied = reply->step;
        return 0;
    case CLU_WIRE_SNAPSHOT:
        return read_file(client, call, data, bytes);
    case CLU_WIRE_STATS:
        return read_counter(ticket, data, bytes);
    case CLU_WIRE_COLLECT:
        return read_collected(call, data, bytes);
    default:
        return 0;
    }
}

static struct psv_call *find_call(struct psv_link *link, int op, uint64_t seq)
{
    for (struct psv_call *call = link->first; call; call = call->next)
        if (call->ticket->op == op && call->seq == seq)
            return call;
    return NULL;
}

static void take_reply(struct psv_client *client, int i)
{
    struct clu_wire_reply reply;
    struct psv_link *link = &client->links[i];
    struct clu_frame *head = &client->message.frame[0];
    for (int f = 0; f < client->message.n_frames; f++)
        client->stats.bytes_received += clu_frame_size(&client->message.frame[f]);
    if (!client->message.n_frames ||
        clu_wire_decode_reply(clu_frame_data(head), clu_frame_size(head), &reply)) {
        client->stats.malformed++;
        return;
    }
    struct psv_call *call = find_call(link, reply.op, reply.seq);
    if (!call)
        return; /* a second answer, to a retry */
    /* no room there now; or damaged on the way, for the hello showed that we speak the same */
    bool damaged = reply.status == CLU_E_PROTOCOL && reply.op != CLU_WIRE_HELLO &&
                   ++call->ticket->n_damaged <= MAX_DAMAGED;
    if (reply.status == CLU_E_AGAIN || damaged) {
        int64_t wait_ms = (int64_t)5 << (call->attempts < 6 ? call->attempts : 6);
        call->retry_at_ms = psv_client_now_ms() + wait_ms;
        return;
    }
    if (reply.status == CLU_E_EXISTS) { /* it waits there: asked again rarely, should that end */
        call->retry_at_ms = psv_client_now_ms() + HELD_RETRIES * client->retry_ms;
        return;
    }
    int status = reply.status;
    if (!status && take_answer(client, call, &reply)) {
        client->stats.malformed++;
        return;
    }
    if (!status) {
        finish_call(client, call);
        return;
    }
    struct psv_ticket *ticket = call->ticket;
    snprintf(ticket->sentence, sizeof(ticket->sentence), "%s: %.*s", link->endpoint,
             (int)reply.n_text, reply.text);
    psv_ticket_end(client, ticket, status);
}

int psv_link_receive(struct psv_client *client, int i)
{
    int n = 0, status;
    struct clu_socket *socket = client->links[i].socket;
    if (!socket)
        return 0;
    while ((status = clu_socket_recv(socket, &client->message)) != CLU_E_AGAIN) { /* (I2) */
        if (status && status != CLU_E_PROTOCOL)
            break;
        n++;
        if (status)
            client->stats.malformed++;
        else
            take_reply(client, i);
    }
    clu_message_close(&client->message);
    return n;
}

/* ---- time ---- */

/* Which shards a ticket waited for in vain. */
static void say_who_is_silent(const struct psv_client *client, struct psv_ticket *ticket)
{
    int n = 0, last = -1;
    const char *first = "";
    for (int c = 0; c < ticket->n_calls; c++)
        if (ticket->calls[c].open && ticket->calls[c].shard != last) {
            last = ticket->calls[c].shard;
            if (n++ == 0)
                first = client->links[last].endpoint;
        }
    if (n > 1)
        snprintf(ticket->sentence, sizeof(ticket->sentence), "no answer from %s and %d more shards",
                 first, n - 1);
    else
        snprintf(ticket->sentence, sizeof(ticket->sentence), "no answer from %s", first);
}

/* A deadline passed: what is queued for the silent shards must not outlive the ticket. */
static void give_up(struct psv_client *client, struct psv_ticket *ticket, int64_t now_ms)
{
    say_who_is_silent(client, ticket);
    for (int c = 0, last = -1; c < ticket->n_calls; c++) {
        int s = ticket->calls[c].shard;
        if (!ticket->calls[c].open || s == last)
            continue;
        last = s;
        if (psv_link_open(client, s))
            clu_error("reconnecting to %s failed", client->links[s].endpoint);
        for (struct psv_call *call = client->links[s].first; call; call = call->next)
            call->retry_at_ms = now_ms;
    }
    psv_ticket_end(client, ticket, CLU_E_TIMEOUT);
}

/* True while a shard that a ticket waits for is being started: whoever runs the job has a deadline
 * for that. */
static bool is_patient(const struct psv_client *client, const struct psv_ticket *ticket)
{
    for (int c = 0; c < ticket->n_calls; c++)
        if (ticket->calls[c].open && !client->links[ticket->calls[c].shard].endpoint[0])
            return true;
    return false;
}

int psv_client_timers(struct psv_client *client, int64_t now_ms)
{
    int64_t next = now_ms + MAX_DRIVE_MS;
    for (struct psv_ticket *ticket = client->open, *after; ticket; ticket = after) {
        after = ticket->next;
        if (ticket->done && ticket->detached)
            psv_ticket_retire(client, ticket);
        if (ticket->done)
            continue;
        if (now_ms >= ticket->deadline_at_ms && is_patient(client, ticket))
            psv_ticket_start_clock(ticket, now_ms);
        if (now_ms >= ticket->deadline_at_ms) {
            give_up(client, ticket, now_ms);
            continue;
        }
        if (ticket->deadline_at_ms < next)
            next = ticket->deadline_at_ms;
        for (int c = 0; c < ticket->n_calls; c++) {
            struct psv_call *call = &ticket->calls[c];
            if (!call->open)
                continue;
            if (now_ms >= call->retry_at_ms) {
                psv_call_send(client, call, now_ms);
                psv_link_receive(client, call->shard); /* (I2) */
            }
            if (call->open && call->retry_at_ms < next)
                next = call->retry_at_ms;
        }
    }
    return next > now_ms ? (int)(next - now_ms) : 0;
}

void psv_client_drive(struct psv_client *client, int timeout_ms)
{
    int wait_ms = psv_client_timers(client, psv_client_now_ms());
    if (timeout_ms < wait_ms)
        wait_ms = timeout_ms;
    client->driving = true; /* (I1) */
    struct pollfd *driven = client->driven;
    const int n_shards = client->n_shards;
    memcpy(driven, client->polls, ((size_t)n_shards + 1) * sizeof(*driven));
    pthread_mutex_unlock(&client->lock);
    int n = poll(driven, (nfds_t)n_shards + 1, wait_ms);
    pthread_mutex_lock(&client->lock);
    client->driving = false;
    if (n > 0 && (driven[0].revents & POLLIN)) {
        uint64_t count;
        if (read(client->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
            clu_warn("waking: %s", strerror(errno));
    }
    for (int s = 0; n > 0 && s < n_shards; s++)
        if (driven[1 + s].revents)
            psv_link_receive(client, s);
    pthread_cond_broadcast(&client->changed);
}

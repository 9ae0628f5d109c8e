/* microhttpd with the few settings that all our servers share: one thread, few connections, none
 * that stays open unused. */
#include "sched/http.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct schd_http {
    struct MHD_Daemon *daemon;
    schd_http_answer_fn *answer;
    void *context;
    char url[320];
};

static enum MHD_Result send_text(struct MHD_Connection *connection,
                                 const struct schd_http_answer *answer)
{
    struct MHD_Response *response =
        answer->text ? MHD_create_response_from_buffer(strlen(answer->text), answer->text,
                                                       MHD_RESPMEM_MUST_FREE)
                     : NULL;
    if (!response) {
        free(answer->text);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", answer->type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    enum MHD_Result result = MHD_queue_response(connection, answer->code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **state)
{
    struct schd_http *http = context;
    (void)version;
    (void)upload;
    (void)upload_bytes;
    (void)state;
    struct schd_http_answer answer = {MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", NULL};
    if (strcmp(method, "GET") == 0)
        answer = http->answer(http->context, path);
    else
        answer.text = strdup("only GET\n");
    return send_text(connection, &answer);
}

/* An interface's first IPv4 address, as zmq's "tcp://eth0:*" would take. */
static bool find_interface(const char *name, struct in_addr *address_p)
{
    struct ifaddrs *list = NULL, *i;
    if (getifaddrs(&list))
        return false;
    for (i = list; i; i = i->ifa_next)
        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && strcmp(i->ifa_name, name) == 0)
            break;
    if (i)
        memcpy(address_p, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr,
               sizeof(*address_p));
    freeifaddrs(list);
    return i != NULL;
}

static bool find_address(const char *host, struct in_addr *address_p)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (inet_pton(AF_INET, host, address_p) == 1 || find_interface(host, address_p))
        return true;
    if (getaddrinfo(host, NULL, &hints, &found) || !found)
        return false;
    memcpy(address_p, &((struct sockaddr_in *)(void *)found->ai_addr)->sin_addr,
           sizeof(*address_p));
    freeaddrinfo(found);
    return true;
}

/* A socket bound to every address is reached by the host's name. */
static void name_url(struct schd_http *http, struct in_addr address, int port)
{
    char host[256] = "localhost";
    if (address.s_addr != htonl(INADDR_ANY))
        inet_ntop(AF_INET, &address, host, sizeof(host));
    else if (gethostname(host, sizeof(host) - 1))
        snprintf(host, sizeof(host), "localhost");
    snprintf(http->url, sizeof(http->url), "http://%s:%d/", host, port);
}

int schd_http_start(const char *host, int64_t port, schd_http_answer_fn *answer, void *context,
                    struct schd_http **http_p)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (port < 0 || port > UINT16_MAX || !find_address(host, &address.sin_addr))
        return clu_fail(CLU_E_UNAVAILABLE, "no page or metrics on %s:%lld: no such address", host,
                        (long long)port);
    struct schd_http *http = calloc(1, sizeof(*http));
    if (!http)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for an HTTP server");
    http->answer = answer;
    http->context = context;
    http->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO, (uint16_t)port, NULL, NULL, handle, http,
        MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_CONNECTION_TIMEOUT, 10u,
        MHD_OPTION_CONNECTION_LIMIT, 32u, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info) {
        schd_http_stop(http);
        return clu_fail(CLU_E_UNAVAILABLE, "no page or metrics on %s:%lld: is the port in use?",
                        host, (long long)port);
    }
    name_url(http, address.sin_addr, info->port);
    *http_p = http;
    return CLU_OK;
}

const char *schd_http_url(const struct schd_http *http)
{
    return http->url;
}

void schd_http_stop(struct schd_http *http)
{
    if (!http)
        return;
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    free(http);
}

/* The status page. One HTML text, two texts that change; all three are small and served from
 * memory. */
#include "sched/page.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct schd_page {
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    char *status_json, *metrics; /* the newest; owned */
};

static const char html[] =
    "<!doctype html><meta charset=utf-8><title>sluice</title><style>"
    "body{font:14px system-ui,sans-serif;margin:2em;max-width:70em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;border-bottom:1px "
    "solid "
    "#ddd}.dead,.error{color:#b00}.slow,.warn{color:#b60}progress{width:100%}</style>"
    "<h1>sluice <small id=phase></small></h1><progress id=bar max=1 value=0></progress>"
    "<p id=where></p><table id=figures></table><h2>Members</h2><table id=members></table>"
    "<h2>Events</h2><table id=events></table><script>"
    "const row=(t,cells,c)=>{const r=t.insertRow();if(c)r.className=c;"
    "for(const x of cells)r.insertCell().textContent=x};"
    "const num=x=>Number.isInteger(x)?x:+x.toPrecision(4);"
    "async function show(){try{const s=await(await fetch('status.json')).json();"
    "phase.textContent=s.phase;bar.max=s.n_steps||1;bar.value=s.step;"
    "where.textContent=`step ${s.step} of ${s.n_steps||'?'}, generation ${s.generation}, newest "
    "snapshot: step ${s.snapshot_step} ${s.text}`;"
    "for(const t of[figures,members,events])t.textContent='';"
    "for(const k in s.progress)row(figures,[k,num(s.progress[k])]);"
    "for(const k in s.evaluation)row(figures,[k,num(s.evaluation[k])]);"
    "for(const m of s.members)row(members,[m.role+' '+m.rank,m.state,m.silent_ms+' ms ago',m.pid,"
    "m.host,m.figures?Object.entries(m.figures).map(([k,v])=>k+' '+num(v)).join(', '):'',"
    "m.end?m.end.status+' '+m.end.text:''],m.state=='dead'?'dead':m.slow?'slow':'');"
    "for(const e of s.events.reverse())row(events,[new "
    "Date(e.time_ms).toLocaleTimeString(),e.text],e.level)"
    "}catch(e){phase.textContent='the scheduler does not answer'}setTimeout(show,1000)}show()"
    "</script>";

static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned code, const char *type,
                                 const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **state)
{
    struct schd_page *page = context;
    (void)version;
    (void)upload;
    (void)upload_bytes;
    (void)state;
    if (strcmp(method, "GET") != 0)
        return send_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
    if (strcmp(url, "/") == 0)
        return send_text(connection, MHD_HTTP_OK, "text/html; charset=utf-8", html);
    pthread_mutex_lock(&page->lock);
    enum MHD_Result result;
    if (strcmp(url, "/status.json") == 0)
        result = send_text(connection, MHD_HTTP_OK, "application/json",
                           page->status_json ? page->status_json : "{}");
    else if (strcmp(url, "/metrics") == 0)
        result = send_text(connection, MHD_HTTP_OK, "text/plain; version=0.0.4",
                           page->metrics ? page->metrics : "");
    else
        result = send_text(connection, MHD_HTTP_NOT_FOUND, "text/plain",
                           "try /, /status.json or /metrics\n");
    pthread_mutex_unlock(&page->lock);
    return result;
}

int schd_page_start(const char *host, int64_t port, struct schd_page **page_p, int *port_p)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct schd_page *page = calloc(1, sizeof(*page));
    if (!page)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the status page");
    pthread_mutex_init(&page->lock, NULL);
    page->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO, (uint16_t)port, NULL, NULL, handle, page,
        MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_CONNECTION_TIMEOUT, 10u,
        MHD_OPTION_CONNECTION_LIMIT, 32u, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        page->daemon ? MHD_get_daemon_info(page->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info) {
        schd_page_stop(page);
        return clu_fail(CLU_E_UNAVAILABLE, "no status page on %s:%lld: is the port in use?", host,
                        (long long)port);
    }
    *port_p = info->port;
    *page_p = page;
    return CLU_OK;
}

void schd_page_stop(struct schd_page *page)
{
    if (!page)
        return;
    if (page->daemon)
        MHD_stop_daemon(page->daemon);
    pthread_mutex_destroy(&page->lock);
    free(page->status_json);
    free(page->metrics);
    free(page);
}

void schd_page_update(struct schd_page *page, char *status_json, char *metrics)
{
    pthread_mutex_lock(&page->lock);
    if (status_json) {
        free(page->status_json);
        page->status_json = status_json;
    }
    if (metrics) {
        free(page->metrics);
        page->metrics = metrics;
    }
    pthread_mutex_unlock(&page->lock);
}

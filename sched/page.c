/* The status page. One HTML text, three texts that change; all are small and served from memory. */
#include "sched/page.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "sched/http.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct schd_page {
    struct schd_http *http;
    pthread_mutex_t lock;
    struct schd_page_texts texts; /* the newest; owned */
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

static const char prometheus[] = "text/plain; version=0.0.4";

static struct schd_http_answer answer(void *context, const char *path)
{
    struct schd_page *page = context;
    if (strcmp(path, "/") == 0)
        return (struct schd_http_answer){200, "text/html; charset=utf-8", strdup(html)};
    struct schd_http_answer result = {404, "text/plain", NULL};
    const char *text = "try /, /status.json, /metrics or /targets.json\n";
    pthread_mutex_lock(&page->lock);
    if (strcmp(path, "/status.json") == 0) {
        result = (struct schd_http_answer){200, "application/json", NULL};
        text = page->texts.status_json ? page->texts.status_json : "{}";
    } else if (strcmp(path, "/metrics") == 0) {
        result = (struct schd_http_answer){200, prometheus, NULL};
        text = page->texts.metrics ? page->texts.metrics : "";
    } else if (strcmp(path, "/targets.json") == 0) {
        result = (struct schd_http_answer){200, "application/json", NULL};
        text = page->texts.targets_json ? page->texts.targets_json : "[]";
    }
    result.text = strdup(text);
    pthread_mutex_unlock(&page->lock);
    return result;
}

int schd_page_start(const char *host, int64_t port, struct schd_page **page_p)
{
    struct schd_page *page = calloc(1, sizeof(*page));
    if (!page)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the status page");
    pthread_mutex_init(&page->lock, NULL);
    int status = schd_http_start(host, port, answer, page, &page->http);
    if (status) {
        schd_page_stop(page);
        return status;
    }
    *page_p = page;
    return CLU_OK;
}

const char *schd_page_url(const struct schd_page *page)
{
    return schd_http_url(page->http);
}

void schd_page_stop(struct schd_page *page)
{
    if (!page)
        return;
    schd_http_stop(page->http);
    pthread_mutex_destroy(&page->lock);
    free(page->texts.status_json);
    free(page->texts.metrics);
    free(page->texts.targets_json);
    free(page);
}

static void renew(char **text, char *taken)
{
    if (!taken)
        return;
    free(*text);
    *text = taken;
}

void schd_page_update(struct schd_page *page, struct schd_page_texts texts)
{
    pthread_mutex_lock(&page->lock);
    renew(&page->texts.status_json, texts.status_json);
    renew(&page->texts.metrics, texts.metrics);
    renew(&page->texts.targets_json, texts.targets_json);
    pthread_mutex_unlock(&page->lock);
}

/* The scheduler's page: what a job is doing, for a browser, a program, and Prometheus.
 *
 *     GET /              a page that refreshes itself every second
 *     GET /status.json   what `sluice status --json` prints
 *     GET /metrics       Prometheus text, version 0.0.4: the job, and what members report
 *     GET /targets.json  where every process serves its own, for Prometheus' http_sd_configs
 *
 * The scheduler hands in whole texts now and then; the HTTP thread only copies them out, so that no
 * request ever waits for the scheduler or delays it. Threads: update from one; the rest is
 * http.h's.
 */
#ifndef SCHED_PAGE_H
#define SCHED_PAGE_H

#include <stdint.h>

struct schd_page;

/* malloc'd texts. */
struct schd_page_texts {
    char *status_json, *metrics, *targets_json;
};

/* Starts serving on host:port as schd_http_start does. */
int schd_page_start(const char *host, int64_t port, struct schd_page **page_p);

/* "http://127.0.0.1:4242/". Valid until stop. */
const char *schd_page_url(const struct schd_page *page);

/* Stops serving and frees; NULL is fine. */
void schd_page_stop(struct schd_page *page);

/* Takes the texts; of one that is NULL the old one stays. */
void schd_page_update(struct schd_page *page, struct schd_page_texts texts);

#endif

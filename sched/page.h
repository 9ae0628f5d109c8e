/* The scheduler's page: what a job is doing, for a browser, a program, and Prometheus.
 *
 *     GET /              a page that refreshes itself every second
 *     GET /status.json   what `sluice status --json` prints
 *     GET /metrics       Prometheus text, version 0.0.4
 *
 * The scheduler hands in whole texts now and then; HTTP threads only copy them out, so that no
 * request ever waits for the scheduler or delays it. Without keys anybody who reaches the port may
 * look: it binds to loopback unless the job is `insecure`. Threads: update from one; the rest is
 * microhttpd's.
 */
#ifndef SCHED_PAGE_H
#define SCHED_PAGE_H

#include <stdint.h>

struct schd_page;

/* Starts serving on host:port; port 0: any free one. *port_p: which. UNAVAILABLE, logged, when it
 * cannot. */
int schd_page_start(const char *host, int64_t port, struct schd_page **page_p, int *port_p);

/* Stops serving and frees; NULL is fine. */
void schd_page_stop(struct schd_page *page);

/* Takes both texts (malloc'd; either may be NULL: the old one stays). */
void schd_page_update(struct schd_page *page, char *status_json, char *metrics);

#endif

/* A small HTTP server of texts, for what a process shows of itself: GET alone, every answer made at
 * once from memory. The scheduler's page (page.h) and every other role's metrics (outside.h) stand
 * on it.
 *
 * Whoever reaches the port may look: CURVE does not cover HTTP. So the address comes from
 * clu_job_metrics_host, which is loopback unless the job says otherwise.
 *
 * Threads: one of microhttpd's own, asleep until somebody asks; the answer is made in it.
 */
#ifndef SCHED_HTTP_H
#define SCHED_HTTP_H

#include <stdint.h>

struct schd_http;

/* What a path is answered with. type: static. text: malloc'd, freed when sent; NULL: no memory. */
struct schd_http_answer {
    unsigned code;
    const char *type;
    char *text;
};

/* Answers a path; called in the server's thread. */
typedef struct schd_http_answer schd_http_answer_fn(void *context, const char *path);

/* Starts serving on host (an address, a name or an interface) and port (0: any free one).
 * UNAVAILABLE, logged, when it cannot. */
int schd_http_start(const char *host, int64_t port, schd_http_answer_fn *answer, void *context,
                    struct schd_http **http_p);

/* "http://127.0.0.1:4242/", as others reach it. Valid until stop. */
const char *schd_http_url(const struct schd_http *http);

/* Stops serving and frees; NULL is fine. */
void schd_http_stop(struct schd_http *http);

#endif

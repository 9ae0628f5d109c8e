/* Two readers of one registry. Nothing here is on a path of the role's own work. */
#include "sched/outside.h"

#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/metrics.h"
#include "cluster/status.h"
#include "sched/http.h"
#include "sched/process.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct schd_outside {
    struct clu_metrics *metrics;
    struct schd_http *http; /* NULL: none */
    char labels[64];
    int signal_fd, stop_fd;
    pthread_t thread; /* of signals */
    bool running;
};

static void *take_signals(void *context)
{
    struct schd_outside *outside = context;
    struct pollfd items[] = {{.fd = outside->signal_fd, .events = POLLIN},
                             {.fd = outside->stop_fd, .events = POLLIN}};
    for (;;) {
        struct signalfd_siginfo info;
        if (poll(items, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (items[1].revents)
            return NULL;
        while (read(outside->signal_fd, &info, sizeof(info)) == sizeof(info))
            clu_metrics_log(outside->metrics);
    }
}

static int start(struct schd_outside *outside)
{
    static const int signals[] = {SIGUSR1, 0};
    outside->metrics = clu_metrics_create();
    if (!outside->metrics)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for metrics");
    int status = schd_signals_open(signals, &outside->signal_fd);
    if (status)
        return status;
    outside->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int error = outside->stop_fd < 0
                    ? errno
                    : pthread_create(&outside->thread, NULL, take_signals, outside);
    if (error)
        return clu_fail(clu_status_from_errno(error), "no thread for signals: %s", strerror(error));
    outside->running = true;
    return CLU_OK;
}

int schd_outside_open(struct schd_outside **outside_p)
{
    struct schd_outside *outside = calloc(1, sizeof(*outside));
    if (!outside)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for metrics");
    outside->signal_fd = outside->stop_fd = -1;
    int status = start(outside);
    if (status) {
        schd_outside_close(outside);
        return status;
    }
    *outside_p = outside;
    return CLU_OK;
}

struct clu_metrics *schd_outside_metrics(struct schd_outside *outside)
{
    return outside->metrics;
}

static char *render(const struct schd_outside *outside)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    schd_print_process(out, outside->labels);
    clu_metrics_print(outside->metrics, outside->labels, out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

static struct schd_http_answer answer(void *context, const char *path)
{
    if (strcmp(path, "/metrics") == 0)
        return (struct schd_http_answer){200, "text/plain; version=0.0.4", render(context)};
    return (struct schd_http_answer){404, "text/plain", strdup("try /metrics\n")};
}

const char *schd_outside_serve(struct schd_outside *outside, const struct clu_job *job,
                               enum clu_role role, int rank)
{
    int64_t port = job->metrics_port;
    snprintf(outside->labels, sizeof(outside->labels), "role=\"%s\",rank=\"%d\"",
             clu_role_name(role), rank);
    if (port < 0)
        return "";
    if (port > 0)
        port += rank + (role == CLU_ROLE_PS ? job->workers : 0);
    if (schd_http_start(clu_job_metrics_host(job), port, answer, outside, &outside->http))
        return "";
    clu_info("metrics: %smetrics", schd_http_url(outside->http));
    return schd_http_url(outside->http);
}

void schd_outside_close(struct schd_outside *outside)
{
    uint64_t one = 1;
    if (!outside)
        return;
    schd_http_stop(outside->http);
    if (outside->running && write(outside->stop_fd, &one, sizeof(one)) == sizeof(one))
        pthread_join(outside->thread, NULL);
    if (outside->signal_fd >= 0)
        close(outside->signal_fd);
    if (outside->stop_fd >= 0)
        close(outside->stop_fd);
    clu_metrics_free(outside->metrics);
    free(outside);
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

void schd_print_process(FILE *out, const char *labels)
{
    unsigned long long size, resident = 0;
    struct rusage usage;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm && fscanf(statm, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    if (statm)
        fclose(statm);
    fprintf(out,
            "# HELP sluice_process_resident_bytes memory of the process\n"
            "# TYPE sluice_process_resident_bytes gauge\n"
            "sluice_process_resident_bytes{%s} %.0f\n",
            labels, (double)resident * (double)sysconf(_SC_PAGESIZE));
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        fprintf(out,
                "# HELP sluice_process_cpu_seconds_total processor time of the process\n"
                "# TYPE sluice_process_cpu_seconds_total counter\n"
                "sluice_process_cpu_seconds_total{%s} %.6f\n",
                labels, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
}

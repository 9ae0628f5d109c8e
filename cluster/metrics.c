/* Metrics. A registry is a list that only grows, so a writer holds a plain pointer and never takes
 * a lock; values are doubles in 64-bit atomics, added to by compare and swap. Readers see each
 * number whole, and a set of numbers approximately of one moment, which is what a gauge on a page
 * is. Metrics of one name stand together in the list, as Prometheus wants them in its text.
 *
 * Histogram bounds are powers of two: 41 of them reach from a microsecond to 12 days, or from one
 * row to a thousand billion, with an error of at most a factor of two in a quantile, and need no
 * setting.
 */
#include "cluster/metrics.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { N_BOUNDS = 41 };

static const double first_bound = 1e-6;

struct clu_metric {
    enum clu_metric_kind kind;
    char name[CLU_FIGURE_NAME_BYTES], labels[128];
    const char *help;
    _Atomic uint64_t bits; /* the double */
    _Atomic uint64_t n;    /* histogram: observations */
    _Atomic uint64_t
        bucket[N_BOUNDS + 1]; /* histogram: not cumulative; the last is above all bounds */
    struct clu_metric *_Atomic next;
};

struct clu_metrics {
    pthread_mutex_t lock; /* of the list's growth */
    struct clu_metric *_Atomic first;
};

void clu_figures_put(struct clu_figures *figures, const char *name, double value)
{
    for (int i = 0; i < figures->n; i++)
        if (strcmp(figures->figure[i].name, name) == 0) {
            figures->figure[i].value = value;
            return;
        }
    size_t size = strlen(name);
    if (figures->n == CLU_MAX_FIGURES || size >= CLU_FIGURE_NAME_BYTES) {
        clu_warn("figure %s is dropped: a report holds %d figures, names up to %d bytes", name,
                 CLU_MAX_FIGURES, CLU_FIGURE_NAME_BYTES - 1);
        return;
    }
    memcpy(figures->figure[figures->n].name, name, size + 1);
    figures->figure[figures->n++].value = value;
}

double clu_figures_get(const struct clu_figures *figures, const char *name, double fallback)
{
    for (int i = 0; i < figures->n; i++)
        if (strcmp(figures->figure[i].name, name) == 0)
            return figures->figure[i].value;
    return fallback;
}

void clu_figures_pack(const struct clu_figures *figures, struct clu_packer *packer)
{
    clu_pack_map(packer, (size_t)figures->n);
    for (int i = 0; i < figures->n; i++) {
        clu_pack_text(packer, figures->figure[i].name);
        clu_pack_real(packer, figures->figure[i].value);
    }
}

int clu_figures_unpack(struct clu_unpacker *unpacker, struct clu_figures *figures_p)
{
    size_t n;
    int status = clu_unpack_map(unpacker, &n);
    if (!status && n > CLU_MAX_FIGURES)
        status = CLU_E_PROTOCOL;
    if (status)
        return status;
    figures_p->n = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name;
        size_t size;
        struct clu_figure *figure = &figures_p->figure[i];
        status = clu_unpack_text(unpacker, &name, &size);
        if (!status && (size >= CLU_FIGURE_NAME_BYTES || memchr(name, '\0', size)))
            status = CLU_E_PROTOCOL;
        if (!status)
            status = clu_unpack_real(unpacker, &figure->value);
        if (status)
            return status;
        memcpy(figure->name, name, size);
        figure->name[size] = '\0';
        figures_p->n++;
    }
    return CLU_OK;
}

void clu_figures_print_json(const struct clu_figures *figures, FILE *stream)
{
    for (int i = 0; i < figures->n; i++) {
        fputs(i ? ",\"" : "\"", stream);
        for (const char *c = figures->figure[i].name; *c; c++)
            fputc(*c == '"' || *c == '\\' || (unsigned char)*c < 0x20 ? '_' : *c, stream);
        if (isfinite(figures->figure[i].value))
            fprintf(stream, "\":%.10g", figures->figure[i].value);
        else
            fputs("\":null", stream);
    }
}

struct clu_metrics *clu_metrics_create(void)
{
    struct clu_metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics)
        pthread_mutex_init(&metrics->lock, NULL);
    return metrics;
}

void clu_metrics_free(struct clu_metrics *metrics)
{
    if (!metrics)
        return;
    for (struct clu_metric *metric = metrics->first, *next; metric; metric = next) {
        next = metric->next;
        free(metric);
    }
    pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

struct clu_metric *clu_metrics_add(struct clu_metrics *metrics, enum clu_metric_kind kind,
                                   const char *name, const char *labels, const char *help)
{
    if (!metrics)
        return NULL;
    pthread_mutex_lock(&metrics->lock);
    struct clu_metric *metric = NULL;
    struct clu_metric *_Atomic *place = &metrics->first; /* behind the last of this name, or all */
    bool of_name = false;
    for (struct clu_metric *m = metrics->first; m && !metric; m = m->next) {
        bool same = strcmp(m->name, name) == 0;
        if (same && strcmp(m->labels, labels) == 0)
            metric = m;
        if (same || !of_name)
            place = &m->next;
        of_name = of_name || same;
    }
    if (!metric && strlen(name) < sizeof(metric->name) && strlen(labels) < sizeof(metric->labels))
        metric = calloc(1, sizeof(*metric));
    if (metric && !metric->help) {
        metric->kind = kind;
        metric->help = help;
        strcpy(metric->name, name);
        strcpy(metric->labels, labels);
        metric->next = *place;
        *place = metric; /* whole, for those who read meanwhile */
    }
    pthread_mutex_unlock(&metrics->lock);
    return metric;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

void clu_metric_add(struct clu_metric *metric, double value)
{
    if (!metric)
        return;
    uint64_t old = atomic_load_explicit(&metric->bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&metric->bits, &old,
                                                  bits_of(double_of(old) + value),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void clu_metric_set(struct clu_metric *metric, double value)
{
    if (metric)
        atomic_store_explicit(&metric->bits, bits_of(value), memory_order_relaxed);
}

void clu_metric_observe(struct clu_metric *metric, double value)
{
    if (!metric)
        return;
    int i = 0;
    for (double bound = first_bound; i < N_BOUNDS && value > bound; bound *= 2)
        i++;
    atomic_fetch_add_explicit(&metric->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&metric->n, 1, memory_order_relaxed);
    clu_metric_add(metric, value);
}

double clu_metric_value(const struct clu_metric *metric)
{
    return metric ? double_of(atomic_load_explicit(&metric->bits, memory_order_relaxed)) : 0;
}

static void print_sample(const struct clu_metric *metric, const char *suffix, const char *labels,
                         const char *extra, double value, FILE *stream)
{
    const char *parts[] = {labels, metric->labels, extra};
    fprintf(stream, "sluice_%s%s", metric->name, suffix);
    bool open = false;
    for (size_t i = 0; i < 3; i++)
        if (parts[i][0]) {
            fprintf(stream, "%s%s", open ? "," : "{", parts[i]);
            open = true;
        }
    fprintf(stream, "%s %.15g\n", open ? "}" : "", value);
}

static void print_histogram(const struct clu_metric *metric, const char *labels, FILE *stream)
{
    char le[48];
    double bound = first_bound;
    uint64_t sum = 0;
    for (int i = 0; i < N_BOUNDS; i++, bound *= 2) {
        sum += metric->bucket[i];
        snprintf(le, sizeof(le), "le=\"%.9g\"", bound);
        print_sample(metric, "_bucket", labels, le, (double)sum, stream);
    }
    sum += metric->bucket[N_BOUNDS];
    print_sample(metric, "_bucket", labels, "le=\"+Inf\"", (double)sum, stream);
    print_sample(metric, "_sum", labels, "", clu_metric_value(metric), stream);
    print_sample(metric, "_count", labels, "", (double)sum, stream);
}

void clu_metrics_print(const struct clu_metrics *metrics, const char *labels, FILE *stream)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const struct clu_metric *before = NULL;
    for (const struct clu_metric *m = metrics->first; m; before = m, m = m->next) {
        if (!before || strcmp(before->name, m->name) != 0)
            fprintf(stream, "# HELP sluice_%s %s\n# TYPE sluice_%s %s\n", m->name, m->help, m->name,
                    kinds[m->kind]);
        if (m->kind == CLU_METRIC_HISTOGRAM)
            print_histogram(m, labels, stream);
        else
            print_sample(m, "", labels, "", clu_metric_value(m), stream);
    }
}

/* The upper bound of the bucket in which the quantile lies. */
static double quantile(const struct clu_metric *metric, double q)
{
    uint64_t n = metric->n, sum = 0;
    double bound = first_bound;
    for (int i = 0; i < N_BOUNDS; i++, bound *= 2) {
        sum += metric->bucket[i];
        if (sum > 0 && (double)sum >= q * (double)n)
            return bound;
    }
    return n ? bound : 0;
}

/* "step 120", or "pull_wait_seconds 120 times, mean 0.0012, 99 % below 0.0041"; nothing of 0. */
static void print_words(const struct clu_metric *metric, bool *begun, FILE *stream)
{
    double value = clu_metric_value(metric);
    bool is_histogram = metric->kind == CLU_METRIC_HISTOGRAM;
    if (is_histogram ? metric->n == 0 : value == 0)
        return;
    fprintf(stream, "%s%s ", *begun ? "; " : "", metric->name);
    *begun = true;
    if (is_histogram)
        fprintf(stream, "%.15g times, mean %.3g, 99 %% below %.3g", (double)metric->n,
                value / (double)metric->n, quantile(metric, 0.99));
    else
        fprintf(stream, value == trunc(value) ? "%.0f" : "%.6g", value);
}

static bool is_first_of_labels(const struct clu_metrics *metrics, const struct clu_metric *metric)
{
    const struct clu_metric *m = metrics->first;
    while (m != metric && strcmp(m->labels, metric->labels) != 0)
        m = m->next;
    return m == metric;
}

void clu_metrics_log(const struct clu_metrics *metrics)
{
    for (const struct clu_metric *first = metrics->first; first; first = first->next) {
        char *text = NULL;
        size_t size;
        bool begun = false;
        FILE *stream = is_first_of_labels(metrics, first) ? open_memstream(&text, &size) : NULL;
        if (!stream)
            continue;
        for (const struct clu_metric *m = first; m; m = m->next)
            if (strcmp(m->labels, first->labels) == 0)
                print_words(m, &begun, stream);
        if (fclose(stream) == 0 && begun)
            clu_info("state%s%s: %s", first->labels[0] ? " of " : "", first->labels, text);
        free(text);
    }
}

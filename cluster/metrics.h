/* Metrics: named numbers that a process counts, shows and sends.
 *
 * Two kinds of object. A clu_figures is a small plain set of (name, number) that rides in a
 * progress report: what a worker says of an interval, one line of metrics.jsonl. A clu_metrics is a
 * process's registry of counters, gauges and histograms, written to by any thread without a lock
 * and rendered as Prometheus text or as lines of the log, by any thread too.
 *
 * Names: lower_case, base unit last (seconds, bytes, rows); counters end in _total. The registry
 * puts sluice_ in front when it renders.
 */
#ifndef CLUSTER_METRICS_H
#define CLUSTER_METRICS_H

#include "cluster/pack.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CLU_MAX_FIGURES = 128, CLU_FIGURE_NAME_BYTES = 64 };

struct clu_figure {
    char name[CLU_FIGURE_NAME_BYTES];
    double value;
};

struct clu_figures {
    int n;
    struct clu_figure figure[CLU_MAX_FIGURES];
};

/* Sets a figure, replacing one of the same name. More than CLU_MAX_FIGURES, or a longer name, is
 * dropped with a warning. Thread: one object, one thread. */
void clu_figures_put(struct clu_figures *figures, const char *name, double value);

/* A figure's value, or fallback. */
double clu_figures_get(const struct clu_figures *figures, const char *name, double fallback);

/* As a msgpack map; and back: PROTOCOL for a malformed one or too many. */
void clu_figures_pack(const struct clu_figures *figures, struct clu_packer *packer);
int clu_figures_unpack(struct clu_unpacker *unpacker, struct clu_figures *figures_p);

/* Appends `"name":value` pairs with commas between (no braces) to a stream; not-a-number as null.
 */
void clu_figures_print_json(const struct clu_figures *figures, FILE *stream);

struct clu_metrics;
struct clu_metric;

enum clu_metric_kind { CLU_METRIC_COUNTER, CLU_METRIC_GAUGE, CLU_METRIC_HISTOGRAM };

/* Creates an empty registry; free(NULL) is fine. NULL when out of memory. */
struct clu_metrics *clu_metrics_create(void);
void clu_metrics_free(struct clu_metrics *metrics);

/* Registers a metric, or returns the one of this name and labels. help: static text. labels: "" or
 * Prometheus text such as `op="pull"`, copied. A histogram's bounds are powers of two from 1e-6 up
 * (seconds, or any unit). Returned object lives as long as the registry; NULL when out of memory,
 * which the calls below take and ignore. Thread: any (locked). */
struct clu_metric *clu_metrics_add(struct clu_metrics *metrics, enum clu_metric_kind kind,
                                   const char *name, const char *labels, const char *help);

/* Counter: adds. Gauge: sets. Histogram: adds one observation. Thread: any, no lock. */
void clu_metric_add(struct clu_metric *metric, double value);
void clu_metric_set(struct clu_metric *metric, double value);
void clu_metric_observe(struct clu_metric *metric, double value);

/* The value of a counter or gauge, the sum of a histogram. */
double clu_metric_value(const struct clu_metric *metric);

/* Every metric as Prometheus text (version 0.0.4). labels is put into every line ("" or
 * `role="ps"`). Thread: any. */
void clu_metrics_print(const struct clu_metrics *metrics, const char *labels, FILE *stream);

/* Everything that is not 0 to the log, a line for each set of labels: what a dump of state shows.
 * Thread: any. */
void clu_metrics_log(const struct clu_metrics *metrics);

#endif

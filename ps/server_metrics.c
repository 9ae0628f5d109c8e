/* One table names every figure of a shard: where it lies, and as what it is shown. */
#include "ps/server_metrics.h"

#include "cluster/metrics.h"
#include "embeddings/shard.h"
#include "ps/shard.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* A figure of 64 bits in one of the two structs. */
struct figure {
    const char *name, *op, *help; /* op: label, or NULL */
    enum clu_metric_kind kind;
    bool of_rows; /* in emb_shard_stats, else in psv_shard_stats */
    size_t offset;
    double unit; /* what 1 of it is */
};

#define SHARD(kind, name, field, help)                                                             \
    {                                                                                              \
        name, NULL, help, kind, false, offsetof(struct psv_shard_stats, field), 1                  \
    }
#define ROWS(kind, name, field, help)                                                              \
    {                                                                                              \
        name, NULL, help, kind, true, offsetof(struct emb_shard_stats, field), 1                   \
    }
#define REQUESTS(op, name)                                                                         \
    {                                                                                              \
        "requests_total", name, "requests that came", CLU_METRIC_COUNTER, false,                   \
            offsetof(struct psv_shard_stats, requests) + (op) * sizeof(uint64_t), 1                \
    }

static const struct figure figures[] = {
    SHARD(CLU_METRIC_GAUGE, "step", applied, "step up to which all pushes are applied"),
    ROWS(CLU_METRIC_GAUGE, "rows", n_rows, "rows stored"),
    ROWS(CLU_METRIC_GAUGE, "resident_rows", n_resident, "rows in memory"),
    ROWS(CLU_METRIC_GAUGE, "dirty_rows", n_dirty, "rows in memory that are newer than on disk"),
    ROWS(CLU_METRIC_GAUGE, "memory_bytes", memory_bytes, "memory for rows"),
    ROWS(CLU_METRIC_GAUGE, "file_bytes", file_bytes, "size of the store's file"),
    ROWS(CLU_METRIC_GAUGE, "log_bytes", log_bytes, "size of the push log"),
    ROWS(CLU_METRIC_COUNTER, "written_bytes_total", written_bytes, "written to store and log"),
    REQUESTS(CLU_WIRE_PULL, "op=\"pull\""),
    REQUESTS(CLU_WIRE_PUSH, "op=\"push\""),
    SHARD(CLU_METRIC_COUNTER, "pulled_rows_total", rows_pulled, "rows sent to workers"),
    SHARD(CLU_METRIC_COUNTER, "pushed_rows_total", rows_pushed, "rows of gradients received"),
    SHARD(CLU_METRIC_COUNTER, "moved_in_rows_total", rows_moved_in, "rows taken with buckets"),
    SHARD(CLU_METRIC_COUNTER, "moved_out_rows_total", rows_moved_out, "rows given with buckets"),
    SHARD(CLU_METRIC_COUNTER, "malformed_messages_total", malformed, "messages dropped"),
    SHARD(CLU_METRIC_COUNTER, "refused_requests_total", refused, "requests for which no room was"),
    SHARD(CLU_METRIC_COUNTER, "duplicate_pushes_total", duplicates,
          "pushes that were here already"),
    SHARD(CLU_METRIC_COUNTER, "expired_requests_total", expired,
          "requests held past their deadline"),
    SHARD(CLU_METRIC_COUNTER, "unsent_replies_total", unsent, "replies whose reader was gone"),
    SHARD(CLU_METRIC_GAUGE, "held_requests", held, "requests that wait for a step"),
    SHARD(CLU_METRIC_GAUGE, "buffered_bytes", buffered_bytes, "gradients that wait for their step"),
    {"stalled_seconds", NULL, "for how long storing has failed by now", CLU_METRIC_GAUGE, false,
     offsetof(struct psv_shard_stats, stalled_ms), 1e-3},
};

enum { N_FIGURES = sizeof(figures) / sizeof(figures[0]) };

struct psv_shard_metrics {
    struct clu_metric *figure[N_FIGURES], *message_seconds;
};

struct psv_shard_metrics *psv_shard_metrics_create(struct clu_metrics *metrics, int shard)
{
    struct psv_shard_metrics *m = calloc(1, sizeof(*m));
    char label[32], labels[64];
    if (!m)
        return NULL;
    snprintf(label, sizeof(label), "shard=\"%d\"", shard);
    for (int i = 0; i < N_FIGURES; i++) {
        const struct figure *f = &figures[i];
        snprintf(labels, sizeof(labels), "%s%s%s", label, f->op ? "," : "", f->op ? f->op : "");
        m->figure[i] = clu_metrics_add(metrics, f->kind, f->name, labels, f->help);
    }
    m->message_seconds = clu_metrics_add(metrics, CLU_METRIC_HISTOGRAM, "message_seconds", label,
                                         "work of a shard's thread on one message");
    return m;
}

void psv_shard_metrics_free(struct psv_shard_metrics *metrics)
{
    free(metrics);
}

void psv_shard_metrics_put(struct psv_shard_metrics *metrics, const struct psv_shard_stats *stats,
                           const struct emb_shard_stats *rows)
{
    for (int i = 0; metrics && i < N_FIGURES; i++) {
        uint64_t value;
        const char *from = figures[i].of_rows ? (const char *)rows : (const char *)stats;
        memcpy(&value, from + figures[i].offset, sizeof(value));
        clu_metric_set(metrics->figure[i], (double)value * figures[i].unit);
    }
}

void psv_shard_metrics_observe(struct psv_shard_metrics *metrics, double seconds)
{
    if (metrics)
        clu_metric_observe(metrics->message_seconds, seconds);
}

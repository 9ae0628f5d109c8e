/* The metrics of one shard thread: what is registered, and how the thread keeps it up to date.
 *
 * The thread copies its figures there twice a second and adds an observation a message; whoever
 * scrapes reads atomics and never meets the thread. Thread: create and free any, put and observe
 * the shard's.
 */
#ifndef PS_SERVER_METRICS_H
#define PS_SERVER_METRICS_H

struct clu_metrics;
struct emb_shard_stats;
struct psv_shard_stats;
struct psv_shard_metrics;

/* Registers the metrics of the shard with this number within its server. metrics: outlives the
 * object; NULL: nothing is registered, and the calls below do nothing. NULL when out of memory. */
struct psv_shard_metrics *psv_shard_metrics_create(struct clu_metrics *metrics, int shard);
void psv_shard_metrics_free(struct psv_shard_metrics *metrics);

/* Takes over the figures of this moment. */
void psv_shard_metrics_put(struct psv_shard_metrics *metrics, const struct psv_shard_stats *stats,
                           const struct emb_shard_stats *rows);

/* A message took this long from its arrival in the thread to the end of the work on it. */
void psv_shard_metrics_observe(struct psv_shard_metrics *metrics, double seconds);

#endif

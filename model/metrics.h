/* How good predictions are, per action: AUC, GAUC, log loss, calibration, MAE of times; merged over
 * ranks.
 *
 *     add ... add --> struct mdl_metrics --encode--> bytes --(any transport)--> merge --> figures
 *
 * AUC counts ties as half and is exact up to exact_limit scores an action (50 M by default, 13
 * bytes each); beyond it the scores are kept as a histogram of 2^20 bins over [0, 1] in the square
 * root of the score, and auc_error is the most that AUC can be off. GAUC is the mean of the users'
 * AUCs weighted by their samples, over users that have both classes; beyond the limit it is NAN.
 * Figures do not
 * depend on the order of merges but for the rounding of sums. Threads: owner.
 */
#ifndef MODEL_METRICS_H
#define MODEL_METRICS_H

#include <stddef.h>
#include <stdint.h>

enum { MDL_METRICS_EXACT_LIMIT = 50000000 };

struct mdl_metrics;

struct mdl_figures {
    uint64_t n, n_positive; /* scores added; those whose label is 1 */
    double auc;             /* NAN without both classes */
    double auc_error;       /* 0 while exact */
    double gauc;            /* NAN when no user has both classes */
    uint64_t gauc_users;    /* users that count in gauc */
    double log_loss;    /* mean, natural logarithm, p clamped to [1e-7, 1 - 1e-7]; NAN when n = 0 */
    double calibration; /* sum of predicted p / number of positives; NAN without positives */
    double mae;         /* of the times added; NAN without any */
    uint64_t n_times;
};

/* AUC of n scores with labels 0 or 1, ties counted as half. NAN without both classes;
 * CLU_E_NO_MEMORY. */
int mdl_auc(const float *scores, const uint8_t *labels, size_t n, double *auc_p);

/* GAUC: users [n] names the user of each score. Also how many users count. */
int mdl_gauc(const uint64_t *users, const float *scores, const uint8_t *labels, size_t n,
             double *gauc_p, uint64_t *n_users_p);

/* Metrics for actions 0..n_actions (action a of the data set at index a). exact_limit 0 = the
 * default. */
int mdl_metrics_create(int n_actions, uint64_t exact_limit, struct mdl_metrics **metrics_p);

void mdl_metrics_free(struct mdl_metrics *metrics);

/* One prediction: p in [0, 1] for the action of a sample of that user (a key), and whether it
 * occurred. */
int mdl_metrics_add(struct mdl_metrics *metrics, int action, uint64_t user, float p, int label);

/* One predicted time beside the true one; call where the action truly occurred. */
void mdl_metrics_add_time(struct mdl_metrics *metrics, int action, float predicted, float truth);

/* The state as bytes (little-endian), malloc'd, freed by the caller with free(). */
int mdl_metrics_encode(const struct mdl_metrics *metrics, void **bytes_p, size_t *size_bytes_p);

/* Adds an encoded state to metrics. Malformed bytes: CLU_E_PROTOCOL (logged), metrics untouched. */
int mdl_metrics_merge(struct mdl_metrics *metrics, const void *bytes, size_t size_bytes);

/* The figures of one action. CLU_E_NO_MEMORY. */
int mdl_metrics_figures(const struct mdl_metrics *metrics, int action,
                        struct mdl_figures *figures_p);

#endif

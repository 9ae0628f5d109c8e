/* Metrics that are added to one prediction at a time and merged over ranks.
 *
 * While they are few, predictions are kept as they are, so AUC and GAUC are exact. At the limit an
 * action's predictions turn into two histograms (positives, negatives); the pairs that share a bin
 * are then counted as ties, so AUC is off by at most half of them, and that bound is reported. Bins
 * are even in the square root of p: rare actions have small p, and there the bins are fine.
 *
 * Encoded, little-endian: "MDLM", u32 version 1, u32 actions, then for each action: u8 exact, 7
 * zero bytes, u64 n, n_positive, n_times, f64 loss, p, error; exact: n users u64, n scores f32, n
 * labels u8; else 2 x 2^20 u64.
 */
#include "model/metrics.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 1 << 20, HEADER_BYTES = 12, ACTION_BYTES = 8 + 3 * 8 + 3 * 8, VERSION = 1 };

struct action {
    uint64_t n, n_positive, n_times;
    double loss_sum, p_sum, error_sum;
    size_t capacity;
    uint64_t *users; /* [capacity]; NULL once counted in bins */
    float *scores;
    uint8_t *labels;
    uint64_t *bins; /* [2, BINS] negatives, positives; NULL while exact */
};

struct mdl_metrics {
    int n_actions;
    uint64_t exact_limit;
    struct action *actions; /* [n_actions + 1] */
};

int mdl_metrics_create(int n_actions, uint64_t exact_limit, struct mdl_metrics **metrics_p)
{
    struct mdl_metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics)
        metrics->actions = calloc((size_t)n_actions + 1, sizeof(*metrics->actions));
    if (!metrics || !metrics->actions) {
        free(metrics);
        return clu_fail(CLU_E_NO_MEMORY, "metrics: no memory for %d actions", n_actions);
    }
    metrics->n_actions = n_actions;
    metrics->exact_limit = exact_limit ? exact_limit : MDL_METRICS_EXACT_LIMIT;
    *metrics_p = metrics;
    return CLU_OK;
}

static void free_exact(struct action *a)
{
    free(a->users);
    free(a->scores);
    free(a->labels);
    a->users = NULL;
    a->scores = NULL;
    a->labels = NULL;
    a->capacity = 0;
}

void mdl_metrics_free(struct mdl_metrics *metrics)
{
    if (!metrics)
        return;
    for (int i = 0; i <= metrics->n_actions; i++) {
        free_exact(&metrics->actions[i]);
        free(metrics->actions[i].bins);
    }
    free(metrics->actions);
    free(metrics);
}

static size_t bin_of(float p)
{
    double place = sqrt(p > 0 ? (double)p : 0) * BINS;
    return place < BINS - 1 ? (size_t)place : BINS - 1;
}

static int to_bins(struct action *a)
{
    if (a->bins)
        return CLU_OK;
    a->bins = calloc(2 * (size_t)BINS, sizeof(*a->bins));
    if (!a->bins)
        return clu_fail(CLU_E_NO_MEMORY, "metrics: no memory for histograms");
    for (uint64_t i = 0; i < a->n; i++)
        a->bins[(a->labels[i] ? BINS : 0) + bin_of(a->scores[i])]++;
    free_exact(a);
    return CLU_OK;
}

/* room for n exact predictions */
static int reserve(struct action *a, uint64_t n)
{
    if (n <= a->capacity)
        return CLU_OK;
    size_t capacity = a->capacity ? 2 * a->capacity : 1024;
    if (capacity < n)
        capacity = (size_t)n;
    uint64_t *users = realloc(a->users, capacity * sizeof(*users));
    if (users)
        a->users = users;
    float *scores = realloc(a->scores, capacity * sizeof(*scores));
    if (scores)
        a->scores = scores;
    uint8_t *labels = realloc(a->labels, capacity);
    if (labels)
        a->labels = labels;
    if (!users || !scores || !labels)
        return clu_fail(CLU_E_NO_MEMORY, "metrics: no memory for %zu predictions", capacity);
    a->capacity = capacity;
    return CLU_OK;
}

int mdl_metrics_add(struct mdl_metrics *metrics, int action, uint64_t user, float p, int label)
{
    struct action *a = &metrics->actions[action];
    int status = a->n < metrics->exact_limit && !a->bins ? reserve(a, a->n + 1) : to_bins(a);
    if (status != CLU_OK)
        return status;
    if (a->bins) {
        a->bins[(label ? BINS : 0) + bin_of(p)]++;
    } else {
        a->users[a->n] = user;
        a->scores[a->n] = p;
        a->labels[a->n] = label != 0;
    }
    double safe = p < 1e-7f ? 1e-7 : (double)p > 1 - 1e-7 ? 1 - 1e-7 : (double)p;
    a->loss_sum -= label ? log(safe) : log1p(-safe);
    a->p_sum += (double)p;
    a->n_positive += label != 0;
    a->n++;
    return CLU_OK;
}

void mdl_metrics_add_time(struct mdl_metrics *metrics, int action, float predicted, float truth)
{
    struct action *a = &metrics->actions[action];
    a->error_sum += fabs((double)predicted - (double)truth);
    a->n_times++;
}

static size_t put(char *at, const void *data, size_t size_bytes)
{
    if (size_bytes)
        memcpy(at, data, size_bytes);
    return size_bytes;
}

int mdl_metrics_encode(const struct mdl_metrics *metrics, void **bytes_p, size_t *size_bytes_p)
{
    size_t size = HEADER_BYTES;
    for (int i = 0; i <= metrics->n_actions; i++) {
        const struct action *a = &metrics->actions[i];
        size += ACTION_BYTES + (a->bins ? 2 * (size_t)BINS * 8 : (size_t)a->n * 13);
    }
    char *bytes = malloc(size), *at = bytes;
    if (!bytes)
        return clu_fail(CLU_E_NO_MEMORY, "metrics: no memory for %zu bytes", size);
    uint32_t head[2] = {VERSION, (uint32_t)metrics->n_actions};
    at += put(at, "MDLM", 4);
    at += put(at, head, sizeof(head));
    for (int i = 0; i <= metrics->n_actions; i++) {
        const struct action *a = &metrics->actions[i];
        uint64_t counts[4] = {!a->bins, a->n, a->n_positive, a->n_times};
        double sums[3] = {a->loss_sum, a->p_sum, a->error_sum};
        at += put(at, counts, sizeof(counts));
        at += put(at, sums, sizeof(sums));
        if (a->bins) {
            at += put(at, a->bins, 2 * (size_t)BINS * 8);
            continue;
        }
        at += put(at, a->users, a->n * sizeof(*a->users));
        at += put(at, a->scores, a->n * sizeof(*a->scores));
        at += put(at, a->labels, a->n);
    }
    *bytes_p = bytes;
    *size_bytes_p = size;
    return CLU_OK;
}

/* one action's bytes, taken apart; the pointers are views and may be unaligned */
struct encoded {
    uint64_t counts[4];
    double sums[3];
    const char *body;
};

/* the action at *at_p, moving it past; 0 when it does not fit */
static int take_encoded(const char **at_p, const char *end, struct encoded *e)
{
    const char *at = *at_p;
    if ((size_t)(end - at) < ACTION_BYTES)
        return 0;
    memcpy(e->counts, at, sizeof(e->counts));
    memcpy(e->sums, at + sizeof(e->counts), sizeof(e->sums));
    e->body = at + ACTION_BYTES;
    size_t left = (size_t)(end - e->body);
    uint64_t n = e->counts[1];
    if (e->counts[0] > 1 || e->counts[2] > n || (e->counts[0] && n > left / 13))
        return 0;
    size_t body = e->counts[0] ? (size_t)n * 13 : 2 * (size_t)BINS * 8;
    if (body > left)
        return 0;
    *at_p = e->body + body;
    return 1;
}

static int merge_action(const struct mdl_metrics *metrics, struct action *a,
                        const struct encoded *e)
{
    uint64_t n = e->counts[1];
    int exact = !a->bins && e->counts[0] && a->n + n <= metrics->exact_limit;
    int status = exact ? reserve(a, a->n + n) : to_bins(a);
    if (status != CLU_OK)
        return status;
    const char *scores = e->body + n * 8, *labels = scores + n * 4;
    if (exact) {
        put((char *)(a->users + a->n), e->body, n * 8);
        put((char *)(a->scores + a->n), scores, n * 4);
        put((char *)(a->labels + a->n), labels, n);
    } else if (e->counts[0]) {
        for (uint64_t i = 0; i < n; i++) {
            float p;
            memcpy(&p, scores + i * 4, 4);
            a->bins[(labels[i] ? BINS : 0) + bin_of(p)]++;
        }
    } else {
        for (size_t b = 0; b < 2 * (size_t)BINS; b++) {
            uint64_t count;
            memcpy(&count, e->body + b * 8, 8);
            a->bins[b] += count;
        }
    }
    a->n += n;
    a->n_positive += e->counts[2];
    a->n_times += e->counts[3];
    a->loss_sum += e->sums[0];
    a->p_sum += e->sums[1];
    a->error_sum += e->sums[2];
    return CLU_OK;
}

int mdl_metrics_merge(struct mdl_metrics *metrics, const void *bytes, size_t size_bytes)
{
    const char *start = bytes, *end = start + size_bytes;
    uint32_t head[2];
    if (size_bytes < HEADER_BYTES || memcmp(start, "MDLM", 4) != 0)
        return clu_fail(CLU_E_PROTOCOL, "metrics: %zu bytes that are not encoded metrics",
                        size_bytes);
    memcpy(head, start + 4, sizeof(head));
    if (head[0] != VERSION || head[1] != (uint32_t)metrics->n_actions)
        return clu_fail(CLU_E_PROTOCOL, "metrics: version %u of %u actions, expected %d of %d",
                        head[0], head[1], VERSION, metrics->n_actions);
    struct encoded e;
    const char *at = start + HEADER_BYTES;
    for (int i = 0; i <= metrics->n_actions; i++)
        if (!take_encoded(&at, end, &e))
            return clu_fail(CLU_E_PROTOCOL, "metrics: action %d does not fit its bytes", i);
    if (at != end)
        return clu_fail(CLU_E_PROTOCOL, "metrics: %zu bytes too many", (size_t)(end - at));
    at = start + HEADER_BYTES;
    for (int i = 0; i <= metrics->n_actions; i++) {
        take_encoded(&at, end, &e);
        int status = merge_action(metrics, &metrics->actions[i], &e);
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

static void auc_of_bins(const struct action *a, struct mdl_figures *f)
{
    double right = 0, tied = 0, negatives = 0, positives = 0;
    for (size_t b = 0; b < BINS; b++) {
        double negative = (double)a->bins[b], positive = (double)a->bins[BINS + b];
        right += positive * (negatives + negative / 2);
        tied += positive * negative;
        negatives += negative;
        positives += positive;
    }
    f->gauc = (double)NAN;
    f->auc = (double)NAN;
    if (positives > 0 && negatives > 0) {
        f->auc = right / positives / negatives;
        f->auc_error = tied / 2 / positives / negatives;
    }
}

int mdl_metrics_figures(const struct mdl_metrics *metrics, int action,
                        struct mdl_figures *figures_p)
{
    const struct action *a = &metrics->actions[action];
    struct mdl_figures f = {.n = a->n, .n_positive = a->n_positive, .n_times = a->n_times};
    int status = CLU_OK;
    if (a->bins) {
        auc_of_bins(a, &f);
    } else {
        status = mdl_auc(a->scores, a->labels, a->n, &f.auc);
        if (status == CLU_OK)
            status = mdl_gauc(a->users, a->scores, a->labels, a->n, &f.gauc, &f.gauc_users);
    }
    if (status != CLU_OK)
        return status;
    f.log_loss = a->n ? a->loss_sum / (double)a->n : (double)NAN;
    f.calibration = a->n_positive ? a->p_sum / (double)a->n_positive : (double)NAN;
    f.mae = a->n_times ? a->error_sum / (double)a->n_times : (double)NAN;
    *figures_p = f;
    return CLU_OK;
}

/* AUC and GAUC of arrays.
 *
 * AUC is the share of (positive, negative) pairs that are in the right order, ties counted half:
 * after sorting by score it is one pass, in integers (twice the number of right pairs, so that
 * halves stay whole), exact for any n below 2^31. A score and its label travel through the sort as
 * one 64-bit number; the sort is by radix, three passes of 11 bits, as evaluation sorts tens of
 * millions.
 */
#include "model/metrics.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* An unsigned number in the order of the floats; -0 and 0 are one, NAN sorts above all. */
static uint32_t ordered(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof(bits));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* sorts keys [n] by bits 1..33, using room [n]; the result is in keys */
static void radix_sort(uint64_t *keys, uint64_t *room, size_t n)
{
    enum { BITS = 11, BINS = 1 << BITS, PASSES = 3 };
    uint64_t *from = keys, *to = room;
    for (int pass = 0; pass < PASSES; pass++) {
        int shift = 1 + pass * BITS;
        size_t start[BINS] = {0};
        for (size_t i = 0; i < n; i++)
            start[from[i] >> shift & (BINS - 1)]++;
        size_t sum = 0;
        for (int b = 0; b < BINS; b++) {
            size_t count = start[b];
            start[b] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            to[start[from[i] >> shift & (BINS - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    memcpy(keys, from, n * sizeof(*keys));
}

/* AUC of keys sorted by score, the label in bit 0; NAN without both classes */
static double auc_of_sorted(const uint64_t *keys, size_t n)
{
    uint64_t negatives = 0, positives = 0, twice_right = 0;
    for (size_t i = 0; i < n;) {
        uint64_t tied[2] = {0};
        size_t j = i;
        for (; j < n && keys[j] >> 1 == keys[i] >> 1; j++)
            tied[keys[j] & 1]++;
        twice_right += tied[1] * (2 * negatives + tied[0]);
        negatives += tied[0];
        positives += tied[1];
        i = j;
    }
    if (positives == 0 || negatives == 0)
        return (double)NAN;
    return (double)twice_right / 2 / (double)positives / (double)negatives;
}

int mdl_auc(const float *scores, const uint8_t *labels, size_t n, double *auc_p)
{
    uint64_t *keys = malloc((2 * n + 1) * sizeof(*keys));
    if (!keys)
        return clu_fail(CLU_E_NO_MEMORY, "auc: no memory for %zu scores", n);
    for (size_t i = 0; i < n; i++)
        keys[i] = (uint64_t)ordered(scores[i]) << 1 | (labels[i] != 0);
    radix_sort(keys, keys + n, n);
    *auc_p = auc_of_sorted(keys, n);
    free(keys);
    return CLU_OK;
}

struct by_user {
    uint64_t user, key;
};

static int compare_by_user(const void *left, const void *right)
{
    const struct by_user *a = left, *b = right;
    if (a->user != b->user)
        return a->user < b->user ? -1 : 1;
    return (a->key > b->key) - (a->key < b->key);
}

int mdl_gauc(const uint64_t *users, const float *scores, const uint8_t *labels, size_t n,
             double *gauc_p, uint64_t *n_users_p)
{
    struct by_user *rows = malloc((n + 1) * sizeof(*rows));
    uint64_t *keys = malloc((n + 1) * sizeof(*keys));
    if (!rows || !keys) {
        free(rows);
        free(keys);
        return clu_fail(CLU_E_NO_MEMORY, "gauc: no memory for %zu scores", n);
    }
    for (size_t i = 0; i < n; i++) {
        rows[i].user = users[i];
        rows[i].key = (uint64_t)ordered(scores[i]) << 1 | (labels[i] != 0);
    }
    qsort(rows, n, sizeof(*rows), compare_by_user);
    double sum = 0, weight = 0;
    uint64_t counted = 0;
    for (size_t i = 0; i < n;) {
        size_t j = i;
        for (; j < n && rows[j].user == rows[i].user; j++)
            keys[j - i] = rows[j].key;
        double auc = auc_of_sorted(keys, j - i);
        if (!isnan(auc)) {
            sum += auc * (double)(j - i);
            weight += (double)(j - i);
            counted++;
        }
        i = j;
    }
    *gauc_p = counted ? sum / weight : (double)NAN;
    *n_users_p = counted;
    free(rows);
    free(keys);
    return CLU_OK;
}

/* A direct-mapped table: place = hash(key) mod n. A gradient that is not finite leaves nothing
 * over: the server refuses it, and a NaN must not stay here.
 */
#include "ps/feedback.h"

#include "cluster/hash.h"
#include "cluster/status.h"
#include "cluster/wire.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct psv_feedback {
    size_t dim, n_places; /* a power of two */
    uint64_t *key;        /* [n_places] */
    bool *used;           /* [n_places] */
    float *left;          /* [n_places, dim] */
    float *sum;           /* [dim] */
    float *sent;          /* [dim] */
    uint16_t *rounded;    /* [dim] */
};

int psv_feedback_create(int dim, size_t memory_bytes, struct psv_feedback **feedback_p)
{
    size_t row_bytes = (size_t)dim * sizeof(float) + sizeof(uint64_t) + sizeof(bool), n = 1;
    while (2 * n * row_bytes <= memory_bytes)
        n *= 2;
    struct psv_feedback *feedback = calloc(1, sizeof(*feedback));
    if (!feedback)
        return CLU_E_NO_MEMORY;
    feedback->dim = (size_t)dim;
    feedback->n_places = n;
    feedback->key = calloc(n, sizeof(*feedback->key));
    feedback->used = calloc(n, sizeof(*feedback->used));
    feedback->left = calloc(n * (size_t)dim, sizeof(*feedback->left));
    feedback->sum = calloc((size_t)dim, sizeof(*feedback->sum));
    feedback->sent = calloc((size_t)dim, sizeof(*feedback->sent));
    feedback->rounded = calloc((size_t)dim, sizeof(*feedback->rounded));
    if (!feedback->key || !feedback->used || !feedback->left || !feedback->sum || !feedback->sent ||
        !feedback->rounded) {
        psv_feedback_free(feedback);
        return CLU_E_NO_MEMORY;
    }
    *feedback_p = feedback;
    return 0;
}

void psv_feedback_free(struct psv_feedback *feedback)
{
    if (!feedback)
        return;
    free(feedback->key);
    free(feedback->used);
    free(feedback->left);
    free(feedback->sum);
    free(feedback->sent);
    free(feedback->rounded);
    free(feedback);
}

void psv_feedback_round(struct psv_feedback *feedback, uint64_t key, const float *gradient,
                        void *bf16_p)
{
    size_t dim = feedback->dim, place = (size_t)clu_mix(key) & (feedback->n_places - 1);
    float *left = feedback->left + place * dim;
    bool known = feedback->used[place] && feedback->key[place] == key;
    for (size_t j = 0; j < dim; j++)
        feedback->sum[j] = known ? gradient[j] + left[j] : gradient[j];
    clu_wire_to_bf16(feedback->sum, dim, feedback->rounded);
    clu_wire_from_bf16(feedback->rounded, dim, feedback->sent);
    memcpy(bf16_p, feedback->rounded, dim * sizeof(*feedback->rounded));
    for (size_t j = 0; j < dim; j++) {
        float rest = feedback->sum[j] - feedback->sent[j];
        left[j] = isfinite(rest) ? rest : 0;
    }
    feedback->key[place] = key;
    feedback->used[place] = true;
}

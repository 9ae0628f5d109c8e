/* Random, well-formed batches for the tests of the model: every array owned by one struct.
 *
 * Histories may be empty, seqs are shared between samples and users, some hold the start alone, and
 * several samples of a user stand side by side.
 */
#ifndef TESTS_MODEL_RANDOM_BATCH_H
#define TESTS_MODEL_RANDOM_BATCH_H

#include "model/batch.h"
#include "model/config.h"
#include "tests/suite.h"

struct random_batch {
    struct mdl_batch view;
    mdl_real *user, *item;
    int *sample_user, *sample_item, *seq_item, *seq_offset, *hist_offset, *hist_seq, *target_offset;
    uint8_t *seq_action, *target_action;
    float *seq_time, *target_time;
};

struct random_sizes {
    int n_samples, n_users, n_items, n_seqs;
    int min_hist, max_hist; /* per sample; at most the configuration's H */
    int max_tokens;         /* per seq and target; at most M */
};

static inline int random_int(uint64_t *state_p, int lo, int hi)
{
    return lo + (int)(suite_random(state_p) % (uint64_t)(hi - lo + 1));
}

/* m tokens: start, then distinct other actions at growing times */
static inline void random_tokens(uint64_t *state_p, int M, int m, uint8_t *action, float *time)
{
    uint8_t types[MDL_MAX_ACTIONS];
    for (int a = 0; a < M - 1; a++)
        types[a] = (uint8_t)(a + 2);
    float t = 0;
    action[0] = 1;
    time[0] = 0;
    for (int k = 1; k < m; k++) {
        int pick = random_int(state_p, k - 1, M - 2);
        uint8_t type = types[pick];
        types[pick] = types[k - 1];
        types[k - 1] = type;
        action[k] = type;
        t += (float)suite_uniform(state_p, 0, 0.7);
        time[k] = t;
    }
}

/* n sequences of 1..max_tokens tokens; offset [n + 1]; the arrays have room for all */
static inline void random_sequences(uint64_t *state_p, int M, int max_tokens, int n, int *offset,
                                    uint8_t *action, float *time)
{
    offset[0] = 0;
    for (int i = 0; i < n; i++) {
        int m = random_int(state_p, 1, max_tokens);
        random_tokens(state_p, M, m, action + offset[i], time + offset[i]);
        offset[i + 1] = offset[i] + m;
    }
}

static inline void random_batch_init(struct random_batch *b, const struct mdl_config *c,
                                     const struct random_sizes *s, uint64_t *state_p)
{
    size_t hist = (size_t)s->n_samples * (size_t)s->max_hist;
    memset(b, 0, sizeof(*b));
    b->user = malloc((size_t)s->n_users * c->user_dim * sizeof(mdl_real));
    b->item = malloc((size_t)s->n_items * c->item_dim * sizeof(mdl_real));
    for (int k = 0; k < s->n_users * c->user_dim; k++)
        b->user[k] = (mdl_real)suite_uniform(state_p, -1, 1);
    for (int k = 0; k < s->n_items * c->item_dim; k++)
        b->item[k] = (mdl_real)suite_uniform(state_p, -1, 1);
    b->sample_user = malloc((size_t)s->n_samples * sizeof(int));
    b->sample_item = malloc((size_t)s->n_samples * sizeof(int));
    b->seq_item = malloc((size_t)s->n_seqs * sizeof(int));
    b->seq_offset = malloc((size_t)(s->n_seqs + 1) * sizeof(int));
    b->hist_offset = malloc((size_t)(s->n_samples + 1) * sizeof(int));
    b->hist_seq = malloc((hist + 1) * sizeof(int));
    b->target_offset = malloc((size_t)(s->n_samples + 1) * sizeof(int));
    b->seq_action = malloc((size_t)s->n_seqs * s->max_tokens);
    b->seq_time = malloc((size_t)s->n_seqs * s->max_tokens * sizeof(float));
    b->target_action = malloc((size_t)s->n_samples * s->max_tokens);
    b->target_time = malloc((size_t)s->n_samples * s->max_tokens * sizeof(float));
    for (int i = 0; i < s->n_seqs; i++)
        b->seq_item[i] = random_int(state_p, 0, s->n_items - 1);
    random_sequences(state_p, c->n_actions, s->max_tokens, s->n_seqs, b->seq_offset, b->seq_action,
                     b->seq_time);
    random_sequences(state_p, c->n_actions, s->max_tokens, s->n_samples, b->target_offset,
                     b->target_action, b->target_time);
    b->hist_offset[0] = 0;
    for (int i = 0; i < s->n_samples; i++) {
        /* users in runs, as the reader delivers them */
        b->sample_user[i] = (int)((long)i * s->n_users / s->n_samples);
        b->sample_item[i] = random_int(state_p, 0, s->n_items - 1);
        int n = random_int(state_p, s->min_hist, s->max_hist), first = b->hist_offset[i];
        /* often a window one further than the sample's before, as histories of one user are */
        int slides = i > 0 && random_int(state_p, 0, 2) > 0;
        for (int k = 0; k < n; k++) {
            int before = i > 0 ? b->hist_offset[i - 1] + k + 1 : first;
            b->hist_seq[first + k] = slides && before < first
                                         ? b->hist_seq[before]
                                         : random_int(state_p, 0, s->n_seqs - 1);
        }
        b->hist_offset[i + 1] = first + n;
    }
    b->view = (struct mdl_batch){.n_samples = s->n_samples,
                                 .n_global = s->n_samples + random_int(state_p, 0, 3),
                                 .n_users = s->n_users,
                                 .n_items = s->n_items,
                                 .n_seqs = s->n_seqs,
                                 .user = b->user,
                                 .item = b->item,
                                 .sample_user = b->sample_user,
                                 .sample_item = b->sample_item,
                                 .seq_item = b->seq_item,
                                 .seq_offset = b->seq_offset,
                                 .seq_action = b->seq_action,
                                 .seq_time = b->seq_time,
                                 .hist_offset = b->hist_offset,
                                 .hist_seq = b->hist_seq,
                                 .target_offset = b->target_offset,
                                 .target_action = b->target_action,
                                 .target_time = b->target_time};
}

static inline void random_batch_fini(struct random_batch *b)
{
    void *owned[] = {b->user,          b->item,       b->sample_user, b->sample_item,
                     b->seq_item,      b->seq_offset, b->hist_offset, b->hist_seq,
                     b->target_offset, b->seq_action, b->seq_time,    b->target_action,
                     b->target_time};
    for (size_t i = 0; i < sizeof(owned) / sizeof(owned[0]); i++)
        free(owned[i]);
}

/* Parameters with nothing at a special value: W_g, Rho and the biases are not zero. */
static inline void random_params(mdl_real *params, size_t n, double range, uint64_t *state_p)
{
    for (size_t i = 0; i < n; i++)
        params[i] += (mdl_real)suite_uniform(state_p, -range, range);
}

#endif

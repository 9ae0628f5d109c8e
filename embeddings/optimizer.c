/* The optimisers, and the registry that names them.
 *
 * Each update is one pass over the lanes, written as a plain loop that the compiler vectorises;
 * EMB_CLONES makes copies for wider registers. Powers b^n for adam's bias correction are read from
 * a table made at the start in double precision: pow() in the loop would cost more than the row.
 * Once both corrections have reached their limit in fp32 (n about 16 / (1 - b2)) the last entry
 * serves.
 *
 * (O1) The result is a function of (w, state, grad, count, settings) alone.
 * (O2) No operation is contracted or reassociated: embeddings/ is built with -ffp-contract=off and
 * without -ffast-math, and sums over lanes go through mean_square() only.
 */
#include "embeddings/optimizer.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/simd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARTIAL_SUMS = 16, MAX_CORRECTIONS = 1 << 18 };

EMB_CLONES
static void update_adam(const struct emb_updater *u, float *restrict w, float *restrict state,
                        const float *restrict g, uint32_t count)
{
    uint32_t n = (count < u->n_corrections ? count : u->n_corrections) - 1;
    const float size = u->step_size[n], epsilon = u->step_epsilon[n];
    const float b1 = u->beta1, b2 = u->beta2, c1 = 1.0f - b1, c2 = 1.0f - b2;
    const int dim = u->dim;
    float *restrict m = state, *restrict v = state + dim;
    for (int i = 0; i < dim; i++) {
        m[i] = b1 * m[i] + c1 * g[i];
        v[i] = b2 * v[i] + c2 * (g[i] * g[i]);
        w[i] = w[i] - size * m[i] / (sqrtf(v[i]) + epsilon);
    }
}

/* mean of g_i^2: lane i belongs to partial sum i mod 16; the partial sums are added as a tree (O2)
 */
EMB_CLONES
static float mean_square(const float *restrict g, int dim)
{
    float sum[PARTIAL_SUMS] = {0};
    int i = 0;
    for (; i + PARTIAL_SUMS <= dim; i += PARTIAL_SUMS)
        for (int j = 0; j < PARTIAL_SUMS; j++)
            sum[j] += g[i + j] * g[i + j];
    for (int j = 0; i < dim; i++, j++)
        sum[j] += g[i] * g[i];
    for (int width = PARTIAL_SUMS / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            sum[j] += sum[j + width];
    return sum[0] / (float)dim;
}

EMB_CLONES
static void update_rowwise_adagrad(const struct emb_updater *u, float *restrict w,
                                   float *restrict state, const float *restrict g, uint32_t count)
{
    (void)count;
    state[0] += mean_square(g, u->dim);
    const float size = u->learning_rate / (sqrtf(state[0]) + u->epsilon);
    for (int i = 0; i < u->dim; i++)
        w[i] = w[i] - size * g[i];
}

EMB_CLONES
static void update_adagrad(const struct emb_updater *u, float *restrict w, float *restrict state,
                           const float *restrict g, uint32_t count)
{
    (void)count;
    const float lr = u->learning_rate, epsilon = u->epsilon;
    for (int i = 0; i < u->dim; i++) {
        state[i] += g[i] * g[i];
        w[i] = w[i] - lr * g[i] / (sqrtf(state[i]) + epsilon);
    }
}

EMB_CLONES
static void update_sgd(const struct emb_updater *u, float *restrict w, float *restrict state,
                       const float *restrict g, uint32_t count)
{
    (void)state;
    (void)count;
    for (int i = 0; i < u->dim; i++)
        w[i] = w[i] - u->learning_rate * g[i];
}

EMB_CLONES
static void update_ftrl(const struct emb_updater *u, float *restrict w, float *restrict state,
                        const float *restrict g, uint32_t count)
{
    const float lr = u->learning_rate, beta = u->beta1, l1 = u->l1, l2 = u->l2;
    const int dim = u->dim;
    float *restrict z = state, *restrict n = state + dim;
    if (count == 1)
        for (int i = 0; i < dim; i++)
            z[i] = -(w[i] * beta / lr) - l2 * w[i];
    for (int i = 0; i < dim; i++) {
        const float squares = n[i] + g[i] * g[i], root = sqrtf(squares);
        const float sigma = (root - sqrtf(n[i])) / lr;
        z[i] = z[i] + g[i] - sigma * w[i];
        n[i] = squares;
        const float pull = (z[i] < 0.0f ? -l1 : l1) - z[i];
        const float scaled = pull / ((beta + root) / lr + l2);
        w[i] = fabsf(z[i]) <= l1 ? 0.0f : scaled;
    }
}

/* The registry: an optimiser is one row. n_state = per_lane * dim + per_row. */
static const struct {
    const char *name;
    int per_lane, per_row;
    void (*update)(const struct emb_updater *, float *, float *, const float *, uint32_t);
} registry[EMB_N_OPTIMIZERS] = {
    [EMB_ADAM] = {"adam", 2, 0, update_adam},
    [EMB_ROWWISE_ADAGRAD] = {"rowwise_adagrad", 0, 1, update_rowwise_adagrad},
    [EMB_ADAGRAD] = {"adagrad", 1, 0, update_adagrad},
    [EMB_SGD] = {"sgd", 0, 0, update_sgd},
    [EMB_FTRL] = {"ftrl", 2, 0, update_ftrl},
};

int emb_optimizer_by_name(const char *name, enum emb_optimizer *optimizer_p)
{
    for (int i = 0; i < EMB_N_OPTIMIZERS; i++)
        if (strcmp(name, registry[i].name) == 0) {
            *optimizer_p = (enum emb_optimizer)i;
            return CLU_OK;
        }
    return clu_fail(CLU_E_CONFIG,
                    "unknown sparse optimizer '%s', expected adam, rowwise_adagrad, adagrad, sgd "
                    "or ftrl",
                    name);
}

const char *emb_optimizer_name(enum emb_optimizer optimizer)
{
    return (unsigned)optimizer < EMB_N_OPTIMIZERS ? registry[optimizer].name : "unknown";
}

int emb_optimizer_n_state(enum emb_optimizer optimizer, int dim)
{
    return registry[optimizer].per_lane * dim + registry[optimizer].per_row;
}

/* Fills the tables of corrections until they stand still. */
static int make_corrections(struct emb_updater *u, const struct emb_table_spec *spec)
{
    double slow = spec->beta2 > spec->beta1 ? spec->beta2 : spec->beta1;
    double needed = slow > 0 ? ceil(log(0x1p-26) / log(slow)) + 1 : 1;
    u->n_corrections = needed < MAX_CORRECTIONS ? (uint32_t)needed : MAX_CORRECTIONS;
    u->step_size = malloc(2 * u->n_corrections * sizeof(float));
    if (!u->step_size)
        return CLU_E_NO_MEMORY;
    u->step_epsilon = u->step_size + u->n_corrections;
    double p1 = 1, p2 = 1;
    for (uint32_t i = 0; i < u->n_corrections; i++) {
        p1 *= spec->beta1;
        p2 *= spec->beta2;
        double root = sqrt(1 - p2);
        u->step_size[i] = (float)(spec->learning_rate * root / (1 - p1));
        u->step_epsilon[i] = (float)(spec->epsilon * root);
    }
    return CLU_OK;
}

int emb_updater_init(struct emb_updater *u, const struct emb_table_spec *spec)
{
    memset(u, 0, sizeof(*u));
    u->optimizer = spec->optimizer;
    u->dim = spec->dim;
    u->n_state = emb_optimizer_n_state(spec->optimizer, spec->dim);
    u->learning_rate = (float)spec->learning_rate;
    u->beta1 = (float)spec->beta1;
    u->beta2 = (float)spec->beta2;
    u->epsilon = (float)spec->epsilon;
    u->l1 = (float)spec->l1;
    u->l2 = (float)spec->l2;
    u->update = registry[spec->optimizer].update;
    return spec->optimizer == EMB_ADAM ? make_corrections(u, spec) : CLU_OK;
}

void emb_updater_fini(struct emb_updater *u)
{
    free(u->step_size);
    u->step_size = NULL;
}

EMB_CLONES
void emb_bf16_widen(const uint16_t *restrict from, int dim, float *restrict to)
{
    for (int i = 0; i < dim; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, 4);
    }
}

EMB_CLONES
void emb_bf16_narrow(const float *restrict from, int dim, uint64_t key, uint32_t count,
                     uint16_t *restrict to)
{
    const uint64_t seed = clu_mix(key + 0x9e3779b97f4a7c15u * (count + 1u));
    const uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
    for (int i = 0; i < dim; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], 4);
        /* a 32-bit mix per lane: murmur3's finaliser, which vectorises where 64-bit products do not
         */
        uint32_t x = low + (uint32_t)i * 0x9e3779b9u;
        x = (x ^ (x >> 16)) * 0x85ebca6bu;
        x = ((x ^ high) ^ (x >> 13)) * 0xc2b2ae35u;
        x ^= x >> 16;
        uint32_t special = (bits & 0x7f800000u) == 0x7f800000u;
        uint32_t rounded = bits + (special ? 0 : (x & 0xffffu));
        /* a NaN whose payload lies in the low half would turn into infinity */
        uint32_t quiet = special && (bits & 0x007fffffu) ? 0x00400000u : 0;
        to[i] = (uint16_t)((rounded | quiet) >> 16);
    }
}

EMB_CLONES
int emb_all_finite(const float *values, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* Tokens in, decisions and losses out, in the order of the page.
 *
 * The losses are accumulated in double: a batch has tens of thousands of terms.
 */
#include "model/reference_ends.h"

#include "model/blas.h"

#include <math.h>
#include <string.h>

void mdl_phi(float time, mdl_real *phi)
{
    const double pi = 3.14159265358979323846;
    double t = time < 0 ? 0 : time > 4 ? 4 : time;
    phi[0] = (mdl_real)t;
    for (int k = 0; k < 4; k++) {
        phi[1 + k] = (mdl_real)sin((1 << k) * pi * t);
        phi[5 + k] = (mdl_real)cos((1 << k) * pi * t);
    }
}

void mdl_reference_tokens_take(struct mdl_reference_tokens *tokens, struct mdl_arena *arena,
                               int max_rows)
{
    tokens->action = MDL_TAKE(arena, max_rows, uint8_t);
    tokens->position = MDL_TAKE(arena, max_rows, uint8_t);
    tokens->time = MDL_TAKE(arena, max_rows, float);
    tokens->phi = MDL_TAKE(arena, (size_t)max_rows * MDL_TIME_FEATURES, mdl_real);
    tokens->tok = MDL_TAKE(arena, (size_t)max_rows * tokens->d, mdl_real);
}

void mdl_reference_tokens_forward(struct mdl_reference_tokens *tokens,
                                  const struct mdl_token_weights *w)
{
    int d = tokens->d;
    for (int i = 0; i < tokens->n; i++)
        mdl_phi(tokens->time[i], tokens->phi + (size_t)i * MDL_TIME_FEATURES);
    mdl_linear(tokens->n, MDL_TIME_FEATURES, d, tokens->phi, w->W_t, w->b_t, tokens->tok);
    for (int i = 0; i < tokens->n; i++)
        for (int k = 0; k < d; k++)
            tokens->tok[(size_t)i * d + k] +=
                w->E[tokens->action[i] * d + k] + w->P[tokens->position[i] * d + k];
}

void mdl_reference_tokens_backward(const struct mdl_reference_tokens *tokens,
                                   const struct mdl_token_weights *w, const mdl_real *dtok,
                                   struct mdl_token_weights *dw)
{
    int d = tokens->d;
    for (int i = 0; i < tokens->n; i++) {
        for (int k = 0; k < d; k++) {
            dw->E[tokens->action[i] * d + k] += dtok[(size_t)i * d + k];
            dw->P[tokens->position[i] * d + k] += dtok[(size_t)i * d + k];
        }
    }
    mdl_linear_backward(tokens->n, MDL_TIME_FEATURES, d, tokens->phi, w->W_t, dtok, NULL, dw->W_t,
                        dw->b_t);
}

void mdl_reference_decision_take(struct mdl_reference_decision *decision, struct mdl_arena *arena,
                                 int max_rows)
{
    size_t rows = (size_t)max_rows, d = (size_t)decision->d, C = (size_t)decision->C;
    decision->Hc = MDL_TAKE(arena, rows * d, mdl_real);
    decision->Ht = MDL_TAKE(arena, rows * d, mdl_real);
    decision->dHc = MDL_TAKE(arena, rows * d, mdl_real);
    decision->dHt = MDL_TAKE(arena, rows * d, mdl_real);
    decision->P = MDL_TAKE(arena, rows * C, mdl_real);
    decision->dP = MDL_TAKE(arena, rows * C, mdl_real);
    decision->That = MDL_TAKE(arena, rows, mdl_real);
    decision->dThat = MDL_TAKE(arena, rows, mdl_real);
}

static void relu(mdl_real *x, size_t n)
{
    for (size_t k = 0; k < n; k++)
        x[k] = x[k] > 0 ? x[k] : 0;
}

/* dx = dy where y > 0, in place of dy */
static void relu_backward(const mdl_real *y, mdl_real *dy, size_t n)
{
    for (size_t k = 0; k < n; k++)
        dy[k] = y[k] > 0 ? dy[k] : 0;
}

static void softmax(mdl_real *x, int n)
{
    mdl_real max = x[0], sum = 0;
    for (int j = 1; j < n; j++)
        max = x[j] > max ? x[j] : max;
    for (int j = 0; j < n; j++)
        sum += x[j] = (mdl_real)exp((double)(x[j] - max));
    for (int j = 0; j < n; j++)
        x[j] /= sum;
}

void mdl_reference_decision_forward(struct mdl_reference_decision *decision,
                                    const struct mdl_decision_weights *w)
{
    int d = decision->d, C = decision->C, n = decision->n;
    mdl_linear(n, d, d, decision->Y, w->W_c1, w->b_c1, decision->Hc);
    relu(decision->Hc, (size_t)n * d);
    mdl_linear(n, d, C, decision->Hc, w->W_c2, w->b_c2, decision->P);
    for (int i = 0; i < n; i++)
        softmax(decision->P + (size_t)i * C, C);
    mdl_linear(n, d, d, decision->Y, w->W_t1, w->b_t1, decision->Ht);
    relu(decision->Ht, (size_t)n * d);
    mdl_linear(n, d, 1, decision->Ht, w->w_t2, w->b_t2, decision->That);
}

void mdl_reference_decision_backward(struct mdl_reference_decision *decision,
                                     const struct mdl_decision_weights *w,
                                     struct mdl_decision_weights *dw, mdl_real *dY)
{
    int d = decision->d, C = decision->C, n = decision->n;
    size_t count = (size_t)n * d;
    memset(dY, 0, count * sizeof(*dY));
    memset(decision->dHc, 0, count * sizeof(*dY));
    memset(decision->dHt, 0, count * sizeof(*dY));
    mdl_linear_backward(n, d, C, decision->Hc, w->W_c2, decision->dP, decision->dHc, dw->W_c2,
                        dw->b_c2);
    relu_backward(decision->Hc, decision->dHc, count);
    mdl_linear_backward(n, d, d, decision->Y, w->W_c1, decision->dHc, dY, dw->W_c1, dw->b_c1);
    mdl_linear_backward(n, d, 1, decision->Ht, w->w_t2, decision->dThat, decision->dHt, dw->w_t2,
                        dw->b_t2);
    relu_backward(decision->Ht, decision->dHt, count);
    mdl_linear_backward(n, d, d, decision->Y, w->W_t1, decision->dHt, dY, dw->W_t1, dw->b_t1);
}

void mdl_sample_losses(const struct mdl_config *config, int m, const uint8_t *action,
                       const float *time, const mdl_real *P, const mdl_real *That, double scale,
                       double losses[3], mdl_real *dlogits, mdl_real *dThat)
{
    int M = config->n_actions, C = M + 1;
    double valid = m > 1 ? m - 1 : 1;
    /* row i of P and That predicts token i + 1, counted from 0 = start */
    for (int i = 0; i < M - 1; i++) {
        int truth = i + 1 < m ? action[i + 1] : 0;
        double p = (double)P[i * C + truth];
        losses[0] -= log(p > 1e-37 ? p : 1e-37);
        for (int c = 0; c < C; c++)
            dlogits[i * C + c] =
                (mdl_real)(scale * (double)config->alpha * ((double)P[i * C + c] - (c == truth)));
        dThat[i] = 0;
        if (i + 1 < m) {
            double off = (double)That[i] - (double)time[i + 1];
            losses[1] += off * off / valid;
            dThat[i] = (mdl_real)(scale * (double)config->beta * 2 * off / valid);
        }
    }
    for (int p = 0; p + 1 < m; p++) {
        for (int q = p + 1; q + 1 < m; q++) {
            double late = (double)That[p] - (double)That[q];
            if (late <= 0)
                continue;
            losses[2] += late * late;
            dThat[p] += (mdl_real)(scale * (double)config->gamma * 2 * late);
            dThat[q] -= (mdl_real)(scale * (double)config->gamma * 2 * late);
        }
    }
}

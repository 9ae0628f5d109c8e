/* The reference against values worked out on paper, from MODEL.md alone.
 *
 * Widths are 2, so a LayerNorm of (a, b) is (s, -s) with s = t / sqrt(t^2 + 1e-5), t = (a - b) / 2:
 * plus or minus 1 to five digits wherever |t| is half or more. That keeps the paper short; the
 * attention, which such a norm would hide, is looked at on its own.
 */
#include "model/params.h"
#include "model/reference.h"
#include "model/reference_cam.h"
#include "model/reference_ends.h"
#include "model/weights.h"
#include "tests/suite.h"

#include <math.h>

#define LN2 0.693147180559945
#define LN3 1.09861228866811

#define NEAR(actual, expected) CU_ASSERT_DOUBLE_EQUAL((double)(actual), expected, 2e-5)

static void test_phi_is_the_time_then_sines_then_cosines(void)
{
    mdl_real phi[MDL_TIME_FEATURES];
    mdl_phi(0.25f, phi);
    const double root = sqrt(0.5);
    /* pi/4, pi/2, pi, 2 pi */
    const double expected[MDL_TIME_FEATURES] = {0.25, root, 1, 0, 0, root, 0, -1, 1};
    for (int k = 0; k < MDL_TIME_FEATURES; k++)
        NEAR(phi[k], expected[k]);
    mdl_phi(7, phi);
    NEAR(phi[0], 4); /* T' = min(T, 4) */
    mdl_phi(-1, phi);
    NEAR(phi[0], 0);
}

/* Two history items, X_1 = (1, -1) and X_2 = (3, 1), d = 2, h = 2 (so d_h = 1), context c = 2.
 *
 *     W_c = (0.5, 0)                  c W_c = (1, 0)      U = (2, -1), (4, 1)
 *     W_q = I, b_q = (0, ln 2)        Q = (2, ln 2 - 1), (4, ln 2 + 1)
 *     W_k = diag(0, 1)                K = (0, -1), (0, 1)
 *     Rho = head 1: 0 latest, ln 3 one older; head 2: 0, 0
 *     head 1: scores are rho alone: A = (3/4, 1/4) for both queries
 *     head 2: query 1: scores -(ln 2 - 1), ln 2 - 1, so
 *             A_11 = 1 / (1 + e^(2 ln 2 - 2)) = 1 / (1 + 4 e^-2) = 0.648786
 *             query 2: A_21 = 1 / (1 + e^(2 ln 2 + 2)) = 1 / (1 + 4 e^2) = 0.0327266
 *     W_v = I, b_v = (0, 1)           V = (1, 0), (3, 2)
 *     head 1: N = 3/4 * 1 + 1/4 * 3 = 1.5 for both; head 2: N = 2 A_i2 = 0.702428, 1.934547
 *     W_g = (0, 0), b_g = (ln 3, 0)   g = 2 * (3/4, 1/4) = (1.5, 0.5)
 *     G = (2.25, 0.351214), (2.25, 0.967273)
 */
static void test_attention_of_two_items_is_as_on_paper(void)
{
    mdl_real W_x[4] = {1, 0, 0, 1}, zero[8] = {0}, W_q[4] = {1, 0, 0, 1},
             b_q[2] = {0, (mdl_real)LN2};
    mdl_real W_c[2] = {0.5, 0}, W_k[4] = {0, 0, 0, 1}, W_v[4] = {1, 0, 0, 1}, b_v[2] = {0, 1};
    mdl_real b_g[2] = {(mdl_real)LN3, 0}, one[2] = {1, 1}, Rho[4] = {0, (mdl_real)LN3, 0, 0};
    struct mdl_cam_weights w = {W_x,  zero, W_q,  b_q,  W_c,  W_k,  W_v,  b_v, zero, b_g, zero,
                                zero, one,  zero, zero, zero, zero, zero, one, zero, Rho};
    mdl_real S[4] = {1, -1, 3, 1}, c[1] = {2};
    int offset[2] = {0, 2};
    struct mdl_reference_cam cam = {
        .d = 2, .h = 2, .d_s = 2, .d_c = 1, .history = 2, .n_groups = 1};
    struct mdl_arena arena = {0};
    mdl_reference_cam_take(&cam, &arena, 1, 2, 2);
    arena = (struct mdl_arena){.base = aligned_alloc(64, arena.used)};
    mdl_reference_cam_take(&cam, &arena, 1, 2, 2);
    cam.S = S;
    cam.ctx = c;
    cam.offset = offset;
    mdl_reference_cam_forward(&cam, &w);
    const double U[4] = {2, -1, 4, 1},
                 A[8] = {0.75, 0.25, 0.75, 0.25, 0.648786, 0.351214, 0.0327266, 0.967273};
    const double N[4] = {1.5, 0.702428, 1.5, 1.934547}, G[4] = {2.25, 0.351214, 2.25, 0.967273};
    for (int k = 0; k < 4; k++) {
        NEAR(cam.U[k], U[k]);
        NEAR(cam.N[k], N[k]);
        NEAR(cam.G[k], G[k]);
    }
    for (int k = 0; k < 8; k++)
        NEAR(cam.A[k], A[k]);
    NEAR(cam.g[0], 1.5);
    NEAR(cam.g[1], 0.5);
    free(arena.base);
}

/* M = 4, three predictions, true tokens start, 3 at 0.5, 2 at 1; padding at the end.
 *
 *     P of the truth 1/2, 1/4, 1/8           L_cls = ln 2 + ln 4 + ln 8 = 6 ln 2
 *     That = 0.75, 0.5, 9                    L_reg = ((1/4)^2 + (1/2)^2) / 2 = 0.15625
 *     0.75 > 0.5, the third is not valid     L_order = (1/4)^2 = 0.0625
 *     alpha 1, beta 2, gamma 3, 1/B = 1/10:  dThat_1 = (2 * 2 * 0.25 / 2 + 3 * 2 * 0.25) / 10 = 0.2
 *                                 dThat_2 = (-2 * 2 * 0.5 / 2 - 3 * 2 * 0.25) / 10 = -0.25
 *     dlogits of the truth (P - 1) / 10, of others P / 10
 */
static void test_losses_of_one_sample_are_as_on_paper(void)
{
    struct mdl_config c = {.n_actions = 4, .alpha = 1, .beta = 2, .gamma = 3};
    uint8_t action[3] = {1, 3, 2};
    float time[3] = {0, 0.5f, 1};
    mdl_real P[15] = {0.125, 0.125, 0.125, 0.5,    0.125,  0.5,  0.125, 0.25,
                      0.125, 0,     0.125, 0.0625, 0.0625, 0.25, 0.5};
    mdl_real That[3] = {0.75, 0.5, 9}, dlogits[15], dThat[3];
    double losses[3] = {0};
    mdl_sample_losses(&c, 3, action, time, P, That, 0.1, losses, dlogits, dThat);
    NEAR(losses[0], 6 * LN2);
    NEAR(losses[1], 0.15625);
    NEAR(losses[2], 0.0625);
    NEAR(dThat[0], 0.2);
    NEAR(dThat[1], -0.25);
    NEAR(dThat[2], 0);
    NEAR(dlogits[3], -0.05);
    NEAR(dlogits[0], 0.0125);
    NEAR(dlogits[10], -0.0875); /* padding is predicted as a class */
}

static void set(const struct mdl_config *c, mdl_real *params, const char *name, int n,
                const double *values)
{
    struct mdl_tensor t;
    CU_ASSERT_EQUAL_FATAL(mdl_tensor_find(c, name, &t), 0);
    CU_ASSERT_EQUAL_FATAL(t.rows * t.cols, n);
    for (int k = 0; k < n; k++)
        params[t.offset + (size_t)k] = (mdl_real)values[k];
}

#define SET(name, ...)                                                                             \
    set(&c, params, name, sizeof((double[]){__VA_ARGS__}) / sizeof(double), (double[]){__VA_ARGS__})

/* M = 2, d = 2, h = 2, H = 2, |F_u| = |F_x| = 1. All parameters 0 but LayerNorm weights (1) and
 * those set below.
 *
 *     history: item A (F = 2), then item B (F = 0), both the start alone; target F = 1, user F = 1
 *     token_hist  E[1] = (1, 0), P[0] = (0.5, 0)           tok = (1.5, 0)
 *     cam_act     W_x = I, W_c = (0.25, 0)                 X = (1.5, 0); U = (2, 0), (1.5, 0)
 *                 W_v = I, b_v = (0, 1), g = (1.5, 0.5)    V = (1.5, 1), G = (2.25, 0.5)
 *                 W_o = I, b_o = (0, 0.25)                 U + O = (4.25, 0.75), (3.75, 0.75)
 *                 ln1 w (1, 2), b (0, 1)                   R = (1, -1) both
 *                 W_1[0][0] = 1, b_1[1] = 0.5              F = (1, 0.5, 0, 0)
 *                 W_2[0] = (0.5, 0), W_2[1] = (0, 1)       R + F W_2 = (1.5, -0.5)
 *                 ln2 b (0.5, 0)                           Y = Seq = (1.5, -1) both
 *     cam_item    W_x = (1, 0; 0, 1; 0, 0.25)              X_A = (1.5, -0.5), X_B = (1.5, -1)
 *                 ln2 w (2, 1), b (0, 0.5)                 Y = (2, -0.5) both = Vec_hist
 *     cam_gen     E[1] = (0, 1), W_x = I                   X = (0, 1)
 *                 W_c = (1, 0; 0, 1; 0.5, 0; 0, 2)         c = (1, 1, 2, -0.5), U = (2, 0) + X
 *                                                          Y = (1, -1)
 *     decision    W_c1 = I, b_c1 = (1, 3)                  (2, 2)
 *                 W_c2[0][2] = ln 2 / 2                    logits (0, 0, ln 2), P = (1/4, 1/4, 1/2)
 *                 W_t1 = I, w_t2 = (0.25, 9), b_t2 = 1/8   That = 0.25 + 0.125 = 0.375
 *     target: start, then 2 at T = 0.5                     L_cls = ln 2, L_reg = 1/64, L_order = 0
 */
static void test_a_tiny_model_is_as_on_paper(void)
{
    struct mdl_config c = {.n_actions = 2,
                           .history = 2,
                           .width = 2,
                           .heads = 2,
                           .user_dim = 1,
                           .item_dim = 1,
                           .alpha = 1,
                           .beta = 1,
                           .gamma = 0.1f};
    size_t n = mdl_n_params(&c);
    mdl_real *params = calloc(n, sizeof(mdl_real));
    SET("cam_act.ln1_w", 1, 2);
    SET("cam_act.ln2_w", 1, 1);
    SET("cam_item.ln1_w", 1, 1);
    SET("cam_item.ln2_w", 2, 1);
    SET("cam_gen.ln1_w", 1, 1);
    SET("cam_gen.ln2_w", 1, 1);
    SET("token_hist.E", 0, 0, 1, 0, 0, 0);
    SET("token_hist.P", 0.5, 0, 0, 0);
    SET("cam_act.W_x", 1, 0, 0, 1);
    SET("cam_act.W_c", 0.25, 0);
    SET("cam_act.W_v", 1, 0, 0, 1);
    SET("cam_act.b_v", 0, 1);
    SET("cam_act.b_g", LN3, 0);
    SET("cam_act.W_o", 1, 0, 0, 1);
    SET("cam_act.b_o", 0, 0.25);
    SET("cam_act.ln1_b", 0, 1);
    SET("cam_act.W_1", 1, 0, 0, 0, 0, 0, 0, 0);
    SET("cam_act.b_1", 0, 0.5, 0, 0);
    SET("cam_act.W_2", 0.5, 0, 0, 1, 0, 0, 0, 0);
    SET("cam_act.ln2_b", 0.5, 0);
    SET("cam_item.W_x", 1, 0, 0, 1, 0, 0.25);
    SET("cam_item.ln2_b", 0, 0.5);
    SET("token_gen.E", 0, 0, 0, 1, 0, 0);
    SET("cam_gen.W_x", 1, 0, 0, 1);
    SET("cam_gen.W_c", 1, 0, 0, 1, 0.5, 0, 0, 2);
    SET("decision.W_c1", 1, 0, 0, 1);
    SET("decision.b_c1", 1, 3);
    SET("decision.W_c2", 0, 0, LN2 / 2, 0, 0, 0);
    SET("decision.W_t1", 1, 0, 0, 1);
    SET("decision.w_t2", 0.25, 9);
    SET("decision.b_t2", 0.125);
    mdl_real user[1] = {1}, item[3] = {2, 0, 1};
    int zero[1] = {0}, two[1] = {2}, seq_item[2] = {0, 1}, offset[3] = {0, 1, 2}, hist[2] = {0, 1};
    uint8_t start[2] = {1, 1}, target[2] = {1, 2};
    float none[2] = {0, 0}, target_time[2] = {0, 0.5f};
    int span[2] = {0, 2};
    struct mdl_batch b = {.n_samples = 1,
                          .n_global = 1,
                          .n_users = 1,
                          .n_items = 3,
                          .n_seqs = 2,
                          .user = user,
                          .item = item,
                          .sample_user = zero,
                          .sample_item = two,
                          .seq_item = seq_item,
                          .seq_offset = offset,
                          .seq_action = start,
                          .seq_time = none,
                          .hist_offset = span,
                          .hist_seq = hist,
                          .target_offset = span,
                          .target_action = target,
                          .target_time = target_time};
    void *workspace = aligned_alloc(64, mdl_reference_workspace_bytes(&c, &b));
    struct mdl_losses losses;
    CU_ASSERT_EQUAL(mdl_reference_step(&c, params, &b, workspace, &losses, NULL), 0);
    CU_ASSERT_DOUBLE_EQUAL(losses.cls, LN2, 1e-4);
    CU_ASSERT_DOUBLE_EQUAL(losses.reg, 0.015625, 1e-4);
    CU_ASSERT_DOUBLE_EQUAL(losses.order, 0, 0);
    CU_ASSERT_DOUBLE_EQUAL(losses.total, LN2 + 0.015625, 2e-4);
    free(workspace);
    /* read: P(2) = 1/2 greedily; exactly, start is masked: (1/2) / (1/4 + 1/2) = 2/3, at time 0.375
     * */
    workspace = aligned_alloc(64, mdl_reference_read_workspace_bytes(&c, &b, MDL_READ_EXACT));
    mdl_real p[3], t[3];
    struct mdl_reading reading = {.p = p, .time = t};
    CU_ASSERT_EQUAL(mdl_reference_read(&c, params, &b, MDL_READ_GREEDY, workspace, &reading), 0);
    CU_ASSERT_DOUBLE_EQUAL(p[2], 0.5, 1e-4);
    CU_ASSERT_DOUBLE_EQUAL(t[2], 0.375, 1e-4);
    CU_ASSERT_EQUAL(mdl_reference_read(&c, params, &b, MDL_READ_EXACT, workspace, &reading), 0);
    CU_ASSERT_DOUBLE_EQUAL(p[2], 2.0 / 3, 1e-4);
    CU_ASSERT_DOUBLE_EQUAL(t[2], 0.375, 1e-4);
    free(workspace);
    free(params);
}

SUITE("model.reference", T(test_phi_is_the_time_then_sines_then_cosines),
      T(test_attention_of_two_items_is_as_on_paper), T(test_losses_of_one_sample_are_as_on_paper),
      T(test_a_tiny_model_is_as_on_paper))

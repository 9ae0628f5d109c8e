/* The one matrix product of the fast path: C = A B, with A read through two strides.
 *
 *     y = x W           A = x,   strides (in, 1)
 *     dx = dy W^T       A = dy,  strides (out, 1); B = W transposed once per step
 *     dW = x^T dy       A = x,   strides (1, in); k runs over the rows
 *
 * C is made in register tiles, one panel of columns after the other, so that a panel of B stays in
 * the first cache while the rows of A stream by. Nothing is packed: the operands are rows of tens
 * to hundreds of floats that lie in the second cache already. Included once per level of the
 * machine (level.h). Threads: any.
 */
#ifndef MODEL_FAST_KERNEL_H
#define MODEL_FAST_KERNEL_H

#include <stddef.h>

#include "model/simd.h"

enum {
    MDL_ADD = 1,  /* C += instead of C = */
    MDL_RELU = 2, /* negative results become 0 */
};

#define MDL_DEFINE_PANEL(name, TYPE, AT, VECTORS, ROWS)                                            \
    MDL_INLINE void name##_tile(const int rows, int k, const mdl_real *A, ptrdiff_t ars,           \
                                ptrdiff_t acs, const mdl_real *B, ptrdiff_t ldb,                   \
                                const mdl_real *bias, int flags, mdl_real *C, ptrdiff_t ldc)       \
    {                                                                                              \
        enum { LANES = sizeof(TYPE) / sizeof(mdl_real) };                                          \
        TYPE sum[ROWS][VECTORS];                                                                   \
        _Pragma("GCC unroll 16") for (int r = 0; r < rows; r++)                                    \
        {                                                                                          \
            _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)                              \
            {                                                                                      \
                if (flags & MDL_ADD)                                                               \
                    sum[r][v] = *(const AT *)(C + r * ldc + v * LANES);                            \
                else if (bias)                                                                     \
                    sum[r][v] = *(const AT *)(bias + v * LANES);                                   \
                else                                                                               \
                    sum[r][v] = (TYPE){0};                                                         \
            }                                                                                      \
        }                                                                                          \
        for (int p = 0; p < k; p++) {                                                              \
            const mdl_real *b = B + p * ldb, *a = A + p * acs;                                     \
            TYPE right[VECTORS];                                                                   \
            _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++) right[v] =                   \
                *(const AT *)(b + v * LANES);                                                      \
            _Pragma("GCC unroll 16") for (int r = 0; r < rows; r++)                                \
            {                                                                                      \
                _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++) sum[r][v] +=             \
                    a[r * ars] * right[v];                                                         \
            }                                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 16") for (int r = 0; r < rows; r++)                                    \
        {                                                                                          \
            _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)                              \
            {                                                                                      \
                AT *out = (AT *)(C + r * ldc + v * LANES);                                         \
                *out = flags & MDL_RELU ? name##_relu(sum[r][v]) : sum[r][v];                      \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static __attribute__((noinline, unused)) void name(                                            \
        int m, int k, const mdl_real *A, ptrdiff_t ars, ptrdiff_t acs, const mdl_real *B,          \
        ptrdiff_t ldb, const mdl_real *bias, int flags, mdl_real *C, ptrdiff_t ldc)                \
    {                                                                                              \
        int i = 0;                                                                                 \
        for (; i + ROWS <= m; i += ROWS)                                                           \
            name##_tile(ROWS, k, A + i * ars, ars, acs, B, ldb, bias, flags, C + i * ldc, ldc);    \
        if (ROWS > 8 && i + 8 <= m) {                                                              \
            name##_tile(8 < ROWS ? 8 : 1, k, A + i * ars, ars, acs, B, ldb, bias, flags,           \
                        C + i * ldc, ldc);                                                         \
            i += 8;                                                                                \
        }                                                                                          \
        if (i + 4 <= m) {                                                                          \
            name##_tile(4, k, A + i * ars, ars, acs, B, ldb, bias, flags, C + i * ldc, ldc);       \
            i += 4;                                                                                \
        }                                                                                          \
        if (i + 2 <= m) {                                                                          \
            name##_tile(2, k, A + i * ars, ars, acs, B, ldb, bias, flags, C + i * ldc, ldc);       \
            i += 2;                                                                                \
        }                                                                                          \
        if (i < m)                                                                                 \
            name##_tile(1, k, A + i * ars, ars, acs, B, ldb, bias, flags, C + i * ldc, ldc);       \
    }

MDL_INLINE mdl_vec mdl_vec_relu(mdl_vec x)
{
    return mdl_max(mdl_splat(0), x);
}

MDL_INLINE mdl_real mdl_scalar_relu(mdl_real x)
{
    return 0 > x ? 0 : x;
}

#define mdl_panel4_relu       mdl_vec_relu
#define mdl_panel2_relu       mdl_vec_relu
#define mdl_panel1_relu       mdl_vec_relu
#define mdl_panel_scalar_relu mdl_scalar_relu

/* as many sums as there are registers, less one for each vector of B and one for A */
#if defined(__AVX512F__) || defined(__aarch64__)
#define MDL_WIDE_PANELS 1
MDL_DEFINE_PANEL(mdl_panel4, mdl_vec, mdl_vec_at, 4, 6)
MDL_DEFINE_PANEL(mdl_panel2, mdl_vec, mdl_vec_at, 2, 12)
MDL_DEFINE_PANEL(mdl_panel1, mdl_vec, mdl_vec_at, 1, 12)
#else
#define MDL_WIDE_PANELS 0
MDL_DEFINE_PANEL(mdl_panel2, mdl_vec, mdl_vec_at, 2, 6)
MDL_DEFINE_PANEL(mdl_panel1, mdl_vec, mdl_vec_at, 1, 12)
#endif
#ifdef __AVX512F__
/* heads of 8 are common, and half a vector here */
typedef mdl_real mdl_half __attribute__((vector_size(32)));
typedef mdl_real mdl_half_at __attribute__((vector_size(32), aligned(sizeof(mdl_real)), may_alias));

MDL_INLINE mdl_half mdl_panel_half_relu(mdl_half x)
{
    for (int i = 0; i < MDL_LANES / 2; i++)
        x[i] = 0 > x[i] ? 0 : x[i];
    return x;
}

MDL_DEFINE_PANEL(mdl_panel_half, mdl_half, mdl_half_at, 1, 12)
#endif
MDL_DEFINE_PANEL(mdl_panel_scalar, mdl_real, mdl_real, 1, 6)

/* C [m, n] = A [m, k] B [k, n], A[i][p] = A[i * ars + p * acs], rows of B and C ldb and ldc apart.
 * bias [n] (or NULL) is added to every row; flags: MDL_ADD (then no bias), MDL_RELU. */
MDL_STATIC void mdl_mul(int m, int n, int k, const mdl_real *A, ptrdiff_t ars, ptrdiff_t acs,
                        const mdl_real *B, ptrdiff_t ldb, const mdl_real *bias, int flags,
                        mdl_real *C, ptrdiff_t ldc)
{
    int j = 0;
#define MDL_PANELS(panel, width)                                                                   \
    for (; j + (width) <= n; j += (width))                                                         \
        panel(m, k, A, ars, acs, B + j, ldb, bias ? bias + j : NULL, flags, C + j, ldc);
#if MDL_WIDE_PANELS
    MDL_PANELS(mdl_panel4, 4 * MDL_LANES)
#endif
    MDL_PANELS(mdl_panel2, 2 * MDL_LANES)
    MDL_PANELS(mdl_panel1, MDL_LANES)
#ifdef __AVX512F__
    MDL_PANELS(mdl_panel_half, MDL_LANES / 2)
#endif
    MDL_PANELS(mdl_panel_scalar, 1)
#undef MDL_PANELS
}

#endif

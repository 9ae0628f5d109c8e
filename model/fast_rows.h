/* What happens to rows between the products: exp, softmax, LayerNorm, sums of columns,
 * transposition.
 *
 * Every function works on rows of d numbers, d a multiple of MDL_PAD (the fast path takes no other
 * width), at a stride of its own, while they are warm in the first caches. Included once per level.
 * Threads: any.
 */
#ifndef MODEL_FAST_ROWS_H
#define MODEL_FAST_ROWS_H

#include <math.h>
#include <stddef.h>

#include "model/simd.h"

#define MDL_EPSILON ((mdl_real)1e-5)

/* 1 / sqrt(x) */
MDL_INLINE mdl_real mdl_inverse_root(mdl_real x)
{
#ifdef MDL_DOUBLE
    return 1 / sqrt(x);
#else
    return 1 / sqrtf(x);
#endif
}

/* e^x, elementwise, for x <= 88; exactly 0 from -87 down; NaN of NaN. In float within 2 ulp
 * (tested): 2^n times a polynomial of degree 6 in the rest, |rest| <= ln 2 / 2. */
MDL_INLINE mdl_vec mdl_exp(mdl_vec x)
{
#ifdef MDL_DOUBLE
    for (int i = 0; i < MDL_LANES; i++)
        x[i] = x[i] <= -87 ? 0 : exp(x[i]);
    return x;
#else
    /* adding 1.5 * 2^23 leaves the nearest integer in the low bits */
    const mdl_vec magic = mdl_splat(12582912.0f);
    mdl_vec shifted = x * mdl_splat(1.44269504089f) + magic;
    mdl_vec n = shifted - magic;
    mdl_vec r = x - n * mdl_splat(0.693359375f);
    r = r - n * mdl_splat(-2.12194440e-4f);
    mdl_vec p = mdl_splat(1.9875691500e-4f);
    p = p * r + mdl_splat(1.3981999507e-3f);
    p = p * r + mdl_splat(8.3334519073e-3f);
    p = p * r + mdl_splat(4.1665795894e-2f);
    p = p * r + mdl_splat(1.6666665459e-1f);
    p = p * r + mdl_splat(5.0000001201e-1f);
    p = p * (r * r) + r + mdl_splat(1);
    mdl_bits bits = (mdl_bits)p + (((mdl_bits)shifted - (mdl_bits)magic) << 23);
    return mdl_drop_up_to(x, mdl_splat(-87), (mdl_vec)bits);
#endif
}

/* x[0..n) = e^x, n a multiple of MDL_LANES */
MDL_INLINE void mdl_exp_row(mdl_real *x, int n)
{
    for (int k = 0; k < n; k += MDL_LANES)
        mdl_store(x + k, mdl_exp(mdl_load(x + k)));
}

/* x = softmax(x + bias) over n lanes, n a multiple of MDL_PAD; lanes to be left out carry a bias of
 * -1e30 */
MDL_INLINE void mdl_softmax_row(mdl_real *x, const mdl_real *bias, int n)
{
    mdl_vec max = mdl_splat((mdl_real)-1e30), sum = mdl_splat(0);
    for (int k = 0; k < n; k += MDL_LANES) {
        mdl_vec v = mdl_load(x + k) + mdl_load(bias + k);
        mdl_store(x + k, v);
        max = mdl_max(max, v);
    }
    mdl_vec top = mdl_splat(mdl_max_lane(max));
    for (int k = 0; k < n; k += MDL_LANES) {
        mdl_vec e = mdl_exp(mdl_load(x + k) - top);
        mdl_store(x + k, e);
        sum += e;
    }
    mdl_vec scale = mdl_splat(1 / mdl_sum(sum));
    for (int k = 0; k < n; k += MDL_LANES)
        mdl_store(x + k, mdl_load(x + k) * scale);
}

/* Rows of up to so many vectors are held in registers from one pass over them to the next. */
enum { MDL_HELD = 4 };

/* The rows of mdl_norm_rows, of `vecs` vectors each: a constant where this is inlined. */
MDL_INLINE void mdl_norm_rows_held(const int vecs, int n, const mdl_real *x, ptrdiff_t ldx,
                                   const mdl_real *add, const mdl_real *w, const mdl_real *b,
                                   mdl_real *norm, mdl_real *inv, mdl_real *y)
{
    const int d = vecs * MDL_LANES;
    mdl_real per = 1 / (mdl_real)d;
    for (int i = 0; i < n; i++, x += ldx, norm += d) {
        mdl_vec v[MDL_HELD], sum = mdl_splat(0), squares = mdl_splat(0);
        _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
        {
            v[k] = mdl_load(x + k * MDL_LANES) + mdl_load(add + k * MDL_LANES);
            sum += v[k];
        }
        mdl_vec mean = mdl_splat(mdl_sum(sum) * per);
        _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
        {
            v[k] -= mean;
            squares += v[k] * v[k];
        }
        inv[i] = mdl_inverse_root(mdl_sum(squares) * per + MDL_EPSILON);
        mdl_vec scale = mdl_splat(inv[i]);
        _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
        {
            v[k] *= scale;
            mdl_store(norm + k * MDL_LANES, v[k]);
            if (y)
                mdl_store(y + (ptrdiff_t)i * d + k * MDL_LANES,
                          v[k] * mdl_load(w + k * MDL_LANES) + mdl_load(b + k * MDL_LANES));
        }
    }
}

/* norm [n, d] = (x - mean) / sqrt(variance + eps) of the rows x + add (add: one row), inv [n] =
 * 1 / sqrt(..), and unless y is NULL y [n, d] = w * norm + b */
MDL_STATIC void mdl_norm_rows(int n, int d, const mdl_real *x, ptrdiff_t ldx, const mdl_real *add,
                              const mdl_real *w, const mdl_real *b, mdl_real *norm, mdl_real *inv,
                              mdl_real *y)
{
    if (d == MDL_HELD * MDL_LANES) {
        mdl_norm_rows_held(MDL_HELD, n, x, ldx, add, w, b, norm, inv, y);
        return;
    }
    mdl_real per = 1 / (mdl_real)d;
    for (int i = 0; i < n; i++, x += ldx, norm += d) {
        mdl_vec sum = mdl_splat(0), squares = mdl_splat(0);
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_vec v = mdl_load(x + k) + mdl_load(add + k);
            mdl_store(norm + k, v);
            sum += v;
        }
        mdl_vec mean = mdl_splat(mdl_sum(sum) * per);
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_vec v = mdl_load(norm + k) - mean;
            squares += v * v;
        }
        inv[i] = mdl_inverse_root(mdl_sum(squares) * per + MDL_EPSILON);
        mdl_vec scale = mdl_splat(inv[i]);
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_vec v = (mdl_load(norm + k) - mean) * scale;
            mdl_store(norm + k, v);
            if (y)
                mdl_store(y + (ptrdiff_t)i * d + k, v * mdl_load(w + k) + mdl_load(b + k));
        }
    }
}

/* y [n, d] = w * norm + b */
MDL_STATIC void mdl_affine_rows(int n, int d, const mdl_real *norm, const mdl_real *w,
                                const mdl_real *b, mdl_real *y)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < d; k += MDL_LANES)
            mdl_store(y + (ptrdiff_t)i * d + k,
                      mdl_load(norm + (ptrdiff_t)i * d + k) * mdl_load(w + k) + mdl_load(b + k));
}

/* The rows of mdl_norm_rows_backward, of `vecs` vectors each: a constant where this is inlined. */
MDL_INLINE void mdl_norm_rows_backward_held(const int vecs, int n, const mdl_real *dy,
                                            ptrdiff_t ldy, const mdl_real *w, const mdl_real *norm,
                                            const mdl_real *inv, mdl_real *dx, ptrdiff_t ldx,
                                            mdl_real *dw, mdl_real *db, mdl_real *dadd)
{
    const int d = vecs * MDL_LANES;
    mdl_real per = 1 / (mdl_real)d;
    mdl_vec w_[MDL_HELD], dw_[MDL_HELD], db_[MDL_HELD], dadd_[MDL_HELD];
    _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
    {
        w_[k] = mdl_load(w + k * MDL_LANES);
        dw_[k] = db_[k] = dadd_[k] = mdl_splat(0);
    }
    for (int i = 0; i < n; i++, dy += ldy, dx += ldx, norm += d) {
        mdl_vec x[MDL_HELD], wg[MDL_HELD], sum = mdl_splat(0), along = mdl_splat(0);
        _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
        {
            mdl_vec g = mdl_load(dy + k * MDL_LANES);
            x[k] = mdl_load(norm + k * MDL_LANES);
            wg[k] = g * w_[k];
            sum += wg[k];
            along += wg[k] * x[k];
            dw_[k] += g * x[k];
            db_[k] += g;
        }
        mdl_vec mean = mdl_splat(mdl_sum(sum) * per), slope = mdl_splat(mdl_sum(along) * per);
        mdl_vec scale = mdl_splat(inv[i]);
        _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
        {
            mdl_vec v = scale * (wg[k] - mean - x[k] * slope);
            mdl_store(dx + k * MDL_LANES, v);
            dadd_[k] += v;
        }
    }
    _Pragma("GCC unroll 4") for (int k = 0; k < vecs; k++)
    {
        mdl_store(dw + k * MDL_LANES, mdl_load(dw + k * MDL_LANES) + dw_[k]);
        mdl_store(db + k * MDL_LANES, mdl_load(db + k * MDL_LANES) + db_[k]);
        mdl_store(dadd + k * MDL_LANES, mdl_load(dadd + k * MDL_LANES) + dadd_[k]);
    }
}

/* Backward of LayerNorm: dx = inv (w dy - mean(w dy) - norm mean(w dy norm)), row by row; ldy = 0
 * repeats one row of dy. dw, db [d] are added to, and dadd [d] by the sum of the rows of dx. dx may
 * be dy. */
MDL_STATIC void mdl_norm_rows_backward(int n, int d, const mdl_real *dy, ptrdiff_t ldy,
                                       const mdl_real *w, const mdl_real *norm, const mdl_real *inv,
                                       mdl_real *dx, ptrdiff_t ldx, mdl_real *dw, mdl_real *db,
                                       mdl_real *dadd)
{
    if (d == MDL_HELD * MDL_LANES) {
        mdl_norm_rows_backward_held(MDL_HELD, n, dy, ldy, w, norm, inv, dx, ldx, dw, db, dadd);
        return;
    }
    mdl_real per = 1 / (mdl_real)d;
    for (int i = 0; i < n; i++, dy += ldy, dx += ldx, norm += d) {
        mdl_vec sum = mdl_splat(0), along = mdl_splat(0);
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_vec g = mdl_load(dy + k), x = mdl_load(norm + k), wg = g * mdl_load(w + k);
            sum += wg;
            along += wg * x;
            mdl_store(dw + k, mdl_load(dw + k) + g * x);
            mdl_store(db + k, mdl_load(db + k) + g);
        }
        mdl_vec mean = mdl_splat(mdl_sum(sum) * per), slope = mdl_splat(mdl_sum(along) * per);
        mdl_vec scale = mdl_splat(inv[i]);
        for (int k = 0; k < d; k += MDL_LANES) {
            mdl_vec wg = mdl_load(dy + k) * mdl_load(w + k);
            mdl_vec v = scale * (wg - mean - mdl_load(norm + k) * slope);
            mdl_store(dx + k, v);
            mdl_store(dadd + k, mdl_load(dadd + k) + v);
        }
    }
}

/* dx = dy where y > 0, else 0, in place; db [d] += the sum of the rows */
MDL_STATIC void mdl_relu_rows_backward(int n, int d, const mdl_real *y, mdl_real *dy, mdl_real *db)
{
    for (int k = 0; k < d; k += MDL_LANES) {
        mdl_vec sum = mdl_splat(0);
        for (int i = 0; i < n; i++) {
            ptrdiff_t at = (ptrdiff_t)i * d + k;
            mdl_vec v = mdl_drop_up_to(mdl_load(y + at), mdl_splat(0), mdl_load(dy + at));
            mdl_store(dy + at, v);
            sum += v;
        }
        mdl_store(db + k, mdl_load(db + k) + sum);
    }
}

/* out [d] += the sum of n rows of x */
MDL_STATIC void mdl_add_rows(int n, int d, const mdl_real *x, ptrdiff_t ldx, mdl_real *out)
{
    for (int k = 0; k < d; k += MDL_LANES) {
        mdl_vec sum = mdl_load(out + k);
        for (int i = 0; i < n; i++)
            sum += mdl_load(x + i * ldx + k);
        mdl_store(out + k, sum);
    }
}

/* y += a x over n numbers, any n */
MDL_INLINE void mdl_axpy(int n, mdl_real a, const mdl_real *x, mdl_real *y)
{
    int k = 0;
    for (; k + MDL_LANES <= n; k += MDL_LANES)
        mdl_store(y + k, mdl_load(y + k) + a * mdl_load(x + k));
    for (; k < n; k++)
        y[k] += a * x[k];
}

MDL_INLINE mdl_real mdl_dot(int n, const mdl_real *x, const mdl_real *y)
{
    mdl_vec sum = mdl_splat(0);
    mdl_real rest = 0;
    int k = 0;
    for (; k + MDL_LANES <= n; k += MDL_LANES)
        sum += mdl_load(x + k) * mdl_load(y + k);
    for (; k < n; k++)
        rest += x[k] * y[k];
    return n >= MDL_LANES ? mdl_sum(sum) + rest : rest;
}

/* out [cols, ldo] = the transpose of x [rows, cols] */
MDL_STATIC void mdl_transpose(int rows, int cols, const mdl_real *x, ptrdiff_t ldx, mdl_real *out,
                              ptrdiff_t ldo)
{
    for (int i0 = 0; i0 < rows; i0 += 16)
        for (int j = 0; j < cols; j++)
            for (int i = i0; i < i0 + 16 && i < rows; i++)
                out[j * ldo + i] = x[i * ldx + j];
}

#endif

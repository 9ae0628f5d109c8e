/* Vector code that one compiler turns into SSE, AVX2, AVX-512 or NEON.
 *
 * Vectors are GCC's, as wide as a register of the level that is compiled: 64, 32 or 16 bytes. The
 * hot code of the folder lies in the headers fast_*.h, all of its functions static; level_base.c,
 * level_v3.c and level_v4.c include them, each compiled for one level of x86, and level.h chooses
 * at run time. (target_clones would not do: GCC lowers the vectors of inlined helpers before it
 * inlines them.) Private to the folder. Threads: any.
 */
#ifndef MODEL_SIMD_H
#define MODEL_SIMD_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "model/config.h"

#define MDL_INLINE static inline __attribute__((always_inline, unused))
#define MDL_STATIC static __attribute__((unused))

/* bytes of a vector register */
#if defined(__AVX512F__)
#define MDL_VEC_BYTES 64
#elif defined(__AVX2__)
#define MDL_VEC_BYTES 32
#else
#define MDL_VEC_BYTES 16
#endif

enum {
    MDL_LANES = MDL_VEC_BYTES / sizeof(mdl_real),
    MDL_PAD = 64 / sizeof(mdl_real), /* rows are padded to this, the same for every level */
};

typedef mdl_real mdl_vec __attribute__((vector_size(MDL_VEC_BYTES)));
/* what loads and stores go through: unaligned, aliasing the arrays they view */
typedef mdl_real mdl_vec_at
    __attribute__((vector_size(MDL_VEC_BYTES), aligned(sizeof(mdl_real)), may_alias));
#ifdef MDL_DOUBLE
typedef int64_t mdl_int;
typedef uint64_t mdl_word;
#else
typedef int32_t mdl_int;
typedef uint32_t mdl_word;
#endif
/* what comparisons give, and bits to do arithmetic on */
typedef mdl_int mdl_mask __attribute__((vector_size(MDL_VEC_BYTES)));
typedef mdl_word mdl_bits __attribute__((vector_size(MDL_VEC_BYTES)));

/* n rounded up to MDL_PAD */
MDL_INLINE int mdl_padded(int n)
{
    return (n + MDL_PAD - 1) / MDL_PAD * MDL_PAD;
}

MDL_INLINE mdl_vec mdl_load(const mdl_real *x)
{
    return *(const mdl_vec_at *)x;
}

MDL_INLINE void mdl_store(mdl_real *x, mdl_vec v)
{
    *(mdl_vec_at *)x = v;
}

MDL_INLINE mdl_vec mdl_splat(mdl_real x)
{
    return x - (mdl_vec){0}; /* a scalar beside a vector is repeated; minus 0 keeps even -0 */
}

/* What GCC 12 makes of a choice between vectors in C takes several instructions, and on AVX-512 a
 * detour through mask registers; so the two that are needed are written out there. */
#if defined(__AVX512F__) && defined(MDL_DOUBLE)
#define MDL_512(name) _mm512_##name##_pd
#elif defined(__AVX512F__)
#define MDL_512(name) _mm512_##name##_ps
#endif

/* elementwise a > b ? a : b; a NaN in b stays */
MDL_INLINE mdl_vec mdl_max(mdl_vec a, mdl_vec b)
{
#ifdef __AVX512F__
    return MDL_512(max)(a, b);
#elif defined(__AVX2__) && !defined(MDL_DOUBLE)
    return _mm256_max_ps(a, b);
#else
    mdl_mask mask = a > b;
    return (mdl_vec)((mask & (mdl_mask)a) | (~mask & (mdl_mask)b));
#endif
}

/* v, but 0 where x <= limit */
MDL_INLINE mdl_vec mdl_drop_up_to(mdl_vec x, mdl_vec limit, mdl_vec v)
{
#if defined(__AVX512F__) && defined(MDL_DOUBLE)
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x, limit, _CMP_NLE_UQ), v);
#elif defined(__AVX512F__)
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLE_UQ), v);
#else
    return (mdl_vec)(~(x <= limit) & (mdl_mask)v);
#endif
}

#ifdef MDL_DOUBLE
#define MDL_N_LANES (MDL_VEC_BYTES / 8)
#else
#define MDL_N_LANES (MDL_VEC_BYTES / 4)
#endif
#if MDL_N_LANES == 16
#define MDL_COUNT                                                                                  \
    {                                                                                              \
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15                                       \
    }
#elif MDL_N_LANES == 8
#define MDL_COUNT                                                                                  \
    {                                                                                              \
        0, 1, 2, 3, 4, 5, 6, 7                                                                     \
    }
#elif MDL_N_LANES == 4
#define MDL_COUNT                                                                                  \
    {                                                                                              \
        0, 1, 2, 3                                                                                 \
    }
#else
#define MDL_COUNT                                                                                  \
    {                                                                                              \
        0, 1                                                                                       \
    }
#endif

/* v with lanes i and i ^ width exchanged */
MDL_INLINE mdl_vec mdl_swap(mdl_vec v, int width)
{
#ifdef __clang__ /* knows no shuffle by a variable; it sees through the loop */
    mdl_vec swapped;
    for (int i = 0; i < MDL_N_LANES; i++)
        swapped[i] = v[i ^ width];
    return swapped;
#else
    return __builtin_shuffle(v, (mdl_mask)MDL_COUNT ^ width);
#endif
}

/* the sum of all lanes, in a fixed order */
MDL_INLINE mdl_real mdl_sum(mdl_vec v)
{
    _Pragma("GCC unroll 4") for (int width = MDL_LANES / 2; width > 0; width /= 2) v +=
        mdl_swap(v, width);
    return v[0];
}

/* Lane t of the result is the sum of the lanes of v[t], t < MDL_LANES: every level of the tree adds
 * two vectors' halves into one, so a sum costs three instructions in place of nine. v is used up.
 */
MDL_INLINE mdl_vec mdl_sum_each(mdl_vec v[MDL_LANES])
{
    const mdl_mask lane = MDL_COUNT;
    _Pragma("GCC unroll 4") for (int half = MDL_LANES / 2; half > 0; half /= 2)
    {
        mdl_mask second = (lane & half) != 0; /* lanes of the second vector */
        mdl_mask own = lane + (second & MDL_LANES), other = (lane ^ half) + (second & MDL_LANES);
        _Pragma("GCC unroll 8") for (int t = 0; t < half; t++) v[t] =
            __builtin_shuffle(v[t], v[t + half], own) + __builtin_shuffle(v[t], v[t + half], other);
    }
    return v[0];
}

MDL_INLINE mdl_real mdl_max_lane(mdl_vec v)
{
    _Pragma("GCC unroll 4") for (int width = MDL_LANES / 2; width > 0; width /= 2) v =
        mdl_max(v, mdl_swap(v, width));
    return v[0];
}

#endif

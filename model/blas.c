/* Linear maps over OpenBLAS, in float or, for the gradient proof, in double: the one place that
 * differs between the two builds besides the type itself.
 */
#include "model/blas.h"

#include "model/a2gen.h"

#include <cblas.h>

#include <string.h>

#ifdef MDL_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

void mdl_blas_single_thread(void)
{
    openblas_set_num_threads(1);
}

void mdl_linear(int n, int in, int out, const mdl_real *x, const mdl_real *W, const mdl_real *b,
                mdl_real *y)
{
    for (int i = 0; i < n; i++) {
        if (b)
            memcpy(y + (size_t)i * out, b, (size_t)out * sizeof(*y));
        else
            memset(y + (size_t)i * out, 0, (size_t)out * sizeof(*y));
    }
    mdl_linear_add(n, in, out, x, W, y);
}

void mdl_linear_add(int n, int in, int out, const mdl_real *x, const mdl_real *W, mdl_real *y)
{
    if (n > 0)
        GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, out, in, 1, x, in, W, out, 1, y, out);
}

void mdl_linear_backward(int n, int in, int out, const mdl_real *x, const mdl_real *W,
                         const mdl_real *dy, mdl_real *dx, mdl_real *dW, mdl_real *db)
{
    if (n == 0)
        return;
    if (dx)
        GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, n, in, out, 1, dy, out, W, out, 1, dx, in);
    GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, in, out, n, 1, x, in, dy, out, 1, dW, out);
    for (int i = 0; db && i < n; i++)
        for (int j = 0; j < out; j++)
            db[j] += dy[(size_t)i * out + j];
}

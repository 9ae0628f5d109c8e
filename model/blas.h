/* The three products of a linear map y = x W + b and its gradients, over BLAS, row-major and
 * contiguous.
 *
 * Only this module knows cblas. Threads: any (BLAS itself is set to one thread, a2gen.h).
 */
#ifndef MODEL_BLAS_H
#define MODEL_BLAS_H

#include "model/config.h"

/* y [n, out] = x [n, in] W [in, out] + b [out]; b may be NULL. */
void mdl_linear(int n, int in, int out, const mdl_real *x, const mdl_real *W, const mdl_real *b,
                mdl_real *y);

/* y [n, out] += x [n, in] W [in, out]. */
void mdl_linear_add(int n, int in, int out, const mdl_real *x, const mdl_real *W, mdl_real *y);

/* Backward of both: dx [n, in] += dy W^T (unless dx is NULL), dW [in, out] += x^T dy, db [out] +=
 * the sum of dy's rows (unless db is NULL). */
void mdl_linear_backward(int n, int in, int out, const mdl_real *x, const mdl_real *W,
                         const mdl_real *dy, mdl_real *dx, mdl_real *dW, mdl_real *db);

#endif

/* Computed in double and rounded once: an independent reader of the same log gets the same floats.
 */
#include "worker/transform.h"

#include <math.h>

float wrk_transform_apply(const struct wrk_transform *transform, int64_t dt_ms,
                          double duration_seconds)
{
    double seconds = (double)dt_ms / 1000;
    if (transform->kind == WRK_TRANSFORM_DURATION)
        return (float)(seconds / duration_seconds);
    return (float)(log1p(seconds / transform->unit_seconds) / transform->scale);
}

double wrk_transform_invert(const struct wrk_transform *transform, double t,
                            double duration_seconds)
{
    if (transform->kind == WRK_TRANSFORM_DURATION)
        return t * duration_seconds;
    return expm1(t * transform->scale) * transform->unit_seconds;
}

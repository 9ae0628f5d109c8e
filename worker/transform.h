/* How the time of an action becomes the model's T (DATA.md, rule 2).
 *
 *     log:       T = log1p(dt / unit_seconds) / scale, dt = time - the pair's first time; by
 * default 60 s and 10: 1 minute is 0.07, 2 hours 0.48, 9 days 0.95 duration:  T = seconds since the
 * start / duration of the video: the position where the log has one, else dt
 *
 * Pure functions; threads: any.
 */
#ifndef WORKER_TRANSFORM_H
#define WORKER_TRANSFORM_H

#include <stdint.h>

enum wrk_transform_kind { WRK_TRANSFORM_LOG, WRK_TRANSFORM_DURATION };

struct wrk_transform {
    enum wrk_transform_kind kind;
    double unit_seconds, scale; /* LOG */
};

/* T of dt_ms >= 0; duration_seconds > 0 is read by DURATION only. */
float wrk_transform_apply(const struct wrk_transform *transform, int64_t dt_ms,
                          double duration_seconds);

/* The dt in seconds that has this T: the inverse, for people reading results. */
double wrk_transform_invert(const struct wrk_transform *transform, double t,
                            double duration_seconds);

#endif

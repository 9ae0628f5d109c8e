/* The hot code, compiled once per level of the machine and chosen at run time.
 *
 * level_base.c runs on any processor of the architecture (SSE2 on x86-64, NEON on arm64),
 * level_v3.c needs AVX2 and FMA, level_v4.c AVX-512 (GCC only: clang has no pragma for a file's
 * target, and builds level_base.c alone). Results differ between levels by rounding, so
 * a job that must be bit-identical across machines runs on machines of one level. Private to the
 * folder. Threads: any.
 */
#ifndef MODEL_LEVEL_H
#define MODEL_LEVEL_H

#include "model/a2gen.h"
#include "model/fast_plan.h"
#include "model/fast_read_plan.h"

struct mdl_level {
    const char *name;
    void (*step)(struct mdl_fast *fast, const mdl_real *params, struct mdl_losses *losses_p,
                 struct mdl_grads *grads);
    void (*read)(struct mdl_fast_reading *reading, const mdl_real *params);
};

extern const struct mdl_level mdl_level_base;
#if defined(__x86_64__) && !defined(__clang__)
extern const struct mdl_level mdl_level_v3, mdl_level_v4;
#endif

/* The best level this machine runs. */
const struct mdl_level *mdl_level_best(void);

/* Level i of those this machine runs, best first; NULL past the last. */
const struct mdl_level *mdl_level_at(int i);

#endif

/* The hot code for any processor of the architecture, and the choice among the levels. */
#include "model/level.h"

#include "model/fast_read.h"
#include "model/fast_step.h"

#include <stddef.h>

const struct mdl_level mdl_level_base = {"base", mdl_fast_step, mdl_fast_read};

const struct mdl_level *mdl_level_at(int i)
{
    const struct mdl_level *levels[4] = {NULL};
    int n = 0;
#if defined(__x86_64__) && !defined(__clang__)
    if (__builtin_cpu_supports("x86-64-v4"))
        levels[n++] = &mdl_level_v4;
    if (__builtin_cpu_supports("x86-64-v3"))
        levels[n++] = &mdl_level_v3;
#endif
    levels[n] = &mdl_level_base;
    return i < 4 ? levels[i] : NULL;
}

const struct mdl_level *mdl_level_best(void)
{
    return mdl_level_at(0);
}

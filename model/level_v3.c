/* The hot code for x86-64-v3 (AVX2 and FMA). */
#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v3")
#include "model/level.h"

#include "model/fast_read.h"
#include "model/fast_step.h"

const struct mdl_level mdl_level_v3 = {"x86-64-v3", mdl_fast_step, mdl_fast_read};
#else
typedef int mdl_level_v3_is_for_x86;
#endif

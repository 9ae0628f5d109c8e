/* The hot code for x86-64-v4 (AVX-512). */
#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v4")
#include "model/level.h"

#include "model/fast_read.h"
#include "model/fast_step.h"

const struct mdl_level mdl_level_v4 = {"x86-64-v4", mdl_fast_step, mdl_fast_read};
#else
typedef int mdl_level_v4_is_for_x86;
#endif

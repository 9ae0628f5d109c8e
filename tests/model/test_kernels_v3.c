/* The same tests of the vector code, compiled for x86-64-v3; elsewhere there is nothing to test. */
#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v3")
#endif
#define TESTED_LEVEL "x86-64-v3"
#include "tests/model/test_kernels.c"

/* The same proof with the model in double: no rounding hides a difference between the two paths. */
#include "tests/model/test_a2gen.c"

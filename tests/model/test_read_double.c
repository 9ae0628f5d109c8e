/* The same tests with the model in double: what is magnified is small enough to be compared
 * closely. */
#include "tests/model/test_read.c"

/* Figures of a few rounds: sorted, their middle. */
#ifndef TESTS_BENCH_BENCH_NUMBERS_H
#define TESTS_BENCH_BENCH_NUMBERS_H

#include <stdlib.h>

static inline int bench_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median; sorts them. */
static inline double bench_middle(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(double), bench_by_value);
    return values[n / 2];
}

#endif

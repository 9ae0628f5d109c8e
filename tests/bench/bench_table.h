/* What the parts of bench_table share: options, clock, random keys, JSON lines, and the three
 * stores that the beyond-memory case runs: a shard, plain LMDB, RocksDB (where it was found at
 * configure time). */
#ifndef TESTS_BENCH_BENCH_TABLE_H
#define TESTS_BENCH_BENCH_TABLE_H

#include "embeddings/optimizer.h"
#include "embeddings/shard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_MAX_ROUNDS = 15, BENCH_BATCH = 4096 };

struct bench_options {
    bool tiny;
    uint64_t rows;        /* of the table in memory */
    uint64_t beyond_rows; /* of the table beyond memory */
    int dim, rounds;
    double seconds; /* of each measured run */
    bool cpu;       /* measure processor time, where the machine is shared with other work */
    uint64_t billion;
    double limit; /* seconds that loading the billion may take */
    char dir[512];
    const char *only; /* a part's name, or NULL */
};

double bench_now(void);

/* Processor time of the whole process (user and system, all threads), or bench_now(). */
double bench_clock(const struct bench_options *options);
uint64_t bench_random(uint64_t *state);

/* Zipf by rejection-inversion: ranks 0..n-1 with exponent s (not 1), scattered over the key space.
 * */
struct bench_zipf {
    uint64_t n;
    double s, h_half, h_n, cut;
};
void bench_zipf_init(struct bench_zipf *zipf, uint64_t n, double s);
uint64_t bench_zipf_rank(const struct bench_zipf *zipf, uint64_t *random);
uint64_t bench_key(uint64_t number);

/* Median and (max - min) / median of n samples; sorts them. */
struct bench_spread {
    double median, spread;
};
struct bench_spread bench_spread_of(double *samples, int n);

/* One figure as a JSON line; baseline_name NULL: there is none. */
void bench_line(const char *name, struct bench_spread value, const char *unit,
                const char *baseline_name, double baseline, double ratio);
/* One figure beside its peer, n rounds of both and of their ratio; sorts them. */
void bench_versus(const char *name, double *ours, const char *unit, const char *baseline_name,
                  double *baseline, double *ratio, int n);
void bench_skip(const char *name, const char *why);

/* Resident bytes of this process: all, and those of files. */
void bench_resident(uint64_t *all_p, uint64_t *file_p);

/* Bytes this process has handed to write calls so far. */
uint64_t bench_written(void);

/* A store under the beyond-memory load. */
struct bench_store {
    const char *name;
    void *self;
    int (*pull)(void *self, const uint64_t *keys, size_t n, float *rows);
    int (*push)(void *self, const uint64_t *keys, size_t n, const float *grads, uint64_t step);
    void (*close)(void *self);
};

/* Each loads n_rows rows (adam, dim floats, count and steps) in key order and leaves the store
 * ready. memory_bytes: what it may keep in memory by itself. False when it cannot run here. */
bool bench_open_shard(struct bench_store *store, const struct bench_options *options,
                      uint64_t n_rows, uint64_t memory_bytes);
bool bench_open_lmdb(struct bench_store *store, const struct bench_options *options,
                     uint64_t n_rows, uint64_t memory_bytes);
bool bench_open_rocksdb(struct bench_store *store, const struct bench_options *options,
                        uint64_t n_rows, uint64_t memory_bytes);

/* The bare loop: rows of the same size (embedding, m, v) in one array, found by number: what a
 * table can at most reach. */
struct bench_bare {
    float *rows;
    size_t stride; /* floats */
    uint64_t n;
    int dim;
    struct emb_updater updater;
};
bool bench_bare_open(struct bench_bare *bare, uint64_t n, int dim);
void bench_bare_close(struct bench_bare *bare);

/* Copies rows with others on their way: to the first cache, as is usual, or to the second. */
void bench_bare_pull(const struct bench_bare *bare, const uint64_t *numbers, size_t n, float *out,
                     bool to_l2);

void bench_spec(struct emb_table_spec *spec, int dim);
void bench_walks(const struct bench_options *options);
void bench_beyond(const struct bench_options *options);
void bench_snapshots(const struct bench_options *options);
void bench_restart(const struct bench_options *options);
void bench_billion(const struct bench_options *options);

/* Key of row i of n, spread evenly over the key space and ascending. */
uint64_t bench_spread_key(uint64_t i, uint64_t n);

/* Zipf traffic over rows 0..n_rows-1: 9 pulls of BENCH_BATCH keys, then a push. */
struct bench_race {
    const struct bench_options *options;
    struct bench_zipf zipf;
    uint64_t n_rows, n_spread, random, step, n_pushed; /* rows there; rows that keys were cut for */
    uint64_t keys[BENCH_BATCH];
    float *rows, *grads;
    uint8_t *taken; /* a bit a row: keys of a push are distinct */
};

void bench_race_init(struct bench_race *race, const struct bench_options *options, uint64_t n_rows);
void bench_race_fini(struct bench_race *race);

/* rows/s for a time. */
double bench_race_run(struct bench_race *race, const struct bench_store *store, double seconds);

#endif

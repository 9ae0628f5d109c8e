/* Hashing: how ids become keys, keys become buckets, and a (seed, table, key, lane) becomes a
 * number.
 *
 *     id text --clu_key_of_text--> key --clu_bucket_of--> bucket 0..4095 --map--> shard
 *                                   '----clu_row_init--> the value of a row nobody has written
 *
 * Everything here is a pure function of its arguments and the same on every machine: rows of a
 * table may be computed by any server, worker or reader of an export. Threads: any.
 */
#ifndef CLUSTER_HASH_H
#define CLUSTER_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { CLU_N_BUCKETS = 4096 };

/* XXH3, 64 bits, of size_bytes bytes. */
uint64_t clu_hash_bytes(const void *data, size_t size_bytes);

/* The same of bytes that come one after the other. NULL: no memory. */
struct clu_hash_stream;
struct clu_hash_stream *clu_hash_stream_create(void);
void clu_hash_stream_add(struct clu_hash_stream *stream, const void *data, size_t size_bytes);
uint64_t clu_hash_stream_value(const struct clu_hash_stream *stream); /* of all so far */
void clu_hash_stream_free(struct clu_hash_stream *stream);

/* The finaliser of splitmix64: a bijection of 64 bits. */
uint64_t clu_mix(uint64_t x);

/* The key of an id as it stands in a log. A decimal integer in the range of int64 or uint64,
 * optionally signed, with no other byte around it ("-0" and leading zeros are not integers: they
 * would merge ids), is its 64 bits; any other text is its XXH3. */
uint64_t clu_key_of_text(const char *text, size_t size_bytes);

/* XXH3 of a table's name: the table part of the two functions below. */
uint64_t clu_table_hash(const char *name);

/* The bucket of a row: 0..CLU_N_BUCKETS-1. */
uint32_t clu_bucket_of(uint64_t table_hash, uint64_t key);

/* The initial value of a row [dim]: with h = mix(mix(seed + table_hash) + key), lane i is
 * ((mix(h + (i + 1) * 0x9e3779b97f4a7c15) >> 40) * 2^-23 - 1) * init_range. Source: MODEL.md,
 * Optimisers. */
void clu_row_init(uint64_t seed, uint64_t table_hash, uint64_t key, float init_range, int dim,
                  float *row_p);

#endif

/* The limits that bench_wire measures against: libzmq with nothing of ours on top.
 *
 *     echo     the reply's bytes lie ready; keys and rows are received and dropped
 *     array    rows are gathered from (added to) a plain array by index, prefetched; no table,
 *              no protocol
 *     msgpack  as array, but keys and rows travel as msgpack arrays of numbers
 *
 * Requests and replies have the frames and the bytes of ours. The server is a process of its own.
 */
#ifndef TESTS_BENCH_BENCH_WIRE_BARE_H
#define TESTS_BENCH_BENCH_WIRE_BARE_H

#include <stddef.h>
#include <stdint.h>

enum bare_kind { BARE_ECHO, BARE_ARRAY, BARE_MSGPACK };

enum { BARE_DIM = 32, BARE_HEADER = 53, BARE_REPLY_HEADER = 26 };

/* Serves on endpoint ("...:*"); writes where it listens to fd ready as text with its end, then
 * runs until it is killed. */
void bare_serve(enum bare_kind kind, const char *endpoint, size_t n_rows, int ready);

struct bare_client;

struct bare_client *bare_connect(enum bare_kind kind, const char *endpoint);
void bare_close(struct bare_client *client);

/* Sends one request; rows NULL: a pull. The arrays are lent until its reply. */
void bare_send(struct bare_client *client, const uint64_t *keys, const float *rows, size_t n);

/* Takes the oldest reply; a pull's rows are read where they arrived (msgpack: into rows). */
void bare_receive(struct bare_client *client, float *rows, size_t n);

#endif

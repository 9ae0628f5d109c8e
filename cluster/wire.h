/* The wire between workers and servers: what stands in the frames of a request and of its reply.
 *
 *     request   frame 1 header   frame 2 keys             frame 3 rows (push only)
 *     reply     frame 1 header   frame 2 rows (pull), or a msgpack body (snapshot, stats)
 *
 * A header is one msgpack array. A writer uses the fixed widths below, so that offsets are
 * constant; a reader takes any width that msgpack allows. Keys are little-endian u64, those of the
 * first part first, or coded (see below). Rows are little-endian fp32 or bf16, [n, dim] of the
 * first part first. One message carries all tables that a worker needs of a shard: `parts` lists
 * (table, n) and the frames' sizes must be exactly their sums.
 *
 *   request header            bytes  meaning
 *   offset 0   9b                 1  array of 11
 *          1   02                 1  version
 *          2   op                 1  enum clu_wire_op
 *          3   dtype              1  enum clu_wire_dtype: rows of this request, and of its reply;
 *                                      + 16: the keys are coded
 *          4   ce rank            5  u32 big-endian, as all numbers of msgpack
 *          9   cf incarnation     9  u64: this start of this rank; grows with each start
 *         18   cf seq             9  u64: from 1; a retry repeats it
 *         27   cf step            9  u64: the step that a push belongs to or a pull is for
 *         36   ce owners          5  u32: by which version of the buckets' owners the keys were
 *                                      split (cluster/map.h); modulo 2^32
 *         41   ce deadline_ms     5  u32: how long the server may hold the request
 *         46   9n                 1  array of n_parts; from 16 on: dc n_parts, 3 bytes
 *         47   then for each part 92 cd table (u16) ce n (u32): 9 bytes
 *         47 + 9 n_parts   c4 n     2  n bytes of text follow; from 256 on: c5 n, 3 bytes.
 *                                      hello: the tables' specs; snapshot: the folder, and on
 *                                      lines of their own, if not 0, the step it is a delta upon
 *                                      and the ms it is spread over; collect, release, adopt,
 *                                      forget: moves, 6 bytes each: bucket, from
 *                                      which shard, to which, little-endian u16
 *
 *   reply header              bytes  meaning
 *   offset 0   97                 1  array of 7
 *          1   02                 1  version
 *          2   op                 1  of the request
 *          3   dtype              1  of the rows that follow
 *          4   d0 status          2  i8: 0 or a negative of cluster/status.h
 *          6   cf seq             9  of the request
 *         15   cf step            9  the last step applied here when it was answered
 *         24   c4 n               2  n bytes of text follow (from 256 on c5 n: 3): a sentence
 *                                      when status is not 0
 *
 * Coded keys (wire_keys: delta), where a frame becomes smaller by it: part by part, groups of up to
 * 64 keys; a group is one byte w, 1..8, then each key's difference to the one before (of a
 * part's first: the key itself), modulo 2^64, in w bytes, little-endian. So keys 5, 6, 300 of one
 * part are 02 0500 0100 2601.
 *
 * Worked example: rank 1 of incarnation 7 pulls keys 5 and 6 of table 2 for step 3 as seq 9, fp32,
 * within 1000 ms, by owners 1:
 *     9b 02 02 01 ce00000001 cf0000000000000007 cf0000000000000009 cf0000000000000003
 *     ce00000001 ce000003e8 91 92cd0002ce00000002 c400
 *     0500000000000000 0600000000000000
 * and the header of the reply after step 2; the rows are its second frame:
 *     97 02 02 01 d000 cf0000000000000009 cf0000000000000002 c400
 *
 * Decoding allocates nothing, never reads past the frame, and refuses what does not end where it
 * should. Threads: any.
 */
#ifndef CLUSTER_WIRE_H
#define CLUSTER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CLU_WIRE_VERSION = 2,
    CLU_WIRE_MAX_PARTS = 256,    /* tables in one message */
    CLU_WIRE_MAX_TEXT = 32768,   /* bytes of text in a header */
    CLU_WIRE_MAX_KEYS = 1 << 24, /* keys in one message */
    CLU_WIRE_REQUEST_FIXED = 46, /* bytes before the parts */
    CLU_WIRE_PART_SIZE = 9,      /* bytes of a part */
    CLU_WIRE_MOVE_SIZE = 6,      /* bytes of a move in a text */
    CLU_WIRE_REPLY_FIXED = 24,   /* bytes before the text */
};

/* op         request                               reply
 * HELLO      text: the specs (ps/hello.h)          status; the applied step. From then on nothing
 *                                                  of an older incarnation of the rank is taken
 * PULL       parts, keys                           rows
 * PUSH       parts, keys, gradients; may be empty  after it is applied and committed
 * STEP       step                                  once every step <= step is applied
 * SNAPSHOT   step, text: folder                    once this shard's part is written: its files
 * STATS      -                                     counters, a msgpack map of name to number
 * DRAIN      -                                     once everything received is applied and durable
 * CONFIRM    step: its snapshot is committed       status
 * COLLECT    text: moves                           once the rows of buckets that will leave are
 *                                                  known: a msgpack array of their numbers
 * RELEASE    step, owners, text: moves             once step is applied and what leaves is in a
 * file ADOPT      step, owners, text: moves             once what arrives is taken in: the owners
 * are
 *                                                  those of this version from now on
 * FORGET     owners, text: moves                   once what has left is dropped
 * BEGIN      step: the next to be applied is       once that is durable; nothing when as many
 *            step + 1, whatever is missing         steps are applied already
 * COLLECT to FORGET: ps/shard_move.c; HELLO, BEGIN: ps/shard_life.c. */
/* Any reply may carry a status instead: AGAIN: no room, ask again soon; EXISTS, to a retry: the
 * first try waits here and will be answered. */
enum clu_wire_op {
    CLU_WIRE_HELLO = 1,
    CLU_WIRE_PULL,
    CLU_WIRE_PUSH,
    CLU_WIRE_STEP,
    CLU_WIRE_SNAPSHOT,
    CLU_WIRE_STATS,
    CLU_WIRE_DRAIN,
    CLU_WIRE_CONFIRM,
    CLU_WIRE_COLLECT,
    CLU_WIRE_RELEASE,
    CLU_WIRE_ADOPT,
    CLU_WIRE_FORGET,
    CLU_WIRE_BEGIN,
    CLU_WIRE_N_OPS
};

enum { CLU_WIRE_CODED = 16 }; /* beside a request's dtype */

enum clu_wire_dtype { CLU_WIRE_NONE = 0, CLU_WIRE_FP32 = 1, CLU_WIRE_BF16 = 2, CLU_WIRE_N_DTYPES };

struct clu_wire_part {
    uint16_t table;
    uint32_t n;
};

struct clu_wire_request {
    int op, dtype;
    uint32_t rank, owners, deadline_ms;
    uint64_t incarnation, seq, step;
    bool coded; /* the keys' frame: clu_wire_encode_keys */
    int n_parts;
    uint64_t n_keys; /* the parts' sum; computed by decode, ignored by encode */
    struct clu_wire_part part[CLU_WIRE_MAX_PARTS];
    const char *text; /* [n_text] a view; not ended by a zero */
    uint32_t n_text;
};

struct clu_wire_reply {
    int op, dtype, status;
    uint64_t seq, step;
    const char *text; /* [n_text] a view */
    uint32_t n_text;
};

/* Bytes that clu_wire_encode_request writes. */
size_t clu_wire_request_size(const struct clu_wire_request *request);

/* Writes the header. Returns its size; buffer has clu_wire_request_size bytes. */
size_t clu_wire_encode_request(const struct clu_wire_request *request, void *buffer);

/* Reads a header of size_bytes. Errors, not logged: CLU_E_PROTOCOL: anything else than such a
 * header, a version or op or dtype not known here, too many parts or keys. *reason_p is then a
 * static word for counting
 * ("version", "op", "parts", ...). request_p->version mismatches still fill op and seq when
 * readable. */
int clu_wire_decode_request(const void *data, size_t size_bytes, struct clu_wire_request *request_p,
                            const char **reason_p);

size_t clu_wire_reply_size(const struct clu_wire_reply *reply);
size_t clu_wire_encode_reply(const struct clu_wire_reply *reply, void *buffer);
int clu_wire_decode_reply(const void *data, size_t size_bytes, struct clu_wire_reply *reply_p);

/* Bytes of some parts' keys (n: the parts' sum) when they are coded; may be more than 8 a key. */
size_t clu_wire_coded_keys_size(const struct clu_wire_part *part, int n_parts,
                                const uint64_t *keys);

/* Writes them; size_bytes: of the buffer, as clu_wire_coded_keys_size said. */
void clu_wire_encode_keys(const struct clu_wire_part *part, int n_parts, const uint64_t *keys,
                          void *buffer, size_t size_bytes);

/* True when a frame of that size may hold n_keys coded keys, which makes it smaller than plain
 * ones: look before allocating for them. */
bool clu_wire_are_coded_keys(size_t size_bytes, size_t n_keys);

/* Reads them; keys_p [the parts' sum]. PROTOCOL, not logged: anything else than such keys. */
int clu_wire_decode_keys(const void *data, size_t size_bytes, const struct clu_wire_part *part,
                         int n_parts, uint64_t *keys_p);

/* Bytes of one number of a row. 0 for CLU_WIRE_NONE. */
size_t clu_wire_dtype_size(int dtype);

/* "fp32", "bf16" or "bf16_feedback" to enum clu_wire_dtype; 0 for any other. */
int clu_wire_dtype_of(const char *name);

/* n floats to bf16, nearest, ties to even (a NaN stays one), and back (from: at any
 * address). */
void clu_wire_to_bf16(const float *from, size_t n, uint16_t *to_p);
void clu_wire_from_bf16(const void *from, size_t n, float *to_p);

#endif

/* msgpack behind a bounded writer and a bounds-checked reader: what every header, record and block
 * of the system is written in.
 *
 * Writer: bytes go to a growing buffer; the first failure (no memory) sticks and is reported by
 * clu_packer_status, so calls need not be checked one by one. Reader: walks a borrowed buffer
 * without allocation; text and bin come back as views into it; a type other than the one asked for,
 * a cut buffer, or a number out of range is CLU_E_PROTOCOL and nothing is logged (the caller knows
 * what the bytes were). Threads: one object, one thread.
 */
#ifndef CLUSTER_PACK_H
#define CLUSTER_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct clu_packer {
    char *data; /* owned */
    size_t size_bytes, capacity;
    int status;
};

void clu_packer_init(struct clu_packer *packer);
void clu_packer_fini(struct clu_packer *packer);

/* Empties the buffer and keeps its memory; clears the status. */
void clu_packer_clear(struct clu_packer *packer);

/* CLU_OK, or what the first failed call failed with. */
int clu_packer_status(const struct clu_packer *packer);

void clu_pack_nil(struct clu_packer *packer);
void clu_pack_bool(struct clu_packer *packer, bool value);
void clu_pack_uint(struct clu_packer *packer, uint64_t value);
void clu_pack_int(struct clu_packer *packer, int64_t value);
void clu_pack_float(struct clu_packer *packer, float value);
void clu_pack_real(struct clu_packer *packer, double value);
void clu_pack_text(struct clu_packer *packer, const char *text);
void clu_pack_text_n(struct clu_packer *packer, const char *text, size_t size_bytes);
void clu_pack_bin(struct clu_packer *packer, const void *data, size_t size_bytes);

/* A container of n items (pairs for a map) follows. */
void clu_pack_array(struct clu_packer *packer, size_t n);
void clu_pack_map(struct clu_packer *packer, size_t n);

struct clu_unpacker {
    const uint8_t *data;
    size_t size_bytes, at;
};

enum clu_pack_kind {
    CLU_PACK_NIL,
    CLU_PACK_BOOL,
    CLU_PACK_INTEGER,
    CLU_PACK_REAL,
    CLU_PACK_TEXT,
    CLU_PACK_BIN,
    CLU_PACK_ARRAY,
    CLU_PACK_MAP,
    CLU_PACK_OTHER,
};

/* Starts at the first byte; data is borrowed. */
void clu_unpacker_init(struct clu_unpacker *unpacker, const void *data, size_t size_bytes);

/* True when every byte was read. */
bool clu_unpack_at_end(const struct clu_unpacker *unpacker);

/* The kind of the next item, without reading it; PROTOCOL at the end. */
int clu_unpack_peek(const struct clu_unpacker *unpacker, enum clu_pack_kind *kind_p);

int clu_unpack_nil(struct clu_unpacker *unpacker);
int clu_unpack_bool(struct clu_unpacker *unpacker, bool *value_p);
int clu_unpack_uint(struct clu_unpacker *unpacker, uint64_t *value_p);
int clu_unpack_int(struct clu_unpacker *unpacker, int64_t *value_p);

/* Any integer whose bits fit 64, signed or not, as those bits. */
int clu_unpack_bits(struct clu_unpacker *unpacker, uint64_t *bits_p);

/* float, double or integer. */
int clu_unpack_real(struct clu_unpacker *unpacker, double *value_p);
int clu_unpack_text(struct clu_unpacker *unpacker, const char **text_p, size_t *size_p);
int clu_unpack_bin(struct clu_unpacker *unpacker, const void **data_p, size_t *size_p);

/* n never exceeds the bytes left, so it is safe to allocate by. */
int clu_unpack_array(struct clu_unpacker *unpacker, size_t *n_p);
int clu_unpack_map(struct clu_unpacker *unpacker, size_t *n_p);

/* Reads a map's key and compares: *match_p tells. */
int clu_unpack_key_is(struct clu_unpacker *unpacker, const char *key, bool *match_p);

/* Passes over the next item whatever it is, at most 32 levels deep. */
int clu_unpack_skip(struct clu_unpacker *unpacker);

#endif

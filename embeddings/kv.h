/* A small durable map of texts to bytes: LMDB for state of a few megabytes (the scheduler's own).
 *
 * Every put is a transaction of its own, synced when it returns; several may be grouped by begin
 * and commit. Values are checksummed: a damaged one is CORRUPT. Keys are 1..500 bytes of text.
 * Threads: one owner.
 */
#ifndef EMBEDDINGS_KV_H
#define EMBEDDINGS_KV_H

#include <stddef.h>
#include <stdint.h>

struct emb_kv;

/* Opens or creates the environment in folder dir (made when not there). */
int emb_kv_open(const char *dir, struct emb_kv **kv_p);
void emb_kv_close(struct emb_kv *kv);

/* Groups the puts and deletes up to commit into one transaction; gets in between see them. */
int emb_kv_begin(struct emb_kv *kv);
int emb_kv_commit(struct emb_kv *kv);
void emb_kv_abort(struct emb_kv *kv);

int emb_kv_put(struct emb_kv *kv, const char *key, const void *data, size_t size_bytes);

/* A heap copy that the caller frees, with one NUL behind the last byte. NOT_FOUND (not logged). */
int emb_kv_get(struct emb_kv *kv, const char *key, void **data_p, size_t *size_p);

/* Deletes; a key that is not there is fine. */
int emb_kv_delete(struct emb_kv *kv, const char *key);

/* Calls visit for each key that starts with prefix, in order, until it returns non-zero, which is
 * returned. */
int emb_kv_each(struct emb_kv *kv, const char *prefix,
                int (*visit)(const char *key, const void *data, size_t size_bytes, void *arg),
                void *arg);

#endif

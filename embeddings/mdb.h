/* LMDB's status codes as ours; only embeddings' own .c files include this. */
#ifndef EMBEDDINGS_MDB_H
#define EMBEDDINGS_MDB_H

/* Translates an LMDB code: 0 OK, MDB_NOTFOUND NOT_FOUND, a full map or disk FULL, damage CORRUPT,
 * else as errno. Nothing is logged. */
int emb_mdb_status(int code);

/* The same, logging what failed on what for everything but OK, NOT_FOUND. */
int emb_mdb_fail(int code, const char *action, const char *path);

#endif

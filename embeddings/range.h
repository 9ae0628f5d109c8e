/* Ranges of memory that grow in place, and the thread that makes their pages ready.
 *
 *     base |== used ==|== ahead: committed, being made present ==|-- reserved addresses --|
 *
 * A range reserves addresses and commits them from the front, on huge pages where the system gives
 * them. The first touch of a fresh huge page costs its zeroing, and more when the system has to
 * make one free first: milliseconds, which whoever pushes would wait for. So a range that has grown
 * large stays some way ahead of its use, and a feeder touches what is ahead, in its own time.
 *
 * Threads: a range and its calls belong to one owner; the feeder only asks the system to make pages
 * present, it never reads or writes them.
 */
#ifndef EMBEDDINGS_RANGE_H
#define EMBEDDINGS_RANGE_H

#include <stdbool.h>
#include <stddef.h>

struct emb_feeder;

/* A range of addresses of which the first committed bytes are usable. */
struct emb_range {
    char *base;
    size_t reserved, committed;
    bool open; /* all of it is usable, as far as the system is concerned */
    bool huge; /* huge pages have been asked for */
};

/* Address space only, from a huge page's boundary; the wish is halved until it is granted.
 * NO_MEMORY. */
int emb_range_reserve(struct emb_range *range, size_t wish_bytes);

/* Makes the first needed bytes usable. NO_MEMORY. */
int emb_range_commit(struct emb_range *range, size_t needed_bytes);

/* Bytes that commit would add for that: ranges grow by whole steps. */
size_t emb_range_growth(const struct emb_range *range, size_t needed_bytes);

/* Commits and feeds what will be used next, where less than half of it is left: a quarter of what
 * is used, at most 32 MiB; nothing for ranges below 4 MiB. Failing, it does nothing. *feeder_p is
 * made when it is first needed. */
void emb_range_ahead(struct emb_range *range, size_t used_bytes, struct emb_feeder **feeder_p);

/* Gives pages behind `keep` bytes back. The feeder must be settled. */
void emb_range_trim(struct emb_range *range, size_t keep_bytes);
void emb_range_release(struct emb_range *range);

/* Drops what the feeder was asked for and waits until it rests. NULL is fine. */
void emb_feeder_settle(struct emb_feeder *feeder);
void emb_feeder_free(struct emb_feeder *feeder); /* NULL is fine */

#endif

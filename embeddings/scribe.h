/* A shard's second hand: one thread that does pieces of work which nobody waits for, at a priority
 * below everything that trains.
 *
 *     owner: give(work) ... serves on ... busy? no: take() its status, give the next piece
 *     scribe:  `--- runs it on what the cores have left over ---'
 *
 * A piece must not touch what the owner uses meanwhile; whoever needs that, takes first. Where the
 * machine is so busy that nothing is left over, the pieces get almost no time: the owner then says
 * that it is in a hurry, and they run as any other thread does.
 *
 * All functions are the owner's. The thread begins with the first piece.
 */
#ifndef EMBEDDINGS_SCRIBE_H
#define EMBEDDINGS_SCRIBE_H

#include <stdbool.h>

struct emb_scribe;

int emb_scribe_create(struct emb_scribe **scribe_p);
void emb_scribe_free(struct emb_scribe *scribe); /* waits for the piece under way */

/* The last piece must have been taken. When there is no thread to be had, the work is done here. */
void emb_scribe_give(struct emb_scribe *scribe, int (*work)(void *context), void *context);

/* A piece is under way; false: it is done, or there is none. */
bool emb_scribe_is_busy(const struct emb_scribe *scribe);

/* Waits for the piece under way; its status. OK when there is none. */
int emb_scribe_take(struct emb_scribe *scribe);

/* From the next piece on. */
void emb_scribe_hurry(struct emb_scribe *scribe, bool hurry);

#endif

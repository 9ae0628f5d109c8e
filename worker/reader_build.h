/* Samples of decoded frames become the index arrays of a batch, everything that is equal standing
 * once.
 *
 * A builder keeps growing arrays from batch to batch and copies them into one allocation per batch.
 * Threads: one owner; what take returns belongs to whoever holds it.
 */
#ifndef WORKER_READER_BUILD_H
#define WORKER_READER_BUILD_H

#include "worker/reader.h"
#include "worker/reader_frame.h"

struct wrk_builder;

int wrk_builder_create(const struct wrk_dataset *dataset, const struct wrk_reader_options *options,
                       struct wrk_builder **builder_p);
void wrk_builder_free(struct wrk_builder *builder); /* NULL is fine */

/* Begins a batch. */
void wrk_builder_start(struct wrk_builder *builder);

/* Adds the sample that is pair `pair` of a frame. Samples of a user must come in the order of their
 * pairs. */
int wrk_builder_add(struct wrk_builder *builder, struct wrk_reader_frame *frame, uint32_t pair);

/* Ends the batch. */
int wrk_builder_take(struct wrk_builder *builder, struct wrk_position position, int n_global,
                     struct wrk_samples **samples_p);

#endif

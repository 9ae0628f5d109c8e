/* Hello: what a client and a shard must agree on before a row moves: the tables and the
 * consistency.
 *
 * The text is a msgpack array: [ranks, staleness, tables], a table being [name, dim, optimizer,
 * learning_rate, beta1, beta2, epsilon, l1, l2, init_range, seed, dtype, min_count, expire_steps].
 * Both sides write theirs and the shard compares field by field, so that the refusal names what
 * differs. Threads: any.
 */
#ifndef PS_HELLO_H
#define PS_HELLO_H

#include <stddef.h>
#include <stdint.h>

struct clu_packer;
struct emb_table_spec;

struct psv_terms {
    int n_ranks;
    int64_t staleness;
    const struct emb_table_spec *tables; /* [n_tables] */
    int n_tables;
};

/* Writes the text into a packer (cleared first). Errors: CLU_E_NO_MEMORY. */
int psv_hello_pack(const struct psv_terms *terms, struct clu_packer *packer);

/* Compares a peer's text with ours. 0; CLU_E_PROTOCOL: not such a text; CLU_E_CONFIG: they differ,
 * and sentence_p says in what. */
int psv_hello_check(const struct psv_terms *terms, const void *text, size_t size_bytes,
                    char *sentence_p, size_t sentence_bytes);

#endif

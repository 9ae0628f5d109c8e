/* A hello is written once a connection and read once, so it is self-describing enough to name a
 * difference, and no more.
 */
#include "ps/hello.h"

#include "cluster/pack.h"
#include "cluster/status.h"
#include "embeddings/table.h"

#include <stdio.h>
#include <string.h>

enum { N_FIELDS = 14 };

static void pack_table(struct clu_packer *packer, const struct emb_table_spec *table)
{
    clu_pack_array(packer, N_FIELDS);
    clu_pack_text(packer, table->name);
    clu_pack_int(packer, table->dim);
    clu_pack_text(packer, emb_optimizer_name(table->optimizer));
    clu_pack_real(packer, table->learning_rate);
    clu_pack_real(packer, table->beta1);
    clu_pack_real(packer, table->beta2);
    clu_pack_real(packer, table->epsilon);
    clu_pack_real(packer, table->l1);
    clu_pack_real(packer, table->l2);
    clu_pack_real(packer, table->init_range);
    clu_pack_uint(packer, table->seed);
    clu_pack_text(packer, emb_dtype_name(table->dtype));
    clu_pack_int(packer, table->min_count);
    clu_pack_int(packer, table->expire_steps);
}

int psv_hello_pack(const struct psv_terms *terms, struct clu_packer *packer)
{
    clu_packer_clear(packer);
    clu_pack_array(packer, 3);
    clu_pack_int(packer, terms->n_ranks);
    clu_pack_int(packer, terms->staleness);
    clu_pack_array(packer, (size_t)terms->n_tables);
    for (int t = 0; t < terms->n_tables; t++)
        pack_table(packer, &terms->tables[t]);
    return clu_packer_status(packer);
}

static const char *const field_name[N_FIELDS] = {
    "name", "dim", "optimizer",  "learning_rate", "beta1", "beta2",     "epsilon",
    "l1",   "l2",  "init_range", "seed",          "dtype", "min_count", "expire_steps",
};

/* both unpackers stand at a table; compares item by item through the bytes of each */
static int check_table(struct clu_unpacker *theirs, struct clu_unpacker *ours, const char *name,
                       char *sentence, size_t capacity)
{
    size_t n = 0, n_ours = 0;
    if (clu_unpack_array(theirs, &n) || n != N_FIELDS || clu_unpack_array(ours, &n_ours))
        return CLU_E_PROTOCOL;
    for (int f = 0; f < N_FIELDS; f++) {
        size_t at = theirs->at, at_ours = ours->at;
        if (clu_unpack_skip(theirs) || clu_unpack_skip(ours))
            return CLU_E_PROTOCOL;
        size_t size = theirs->at - at;
        if (size == ours->at - at_ours && !memcmp(theirs->data + at, ours->data + at_ours, size))
            continue;
        snprintf(sentence, capacity,
                 "table %s: %s is not the server's; were both started with the same "
                 "job file and data?",
                 name, field_name[f]);
        return CLU_E_CONFIG;
    }
    return 0;
}

int psv_hello_check(const struct psv_terms *terms, const void *text, size_t size_bytes,
                    char *sentence_p, size_t sentence_bytes)
{
    struct clu_packer packer;
    struct clu_unpacker theirs, ours;
    size_t n;
    int64_t n_ranks, staleness, skipped;
    clu_unpacker_init(&theirs, text, size_bytes);
    if (clu_unpack_array(&theirs, &n) || n != 3 || clu_unpack_int(&theirs, &n_ranks) ||
        clu_unpack_int(&theirs, &staleness) || clu_unpack_array(&theirs, &n))
        return CLU_E_PROTOCOL;
    if (n_ranks != terms->n_ranks || staleness != terms->staleness) {
        snprintf(sentence_p, sentence_bytes,
                 "the client says %lld workers at staleness %lld, the server %d at %lld",
                 (long long)n_ranks, (long long)staleness, terms->n_ranks,
                 (long long)terms->staleness);
        return CLU_E_CONFIG;
    }
    if (n != (size_t)terms->n_tables) {
        snprintf(sentence_p, sentence_bytes, "the client has %zu tables, the server %d", n,
                 terms->n_tables);
        return CLU_E_CONFIG;
    }
    clu_packer_init(&packer);
    int status = psv_hello_pack(terms, &packer);
    clu_unpacker_init(&ours, packer.data, packer.size_bytes);
    if (!status && (clu_unpack_array(&ours, &n) || clu_unpack_int(&ours, &skipped) ||
                    clu_unpack_int(&ours, &skipped) || clu_unpack_array(&ours, &n)))
        status = CLU_E_BUG;
    for (int t = 0; !status && t < terms->n_tables; t++)
        status = check_table(&theirs, &ours, terms->tables[t].name, sentence_p, sentence_bytes);
    if (!status && !clu_unpack_at_end(&theirs))
        status = CLU_E_PROTOCOL;
    clu_packer_fini(&packer);
    return status;
}

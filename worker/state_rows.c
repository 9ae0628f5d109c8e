/* The row files of a snapshot and of the links below it, found by their manifests and merged by
 * embeddings/snapshot_merge.h. */
#include "worker/state_rows.h"

#include "cluster/log.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "embeddings/snapshot_merge.h"

#include <stdlib.h>

struct wrk_state_rows {
    struct emb_snapshot_merge *merge;
};

int wrk_state_rows_open(const char *folder, struct wrk_state_rows **rows_p)
{
    struct clu_snapshot snapshot;
    int status = clu_snapshot_open(folder, &snapshot);
    if (status)
        return status;
    const char **paths = NULL;
    size_t n = 0;
    struct wrk_state_rows *rows = calloc(1, sizeof(*rows));
    status = rows ? clu_snapshot_row_files(&snapshot, &paths, &n)
                  : clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read its rows", folder);
    if (!status)
        status = emb_snapshot_merge_open(paths, n, NULL, &rows->merge);
    free(paths);
    clu_snapshot_fini(&snapshot);
    if (status)
        wrk_state_rows_close(rows);
    else
        *rows_p = rows;
    return status;
}

int wrk_state_rows_n_tables(const struct wrk_state_rows *rows)
{
    return emb_snapshot_merge_info(rows->merge)->n_tables;
}

const struct emb_table_spec *wrk_state_rows_table(const struct wrk_state_rows *rows, int table)
{
    return &emb_snapshot_merge_info(rows->merge)->tables[table];
}

int wrk_state_rows_next(struct wrk_state_rows *rows, struct emb_row *row_p)
{
    return emb_snapshot_merge_next(rows->merge, row_p);
}

void wrk_state_rows_close(struct wrk_state_rows *rows)
{
    if (!rows)
        return;
    emb_snapshot_merge_close(rows->merge);
    free(rows);
}

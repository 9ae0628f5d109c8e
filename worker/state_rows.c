/* The row files of a snapshot, found by its manifest and merged by embeddings/snapshot_merge.h. */
#include "worker/state_rows.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/manifest.h"
#include "cluster/status.h"
#include "embeddings/snapshot_merge.h"

#include <stdlib.h>
#include <string.h>

struct wrk_state_rows {
    struct emb_snapshot_merge *merge;
};

static int open_files(const char *folder, const struct clu_manifest *manifest,
                      struct emb_snapshot_merge **merge_p)
{
    size_t n = 0;
    char(*text)[CLU_PATH_BYTES] = calloc((size_t)manifest->n_files + 1, sizeof(*text));
    const char **paths = calloc((size_t)manifest->n_files + 1, sizeof(*paths));
    int status = text && paths
                     ? CLU_OK
                     : clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read its rows", folder);
    for (int i = 0; i < manifest->n_files && !status; i++)
        if (!strncmp(manifest->files[i].path, "rows/", 5)) {
            status = clu_path_join(text[n], sizeof(text[n]), folder, manifest->files[i].path);
            paths[n] = text[n];
            n++;
        }
    if (!status && n == 0)
        status = clu_fail(CLU_E_CORRUPT, "%s: the manifest lists no file under rows/", folder);
    if (!status)
        status = emb_snapshot_merge_open(paths, n, NULL, merge_p);
    free(paths);
    free(text);
    return status;
}

int wrk_state_rows_open(const char *folder, struct wrk_state_rows **rows_p)
{
    struct clu_manifest manifest;
    int status = clu_manifest_load(folder, &manifest);
    if (status)
        return status;
    struct wrk_state_rows *rows = calloc(1, sizeof(*rows));
    status = rows ? open_files(folder, &manifest, &rows->merge)
                  : clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read its rows", folder);
    clu_manifest_fini(&manifest);
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

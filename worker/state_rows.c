/* A k-way merge of a snapshot's row files.
 *
 * Every shard writes one file, sorted; a job has a handful to a few hundred of them. The next row
 * is the smallest (table, key) over the files' heads, found by a plain scan of the heads: with a
 * hundred files that is still cheaper than reading the row's bytes from disk, and a heap would buy
 * nothing but code. Among equal keys the file of the highest step wins and the others move on
 * unseen.
 */
#include "worker/state_rows.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/manifest.h"
#include "cluster/status.h"
#include "embeddings/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct head {
    struct emb_snapshot_reader *reader;
    uint64_t step;
    struct emb_row row;
    int done;
    int stale; /* its row was handed out or passed over: read the next before looking */
};

struct wrk_state_rows {
    struct head *heads;
    int n_heads;
    int n_tables;
    struct emb_table_spec tables[EMB_MAX_TABLES];
};

static int advance(struct head *head)
{
    if (!head->stale || head->done)
        return CLU_OK;
    int status = emb_snapshot_reader_next(head->reader, &head->row);
    if (status == CLU_E_NOT_FOUND) {
        head->done = 1;
        return CLU_OK;
    }
    head->stale = 0;
    return status;
}

static int same_tables(const struct wrk_state_rows *rows, const struct emb_snapshot_info *info)
{
    if (info->n_tables != rows->n_tables)
        return 0;
    for (int i = 0; i < rows->n_tables; i++)
        if (strcmp(info->tables[i].name, rows->tables[i].name) != 0 ||
            info->tables[i].dim != rows->tables[i].dim ||
            info->tables[i].optimizer != rows->tables[i].optimizer ||
            info->tables[i].seed != rows->tables[i].seed)
            return 0;
    return 1;
}

static int open_file(struct wrk_state_rows *rows, const char *folder, const char *name)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), folder, name);
    struct head *head = &rows->heads[rows->n_heads];
    if (!status)
        status = emb_snapshot_reader_open(path, &head->reader);
    if (status)
        return status;
    const struct emb_snapshot_info *info = emb_snapshot_reader_info(head->reader);
    head->step = info->step;
    head->stale = 1;
    if (rows->n_heads++ == 0) {
        rows->n_tables = info->n_tables;
        memcpy(rows->tables, info->tables, sizeof(rows->tables));
    } else if (!same_tables(rows, info)) {
        return clu_fail(CLU_E_CORRUPT, "%s: its tables are not those of the files beside it", path);
    }
    return CLU_OK;
}

int wrk_state_rows_open(const char *folder, struct wrk_state_rows **rows_p)
{
    struct clu_manifest manifest;
    int status = clu_manifest_load(folder, &manifest);
    if (status)
        return status;
    struct wrk_state_rows *rows = calloc(1, sizeof(*rows));
    if (rows)
        rows->heads = calloc((size_t)manifest.n_files + 1, sizeof(*rows->heads));
    if (!rows || !rows->heads)
        status = clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read its rows", folder);
    for (int i = 0; i < manifest.n_files && !status; i++)
        if (!strncmp(manifest.files[i].path, "rows/", 5))
            status = open_file(rows, folder, manifest.files[i].path);
    clu_manifest_fini(&manifest);
    if (!status && !rows->n_heads)
        status = clu_fail(CLU_E_CORRUPT, "%s: the manifest lists no file under rows/", folder);
    if (status) {
        wrk_state_rows_close(rows);
        return status;
    }
    *rows_p = rows;
    return CLU_OK;
}

int wrk_state_rows_n_tables(const struct wrk_state_rows *rows)
{
    return rows->n_tables;
}

const struct emb_table_spec *wrk_state_rows_table(const struct wrk_state_rows *rows, int table)
{
    return &rows->tables[table];
}

/* less than 0, 0 or greater, by (table, key) */
static int compare(const struct emb_row *a, const struct emb_row *b)
{
    if (a->table != b->table)
        return a->table < b->table ? -1 : 1;
    return (a->key > b->key) - (a->key < b->key);
}

int wrk_state_rows_next(struct wrk_state_rows *rows, struct emb_row *row_p)
{
    for (;;) {
        struct head *best = NULL;
        for (int i = 0; i < rows->n_heads; i++) {
            struct head *head = &rows->heads[i];
            int status = advance(head);
            if (status)
                return status;
            if (head->done)
                continue;
            int order = best ? compare(&head->row, &best->row) : -1;
            if (order < 0 || (order == 0 && head->step > best->step))
                best = head;
        }
        if (!best)
            return CLU_E_NOT_FOUND;
        for (int i = 0; i < rows->n_heads; i++) {
            struct head *head = &rows->heads[i];
            if (!head->done && compare(&head->row, &best->row) == 0)
                head->stale = 1;
        }
        if (best->row.is_tombstone)
            continue;
        *row_p = best->row;
        return CLU_OK;
    }
}

void wrk_state_rows_close(struct wrk_state_rows *rows)
{
    if (!rows)
        return;
    for (int i = 0; i < rows->n_heads; i++)
        emb_snapshot_reader_close(rows->heads[i].reader);
    free(rows->heads);
    free(rows);
}

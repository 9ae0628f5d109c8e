/* Ages are counted in classes of powers of two, so that a table of any size needs no more memory
 * than one of ten rows. */
#include "worker/inspect_tables.h"

#include "cluster/status.h"
#include "worker/state_rows.h"

#include <inttypes.h>
#include <string.h>

enum { ROW_HEADER_BYTES = 16 }; /* key, count, last step */

static int age_class(uint64_t age)
{
    return age ? 64 - __builtin_clzll(age) : 0;
}

static void add(struct wrk_table_figures *figures, const struct emb_row *row, int number_bytes,
                uint64_t step)
{
    const uint64_t age = step > row->last_step ? step - row->last_step : 0;
    if (figures->n_rows == 0 || age < figures->least_age)
        figures->least_age = age;
    if (age > figures->most_age)
        figures->most_age = age;
    figures->by_age[age_class(age)]++;
    figures->n_rows++;
    figures->n_updates += row->count;
    figures->row_bytes +=
        (uint64_t)(ROW_HEADER_BYTES + row->dim * number_bytes + row->n_state * (int)sizeof(float));
}

int wrk_inspect_tables(const char *folder, const struct wrk_manifest *manifest, uint64_t step,
                       struct wrk_table_figures *figures)
{
    struct wrk_state_rows *rows = NULL;
    memset(figures, 0, (size_t)manifest->n_tables * sizeof(*figures));
    int status = wrk_state_rows_open(folder, &rows);
    while (!status) {
        struct emb_row row;
        status = wrk_state_rows_next(rows, &row);
        if (status)
            break;
        const struct emb_table_spec *spec = wrk_state_rows_table(rows, row.table);
        for (int t = 0; t < manifest->n_tables; t++)
            if (!strcmp(manifest->table[t].name, spec->name))
                add(&figures[t], &row, spec->dtype == EMB_BF16 ? 2 : 4, step);
    }
    wrk_state_rows_close(rows);
    return status == CLU_E_NOT_FOUND ? CLU_OK : status;
}

uint64_t wrk_median_age(const struct wrk_table_figures *figures)
{
    uint64_t n = 0;
    for (int i = 0; i < WRK_AGE_CLASSES; i++) {
        n += figures->by_age[i];
        if (2 * n >= figures->n_rows) {
            uint64_t bound = i ? ((uint64_t)1 << i) - 1 : 0;
            return bound < figures->most_age ? bound : figures->most_age;
        }
    }
    return figures->most_age;
}

void wrk_print_table_figures(const struct wrk_table_figures *figures, const char *name, int dim,
                             FILE *stream)
{
    fprintf(stream, "table      %s: %" PRIu64 " rows of %d, %" PRIu64 " bytes", name,
            figures->n_rows, dim, figures->row_bytes);
    if (figures->n_rows)
        fprintf(stream,
                "; last pushed %" PRIu64 " to %" PRIu64 " steps ago, half within %" PRIu64
                "; %.1f updates a row",
                figures->least_age, figures->most_age, wrk_median_age(figures),
                (double)figures->n_updates / (double)figures->n_rows);
    fputc('\n', stream);
}

json_t *wrk_table_figures_json(const struct wrk_table_figures *figures)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "rows", (json_int_t)figures->n_rows,
                     "row_bytes", (json_int_t)figures->row_bytes, "updates",
                     (json_int_t)figures->n_updates, "least_age", (json_int_t)figures->least_age,
                     "median_age", (json_int_t)wrk_median_age(figures), "most_age",
                     (json_int_t)figures->most_age);
}

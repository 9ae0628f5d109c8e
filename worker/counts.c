/* An item's events arrive in order of time. Those of one second see what was before it, not each
 * other: as pairs that begin in one second do (DATA.md, rule 3). So there are two sets of counts,
 * and the one that is told catches up when a new second begins.
 */
#include "worker/counts.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/event.h"
#include "worker/timeline.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double wrk_count_number(uint64_t n)
{
    return log1p((double)n) / 2;
}

double wrk_count_rate(uint64_t k, uint64_t n)
{
    return (log(((double)k + 0.25) / ((double)n + 5)) + 3) / 2;
}

double wrk_count_age(double seconds)
{
    return log1p((seconds > 0 ? seconds : 0) / 60) / 10;
}

static int add_column(struct wrk_schema *schema, const char *name)
{
    if (schema->n_item_features + 1 >= WRK_MAX_COLUMNS)
        return clu_fail(CLU_E_CONFIG,
                        "schema %s: no room for the column %s: an item has at most %d",
                        schema->name, name, WRK_MAX_COLUMNS);
    for (int i = 0; i < schema->n_item_features; i++)
        if (!strcmp(schema->item_feature[i].column.name, name))
            return clu_fail(CLU_E_CONFIG,
                            "schema %s has an item feature %s of its own; rename it, or turn "
                            "item_counts off",
                            schema->name, name);
    struct wrk_feature *feature = &schema->item_feature[schema->n_item_features++];
    *feature = (struct wrk_feature){.column.kind = WRK_COLUMN_NUMERIC, .is_counted = true};
    snprintf(feature->column.name, sizeof(feature->column.name), "%s", name);
    return CLU_OK;
}

int wrk_counts_add_columns(struct wrk_schema *schema)
{
    int status = add_column(schema, "item_age");
    if (!status)
        status = add_column(schema, "item_events");
    for (int a = 2; a <= schema->n_actions && !status; a++) {
        char name[WRK_NAME_BYTES];
        snprintf(name, sizeof(name), "item_%s", schema->action[a]);
        status = add_column(schema, name);
    }
    return status;
}

int wrk_counts_first(const struct wrk_schema *schema)
{
    for (int i = 0; i < schema->n_item_features; i++)
        if (schema->item_feature[i].is_counted)
            return i;
    return -1;
}

void wrk_counts_begin(struct wrk_counts *counts, int n_actions)
{
    memset(counts, 0, sizeof(*counts));
    counts->n_actions = n_actions;
}

void wrk_counts_next(struct wrk_counts *counts, int64_t time_ms, int action, uint64_t *values_p)
{
    int64_t second = wrk_second_of(time_ms);
    if (!counts->n_now) {
        counts->first_ms = time_ms;
        counts->second = second;
    } else if (second != counts->second) {
        counts->n = counts->n_now;
        memcpy(counts->of, counts->of_now, sizeof(counts->of));
        counts->second = second;
    }
    double age_s = (double)(time_ms - counts->first_ms) / 1000;
    values_p[0] = wrk_float_value((float)wrk_count_age(age_s));
    values_p[1] = wrk_float_value((float)wrk_count_number(counts->n));
    for (int a = 2; a <= counts->n_actions; a++)
        values_p[a] = wrk_float_value((float)wrk_count_rate(counts->of[a], counts->n));
    counts->n_now++;
    counts->of_now[action]++;
}

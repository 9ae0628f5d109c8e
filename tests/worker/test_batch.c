/* Keys out, rows in, gradients back: against the plain way of doing it, cell by cell. */
#include "tests/suite.h"

#include "worker/batch.h"
#include "worker/event.h"

#include "cluster/status.h"

#include <math.h>

enum { N_USERS = 7, N_ITEMS = 40, USER_COLUMNS = 2, ITEM_COLUMNS = 4 };

/* user: id, category (shared with the item's); item: id, category, price, brand */
static struct wrk_dataset_info make_info(void)
{
    struct wrk_dataset_info info = {
        .n_actions = 4, .n_user_columns = USER_COLUMNS, .n_item_columns = ITEM_COLUMNS};
    info.user_column[0] = (struct wrk_column){"user", WRK_COLUMN_SPARSE, "user"};
    info.user_column[1] = (struct wrk_column){"taste", WRK_COLUMN_SPARSE, "category"};
    info.item_column[0] = (struct wrk_column){"item", WRK_COLUMN_SPARSE, "item"};
    info.item_column[1] = (struct wrk_column){"category", WRK_COLUMN_SPARSE, "category"};
    info.item_column[2] = (struct wrk_column){"price", WRK_COLUMN_NUMERIC, ""};
    info.item_column[3] = (struct wrk_column){"brand", WRK_COLUMN_SPARSE, "brand"};
    return info;
}

static struct clu_job job;

static void set_job(void)
{
    struct clu_binding binding = clu_job_settings(&job);
    memset(&job, 0, sizeof(job));
    clu_settings_defaults(binding);
    job.history_counts = false;
    job.user_dim = 3;
    job.item_dim = 5;
    job.feature_dim = 2;
    strcpy(job.tables[0].name, "brand");
    job.tables[0].dim = 4;
    job.n_tables = 1;
}

static void test_columns_are_laid_out_in_order_and_shared_tables_stand_once(void)
{
    struct wrk_dataset_info info = make_info();
    struct wrk_features features;
    set_job();
    CU_ASSERT_EQUAL_FATAL(wrk_features_init(&features, &info, &job), CLU_OK);
    CU_ASSERT_EQUAL(features.user_dim, 3 + 2);
    CU_ASSERT_EQUAL(features.item_dim, 5 + 2 + 1 + 4);
    CU_ASSERT_EQUAL(features.n_tables, 4);
    CU_ASSERT_EQUAL(features.user_slot[1].table, features.item_slot[1].table);
    CU_ASSERT_EQUAL(features.item_slot[2].table, -1);
    CU_ASSERT_EQUAL(features.item_slot[2].offset, 7);
    CU_ASSERT_EQUAL(features.item_slot[3].offset, 8);
    CU_ASSERT_STRING_EQUAL(features.table[features.item_slot[3].table].name, "brand");
    CU_ASSERT_EQUAL(features.table[features.item_slot[3].table].dim, 4);
}

static void test_a_table_entry_that_no_column_reads_is_refused(void)
{
    struct wrk_dataset_info info = make_info();
    struct wrk_features features;
    set_job();
    strcpy(job.tables[0].name, "brnd");
    CU_ASSERT_EQUAL(wrk_features_init(&features, &info, &job), CLU_E_CONFIG);
}

static uint64_t user_value[N_USERS * USER_COLUMNS], item_value[N_ITEMS * ITEM_COLUMNS];
static const int zeros[2] = {0, 0};

static struct wrk_samples make_samples(uint64_t *seed_p)
{
    for (int u = 0; u < N_USERS; u++) {
        user_value[u * USER_COLUMNS] = 100 + (uint64_t)u;
        user_value[u * USER_COLUMNS + 1] = suite_random(seed_p) % 6;
    }
    for (int i = 0; i < N_ITEMS; i++) {
        item_value[i * ITEM_COLUMNS] = suite_random(seed_p);
        item_value[i * ITEM_COLUMNS + 1] = suite_random(seed_p) % 6;
        item_value[i * ITEM_COLUMNS + 2] = wrk_float_value((float)i / 3);
        item_value[i * ITEM_COLUMNS + 3] = suite_random(seed_p) % 3;
    }
    return (struct wrk_samples){.n_users = N_USERS,
                                .n_items = N_ITEMS,
                                .user_value = user_value,
                                .item_value = item_value,
                                .seq_offset = zeros,
                                .hist_offset = zeros,
                                .target_offset = zeros};
}

/* a row that tells its table and key */
static float row_value(int table, uint64_t key, int lane)
{
    return (float)(table * 1000) + (float)(key % 997) + (float)lane / 8;
}

static void fill_rows(struct wrk_batch *batch)
{
    int n_tables;
    struct wrk_batch_table *tables = wrk_batch_tables(batch, &n_tables);
    for (int t = 0; t < n_tables; t++)
        for (size_t k = 0; k < tables[t].n_keys; k++)
            for (int i = 0; i < tables[t].dim; i++)
                tables[t].rows[k * (size_t)tables[t].dim + (size_t)i] =
                    row_value(t, tables[t].keys[k], i);
}

/* checks one side of the gathered matrices; dropped: rows whose id must be zeros */
static void check_side(const mdl_real *matrix, int n_rows, int dim, int n_columns,
                       const uint64_t *value, const struct wrk_slot *slot, bool dropped)
{
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n_columns; c++)
            for (int i = 0; i < slot[c].dim; i++) {
                float expected = slot[c].table < 0 ? wrk_value_float(value[r * n_columns + c])
                                 : dropped && c == 0
                                     ? 0
                                     : row_value(slot[c].table, value[r * n_columns + c], i);
                CU_ASSERT_EQUAL(matrix[r * dim + slot[c].offset + i], expected);
            }
}

static void test_gather_puts_every_row_where_its_column_says(void)
{
    uint64_t seed = suite_seed();
    struct wrk_dataset_info info = make_info();
    struct wrk_features features;
    struct wrk_batch *batch;
    set_job();
    CU_ASSERT_EQUAL_FATAL(wrk_features_init(&features, &info, &job), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_batch_create(&features, &batch), CLU_OK);
    for (int round = 0; round < 3; round++) {
        struct wrk_samples samples = make_samples(&seed);
        samples.n_items = round == 1 ? N_ITEMS / 2 : N_ITEMS; /* buffers are used again */
        CU_ASSERT_EQUAL(wrk_batch_fill(batch, &samples, NULL), CLU_OK);
        int n_tables;
        struct wrk_batch_table *tables = wrk_batch_tables(batch, &n_tables);
        CU_ASSERT_EQUAL(n_tables, 4);
        for (int t = 0; t < n_tables; t++)
            for (size_t i = 0; i < tables[t].n_keys; i++)
                for (size_t j = 0; j < i; j++)
                    CU_ASSERT(tables[t].keys[i] != tables[t].keys[j]);
        fill_rows(batch);
        const struct mdl_batch *view = wrk_batch_gather(batch);
        check_side(view->user, view->n_users, features.user_dim, USER_COLUMNS, user_value,
                   features.user_slot, false);
        check_side(view->item, view->n_items, features.item_dim, ITEM_COLUMNS, item_value,
                   features.item_slot, false);
    }
    wrk_batch_free(batch);
}

/* With history_counts every sample has a user row of its own, which ends with the counts; rows and
 * gradients of its id are the user's. Checked against counting by hand: sample 0 sees seqs 0 and 1,
 * sample 1 (the same user) sees 0, 1 and 2, sample 2 (another) sees nothing. */
static void test_counts_of_the_history_end_the_user_row(void)
{
    static const int sample_user[] = {1, 1, 0}, sample_item[] = {0, 1, 2};
    static const int seq_item[] = {3, 4, 5}, seq_offset[] = {0, 1, 3, 6};
    static const uint8_t seq_action[] = {1, 1, 2, 1, 3, 2};
    static const float seq_time[6];
    static const int hist_offset[] = {0, 2, 5, 5}, hist_seq[] = {0, 1, 0, 1, 2};
    static const int expected[3][3] = {{2, 1, 0}, {3, 2, 1}, {0, 0, 0}};
    static const float gap[] = {60, 3600, 7}; /* the last one has no history */
    uint64_t seed = suite_seed();
    struct wrk_dataset_info info = make_info();
    struct wrk_features features;
    struct wrk_batch *batch;
    info.n_actions = 3;
    set_job();
    job.history_counts = true;
    CU_ASSERT_EQUAL_FATAL(wrk_features_init(&features, &info, &job), CLU_OK);
    job.history_counts = false;
    CU_ASSERT_EQUAL(features.user_dim, 3 + 2 + 6);
    CU_ASSERT_EQUAL_FATAL(wrk_batch_create(&features, &batch), CLU_OK);
    struct wrk_samples samples = make_samples(&seed);
    samples.n_samples = samples.n_seqs = 3;
    samples.sample_user = sample_user;
    samples.sample_item = sample_item;
    samples.seq_item = seq_item;
    samples.seq_offset = seq_offset;
    samples.seq_action = seq_action;
    samples.seq_time = seq_time;
    samples.hist_offset = hist_offset;
    samples.hist_seq = hist_seq;
    samples.sample_gap = gap;
    CU_ASSERT_EQUAL(wrk_batch_fill(batch, &samples, NULL), CLU_OK);
    int n_tables, user = features.user_slot[0].table;
    struct wrk_batch_table *tables = wrk_batch_tables(batch, &n_tables);
    CU_ASSERT_EQUAL(tables[user].n_keys, 2); /* of those that have samples */
    fill_rows(batch);
    const struct mdl_batch *view = wrk_batch_gather(batch);
    CU_ASSERT_EQUAL_FATAL(view->n_users, 3);
    for (int b = 0; b < 3; b++) {
        const mdl_real *row = view->user + (size_t)view->sample_user[b] * 11;
        for (int i = 0; i < 3; i++)
            CU_ASSERT_EQUAL(row[i], row_value(user, user_value[sample_user[b] * USER_COLUMNS], i));
        int n = expected[b][0];
        CU_ASSERT_DOUBLE_EQUAL(row[5], log1p(n) / 2, 1e-6);
        for (int a = 1; a < 3; a++) /* all of these histories are recent */
            for (int again = 0; again <= 2; again += 2)
                CU_ASSERT_DOUBLE_EQUAL(row[5 + a + again],
                                       (log((expected[b][a] + 0.25) / (n + 5)) + 3) / 2, 1e-6);
        CU_ASSERT_DOUBLE_EQUAL(row[10], n ? log1p(gap[b] / 60) / 10 : 0, 1e-6);
    }
    static mdl_real d_user[3 * 11] = {1, 2, 3, [11] = 10, 20, 30, [22] = 5, 6, 7};
    static mdl_real d_item[N_ITEMS * 12];
    wrk_batch_scatter(batch, d_user, d_item);
    CU_ASSERT_EQUAL(tables[user].keys[0], user_value[1 * USER_COLUMNS]);
    CU_ASSERT(tables[user].grads[0] == 11 && tables[user].grads[2] == 33);
    CU_ASSERT(tables[user].grads[3] == 5 && tables[user].grads[5] == 7);
    wrk_batch_free(batch);
}

static void test_scatter_sums_what_gather_spread(void)
{
    uint64_t seed = suite_seed();
    struct wrk_dataset_info info = make_info();
    struct wrk_features features;
    struct wrk_batch *batch;
    set_job();
    CU_ASSERT_EQUAL_FATAL(wrk_features_init(&features, &info, &job), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_batch_create(&features, &batch), CLU_OK);
    struct wrk_samples samples = make_samples(&seed);
    CU_ASSERT_EQUAL(wrk_batch_fill(batch, &samples, NULL), CLU_OK);
    static mdl_real d_user[N_USERS * 5], d_item[N_ITEMS * 12];
    for (size_t i = 0; i < sizeof(d_user) / sizeof(*d_user); i++)
        d_user[i] = (mdl_real)suite_uniform(&seed, -1, 1);
    for (size_t i = 0; i < sizeof(d_item) / sizeof(*d_item); i++)
        d_item[i] = (mdl_real)suite_uniform(&seed, -1, 1);
    wrk_batch_scatter(batch, d_user, d_item);
    int n_tables;
    struct wrk_batch_table *tables = wrk_batch_tables(batch, &n_tables);
    for (int t = 0; t < n_tables; t++)
        for (size_t k = 0; k < tables[t].n_keys; k++)
            for (int i = 0; i < tables[t].dim; i++) {
                double sum = 0;
                for (int u = 0; u < N_USERS; u++)
                    for (int c = 0; c < USER_COLUMNS; c++)
                        if (features.user_slot[c].table == t &&
                            user_value[u * USER_COLUMNS + c] == tables[t].keys[k])
                            sum += d_user[u * 5 + features.user_slot[c].offset + i];
                for (int u = 0; u < N_ITEMS; u++)
                    for (int c = 0; c < ITEM_COLUMNS; c++)
                        if (features.item_slot[c].table == t &&
                            item_value[u * ITEM_COLUMNS + c] == tables[t].keys[k])
                            sum += d_item[u * 12 + features.item_slot[c].offset + i];
                CU_ASSERT_DOUBLE_EQUAL(tables[t].grads[k * (size_t)tables[t].dim + (size_t)i], sum,
                                       1e-5);
            }
    wrk_batch_free(batch);
}

static void test_dropped_ids_are_zeros_are_not_pulled_and_change_with_the_step(void)
{
    uint64_t seed = 3;
    struct wrk_dataset_info info = make_info();
    struct wrk_features features;
    struct wrk_batch *batch;
    set_job();
    CU_ASSERT_EQUAL_FATAL(wrk_features_init(&features, &info, &job), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_batch_create(&features, &batch), CLU_OK);
    struct wrk_samples samples = make_samples(&seed);
    int n_tables, item = features.item_slot[0].table;
    struct wrk_dropout dropout = {1, 5, 1};
    CU_ASSERT_EQUAL(wrk_batch_fill(batch, &samples, &dropout), CLU_OK);
    CU_ASSERT_EQUAL(wrk_batch_tables(batch, &n_tables)[item].n_keys, 0);
    CU_ASSERT(wrk_batch_tables(batch, &n_tables)[features.item_slot[1].table].n_keys > 0);
    fill_rows(batch);
    const struct mdl_batch *view = wrk_batch_gather(batch);
    check_side(view->item, view->n_items, features.item_dim, ITEM_COLUMNS, item_value,
               features.item_slot, true);
    dropout.probability = 0.5;
    size_t total = 0;
    for (uint64_t step = 1; step <= 100; step++) {
        dropout.step = step;
        CU_ASSERT_EQUAL(wrk_batch_fill(batch, &samples, &dropout), CLU_OK);
        total += wrk_batch_tables(batch, &n_tables)[item].n_keys;
    }
    CU_ASSERT(total > 1800 && total < 2200); /* half of 40 a step */
    wrk_batch_free(batch);
}

SUITE("worker.batch", T(test_columns_are_laid_out_in_order_and_shared_tables_stand_once),
      T(test_a_table_entry_that_no_column_reads_is_refused),
      T(test_gather_puts_every_row_where_its_column_says), T(test_scatter_sums_what_gather_spread),
      T(test_counts_of_the_history_end_the_user_row),
      T(test_dropped_ids_are_zeros_are_not_pulled_and_change_with_the_step))

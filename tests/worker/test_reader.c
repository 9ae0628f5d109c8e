/* The reader's promises: the same global batch for any number of ranks, any start position,
 * sequences that stand once, every sample once an epoch, damage named. */
#include "tests/suite.h"

#include "tests/worker/data_rig.h"

#include "model/batch.h"
#include "worker/dataset_internal.h"

/* a sample as one number: hash-like sum of everything it holds, ids by key */
static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    return h * 0xff51afd7ed558ccdu;
}

static uint64_t print_of(const struct wrk_samples *s, int i)
{
    uint64_t h = s->user_value[s->sample_user[i]];
    h = mix(h, s->item_value[s->sample_item[i]]);
    h = mix(h, (uint64_t)s->sample_time[i]);
    for (int k = s->hist_offset[i]; k < s->hist_offset[i + 1]; k++) {
        int seq = s->hist_seq[k];
        h = mix(h, s->item_value[s->seq_item[seq]]);
        for (int t = s->seq_offset[seq]; t < s->seq_offset[seq + 1]; t++)
            h = mix(mix(h, s->seq_action[t]), (uint64_t)(s->seq_time[t] * 1e6f));
    }
    for (int t = s->target_offset[i]; t < s->target_offset[i + 1]; t++)
        h = mix(mix(h, s->target_action[t]), (uint64_t)(s->target_time[t] * 1e6f));
    return h;
}

enum { N_USERS = 400, N_EVENTS = 60000, MAX = 1 << 17 };

static struct wrk_dataset *dataset;

static void test_a_data_set_is_made_for_the_tests_below(void)
{
    static char text[N_EVENTS * 40];
    uint64_t state = 7;
    static const char *const names[] = {"click", "cart", "buy"};
    char *at = text + sprintf(text, "u,i,a,t\n");
    for (int e = 0; e < N_EVENTS; e++) {
        int user = (int)(suite_random(&state) % N_USERS);
        user = user * user / N_USERS; /* some have many, some few */
        at += sprintf(at, "%d,%d,%s,%d\n", user, (int)(suite_random(&state) % 300),
                      names[suite_random(&state) % 3], (int)(suite_random(&state) % 100000));
    }
    CU_ASSERT_EQUAL_FATAL(rig_prepare(rig_schema_text, text, "set", NULL), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("set"), &dataset), CLU_OK);
    CU_ASSERT(dataset->n_frames > 3); /* else much below would prove little */
}

/* prints of n_batches batches of one rank; sizes [n_batches] gets the number of samples of each */
static int collect(const struct wrk_reader_options *options, struct wrk_position from,
                   uint64_t *prints, int *sizes, int n_batches)
{
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    int n = 0;
    CU_ASSERT_EQUAL_FATAL(wrk_reader_open(dataset, options, from, &reader), CLU_OK);
    for (int b = 0; b < n_batches; b++) {
        CU_ASSERT_EQUAL_FATAL(wrk_reader_next(reader, &samples), CLU_OK);
        if (!samples) { /* the end of an epoch */
            b--;
            continue;
        }
        if (sizes)
            sizes[b] = samples->n_samples;
        for (int i = 0; i < samples->n_samples && n < MAX; i++)
            prints[n++] = print_of(samples, i);
        wrk_samples_free(samples);
    }
    wrk_reader_close(reader);
    return n;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static struct wrk_reader_options training(void)
{
    struct wrk_reader_options options = rig_reading(WRK_SPLIT_TRAIN);
    options.batch = 100;
    options.shuffle = true;
    options.history = 20;
    options.window_bytes = 300000; /* several windows even here */
    return options;
}

static uint64_t prints[MAX], others[MAX];

static void test_an_epoch_holds_every_sample_of_the_split_once(void)
{
    uint64_t n_samples = wrk_dataset_n_samples(dataset, WRK_SPLIT_TRAIN, 0);
    struct wrk_reader_options options = training();
    int n_batches = (int)((n_samples + 99) / 100);
    int n = collect(&options, (struct wrk_position){0, 0}, prints, NULL, n_batches);
    CU_ASSERT_EQUAL((uint64_t)n, n_samples);
    options.shuffle = false;
    options.batch = 1 << 20;
    int m = collect(&options, (struct wrk_position){0, 0}, others, NULL, 1);
    CU_ASSERT_EQUAL_FATAL(n, m);
    qsort(prints, (size_t)n, sizeof(*prints), compare);
    qsort(others, (size_t)n, sizeof(*others), compare);
    CU_ASSERT(memcmp(prints, others, (size_t)n * sizeof(*prints)) == 0);
    for (int i = 1; i < n; i++)
        CU_ASSERT(prints[i] != prints[i - 1]);
}

static void test_epochs_differ_and_repeat_by_seed(void)
{
    struct wrk_reader_options options = training();
    int n = collect(&options, (struct wrk_position){0, 0}, prints, NULL, 3);
    CU_ASSERT_EQUAL(collect(&options, (struct wrk_position){0, 0}, others, NULL, 3), n);
    CU_ASSERT(memcmp(prints, others, (size_t)n * sizeof(*prints)) == 0);
    CU_ASSERT_EQUAL(collect(&options, (struct wrk_position){1, 0}, others, NULL, 3), n);
    CU_ASSERT(memcmp(prints, others, (size_t)n * sizeof(*prints)) != 0);
    options.seed = 2;
    CU_ASSERT_EQUAL(collect(&options, (struct wrk_position){0, 0}, others, NULL, 3), n);
    CU_ASSERT(memcmp(prints, others, (size_t)n * sizeof(*prints)) != 0);
}

static void test_the_global_batch_is_the_same_for_any_number_of_ranks(void)
{
    struct wrk_reader_options options = training();
    enum { BATCHES = 40 };
    int sizes[BATCHES];
    collect(&options, (struct wrk_position){0, 0}, prints, sizes, BATCHES);
    for (int n_ranks = 2; n_ranks <= 7; n_ranks += 5) {
        static uint64_t parts[7][MAX];
        int part_sizes[7][BATCHES], largest = 0;
        options.n_ranks = n_ranks;
        for (options.rank = 0; options.rank < n_ranks; options.rank++)
            collect(&options, (struct wrk_position){0, 0}, parts[options.rank],
                    part_sizes[options.rank], BATCHES);
        int at = 0, rank_at[7] = {0};
        for (int b = 0; b < BATCHES; b++) {
            int n = 0;
            for (int r = 0; r < n_ranks; r++) {
                memcpy(others + n, parts[r] + rank_at[r], (size_t)part_sizes[r][b] * 8);
                n += part_sizes[r][b];
                rank_at[r] += part_sizes[r][b];
                largest = part_sizes[r][b] > largest ? part_sizes[r][b] : largest;
            }
            CU_ASSERT_EQUAL_FATAL(n, sizes[b]);
            qsort(others, (size_t)n, 8, compare);
            qsort(prints + at, (size_t)n, 8, compare);
            CU_ASSERT(memcmp(others, prints + at, (size_t)n * 8) == 0);
            at += n;
        }
        CU_ASSERT(largest <= 100 / n_ranks + 9); /* even to a chunk of 8 */
        options.rank = 0;
        options.n_ranks = 1;
        collect(&options, (struct wrk_position){0, 0}, prints, sizes, BATCHES);
    }
}

static void test_reading_resumes_at_any_batch_of_any_epoch(void)
{
    struct wrk_reader_options options = training();
    uint64_t n_samples = wrk_dataset_n_samples(dataset, WRK_SPLIT_TRAIN, 0);
    int per_epoch = (int)((n_samples + 99) / 100), sizes[2048];
    CU_ASSERT_FATAL(2 * per_epoch < 2048);
    int n = collect(&options, (struct wrk_position){0, 0}, prints, sizes, 2 * per_epoch);
    for (int from = 1; from < 2 * per_epoch; from += 97) {
        int before = 0;
        for (int b = 0; b < from; b++)
            before += sizes[b];
        struct wrk_position position = {(uint64_t)(from / per_epoch), (uint64_t)(from % per_epoch)};
        int m = collect(&options, position, others, NULL, 2 * per_epoch - from);
        CU_ASSERT_EQUAL(before + m, n);
        CU_ASSERT(memcmp(prints + before, others, (size_t)m * 8) == 0);
    }
    /* one past the end of an epoch is the start of the next */
    int m = collect(&options, (struct wrk_position){0, (uint64_t)per_epoch}, others, NULL, 1);
    CU_ASSERT(memcmp(prints + n_samples, others, (size_t)m * 8) == 0);
}

static void test_the_validation_part_is_the_end_of_the_training_part(void)
{
    struct wrk_reader_options options = rig_reading(WRK_SPLIT_TRAIN);
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    int64_t last_train = INT64_MIN, first_valid = INT64_MAX;
    uint64_t n[2] = {0};
    options.valid_percent = 10;
    for (int part = 0; part < 2; part++) {
        options.split = part ? WRK_SPLIT_VALID : WRK_SPLIT_TRAIN;
        CU_ASSERT_EQUAL_FATAL(
            wrk_reader_open(dataset, &options, (struct wrk_position){0, 0}, &reader), CLU_OK);
        CU_ASSERT_EQUAL_FATAL(wrk_reader_next(reader, &samples), CLU_OK);
        for (int i = 0; i < samples->n_samples; i++) {
            if (part && samples->sample_time[i] < first_valid)
                first_valid = samples->sample_time[i];
            if (!part && samples->sample_time[i] > last_train)
                last_train = samples->sample_time[i];
        }
        n[part] = (uint64_t)samples->n_samples;
        wrk_samples_free(samples);
        wrk_reader_close(reader);
        CU_ASSERT_EQUAL(n[part], wrk_dataset_n_samples(dataset, options.split, 10));
    }
    CU_ASSERT(last_train < first_valid);
    uint64_t all = wrk_dataset_n_samples(dataset, WRK_SPLIT_TRAIN, 0);
    CU_ASSERT_EQUAL(n[0] + n[1], all);
    CU_ASSERT(n[1] >= all / 10 && n[1] < all / 10 + 50);
}

static void test_sequences_and_items_of_a_batch_are_distinct_and_fit_the_model(void)
{
    struct wrk_reader_options options = training();
    struct wrk_reader *reader;
    struct wrk_samples *s;
    options.with_ids = false;
    CU_ASSERT_EQUAL_FATAL(wrk_reader_open(dataset, &options, (struct wrk_position){0, 3}, &reader),
                          CLU_OK);
    CU_ASSERT_EQUAL_FATAL(wrk_reader_next(reader, &s), CLU_OK);
    CU_ASSERT_PTR_NULL(s->user_id);
    CU_ASSERT_EQUAL(s->position.batch, 3);
    for (int i = 0; i < s->n_items; i++)
        for (int j = 0; j < i; j++)
            CU_ASSERT(s->item_value[i] != s->item_value[j]);
    /* a seq belongs to one user; within a user, (item, number of actions) names it */
    static int owner[MAX];
    memset(owner, -1, sizeof(owner));
    for (int i = 0; i < s->n_samples; i++)
        for (int h = s->hist_offset[i]; h < s->hist_offset[i + 1]; h++) {
            CU_ASSERT(owner[s->hist_seq[h]] < 0 || owner[s->hist_seq[h]] == s->sample_user[i]);
            owner[s->hist_seq[h]] = s->sample_user[i];
        }
    int n_shared = 0;
    for (int a = 0; a < s->n_seqs; a++)
        for (int b = 0; b < a; b++)
            n_shared +=
                owner[a] == owner[b] && s->seq_item[a] == s->seq_item[b] &&
                s->seq_offset[a + 1] - s->seq_offset[a] == s->seq_offset[b + 1] - s->seq_offset[b];
    CU_ASSERT_EQUAL(n_shared, 0);
    struct mdl_batch view = {s->n_samples,     s->n_global,    s->n_users,    s->n_items,
                             s->n_seqs,        NULL,           NULL,          s->sample_user,
                             s->sample_item,   s->seq_item,    s->seq_offset, s->seq_action,
                             s->seq_time,      s->hist_offset, s->hist_seq,   s->target_offset,
                             s->target_action, s->target_time};
    struct mdl_config config = {.n_actions = 4, .history = 20};
    CU_ASSERT_EQUAL(mdl_batch_check(&config, &view, true), CLU_OK);
    wrk_samples_free(s);
    wrk_reader_close(reader);
}

static void test_more_ranks_than_chunks_leaves_some_with_nothing(void)
{
    struct wrk_reader_options options = training();
    options.n_ranks = 50;
    int total = 0, n_empty = 0;
    for (options.rank = 0; options.rank < 50; options.rank++) {
        int size;
        collect(&options, (struct wrk_position){0, 0}, prints, &size, 1);
        total += size;
        n_empty += size == 0;
    }
    CU_ASSERT_EQUAL(total, 100);
    CU_ASSERT(n_empty > 0);
}

static void test_options_out_of_range_and_empty_splits_are_refused(void)
{
    struct wrk_reader *reader;
    struct wrk_position start = {0, 0};
    struct wrk_reader_options options = training();
    options.batch = 0;
    CU_ASSERT_EQUAL(wrk_reader_open(dataset, &options, start, &reader), CLU_E_CONFIG);
    options = training();
    options.rank = 1;
    CU_ASSERT_EQUAL(wrk_reader_open(dataset, &options, start, &reader), CLU_E_CONFIG);
    options = training();
    options.split = WRK_SPLIT_VALID; /* and no percent */
    CU_ASSERT_EQUAL(wrk_reader_open(dataset, &options, start, &reader), CLU_E_CONFIG);
    options.valid_percent = 21;
    CU_ASSERT_EQUAL(wrk_reader_open(dataset, &options, start, &reader), CLU_E_CONFIG);
}

static void test_a_flipped_bit_in_a_shard_is_reported_by_the_reader(void)
{
    char *data;
    size_t size;
    char *path = rig_path("set/shard-00000.slu");
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, (size_t)1 << 30, &data, &size), CLU_OK);
    data[size / 3] ^= 4; /* in a frame */
    rig_write("set/shard-00000.slu", data, size);
    struct wrk_reader_options options = rig_reading(WRK_SPLIT_TRAIN);
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    CU_ASSERT_EQUAL_FATAL(wrk_reader_open(dataset, &options, (struct wrk_position){0, 0}, &reader),
                          CLU_OK);
    CU_ASSERT_EQUAL(wrk_reader_next(reader, &samples), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(wrk_reader_next(reader, &samples), CLU_E_CORRUPT);
    wrk_reader_close(reader);
    CU_ASSERT_EQUAL(wrk_dataset_verify(dataset), CLU_E_CORRUPT);
    data[size / 3] ^= 4;
    rig_write("set/shard-00000.slu", data, size);
    CU_ASSERT_EQUAL(wrk_dataset_verify(dataset), CLU_OK);
    free(data);
}

static void test_closing_early_leaves_no_thread_behind(void)
{
    struct wrk_reader_options options = training();
    for (int i = 0; i < 20; i++) {
        struct wrk_reader *reader;
        struct wrk_samples *samples = NULL;
        CU_ASSERT_EQUAL_FATAL(
            wrk_reader_open(dataset, &options, (struct wrk_position){0, 0}, &reader), CLU_OK);
        if (i % 2)
            CU_ASSERT_EQUAL(wrk_reader_next(reader, &samples), CLU_OK);
        wrk_reader_close(reader);
        wrk_samples_free(samples); /* outlives its reader */
    }
    wrk_dataset_close(dataset);
}

SUITE("worker.reader", T(test_a_data_set_is_made_for_the_tests_below),
      T(test_an_epoch_holds_every_sample_of_the_split_once),
      T(test_epochs_differ_and_repeat_by_seed),
      T(test_the_global_batch_is_the_same_for_any_number_of_ranks),
      T(test_reading_resumes_at_any_batch_of_any_epoch),
      T(test_the_validation_part_is_the_end_of_the_training_part),
      T(test_sequences_and_items_of_a_batch_are_distinct_and_fit_the_model),
      T(test_more_ranks_than_chunks_leaves_some_with_nothing),
      T(test_options_out_of_range_and_empty_splits_are_refused),
      T(test_a_flipped_bit_in_a_shard_is_reported_by_the_reader),
      T(test_closing_early_leaves_no_thread_behind))

/* Bounded memory: what comes out does not depend on it, and the process stays within it. */
#include "tests/suite.h"

#include "cluster/hash.h"
#include "tests/worker/data_rig.h"
#include "worker/select.h"
#include "worker/spill.h"

#include <sys/resource.h>
#include <sys/wait.h>

static struct wrk_event make_event(uint64_t *state_p, int n_users)
{
    static char text[32];
    uint64_t user = suite_random(state_p) % (uint64_t)n_users;
    struct wrk_event event = {.user = wrk_id_of_text("0", 1), .action = 2};
    int size = sprintf(text, "item-%d", (int)(suite_random(state_p) % 1000));
    event.user.key = user;
    event.item = wrk_id_of_text(text, (size_t)size);
    event.time_ms = (int64_t)(suite_random(state_p) % 5000);
    event.item_value[0] = suite_random(state_p);
    return event;
}

struct digest {
    uint64_t hash, n_events, n_users, last_mix;
    bool in_order;
};

static int digest_user(void *context, const struct wrk_record *const *records, size_t n)
{
    struct digest *digest = context;
    uint64_t mixed = clu_mix(records[0]->user_key);
    digest->in_order &= digest->n_users == 0 || mixed > digest->last_mix;
    digest->last_mix = mixed;
    digest->n_users++;
    digest->n_events += n;
    for (size_t i = 0; i < n; i++) {
        digest->in_order &= records[i]->user_key == records[0]->user_key;
        digest->in_order &= i == 0 || records[i]->time_ms >= records[i - 1]->time_ms;
        digest->hash = clu_mix(digest->hash ^ clu_hash_bytes(records[i], records[i]->size_bytes));
        struct wrk_stored_id item = wrk_record_item(records[i], 1);
        digest->in_order &= item.size_bytes > 5 && memcmp(item.text, "item-", 5) == 0;
    }
    return CLU_OK;
}

static struct digest run(uint64_t memory_bytes, int n_events, int n_users, uint64_t *file_bytes_p)
{
    struct wrk_spill *spill;
    struct digest digest = {.in_order = true};
    uint64_t state = 11;
    CU_ASSERT_EQUAL_FATAL(wrk_spill_create(rig_dir(), memory_bytes, 0, 1, &spill), CLU_OK);
    int status = CLU_OK;
    for (int i = 0; i < n_events && status == CLU_OK; i++) {
        struct wrk_event event = make_event(&state, n_users);
        status = wrk_spill_add(spill, &event);
    }
    CU_ASSERT_EQUAL(status, CLU_OK);
    CU_ASSERT_EQUAL(wrk_spill_drain(spill, digest_user, &digest), CLU_OK);
    *file_bytes_p = wrk_spill_file_bytes(spill);
    wrk_spill_free(spill);
    return digest;
}

static void test_the_order_is_the_same_in_memory_in_files_and_split_twice(void)
{
    uint64_t file_bytes;
    struct digest all = run((uint64_t)1 << 30, 600000, 5000, &file_bytes);
    CU_ASSERT_EQUAL(file_bytes, 0);
    CU_ASSERT_EQUAL(all.n_events, 600000);
    CU_ASSERT_EQUAL(all.n_users, 5000);
    CU_ASSERT(all.in_order);
    struct digest files = run((uint64_t)12 << 20, 600000, 5000, &file_bytes);
    CU_ASSERT(file_bytes > 0);
    CU_ASSERT(files.in_order && files.hash == all.hash && files.n_events == all.n_events);
    /* parts of 1/64 are larger than a third of this: they are split again */
    uint64_t once = file_bytes;
    struct digest twice = run((uint64_t)1 << 20, 600000, 5000, &file_bytes);
    CU_ASSERT(file_bytes > once + once / 2);
    CU_ASSERT(twice.in_order && twice.hash == all.hash && twice.n_events == all.n_events);
}

static void test_a_user_larger_than_the_memory_is_refused_with_advice(void)
{
    struct wrk_spill *spill;
    struct digest digest = {.in_order = true};
    uint64_t state = 11;
    CU_ASSERT_EQUAL_FATAL(wrk_spill_create(rig_dir(), (uint64_t)1 << 20, 0, 1, &spill), CLU_OK);
    for (int i = 0; i < 20000; i++) {
        struct wrk_event event = make_event(&state, 1);
        CU_ASSERT_EQUAL_FATAL(wrk_spill_add(spill, &event), CLU_OK);
    }
    CU_ASSERT_EQUAL(wrk_spill_drain(spill, digest_user, &digest), CLU_E_DATA);
    wrk_spill_free(spill);
}

static int compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_selection_agrees_with_sorting(void)
{
    uint64_t seed = suite_seed();
    enum { MAX = 100000 };
    static int64_t values[MAX];
    for (int round = 0; round < 6; round++) {
        struct wrk_numbers numbers;
        int n = 1 + (int)(suite_random(&seed) % MAX);
        CU_ASSERT_EQUAL_FATAL(wrk_numbers_init(&numbers, rig_dir()), CLU_OK);
        for (int i = 0; i < n; i++) {
            values[i] = (int64_t)suite_random(&seed) >> (round * 10); /* wide, narrow, negative */
            if (wrk_numbers_add(&numbers, (uint64_t)values[i]) != CLU_OK)
                CU_FAIL("a number was not taken");
        }
        uint64_t ranks[5] = {0, (uint64_t)n - 1, (uint64_t)n / 2, (uint64_t)n * 9 / 10,
                             suite_random(&seed) % (uint64_t)n};
        int64_t found[5];
        CU_ASSERT_EQUAL(wrk_numbers_select(&numbers, ranks, 5, found), CLU_OK);
        qsort(values, (size_t)n, sizeof(*values), compare_int64);
        uint64_t n_distinct = 1, counted;
        for (int i = 1; i < n; i++)
            n_distinct += values[i] != values[i - 1];
        for (int r = 0; r < 5; r++)
            CU_ASSERT_EQUAL(found[r], values[ranks[r]]);
        CU_ASSERT_EQUAL(wrk_numbers_count_distinct(&numbers, (uint64_t)1 << 30, &counted), CLU_OK);
        CU_ASSERT_EQUAL(counted, n_distinct);
        CU_ASSERT_EQUAL(wrk_numbers_count_distinct(&numbers, 1 << 14, &counted), CLU_OK);
        CU_ASSERT_EQUAL(counted, n_distinct); /* in several parts */
        wrk_numbers_fini(&numbers);
    }
}

/* a log of about 70 MB of records through 32 MiB, in a process of its own so that its peak can be
 * read */
static void test_prepare_of_a_log_larger_than_its_memory_stays_within_it(void)
{
    char *path = rig_path("large.csv");
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    uint64_t state = 5;
    fprintf(file, "u,i,a,t\n");
    enum { EVENTS = 1000000 };
    for (int e = 0; e < EVENTS; e++)
        fprintf(file, "%d,%d,click,%d\n", (int)(suite_random(&state) % 50000),
                (int)(suite_random(&state) % 1000000), (int)(suite_random(&state) % 10000000));
    CU_ASSERT_EQUAL(fclose(file), 0);
    struct wrk_schema schema = rig_schema(rig_schema_text);
    struct wrk_prepare_options options = rig_options(&schema, &path, 1, rig_path("large"));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct wrk_prepare_report report;
        options.memory_bytes = WRK_MIN_MEMORY_BYTES;
        bool ok = wrk_prepare(&options, &report) == CLU_OK && report.spill_bytes > 0 &&
                  report.info.n_events == EVENTS;
        _exit(ok ? 0 : 1);
    }
    int status;
    struct rusage usage;
    CU_ASSERT_EQUAL_FATAL(wait4(pid, &status, 0, &usage), pid);
    CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("  peak %ld MiB of the 32 MiB given and the process itself\n", usage.ru_maxrss >> 10);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CU_ASSERT(usage.ru_maxrss < 64 << 10);
#endif
    /* and the same bytes as with room to spare */
    options.dir = rig_path("roomy");
    struct wrk_prepare_report report;
    CU_ASSERT_EQUAL(wrk_prepare(&options, &report), CLU_OK);
    CU_ASSERT_EQUAL(report.spill_bytes, 0);
    CU_ASSERT(rig_same_files(rig_path("large/shard-00000.slu"), rig_path("roomy/shard-00000.slu")));
}

SUITE("worker.spill", T(test_prepare_of_a_log_larger_than_its_memory_stays_within_it),
      T(test_the_order_is_the_same_in_memory_in_files_and_split_twice),
      T(test_a_user_larger_than_the_memory_is_refused_with_advice),
      T(test_selection_agrees_with_sorting))

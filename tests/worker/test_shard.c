/* The data shard's format: golden bytes, every cut and every flipped bit refused, every allocation
 * failing. */
#include "tests/suite.h"

#include "tests/worker/data_rig.h"

#include "tests/oom.h"
#include "worker/attributes.h"
#include "worker/references.h"
#include "worker/shard.h"

static void test_a_user_block_has_the_bytes_the_header_shows(void)
{
    struct wrk_shape shape = {.n_actions = 4,
                              .n_user_columns = 1,
                              .n_item_columns = 1,
                              .transform = {WRK_TRANSFORM_LOG, 60, 10}};
    struct wrk_token tokens[] = {{1000, 0, 1}, {1500, 0, 2}};
    struct wrk_pair pair = {.item = wrk_id_of_text("a", 1), .start_ms = 1000, .n_tokens = 2};
    struct wrk_timeline timeline = {.user = wrk_id_of_text("7", 1),
                                    .pair = &pair,
                                    .token = tokens,
                                    .n_pairs = 1,
                                    .n_tokens = 2};
    static const unsigned char golden[] = {0x93, 0x91, 0x07, 0x01, 0x91, 0x94, 0xa1, 0x61, 0xcd,
                                           0x03, 0xe8, 0x92, 0x02, 0xcd, 0x01, 0xf4, 0xc0};
    struct clu_packer packer;
    clu_packer_init(&packer);
    wrk_block_pack(&packer, &shape, &timeline);
    CU_ASSERT_EQUAL(clu_packer_status(&packer), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(packer.size_bytes, sizeof(golden));
    CU_ASSERT(memcmp(packer.data, golden, sizeof(golden)) == 0);
    struct wrk_block block;
    wrk_block_init(&block);
    CU_ASSERT_EQUAL(wrk_block_unpack(&block, &shape, packer.data, packer.size_bytes), CLU_OK);
    CU_ASSERT_EQUAL(block.n_pairs, 1);
    CU_ASSERT_EQUAL(block.token[1].time_ms, 1500);
    CU_ASSERT_EQUAL(block.user_value[0], 7);
    for (size_t cut = 1; cut < packer.size_bytes; cut++)
        CU_ASSERT_EQUAL(wrk_block_unpack(&block, &shape, packer.data, cut), CLU_E_CORRUPT);
    wrk_block_fini(&block);
    clu_packer_fini(&packer);
}

static const char small_log[] = "u,i,a,t\n1,1,click,1\n1,2,click,5\n1,2,buy,9\n2,1,cart,3\n"
                                "b,x,click,100\nb,y,buy,100\nc,1,click,50\nc,2,click,70\n";

/* opens and reads everything; the first status that is not OK */
static int read_everything(const char *dir)
{
    struct wrk_dataset *dataset;
    int status = wrk_dataset_open(dir, &dataset);
    if (status != CLU_OK)
        return status;
    struct wrk_reader_options options = rig_reading(WRK_SPLIT_TRAIN);
    struct wrk_reader *reader;
    struct wrk_samples *samples;
    status = wrk_reader_open(dataset, &options, (struct wrk_position){0, 0}, &reader);
    if (status == CLU_OK) {
        status = wrk_reader_next(reader, &samples);
        if (status == CLU_OK)
            wrk_samples_free(samples);
        wrk_reader_close(reader);
    }
    wrk_dataset_close(dataset);
    return status;
}

static void damage_file(const char *name, bool flips)
{
    char *data;
    size_t size;
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(rig_path(name), 1 << 20, &data, &size), CLU_OK);
    for (size_t i = 0; i < size; i++) {
        if (flips) {
            data[i] ^= (char)(1 << (i % 8));
            rig_write(name, data, size);
            data[i] ^= (char)(1 << (i % 8));
        } else
            rig_write(name, data, i);
        int status = read_everything(rig_path("set"));
        /* a manifest cut to nothing is not a manifest; never is anything taken */
        CU_ASSERT(status == CLU_E_CORRUPT || (status == CLU_E_NOT_FOUND && !flips));
        if (status == CLU_OK)
            printf("  %s: byte %zu was taken\n", name, i);
    }
    rig_write(name, data, size);
    free(data);
    CU_ASSERT_EQUAL(read_everything(rig_path("set")), CLU_OK);
}

static void test_every_cut_and_flip_of_a_shard_is_refused(void)
{
    CU_ASSERT_EQUAL_FATAL(rig_prepare(rig_schema_text, small_log, "set", NULL), CLU_OK);
    clu_log_init((enum clu_log_level) - 1, "test", -1, false); /* thousands of refusals */
    damage_file("set/shard-00000.slu", false);
    damage_file("set/shard-00000.slu", true);
    rig_quiet(false);
}

static void test_every_cut_and_flip_of_a_manifest_is_refused(void)
{
    clu_log_init((enum clu_log_level) - 1, "test", -1, false);
    char *data;
    size_t size;
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(rig_path("set/manifest.json"), 1 << 20, &data, &size),
                          CLU_OK);
    while (size > 0 && data[size - 1] == '\n')
        size--; /* the last line end means nothing */
    rig_write("set/manifest.json", data, size);
    free(data);
    damage_file("set/manifest.json", false);
    damage_file("set/manifest.json", true);
    rig_quiet(false);
}

static void test_a_missing_shard_and_a_swapped_one_are_refused(void)
{
    CU_ASSERT_EQUAL(rig_prepare(rig_schema_text, "u,i,a,t\n9,9,buy,9\n", "other", NULL), CLU_OK);
    CU_ASSERT_EQUAL(rename(rig_path("other/shard-00000.slu"), rig_path("set/shard-00000.slu")), 0);
    CU_ASSERT_EQUAL(read_everything(rig_path("set")), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(read_everything(rig_path("other")), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(read_everything(rig_path("nowhere")), CLU_E_NOT_FOUND);
}

static void test_preparing_survives_every_failing_allocation(void)
{
    struct wrk_schema schema =
        rig_schema("user: u\nitem: i\naction: a\ntime: t\nactions: [click, cart, buy]\n"
                   "item_attributes: {key: id}\n"
                   "item_features: [{name: price, kind: numeric, from: attributes}]\n");
    char *log = rig_write_text("log.csv", small_log);
    char dir[PATH_MAX], items[PATH_MAX], log_path[PATH_MAX]; /* outlive rig_path's buffers */
    strcpy(dir, rig_path("oom"));
    strcpy(items, rig_write_text("items.csv", "id,price\n1,2.5\n2,3\n"));
    log = strcpy(log_path, log);
    struct wrk_prepare_options options = rig_options(&schema, &log, 1, dir);
    options.item_attributes = items;
    clu_log_init((enum clu_log_level) - 1, "test", -1, false);
    long n = 0;
    for (bool hit = true; hit; n++) {
        oom_arm(n);
        int status = wrk_prepare(&options, NULL);
        hit = oom_disarm();
        /* memory that only serves a message may fail without harm */
        CU_ASSERT(hit ? status == CLU_E_NO_MEMORY || status == CLU_OK : status == CLU_OK);
        if (status != CLU_OK)
            CU_ASSERT(!clu_path_exists(rig_path("oom.part")));
    }
    CU_ASSERT(n > 20);
    rig_quiet(false);
    CU_ASSERT_EQUAL(read_everything(rig_path("oom")), CLU_OK);
}

static void test_reading_survives_every_failing_allocation(void)
{
    clu_log_init((enum clu_log_level) - 1, "test", -1, false);
    long n = 0;
    for (bool hit = true; hit; n++) {
        oom_arm(n);
        int status = read_everything(rig_path("oom"));
        hit = oom_disarm();
        CU_ASSERT(hit ? status == CLU_E_NO_MEMORY || status == CLU_OK : status == CLU_OK);
    }
    CU_ASSERT(n > 20);
    struct wrk_dataset *dataset;
    CU_ASSERT_EQUAL_FATAL(wrk_dataset_open(rig_path("oom"), &dataset), CLU_OK);
    n = 0;
    for (bool hit = true; hit; n++) {
        struct wrk_references references;
        oom_arm(n);
        int status = wrk_references_measure(dataset, WRK_SPLIT_TEST, 0, 10, &references);
        hit = oom_disarm();
        CU_ASSERT(hit ? status == CLU_E_NO_MEMORY || status == CLU_OK : status == CLU_OK);
    }
    wrk_dataset_close(dataset);
    rig_quiet(false);
}

SUITE("worker.shard", T(test_a_user_block_has_the_bytes_the_header_shows),
      T(test_every_cut_and_flip_of_a_shard_is_refused),
      T(test_every_cut_and_flip_of_a_manifest_is_refused),
      T(test_a_missing_shard_and_a_swapped_one_are_refused),
      T(test_preparing_survives_every_failing_allocation),
      T(test_reading_survives_every_failing_allocation))

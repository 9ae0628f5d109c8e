/* The snapshot file: a worked example byte for byte, and what becomes of a file that is cut
 * anywhere or has any byte changed. */
#include "embeddings/snapshot.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"
#include "tests/embeddings/rig.h"

#include <fcntl.h>

/* One table "t" of dim 2, rowwise_adagrad (1 float of state); a row, a tombstone, a waiting key.
 * Offsets, then bytes; checksums are filled in by the test with clu_hash_bytes, whose values
 * test_hash.c pins. */
static const uint8_t golden[] = {
    /* 0 header */
    'S', 'L', 'U', 'I', 'C', 'E', 'S', 'N', 2, 0, 0, 0, 1, 0, 0, 0,
    /* 16 step 300, base step 200 */
    0x2c, 1, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0,
    /* 32 one table */
    1, 0, 0, 0, 0, 0, 0, 0,
    /* 40 its name */
    't', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0,
    /* 104 dim 2, optimizer 1, dtype 0, n_state 1, seed 9, init_range 0.5, value bytes 16 */
    2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3f, 16, 0, 0,
    0,
    /* 136 expire_steps 700 */
    0xbc, 2, 0, 0, 0, 0, 0, 0,
    /* 144 checksum */
    0, 0, 0, 0, 0, 0, 0, 0,
    /* 152 block: rows, table 0, 2 entries, 40 bytes */
    'B', 'L', 'C', 'K', 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0,
    /* 176 checksums */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 192 keys 5 and 2^64-1 */
    5, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
    /* 208 counts 3 and 0 (a tombstone) */
    3, 0, 0, 0, 0, 0, 0, 0,
    /* 216 last step 299, embedding 1 and -2, state 0.25 */
    0x2b, 1, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, 0, 0, 0x80, 0x3e,
    /* 232 block: candidates, table 0, 1 entry, 12 bytes */
    'B', 'L', 'C', 'K', 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0,
    /* 256 checksums */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 272 key 7, pushed twice */
    7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
    /* 284 end: 536 bytes */
    'B', 'L', 'C', 'K', 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 2, 0, 0, 0, 0, 0, 0,
    /* 308 checksums */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 324 1 row, 1 tombstone, 1 candidate; then 512 bytes of buckets, filled in by the test with
     * clu_bucket_of */
    1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
enum { BUCKETS_AT = 348, EXAMPLE_BYTES = BUCKETS_AT + EMB_BUCKET_BYTES };

static void put_check(uint8_t *bytes, size_t at, size_t from, size_t size)
{
    uint64_t check = clu_hash_bytes(bytes + from, size);
    memcpy(bytes + at, &check, 8);
}

static void put_block_checks(uint8_t *bytes, size_t block, size_t payload_bytes)
{
    put_check(bytes, block + 24, block + 40, payload_bytes);
    put_check(bytes, block + 32, block, 32);
}

static void write_example(const char *path)
{
    struct emb_snapshot_info info = {
        .is_delta = true, .step = 300, .base_step = 200, .n_tables = 1};
    emb_table_spec_init(&info.tables[0]);
    info.tables[0].name[0] = 't';
    info.tables[0].dim = 2;
    info.tables[0].optimizer = EMB_ROWWISE_ADAGRAD;
    info.tables[0].seed = 9;
    info.tables[0].init_range = 0.5;
    info.tables[0].expire_steps = 700;
    struct {
        uint32_t count, last_step;
        float embedding[2], state;
    } value = {3, 299, {1, -2}, 0.25f};
    struct emb_snapshot_writer *writer;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_writer_open(path, &info, &writer), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_writer_row(writer, 0, 5, &value), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_writer_row(writer, 0, UINT64_MAX, NULL), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_writer_candidate(writer, 0, 7, 2), CLU_OK);
    struct emb_snapshot_written written;
    uint64_t checksum = 0, size = 0;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_writer_finish(writer, &written), CLU_OK);
    CU_ASSERT_EQUAL(written.n_rows, 1);
    CU_ASSERT_EQUAL(written.n_tombstones, 1);
    CU_ASSERT_EQUAL(written.size_bytes, EXAMPLE_BYTES);
    CU_ASSERT_EQUAL(clu_file_checksum(path, &checksum, &size), CLU_OK);
    CU_ASSERT_EQUAL(written.checksum, checksum);
    CU_ASSERT_EQUAL(written.size_bytes, size);
}

static void test_a_file_is_as_its_format_says_byte_for_byte(void)
{
    char dir[256], path[300], *data;
    uint8_t expected[EXAMPLE_BYTES] = {0};
    size_t size;
    rig_folder(dir, sizeof(dir), "golden");
    snprintf(path, sizeof(path), "%s/file", dir);
    write_example(path);
    memcpy(expected, golden, sizeof(golden));
    const uint64_t keys[] = {5, UINT64_MAX, 7};
    for (int i = 0; i < 3; i++) {
        uint32_t bucket = clu_bucket_of(clu_table_hash("t"), keys[i]);
        expected[BUCKETS_AT + bucket / 8] |= (uint8_t)(1 << bucket % 8);
    }
    put_check(expected, 144, 0, 144);
    put_block_checks(expected, 152, 40);
    put_block_checks(expected, 232, 12);
    put_block_checks(expected, 284, 536);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 20, &data, &size), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(size, sizeof(expected));
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)data[i] != expected[i]) {
            printf("  byte %zu is %u, expected %u\n", i, (uint8_t)data[i], expected[i]);
            CU_FAIL("the file differs from the example");
            break;
        }
    free(data);
    struct emb_snapshot_reader *reader;
    struct emb_row row;
    CU_ASSERT_EQUAL_FATAL(emb_snapshot_reader_open(path, &reader), CLU_OK);
    CU_ASSERT_EQUAL(emb_snapshot_reader_next(reader, &row), CLU_OK);
    CU_ASSERT(row.key == 5 && row.count == 3 && row.last_step == 299);
    CU_ASSERT(row.embedding[0] == 1 && row.embedding[1] == -2 && row.state[0] == 0.25f);
    CU_ASSERT_EQUAL(emb_snapshot_reader_next(reader, &row), CLU_OK);
    CU_ASSERT(row.is_tombstone && row.key == UINT64_MAX);
    CU_ASSERT_EQUAL(emb_snapshot_reader_next(reader, &row), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(emb_snapshot_reader_next(reader, &row), CLU_E_NOT_FOUND);
    emb_snapshot_reader_close(reader);
    clu_remove_tree(dir);
}

static void write_bytes(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CU_ASSERT_FATAL(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

static void test_a_file_cut_anywhere_is_refused(void)
{
    char dir[256], path[300], cut[300], *data;
    size_t size;
    rig_folder(dir, sizeof(dir), "cut");
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(cut, sizeof(cut), "%s/cut", dir);
    write_example(path);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 20, &data, &size), CLU_OK);
    rig_quiet(true);
    for (size_t n = 0; n < size; n++) {
        write_bytes(cut, data, n);
        CU_ASSERT_EQUAL(emb_snapshot_verify(cut, NULL, NULL), CLU_E_CORRUPT);
    }
    char *longer = calloc(1, size + 1);
    memcpy(longer, data, size);
    write_bytes(cut, longer, size + 1);
    CU_ASSERT_EQUAL(emb_snapshot_verify(cut, NULL, NULL), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(emb_snapshot_verify(path, NULL, NULL), CLU_OK);
    rig_quiet(false);
    free(longer);
    free(data);
    clu_remove_tree(dir);
}

static void test_a_file_with_any_bit_flipped_is_refused(void)
{
    char dir[256], path[300], flipped[300], *data;
    size_t size;
    rig_folder(dir, sizeof(dir), "flip");
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(flipped, sizeof(flipped), "%s/flipped", dir);
    write_example(path);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 1 << 20, &data, &size), CLU_OK);
    rig_quiet(true);
    for (size_t i = 0; i < size; i++) {
        data[i] = (char)(data[i] ^ (1 << i % 8));
        write_bytes(flipped, data, size);
        int status = emb_snapshot_verify(flipped, NULL, NULL);
        /* a flipped version is another format, which is DATA */
        CU_ASSERT(status == CLU_E_CORRUPT || (i >= 8 && i < 12 && status == CLU_E_DATA));
        data[i] = (char)(data[i] ^ (1 << i % 8));
    }
    rig_quiet(false);
    free(data);
    clu_remove_tree(dir);
}

static void test_a_digest_does_not_depend_on_how_rows_are_spread(void)
{
    char dir[256], path[3][300];
    rig_folder(dir, sizeof(dir), "digest");
    struct emb_snapshot_info info = {.step = 1, .n_tables = 1};
    emb_table_spec_init(&info.tables[0]);
    info.tables[0].name[0] = 't';
    info.tables[0].dim = 3;
    info.tables[0].optimizer = EMB_SGD;
    struct emb_snapshot_writer *writer[3];
    uint64_t digest[3];
    for (int f = 0; f < 3; f++) {
        snprintf(path[f], sizeof(path[f]), "%s/%d", dir, f);
        CU_ASSERT_EQUAL_FATAL(emb_snapshot_writer_open(path[f], &info, &writer[f]), CLU_OK);
    }
    for (uint64_t key = 0; key < 100000; key++) {
        struct {
            uint32_t count, last_step;
            float embedding[3];
        } value = {1, (uint32_t)key, {(float)key, 1, 2}};
        CU_ASSERT_EQUAL(emb_snapshot_writer_row(writer[0], 0, key, &value), CLU_OK);
        CU_ASSERT_EQUAL(emb_snapshot_writer_row(writer[1 + key % 3 / 2], 0, key, &value), CLU_OK);
    }
    for (int f = 0; f < 3; f++) {
        CU_ASSERT_EQUAL(emb_snapshot_writer_finish(writer[f], NULL), CLU_OK);
        CU_ASSERT_EQUAL(emb_snapshot_digest(path[f], &digest[f]), CLU_OK);
    }
    CU_ASSERT_EQUAL(digest[0], digest[1] + digest[2]);
    CU_ASSERT_NOT_EQUAL(digest[1], digest[2]);
    clu_remove_tree(dir);
}

SUITE("embeddings.snapshot", T(test_a_file_is_as_its_format_says_byte_for_byte),
      T(test_a_file_cut_anywhere_is_refused), T(test_a_file_with_any_bit_flipped_is_refused),
      T(test_a_digest_does_not_depend_on_how_rows_are_spread))

#include "tests/suite.h"

#include "cluster/file.h"
#include "cluster/status.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/sluice-file-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof(path[0]), "%s/%s", folder, name);
    return out;
}

static void test_an_atomic_write_replaces_the_whole_content(void)
{
    char *data;
    size_t size;
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("a"), "first content", 13), CLU_OK);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("a"), "second", 6), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(in_folder("a"), 100, &data, &size), CLU_OK);
    CU_ASSERT(size == 6 && strcmp(data, "second") == 0);
    free(data);
    CU_ASSERT_EQUAL(clu_file_read_all(in_folder("a"), 5, &data, &size), CLU_E_DATA);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("none/a"), "x", 1), CLU_E_NOT_FOUND);
}

static void test_folders_are_made_and_removed_whole(void)
{
    CU_ASSERT_EQUAL(clu_mkdirs(in_folder("x/y/z")), CLU_OK);
    CU_ASSERT_EQUAL(clu_mkdirs(in_folder("x/y/z")), CLU_OK);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("x/y/f"), "1", 1), CLU_OK);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("kept"), "1", 1), CLU_OK);
    CU_ASSERT_EQUAL(symlink(in_folder("kept"), in_folder("x/link")), 0);
    CU_ASSERT_EQUAL(clu_mkdirs(in_folder("x/y/f")), CLU_E_EXISTS);
    CU_ASSERT_EQUAL(clu_remove_tree(in_folder("x")), CLU_OK);
    CU_ASSERT(!clu_path_exists(in_folder("x")) && clu_path_exists(in_folder("kept")));
    CU_ASSERT_EQUAL(clu_remove_tree(in_folder("x")), CLU_OK);
}

/* Everything a stream gives, read in small pieces. */
static int read_stream(const char *path, size_t piece, char *out, size_t capacity, size_t *size_p)
{
    struct clu_text_stream *stream = NULL;
    int status = clu_text_stream_open(path, &stream);
    size_t total = 0, n = 1;
    while (status == CLU_OK && n > 0 && total + piece <= capacity) {
        status = clu_text_stream_read(stream, out + total, piece, &n);
        if (status == CLU_OK)
            total += n;
    }
    clu_text_stream_close(stream);
    *size_p = total;
    return status;
}

static void run(const char *command)
{
    char line[512];
    snprintf(line, sizeof(line), "cd %s && %s", folder, command);
    CU_ASSERT_EQUAL_FATAL(system(line), 0);
}

static void test_streams_look_through_compression_and_refuse_a_cut(void)
{
    enum { BYTES = 300000 };
    char *text = malloc(BYTES), *out = malloc(2 * BYTES + 10000);
    CU_ASSERT_FATAL(text && out);
    uint64_t random = suite_seed();
    for (int i = 0; i < BYTES; i++)
        text[i] = (char)('a' + suite_random(&random) % 20);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(in_folder("t"), text, BYTES), CLU_OK);
    run("gzip -c t > t.gz && cat t.gz t.gz > t2.gz && head -c 100000 t.gz > cut.gz");
    static const char *const names[] = {"t", "t.gz", "t2.gz"};
    for (int i = 0; i < 3; i++) {
        size_t size = 0;
        CU_ASSERT_EQUAL(read_stream(in_folder(names[i]), 7777, out, 2 * BYTES + 10000, &size),
                        CLU_OK);
        CU_ASSERT_EQUAL(size, i == 2 ? 2 * BYTES : BYTES);
        CU_ASSERT_EQUAL(memcmp(out, text, BYTES), 0);
    }
    size_t size = 0;
    CU_ASSERT_EQUAL(read_stream(in_folder("cut.gz"), 7777, out, 2 * BYTES, &size), CLU_E_CORRUPT);
    char *packed = malloc(clu_zstd_bound(BYTES));
    size_t packed_bytes = 0;
    CU_ASSERT_FATAL(packed != NULL);
    CU_ASSERT_EQUAL_FATAL(
        clu_zstd_compress(text, BYTES, 3, packed, clu_zstd_bound(BYTES), &packed_bytes), CLU_OK);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("t.zst"), packed, packed_bytes), CLU_OK);
    CU_ASSERT_EQUAL(read_stream(in_folder("t.zst"), 5000, out, BYTES + 10000, &size), CLU_OK);
    CU_ASSERT(size == BYTES && memcmp(out, text, BYTES) == 0);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("cut.zst"), packed, packed_bytes / 2), CLU_OK);
    CU_ASSERT_EQUAL(read_stream(in_folder("cut.zst"), 5000, out, BYTES + 10000, &size),
                    CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(clu_zstd_decompress(packed, packed_bytes, out, BYTES), CLU_OK);
    CU_ASSERT_EQUAL(clu_zstd_decompress(packed, packed_bytes, out, BYTES + 1), CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(clu_zstd_decompress(packed, packed_bytes - 1, out, BYTES), CLU_E_CORRUPT);
    free(packed);
    free(text);
    free(out);
}

static void test_a_checksum_sees_one_flipped_bit(void)
{
    uint64_t before, after, size;
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("sum"), "0123456789", 10), CLU_OK);
    CU_ASSERT_EQUAL(clu_file_checksum(in_folder("sum"), &before, &size), CLU_OK);
    CU_ASSERT_EQUAL(size, 10);
    CU_ASSERT_EQUAL(clu_file_write_atomic(in_folder("sum"), "0123456788", 10), CLU_OK);
    CU_ASSERT_EQUAL(clu_file_checksum(in_folder("sum"), &after, NULL), CLU_OK);
    CU_ASSERT_NOT_EQUAL(before, after);
}

static void test_the_folder_of_this_test_is_removed(void)
{
    CU_ASSERT_EQUAL(clu_remove_tree(folder), CLU_OK);
}

static void test_the_folder_of_this_test_is_made(void)
{
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
}

SUITE("cluster.file", T(test_the_folder_of_this_test_is_made),
      T(test_an_atomic_write_replaces_the_whole_content),
      T(test_folders_are_made_and_removed_whole),
      T(test_streams_look_through_compression_and_refuse_a_cut),
      T(test_a_checksum_sees_one_flipped_bit), T(test_the_folder_of_this_test_is_removed))

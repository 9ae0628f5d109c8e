/* The safetensors format: what is written can be read, here and by anybody, and what is damaged is
 * refused before a byte of it is believed. */
#include "tests/suite.h"

#include "cluster/file.h"
#include "cluster/status.h"
#include "worker/safetensors.h"

#include <math.h>
#include <unistd.h>

static const float numbers[6] = {1.0f, -2.5f, 3.0f, 0.0f, 5.0f, -0.0f};

static void path_of(char path[128])
{
    snprintf(path, 128, "/tmp/sluice-safetensors-%ld", (long)getpid());
}

static void save_two(const char *path)
{
    const struct wrk_tensor tensors[] = {
        {"decision.b_c1", 0, 4, numbers},
        {"cam_item.Rho", 2, 3, numbers},
    };
    static const char *const metadata[] = {"producer", "a test", NULL};
    CU_ASSERT_EQUAL(wrk_safetensors_save(path, tensors, 2, metadata), CLU_OK);
}

static void test_what_is_saved_is_read_back(void)
{
    char path[128];
    path_of(path);
    save_two(path);
    struct wrk_safetensors *file = NULL;
    CU_ASSERT_EQUAL_FATAL(wrk_safetensors_open(path, &file), CLU_OK);
    CU_ASSERT_EQUAL(wrk_safetensors_count(file), 2);
    const struct wrk_tensor *vector = wrk_safetensors_find(file, "decision.b_c1");
    const struct wrk_tensor *matrix = wrk_safetensors_find(file, "cam_item.Rho");
    CU_ASSERT_PTR_NOT_NULL_FATAL(vector);
    CU_ASSERT_PTR_NOT_NULL_FATAL(matrix);
    CU_ASSERT(vector->rows == 0 && vector->cols == 4);
    CU_ASSERT(matrix->rows == 2 && matrix->cols == 3);
    CU_ASSERT_EQUAL(memcmp(vector->data, numbers, 16), 0);
    CU_ASSERT_EQUAL(memcmp(matrix->data, numbers, 24), 0);
    CU_ASSERT_PTR_NULL(wrk_safetensors_find(file, "cam_item.rho"));
    CU_ASSERT_STRING_EQUAL(wrk_safetensors_metadata(file, "producer"), "a test");
    wrk_safetensors_close(file);
    unlink(path);
}

/* the format's worked example: one vector of two numbers, byte for byte */
static void test_the_bytes_are_those_of_the_format(void)
{
    char path[128], *data = NULL;
    size_t size = 0;
    path_of(path);
    const float two[2] = {1.0f, -2.0f};
    const struct wrk_tensor tensor = {"b", 0, 2, two};
    CU_ASSERT_EQUAL(wrk_safetensors_save(path, &tensor, 1, NULL), CLU_OK);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 4096, &data, &size), CLU_OK);
    static const char header[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    size_t padded = (sizeof(header) - 1 + 7) / 8 * 8;
    CU_ASSERT_EQUAL_FATAL(size, 8 + padded + 8);
    CU_ASSERT_EQUAL((unsigned char)data[0], padded);
    CU_ASSERT_EQUAL(memcmp(data + 1, "\0\0\0\0\0\0\0", 7), 0);
    CU_ASSERT_EQUAL(memcmp(data + 8, header, sizeof(header) - 1), 0);
    for (size_t i = 8 + sizeof(header) - 1; i < 8 + padded; i++)
        CU_ASSERT_EQUAL(data[i], ' ');
    CU_ASSERT_EQUAL(memcmp(data + 8 + padded, "\0\0\x80\x3f\0\0\0\xc0", 8), 0);
    free(data);
    unlink(path);
}

static void test_a_file_cut_at_any_byte_is_refused(void)
{
    char path[128], *data = NULL;
    size_t size = 0;
    path_of(path);
    save_two(path);
    CU_ASSERT_EQUAL_FATAL(clu_file_read_all(path, 4096, &data, &size), CLU_OK);
    for (size_t cut = 0; cut < size; cut++) {
        FILE *stream = fopen(path, "wb");
        CU_ASSERT_EQUAL(fwrite(data, 1, cut, stream), cut);
        fclose(stream);
        struct wrk_safetensors *file = NULL;
        CU_ASSERT_EQUAL(wrk_safetensors_open(path, &file), CLU_E_CORRUPT);
    }
    free(data);
    unlink(path);
}

static int open_text(const char *header)
{
    char path[128];
    path_of(path);
    uint64_t length = strlen(header);
    FILE *stream = fopen(path, "wb");
    fwrite(&length, 8, 1, stream);
    fwrite(header, 1, length, stream);
    fwrite(numbers, 1, sizeof(numbers), stream);
    fclose(stream);
    struct wrk_safetensors *file = NULL;
    int status = wrk_safetensors_open(path, &file);
    wrk_safetensors_close(file);
    unlink(path);
    return status;
}

static void test_headers_that_lie_are_refused(void)
{
    /* every header's length is a multiple of 4, so that nothing but the lie can be the reason */
    static const char *const lies[] = {
        "{\"a\":{\"dtype\":\"F64\",\"shape\":[3],\"data_offsets\":[0,24]}}    ",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,28]}}    ",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[4,24]}}    ",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[24,0]}}    ",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-6],\"data_offsets\":[0,24]}}   ",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[0,24]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905,4],\"data_offsets\":[0,16]}}  ",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[0.5],\"data_offsets\":[0,2]}}   ",
        "{\"a\":[]} ",
        "[1, 2, 3]   ",
    };
    char right[128] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}}";
    while (strlen(right) % 4)
        strcat(right, " ");
    CU_ASSERT_EQUAL(open_text(right), CLU_OK);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        char padded[128];
        snprintf(padded, sizeof(padded), "%s", lies[i]);
        while (strlen(padded) % 4)
            strcat(padded, " ");
        CU_ASSERT_EQUAL(open_text(padded), CLU_E_CORRUPT);
    }
}

static void test_a_file_that_is_not_there_is_not_found(void)
{
    struct wrk_safetensors *file = NULL;
    CU_ASSERT_EQUAL(wrk_safetensors_open("/tmp/sluice-no-such-file", &file), CLU_E_NOT_FOUND);
}

SUITE("worker.safetensors", T(test_what_is_saved_is_read_back),
      T(test_the_bytes_are_those_of_the_format), T(test_a_file_cut_at_any_byte_is_refused),
      T(test_headers_that_lie_are_refused), T(test_a_file_that_is_not_there_is_not_found))

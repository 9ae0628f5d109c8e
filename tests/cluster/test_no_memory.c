/* Every allocation of the shared modules fails once: each is refused with NO_MEMORY, and nothing
 * leaks (the address sanitizer sees to that). */
#include "tests/suite.h"

#include "cluster/file.h"
#include "cluster/job.h"
#include "cluster/pack.h"
#include "cluster/status.h"
#include "cluster/yaml.h"
#include "tests/oom.h"

#include <unistd.h>

static char path[] = "/tmp/sluice-oom-XXXXXX";

static void test_the_file_of_this_test_is_made(void)
{
    int fd = mkstemp(path);
    CU_ASSERT_FATAL(fd >= 0);
    static const char text[] = "servers: 2\ntables:\n  - {name: item, dim: 8}\n";
    CU_ASSERT_EQUAL(write(fd, text, sizeof(text) - 1), (ssize_t)sizeof(text) - 1);
    close(fd);
}

static void test_loading_a_job_survives_every_failing_allocation(void)
{
    long n = 0;
    for (bool hit = true; hit; n++) {
        static struct clu_job job;
        oom_arm(n);
        int status = clu_job_load(path, &job);
        hit = oom_disarm();
        CU_ASSERT_EQUAL(status, hit ? CLU_E_NO_MEMORY : CLU_OK);
    }
    CU_ASSERT(n > 3); /* some allocations there were */
}

static void test_reading_a_file_survives_every_failing_allocation(void)
{
    long n = 0;
    for (bool hit = true; hit; n++) {
        struct clu_text_stream *stream;
        char *data = NULL, piece[64];
        size_t size;
        oom_arm(n);
        int status = clu_file_read_all(path, 1000, &data, &size);
        int opened = status == CLU_OK ? clu_text_stream_open(path, &stream) : status;
        hit = oom_disarm();
        CU_ASSERT_EQUAL(opened, hit ? CLU_E_NO_MEMORY : CLU_OK);
        if (opened == CLU_OK) {
            CU_ASSERT_EQUAL(clu_text_stream_read(stream, piece, sizeof(piece), &size), CLU_OK);
            clu_text_stream_close(stream);
        }
        if (status == CLU_OK)
            free(data);
    }
    CU_ASSERT(n > 3);
}

static void test_a_packer_remembers_that_memory_ran_out(void)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    oom_arm(1); /* the first block is had, its growth is not */
    for (int i = 0; i < 1000; i++)
        clu_pack_uint(&packer, 1u << 20);
    CU_ASSERT(oom_disarm());
    CU_ASSERT_EQUAL(clu_packer_status(&packer), CLU_E_NO_MEMORY);
    clu_packer_clear(&packer);
    clu_pack_uint(&packer, 7);
    CU_ASSERT(clu_packer_status(&packer) == CLU_OK && packer.size_bytes == 1);
    clu_packer_fini(&packer);
}

static void test_the_file_of_this_test_is_removed(void)
{
    CU_ASSERT_EQUAL(unlink(path), 0);
}

SUITE("cluster.no_memory", T(test_the_file_of_this_test_is_made),
      T(test_loading_a_job_survives_every_failing_allocation),
      T(test_reading_a_file_survives_every_failing_allocation),
      T(test_a_packer_remembers_that_memory_ran_out), T(test_the_file_of_this_test_is_removed))

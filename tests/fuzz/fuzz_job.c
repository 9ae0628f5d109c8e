/* Job files: any bytes are a job or a refusal with a line. What is accepted is within every range,
 * and written out it means the same again: that file is what the roles of a job are started with.
 */
#include "cluster/job.h"
#include "tests/fuzz/folder.h"
#include "tests/fuzz/target.h"

#include <string.h>

static void read_text(const char *path, char **text_p, size_t *size_p)
{
    if (clu_file_read_all(path, 1 << 20, text_p, size_p))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct clu_job job;
    char path[256], *first, *second;
    size_t n_first, n_second;
    fuzz_folder_make("job");
    fuzz_folder_write("job.yaml", data, size);
    snprintf(path, sizeof(path), "%s/job.yaml", fuzz_folder);
    if (clu_job_load(path, &job))
        return 0;
    if (job.servers < 1 || job.shards < 1 || job.workers < 1 || job.n_tables > CLU_MAX_TABLES)
        abort();
    clu_job_check(&job);
    if (clu_job_save(&job, path))
        abort();
    read_text(path, &first, &n_first);
    if (clu_job_load(path, &job) || clu_job_save(&job, path))
        abort();
    read_text(path, &second, &n_second);
    if (n_first != n_second || memcmp(first, second, n_first))
        abort();
    free(first);
    free(second);
    return 0;
}

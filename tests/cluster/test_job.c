#include "tests/suite.h"

#include "cluster/file.h"
#include "cluster/job.h"
#include "cluster/status.h"

#include <unistd.h>

/* Loads a job file of this text. */
static int load(const char *text, struct clu_job *job_p)
{
    char path[] = "/tmp/sluice-job-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL_FATAL(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int status = clu_job_load(path, job_p);
    unlink(path);
    return status;
}

static void test_an_empty_file_is_the_defaults(void)
{
    static struct clu_job job;
    CU_ASSERT_EQUAL(load("", &job), CLU_OK);
    CU_ASSERT(job.user_dim == 32 && job.item_dim == 32 && job.feature_dim == 16);
    CU_ASSERT(job.width == 64 && job.heads == 4 && job.history == 100 && job.init_range == 0.05);
}

static void test_keys_and_tables_are_read(void)
{
    static struct clu_job job;
    CU_ASSERT_EQUAL(load("servers: 3\nstaleness: async\nmemory_bytes: 64MiB\n"
                         "tables:\n  - {name: item, dim: 8, optimizer: rowwise_adagrad}\n"
                         "  - name: author\n    min_count: 2\n",
                         &job),
                    CLU_OK);
    CU_ASSERT(job.servers == 3 && job.staleness == CLU_STALENESS_ASYNC &&
              job.memory_bytes == 64 << 20);
    CU_ASSERT_EQUAL(job.n_tables, 2);
    const struct clu_job_table *item = clu_job_find_table(&job, "item");
    CU_ASSERT_FATAL(item != NULL);
    CU_ASSERT(item->dim == 8 && !strcmp(item->optimizer, "rowwise_adagrad") &&
              item->min_count == 0);
    CU_ASSERT_EQUAL(clu_job_find_table(&job, "author")->min_count, 2);
    CU_ASSERT_PTR_NULL(clu_job_find_table(&job, "user"));
}

static void test_bad_files_are_refused(void)
{
    static const char *const bad[] = {
        "servres: 3\n",                            /* unknown key */
        "servers: 0\n",                            /* out of range */
        "servers: two\n",                          /* not a number */
        "servers: [1]\n",                          /* not one value */
        "servers: 1\nservers: 2\n",                /* twice */
        "servers: 1\n batch: 2\n",                 /* not YAML */
        "- servers\n",                             /* not a map */
        "a: 1\n---\nb: 2\n",                       /* two documents */
        "tables: 3\n",                             /* not a list */
        "tables:\n  - {dim: 8}\n",                 /* a table without a name */
        "tables:\n  - {name: a}\n  - {name: a}\n", /* a table twice */
        "tables:\n  - {name: a, dmi: 3}\n",        /* unknown key of a table */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        static struct clu_job job;
        memset(&job, 0x55, sizeof(job));
        int status = load(bad[i], &job);
        CU_ASSERT_EQUAL(status, CLU_E_CONFIG);
        if (status != CLU_E_CONFIG)
            printf("accepted: %s", bad[i]);
        CU_ASSERT_EQUAL(((unsigned char *)&job)[0], 0x55); /* written only on success */
    }
}

static void test_a_missing_file_is_not_found(void)
{
    static struct clu_job job;
    CU_ASSERT_EQUAL(clu_job_load("/nonexistent/job.yaml", &job), CLU_E_NOT_FOUND);
}

static void test_a_saved_job_loads_as_it_was(void)
{
    static struct clu_job job, again;
    CU_ASSERT_EQUAL_FATAL(
        load("data: \"odd \\\"name\\\" # x\"\nbatch: 77\nstaleness: 3\nsparse_learning_rate: 0.3\n"
             "tables:\n  - {name: item, learning_rate: 0.7}\n",
             &job),
        CLU_OK);
    char path[] = "/tmp/sluice-job-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_FATAL(fd >= 0);
    close(fd);
    CU_ASSERT_EQUAL(clu_job_save(&job, path), CLU_OK);
    CU_ASSERT_EQUAL(clu_job_load(path, &again), CLU_OK);
    CU_ASSERT_EQUAL(memcmp(&job, &again, sizeof(job)), 0);
    unlink(path);
}

static void test_settings_that_contradict_are_refused(void)
{
    static struct clu_job job;
    CU_ASSERT_EQUAL_FATAL(load("data: x\n", &job), CLU_OK);
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_OK);
    job.heads = 3;
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_E_CONFIG);
    job.heads = 4;
    job.patience = 2; /* by what? */
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_E_CONFIG);
    job.valid_percent = 10;
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_OK);
    strcpy(job.host, "0.0.0.0"); /* beyond loopback, without keys */
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_E_CONFIG);
    job.insecure = true;
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_OK);
    CU_ASSERT_STRING_EQUAL(clu_job_metrics_host(&job), "0.0.0.0");
    job.insecure = false;
    strcpy(job.host, "127.0.0.1");
    CU_ASSERT_STRING_EQUAL(clu_job_metrics_host(&job), "127.0.0.1");
    strcpy(job.metrics_host, "eth0"); /* beyond loopback, too */
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_E_CONFIG);
    strcpy(job.keys, "keys"); /* said by somebody who knows what he does */
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_OK);
    CU_ASSERT_STRING_EQUAL(clu_job_metrics_host(&job), "eth0");
    job.metrics_port = 65535;
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_E_CONFIG);
    job.metrics_port = 0;
    job.data[0] = '\0';
    CU_ASSERT_EQUAL(clu_job_check(&job), CLU_E_CONFIG);
}

SUITE("cluster.job", T(test_an_empty_file_is_the_defaults), T(test_keys_and_tables_are_read),
      T(test_bad_files_are_refused), T(test_a_missing_file_is_not_found),
      T(test_a_saved_job_loads_as_it_was), T(test_settings_that_contradict_are_refused))

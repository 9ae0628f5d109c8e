/* Who holds a job's folder, and what is known of a job that runs no more. */
#include "sched/folder.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "tests/suite.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static char out[64], text[2048];

static void open_folder(void)
{
    char path[CLU_PATH_BYTES];
    snprintf(out, sizeof(out), "/tmp/sluice-folder-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(out));
    CU_ASSERT_EQUAL_FATAL(clu_path_join(path, sizeof(path), out, "run/snapshot"), 0);
    CU_ASSERT_EQUAL_FATAL(clu_mkdirs(path), 0);
}

static void write_file(const char *name, const char *content)
{
    char path[CLU_PATH_BYTES];
    CU_ASSERT_EQUAL_FATAL(clu_path_join(path, sizeof(path), out, name), 0);
    CU_ASSERT_EQUAL_FATAL(clu_file_write_atomic(path, content, strlen(content)), 0);
}

static void test_a_folder_is_held_until_its_holder_ends_however(void)
{
    int fd = -1, ends[2], again = -1;
    char byte;
    open_folder();
    CU_ASSERT_FALSE(schd_folder_is_held(out));
    CU_ASSERT_EQUAL(schd_folder_lock(out, &fd), CLU_OK);
    CU_ASSERT(schd_folder_is_held(out));
    CU_ASSERT_EQUAL(schd_folder_lock(out, &again), CLU_E_EXISTS);
    CU_ASSERT_EQUAL(again, -1);
    close(fd);
    CU_ASSERT_FALSE(schd_folder_is_held(out));

    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        byte = schd_folder_lock(out, &fd) == CLU_OK;
        _exit(write(ends[1], &byte, 1) == 1 ? pause() : 1);
    }
    CU_ASSERT_EQUAL(read(ends[0], &byte, 1), 1);
    CU_ASSERT_EQUAL(byte, 1);
    CU_ASSERT(schd_folder_is_held(out));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CU_ASSERT_FALSE(schd_folder_is_held(out));
    close(ends[0]);
    close(ends[1]);
    clu_remove_tree(out);
}

/* As `sluice status` does for a moment. */
static void test_who_only_looks_keeps_no_job_from_starting(void)
{
    int ends[2], fd = -1;
    char byte = 0, path[CLU_PATH_BYTES];
    open_folder();
    write_file("run/lock", "");
    CU_ASSERT_EQUAL_FATAL(clu_path_join(path, sizeof(path), out, "run/lock"), 0);
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        byte = flock(open(path, O_RDONLY), LOCK_SH) == 0;
        ssize_t n = write(ends[1], &byte, 1);
        usleep(100000);
        _exit(n != 1);
    }
    CU_ASSERT_EQUAL(read(ends[0], &byte, 1), 1);
    CU_ASSERT_EQUAL(byte, 1);
    CU_ASSERT_EQUAL(schd_folder_lock(out, &fd), CLU_OK);
    waitpid(pid, NULL, 0);
    close(fd);
    close(ends[0]);
    close(ends[1]);
    clu_remove_tree(out);
}

static void test_how_a_job_ended_is_known_until_the_next_one_begins(void)
{
    static const char why[] = "worker 1 says \"no\"; the job ends at step 20";
    struct schd_end loaded;
    time_t before = time(NULL);
    int fd;
    open_folder();
    CU_ASSERT_EQUAL(schd_folder_save_end(out, CLU_E_DATA, why, 20, 85), CLU_OK);
    write_file("run/snapshot/latest", "step-000000000010\n");
    schd_folder_load_end(out, &loaded);
    CU_ASSERT(loaded.told);
    CU_ASSERT_EQUAL(loaded.status, CLU_E_DATA);
    CU_ASSERT_STRING_EQUAL(loaded.text, why);
    CU_ASSERT_EQUAL(loaded.step, 20);
    CU_ASSERT_EQUAL(loaded.n_steps, 85);
    CU_ASSERT(loaded.time_ms / 1000 >= before && loaded.time_ms / 1000 <= time(NULL));
    CU_ASSERT_EQUAL(loaded.snapshot_step, 10);
    schd_end_describe(&loaded, text, sizeof(text));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "(exit code 65): worker 1 says \"no\"; the job ends"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "its newest whole snapshot is of step 10"));
    CU_ASSERT_EQUAL(schd_folder_lock(out, &fd), CLU_OK);
    close(fd);
    schd_folder_load_end(out, &loaded);
    CU_ASSERT_FALSE(loaded.told);
    clu_remove_tree(out);
}

static void test_of_a_killed_job_the_last_step_and_snapshot_are_known(void)
{
    static char long_log[100000];
    struct schd_end end;
    size_t n = 0;
    open_folder();
    schd_folder_load_end(out, &end); /* nothing at all */
    CU_ASSERT_FALSE(end.told);
    CU_ASSERT_EQUAL(end.status, CLU_E_LOST);
    CU_ASSERT_EQUAL(end.step, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(schd_end_describe(&end, text, sizeof(text)), "no whole"));
    for (int step = 10; step <= 10000; step += 10)
        n += (size_t)snprintf(long_log + n, sizeof(long_log) - n,
                              "{\"time_ms\":1,\"kind\":\"progress\",\"role\":\"worker\",\"step\":%d"
                              "}\n",
                              step);
    snprintf(long_log + n, sizeof(long_log) - n,
             "{\"kind\":\"snapshot\",\"step\":9000}\n{\"kind\":\"prog");
    write_file("run/metrics.jsonl", long_log);
    write_file("run/snapshot/latest", "step-000000009000\n");
    write_file("run/end.json", "{\"status\":\"OK\""); /* not ours: passed over */
    schd_folder_load_end(out, &end);
    CU_ASSERT_FALSE(end.told);
    CU_ASSERT_EQUAL(end.step, 10000);
    CU_ASSERT_EQUAL(end.snapshot_step, 9000);
    CU_ASSERT_PTR_NOT_NULL(strstr(schd_end_describe(&end, text, sizeof(text)), "without a word"));
    clu_remove_tree(out);
}

SUITE("sched.folder", T(test_a_folder_is_held_until_its_holder_ends_however),
      T(test_who_only_looks_keeps_no_job_from_starting),
      T(test_how_a_job_ended_is_known_until_the_next_one_begins),
      T(test_of_a_killed_job_the_last_step_and_snapshot_are_known))

/* A disk that is full for a while, or for good: a job's folder is a small file system in memory,
 * and another file takes all the room that is left while the job trains. It waits, or it ends with
 * 74 and says so; in both cases the job's result is the calm one's, in the end.
 *
 * Skipped (77) where nothing can be mounted: it needs root.
 */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

#include <sys/mount.h>

enum { WITHIN_MS = 90000 };

static struct small_data data;
static char calm[64];

static void open_job(struct driver *d, const char *more)
{
    char text[1024], out[600];
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 10\nepochs: 12\nread: greedy\nsnapshot_every: 60\n%s",
             data.set, more);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    mkdir(out, 0755);
    CU_ASSERT_EQUAL_FATAL(mount("tmpfs", out, "tmpfs", 0, "size=64m"), 0);
}

static void close_job(struct driver *d, unsigned failures_before)
{
    char out[600];
    CU_ASSERT_EQUAL(driver_left(d, 2000), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    umount(out);
    driver_close(d, CU_get_number_of_failures() > failures_before);
}

/* Takes all the room that there is, or gives it back. */
static void fill(const struct driver *d, bool full)
{
    static const char zeros[1 << 16];
    char path[700];
    snprintf(path, sizeof(path), "%s/out/filler", d->folder);
    if (!full) {
        CU_ASSERT_EQUAL(unlink(path), 0);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    CU_ASSERT_FATAL(fd >= 0);
    for (size_t size = sizeof(zeros); size > 0;)
        if (write(fd, zeros, size) <= 0)
            size /= 2; /* to the last byte */
    close(fd);
}

static void check_digest(const struct driver *d)
{
    char out[600], digest[64];
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
}

/* The calm job's digest is found by whoever needs it first. */
static void find_calm(void)
{
    struct driver d;
    char out[600];
    if (calm[0])
        return;
    open_job(&d, "");
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT_EQUAL_FATAL(driver_wait(&d, WITHIN_MS), 0);
    snprintf(out, sizeof(out), "%s/out", d.folder);
    small_data_digest(SLUICE, out, calm);
    CU_ASSERT_FATAL(calm[0] != '\0');
    umount(out);
    driver_close(&d, false);
}

static void start_and_fill(struct driver *d, const char *more)
{
    find_calm();
    open_job(d, more);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_text(d, "metrics.jsonl", "\"step\":100,", 30000));
    fill(d, true);
}

static void test_a_disk_that_is_full_for_a_while_is_waited_for(void)
{
    static const char *const more[] = {"durability: log\n", "durability: snapshot\n"};
    for (int i = 0; i < 2; i++) {
        struct driver d;
        unsigned before = CU_get_number_of_failures();
        start_and_fill(&d, more[i]);
        driver_nap(800); /* a fraction of the time that the job takes */
        fill(&d, false);
        CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 0);
        CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "the disk or the map is full"));
        check_digest(&d);
        close_job(&d, before);
    }
}

/* Told in the terminal what it was; the same command goes on when there is room. */
static void stays_full(const char *more)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    start_and_fill(&d, more);
    CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 74);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "No space left on device"));
    CU_ASSERT_PTR_NULL(strstr(d.text, "that is a bug"));
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    fill(&d, false);
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, WITHIN_MS), 0);
    check_digest(&d);
    close_job(&d, before);
}

static void test_a_log_that_cannot_be_written_ends_the_job_with_74(void)
{
    stays_full("durability: log\nmax_restarts: 20\n");
}

static void test_a_snapshot_that_cannot_be_written_ends_the_job_with_74(void)
{
    stays_full("durability: snapshot\nmax_restarts: 2\n");
}

static bool can_mount(void)
{
    char folder[] = "/tmp/sluice-mount-XXXXXX";
    if (!mkdtemp(folder))
        return false;
    bool can = mount("tmpfs", folder, "tmpfs", 0, "size=1m") == 0 && umount(folder) == 0;
    rmdir(folder);
    return can;
}

int main(int argc, char **argv)
{
    static const struct suite_test tests[] = {
        T(test_a_disk_that_is_full_for_a_while_is_waited_for),
        T(test_a_log_that_cannot_be_written_ends_the_job_with_74),
        T(test_a_snapshot_that_cannot_be_written_ends_the_job_with_74),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!can_mount()) {
        printf("no file system can be mounted here\n");
        return 77;
    }
    if (small_data_open(&data, SLUICE))
        return 1;
    int failed = suite_run("cluster_e2e.full", tests, sizeof(tests) / sizeof(tests[0]),
                           argc > 1 ? argv[1] : NULL);
    small_data_close(&data);
    return failed;
}

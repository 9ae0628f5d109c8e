/* What is read only when it is needed may turn out to be damaged then: rows of a server's store
 * that it finds while it serves already, and row files of a snapshot that the job went back to
 * without reading them. The job goes on by itself, with the bits of an undisturbed one. */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

enum { PAGE = 4096, LEAF = 2, KEY_BYTES = 8, LEAST_VALUE = 100, WITHIN_MS = 120000 };

static struct small_data data;
static char calm[64];

static void open_job(struct driver *d)
{
    char text[1024];
    if (!data.folder[0])
        CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: 10\nread: greedy\nmax_restarts: 10\nkeep: 3\n"
             "snapshot_every: 60\nid_dropout: 0\n",
             data.set);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
}

static void finish(struct driver *d, char digest_p[64])
{
    char out[600];
    CU_ASSERT_EQUAL(driver_wait(d, WITHIN_MS), 0);
    snprintf(out, sizeof(out), "%s/out", d->folder);
    small_data_digest(SLUICE, out, digest_p);
    CU_ASSERT(strlen(digest_p) >= 8);
}

static void test_the_calm_job(void)
{
    struct driver d;
    open_job(&d);
    CU_ASSERT_EQUAL_FATAL(driver_start(&d, SLUICE, NULL), 0);
    finish(&d, calm);
    driver_close(&d, false);
}

/* Starts it, waits until two snapshots are whole, and kills server 1. */
static void start_and_kill(struct driver *d)
{
    open_job(d);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, NULL), 0);
    CU_ASSERT(driver_await_snapshots(d, 2, WITHIN_MS));
    pid_t pid = driver_find(d, "sluice ps", "--rank 1", 0);
    CU_ASSERT_FATAL(pid > 0);
    kill(pid, SIGKILL);
}

static unsigned word_at(const unsigned char *page, unsigned offset)
{
    return offset + 1 < PAGE ? page[offset] | (unsigned)page[offset + 1] << 8 : 0;
}

/* Flips a bit in the first row of every page of rows: LMDB's own pages and named values, which an
 * open reads, stay as they are. How many. */
static int spoil_rows(const char *path)
{
    unsigned char page[PAGE];
    int fd = open(path, O_RDWR), n = 0;
    for (off_t at = 0; fd >= 0 && pread(fd, page, PAGE, at) == PAGE; at += PAGE) {
        unsigned flags = word_at(page, 10), node = word_at(page, 16), lower = word_at(page, 12);
        bool is_row = flags == LEAF && lower > 16 && word_at(page, node + 6) == KEY_BYTES &&
                      word_at(page, node) >= LEAST_VALUE && word_at(page, node + 2) == 0;
        if (!is_row || node + 8 + KEY_BYTES + LEAST_VALUE > PAGE)
            continue;
        unsigned victim = node + 8 + KEY_BYTES + LEAST_VALUE / 2;
        page[victim] ^= 4;
        n += pwrite(fd, &page[victim], 1, at + (off_t)victim) == 1;
    }
    if (fd >= 0)
        close(fd);
    return n;
}

static void test_damaged_rows_found_while_serving_come_from_the_snapshot(void)
{
    struct driver d;
    char path[700], digest[64];
    unsigned before = CU_get_number_of_failures();
    start_and_kill(&d);
    snprintf(path, sizeof(path), "%s/out/run/server-1/shard-0/data.mdb", d.folder);
    CU_ASSERT(spoil_rows(path) > 10);
    finish(&d, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    snprintf(path, sizeof(path), "%s/out/run/server-1.damaged", d.folder);
    CU_ASSERT_EQUAL(access(path, F_OK), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_a_snapshot_damaged_since_it_was_written_is_passed_over_when_it_is_read(void)
{
    struct driver d;
    char command[1200], digest[64];
    unsigned before = CU_get_number_of_failures();
    start_and_kill(&d);
    snprintf(
        command, sizeof(command),
        "cd '%s/out/run' && rm -r server-1 && for f in snapshot/$(cat snapshot/latest)/rows/*; "
        "do n=$(($(stat -c %%s $f) / 2)); b=$(od -An -tu1 -j$n -N1 $f); "
        "printf \"\\\\$(printf %%o $((b ^ 4)))\" | dd of=$f bs=1 seek=$n conv=notrunc "
        "2>/dev/null; done",
        d.folder);
    CU_ASSERT_EQUAL(system(command), 0);
    finish(&d, digest);
    CU_ASSERT_STRING_EQUAL(digest, calm);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "is damaged"));
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_clean_up(void)
{
    small_data_close(&data);
}

SUITE("cluster_e2e.damage", T(test_the_calm_job),
      T(test_damaged_rows_found_while_serving_come_from_the_snapshot),
      T(test_a_snapshot_damaged_since_it_was_written_is_passed_over_when_it_is_read),
      T(test_clean_up))

/* What the tests of data share: a temporary folder, small files in it, and prepare in one call. */
#ifndef TESTS_WORKER_DATA_RIG_H
#define TESTS_WORKER_DATA_RIG_H

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/dataset.h"
#include "worker/prepare.h"
#include "worker/reader.h"
#include "worker/schema.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char rig_folder[PATH_MAX];

static void rig_remove(void)
{
    clu_remove_tree(rig_folder);
}

/* the test's own folder, gone when it ends */
static inline const char *rig_dir(void)
{
    if (!rig_folder[0]) {
        strcpy(rig_folder, "/tmp/sluice-data-XX"
                           "XX"
                           "XX");
        if (!mkdtemp(rig_folder))
            abort();
        atexit(rig_remove);
    }
    return rig_folder;
}

/* a path in it; the last 8 results stay valid */
static inline char *rig_path(const char *name)
{
    static char paths[8][PATH_MAX];
    static int next;
    char *path = paths[next++ % 8];
    if (clu_path_join(path, PATH_MAX, rig_dir(), name) != CLU_OK)
        abort();
    return path;
}

static inline char *rig_write(const char *name, const void *data, size_t size_bytes)
{
    char *path = rig_path(name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size_bytes, file) != size_bytes || fclose(file) != 0)
        abort();
    return path;
}

static inline char *rig_write_text(const char *name, const char *text)
{
    return rig_write(name, text, strlen(text));
}

/* a small log's schema: header u,i,a,t; times in seconds */
static const char rig_schema_text[] = "name: small\n"
                                      "user: u\nitem: i\naction: a\ntime: t\n"
                                      "time_format: unix\n"
                                      "actions: [start, click, cart, buy]\n";

static inline struct wrk_schema rig_schema(const char *text)
{
    struct wrk_schema schema;
    if (wrk_schema_parse("test.yaml", text, strlen(text), &schema) != CLU_OK)
        abort();
    return schema;
}

static inline struct wrk_prepare_options rig_options(const struct wrk_schema *schema, char **logs,
                                                     int n_logs, const char *dir)
{
    return (struct wrk_prepare_options){.schema = schema,
                                        .logs = logs,
                                        .n_logs = n_logs,
                                        .dir = dir,
                                        .split = 0.9,
                                        .memory_bytes = (uint64_t)1 << 30};
}

/* prepares one log text with the defaults into folder name */
static inline int rig_prepare(const char *schema_text, const char *log, const char *name,
                              struct wrk_prepare_report *report_p)
{
    struct wrk_schema schema = rig_schema(schema_text);
    char *path = rig_write_text("log.csv", log);
    struct wrk_prepare_options options = rig_options(&schema, &path, 1, rig_path(name));
    return wrk_prepare(&options, report_p);
}

/* true when two files have the same bytes */
static inline bool rig_same_files(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 1;
    bool same = clu_file_read_all(a, (size_t)1 << 30, &x, &n) == CLU_OK &&
                clu_file_read_all(b, (size_t)1 << 30, &y, &m) == CLU_OK && n == m &&
                memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* Sends stderr to nowhere and back: for tests that make thousands of refusals. */
static inline void rig_quiet(bool quiet)
{
    static int kept = -1;
    if (quiet && kept < 0) {
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        kept = dup(STDERR_FILENO);
        dup2(nowhere, STDERR_FILENO);
        close(nowhere);
    } else if (!quiet && kept >= 0) {
        dup2(kept, STDERR_FILENO);
        close(kept);
        kept = -1;
    }
}

/* the reader's defaults in these tests: everything in one epoch, ids wanted */
static inline struct wrk_reader_options rig_reading(enum wrk_split split)
{
    return (struct wrk_reader_options){.split = split,
                                       .seed = 1,
                                       .batch = 1 << 20,
                                       .samples_per_user = 8,
                                       .history = 100,
                                       .n_ranks = 1,
                                       .with_ids = true};
}

#endif

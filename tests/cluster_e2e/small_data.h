/* The data set that whole-job tests train on: generated once a test program, some thousand samples.
 * */
#ifndef TESTS_CLUSTER_E2E_SMALL_DATA_H
#define TESTS_CLUSTER_E2E_SMALL_DATA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct small_data {
    char folder[256], set[300];
};

/* Only the folder, for a set of another size. */
static inline int small_data_open_folder(struct small_data *d)
{
    const char *root = getenv("TMPDIR");
    snprintf(d->folder, sizeof(d->folder), "%.200s/sluice-data-XXXXXX", root ? root : "/tmp");
    if (!mkdtemp(d->folder))
        return -1;
    snprintf(d->set, sizeof(d->set), "%s/set", d->folder);
    return 0;
}

/* split: the share that is for training. 0, or what `sluice generate` ended with. */
static inline int small_data_generate_split(const struct small_data *d, const char *program,
                                            long users, long items, long samples, double split)
{
    char command[1200];
    snprintf(command, sizeof(command),
             "'%s' generate --users %ld --items %ld --samples %ld --split %g --seed 3 --out '%s' "
             ">/dev/null",
             program, users, items, samples, split, d->set);
    return system(command);
}

static inline int small_data_generate(const struct small_data *d, const char *program, long users,
                                      long items, long samples)
{
    return small_data_generate_split(d, program, users, items, samples, 0.9);
}

/* Both: 0, or what `sluice generate` ended with. */
static inline int small_data_open(struct small_data *d, const char *program)
{
    return small_data_open_folder(d) ? -1 : small_data_generate(d, program, 300, 400, 6000);
}

static inline void small_data_close(const struct small_data *d)
{
    char command[400];
    snprintf(command, sizeof(command), "rm -rf '%s'", d->folder);
    if (system(command) != 0)
        printf("  %s is not removed\n", d->folder);
}

/* The digest of a job's newest snapshot, as `sluice inspect --digest` prints it; "" when it fails.
 * */
static inline void small_data_digest(const char *program, const char *out, char digest_p[64])
{
    char command[1600];
    snprintf(command, sizeof(command), "'%s' inspect --digest '%s/run/snapshot' 2>/dev/null",
             program, out);
    digest_p[0] = '\0';
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return;
    if (fgets(digest_p, 64, pipe))
        digest_p[strcspn(digest_p, "\n")] = '\0';
    if (pclose(pipe) != 0)
        digest_p[0] = '\0';
}

#endif

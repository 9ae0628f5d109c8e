/* Settings: one table, a row a knob. From it come the flag (--dense-learning-rate), the environment
 * variable (SLUICE_DENSE_LEARNING_RATE), the job-file key (dense_learning_rate), the range check,
 * --help, the man page and the dump of what is in force.
 *
 * A table describes fields of a plain struct by offset; the struct may be copied with memcpy.
 * Precedence is the order of the calls: defaults, file, environment, arguments; each overwrites the
 * one before. Every refusal is logged with where the value stood, what was allowed, and the nearest
 * name for an unknown one. Threads: any on distinct objects; the environment is read by
 * clu_settings_environment only.
 */
#ifndef CLUSTER_SETTINGS_H
#define CLUSTER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum clu_setting_kind {
    CLU_SETTING_BOOL,   /* bool: true|false|yes|no|on|off|1|0 */
    CLU_SETTING_INT,    /* int64_t in [min, max] */
    CLU_SETTING_REAL,   /* double in [min, max] */
    CLU_SETTING_SIZE,   /* uint64_t bytes in [min, max]: 4096, 64KiB, 2GiB, 1.5GiB, 2GB */
    CLU_SETTING_TEXT,   /* char[size] */
    CLU_SETTING_CHOICE, /* char[size], one of choices */
};

struct clu_setting {
    const char *name; /* snake_case */
    enum clu_setting_kind kind;
    size_t offset, size; /* of the field; size is the buffer of TEXT and CHOICE */
    const char *default_text;
    double min, max;     /* INT, REAL, SIZE */
    const char *choices; /* CHOICE: "greedy|exact"; INT: a word and its value, "async=-1" or NULL */
    const char *help;    /* a sentence, lower case, no full stop */
};

/* A table and the object it describes. */
struct clu_binding {
    const struct clu_setting *rows;
    size_t n_rows;
    void *object;
};

/* Writes every default into the object. */
void clu_settings_defaults(struct clu_binding binding);

/* Reads the SLUICE_* variables that name a row. */
int clu_settings_environment(struct clu_binding binding);

/* Assigns one value; place ("job.yaml, line 7", "--batch") stands in the message when it is
 * refused. */
int clu_setting_assign(const struct clu_setting *row, void *object, const char *text,
                       const char *place);

/* The row of that name, with - and _ alike; NULL when there is none. */
const struct clu_setting *clu_settings_find(struct clu_binding binding, const char *name);

/* The name nearest to a mistyped one over several bindings; NULL when none is near. */
const char *clu_settings_nearest(const struct clu_binding *bindings, size_t n_bindings,
                                 const char *name);

/* Parses --key value, --key=value, --flag, --no-flag and --set key=value into whichever binding
 * knows the key; what is left (after --, too) becomes the positionals, whose order is kept: their
 * number is returned and argv is permuted so that they stand first. USAGE for an unknown flag, with
 * the nearest name. */
int clu_settings_arguments(const struct clu_binding *bindings, size_t n_bindings, int argc,
                           char **argv, int *n_positionals_p);

/* The value in force as it would be written in a job file. */
void clu_setting_format(const struct clu_setting *row, const void *object, char *out,
                        size_t out_bytes);

/* What a row takes, in words: "1..4096", "greedy|exact", "text". */
void clu_setting_range(const struct clu_setting *row, char *out, size_t out_bytes);

/* The rows as --help shows them. */
void clu_settings_help(struct clu_binding binding, FILE *stream);

#endif

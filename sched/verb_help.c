/* `sluice help`: the verbs, one verb's help, or its man page, all from the tables that parse the
 * flags. */
#include "sched/verbs.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <ctype.h>

struct help_options {
    bool man, names;
};

static const struct clu_setting rows[] = {
    {"man", CLU_SETTING_BOOL, offsetof(struct help_options, man), sizeof(bool), "false", 0, 0, NULL,
     "print a man page (troff) instead"},
    {"names", CLU_SETTING_BOOL, offsetof(struct help_options, names), sizeof(bool), "false", 0, 0,
     NULL, "print the verbs' names only, one a line"},
};

static void print_list(FILE *stream)
{
    fputs("sluice - parameter-server training for action-sequence recommenders\n\n"
          "usage: sluice VERB [ARGUMENTS]   (sluice VERB --help tells a verb's flags)\n\nverbs:\n",
          stream);
    for (int i = 0; schd_verb_at(i); i++)
        fprintf(stream, "  %-10s %s\n", schd_verb_at(i)->name, schd_verb_at(i)->summary);
    fputs("\nexample:\n"
          "  sluice generate --users 500 --items 400 --samples 20000 --out data\n"
          "  sluice train --data data --out run --servers 2 --workers 2\n",
          stream);
}

/* Text for troff: backslashes and leading dots mean something there. */
static void print_troff(const char *text, FILE *stream)
{
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            fputs("\\&", stream);
        if (*text == '\\')
            fputs("\\e", stream);
        else if (*text == '-')
            fputs("\\-", stream);
        else
            fputc(*text, stream);
        line_start = *text == '\n';
    }
}

static void print_man_rows(const struct clu_setting *settings, size_t n_rows, FILE *stream)
{
    for (size_t i = 0; i < n_rows; i++) {
        char range[512];
        clu_setting_range(&settings[i], range, sizeof(range));
        fputs(".TP\n.B \\-\\-", stream);
        for (const char *p = settings[i].name; *p; p++)
            fputs(*p == '_' ? "\\-" : (const char[]){*p, '\0'}, stream);
        fputc('\n', stream);
        print_troff(settings[i].help, stream);
        fputs(" (", stream);
        print_troff(range, stream);
        if (settings[i].default_text[0]) {
            fputs(", default ", stream);
            print_troff(settings[i].default_text, stream);
        }
        fputs(")\n", stream);
    }
}

static void print_man(const struct schd_verb *verb, FILE *stream)
{
    fputs(".TH \"SLUICE\\-", stream);
    for (const char *p = verb->name; *p; p++)
        fputc(toupper((unsigned char)*p), stream);
    fprintf(stream, "\" 1\n.SH NAME\nsluice\\-%s \\- ", verb->name);
    print_troff(verb->summary, stream);
    fprintf(stream, "\n.SH SYNOPSIS\n.B sluice %s\n", verb->name);
    print_troff(verb->usage, stream);
    if (verb->n_rows > 0) {
        fputs("\n.SH OPTIONS\n", stream);
        print_man_rows(verb->rows, verb->n_rows, stream);
    }
    if (verb->takes_job) {
        struct clu_binding job = clu_job_settings(NULL);
        fputs("\n.SH JOB SETTINGS\nFlag, then SLUICE_NAME in the environment, then the job file, "
              "then the default.\n",
              stream);
        print_man_rows(job.rows, job.n_rows, stream);
    }
    fputs("\n.SH EXAMPLE\n.nf\n", stream);
    print_troff(verb->example, stream);
    fputs("\n.fi\n.SH EXIT STATUS\n0 success, 64 usage, 65 data, 66 not found, 69 unavailable, 70 "
          "bug, "
          "71 memory, 73 exists, 74 I/O, 75 try again, 76 protocol, 77 not allowed, 78 config\n",
          stream);
    if (verb->exits) {
        fputs(".PP\n", stream);
        print_troff(verb->exits, stream);
        fputc('\n', stream);
    }
}

static int run(const struct schd_call *call)
{
    const struct help_options *options = call->options;
    if (options->names) {
        for (int i = 0; schd_verb_at(i); i++)
            puts(schd_verb_at(i)->name);
        return CLU_OK;
    }
    if (call->n_positionals == 0) {
        print_list(stdout);
        return CLU_OK;
    }
    const struct schd_verb *verb = schd_verb_find(call->positionals[0]);
    if (!verb)
        return clu_fail(CLU_E_USAGE, "no verb '%s', `sluice help` lists them",
                        call->positionals[0]);
    if (options->man)
        print_man(verb, stdout);
    else
        schd_verb_print_help(verb, stdout);
    return CLU_OK;
}

const struct schd_verb schd_verb_help = {
    .name = "help",
    .summary = "list the verbs, or tell about one",
    .usage = "[VERB] [--man] [--names]",
    .example = "sluice help train",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct help_options),
    .max_positionals = 1,
    .run = run,
};

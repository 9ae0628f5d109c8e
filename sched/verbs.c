/* The registry of verbs, and the help text made from it. */
#include "sched/verbs.h"

#include <string.h>

static const struct schd_verb *const verbs[] = {
#define SCHD_X(name) &schd_verb_##name,
    SCHD_VERB_LIST(SCHD_X)
#undef SCHD_X
        NULL,
};

const struct schd_verb *schd_verb_at(int i)
{
    return i >= 0 && i < (int)(sizeof(verbs) / sizeof(verbs[0])) ? verbs[i] : NULL;
}

const struct schd_verb *schd_verb_find(const char *name)
{
    for (int i = 0; verbs[i]; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

const char *schd_verb_nearest(const char *name)
{
    struct clu_setting names[sizeof(verbs) / sizeof(verbs[0])] = {0};
    struct clu_binding binding = {names, sizeof(verbs) / sizeof(verbs[0]) - 1, NULL};
    for (size_t i = 0; i < binding.n_rows; i++)
        names[i].name = verbs[i]->name;
    return clu_settings_nearest(&binding, 1, name);
}

/* Every line of a text, indented. */
static void print_indented(const char *text, FILE *stream)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        fprintf(stream, "  %.*s\n", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

void schd_verb_print_help(const struct schd_verb *verb, FILE *stream)
{
    fprintf(stream, "sluice %s - %s\n\nusage: sluice %s %s\n", verb->name, verb->summary,
            verb->name, verb->usage);
    if (verb->n_rows > 0) {
        fputs("\nflags:\n", stream);
        clu_settings_help((struct clu_binding){verb->rows, verb->n_rows, NULL}, stream);
    }
    if (verb->takes_job) {
        fputs("\njob settings (flag > SLUICE_<NAME> > job file > default):\n", stream);
        clu_settings_help(clu_job_settings(NULL), stream);
    }
    if (verb->exits) {
        fputs("\nexit code:\n", stream);
        print_indented(verb->exits, stream);
    }
    fputs("\nexample:\n", stream);
    print_indented(verb->example, stream);
}

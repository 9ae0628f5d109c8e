/* Boxes are known by their first words, which Open MPI 4 has in its help files
 * (help-errmgr-base.txt, help-plm-rsh.txt, help-orterun.txt), and never changed. A text that is not
 * known is no fault: the end is then told by mpirun's exit code, as ever.
 */
#include "sched/launch_words.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char daemons[] = "unable to reliably start one or more daemons";
static const char agent[] = "plm_rsh_agent: ";
static const char program[] = "Executable: ";
static const char host[] = "Node: ";

static void copy(char *out, size_t out_bytes, const char *text)
{
    text += strspn(text, " ");
    snprintf(out, out_bytes, "%.*s", (int)strcspn(text, "\r\n"), text);
}

static void hear_in_box(struct schd_launch_words *w, const char *line)
{
    const char *at;
    if (strstr(line, daemons) && !w->fault) {
        w->fault = SCHD_LAUNCH_NO_DAEMON;
    } else if ((at = strstr(line, agent))) {
        w->fault = SCHD_LAUNCH_NO_AGENT;
        copy(w->thing, sizeof(w->thing), at + strlen(agent));
    } else if ((at = strstr(line, program))) {
        w->fault = SCHD_LAUNCH_NO_PROGRAM;
        copy(w->thing, sizeof(w->thing), at + strlen(program));
    } else if ((at = strstr(line, host))) {
        copy(w->host, sizeof(w->host), at + strlen(host));
    }
}

void schd_launch_words_hear(struct schd_launch_words *w, const char *line)
{
    size_t n = strlen(w->said);
    if (strncmp(line, "----------", 10) == 0)
        w->in_box = !w->in_box;
    else if (w->in_box)
        hear_in_box(w, line);
    else if (line[0] != '\0' && line[0] != '[' && line[0] != '{' &&
             !isdigit((unsigned char)line[0]))
        snprintf(w->said + n, sizeof(w->said) - n, "%s%s", n ? "\n" : "", line);
}

/* Whether a text has this word, with nothing before and after it that could belong to a name. */
static bool has_word(const char *text, const char *word, size_t size)
{
    for (const char *at = text; (at = strstr(at, word)); at++) {
        unsigned char before = at > text ? (unsigned char)at[-1] : ' ',
                      after = (unsigned char)at[size];
        bool ends = !isalnum(after) && after != '-' &&
                    (after != '.' || !isalnum((unsigned char)at[size + 1]));
        if (ends && !isalnum(before) && before != '-' && before != '.')
            return true;
    }
    return false;
}

/* The hosts of the list that were named, commas between them; "" when none was. */
static void name_hosts(const struct schd_launch_words *w, const char *hosts, bool all, char *out,
                       size_t out_bytes)
{
    size_t n = 0;
    out[0] = '\0';
    while (*hosts) {
        char name[128];
        size_t size = strcspn(hosts, " ");
        snprintf(name, sizeof(name), "%.*s", (int)size, hosts);
        hosts += size + strspn(hosts + size, " ");
        if (name[0] == '\0' || !(all || has_word(w->said, name, strlen(name))) ||
            has_word(out, name, strlen(name)))
            continue;
        if (n + 2 * sizeof(name) > out_bytes) {
            snprintf(out + n, out_bytes - n, " and others");
            return;
        }
        n += (size_t)snprintf(out + n, out_bytes - n, "%s%s", n ? ", " : "", name);
    }
}

bool schd_launch_words_describe(const struct schd_launch_words *w, const char *hosts, char *out,
                                size_t out_bytes)
{
    char named[400], first[128];
    name_hosts(w, hosts, false, named, sizeof(named));
    bool any = named[0] != '\0';
    if (!any)
        name_hosts(w, hosts, true, named, sizeof(named));
    copy(first, sizeof(first), w->said);
    if (w->fault == SCHD_LAUNCH_NO_PROGRAM)
        snprintf(out, out_bytes,
                 "could not be started: %s is not on %s, or may not be executed there: the same "
                 "path is needed on every host",
                 w->thing, w->host[0] ? w->host : named);
    else if (w->fault == SCHD_LAUNCH_NO_AGENT)
        snprintf(out, out_bytes,
                 "could not be started: Open MPI's launch agent is not on this machine: %s: "
                 "install ssh, or set OMPI_MCA_plm_rsh_agent to another one",
                 w->thing);
    else if (w->fault == SCHD_LAUNCH_NO_DAEMON)
        snprintf(
            out, out_bytes,
            "could not be started: Open MPI's launcher could not start its daemon on %s%s%s%s%s: "
            "check the name, that ssh (or the launch agent) gets there without a question, "
            "and that Open MPI is installed there",
            any ? "" : "one of ", named, first[0] ? " (" : "", first, first[0] ? ")" : "");
    return w->fault != SCHD_LAUNCH_WELL;
}

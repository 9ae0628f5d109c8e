/* Lines are built in a buffer on the stack and leave in one write(2): a pipe or an append-only file
 * takes a line of up to PIPE_BUF (4096) bytes whole, so processes that share stderr never tear each
 * other's lines. stdio was rejected: its lock serialises threads, and a fork copies its unwritten
 * buffer. */
#include "cluster/log.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, TEXT_BYTES = 3600 };

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static struct {
    enum clu_log_level level;
    const char *role;
    int rank;
    bool json;
} settings = {CLU_LOG_INFO, "sluice", -1, false};

void clu_log_init(enum clu_log_level level, const char *role, int rank, bool json)
{
    settings.level = level;
    settings.role = role;
    settings.rank = rank;
    settings.json = json;
}

int clu_log_level_of(const char *name)
{
    for (int i = 0; i < (int)(sizeof(level_names) / sizeof(level_names[0])); i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return -1;
}

bool clu_log_enabled(enum clu_log_level level)
{
    return level <= settings.level;
}

static void write_whole(const char *line, size_t size)
{
    while (size > 0) {
        ssize_t n = write(STDERR_FILENO, line, size);
        if (n <= 0)
            return; /* nobody is left to tell */
        line += n;
        size -= (size_t)n;
    }
}

/* The text with every byte beyond ASCII as '?'. */
static json_t *ascii_of(const char *text)
{
    char plain[TEXT_BYTES];
    snprintf(plain, sizeof(plain), "%s", text);
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p > 0x7e)
            *p = '?';
    return json_string(plain);
}

static void write_json(const char *stamp, enum clu_log_level level, const char *text)
{
    json_t *object =
        json_pack("{s:s,s:s,s:s,s:i,s:s%}", "time", stamp, "level", level_names[level], "role",
                  settings.role, "rank", settings.rank, "text", text, strlen(text));
    if (!object) /* the text is not UTF-8: only its ASCII part can stand in JSON */
        object = json_pack("{s:s,s:s,s:s,s:i,s:o}", "time", stamp, "level", level_names[level],
                           "role", settings.role, "rank", settings.rank, "text", ascii_of(text));
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (line) {
        size_t length = strlen(line);
        line[length] = '\n'; /* the terminator's place; the length is passed on */
        write_whole(line, length + 1);
    }
    free(line);
    json_decref(object);
}

static void log_text(enum clu_log_level level, const char *format, va_list arguments)
{
    char text[TEXT_BYTES];
    if (vsnprintf(text, sizeof(text), format, arguments) < 0)
        return;
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';

    struct timespec now;
    struct tm utc;
    char stamp[40], line[LINE_BYTES], who[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(stamp + used, sizeof(stamp) - used, ".%03ldZ", now.tv_nsec / 1000000);
    if (settings.json) {
        write_json(stamp, level, text);
        return;
    }
    if (settings.rank >= 0)
        snprintf(who, sizeof(who), "%s %d", settings.role, settings.rank);
    else
        snprintf(who, sizeof(who), "%s", settings.role);
    int length =
        snprintf(line, sizeof(line), "%s %s %s: %s\n", stamp, level_names[level], who, text);
    if (length > 0)
        write_whole(line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1);
}

void clu_log(enum clu_log_level level, const char *format, ...)
{
    if (!clu_log_enabled(level))
        return;
    va_list arguments;
    va_start(arguments, format);
    log_text(level, format, arguments);
    va_end(arguments);
}

int clu_fail(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_text(CLU_LOG_ERROR, format, arguments);
    va_end(arguments);
    return status;
}

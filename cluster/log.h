/* The log: one line an event, to stderr, written with one write(2) so that lines of many processes
 * sharing a terminal or a file never mix.
 *
 *     2026-01-31T12:00:00.123Z info worker 1: epoch 0 done, loss 1.4142
 *     {"time":"2026-01-31T12:00:00.123Z","level":"info","role":"worker","rank":1,"text":"..."}
 *
 * info is for what an operator reads (a few lines a minute), debug for one line an object, trace
 * for one a message. The level and the identity are the only mutable globals of the system; they
 * are set once, before threads start. Threads: any.
 */
#ifndef CLUSTER_LOG_H
#define CLUSTER_LOG_H

#include <stdbool.h>

enum clu_log_level {
    CLU_LOG_ERROR,
    CLU_LOG_WARN,
    CLU_LOG_INFO,
    CLU_LOG_DEBUG,
    CLU_LOG_TRACE,
};

/* Sets what every later line carries. role: static string ("ps"); rank: -1 when the role has only
 * one member; json: lines as JSON objects. Thread: call before any thread starts. */
void clu_log_init(enum clu_log_level level, const char *role, int rank, bool json);

/* The level of a name ("error" ... "trace"), or -1. */
int clu_log_level_of(const char *name);

/* True when a line of this level would be written: guards costly arguments. */
bool clu_log_enabled(enum clu_log_level level);

/* Writes one line; newlines and control bytes in the text are written as spaces. Longer than 4000
 * bytes is cut. */
void clu_log(enum clu_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define clu_error(...) clu_log(CLU_LOG_ERROR, __VA_ARGS__)
#define clu_warn(...)  clu_log(CLU_LOG_WARN, __VA_ARGS__)
#define clu_info(...)  clu_log(CLU_LOG_INFO, __VA_ARGS__)
#define clu_debug(...) clu_log(CLU_LOG_DEBUG, __VA_ARGS__)
#define clu_trace(...) clu_log(CLU_LOG_TRACE, __VA_ARGS__)

/* Logs an error and returns status: `return clu_fail(CLU_E_DATA, "%s, line %d: ...", path, line);`
 */
int clu_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

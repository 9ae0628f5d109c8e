/* One status type for the whole system.
 *
 * Every function that can fail returns an int: 0, or one of the negative codes below. The list is
 * written once, as an X-macro: name, process exit code (sysexits numbers), sentence. Foreign errors
 * (errno, zmq, LMDB, MPI) are translated by the wrapper that first sees them, which also logs what
 * it knows; everyone above returns the code unchanged.
 *
 * Threads: any. Cost: none.
 */
#ifndef CLUSTER_STATUS_H
#define CLUSTER_STATUS_H

/*  name, exit code, sentence */
#define CLU_STATUS_LIST(X)                                                                         \
    X(USAGE, 64, "wrong use of a command")                                                         \
    X(DATA, 65, "input data is not as expected")                                                   \
    X(CORRUPT, 65, "a stored file is damaged")                                                     \
    X(NOT_FOUND, 66, "no such thing")                                                              \
    X(UNAVAILABLE, 69, "a peer or service cannot be reached")                                      \
    X(TIMEOUT, 69, "a deadline passed")                                                            \
    X(LOST, 69, "a member of the job was lost")                                                    \
    X(BUG, 70, "an internal invariant is broken")                                                  \
    X(NO_MEMORY, 71, "out of memory")                                                              \
    X(EXISTS, 73, "it exists already")                                                             \
    X(IO, 74, "reading or writing failed")                                                         \
    X(FULL, 74, "the disk or the map is full")                                                     \
    X(AGAIN, 75, "try again later")                                                                \
    X(INTERRUPTED, 75, "stopped on request")                                                       \
    X(PROTOCOL, 76, "a message is malformed")                                                      \
    X(DENIED, 77, "not allowed")                                                                   \
    X(CONFIG, 78, "a setting is wrong")

/* CLU_OK is 0, CLU_E_USAGE is -1, and so on down the list; wire headers carry these numbers, so new
 * codes are only ever added at the end of the list above. */
enum clu_status_ordinal {
    CLU_ORDINAL_OK = 0,
#define CLU_X(name, exit_code, sentence) CLU_ORDINAL_##name,
    CLU_STATUS_LIST(CLU_X)
#undef CLU_X
        CLU_ORDINAL_END
};

enum clu_status {
    CLU_OK = 0,
#define CLU_X(name, exit_code, sentence) CLU_E_##name = -CLU_ORDINAL_##name,
    CLU_STATUS_LIST(CLU_X)
#undef CLU_X
};

/* The code's name ("TIMEOUT"), "OK" for 0, "UNKNOWN" for a number that is not in the list. Static.
 */
const char *clu_status_name(int status);

/* The code's sentence, lower case, no full stop. Static. */
const char *clu_status_text(int status);

/* The process exit code for a status: 0 for CLU_OK only, 70 for a number that is not in the list.
 */
int clu_status_exit_code(int status);

/* A negative errno-like translation: ENOENT NOT_FOUND, ENOSPC and EDQUOT FULL, ENOMEM NO_MEMORY,
 * EACCES and EPERM DENIED, EEXIST EXISTS, EINTR INTERRUPTED, ETIMEDOUT TIMEOUT, EAGAIN AGAIN,
 * connection errors UNAVAILABLE, anything else IO. error_number is a positive errno. */
int clu_status_from_errno(int error_number);

#endif

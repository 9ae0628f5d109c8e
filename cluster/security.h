/* Security: which keys a process shows and which it admits. CURVE on every socket, or none.
 *
 *     sluice keys DIR  -->  DIR/server.key  DIR/server.pub         servers and scheduler
 *                           DIR/sched.key   DIR/sched.pub          ...as clients, a pair for each
 * role DIR/ps.key ...  DIR/worker.key ...  DIR/tool.key ... DIR/allow the public keys admitted, one
 * a line, a name after it
 *
 * All modes 0600, the folder 0700. A key file is one line: 40 characters of Z85. A file or a folder
 * that others can write, or a secret that others can read, is refused. A stranger's connection ends
 * in the handshake: it is counted and one line is logged.
 *
 * Plain data once loaded; threads: any may read.
 */
#ifndef CLUSTER_SECURITY_H
#define CLUSTER_SECURITY_H

#include <stddef.h>

enum {
    CLU_KEY_TEXT_SIZE = 41, /* Z85 of 32 bytes, end included */
    CLU_MAX_ALLOWED = 4096,
};

struct clu_security {
    char server_public[CLU_KEY_TEXT_SIZE]; /* what a client expects of every server */
    char server_secret[CLU_KEY_TEXT_SIZE]; /* "" where this role may not bind */
    char public_key[CLU_KEY_TEXT_SIZE];    /* what this role shows when it connects */
    char secret_key[CLU_KEY_TEXT_SIZE];
    int n_allowed;
    char (*allowed)[CLU_KEY_TEXT_SIZE]; /* [n_allowed], sorted */
};

/* Loads what role ("sched", "ps", "worker", "tool") needs from a key folder. Errors, logged with
 * the file: CLU_E_NOT_FOUND, CLU_E_DENIED (modes), CLU_E_CONFIG (not a key). */
int clu_security_load(const char *dir, const char *role, struct clu_security *security_p);

/* Wipes secrets and frees the list. */
void clu_security_fini(struct clu_security *security);

/* Makes a key folder. Errors: CLU_E_EXISTS: it exists already and is not empty; CLU_E_IO. */
int clu_security_generate(const char *dir);

/* 1 when the public key (Z85) is on the allow list. */
int clu_security_allows(const struct clu_security *security, const char *public_key);

#endif

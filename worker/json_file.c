/* See the header: the one place where these files are written and parsed. */
#include "worker/json_file.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

int wrk_json_save(const char *path, json_t *json, int digits)
{
    char *text = json ? json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(digits)) : NULL;
    json_decref(json);
    if (!text)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to write it", path);
    int status = clu_file_write_atomic(path, text, strlen(text));
    free(text);
    return status;
}

int wrk_json_print(json_t *json, FILE *stream)
{
    char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    if (!text)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the answer");
    fprintf(stream, "%s\n", text);
    free(text);
    return CLU_OK;
}

int wrk_json_load(const char *path, size_t max_bytes, json_t **json_p)
{
    char *text = NULL;
    size_t size = 0;
    int status = clu_file_read_all(path, max_bytes, &text, &size);
    if (status)
        return status;
    json_error_t error;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!json)
        return clu_fail(CLU_E_CORRUPT, "%s, line %d: %s", path, error.line, error.text);
    *json_p = json;
    return CLU_OK;
}

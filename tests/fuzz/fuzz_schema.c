/* Schema files: any bytes are a schema or a refusal with a line. */
#include "cluster/log.h"
#include "tests/fuzz/target.h"
#include "worker/schema.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool quiet;
    if (!quiet)
        clu_log_init(CLU_LOG_ERROR, "fuzz", -1, false);
    quiet = true;
    struct wrk_schema schema;
    if (wrk_schema_parse("fuzz.yaml", (const char *)data, size, &schema) == 0) {
        json_t *json = wrk_schema_json(&schema);
        if (schema.n_actions < 2 || schema.n_actions > WRK_MAX_ACTIONS)
            abort();
        json_decref(json);
    }
    return 0;
}

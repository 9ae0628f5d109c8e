/* A data set's manifest. Changed bytes nearly always break its checksum, so the target mends it
 * before it tries again: the checks behind it are what is tested. */
#include "cluster/hash.h"
#include "tests/fuzz/target.h"
#include "worker/dataset_manifest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void try_parse(const char *text, size_t size)
{
    struct wrk_dataset_manifest manifest;
    if (wrk_dataset_manifest_parse("fuzz.json", text, size, &manifest) != 0)
        return;
    const struct wrk_dataset_info *info = &manifest.info;
    if (info->n_actions < 2 || info->n_actions > WRK_MAX_ACTIONS || info->n_user_columns < 1 ||
        info->n_item_columns < 1 || manifest.n_shards < 1)
        abort();
    wrk_dataset_manifest_fini(&manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_parse((const char *)data, size);
    json_t *json = json_loadb((const char *)data, size, 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return 0;
    }
    json_object_del(json, "checksum");
    char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    if (text) {
        json_object_set_new(json, "checksum",
                            json_sprintf("%016" PRIx64, clu_hash_bytes(text, strlen(text))));
        free(text);
        text = json_dumps(json, JSON_INDENT(1));
        if (text)
            try_parse(text, strlen(text));
        free(text);
    }
    json_decref(json);
    return 0;
}

/* A snapshot's manifest.json. Changed bytes nearly always break its checksum, so the target mends
 * it and tries again: the checks behind it are what is tested. */
#include "cluster/hash.h"
#include "cluster/manifest.h"
#include "tests/fuzz/folder.h"
#include "tests/fuzz/target.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

static void try_load(const char *text, size_t size)
{
    struct clu_manifest manifest;
    fuzz_folder_write("manifest.json", text, size);
    if (clu_manifest_load(fuzz_folder, &manifest))
        return;
    if (manifest.n_servers < 0 || manifest.n_shards < 0 || manifest.n_workers < 0)
        abort();
    for (int i = 0; i < manifest.n_files; i++) {
        const char *path = manifest.files[i].path;
        if (path[0] == '/' || strstr(path, ".."))
            abort();
    }
    clu_manifest_verify(fuzz_folder, &manifest, true);
    clu_manifest_fini(&manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_folder_make("manifest");
    try_load((const char *)data, size);
    json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
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
            try_load(text, strlen(text));
        free(text);
    }
    json_decref(json);
    return 0;
}

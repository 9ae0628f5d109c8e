/* A snapshot's manifest.json. Changed bytes nearly always break the checksum of its text, so the
 * target mends it and tries again: the checks behind it are what is tested. */
#include "cluster/hash.h"
#include "cluster/manifest.h"
#include "tests/fuzz/folder.h"
#include "tests/fuzz/target.h"

#include <inttypes.h>
#include <string.h>

enum { DIGITS = 16 };

static void try_load(const char *text, size_t size)
{
    struct clu_manifest manifest;
    fuzz_folder_write("manifest.json", text, size);
    if (clu_manifest_load(fuzz_folder, &manifest))
        return;
    if (manifest.n_servers < 0 || manifest.n_shards < 0 || manifest.n_workers < 0)
        abort();
    for (int i = 0; i < manifest.n_files; i++)
        if (manifest.files[i].path[0] == '/' || strstr(manifest.files[i].path, ".."))
            abort();
    clu_manifest_verify(fuzz_folder, &manifest, true);
    clu_manifest_fini(&manifest);
}

/* The digits are counted as zeros. */
static void mend(char *text)
{
    static const char key[] = "\"checksum\": \"";
    char digits[DIGITS + 1], *at = strstr(text, key);
    if (!at || strlen(at) < sizeof(key) + DIGITS)
        return;
    at += sizeof(key) - 1;
    memset(at, '0', DIGITS);
    snprintf(digits, sizeof(digits), "%016" PRIx64, clu_hash_bytes(text, strlen(text)));
    memcpy(at, digits, DIGITS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        abort();
    fuzz_folder_make("manifest");
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    try_load(text, size);
    mend(text);
    try_load(text, size);
    free(text);
    return 0;
}

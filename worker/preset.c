/* The registry: the list in the header, as an array. */
#include "worker/preset.h"

#include <stdio.h>
#include <string.h>

static const struct wrk_preset *const presets[] = {
#define WRK_X(name) &wrk_preset_##name,
    WRK_PRESET_LIST(WRK_X)
#undef WRK_X
};

enum { N_PRESETS = sizeof(presets) / sizeof(presets[0]) };

const struct wrk_preset *wrk_preset_find(const char *name)
{
    for (int i = 0; i < N_PRESETS; i++)
        if (strcmp(presets[i]->name, name) == 0)
            return presets[i];
    return NULL;
}

void wrk_preset_names(char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < N_PRESETS && used < out_bytes; i++)
        used +=
            (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? ", " : "", presets[i]->name);
}

/* Presets: schemas that come with the program. Each is a schema file's text (worker/schema.h) in a
 * C file of its own; to add one is to add preset_<name>.c and a line below. Threads: any.
 */
#ifndef WORKER_PRESET_H
#define WORKER_PRESET_H

#include <stddef.h>

struct wrk_preset {
    const char *name;
    const char *yaml;
};

/* The one list of presets. */
#define WRK_PRESET_LIST(X)                                                                         \
    X(rec_tmall)                                                                                   \
    X(userbehavior)                                                                                \
    X(deskdrop)                                                                                    \
    X(video)

#define WRK_X(name) extern const struct wrk_preset wrk_preset_##name;
WRK_PRESET_LIST(WRK_X)
#undef WRK_X

/* NULL when there is none of that name. */
const struct wrk_preset *wrk_preset_find(const char *name);

/* "rec-tmall, userbehavior, ..." */
void wrk_preset_names(char *out, size_t out_bytes);

#endif

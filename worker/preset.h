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

/* A schema of short video but for its name: `video`, and what generate makes (with a cohort). */
#define WRK_PRESET_VIDEO_COLUMNS                                                                   \
    "user: user_id\n"                                                                              \
    "item: video_id\n"                                                                             \
    "action: action\n"                                                                             \
    "time: time_ms\n"                                                                              \
    "time_format: unix_ms\n"                                                                       \
    "actions: [start, like, follow, forward, collect, leave]\n"                                    \
    "transform: duration\n"                                                                        \
    "position: position\n"                                                                         \
    "duration: duration\n"                                                                         \
    "item_features:\n"                                                                             \
    "  - {name: author, column: author_id}\n"                                                      \
    "  - {name: duration, kind: numeric, log1p: true}\n"

/* NULL when there is none of that name. */
const struct wrk_preset *wrk_preset_find(const char *name);

/* "rec-tmall, userbehavior, ..." */
void wrk_preset_names(char *out, size_t out_bytes);

#endif

/* Short video: a row an action, with the position in the video at which it fell and the video's
 * duration, both in seconds. T is position / duration, so it survives pauses and replays that a
 * clock does not. */
#include "worker/preset.h"

const struct wrk_preset wrk_preset_video = {
    "video",
    "name: video\n"
    "user: user_id\n"
    "item: video_id\n"
    "action: action\n"
    "time: time_ms\n"
    "time_format: unix_ms\n"
    "actions: [start, like, follow, forward, collect, leave]\n"
    "transform: duration\n"
    "position: position\n"
    "duration: duration\n"
    "item_features:\n"
    "  - {name: author, column: author_id}\n"
    "  - {name: duration, kind: numeric, log1p: true}\n",
};

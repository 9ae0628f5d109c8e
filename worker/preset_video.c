/* Short video: a row an action, with the position in the video at which it fell and the video's
 * duration, both in seconds. T is position / duration, so it survives pauses and replays that a
 * clock does not. */
#include "worker/preset.h"

const struct wrk_preset wrk_preset_video = {
    "video",
    "name: video\n" WRK_PRESET_VIDEO_COLUMNS,
};

/* CI&T Deskdrop: users_interactions.csv. Nearly every pair begins with VIEW, which stays an action
 * of its own: the log has no start, so one is put in front. */
#include "worker/preset.h"

const struct wrk_preset wrk_preset_deskdrop = {
    "deskdrop",
    "name: deskdrop\n"
    "user: personId\n"
    "item: contentId\n"
    "action: eventType\n"
    "time: timestamp\n"
    "time_format: unix\n"
    "actions: [start, {view: VIEW}, {like: LIKE}, {bookmark: BOOKMARK},\n"
    "          {comment: COMMENT CREATED}, {follow: FOLLOW}]\n",
};

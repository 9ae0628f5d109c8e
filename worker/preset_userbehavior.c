/* UserBehavior (Tianchi 649, Taobao 2017): no header, and a known dirt of its own: a few events
 * carry times outside the nine days the set covers (2017-11-25 to 2017-12-03, Beijing time). Those
 * are left out and counted, not refused, since every copy of the set has them. */
#include "worker/preset.h"

const struct wrk_preset wrk_preset_userbehavior = {
    "userbehavior",
    "name: userbehavior\n"
    "header: false\n"
    "columns: [user_id, item_id, category_id, behavior, timestamp]\n"
    "user: user_id\n"
    "item: item_id\n"
    "action: behavior\n"
    "time: timestamp\n"
    "time_format: unix\n"
    "time_from: 1511539200\n"
    "time_to: 1512316800\n"
    "time_outside: skip\n"
    "actions: [start, pv, fav, cart, buy]\n"
    "item_features:\n"
    "  - {name: category, column: category_id}\n",
};

/* Rec-Tmall (Tianchi 140281), the log and the product file of its authors. The published sample
 * writes minutes only, so many actions of a pair tie and fall back on the order of this list.
 * Product ids carry no letter where the log writes i161: hence the prefix. */
#include "worker/preset.h"

const struct wrk_preset wrk_preset_rec_tmall = {
    "rec-tmall",
    "name: rec-tmall\n"
    "user: user_id\n"
    "item: item_id\n"
    "action: action\n"
    "time: vtime\n"
    "time_format: ['%Y/%m/%d %H:%M:%S', '%Y/%m/%d %H:%M', '%Y-%m-%d %H:%M:%S']\n"
    "actions: [start, click, collect, cart, {pay: [alipay, pay]}]\n"
    "item_attributes: {key: item_id, key_prefix: i}\n"
    "item_features:\n"
    "  - {name: category, from: attributes}\n"
    "  - {name: brand, column: brand_id, from: attributes}\n"
    "  - {name: seller, column: seller_id, from: attributes}\n",
};

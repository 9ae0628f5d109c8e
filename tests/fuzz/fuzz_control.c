/* The control channel between the scheduler and the members: any bytes are a message or are
 * refused; what is accepted can be sent on and is the same again. */
#include "cluster/control.h"
#include "tests/fuzz/target.h"

#include <stdlib.h>
#include <string.h>

static int read_message(const void *data, size_t size, struct clu_bucket_map *map,
                        struct clu_control_message *message)
{
    message->map = map;
    return clu_control_unpack(data, size, message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct clu_control_message message, again;
    static struct clu_bucket_map map, other;
    struct clu_packer first, second;
    if (read_message(data, size, NULL, &message) || read_message(data, size, &map, &message))
        return 0; /* a map that nobody wants is only passed over */
    if (message.role >= CLU_N_ROLES || message.n_endpoints > 64 ||
        message.report.n_files > CLU_MAX_PART_FILES || memchr(message.text, 0, CLU_TEXT_BYTES) == 0)
        abort();
    clu_packer_init(&first);
    clu_packer_init(&second);
    clu_control_pack(&message, &first);
    if (clu_packer_status(&first) || read_message(first.data, first.size_bytes, &other, &again))
        abort();
    clu_control_pack(&again, &second);
    if (first.size_bytes != second.size_bytes || memcmp(first.data, second.data, first.size_bytes))
        abort();
    clu_packer_fini(&first);
    clu_packer_fini(&second);
    return 0;
}

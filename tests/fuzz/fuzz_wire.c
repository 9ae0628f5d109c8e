/* Everything that a worker or a stranger can send to a shard, and a shard to a worker: headers,
 * hellos, and whole requests into a live shard's mind (ps/shard.h) over a small store.
 *
 * An input is a message: its frames follow each other, each after a byte with its length; 255
 * stands for "the rest". Of replies only the header's decoder is of interest.
 */
#include "cluster/file.h"
#include "cluster/status.h"
#include "cluster/wire.h"
#include "embeddings/shard.h"
#include "ps/hello.h"
#include "ps/shard.h"
#include "tests/fuzz/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[128];
static struct emb_shard *rows;
static struct psv_shard *shard;
static struct emb_table_spec tables[2];

static int drop(void *context, struct clu_message *message)
{
    (void)context;
    clu_message_close(message);
    return 0;
}

static void clean_up(void)
{
    psv_shard_free(shard);
    emb_shard_close(rows);
    clu_remove_tree(dir);
}

static void set_up(void)
{
    snprintf(dir, sizeof(dir), "%s/sluice-fuzz-wire-%d", P_tmpdir, (int)getpid());
    for (int t = 0; t < 2; t++) {
        emb_table_spec_init(&tables[t]);
        snprintf(tables[t].name, sizeof(tables[t].name), "t%d", t);
        tables[t].dim = 2 + t;
    }
    struct emb_shard_options options = {.dir = dir};
    if (clu_mkdirs(dir) || emb_shard_open(&options, tables, 2, &rows))
        abort();
    struct psv_shard_options mind = {
        .rows = rows,
        .terms = {.n_ranks = 2, .staleness = 1, .tables = tables, .n_tables = 2},
        .snapshot_root = "/nonexistent/snapshots",
        .max_held = 16,
        .max_buffered_bytes = 1 << 16,
        .send = drop,
    };
    if (psv_shard_create(&mind, &shard))
        abort();
    atexit(clean_up);
}

static void send_message(const uint8_t *data, size_t size, int64_t now_ms)
{
    struct clu_message message;
    clu_message_init(&message);
    message.peer_size = 4;
    memcpy(message.peer, "peer", 4);
    while (size > 0 && message.n_frames < CLU_MESSAGE_FRAMES) {
        size_t n = data[0] == 255 || data[0] >= size ? size - 1 : data[0];
        if (clu_frame_init_copy(clu_message_add(&message), data + 1, n))
            abort();
        data += 1 + n;
        size -= 1 + n;
    }
    psv_shard_handle(shard, &message, now_ms);
    clu_message_close(&message);
    psv_shard_tick(shard, now_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int64_t now_ms;
    static struct clu_wire_request request;
    struct clu_wire_reply reply;
    struct psv_terms terms = {.n_ranks = 2, .staleness = 1, .tables = tables, .n_tables = 2};
    const char *reason;
    char sentence[128];
    if (!shard)
        set_up();
    if (!clu_wire_decode_request(data, size, &request, &reason)) {
        /* whatever is accepted can be written again and means the same */
        unsigned char *again = malloc(clu_wire_request_size(&request));
        if (!again)
            abort();
        size_t n = clu_wire_encode_request(&request, again);
        static struct clu_wire_request back;
        if (clu_wire_decode_request(again, n, &back, &reason) || back.n_keys != request.n_keys)
            abort();
        free(again);
    }
    clu_wire_decode_reply(data, size, &reply);
    psv_hello_check(&terms, data, size, sentence, sizeof(sentence));
    send_message(data, size, now_ms += 10);
    return 0;
}

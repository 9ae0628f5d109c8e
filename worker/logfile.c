/* libcsv splits rows into fields; it calls back per field and per row but knows no lines. So it is
 * fed one physical line at a time: whatever row ends inside that call ends on that line, and began
 * on the line that was being fed when its first field (or its first byte) came. A line usually
 * holds one row; a lone CR may end several inside it, so finished rows stand in a queue that is
 * emptied before the next line is fed.
 *
 * Invariants: (I1) rows in the queue are complete; their texts lie in the arena, which is emptied
 * only when the queue is. (I2) row_bytes counts what was fed since the row under construction
 * began, so an unclosed quote cannot swallow memory: past MAX_ROW_BYTES the row becomes a fault and
 * parsing starts afresh on the next line.
 */
#include "worker/logfile.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/schema.h"

#include <csv.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 18, MAX_ROW_BYTES = 1 << 20 };

/* offsets while the arena may move */
struct span {
    size_t offset, size_bytes;
};

struct queued {
    int first_field, n_fields;
    uint64_t line, n_lines;
    const char *fault;
};

struct wrk_logfile {
    struct clu_text_stream *stream;
    char *path;
    struct csv_parser parser;
    char delimiter;
    unsigned char options;
    char *chunk;
    size_t chunk_size, chunk_at;
    bool at_end, finished;
    uint64_t line;     /* the line being fed, from 1 */
    uint64_t row_line; /* where the row under construction began */
    uint64_t bytes;
    size_t row_bytes; /* (I2) */
    bool row_open;    /* some of a row has been fed */
    bool line_open;   /* some of the line has been fed */
    bool skipping;    /* the rest of the line belongs to a fault */
    bool out_of_memory;
    char *arena;
    size_t arena_size, arena_capacity;
    struct span *spans;
    int n_spans, span_capacity, row_first_span;
    struct wrk_field *fields; /* of the row handed out */
    int field_capacity;
    struct queued *queue;
    int n_queued, queue_at, queue_capacity;
};

static int is_blank(unsigned char c)
{
    return c == ' ';
}

static void *grow(void *old, int *capacity_p, size_t item_bytes)
{
    int capacity = *capacity_p ? 2 * *capacity_p : 16;
    void *fresh = realloc(old, (size_t)capacity * item_bytes);
    if (fresh)
        *capacity_p = capacity;
    return fresh;
}

static void on_field(void *text, size_t size_bytes, void *context)
{
    struct wrk_logfile *file = context;
    if (file->out_of_memory)
        return;
    if (file->arena_size + size_bytes + 1 > file->arena_capacity) {
        size_t capacity = 2 * (file->arena_size + size_bytes + 1) + 4096;
        char *arena = realloc(file->arena, capacity);
        if (!arena) {
            file->out_of_memory = true;
            return;
        }
        file->arena = arena;
        file->arena_capacity = capacity;
    }
    if (file->n_spans == file->span_capacity) {
        struct span *spans = grow(file->spans, &file->span_capacity, sizeof(*spans));
        if (!spans) {
            file->out_of_memory = true;
            return;
        }
        file->spans = spans;
    }
    if (size_bytes > 0)
        memcpy(file->arena + file->arena_size, text, size_bytes);
    file->arena[file->arena_size + size_bytes] = 0;
    file->spans[file->n_spans++] = (struct span){file->arena_size, size_bytes};
    file->arena_size += size_bytes + 1;
}

static void push_row(struct wrk_logfile *file, const char *fault)
{
    if (file->n_queued == file->queue_capacity) {
        struct queued *queue = grow(file->queue, &file->queue_capacity, sizeof(*queue));
        if (!queue) {
            file->out_of_memory = true;
            return;
        }
        file->queue = queue;
    }
    int n_fields = file->n_spans - file->row_first_span;
    if (n_fields > WRK_MAX_FIELDS)
        fault = "more than 256 fields";
    file->queue[file->n_queued++] =
        (struct queued){file->row_first_span, fault ? 0 : n_fields, file->row_line,
                        file->line - file->row_line + 1, fault};
    file->row_first_span = file->n_spans;
    file->row_line = file->line;
    file->row_bytes = 0;
    file->row_open = false;
}

static void on_row(int terminator, void *context)
{
    (void)terminator;
    struct wrk_logfile *file = context;
    if (!file->out_of_memory)
        push_row(file, NULL);
}

static int start_parser(struct wrk_logfile *file)
{
    if (csv_init(&file->parser, file->options) != 0)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", file->path);
    csv_set_delim(&file->parser, (unsigned char)file->delimiter);
    csv_set_space_func(&file->parser, is_blank);
    return CLU_OK;
}

int wrk_logfile_open(const char *path, char delimiter, bool strict, struct wrk_logfile **file_p)
{
    struct wrk_logfile *file = calloc(1, sizeof(*file));
    if (!file)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    file->delimiter = delimiter;
    file->options = CSV_APPEND_NULL | (strict ? CSV_STRICT | CSV_STRICT_FINI : 0);
    file->path = strdup(path);
    file->chunk = malloc(CHUNK_BYTES);
    int status = CLU_OK;
    if (!file->path || !file->chunk)
        status = clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    if (status == CLU_OK)
        status = start_parser(file);
    if (status == CLU_OK)
        status = clu_text_stream_open(path, &file->stream);
    if (status != CLU_OK) {
        wrk_logfile_close(file);
        return status;
    }
    file->line = 1;
    file->row_line = 1;
    *file_p = file;
    return CLU_OK;
}

/* a fault ends the row under construction and whatever the parser holds of it */
static int fault_row(struct wrk_logfile *file, const char *fault)
{
    push_row(file, fault);
    file->skipping = file->line_open;
    csv_free(&file->parser);
    return start_parser(file);
}

/* feeds bytes that hold at most one line end, at their end */
static int feed(struct wrk_logfile *file, const char *bytes, size_t size_bytes)
{
    if (!file->row_open) {
        file->row_line = file->line;
        file->row_open = true;
    }
    file->row_bytes += size_bytes;
    size_t used = csv_parse(&file->parser, bytes, size_bytes, on_field, on_row, file);
    if (file->out_of_memory || (used < size_bytes && csv_error(&file->parser) == CSV_ENOMEM))
        return clu_fail(CLU_E_NO_MEMORY, "%s, line %llu: out of memory", file->path,
                        (unsigned long long)file->line);
    if (used < size_bytes) /* the rest of the line goes with the fault */
        return fault_row(file, "a quote in the wrong place");
    if (file->row_bytes > MAX_ROW_BYTES)
        return fault_row(file, "a row longer than 1 MiB (an unclosed quote?)");
    return CLU_OK;
}

static int refill(struct wrk_logfile *file)
{
    int status = clu_text_stream_read(file->stream, file->chunk, CHUNK_BYTES, &file->chunk_size);
    if (status != CLU_OK)
        return status;
    file->chunk_at = 0;
    bool first = file->bytes == 0;
    file->bytes += file->chunk_size;
    const unsigned char *c = (const unsigned char *)file->chunk;
    if (first && file->chunk_size >= 3 && c[0] == 0xef && c[1] == 0xbb && c[2] == 0xbf)
        file->chunk_at = 3;
    if (first && file->chunk_size >= 2 &&
        ((c[0] == 0xff && c[1] == 0xfe) || (c[0] == 0xfe && c[1] == 0xff)))
        return clu_fail(CLU_E_DATA,
                        "%s: UTF-16 text: expected UTF-8 (try iconv -f UTF-16 -t UTF-8)",
                        file->path);
    if (file->chunk_size == 0)
        file->at_end = true;
    return CLU_OK;
}

static int finish(struct wrk_logfile *file)
{
    file->finished = true;
    if (!file->row_open)
        return CLU_OK;
    if (!file->line_open)
        file->line--; /* the file ends with a line end: nothing stands on the line behind it */
    if (csv_fini(&file->parser, on_field, on_row, file) != 0 && !file->out_of_memory)
        return fault_row(file, "an unclosed quote");
    return file->out_of_memory ? clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", file->path)
                               : CLU_OK;
}

/* feeds up to the next line end, or the end of the chunk */
static int feed_line(struct wrk_logfile *file)
{
    if (file->chunk_at == file->chunk_size) {
        int status = refill(file);
        if (status != CLU_OK)
            return status;
        if (file->at_end)
            return finish(file);
    }
    const char *from = file->chunk + file->chunk_at;
    size_t left = file->chunk_size - file->chunk_at;
    const char *end = memchr(from, '\n', left);
    size_t size = end ? (size_t)(end - from) + 1 : left;
    file->chunk_at += size;
    file->line_open = end == NULL && size > 0;
    int status = size && !file->skipping ? feed(file, from, size) : CLU_OK;
    if (end) {
        file->skipping = false;
        /* an empty line, or the LF of a CRLF, leaves no row open */
        if (file->n_spans == file->row_first_span && file->parser.pstate == 0)
            file->row_open = false;
        file->line++;
    }
    return status;
}

int wrk_logfile_next(struct wrk_logfile *file, struct wrk_row *row_p, bool *more_p)
{
    if (file->queue_at == file->n_queued) { /* (I1) */
        int kept = file->n_spans - file->row_first_span;
        if (kept == 0) {
            file->n_spans = file->row_first_span = 0;
            file->arena_size = 0;
        } else { /* an open row keeps its fields; offsets stay */
            memmove(file->spans, file->spans + file->row_first_span,
                    (size_t)kept * sizeof(*file->spans));
            file->n_spans = kept;
            file->row_first_span = 0;
        }
        file->n_queued = file->queue_at = 0;
    }
    while (file->queue_at == file->n_queued) {
        if (file->finished) {
            *more_p = false;
            return CLU_OK;
        }
        int status = feed_line(file);
        if (status != CLU_OK)
            return status;
    }
    const struct queued *queued = &file->queue[file->queue_at++];
    while (file->field_capacity < queued->n_fields) {
        struct wrk_field *fields = grow(file->fields, &file->field_capacity, sizeof(*file->fields));
        if (!fields)
            return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", file->path);
        file->fields = fields;
    }
    for (int i = 0; i < queued->n_fields; i++) {
        const struct span *span = &file->spans[queued->first_field + i];
        file->fields[i] = (struct wrk_field){file->arena + span->offset, span->size_bytes};
    }
    *row_p = (struct wrk_row){file->fields, queued->n_fields, queued->line, queued->n_lines,
                              queued->fault};
    *more_p = true;
    return CLU_OK;
}

uint64_t wrk_logfile_bytes(const struct wrk_logfile *file)
{
    return file->bytes;
}

const char *wrk_logfile_path(const struct wrk_logfile *file)
{
    return file->path;
}

void wrk_logfile_close(struct wrk_logfile *file)
{
    if (!file)
        return;
    if (file->stream)
        clu_text_stream_close(file->stream);
    csv_free(&file->parser);
    free(file->path);
    free(file->chunk);
    free(file->arena);
    free(file->spans);
    free(file->fields);
    free(file->queue);
    free(file);
}

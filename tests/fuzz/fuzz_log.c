/* Logs: any bytes are rows, faults or a refusal; every row is an event or a sentence. The input is
 * a file as it lies on the disk, so compressed ones are opened, too. */
#include "tests/fuzz/target.h"
#include "worker/event.h"
#include "worker/logfile.h"
#include "worker/schema.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char schema_text[] = "user: u\nitem: i\naction: a\ntime: t\n"
                                  "header: false\ncolumns: [u, i, a, t, d, p, price]\n"
                                  "time_format: ['%Y/%m/%d %H:%M', '%s']\n"
                                  "actions: [click, {buy: [buy, pay]}]\n"
                                  "transform: duration\nduration: d\nposition: p\n"
                                  "item_features: [{name: price, kind: numeric, log1p: true}]\n";

static void read_file(const char *path, bool strict, const struct wrk_binding *binding)
{
    struct wrk_logfile *file;
    struct wrk_row row;
    bool more;
    uint64_t line = 0;
    if (wrk_logfile_open(path, ',', strict, &file) != 0)
        return;
    while (wrk_logfile_next(file, &row, &more) == 0 && more) {
        struct wrk_event event;
        char text[256] = "";
        if (row.line < line || row.n_lines == 0)
            abort(); /* lines never go back */
        line = row.line;
        enum wrk_row_result result = wrk_event_read(binding, &row, &event, text, sizeof(text));
        if ((result == WRK_ROW_BAD) != (text[0] != 0))
            abort();
        if (result == WRK_ROW_OK && (event.action < 2 || event.action > 3))
            abort();
    }
    wrk_logfile_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wrk_schema schema;
    static struct wrk_binding binding;
    if (!binding.schema &&
        (wrk_schema_parse("fuzz", schema_text, sizeof(schema_text) - 1, &schema) != 0 ||
         wrk_binding_init(&binding, &schema, "fuzz", NULL) != 0))
        abort();
    int fd = memfd_create("log", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    read_file(path, true, &binding);
    read_file(path, false, &binding);
    close(fd);
    return 0;
}

/* Dense weights as a file that anybody may have written: any bytes are tensors within the file, or
 * are refused. */
#include "tests/fuzz/folder.h"
#include "tests/fuzz/target.h"
#include "worker/safetensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wrk_safetensors *file;
    char path[256];
    volatile float sum = 0;
    fuzz_folder_make("safetensors");
    fuzz_folder_write("dense", data, size);
    snprintf(path, sizeof(path), "%s/dense", fuzz_folder);
    if (wrk_safetensors_open(path, &file))
        return 0;
    for (size_t t = 0; t < wrk_safetensors_count(file); t++) {
        const struct wrk_tensor *tensor = wrk_safetensors_at(file, t);
        size_t n = (tensor->rows ? tensor->rows : 1) * tensor->cols;
        if (n > size / sizeof(float) || !memchr(tensor->name, 0, sizeof(tensor->name)))
            abort();
        for (size_t i = 0; i < n; i++)
            sum += tensor->data[i];
    }
    (void)sum;
    wrk_safetensors_metadata(file, "step");
    wrk_safetensors_close(file);
    return 0;
}

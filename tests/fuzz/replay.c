/* Runs a fuzz target without libFuzzer: every seed of a folder as it is, then CHANGES changed
 * copies of each (bits flipped, bytes set, cut, repeated), the same ones every time. Inputs lie in
 * blocks of their exact size, so that a sanitizer sees any read beyond.
 */
#include "tests/fuzz/target.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANGES = 2000, MAX_BYTES = 1 << 20 };

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = (*state += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void run(const unsigned char *data, size_t size)
{
    unsigned char *exact = malloc(size ? size : 1);
    if (!exact)
        exit(1);
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static size_t change(unsigned char *data, size_t size, size_t capacity, uint64_t *random)
{
    for (uint64_t i = 1 + next_random(random) % 4; i > 0 && size; i--) {
        size_t at = next_random(random) % size;
        switch (next_random(random) % 5) {
        case 0:
            data[at] ^= (unsigned char)(1u << next_random(random) % 8);
            break;
        case 1:
            data[at] = (unsigned char)next_random(random);
            break;
        case 2:
            data[at] = next_random(random) % 2 ? 0xff : 0x00;
            break;
        case 3:
            size = at;
            break;
        default: {
            size_t n = next_random(random) % (size - at) + 1;
            if (size + n <= capacity) {
                memmove(data + at + n, data + at, size - at);
                size += n;
            }
        }
        }
    }
    return size;
}

static int replay(const char *path, uint64_t *random)
{
    static unsigned char seed[MAX_BYTES], changed[MAX_BYTES];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    size_t size = fread(seed, 1, sizeof(seed), file);
    fclose(file);
    run(seed, size);
    for (int i = 0; i < CHANGES; i++) {
        memcpy(changed, seed, size);
        run(changed, change(changed, size, sizeof(changed), random));
    }
    return 0;
}

int main(int argc, char **argv)
{
    int n = 0;
    uint64_t random = 1;
    char path[1024];
    for (int i = 1; i < argc; i++) {
        struct dirent **entries;
        int n_entries = scandir(argv[i], &entries, NULL, alphasort);
        if (n_entries < 0) {
            perror(argv[i]);
            return 1;
        }
        for (int e = 0; e < n_entries; e++) {
            if (entries[e]->d_name[0] != '.') {
                snprintf(path, sizeof(path), "%s/%s", argv[i], entries[e]->d_name);
                if (replay(path, &random))
                    return 1;
                n++;
            }
            free(entries[e]);
        }
        free(entries);
    }
    printf("%d seeds and %d changes of each\n", n, CHANGES);
    return n == 0;
}

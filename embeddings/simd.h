/* EMB_CLONES before a function: the compiler makes a copy for each x86-64 level and the loader
 * picks by CPU. All copies give the same bits, because contraction is off and loops over lanes do
 * not reassociate. Not under sanitizers (their runtimes start after the loader resolves), nor where
 * compilers lack it. */
#ifndef EMBEDDINGS_SIMD_H
#define EMBEDDINGS_SIMD_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__gnu_linux__)
#define EMB_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EMB_CLONES
#endif

#endif

/* hash.h: XXH64 (Y. Collet, the xxHash specification, version 0.1.1), a 64-bit hash that runs at the memory's speed:
 * for checksums and for telling files apart. Not against forgers. */
#ifndef FACET_BASE_HASH_H
#define FACET_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Zero-initialise: seed 0. */
typedef struct hash64 {
    uint64_t lane[4], n; /* n: bytes so far; the lanes begin with the first whole stripe of 32 */
    uint8_t stripe[32];  /* the last n % 32 of them */
} hash64;

void hash64_add(hash64 *h, const void *data, size_t bytes);
/* Of all that was added; more may follow. */
uint64_t hash64_get(const hash64 *h);
uint64_t hash64_of(const void *data, size_t bytes);

#endif

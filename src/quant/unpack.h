/* unpack.h: the parts of a block's formula.
 *
 * Every block type is one formula, y = s * q - m, with an integer code q, a scale s per group of 16 or 32 values and,
 * for some types, a minimum m. An unpacker takes the formula's parts out of the file's bytes; decoders and scalar
 * products are written once on top of it. */
#ifndef FACET_QUANT_UNPACK_H
#define FACET_QUANT_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct unpacked {
    _Alignas(64) int8_t q[256]; /* signed: the offset of Q4_0, Q5_0, Q3_K, Q6_K is taken out */
    float s[16];                /* of each group; every product that makes it is rounded once */
    float m[16];                /* of each group, where the type has minima (Q4_1, Q5_1: the file's m negated) */
} unpacked;

/* Unpacks n <= 256 values (a multiple of the block's length). */
typedef void (*unpack_fn)(const void *src, size_t n, unpacked *out);

typedef struct unpack_rule {
    unpack_fn unpack;
    uint16_t block_len, block_bytes;
    uint8_t group; /* 16 or 32 values per scale */
    bool has_min;
} unpack_rule;

/* NULL for types that are not block-quantised. */
const unpack_rule *unpack_rule_get(uint32_t type_id);

#endif

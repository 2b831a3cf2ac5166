/* type.h: the tensor types of GGUF files: layout, decoding, encoding. One table; the rest of the engine asks it.
 * Layouts and formulas: docs/formats.md. Decoders are bit-exact with the public reference. */
#ifndef FACET_QUANT_TYPE_H
#define FACET_QUANT_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers are the type ids of GGUF files. */
typedef enum tensor_type {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q4_1 = 3,
    TYPE_Q5_0 = 6,
    TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8,
    TYPE_Q2_K = 10,
    TYPE_Q3_K = 11,
    TYPE_Q4_K = 12,
    TYPE_Q5_K = 13,
    TYPE_Q6_K = 14,
    TYPE_IQ4_NL = 20,
    TYPE_IQ4_XS = 23,
    TYPE_I8 = 24,
    TYPE_I16 = 25,
    TYPE_I32 = 26,
    TYPE_I64 = 27,
    TYPE_F64 = 28,
    TYPE_BF16 = 30,
    TYPE_MXFP4 = 39,
    TYPE_NVFP4 = 40,
    TYPE_COUNT = 48 /* ids are below this */
} tensor_type;

typedef struct type_info {
    const char *name;     /* "Q4_K", as users write it */
    uint32_t block_len;   /* values per block */
    uint32_t block_bytes; /* bytes per block */
    /* Decodes n values (a multiple of block_len) into f32. NULL for the plain integer types and F64. */
    void (*decode)(const void *src, float *dst, size_t n);
    /* Encodes n finite values (a multiple of block_len), no importance matrix. NULL where Facet has no encoder. */
    void (*encode)(const float *src, void *dst, size_t n);
} type_info;

/* NULL for an id that Facet does not read. */
const type_info *type_get(uint32_t id);

/* Name of any id that is in use in the wild, also of one that Facet does not read; NULL for retired or unknown ids. */
const char *type_name(uint32_t id);

/* By name, case-insensitive ("q4_k"); false when unknown or unreadable. */
bool type_by_name(const char *name, tensor_type *out);

/* Bytes of n values; n must be a multiple of block_len. */
static inline size_t type_bytes(const type_info *t, size_t n)
{
    return n / t->block_len * t->block_bytes;
}

#endif

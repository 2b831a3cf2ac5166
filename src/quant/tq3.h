/* tq3.h: TQ3_0, a cache format of 3.5 bits per value: 128 values are rotated (rotate.h), each becomes one of eight
 * levels, and a norm restores the length (docs/formats.md draws the bytes). Not a type of GGUF files. */
#ifndef FACET_QUANT_TQ3_H
#define FACET_QUANT_TQ3_H

#include <stddef.h>
#include <stdint.h>

enum { TQ3_GROUP = 128, TQ3_BLOCK = 32, TQ3_BLOCK_BYTES = 14 };

/* Levels of a value of a rotated vector of length 1, by code, rising. */
extern const float tq3_level[8];

/* n values, a multiple of TQ3_GROUP, to and from n / 32 blocks. The decoded values are those of the rotated vector. */
void encode_tq3_0(const float *src, void *dst, size_t n);
void decode_tq3_0(const void *src, float *dst, size_t n);

/* Codes of one block, 0 .. 7, from its bytes and back. The norm stands in the first two bytes (f16). */
void tq3_unpack(const uint8_t block[TQ3_BLOCK_BYTES], uint8_t code[TQ3_BLOCK]);
void tq3_pack(const uint8_t code[TQ3_BLOCK], uint8_t block[TQ3_BLOCK_BYTES]);

#endif

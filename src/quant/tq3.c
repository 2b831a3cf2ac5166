/* tq3.c: encoder and decoder of TQ3_0. */
#include "quant/tq3.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "quant/block.h"
#include "quant/rotate.h"

_Static_assert((int)TQ3_GROUP == (int)ROTATE_GROUP, "a group is what the rotation turns");
_Static_assert(sizeof(block_tq3_0) == TQ3_BLOCK_BYTES, "14 bytes");

/* Lloyd-Max levels of a coordinate of a random unit vector of 128 values, and the borders between them. */
const float tq3_level[8] = {-0.190685f, -0.117832f, -0.065717f, -0.021460f, 0.021460f, 0.065717f, 0.117832f, 0.190685f};
static const float border[7] = {-0.154259f, -0.091775f, -0.043589f, 0, 0.043589f, 0.091775f, 0.154259f};

static float length(const float *x)
{
    float part[8] = {0}, sum = 0;
    for (int i = 0; i < TQ3_GROUP; i += 8)
        for (int j = 0; j < 8; j++) part[j] += x[i + j] * x[i + j];
    for (int j = 0; j < 8; j++) sum += part[j];
    return sqrtf(sum);
}

void tq3_pack(const uint8_t code[TQ3_BLOCK], uint8_t block[TQ3_BLOCK_BYTES])
{
    block_tq3_0 *b = (block_tq3_0 *)block;
    memset(b->lo, 0, sizeof b->lo);
    memset(b->hi, 0, sizeof b->hi);
    for (int j = 0; j < TQ3_BLOCK; j++) {
        b->lo[j / 4] = (uint8_t)(b->lo[j / 4] | (code[j] & 3) << 2 * (j % 4));
        b->hi[j / 8] = (uint8_t)(b->hi[j / 8] | (code[j] >> 2) << j % 8);
    }
}

void tq3_unpack(const uint8_t block[TQ3_BLOCK_BYTES], uint8_t code[TQ3_BLOCK])
{
    const block_tq3_0 *b = (const block_tq3_0 *)block;
    for (int j = 0; j < TQ3_BLOCK; j++)
        code[j] = (uint8_t)((b->lo[j / 4] >> 2 * (j % 4) & 3) | (b->hi[j / 8] >> j % 8 & 1) << 2);
}

/* Codes of a group; returns what makes the decoded group as long as x. */
static float quantise_group(const float *x, uint8_t code[TQ3_GROUP])
{
    float v[TQ3_GROUP], level[TQ3_GROUP];
    const float n = length(x);
    const bool is_zero = !(n > 1e-10f);
    for (int i = 0; i < TQ3_GROUP; i++) v[i] = is_zero ? 0 : x[i] / n;
    rotate_values(v, TQ3_GROUP);
    for (int i = 0; i < TQ3_GROUP; i++) {
        int c = 0;
        for (int k = 0; k < 7; k++) c += v[i] >= border[k];
        code[i] = is_zero ? 4 : (uint8_t)c; /* 0 lies above the fourth border, whatever its sign */
        level[i] = tq3_level[code[i]];
    }
    return is_zero ? 0 : n / length(level);
}

void encode_tq3_0(const float *src, void *dst, size_t n)
{
    block_tq3_0 *b = dst;
    uint8_t code[TQ3_GROUP];
    for (size_t g = 0; g < n; g += TQ3_GROUP) {
        const float norm = quantise_group(src + g, code);
        for (int i = 0; i < TQ3_GROUP; i += TQ3_BLOCK, b++) {
            store_f16(b->d, norm);
            tq3_pack(code + i, (uint8_t *)b);
        }
    }
}

void decode_tq3_0(const void *src, float *dst, size_t n)
{
    const block_tq3_0 *b = src;
    uint8_t code[TQ3_BLOCK];
    for (size_t i = 0; i < n; i += TQ3_BLOCK, b++) {
        const float norm = load_f16(b->d);
        tq3_unpack((const uint8_t *)b, code);
        for (int j = 0; j < TQ3_BLOCK; j++) dst[i + (size_t)j] = tq3_level[code[j]] * norm;
    }
}

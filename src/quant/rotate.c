/* rotate.c: signs and the fast Walsh-Hadamard transform. */
#include "quant/rotate.h"

#include <stdint.h>

#include "base/f16.h"

/* Bit i of word w set: the sign at 32 w + i is negative. */
static const uint32_t before[4] = {0xe46a0359, 0x42f85949, 0xa4c63bbb, 0x49f250a9};
static const uint32_t after[4] = {0x16acee90, 0x3f628fdc, 0xb7a5357a, 0xbea56562};

static void flip_signs(float *x, const uint32_t mask[4])
{
    for (int w = 0; w < 4; w++)
        for (int i = 0; i < 32; i++) x[32 * w + i] = f32_from_bits(f32_bits(x[32 * w + i]) ^ (mask[w] >> i) << 31);
}

static void add_and_subtract(float *restrict a, float *restrict b, int n)
{
    for (int i = 0; i < n; i++) {
        const float sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
    }
}

/* H x, without the factor. */
static void transform(float *x)
{
    for (int h = 1; h < ROTATE_GROUP; h *= 2)
        for (int i = 0; i < ROTATE_GROUP; i += 2 * h) add_and_subtract(x + i, x + i + h, h);
}

static const float factor = 0.08838834764831845f; /* 1 / sqrt(128) */

static void turn(float *x, size_t n, const uint32_t first[4], const uint32_t last[4])
{
    for (size_t g = 0; g < n; g += ROTATE_GROUP, x += ROTATE_GROUP) {
        flip_signs(x, first);
        transform(x);
        for (int i = 0; i < ROTATE_GROUP; i++) x[i] *= factor;
        flip_signs(x, last);
    }
}

void rotate_values(float *x, size_t n)
{
    turn(x, n, before, after);
}

void unrotate_values(float *x, size_t n)
{
    turn(x, n, after, before);
}

void unrotate_signs(float *first, float *last)
{
    for (int i = 0; i < ROTATE_GROUP; i++) {
        first[i] = 1;
        last[i] = factor;
    }
    flip_signs(first, after);
    flip_signs(last, before);
}

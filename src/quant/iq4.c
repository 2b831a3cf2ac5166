/* 4-bit codes into a fixed table of unequal steps: IQ4_NL (32 values), IQ4_XS (256 values). */
#include <math.h>

#include "quant/codec.h"
#include "quant/fit.h"

const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static inline void look_up(const uint8_t qs[16], int8_t q[32])
{
    for (int i = 0; i < 16; i++) {
        q[i] = iq4_values[qs[i] & 15];
        q[16 + i] = iq4_values[qs[i] >> 4];
    }
}

static void unpack_iq4_nl(const void *src, size_t n, unpacked *out)
{
    const block_q4_0 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        look_up(b[i].qs, out->q + 32 * i);
        out->s[i] = load_f16(b[i].d);
    }
}

static void unpack_iq4_xs(const void *src, size_t n, unpacked *out)
{
    const block_iq4_xs *b = src;
    float d = load_f16(b->d);
    for (int i = 0; i < (int)n / 32; i++) {
        look_up(b->qs + 16 * i, out->q + 32 * i);
        out->s[i] = d * (float)iq4_xs_scale(b, i);
    }
}

const unpack_rule rule_iq4_nl = {unpack_iq4_nl, 32, sizeof(block_q4_0), 32, false};
const unpack_rule rule_iq4_xs = {unpack_iq4_xs, 256, sizeof(block_iq4_xs), 32, false};

void decode_iq4_nl(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_iq4_nl, src, dst, n);
}

void decode_iq4_xs(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_iq4_xs, src, dst, n);
}

/* Index of the table value nearest to v. */
static int nearest(float v)
{
    int i = 0;
    while (i < 15 && v >= 0.5f * (float)(iq4_values[i] + iq4_values[i + 1])) i++;
    return i;
}

/* Least-squares scale for the codes that 1/inv gives; *gain = what it takes off the squared error (weights x^2). */
static float scale_for(const float x[32], float inv, float *gain)
{
    float xq = 0, qq = 0;
    for (int i = 0; i < 32; i++) {
        float w = x[i] * x[i], v = (float)iq4_values[nearest(x[i] * inv)];
        xq += w * x[i] * v;
        qq += w * v * v;
    }
    *gain = qq > 0 ? xq * xq / qq : 0;
    return qq > 0 ? xq / qq : 0;
}

/* Tries 15 positions of the extreme value around the outermost table entry, on either side of zero. */
static float search_scale(const float x[32])
{
    float extreme = fit_extreme(x, 32), best = 0, best_gain = 0;
    if (fabsf(extreme) < FIT_TINY) return 0;
    for (int t = -7; t <= 7; t++) {
        for (int side = -1; side <= 1; side += 2) {
            float gain, inv = (float)(side < 0 ? iq4_values[0] + t : iq4_values[15] + t) / extreme;
            float scale = scale_for(x, inv, &gain);
            if (gain > best_gain) best = scale, best_gain = gain;
        }
    }
    return best;
}

void encode_iq4_nl(const float *src, void *dst, size_t n)
{
    block_q4_0 *b = dst;
    uint8_t q[32];
    for (size_t i = 0; i < n / 32; i++) {
        float inv = fit_inverse(store_f16(b[i].d, search_scale(src + 32 * i)));
        for (int k = 0; k < 32; k++) q[k] = (uint8_t)nearest(src[32 * i + (size_t)k] * inv);
        join_nibbles(q, 16, b[i].qs);
    }
}

/* Encoders of the super-block types: a scale search per sub-block, the scales quantised against the largest, then the
 * codes again with the scales that the file holds. */
#include <math.h>
#include <string.h>

#include "quant/codec.h"
#include "quant/fit.h"

/* Two levels of scales and minima, as Q2_K (16 x 16), Q4_K and Q5_K (8 x 32) have them. */
typedef struct two_level {
    float d, dmin; /* as stored in f16 */
    uint8_t sc[16], mn[16], q[256];
} two_level;

static float largest(const float *v, int n)
{
    float max = 0;
    for (int i = 0; i < n; i++) max = v[i] > max ? v[i] : max;
    return max;
}

/* codes[i] = round(v[i] * limit / max v); returns what one step of the code stands for. */
static float quantize_level(const float *v, int n, int limit, uint8_t *codes)
{
    float max = largest(v, n), inv = max > 0 ? (float)limit * fit_inverse(max) : 0;
    for (int i = 0; i < n; i++) codes[i] = (uint8_t)fit_round(inv * v[i], 0, limit);
    return max / (float)limit;
}

static void fill_weights(const fit_range_rule *rule, const float *x, float *weight)
{
    float sum = 0;
    for (int i = 0; i < rule->n; i++) sum += x[i] * x[i];
    float rms = rule->use_absolute ? 0 : sqrtf(sum / (float)rule->n);
    for (int i = 0; i < rule->n; i++) weight[i] = rms + fabsf(x[i]);
}

static void encode_two_level(const fit_range_rule *rule, int level_limit, const float *x, two_level *out)
{
    int groups = 256 / rule->n;
    float scale[16], minimum[16], weight[32];
    for (int j = 0; j < groups; j++) {
        fill_weights(rule, x + j * rule->n, weight);
        scale[j] = fit_range(rule, x + j * rule->n, weight, out->q + j * rule->n, &minimum[j]);
    }
    out->d = f16_to_f32(f32_to_f16(quantize_level(scale, groups, level_limit, out->sc)));
    out->dmin = f16_to_f32(f32_to_f16(quantize_level(minimum, groups, level_limit, out->mn)));
    for (int j = 0; j < groups; j++) {
        float step = out->d * (float)out->sc[j], base = out->dmin * (float)out->mn[j];
        if (step == 0) continue; /* the codes of the search do no harm */
        for (int i = j * rule->n; i < (j + 1) * rule->n; i++)
            out->q[i] = (uint8_t)fit_round((x[i] + base) / step, 0, rule->limit);
    }
}

/* The inverse of q4_K_scales. */
static void store_q4_K_scales(const uint8_t sc[8], const uint8_t mn[8], uint8_t s[12])
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(sc[j] | (sc[j + 4] >> 4) << 6);
        s[j + 4] = (uint8_t)(mn[j] | (mn[j + 4] >> 4) << 6);
        s[j + 8] = (uint8_t)((sc[j + 4] & 15) | (mn[j + 4] & 15) << 4);
    }
}

void encode_q4_K(const float *src, void *dst, size_t n)
{
    static const fit_range_rule rule = {.n = 32, .limit = 15, .steps = 20, .first = -1.0f};
    block_q4_K *b = dst;
    two_level t;
    for (size_t i = 0; i < n / 256; i++) {
        encode_two_level(&rule, 63, src + 256 * i, &t);
        store_f16(b[i].d, t.d);
        store_f16(b[i].dmin, t.dmin);
        store_q4_K_scales(t.sc, t.mn, b[i].s);
        for (int j = 0; j < 4; j++) join_nibbles(t.q + 64 * j, 32, b[i].qs + 32 * j);
    }
}

void encode_q5_K(const float *src, void *dst, size_t n)
{
    static const fit_range_rule rule = {.n = 32, .limit = 31, .steps = 15, .first = -0.5f};
    block_q5_K *b = dst;
    two_level t;
    for (size_t i = 0; i < n / 256; i++) {
        encode_two_level(&rule, 63, src + 256 * i, &t);
        store_f16(b[i].d, t.d);
        store_f16(b[i].dmin, t.dmin);
        store_q4_K_scales(t.sc, t.mn, b[i].s);
        for (int j = 0; j < 4; j++) join_nibbles(t.q + 64 * j, 32, b[i].qs + 32 * j);
        memset(b[i].qh, 0, sizeof b[i].qh);
        for (int e = 0; e < 256; e++) b[i].qh[e % 32] |= (uint8_t)((t.q[e] >> 4) << (e / 32));
    }
}

/* Puts bits 0..1 of 128 codes into 32 bytes: code 32 k + l to bits 2k..2k+1 of byte l. */
static void store_bit_pairs(const uint8_t q[128], int shift, uint8_t out[32])
{
    for (int l = 0; l < 32; l++) {
        int byte = 0;
        for (int k = 0; k < 4; k++) byte |= ((q[32 * k + l] >> shift) & 3) << 2 * k;
        out[l] = (uint8_t)byte;
    }
}

void encode_q2_K(const float *src, void *dst, size_t n)
{
    static const fit_range_rule rule = {.n = 16, .limit = 3, .steps = 15, .first = -0.5f, .use_absolute = true};
    block_q2_K *b = dst;
    two_level t;
    for (size_t i = 0; i < n / 256; i++) {
        encode_two_level(&rule, 15, src + 256 * i, &t);
        store_f16(b[i].d, t.d);
        store_f16(b[i].dmin, t.dmin);
        for (int g = 0; g < 16; g++) b[i].s[g] = (uint8_t)(t.sc[g] | t.mn[g] << 4);
        for (int h = 0; h < 2; h++) store_bit_pairs(t.q + 128 * h, 0, b[i].qs + 32 * h);
    }
}

/* 16 signed scales of 16 values each against one f16 scale, as Q3_K and Q6_K have them; q gets the code + limit. */
typedef struct signed_level {
    float d; /* as stored in f16 */
    int8_t sc[16];
    uint8_t q[256];
} signed_level;

static void encode_signed(const float *x, int limit, int scale_limit, signed_level *out)
{
    float scale[16];
    for (int g = 0; g < 16; g++) scale[g] = fit_signed(x + 16 * g, 16, limit, out->q + 16 * g);
    float extreme = fit_extreme(scale, 16);
    if (fabsf(extreme) < FIT_TINY) extreme = 0;
    float inv = (float)-scale_limit * fit_inverse(extreme);
    out->d = f16_to_f32(f32_to_f16(extreme / (float)-scale_limit));
    for (int g = 0; g < 16; g++) {
        out->sc[g] = (int8_t)fit_round(inv * scale[g], -scale_limit, scale_limit - 1);
        float step = out->d * (float)out->sc[g];
        if (step == 0) continue;
        for (int i = 16 * g; i < 16 * g + 16; i++)
            out->q[i] = (uint8_t)(fit_round(x[i] / step, -limit, limit - 1) + limit);
    }
}

void encode_q6_K(const float *src, void *dst, size_t n)
{
    block_q6_K *b = dst;
    signed_level t;
    for (size_t i = 0; i < n / 256; i++) {
        encode_signed(src + 256 * i, 32, 128, &t);
        store_f16(b[i].d, t.d);
        memcpy(b[i].sc, t.sc, sizeof t.sc);
        for (int h = 0; h < 2; h++) {
            join_nibbles(t.q + 128 * h, 64, b[i].ql + 64 * h);
            store_bit_pairs(t.q + 128 * h, 4, b[i].qh + 32 * h);
        }
    }
}

/* The inverse of q3_K_scales. */
static void store_q3_K_scales(const int8_t sc[16], uint8_t s[12])
{
    memset(s, 0, 12);
    for (int i = 0; i < 16; i++) {
        int v = sc[i] + 32;
        s[i % 8] |= (uint8_t)((v & 15) << 4 * (i / 8));
        s[8 + i % 4] |= (uint8_t)((v >> 4) << 2 * (i / 4));
    }
}

void encode_q3_K(const float *src, void *dst, size_t n)
{
    block_q3_K *b = dst;
    signed_level t;
    for (size_t i = 0; i < n / 256; i++) {
        encode_signed(src + 256 * i, 4, 32, &t);
        store_f16(b[i].d, t.d);
        store_q3_K_scales(t.sc, b[i].s);
        memset(b[i].hm, 0, sizeof b[i].hm);
        for (int h = 0; h < 2; h++) store_bit_pairs(t.q + 128 * h, 0, b[i].qs + 32 * h);
        for (int e = 0; e < 256; e++) b[i].hm[e % 32] |= (uint8_t)((t.q[e] >> 2) << (e / 32));
    }
}

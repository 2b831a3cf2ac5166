/* Super-blocks of 256 values with quantised scales: Q2_K to Q6_K. Encoders stand in kquant_encode.c. */
#include "quant/codec.h"

/* Adds bit `bit` of each of the 32 bytes at `src` to 32 codes, as bit `to`. */
static inline void add_bit_plane(const uint8_t src[32], int bit, int to, int8_t q[32])
{
    for (int l = 0; l < 32; l++) q[l] = (int8_t)(q[l] | ((src[l] >> bit) & 1) << to);
}

static void unpack_q2_K(const void *src, size_t n, unpacked *out)
{
    const block_q2_K *b = src;
    float d = load_f16(b->d), dmin = load_f16(b->dmin);
    (void)n;
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++) out->q[32 * j + l] = (int8_t)((b->qs[32 * (j / 4) + l] >> 2 * (j % 4)) & 3);
    for (int i = 0; i < 16; i++) {
        out->s[i] = d * (float)(b->s[i] & 15);
        out->m[i] = dmin * (float)(b->s[i] >> 4);
    }
}

static void unpack_q3_K(const void *src, size_t n, unpacked *out)
{
    const block_q3_K *b = src;
    float d = load_f16(b->d);
    int8_t sc[16];
    (void)n;
    for (int j = 0; j < 8; j++) {
        int8_t *q = out->q + 32 * j;
        for (int l = 0; l < 32; l++) q[l] = (int8_t)((b->qs[32 * (j / 4) + l] >> 2 * (j % 4)) & 3);
        add_bit_plane(b->hm, j, 2, q);
        for (int l = 0; l < 32; l++) q[l] = (int8_t)(q[l] - 4);
    }
    q3_K_scales(b->s, sc);
    for (int i = 0; i < 16; i++) out->s[i] = d * (float)sc[i];
}

/* Scales and minima of Q4_K and Q5_K. */
static inline void unpack_scales(const uint8_t d[2], const uint8_t dmin[2], const uint8_t s[12], unpacked *out)
{
    float scale = load_f16(d), min_scale = load_f16(dmin);
    uint8_t sc[8], mn[8];
    q4_K_scales(s, sc, mn);
    for (int j = 0; j < 8; j++) {
        out->s[j] = scale * (float)sc[j];
        out->m[j] = min_scale * (float)mn[j];
    }
}

static void unpack_q4_K(const void *src, size_t n, unpacked *out)
{
    const block_q4_K *b = src;
    (void)n;
    unpack_scales(b->d, b->dmin, b->s, out);
    for (int j = 0; j < 4; j++) split_nibbles(b->qs + 32 * j, 32, out->q + 64 * j);
}

static void unpack_q5_K(const void *src, size_t n, unpacked *out)
{
    const block_q5_K *b = src;
    (void)n;
    unpack_scales(b->d, b->dmin, b->s, out);
    for (int j = 0; j < 4; j++) split_nibbles(b->qs + 32 * j, 32, out->q + 64 * j);
    for (int j = 0; j < 8; j++) add_bit_plane(b->qh, j, 4, out->q + 32 * j);
}

static void unpack_q6_K(const void *src, size_t n, unpacked *out)
{
    const block_q6_K *b = src;
    float d = load_f16(b->d);
    (void)n;
    for (int h = 0; h < 2; h++) {
        int8_t *q = out->q + 128 * h;
        split_nibbles(b->ql + 64 * h, 64, q);
        for (int k = 0; k < 4; k++)
            for (int l = 0; l < 32; l++)
                q[32 * k + l] = (int8_t)((q[32 * k + l] | ((b->qh[32 * h + l] >> 2 * k) & 3) << 4) - 32);
    }
    for (int i = 0; i < 16; i++) out->s[i] = d * (float)b->sc[i];
}

const unpack_rule rule_q2_K = {unpack_q2_K, 256, sizeof(block_q2_K), 16, true};
const unpack_rule rule_q3_K = {unpack_q3_K, 256, sizeof(block_q3_K), 16, false};
const unpack_rule rule_q4_K = {unpack_q4_K, 256, sizeof(block_q4_K), 32, true};
const unpack_rule rule_q5_K = {unpack_q5_K, 256, sizeof(block_q5_K), 32, true};
const unpack_rule rule_q6_K = {unpack_q6_K, 256, sizeof(block_q6_K), 16, false};

void decode_q2_K(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q2_K, src, dst, n);
}

void decode_q3_K(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q3_K, src, dst, n);
}

void decode_q4_K(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q4_K, src, dst, n);
}

void decode_q5_K(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q5_K, src, dst, n);
}

void decode_q6_K(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q6_K, src, dst, n);
}

/* Blocks of 32 values with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0. */
#include "quant/codec.h"

#include "quant/fit.h"

static inline void add_to_codes(int8_t q[32], int v)
{
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] + v);
}

static inline void add_fifth_bits(const uint8_t qh[4], int8_t q[32])
{
    uint32_t bits = load_u32(qh);
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] | (int)((bits >> i) & 1) << 4);
}

static void unpack_q4_0(const void *src, size_t n, unpacked *out)
{
    const block_q4_0 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        split_nibbles(b[i].qs, 16, out->q + 32 * i);
        add_to_codes(out->q + 32 * i, -8);
        out->s[i] = load_f16(b[i].d);
    }
}

static void unpack_q4_1(const void *src, size_t n, unpacked *out)
{
    const block_q4_1 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        split_nibbles(b[i].qs, 16, out->q + 32 * i);
        out->s[i] = load_f16(b[i].d);
        out->m[i] = -load_f16(b[i].m);
    }
}

static void unpack_q5_0(const void *src, size_t n, unpacked *out)
{
    const block_q5_0 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        split_nibbles(b[i].qs, 16, out->q + 32 * i);
        add_fifth_bits(b[i].qh, out->q + 32 * i);
        add_to_codes(out->q + 32 * i, -16);
        out->s[i] = load_f16(b[i].d);
    }
}

static void unpack_q5_1(const void *src, size_t n, unpacked *out)
{
    const block_q5_1 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        split_nibbles(b[i].qs, 16, out->q + 32 * i);
        add_fifth_bits(b[i].qh, out->q + 32 * i);
        out->s[i] = load_f16(b[i].d);
        out->m[i] = -load_f16(b[i].m);
    }
}

static void unpack_q8_0(const void *src, size_t n, unpacked *out)
{
    const block_q8_0 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        for (int k = 0; k < 32; k++) out->q[32 * i + (size_t)k] = b[i].qs[k];
        out->s[i] = load_f16(b[i].d);
    }
}

const unpack_rule rule_q4_0 = {unpack_q4_0, 32, sizeof(block_q4_0), 32, false};
const unpack_rule rule_q4_1 = {unpack_q4_1, 32, sizeof(block_q4_1), 32, true};
const unpack_rule rule_q5_0 = {unpack_q5_0, 32, sizeof(block_q5_0), 32, false};
const unpack_rule rule_q5_1 = {unpack_q5_1, 32, sizeof(block_q5_1), 32, true};
const unpack_rule rule_q8_0 = {unpack_q8_0, 32, sizeof(block_q8_0), 32, false};

void decode_q4_0(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q4_0, src, dst, n);
}

void decode_q4_1(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q4_1, src, dst, n);
}

void decode_q5_0(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q5_0, src, dst, n);
}

void decode_q5_1(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q5_1, src, dst, n);
}

void decode_q8_0(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_q8_0, src, dst, n);
}

/* Codes of the types with an offset: the extreme value of the block becomes code 0 exactly. Returns the scale. */
static float symmetric_codes(const float *x, int offset, uint8_t q[32])
{
    float d = fit_extreme(x, 32) / (float)-offset, inv = fit_inverse(d);
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)fit_trunc(x[i] * inv + ((float)offset + 0.5f), 0, 2 * offset - 1);
    return d;
}

/* Codes 0..limit over [min x, max x]. Returns the scale. */
static float range_codes(const float *x, int limit, uint8_t q[32], float *min_out)
{
    float lo = x[0], hi = x[0];
    for (int i = 1; i < 32; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float d = (hi - lo) / (float)limit, inv = fit_inverse(d);
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)fit_trunc((x[i] - lo) * inv + 0.5f, 0, limit);
    *min_out = lo;
    return d;
}

static void store_fifth_bits(const uint8_t q[32], uint8_t qh[4])
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(q[i] >> 4) << i;
    store_u32(qh, bits);
}

void encode_q4_0(const float *src, void *dst, size_t n)
{
    block_q4_0 *b = dst;
    uint8_t q[32];
    for (size_t i = 0; i < n / 32; i++) {
        store_f16(b[i].d, symmetric_codes(src + 32 * i, 8, q));
        join_nibbles(q, 16, b[i].qs);
    }
}

void encode_q5_0(const float *src, void *dst, size_t n)
{
    block_q5_0 *b = dst;
    uint8_t q[32];
    for (size_t i = 0; i < n / 32; i++) {
        store_f16(b[i].d, symmetric_codes(src + 32 * i, 16, q));
        store_fifth_bits(q, b[i].qh);
        join_nibbles(q, 16, b[i].qs);
    }
}

void encode_q4_1(const float *src, void *dst, size_t n)
{
    block_q4_1 *b = dst;
    uint8_t q[32];
    float lo;
    for (size_t i = 0; i < n / 32; i++) {
        store_f16(b[i].d, range_codes(src + 32 * i, 15, q, &lo));
        store_f16(b[i].m, lo);
        join_nibbles(q, 16, b[i].qs);
    }
}

void encode_q5_1(const float *src, void *dst, size_t n)
{
    block_q5_1 *b = dst;
    uint8_t q[32];
    float lo;
    for (size_t i = 0; i < n / 32; i++) {
        store_f16(b[i].d, range_codes(src + 32 * i, 31, q, &lo));
        store_f16(b[i].m, lo);
        store_fifth_bits(q, b[i].qh);
        join_nibbles(q, 16, b[i].qs);
    }
}

void encode_q8_0(const float *src, void *dst, size_t n)
{
    block_q8_0 *b = dst;
    for (size_t i = 0; i < n / 32; i++) {
        const float *x = src + 32 * i;
        float extreme = fit_extreme(x, 32), d = (extreme < 0 ? -extreme : extreme) / 127.0f, inv = fit_inverse(d);
        store_f16(b[i].d, d);
        for (int k = 0; k < 32; k++) {
            float v = x[k] * inv; /* ties away from zero */
            b[i].qs[k] = (int8_t)fit_trunc(v < 0 ? v - 0.5f : v + 0.5f, -127, 127);
        }
    }
}

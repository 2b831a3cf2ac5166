/* codec.h: what the families of block types share. Inside src/quant. */
#ifndef FACET_QUANT_CODEC_H
#define FACET_QUANT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/block.h"
#include "quant/unpack.h"

extern const unpack_rule rule_q4_0, rule_q4_1, rule_q5_0, rule_q5_1, rule_q8_0, rule_q2_K, rule_q3_K, rule_q4_K,
    rule_q5_K, rule_q6_K, rule_iq4_nl, rule_iq4_xs, rule_mxfp4, rule_nvfp4;

/* Decodes through a rule that the compiler sees, so that the unpacker is inlined. */
static inline void decode_by_rule(const unpack_rule *rule, const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;
    unpacked u;
    for (size_t done = 0; done < n;) {
        size_t part = n - done < 256 ? n - done : 256;
        rule->unpack(p, part, &u);
        for (size_t g = 0; g < part / rule->group; g++) {
            const int8_t *q = u.q + g * rule->group;
            float *y = dst + done + g * rule->group, s = u.s[g], m = rule->has_min ? u.m[g] : 0.0f;
            for (size_t i = 0; i < rule->group; i++) y[i] = rule->has_min ? s * (float)q[i] - m : s * (float)q[i];
        }
        p += part / rule->block_len * rule->block_bytes;
        done += part;
    }
}

/* Low nibbles first, then high nibbles: the split of every 4-bit run. n = bytes. */
static inline void split_nibbles(const uint8_t *qs, int n, int8_t *q)
{
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[n + i] = (int8_t)(qs[i] >> 4);
    }
}

static inline void join_nibbles(const uint8_t *q, int n, uint8_t *qs)
{
    for (int i = 0; i < n; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[n + i] & 15) << 4);
}

void decode_f32(const void *src, float *dst, size_t n);
void decode_f16(const void *src, float *dst, size_t n);
void decode_bf16(const void *src, float *dst, size_t n);
void decode_q4_0(const void *src, float *dst, size_t n);
void decode_q4_1(const void *src, float *dst, size_t n);
void decode_q5_0(const void *src, float *dst, size_t n);
void decode_q5_1(const void *src, float *dst, size_t n);
void decode_q8_0(const void *src, float *dst, size_t n);
void decode_q2_K(const void *src, float *dst, size_t n);
void decode_q3_K(const void *src, float *dst, size_t n);
void decode_q4_K(const void *src, float *dst, size_t n);
void decode_q5_K(const void *src, float *dst, size_t n);
void decode_q6_K(const void *src, float *dst, size_t n);
void decode_iq4_nl(const void *src, float *dst, size_t n);
void decode_iq4_xs(const void *src, float *dst, size_t n);
void decode_mxfp4(const void *src, float *dst, size_t n);
void decode_nvfp4(const void *src, float *dst, size_t n);

void encode_f32(const float *src, void *dst, size_t n);
void encode_f16(const float *src, void *dst, size_t n);
void encode_bf16(const float *src, void *dst, size_t n);
void encode_q4_0(const float *src, void *dst, size_t n);
void encode_q4_1(const float *src, void *dst, size_t n);
void encode_q5_0(const float *src, void *dst, size_t n);
void encode_q5_1(const float *src, void *dst, size_t n);
void encode_q8_0(const float *src, void *dst, size_t n);
void encode_q2_K(const float *src, void *dst, size_t n);
void encode_q3_K(const float *src, void *dst, size_t n);
void encode_q4_K(const float *src, void *dst, size_t n);
void encode_q5_K(const float *src, void *dst, size_t n);
void encode_q6_K(const float *src, void *dst, size_t n);
void encode_iq4_nl(const float *src, void *dst, size_t n);

#endif

/* block.h: the bytes of each block type, as files hold them (little-endian; docs/formats.md draws them).
 * Members are bytes only, so a block may stand at any address. Inside src/quant and the repacking kernels. */
#ifndef FACET_QUANT_BLOCK_H
#define FACET_QUANT_BLOCK_H

#include <stdint.h>

#include "base/f16.h"

typedef struct block_q4_0 {
    uint8_t d[2], qs[16];
} block_q4_0; /* IQ4_NL too */

typedef struct block_q4_1 {
    uint8_t d[2], m[2], qs[16];
} block_q4_1;

typedef struct block_q5_0 {
    uint8_t d[2], qh[4], qs[16];
} block_q5_0;

typedef struct block_q5_1 {
    uint8_t d[2], m[2], qh[4], qs[16];
} block_q5_1;

typedef struct block_q8_0 {
    uint8_t d[2];
    int8_t qs[32];
} block_q8_0;

typedef struct block_mxfp4 {
    uint8_t e, qs[16];
} block_mxfp4;

typedef struct block_nvfp4 {
    uint8_t d[4], qs[32];
} block_nvfp4;

typedef struct block_tq3_0 {
    uint8_t d[2], lo[8], hi[4];
} block_tq3_0; /* cache only */

typedef struct block_q2_K {
    uint8_t s[16], qs[64], d[2], dmin[2];
} block_q2_K;

typedef struct block_q3_K {
    uint8_t hm[32], qs[64], s[12], d[2];
} block_q3_K;

typedef struct block_q4_K {
    uint8_t d[2], dmin[2], s[12], qs[128];
} block_q4_K;

typedef struct block_q5_K {
    uint8_t d[2], dmin[2], s[12], qh[32], qs[128];
} block_q5_K;

typedef struct block_q6_K {
    uint8_t ql[128], qh[64];
    int8_t sc[16];
    uint8_t d[2];
} block_q6_K;

typedef struct block_iq4_xs {
    uint8_t d[2], sh[2], sl[4], qs[128];
} block_iq4_xs;

_Static_assert(sizeof(block_q4_0) == 18 && sizeof(block_q4_1) == 20, "4-bit blocks of 32");
_Static_assert(sizeof(block_q5_0) == 22 && sizeof(block_q5_1) == 24, "5-bit blocks of 32");
_Static_assert(sizeof(block_q8_0) == 34 && sizeof(block_mxfp4) == 17 && sizeof(block_nvfp4) == 36, "8-bit, FP4");
_Static_assert(sizeof(block_q2_K) == 84 && sizeof(block_q3_K) == 110 && sizeof(block_q4_K) == 144, "K blocks");
_Static_assert(sizeof(block_q5_K) == 176 && sizeof(block_q6_K) == 210 && sizeof(block_iq4_xs) == 136, "K blocks");

static inline uint16_t load_u16(const uint8_t b[2])
{
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t load_u32(const uint8_t b[4])
{
    return (uint32_t)load_u16(b) | (uint32_t)load_u16(b + 2) << 16;
}

static inline void store_u16(uint8_t b[2], uint16_t v)
{
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(uint8_t b[4], uint32_t v)
{
    store_u16(b, (uint16_t)v);
    store_u16(b + 2, (uint16_t)(v >> 16));
}

static inline float load_f16(const uint8_t b[2])
{
    return f16_to_f32(load_u16(b));
}

/* Returns the value that a reader will see. */
static inline float store_f16(uint8_t b[2], float v)
{
    uint16_t h = f32_to_f16(v);
    store_u16(b, h);
    return f16_to_f32(h);
}

/* The value 2^(e - 128) of an MXFP4 exponent byte, which pairs with the doubled FP4 table; e < 2 is subnormal. */
static inline float mxfp4_scale(uint8_t e)
{
    return f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Half the value of an unsigned E4M3 byte (bit 7 is not looked at; 0x7f, NaN in the standard, counts as 0 as in the
 * public reference). */
static inline float nvfp4_scale(uint8_t x)
{
    uint32_t exp = (x >> 3) & 15u, man = x & 7u;
    if (x == 0x7f) return 0;
    if (exp == 0) return (float)man * 0x1p-10f;
    return f32_from_bits((exp + 119) << 23 | man << 20); /* 0.5 * (1 + man / 8) * 2^(exp - 7) */
}

/* 6-bit scales and minima of Q4_K and Q5_K. */
static inline void q4_K_scales(const uint8_t s[12], uint8_t sc[8], uint8_t mn[8])
{
    for (int j = 0; j < 4; j++) {
        sc[j] = s[j] & 63;
        mn[j] = s[j + 4] & 63;
        sc[j + 4] = (uint8_t)((s[j + 8] & 15) | (s[j] >> 6) << 4);
        mn[j + 4] = (uint8_t)((s[j + 8] >> 4) | (s[j + 4] >> 6) << 4);
    }
}

/* 6-bit scales of Q3_K, -32..31. */
static inline void q3_K_scales(const uint8_t s[12], int8_t sc[16])
{
    for (int i = 0; i < 16; i++) {
        int lo = (s[i % 8] >> 4 * (i / 8)) & 15, hi = (s[8 + i % 4] >> 2 * (i / 4)) & 3;
        sc[i] = (int8_t)((lo | hi << 4) - 32);
    }
}

/* 6-bit scale of sub-block b of IQ4_XS, -32..31. */
static inline int iq4_xs_scale(const block_iq4_xs *x, int b)
{
    int lo = (x->sl[b / 2] >> 4 * (b & 1)) & 15, hi = (load_u16(x->sh) >> 2 * b) & 3;
    return (lo | hi << 4) - 32;
}

extern const int8_t iq4_values[16]; /* IQ4_NL, IQ4_XS: rising */
extern const int8_t fp4_values[16]; /* MXFP4, NVFP4: twice the E2M1 value */

#endif

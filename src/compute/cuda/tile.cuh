/* tile.cuh: where the values of a tile record lie, and how they become f16.
 *
 * A record holds 16 weight rows by 256 inputs. It serves one warp in mma.m16n8k16: lane = 4 g + t owns the inputs
 * 64 t .. 64 t + 63 of the rows g and g + 8. Pair i (0..7) of its multiplications takes, for each of the two rows, four
 * words of two f16: word r (0..3) holds the inputs tile_input(t, i, r, 0) and tile_input(t, i, r, 1). Activations are
 * packed in the same order. */
#ifndef FACET_COMPUTE_CUDA_TILE_CUH
#define FACET_COMPUTE_CUDA_TILE_CUH

#include "compute/cuda/device.cuh"
#include "compute/cuda/tile.h"

static __device__ inline int tile_input(int t, int i, int r, int half)
{
    return 64 * t + 32 * (r >> 1) + 4 * i + 2 * half + (r & 1);
}

enum tile_family {
    TILE_FLOAT, /* [i][row half][lane] x 16 bytes: the four words */
    TILE_BYTES, /* q8_0: [row half][4][lane] x 16 bytes of codes + 128, inputs in order; scales as below */
    TILE_NIBBLES
};

/* Nibbles: [row half][2][lane] x 16 bytes: word i holds the inputs 4 i .. 4 i + 3 of the lane in the low nibbles of its
 * bytes and those 32 further in the high ones. Then the bits above the fourth (n_high):
 *   1: [lane] x 16 bytes: 2 words per row half; word i / 4 has, for word r, its bits at 4 (i % 4) + r, second at + 16
 *   2: [row half][lane] x 16 bytes: 4 words; word i / 2 has, for word r, bit pairs at 2 (4 (i % 2) + r), second at + 16
 * Then the scales, by kind:
 *   TILE_D      [lane][row half]: d of the blocks 2 t and 2 t + 1, f16; weight = d * (code - bias)
 *   TILE_DM     [lane][row half]: the same, and m of both; weight = d * code + m
 *   TILE_SUPER  [row] x 16 bytes: d, dmin, three words with 24 bits for each t: two scales, two minima of 6 bits (t = 3
 *               in the three top bytes)
 *   TILE_Q6     [lane][row half]: four int8 scales of 16 inputs each; then [g][row half]: d */
enum tile_scales { TILE_D, TILE_DM, TILE_SUPER, TILE_Q6, TILE_NONE };

template <int T> struct tile_type;
#define TILE_TYPE(T, FAMILY, HIGH, SCALES, BIAS, LEN)                                                                  \
    template <> struct tile_type<T> {                                                                                  \
        static constexpr tile_family family = FAMILY;                                                                  \
        static constexpr int n_high = HIGH;                                                                            \
        static constexpr tile_scales scales = SCALES;                                                                  \
        static constexpr int bias = BIAS;                                                                              \
        static constexpr int block_len = LEN; /* in the file */                                                        \
        static constexpr int high_at = 2048, scales_at = FAMILY == TILE_BYTES ? 4096 : 2048 + 512 * HIGH;              \
    };
TILE_TYPE(TYPE_F16, TILE_FLOAT, 0, TILE_NONE, 0, 1)
TILE_TYPE(TYPE_BF16, TILE_FLOAT, 0, TILE_NONE, 0, 1)
TILE_TYPE(TYPE_Q8_0, TILE_BYTES, 0, TILE_D, 0, 32)
TILE_TYPE(TYPE_Q4_0, TILE_NIBBLES, 0, TILE_D, 8, 32)
TILE_TYPE(TYPE_Q4_1, TILE_NIBBLES, 0, TILE_DM, 0, 32)
TILE_TYPE(TYPE_Q5_0, TILE_NIBBLES, 1, TILE_D, 16, 32)
TILE_TYPE(TYPE_Q5_1, TILE_NIBBLES, 1, TILE_DM, 0, 32)
TILE_TYPE(TYPE_Q4_K, TILE_NIBBLES, 0, TILE_SUPER, 0, 256)
TILE_TYPE(TYPE_Q5_K, TILE_NIBBLES, 1, TILE_SUPER, 0, 256)
TILE_TYPE(TYPE_Q6_K, TILE_NIBBLES, 2, TILE_Q6, 32, 256)
#undef TILE_TYPE

static __device__ inline uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* The same bits: built from two shorts it would cost two instructions each time. */
static __device__ inline half2 as_half2(uint32_t x)
{
    return *reinterpret_cast<const half2 *>(&x);
}

static __device__ inline float low_half(uint32_t x)
{
    return __half2float(__ushort_as_half((unsigned short)(x & 0xffff)));
}

static __device__ inline float high_half(uint32_t x)
{
    return __half2float(__ushort_as_half((unsigned short)(x >> 16)));
}

/* The 24 bits of lane t in a TILE_SUPER header: scale of the sub-block 2 t, scale of 2 t + 1, minima of both. Bits
 * above are left as they come. By two byte selections, as a choice of words would become branches. */
static __device__ inline uint32_t super_bits(const uint4 &h, int t)
{
    const uint32_t first = t == 1   ? 0x0654
                           : t == 3 ? 0x0073
                                    : 0x0210,
                   second = t == 2   ? 0x0654
                            : t == 3 ? 0x0710
                                     : 0x0210;
    return __byte_perm(__byte_perm(h.y, h.z, first), h.w, second);
}

/* ---- one value, for rows that are gathered ---- */

template <int T> static __device__ inline int tile_code(const uint8_t *record, int half, int lane, int j)
{
    int i = j % 32 / 4, byte = j % 4, r = 2 * (j / 32) + byte % 2;
    if (tile_type<T>::family == TILE_BYTES) return record[(4 * half + j / 16) * 512 + lane * 16 + j % 16];
    int code = record[(2 * half + i / 4) * 512 + lane * 16 + 4 * (i % 4) + byte] >> (4 * (j / 32)) & 15;
    const uint8_t *high = record + tile_type<T>::high_at;
    if (tile_type<T>::n_high == 1) {
        uint32_t word = *(const uint32_t *)(high + lane * 16 + 8 * half + 4 * (i / 4));
        code |= (int)(word >> (16 * (byte / 2) + 4 * (i % 4) + r) & 1) << 4;
    } else if (tile_type<T>::n_high == 2) {
        uint32_t word = *(const uint32_t *)(high + 512 * half + lane * 16 + 4 * (i / 2));
        code |= (int)(word >> (16 * (byte / 2) + 2 * (4 * (i % 2) + r)) & 3) << 4;
    }
    return code;
}

/* Input e of row `row` of a record, with the bits of the reference decoder. */
template <int T> static __device__ inline float tile_value(const uint8_t *record, int row, int e)
{
    int half = row / 8, t = e / 64, j = e % 64, lane = 4 * (row % 8) + t;
    if (tile_type<T>::family == TILE_FLOAT) {
        int i = j % 32 / 4, byte = j % 4;
        const uint8_t *p = record + (2 * i + half) * 512 + lane * 16 + 4 * (2 * (j / 32) + byte % 2) + 2 * (byte / 2);
        return T == TYPE_F16 ? read_f16(p) : read_bf16(p);
    }
    int code = tile_code<T>(record, half, lane, j);
    const uint8_t *s = record + tile_type<T>::scales_at;
    if (tile_type<T>::scales == TILE_D) {
        float d = read_f16(s + lane * 8 + 4 * half + 2 * (j / 32));
        return __fmul_rn(d, (float)(code - (tile_type<T>::family == TILE_BYTES ? 128 : tile_type<T>::bias)));
    }
    if (tile_type<T>::scales == TILE_DM) {
        s += lane * 16 + 8 * half + 2 * (j / 32);
        return __fadd_rn(__fmul_rn(read_f16(s), (float)code), read_f16(s + 4));
    }
    if (tile_type<T>::scales == TILE_Q6) {
        float d = read_f16(s + 256 + 4 * (row % 8) + 2 * half);
        float scale = __fmul_rn(d, (float)(int8_t)s[lane * 8 + 4 * half + j / 16]);
        return __fmul_rn(scale, (float)(code - 32));
    }
    uint4 h = *(const uint4 *)(s + 16 * row);
    uint32_t bits = super_bits(h, t) >> (6 * (j / 32));
    float scale = __fmul_rn(low_half(h.x), (float)(bits & 63));
    float min = __fmul_rn(high_half(h.x), (float)(bits >> 12 & 63));
    return __fsub_rn(__fmul_rn(scale, (float)code), min);
}

/* ---- a lane's part of half a record, for multiplication ---- */

/* The pairs i = 4 j .. 4 j + 3, for j = 0 or 1: a whole record would take too many registers. f16 weights come out as
 * weight * gain. Codes of four to six bits are used as they lie: the bits of a half below 1024 are the subnormal
 * code * 2^-24, so that one fused multiply-add makes a weight of it; codes in high nibbles are 16 times as large. */
template <int T> struct tile_part {
    static constexpr bool is_bytes = tile_type<T>::family == TILE_BYTES;
    static constexpr int n_high = tile_type<T>::n_high;
    uint4 q[is_bytes ? 4 : 2]; /* [row half], bytes: and low, high inputs */
    uint32_t h[2][2];          /* [row half] the words with the bits above */
    half2 s[2][2], m[2][2];    /* [row half][low, high nibbles] */

    __device__ inline void load(const uint8_t *record, int lane, int j, float gain)
    {
        const uint8_t *high = record + tile_type<T>::high_at + lane * 16;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (is_bytes) {
                q[2 * half] = *(const uint4 *)(record + (4 * half + j) * 512 + lane * 16);
                q[2 * half + 1] = *(const uint4 *)(record + (4 * half + 2 + j) * 512 + lane * 16);
            } else {
                q[half] = *(const uint4 *)(record + (2 * half + j) * 512 + lane * 16);
            }
            if (n_high == 1) h[half][0] = *(const uint32_t *)(high + 8 * half + 4 * j);
            if (n_high == 2) {
                uint2 two = *(const uint2 *)(high + 512 * half + 8 * j);
                h[half][0] = two.x;
                h[half][1] = two.y;
            }
        }
        if (j == 0 || tile_type<T>::scales == TILE_Q6) load_scales(record + tile_type<T>::scales_at, lane, j, gain);
    }

    __device__ inline void set(int half, int at, float scale, float min)
    {
        s[half][at] = __float2half2_rn(scale);
        m[half][at] = __float2half2_rn(min);
    }

    /* TILE_D and TILE_DM: d0 and d1 of a row's two blocks; m0, m1 what is added to d * code. */
    __device__ inline void set_blocks(int half, float d0, float d1, float m0, float m1, float gain)
    {
        set(half, 0, d0 * (is_bytes ? gain : gain * 0x1p24f), m0 * gain);
        set(half, 1, d1 * (is_bytes ? gain : gain * 0x1p20f), m1 * gain);
    }

    __device__ inline void set_super(int half, const uint4 &header, int t, float gain)
    {
        uint32_t bits = super_bits(header, t);
        half2 k1024 = as_half2(0x64006400u);
        half2 scales = __hsub2(as_half2((bits & 63) | (bits << 10 & 0x3f0000) | 0x64006400u), k1024);
        half2 minima = __hsub2(as_half2((bits >> 12 & 63) | (bits >> 2 & 0x3f0000) | 0x64006400u), k1024);
        float d = low_half(header.x) * gain, dmin = high_half(header.x) * gain;
        scales = __hmul2(scales, __floats2half2_rn(d * 0x1p24f, d * 0x1p20f));
        minima = __hmul2(minima, __float2half2_rn(-dmin));
        s[half][0] = __low2half2(scales);
        s[half][1] = __high2half2(scales);
        m[half][0] = __low2half2(minima);
        m[half][1] = __high2half2(minima);
    }

    __device__ inline void set_q6(int half, uint32_t scales, int j, float d)
    {
        float low = d * (float)(int8_t)(scales >> (8 * j)), high = d * (float)(int8_t)(scales >> (16 + 8 * j));
        set(half, 0, low * 0x1p24f, low * -32.0f);
        set(half, 1, high * 0x1p20f, high * -32.0f);
    }

    __device__ inline void load_scales(const uint8_t *at, int lane, int j, float gain)
    {
        if (tile_type<T>::scales == TILE_D) {
            uint2 d = *(const uint2 *)(at + lane * 8);
            constexpr float bias = (float)-tile_type<T>::bias;
            set_blocks(0, low_half(d.x), high_half(d.x), bias * low_half(d.x), bias * high_half(d.x), gain);
            set_blocks(1, low_half(d.y), high_half(d.y), bias * low_half(d.y), bias * high_half(d.y), gain);
        } else if (tile_type<T>::scales == TILE_DM) {
            uint4 d = *(const uint4 *)(at + lane * 16);
            set_blocks(0, low_half(d.x), high_half(d.x), low_half(d.y), high_half(d.y), gain);
            set_blocks(1, low_half(d.z), high_half(d.z), low_half(d.w), high_half(d.w), gain);
        } else if (tile_type<T>::scales == TILE_SUPER) {
            set_super(0, *(const uint4 *)(at + lane / 4 * 16), lane % 4, gain);
            set_super(1, *(const uint4 *)(at + (lane / 4 + 8) * 16), lane % 4, gain);
        } else {
            uint2 scales = *(const uint2 *)(at + lane * 8);
            uint32_t d = *(const uint32_t *)(at + 256 + lane / 4 * 4);
            set_q6(0, scales.x, j, low_half(d) * gain);
            set_q6(1, scales.y, j, high_half(d) * gain);
        }
    }

    /* The high bits of word r of pair i, moved above the nibbles they belong to. Constants after unrolling: i, r. */
    __device__ inline uint32_t high_bits(int half, int i, int r) const
    {
        if (n_high == 0) return 0;
        uint32_t word = h[half][n_high == 1 ? 0 : i / 2];
        const int from = n_high == 1 ? 4 * i + r : 2 * (4 * (i % 2) + r), to = r < 2 ? 4 : 8;
        const uint32_t mask = (n_high == 1 ? 0x00010001u : 0x00030003u) << to;
        return (from >= to ? word >> (from >= to ? from - to : 0) : word << (from >= to ? 0 : to - from)) & mask;
    }

    /* The four words of each row for pair 4 j + i, i < 4: out[0..3] of row g, out[4..7] of row g + 8. */
    __device__ inline void words(int i, uint32_t out[8]) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t low = word_of(q[is_bytes ? 2 * half : half], i), other = low >> 8;
            if (is_bytes) other = word_of(q[2 * half + 1], i);
#pragma unroll
            for (int r = 0; r < 4; r++) {
                half2 w;
                if (is_bytes) {
                    uint32_t code = __byte_perm(r < 2 ? low : other, 0x64646464u, r % 2 ? 0x4341 : 0x4240);
                    w = __hmul2(__hsub2(as_half2(code), as_half2(0x64806480u)), s[half][r / 2]); /* 1024 + 128 */
                } else {
                    uint32_t code = (r % 2 ? other : low) & (r < 2 ? 0x000f000fu : 0x00f000f0u);
                    w = __hfma2(as_half2(code | high_bits(half, i, r)), s[half][r / 2], m[half][r / 2]);
                }
                out[4 * half + r] = *(uint32_t *)&w;
            }
        }
    }
};

/* Words of 16-bit float weights straight from the record. */
template <int T>
static __device__ inline void tile_float_words(const uint8_t *record, int lane, float gain, int i, uint32_t out[8])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint4 v = *(const uint4 *)(record + (2 * i + half) * 512 + lane * 16);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            uint32_t w = word_of(v, r);
            if (T == TYPE_BF16) {
                half2 x = __floats2half2_rn(__uint_as_float(w << 16) * gain, __uint_as_float(w & 0xffff0000u) * gain);
                w = *(uint32_t *)&x;
            }
            out[4 * half + r] = w;
        }
    }
}

#endif

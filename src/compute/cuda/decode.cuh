/* decode.cuh: one element of a quantised row, for every type that weights may have. The blocks lie as in the file
 * (docs/formats.md draws them); products and sums are rounded in the order of the reference decoder, so that the values
 * are the same bits. Reads are of one or two bytes: blocks are at best 2-byte aligned. */
#ifndef FACET_COMPUTE_CUDA_DECODE_CUH
#define FACET_COMPUTE_CUDA_DECODE_CUH

#include "compute/cuda/device.cuh"

static __device__ inline int nibble(uint8_t byte, int high)
{
    return (byte >> (4 * high)) & 15;
}

/* Element e of 32 in a run of 16 bytes: the low nibbles first, then the high ones. */
static __device__ inline int split_nibble(const uint8_t *qs, int e)
{
    return nibble(qs[e % 16], e / 16);
}

static __device__ inline int bit_of(const uint8_t *bits, int e)
{
    return (bits[e / 8] >> (e % 8)) & 1;
}

static __device__ inline int iq4_value(int code)
{
    const int8_t table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return table[code];
}

/* Twice the E2M1 value. */
static __device__ inline int fp4_value(int code)
{
    const int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return table[code];
}

static __device__ inline float decode_f32(const uint8_t *b, int)
{
    return *(const float *)b;
}

static __device__ inline float decode_f16(const uint8_t *b, int)
{
    return read_f16(b);
}

static __device__ inline float decode_bf16(const uint8_t *b, int)
{
    return read_bf16(b);
}

static __device__ inline float decode_q4_0(const uint8_t *b, int e)
{
    return __fmul_rn(read_f16(b), (float)(split_nibble(b + 2, e) - 8));
}

static __device__ inline float decode_q4_1(const uint8_t *b, int e)
{
    return __fadd_rn(__fmul_rn(read_f16(b), (float)split_nibble(b + 4, e)), read_f16(b + 2));
}

static __device__ inline float decode_q5_0(const uint8_t *b, int e)
{
    return __fmul_rn(read_f16(b), (float)((split_nibble(b + 6, e) | bit_of(b + 2, e) << 4) - 16));
}

static __device__ inline float decode_q5_1(const uint8_t *b, int e)
{
    int q = split_nibble(b + 8, e) | bit_of(b + 4, e) << 4;
    return __fadd_rn(__fmul_rn(read_f16(b), (float)q), read_f16(b + 2));
}

static __device__ inline float decode_q8_0(const uint8_t *b, int e)
{
    return __fmul_rn(read_f16(b), (float)(int8_t)b[2 + e]);
}

static __device__ inline float decode_iq4_nl(const uint8_t *b, int e)
{
    return __fmul_rn(read_f16(b), (float)iq4_value(split_nibble(b + 2, e)));
}

/* The scale is 2^(b[0] - 128), the two smallest of them subnormal. */
static __device__ inline float decode_mxfp4(const uint8_t *b, int e)
{
    uint32_t bits = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
    return __fmul_rn(__uint_as_float(bits), (float)fp4_value(split_nibble(b + 1, e)));
}

/* Half of an unsigned E4M3 number. */
static __device__ inline float ue4m3_half(uint8_t x)
{
    int exponent = (x >> 3) & 15, mantissa = x & 7;
    if (x == 0x7f) return 0;
    return exponent ? ldexpf((float)(8 + mantissa), exponent - 11) : ldexpf((float)mantissa, -10);
}

static __device__ inline float decode_nvfp4(const uint8_t *b, int e)
{
    int run = e / 16, j = e % 16;
    return __fmul_rn(ue4m3_half(b[run]), (float)fp4_value(nibble(b[4 + 8 * run + j % 8], j / 8)));
}

static __device__ inline float decode_q2_k(const uint8_t *b, int e)
{
    int q = (b[16 + 32 * (e / 128) + e % 32] >> (2 * (e / 32 % 4))) & 3, c = b[e / 16];
    float scale = __fmul_rn(read_f16(b + 80), (float)(c & 15)), min = __fmul_rn(read_f16(b + 82), (float)(c >> 4));
    return __fsub_rn(__fmul_rn(scale, (float)q), min);
}

static __device__ inline float decode_q3_k(const uint8_t *b, int e)
{
    const uint8_t *qs = b + 32, *s = b + 96;
    int i = e / 16, j = e / 32 % 4, n = e / 128, l = e % 32;
    int scale = (nibble(s[i % 8], i / 8) | ((s[8 + i % 4] >> (2 * (i / 4))) & 3) << 4) - 32;
    int q = ((qs[32 * n + l] >> (2 * j)) & 3) - ((b[l] >> (4 * n + j)) & 1 ? 0 : 4);
    return __fmul_rn(__fmul_rn(read_f16(b + 108), (float)scale), (float)q);
}

/* The 6-bit scale and minimum of sub-block j, shared by Q4_K and Q5_K. */
static __device__ inline void k_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

static __device__ inline float k_value(const uint8_t *b, int j, int q)
{
    int sc, mn;
    k_scale_min(b + 4, j, &sc, &mn);
    float scale = __fmul_rn(read_f16(b), (float)sc), min = __fmul_rn(read_f16(b + 2), (float)mn);
    return __fsub_rn(__fmul_rn(scale, (float)q), min);
}

static __device__ inline float decode_q4_k(const uint8_t *b, int e)
{
    int j = e / 32;
    return k_value(b, j, nibble(b[16 + 32 * (j / 2) + e % 32], j & 1));
}

static __device__ inline float decode_q5_k(const uint8_t *b, int e)
{
    int j = e / 32, l = e % 32;
    return k_value(b, j, nibble(b[48 + 32 * (j / 2) + l], j & 1) | ((b[16 + l] >> j) & 1) << 4);
}

static __device__ inline float decode_q6_k(const uint8_t *b, int e)
{
    int n = e / 128, k = e / 32 % 4, l = e % 32;
    int low = nibble(b[64 * n + 32 * (k & 1) + l], k >> 1), high = (b[128 + 32 * n + l] >> (2 * k)) & 3;
    float scale = __fmul_rn(read_f16(b + 208), (float)(int8_t)b[192 + e / 16]);
    return __fmul_rn(scale, (float)((low | high << 4) - 32));
}

static __device__ inline float decode_iq4_xs(const uint8_t *b, int e)
{
    int i = e / 32, high = b[2 + i / 4] >> (2 * (i % 4));
    int scale = (nibble(b[4 + i / 2], i & 1) | (high & 3) << 4) - 32;
    int value = iq4_value(split_nibble(b + 8 + 16 * i, e % 32));
    return __fmul_rn(__fmul_rn(read_f16(b), (float)scale), (float)value);
}

/* X(type, values per block, bytes per block, decoder) */
#define DEVICE_TYPES(X)                                                                                                \
    X(TYPE_F32, 1, 4, decode_f32)                                                                                      \
    X(TYPE_F16, 1, 2, decode_f16)                                                                                      \
    X(TYPE_BF16, 1, 2, decode_bf16)                                                                                    \
    X(TYPE_Q4_0, 32, 18, decode_q4_0)                                                                                  \
    X(TYPE_Q4_1, 32, 20, decode_q4_1)                                                                                  \
    X(TYPE_Q5_0, 32, 22, decode_q5_0)                                                                                  \
    X(TYPE_Q5_1, 32, 24, decode_q5_1)                                                                                  \
    X(TYPE_Q8_0, 32, 34, decode_q8_0)                                                                                  \
    X(TYPE_IQ4_NL, 32, 18, decode_iq4_nl)                                                                              \
    X(TYPE_MXFP4, 32, 17, decode_mxfp4)                                                                                \
    X(TYPE_NVFP4, 64, 36, decode_nvfp4)                                                                                \
    X(TYPE_Q2_K, 256, 84, decode_q2_k)                                                                                 \
    X(TYPE_Q3_K, 256, 110, decode_q3_k)                                                                                \
    X(TYPE_Q4_K, 256, 144, decode_q4_k)                                                                                \
    X(TYPE_Q5_K, 256, 176, decode_q5_k)                                                                                \
    X(TYPE_Q6_K, 256, 210, decode_q6_k)                                                                                \
    X(TYPE_IQ4_XS, 256, 136, decode_iq4_xs)

template <int T> struct device_type;
#define DEVICE_TYPE_STRUCT(T, LEN, BYTES, DECODE)                                                                      \
    template <> struct device_type<T> {                                                                                \
        static __device__ inline float at(const uint8_t *row, uint32_t k)                                              \
        {                                                                                                              \
            return DECODE(row + (size_t)(k / LEN) * BYTES, (int)(k % LEN));                                            \
        }                                                                                                              \
    };
DEVICE_TYPES(DEVICE_TYPE_STRUCT)
#undef DEVICE_TYPE_STRUCT

/* Element k of a row whose type is known only at run time. */
static __device__ inline float weight_at(tensor_type type, const uint8_t *row, uint32_t k)
{
    switch (type) {
#define WEIGHT_AT(T, LEN, BYTES, DECODE)                                                                               \
    case T: return device_type<T>::at(row, k);
        DEVICE_TYPES(WEIGHT_AT)
#undef WEIGHT_AT
    default: return 0;
    }
}

/* sum over k of W[k] x[k] for one weight row, by one warp, the result on every lane. Lane l takes k = l, l + 32, … and
 * the lanes are added by warp_sum: the order depends on n alone. linear.cu keeps the same order for several rows. */
template <int T> static __device__ inline float warp_dot(const uint8_t *row, const float *x, uint32_t n)
{
    float sum = 0;
    for (uint32_t k = (uint32_t)lane_id(); k < n; k += WARP) sum = __fmaf_rn(device_type<T>::at(row, k), x[k], sum);
    return warp_sum(sum);
}

#endif

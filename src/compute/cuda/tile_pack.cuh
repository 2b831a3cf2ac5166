/* tile_pack.cuh: a lane's part of a tile record out of the blocks of the file. */
#ifndef FACET_COMPUTE_CUDA_TILE_PACK_CUH
#define FACET_COMPUTE_CUDA_TILE_PACK_CUH

#include "compute/cuda/decode.cuh"
#include "compute/cuda/tile.cuh"

/* Code e of a block as an unsigned number: what the record keeps. */
template <int T> static __device__ inline uint32_t block_code(const uint8_t *b, int e)
{
    switch (T) {
    case TYPE_Q4_0: return (uint32_t)split_nibble(b + 2, e);
    case TYPE_Q4_1: return (uint32_t)split_nibble(b + 4, e);
    case TYPE_Q5_0: return (uint32_t)(split_nibble(b + 6, e) | bit_of(b + 2, e) << 4);
    case TYPE_Q5_1: return (uint32_t)(split_nibble(b + 8, e) | bit_of(b + 4, e) << 4);
    case TYPE_Q8_0: return b[2 + e] ^ 0x80u;
    case TYPE_Q4_K: return (uint32_t)nibble(b[16 + 32 * (e / 64) + e % 32], e / 32 % 2);
    case TYPE_Q5_K:
        return (uint32_t)(nibble(b[48 + 32 * (e / 64) + e % 32], e / 32 % 2) | ((b[16 + e % 32] >> (e / 32)) & 1) << 4);
    case TYPE_Q6_K: {
        int n = e / 128, k = e / 32 % 4, l = e % 32;
        return (uint32_t)(nibble(b[64 * n + 32 * (k & 1) + l], k >> 1) | ((b[128 + 32 * n + l] >> (2 * k)) & 3) << 4);
    }
    default: return 0;
    }
}

/* The blocks of one row inside one record; row NULL stands for a row of zeros. */
template <int T> struct record_row {
    static constexpr int block_len = tile_type<T>::block_len;
    const uint8_t *row; /* the whole row */
    uint32_t first, n_in;
    int block_bytes;

    /* The block that holds input e of the record, NULL past the row's end. */
    __device__ inline const uint8_t *block(int e) const
    {
        uint32_t k = first + (uint32_t)e;
        return row && k < n_in ? row + (size_t)(k / block_len) * block_bytes : NULL;
    }

    __device__ inline uint32_t code(int e) const
    {
        const uint8_t *b = block(e);
        if (!b) return T == TYPE_Q8_0 ? 0x80 : 0;
        return block_code<T>(b, e % block_len);
    }

    __device__ inline uint32_t u16(int e, int offset) const
    {
        const uint8_t *b = block(e);
        return b ? *(const uint16_t *)(b + offset) : 0;
    }
};

template <int T>
static __device__ inline void pack_floats(const record_row<T> &r, uint8_t *record, int half, int lane, float *most)
{
    for (int i = 0; i < 8; i++) {
        uint32_t words[4];
        for (int j = 0; j < 4; j++) {
            uint32_t lo = r.u16(tile_input(lane % 4, i, j, 0), 0), hi = r.u16(tile_input(lane % 4, i, j, 1), 0);
            words[j] = lo | hi << 16;
            if (T == TYPE_BF16)
                *most = fmaxf(*most, fmaxf(fabsf(__uint_as_float(lo << 16)), fabsf(__uint_as_float(hi << 16))));
        }
        *(uint4 *)(record + (2 * i + half) * 512 + lane * 16) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

template <int T> static __device__ inline void pack_bytes(const record_row<T> &r, uint8_t *record, int half, int lane)
{
    for (int c = 0; c < 4; c++)
        for (int j = 0; j < 16; j++)
            record[(4 * half + c) * 512 + lane * 16 + j] = (uint8_t)r.code(64 * (lane % 4) + 16 * c + j);
}

template <int T> static __device__ inline void pack_nibbles(const record_row<T> &r, uint8_t *record, int half, int lane)
{
    uint32_t low[8] = {}, one[2] = {}, two[4] = {};
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < 2; k++) {
                uint32_t code = r.code(tile_input(lane % 4, i, j, k)), high = code >> 4;
                low[i] |= (code & 15) << (8 * (j % 2 + 2 * k) + 4 * (j / 2));
                one[i / 4] |= (high & 1) << (16 * k + 4 * (i % 4) + j);
                two[i / 2] |= (high & 3) << (16 * k + 2 * (4 * (i % 2) + j));
            }
    for (int c = 0; c < 2; c++)
        *(uint4 *)(record + (2 * half + c) * 512 + lane * 16) =
            make_uint4(low[4 * c], low[4 * c + 1], low[4 * c + 2], low[4 * c + 3]);
    uint8_t *high = record + tile_type<T>::high_at;
    if (tile_type<T>::n_high == 1) *(uint2 *)(high + lane * 16 + 8 * half) = make_uint2(one[0], one[1]);
    if (tile_type<T>::n_high == 2)
        *(uint4 *)(high + 512 * half + lane * 16) = make_uint4(two[0], two[1], two[2], two[3]);
}

static __device__ inline float scale_size(uint32_t f16, int factor)
{
    return fabsf(low_half(f16) * (float)factor);
}

/* One lane of the 24-bit fields of a Q4_K or Q5_K row, see TILE_SUPER. */
static __device__ inline uint32_t super_field(const uint8_t *block, int t)
{
    int s0, s1, m0, m1;
    k_scale_min(block + 4, 2 * t, &s0, &m0);
    k_scale_min(block + 4, 2 * t + 1, &s1, &m1);
    return (uint32_t)(s0 | s1 << 6 | m0 << 12 | m1 << 18);
}

template <int T>
static __device__ inline void pack_super(const record_row<T> &r, uint8_t *at, int half, int lane, float *most)
{
    const uint8_t *block = r.block(0);
    uint4 h = make_uint4(0, 0, 0, 0);
    if (block) {
        uint32_t top = super_field(block, 3);
        h.x = r.u16(0, 0) | r.u16(0, 2) << 16;
        h.y = super_field(block, 0) | (top & 255) << 24;
        h.z = super_field(block, 1) | (top >> 8 & 255) << 24;
        h.w = super_field(block, 2) | (top >> 16 & 255) << 24;
        uint32_t mine = super_field(block, lane % 4);
        *most = fmaxf(*most, fmaxf(scale_size(h.x, mine & 63), scale_size(h.x, mine >> 6 & 63)));
    }
    if (lane % 4 == 0) *(uint4 *)(at + (lane / 4 + 8 * half) * 16) = h;
}

template <int T>
static __device__ inline void pack_q6_scales(const record_row<T> &r, uint8_t *at, int half, int lane, float *most)
{
    const uint8_t *block = r.block(0);
    uint32_t d = r.u16(0, 208);
    for (int u = 0; u < 4; u++) {
        int8_t scale = block ? (int8_t)block[192 + 4 * (lane % 4) + u] : (int8_t)0;
        at[lane * 8 + 4 * half + u] = (uint8_t)scale;
        *most = fmaxf(*most, scale_size(d, scale));
    }
    if (lane % 4 == 0) *(uint16_t *)(at + 256 + 4 * (lane / 4) + 2 * half) = (uint16_t)d;
}

/* Lane `lane`'s part of the rows lane / 4 + 8 * half; *most: the largest size of a scale. */
template <int T>
static __device__ inline void pack_lane(const record_row<T> &r, uint8_t *record, int half, int lane, float *most)
{
    if (tile_type<T>::family == TILE_FLOAT) {
        pack_floats<T>(r, record, half, lane, most);
        return;
    }
    if (tile_type<T>::family == TILE_BYTES)
        pack_bytes<T>(r, record, half, lane);
    else
        pack_nibbles<T>(r, record, half, lane);
    uint8_t *at = record + tile_type<T>::scales_at;
    int e0 = 64 * (lane % 4), e1 = e0 + 32;
    if (tile_type<T>::scales == TILE_SUPER) {
        pack_super<T>(r, at, half, lane, most);
    } else if (tile_type<T>::scales == TILE_Q6) {
        pack_q6_scales<T>(r, at, half, lane, most);
    } else {
        uint32_t d0 = r.u16(e0, 0), d1 = r.u16(e1, 0);
        *most = fmaxf(*most, fmaxf(scale_size(d0, 1), scale_size(d1, 1)));
        if (tile_type<T>::scales == TILE_D)
            *(uint32_t *)(at + lane * 8 + 4 * half) = d0 | d1 << 16;
        else
            *(uint2 *)(at + lane * 16 + 8 * half) = make_uint2(d0 | d1 << 16, r.u16(e0, 2) | r.u16(e1, 2) << 16);
    }
}

#endif

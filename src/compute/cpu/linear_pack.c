/* Packing of matrices into tiles and back. The form of a tile is described in linear_tile.h; here are the headers and
 * where the codes stand in the blocks of the file. Both directions read the same descriptions, so that one is the
 * inverse of the other.
 *
 * Headers, fields of 16 rows each (f16 and words as in the file):
 *
 *     Q4_0 Q5_0 Q8_0 IQ4_NL   64 values    0: d of block 0      32: d of block 1
 *     Q4_1 Q5_1               32 values    0: d                 32: m
 *     MXFP4                  128 values    16 i: e of block i
 *     NVFP4                   64 values    16 i: d[i]
 *     Q4_K Q5_K              256 values    0: d    32: dmin     64, 128, 192: s[12] as three words
 *     Q2_K                   256 values    0: d    32: dmin     64 + 16 i: s[i]
 *     Q3_K                   256 values    0: d    32: unused   64, 128, 192: s[12] as three words
 *     Q6_K                   256 values    0: d    32: unused   64 + 16 i: sc[i]
 *     IQ4_XS                 256 values    0: d    32: sh       64: sl[4] as a word */
#include <string.h>

#include "compute/cpu/linear_tile.h"
#include "quant/block.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* `count` members of `size` bytes, the first at byte `src` of the block; each becomes 16 rows side by side, the first
 * at byte `dst` of the header. Members of the i-th block of a record stand `block_step` * i later. */
typedef struct header_field {
    uint8_t src, size, count;
    uint16_t dst, block_step;
} header_field;

enum { MAX_FIELDS = 3 };

static const header_field fields_of_32[MAX_FIELDS] = {{0, 2, 1, 0, 32}};
static const header_field fields_of_32_min[MAX_FIELDS] = {{0, 2, 2, 0, 0}};
static const header_field fields_mxfp4[MAX_FIELDS] = {{0, 1, 1, 0, 16}};
static const header_field fields_nvfp4[MAX_FIELDS] = {{0, 1, 4, 0, 0}};
static const header_field fields_q4_K[MAX_FIELDS] = {{0, 2, 2, 0, 0}, {4, 4, 3, 64, 0}};
static const header_field fields_q2_K[MAX_FIELDS] = {{80, 2, 2, 0, 0}, {0, 1, 16, 64, 0}};
static const header_field fields_q3_K[MAX_FIELDS] = {{108, 2, 1, 0, 0}, {96, 4, 3, 64, 0}};
static const header_field fields_q6_K[MAX_FIELDS] = {{208, 2, 1, 0, 0}, {192, 1, 16, 64, 0}};
static const header_field fields_iq4_xs[MAX_FIELDS] = {{0, 2, 2, 0, 0}, {4, 4, 1, 64, 0}};

static const header_field *header_fields(tensor_type type)
{
    switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1: return fields_of_32_min;
    case TYPE_MXFP4: return fields_mxfp4;
    case TYPE_NVFP4: return fields_nvfp4;
    case TYPE_Q4_K:
    case TYPE_Q5_K: return fields_q4_K;
    case TYPE_Q2_K: return fields_q2_K;
    case TYPE_Q3_K: return fields_q3_K;
    case TYPE_Q6_K: return fields_q6_K;
    case TYPE_IQ4_XS: return fields_iq4_xs;
    default: return fields_of_32;
    }
}

/* Copies between block `index` of a record and its header. */
static void header_copy(tensor_type type, uint8_t *header, uint8_t *block, uint32_t index, uint32_t row, bool to_tile)
{
    const header_field *f = header_fields(type);
    for (int k = 0; k < MAX_FIELDS && f[k].size; k++)
        for (uint32_t i = 0; i < f[k].count; i++) {
            size_t size = f[k].size;
            uint8_t *in_tile = header + f[k].dst + f[k].block_step * index + (16 * i + row) * size;
            uint8_t *in_block = block + f[k].src + i * size;
            if (to_tile)
                memcpy(in_tile, in_block, size);
            else
                memcpy(in_block, in_tile, size);
        }
}

/* ---- codes of a block, as words: word v of sub-block b holds the codes of k = 4v..4v+3 in its four bytes ---- */

/* Part of such a word: (file word at byte `src` >> shift) & mask, moved up by `at`. */
typedef struct word_part {
    uint32_t src, mask;
    int shift, at;
} word_part;

enum { M1 = 0x01010101, M2 = 0x03030303, M4 = 0x0f0f0f0f };

/* Nibbles of a block of 32 (qs at byte `src`): values 0..15 low, 16..31 high. */
ALWAYS_INLINE word_part nibbles_of_32(uint32_t src, uint32_t v)
{
    return (word_part){src + 4 * (v % 4), M4, v < 4 ? 0 : 4, 0};
}

ALWAYS_INLINE uint32_t offset_of_qs(tensor_type type)
{
    switch (type) {
    case TYPE_MXFP4: return 1;
    case TYPE_Q4_1: return 4;
    case TYPE_Q5_0: return 6;
    case TYPE_Q5_1: return 8;
    case TYPE_IQ4_XS: return 8;
    default: return 2;
    }
}

/* The one or two parts of word v of sub-block b. Fifth bits of Q5_0 and Q5_1 are no such part (see high_bits). */
ALWAYS_INLINE int word_parts(tensor_type type, uint32_t b, uint32_t v, word_part part[2])
{
    uint32_t half = b / 4, in_half = b % 4; /* halves of 128 values in Q2_K, Q3_K, Q6_K */
    int pair = 2 * (int)in_half;
    switch (type) {
    case TYPE_Q2_K: part[0] = (word_part){16 + 32 * half + 4 * v, M2, pair, 0}; return 1;
    case TYPE_Q3_K:
        part[0] = (word_part){32 + 32 * half + 4 * v, M2, pair, 0};
        part[1] = (word_part){4 * v, M1, (int)b, 2};
        return 2;
    case TYPE_Q4_K: part[0] = (word_part){16 + 32 * (b / 2) + 4 * v, M4, 4 * (int)(b % 2), 0}; return 1;
    case TYPE_Q5_K:
        part[0] = (word_part){48 + 32 * (b / 2) + 4 * v, M4, 4 * (int)(b % 2), 0};
        part[1] = (word_part){16 + 4 * v, M1, (int)b, 4};
        return 2;
    case TYPE_Q6_K:
        part[0] = (word_part){64 * half + 32 * (in_half % 2) + 4 * v, M4, 4 * (int)(in_half / 2), 0};
        part[1] = (word_part){128 + 32 * half + 4 * v, M2, pair, 4};
        return 2;
    case TYPE_Q8_0: part[0] = (word_part){2 + 4 * v, 0xffffffffu, 0, 0}; return 1;
    case TYPE_NVFP4: part[0] = (word_part){4 + 16 * b + 8 * (v / 4) + 4 * (v % 2), M4, v % 4 < 2 ? 0 : 4, 0}; return 1;
    default: part[0] = nibbles_of_32(offset_of_qs(type) + 16 * b, v); return 1;
    }
}

/* Where the 32 fifth bits stand, bit e for value e; 0: the type has none in this form. */
ALWAYS_INLINE uint32_t high_bits(tensor_type type)
{
    return type == TYPE_Q5_0 ? 2 : type == TYPE_Q5_1 ? 4 : 0;
}

/* Bits 0..3 of x to bit 0 of the four bytes, and back. */
static inline uint32_t spread4(uint32_t x)
{
    return (x & 15) * 0x00204081u & M1;
}
static inline uint32_t gather4(uint32_t w)
{
    return (w & M1) * 0x10204080u >> 28;
}

ALWAYS_INLINE void block_words(tensor_type type, const uint8_t *block, uint32_t b, uint32_t w[8])
{
    uint32_t high = high_bits(type), bits = high ? load_u32(block + high) : 0;
    for (uint32_t v = 0; v < 8; v++) {
        word_part part[2];
        int n = word_parts(type, b, v, part);
        w[v] = high ? spread4(bits >> 4 * v) << 4 : 0;
        for (int i = 0; i < n; i++)
            w[v] |= (load_u32(block + part[i].src) >> part[i].shift & part[i].mask) << part[i].at;
        if (type == TYPE_Q8_0) w[v] ^= 0x80808080u;
    }
}

/* The inverse; the block's bytes were zero before its first sub-block. */
ALWAYS_INLINE void block_set_words(tensor_type type, uint8_t *block, uint32_t b, const uint32_t w[8])
{
    uint32_t high = high_bits(type), bits = 0, flip = type == TYPE_Q8_0 ? 0x80808080u : 0;
    for (uint32_t v = 0; v < 8; v++) {
        word_part part[2];
        int n = word_parts(type, b, v, part);
        bits |= gather4(w[v] >> 4) << 4 * v;
        for (int i = 0; i < n; i++) {
            uint8_t *p = block + part[i].src;
            store_u32(p, load_u32(p) | ((w[v] ^ flip) >> part[i].at & part[i].mask) << part[i].shift);
        }
    }
    if (high) store_u32(block + high, bits);
}

/* ---- codes of a unit, row by row ---- */

/* Byte offsets of the parts of a unit; order and form in linear_tile.h. */
ALWAYS_INLINE uint32_t unit_pairs(int bits)
{
    return bits == 6 ? 256 : 0;
}
ALWAYS_INLINE uint32_t unit_ones(int bits)
{
    return bits == 5 ? 256 : 128;
}

ALWAYS_INLINE void unit_set_words(int bits, uint8_t *unit, uint32_t row, const uint32_t w[8])
{
    uint8_t *p = unit + 4 * row;
    if (bits == 8)
        for (int v = 0; v < 8; v++) store_u32(p + 64 * v, w[v]);
    if (bits >= 4 && bits <= 6)
        for (int u = 0; u < 4; u++) store_u32(p + 64 * u, (w[2 * u] & M4) | (w[2 * u + 1] & M4) << 4);
    if (bits == 2 || bits == 3 || bits == 6)
        for (int u = 0; u < 2; u++) {
            uint32_t pairs = 0;
            for (int j = 0; j < 4; j++) pairs |= (w[4 * u + j] >> (bits == 6 ? 4 : 0) & M2) << 2 * j;
            store_u32(p + unit_pairs(bits) + 64 * u, pairs);
        }
    if (bits == 3 || bits == 5) {
        uint32_t ones = 0;
        for (int v = 0; v < 8; v++) ones |= (w[v] >> (bits - 1) & M1) << v;
        store_u32(p + unit_ones(bits), ones);
    }
}

ALWAYS_INLINE void unit_words(int bits, const uint8_t *unit, uint32_t row, uint32_t w[8])
{
    const uint8_t *p = unit + 4 * row;
    for (uint32_t v = 0; v < 8; v++) {
        w[v] = 0;
        if (bits == 8) w[v] = load_u32(p + 64 * v);
        if (bits >= 4 && bits <= 6) w[v] = load_u32(p + 64 * (v / 2)) >> 4 * (v % 2) & M4;
        if (bits == 2 || bits == 3 || bits == 6)
            w[v] |= (load_u32(p + unit_pairs(bits) + 64 * (v / 4)) >> 2 * (v % 4) & M2) << (bits == 6 ? 4 : 0);
        if (bits == 3 || bits == 5) w[v] |= (load_u32(p + unit_ones(bits)) >> v & M1) << (bits - 1);
    }
}

/* ---- rows ---- */

static inline size_t record_bytes(tensor_type type)
{
    return tile_header_bytes(type) + (size_t)tile_record_units(type) * tile_unit_bytes(type);
}

/* Copies between the blocks of one row that hold n values from value `begin` on and the tile. */
ALWAYS_INLINE void copy_row(tensor_type type, uint8_t *tile, uint32_t row, uint32_t begin, uint32_t n, uint8_t *blocks,
                            bool to_tile)
{
    const type_info *info = type_get((uint32_t)type);
    const int bits = tile_code_bits(type);
    const uint32_t per_record = 32 * tile_record_units(type), units = info->block_len / 32;
    uint32_t w[8];
    for (uint32_t k = begin; k < begin + n; k += info->block_len, blocks += info->block_bytes) {
        uint8_t *record = tile + k / per_record * record_bytes(type);
        uint32_t unit = k % per_record / 32;
        if (!to_tile) memset(blocks, 0, info->block_bytes);
        header_copy(type, record, blocks, unit / units, row, to_tile);
        for (uint32_t b = 0; b < units; b++) {
            uint8_t *u = record + tile_header_bytes(type) + (unit + b) * tile_unit_bytes(type);
            if (to_tile) {
                block_words(type, blocks, b, w);
                unit_set_words(bits, u, row, w);
            } else {
                unit_words(bits, u, row, w);
                block_set_words(type, blocks, b, w);
            }
        }
    }
}

/* One copy of the code above for each type and direction, so that descriptions become constants. The side that is read
 * loses its const here only. */
#define COPY_CASE(T)                                                                                                   \
    case TYPE_##T:                                                                                                     \
        if (to_tile)                                                                                                   \
            copy_row(TYPE_##T, tile, row, begin, n, blocks, true);                                                     \
        else                                                                                                           \
            copy_row(TYPE_##T, tile, row, begin, n, blocks, false);                                                    \
        return;

static void copy_row_any(tensor_type type, uint8_t *tile, uint32_t row, uint32_t begin, uint32_t n, uint8_t *blocks,
                         bool to_tile)
{
    switch (type) {
        COPY_CASE(Q4_0)
        COPY_CASE(Q4_1)
        COPY_CASE(Q5_0)
        COPY_CASE(Q5_1)
        COPY_CASE(Q8_0)
        COPY_CASE(Q2_K)
        COPY_CASE(Q3_K)
        COPY_CASE(Q4_K)
        COPY_CASE(Q5_K)
        COPY_CASE(Q6_K)
        COPY_CASE(IQ4_NL)
        COPY_CASE(IQ4_XS)
        COPY_CASE(MXFP4)
        COPY_CASE(NVFP4)
    default: return;
    }
}

static void copy_float_row(tensor_type type, uint8_t *tile, uint32_t row, uint32_t begin, uint32_t n, uint8_t *values,
                           bool to_tile)
{
    size_t size = type == TYPE_F32 ? 4 : 2;
    for (uint32_t k = 0; k < n; k++) {
        uint8_t *in_tile = tile + ((size_t)(begin + k) * LINEAR_TILE + row) * size, *in_file = values + k * size;
        if (to_tile)
            memcpy(in_tile, in_file, size);
        else
            memcpy(in_file, in_tile, size);
    }
}

static void copy_any(tensor_type type, uint8_t *tile, uint32_t row, uint32_t begin, uint32_t n, uint8_t *file,
                     bool to_tile)
{
    if (type_is_float(type))
        copy_float_row(type, tile, row, begin, n, file, to_tile);
    else
        copy_row_any(type, tile, row, begin, n, file, to_tile);
}

/* ---- entries ---- */

bool linear_can_pack(tensor_type type, uint32_t n_in)
{
    const type_info *info = type_get((uint32_t)type);
    if (!info || (!type_is_float(type) && !tile_code_bits(type))) return false;
    return n_in > 0 && n_in % 32 == 0 && n_in % info->block_len == 0;
}

size_t linear_tile_bytes(tensor_type type, uint32_t n_in)
{
    if (type_is_float(type)) return (size_t)n_in * LINEAR_TILE * (type == TYPE_F32 ? 4 : 2);
    uint32_t units = n_in / 32, records = (units + tile_record_units(type) - 1) / tile_record_units(type);
    return (size_t)records * tile_header_bytes(type) + (size_t)units * tile_unit_bytes(type);
}

static uint32_t rows_of_tile(uint32_t n_out, uint32_t tile)
{
    uint32_t left = n_out - tile * LINEAR_TILE;
    return left < LINEAR_TILE ? left : LINEAR_TILE;
}

void linear_pack_tile(tensor_type type, uint32_t n_in, uint32_t n_out, const void *src, uint32_t tile, uint8_t *dst)
{
    size_t row_bytes = type_bytes(type_get((uint32_t)type), n_in);
    const uint8_t *from = (const uint8_t *)src + (size_t)tile * LINEAR_TILE * row_bytes;
    memset(dst, 0, linear_tile_bytes(type, n_in));
    for (uint32_t o = 0; o < rows_of_tile(n_out, tile); o++)
        copy_any(type, dst, o, 0, n_in, (uint8_t *)(uintptr_t)(from + o * row_bytes), true);
}

void linear_unpack_tile(tensor_type type, uint32_t n_in, uint32_t n_out, const uint8_t *src, uint32_t tile, void *dst)
{
    size_t row_bytes = type_bytes(type_get((uint32_t)type), n_in);
    uint8_t *to = (uint8_t *)dst + (size_t)tile * LINEAR_TILE * row_bytes;
    for (uint32_t o = 0; o < rows_of_tile(n_out, tile); o++) linear_tile_row(type, src, o, 0, n_in, to + o * row_bytes);
}

void linear_tile_row(tensor_type type, const uint8_t *tile, uint32_t row, uint32_t begin, uint32_t n, uint8_t *dst)
{
    copy_any(type, (uint8_t *)(uintptr_t)tile, row, begin, n, dst, false);
}

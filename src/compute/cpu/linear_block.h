/* linear_block.h: the product of one tile of a block type with R rows, for any vector width. Included by
 * linear_block_<instruction set>.h after the vector header (LANES, vi, vf, loads) and after
 *     dot_codes(type, R, unit, v0, v1, q, S)
 *         S[r] += sum over the code vectors v0..v1-1 of the unit of code * activation code; q: codes of row 0 that
 *         belong to v0, rows are sizeof(act_block) apart
 *     dot_keeps_offset(type)
 *         whether that takes the codes with their offset (tile_offset_log2)
 * Type and R are constants where it is inlined; what is left then are straight loops. The order of operations is that
 * of quant/act.h. */
#ifndef FACET_COMPUTE_CPU_LINEAR_BLOCK_H
#define FACET_COMPUTE_CPU_LINEAR_BLOCK_H

#include "compute/cpu/linear_tile.h"

#define UNROLL _Pragma("GCC unroll 8")
#define ROLLED _Pragma("GCC unroll 1")

ALWAYS_INLINE vi bytes_of(int x)
{
    return set_i32(x * 0x01010101);
}

typedef struct record_scales {
    vf s[16], m[16]; /* of each group of 32 or 16 values */
} record_scales;

/* ---- headers (drawn in linear_pack.c); `first` is the first of the LANES rows ---- */

/* d * sc and dmin * mn; s[12] as three words a row: bytes 0..3, 4..7, 8..11. */
ALWAYS_INLINE void scales_q4_K(const uint8_t *p, int first, record_scales *out)
{
    vf d = load_lanes_f16(p + 2 * first), dmin = load_lanes_f16(p + 32 + 2 * first);
    vi w0 = load_words(p + 64 + 4 * first), w1 = load_words(p + 128 + 4 * first), w2 = load_words(p + 192 + 4 * first);
    UNROLL for (int j = 0; j < 4; j++)
    {
        vi sc = (w2 >> 8 * j) & 15, mn = (w2 >> (8 * j + 4)) & 15;
        out->s[j] = d * to_f32((w0 >> 8 * j) & 63);
        out->m[j] = dmin * to_f32((w1 >> 8 * j) & 63);
        out->s[4 + j] = d * to_f32(merge_bits(w0 >> (8 * j + 2), set_i32(48), sc));
        out->m[4 + j] = dmin * to_f32(merge_bits(w1 >> (8 * j + 2), set_i32(48), mn));
    }
}

ALWAYS_INLINE void scales_q3_K(const uint8_t *p, int first, record_scales *out)
{
    vf d = load_lanes_f16(p + 2 * first);
    vi w[2] = {load_words(p + 64 + 4 * first), load_words(p + 128 + 4 * first)}, w2 = load_words(p + 192 + 4 * first);
    UNROLL for (int i = 0; i < 16; i++)
    {
        vi lo = (w[i % 8 / 4] >> (8 * (i % 4) + 4 * (i / 8))) & 15, hi = (w2 >> (8 * (i % 4) + 2 * (i / 4))) & 3;
        out->s[i] = d * to_f32((lo | hi << 4) - 32);
    }
}

ALWAYS_INLINE void scales_q2_K(const uint8_t *p, int first, record_scales *out)
{
    vf d = load_lanes_f16(p + 2 * first), dmin = load_lanes_f16(p + 32 + 2 * first);
    UNROLL for (int i = 0; i < 16; i++)
    {
        vi c = load_lanes_u8(p + 64 + 16 * i + first);
        out->s[i] = d * to_f32(c & 15);
        out->m[i] = dmin * to_f32(c >> 4);
    }
}

ALWAYS_INLINE void scales_q6_K(const uint8_t *p, int first, record_scales *out)
{
    vf d = load_lanes_f16(p + 2 * first);
    UNROLL for (int i = 0; i < 16; i++) out->s[i] = d * to_f32(load_lanes_i8(p + 64 + 16 * i + first));
}

ALWAYS_INLINE void scales_iq4_xs(const uint8_t *p, int first, record_scales *out)
{
    vf d = load_lanes_f16(p + 2 * first);
    vi high = load_lanes_u16(p + 32 + 2 * first), low = load_words(p + 64 + 4 * first);
    UNROLL for (int b = 0; b < 8; b++) out->s[b] =
        d * to_f32((((low >> 4 * b) & 15) | ((high >> 2 * b) & 3) << 4) - 32);
}

/* 2^(e - 128), subnormal for e < 2 */
ALWAYS_INLINE void scales_mxfp4(const uint8_t *p, int first, record_scales *out)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        vi e = load_lanes_u8(p + 16 * i + first), small = (vi)(e < 2);
        out->s[i] = as_f32((small & set_i32(0x00200000) << (e & 1)) | (~small & (e - 1) << 23));
    }
}

/* Half the E4M3 value: its bits are those of an f32 that is 2^119 too small, subnormals too; 0x7f counts as 0. */
ALWAYS_INLINE void scales_nvfp4(const uint8_t *p, int first, record_scales *out)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        vi x = load_lanes_u8(p + 16 * i + first), bits = (x & 0x7f) << 20;
        out->s[i] = as_f32(bits & (vi)(x != 0x7f)) * set_f32(0x1p119f);
    }
}

ALWAYS_INLINE void record_header(tensor_type type, const uint8_t *p, int first, record_scales *out)
{
    switch (type) {
    case TYPE_Q2_K: scales_q2_K(p, first, out); return;
    case TYPE_Q3_K: scales_q3_K(p, first, out); return;
    case TYPE_Q4_K:
    case TYPE_Q5_K: scales_q4_K(p, first, out); return;
    case TYPE_Q6_K: scales_q6_K(p, first, out); return;
    case TYPE_IQ4_XS: scales_iq4_xs(p, first, out); return;
    case TYPE_MXFP4: scales_mxfp4(p, first, out); return;
    case TYPE_NVFP4: scales_nvfp4(p, first, out); return;
    case TYPE_Q4_1:
    case TYPE_Q5_1: /* added, not subtracted */
        out->s[0] = load_lanes_f16(p + 2 * first);
        out->m[0] = -load_lanes_f16(p + 32 + 2 * first);
        return;
    default:
        out->s[0] = load_lanes_f16(p + 2 * first);
        out->s[1] = load_lanes_f16(p + 32 + 2 * first);
        return;
    }
}

/* ---- the same unit by unit ----
 *
 * What a header gives takes some hundred instructions, none of which waits for the sums. Made between the products of
 * the units they run beside them; made at the head of a record they take a tenth of the time of 8 rows. */

ALWAYS_INLINE bool scales_by_unit(tensor_type type)
{
    return type == TYPE_Q4_K || type == TYPE_Q5_K || type == TYPE_Q6_K;
}

/* The scale and minimum bytes of Q4_K and Q5_K, whole: byte j % 4 of word j / 4 belongs to unit j. */
typedef struct header_words {
    vi sc[2], mn[2];
} header_words;

ALWAYS_INLINE void words_q4_K(const uint8_t *p, int first, header_words *out)
{
    vi w0 = load_words(p + 64 + 4 * first), w1 = load_words(p + 128 + 4 * first), w2 = load_words(p + 192 + 4 * first);
    out->sc[0] = w0 & bytes_of(63);
    out->mn[0] = w1 & bytes_of(63);
    out->sc[1] = merge_bits(w0 >> 2, bytes_of(48), w2 & bytes_of(15));
    out->mn[1] = merge_bits(w1 >> 2, bytes_of(48), (w2 >> 4) & bytes_of(15));
}

/* s[0] and m[0] of unit b; s[0] and s[1] where scales are per 16. */
ALWAYS_INLINE void unit_scales(tensor_type type, const uint8_t *p, int first, const header_words *words, uint32_t b,
                               vf s[2], vf m[2])
{
    const vf d = load_lanes_f16(p + 2 * first);
    if (type == TYPE_Q6_K) {
        s[0] = d * to_f32(load_lanes_i8(p + 64 + 32 * b + first));
        s[1] = d * to_f32(load_lanes_i8(p + 80 + 32 * b + first));
        return;
    }
    const int shift = 8 * (int)(b % 4);
    s[0] = d * to_f32((words->sc[b / 4] >> shift) & 255);
    m[0] = load_lanes_f16(p + 32 + 2 * first) * to_f32((words->mn[b / 4] >> shift) & 255);
}

/* ---- codes ---- */

/* Shifts 16-bit lanes, left for n > 0; what crosses into the neighbour byte is masked away by the caller. */
ALWAYS_INLINE vi shift_bits(vi a, int n)
{
    return n >= 0 ? (vi)((vu16)a << n) : (vi)((vu16)a >> -n);
}

/* Code vector v of a unit (its form: linear_tile.h), unsigned, after the table. */
ALWAYS_INLINE vi unit_codes(tensor_type type, const uint8_t *unit, int v)
{
    static const _Alignas(16) uint8_t iq4[16] = TILE_IQ4_TABLE, fp4[16] = TILE_FP4_TABLE;
    const int bits = tile_code_bits(type);
    if (bits == 8) return load_codes(unit + 64 * v);
    vi low;
    if (bits >= 4)
        low = shift_bits(load_codes(unit + 64 * (v / 2)), v % 2 ? -4 : 0) & bytes_of(15);
    else
        low = shift_bits(load_codes(unit + 64 * (v / 4)), -2 * (v % 4)) & bytes_of(3);
    if (bits == 3) return merge_bits(shift_bits(load_codes(unit + 128), 2 - v), bytes_of(4), low);
    if (bits == 5) return merge_bits(shift_bits(load_codes(unit + 256), 4 - v), bytes_of(16), low);
    if (bits == 6)
        return merge_bits(shift_bits(load_codes(unit + 256 + 64 * (v / 4)), 4 - 2 * (v % 4)), bytes_of(48), low);
    if (tile_is_iq4(type)) return look_up(iq4, low);
    if (tile_is_fp4(type)) return look_up(fp4, low);
    return low;
}

/* ---- one sub-block of 32 values ---- */

/* What the sums begin with so that the offset of the codes is taken out: -2^n times the activation sums of each group
 * of 32 or 16. Made once for the 256 values of a block. */
typedef struct start_values {
    int32_t of[MAX_WIDTH][16];
} start_values;

ALWAYS_INLINE bool has_start_values(tensor_type type)
{
    return tile_offset_log2(type) && dot_keeps_offset(type);
}

ALWAYS_INLINE void make_start_values(tensor_type type, int R, const act_block *x, start_values *start)
{
    const int32_t factor = -(1 << tile_offset_log2(type));
    for (int r = 0; r < R; r++)
        for (int i = 0; i < 16; i++)
            start->of[r][i] = factor * (tile_scales_per_16(type) ? x[r].sum16[i]
                                        : i < 8                  ? x[r].sum16[2 * i] + x[r].sum16[2 * i + 1]
                                                                 : 0);
}

ALWAYS_INLINE void sub_block_per_32(tensor_type type, int R, const uint8_t *unit, vf s, vf m, const act_block *x, int j,
                                    const start_values *start, vf A[MAX_WIDTH], vf M[MAX_WIDTH])
{
    vi S[MAX_WIDTH];
    UNROLL for (int r = 0; r < R; r++) S[r] = set_i32(has_start_values(type) ? start->of[r][j] : 0);
    dot_codes(type, R, unit, 0, 8, x->q + 32 * j, S);
    UNROLL for (int r = 0; r < R; r++)
    {
        A[r] = fma_lanes(to_f32(S[r]) * set_f32(x[r].scale[j]), s, A[r]);
        if (tile_has_min(type)) M[r] = fma_lanes(m, set_f32(x[r].scale_sum[j]), M[r]);
    }
}

ALWAYS_INLINE void sub_block_per_16(tensor_type type, int R, const uint8_t *unit, const vf s[2], const vf m[2],
                                    const act_block *x, int j, const start_values *start, vf A[MAX_WIDTH],
                                    vf M[MAX_WIDTH])
{
    vf T[MAX_WIDTH];
    UNROLL for (int h = 0; h < 2; h++)
    {
        vi S[MAX_WIDTH];
        UNROLL for (int r = 0; r < R; r++) S[r] = set_i32(has_start_values(type) ? start->of[r][2 * j + h] : 0);
        dot_codes(type, R, unit, 4 * h, 4 * h + 4, x->q + 32 * j + 16 * h, S);
        UNROLL for (int r = 0; r < R; r++)
        {
            T[r] = h ? fma_lanes(to_f32(S[r]), s[1], T[r]) : to_f32(S[r]) * s[0];
            if (tile_has_min(type)) M[r] = fma_lanes(m[h], set_f32(x[r].scale[j] * (float)x[r].sum16[2 * j + h]), M[r]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) A[r] = fma_lanes(T[r], set_f32(x[r].scale[j]), A[r]);
}

/* Scales and minima of unit b, two where they are by 16 values. */
ALWAYS_INLINE void pick_scales(tensor_type type, const record_scales *of, uint32_t b, vf s[2], vf m[2])
{
    const uint32_t n = tile_scales_per_16(type) ? 2 : 1;
    UNROLL for (uint32_t i = 0; i < 2; i++)
    {
        const uint32_t at = n * b + (i < n ? i : 0);
        s[i] = of->s[at];
        m[i] = tile_has_min(type) ? of->m[at] : set_f32(0);
    }
}

ALWAYS_INLINE void prefetch_lines(const uint8_t *p, uint32_t bytes)
{
    UNROLL for (uint32_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 3);
}

/* ---- one tile ---- */

/* R rows from `row` on times rows first .. first + LANES - 1 of the tile. */
ALWAYS_INLINE void tile_rows(tensor_type type, int R, const uint8_t *p, uint32_t n_in, const linear_input *x, int row,
                             size_t ahead, int first, float *y, size_t ld)
{
    const uint32_t n_sub = n_in / 32, per_record = tile_record_units(type);
    const act_block *xq = x->q + row;
    start_values start;
    vf A[MAX_WIDTH], M[MAX_WIDTH];
    UNROLL for (int r = 0; r < R; r++) A[r] = M[r] = set_f32(0);

    ROLLED for (uint32_t sub = 0; sub < n_sub; sub += per_record)
    {
        record_scales scales;
        header_words words;
        const act_block *xb = xq + sub / 8 * (size_t)x->n_rows; /* records do not straddle the blocks of 256 */
        if (has_start_values(type) && sub % 8 == 0) make_start_values(type, R, xb, &start);
        if (ahead) prefetch_lines(p + ahead, tile_header_bytes(type));
        const uint8_t *header = p;
        if (!scales_by_unit(type)) record_header(type, p, first, &scales);
        if (type == TYPE_Q4_K || type == TYPE_Q5_K) words_q4_K(p, first, &words);
        p += tile_header_bytes(type);

        const uint32_t j = sub % 8, left = n_sub - sub, units = left < per_record ? left : per_record;
        ROLLED for (uint32_t b = 0; b < units; b++, p += tile_unit_bytes(type))
        {
            if (ahead) prefetch_lines(p + ahead, tile_unit_bytes(type));
            const uint8_t *unit = p + 4 * first;
            vf s[2], m[2];
            if (scales_by_unit(type))
                unit_scales(type, header, first, &words, b, s, m);
            else
                pick_scales(type, &scales, b, s, m);
            if (tile_scales_per_16(type))
                sub_block_per_16(type, R, unit, s, m, xb, (int)(j + b), &start, A, M);
            else
                sub_block_per_32(type, R, unit, s[0], m[0], xb, (int)(j + b), &start, A, M);
        }
    }
    UNROLL for (int r = 0; r < R; r++) store_lanes(y + (size_t)r * ld + first, tile_has_min(type) ? A[r] - M[r] : A[r]);
}

/* ---- the kernels of a type: widths 1..MAX_WIDTH, their table, the linear_fn ---- */

#define LINEAR_WIDTH(T, R)                                                                                             \
    static void rows_##T##_##R(const uint8_t *tile, uint32_t n_in, const linear_input *x, int row, size_t ahead,       \
                               float *y, size_t ld)                                                                    \
    {                                                                                                                  \
        for (int first = 0; first < LINEAR_TILE; first += LANES)                                                       \
            tile_rows(TYPE_##T, R, tile, n_in, x, row, first ? 0 : ahead, first, y, ld);                               \
    }

#define LINEAR_FN(T)                                                                                                   \
    static void multiply_##T(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const linear_input *x,    \
                             int row_begin, int row_end, float *y, size_t ld_out)                                      \
    {                                                                                                                  \
        linear_drive(widths_##T, MAX_WIDTH, w, tile_begin, tile_end, x, row_begin, row_end, y, ld_out);                \
    }

#endif

/* attn_page.c: the layout of a page of the KV cache in host memory.
 *
 *   page    = [KV head 0][KV head 1] ...
 *   KV head = [K tile: slots 0-31][K tile: slots 32-63][V tile: slots 0-31][V tile: slots 32-63]
 *             the V tiles alone where keys are rebuilt (attn_rebuild.h)
 *   tile    = head_dim / 32 blocks, each of 32 keys x 32 dims
 *
 *   K block   f16:   d  0: | key 0 | key 1 | ... | key 31 |   f16, transposed: a vector load gives one dim of 16 or 32
 *                    d  1: | key 0 | ...                      keys, the query value is the broadcast, and a score never
 *                    ...                                      needs a sum across lanes
 *             f32:   the same square of f32
 *             q8_0:  32 scales f16 (one a key), then the same square with int8 codes
 *
 *   V block   f16:   key 0: | d 0 | d 1 | ... | d 31 |        a vector load gives 16 or 32 dims of one key, the
 *                    key 1: | d 0 | ...                       probability is the broadcast
 *             f32:   the same square of f32
 *             q8_0:  32 scales f16 (one a key), then the same square with int8 codes
 *
 *   q4_0    32 scales f16 (one a key), then 512 bytes of codes (attn_code.c)
 *   tq3_0   384 bytes of codes, then 32 norms f16 (a load of a row's last codes may reach a byte beyond the row)
 *   rot_*   as the type that is rotated
 *
 * Either way a kernel walks a tile as one straight stream. Blocks are 2048, 4096, 1088, 576 and 448 bytes: everything
 * stays on 64-byte lines. */
#include "compute/cpu/attn_tile.h"

#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "quant/rotate.h"
#include "quant/tq3.h"
#include "quant/type.h"

enum { N = ATTN_TILE };

static void store16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static uint16_t load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Codes and scale of 32 values by the rule of Q8_0; roundf() written so that the compiler can use vectors. */
static uint16_t quantise(const float *x, int8_t *code)
{
    float amax = 0;
    for (int i = 0; i < N; i++) amax = fmaxf(amax, fabsf(x[i]));
    float inv = amax > 1e-30f ? 127.0f / amax : 0.0f;
    for (int i = 0; i < N; i++) {
        float v = x[i] * inv;
        code[i] = (int8_t)(int)(v + copysignf(0x1.fffffep-2f, v));
    }
    return f32_to_f16(amax / 127.0f);
}

/* The value at (key, first + i) of a block lies `stride` values apart in i. */
static void put_block(kv_type t, uint8_t *block, int key, size_t first, size_t stride, const float *x)
{
    if (t == KV_F16) {
        for (size_t i = 0; i < N; i++) store16(block + 2 * (first + i * stride), f32_to_f16(x[i]));
        return;
    }
    if (t == KV_F32) {
        for (size_t i = 0; i < N; i++) memcpy(block + 4 * (first + i * stride), &x[i], sizeof x[i]);
        return;
    }
    int8_t code[N];
    store16(block + 2 * key, quantise(x, code));
    for (size_t i = 0; i < N; i++) block[ATTN_CODES + first + i * stride] = (uint8_t)code[i];
}

static void get_block(kv_type t, const uint8_t *block, int key, size_t first, size_t stride, float *x)
{
    if (t == KV_F16) {
        for (size_t i = 0; i < N; i++) x[i] = f16_to_f32(load16(block + 2 * (first + i * stride)));
        return;
    }
    if (t == KV_F32) {
        for (size_t i = 0; i < N; i++) memcpy(&x[i], block + 4 * (first + i * stride), sizeof x[i]);
        return;
    }
    float d = f16_to_f32(load16(block + 2 * key));
    for (size_t i = 0; i < N; i++) x[i] = d * (float)(int8_t)block[ATTN_CODES + first + i * stride];
}

/* ---- rows: the head_dim values of one key ---- */

enum { GROUP = ROTATE_GROUP };

/* x as the cache holds it: `room` where it must be rotated. TQ3_0's encoder does that by itself. */
static const float *as_stored(const kv_type_info *info, const float *x, size_t n, float room[GROUP])
{
    if (!info->is_rotated || info->layout == KV_TQ3_0) return x;
    memcpy(room, x, n * sizeof *x);
    rotate_values(room, n);
    return room;
}

static bool has_codes(kv_type layout)
{
    return layout == KV_Q4_0 || layout == KV_TQ3_0;
}

/* group_len values as blocks of the type. */
static void encode_codes(kv_type layout, const float *x, uint8_t *blocks)
{
    if (layout == KV_TQ3_0)
        encode_tq3_0(x, blocks, TQ3_GROUP);
    else
        type_get(TYPE_Q4_0)->encode(x, blocks, N);
}

static void put_codes(const kv_type_info *info, uint8_t *tile, int key, bool is_v, int head_dim, const float *x)
{
    uint8_t blocks[GROUP / N * 18];
    float room[GROUP];
    const kv_type t = info->layout;
    const int step = t == KV_TQ3_0 ? TQ3_GROUP : N;
    for (int i = 0; i < head_dim; i += (int)info->group_len) {
        const float *y = as_stored(info, x + i, info->group_len, room);
        for (int j = 0; j < (int)info->group_len; j += step) {
            encode_codes(t, y + j, blocks);
            for (int b = 0; b < step / N; b++, tile += attn_block_bytes(t))
                (is_v ? attn_put_codes_v : attn_put_codes_k)(t, tile, key, blocks + (size_t)b * info->block_bytes);
        }
    }
}

static void get_codes(const kv_type_info *info, const uint8_t *tile, int key, bool is_v, int head_dim, float *x)
{
    uint8_t block[18];
    for (int i = 0; i < head_dim; i += N, tile += attn_block_bytes(info->layout)) {
        (is_v ? attn_get_codes_v : attn_get_codes_k)(info->layout, tile, key, block);
        if (info->layout == KV_TQ3_0)
            decode_tq3_0(block, x + i, N);
        else
            type_get(TYPE_Q4_0)->decode(block, x + i, N);
    }
}

static void put_row(kv_type type, uint8_t *tile, int key, bool is_v, int head_dim, const float *x)
{
    const kv_type_info *info = kv_type_get(type);
    const size_t first = (size_t)key * (is_v ? N : 1), stride = is_v ? 1 : N;
    float room[GROUP];
    if (has_codes(info->layout)) {
        put_codes(info, tile, key, is_v, head_dim, x);
        return;
    }
    for (int i = 0; i < head_dim; i += (int)info->group_len) {
        const float *y = as_stored(info, x + i, info->group_len, room);
        for (uint32_t j = 0; j < info->group_len; j += N, tile += attn_block_bytes(type))
            put_block(info->layout, tile, key, first, stride, y + j);
    }
}

static void get_row(kv_type type, const uint8_t *tile, int key, bool is_v, int head_dim, float *x)
{
    const kv_type_info *info = kv_type_get(type);
    const size_t first = (size_t)key * (is_v ? N : 1), stride = is_v ? 1 : N;
    if (has_codes(info->layout)) {
        get_codes(info, tile, key, is_v, head_dim, x);
        return;
    }
    for (int i = 0; i < head_dim; i += N, tile += attn_block_bytes(type))
        get_block(info->layout, tile, key, first, stride, x + i);
}

void attn_put_k(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x)
{
    put_row(l->desc.k_type, attn_k_tile(l, page, slot / N, kv_head), slot % N, false, l->desc.head_dim, x);
}

void attn_put_v(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x)
{
    put_row(l->desc.v_type, attn_v_tile(l, page, slot / N, kv_head), slot % N, true, l->desc.head_dim, x);
}

void attn_get_k(const attn_layer *l, int32_t page, int slot, int kv_head, float *x)
{
    get_row(l->desc.k_type, attn_k_tile(l, page, slot / N, kv_head), slot % N, false, l->desc.head_dim, x);
}

void attn_get_v(const attn_layer *l, int32_t page, int slot, int kv_head, float *x)
{
    get_row(l->desc.v_type, attn_v_tile(l, page, slot / N, kv_head), slot % N, true, l->desc.head_dim, x);
}

/* ---- raw copies ---- */

/* Bytes of a value in a type without scales; 0 for the others. */
static int plain_bytes(kv_type t)
{
    return t == KV_F16 ? 2 : t == KV_F32 ? 4 : 0;
}

static void copy_block_k(kv_type t, const uint8_t *src, int src_key, uint8_t *dst, int dst_key)
{
    const int width = plain_bytes(t);
    if (width) {
        for (int i = 0; i < N; i++)
            memcpy(dst + width * (i * N + dst_key), src + width * (i * N + src_key), (size_t)width);
        return;
    }
    memcpy(dst + 2 * dst_key, src + 2 * src_key, 2);
    for (int i = 0; i < N; i++) dst[ATTN_CODES + i * N + dst_key] = src[ATTN_CODES + i * N + src_key];
}

static void copy_block_v(kv_type t, const uint8_t *src, int src_key, uint8_t *dst, int dst_key)
{
    const int width = plain_bytes(t);
    if (width) {
        memcpy(dst + width * dst_key * N, src + width * src_key * N, (size_t)width * N);
        return;
    }
    memcpy(dst + 2 * dst_key, src + 2 * src_key, 2);
    memcpy(dst + ATTN_CODES + dst_key * N, src + ATTN_CODES + src_key * N, N);
}

static void copy_key(kv_type type, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key, bool is_v)
{
    const kv_type t = kv_type_get(type)->layout;
    const size_t bytes = attn_block_bytes(t);
    uint8_t block[18];
    for (int b = 0; b < head_dim / N; b++, src += bytes, dst += bytes) {
        if (has_codes(t)) {
            (is_v ? attn_get_codes_v : attn_get_codes_k)(t, src, src_key, block);
            (is_v ? attn_put_codes_v : attn_put_codes_k)(t, dst, dst_key, block);
        } else if (is_v) {
            copy_block_v(t, src, src_key, dst, dst_key);
        } else {
            copy_block_k(t, src, src_key, dst, dst_key);
        }
    }
}

void attn_copy_key_k(kv_type t, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key)
{
    copy_key(t, head_dim, src, src_key, dst, dst_key, false);
}

void attn_copy_key_v(kv_type t, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key)
{
    copy_key(t, head_dim, src, src_key, dst, dst_key, true);
}

void attn_move_slot(const attn_layer *l, int32_t src_page, int src_slot, int32_t dst_page, int dst_slot)
{
    if (src_page == dst_page && src_slot == dst_slot) return;
    const kv_layer_desc *d = &l->desc;
    for (int h = 0; h < d->n_kv_heads; h++) {
        if (!d->rebuilds_k)
            attn_copy_key_k(d->k_type, d->head_dim, attn_k_tile(l, src_page, src_slot / N, h), src_slot % N,
                            attn_k_tile(l, dst_page, dst_slot / N, h), dst_slot % N);
        attn_copy_key_v(d->v_type, d->head_dim, attn_v_tile(l, src_page, src_slot / N, h), src_slot % N,
                        attn_v_tile(l, dst_page, dst_slot / N, h), dst_slot % N);
    }
}

/* attn_page.c: the layout of a page of the KV cache in host memory.
 *
 *   page    = [KV head 0][KV head 1] ...
 *   KV head = [K tile: slots 0-31][K tile: slots 32-63][V tile: slots 0-31][V tile: slots 32-63]
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
 * Either way a kernel walks a tile as one straight stream. Blocks are 2048, 4096 and 1088 bytes: everything stays on
 * 64-byte lines. */
#include "compute/cpu/attn_tile.h"

#include <math.h>
#include <string.h>

#include "base/f16.h"

enum { N = ATTN_TILE, SCALE_BYTES = ATTN_TILE * 2 };

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
    for (size_t i = 0; i < N; i++) block[SCALE_BYTES + first + i * stride] = (uint8_t)code[i];
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
    for (size_t i = 0; i < N; i++) x[i] = d * (float)(int8_t)block[SCALE_BYTES + first + i * stride];
}

void attn_put_k(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x)
{
    kv_type t = l->desc.k_type;
    uint8_t *tile = attn_k_tile(l, page, slot / N, kv_head);
    int key = slot % N;
    for (int b = 0; b < l->desc.head_dim / N; b++)
        put_block(t, tile + (size_t)b * attn_block_bytes(t), key, (size_t)key, N, x + b * N);
}

void attn_put_v(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x)
{
    kv_type t = l->desc.v_type;
    uint8_t *tile = attn_v_tile(l, page, slot / N, kv_head);
    int key = slot % N;
    for (int b = 0; b < l->desc.head_dim / N; b++)
        put_block(t, tile + (size_t)b * attn_block_bytes(t), key, (size_t)key * N, 1, x + b * N);
}

void attn_get_k(const attn_layer *l, int32_t page, int slot, int kv_head, float *x)
{
    kv_type t = l->desc.k_type;
    const uint8_t *tile = attn_k_tile(l, page, slot / N, kv_head);
    int key = slot % N;
    for (int b = 0; b < l->desc.head_dim / N; b++)
        get_block(t, tile + (size_t)b * attn_block_bytes(t), key, (size_t)key, N, x + b * N);
}

void attn_get_v(const attn_layer *l, int32_t page, int slot, int kv_head, float *x)
{
    kv_type t = l->desc.v_type;
    const uint8_t *tile = attn_v_tile(l, page, slot / N, kv_head);
    int key = slot % N;
    for (int b = 0; b < l->desc.head_dim / N; b++)
        get_block(t, tile + (size_t)b * attn_block_bytes(t), key, (size_t)key * N, 1, x + b * N);
}

/* Bytes of a value in a type without scales; 0 for the others. */
static int plain_bytes(kv_type t)
{
    return t == KV_F16 ? 2 : t == KV_F32 ? 4 : 0;
}

void attn_copy_key_k(kv_type t, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key)
{
    for (int b = 0; b < head_dim / N; b++, src += attn_block_bytes(t), dst += attn_block_bytes(t)) {
        const int width = plain_bytes(t);
        if (width) {
            for (int i = 0; i < N; i++)
                memcpy(dst + width * (i * N + dst_key), src + width * (i * N + src_key), (size_t)width);
            continue;
        }
        memcpy(dst + 2 * dst_key, src + 2 * src_key, 2);
        for (int i = 0; i < N; i++) dst[SCALE_BYTES + i * N + dst_key] = src[SCALE_BYTES + i * N + src_key];
    }
}

void attn_copy_key_v(kv_type t, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key)
{
    for (int b = 0; b < head_dim / N; b++, src += attn_block_bytes(t), dst += attn_block_bytes(t)) {
        const int width = plain_bytes(t);
        if (width) {
            memcpy(dst + width * dst_key * N, src + width * src_key * N, (size_t)(width * N));
            continue;
        }
        memcpy(dst + 2 * dst_key, src + 2 * src_key, 2);
        memcpy(dst + SCALE_BYTES + dst_key * N, src + SCALE_BYTES + src_key * N, N);
    }
}

void attn_move_slot(const attn_layer *l, int32_t src_page, int src_slot, int32_t dst_page, int dst_slot)
{
    if (src_page == dst_page && src_slot == dst_slot) return;
    const kv_layer_desc *d = &l->desc;
    for (int h = 0; h < d->n_kv_heads; h++) {
        attn_copy_key_k(d->k_type, d->head_dim, attn_k_tile(l, src_page, src_slot / N, h), src_slot % N,
                        attn_k_tile(l, dst_page, dst_slot / N, h), dst_slot % N);
        attn_copy_key_v(d->v_type, d->head_dim, attn_v_tile(l, src_page, src_slot / N, h), src_slot % N,
                        attn_v_tile(l, dst_page, dst_slot / N, h), dst_slot % N);
    }
}

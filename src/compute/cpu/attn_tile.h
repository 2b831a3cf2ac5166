/* attn_tile.h: where things lie in a page of the KV cache, shared by the kernels and by attn_page.c (which draws it).
 */
#ifndef FACET_COMPUTE_CPU_ATTN_TILE_H
#define FACET_COMPUTE_CPU_ATTN_TILE_H

#include "compute/cpu/attn.h"

enum {
    ATTN_TILE = 32, /* keys of a tile; also values of a block along the head dimension */
    ATTN_PAGE_TILES = KV_PAGE_LEN / ATTN_TILE,
    ATTN_BLOCK_VALUES = ATTN_TILE * ATTN_TILE,
    ATTN_BLOCK_F16_BYTES = ATTN_BLOCK_VALUES * 2,
    ATTN_BLOCK_Q8_BYTES = ATTN_BLOCK_VALUES + ATTN_TILE * 2,
    ATTN_BLOCK_F32_BYTES = ATTN_BLOCK_VALUES * 4,
    ATTN_BLOCK_Q4_BYTES = ATTN_BLOCK_VALUES / 2 + ATTN_TILE * 2,
    ATTN_BLOCK_TQ3_BYTES = ATTN_BLOCK_VALUES / 8 * 3 + ATTN_TILE * 2,
    ATTN_CODES = ATTN_TILE * 2,                 /* where the codes of a block begin, behind the scales ... */
    ATTN_TQ3_SCALES = ATTN_BLOCK_VALUES / 8 * 3 /* ... but in TQ3 these stand behind the codes */
};

static inline size_t attn_block_bytes(kv_type t)
{
    switch (kv_type_get(t)->layout) {
    case KV_F16: return ATTN_BLOCK_F16_BYTES;
    case KV_F32: return ATTN_BLOCK_F32_BYTES;
    case KV_Q4_0: return ATTN_BLOCK_Q4_BYTES;
    case KV_TQ3_0: return ATTN_BLOCK_TQ3_BYTES;
    default: return ATTN_BLOCK_Q8_BYTES;
    }
}

static inline size_t attn_tile_bytes(kv_type t, int head_dim)
{
    return (size_t)head_dim / ATTN_TILE * attn_block_bytes(t);
}

static inline size_t attn_k_tile_bytes(const kv_layer_desc *d)
{
    return d->rebuilds_k ? 0 : attn_tile_bytes(d->k_type, d->head_dim);
}

/* Tile `tile` (0 or 1) of K and of V of one KV head in a page. */
static inline uint8_t *attn_k_tile(const attn_layer *l, int32_t page, int tile, int kv_head)
{
    size_t k = attn_k_tile_bytes(&l->desc), v = attn_tile_bytes(l->desc.v_type, l->desc.head_dim);
    return l->pages + (size_t)page * l->page_bytes + (size_t)kv_head * ATTN_PAGE_TILES * (k + v) + (size_t)tile * k;
}

static inline uint8_t *attn_v_tile(const attn_layer *l, int32_t page, int tile, int kv_head)
{
    size_t k = attn_k_tile_bytes(&l->desc), v = attn_tile_bytes(l->desc.v_type, l->desc.head_dim);
    return attn_k_tile(l, page, 0, kv_head) + ATTN_PAGE_TILES * k + (size_t)tile * v;
}

/* Copies one key of a tile to another place in a tile of the same type (raw bytes). */
void attn_copy_key_k(kv_type t, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key);
void attn_copy_key_v(kv_type t, int head_dim, const uint8_t *src, int src_key, uint8_t *dst, int dst_key);

/* attn_code.c: blocks of 32 values as quant/ encodes them (Q4_0: 18 bytes, TQ3_0: 14) at one key of a block of a tile.
 * `t` is a layout (kv_type_info). */
void attn_put_codes_k(kv_type t, uint8_t *tile_block, int key, const uint8_t *block);
void attn_put_codes_v(kv_type t, uint8_t *tile_block, int key, const uint8_t *block);
void attn_get_codes_k(kv_type t, const uint8_t *tile_block, int key, uint8_t *block);
void attn_get_codes_v(kv_type t, const uint8_t *tile_block, int key, uint8_t *block);

#endif

/* attn_code.c: codes of three and four bits in the tiles of a page (attn_page.c draws the tiles).
 *
 * K, 32 words a row, one a key; the code of dim d, counted in the block:
 *   Q4_0    4 rows: row d / 8, bits 4 (d % 8) ..
 *   TQ3_0   3 rows: dims 0-29 in row d / 10, bits 3 (d % 10) ..; bit k of dim 30 is bit 30 of row k, of dim 31 bit 31
 * so a vector load gives a word of 8 or 16 keys, whose dims come out by shifts that are the same for all keys.
 *
 * V, one row a key:
 *   Q4_0    16 bytes: byte i has dim i in its low half, dim i + 16 in its high one
 *   TQ3_0   12 bytes: dim d at bits 3 d ..
 *
 * The four bits of Q4_0 are the code minus 8 in two's complement. Every bit of a key lies in words or bytes of its own:
 * threads write the keys of a tile side by side. */
#include <string.h>

#include "compute/cpu/attn_tile.h"
#include "quant/tq3.h"

enum { Q4_WORDS = 4, TQ3_WORDS = 3, Q4_ROW = 16, TQ3_ROW = 12 };

static int n_words(kv_type t)
{
    return t == KV_Q4_0 ? Q4_WORDS : TQ3_WORDS;
}

static uint8_t *word_at(const uint8_t *tile_block, kv_type t, int row, int key)
{
    return (uint8_t *)(uintptr_t)tile_block + (t == KV_Q4_0 ? ATTN_CODES : 0) + 4 * (row * ATTN_TILE + key);
}

static uint8_t *row_at(const uint8_t *tile_block, kv_type t, int key)
{
    uint8_t *p = (uint8_t *)(uintptr_t)tile_block;
    return t == KV_Q4_0 ? p + ATTN_CODES + Q4_ROW * key : p + TQ3_ROW * key;
}

static uint8_t *scale_at(const uint8_t *tile_block, kv_type t, int key)
{
    return (uint8_t *)(uintptr_t)tile_block + (t == KV_Q4_0 ? 0 : ATTN_TQ3_SCALES) + 2 * key;
}

/* ---- four bits; a block has its scale, then 16 bytes of halves, low first ---- */

static void q4_words(const uint8_t *block, uint32_t w[Q4_WORDS])
{
    memset(w, 0, Q4_WORDS * sizeof *w);
    for (int i = 0; i < 16; i++) {
        const uint32_t b = block[2 + i] ^ 0x88u;
        w[i / 8] |= (b & 15) << 4 * (i % 8);
        w[2 + i / 8] |= (b >> 4) << 4 * (i % 8);
    }
}

static void q4_block(const uint32_t w[Q4_WORDS], uint8_t *block)
{
    for (int i = 0; i < 16; i++) {
        const uint32_t lo = w[i / 8] >> 4 * (i % 8) & 15, hi = w[2 + i / 8] >> 4 * (i % 8) & 15;
        block[2 + i] = (uint8_t)((lo | hi << 4) ^ 0x88u);
    }
}

/* ---- three bits ---- */

static void tq3_words(const uint8_t *block, uint32_t w[TQ3_WORDS])
{
    uint8_t code[TQ3_BLOCK];
    tq3_unpack(block, code);
    for (int k = 0; k < TQ3_WORDS; k++) {
        w[k] = (uint32_t)(code[30] >> k & 1) << 30 | (uint32_t)(code[31] >> k & 1) << 31;
        for (int i = 0; i < 10; i++) w[k] |= (uint32_t)code[10 * k + i] << 3 * i;
    }
}

static void tq3_block(const uint32_t w[TQ3_WORDS], uint8_t *block)
{
    uint8_t code[TQ3_BLOCK];
    for (int d = 0; d < 30; d++) code[d] = (uint8_t)(w[d / 10] >> 3 * (d % 10) & 7);
    for (int d = 30; d < 32; d++) code[d] = (uint8_t)((w[0] >> d & 1) | (w[1] >> d & 1) << 1 | (w[2] >> d & 1) << 2);
    tq3_pack(code, block);
}

static void tq3_row(const uint8_t *block, uint8_t row[TQ3_ROW])
{
    uint8_t code[TQ3_BLOCK];
    tq3_unpack(block, code);
    for (int g = 0; g < TQ3_BLOCK / 8; g++) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; i++) bits |= (uint32_t)code[8 * g + i] << 3 * i;
        for (int i = 0; i < 3; i++) row[3 * g + i] = (uint8_t)(bits >> 8 * i);
    }
}

static void tq3_block_of_row(const uint8_t row[TQ3_ROW], uint8_t *block)
{
    uint8_t code[TQ3_BLOCK];
    for (int d = 0; d < TQ3_BLOCK; d++) {
        const uint8_t *p = row + d / 8 * 3;
        code[d] = (uint8_t)(((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16) >> 3 * (d % 8) & 7);
    }
    tq3_pack(code, block);
}

/* ---- both ---- */

void attn_put_codes_k(kv_type t, uint8_t *tile_block, int key, const uint8_t *block)
{
    uint32_t w[Q4_WORDS];
    (t == KV_Q4_0 ? q4_words : tq3_words)(block, w);
    for (int k = 0; k < n_words(t); k++) memcpy(word_at(tile_block, t, k, key), &w[k], sizeof w[k]);
    memcpy(scale_at(tile_block, t, key), block, 2);
}

void attn_get_codes_k(kv_type t, const uint8_t *tile_block, int key, uint8_t *block)
{
    uint32_t w[Q4_WORDS];
    for (int k = 0; k < n_words(t); k++) memcpy(&w[k], word_at(tile_block, t, k, key), sizeof w[k]);
    memcpy(block, scale_at(tile_block, t, key), 2);
    (t == KV_Q4_0 ? q4_block : tq3_block)(w, block);
}

void attn_put_codes_v(kv_type t, uint8_t *tile_block, int key, const uint8_t *block)
{
    uint8_t *row = row_at(tile_block, t, key);
    memcpy(scale_at(tile_block, t, key), block, 2);
    if (t == KV_TQ3_0)
        tq3_row(block, row);
    else
        for (int i = 0; i < Q4_ROW; i++) row[i] = block[2 + i] ^ 0x88u;
}

void attn_get_codes_v(kv_type t, const uint8_t *tile_block, int key, uint8_t *block)
{
    const uint8_t *row = row_at(tile_block, t, key);
    memcpy(block, scale_at(tile_block, t, key), 2);
    if (t == KV_TQ3_0)
        tq3_block_of_row(row, block);
    else
        for (int i = 0; i < Q4_ROW; i++) block[2 + i] = row[i] ^ 0x88u;
}

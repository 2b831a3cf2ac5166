/* attn_rebuild.h: keys that are made of values where they are read.
 *
 * In layers whose V is the K projection both come of one vector y, the normed projection: V = y, K = rope(norm * y). So
 * pages may hold y alone (kv_layer_desc.rebuilds_k). Most pairs of dims do not turn in Gemma's global layers: there
 * q . k = (norm * q) . y, and the norm joins the query once. Pairs that turn are decoded and turned once per tile, for
 * all queries that see it; the angle of a key is that of its tile's beginning plus that of its place in the tile. */
#ifndef FACET_COMPUTE_CPU_ATTN_REBUILD_H
#define FACET_COMPUTE_CPU_ATTN_REBUILD_H

#include "compute/cpu/attn_tile.h"
#include "quant/rotate.h"

struct attn_rebuild {
    const float *norm;      /* [head_dim], borrowed */
    const double *inv_freq; /* [n_rot], borrowed: pair i of (i, i + head_dim / 2) turns by pos * inv_freq[i] */
    int head_dim, n_rot;
    /* Pairs that are decoded: those that turn, and what shares a block with them (a group, in rotated types). All of
     * them, or whole blocks of both halves of a head. */
    int n_turn;
    const double *step;  /* [n_turn][cos, sin] of a tile's length */
    const float *key;    /* [ATTN_TILE][2][n_turn]: cosines, then sines, of a key's place in its tile */
    const float *unsign; /* [2][ROTATE_GROUP], unrotate_signs */
};

/* Pairs that kernels decode for heads in a cache of this type. */
int attn_rebuild_turns(int head_dim, int n_rot, kv_type t);
/* Makes the tables of r, whose numbers and frequencies are set. memory: attn_rebuild_bytes, aligned for doubles,
 * borrowed. */
size_t attn_rebuild_bytes(int n_turn);
void attn_rebuild_init(attn_rebuild *r, void *memory);

/* base [ATTN_SPLIT / ATTN_TILE][2][n_turn]: cosines, then sines, of where the tiles of the split at pos begin. */
void attn_rebuild_bases(const attn_rebuild *r, int32_t pos, float *base);
/* A query for kernels: the norm joins the dims that are not decoded, which turn to the cache's domain. */
void attn_rebuild_query(const attn_rebuild *r, bool is_rotated, float *q);
/* x [head_dim], a value, becomes the key of position pos, as exactly as one that was stored in f32. */
void attn_rebuild_key(const attn_rebuild *r, int32_t pos, float *x);

/* Blocks of 32 dims [begin, end) that are decoded (is_turned), or are not, in one half of a head. */
typedef struct attn_blocks {
    int begin, end;
} attn_blocks;
static inline attn_blocks attn_rebuild_blocks(const attn_rebuild *r, bool is_turned, int half)
{
    const int n = r->head_dim / ATTN_TILE, turned = r->n_turn / ATTN_TILE;
    if (r->n_turn == r->head_dim / 2) /* also where a half is no multiple of a block */
        return (attn_blocks){0, is_turned && half == 0 ? n : 0};
    const int first = half * n / 2, between = first + turned;
    return is_turned ? (attn_blocks){first, between} : (attn_blocks){between, first + n / 2};
}

#endif

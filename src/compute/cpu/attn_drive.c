/* attn_drive.c: attention over pages by splits and tiles, around the inner loops of a kernel set.
 *
 * Rows that share a page table go together in blocks, so that a tile is fetched from memory once for all of them. In a
 * split: scores of all tiles, softmax, values of all tiles. A tile is read only when the row sees one of its keys; the
 * keys at its edges that the row does not see are left out of the softmax and of the value loop, so that whatever lies
 * there (also an infinity) has no effect. */
#include "compute/cpu/attn_simd.h"

#include <string.h>

#include "compute/cpu/attn_fold.h"
#include "compute/cpu/attn_rebuild.h"
#include "quant/rotate.h"

/* 32 queries make the products, not the memory, the limit; their scores (66 KiB) stay in the L2 cache. */
enum { BLOCK_QUERIES = 32, BLOCK_ROWS = 8, SPLIT_TILES = ATTN_SPLIT / ATTN_TILE };

static int block_rows(int heads_per_kv)
{
    int n = BLOCK_QUERIES / heads_per_kv;
    return n < 1 ? 1 : n > BLOCK_ROWS ? BLOCK_ROWS : n;
}

/* What a row does with the tile at hand: it sees the keys [lo, hi), and its keys lie elsewhere when `gather` is set. */
typedef struct row_tile {
    int lo, hi;
    bool gather;
} row_tile;

typedef struct block {
    const attn_simd *simd;
    const attn_layer *layer;
    int kv_head, head_dim, n_heads; /* heads of one KV head: a row is that many queries */
    int n_rows;
    const attn_row *rows[BLOCK_ROWS];
    int32_t first[BLOCK_ROWS], last[BLOCK_ROWS]; /* visible positions */
    const uint8_t *blocks[BLOCK_ROWS];           /* attn_row_blocks */
    bool is_begun[BLOCK_ROWS];                   /* its state holds a split */
    const float *q;                              /* [n_rows * n_heads] rows, q_stride apart */
    size_t q_stride, o_stride;
    float *s, *o, *sums; /* [query][ATTN_SCORE_STRIDE], [query][o_stride], [query][max, sum] */
    uint8_t *tile;       /* room for a gathered tile of the widest type (f32) */
    /* Where keys are rebuilt (NULL: they are stored): room for a tile and its scales in f32, and attn_rebuild_bases of
     * the split. */
    const attn_rebuild *rebuild;
    float *turned, *bases;
} block;

/* All that does not serve rebuilt keys. */
static size_t common_floats(int heads_per_kv, int head_dim)
{
    size_t queries = (size_t)block_rows(heads_per_kv) * (size_t)heads_per_kv, dim = (size_t)head_dim;
    return dim * ATTN_TILE + queries * (ATTN_SCORE_STRIDE + 2 * (dim + ATTN_PAD) + 4);
}

size_t attn_drive_scratch_floats(int heads_per_kv, int head_dim, bool rebuilds_k)
{
    const size_t rebuild = (size_t)head_dim * (ATTN_TILE + 1 + SPLIT_TILES);
    return common_floats(heads_per_kv, head_dim) + (rebuilds_k ? rebuild : 0);
}

static block block_open(const attn_simd *simd, const attn_work *w, int kv_head)
{
    const kv_layer_desc *d = &w->layer->desc;
    block b = {.simd = simd, .layer = w->layer, .kv_head = kv_head, .head_dim = d->head_dim, .rebuild = w->rebuild};
    b.n_heads = w->n_heads / d->n_kv_heads;
    b.q_stride = b.o_stride = (size_t)d->head_dim + ATTN_PAD;
    size_t queries = (size_t)block_rows(b.n_heads) * (size_t)b.n_heads;
    b.tile = (uint8_t *)w->scratch;
    b.s = w->scratch + (size_t)d->head_dim * ATTN_TILE;
    b.o = b.s + queries * ATTN_SCORE_STRIDE;
    b.sums = b.o + 2 * queries * b.o_stride; /* the queries' copy lies between */
    b.turned = w->scratch + common_floats(b.n_heads, d->head_dim);
    b.bases = b.turned + (size_t)d->head_dim * (ATTN_TILE + 1);
    return b;
}

static void block_add(block *b, const attn_row *row, int window)
{
    attn_visible(row, window, &b->first[b->n_rows], &b->last[b->n_rows]);
    b->blocks[b->n_rows] = attn_row_blocks(row, b->kv_head);
    b->rows[b->n_rows++] = row;
}

/* Whether the row reads something of the split. */
static bool reads_split(const block *b, int r, int split)
{
    return b->first[r] / ATTN_SPLIT <= split && split <= (b->last[r] - 1) / ATTN_SPLIT &&
           (!b->blocks[r] || b->blocks[r][split]);
}

static bool reads_block(const block *b, int r, int32_t pos)
{
    return !b->blocks[r] || b->blocks[r][pos / ATTN_SPLIT] >> pos % ATTN_SPLIT / KV_PAGE_LEN & 1;
}

/* ---- tiles ---- */

/* True when some visible position of the tile at pos0 is not in the slot of its own number. */
static bool needs_gather(const attn_row *row, int32_t first, int32_t last)
{
    if (!row->path) return false;
    for (int32_t p = first > row->base ? first : row->base; p < last; p++)
        if (row->path[p - row->base] != p - row->base) return true;
    return false;
}

static row_tile look(const block *b, int r, int32_t pos0)
{
    int32_t lo = b->first[r] - pos0, hi = b->last[r] - pos0;
    row_tile t = {.lo = lo > 0 ? lo : 0, .hi = hi < ATTN_TILE ? hi : ATTN_TILE};
    if (t.lo < t.hi && !reads_block(b, r, pos0)) return (row_tile){0};
    if (t.lo < t.hi) t.gather = needs_gather(b->rows[r], pos0 + t.lo, pos0 + t.hi);
    return t;
}

static const uint8_t *stored_tile(const block *b, const attn_row *row, int32_t slot, bool is_v)
{
    int32_t page = row->table[slot / KV_PAGE_LEN];
    int tile = slot / ATTN_TILE % ATTN_PAGE_TILES;
    return is_v ? attn_v_tile(b->layer, page, tile, b->kv_head) : attn_k_tile(b->layer, page, tile, b->kv_head);
}

/* The tile in logical order for a draft-tree row: what is finished comes from its place, nodes from their slots. */
static const uint8_t *gathered_tile(const block *b, const attn_row *row, row_tile t, int32_t pos0, bool is_v)
{
    kv_type type = is_v ? b->layer->desc.v_type : b->layer->desc.k_type;
    if (pos0 + t.lo < row->base) memcpy(b->tile, stored_tile(b, row, pos0, is_v), attn_tile_bytes(type, b->head_dim));
    for (int key = t.lo; key < t.hi; key++) {
        int32_t depth = pos0 + key - row->base;
        if (depth < 0) continue;
        int32_t slot = row->base + row->path[depth];
        const uint8_t *src = stored_tile(b, row, slot, is_v);
        if (is_v)
            attn_copy_key_v(type, b->head_dim, src, slot % ATTN_TILE, b->tile, key);
        else
            attn_copy_key_k(type, b->head_dim, src, slot % ATTN_TILE, b->tile, key);
    }
    return b->tile;
}

static attn_tile find_tile(const block *b, int r, row_tile t, int32_t pos0, bool is_v)
{
    const attn_row *row = b->rows[r];
    attn_tile found = {.layout = kv_type_get(is_v ? b->layer->desc.v_type : b->layer->desc.k_type)->layout};
    if (t.gather) {
        found.data = found.next = gathered_tile(b, row, t, pos0, is_v);
        return found;
    }
    found.data = found.next = stored_tile(b, row, pos0, is_v);
    int32_t next = pos0 + ATTN_TILE;
    if (next < b->last[r] && (!row->path || next < row->base)) found.next = stored_tile(b, row, next, is_v);
    return found;
}

/* One past the last row of the run that begins at row r and can be served from one tile. Values demand equal edges. */
static int run_end(const row_tile *t, int r, int n, bool is_v)
{
    int end = r + 1;
    if (t[r].gather) return end;
    while (end < n && t[end].lo < t[end].hi && !t[end].gather &&
           (!is_v || (t[end].lo == t[r].lo && t[end].hi == t[r].hi)))
        end++;
    return end;
}

static void score_rebuilt(const block *b, attn_tile v, int index, const float *q, int n, float *s)
{
    const bool is_rotated = kv_type_get(b->layer->desc.v_type)->is_rotated;
    const float *base = b->bases + (size_t)index * 2 * (size_t)b->rebuild->n_turn;
    b->simd->turn(v, b->rebuild, is_rotated, base, b->turned);
    b->simd->score_values(v, b->rebuild, b->turned, q, b->q_stride, n, s);
}

/* Scores (or values) of the tile at pos0, the index'th of its split, for every row that sees it. */
static void do_tile(const block *b, int32_t pos0, int index, bool is_v)
{
    row_tile t[BLOCK_ROWS];
    for (int r = 0; r < b->n_rows; r++) t[r] = look(b, r, pos0);
    for (int r = 0, end; r < b->n_rows; r = end) {
        end = r + 1;
        if (t[r].lo >= t[r].hi) continue;
        end = run_end(t, r, b->n_rows, is_v);
        attn_tile tile = find_tile(b, r, t[r], pos0, is_v || b->rebuild);
        size_t query = (size_t)r * (size_t)b->n_heads;
        int n = (end - r) * b->n_heads;
        float *s = b->s + query * ATTN_SCORE_STRIDE + index * ATTN_TILE, *o = b->o + query * b->o_stride;
        if (is_v)
            b->simd->value(tile, b->head_dim, t[r].lo, t[r].hi, s, n, o, b->o_stride);
        else if (b->rebuild)
            score_rebuilt(b, tile, index, b->q + query * b->q_stride, n, s);
        else
            b->simd->score(tile, b->head_dim, b->q + query * b->q_stride, b->q_stride, n, s);
    }
}

/* ---- splits ---- */

/* Room for the queries' copy. */
static float *queries_of(const block *b)
{
    return b->o + (size_t)block_rows(b->n_heads) * (size_t)b->n_heads * b->o_stride;
}

/* The queries in the cache's domain. */
static void copy_queries(block *b, float *q)
{
    const bool is_rotated = kv_type_get(b->layer->desc.k_type)->is_rotated;
    size_t n = (size_t)b->n_heads, dim = (size_t)b->head_dim;
    for (size_t i = 0; i < (size_t)b->n_rows * n; i++) {
        const float *src = b->rows[i / n]->q + ((size_t)b->kv_head * n + i % n) * dim;
        memcpy(q + i * b->q_stride, src, dim * sizeof *q);
        if (b->rebuild)
            attn_rebuild_query(b->rebuild, is_rotated, q + i * b->q_stride);
        else if (is_rotated)
            rotate_values(q + i * b->q_stride, dim);
    }
    b->q = q;
}

/* Scores of the blocks that a row leaves out, of one query: their weights become zero. */
static void leave_out(float *s, uint8_t blocks)
{
    for (int i = 0; i < ATTN_SPLIT_BLOCKS; i++)
        for (int key = i * KV_PAGE_LEN; !(blocks >> i & 1) && key < (i + 1) * KV_PAGE_LEN; key++) s[key] = -INFINITY;
}

/* Softmax of every query that reads some of the split; clears its sums. */
static void weigh(const block *b, int32_t pos0, float scale)
{
    for (int r = 0; r < b->n_rows; r++) {
        int32_t lo = b->first[r] - pos0, hi = b->last[r] - pos0;
        const uint8_t blocks = b->blocks[r] ? b->blocks[r][pos0 / ATTN_SPLIT] : 0xff;
        if (lo < 0) lo = 0;
        if (hi > ATTN_SPLIT) hi = ATTN_SPLIT;
        if (lo >= hi || !blocks) continue;
        for (size_t i = (size_t)r * (size_t)b->n_heads, end = i + (size_t)b->n_heads; i < end; i++) {
            if (blocks != 0xff) leave_out(b->s + i * ATTN_SCORE_STRIDE, blocks);
            b->simd->softmax(b->s + i * ATTN_SCORE_STRIDE, lo, hi, scale, b->sums + 2 * i);
            memset(b->o + i * b->o_stride, 0, (size_t)b->head_dim * sizeof *b->o);
        }
    }
}

static void do_scores(const block *b, int split)
{
    if (b->rebuild) attn_rebuild_bases(b->rebuild, split * ATTN_SPLIT, b->bases);
    for (int t = 0; t < SPLIT_TILES; t++) do_tile(b, split * ATTN_SPLIT + t * ATTN_TILE, t, false);
}

static void do_split(const block *b, int split, float scale)
{
    int32_t pos0 = split * ATTN_SPLIT;
    do_scores(b, split);
    weigh(b, pos0, scale);
    for (int t = 0; t < SPLIT_TILES; t++) do_tile(b, pos0 + t * ATTN_TILE, t, true);
}

void attn_drive_split(const attn_simd *simd, const attn_work *w, const attn_row *row, int kv_head, int split,
                      float *part)
{
    block b = block_open(simd, w, kv_head);
    block_add(&b, row, w->window);
    copy_queries(&b, queries_of(&b));
    do_split(&b, split, w->scale);
    size_t dim = (size_t)b.head_dim;
    for (size_t h = 0; h < (size_t)b.n_heads; h++) {
        memcpy(part + h * (dim + 2), b.o + h * b.o_stride, dim * sizeof *part);
        memcpy(part + h * (dim + 2) + dim, b.sums + 2 * h, 2 * sizeof *part);
    }
}

/* ---- rows ---- */

static float *out_of(const block *b, size_t query)
{
    size_t n = (size_t)b->n_heads, head = (size_t)b->kv_head * n + query % n;
    return b->rows[query / n]->out + head * (size_t)b->head_dim;
}

/* Folds the results of a split into the states of the rows that read some of it. */
static void fold_split(block *b, int split, attn_fold_state *states)
{
    for (int r = 0; r < b->n_rows; r++) {
        if (!reads_split(b, r, split)) continue;
        for (size_t i = (size_t)r * (size_t)b->n_heads, end = i + (size_t)b->n_heads; i < end; i++) {
            attn_fold_state part = {.max = b->sums[2 * i], .sum = b->sums[2 * i + 1]};
            const float *o = b->o + i * b->o_stride;
            if (!b->is_begun[r])
                attn_fold_begin(out_of(b, i), &states[i], o, part, b->head_dim);
            else
                attn_fold_next(out_of(b, i), &states[i], o, part, b->head_dim);
        }
        b->is_begun[r] = true;
    }
}

static void tell_state(const block *b, size_t query, const attn_fold_state *s)
{
    const size_t n = (size_t)b->n_heads, head = (size_t)b->kv_head * n + query % n;
    float *state = b->rows[query / n]->state;
    if (!state) return;
    state[2 * head] = s->max;
    state[2 * head + 1] = s->sum;
}

static bool is_read_by_any(const block *b, int split)
{
    bool is_read = false;
    for (int r = 0; r < b->n_rows; r++) is_read |= reads_split(b, r, split);
    return is_read;
}

static void do_block(block *b, float scale, attn_fold_state *states)
{
    const bool is_rotated = kv_type_get(b->layer->desc.v_type)->is_rotated;
    int begin = b->first[0] / ATTN_SPLIT, end = (b->last[0] - 1) / ATTN_SPLIT + 1;
    for (int r = 1; r < b->n_rows; r++) {
        int row_begin = b->first[r] / ATTN_SPLIT, row_end = (b->last[r] - 1) / ATTN_SPLIT + 1;
        if (row_begin < begin) begin = row_begin;
        if (row_end > end) end = row_end;
    }
    copy_queries(b, queries_of(b));
    for (int s = begin; s < end; s++) {
        if (!is_read_by_any(b, s)) continue;
        do_split(b, s, scale);
        fold_split(b, s, states);
    }
    for (size_t i = 0; i < (size_t)b->n_rows * (size_t)b->n_heads; i++) {
        attn_fold_end(out_of(b, i), &states[i], b->head_dim, is_rotated);
        tell_state(b, i, &states[i]);
    }
}

void attn_drive_rows(const attn_simd *simd, const attn_work *w, const attn_row *rows, int n_rows, int kv_head)
{
    for (int r = 0; r < n_rows;) {
        block b = block_open(simd, w, kv_head);
        int max_rows = block_rows(b.n_heads);
        size_t queries = (size_t)max_rows * (size_t)b.n_heads;
        do {
            block_add(&b, &rows[r++], w->window);
        } while (r < n_rows && b.n_rows < max_rows && rows[r].table == rows[r - 1].table);
        do_block(&b, w->scale, (attn_fold_state *)(b.sums + 2 * queries));
    }
}

/* ---- probes ---- */

/* Mean logits of the blocks of a split that the row reads, from column `at` on. Returns the next column. */
static int add_means(const block *b, int split, float scale, float *means, int n_means, int at)
{
    for (int i = 0; i < ATTN_SPLIT_BLOCKS; i++) {
        const int32_t pos = split * ATTN_SPLIT + i * KV_PAGE_LEN;
        const int lo = i * KV_PAGE_LEN, left = b->last[0] - pos, n = left < KV_PAGE_LEN ? left : KV_PAGE_LEN;
        if (n < 1 || !reads_block(b, 0, pos)) continue;
        for (int h = 0; h < b->n_heads; h++) {
            const float *s = b->s + (size_t)h * ATTN_SCORE_STRIDE + lo;
            float sum = 0;
            for (int key = 0; key < n; key++) sum += s[key];
            means[h * n_means + at] = sum * scale / (float)n;
        }
        at++;
    }
    return at;
}

void attn_drive_probe(const attn_simd *simd, const attn_work *w, const attn_row *row, int kv_head, float *z,
                      float *means, int n_means)
{
    block b = block_open(simd, w, kv_head);
    int begin, end, at = 0;
    block_add(&b, row, w->window);
    copy_queries(&b, queries_of(&b));
    attn_split_range(row, w->window, &begin, &end);
    for (int h = 0; h < b.n_heads; h++) z[2 * h] = -INFINITY, z[2 * h + 1] = 0;
    for (int s = begin; s < end; s++) {
        if (!reads_split(&b, 0, s)) continue;
        do_scores(&b, s);
        if (means) at = add_means(&b, s, w->scale, means, n_means, at);
        weigh(&b, s * ATTN_SPLIT, w->scale);
        for (int h = 0; h < b.n_heads; h++) attn_fold_mass(z + 2 * h, b.sums + 2 * h);
    }
}

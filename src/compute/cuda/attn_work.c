/* attn_work.c: lists of work for attention (attn.h): classes of ops when a plan is compiled, items for every step. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "compute/cuda/attn.h"
#include "compute/cuda/state.h"

enum {
    PARTS_BYTES = 128 << 20, /* of the workspace, where four rows fit it */
    MIN_WAVE_ROWS = ATTN_SPLIT_ROWS / ATTN_MAX_WAVES,
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* ---- at compile time ---- */

/* Enough groups for every multiprocessor of a large card, in layers with many KV heads and with few. */
static attn_cut cut_of(int window, int n_kv_heads)
{
    const int unit = n_kv_heads >= (window > 0 ? 16 : 4) ? 128 : 64;
    if (window > 0) return (attn_cut){.unit = unit, .n_even = 1 << 20};
    return (attn_cut){.unit = unit, .n_even = n_kv_heads >= 4 ? 32 : 64};
}

bool cuda_attn_has_kernel(int head_dim, kv_type k, kv_type v)
{
    return (head_dim == 128 || head_dim == 256 || head_dim == 512) && k != KV_F32 && v != KV_F32;
}

static bool has_kernel(const dev_pages *l)
{
    return cuda_attn_has_kernel(l->head_dim, l->k_type, l->v_type);
}

static attn_class class_of(const compiled *c, const plan_op *op)
{
    const dev_pages *l = &c->b->layers[op->kv_layer];
    attn_class k = {.sight = op->sight,
                    .rows = c->p->values[op->o].rows,
                    .window = op->window,
                    .n_kv_heads = l->n_kv_heads,
                    .heads_per_kv = op->n_heads / l->n_kv_heads,
                    .head_dim = l->head_dim,
                    .k_type = l->k_type,
                    .v_type = l->v_type,
                    .cut = cut_of(op->window, l->n_kv_heads)};
    const int n_pos = c->b->groups[l->group].n_pages * KV_PAGE_LEN;
    if (op->window > 0) /* rows of one block stand close together, and a draft block's rows see each other */
        k.max_groups =
            (op->window + 2 * ATTN_SPLIT_ROWS + (op->sight == SIGHT_BLOCK ? c->max_rows : 0)) / k.cut.unit + 2;
    else
        k.max_groups = attn_group_of(k.cut, n_pos > 0 ? n_pos - 1 : 0) + 1;
    const size_t row = attn_row_parts(&k) * sizeof(float);
    k.wave_rows = row * MIN_WAVE_ROWS > PARTS_BYTES ? (int)MIN_WAVE_ROWS : (int)(PARTS_BYTES / row);
    if (k.wave_rows > ATTN_SPLIT_ROWS) k.wave_rows = ATTN_SPLIT_ROWS;
    return k;
}

static bool is_same(const attn_class *a, const attn_class *b)
{
    return a->sight == b->sight && a->rows == b->rows && a->window == b->window && a->n_kv_heads == b->n_kv_heads &&
           a->heads_per_kv == b->heads_per_kv && a->head_dim == b->head_dim && a->k_type == b->k_type &&
           a->v_type == b->v_type && a->max_groups == b->max_groups;
}

static int rows_of(const compiled *c, row_set rows)
{
    return rows == ROWS_ALL ? c->max_rows : c->max_out;
}

static int split_rows(int n)
{
    return n < ATTN_SPLIT_ROWS ? n : ATTN_SPLIT_ROWS;
}

/* Room for the items, parts and counters of every step. */
static void count_room(compiled *c, const attn_class *k)
{
    const int rows = rows_of(c, k->rows), split = split_rows(rows), wave = split < k->wave_rows ? split : k->wave_rows;
    const size_t items = (size_t)split * (size_t)k->max_groups;
    const size_t parts = (size_t)wave * attn_row_parts(k);
    const size_t counters = (size_t)wave * (size_t)k->n_kv_heads;
    c->attn_items_cap += items > (size_t)rows ? items : (size_t)rows;
    if (parts * sizeof(float) > c->attn_parts_bytes) c->attn_parts_bytes = parts * sizeof(float);
    if (counters * sizeof(int32_t) > c->attn_counters_bytes) c->attn_counters_bytes = counters * sizeof(int32_t);
}

facet_status cuda_attn_classes(compiled *c, facet_error *err)
{
    const size_t n = (size_t)c->p->n_ops;
    c->attn_classes = mem_calloc(n + 1, sizeof *c->attn_classes);
    c->attn_class_of = mem_calloc(n + 1, sizeof *c->attn_class_of);
    if (!c->attn_classes || !c->attn_class_of)
        return error_memory(err, "the layout of attention", n * sizeof *c->attn_classes);
    for (size_t i = 0; i < n; i++) {
        const plan_op *op = &c->p->ops[i];
        c->attn_class_of[i] = -1;
        if (op->kind != OP_ATTN || !has_kernel(&c->b->layers[op->kv_layer])) continue;
        const attn_class k = class_of(c, op);
        if (!attn_columns(&k, 1, c->b->shared_bytes)) continue;
        int at = 0;
        while (at < c->n_attn_classes && !is_same(&k, &c->attn_classes[at])) at++;
        c->attn_class_of[i] = (int16_t)at;
        if (at < c->n_attn_classes) continue;
        c->attn_classes[c->n_attn_classes++] = k;
        count_room(c, &k);
    }
    return FACET_OK;
}

/* ---- for every step ---- */

/* What a row block is made from. */
typedef struct row_view {
    int pos, seq;
    attn_range sees;
    bool is_tree;
} row_view;

typedef struct list_maker {
    const compiled *c;
    const attn_class *k;
    const batch *in;
    int columns; /* of a block */
    bool is_whole;
    const int32_t *fresh; /* [n_seqs] the first slot that this step writes */
    attn_item *items;
    int n;
    int counters; /* the next free ones of this wave */
} list_maker;

static row_view view_row(const list_maker *m, int row)
{
    const attn_class *k = m->k;
    const int r = k->rows == ROWS_ALL ? row : m->in->out_row[row];
    const batch_seq *s = &m->in->seqs[m->in->seq[r]];
    row_view v = {.pos = m->in->pos[r], .seq = m->in->seq[r], .is_tree = m->in->path != NULL};
    v.sees = attn_range_of(k->sight, k->window, v.pos, s->base, s->end);
    if (k->window <= 0) { /* a sequence longer than the cache has no such pages */
        const int most = attn_group_begin(k->cut, k->max_groups);
        if (v.sees.end > most) v.sees.end = most;
    }
    return v;
}

/* Adds what a row sees to what its block sees; false when that would be too many groups. */
static bool join_range(const attn_class *k, attn_range *all, attn_range row)
{
    if (row.begin >= row.end) return true;
    attn_range r = row;
    if (all->begin < all->end) {
        if (all->begin < r.begin) r.begin = all->begin;
        if (all->end > r.end) r.end = all->end;
        if (attn_group_of(k->cut, r.end - 1) - attn_group_of(k->cut, r.begin) >= k->max_groups) return false;
    }
    *all = r;
    return true;
}

/* Rows from `row` on that share reads: of one sequence, as many as a block takes. */
static int find_block(const list_maker *m, int row, int end, attn_range *all)
{
    const row_view first = view_row(m, row);
    int most = m->columns / m->k->heads_per_kv, n = 0;
    if (m->is_whole && first.is_tree) most = 1; /* its keys lie in slots of its own */
    *all = (attn_range){0, 0};
    for (; n < most && row + n < end; n++) {
        const row_view v = view_row(m, row + n);
        if (v.seq != first.seq || !join_range(m->k, all, v.sees)) break;
    }
    return n;
}

static attn_range meet(attn_range a, attn_range b)
{
    if (b.begin > a.begin) a.begin = b.begin;
    if (b.end < a.end) a.end = b.end;
    return a;
}

static void add_item(list_maker *m, attn_item block, int row, int n_rows, attn_range keys, int seq)
{
    block.row = row;
    block.n_rows = n_rows;
    block.begin = keys.begin;
    block.end = keys.end;
    block.is_settled = keys.end <= m->fresh[seq];
    m->items[m->n++] = block;
}

/* The items of one group. Where draft nodes begin, every row has its own. */
static void add_group(list_maker *m, attn_item block, attn_range all, int group)
{
    const attn_class *k = m->k;
    const attn_range range = {attn_group_begin(k->cut, group), attn_group_begin(k->cut, group + 1)};
    const row_view first = view_row(m, block.block_row);
    const int base = m->in->seqs[first.seq].base;
    const attn_range keys = meet(all, range);
    block.group = group;
    if (!first.is_tree || keys.end <= base) {
        add_item(m, block, block.block_row, block.n_block_rows, keys, first.seq);
        return;
    }
    for (int i = 0; i < block.n_block_rows; i++) {
        const attn_range own = meet(view_row(m, block.block_row + i).sees, range);
        if (own.begin < own.end) add_item(m, block, block.block_row + i, 1, own, first.seq);
    }
}

static void add_block(list_maker *m, int row, int n_rows, attn_range all)
{
    attn_item block = {.block_row = row, .n_block_rows = n_rows, .group = -1, .n_in_block = 1};
    const int first = m->n;
    if (m->is_whole || all.begin >= all.end) {
        add_item(m, block, row, n_rows, all, view_row(m, row).seq);
        return;
    }
    const int first_group = attn_group_of(m->k->cut, all.begin);
    block.counters = m->counters;
    m->counters += m->k->n_kv_heads;
    for (int g = attn_group_of(m->k->cut, all.end - 1); g >= first_group; g--) add_group(m, block, all, g);
    for (int i = first; i < m->n; i++) m->items[i].n_in_block = m->n - first;
}

/* The longest first; blocks that read the same keys side by side. */
static int by_length(const void *x, const void *y)
{
    const attn_item *a = x, *b = y;
    const int la = a->end - a->begin, lb = b->end - b->begin;
    if (la != lb) return la > lb ? -1 : 1;
    if (a->group != b->group) return a->group > b->group ? -1 : 1;
    return (a->row > b->row) - (a->row < b->row);
}

static void make_lists(list_maker *m, int n_rows, int width, attn_list *lists)
{
    const int step = m->is_whole ? n_rows : m->k->wave_rows, n_lists = m->is_whole ? 1 : ceil_div(width, step);
    for (int wave = 0; wave < n_lists; wave++) {
        const int first = m->n, end = (wave + 1) * step < n_rows ? (wave + 1) * step : n_rows;
        attn_range all;
        m->counters = 0;
        for (int row = wave * step, n; row < end; row += n) {
            n = find_block(m, row, end, &all);
            add_block(m, row, n, all);
        }
        qsort(m->items + first, (size_t)(m->n - first), sizeof *m->items, by_length);
        lists[wave] = (attn_list){first, m->n - first};
    }
}

static void find_fresh(const batch *in, int32_t *fresh)
{
    for (int s = 0; s < in->n_seqs; s++) fresh[s] = INT32_MAX;
    for (int r = 0; r < in->n_rows; r++)
        if (in->slot[r] < fresh[in->seq[r]]) fresh[in->seq[r]] = in->slot[r];
}

int cuda_attn_make_lists(compiled *c, const batch *in, int n_rows, int n_out)
{
    int32_t fresh[CUDA_MAX_SEQS];
    int n = 0;
    find_fresh(in, fresh);
    for (int i = 0; i < c->n_attn_classes; i++) {
        const attn_class *k = &c->attn_classes[i];
        const bool all = k->rows == ROWS_ALL;
        const int width = all ? n_rows : n_out, rows = all ? in->n_rows : in->n_out;
        list_maker m = {.c = c,
                        .k = k,
                        .in = in,
                        .columns = attn_columns(k, width, c->b->shared_bytes),
                        .is_whole = width > ATTN_SPLIT_ROWS,
                        .fresh = fresh,
                        .items = c->attn_host_items,
                        .n = n};
        if (width > 0) make_lists(&m, rows, width, c->attn_host_lists + i * ATTN_MAX_WAVES);
        n = m.n;
    }
    return n;
}

/* ---- shared memory ---- */

static int row_bytes(kv_type t, int head_dim)
{
    const kv_type_info *info = kv_type_get(t);
    return head_dim / (int)info->block_len * (int)info->block_bytes;
}

/* Of one row in a stage: f16 rows are padded, so that eight of them lie in different banks. */
static int stage_row_bytes(kv_type t, int head_dim)
{
    return t == KV_F16 ? 2 * head_dim + 16 : ceil_div(row_bytes(t, head_dim), 16) * 16;
}

static attn_place lay_out(const attn_class *k, int columns, int stages)
{
    const int tile = attn_tile_len(k->head_dim), d = k->head_dim, chains = d / ATTN_CHAIN;
    const int k_row = stage_row_bytes(k->k_type, d), v_row = stage_row_bytes(k->v_type, d), f16_row = 2 * d + 16;
    const bool converts = k->k_type != KV_F16 || k->v_type != KV_F16;
    attn_place p = {.columns = columns, .stages = stages, .k_row = k_row, .v_row = v_row};
    p.stage_bytes = tile * (k_row > v_row ? k_row : v_row);
    p.converted_at = stages * p.stage_bytes;
    p.q_at = p.converted_at + (converts ? tile * f16_row : 0);
    p.s_at = p.q_at + columns * f16_row;
    p.p_at = p.s_at + chains * columns * attn_s_stride(d) * (int)sizeof(float);
    p.rest_at = p.p_at + columns * attn_p_stride(d) * 2;
    p.shared_bytes = p.rest_at + (int)sizeof(attn_rest);
    return p;
}

bool attn_lay_out(const attn_class *k, int columns, int shared_bytes, attn_place *out)
{
    /* Two of the narrow blocks share a multiprocessor, each of which keeps 1 KB for itself. */
    const int most = columns == 8 ? (shared_bytes - 1024) / 2 : shared_bytes;
    for (int stages = ATTN_MAX_STAGES; stages >= ATTN_MIN_STAGES; stages--) {
        *out = lay_out(k, columns, stages);
        if (out->shared_bytes <= most || (stages == ATTN_MIN_STAGES && out->shared_bytes <= shared_bytes)) return true;
    }
    return false;
}

int attn_columns(const attn_class *k, int n_rows, int shared_bytes)
{
    attn_place p;
    int columns = 8, best = 0;
    for (; columns <= ATTN_MAX_COLUMNS; columns *= 2) {
        if (columns < k->heads_per_kv) continue;
        if (!attn_lay_out(k, columns, shared_bytes, &p)) break;
        best = columns;
        if (columns >= n_rows * k->heads_per_kv) break;
    }
    return best;
}

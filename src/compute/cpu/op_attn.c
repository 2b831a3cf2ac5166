/* op_attn.c: head norms, rotation, cache writes and attention. */
#include <math.h>
#include <string.h>

#include "compute/cpu/attn_fold.h"
#include "compute/cpu/attn_summary.h"
#include "compute/cpu/exec.h"

void exec_rope_tables(const exec *x, int thread, int n_threads)
{
    const compiled *c = x->c;
    for (int t = 0; t < c->n_freqs; t++)
        for (int r = thread; r < x->batch->n_rows; r += n_threads) {
            float *cs = c->rope[t] + (size_t)r * 2 * (size_t)c->freq_len[t];
            for (int i = 0; i < c->freq_len[t]; i++) { /* f64: positions reach 262143 at frequency 1 */
                const double angle = (double)x->batch->pos[r] * c->freqs[t][i];
                cs[2 * i] = (float)cos(angle);
                cs[2 * i + 1] = (float)sin(angle);
            }
        }
}

static const float *rope_row(const exec *x, const plan_op *op, int batch_row)
{
    int t = 0;
    while (x->c->freqs[t] != op->inv_freq) t++;
    return x->c->rope[t] + (size_t)batch_row * 2 * (size_t)x->c->freq_len[t];
}

void op_rope_q(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const row_kernels *k = x->be->rows;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        const float *cs = rope_row(x, op, exec_batch_row(x, op->o, r)), *in = exec_row(x, op->i0, r);
        float *out = exec_row(x, op->o, r);
        for (int h = 0; h < op->n_heads; h++) {
            float *y = out + (size_t)h * (size_t)op->head_dim;
            k->rms_norm(in + (size_t)h * (size_t)op->head_dim, exec_vector(x, op->w0), (size_t)op->head_dim, op->eps,
                        y);
            k->rotate(y, op->head_dim, op->n_rot, cs);
        }
    }
}

void op_kv_write(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const row_kernels *k = x->be->rows;
    const attn_layer *l = &x->be->kv_layers[op->kv_layer];
    const size_t d = (size_t)op->head_dim;
    float *y = exec_thread_scratch(x, thread);
    for (int r = thread; r < exec_n_rows(x, op->i0); r += n_threads) {
        const int b = exec_batch_row(x, op->i0, r), slot = x->batch->slot[b];
        const int32_t page = x->batch->seqs[x->batch->seq[b]].table[l->desc.group][slot / KV_PAGE_LEN];
        attn_summary_forget(l, page);
        for (int h = 0; h < op->n_kv_heads; h++) {
            if (!l->desc.rebuilds_k) {
                k->rms_norm(exec_row(x, op->i0, r) + (size_t)h * d, exec_vector(x, op->w0), d, op->eps, y);
                k->rotate(y, op->head_dim, op->n_rot, rope_row(x, op, b));
                attn_put_k(l, page, slot % KV_PAGE_LEN, h, y);
            }
            const float *v = exec_row(x, op->i1, r) + (size_t)h * d;
            if (op->has_v_norm) {
                k->rms_norm(v, NULL, d, op->eps, y);
                v = y;
            }
            attn_put_v(l, page, slot % KV_PAGE_LEN, h, v);
        }
    }
}

attn_row exec_query_row(const exec *x, const plan_op *op, int r)
{
    const int b = exec_batch_row(x, op->o, r);
    const batch_seq *s = &x->batch->seqs[x->batch->seq[b]];
    const int32_t end[] = {[SIGHT_CAUSAL] = x->batch->pos[b] + 1, [SIGHT_COMMITTED] = s->base, [SIGHT_BLOCK] = s->end};
    attn_row row = {.table = s->table[x->be->kv_layers[op->kv_layer].desc.group],
                    .pos = x->batch->pos[b],
                    .base = s->base,
                    .end = end[op->sight],
                    .begin = s->begin,
                    .path = x->batch->path ? x->batch->path[b] : NULL,
                    .q = exec_row(x, op->i0, r),
                    .out = exec_row(x, op->o, r)};
    sparse_set_row(x, op, r, &row);
    return row;
}

/* Of a row made by exec_query_row, which always sets its end. */
static bool sees_nothing(const attn_row *row, int window)
{
    int32_t first, last;
    attn_visible(row, window, &first, &last);
    return row->end <= first;
}

/* Whether the row reads something of a split that it sees. */
static bool reads_split(const attn_row *row, int kv_head, int split)
{
    const uint8_t *blocks = attn_row_blocks(row, kv_head);
    return !blocks || blocks[split];
}

/* The partials [split from begin on][head] of one head, in order. */
static void fold_head(const plan_op *op, const attn_row *row, const float *parts, int begin, int end, int head,
                      bool is_rotated)
{
    const size_t stride = (size_t)op->head_dim + 2;
    const int kv_head = head / (op->n_heads / op->n_kv_heads);
    float *out = row->out + (size_t)head * (size_t)op->head_dim;
    attn_fold_state state = {0};
    bool is_begun = false;
    for (int s = begin; s < end; s++) {
        if (!reads_split(row, kv_head, s)) continue;
        const float *o = parts + ((size_t)(s - begin) * (size_t)op->n_heads + (size_t)head) * stride;
        const attn_fold_state part = {.max = o[op->head_dim], .sum = o[op->head_dim + 1]};
        (is_begun ? attn_fold_next : attn_fold_begin)(out, &state, o, part, op->head_dim);
        is_begun = true;
    }
    attn_fold_end(out, &state, op->head_dim, is_rotated);
    if (!row->state) return;
    row->state[2 * head] = state.max;
    row->state[2 * head + 1] = state.sum;
}

/* Few rows: the splits of the keys are shared out, and folded after a barrier. */
static void attn_by_split(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k, int thread,
                          int n_threads)
{
    const int n_rows = exec_n_rows(x, op->o), per_kv = op->n_heads / op->n_kv_heads;
    const size_t stride = (size_t)op->head_dim + 2;
    const bool is_rotated = kv_type_get(w->layer->desc.v_type)->is_rotated;
    float *parts = x->c->parts;
    int unit = 0;
    for (int r = 0; r < n_rows; r++) {
        const attn_row row = exec_query_row(x, op, r);
        int begin, end;
        if (sees_nothing(&row, w->window)) continue;
        attn_split_range(&row, w->window, &begin, &end);
        for (int s = begin; s < end; s++)
            for (int h = 0; h < op->n_kv_heads; h++, parts += (size_t)per_kv * stride)
                if (reads_split(&row, h, s) && unit++ % n_threads == thread) k->split(w, &row, h, s, parts);
    }
    team_barrier(x->be->team);
    parts = x->c->parts;
    for (int r = 0; r < n_rows; r++) {
        const attn_row row = exec_query_row(x, op, r);
        int begin, end;
        if (sees_nothing(&row, w->window)) continue;
        attn_split_range(&row, w->window, &begin, &end);
        const size_t per_split = (size_t)op->n_heads * stride;
        for (int h = thread; h < op->n_heads; h += n_threads) fold_head(op, &row, parts, begin, end, h, is_rotated);
        parts += per_split * (size_t)(end - begin);
    }
}

enum { ATTN_ROW_BLOCK = 8 };

/* Many rows: blocks of rows are shared out. */
static void attn_by_rows(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k)
{
    const int n_rows = exec_n_rows(x, op->o), n_blocks = (n_rows + ATTN_ROW_BLOCK - 1) / ATTN_ROW_BLOCK;
    for (int u; (u = exec_take(x, op, 0)) < n_blocks * op->n_kv_heads;) {
        attn_row rows[ATTN_ROW_BLOCK];
        const int first = u / op->n_kv_heads * ATTN_ROW_BLOCK, left = n_rows - first;
        int n = 0;
        for (int i = 0; i < left && i < ATTN_ROW_BLOCK; i++) {
            rows[n] = exec_query_row(x, op, first + i);
            n += !sees_nothing(&rows[n], w->window);
        }
        k->rows(w, rows, n, u % op->n_kv_heads);
    }
}

void op_attn(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const attn_layer *l = &x->be->kv_layers[op->kv_layer];
    attn_rebuild rebuild;
    attn_work w = {.layer = l,
                   .n_heads = op->n_heads,
                   .window = op->window,
                   .scale = op->attn_scale,
                   .scratch = exec_thread_scratch(x, thread)};
    if (l->desc.rebuilds_k) {
        rebuild = *exec_rebuild(x->c, op, attn_rebuild_turns(op->head_dim, op->n_rot, l->desc.v_type));
        rebuild.norm = exec_vector(x, op->w0);
        w.rebuild = &rebuild;
    }
    const attn_kernels k = x->be->is_ref ? attn_ref() : attn_best(l->desc.k_type, l->desc.v_type);
    const int n_rows = exec_n_rows(x, op->o);
    for (int r = thread; r < n_rows; r += n_threads) { /* a row that sees no key keeps these zeros */
        const attn_row row = exec_query_row(x, op, r);
        if (sees_nothing(&row, w.window)) memset(row.out, 0, (size_t)(op->n_heads * op->head_dim) * sizeof *row.out);
    }
    const bool is_sparse = sparse_is_wanted(x, op);
    if (is_sparse) sparse_choose(x, op, &w, &k, thread, n_threads);
    if (n_threads > 1 && n_rows * op->n_kv_heads < 2 * n_threads)
        attn_by_split(x, op, &w, &k, thread, n_threads);
    else
        attn_by_rows(x, op, &w, &k);
    if (is_sparse) sparse_settle(x, op, &w, &k, thread, n_threads);
    if (!x->c->values[op->o].act) return;
    team_barrier(x->be->team);
    for (int r = thread; r < n_rows; r += n_threads) exec_quantize_row(x, op->o, r);
}

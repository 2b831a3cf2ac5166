/* ref/attn.c: attention in plain loops, the truth that the fast kernels are tested against.
 *
 *   s[p] = scale * q . k[p]      for the visible logical positions p of one split
 *   w[p] = exp(s[p] - max s)
 *   o    = sum w[p] v[p],  l = sum w[p];   out = o / l after the splits are folded in order
 *
 * In rotated types k[p] is the rotated key, and so is q here; sums of rotated values are turned back at the end. Where
 * keys are rebuilt, k[p] is made of v[p], and neither it nor q is rotated. */
#include "compute/cpu/attn.h"

#include <math.h>
#include <string.h>

#include "compute/cpu/attn_fold.h"
#include "compute/cpu/attn_rebuild.h"
#include "quant/rotate.h"

/* The slot that holds logical position p for this row (batch.h). */
static int32_t slot_of(const attn_row *row, int32_t p)
{
    return row->path && p >= row->base ? row->base + row->path[p - row->base] : p;
}

/* The key of position p, in slot `slot`. */
static void read_key(const attn_work *w, const attn_row *row, int32_t p, int32_t slot, int kv_head, float *x)
{
    const int32_t page = row->table[slot / KV_PAGE_LEN];
    if (!w->rebuild) {
        attn_get_k(w->layer, page, slot % KV_PAGE_LEN, kv_head, x);
        return;
    }
    attn_get_v(w->layer, page, slot % KV_PAGE_LEN, kv_head, x);
    if (kv_type_get(w->layer->desc.v_type)->is_rotated) unrotate_values(x, (size_t)w->layer->desc.head_dim);
    attn_rebuild_key(w->rebuild, p, x);
}

/* Whether the row reads position p, which it sees. */
static bool reads(const attn_row *row, int kv_head, int32_t p)
{
    const uint8_t *blocks = attn_row_blocks(row, kv_head);
    return !blocks || blocks[p / ATTN_SPLIT] >> p % ATTN_SPLIT / KV_PAGE_LEN & 1;
}

/* Scores of the positions [first, last) of a split that the row reads; returns their maximum. Scratch: s[ATTN_SPLIT],
 * one decoded key or value, the query. */
static float score_head(const attn_work *w, const attn_row *row, int kv_head, int head, int32_t first, int32_t last)
{
    int head_dim = w->layer->desc.head_dim;
    float *s = w->scratch, *x = s + ATTN_SPLIT, *q = x + head_dim, max = -INFINITY;
    memcpy(q, row->q + (size_t)head * (size_t)head_dim, (size_t)head_dim * sizeof *q);
    if (!w->rebuild && kv_type_get(w->layer->desc.k_type)->is_rotated) rotate_values(q, (size_t)head_dim);
    for (int32_t p = first; p < last; p++) {
        if (!reads(row, kv_head, p)) continue;
        int32_t slot = slot_of(row, p);
        read_key(w, row, p, slot, kv_head, x);
        float dot = 0;
        for (int i = 0; i < head_dim; i++) dot += q[i] * x[i];
        s[p - first] = dot * w->scale;
        max = fmaxf(max, s[p - first]);
    }
    return max;
}

static void split_head(const attn_work *w, const attn_row *row, int kv_head, int head, int32_t first, int32_t last,
                       float *part)
{
    int head_dim = w->layer->desc.head_dim;
    float *s = w->scratch, *x = s + ATTN_SPLIT, sum = 0;
    const float max = score_head(w, row, kv_head, head, first, last);
    memset(part, 0, (size_t)head_dim * sizeof *part);
    for (int32_t p = first; p < last; p++) {
        if (!reads(row, kv_head, p)) continue;
        int32_t slot = slot_of(row, p);
        attn_get_v(w->layer, row->table[slot / KV_PAGE_LEN], slot % KV_PAGE_LEN, kv_head, x);
        float weight = expf(s[p - first] - max);
        sum += weight;
        for (int i = 0; i < head_dim; i++) part[i] += weight * x[i];
    }
    part[head_dim] = max;
    part[head_dim + 1] = sum;
}

/* Visible positions [first, last) of a split. */
static void visible(const attn_row *row, int window, int split, int32_t *first, int32_t *last)
{
    attn_visible(row, window, first, last);
    if (*first < split * ATTN_SPLIT) *first = split * ATTN_SPLIT;
    if (*last > (split + 1) * ATTN_SPLIT) *last = (split + 1) * ATTN_SPLIT;
}

static void ref_split(const attn_work *w, const attn_row *row, int kv_head, int split, float *part)
{
    int n = w->n_heads / w->layer->desc.n_kv_heads, stride = w->layer->desc.head_dim + 2;
    int32_t first, last;
    visible(row, w->window, split, &first, &last);
    for (int h = 0; h < n; h++) split_head(w, row, kv_head, kv_head * n + h, first, last, part + h * stride);
}

static void ref_head(const attn_work *w, const attn_row *row, int kv_head, int head)
{
    int head_dim = w->layer->desc.head_dim, begin, end;
    float *out = row->out + (size_t)head * (size_t)head_dim, *part = w->scratch + ATTN_SPLIT + 2 * head_dim;
    attn_fold_state state = {0};
    attn_split_range(row, w->window, &begin, &end);
    const uint8_t *blocks = attn_row_blocks(row, kv_head);
    bool is_begun = false;
    for (int s = begin; s < end; s++) {
        int32_t first, last;
        if (blocks && !blocks[s]) continue;
        visible(row, w->window, s, &first, &last);
        split_head(w, row, kv_head, head, first, last, part);
        attn_fold_state next = {.max = part[head_dim], .sum = part[head_dim + 1]};
        if (!is_begun)
            attn_fold_begin(out, &state, part, next, head_dim);
        else
            attn_fold_next(out, &state, part, next, head_dim);
        is_begun = true;
    }
    if (row->state) {
        row->state[2 * head] = state.max;
        row->state[2 * head + 1] = state.sum;
    }
    attn_fold_end(out, &state, head_dim, kv_type_get(w->layer->desc.v_type)->is_rotated);
}

static void ref_rows(const attn_work *w, const attn_row *rows, int n_rows, int kv_head)
{
    int n = w->n_heads / w->layer->desc.n_kv_heads;
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < n; h++) ref_head(w, &rows[r], kv_head, kv_head * n + h);
}

/* Mean scores of the blocks of [first, last) that the row reads, from means[at] on. Returns the next index. */
static int add_means(const attn_row *row, int kv_head, const float *s, int32_t first, int32_t last, float *means,
                     int at)
{
    for (int32_t p = first, end; p < last; p = end) {
        float sum = 0;
        end = p + KV_PAGE_LEN < last ? p + KV_PAGE_LEN : last;
        if (!reads(row, kv_head, p)) continue;
        for (int32_t i = p; i < end; i++) sum += s[i - first];
        means[at++] = sum / (float)(end - p);
    }
    return at;
}

static void ref_probe(const attn_work *w, const attn_row *row, int kv_head, float *z, float *means, int n_means)
{
    const int n = w->n_heads / w->layer->desc.n_kv_heads;
    const uint8_t *blocks = attn_row_blocks(row, kv_head);
    int begin, end;
    attn_split_range(row, w->window, &begin, &end);
    for (int h = 0; h < n; h++, z += 2) {
        z[0] = -INFINITY, z[1] = 0;
        for (int s = begin, at = 0; s < end; s++) {
            int32_t first, last;
            if (blocks && !blocks[s]) continue;
            visible(row, w->window, s, &first, &last);
            float part[2] = {score_head(w, row, kv_head, kv_head * n + h, first, last), 0};
            for (int32_t p = first; p < last; p++)
                if (reads(row, kv_head, p)) part[1] += expf(w->scratch[p - first] - part[0]);
            if (means) at = add_means(row, kv_head, w->scratch, first, last, means + h * n_means, at);
            attn_fold_mass(z, part);
        }
    }
}

static void ref_centre(const int8_t *centre, int head_dim, const float *q, size_t q_stride, int n_q, float *out)
{
    for (int i = 0; i < n_q; i++, q += q_stride) {
        out[i] = 0;
        for (int d = 0; d < head_dim; d++) out[i] += q[d] * (float)centre[d];
    }
}

attn_kernels attn_ref(void)
{
    return (attn_kernels){.split = ref_split, .rows = ref_rows, .probe = ref_probe, .centre = ref_centre};
}

#include "compute/cpu/attn_select.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/rotate.h"

/* A dot product of up to 512 values in float: its error is below this part of the product of the lengths, in whatever
 * order it was summed. */
#define ROUNDING 4e-5f

enum { MAX_PROBED = 64 };

typedef struct selection {
    const attn_layer *layer;
    const attn_row *row;
    const sparse_rule *rule;
    int kv_head, n_heads, head_dim;
    float scale;
    int32_t n_blocks, first, end; /* candidates: [first, end) */
    int n_probed;
    float *q, *q_norm; /* [head][head_dim], [head]: |scale| |q| */
    float *z, *dot;    /* [head][max, sum], [head] */
    float *means, *x;  /* [head][probed block], [head][candidate] = scale q.c */
    uint8_t *mask;
} selection;

size_t attn_select_floats(int heads_per_kv, int head_dim, int64_t n_blocks)
{
    return (size_t)heads_per_kv * ((size_t)head_dim + 4 + MAX_PROBED + (size_t)n_blocks);
}

bool attn_may_select(const sparse_rule *rule, int32_t min_keys, const attn_row *row)
{
    if (rule->kind == SPARSE_OFF || row->pos + 1 < min_keys) return false;
    return sparse_n_blocks(row->pos + 1) > rule->sink + rule->window;
}

void attn_select_range(const sparse_rule *rule, const attn_row *row, int32_t *first, int32_t *end)
{
    *first = rule->sink;
    *end = sparse_n_blocks(row->pos + 1) - rule->window;
}

static void set_block(uint8_t *mask, int32_t b)
{
    mask[b / ATTN_SPLIT_BLOCKS] = (uint8_t)(mask[b / ATTN_SPLIT_BLOCKS] | 1u << b % ATTN_SPLIT_BLOCKS);
}

static bool has_block(const uint8_t *mask, int32_t b)
{
    return mask[b / ATTN_SPLIT_BLOCKS] >> b % ATTN_SPLIT_BLOCKS & 1;
}

static int n_splits(int32_t n_blocks)
{
    return (int)((n_blocks + ATTN_SPLIT_BLOCKS - 1) / ATTN_SPLIT_BLOCKS);
}

int32_t attn_complement(const attn_row *row, const uint8_t *mask, uint8_t *out)
{
    const int32_t n = sparse_n_blocks(row->pos + 1);
    int32_t n_out = 0;
    memset(out, 0, (size_t)n_splits(n));
    for (int32_t b = 0; b < n; b++) {
        if (has_block(mask, b)) continue;
        set_block(out, b);
        n_out++;
    }
    return n_out;
}

/* ---- what is known of the blocks ---- */

static const block_figures *figures_of(const selection *s, int32_t b)
{
    return attn_figures(s->layer, s->row->table[b], s->kv_head);
}

/* Sink and window: exact, and read again in the attention that follows, from a nearby cache. */
static void probe(selection *s, const attn_work *w, const attn_kernels *k)
{
    attn_row row = *s->row;
    memset(s->mask, 0, (size_t)n_splits(s->n_blocks));
    for (int32_t b = 0; b < s->n_blocks; b++)
        if (b < s->first || b >= s->end) set_block(s->mask, b);
    row.blocks = s->mask;
    row.blocks_stride = 0; /* the same for any KV head */
    k->probe(w, &row, s->kv_head, s->z, s->means, s->n_probed);
}

static void copy_queries(selection *s)
{
    const size_t dim = (size_t)s->head_dim;
    const bool is_rotated = kv_type_get(s->layer->desc.k_type)->is_rotated;
    for (int h = 0; h < s->n_heads; h++) {
        float *q = s->q + (size_t)h * dim;
        double sum = 0;
        memcpy(q, s->row->q + (size_t)(s->kv_head * s->n_heads + h) * dim, dim * sizeof *q);
        if (is_rotated) rotate_values(q, dim);
        for (size_t i = 0; i < dim; i++) sum += (double)q[i] * q[i];
        s->q_norm[h] = (float)(sqrt(sum) * (1 + 1e-6)) * fabsf(s->scale);
    }
}

static void multiply_centres(selection *s, const attn_kernels *k)
{
    const int32_t n = s->end - s->first;
    for (int32_t b = s->first; b < s->end; b++) {
        const float factor = s->scale * figures_of(s, b)->scale;
        k->centre(attn_centre(s->layer, s->row->table[b], s->kv_head), s->head_dim, s->q, (size_t)s->head_dim,
                  s->n_heads, s->dot);
        for (int h = 0; h < s->n_heads; h++) s->x[h * n + b - s->first] = s->dot[h] * factor;
    }
}

static float centre_logit(const selection *s, int h, int32_t b)
{
    return s->x[h * (s->end - s->first) + b - s->first];
}

/* Above the logits of the block's keys for head h. */
static float upper_logit(const selection *s, int h, int32_t b)
{
    const block_figures *f = figures_of(s, b);
    return centre_logit(s, h, b) + s->q_norm[h] * (f->radius + ROUNDING * (f->norm + f->radius));
}

/* Logarithm of the mean of exp(logit) over its keys, as a guess. */
static float mean_logit(const selection *s, int h, int32_t b)
{
    const float sigma = s->q_norm[h] * figures_of(s, b)->spread;
    return fminf(centre_logit(s, h, b) + 2 * sigma * sigma / (float)s->head_dim, upper_logit(s, h, b));
}

/* ---- the rules ---- */

/* Every comparison is made so that a NaN keeps the block. */
static void keep_from(selection *s, int h, float least, float (*figure)(const selection *, int, int32_t))
{
    for (int32_t b = s->first; b < s->end; b++)
        if (!(figure(s, h, b) < least)) set_block(s->mask, b);
}

static void by_alpha(selection *s, int h)
{
    float max = -INFINITY;
    for (int i = 0; i < s->n_probed; i++) max = fmaxf(max, s->means[h * s->n_probed + i]);
    for (int32_t b = s->first; b < s->end; b++) max = fmaxf(max, centre_logit(s, h, b));
    keep_from(s, h, max + logf(s->rule->threshold), centre_logit);
}

static float log_mass(const float z[2])
{
    return z[0] + logf(z[1]);
}

static void by_mass(selection *s, int h)
{
    const float share = s->rule->threshold / (float)(SPARSE_BLOCK * (s->end - s->first));
    keep_from(s, h, log_mass(s->z + 2 * h) + logf(share), mean_logit);
}

static void by_share(selection *s, int h)
{
    float max = log_mass(s->z + 2 * h) - logf((float)(s->n_probed * SPARSE_BLOCK));
    for (int32_t b = s->first; b < s->end; b++) max = fmaxf(max, mean_logit(s, h, b));
    keep_from(s, h, max + logf(s->rule->threshold), mean_logit);
}

/* Adds exp(x) to a sum held as (max, sum). */
static void add_exp(float z[2], float x)
{
    const float part[2] = {x, 1};
    if (x <= z[0]) {
        z[1] += expf(x - z[0]);
        return;
    }
    z[1] = z[0] == -INFINITY ? part[1] : z[1] * expf(z[0] - x) + part[1];
    z[0] = x;
}

/* Blocks are put into bins by the logarithm of their share, a quarter of a bit wide; the bins are kept from the largest
 * on until what they hold is enough. */
static void by_top(selection *s, int h)
{
    enum { BINS = 96 };
    const float block = logf(SPARSE_BLOCK), width = 0.25f * 0.69314718f;
    float total[2] = {s->z[2 * h], s->z[2 * h + 1]}, bin[BINS] = {0};
    for (int32_t b = s->first; b < s->end; b++) add_exp(total, mean_logit(s, h, b) + block);
    const float all = log_mass(total);
    for (int32_t b = s->first; b < s->end; b++) {
        const float p = mean_logit(s, h, b) + block - all; /* at most 0 */
        const int i = p < -width * (BINS - 1) ? BINS - 1 : (int)(-p / width);
        bin[i < 0 ? 0 : i] += expf(p);
    }
    float held = expf(log_mass(s->z + 2 * h) - all);
    int i = -1;
    while (held < 1 - s->rule->threshold && i < BINS - 2) held += bin[++i];
    if (held < 1 - s->rule->threshold)
        keep_from(s, h, -INFINITY, mean_logit);
    else if (i >= 0)
        keep_from(s, h, all - block - (float)(i + 1) * width, mean_logit);
}

/* ---- the result ---- */

static void count(const selection *s, attn_choice *c)
{
    *c = (attn_choice){.n_blocks = s->n_blocks, .n_probed = s->n_probed};
    for (int32_t b = 0; b < s->n_blocks; b++) c->n_selected += has_block(s->mask, b);
    c->is_dense = (float)c->n_selected > s->rule->cap * (float)s->n_blocks;
    if (!c->is_dense) return;
    for (int32_t b = 0; b < s->n_blocks; b++) set_block(s->mask, b);
    c->n_selected = s->n_blocks;
}

static void weigh_left_out(const selection *s, int h, attn_left_out *out)
{
    const float block = logf(SPARSE_BLOCK);
    float bound[2] = {-INFINITY, 0}, estimate[2] = {-INFINITY, 0}, longest = 0;
    *out = (attn_left_out){.bound = -INFINITY, .estimate = -INFINITY};
    for (int32_t b = s->first; b < s->end; b++) {
        const block_figures *f = figures_of(s, b);
        longest = fmaxf(longest, f->norm + f->radius);
        if (has_block(s->mask, b)) continue;
        add_exp(bound, upper_logit(s, h, b) + block);
        add_exp(estimate, mean_logit(s, h, b) + block);
        out->v_max = fmaxf(out->v_max, f->v_max);
    }
    out->slack = s->q_norm[h] * longest * ROUNDING;
    if (bound[1] > 0) out->bound = log_mass(bound);
    if (estimate[1] > 0) out->estimate = log_mass(estimate);
}

static selection open_selection(const attn_work *w, const sparse_rule *rule, const attn_row *row, int kv_head,
                                float *scratch, uint8_t *mask)
{
    const kv_layer_desc *d = &w->layer->desc;
    selection s = {.layer = w->layer, .row = row, .rule = rule, .kv_head = kv_head, .head_dim = d->head_dim};
    s.n_heads = w->n_heads / d->n_kv_heads;
    s.scale = w->scale;
    s.n_blocks = sparse_n_blocks(row->pos + 1);
    attn_select_range(rule, row, &s.first, &s.end);
    s.n_probed = (int)(s.n_blocks - (s.end - s.first));
    s.mask = mask;
    s.q = scratch;
    s.q_norm = s.q + (size_t)s.n_heads * (size_t)s.head_dim;
    s.z = s.q_norm + s.n_heads;
    s.dot = s.z + 2 * s.n_heads;
    s.means = s.dot + s.n_heads;
    s.x = s.means + s.n_heads * MAX_PROBED;
    assert(s.n_probed <= MAX_PROBED && rule->window >= SPARSE_MIN_WINDOW);
    return s;
}

void attn_select(const attn_work *w, const attn_kernels *k, const sparse_rule *rule, const attn_row *row, int kv_head,
                 float *scratch, uint8_t *mask, attn_left_out *left_out, attn_choice *choice)
{
    selection s = open_selection(w, rule, row, kv_head, scratch, mask);
    probe(&s, w, k);
    copy_queries(&s);
    multiply_centres(&s, k);
    for (int h = 0; h < s.n_heads; h++) switch (rule->kind) {
        case SPARSE_ALPHA: by_alpha(&s, h); break;
        case SPARSE_SHARE: by_share(&s, h); break;
        case SPARSE_TOP: by_top(&s, h); break;
        default: by_mass(&s, h);
        }
    count(&s, choice);
    for (int h = 0; h < s.n_heads; h++) weigh_left_out(&s, h, &left_out[h]);
}

float attn_dropped(const float state[2], float log_left_out, float slack)
{
    if (log_left_out == -INFINITY) return 0;
    const float read = state[0] + logf(state[1]) - slack;
    return 1 / (1 + expf(read - log_left_out));
}

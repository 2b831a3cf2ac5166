#include "compute/cpu/attn_select.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/rotate.h"

/* A dot product of up to 512 values in float: its error is below this part of the product of the lengths, in whatever
 * order it was summed. */
#define ROUNDING 4e-5f

enum { MAX_PROBED = 64, BALLS = KV_SUMMARY_BALLS };

typedef struct selection {
    const attn_layer *layer;
    const attn_row *row;
    const sparse_rule *rule;
    int kv_head, n_heads, head_dim;
    bool is_rotated; /* keys are */
    float scale;
    int32_t n_blocks, first, end, n; /* candidates: [first, end), n of them */
    int n_probed;
    float *q, *q_norm; /* [head][head_dim], [head]: |scale| |q| */
    float *z, *dot;    /* [head][max, sum], [ball][head] */
    float *means;      /* [head][probed block] */
    /* [head][candidate]: mean logit; logarithms of the mass by estimate, and at most */
    float *mean, *mass, *bound;
    float log_n[SPARSE_BLOCK + 1];
    uint8_t *mask;
} selection;

size_t attn_select_floats(int heads_per_kv, int head_dim, int64_t n_blocks)
{
    return (size_t)heads_per_kv * ((size_t)head_dim + 3 + BALLS + MAX_PROBED + 3 * (size_t)n_blocks);
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

static size_t n_splits(int32_t n_blocks)
{
    return (size_t)((n_blocks + ATTN_SPLIT_BLOCKS - 1) / ATTN_SPLIT_BLOCKS);
}

int32_t attn_complement(const attn_row *row, const uint8_t *mask, uint8_t *out)
{
    const int32_t n = sparse_n_blocks(row->pos + 1);
    int32_t n_out = 0;
    memset(out, 0, n_splits(n));
    for (int32_t b = 0; b < n; b++) {
        if (has_block(mask, b)) continue;
        set_block(out, b);
        n_out++;
    }
    return n_out;
}

/* ---- what is known of the blocks ---- */

/* Sink and window: exact, and read again in the attention that follows, from a nearby cache. */
static void probe(selection *s, const attn_work *w, const attn_kernels *k)
{
    attn_row row = *s->row;
    memset(s->mask, 0, n_splits(s->n_blocks));
    for (int32_t b = 0; b < s->n_blocks; b++)
        if (b < s->first || b >= s->end) set_block(s->mask, b);
    row.blocks = s->mask;
    row.blocks_stride = 0; /* the same for any KV head */
    k->probe(w, &row, s->kv_head, s->z, s->means, s->n_probed);
}

static void copy_queries(selection *s)
{
    const size_t dim = (size_t)s->head_dim;
    for (int h = 0; h < s->n_heads; h++) {
        float *q = s->q + (size_t)h * dim;
        double sum = 0;
        memcpy(q, s->row->q + (size_t)(s->kv_head * s->n_heads + h) * dim, dim * sizeof *q);
        if (s->is_rotated) rotate_values(q, dim);
        for (size_t i = 0; i < dim; i++) sum += (double)q[i] * (double)q[i];
        s->q_norm[h] = (float)(sqrt(sum) * (1 + 1e-6)) * fabsf(s->scale);
    }
}

/* Logarithm of a sum whose terms' logarithms are a[]. Terms below e^-3 of the largest do not count, which saves most of
 * the exponentials: LOST covers three of them. */
#define NEAR 3.0f
#define LOST 0.14f

static float log_sum(const float a[BALLS])
{
    float max = a[0], sum = 0;
    int n = 0;
    for (int i = 1; i < BALLS; i++) max = a[i] > max ? a[i] : max;
    for (int i = 0; i < BALLS; i++) n += a[i] > max - NEAR;
    if (n == 1) return max;
    for (int i = 0; i < BALLS; i++)
        if (a[i] > max - NEAR) sum += expf(a[i] - max);
    return max + logf(sum);
}

/* What is known of candidate i for head h, from the products of its centres; NaN where a figure is not finite. */
static void judge(selection *s, int h, int32_t i, const block_figures *f)
{
    const size_t at = (size_t)h * (size_t)s->n + (size_t)i;
    float mass[BALLS], bound[BALLS], mean = 0, odd = 0;
    for (int j = 0; j < BALLS; j++) {
        const key_ball *b = &f->ball[j];
        const float x = s->scale * b->scale * s->dot[j * s->n_heads + h], sigma = s->q_norm[h] * b->spread;
        const float u = x + s->q_norm[h] * (b->radius + ROUNDING * (b->norm + b->radius)), n = s->log_n[(int)b->n];
        mean += x * b->n * (1.0f / SPARSE_BLOCK);
        const float likely = x + 2 * sigma * sigma / (float)s->head_dim;
        mass[j] = n + (likely < u ? likely : u);
        bound[j] = n + u;
        odd += u - u;
    }
    s->mean[at] = mean + odd;
    s->mass[at] = log_sum(mass) + odd;
    s->bound[at] = log_sum(bound) + LOST + odd;
}

static void judge_all(selection *s, const attn_kernels *k)
{
    s->log_n[0] = -INFINITY;
    for (int n = 1; n <= SPARSE_BLOCK; n++) s->log_n[n] = logf((float)n);
    for (int32_t b = s->first; b < s->end; b++) {
        const int32_t page = s->row->table[b];
        const int8_t *centre = attn_centres(s->layer, page, s->kv_head);
        for (int j = 0; j < BALLS; j++, centre += s->head_dim)
            k->centre(centre, s->head_dim, s->q, (size_t)s->head_dim, s->n_heads, s->dot + j * s->n_heads);
        for (int h = 0; h < s->n_heads; h++) judge(s, h, b - s->first, attn_figures(s->layer, page, s->kv_head));
    }
}

/* ---- the rules ---- */

/* Keeps the candidates whose figure is not below `least`, and those of which nothing is known. */
static void keep_from(selection *s, const float *figure, float least)
{
    for (int32_t i = 0; i < s->n; i++)
        if (!(figure[i] < least)) set_block(s->mask, s->first + i);
}

static float largest(const selection *s, const float *figure, float max)
{
    for (int32_t i = 0; i < s->n; i++) max = fmaxf(max, figure[i]);
    return max;
}

static float log_mass(const float z[2])
{
    return z[0] + logf(z[1]);
}

/* Adds exp(x) to a sum held as (max, sum). */
static void add_exp(float z[2], float x)
{
    if (x <= z[0]) {
        z[1] += expf(x - z[0]);
        return;
    }
    z[1] = z[0] == -INFINITY ? 1 : z[1] * expf(z[0] - x) + 1;
    z[0] = x;
}

static void by_alpha(selection *s, int h, const float *mean)
{
    float max = -INFINITY;
    for (int i = 0; i < s->n_probed; i++) max = fmaxf(max, s->means[h * s->n_probed + i]);
    keep_from(s, mean, largest(s, mean, max) + logf(s->rule->threshold));
}

static void by_share(selection *s, int h, const float *mass)
{
    const float probed = log_mass(s->z + 2 * h) - logf((float)s->n_probed);
    keep_from(s, mass, largest(s, mass, probed) + logf(s->rule->threshold));
}

/* Blocks are put into bins by the logarithm of their share, a quarter of a bit wide; the bins are kept from the largest
 * on until what they hold is enough. */
static void by_mass(selection *s, int h, const float *mass)
{
    enum { BINS = 96 };
    const float width = 0.25f * 0.69314718f, wanted = 1 - s->rule->threshold;
    float total[2] = {s->z[2 * h], s->z[2 * h + 1]}, bin[BINS] = {0};
    for (int32_t i = 0; i < s->n; i++) add_exp(total, mass[i]);
    const float all = log_mass(total);
    float held = expf(log_mass(s->z + 2 * h) - all);
    int n = 0;
    for (int32_t i = 0; i < s->n && all < INFINITY; i++) {
        const float p = fminf(mass[i] - all, 0);
        bin[p < -width * (BINS - 1) ? BINS - 1 : (int)(-p / width)] += expf(p);
    }
    while (held < wanted && n < BINS - 1) held += bin[n++];
    if (!(held >= wanted))
        keep_from(s, mass, -INFINITY);
    else if (n > 0)
        keep_from(s, mass, all - (float)n * width);
}

static void by_rule(selection *s, int h)
{
    const size_t at = (size_t)h * (size_t)s->n;
    switch (s->rule->kind) {
    case SPARSE_ALPHA: by_alpha(s, h, s->mean + at); break;
    case SPARSE_SHARE: by_share(s, h, s->mass + at); break;
    default: by_mass(s, h, s->mass + at);
    }
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

/* No key of the block is longer. */
static float longest_key(const block_figures *f)
{
    float max = 0;
    for (int j = 0; j < BALLS; j++) max = fmaxf(max, f->ball[j].norm + f->ball[j].radius);
    return max;
}

static void weigh_left_out(const selection *s, int h, attn_left_out *out)
{
    const size_t at = (size_t)h * (size_t)s->n;
    float bound[2] = {-INFINITY, 0}, estimate[2] = {-INFINITY, 0}, longest = 0;
    *out = (attn_left_out){.bound = -INFINITY, .estimate = -INFINITY};
    for (int32_t b = s->first; b < s->end; b++) {
        const block_figures *f = attn_figures(s->layer, s->row->table[b], s->kv_head);
        longest = fmaxf(longest, longest_key(f));
        if (has_block(s->mask, b)) continue;
        add_exp(bound, s->bound[at + (size_t)(b - s->first)]);
        add_exp(estimate, s->mass[at + (size_t)(b - s->first)]);
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
    const int n_heads = w->n_heads / d->n_kv_heads;
    selection s = {.layer = w->layer, .row = row, .rule = rule, .kv_head = kv_head, .n_heads = n_heads};
    s.head_dim = d->head_dim;
    s.scale = w->scale;
    s.is_rotated = !w->rebuild && kv_type_get(d->k_type)->is_rotated;
    s.mask = mask;
    s.n_blocks = sparse_n_blocks(row->pos + 1);
    attn_select_range(rule, row, &s.first, &s.end);
    s.n = s.end - s.first;
    s.n_probed = (int)(s.n_blocks - s.n);
    assert(row->begin == 0 && s.n > 0 && s.n_probed <= MAX_PROBED && rule->window >= SPARSE_MIN_WINDOW);
    s.q = scratch;
    s.q_norm = s.q + (size_t)n_heads * (size_t)s.head_dim;
    s.z = s.q_norm + n_heads;
    s.dot = s.z + 2 * n_heads;
    s.means = s.dot + BALLS * n_heads;
    s.mean = s.means + MAX_PROBED * n_heads;
    s.mass = s.mean + (size_t)n_heads * (size_t)s.n;
    s.bound = s.mass + (size_t)n_heads * (size_t)s.n;
    return s;
}

void attn_select(const attn_work *w, const attn_kernels *k, const sparse_rule *rule, const attn_row *row, int kv_head,
                 float *scratch, uint8_t *mask, attn_left_out *left_out, attn_choice *choice)
{
    selection s = open_selection(w, rule, row, kv_head, scratch, mask);
    probe(&s, w, k);
    copy_queries(&s);
    judge_all(&s, k);
    for (int h = 0; h < s.n_heads; h++) by_rule(&s, h);
    count(&s, choice);
    for (int h = 0; h < s.n_heads; h++) weigh_left_out(&s, h, &left_out[h]);
}

float attn_dropped(const float state[2], float log_left_out, float slack)
{
    if (log_left_out == -INFINITY) return 0;
    return 1 / (1 + expf(log_mass(state) - slack - log_left_out));
}

/* test_attn_sparse.c: attention over chosen blocks: kernels that read what a row names and nothing else, summaries,
 * rules, and certificates that hold against float64. */
#include "testing.h"

#include "compute/attn_sets.h"
#include "compute/sparse_world.h"

/* The logits of all heads of a row. */
typedef struct truth {
    int n_heads;
    double *head[64];
} truth;

static truth truth_open(const attn_work *w, const attn_row *row)
{
    const kv_layer_desc *d = &w->layer->desc;
    const int per_kv = w->n_heads / d->n_kv_heads;
    truth t = {.n_heads = w->n_heads};
    for (int kv = 0; kv < d->n_kv_heads; kv++) {
        float *keys = exact_rows(w->layer, row->table, row->pos + 1, kv, false);
        for (int h = kv * per_kv; h < (kv + 1) * per_kv; h++) t.head[h] = exact_scores(w, row, h, keys);
        free(keys);
    }
    return t;
}

static void truth_close(truth *t)
{
    for (int h = 0; h < t->n_heads; h++) free(t->head[h]);
}

/* ---- kernels over masks ---- */

/* Each block with a probability of 1 / odds, and one at least. */
static void random_mask(rng *r, const attn_row *row, uint32_t odds, uint8_t *mask, size_t n_splits)
{
    const int32_t n = sparse_n_blocks(row->pos + 1);
    memset(mask, 0, n_splits);
    for (int32_t b = 0; b < n; b++)
        if (rng_below(r, odds) == 0) mask[b / 8] = (uint8_t)(mask[b / 8] | 1u << b % 8);
    const int32_t b = (int32_t)rng_below(r, (uint32_t)n);
    mask[b / 8] = (uint8_t)(mask[b / 8] | 1u << b % 8);
}

typedef struct masked_rows {
    attn_rows rows;
    uint8_t *masks;
    float *states;
} masked_rows;

static masked_rows masked_open(const sparse_world *w, rng *r, int n)
{
    masked_rows m = {.rows = rows_open(&w->w, r, n)};
    const size_t stride = (size_t)w->n_splits, row = (size_t)w->w.s.n_kv_heads * stride;
    const size_t heads = (size_t)(w->w.s.n_kv_heads * w->w.s.heads_per_kv);
    m.masks = malloc((size_t)n * row);
    m.states = malloc((size_t)n * heads * 2 * sizeof *m.states);
    for (int i = 0; i < n; i++) {
        attn_row *x = &m.rows.row[i];
        x->pos -= (int32_t)rng_below(r, (uint32_t)w->w.s.n_slots);
        x->blocks = m.masks + (size_t)i * row;
        x->blocks_stride = stride;
        x->state = m.states + (size_t)i * heads * 2;
        for (int h = 0; h < w->w.s.n_kv_heads; h++)
            random_mask(r, x, 1 + rng_below(r, 6), m.masks + (size_t)i * row + (size_t)h * stride, stride);
    }
    return m;
}

static void masked_close(masked_rows *m)
{
    rows_close(&m->rows);
    free(m->masks);
    free(m->states);
}

static shape random_shape(rng *r)
{
    static const int dims[] = {128, 256, 512};
    return (shape){.head_dim = dims[rng_below(r, 3)],
                   .n_kv_heads = 1 + (int)rng_below(r, 2),
                   .heads_per_kv = 1 + (int)rng_below(r, rng_below(r, 2) ? 16 : 8),
                   .k = TYPES[rng_below(r, N_TYPES)],
                   .v = TYPES[rng_below(r, N_TYPES)],
                   .n_slots = 2 + (int)rng_below(r, rng_below(r, 3) ? 700 : 2000)};
}

static void test_masks(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 25; i++) {
        sparse_world w = sparse_open(&r, random_shape(&r), 0.5f, 0.5f);
        masked_rows m = masked_open(&w, &r, 3);
        const attn_work work = world_work(&w.w, 0);
        float *want = malloc(m.rows.floats * sizeof *want);
        for (int s = 0; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, m.rows.row, m.rows.n);
            for (int j = 0; j < m.rows.n; j++) {
                const attn_row *row = &m.rows.row[j];
                truth t = truth_open(&work, row);
                for (int h = 0; h < work.n_heads; h++) {
                    const uint8_t *mask = attn_row_blocks(row, h / w.w.s.heads_per_kv);
                    const double *logits = t.head[h];
                    const double max = exact_max(logits, row->pos + 1);
                    const double z = max + log(exact_mass(logits, row->pos + 1, max, mask, true));
                    exact_output(&work, row, h, logits, mask, want + h * w.w.s.head_dim);
                    assert_true(fabs((double)row->state[2 * h] + log((double)row->state[2 * h + 1]) - z) < 2e-4);
                }
                truth_close(&t);
                const double e = far(row->out, want, m.rows.floats);
                if (!(e < 2e-5))
                    fail_msg("%s, case %d: %.2e at pos %d of %d", sets[s].name, i, e, row->pos, w.w.s.n_slots);
            }
        }
        free(want);
        masked_close(&m);
        sparse_close(&w);
    }
}

/* What no row reads may be anything; and a row's bits do not depend on the others, nor on the way it is cut. */
static void test_mask_bits(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 2);
    for (int i = 0; i < 40; i++) {
        sparse_world w = sparse_open(&r, random_shape(&r), 0.5f, 0.5f);
        masked_rows m = masked_open(&w, &r, 1 + (int)rng_below(&r, 64));
        const attn_work work = world_work(&w.w, 0);
        const size_t row_bytes = m.rows.floats * sizeof(float);
        float *want = malloc((size_t)m.rows.n * row_bytes);
        for (int s = n_sets > 1; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, m.rows.row, m.rows.n);
            memcpy(want, m.rows.out, (size_t)m.rows.n * row_bytes);
            for (int j = 0; j < m.rows.n; j++) {
                rows_run(sets[s].kernels, &work, &m.rows.row[j], 1);
                if (memcmp(m.rows.row[j].out, want + (size_t)j * m.rows.floats, row_bytes))
                    fail_msg("%s, case %d: row %d of %d alone differs", sets[s].name, i, j, m.rows.n);
            }
        }
        /* blocks that row 0 leaves out for every head become NaN or huge, row 0 by itself is the same */
        attn_row *row = m.rows.row;
        for (int32_t b = 0; b < w.w.n_pages; b++) {
            bool is_read = false;
            for (int h = 0; h < w.w.s.n_kv_heads; h++)
                is_read |= sparse_reads(attn_row_blocks(row, h), b * KV_PAGE_LEN);
            if (!is_read)
                memset(w.w.layer.pages + (size_t)w.w.table[b] * w.w.layer.page_bytes, 0xff, w.w.layer.page_bytes);
        }
        for (int s = n_sets > 1; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, row, 1);
            if (s == n_sets - 1) assert_memory_equal(row->out, want, row_bytes);
        }
        free(want);
        masked_close(&m);
        sparse_close(&w);
    }
}

/* All blocks named: the bits of a row that names none. */
static void test_full_mask(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 20; i++) {
        sparse_world w = sparse_open(&r, random_shape(&r), 0.5f, 0.5f);
        masked_rows m = masked_open(&w, &r, 1);
        const attn_work work = world_work(&w.w, 0);
        float *want = malloc(m.rows.floats * sizeof *want);
        uint8_t none[64] = {0};
        for (int h = 0; h < w.w.s.n_kv_heads; h++)
            attn_complement(m.rows.row, none, m.masks + (size_t)h * (size_t)w.n_splits);
        for (int s = 0; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, m.rows.row, 1);
            memcpy(want, m.rows.out, m.rows.floats * sizeof *want);
            attn_row plain = m.rows.row[0];
            plain.blocks = NULL;
            rows_run(sets[s].kernels, &work, &plain, 1);
            assert_memory_equal(want, m.rows.out, m.rows.floats * sizeof *want);
        }
        free(want);
        masked_close(&m);
        sparse_close(&w);
    }
}

static void test_probe(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 4);
    for (int i = 0; i < 30; i++) {
        sparse_world w = sparse_open(&r, random_shape(&r), 0.5f, 0.5f);
        masked_rows m = masked_open(&w, &r, 1);
        const attn_work work = world_work(&w.w, 0);
        const attn_row *row = m.rows.row;
        const int n = row->pos + 1, per_kv = w.w.s.heads_per_kv;
        truth t = truth_open(&work, row);
        for (int s = 0; s < n_sets; s++)
            for (int kv = 0; kv < w.w.s.n_kv_heads; kv++) {
                const uint8_t *mask = attn_row_blocks(row, kv);
                float z[16 * 2], means[16 * 64];
                int n_means = 0;
                for (int32_t b = 0; b < sparse_n_blocks(n); b++) n_means += sparse_reads(mask, b * KV_PAGE_LEN);
                sets[s].kernels.probe(&work, row, kv, z, means, n_means);
                for (int h = 0; h < per_kv; h++) {
                    const double *logits = t.head[kv * per_kv + h];
                    const double max = exact_max(logits, n);
                    const double mass = max + log(exact_mass(logits, n, max, mask, true));
                    assert_true(fabs((double)z[2 * h] + log((double)z[2 * h + 1]) - mass) < 2e-4);
                    for (int b = 0, at = 0; b < sparse_n_blocks(n); b++) {
                        const int lo = b * KV_PAGE_LEN, hi = lo + KV_PAGE_LEN < n ? lo + KV_PAGE_LEN : n;
                        double sum = 0;
                        if (!sparse_reads(mask, lo)) continue;
                        for (int p = lo; p < hi; p++) sum += logits[p];
                        assert_true(fabs((double)means[h * n_means + at++] - sum / (hi - lo)) < 1e-4);
                    }
                }
            }
        truth_close(&t);
        masked_close(&m);
        sparse_close(&w);
    }
}

/* ---- summaries ---- */

enum { DIM = 256 };

/* Every key lies in some ball of its page, in as many as they say; radii and spreads are no larger than need be. */
static void check_summary(const attn_layer *l, int32_t page, int kv_head)
{
    const block_figures *f = attn_figures(l, page, kv_head);
    const int8_t *c = attn_centres(l, page, kv_head);
    float x[DIM];
    double v_max = 0, mean_error = 0, mean[DIM] = {0};
    float n = 0;
    for (int slot = 0; slot < KV_PAGE_LEN; slot++) {
        double v = 0;
        bool is_in = false;
        attn_get_k(l, page, slot, kv_head, x);
        for (int j = 0; j < DIM; j++) mean[j] += (double)x[j] / KV_PAGE_LEN;
        for (int b = 0; b < KV_SUMMARY_BALLS; b++) {
            double d = 0;
            for (int j = 0; j < DIM; j++) d += pow((double)x[j] - (double)f->ball[b].scale * c[b * DIM + j], 2);
            is_in |= f->ball[b].n > 0 && sqrt(d) <= (double)f->ball[b].radius;
        }
        assert_true(is_in);
        attn_get_v(l, page, slot, kv_head, x);
        for (int j = 0; j < DIM; j++) v += (double)x[j] * (double)x[j];
        v_max = fmax(v_max, sqrt(v));
    }
    assert_true((double)f->v_max >= v_max && (double)f->v_max < v_max * 1.00001);
    for (int b = 0; b < KV_SUMMARY_BALLS; b++) {
        const key_ball *ball = &f->ball[b];
        double norm = 0, worst = 0;
        for (int j = 0; j < DIM; j++) {
            const double stored = (double)ball->scale * c[b * DIM + j];
            norm += stored * stored;
            mean[j] -= stored * (double)ball->n / KV_PAGE_LEN;
            worst += (double)(ball->scale * ball->n) / KV_PAGE_LEN / DIM;
        }
        mean_error += 0.51 * worst;
        assert_true(fabs((double)ball->norm - sqrt(norm)) <= 1e-5 * sqrt(norm));
        if (!(ball->spread <= ball->radius) ||
            (ball->n == 1 && ball->spread < 0.999f * ball->radius - 2e-7f * ball->norm))
            fail_msg("a ball of %g keys, radius %g, spread %g", (double)ball->n, (double)ball->radius,
                     (double)ball->spread);
        n += ball->n;
    }
    assert_true(n == KV_PAGE_LEN);
    for (int j = 0; j < DIM; j++) assert_true(fabs(mean[j]) <= mean_error + 1e-6);
}

static void test_summaries(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < 2 * N_TYPES; i++) {
        const shape s = {DIM, 2, 1, TYPES[i % N_TYPES], TYPES[(i + 3) % N_TYPES], 3 * KV_PAGE_LEN};
        sparse_world w = sparse_open(&r, s, 1.0f, i < N_TYPES ? 1.0f : 0.05f);
        const attn_layer *l = &w.w.layer;
        for (int32_t b = 0; b < 3; b++)
            for (int h = 0; h < 2; h++) {
                attn_summary_make(l, NULL, w.w.table[b], b, w.w.scratch);
                check_summary(l, w.w.table[b], h);
            }
        /* a key that stands out gets a ball of its own */
        const int32_t page = w.w.table[1];
        const block_figures before = *attn_figures(l, page, 0);
        float far[DIM], *near = world_floats(&r, DIM, 0.01f);
        for (int j = 0; j < DIM; j++) far[j] = j % 3 ? 5.0f : -4.0f;
        attn_put_k(l, page, 17, 0, far);
        attn_summary_make(l, NULL, page, 1, w.w.scratch); /* it was not told */
        assert_memory_equal(&before, attn_figures(l, page, 0), sizeof before);
        attn_summary_forget(l, page);
        attn_summary_make(l, NULL, page, 1, w.w.scratch);
        check_summary(l, page, 0);
        check_summary(l, page, 1);
        assert_true(attn_figures(l, page, 0)->ball[1].n == 1 && attn_figures(l, page, 0)->ball[1].radius < 0.6f);
        /* equal keys: one ball is enough */
        for (int slot = 0; slot < KV_PAGE_LEN; slot++) attn_put_k(l, page, slot, 0, near);
        attn_summary_forget(l, page);
        attn_summary_make(l, NULL, page, 1, w.w.scratch);
        check_summary(l, page, 0);
        free(near);
        sparse_close(&w);
    }
}

/* ---- rules and certificates ---- */

typedef struct selected {
    uint8_t mask[64];
    attn_left_out left[16];
    attn_choice choice;
} selected;

static selected run_select(const sparse_world *w, const attn_work *work, const kernel_set *set, const sparse_rule *rule,
                           const attn_row *row, int kv)
{
    selected s;
    sparse_summarise(w, rule, row);
    attn_select(work, &set->kernels, rule, row, kv, w->select, s.mask, s.left, &s.choice);
    return s;
}

/* The state that attention over the mask would report. */
static void run_state(const attn_work *work, const kernel_set *set, attn_row row, const uint8_t *mask, int kv, float *z)
{
    row.blocks = mask;
    row.blocks_stride = 0;
    set->kernels.probe(work, &row, kv, z, NULL, 0);
}

static const sparse_rule RULES[] = {
    {SPARSE_ALPHA, .threshold = 0.3f, .sink = 2, .window = 4, .cap = 1, .hard = 1},
    {SPARSE_MASS, .threshold = 1e-3f, .sink = 2, .window = 8, .cap = 1, .hard = 1},
    {SPARSE_MASS, .threshold = 0.3f, .sink = 1, .window = 2, .cap = 1, .hard = 1},
    {SPARSE_MASS, .threshold = 0.05f, .sink = 2, .window = 4, .cap = 1, .hard = 1},
    {SPARSE_SHARE, .threshold = 0.1f, .sink = 2, .window = 4, .cap = 1, .hard = 1},
};
enum { N_RULES = sizeof RULES / sizeof *RULES };

/* The certificate is never below what was dropped, whatever the keys, the rule, the type and the length are; sink and
 * window are read; the count is that of the mask. */
static void test_certificates(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 6);
    int n_dropping = 0, n_tight = 0;
    for (int i = 0; i < 120; i++) {
        shape s = random_shape(&r);
        s.n_slots = 900 + (int)rng_below(&r, 1100);
        const sparse_rule *rule = &RULES[i % N_RULES];
        const float noise = i / N_RULES % 3 == 0 ? 1.0f : i / N_RULES % 3 == 1 ? 0.3f : 0.02f;
        sparse_world w = sparse_open(&r, s, 1.0f, noise);
        attn_rows rows = rows_open(&w.w, &r, 1);
        for (size_t j = 0; j < rows.floats; j++) rows.q[j] *= 2;
        const attn_work work = world_work(&w.w, 0);
        const int n = rows.row->pos + 1;
        truth t = truth_open(&work, rows.row);
        for (int set = 0; set < n_sets; set++)
            for (int kv = 0; kv < s.n_kv_heads; kv++) {
                const selected got = run_select(&w, &work, &sets[set], rule, rows.row, kv);
                float z[16 * 2];
                int32_t n_read = 0;
                for (int32_t b = 0; b < sparse_n_blocks(n); b++) {
                    const bool is_read = sparse_reads(got.mask, b * KV_PAGE_LEN);
                    if (b < rule->sink || b >= sparse_n_blocks(n) - rule->window) assert_true(is_read);
                    n_read += is_read;
                }
                assert_int_equal(n_read, got.choice.n_selected);
                assert_int_equal(got.choice.n_blocks, sparse_n_blocks(n));
                run_state(&work, &sets[set], *rows.row, got.mask, kv, z);
                for (int h = 0; h < s.heads_per_kv; h++) {
                    const double *logits = t.head[kv * s.heads_per_kv + h];
                    const double dropped = exact_dropped(logits, n, got.mask);
                    const double bound = (double)attn_dropped(z + 2 * h, got.left[h].bound, got.left[h].slack);
                    if (!(dropped <= bound))
                        fail_msg("%s, case %d, rule %d: head %d dropped %.9g, certificate %.9g", sets[set].name, i,
                                 (int)rule->kind, h, dropped, bound);
                    n_dropping += dropped > 0;
                    n_tight += dropped > 0 && bound < 10 * dropped;
                }
            }
        truth_close(&t);
        rows_close(&rows);
        sparse_close(&w);
    }
    print_message("%d heads dropped something; for %d of them the certificate is within 10 times\n", n_dropping,
                  n_tight);
    assert_true(n_dropping > 500 && n_tight > 50);
}

/* Block-alpha by its formula, in float64 from the decoded keys; a block that lies at the threshold may go either way
 * (centres are stored with 8 bits). */
static void test_alpha(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 7);
    int n_kept = 0, n_left = 0;
    for (int i = 0; i < 30; i++) {
        shape s = random_shape(&r);
        s.n_slots = 800 + (int)rng_below(&r, 1100);
        sparse_world w = sparse_open(&r, s, 1.0f, 0.5f);
        attn_rows rows = rows_open(&w.w, &r, 1);
        const attn_work work = world_work(&w.w, 0);
        const int n = rows.row->pos + 1, n_blocks = sparse_n_blocks(n);
        const double alpha = 0.05 + 0.1 * (i % 5), margin = 0.05;
        const sparse_rule rule = {SPARSE_ALPHA, .threshold = (float)alpha, .sink = 2, .window = 4, .cap = 1, .hard = 1};
        truth t = truth_open(&work, rows.row);
        for (int set = 0; set < n_sets; set++)
            for (int kv = 0; kv < s.n_kv_heads; kv++) {
                const selected got = run_select(&w, &work, &sets[set], &rule, rows.row, kv);
                double best[64]; /* the largest e_b of the heads */
                for (int b = 0; b < n_blocks; b++) best[b] = 0;
                for (int h = 0; h < s.heads_per_kv; h++) {
                    const double *logits = t.head[kv * s.heads_per_kv + h];
                    double x[64], max = -INFINITY;
                    for (int b = 0; b < n_blocks; b++) {
                        const int lo = b * KV_PAGE_LEN, hi = lo + KV_PAGE_LEN < n ? lo + KV_PAGE_LEN : n;
                        x[b] = 0;
                        for (int p = lo; p < hi; p++) x[b] += logits[p] / (hi - lo);
                        max = fmax(max, x[b]);
                    }
                    for (int b = 0; b < n_blocks; b++) best[b] = fmax(best[b], exp(x[b] - max));
                }
                for (int b = 2; b < n_blocks - 4; b++) {
                    const bool is_read = sparse_reads(got.mask, b * KV_PAGE_LEN);
                    if (fabs(best[b] / alpha - 1) < margin) continue;
                    if (is_read != (best[b] >= alpha))
                        fail_msg("%s, case %d: block %d with %.4g of the best, alpha %.2f", sets[set].name, i, b,
                                 best[b], alpha);
                    n_kept += is_read;
                    n_left += !is_read;
                }
            }
        truth_close(&t);
        rows_close(&rows);
        sparse_close(&w);
    }
    print_message("%d blocks kept, %d left out\n", n_kept, n_left);
    assert_true(n_kept > 200 && n_left > 200);
}

/* Every head looks at the first key, which has this logit. */
static void put_sink(const sparse_world *w, rng *r, attn_rows *rows, float logit)
{
    const int dim = w->w.s.head_dim, n_heads = w->w.s.heads_per_kv;
    float *common = world_floats(r, (size_t)dim, 2.0f / sqrtf((float)dim)), *key = malloc((size_t)dim * sizeof *key);
    double norm = 0;
    for (int j = 0; j < dim; j++) norm += (double)common[j] * (double)common[j];
    for (int h = 0; h < n_heads; h++)
        for (int j = 0; j < dim; j++) rows->q[h * dim + j] += common[j];
    for (int j = 0; j < dim; j++) key[j] = (float)((double)logit / 0.9 / norm) * common[j];
    attn_put_k(&w->w.layer, world_page(&w->w, 0), 0, 0, key);
    free(common);
    free(key);
}

/* Where keys of a block lie close together the estimates are good: what the rules promise of the dropped mass holds,
 * and they do leave blocks out. */
static void test_promises(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 8);
    int64_t n_read[N_RULES] = {0}, n_blocks[N_RULES] = {0};
    double worst[N_RULES] = {0};
    for (int i = 0; i < 60; i++) {
        const int which = i % N_RULES;
        const sparse_rule *rule = &RULES[which];
        const shape s = {512, 1, 8, TYPES[i % N_TYPES], KV_F16, 3000 + (int)rng_below(&r, 200)};
        sparse_world w = sparse_open(&r, s, 1.0f, 0.1f);
        attn_rows rows = rows_open(&w.w, &r, 1);
        put_sink(&w, &r, &rows, 16);
        const attn_work work = world_work(&w.w, 0);
        const selected got = run_select(&w, &work, &sets[n_sets - 1], rule, rows.row, 0);
        n_read[which] += got.choice.n_selected;
        n_blocks[which] += got.choice.n_blocks;
        truth t = truth_open(&work, rows.row);
        for (int h = 0; h < 8; h++)
            worst[which] = fmax(worst[which], exact_dropped(t.head[h], rows.row->pos + 1, got.mask));
        truth_close(&t);
        rows_close(&rows);
        sparse_close(&w);
    }
    for (int k = 0; k < N_RULES; k++) {
        print_message("rule %d, threshold %g: %.0f %% read, at most %.2e dropped\n", (int)RULES[k].kind,
                      (double)RULES[k].threshold, 100.0 * (double)n_read[k] / (double)n_blocks[k], worst[k]);
        assert_true(n_read[k] < n_blocks[k] * 9 / 10);
        if (RULES[k].kind == SPARSE_MASS) assert_true(worst[k] <= (double)RULES[k].threshold);
    }
}

/* One key far back that outweighs all others together: each rule finds its block, at every place; the same number of
 * blocks by chance mostly does not, so the test can fail. */
static void test_needle(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 9);
    int n_cases = 0, n_by_chance = 0;
    for (int i = 0; i < 100; i++) {
        enum { WIDE = 512, SLOTS = 3000 };
        const sparse_rule *rule = &RULES[i % N_RULES];
        const shape s = {WIDE, 1, 8, TYPES[i % N_TYPES], KV_Q8_0, SLOTS};
        sparse_world w = sparse_open(&r, s, 0.2f, 0.2f);
        attn_rows rows = rows_open(&w.w, &r, 1);
        put_sink(&w, &r, &rows, 20);
        attn_work work = world_work(&w.w, 0);
        const int head = (int)rng_below(&r, 8), slot = 64 * (2 + (int)rng_below(&r, 35)) + (int)rng_below(&r, 64);
        float *q = rows.q + head * WIDE, key[WIDE], value[WIDE] = {0};
        double norm = 0;
        for (int j = 0; j < WIDE; j++) norm += (double)q[j] * (double)q[j];
        /* its logit is 80 for that head, and the mean of its block rises by 80 / 64 only; the sink has 20 */
        for (int j = 0; j < WIDE; j++) key[j] = (float)(80 / 0.9 / norm) * q[j];
        value[7] = 1000;
        attn_put_k(&w.w.layer, world_page(&w.w, slot), slot % KV_PAGE_LEN, 0, key);
        attn_put_v(&w.w.layer, world_page(&w.w, slot), slot % KV_PAGE_LEN, 0, value);
        const kernel_set *set = &sets[i / N_RULES % n_sets];
        const selected got = run_select(&w, &work, set, rule, rows.row, 0);
        if (!sparse_reads(got.mask, slot))
            fail_msg("%s, rule %d: the needle in block %d is not read", set->name, (int)rule->kind, slot / 64);
        attn_row row = *rows.row;
        row.blocks = got.mask;
        set->kernels.rows(&work, &row, 1, 0);
        assert_true(row.out[head * WIDE + 7] > 900);
        /* as many blocks by chance */
        uint8_t chance[64] = {0};
        const int32_t n = got.choice.n_blocks;
        for (int k = 0; k < got.choice.n_selected; k++) {
            const int32_t b = (int32_t)rng_below(&r, (uint32_t)n);
            chance[b / 8] = (uint8_t)(chance[b / 8] | 1u << b % 8);
        }
        n_cases++;
        n_by_chance += sparse_reads(chance, slot);
        rows_close(&rows);
        sparse_close(&w);
    }
    print_message("the needle was read in all of %d cases, by chance in %d\n", n_cases, n_by_chance);
    assert_true(n_by_chance < n_cases * 2 / 3);
}

/* ---- what is read ---- */

static uint64_t bytes_read;
static const attn_simd *real;

static void counted_score(attn_tile k, int head_dim, const float *q, size_t q_stride, int n_q, float *s)
{
    bytes_read += attn_tile_bytes(k.layout, head_dim);
    real->score(k, head_dim, q, q_stride, n_q, s);
}

static void counted_value(attn_tile v, int head_dim, int lo, int hi, const float *p, int n_q, float *o, size_t stride)
{
    bytes_read += attn_tile_bytes(v.layout, head_dim);
    real->value(v, head_dim, lo, hi, p, n_q, o, stride);
}

/* One row reads the tiles of its blocks, once, and nothing else. Rows that choose alike share what they read. */
static void test_bytes(void **state)
{
    (void)state;
    if (n_sets < 2) skip();
    rng r;
    rng_seed(&r, 10);
    real = sets[n_sets - 1].simd;
    attn_simd counted = *real;
    counted.score = counted_score;
    counted.value = counted_value;
    const shape s = {512, 1, 8, KV_Q8_0, KV_Q4_0, 4096};
    sparse_world w = sparse_open(&r, s, 1.0f, 0.1f);
    masked_rows m = masked_open(&w, &r, 4);
    const attn_work work = world_work(&w.w, 0);
    for (int j = 0; j < 4; j++) m.rows.row[j].pos = s.n_slots - 1;
    random_mask(&r, m.rows.row, 8, m.masks, (size_t)w.n_splits);
    for (int j = 1; j < 4; j++) memcpy(m.masks + j * w.n_splits, m.masks, (size_t)w.n_splits);
    uint64_t n_blocks = 0;
    for (int32_t b = 0; b < 64; b++) n_blocks += sparse_reads(m.masks, b * KV_PAGE_LEN);
    bytes_read = 0;
    attn_drive_rows(&counted, &work, m.rows.row, 1, 0);
    assert_int_equal(bytes_read, n_blocks * w.w.layer.page_bytes);
    bytes_read = 0;
    attn_drive_rows(&counted, &work, m.rows.row, 4, 0);
    assert_int_equal(bytes_read, n_blocks * w.w.layer.page_bytes);
    masked_close(&m);
    sparse_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks), cmocka_unit_test(test_mask_bits), cmocka_unit_test(test_full_mask),
        cmocka_unit_test(test_probe), cmocka_unit_test(test_summaries), cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_alpha), cmocka_unit_test(test_promises),  cmocka_unit_test(test_needle),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, list_sets, NULL);
}

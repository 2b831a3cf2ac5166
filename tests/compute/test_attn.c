/* test_attn.c: pages, the reference against float64 and goldens, every kernel set against the reference, and the
 * properties that make speculation exact: a row's bits depend on its own keys alone. */
#include "testing.h"

#include "base/cpu.h"
#include "base/f16.h"
#include "base/file_map.h"
#include "base/mem.h"
#include "compute/attn_sets.h"
#include "compute/attn_world.h"
#include "quant/rotate.h"
#include "quant/tq3.h"
#include "quant/type.h"

/* ---- pages ---- */

static void expect_f32(const float *x, const float *got, int n)
{
    assert_memory_equal(got, x, (size_t)n * sizeof *x);
}

static void expect_f16(const float *x, const float *got, int n)
{
    for (int i = 0; i < n; i++) assert_true(got[i] == f16_to_f32(f32_to_f16(x[i])));
}

static void expect_q8(const float *x, const float *got, int n)
{
    for (int b = 0; b < n; b += 32) {
        float amax = 0;
        for (int i = b; i < b + 32; i++) amax = fmaxf(amax, fabsf(x[i]));
        float d = f16_to_f32(f32_to_f16(amax / 127));
        for (int i = b; i < b + 32; i++) assert_true(got[i] == d * (amax > 0 ? roundf(x[i] * (127 / amax)) : 0));
    }
}

/* What the formats' own encoders and decoders make of it. */
static void expect_codes(const float *x, const float *got, int n, kv_type layout)
{
    uint8_t blocks[512 / 32 * 18];
    float want[512];
    if (layout == KV_TQ3_0) {
        encode_tq3_0(x, blocks, (size_t)n);
        decode_tq3_0(blocks, want, (size_t)n);
    } else {
        type_get(TYPE_Q4_0)->encode(x, blocks, (size_t)n);
        type_get(TYPE_Q4_0)->decode(blocks, want, (size_t)n);
    }
    for (int i = 0; i < n; i++) assert_true(got[i] == want[i]);
}

static void expect_row(kv_type t, const float *x, const float *got, int n)
{
    const kv_type_info *info = kv_type_get(t);
    float y[512];
    memcpy(y, x, (size_t)n * sizeof *y);
    if (info->is_rotated && t != KV_TQ3_0) rotate_values(y, (size_t)n);
    switch (info->layout) {
    case KV_F32: expect_f32(y, got, n); return;
    case KV_F16: expect_f16(y, got, n); return;
    case KV_Q8_0: expect_q8(y, got, n); return;
    default: expect_codes(y, got, n, info->layout);
    }
}

static void check_page(rng *r, kv_type k, kv_type v)
{
    enum { D = 128, HEADS = 2, PAGES = 2 };
    attn_world w = world_open(r, (shape){D, HEADS, 1, k, v, 0});
    float *want = calloc(PAGES * KV_PAGE_LEN * HEADS * 2 * D, sizeof *want), got[D];
    memset(w.layer.pages, 0, w.layer.page_bytes * PAGES);
    for (int i = 0; i < PAGES * KV_PAGE_LEN * HEADS * 2; i++) { /* zeros have codes too */
        const int slot = i / 4 % KV_PAGE_LEN, page = i / 4 / KV_PAGE_LEN;
        (i & 1 ? attn_put_v : attn_put_k)(&w.layer, page, slot, i >> 1 & 1, want);
    }
    for (int i = 0; i < 600; i++) { /* slots are overwritten in random order; no other may change */
        int page = (int)rng_below(r, PAGES), slot = (int)rng_below(r, KV_PAGE_LEN), head = (int)rng_below(r, HEADS);
        int is_v = (int)rng_below(r, 2);
        float *x = want + (((size_t)(page * KV_PAGE_LEN + slot) * HEADS + (size_t)head) * 2 + (size_t)is_v) * D;
        for (int j = 0; j < D; j++) x[j] = (float)rng_normal(r) * (j / 32 == 2 ? 0.0f : 3.0f);
        (is_v ? attn_put_v : attn_put_k)(&w.layer, page, slot, head, x);
    }
    for (int page = 0; page < PAGES; page++)
        for (int slot = 0; slot < KV_PAGE_LEN; slot++)
            for (int head = 0; head < HEADS; head++)
                for (int is_v = 0; is_v < 2; is_v++) {
                    float *x =
                        want + (((size_t)(page * KV_PAGE_LEN + slot) * HEADS + (size_t)head) * 2 + (size_t)is_v) * D;
                    (is_v ? attn_get_v : attn_get_k)(&w.layer, page, slot, head, got);
                    expect_row(is_v ? v : k, x, got, D);
                }
    free(want);
    world_close(&w);
}

static void test_pages(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int k = 0; k < N_TYPES; k++)
        for (int v = 0; v < N_TYPES; v++) check_page(&r, TYPES[k], TYPES[v]);
}

static void test_rounding(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 2);
    attn_world w = world_open(&r, (shape){32, 1, 1, KV_Q8_0, KV_Q8_0, 0});
    float x[32] = {127.0f, 0.5f, -0.5f, 1.5f, -1.5f, 2.5f, -2.5f, 0.49999997f, -0.49999997f, 126.5f, 64.49f, -127.0f},
          got[32];
    attn_put_v(&w.layer, 0, 5, 0, x);
    attn_get_v(&w.layer, 0, 5, 0, got);
    const float want[12] = {127, 1, -1, 2, -2, 3, -3, 0, 0, 127, 64, -127};
    for (int i = 0; i < 12; i++) assert_true(got[i] == want[i]);
    world_close(&w);
}

static void test_move(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 3);
    for (int k = 0; k < N_TYPES; k++) {
        attn_world w = world_open(&r, (shape){128, 3, 1, TYPES[k], TYPES[(k + 1) % N_TYPES], 130});
        float a[128], b[128];
        attn_move_slot(&w.layer, world_page(&w, 70), 70 % KV_PAGE_LEN, world_page(&w, 33), 33);
        attn_move_slot(&w.layer, world_page(&w, 33), 33, world_page(&w, 33), 33);
        for (int h = 0; h < 3; h++) {
            attn_get_k(&w.layer, world_page(&w, 70), 70 % KV_PAGE_LEN, h, a);
            attn_get_k(&w.layer, world_page(&w, 33), 33, h, b);
            assert_memory_equal(a, b, sizeof a);
            attn_get_v(&w.layer, world_page(&w, 70), 70 % KV_PAGE_LEN, h, a);
            attn_get_v(&w.layer, world_page(&w, 33), 33, h, b);
            assert_memory_equal(a, b, sizeof a);
        }
        world_close(&w);
    }
}

/* ---- values ---- */

static float *read_floats(const char *name, size_t n)
{
    char *data = NULL;
    size_t size = 0;
    facet_error err;
    assert_ok(file_read_all(test_data(name), 1 << 20, &data, &size, &err), err);
    assert_int_equal(size, n * sizeof(float));
    return (float *)(void *)data;
}

typedef struct golden {
    const char *name;
    kv_type k, v;
} golden;
static const golden goldens[] = {
    {"f32", KV_F32, KV_F32},
    {"f16", KV_F16, KV_F16},
    {"q8_0", KV_Q8_0, KV_Q8_0},
    {"q4_0", KV_Q4_0, KV_Q4_0},
    {"tq3_0", KV_TQ3_0, KV_TQ3_0},
    {"f16_q4_0", KV_F16, KV_Q4_0},
    {"f16_tq3_0", KV_F16, KV_TQ3_0},
    {"q4_0_tq3_0", KV_Q4_0, KV_TQ3_0},
    {"q8_0_q4_0", KV_Q8_0, KV_Q4_0},
    {"q8_0_tq3_0", KV_Q8_0, KV_TQ3_0},
    {"tq3_0_q4_0", KV_TQ3_0, KV_Q4_0},
    {"tq3_0_q8_0", KV_TQ3_0, KV_Q8_0},
    {"rot_q4_0", KV_ROT_Q4_0, KV_ROT_Q4_0},
};

/* Goldens computed in float64 from the decoded values of the types of K and V: D 512, 2 query heads on 1 KV head, 96
 * positions. */
static void test_golden(void **state)
{
    (void)state;
    enum { D = 512, KEYS = 96 };
    float *q = read_floats("attn/attn_q.f32", 2 * D), *k = read_floats("attn/attn_k.f32", KEYS * D);
    float *v = read_floats("attn/attn_v.f32", KEYS * D);
    rng r;
    rng_seed(&r, 4);
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) {
        char name[64];
        snprintf(name, sizeof name, "attn/attn_out_%s.f32", goldens[g].name);
        float *want = read_floats(name, 2 * D), out[2 * D];
        attn_world w = world_open(&r, (shape){D, 1, 2, goldens[g].k, goldens[g].v, KEYS});
        for (int i = 0; i < KEYS; i++) {
            attn_put_k(&w.layer, world_page(&w, i), i % KV_PAGE_LEN, 0, k + i * D);
            attn_put_v(&w.layer, world_page(&w, i), i % KV_PAGE_LEN, 0, v + i * D);
        }
        attn_work work = world_work(&w, 0);
        work.scale = 1.0f;
        attn_row row = {.table = w.table, .pos = KEYS - 1, .base = KEYS, .q = q, .out = out};
        for (int s = 0; s < n_sets; s++) {
            sets[s].kernels.rows(&work, &row, 1, 0);
            double e = distance(out, want, 2 * D);
            print_message("%s %s: %.2e\n", goldens[g].name, sets[s].name, e);
            assert_true(e < 1e-5);
        }
        world_close(&w);
        mem_free(want);
    }
    mem_free(q);
    mem_free(k);
    mem_free(v);
}

/* One query head in float64, straight from the formula, without splits. */
static void exact_head(const attn_work *w, const attn_row *row, int head, float *out)
{
    const bool is_rotated_k = kv_type_get(w->layer->desc.k_type)->is_rotated,
               is_rotated_v = kv_type_get(w->layer->desc.v_type)->is_rotated;
    int d = w->layer->desc.head_dim, kv_head = head / (w->n_heads / w->layer->desc.n_kv_heads);
    int first = w->window > 0 && row->pos - w->window + 1 > 0 ? row->pos - w->window + 1 : 0, n = row->pos + 1 - first;
    double *s = malloc((size_t)n * sizeof *s), *o = calloc((size_t)d, sizeof *o), max = -INFINITY, sum = 0;
    float *x = malloc((size_t)d * sizeof *x);
    for (int i = 0; i < n; i++) {
        attn_get_k(w->layer, row->table[(first + i) / KV_PAGE_LEN], (first + i) % KV_PAGE_LEN, kv_head, x);
        if (is_rotated_k) unrotate_values(x, (size_t)d);
        s[i] = 0;
        for (int j = 0; j < d; j++) s[i] += (double)row->q[head * d + j] * x[j] * w->scale;
        max = fmax(max, s[i]);
    }
    for (int i = 0; i < n; i++) {
        attn_get_v(w->layer, row->table[(first + i) / KV_PAGE_LEN], (first + i) % KV_PAGE_LEN, kv_head, x);
        if (is_rotated_v) unrotate_values(x, (size_t)d);
        double p = exp(s[i] - max);
        sum += p;
        for (int j = 0; j < d; j++) o[j] += p * x[j];
    }
    for (int j = 0; j < d; j++) out[j] = (float)(o[j] / sum);
    free(s);
    free(o);
    free(x);
}

static void test_reference(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 5);
    const int pos[] = {0, 1, 63, 64, 511, 512, 513, 700, 1023, 1024, 1100};
    const int windows[] = {0, 1, 100, 512};
    for (int t = 0; t < N_TYPES; t++) {
        attn_world w = world_open(&r, (shape){128, 2, 2, TYPES[t], TYPES[(t + 1) % N_TYPES], 1101});
        attn_rows rows = rows_open(&w, &r, 1);
        float *want = malloc(rows.floats * sizeof *want);
        for (size_t p = 0; p < sizeof pos / sizeof *pos; p++) {
            for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
                attn_work work = world_work(&w, windows[i]);
                rows.row[0].pos = pos[p];
                rows_run(attn_ref(), &work, rows.row, 1);
                for (int h = 0; h < work.n_heads; h++) exact_head(&work, rows.row, h, want + h * w.s.head_dim);
                assert_true(distance(rows.out, want, rows.floats) < 1e-5);
            }
        }
        free(want);
        rows_close(&rows);
        world_close(&w);
    }
}

static void test_exp(void **state)
{
    (void)state;
    for (int set = 1; set < n_sets; set++) {
        double worst = 0;
        for (int i = 0; i < 2000; i++) {
            float s[ATTN_SPLIT], x[ATTN_SPLIT], out[2];
            for (int j = 0; j < ATTN_SPLIT; j++)
                s[j] = x[j] = -85.0f * (float)(i * ATTN_SPLIT + j) / (2000 * ATTN_SPLIT);
            s[0] = x[0] = 0;
            sets[set].simd->softmax(s, 0, ATTN_SPLIT, 1.0f, out);
            for (int j = 0; j < ATTN_SPLIT; j++) worst = fmax(worst, fabs(s[j] / exp(x[j]) - 1));
        }
        print_message("%s: relative error of exp %.2e\n", sets[set].name, worst);
        assert_true(worst < 1e-6);
        float s[16] = {0, -1000, -INFINITY, -104}, out[2];
        sets[set].simd->softmax(s, 0, 4, 1.0f, out);
        assert_true(s[0] == 1 && s[1] == 0 && s[2] == 0 && s[3] < 2e-45f && out[0] == 0 && out[1] == 1);
    }
}

/* ---- kernels against the reference, on random shapes ---- */

static shape random_shape(rng *r)
{
    static const int dims[] = {128, 256, 512};
    int dim = dims[rng_below(r, 3)];
    return (shape){.head_dim = dim,
                   .n_kv_heads = 1 + (int)rng_below(r, 2),
                   .heads_per_kv = 1 + (int)rng_below(r, rng_below(r, 2) ? 16 : 8),
                   .k = TYPES[rng_below(r, N_TYPES)],
                   .v = TYPES[rng_below(r, N_TYPES)],
                   .n_slots = 2 + (int)rng_below(r, rng_below(r, 3) ? 300 : 1400)};
}

static int random_window(rng *r)
{
    static const int windows[] = {0, 0, 1, 2, 31, 32, 33, 100, 512, 1024};
    return windows[rng_below(r, 10)];
}

static void test_kernels(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 6);
    for (int i = 0; i < 60; i++) {
        attn_world w = world_open(&r, random_shape(&r));
        attn_rows rows = rows_open(&w, &r, 1 + (int)rng_below(&r, 4));
        attn_work work = world_work(&w, random_window(&r));
        for (int j = 0; j < rows.n; j++) rows.row[j].pos -= (int)rng_below(&r, (uint32_t)w.s.n_slots);
        float *want = malloc((size_t)rows.n * rows.floats * sizeof *want);
        rows_run(attn_ref(), &work, rows.row, rows.n);
        memcpy(want, rows.out, (size_t)rows.n * rows.floats * sizeof *want);
        for (int s = 1; s < n_sets; s++) {
            memset(rows.out, 0xff, (size_t)rows.n * rows.floats * sizeof *want);
            rows_run(sets[s].kernels, &work, rows.row, rows.n);
            for (int j = 0; j < rows.n; j++) {
                double e = distance(rows.row[j].out, want + (size_t)j * rows.floats, rows.floats);
                if (!(e < 2e-5))
                    fail_msg("%s: case %d, pos %d of %d, window %d, D %d, %d heads per KV head: %.2e", sets[s].name, i,
                             rows.row[j].pos, w.s.n_slots, work.window, w.s.head_dim, w.s.heads_per_kv, e);
            }
        }
        free(want);
        rows_close(&rows);
        world_close(&w);
    }
}

/* Positions around every border of pages, tiles and splits, and windows that begin there. */
static void test_borders(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 7);
    attn_world w = world_open(&r, (shape){128, 1, 2, KV_Q8_0, KV_F16, 1100});
    attn_rows rows = rows_open(&w, &r, 1);
    float want[2 * 128];
    for (int pos = 0; pos < w.s.n_slots; pos += pos % 32 < 30 && pos % 32 > 1 ? 28 : 1) {
        for (int window = 0; window <= pos + 1; window += window % 32 < 30 && window % 32 > 1 ? 97 : 1) {
            attn_work work = world_work(&w, window);
            rows.row[0].pos = pos;
            rows_run(attn_ref(), &work, rows.row, 1);
            memcpy(want, rows.out, sizeof want);
            for (int s = 1; s < n_sets; s++) {
                rows_run(sets[s].kernels, &work, rows.row, 1);
                if (!(distance(rows.out, want, rows.floats) < 2e-5))
                    fail_msg("%s: pos %d, window %d", sets[s].name, pos, window);
            }
        }
    }
    rows_close(&rows);
    world_close(&w);
}

/* ---- bits ---- */

/* A row by itself, a row among others (also of another sequence), and splits folded: the same bits. */
static void test_bits(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 8);
    for (int i = 0; i < 60; i++) {
        attn_world w = world_open(&r, random_shape(&r));
        attn_rows rows = rows_open(&w, &r, 1 + (int)rng_below(&r, 64));
        attn_work work = world_work(&w, random_window(&r));
        int32_t *table2 = malloc((size_t)w.n_pages * sizeof *table2); /* another sequence: the full pages reversed */
        for (int p = 0; p < w.n_pages - 1; p++) table2[p] = w.table[w.n_pages - 2 - p];
        table2[w.n_pages - 1] = w.table[w.n_pages - 1];
        bool is_chunk = rng_below(&r, 2); /* consecutive positions, as in prefill; else anything */
        for (int j = 0; j < rows.n; j++) {
            int back = is_chunk ? rows.n - 1 - j : (int)rng_below(&r, (uint32_t)w.s.n_slots);
            rows.row[j].pos -= back < w.s.n_slots ? back : 0;
            if (rng_below(&r, 4) == 0) rows.row[j].table = table2;
        }
        float *want = malloc((size_t)rows.n * rows.floats * sizeof *want);
        for (int s = 1; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, rows.row, rows.n);
            memcpy(want, rows.out, (size_t)rows.n * rows.floats * sizeof *want);
            for (int j = 0; j < rows.n; j++) {
                rows_run(sets[s].kernels, &work, &rows.row[j], 1);
                if (memcmp(rows.row[j].out, want + (size_t)j * rows.floats, rows.floats * sizeof *want))
                    fail_msg("%s, case %d: row %d of %d alone differs", sets[s].name, i, j, rows.n);
                splits_run(sets[s].kernels, &work, &rows.row[j]);
                if (memcmp(rows.row[j].out, want + (size_t)j * rows.floats, rows.floats * sizeof *want))
                    fail_msg("%s, case %d: splits of row %d differ", sets[s].name, i, j);
            }
        }
        free(want);
        free(table2);
        rows_close(&rows);
        world_close(&w);
    }
}

/* The reference keeps its own promise too (split entry against rows entry). */
static void test_reference_bits(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 9);
    attn_world w = world_open(&r, (shape){128, 2, 3, KV_F16, KV_Q8_0, 1300});
    attn_rows rows = rows_open(&w, &r, 1);
    attn_work work = world_work(&w, 0);
    rows_run(attn_ref(), &work, rows.row, 1);
    float want[128 * 6];
    memcpy(want, rows.out, sizeof want);
    splits_run(attn_ref(), &work, rows.row);
    assert_memory_equal(want, rows.out, sizeof want);
    rows_close(&rows);
    world_close(&w);
}

static void poison_slot(const attn_world *w, int32_t slot)
{
    float x[512];
    for (int i = 0; i < 512; i++) x[i] = INFINITY;
    for (int h = 0; h < w->s.n_kv_heads; h++) {
        attn_put_k(&w->layer, world_page(w, slot), slot % KV_PAGE_LEN, h, x);
        attn_put_v(&w->layer, world_page(w, slot), slot % KV_PAGE_LEN, h, x);
    }
}

/* Exactly the keys pos - W + 1 .. pos count: everything else may be infinite, or its page may be gone. */
static void test_window(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 10);
    static const int windows[] = {1, 2, 33, 100, 512, 1024};
    for (int i = 0; i < 24; i++) {
        int window = windows[i % 6], n_slots = window + 40 + (int)rng_below(&r, 700);
        kv_type t = i / 6 % 2 ? KV_F32 : KV_F16; /* types that can hold an infinity */
        attn_world w = world_open(&r, (shape){128, 2, 2, t, t, n_slots});
        attn_rows rows = rows_open(&w, &r, 1);
        attn_work work = world_work(&w, window);
        int pos = rows.row[0].pos -= (int)rng_below(&r, 40), first = pos - window + 1;
        float want[3][4 * 128];
        for (int s = 0; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, rows.row, 1);
            memcpy(want[s], rows.out, sizeof want[s]);
        }
        for (int p = 0; p < n_slots; p++)
            if (p < first || p > pos) poison_slot(&w, p);
        for (int p = 0; p < w.n_pages; p++)
            if ((p + 1) * KV_PAGE_LEN <= first || p * KV_PAGE_LEN > pos) w.table[p] = INT32_MIN / 2;
        for (int s = 0; s < n_sets; s++) {
            rows_run(sets[s].kernels, &work, rows.row, 1);
            assert_memory_equal(want[s], rows.out, sizeof want[s]);
            splits_run(sets[s].kernels, &work, rows.row);
            assert_memory_equal(want[s], rows.out, sizeof want[s]);
        }
        for (int edge = 0; edge < 2; edge++) { /* both ends of the window do count */
            world_put(&w, &r, edge ? pos : first);
            for (int s = 0; s < n_sets; s++) {
                rows_run(sets[s].kernels, &work, rows.row, 1);
                assert_memory_not_equal(want[s], rows.out, sizeof want[s]);
            }
        }
        rows_close(&rows);
        world_close(&w);
    }
}

/* ---- draft trees ---- */

typedef struct tree {
    int n, depth[BATCH_MAX_TREE];
    uint8_t path[BATCH_MAX_TREE][BATCH_MAX_TREE];
} tree;

static tree random_tree(rng *r, int n)
{
    tree t = {.n = n};
    for (int j = 0; j < n; j++) {
        int parent = j ? (rng_below(r, 3) ? j - 1 : (int)rng_below(r, (uint32_t)j)) : -1;
        if (parent >= 0) memcpy(t.path[j], t.path[parent], sizeof t.path[j]);
        t.depth[j] = parent >= 0 ? t.depth[parent] + 1 : 0;
        t.path[j][t.depth[j]] = (uint8_t)j;
    }
    return t;
}

static void copy_slot(const attn_world *src, int32_t src_slot, const attn_world *dst, int32_t dst_slot)
{
    int32_t from = world_page(src, src_slot), to = world_page(dst, dst_slot);
    int src_tile = src_slot / ATTN_TILE % ATTN_PAGE_TILES, dst_tile = dst_slot / ATTN_TILE % ATTN_PAGE_TILES;
    for (int h = 0; h < src->s.n_kv_heads; h++) {
        attn_copy_key_k(src->s.k, src->s.head_dim, attn_k_tile(&src->layer, from, src_tile, h), src_slot % ATTN_TILE,
                        attn_k_tile(&dst->layer, to, dst_tile, h), dst_slot % ATTN_TILE);
        attn_copy_key_v(src->s.v, src->s.head_dim, attn_v_tile(&src->layer, from, src_tile, h), src_slot % ATTN_TILE,
                        attn_v_tile(&dst->layer, to, dst_tile, h), dst_slot % ATTN_TILE);
    }
}

/* Every node's row among all rows of the tree, against the same keys laid out as a plain chain in a second cache. */
static void check_tree(rng *r, int s, shape sh, int base, int n_nodes, int window)
{
    sh.n_slots = base + n_nodes;
    attn_world w = world_open(r, sh), chain = world_open(r, sh);
    tree t = random_tree(r, n_nodes);
    attn_rows rows = rows_open(&w, r, n_nodes);
    attn_work work = world_work(&w, window), plain = world_work(&chain, window);
    for (int j = 0; j < n_nodes; j++) {
        rows.row[j].base = base;
        rows.row[j].pos = base + t.depth[j];
        rows.row[j].path = t.path[j];
    }
    rows_run(sets[s].kernels, &work, rows.row, n_nodes);
    float *got = malloc((size_t)n_nodes * rows.floats * sizeof *got);
    memcpy(got, rows.out, (size_t)n_nodes * rows.floats * sizeof *got);
    for (int j = 0; j < n_nodes; j++) {
        for (int p = 0; p <= rows.row[j].pos; p++) copy_slot(&w, p < base ? p : base + t.path[j][p - base], &chain, p);
        attn_row alone = rows.row[j];
        alone.path = NULL;
        alone.table = chain.table;
        rows_run(sets[s].kernels, &plain, &alone, 1);
        if (memcmp(alone.out, got + (size_t)j * rows.floats, rows.floats * sizeof *got))
            fail_msg("%s: node %d of %d, base %d, window %d differs from the chain", sets[s].name, j, n_nodes, base,
                     window);
        splits_run(sets[s].kernels, &work, &rows.row[j]);
        assert_memory_equal(rows.row[j].out, got + (size_t)j * rows.floats, rows.floats * sizeof *got);
    }
    free(got);
    rows_close(&rows);
    world_close(&w);
    world_close(&chain);
}

static void test_tree(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 11);
    static const int bases[] = {0, 1, 30, 31, 32, 33, 63, 64, 100, 480, 500, 511, 512, 530};
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
        for (int s = 0; s < n_sets; s++) {
            shape sh = {.head_dim = 128,
                        .n_kv_heads = 1,
                        .heads_per_kv = 1 + (int)rng_below(&r, 4),
                        .k = TYPES[b % N_TYPES],
                        .v = TYPES[b / N_TYPES % N_TYPES]};
            check_tree(&r, s, sh, bases[b], 1 + (int)rng_below(&r, s ? 40 : 12), b % 3 ? 0 : 40);
        }
    }
    for (int s = 1; s < n_sets; s++)
        for (int t = 0; t < N_TYPES; t++)
            check_tree(&r, s, (shape){256, 2, 8, TYPES[t], TYPES[t], 0}, 90, BATCH_MAX_TREE, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),          cmocka_unit_test(test_rounding),  cmocka_unit_test(test_move),
        cmocka_unit_test(test_golden),         cmocka_unit_test(test_reference), cmocka_unit_test(test_exp),
        cmocka_unit_test(test_kernels),        cmocka_unit_test(test_borders),   cmocka_unit_test(test_bits),
        cmocka_unit_test(test_reference_bits), cmocka_unit_test(test_window),    cmocka_unit_test(test_tree),
    };
    return cmocka_run_group_tests(tests, list_sets, NULL);
}

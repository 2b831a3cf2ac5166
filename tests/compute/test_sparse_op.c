/* Attention over chosen blocks as the backends run it, on keys that gather around topics: every rule, rows alone and in
 * company, chains and draft trees, any number of threads; what is certified, measured and rescued. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "compute/backend.h"
#include "compute/cpu/exec.h"

enum { D = 128, N_HEADS = 8, N_KV = 2, N_PAGES = 48, N_SLOTS = 45 * KV_PAGE_LEN, MAX_ROWS = 64, ROW = N_HEADS * D };

typedef struct lab {
    backend *be;
    plan *p;
    compiled *c;
    kv_desc kv;
    kv_layer_desc layer;
    int q, o;
    int32_t table[N_PAGES];
} lab;

/* Every head looks at the first key and at some topics. */
static void fill(const lab *l)
{
    const attn_layer *a = &((cpu_backend *)l->be)->kv_layers[0];
    rng r;
    rng_seed(&r, 1);
    for (int h = 0; h < N_KV; h++)
        for (int slot = 0; slot < N_SLOTS; slot++) {
            static float topic[D];
            float x[D], v[D];
            for (int i = 0; i < D; i++) {
                if (slot % KV_PAGE_LEN == 0) topic[i] = (float)rng_normal(&r);
                x[i] = topic[i] + 0.2f * (float)rng_normal(&r);
                if (slot == 0) x[i] = 1;
                v[i] = (float)rng_normal(&r);
            }
            attn_put_k(a, l->table[slot / KV_PAGE_LEN], slot % KV_PAGE_LEN, h, x);
            attn_put_v(a, l->table[slot / KV_PAGE_LEN], slot % KV_PAGE_LEN, h, v);
        }
}

static void open_lab(lab *l, const char *device, int n_threads, const sparse_config *c, kv_type k, kv_type v)
{
    facet_error err;
    const backend_config cfg = {.n_threads = n_threads};
    *l = (lab){.layer = {.n_kv_heads = N_KV, .head_dim = D, .k_type = k, .v_type = v, .has_summaries = true}};
    l->kv = (kv_desc){.n_groups = 1, .n_layers = 1, .layers = &l->layer};
    l->kv.groups[0].n_pages = N_PAGES;
    assert_ok(backend_open(device, &cfg, &l->be, &err), err);
    assert_ok(plan_new("lab", &l->p, &err), err);
    l->p->sparse = *c;
    l->q = plan_input_new(l->p, ROWS_ALL, VALUE_F32, ROW, false, "q");
    l->o = plan_value_new(l->p, ROWS_ALL, VALUE_F32, ROW, true, "o");
    plan_op *op = plan_add(l->p, OP_ATTN, 0);
    op->i0 = l->q;
    op->o = l->o;
    op->kv_layer = 0;
    op->n_heads = N_HEADS;
    op->n_kv_heads = N_KV;
    op->head_dim = D;
    op->attn_scale = 1;
    op->sparse = &l->p->sparse;
    assert_ok(plan_finish(l->p, &err), err);
    assert_ok(l->be->ops->kv_alloc(l->be, &l->kv, &err), err);
    assert_ok(l->be->ops->compile(l->be, l->p, MAX_ROWS, MAX_ROWS, &l->c, &err), err);
    for (int i = 0; i < N_PAGES; i++) l->table[i] = (i * 7 + 5) % N_PAGES;
    fill(l);
}

static void close_lab(lab *l)
{
    l->be->ops->release(l->be, l->c);
    l->be->ops->close(l->be);
    plan_free(l->p);
}

typedef struct rows {
    int n;
    int32_t pos[MAX_ROWS], base;
    uint8_t path[MAX_ROWS][BATCH_MAX_TREE];
    bool has_path, is_prompt;
    int32_t prompt_end;
    float q[MAX_ROWS * ROW];
} rows;

/* Queries with a logit of about 19 at the first key, and of 3 (standard deviation) at the topics. */
static void fill_rows(rows *x, rng *r, int n)
{
    *x = (rows){.n = n, .base = N_SLOTS};
    for (int i = 0; i < n; i++) x->pos[i] = N_SLOTS - n + i;
    for (int i = 0; i < n * ROW; i++) x->q[i] = 0.25f * (float)rng_normal(r) + 19.0f / D;
}

/* Rows [first, first + n) of x. */
static sparse_stats run(const lab *l, const rows *x, int first, int n, float *out)
{
    facet_error err;
    int32_t seq[MAX_ROWS] = {0};
    sparse_stats stats = {0};
    const batch_seq s = {.table = {l->table}, .base = x->base, .is_prompt = x->is_prompt, .prompt_end = x->prompt_end};
    const batch b = {.n_rows = n,
                     .token = seq,
                     .pos = x->pos + first,
                     .slot = x->pos + first,
                     .seq = seq,
                     .path = x->has_path ? x->path + first : NULL,
                     .n_seqs = 1,
                     .seqs = &s,
                     .sparse = &stats};
    assert_ok(l->be->ops->write(l->be, l->c, l->q, 0, n, x->q + first * ROW, &err), err);
    assert_ok(l->be->ops->run(l->be, l->c, &b, &err), err);
    assert_ok(l->be->ops->read(l->be, l->c, l->o, 0, n, out, &err), err);
    return stats;
}

static double distance(const float *a, const float *b, size_t n)
{
    double e = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        e += pow((double)a[i] - (double)b[i], 2);
        w += pow((double)b[i], 2);
    }
    return sqrt(e / w);
}

static const sparse_config configs[] = {
    {.decode = {SPARSE_MASS, .threshold = 1e-3f, .sink = 2, .window = 8, .cap = 0.6f, .hard = 1}, .min_keys = 500},
    {.decode = {SPARSE_ALPHA, .threshold = 0.3f, .sink = 2, .window = 4, .cap = 0.5f, .hard = 1}, .min_keys = 500},
    {.decode = {SPARSE_MASS, .threshold = 0.02f, .sink = 2, .window = 2, .cap = 0.9f, .hard = 1}, .min_keys = 500},
    {.decode = {SPARSE_SHARE, .threshold = 0.01f, .sink = 1, .window = 4, .cap = 0.6f, .hard = 1}, .min_keys = 500},
    {.decode = {SPARSE_MASS, .threshold = 1e-2f, .sink = 2, .window = 8, .cap = 0.6f, .hard = 0.02f}, .min_keys = 500},
    /* begins at a position of the rows */
    {.decode = {SPARSE_MASS, .threshold = 1e-2f, .sink = 2, .window = 8, .cap = 1, .hard = 1},
     .min_keys = N_SLOTS - 20},
};
enum { N_CONFIGS = sizeof configs / sizeof *configs };
static const kv_type types[] = {KV_F16, KV_Q8_0, KV_F32, KV_Q4_0, KV_TQ3_0, KV_ROT_Q8_0, KV_ROT_Q4_0};

/* A row of a step has the bits that it has alone, whatever the step's width and the number of threads; and what is
 * counted is the sum of what is counted for each. */
static void bits_of(const char *device, int config, kv_type k, kv_type v)
{
    static const int widths[] = {1, 2, 5, 16, 64};
    static const int threads[] = {1, 2, 3, 8};
    float *want = malloc(MAX_ROWS * ROW * sizeof *want), *got = malloc(MAX_ROWS * ROW * sizeof *got);
    static rows x;
    sparse_stats alone = {0};
    rng r;
    rng_seed(&r, 2);
    fill_rows(&x, &r, MAX_ROWS);
    for (int t = 0; t < 4; t++) {
        lab l;
        open_lab(&l, device, threads[t], &configs[config], k, v);
        for (int i = 0; i < 5; i++) {
            sparse_stats sum = {0};
            for (int at = 0, n; at < MAX_ROWS; at += n) {
                n = widths[i] < MAX_ROWS - at ? widths[i] : MAX_ROWS - at;
                const sparse_stats s = run(&l, &x, at, n, got + at * ROW);
                sum.choices += s.choices, sum.selected += s.selected, sum.rescued += s.rescued;
                sum.certified_max = fmaxf(sum.certified_max, s.certified_max);
            }
            if (t + i == 0) memcpy(want, got, MAX_ROWS * ROW * sizeof *got), alone = sum;
            for (int j = 0; j < MAX_ROWS; j++)
                if (memcmp(got + j * ROW, want + j * ROW, ROW * sizeof *got) != 0)
                    fail_msg("%s, config %d, types %d and %d, %d threads, %d rows a step: row %d has other bits",
                             device, config, (int)k, (int)v, threads[t], widths[i], j);
            assert_true(sum.choices == alone.choices && sum.selected == alone.selected);
            assert_true(sum.rescued == alone.rescued && sum.certified_max == alone.certified_max);
        }
        close_lab(&l);
    }
    assert_true(alone.choices > 0);
    free(want);
    free(got);
}

static void rows_have_the_bits_that_they_have_alone(void **state)
{
    (void)state;
    for (int i = 0; i < 7; i++) bits_of("cpu", i % N_CONFIGS, types[i], types[(i + 2) % 7]);
    bits_of("ref", 0, KV_Q8_0, KV_F16);
    bits_of("ref", 4, KV_F16, KV_Q8_0);
}

/* The nodes of a tree, each on its own path, against chains of the same keys. */
static void trees_have_the_bits_of_chains(void **state)
{
    (void)state;
    enum { NODES = 40, BASE = N_SLOTS - NODES };
    float *got = malloc(MAX_ROWS * ROW * sizeof *got), *want = malloc(ROW * sizeof *want);
    static rows x, one;
    int depth[NODES];
    rng r;
    for (int config = 0; config < N_CONFIGS; config++) {
        lab tree, chain;
        sparse_config c = configs[config];
        if (c.min_keys > BASE - 10) c.min_keys = BASE + 4; /* by depth */
        open_lab(&tree, "cpu", 2, &c, KV_Q8_0, KV_Q8_0);
        open_lab(&chain, "cpu", 1, &c, KV_Q8_0, KV_Q8_0);
        const attn_layer *a = &((cpu_backend *)tree.be)->kv_layers[0], *b = &((cpu_backend *)chain.be)->kv_layers[0];
        rng_seed(&r, 3);
        fill_rows(&x, &r, NODES);
        x.base = BASE;
        x.has_path = true;
        for (int j = 0; j < NODES; j++) {
            const int parent = j ? (int)rng_below(&r, (uint32_t)j) : -1;
            if (parent >= 0) memcpy(x.path[j], x.path[parent], sizeof x.path[j]);
            depth[j] = parent >= 0 ? depth[parent] + 1 : 0;
            x.path[j][depth[j]] = (uint8_t)j;
            x.pos[j] = BASE + depth[j];
        }
        run(&tree, &x, 0, NODES, got);
        for (int j = 0; j < NODES; j++) {
            for (int d = 0; d <= depth[j]; d++) {
                const int from = BASE + x.path[j][d], to = BASE + d;
                float y[D];
                for (int h = 0; h < N_KV; h++) {
                    attn_get_k(a, tree.table[from / KV_PAGE_LEN], from % KV_PAGE_LEN, h, y);
                    attn_put_k(b, chain.table[to / KV_PAGE_LEN], to % KV_PAGE_LEN, h, y);
                    attn_get_v(a, tree.table[from / KV_PAGE_LEN], from % KV_PAGE_LEN, h, y);
                    attn_put_v(b, chain.table[to / KV_PAGE_LEN], to % KV_PAGE_LEN, h, y);
                }
            }
            one = (rows){.n = 1, .base = N_SLOTS, .pos = {x.pos[j]}};
            memcpy(one.q, x.q + j * ROW, ROW * sizeof *one.q);
            run(&chain, &one, 0, 1, want);
            if (memcmp(want, got + j * ROW, ROW * sizeof *want) != 0)
                fail_msg("config %d: node %d, depth %d, differs from the chain", config, j, depth[j]);
        }
        close_lab(&tree);
        close_lab(&chain);
    }
    free(got);
    free(want);
}

/* Whatever is dropped is no more than what is certified, and the output is near what dense attention says; who may
 * miss nothing reads all, and says the same but for rounding; the two backends agree. */
static void what_is_left_out_is_known(void **state)
{
    (void)state;
    const sparse_config dense = {.min_keys = 0};
    float *all = malloc(MAX_ROWS * ROW * sizeof *all), *some = malloc(MAX_ROWS * ROW * sizeof *some),
          *other = malloc(MAX_ROWS * ROW * sizeof *other);
    static rows x;
    rng r;
    rng_seed(&r, 4);
    fill_rows(&x, &r, 16);
    for (int i = 0; i < 7 * N_CONFIGS; i++) {
        const kv_type k = types[i % 7], v = types[(i + i / 7) % 7];
        sparse_config c = configs[i % N_CONFIGS];
        lab l;
        c.is_checked = true;
        open_lab(&l, "cpu", 1, &dense, k, v);
        assert_int_equal(run(&l, &x, 0, 16, all).choices, 0);
        close_lab(&l);
        open_lab(&l, "cpu", 1, &c, k, v);
        const sparse_stats s = run(&l, &x, 0, 16, some);
        close_lab(&l);
        if (!(s.measured_max <= s.certified_max && s.measured_sum <= s.certified_sum))
            fail_msg("config %d, type %d: measured %.9g (sum %.9g), certified %.9g (sum %.9g)", i % N_CONFIGS, (int)k,
                     (double)s.measured_max, s.measured_sum, (double)s.certified_max, s.certified_sum);
        if (c.decode.kind == SPARSE_MASS && k != KV_TQ3_0) assert_true(s.measured_max <= c.decode.threshold);
        if (!(distance(some, all, 16 * ROW) < 0.5))
            fail_msg("config %d: %g from dense", i % N_CONFIGS, distance(some, all, 16 * ROW));
        if (i < N_CONFIGS)
            print_message("config %d: %.0f %% read, %llu of %llu rescued; dropped %.2g, certified %.2g; %.2g from "
                          "dense\n",
                          i, 100.0 * (double)s.selected / (double)s.blocks, (unsigned long long)s.rescued,
                          (unsigned long long)s.choices, (double)s.measured_max, (double)s.certified_max,
                          distance(some, all, 16 * ROW));
        assert_true(s.selected < s.blocks || s.rescued > 0);
        open_lab(&l, "ref", 1, &c, k, v);
        const sparse_stats t = run(&l, &x, 0, 16, other);
        close_lab(&l);
        assert_true(distance(other, some, 16 * ROW) < 1e-3 && t.choices == s.choices);
        c.decode.hard = 1e-35f;
        open_lab(&l, "cpu", 1, &c, k, v);
        const sparse_stats u = run(&l, &x, 0, 16, some);
        close_lab(&l);
        assert_true(u.rescued > 0 && u.selected == u.blocks && distance(some, all, 16 * ROW) < 2e-5);
    }
    free(all);
    free(some);
    free(other);
}

/* What is written to a page makes its summary anew: a needle that comes later is found, and one that is gone again
 * leaves no trace. */
static void summaries_follow_their_pages(void **state)
{
    (void)state;
    static rows x;
    lab l;
    rng r;
    rng_seed(&r, 5);
    fill_rows(&x, &r, 1);
    open_lab(&l, "cpu", 1, &configs[0], KV_F16, KV_F16);
    float want[ROW], got[ROW], key[D];
    facet_error err;
    const size_t bytes = kv_group_page_bytes(&l.kv, 0);
    uint8_t *page = malloc(2 * bytes);
    int32_t block = 2, at;
    const attn_layer *a = &((cpu_backend *)l.be)->kv_layers[0];
    const sparse_stats before = run(&l, &x, 0, 1, want);
    for (int i = 0; i < D; i++) key[i] = 3 * x.q[i] + 1;
    do { /* a block that is not read: as nobody told that it changed, the key is not seen (so the test can fail) */
        at = l.table[++block];
        assert_true(block < 40);
        assert_ok(l.be->ops->kv_read(l.be, 0, &at, 1, page, &err), err);
        attn_put_k(a, at, 9, 0, key);
        run(&l, &x, 0, 1, got);
    } while (memcmp(got, want, sizeof got) != 0 && l.be->ops->kv_write(l.be, 0, &at, 1, page, &err) == FACET_OK);
    assert_ok(l.be->ops->kv_read(l.be, 0, &at, 1, page + bytes, &err), err);
    assert_ok(l.be->ops->kv_write(l.be, 0, &at, 1, page + bytes, &err), err);
    run(&l, &x, 0, 1, got);
    assert_memory_not_equal(got, want, sizeof got);
    assert_ok(l.be->ops->kv_write(l.be, 0, &at, 1, page, &err), err);
    assert_true(run(&l, &x, 0, 1, got).selected == before.selected);
    assert_memory_equal(got, want, sizeof got);
    /* a page that is copied over it, and a slot that is moved into it */
    const int32_t spare = l.table[N_PAGES - 1];
    assert_ok(l.be->ops->kv_write(l.be, 0, &spare, 1, page + bytes, &err), err);
    const kv_copy copy = {.group = 0, .src = spare, .dst = at};
    const batch_seq s = {.table = {l.table}};
    const struct batch_move move = {.seq = 0, .src = block * KV_PAGE_LEN + 10, .dst = block * KV_PAGE_LEN + 9};
    const batch in = {.n_seqs = 1, .seqs = &s, .n_copies = 1, .copies = &copy};
    const batch moves = {.n_seqs = 1, .seqs = &s, .n_moves = 1, .moves = &move};
    assert_ok(l.be->ops->move(l.be, &in, &err), err);
    run(&l, &x, 0, 1, got);
    assert_memory_not_equal(got, want, sizeof got);
    assert_ok(l.be->ops->move(l.be, &moves, &err), err);
    assert_true(run(&l, &x, 0, 1, got).selected == before.selected);
    l.be->ops->kv_drop(l.be, 0);
    assert_ok(l.be->ops->kv_renew(l.be, 0, &err), err);
    fill(&l);
    run(&l, &x, 0, 1, got);
    assert_memory_equal(got, want, sizeof got);
    free(page);
    close_lab(&l);
}

/* Which rule a row follows: prompts their own, but for their tail; short rows none. */
static void rules_by_kind_of_row(void **state)
{
    (void)state;
    static rows x;
    float out[4 * ROW];
    rng r;
    sparse_config c = configs[0];
    rng_seed(&r, 6);
    c.prompt = (sparse_rule){SPARSE_MASS, .threshold = 0.05f, .sink = 2, .window = 4, .cap = 1, .hard = 1, .tail = 128};
    for (int i = 0; i < 2; i++) {
        lab l;
        open_lab(&l, "cpu", 2, &c, KV_F16, KV_F16);
        fill_rows(&x, &r, 4);
        assert_int_equal(run(&l, &x, 0, 4, out).choices, i ? 0 : 4 * N_KV);
        x.is_prompt = true;
        x.prompt_end = N_SLOTS + 1000;
        assert_int_equal(run(&l, &x, 0, 4, out).choices, 4 * N_KV);
        x.prompt_end = N_SLOTS - 2 + 128; /* the last two rows are of the tail */
        assert_int_equal(run(&l, &x, 0, 4, out).choices, 2 * N_KV);
        for (int j = 0; j < 4; j++) x.pos[j] = 497 + j;
        x.prompt_end = N_SLOTS;
        assert_int_equal(run(&l, &x, 0, 4, out).choices, 2 * N_KV); /* 500 and 501 keys */
        for (int j = 0; j < 4; j++) x.pos[j] = 0;
        assert_int_equal(run(&l, &x, 0, 4, out).choices, 0);
        close_lab(&l);
        c.decode.kind = SPARSE_OFF;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_by_kind_of_row),
        cmocka_unit_test(what_is_left_out_is_known),
        cmocka_unit_test(summaries_follow_their_pages),
        cmocka_unit_test(trees_have_the_bits_of_chains),
        cmocka_unit_test(rows_have_the_bits_that_they_have_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

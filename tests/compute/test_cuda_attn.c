/* Heads, cache and attention on a CUDA device: against the scalar backend, and trees, moves and copies against plain
 * steps; what a backend must refuse. */
#include "compute/cuda_testing.h"

/* K and V are rounded to f16 or q8_0 from sums of another order, queries and weights to f16. */
#define ATTN_TOLERANCE 2e-3

/* ---- cases: heads and attention ---- */

static const double *add_freqs(fixture *f, int head_dim, int n_rot)
{
    double freq[256];
    for (int i = 0; i < n_rot; i++) freq[i] = pow(10000, -2.0 * i / head_dim);
    return plan_keep_freqs(f->p, freq, n_rot);
}

static void rope_case(int n_heads, int head_dim, int n_rot)
{
    fixture f;
    begin(&f, "rope_q");
    uint32_t width = (uint32_t)(n_heads * head_dim);
    int x = add_input(&f, TYPE_F32, width, true, 1), o = add_output(&f, ROWS_ALL, VALUE_F32, width);
    plan_op *op = add_op(&f, OP_ROPE_Q, x, -1, o);
    op->w0 = add_vector(&f, (uint32_t)head_dim);
    op->n_heads = n_heads;
    op->head_dim = head_dim;
    op->n_rot = n_rot;
    op->inv_freq = add_freqs(&f, head_dim, n_rot);
    check(&f, o);
}

static void test_rope_q(void **state)
{
    (void)state;
    rope_case(4, 256, 128);
    rope_case(2, 512, 64);
    rope_case(3, 64, 32);
}

typedef struct attn_shape {
    int n_heads, n_kv_heads, head_dim, window;
    kv_type k, v;
    bool turns_q; /* queries are turned right before the keys: one launch does both */
} attn_shape;

/* Queries, keys and values of a row are projections of its token; returns the output of attention. */
static int add_attention(fixture *f, attn_shape s)
{
    uint32_t q_width = (uint32_t)(s.n_heads * s.head_dim), kv_width = (uint32_t)(s.n_kv_heads * s.head_dim);
    int q = add_input(f, TYPE_F32, q_width, true, 0.3), k = add_input(f, TYPE_F32, kv_width, true, 1),
        v = add_input(f, TYPE_F32, kv_width, true, 1), o = add_output(f, ROWS_ALL, VALUE_F32, q_width);
    const double *freqs = add_freqs(f, s.head_dim, s.head_dim / 2);
    f->layer = (kv_layer_desc){.n_kv_heads = s.n_kv_heads, .head_dim = s.head_dim, .k_type = s.k, .v_type = s.v};
    f->kv = (kv_desc){.n_groups = 1, .n_layers = 1, .groups = {{s.window, N_PAGES}}, .layers = &f->layer};
    f->has_kv = true;
    plan_op *op;
    if (s.turns_q) {
        int turned = plan_value_new(f->p, ROWS_ALL, VALUE_F32, q_width, false, "turned");
        op = add_op(f, OP_ROPE_Q, q, -1, turned);
        op->w0 = add_vector(f, (uint32_t)s.head_dim);
        op->n_heads = s.n_heads;
        op->head_dim = s.head_dim;
        op->n_rot = s.head_dim / 2;
        op->inv_freq = freqs;
        q = turned;
    }
    op = add_op(f, OP_KV_WRITE, k, v, -1);
    op->w0 = add_vector(f, (uint32_t)s.head_dim);
    op->has_v_norm = true;
    op->n_rot = s.head_dim / 2;
    op->inv_freq = freqs;
    op->kv_layer = 0;
    op->n_heads = s.n_heads;
    op->n_kv_heads = s.n_kv_heads;
    op->head_dim = s.head_dim;
    op = add_op(f, OP_ATTN, q, -1, o);
    op->kv_layer = 0;
    op->window = s.window;
    op->n_heads = s.n_heads;
    op->n_kv_heads = s.n_kv_heads;
    op->head_dim = s.head_dim;
    op->attn_scale = 0.2f;
    return o;
}

static void test_attn(void **state)
{
    (void)state;
    static const attn_shape shapes[] = {
        {4, 1, 256, 0, KV_F16, KV_F16, true},      {8, 2, 256, 16, KV_Q8_0, KV_Q8_0, true},
        {4, 2, 512, 0, KV_Q8_0, KV_F16, false},    {2, 2, 64, 5, KV_F16, KV_Q8_0, true},
        {16, 1, 512, 0, KV_F16, KV_F16, true},     {4, 2, 128, 0, KV_F32, KV_F32, true},
        {2, 1, 64, 7, KV_Q8_0, KV_F32, false},     {4, 1, 512, 0, KV_F32, KV_Q8_0, true},
        {8, 1, 512, 0, KV_Q8_0, KV_Q8_0, true},    {6, 2, 128, 30, KV_F16, KV_Q8_0, false},
        {2, 2, 256, 0, KV_F16, KV_F16, false},     {4, 4, 512, 70, KV_F16, KV_Q8_0, false},
        {8, 2, 128, 0, KV_Q8_0, KV_F16, true},     {3, 1, 256, 1, KV_F16, KV_F16, true},
        {64, 1, 128, 0, KV_F16, KV_F16, false},    {8, 2, 256, 16, KV_Q4_0, KV_Q4_0, true},
        {8, 1, 512, 0, KV_TQ3_0, KV_TQ3_0, true},  {4, 2, 128, 0, KV_ROT_Q8_0, KV_ROT_Q4_0, true},
        {4, 2, 512, 70, KV_Q8_0, KV_TQ3_0, false}, {2, 2, 256, 0, KV_TQ3_0, KV_F16, true},
        {16, 2, 128, 9, KV_F16, KV_TQ3_0, true},   {4, 1, 256, 0, KV_ROT_Q4_0, KV_ROT_Q8_0, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        fixture f;
        begin(&f, "attention");
        f.tolerance = ATTN_TOLERANCE;
        check(&f, add_attention(&f, shapes[i]));
    }
}

/* Steps of up to 64 rows to position n; the last step's output stays to be read. */
static void fill(device *d, int n)
{
    for (int at = 0; at < n; at += 64) {
        rows r;
        make_rows(&r, at, n - at < 64 ? n - at : 64);
        for (int i = 0; i < r.in.n_rows; i++) r.token[i] = (at + i) % MAX_ROWS;
        run(d, &r);
    }
}

/* Steps of n rows that end at depth, for several n: the last row has the same bits in each. */
static void check_last_row(const fixture *f, device *cuda, int value, int depth, const float *last)
{
    static const int widths[] = {1, 2, 3, 5, 9, 17, 40, 64, 65, 96}; /* above 64, rows take all keys at once */
    const size_t width = f->p->values[value].width;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int n = widths[w];
        rows r;
        make_rows(&r, depth - n, n);
        for (int i = 0; i < n; i++) r.token[i] = (depth - n + i) % MAX_ROWS;
        run(cuda, &r);
        float *got = read_output(f, cuda, value, n);
        assert_bits(f, "last row of a step = last row of another", last, got + (size_t)(n - 1) * width, width);
        free(got);
    }
}

/* A long context: several splits, groups and sets of them. */
static void test_attn_splits(void **state)
{
    (void)state;
    static const struct {
        attn_shape shape;
        int depth;
    } cases[] = {{{4, 2, 128, 0, KV_F16, KV_F16, true}, 1300},      {{4, 2, 128, 600, KV_Q8_0, KV_Q8_0, false}, 1300},
                 {{4, 2, 128, 0, KV_F32, KV_F32, true}, 1300},      {{2, 1, 64, 0, KV_F16, KV_Q8_0, true}, 4700},
                 {{2, 1, 128, 0, KV_F16, KV_Q8_0, true}, 4700},     {{4, 4, 128, 0, KV_Q8_0, KV_F16, false}, 4350},
                 {{8, 1, 512, 0, KV_F16, KV_F16, true}, 760},       {{8, 1, 512, 0, KV_Q8_0, KV_Q8_0, true}, 1159},
                 {{4, 2, 256, 500, KV_F16, KV_F16, true}, 1027},    {{4, 2, 256, 1024, KV_Q8_0, KV_Q8_0, true}, 1472},
                 {{8, 1, 512, 0, KV_Q8_0, KV_TQ3_0, true}, 760},    {{4, 2, 256, 500, KV_TQ3_0, KV_TQ3_0, true}, 1027},
                 {{4, 2, 128, 0, KV_Q4_0, KV_ROT_Q4_0, true}, 1300}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int depth = cases[i].depth;
        fixture f;
        facet_error err;
        backend_config cfg = {.n_threads = 8};
        device ref = {0}, cuda = {0};
        begin(&f, "attention over splits");
        f.tolerance = ATTN_TOLERANCE;
        int o = add_attention(&f, cases[i].shape), last = (depth - 1) % 64 + 1;
        assert_ok(plan_finish(f.p, &err), err);
        if (!open_cuda(&cuda.b)) {
            end(&f);
            skip();
        }
        assert_ok(backend_open("ref", &cfg, &ref.b, &err), err);
        prepare(&f, &ref);
        prepare(&f, &cuda);
        fill(&ref, depth);
        fill(&cuda, depth);
        float *want = read_output(&f, &ref, o, last), *got = read_output(&f, &cuda, o, last);
        const size_t width = f.p->values[o].width;
        compare(&f, want, got, (size_t)last * width, last);
        check_last_row(&f, &cuda, o, depth, got + (size_t)(last - 1) * width);
        free(want);
        free(got);
        close_device(&ref);
        close_device(&cuda);
        end(&f);
    }
}

/* Steps of more than 64 rows, which a block takes whole, at some depth. */
static void test_attn_prompt(void **state)
{
    (void)state;
    static const attn_shape shapes[] = {{8, 1, 512, 0, KV_F16, KV_F16, true},
                                        {4, 2, 256, 300, KV_Q8_0, KV_Q8_0, true},
                                        {8, 2, 128, 0, KV_Q8_0, KV_F16, false},
                                        {4, 2, 256, 0, KV_TQ3_0, KV_TQ3_0, true},
                                        {8, 1, 512, 0, KV_Q4_0, KV_ROT_Q8_0, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        fixture f;
        facet_error err;
        backend_config cfg = {.n_threads = 8};
        device ref = {0}, cuda = {0};
        begin(&f, "attention of a prompt");
        f.tolerance = ATTN_TOLERANCE;
        const int o = add_attention(&f, shapes[i]);
        assert_ok(plan_finish(f.p, &err), err);
        if (!open_cuda(&cuda.b)) {
            end(&f);
            skip();
        }
        assert_ok(backend_open("ref", &cfg, &ref.b, &err), err);
        prepare(&f, &ref);
        prepare(&f, &cuda);
        for (int at = 0; at < 5 * MAX_ROWS; at += MAX_ROWS) {
            rows r;
            make_rows(&r, at, MAX_ROWS);
            for (int j = 0; j < MAX_ROWS; j++) r.token[j] = (at + 5 * j) % MAX_ROWS;
            run(&ref, &r);
            run(&cuda, &r);
            float *want = read_output(&f, &ref, o, MAX_ROWS), *got = read_output(&f, &cuda, o, MAX_ROWS);
            compare(&f, want, got, (size_t)MAX_ROWS * f.p->values[o].width, MAX_ROWS);
            free(want);
            free(got);
        }
        close_device(&ref);
        close_device(&cuda);
        end(&f);
    }
}

/* Two sequences of different lengths in one step: each row has the bits that it has alone. */
static void test_attn_sequences(void **state)
{
    (void)state;
    enum { N_A = 3, N_B = 4, AT_A = 500, AT_B = 90, N = N_A + N_B };
    static const attn_shape shapes[] = {{8, 1, 512, 0, KV_F16, KV_F16, false},
                                        {4, 2, 256, 200, KV_Q8_0, KV_F16, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        fixture f;
        facet_error err;
        device cuda = {0};
        begin(&f, "attention of two sequences");
        const int o = add_attention(&f, shapes[i]);
        const size_t width = f.p->values[o].width;
        assert_ok(plan_finish(f.p, &err), err);
        if (!open_cuda(&cuda.b)) {
            end(&f);
            skip();
        }
        prepare(&f, &cuda);
        int32_t table_b[N_PAGES]; /* the last pages of the first one's table, which it never reaches */
        rows r;
        for (int at = 0; at < AT_A; at += 50) {
            make_rows(&r, at, 50);
            for (int j = 0; j < 50; j++) r.token[j] = (at + j) % MAX_ROWS;
            run(&cuda, &r);
        }
        for (int j = 0; j < N_PAGES; j++) table_b[j] = r.table[N_PAGES - 1 - j % 16];
        for (int at = 0; at < AT_B; at += 45) {
            make_rows(&r, at, 45);
            r.seqs[0].table[0] = table_b;
            run(&cuda, &r);
        }
        float *alone = malloc(N * width * sizeof *alone);
        assert_non_null(alone);
        for (int j = 0; j < N; j++) {
            const int at = j < N_A ? AT_A + j : AT_B + j - N_A;
            make_rows(&r, at, 1);
            r.token[0] = j;
            if (j >= N_A) r.seqs[0].table[0] = table_b;
            run(&cuda, &r);
            float *one = read_output(&f, &cuda, o, 1);
            memcpy(alone + (size_t)j * width, one, width * sizeof *one);
            free(one);
        }
        make_rows(&r, 0, N);
        batch_seq seqs[2] = {{.table = {r.table}, .base = AT_A}, {.table = {table_b}, .base = AT_B}};
        for (int j = 0; j < N; j++) {
            r.seq[j] = j >= N_A;
            r.pos[j] = r.slot[j] = j < N_A ? AT_A + j : AT_B + j - N_A;
            r.token[j] = j;
        }
        r.in.seqs = seqs;
        r.in.n_seqs = 2;
        run(&cuda, &r);
        float *together = read_output(&f, &cuda, o, N);
        assert_bits(&f, "row alone = row beside another sequence", alone, together, N * width);
        free(alone);
        free(together);
        close_device(&cuda);
        end(&f);
    }
}

/* The tree below stands at a base; node: parent, so depth and path follow. The path 0, 2, 3, 5 is then accepted. */
enum { TREE_NODES = 7, TREE_DEPTH = 4 };
static const int tree_parent[TREE_NODES] = {-1, 0, 0, 2, 2, 3, 1};
static const int tree_path[TREE_DEPTH] = {0, 2, 3, 5};

static void make_tree(rows *r, int base)
{
    make_rows(r, base, TREE_NODES);
    for (int j = 0; j < TREE_NODES; j++) {
        int depth = 0, node = j;
        for (int up = j; tree_parent[up] >= 0; up = tree_parent[up]) depth++;
        r->pos[j] = base + depth;
        r->slot[j] = base + j;
        r->token[j] = j;
        for (int d = depth; d >= 0; d--, node = node >= 0 ? tree_parent[node] : -1) r->path[j][d] = (uint8_t)node;
    }
    r->in.path = (const uint8_t(*)[BATCH_MAX_TREE])r->path;
}

static void tree_case(attn_shape shape, int base)
{
    fixture f;
    facet_error err;
    device tree = {0}, plain = {0};
    begin(&f, "attention of a tree");
    int o = add_attention(&f, shape);
    uint32_t width = f.p->values[o].width;
    assert_ok(plan_finish(f.p, &err), err);
    if (!open_cuda(&tree.b)) {
        end(&f);
        skip();
    }
    assert_true(open_cuda(&plain.b));
    prepare(&f, &tree);
    prepare(&f, &plain);
    fill(&tree, base);
    fill(&plain, base);

    rows r;
    make_tree(&r, base);
    run(&tree, &r);
    float *nodes = read_output(&f, &tree, o, TREE_NODES);
    for (int d = 0; d < TREE_DEPTH; d++) {
        make_rows(&r, base + d, 1);
        r.token[0] = tree_path[d];
        run(&plain, &r);
        float *step = read_output(&f, &plain, o, 1);
        assert_bits(&f, "tree row = plain step", nodes + (size_t)tree_path[d] * width, step, width);
        free(step);
    }
    free(nodes);

    struct batch_move moves[TREE_DEPTH];
    for (int d = 0; d < TREE_DEPTH; d++) moves[d] = (struct batch_move){0, base + tree_path[d], base + d};
    make_rows(&r, base + TREE_DEPTH, 1);
    r.token[0] = TREE_NODES;
    run(&plain, &r);
    r.in.moves = moves;
    r.in.n_moves = TREE_DEPTH;
    run(&tree, &r);
    float *a = read_output(&f, &tree, o, 1), *b = read_output(&f, &plain, o, 1);
    assert_bits(&f, "step after compaction = plain step", a, b, width);
    free(a);
    free(b);
    close_device(&tree);
    close_device(&plain);
    end(&f);
}

/* A tree row has the bits of the plain step along its path; after the moves, so has the step that follows. */
static void test_attn_tree(void **state)
{
    (void)state;
    tree_case((attn_shape){4, 2, 128, 0, KV_Q8_0, KV_F16, false}, 70);
    tree_case((attn_shape){2, 1, 64, 0, KV_Q8_0, KV_F16, false}, 70);
    tree_case((attn_shape){8, 1, 512, 0, KV_F16, KV_F16, true}, 62);
    tree_case((attn_shape){8, 1, 512, 0, KV_Q8_0, KV_Q8_0, true}, 1022);
    tree_case((attn_shape){4, 2, 256, 0, KV_F16, KV_Q8_0, true}, 0);
    tree_case((attn_shape){4, 2, 256, 100, KV_F16, KV_F16, true}, 381);
    tree_case((attn_shape){4, 2, 256, 3, KV_Q8_0, KV_F16, true}, 254);
    tree_case((attn_shape){8, 1, 512, 0, KV_Q8_0, KV_TQ3_0, true}, 62);
    tree_case((attn_shape){4, 2, 256, 100, KV_TQ3_0, KV_Q4_0, true}, 381);
}

/* A copied page holds the same keys: the same step through either table. */
static void test_page_copy(void **state)
{
    (void)state;
    fixture f;
    facet_error err;
    device cuda = {0};
    begin(&f, "page copy");
    int o = add_attention(&f, (attn_shape){4, 2, 128, 0, KV_Q8_0, KV_F16, false});
    assert_ok(plan_finish(f.p, &err), err);
    if (!open_cuda(&cuda.b)) {
        end(&f);
        skip();
    }
    prepare(&f, &cuda);
    fill(&cuda, 80);
    rows r;
    make_rows(&r, 80, 1);
    run(&cuda, &r);
    float *want = read_output(&f, &cuda, o, 1);
    kv_copy copy = {.group = 0, .src = r.table[1], .dst = r.table[9]};
    r.table[1] = r.table[9];
    r.in.copies = &copy;
    r.in.n_copies = 1;
    run(&cuda, &r);
    float *got = read_output(&f, &cuda, o, 1);
    assert_bits(&f, "copied page = page", want, got, f.p->values[o].width);
    free(want);
    free(got);
    close_device(&cuda);
    end(&f);
}

/* ---- cases: refusals; the backend works after each ---- */

static void expect_refusal(device *d, const rows *r, facet_status want)
{
    facet_error err;
    facet_status got = d->b->ops->run(d->b, d->c, &r->in, &err);
    if (got != want) fail_msg("status %d, wanted %d", (int)got, (int)want);
}

static void test_refusals(void **state)
{
    (void)state;
    fixture f;
    facet_error err;
    device cuda = {0};
    begin(&f, "refusals");
    int o = add_attention(&f, (attn_shape){4, 2, 128, 0, KV_F16, KV_F16, true});
    assert_ok(plan_finish(f.p, &err), err);
    if (!open_cuda(&cuda.b)) {
        end(&f);
        skip();
    }
    prepare(&f, &cuda);
    rows r;
    make_rows(&r, 0, 4);
    run(&cuda, &r);
    r.token[1] = MAX_ROWS;
    expect_refusal(&cuda, &r, FACET_ERR_ARG);
    make_rows(&r, 0, 4);
    r.table[0] = -1;
    expect_refusal(&cuda, &r, FACET_ERR_ARG);
    make_rows(&r, 0, 4);
    r.seq[3] = 1;
    expect_refusal(&cuda, &r, FACET_ERR_ARG);
    make_rows(&r, 0, 4);
    r.in.n_rows = MAX_ROWS + 1;
    expect_refusal(&cuda, &r, FACET_ERR_LIMIT);

    kv_desc huge = f.kv;
    huge.groups[0].n_pages = 1 << 22;
    backend *other;
    assert_true(open_cuda(&other));
    assert_int_equal(other->ops->kv_alloc(other, &huge, &err), FACET_ERR_MEMORY);
    assert_non_null(strstr(err.message, "MiB"));
    assert_ok(other->ops->kv_alloc(other, &f.kv, &err), err);
    other->ops->close(other);

    make_rows(&r, 0, 4);
    run(&cuda, &r);
    free(read_output(&f, &cuda, o, 4));
    close_device(&cuda);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rope_q),      cmocka_unit_test(test_attn),           cmocka_unit_test(test_attn_splits),
        cmocka_unit_test(test_attn_prompt), cmocka_unit_test(test_attn_sequences), cmocka_unit_test(test_attn_tree),
        cmocka_unit_test(test_page_copy),   cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

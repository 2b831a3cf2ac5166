/* Products on a CUDA device: every type against sums in double of the exact weights, and bit for bit against
 * themselves: a row alone, in every width, at several columns, and joined with other products. */
#define CUDA_TEST_ROWS 210
#include "compute/cuda_testing.h"

/* f16 weights times f16 activations, sums in f32: each operand is off by at most 2^-11 of itself, minima and scales of
 * weights likewise. Of the root of the sum of squared products, which a sum that cancels does not shrink. */
#define TOLERANCE_PRODUCT 2e-3
/* Weights that are floats are exact, and activations then have twice the bits. */
#define TOLERANCE_FLOAT 2e-5

static const int widths[] = {1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 32, 33, 64, 65, 77, 128, 130, 193, MAX_ROWS};
enum { N_WIDTHS = sizeof widths / sizeof widths[0] };

/* Rows of very different sizes: f16 would overflow on some and vanish on others. */
static int add_scaled_input(fixture *f, uint32_t width)
{
    int v = add_input(f, TYPE_F32, width, true, 1);
    float *x = (float *)(uintptr_t)f->weights[f->n_weights - 1].data;
    for (size_t r = 0; r < MAX_ROWS; r++)
        for (size_t k = 0; k < width; k++) x[r * width + k] *= powf(10, (float)(r % 5) * 3 - 6);
    return v;
}

static const float *input_row(const fixture *f, int matrix, int row)
{
    return (const float *)f->weights[matrix].data + (size_t)row * f->weights[matrix].ne[0];
}

/* Row n of a matrix; the caller frees it. */
static float *decoded(const fixture *f, int matrix, uint32_t n)
{
    const weight *w = &f->weights[matrix];
    const type_info *t = type_get(w->type);
    float *row = malloc((size_t)w->ne[0] * sizeof *row);
    assert_non_null(row);
    t->decode((const uint8_t *)w->data + n * type_bytes(t, (size_t)w->ne[0]), row, (size_t)w->ne[0]);
    return row;
}

/* In double; the squares of the products are added to *squares, unless it is NULL. */
static double dot(const float *w, const float *x, size_t n, double *squares)
{
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        const double product = (double)w[k] * (double)x[k];
        sum += product;
        if (squares) *squares += product * product;
    }
    return sum;
}

/* Output n of a matrix for one row. */
static double exact(const fixture *f, int matrix, uint32_t n, const float *x)
{
    float *row = decoded(f, matrix, n);
    const double sum = dot(row, x, (size_t)f->weights[matrix].ne[0], NULL);
    free(row);
    return sum;
}

/* Every `step`-th output of the rows against double, row by row. */
static void compare_exact(const fixture *f, int matrix, int input, double scale, const float *got, int n_rows,
                          uint32_t step)
{
    const size_t n_in = (size_t)f->weights[matrix].ne[0];
    const uint32_t n_out = (uint32_t)f->weights[matrix].ne[1];
    double errors[MAX_ROWS] = {0}, norms[MAX_ROWS] = {0};
    for (uint32_t n = 0; n < n_out; n += step) {
        float *row = decoded(f, matrix, n);
        for (int r = 0; r < n_rows; r++) {
            const double want = scale * dot(row, input_row(f, input, r), n_in, &norms[r]);
            errors[r] += pow((double)got[(size_t)r * n_out + n] - want, 2);
        }
        free(row);
    }
    for (int r = 0; r < n_rows; r++) {
        const double error = errors[r], norm = norms[r] * scale * scale;
        const double tolerance = is_float(f->weights[matrix].type) ? TOLERANCE_FLOAT : TOLERANCE_PRODUCT;
        if (!(sqrt(error) <= tolerance * sqrt(norm)))
            fail_msg("%s, %u outputs of %u inputs, %d rows: row %d is off by %g, wanted %g", f->what, n_out,
                     (unsigned)f->weights[matrix].ne[0], n_rows, r, sqrt(error / norm), tolerance);
    }
}

static bool open_case(fixture *f, device *cuda)
{
    facet_error err;
    assert_ok(plan_finish(f->p, &err), err);
    if (!open_cuda(&cuda->b)) {
        end(f);
        skip();
        return false;
    }
    prepare(f, cuda);
    return true;
}

/* The output of rows first .. first + n. */
static float *run_rows(const fixture *f, device *cuda, int value, int first, int n)
{
    rows r;
    make_rows(&r, first, n);
    run(cuda, &r);
    return read_output(f, cuda, value, n);
}

/* Row by row: alone, and in batches that begin elsewhere, so that it stands in another column. */
static void check_bits(const fixture *f, device *cuda, int value)
{
    const uint32_t width = f->p->values[value].width;
    const size_t bytes = width * sizeof(float);
    float *alone = malloc(MAX_ROWS * bytes);
    assert_non_null(alone);
    for (int r = 0; r < MAX_ROWS; r++) {
        float *one = run_rows(f, cuda, value, r, 1);
        memcpy(alone + (size_t)r * width, one, bytes);
        free(one);
    }
    for (int i = 0; i < N_WIDTHS; i++)
        for (int first = 0; first + widths[i] <= MAX_ROWS && first < 24; first += 11) {
            float *all = run_rows(f, cuda, value, first, widths[i]);
            char property[64];
            snprintf(property, sizeof property, "row alone = row in %d from %d", widths[i], first);
            assert_bits(f, property, alone + (size_t)first * width, all, (size_t)widths[i] * width);
            free(all);
        }
    free(alone);
}

static void product_case(tensor_type type, const char *name, uint32_t n_in, uint32_t n_out)
{
    fixture f;
    device cuda = {0};
    begin(&f, name);
    int x = add_scaled_input(&f, n_in), o = add_output(&f, ROWS_ALL, VALUE_F32, n_out);
    plan_op *op = add_op(&f, OP_LINEAR, x, -1, o);
    op->w0 = add_matrix(&f, type, n_in, n_out, 1);
    op->scale = 0.75f;
    if (!open_case(&f, &cuda)) return;
    float *all = run_rows(&f, &cuda, o, 0, MAX_ROWS), *one = run_rows(&f, &cuda, o, 0, 1);
    compare_exact(&f, 1, 0, 0.75, all, MAX_ROWS, 1);
    compare_exact(&f, 1, 0, 0.75, one, 1, 1);
    free(all);
    free(one);
    check_bits(&f, &cuda, o);
    close_device(&cuda);
    end(&f);
}

/* Short and odd rows, one chain; several chains; more of them than a group of warps takes at once. */
static void every_type(tensor_type type, const type_info *info)
{
    const uint32_t unit = info->block_len > 1 ? info->block_len : 20;
    if (type == TYPE_F32) return;
    product_case(type, info->name, unit, 5);
    product_case(type, info->name, unit * (256 / unit) * 3 + (unit < 256 ? unit : 0), 130);
    product_case(type, info->name, 5376, 37);
    product_case(type, info->name, unit < 256 ? 2112 : 2816, 400);
}

static void test_every_type(void **state)
{
    (void)state;
    for_each_type(every_type);
}

/* The long rows of real models: 12 and 11 chains. */
static void test_long_rows(void **state)
{
    (void)state;
    product_case(TYPE_Q4_K, "Q4_K", 21504, 48);
    product_case(TYPE_Q6_K, "Q6_K", 15360, 23);
    product_case(TYPE_Q8_0, "Q8_0", 21504, 16);
}

static void fill_q4_0(fixture *f, int matrix)
{
    uint8_t *b = (uint8_t *)(uintptr_t)f->weights[matrix].data;
    uint16_t d = f32_to_f16(0.003f);
    for (size_t i = 0; i < f->weights[matrix].bytes; i++) b[i] = (uint8_t)rng_below(&f->random, 256);
    for (size_t i = 0; i < f->weights[matrix].bytes; i += 18) memcpy(b + i, &d, sizeof d);
}

/* So many outputs that the sums of the chains need more than one launch. */
static void test_many_outputs(void **state)
{
    (void)state;
    enum { N_IN = 2304, N_OUT = 90000 };
    fixture f;
    device cuda = {0};
    begin(&f, "Q4_0, many outputs");
    int x = add_scaled_input(&f, N_IN), o = add_output(&f, ROWS_ALL, VALUE_F32, N_OUT);
    plan_op *op = add_op(&f, OP_LINEAR, x, -1, o);
    op->w0 = f.n_weights++;
    size_t bytes = type_bytes(type_get(TYPE_Q4_0), (size_t)N_IN * N_OUT);
    f.weights[op->w0] =
        (weight){.type = TYPE_Q4_0, .ne = {N_IN, N_OUT, 1}, .data = malloc(bytes), .bytes = bytes, .is_matrix = true};
    assert_non_null(f.weights[op->w0].data);
    fill_q4_0(&f, op->w0);
    if (!open_case(&f, &cuda)) return;
    for (int i = 0; i < N_WIDTHS; i += 4) {
        float *got = run_rows(&f, &cuda, o, 0, widths[i]), *one = run_rows(&f, &cuda, o, widths[i] - 1, 1);
        compare_exact(&f, 1, 0, 1, got, widths[i], 1009);
        assert_bits(&f, "row alone = last row", one, got + (size_t)(widths[i] - 1) * N_OUT, N_OUT);
        free(got);
        free(one);
    }
    close_device(&cuda);
    end(&f);
}

static double act_exact(op_activation act, double x)
{
    if (act == ACT_SILU) return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
}

/* Every `step`-th output is compared. */
static void gated_case(tensor_type gate, tensor_type up, uint32_t n_in, uint32_t n_out, uint32_t step,
                       op_activation act)
{
    fixture f;
    device cuda = {0};
    begin(&f, type_get(gate)->name);
    int x = add_input(&f, TYPE_F32, n_in, true, 1), o = add_output(&f, ROWS_ALL, VALUE_F32, n_out);
    plan_op *op = add_op(&f, OP_GATED, x, -1, o);
    op->w0 = add_matrix(&f, gate, n_in, n_out, 1);
    op->w1 = add_matrix(&f, up, n_in, n_out, 1);
    op->activation = act;
    op->scale = 1.5f;
    op->scale2 = 0.5f;
    if (!open_case(&f, &cuda)) return;
    float *all = run_rows(&f, &cuda, o, 0, MAX_ROWS);
    double error = 0, norm = 0;
    for (uint32_t n = 0; n < n_out; n += step) {
        float *gates = decoded(&f, 1, n), *ups = decoded(&f, 2, n);
        for (int r = 0; r < MAX_ROWS; r++) {
            const float *in = input_row(&f, 0, r);
            double want = act_exact(act, 1.5 * dot(gates, in, n_in, NULL)) * 0.5 * dot(ups, in, n_in, NULL);
            double e = (double)all[(size_t)r * n_out + n] - want;
            error += e * e;
            norm += want * want;
        }
        free(gates);
        free(ups);
    }
    if (!(sqrt(error) <= 2 * TOLERANCE_PRODUCT * sqrt(norm)))
        fail_msg("gated %s: off by %g, wanted %g", f.what, sqrt(error / norm), 2 * TOLERANCE_PRODUCT);
    free(all);
    check_bits(&f, &cuda, o);
    close_device(&cuda);
    end(&f);
}

static void test_gated(void **state)
{
    (void)state;
    gated_case(TYPE_Q4_K, TYPE_Q4_K, 2816, 300, 1, ACT_GELU);
    gated_case(TYPE_Q4_K, TYPE_Q4_K, 5376, 45, 1, ACT_GELU);
    gated_case(TYPE_Q5_0, TYPE_Q5_0, 2112, 100, 1, ACT_SILU);
    gated_case(TYPE_Q8_0, TYPE_Q8_0, 1536, 128, 1, ACT_GELU);
    gated_case(TYPE_Q4_K, TYPE_Q6_K, 768, 33, 1, ACT_GELU); /* two launches */
    gated_case(TYPE_F16, TYPE_F16, 1024, 33, 1, ACT_SILU);
    gated_case(TYPE_Q4_0, TYPE_Q4_0, 2304, 9100, 97, ACT_GELU); /* several rounds of tiles */
}

/* Q, K and V of one input, as joined launches do them, against each alone: the same bits. */
static void test_joined(void **state)
{
    (void)state;
    enum { N_IN = 5376 };
    static const uint32_t n_out[] = {200, 70, 33};
    static const tensor_type types[] = {TYPE_Q4_K, TYPE_Q4_K, TYPE_Q6_K};
    fixture f;
    device cuda = {0};
    begin(&f, "joined products");
    int x = add_input(&f, TYPE_F32, N_IN, true, 1), joined[3], alone[3];
    for (int i = 0; i < 3; i++) {
        joined[i] = add_output(&f, ROWS_ALL, VALUE_F32, n_out[i]);
        plan_op *op = add_op(&f, OP_LINEAR, x, -1, joined[i]);
        op->w0 = add_matrix(&f, types[i], N_IN, n_out[i], 1);
        op->scale = (float)(i + 1);
    }
    for (int i = 0; i < 3; i++) {
        int copy = plan_value_new(f.p, ROWS_ALL, VALUE_F32, N_IN, false, "copy");
        add_op(&f, OP_CAPTURE, x, -1, copy);
        alone[i] = add_output(&f, ROWS_ALL, VALUE_F32, n_out[i]);
        plan_op *op = add_op(&f, OP_LINEAR, copy, -1, alone[i]);
        op->w0 = i + 1;
        op->scale = (float)(i + 1);
    }
    if (!open_case(&f, &cuda)) return;
    for (int w = 0; w < N_WIDTHS; w++)
        for (int i = 0; i < 3; i++) {
            float *a = run_rows(&f, &cuda, joined[i], 0, widths[w]), *b = read_output(&f, &cuda, alone[i], widths[w]);
            assert_bits(&f, "joined = alone", a, b, (size_t)widths[w] * n_out[i]);
            compare_exact(&f, i + 1, 0, i + 1, a, widths[w] < 3 ? widths[w] : 3, 1);
            free(a);
            free(b);
        }
    close_device(&cuda);
    end(&f);
}

/* The head: softcap and suppressed ids on a matrix whose rows are also embeddings. */
static void test_tied_head(void **state)
{
    (void)state;
    enum { N_IN = 1536, N_VOCAB = 1003 };
    fixture f;
    device cuda = {0};
    begin(&f, "tied head");
    int table = add_weight(&f, TYPE_Q6_K, N_IN, N_VOCAB, 1, 0, 1);
    f.weights[table].is_rows = f.weights[table].is_matrix = true;
    int x = plan_value_new(f.p, ROWS_ALL, VALUE_F32, N_IN, true, "x"), o = add_output(&f, ROWS_ALL, VALUE_F32, N_VOCAB);
    plan_op *op = plan_add(f.p, OP_EMBED, -1);
    op->o = x;
    op->w0 = table;
    op = add_op(&f, OP_LINEAR, x, -1, o);
    op->w0 = table;
    op->scale = 0.02f;
    op->epilogue = EPI_LOGITS;
    op->softcap = 30;
    f.p->suppress = mem_alloc(2 * sizeof *f.p->suppress);
    assert_non_null(f.p->suppress);
    f.p->suppress[0] = 7;
    f.p->suppress[1] = N_VOCAB - 1;
    f.p->n_suppress = 2;
    if (!open_case(&f, &cuda)) return;
    float *logits = run_rows(&f, &cuda, o, 0, 64), *embedded = read_output(&f, &cuda, x, 64),
          *want = malloc(N_IN * sizeof *want);
    assert_non_null(want);
    double error = 0, norm = 0;
    for (int r = 0; r < 64; r++) {
        type_get(TYPE_Q6_K)->decode((const uint8_t *)f.weights[table].data + (size_t)r * (N_IN / 256) * 210, want,
                                    N_IN);
        assert_bits(&f, "embedding = decoded row", want, embedded + (size_t)r * N_IN, N_IN);
        for (uint32_t n = 0; n < N_VOCAB; n++) {
            float got = logits[(size_t)r * N_VOCAB + n];
            if (n == 7 || n == N_VOCAB - 1) {
                assert_true(isinf(got) && got < 0);
                continue;
            }
            double y = 30 * tanh(0.02 * exact(&f, table, n, want) / 30);
            error += (got - y) * (got - y);
            norm += y * y;
        }
    }
    if (!(sqrt(error) <= TOLERANCE_PRODUCT * sqrt(norm))) fail_msg("logits are off by %g", sqrt(error / norm));
    free(logits);
    free(embedded);
    free(want);
    check_bits(&f, &cuda, o);
    close_device(&cuda);
    end(&f);
}

/* What is not a number, or too large, must not be hidden. */
static void test_not_finite(void **state)
{
    (void)state;
    fixture f;
    device cuda = {0};
    begin(&f, "NaN and infinity");
    int x = add_input(&f, TYPE_F32, 512, true, 1), o = add_output(&f, ROWS_ALL, VALUE_F32, 40);
    add_op(&f, OP_LINEAR, x, -1, o)->w0 = add_matrix(&f, TYPE_Q4_K, 512, 40, 1);
    float *table = (float *)(uintptr_t)f.weights[0].data;
    table[0 * 512 + 300] = NAN;
    table[2 * 512 + 5] = INFINITY;
    for (int k = 0; k < 512; k++) table[4 * 512 + k] = 0;
    if (!open_case(&f, &cuda)) return;
    float *got = run_rows(&f, &cuda, o, 0, 6);
    for (int n = 0; n < 40; n++) {
        bool row_by_row = isnan(got[n]) && isfinite(got[40 + n]) && !isfinite(got[80 + n]) && isfinite(got[120 + n]);
        assert_true(row_by_row && got[160 + n] == 0);
    }
    free(got);
    close_device(&cuda);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type), cmocka_unit_test(test_long_rows), cmocka_unit_test(test_many_outputs),
        cmocka_unit_test(test_gated),      cmocka_unit_test(test_joined),    cmocka_unit_test(test_tied_head),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

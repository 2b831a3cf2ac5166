/* The row-wise functions: each instruction set gives the scalar one's bits, and those lie close to the exact values. */
#include "testing.h"

#include <math.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "compute/cpu/rows.h"

enum { MAX_N = 1031 };

/* NULL where this build or processor lacks the set. */
static const row_kernels *kernels_of(int set)
{
    const cpu_feature_set *f = cpu_features();
    if (set == 0) return rows_scalar();
    if (set == 1) return f->avx2 ? rows_avx2() : NULL;
    return f->avx512 ? rows_avx512() : NULL;
}

static void fill(rng *r, float *x, size_t n, double sigma)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)(rng_normal(r) * sigma);
}

typedef struct results {
    float norm[MAX_N], norm_add[MAX_N], gelu[MAX_N], silu[MAX_N], cap[MAX_N], turned[512];
    int32_t argmax;
    float max, sum, top[10];
    int32_t top_id[10], n_top;
} results;

static void compute(const row_kernels *k, const float *a, const float *b, size_t n, results *out)
{
    float cs[256];
    for (int i = 0; i < 128; i++) {
        cs[2 * i] = cosf((float)i);
        cs[2 * i + 1] = sinf((float)i);
    }
    memset(out, 0, sizeof *out);
    k->rms_norm(a, b, n, 1e-6f, out->norm);
    k->rms_norm_add(a, b, b, n, 1e-6f, 0.5f, out->norm_add);
    k->gelu_mul(a, b, n, out->gelu);
    k->silu_mul(a, b, n, out->silu);
    memcpy(out->cap, a, n * sizeof *a);
    k->softcap(out->cap, n, 30);
    memcpy(out->turned, a, 512 * sizeof *a);
    k->rotate(out->turned, 512, 128, cs);
    out->argmax = k->argmax(a, n);
    out->max = k->max(a, n);
    out->sum = k->sum_exp(a, n, out->max, 0.7f);
    out->n_top = k->top_k(a, n, 5, 10, out->top, out->top_id, 0);
}

static void test_every_set_gives_the_same_bits(void **state)
{
    (void)state;
    static float a[MAX_N], b[MAX_N];
    static results want, got;
    rng r;
    rng_seed(&r, 1);
    for (size_t n = 512; n <= MAX_N; n += 173) {
        fill(&r, a, MAX_N, 8);
        fill(&r, b, MAX_N, 1);
        compute(rows_scalar(), a, b, n, &want);
        for (int set = 1; set <= 2; set++) {
            if (!kernels_of(set)) continue;
            compute(kernels_of(set), a, b, n, &got);
            assert_memory_equal(&want, &got, sizeof want);
        }
    }
}

static void test_sum_and_best(void **state)
{
    (void)state;
    static float a[MAX_N];
    rng r;
    rng_seed(&r, 2);
    for (size_t n = 1; n <= MAX_N; n += n < 40 ? 1 : 97) {
        fill(&r, a, n, 8);
        if (n > 5) a[3] = -INFINITY;
        double max = -INFINITY, sum = 0;
        for (size_t i = 0; i < n; i++) max = fmax(max, (double)a[i]);
        for (size_t i = 0; i < n; i++) sum += exp(((double)a[i] - max) * 0.7);
        float value[4];
        int32_t id[4];
        assert_true((double)rows_scalar()->max(a, n) == max);
        assert_true(fabs((double)rows_scalar()->sum_exp(a, n, (float)max, 0.7f) / sum - 1) < 1e-5);
        const int held = rows_scalar()->top_k(a, n, 100, 4, value, id, 0);
        assert_int_equal(held, n < 4 ? n : 4);
        for (int j = 0; j < held; j++) {
            size_t before = 0;
            for (size_t i = 0; i < n; i++) before += a[i] > value[j];
            assert_true(before == (size_t)j && a[id[j] - 100] == value[j]);
        }
        a[n / 2] = NAN;
        assert_true(isnan(rows_scalar()->max(a, n)));
    }
}

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want)))) fail_msg("%.9g instead of %.9g", got, want);
}

static void test_values(void **state)
{
    (void)state;
    static float x[MAX_N], ones[MAX_N], gelu[MAX_N], silu[MAX_N], cap[MAX_N];
    for (size_t i = 0; i < MAX_N; i++) {
        x[i] = ((float)i - 515) * 0.05f;
        ones[i] = 1;
        cap[i] = x[i] * 4;
    }
    rows_scalar()->gelu_mul(x, ones, MAX_N, gelu);
    rows_scalar()->silu_mul(x, ones, MAX_N, silu);
    rows_scalar()->softcap(cap, MAX_N, 30);
    for (size_t i = 0; i < MAX_N; i++) {
        const double v = (double)x[i];
        near((double)gelu[i], 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))), 1e-6);
        near((double)silu[i], v / (1 + exp(-v)), 1e-6);
        near((double)cap[i], 30 * tanh(v * 4 / 30), 1e-6);
    }
    assert_true(signbit(gelu[514]) && gelu[515] == 0);
}

static void test_argmax(void **state)
{
    (void)state;
    static float v[MAX_N];
    for (int set = 0; set <= 2; set++) {
        const row_kernels *k = kernels_of(set);
        if (!k) continue;
        for (size_t n = 1; n <= 67; n++)
            for (size_t at = 0; at < n; at++) {
                for (size_t i = 0; i < n; i++) v[i] = -1;
                v[at] = 2;
                assert_int_equal(k->argmax(v, n), at);
                v[n - 1] = 2; /* the lowest of equals */
                assert_int_equal(k->argmax(v, n), at);
                v[at / 2] = NAN;
                assert_int_equal(k->argmax(v, n), -1);
                v[at / 2] = INFINITY;
                assert_int_equal(k->argmax(v, n), -1);
                v[at / 2] = -INFINITY;
                assert_true(k->argmax(v, n) >= 0);
            }
        for (size_t i = 0; i < 40; i++) v[i] = -INFINITY;
        assert_int_equal(k->argmax(v, 40), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_set_gives_the_same_bits),
        cmocka_unit_test(test_sum_and_best),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_argmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

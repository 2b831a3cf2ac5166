/* Quantised activations and the scalar products. */
#include "quant/quant_testing.h"

#include <math.h>

#include "quant/act.h"

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}

static void fill_sums(act_block *b)
{
    for (int g = 0; g < 16; g++) {
        b->sum16[g] = 0;
        for (int i = 0; i < 16; i++) b->sum16[g] += b->q[16 * g + i];
    }
    for (int g = 0; g < 8; g++) b->scale_sum[g] = b->scale[g] * (float)(b->sum16[2 * g] + b->sum16[2 * g + 1]);
}

/* act_blocks that hold the codes and scales of the reference's encoding: one f16 scale per 32 (q8_0, q8_1) or one f32
 * scale per 256 (q8_K). */
static void load_activations(const char *kind, act_block *out)
{
    bool is_k = strcmp(kind, "q8_K") == 0;
    size_t block = is_k ? 292 : strcmp(kind, "q8_1") == 0 ? 36 : 34, codes_at = is_k ? 4 : block - 32;
    size_t n = is_k ? 256 : 32, n_blocks = GOLDEN_ROWS * GOLDEN_LEN / n;
    uint8_t *bytes = load_golden("act_", kind, ".enc.bin", n_blocks * block);
    for (size_t i = 0; i < n_blocks; i++) {
        const uint8_t *p = bytes + i * block;
        act_block *b = &out[i * n / 256];
        uint16_t half;
        float scale;
        memcpy(&half, p, sizeof half);
        memcpy(&scale, p, sizeof scale);
        if (!is_k) scale = f16_to_f32(half);
        memcpy(b->q + i * n % 256, p + codes_at, n);
        for (size_t g = 0; g < n / 32; g++) b->scale[i * n % 256 / 32 + g] = scale;
    }
    for (size_t i = 0; i < GOLDEN_ROWS * GOLDEN_LEN / 256; i++) fill_sums(&out[i]);
    free(bytes);
}

static void products_match_the_reference(void **state)
{
    (void)state;
    static act_block x[GOLDEN_ROWS * GOLDEN_LEN / 256];
    int checked = 0;
    for (int i = 0; i < N_GOLDENS; i++) {
        const quant_golden *g = &quant_goldens[i];
        if (!g->activation) continue;
        size_t row_bytes = type_bytes(type_get(g->type), GOLDEN_LEN);
        uint8_t *w = load_encoded(g);
        load_activations(g->activation, x);
        for (size_t row = 0; row < GOLDEN_ROWS; row++) {
            double got = (double)act_dot(g->type, w + row * row_bytes, x + row * GOLDEN_LEN / 256, 1, GOLDEN_LEN);
            double off = fabs(got - g->dot_exact[row]) / g->dot_scale[row];
            if (off > 1e-6) fail_msg("%s row %zu: %.9g, wanted %.9g", g->file, row, got, g->dot_exact[row]);
            checked++;
        }
        free(w);
    }
    assert_int_equal(checked, 14 * GOLDEN_ROWS);
}

static void quantize_follows_the_rule(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 21);
    float x[512];
    fill_normal(&r, x, 512, 1.7);
    for (int i = 64; i < 96; i++) x[i] = 0;
    act_block b[2];
    act_quantize(x, 512, b, 1);
    for (int g = 0; g < 16; g++) {
        float amax = 0;
        for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[32 * g + i]));
        const act_block *a = &b[g / 8];
        assert_true(a->scale[g % 8] == amax / 127.0f);
        int sum = 0;
        for (int i = 0; i < 32; i++) {
            int code = amax > 0 ? (int)nearbyintf(x[32 * g + i] * (127.0f / amax)) : 0;
            assert_int_equal(a->q[32 * (g % 8) + i], code);
            sum += code;
        }
        assert_int_equal(a->sum16[2 * (g % 8)] + a->sum16[2 * (g % 8) + 1], sum);
        assert_true(a->scale_sum[g % 8] == a->scale[g % 8] * (float)sum);
    }
}

static void ties_go_to_even(void **state)
{
    (void)state;
    float x[32] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127};
    act_block b;
    act_quantize(x, 32, &b, 1);
    const int8_t want[8] = {127, 0, 2, 2, 0, -2, -2, -127};
    assert_memory_equal(b.q, want, sizeof want);
}

static void the_tail_is_zero_and_strides_hold(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 23);
    float *x = exact_alloc(352 * sizeof *x);
    fill_normal(&r, x, 352, 1);
    act_block b[4], untouched;
    memset(b, 0x5a, sizeof b);
    memset(&untouched, 0x5a, sizeof untouched);
    act_quantize(x, 352, b, 2);
    assert_memory_equal(&b[1], &untouched, sizeof untouched);
    assert_memory_equal(&b[3], &untouched, sizeof untouched);
    for (int i = 96; i < 256; i++) assert_int_equal(b[2].q[i], 0);
    for (int g = 3; g < 8; g++) assert_true(b[2].scale[g] == 0 && b[2].scale_sum[g] == 0);
    for (int g = 6; g < 16; g++) assert_int_equal(b[2].sum16[g], 0);
    free(x);
}

static void odd_magnitudes_are_defined(void **state)
{
    (void)state;
    float x[256] = {0};
    x[0] = INFINITY;       /* group 0 */
    x[33] = NAN;           /* group 1 */
    x[64] = 1e-44f;        /* group 2 */
    x[96] = 3.4028235e38f; /* group 3 */
    x[128] = -0x1p-119f;   /* group 4: the smallest that counts */
    x[160] = 0x1.fffffep-120f;
    act_block b;
    act_quantize(x, 256, &b, 1);
    assert_true(isnan(b.scale[0]) && isnan(b.scale[1]) && isnan(b.scale_sum[0]));
    assert_int_equal(b.q[0], 0);
    assert_true(b.scale[2] == 0 && b.q[64] == 0);
    assert_true(b.scale[3] == 3.4028235e38f / 127 && b.q[96] == 127);
    assert_true(b.scale[4] == 0x1p-119f / 127 && b.q[128] == -127);
    assert_true(b.scale[5] == 0 && b.q[160] == 0);
    uint8_t w[8 * 34] = {0};
    assert_true(isnan(act_dot(TYPE_Q8_0, w, &b, 1, 256)));
}

/* A plain second implementation of the contract, from decoded parts: slow, and independent of how act_dot unpacks. */
static float dot_from_values(const float *w, const act_block *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)x[i / 256].q[i % 256] * (double)x[i / 256].scale[i % 256 / 32];
    return (float)sum;
}

/* Every length that a type allows, blocks of exactly that size, and both strides. */
static void products_of_all_lengths(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 29);
    for (uint32_t id = 0; id < TYPE_COUNT; id++) {
        const type_info *t = type_get(id);
        if (!t || !t->encode || type_is_float((tensor_type)id)) continue;
        for (size_t n = t->block_len; n <= 1024; n += t->block_len) {
            size_t blocks = act_n_blocks(n);
            float *w = exact_alloc(n * sizeof *w), *a = exact_alloc(n * sizeof *a);
            void *bytes = exact_alloc(type_bytes(t, n));
            act_block x[4], wide[12];
            fill_normal(&r, w, n, 0.05);
            fill_normal(&r, a, n, 1);
            t->encode(w, bytes, n);
            t->decode(bytes, w, n);
            act_quantize(a, n, x, 1);
            for (size_t i = 0; i < blocks; i++) wide[3 * i] = x[i];
            float got = act_dot((tensor_type)id, bytes, x, 1, n), want = dot_from_values(w, x, n), scale = 0;
            for (size_t i = 0; i < n; i++) scale += fabsf(w[i] * a[i]);
            if (fabsf(got - want) > 2e-6f * scale)
                fail_msg("%s n %zu: %.9g, wanted %.9g", t->name, n, (double)got, (double)want);
            assert_true(got == act_dot((tensor_type)id, bytes, wide, 3, n));
            free(w);
            free(a);
            free(bytes);
        }
    }
}

/* The order of operations is a contract; here it is written out from the bytes for types with a scale per 32. */
static void check_chains(rng *r)
{
    uint8_t q8[8 * 34], q41[8 * 20];
    float a[256];
    act_block x;
    fill_bytes(r, q8, sizeof q8);
    fill_bytes(r, q41, sizeof q41);
    for (int b = 0; b < 8; b++) {
        uint16_t d = f32_to_f16((float)rng_normal(r)), m = f32_to_f16((float)rng_normal(r));
        memcpy(q8 + 34 * b, &d, 2);
        memcpy(q41 + 20 * b, &d, 2);
        memcpy(q41 + 20 * b + 2, &m, 2);
    }
    fill_normal(r, a, 256, 1);
    act_quantize(a, 256, &x, 1);
    float acc8 = 0, acc4 = 0, min4 = 0;
    for (int b = 0; b < 8; b++) {
        uint16_t d, m;
        memcpy(&d, q8 + 34 * b, 2);
        memcpy(&m, q41 + 20 * b + 2, 2);
        int s8 = 0, s4 = 0;
        for (int i = 0; i < 32; i++) {
            uint8_t nibbles = q41[20 * b + 4 + i % 16];
            s8 += (int8_t)q8[34 * b + 2 + i] * x.q[32 * b + i];
            s4 += (i < 16 ? nibbles & 15 : nibbles >> 4) * x.q[32 * b + i];
        }
        acc8 = fmaf((float)s8 * x.scale[b], f16_to_f32(d), acc8);
        acc4 = fmaf((float)s4 * x.scale[b], f16_to_f32(d), acc4);
        min4 = fmaf(f16_to_f32(m), x.scale_sum[b], min4);
    }
    assert_true(act_dot(TYPE_Q8_0, q8, &x, 1, 256) == acc8);
    assert_true(act_dot(TYPE_Q4_1, q41, &x, 1, 256) == acc4 + min4);
}

static void chains_are_as_written(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 31);
    for (int trial = 0; trial < 100; trial++) check_chains(&r);
}

/* The same for a scale per 16, with (Q2_K) and without minima (Q6_K). */
static void check_paired_chains(rng *r)
{
    uint8_t q2[84], q6[210];
    float w[256], a[256];
    act_block x;
    fill_normal(r, w, 256, 0.1);
    fill_normal(r, a, 256, 1);
    type_get(TYPE_Q2_K)->encode(w, q2, 256);
    type_get(TYPE_Q6_K)->encode(w, q6, 256);
    act_quantize(a, 256, &x, 1);
    float d2 = half_at(q2 + 80), dmin = half_at(q2 + 82), d6 = half_at(q6 + 208), acc2 = 0, acc6 = 0, min2 = 0;
    for (int b = 0; b < 8; b++) {
        int s2[2] = {0, 0}, s6[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            int e = 32 * b + i, k = e / 32 % 4, xq = x.q[e];
            s2[i / 16] += ((q2[16 + 32 * (e / 128) + i] >> 2 * k) & 3) * xq;
            int lo = (q6[64 * (e / 128) + 32 * (k & 1) + i] >> 4 * (k >> 1)) & 15;
            s6[i / 16] += ((lo | ((q6[128 + 32 * (e / 128) + i] >> 2 * k) & 3) << 4) - 32) * xq;
        }
        const uint8_t *c = q2 + 2 * b;
        const int8_t *sc = (const int8_t *)q6 + 192 + 2 * b;
        float t2 = fmaf((float)s2[1], d2 * (float)(c[1] & 15), (float)s2[0] * (d2 * (float)(c[0] & 15)));
        float t6 = fmaf((float)s6[1], d6 * (float)sc[1], (float)s6[0] * (d6 * (float)sc[0]));
        acc2 = fmaf(t2, x.scale[b], acc2);
        acc6 = fmaf(t6, x.scale[b], acc6);
        min2 = fmaf(dmin * (float)(c[0] >> 4), x.scale[b] * (float)x.sum16[2 * b], min2);
        min2 = fmaf(dmin * (float)(c[1] >> 4), x.scale[b] * (float)x.sum16[2 * b + 1], min2);
    }
    assert_true(act_dot(TYPE_Q2_K, q2, &x, 1, 256) == acc2 - min2);
    assert_true(act_dot(TYPE_Q6_K, q6, &x, 1, 256) == acc6);
}

static void paired_chains_are_as_written(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 41);
    for (int trial = 0; trial < 100; trial++) check_paired_chains(&r);
}

static void float_products_keep_four_chains(void **state)
{
    (void)state;
    static const tensor_type types[] = {TYPE_F32, TYPE_F16, TYPE_BF16};
    rng r;
    rng_seed(&r, 37);
    for (size_t n = 1; n < 700; n += n < 20 ? 1 : 131) {
        float *w = exact_alloc(n * sizeof *w), *x = exact_alloc(n * sizeof *x);
        for (size_t k = 0; k < 3; k++) {
            const type_info *t = type_get(types[k]);
            void *bytes = exact_alloc(type_bytes(t, n));
            fill_normal(&r, w, n, 1);
            fill_normal(&r, x, n, 1);
            t->encode(w, bytes, n);
            t->decode(bytes, w, n);
            float c[4] = {0, 0, 0, 0};
            for (size_t i = 0; i < n; i++) c[i % 4] = fmaf(w[i], x[i], c[i % 4]);
            assert_true(float_dot(types[k], bytes, x, n) == (c[0] + c[1]) + (c[2] + c[3]));
            free(bytes);
        }
        free(w);
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_the_reference),
        cmocka_unit_test(quantize_follows_the_rule),
        cmocka_unit_test(ties_go_to_even),
        cmocka_unit_test(the_tail_is_zero_and_strides_hold),
        cmocka_unit_test(odd_magnitudes_are_defined),
        cmocka_unit_test(products_of_all_lengths),
        cmocka_unit_test(chains_are_as_written),
        cmocka_unit_test(paired_chains_are_as_written),
        cmocka_unit_test(float_products_keep_four_chains),
    };
    return cmocka_run_group_tests_name("act", tests, NULL, NULL);
}

/* The type table and the decoders. */
#include "quant/quant_testing.h"

#include <math.h>

static void assert_same_bits(const quant_golden *g, const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (f32_bits(got[i]) != f32_bits(want[i]))
            fail_msg("%s %s: value %zu is %a, wanted %a", g->file, what, i, (double)got[i], (double)want[i]);
}

static void check_decoder(const quant_golden *g, const char *what, const void *encoded, const float *want, size_t n)
{
    float *got = exact_alloc(n * sizeof *got);
    type_get(g->type)->decode(encoded, got, n);
    assert_same_bits(g, what, got, want, n);
    free(got);
}

static void decodes_the_reference_encodings(void **state)
{
    (void)state;
    for (int i = 0; i < N_GOLDENS; i++) {
        const quant_golden *g = &quant_goldens[i];
        void *encoded = load_encoded(g);
        float *want = load_decoded(g);
        check_decoder(g, "weights", encoded, want, GOLDEN_ROWS * GOLDEN_LEN);
        free(encoded);
        free(want);
    }
}

static void decodes_random_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < N_GOLDENS; i++) {
        const quant_golden *g = &quant_goldens[i];
        if (!g->has_random) continue;
        size_t bytes = type_bytes(type_get(g->type), GOLDEN_RANDOM_LEN);
        void *encoded = load_golden("rnd_", g->file, ".enc.bin", bytes);
        float *want = load_golden("rnd_", g->file, ".deq.f32", GOLDEN_RANDOM_LEN * sizeof(float));
        check_decoder(g, "random", encoded, want, GOLDEN_RANDOM_LEN);
        free(encoded);
        free(want);
    }
}

/* Any bytes (infinite and NaN scales too), any count of blocks, blocks at odd addresses: nothing outside is touched,
 * and every block decodes as it does alone. */
static void decoders_stay_inside(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 11);
    for (uint32_t id = 0; id < TYPE_COUNT; id++) {
        const type_info *t = type_get(id);
        if (!t || !t->decode) continue;
        for (size_t blocks = 1; blocks <= 19; blocks++) {
            size_t n = blocks * t->block_len, bytes = type_bytes(t, n);
            uint8_t *src = exact_alloc(bytes + 1);
            float *whole = exact_alloc(n * sizeof *whole), *alone = exact_alloc(n * sizeof *alone);
            fill_bytes(&r, src, bytes + 1);
            t->decode(src + 1, whole, n);
            for (size_t b = 0; b < blocks; b++)
                t->decode(src + 1 + b * t->block_bytes, alone + b * t->block_len, t->block_len);
            assert_memory_equal(whole, alone, n * sizeof *whole);
            free(src);
            free(whole);
            free(alone);
        }
    }
}

/* Code 1 stands for the doubled 0.5 in both FP4 types, so that the first value is the scale itself. */
static void every_fp4_scale(void **state)
{
    (void)state;
    for (int e = 0; e < 256; e++) {
        uint8_t mx[17] = {(uint8_t)e, 1}, nv[36] = {(uint8_t)e, 0, 0, 0, 1};
        float y[64];
        type_get(TYPE_MXFP4)->decode(mx, y, 32);
        assert_true(y[0] == ldexpf(1.0f, e - 128));
        if (e > 0x7f) continue; /* bit 7 must be 0 in files */
        type_get(TYPE_NVFP4)->decode(nv, y, 64);
        int exp = e >> 3, man = e & 7;
        float want = exp ? ldexpf(8.0f + (float)man, exp - 11) : ldexpf((float)man, -10);
        assert_true(y[0] == (e == 0x7f ? 0 : want));
    }
}

static void every_16_bit_value_survives(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t in = (uint16_t)h, out;
        float f;
        type_get(TYPE_F16)->decode(&in, &f, 1);
        type_get(TYPE_F16)->encode(&f, &out, 1);
        if (isnan(f))
            assert_int_equal(out, in | 0x200); /* NaN becomes quiet, its payload stays */
        else
            assert_int_equal(out, in);
        type_get(TYPE_BF16)->decode(&in, &f, 1);
        type_get(TYPE_BF16)->encode(&f, &out, 1);
        if (isnan(f))
            assert_int_equal(out, in | 0x40);
        else
            assert_int_equal(out, in);
    }
}

/* Between two neighbours of a 16-bit format the midpoint goes to the even one, anything else to the nearer one. */
static void check_rounding(float (*widen)(uint16_t), uint16_t (*narrow)(float), uint32_t first_infinite)
{
    for (uint32_t h = 0; h + 1 < first_infinite; h++) {
        float lo = widen((uint16_t)h), hi = widen((uint16_t)(h + 1));
        float mid = (float)(((double)lo + (double)hi) / 2); /* exact: both have few digits */
        assert_int_equal(narrow(mid), h + (h & 1));
        assert_int_equal(narrow(nextafterf(mid, 0.0f)), h);
        assert_int_equal(narrow(nextafterf(mid, INFINITY)), h + 1);
        assert_int_equal(narrow(-mid), 0x8000 + h + (h & 1));
    }
}

static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(f16_to_f32, f32_to_f16, 0x7c00);
    check_rounding(bf16_to_f32, f32_to_bf16, 0x7f80);
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
}

static void table_is_consistent(void **state)
{
    (void)state;
    int readable = 0;
    for (uint32_t id = 0; id < 2 * TYPE_COUNT; id++) {
        const type_info *t = type_get(id);
        if (!t) continue;
        readable++;
        tensor_type found;
        assert_string_equal(type_name(id), t->name);
        assert_true(type_by_name(t->name, &found));
        assert_int_equal(found, id);
        assert_true(t->block_len >= 1 && t->block_bytes >= 1);
        assert_true(!t->encode || t->decode);
    }
    assert_int_equal(readable, 22);
}

static void names(void **state)
{
    (void)state;
    tensor_type t = TYPE_F32;
    assert_true(type_by_name("q4_k", &t));
    assert_int_equal(t, TYPE_Q4_K);
    assert_true(type_by_name("Bf16", &t));
    assert_int_equal(t, TYPE_BF16);
    assert_false(type_by_name("", &t));
    assert_false(type_by_name("q4_", &t));
    assert_false(type_by_name("q4_kk", &t));
    assert_false(type_by_name("Q8_K", &t)); /* named in files, not readable */
    assert_int_equal(t, TYPE_BF16);
    assert_null(type_get(16));
    assert_string_equal(type_name(16), "IQ2_XXS");
    const uint32_t retired[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 47, 48, 0xffffffffu};
    for (size_t i = 0; i < sizeof retired / sizeof retired[0]; i++) {
        assert_null(type_name(retired[i]));
        assert_null(type_get(retired[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_consistent),
        cmocka_unit_test(names),
        cmocka_unit_test(decodes_the_reference_encodings),
        cmocka_unit_test(decodes_random_bytes),
        cmocka_unit_test(decoders_stay_inside),
        cmocka_unit_test(every_fp4_scale),
        cmocka_unit_test(every_16_bit_value_survives),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests_name("type", tests, NULL, NULL);
}

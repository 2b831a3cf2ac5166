/* The encoders: quality against the public reference, and their behaviour at the edges. */
#include "quant/quant_testing.h"

#include <float.h>
#include <math.h>

/* Encodes and decodes through heap blocks of the exact size. */
static void round_trip(const type_info *t, const float *x, float *y, size_t n)
{
    void *blocks = exact_alloc(type_bytes(t, n));
    t->encode(x, blocks, n);
    t->decode(blocks, y, n);
    free(blocks);
}

static double relative_mse(const float *x, const float *y, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)y[i] - (double)x[i];
        error += d * d;
        power += (double)x[i] * (double)x[i];
    }
    return power > 0 ? error / power : error;
}

static void as_good_as_the_reference(void **state)
{
    (void)state;
    float *x = load_floats("weights", GOLDEN_ROWS * GOLDEN_LEN), y[GOLDEN_LEN];
    int bad = 0;
    for (int i = 0; i < N_GOLDENS; i++) {
        const quant_golden *g = &quant_goldens[i];
        const type_info *t = type_get(g->type);
        if (!t->encode) continue;
        for (int row = 0; row < GOLDEN_ROWS; row++) {
            round_trip(t, x + row * GOLDEN_LEN, y, GOLDEN_LEN);
            double got = relative_mse(x + row * GOLDEN_LEN, y, GOLDEN_LEN), want = 1.02 * g->rel_mse[row] + 1e-12;
            if (got <= want) continue;
            print_error("%s row %d: relative squared error %g, at most %g wanted\n", t->name, row, got, want);
            bad++;
        }
    }
    free(x);
    assert_int_equal(bad, 0);
}

/* The rules of these types are simple enough that a second implementation gives the same bytes. */
static void same_bytes_as_the_reference(void **state)
{
    (void)state;
    static const tensor_type exact[] = {TYPE_F16, TYPE_BF16, TYPE_Q4_0, TYPE_Q4_1, TYPE_Q5_0, TYPE_Q5_1, TYPE_Q8_0};
    size_t n = GOLDEN_ROWS * GOLDEN_LEN;
    float *x = load_floats("weights", n);
    for (int i = 0; i < N_GOLDENS; i++) {
        const quant_golden *g = &quant_goldens[i];
        for (size_t k = 0; k < sizeof exact / sizeof exact[0]; k++) {
            if (exact[k] != g->type) continue;
            size_t bytes = type_bytes(type_get(g->type), n);
            void *want = load_encoded(g), *got = exact_alloc(bytes);
            type_get(g->type)->encode(x, got, n);
            if (memcmp(got, want, bytes) != 0) fail_msg("%s differs from the reference's bytes", g->file);
            free(want);
            free(got);
        }
    }
    free(x);
}

static void zeros_stay_zero(void **state)
{
    (void)state;
    const float x[512] = {0};
    for (uint32_t id = 0; id < TYPE_COUNT; id++) {
        const type_info *t = type_get(id);
        if (!t || !t->encode) continue;
        float y[512];
        round_trip(t, x, y, 512);
        for (int i = 0; i < 512; i++)
            if (y[i] != 0) fail_msg("%s: a zero became %g", t->name, (double)y[i]);
    }
}

/* Values near the ends of f32 must not trap or overflow an integer; the decoded values are unspecified. */
static void extremes_are_survived(void **state)
{
    (void)state;
    static const float magnitudes[] = {FLT_MAX, 1e30f, 65504.0f, 1e-30f, FLT_MIN, 1e-45f};
    rng r;
    rng_seed(&r, 3);
    for (size_t k = 0; k < sizeof magnitudes / sizeof magnitudes[0]; k++) {
        float x[256], y[256];
        for (int i = 0; i < 256; i++) x[i] = magnitudes[k] * (rng_below(&r, 2) ? 1.0f : -1.0f) * (i % 3 ? 1.0f : 0.5f);
        for (uint32_t id = 0; id < TYPE_COUNT; id++)
            if (type_get(id) && type_get(id)->encode) round_trip(type_get(id), x, y, 256);
    }
}

/* Encoding what a block already decodes to changes nothing. */
static void exact_types_are_idempotent(void **state)
{
    (void)state;
    static const tensor_type idempotent[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0, TYPE_Q4_0, TYPE_Q5_0};
    rng r;
    rng_seed(&r, 5);
    for (size_t k = 0; k < sizeof idempotent / sizeof idempotent[0]; k++) {
        const type_info *t = type_get(idempotent[k]);
        for (int trial = 0; trial < 50; trial++) {
            float x[256], once[256], twice[256];
            fill_normal(&r, x, 256, 0.02);
            round_trip(t, x, once, 256);
            round_trip(t, once, twice, 256);
            for (int i = 0; i < 256; i++)
                if (fabsf(once[i] - twice[i]) > fabsf(once[i]) * 0x1p-10f)
                    fail_msg("%s trial %d: value %d went from %a to %a", t->name, trial, i, (double)once[i],
                             (double)twice[i]);
        }
    }
}

/* One block's bytes do not depend on its neighbours. */
static void blocks_are_independent(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 7);
    float x[1024];
    fill_normal(&r, x, 1024, 0.5);
    for (uint32_t id = 0; id < TYPE_COUNT; id++) {
        const type_info *t = type_get(id);
        if (!t || !t->encode) continue;
        uint8_t *whole = exact_alloc(type_bytes(t, 1024)), *alone = exact_alloc(t->block_bytes);
        t->encode(x, whole, 1024);
        for (size_t b = 0; b < 1024 / t->block_len; b++) {
            t->encode(x + b * t->block_len, alone, t->block_len);
            assert_memory_equal(alone, whole + b * t->block_bytes, t->block_bytes);
        }
        free(whole);
        free(alone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_good_as_the_reference),
        cmocka_unit_test(same_bytes_as_the_reference),
        cmocka_unit_test(zeros_stay_zero),
        cmocka_unit_test(extremes_are_survived),
        cmocka_unit_test(exact_types_are_idempotent),
        cmocka_unit_test(blocks_are_independent),
    };
    return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}

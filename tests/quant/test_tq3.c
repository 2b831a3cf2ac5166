/* test_tq3.c: the rotation and TQ3_0 against the reference vectors, and their properties. */
#include "testing.h"

#include <math.h>

#include "base/f16.h"
#include "base/file_map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/rotate.h"
#include "quant/tq3.h"
#include "quant/type.h"

enum { N = 3072, GROUP = TQ3_GROUP };

static void *read_bytes(const char *name, size_t want)
{
    char *data = NULL;
    size_t size = 0;
    facet_error err;
    assert_ok(file_read_all(test_data(name), 1 << 20, &data, &size, &err), err);
    assert_int_equal(size, want);
    return data;
}

static float *read_floats(const char *name)
{
    return read_bytes(name, N * sizeof(float));
}

static float *normals(uint32_t seed, int n)
{
    rng r;
    rng_seed(&r, seed);
    float *x = malloc((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) x[i] = (float)rng_normal(&r);
    return x;
}

static double power(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static double error_of(const float *got, const float *want, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
    return sum / power(want, n);
}

static void test_rotation_golden(void **state)
{
    (void)state;
    float *x = read_floats("quants/weights.f32"), *want = read_floats("quants/tq3_0.input_rot.f32");
    rotate_values(x, N);
    for (int g = 0; g < N; g += GROUP)
        if (power(want + g, GROUP) > 0) assert_true(error_of(x + g, want + g, GROUP) < 1e-12);
    unrotate_values(x, N);
    float *original = read_floats("quants/weights.f32");
    assert_true(error_of(x, original, N) < 1e-12);
    mem_free(x);
    mem_free(want);
    mem_free(original);
}

/* The signs, seen from outside: the rotation of a unit vector has one row of the matrix. */
static void test_signs(void **state)
{
    (void)state;
    int8_t *sign = read_bytes("quants/tq3_0_signs.i8", 2 * GROUP);
    for (int i = 0; i < GROUP; i++) {
        float x[GROUP] = {0};
        x[i] = 1;
        rotate_values(x, GROUP);
        for (int j = 0; j < GROUP; j++) {
            const int h = __builtin_parity((unsigned)(i & j)) ? -1 : 1;
            assert_true(fabsf(x[j] - (float)(sign[i] * h * sign[GROUP + j]) / sqrtf(GROUP)) < 1e-7f);
        }
    }
    mem_free(sign);
}

static void test_rotation_keeps_products(void **state)
{
    (void)state;
    float *q = normals(1, 512), *k = normals(2, 512);
    double plain = 0, rotated = 0;
    for (int i = 0; i < 512; i++) plain += (double)q[i] * k[i];
    rotate_values(q, 512);
    rotate_values(k, 512);
    for (int i = 0; i < 512; i++) rotated += (double)q[i] * k[i];
    assert_true(fabs(plain - rotated) < 1e-4);
    free(q);
    free(k);
}

/* Every code outside the fragile mask, every norm within a place of f16, and the decoded values. */
static void test_encoder_golden(void **state)
{
    (void)state;
    enum { BYTES = N / TQ3_BLOCK * TQ3_BLOCK_BYTES };
    float *x = read_floats("quants/weights.f32");
    uint8_t *want = read_bytes("quants/tq3_0.enc.bin", BYTES), *fragile = read_bytes("quants/tq3_0_fragile.u8", N),
            got[BYTES];
    int n_equal = 0, n_fragile = 0;
    encode_tq3_0(x, got, N);
    for (int b = 0; b < N / TQ3_BLOCK; b++) {
        const uint8_t *g = got + b * TQ3_BLOCK_BYTES, *w = want + b * TQ3_BLOCK_BYTES;
        uint8_t code[TQ3_BLOCK], expected[TQ3_BLOCK];
        tq3_unpack(g, code);
        tq3_unpack(w, expected);
        for (int j = 0; j < TQ3_BLOCK; j++) {
            n_fragile += fragile[b * TQ3_BLOCK + j];
            if (!fragile[b * TQ3_BLOCK + j] && code[j] != expected[j]) fail_msg("block %d, value %d", b, j);
        }
        assert_true(abs((g[0] | g[1] << 8) - (w[0] | w[1] << 8)) <= 1);
        n_equal += memcmp(g, w, TQ3_BLOCK_BYTES) == 0;
    }
    print_message("%d of %d blocks equal byte for byte; %d fragile values\n", n_equal, N / TQ3_BLOCK, n_fragile);
    assert_true(n_equal >= N / TQ3_BLOCK - n_fragile);
    mem_free(x);
    mem_free(want);
    mem_free(fragile);
}

static void test_decoder_golden(void **state)
{
    (void)state;
    uint8_t *blocks = read_bytes("quants/tq3_0.enc.bin", N / TQ3_BLOCK * TQ3_BLOCK_BYTES), packed[TQ3_BLOCK_BYTES];
    float *rotated = read_floats("quants/tq3_0.deq_rot.f32"), *original = read_floats("quants/tq3_0.deq_orig.f32"),
          got[N];
    decode_tq3_0(blocks, got, N);
    assert_memory_equal(got, rotated, sizeof got);
    unrotate_values(got, N);
    assert_true(error_of(got, original, N) < 1e-12);
    for (int b = 0; b < N / TQ3_BLOCK; b++) { /* packing undoes unpacking */
        uint8_t code[TQ3_BLOCK];
        tq3_unpack(blocks + b * TQ3_BLOCK_BYTES, code);
        memcpy(packed, blocks + b * TQ3_BLOCK_BYTES, 2);
        tq3_pack(code, packed);
        assert_memory_equal(packed, blocks + b * TQ3_BLOCK_BYTES, sizeof packed);
    }
    mem_free(blocks);
    mem_free(rotated);
    mem_free(original);
}

static void test_zero_group(void **state)
{
    (void)state;
    static const uint8_t want[TQ3_BLOCK_BYTES] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    float x[GROUP] = {0}, y[GROUP];
    uint8_t blocks[4 * TQ3_BLOCK_BYTES];
    x[3] = -0.0f;
    encode_tq3_0(x, blocks, GROUP);
    for (int b = 0; b < 4; b++) assert_memory_equal(blocks + b * TQ3_BLOCK_BYTES, want, sizeof want);
    decode_tq3_0(blocks, y, GROUP);
    for (int i = 0; i < GROUP; i++) assert_true(y[i] == 0);
}

/* Decoded groups are as long as the original, and encode to themselves. */
static void test_length(void **state)
{
    (void)state;
    enum { M = 64 * GROUP };
    float *x = normals(3, M), y[GROUP];
    uint8_t blocks[4 * TQ3_BLOCK_BYTES], again[4 * TQ3_BLOCK_BYTES];
    int n_same = 0;
    for (int g = 0; g < M; g += GROUP) {
        x[g] *= 40; /* an outlier */
        encode_tq3_0(x + g, blocks, GROUP);
        decode_tq3_0(blocks, y, GROUP);
        assert_true(fabs(sqrt(power(y, GROUP) / power(x + g, GROUP)) - 1) < 6e-4);
        unrotate_values(y, GROUP);
        encode_tq3_0(y, again, GROUP);
        for (int b = 0; b < 4; b++)
            n_same += memcmp(blocks + b * TQ3_BLOCK_BYTES + 2, again + b * TQ3_BLOCK_BYTES + 2, 12) == 0;
    }
    assert_int_equal(n_same, M / TQ3_BLOCK);
    free(x);
}

static void round_trip(const char *name, const float *x, float *y, int n)
{
    uint8_t *blocks = malloc((size_t)n * 4);
    tensor_type id = TYPE_Q8_0;
    if (strcmp(name, "tq3_0") == 0) {
        encode_tq3_0(x, blocks, (size_t)n);
        decode_tq3_0(blocks, y, (size_t)n);
        unrotate_values(y, (size_t)n);
    } else {
        assert_true(type_by_name(name, &id));
        type_get(id)->encode(x, blocks, (size_t)n);
        type_get(id)->decode(blocks, y, (size_t)n);
    }
    free(blocks);
}

typedef struct figure {
    const char *name;
    double golden, gaussian;
} figure;

/* Relative squared errors: of the 1024 Gaussian values of the reference set, which the reference encoder has too, and
 * of many. Of q8_0 the latter follows from the largest of 32 magnitudes, whose mean square is 5.71: 31 of 32 values are
 * off by a uniform 1/127 of it, 5.71 / 127^2 / 12 * 31/32 = 2.86e-5, and f16 scales add a little. */
static const figure figures[] = {
    {"q8_0", 2.737572e-5, 2.87e-5}, {"q4_0", 7.659702e-3, 7.66e-3}, {"tq3_0", 3.705681e-2, 3.431e-2}};

static void test_gaussian_errors(void **state)
{
    (void)state;
    enum { FEW = 1024, MANY = 4096 * GROUP };
    float *few = read_floats("quants/weights.f32"), *many = normals(4, MANY), *y = malloc(MANY * sizeof *y);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        round_trip(figures[i].name, few, y, FEW);
        const double golden = error_of(y, few, FEW);
        round_trip(figures[i].name, many, y, MANY);
        const double gaussian = error_of(y, many, MANY);
        print_message("%s: %.4e and %.4e\n", figures[i].name, golden, gaussian);
        assert_true(fabs(golden / figures[i].golden - 1) < 0.001);
        assert_true(fabs(gaussian / figures[i].gaussian - 1) < 0.05);
    }
    mem_free(few);
    free(many);
    free(y);
}

/* One large channel: a rotation spreads it, so that blocks of 32 no longer lose their small values to its scale. */
static void test_outlier(void **state)
{
    (void)state;
    enum { M = 256 * GROUP };
    float *x = normals(5, M), *y = malloc(M * sizeof *y);
    double error[2];
    for (int i = 0; i < M; i += GROUP) x[i + 7] *= 12;
    for (int is_rotated = 0; is_rotated < 2; is_rotated++) {
        if (is_rotated) rotate_values(x, M);
        round_trip("q4_0", x, y, M);
        error[is_rotated] = error_of(y, x, M);
    }
    print_message("q4_0 with an outlier: %.3e, rotated %.3e\n", error[0], error[1]);
    assert_true(error[1] < 0.8 * error[0]);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotation_golden),
        cmocka_unit_test(test_signs),
        cmocka_unit_test(test_rotation_keeps_products),
        cmocka_unit_test(test_encoder_golden),
        cmocka_unit_test(test_decoder_golden),
        cmocka_unit_test(test_zero_group),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_gaussian_errors),
        cmocka_unit_test(test_outlier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

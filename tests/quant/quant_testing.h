/* quant_testing.h: what the quantisation tests share. */
#ifndef FACET_TEST_QUANT_TESTING_H
#define FACET_TEST_QUANT_TESTING_H

#include "testing.h"

#include "base/f16.h"
#include "base/rng.h"
#include "quant/quant_goldens.h"

enum { N_GOLDENS = sizeof quant_goldens / sizeof quant_goldens[0] };

/* The whole of tests/data/quants/<prefix><name><suffix>, exactly `bytes` long; the caller frees it. */
static inline void *load_golden(const char *prefix, const char *name, const char *suffix, size_t bytes)
{
    char file[128];
    snprintf(file, sizeof file, "quants/%s%s%s", prefix, name, suffix);
    FILE *f = fopen(test_data(file), "rb");
    if (!f) fail_msg("cannot open %s", test_data(file));
    void *data = malloc(bytes);
    assert_non_null(data);
    if (fread(data, 1, bytes, f) != bytes || fgetc(f) != EOF) fail_msg("%s is not %zu bytes long", file, bytes);
    fclose(f);
    return data;
}

static inline float *load_floats(const char *name, size_t n)
{
    return load_golden("", name, ".f32", n * sizeof(float));
}

/* Row encoded or decoded by the public reference; the F32 row is the input itself. */
static inline void *load_encoded(const quant_golden *g)
{
    size_t n = GOLDEN_ROWS * GOLDEN_LEN;
    if (g->type == TYPE_F32) return load_floats("weights", n);
    return load_golden("", g->file, ".enc.bin", type_bytes(type_get(g->type), n));
}

static inline float *load_decoded(const quant_golden *g)
{
    size_t n = GOLDEN_ROWS * GOLDEN_LEN;
    return g->type == TYPE_F32 ? load_floats("weights", n) : load_golden("", g->file, ".deq.f32", n * sizeof(float));
}

/* Heap copies of exactly the size used, so that a sanitizer sees any access beyond. */
static inline void *exact_alloc(size_t bytes)
{
    void *p = malloc(bytes);
    assert_non_null(p);
    return p;
}

static inline void fill_bytes(rng *r, void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) ((uint8_t *)p)[i] = (uint8_t)(rng_next(r) >> 32);
}

static inline void fill_normal(rng *r, float *x, size_t n, double sigma)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)(sigma * rng_normal(r));
}

#endif

/* bench_cuda: time of products on a CUDA device, one line per shape, type and number of rows.
 *
 *     bench_cuda [-n] [-m MB] [-s N_IN,N_OUT,TYPE[,gated]]... [-r ROWS]...
 *
 * Defaults: the shapes of the 31B model, rows 1 to 64. A case is a plan of several products over weights of their own
 * (-m: MB of them, 600), so that none are in the L2 cache, run as the engine runs plans: one captured graph. The time
 * of the same plan without products is taken off. -n: a norm stands before each product, as in a model, and its time
 * counts. Times are medians, with launch gaps in them; GB/s count the bytes of the file, and the share is that of the
 * device's own copy bandwidth, measured first. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/f16.h"
#include "base/rng.h"
#include "compute/backend.h"

enum { MAX_LIST = 32, MAX_ROWS = 512, MAX_COPIES = 512, N_REPEATS = 25, POOL_MB = 600 };

typedef struct shape {
    uint32_t n_in, n_out;
    tensor_type type;
    bool is_gated;
} shape;

static const shape default_shapes[] = {
    {5376, 8192, TYPE_Q4_K, false},  {5376, 16384, TYPE_Q4_K, false},  {8192, 5376, TYPE_Q4_K, false},
    {16384, 5376, TYPE_Q4_K, false}, {5376, 21504, TYPE_Q4_K, true},   {21504, 5376, TYPE_Q4_K, false},
    {21504, 5376, TYPE_Q6_K, false}, {5376, 262144, TYPE_Q6_K, false},
};
static const int default_rows[] = {1, 2, 4, 8, 16, 32, 64};

typedef struct options {
    shape shapes[MAX_LIST];
    int n_shapes, rows[MAX_LIST], n_rows;
    bool has_norms;
    int pool_mb;
} options;

static void fail(const char *what, const facet_error *err)
{
    fprintf(stderr, "bench_cuda: %s: %s\n", what, err->message);
    exit(1);
}

/* Random codes; the 16-bit floats of a block become small numbers. */
static void *random_matrix(const shape *s, size_t *bytes)
{
    const type_info *t = type_get(s->type);
    *bytes = type_bytes(t, (size_t)s->n_in * s->n_out);
    uint8_t *data = malloc(*bytes);
    rng r;
    rng_seed(&r, 1);
    if (!data) return NULL;
    for (size_t i = 0; i < *bytes; i++) data[i] = (uint8_t)rng_below(&r, 256);
    for (size_t at = 0; at < *bytes; at += t->block_bytes) {
        const uint16_t d = f32_to_f16((float)(1e-4 * (1 + rng_uniform(&r))));
        memcpy(data + at + (s->type == TYPE_Q6_K ? 208 : 0), &d, sizeof d);
        if (s->type == TYPE_Q4_K || s->type == TYPE_Q5_K) memcpy(data + at + 2, &d, sizeof d);
        for (size_t i = 0; t->block_len == 1 && i < t->block_bytes; i += 2) data[at + i + 1] &= 0x1f;
    }
    return data;
}

typedef struct bench_case {
    weight weights[MAX_COPIES * 2 + 1];
    int n_weights, n_copies;
    plan *p;
    void *matrix, *table;
} bench_case;

static int add_matrix(bench_case *b, const shape *s, size_t bytes)
{
    weight *w = &b->weights[b->n_weights];
    *w = (weight){.type = s->type, .ne = {s->n_in, s->n_out, 1}, .data = b->matrix, .bytes = bytes, .is_matrix = true};
    snprintf(w->name, sizeof w->name, "w%d", b->n_weights);
    return b->n_weights++;
}

static int add_input(bench_case *b, uint32_t width)
{
    int v = plan_value_new(b->p, ROWS_ALL, VALUE_F32, width, false, "x");
    plan_op *op = plan_add(b->p, OP_EMBED, -1);
    op->w0 = 0;
    op->o = v;
    return v;
}

/* Inputs take turns, so that neighbours are not joined into one launch. */
static void build(bench_case *b, const shape *s, int n_copies, bool has_norms)
{
    facet_error err;
    size_t bytes = 0, n = (size_t)s->n_in * MAX_ROWS;
    memset(b, 0, sizeof *b);
    b->n_copies = n_copies;
    b->matrix = n_copies ? random_matrix(s, &bytes) : NULL;
    float *table = b->table = malloc(n * sizeof *table);
    if ((n_copies && !b->matrix) || !table) exit(1);
    rng r;
    rng_seed(&r, 2);
    for (size_t i = 0; i < n; i++) table[i] = (float)rng_normal(&r);
    b->weights[b->n_weights++] = (weight){.type = TYPE_F32,
                                          .ne = {s->n_in, MAX_ROWS, 1},
                                          .data = table,
                                          .bytes = n * sizeof *table,
                                          .is_rows = true,
                                          .is_matrix = true};
    if (plan_new("bench", &b->p, &err) != FACET_OK) fail("plan", &err);
    int x[2] = {add_input(b, s->n_in), add_input(b, s->n_in)};
    int o = plan_value_new(b->p, ROWS_ALL, VALUE_F32, s->n_out, true, "y");
    for (int i = 0; i < n_copies; i++) {
        if (has_norms) {
            plan_op *norm = plan_add(b->p, OP_NORM, 0);
            norm->i0 = x[(i + 1) % 2];
            norm->o = x[i % 2];
            norm->eps = 1e-6f;
        }
        plan_op *op = plan_add(b->p, s->is_gated ? OP_GATED : OP_LINEAR, 0);
        op->i0 = x[i % 2];
        op->o = o;
        op->w0 = add_matrix(b, s, bytes);
        if (s->is_gated) op->w1 = add_matrix(b, s, bytes);
    }
    if (plan_finish(b->p, &err) != FACET_OK) fail("plan", &err);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of one run. */
static double time_plan(backend *be, compiled *c, int n_rows)
{
    static int32_t token[MAX_ROWS], pos[MAX_ROWS], seq[MAX_ROWS];
    double us[N_REPEATS];
    facet_error err;
    for (int i = 0; i < n_rows; i++) token[i] = i;
    const batch in = {.n_rows = n_rows, .token = token, .pos = pos, .slot = pos, .seq = seq};
    for (int i = -3; i < N_REPEATS; i++) {
        const uint64_t t0 = clock_ns();
        if (be->ops->run(be, c, &in, &err) != FACET_OK) fail("run", &err);
        if (i >= 0) us[i] = (double)(clock_ns() - t0) * 1e-3;
    }
    qsort(us, N_REPEATS, sizeof *us, by_value);
    return us[N_REPEATS / 2];
}

static compiled *load_case(backend *be, const bench_case *b)
{
    facet_error err;
    compiled *c;
    if (be->ops->load(be, b->weights, b->n_weights, &err) != FACET_OK) fail("load", &err);
    if (be->ops->compile(be, b->p, MAX_ROWS, 0, &c, &err) != FACET_OK) fail("compile", &err);
    return c;
}

static void free_case(bench_case *b)
{
    plan_free(b->p);
    free(b->matrix);
    free(b->table);
}

static void run_shape(backend *be, const shape *s, const options *o, double copy_gbps)
{
    const double bytes = (double)type_bytes(type_get(s->type), (size_t)s->n_in * s->n_out) * (s->is_gated ? 2 : 1);
    int n_copies = (int)(o->pool_mb * 1e6 / bytes) + 2;
    if (n_copies > MAX_COPIES) n_copies = MAX_COPIES;
    double empty[MAX_LIST], first = 0;
    static bench_case b;
    build(&b, s, 0, false);
    compiled *c = load_case(be, &b);
    for (int i = 0; i < o->n_rows; i++) empty[i] = time_plan(be, c, o->rows[i]);
    be->ops->release(be, c);
    free_case(&b);
    build(&b, s, n_copies, o->has_norms);
    c = load_case(be, &b);
    for (int i = 0; i < o->n_rows; i++) {
        const double us = (time_plan(be, c, o->rows[i]) - empty[i]) / n_copies;
        if (i == 0) first = us;
        printf("%6u x %-6u %-5s%-6s %4d %9.2f us %7.0f GB/s %5.1f %% %6.2f\n", s->n_in, s->n_out,
               type_name((uint32_t)s->type), s->is_gated ? " gated" : "", o->rows[i], us, bytes * 1e-3 / us,
               100 * bytes * 1e-3 / us / copy_gbps, us / first);
        fflush(stdout);
    }
    be->ops->release(be, c);
    free_case(&b);
}

static bool add_shape(options *o, const char *text)
{
    char type[16] = "", mode[8] = "";
    shape *s = &o->shapes[o->n_shapes];
    int n = sscanf(text, "%u,%u,%15[^,],%7s", &s->n_in, &s->n_out, type, mode);
    s->is_gated = n == 4 && strcmp(mode, "gated") == 0;
    if (n < 3 || (n == 4 && !s->is_gated) || o->n_shapes + 1 == MAX_LIST || !type_by_name(type, &s->type) || !s->n_in ||
        !s->n_out || s->n_in % type_get(s->type)->block_len)
        return false;
    o->n_shapes++;
    return true;
}

static bool read_options(options *o, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "s:r:m:n")) != -1;) {
        bool ok = false;
        if (c == 's') ok = add_shape(o, optarg);
        if (c == 'm') ok = (o->pool_mb = atoi(optarg)) > 0;
        if (c == 'n') ok = o->has_norms = true;
        if (c == 'r' && o->n_rows < MAX_LIST) {
            int rows = atoi(optarg);
            o->rows[o->n_rows++] = rows;
            ok = rows > 0 && rows <= MAX_ROWS;
        }
        if (!ok) return false;
    }
    if (!o->n_shapes) {
        memcpy(o->shapes, default_shapes, sizeof default_shapes);
        o->n_shapes = sizeof default_shapes / sizeof default_shapes[0];
    }
    if (!o->n_rows) {
        memcpy(o->rows, default_rows, sizeof default_rows);
        o->n_rows = sizeof default_rows / sizeof default_rows[0];
    }
    return true;
}

int main(int argc, char **argv)
{
    static options o = {.pool_mb = POOL_MB};
    facet_error err;
    backend *be;
    backend_info info;
    backend_ceilings ceilings;
    const backend_config cfg = {0};
    if (!read_options(&o, argc, argv)) {
        fprintf(stderr, "usage: bench_cuda [-n] [-m MB] [-s n_in,n_out,type[,gated]]... [-r rows]...\n");
        return 2;
    }
    if (backend_cuda_open(&cfg, &be, &err) != FACET_OK) fail("open", &err);
    if (be->ops->measure(be, &ceilings, &err) != FACET_OK) fail("measure", &err);
    be->ops->info(be, &info);
    printf("%s; copies at %.0f GB/s\n%-26s rows      time    weights of copy   t/t1\n", info.description,
           ceilings.read_gbps, "inputs x outputs");
    for (int i = 0; i < o.n_shapes; i++) run_shape(be, &o.shapes[i], &o, ceilings.read_gbps);
    be->ops->close(be);
    return 0;
}

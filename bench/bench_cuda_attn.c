/* bench_cuda_attn: time of attention on a CUDA device, one line per shape, depth and number of rows.
 *
 *     bench_cuda_attn [-s HEADS,KV_HEADS,HEAD_DIM,WINDOW,TYPE]... [-d DEPTH]... [-r ROWS]...
 *
 * Defaults: the two kinds of layers of the 31B model with f16 and q8_0 caches, depths 0, 4096 and 16384, rows 1 to 64
 * and a prompt's 512. A case is a plan of several layers with caches of their own (more than the L2 cache holds), run
 * as the engine runs plans: one captured graph. The time of the same plan without attention is taken off. Bytes are
 * those of the keys and values that some row sees, each once. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "compute/backend.h"

enum { MAX_LIST = 32, MAX_ROWS = 512, MAX_LAYERS = 24, N_REPEATS = 25, POOL_MB = 400, MAX_PAGES = 4096 };

typedef struct shape {
    int n_heads, n_kv_heads, head_dim, window;
    kv_type type;
} shape;

static const shape default_shapes[] = {
    {32, 16, 256, 1024, KV_F16}, {32, 16, 256, 1024, KV_Q8_0}, {32, 4, 512, 0, KV_F16}, {32, 4, 512, 0, KV_Q8_0}};
static const int default_depths[] = {0, 4096, 16384};
static const int default_rows[] = {1, 4, 8, 16, 64, 512};

typedef struct options {
    shape shapes[MAX_LIST];
    int n_shapes, depths[MAX_LIST], n_depths, rows[MAX_LIST], n_rows;
} options;

static void fail(const char *what, const facet_error *err)
{
    fprintf(stderr, "bench_cuda_attn: %s: %s\n", what, err->message);
    exit(1);
}

typedef struct bench_case {
    shape s;
    int n_layers, n_pages;
    plan *p, *without; /* without: the same plan, less attention */
    weight weights[3];
    kv_layer_desc layers[MAX_LAYERS];
    kv_desc kv;
    backend *be;
    compiled *c, *c_without;
} bench_case;

static int add_input(bench_case *b, plan *p, int w)
{
    const int v = plan_value_new(p, ROWS_ALL, VALUE_F32, (uint32_t)b->weights[w].ne[0], false, "x");
    plan_op *op = plan_add(p, OP_EMBED, -1);
    op->w0 = w;
    op->o = v;
    return v;
}

static plan *make_plan(bench_case *b, bool has_attention)
{
    facet_error err;
    plan *p;
    const uint32_t width = (uint32_t)(b->s.n_heads * b->s.head_dim);
    if (plan_new("bench", &p, &err) != FACET_OK) fail("plan", &err);
    const int q = add_input(b, p, 0), k = add_input(b, p, 1), v = add_input(b, p, 2);
    const int o = plan_value_new(p, ROWS_ALL, VALUE_F32, width, true, "o");
    for (int l = 0; l < b->n_layers; l++) {
        for (int i = 0; i < 1 + has_attention; i++) {
            plan_op *op = plan_add(p, i ? OP_ATTN : OP_KV_WRITE, l);
            op->i0 = i ? q : k;
            op->i1 = i ? -1 : v;
            op->o = i ? o : -1;
            op->kv_layer = l;
            op->window = b->s.window;
            op->n_heads = b->s.n_heads;
            op->n_kv_heads = b->s.n_kv_heads;
            op->head_dim = b->s.head_dim;
            op->attn_scale = 0.05f;
            op->eps = 1e-6f;
        }
    }
    if (plan_finish(p, &err) != FACET_OK) fail("plan", &err);
    return p;
}

static weight random_table(uint32_t width, uint64_t seed)
{
    const size_t n = (size_t)width * MAX_ROWS;
    float *x = malloc(n * sizeof *x);
    rng r;
    if (!x) exit(1);
    rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_normal(&r);
    return (weight){.name = "x",
                    .type = TYPE_F32,
                    .ne = {width, MAX_ROWS, 1},
                    .data = x,
                    .bytes = n * sizeof *x,
                    .is_rows = true,
                    .is_matrix = true};
}

static size_t bytes_of(const shape *s, int n_keys)
{
    const kv_type_info *t = kv_type_get(s->type);
    return (size_t)n_keys * 2 * (size_t)s->n_kv_heads * (size_t)s->head_dim / t->block_len * t->block_bytes;
}

static void open_case(bench_case *b, const shape *s, int depth)
{
    facet_error err;
    const backend_config cfg = {0};
    const int seen = s->window && s->window < depth ? s->window : depth;
    memset(b, 0, sizeof *b);
    b->s = *s;
    b->n_layers = (int)(((size_t)POOL_MB << 20) / (bytes_of(s, seen) + 1)) + 2;
    if (b->n_layers > MAX_LAYERS) b->n_layers = MAX_LAYERS;
    b->n_pages = (depth + MAX_ROWS) / KV_PAGE_LEN + 1;
    for (int l = 0; l < b->n_layers; l++)
        b->layers[l] = (kv_layer_desc){
            .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim, .k_type = s->type, .v_type = s->type};
    b->kv = (kv_desc){.n_groups = 1, .n_layers = b->n_layers, .groups = {{s->window, b->n_pages}}, .layers = b->layers};
    const int width[3] = {s->n_heads, s->n_kv_heads, s->n_kv_heads};
    for (int i = 0; i < 3; i++) b->weights[i] = random_table((uint32_t)(width[i] * s->head_dim), (uint64_t)i + 1);
    b->p = make_plan(b, true);
    b->without = make_plan(b, false);
    if (backend_cuda_open(&cfg, &b->be, &err) != FACET_OK) fail("open", &err);
    if (b->be->ops->load(b->be, b->weights, 3, &err) != FACET_OK) fail("load", &err);
    if (b->be->ops->kv_alloc(b->be, &b->kv, &err) != FACET_OK) fail("cache", &err);
    if (b->be->ops->compile(b->be, b->p, MAX_ROWS, 0, &b->c, &err) != FACET_OK) fail("compile", &err);
    if (b->be->ops->compile(b->be, b->without, MAX_ROWS, 0, &b->c_without, &err) != FACET_OK) fail("compile", &err);
}

static void close_case(bench_case *b)
{
    b->be->ops->release(b->be, b->c);
    b->be->ops->release(b->be, b->c_without);
    b->be->ops->close(b->be);
    plan_free(b->p);
    plan_free(b->without);
    for (int i = 0; i < 3; i++) free((void *)(uintptr_t)b->weights[i].data);
}

static void run_rows(const bench_case *b, compiled *c, int first, int n)
{
    static int32_t token[MAX_ROWS], pos[MAX_ROWS], seq[MAX_ROWS], table[MAX_PAGES];
    facet_error err;
    for (int i = 0; i < b->n_pages; i++) table[i] = (int32_t)((int64_t)i * 37 % b->n_pages);
    for (int i = 0, used = b->n_pages; i < b->n_pages && used % 37 == 0; i++) table[i] = i;
    for (int i = 0; i < n; i++) token[i] = (first + i * 7) % MAX_ROWS, pos[i] = first + i;
    const batch_seq s = {.table = {table}, .base = first, .end = first + n};
    const batch in = {.n_rows = n, .token = token, .pos = pos, .slot = pos, .seq = seq, .n_seqs = 1, .seqs = &s};
    if (b->be->ops->run(b->be, c, &in, &err) != FACET_OK) fail("run", &err);
}

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double time_us(const bench_case *b, compiled *c, int first, int n)
{
    double us[N_REPEATS];
    for (int i = -3; i < N_REPEATS; i++) {
        const uint64_t t0 = clock_ns();
        run_rows(b, c, first, n);
        if (i >= 0) us[i] = (double)(clock_ns() - t0) * 1e-3;
    }
    qsort(us, N_REPEATS, sizeof *us, by_value);
    return us[N_REPEATS / 2];
}

static void run_case(const shape *s, int depth, const options *o)
{
    bench_case b;
    double first = 0;
    open_case(&b, s, depth);
    for (int at = 0; at < depth; at += MAX_ROWS)
        run_rows(&b, b.c_without, at, depth - at < MAX_ROWS ? depth - at : MAX_ROWS);
    for (int i = 0; i < o->n_rows; i++) {
        const int n = o->rows[i], span = s->window ? s->window + n - 1 : depth + n;
        const double bytes = (double)bytes_of(s, depth + n < span ? depth + n : span);
        const double us = (time_us(&b, b.c, depth, n) - time_us(&b, b.c_without, depth, n)) / b.n_layers;
        if (i == 0) first = us;
        printf("%2d heads on %2d of %3d, window %4d, %-4s depth %6d, rows %3d %9.2f us %7.0f GB/s %6.2f\n", s->n_heads,
               s->n_kv_heads, s->head_dim, s->window, kv_type_get(s->type)->name, depth, n, us, bytes * 1e-3 / us,
               us / first);
        fflush(stdout);
    }
    close_case(&b);
}

static bool read_options(options *o, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "s:d:r:")) != -1;) {
        bool ok = false;
        char type[16] = "";
        shape *s = &o->shapes[o->n_shapes];
        if (c == 's' && o->n_shapes + 1 < MAX_LIST) {
            const int n =
                sscanf(optarg, "%d,%d,%d,%d,%15s", &s->n_heads, &s->n_kv_heads, &s->head_dim, &s->window, type);
            ok = n == 5 && kv_type_by_name(type, &s->type) && s->n_kv_heads > 0 && s->n_heads % s->n_kv_heads == 0;
            o->n_shapes += ok;
        }
        if (c == 'd' && o->n_depths < MAX_LIST) {
            o->depths[o->n_depths] = atoi(optarg);
            ok = o->depths[o->n_depths] >= 0 && o->depths[o->n_depths] + MAX_ROWS < (MAX_PAGES - 1) * KV_PAGE_LEN;
            o->n_depths++;
        }
        if (c == 'r' && o->n_rows < MAX_LIST) {
            o->rows[o->n_rows] = atoi(optarg);
            ok = o->rows[o->n_rows] > 0 && o->rows[o->n_rows] <= MAX_ROWS;
            o->n_rows++;
        }
        if (!ok) return false;
    }
    for (size_t i = 0; !o->n_shapes && i < sizeof default_shapes / sizeof *default_shapes; i++)
        o->shapes[i] = default_shapes[i];
    if (!o->n_shapes) o->n_shapes = sizeof default_shapes / sizeof *default_shapes;
    if (!o->n_depths) {
        memcpy(o->depths, default_depths, sizeof default_depths);
        o->n_depths = sizeof default_depths / sizeof *default_depths;
    }
    if (!o->n_rows) {
        memcpy(o->rows, default_rows, sizeof default_rows);
        o->n_rows = sizeof default_rows / sizeof *default_rows;
    }
    return true;
}

int main(int argc, char **argv)
{
    static options o;
    if (!read_options(&o, argc, argv)) {
        fprintf(stderr,
                "usage: bench_cuda_attn [-s heads,kv_heads,head_dim,window,type]... [-d depth]... [-r rows]...\n");
        return 2;
    }
    for (int i = 0; i < o.n_shapes; i++)
        for (int d = 0; d < o.n_depths; d++) run_case(&o.shapes[i], o.depths[d], &o);
    return 0;
}

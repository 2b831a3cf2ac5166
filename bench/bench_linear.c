/* bench_linear: time of packed products, one line per shape, type, width and thread count.
 *
 *     bench_linear [-s N_IN,N_OUT,TYPE]... [-r ROWS]... [-t THREADS]... [-i scalar|avx2|avx512]
 *
 * Defaults: the shapes of a small Gemma 4, rows 1..512, 1 and 2 threads, the best kernel. Weights rotate over 400 MB of
 * anonymous memory, so none are in a cache; the time of a plain read of as many bytes is taken between the repeats and
 * printed beside. Times are medians; `best` is the rate of the fastest repeat (the one to look at on a shared machine).
 * GB/s count the bytes of the file. Quantising the activations is not in the time. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compute/cpu/linear.h"

enum { MAX_LIST = 32, MAX_THREADS = 64, MAX_REPEATS = 41, CHUNK = 8, POOL_BYTES = 400000000 };

typedef struct shape {
    uint32_t n_in, n_out;
    tensor_type type;
} shape;

/* ---- a team of pinned, spinning threads ---- */

typedef void (*job_fn)(int thread, int n_threads, void *arg);

static struct {
    pthread_t id[MAX_THREADS];
    int n;
    job_fn fn;
    void *arg;
    atomic_uint round, done;
    atomic_bool stop;
} team;

static void pin(int thread)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    CPU_ZERO(&one);
    size_t seen = 0, wanted = (size_t)thread;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && seen++ == wanted) CPU_SET(cpu, &one);
    if (CPU_COUNT(&one)) pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static void *member(void *arg)
{
    int thread = (int)(intptr_t)arg;
    pin(thread);
    for (unsigned seen = 0;; seen++) {
        while (atomic_load_explicit(&team.round, memory_order_acquire) == seen)
            if (atomic_load(&team.stop)) return NULL;
        team.fn(thread, team.n, team.arg);
        atomic_fetch_add(&team.done, 1);
    }
}

static void team_start(int n)
{
    team.n = n;
    atomic_store(&team.round, 0);
    atomic_store(&team.stop, false);
    for (int i = 1; i < n; i++) pthread_create(&team.id[i], NULL, member, (void *)(intptr_t)i);
}

static void team_run(job_fn fn, void *arg)
{
    team.fn = fn;
    team.arg = arg;
    atomic_store(&team.done, 0);
    atomic_fetch_add_explicit(&team.round, 1, memory_order_release);
    fn(0, team.n, arg);
    while (atomic_load(&team.done) < (unsigned)team.n - 1) continue;
}

static void team_stop(void)
{
    atomic_store(&team.stop, true);
    for (int i = 1; i < team.n; i++) pthread_join(team.id[i], NULL);
}

/* ---- jobs ---- */

typedef struct job {
    linear_fn fn;
    packed_matrix w;
    linear_input x;
    float *y;
    atomic_uint next; /* tiles are given out in chunks */
} job;

static void product(int thread, int n_threads, void *arg)
{
    (void)thread, (void)n_threads;
    job *j = arg;
    uint32_t n_tiles = j->w.n_out / LINEAR_TILE;
    for (;;) {
        uint32_t t = atomic_fetch_add(&j->next, CHUNK), end = t + CHUNK < n_tiles ? t + CHUNK : n_tiles;
        if (t >= n_tiles) return;
        j->fn(&j->w, t, end, &j->x, 0, j->x.n_rows, j->y, j->w.n_out);
    }
}

static atomic_uint sink;

static void plain_read(int thread, int n_threads, void *arg)
{
    typedef uint32_t vector __attribute__((vector_size(64)));
    const job *j = arg;
    size_t n_tiles = j->w.n_out / LINEAR_TILE, n = (size_t)n_threads, k = (size_t)thread;
    const uint8_t *p = j->w.data + n_tiles * k / n * j->w.tile_bytes;
    const uint8_t *end = j->w.data + n_tiles * (k + 1) / n * j->w.tile_bytes;
    vector s[4] = {{0}};
    for (; p + 256 <= end; p += 256)
        for (int i = 0; i < 4; i++) {
            __builtin_prefetch(p + 8192 + 64 * i);
            s[i] += *(const vector *)(const void *)(p + 64 * i);
        }
    s[0] += s[1] + s[2] + s[3];
    atomic_fetch_add(&sink, s[0][0] + s[0][7] + s[0][15]);
}

/* ---- one cell ---- */

typedef struct pool {
    uint8_t *data;
    size_t bytes, matrix;
    int n_copies, next;
} pool;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

static double seconds(void)
{
    return (double)clock_ns() * 1e-9;
}

/* Time of one run of fn; short ones are repeated over different copies up to about half a millisecond. */
static double time_job(job_fn fn, job *j, pool *p, int inner)
{
    double begin = seconds();
    for (int i = 0; i < inner; i++) {
        j->w.data = p->data + (size_t)(p->next++ % p->n_copies) * p->matrix;
        atomic_store(&j->next, 0);
        team_run(fn, j);
    }
    return (seconds() - begin) / inner;
}

static void cell(const shape *s, job *j, pool *p, size_t file_bytes, double *one_row)
{
    double t[MAX_REPEATS], read[MAX_REPEATS], total = 0;
    int n = 0, rows = j->x.n_rows;
    double first = time_job(product, j, p, 1);
    int inner = first < 5e-4 ? (int)(5e-4 / first) + 1 : 1;
    for (; n < MAX_REPEATS && (n < 9 || total < 0.3) && (n < 3 || total < 1.5); n++) {
        read[n] = time_job(plain_read, j, p, inner);
        t[n] = time_job(product, j, p, inner);
        total += t[n] * inner;
    }
    double us = median(t, n), us_read = median(read, n), best = t[0]; /* sorted by median() */
    if (rows == 1) *one_row = us;
    printf("%6u -> %-6u %-7s %7d %4d %10.1f %8.1f %8.1f %7.0f%% %7.2f %8.0f %8.0f\n", s->n_in, s->n_out,
           type_name((uint32_t)s->type), team.n, rows, us * 1e6, (double)file_bytes / us * 1e-9,
           (double)p->matrix / us_read * 1e-9, us_read / us * 100, *one_row > 0 ? us / *one_row : 0,
           2e-9 * s->n_in * s->n_out * rows / us, 2e-9 * s->n_in * s->n_out * rows / best);
    fflush(stdout);
}

/* ---- one shape ---- */

/* Bytes 0x11..0x1e: scales are finite and small, as f16 about 1e-3, wherever they stand in a block. */
static void fill(uint8_t *w, size_t bytes)
{
    rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)(0x11 + rng_below(&r, 14));
}

static pool make_pool(const shape *s)
{
    size_t row = type_bytes(type_get((uint32_t)s->type), s->n_in), tile = linear_tile_bytes(s->type, s->n_in);
    size_t n_tiles = s->n_out / LINEAR_TILE;
    pool p = {.matrix = n_tiles * tile};
    p.n_copies = (int)(POOL_BYTES / p.matrix) + 2;
    p.bytes = p.matrix * (size_t)p.n_copies + 16384;
    p.data = mem_map(p.bytes);
    uint8_t *file = mem_map(LINEAR_TILE * row);
    if (!p.data || !file) {
        fprintf(stderr, "bench_linear: no memory\n");
        exit(1);
    }
    fill(file, LINEAR_TILE * row);
    for (size_t t = 0; t < n_tiles * (size_t)p.n_copies; t++)
        linear_pack_tile(s->type, s->n_in, LINEAR_TILE, file, 0, p.data + t * tile);
    mem_unmap(file, LINEAR_TILE * row);
    return p;
}

static void run_shape(const shape *s, linear_fn fn, const int *rows, int n_rows, const int *threads, int n_threads)
{
    int most = 1;
    for (int i = 0; i < n_rows; i++) most = rows[i] > most ? rows[i] : most;
    pool p = make_pool(s);
    size_t values = (size_t)most * s->n_in, blocks = (size_t)most * act_n_blocks(s->n_in);
    float *x = mem_map(values * sizeof *x), *y = mem_map((size_t)most * s->n_out * sizeof *y);
    act_block *q = mem_map(blocks * sizeof *q);
    rng r;
    rng_seed(&r, 2);
    for (size_t i = 0; i < values; i++) x[i] = (float)rng_normal(&r);
    for (int t = 0; t < n_threads; t++) {
        double one_row = 0;
        team_start(threads[t]);
        for (int i = 0; i < n_rows; i++) {
            for (int k = 0; k < rows[i]; k++)
                act_quantize_best()(x + (size_t)k * s->n_in, s->n_in, q + k, (size_t)rows[i]);
            job j = {.fn = fn,
                     .w = {s->type, s->n_in, s->n_out, linear_tile_bytes(s->type, s->n_in), p.data},
                     .x = {rows[i], q, x, s->n_in},
                     .y = y};
            cell(s, &j, &p, (size_t)s->n_out * type_bytes(type_get((uint32_t)s->type), s->n_in), &one_row);
        }
        team_stop();
    }
    mem_unmap(p.data, p.bytes);
    mem_unmap(x, values * sizeof *x);
    mem_unmap(y, (size_t)most * s->n_out * sizeof *y);
    mem_unmap(q, blocks * sizeof *q);
}

/* ---- options ---- */

typedef struct options {
    shape shapes[MAX_LIST];
    int rows[MAX_LIST], threads[MAX_LIST];
    int n_shapes, n_rows, n_threads;
    const char *set;
} options;

static const shape default_shapes[] = {
    {1536, 2048, TYPE_Q4_K},  {1536, 12288, TYPE_Q4_K}, {6144, 1536, TYPE_Q4_K}, {6144, 1536, TYPE_Q6_K},
    {1536, 65536, TYPE_Q6_K}, {1536, 12288, TYPE_Q8_0}, {704, 2816, TYPE_Q5_0},  {1536, 12288, TYPE_Q5_0},
    {1536, 12288, TYPE_Q4_0}, {1536, 12288, TYPE_F16},
};
static const int default_rows[] = {1, 2, 3, 4, 8, 16, 64, 512};

static bool add_shape(options *o, const char *text)
{
    char name[32];
    shape *s = &o->shapes[o->n_shapes];
    if (o->n_shapes == MAX_LIST || sscanf(text, "%u,%u,%31s", &s->n_in, &s->n_out, name) != 3) return false;
    if (!type_by_name(name, &s->type) || !linear_can_pack(s->type, s->n_in) || s->n_out % LINEAR_TILE) return false;
    o->n_shapes++;
    return true;
}

static bool add_number(int *list, int *n, const char *text, int most)
{
    int value = atoi(text);
    if (*n == MAX_LIST || value < 1 || value > most) return false;
    list[(*n)++] = value;
    return true;
}

static bool read_options(options *o, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "s:r:t:i:")) != -1;) {
        bool ok = false;
        if (c == 's') ok = add_shape(o, optarg);
        if (c == 'r') ok = add_number(o->rows, &o->n_rows, optarg, 4096);
        if (c == 't') ok = add_number(o->threads, &o->n_threads, optarg, MAX_THREADS);
        if (c == 'i') ok = (o->set = optarg) != NULL;
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
    if (!o->n_threads)
        for (o->n_threads = 0; o->n_threads < 2 && o->n_threads < cpu_count(); o->n_threads++)
            o->threads[o->n_threads] = o->n_threads + 1;
    return true;
}

static linear_fn kernel(const options *o, tensor_type type)
{
    if (!o->set) return linear_best(type);
    if (strcmp(o->set, "avx512") == 0) return linear_avx512(type);
    if (strcmp(o->set, "avx2") == 0) return linear_avx2(type);
    return strcmp(o->set, "scalar") == 0 ? linear_scalar(type) : NULL;
}

int main(int argc, char **argv)
{
    static options o;
    if (!read_options(&o, argc, argv)) {
        fprintf(stderr, "usage: bench_linear [-s n_in,n_out,type]... [-r rows]... [-t threads]... [-i set]\n");
        return 2;
    }
    pin(0);
    printf("%s\n%16s %-7s %7s %4s %10s %8s %8s %8s %7s %8s %8s\n", cpu_features_text(), "shape", "type", "threads",
           "rows", "us", "GB/s", "read", "of read", "t/t1", "GOP/s", "best");
    for (int i = 0; i < o.n_shapes; i++) {
        linear_fn fn = kernel(&o, o.shapes[i].type);
        if (!fn) {
            fprintf(stderr, "bench_linear: no such kernel for %s\n", type_name((uint32_t)o.shapes[i].type));
            return 1;
        }
        run_shape(&o.shapes[i], fn, o.rows, o.n_rows, o.threads, o.n_threads);
    }
    return 0;
}

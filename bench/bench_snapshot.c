/* bench_snapshot: what snapshots cost. bench_snapshot MODEL [tokens=1000] [kv=f16] [file=snapshot.tmp]
 * Best of REPS of each, in milliseconds, with the bytes that were moved; the cost of looking for a prompt's beginning
 * among N_TEXTS cached ones; and of parking and unparking the target. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "decode/park.h"
#include "decode/prefix.h"
#include "decode/snapshot_file.h"

enum { REPS = 7, N_TEXTS = 300 };

static void need(facet_status status, const facet_error *err)
{
    if (status == FACET_OK) return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static void text(int32_t *out, int32_t n, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    for (int32_t i = 0; i < n; i++) out[i] = i ? 300 + (int32_t)rng_below(&r, 1500) : 2;
}

typedef struct bench {
    facet_engine *engine;
    facet_session *session;
    const char *file;
} bench;

static facet_status store(bench *b, facet_error *err)
{
    return snapshot_store(b->session, 0, -1, NULL, err);
}

static facet_status restore(bench *b, facet_error *err)
{
    return snapshot_restore(b->session, 0, err);
}

static facet_status save(bench *b, facet_error *err)
{
    return snapshot_save(b->engine, 0, b->file, err);
}

static facet_status load(bench *b, facet_error *err)
{
    return snapshot_load(b->engine, 1, b->file, err);
}

static void measure(bench *b, const char *name, facet_status (*call)(bench *, facet_error *), bool is_copied)
{
    facet_error err;
    snapshot_info info;
    double best = 1e30;
    for (int i = 0; i < REPS; i++) {
        const uint64_t t0 = clock_ns();
        need(call(b, &err), &err);
        const double ms = (double)(clock_ns() - t0) * 1e-6;
        if (ms < best) best = ms;
    }
    snapshot_describe(b->engine, 0, &info);
    printf("%-10s %10.4f ms  %8.2f MiB of pages", name, best, (double)info.bytes / 0x1p20);
    if (is_copied) printf("  %8.0f MB/s", (double)info.bytes / best * 1e-3);
    printf("\n");
}

/* A prompt's beginning is sought among texts that all begin with it. */
static void measure_search(bench *b, int32_t *ids, int32_t n)
{
    facet_error err;
    prefix_match m;
    for (int i = 0; i < N_TEXTS; i++) {
        facet_session *s;
        need(facet_session_open(b->engine, &s, &err), &err);
        need(snapshot_restore(s, 0, &err), &err);
        ids[n] = 400 + i;
        need(facet_session_sync(s, ids, (size_t)n + 1, &err), &err);
        facet_session_close(s);
    }
    prefix_stats stats;
    prefix_describe(b->engine, &stats);
    facet_session *asking;
    need(facet_session_open(b->engine, &asking, &err), &err);
    ids[n] = 399;
    double best = 1e30;
    for (int i = 0; i < REPS; i++) {
        const uint64_t t0 = clock_ns();
        prefix_find(asking, ids, n + 1, 0, &m);
        const double ms = (double)(clock_ns() - t0) * 1e-6;
        if (ms < best) best = ms;
    }
    printf("%-10s %10.3f ms  %d of %d tokens found, %d cached prompts of that length\n", "search", best, m.n_usable,
           n + 1, stats.n_entries);
    facet_session_close(asking);
}

static void measure_parking(bench *b)
{
    facet_error err;
    park_report out = {0}, in = {0};
    double park = 1e30, unpark = 1e30;
    for (int i = 0; i < REPS; i++) {
        need(engine_park(b->engine, PARK_ALL, FACET_PARK_KV_HOST, &out, &err), &err);
        need(engine_unpark(b->engine, PARK_ALL, &in, &err), &err);
        if (out.ms < park) park = out.ms;
        if (in.ms < unpark) unpark = in.ms;
    }
    printf("%-10s %10.3f ms  %.1f MiB of weights, %.1f of cache, %.1f of activations; %.1f MiB of pages on the host\n",
           "park", park, (double)out.weights / 0x1p20, (double)out.kv / 0x1p20, (double)out.compute / 0x1p20,
           (double)out.host / 0x1p20);
    printf("%-10s %10.3f ms\n", "unpark", unpark);
}

int main(int argc, char **argv)
{
    const int32_t n = argc > 2 ? atoi(argv[2]) : 1000;
    facet_engine_params p = facet_engine_params_default();
    facet_error err;
    facet_model *model;
    bench b = {.file = argc > 4 ? argv[4] : "snapshot.tmp"};
    if (argc < 2 || n < 1) return fprintf(stderr, "bench_snapshot MODEL [tokens] [kv type] [file]\n"), 2;
    int32_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
    if (!ids) return 1;
    text(ids, n, 1);
    p.n_ctx = n + 64;
    p.n_sessions = 3;
    p.reuse_prompts = true;
    p.cache_bytes = (uint64_t)2 << 30;
    if (argc > 3) p.cache_type_k = p.cache_type_v = argv[3];
    need(facet_model_open(argv[1], &model, &err), &err);
    need(facet_engine_open(model, &p, &b.engine, &err), &err);
    need(facet_session_open(b.engine, &b.session, &err), &err);
    need(facet_session_sync(b.session, ids, (size_t)n, &err), &err);
    measure(&b, "store", store, false);
    measure(&b, "restore", restore, false);
    measure(&b, "save", save, true);
    measure(&b, "load", load, true);
    remove(b.file);
    measure_search(&b, ids, n);
    measure_parking(&b);
    facet_session_close(b.session);
    facet_engine_close(b.engine);
    facet_model_close(model);
    free(ids);
    return 0;
}

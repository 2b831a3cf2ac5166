/* bench_print.c: results as a Markdown table, one JSON object, or CSV. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "base/file_map.h"
#include "cli/cmd_bench.h"
#include "cli/sparse_report.h"
#include "cli/spec_report.h"
#include "serve/spec_json.h"

static json_t *results; /* collected for BENCH_JSON */

static const char *model_name(const bench_run *run)
{
    const char *path = cli_model_path(&run->o->common), *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static double tensor_gib(const facet_model *m)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < m->file->n_tensors; i++) bytes += m->file->tensors[i].bytes;
    return (double)bytes / 0x1p30;
}

static void test_name(const bench_result *r, char *out, size_t n)
{
    static const char *const kinds[] = {"pp", "tg", "w", "spec"};
    const int used = snprintf(out, n, "%s%d", kinds[r->kind], r->n);
    if (r->depth && used > 0 && (size_t)used < n) snprintf(out + used, n - (size_t)used, " @ d%d", r->depth);
}

/* Tokens per second: of a prompt, of generation, or of a step's rows. */
static double rate(const bench_result *r)
{
    const double tokens = r->kind == BENCH_DECODE || r->kind == BENCH_SPEC ? 1 : r->n;
    return tokens * 1000 / r->median_ms;
}

static double read_rate(const bench_result *r)
{
    return r->bytes * 1e-6 / r->median_ms;
}
static double dot_rate(const bench_result *r)
{
    return r->ops * 1e-6 / r->median_ms;
}
static double share(double x, double ceiling)
{
    return ceiling > 0 ? x / ceiling : 0;
}

void bench_print_begin(const bench_run *run)
{
    backend_info info;
    const char *cache[2];
    run->engine->be->ops->info(run->engine->be, &info);
    cli_cache_types(&run->o->common.engine, cache);
    const backend_ceilings *c = &run->ceilings;
    switch (run->o->format) {
    case BENCH_MD:
        printf("%s, %.2f GiB, KV %s/%s, on %s: %s; it reads %.1f GB/s", model_name(run), tensor_gib(run->engine->model),
               cache[0], cache[1], info.name, info.description, c->read_gbps);
        if (c->dot_gops > 0) printf(" and multiplies %.0f GOP/s", c->dot_gops);
        printf("\n\n| test | tok/s | ms | best ms | GB/s | of read | GOP/s | of dot |\n"
               "|---|---|---|---|---|---|---|---|\n");
        break;
    case BENCH_CSV:
        printf("model,device,test,n,depth,samples,tokens_per_second,median_ms,best_ms,gbps,read_gbps,gops,dot_gops\n");
        break;
    case BENCH_JSON: results = json_array(); break;
    }
    fflush(stdout);
}

/* A speculative line reports steps and acceptance instead of bytes. */
static void print_spec(const bench_run *run, const bench_result *r, const char *test)
{
    const char *verdicts = run->o->accept.n ? "synthetic" : "real";
    json_t *j;
    switch (run->o->format) {
    case BENCH_MD:
        printf("| %s | %.2f | %.3f | | | | | |\n\n%s: %s acceptance; ", test, rate(r), r->median_ms, test, verdicts);
        fflush(stdout);
        cli_print_spec(stdout, "", run->o->common.generate.speculation.method, &r->spec);
        break;
    case BENCH_CSV:
        printf("%s,%s,speculative %s,%d,%d,%d,%.3f,%.4f,,,,,\n", model_name(run), run->o->common.engine.device,
               verdicts, r->n, r->depth, r->n_samples, rate(r), r->median_ms);
        break;
    case BENCH_JSON:
        j = json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "test", "speculative", "acceptance", verdicts, "n", r->n,
                      "depth", r->depth, "tokens_per_second", rate(r), "median_ms", r->median_ms, "speculation",
                      spec_json(&r->spec));
        json_array_append_new(results, j);
        break;
    }
    fflush(stdout);
}

void bench_print(const bench_run *run, const bench_result *r)
{
    static const char *const kinds[] = {"prefill", "decode", "step", "speculative"};
    const backend_ceilings *c = &run->ceilings;
    char test[48];
    test_name(r, test, sizeof test);
    if (r->kind == BENCH_SPEC) {
        print_spec(run, r, test);
        return;
    }
    switch (run->o->format) {
    case BENCH_MD:
        printf("| %s | %.2f | %.3f | %.3f | %.1f | %.0f %% | %.0f | %.0f %% |\n", test, rate(r), r->median_ms,
               r->best_ms, read_rate(r), 100 * share(read_rate(r), c->read_gbps), dot_rate(r),
               100 * share(dot_rate(r), c->dot_gops));
        break;
    case BENCH_CSV:
        printf("%s,%s,%s,%d,%d,%d,%.3f,%.4f,%.4f,%.2f,%.2f,%.1f,%.1f\n", model_name(run), run->o->common.engine.device,
               kinds[r->kind], r->n, r->depth, r->n_samples, rate(r), r->median_ms, r->best_ms, read_rate(r),
               c->read_gbps, dot_rate(r), c->dot_gops);
        break;
    case BENCH_JSON:
        json_array_append_new(results, json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "test",
                                                 kinds[r->kind], "n", r->n, "depth", r->depth, "samples", r->n_samples,
                                                 "tokens_per_second", rate(r), "median_ms", r->median_ms, "best_ms",
                                                 r->best_ms, "bytes", r->bytes, "ops", r->ops));
        break;
    }
    fflush(stdout);
}

/* Ops of one kind and shape are one line: the layers' ops come in a few shapes. */
static bool is_same(const bench_run *run, const plan_op *a, const plan_op *b)
{
    const weight *w = run->engine->model->w.list;
    if (a->kind != b->kind || a->window != b->window || a->head_dim != b->head_dim || (a->w0 < 0) != (b->w0 < 0))
        return false;
    return a->w0 < 0 || (w[a->w0].type == w[b->w0].type && memcmp(w[a->w0].ne, w[b->w0].ne, sizeof w->ne) == 0);
}

static void describe(const bench_run *run, const plan_op *op, char *out, size_t n)
{
    const weight *w = op->w0 < 0 ? NULL : &run->engine->model->w.list[op->w0];
    if (w && w->is_matrix)
        snprintf(out, n, "%s %" PRIu64 "x%" PRIu64 " %s", op_kind_name(op->kind), w->ne[0], w->ne[1],
                 type_name(w->type));
    else if (op->kind == OP_ATTN)
        snprintf(out, n, "%s %s, head %d", op_kind_name(op->kind), op->window ? "local" : "global", op->head_dim);
    else
        snprintf(out, n, "%s", op_kind_name(op->kind));
}

static void print_op(const bench_run *run, const plan_op *op, int count, double ms, op_cost c)
{
    char name[96];
    describe(run, op, name, sizeof name);
    const double gbps = c.bytes * 1e-6 / ms, gops = c.ops * 1e-6 / ms;
    switch (run->o->format) {
    case BENCH_MD:
        printf("| %s | %d | %.3f | %.1f | %.0f %% | %.0f | %.0f %% |\n", name, count, ms, gbps,
               100 * share(gbps, run->ceilings.read_gbps), gops, 100 * share(gops, run->ceilings.dot_gops));
        break;
    case BENCH_CSV: printf("op,\"%s\",%d,%.4f,%.2f,%.1f\n", name, count, ms, gbps, gops); break;
    case BENCH_JSON:
        json_array_append_new(results, json_pack("{s:s, s:s, s:i, s:f, s:f, s:f}", "test", "op", "op", name, "count",
                                                 count, "median_ms", ms, "bytes", c.bytes, "ops", c.ops));
        break;
    }
}

void bench_print_ops(const bench_run *run, int32_t rows, int32_t depth, const bench_op_time *ops)
{
    const plan *p = run->engine->plan;
    double total = 0;
    if (run->o->format == BENCH_MD)
        printf("\n%d rows at depth %d, op by op:\n\n| op | count | ms | GB/s | of read | GOP/s | of dot |\n"
               "|---|---|---|---|---|---|---|\n",
               rows, depth);
    for (int i = 0; i < p->n_ops; i++) {
        int first = 0, count = 0;
        while (!is_same(run, &p->ops[first], &p->ops[i])) first++;
        if (first < i) continue; /* counted there */
        double ms = 0;
        op_cost c = {0};
        for (int k = i; k < p->n_ops; k++) {
            if (!is_same(run, &p->ops[i], &p->ops[k])) continue;
            ms += ops[k].median_ms;
            c.bytes += ops[k].cost.bytes;
            c.ops += ops[k].cost.ops;
            count++;
        }
        total += ms;
        print_op(run, &p->ops[i], count, ms, c);
    }
    if (run->o->format == BENCH_MD) printf("| all | %d | %.3f | | | | |\n", p->n_ops, total);
    fflush(stdout);
}

void bench_print_end(const bench_run *run)
{
    facet_sparse_stats sparse;
    facet_engine_sparse(run->engine, &sparse);
    if (run->o->format == BENCH_MD) cli_print_sparse(stdout, "\nsparse attention: ", &sparse);
    if (run->o->format != BENCH_JSON) return;
    backend_info info;
    facet_memory memory;
    const char *cache[2];
    cli_cache_types(&run->o->common.engine, cache);
    run->engine->be->ops->info(run->engine->be, &info);
    facet_engine_memory(run->engine, &memory);
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:{s:f, s:f}, s:I, s:o, s:o}", "model", model_name(run), "device",
                  info.name, "description", info.description, "cache_type_k", cache[0], "cache_type_v", cache[1],
                  "ceilings", "read_gbps", run->ceilings.read_gbps, "dot_gops", run->ceilings.dot_gops, "peak_rss",
                  (json_int_t)memory.peak_rss, "sparse", cli_sparse_json(&sparse), "results", results);
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
    results = NULL;
}

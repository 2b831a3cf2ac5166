/* cmd_bench.c: facet bench: prefill, decode and verify speed at given depths. */
#include "cli/cmd_bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { OPT_HELP = 300, OPT_OPS, OPT_SYNTH, OPT_BLANK_DEPTH, MAX_TOKENS = 1 << 20 };

static void help(void)
{
    printf("usage: facet bench [OPTIONS]\n"
           "Speed of prefill, decode and steps of several rows, beside what the machine can do.\n\n"
           "  -p LIST                    prompt lengths (default 512)\n"
           "  -n N                       tokens to generate (default 128; 0 = none)\n"
           "  -d LIST                    tokens in the cache before (default 0)\n"
           "       --blank-depth         those tokens are not evaluated: right for times alone, and soon there\n"
           "  -w LIST                    rows of a verify step, at most %d (default none)\n"
           "  -r N                       repeats of prompts and steps (default 3)\n"
           "  -o md|json|csv             how to print (default md)\n"
           "       --ops                 also op by op at the last depth: each -w (or one row), a step of the\n"
           "                             longest prompt\n\n"
           "       --synth-accept LIST   speculation with made-up acceptance by position, for random weights\n\n"
           "Lists are separated by commas. tok/s and ms are medians; GB/s and GOP/s count what a step must read\n"
           "(weights and KV once) and multiply.\n\n",
           ENGINE_MAX_OUT);
    cli_print_options(stdout, CLI_SPECULATION);
}

static bool parse_list(const char *name, const char *arg, int32_t min, int32_t max, bench_list *out)
{
    out->n = 0;
    if (strcmp(arg, "0") == 0 && min > 0) return true; /* none */
    for (const char *p = arg;; p++) {
        char *end;
        const long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < min || v > max || out->n == BENCH_MAX_LIST) {
            fprintf(stderr, "facet: -%s: '%s' is not a list of at most %d numbers from %d to %d\n", name, arg,
                    BENCH_MAX_LIST, min, max);
            return false;
        }
        out->v[out->n++] = (int32_t)v;
        p = end;
        if (!*p) return true;
    }
}

/* Probabilities that drafts 1, 2, .. are accepted, not rising. */
static bool parse_accept(const char *arg, made_up *out)
{
    *out = (made_up){.seed = 1};
    for (const char *p = arg;; p++) {
        char *end;
        const float v = strtof(p, &end), last = out->n ? out->accept[out->n - 1] : 1;
        if (end == p || (*end && *end != ',') || !(v >= 0 && v <= last) || out->n == DRAFT_TREE_MAX_NODES) {
            fprintf(stderr,
                    "facet: --synth-accept: '%s' is not a list of at most %d numbers from 0 to 1 that do not rise\n",
                    arg, DRAFT_TREE_MAX_NODES);
            return false;
        }
        out->accept[out->n++] = v;
        p = end;
        if (!*p) return true;
    }
}

static bool parse_format(const char *arg, bench_format *out)
{
    static const char *const names[] = {"md", "json", "csv"};
    for (int i = 0; i < 3; i++)
        if (strcmp(arg, names[i]) == 0) return *out = (bench_format)i, true;
    fprintf(stderr, "facet: -o: '%s' is not md, json or csv\n", arg);
    return false;
}

static bool parse_one(bench_options *o, int c, const char *arg)
{
    long long v;
    switch (c) {
    case 'p': return parse_list("p", arg, 1, MAX_TOKENS, &o->prompts);
    case 'd': return parse_list("d", arg, 0, MAX_TOKENS, &o->depths);
    case 'w': return parse_list("w", arg, 1, ENGINE_MAX_OUT, &o->widths);
    case 'o': return parse_format(arg, &o->format);
    case 'n':
        if (!cli_int("n", arg, 0, MAX_TOKENS, &v)) return false;
        o->n_decode = (int32_t)v;
        return true;
    case 'r':
        if (!cli_int("r", arg, 1, BENCH_MAX_REPEATS, &v)) return false;
        o->n_repeats = (int)v;
        return true;
    case OPT_OPS: o->wants_ops = true; return true;
    case OPT_BLANK_DEPTH: o->has_blank_depth = true; return true;
    case OPT_SYNTH: return parse_accept(arg, &o->accept);
    default: return cli_option(&o->common, c, arg) == 1;
    }
}

static int by_depth(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* -1: help was printed */
static int parse(int argc, char **argv, bench_options *o)
{
    struct option table[64] = {{"help", no_argument, NULL, OPT_HELP},
                               {"ops", no_argument, NULL, OPT_OPS},
                               {"blank-depth", no_argument, NULL, OPT_BLANK_DEPTH},
                               {"synth-accept", required_argument, NULL, OPT_SYNTH}};
    cli_long_options(table + 4, CLI_SPECULATION);
    cli_expand_short(argc, argv);
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:p:n:d:w:r:o:h", table)) != -1;) {
        if (c == 'h' || c == OPT_HELP) return help(), -1;
        if (!parse_one(o, c, optarg)) return EXIT_USAGE;
    }
    if (optind < argc) return cli_usage("bench", "'%s': there are no arguments beside options", argv[optind]);
    if (o->common.is_json) o->format = BENCH_JSON;
    qsort(o->depths.v, (size_t)o->depths.n, sizeof *o->depths.v, by_depth);
    return EXIT_OK;
}

static facet_status run_ops(bench_run *run, int32_t depth, facet_error *err)
{
    const bench_list one = {.n = 1, .v = {1}}, *widths = run->o->widths.n ? &run->o->widths : &one;
    bench_op_time *ops = mem_calloc((size_t)run->engine->plan->n_ops, sizeof *ops);
    if (!ops) return error_memory(err, "op times", (size_t)run->engine->plan->n_ops * sizeof *ops);
    const int32_t most = bench_list_max(&run->o->prompts), prompt = most < ENGINE_MAX_ROWS ? most : ENGINE_MAX_ROWS;
    facet_status status = FACET_OK;
    for (int i = 0; i <= widths->n && status == FACET_OK; i++) {
        const int32_t rows = i < widths->n ? widths->v[i] : prompt;
        if (!rows) break;
        status = bench_ops(run, rows, ops, err);
        if (status == FACET_OK) bench_print_ops(run, rows, depth, ops);
    }
    mem_free(ops);
    return status;
}

static facet_status run_depth(bench_run *run, int32_t depth, facet_error *err)
{
    const bench_options *o = run->o;
    bench_result r;
    FACET_TRY(bench_fill(run, depth, err));
    for (int i = 0; i < o->prompts.n; i++) {
        FACET_TRY(bench_prefill(run, o->prompts.v[i], &r, err));
        bench_print(run, &r);
    }
    if (o->n_decode) {
        FACET_TRY(bench_decode(run, o->n_decode, &r, err));
        bench_print(run, &r);
    }
    if (o->n_decode && o->common.generate.speculation.method != FACET_SPEC_NONE) {
        FACET_TRY(bench_spec(run, o->n_decode, &r, err));
        bench_print(run, &r);
    }
    for (int i = 0; i < o->widths.n; i++) {
        FACET_TRY(bench_step(run, o->widths.v[i], &r, err));
        bench_print(run, &r);
    }
    return FACET_OK;
}

static facet_status run_all(bench_run *run, facet_error *err)
{
    backend *be = run->engine->be;
    FACET_TRY(be->ops->measure(be, &run->ceilings, err));
    bench_print_begin(run);
    for (int i = 0; i < run->o->depths.n; i++) FACET_TRY(run_depth(run, run->o->depths.v[i], err));
    if (run->o->wants_ops) FACET_TRY(run_ops(run, run->o->depths.v[run->o->depths.n - 1], err));
    bench_print_end(run);
    return FACET_OK;
}

int cmd_bench(int argc, char **argv)
{
    bench_options o = {.prompts = {.n = 1, .v = {512}}, .depths = {.n = 1}, .n_decode = 128, .n_repeats = 3};
    cli_options_init(&o.common);
    if (!cli_options_from_environment(&o.common)) return EXIT_USAGE;
    const int wrong = parse(argc, argv, &o);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    bench_run run = {.o = &o};
    rng_seed(&run.rng, 1);
    facet_error err = {0};
    facet_status status = cli_open_model(&o.common, &run.model, &err);
    if (status == FACET_OK && !o.common.engine.n_ctx) {
        const int64_t n_ctx = bench_context(&o), limit = facet_model_n_ctx(run.model);
        o.common.engine.n_ctx = (int32_t)(n_ctx < limit ? n_ctx : limit);
    }
    o.common.engine.n_sessions = 2; /* the filled one, and its fork that is measured */
    if (status == FACET_OK) status = cli_open_engine(&o.common, run.model, &run.engine, &err);
    if (status == FACET_OK) status = facet_session_open(run.engine, &run.base, &err);
    if (status == FACET_OK) status = run_all(&run, &err);
    facet_session_close(run.base);
    cli_close_engine(&o.common, run.engine);
    facet_model_close(run.model);
    return status == FACET_OK ? EXIT_OK : cli_fail(&err);
}

/* eval_needle.c: facet eval needle: a number hidden in long texts, by length and depth. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file_map.h"
#include "base/mem.h"
#include "cli/eval.h"
#include "cli/needle_report.h"

enum { OPT_HELP = 300, OPT_DEPTH, OPT_N, OPT_SVG, OPT_RAW, ANSWER_TOKENS = 32, MAX_CTX = 1 << 24, MAX_PER_CELL = 1000 };

typedef struct needle_options {
    cli_options common;
    needle_list ctx, depth;
    int n_per_cell;
    const char *svg;
    bool is_raw;
    facet_engine_info info; /* of the engine that ran */
} needle_options;

static void help(void)
{
    printf(
        "usage: facet eval needle [OPTIONS]\nHides a number in a long text and asks for it. A cell's answers are right "
        "when they name the number.\n\n"
        "  -c,  --ctx LIST            contexts: prompt and answer fill one (default 2048,4096,8192,16384, as\n"
        "                             far as the model goes)\n"
        "       --depth LIST          where the number stands, percent of the text (default 0,25,50,75,100)\n"
        "       --n N                 prompts a cell (default 1)\n"
        "       --svg FILE            also a heat map\n"
        "       --raw                 plain text that ends in \"Answer:\", no chat: for models without a template\n"
        "Lists are separated by commas. --seed (default 1) makes the texts, too; -n is the answer's length\n"
        "(default %d).\n\n",
        ANSWER_TOKENS);
    cli_print_options_but(stdout, CLI_GENERATION, 'c');
}

static bool parse_list(const char *name, const char *arg, int32_t min, int32_t max, needle_list *out)
{
    out->n = 0;
    for (const char *p = arg;; p++) {
        char *end;
        const long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < min || v > max || out->n == NEEDLE_MAX_LIST) {
            fprintf(stderr, "facet: --%s: '%s' is not a list of at most %d numbers from %d to %d\n", name, arg,
                    NEEDLE_MAX_LIST, min, max);
            return false;
        }
        out->v[out->n++] = (int32_t)v;
        p = end;
        if (!*p) return true;
    }
}

/* Not by cli_int, which would name the option -n. */
static bool parse_count(const char *arg, int *out)
{
    char *end;
    const long v = strtol(arg, &end, 10);
    if (end == arg || *end || v < 1 || v > MAX_PER_CELL) {
        fprintf(stderr, "facet: --n: '%s' is not a whole number from 1 to %d\n", arg, MAX_PER_CELL);
        return false;
    }
    *out = (int)v;
    return true;
}

static bool parse_one(needle_options *o, int c, const char *arg)
{
    switch (c) {
    case 'c': return parse_list("ctx", arg, NEEDLE_MIN_TOKENS + ANSWER_TOKENS, MAX_CTX, &o->ctx);
    case OPT_DEPTH: return parse_list("depth", arg, 0, 100, &o->depth);
    case OPT_SVG: o->svg = arg; return true;
    case OPT_RAW: o->is_raw = true; return true;
    case OPT_N: return parse_count(arg, &o->n_per_cell);
    default: return cli_option(&o->common, c, arg) == 1;
    }
}

/* -1: help was printed */
static int parse(int argc, char **argv, needle_options *o)
{
    struct option table[64] = {{"help", no_argument, NULL, OPT_HELP},
                               {"depth", required_argument, NULL, OPT_DEPTH},
                               {"n", required_argument, NULL, OPT_N},
                               {"svg", required_argument, NULL, OPT_SVG},
                               {"raw", no_argument, NULL, OPT_RAW}};
    cli_long_options(table + 5, CLI_GENERATION);
    cli_expand_short(argc, argv);
    if (!cli_options_from_environment(&o->common)) return EXIT_USAGE;
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:n:h", table)) != -1;) {
        if (c == 'h' || c == OPT_HELP) return help(), -1;
        if (!parse_one(o, c, optarg)) return EXIT_USAGE;
    }
    if (optind < argc) return cli_usage("eval needle", "'%s': there are no arguments beside options", argv[optind]);
    return EXIT_OK;
}

static void default_lists(needle_options *o, const facet_model *m)
{
    if (!o->depth.n) o->depth = (needle_list){.v = {0, 25, 50, 75, 100}, .n = 5};
    if (o->ctx.n) return;
    for (int32_t n = 2048; n <= 16384 && n <= facet_model_n_ctx(m); n *= 2) o->ctx.v[o->ctx.n++] = n;
    if (!o->ctx.n) o->ctx.v[o->ctx.n++] = facet_model_n_ctx(m);
}

static int32_t longest(const needle_list *l)
{
    int32_t n = 0;
    for (int i = 0; i < l->n; i++)
        if (l->v[i] > n) n = l->v[i];
    return n;
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    (void)token;
    return buf_append(ud, text, n);
}

static facet_status run_trial(const facet_model *m, facet_session *s, const needle_options *o, const needle_params *p,
                              needle_trial *out, facet_error *err)
{
    needle_prompt prompt;
    buf answer = {0};
    facet_generate_params g = o->common.generate;
    facet_generate_result r;
    g.on_token = on_token;
    g.ud = &answer;
    g.show_special = false;
    FACET_TRY(needle_build(m, p, &prompt, err));
    facet_status status = facet_generate(s, prompt.ids, prompt.n_ids, &o->common.sampling, &g, &r, err);
    if (status == FACET_OK && !buf_append(&answer, "", 0)) status = error_memory(err, "an answer", answer.len);
    if (status == FACET_OK) {
        *out = (needle_trial){.n_prompt = prompt.n_ids, .needle = prompt.needle, .answer = answer.data};
        memcpy(out->key, prompt.key, sizeof out->key);
        out->is_right = needle_is_found(answer.data, prompt.key);
    } else {
        buf_free(&answer);
    }
    needle_free(&prompt);
    return status;
}

/* Length by length, so that what comes first is done first. */
static facet_status run_all(const facet_model *m, facet_session *s, const needle_options *o, needle_report *r,
                            facet_error *err)
{
    uint64_t done = 0, total = 0;
    for (int c = 0; c < r->ctx.n; c++) total += (uint64_t)r->ctx.v[c] * (uint64_t)(r->depth.n * r->n_per_cell);
    for (int c = 0; c < r->ctx.n; c++)
        for (int d = 0; d < r->depth.n; d++)
            for (int i = 0; i < r->n_per_cell; i++) {
                const needle_params p = {.n_tokens = r->ctx.v[c] - o->common.generate.n_predict,
                                         .depth = r->depth.v[d],
                                         .seed = r->seed + (uint64_t)i,
                                         .is_raw = o->is_raw};
                FACET_TRY(run_trial(m, s, o, &p, needle_trial_at(r, d, c, i), err));
                done += (uint64_t)r->ctx.v[c];
                if (!cli_progress(NULL, "needle", done, total))
                    return error_set(err, FACET_ERR_CANCELLED, "interrupted");
            }
    return FACET_OK;
}

static facet_status write_svg(const needle_report *r, const char *path, facet_error *err)
{
    buf svg = {0};
    file_writer w;
    if (!needle_svg(r, &svg)) {
        const size_t bytes = svg.len;
        buf_free(&svg);
        return error_memory(err, path, bytes);
    }
    facet_status status = file_writer_open(path, &w, err);
    if (status == FACET_OK) {
        status = file_writer_put(&w, svg.data, svg.len, err);
        if (status == FACET_OK) status = file_writer_commit(&w, err);
        file_writer_abort(&w);
    }
    buf_free(&svg);
    return status;
}

static bool print(const needle_report *r, bool is_json)
{
    if (!is_json) {
        needle_print_table(stdout, r);
        return fflush(stdout) == 0;
    }
    json_t *j = needle_json(r);
    const bool ok = j && json_dumpf(j, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    json_decref(j);
    return ok && fflush(stdout) == 0;
}

static facet_status measure(needle_options *o, facet_model *m, needle_report *r, facet_error *err)
{
    facet_engine *e = NULL;
    facet_session *s = NULL;
    default_lists(o, m);
    r->ctx = o->ctx;
    r->depth = o->depth;
    const size_t n = (size_t)o->ctx.n * (size_t)o->depth.n * (size_t)o->n_per_cell;
    r->trials = mem_calloc(n, sizeof *r->trials);
    if (!r->trials) return error_memory(err, "the answers", n * sizeof *r->trials);
    o->common.engine.n_ctx = longest(&o->ctx);
    facet_status status = cli_open_engine(&o->common, m, &e, err);
    if (status == FACET_OK) status = facet_session_open(e, &s, err);
    if (status == FACET_OK) facet_engine_describe(e, &o->info);
    r->device = o->info.device;
    if (status == FACET_OK) status = run_all(m, s, o, r, err);
    facet_session_close(s);
    cli_close_engine(&o->common, e);
    return status;
}

static void report_free(needle_report *r)
{
    for (int i = 0; r->trials && i < r->ctx.n * r->depth.n * r->n_per_cell; i++) mem_free(r->trials[i].answer);
    mem_free(r->trials);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int eval_needle(int argc, char **argv)
{
    needle_options o = {.n_per_cell = 1};
    cli_options_init(&o.common);
    const int parsed = parse(argc, argv, &o);
    if (parsed) return parsed < 0 ? EXIT_OK : parsed;
    if (o.common.generate.n_predict <= 0) o.common.generate.n_predict = ANSWER_TOKENS;
    if (!o.common.has_seed) o.common.sampling.seed = 1;
    needle_report r = {.seed = o.common.sampling.seed, .n_per_cell = o.n_per_cell};
    facet_error err = {0};
    facet_model *m = NULL;
    cli_cache_types(&o.common.engine, r.cache);
    facet_status status = cli_open_model(&o.common, &m, &err);
    if (status == FACET_OK) {
        r.model = base_name(cli_model_path(&o.common));
        status = measure(&o, m, &r, &err);
    }
    int exit_status = EXIT_OK;
    if (status == FACET_OK && o.svg) status = write_svg(&r, o.svg, &err);
    if (status != FACET_OK)
        exit_status = cli_fail(&err);
    else if (!print(&r, o.common.is_json))
        exit_status = EXIT_FAILED;
    report_free(&r);
    facet_model_close(m);
    return exit_status;
}

/* eval_kl.c: facet eval kl --a OPTIONS --b OPTIONS FILE: divergence of configuration b from configuration a. */
#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "cli/eval.h"
#include "cli/sparse_report.h"
#include "cli/words.h"

enum { OPT_HELP = 300, OPT_A, OPT_B, MAX_WORDS = 64 };

/* One configuration: the common options, then its own. */
typedef struct side {
    const char *name, *text; /* "a" or "b"; its option string or NULL */
    char *words;             /* owned; the options point into it */
    cli_options o;
    facet_model *model;
    facet_engine *engine;
    int32_t *ids;
    size_t n_ids;
} side;

static void help(void)
{
    printf("usage: facet eval kl --a OPTIONS --b OPTIONS FILE [OPTIONS]\n"
           "Divergence KL(a || b) of the next token's distribution, in nats, over the positions that eval ppl scores.\n"
           "Options outside hold for both; -c and --json stand outside. Both engines are in memory at the same time.\n"
           "Example: facet eval kl --a '-m f16.gguf' --b '-m q4.gguf -ctk q8_0 -ctv q8_0' text.txt\n\n"
           "       --a OPTIONS           the reference: -m, --device, -ctk, -ctv, --rebuild-keys and others; quoted as "
           "in a shell\n"
           "       --b OPTIONS           what is compared with it\n");
    eval_print_text_options(stdout);
    cli_print_options(stdout, 0);
}

/* The options of one side on top of the common ones. False after printing what is wrong. */
static bool parse_side(side *s, const cli_options *common)
{
    char *argv[MAX_WORDS + 1] = {(char[]){"eval kl"}};
    int argc;
    facet_error err;
    s->o = *common;
    if (!s->text) {
        cli_usage("eval kl", "--%s OPTIONS is missing", s->name);
        return false;
    }
    if (words_split(s->text, &s->words, argv + 1, MAX_WORDS, &argc, &err) != FACET_OK) {
        cli_usage("eval kl", "--%s: %s", s->name, err.message);
        return false;
    }
    struct option table[32] = {{0}};
    cli_long_options(table, 0);
    cli_expand_short(++argc, argv);
    optind = 0; /* glibc: begin again */
    for (int c; (c = cli_next_option(argc, argv, "m:t:", table)) != -1;)
        if (c == '?' || cli_option(&s->o, c, optarg) != 1) {
            fprintf(stderr, "facet: (in --%s '%s')\n", s->name, s->text);
            return false;
        }
    if (optind < argc) {
        cli_usage("eval kl", "--%s: '%s' is no option", s->name, argv[optind]);
        return false;
    }
    if (s->o.engine.n_ctx != common->engine.n_ctx || s->o.is_json != common->is_json) {
        cli_usage("eval kl", "--%s: -c and --json hold for both sides and stand outside", s->name);
        return false;
    }
    return true;
}

static facet_status open_model(side *s, const eval_text_options *t, facet_error *err)
{
    facet_status status = cli_open_model(&s->o, &s->model, err);
    if (status == FACET_OK) status = eval_read_tokens(s->model, t, &s->ids, &s->n_ids, err);
    if (status != FACET_OK) error_prefix(err, "--%s", s->name);
    return status;
}

static facet_status open_engine(side *s, int32_t n_ctx, facet_error *err)
{
    s->o.engine.n_ctx = n_ctx;
    const facet_status status = cli_open_engine(&s->o, s->model, &s->engine, err);
    if (status != FACET_OK) error_prefix(err, "--%s", s->name);
    return status;
}

static facet_status check_same_tokens(const side *a, const side *b, const eval_text_options *t, facet_error *err)
{
    if (a->n_ids == b->n_ids && memcmp(a->ids, b->ids, a->n_ids * sizeof *a->ids) == 0) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s: the models of --a and --b cut it into different tokens (%zu and %zu)",
                     t->path, a->n_ids, b->n_ids);
}

static facet_status compare(side *a, side *b, const eval_text_options *t, int32_t *n_ctx, score_kl_result *out,
                            facet_error *err)
{
    FACET_TRY(open_model(a, t, err));
    FACET_TRY(open_model(b, t, err));
    FACET_TRY(check_same_tokens(a, b, t, err));
    *n_ctx = eval_chunk_length(a->model, a->o.engine.n_ctx, a->n_ids);
    FACET_TRY(open_engine(a, *n_ctx, err));
    FACET_TRY(open_engine(b, *n_ctx, err));
    const score_params p = {.tokens = a->ids,
                            .n_tokens = a->n_ids,
                            .n_ctx = (size_t)*n_ctx,
                            .max_chunks = (size_t)t->max_chunks,
                            .progress = cli_progress};
    const facet_status status = score_kl(a->engine, b->engine, &p, out, err);
    if (status != FACET_OK) error_prefix(err, "%s", t->path);
    return status;
}

static void side_close(side *s)
{
    facet_free(s->ids);
    cli_close_engine(&s->o, s->engine);
    facet_model_close(s->model);
    mem_free(s->words);
}

static bool print_json(const score_kl_result *r, int32_t n_ctx, const facet_sparse_stats sparse[2])
{
    json_t *j = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:i, s:o, s:o}", "mean_kl", r->mean,
                          "mean_kl_error", r->mean_error, "median_kl", r->median, "p99_kl", r->p99, "max_kl", r->max,
                          "same_argmax", r->same_argmax, "rms_delta_p", r->rms_delta_p, "ppl_a", r->ppl_a, "ppl_b",
                          r->ppl_b, "tokens", (json_int_t)r->n_scored, "chunks", (json_int_t)r->n_chunks, "ctx",
                          (int)n_ctx, "sparse_a", cli_sparse_json(&sparse[0]), "sparse_b", cli_sparse_json(&sparse[1]));
    const bool ok = j && json_dumpf(j, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    json_decref(j);
    return ok && fflush(stdout) == 0;
}

static bool print(const score_kl_result *r, int32_t n_ctx, const facet_sparse_stats sparse[2])
{
    printf("mean KL      %.3e +/- %.1e\nmedian KL    %.3e\n99 %% KL      %.3e\nmax KL       %.3e\n", r->mean,
           r->mean_error, r->median, r->p99, r->max);
    printf("same argmax  %.3f %%\nRMS delta p  %.4f %%\nperplexity   %.4f (a), %.4f (b)\n", 100 * r->same_argmax,
           100 * r->rms_delta_p, r->ppl_a, r->ppl_b);
    printf("scored       %zu tokens: the second halves of %zu chunks of %d\n", r->n_scored, r->n_chunks, n_ctx);
    cli_print_sparse(stdout, "sparse (a)   ", &sparse[0]);
    cli_print_sparse(stdout, "sparse (b)   ", &sparse[1]);
    return fflush(stdout) == 0;
}

int eval_kl(int argc, char **argv)
{
    cli_options o;
    eval_text_options t = {0};
    side a = {.name = "a"}, b = {.name = "b"};
    struct option table[64] = {{"help", no_argument, NULL, OPT_HELP},
                               {"a", required_argument, NULL, OPT_A},
                               {"b", required_argument, NULL, OPT_B}};
    cli_long_options(table + 3 + eval_text_long_options(table + 3), 0);
    cli_options_init(&o);
    o.engine.n_ctx = EVAL_DEFAULT_CTX;
    cli_expand_short(argc, argv);
    if (!cli_options_from_environment(&o)) return EXIT_USAGE;
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:h", table)) != -1;) {
        if (c == 'h' || c == OPT_HELP) return help(), EXIT_OK;
        if (c == OPT_A || c == OPT_B) {
            *(c == OPT_A ? &a.text : &b.text) = optarg;
            continue;
        }
        const int taken = eval_text_option(&t, c, optarg);
        if (taken < 0 || (!taken && cli_option(&o, c, optarg) != 1)) return EXIT_USAGE;
    }
    if (argc - optind != 1) return cli_usage("eval kl", "give --a OPTIONS, --b OPTIONS and one FILE of text");
    t.path = argv[optind];
    facet_error err = {0};
    score_kl_result r;
    int32_t n_ctx = 0;
    int exit_status = EXIT_USAGE;
    if (parse_side(&a, &o) && parse_side(&b, &o)) {
        facet_sparse_stats sparse[2] = {0};
        const facet_status status = compare(&a, &b, &t, &n_ctx, &r, &err);
        if (a.engine) facet_engine_sparse(a.engine, &sparse[0]);
        if (b.engine) facet_engine_sparse(b.engine, &sparse[1]);
        if (status != FACET_OK)
            exit_status = cli_fail(&err);
        else
            exit_status = (o.is_json ? print_json : print)(&r, n_ctx, sparse) ? EXIT_OK : EXIT_FAILED;
    }
    side_close(&a);
    side_close(&b);
    return exit_status;
}

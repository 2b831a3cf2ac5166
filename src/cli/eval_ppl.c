/* eval_ppl.c: facet eval ppl FILE: perplexity of a text. */
#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "cli/eval.h"

enum { OPT_HELP = 300 };

static void help(void)
{
    printf(
        "usage: facet eval ppl FILE [OPTIONS]\n"
        "Perplexity of a text. Its tokens, <bos> first, are cut into chunks of -c tokens (default %d; 0 = the whole\n"
        "text, at most the model's limit; a rest is left out). Each chunk is evaluated on its own, its first token\n"
        "replaced by <bos>. The tokens of its second half count, from the one after position c/2 on.\n\n",
        EVAL_DEFAULT_CTX);
    eval_print_text_options(stdout);
    cli_print_options(stdout, 0);
}

static facet_status score(const cli_options *o, const eval_text_options *t, int32_t *n_ctx, score_ppl_result *out,
                          facet_error *err)
{
    facet_model *m = NULL;
    facet_engine *e = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    cli_options with_ctx = *o;
    facet_status status = cli_open_model(o, &m, err);
    if (status == FACET_OK) status = eval_read_tokens(m, t, &ids, &n, err);
    if (status == FACET_OK) {
        with_ctx.engine.n_ctx = *n_ctx = eval_chunk_length(m, o->engine.n_ctx, n);
        status = cli_open_engine(&with_ctx, m, &e, err);
    }
    const score_params p = {.tokens = ids,
                            .n_tokens = n,
                            .n_ctx = (size_t)*n_ctx,
                            .max_chunks = (size_t)t->max_chunks,
                            .progress = cli_progress};
    if (status == FACET_OK && (status = score_ppl(e, &p, out, err)) != FACET_OK) error_prefix(err, "%s", t->path);
    facet_free(ids);
    cli_close_engine(&with_ctx, e);
    facet_model_close(m);
    return status;
}

static bool print(const score_ppl_result *r, int32_t n_ctx, bool is_json)
{
    if (is_json) {
        json_t *j = json_pack("{s:f, s:f, s:f, s:I, s:I, s:i}", "ppl", r->ppl, "ppl_error", r->ppl_error, "mean_nll",
                              r->mean_nll, "tokens", (json_int_t)r->n_scored, "chunks", (json_int_t)r->n_chunks, "ctx",
                              (int)n_ctx);
        const bool ok = j && json_dumpf(j, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
        json_decref(j);
        return ok && fflush(stdout) == 0;
    }
    printf("perplexity  %.4f +/- %.4f\nscored      %zu tokens: the second halves of %zu chunks of %d\n", r->ppl,
           r->ppl_error, r->n_scored, r->n_chunks, n_ctx);
    return fflush(stdout) == 0;
}

int eval_ppl(int argc, char **argv)
{
    cli_options o;
    eval_text_options t = {0};
    struct option table[64] = {{"help", no_argument, NULL, OPT_HELP}};
    cli_long_options(table + 1 + eval_text_long_options(table + 1), 0);
    cli_options_init(&o);
    o.engine.n_ctx = EVAL_DEFAULT_CTX;
    cli_expand_short(argc, argv);
    if (!cli_options_from_environment(&o)) return EXIT_USAGE;
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:h", table)) != -1;) {
        if (c == 'h' || c == OPT_HELP) return help(), EXIT_OK;
        const int taken = eval_text_option(&t, c, optarg);
        if (taken < 0 || (!taken && cli_option(&o, c, optarg) != 1)) return EXIT_USAGE;
    }
    if (argc - optind != 1) return cli_usage("eval ppl", "give one FILE of text");
    t.path = argv[optind];
    facet_error err = {0};
    score_ppl_result r;
    int32_t n_ctx = 0;
    if (score(&o, &t, &n_ctx, &r, &err) != FACET_OK) return cli_fail(&err);
    return print(&r, n_ctx, o.is_json) ? EXIT_OK : EXIT_FAILED;
}

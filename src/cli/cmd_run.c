/* cmd_run.c: facet run: completes a prompt. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "cli/cli.h"
#include "cli/grammar_options.h"
#include "cli/sparse_report.h"
#include "cli/spec_report.h"
#include "model/model.h"
#include "serve/spec_json.h"

enum { OPT_CHAT = 300, OPT_NO_SPECIAL, OPT_HELP, OPT_SHOW_SPECIAL, OPT_THINK };

typedef struct run_options {
    cli_options common;
    const char *file;
    bool is_chat, no_special, wants_thinking;
    cli_grammar grammar;
} run_options;

typedef struct run_output {
    bool is_json;
    buf text;
    int32_t *tokens;
    size_t n_tokens, cap_tokens;
    bool is_broken; /* standard output is gone */
} run_output;

static void help(void)
{
    printf("usage: facet run [OPTIONS] [PROMPT]\n"
           "Completes a prompt (argument, -f FILE, or standard input).\n\n"
           "  -f, --file FILE            read the prompt from FILE\n"
           "       --chat                wrap the prompt as a user turn\n"
           "       --think               with --chat: let the model think first\n"
           "       --no-special          do not parse special tokens in the prompt\n"
           "       --show-special        print control tokens\n"
           "       --grammar FILE        the answer follows a GBNF grammar\n"
           "       --json-schema FILE|TEXT\n"
           "                             the answer is JSON that fits a schema\n"
           "       --json-object         the answer is a JSON object\n");
    cli_print_options(stdout, CLI_GENERATION);
}

static int parse(int argc, char **argv, run_options *o, const char **prompt)
{
    struct option table[64] = {{"file", required_argument, NULL, 'f'},
                               {"chat", no_argument, NULL, OPT_CHAT},
                               {"no-special", no_argument, NULL, OPT_NO_SPECIAL},
                               {"show-special", no_argument, NULL, OPT_SHOW_SPECIAL},
                               {"think", no_argument, NULL, OPT_THINK},
                               {"help", no_argument, NULL, OPT_HELP},
                               {"grammar", required_argument, NULL, CLI_GRAMMAR},
                               {"json-schema", required_argument, NULL, CLI_JSON_SCHEMA},
                               {"json-object", no_argument, NULL, CLI_JSON_OBJECT}};
    cli_long_options(table + 9, CLI_GENERATION);
    cli_expand_short(argc, argv);
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:n:f:h", table)) != -1;) {
        switch (c) {
        case 'f': o->file = optarg; break;
        case OPT_CHAT: o->is_chat = true; break;
        case OPT_NO_SPECIAL: o->no_special = true; break;
        case OPT_SHOW_SPECIAL: o->common.generate.show_special = true; break;
        case OPT_THINK: o->wants_thinking = true; break;
        case 'h':
        case OPT_HELP: help(); return -1;
        case CLI_GRAMMAR:
        case CLI_JSON_SCHEMA:
        case CLI_JSON_OBJECT:
            if (!cli_grammar_set(&o->grammar, c, optarg)) return EXIT_USAGE;
            break;
        default:
            if (cli_option(&o->common, c, optarg) != 1) return EXIT_USAGE;
        }
    }
    *prompt = optind < argc ? argv[optind++] : NULL;
    if (optind < argc) return cli_usage("run", "one prompt only: put it in quotes");
    if (*prompt && o->file) return cli_usage("run", "a prompt and -f FILE exclude each other");
    return EXIT_OK;
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    run_output *out = ud;
    if (token >= 0) {
        if (out->n_tokens == out->cap_tokens) {
            const size_t cap = out->cap_tokens * 2 + 256;
            int32_t *t = mem_resize_array(out->tokens, cap, sizeof *t);
            if (!t) return false;
            out->tokens = t;
            out->cap_tokens = cap;
        }
        out->tokens[out->n_tokens++] = token;
    }
    if (out->is_json) return buf_append(&out->text, text, n);
    if (n && (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0)) out->is_broken = true;
    return !out->is_broken;
}

/* The prompt as it goes to the tokenizer. */
static facet_status make_prompt(const facet_model *m, const run_options *o, const char *text, size_t n, buf *out,
                                facet_error *err)
{
    if (!o->is_chat) return buf_append(out, text, n) ? FACET_OK : error_memory(err, "the prompt", n);
    json_t *messages = json_pack("[{s:s, s:s%}]", "role", "user", "content", text, n);
    if (!messages) return error_set(err, FACET_ERR_ARG, "the prompt is not valid UTF-8");
    const chat_options c = {.enable_thinking = o->wants_thinking, .add_generation_prompt = true};
    facet_status status = chat_render(messages, NULL, m->chat, c, out, err);
    json_decref(messages);
    return status;
}

static json_t *id_array(const int32_t *ids, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(a, json_integer(ids[i]));
    return a;
}

typedef struct run_report {
    const char *model;
    const int32_t *prompt;
    size_t n_prompt;
    double load_ms;
    facet_generate_result r;
    facet_memory memory;
    facet_sparse_stats sparse;
} run_report;

/* A path may hold any bytes, a JSON string only UTF-8: the others become U+FFFD. */
static json_t *json_path(const char *path)
{
    buf b = {0};
    for (size_t n = strlen(path), k; n; path += k, n -= k) {
        uint32_t cp;
        k = (size_t)utf8_decode(path, n, &cp);
        if (k) {
            buf_append(&b, path, k);
        } else {
            k = (size_t)utf8_invalid_length(path, n);
            buf_append(&b, "\xef\xbf\xbd", 3);
        }
    }
    json_t *j = b.failed ? NULL : json_stringn(b.data ? b.data : "", b.len);
    buf_free(&b);
    return j;
}

static int print_json(const run_report *p, run_output *out)
{
    static const char *const stops[] = {"limit", "eos", "stop", "cancelled"};
    const double prefill_tps = p->r.prefill_ms > 0 ? p->r.n_prefill * 1000.0 / p->r.prefill_ms : 0;
    const double decode_tps = p->r.decode_ms > 0 ? p->r.n_tokens * 1000.0 / p->r.decode_ms : 0;
    json_t *j = json_pack(
        "{s:o, s:o, s:o, s:s%, s:s, s:{s:f, s:f, s:f, s:f, s:f}, s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I}}", "model",
        json_path(p->model), "prompt_tokens", id_array(p->prompt, p->n_prompt), "tokens",
        id_array(out->tokens, out->n_tokens), "text", out->text.data ? out->text.data : "", out->text.len, "stop",
        stops[p->r.stop], "timings", "load_ms", p->load_ms, "prefill_ms", p->r.prefill_ms, "prefill_tps", prefill_tps,
        "decode_ms", p->r.decode_ms, "decode_tps", decode_tps, "speculation", spec_json(&p->r.spec), "sparse",
        cli_sparse_json(&p->sparse), "memory", "weights", (json_int_t)p->memory.weights, "kv", (json_int_t)p->memory.kv,
        "compute", (json_int_t)p->memory.compute, "peak_rss", (json_int_t)p->memory.peak_rss, "device",
        (json_int_t)p->memory.device);
    const bool ok = j && json_dumpf(j, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF && fflush(stdout) == 0;
    json_decref(j);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static facet_status complete(facet_model *m, run_options *o, const char *text, size_t n, run_report *report,
                             facet_error *err)
{
    facet_engine *engine = NULL;
    facet_session *session = NULL;
    facet_grammar *grammar = NULL;
    buf prompt = {0};
    int32_t *ids = NULL;
    facet_status status = cli_grammar_open(&o->grammar, m, &grammar, err);
    const uint64_t t0 = clock_ns();
    if (status == FACET_OK) status = cli_open_engine(&o->common, m, &engine, err);
    report->load_ms = (double)(clock_ns() - t0) * 1e-6;
    if (status == FACET_OK) status = make_prompt(m, o, text, n, &prompt, err);
    if (status == FACET_OK)
        status = facet_tokenize(m, prompt.data ? prompt.data : "", prompt.len, true, !o->no_special, &ids,
                                &report->n_prompt, err);
    if (status == FACET_OK) status = facet_session_open(engine, &session, err);
    if (status == FACET_OK) {
        cli_watch_interrupt(session);
        o->common.generate.grammar = grammar;
        o->common.generate.answer = o->is_chat && o->wants_thinking ? FACET_ANSWER_MAY_THINK : 0;
        status =
            facet_generate(session, ids, report->n_prompt, &o->common.sampling, &o->common.generate, &report->r, err);
        cli_watch_interrupt(NULL);
    }
    if (engine) facet_engine_memory(engine, &report->memory);
    if (engine) facet_engine_sparse(engine, &report->sparse);
    report->prompt = ids;
    facet_session_close(session);
    cli_close_engine(&o->common, engine);
    facet_grammar_close(grammar);
    buf_free(&prompt);
    return status;
}

int cmd_run(int argc, char **argv)
{
    run_options o = {0};
    const char *argument = NULL;
    cli_options_init(&o.common);
    if (!cli_options_from_environment(&o.common)) return EXIT_USAGE;
    const int wrong = parse(argc, argv, &o, &argument);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    run_output out = {.is_json = o.common.is_json};
    o.common.generate.on_token = on_token;
    o.common.generate.ud = &out;
    o.common.generate.progress = cli_progress_prefill;
    facet_error err = {0};
    facet_model *m = NULL;
    char *text = NULL;
    size_t n = 0;
    run_report report = {.model = cli_model_path(&o.common)};
    facet_status status = cli_open_model(&o.common, &m, &err);
    if (status == FACET_OK) status = cli_read_prompt(argument, o.file, &text, &n, &err);
    if (status == FACET_OK) status = complete(m, &o, text, n, &report, &err);
    int code = EXIT_OK;
    if (status != FACET_OK) {
        code = cli_fail(&err);
    } else if (out.is_json) {
        code = print_json(&report, &out);
    } else if (!out.is_broken) {
        putchar('\n');
        fflush(stdout);
        cli_print_spec(stderr, "facet: speculation by ", o.common.generate.speculation.method, &report.r.spec);
        cli_print_sparse(stderr, "facet: sparse attention: ", &report.sparse);
    }
    if (status == FACET_OK && report.r.stop == FACET_STOP_CANCELLED)
        code = out.is_broken ? EXIT_FAILED : EXIT_INTERRUPTED;
    facet_free((void *)(uintptr_t)report.prompt);
    mem_free(out.tokens);
    buf_free(&out.text);
    mem_free(text);
    facet_model_close(m);
    return code;
}

/* serve_options.c: the options of facet serve. */
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cmd_serve.h"

typedef struct option_text {
    int val;
    const char *name, *value, *help;
} option_text;

#define ROW(val, name, value, help) {val, name, value, help},
static const option_text rows[] = {SERVE_OPTIONS(ROW)};
enum { N_ROWS = sizeof rows / sizeof *rows, OPT_HELP = 500 };

static void help(void)
{
    printf("usage: facet serve [OPTIONS]\n"
           "Serves a model over HTTP, as OpenAI's and Anthropic's interfaces do, and a page to chat with it.\n"
           "Sampling options hold where a request says nothing. docs/server.md tells the interface.\n\n");
    for (int i = 0; i < N_ROWS; i++) {
        char left[64];
        snprintf(left, sizeof left, "    --%s %s", rows[i].name, rows[i].value ? rows[i].value : "");
        printf("  %-28s %s\n", left, rows[i].help);
    }
    cli_print_options_but(stdout, CLI_GENERATION, 260);
}

static bool set_int(const char *name, const char *arg, int min, int max, int *out)
{
    long long v;
    if (!cli_int(name, arg, min, max, &v)) return false;
    *out = (int)v;
    return true;
}

static bool set_size(const char *name, const char *arg, size_t min, size_t *out)
{
    long long v;
    if (!cli_int(name, arg, (long long)min, 1LL << 40, &v)) return false;
    *out = (size_t)v;
    return true;
}

static bool add_key(serve_arguments *o, const char *key)
{
    if (!*key || o->n_keys == SERVE_MAX_KEYS) {
        fprintf(stderr, "facet: --api-key: %s\n", *key ? "too many keys" : "an empty key");
        return false;
    }
    o->keys[o->n_keys++] = key;
    o->keys[o->n_keys] = NULL;
    o->n_given = o->n_keys;
    return true;
}

static bool set_log(serve_arguments *o, const char *arg)
{
    o->is_quiet = strcmp(arg, "none") == 0;
    o->is_log_json = strcmp(arg, "json") == 0;
    if (o->is_quiet || o->is_log_json || strcmp(arg, "text") == 0) return true;
    fprintf(stderr, "facet: --log: '%s' is not text, json or none\n", arg);
    return false;
}

static bool set_cors(serve_arguments *o, const char *arg)
{
    o->server.api.origins = arg;
    return true;
}

/* 1 = taken, 0 = not one of these, -1 = wrong value (printed). */
static int take(serve_arguments *o, int val, const char *arg)
{
    http_config *h = &o->server.http;
    api_config *a = &o->server.api;
    server_engine_config *e = &o->server.engine;
    bool ok = true;
    switch (val) {
    case 400: h->host = arg; break;
    case 401: ok = set_int("port", arg, 0, 65535, &h->port); break;
    case 402: ok = add_key(o, arg); break;
    case 403: o->key_file = arg; break;
    case 404: ok = set_cors(o, arg); break;
    case 405: o->alias = arg; break;
    case 406: ok = set_int("parallel", arg, 1, 64, &e->n_parallel); break;
    case 407: ok = set_int("queue", arg, 0, 1 << 20, &e->n_queue); break;
    case 408: ok = set_int("cache-mb", arg, 0, 1 << 24, &o->cache_mb); break;
    case 409: ok = set_int("prompt-rows", arg, 1, 512, &e->prompt_rows); break;
    case 410: ok = set_int("max-tokens", arg, -1, INT_MAX, &a->max_tokens); break;
    case 411: a->clamps = true; break;
    case 412: ok = set_int("max-texts", arg, 1, 1024, &a->max_texts); break;
    case 413: a->is_thinking = true; break;
    case 414: ok = set_int("thinking-budget", arg, -1, INT_MAX, &a->thinking_budget); break;
    case 415: ok = set_int("reply-budget", arg, 0, INT_MAX, &a->reply_budget); break;
    case 420: ok = set_int("max-connections", arg, 1, 1 << 20, &h->max_connections); break;
    case 421: ok = set_int("max-per-address", arg, 0, 1 << 20, &h->max_per_address); break;
    case 422: ok = set_size("max-body", arg, 1, &h->max_body_bytes); break;
    case 423: ok = set_size("max-header", arg, 2048, &h->max_header_bytes); break;
    case 424: ok = set_int("idle-timeout", arg, 1, 86400, &h->idle_timeout_s); break;
    case 425: ok = set_int("body-timeout", arg, 1, 86400, &h->body_timeout_s); break;
    case 426: ok = set_int("stall-timeout", arg, 1, 86400, &h->stall_timeout_s); break;
    case 427: ok = set_int("http-threads", arg, 1, 64, &h->n_threads); break;
    case 428: ok = set_int("grace", arg, 0, 86400, &o->grace_s); break;
    case 429: ok = set_log(o, arg); break;
    default: return cli_option(&o->common, val, arg);
    }
    return ok ? 1 : -1;
}

static bool from_environment(serve_arguments *o)
{
    for (int i = 0; i < N_ROWS; i++) {
        char name[64] = "FACET_";
        for (size_t k = 0; k < sizeof name - 8 && rows[i].name[k]; k++)
            name[6 + k] = rows[i].name[k] == '-' ? '_' : (char)toupper((unsigned char)rows[i].name[k]);
        const char *v = getenv(name);
        if (!v || !*v || (!rows[i].value && strcmp(v, "0") == 0)) continue;
        if (take(o, rows[i].val, v) > 0) continue;
        fprintf(stderr, "facet: (from the environment variable %s)\n", name);
        return false;
    }
    return cli_options_from_environment(&o->common);
}

int serve_parse(int argc, char **argv, serve_arguments *o)
{
    struct option table[96] = {{"help", no_argument, NULL, OPT_HELP}};
    for (int i = 0; i < N_ROWS; i++)
        table[i + 1] =
            (struct option){rows[i].name, rows[i].value ? required_argument : no_argument, NULL, rows[i].val};
    cli_long_options(table + N_ROWS + 1, CLI_GENERATION);
    cli_expand_short(argc, argv);
    if (!from_environment(o)) return EXIT_USAGE;
    for (int c; (c = getopt_long(argc, argv, "m:c:t:n:h", table, NULL)) != -1;) {
        if (c == 'h' || c == OPT_HELP) {
            help();
            return -1;
        }
        if (c == 260) return cli_usage("serve", "--json is for facet run");
        if (take(o, c, optarg) != 1) return EXIT_USAGE;
    }
    if (optind < argc) return cli_usage("serve", "'%s': takes no argument", argv[optind]);
    return EXIT_OK;
}

/* ---- keys ---- */

static facet_status add_line(serve_arguments *o, const char *line, size_t n, facet_error *err)
{
    while (n && isspace((unsigned char)line[n - 1])) n--;
    if (!n || *line == '#') return FACET_OK;
    if (o->n_keys == SERVE_MAX_KEYS)
        return error_set(err, FACET_ERR_LIMIT, "%s: more than %d keys", o->key_file, SERVE_MAX_KEYS);
    char *key = mem_strndup(line, n);
    if (!key) return error_memory(err, "a key", n);
    o->keys[o->n_keys++] = key;
    o->keys[o->n_keys] = NULL;
    return FACET_OK;
}

facet_status serve_read_keys(serve_arguments *o, facet_error *err)
{
    char *text;
    size_t n;
    serve_free_keys(o);
    if (!o->key_file) return FACET_OK;
    FACET_TRY(file_read_all(o->key_file, 1 << 20, &text, &n, err));
    facet_status status = FACET_OK;
    for (const char *at = text; *at && status == FACET_OK;) {
        const size_t len = strcspn(at, "\n");
        status = add_line(o, at, len, err);
        at += len + (at[len] == '\n');
    }
    mem_free(text);
    if (status == FACET_OK && o->n_keys == 0)
        status = error_set(err, FACET_ERR_FORMAT, "%s: no key: want one a line", o->key_file);
    return status;
}

void serve_free_keys(serve_arguments *o)
{
    for (int i = o->n_given; i < o->n_keys; i++) mem_free((char *)(uintptr_t)o->keys[i]);
    o->n_keys = o->n_given;
    o->keys[o->n_keys] = NULL;
}

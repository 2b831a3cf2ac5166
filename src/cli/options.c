/* options.c: the shared options, their environment variables and their values. */
#define _GNU_SOURCE /* environ */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "decode/draft_adaptive.h"

void cli_options_init(cli_options *o)
{
    *o = (cli_options){.engine = facet_engine_params_default(),
                       .sampling = facet_sampling_default(),
                       .generate = facet_generate_params_default()};
    o->generate.speculation.tree_budget = -1;
    o->sampling.bias = o->bias;
    o->generate.stop = o->stop;
    o->engine.progress = cli_progress;
}

bool cli_int(const char *name, const char *arg, long long min, long long max, long long *out)
{
    char *end;
    errno = 0;
    const long long v = strtoll(arg, &end, 10);
    if (errno || end == arg || *end || v < min || v > max) {
        fprintf(stderr, "facet: %s%s: '%s' is not a whole number from %lld to %lld\n", name[1] ? "--" : "-", name, arg,
                min, max);
        return false;
    }
    *out = v;
    return true;
}

bool cli_float(const char *name, const char *arg, double min, double max, double *out)
{
    char *end;
    const double v = strtod(arg, &end);
    if (end == arg || *end || !(v >= min && v <= max)) {
        fprintf(stderr, "facet: --%s: '%s' is not a number from %g to %g\n", name, arg, min, max);
        return false;
    }
    *out = v;
    return true;
}

static bool add_bias(cli_options *o, const char *arg)
{
    char *end;
    const long id = strtol(arg, &end, 10);
    double bias;
    if (end == arg || *end != '=' || id < 0 || id > INT_MAX) {
        fprintf(stderr, "facet: --logit-bias: '%s' is not ID=X\n", arg);
        return false;
    }
    if (!cli_float("logit-bias", end + 1, -1e9, 1e9, &bias)) return false;
    if (o->sampling.n_bias == CLI_MAX_LIST) {
        fprintf(stderr, "facet: --logit-bias: at most %d\n", CLI_MAX_LIST);
        return false;
    }
    o->bias[o->sampling.n_bias++] = (facet_logit_bias){(int32_t)id, (float)bias};
    return true;
}

static bool add_stop(cli_options *o, const char *arg)
{
    if (!*arg || o->generate.n_stop == CLI_MAX_LIST) {
        fprintf(stderr, "facet: --stop: %s\n", *arg ? "too many" : "an empty text would end at once");
        return false;
    }
    o->stop[o->generate.n_stop++] = arg;
    return true;
}

static bool set_int(const char *name, const char *arg, long long min, long long max, int *out)
{
    long long v;
    if (!cli_int(name, arg, min, max, &v)) return false;
    *out = (int)v;
    return true;
}

static bool set_float(const char *name, const char *arg, double min, double max, float *out)
{
    double v;
    if (!cli_float(name, arg, min, max, &v)) return false;
    *out = (float)v;
    return true;
}

static bool set_name(const char *name, const char *arg, const char *const *names, int n, int *out)
{
    for (int i = 0; i < n; i++)
        if (strcmp(arg, names[i]) == 0) return *out = i, true;
    fprintf(stderr, "facet: --%s: '%s' is not one of", name, arg);
    for (int i = 0; i < n; i++) fprintf(stderr, "%s %s", i ? "," : "", names[i]);
    fputc('\n', stderr);
    return false;
}

static bool add_draft(cli_options *o, const char *arg)
{
    if (o->n_drafts == CLI_MAX_DRAFTERS) {
        fprintf(stderr, "facet: --draft: at most %d\n", CLI_MAX_DRAFTERS);
        return false;
    }
    o->draft[o->n_drafts++] = arg;
    return true;
}

static int spec_option(cli_options *o, int val, const char *arg)
{
    static const char *const methods[] = {"none", "mtp", "dflash", "ngram", "auto"};
    static const char *const rules[] = {"cost", "window", "off", "auto"};
    static const char *const places[] = {"const", "const-1", "incr"};
    facet_speculation *s = &o->generate.speculation;
    bool ok = true;
    int i;
    switch (val) {
    case 290: ok = add_draft(o, arg); break;
    case 291:
        ok = o->has_spec = set_name("spec", arg, methods, 5, &i);
        if (ok) s->method = (facet_spec_method)i;
        break;
    case 292: ok = set_int("draft-max", arg, 1, 63, &s->draft_max); break;
    case 293: ok = set_int("mtp-gamma", arg, 1, 16, &s->mtp_gamma); break;
    case 294: ok = set_int("ddtree-budget", arg, 0, 64, &s->tree_budget); break;
    case 295: ok = set_float("ddtree-temp", arg, 1e-3, 1e3, &o->engine.tree_temp); break;
    case 296:
        ok = set_int("ddtree-chain-seed", arg, 0, 1, &i);
        if (ok) s->is_chain_seeded = i;
        break;
    case 297:
        ok = set_name("adaptive", arg, rules, 4, &i);
        if (ok) s->adapt = (facet_spec_adapt)i;
        break;
    case 298: s->adapt = FACET_ADAPT_OFF; break;
    case 299: ok = set_int("draft-ctx", arg, 1, 1 << 24, &o->engine.draft_ctx); break;
    case 310: ok = set_float("p-min", arg, 0, 1, &s->p_min); break;
    case 311: ok = set_float("width-theta", arg, 0, 1, &s->width_theta); break;
    case 312: o->engine.block_mask = arg; break;
    case 313: ok = set_int("width-min", arg, 1, 64, &s->width_min); break;
    case 314:
        ok = set_name("mtp-pos", arg, places, 3, &i);
        if (ok) s->mtp_pos = (facet_mtp_pos)i;
        break;
    default: return 0;
    }
    return ok ? 1 : -1;
}

static int sparse_option(cli_options *o, int val, const char *arg)
{
    facet_engine_params *e = &o->engine;
    bool ok = true;
    switch (val) {
    case 283: ok = set_float("sparse-mass", arg, 0, 1, &e->sparse_mass); break;
    case 284: ok = set_float("sparse-alpha", arg, -1e9, 1e9, &e->sparse_alpha); break;
    case 285: ok = set_int("sparse-min", arg, 0, INT_MAX, &e->sparse_min); break;
    case 286: ok = set_float("sparse-hard", arg, 0, 1, &e->sparse_hard); break;
    case 287: ok = set_float("sparse-prefill", arg, 0, 1, &e->sparse_prefill); break;
    case 288: ok = set_float("sparse-prefill-alpha", arg, -1e9, 1e9, &e->sparse_prefill_alpha); break;
    case 289: e->sparse_check = true; break;
    default: return spec_option(o, val, arg);
    }
    return ok ? 1 : -1;
}

/* A type of an axis overrules a preset, wherever it stands; but not one that only the environment names. */
static void set_preset(cli_options *o, const char *arg)
{
    o->engine.cache_preset = arg;
    if (o->engine.cache_type_k == o->env_k && o->env_k) o->engine.cache_type_k = NULL;
    if (o->engine.cache_type_v == o->env_v && o->env_v) o->engine.cache_type_v = NULL;
}

int cli_option(cli_options *o, int val, const char *arg)
{
    bool ok = true;
    long long seed;
    switch (val) {
    case 'm': o->model = arg; break;
    case 'c': ok = set_int("ctx", arg, 0, INT_MAX, &o->engine.n_ctx); break;
    case 't': ok = set_int("threads", arg, 0, 1024, &o->engine.n_threads); break;
    case 256: o->engine.device = arg; break;
    case 257: o->engine.cache_type_k = arg; break;
    case 258: o->engine.cache_type_v = arg; break;
    case 262: set_preset(o, arg); break;
    case 261: o->engine.cache_layers = arg; break;
    case 263: o->engine.rebuild_keys = true; break;
    case 259: o->engine.use_mmap = true; break;
    case 260: o->is_json = true; break;
    case 'n': ok = set_int("predict", arg, -1, INT_MAX, &o->generate.n_predict); break;
    case 270: ok = o->has_temp = set_float("temp", arg, 0, 1e6, &o->sampling.temperature); break;
    case 271: ok = o->has_top_k = set_int("top-k", arg, 0, INT_MAX, &o->sampling.top_k); break;
    case 272: ok = o->has_top_p = set_float("top-p", arg, 1e-9, 1, &o->sampling.top_p); break;
    case 273: ok = set_float("min-p", arg, 0, 1, &o->sampling.min_p); break;
    case 274:
        ok = o->has_seed = cli_int("seed", arg, LLONG_MIN, LLONG_MAX, &seed);
        if (ok) o->sampling.seed = (uint64_t)seed;
        break;
    case 275: ok = set_float("repeat-penalty", arg, 1e-6, 1e6, &o->sampling.repeat_penalty); break;
    case 276: ok = set_float("presence-penalty", arg, -1e6, 1e6, &o->sampling.presence_penalty); break;
    case 277: ok = set_float("frequency-penalty", arg, -1e6, 1e6, &o->sampling.frequency_penalty); break;
    case 278: ok = set_int("repeat-last-n", arg, -1, INT_MAX, &o->sampling.penalty_last_n); break;
    case 279: ok = add_bias(o, arg); break;
    case 280: ok = add_stop(o, arg); break;
    case 281: o->generate.ignore_eos = true; break;
    default: return sparse_option(o, val, arg);
    }
    return ok ? 1 : -1;
}

typedef struct option_text {
    int val;
    const char *name, *value, *help;
} option_text;

#define ROW(val, name, value, help) {val, name, value, help},
static const option_text common[] = {CLI_COMMON_OPTIONS(ROW) CLI_SPARSE_OPTIONS(ROW)};
static const option_text sampling[] = {CLI_SAMPLING_OPTIONS(ROW)};
static const option_text speculation[] = {CLI_SPEC_OPTIONS(ROW)};
enum {
    N_COMMON = sizeof common / sizeof *common,
    N_SAMPLING = sizeof sampling / sizeof *sampling,
    N_SPEC = sizeof speculation / sizeof *speculation
};

static size_t table(struct option *out, const option_text *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (struct option){rows[i].name, rows[i].value ? required_argument : no_argument, NULL, rows[i].val};
    return n;
}

size_t cli_long_options(struct option *out, unsigned groups)
{
    size_t n = table(out, common, N_COMMON);
    if (groups & CLI_SAMPLING) n += table(out + n, sampling, N_SAMPLING);
    if (groups & CLI_SPECULATION) n += table(out + n, speculation, N_SPEC);
    return n;
}

static void print_rows(FILE *f, const option_text *rows, size_t n, int left_out)
{
    for (size_t i = 0; i < n; i++) {
        char left[64];
        if (rows[i].val == left_out) continue;
        snprintf(left, sizeof left, "%s%c%s --%s %s", rows[i].val < 256 ? "-" : " ",
                 rows[i].val < 256 ? rows[i].val : ' ', rows[i].val < 256 ? "," : " ", rows[i].name,
                 rows[i].value ? rows[i].value : "");
        fprintf(f, "  %-28s %s\n", left, rows[i].help);
    }
}

void cli_print_options_but(FILE *f, unsigned groups, int left_out)
{
    print_rows(f, common, N_COMMON, left_out);
    if (groups & CLI_SAMPLING) print_rows(f, sampling, N_SAMPLING, left_out);
    if (groups & CLI_SPECULATION) print_rows(f, speculation, N_SPEC, left_out);
}

void cli_print_options(FILE *f, unsigned groups)
{
    cli_print_options_but(f, groups, 0);
}

static bool from_environment(cli_options *o, const option_text *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[64] = "FACET_";
        for (size_t k = 0; k < sizeof name - 8 && rows[i].name[k]; k++)
            name[6 + k] = rows[i].name[k] == '-' ? '_' : (char)toupper((unsigned char)rows[i].name[k]);
        const char *v = getenv(name);
        if (!v || !*v || (!rows[i].value && strcmp(v, "0") == 0)) continue;
        if (cli_option(o, rows[i].val, v) < 0) {
            fprintf(stderr, "facet: (from the environment variable %s)\n", name);
            return false;
        }
    }
    return true;
}

/* Names that other programs of the family gave the same settings. */
static const struct {
    const char *name, *value; /* value: what a switch that is not 0 stands for; NULL: the variable's own */
    int val;
} aliases[] = {{"DFLASH_MTP_GAMMA", NULL, 293},
               {"DFLASH_DDTREE_BUDGET", NULL, 294},
               {"DFLASH_GEMMA4_DDTREE_BUDGET", NULL, 294},
               {"DFLASH_GEMMA4_DDTREE_TEMP", NULL, 295},
               {"DFLASH_GEMMA4_DDTREE_CHAIN_SEED", NULL, 296},
               {"DFLASH_ADAPTIVE_WIDTH_THETA", NULL, 311},
               {"DFLASH_ADAPTIVE_WIDTH_MIN", NULL, 313},
               {"DFLASH_NO_ADAPTIVE", "", 298},
               {"DFLASH27B_KV_F16", "f16", 257},
               {"DFLASH27B_KV_F16", "f16", 258},
               {"DFLASH27B_KV_Q4", "q4_0", 257},
               {"DFLASH27B_KV_Q4", "q4_0", 258},
               {"DFLASH27B_KV_TQ3", "tq3_0", 257},
               {"DFLASH27B_KV_TQ3", "tq3_0", 258},
               {"DFLASH27B_KV_K", NULL, 257},
               {"DFLASH27B_KV_V", NULL, 258}};
enum { N_ALIASES = sizeof aliases / sizeof *aliases };

static bool from_aliases(cli_options *o)
{
    for (int i = 0; i < N_ALIASES; i++) {
        const char *v = getenv(aliases[i].name);
        if (!v || !*v || (aliases[i].value && !draft_switch_is_set(v))) continue;
        if (cli_option(o, aliases[i].val, aliases[i].value ? aliases[i].value : v) >= 0) continue;
        fprintf(stderr, "facet: (from the environment variable %s)\n", aliases[i].name);
        return false;
    }
    return true;
}

/* DFLASH_GEMMA4_MTP tells what kind of drafter a file holds, which the file itself does. */
static bool is_understood(const char *name)
{
    for (int i = 0; i < N_ALIASES; i++)
        if (strcmp(name, aliases[i].name) == 0) return true;
    return strcmp(name, "DFLASH_GEMMA4_MTP") == 0;
}

void cli_warn_about_environment(void)
{
    static const char *const families[] = {"DFLASH_", "DFLASH27B_", "PFLASH_"};
    for (char **e = environ; *e; e++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
        bool is_of_family = false;
        for (int i = 0; i < 3; i++) is_of_family |= strncmp(name, families[i], strlen(families[i])) == 0;
        if (is_of_family && !is_understood(name))
            fprintf(stderr, "facet: the environment variable %s is set and has no effect here\n", name);
    }
}

bool cli_options_from_environment(cli_options *o)
{
    if (!from_environment(o, common, N_COMMON) || !from_environment(o, sampling, N_SAMPLING) ||
        !from_environment(o, speculation, N_SPEC) || !from_aliases(o))
        return false;
    o->env_k = o->engine.cache_type_k;
    o->env_v = o->engine.cache_type_v;
    return true;
}

void cli_expand_short(int argc, char **argv)
{
    static const char *const pairs[][2] = {{"-ctk", "--cache-type-k"}, {"-ctv", "--cache-type-v"}, {"-md", "--draft"}};
    for (int i = 1; i < argc; i++)
        for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++)
            if (strcmp(argv[i], pairs[k][0]) == 0) argv[i] = (char *)(uintptr_t)pairs[k][1];
}

int cli_fail(const facet_error *err)
{
    cli_progress_end();
    fprintf(stderr, "facet: %s\n", err->message);
    if (err->status == FACET_ERR_ARG) return EXIT_USAGE;
    return err->status == FACET_ERR_CANCELLED ? EXIT_INTERRUPTED : EXIT_FAILED;
}

int cli_next_option(int argc, char **argv, const char *letters, const struct option *table)
{
    char quiet[64];
    snprintf(quiet, sizeof quiet, ":%s", letters); /* ':' tells a missing value from an unknown option */
    opterr = 0;
    const int c = getopt_long(argc, argv, quiet, table, NULL);
    if (c != '?' && c != ':') return c;
    const char letter[] = {'-', (char)optopt, 0}, *word = argv[optind - 1];
    const bool is_long = strncmp(word, "--", 2) == 0 || optopt <= 0 || optopt > 127;
    cli_usage(argv[0], c == ':' ? "%s wants a value" : "there is no option %s", is_long ? word : letter);
    return '?';
}

int cli_usage(const char *command, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "facet %s: ", command);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " (facet %s --help tells more)\n", command);
    return EXIT_USAGE;
}

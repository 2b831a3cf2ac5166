#include "cli/cmd_quantize.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "model/quantize.h"
#include "model/synth.h"

enum { MAX_RULES = 256, MAX_TEMPLATE = 16 << 20 };
enum { OPT_KEEP = 256, OPT_DROP, OPT_TEMPLATE, OPT_RANDOM, OPT_LAYERS, OPT_VOCAB, OPT_SEED, OPT_HOLLOW };

static const char help[] =
    "usage: facet quantize IN OUT --type TYPE [options]\n"
    "       facet quantize --random SIZE OUT [--type TYPE] [--layers N] [--vocab N] [--seed N] [--hollow]\n"
    "\n"
    "Writes a GGUF file as another type mix, or a file of a public size with random weights.\n"
    "\n"
    "  --type TYPE           F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M (default with --random), Q4_0\n"
    "  --keep NAME=TYPE      type of one tensor, or of those that match (blk.*.attn_v.weight=Q8_0); repeatable\n"
    "  --drop-kv KEY         leave a metadata key out; repeatable\n"
    "  --chat-template FILE  replace the chat template by a file's text; \"own\": by Facet's own\n"
    "  -t, --threads N       threads (default: one per processor)\n"
    "\n"
    "  --random SIZE         31b, 26b-a4b, 12b, e4b, e2b; with -mtp or -dflash behind it: its drafter\n"
    "  --layers N            of the target (default: the public number)\n"
    "  --vocab N             2048 to 262144 (the default)\n"
    "  --seed N              default 0; the same seed gives the same file\n"
    "  --hollow              zeros instead of weights, a hole on the disk: for facet inspect --ctx\n"
    "  -h, --help            this text\n";

typedef struct options {
    quantize_params q;
    synth_params s;
    const char *keep[MAX_RULES], *drop[MAX_RULES];
    const char *template_path;
    bool has_type, is_help, is_random_only; /* the last: an option that only --random knows was given */
} options;

static bool wrong(const char *option, const char *value, const char *want)
{
    fprintf(stderr, "facet quantize: %s %s: want %s\n", option, value, want);
    return false;
}

static bool read_int(const char *option, const char *text, int min, int max, int *out)
{
    char *end, want[64];
    errno = 0;
    long v = strtol(text, &end, 10);
    snprintf(want, sizeof want, "%d to %d", min, max);
    if (errno || end == text || *end || v < min || v > max) return wrong(option, text, want);
    *out = (int)v;
    return true;
}

static bool read_seed(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-') return wrong("--seed", text, "a number from 0");
    *out = v;
    return true;
}

static bool add_rule(const char **list, int *n, const char *option, const char *value)
{
    if (*n == MAX_RULES) return wrong(option, value, "at most 256 of them");
    list[(*n)++] = value;
    return true;
}

static bool take_option(options *o, int option)
{
    switch (option) {
    case 'h': o->is_help = true; return true;
    case 't': return read_int("--threads", optarg, 1, 1024, &o->q.n_threads);
    case 'y':
        o->has_type = true;
        if (typemix_by_name(optarg, &o->q.mix)) return true;
        return wrong("--type", optarg, "F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0");
    case OPT_KEEP: return add_rule(o->keep, &o->q.n_keep, "--keep", optarg);
    case OPT_DROP: return add_rule(o->drop, &o->q.n_drop, "--drop-kv", optarg);
    case OPT_TEMPLATE: o->template_path = optarg; return true;
    case OPT_RANDOM: o->s.arch = optarg; return true;
    case OPT_LAYERS: o->is_random_only = true; return read_int("--layers", optarg, 2, 64, &o->s.n_layers);
    case OPT_VOCAB:
        o->is_random_only = true;
        return read_int("--vocab", optarg, SYNTH_MIN_VOCAB, SYNTH_MAX_VOCAB, &o->s.n_vocab);
    case OPT_HOLLOW: return o->is_random_only = o->s.is_hollow = true;
    case OPT_SEED: o->is_random_only = true; return read_seed(optarg, &o->s.seed);
    default: return false; /* getopt has said why */
    }
}

static bool read_options(int argc, char **argv, options *o)
{
    static const struct option list[] = {
        {"type", required_argument, NULL, 'y'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {"keep", required_argument, NULL, OPT_KEEP},
        {"drop-kv", required_argument, NULL, OPT_DROP},
        {"chat-template", required_argument, NULL, OPT_TEMPLATE},
        {"random", required_argument, NULL, OPT_RANDOM},
        {"layers", required_argument, NULL, OPT_LAYERS},
        {"vocab", required_argument, NULL, OPT_VOCAB},
        {"seed", required_argument, NULL, OPT_SEED},
        {"hollow", no_argument, NULL, OPT_HOLLOW},
        {NULL, 0, NULL, 0},
    };
    optind = 0; /* starts getopt anew */
    for (int c; (c = cli_next_option(argc, argv, "ht:", list)) != -1;)
        if (!take_option(o, c)) return false;
    return true;
}

static int usage(const char *what)
{
    fprintf(stderr, "facet quantize: %s; see facet quantize --help\n", what);
    return 2;
}

static int run_random(options *o, char **paths, int n_paths)
{
    if (n_paths != 1) return usage("--random wants one path, the output");
    if (o->q.n_keep || o->q.n_drop || o->template_path)
        return usage("--keep, --drop-kv and --chat-template do not go with --random");
    facet_error err = {0};
    o->s.mix = o->q.mix;
    o->s.progress = cli_progress;
    cli_note_interrupt(true);
    return synth_write(&o->s, paths[0], &err) == FACET_OK ? EXIT_OK : cli_fail(&err);
}

static int run_convert(options *o, char **paths, int n_paths)
{
    if (n_paths != 2) return usage("want two paths, input and output");
    if (!o->has_type) return usage("--type is missing");
    if (o->is_random_only) return usage("--layers, --vocab, --seed and --hollow go with --random");
    facet_error err = {0};
    facet_status status = FACET_OK;
    char *text = NULL;
    o->q.use_own_template = o->template_path && strcmp(o->template_path, "own") == 0;
    if (o->template_path && !o->q.use_own_template)
        status = file_read_all(o->template_path, MAX_TEMPLATE, &text, &o->q.n_chat_template, &err);
    o->q.chat_template = text;
    o->q.keep = o->keep;
    o->q.drop = o->drop;
    o->q.progress = cli_progress;
    cli_note_interrupt(true);
    if (status == FACET_OK) status = quantize_file(paths[0], paths[1], &o->q, &err);
    mem_free(text);
    return status == FACET_OK ? EXIT_OK : cli_fail(&err);
}

int cmd_quantize(int argc, char **argv)
{
    options o = {.q.mix = TYPEMIX_Q4_K_M};
    if (!read_options(argc, argv, &o)) return 2;
    if (o.is_help) return fputs(help, stdout) < 0;
    if (o.s.arch) return run_random(&o, argv + optind, argc - optind);
    return run_convert(&o, argv + optind, argc - optind);
}

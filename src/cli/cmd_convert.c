#include "cli/cmd_convert.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "model/convert.h"

enum { OPT_TARGET = 256, OPT_TEMPLATE, MAX_TEMPLATE = 16 << 20 };

static const char help[] =
    "usage: facet convert FOLDER OUT [options]\n"
    "\n"
    "Writes a safetensors folder (config.json, model.safetensors or its index and shards, tokenizer.json) as GGUF.\n"
    "Takes Gemma 4 targets, their MTP assistants (gemma4_assistant) and DFlash drafters; what it is stands in\n"
    "config.json. Vision and audio parts are left out.\n"
    "\n"
    "  --type TYPE           BF16 (default), F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0\n"
    "  --target FILE         copy the vocabulary of this GGUF file; for drafters, whose folders have none\n"
    "  --chat-template FILE  this text as the chat template; \"own\": Facet's own\n"
    "  -t, --threads N       threads (default: one per processor)\n"
    "  -h, --help            this text\n";

typedef struct options {
    convert_params c;
    const char *template_path;
    bool is_help;
} options;

static bool wrong(const char *option, const char *value, const char *want)
{
    fprintf(stderr, "facet convert: %s %s: want %s\n", option, value, want);
    return false;
}

static bool read_threads(const char *text, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < 1 || v > 1024) return wrong("--threads", text, "1 to 1024");
    *out = (int)v;
    return true;
}

static bool take_option(options *o, int option)
{
    switch (option) {
    case 'h': o->is_help = true; return true;
    case 't': return read_threads(optarg, &o->c.n_threads);
    case 'y':
        if (typemix_by_name(optarg, &o->c.mix)) return true;
        return wrong("--type", optarg, "BF16, F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0");
    case OPT_TARGET: o->c.target = optarg; return true;
    case OPT_TEMPLATE: o->template_path = optarg; return true;
    default: return false; /* getopt has said why */
    }
}

static bool read_options(int argc, char **argv, options *o)
{
    static const struct option list[] = {
        {"type", required_argument, NULL, 'y'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {"target", required_argument, NULL, OPT_TARGET},
        {"chat-template", required_argument, NULL, OPT_TEMPLATE},
        {NULL, 0, NULL, 0},
    };
    optind = 0; /* starts getopt anew */
    for (int c; (c = cli_next_option(argc, argv, "ht:", list)) != -1;)
        if (!take_option(o, c)) return false;
    return true;
}

int cmd_convert(int argc, char **argv)
{
    options o = {.c.mix = TYPEMIX_BF16};
    if (!read_options(argc, argv, &o)) return 2;
    if (o.is_help) return fputs(help, stdout) < 0;
    if (argc - optind != 2) {
        fputs("facet convert: want two paths, folder and output; see facet convert --help\n", stderr);
        return 2;
    }
    facet_error err = {0};
    facet_status status = FACET_OK;
    char *text = NULL;
    o.c.use_own_template = o.template_path && strcmp(o.template_path, "own") == 0;
    if (o.template_path && !o.c.use_own_template)
        status = file_read_all(o.template_path, MAX_TEMPLATE, &text, &o.c.n_chat_template, &err);
    o.c.chat_template = text;
    o.c.progress = cli_progress;
    cli_note_interrupt(true);
    if (status == FACET_OK) status = convert_folder(argv[optind], argv[optind + 1], &o.c, &err);
    mem_free(text);
    return status == FACET_OK ? EXIT_OK : cli_fail(&err);
}

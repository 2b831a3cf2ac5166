/* cmd_text.c: facet tokenize, detokenize, render. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "model/model.h"

enum {
    OPT_NO_BOS = 300,
    OPT_NO_SPECIAL,
    OPT_HELP,
    OPT_MESSAGES,
    OPT_TOOLS,
    OPT_THINK,
    OPT_NO_GENERATION_PROMPT,
    OPT_SHOW_SPECIAL
};

typedef struct text_options {
    cli_options common;
    const char *file, *messages, *tools;
    bool no_bos, no_special, show_special, wants_thinking, no_generation_prompt;
} text_options;

static void help(const char *name)
{
    if (strcmp(name, "tokenize") == 0)
        printf("usage: facet tokenize [OPTIONS] [TEXT]\nToken ids of a text (argument, -f FILE, or standard input).\n\n"
               "  -f, --file FILE            read the text from FILE\n"
               "       --no-bos              do not begin with <bos>\n"
               "       --no-special          do not parse special tokens\n");
    else if (strcmp(name, "detokenize") == 0)
        printf("usage: facet detokenize [OPTIONS] [IDS]\nText of token ids, separated by commas or blanks (argument, "
               "-f FILE, or standard input).\n\n"
               "  -f, --file FILE            read the ids from FILE\n"
               "       --show-special        print control tokens as their text\n");
    else
        printf("usage: facet render --messages FILE [OPTIONS]\nA chat as the exact prompt text.\n\n"
               "       --messages FILE       JSON array of messages ('-' = standard input)\n"
               "       --tools FILE          JSON array of tools\n"
               "       --think               thinking on\n"
               "       --no-generation-prompt  end after the last message\n");
    cli_print_options(stdout, 0);
}

static int parse(int argc, char **argv, text_options *o, const char **argument)
{
    struct option table[64] = {{"file", required_argument, NULL, 'f'},
                               {"no-bos", no_argument, NULL, OPT_NO_BOS},
                               {"no-special", no_argument, NULL, OPT_NO_SPECIAL},
                               {"messages", required_argument, NULL, OPT_MESSAGES},
                               {"tools", required_argument, NULL, OPT_TOOLS},
                               {"think", no_argument, NULL, OPT_THINK},
                               {"no-generation-prompt", no_argument, NULL, OPT_NO_GENERATION_PROMPT},
                               {"show-special", no_argument, NULL, OPT_SHOW_SPECIAL},
                               {"help", no_argument, NULL, OPT_HELP}};
    cli_long_options(table + 9, 0);
    cli_options_init(&o->common);
    if (!cli_options_from_environment(&o->common)) return EXIT_USAGE;
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:f:h", table)) != -1;) {
        switch (c) {
        case 'f': o->file = optarg; break;
        case OPT_NO_BOS: o->no_bos = true; break;
        case OPT_NO_SPECIAL: o->no_special = true; break;
        case OPT_MESSAGES: o->messages = optarg; break;
        case OPT_TOOLS: o->tools = optarg; break;
        case OPT_THINK: o->wants_thinking = true; break;
        case OPT_NO_GENERATION_PROMPT: o->no_generation_prompt = true; break;
        case OPT_SHOW_SPECIAL: o->show_special = true; break;
        case 'h':
        case OPT_HELP: help(argv[0]); return -1;
        default:
            if (cli_option(&o->common, c, optarg) != 1) return EXIT_USAGE;
        }
    }
    *argument = optind < argc ? argv[optind++] : NULL;
    if (optind < argc) return cli_usage(argv[0], "one argument only: put it in quotes");
    return EXIT_OK;
}

static int finish(facet_status status, const facet_error *err, facet_model *m)
{
    facet_model_close(m);
    if (status != FACET_OK) return cli_fail(err);
    return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

int cmd_tokenize(int argc, char **argv)
{
    text_options o = {0};
    const char *argument;
    const int wrong = parse(argc, argv, &o, &argument);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    facet_error err = {0};
    facet_model *m = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t n, n_ids = 0;
    facet_status status = cli_open_model(&o.common, &m, &err);
    if (status == FACET_OK) status = cli_read_prompt(argument, o.file, &text, &n, &err);
    if (status == FACET_OK) status = facet_tokenize(m, text, n, !o.no_bos, !o.no_special, &ids, &n_ids, &err);
    if (status == FACET_OK) {
        const char *separator = o.common.is_json ? "," : " ";
        fputs(o.common.is_json ? "{\"tokens\":[" : "", stdout);
        for (size_t i = 0; i < n_ids; i++) printf("%s%d", i ? separator : "", ids[i]);
        puts(o.common.is_json ? "]}" : "");
    }
    facet_free(ids);
    mem_free(text);
    return finish(status, &err, m);
}

/* Ids separated by commas, blanks or brackets. */
static facet_status print_text(const facet_model *m, const char *s, bool show_special, facet_error *err)
{
    detokenizer d = {.show_special = show_special};
    buf out = {0};
    facet_status status = FACET_OK;
    while (*(s += strspn(s, " ,\t\r\n[]"))) {
        char *end;
        const long id = strtol(s, &end, 10);
        if (end == s || id < 0 || id >= facet_model_n_vocab(m)) {
            status = error_set(err, FACET_ERR_ARG, "token id '%.20s': wanted a number from 0 to %d", s,
                               facet_model_n_vocab(m) - 1);
            break;
        }
        detokenizer_push(&d, m->tok, (int32_t)id, &out);
        s = end;
    }
    detokenizer_finish(&d, &out);
    if (status == FACET_OK && out.failed) status = error_memory(err, "the text", out.len);
    if (status == FACET_OK && out.len) fwrite(out.data, 1, out.len, stdout);
    if (status == FACET_OK) putchar('\n');
    buf_free(&out);
    return status;
}

int cmd_detokenize(int argc, char **argv)
{
    text_options o = {0};
    const char *argument;
    const int wrong = parse(argc, argv, &o, &argument);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    facet_error err = {0};
    facet_model *m = NULL;
    char *text = NULL;
    size_t n;
    facet_status status = cli_open_model(&o.common, &m, &err);
    if (status == FACET_OK) status = cli_read_prompt(argument, o.file, &text, &n, &err);
    if (status == FACET_OK) status = print_text(m, text, o.show_special, &err);
    mem_free(text);
    return finish(status, &err, m);
}

static facet_status load_json(const char *path, json_t **out, facet_error *err)
{
    char *data;
    size_t n;
    json_error_t e;
    FACET_TRY(file_read_all(path, (size_t)1 << 28, &data, &n, err));
    *out = json_loadb(data, n, JSON_REJECT_DUPLICATES, &e);
    mem_free(data);
    if (!*out) return error_set(err, FACET_ERR_FORMAT, "%s: line %d: %s", path, e.line, e.text);
    return FACET_OK;
}

int cmd_render(int argc, char **argv)
{
    text_options o = {0};
    const char *argument;
    const int wrong = parse(argc, argv, &o, &argument);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    if (argument || !o.messages) return cli_usage("render", "give the chat with --messages FILE");
    facet_error err = {0};
    facet_model *m = NULL;
    json_t *messages = NULL, *tools = NULL;
    buf out = {0};
    facet_status status = cli_open_model(&o.common, &m, &err);
    if (status == FACET_OK) status = load_json(o.messages, &messages, &err);
    if (status == FACET_OK && o.tools) status = load_json(o.tools, &tools, &err);
    const chat_options c = {.enable_thinking = o.wants_thinking, .add_generation_prompt = !o.no_generation_prompt};
    if (status == FACET_OK) status = chat_render(messages, tools, m->chat, c, &out, &err);
    if (status == FACET_OK) fwrite(out.data, 1, out.len, stdout);
    buf_free(&out);
    json_decref(messages);
    json_decref(tools);
    return finish(status, &err, m);
}

/* cmd_chat.c: facet chat: a conversation on a terminal, or line by line from standard input. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/chat.h"
#include "cli/chat_lines.h"

enum { OPT_SYSTEM = 320, OPT_THINK, OPT_LOAD, OPT_SHOW_SPECIAL, OPT_URL, OPT_KEY, OPT_HELP, OPT_JSON = 260 };

typedef struct chat_arguments {
    cli_options common;
    const char *system, *load, *url, *key;
    bool is_thinking;
} chat_arguments;

static void help(void)
{
    printf(
        "usage: facet chat [OPTIONS]\n"
        "Talks with a model on a terminal; otherwise each line of standard input is a turn. /help tells more.\n"
        "Unless given, temperature, top-k and top-p are the model's recommendation, and the seed is drawn.\n\n"
        "      --system TEXT            the system text\n"
        "      --think                  let the model think before it answers\n"
        "      --url URL                talk with a server at this address (facet serve, or another one of its kind)\n"
        "      --api-key KEY            its key\n"
        "      --load FILE              go on with a conversation that /save wrote\n"
        "      --show-special           print control tokens, and thoughts and tool calls as they are\n");
    cli_print_options_but(stdout, CLI_GENERATION, OPT_JSON);
}

static int parse(int argc, char **argv, chat_arguments *o)
{
    struct option table[72] = {{"system", required_argument, NULL, OPT_SYSTEM},
                               {"think", no_argument, NULL, OPT_THINK},
                               {"load", required_argument, NULL, OPT_LOAD},
                               {"show-special", no_argument, NULL, OPT_SHOW_SPECIAL},
                               {"url", required_argument, NULL, OPT_URL},
                               {"api-key", required_argument, NULL, OPT_KEY},
                               {"help", no_argument, NULL, OPT_HELP}};
    cli_long_options(table + 7, CLI_GENERATION);
    cli_expand_short(argc, argv);
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:n:h", table)) != -1;) {
        switch (c) {
        case OPT_SYSTEM: o->system = optarg; break;
        case OPT_THINK: o->is_thinking = true; break;
        case OPT_LOAD: o->load = optarg; break;
        case OPT_SHOW_SPECIAL: o->common.generate.show_special = true; break;
        case OPT_URL: o->url = optarg; break;
        case OPT_KEY: o->key = optarg; break;
        case OPT_JSON: return cli_usage("chat", "--json is for facet run");
        case 'h':
        case OPT_HELP: help(); return -1;
        default:
            if (cli_option(&o->common, c, optarg) != 1) return EXIT_USAGE;
        }
    }
    if (optind < argc) return cli_usage("chat", "'%s': takes no argument", argv[optind]);
    return EXIT_OK;
}

/* The user's values; what was not given is the model's recommendation, and a seed of its own for every chat. */
static facet_sampling choose_sampling(const cli_options *o, const facet_model *m)
{
    facet_sampling s = o->sampling;
    const facet_sampling own = m ? facet_sampling_of_model(m) : s;
    if (!o->has_temp) s.temperature = own.temperature;
    if (!o->has_top_k) s.top_k = own.top_k;
    if (!o->has_top_p) s.top_p = own.top_p;
    if (!o->has_seed && getrandom(&s.seed, sizeof s.seed, 0) != sizeof s.seed) s.seed = clock_ns();
    return s;
}

/* A server has the model; what depends on the file is as the latest files have it. */
static facet_status open_server(chat *c, chat_arguments *o, facet_error *err)
{
    c->format = (chat_format){.generation = CHAT_JULY};
    return chat_remote_open(o->url, o->key, &c->remote, err);
}

static facet_status open_engine(chat *c, chat_arguments *o, facet_error *err)
{
    FACET_TRY(cli_open_engine(&o->common, c->model, &c->engine, err));
    return facet_session_open(c->engine, &c->session, err);
}

static facet_status open_chat(chat *c, chat_arguments *o, facet_error *err)
{
    if (o->url) {
        FACET_TRY(open_server(c, o, err));
    } else {
        FACET_TRY(cli_open_model(&o->common, &c->model, err));
        c->format = c->model->chat;
    }
    FACET_TRY(conversation_open(&c->talk, err));
    if (o->load) FACET_TRY(conversation_load(&c->talk, o->load, c->format, err));
    if (o->system) FACET_TRY(conversation_set_system(&c->talk, o->system, err));
    if (!c->remote) FACET_TRY(open_engine(c, o, err));
    c->options = &o->common;
    c->generate = &o->common.generate;
    c->sampling = choose_sampling(&o->common, c->model);
    c->is_thinking = o->is_thinking;
    c->shows_special = !c->remote && o->common.generate.show_special;
    c->view = (chat_view){.is_terminal = isatty(STDOUT_FILENO), .use_color = cli_use_color(STDOUT_FILENO)};
    return FACET_OK;
}

static void close_chat(chat *c, cli_options *o)
{
    conversation_close(&c->talk);
    chat_remote_close(c->remote);
    facet_session_close(c->session);
    cli_close_engine(o, c->engine);
    facet_model_close(c->model);
}

static bool is_blank(const buf *text)
{
    return !text->len || strspn(text->data, " \t\r\n") == text->len;
}

static facet_status take(chat *c, const chat_input *in, facet_error *err)
{
    if (is_blank(&in->text)) return FACET_OK;
    if (!in->is_block && in->text.data[0] == '/') return chat_command(c, in->text.data, err);
    return chat_say(c, in->text.data, in->text.len, err);
}

static void tell(facet_status status, const facet_error *err)
{
    if (status == FACET_ERR_CANCELLED)
        fprintf(stderr, "facet: stopped before the answer began\n");
    else if (status != FACET_OK)
        fprintf(stderr, "facet: %s\n", err->message);
}

/* Returns the number of messages and commands that failed. */
static int converse(chat *c, chat_lines *lines)
{
    chat_input in = {0};
    int n_failed = 0;
    while (!c->is_over && !c->view.is_broken) {
        facet_error err = {0};
        cli_note_interrupt(chat_lines_has_editor(lines));
        facet_status status = chat_lines_read(lines, &in, &err);
        if (status == FACET_ERR_CANCELLED) continue;
        const bool is_lost = status == FACET_ERR_IO || status == FACET_ERR_MEMORY;
        if (in.is_end && status == FACET_OK) break;
        if (status == FACET_OK) status = take(c, &in, &err);
        tell(status, &err);
        n_failed += status != FACET_OK;
        if (is_lost) break;
    }
    buf_free(&in.text);
    return n_failed;
}

static int run(chat *c, chat_arguments *o)
{
    facet_error err = {0};
    chat_lines *lines = NULL;
    facet_status status = open_chat(c, o, &err);
    if (status == FACET_OK) status = chat_lines_open(&lines, &err);
    if (status != FACET_OK) return cli_fail(&err);
    const bool is_interactive = chat_lines_has_editor(lines);
    if (c->model && !c->model->chat.has_template)
        fprintf(stderr, "facet: %s has no chat template: it may be a base model\n", cli_model_path(&o->common));
    if (is_interactive && c->remote)
        fprintf(stderr, "%s at %s. /help lists the commands, Ctrl-D leaves.\n", chat_remote_model(c->remote), o->url);
    else if (is_interactive)
        fprintf(stderr, "%s, %d tokens of context. /help lists the commands, Ctrl-D leaves.\n",
                cli_model_path(&o->common), facet_engine_n_ctx(c->engine));
    const int n_failed = converse(c, lines);
    chat_lines_close(lines);
    return c->view.is_broken || (n_failed && !is_interactive) ? EXIT_FAILED : EXIT_OK;
}

int cmd_chat(int argc, char **argv)
{
    chat_arguments o = {.url = getenv("FACET_URL"), .key = getenv("FACET_API_KEY")};
    chat c = {0};
    if (o.url && !*o.url) o.url = NULL;
    cli_options_init(&o.common);
    if (!cli_options_from_environment(&o.common)) return EXIT_USAGE;
    const char *usual_model = o.common.model;
    const int wrong = parse(argc, argv, &o);
    if (wrong) return wrong < 0 ? EXIT_OK : wrong;
    if (o.url && o.common.model != usual_model) return cli_usage("chat", "--url and -m exclude each other");
    const int code = run(&c, &o);
    close_chat(&c, &o.common);
    return code;
}

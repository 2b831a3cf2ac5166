/* chat_commands.c: the lines that begin with '/'. */
#include <string.h>

#include "base/mem.h"
#include "cli/chat.h"
#include "cli/spec_report.h"

typedef struct command {
    const char *name, *argument, *help;
    bool wants_argument;
    facet_status (*run)(chat *c, const char *argument, facet_error *err);
} command;

static facet_status help(chat *c, const char *argument, facet_error *err);

static facet_status no_argument_wanted(const char *name, const char *argument, facet_error *err)
{
    return *argument ? error_set(err, FACET_ERR_ARG, "%s: '%.80s': takes no argument", name, argument) : FACET_OK;
}

static facet_status set_system(chat *c, const char *argument, facet_error *err)
{
    if (*argument) return conversation_set_system(&c->talk, strcmp(argument, "\"\"") == 0 ? "" : argument, err);
    const char *text = conversation_system(&c->talk);
    chat_view_content(&c->view, text ? text : "(no system text)", strlen(text ? text : "(no system text)"));
    chat_view_end(&c->view);
    return FACET_OK;
}

static facet_status set_thinking(chat *c, const char *argument, facet_error *err)
{
    const bool is_on = strcmp(argument, "on") == 0;
    if (*argument && !is_on && strcmp(argument, "off") != 0)
        return error_set(err, FACET_ERR_ARG, "/think: '%.80s': want on or off", argument);
    if (*argument) c->is_thinking = is_on;
    printf("thinking is %s\n", c->is_thinking ? "on" : "off");
    return FACET_OK;
}

static facet_status save(chat *c, const char *argument, facet_error *err)
{
    FACET_TRY(conversation_save(&c->talk, argument, err));
    printf("%zu messages saved\n", json_array_size(c->talk.messages));
    return FACET_OK;
}

static facet_status load(chat *c, const char *argument, facet_error *err)
{
    size_t n = 0;
    FACET_TRY(conversation_load(&c->talk, argument, c->format, err));
    const size_t n_messages = json_array_size(c->talk.messages);
    if (c->remote) {
        printf("%zu messages loaded\n", n_messages);
        return FACET_OK;
    }
    FACET_TRY(chat_count_tokens(c, &n, err));
    printf("%zu messages loaded: %zu of %d tokens\n", n_messages, n, facet_engine_n_ctx(c->engine));
    return FACET_OK;
}

static double per_second(double n, double ms)
{
    return ms > 0 ? n * 1000 / ms : 0;
}

static void print_last(const chat *c)
{
    const chat_stats *s = &c->last;
    const facet_generate_result *r = &s->result;
    printf("prompt    %d tokens: %d evaluated, %d kept\n", s->n_prompt, r->n_prefill, s->n_prompt - r->n_prefill);
    printf("prefill   %d tokens in %.1f ms: %.1f tokens/s\n", r->n_prefill, r->prefill_ms,
           per_second(r->n_prefill, r->prefill_ms));
    printf("decode    %d tokens in %.1f ms: %.1f tokens/s\n", r->n_tokens, r->decode_ms,
           per_second(r->n_tokens, r->decode_ms));
    cli_print_spec(stdout, "drafts    ", c->remote ? FACET_SPEC_NONE : c->generate->speculation.method, &r->spec);
}

static void print_memory(const chat *c)
{
    facet_memory m;
    facet_engine_memory(c->engine, &m);
    const double MiB = 1 << 20;
    printf("memory    weights %.1f MiB, KV cache %.1f MiB, compute %.1f MiB, peak %.1f MiB", (double)m.weights / MiB,
           (double)m.kv / MiB, (double)m.compute / MiB, (double)m.peak_rss / MiB);
    if (m.device) printf(", on the device %.1f MiB", (double)m.device / MiB);
    putchar('\n');
}

static facet_status stats(chat *c, const char *argument, facet_error *err)
{
    size_t n = 0;
    FACET_TRY(no_argument_wanted("/stats", argument, err));
    if (!c->remote) FACET_TRY(chat_count_tokens(c, &n, err));
    printf("turns     %zu\n", conversation_n_turns(&c->talk));
    if (!c->remote) printf("context   %zu of %d tokens\n", n, facet_engine_n_ctx(c->engine));
    if (c->last.is_set) {
        print_last(c);
        cli_print_spec(stdout, "in all    ", c->remote ? FACET_SPEC_NONE : c->generate->speculation.method, &c->spec);
    }
    if (!c->remote) print_memory(c);
    return FACET_OK;
}

static facet_status reset(chat *c, const char *argument, facet_error *err)
{
    FACET_TRY(no_argument_wanted("/reset", argument, err));
    conversation_reset(&c->talk);
    c->last = (chat_stats){0};
    c->spec = (facet_spec_stats){0};
    return FACET_OK;
}

static facet_status retry(chat *c, const char *argument, facet_error *err)
{
    FACET_TRY(no_argument_wanted("/retry", argument, err));
    return chat_retry(c, err);
}

static facet_status quit(chat *c, const char *argument, facet_error *err)
{
    FACET_TRY(no_argument_wanted("/quit", argument, err));
    c->is_over = true;
    return FACET_OK;
}

static const command commands[] = {
    {"/help", "", "this list", false, help},
    {"/system", "[TEXT]", "the system text, or another one (\"\" removes it)", false, set_system},
    {"/think", "[on|off]", "whether the model thinks before it answers", false, set_thinking},
    {"/save", "FILE", "write the conversation as JSON", true, save},
    {"/load", "FILE", "go on with a conversation that was saved", true, load},
    {"/stats", "", "turns, context, speed and drafts of the last answer, memory", false, stats},
    {"/reset", "", "forget everything but the system text", false, reset},
    {"/retry", "", "another answer in place of the last one", false, retry},
    {"/quit", "", "leave (Ctrl-D does, too)", false, quit},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static facet_status help(chat *c, const char *argument, facet_error *err)
{
    (void)c;
    FACET_TRY(no_argument_wanted("/help", argument, err));
    for (int i = 0; i < N_COMMANDS; i++)
        printf("%-8s %-9s %s\n", commands[i].name, commands[i].argument, commands[i].help);
    printf("\nA backslash at the end of a line continues the message on the next one; a message may also stand\n"
           "between two lines of \"\"\". Ctrl-C stops an answer. A line that begins with a blank is no command.\n");
    return FACET_OK;
}

facet_status chat_command(chat *c, const char *line, facet_error *err)
{
    static const char blanks[] = " \t\r\n";
    const size_t n = strcspn(line, blanks);
    const char *argument = line + n + strspn(line + n, blanks);
    size_t n_argument = strlen(argument);
    while (n_argument && strchr(blanks, argument[n_argument - 1])) n_argument--;
    int i = 0;
    while (i < N_COMMANDS && (strlen(commands[i].name) != n || memcmp(commands[i].name, line, n) != 0)) i++;
    if (i == N_COMMANDS)
        return error_set(err, FACET_ERR_ARG, "unknown command '%.*s' (/help lists them)", n > 80 ? 80 : (int)n, line);
    if (commands[i].wants_argument && !n_argument)
        return error_set(err, FACET_ERR_ARG, "%s: give a %s", commands[i].name, commands[i].argument);
    char *copy = mem_strndup(argument, n_argument);
    if (!copy) return error_memory(err, "a command", n_argument);
    const facet_status status = commands[i].run(c, copy, err);
    mem_free(copy);
    if (fflush(stdout) != 0) c->view.is_broken = true;
    return status;
}

/* facet chat with plain lines of standard input: turns, commands, files, and everything that can be wrong with them. */
#define _GNU_SOURCE
#include "testing.h"

#include "cli/chat_lines.h"
#include "file/temp_dir.h"

#include "chat_testing.h"

#define STORY "Tell a lost story about Rosa the frog, the farm, a orange boat and corn."

static char *chat_input_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A text with file names of the temporary folder in it. */
static char *chat_input_of(const char *format, ...)
{
    static char text[8192];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return text;
}

static void each_line_is_a_turn(void **state)
{
    (void)state;
    const printed *p =
        chat_with("--temp 0", "What is 82 - 61?\n\n   \nWhat is 9 * 6?\r\nTell me the capital of France.");
    assert_string_equal(p->out, "82 - 61 = 21.\n9 * 6 = 54.\nThe capital of France is Paris.\n");
    assert_string_equal(p->err, "");
    assert_int_equal(p->status, 0);
    assert_int_equal(chat_with("--temp 0", "")->status, 0);
}

/* The same messages, rendered and run without any cache. */
static void assert_answer_stands_alone(json_t *messages, size_t i, const char *flags)
{
    json_t *before = json_array();
    for (size_t k = 0; k < i; k++) json_array_append(before, json_array_get(messages, k));
    json_dump_file(before, temp_file("before"), 0);
    json_decref(before);
    char args[1024];
    snprintf(args, sizeof args, "%s --messages %s", flags, temp_file("before"));
    const printed *p = run_facet("render", args, "", 0);
    assert_int_equal(p->status, 0);
    write_file(temp_file("prompt"), p->out, strlen(p->out));
    snprintf(args, sizeof args, "--temp 0 --show-special -f %s", temp_file("prompt"));
    p = run_facet("run", args, "", 0);
    char want[4096];
    const char *thought = message_field(messages, i, "reasoning_content");
    if (strcmp(thought, "(none)") == 0)
        snprintf(want, sizeof want, "%s\n", message_field(messages, i, "content"));
    else
        snprintf(want, sizeof want, "<|channel>thought\n%s\n<channel|>%s\n", thought,
                 message_field(messages, i, "content"));
    assert_string_equal(p->out, want);
}

/* The numbers of the n-th "prompt" line of /stats. */
static void read_prompt_stats(const char *out, int n, int *prompt, int *evaluated, int *kept)
{
    while (n-- > 0) {
        out = strstr(out, "\nprompt ");
        assert_non_null(out);
        out++;
    }
    assert_int_equal(sscanf(out, "prompt %d tokens: %d evaluated, %d kept", prompt, evaluated, kept), 3);
    assert_int_equal(*evaluated + *kept, *prompt);
}

/* A story is longer than the window of 128, and a page. */
static void a_turn_evaluates_only_what_is_new(void **state)
{
    (void)state;
    const printed *p = chat_with("--temp 0", chat_input_of("%s\n/stats\n%s\n/stats\nWhat is 9 * 6?\n/stats\n/save %s\n",
                                                           STORY, STORY, temp_file("saved")));
    assert_int_equal(p->status, 0);
    int prompt[4], evaluated[4], kept[4];
    for (int i = 1; i < 4; i++) read_prompt_stats(p->out, i, &prompt[i], &evaluated[i], &kept[i]);
    assert_int_equal(kept[1], 0);
    for (int i = 2; i < 4; i++) {
        /* all of the last prompt but its empty thought, which the format leaves out behind the last user message */
        assert_true(kept[i] >= prompt[i - 1] - 4);
        assert_true(evaluated[i] < prompt[i] - kept[i - 1]);
    }
    json_t *saved = saved_messages("saved");
    assert_int_equal(json_array_size(saved), 6);
    for (size_t i = 1; i < 6; i += 2) assert_answer_stands_alone(saved, i, "");
    json_decref(saved);
}

static void a_thought_is_shown_but_not_repeated(void **state)
{
    (void)state;
    const printed *p = chat_with(
        "--temp 0 --think",
        chat_input_of("What is 82 - 61?\nWhat is 9 * 6?\n/save %s\n/think off\nWhat is 9 * 6?\n", temp_file("saved")));
    assert_begins(p->out, "[thought]\nI compute the result: 82 - 61 = 21.\n[/thought]\n82 - 61 = 21.\n");
    assert_contains(p->out, "thinking is off\n9 * 6 = 54.\n");
    json_t *saved = saved_messages("saved");
    assert_message(saved, 1, "assistant", "82 - 61 = 21.");
    assert_string_equal(message_field(saved, 1, "reasoning_content"), "I compute the result: 82 - 61 = 21.");
    assert_answer_stands_alone(saved, 1, "--think");
    assert_answer_stands_alone(saved, 3, "--think");
    json_decref(saved);
    p = chat_with("--temp 0 --think --show-special", "What is 82 - 61?\n");
    assert_string_equal(p->out, "<|channel>thought\nI compute the result: 82 - 61 = 21.\n<channel|>82 - 61 = 21.\n");
}

static void tool_calls_are_readable(void **state)
{
    (void)state;
    static const char system[] =
        "<|tool>declaration:get_weather{description:<|\"|>Get the current weather in a given city<|\"|>,parameters:"
        "{properties:{city:{description:<|\"|>The city name<|\"|>,type:<|\"|>STRING<|\"|>}},required:[<|\"|>city<|\"|>"
        "],type:<|\"|>OBJECT<|\"|>}}<tool|>";
    const printed *p = chat_with("--temp 0", chat_input_of("/system %s\nWhat is the weather in Helsinki?\n/save %s\n",
                                                           system, temp_file("saved")));
    assert_string_equal(p->out, "[call] get_weather {\"city\":\"Helsinki\"}\n3 messages saved\n");
    json_t *saved = saved_messages("saved");
    const json_t *answer = json_array_get(saved, 2);
    assert_true(json_is_null(json_object_get(answer, "content")));
    const json_t *call = json_array_get(json_object_get(answer, "tool_calls"), 0);
    assert_string_equal(json_string_value(json_object_get(call, "id")), "call_0");
    call = json_object_get(call, "function");
    assert_string_equal(json_string_value(json_object_get(call, "name")), "get_weather");
    assert_string_equal(json_string_value(json_object_get(call, "arguments")), "{\"city\":\"Helsinki\"}");
    /* a tool's result can be put into the file; /retry answers what has no answer yet */
    json_array_append_new(saved, json_pack("{s:s, s:s, s:s}", "role", "tool", "tool_call_id", "call_0", "content",
                                           "{\"condition\": \"rainy\", \"temperature\": -1}"));
    json_dump_file(saved, temp_file("answered"), 0);
    json_decref(saved);
    p = chat_with("--temp 0", chat_input_of("/load %s\n/retry\n", temp_file("answered")));
    assert_contains(p->out, "4 messages loaded");
    assert_contains(p->out, "The weather in Helsinki is rainy with -1 degrees");
}

static void messages_of_several_lines(void **state)
{
    (void)state;
    const printed *p = chat_with(
        "--temp 0 -n 1",
        chat_input_of("a\\\nb\\\n\\\nc\n\"\"\"\n/help\n\n \"\"\"\"\n\"\"\" \n /quit\n/save %s\n", temp_file("saved")));
    assert_int_equal(p->status, 0);
    json_t *saved = saved_messages("saved");
    assert_int_equal(json_array_size(saved), 6);
    assert_message(saved, 0, "user", "a\nb\n\nc");
    assert_message(saved, 2, "user", "/help\n\n \"\"\"\"");
    assert_message(saved, 4, "user", " /quit");
    json_decref(saved);
    p = chat_with("--temp 0", "\"\"\"\nWhat is\n");
    assert_int_equal(p->status, 1);
    assert_string_equal(p->out, "");
    assert_contains(p->err, "the input ends before a line of \"\"\"");
    p = chat_with("--temp 0", "What is\\\n");
    assert_int_equal(p->status, 1);
    assert_contains(p->err, "the input ends after a line with a backslash");
}

/* Each is passed over as a whole, and the next line is answered. */
static void bad_lines_are_named_and_passed_over(void **state)
{
    (void)state;
    static const struct {
        const char *input;
        size_t n;
        const char *message;
    } table[] = {
        {"a\0b", 3, "standard input: line 1: byte 2 is NUL"},
        {"ab\xff", 3, "standard input: line 1: byte 3 (0xff) is not UTF-8"},
        {"\xc3", 1, "standard input: line 1: byte 1 (0xc3) is not UTF-8"},
        {"\xed\xa0\x80", 3, "standard input: line 1: byte 1 (0xed) is not UTF-8"},
        {"good\\\nb\0d\\\ngood", 15, "standard input: line 2: byte 2 is NUL"},
        {"\"\"\"\ngood\nb\xff\nb\0d\n\"\"\"", 19, "standard input: line 3: byte 2 (0xff) is not UTF-8"},
        {"/save x\xff", 8, "standard input: line 1: byte 8 (0xff) is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char input[256];
        memcpy(input, table[i].input, table[i].n);
        strcpy(input + table[i].n, "\nWhat is 9 * 6?\n");
        const printed *p = run_facet("chat", "--temp 0", input, table[i].n + strlen("\nWhat is 9 * 6?\n"));
        assert_contains(p->err, table[i].message);
        assert_string_equal(p->out, "9 * 6 = 54.\n");
        assert_int_equal(p->status, 1);
    }
}

static void lines_that_are_too_long(void **state)
{
    (void)state;
    const size_t long_line = CHAT_MAX_INPUT + 1, half = CHAT_MAX_INPUT / 2 + 2;
    const char rest[] = "\nWhat is 9 * 6?\n";
    char *input = malloc(2 * long_line + sizeof rest);
    memset(input, 'x', 2 * long_line);
    memcpy(input + long_line, rest, sizeof rest);
    const printed *p = run_facet("chat", "--temp 0", input, long_line + strlen(rest));
    assert_contains(p->err, "standard input: line 1: the line is longer than 4194304 bytes");
    assert_string_equal(p->out, "9 * 6 = 54.\n");
    memset(input, 'x', 2 * half);
    memcpy(input + half - 2, "\\\n", 2); /* the message, not its lines */
    memcpy(input + 2 * half, rest, sizeof rest);
    p = run_facet("chat", "--temp 0", input, 2 * half + strlen(rest));
    assert_contains(p->err, "the message is longer than 4194304 bytes");
    assert_string_equal(p->out, "9 * 6 = 54.\n");
    memcpy(input + long_line - 1, rest, sizeof rest); /* as long as may be: the context's turn to refuse it */
    memset(input, 'x', long_line - 1);
    p = run_facet("chat", "--temp 0 -c 64", input, long_line - 1 + strlen(rest));
    assert_contains(p->err, "not answered: with this message ");
    assert_string_equal(p->out, "9 * 6 = 54.\n");
    free(input);
}

static const struct {
    const char *line, *out, *err; /* err NULL: the command succeeds */
} commands[] = {
    {"/help", "/stats             turns, context, speed", NULL},
    {"/help me", "", "/help: 'me': takes no argument"},
    {"/nonsense", "", "facet: unknown command '/nonsense' (/help lists them)\n"},
    {"/", "", "unknown command '/'"},
    {"/helper", "", "unknown command '/helper'"},
    {"/think", "thinking is off\n", NULL},
    {"/think on", "thinking is on\n", NULL},
    {"/think off  ", "thinking is off\n", NULL},
    {"/think maybe", "", "/think: 'maybe': want on or off"},
    {"/system", "(no system text)\n", NULL},
    {"/save", "", "/save: give a FILE"},
    {"/save   ", "", "/save: give a FILE"},
    {"/save /nonexistent/folder/x", "", "/nonexistent/folder/x: "},
    {"/save empty", "", "empty: not written: the conversation is empty"},
    {"/load", "", "/load: give a FILE"},
    {"/load -", "", "-: want a file, not standard input"},
    {"/load /nonexistent", "", "/nonexistent: cannot open"},
    {"/load .", "", ".: cannot read"},
    {"/stats", "turns     0\ncontext   0 of 32768 tokens\nmemory    weights 4.8 MiB", NULL},
    {"/stats now", "", "/stats: 'now': takes no argument"},
    {"/reset", "", NULL},
    {"/reset all", "", "/reset: 'all': takes no argument"},
    {"/retry", "", "/retry: nothing was said yet"},
    {"/retry it", "", "/retry: 'it': takes no argument"},
    {"/quit", "", NULL},
    {"/quit now", "", "/quit: 'now': takes no argument"},
};

static void every_command_good_and_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const printed *p = chat_with("", commands[i].line);
        assert_contains(p->out, commands[i].out);
        if (!*commands[i].out) assert_string_equal(p->out, "");
        assert_int_equal(p->status, commands[i].err ? 1 : 0);
        if (commands[i].err) assert_contains(p->err, commands[i].err);
        if (!commands[i].err) assert_string_equal(p->err, "");
    }
}

static void system_reset_retry_quit(void **state)
{
    (void)state;
    char first[512], second[512];
    snprintf(first, sizeof first, "%s", temp_file("first"));
    snprintf(second, sizeof second, "%s", temp_file("second"));
    const printed *p =
        chat_with("--temp 0 --system 'Be brief.'",
                  chat_input_of("/system\nWhat is 9 * 6?\n/retry\n/save %s\n/reset\n/system Be\\\nlong.\n"
                                "What is 82 - 61?\n/save %s\n/system \"\"\n/system\n/stats\n/quit\nlost\n",
                                first, second));
    assert_begins(p->out, "Be brief.\n9 * 6 = 54.\n9 * 6 = 54.\n3 messages saved\n82 - 61 = 21.\n"
                          "3 messages saved\n(no system text)\nturns     1\n");
    assert_lacks(p->out, "lost");
    assert_int_equal(p->status, 0);
    json_t *saved = saved_messages("first");
    assert_int_equal(json_array_size(saved), 3);
    assert_message(saved, 0, "system", "Be brief.");
    assert_message(saved, 2, "assistant", "9 * 6 = 54.");
    json_decref(saved);
    saved = saved_messages("second");
    assert_message(saved, 0, "system", "Be\nlong.");
    assert_message(saved, 1, "user", "What is 82 - 61?");
    json_decref(saved);
}

static void another_answer_has_another_seed(void **state)
{
    (void)state;
    const printed *p = chat_with("--temp 9 --top-k 0 --top-p 1 -n 24 --seed 3",
                                 chat_input_of("hello\n/save %s\n/retry\n", temp_file("first")));
    char out[sizeof p->out];
    memcpy(out, p->out, sizeof out);
    p = chat_with("--temp 9 --top-k 0 --top-p 1 -n 24 --seed 3",
                  chat_input_of("hello\n/retry\n/save %s\n", temp_file("second")));
    json_t *first = saved_messages("first"), *second = saved_messages("second");
    assert_int_equal(json_array_size(second), 2);
    assert_string_not_equal(message_field(first, 1, "content"), message_field(second, 1, "content"));
    json_decref(first);
    json_decref(second);
    char *save = strstr(out, "2 messages saved\n"); /* the same seed gives the same chat */
    assert_non_null(save);
    assert_int_equal(strncmp(out, p->out, (size_t)(save - out)), 0);
    char *drawn = strdup(chat_with("--temp 9 --top-k 0 --top-p 1 -n 24", "hello\n")->out); /* no seed given */
    assert_string_not_equal(chat_with("--temp 9 --top-k 0 --top-p 1 -n 24", "hello\n")->out, drawn);
    free(drawn);
}

static void assert_chat_equals_run(const char *chat_args, const char *run_args)
{
    char *want = strdup(run_facet("run", run_args, "", 0)->out);
    assert_string_equal(chat_with(chat_args, "hello\n")->out, want);
    free(want);
}

/* The bundled file names no values, so that the model's recommendation is 1, 64, 0.95. */
static void sampling_is_the_models_unless_given(void **state)
{
    (void)state;
    assert_chat_equals_run("--seed 4 -n 40", "--chat --temp 1 --top-k 64 --top-p 0.95 --seed 4 -n 40 hello");
    assert_chat_equals_run("--seed 4 -n 40 --temp 8 --top-k 3",
                           "--chat --temp 8 --top-k 3 --top-p 0.95 --seed 4 -n 40 hello");
}

static void stop_strings_end_the_content(void **state)
{
    (void)state;
    const printed *p = chat_with("--temp 0 --think --stop ' = 2' --stop 9.",
                                 chat_input_of("What is 82 - 61?\n/save %s\n", temp_file("saved")));
    assert_contains(p->out, "[/thought]\n82 - 61\n2 messages saved\n"); /* the thought has the text, too */
    json_t *saved = saved_messages("saved");
    assert_message(saved, 1, "assistant", "82 - 61");
    json_decref(saved);
}

static void a_full_context_is_told_and_nothing_is_lost(void **state)
{
    (void)state;
    const printed *p = chat_with("--temp 0 -c 64", chat_input_of("What is 9 * 6?\n%s %s\n/save %s\nWhat is 82 - 61?\n",
                                                                 STORY, STORY, temp_file("saved")));
    assert_contains(p->err, "facet: not answered: with this message ");
    assert_contains(p->err,
                    "tokens, the context holds 64: /save keeps the conversation, /reset begins anew, -c N sets");
    assert_string_equal(p->out, "9 * 6 = 54.\n2 messages saved\n82 - 61 = 21.\n");
    assert_int_equal(p->status, 1);
    p = chat_with("--temp 0 -c 64", chat_input_of("%s\n/save %s\nWhat is 9 * 6?\n/retry\n/reset\nWhat is 9 * 6?\n",
                                                  STORY, temp_file("saved")));
    assert_contains(p->err, "facet: the answer is cut: the context of 64 tokens is full: /save keeps");
    assert_contains(p->err, "facet: not answered: with this message ");
    json_t *saved = saved_messages("saved");
    assert_begins(message_field(saved, 1, "content"), "One day Rosa the frog");
    assert_int_equal(strncmp(p->out, message_field(saved, 1, "content"), strlen(message_field(saved, 1, "content"))),
                     0);
    assert_contains(p->out, "2 messages saved\nOne day Rosa"); /* the retry; the reset made room */
    assert_contains(p->out, "9 * 6 = 54.\n");
    json_decref(saved);
}

static void what_was_saved_goes_on(void **state)
{
    (void)state;
    char saved[512], again[512], args[1024];
    snprintf(saved, sizeof saved, "%s", temp_file("saved"));
    snprintf(again, sizeof again, "%s", temp_file("again"));
    chat_with("--temp 0 --system 'S \xc3\xa4'", chat_input_of("What is 9 * 6?\n/save %s\n", saved));
    snprintf(args, sizeof args, "--temp 0 --load %s", saved);
    const printed *p = chat_with(args, chat_input_of("/system\nWhat is 82 - 61?\n/save %s\n", again));
    assert_string_equal(p->out, "S \xc3\xa4\n82 - 61 = 21.\n5 messages saved\n");
    json_t *messages = saved_messages("again");
    assert_message(messages, 0, "system", "S \xc3\xa4");
    assert_message(messages, 4, "assistant", "82 - 61 = 21.");
    /* an object with "messages", and text parts, are welcome as well */
    json_t *parts =
        json_pack("{s:s, s:[{s:s, s:s}]}", "role", "user", "content", "type", "text", "text", "What is 9 * 6?");
    json_array_append_new(messages, parts);
    json_t *root = json_pack("{s:o}", "messages", messages);
    json_dump_file(root, saved, 0);
    json_decref(root);
    p = chat_with("--temp 0", chat_input_of("/load %s\n/retry\n/stats\n", saved));
    assert_contains(p->out, "6 messages loaded: ");
    assert_contains(p->out, " of 32768 tokens\n9 * 6 = 54.\nturns     3\n");
    assert_int_equal(chat_with("--load /nonexistent", "")->status, 1);
}

static const struct {
    const char *content, *message;
} bad_files[] = {
    {"", "line 1: '[' or '{' expected near end of file"},
    {"hello", "line 1: '[' or '{' expected near 'hello'"},
    {"[{\"role\": \"user\", \"content\": \"a\"}", "']' expected near end of file"},
    {"[{\"role\": \"user\", \"content\": \"a\xff\"}]", "unable to decode byte 0xff"},
    {"[{\"role\": \"user\", \"role\": \"user\", \"content\": \"a\"}]", "duplicate object key"},
    {"[] []", "end of file expected"},
    {"[]", "messages: want a non-empty list"},
    {"{\"text\": 1}", "want an array of messages"},
    {"{\"messages\": {}}", "want an array of messages"},
    {"[1]", "messages[0]: want an object"},
    {"[{\"content\": \"a\"}]", "messages[0].role: '(no string)': want system, developer, user, assistant or tool"},
    {"[{\"role\": \"robot\", \"content\": \"a\"}]",
     "messages[0].role: 'robot': want system, developer, user, assistant or tool"},
    {"[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"a\"}]",
     "messages[1].role: want a system message only as the first"},
    {"[{\"role\": \"user\"}]", "messages[0].content: want a string or text parts"},
    {"[{\"role\": \"user\", \"content\": 7}]", "messages[0].content: want a string or text parts"},
    {"[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]",
     "messages[0].content: want a string or text parts"},
    {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", "messages[0].content[].text: want a string"},
    {"[{\"role\": \"tool\", \"content\": \"a\"}]", "messages[0].role: want tool messages only behind"},
    {"[{\"role\": \"assistant\", \"tool_calls\": 1}]", "messages[0].tool_calls: want a list"},
    {"[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": \"{\"}}]}]",
     "messages[0].tool_calls[].function.arguments: want an object"},
};

/* Whatever a file holds, the conversation stays what it was. */
static void bad_files_change_nothing(void **state)
{
    (void)state;
    char bad[512];
    snprintf(bad, sizeof bad, "%s", temp_file("bad"));
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        write_file(bad, bad_files[i].content, strlen(bad_files[i].content));
        const printed *p =
            chat_with("--temp 0", chat_input_of("What is 9 * 6?\n/load %s\n/save %s\n", bad, temp_file("saved")));
        assert_contains(p->err, bad);
        assert_contains(p->err, bad_files[i].message);
        assert_int_equal(p->status, 1);
        json_t *saved = saved_messages("saved");
        assert_int_equal(json_array_size(saved), 2);
        assert_message(saved, 1, "assistant", "9 * 6 = 54.");
        json_decref(saved);
    }
    assert_int_equal(truncate(bad, (64 << 20) + 1), 0); /* sparse */
    assert_contains(chat_with("", chat_input_of("/load %s\n", bad))->err, "larger than 67108864 bytes");
    FILE *f = fopen(bad, "w"); /* nested deeper than a parser should follow */
    for (int i = 0; i < 100000; i++) fputc('[', f);
    fclose(f);
    assert_contains(chat_with("", chat_input_of("/load %s\n", bad))->err, "maximum parsing depth reached");
}

static void options_good_and_bad(void **state)
{
    (void)state;
    assert_int_equal(chat_with("--json", "")->status, 2);
    assert_contains(chat_with("--json", "")->err, "facet chat: --json is for facet run");
    assert_int_equal(chat_with("hello", "")->status, 2);
    assert_contains(chat_with("hello", "")->err, "'hello': takes no argument");
    assert_int_equal(chat_with("--nonsense", "")->status, 2);
    assert_int_equal(chat_with("--system '\xff'", "")->status, 2);
    assert_contains(chat_with("--system '\xff'", "")->err, "the system text is not valid UTF-8");
    assert_contains(chat_with("--help", "")->out, "usage: facet chat");
    assert_int_equal(chat_with("--help", "")->status, 0);
}

static void standard_streams_that_fail(void **state)
{
    (void)state;
    char command[2048];
    snprintf(command, sizeof command, "echo 'What is 9 * 6?' | %s/facet chat -m %s --device cpu >/dev/full 2>&1",
             FACET_BINARY_DIR, CHAT_MODEL);
    assert_int_equal(WEXITSTATUS(system(command)), 1);
    snprintf(command, sizeof command, "%s/facet chat -m %s --device cpu </ >/dev/null 2>%s", FACET_BINARY_DIR,
             CHAT_MODEL, temp_file("err"));
    assert_int_equal(WEXITSTATUS(system(command)), 1);
    static char err[4096];
    read_text(temp_file("err"), err, sizeof err);
    assert_contains(err, "standard input: cannot read: Is a directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_line_is_a_turn),
        cmocka_unit_test(a_turn_evaluates_only_what_is_new),
        cmocka_unit_test(a_thought_is_shown_but_not_repeated),
        cmocka_unit_test(tool_calls_are_readable),
        cmocka_unit_test(messages_of_several_lines),
        cmocka_unit_test(bad_lines_are_named_and_passed_over),
        cmocka_unit_test(lines_that_are_too_long),
        cmocka_unit_test(every_command_good_and_bad),
        cmocka_unit_test(system_reset_retry_quit),
        cmocka_unit_test(another_answer_has_another_seed),
        cmocka_unit_test(sampling_is_the_models_unless_given),
        cmocka_unit_test(stop_strings_end_the_content),
        cmocka_unit_test(a_full_context_is_told_and_nothing_is_lost),
        cmocka_unit_test(what_was_saved_goes_on),
        cmocka_unit_test(bad_files_change_nothing),
        cmocka_unit_test(options_good_and_bad),
        cmocka_unit_test(standard_streams_that_fail),
    };
    return cmocka_run_group_tests_name("chat", tests, temp_dir_make, temp_dir_remove);
}

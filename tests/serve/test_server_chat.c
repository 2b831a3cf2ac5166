/* POST /v1/chat/completions: answers and streams, tools, limits, and what many clients at once may not change. */
#define _GNU_SOURCE
#include "testing.h"

#include <pthread.h>

#include "server_world.h"

#define CHAT "/v1/chat/completions"

/* ---- answers ---- */

static void an_answer(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", ""), 200);
    assert_string_equal(text_at(j, "object"), "chat.completion");
    assert_string_equal(text_at(j, "model"), "small");
    assert_true(strncmp(text_at(j, "id"), "chatcmpl-", 9) == 0);
    assert_string_equal(text_at(j, "choices.0.message.role"), "assistant");
    assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "stop");
    assert_null(json_at(j, "choices.0.message.tool_calls"));
    const json_int_t n_prompt = int_at(j, "usage.prompt_tokens"), n = int_at(j, "usage.completion_tokens");
    assert_int_equal(int_at(j, "usage.total_tokens"), n_prompt + n);
    assert_int_equal(int_at(j, "timings.prefill_tokens"), n_prompt);
    assert_int_equal(int_at(j, "timings.decode_tokens"), n);
    assert_string_equal(text_at(j, "speculation.method"), "none");
    json_decref(j);
    /* the same path without /v1, content as parts, an empty stop, nulls as if missing */
    j = ask_json(&w, "/chat/completions",
                 "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"What is 82 - 61?\"}]}],"
                 "\"stop\":null,\"temperature\":null,\"max_tokens\":null,\"user\":\"me\"}",
                 200);
    assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
    json_decref(j);
    world_close(&w);
}

static void lengths_and_stop_texts(void **state)
{
    static const struct {
        const char *rest, *content, *finish;
    } table[] = {
        {",\"max_tokens\":2", "82", "length"},
        {",\"max_completion_tokens\":2", "82", "length"},
        {",\"max_tokens\":0", "", "length"},
        {",\"stop\":\" = \"", "82 - 61", "stop"},
        {",\"stop\":[\"nothing\",\"61\",\" =\"]", "82 - ", "stop"},
        {",\"stop\":\"82\"", "", "stop"},
        {",\"stop\":\"21.\\n\"", "82 - 61 = 21.", "stop"}, /* held back at the end, then handed out */
    };
    (void)state;
    world w = world_open(world_config(), 1024);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", table[i].rest), 200);
        if (strcmp(text_at(j, "choices.0.message.content"), table[i].content) != 0 ||
            strcmp(text_at(j, "choices.0.finish_reason"), table[i].finish) != 0)
            fail_msg("%s: '%s', %s", table[i].rest, text_at(j, "choices.0.message.content"),
                     text_at(j, "choices.0.finish_reason"));
        json_decref(j);
    }
    world_close(&w);
}

static json_t *ask_stream(const world *w, const char *path, const char *body)
{
    reply r = http_post(w->port, path, body);
    if (r.status != 200) fail_msg("status %d: %s", r.status, r.body.data);
    assert_string_equal(reply_header(&r, "Content-Type"), "text/event-stream");
    json_t *events = reply_events(&r);
    reply_free(&r);
    return events;
}

static void a_stream(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *events = ask_stream(
        &w, CHAT, chat_body("What is 82 - 61?", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"));
    const size_t n = json_array_size(events);
    buf text = {0};
    join_deltas(events, "choices.0.delta.content", &text);
    assert_string_equal(text.data, "82 - 61 = 21.");
    assert_string_equal(text_at(events, "0.object"), "chat.completion.chunk");
    assert_string_equal(text_at(events, "0.choices.0.delta.role"), "assistant");
    assert_true(n > 5);
    assert_string_equal(json_string_value(json_array_get(events, n - 1)), "[DONE]");
    const json_t *usage = json_array_get(events, n - 2), *last = json_array_get(events, n - 3);
    assert_int_equal(json_array_size(json_object_get(usage, "choices")), 0);
    assert_true(int_at(usage, "usage.completion_tokens") > 3);
    assert_string_equal(text_at(last, "choices.0.finish_reason"), "stop");
    assert_int_equal(int_at(last, "timings.decode_tokens"), int_at(usage, "usage.completion_tokens"));
    for (size_t i = 0; i + 1 < n; i++)
        assert_string_equal(text_at(json_array_get(events, i), "id"), text_at(events, "0.id"));
    buf_free(&text);
    json_decref(events);
    /* without usage */
    events = ask_stream(&w, CHAT, chat_body("What is 82 - 61?", ",\"stream\":true"));
    assert_int_equal(json_array_size(events), n - 1);
    json_decref(events);
    world_close(&w);
}

/* At temperature 1 the choices differ, and each is that of its own seed alone. */
static void several_choices(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(
        &w, CHAT, chat_body("Tell me a story.", ",\"n\":3,\"temperature\":1.5,\"seed\":7,\"max_tokens\":24"), 200);
    assert_int_equal(json_array_size(json_at(j, "choices")), 3);
    int n_tokens = 0, n_same = 0;
    for (int i = 0; i < 3; i++) {
        char rest[96], path[64];
        snprintf(rest, sizeof rest, ",\"temperature\":1.5,\"seed\":%d,\"max_tokens\":24", 7 + i);
        snprintf(path, sizeof path, "choices.%d.message.content", i);
        json_t *alone = ask_json(&w, CHAT, chat_body("Tell me a story.", rest), 200);
        assert_string_equal(text_at(j, path), text_at(alone, "choices.0.message.content"));
        n_same += strcmp(text_at(j, path), text_at(j, "choices.0.message.content")) == 0;
        n_tokens += (int)int_at(alone, "usage.completion_tokens");
        json_decref(alone);
    }
    assert_int_equal(n_same, 1);
    assert_int_equal(int_at(j, "usage.completion_tokens"), n_tokens);
    json_decref(j);
    /* the same as a stream: the choices come mixed, each with its index */
    json_t *events = ask_stream(
        &w, CHAT,
        chat_body("Tell me a story.", ",\"n\":3,\"temperature\":1.5,\"seed\":7,\"max_tokens\":24,\"stream\":true"));
    j = ask_json(&w, CHAT, chat_body("Tell me a story.", ",\"n\":3,\"temperature\":1.5,\"seed\":7,\"max_tokens\":24"),
                 200);
    for (int i = 0; i < 3; i++) {
        buf text = {0};
        char path[64];
        size_t k;
        json_t *e;
        json_array_foreach(events, k, e)
        {
            const char *s = json_string_value(json_at(e, "choices.0.delta.content"));
            if (s && int_at(e, "choices.0.index") == i) buf_puts(&text, s);
        }
        snprintf(path, sizeof path, "choices.%d.message.content", i);
        assert_string_equal(text.data, text_at(j, path));
        buf_free(&text);
    }
    json_decref(events);
    json_decref(j);
    world_close(&w);
}

static void sampling_settings(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/tokenize", "{\"content\":\"82\"}", 200);
    char rest[128];
    snprintf(rest, sizeof rest, ",\"max_tokens\":8,\"logit_bias\":{\"%d\":-100}", (int)int_at(j, "tokens.0"));
    json_decref(j);
    j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", rest), 200);
    assert_null(strstr(text_at(j, "choices.0.message.content"), "82"));
    json_decref(j);
    /* the best token alone, by whatever means */
    const char *const greedy[] = {",\"temperature\":2,\"top_k\":1", ",\"temperature\":2,\"top_p\":0",
                                  ",\"temperature\":2,\"min_p\":1"};
    for (size_t i = 0; i < 3; i++) {
        j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", greedy[i]), 200);
        assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
        json_decref(j);
    }
    world_close(&w);
}

/* Tokens of a story that stood in it before; `adjacent`: right before. */
static int n_repeats(const world *w, const char *penalty, bool adjacent)
{
    char rest[256];
    snprintf(rest, sizeof rest, ",\"max_tokens\":40,\"ignore_eos\":true,\"logprobs\":true%s", penalty);
    json_t *j = ask_json(w, CHAT, chat_body("Tell me a story.", rest), 200);
    const json_t *list = json_at(j, "choices.0.logprobs.content");
    const int n = (int)json_array_size(list);
    int n_found = 0;
    assert_in_range(n, 20, 40);
    for (int i = 1; i < n; i++) {
        bool is_found = false;
        for (int k = adjacent ? i - 1 : 0; k < i; k++)
            is_found |= strcmp(text_at(json_array_get(list, (size_t)k), "token"),
                               text_at(json_array_get(list, (size_t)i), "token")) == 0;
        n_found += is_found;
    }
    json_decref(j);
    return n_found;
}

/* Large ones exclude what they look back at. */
static void penalties(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    assert_true(n_repeats(&w, "", false) > 5);
    assert_int_equal(n_repeats(&w, ",\"presence_penalty\":100", false), 0);
    assert_int_equal(n_repeats(&w, ",\"frequency_penalty\":100", false), 0);
    assert_int_equal(n_repeats(&w, ",\"repetition_penalty\":100", false), 0);
    assert_int_equal(n_repeats(&w, ",\"presence_penalty\":100,\"repeat_last_n\":1", true), 0);
    assert_true(n_repeats(&w, ",\"presence_penalty\":100,\"repeat_last_n\":1", false) > 0);
    world_close(&w);
}

/* --clamp: what would not fit is cut, not refused. */
static void lengths_are_clamped(void **state)
{
    (void)state;
    server_config c = world_config();
    c.api.clamps = true;
    world w = world_open(c, 64);
    json_t *j = ask_json(&w, CHAT, chat_body("Tell me a story.", ",\"max_tokens\":5000,\"ignore_eos\":true"), 200);
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "length");
    assert_int_equal(int_at(j, "usage.total_tokens"), 64);
    json_decref(j);
    world_close(&w);
}

/* ---- tools ---- */

#define TOOL(name, parameter)                                                                                          \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"description\":\"Get the current weather for a "      \
    "city.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"" parameter                                         \
    "\":{\"type\":\"string\",\"description\":\"City name\"}},\"required\":[\"" parameter "\"]}}}"
#define TOOLS ",\"tools\":[" TOOL("get_weather", "city") "]"

static void a_tool_call_and_its_answer(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, CHAT, chat_body("What is the weather in Rome?", TOOLS), 200);
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "tool_calls");
    assert_true(json_is_null(json_at(j, "choices.0.message.content")));
    assert_string_equal(text_at(j, "choices.0.message.tool_calls.0.function.name"), "get_weather");
    assert_string_equal(text_at(j, "choices.0.message.tool_calls.0.function.arguments"), "{\"city\":\"Rome\"}");
    assert_string_equal(text_at(j, "choices.0.message.tool_calls.0.type"), "function");
    /* the message goes back with the tool's answer */
    json_t *body = json_pack("{s:[{s:s, s:s}, O, {s:s, s:O, s:s}]}", "messages", "role", "user", "content",
                             "What is the weather in Rome?", json_at(j, "choices.0.message"), "role", "tool",
                             "tool_call_id", json_at(j, "choices.0.message.tool_calls.0.id"), "content",
                             "{\"temperature\": 3, \"condition\": \"foggy\"}");
    json_t *tools = json_loads("[" TOOL("get_weather", "city") "]", 0, NULL);
    json_object_set_new(body, "tools", tools);
    char *text = json_dumps(body, 0);
    json_t *answer = ask_json(&w, CHAT, text, 200);
    assert_string_equal(text_at(answer, "choices.0.message.content"), "The weather in Rome is foggy with 3 degrees.");
    assert_string_equal(text_at(answer, "choices.0.finish_reason"), "stop");
    json_decref(answer);
    json_decref(body);
    json_decref(j);
    free(text);
    /* as a stream */
    json_t *events = ask_stream(&w, CHAT, chat_body("What is the weather in Rome?", TOOLS ",\"stream\":true"));
    size_t i;
    json_t *e;
    int n_calls = 0;
    json_array_foreach(events, i, e)
    {
        const json_t *call = json_at(e, "choices.0.delta.tool_calls.0");
        if (!call) continue;
        n_calls++;
        assert_int_equal(int_at(call, "index"), 0);
        assert_string_equal(text_at(call, "function.name"), "get_weather");
        assert_string_equal(text_at(call, "function.arguments"), "{\"city\":\"Rome\"}");
    }
    assert_int_equal(n_calls, 1);
    assert_string_equal(text_at(json_array_get(events, json_array_size(events) - 2), "choices.0.finish_reason"),
                        "tool_calls");
    json_decref(events);
    world_close(&w);
}

static void tool_choice(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    /* none: the model does not see the tools, so that the prompt is the plain one */
    json_t *plain = ask_json(&w, CHAT, chat_body("What is 82 - 61?", ""), 200);
    json_t *j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", TOOLS ",\"tool_choice\":\"none\""), 200);
    assert_int_equal(int_at(j, "usage.prompt_tokens"), int_at(plain, "usage.prompt_tokens"));
    assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
    json_decref(plain);
    json_decref(j);
    const char *const demands[] = {TOOLS ",\"tool_choice\":\"required\"",
                                   TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
                                         "\"get_weather\"}}"};
    for (int i = 0; i < 2; i++) {
        j = ask_json(&w, CHAT, chat_body("What is the weather in Rome?", demands[i]), 200);
        assert_string_equal(text_at(j, "choices.0.finish_reason"), "tool_calls");
        assert_string_equal(text_at(j, "choices.0.message.tool_calls.0.function.name"), "get_weather");
        assert_string_equal(text_at(j, "choices.0.message.tool_calls.0.function.arguments"), "{\"city\":\"Rome\"}");
        json_decref(j);
    }
    j = ask_json(&w, CHAT,
                 chat_body("x", TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"other\"}}"),
                 400);
    assert_string_equal(text_at(j, "error.message"), "tool_choice: 'other' is not among the tools");
    json_decref(j);
    world_close(&w);
}

/* The small model calls once and waits for the tool. With its ends and some words of results banned, and the beginning
 * of a call made likelier, it calls twice: {"city":"Rome"}, {"city":"fish"}. */
#define TWICE                                                                                                          \
    TOOLS ",\"max_tokens\":31,\"logit_bias\":{\"1\":-100,\"50\":-100,\"106\":-100,\"853\":-100,\"1189\":-100,"         \
          "\"1713\":-100,\"1717\":-100,\"48\":9.75,\"611\":3}"

static void several_calls_in_one_answer(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, CHAT, chat_body("What is the weather in Rome?", TWICE), 200);
    const json_t *calls = json_at(j, "choices.0.message.tool_calls");
    assert_int_equal(json_array_size(calls), 2);
    assert_string_equal(text_at(calls, "0.function.arguments"), "{\"city\":\"Rome\"}");
    assert_string_equal(text_at(calls, "1.function.name"), "get_weather");
    assert_string_equal(text_at(calls, "1.function.arguments"), "{\"city\":\"fish\"}");
    assert_string_not_equal(text_at(calls, "0.id"), text_at(calls, "1.id"));
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "tool_calls");
    json_decref(j);
    /* as a stream: each with its index */
    json_t *events = ask_stream(&w, CHAT, chat_body("What is the weather in Rome?", TWICE ",\"stream\":true"));
    size_t i;
    json_t *e;
    int n_calls = 0;
    json_array_foreach(events, i, e)
    {
        const json_t *call = json_at(e, "choices.0.delta.tool_calls.0");
        if (!call) continue;
        assert_int_equal(int_at(call, "index"), n_calls);
        assert_string_equal(text_at(call, "function.arguments"),
                            n_calls ? "{\"city\":\"fish\"}" : "{\"city\":\"Rome\"}");
        n_calls++;
    }
    assert_int_equal(n_calls, 2);
    json_decref(events);
    /* the first one ends the answer */
    j = ask_json(&w, CHAT, chat_body("What is the weather in Rome?", TWICE ",\"parallel_tool_calls\":false"), 200);
    assert_int_equal(json_array_size(json_at(j, "choices.0.message.tool_calls")), 1);
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "tool_calls");
    assert_int_equal(int_at(j, "usage.completion_tokens"), 15);
    json_decref(j);
    world_close(&w);
}

/* ---- prompts that begin alike ---- */

/* A conversation that begins with 4,000 tokens: of each further turn only what is new is evaluated, and the few tokens
 * with which a prompt asks for an answer, which stand otherwise behind an answer that was given. */
static void the_next_turn_evaluates_what_is_new(void **state)
{
    (void)state;
    enum { N_ASKING = 4 };
    world w = world_open(world_config(), 8192);
    json_t *messages = json_array();
    buf text = {0};
    for (int i = 0; i < 1040; i++) buf_printf(&text, "%d ", i);
    json_int_t before = 0;
    for (int turn = 0; turn < 4; turn++) {
        json_array_append_new(
            messages, json_pack("{s:s, s:s}", "role", "user", "content", turn ? "What is 82 - 61?" : text.data));
        json_t *body = json_pack("{s:O, s:i}", "messages", messages, "max_tokens", 12);
        char *s = json_dumps(body, 0);
        json_t *j = ask_json(&w, CHAT, s, 200);
        const json_int_t n = int_at(j, "usage.prompt_tokens"), cached = int_at(j, "timings.cached_tokens");
        assert_int_equal(int_at(j, "usage.prompt_tokens_details.cached_tokens"), cached);
        assert_int_equal(int_at(j, "timings.prefill_tokens"), n - cached);
        print_message("turn %d: %d tokens, %d evaluated in %.1f ms\n", turn, (int)n, (int)(n - cached),
                      json_real_value(json_at(j, "timings.prefill_ms")));
        if (turn && (cached > before || cached < before - N_ASKING))
            fail_msg("turn %d: %d of %d cached, before: %d", turn, (int)cached, (int)n, (int)before);
        if (turn == 0) assert_true(n > 4000 && cached == 0);
        before = n;
        json_array_append(messages, json_at(j, "choices.0.message"));
        json_decref(j);
        json_decref(body);
        free(s);
    }
    json_decref(messages);
    buf_free(&text);
    world_close(&w);
}

/* Two chats part behind a system text that is longer than the local layers' window; a third one goes on from there. */
static void chats_share_a_system_text(void **state)
{
    (void)state;
    world w = world_open(world_config(), 4096);
    buf text = {0};
    for (int i = 0; i < 400; i++) buf_printf(&text, "%d ", i);
    const char *const users[] = {"What is 82 - 61?", "Which month comes after June?",
                                 "Tell me the capital of Morocco."};
    json_int_t cached[3], n[3];
    for (int i = 0; i < 3; i++) {
        json_t *body = json_pack("{s:[{s:s, s:s}, {s:s, s:s}], s:i}", "messages", "role", "system", "content",
                                 text.data, "role", "user", "content", users[i], "max_tokens", 8);
        char *s = json_dumps(body, 0);
        json_t *j = ask_json(&w, CHAT, s, 200);
        cached[i] = int_at(j, "timings.cached_tokens");
        n[i] = int_at(j, "usage.prompt_tokens");
        json_decref(j);
        json_decref(body);
        free(s);
    }
    assert_int_equal(cached[0], 0);
    if (cached[2] < n[2] - 40)
        fail_msg("the third chat took %d of %d tokens from the cache", (int)cached[2], (int)n[2]);
    buf_free(&text);
    world_close(&w);
}

/* ---- many at once ---- */

static const char *const questions[] = {"What is 82 - 61?",
                                        "Tell me the capital of Morocco.",
                                        "Which month comes after June?",
                                        "Tell me a story.",
                                        "What is 17 + 25?",
                                        "Sort: 5 3 9 1"};
enum { N_QUESTIONS = sizeof questions / sizeof *questions, N_CLIENTS = 24 };

typedef struct asker {
    const world *w;
    int first, n;
    char *const *expected;
    bool is_stream;
    int n_right;
} asker;

static char *content_of(const world *w, const char *question, bool is_stream)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":40,\"stream\":%s}", question,
             is_stream ? "true" : "false");
    reply r = http_post(w->port, CHAT, body);
    if (r.status != 200) fail_msg("status %d: %s", r.status, r.body.data);
    buf text = {0};
    json_t *j = is_stream ? reply_events(&r) : reply_json(&r);
    if (is_stream)
        join_deltas(j, "choices.0.delta.content", &text);
    else
        buf_puts(&text, text_at(j, "choices.0.message.content"));
    json_decref(j);
    reply_free(&r);
    return text.data;
}

static void *ask_all(void *arg)
{
    asker *a = arg;
    for (int i = 0; i < a->n; i++) {
        const int q = (a->first + i) % N_QUESTIONS;
        char *text = content_of(a->w, questions[q], a->is_stream);
        a->n_right += strcmp(text, a->expected[q]) == 0;
        free(text);
    }
    return NULL;
}

static void replies_do_not_depend_on_the_neighbours(void **state)
{
    (void)state;
    server_config c = world_config();
    c.engine.n_parallel = 8;
    world w = world_open(c, 512);
    char *expected[N_QUESTIONS];
    for (int q = 0; q < N_QUESTIONS; q++) expected[q] = content_of(&w, questions[q], false);
    pthread_t threads[N_CLIENTS];
    asker askers[N_CLIENTS];
    for (int i = 0; i < N_CLIENTS; i++) {
        askers[i] = (asker){&w, i, 4, expected, i % 2, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all, &askers[i]), 0);
    }
    int n_right = 0;
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        n_right += askers[i].n_right;
    }
    assert_int_equal(n_right, N_CLIENTS * 4);
    for (int q = 0; q < N_QUESTIONS; q++) free(expected[q]);
    world_close(&w);
}

static int n_running(const world *w)
{
    json_t *j = NULL;
    reply r = http_get(w->port, "/slots");
    j = reply_json(&r);
    int n = 0;
    for (size_t i = 0; i < json_array_size(j); i++) n += strcmp(text_at(json_array_get(j, i), "state"), "idle") != 0;
    json_decref(j);
    reply_free(&r);
    return n;
}

static bool wait_running(const world *w, int n)
{
    for (int i = 0; i < 1000; i++) {
        if (n_running(w) == n) return true;
        usleep(10000);
    }
    return false;
}

#define ENDLESS ",\"ignore_eos\":true,\"max_tokens\":15000,\"stream\":true"

static void a_client_that_goes_ends_its_text(void **state)
{
    (void)state;
    server_config c = world_config();
    c.engine.n_parallel = 2;
    world w = world_open(c, 16384);
    for (int is_stream = 0; is_stream < 2; is_stream++) {
        client k = client_open(w.port);
        client_ask(&k, "POST", CHAT, NULL,
                   chat_body("Tell me a story.", is_stream ? ENDLESS : ",\"ignore_eos\":true,\"max_tokens\":15000"));
        assert_true(wait_running(&w, 1));
        client_close(&k);
        assert_true(wait_running(&w, 0));
    }
    json_t *j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", ""), 200);
    assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
    json_decref(j);
    reply r = http_get(w.port, "/metrics");
    assert_non_null(strstr(r.body.data, "facet_texts_cancelled_total 2\n"));
    assert_non_null(
        strstr(r.body.data, "facet_http_requests_total{route=\"/v1/chat/completions\",status=\"499\"} 1\n"));
    reply_free(&r);
    world_close(&w);
}

static void a_full_queue_refuses(void **state)
{
    (void)state;
    server_config c = world_config();
    c.engine.n_parallel = 1;
    c.engine.n_queue = 2;
    world w = world_open(c, 16384);
    client k[3];
    for (int i = 0; i < 3; i++) {
        k[i] = client_open(w.port);
        client_ask(&k[i], "POST", CHAT, NULL, chat_body("Tell me a story.", ENDLESS));
        reply r = client_read_head(&k[i]);
        assert_int_equal(r.status, 200);
        reply_free(&r);
        assert_true(wait_running(&w, 1));
    }
    reply r = http_post(w.port, CHAT, chat_body("What is 82 - 61?", ""));
    assert_int_equal(r.status, 429);
    assert_non_null(reply_header(&r, "Retry-After"));
    json_t *j = reply_json(&r);
    assert_string_equal(text_at(j, "error.message"), "the queue is full: 1 texts run, 2 wait, 2 may wait");
    assert_string_equal(text_at(j, "error.type"), "rate_limit_error");
    assert_string_equal(text_at(j, "error.code"), "rate_limit_exceeded");
    json_decref(j);
    reply_free(&r);
    /* one that waits goes: the other one's place is not touched, and there is room again */
    client_close(&k[1]);
    client_close(&k[0]);
    client_close(&k[2]);
    assert_true(wait_running(&w, 0));
    j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", ""), 200);
    assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
    json_decref(j);
    world_close(&w);
}

/* A client that does not read stops its own text, not those of others, and is cut at last. */
static void a_slow_reader_stops_alone(void **state)
{
    (void)state;
    server_config c = world_config();
    c.engine.n_parallel = 2;
    c.api.stream_bytes = 4096;
    c.http.stall_timeout_s = 2;
    c.http.send_buffer_bytes = 8192;
    world w = world_open(c, 16384);
    client k = client_open(w.port);
    const int small = 4096;
    setsockopt(k.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    client_ask(&k, "POST", CHAT, NULL, chat_body("Tell me a story.", ENDLESS));
    assert_true(wait_running(&w, 1));
    for (int i = 0; i < 3; i++) {
        json_t *j = ask_json(&w, CHAT, chat_body("What is 82 - 61?", ""), 200);
        assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
        json_decref(j);
    }
    assert_true(wait_running(&w, 0));
    client_close(&k);
    world_close(&w);
}

/* ---- the end ---- */

static void *drain_later(void *arg)
{
    const world *w = arg;
    wait_running(w, 1);
    server_drain(w->server);
    return NULL;
}

static void what_runs_may_end_and_nothing_begins(void **state)
{
    (void)state;
    world w = world_open(world_config(), 2048);
    pthread_t thread;
    client open = client_open(w.port);
    assert_true(client_ask(&open, "GET", "/health", NULL, NULL));
    reply r = client_read(&open);
    reply_free(&r);
    pthread_create(&thread, NULL, drain_later, &w);
    json_t *j = ask_json(&w, CHAT, chat_body("Tell me a story.", ",\"ignore_eos\":true,\"max_tokens\":600"), 200);
    assert_int_equal(int_at(j, "usage.completion_tokens"), 600);
    json_decref(j);
    pthread_join(thread, NULL);
    assert_true(client_ask(&open, "POST", CHAT, NULL, chat_body("What is 82 - 61?", "")));
    r = client_read(&open);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body.data, "the server is shutting down"));
    reply_free(&r);
    client_close(&open);
    world_close(&w);
}

static void what_is_cut_says_so(void **state)
{
    (void)state;
    world w = world_open(world_config(), 16384);
    client k = client_open(w.port), whole = client_open(w.port);
    client_ask(&k, "POST", CHAT, NULL, chat_body("Tell me a story.", ENDLESS));
    client_ask(&whole, "POST", CHAT, NULL, chat_body("Tell me a story.", ",\"ignore_eos\":true,\"max_tokens\":15000"));
    assert_true(wait_running(&w, 2));
    world_close(&w);
    reply r = client_read(&k);
    assert_int_equal(r.status, 200);
    json_t *events = reply_events(&r);
    const json_t *last = json_array_get(events, json_array_size(events) - 1);
    assert_string_equal(text_at(last, "error.message"), "the server is shutting down: the text was cut");
    json_decref(events);
    reply_free(&r);
    r = client_read(&whole);
    assert_int_equal(r.status, 503);
    reply_free(&r);
    client_close(&k);
    client_close(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer),
        cmocka_unit_test(lengths_and_stop_texts),
        cmocka_unit_test(a_stream),
        cmocka_unit_test(several_choices),
        cmocka_unit_test(sampling_settings),
        cmocka_unit_test(a_tool_call_and_its_answer),
        cmocka_unit_test(penalties),
        cmocka_unit_test(lengths_are_clamped),
        cmocka_unit_test(tool_choice),
        cmocka_unit_test(several_calls_in_one_answer),
        cmocka_unit_test(the_next_turn_evaluates_what_is_new),
        cmocka_unit_test(chats_share_a_system_text),
        cmocka_unit_test(replies_do_not_depend_on_the_neighbours),
        cmocka_unit_test(a_client_that_goes_ends_its_text),
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(a_slow_reader_stops_alone),
        cmocka_unit_test(what_runs_may_end_and_nothing_begins),
        cmocka_unit_test(what_is_cut_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The other interfaces: completions, messages, responses, tokens, and what the server tells about itself; thoughts and
 * log-probabilities in all of them. */
#define _GNU_SOURCE
#include "testing.h"

#include <math.h>

#include "server_world.h"

#define QUESTION "What is 82 - 61?"
#define ANSWER "82 - 61 = 21."

static json_t *events_of(const world *w, const char *path, const char *body)
{
    reply r = http_post(w->port, path, body);
    if (r.status != 200) fail_msg("status %d: %s", r.status, r.body.data);
    json_t *events = reply_events(&r);
    reply_free(&r);
    return events;
}

static const json_t *event_named(const json_t *events, const char *name, int nth)
{
    size_t i;
    json_t *e;
    json_array_foreach(events, i, e) if (strcmp(text_at(e, "event_name"), name) == 0 && nth-- == 0) return e;
    fail_msg("no event %s", name);
    return NULL;
}

static int count_events(const json_t *events, const char *name)
{
    size_t i;
    json_t *e;
    int n = 0;
    json_array_foreach(events, i, e) n += strcmp(text_at(e, "event_name"), name) == 0;
    return n;
}

/* ---- completions ---- */

static void completions(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/v1/completions", "{\"prompt\":\"Once upon a time\"}", 200);
    assert_string_equal(text_at(j, "object"), "text_completion");
    assert_int_equal(int_at(j, "usage.completion_tokens"), 16); /* the interface's default */
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "length");
    buf text = {0};
    buf_puts(&text, text_at(j, "choices.0.text"));
    json_decref(j);
    /* the same as ids, as one of several prompts, with the prompt in front, as a stream */
    j = ask_json(&w, "/tokenize", "{\"content\":\"Once upon a time\",\"add_special\":true}", 200);
    char *ids = json_dumps(json_at(j, "tokens"), JSON_COMPACT), body[512];
    json_decref(j);
    snprintf(body, sizeof body, "{\"prompt\":%s}", ids);
    j = ask_json(&w, "/v1/completions", body, 200);
    assert_string_equal(text_at(j, "choices.0.text"), text.data);
    json_decref(j);
    snprintf(body, sizeof body, "{\"prompt\":[\"The capital of\",\"Once upon a time\"],\"n\":2,\"max_tokens\":16}");
    j = ask_json(&w, "/v1/completions", body, 200);
    assert_int_equal(json_array_size(json_at(j, "choices")), 4);
    assert_string_equal(text_at(j, "choices.2.text"), text.data);
    assert_string_equal(text_at(j, "choices.3.text"), text.data);
    assert_int_equal(int_at(j, "choices.3.index"), 3);
    json_decref(j);
    j = ask_json(&w, "/v1/completions", "{\"prompt\":\"Once upon a time\",\"echo\":true,\"max_tokens\":0}", 200);
    assert_string_equal(text_at(j, "choices.0.text"), "Once upon a time");
    json_decref(j);
    json_t *events = events_of(&w, "/v1/completions", "{\"prompt\":\"Once upon a time\",\"stream\":true}");
    buf joined = {0};
    join_deltas(events, "choices.0.text", &joined);
    assert_string_equal(joined.data, text.data);
    json_decref(events);
    /* stop texts */
    snprintf(body, sizeof body, "{\"prompt\":\"Once upon a time\",\"stop\":[\"%.3s\"]}", text.data + 5);
    j = ask_json(&w, "/v1/completions", body, 200);
    assert_int_equal(strlen(text_at(j, "choices.0.text")),
                     strstr(text.data, (char[]){text.data[5], text.data[6], text.data[7], 0}) - text.data);
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "stop");
    json_decref(j);
    free(ids);
    buf_free(&text);
    buf_free(&joined);
    world_close(&w);
}

/* ---- log-probabilities ---- */

static void assert_sane_entry(const json_t *e, int n_top)
{
    const double lp = json_real_value(json_at(e, "logprob"));
    if (!(lp <= 0)) fail_msg("logprob %g of '%s'", lp, text_at(e, "token"));
    assert_int_equal(json_array_size(json_at(e, "top_logprobs")), n_top);
    double before = 0, sum = 0;
    for (int i = 0; i < n_top; i++) {
        char path[64];
        snprintf(path, sizeof path, "top_logprobs.%d.logprob", i);
        const double x = json_real_value(json_at(e, path));
        assert_true(x <= before);
        before = x;
        sum += exp(x);
    }
    assert_true(sum < 1.0001);
    if (n_top) assert_true(lp <= json_real_value(json_at(e, "top_logprobs.0.logprob")));
}

static void logprobs_of_chats(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"logprobs\":true,\"top_logprobs\":5"), 200);
    const json_t *list = json_at(j, "choices.0.logprobs.content");
    buf text = {0};
    size_t i;
    json_t *e;
    assert_string_equal(text_at(j, "choices.0.message.content"), ANSWER);
    assert_true(json_array_size(list) > 5);
    json_array_foreach(list, i, e)
    {
        assert_sane_entry(e, 5);
        buf_puts(&text, text_at(e, "token"));
        assert_string_equal(text_at(e, "token"), text_at(e, "top_logprobs.0.token")); /* greedy */
        assert_true(json_real_value(json_at(e, "logprob")) == json_real_value(json_at(e, "top_logprobs.0.logprob")));
        assert_int_equal(json_array_size(json_at(e, "bytes")), strlen(text_at(e, "token")));
    }
    assert_string_equal(text.data, ANSWER);
    /* as a stream: the same, piece by piece; by chance: the same numbers for the same tokens; with a bias: the model's
     * own, without it */
    json_t *events = events_of(&w, "/v1/chat/completions",
                               chat_body(QUESTION, ",\"logprobs\":true,\"top_logprobs\":5,\"stream\":true"));
    json_t *joined = json_array();
    json_array_foreach(events, i, e) json_array_extend(joined, json_at(e, "choices.0.logprobs.content"));
    assert_int_equal(json_equal(joined, list), 1);
    json_decref(joined);
    json_decref(events);
    json_t *biased = ask_json(&w, "/v1/chat/completions",
                              chat_body(QUESTION, ",\"logprobs\":true,\"max_tokens\":1,\"temperature\":1.3,\"top_k\":1,"
                                                  "\"logit_bias\":{\"300\":5}"),
                              200);
    assert_true(json_real_value(json_at(biased, "choices.0.logprobs.content.0.logprob")) ==
                json_real_value(json_at(list, "0.logprob")));
    assert_int_equal(json_array_size(json_at(biased, "choices.0.logprobs.content.0.top_logprobs")), 0);
    json_decref(biased);
    json_decref(j);
    buf_free(&text);
    j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"top_logprobs\":3"), 400);
    assert_string_equal(text_at(j, "error.message"), "top_logprobs: 3: want logprobs to be true with it");
    json_decref(j);
    world_close(&w);
}

static void logprobs_of_completions(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j =
        ask_json(&w, "/v1/completions", "{\"prompt\":\"Once upon a time\",\"logprobs\":3,\"max_tokens\":8}", 200);
    const json_t *l = json_at(j, "choices.0.logprobs");
    size_t at = 0;
    assert_int_equal(json_array_size(json_at(l, "tokens")), 8);
    for (int i = 0; i < 8; i++) {
        char path[32];
        snprintf(path, sizeof path, "tokens.%d", i);
        const char *token = text_at(l, path);
        snprintf(path, sizeof path, "text_offset.%d", i);
        assert_int_equal(int_at(l, path), at);
        at += strlen(token);
        snprintf(path, sizeof path, "token_logprobs.%d", i);
        const json_t *lp = json_at(l, path);
        snprintf(path, sizeof path, "top_logprobs.%d", i);
        assert_int_equal(json_object_size(json_at(l, path)), 3);
        assert_true(json_real_value(json_object_get(json_at(l, path), token)) == json_real_value(lp));
    }
    assert_int_equal(at, strlen(text_at(j, "choices.0.text")));
    json_decref(j);
    world_close(&w);
}

/* ---- thoughts ---- */

static void thoughts(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    const char *const ways[] = {",\"reasoning_effort\":\"high\"", ",\"reasoning\":{\"effort\":\"low\"}",
                                ",\"chat_template_kwargs\":{\"enable_thinking\":true}", ",\"enable_thinking\":true"};
    for (size_t i = 0; i < 4; i++) {
        json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ways[i]), 200);
        assert_string_equal(text_at(j, "choices.0.message.reasoning_content"), "I compute the result: " ANSWER);
        assert_string_equal(text_at(j, "choices.0.message.content"), ANSWER);
        assert_true(int_at(j, "usage.completion_tokens_details.reasoning_tokens") > 10);
        json_decref(j);
    }
    json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"reasoning_effort\":\"none\""), 200);
    assert_null(json_at(j, "choices.0.message.reasoning_content"));
    json_decref(j);
    json_t *events =
        events_of(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"enable_thinking\":true,\"stream\":true"));
    buf thought = {0}, content = {0};
    join_deltas(events, "choices.0.delta.reasoning_content", &thought);
    join_deltas(events, "choices.0.delta.content", &content);
    assert_string_equal(thought.data, "I compute the result: " ANSWER);
    assert_string_equal(content.data, ANSWER);
    buf_free(&thought);
    buf_free(&content);
    json_decref(events);
    world_close(&w);
}

/* A thought is ended where its budget is: what was thought is what it would have been, and an answer follows. */
static void a_thought_has_a_budget(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/v1/chat/completions",
                         chat_body(QUESTION, ",\"enable_thinking\":true,\"thinking_budget\":8"), 200);
    const char *thought = text_at(j, "choices.0.message.reasoning_content");
    assert_true(strlen(thought) > 3 && strlen(thought) < 30);
    assert_memory_equal(thought, "I compute the result", strlen(thought) < 20 ? strlen(thought) : 20);
    assert_true(strlen(text_at(j, "choices.0.message.content")) > 5);
    assert_true(int_at(j, "usage.completion_tokens_details.reasoning_tokens") <= 11); /* and what ends it */
    assert_string_equal(text_at(j, "choices.0.finish_reason"), "stop");
    assert_true(json_is_true(json_at(j, "timings.thought_was_cut")));
    json_decref(j);
    /* what is left of max_tokens is kept for the answer */
    j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"enable_thinking\":true,\"max_tokens\":24"), 200);
    assert_true(strlen(text_at(j, "choices.0.message.content")) > 5);
    assert_int_equal(int_at(j, "usage.completion_tokens_details.reasoning_tokens") <= 15, 1);
    json_decref(j);
    world_close(&w);
}

/* ---- formats ---- */

#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"enum\":[\"x\",\"y\"]}},\"required\":"  \
    "[\"a\",\"b\"],\"additionalProperties\":false}"

static void assert_fits(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    const char *b = text_at(j, "b");
    if (!j || json_object_size(j) != 2 || !json_is_integer(json_at(j, "a")) || (strcmp(b, "x") && strcmp(b, "y")))
        fail_msg("does not fit: %s", text);
    json_decref(j);
}

static void formats(void **state)
{
    static const char *const chats[] = {
        ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\",\"schema\":" SCHEMA "}}",
        ",\"json_schema\":" SCHEMA,
        ",\"json_schema\":" SCHEMA ",\"enable_thinking\":true",
        ",\"json_schema\":" SCHEMA ",\"enable_thinking\":true,\"thinking_budget\":6",
        ",\"json_schema\":" SCHEMA ",\"speculation\":\"ngram\"",
        ",\"json_schema\":" SCHEMA ",\"temperature\":1.5,\"seed\":3",
    };
    (void)state;
    world w = world_open(world_config(), 1024);
    for (size_t i = 0; i < sizeof chats / sizeof *chats; i++) {
        json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, chats[i]), 200);
        assert_fits(text_at(j, "choices.0.message.content"));
        assert_string_equal(text_at(j, "choices.0.finish_reason"), "stop");
        if (i == 2) assert_true(int_at(j, "timings.thought_tokens") < 30); /* one thought */
        if (strstr(chats[i], "thinking"))
            assert_memory_equal(text_at(j, "choices.0.message.reasoning_content"), "I", 1);
        json_decref(j);
    }
    json_t *events =
        events_of(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"n\":2,\"stream\":true,\"json_schema\":" SCHEMA));
    size_t i;
    json_t *e;
    buf text[2] = {{0}};
    json_array_foreach(events, i, e) if (json_string_value(json_at(e, "choices.0.delta.content")))
        buf_puts(&text[int_at(e, "choices.0.index")], text_at(e, "choices.0.delta.content"));
    for (int k = 0; k < 2; k++) {
        assert_fits(text[k].data);
        buf_free(&text[k]);
    }
    json_decref(events);
    json_t *j =
        ask_json(&w, "/v1/chat/completions",
                 chat_body(QUESTION, ",\"max_tokens\":400,\"response_format\":{\"type\":\"json_object\"}"), 200);
    assert_memory_equal(text_at(j, "choices.0.message.content"), "{", 1);
    json_decref(j);
    j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"grammar\":\"root ::= \\\"yes\\\" | \\\"no\\\"\""),
                 200);
    assert_true(!strcmp(text_at(j, "choices.0.message.content"), "yes") ||
                !strcmp(text_at(j, "choices.0.message.content"), "no"));
    json_decref(j);
    j = ask_json(&w, "/v1/completions", "{\"prompt\":\"The answer: \",\"grammar\":\"root ::= [0-9]{3} \\\"!\\\"\"}",
                 200);
    assert_int_equal(strlen(text_at(j, "choices.0.text")), 4);
    assert_int_equal(text_at(j, "choices.0.text")[3], '!');
    json_decref(j);
    j = ask_json(&w, "/v1/responses",
                 "{\"input\":\"" QUESTION
                 "\",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"s\",\"schema\":" SCHEMA "}}}",
                 200);
    assert_fits(text_at(j, "output.0.content.0.text"));
    assert_string_equal(text_at(j, "text.format.type"), "json_schema");
    json_decref(j);
    j = ask_json(&w, "/v1/messages",
                 "{\"max_tokens\":64,\"messages\":[{\"role\":\"user\",\"content\":\"" QUESTION
                 "\"}],\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":" SCHEMA "}}}",
                 200);
    assert_fits(text_at(j, "content.0.text"));
    json_decref(j);
    world_close(&w);
}

/* Drafts of every kind under schemas and grammars: the text is that without drafts, greedy and drawn, with a thought
 * before it and without, and drafts were taken. */
static void formats_with_drafts(void **state)
{
    static const char *const methods[] = {"mtp", "dflash", "ngram", "auto"};
    static const char *const wishes[] = {
        ",\"json_schema\":" SCHEMA,
        ",\"json_schema\":" SCHEMA ",\"temperature\":1.2,\"seed\":7",
        ",\"json_schema\":" SCHEMA ",\"enable_thinking\":true",
        ",\"response_format\":{\"type\":\"json_object\"},\"max_tokens\":60",
        ",\"grammar\":\"root ::= (\\\"one, \\\" | \\\"two, \\\"){12} \\\"end\\\"\"",
    };
    (void)state;
    server_config c = world_config();
    c.api.speculation.adapt = FACET_ADAPT_OFF; /* whether they pay or not */
    world w = world_open_with(c, 1024, true);
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        json_int_t accepted = 0;
        json_t *plain = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, wishes[i]), 200);
        assert_int_equal(int_at(plain, "speculation.drafted"), 0);
        for (size_t k = 0; k < sizeof methods / sizeof *methods; k++) {
            char rest[1024];
            snprintf(rest, sizeof rest, "%s,\"speculation\":\"%s\"", wishes[i], methods[k]);
            json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, rest), 200);
            if (!json_equal(json_at(j, "choices.0.message"), json_at(plain, "choices.0.message")))
                fail_msg("%s: '%s', without drafts '%s'", rest, text_at(j, "choices.0.message.content"),
                         text_at(plain, "choices.0.message.content"));
            assert_string_equal(text_at(j, "choices.0.finish_reason"), text_at(plain, "choices.0.finish_reason"));
            accepted += int_at(j, "speculation.accepted");
            json_decref(j);
        }
        if (accepted == 0) fail_msg("%s: no draft was ever accepted", wishes[i]);
        json_decref(plain);
    }
    world_close(&w);
}

/* A call instead of the content stays possible; one that is demanded is not held to the format. */
static void formats_and_tools(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    const char *const tool =
        ",\"json_schema\":" SCHEMA
        ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":"
        "\"Get the current weather for a "
        "city.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":"
        "\"string\",\"description\":\"City name\"}},\"required\":[\"city\"]}}}]%s";
    const char *const choices[] = {"", ",\"tool_choice\":\"required\""};
    for (int i = 0; i < 2; i++) {
        char rest[1024];
        snprintf(rest, sizeof rest, tool, choices[i]);
        json_t *j = ask_json(&w, "/v1/chat/completions", chat_body("What is the weather in Rome?", rest), 200);
        assert_string_equal(text_at(j, "choices.0.message.tool_calls.0.function.arguments"), "{\"city\":\"Rome\"}");
        json_decref(j);
    }
    char rest[1024];
    snprintf(rest, sizeof rest, tool, ",\"tool_choice\":\"none\"");
    json_t *j = ask_json(&w, "/v1/chat/completions", chat_body("What is the weather in Rome?", rest), 200);
    assert_fits(text_at(j, "choices.0.message.content"));
    json_decref(j);
    world_close(&w);
}

static void refused_formats(void **state)
{
    static const struct {
        const char *rest, *message;
    } table[] = {
        {",\"response_format\":{\"type\":\"xml\"}",
         "response_format.type: 'xml' (a string): want text, json_object or json_schema"},
        {",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}",
         "response_format.json_schema.schema: nothing: want a JSON schema"},
        {",\"response_format\":7", "response_format: 7: want an object"},
        {",\"grammar\":7", "grammar: 7: want a string of GBNF"},
    };
    (void)state;
    world w = world_open(world_config(), 1024);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, table[i].rest), 400);
        assert_string_equal(text_at(j, "error.message"), table[i].message);
        json_decref(j);
    }
    json_t *j = ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ",\"grammar\":\"root ::= x\""), 400);
    assert_memory_equal(text_at(j, "error.message"), "grammar: ", 9);
    json_decref(j);
    j = ask_json(&w, "/v1/chat/completions",
                 chat_body(QUESTION, ",\"json_schema\":{\"properties\":{\"p\":{\"$ref\":\"https://x.example\"}}}"),
                 400);
    assert_memory_equal(text_at(j, "error.message"), "json_schema: ", 13);
    assert_non_null(strstr(text_at(j, "error.message"), "/properties/p"));
    json_decref(j);
    world_close(&w);
}

/* The same schema is compiled once; many different ones leave nothing behind. */
static void grammars_are_kept(void **state)
{
    (void)state;
    facet_model *m;
    facet_error err;
    grammar_cache c;
    grammar_entry *a, *b, *list[GRAMMARS_KEPT + 4];
    assert_ok(facet_model_open(WORLD_MODEL, &m, &err), err);
    grammars_open(&c);
    assert_ok(grammars_get(&c, m, GRAMMAR_SCHEMA, SCHEMA, strlen(SCHEMA), &a, &err), err);
    assert_ok(grammars_get(&c, m, GRAMMAR_SCHEMA, SCHEMA, strlen(SCHEMA), &b, &err), err);
    assert_ptr_equal(a, b);
    assert_ok(grammars_get(&c, m, GRAMMAR_OBJECT, NULL, 0, &b, &err), err);
    assert_ptr_not_equal(a, b);
    for (int i = 0; i < GRAMMARS_KEPT + 4; i++) {
        char text[64];
        snprintf(text, sizeof text, "root ::= \"%d\"", i);
        assert_ok(grammars_get(&c, m, GRAMMAR_GBNF, text, strlen(text), &list[i], &err), err);
    }
    for (int i = 0; i < GRAMMARS_KEPT + 4; i++) grammars_give_back(&c, list[i]);
    grammars_give_back(&c, a);
    grammars_give_back(&c, a);
    grammars_give_back(&c, b);
    assert_ok(grammars_get(&c, m, GRAMMAR_SCHEMA, SCHEMA, strlen(SCHEMA), &b, &err), err);
    assert_ptr_equal(a, b);
    grammars_give_back(&c, b);
    grammars_give_back(&c, NULL);
    grammars_close(&c);
    facet_model_close(m);
}

/* ---- messages ---- */

#define MESSAGE(rest) "{\"max_tokens\":64,\"messages\":[{\"role\":\"user\",\"content\":\"" QUESTION "\"}]" rest "}"

static void messages(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/v1/messages", MESSAGE(""), 200);
    assert_string_equal(text_at(j, "type"), "message");
    assert_string_equal(text_at(j, "role"), "assistant");
    assert_string_equal(text_at(j, "content.0.type"), "text");
    assert_string_equal(text_at(j, "content.0.text"), ANSWER);
    assert_string_equal(text_at(j, "stop_reason"), "end_turn");
    const json_int_t n = int_at(j, "usage.input_tokens");
    json_decref(j);
    j = ask_json(&w, "/v1/messages/count_tokens", "{\"messages\":[{\"role\":\"user\",\"content\":\"" QUESTION "\"}]}",
                 200);
    assert_int_equal(int_at(j, "input_tokens"), n);
    json_decref(j);
    j = ask_json(&w, "/v1/messages", MESSAGE(",\"stop_sequences\":[\"x\",\" = \"]"), 200);
    assert_string_equal(text_at(j, "content.0.text"), "82 - 61");
    assert_string_equal(text_at(j, "stop_reason"), "stop_sequence");
    assert_string_equal(text_at(j, "stop_sequence"), " = ");
    assert_int_equal(int_at(j, "usage.input_tokens") + int_at(j, "usage.cache_read_input_tokens"), n);
    json_decref(j);
    j = ask_json(&w, "/v1/messages", MESSAGE(",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}"), 200);
    assert_string_equal(text_at(j, "content.0.type"), "thinking");
    assert_string_equal(text_at(j, "content.0.thinking"), "I compute the result: " ANSWER);
    assert_string_equal(text_at(j, "content.1.text"), ANSWER);
    json_decref(j);
    /* the beginning of the answer is given, and not repeated */
    j = ask_json(&w, "/v1/messages",
                 "{\"max_tokens\":64,\"messages\":[{\"role\":\"user\",\"content\":\"" QUESTION
                 "\"},{\"role\":\"assistant\",\"content\":\"82 - 61\"}]}",
                 200);
    assert_string_equal(text_at(j, "content.0.text"), " = 21.");
    json_decref(j);
    world_close(&w);
}

static void a_stream_of_messages(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *events = events_of(&w, "/v1/messages",
                               MESSAGE(",\"stream\":true,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}"));
    const size_t n = json_array_size(events);
    buf text = {0}, thought = {0};
    join_deltas(events, "delta.text", &text);
    join_deltas(events, "delta.thinking", &thought);
    assert_string_equal(text.data, ANSWER);
    assert_string_equal(thought.data, "I compute the result: " ANSWER);
    assert_string_equal(text_at(events, "0.event_name"), "message_start");
    assert_string_equal(text_at(events, "0.message.role"), "assistant");
    assert_string_equal(text_at(json_array_get(events, n - 1), "event_name"), "message_stop");
    assert_string_equal(text_at(json_array_get(events, n - 2), "delta.stop_reason"), "end_turn");
    assert_true(int_at(json_array_get(events, n - 2), "usage.output_tokens") > 20);
    assert_int_equal(count_events(events, "content_block_start"), 2);
    assert_int_equal(count_events(events, "content_block_stop"), 2);
    assert_string_equal(text_at(event_named(events, "content_block_start", 1), "content_block.type"), "text");
    assert_int_equal(int_at(event_named(events, "content_block_start", 1), "index"), 1);
    buf_free(&text);
    buf_free(&thought);
    json_decref(events);
    world_close(&w);
}

#define A_TOOL                                                                                                         \
    ",\"tools\":[{\"name\":\"get_weather\",\"description\":\"Get the current weather for a city.\","                   \
    "\"input_schema\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":"             \
    "\"City name\"}},\"required\":[\"city\"]}}]"
#define WEATHER "{\"role\":\"user\",\"content\":\"What is the weather in Rome?\"}"

static void tools_of_messages(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/v1/messages", "{\"max_tokens\":64,\"messages\":[" WEATHER "]" A_TOOL "}", 200);
    assert_string_equal(text_at(j, "stop_reason"), "tool_use");
    assert_string_equal(text_at(j, "content.0.type"), "tool_use");
    assert_string_equal(text_at(j, "content.0.name"), "get_weather");
    assert_string_equal(text_at(j, "content.0.input.city"), "Rome");
    assert_memory_equal(text_at(j, "content.0.id"), "toolu_", 6);
    json_t *body = json_loads("{\"max_tokens\":64,\"messages\":[" WEATHER "]" A_TOOL "}", 0, NULL);
    json_t *list = json_object_get(body, "messages");
    json_array_append_new(list, json_pack("{s:s, s:O}", "role", "assistant", "content", json_at(j, "content")));
    json_array_append_new(list, json_pack("{s:s, s:[{s:s, s:O, s:[{s:s, s:s}]}]}", "role", "user", "content", "type",
                                          "tool_result", "tool_use_id", json_at(j, "content.0.id"), "content", "type",
                                          "text", "text", "{\"temperature\": 3, \"condition\": \"foggy\"}"));
    char *text = json_dumps(body, 0);
    json_t *answer = ask_json(&w, "/v1/messages", text, 200);
    assert_string_equal(text_at(answer, "content.0.text"), "The weather in Rome is foggy with 3 degrees.");
    json_decref(answer);
    json_decref(body);
    json_decref(j);
    free(text);
    json_t *events = events_of(
        &w, "/v1/messages",
        "{\"max_tokens\":64,\"stream\":true,\"tool_choice\":{\"type\":\"any\"},\"messages\":[" WEATHER "]" A_TOOL "}");
    assert_string_equal(text_at(event_named(events, "content_block_start", 0), "content_block.type"), "tool_use");
    assert_string_equal(text_at(event_named(events, "content_block_delta", 0), "delta.partial_json"),
                        "{\"city\":\"Rome\"}");
    json_decref(events);
    world_close(&w);
}

static void refused_messages(void **state)
{
    static const struct {
        const char *body, *message;
    } table[] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "max_tokens: nothing: want a whole number"},
        {"{\"max_tokens\":5}", "messages: nothing: want an array with at least one message"},
        {"{\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":\"x\"}]}",
         "messages[0].role: 'system' (a string): want user or assistant"},
        {"{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         "messages[0].content[0]: a block of type 'image': this server does not take it here"},
        {"{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":\"web_search\","
         "\"name\":\"w\"}]}",
         "tools[0].type: 'web_search' (a string): want 'custom': this server has no tools of its own"},
        {"{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"thinking\":{\"type\":\"maybe\"}}",
         "thinking.type: 'maybe' (a string): want enabled, adaptive or disabled"},
        {"{\"max_tokens\":5000,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "This model's maximum context length is 1024 tokens. However, you requested 5014 tokens (14 in the messages, "
         "5000 in the completion). Please reduce the length of the messages or completion."},
    };
    (void)state;
    world w = world_open(world_config(), 1024);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *j = ask_json(&w, "/v1/messages", table[i].body, 400);
        assert_string_equal(text_at(j, "type"), "error");
        assert_string_equal(text_at(j, "error.type"), "invalid_request_error");
        assert_string_equal(text_at(j, "error.message"), table[i].message);
        json_decref(j);
    }
    json_t *j = ask_json(&w, "/v1/messages", "nonsense", 400);
    assert_string_equal(text_at(j, "type"), "error");
    json_decref(j);
    world_close(&w);
}

/* ---- responses ---- */

static void responses(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    json_t *j = ask_json(&w, "/v1/responses", "{\"input\":\"" QUESTION "\"}", 200);
    assert_string_equal(text_at(j, "object"), "response");
    assert_string_equal(text_at(j, "status"), "completed");
    assert_string_equal(text_at(j, "output.0.type"), "message");
    assert_string_equal(text_at(j, "output.0.content.0.type"), "output_text");
    assert_string_equal(text_at(j, "output.0.content.0.text"), ANSWER);
    assert_int_equal(int_at(j, "usage.total_tokens"),
                     int_at(j, "usage.input_tokens") + int_at(j, "usage.output_tokens"));
    json_decref(j);
    j = ask_json(&w, "/v1/responses",
                 "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"" QUESTION
                 "\"}]}],\"max_output_tokens\":14,\"reasoning\":{\"effort\":\"low\"}}",
                 200);
    assert_string_equal(text_at(j, "status"), "incomplete");
    assert_string_equal(text_at(j, "incomplete_details.reason"), "max_output_tokens");
    assert_string_equal(text_at(j, "output.0.type"), "reasoning");
    json_decref(j);
    json_t *events = events_of(&w, "/v1/responses",
                               "{\"input\":\"" QUESTION "\",\"stream\":true,\"reasoning\":{\"effort\":\"low\"}}");
    size_t i;
    json_t *e;
    buf text = {0}, thought = {0};
    json_array_foreach(events, i, e)
    {
        assert_int_equal(int_at(e, "sequence_number"), i);
        assert_string_equal(text_at(e, "type"), text_at(e, "event_name"));
        if (strcmp(text_at(e, "type"), "response.output_text.delta") == 0) buf_puts(&text, text_at(e, "delta"));
        if (strcmp(text_at(e, "type"), "response.reasoning_text.delta") == 0) buf_puts(&thought, text_at(e, "delta"));
    }
    assert_string_equal(text.data, ANSWER);
    assert_string_equal(thought.data, "I compute the result: " ANSWER);
    assert_string_equal(text_at(events, "0.type"), "response.created");
    const json_t *last = event_named(events, "response.completed", 0);
    assert_ptr_equal(last, json_array_get(events, json_array_size(events) - 1));
    assert_string_equal(text_at(last, "response.output.0.type"), "reasoning");
    assert_string_equal(text_at(last, "response.output.1.content.0.text"), ANSWER);
    assert_string_equal(text_at(last, "response.output.1.id"),
                        text_at(event_named(events, "response.output_item.done", 1), "item.id"));
    buf_free(&text);
    buf_free(&thought);
    json_decref(events);
    world_close(&w);
}

static void tools_of_responses(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
#define FLAT_TOOL                                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"name\":\"get_weather\",\"description\":\"Get the current weather for a "     \
    "city.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":"       \
    "\"City name\"}},\"required\":[\"city\"]}}]"
    json_t *j = ask_json(&w, "/v1/responses", "{\"input\":[" WEATHER "]" FLAT_TOOL "}", 200);
    assert_string_equal(text_at(j, "output.0.type"), "function_call");
    assert_string_equal(text_at(j, "output.0.name"), "get_weather");
    assert_string_equal(text_at(j, "output.0.arguments"), "{\"city\":\"Rome\"}");
    json_t *body = json_loads("{\"input\":[" WEATHER "]" FLAT_TOOL "}", 0, NULL);
    json_array_append(json_object_get(body, "input"), json_at(j, "output.0"));
    json_array_append_new(json_object_get(body, "input"), json_pack("{s:s, s:O, s:s}", "type", "function_call_output",
                                                                    "call_id", json_at(j, "output.0.call_id"), "output",
                                                                    "{\"temperature\": 3, \"condition\": \"foggy\"}"));
    char *text = json_dumps(body, 0);
    json_t *answer = ask_json(&w, "/v1/responses", text, 200);
    assert_string_equal(text_at(answer, "output.0.content.0.text"), "The weather in Rome is foggy with 3 degrees.");
    json_decref(answer);
    json_decref(body);
    json_decref(j);
    free(text);
    j = ask_json(&w, "/v1/responses", "{\"input\":\"x\",\"previous_response_id\":\"resp_1\"}", 400);
    assert_string_equal(text_at(j, "error.message"),
                        "previous_response_id: this server stores no responses: want all items in input");
    json_decref(j);
    world_close(&w);
}

/* ---- the server about itself ---- */

static void tokens(void **state)
{
    (void)state;
    world w = world_open(world_config(), 256);
    json_t *j =
        ask_json(&w, "/tokenize", "{\"content\":\"w\xc3\xb6r\",\"with_pieces\":true,\"add_special\":true}", 200);
    const size_t n = json_array_size(json_at(j, "tokens"));
    assert_string_equal(text_at(j, "tokens.0.piece"), "<bos>");
    assert_string_equal(text_at(j, "tokens.1.piece"), "w");
    assert_int_equal(int_at(j, "tokens.2.piece.0"), 0xc3); /* the small vocabulary has no such character */
    assert_int_equal(int_at(j, "tokens.3.piece.0"), 0xb6);
    json_t *ids = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append(ids, json_object_get(json_array_get(json_at(j, "tokens"), i), "id"));
    json_t *body = json_pack("{s:o}", "tokens", ids);
    char *text = json_dumps(body, 0);
    json_t *back = ask_json(&w, "/detokenize", text, 200);
    assert_string_equal(text_at(back, "content"), "<bos>w\xc3\xb6r");
    json_decref(back);
    json_decref(body);
    json_decref(j);
    free(text);
    /* markers in text that is not trusted */
    j = ask_json(&w, "/tokenize", "{\"content\":\"<bos>\",\"parse_special\":false}", 200);
    assert_true(json_array_size(json_at(j, "tokens")) > 1);
    json_decref(j);
    world_close(&w);
}

static void about_itself(void **state)
{
    (void)state;
    world w = world_open(world_config(), 256);
    reply r = http_get(w.port, "/health");
    assert_string_equal(r.body.data, "{\"status\":\"ok\"}");
    reply_free(&r);
    r = http_ask_with(w.port, "HEAD", "/health", NULL, NULL);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    r = http_get(w.port, "/v1/models");
    json_t *j = reply_json(&r);
    assert_string_equal(text_at(j, "data.0.id"), "small");
    assert_int_equal(int_at(j, "data.0.context_length"), 256);
    json_decref(j);
    reply_free(&r);
    r = http_get(w.port, "/props");
    j = reply_json(&r);
    assert_int_equal(int_at(j, "n_ctx"), 256);
    assert_int_equal(int_at(j, "n_parallel"), 4);
    json_decref(j);
    reply_free(&r);
    json_decref(ask_json(&w, "/v1/chat/completions", chat_body(QUESTION, ""), 200));
    r = http_get(w.port, "/metrics");
    assert_non_null(strstr(reply_header(&r, "Content-Type"), "text/plain; version=0.0.4"));
    assert_non_null(strstr(r.body.data, "facet_texts_total 1\n"));
    assert_non_null(strstr(r.body.data, "facet_generated_tokens_total 11\n"));
    assert_non_null(strstr(r.body.data, "facet_first_token_seconds_count 1\n"));
    assert_non_null(strstr(r.body.data, "facet_http_requests_total{route=\"/health\",status=\"200\"} 2\n"));
    reply_free(&r);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completions),
        cmocka_unit_test(logprobs_of_chats),
        cmocka_unit_test(logprobs_of_completions),
        cmocka_unit_test(thoughts),
        cmocka_unit_test(a_thought_has_a_budget),
        cmocka_unit_test(formats),
        cmocka_unit_test(formats_with_drafts),
        cmocka_unit_test(formats_and_tools),
        cmocka_unit_test(refused_formats),
        cmocka_unit_test(grammars_are_kept),
        cmocka_unit_test(messages),
        cmocka_unit_test(a_stream_of_messages),
        cmocka_unit_test(tools_of_messages),
        cmocka_unit_test(refused_messages),
        cmocka_unit_test(responses),
        cmocka_unit_test(tools_of_responses),
        cmocka_unit_test(tokens),
        cmocka_unit_test(about_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

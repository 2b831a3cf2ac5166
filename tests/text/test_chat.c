#include "testing.h"

#include "text/chat.h"
#include "text_testing.h"

static const chat_format july = {.generation = CHAT_JULY, .is_large = true, .has_template = true};
static const chat_format may = {.generation = CHAT_MAY, .is_large = true, .has_template = true};
static const chat_format april = {.generation = CHAT_APRIL, .is_large = true, .has_template = true};
static const chat_options prompt = {.add_generation_prompt = true};

static void matches_the_goldens(void **state)
{
    (void)state;
    static const char *const keys[] = {"may_large", "may_small", "july_large", "july_small"};
    FILE *f = fopen(test_data("chat_gemma4.jsonl"), "r");
    assert_non_null(f);
    facet_error err;
    int n = 0;
    for (json_t *line; (line = next_json_line(f)); n++, json_decref(line))
        for (int i = 0; i < 4; i++) {
            buf out = {0};
            chat_options o = {.enable_thinking = json_is_true(json_object_get(line, "enable_thinking")),
                              .add_generation_prompt = json_is_true(json_object_get(line, "add_generation_prompt"))};
            chat_format format = {.generation = i < 2 ? CHAT_MAY : CHAT_JULY, .is_large = i % 2 == 0};
            assert_ok(
                chat_render(json_object_get(line, "messages"), json_object_get(line, "tools"), format, o, &out, &err),
                err);
            const char *want = json_string_value(json_object_get(line, keys[i]));
            if (strcmp(out.data, want) != 0)
                fail_msg("%s, %s:\n%s\n%s", json_string_value(json_object_get(line, "name")), keys[i], out.data, want);
            buf_free(&out);
        }
    assert_int_equal(n, 30);
    fclose(f);
}

static json_t *parse(const char *s)
{
    json_error_t why;
    json_t *v = json_loads(s, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!v) fail_msg("%s: %s", s, why.text);
    return v;
}

static void expect_tools(const char *messages, const char *tools, chat_format format, chat_options o, const char *want)
{
    facet_error err;
    buf out = {0};
    json_t *m = parse(messages), *t = tools ? parse(tools) : NULL;
    assert_ok(chat_render(m, t, format, o, &out, &err), err);
    if (!strstr(out.data, want)) fail_msg("%s\nlacks %s", out.data, want);
    json_decref(m);
    json_decref(t);
    buf_free(&out);
}

static void expect(const char *messages, chat_format format, chat_options o, const char *want)
{
    facet_error err;
    buf out = {0};
    json_t *m = parse(messages);
    assert_ok(chat_render(m, NULL, format, o, &out, &err), err);
    assert_string_equal(out.data, want);
    json_decref(m);
    buf_free(&out);
}

#define CALL "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":%s}}]%s}"
#define USER "{\"role\":\"user\",\"content\":\"q\"}"
#define PROMPT "<bos><|turn>user\nq<turn|>\n<|turn>model\n"

static void writes_values(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *want;
    } rows[] = {
        {"{}", "call:f{}"},
        {"null", "call:f{}"},
        {"\"\"", "call:f{}"},
        {"\"{\\\"b\\\":1}\"", "call:f{b:1}"},
        {"{\"b\":1,\"A\":2,\"a\":3}", "call:f{A:2,a:3,b:1}"},
        {"{\"x\":[1.5,-0.25,1.0,1e22,1e-7,0.0001,123456789.125,1e15,1e16,0.1]}",
         "call:f{x:[1.5,-0.25,1.0,1e+22,1e-07,0.0001,123456789.125,1000000000000000.0,1e+16,0.1]}"},
        {"{\"x\":9007199254740993,\"y\":-7}", "call:f{x:9007199254740993,y:-7}"},
        {"{\"x\":null,\"y\":[true,false]}", "call:f{x:null,y:[true,false]}"},
        {"{\"x\":\"a<|\\\"|>b\"}", "call:f{x:<|\"|>a\"b<|\"|>}"},
        {"{\"x\":{\"B\":{},\"a\":[]}}", "call:f{x:{a:[],B:{}}}"},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        char messages[512];
        snprintf(messages, sizeof messages, "[" USER "," CALL "]", rows[i].arguments, "");
        expect_tools(messages, NULL, july, prompt, rows[i].want);
    }
    expect_tools(
        "[" USER
        ",{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":null}}}]}]",
        NULL, may, prompt, "call:f{x:None}");
}

static void generations_differ(void **state)
{
    (void)state;
    chat_options thinking = {.enable_thinking = true, .add_generation_prompt = true};
    expect("[" USER "]", april, thinking,
           "<bos><|turn>system\n<|think|><turn|>\n<|turn>user\nq<turn|>\n<|turn>model\n");
    expect("[" USER "]", may, thinking,
           "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nq<turn|>\n<|turn>model\n");
    char pending[512], answered[512];
    snprintf(pending, sizeof pending, "[" USER "," CALL "]", "{}", "");
    snprintf(answered, sizeof answered, "[" USER "," CALL ",%s]", "{}", "",
             "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"{\\\"b\\\":1,\\\"a\\\":2}\"}");
    expect(pending, july, prompt, PROMPT "<|tool_call>call:f{}<tool_call|><|tool_response>");
    expect(pending, april, prompt,
           PROMPT "<|tool_call>call:f{}<tool_call|><turn|>\n<|turn>model\n<|channel>thought\n<channel|>");
    expect(answered, may, prompt,
           PROMPT "<|tool_call>call:f{}<tool_call|><|tool_response>response:f{value:<|\"|>{\"b\":1,\"a\":2}<|\"|>}<"
                  "tool_response|>");
    expect(answered, april, prompt,
           PROMPT "<|tool_call>call:f{}<tool_call|><|tool_response>response:f{a:2,b:1}<tool_response|><|channel>"
                  "thought\n<channel|>");
    expect(
        "[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\" a \"},{\"type\":\"text\",\"text\":\"b\"}]}]",
        july, (chat_options){0}, "<bos><|turn>system\na b <turn|>\n");
    expect("[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]", april, (chat_options){0},
           "<bos><|turn>user\n\n\n<|image|>\n\n<turn|>\n");
}

static void keeps_the_reasoning_asked_for(void **state)
{
    (void)state;
    char early[600];
    snprintf(early, sizeof early, "[" USER "," CALL ",{\"role\":\"tool\",\"content\":\"r\"}," USER "]", "{}",
             ",\"reasoning\":\"why\"");
    chat_options keep = {.preserve_thinking = true};
    expect(early, july, (chat_options){0},
           PROMPT "<|tool_call>call:f{}<tool_call|><|tool_response>response:unknown{value:<|\"|>r<|\"|>}<tool_response|"
                  "><turn|>\n<|turn>user\nq<turn|>\n");
    expect(early, july, keep,
           PROMPT "<|channel>thought\nwhy\n<channel|><|tool_call>call:f{}<tool_call|><|tool_response>response:unknown{"
                  "value:<|\"|>r<|\"|>}<tool_response|><turn|>\n<|turn>user\nq<turn|>\n");
    static const char late[] = "[" USER ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"why\"}]";
    expect(late, july, (chat_options){0}, PROMPT "<|channel>thought\nwhy\n<channel|>a<turn|>\n");
    expect(late, may, (chat_options){0}, PROMPT "a<turn|>\n");
}

static void reopens_the_turn_on_request(void **state)
{
    (void)state;
    char m[600];
    snprintf(m, sizeof m, "[" USER "," CALL ",{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"r\"}]", "{}",
             ",\"content\":\"t\"");
    chat_options reopen = {.add_generation_prompt = true, .reopen_turn = true};
    expect_tools(m, NULL, july, reopen, "t<turn|>\n<|turn>model\n");
    expect_tools(m, NULL, may, reopen, "t<turn|>\n<|turn>model\n");
}

static void strips_thoughts_from_history(void **state)
{
    (void)state;
    expect("[{\"role\":\"assistant\",\"content\":\" x <|channel>thought\\na<channel|> y <|channel>open\"}]", july,
           (chat_options){0}, "<bos><|turn>model\nx  y<turn|>\n");
}

static void writes_declarations(void **state)
{
    (void)state;
    static const struct {
        const char *function, *want;
    } rows[] = {
        {"{\"name\":\"f\"}", "<|tool>declaration:f{description:<|\"|><|\"|>}<tool|>"},
        {"{\"name\":\"f\",\"parameters\":{\"properties\":{\"type\":{\"type\":\"string\"}}}}",
         "{description:<|\"|><|\"|>,parameters:{properties:{},type:<|\"|>OBJECT<|\"|>}}"},
        {"{\"name\":\"f\",\"parameters\":{\"properties\":{\"o\":{\"type\":\"object\",\"k\":{\"type\":\"integer\","
         "\"default\":3}}}}}",
         "properties:{o:{properties:{k:{type:<|\"|>INTEGER<|\"|>}},type:<|\"|>OBJECT<|\"|>}}"},
        {"{\"name\":\"f\",\"parameters\":{\"properties\":{\"o\":{\"type\":[\"null\",\"string\"],\"enum\":[\"x\"]}}}}",
         "o:{enum:[<|\"|>x<|\"|>],type:<|\"|>STRING<|\"|>}"},
        {"{\"name\":\"f\",\"parameters\":{\"properties\":{\"l\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
         "\"x\":{\"B\":1,\"a\":null},\"d\":null}}}}}",
         "l:{items:{type:<|\"|>OBJECT<|\"|>,x:{<|\"|>a<|\"|>:null,<|\"|>B<|\"|>:1}},type:<|\"|>ARRAY<|\"|>}"},
        {"{\"name\":\"f\",\"response\":{\"description\":\"r\",\"type\":\"object\"}}",
         ",response:{description:<|\"|>r<|\"|>,type:<|\"|>OBJECT<|\"|>}}<tool|>"},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        char tools[512];
        snprintf(tools, sizeof tools, "[{\"type\":\"function\",\"function\":%s}]", rows[i].function);
        expect_tools("[" USER "]", tools, july, prompt, rows[i].want);
    }
}

static void refuse(const char *messages, const char *tools, const char *named)
{
    facet_error err = {0};
    buf out = {0};
    json_t *m = parse(messages), *t = tools ? parse(tools) : NULL;
    buf_puts(&out, "kept");
    assert_int_equal(chat_render(m, t, may, prompt, &out, &err), FACET_ERR_ARG);
    if (!strstr(err.message, named)) fail_msg("\"%s\" does not name %s", err.message, named);
    assert_string_equal(out.data, "kept");
    json_decref(m);
    json_decref(t);
    buf_free(&out);
}

static void names_what_is_wrong(void **state)
{
    (void)state;
    char m[600];
    refuse("[]", NULL, "messages");
    refuse("{}", NULL, "messages");
    refuse("[1]", NULL, "messages[0]");
    refuse("[{\"role\":\"user\"},{\"content\":\"x\"}]", NULL, "messages[1].role");
    refuse("[{\"role\":\"a\\nb\"}]", NULL, "messages[0].role");
    refuse("[{\"role\":\"user\",\"content\":3}]", NULL, "messages[0].content");
    refuse("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", NULL, "messages[0].content[].type");
    refuse("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", NULL, "messages[0].content[].text");
    refuse("[" USER ",{\"role\":\"tool\",\"content\":\"x\"}]", NULL, "messages[1].role");
    refuse("[{\"role\":\"assistant\",\"tool_calls\":3}]", NULL, "messages[0].tool_calls");
    refuse("[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]", NULL,
           "messages[0].tool_calls[].function.name");
    static const char *const arguments[] = {"3", "\"{\"", "\"[1]\"", "[1]"};
    for (size_t i = 0; i < N_OF(arguments); i++) {
        snprintf(m, sizeof m, "[" CALL "]", arguments[i], "");
        refuse(m, NULL, "messages[0].tool_calls[].function.arguments");
    }
    snprintf(m, sizeof m, "[" CALL ",{\"role\":\"tool\",\"content\":{}}]", "{}", "");
    refuse(m, NULL, "messages[1].content");
    snprintf(m, sizeof m, "[" CALL ",{\"role\":\"tool\",\"name\":null,\"content\":\"\"}]", "{}", "");
    refuse(m, NULL, "messages[1].name");
    refuse("[" USER "]", "{}", "tools");
    refuse("[" USER "]", "[{}]", "tools[0].function.name");
    refuse("[" USER "]", "[{\"function\":{\"name\":\"f\",\"parameters\":[]}}]", "tools[0].function.parameters");
}

static void refuses_deep_nesting(void **state)
{
    (void)state;
    buf deep = {0};
    buf_puts(&deep, "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":");
    for (int i = 0; i < 500; i++) buf_putc(&deep, '[');
    for (int i = 0; i < 500; i++) buf_putc(&deep, ']');
    buf_puts(&deep, "}}}]}]");
    refuse(deep.data, NULL, "nested more than 128");
    buf_clear(&deep);
    buf_puts(&deep, "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":");
    for (int i = 0; i < 300; i++) buf_puts(&deep, "{\"k\":{\"type\":\"object\",\"properties\":");
    buf_puts(&deep, "{}");
    for (int i = 0; i < 300; i++) buf_puts(&deep, "}}");
    buf_puts(&deep, "}}}]");
    refuse("[" USER "]", deep.data, "nested more than 128");
    buf_free(&deep);
}

static void detects_formats(void **state)
{
    (void)state;
    static const char flag[] = "{% if add_generation_prompt %}";
    static const struct {
        const char *text, *tail;
        chat_generation generation;
        bool is_large;
    } rows[] = {
        {"<channel|> <|tool_call>call:", "", CHAT_APRIL, false},
        {"<|tool_call>call:", "<channel|>", CHAT_APRIL, true},
        {"{# OpenAI Chat Completions #} prev_nt <|tool_call>call:", "x", CHAT_MAY, false},
        {"{# OpenAI Chat Completions #} prev_non_tool_role", "<channel|>", CHAT_JULY, true},
        {"something else", "", CHAT_JULY, false},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        char s[256];
        snprintf(s, sizeof s, "%s%s%s", rows[i].text, flag, rows[i].tail);
        chat_format f = chat_detect(s, strlen(s), false);
        assert_int_equal(f.generation, rows[i].generation);
        assert_int_equal(f.is_large, rows[i].is_large);
        assert_true(f.has_template);
    }
    chat_format none = chat_detect(NULL, 0, true), plain = chat_detect("x", 1, false);
    assert_false(none.has_template);
    assert_false(none.is_large);
    assert_int_equal(none.generation, CHAT_JULY);
    assert_true(plain.is_large);
    for (int is_large = 0; is_large < 2; is_large++) {
        const char *own = chat_template_text(is_large);
        chat_format f = chat_detect(own, strlen(own), !is_large);
        assert_int_equal(f.generation, CHAT_JULY);
        assert_int_equal(f.is_large, is_large);
        assert_true(f.has_template);
    }
}

static void detects_the_reference_file(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/vocab-gemma-4.gguf");
    facet_error err;
    gguf_file *f = NULL;
    gguf_str s;
    assert_ok(gguf_open(test_shared("models/vocab-gemma-4.gguf"), &f, &err), err);
    assert_ok(gguf_get_str(f, "tokenizer.chat_template", true, &s, &err), err);
    chat_format format = chat_detect(s.s, s.n, false);
    assert_int_equal(format.generation, CHAT_APRIL);
    assert_true(format.is_large);
    gguf_close(f);
}

static void survives_short_memory(void **state)
{
    (void)state;
    json_t *m = parse(
        "[" USER
        ",{\"role\":\"assistant\",\"reasoning\":\"w\",\"content\":\"text\",\"tool_calls\":[{\"id\":\"c\",\"function\":"
        "{\"name\":\"f\",\"arguments\":{\"x\":[1,{\"y\":2.5}]}}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\","
        "\"content\":\"r\"}]");
    json_t *t = parse(
        "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"l\":{\"type\":\"array\",\"items\":{\"type\":"
        "\"object\",\"properties\":{\"k\":{\"type\":\"string\"}}}}}}}}]");
    for (uint64_t n = 1;; n++) {
        facet_error err;
        buf out = {0};
        mem_fail_at(n);
        facet_status status = chat_render(m, t, july, prompt, &out, &err);
        bool is_past = mem_fail_at(0) < n;
        buf_free(&out);
        if (is_past) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
    }
    json_decref(m);
    json_decref(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_goldens),         cmocka_unit_test(writes_values),
        cmocka_unit_test(generations_differ),          cmocka_unit_test(keeps_the_reasoning_asked_for),
        cmocka_unit_test(reopens_the_turn_on_request), cmocka_unit_test(strips_thoughts_from_history),
        cmocka_unit_test(writes_declarations),         cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(refuses_deep_nesting),        cmocka_unit_test(detects_formats),
        cmocka_unit_test(detects_the_reference_file),  cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}

#include "testing.h"

#include "base/utf8.h"
#include "text/chat.h"
#include "text/chat_call.h"
#include "text_testing.h"

static tokenizer *vocab;

static int open_vocabulary(void **state)
{
    (void)state;
    vocab = open_small_vocab();
    return 0;
}

static int close_vocabulary(void **state)
{
    (void)state;
    tokenizer_close(vocab);
    return 0;
}

/* What a parser sent. Calls as "name arguments\n". */
typedef struct outcome {
    buf reasoning, content, calls;
    int n_calls;
    bool is_valid; /* every piece whole UTF-8, no empty text event */
} outcome;

static void record(void *ud, const chat_event *e)
{
    outcome *o = ud;
    o->is_valid = o->is_valid && e->n > 0 && utf8_valid(e->text, e->n);
    if (e->kind == CHAT_REASONING) buf_append(&o->reasoning, e->text, e->n);
    if (e->kind == CHAT_CONTENT) buf_append(&o->content, e->text, e->n);
    if (e->kind != CHAT_CALL) return;
    assert_int_equal(e->call_index, o->n_calls++);
    json_t *arguments = json_loadb(e->arguments, e->n_arguments, JSON_ALLOW_NUL, NULL);
    o->is_valid = o->is_valid && json_is_object(arguments);
    json_decref(arguments);
    buf_append(&o->calls, e->text, e->n);
    buf_putc(&o->calls, ' ');
    buf_append(&o->calls, e->arguments, e->n_arguments);
    buf_putc(&o->calls, '\n');
}

static void free_outcome(outcome *o)
{
    buf_free(&o->reasoning);
    buf_free(&o->content);
    buf_free(&o->calls);
}

static const char *text_of(const buf *b)
{
    return b->data ? b->data : "";
}

static facet_status run_tokens(const int32_t *ids, size_t n, bool in_thought, outcome *o)
{
    facet_error err;
    chat_parser *p = NULL;
    *o = (outcome){.is_valid = true};
    FACET_TRY(chat_parser_open(vocab, in_thought, record, o, &p, &err));
    facet_status status = FACET_OK;
    for (size_t i = 0; i < n && status == FACET_OK; i++) status = chat_parser_push(p, ids[i], &err);
    if (status == FACET_OK) status = chat_parser_finish(p, &err);
    if (status == FACET_OK) assert_int_equal(chat_parser_n_calls(p), o->n_calls);
    chat_parser_close(p);
    return status;
}

static void expect(const char *text, bool in_thought, const char *reasoning, const char *content, const char *calls)
{
    id_list ids = {0};
    outcome o;
    encode(vocab, text, strlen(text), SPECIAL_ALL, &ids);
    assert_int_equal(run_tokens(ids.ids, ids.n, in_thought, &o), FACET_OK);
    if (strcmp(text_of(&o.reasoning), reasoning) != 0) fail_msg("%s: reasoning \"%s\"", text, text_of(&o.reasoning));
    if (strcmp(text_of(&o.content), content) != 0) fail_msg("%s: content \"%s\"", text, text_of(&o.content));
    if (strcmp(text_of(&o.calls), calls) != 0) fail_msg("%s: calls \"%s\"", text, text_of(&o.calls));
    assert_true(o.is_valid);
    free_outcome(&o);
    mem_free(ids.ids);
}

#define Q "<|\"|>"
#define CALL(body) "<|tool_call>" body "<tool_call|>"

static const struct example {
    const char *text, *reasoning, *content, *calls;
} examples[] = {
    {"Hello", "", "Hello", ""},
    {"<|channel>thought\nI'm\nthinking<channel|>Hi", "I'm\nthinking", "Hi", ""},
    {"<|channel>thought<channel|>Hi", "", "Hi", ""},
    {"<|channel><|channel>thought\n<channel|>Hi", "", "Hi", ""},
    {"<|channel>thought\n<channel|>Hi<channel|>", "", "Hi", ""},
    {"Hi<|channel>thought\n<channel|><channel|>", "", "Hi", ""},
    {"Hi" CALL("call:get_time{city:" Q "Paris" Q "}"), "", "Hi", "get_time {\"city\":\"Paris\"}\n"},
    {CALL("call:f{}"), "", "", "f {}\n"},
    {CALL("call:f{n:-7,x:1.5e10,b:true,z:null}"), "", "", "f {\"n\":-7,\"x\":1.5e10,\"b\":true,\"z\":null}\n"},
    {CALL("call:f{c:{theme:" Q "dark" Q ",count:3},l:[" Q "a" Q "," Q "b" Q "]}"), "", "",
     "f {\"c\":{\"theme\":\"dark\",\"count\":3},\"l\":[\"a\",\"b\"]}\n"},
    {CALL("call:f{a:1}") CALL("call:g{}"), "", "", "f {\"a\":1}\ng {}\n"},
    {"<|tool_call>call:f{a:" Q "x", "", "call:f{a:" Q "x", ""},
    {"<|channel>thought\nstill going", "still going", "", ""},
    /* the state machine */
    {"<|channel>thought\nwhy\n\n<channel|>\n\nHi", "why", "\n\nHi", ""},
    {"<|channel>thought\n  why\n" CALL("call:f{}") "\n<turn|>", "why", "", "f {}\n"},
    {"<|channel>thought\na\n<channel|><|channel>thought\nb<channel|>c", "ab", "c", ""},
    {"<|channel>thought\na<channel|>\n" CALL("call:f{}") "\n" CALL("call:g{}") "\n", "a", "", "f {}\ng {}\n"},
    {"<|channel>final\nx<channel|>y", "x", "y", ""},
    {"<|channel>no name<channel|>y", "no name", "y", ""},
    {"<|channel>tho", "", "", ""},
    {"<|turn>model\nHi<turn|>", "", "Hi", ""},
    {"<|turn>model\n<|channel>thought\n<channel|>Hi", "", "Hi", ""},
    {"<|turn>mode x", "", "mode x", ""},
    {"a<|turn>model\nb", "", "amodel\nb", ""},
    {"Hi" CALL("call:f{}") " and more", "", "Hi and more", "f {}\n"},
    {" \n", "", " \n", ""},
    {" Hi \n", "", " Hi \n", ""},
    {"\n" CALL("call:f{}"), "", "", "f {}\n"},
    {"<|tool_call>call:f{a:1}<turn|>", "", "", "f {\"a\":1}\n"},
    {"<|tool_call>call:f{a:1}<|tool_response>", "", "", "f {\"a\":1}\n"},
    {"<|tool_call>call:f{a:1", "", "call:f{a:1", ""},
    {"<|tool_call>call:f{a:<|tool_call>call:g{}<tool_call|>", "", "call:f{a:", "g {}\n"},
    {"x<tool_call|>y<tool_response|>z", "", "xyz", ""},
    /* tolerances of calls */
    {CALL("f{a:1}"), "", "", "f {\"a\":1}\n"},
    {CALL(" call: f { a : 1 ,\n b : [ 1 , 2 ] } "), "", "", "f {\"a\":1,\"b\":[1,2]}\n"},
    {CALL("call:f{" Q "k" Q ":None,b:True,c:False}"), "", "", "f {\"k\":null,\"b\":true,\"c\":false}\n"},
    {CALL("call:f{\"k\":\"v \\n \\u00e9 \\x\"}"), "", "", "f {\"k\":\"v \\n \\u00e9 \\\\x\"}\n"},
    {CALL("call:f{k:some bare words ,b:[x,y]}"), "", "", "f {\"k\":\"some bare words\",\"b\":[\"x\",\"y\"]}\n"},
    {CALL("call:f{a:{b:1}"), "", "", "f {\"a\":{\"b\":1}}\n"},
    {CALL("call:f{"), "", "", "f {}\n"},
    {CALL("call:f{a:" Q "{\"x\": [1,2]}\n\t\\" Q "}"), "", "", "f {\"a\":\"{\\\"x\\\": [1,2]}\\n\\t\\\\\"}\n"},
    {CALL("call:f{a:007,b:1.,c:-,d:1e,e:0}"), "", "",
     "f {\"a\":\"007\",\"b\":\"1.\",\"c\":\"-\",\"d\":\"1e\",\"e\":0}\n"},
    {CALL("call:f{a:\"x\" y}"), "", "", "f {\"a\":\"\\\"x\\\" y\"}\n"},
    {CALL("call:f{a:\"\\ud800 \\ud83d\\ude00\"}"), "", "", "f {\"a\":\"\\ufffd \\ud83d\\ude00\"}\n"},
    {CALL("call:f{a:" Q "\xe6\x97\xa5\xc3\xa9" Q "}"), "", "", "f {\"a\":\"\xe6\x97\xa5\xc3\xa9\"}\n"},
    {CALL("call:f{a:" Q Q "}"), "", "", "f {\"a\":\"\"}\n"},
    /* no calls */
    {CALL("call:f{a:1} x"), "", "call:f{a:1} x", ""},
    {CALL("call:f"), "", "call:f", ""},
    {CALL("call:{}"), "", "call:{}", ""},
    {CALL(""), "", "", ""},
    {CALL("call:f{a:}"), "", "call:f{a:}", ""},
    {CALL("call:f{a:{b:1"), "", "call:f{a:{b:1", ""},
    {CALL("call:f{a:[1"), "", "call:f{a:[1", ""},
    {CALL("call:f{a:1,}"), "", "call:f{a:1,}", ""},
    {CALL("call:f{:1}"), "", "call:f{:1}", ""},
    {CALL("call:f{a:x" Q "y" Q "}"), "", "call:f{a:x" Q "y" Q "}", ""},
};

static void parses_the_examples(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_OF(examples); i++)
        expect(examples[i].text, false, examples[i].reasoning, examples[i].content, examples[i].calls);
}

static void starts_inside_a_thought(void **state)
{
    (void)state;
    expect("\nwhy\n<channel|>Hi", true, "why", "Hi", "");
    expect("why" CALL("call:f{}"), true, "why", "", "f {}\n");
    expect("why\n", true, "why\n", "", "");
    expect("<|channel>thought\nwhy<channel|>", true, "why", "", "");
    expect(" \n<channel|>", true, "", "", "");
}

static bool begins(const buf *whole, const buf *part)
{
    return part->len <= whole->len && (part->len == 0 || memcmp(whole->data, part->data, part->len) == 0);
}

/* Cut at any token an output gives no call that the whole would not give, and calls in the same order. */
static void survives_every_truncation(void **state)
{
    (void)state;
    id_list ids = {0};
    for (size_t i = 0; i < N_OF(examples); i++) {
        outcome whole;
        encode(vocab, examples[i].text, strlen(examples[i].text), SPECIAL_ALL, &ids);
        run_tokens(ids.ids, ids.n, false, &whole);
        for (size_t n = 0; n < ids.n; n++) {
            outcome part;
            assert_int_equal(run_tokens(ids.ids, n, false, &part), FACET_OK);
            assert_true(part.is_valid);
            /* "…{a:1} x": text behind a whole call makes it none after all */
            if (whole.n_calls && !begins(&whole.calls, &part.calls)) fail_msg("%s cut at %zu", examples[i].text, n);
            free_outcome(&part);
        }
        free_outcome(&whole);
    }
    mem_free(ids.ids);
}

static void survives_random_tokens(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 21);
    static const char *const words[] = {
        "call:f{", "a:",           "}",   "{", "[", "]", ",", "1", "x", "\"", "\n", "thought", "model\n",
        " ",       "\xe6\x97\xa5", "None"};
    id_list word = {0};
    for (int round = 0; round < 20000; round++) {
        int32_t ids[64];
        size_t n = 0;
        outcome o;
        while (n < 40) {
            if (rng_below(&r, 3) == 0) {
                ids[n++] = (int32_t)rng_below(&r, rng_below(&r, 2) ? 24 : (uint32_t)tokenizer_n_vocab(vocab)) -
                           (rng_below(&r, 50) == 0 ? 30 : 0);
                continue;
            }
            const char *w = words[rng_below(&r, N_OF(words))];
            encode(vocab, w, strlen(w), SPECIAL_NONE, &word);
            for (size_t i = 0; i < word.n; i++) ids[n++] = word.ids[i];
        }
        assert_int_equal(run_tokens(ids, n, round % 2, &o), FACET_OK);
        assert_true(o.is_valid);
        free_outcome(&o);
    }
    mem_free(word.ids);
}

static void limits_nesting(void **state)
{
    (void)state;
    buf s = {0}, name = {0}, arguments = {0};
    for (int depth = 100; depth <= 1000000; depth *= 100) {
        buf_clear(&s);
        buf_clear(&name);
        buf_clear(&arguments);
        buf_puts(&s, "call:f{a:");
        for (int i = 0; i < depth; i++) buf_putc(&s, '[');
        for (int i = 0; i < depth; i++) buf_putc(&s, ']');
        buf_putc(&s, '}');
        assert_int_equal(chat_parse_call(s.data, s.len, true, &name, &arguments), depth <= 128);
    }
    buf_free(&s);
    buf_free(&name);
    buf_free(&arguments);
}

static void survives_short_memory(void **state)
{
    (void)state;
    id_list ids = {0};
    static const char text[] =
        "<|turn>model\n<|channel>thought\nwhy\n<channel|>\nHi" CALL("call:f{a:" Q "x" Q "}") CALL("broken");
    encode(vocab, text, strlen(text), SPECIAL_ALL, &ids);
    for (uint64_t n = 1;; n++) {
        outcome o;
        facet_error err;
        chat_parser *p = NULL;
        o = (outcome){.is_valid = true};
        /* the recording buffers take memory before the fault is armed */
        buf_reserve(&o.reasoning, 256);
        buf_reserve(&o.content, 256);
        buf_reserve(&o.calls, 256);
        mem_fail_at(n);
        facet_status status = chat_parser_open(vocab, false, record, &o, &p, &err);
        for (size_t i = 0; i < ids.n && status == FACET_OK; i++) status = chat_parser_push(p, ids.ids[i], &err);
        if (status == FACET_OK) status = chat_parser_finish(p, &err);
        bool is_past = mem_fail_at(0) < n;
        chat_parser_close(p);
        free_outcome(&o);
        if (is_past) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
    }
    mem_free(ids.ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_the_examples),
        cmocka_unit_test(starts_inside_a_thought),
        cmocka_unit_test(survives_every_truncation),
        cmocka_unit_test(survives_random_tokens),
        cmocka_unit_test(limits_nesting),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests_name("chat_parse", tests, open_vocabulary, close_vocabulary);
}

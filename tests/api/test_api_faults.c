/* The n-th allocation of each call of the public interface fails, for n = 1, 2, … to the last: FACET_ERR_MEMORY with a
 * message, the output untouched, nothing left behind, and the next call works. (decode/test_faults.c does the same for
 * opening, evaluating, forking and generating.) */
#include "testing.h"

#include <jansson.h>

#include "base/mem.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define PROMPT "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n"
#define UNTOUCHED ((void *)(uintptr_t)0x5a5a0)
#define ANSWER "<|channel>thought\nHm.<channel|>Wait.<|tool_call>call:get_weather{city:<|\"|>Oslo<|\"|>}<tool_call|>"

static facet_model *model;
static facet_engine *engine;
static facet_session *session;

typedef facet_status (*call_fn)(void **out, facet_error *err);

/* Every call gives one object, or nothing (NULL), which `undo` takes back. parses_json: a failure may also be told as
 * malformed JSON, since jansson's scanner cannot tell a string that it has no memory for from a bad one. */
static void fail_each(const char *name, int least, bool parses_json, call_fn call, void (*undo)(void *out))
{
    for (uint64_t k = 1;; k++) {
        facet_error err = {FACET_OK, ""};
        void *out = UNTOUCHED;
        const int64_t live = mem_n_live();
        mem_fail_at(k);
        const facet_status status = call(&out, &err);
        const bool is_past = mem_fail_at(0) < k;
        const bool is_right =
            is_past ? status == FACET_OK : status == FACET_ERR_MEMORY || (parses_json && status == FACET_ERR_ARG);
        if (!is_right || (!is_past && !*err.message))
            fail_msg("%s, allocation %d: status %d: %s", name, (int)k, (int)status, err.message);
        if (is_past)
            undo(out);
        else
            assert_ptr_equal(out, UNTOUCHED);
        if (mem_n_live() != live)
            fail_msg("%s, allocation %d: %d blocks are left", name, (int)k, (int)(mem_n_live() - live));
        if (!is_past) continue;
        print_message("%s: %d allocations\n", name, (int)k - 1);
        if ((int)k - 1 < least) fail_msg("%s: only %d allocations", name, (int)k - 1);
        return;
    }
}

static facet_status sampler(void **out, facet_error *err)
{
    facet_sampling s = facet_sampling_of_model(model);
    return facet_sampler_open(model, &s, (facet_sampler **)(void *)out, err);
}

static void close_sampler(void *out)
{
    facet_sampler_close(out);
}

static facet_status detokenize(void **out, facet_error *err)
{
    static const int32_t ids[] = {2, 410, 404, 966};
    size_t n;
    return facet_detokenize(model, ids, 4, true, (char **)(void *)out, &n, err);
}

static facet_status render(void **out, facet_error *err)
{
    size_t n;
    return facet_chat_render(
        model, "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"Weather?\"}]",
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"
        "\"object\","
        "\"properties\":{\"a\":{\"type\":\"string\"}}}}}]",
        0, (char **)(void *)out, &n, err);
}

static void free_text(void *out)
{
    assert_true(*(char *)out);
    facet_free(out);
}

static void ignore(void *ud, const facet_chat_event *e)
{
    *(int *)ud += (int)e->n;
}

static facet_status take_apart(void **out, facet_error *err)
{
    facet_chat_parser *p = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    int n_text = 0;
    facet_status status = facet_tokenize(model, ANSWER, strlen(ANSWER), false, true, &ids, &n, err);
    if (status == FACET_OK) status = facet_chat_parser_open(model, PROMPT, strlen(PROMPT), ignore, &n_text, &p, err);
    for (size_t i = 0; i < n && status == FACET_OK; i++) status = facet_chat_parser_push(p, ids[i], err);
    if (status == FACET_OK) status = facet_chat_parser_finish(p, err);
    if (status == FACET_OK) assert_int_equal(n_text, 3 + 5 + 11);
    facet_chat_parser_close(p);
    facet_free(ids);
    if (status == FACET_OK) *out = NULL;
    return status;
}

static facet_status pick(void **out, facet_error *err)
{
    facet_sampling s = facet_sampling_of_model(model);
    facet_sampler *sm = NULL;
    int32_t token;
    facet_status status = facet_sampler_open(model, &s, &sm, err);
    if (status == FACET_OK) status = facet_sampler_pick(sm, session, &token, err);
    if (status == FACET_OK) status = facet_session_append(session, &token, 1, err);
    facet_sampler_close(sm);
    if (status == FACET_OK) *out = NULL;
    return status;
}

static void nothing(void *out)
{
    assert_null(out);
}

static void every_call(void **state)
{
    (void)state;
    facet_error err;
    facet_engine_params p = facet_engine_params_default();
    const int64_t live = mem_n_live();
    int32_t *ids;
    size_t n;
    p.device = "cpu";
    p.n_ctx = 1024;
    assert_ok(facet_model_open(MODEL, &model, &err), err);
    assert_ok(facet_engine_open(model, &p, &engine, &err), err);
    assert_ok(facet_session_open(engine, &session, &err), err);
    assert_ok(facet_tokenize(model, PROMPT, strlen(PROMPT), true, true, &ids, &n, &err), err);
    assert_ok(facet_session_sync(session, ids, n, &err), err);
    facet_free(ids);

    json_set_alloc_funcs(mem_alloc, mem_free); /* of this program: JSON's allocations fail as well */
    fail_each("sampler", 6, false, sampler, close_sampler);
    fail_each("detokenize", 1, false, detokenize, free_text);
    fail_each("render", 30, true, render, free_text);
    fail_each("parser", 8, false, take_apart, nothing);
    fail_each("pick and append", 6, false, pick, nothing);

    facet_session_close(session);
    facet_engine_close(engine);
    facet_model_close(model);
    assert_int_equal(mem_n_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call)};
    return cmocka_run_group_tests_name("allocation faults of the public interface", tests, NULL, NULL);
}

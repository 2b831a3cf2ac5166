/* Greedy tokens on quantised files against another engine's (goldens/peer_greedy.jsonl): equal on every task. */
#include "../model/golden.h"

#include "decode/session.h"

static const char *const files[] = {"tiny-31b-F16",     "tiny-31b-Q8_0",     "tiny-31b-Q4_K_M",     "tiny-31b-Q4_0",
                                    "tiny-26b-a4b-F16", "tiny-26b-a4b-Q8_0", "tiny-26b-a4b-Q4_K_M", "tiny-e2b-F16",
                                    "tiny-e2b-Q8_0",    "tiny-e2b-Q4_K_M"};

typedef struct collected {
    int32_t ids[128];
    size_t n;
} collected;

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    (void)text, (void)n;
    collected *c = ud;
    if (token >= 0 && c->n < 128) c->ids[c->n++] = token;
    return true;
}

/* First index at which the generated tokens differ from the golden ones; their number when they agree. */
static size_t first_difference(facet_session *s, const json_t *line, const char *file, size_t *n_want)
{
    size_t n;
    int32_t *ids = golden_ids(json_object_get(line, "ids"), &n);
    const json_t *want = json_object_get(json_object_get(line, "greedy"), file);
    collected got = {0};
    facet_error err;
    facet_generate_params g = facet_generate_params_default();
    facet_generate_result r;
    const facet_sampling greedy = facet_sampling_default();
    g.n_predict = (int32_t)json_array_size(want);
    g.ignore_eos = true;
    g.on_token = collect;
    g.ud = &got;
    assert_ok(facet_generate(s, ids, n, &greedy, &g, &r, &err), err);
    free(ids);
    *n_want = json_array_size(want);
    size_t i = 0;
    while (i < got.n && i < *n_want && got.ids[i] == json_integer_value(json_array_get(want, i))) i++;
    return i;
}

static void check_file(const char *file, json_t *const *lines, size_t n_lines)
{
    char path[128];
    facet_error err;
    facet_model *m;
    facet_engine *e;
    facet_session *s;
    snprintf(path, sizeof path, "models/%s.gguf", file);
    assert_ok(facet_model_open(test_shared(path), &m, &err), err);
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 4096;
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    assert_ok(facet_session_open(e, &s, &err), err);
    int n_tasks = 0, n_equal = 0;
    for (size_t i = 0; i < n_lines; i++) {
        size_t n_want;
        if (strcmp(json_string_value(json_object_get(lines[i], "task")), "offtask") == 0) continue;
        n_tasks++;
        n_equal += first_difference(s, lines[i], file, &n_want) == n_want;
    }
    assert_int_equal(n_tasks, 112);
    if (n_equal != n_tasks) fail_msg("%s: %d of %d tasks equal the other engine's tokens", file, n_equal, n_tasks);
    facet_session_close(s);
    facet_engine_close(e);
    facet_model_close(m);
}

static json_t *lines[256];
static size_t n_lines;

static int load(void **state)
{
    (void)state;
    char *data, *save = NULL;
    size_t size;
    facet_error err;
    if (!test_shared("goldens/peer_greedy.jsonl")) return 0;
    if (file_read_all(test_shared("goldens/peer_greedy.jsonl"), 1u << 28, &data, &size, &err) != FACET_OK) return -1;
    for (char *line = strtok_r(data, "\n", &save); line && n_lines < 256; line = strtok_r(NULL, "\n", &save))
        lines[n_lines++] = json_loads(line, 0, NULL);
    mem_free(data);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_lines; i++) json_decref(lines[i]);
    return 0;
}

static void tasks_equal_the_other_engine(void **state)
{
    const char *file = *state;
    TEST_NEEDS_SHARED("goldens/peer_greedy.jsonl");
    check_file(file, lines, n_lines);
}

int main(void)
{
    struct CMUnitTest tests[sizeof files / sizeof *files];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        tests[i] = (struct CMUnitTest){
            .name = files[i], .test_func = tasks_equal_the_other_engine, .initial_state = (void *)(uintptr_t)files[i]};
    return cmocka_run_group_tests_name("peer", tests, load, unload);
}

/* Every allocation of a session's life fails once: the first, the second, ... to the last, in opening a model, an
 * engine and a session, in evaluating, forking and generating. Each time: FACET_ERR_MEMORY with a message, the output
 * untouched, nothing left behind; and the objects that were there before give the same answers as if nothing had
 * happened. */
#include "testing.h"

#include "base/mem.h"
#include "base/rng.h"
#include "decode/session.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define PROMPT "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n"
#define UNTOUCHED ((void *)(uintptr_t)0x5a5a0)

enum { N_CTX = 2048, N_LONG = 1100, MAX_ANSWER = 64 }; /* N_LONG: page tables grow in the middle of a sync */

typedef struct answer {
    int32_t ids[MAX_ANSWER];
    int n;
    char text[1024];
    size_t len;
} answer;

typedef struct world {
    facet_engine_params params;
    facet_model *model;
    facet_engine *engine;
    facet_session *session;
    facet_sampling sampling;
    answer want; /* by `sampling` */
    int32_t *prompt, long_prompt[N_LONG];
    size_t n_prompt;
    float *logits, *long_logits; /* after the prompts */
    int32_t n_free[KV_MAX_GROUPS];
} world;

/* One call of the library. Its output pointer is *out. */
typedef struct subject {
    const char *name;
    int least;               /* allocations that it makes at least */
    bool may_do_without;     /* some of them are not needed: the marks of sessions; then it must succeed */
    void (*before)(world *); /* each time, without faults; may be NULL */
    facet_status (*call)(world *, void **out, facet_error *);
    void (*after)(world *, void *out, bool is_ok); /* checks the objects, and closes what before and call made */
} subject;

/* Returns false when the call made fewer than k allocations, and succeeded. */
static bool fail_allocation(world *w, const subject *s, uint64_t k)
{
    facet_error err = {0};
    void *out = UNTOUCHED;
    const int64_t live = mem_n_live();
    if (s->before) s->before(w);
    mem_fail_at(k);
    const facet_status status = s->call(w, &out, &err);
    const bool is_past = mem_fail_at(0) < k;
    const bool is_ok = is_past || (s->may_do_without && status == FACET_OK);
    const facet_status want = is_ok ? FACET_OK : FACET_ERR_MEMORY;
    if (status != want || (!is_ok && !strstr(err.message, "out of memory")))
        fail_msg("%s, allocation %d: status %d: %s", s->name, (int)k, (int)status, err.message);
    if (!is_ok) assert_ptr_equal(out, UNTOUCHED);
    if (s->after) s->after(w, out, is_ok);
    if (mem_n_live() != live)
        fail_msg("%s, allocation %d: %d blocks are left", s->name, (int)k, (int)(mem_n_live() - live));
    return !is_past;
}

static void fail_each(world *w, const subject *s)
{
    uint64_t k = 1;
    while (fail_allocation(w, s, k)) k++;
    print_message("%s: %d allocations\n", s->name, (int)k - 1);
    assert_true(k - 1 >= (uint64_t)s->least);
}

/* ---- what is known to be right ---- */

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    answer *a = ud;
    if (token >= 0 && a->n < MAX_ANSWER) a->ids[a->n++] = token;
    if (a->len + n < sizeof a->text) memcpy(a->text + a->len, text, n), a->len += n;
    return true;
}

static facet_status generate(world *w, facet_session *s, answer *a, facet_generate_result *r, facet_error *err)
{
    static const char *const stops[] = {"no such text", "\n\n\n"};
    facet_generate_params g = facet_generate_params_default();
    *a = (answer){0};
    g.n_predict = MAX_ANSWER;
    g.stop = stops;
    g.n_stop = 2;
    g.on_token = collect;
    g.ud = a;
    return facet_generate(s, w->prompt, w->n_prompt, &w->sampling, &g, r, err);
}

static void check_answer(world *w, facet_session *s)
{
    facet_error err;
    answer got;
    facet_generate_result r;
    assert_ok(generate(w, s, &got, &r, &err), err);
    assert_int_equal(r.n_tokens, w->want.n);
    assert_int_equal(got.len, w->want.len);
    assert_memory_equal(&got, &w->want, sizeof got);
}

static void check_logits(world *w, facet_session *s, const int32_t *tokens, size_t n, const float *want)
{
    facet_error err;
    const size_t bytes = w->model->h.n_vocab * sizeof(float);
    float *got = malloc(bytes);
    assert_ok(facet_session_sync(s, tokens, n, &err), err);
    assert_int_equal(facet_session_n_tokens(s), n);
    assert_ok(facet_session_logits(s, got, &err), err);
    assert_memory_equal(got, want, bytes);
    free(got);
}

static float *logits_of(world *w, const int32_t *tokens, size_t n)
{
    facet_error err;
    facet_session *s;
    float *l = malloc(w->model->h.n_vocab * sizeof *l);
    assert_ok(facet_session_open(w->engine, &s, &err), err);
    assert_ok(facet_session_sync(s, tokens, n, &err), err);
    assert_ok(facet_session_logits(s, l, &err), err);
    facet_session_close(s);
    return l;
}

static void check_pages(const world *w)
{
    for (int g = 0; g < w->engine->kv.n_groups; g++)
        assert_int_equal(kv_pool_free_pages(w->engine->pool, g), w->n_free[g]);
}

static void know_answer(world *w, facet_sampling sampling)
{
    facet_error err;
    facet_session *s;
    facet_generate_result r;
    w->sampling = sampling;
    assert_ok(facet_session_open(w->engine, &s, &err), err);
    assert_ok(generate(w, s, &w->want, &r, &err), err);
    facet_session_close(s);
}

/* ---- model and engine ---- */

static facet_status open_model(world *w, void **out, facet_error *err)
{
    (void)w;
    return facet_model_open(MODEL, (facet_model **)(void *)out, err);
}

static void close_model(world *w, void *out, bool is_ok)
{
    (void)w;
    if (is_ok) facet_model_close(out);
}

static facet_status open_engine(world *w, void **out, facet_error *err)
{
    return facet_engine_open(w->model, &w->params, (facet_engine **)(void *)out, err);
}

static void close_engine(world *w, void *out, bool is_ok)
{
    (void)w;
    if (is_ok) facet_engine_close(out);
}

static world begin(const char *device, bool use_mmap)
{
    static const int captures[] = {0, 2};
    world w = {.params = facet_engine_params_default()};
    facet_error err;
    w.params.device = device;
    w.params.use_mmap = use_mmap;
    w.params.n_threads = 2;
    w.params.n_ctx = N_CTX;
    w.params.n_sessions = 3;
    w.params.n_captures = 2;
    w.params.capture_layers = captures;
    assert_ok(facet_model_open(MODEL, &w.model, &err), err);
    assert_ok(facet_engine_open(w.model, &w.params, &w.engine, &err), err);
    assert_ok(facet_tokenize(w.model, PROMPT, strlen(PROMPT), true, true, &w.prompt, &w.n_prompt, &err), err);
    rng r;
    rng_seed(&r, 1);
    w.long_prompt[0] = 2;
    for (int i = 1; i < N_LONG; i++) w.long_prompt[i] = 200 + (int32_t)rng_below(&r, 1800);
    for (int g = 0; g < w.engine->kv.n_groups; g++) w.n_free[g] = w.engine->kv.groups[g].n_pages;
    w.logits = logits_of(&w, w.prompt, w.n_prompt);
    know_answer(&w, facet_sampling_default());
    w.want.text[w.want.len] = 0;
    assert_string_equal(w.want.text, "82 - 61 = 21.");
    return w;
}

static void end(world *w)
{
    check_pages(w);
    facet_free(w->prompt);
    free(w->logits);
    free(w->long_logits);
    facet_engine_close(w->engine);
    facet_model_close(w->model);
}

static void opening_a_model_and_engines(void **state)
{
    (void)state;
    static const struct {
        const char *device;
        bool use_mmap;
        subject s;
    } cases[] = {
        {"cpu", false, {.name = "engine", .least = 60, .call = open_engine, .after = close_engine}},
        {"cpu", true, {.name = "engine, mapped", .least = 20, .call = open_engine, .after = close_engine}},
        {"ref", false, {.name = "engine, ref", .least = 20, .call = open_engine, .after = close_engine}},
    };
    const int64_t live = mem_n_live();
    const subject model = {.name = "model", .least = 100, .call = open_model, .after = close_model};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world w = begin(cases[i].device, cases[i].use_mmap);
        if (i == 0) fail_each(&w, &model);
        fail_each(&w, &cases[i].s);
        facet_engine_close(w.engine); /* an engine that is opened after all the failed ones */
        facet_error err;
        facet_session *s;
        assert_ok(facet_engine_open(w.model, &w.params, &w.engine, &err), err);
        assert_ok(facet_session_open(w.engine, &s, &err), err);
        check_answer(&w, s);
        facet_session_close(s);
        end(&w);
    }
    assert_int_equal(mem_n_live(), live);
}

/* ---- sessions ---- */

static facet_status open_session(world *w, void **out, facet_error *err)
{
    return facet_session_open(w->engine, (facet_session **)(void *)out, err);
}

static void close_session(world *w, void *out, bool is_ok)
{
    if (is_ok) check_answer(w, out);
    if (is_ok) facet_session_close(out);
    check_pages(w);
}

static void new_session(world *w)
{
    facet_error err;
    assert_ok(facet_session_open(w->engine, &w->session, &err), err);
}

static facet_status sync_long(world *w, void **out, facet_error *err)
{
    (void)out;
    return facet_session_sync(w->session, w->long_prompt, N_LONG, err);
}

/* A failed sync leaves a valid prefix, from which it goes on. */
static void go_on_with_long(world *w, void *out, bool is_ok)
{
    (void)out, (void)is_ok;
    const int32_t n = facet_session_n_tokens(w->session);
    assert_true(is_ok ? n == N_LONG : n < N_LONG && n % ENGINE_MAX_ROWS == 0);
    check_logits(w, w->session, w->long_prompt, N_LONG, w->long_logits);
    assert_int_equal(w->session->n_kept, n);
    facet_session_close(w->session);
    check_pages(w);
}

static void long_session(world *w)
{
    facet_error err;
    new_session(w);
    assert_ok(facet_session_sync(w->session, w->long_prompt, N_LONG, &err), err);
    for (int g = 0; g < w->engine->kv.n_groups; g++) w->n_free[g] = kv_pool_free_pages(w->engine->pool, g);
}

static facet_status fork_session(world *w, void **out, facet_error *err)
{
    return facet_session_fork(w->session, (facet_session **)(void *)out, err);
}

static void check_fork(world *w, void *out, bool is_ok)
{
    check_pages(w);
    if (is_ok) check_logits(w, out, w->long_prompt, N_LONG, w->long_logits);
    if (is_ok) facet_session_close(out);
    check_logits(w, w->session, w->long_prompt, N_LONG, w->long_logits);
}

static facet_status generate_answer(world *w, void **out, facet_error *err)
{
    facet_generate_result r = {.n_tokens = -1};
    answer a;
    const facet_status status = generate(w, w->session, &a, &r, err);
    if (status == FACET_OK)
        *out = NULL;
    else
        assert_int_equal(r.n_tokens, -1);
    return status;
}

static void answer_again(world *w, void *out, bool is_ok)
{
    (void)out, (void)is_ok;
    check_answer(w, w->session);
    facet_session_close(w->session);
    check_pages(w);
}

static facet_status tokenize(world *w, void **out, facet_error *err)
{
    size_t n;
    return facet_tokenize(w->model, PROMPT, strlen(PROMPT), true, true, (int32_t **)(void *)out, &n, err);
}

static void free_tokens(world *w, void *out, bool is_ok)
{
    if (is_ok) assert_memory_equal(out, w->prompt, w->n_prompt * sizeof *w->prompt);
    if (is_ok) facet_free(out);
}

static void running_sessions(void **state)
{
    (void)state;
    static const subject calls[] = {
        {.name = "tokenize", .least = 3, .call = tokenize, .after = free_tokens},
        {.name = "session", .least = 1, .call = open_session, .after = close_session},
        {.name = "sync",
         .least = 4,
         .may_do_without = true,
         .before = new_session,
         .call = sync_long,
         .after = go_on_with_long},
        {.name = "generate",
         .least = 8,
         .may_do_without = true,
         .before = new_session,
         .call = generate_answer,
         .after = answer_again},
    };
    static const subject fork = {.name = "fork", .least = 4, .call = fork_session, .after = check_fork};
    const int64_t live = mem_n_live();
    world w = begin("cpu", false);
    w.long_logits = logits_of(&w, w.long_prompt, N_LONG);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) fail_each(&w, &calls[i]);

    const facet_logit_bias bias[] = {{410, 0.5f}, {411, -0.5f}};
    facet_sampling sampling = facet_sampling_default();
    sampling.temperature = 0.7f;
    sampling.top_k = 40;
    sampling.top_p = 0.9f;
    sampling.min_p = 0.01f;
    sampling.repeat_penalty = 1.1f;
    sampling.seed = 7;
    sampling.bias = bias;
    sampling.n_bias = 2;
    know_answer(&w, sampling);
    fail_each(&w, &calls[3]);

    long_session(&w);
    fail_each(&w, &fork);
    facet_session_close(w.session);
    for (int g = 0; g < w.engine->kv.n_groups; g++) w.n_free[g] = w.engine->kv.groups[g].n_pages;
    end(&w);
    assert_int_equal(mem_n_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_model_and_engines),
        cmocka_unit_test(running_sessions),
    };
    return cmocka_run_group_tests_name("allocation faults", tests, NULL, NULL);
}

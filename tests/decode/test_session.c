/* Sessions of one engine on the bundled model: they do not disturb each other, forks share, prefixes are reused; and a
 * step's bits do not depend on how many rows stand in it. */
#include "testing.h"

#include "base/mem.h"
#include "base/rng.h"
#include "decode/session.h"

typedef struct fixture {
    facet_model *model;
    facet_engine *engine;
} fixture;

static const char *const devices[] = {"cpu", "ref"};

static fixture open_engine(const char *device, int n_sessions)
{
    fixture f;
    facet_error err;
    assert_ok(facet_model_open(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", &f.model, &err), err);
    facet_engine_params p = facet_engine_params_default();
    p.device = device;
    p.n_ctx = 1024;
    p.n_sessions = n_sessions;
    assert_ok(facet_engine_open(f.model, &p, &f.engine, &err), err);
    return f;
}

static void close_engine(fixture *f)
{
    for (int g = 0; g < f->engine->kv.n_groups; g++)
        assert_int_equal(kv_pool_free_pages(f->engine->pool, g), f->engine->kv.groups[g].n_pages);
    facet_engine_close(f->engine);
    facet_model_close(f->model);
}

static facet_session *open_session(facet_engine *e)
{
    facet_session *s;
    facet_error err;
    assert_ok(facet_session_open(e, &s, &err), err);
    return s;
}

static void random_tokens(rng *r, int32_t *t, int n)
{
    t[0] = 2;
    for (int i = 1; i < n; i++) t[i] = 200 + (int32_t)rng_below(r, 1800);
}

static float *logits_of(facet_session *s)
{
    const size_t n = s->engine->model->h.n_vocab;
    float *l = malloc(n * sizeof *l);
    facet_error err;
    assert_ok(facet_session_logits(s, l, &err), err);
    return l;
}

/* Logits of a prompt in a session of its own. */
static float *logits_alone(facet_engine *e, const int32_t *t, int n)
{
    facet_session *s = open_session(e);
    facet_error err;
    assert_ok(facet_session_sync(s, t, (size_t)n, &err), err);
    float *l = logits_of(s);
    facet_session_close(s);
    return l;
}

static void assert_same_logits(const facet_engine *e, float *a, float *b)
{
    assert_memory_equal(a, b, e->model->h.n_vocab * sizeof *a);
    free(a);
    free(b);
}

static void a_steps_bits_do_not_depend_on_its_width(void **state)
{
    (void)state;
    enum { N = 200 }; /* past the window of 128 */
    for (size_t d = 0; d < 2; d++) {
        fixture f = open_engine(devices[d], 2);
        facet_engine *e = f.engine;
        const size_t V = e->model->h.n_vocab;
        rng r;
        rng_seed(&r, 3);
        int32_t t[N];
        random_tokens(&r, t, N);
        float *one = malloc(N * V * sizeof *one), *many = malloc(N * V * sizeof *many);
        facet_error err;
        for (int pass = 0; pass < 2; pass++) { /* one row at a time; then steps of 1 to 64 rows */
            kv_seq kv = {0};
            float *out = pass ? many : one;
            for (int at = 0; at < N;) {
                int n = pass ? 1 + (int)rng_below(&r, ENGINE_MAX_OUT) : 1;
                if (n > N - at) n = N - at;
                assert_ok(engine_eval(e, &kv, t + at, at, n, n, &err), err);
                assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, 0, n, out + (size_t)at * V, &err),
                          err);
                at += n;
            }
            kv_seq_free(e->pool, &kv);
        }
        assert_memory_equal(one, many, N * V * sizeof *one);
        free(one);
        free(many);
        close_engine(&f);
    }
}

static void sessions_do_not_disturb_each_other(void **state)
{
    (void)state;
    fixture f = open_engine("cpu", 3);
    facet_error err;
    rng r;
    rng_seed(&r, 4);
    int32_t a[150], b[90];
    random_tokens(&r, a, 150);
    random_tokens(&r, b, 90);
    float *want_a = logits_alone(f.engine, a, 150), *want_b = logits_alone(f.engine, b, 90);
    facet_session *sa = open_session(f.engine), *sb = open_session(f.engine);
    assert_ok(facet_session_sync(sa, a, 150, &err), err);
    assert_ok(facet_session_sync(sb, b, 90, &err), err);
    assert_same_logits(f.engine, logits_of(sa), want_a); /* asked for after the other one ran */
    assert_same_logits(f.engine, logits_of(sb), want_b);
    facet_session_close(sa);
    facet_session_close(sb);
    close_engine(&f);
}

static void forks_share_and_then_part(void **state)
{
    (void)state;
    fixture f = open_engine("cpu", 3);
    facet_error err;
    rng r;
    rng_seed(&r, 5);
    int32_t a[220], b[220];
    random_tokens(&r, a, 220);
    memcpy(b, a, sizeof b);
    random_tokens(&r, b + 160, 60);
    float *want_a = logits_alone(f.engine, a, 220), *want_b = logits_alone(f.engine, b, 220);
    facet_session *sa = open_session(f.engine), *sb;
    assert_ok(facet_session_sync(sa, a, 160, &err), err);
    assert_ok(facet_session_fork(sa, &sb, &err), err);
    const int32_t bad = 1 << 20; /* refused, and the shared page it would have written is unharmed */
    assert_int_equal(session_append(sb, &bad, 1, &err), FACET_ERR_ARG);
    assert_ok(facet_session_sync(sb, b, 220, &err), err);
    assert_int_equal(sb->n_kept, 160);
    assert_ok(facet_session_sync(sa, a, 220, &err), err);
    assert_same_logits(f.engine, logits_of(sa), want_a);
    assert_same_logits(f.engine, logits_of(sb), want_b);
    facet_session_close(sa);
    facet_session_close(sb);
    close_engine(&f);
}

static void a_new_prompt_starts_from_the_common_prefix(void **state)
{
    (void)state;
    fixture f = open_engine("cpu", 2);
    facet_error err;
    rng r;
    rng_seed(&r, 6);
    int32_t t[400];
    random_tokens(&r, t, 400);
    facet_session *s = open_session(f.engine);
    for (int n = 400; n > 0;
         n -= 37) { /* shorter and shorter: legal while the window is still there, else from the start */
        assert_ok(facet_session_sync(s, t, (size_t)n, &err), err);
        assert_int_equal(facet_session_n_tokens(s), n);
        assert_same_logits(f.engine, logits_of(s), logits_alone(f.engine, t, n));
    }
    for (int n = 300; n < 370;
         n++) { /* the same prompt again after another session ran: one token is evaluated, at every page offset */
        assert_ok(facet_session_sync(s, t, (size_t)n, &err), err);
        free(logits_alone(f.engine, t, 5));
        assert_ok(facet_session_sync(s, t, (size_t)n, &err), err);
        assert_int_equal(s->n_kept, n - 1);
    }
    facet_session_close(s);
    close_engine(&f);
}

static void the_contexts_end_is_an_error_that_changes_nothing(void **state)
{
    (void)state;
    fixture f = open_engine("cpu", 1);
    facet_error err;
    rng r;
    rng_seed(&r, 7);
    int32_t t[1025];
    random_tokens(&r, t, 1025);
    facet_session *s = open_session(f.engine);
    assert_int_equal(facet_session_sync(s, t, 1025, &err), FACET_ERR_LIMIT);
    assert_non_null(strstr(err.message, "1024"));
    assert_ok(facet_session_sync(s, t, 1024, &err), err);
    facet_session_close(s);
    close_engine(&f);
}

/* Generates n tokens as decoding does. */
static void append_one_by_one(facet_session *s, rng *r, int n)
{
    facet_error err;
    for (int i = 0; i < n; i++) {
        const int32_t token = 200 + (int32_t)rng_below(r, 1800);
        assert_ok(session_append(s, &token, 1, &err), err);
    }
}

/* A chat's next prompt parts from the session near the end of the last prompt, in front of all that was generated. */
static void after_a_long_answer_the_next_prompt_goes_on_at_the_last(void **state)
{
    (void)state;
    enum { N = 260, GENERATED = 300 }; /* the window of 128 has left the prompt by far */
    fixture f = open_engine("cpu", 2);
    facet_error err;
    rng r;
    rng_seed(&r, 8);
    int32_t a[N + 40], b[N + 40];
    random_tokens(&r, a, N + 40);
    facet_session *s = open_session(f.engine);
    for (int n = N; n < N + 40; n += 21) {
        for (int back = 0; back < KV_PAGE_LEN; back += 21) {
            assert_ok(facet_session_sync(s, a, (size_t)n, &err), err);
            append_one_by_one(s, &r, GENERATED);
            memcpy(b, a, sizeof b);
            for (int i = n - back; i < N + 40; i++) b[i] = 2000 - a[i] % 1800;
            assert_ok(facet_session_sync(s, b, N + 40, &err), err);
            assert_int_equal(s->n_kept, n - back);
            assert_same_logits(f.engine, logits_of(s), logits_alone(f.engine, b, N + 40));
        }
    }
    assert_ok(facet_session_sync(s, a, N, &err), err); /* earlier than that, the start is all that is left */
    append_one_by_one(s, &r, GENERATED);
    assert_ok(facet_session_sync(s, a, 20, &err), err);
    assert_int_equal(s->n_kept, 0);
    facet_session_close(s);
    close_engine(&f);
}

/* The mark has room up to the end of the context; only a step of many rows may cost it. */
static void the_mark_never_costs_a_session_its_room(void **state)
{
    (void)state;
    fixture f = open_engine("cpu", 1);
    facet_error err;
    rng r;
    rng_seed(&r, 9);
    int32_t t[1024];
    random_tokens(&r, t, 1024);
    facet_session *s = open_session(f.engine);
    assert_ok(facet_session_sync(s, t, 300, &err), err);
    append_one_by_one(s, &r, 1024 - 300);
    assert_int_equal(s->n_mark, 300);
    assert_ok(facet_session_sync(s, t, 299, &err), err);
    assert_int_equal(s->n_kept, 298);
    assert_ok(session_append(s, t + 299, ENGINE_MAX_ROWS, &err), err);
    assert_int_equal(s->n_mark, 0);
    assert_int_equal(facet_session_n_tokens(s), 299 + ENGINE_MAX_ROWS);
    facet_session_close(s);
    close_engine(&f);
}

typedef struct progress_log {
    int n;
    uint64_t done[8], total[8];
    uint64_t stop_at;
} progress_log;

static bool log_progress(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    progress_log *l = ud;
    assert_string_equal(phase, "prefill");
    assert_true(l->n < 8);
    l->done[l->n] = done;
    l->total[l->n++] = total;
    return done != l->stop_at;
}

static void progress_counts_what_is_evaluated_and_may_cancel(void **state)
{
    (void)state;
    fixture f = open_engine("cpu", 1);
    facet_error err;
    rng r;
    rng_seed(&r, 10);
    int32_t t[1000];
    random_tokens(&r, t, 1000);
    facet_session *s = open_session(f.engine);
    const facet_sampling greedy = facet_sampling_default();
    facet_generate_params p = facet_generate_params_default();
    facet_generate_result result;
    progress_log l = {.stop_at = ENGINE_MAX_ROWS};
    p.n_predict = 1;
    p.progress = log_progress;
    p.progress_ud = &l;
    assert_int_equal(facet_generate(s, t, 1000, &greedy, &p, &result, &err), FACET_ERR_CANCELLED);
    assert_int_equal(l.n, 2); /* before the first step, and before the one that it forbade */
    assert_int_equal(facet_session_n_tokens(s), ENGINE_MAX_ROWS);
    l = (progress_log){.stop_at = UINT64_MAX};
    assert_ok(facet_generate(s, t, 1000, &greedy, &p, &result, &err), err);
    assert_int_equal(result.n_prefill, 1000 - ENGINE_MAX_ROWS);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.done[0], 0);
    assert_int_equal(l.total[0], 1000 - ENGINE_MAX_ROWS);
    assert_int_equal(l.done[1], 1000 - ENGINE_MAX_ROWS);
    facet_session_close(s);
    close_engine(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_steps_bits_do_not_depend_on_its_width),
        cmocka_unit_test(sessions_do_not_disturb_each_other),
        cmocka_unit_test(forks_share_and_then_part),
        cmocka_unit_test(a_new_prompt_starts_from_the_common_prefix),
        cmocka_unit_test(the_contexts_end_is_an_error_that_changes_nothing),
        cmocka_unit_test(after_a_long_answer_the_next_prompt_goes_on_at_the_last),
        cmocka_unit_test(the_mark_never_costs_a_session_its_room),
        cmocka_unit_test(progress_counts_what_is_evaluated_and_may_cancel),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}

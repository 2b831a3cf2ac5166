/* test_scheduler: texts that share the steps of an engine are those that each gives alone. */
#include "decode/scheduler.h"
#include "spec_world.h"

enum { MAX_TEXTS = 80 };

typedef struct text {
    facet_session *s;
    spec_request q;
    facet_speculation how;
    facet_sampling sampling;
    spec_said said, alone;
    facet_status status;
    char error[sizeof(facet_error)];
    int n_done, first_step, last_step; /* steps at which a token came */
} text;

typedef struct fixture {
    spec_world w;
    spec_prompts prompts;
    scheduler *sc;
    text *texts; /* [MAX_TEXTS] */
    int step;
} fixture;

static fixture *open_fixture(int n_sessions, int prompt_rows)
{
    facet_error err;
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->w = spec_open(&(spec_setup){.target = SPEC_TARGET,
                                   .mtp = SPEC_MTP,
                                   .dflash = SPEC_DFLASH,
                                   .n_ctx = 1024,
                                   .n_sessions = n_sessions,
                                   .n_threads = 2});
    f->prompts = spec_bundled_prompts();
    f->texts = calloc(MAX_TEXTS, sizeof *f->texts);
    assert_non_null(f->texts);
    assert_ok(scheduler_open(f->w.engine, prompt_rows, &f->sc, &err), err);
    return f;
}

static void close_fixture(fixture *f)
{
    scheduler_close(f->sc);
    for (int i = 0; i < MAX_TEXTS; i++) facet_session_close(f->texts[i].s);
    spec_free_prompts(&f->prompts);
    spec_close(&f->w);
    free(f->texts);
    free(f);
}

static fixture *current; /* of the test that runs: callbacks look at its step */

static bool hear(void *ud, int32_t token, const char *piece, size_t n)
{
    text *t = ud;
    if (!t->said.n_calls) t->first_step = current->step;
    t->last_step = current->step;
    return spec_hear(&t->said, token, piece, n);
}

static void note_done(void *ud, facet_status status, const facet_generate_result *r, const facet_error *err)
{
    text *t = ud;
    t->n_done++;
    t->status = status;
    t->said.r = *r;
    snprintf(t->error, sizeof t->error, "%s", err ? err->message : "");
}

static scheduler_request request_of(text *t)
{
    facet_generate_params g = facet_generate_params_default();
    g.n_predict = t->q.n_predict;
    g.ignore_eos = t->q.ignore_eos;
    g.on_token = hear;
    g.ud = t;
    g.speculation = t->how;
    t->said.n = t->said.n_calls = 0;
    t->said.text[0] = 0;
    t->said.stop_after = t->q.stop_after;
    return (scheduler_request){.session = t->s,
                               .prompt = t->q.prompt,
                               .n_prompt = t->q.n_prompt,
                               .sampling = t->sampling,
                               .params = g,
                               .done = note_done,
                               .done_ud = t};
}

static void add(fixture *f, text *t)
{
    facet_error err;
    const scheduler_request r = request_of(t);
    assert_ok(scheduler_add(f->sc, &r, &err), err);
}

static void run_step(fixture *f)
{
    current = f;
    f->step++;
    scheduler_step(f->sc);
}

static void run_all(fixture *f)
{
    for (int i = 0; scheduler_n_active(f->sc) > 0; i++) {
        assert_in_range(i, 0, 5000);
        run_step(f);
    }
}

static void say_alone(fixture *f, text *t)
{
    facet_session *s = spec_session(f->w.engine);
    t->q.sampling = &t->sampling;
    spec_say(s, &t->q, NULL, NULL, &t->alone);
    facet_session_close(s);
}

/* Text i: its own prompt, length, way to draft, and every third one drawn at a temperature. */
static text *make_text(fixture *f, int i)
{
    static const facet_spec_method methods[] = {FACET_SPEC_NONE,   FACET_SPEC_MTP,  FACET_SPEC_NGRAM,
                                                FACET_SPEC_DFLASH, FACET_SPEC_AUTO, FACET_SPEC_DFLASH};
    text *t = &f->texts[i];
    const spec_prompt *p = &f->prompts.list[(i * 17) % f->prompts.n];
    t->s = spec_session(f->w.engine);
    t->q = (spec_request){.prompt = p->ids, .n_prompt = p->n, .n_predict = 8 + 5 * (i % 9), .ignore_eos = i % 4 == 1};
    t->how = (facet_speculation){.method = methods[i % 6],
                                 .adapt = i % 5 == 4 ? FACET_ADAPT_COST : FACET_ADAPT_OFF,
                                 .tree_budget = i % 6 == 5 ? 16 : 0};
    t->sampling = facet_sampling_default();
    if (i % 3 == 2) {
        t->sampling.temperature = 0.8f;
        t->sampling.seed = 100 + (uint64_t)i;
    }
    return t;
}

static void assert_as_alone(fixture *f, int n)
{
    char what[32];
    for (int i = 0; i < n; i++) {
        text *t = &f->texts[i];
        snprintf(what, sizeof what, "text %d", i);
        if (t->status != FACET_OK) fail_msg("%s: %s", what, t->error);
        assert_int_equal(t->n_done, 1);
        say_alone(f, t);
        spec_assert_same_said(&t->said, &t->alone, what);
    }
}

static void texts_that_come_and_go_are_those_of_each_alone(void **state)
{
    (void)state;
    enum { N = 24 };
    fixture *f = open_fixture(N + 1, 64);
    for (int i = 0; i < N; i++) {
        add(f, make_text(f, i));
        for (int k = 0; k < i % 4; k++) run_step(f);
    }
    run_all(f);
    assert_as_alone(f, N);
    int n_drafting = 0;
    for (int i = 0; i < N; i++) n_drafting += f->texts[i].said.r.spec.accepted > 0;
    assert_in_range(n_drafting, N / 2, N); /* drafts took part */
    close_fixture(f);
}

/* More texts than a step has wanted rows: all of them get on. */
static void more_texts_than_rows(void **state)
{
    (void)state;
    enum { N = 75 };
    fixture *f = open_fixture(N + 1, 0);
    for (int i = 0; i < N; i++) {
        text *t = make_text(f, i);
        t->q.n_predict = 6;
        t->q.ignore_eos = true;
        add(f, t);
    }
    run_all(f);
    assert_as_alone(f, N);
    close_fixture(f);
}

/* A prompt of 600 tokens comes while a text is decoded: that one gets a token in every step, and the prompt takes the
 * steps that pieces of 64 rows need. */
static void a_long_prompt_does_not_stop_the_others(void **state)
{
    (void)state;
    fixture *f = open_fixture(3, 64);
    text *a = make_text(f, 0), *b = &f->texts[1];
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    a->q.n_predict = 30;
    a->q.ignore_eos = true;
    add(f, a);
    while (a->said.n < 2) run_step(f);
    b->s = spec_session(f->w.engine);
    b->q = (spec_request){.prompt = p->ids, .n_prompt = p->n, .n_predict = 4, .ignore_eos = true};
    b->sampling = facet_sampling_default();
    add(f, b);
    const int begun = f->step;
    while (!b->said.n_calls) {
        const int before = a->said.n;
        run_step(f);
        assert_int_equal(a->said.n, before + 1);
    }
    assert_int_equal(b->first_step - begun, (int)(p->n + 63) / 64);
    run_all(f);
    assert_as_alone(f, 2);
    close_fixture(f);
}

static void what_ends_early_leaves_the_others_alone(void **state)
{
    (void)state;
    fixture *f = open_fixture(8, 0);
    for (int i = 0; i < 6; i++) {
        text *t = make_text(f, i);
        t->q.n_predict = 24;
        t->q.ignore_eos = true;
        if (i == 1) t->q.stop_after = 5;
        add(f, t);
    }
    for (int i = 0; i < 4; i++) run_step(f);
    facet_session_cancel(f->texts[2].s);
    run_all(f);
    assert_int_equal(f->texts[1].said.r.stop, FACET_STOP_CANCELLED);
    assert_int_equal(f->texts[1].said.n_calls, 5);
    assert_int_equal(f->texts[2].said.r.stop, FACET_STOP_CANCELLED);
    assert_in_range(f->texts[2].said.n, 1, 23);
    say_alone(f, &f->texts[2]);
    assert_memory_equal(f->texts[2].said.ids, f->texts[2].alone.ids, (size_t)f->texts[2].said.n * sizeof(int32_t));
    for (int i = 0; i < 6; i++)
        if (i != 1 && i != 2) {
            say_alone(f, &f->texts[i]);
            spec_assert_same_said(&f->texts[i].said, &f->texts[i].alone, "beside ended ones");
        }
    close_fixture(f);
}

/* A cache for two sessions and five of them: who finds no page ends with an error that says so. */
static void a_full_cache_ends_only_those_that_find_no_page(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 512);
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    for (int i = 0; i < 5; i++) {
        text *t = &f->texts[i];
        t->s = spec_session(f->w.engine);
        t->q = (spec_request){.prompt = p->ids, .n_prompt = p->n, .n_predict = 5 + i, .ignore_eos = true};
        t->sampling = facet_sampling_default();
        add(f, t);
    }
    run_all(f);
    int n_right = 0;
    for (int i = 0; i < 5; i++) {
        text *t = &f->texts[i];
        assert_int_equal(t->n_done, 1);
        n_right += t->status == FACET_OK;
        if (t->status == FACET_OK) continue;
        assert_int_equal(t->status, FACET_ERR_LIMIT);
        assert_non_null(strstr(t->error, "KV cache"));
    }
    assert_in_range(n_right, 2, 4);
    for (int i = 0; i < 5; i++) {
        facet_session_close(f->texts[i].s);
        f->texts[i].s = NULL;
    }
    for (int i = 0; i < 5; i++)
        if (f->texts[i].status == FACET_OK) {
            say_alone(f, &f->texts[i]);
            spec_assert_same_said(&f->texts[i].said, &f->texts[i].alone, "in a full cache");
        }
    close_fixture(f);
}

typedef struct relay {
    fixture *f;
    text *next;
} relay;

static void hand_over(void *ud, facet_status status, const facet_generate_result *r, const facet_error *err)
{
    relay *x = ud;
    (void)r, (void)err;
    assert_int_equal(status, FACET_OK);
    add(x->f, x->next);
}

/* done may give the session its next text, whose prompt begins like the one before: only the rest is evaluated. */
static void the_end_of_a_text_may_add_the_next(void **state)
{
    (void)state;
    fixture *f = open_fixture(4, 0);
    facet_error err;
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    text *a = make_text(f, 0), *b = &f->texts[1];
    *b = (text){.s = a->s, .sampling = facet_sampling_default()};
    a->q = (spec_request){.prompt = p->ids, .n_prompt = p->n - 40, .n_predict = 0};
    b->q = (spec_request){.prompt = p->ids, .n_prompt = p->n, .n_predict = 6, .ignore_eos = true};
    relay x = {f, b};
    scheduler_request r = request_of(a);
    r.done = hand_over;
    r.done_ud = &x;
    assert_ok(scheduler_add(f->sc, &r, &err), err);
    run_all(f);
    assert_int_equal(b->status, FACET_OK);
    assert_int_equal(b->said.r.n_prefill, 40);
    say_alone(f, b);
    spec_assert_same_said(&b->said, &b->alone, "second text");
    a->s = NULL; /* b's */
    close_fixture(f);
}

static void bad_requests(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 0);
    facet_error err;
    scheduler *none = NULL;
    assert_int_equal(scheduler_open(f->w.engine, 513, &none, &err), FACET_ERR_ARG);
    assert_string_equal(err.message, "prompt rows of a step: 513, wanted 0 to 512");
    text *t = make_text(f, 0);
    add(f, t);
    scheduler_request r = request_of(t);
    assert_int_equal(scheduler_add(f->sc, &r, &err), FACET_ERR_ARG);
    assert_string_equal(err.message, "the session has a text under way");
    text *u = make_text(f, 1);
    r = request_of(u);
    r.n_prompt = 0;
    assert_int_equal(scheduler_add(f->sc, &r, &err), FACET_ERR_ARG);
    assert_string_equal(err.message, "an empty prompt: give at least one token");
    const int32_t bad = 1 << 30;
    r.prompt = &bad;
    r.n_prompt = 1;
    assert_ok(scheduler_add(f->sc, &r, &err), err);
    run_all(f);
    assert_int_equal(u->status, FACET_ERR_ARG);
    assert_non_null(strstr(u->error, "token 1073741824 at position 0"));
    say_alone(f, t);
    spec_assert_same_said(&t->said, &t->alone, "beside a bad prompt");
    close_fixture(f);
}

/* Closing ends texts under way; sessions stay usable. */
static void closing_in_the_middle(void **state)
{
    (void)state;
    fixture *f = open_fixture(3, 0);
    facet_error err;
    text *a = make_text(f, 1), *b = make_text(f, 3);
    a->q.n_predict = b->q.n_predict = 60;
    a->q.ignore_eos = b->q.ignore_eos = true;
    add(f, a);
    add(f, b);
    for (int i = 0; i < 3; i++) run_step(f);
    scheduler_close(f->sc);
    assert_ok(scheduler_open(f->w.engine, 0, &f->sc, &err), err);
    assert_int_equal(a->n_done + b->n_done, 0);
    add(f, a);
    add(f, b);
    run_all(f);
    for (int i = 1; i < 4; i += 2) {
        say_alone(f, &f->texts[i]);
        spec_assert_same_said(&f->texts[i].said, &f->texts[i].alone, "after closing");
    }
    close_fixture(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_come_and_go_are_those_of_each_alone),
        cmocka_unit_test(more_texts_than_rows),
        cmocka_unit_test(a_long_prompt_does_not_stop_the_others),
        cmocka_unit_test(what_ends_early_leaves_the_others_alone),
        cmocka_unit_test(a_full_cache_ends_only_those_that_find_no_page),
        cmocka_unit_test(the_end_of_a_text_may_add_the_next),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(closing_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

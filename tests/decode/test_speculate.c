/* Speculative decoding of the bundled model: for every strategy and length the text, and what the session holds
 * afterwards, is that of plain decoding. (All targets, types and prompts: test_spec_matrix. Drafts by decree:
 * test_spec_scripted. Temperatures above 0: test_spec_sampling.) */
#include "spec_world.h"

/* Each prompt in a session of its own, plainly and speculatively. */
typedef struct pair {
    facet_session *plain, *spec;
} pair;

static pair open_pair(spec_world *w)
{
    return (pair){spec_session(w->engine), spec_session(w->engine)};
}

static void close_pair(pair *p)
{
    facet_session_close(p->plain);
    facet_session_close(p->spec);
}

static const char *label(const char *variant, const char *what, int i)
{
    static char text[128];
    snprintf(text, sizeof text, "%s, %s %d", variant, what, i);
    return text;
}

/* ---- every strategy, every length ---- */

static void every_strategy_and_length_gives_the_plain_text(void **state)
{
    (void)state;
    spec_world w = spec_open_bundled(0);
    spec_prompts prompts = spec_bundled_prompts();
    const spec_variants v = spec_all_variants(w.engine);
    const int every = spec_is_full() ? 1 : 17; /* prompts of a variant: this far apart, each variant with others */
    pair p = open_pair(&w);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    int n = 0, n_drafted = 0;
    for (int i = 0; i < prompts.n; i++) {
        spec_request q = {.prompt = prompts.list[i].ids, .n_prompt = prompts.list[i].n, .n_predict = 48};
        spec_say(p.plain, &q, NULL, NULL, want);
        for (int k = 0; k < v.n; k++) {
            if ((i + k) % every != 0) continue;
            spec_say(p.spec, &q, &v.list[k].how, NULL, got);
            spec_assert_same_said(got, want, label(v.list[k].name, prompts.list[i].name, i));
            if (n++ % 5 == 0) spec_assert_same_state(p.spec, p.plain, label(v.list[k].name, prompts.list[i].name, i));
            n_drafted += got->r.spec.drafted > 0;
        }
    }
    print_message("%d generations by %d variants, %d of them with drafts\n", n, v.n, n_drafted);
    assert_true(n_drafted > n / 2);
    free(want);
    free(got);
    close_pair(&p);
    spec_free_prompts(&prompts);
    spec_close(&w);
}

/* ---- every way for a text to end ---- */

typedef struct bench {
    spec_world w;
    spec_prompts prompts;
    spec_variants few;
    pair p;
    spec_said want, got;
} bench;

static bench *open_bench(int32_t n_ctx)
{
    bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->w = spec_open_bundled(n_ctx);
    b->prompts = spec_bundled_prompts();
    b->few = spec_few_variants(b->w.engine);
    b->p = open_pair(&b->w);
    return b;
}

static void close_bench(bench *b)
{
    close_pair(&b->p);
    spec_free_prompts(&b->prompts);
    spec_close(&b->w);
    free(b);
}

static spec_request request_for(const bench *b, const char *prompt, int32_t n_predict)
{
    const spec_prompt *p = spec_prompt_named(&b->prompts, prompt);
    return (spec_request){.prompt = p->ids, .n_prompt = p->n, .n_predict = n_predict};
}

/* The request, plainly and by each of the few variants: the same text, and the same in the session afterwards. */
static void compare_all(bench *b, const spec_request *q, bool wants_state, const char *what, int i)
{
    spec_say(b->p.plain, q, NULL, NULL, &b->want);
    spec_state held = wants_state ? spec_look(b->p.plain) : (spec_state){0};
    for (int k = 0; k < b->few.n; k++) {
        spec_say(b->p.spec, q, &b->few.list[k].how, NULL, &b->got);
        spec_assert_same_said(&b->got, &b->want, label(b->few.list[k].name, what, i));
        if (wants_state) spec_assert_holds(b->p.spec, &held, label(b->few.list[k].name, what, i));
    }
    spec_free_state(&held);
}

static void a_limit_at_every_position(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    for (int n = 0; n <= 40; n++) {
        spec_request q = request_for(b, n % 2 ? "story" : "code", n);
        q.ignore_eos = true;
        compare_all(b, &q, true, "limit", n);
        assert_int_equal(b->want.r.n_tokens, n);
    }
    close_bench(b);
}

/* Texts that end with an end token at many places of a block, and that do not end there when told not to. */
static void an_end_token_inside_a_block(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    int n_ended = 0;
    for (int i = 0; i < b->prompts.n; i += 5) {
        spec_request q = {.prompt = b->prompts.list[i].ids, .n_prompt = b->prompts.list[i].n, .n_predict = 64};
        compare_all(b, &q, i % 3 == 0, b->prompts.list[i].name, i);
        n_ended += b->want.r.stop == FACET_STOP_EOS;
        q.n_predict = b->want.n + 20;
        q.ignore_eos = true;
        compare_all(b, &q, false, "past its end, prompt", i);
        assert_int_equal(b->want.r.n_tokens, q.n_predict);
    }
    assert_true(n_ended > 15);
    close_bench(b);
}

/* Stop strings that end with each token of the text, inside it, and across two of them. */
static void a_stop_string_at_every_position(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    spec_request q = request_for(b, "story", 30);
    q.ignore_eos = true;
    spec_say(b->p.plain, &q, NULL, NULL, &b->want);
    const spec_said full = b->want;
    int n_stopped = 0;
    for (int i = 1; i + 1 < full.n; i++) {
        const size_t begin = full.at[i - 1], end = full.at[i], after = full.at[i + 1];
        if (end - begin < 2 || after == end) continue;
        const size_t cut[3][2] = {{begin, end}, {begin + 1, end + 1}, {begin > 3 ? begin - 3 : 0, after}};
        for (int c = 0; c < 3; c++) {
            char stop[64];
            snprintf(stop, sizeof stop, "%.*s", (int)(cut[c][1] - cut[c][0]), full.text + cut[c][0]);
            q.stop = stop;
            compare_all(b, &q, c == 2, stop, i);
            assert_int_equal(b->want.r.stop, FACET_STOP_STRING);
            assert_null(strstr(b->want.text, stop));
            n_stopped++;
        }
    }
    assert_true(n_stopped > 40);
    close_bench(b);
}

/* The callback says no at every position of a block. */
static void a_callback_that_stops_at_every_position(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    for (int n = 1; n <= 36; n++) {
        spec_request q = request_for(b, "code", 60);
        q.ignore_eos = true;
        q.stop_after = n;
        compare_all(b, &q, true, "no after", n);
        assert_int_equal(b->want.r.stop, FACET_STOP_CANCELLED);
        assert_int_equal(b->want.n_calls, n);
    }
    close_bench(b);
}

typedef struct canceller {
    spec_said *said;
    facet_session *s;
    int after;
} canceller;

static bool hear_and_cancel(void *ud, int32_t token, const char *text, size_t n)
{
    canceller *c = ud;
    const bool goes_on = spec_hear(c->said, token, text, n);
    if (c->said->n_calls == c->after) facet_session_cancel(c->s);
    return goes_on;
}

/* facet_session_cancel takes effect when the running step ends: the rest of its tokens is delivered. */
static void cancelling_ends_after_the_running_step(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    const facet_sampling greedy = facet_sampling_default();
    const spec_request q = request_for(b, "story", 60);
    spec_say(b->p.plain, &q, NULL, NULL, &b->want);
    for (int k = 0; k < b->few.n; k++)
        for (int after = 1; after <= 30; after++) {
            canceller c = {.said = &b->got, .s = b->p.spec, .after = after};
            facet_generate_params g = facet_generate_params_default();
            facet_generate_result r;
            facet_error err;
            const char *what = label(b->few.list[k].name, "cancelled after", after);
            b->got = (spec_said){0};
            g.n_predict = 60;
            g.on_token = hear_and_cancel;
            g.ud = &c;
            g.speculation = b->few.list[k].how;
            assert_ok(facet_generate(b->p.spec, q.prompt, q.n_prompt, &greedy, &g, &r, &err), err);
            assert_int_equal(r.stop, FACET_STOP_CANCELLED);
            assert_in_range(b->got.n, after, after + 63);
            assert_memory_equal(b->got.ids, b->want.ids, (size_t)b->got.n * sizeof *b->got.ids);
            assert_int_equal(b->p.spec->n_tokens, (int)q.n_prompt + b->got.n - 1); /* the last one was not evaluated */
            if (after % 7 == 0) spec_assert_as_fresh(b->p.spec, what);
        }
    close_bench(b);
}

/* Prompts that leave 0, 1, 2, ... positions of the context. */
static void the_context_ends_inside_a_block(void **state)
{
    (void)state;
    enum { N_CTX = 256 };
    bench *b = open_bench(N_CTX);
    const spec_prompt *p = spec_prompt_named(&b->prompts, "long");
    for (int left = 0; left <= 34; left++) {
        const spec_request q = {
            .prompt = p->ids, .n_prompt = (size_t)(N_CTX - left), .n_predict = -1, .ignore_eos = true};
        compare_all(b, &q, true, "positions left:", left);
        assert_int_equal(b->want.r.stop, FACET_STOP_LIMIT);
        assert_int_equal(b->want.r.n_tokens, left + 1);
        assert_int_equal(b->p.spec->n_tokens, N_CTX);
    }
    close_bench(b);
}

/* Shorter than the window, longer, much longer. */
static void prompts_longer_than_the_local_window(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    const spec_prompt *p = spec_prompt_named(&b->prompts, "long");
    for (size_t n = 100; n <= p->n; n += n < 200 ? 11 : 80) {
        const spec_request q = {.prompt = p->ids, .n_prompt = n, .n_predict = 80, .ignore_eos = true};
        compare_all(b, &q, true, "tokens of prompt:", (int)n);
    }
    close_bench(b);
}

/* ---- going on afterwards ---- */

/* The prompt and what was said, as the next prompt; owned by the caller. */
static int32_t *go_on_from(const spec_request *q, const spec_said *said, size_t *n)
{
    *n = q->n_prompt + (size_t)said->n;
    int32_t *ids = malloc((*n + 8) * sizeof *ids);
    assert_non_null(ids);
    memcpy(ids, q->prompt, q->n_prompt * sizeof *ids);
    memcpy(ids + q->n_prompt, said->ids, (size_t)said->n * sizeof *ids);
    return ids;
}

static void pitfall_01_two_calls_give_what_one_gives(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    const spec_request q = request_for(b, "story", 40);
    spec_say(b->p.plain, &q, NULL, NULL, &b->want);
    for (int k = 0; k < b->few.n; k++)
        for (int first = 1; first <= 20; first++) {
            const char *what = label(b->few.list[k].name, "split at", first);
            spec_request a = q;
            a.n_predict = first;
            spec_say(b->p.spec, &a, &b->few.list[k].how, NULL, &b->got);
            assert_int_equal(b->got.n, first);
            size_t n;
            int32_t *ids = go_on_from(&q, &b->got, &n);
            a = (spec_request){.prompt = ids, .n_prompt = n, .n_predict = 40 - first};
            const spec_said head = b->got;
            spec_say(b->p.spec, &a, &b->few.list[k].how, NULL, &b->got);
            assert_int_equal(b->got.r.n_prefill, 1); /* the last token of the first part */
            assert_int_equal(head.n + b->got.n, b->want.n);
            assert_memory_equal(head.ids, b->want.ids, (size_t)head.n * sizeof *head.ids);
            assert_memory_equal(b->got.ids, b->want.ids + head.n, (size_t)b->got.n * sizeof *head.ids);
            spec_assert_same_state(b->p.spec, b->p.plain, what);
            free(ids);
        }
    close_bench(b);
}

/* A conversation: after an answer that ended, the next message; each against sessions that know nothing of drafts. */
static void pitfall_02_the_conversation_goes_on_after_an_end_token(void **state)
{
    (void)state;
    static const int32_t end_of_turn = 106;
    bench *b = open_bench(0);
    const spec_prompt *second = spec_prompt_named(&b->prompts, "json");
    for (int k = 0; k < b->few.n; k++) {
        size_t n = 0;
        int32_t *ids = malloc(1024 * sizeof *ids);
        for (int turn = 0; turn < 4; turn++) {
            const char *what = label(b->few.list[k].name, "turn", turn);
            memcpy(ids + n, second->ids + (turn > 0), (second->n - (turn > 0)) * sizeof *ids); /* one <bos> */
            n += second->n - (turn > 0);
            const spec_request q = {.prompt = ids, .n_prompt = n, .n_predict = 64};
            spec_say(b->p.plain, &q, NULL, NULL, &b->want);
            spec_say(b->p.spec, &q, &b->few.list[k].how, NULL, &b->got);
            spec_assert_same_said(&b->got, &b->want, what);
            assert_int_equal(b->got.r.n_prefill, b->want.r.n_prefill);
            spec_assert_same_state(b->p.spec, b->p.plain, what);
            spec_assert_as_fresh(b->p.spec, what);
            memcpy(ids + n, b->want.ids, (size_t)b->want.n * sizeof *ids);
            n += (size_t)b->want.n;
            ids[n++] = end_of_turn;
        }
        free(ids);
    }
    close_bench(b);
}

/* Back to an earlier point of the same session: shorter prompts reuse what plain decoding would reuse. */
static void shorter_prompts_reuse_the_prefix(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    const spec_prompt *p = spec_prompt_named(&b->prompts, "long");
    for (int k = 0; k < b->few.n; k++) {
        spec_request q = {.prompt = p->ids, .n_prompt = 400, .n_predict = 150, .ignore_eos = true};
        facet_error err;
        spec_say(b->p.plain, &q, NULL, NULL, &b->want);
        spec_say(b->p.spec, &q, &b->few.list[k].how, NULL, &b->got);
        spec_assert_same_said(&b->got, &b->want, b->few.list[k].name);
        size_t n;
        int32_t *ids = go_on_from(&q, &b->got, &n);
        /* into the answer; to the mark at the prompt's end; before it; before the window */
        const size_t stops[] = {n - 5, n - 60, 400, 380, 100};
        for (int i = 0; i < 5; i++) {
            assert_ok(facet_session_sync(b->p.plain, ids, stops[i], &err), err);
            assert_ok(facet_session_sync(b->p.spec, ids, stops[i], &err), err);
            assert_int_equal(b->p.spec->n_kept, b->p.plain->n_kept);
            spec_assert_same_state(b->p.spec, b->p.plain, label(b->few.list[k].name, "back to", (int)stops[i]));
            q = (spec_request){.prompt = ids, .n_prompt = stops[i], .n_predict = 20, .ignore_eos = true};
            spec_say(b->p.plain, &q, NULL, NULL, &b->want);
            spec_say(b->p.spec, &q, &b->few.list[k].how, NULL, &b->got);
            spec_assert_same_said(&b->got, &b->want, label(b->few.list[k].name, "after going back to", (int)stops[i]));
        }
        free(ids);
    }
    close_bench(b);
}

/* One session in a pool that holds no more: full steps never take the mark's pages. */
static void speculation_never_costs_the_mark(void **state)
{
    (void)state;
    spec_world w = spec_open(
        &(spec_setup){.target = SPEC_TARGET, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .n_ctx = 1024, .n_sessions = 1});
    spec_prompts prompts = spec_bundled_prompts();
    const spec_prompt *p = spec_prompt_named(&prompts, "long");
    facet_session *s = spec_session(w.engine);
    spec_said *said = malloc(sizeof *said);
    const spec_request q = {.prompt = p->ids, .n_prompt = 300, .n_predict = 400, .ignore_eos = true};
    const facet_speculation ways[] = {
        {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 63},
        {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = 16},
        {.method = FACET_SPEC_NGRAM, .adapt = FACET_ADAPT_OFF, .draft_max = 63},
    };
    for (int i = 0; i < 3; i++) {
        facet_error err;
        spec_say(s, &q, &ways[i], NULL, said);
        assert_int_equal(s->n_mark, 300);
        assert_ok(facet_session_sync(s, p->ids, 299, &err), err);
        assert_int_equal(s->n_kept, 298);
    }
    free(said);
    facet_session_close(s);
    spec_free_prompts(&prompts);
    spec_close(&w);
}

/* ---- several sessions ---- */

static void forks_go_on_both(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    for (int k = 0; k < b->few.n; k++) {
        const facet_speculation *how = &b->few.list[k].how;
        const spec_request q = request_for(b, "long", 30);
        facet_session *fork, *other;
        facet_error err;
        size_t n;
        spec_say(b->p.spec, &q, how, NULL, &b->got);
        assert_ok(facet_session_fork(b->p.spec, &fork, &err), err);
        assert_ok(facet_session_fork(b->p.spec, &other, &err), err);
        int32_t *ids = go_on_from(&q, &b->got, &n);
        for (int turn = 0; turn < 3; turn++) { /* they part: one goes on, one says something else, one again */
            facet_session *s = turn == 0 ? fork : turn == 1 ? other : b->p.spec;
            ids[n] = 500 + turn;
            const spec_request more = {
                .prompt = ids, .n_prompt = n + (size_t)(turn > 0), .n_predict = 40, .ignore_eos = true};
            spec_say(b->p.plain, &more, NULL, NULL, &b->want);
            spec_say(s, &more, how, NULL, &b->got);
            spec_assert_same_said(&b->got, &b->want, label(b->few.list[k].name, "branch", turn));
            spec_assert_same_state(s, b->p.plain, label(b->few.list[k].name, "branch", turn));
        }
        free(ids);
        facet_session_close(fork);
        facet_session_close(other);
    }
    close_bench(b);
}

typedef struct talker {
    spec_said *said, *inner; /* the latter's calls run inside the former's */
    facet_session *s;
    const spec_request *q;
    const facet_speculation *how;
    const spec_said *inner_want;
    int every;
} talker;

static bool hear_and_let_another_talk(void *ud, int32_t token, const char *text, size_t n)
{
    talker *t = ud;
    const bool goes_on = spec_hear(t->said, token, text, n);
    if (t->said->n_calls % t->every) return goes_on;
    spec_say(t->s, t->q, t->how, NULL, t->inner);
    spec_assert_same_said(t->inner, t->inner_want, "the inner one");
    return goes_on;
}

/* Another session generates inside the callback, in the middle of a step: its outputs overwrite those that the step
 * would commit from. */
static void another_session_runs_in_the_middle_of_a_step(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    const facet_sampling greedy = facet_sampling_default();
    const spec_request outer = request_for(b, "story", 40), inner = request_for(b, "arith", 12);
    spec_said *inner_want = malloc(sizeof *inner_want), *inner_got = malloc(sizeof *inner_got);
    facet_session *third = spec_session(b->w.engine);
    spec_say(third, &inner, NULL, NULL, inner_want);
    spec_say(b->p.plain, &outer, NULL, NULL, &b->want);
    for (int k = 0; k < b->few.n; k++)
        for (int every = 1; every <= 5; every += 2) {
            talker t = {.said = &b->got, .inner = inner_got, .s = third, .q = &inner, .inner_want = inner_want};
            facet_generate_params g = facet_generate_params_default();
            facet_error err;
            t.how = &b->few.list[(k + every) % b->few.n].how; /* another strategy, too: another set of arms */
            t.every = every;
            g.n_predict = 40;
            g.on_token = hear_and_let_another_talk;
            g.ud = &t;
            g.speculation = b->few.list[k].how;
            b->got = (spec_said){0};
            assert_ok(facet_generate(b->p.spec, outer.prompt, outer.n_prompt, &greedy, &g, &b->got.r, &err), err);
            spec_assert_same_said(&b->got, &b->want, label(b->few.list[k].name, "another one every", every));
            spec_assert_same_state(b->p.spec, b->p.plain, label(b->few.list[k].name, "another one every", every));
        }
    facet_session_close(third);
    free(inner_want);
    free(inner_got);
    close_bench(b);
}

/* Sessions take turns, a few tokens each: the outputs of the last step are never those of the session whose turn it is.
 */
static void sessions_take_turns(void **state)
{
    (void)state;
    enum { N = 3, TURNS = 5 };
    static const char *const names[N] = {"story", "code", "tools"};
    bench *b = open_bench(0);
    for (int k = 0; k < b->few.n; k++) {
        facet_session *s[N];
        int32_t *ids[N];
        size_t n[N], begin[N];
        for (int i = 0; i < N; i++) {
            const spec_prompt *p = spec_prompt_named(&b->prompts, names[i]);
            s[i] = spec_session(b->w.engine);
            ids[i] = malloc((p->n + 64) * sizeof *ids[i]);
            memcpy(ids[i], p->ids, p->n * sizeof *ids[i]);
            begin[i] = n[i] = p->n;
        }
        for (int turn = 0; turn < TURNS * N; turn++) {
            const int i = turn % N;
            const spec_request q = {
                .prompt = ids[i], .n_prompt = n[i], .n_predict = 4 + (turn * 3) % 5, .ignore_eos = true};
            spec_say(s[i], &q, &b->few.list[k].how, NULL, &b->got);
            memcpy(ids[i] + n[i], b->got.ids, (size_t)b->got.n * sizeof *ids[i]);
            n[i] += (size_t)b->got.n;
        }
        for (int i = 0; i < N; i++) {
            const spec_request q = {
                .prompt = ids[i], .n_prompt = begin[i], .n_predict = (int)(n[i] - begin[i]), .ignore_eos = true};
            spec_say(b->p.plain, &q, NULL, NULL, &b->want);
            assert_memory_equal(b->want.ids, ids[i] + begin[i], (n[i] - begin[i]) * sizeof *ids[i]);
            spec_assert_same_state(s[i], b->p.plain, label(b->few.list[k].name, names[i], i));
            facet_session_close(s[i]);
            free(ids[i]);
        }
    }
    close_bench(b);
}

/* ---- what the drafters see ---- */

/* spec_assert_same_state asks both drafters what they would say: the hidden state that the assistant starts from is
 * that of the last committed row, and the block drafter's context holds the features of the committed rows, and no row
 * of a block. */
static void pitfall_14_22_23_drafters_see_the_committed_rows_alone(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    const spec_variants all = spec_all_variants(b->w.engine);
    const spec_request q = request_for(b, "tools", 40);
    spec_say(b->p.plain, &q, NULL, NULL, &b->want);
    spec_assert_as_fresh(b->p.plain, "plain");
    for (int k = 0; k < all.n; k++) {
        spec_say(b->p.spec, &q, &all.list[k].how, NULL, &b->got);
        spec_assert_same_said(&b->got, &b->want, all.list[k].name);
        spec_assert_same_state(b->p.spec, b->p.plain, all.list[k].name);
    }
    close_bench(b);
}

/* The block drafter sees 128 positions: the prompt has three times as many, and the text goes on over the end again and
 * again. */
static void pitfall_24_25_the_drafters_context_is_shorter_than_the_text(void **state)
{
    (void)state;
    spec_world w = spec_open(&(spec_setup){.target = SPEC_TARGET, .dflash = SPEC_DFLASH, .draft_ctx = 128});
    spec_prompts prompts = spec_bundled_prompts();
    const spec_prompt *p = spec_prompt_named(&prompts, "long");
    pair pr = open_pair(&w);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    const spec_request q = {.prompt = p->ids, .n_prompt = 3 * 128 + 5, .n_predict = 300, .ignore_eos = true};
    spec_say(pr.plain, &q, NULL, NULL, want);
    for (int budget = 0; budget <= 22; budget += 11) {
        const facet_speculation how = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = budget};
        spec_say(pr.spec, &q, &how, NULL, got);
        spec_assert_same_said(got, want, label("dflash", "budget", budget));
        spec_assert_same_state(pr.spec, pr.plain, label("dflash", "budget", budget));
        spec_assert_as_fresh(pr.spec, label("dflash", "budget", budget));
    }
    free(want);
    free(got);
    close_pair(&pr);
    spec_free_prompts(&prompts);
    spec_close(&w);
}

/* ---- options ---- */

/* One step by these options behind the prompt "story"; its proposal. */
static proposal *first_proposal(bench *b, const facet_speculation *how)
{
    proposal *out = malloc(sizeof *out);
    const spec_prompt *p = spec_prompt_named(&b->prompts, "story");
    const facet_sampling greedy = facet_sampling_default();
    speculation *sp = malloc(sizeof *sp);
    facet_error err;
    chooser c = {0};
    int32_t pending;
    assert_ok(sampler_open(&greedy, (int32_t)b->w.engine->model->h.n_vocab, &c.sampler, &err), err);
    assert_ok(facet_session_sync(b->p.spec, p->ids, p->n, &err), err);
    assert_ok(speculation_begin(sp, b->p.spec, how, NULL, &err), err);
    assert_ok(verify_first(b->p.spec, &c, &pending, &err), err);
    assert_ok(speculation_step(sp, &c, pending, 1000, &err), err);
    *out = sp->proposal;
    assert_ok(speculation_commit(sp, 1, &err), err);
    sampler_close(c.sampler);
    free(sp);
    return out;
}

/* 64 rows are a step: the root and 63 nodes. */
static void a_budget_of_64_fills_a_step(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    facet_speculation how = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 64};
    proposal *full = first_proposal(b, &how);
    assert_int_equal(full->n, 63);
    assert_int_equal(full->tree.n_rows, ENGINE_MAX_OUT);
    for (int budget = 63; budget > 0; budget -= 9) { /* smaller ones are its beginnings */
        how.tree_budget = budget;
        proposal *p = first_proposal(b, &how);
        assert_int_equal(p->n, budget);
        assert_memory_equal(p->tree.token, full->tree.token, (size_t)p->tree.n_rows * sizeof *p->tree.token);
        assert_memory_equal(p->tree.parent, full->tree.parent, (size_t)p->tree.n_rows);
        free(p);
    }
    how.tree_budget = 64;
    how.draft_max = 10; /* the smaller one of two limits holds */
    proposal *p = first_proposal(b, &how);
    assert_int_equal(p->n, 10);
    free(p);
    free(full);
    close_bench(b);
}

/* Where the assistant's queries stand changes what it is sure of, and never the text. */
static void positions_of_the_assistants_queries(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    facet_speculation how = {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = 4};
    proposal *p[3];
    const spec_request q = request_for(b, "long", 60);
    spec_say(b->p.plain, &q, NULL, NULL, &b->want);
    for (int i = 0; i < 3; i++) {
        how.mtp_pos = (facet_mtp_pos)i;
        p[i] = first_proposal(b, &how);
        assert_int_equal(p[i]->n, 4);
        spec_say(b->p.spec, &q, &how, NULL, &b->got);
        spec_assert_same_said(&b->got, &b->want, "positions");
        spec_assert_same_state(b->p.spec, b->p.plain, "positions");
    }
    assert_true(p[FACET_MTP_POS_INCR]->conf[0] == p[FACET_MTP_POS_CONST]->conf[0]); /* C in the first step, then not */
    assert_true(p[FACET_MTP_POS_INCR]->conf[1] != p[FACET_MTP_POS_CONST]->conf[1]);
    assert_true(p[FACET_MTP_POS_CONST_BEFORE]->conf[0] != p[FACET_MTP_POS_CONST]->conf[0]);
    for (int i = 0; i < 3; i++) free(p[i]);
    close_bench(b);
}

/* A threshold that no product of confidences reaches leaves the least width, the pending token's row included. */
static void the_least_width_of_a_chain(void **state)
{
    (void)state;
    static const int widths[][2] = {{0, 4}, {1, 1}, {2, 2}, {9, 9}, {16, 16}, {64, 16}};
    bench *b = open_bench(0);
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const facet_speculation how = {
            .method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .width_theta = 1, .width_min = widths[i][0]};
        proposal *p = first_proposal(b, &how);
        assert_int_equal(p->n + 1, widths[i][1]);
        free(p);
    }
    close_bench(b);
}

static void options_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        facet_speculation how;
        const char *message;
    } rows[] = {
        {{.method = (facet_spec_method)9}, "speculation method is 9, wanted 0 to 4"},
        {{.method = (facet_spec_method)-1}, "speculation method is -1, wanted 0 to 4"},
        {{.adapt = (facet_spec_adapt)4}, "speculation adapt is 4, wanted 0 to 3"},
        {{.draft_max = 64}, "draft_max is 64, wanted 0 to 63"},
        {{.draft_max = -1}, "draft_max is -1, wanted 0 to 63"},
        {{.mtp_gamma = 17}, "mtp_gamma is 17, wanted 0 to 16"},
        {{.tree_budget = 65}, "tree_budget is 65, wanted -1 to 64"},
        {{.tree_budget = -2}, "tree_budget is -2, wanted -1 to 64"},
        {{.p_min = 1.5f}, "p_min is 1.5, wanted 0 to 1"},
        {{.p_min = -0.5f}, "p_min is -0.5, wanted 0 to 1"},
        {{.width_theta = 2}, "width_theta is 2, wanted 0 to 1"},
        {{.width_min = 65}, "width_min is 65, wanted 0 to 64"},
        {{.width_min = -1}, "width_min is -1, wanted 0 to 64"},
        {{.mtp_pos = (facet_mtp_pos)3}, "mtp_pos is 3, wanted 0 to 2"},
        {{.method = FACET_SPEC_MTP}, "speculation by MTP wants an MTP drafter, and none was given"},
        {{.method = FACET_SPEC_DFLASH}, "speculation by DFlash wants a DFlash drafter, and none was given"},
    };
    spec_world w = spec_open(&(spec_setup){.target = SPEC_TARGET});
    facet_session *s = spec_session(w.engine);
    spec_said *said = malloc(sizeof *said);
    const int32_t bos = 2;
    const spec_request q = {.prompt = &bos, .n_prompt = 1, .n_predict = 3};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        facet_error err = {0};
        assert_int_equal(spec_try(s, &q, &rows[i].how, NULL, said, &err), FACET_ERR_ARG);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(s->n_tokens, 0);
    }
    const facet_speculation ngram = {.method = FACET_SPEC_AUTO}; /* needs no drafter */
    spec_say(s, &q, &ngram, NULL, said);
    free(said);
    facet_session_close(s);
    spec_close(&w);
}

/* ---- statistics ---- */

static void statistics_add_up(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    facet_spec_stats sum = {0};
    uint64_t committed = 0, steps = 0;
    for (int k = 0; k < b->few.n; k++) {
        const spec_request q = request_for(b, "story", 60);
        const int32_t before = (int32_t)q.n_prompt;
        spec_say(b->p.spec, &q, &b->few.list[k].how, NULL, &b->got);
        const facet_spec_stats *s = &b->got.r.spec;
        assert_int_equal(s->committed, b->p.spec->n_tokens - before);
        assert_true(s->accepted <= s->drafted);
        assert_true(s->committed <= s->steps + s->accepted); /* less what was cut */
        assert_true(s->reached[0] == s->steps - s->plain_steps);
        uint64_t held = 0, method = 0;
        for (int i = 0; i < FACET_SPEC_DEPTHS; i++) {
            held += s->held[i];
            if (i > 0) assert_true(s->reached[i] <= s->held[i - 1] || i == FACET_SPEC_DEPTHS - 1);
        }
        for (int i = 0; i < FACET_SPEC_AUTO; i++) method += s->method_steps[i];
        assert_int_equal(held, s->accepted);
        assert_int_equal(method, s->steps - s->plain_steps);
        facet_spec_stats_add(&sum, s);
        committed += s->committed;
        steps += s->steps;
        assert_int_equal(sum.committed, committed);
        assert_int_equal(sum.steps, steps);
        assert_true(sum.mean_accepted == (double)committed / (double)steps);
        for (int i = 0; i < FACET_SPEC_DEPTHS; i++)
            if (sum.reached[i]) assert_true(sum.acceptance[i] == (double)sum.held[i] / (double)sum.reached[i]);
    }
    spec_request q = request_for(b, "story", 60);
    spec_say(b->p.plain, &q, NULL, NULL, &b->want);
    assert_int_equal(b->want.r.spec.drafted, 0);
    assert_int_equal(b->want.r.spec.steps, b->want.r.spec.plain_steps);
    assert_int_equal(b->want.r.spec.steps, b->p.plain->n_tokens - (int32_t)q.n_prompt);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_strategy_and_length_gives_the_plain_text),
        cmocka_unit_test(a_limit_at_every_position),
        cmocka_unit_test(an_end_token_inside_a_block),
        cmocka_unit_test(a_stop_string_at_every_position),
        cmocka_unit_test(a_callback_that_stops_at_every_position),
        cmocka_unit_test(cancelling_ends_after_the_running_step),
        cmocka_unit_test(the_context_ends_inside_a_block),
        cmocka_unit_test(prompts_longer_than_the_local_window),
        cmocka_unit_test(pitfall_01_two_calls_give_what_one_gives),
        cmocka_unit_test(pitfall_02_the_conversation_goes_on_after_an_end_token),
        cmocka_unit_test(shorter_prompts_reuse_the_prefix),
        cmocka_unit_test(speculation_never_costs_the_mark),
        cmocka_unit_test(forks_go_on_both),
        cmocka_unit_test(another_session_runs_in_the_middle_of_a_step),
        cmocka_unit_test(sessions_take_turns),
        cmocka_unit_test(pitfall_14_22_23_drafters_see_the_committed_rows_alone),
        cmocka_unit_test(pitfall_24_25_the_drafters_context_is_shorter_than_the_text),
        cmocka_unit_test(a_budget_of_64_fills_a_step),
        cmocka_unit_test(positions_of_the_assistants_queries),
        cmocka_unit_test(the_least_width_of_a_chain),
        cmocka_unit_test(options_out_of_range_are_named),
        cmocka_unit_test(statistics_add_up),
    };
    return cmocka_run_group_tests_name("speculate", tests, NULL, NULL);
}

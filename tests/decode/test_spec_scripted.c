/* Verification by itself: drafts come from the known text, right, wrong and half right, as chains and as trees. Text
 * and session must be those of plain decoding whatever is drafted; what is right must be accepted, and nothing else. */
#include "spec_scripted.h"

#include <math.h>

#include "base/mem.h"

enum { N_MORE = 160 }; /* tokens of the known text behind those that are asked for */

typedef struct fixture {
    spec_world w;
    spec_prompts prompts;
    facet_session *plain, *spec;
    int32_t *truth; /* of the prompt in use */
    int n_truth;
    spec_request q;
    spec_said want, got;
    spec_state held; /* by the plain session after what it said */
} fixture;

static fixture *open_fixture(const spec_setup *o)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->w = spec_open(o);
    f->prompts = spec_bundled_prompts();
    f->plain = spec_session(f->w.engine);
    f->spec = spec_session(f->w.engine);
    return f;
}

static fixture *open_bundled(void)
{
    return open_fixture(&(spec_setup){.target = SPEC_TARGET, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH});
}

/* The plain session answers the request; the others are measured by that. */
static void ask(fixture *f, int n)
{
    f->q.n_predict = n;
    spec_say(f->plain, &f->q, NULL, NULL, &f->want);
    spec_free_state(&f->held);
    f->held = spec_look(f->plain);
}

/* The first n_prompt tokens of a prompt (0 = all), n to be predicted, going on after end tokens. */
static void use_prompt(fixture *f, const char *name, size_t n_prompt, int n)
{
    const spec_prompt *p = spec_prompt_named(&f->prompts, name);
    if (n_prompt == 0) n_prompt = p->n;
    free(f->truth);
    f->n_truth = (int)n_prompt + n + N_MORE;
    f->truth = script_truth(f->plain, p->ids, n_prompt, n + N_MORE);
    f->q = (spec_request){.prompt = p->ids, .n_prompt = n_prompt, .ignore_eos = true};
    ask(f, n);
}

static void close_fixture(fixture *f)
{
    free(f->truth);
    spec_free_state(&f->held);
    facet_session_close(f->plain);
    facet_session_close(f->spec);
    spec_free_prompts(&f->prompts);
    spec_close(&f->w);
    free(f);
}

static const char *label(const script *c, const char *what, int i)
{
    static const char *const kinds[] = {"oracle", "adversary", "half", "last"};
    static char text[128];
    snprintf(text, sizeof text, "%s %s %d, %s %d", kinds[c->kind], c->is_tree ? "tree" : "chain", c->k, what, i);
    return text;
}

/* The request by the script: text and session as they should be. */
static void run_script(fixture *f, script *c, facet_spec_adapt adapt, const char *what, int i)
{
    const facet_speculation how = {.adapt = adapt};
    c->truth = f->truth;
    c->n_truth = f->n_truth;
    spec_say(f->spec, &f->q, &how, &c->ops, &f->got);
    spec_assert_same_said(&f->got, &f->want, label(c, what, i));
    spec_assert_holds(f->spec, &f->held, label(c, what, i));
}

/* What must have been accepted of what was drafted. */
static void check_acceptance(const fixture *f, const script *c)
{
    const facet_spec_stats *s = &f->got.r.spec;
    assert_int_equal(s->accepted, c->n_right);
    assert_int_equal(s->drafted, c->n_proposed);
    if (c->kind == SCRIPT_ADVERSARY) assert_int_equal(s->accepted, 0);
    if (c->kind == SCRIPT_ADVERSARY) assert_int_equal(s->steps, s->committed); /* exactly one token a step */
    if (c->kind == SCRIPT_HALF && !c->is_tree && c->k > 1) assert_in_range(s->accepted, 1, s->drafted - 1);
    if (c->kind != SCRIPT_ORACLE || c->is_tree) return;
    assert_int_equal(s->accepted, s->drafted);
    assert_int_equal(s->steps, (s->committed + (uint64_t)c->k) / (uint64_t)(c->k + 1));
}

static void every_script_gives_the_plain_text(void **state)
{
    (void)state;
    static const int widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 22, 31, 63};
    fixture *f = open_bundled();
    use_prompt(f, "story", 0, 34);
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int kind = SCRIPT_ORACLE; kind <= SCRIPT_HALF; kind++)
            for (int is_tree = 0; is_tree < 2; is_tree++) {
                script c = script_open((script_kind)kind, is_tree, widths[i], 1000 * i + (size_t)kind);
                run_script(f, &c, FACET_ADAPT_OFF, "fixed", 0);
                check_acceptance(f, &c);
            }
    close_fixture(f);
}

/* Whatever the two rules for lengths make of them. */
static void scripts_under_adaptive_lengths(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    for (int i = 0; i < 24; i++) {
        if (i % 6 == 0) use_prompt(f, i % 12 ? "code" : "tools", 0, 90);
        script c = script_open((script_kind)(i % 3), i / 3 % 2, i < 12 ? 0 : 16, (uint64_t)i);
        run_script(f, &c, i % 4 < 2 ? FACET_ADAPT_COST : FACET_ADAPT_WINDOW, "adaptive", i);
    }
    close_fixture(f);
}

/* ---- the same with every way to end ---- */

static void scripts_and_every_limit(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    use_prompt(f, "chat", 0, 40);
    for (int n = 1; n <= 40; n++) {
        ask(f, n);
        for (int kind = 0; kind < 4; kind++) {
            script c = script_open((script_kind)kind, kind == SCRIPT_LAST || n % 2, 15, (uint64_t)n);
            run_script(f, &c, FACET_ADAPT_OFF, "limit", n);
        }
    }
    close_fixture(f);
}

/* The drafts go on over the end token as if it were none. */
static void pitfall_02_end_tokens_inside_right_drafts(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    int n_ended = 0;
    for (int i = 0; i < 112; i += 9) {
        use_prompt(f, f->prompts.list[i].name, 0, 100);
        f->q.ignore_eos = false;
        ask(f, 100);
        n_ended += f->want.r.stop == FACET_STOP_EOS;
        for (int kind = 0; kind < 4; kind++) {
            script c = script_open((script_kind)kind, kind == SCRIPT_LAST || i % 2, 3 + i % 29, (uint64_t)i);
            run_script(f, &c, FACET_ADAPT_OFF, "prompt", i);
        }
        spec_assert_as_fresh(f->spec, f->prompts.list[i].name);
    }
    assert_true(n_ended > 8);
    close_fixture(f);
}

static void scripts_and_every_refusal(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    use_prompt(f, "code", 0, 60);
    for (int n = 1; n <= 34; n++) {
        f->q.stop_after = n;
        ask(f, 60);
        for (int kind = 0; kind < 4; kind++) {
            script c = script_open((script_kind)kind, kind == SCRIPT_LAST || n % 2, 16, (uint64_t)n);
            run_script(f, &c, FACET_ADAPT_OFF, "no after", n);
        }
    }
    close_fixture(f);
}

/* ---- the cache ---- */

/* Steps of 64 rows, all but the first rejected, or all accepted, far beyond the window: nothing that a later row sees
 * may have been given back or overwritten, in local and in global layers. */
static void pitfall_03_04_far_beyond_the_window(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    assert_int_equal(f->w.engine->kv.groups[KV_GROUP_LOCAL].window, 128);
    for (int n = 70; n <= 150; n += 80) { /* tokens to predict; the state is looked at there */
        use_prompt(f, "long", (size_t)(600 - n), n);
        for (int kind = 0; kind < 4; kind++) {
            script c = script_open((script_kind)kind, kind == SCRIPT_LAST || n == 150, 63, (uint64_t)n);
            run_script(f, &c, FACET_ADAPT_OFF, "window", n);
        }
    }
    close_fixture(f);
}

/* Drafts of a whole block, few of which are verified, around the ends of pages: what is dropped is what was run, and
 * the pages that only the block had used. */
static void pitfall_05_drafts_wider_than_what_is_verified(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    const facet_speculation how = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .width_theta = 1};
    f->q = (spec_request){.prompt = spec_prompt_named(&f->prompts, "long")->ids, .ignore_eos = true};
    for (f->q.n_prompt = 110; f->q.n_prompt < 130; f->q.n_prompt++)
        for (int n = 2; n <= 14; n += 6) {
            ask(f, n);
            spec_say(f->spec, &f->q, &how, NULL, &f->got);
            spec_assert_same_said(&f->got, &f->want, "block of 16, 4 rows");
            spec_assert_holds(f->spec, &f->held, "block of 16, 4 rows");
            assert_true(f->got.r.spec.drafted <= 3 * f->got.r.spec.steps);
        }
    close_fixture(f);
}

/* Trees whose right path lies behind all the wrong nodes, step after step. On a device: copies in the order of the
 * steps, or this gives other text now and then. */
static void pitfall_06_a_path_that_moves_in_every_step(void **state)
{
    (void)state;
    const int wanted = spec_is_full() ? 1000 : 150;
    fixture *f = open_bundled();
    int n_steps = 0;
    uint64_t n_moves = 0;
    for (int i = 0; n_steps < wanted; i++) {
        use_prompt(f, "long", (size_t)(100 + 37 * (i % 12)), 250);
        script c = script_open(SCRIPT_LAST, true, 7 + i % 3, (uint64_t)i);
        run_script(f, &c, FACET_ADAPT_OFF, "round", i);
        assert_int_equal(f->got.r.spec.accepted, c.n_right);
        n_steps += (int)f->got.r.spec.steps;
        n_moves += f->got.r.spec.moves;
    }
    assert_true(n_moves > 3 * (uint64_t)n_steps);
    close_fixture(f);
}

/* ---- rows of a tree ---- */

/* A tree of random shape and tokens. */
static void random_tree(rng *r, draft_tree *t, int n)
{
    script_plant(t, 200 + (int32_t)rng_below(r, 1800));
    while (t->n_rows < n) {
        const int back = t->n_rows < 8 ? t->n_rows : 8; /* deep ones, too */
        const int parent = rng_below(r, 2) ? (int)rng_below(r, (uint32_t)t->n_rows)
                                           : t->n_rows - 1 - (int)rng_below(r, (uint32_t)back);
        script_add_node(t, parent, 200 + (int32_t)rng_below(r, 1800));
    }
}

static void eval_tree(facet_engine *e, kv_seq *kv, const draft_tree *t, int32_t base, float *logits)
{
    facet_error err;
    engine_part part = {.seq = kv, .start = base, .n = t->n_rows, .n_out = t->n_rows, .tree = t};
    engine_step_begin(e);
    assert_ok(engine_step_add(e, &part, &err), err);
    assert_ok(engine_step_run(e, NULL, &err), err);
    assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, 0, t->n_rows, logits, &err), err);
}

/* Each row of a tree against its path alone, token after token, as plain decoding would run it: every bit. */
static void pitfall_07_a_row_is_its_path(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    facet_engine *e = f->w.engine;
    const size_t V = e->model->h.n_vocab;
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    float *tree_logits = malloc(64 * V * sizeof *tree_logits), *logits = malloc(64 * V * sizeof *logits);
    rng r;
    rng_seed(&r, 7);
    facet_error err;
    for (int i = 0; i < (spec_is_full() ? 60 : 12); i++) {
        const int32_t base = 40 + 47 * (i % 11); /* on both sides of the window, all places of a page */
        draft_tree t;
        kv_seq kv = {0};
        random_tree(&r, &t, i % 4 == 0 ? 64 : 2 + (int)rng_below(&r, 62));
        assert_ok(engine_eval(e, &kv, p->ids, 0, base < 500 ? base : 500, 1, &err), err);
        if (base > 500) assert_ok(engine_eval(e, &kv, p->ids + 500, 500, base - 500, 1, &err), err);
        eval_tree(e, &kv, &t, base, tree_logits);
        for (int row = 0; row < t.n_rows; row += 1 + t.n_rows / 12) {
            const int n = t.depth[row] + 1;
            int32_t path[DRAFT_TREE_MAX_ROWS];
            for (int d = 0; d < n; d++) path[d] = t.token[t.path[row][d]];
            assert_ok(engine_eval(e, &kv, path, base, n, n, &err), err);
            assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, n - 1, 1, logits, &err), err);
            spec_assert_same_floats(tree_logits + (size_t)row * V, logits, (uint32_t)V, "logit", "row of a tree");
        }
        kv_seq_free(e->pool, &kv);
    }
    free(tree_logits);
    free(logits);
    close_fixture(f);
}

/* Another token in one row: the rows that descend from it change, all others keep every bit. */
static void pitfall_08_a_row_sees_its_ancestors_alone(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    facet_engine *e = f->w.engine;
    const size_t V = e->model->h.n_vocab;
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    float *before = malloc(64 * V * sizeof *before), *after = malloc(64 * V * sizeof *after);
    kv_seq kv = {0};
    rng r;
    rng_seed(&r, 8);
    facet_error err;
    assert_ok(engine_eval(e, &kv, p->ids, 0, 200, 1, &err), err);
    for (int i = 0; i < 12; i++) {
        draft_tree t;
        random_tree(&r, &t, 16 + 4 * i);
        eval_tree(e, &kv, &t, 200, before);
        const int changed = (int)rng_below(&r, (uint32_t)t.n_rows);
        t.token[changed] = 200 + (t.token[changed] - 200 + 1 + (int32_t)rng_below(&r, 1700)) % 1800;
        eval_tree(e, &kv, &t, 200, after);
        for (int row = 0; row < t.n_rows; row++) {
            const bool is_same = memcmp(before + (size_t)row * V, after + (size_t)row * V, V * sizeof *before) == 0;
            assert_int_equal(is_same, !(t.ancestors[row] >> changed & 1));
        }
    }
    kv_seq_free(e->pool, &kv);
    free(before);
    free(after);
    close_fixture(f);
}

/* A budget of 63 where the context leaves room for few: steps are as wide as there are nodes, and everything in them is
 * finite (spec_assert_same_state compares the logits that follow). */
static void pitfall_09_a_budget_far_above_the_nodes(void **state)
{
    (void)state;
    enum { N_CTX = 192 };
    fixture *f =
        open_fixture(&(spec_setup){.target = SPEC_TARGET, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .n_ctx = N_CTX});
    const facet_speculation how = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 63};
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    for (int left = 1; left <= 12; left++) {
        f->q = (spec_request){.prompt = p->ids, .n_prompt = (size_t)(N_CTX - left), .ignore_eos = true};
        ask(f, -1);
        spec_say(f->spec, &f->q, &how, NULL, &f->got);
        spec_assert_same_said(&f->got, &f->want, "budget 63");
        spec_assert_holds(f->spec, &f->held, "budget 63");
        assert_true(f->got.r.spec.drafted <= (uint64_t)(left * left));
    }
    close_fixture(f);
}

/* ---- acceptance ---- */

/* A backend that says what the target's argmax was. */
static struct {
    backend_ops ops;
    const backend_ops *real;
    const facet_engine *engine;
    const int32_t *argmax; /* by row; NULL: the real one */
} told;

static facet_status read_told(backend *b, compiled *c, int value, int row, int n, void *dst, facet_error *err)
{
    const bool is_argmax = c == told.engine->compiled && value == told.engine->plan->v_argmax;
    if (!told.argmax || !is_argmax) return told.real->read(b, c, value, row, n, dst, err);
    memcpy(dst, told.argmax + row, (size_t)n * sizeof *told.argmax);
    return FACET_OK;
}

static void tell(facet_engine *e)
{
    told.real = e->be->ops;
    told.ops = *e->be->ops;
    told.ops.read = read_told;
    told.engine = e;
    told.argmax = NULL;
    e->be->ops = &told.ops;
}

/* Verifies the proposal behind the first n tokens of "long", the target answering as told, and keeps m rows. */
static verdict verify_told(fixture *f, int n, int32_t pending, proposal *p, const int32_t *argmax, int m, int *n_moves)
{
    const facet_sampling greedy = facet_sampling_default();
    facet_engine *e = f->w.engine;
    facet_error err;
    chooser c = {0};
    engine_part part;
    verdict v;
    assert_ok(sampler_open(&greedy, (int32_t)e->model->h.n_vocab, &c.sampler, &err), err);
    assert_ok(facet_session_sync(f->spec, spec_prompt_named(&f->prompts, "long")->ids, (size_t)n, &err), err);
    assert_ok(verify_part(f->spec, pending, p, &part, &err), err);
    engine_step_begin(e);
    assert_ok(session_add(f->spec, &part, &err), err);
    assert_ok(engine_step_run(e, NULL, &err), err);
    told.argmax = argmax;
    assert_ok(verify_read(f->spec, &c, pending, p, &part, &v, &err), err);
    told.argmax = NULL;
    assert_ok(verify_commit(f->spec, &v, m, n_moves, &err), err);
    sampler_close(c.sampler);
    assert_int_equal(f->spec->n_tokens, n + m);
    spec_assert_as_fresh(f->spec, "as told");
    return v;
}

enum { CUR = 'r', NEW = 200 }; /* letters stand for the tokens NEW + letter */

/* The tree of the worked example (test_draft_tree): a(0) d(1) b(0) g(2) e(1) g(5). */
static void example_tree(proposal *p)
{
    static const char tokens[] = "abcdefghi";
    static const double chance[] = {.60, .30, .10, .55, .35, .10, .80, .15, .05};
    int32_t token[9];
    float logp[9];
    facet_error err;
    for (int i = 0; i < 9; i++) token[i] = NEW + tokens[i];
    for (int i = 0; i < 9; i++) logp[i] = logf((float)chance[i]);
    const draft_marginals m = {.n_depths = 3, .n_ranks = 3, .token = token, .logp = logp};
    *p = (proposal){.n = 6, .is_tree = true};
    assert_ok(draft_tree_build(&m, NEW + CUR, 6, (draft_tree_rule){3, false}, &p->tree, &err), err);
}

static void assert_told(const verdict *v, const char *tokens, const char *choices, const char *path)
{
    assert_int_equal(v->n_path, (int)strlen(tokens));
    for (int i = 0; i < v->n_path; i++) {
        assert_int_equal(v->token[i], NEW + tokens[i]);
        assert_int_equal(v->choice[i], NEW + choices[i]);
        assert_int_equal(v->path[i], path[i] - '0');
    }
}

/* A = [a, e, g, d, x, g, z] by row: r -a-> 1 -e-> 5 -g-> 6, no child z. Kept whole; cut with two tokens left, where the
 * next pending token is e and not z; cut behind the stop token e, where it is g; and A[0] = q. */
static void the_worked_example_is_walked_cut_and_moved(void **state)
{
    (void)state;
    static const struct {
        const char *argmax, *tokens, *choices, *path;
        int m, n_moves;
    } rows[] = {
        {"aegdxgz", "raeg", "aegz", "0156", 4, 2},
        {"aegdxgz", "raeg", "aegz", "0156", 2, 0},
        {"aegdxgz", "raeg", "aegz", "0156", 3, 1},
        {"qegdxgz", "r", "q", "0", 1, 0},
    };
    fixture *f = open_bundled();
    tell(f->w.engine);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int n = 125; n <= 128; n++) { /* the copies cross the end of a page */
            int32_t argmax[7];
            int n_moves;
            proposal p;
            example_tree(&p);
            for (int k = 0; k < 7; k++) argmax[k] = NEW + rows[i].argmax[k];
            const verdict v = verify_told(f, n, NEW + CUR, &p, argmax, rows[i].m, &n_moves);
            assert_told(&v, rows[i].tokens, rows[i].choices, rows[i].path);
            assert_int_equal(n_moves, rows[i].n_moves);
        }
    f->w.engine->be->ops = told.real;
    close_fixture(f);
}

/* Draft j is judged by what the target said after draft j - 1, not after itself. */
static void pitfall_27_a_draft_is_judged_by_the_row_before_it(void **state)
{
    (void)state;
    static const struct {
        const char *argmax;
        int n_path;
    } rows[] = {{"abcdx", 5}, {"abcxx", 4}, {"axcdx", 2}, {"xabcd", 1}, {"rabcd", 1}};
    fixture *f = open_bundled();
    tell(f->w.engine);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int32_t argmax[5];
        int n_moves;
        proposal p = {.n = 4, .token = {NEW + 'a', NEW + 'b', NEW + 'c', NEW + 'd'}};
        for (int k = 0; k < 5; k++) argmax[k] = NEW + rows[i].argmax[k];
        const verdict v = verify_told(f, 100, NEW + CUR, &p, argmax, 1, &n_moves);
        assert_int_equal(v.n_path, rows[i].n_path);
        assert_int_equal(v.choice[v.n_path - 1], argmax[v.n_path - 1]);
        assert_int_equal(n_moves, 0);
    }
    f->w.engine->be->ops = told.real;
    close_fixture(f);
}

static void pitfall_27_nothing_unverified_is_said(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    for (int i = 0; i < 8; i++) {
        use_prompt(f, f->prompts.list[112 + i % 6].name, 0, 24);
        script c = script_open(SCRIPT_ADVERSARY, i % 2, 1 + 9 * i % 63, (uint64_t)i);
        run_script(f, &c, FACET_ADAPT_OFF, "prompt", i);
        check_acceptance(f, &c);
    }
    close_fixture(f);
}

/* The target's second choices, by position. */
static int32_t *runners_up(fixture *f)
{
    const size_t V = f->w.engine->model->h.n_vocab;
    float *logits = malloc(V * sizeof *logits);
    int32_t *out = malloc((size_t)f->n_truth * sizeof *out);
    facet_error err;
    facet_session *s = spec_session(f->w.engine);
    for (int n = (int)f->q.n_prompt; n < f->n_truth; n++) {
        assert_ok(facet_session_sync(s, f->truth, (size_t)n, &err), err);
        assert_ok(facet_session_logits(s, logits, &err), err);
        out[n] = -1;
        for (int32_t t = 0; t < (int32_t)V; t++)
            if (t != f->truth[n] && (out[n] < 0 || logits[t] > logits[out[n]])) out[n] = t;
    }
    facet_session_close(s);
    free(logits);
    return out;
}

static facet_status propose_second(strategy *st, facet_session *s, int32_t pending, int k, proposal *out,
                                   facet_error *err)
{
    script *c = (script *)(uintptr_t)st->ops;
    (void)pending, (void)err;
    out->is_tree = out->has_conf = false;
    out->n = k;
    for (int j = 0; j < k; j++) out->token[j] = c->truth[s->n_tokens + 1 + j];
    c->n_proposed += k;
    return FACET_OK;
}

/* However likely the target finds it: the second choice is not the choice. */
static void pitfall_37_the_second_choice_is_never_accepted(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    const facet_speculation how = {.adapt = FACET_ADAPT_OFF};
    use_prompt(f, "bytes", 0, 60); /* unlike the training text: margins are small */
    int32_t *second = runners_up(f);
    script c = script_open(SCRIPT_ORACLE, false, 4, 1);
    c.ops.propose = propose_second;
    c.truth = second;
    spec_say(f->spec, &f->q, &how, &c.ops, &f->got);
    spec_assert_same_said(&f->got, &f->want, "second choices");
    assert_true(f->got.r.spec.drafted > 100);
    assert_int_equal(f->got.r.spec.accepted, 0);
    free(second);
    close_fixture(f);
}

/* ---- lengths ---- */

/* n steps of a speculation that is under way. keep: rows kept of each verdict at most. */
static void run_steps(speculation *sp, const chooser *ch, int32_t *pending, int n, int keep)
{
    facet_error err;
    for (int i = 0; i < n; i++) {
        assert_ok(speculation_step(sp, ch, *pending, 1000, &err), err);
        const int m = sp->verdict.n_path < keep ? sp->verdict.n_path : keep;
        *pending = sp->verdict.choice[m - 1];
        assert_ok(speculation_commit(sp, m, &err), err);
    }
}

typedef struct stepper {
    speculation sp;
    chooser ch;
    script c;
    int32_t pending;
} stepper;

static stepper *open_stepper(fixture *f, facet_session *s, script_kind kind, int k, facet_spec_adapt adapt)
{
    const facet_sampling greedy = facet_sampling_default();
    const facet_speculation how = {.adapt = adapt, .draft_max = k};
    facet_error err;
    stepper *t = calloc(1, sizeof *t);
    t->c = script_open(kind, false, 0, 5);
    t->c.truth = f->truth;
    t->c.n_truth = f->n_truth;
    assert_ok(sampler_open(&greedy, t->c.n_vocab, &t->ch.sampler, &err), err);
    assert_ok(facet_session_sync(s, f->q.prompt, f->q.n_prompt, &err), err);
    assert_ok(speculation_begin(&t->sp, s, &how, &t->c.ops, &err), err);
    assert_ok(verify_first(s, &t->ch, &t->pending, &err), err);
    return t;
}

static void close_stepper(stepper *t)
{
    sampler_close(t->ch.sampler);
    free(t);
}

/* The published rule is on for mixtures of experts alone: a drafter that is never right narrows only their drafts. */
static void the_published_rule_is_on_for_mixtures_alone(void **state)
{
    (void)state;
    char moe[1024] = "";
    if (test_shared("models/tiny-26b-a4b-F16.gguf"))
        snprintf(moe, sizeof moe, "%s", test_shared("models/tiny-26b-a4b-F16.gguf"));
    for (int i = 0; i < (*moe ? 2 : 1); i++) {
        fixture *f = open_fixture(&(spec_setup){.target = i ? moe : SPEC_TARGET});
        use_prompt(f, "story", 0, 60);
        stepper *t = open_stepper(f, f->spec, SCRIPT_ADVERSARY, 15, FACET_ADAPT_AUTO);
        assert_int_equal(t->sp.window.is_on, i);
        run_steps(&t->sp, &t->ch, &t->pending, 8, 64);
        assert_int_equal(t->sp.window.n_rows, i ? 8 : 16);
        close_stepper(t);
        close_fixture(f);
    }
}

/* A bad start narrows the drafts to the floor, good drafts widen them again. */
static void pitfall_29_widths_come_back_after_a_bad_start(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    use_prompt(f, "story", 0, 340);
    stepper *t = open_stepper(f, f->spec, SCRIPT_ADVERSARY, 15, FACET_ADAPT_WINDOW);
    assert_int_equal(t->sp.window.n_rows, 16);
    run_steps(&t->sp, &t->ch, &t->pending, 40, 64);
    assert_int_equal(t->sp.window.n_rows, 8);
    t->c.kind = SCRIPT_ORACLE;
    run_steps(&t->sp, &t->ch, &t->pending, 8, 64);
    assert_int_equal(t->sp.window.n_rows, 16);
    run_steps(&t->sp, &t->ch, &t->pending, 8, 64);
    assert_int_equal(t->sp.window.n_rows, 16);
    assert_memory_equal(f->spec->tokens, f->truth, (size_t)f->spec->n_tokens * sizeof *f->truth);
    close_stepper(t);
    close_fixture(f);
}

/* Every step is cut after its first row, as by an end token, though all of its drafts were right. */
static void pitfall_30_what_is_cut_was_not_rejected(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    use_prompt(f, "story", 0, 100);
    stepper *t = open_stepper(f, f->spec, SCRIPT_ORACLE, 15, FACET_ADAPT_WINDOW);
    run_steps(&t->sp, &t->ch, &t->pending, 24, 1);
    assert_int_equal(t->sp.window.n_rows, 16);
    assert_int_equal(t->sp.stats.accepted, 24 * 15);
    assert_int_equal(t->sp.stats.committed, 24);
    assert_int_equal(f->spec->n_tokens, (int)f->q.n_prompt + 24);
    assert_memory_equal(f->spec->tokens, f->truth, (size_t)f->spec->n_tokens * sizeof *f->truth);
    spec_assert_as_fresh(f->spec, "cut steps");
    close_stepper(t);
    close_fixture(f);
}

/* Three sessions of one engine, a step each in turn, of which one accepts everything, one nothing, one half. */
static void pitfall_31_sessions_at_different_paces(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    use_prompt(f, "tools", 0, 300);
    facet_session *s[3];
    stepper *t[3];
    for (int i = 0; i < 3; i++) {
        s[i] = i == 0 ? f->spec : spec_session(f->w.engine);
        t[i] = open_stepper(f, s[i], (script_kind)i, 7, FACET_ADAPT_OFF);
    }
    for (int step = 0; step < 30; step++)
        for (int i = 0; i < 3; i++) run_steps(&t[i]->sp, &t[i]->ch, &t[i]->pending, 1, 64);
    assert_int_equal(s[0]->n_tokens, f->q.n_prompt + 30 * 8);
    assert_int_equal(s[1]->n_tokens, f->q.n_prompt + 30);
    assert_in_range(s[2]->n_tokens, f->q.n_prompt + 31, f->q.n_prompt + 30 * 8 - 1);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(s[i]->tokens, f->truth, (size_t)s[i]->n_tokens * sizeof *f->truth);
        assert_int_equal(t[i]->pending, f->truth[s[i]->n_tokens]);
        spec_assert_as_fresh(s[i], "one of three");
        close_stepper(t[i]);
        if (i > 0) facet_session_close(s[i]);
    }
    close_fixture(f);
}

/* Two sequences of different lengths in one step, a chain and a tree: what holds in each is what holds alone. */
static void pitfall_36_two_sequences_in_one_step(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    facet_engine *e = f->w.engine;
    facet_error err;
    use_prompt(f, "tools", 0, 120);
    facet_session *s[2] = {f->spec, spec_session(e)};
    stepper *t[2];
    for (int i = 0; i < 2; i++) {
        t[i] = open_stepper(f, s[i], SCRIPT_HALF, 0, FACET_ADAPT_OFF);
        t[i]->c.is_tree = i;
        t[i]->sp.arm[0].k_fixed = t[i]->sp.window.n_rows = 0;
        t[i]->sp.window.n_rows = 1 + 9 + 5 * i;
        run_steps(&t[i]->sp, &t[i]->ch, &t[i]->pending, 1 + 3 * i, 64);
    }
    for (int step = 0; step < 12; step++) {
        for (int i = 0; i < 2; i++)
            assert_ok(speculation_draft(&t[i]->sp, &t[i]->ch, t[i]->pending, 1000, ENGINE_MAX_OUT / 2, &err), err);
        engine_step_begin(e);
        for (int i = 0; i < 2; i++) assert_ok(session_add(s[i], &t[i]->sp.part, &err), err);
        assert_ok(engine_step_run(e, NULL, &err), err);
        for (int i = 0; i < 2; i++)
            assert_ok(speculation_read(&t[i]->sp, &t[i]->ch, t[i]->pending, 0, true, &err), err);
        for (int i = 0; i < 2; i++) {
            const int m = t[i]->sp.verdict.n_path;
            t[i]->pending = t[i]->sp.verdict.choice[m - 1];
            assert_ok(speculation_commit(&t[i]->sp, m, &err), err);
        }
    }
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(s[i]->tokens, f->truth, (size_t)s[i]->n_tokens * sizeof *f->truth);
        assert_int_equal(t[i]->pending, f->truth[s[i]->n_tokens]);
        assert_true(t[i]->sp.stats.accepted > 12 && t[i]->sp.stats.accepted < t[i]->sp.stats.drafted);
        spec_assert_as_fresh(s[i], "one of two");
        close_stepper(t[i]);
    }
    facet_session_close(s[1]);
    close_fixture(f);
}

/* Steps and drafts at many positions of one engine, whose plans were compiled long before, against engines that do
 * nothing else: on a device that captures its steps, replays against first runs. */
static void pitfall_32_steps_at_other_positions_are_no_replays(void **state)
{
    (void)state;
    static const int at[] = {3, 63, 64, 129, 333, 580};
    const spec_setup setup = {.target = SPEC_TARGET, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH};
    fixture *f = open_fixture(&setup);
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    facet_error err;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        spec_world fresh = spec_open(&setup);
        facet_session *s = spec_session(fresh.engine);
        assert_ok(facet_session_sync(f->spec, p->ids, (size_t)at[i], &err), err);
        assert_ok(facet_session_sync(s, p->ids, (size_t)at[i], &err), err);
        spec_assert_same_state(f->spec, s, "an old engine");
        facet_session_close(s);
        spec_close(&fresh);
    }
    close_fixture(f);
}

/* ---- failures in the middle ---- */

static const facet_speculation *failing_ways(int *n)
{
    static const facet_speculation ways[] = {
        {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF},
        {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 22},
        {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = 5},
        {.method = FACET_SPEC_NGRAM, .adapt = FACET_ADAPT_OFF},
        {.method = FACET_SPEC_AUTO, .tree_budget = -1},
        {.method = FACET_SPEC_NONE},
    };
    *n = sizeof ways / sizeof *ways;
    return ways;
}

/* After a generation that failed the session holds a piece of the right text, is as good as a fresh one, and says the
 * right text when asked again. */
static void check_after_failure(fixture *f, facet_session *s, const facet_speculation *how, int k)
{
    char what[64];
    snprintf(what, sizeof what, "method %d, failure %d", (int)how->method, k);
    assert_memory_equal(f->got.ids, f->want.ids, (size_t)f->got.n * sizeof *f->got.ids);
    assert_in_range(s->n_tokens, 0, f->n_truth);
    assert_memory_equal(s->tokens, f->truth, (size_t)s->n_tokens * sizeof *f->truth);
    if (s->n_tokens > 0 && k % 5 == 0) spec_assert_as_fresh(s, what);
    spec_say(s, &f->q, how, NULL, &f->got);
    spec_assert_same_said(&f->got, &f->want, what);
    if (k % 5 == 0) spec_assert_holds(s, &f->held, what);
}

/* Page tables grow at 1024 tokens, in the middle of the answer. */
static void pitfall_33_every_allocation_fails_once(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    facet_error err;
    int n_ways, n_failed = 0;
    const facet_speculation *ways = failing_ways(&n_ways);
    int32_t *prompt = malloc(1010 * sizeof *prompt);
    const spec_prompt *p = spec_prompt_named(&f->prompts, "long");
    for (int i = 0; i < 1010; i++) prompt[i] = p->ids[i < 600 ? i : i - 590];
    f->truth = script_truth(f->plain, prompt, 1010, 24 + N_MORE);
    f->n_truth = 1010 + 24 + N_MORE;
    f->q = (spec_request){.prompt = prompt, .n_prompt = 1010, .ignore_eos = true};
    ask(f, 24);
    assert_ok(facet_session_sync(f->spec, prompt, 1000, &err), err);
    for (int way = 0; way < n_ways; way++)
        for (uint64_t k = 1;; k++) {
            facet_session *s;
            err = (facet_error){0};
            assert_ok(facet_session_fork(f->spec, &s, &err), err);
            mem_fail_at(k);
            const facet_status status = spec_try(s, &f->q, &ways[way], NULL, &f->got, &err);
            const bool is_past = mem_fail_at(0) < k;
            if (is_past && status != FACET_OK) fail_msg("without a failure: %s", err.message);
            if (is_past) spec_assert_same_said(&f->got, &f->want, "without a failure");
            n_failed += status != FACET_OK;
            if (status != FACET_OK) assert_int_equal(status, FACET_ERR_MEMORY);
            check_after_failure(f, s, &ways[way], (int)k);
            facet_session_close(s);
            if (is_past) break;
        }
    print_message("%d failures\n", n_failed);
    assert_true(n_failed > 5 * n_ways);
    free(prompt);
    close_fixture(f);
}

/* A backend of which one call fails. */
static struct {
    backend_ops ops;
    const backend_ops *real;
    int n_calls, fails_at; /* 0 = never */
} weak;

static bool fails(facet_error *err)
{
    if (++weak.n_calls != weak.fails_at) return false;
    (void)error_set(err, FACET_ERR_DEVICE, "the device failed at call %d", weak.n_calls);
    return true;
}

static facet_status weak_run(backend *b, compiled *c, const batch *in, facet_error *err)
{
    return fails(err) ? FACET_ERR_DEVICE : weak.real->run(b, c, in, err);
}

static facet_status weak_read(backend *b, compiled *c, int value, int row, int n, void *dst, facet_error *err)
{
    return fails(err) ? FACET_ERR_DEVICE : weak.real->read(b, c, value, row, n, dst, err);
}

static facet_status weak_write(backend *b, compiled *c, int value, int row, int n, const void *src, facet_error *err)
{
    return fails(err) ? FACET_ERR_DEVICE : weak.real->write(b, c, value, row, n, src, err);
}

static facet_status weak_copy_rows(backend *b, const row_copy *copy, facet_error *err)
{
    return fails(err) ? FACET_ERR_DEVICE : weak.real->copy_rows(b, copy, err);
}

static facet_status weak_move(backend *b, const batch *in, facet_error *err)
{
    return fails(err) ? FACET_ERR_DEVICE : weak.real->move(b, in, err);
}

static void weaken(backend *b)
{
    weak.real = b->ops;
    weak.ops = *b->ops;
    weak.ops.run = weak_run;
    weak.ops.read = weak_read;
    weak.ops.write = weak_write;
    weak.ops.copy_rows = weak_copy_rows;
    weak.ops.move = weak_move;
    b->ops = &weak.ops;
}

/* The session is a fork, so that its first step has a page to copy before it writes. */
static void pitfall_33_every_call_of_the_device_fails_once(void **state)
{
    (void)state;
    fixture *f = open_bundled();
    int n_ways, n_failed = 0;
    const facet_speculation *ways = failing_ways(&n_ways);
    facet_error err;
    use_prompt(f, "tools", 0, 10);
    assert_ok(facet_session_sync(f->spec, f->q.prompt, f->q.n_prompt, &err), err);
    weaken(f->w.engine->be);
    for (int way = 0; way < n_ways; way++)
        for (int k = 1;; k += k < 60 || spec_is_full() ? 1 : 7) {
            facet_session *s;
            err = (facet_error){0};
            assert_ok(facet_session_fork(f->spec, &s, &err), err);
            weak.n_calls = 0;
            weak.fails_at = k;
            const facet_status status = spec_try(s, &f->q, &ways[way], NULL, &f->got, &err);
            weak.fails_at = 0;
            const bool is_past = weak.n_calls < k;
            assert_int_equal(status, is_past ? FACET_OK : FACET_ERR_DEVICE);
            n_failed += !is_past;
            check_after_failure(f, s, &ways[way], k);
            facet_session_close(s);
            if (is_past) break;
        }
    print_message("%d failures\n", n_failed);
    assert_true(n_failed > 20 * n_ways);
    f->w.engine->be->ops = weak.real;
    close_fixture(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_script_gives_the_plain_text),
        cmocka_unit_test(scripts_under_adaptive_lengths),
        cmocka_unit_test(scripts_and_every_limit),
        cmocka_unit_test(pitfall_02_end_tokens_inside_right_drafts),
        cmocka_unit_test(scripts_and_every_refusal),
        cmocka_unit_test(pitfall_03_04_far_beyond_the_window),
        cmocka_unit_test(pitfall_05_drafts_wider_than_what_is_verified),
        cmocka_unit_test(pitfall_06_a_path_that_moves_in_every_step),
        cmocka_unit_test(pitfall_07_a_row_is_its_path),
        cmocka_unit_test(pitfall_08_a_row_sees_its_ancestors_alone),
        cmocka_unit_test(pitfall_09_a_budget_far_above_the_nodes),
        cmocka_unit_test(the_worked_example_is_walked_cut_and_moved),
        cmocka_unit_test(pitfall_27_a_draft_is_judged_by_the_row_before_it),
        cmocka_unit_test(pitfall_27_nothing_unverified_is_said),
        cmocka_unit_test(pitfall_37_the_second_choice_is_never_accepted),
        cmocka_unit_test(the_published_rule_is_on_for_mixtures_alone),
        cmocka_unit_test(pitfall_29_widths_come_back_after_a_bad_start),
        cmocka_unit_test(pitfall_30_what_is_cut_was_not_rejected),
        cmocka_unit_test(pitfall_31_sessions_at_different_paces),
        cmocka_unit_test(pitfall_36_two_sequences_in_one_step),
        cmocka_unit_test(pitfall_32_steps_at_other_positions_are_no_replays),
        cmocka_unit_test(pitfall_33_every_allocation_fails_once),
        cmocka_unit_test(pitfall_33_every_call_of_the_device_fails_once),
    };
    return cmocka_run_group_tests_name("spec_scripted", tests, NULL, NULL);
}

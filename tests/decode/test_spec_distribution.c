/* At temperature 1 the first and the second token after a drafted step come as often as the target's own probabilities
 * say, by chains, trees and the MTP assistant; and the measure is fine enough to see when a draft is accepted a little
 * too easily, or too rarely. */
#include "spec_world.h"

#include <math.h>

enum { TOP_K = 64, N_DRAWS = 20000, MAX_VOCAB = 2048 };

/* ---- a backend whose logits a broken rule has touched ---- */

/* How the accept rule is broken. A draft holds when it equals the target's draw; so a rule that accepts it too easily
 * is one that draws it too often. */
typedef struct broken_rule {
    const char *name;
    double odds;      /* of a drafted token are multiplied by this; 1 = the rule as it is */
    double threshold; /* and a drafted token of at least this probability is always accepted; 0 = no */
} broken_rule;

static struct {
    backend_ops ops;
    const backend_ops *real;
    const facet_engine *engine;
    const speculation *sp; /* whose step is being read */
    const broken_rule *rule;
} touched;

static bool is_draft_after(const proposal *p, int row, int32_t token)
{
    if (p->is_tree) return draft_tree_child(&p->tree, row, token) >= 0;
    return row < p->n && p->token[row] == token;
}

static double share_of(const float *logits, int32_t n, int32_t token)
{
    double sum = 0;
    for (int32_t t = 0; t < n; t++) sum += exp((double)(logits[t] - logits[token]));
    return 1 / sum;
}

static facet_status read_touched(backend *b, compiled *c, int value, int row, int n, void *dst, facet_error *err)
{
    const facet_engine *e = touched.engine;
    const facet_status status = touched.real->read(b, c, value, row, n, dst, err);
    if (status != FACET_OK || !touched.rule || c != e->compiled || value != e->plan->v_logits) return status;
    const int32_t n_vocab = (int32_t)e->model->h.n_vocab;
    float *logits = dst;
    for (int32_t t = 0; t < n_vocab; t++) {
        if (!is_draft_after(&touched.sp->proposal, row - touched.sp->part.first_out, t)) continue;
        const bool is_taken = touched.rule->threshold > 0 && share_of(logits, n_vocab, t) >= touched.rule->threshold;
        logits[t] += is_taken ? 100 : (float)log(touched.rule->odds);
    }
    return status;
}

static void touch(facet_engine *e)
{
    touched.real = e->be->ops;
    touched.ops = *e->be->ops;
    touched.ops.read = read_touched;
    touched.engine = e;
    e->be->ops = &touched.ops;
}

/* ---- drawing ---- */

typedef struct fixture {
    spec_world w;
    int32_t *prompt; /* its last token is the one that the drafts follow */
    int n_prompt;
    facet_session *base; /* holds the prompt but for that one */
    /* of the last run */
    int n_pairs, n_accepted;
    int32_t pair[N_DRAWS][2];
} fixture;

static facet_sampling sampling_of(uint64_t seed)
{
    facet_sampling s = facet_sampling_default();
    s.temperature = 1;
    s.top_k = TOP_K;
    s.seed = seed;
    return s;
}

/* One drafted step of the session, run once; what it says is then read by many seeds. */
typedef struct stepped {
    speculation sp;
    facet_session *s;
    int32_t pending;
} stepped;

static void run_step(stepped *t, facet_session *s, int32_t pending, const facet_speculation *how)
{
    facet_error err;
    const chooser none = {0};
    *t = (stepped){.s = s, .pending = pending};
    assert_ok(speculation_begin(&t->sp, s, how, NULL, &err), err);
    assert_ok(speculation_draft(&t->sp, &none, pending, 1000, ENGINE_MAX_OUT, &err), err);
    assert_true(t->sp.proposal.n > 0);
    engine_step_begin(s->engine);
    assert_ok(session_add(s, &t->sp.part, &err), err);
    assert_ok(engine_step_run(s->engine, NULL, &err), err);
    touched.sp = &t->sp;
}

static const verdict *read_step(stepped *t, uint64_t seed)
{
    static float logits[MAX_VOCAB];
    const facet_sampling p = sampling_of(seed);
    facet_error err;
    chooser c = {.logits = logits};
    assert_ok(sampler_open(&p, (int32_t)t->s->engine->model->h.n_vocab, &c.sampler, &err), err);
    assert_ok(speculation_read(&t->sp, &c, t->pending, 0, false, &err), err);
    sampler_close(c.sampler);
    return &t->sp.verdict;
}

/* The second tokens of those pairs whose first one was no draft, token by token: each begins a step of its own. */
static void draw_after_rejection(fixture *f, const facet_speculation *how, int32_t first)
{
    facet_session *s = NULL;
    stepped t;
    facet_error err;
    for (int i = 0; i < N_DRAWS; i++) {
        if (f->pair[i][0] != first || f->pair[i][1] >= 0) continue;
        if (!s) {
            assert_ok(facet_session_fork(f->base, &s, &err), err);
            assert_ok(session_append(s, &f->prompt[f->n_prompt - 1], 1, &err), err);
            run_step(&t, s, first, how);
        }
        f->pair[i][1] = read_step(&t, (uint64_t)i)->choice[0];
    }
    if (!s) return;
    verify_abandon(s);
    facet_session_close(s);
}

/* N_DRAWS pairs of the first and second token, seed by seed. */
static void draw_pairs(fixture *f, const facet_speculation *how)
{
    stepped t;
    facet_error err;
    f->n_accepted = 0;
    assert_ok(facet_session_sync(f->base, f->prompt, (size_t)f->n_prompt - 1, &err), err);
    run_step(&t, f->base, f->prompt[f->n_prompt - 1], how);
    for (int i = 0; i < N_DRAWS; i++) {
        const verdict *v = read_step(&t, (uint64_t)i);
        f->pair[i][0] = v->choice[0];
        f->pair[i][1] = v->n_path > 1 ? v->choice[1] : -1;
        f->n_accepted += v->n_path > 1;
    }
    verify_abandon(f->base);
    for (int i = 0; i < N_DRAWS; i++)
        if (f->pair[i][1] < 0) draw_after_rejection(f, how, f->pair[i][0]);
}

/* ---- what should come out ---- */

typedef struct cell {
    int32_t token[2];
    double p;
    int count;
} cell;

typedef struct exact {
    int n;
    cell list[TOP_K * TOP_K];
} exact;

/* The TOP_K best tokens after the text, with their probabilities at temperature 1. */
static void best_tokens(fixture *f, const int32_t *ids, size_t n, int32_t *token, double *p)
{
    static float logits[MAX_VOCAB];
    facet_error err;
    double sum = 0;
    const int32_t V = (int32_t)f->w.engine->model->h.n_vocab;
    assert_ok(facet_session_sync(f->base, ids, n, &err), err);
    assert_ok(facet_session_logits(f->base, logits, &err), err);
    for (int i = 0; i < TOP_K; i++) {
        token[i] = 0;
        for (int32_t t = 1; t < V; t++)
            if (logits[t] > logits[token[i]]) token[i] = t;
        sum += p[i] = exp((double)logits[token[i]]);
        logits[token[i]] = -INFINITY;
    }
    for (int i = 0; i < TOP_K; i++) p[i] /= sum;
}

static exact *exact_pairs(fixture *f)
{
    exact *e = calloc(1, sizeof *e);
    int32_t first[TOP_K], second[TOP_K], *ids = malloc((size_t)(f->n_prompt + 1) * sizeof *ids);
    double p[TOP_K], q[TOP_K];
    memcpy(ids, f->prompt, (size_t)f->n_prompt * sizeof *ids);
    best_tokens(f, ids, (size_t)f->n_prompt, first, p);
    for (int i = 0; i < TOP_K; i++) {
        ids[f->n_prompt] = first[i];
        best_tokens(f, ids, (size_t)f->n_prompt + 1, second, q);
        for (int j = 0; j < TOP_K; j++) e->list[e->n++] = (cell){{first[i], second[j]}, p[i] * q[j], 0};
    }
    free(ids);
    return e;
}

static void count_pairs(const fixture *f, exact *e)
{
    for (int i = 0; i < e->n; i++) e->list[i].count = 0;
    for (int i = 0; i < N_DRAWS; i++) {
        int k = 0;
        while (k < e->n && memcmp(e->list[k].token, f->pair[i], sizeof f->pair[i]) != 0) k++;
        assert_in_range(k, 0, e->n - 1); /* nothing outside the TOP_K */
        e->list[k].count++;
    }
}

typedef struct fit {
    double chi, limit, variation; /* chi-square, its limit at p = 1e-4, total variation distance */
    int df;
} fit;

/* Cells that expect fewer than 5 are put together. The limit is Wilson and Hilferty's (1931) at 3.72 standard
 * deviations. */
static fit fit_of(const exact *e)
{
    double rest_p = 0, rest = 0;
    fit r = {.df = -1};
    for (int i = 0; i < e->n; i++) {
        const double want = N_DRAWS * e->list[i].p, got = e->list[i].count;
        r.variation += fabs(got - want) / (2.0 * N_DRAWS);
        if (want < 5) {
            rest_p += want;
            rest += got;
            continue;
        }
        r.chi += (got - want) * (got - want) / want;
        r.df++;
    }
    if (rest_p >= 5) {
        r.chi += (rest - rest_p) * (rest - rest_p) / rest_p;
        r.df++;
    }
    const double a = 2.0 / (9 * r.df);
    r.limit = r.df * pow(1 - a + 3.72 * sqrt(a), 3);
    return r;
}

/* ---- the tests ---- */

static fixture *open_fixture(const char *prompt, int n_more)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->w = spec_open_bundled(0);
    assert_in_range(f->w.engine->model->h.n_vocab, 1, MAX_VOCAB);
    spec_prompts prompts = spec_bundled_prompts();
    const spec_prompt *p = spec_prompt_named(&prompts, prompt);
    spec_said *said = malloc(sizeof *said);
    f->base = spec_session(f->w.engine);
    const spec_request q = {.prompt = p->ids, .n_prompt = p->n, .n_predict = n_more, .ignore_eos = true};
    spec_say(f->base, &q, NULL, NULL, said);
    f->n_prompt = (int)p->n + n_more;
    f->prompt = malloc((size_t)f->n_prompt * sizeof *f->prompt);
    memcpy(f->prompt, p->ids, p->n * sizeof *f->prompt);
    memcpy(f->prompt + p->n, said->ids, (size_t)n_more * sizeof *f->prompt);
    free(said);
    spec_free_prompts(&prompts);
    touch(f->w.engine);
    return f;
}

static void close_fixture(fixture *f)
{
    f->w.engine->be->ops = touched.real;
    facet_session_close(f->base);
    spec_close(&f->w);
    free(f->prompt);
    free(f);
}

/* What was drawn is the plain text of the seed. */
static void compare_with_plain(fixture *f, const char *name)
{
    spec_said *said = malloc(sizeof *said);
    for (int i = 0; i < N_DRAWS; i += N_DRAWS / 100) {
        const facet_sampling s = sampling_of((uint64_t)i);
        const spec_request q = {
            .prompt = f->prompt, .n_prompt = (size_t)f->n_prompt, .n_predict = 2, .ignore_eos = true, .sampling = &s};
        spec_say(f->base, &q, NULL, NULL, said);
        if (memcmp(said->ids, f->pair[i], sizeof f->pair[i]) != 0)
            fail_msg("%s, seed %d: %d %d, plainly %d %d", name, i, f->pair[i][0], f->pair[i][1], said->ids[0],
                     said->ids[1]);
    }
    free(said);
}

/* n_more: tokens of the greedy answer that the text already has; what comes next is open there. */
static void check_strategy(const char *name, facet_speculation how, int n_more)
{
    static const broken_rule broken[] = {{"accepts 25 % too easily", 1.25, 0},
                                         {"accepts 25 % too rarely", 1 / 1.25, 0},
                                         {"accepts whatever is likely", 1, 0.1}};
    fixture *f = open_fixture("chat", n_more);
    exact *e = exact_pairs(f);
    touched.rule = NULL;
    draw_pairs(f, &how);
    count_pairs(f, e);
    fit r = fit_of(e);
    print_message("%s: %d pairs, %d first tokens accepted, chi-square %.1f at %d degrees of freedom (limit %.1f), "
                  "total variation %.4f\n",
                  name, N_DRAWS, f->n_accepted, r.chi, r.df, r.limit, r.variation);
    assert_in_range(f->n_accepted, N_DRAWS / 20, N_DRAWS - N_DRAWS / 20);
    if (!(r.chi < r.limit)) fail_msg("%s: chi-square %.1f, limit %.1f", name, r.chi, r.limit);
    compare_with_plain(f, name);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        touched.rule = &broken[i];
        draw_pairs(f, &how);
        touched.rule = NULL;
        count_pairs(f, e);
        r = fit_of(e);
        print_message("  a rule that %s: chi-square %.1f, total variation %.4f\n", broken[i].name, r.chi, r.variation);
        if (!(r.chi > r.limit)) fail_msg("%s: a rule that %s passes", name, broken[i].name);
    }
    free(e);
    close_fixture(f);
}

static void chains_draw_from_the_targets_distribution(void **state)
{
    (void)state;
    check_strategy("chain", (facet_speculation){.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF}, 21);
}

static void trees_draw_from_the_targets_distribution(void **state)
{
    (void)state;
    check_strategy("tree",
                   (facet_speculation){.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 22}, 22);
}

static void the_assistant_draws_from_the_targets_distribution(void **state)
{
    (void)state;
    check_strategy("mtp", (facet_speculation){.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = 3}, 21);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_draw_from_the_targets_distribution),
        cmocka_unit_test(trees_draw_from_the_targets_distribution),
        cmocka_unit_test(the_assistant_draws_from_the_targets_distribution),
    };
    return cmocka_run_group_tests_name("spec_distribution", tests, NULL, NULL);
}

/* spec_world.h: an engine with its drafters; generations that remember all they said; comparing what two sessions hold.
 * Plain decoding (FACET_SPEC_NONE) is what everything is compared with.
 *
 * The traps that implementations of speculative decoding fall into are numbered; a test that stands guard over one
 * carries its number (pitfall_NN in its name). Where each is tested:
 *
 *  1  pending token of a cut path             test_speculate, test_spec_scripted (worked example)
 *  2  position after a stop token             test_speculate, test_spec_scripted
 *  3  local ring as small as the window       test_spec_scripted
 *  4  rollback by one layer for all           test_spec_scripted
 *  5  rewind by drafts, not by rows           test_spec_scripted
 *  6  unordered copies                        test_spec_scripted (on $FACET_TEST_DEVICE)
 *  7  positions of siblings                   test_spec_scripted, test_draft_tree
 *  8  visibility among rows                   test_spec_scripted, test_draft_tree
 *  9  padding rows                            test_spec_scripted, test_draft_tree
 * 10  taps off by one                         test_drafters, test_drafter_files
 * 11  mask token                              test_drafters, test_drafter_files
 * 12  rotation base of the drafter            test_drafters, test_draft_ops
 * 13  embedding scale                         test_drafters, test_draft_ops
 * 14  hidden state: which row, which norm     test_speculate, test_drafters
 * 15  order of the two inputs                 test_drafters
 * 16  position and rotation of MTP queries    test_drafters, test_draft_ops
 * 17  sight of the donors                     test_drafters, test_draft_ops
 * 18  cache types of donors                   test_drafters; test_spec_matrix: every drafter with every type
 * 19  values of K = V layers                  test_drafters
 * 20  the target's types for its drafter      test_drafter_files; test_spec_matrix mixes the types
 * 21  norm before the shared head             test_drafters
 * 22  block rows in the drafter's context     test_speculate, test_drafters
 * 23  features of rejected rows               test_speculate, test_drafters
 * 24  prompt longer than the draft context    test_speculate, test_drafters
 * 25  end of the drafter's context            test_speculate, test_drafters
 * 26  ties                                    test_draft_ops
 * 27  what acceptance compares                test_spec_scripted
 * 28  statistics on the protocol stream       test_cli_spec
 * 29  controller that never comes back        test_spec_scripted, test_draft_control, test_draft_control_runs
 * 30  cut steps as rejections                 test_spec_scripted, test_draft_control
 * 31  sequences of different progress         test_spec_scripted
 * 32  baked positions in a captured graph     test_spec_scripted (on $FACET_TEST_DEVICE)
 * 33  early error returns                     test_spec_scripted
 * 34  penalties without the drafted prefix    test_spec_sampling
 * 35  soft cap on one side of a ratio         test_spec_sampling: there is no ratio (verify.h)
 * 36  shapes that assume one sequence         test_spec_scripted, test_drafters (17_sequences_in_one_batch)
 * 37  relaxed acceptance                      test_spec_scripted, test_spec_distribution
 */
#ifndef FACET_TESTS_SPEC_WORLD_H
#define FACET_TESTS_SPEC_WORLD_H

#include "testing.h"

#include <jansson.h>

#include "base/rng.h"
#include "decode/engine_draft.h"
#include "decode/generate.h"
#include "decode/speculate.h"

#define SPEC_TARGET FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define SPEC_MTP FACET_SOURCE_DIR "/models/facet-small-mtp-Q8_0.gguf"
#define SPEC_DFLASH FACET_SOURCE_DIR "/models/facet-small-dflash-Q8_0.gguf"

/* ---- engine ---- */

/* Only the CPU backends can, so far. */
static inline bool spec_can_rebuild_keys(void)
{
    const char *device = getenv("FACET_TEST_DEVICE");
    return !device || strncmp(device, "cuda", 4) != 0;
}

typedef struct spec_setup {
    const char *target, *mtp, *dflash;                            /* drafters: NULL = none */
    const char *device;                                           /* NULL: $FACET_TEST_DEVICE, or cpu */
    const char *k, *v;                                            /* cache types; NULL = f16 */
    int32_t n_ctx, draft_ctx;                                     /* 0: 2048; the default */
    int n_sessions, n_threads;                                    /* 0: 4; 1 */
    float sparse_alpha, sparse_mass, sparse_prefill, sparse_hard; /* sparse_hard 0: 1 */
    int32_t sparse_min;                                           /* 0: as the engine has it */
    bool sparse_check;
    bool rebuild_keys;
} spec_setup;

typedef struct spec_world {
    facet_model *model;
    facet_drafter *drafters[2];
    int n_drafters;
    facet_engine *engine;
} spec_world;

static inline void spec_add_drafter(spec_world *w, const char *path)
{
    facet_error err;
    if (path) assert_ok(facet_drafter_open(path, w->model, &w->drafters[w->n_drafters++], &err), err);
}

static inline spec_world spec_open(const spec_setup *o)
{
    spec_world w = {0};
    facet_error err;
    const char *device = getenv("FACET_TEST_DEVICE");
    assert_ok(facet_model_open(o->target, &w.model, &err), err);
    spec_add_drafter(&w, o->mtp);
    spec_add_drafter(&w, o->dflash);
    facet_engine_params p = facet_engine_params_default();
    p.device = o->device ? o->device : device && *device ? device : "cpu";
    p.n_threads = o->n_threads ? o->n_threads : 1;
    p.n_ctx = o->n_ctx ? o->n_ctx : 2048;
    p.n_sessions = o->n_sessions ? o->n_sessions : 4;
    p.draft_ctx = o->draft_ctx;
    p.rebuild_keys = o->rebuild_keys;
    if (o->k) p.cache_type_k = o->k;
    if (o->v) p.cache_type_v = o->v;
    p.sparse_alpha = o->sparse_alpha;
    p.sparse_mass = o->sparse_mass;
    p.sparse_prefill = o->sparse_prefill;
    p.sparse_check = o->sparse_check;
    if (o->sparse_hard > 0) p.sparse_hard = o->sparse_hard;
    if (o->sparse_min) p.sparse_min = o->sparse_min;
    p.drafters = w.drafters;
    p.n_drafters = w.n_drafters;
    assert_ok(facet_engine_open(w.model, &p, &w.engine, &err), err);
    return w;
}

/* The bundled model with both drafters. */
static inline spec_world spec_open_bundled(int32_t n_ctx)
{
    return spec_open(&(spec_setup){.target = SPEC_TARGET, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .n_ctx = n_ctx});
}

/* All sessions are closed; so every page must be free. */
static inline void spec_close(spec_world *w)
{
    for (int g = 0; g < w->engine->kv.n_groups; g++)
        assert_int_equal(kv_pool_free_pages(w->engine->pool, g), w->engine->kv.groups[g].n_pages);
    facet_engine_close(w->engine);
    for (int i = 0; i < w->n_drafters; i++) facet_drafter_close(w->drafters[i]);
    facet_model_close(w->model);
}

static inline facet_session *spec_session(facet_engine *e)
{
    facet_session *s;
    facet_error err;
    assert_ok(facet_session_open(e, &s, &err), err);
    return s;
}

/* ---- prompts ---- */

typedef struct spec_prompt {
    char name[32];
    int32_t *ids;
    size_t n;
} spec_prompt;

typedef struct spec_prompts {
    spec_prompt *list;
    int n, cap;
} spec_prompts;

static inline spec_prompt *spec_add_prompt(spec_prompts *p, const char *name)
{
    if (p->n == p->cap) p->list = realloc(p->list, (size_t)(p->cap = 2 * p->cap + 32) * sizeof *p->list);
    assert_non_null(p->list);
    spec_prompt *out = &p->list[p->n++];
    *out = (spec_prompt){0};
    snprintf(out->name, sizeof out->name, "%s", name);
    return out;
}

static inline void spec_take_ids(spec_prompt *p, const json_t *ids)
{
    p->n = json_array_size(ids);
    p->ids = malloc((p->n + 1) * sizeof *p->ids);
    assert_non_null(p->ids);
    for (size_t i = 0; i < p->n; i++) p->ids[i] = (int32_t)json_integer_value(json_array_get(ids, i));
}

/* A JSONL file whose lines have "task" or "name", and "ids" or the text "prompt" (for model m). */
static inline void spec_load_prompts(spec_prompts *p, const char *path, const facet_model *m)
{
    FILE *f = fopen(path, "rb");
    facet_error err;
    json_t *j;
    if (!f) fail_msg("%s: cannot open", path);
    while ((j = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL))) {
        const char *task = json_string_value(json_object_get(j, "task")),
                   *text = json_string_value(json_object_get(j, "prompt"));
        spec_prompt *out = spec_add_prompt(p, task ? task : json_string_value(json_object_get(j, "name")));
        if (json_is_array(json_object_get(j, "ids")))
            spec_take_ids(out, json_object_get(j, "ids"));
        else
            assert_ok(facet_tokenize(m, text, strlen(text), true, true, &out->ids, &out->n, &err), err);
        json_decref(j);
    }
    fclose(f);
}

static inline void spec_free_prompts(spec_prompts *p)
{
    for (int i = 0; i < p->n; i++) free(p->list[i].ids);
    free(p->list);
    *p = (spec_prompts){0};
}

/* The prompts that ship with the bundled model: 112 tasks, then seven of up to 600 tokens; `long` is the last. */
static inline spec_prompts spec_bundled_prompts(void)
{
    spec_prompts p = {0};
    spec_load_prompts(&p, test_data("bundled/peer_greedy.jsonl"), NULL);
    spec_load_prompts(&p, test_data("bundled/prompts.jsonl"), NULL);
    assert_int_equal(p.n, 119);
    return p;
}

static inline const spec_prompt *spec_prompt_named(const spec_prompts *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->list[i].name, name) == 0) return &p->list[i];
    fail_msg("no prompt %s", name);
    return NULL;
}

/* ---- what was said ---- */

enum { SPEC_MAX_SAID = 512 };

typedef struct spec_said {
    int32_t ids[SPEC_MAX_SAID];
    size_t at[SPEC_MAX_SAID + 1]; /* length of the text after each call */
    int n, n_calls;
    char text[1 << 14];
    facet_generate_result r;
    int stop_after; /* calls after which the callback says no; 0 = never */
} spec_said;

static inline bool spec_hear(void *ud, int32_t token, const char *text, size_t n)
{
    spec_said *s = ud;
    assert_in_range(s->n_calls, 0, SPEC_MAX_SAID - 1);
    const size_t before = s->n_calls ? s->at[s->n_calls - 1] : 0;
    assert_true(before + n < sizeof s->text);
    memcpy(s->text + before, text, n);
    s->text[before + n] = 0;
    s->at[s->n_calls++] = before + n;
    if (token >= 0) s->ids[s->n++] = token;
    return s->n_calls != s->stop_after;
}

/* One request, apart from how it is drafted. */
typedef struct spec_request {
    const int32_t *prompt;
    size_t n_prompt;
    int32_t n_predict;
    bool ignore_eos;
    const char *stop;               /* NULL = none */
    int stop_after;                 /* see spec_said */
    const facet_sampling *sampling; /* NULL = greedy */
    facet_grammar *grammar;         /* NULL = any text */
    unsigned answer;                /* with a grammar: FACET_ANSWER_... */
} spec_request;

static inline facet_status spec_try(facet_session *s, const spec_request *q, const facet_speculation *how,
                                    const strategy_ops *ops, spec_said *out, facet_error *err)
{
    const facet_sampling greedy = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    g.n_predict = q->n_predict;
    g.ignore_eos = q->ignore_eos;
    g.stop = &q->stop;
    g.n_stop = q->stop != NULL;
    g.on_token = spec_hear;
    g.ud = out;
    g.grammar = q->grammar;
    g.answer = q->answer;
    if (how) g.speculation = *how;
    out->n = out->n_calls = 0;
    out->text[0] = 0;
    out->stop_after = q->stop_after;
    out->r = (facet_generate_result){0};
    return generate_with(s, q->prompt, q->n_prompt, q->sampling ? q->sampling : &greedy, &g, ops, &out->r, err);
}

static inline void spec_say(facet_session *s, const spec_request *q, const facet_speculation *how,
                            const strategy_ops *ops, spec_said *out)
{
    facet_error err;
    assert_ok(spec_try(s, q, how, ops, out, &err), err);
}

/* The same tokens, in the same calls, with the same text, for the same reason. */
static inline void spec_assert_same_said(const spec_said *got, const spec_said *want, const char *what)
{
    for (int i = 0; i < got->n || i < want->n; i++)
        if (i >= got->n || i >= want->n || got->ids[i] != want->ids[i])
            fail_msg("%s: token %d: got %d, wanted %d (%d and %d tokens)", what, i, i < got->n ? got->ids[i] : -1,
                     i < want->n ? want->ids[i] : -1, got->n, want->n);
    if (got->r.stop != want->r.stop || got->r.n_tokens != want->r.n_tokens)
        fail_msg("%s: stop %d after %d tokens, wanted %d after %d", what, (int)got->r.stop, got->r.n_tokens,
                 (int)want->r.stop, want->r.n_tokens);
    if (got->n_calls != want->n_calls || memcmp(got->at, want->at, (size_t)got->n_calls * sizeof *got->at) != 0 ||
        strcmp(got->text, want->text) != 0)
        fail_msg("%s: text '%s', wanted '%s', or delivered in other pieces", what, got->text, want->text);
}

/* ---- what a session holds ---- */

/* Everything that the future of a session depends on, seen through it. */
typedef struct spec_state {
    float *logits, *hidden; /* after the last token */
    float *next;            /* logits after one further token: every key and value of the cache took part */
    draft_rows mtp, dflash; /* what the drafters say then */
    int32_t *tokens, n_tokens, n_table[KV_MAX_GROUPS];
} spec_state;

static inline float *spec_read_floats(facet_session *s, int value, uint32_t width)
{
    facet_error err;
    float *out = malloc(width * sizeof *out);
    assert_non_null(out);
    assert_ok(session_read(s, value, out, &err), err);
    return out;
}

/* s goes on as it was; a fork of it looks ahead. The DFlash drafter sees its context from begin on. */
static inline spec_state spec_look_from(facet_session *s, int32_t begin)
{
    facet_engine *e = s->engine;
    const uint32_t V = e->model->h.n_vocab;
    spec_state out = {.n_tokens = s->n_tokens};
    facet_error err;
    facet_session *f;
    const int32_t token = 300;
    out.tokens = malloc((size_t)s->n_tokens * sizeof *out.tokens);
    assert_non_null(out.tokens);
    memcpy(out.tokens, s->tokens, (size_t)s->n_tokens * sizeof *out.tokens);
    memcpy(out.n_table, s->kv.n_table, sizeof out.n_table);
    out.logits = spec_read_floats(s, e->plan->v_logits, V);
    if (e->mtp) out.hidden = spec_read_floats(s, e->plan->v_hidden, e->model->h.n_embd);
    if (s->n_tokens + 2 > e->n_ctx) return out;
    assert_ok(draft_feed_catch_up(s, &err), err); /* the same context, sooner */
    assert_ok(facet_session_fork(s, &f, &err), err);
    assert_ok(session_append(f, &token, 1, &err), err);
    out.next = spec_read_floats(f, e->plan->v_logits, V);
    const draft_chain chain = {.pending = 301, .base = f->n_tokens, .out_row = f->out_row, .k = 4};
    if (e->mtp) assert_ok(engine_draft_mtp(e, &f->kv, &chain, &out.mtp, &err), err);
    const int room = e->n_ctx - f->n_tokens - 1;
    const int most = e->dflash ? e->dflash->dflash.block_size - 1 : 0, k = most < room ? most : room;
    const draft_block block = {.pending = chain.pending, .base = f->n_tokens, .begin = begin, .k = k};
    if (k > 0) assert_ok(engine_draft_block(e, &f->kv, &block, &out.dflash, &err), err);
    facet_session_close(f);
    return out;
}

static inline spec_state spec_look(facet_session *s)
{
    facet_error err;
    assert_ok(draft_feed_catch_up(s, &err), err); /* gaps grow no more */
    return spec_look_from(s, s->feed.gap.end);
}

static inline void spec_assert_same_rows(const draft_rows *a, const draft_rows *b, const char *who, const char *what)
{
    if (a->n != b->n) fail_msg("%s: %s drafts %d rows, wanted %d", what, who, a->n, b->n);
    for (int i = 0; i < a->n; i++)
        for (int j = 0; j < a->n_top; j++)
            if (a->token[i][j] != b->token[i][j] || a->logp[i][j] != b->logp[i][j])
                fail_msg("%s: %s, row %d, rank %d: token %d (%g), wanted %d (%g)", what, who, i, j, a->token[i][j],
                         (double)a->logp[i][j], b->token[i][j], (double)b->logp[i][j]);
}

static inline void spec_assert_same_floats(const float *a, const float *b, uint32_t n, const char *which,
                                           const char *what)
{
    if (!a != !b) fail_msg("%s: %s: only one of them", what, which);
    for (uint32_t i = 0; a && i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: %s %u: %.9g, wanted %.9g", what, which, i, (double)a[i], (double)b[i]);
}

static inline void spec_free_state(spec_state *s)
{
    free(s->logits);
    free(s->hidden);
    free(s->next);
    free(s->tokens);
    *s = (spec_state){0};
}

/* Behind a gap the drafter's context is what it is without one. */
static inline void spec_assert_same_behind_gap(facet_session *s, const draft_rows *got, const char *what)
{
    facet_session *whole = spec_session(s->engine);
    facet_error err;
    assert_ok(facet_session_sync(whole, s->tokens, (size_t)s->n_tokens, &err), err);
    spec_state want = spec_look_from(whole, s->feed.gap.end);
    spec_assert_same_rows(got, &want.dflash, "dflash behind a gap", what);
    spec_free_state(&want);
    facet_session_close(whole);
}

/* The session holds what another one of its engine held: tokens, pages, logits, the cache and the drafters' view of it,
 * to the bit. */
static inline void spec_assert_holds(facet_session *s, const spec_state *want, const char *what)
{
    const facet_engine *e = s->engine;
    if (s->n_tokens != want->n_tokens)
        fail_msg("%s: the session holds %d tokens, wanted %d", what, s->n_tokens, want->n_tokens);
    for (int i = 0; i < want->n_tokens; i++)
        if (s->tokens[i] != want->tokens[i])
            fail_msg("%s: the session's token %d is %d, wanted %d", what, i, s->tokens[i], want->tokens[i]);
    for (int g = 0; g < e->kv.n_groups; g++) {
        assert_int_equal(s->kv.n_table[g], (s->n_tokens + KV_PAGE_LEN - 1) / KV_PAGE_LEN);
        assert_int_equal(s->kv.n_table[g], want->n_table[g]);
    }
    spec_state got = spec_look(s);
    spec_assert_same_floats(got.logits, want->logits, e->model->h.n_vocab, "logit", what);
    spec_assert_same_floats(got.hidden, want->hidden, e->model->h.n_embd, "hidden state, element", what);
    spec_assert_same_floats(got.next, want->next, e->model->h.n_vocab, "logit after one more token", what);
    spec_assert_same_rows(&got.mtp, &want->mtp, "mtp", what);
    if (s->feed.gap.end == 0)
        spec_assert_same_rows(&got.dflash, &want->dflash, "dflash", what);
    else
        spec_assert_same_behind_gap(s, &got.dflash, what);
    spec_free_state(&got);
}

static inline void spec_assert_same_state(facet_session *got, facet_session *want, const char *what)
{
    spec_state s = spec_look(want);
    spec_assert_holds(got, &s, what);
    spec_free_state(&s);
}

/* The session holds what a fresh one holds that was synced to the same tokens. */
static inline void spec_assert_as_fresh(facet_session *s, const char *what)
{
    facet_session *fresh = spec_session(s->engine);
    facet_error err;
    assert_ok(facet_session_sync(fresh, s->tokens, (size_t)s->n_tokens, &err), err);
    spec_assert_same_state(s, fresh, what);
    facet_session_close(fresh);
}

/* ---- ways to draft ---- */

typedef struct spec_variant {
    char name[48];
    facet_speculation how;
} spec_variant;

enum { SPEC_MAX_VARIANTS = 96 };

typedef struct spec_variants {
    spec_variant list[SPEC_MAX_VARIANTS];
    int n;
} spec_variants;

static inline void spec_add_variant(spec_variants *v, facet_speculation how, const char *name, int n)
{
    assert_in_range(v->n, 0, SPEC_MAX_VARIANTS - 1);
    spec_variant *out = &v->list[v->n++];
    out->how = how;
    if (n >= 0)
        snprintf(out->name, sizeof out->name, "%s %d", name, n);
    else
        snprintf(out->name, sizeof out->name, "%s", name);
}

/* Fixed lengths: every draft length that a drafter takes up to 16, every tree budget from one node to a full step. */
static inline void spec_add_fixed(spec_variants *v, const facet_engine *e)
{
    static const int budgets[] = {1, 4, 16, 22, 64};
    const facet_speculation off = {.adapt = FACET_ADAPT_OFF};
    for (int k = 1; k <= 16; k++) {
        facet_speculation o = off;
        o.method = FACET_SPEC_MTP;
        o.mtp_gamma = k;
        if (e->mtp) spec_add_variant(v, o, "mtp", k);
        o = off;
        o.draft_max = k;
        o.method = FACET_SPEC_NGRAM;
        spec_add_variant(v, o, "n-gram", k);
        o.method = FACET_SPEC_DFLASH;
        if (e->dflash && k < e->dflash->dflash.block_size) spec_add_variant(v, o, "dflash chain", k);
    }
    for (int i = 0; e->dflash && i < 10; i++) {
        facet_speculation o = off;
        o.method = FACET_SPEC_DFLASH;
        o.tree_budget = budgets[i / 2];
        o.is_chain_seeded = i % 2;
        spec_add_variant(v, o, i % 2 ? "dflash tree, seeded" : "dflash tree", o.tree_budget);
    }
}

static inline void spec_add_adaptive(spec_variants *v, const facet_engine *e)
{
    static const char *const rules[] = {"by cost", "by window", "fixed"};
    for (int adapt = 0; adapt < 3; adapt++)
        for (int m = FACET_SPEC_MTP; m <= FACET_SPEC_AUTO; m++) {
            static const char *const names[] = {"none", "mtp", "dflash", "n-gram", "auto"};
            char name[40];
            facet_speculation o = {.method = (facet_spec_method)m, .adapt = (facet_spec_adapt)adapt, .tree_budget = -1};
            if ((m == FACET_SPEC_MTP && !e->mtp) || (m == FACET_SPEC_DFLASH && !e->dflash)) continue;
            snprintf(name, sizeof name, "%s, %s", names[m], rules[adapt]);
            spec_add_variant(v, o, name, -1);
            if (m != FACET_SPEC_DFLASH || adapt == FACET_ADAPT_OFF) continue;
            o.tree_budget = 22;
            snprintf(name, sizeof name, "dflash tree 22, %s", rules[adapt]);
            spec_add_variant(v, o, name, -1);
        }
}

/* Drafts that end where the drafter is not sure. */
static inline void spec_add_confident(spec_variants *v, const facet_engine *e)
{
    const facet_speculation mtp = {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = 8, .p_min = 0.7f};
    const facet_speculation dflash = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .width_theta = 0.5f};
    if (e->mtp) spec_add_variant(v, mtp, "mtp 8, p_min 0.7", -1);
    if (e->dflash) spec_add_variant(v, dflash, "dflash chain, theta 0.5", -1);
}

static inline spec_variants spec_all_variants(const facet_engine *e)
{
    spec_variants v = {0};
    spec_add_fixed(&v, e);
    spec_add_adaptive(&v, e);
    spec_add_confident(&v, e);
    return v;
}

/* One of each kind. */
static inline spec_variants spec_few_variants(const facet_engine *e)
{
    const facet_speculation off = {.adapt = FACET_ADAPT_OFF};
    spec_variants v = {0};
    facet_speculation o = off;
    o.method = FACET_SPEC_MTP;
    o.mtp_gamma = 6;
    if (e->mtp) spec_add_variant(&v, o, "mtp", 6);
    o = off;
    o.method = FACET_SPEC_DFLASH;
    if (e->dflash) spec_add_variant(&v, o, "dflash chain", -1);
    o.tree_budget = 22;
    if (e->dflash) spec_add_variant(&v, o, "dflash tree", 22);
    o = off;
    o.method = FACET_SPEC_NGRAM;
    spec_add_variant(&v, o, "n-gram", -1);
    o = (facet_speculation){.method = FACET_SPEC_AUTO, .tree_budget = -1};
    spec_add_variant(&v, o, "auto, by cost", -1);
    return v;
}

/* The whole matrix, which takes hours: FACET_TEST_FULL=1. */
static inline bool spec_is_full(void)
{
    const char *v = getenv("FACET_TEST_FULL");
    return v && *v && *v != '0';
}

#endif

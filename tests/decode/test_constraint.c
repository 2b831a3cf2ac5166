/* Grammars while decoding: the text is in the grammar, and the same with drafts of every kind and without, greedy and
 * sampled, alone and among others; drafts that the grammar forbids are not verified. */
#include "spec_scripted.h"
#include "spec_world.h"

#include "decode/grammar_api.h"
#include "decode/scheduler.h"
#include "decode/verify.h"

static spec_world w;
static spec_prompts prompts;

static int setup(void **state)
{
    (void)state;
    w = spec_open_bundled(2048);
    prompts = spec_bundled_prompts();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    spec_free_prompts(&prompts);
    spec_close(&w);
    return 0;
}

/* ---- the same text ---- */

typedef enum notation { NOTATION_GBNF, NOTATION_SCHEMA, NOTATION_OBJECT } notation;

static const struct grammar_case {
    const char *name;
    notation notation;
    const char *text;
} cases[] = {
    {"words", NOTATION_GBNF, "root ::= [a-z]+ (\" \" [a-z]+){3,12} \".\""},
    {"list", NOTATION_GBNF, "root ::= item{3} \"\\n\"\nitem ::= \"- \" [^\\n]{1,40} \"\\n\""},
    {"brackets", NOTATION_GBNF,
     "root ::= \"(\" inner \")\"\ninner ::= (root | [0-9]{1,3}) (\", \" (root | [0-9]{1,3})){1,3}"},
    {"weather", NOTATION_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":20},\"celsius\":"
     "{\"type\":"
     "\"number\",\"minimum\":-60,\"maximum\":60},\"days\":{\"type\":\"array\",\"items\":{\"type\":\"string\","
     "\"format\":\"date\"},"
     "\"minItems\":2,\"maxItems\":4}},\"required\":[\"city\",\"celsius\",\"days\"]}"},
    {"choice", NOTATION_SCHEMA, "{\"anyOf\":[{\"enum\":[\"yes\",\"no\"]},{\"type\":\"integer\",\"minimum\":10}]}"},
    {"tree", NOTATION_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"children\":{\"type\":\"array\",\"items\":{"
     "\"$ref\":\"#\"},"
     "\"maxItems\":2}},\"required\":[\"name\",\"children\"]}"},
    {"object", NOTATION_OBJECT, NULL},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static facet_grammar *open_case(const struct grammar_case *c)
{
    facet_error err;
    facet_grammar *g;
    if (c->notation == NOTATION_OBJECT)
        assert_ok(facet_grammar_open_json_object(w.model, &g, &err), err);
    else if (c->notation == NOTATION_SCHEMA)
        assert_ok(facet_grammar_open_json_schema(w.model, c->text, strlen(c->text), &g, &err), err);
    else
        assert_ok(facet_grammar_open_gbnf(w.model, c->text, strlen(c->text), &g, &err), err);
    return g;
}

/* Every token was allowed where it stands, and a text that ended by itself may end there. */
static void assert_in_grammar(facet_grammar *g, const spec_said *said, const char *what)
{
    facet_error err;
    masker *k = g->masker;
    int32_t at = masker_start(k);
    for (int i = 0; i < said->n; i++) {
        assert_ok(masker_advance(k, at, said->ids[i], &at, &err), err);
        if (at == STATE_DEAD) fail_msg("%s: token %d of '%s' is not allowed", what, i, said->text);
    }
    if (said->r.stop == FACET_STOP_EOS && !masker_is_final(k, at)) fail_msg("%s: '%s' may not end", what, said->text);
}

static const struct how {
    const char *name;
    facet_speculation how;
} ways[] = {
    {"ngram", {.method = FACET_SPEC_NGRAM, .adapt = FACET_ADAPT_OFF}},
    {"mtp", {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF, .mtp_gamma = 5}},
    {"dflash chain", {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 0}},
    {"dflash tree", {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF, .tree_budget = 22}},
    {"auto", {.method = FACET_SPEC_AUTO, .adapt = FACET_ADAPT_COST, .tree_budget = -1}},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

static facet_sampling hot(uint64_t seed)
{
    facet_sampling s = facet_sampling_default();
    s.temperature = 0.9f;
    s.top_k = 50;
    s.top_p = 0.98f;
    s.repeat_penalty = 1.1f;
    s.seed = seed;
    return s;
}

static void check_case(const struct grammar_case *c, const spec_prompt *p, const facet_sampling *sampling,
                       uint64_t accepted[N_WAYS])
{
    spec_said *plain = malloc(sizeof *plain), *said = malloc(sizeof *said);
    facet_grammar *g = open_case(c);
    facet_session *s = spec_session(w.engine);
    const spec_request q = {.prompt = p->ids, .n_prompt = p->n, .n_predict = 60, .sampling = sampling, .grammar = g};
    char what[96];
    spec_say(s, &q, NULL, NULL, plain);
    assert_in_grammar(g, plain, c->name);
    for (int i = 0; i < N_WAYS; i++) {
        snprintf(what, sizeof what, "%s, %s, %s, %s", c->name, p->name, sampling ? "sampled" : "greedy", ways[i].name);
        spec_say(s, &q, &ways[i].how, NULL, said);
        spec_assert_same_said(said, plain, what);
        accepted[i] += said->r.spec.accepted;
    }
    facet_session_close(s);
    facet_grammar_close(g);
    free(plain);
    free(said);
}

static void drafts_change_nothing(void **state)
{
    (void)state;
    uint64_t accepted[N_WAYS] = {0};
    for (int i = 0; i < N_CASES; i++)
        for (int k = 0; k < 3; k++) {
            const facet_sampling sampling = hot((uint64_t)(i * 10 + k));
            const spec_prompt *p = &prompts.list[(i * 17 + k * 41) % prompts.n];
            check_case(&cases[i], p, k ? &sampling : NULL, accepted);
        }
    for (int i = 0; i < N_WAYS; i++) {
        print_message("%s: %d drafts accepted\n", ways[i].name, (int)accepted[i]);
        assert_true(accepted[i] > 0 || ways[i].how.method == FACET_SPEC_AUTO); /* which may find that none pay */
    }
}

/* ---- drafts that the grammar forbids ---- */

static int32_t id_of(const char *text)
{
    facet_error err;
    int32_t *ids, id;
    size_t n;
    assert_ok(facet_tokenize(w.model, text, strlen(text), false, true, &ids, &n, &err), err);
    assert_int_equal(n, 1);
    id = *ids;
    facet_free(ids);
    return id;
}

static chooser constrained(facet_grammar *g, unsigned flags)
{
    facet_error err;
    chooser c = {0};
    assert_ok(constraint_open(g->masker, w.model->tok, flags, &c.constraint, &err), err);
    return c;
}

static facet_grammar *gbnf(const char *text)
{
    return open_case(&(struct grammar_case){"gbnf", NOTATION_GBNF, text});
}

static void forbidden_chains_are_cut(void **state)
{
    (void)state;
    facet_error err;
    facet_grammar *g = gbnf("root ::= \"a\" \"b\"* \"c\"");
    const int32_t a = id_of("a"), b = id_of("b"), c = id_of("c"), eos = id_of("<eos>");
    const struct {
        int32_t drafts[5];
        int n, kept;
    } chains[] = {{{b, b, c}, 3, 3},   {{b, a, b}, 3, 1},   {{a, b, b}, 3, 0},   {{c, eos}, 2, 2},
                  {{c, eos, b}, 3, 2}, {{b, eos, b}, 3, 1}, {{c, b, eos}, 3, 1}, {{b, b, b, b, eos}, 5, 4}};
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        chooser ch = constrained(g, 0);
        proposal p = {.n = chains[i].n};
        memcpy(p.token, chains[i].drafts, sizeof chains[i].drafts);
        assert_ok(verify_cut(&ch, a, &p, &err), err);
        assert_int_equal(p.n, chains[i].kept);
        constraint_close(ch.constraint);
    }
    facet_grammar_close(g);
}

static void forbidden_branches_are_cut(void **state)
{
    (void)state;
    facet_error err;
    facet_grammar *g = gbnf("root ::= \"a\" (\"b\" \"c\" | \"d\" \"e\")");
    const int32_t a = id_of("a"), b = id_of("b"), c = id_of("c"), d = id_of("d"), e = id_of("e");
    chooser ch = constrained(g, 0);
    proposal p = {.is_tree = true, .has_conf = true};
    draft_tree *t = &p.tree;
    script_plant(t, a);
    const int bad = script_add_node(t, 0, c), ok_b = script_add_node(t, 0, b), below_bad = script_add_node(t, bad, b);
    const int ok_d = script_add_node(t, 0, d);
    script_add_node(t, ok_b, e); /* forbidden there */
    script_add_node(t, below_bad, c);
    const int ok_e = script_add_node(t, ok_d, e), ok_c = script_add_node(t, ok_b, c);
    p.n = t->n_rows - 1;
    for (int i = 0; i < p.n; i++) p.conf[i] = (float)(i + 1);
    const float want_conf[] = {(float)ok_b, (float)ok_d, (float)ok_e, (float)ok_c};
    assert_ok(verify_cut(&ch, a, &p, &err), err);
    assert_int_equal(p.n, 4);
    assert_int_equal(t->n_rows, 5);
    const int32_t tokens[] = {a, b, d, e, c};
    const int8_t parents[] = {-1, 0, 0, 2, 1};
    assert_memory_equal(t->token, tokens, sizeof tokens);
    assert_memory_equal(t->parent, parents, sizeof parents);
    assert_memory_equal(p.conf, want_conf, sizeof want_conf);
    assert_int_equal(t->depth[4], 2);
    assert_true(t->ancestors[3] == (1 | 1 << 2 | 1 << 3) && t->ancestors[4] == (1 | 1 << 1 | 1 << 4));
    assert_int_equal(t->path[3][0], 0);
    assert_int_equal(t->path[3][1], 2);
    assert_int_equal(t->path[3][2], 3);
    constraint_close(ch.constraint);
    facet_grammar_close(g);
}

/* Of drafts at random, none gets as far as the target when the grammar leaves one way only; of the right ones all do.
 */
static void only_allowed_drafts_are_verified(void **state)
{
    (void)state;
    spec_said *plain = malloc(sizeof *plain), *said = malloc(sizeof *said);
    facet_grammar *g = gbnf("root ::= \"one two three four five six seven eight nine ten\"");
    facet_session *s = spec_session(w.engine);
    const spec_prompt *p = &prompts.list[0];
    const spec_request q = {.prompt = p->ids, .n_prompt = p->n, .n_predict = 100, .grammar = g};
    spec_say(s, &q, NULL, NULL, plain);
    assert_string_equal(plain->text, "one two three four five six seven eight nine ten");
    int32_t truth[512];
    memcpy(truth, p->ids, p->n * sizeof *truth);
    memcpy(truth + p->n, plain->ids, (size_t)plain->n * sizeof *truth);
    for (size_t i = p->n + (size_t)plain->n; i < 512; i++) truth[i] = 5;
    for (int is_tree = 0; is_tree < 2; is_tree++)
        for (int right = 0; right < 2; right++) {
            script c = script_open(right ? SCRIPT_ORACLE : SCRIPT_ADVERSARY, is_tree, 6, 3);
            c.truth = truth;
            c.n_truth = 512;
            const facet_speculation how = {.method = FACET_SPEC_NGRAM, .adapt = FACET_ADAPT_OFF};
            spec_say(s, &q, &how, &c.ops, said);
            spec_assert_same_said(said, plain, "scripted");
            assert_true(c.n_proposed > 0);
            if (right)
                assert_true(said->r.spec.accepted > 0);
            else
                assert_in_range(said->r.spec.drafted, 0, c.n_proposed / 10);
        }
    facet_session_close(s);
    facet_grammar_close(g);
    free(plain);
    free(said);
}

/* ---- thoughts and calls ---- */

static bool step_to(chooser *c, int32_t token)
{
    facet_error err;
    bool ok;
    const uint64_t *bits;
    assert_ok(constraint_mask(c->constraint, 0, &bits, &err), err);
    const bool is_set = bits[token >> 6] >> (token & 63) & 1;
    assert_ok(constraint_advance(c->constraint, 0, token, 1, &ok, &err), err);
    assert_int_equal(ok, is_set);
    if (ok) constraint_settle(c->constraint, 1);
    return ok;
}

/* A path of tokens by their texts; "!" before one that must not be allowed. */
static void follow(facet_grammar *g, unsigned flags, const char *const *path, size_t n)
{
    chooser c = constrained(g, flags);
    for (size_t i = 0; i < n; i++) {
        const bool want = path[i][0] != '!';
        if (step_to(&c, id_of(path[i] + !want)) != want)
            fail_msg("flags %u, step %zu: '%s' is %d", flags, i, path[i], !want);
    }
    constraint_close(c.constraint);
}
#define FOLLOW(flags, ...)                                                                                             \
    follow(g, flags, (const char *const[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

static void thoughts_and_calls_are_free(void **state)
{
    (void)state;
    const unsigned think = CONSTRAINT_MAY_THINK, call = CONSTRAINT_MAY_CALL, inside = CONSTRAINT_IN_THOUGHT;
    facet_grammar *g = gbnf("root ::= \"a\" \"b\"?");
    FOLLOW(0, "!<|channel>", "!<|tool_call>", "!<eos>", "!b", "a", "!a", "!<|channel>", "b", "!b", "<eos>", "!<eos>",
           "!a");
    FOLLOW(0, "a", "<turn|>");
    FOLLOW(think, "<|channel>", "b", "!<turn|>", "!<|tool_call>", "<|channel>", "<channel|>", "!b", "!<eos>", "a",
           "!<|channel>", "<eos>");
    FOLLOW(think, "a", "!<|channel>", "b");
    FOLLOW(think, "<|channel>", "<channel|>", "!<|channel>", "a", "<eos>"); /* one thought */
    FOLLOW(call, "!<|channel>", "<|tool_call>", "b", "!<eos>", "<tool_call|>", "!a", "!<|channel>", "<|tool_call>",
           "<tool_call|>", "<turn|>", "!<|tool_call>");
    FOLLOW(call, "a", "!<|tool_call>", "<eos>");
    FOLLOW(think | call, "<|channel>", "a", "<|tool_call>", "b", "<tool_call|>", "<eos>");
    FOLLOW(inside, "b", "!<eos>", "<channel|>", "!b", "a");
    facet_grammar_close(g);
}

/* ---- among others ---- */

typedef struct request {
    spec_said said;
    bool is_done;
} request;

static void done(void *ud, facet_status status, const facet_generate_result *r, const facet_error *err)
{
    request *q = ud;
    if (status != FACET_OK) fail_msg("%s", err->message);
    q->said.r = *r;
    q->is_done = true;
}

/* Texts under one grammar, under another one and under none share the engine's steps. */
static void texts_of_a_scheduler_keep_their_grammars(void **state)
{
    (void)state;
    enum { N = 4 };
    facet_error err;
    facet_grammar *grammars[N] = {open_case(&cases[3]), NULL, open_case(&cases[5]), NULL};
    grammars[1] = grammars[0];
    request *alone = calloc(N, sizeof *alone), *among = calloc(N, sizeof *among);
    scheduler *sc;
    facet_session *sessions[N];
    assert_ok(scheduler_open(w.engine, 0, &sc, &err), err);
    for (int i = 0; i < N; i++) {
        const facet_sampling sampling = hot((uint64_t)i);
        const spec_prompt *p = &prompts.list[i * 9];
        sessions[i] = spec_session(w.engine);
        spec_say(
            sessions[i],
            &(spec_request){
                .prompt = p->ids, .n_prompt = p->n, .n_predict = 50, .sampling = &sampling, .grammar = grammars[i]},
            NULL, NULL, &alone[i].said);
        scheduler_request r = {.session = sessions[i],
                               .prompt = p->ids,
                               .n_prompt = p->n,
                               .sampling = sampling,
                               .params = facet_generate_params_default(),
                               .done = done,
                               .done_ud = &among[i]};
        r.params.n_predict = 50;
        r.params.on_token = spec_hear;
        r.params.ud = &among[i].said;
        r.params.grammar = grammars[i];
        r.params.speculation = ways[i % N_WAYS].how;
        assert_ok(scheduler_add(sc, &r, &err), err);
    }
    while (scheduler_step(sc)) continue;
    for (int i = 0; i < N; i++) {
        assert_true(among[i].is_done);
        spec_assert_same_said(&among[i].said, &alone[i].said, "among others");
        facet_session_close(sessions[i]);
    }
    scheduler_close(sc);
    facet_grammar_close(grammars[0]);
    facet_grammar_close(grammars[2]);
    free(alone);
    free(among);
}

/* ---- wrong uses ---- */

static void wrong_uses_are_refused(void **state)
{
    (void)state;
    facet_error err = {0};
    facet_grammar *g = gbnf("root ::= \"a\"");
    facet_session *s = spec_session(w.engine);
    spec_said *said = malloc(sizeof *said);
    spec_request q = {
        .prompt = prompts.list[0].ids, .n_prompt = prompts.list[0].n, .n_predict = 4, .grammar = g, .ignore_eos = true};
    assert_int_equal(spec_try(s, &q, NULL, NULL, said, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "ignore_eos together with a grammar"));
    q.ignore_eos = false;
    q.answer = 64;
    assert_int_equal(spec_try(s, &q, NULL, NULL, said, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "answer is 0x40"));
    q.answer = 0;
    const facet_logit_bias bias[] = {{id_of("a"), -INFINITY}};
    facet_sampling sampling = facet_sampling_default();
    sampling.bias = bias;
    sampling.n_bias = 1;
    q.sampling = &sampling;
    spec_say(s, &q, NULL, NULL, said); /* the byte token says the same */
    assert_string_equal(said->text, "a");
    facet_model *other;
    facet_grammar *foreign;
    assert_ok(facet_model_open(SPEC_TARGET, &other, &err), err);
    assert_ok(facet_grammar_open_gbnf(other, "root ::= \"a\"", 12, &foreign, &err), err);
    q.grammar = foreign;
    assert_int_equal(spec_try(s, &q, NULL, NULL, said, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "opened for another model"));
    facet_grammar_close(foreign);
    facet_model_close(other);
    facet_session_close(s);
    facet_grammar_close(g);
    facet_grammar_close(NULL);
    free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_change_nothing),       cmocka_unit_test(forbidden_chains_are_cut),
        cmocka_unit_test(forbidden_branches_are_cut),  cmocka_unit_test(only_allowed_drafts_are_verified),
        cmocka_unit_test(thoughts_and_calls_are_free), cmocka_unit_test(texts_of_a_scheduler_keep_their_grammars),
        cmocka_unit_test(wrong_uses_are_refused),
    };
    return cmocka_run_group_tests_name("grammars while decoding", tests, setup, teardown);
}

/* The pieces of a speculative step put together around a toy target: a function from a prefix to the next token, which
 * reads its prefix from slots as attention would. Drafters that are always right, never right, and right half of the
 * time must all give the plain text. */
#include "testing.h"

#include "base/rng.h"
#include "decode/draft_adaptive.h"
#include "decode/draft_tree.h"
#include "decode/spec_accept.h"

enum { VOCAB = 12, STOP = 0, CTX = 512, N_PROMPT = 5, RANKS = 4 };

typedef enum drafter { ORACLE, ADVERSARY, HALF } drafter;

typedef struct loop {
    drafter drafter;
    bool is_tree, is_sampled;
    int k;                  /* drafts of a chain, or depth of the marginals */
    int budget;             /* nodes of a tree */
    int32_t kv[CTX + 64];   /* tokens by slot */
    int n_committed, n_out; /* C and the tokens delivered */
    int32_t pending;
    int32_t text[CTX];
    int n_steps, n_drafted, n_accepted, n_moves;
    rng r;
} loop;

static uint64_t hash3(const int32_t *prefix, int n)
{
    uint64_t h = (uint64_t)n;
    for (int i = n < 3 ? 0 : n - 3; i < n; i++) h = (h ^ (uint64_t)prefix[i]) * 0x9e3779b97f4a7c15u + 1;
    h ^= h >> 31;
    return h * 0xbf58476d1ce4e5b9u >> 33;
}

/* The target's choice for the token at position n: a function of the prefix, or a draw from three equally likely tokens
 * with the uniform number of that position. */
static int32_t target(const loop *l, const int32_t *prefix, int n)
{
    const uint64_t h = hash3(prefix, n);
    if (!l->is_sampled) return (int32_t)(h % VOCAB);
    return (int32_t)((h + (uint64_t)(3 * spec_uniform(99, n, 0))) % VOCAB);
}

static void start(loop *l)
{
    for (int i = 0; i < N_PROMPT; i++) l->kv[i] = 1 + i % (VOCAB - 1);
    l->n_committed = N_PROMPT;
    l->pending = target(l, l->kv, N_PROMPT);
    rng_seed(&l->r, 3);
}

static int32_t other_than(int32_t t, int i)
{
    return (t + 1 + i) % VOCAB;
}

/* The plain continuation of the pending token, right or spoilt. */
static void draft_chain(loop *l, int32_t *draft)
{
    int32_t prefix[CTX + 64];
    int n = l->n_committed;
    memcpy(prefix, l->kv, (size_t)n * sizeof *prefix);
    prefix[n++] = l->pending;
    for (int j = 0; j < l->k; j++) {
        const int32_t right = target(l, prefix, n);
        const bool is_right = l->drafter == ORACLE || (l->drafter == HALF && rng_below(&l->r, 2));
        draft[j] = is_right ? right : other_than(right, 0);
        prefix[n++] = right;
    }
}

/* Marginals whose right token stands at some rank, or nowhere. */
static void draft_tree_of(loop *l, draft_tree *t)
{
    int32_t right[CTX], token[64 * RANKS];
    float logp[64 * RANKS];
    facet_error err;
    const drafter asked = l->drafter;
    l->drafter = ORACLE;
    draft_chain(l, right);
    l->drafter = asked;
    for (int d = 0; d < l->k; d++) {
        const int rank = l->drafter == ORACLE ? 0 : l->drafter == ADVERSARY ? RANKS : (int)rng_below(&l->r, RANKS + 1);
        for (int i = 0; i < RANKS; i++) {
            token[d * RANKS + i] = i == rank ? right[d] : other_than(right[d], i);
            logp[d * RANKS + i] = -0.4f * (float)(i + 1) - 0.1f * (float)rng_uniform(&l->r);
        }
    }
    const draft_marginals m = {l->k, RANKS, token, logp};
    assert_ok(draft_tree_build(&m, l->pending, l->budget, draft_tree_rule_default(), t, &err), err);
}

/* Runs the rows as a forward would: writes them to their slots, then each row reads its prefix through its path. */
static void forward(loop *l, const draft_tree *t, int32_t *verdict)
{
    int32_t token[64], pos[64], slot[64];
    uint8_t path[64][DRAFT_TREE_MAX_ROWS];
    draft_tree_rows(t, l->n_committed, t->n_rows, DRAFT_PAD_ZERO, token, pos, slot, path);
    for (int r = 0; r < t->n_rows; r++) l->kv[slot[r]] = token[r];
    for (int r = 0; r < t->n_rows; r++) {
        int32_t prefix[CTX + 64];
        for (int p = 0; p <= pos[r]; p++)
            prefix[p] = l->kv[p < l->n_committed ? p : l->n_committed + path[r][p - l->n_committed]];
        verdict[r] = target(l, prefix, pos[r] + 1);
    }
}

/* A chain is the tree of one path; its acceptance goes through spec_accept_chain all the same. */
static void chain_as_tree(loop *l, draft_tree *t)
{
    int32_t draft[64];
    float logp[64] = {0};
    facet_error err;
    draft_chain(l, draft);
    const draft_marginals m = {l->k, 1, draft, logp};
    assert_ok(draft_tree_build(&m, l->pending, l->k, (draft_tree_rule){1, false}, t, &err), err);
}

static bool is_stop(void *ud, int32_t token)
{
    return *(bool *)ud && token == STOP;
}

/* One step; returns true at a stop token. *n_path gets the accepted rows before the cut. */
static bool step(loop *l, int n_left, bool stops, int *n_path)
{
    draft_tree t;
    int32_t verdict[64];
    uint8_t path[64];
    draft_move moves[64];
    if (l->is_tree)
        draft_tree_of(l, &t);
    else
        chain_as_tree(l, &t);
    forward(l, &t, verdict);
    *n_path = l->is_tree ? draft_tree_walk_rows(&t, verdict, path) : spec_accept_chain(t.token, verdict, t.n_rows);
    const uint8_t *p = l->is_tree ? path : NULL;
    const spec_commit c = spec_truncate(t.token, verdict, p, *n_path, n_left, is_stop, &stops);
    const int n_moves = p ? draft_tree_moves(p, c.n, l->n_committed, moves) : 0;
    for (int i = 0; i < n_moves; i++) l->kv[moves[i].dst] = l->kv[moves[i].src];
    for (int i = 0; i < c.n; i++) l->text[l->n_out + i] = t.token[p ? p[i] : i];
    l->n_committed += c.n;
    l->n_out += c.n;
    l->pending = c.pending;
    l->n_steps++;
    l->n_drafted += t.n_rows - 1;
    l->n_accepted += *n_path - 1;
    l->n_moves += n_moves;
    return c.is_stopped;
}

static bool generate(loop *l, int n, bool stops)
{
    const int end = l->n_out + n;
    int n_path;
    while (l->n_out < end)
        if (step(l, end - l->n_out, stops, &n_path)) return true;
    return false;
}

/* What plain decoding gives: n tokens and the one pending after them. */
static void plain_text(const loop *like, int32_t *text, int n)
{
    loop l = {.is_sampled = like->is_sampled};
    start(&l);
    for (int i = 0; i <= n; i++) {
        text[i] = l.pending;
        l.kv[l.n_committed++] = l.pending;
        l.pending = target(&l, l.kv, l.n_committed);
    }
}

/* Text, slots and pending token are those of plain decoding. */
static void assert_is_plain(const loop *l)
{
    int32_t want[CTX + 1];
    plain_text(l, want, l->n_out);
    assert_int_equal(l->n_committed, N_PROMPT + l->n_out);
    assert_memory_equal(l->text, want, (size_t)l->n_out * sizeof *want);
    assert_memory_equal(l->kv + N_PROMPT, want, (size_t)l->n_out * sizeof *want);
    assert_int_equal(l->pending, want[l->n_out]);
}

/* Every kind of drafter, chain and tree, argmax and drawn: calls fn with a fresh loop. */
static void for_all_kinds(void (*fn)(const loop *))
{
    for (int i = 0; i < 12; i++) {
        loop l = {.drafter = (drafter)(i % 3), .is_tree = i / 3 % 2, .is_sampled = i / 6, .k = 5, .budget = 14};
        start(&l);
        fn(&l);
    }
}

static void check_text(const loop *fresh)
{
    loop l = *fresh;
    generate(&l, 300, false);
    assert_is_plain(&l);
    if (l.drafter == ORACLE && l.is_tree) assert_in_range(l.n_steps, 50, 150);
    if (l.drafter == ORACLE && !l.is_tree) {
        assert_int_equal(l.n_steps, 50); /* 300 / (1 + 5) */
        assert_int_equal(l.n_accepted, 5 * l.n_steps);
    }
    if (l.drafter == HALF) assert_in_range(l.n_steps, 51, 299);
    if (l.drafter == HALF && l.is_tree) assert_true(l.n_moves > 20);
}

static void every_drafter_gives_the_plain_text(void **state)
{
    (void)state;
    for_all_kinds(check_text);
}

static void check_splits(const loop *fresh)
{
    for (int first = 1; first <= 20; first++)
        for (int second = 1; second <= 20; second++) {
            loop l = *fresh;
            generate(&l, first, false);
            assert_int_equal(l.n_out, first);
            assert_is_plain(&l);
            generate(&l, second, false);
            assert_int_equal(l.n_out, first + second);
            assert_is_plain(&l);
        }
}

static void pitfall_01_two_calls_give_what_one_gives(void **state)
{
    (void)state;
    for_all_kinds(check_splits);
}

static void check_stop(const loop *fresh)
{
    loop l = *fresh;
    int n_stops = 0;
    while (l.n_out < 300) {
        const bool is_stopped = generate(&l, 300 - l.n_out, true);
        assert_is_plain(&l);
        assert_int_equal(is_stopped, l.text[l.n_out - 1] == STOP); /* committed, and nothing after it */
        n_stops += is_stopped;
    }
    assert_true(n_stops > 5);
}

static void pitfall_02_position_is_right_after_a_stop_token(void **state)
{
    (void)state;
    for_all_kinds(check_stop);
}

static void check_adversary(const loop *fresh)
{
    loop l = *fresh;
    if (l.drafter != ADVERSARY) return;
    generate(&l, 200, false);
    assert_is_plain(&l);
    assert_int_equal(l.n_accepted, 0);
    assert_int_equal(l.n_steps, l.n_out); /* exactly one token a step */
}

static void pitfall_27_a_wrong_drafter_costs_steps_and_changes_nothing(void **state)
{
    (void)state;
    for_all_kinds(check_adversary);
}

/* Requests of three tokens with a perfect 16-row draft: what the adaptive width must see is 16, not 3. */
static void pitfall_30_the_cut_at_the_budget_is_no_rejection(void **state)
{
    (void)state;
    loop l = {.drafter = ORACLE, .k = 15};
    draft_adaptive before, after;
    start(&l);
    draft_adaptive_init(&before, DRAFT_ADAPTIVE_ON, true, 16, 0);
    draft_adaptive_init(&after, DRAFT_ADAPTIVE_ON, true, 16, 0);
    for (int i = 0; i < 8; i++) {
        int n_path;
        const int n_out = l.n_out;
        step(&l, 3, false, &n_path);
        assert_int_equal(n_path, 16);
        assert_int_equal(l.n_out - n_out, 3);
        draft_adaptive_observe(&before, n_path, 16);
        draft_adaptive_observe(&after, l.n_out - n_out, 16); /* the mistake */
    }
    assert_is_plain(&l);
    assert_int_equal(before.n_rows, 16);
    assert_int_equal(after.n_rows, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_drafter_gives_the_plain_text),
        cmocka_unit_test(pitfall_01_two_calls_give_what_one_gives),
        cmocka_unit_test(pitfall_02_position_is_right_after_a_stop_token),
        cmocka_unit_test(pitfall_27_a_wrong_drafter_costs_steps_and_changes_nothing),
        cmocka_unit_test(pitfall_30_the_cut_at_the_budget_is_no_rejection),
    };
    return cmocka_run_group_tests_name("spec_loop", tests, NULL, NULL);
}

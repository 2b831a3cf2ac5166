/* The n-gram index against a search of the whole text, on random streams. */
#include "testing.h"

#include "base/mem.h"
#include "base/rng.h"
#include "decode/draft_ngram.h"

/* ---- the reference: looks at every position ---- */

typedef struct text {
    int32_t *token;
    int32_t n, first; /* positions first .. n - 1 are remembered */
} text;

static int agreement(const text *t, int32_t end, int32_t at)
{
    int n = 0;
    while (n < DRAFT_NGRAM_MAX_MATCH && at - n >= t->first && t->token[end - n] == t->token[at - n]) n++;
    return n;
}

static int reference(const text *t, const draft_ngram_params *p, int k, int32_t *out, int *n_match)
{
    const int32_t end = t->n - 1;
    *n_match = 0;
    for (int n = p->n_max; n >= p->n_min; n--) {
        int32_t best = -1;
        for (int32_t at = end - 1, left = p->n_candidates; at >= t->first && left > 0; at--) {
            const int m = agreement(t, end, at);
            if (m < n) continue;
            left--;
            if (m <= *n_match) continue;
            *n_match = m;
            best = at;
        }
        if (best < 0) continue;
        for (int i = 0; i < k; i++) out[i] = best + 1 + i <= end ? t->token[best + 1 + i] : out[best + 1 + i - t->n];
        return k;
    }
    return 0;
}

static void assert_same_proposal(const draft_ngram *d, const text *t, const draft_ngram_params *p)
{
    int32_t got[20], want[20];
    int got_match = -1, want_match = -1;
    const int k = 1 + t->n % 20;
    const int n = draft_ngram_propose(d, k, got, &got_match);
    assert_int_equal(draft_ngram_n_tokens(d), t->n);
    assert_int_equal(n, t->n > t->first ? reference(t, p, k, want, &want_match) : 0);
    if (n == 0) return;
    assert_int_equal(got_match, want_match);
    assert_memory_equal(got, want, (size_t)n * sizeof *got);
}

/* ---- both, side by side ---- */

typedef struct pair {
    draft_ngram_params p;
    draft_ngram *d;
    text t;
} pair;

static void pair_append(pair *x, const int32_t *tokens, int32_t n)
{
    facet_error err;
    assert_ok(draft_ngram_append(x->d, tokens, (size_t)n, &err), err);
    memcpy(x->t.token + x->t.n, tokens, (size_t)n * sizeof *tokens);
    x->t.n += n;
    if (x->t.n - x->t.first > x->p.max_tokens) x->t.first = x->t.n - x->p.max_tokens;
}

static void pair_truncate(pair *x, int32_t n)
{
    draft_ngram_truncate(x->d, n);
    if (n < x->t.n) x->t.n = n < 0 ? 0 : n;
    if (x->t.first > x->t.n) x->t.first = x->t.n;
}

static void pair_open(pair *x, draft_ngram_params p, int32_t room)
{
    facet_error err;
    *x = (pair){.p = p, .t.token = test_calloc((size_t)room, sizeof(int32_t))};
    assert_ok(draft_ngram_open(&p, &x->d, &err), err);
}

static void pair_close(pair *x)
{
    draft_ngram_close(x->d);
    test_free(x->t.token);
}

/* Random text, sometimes a copy of an earlier piece. */
static void random_append(pair *x, rng *r, uint32_t n_vocab)
{
    int32_t piece[40];
    const int32_t n = (int32_t)rng_below(r, 40);
    const int32_t from = x->t.n > 60 && rng_below(r, 2) ? (int32_t)rng_below(r, (uint32_t)(x->t.n - 40)) : -1;
    for (int32_t i = 0; i < n; i++) piece[i] = from >= 0 ? x->t.token[from + i] : (int32_t)rng_below(r, n_vocab);
    pair_append(x, piece, n);
}

static void run_random(uint64_t seed, draft_ngram_params p, uint32_t n_vocab)
{
    enum { ROOM = 6000 };
    rng r;
    pair x;
    rng_seed(&r, seed);
    pair_open(&x, p, ROOM);
    for (int i = 0; i < 400 && x.t.n < ROOM - 40; i++) {
        const uint32_t what = rng_below(&r, 10);
        if (what < 6)
            random_append(&x, &r, n_vocab);
        else if (what < 8)
            pair_append(&x, &(int32_t){(int32_t)rng_below(&r, n_vocab)}, 1);
        else if (what < 9) /* a rollback of a few tokens */
            pair_truncate(&x, x.t.n - (int32_t)rng_below(&r, 20));
        else if (rng_below(&r, 4) == 0) /* another prompt */
            pair_truncate(&x, (int32_t)rng_below(&r, (uint32_t)x.t.n + 1));
        assert_same_proposal(x.d, &x.t, &p);
    }
    pair_close(&x);
}

static draft_ngram_params params(int n_min, int n_max, int n_candidates, int32_t max_tokens)
{
    return (draft_ngram_params){n_min, n_max, n_candidates, max_tokens, 1234};
}

static void proposals_equal_a_search_of_the_text(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        run_random(seed, draft_ngram_params_default(), 3 + 40 * (uint32_t)(seed % 3));
        run_random(seed, params(1, 1, 1, 4096), 30);
        run_random(seed, params(2, 4, 1, 262144), 6);
        run_random(seed, params(2, 8, 5, 100000), 4);
        run_random(seed, params(3, 3, 64, 8192), 2);
    }
}

static void a_full_window_forgets_the_oldest(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        run_random(seed, params(2, 4, 1, 64), 3);
        run_random(seed, params(1, 8, 4, 300), 5);
        run_random(seed, params(2, 4, 1, 1024), 4);
        run_random(seed, params(2, 4, 3, 1500), 40);
        run_random(seed, params(2, 2, 1, 1024), 30);  /* tables nearly half full, most pairs occur again */
        run_random(seed, params(2, 4, 1, 64), 10000); /* hardly any does: entries come and go, thousands of times */
    }
}

static void truncation_gives_what_a_fresh_index_gives(void **state)
{
    (void)state;
    rng r;
    pair x;
    facet_error err;
    rng_seed(&r, 21);
    pair_open(&x, draft_ngram_params_default(), 3000);
    for (int i = 0; i < 2000; i++) pair_append(&x, &(int32_t){(int32_t)rng_below(&r, 6)}, 1);
    for (int32_t n = 2000; n >= 0; n -= 50) {
        draft_ngram *fresh;
        int32_t a[8], b[8];
        int ma, mb;
        pair_truncate(&x, n);
        assert_ok(draft_ngram_open(&x.p, &fresh, &err), err);
        assert_ok(draft_ngram_append(fresh, x.t.token, (size_t)n, &err), err);
        const int na = draft_ngram_propose(x.d, 8, a, &ma), nb = draft_ngram_propose(fresh, 8, b, &mb);
        assert_int_equal(na, nb);
        assert_int_equal(ma, mb);
        assert_memory_equal(a, b, (size_t)na * sizeof *a);
        draft_ngram_close(fresh);
    }
    pair_close(&x);
}

static void a_fork_goes_its_own_way(void **state)
{
    (void)state;
    rng r;
    pair x, y;
    facet_error err;
    rng_seed(&r, 22);
    pair_open(&x, params(2, 4, 2, 5000), 4000);
    for (int i = 0; i < 60; i++) random_append(&x, &r, 5);
    y = x;
    y.t.token = test_calloc(4000, sizeof(int32_t));
    memcpy(y.t.token, x.t.token, (size_t)x.t.n * sizeof(int32_t));
    assert_ok(draft_ngram_fork(x.d, &y.d, &err), err);
    assert_same_proposal(y.d, &y.t, &y.p);
    for (int i = 0; i < 20; i++) {
        random_append(&x, &r, 5);
        pair_truncate(&y, y.t.n - 15);
        random_append(&y, &r, 5);
        assert_same_proposal(x.d, &x.t, &x.p);
        assert_same_proposal(y.d, &y.t, &y.p);
    }
    pair_close(&x);
    pair_close(&y);
}

/* 262144 tokens, the default window, and 20000 more; the memory stays what the header says. */
static void a_session_of_256k_tokens(void **state)
{
    (void)state;
    enum { N = 262144, MORE = 20000 };
    rng r;
    pair x;
    rng_seed(&r, 23);
    pair_open(&x, draft_ngram_params_default(), N + MORE);
    for (int32_t n = 0; n < N + MORE; n += 4000) {
        int32_t piece[4000];
        const int32_t size = N + MORE - n < 4000 ? N + MORE - n : 4000;
        for (int32_t i = 0; i < size; i++) piece[i] = (int32_t)rng_below(&r, 500);
        if (n % 12000 == 8000) memcpy(piece, x.t.token + n / 2, (size_t)size * sizeof *piece);
        pair_append(&x, piece, size);
        if (n % 40000 == 0) assert_same_proposal(x.d, &x.t, &x.p);
    }
    assert_int_equal(x.t.first, MORE);
    assert_same_proposal(x.d, &x.t, &x.p);
    assert_in_range(draft_ngram_bytes(x.d), 40 * N, 40 * N + 4096); /* 4 + 12 * 3 bytes a token */
    pair_truncate(&x, 140000);
    assert_same_proposal(x.d, &x.t, &x.p);
    pair_append(&x, x.t.token + 139000, 100);
    assert_same_proposal(x.d, &x.t, &x.p);
    pair_close(&x);
}

/* Every n-gram is the same one: 262144 links in one chain, and every truncated token has to be unlinked. */
static void a_text_of_one_token(void **state)
{
    (void)state;
    enum { N = 262144 };
    pair x;
    int32_t out[4];
    int n_match;
    pair_open(&x, draft_ngram_params_default(), N);
    int32_t *ones = test_calloc(N, sizeof *ones);
    for (int i = 0; i < N; i++) ones[i] = 1;
    pair_append(&x, ones, N);
    assert_int_equal(draft_ngram_propose(x.d, 4, out, &n_match), 4);
    assert_int_equal(n_match, DRAFT_NGRAM_MAX_MATCH);
    assert_memory_equal(out, ones, sizeof out);
    pair_truncate(&x, 3);
    assert_int_equal(draft_ngram_propose(x.d, 4, out, &n_match), 4);
    assert_int_equal(n_match, 2);
    pair_truncate(&x, 2);
    assert_int_equal(draft_ngram_propose(x.d, 4, out, &n_match), 0);
    assert_int_equal(n_match, 0);
    test_free(ones);
    pair_close(&x);
}

static void assert_proposes(const int32_t *tokens, size_t n, int n_candidates, const int32_t *want, int k,
                            int want_match)
{
    draft_ngram_params p = draft_ngram_params_default();
    draft_ngram *d;
    facet_error err;
    int32_t out[8];
    int n_match;
    p.n_candidates = n_candidates;
    assert_ok(draft_ngram_open(&p, &d, &err), err);
    assert_ok(draft_ngram_append(d, tokens, n, &err), err);
    assert_int_equal(draft_ngram_propose(d, k, out, &n_match), k);
    assert_memory_equal(out, want, (size_t)k * sizeof *want);
    assert_int_equal(n_match, want_match);
    draft_ngram_close(d);
}

static void the_choice_among_matches(void **state)
{
    (void)state;
    /* 1 2 was followed by 7 lately, but 3 1 2 by 5: the longer match wins */
    assert_proposes((const int32_t[]){3, 1, 2, 5, 9, 1, 2, 7, 3, 1, 2}, 11, 1, (const int32_t[]){5, 9}, 2, 3);
    /* both occurrences match equally far: the most recent wins */
    assert_proposes((const int32_t[]){8, 1, 2, 5, 9, 1, 2, 7, 3, 1, 2}, 11, 1, (const int32_t[]){7, 3}, 2, 2);
    /* four tokens are the longest indexed; a second candidate agrees further back */
    const int32_t far[] = {6, 4, 3, 2, 1, 5, 0, 4, 3, 2, 1, 7, 6, 4, 3, 2, 1};
    assert_proposes(far, 17, 1, (const int32_t[]){7}, 1, 4);
    assert_proposes(far, 17, 2, (const int32_t[]){5}, 1, 5);
    /* a period shorter than the draft repeats */
    assert_proposes((const int32_t[]){9, 1, 2, 3, 1, 2, 3}, 7, 1, (const int32_t[]){1, 2, 3, 1, 2, 3, 1}, 7, 3);
}

static void parameters_out_of_range_are_named(void **state)
{
    (void)state;
    draft_ngram *d;
    facet_error err;
    const struct {
        draft_ngram_params p;
        const char *message;
    } bad[] = {
        {{0, 4, 1, 1000, 0}, "n-gram lengths 0 to 4"},
        {{3, 2, 1, 1000, 0}, "n-gram lengths 3 to 2"},
        {{2, 9, 1, 1000, 0}, "longest <= 8"},
        {{2, 4, 0, 1000, 0}, "n-gram candidates 0: wanted 1 to 64"},
        {{2, 4, 65, 1000, 0}, "n-gram candidates 65"},
        {{2, 4, 1, 63, 0}, "window of 63 tokens: wanted 64"},
        {{2, 4, 1, (1 << 24) + 1, 0}, "window of 16777217"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(draft_ngram_open(&bad[i].p, &d, &err), FACET_ERR_ARG);
        assert_non_null(strstr(err.message, bad[i].message));
    }
    draft_ngram_close(NULL);
}

static void memory_failures_leave_the_index_as_it_was(void **state)
{
    (void)state;
    const draft_ngram_params p = draft_ngram_params_default();
    facet_error err;
    int n_failed = 0;
    int32_t tokens[3000], before[6], after[6];
    for (int i = 0; i < 3000; i++) tokens[i] = i * i % 17;
    for (uint64_t n = 1;; n++) {
        draft_ngram *d = NULL, *fork = NULL;
        mem_fail_at(n);
        facet_status status = draft_ngram_open(&p, &d, &err);
        if (status == FACET_OK && (status = draft_ngram_append(d, tokens, 1000, &err)) == FACET_OK) {
            draft_ngram_propose(d, 6, before, NULL);
            status = draft_ngram_append(d, tokens + 1000, 2000, &err); /* grows twice */
            if (status != FACET_OK) {
                assert_int_equal(draft_ngram_n_tokens(d), 1000);
                assert_int_equal(draft_ngram_propose(d, 6, after, NULL), 6);
                assert_memory_equal(before, after, sizeof before);
                assert_ok(draft_ngram_append(d, tokens + 1000, 2000, &err), err);
            } else {
                status = draft_ngram_fork(d, &fork, &err);
            }
        }
        mem_fail_at(0);
        draft_ngram_close(fork);
        draft_ngram_close(d);
        if (status == FACET_OK) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
        n_failed++;
    }
    assert_int_equal(n_failed, 1 + 7 + 7 + 1 + 7); /* the object and seven arrays; a growth; a fork */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proposals_equal_a_search_of_the_text),
        cmocka_unit_test(a_full_window_forgets_the_oldest),
        cmocka_unit_test(truncation_gives_what_a_fresh_index_gives),
        cmocka_unit_test(a_fork_goes_its_own_way),
        cmocka_unit_test(a_session_of_256k_tokens),
        cmocka_unit_test(a_text_of_one_token),
        cmocka_unit_test(the_choice_among_matches),
        cmocka_unit_test(parameters_out_of_range_are_named),
        cmocka_unit_test(memory_failures_leave_the_index_as_it_was),
    };
    return cmocka_run_group_tests_name("draft_ngram", tests, NULL, NULL);
}

/* Reuse of prompts: a new prompt starts from the longest beginning that is still in the cache and whose window is held,
 * and gets the logits that it would have got anyway. */
#include "snapshot_world.h"

enum { BUDGET = 24 << 20 };

static prefix_stats stats_of(const spec_world *w)
{
    prefix_stats s;
    prefix_describe(w->engine, &s);
    return s;
}

/* Syncs a session of its own to tokens; returns how many were taken from the cache. */
static int32_t reused_by_new(spec_world *w, const int32_t *tokens, int32_t n)
{
    facet_session *s = snap_session(w->engine, tokens, n);
    const int32_t kept = s->n_kept;
    facet_session_close(s);
    return kept;
}

/* The logits after a text are the same to the bit whether its beginning was reused or not. */
static void check_logits(spec_world *w, spec_world *plain, const int32_t *tokens, int32_t n, int32_t n_reused)
{
    facet_session *s = snap_session(w->engine, tokens, n), *want = snap_session(plain->engine, tokens, n);
    assert_int_equal(s->n_kept, n_reused);
    spec_assert_same_state(s, s, "itself");
    spec_state a = spec_look(s), b = spec_look(want);
    spec_assert_same_floats(a.logits, b.logits, w->model->h.n_vocab, "logit", "reused");
    spec_assert_same_floats(a.next, b.next, w->model->h.n_vocab, "next logit", "reused");
    spec_assert_same_rows(&a.dflash, &b.dflash, "dflash", "reused");
    spec_assert_same_rows(&a.mtp, &b.mtp, "mtp", "reused");
    spec_free_state(&a);
    spec_free_state(&b);
    facet_session_close(s);
    facet_session_close(want);
}

static void a_prompt_begins_where_another_one_ended(void **state)
{
    (void)state;
    enum { A = 200, B = 320 };
    int32_t text[B], other[B];
    snap_text(text, B, 31);
    snap_text(other, B, 32);
    spec_world w = snap_open_bundled(NULL, BUDGET, true), plain = snap_open_bundled(NULL, 0, false);
    assert_int_equal(reused_by_new(&w, text, A), 0);
    assert_int_equal(reused_by_new(&w, other, A), 0);
    check_logits(&w, &plain, text, B, A); /* its session is gone, its pages are not */
    assert_int_equal(reused_by_new(&w, text, B), B - 1);
    assert_int_equal(reused_by_new(&w, other, B), A);
    const prefix_stats s = stats_of(&w);
    assert_int_equal(s.n_lookups, 5);
    assert_int_equal(s.n_hits, 3);
    assert_int_equal(s.n_reused, A + B - 1 + A);
    assert_true(s.bytes > 0 && s.bytes <= s.budget);
    prefix_clear(w.engine);
    assert_int_equal(stats_of(&w).n_entries, 0);
    assert_true(stats_of(&w).bytes == 0);
    assert_int_equal(reused_by_new(&w, text, B), 0);
    snap_close(&w);
    snap_close(&plain);
}

/* Several requests with one beginning: the second finds out where they part, and keeps that place for the third. */
static void a_common_beginning_is_found_out(void **state)
{
    (void)state;
    enum { COMMON = 301, TAIL = 250, N_ALL = COMMON + TAIL };
    int32_t text[4][N_ALL];
    spec_world w = snap_open_bundled("q8_0", BUDGET, true), plain = snap_open_bundled("q8_0", 0, false);
    for (int i = 0; i < 4; i++) {
        snap_text(text[i], N_ALL, 40);
        snap_text(text[i] + COMMON, TAIL, 41 + (uint64_t)i);
        text[i][COMMON] = 500 + i;
    }
    assert_int_equal(reused_by_new(&w, text[0], N_ALL), 0);
    assert_int_equal(reused_by_new(&w, text[1], N_ALL), 0); /* the window of COMMON is gone */
    check_logits(&w, &plain, text[2], N_ALL, COMMON);
    check_logits(&w, &plain, text[3], N_ALL, COMMON);
    snap_close(&w);
    snap_close(&plain);
}

/* The same in one session, whose prompts are generated upon. */
static void a_branch_in_generations(void **state)
{
    (void)state;
    enum { COMMON = 300, TAIL = 200, N_ALL = COMMON + TAIL };
    int32_t text[N_ALL];
    spec_world w = snap_open_bundled(NULL, BUDGET, true);
    static const int32_t evaluated[] = {N_ALL, N_ALL, TAIL, TAIL};
    facet_session *s = spec_session(w.engine);
    for (int i = 0; i < 4; i++) {
        snap_text(text, N_ALL, 50);
        snap_text(text + COMMON, TAIL, 51 + (uint64_t)i);
        text[COMMON] = 500 + i;
        const snap_answer a = snap_say(s, text, N_ALL, 8, NULL, NULL);
        assert_int_equal(a.r.n_prefill, evaluated[i]);
    }
    facet_session_close(s);
    snap_close(&w);
}

/* Another session that is there, one that has gone on, and a snapshot are sources without any cache. */
static void live_sessions_and_snapshots_are_sources(void **state)
{
    (void)state;
    enum { N = 330 };
    facet_error err;
    int32_t text[N + 40], tail[N];
    snap_text(text, N + 40, 60);
    spec_world w = snap_open_bundled(NULL, 0, true);
    facet_session *a = snap_session(w.engine, text, N);
    assert_int_equal(reused_by_new(&w, text, N + 40), N);
    assert_int_equal(reused_by_new(&w, text, N), N - 1);
    assert_int_equal(reused_by_new(&w, text, 150), 0); /* its window is gone */
    snap_say(a, text, N, 100, NULL, NULL);
    assert_int_equal(reused_by_new(&w, text, N + 40), N); /* by the mark */
    assert_ok(snapshot_store(a, 3, -1, NULL, &err), err);
    const int32_t n_kept = a->n_tokens;
    memcpy(tail, a->tokens, (size_t)n_kept * sizeof *tail < sizeof tail ? (size_t)n_kept * sizeof *tail : sizeof tail);
    int32_t *longer = malloc((size_t)(n_kept + 1) * sizeof *longer);
    memcpy(longer, a->tokens, (size_t)n_kept * sizeof *longer);
    longer[n_kept] = 400;
    facet_session_close(a);
    assert_int_equal(reused_by_new(&w, longer, n_kept + 1), n_kept); /* by the snapshot */
    assert_ok(snapshot_free(w.engine, 3, &err), err);
    assert_int_equal(reused_by_new(&w, longer, n_kept + 1), 0);
    assert_int_equal(stats_of(&w).n_entries, 0);
    free(longer);
    snap_close(&w);
}

static void a_budget_is_kept_and_the_oldest_goes_first(void **state)
{
    (void)state;
    enum { N = 150, N_TEXTS = 12 };
    int32_t text[N_TEXTS][N];
    spec_world w = snap_open_bundled(NULL, 64 << 20, true);
    for (int i = 0; i < N_TEXTS; i++) snap_text(text[i], N, 70 + (uint64_t)i);
    reused_by_new(&w, text[0], N);
    const uint64_t one = stats_of(&w).bytes;
    prefix_set_budget(w.engine, 4 * one);
    for (int i = 1; i < N_TEXTS; i++) {
        assert_int_equal(reused_by_new(&w, text[0], N), N - 1); /* stays in use */
        assert_int_equal(reused_by_new(&w, text[i], N), 0);
        assert_true(stats_of(&w).bytes <= 4 * one);
    }
    prefix_stats s = stats_of(&w);
    assert_int_equal(s.n_entries, 4);
    assert_int_equal(s.n_evictions, N_TEXTS - 4);
    assert_int_equal(reused_by_new(&w, text[N_TEXTS - 1], N), N - 1);
    assert_int_equal(reused_by_new(&w, text[N_TEXTS - 2], N), N - 1);
    assert_int_equal(reused_by_new(&w, text[1], N), 0);
    prefix_set_budget(w.engine, 0);
    assert_int_equal(stats_of(&w).n_entries, 0);
    assert_int_equal(reused_by_new(&w, text[0], N), 0);
    assert_int_equal(stats_of(&w).n_entries, 0);
    snap_close(&w);
}

/* A text that grows is kept once, as long as one covers the other. */
static void a_growing_text_is_kept_once(void **state)
{
    (void)state;
    int32_t text[500];
    snap_text(text, 500, 90);
    spec_world w = snap_open_bundled(NULL, BUDGET, true);
    for (int32_t n = 70; n <= 120; n += 10) reused_by_new(&w, text, n);
    assert_int_equal(stats_of(&w).n_entries, 1);
    reused_by_new(&w, text, 500); /* too far on to cover 120 */
    assert_int_equal(stats_of(&w).n_entries, 2);
    reused_by_new(&w, text, 300); /* of which 120 were found */
    assert_int_equal(stats_of(&w).n_entries, 3);
    reused_by_new(&w, text, 30); /* too short to be worth it */
    assert_int_equal(stats_of(&w).n_entries, 3);
    snap_close(&w);
}

/* Sessions come first: their steps take the pages of cached prompts. */
static void sessions_get_the_pages_they_need(void **state)
{
    (void)state;
    enum { N = 1000 };
    facet_error err;
    int32_t text[N];
    facet_session *s[2];
    spec_world w = snap_open(&(snap_setup){.n_sessions = 2, .cache_bytes = 8 << 20, .reuse_prompts = true});
    prefix_set_budget(w.engine, (uint64_t)1 << 40);
    for (int k = 0; k < 12; k++) {
        snap_text(text, N, 100 + (uint64_t)k);
        reused_by_new(&w, text, 600);
    }
    for (int k = 0; k < 2; k++) {
        s[k] = spec_session(w.engine);
        snap_text(text, N, 200 + (uint64_t)k);
        assert_ok(facet_session_sync(s[k], text, N, &err), err);
        snap_say(s[k], text, N, 20, NULL, NULL);
    }
    assert_true(stats_of(&w).n_evictions > 0);
    for (int k = 0; k < 2; k++) facet_session_close(s[k]);
    snap_close(&w);
}

static void without_the_setting_nothing_is_reused(void **state)
{
    (void)state;
    int32_t text[200];
    snap_text(text, 200, 110);
    spec_world w = snap_open_bundled(NULL, BUDGET, false);
    assert_int_equal(reused_by_new(&w, text, 200), 0);
    assert_int_equal(reused_by_new(&w, text, 200), 0);
    prefix_set_budget(w.engine, 1 << 20);
    assert_false(prefix_evict(w.engine));
    assert_true(stats_of(&w).budget == 0);
    snap_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_begins_where_another_one_ended),
        cmocka_unit_test(a_common_beginning_is_found_out),
        cmocka_unit_test(a_branch_in_generations),
        cmocka_unit_test(live_sessions_and_snapshots_are_sources),
        cmocka_unit_test(a_budget_is_kept_and_the_oldest_goes_first),
        cmocka_unit_test(a_growing_text_is_kept_once),
        cmocka_unit_test(sessions_get_the_pages_they_need),
        cmocka_unit_test(without_the_setting_nothing_is_reused),
    };
    return cmocka_run_group_tests_name("prompt reuse", tests, NULL, NULL);
}

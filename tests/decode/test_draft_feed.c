/* What the DFlash drafter's context holds of a session that let it rest: the text is that of plain decoding, what waits
 * is fed later with the same bits, and what is lost is not seen. */
#include "testing.h"

#include "decode/spec_world.h"

enum { N_TEXT = 400 };

static int32_t text[N_TEXT];

static facet_session *resting_session(facet_engine *e, int32_t n, draft_feeding feeding)
{
    facet_error err;
    facet_session *s = spec_session(e);
    draft_feed_set(s, feeding);
    assert_ok(facet_session_sync(s, text, (size_t)n, &err), err);
    return s;
}

/* Up to DRAFT_TAIL positions nothing is lost; beyond, the last ones are there, with the bits that they always have. */
static void what_waits_is_fed_later(void **state)
{
    (void)state;
    static const int32_t lengths[] = {1, 20, DRAFT_TAIL - 1, DRAFT_TAIL, DRAFT_TAIL + 1, 200, 300, N_TEXT};
    spec_world w = spec_open_bundled(1024);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const int32_t n = lengths[i], lost = n > DRAFT_TAIL ? n - DRAFT_TAIL : 0;
        int least;
        facet_session *s = resting_session(w.engine, n, DRAFT_FEED_REST);
        assert_int_equal(draft_feed_lag(s, &least), n - lost);
        assert_int_equal(s->feed.gap.end, lost);
        assert_true(draft_feed_has_context(s));
        spec_assert_as_fresh(s, "rested");
        assert_int_equal(draft_feed_lag(s, &least), 0);
        facet_session_close(s);
    }
    spec_close(&w);
}

/* Late, nothing is lost at any length. */
static void late_feeding_loses_nothing(void **state)
{
    (void)state;
    facet_error err;
    int least;
    spec_world w = spec_open_bundled(1024);
    facet_session *s = resting_session(w.engine, 100, DRAFT_FEED_LATE);
    assert_int_equal(draft_feed_lag(s, &least), 100);
    for (int32_t n = 110; n <= N_TEXT; n += 10) assert_ok(facet_session_sync(s, text, (size_t)n, &err), err);
    assert_int_equal(s->feed.gap.end, 0);
    assert_true(draft_feed_lag(s, &least) > 0 && draft_feed_lag(s, &least) < DRAFT_TAIL);
    spec_assert_as_fresh(s, "late");
    facet_session_close(s);
    spec_close(&w);
}

/* Who shares pages with a session knows what they lack; going back before that, the session has it all again. */
static void others_know_what_is_missing(void **state)
{
    (void)state;
    facet_error err;
    facet_session *f;
    spec_world w = spec_open_bundled(1024);
    facet_session *s = spec_session(w.engine);
    assert_ok(facet_session_sync(s, text, 150, &err), err);
    draft_feed_set(s, DRAFT_FEED_REST);
    assert_ok(facet_session_sync(s, text, 200, &err), err);
    assert_ok(facet_session_fork(s, &f, &err), err);
    assert_int_equal(f->feed.gap.begin, 150);
    assert_int_equal(f->feed.gap.end, 200);
    assert_false(draft_feed_has_context(f));
    assert_ok(facet_session_sync(f, text, 200 + DRAFT_LEAST_CONTEXT, &err), err);
    assert_true(draft_feed_has_context(f));
    spec_assert_as_fresh(f, "the fork");
    assert_int_equal(s->feed.gap.end, 0); /* of its own it lost nothing */
    spec_assert_as_fresh(s, "the session");
    draft_feed_set(s, DRAFT_FEED_REST);
    assert_ok(facet_session_sync(s, text, N_TEXT, &err), err);
    assert_int_equal(s->feed.gap.begin, 200);
    draft_feed_shorten(s, 70);
    assert_int_equal(s->feed.gap.end, N_TEXT - 70);
    draft_feed_set(s, DRAFT_FEED_NOW); /* what it cannot go back to is evaluated anew */
    assert_ok(facet_session_sync(s, text, 180, &err), err);
    assert_int_equal(s->feed.gap.end, 0);
    spec_assert_as_fresh(s, "back");
    facet_session_close(s);
    facet_session_close(f);
    spec_close(&w);
}

int main(void)
{
    for (int i = 0; i < N_TEXT; i++) text[i] = 300 + i * 7919 % 600;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_is_fed_later),
        cmocka_unit_test(late_feeding_loses_nothing),
        cmocka_unit_test(others_know_what_is_missing),
    };
    return cmocka_run_group_tests_name("draft_feed", tests, NULL, NULL);
}

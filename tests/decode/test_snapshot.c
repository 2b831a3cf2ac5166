/* Snapshots in memory: they share pages, survive whatever the session does afterwards, and what is restored goes on to
 * the bit as if nothing had been in between: with every strategy and cache type. */
#include "snapshot_world.h"

enum { N_LONG = 330 }; /* the local window is full and has moved on */

static void a_restored_session_is_the_one_that_was_kept(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N_LONG], other[200], before[KV_MAX_GROUPS], after[KV_MAX_GROUPS];
    snap_text(text, N_LONG, 1);
    snap_text(other, 200, 2);
    spec_world w = snap_open_bundled(NULL, 0, false);
    facet_session *s = snap_session(w.engine, text, N_LONG);
    spec_state want = spec_look(s);
    snap_count_free(w.engine, before);
    assert_ok(snapshot_store(s, 7, -1, "a label", &err), err);
    snap_count_free(w.engine, after);
    assert_memory_equal(before, after, sizeof *before * (size_t)w.engine->kv.n_groups); /* nothing was copied */

    snapshot_info info;
    assert_true(snapshot_describe(w.engine, 7, &info));
    assert_int_equal(info.n_tokens, N_LONG);
    assert_int_equal(info.first, 0);
    assert_int_equal(info.slot, 7);
    assert_string_equal(info.label, "a label");
    uint64_t held = 0;
    for (int g = 0; g < w.engine->kv.n_groups; g++)
        held += (uint64_t)(w.engine->kv.groups[g].n_pages - before[g]) * kv_group_page_bytes(&w.engine->kv, g);
    assert_true(info.bytes == held);
    assert_true(info.own_bytes == 0);
    int32_t n;
    const int32_t *tokens = snapshot_tokens(w.engine, 7, &n);
    assert_int_equal(n, N_LONG);
    assert_memory_equal(tokens, text, sizeof text);

    snap_say(s, text, N_LONG, 20, NULL, NULL);
    assert_ok(facet_session_sync(s, other, 200, &err), err);
    facet_session *t = spec_session(w.engine);
    assert_ok(snapshot_restore(t, 7, &err), err);
    spec_assert_holds(t, &want, "into a new session");
    assert_ok(snapshot_restore(s, 7, &err), err);
    spec_assert_holds(s, &want, "into the one that went elsewhere");
    facet_session_close(s);
    facet_session_close(t);
    assert_true(snapshot_describe(w.engine, 7, &info));
    assert_true(info.own_bytes == info.bytes);
    assert_ok(snapshot_free(w.engine, 7, &err), err);
    assert_false(snapshot_describe(w.engine, 7, &info));
    spec_free_state(&want);
    snap_close(&w);
}

static void a_prompt_goes_on_where_the_snapshot_ends(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N_LONG + 40], other[N_LONG];
    snap_text(text, N_LONG + 40, 3);
    spec_world w = snap_open_bundled(NULL, 0, false);
    facet_session *s = snap_session(w.engine, text, N_LONG);
    assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
    const snap_answer want = snap_say(s, text, N_LONG + 40, 16, NULL, NULL);
    static const struct {
        int32_t n_prompt, n_evaluated;
    } cases[] = {
        {N_LONG + 40, 40}, /* the rest */
        {N_LONG, 1},       /* the last token, for its logits */
        {N_LONG - 1, 1},   /* a little shorter: the window is still there */
        {200, 200},        /* the window of position 200 is gone */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        facet_session *t = spec_session(w.engine);
        assert_ok(snapshot_restore(t, 0, &err), err);
        snap_answer a = snap_say(t, text, cases[i].n_prompt, 16, NULL, NULL);
        assert_int_equal(a.r.n_prefill, cases[i].n_evaluated);
        if (i == 0) snap_assert_ids(a.ids, want.ids, 16, "after the longer prompt");
        spec_assert_as_fresh(t, "after a prompt on a snapshot");
        facet_session_close(t);
    }
    memcpy(other, text, sizeof other);
    other[100] = 299; /* another text */
    facet_session *t = spec_session(w.engine);
    assert_ok(snapshot_restore(t, 0, &err), err);
    const snap_answer a = snap_say(t, other, N_LONG, 4, NULL, NULL);
    assert_int_equal(a.r.n_prefill, N_LONG);
    spec_assert_as_fresh(t, "after another prompt");
    facet_session_close(t);
    facet_session_close(s);
    snap_close(&w);
}

/* Half a text, a snapshot, something else; then the rest of it from the snapshot. */
static void check_way(spec_world *w, const spec_variant *v, const facet_sampling *sampling, const int32_t *text,
                      int32_t n, const snap_answer *want)
{
    enum { HALF = 16 };
    facet_error err;
    int32_t all[512];
    facet_session *s = spec_session(w->engine);
    const snap_answer first = snap_say(s, text, n, HALF, &v->how, sampling);
    snap_assert_ids(first.ids, want->ids, HALF, v->name);
    assert_ok(snapshot_store(s, 1, -1, v->name, &err), err);
    snap_say(s, text, n / 2, 8, &v->how, sampling);
    facet_session_close(s);
    s = spec_session(w->engine);
    assert_ok(snapshot_restore(s, 1, &err), err);
    memcpy(all, text, (size_t)n * sizeof *all);
    memcpy(all + n, first.ids, HALF * sizeof *all);
    const snap_answer rest = snap_say(s, all, n + HALF, HALF, &v->how, sampling);
    snap_assert_ids(rest.ids, want->ids + HALF, HALF, v->name);
    assert_in_range(rest.r.n_prefill, 1, 2); /* the pending token, and the last one's logits */
    facet_session_close(s);
}

static void every_strategy_and_cache_type_goes_on_the_same(void **state)
{
    (void)state;
    enum { N = 250 };
    static const char *const types[] = {"f16", "q8_0", "f32", "q4_0", "tq3_0", "f16", "rot_q4_0"};
    int32_t text[N];
    facet_sampling warm = facet_sampling_default();
    warm.temperature = 0.9f;
    warm.top_k = 40;
    warm.seed = 11;
    warm.repeat_penalty = 1.1f;
    warm.penalty_last_n = 64;
    snap_text(text, N, 4);
    for (int t = 0; t < 7; t++) {
        const bool rebuild_keys = t >= 5;
        if (rebuild_keys && !spec_can_rebuild_keys()) continue;
        spec_world w = snap_open(&(snap_setup){
            .mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .k = types[t], .v = types[t], .rebuild_keys = rebuild_keys});
        const facet_sampling *const samplings[] = {NULL, &warm};
        for (int i = 0; i < 2; i++) {
            facet_session *s = spec_session(w.engine);
            const snap_answer want = snap_say(s, text, N, 32, NULL, samplings[i]);
            facet_session_close(s);
            spec_variants v = spec_few_variants(w.engine);
            spec_add_variant(&v, (facet_speculation){0}, "plain", -1);
            for (int k = 0; k < v.n; k++) check_way(&w, &v.list[k], samplings[i], text, N, &want);
        }
        snap_close(&w);
    }
}

static void thin_ones_stand_on_others(void **state)
{
    (void)state;
    facet_error err;
    enum { A = 200, B = 290, C = 420, D = 500 };
    int32_t text[D], other[D];
    snap_text(text, D, 5);
    spec_world w = snap_open_bundled("q8_0", 0, false);
    facet_session *s = snap_session(w.engine, text, A);
    assert_ok(snapshot_store(s, 10, -1, NULL, &err), err);
    assert_ok(facet_session_sync(s, text, B, &err), err);
    assert_ok(snapshot_store_thin(s, 11, A, B, "middle", &err), err);
    assert_ok(facet_session_sync(s, text, C, &err), err);
    spec_state want = spec_look(s);
    assert_ok(snapshot_store_thin(s, 12, B - 5, C, NULL, &err), err); /* overlaps */
    assert_ok(snapshot_store_thin(s, 13, B + 1, C, NULL, &err), err); /* leaves a hole */
    assert_ok(facet_session_sync(s, text, D, &err), err);
    facet_session_close(s);

    snapshot_info all[SNAPSHOT_SLOTS];
    assert_int_equal(snapshot_list(w.engine, all), 4);
    assert_int_equal(all[1].slot, 11);
    assert_int_equal(all[1].first, A);
    assert_int_equal(all[1].n_tokens, B);
    assert_int_equal(snapshot_find(w.engine, "middle"), 11);
    assert_int_equal(snapshot_find(w.engine, "centre"), -1);
    assert_int_equal(snapshot_empty_slot(w.engine), 0);

    const int chain[] = {11, 12}, holed[] = {11, 13}, short_[] = {12}, thick[] = {10}, empty[] = {20};
    s = spec_session(w.engine);
    assert_ok(snapshot_restore_chain(s, 10, chain, 2, &err), err);
    spec_assert_holds(s, &want, "a chain");
    const snap_answer a = snap_say(s, text, D, 8, NULL, NULL);
    assert_int_equal(a.r.n_prefill, D - C);
    spec_assert_as_fresh(s, "after a chain");
    assert_ok(snapshot_restore_chain(s, 10, chain, 1, &err), err);
    assert_int_equal(facet_session_n_tokens(s), B);
    spec_assert_as_fresh(s, "a shorter chain");

    static const char *const words[] = {"does not continue 290", "does not continue 200", "is not thin", "is empty"};
    snap_assert_error(snapshot_restore_chain(s, 10, holed, 2, &err), FACET_ERR_ARG, &err, words[0]);
    snap_assert_error(snapshot_restore_chain(s, 10, short_, 1, &err), FACET_ERR_ARG, &err, words[1]);
    snap_assert_error(snapshot_restore_chain(s, 10, thick, 1, &err), FACET_ERR_ARG, &err, words[2]);
    snap_assert_error(snapshot_restore_chain(s, 10, empty, 1, &err), FACET_ERR_ARG, &err, words[3]);
    snap_assert_error(snapshot_restore(s, 11, &err), FACET_ERR_ARG, &err, "is thin (positions 200 to 290)");
    assert_int_equal(facet_session_n_tokens(s), B); /* as it was */
    spec_assert_as_fresh(s, "after failures");

    memcpy(other, text, sizeof other);
    other[50] = 299;
    assert_ok(facet_session_sync(s, other, A, &err), err);
    assert_ok(snapshot_store(s, 10, -1, NULL, &err), err);
    snap_assert_error(snapshot_restore_chain(s, 10, chain, 1, &err), FACET_ERR_ARG, &err, "another text: token 50");
    facet_session_close(s);
    spec_free_state(&want);
    snap_close(&w);
}

static void what_cannot_be_kept_is_refused(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N_LONG];
    const char *const too_long = "0123456789012345678901234567890123456789012345678901234567890123";
    snap_text(text, N_LONG, 6);
    spec_world w = snap_open_bundled(NULL, 0, false);
    facet_session *s = spec_session(w.engine);
    snap_assert_error(snapshot_store(s, 0, -1, NULL, &err), FACET_ERR_ARG, &err, "empty session");
    assert_ok(facet_session_sync(s, text, N_LONG, &err), err);
    snap_assert_error(snapshot_store(s, -1, -1, NULL, &err), FACET_ERR_ARG, &err, "slot -1: wanted 0 to 63");
    snap_assert_error(snapshot_store(s, 64, -1, NULL, &err), FACET_ERR_ARG, &err, "slot 64: wanted 0 to 63");
    snap_assert_error(snapshot_restore(s, 64, &err), FACET_ERR_ARG, &err, "slot 64");
    snap_assert_error(snapshot_free(w.engine, 64, &err), FACET_ERR_ARG, &err, "slot 64");
    snap_assert_error(snapshot_restore(s, 5, &err), FACET_ERR_ARG, &err, "slot 5 is empty");
    assert_ok(snapshot_free(w.engine, 5, &err), err);
    snap_assert_error(snapshot_store(s, 0, 0, NULL, &err), FACET_ERR_ARG, &err, "a snapshot of 0 tokens");
    snap_assert_error(snapshot_store(s, 0, N_LONG + 1, NULL, &err), FACET_ERR_ARG, &err, "the session has 330");
    snap_assert_error(snapshot_store(s, 0, -1, too_long, &err), FACET_ERR_ARG, &err, "64 bytes: wanted at most 63");
    snap_assert_error(snapshot_store(s, 0, -1, "\xff", &err), FACET_ERR_ARG, &err, "UTF-8");
    snap_assert_error(snapshot_store_thin(s, 0, 0, 10, NULL, &err), FACET_ERR_ARG, &err, "0 < first");
    snap_assert_error(snapshot_store_thin(s, 0, 10, 10, NULL, &err), FACET_ERR_ARG, &err, "10 to 10");

    /* what lies back more than the window: the message tells where it can be done */
    snap_assert_error(snapshot_store(s, 0, 200, NULL, &err), FACET_ERR_LIMIT, &err,
                      "the first that can be kept is of ");
    const int32_t first = atoi(strstr(err.message, "is of ") + 6);
    assert_in_range(first, 201, N_LONG);
    assert_int_equal(snapshot_list(w.engine, NULL), 0);
    assert_int_equal(snapshot_store(s, 0, first - 1, NULL, &err), FACET_ERR_LIMIT);
    assert_ok(snapshot_store(s, 0, first, NULL, &err), err);
    facet_session *t = spec_session(w.engine);
    assert_ok(snapshot_restore(t, 0, &err), err);
    assert_int_equal(facet_session_n_tokens(t), first);
    const snap_answer a = snap_say(t, text, N_LONG, 4, NULL, NULL);
    assert_int_equal(a.r.n_prefill, N_LONG - first);
    spec_assert_as_fresh(t, "from the first that can be kept");

    /* a refused one leaves the slot alone */
    assert_int_equal(snapshot_store(s, 0, 200, NULL, &err), FACET_ERR_LIMIT);
    snapshot_info info;
    assert_true(snapshot_describe(w.engine, 0, &info));
    assert_int_equal(info.n_tokens, first);
    facet_session_close(s);
    facet_session_close(t);
    snap_close(&w);
}

/* Snapshots take the pages that sessions would need: an error that says so, and goes away when some are freed. */
static void a_pool_full_of_snapshots_is_an_error(void **state)
{
    (void)state;
    facet_error err;
    enum { N = 500 };
    int32_t text[N], n_stored = 0;
    spec_world w = snap_open(&(snap_setup){.n_ctx = 512, .n_sessions = 1});
    facet_session *s = spec_session(w.engine);
    facet_status status = FACET_OK;
    for (int i = 0; i < 8 && status == FACET_OK; i++) {
        snap_text(text, N, 100 + (uint64_t)i);
        status = facet_session_sync(s, text, N, &err);
        if (status == FACET_OK) assert_ok(snapshot_store(s, n_stored++, -1, NULL, &err), err);
    }
    snap_assert_error(status, FACET_ERR_LIMIT, &err, "snapshots hold pages: free some, or set cache_bytes");
    assert_in_range(n_stored, 1, 2);
    snapshot_free_all(w.engine);
    assert_ok(facet_session_sync(s, text, N, &err), err);
    facet_session_close(s);
    snap_close(&w);

    /* cache_bytes is room for more */
    w = snap_open(&(snap_setup){.n_ctx = 512, .n_sessions = 1, .cache_bytes = 24 << 20});
    s = spec_session(w.engine);
    for (int i = 0; i < 5; i++) {
        snap_text(text, N, 100 + (uint64_t)i);
        assert_ok(facet_session_sync(s, text, N, &err), err);
        assert_ok(snapshot_store(s, i, -1, NULL, &err), err);
    }
    facet_session_close(s);
    snap_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_session_is_the_one_that_was_kept),
        cmocka_unit_test(a_prompt_goes_on_where_the_snapshot_ends),
        cmocka_unit_test(every_strategy_and_cache_type_goes_on_the_same),
        cmocka_unit_test(thin_ones_stand_on_others),
        cmocka_unit_test(what_cannot_be_kept_is_refused),
        cmocka_unit_test(a_pool_full_of_snapshots_is_an_error),
    };
    return cmocka_run_group_tests_name("snapshots", tests, NULL, NULL);
}

/* Parking: memory returns, by the backend's accounts and by the process's own; what needs a parked part says so, or
 * unparks it by setting; and afterwards everything is as it was. */
#define _GNU_SOURCE
#include "snapshot_world.h"

#include "../file/temp_dir.h"
#include "base/file_map.h"
#include "base/mem.h"

enum { N = 200 };

static uint64_t resident(void)
{
    char line[256];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %llu", &kb) == 1) break;
    fclose(f);
    return kb * 1024;
}

static facet_memory memory_of(const spec_world *w)
{
    facet_memory m;
    facet_engine_memory(w->engine, &m);
    return m;
}

static spec_world open_with(const char *device, bool auto_unpark)
{
    return snap_open(
        &(snap_setup){.device = device, .mtp = SPEC_MTP, .dflash = SPEC_DFLASH, .auto_unpark = auto_unpark});
}

/* What a device of this kind takes to compute with before it knows any model. */
static uint64_t idle_compute(const spec_world *w)
{
    const backend_config cfg = {.n_threads = 1};
    backend_info info;
    backend *idle;
    facet_error err;
    w->engine->be->ops->info(w->engine->be, &info);
    assert_ok(backend_open(info.name, &cfg, &idle, &err), err);
    idle->ops->info(idle, &info);
    idle->ops->close(idle);
    return info.compute_bytes;
}

static void drafters_give_their_memory_back(void **state)
{
    (void)state;
    facet_error err;
    park_report r;
    int32_t text[N];
    snap_text(text, N, 1);
    spec_world w = open_with(NULL, false);
    const facet_memory all = memory_of(&w);
    facet_session *s = snap_session(w.engine, text, N);
    spec_state want = spec_look(s);
    assert_ok(engine_park(w.engine, PARK_DRAFTERS, FACET_PARK_KV_HOST, &r, &err), err);
    const facet_memory less = memory_of(&w);
    assert_int_equal(engine_parked(w.engine), PARK_DRAFTERS);
    assert_true(all.weights - less.weights == r.weights && r.weights > 2u << 20);
    assert_true(all.compute - less.compute == r.compute && r.compute > 0);
    assert_true(all.kv - less.kv == r.kv && r.kv > 0 && r.host > 0 && r.host < r.kv);

    /* again, and what there is nothing of: nothing happens */
    assert_ok(engine_park(w.engine, PARK_MTP, FACET_PARK_KV_DROP, &r, &err), err);
    assert_true(r.weights == 0 && r.kv == 0 && r.compute == 0);
    assert_int_equal(engine_parked(w.engine), PARK_DRAFTERS);

    assert_ok(engine_unpark(w.engine, PARK_ALL, &r, &err), err);
    assert_int_equal(engine_parked(w.engine), 0);
    assert_true(r.weights == all.weights - less.weights && r.kv == all.kv - less.kv && r.host > 0);
    assert_true(memory_of(&w).weights == all.weights && memory_of(&w).kv == all.kv &&
                memory_of(&w).compute == all.compute);
    spec_assert_holds(s, &want, "after parking the drafters"); /* their view included */
    spec_free_state(&want);
    facet_session_close(s);
    snap_close(&w);
}

/* By every rule for the pages, on every device here: the same answers afterwards, by every strategy. */
static void the_target_comes_back_as_it_was(void **state)
{
    (void)state;
    static const char *const devices[] = {NULL, "ref"};
    static const unsigned parts[] = {PARK_TARGET, PARK_ALL};
    facet_error err;
    int32_t text[N], tail[3];
    snap_text(text, N, 2);
    for (int i = 0; i < 12; i++) {
        const park_kv kv = (park_kv)(i % 3);
        const unsigned part = parts[i / 3 % 2];
        park_report r;
        spec_world w = open_with(devices[i / 6], false);
        const facet_memory all = memory_of(&w);
        const uint64_t unpaged = all.kv - kv_total_bytes(&w.engine->kv); /* page tables on a device */
        const uint64_t idle = idle_compute(&w);
        facet_session *s = snap_session(w.engine, text, N);
        assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
        const snap_answer want = snap_say(s, text, N, 16, NULL, NULL);
        spec_state holds = spec_look(s);
        assert_ok(engine_park(w.engine, part, kv, &r, &err), err);
        const facet_memory less = memory_of(&w);
        assert_true(less.compute == idle);
        assert_true(part == PARK_TARGET || less.weights == 0);
        assert_true(less.weights + r.weights == all.weights);
        assert_true(kv == FACET_PARK_KV_KEEP ? less.kv == all.kv : less.kv < all.kv);
        assert_true(part == PARK_TARGET || kv == FACET_PARK_KV_KEEP || less.kv == unpaged);

        snap_answer a;
        float logits[2048];
        tail[0] = 5;
        snap_assert_error(snap_try(s, text, N, 4, NULL, NULL, &a, &err), FACET_ERR_PARKED, &err,
                          "the target is parked: unpark it first");
        snap_assert_error(facet_session_sync(s, tail, 1, &err), FACET_ERR_PARKED, &err, "the target is parked");
        if (kv != FACET_PARK_KV_DROP)
            snap_assert_error(facet_session_logits(s, logits, &err), FACET_ERR_PARKED, &err, "the target is parked");
        snapshot_info info;
        assert_int_equal(snapshot_describe(w.engine, 0, &info), kv != FACET_PARK_KV_DROP);
        assert_int_equal(facet_session_n_tokens(s), kv == FACET_PARK_KV_DROP ? 0 : holds.n_tokens);
        facet_session *fork;
        assert_ok(facet_session_fork(s, &fork, &err), err);
        facet_session_close(fork);

        assert_ok(engine_unpark(w.engine, part, &r, &err), err);
        assert_true(memory_of(&w).weights == all.weights && memory_of(&w).kv == all.kv &&
                    memory_of(&w).compute == all.compute);
        if (kv != FACET_PARK_KV_DROP) {
            spec_assert_holds(s, &holds, "after parking");
            assert_ok(snapshot_restore(s, 0, &err), err);
        }
        const spec_variants v = spec_few_variants(w.engine);
        for (int k = 0; k < v.n && i < 6; k++) {
            a = snap_say(s, text, N, 16, &v.list[k].how, NULL);
            snap_assert_ids(a.ids, want.ids, 16, v.list[k].name);
        }
        a = snap_say(s, text, N, 16, NULL, NULL);
        snap_assert_ids(a.ids, want.ids, 16, "plain");
        spec_free_state(&holds);
        facet_session_close(s);
        snap_close(&w);
    }
}

static void parked_drafters_are_missed_or_done_without(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N];
    snap_answer a;
    snap_text(text, N, 3);
    spec_world w = open_with(NULL, false);
    facet_session *s = spec_session(w.engine);
    const snap_answer want = snap_say(s, text, N, 32, NULL, NULL);
    const facet_speculation mtp = {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF},
                            dflash = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF},
                            automatic = {.method = FACET_SPEC_AUTO, .tree_budget = -1};
    assert_ok(engine_park(w.engine, PARK_MTP, FACET_PARK_KV_HOST, NULL, &err), err);
    snap_assert_error(snap_try(s, text, N, 8, &mtp, NULL, &a, &err), FACET_ERR_PARKED, &err,
                      "the MTP drafter is parked");
    a = snap_say(s, text, N, 32, &dflash, NULL);
    snap_assert_ids(a.ids, want.ids, 32, "dflash without mtp");
    assert_true(a.r.spec.drafted > 0);
    assert_ok(engine_park(w.engine, PARK_DFLASH, FACET_PARK_KV_HOST, NULL, &err), err);
    snap_assert_error(snap_try(s, text, N, 8, &dflash, NULL, &a, &err), FACET_ERR_PARKED, &err,
                      "the DFlash drafter is parked");
    a = snap_say(s, text, N, 32, &automatic, NULL);
    snap_assert_ids(a.ids, want.ids, 32, "auto without drafters");
    assert_int_equal(a.r.spec.method_steps[FACET_SPEC_MTP] + a.r.spec.method_steps[FACET_SPEC_DFLASH], 0);

    /* a drafter alone cannot work; it comes back with the target */
    assert_ok(engine_park(w.engine, PARK_TARGET, FACET_PARK_KV_HOST, NULL, &err), err);
    assert_ok(engine_unpark(w.engine, PARK_DRAFTERS, NULL, &err), err);
    assert_false(engine_has_drafter(w.engine, PARK_MTP));
    assert_ok(engine_unpark(w.engine, PARK_TARGET, NULL, &err), err);
    assert_true(engine_has_drafter(w.engine, PARK_MTP) && engine_has_drafter(w.engine, PARK_DFLASH));
    a = snap_say(s, text, N, 32, &mtp, NULL);
    snap_assert_ids(a.ids, want.ids, 32, "mtp again");
    assert_true(a.r.spec.drafted > 0);
    facet_session_close(s);
    snap_close(&w);
}

/* What was evaluated while the DFlash drafter was parked, its context lacks: no drafts until that was evaluated anew.
 */
static void a_gap_in_the_drafters_context(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N + 40];
    snap_text(text, N + 40, 4);
    const facet_speculation dflash = {.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF};
    spec_world w = open_with(NULL, false);
    facet_session *s = snap_session(w.engine, text, N), *fresh = spec_session(w.engine);
    const snap_answer want = snap_say(fresh, text, N + 40, 32, NULL, NULL);
    assert_ok(engine_park(w.engine, PARK_DFLASH, FACET_PARK_KV_KEEP, NULL, &err), err);
    assert_ok(facet_session_sync(s, text, N + 20, &err), err);
    assert_ok(engine_unpark(w.engine, PARK_DFLASH, NULL, &err), err);
    assert_int_equal(s->feed.gap.begin, N);
    assert_int_equal(s->feed.gap.end, N + 20);
    assert_false(draft_feed_has_context(s));
    assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
    snap_answer a = snap_say(s, text, N + 40, 32, &dflash, NULL);
    snap_assert_ids(a.ids, want.ids, 32, "with a gap");
    assert_int_equal(a.r.spec.drafted, 0);
    facet_session *t = spec_session(w.engine);
    assert_ok(snapshot_restore(t, 0, &err), err); /* snapshots know it */
    assert_false(draft_feed_has_context(t));

    assert_ok(facet_session_sync(s, text, N, &err), err); /* back before the gap */
    assert_true(draft_feed_has_context(s));
    a = snap_say(s, text, N + 40, 32, &dflash, NULL);
    snap_assert_ids(a.ids, want.ids, 32, "without it");
    assert_true(a.r.spec.drafted > 0);
    spec_assert_as_fresh(s, "evaluated anew");

    /* its context dropped: all of it is missing, the target's is not */
    assert_ok(engine_park(w.engine, PARK_DFLASH, FACET_PARK_KV_DROP, NULL, &err), err);
    assert_ok(engine_unpark(w.engine, PARK_DFLASH, NULL, &err), err);
    assert_false(draft_feed_has_context(s));
    const int32_t n = s->n_tokens;
    a = snap_say(s, s->tokens, n, 8, &dflash, NULL);
    assert_int_equal(a.r.n_prefill, 1);
    assert_int_equal(a.r.spec.drafted, 0);
    facet_session_close(s);
    facet_session_close(t);
    facet_session_close(fresh);
    snap_close(&w);
}

static void by_setting_it_unparks_by_itself(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N];
    snap_text(text, N, 5);
    spec_world w = open_with(NULL, true);
    facet_session *s = spec_session(w.engine);
    const snap_answer want = snap_say(s, text, N, 16, NULL, NULL);
    const facet_speculation mtp = {.method = FACET_SPEC_MTP, .adapt = FACET_ADAPT_OFF};
    for (int kv = 0; kv < 3; kv++) {
        assert_ok(engine_park(w.engine, PARK_ALL, (park_kv)kv, NULL, &err), err);
        snap_answer a = snap_say(s, text, N, 16, NULL, NULL);
        snap_assert_ids(a.ids, want.ids, 16, "unparked by a prompt");
        assert_int_equal(engine_parked(w.engine), PARK_DRAFTERS);
        a = snap_say(s, text, N, 16, &mtp, NULL);
        snap_assert_ids(a.ids, want.ids, 16, "unparked by a method");
        assert_true(a.r.spec.drafted > 0);
        assert_int_equal(engine_parked(w.engine), PARK_DFLASH);
        assert_ok(engine_unpark(w.engine, PARK_ALL, NULL, &err), err);
    }
    engine_set_auto_unpark(w.engine, false);
    assert_ok(engine_park(w.engine, PARK_TARGET, FACET_PARK_KV_HOST, NULL, &err), err);
    assert_int_equal(facet_session_sync(s, text, N, &err), FACET_ERR_PARKED);
    engine_set_auto_unpark(w.engine, true);
    assert_ok(facet_session_sync(s, text, N, &err), err);
    facet_session_close(s);
    snap_close(&w);
}

/* ---- under way ---- */

typedef struct parker {
    spec_world *w;
    park_kv kv;
    int n_calls, at;
} parker;

static bool park_in_between(void *ud, int32_t token, const char *text, size_t n)
{
    (void)token, (void)text, (void)n;
    parker *p = ud;
    facet_error err;
    if (p->n_calls++ == p->at) assert_ok(engine_park(p->w->engine, PARK_ALL, p->kv, NULL, &err), err);
    return true;
}

static void parking_in_a_callback(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N];
    snap_text(text, N, 6);
    for (int i = 0; i < 12; i++) {
        const bool is_auto = i % 2;
        spec_world w = open_with(NULL, is_auto);
        parker p = {.w = &w, .kv = (park_kv)(i / 2 % 3), .at = i / 6 ? 0 : 5};
        const facet_sampling greedy = facet_sampling_default();
        facet_generate_params g = facet_generate_params_default();
        facet_generate_result r;
        g.n_predict = 24;
        g.ignore_eos = true;
        g.on_token = park_in_between;
        g.ud = &p;
        g.speculation = (facet_speculation){.method = FACET_SPEC_DFLASH, .adapt = FACET_ADAPT_OFF};
        facet_session *s = spec_session(w.engine);
        const facet_status status = facet_generate(s, text, N, &greedy, &g, &r, &err);
        if (is_auto && p.kv != FACET_PARK_KV_DROP) {
            assert_ok(status, err);
            assert_int_equal(r.n_tokens, 24);
        } else {
            snap_assert_error(status, FACET_ERR_PARKED, &err, "parked");
        }
        assert_ok(engine_unpark(w.engine, PARK_ALL, NULL, &err), err);
        facet_session *fresh = spec_session(w.engine);
        const snap_answer want = snap_say(fresh, text, N, 8, NULL, NULL), a = snap_say(s, text, N, 8, NULL, NULL);
        snap_assert_ids(a.ids, want.ids, 8, "afterwards");
        facet_session_close(s);
        facet_session_close(fresh);
        snap_close(&w);
    }
}

/* ---- failures ---- */

/* Each allocation of parking and unparking fails once: nothing is lost, and it works the next time. */
static void every_allocation_fails_once(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N];
    snap_text(text, N, 7);
    spec_world w = open_with(NULL, false);
    facet_session *s = snap_session(w.engine, text, N);
    spec_state want = spec_look(s);
    const facet_memory all = memory_of(&w);
    const uint64_t unpaged = all.kv - kv_total_bytes(&w.engine->kv), idle = idle_compute(&w);
    int n_failed[2] = {0};
    for (uint64_t k = 1;; k++) {
        const int64_t live = mem_n_live();
        mem_fail_at(k);
        const facet_status status = engine_park(w.engine, PARK_ALL, FACET_PARK_KV_HOST, NULL, &err);
        if (mem_fail_at(0) < k) break;
        snap_assert_error(status, FACET_ERR_MEMORY, &err, "out of memory");
        assert_int_equal(engine_parked(w.engine), 0);
        assert_int_equal(mem_n_live(), live);
        n_failed[0]++;
    }
    for (uint64_t k = 1;; k++) {
        const int64_t live = mem_n_live();
        mem_fail_at(k);
        const facet_status status = engine_unpark(w.engine, PARK_ALL, NULL, &err);
        if (mem_fail_at(0) < k) break;
        snap_assert_error(status, FACET_ERR_MEMORY, &err, "out of memory");
        assert_int_equal(engine_parked(w.engine), PARK_ALL);
        assert_int_equal(mem_n_live(), live);
        assert_true(memory_of(&w).weights == 0 && memory_of(&w).kv == unpaged && memory_of(&w).compute == idle);
        n_failed[1]++;
    }
    print_message("%d allocations of parking, %d of unparking\n", n_failed[0], n_failed[1]);
    assert_true(n_failed[0] >= 6 && n_failed[1] >= (snap_is_cuda(&w) ? 6 : 60));
    assert_true(memory_of(&w).weights == all.weights);
    spec_assert_holds(s, &want, "after all failures");
    spec_free_state(&want);
    facet_session_close(s);
    snap_close(&w);
}

static void what_is_no_part(void **state)
{
    (void)state;
    facet_error err;
    spec_world w = snap_open(&(snap_setup){0});
    snap_assert_error(engine_park(w.engine, 0, FACET_PARK_KV_HOST, NULL, &err), FACET_ERR_ARG, &err,
                      "parts to park: 0");
    snap_assert_error(engine_park(w.engine, 8, FACET_PARK_KV_HOST, NULL, &err), FACET_ERR_ARG, &err,
                      "parts to park: 8");
    snap_assert_error(engine_unpark(w.engine, 8, NULL, &err), FACET_ERR_ARG, &err, "parts to park: 8");
    snap_assert_error(engine_park(w.engine, 4, (park_kv)3, NULL, &err), FACET_ERR_ARG, &err,
                      "rule for parked pages: 3");
    assert_ok(engine_park(w.engine, PARK_DRAFTERS, FACET_PARK_KV_HOST, NULL, &err), err); /* it has none */
    assert_int_equal(engine_parked(w.engine), 0);
    snap_close(&w);
}

/* A snapshot is a file only while the pages are there. */
static void files_want_the_pages(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N];
    snap_text(text, N, 8);
    spec_world w = open_with(NULL, false);
    facet_session *s = snap_session(w.engine, text, N);
    assert_ok(engine_park(w.engine, PARK_TARGET, FACET_PARK_KV_HOST, NULL, &err), err);
    assert_ok(snapshot_store(s, 0, -1, NULL, &err), err);
    snap_assert_error(snapshot_save(w.engine, 0, "/tmp/none", &err), FACET_ERR_PARKED, &err, "the cache is parked");
    snap_assert_error(snapshot_load(w.engine, 0, "/tmp/none", &err), FACET_ERR_PARKED, &err, "the cache is parked");
    facet_session_close(s);
    snap_close(&w);
}

/* A file that is written to while its model is parked is refused; as it was, it is taken. */
static void a_changed_file_is_refused(void **state)
{
    (void)state;
    facet_error err;
    char *bytes;
    size_t n;
    spec_world w = {0};
    facet_engine_params p = facet_engine_params_default();
    assert_ok(file_read_all(SPEC_TARGET, (size_t)1 << 30, &bytes, &n, &err), err);
    write_file(temp_file("model.gguf"), bytes, n);
    assert_ok(facet_model_open(temp_file("model.gguf"), &w.model, &err), err);
    p.device = "cpu";
    p.n_threads = 1;
    p.n_ctx = 256;
    assert_ok(facet_engine_open(w.model, &p, &w.engine, &err), err);
    assert_ok(engine_park(w.engine, PARK_TARGET, FACET_PARK_KV_HOST, NULL, &err), err);
    FILE *f = fopen(temp_file("model.gguf"), "r+b");
    assert_non_null(f);
    for (int i = 0; i < 2; i++) {
        const char last = (char)(bytes[n - 1] ^ (i == 0));
        assert_int_equal(fseek(f, -1, SEEK_END), 0);
        assert_int_equal(fwrite(&last, 1, 1, f), 1);
        assert_int_equal(fflush(f), 0);
        const facet_status status = engine_unpark(w.engine, PARK_TARGET, NULL, &err);
        if (i == 0) snap_assert_error(status, FACET_ERR_IO, &err, "model.gguf: the file was changed while its model");
        if (i == 1) assert_ok(status, err);
        assert_int_equal(engine_parked(w.engine), i == 0 ? PARK_TARGET : 0);
    }
    fclose(f);
    facet_free(bytes);
    snap_close(&w);
}

/* 50 times: nothing grows, and what a parked engine takes is what one without it takes. */
static void the_process_shrinks_and_does_not_grow(void **state)
{
    (void)state;
    facet_error err;
    int32_t text[N];
    snap_text(text, N, 9);
    spec_world w = open_with("cpu", false);
    const facet_memory all = memory_of(&w);
    facet_session *s = snap_session(w.engine, text, N);
    uint64_t here[50], parked[50];
    for (int i = 0; i < 50; i++) {
        here[i] = resident();
        assert_ok(engine_park(w.engine, PARK_ALL, FACET_PARK_KV_HOST, NULL, &err), err);
        parked[i] = resident();
        assert_ok(engine_unpark(w.engine, PARK_ALL, NULL, &err), err);
        assert_ok(facet_session_sync(s, text, (size_t)(N - 1 - i % 2), &err), err);
    }
    print_message("weights %.1f MiB; resident %.1f MiB, parked %.1f; after 50 times %.1f and %.1f\n",
                  (double)all.weights / 0x1p20, (double)here[0] / 0x1p20, (double)parked[0] / 0x1p20,
                  (double)here[49] / 0x1p20, (double)parked[49] / 0x1p20);
    assert_true(here[0] - parked[0] >= all.weights);
    assert_true(here[49] < here[5] + (2u << 20) && parked[49] < parked[5] + (2u << 20));
    facet_session_close(s);
    snap_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafters_give_their_memory_back),
        cmocka_unit_test(the_target_comes_back_as_it_was),
        cmocka_unit_test(parked_drafters_are_missed_or_done_without),
        cmocka_unit_test(a_gap_in_the_drafters_context),
        cmocka_unit_test(by_setting_it_unparks_by_itself),
        cmocka_unit_test(parking_in_a_callback),
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(what_is_no_part),
        cmocka_unit_test(files_want_the_pages),
        cmocka_unit_test(a_changed_file_is_refused),
        cmocka_unit_test(the_process_shrinks_and_does_not_grow),
    };
    return cmocka_run_group_tests_name("parking", tests, temp_dir_make, temp_dir_remove);
}

/* Sparse attention in an engine: whatever is left out, speculation says what plain decoding says, a row has the bits
 * that it has alone, and a prompt's bits do not depend on how it was cut; switched off, or where few keys are seen,
 * nothing changes. */
#include "spec_world.h"

#include "decode/engine_memory.h"
#include "decode/engine_sparse.h"
#include "decode/snapshot.h"

static char target[1024], mtp[1024], dflash[1024];

static int find_models(void **state)
{
    (void)state;
    if (!test_shared("models/passkey.jsonl")) return 0;
    snprintf(target, sizeof target, "%s", test_shared("models/tiny-31b-F16.gguf"));
    snprintf(mtp, sizeof mtp, "%s", test_shared("models/tiny-31b-mtp-F16.gguf"));
    snprintf(dflash, sizeof dflash, "%s", test_shared("models/tiny-31b-dflash-F16.gguf"));
    return 0;
}

/* The first N tokens of the first passkey prompt, about 2000 long. */
static spec_prompts passkeys(const spec_world *w)
{
    spec_prompts p = {0};
    spec_load_prompts(&p, test_shared("models/passkey.jsonl"), w->model);
    return p;
}

static facet_sparse_stats stats_of(const spec_world *w)
{
    facet_sparse_stats s;
    facet_engine_sparse(w->engine, &s);
    return s;
}

/* ---- speculation ---- */

/* The heads of these models spread their attention: by mass nothing could be left out (test_sparse_op has keys for
 * that). */
static const spec_setup rules[] = {
    {.sparse_alpha = 0.6f, .sparse_min = 256, .k = "f16", .v = "f16"},
    {.sparse_alpha = 0.7f, .sparse_min = 1991, .k = "q8_0", .v = "q4_0"}, /* begins in the middle of the text */
    {.sparse_alpha = 0.7f,
     .sparse_prefill = 0.5f,
     .sparse_min = 256,
     .k = "rot_q8_0",
     .v = "q8_0",
     .rebuild_keys = true},
    {.sparse_alpha = 0.8f, .sparse_prefill = 0.4f, .sparse_min = 256, .k = "tq3_0", .v = "tq3_0"},
    {.sparse_alpha = 0.9f, .sparse_hard = 0.5f, .sparse_min = 256, .k = "rot_q8_0", .v = "rot_q4_0", .n_threads = 3},
};
enum { N_RULES = sizeof rules / sizeof *rules };

static void speculate(int rule, int *n_generations, uint64_t *n_accepted)
{
    spec_setup o = rules[rule];
    o.target = target, o.mtp = mtp, o.dflash = dflash, o.n_ctx = 4096;
    spec_world w = spec_open(&o);
    spec_prompts p = passkeys(&w);
    const spec_variants v = spec_all_variants(w.engine);
    facet_session *plain = spec_session(w.engine), *spec = spec_session(w.engine);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    const spec_request q = {
        .prompt = p.list[rule].ids, .n_prompt = p.list[rule].n, .n_predict = 40, .ignore_eos = true};
    spec_say(plain, &q, NULL, NULL, want);
    spec_state held = spec_look(plain);
    for (int k = 0; k < v.n; k++) {
        char what[128];
        if (!spec_is_full() && (k + rule) % 3 != 0) continue;
        snprintf(what, sizeof what, "rule %d, %s", rule, v.list[k].name);
        spec_say(spec, &q, &v.list[k].how, NULL, got);
        spec_assert_same_said(got, want, what);
        if (k % 4 == 0) spec_assert_holds(spec, &held, what);
        (*n_generations)++;
        *n_accepted += got->r.spec.accepted;
    }
    const facet_sparse_stats s = stats_of(&w);
    print_message("rule %d: %zu tokens, %.0f %% of the blocks of %llu choices read, %llu dense, %llu rescued\n", rule,
                  q.n_prompt, 100 * s.share, (unsigned long long)s.choices, (unsigned long long)s.dense,
                  (unsigned long long)s.rescued);
    assert_true(s.choices > 1000 && s.dense < s.choices && s.probed > 0);
    assert_true(o.sparse_hard > 0 ? s.rescued > 0 : s.rescued == 0 && s.share < 0.95);
    spec_free_state(&held);
    free(want);
    free(got);
    facet_session_close(plain);
    facet_session_close(spec);
    spec_free_prompts(&p);
    spec_close(&w);
}

static void every_strategy_says_the_same(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    int n = 0;
    uint64_t n_accepted = 0;
    for (int i = 0; i < N_RULES; i++) speculate(i, &n, &n_accepted);
    print_message("%d generations, %llu drafts accepted\n", n, (unsigned long long)n_accepted);
    assert_true(n_accepted > 100);
}

/* ---- bits ---- */

/* Logits of n rows at `start` of a sequence, evaluated in steps of these sizes (the last one again and again). */
static float *logits_of(facet_engine *e, kv_seq *s, const int32_t *ids, int32_t start, int n, const int *sizes,
                        int n_sizes, int32_t prompt_end)
{
    const size_t V = e->model->h.n_vocab;
    float *out = malloc((size_t)n * V * sizeof *out);
    facet_error err;
    for (int at = 0, i = 0; at < n; i++) {
        int rows = sizes[i < n_sizes ? i : n_sizes - 1];
        if (rows > n - at) rows = n - at;
        engine_part part = {.seq = s,
                            .start = start + at,
                            .n = rows,
                            .n_out = rows < ENGINE_MAX_OUT ? rows : ENGINE_MAX_OUT,
                            .tokens = ids + start + at,
                            .prompt_end = prompt_end};
        engine_step_begin(e);
        assert_ok(engine_step_add(e, &part, &err), err);
        assert_ok(engine_step_run(e, NULL, &err), err);
        const size_t first = (size_t)(at + rows - part.n_out);
        assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, 0, part.n_out, out + first * V, &err), err);
        at += rows;
    }
    return out;
}

static void rows_have_the_bits_that_they_have_alone(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    for (int rule = 0; rule < N_RULES; rule++) {
        static const int widths[] = {2, 3, 7, 16, 64};
        const int one = 1;
        spec_setup o = rules[rule];
        o.target = target, o.n_ctx = 4096;
        if (o.sparse_min > 1000) o.sparse_min = 1900; /* among the rows */
        spec_world w = spec_open(&o);
        spec_prompts p = passkeys(&w);
        kv_seq seq = {0};
        const size_t V = w.engine->model->h.n_vocab;
        const int n = 128; /* more than a block */
        const int32_t start = o.sparse_min > 1000 ? 1850 : 1490;
        free(logits_of(w.engine, &seq, p.list[0].ids, 0, start, (int[]){512}, 1, start));
        float *want = logits_of(w.engine, &seq, p.list[0].ids, start, n, &one, 1, 0);
        for (int i = 0; i < 5; i++) {
            float *got = logits_of(w.engine, &seq, p.list[0].ids, start, n, &widths[i], 1, 0);
            for (size_t r = 0; r < (size_t)n; r++)
                if (memcmp(got + r * V, want + r * V, V * sizeof *got))
                    fail_msg("rule %d, steps of %d rows: row %zu has other bits", rule, widths[i], r);
            free(got);
        }
        assert_true(stats_of(&w).selected < stats_of(&w).blocks || o.sparse_hard > 0);
        free(want);
        kv_seq_free(w.engine->pool, &seq);
        spec_free_prompts(&p);
        spec_close(&w);
    }
}

/* However a prompt is cut, its last rows see the same cache. */
static void prompts_have_the_same_bits_however_cut(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    static const int cuts[][3] = {{512, 512, 512}, {1, 100, 300}, {64, 64, 64}, {63, 129, 77}, {500, 13, 512}};
    spec_world w = spec_open(&(spec_setup){.target = target,
                                           .k = "q8_0",
                                           .v = "q8_0",
                                           .n_ctx = 4096,
                                           .n_threads = 2,
                                           .sparse_prefill = 0.4f,
                                           .sparse_min = 300});
    spec_prompts p = passkeys(&w);
    float *want = NULL;
    const size_t V = w.engine->model->h.n_vocab;
    const int n = (int)p.list[0].n, last = 30;
    for (int i = 0; i < 5; i++) {
        kv_seq seq = {0};
        free(logits_of(w.engine, &seq, p.list[0].ids, 0, n - last, cuts[i], 3, n));
        float *got = logits_of(w.engine, &seq, p.list[0].ids, n - last, last, &last, 1, n);
        if (!want) want = got;
        for (int r = 0; r < last; r++)
            if (memcmp(got + (size_t)r * V, want + (size_t)r * V, V * sizeof *got))
                fail_msg("cut %d: row %d has other bits", i, r);
        if (got != want) free(got);
        kv_seq_free(w.engine->pool, &seq);
    }
    const facet_sparse_stats s = stats_of(&w);
    print_message("%.0f %% of the blocks of %llu choices read, %llu dense\n", 100 * s.share,
                  (unsigned long long)s.choices, (unsigned long long)s.dense);
    assert_true(s.choices > 1000 && s.share < 0.95);
    free(want);
    spec_free_prompts(&p);
    spec_close(&w);
}

/* Logits after the prompt and one generated token. */
static float *two_steps(const spec_setup *how, const char *k, facet_sparse_stats *stats)
{
    spec_setup o = *how;
    o.target = target, o.n_ctx = 4096, o.k = k, o.v = k;
    spec_world w = spec_open(&o);
    spec_prompts p = passkeys(&w);
    facet_session *s = spec_session(w.engine);
    facet_error err;
    const int32_t token = 300;
    float *out = malloc((size_t)w.engine->model->h.n_vocab * sizeof *out);
    assert_ok(facet_session_sync(s, p.list[0].ids, p.list[0].n, &err), err);
    assert_ok(facet_session_append(s, &token, 1, &err), err);
    assert_ok(facet_session_logits(s, out, &err), err);
    *stats = stats_of(&w);
    facet_session_close(s);
    spec_free_prompts(&p);
    spec_close(&w);
    return out;
}

static double farthest(const float *a, const float *b, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++) max = fmax(max, fabs((double)a[i] - (double)b[i]));
    return max;
}

static void what_is_off_changes_nothing(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    static const spec_setup off[] = {
        {.sparse_mass = 1, .sparse_min = 256},      {.sparse_alpha = 1, .sparse_min = 256},
        {.sparse_alpha = 1.5f, .sparse_min = 256},  {.sparse_alpha = -1, .sparse_min = 256},
        {.sparse_mass = 0.9f, .sparse_min = 16384}, {.sparse_mass = 0.9f},
        {.sparse_prefill = 1, .sparse_min = 256},
    };
    facet_sparse_stats s;
    facet_model *m;
    facet_error err;
    assert_ok(facet_model_open(target, &m, &err), err);
    const size_t V = (size_t)facet_model_n_vocab(m);
    facet_model_close(m);
    float *want = two_steps(&(spec_setup){0}, "q8_0", &s);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        float *got = two_steps(&off[i], "q8_0", &s);
        assert_memory_equal(got, want, V * sizeof *got);
        assert_int_equal(s.choices, 0);
        free(got);
    }
    /* on, something changes; checked, the same is said, and what was dropped is known */
    float *sparse = two_steps(&(spec_setup){.sparse_alpha = 0.95f, .sparse_min = 256}, "q8_0", &s);
    const facet_sparse_stats first = s;
    assert_true(s.choices > 0 && s.selected < s.blocks && s.measured_max == 0);
    assert_true(memcmp(sparse, want, V * sizeof *want) != 0);
    float *checked =
        two_steps(&(spec_setup){.sparse_alpha = 0.95f, .sparse_min = 256, .sparse_check = true}, "q8_0", &s);
    assert_memory_equal(checked, sparse, V * sizeof *sparse);
    assert_true(s.measured_max > 0 && s.measured_max <= s.certified_max && s.measured_mean <= s.certified_mean);
    assert_true(s.selected == first.selected && s.certified_max == first.certified_max);
    /* whoever may miss nothing reads the rest, and says what dense attention says but for rounding */
    float *rescued =
        two_steps(&(spec_setup){.sparse_alpha = 0.95f, .sparse_min = 256, .sparse_hard = 1e-30f}, "q8_0", &s);
    print_message("logits: %.2g from dense when sparse, %.2g when rescued (%llu of %llu choices)\n",
                  farthest(sparse, want, V), farthest(rescued, want, V), (unsigned long long)s.rescued,
                  (unsigned long long)s.choices);
    assert_true(s.rescued > 0 && s.selected == s.blocks);
    assert_true(farthest(rescued, want, V) < 1e-3 && farthest(rescued, want, V) < farthest(sparse, want, V) / 10);
    free(want);
    free(sparse);
    free(checked);
    free(rescued);
}

/* ---- sessions ---- */

/* Forks, snapshots and parking go on with the same tokens: summaries follow the pages, or are made anew. */
static void states_go_on_as_they_were(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    spec_world w = spec_open(&(spec_setup){.target = target, .n_ctx = 4096, .sparse_alpha = 0.7f, .sparse_min = 256});
    spec_prompts p = passkeys(&w);
    facet_session *s = spec_session(w.engine), *f, *r = spec_session(w.engine);
    facet_error err;
    const int32_t more[80] = {300, 301, 302, 303, 304, 305, 306};
    assert_ok(facet_session_sync(s, p.list[0].ids, p.list[0].n, &err), err);
    assert_ok(facet_session_append(s, more, 7, &err), err);
    assert_ok(facet_session_fork(s, &f, &err), err);
    assert_ok(facet_snapshot_store(s, 3, 0, -1, NULL, &err), err);
    for (int i = 0; i < 80; i++) assert_ok(facet_session_append(s, &more[i], 1, &err), err);
    spec_state want = spec_look(s);
    assert_ok(facet_session_append(f, more, 64, &err), err);
    assert_ok(facet_session_append(f, more + 64, 16, &err), err);
    spec_assert_holds(f, &want, "a fork");
    char path[] = "/tmp/facet-sparse-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_ok(facet_snapshot_save(w.engine, 3, path, &err), err);
    facet_session_close(f);
    facet_session_close(s);
    assert_ok(facet_snapshot_free(w.engine, 3, &err), err);
    assert_ok(facet_snapshot_load(w.engine, 5, path, &err), err);
    unlink(path);
    assert_ok(facet_engine_park(w.engine, FACET_PART_ALL, FACET_PARK_KV_HOST, NULL, &err), err);
    assert_ok(facet_engine_unpark(w.engine, FACET_PART_ALL, NULL, &err), err);
    assert_ok(facet_snapshot_restore(r, 5, NULL, 0, &err), err);
    for (int i = 0; i < 80; i++) assert_ok(facet_session_append(r, &more[i], 1, &err), err);
    spec_assert_holds(r, &want, "a snapshot from a file, parked meanwhile");
    assert_ok(facet_snapshot_free(w.engine, 5, &err), err);
    spec_free_state(&want);
    facet_session_close(r);
    spec_free_prompts(&p);
    spec_close(&w);
}

/* A token that was generated is evaluated again as one, and a prompt's as a prompt's, when another session ran. */
static void outputs_come_back_with_the_same_bits(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    spec_world w = spec_open(&(spec_setup){.target = target, .n_ctx = 4096, .sparse_alpha = 0.7f, .sparse_min = 256});
    spec_prompts p = passkeys(&w);
    facet_session *s = spec_session(w.engine), *other = spec_session(w.engine);
    const uint32_t V = w.engine->model->h.n_vocab;
    facet_error err;
    const int32_t token = 300;
    assert_ok(facet_session_sync(s, p.list[0].ids, p.list[0].n, &err), err);
    for (int i = 0; i < 2; i++) {
        float *want = spec_read_floats(s, w.engine->plan->v_logits, V);
        assert_ok(facet_session_sync(other, p.list[1].ids, 20, &err), err);
        float *got = spec_read_floats(s, w.engine->plan->v_logits, V);
        assert_memory_equal(got, want, V * sizeof *got);
        free(want);
        free(got);
        assert_ok(facet_session_append(s, &token, 1, &err), err);
    }
    facet_session_close(s);
    facet_session_close(other);
    spec_free_prompts(&p);
    spec_close(&w);
}

/* ---- memory and parameters ---- */

static void summaries_are_counted(void **state)
{
    (void)state;
    facet_model *m;
    facet_engine *e;
    facet_error err;
    engine_needs plain, sparse;
    facet_memory held;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 2048;
    assert_ok(facet_model_open(SPEC_TARGET, &m, &err), err);
    assert_ok(engine_estimate(m, &p, 2048, &plain, &err), err);
    p.sparse_mass = 0.999f;
    assert_ok(engine_estimate(m, &p, 2048, &sparse, &err), err);
    assert_true(sparse.kv > plain.kv && sparse.compute > plain.compute && sparse.kv_per_token > plain.kv_per_token);
    assert_true(sparse.kv < plain.kv + plain.kv / 10);
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    facet_engine_memory(e, &held);
    assert_int_equal(held.kv, sparse.kv);
    assert_int_equal(held.compute, sparse.compute);
    facet_engine_close(e);
    facet_model_close(m);
}

static void parameters_are_checked(void **state)
{
    (void)state;
    const struct {
        float mass, alpha, prefill, prefill_alpha, hard;
        int32_t min;
        const char *message;
    } wrong[] = {
        {.mass = 0.9f, .alpha = 0.1f, .hard = 1, .message = "sparse_alpha and sparse_mass are two rules"},
        {.prefill = 0.9f, .prefill_alpha = 0.1f, .hard = 1, .message = "sparse_prefill and sparse_prefill_alpha are"},
        {.mass = 1.5f, .hard = 1, .message = "sparse_mass is 1.5, wanted 0 to 1"},
        {.mass = NAN, .hard = 1, .message = "sparse_mass is"},
        {.prefill = -1, .hard = 1, .message = "sparse_prefill is -1"},
        {.mass = 0.9f, .hard = 2, .message = "sparse_hard is 2"},
        {.mass = 0.9f, .hard = 1, .min = -5, .message = "sparse_min is -5"},
    };
    sparse_config c;
    facet_error err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        facet_engine_params p = facet_engine_params_default();
        p.sparse_mass = wrong[i].mass;
        p.sparse_alpha = wrong[i].alpha;
        p.sparse_prefill = wrong[i].prefill;
        p.sparse_prefill_alpha = wrong[i].prefill_alpha;
        p.sparse_hard = wrong[i].hard;
        p.sparse_min = wrong[i].min;
        assert_int_equal(engine_sparse_read(&p, &c, &err), FACET_ERR_ARG);
        if (!strstr(err.message, wrong[i].message)) fail_msg("%s: wanted %s", err.message, wrong[i].message);
    }
    facet_engine_params p = facet_engine_params_default();
    assert_ok(engine_sparse_read(&p, &c, &err), err);
    assert_false(sparse_is_on(&c));
    assert_ok(engine_sparse_check_device(&c, true, &err), err);
    p.sparse_prefill = 0.95f;
    assert_ok(engine_sparse_read(&p, &c, &err), err);
    assert_true(sparse_is_on(&c) && c.decode.kind == SPARSE_OFF && c.min_keys == 16384);
    assert_ok(engine_sparse_check_device(&c, false, &err), err);
    assert_int_equal(engine_sparse_check_device(&c, true, &err), FACET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "sparse attention is not on CUDA yet"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_checked),
        cmocka_unit_test(summaries_are_counted),
        cmocka_unit_test(what_is_off_changes_nothing),
        cmocka_unit_test(rows_have_the_bits_that_they_have_alone),
        cmocka_unit_test(prompts_have_the_same_bits_however_cut),
        cmocka_unit_test(states_go_on_as_they_were),
        cmocka_unit_test(outputs_come_back_with_the_same_bits),
        cmocka_unit_test(every_strategy_says_the_same),
    };
    return cmocka_run_group_tests(tests, find_models, NULL);
}

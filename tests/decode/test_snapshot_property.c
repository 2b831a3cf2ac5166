/* Random sequences of prompts, answers, snapshots, restores, forks, files and parking, beside an engine that has none
 * of it: every answer is the other one's, sessions hold what they should to the bit, and in the end every page is free.
 * Half of the runs reuse prompts from a cache that is too small for them. */
#define _GNU_SOURCE
#include "snapshot_world.h"

#include "../file/temp_dir.h"
#include "base/mem.h"

enum { N_SESSIONS = 3, N_SLOTS = 5, MAX_TEXT = 420, N_TEXTS = 4, N_STEPS = 60, N_RUNS = 6 };

/* What an engine without snapshots would know. */
typedef struct expected {
    int32_t ids[MAX_TEXT];
    int32_t n;     /* 0: empty */
    int32_t first; /* of a thin snapshot */
} expected;

typedef struct run {
    rng random;
    spec_world w, plain;
    spec_variants variants;
    facet_session *session[N_SESSIONS], *reference;
    expected holds[N_SESSIONS], slot[N_SLOTS], file;
    int32_t text[N_TEXTS][MAX_TEXT];
    char trace[N_STEPS * 32];
    int n_done[16];
} run;

static uint32_t below(run *r, uint32_t n)
{
    return rng_below(&r->random, n);
}

static void note(run *r, const char *what, int a, int b)
{
    const size_t n = strlen(r->trace);
    snprintf(r->trace + n, sizeof r->trace - n, "%s %d,%d; ", what, a, b);
}

static void check(run *r, int i)
{
    facet_session *s = r->session[i];
    const expected *x = &r->holds[i];
    if (s->n_tokens != x->n) fail_msg("session %d has %d tokens, wanted %d, after: %s", i, s->n_tokens, x->n, r->trace);
    snap_assert_ids(s->tokens, x->ids, x->n, r->trace);
    if (x->n == 0 || below(r, 4)) return;
    spec_state want;
    facet_error err;
    assert_ok(facet_session_sync(r->reference, x->ids, (size_t)x->n, &err), err);
    want = spec_look(r->reference);
    free(want.hidden); /* this engine has no drafters */
    want.hidden = NULL;
    float *logits = spec_read_floats(s, r->w.engine->plan->v_logits, r->w.model->h.n_vocab);
    spec_assert_same_floats(logits, want.logits, r->w.model->h.n_vocab, "logit", r->trace);
    free(logits);
    spec_free_state(&want);
}

/* A prompt: some of a known text, and something new. */
static int32_t make_prompt(run *r, int i, int32_t out[MAX_TEXT])
{
    const expected *own = &r->holds[i];
    const bool goes_on = own->n > 0 && own->n < MAX_TEXT - 60 && below(r, 2);
    const int32_t n_old = goes_on ? own->n : 20 + (int32_t)below(r, 260), n_new = (int32_t)below(r, 40);
    memcpy(out, goes_on ? own->ids : r->text[below(r, N_TEXTS)], (size_t)n_old * sizeof *out);
    for (int32_t k = 0; k < n_new; k++) out[n_old + k] = 300 + (int32_t)below(r, 1500);
    return n_old + n_new;
}

static void prompt(run *r)
{
    facet_error err;
    const int i = (int)below(r, N_SESSIONS);
    int32_t ids[MAX_TEXT];
    const int32_t n = make_prompt(r, i, ids);
    note(r, "prompt", i, n);
    assert_ok(facet_session_sync(r->session[i], ids, (size_t)n, &err), err);
    memcpy(r->holds[i].ids, ids, (size_t)n * sizeof *ids);
    r->holds[i].n = n;
    check(r, i);
}

static void answer(run *r)
{
    facet_error err;
    const int i = (int)below(r, N_SESSIONS), n = 1 + (int)below(r, 24);
    const spec_variant *v = &r->variants.list[below(r, (uint32_t)r->variants.n)];
    facet_sampling sampling = facet_sampling_default();
    int32_t ids[MAX_TEXT];
    const int32_t n_prompt = make_prompt(r, i, ids);
    note(r, v->name, i, n_prompt);
    if (below(r, 2)) sampling.temperature = 0.8f, sampling.seed = below(r, 100);
    const snap_answer got = snap_say(r->session[i], ids, n_prompt, n, &v->how, &sampling);
    facet_session *fresh = spec_session(r->plain.engine);
    const snap_answer want = snap_say(fresh, ids, n_prompt, n, NULL, &sampling);
    facet_session_close(fresh);
    snap_assert_ids(got.ids, want.ids, n, r->trace);
    expected *x = &r->holds[i];
    memcpy(x->ids, ids, (size_t)n_prompt * sizeof *ids);
    memcpy(x->ids + n_prompt, got.ids, (size_t)(n - 1) * sizeof *ids);
    x->n = n_prompt + n - 1; /* the last one is not evaluated */
    assert_ok(facet_session_logits(r->session[i], (float[2048]){0}, &err), err);
    check(r, i);
}

static void store(run *r)
{
    facet_error err;
    const int i = (int)below(r, N_SESSIONS), slot = (int)below(r, N_SLOTS);
    const expected *x = &r->holds[i];
    if (x->n < 2) return;
    const bool is_thin = !below(r, 3);
    const int32_t n = below(r, 2) ? x->n : x->n - (int32_t)below(r, x->n < 60 ? (uint32_t)x->n : 60);
    const int32_t first = is_thin && n > 1 ? 1 + (int32_t)below(r, (uint32_t)n - 1) : 0;
    note(r, is_thin ? "thin" : "store", slot, n);
    const facet_status status = first ? snapshot_store_thin(r->session[i], slot, first, n, NULL, &err)
                                      : snapshot_store(r->session[i], slot, n, NULL, &err);
    if (status == FACET_OK) {
        r->slot[slot] = *x;
        r->slot[slot].n = n;
        r->slot[slot].first = first;
    } else {
        assert_int_equal(status, FACET_ERR_LIMIT); /* the window of an earlier position is gone */
        if (n == x->n) fail_msg("%s, after: %s", err.message, r->trace);
    }
    check(r, i);
}

static bool continues(const expected *below_, const expected *thin)
{
    return thin->first > 0 && thin->first <= below_->n && thin->n > below_->n &&
           memcmp(thin->ids, below_->ids, (size_t)below_->n * sizeof *thin->ids) == 0;
}

static void restore(run *r)
{
    facet_error err;
    const int i = (int)below(r, N_SESSIONS), slot = (int)below(r, N_SLOTS), thin = (int)below(r, N_SLOTS);
    const bool has_thin = below(r, 2);
    const expected *x = &r->slot[slot], *top = &r->slot[thin];
    const bool is_ok = x->n && !x->first && (!has_thin || continues(x, top));
    note(r, "restore", slot, has_thin ? thin : -1);
    const facet_status status = snapshot_restore_chain(r->session[i], slot, &thin, has_thin, &err);
    if (status != (is_ok ? FACET_OK : FACET_ERR_ARG)) fail_msg("%d: %s, after: %s", (int)status, err.message, r->trace);
    if (is_ok) r->holds[i] = has_thin ? *top : *x;
    check(r, i);
}

static void fork_one(run *r)
{
    facet_error err;
    const int from = (int)below(r, N_SESSIONS), to = (int)below(r, N_SESSIONS);
    if (from == to) return;
    note(r, "fork", from, to);
    facet_session_close(r->session[to]);
    assert_ok(facet_session_fork(r->session[from], &r->session[to], &err), err);
    r->holds[to] = r->holds[from];
    check(r, to);
}

static void renew(run *r)
{
    const int i = (int)below(r, N_SESSIONS);
    note(r, "renew", i, 0);
    facet_session_close(r->session[i]);
    r->session[i] = spec_session(r->w.engine);
    r->holds[i].n = 0;
}

static void release(run *r)
{
    facet_error err;
    const int slot = (int)below(r, N_SLOTS);
    note(r, "free", slot, 0);
    assert_ok(snapshot_free(r->w.engine, slot, &err), err);
    r->slot[slot].n = 0;
}

static void save(run *r)
{
    facet_error err;
    const int slot = (int)below(r, N_SLOTS);
    if (!r->slot[slot].n) return;
    note(r, "save", slot, 0);
    assert_ok(snapshot_save(r->w.engine, slot, temp_file("s"), &err), err);
    r->file = r->slot[slot];
}

static void load(run *r)
{
    facet_error err;
    const int slot = (int)below(r, N_SLOTS);
    if (!r->file.n) return;
    note(r, "load", slot, 0);
    assert_ok(snapshot_load(r->w.engine, slot, temp_file("s"), &err), err);
    r->slot[slot] = r->file;
}

static void park(run *r)
{
    facet_error err;
    static const unsigned parts[] = {PARK_MTP, PARK_DFLASH, PARK_TARGET, PARK_ALL};
    const unsigned part = parts[below(r, 4)];
    const park_kv kv = (park_kv)below(r, 3);
    note(r, "park", (int)part, (int)kv);
    assert_ok(engine_park(r->w.engine, part, kv, NULL, &err), err);
    assert_ok(engine_unpark(r->w.engine, part, NULL, &err), err);
    if (!(part & PARK_TARGET) || kv != FACET_PARK_KV_DROP) return;
    for (int i = 0; i < N_SESSIONS; i++) r->holds[i].n = 0;
    for (int i = 0; i < N_SLOTS; i++) r->slot[i].n = 0;
}

static const struct op {
    void (*fn)(run *);
    int weight;
} ops[] = {{prompt, 5}, {answer, 8},  {store, 8}, {restore, 7}, {fork_one, 2},
           {renew, 1},  {release, 1}, {save, 1},  {load, 1},    {park, 1}};
enum { N_OPS = sizeof ops / sizeof *ops };

static void one_run(uint64_t seed)
{
    static const char *const types[] = {"f16", "q8_0", "f32", "q4_0", "tq3_0"};
    const char *type = types[seed % 5];
    run *r = calloc(1, sizeof *r);
    rng_seed(&r->random, seed);
    const bool reuses = seed % 2;
    r->w = snap_open(&(snap_setup){.mtp = SPEC_MTP,
                                   .dflash = SPEC_DFLASH,
                                   .k = type,
                                   .v = type,
                                   .n_ctx = 512,
                                   .n_sessions = N_SESSIONS,
                                   .cache_bytes = (seed % 4 + 4) << 20 << (strcmp(type, "f32") == 0),
                                   .reuse_prompts = reuses});
    prefix_set_budget(r->w.engine, 3 << 20);
    /* the assistant too, which is not used: its donor layers stay at q8_0 or better */
    r->plain = snap_open(&(snap_setup){.mtp = SPEC_MTP, .k = type, .v = type, .n_ctx = 512});
    r->variants = spec_few_variants(r->w.engine);
    spec_add_variant(&r->variants, (facet_speculation){0}, "plain", -1);
    for (int i = 0; i < N_TEXTS; i++) { /* they begin alike in part */
        snap_text(r->text[i], MAX_TEXT, 1000 + seed);
        if (i) snap_text(r->text[i] + 80 * i, MAX_TEXT - 80 * i, 2000 + (uint64_t)i);
    }
    for (int i = 0; i < N_SESSIONS; i++) r->session[i] = spec_session(r->w.engine);
    r->reference = spec_session(r->plain.engine);
    int total = 0;
    for (int k = 0; k < N_OPS; k++) total += ops[k].weight;
    for (int step = 0; step < N_STEPS; step++) {
        int at = (int)below(r, (uint32_t)total), k = 0;
        while (at >= ops[k].weight) at -= ops[k++].weight;
        ops[k].fn(r);
        r->n_done[k]++;
    }
    prefix_stats p;
    prefix_describe(r->w.engine, &p);
    print_message(
        "seed %d: %d prompts, %d answers, %d stored, %d restored; %d tokens reused by %d hits, %d forgotten\n",
        (int)seed, r->n_done[0], r->n_done[1], r->n_done[2], r->n_done[3], (int)p.n_reused, (int)p.n_hits,
        (int)p.n_evictions);
    assert_true(!reuses || p.n_hits > 0);
    assert_true(p.bytes <= p.budget);
    for (int i = 0; i < N_SESSIONS; i++) facet_session_close(r->session[i]);
    facet_session_close(r->reference);
    snap_close(&r->w);
    spec_close(&r->plain);
    free(r);
}

static void random_sequences(void **state)
{
    (void)state;
    const char *v = getenv("FACET_TEST_SEED"), *n = getenv("FACET_TEST_RUNS");
    const uint64_t first = v && *v ? strtoull(v, NULL, 10) : 1;
    const int64_t live = mem_n_live();
    for (uint64_t i = 0; i < (n && *n ? strtoull(n, NULL, 10) : N_RUNS); i++) one_run(first + i);
    assert_int_equal(mem_n_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_sequences)};
    const int status = cmocka_run_group_tests_name("snapshot properties", tests, temp_dir_make, temp_dir_remove);
    return status;
}

/* snapshot_world.h: what the tests of snapshots, prompt reuse and parking share: an engine with both drafters and a
 * cache, texts of a given length, and continuations to compare. */
#ifndef FACET_TESTS_SNAPSHOT_WORLD_H
#define FACET_TESTS_SNAPSHOT_WORLD_H

#include "spec_world.h"

#include "decode/park.h"
#include "decode/prefix.h"
#include "decode/snapshot_file.h"

enum { SNAP_WINDOW = 128 }; /* of the bundled model's local layers */

typedef struct snap_setup {
    const char *device, *k, *v; /* NULL: as spec_setup */
    const char *mtp, *dflash;   /* NULL: without */
    int32_t n_ctx;              /* 0: 1024 */
    int n_sessions;             /* 0: 4 */
    uint64_t cache_bytes;
    bool reuse_prompts, auto_unpark, rebuild_keys;
    int32_t draft_ctx;
} snap_setup;

static inline spec_world snap_open(const snap_setup *o)
{
    spec_world w = {0};
    facet_error err;
    const char *device = getenv("FACET_TEST_DEVICE");
    assert_ok(facet_model_open(SPEC_TARGET, &w.model, &err), err);
    spec_add_drafter(&w, o->mtp);
    spec_add_drafter(&w, o->dflash);
    facet_engine_params p = facet_engine_params_default();
    p.device = o->device ? o->device : device && *device ? device : "cpu";
    p.n_threads = 1;
    p.n_ctx = o->n_ctx ? o->n_ctx : 1024;
    p.n_sessions = o->n_sessions ? o->n_sessions : 4;
    p.draft_ctx = o->draft_ctx;
    p.rebuild_keys = o->rebuild_keys;
    if (o->k) p.cache_type_k = o->k;
    if (o->v) p.cache_type_v = o->v;
    p.cache_bytes = o->cache_bytes;
    p.reuse_prompts = o->reuse_prompts;
    p.auto_unpark = o->auto_unpark;
    p.drafters = w.drafters;
    p.n_drafters = w.n_drafters;
    assert_ok(facet_engine_open(w.model, &p, &w.engine, &err), err);
    return w;
}

static inline spec_world snap_open_bundled(const char *kv, uint64_t cache_bytes, bool reuse_prompts)
{
    return snap_open(&(snap_setup){.mtp = SPEC_MTP,
                                   .dflash = SPEC_DFLASH,
                                   .k = kv,
                                   .v = kv,
                                   .cache_bytes = cache_bytes,
                                   .reuse_prompts = reuse_prompts});
}

static inline bool snap_is_cuda(const spec_world *w)
{
    backend_info info;
    w->engine->be->ops->info(w->engine->be, &info);
    return strcmp(info.name, "cuda") == 0;
}

/* Ends with every page free, once snapshots and cached prompts are gone. */
static inline void snap_close(spec_world *w)
{
    snapshot_free_all(w->engine);
    prefix_clear(w->engine);
    spec_close(w);
}

/* Tokens of a text: <bos>, then random ones; equal seeds begin alike. */
static inline void snap_text(int32_t *out, int32_t n, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    for (int32_t i = 0; i < n; i++) out[i] = i ? 300 + (int32_t)rng_below(&r, 1500) : 2;
}

static inline facet_session *snap_session(facet_engine *e, const int32_t *tokens, int32_t n)
{
    facet_error err;
    facet_session *s = spec_session(e);
    assert_ok(facet_session_sync(s, tokens, (size_t)n, &err), err);
    return s;
}

/* The tokens that follow a text, by some way to draft. */
typedef struct snap_answer {
    int32_t ids[128];
    int n;
    facet_generate_result r;
} snap_answer;

static inline bool snap_hear(void *ud, int32_t token, const char *text, size_t n)
{
    (void)text, (void)n;
    snap_answer *a = ud;
    if (token >= 0 && a->n < 128) a->ids[a->n++] = token;
    return true;
}

static inline facet_status snap_try(facet_session *s, const int32_t *prompt, int32_t n_prompt, int32_t n,
                                    const facet_speculation *how, const facet_sampling *sampling, snap_answer *out,
                                    facet_error *err)
{
    const facet_sampling greedy = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    g.n_predict = n;
    g.ignore_eos = true;
    g.on_token = snap_hear;
    g.ud = out;
    if (how) g.speculation = *how;
    *out = (snap_answer){0};
    return facet_generate(s, prompt, (size_t)n_prompt, sampling ? sampling : &greedy, &g, &out->r, err);
}

static inline snap_answer snap_say(facet_session *s, const int32_t *prompt, int32_t n_prompt, int32_t n,
                                   const facet_speculation *how, const facet_sampling *sampling)
{
    facet_error err;
    snap_answer a;
    assert_ok(snap_try(s, prompt, n_prompt, n, how, sampling, &a, &err), err);
    assert_int_equal(a.n, n);
    return a;
}

static inline void snap_assert_ids(const int32_t *got, const int32_t *want, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        if (got[i] != want[i]) fail_msg("%s: token %d is %d, wanted %d", what, i, got[i], want[i]);
}

static inline void snap_assert_error(facet_status got, facet_status want, const facet_error *err, const char *part)
{
    if (got != want || !strstr(err->message, part) || strchr(err->message, '\n'))
        fail_msg("status %d: %s; wanted %d: ...%s...", (int)got, err->message, (int)want, part);
}

static inline void snap_count_free(const facet_engine *e, int32_t out[KV_MAX_GROUPS])
{
    for (int g = 0; g < e->kv.n_groups; g++) out[g] = kv_pool_free_pages(e->pool, g);
}

#endif

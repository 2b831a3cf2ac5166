/* What an engine takes: its memory against the estimate made before anything is loaded, what does not fit, parameters
 * out of range; and a model in several files against the same in one. */
#define _GNU_SOURCE
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "decode/engine_memory.h"
#include "decode/session.h"
#include "file/temp_dir.h"
#include "model/gguf_parts.h"

#define MODELS FACET_SOURCE_DIR "/models/facet-small-"
#define MODEL MODELS "Q4_K_M.gguf"

static facet_model *open_model(const char *path)
{
    facet_model *m = NULL;
    facet_error err;
    assert_ok(facet_model_open(path, &m, &err), err);
    return m;
}

static facet_engine_params params(const char *device, int32_t n_ctx, int n_sessions)
{
    facet_engine_params p = facet_engine_params_default();
    p.device = device;
    p.n_threads = 2;
    p.n_ctx = n_ctx;
    p.n_sessions = n_sessions;
    return p;
}

/* ---- memory ---- */

static engine_needs estimate(facet_model *m, const facet_engine_params *p)
{
    engine_needs n;
    facet_error err;
    assert_ok(engine_estimate(m, p, p->n_ctx, &n, &err), err);
    return n;
}

static void the_estimate_is_what_is_taken(void **state)
{
    (void)state;
    static const struct {
        int32_t n_ctx;
        int n_sessions;
        const char *k, *v;
        bool use_mmap;
        int n_drafters;
        const char *device;
        int n_threads;
        bool rebuild_keys;
    } cases[] = {
        {1, 1, "f16", "f16", false, 0, "cpu", 2, false},
        {1000, 1, "f16", "q8_0", false, 0, "cpu", 1, false},
        {1000, 1, "f32", "f32", true, 0, "cpu", 0, false},
        {4096, 3, "q8_0", "q8_0", false, 0, "cpu", 2, false},
        {32768, 1, "f16", "f16", false, 0, "cpu", 13, false},
        {2048, 2, "f16", "f16", false, 2, "cpu", 2, false},
        {2048, 1, "q8_0", "f16", true, 2, "cpu", 5, false},
        {512, 1, "f16", "f16", false, 2, "ref", 2, false},
        {4096, 1, "q4_0", "tq3_0", false, 2, "cpu", 2, false},
        {512, 2, "tq3_0", "rot_q4_0", false, 0, "ref", 1, false},
        {4096, 1, "f16", "f16", false, 0, "cpu", 2, true},
        {2048, 2, "q8_0", "q4_0", false, 2, "cpu", 3, true},
        {512, 1, "rot_q4_0", "rot_q4_0", false, 2, "ref", 2, true},
    };
    facet_model *m = open_model(MODEL);
    facet_drafter *drafters[2];
    facet_error err;
    assert_ok(facet_drafter_open(MODELS "mtp-Q8_0.gguf", m, &drafters[0], &err), err);
    assert_ok(facet_drafter_open(MODELS "dflash-Q8_0.gguf", m, &drafters[1], &err), err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        facet_engine_params p = params(cases[i].device, cases[i].n_ctx, cases[i].n_sessions);
        p.n_threads = cases[i].n_threads;
        p.cache_type_k = cases[i].k;
        p.cache_type_v = cases[i].v;
        p.use_mmap = cases[i].use_mmap;
        p.rebuild_keys = cases[i].rebuild_keys;
        p.drafters = drafters;
        p.n_drafters = cases[i].n_drafters;
        p.draft_ctx = 512;
        facet_engine *e;
        facet_memory got;
        const engine_needs want = estimate(m, &p);
        assert_ok(facet_engine_open(m, &p, &e, &err), err);
        facet_engine_memory(e, &got);
        assert_true(want.kv > 0 && want.compute > 1 << 20 &&
                    (want.weights > 0) == (!cases[i].use_mmap && strcmp(p.device, "cpu") == 0));
        if (got.kv != want.kv || got.weights != want.weights || got.compute != want.compute)
            fail_msg("case %zu: KV %llu, weights %llu, activations %llu; estimated %llu, %llu, %llu", i,
                     (unsigned long long)got.kv, (unsigned long long)got.weights, (unsigned long long)got.compute,
                     (unsigned long long)want.kv, (unsigned long long)want.weights, (unsigned long long)want.compute);
        assert_true(got.device == 0);
        facet_engine_close(e);
    }
    for (int i = 0; i < 2; i++) facet_drafter_close(drafters[i]);
    facet_model_close(m);
}

/* The program's figures: facet inspect before, facet run --json after. */
static void inspect_says_what_run_takes(void **state)
{
    (void)state;
    static char out[1 << 16];
    static const char command[] = "%s/facet inspect " MODEL " -c 4096 -ctk q8_0 -t 2; %s/facet run -m " MODEL
                                  " --device cpu -c 4096 -ctk q8_0 -t 2 -n 1 --json hi";
    char filled[2048];
    snprintf(filled, sizeof filled, command, FACET_BINARY_DIR, FACET_BINARY_DIR);
    FILE *p = popen(filled, "r");
    assert_non_null(p);
    out[fread(out, 1, sizeof out - 1, p)] = 0;
    assert_int_equal(pclose(p), 0);
    const char *before = strstr(out, "context of 4096 tokens, K q8_0, V f16: weights "),
               *after = strstr(out, "\"memory\"");
    assert_true(before && after);
    double loaded, kv, compute, sum;
    long long per_token, weight_bytes, kv_bytes, compute_bytes;
    assert_int_equal(sscanf(before,
                            "context of 4096 tokens, K q8_0, V f16: weights %lf MiB, KV cache %lf MiB (%lld bytes per "
                            "further token), activations %lf MiB, together %lf GiB",
                            &loaded, &kv, &per_token, &compute, &sum),
                     5);
    assert_int_equal(per_token, 2 * (512 / 32 * 34 + 512 * 2)); /* two global layers, K q8_0, V f16 */
    assert_int_equal(sscanf(after, "\"memory\":{\"weights\":%lld,\"kv\":%lld,\"compute\":%lld,", &weight_bytes,
                            &kv_bytes, &compute_bytes),
                     3);
    double f16_mib, tq3_mib;
    long long f16_bytes, tq3_bytes;
    const char *f16 = strstr(before, "\n  f16 "), *tq3 = strstr(before, "\n  tq3_0 ");
    assert_true(f16 && tq3);
    assert_int_equal(sscanf(f16, "\n  f16 %lf %lld", &f16_mib, &f16_bytes), 2);
    assert_int_equal(sscanf(tq3, "\n  tq3_0 %lf %lld", &tq3_mib, &tq3_bytes), 2);
    assert_int_equal(f16_bytes, 2 * 2 * 512 * 2); /* two global layers, K and V, one head of 512 values */
    assert_int_equal(tq3_bytes, 2 * 2 * 512 / 32 * 14);
    assert_true(fabs(tq3_mib / f16_mib - 3.5 / 16) < 0.01);
    assert_true(fabs(loaded - (double)weight_bytes / 0x1p20) < 0.051);
    assert_true(fabs(kv - (double)kv_bytes / 0x1p20) < 0.051);
    assert_true(fabs(compute - (double)compute_bytes / 0x1p20) < 0.051);
    assert_true(fabs(sum - (double)(weight_bytes + kv_bytes + compute_bytes) / 0x1p30) < 0.0051);
}

/* Contexts and sessions beyond everything do not wrap around. */
static void absurd_sizes_are_estimated_as_such(void **state)
{
    (void)state;
    facet_model *m = open_model(MODEL);
    facet_engine_params p = params("cpu", INT32_MAX, 4096);
    p.cache_type_k = p.cache_type_v = "f32";
    p.draft_ctx = 1 << 24;
    assert_true(estimate(m, &p).kv > 1ull << 48);
    facet_model_close(m);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    facet_model *m = open_model(MODEL);
    facet_error err;
    facet_engine *e;
    facet_engine_params p = params("cpu", 32768, 1);
    const engine_needs n = estimate(m, &p);
    char want[256];

    const uint64_t fixed = n.weights + n.compute;
    mem_pretend_available(fixed + n.kv); /* exactly enough */
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    assert_int_equal(facet_engine_n_ctx(e), 32768);
    facet_engine_close(e);

    mem_pretend_available(fixed + n.kv - 1);
    assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_MEMORY);
    snprintf(want, sizeof want,
             "context of 32768 tokens needs %.2f GiB for the KV cache beside %.2f GiB of weights and %.2f GiB of "
             "activations, and %.2f GiB are free: use a smaller context or cache type",
             (double)n.kv / 0x1p30, (double)n.weights / 0x1p30, (double)n.compute / 0x1p30,
             (double)(fixed + n.kv) / 0x1p30);
    assert_string_equal(err.message, want);

    p.n_ctx = 16384;
    const engine_needs half = estimate(m, &p);
    p.n_ctx = 0; /* as much as leaves the other half of the memory free */
    for (int less = 0; less < 2; less++) {
        mem_pretend_available(half.weights + half.compute + 2 * half.kv - (uint64_t)less);
        assert_ok(facet_engine_open(m, &p, &e, &err), err);
        assert_int_equal(facet_engine_n_ctx(e), less ? 8192 : 16384);
        facet_engine_close(e);
    }

    p.n_ctx = 1024;
    const engine_needs least = estimate(m, &p);
    p.n_ctx = 0;
    mem_pretend_available(least.weights + least.compute + (2 << 20)); /* not even the least context */
    assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_MEMORY);
    assert_non_null(strstr(err.message, "context of 1024 tokens needs 0.01 GiB"));

    mem_pretend_available(n.weights); /* nothing for activations */
    assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_MEMORY);
    snprintf(
        want, sizeof want,
        "the weights need %.2f GiB, activations %.2f GiB, and %.2f GiB are free: use a smaller file, or run from the "
        "mapped file (--mmap)",
        (double)n.weights / 0x1p30, (double)least.compute / 0x1p30, (double)n.weights / 0x1p30);
    assert_string_equal(err.message, want);
    mem_pretend_available(least.weights + least.compute - 1); /* enough without the copies of the weights */
    p.n_ctx = 64;
    p.use_mmap = true;
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    facet_engine_close(e);

    mem_pretend_available((uint64_t)1 << 40); /* many sessions in a whole terabyte */
    p = params("cpu", 32768, 4096);
    p.cache_type_k = p.cache_type_v = "f32";
    assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_MEMORY);
    assert_non_null(strstr(err.message, "and 1024.00 GiB are free"));
    mem_pretend_available(0);
    facet_model_close(m);
}

/* Refused with figures before anything is loaded; "auto" goes on to the CPU. */
static void what_does_not_fit_the_device_is_refused(void **state)
{
    (void)state;
    facet_model *m = open_model(MODEL);
    facet_engine_params p = params("cuda", 32768, 4096);
    facet_engine *e;
    facet_error err;
    p.cache_type_k = p.cache_type_v = "f32";
    const facet_status status = facet_engine_open(m, &p, &e, &err);
    if (status == FACET_ERR_DEVICE) {
        facet_model_close(m);
        skip();
        return;
    }
    assert_int_equal(status, FACET_ERR_MEMORY);
    assert_non_null(strstr(err.message, "context of 32768 tokens needs "));
    assert_non_null(strstr(err.message, " GiB of activations, and "));
    assert_non_null(strstr(err.message, " are free on the device: use a smaller context or cache type"));
    p.device = "auto";
    assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_MEMORY);
    assert_null(strstr(err.message, "on the device"));
    p = params("cuda", 2048, 2);
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    facet_memory got;
    facet_engine_memory(e, &got);
    uint64_t loaded = 0;
    for (int i = 0; i < m->w.n; i++) loaded += backend_cuda_weight_bytes(&m->w.list[i]);
    assert_true(got.weights == loaded && got.device == got.weights + got.kv + got.compute);
    facet_engine_close(e);
    facet_model_close(m);
}

/* ---- parameters ---- */

static void parameters_out_of_range(void **state)
{
    (void)state;
    const facet_engine_params d = params("cpu", 64, 1);
    struct {
        facet_engine_params p;
        facet_status status;
        const char *message;
    } bad[24];
    int n = 0;
#define BAD(field, value, want, text)                                                                                  \
    (bad[n].p = d, bad[n].p.field = (value), bad[n].status = (want), bad[n++].message = (text))
    BAD(struct_size, 8, FACET_ERR_ARG, "facet_engine_params.struct_size is 8, this library wants");
    BAD(device, "gpu", FACET_ERR_ARG, "device 'gpu': wanted cpu, cuda");
    BAD(device, "cuda:x", FACET_ERR_ARG, "device 'cuda:x'");
    BAD(n_threads, -1, FACET_ERR_ARG, "threads: -1, wanted 0 to 1024");
    BAD(n_threads, 1025, FACET_ERR_ARG, "threads: 1025");
    BAD(n_ctx, -1, FACET_ERR_LIMIT, "context of -1 tokens: the model takes 1 to 32768");
    BAD(n_ctx, 32769, FACET_ERR_LIMIT, "context of 32769 tokens: the model takes 1 to 32768");
    BAD(n_sessions, 0, FACET_ERR_ARG, "n_sessions is 0, wanted 1 to 4096");
    BAD(n_sessions, 4097, FACET_ERR_ARG, "n_sessions is 4097");
    BAD(cache_type_k, "q4", FACET_ERR_ARG, "cache type of K 'q4': supported are");
    BAD(cache_type_v, "", FACET_ERR_ARG, "cache type of V '': supported are");
    BAD(cache_preset, "huge", FACET_ERR_ARG, "cache preset 'huge': there are exact balanced small tiny");
    BAD(cache_layers, "9=f16", FACET_ERR_ARG, "cache layers: '9=f16': wanted LAYER=K[/V] with a layer from 0 to 5");
    BAD(cache_layers, "local", FACET_ERR_ARG, "cache layers: 'local': wanted");
    BAD(cache_layers, "3-2=f16", FACET_ERR_ARG, "cache layers: '3-2=f16'");
    BAD(cache_layers, "0=f16,1=f16/q3", FACET_ERR_ARG, "cache layers: type of V 'q3': supported are f16");
    BAD(device, "cuda", FACET_ERR_UNSUPPORTED, "rebuild_keys: the CUDA backend reads keys and values that are both");
    bad[n - 1].p.rebuild_keys = true;
    BAD(n_captures, -1, FACET_ERR_ARG, "n_captures is -1, wanted 0 to 16");
    BAD(n_captures, 17, FACET_ERR_ARG, "n_captures is 17");
    BAD(n_drafters, 3, FACET_ERR_ARG, "n_drafters is 3, wanted 0 to 2");
    BAD(draft_ctx, -1, FACET_ERR_ARG, "draft_ctx is -1");
    BAD(tree_temp, 0, FACET_ERR_ARG, "tree_temp is 0");
#undef BAD
    facet_model *m = open_model(MODEL);
    for (int i = 0; i < n; i++) {
        facet_engine *e = NULL;
        facet_error err = {0};
        const int64_t live = mem_n_live();
        if (facet_engine_open(m, &bad[i].p, &e, &err) != bad[i].status || !strstr(err.message, bad[i].message))
            fail_msg("wanted \"%s\", got %d, \"%s\"", bad[i].message, (int)err.status, err.message);
        assert_null(e);
        assert_int_equal(mem_n_live(), live);
    }
    static const int layers[][2] = {{0, 0}, {3, 2}, {0, 6}, {-1, 2}};
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        facet_engine_params p = d;
        facet_engine *e = NULL;
        facet_error err = {0};
        p.n_captures = 2;
        p.capture_layers = layers[i];
        assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_ARG);
        if (!strstr(err.message, "capture")) fail_msg("%s", err.message);
    }
    facet_model_close(m);
}

/* ---- split files ---- */

typedef struct tokens {
    int32_t ids[64];
    int n;
} tokens;

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    (void)text, (void)n;
    tokens *t = ud;
    if (token >= 0 && t->n < 64) t->ids[t->n++] = token;
    return true;
}

static tokens answer(const char *path, bool use_mmap)
{
    static const char prompt[] = "<bos><|turn>user\nTell a short story about a small fox.<turn|>\n<|turn>model\n";
    facet_model *m = open_model(path);
    facet_engine_params p = params("cpu", 256, 1);
    p.use_mmap = use_mmap;
    facet_engine *e;
    facet_session *s;
    facet_error err;
    int32_t *ids;
    size_t n;
    tokens t = {0};
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    assert_ok(facet_session_open(e, &s, &err), err);
    assert_ok(facet_tokenize(m, prompt, strlen(prompt), true, true, &ids, &n, &err), err);
    const facet_sampling greedy = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    facet_generate_result r;
    g.n_predict = 64;
    g.on_token = collect;
    g.ud = &t;
    assert_ok(facet_generate(s, ids, n, &greedy, &g, &r, &err), err);
    facet_free(ids);
    facet_session_close(s);
    facet_engine_close(e);
    facet_model_close(m);
    return t;
}

static void presets_name_types(void **state)
{
    (void)state;
    static const struct {
        const char *preset, *k, *v;
        kv_type want_k, want_v;
    } cases[] = {
        {NULL, NULL, NULL, KV_F16, KV_F16},          {"exact", NULL, NULL, KV_F16, KV_F16},
        {"balanced", NULL, NULL, KV_Q8_0, KV_Q8_0},  {"small", NULL, NULL, KV_ROT_Q4_0, KV_ROT_Q4_0},
        {"tiny", NULL, NULL, KV_TQ3_0, KV_TQ3_0},    {"tiny", "q8_0", NULL, KV_Q8_0, KV_TQ3_0},
        {"small", NULL, "f32", KV_ROT_Q4_0, KV_F32}, {NULL, NULL, "q4_0", KV_F16, KV_Q4_0},
    };
    facet_model *m = open_model(MODEL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        facet_engine_params p = params("cpu", 256, 1);
        facet_engine *e;
        facet_error err;
        p.cache_preset = cases[i].preset;
        p.cache_type_k = cases[i].k;
        p.cache_type_v = cases[i].v;
        assert_ok(facet_engine_open(m, &p, &e, &err), err);
        for (int l = 0; l < e->kv.n_layers; l++) {
            assert_int_equal(e->kv.layers[l].k_type, cases[i].want_k);
            assert_int_equal(e->kv.layers[l].v_type, cases[i].want_v);
        }
        facet_engine_close(e);
    }
    facet_model_close(m);
}

/* Types of single layers, in order of the list; the assistant's donors (4 and 5) stay at q8_0 or better. */
static void layers_have_types_of_their_own(void **state)
{
    (void)state;
    static const kv_type want[2][6][2] = {{{KV_Q4_0, KV_Q4_0},
                                           {KV_F16, KV_F32},
                                           {KV_Q8_0, KV_TQ3_0},
                                           {KV_TQ3_0, KV_TQ3_0},
                                           {KV_Q4_0, KV_Q4_0},
                                           {KV_Q8_0, KV_TQ3_0}},
                                          {{KV_Q4_0, KV_Q4_0},
                                           {KV_F16, KV_F32},
                                           {KV_Q8_0, KV_TQ3_0},
                                           {KV_TQ3_0, KV_TQ3_0},
                                           {KV_Q8_0, KV_Q8_0},
                                           {KV_Q8_0, KV_Q8_0}}};
    facet_model *m = open_model(MODEL);
    facet_drafter *mtp;
    facet_error err;
    assert_ok(facet_drafter_open(MODELS "mtp-Q8_0.gguf", m, &mtp, &err), err);
    for (int n = 0; n < 2; n++) {
        facet_engine_params p = params("cpu", 256, 1);
        facet_engine *e;
        p.cache_type_k = "f32";
        p.cache_layers = "local=q4_0,global=q8_0/tq3_0,1-3=tq3_0,1=f16/f32,2=q8_0/tq3_0";
        p.drafters = &mtp;
        p.n_drafters = n;
        assert_ok(facet_engine_open(m, &p, &e, &err), err);
        assert_int_equal(e->kv.n_layers, 6);
        for (int l = 0; l < 6; l++) {
            assert_int_equal(e->kv.layers[l].k_type, want[n][l][0]);
            assert_int_equal(e->kv.layers[l].v_type, want[n][l][1]);
        }
        facet_engine_close(e);
    }
    facet_drafter_close(mtp);
    facet_model_close(m);
}

static void a_split_model_gives_the_same_tokens(void **state)
{
    (void)state;
    const tokens want = answer(MODEL, false);
    assert_true(want.n > 10);
    static const int counts[] = {2, 5, 85}; /* 85: a tensor each */
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const char *first = gguf_write_parts(MODEL, temp_file("m"), counts[i]);
        for (int use_mmap = 0; use_mmap < 2; use_mmap++) {
            const tokens got = answer(first, use_mmap);
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.ids, want.ids, sizeof want.ids);
        }
        temp_dir_empty();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_estimate_is_what_is_taken),
        cmocka_unit_test(inspect_says_what_run_takes),
        cmocka_unit_test(absurd_sizes_are_estimated_as_such),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(what_does_not_fit_the_device_is_refused),
        cmocka_unit_test(parameters_out_of_range),
        cmocka_unit_test(presets_name_types),
        cmocka_unit_test(layers_have_types_of_their_own),
        cmocka_unit_test(a_split_model_gives_the_same_tokens),
    };
    return cmocka_run_group_tests_name("engine", tests, temp_dir_make, temp_dir_remove);
}

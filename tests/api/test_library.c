/* The public interface as facet.h describes it, by that header alone. */
#include "testing.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define PROMPT "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n"
#define ANSWER "82 - 61 = 21."

typedef struct world {
    facet_model *model;
    facet_engine *engine;
    facet_session *session;
    int32_t *prompt;
    size_t n;
} world;

static world w;
static facet_error err;

static int begin(void **state)
{
    (void)state;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 4096;
    p.n_sessions = 2;
    p.wants_hidden = true;
    p.cache_bytes = 1 << 22;
    assert_ok(facet_model_open(MODEL, &w.model, &err), err);
    assert_ok(facet_engine_open(w.model, &p, &w.engine, &err), err);
    assert_ok(facet_tokenize(w.model, PROMPT, strlen(PROMPT), true, true, &w.prompt, &w.n, &err), err);
    return 0;
}

static int end(void **state)
{
    (void)state;
    facet_free(w.prompt);
    facet_engine_close(w.engine);
    facet_model_close(w.model);
    return 0;
}

static int open_session(void **state)
{
    (void)state;
    assert_ok(facet_session_open(w.engine, &w.session, &err), err);
    return 0;
}

static int close_session(void **state)
{
    (void)state;
    facet_session_close(w.session);
    return 0;
}

static void expect_error(facet_status got, facet_status want, const char *words)
{
    if (got != want || !strstr(err.message, words))
        fail_msg("status %s, wanted %s: '%s', wanted '%s'", facet_status_name(got), facet_status_name(want),
                 err.message, words);
}

/* ---- what objects say of themselves ---- */

static void names_of_statuses_and_methods(void **state)
{
    (void)state;
    assert_string_equal(facet_status_name(FACET_OK), "ok");
    assert_string_equal(facet_status_name(FACET_ERR_CANCELLED), "cancelled");
    assert_string_equal(facet_status_name(FACET_ERR_PARKED), "parked");
    assert_string_equal(facet_status_name((facet_status)99), "unknown");
    for (int i = 0; i <= FACET_SPEC_AUTO; i++) {
        facet_spec_method m;
        assert_true(facet_spec_method_by_name(facet_spec_method_name((facet_spec_method)i), &m));
        assert_int_equal(m, i);
        assert_int_equal(facet_speculation_default(m).method, i);
    }
    facet_spec_method untouched = FACET_SPEC_NGRAM;
    assert_false(facet_spec_method_by_name("eagle", &untouched));
    assert_int_equal(untouched, FACET_SPEC_NGRAM);
}

static void the_model_is_described(void **state)
{
    (void)state;
    facet_model_info i;
    facet_model_describe(w.model, &i);
    assert_string_equal(i.name, "Tiny 31b");
    assert_int_equal(i.n_vocab, facet_model_n_vocab(w.model));
    assert_int_equal(i.n_ctx, facet_model_n_ctx(w.model));
    assert_int_equal(i.bos, 2);
    assert_int_equal(i.n_experts, 0);
    assert_true(i.n_layers > 0 && i.n_embd > 0 && i.n_heads > 0 && i.window > 0);
    assert_true(i.weight_bytes > 4000000 && i.weight_bytes < 6000000); /* a file of 5 MB */
    assert_true(facet_model_is_end(w.model, i.eos));
    assert_false(facet_model_is_end(w.model, i.bos));
    assert_false(facet_model_is_end(w.model, -1));
}

static void the_engine_is_described(void **state)
{
    (void)state;
    facet_engine_info before, after;
    facet_engine_describe(w.engine, &before);
    assert_string_equal(before.device, "cpu");
    assert_true(*before.description);
    assert_int_equal(before.n_ctx, 4096);
    assert_true(before.n_pages >= 2 * 4096 / 64);
    assert_int_equal(before.n_free_pages, before.n_pages);
    assert_true(before.memory_free > 0 && before.memory_free <= before.memory_total);
    assert_ok(facet_session_sync(w.session, w.prompt, w.n, &err), err);
    facet_engine_describe(w.engine, &after);
    assert_int_equal(after.n_steps, before.n_steps + 1);
    assert_int_equal(after.n_free_pages, before.n_free_pages - 1);
}

/* ---- sessions ---- */

static void best_logits_and_hidden_agree(void **state)
{
    (void)state;
    const int32_t n = facet_model_n_vocab(w.model);
    float *logits = malloc((size_t)n * sizeof *logits);
    float hidden[4096];
    facet_model_info info;
    int32_t best = -7, likeliest = 0;
    facet_model_describe(w.model, &info);
    expect_error(facet_session_best(w.session, &best, &err), FACET_ERR_ARG, "no logits yet");
    expect_error(facet_session_logits(w.session, logits, &err), FACET_ERR_ARG, "no logits yet");
    expect_error(facet_session_hidden(w.session, hidden, &err), FACET_ERR_ARG, "no logits yet");
    assert_int_equal(best, -7);
    assert_ok(facet_session_sync(w.session, w.prompt, w.n, &err), err);
    assert_ok(facet_session_logits(w.session, logits, &err), err);
    assert_ok(facet_session_best(w.session, &best, &err), err);
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[likeliest]) likeliest = i;
    assert_int_equal(best, likeliest);
    assert_true(info.n_embd <= 4096);
    for (int i = 0; i < info.n_embd; i++) hidden[i] = NAN;
    assert_ok(facet_session_hidden(w.session, hidden, &err), err);
    double sum = 0;
    for (int i = 0; i < info.n_embd; i++) sum += fabs((double)hidden[i]);
    assert_true(isfinite(sum) && sum > 0);
    free(logits);
}

static void hidden_states_must_be_asked_for(void **state)
{
    (void)state;
    facet_engine *e;
    facet_session *s;
    float one;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 128;
    assert_ok(facet_engine_open(w.model, &p, &e, &err), err);
    assert_ok(facet_session_open(e, &s, &err), err);
    expect_error(facet_session_hidden(s, &one, &err), FACET_ERR_ARG, "wants_hidden");
    facet_session_close(s);
    facet_engine_close(e);
}

/* Whatever step the last token was evaluated in, and whoever ran since. */
static void captures_are_those_of_the_last_token(void **state)
{
    (void)state;
    static const int layers[] = {0, 2};
    facet_engine *e;
    facet_session *s, *other;
    facet_model_info info;
    float want[2][4096], got[4096];
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 128;
    p.n_sessions = 2;
    p.n_captures = 2;
    p.capture_layers = layers;
    facet_model_describe(w.model, &info);
    const size_t bytes = (size_t)info.n_embd * sizeof(float);
    assert_ok(facet_engine_open(w.model, &p, &e, &err), err);
    assert_ok(facet_session_open(e, &s, &err), err);
    assert_ok(facet_session_open(e, &other, &err), err);
    for (size_t i = 0; i < w.n; i++) assert_ok(facet_session_append(other, w.prompt + i, 1, &err), err);
    for (int c = 0; c < 2; c++) assert_ok(facet_session_capture(other, c, want[c], &err), err);
    assert_true(memcmp(want[0], want[1], bytes) != 0);
    assert_ok(facet_session_sync(s, w.prompt, w.n, &err), err); /* all rows in one step */
    for (int c = 0; c < 2; c++) {
        memset(got, 0, sizeof got);
        assert_ok(facet_session_capture(s, c, got, &err), err);
        assert_memory_equal(got, want[c], bytes);
    }
    assert_ok(facet_session_append(other, w.prompt, 3, &err), err);
    assert_ok(facet_session_capture(s, 1, got, &err), err);
    assert_memory_equal(got, want[1], bytes);
    expect_error(facet_session_capture(s, 2, got, &err), FACET_ERR_ARG, "capture 2: the engine was opened with 2");
    expect_error(facet_session_capture(s, -1, got, &err), FACET_ERR_ARG, "capture -1");
    facet_session_close(s);
    facet_session_close(other);
    facet_engine_close(e);
}

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    (void)token;
    strncat(ud, text, n);
    return true;
}

/* generate, and the same by hand with a sampler: token for token, at a temperature. */
static void a_loop_of_ones_own_is_generation(void **state)
{
    (void)state;
    char text[512] = "";
    facet_sampling s = facet_sampling_of_model(w.model);
    s.seed = 11;
    s.repeat_penalty = 1.1f;
    facet_generate_params p = facet_generate_params_default();
    facet_generate_result r;
    p.n_predict = 20;
    p.on_token = collect;
    p.ud = text;
    assert_ok(facet_generate(w.session, w.prompt, w.n, &s, &p, &r, &err), err);

    facet_session *own;
    facet_sampler *sampler;
    char *written;
    size_t n_written;
    assert_ok(facet_session_open(w.engine, &own, &err), err);
    assert_ok(facet_sampler_open(w.model, &s, &sampler, &err), err);
    assert_ok(facet_session_sync(own, w.prompt, w.n, &err), err);
    for (int i = 0; i < 20; i++) {
        int32_t token;
        assert_ok(facet_sampler_pick(sampler, own, &token, &err), err);
        if (facet_model_is_end(w.model, token)) {
            assert_int_equal(r.stop, FACET_STOP_EOS);
            assert_int_equal(r.end_token, token);
            break;
        }
        assert_ok(facet_session_append(own, &token, 1, &err), err);
    }
    const int32_t *tokens = facet_session_tokens(own);
    const int32_t n = facet_session_n_tokens(own);
    assert_int_equal(n, (int)w.n + r.n_tokens);
    assert_ok(facet_detokenize(w.model, tokens + w.n, (size_t)n - w.n, false, &written, &n_written, &err), err);
    assert_string_equal(written, text);
    assert_int_equal(n_written, strlen(text));
    facet_free(written);
    facet_sampler_close(sampler);
    facet_session_close(own);
}

static void ends_are_told(void **state)
{
    (void)state;
    const facet_sampling s = facet_sampling_default();
    facet_generate_params p = facet_generate_params_default();
    facet_generate_result r;
    p.n_predict = 64;
    assert_ok(facet_generate(w.session, w.prompt, w.n, &s, &p, &r, &err), err);
    assert_int_equal(r.stop, FACET_STOP_EOS);
    assert_int_equal(r.n_tokens, 11);
    assert_true(facet_model_is_end(w.model, r.end_token));
    p.n_predict = 3;
    assert_ok(facet_generate(w.session, w.prompt, w.n, &s, &p, &r, &err), err);
    assert_int_equal(r.stop, FACET_STOP_LIMIT);
    assert_int_equal(r.end_token, -1);
}

static void nothing_cannot_be_appended(void **state)
{
    (void)state;
    expect_error(facet_session_append(w.session, w.prompt, 0, &err), FACET_ERR_ARG, "at least one token");
    const int32_t wrong = facet_model_n_vocab(w.model);
    expect_error(facet_session_append(w.session, &wrong, 1, &err), FACET_ERR_ARG, "the vocabulary has");
    assert_int_equal(facet_session_n_tokens(w.session), 0);
}

static void a_model_wants_a_path(void **state)
{
    (void)state;
    facet_model *m = NULL;
    expect_error(facet_model_open(NULL, &m, &err), FACET_ERR_ARG, "path: NULL");
    assert_null(m);
}

static void samplers_belong_to_a_model(void **state)
{
    (void)state;
    facet_model *other;
    facet_sampler *s;
    int32_t token;
    const facet_sampling p = facet_sampling_default();
    assert_ok(facet_model_open(MODEL, &other, &err), err);
    assert_ok(facet_sampler_open(other, &p, &s, &err), err);
    assert_ok(facet_session_sync(w.session, w.prompt, w.n, &err), err);
    expect_error(facet_sampler_pick(s, w.session, &token, &err), FACET_ERR_ARG, "another model");
    facet_sampler_close(s);
    facet_model_close(other);
    facet_sampling bad = p;
    bad.top_p = 2;
    s = (facet_sampler *)(uintptr_t)0x5a5a0;
    expect_error(facet_sampler_open(w.model, &bad, &s, &err), FACET_ERR_ARG, "top-p 2");
    assert_ptr_equal(s, (void *)(uintptr_t)0x5a5a0);
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    facet_model_close(NULL);
    facet_drafter_close(NULL);
    facet_engine_close(NULL);
    facet_session_close(NULL);
    facet_sampler_close(NULL);
    facet_chat_parser_close(NULL);
    facet_free(NULL);
}

/* ---- many at a time ---- */

enum { N_TEXTS = 4 };

typedef struct branch {
    facet_session *session;
    facet_sampling sampling;
    char alone[512], together[512];
    facet_status status;
    facet_generate_result result;
    int n_done;
} branch;

static void on_done(void *ud, facet_status status, const facet_generate_result *result, const facet_error *e)
{
    branch *t = ud;
    t->status = status;
    t->result = *result;
    t->n_done++;
    assert_true((status == FACET_OK) == !e);
}

static void sessions_share_steps(void **state)
{
    (void)state;
    branch t[N_TEXTS] = {0};
    facet_batch *b;
    facet_engine_info before, between, after;
    facet_generate_params p = facet_generate_params_default();
    p.n_predict = 24;
    p.on_token = collect;
    facet_engine_describe(w.engine, &before);
    for (int i = 0; i < N_TEXTS; i++) {
        assert_ok(facet_session_open(w.engine, &t[i].session, &err), err);
        t[i].sampling = facet_sampling_of_model(w.model);
        t[i].sampling.seed = (uint64_t)i + 1;
        p.ud = t[i].alone;
        assert_ok(facet_generate(t[i].session, w.prompt, w.n, &t[i].sampling, &p, &t[i].result, &err), err);
        facet_session_close(t[i].session);
        assert_ok(facet_session_open(w.engine, &t[i].session, &err), err);
    }
    facet_engine_describe(w.engine, &between);
    assert_ok(facet_batch_open(w.engine, 0, &b, &err), err);
    for (int i = 0; i < N_TEXTS; i++) {
        p.ud = t[i].together;
        assert_ok(facet_batch_add(b, t[i].session, w.prompt, w.n, &t[i].sampling, &p, on_done, &t[i], &err), err);
    }
    expect_error(facet_batch_add(b, t[0].session, w.prompt, w.n, &t[0].sampling, &p, on_done, &t[0], &err),
                 FACET_ERR_ARG, "under way");
    int n_left = N_TEXTS;
    while (n_left > 0) {
        const int n = facet_batch_step(b);
        assert_true(n <= n_left);
        n_left = n;
    }
    facet_engine_describe(w.engine, &after);
    assert_true(2 * (after.n_steps - between.n_steps) < between.n_steps - before.n_steps);
    for (int i = 0; i < N_TEXTS; i++) {
        assert_int_equal(t[i].status, FACET_OK);
        assert_int_equal(t[i].n_done, 1);
        assert_string_equal(t[i].together, t[i].alone);
        facet_session_close(t[i].session);
    }
    facet_batch_close(b);
    facet_batch_close(NULL);
    expect_error(facet_batch_open(w.engine, -1, &b, &err), FACET_ERR_ARG, "prompt rows");
}

/* ---- snapshots, parking ---- */

static void snapshots_by_the_public_interface(void **state)
{
    (void)state;
    char text[512] = "", again[512] = "", file[64];
    facet_snapshot_info list[FACET_SNAPSHOT_SLOTS], info;
    facet_generate_params p = facet_generate_params_default();
    facet_generate_result r;
    const facet_sampling greedy = facet_sampling_default();
    facet_session *other;
    int32_t n = 0;
    p.n_predict = 40;
    p.on_token = collect;
    p.ud = text;
    assert_ok(facet_session_sync(w.session, w.prompt, w.n, &err), err);
    assert_ok(facet_snapshot_store(w.session, 7, 0, -1, "question", &err), err);
    assert_ok(facet_snapshot_store(w.session, 2, 0, 5, NULL, &err), err);
    assert_ok(facet_snapshot_store(w.session, 3, 5, (int32_t)w.n, NULL, &err), err);
    expect_error(facet_snapshot_store(w.session, 3, -1, 5, NULL, &err), FACET_ERR_ARG, "first is -1");
    expect_error(facet_snapshot_store(w.session, 64, 0, -1, NULL, &err), FACET_ERR_ARG, "slot");
    assert_ok(facet_generate(w.session, w.prompt, w.n, &greedy, &p, &r, &err), err);
    assert_int_equal(facet_snapshot_list(w.engine, NULL), 3);
    assert_int_equal(facet_snapshot_list(w.engine, list), 3);
    assert_int_equal(list[0].slot, 2);
    assert_int_equal(list[1].first, 5);
    assert_string_equal(list[2].label, "question");
    assert_int_equal(list[2].n_tokens, w.n);
    assert_true(list[2].bytes > 0 && list[2].own_bytes <= list[2].bytes);
    const int32_t *tokens = facet_snapshot_tokens(w.engine, 7, &n);
    assert_int_equal(n, w.n);
    assert_memory_equal(tokens, w.prompt, w.n * sizeof *tokens);
    snprintf(file, sizeof file, "/tmp/facet-library-%d.snapshot", (int)getpid());
    assert_ok(facet_snapshot_save(w.engine, 7, file, &err), err);
    assert_ok(facet_snapshot_describe_file(file, &info, &err), err);
    assert_int_equal(info.slot, -1);
    assert_int_equal(info.n_tokens, w.n);
    assert_string_equal(info.label, "question");
    assert_ok(facet_snapshot_load(w.engine, 8, file, &err), err);
    unlink(file);
    expect_error(facet_snapshot_load(w.engine, 8, file, &err), FACET_ERR_IO, file);
    assert_ok(facet_session_open(w.engine, &other, &err), err);
    p.ud = again;
    const int thin[] = {3};
    for (int i = 0; i < 2; i++) {
        if (i == 0) assert_ok(facet_snapshot_restore(other, 8, NULL, 0, &err), err);
        if (i == 1) assert_ok(facet_snapshot_restore(other, 2, thin, 1, &err), err);
        assert_int_equal(facet_session_n_tokens(other), w.n);
        *again = 0;
        assert_ok(facet_generate(other, w.prompt, w.n, &greedy, &p, &r, &err), err);
        assert_int_equal(r.n_prefill, 1); /* the last token, for its logits */
        assert_string_equal(again, text);
    }
    expect_error(facet_snapshot_restore(other, 3, NULL, 0, &err), FACET_ERR_ARG, "thin");
    for (int slot = 0; slot < FACET_SNAPSHOT_SLOTS; slot++) assert_ok(facet_snapshot_free(w.engine, slot, &err), err);
    assert_int_equal(facet_snapshot_list(w.engine, NULL), 0);
    assert_null(facet_snapshot_tokens(w.engine, 7, &n));
    expect_error(facet_snapshot_restore(other, 7, NULL, 0, &err), FACET_ERR_ARG, "7");
    facet_session_close(other);
}

static void parking_by_the_public_interface(void **state)
{
    (void)state;
    facet_park_report r;
    facet_memory before, parked, after;
    int32_t best, again;
    assert_ok(facet_session_sync(w.session, w.prompt, w.n, &err), err);
    assert_ok(facet_session_best(w.session, &best, &err), err);
    facet_engine_memory(w.engine, &before);
    assert_ok(facet_engine_park(w.engine, FACET_PART_ALL, FACET_PARK_KV_HOST, &r, &err), err);
    facet_engine_memory(w.engine, &parked);
    assert_true(r.weights > 0 && parked.weights + r.weights == before.weights);
    assert_int_equal(facet_engine_parked(w.engine), FACET_PART_TARGET); /* there is no drafter */
    expect_error(facet_session_append(w.session, w.prompt, 1, &err), FACET_ERR_PARKED, "park");
    assert_ok(facet_engine_unpark(w.engine, FACET_PART_ALL, NULL, &err), err);
    facet_engine_memory(w.engine, &after);
    assert_int_equal(after.weights, before.weights);
    assert_int_equal(facet_engine_parked(w.engine), 0);
    assert_int_equal(facet_session_n_tokens(w.session), w.n); /* the conversation is still there */
    assert_ok(facet_session_best(w.session, &again, &err), err);
    assert_int_equal(again, best);
    expect_error(facet_engine_park(w.engine, 0, FACET_PARK_KV_KEEP, NULL, &err), FACET_ERR_ARG, "");
    expect_error(facet_engine_park(w.engine, 1, (facet_park_kv)3, NULL, &err), FACET_ERR_ARG, "kv is 3");
    assert_ok(facet_engine_park(w.engine, FACET_PART_TARGET, FACET_PARK_KV_DROP, NULL, &err), err);
    assert_ok(facet_engine_unpark(w.engine, FACET_PART_TARGET, NULL, &err), err);
    assert_int_equal(facet_session_n_tokens(w.session), 0);
}

/* ---- cancellation ---- */

typedef struct canceller {
    facet_session *session;
    atomic_int n_tokens; /* seen so far */
    int after;
    atomic_bool has_asked;
    int n_more; /* tokens that came after the cancellation was asked for */
} canceller;

static void *cancel_after(void *arg)
{
    canceller *c = arg;
    const struct timespec tick = {0, 10000};
    while (atomic_load(&c->n_tokens) < c->after) nanosleep(&tick, NULL);
    facet_session_cancel(c->session);
    atomic_store(&c->has_asked, true);
    return NULL;
}

static bool count(void *ud, int32_t token, const char *text, size_t n)
{
    canceller *c = ud;
    (void)text, (void)n;
    if (token < 0) return true;
    if (atomic_load(&c->has_asked)) c->n_more++;
    atomic_fetch_add(&c->n_tokens, 1);
    return true;
}

/* The step that runs when the cancellation comes is the last one: plain decoding gives one token per step. */
static void another_thread_cancels_within_a_step(void **state)
{
    (void)state;
    const facet_sampling s = facet_sampling_default();
    for (int i = 0; i < 20; i++) {
        canceller c = {.session = w.session, .after = 3 + 5 * i};
        pthread_t thread;
        facet_generate_params p = facet_generate_params_default();
        facet_generate_result r;
        p.ignore_eos = true;
        p.on_token = count;
        p.ud = &c;
        assert_int_equal(pthread_create(&thread, NULL, cancel_after, &c), 0);
        assert_ok(facet_generate(w.session, w.prompt, w.n, &s, &p, &r, &err), err);
        pthread_join(thread, NULL);
        assert_int_equal(r.stop, FACET_STOP_CANCELLED);
        assert_int_equal(r.n_tokens, atomic_load(&c.n_tokens));
        assert_true(r.n_tokens >= c.after);
        assert_true(c.n_more <= 1);
        assert_int_equal(facet_session_n_tokens(w.session),
                         (int)w.n + r.n_tokens - 1); /* the last one is not evaluated */
    }
}

static bool cancel_at_once(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    (void)phase, (void)total;
    if (done > 0) facet_session_cancel(ud);
    return true;
}

static void prompts_are_cancelled_between_steps(void **state)
{
    (void)state;
    int32_t prompt[1600];
    facet_generate_params p = facet_generate_params_default();
    facet_generate_result r;
    const facet_sampling s = facet_sampling_default();
    for (int i = 0; i < 1600; i++) prompt[i] = i ? 200 + i % 997 : 2;
    p.progress = cancel_at_once;
    p.progress_ud = w.session;
    expect_error(facet_generate(w.session, prompt, 1600, &s, &p, &r, &err), FACET_ERR_CANCELLED, "cancelled");
    assert_int_equal(facet_session_n_tokens(w.session), 512); /* the step after which it was asked for */
    assert_memory_equal(facet_session_tokens(w.session), prompt, 512 * sizeof *prompt);
    p.progress = NULL;
    p.n_predict = 1;
    assert_ok(facet_generate(w.session, prompt, 1600, &s, &p, &r, &err), err);
    assert_int_equal(r.n_prefill, 1600 - 512);
}

static void a_cancellation_that_comes_early_stops_the_next_call(void **state)
{
    (void)state;
    facet_session_cancel(w.session);
    expect_error(facet_session_sync(w.session, w.prompt, w.n, &err), FACET_ERR_CANCELLED, "cancelled");
    assert_ok(facet_session_sync(w.session, w.prompt, w.n, &err), err); /* and only that one */
    facet_generate_params p = facet_generate_params_default();          /* also where no step would be run at all */
    const facet_sampling s = facet_sampling_default();
    facet_generate_result r;
    p.n_predict = 1;
    facet_session_cancel(w.session);
    expect_error(facet_generate(w.session, w.prompt, w.n, &s, &p, &r, &err), FACET_ERR_CANCELLED, "cancelled");
    assert_ok(facet_generate(w.session, w.prompt, w.n, &s, &p, &r, &err), err);
    assert_int_equal(r.n_tokens, 1);
}

/* ---- text ---- */

static void text_and_tokens(void **state)
{
    (void)state;
    char *text;
    size_t n;
    assert_ok(facet_detokenize(w.model, w.prompt, w.n, true, &text, &n, &err), err);
    assert_string_equal(text, PROMPT);
    assert_int_equal(n, strlen(PROMPT));
    facet_free(text);
    assert_ok(facet_detokenize(w.model, w.prompt, w.n, false, &text, &n, &err), err);
    assert_string_equal(text, "user\nWhat is 82 - 61?\nmodel\n");
    facet_free(text);
    assert_ok(facet_detokenize(w.model, NULL, 0, false, &text, &n, &err), err);
    assert_string_equal(text, "");
    facet_free(text);
    const int32_t wrong[] = {410, -1};
    expect_error(facet_detokenize(w.model, wrong, 2, false, &text, &n, &err), FACET_ERR_ARG, "token 1 is -1");
}

static void chats_are_rendered(void **state)
{
    (void)state;
    static const char messages[] = "[{\"role\":\"user\",\"content\":\"What is 82 - 61?\"}]";
    char *text;
    size_t n;
    assert_ok(facet_chat_render(w.model, messages, NULL, 0, &text, &n, &err), err);
    assert_memory_equal(text, PROMPT, strlen(PROMPT));
    facet_free(text);
    assert_ok(facet_chat_render(w.model, messages, NULL, FACET_CHAT_NO_PROMPT, &text, &n, &err), err);
    assert_string_equal(text, "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n");
    facet_free(text);
    assert_ok(facet_chat_render(w.model, messages, "[]", FACET_CHAT_THINK, &text, &n, &err), err);
    assert_non_null(strstr(text, "<|think|>"));
    facet_free(text);
    text = (char *)(uintptr_t)0x5a5a0;
    expect_error(facet_chat_render(w.model, "[{]", NULL, 0, &text, &n, &err), FACET_ERR_ARG, "messages: line 1");
    expect_error(facet_chat_render(w.model, "[]", NULL, 0, &text, &n, &err), FACET_ERR_ARG, "messages");
    expect_error(facet_chat_render(w.model, "{}", NULL, 0, &text, &n, &err), FACET_ERR_ARG, "messages");
    expect_error(facet_chat_render(w.model, messages, "[", 0, &text, &n, &err), FACET_ERR_ARG, "tools: line 1");
    expect_error(facet_chat_render(w.model, messages, "7", 0, &text, &n, &err), FACET_ERR_ARG, "tools");
    expect_error(facet_chat_render(w.model, messages, NULL, 8, &text, &n, &err), FACET_ERR_ARG, "flags are 0x8");
    assert_ptr_equal(text, (void *)(uintptr_t)0x5a5a0);
}

typedef struct parts {
    char thought[256], content[256], call[256];
} parts;

static void on_event(void *ud, const facet_chat_event *e)
{
    parts *p = ud;
    if (e->kind == FACET_CHAT_CALL) {
        snprintf(p->call, sizeof p->call, "%d:%.*s%.*s", e->call, (int)e->n, e->text, (int)e->n_arguments,
                 e->arguments);
        return;
    }
    strncat(e->kind == FACET_CHAT_THOUGHT ? p->thought : p->content, e->text, e->n);
}

static void push_text(facet_chat_parser *p, const char *text)
{
    int32_t *ids;
    size_t n;
    assert_ok(facet_tokenize(w.model, text, strlen(text), false, true, &ids, &n, &err), err);
    for (size_t i = 0; i < n; i++) assert_ok(facet_chat_parser_push(p, ids[i], &err), err);
    assert_ok(facet_chat_parser_finish(p, &err), err);
    facet_free(ids);
}

static void answers_are_taken_apart(void **state)
{
    (void)state;
    facet_chat_parser *p;
    parts got = {0};
    assert_ok(facet_chat_parser_open(w.model, PROMPT, strlen(PROMPT), on_event, &got, &p, &err), err);
    push_text(p,
              "<|channel>thought\nHm.<channel|>Wait.<|tool_call>call:get_weather{city:<|\"|>Oslo<|\"|>}<tool_call|>");
    facet_chat_parser_close(p);
    assert_string_equal(got.thought, "Hm.");
    assert_string_equal(got.content, "Wait.");
    assert_string_equal(got.call, "0:get_weather{\"city\":\"Oslo\"}");

    static const char open[] = "<|turn>model\n<|channel>thought\n";
    got = (parts){0};
    assert_ok(facet_chat_parser_open(w.model, open, strlen(open), on_event, &got, &p, &err), err);
    push_text(p, "So.<channel|>Yes.");
    facet_chat_parser_close(p);
    assert_string_equal(got.thought, "So.");
    assert_string_equal(got.content, "Yes.");
}

int main(void)
{
#define WITH_SESSION(f) cmocka_unit_test_setup_teardown(f, open_session, close_session)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_statuses_and_methods),
        cmocka_unit_test(the_model_is_described),
        WITH_SESSION(the_engine_is_described),
        WITH_SESSION(best_logits_and_hidden_agree),
        cmocka_unit_test(hidden_states_must_be_asked_for),
        cmocka_unit_test(captures_are_those_of_the_last_token),
        cmocka_unit_test(sessions_share_steps),
        WITH_SESSION(snapshots_by_the_public_interface),
        WITH_SESSION(parking_by_the_public_interface),
        WITH_SESSION(a_loop_of_ones_own_is_generation),
        WITH_SESSION(ends_are_told),
        WITH_SESSION(nothing_cannot_be_appended),
        WITH_SESSION(a_model_wants_a_path),
        WITH_SESSION(samplers_belong_to_a_model),
        cmocka_unit_test(closing_nothing_is_fine),
        WITH_SESSION(another_thread_cancels_within_a_step),
        WITH_SESSION(prompts_are_cancelled_between_steps),
        WITH_SESSION(a_cancellation_that_comes_early_stops_the_next_call),
        cmocka_unit_test(text_and_tokens),
        cmocka_unit_test(chats_are_rendered),
        cmocka_unit_test(answers_are_taken_apart),
    };
    return cmocka_run_group_tests_name("library", tests, begin, end);
}

/* Perplexity and divergence against a computation by hand: every scored position by a session of its own prefix, in
 * long double. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "decode/logits.h"
#include "decode/score.h"
#include "decode/session.h"

static const char text[] = "What is 82 - 61? The capital of France is Paris. Count from 3 to 9: 3, 4, 5, 6, 7, 8, 9. "
                           "Sort these: pear, apple, fig. Once upon a time there was a small boat on the river.";

typedef struct fixture {
    facet_model *model;
    facet_engine *engine;
    int32_t *ids;
    size_t n;
} fixture;

static fixture open_engine(const char *cache_type, int32_t n_ctx)
{
    fixture f = {0};
    facet_error err;
    assert_ok(facet_model_open(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", &f.model, &err), err);
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = n_ctx;
    p.cache_type_k = p.cache_type_v = cache_type;
    assert_ok(facet_engine_open(f.model, &p, &f.engine, &err), err);
    assert_ok(facet_tokenize(f.model, text, strlen(text), true, false, &f.ids, &f.n, &err), err);
    assert_true(f.n > 64);
    return f;
}

static void close_engine(fixture *f)
{
    for (int g = 0; g < f->engine->kv.n_groups; g++)
        assert_int_equal(kv_pool_free_pages(f->engine->pool, g), f->engine->kv.groups[g].n_pages);
    facet_free(f->ids);
    facet_engine_close(f->engine);
    facet_model_close(f->model);
}

/* Logits after each of the first n tokens, one token a step. Free with free(). */
static float *rows_by_session(facet_engine *e, const int32_t *tokens, size_t n)
{
    const size_t V = e->model->h.n_vocab;
    float *rows = malloc(n * V * sizeof *rows);
    facet_session *s;
    facet_error err;
    assert_ok(facet_session_open(e, &s, &err), err);
    for (size_t i = 0; i < n; i++) {
        assert_ok(facet_session_sync(s, tokens, i + 1, &err), err);
        assert_ok(facet_session_logits(s, rows + i * V, &err), err);
    }
    facet_session_close(s);
    return rows;
}

static void rows_have_the_bits_of_single_steps(void **state)
{
    (void)state;
    enum { N = 700 };
    fixture f = open_engine("f16", 1024);
    int32_t tokens[N];
    for (int i = 0; i < N; i++) tokens[i] = i ? f.ids[1 + (size_t)i % (f.n - 1)] : 2;
    float *want = rows_by_session(f.engine, tokens, N);
    static const size_t first[] = {0, 1, 63, 64, 447, 448, 449, 511, 512, 513, 699}; /* around the widths of a step */
    const size_t V = f.engine->model->h.n_vocab;
    logits_reader r = {0};
    facet_error err;
    assert_ok(logits_open(f.engine, &r, &err), err);
    for (size_t k = 0; k < sizeof first / sizeof *first; k++) {
        size_t pos = first[k], n_rows;
        const float *rows;
        assert_ok(logits_start(&r, tokens, N, first[k], &err), err);
        for (;;) {
            assert_ok(logits_next(&r, &rows, &n_rows, &err), err);
            if (!n_rows) break;
            assert_true(n_rows <= ENGINE_MAX_OUT && pos + n_rows <= N);
            if (memcmp(rows, want + pos * V, n_rows * V * sizeof *rows) != 0)
                fail_msg("first %zu: other bits in rows %zu..%zu", first[k], pos, pos + n_rows - 1);
            pos += n_rows;
        }
        assert_int_equal(pos, N);
    }
    logits_close(&r);
    free(want);
    close_engine(&f);
}

static void reader_refuses_what_does_not_fit(void **state)
{
    (void)state;
    fixture f = open_engine("f16", 32);
    logits_reader r = {0};
    facet_error err;
    assert_ok(logits_open(f.engine, &r, &err), err);
    assert_int_equal(logits_start(&r, f.ids, 33, 0, &err), FACET_ERR_LIMIT);
    assert_non_null(strstr(err.message, "33 tokens: the context holds 32"));
    assert_int_equal(logits_start(&r, f.ids, 8, 8, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "position 8"));
    logits_close(&r);
    close_engine(&f);
}

static long double log_sum(const float *x, size_t n)
{
    long double s = 0;
    for (size_t i = 0; i < n; i++) s += expl((long double)x[i]);
    return logl(s);
}

/* Every scored position of a text by hand. */
typedef struct by_hand {
    size_t n;
    long double nll[256], p[256]; /* of the text's next token */
    float *rows[256];             /* owned */
} by_hand;

static void score_by_hand(const fixture *f, size_t n_ctx, by_hand *h)
{
    const size_t V = f->engine->model->h.n_vocab;
    for (size_t at = 0; at + n_ctx <= f->n; at += n_ctx) {
        int32_t chunk[256];
        memcpy(chunk, f->ids + at, n_ctx * sizeof *chunk);
        chunk[0] = 2; /* <bos> */
        float *all = rows_by_session(f->engine, chunk, n_ctx - 1);
        for (size_t i = n_ctx / 2; i + 1 < n_ctx; i++) {
            float *row = malloc(V * sizeof *row);
            memcpy(row, all + i * V, V * sizeof *row);
            h->rows[h->n] = row;
            h->nll[h->n] = log_sum(row, V) - (long double)row[chunk[i + 1]];
            h->p[h->n] = expl(-h->nll[h->n]);
            h->n++;
        }
        free(all);
    }
}

static void free_by_hand(by_hand *h)
{
    for (size_t i = 0; i < h->n; i++) free(h->rows[i]);
}

static long double mean(const long double *x, size_t n)
{
    long double s = 0;
    for (size_t i = 0; i < n; i++) s += x[i];
    return s / (long double)n;
}

/* Standard error of the mean. */
static long double error_of_mean(const long double *x, size_t n)
{
    const long double m = mean(x, n);
    long double s = 0;
    for (size_t i = 0; i < n; i++) s += (x[i] - m) * (x[i] - m);
    return sqrtl(s / (long double)n / (long double)(n - 1));
}

static void assert_near(const char *what, double got, long double want)
{
    if (!(fabsl(got - want) <= 1e-12L * (1 + fabsl(want)))) fail_msg("%s: %.17g, wanted %.17Lg", what, got, want);
}

static void perplexity_equals_the_sum_by_hand(void **state)
{
    (void)state;
    fixture f = open_engine("f16", 256);
    static const size_t lengths[] = {4, 5, 16, 31};
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        by_hand h = {0};
        score_by_hand(&f, lengths[k], &h);
        const score_params p = {.tokens = f.ids, .n_tokens = f.n, .n_ctx = lengths[k]};
        score_ppl_result r;
        facet_error err;
        assert_ok(score_ppl(f.engine, &p, &r, &err), err);
        assert_int_equal(r.n_chunks, f.n / lengths[k]);
        assert_int_equal(r.n_scored, h.n);
        assert_int_equal(h.n, r.n_chunks * (lengths[k] - lengths[k] / 2 - 1));
        assert_near("mean nll", r.mean_nll, mean(h.nll, h.n));
        assert_near("ppl", r.ppl, expl(mean(h.nll, h.n)));
        assert_near("ppl error", r.ppl_error, expl(mean(h.nll, h.n)) * error_of_mean(h.nll, h.n));
        free_by_hand(&h);
    }
    close_engine(&f);
}

static int by_value(const void *x, const void *y)
{
    const long double a = *(const long double *)x, b = *(const long double *)y;
    return (a > b) - (a < b);
}

static size_t argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static long double kl_by_hand(const float *a, const float *b, size_t n)
{
    const long double sa = log_sum(a, n), sb = log_sum(b, n);
    long double kl = 0;
    for (size_t i = 0; i < n; i++) kl += expl(a[i] - sa) * ((a[i] - sa) - (b[i] - sb));
    return kl;
}

static void divergence_equals_the_sum_by_hand(void **state)
{
    (void)state;
    enum { N_CTX = 31 };
    fixture f = open_engine("f16", 64), g = open_engine("q8_0", 64);
    const size_t V = f.engine->model->h.n_vocab;
    by_hand a = {0}, b = {0};
    score_by_hand(&f, N_CTX, &a);
    score_by_hand(&g, N_CTX, &b);
    long double kl[256], dp[256];
    size_t n_same = 0;
    for (size_t i = 0; i < a.n; i++) {
        kl[i] = kl_by_hand(a.rows[i], b.rows[i], V);
        dp[i] = (b.p[i] - a.p[i]) * (b.p[i] - a.p[i]);
        n_same += argmax(a.rows[i], V) == argmax(b.rows[i], V);
    }
    const score_params p = {.tokens = f.ids, .n_tokens = f.n, .n_ctx = N_CTX};
    score_kl_result r;
    facet_error err;
    assert_ok(score_kl(f.engine, g.engine, &p, &r, &err), err);
    assert_int_equal(r.n_chunks, f.n / N_CTX);
    assert_int_equal(r.n_scored, a.n);
    assert_true(r.mean > 1e-9); /* the caches do differ */
    assert_near("mean", r.mean, mean(kl, a.n));
    assert_near("error", r.mean_error, error_of_mean(kl, a.n));
    assert_near("same argmax", r.same_argmax, (long double)n_same / (long double)a.n);
    assert_near("rms delta p", r.rms_delta_p, sqrtl(mean(dp, a.n)));
    assert_near("ppl a", r.ppl_a, expl(mean(a.nll, a.n)));
    assert_near("ppl b", r.ppl_b, expl(mean(b.nll, b.n)));
    qsort(kl, a.n, sizeof *kl, by_value);
    assert_near("max", r.max, kl[a.n - 1]);
    const size_t m = (a.n - 1) / 2;
    assert_near("median", r.median, a.n % 2 ? kl[m] : (kl[m] + kl[m + 1]) / 2);
    const long double at = 0.99L * (long double)(a.n - 1);
    const size_t i = (size_t)at;
    assert_near("p99", r.p99, kl[i] + (at - (long double)i) * (kl[i + 1] - kl[i]));
    free_by_hand(&a);
    free_by_hand(&b);
    close_engine(&f);
    close_engine(&g);
}

static void no_divergence_from_itself(void **state)
{
    (void)state;
    fixture f = open_engine("q8_0", 64), g = open_engine("q8_0", 64);
    const score_params p = {.tokens = f.ids, .n_tokens = f.n, .n_ctx = 32};
    score_kl_result r;
    facet_error err;
    assert_ok(score_kl(f.engine, g.engine, &p, &r, &err), err);
    assert_int_equal(r.n_scored, f.n / 32 * 15);
    assert_true(r.mean == 0 && r.mean_error == 0 && r.median == 0 && r.p99 == 0 && r.max == 0);
    assert_true(r.same_argmax == 1 && r.rms_delta_p == 0 && r.ppl_a == r.ppl_b);
    close_engine(&f);
    close_engine(&g);
}

static void bad_parameters_are_refused(void **state)
{
    (void)state;
    fixture f = open_engine("f16", 64);
    score_ppl_result r;
    facet_error err;
    score_params p = {.tokens = f.ids, .n_tokens = f.n, .n_ctx = 3};
    assert_int_equal(score_ppl(f.engine, &p, &r, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "chunks of 3 tokens: wanted at least 4"));
    p = (score_params){.tokens = f.ids, .n_tokens = 31, .n_ctx = 32};
    assert_int_equal(score_ppl(f.engine, &p, &r, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "31 tokens of text: a chunk has 32"));
    p = (score_params){.tokens = f.ids, .n_tokens = f.n, .n_ctx = 66};
    assert_int_equal(score_ppl(f.engine, &p, &r, &err), FACET_ERR_LIMIT);
    p.n_ctx = 16;
    const int32_t kept = f.ids[15]; /* never evaluated: it is only predicted */
    f.ids[15] = 1 << 20;
    assert_int_equal(score_ppl(f.engine, &p, &r, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "chunk 0, position 15: token 1048576"));
    f.ids[15] = kept;
    p.max_chunks = 2;
    assert_ok(score_ppl(f.engine, &p, &r, &err), err);
    assert_int_equal(r.n_chunks, 2);
    close_engine(&f);
}

/* Every allocation fails once: a clean error, no page and no byte lost, and the engines still work. */
static void short_memory_is_survived(void **state)
{
    (void)state;
    fixture f = open_engine("f16", 64), g = open_engine("q8_0", 64);
    const score_params p = {.tokens = f.ids, .n_tokens = f.n, .n_ctx = 16, .max_chunks = 2};
    score_kl_result r;
    facet_error err;
    int n_failed = 0;
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        const facet_status status = score_kl(f.engine, g.engine, &p, &r, &err);
        const uint64_t calls = mem_fail_at(0);
        if (status == FACET_OK && calls < n) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
        n_failed++;
    }
    assert_true(n_failed >= 4); /* the chunk, the list, two blocks of rows */
    close_engine(&f);
    close_engine(&g);
}

static void log_sum_exp_is_stable(void **state)
{
    (void)state;
    const float big[] = {1e30f, 1e30f}, low[] = {-1e30f, -1e30f, -1e30f}, out[] = {-INFINITY, 3, -INFINITY};
    assert_near("big", score_log_sum_exp(big, 2) / 1e30, (long double)1e30f / 1e30L);
    assert_near("low", score_log_sum_exp(low, 3) / 1e30, (long double)-1e30f / 1e30L);
    assert_near("with -inf", score_log_sum_exp(out, 3), 3);
    assert_near("small", score_log_sum_exp((const float[]){0, 0, 0, 0}, 4), logl(4));
    const float nan_first[] = {NAN, 1}, nan_last[] = {1, NAN}, inf[] = {1, INFINITY};
    assert_true(isnan(score_log_sum_exp(nan_first, 2)) && isnan(score_log_sum_exp(nan_last, 2)));
    assert_true(isinf(score_log_sum_exp(inf, 2)));
    assert_true(score_log_sum_exp((const float[]){-INFINITY}, 1) == -INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_the_bits_of_single_steps), cmocka_unit_test(reader_refuses_what_does_not_fit),
        cmocka_unit_test(perplexity_equals_the_sum_by_hand),  cmocka_unit_test(divergence_equals_the_sum_by_hand),
        cmocka_unit_test(no_divergence_from_itself),          cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(short_memory_is_survived),           cmocka_unit_test(log_sum_exp_is_stable),
    };
    return cmocka_run_group_tests_name("score", tests, NULL, NULL);
}

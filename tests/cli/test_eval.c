/* facet eval ppl and kl as a person runs them: the printed figures are those of the library (tests/decode/test_score.c
 * checks these by hand), and option strings are cut into words as a shell would. */
#define _GNU_SOURCE
#include "testing.h"

#include <jansson.h>
#include <math.h>
#include <sys/wait.h>

#include "../file/temp_dir.h"
#include "decode/score.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"

static const char text[] = "What is 82 - 61? The capital of France is Paris. Count from 3 to 9: 3, 4, 5, 6, 7, 8, 9. "
                           "Sort these: pear, apple, fig. <turn|> Once upon a time there was a small boat.";

/* Standard output of `facet ARGS` as JSON. */
static json_t *run_json(const char *args)
{
    char command[2048];
    snprintf(command, sizeof command, "env -u FACET_MODEL %s/facet %s 2>/dev/null </dev/null", FACET_BINARY_DIR, args);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    json_error_t e;
    json_t *j = json_loadf(p, 0, &e);
    const int status = pclose(p);
    if (!j || !WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("facet %s: status %d, %s", args, status, e.text);
    return j;
}

static void assert_real(const json_t *j, const char *name, double want)
{
    const double got = json_number_value(json_object_get(j, name));
    if (!(fabs(got - want) <= 1e-12 * fabs(want))) fail_msg("%s: %.17g, wanted %.17g", name, got, want);
}

static void assert_count(const json_t *j, const char *name, size_t want)
{
    assert_int_equal(json_integer_value(json_object_get(j, name)), want);
}

typedef struct fixture {
    facet_model *model;
    facet_engine *engine;
} fixture;

static fixture open_engine(const char *cache_type)
{
    fixture f;
    facet_error err;
    assert_ok(facet_model_open(MODEL, &f.model, &err), err);
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 256;
    p.cache_type_k = p.cache_type_v = cache_type;
    assert_ok(facet_engine_open(f.model, &p, &f.engine, &err), err);
    return f;
}

static void close_engine(fixture *f)
{
    facet_engine_close(f->engine);
    facet_model_close(f->model);
}

static int32_t *text_tokens(const facet_model *m, bool parse_special, size_t *n)
{
    int32_t *ids;
    facet_error err;
    assert_ok(facet_tokenize(m, text, strlen(text), true, parse_special, &ids, n, &err), err);
    return ids;
}

static int setup(void **state)
{
    if (temp_dir_make(state) != 0) return -1;
    write_file(temp_file("text.txt"), text, strlen(text));
    return symlink(MODEL, temp_file("a 'b'\\c.gguf"));
}

static void ppl_prints_the_librarys_figures(void **state)
{
    (void)state;
    fixture f = open_engine("f16");
    static const struct {
        const char *options;
        size_t n_ctx, max_chunks; /* 0 = the whole text */
        bool parse_special;
    } rows[] = {{"-c 16", 16, 0, false},
                {"-c 16 --special", 16, 0, true},
                {"-c 16 --chunks 2", 16, 2, false},
                {"-c 0", 0, 0, false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char args[1024];
        snprintf(args, sizeof args, "eval ppl -m %s --device cpu --json %s %s", MODEL, rows[i].options,
                 temp_file("text.txt"));
        json_t *j = run_json(args);
        size_t n;
        int32_t *ids = text_tokens(f.model, rows[i].parse_special, &n);
        const size_t n_ctx = rows[i].n_ctx ? rows[i].n_ctx : n;
        const score_params p = {.tokens = ids, .n_tokens = n, .n_ctx = n_ctx, .max_chunks = rows[i].max_chunks};
        score_ppl_result r;
        facet_error err;
        assert_ok(score_ppl(f.engine, &p, &r, &err), err);
        assert_real(j, "ppl", r.ppl);
        assert_real(j, "ppl_error", r.ppl_error);
        assert_real(j, "mean_nll", r.mean_nll);
        assert_count(j, "tokens", r.n_scored);
        assert_count(j, "chunks", r.n_chunks);
        assert_count(j, "ctx", n_ctx);
        facet_free(ids);
        json_decref(j);
    }
    close_engine(&f);
}

static void kl_prints_the_librarys_figures(void **state)
{
    (void)state;
    fixture a = open_engine("f16"), b = open_engine("q8_0");
    char args[2048];
    /* b's model by a path with blanks, quotes and a backslash; the cache type of both outside, overruled in a */
    snprintf(args, sizeof args,
             "eval kl --a '-m %s -ctk f16 --cache-type-v=f16' --b '-m \"%s/a '\\''b'\\''\\\\c.gguf\"' -ctk q8_0 -ctv "
             "q8_0 --device cpu -c 16 --json %s",
             MODEL, temp_dir, temp_file("text.txt"));
    json_t *j = run_json(args);
    size_t n;
    int32_t *ids = text_tokens(a.model, false, &n);
    const score_params p = {.tokens = ids, .n_tokens = n, .n_ctx = 16};
    score_kl_result r;
    facet_error err;
    assert_ok(score_kl(a.engine, b.engine, &p, &r, &err), err);
    assert_true(r.mean > 0);
    assert_real(j, "mean_kl", r.mean);
    assert_real(j, "mean_kl_error", r.mean_error);
    assert_real(j, "median_kl", r.median);
    assert_real(j, "p99_kl", r.p99);
    assert_real(j, "max_kl", r.max);
    assert_real(j, "same_argmax", r.same_argmax);
    assert_real(j, "rms_delta_p", r.rms_delta_p);
    assert_real(j, "ppl_a", r.ppl_a);
    assert_real(j, "ppl_b", r.ppl_b);
    assert_count(j, "tokens", r.n_scored);
    assert_count(j, "chunks", r.n_chunks);
    assert_count(j, "ctx", 16);
    facet_free(ids);
    json_decref(j);
    close_engine(&a);
    close_engine(&b);
}

static void kl_of_a_configuration_with_itself_is_zero(void **state)
{
    (void)state;
    char args[1024];
    snprintf(args, sizeof args, "eval kl --a '-t 1' --b '-t 2' -m %s --device cpu -c 32 --json %s", MODEL,
             temp_file("text.txt"));
    json_t *j = run_json(args);
    static const char *const zero[] = {"mean_kl", "mean_kl_error", "median_kl", "p99_kl", "max_kl", "rms_delta_p"};
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) {
        const json_t *v = json_object_get(j, zero[i]);
        assert_true(json_is_number(v) && json_number_value(v) == 0);
    }
    assert_real(j, "same_argmax", 1);
    assert_true(json_integer_value(json_object_get(j, "tokens")) > 0);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ppl_prints_the_librarys_figures),
        cmocka_unit_test(kl_prints_the_librarys_figures),
        cmocka_unit_test(kl_of_a_configuration_with_itself_is_zero),
    };
    return cmocka_run_group_tests_name("eval", tests, setup, temp_dir_remove);
}
